-- What an open page asks costs by what it shows, not by what there is.

-- The log by kind, in its order. Of what people and devices did there is little: two small indexes of it alone.
create index events_kind on events (kind, seq);
create index events_audit on events (seq) where principal != 'system' and kind != 'state';
create index events_audit_kind on events (kind, seq) where principal != 'system' and kind != 'state';

-- Whatever is not plainly well. A result that finds all well changes none of them.
create index host_states_open on host_states (hard, stale, asleep) where hard != 'up' or stale = 1 or asleep = 1;
-- To count them: a host's row is wide.
create index host_states_host on host_states (host);
create index service_states_open on service_states (host, hard, stale) where hard is not 'ok' or stale = 1;

-- Who stands beside a host: at the same site, behind the same device.
create index hosts_site on hosts (labels ->> 'site') where removed_at is null;
create index hosts_via on hosts (via) where via is not null;
