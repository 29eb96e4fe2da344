-- Customers. Personal data is here alone, and goes when the customer is erased; the row stays.
create table customers (
    id integer primary key not null,
    external_ref text,                          -- the name that the client gave it
    name text not null default '',
    contacts text not null default '[]',        -- JSON, such as [{"name":"Ada","email":"ada@example.org"}]
    version integer not null default 1,         -- the ETag
    created_at integer not null,
    erased_at integer
) strict;
create unique index customers_external_ref on customers (external_ref) where external_ref is not null;

-- What a customer booked with one call.
create table bookings (
    id integer primary key not null,
    customer integer not null references customers (id),
    external_ref text,                          -- the name that the client gave it
    notes text not null default '',
    metadata text not null default '{}',        -- JSON object of strings, the client's own
    time_zone text,                             -- IANA name, for display
    hold_until integer,                         -- NULL: confirmed
    lapsed_at integer,                          -- when it was found that it was not confirmed in time
    author text not null,
    version integer not null default 1,         -- the ETag
    created_at integer not null
) strict;
create unique index bookings_external_ref on bookings (external_ref) where external_ref is not null;
create index bookings_customer on bookings (customer);
create index bookings_held on bookings (hold_until) where hold_until is not null and lapsed_at is null;

-- One device in one window [from_at, until_at). The state follows from these columns and the time.
create table rentals (
    id integer primary key not null,
    booking integer not null references bookings (id),
    device integer not null references hosts (id),
    from_at integer not null,
    until_at integer not null,
    prepared_from integer not null,             -- when its device is occupied before the window
    preparation_ms integer not null,
    turnaround_ms integer not null,
    ended_at integer,                           -- NULL: by the time alone
    end_reason text,
    end_note text not null default '',
    version integer not null default 1,         -- the ETag
    created_at integer not null
) strict;
create index rentals_booking on rentals (booking);
create index rentals_device on rentals (device, until_at);

-- How a device is rented. Without a row it is not.
create table device_rental_settings (
    device integer primary key not null references hosts (id),
    rentable integer not null,
    preparation_ms integer not null,
    turnaround_ms integer not null,
    version integer not null default 1          -- the ETag
) strict;

-- A device that is kept from being rented.
create table device_blocks (
    id integer primary key not null,
    device integer not null references hosts (id),
    from_at integer not null,
    until_at integer,                           -- NULL: until it is ended
    reason text not null,
    author text not null,
    created_at integer not null,
    ended_at integer,
    ended_by text
) strict;
create index device_blocks_device on device_blocks (device);

-- The time [from_at, until_at) in which a rental or block occupies a device. A rental has another row
-- for a device that it was swapped away from. Only a forced block overlaps a rental.
create table occupancies (
    id integer primary key autoincrement not null,
    device integer not null references hosts (id),
    rental integer references rentals (id),
    block integer references device_blocks (id),
    from_at integer not null,
    until_at integer                            -- NULL: no end
) strict;
create index occupancies_device on occupancies (device, until_at);
create index occupancies_until on occupancies (until_at);
create index occupancies_rental on occupancies (rental);
create index occupancies_block on occupancies (block);
