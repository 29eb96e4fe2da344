-- Whether the account of renters could become root since a rental has its access: what a profile says may change meanwhile.
alter table device_ssh_access add column rooted integer not null default 0;
update device_ssh_access set rooted = 1
where rental is not null and device in (select device from device_rental_settings where ssh_root = 1);
-- Until now, the keys of a device counted as known only while its account could become root.
update device_ssh_access set exposed_key = null, exposed_pin = null
where device not in (select device from device_rental_settings where ssh_root = 1);
