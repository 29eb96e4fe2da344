-- Words of the API: one form for the kinds of events, one word for a message of notifications.
update events set kind = 'notification.suppressed' where kind = 'notification_held';
update events set data = json_set(data, '$.reason', 'never_notified')
where kind = 'notification.suppressed' and data ->> '$.reason' = 'never_told';
update events set data = json_set(data, '$.reason', 'already_notified')
where kind = 'notification.suppressed' and data ->> '$.reason' = 'already_told';
update events set data = json_set(data, '$.why', 'recovered')
where kind in ('acknowledgement.ended', 'incident.acknowledgement_ended') and data ->> '$.why' = 'well';
update outbox set kind = 'notifications' where kind = 'notices';

-- Changes of a downtime by people and programs, as its ETag counts them.
alter table downtimes add column version integer not null default 1;
-- When the first failure began a flexible downtime.
alter table downtimes add column begun_at integer;
-- One pass over the states: each flexible downtime that has begun stands in the states that it covers.
update downtimes set begun_at = b.until - duration_ms
from (select b.value ->> '$[0]' as id, min(b.value ->> '$[1]') as until
      from (select voice from host_states union all select voice from service_states) s,
           json_each(s.voice, '$.begun') b
      group by 1) b
where b.id = downtimes.id and duration_ms is not null;

-- A message in an event is named as everywhere else: `m_` and the 13 digits of its id.
update events set data = json_set(data, '$.message', 'm_' ||
    substr('0123456789abcdefghjkmnpqrstvwxyz', (((data ->> '$.message') >> 60) & 31) + 1, 1) ||
    substr('0123456789abcdefghjkmnpqrstvwxyz', (((data ->> '$.message') >> 55) & 31) + 1, 1) ||
    substr('0123456789abcdefghjkmnpqrstvwxyz', (((data ->> '$.message') >> 50) & 31) + 1, 1) ||
    substr('0123456789abcdefghjkmnpqrstvwxyz', (((data ->> '$.message') >> 45) & 31) + 1, 1) ||
    substr('0123456789abcdefghjkmnpqrstvwxyz', (((data ->> '$.message') >> 40) & 31) + 1, 1) ||
    substr('0123456789abcdefghjkmnpqrstvwxyz', (((data ->> '$.message') >> 35) & 31) + 1, 1) ||
    substr('0123456789abcdefghjkmnpqrstvwxyz', (((data ->> '$.message') >> 30) & 31) + 1, 1) ||
    substr('0123456789abcdefghjkmnpqrstvwxyz', (((data ->> '$.message') >> 25) & 31) + 1, 1) ||
    substr('0123456789abcdefghjkmnpqrstvwxyz', (((data ->> '$.message') >> 20) & 31) + 1, 1) ||
    substr('0123456789abcdefghjkmnpqrstvwxyz', (((data ->> '$.message') >> 15) & 31) + 1, 1) ||
    substr('0123456789abcdefghjkmnpqrstvwxyz', (((data ->> '$.message') >> 10) & 31) + 1, 1) ||
    substr('0123456789abcdefghjkmnpqrstvwxyz', (((data ->> '$.message') >> 5) & 31) + 1, 1) ||
    substr('0123456789abcdefghjkmnpqrstvwxyz', (((data ->> '$.message') >> 0) & 31) + 1, 1))
where kind like 'message.%' and json_type(data, '$.message') = 'integer';
