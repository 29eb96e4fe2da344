-- The type of the pinned host key as known_hosts names it; null while only its fingerprint is known.
alter table hosts add column ssh_pin_type text;
