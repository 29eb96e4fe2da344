-- A fleet as `bench reading` wants it: $1 hosts in sites of 50, every fifth site down for an hour, three services
-- each, and $2 events of two years. $3: now. A host is asked once a week, so that nothing but the benchmark changes it.
insert into hosts (id, name, labels, profile, interval_ms, created_at)
with recursive n (n) as (select 0 union all select n + 1 from n where n + 1 < $1)
select n + 1, printf('h-%05d', n), json_object('part', printf('p-%d', n % 10), 'site', printf('s-%03d', n / 50)), 'bench', 604800000, $3 from n;

insert into peers (id, kind, created_at) select id, 'device', $3 from hosts;
insert into peer_keys (public_key, peer, added_at) select printf('%042d', id) || 'A=', id, $3 from hosts;
insert into peer_memory (peer, endpoint, last_packet, last_handshake)
select id, '192.0.2.1:51820', iif(id / 50 % 5, $3, $3 - 3660000), $3 - 3700000 from hosts;

insert into host_states (host, status, kind, attempt, hard, reachable, stale, asleep, since, last_check, next_check,
                         source, output, notified, silent_since, last_alive)
select id, iif(up, 'up', 'down'), 'hard', 1, iif(up, 'up', 'down'), 1, 0, 0, $3 - 3600000, $3 - 60000 + id,
       $3 + 604800000 + id, iif(up, 'evidence', 'none'),
       iif(up, 'packet 12 s ago', 'no answer within 10 s: neither an echo nor a connection nor a handshake'),
       iif(up, null, 'down'), iif(up, null, $3 - 3600000), iif(up, $3, $3 - 3660000)
from (select id, (id - 1) / 50 % 5 > 0 as up from hosts);

insert into service_states (host, service, status, kind, attempt, hard, stale, since, last_check, next_check, route,
                            output, long_output, metrics, warnings)
select h.id, s.value, 'ok', 'hard', 1, 'ok', (h.id - 1) / 50 % 5 = 0, $3 - 86400000, $3 - 60000 + h.id, null, 'passive',
       'DISK OK - 41% used, 58 MB free', '',
       '[{"label":"used","value":41.0,"uom":"%","warn":"80","crit":"90"},{"label":"free","value":58.0,"uom":"MB","min":0.0}]', '[]'
from hosts h, json_each('["job-0","job-1","job-2"]') s;

-- Nineteen of twenty tell of states; a few are of people and of what nobody asks for. The gateway was cut off once,
-- long ago.
insert into events (at, kind, object, object_id, service, cause, evidence, data, principal)
with recursive n (n) as (select 0 union all select n + 1 from n where n + 1 < $2)
select $3 - ($2 - n) * 6307,
       case when n % 20 then 'state.changed' when n % 200000 = 100 then 'uplink.lost'
            when n % 200000 = 120 then 'uplink.back' when n % 1000 = 0 then 'device.changed' when n % 1000 = 20 then 'downtime.created'
            else 'tunnel.endpoint_moved' end,
       iif(n % 20, 'service', 'device'), 1 + n * 7919 % $1, iif(n % 20, 'job-1', null), 'no answer', '41% used',
       iif(n % 20, '{"from":"ok","to":"critical","state_type":"soft"}', '{}'),
       case when n % 20 = 0 and n % 1000 < 21 then 'user:ada' when n % 20 = 7 then 'device:h_x' else 'system' end
from n;

-- Two years of each host, which is what is kept by default: DOWN for an hour in each of 51 fortnights.
insert into intervals (host, service, series, value, began_at, ended_at)
with recursive n (n) as (select 0 union all select n + 1 from n where n < 102)
select h.id, '', 'state', iif(n % 2, 'down', 'up'), $3 - 63072000000 + n / 2 * 1209600000 + n % 2 * 1206000000,
       iif(n = 102, null, $3 - 63072000000 + (n + 1) / 2 * 1209600000 + (n + 1) % 2 * 1206000000)
from hosts h, n;

-- Each service: a warning or a failure of some hours in each month.
insert into intervals (host, service, series, value, began_at, ended_at)
with recursive n (n) as (select 0 union all select n + 1 from n where n < 48)
select h.id, s.value, 'state', iif(n % 2, iif(n % 4 = 1, 'warning', 'critical'), 'ok'),
       $3 - 63072000000 + n / 2 * 2628000000 + n % 2 * 2613600000,
       iif(n = 48, null, $3 - 63072000000 + (n + 1) / 2 * 2628000000 + (n + 1) % 2 * 2613600000)
from hosts h, json_each('["job-0","job-1","job-2"]') s, n;

-- A downtime of two hours in each month, and an hour in each quarter in which all parents of a site were down.
insert into intervals (host, service, series, value, began_at, ended_at)
with recursive n (n) as (select 0 union all select n + 1 from n where n < 22)
select h.id, '', 'downtime', '', $3 - 62000000000 + n * 2628000000, $3 - 62000000000 + n * 2628000000 + 7200000
from hosts h, n
union all
select h.id, '', 'unreachable', '', $3 - 61000000000 + n * 7884000000, $3 - 61000000000 + n * 7884000000 + 3600000
from hosts h, n where n < 8;

-- The gateway was updated each month, and its uplink was lost for ten minutes in each week.
insert into intervals (host, service, series, value, began_at, ended_at)
with recursive n (n) as (select 0 union all select n + 1 from n where n < 103)
select 0, '', 'uplink_lost', '', $3 - 63000000000 + n * 604800000, $3 - 63000000000 + n * 604800000 + 600000 from n
union all
select 0, '', 'gateway_stopped', '', $3 - 62900000000 + n * 2628000000, $3 - 62900000000 + n * 2628000000 + 20000
from n where n < 23;
