-- Who changed a rental, and when. Events are kept for a time only, and a rental may last for years.
create table rental_changes (
    id integer primary key autoincrement not null,
    rental integer not null references rentals (id),
    at integer not null,
    author text not null,
    what text not null,                         -- booked | confirmed | changed | cancelled | ended | lapsed
    changed text not null default '[]',         -- of `changed`: JSON, such as ["until","device"]
    device integer not null references hosts (id),
    from_at integer not null,
    until_at integer not null
) strict;
create index rental_changes_rental on rental_changes (rental);

-- Of the devices and ends before the present ones only the events have something.
insert into rental_changes (rental, at, author, what, device, from_at, until_at)
    select r.id, r.created_at, b.author, 'booked', r.device, r.from_at, r.until_at
    from rentals r join bookings b on b.id = r.booking order by r.id;
insert into rental_changes (rental, at, author, what, changed, device, from_at, until_at)
    select r.id, e.at, e.principal, substr(e.kind, 8),
           iif(e.kind = 'rental.changed' and json_valid(e.data), coalesce(e.data -> '$.changed', '[]'), '[]'),
           r.device, r.from_at, r.until_at
    from events e join rentals r on r.id = e.object_id
    where e.kind in ('rental.changed', 'rental.cancelled', 'rental.ended') order by e.seq;
insert into rental_changes (rental, at, author, what, device, from_at, until_at)
    select id, ended_at, 'system', 'lapsed', device, from_at, until_at from rentals where end_reason = 'lapsed'
    order by id;

-- The final reports of rentals. They have ids and no personal data, so that they stay when a customer is erased.
create table rental_reports (
    rental integer primary key not null references rentals (id),
    report text not null,                       -- JSON, as the API sends it
    sha256 blob not null,                       -- of the report
    frozen_at integer not null
) strict;
alter table rentals add column reported integer not null default 0; -- 1: it has a final report
create index rentals_reported on rentals (coalesce(ended_at, until_at)) where reported = 0;
