-- The names of the series of the history. Their numbers are in the keys of the blocks and are never reused.
create table series (
    id integer primary key autoincrement not null,
    host integer not null,
    service text not null,                      -- empty: the host check
    label text not null,
    uom text not null,
    last_at integer not null,                   -- a recent sample, in seconds since 1970; at most some days old if there is a newer one
    unique (host, service, label)
) strict;

-- Samples that no block of the history has yet, a row or more for each commit. A generation is what one seal takes; its rows
-- follow those of the one before.
create table redo (
    id integer primary key not null,
    generation integer not null,
    data blob not null
) strict;
