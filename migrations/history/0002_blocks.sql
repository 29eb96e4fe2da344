-- Sealed blocks of samples and of their roll-ups. The key is the start of the window in hours since 1970, times 2^32, plus
-- the number of the series in fleetgate.db: a new block follows the others, and retention frees whole pages. These tables
-- have rowids, because a page of a table without them spills a row of more than 1,002 bytes.
-- Data moves only from a table to one below. Where both have a second or a bucket, the upper one counts.
create table raw_hours (key integer primary key not null, data blob not null) strict;     -- samples of an hour, as sealed
create table raw (key integer primary key not null, data blob not null) strict;           -- samples of 12 hours
create table days (key integer primary key not null, data blob not null) strict;          -- buckets of 5 minutes of a day
create table five_minutes (key integer primary key not null, data blob not null) strict;  -- of 8 days
create table hours (key integer primary key not null, data blob not null) strict;         -- of 64 days
create table daily (key integer primary key not null, data blob not null) strict;         -- of 512 days

-- Blocks that cannot be decoded, for a person who looks into it.
create table damaged (
    id integer primary key not null,
    source text not null,                       -- the table
    key integer not null,
    data blob not null,
    found_at integer not null
) strict;

-- How far the conversion of an older history has come, and how many blocks were damaged.
create table progress (name text primary key not null, value integer not null) strict;
