-- Peers of people. The row in `peers` has the same id and the kind 'operator'.
create table operators (
    id integer primary key not null references peers (id),
    user integer not null,                      -- no reference: a removed user leaves no row
    name text not null,
    version integer not null default 1,         -- the ETag
    created_at integer not null,
    removed_at integer
) strict;
create unique index operators_name on operators (name) where removed_at is null;
create index operators_user on operators (user) where removed_at is null;

-- Who may reach what, and when. One of the columns source_... is set, and at most one of target_...:
-- without any, the target is all devices.
create table grants (
    id integer primary key not null,
    name text,                                  -- in the file of its manager
    source_peer integer references peers (id),
    source_user integer,                        -- no reference: a removed user leaves no row
    source_user_name text,                      -- the user's name, which outlives the user
    source_role text,                           -- operator | admin
    target_host integer references hosts (id),
    target_labels text,                         -- JSON object of strings
    access text not null,                       -- JSON, such as [{"protocol":"tcp","ports":[[22,22],[80,80]]}]
    from_at integer,                            -- NULL: since it was made
    until_at integer,                           -- not included; NULL: until it is withdrawn
    reason text not null default '',
    author text not null,
    managed_by text not null default 'api',
    edited_by text,
    version integer not null default 1,         -- the ETag
    created_at integer not null,
    withdrawn_at integer,
    withdrawn_by text
) strict;
create index grants_standing on grants (until_at) where withdrawn_at is null;

-- A gateway has these from its first start on. Whoever withdraws one does not get it back.
insert into grants (id, name, source_role, access, reason, author, created_at)
select n, role || 's', role,
       '[{"protocol":"icmp","ports":[]},{"protocol":"tcp","ports":[[22,22],[80,80],[443,443]]}]',
       'default: ' || role || 's reach the usual ports of every device', 'system',
       cast(unixepoch('subsec') * 1000 as integer)
from (select 1 as n, 'operator' as role union all select 2, 'admin');
