-- Devices that are sent to their renters. Rentals from before this step are of mounted devices.
alter table device_rental_settings add column delivery text not null default 'mounted';  -- mounted or shipped

alter table rentals add column shipped integer not null default 0;      -- 1: its device is sent to the renters
alter table rentals add column dispatched_at integer;                   -- NULL: the device has not left
alter table rentals add column first_contact_at integer;                -- when it was heard from after it had left
alter table rentals add column returned_at integer;                     -- NULL: the device has not come back
-- The few whose device is away. The statements in `store/rentals` have the same words.
create index rentals_away on rentals (device) where dispatched_at is not null and returned_at is null;
