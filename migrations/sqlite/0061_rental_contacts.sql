-- Who gets messages about the device of a rental while it runs. Personal data, which goes with the customer.
alter table rentals add column contacts text;   -- JSON: [{"name":...,"email":...}]; NULL: nobody
create index rentals_with_contacts on rentals (until_at) where contacts is not null and ended_at is null;

-- What the contacts of a running rental know, and what waits for its message. Removed at the end of the rental.
create table rental_problems (
    rental integer not null references rentals (id),
    service text not null,                      -- empty: the device itself
    device integer not null references hosts (id),
    state text not null,                        -- down | unreachable | critical | unknown
    since integer not null,
    stage text not null,                        -- earlier | waits | sent | over
    stage_at integer not null,
    primary key (rental, service)
) strict;

-- One row for each message and address. Removed at the end of the rental.
create table rental_messages (
    id integer primary key autoincrement not null,
    rental integer not null references rentals (id),
    email text not null,
    parts text not null,                        -- JSON: what the message says
    is_last integer not null,                   -- 1: the daily limit is reached
    created_at integer not null,
    attempts integer not null default 0,
    next_attempt integer not null,
    sent_at integer,
    given_up_at integer
) strict;
create index rental_messages_of on rental_messages (rental, email, id);
create index rental_messages_waiting on rental_messages (rental, email, id)
    where sent_at is null and given_up_at is null;
