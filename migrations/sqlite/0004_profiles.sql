-- Profiles beside those that are built in, rules that choose among them, and who manages what.

create table profiles (
    name text primary key not null,
    summary text not null default '',
    extends text not null default '[]',         -- JSON array of names, in order
    services text not null default '{}',        -- JSON object: what is added, or differs
    managed_by text not null default 'api',
    edited_by text,
    version integer not null default 1
) strict;

-- One row: the rules are one list, since their order says which of them wins.
create table profile_rules (
    id integer primary key not null check (id = 1),
    rules text not null default '[]',           -- JSON array of {labels, profile}
    managed_by text not null default 'api',
    edited_by text,
    version integer not null default 1
) strict;
insert into profile_rules (id, version) values (1, 1);

-- Who changed by hand what another manages; NULL: it is as its manager left it.
alter table hosts add column edited_by text;
alter table service_overrides add column edited_by text;
alter table contacts add column edited_by text;
alter table notification_rules add column edited_by text;

-- Empty: by the rules, and `default` where none speaks of the host. So far it was filled in.
update hosts set profile = '' where profile = 'default';
update enrolment_tokens set profile = '' where profile = 'default';
