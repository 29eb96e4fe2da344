-- The history database: samples only, so that its size or loss never touches access.
create table series (
    id integer primary key not null,
    host integer not null,
    service text not null,                      -- empty: the host check
    label text not null,
    uom text not null,
    unique (host, service, label)
) strict;

create table samples (
    series integer not null references series (id),
    at integer not null,
    value real,                                 -- NULL: the plugin said U
    primary key (series, at)
) strict, without rowid;
