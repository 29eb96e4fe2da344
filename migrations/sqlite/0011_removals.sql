-- What a program manages and somebody else took away, or gave another name: so that the program sees it
-- and does not make it again by itself.
create table removals (
    id integer primary key not null,
    manager text not null,
    kind text not null,
    name text not null,                         -- of a service: its host's name, a slash, its own
    renamed_to text,                            -- NULL: it is no more
    removed_by text not null,
    removed_at integer not null,
    unique (manager, kind, name)
) strict;
