-- How the devices of a profile are rented, as JSON, such as {"preparation_ms":1800000}. What is absent it does not say.
alter table profiles add column rental text not null default '{}';
-- The settings of a device that are not its own: JSON array of names. Their columns have what its profile says, or the
-- default. What devices have today stays theirs.
alter table device_rental_settings add column inherited text not null default '[]';
