-- What held of hosts and services, and from when to when. Availability is computed from it.
create table intervals (
    id integer primary key not null,
    host integer not null,                      -- 0: the gateway
    service text not null,                      -- empty: the host
    series text not null,                       -- state | downtime | unreachable | gateway_stopped | uplink_lost
    value text not null,                        -- of `state` the hard state; empty otherwise
    began_at integer not null,
    ended_at integer                            -- not included; NULL: it lasts
) strict;
-- Has all columns, so that a report reads no other page.
create index intervals_object on intervals (host, service, series, began_at, ended_at, value);

-- What holds now. Earlier states are not known to the second.
insert into intervals (host, service, series, value, began_at)
    select host, '', 'state', hard, unixepoch() * 1000 from host_states where hard in ('up', 'down');
insert into intervals (host, service, series, value, began_at)
    select host, service, 'state', hard, unixepoch() * 1000 from service_states where hard is not null;
insert into intervals (host, service, series, value, began_at)
    select host, '', 'downtime', '', unixepoch() * 1000 from host_states
    where iif(json_valid(notification), notification ->> '$.occasion', null) is not null;
insert into intervals (host, service, series, value, began_at)
    select host, service, 'downtime', '', unixepoch() * 1000 from service_states
    where iif(json_valid(notification), notification ->> '$.occasion', null) is not null;
insert into intervals (host, service, series, value, began_at)
    select host, '', 'unreachable', '', unixepoch() * 1000 from host_states where reachable = 0;
insert into intervals (host, service, series, value, began_at)
    select 0, '', 'uplink_lost', '', unixepoch() * 1000
    where (select max(seq) from events where kind = 'uplink.lost')
          > coalesce((select max(seq) from events where kind = 'uplink.back'), 0);

-- A clock that is behind at the start would give them years in which nothing was watched.
update intervals set began_at = (select cast(value as integer) from settings where name = 'clock_floor')
    where began_at < (select cast(value as integer) from settings where name = 'clock_floor');
