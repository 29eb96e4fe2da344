-- Downtimes that come again, and those that a file keeps.

-- JSON: every, from, to, time_zone, first_date, last_date; NULL: once, from start_at to end_at. Of one
-- that goes on end_at lies far in the future.
alter table downtimes add column recurrence text;
alter table downtimes add column name text;                 -- in the file of its manager
alter table downtimes add column managed_by text not null default 'api';
alter table downtimes add column edited_by text;

-- How long a host that only sends its results may be silent.
alter table hosts add column freshness_ms integer;
