-- What belongs together: problems with one cause, told, acknowledged and closed as one.

create table incidents (
    id integer primary key not null,
    extent text not null,                       -- service | host | site | gateway
    cause text not null,                        -- service_failed | host_down | parent_down | site_lost | ...
    words text not null,                        -- the cause for people
    site text,                                  -- the label that its hosts share
    head integer,                               -- the host whose loss explains the others'; 0: the gateway
    opened_at integer not null,
    closed_at integer,                          -- since when nothing of it is wrong
    merged_into integer references incidents (id),  -- the last of a chain: one step is enough
    acked_at integer,                           -- the last acknowledgement
    ack_author text,
    ack_comment text,
    ack_sticky integer,
    ack_expires_at integer,
    ack_ended_at integer
) strict;
create index incidents_open on incidents (id) where closed_at is null;
create index incidents_merged on incidents (merged_into) where merged_into is not null;

create table incident_members (
    incident integer not null references incidents (id),
    host integer not null,                      -- 0: the gateway
    service text not null,                      -- empty: the host
    began_at integer not null,                  -- its first failure
    joined_at integer not null,
    left_at integer,                            -- well again, or not of this any more
    primary key (incident, host, service)
) strict;
create index incident_members_object on incident_members (host, service, joined_at);

alter table notices add column incident integer;                -- as it was then: it may have been merged
alter table notices add column note text not null default '';   -- who did what it tells, and why
create index notices_incident on notices (incident, id) where incident is not null;
alter table acknowledgements add column incident integer;       -- given to this, not to the object itself

-- A rule's delay that an acknowledgement has stopped runs anew when that ends.
alter table notices_held add column stopped integer not null default 0;
create index notices_held_stopped on notices_held (notice) where stopped = 1;

alter table outbox add column folded integer not null default 0;    -- so many messages were made one
