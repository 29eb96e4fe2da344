-- What a repetition finds: the answer to a POST that was made before, and results that were taken.

-- A status of 0: the call took effect, and its answer was not kept (the gateway stopped in between).
alter table idempotency add column etag text;
-- Old answers are removed in small steps.
create index idempotency_age on idempotency (created_at);

-- The newest results that were taken: a JSON array, the newest last.
alter table host_states add column taken text not null default '[]';
alter table service_states add column taken text not null default '[]';

-- Written and emptied again before a result takes effect: it shows that there is room for what follows.
create table room (
    id integer primary key not null,
    filler blob not null
) strict;
