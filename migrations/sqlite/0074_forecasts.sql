-- The newest forecast of the metric `used` of a service, from the history. Times are in milliseconds since 1970.
create table forecasts (
    host integer not null references hosts (id),
    service text not null,
    at integer not null,
    full_at integer,                            -- NULL: not full for long, or never
    text text not null,
    basis text not null,                        -- JSON
    primary key (host, service)
) strict, without rowid;

-- The last forecast of each UTC day that said when it is full, by which later ones tell how far it was off.
create table forecast_days (
    host integer not null references hosts (id),
    service text not null,
    day integer not null,
    at integer not null,
    full_at integer not null,
    primary key (host, service, day)
) strict, without rowid;
