-- Since when the hard state has its value. `since` is that of the state of the last result, which soft failures change.
alter table host_states add column hard_since integer not null default 0;
alter table service_states add column hard_since integer not null default 0;
update host_states set hard_since = since;
update service_states set hard_since = since;

-- The notification state of a checkable, under the word of the rest of the program.
alter table host_states rename column voice to notification;
alter table service_states rename column voice to notification;
