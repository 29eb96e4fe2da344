-- The version that new objects begin with. A restore raises it with all others: one that is created again under a name
-- does not match an ETag that the lost one had.
alter table instance add column version integer not null default 1;
update instance set version = (select max(version) from profile_rules) where restored_at is not null;
