-- Rentals let renters reach their devices, at an address of their own. What a rental permits from before this step,
-- and what a device allows, is ICMP and TCP 22, 80 and 443. Their addresses are allocated at the next start.
alter table rentals add column name text not null default '';
alter table rentals add column access text not null
    default '[{"protocol":"icmp","ports":[]},{"protocol":"tcp","ports":[[22,22],[80,80],[443,443]]}]';
alter table rentals add column admits text;             -- JSON array of ids of renters; NULL: all of the customer
alter table rentals add column alias_slot integer;      -- within the block of the customer; NULL: none yet
alter table rentals add column alias_v4 text;
alter table rentals add column alias_v6 text;
alter table rentals add column alias_freed_at integer;  -- when the alias was taken from it, after it had rested
create index rentals_with_alias on rentals (device) where alias_slot is not null and alias_freed_at is null;
create index rentals_alias_v4 on rentals (alias_v4) where alias_freed_at is null;
create index rentals_alias_v6 on rentals (alias_v6) where alias_freed_at is null;

alter table device_rental_settings add column access text not null
    default '[{"protocol":"icmp","ports":[]},{"protocol":"tcp","ports":[[22,22],[80,80],[443,443]]}]';

-- Those that have not ended get the lowest numbers.
update rentals set name = 'device-' || numbered.n
from (select r.id, row_number() over (partition by b.customer
                                      order by r.ended_at is not null, r.until_at desc, r.id) as n
      from rentals r join bookings b on b.id = r.booking) as numbered
where numbered.id = rentals.id;
