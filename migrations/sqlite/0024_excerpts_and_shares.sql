-- Events and notices hold the beginning of what a check said; `truncated`: it said more. The whole text stands
-- in the state of its host or service.
alter table events add column truncated integer not null default 0;
alter table notices add column truncated integer not null default 0;

-- What a host has added to the event log on its newest day (UTC), and how many soft changes were only counted
-- because that was enough. `event` is the row of the log that says so.
create table event_shares (
    host integer primary key not null,
    day integer not null,
    listed integer not null,
    counted integer not null,
    event integer
) strict;
