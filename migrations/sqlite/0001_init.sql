-- The main database. Times are milliseconds since 1970 (UTC), ids are integers below 2^63,
-- absent means NULL and never a date far away. Text that came from people or devices is hostile.

-- Small facts about this installation: the confirmed endpoint, the running event sequence's epoch.
create table settings (
    name text primary key not null,
    value text not null
) strict;

-- What is watched. A device's host has the device's id; a host behind a device has its own.
create table hosts (
    id integer primary key not null,
    name text not null,
    labels text not null default '{}',          -- JSON object of strings
    profile text not null,
    route text not null default 'auto',         -- tunnel | direct | auto
    via integer references hosts (id),          -- the device it stands behind
    address text,                               -- its address behind that device
    direct_address text,                        -- host name or address on the Internet
    ssh_port integer not null default 22,
    ssh_user text,
    ssh_pin text,                               -- SHA256:...
    ssh_pin_source text,                        -- tunnel | given | trusted
    interval_ms integer,
    retry_ms integer,
    attempts integer,
    timeout_ms integer,
    max_silence_ms integer,
    managed_by text not null default 'api',
    notes text not null default '',
    version integer not null default 1,         -- the ETag
    created_at integer not null,
    removed_at integer
) strict;
create unique index hosts_name on hosts (name) where removed_at is null;

-- A peer of the gateway: kind 'device' shares the host's id.
create table peers (
    id integer primary key not null,
    kind text not null,                         -- device | operator | renter
    networks text not null default '[]',        -- JSON array of prefixes behind the peer
    created_at integer not null,
    removed_at integer
) strict;

create table peer_keys (
    public_key text primary key not null,       -- a key is one peer's, for ever
    peer integer not null references peers (id),
    psk blob,                                   -- sealed
    position integer not null default 0,        -- 0: the one the gateway dials with
    added_at integer not null,
    retired_at integer
) strict;
create index peer_keys_peer on peer_keys (peer);

-- What the tunnel learnt of a peer; written behind, never in the way of a packet.
create table peer_memory (
    peer integer primary key not null references peers (id),
    stamp blob,                                 -- TAI64N of the newest handshake answered
    endpoint text,
    last_packet integer,
    last_handshake integer,
    clock_skew_ms integer,
    rx_bytes integer not null default 0,
    tx_bytes integer not null default 0
) strict;

create table peer_endpoints (
    peer integer not null references peers (id),
    endpoint text not null,
    first_seen integer not null,
    last_seen integer not null,
    primary key (peer, endpoint)
) strict;

-- Inner addresses. The primary key arbitrates between concurrent enrolments; a released address
-- rests until the quarantine is over.
create table addresses (
    address text primary key not null,
    slot integer not null,                      -- its place in both pools
    peer integer references peers (id),
    allocated_at integer not null,
    released_at integer
) strict;
create index addresses_slot on addresses (slot);
create index addresses_peer on addresses (peer);
create index addresses_resting on addresses (released_at) where released_at is not null;

-- Sparse differences from the profile.
create table service_overrides (
    host integer not null references hosts (id),
    service text not null,
    disabled integer not null default 0,
    definition text not null default '{}',      -- JSON, only what differs
    managed_by text not null default 'api',
    version integer not null default 1,
    primary key (host, service)
) strict;

create table enrolment_tokens (
    id integer primary key not null,
    hash blob not null,                         -- SHA-256 of the secret
    label text not null default '',
    host_labels text not null default '{}',
    profile text not null,
    ssh_user text,
    needs_approval integer not null default 0,
    replaces integer references hosts (id),     -- swaps the key and the SSH pin of this device
    uses_left integer,                          -- NULL: no limit
    expires_at integer,
    customer integer,
    created_by text not null,
    created_at integer not null,
    revoked_at integer,
    last_used_at integer
) strict;

create table enrolments (
    id integer primary key not null,
    token integer references enrolment_tokens (id),
    state text not null,                        -- awaiting_approval | approved | rejected | expired
    name text not null,
    public_key text not null,
    ssh_host_key text,
    poll_hash blob not null,
    host integer references hosts (id),
    remote_address text not null default '',
    reason text not null default '',
    created_at integer not null,
    decided_at integer,
    decided_by text,
    expires_at integer
) strict;
create index enrolments_host on enrolments (host);
create unique index enrolments_key on enrolments (public_key) where state in ('awaiting_approval', 'approved');

create table users (
    id integer primary key not null,
    name text not null unique,
    role text not null,                         -- admin | operator | viewer
    customer integer,
    password_hash text not null,
    created_at integer not null,
    disabled_at integer
) strict;

create table sessions (
    hash blob primary key not null,             -- SHA-256 of the cookie
    user integer not null references users (id),
    created_at integer not null,
    seen_at integer not null,
    expires_at integer not null
) strict;

-- One-time logins: printed once at first start, or by the demo.
create table login_links (
    hash blob primary key not null,
    user integer not null references users (id),
    expires_at integer not null,
    used_at integer
) strict;

create table tokens (
    id integer primary key not null,
    hash blob not null,
    name text not null,
    role text not null,
    scopes text not null default '[]',
    customer integer,
    created_by text not null,
    created_at integer not null,
    expires_at integer,
    revoked_at integer,
    last_used_at integer
) strict;

create table idempotency (
    principal text not null,
    key text not null,
    request_hash blob not null,
    status integer not null,
    body text not null,                         -- without secrets
    created_at integer not null,
    primary key (principal, key)
) strict;

create table host_states (
    host integer primary key not null references hosts (id),
    status text not null,                       -- pending | up | down
    kind text not null,                         -- soft | hard
    attempt integer not null,
    hard text not null,
    reachable integer not null,
    stale integer not null,
    asleep integer not null,
    since integer not null,
    last_check integer,
    next_check integer,
    source text not null,
    output text not null,
    notified text
) strict;

create table service_states (
    host integer not null references hosts (id),
    service text not null,
    status text,                                -- NULL: pending
    kind text not null,
    attempt integer not null,
    hard text,
    stale integer not null,
    since integer not null,
    last_check integer,
    next_check integer,
    route text not null,
    output text not null,
    long_output text not null,
    metrics text not null,                      -- JSON
    warnings text not null,                     -- JSON
    notified text,
    primary key (host, service)
) strict;

-- The one ordered log: states, writes, enrolments, messages. The audit view is the rows that
-- somebody caused.
create table events (
    seq integer primary key autoincrement not null,
    at integer not null,
    kind text not null,
    object text not null,                       -- host | service | device | enrolment | token | user | system
    object_id integer,
    service text,
    cause text not null,
    evidence text not null default '',
    data text not null default '{}',
    principal text not null                     -- user:NAME | token:ID | device:ID | anonymous | system
) strict;
create index events_object on events (object_id, seq);
create view audit as select * from events where principal != 'system';

-- Messages to people, a row per receiver.
create table outbox (
    id integer primary key autoincrement not null,
    event integer references events (seq),      -- what made it necessary
    host integer not null,
    recipient text not null,                    -- empty: nobody is configured
    body text not null,                         -- JSON of the message
    created_at integer not null,
    attempts integer not null default 0,
    next_attempt integer not null,
    last_error text,
    sent_at integer,
    given_up_at integer
) strict;
create index outbox_due on outbox (next_attempt) where sent_at is null and given_up_at is null;
