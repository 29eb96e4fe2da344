-- SSH for renters: their keys, which rentals give it, what devices have for it, and the host keys that renters check.
alter table renters add column ssh_keys text not null default '[]';       -- JSON list of public keys, without comments
alter table rentals add column ssh integer not null default 0;            -- 1: the renters may log in
alter table device_rental_settings add column ssh_account text;           -- the account of renters; NULL: none
alter table device_rental_settings add column ssh_mode text               -- what its sshd takes; NULL: not known yet
    check (ssh_mode in ('certificates', 'keys'));
alter table device_rental_settings add column ssh_root integer not null default 0; -- 1: the account can become root
-- Of the key whose fingerprint is ssh_pin; NULL until the server has shown it.
alter table hosts add column ssh_pin_line text;                           -- ssh-ed25519 AAAA...
