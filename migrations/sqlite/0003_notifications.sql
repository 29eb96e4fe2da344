-- Who is told of what, and what became of each message. Contact 0 is the one of the settings.

create table contacts (
    id integer primary key not null,
    name text not null,
    emails text not null default '[]',          -- JSON array of mailboxes
    webhook_url text,
    webhook_secret blob,                        -- sealed
    time_zone text not null,
    digest_at text,                             -- HH:MM in the time zone
    group_wait_ms integer,                      -- NULL: the setting
    managed_by text not null default 'api',
    version integer not null default 1,
    created_at integer not null,
    digested_at integer not null                -- the last digest, or the creation
) strict;
create unique index contacts_name on contacts (name);

create table notification_rules (
    id integer primary key not null,
    name text not null,
    contact integer not null references contacts (id),
    labels text not null default '{}',          -- JSON object; the value * takes any
    severity text not null,                     -- warning | unknown | critical: the mildest that is told
    period text,
    delay_ms integer not null default 0,
    managed_by text not null default 'api',
    version integer not null default 1,
    created_at integer not null
) strict;
create unique index notification_rules_name on notification_rules (name);

-- What the monitor had to say, whoever was told of it.
create table notices (
    id integer primary key autoincrement not null,
    at integer not null,
    event integer references events (seq),      -- what made it necessary
    host integer not null,
    host_name text not null,
    service text,
    labels text not null default '{}',          -- the host's, at the time
    kind text not null,                         -- problem | recovery | reminder | ...
    problem integer not null,
    from_state text not null,
    to_state text not null,
    output text not null,
    since integer not null,
    routed_at integer                           -- NULL: nobody has looked yet
) strict;
create index notices_object on notices (host, id);
create index notices_new on notices (id) where routed_at is null;

-- What the router must know after a restart.
create table notices_waiting (
    contact integer not null,
    notice integer not null references notices (id),
    why text not null,                          -- group | delay | period
    until integer not null,
    primary key (contact, notice)
) strict;
create index notices_waiting_notice on notices_waiting (notice);
create table notices_told (
    contact integer not null,
    host integer not null,
    service text not null,                      -- empty: the host
    root integer not null,                      -- the notice that began the conversation
    last integer not null,
    at integer not null,
    severity text,
    primary key (contact, host, service)
) strict;

-- Why a notice was not told, by the event that says so.
create table notices_held (
    notice integer not null references notices (id),
    contact integer,                            -- NULL: nobody was told
    event integer not null references events (seq)
) strict;
create index notices_held_notice on notices_held (notice);

-- Messages on their way: one to each address of a contact.
alter table outbox rename to outbox_before;
drop index outbox_due;
create table outbox (
    id integer primary key autoincrement not null,
    contact integer not null,
    contact_name text not null,
    channel text not null,                      -- email | webhook
    address text not null,
    kind text not null,                         -- notices | digest | test
    site text not null default '',              -- the label that its hosts share
    created_at integer not null,
    attempts integer not null default 0,
    next_attempt integer not null,
    last_error text,
    sent_at integer,
    given_up_at integer
) strict;
create index outbox_waiting on outbox (channel, address, id) where sent_at is null and given_up_at is null;
create table outbox_notices (
    message integer not null references outbox (id),
    notice integer not null references notices (id),
    root integer not null,                      -- the notice whose message this one answers
    dropped text,                               -- why it is not told any more
    primary key (message, notice)
) strict;
create index outbox_notices_notice on outbox_notices (notice);

insert into notices (id, at, event, host, host_name, service, kind, problem, from_state, to_state, output,
                     since, routed_at)
select min(id), created_at, event, host, body ->> '$.host_name', body ->> '$.service',
       coalesce(nullif(body ->> '$.kind', ''), iif(body ->> '$.problem', 'problem', 'recovery')),
       body ->> '$.problem', body ->> '$.from', body ->> '$.to', body ->> '$.output', body ->> '$.since',
       created_at
from outbox_before group by event, host, body ->> '$.service', created_at;
insert into outbox (id, contact, contact_name, channel, address, kind, created_at, attempts, next_attempt,
                    last_error, sent_at, given_up_at)
select id, 0, 'default', 'email', recipient, 'notices', created_at, attempts, next_attempt, last_error,
       sent_at, given_up_at
from outbox_before where recipient != '';
insert into outbox_notices (message, notice, root)
select o.id, n.id, n.id from outbox_before o
join notices n on n.event is o.event and n.host = o.host and n.service is (o.body ->> '$.service')
              and n.routed_at = o.created_at
where o.recipient != '';
drop table outbox_before;
