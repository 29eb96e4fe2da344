-- What hosts and services say and when; what people do about it.

-- Hosts that stand before this one, beside the device it is behind: a JSON array of ids.
alter table hosts add column parents text not null default '[]';
-- JSON, only what differs from the usual: volatile, flapping, notify.
alter table hosts add column alerting text not null default '{}';

-- JSON: recent results, flapping, downtime, and what keeps a notice back.
alter table host_states add column voice text not null default '{}';
alter table service_states add column voice text not null default '{}';

-- Somebody knows of a problem. `service` is empty for the host itself.
create table acknowledgements (
    id integer primary key not null,
    host integer not null references hosts (id),
    service text not null default '',
    sticky integer not null,
    expires_at integer,
    author text not null,                       -- the principal
    comment text not null,
    created_at integer not null,
    ended_at integer
) strict;
create unique index acknowledgements_open on acknowledgements (host, service) where ended_at is null;

-- Work that is done on something. Either one host or a selection by labels.
create table downtimes (
    id integer primary key not null,
    host integer references hosts (id),
    labels text,                                -- JSON object: all of these
    service text,                               -- NULL: the host and all its services
    start_at integer not null,
    end_at integer not null,                    -- not included
    duration_ms integer,                        -- flexible: from the first failure on; NULL: fixed
    author text not null,
    comment text not null,
    created_at integer not null,
    cancelled_at integer,
    cancelled_by text
) strict;
create index downtimes_open on downtimes (end_at) where cancelled_at is null;
