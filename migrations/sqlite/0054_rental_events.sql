-- What happened to rentals, for booking systems: one log, in order, with ids alone and no personal data.
create table rental_events (
    seq integer primary key autoincrement not null,
    id integer not null unique,                 -- the receiver recognises a repetition by it
    at integer not null,
    rental integer not null references rentals (id),
    booking integer not null,
    customer integer not null,
    kind text not null,
    version integer not null,                   -- that of the rental
    data text not null                          -- JSON object
) strict;
create index rental_events_rental on rental_events (rental, seq);
create index rental_events_customer on rental_events (customer, seq);

-- What was last announced of a rental, and when time alone brings its next event.
alter table rentals add column announced_state text;    -- NULL: nothing yet, it is older than the events
alter table rentals add column announced_at integer;
alter table rentals add column announce_at integer;
update rentals set announce_at = 0;
create index rentals_announce on rentals (announce_at) where announce_at is not null;
create index rentals_announced on rentals (announced_at);

-- Who receives these events by webhook.
create table subscriptions (
    id integer primary key not null,
    url text not null,
    kinds text not null,                        -- JSON array; empty: all
    secret blob not null,                       -- sealed
    cursor integer not null,                    -- the last event that was taken for delivery or left out
    paused_at integer,
    failing_since integer,                      -- when the first event was given up
    last_error text,
    last_error_at integer,
    delivered_at integer,
    created_by text not null,
    version integer not null default 1,         -- the ETag
    created_at integer not null
) strict;

-- Events that a subscription has not accepted yet. Those of a rental are delivered in order.
create table subscription_deliveries (
    event integer not null references rental_events (seq) on delete cascade,
    subscription integer not null references subscriptions (id) on delete cascade,
    rental integer not null,
    attempts integer not null default 0,
    next_at integer,                            -- NULL: given up until the subscription is resumed
    primary key (event, subscription)
) strict;
create index subscription_deliveries_rental on subscription_deliveries (subscription, rental, event);
