-- Runs on a device after a rental. NULL: nothing does.
alter table device_rental_settings add column cleaning_command text;

-- What a device has of its rentals, and is to lose. Without a row: nothing.
create table device_ssh_access (
    device integer primary key not null references hosts (id),
    rental integer references rentals (id),     -- whose renters can log in, or perhaps can; NULL: none
    granted text,                               -- until when and with which keys, as JSON; NULL: no grant has succeeded
    used_by integer references rentals (id),    -- after which it is to be cleaned; NULL: none
    failure text,                               -- why the last call failed; NULL: it did not
    -- The keys of the device that a renter with root may have copied. NULL: none.
    exposed_key text,
    exposed_pin text
) strict;
