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
update downtimes set begun_at = (
    select min(b.value ->> '$[1]') - downtimes.duration_ms
    from (select voice from host_states union all select voice from service_states) s, json_each(s.voice, '$.begun') b
    where b.value ->> '$[0]' = downtimes.id)
where duration_ms is not null;
