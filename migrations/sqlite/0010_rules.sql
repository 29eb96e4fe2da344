-- By which rule something is told, or waits; NULL: it follows from what was told before. 0: there was no
-- rule, and everything is told.
alter table notices_waiting add column rule integer;
alter table outbox_notices add column rule integer;
