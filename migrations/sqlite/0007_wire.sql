-- What devices cost on the wire, by UTC day since 1970: datagrams of both directions with their UDP and
-- IP headers. Days that are too old go a little at a time.
create table wire_days (
    day integer not null,
    peer integer not null references peers (id),
    rx_bytes integer not null,
    tx_bytes integer not null,
    primary key (day, peer)
) strict, without rowid;

-- What the checks of a device keep to; NULL: no limit.
alter table hosts add column budget_bytes_per_day integer;
