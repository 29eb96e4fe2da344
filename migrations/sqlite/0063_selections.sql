-- The labels by which the device of a rental was chosen, as JSON. NULL: it was given.
alter table rentals add column selection text;
-- After how long of a delay the gateway takes another device of them. NULL: never.
alter table rentals add column other_device_after_ms integer;
alter table rentals add column other_device_at integer;                 -- when it did so last
create index rentals_other_device on rentals (until_at)
    where other_device_after_ms is not null and handed_over_at is null and ended_at is null;

-- Whether rentals hear of the end of a block that covered them: 0 none does, 1 they will, 2 they have.
alter table device_blocks add column covers integer not null default 0;
create index device_blocks_covers on device_blocks (until_at) where covers = 1;
create index device_blocks_covered on device_blocks (until_at) where covers = 2;
