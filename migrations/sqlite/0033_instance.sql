-- Which course of events this database belongs to: one row. A restore begins another one, because what
-- happened after the backup is not in it.
create table instance (
    id integer primary key not null check (id = 1),
    epoch text not null,                        -- changes with each restore
    restored_at integer,                        -- NULL: never restored
    backup_made_at integer,                     -- when the backup was made
    confirmed_at integer,                       -- when an admin confirmed what the restore brought back
    confirmed_by text                           -- the principal
) strict;

-- A restore of a backup from before this step leaves its times in the settings.
insert into instance (id, epoch, restored_at, backup_made_at)
values (1, lower(hex(randomblob(8))),
        (select cast(value as integer) from settings where name = 'restored_at'),
        (select cast(value as integer) from settings where name = 'restored_backup_made_at'));
delete from settings where name in ('restored_at', 'restored_backup_made_at');
