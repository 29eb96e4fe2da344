-- People of customers. Name and mail address are personal data, and go when the person is removed; the row stays.
create table people (
    id integer primary key not null,
    customer integer not null references customers (id),
    name text not null default '',
    email text,
    version integer not null default 1,         -- the ETag
    created_at integer not null,
    removed_at integer
) strict;
create index people_customer on people (customer) where removed_at is null;

-- Peers of these people. The row in `peers` has the same id and the kind 'renter'.
create table renters (
    id integer primary key not null references peers (id),
    person integer not null references people (id),
    name text not null default '',              -- unique within a customer; goes when the renter is removed
    version integer not null default 1,         -- the ETag
    created_at integer not null,
    removed_at integer
) strict;
create index renters_person on renters (person) where removed_at is null;

-- The slots of the pools in which the rentals of a customer have their addresses.
create table alias_blocks (
    customer integer primary key not null references customers (id),
    first_slot integer not null,                -- a multiple of `slots`, which is a power of two
    slots integer not null,
    created_at integer not null
) strict;
create unique index alias_blocks_first_slot on alias_blocks (first_slot);
