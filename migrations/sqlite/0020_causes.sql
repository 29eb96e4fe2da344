-- How a result came about, what it went to, and since when a host is silent: as values, so that nothing that
-- decides has to read a text.
--
-- The cause of a service's last result (`answered`, `no_answer`, ...) and since when it is that, the inner address that was asked, and what
-- echoes of two sizes said of the path after a stall: not_asked | large_answered | large_lost | silent.
alter table service_states add column cause text not null default 'answered';
alter table service_states add column asked text;
alter table service_states add column path text not null default 'not_asked';
alter table service_states add column cause_since integer not null default 0;
update service_states set cause_since = since;
update service_states set cause = 'overdue' where route = 'none';
-- The cause of an older problem is not known: it is current again with its next result.
update service_states set stale = 1
    where route in ('tunnel', 'direct') and (status in ('critical', 'unknown') or hard in ('critical', 'unknown'));

-- When the first question was asked that had no answer, the last proof of life before it, and when the last
-- check began; the inner address that was asked; the last host key that was not the pinned one.
alter table host_states add column silent_since integer;
alter table host_states add column last_alive integer;
alter table host_states add column asked_at integer;
alter table host_states add column asked text;
alter table host_states add column strange_key text;
update host_states set silent_since = since where status = 'down' and source in ('none', '');
