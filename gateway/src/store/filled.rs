//! A database with rows in every table and a value in every column, at any step of the schema.
//!
//! It grows with the schema: after each step come the rows of the tables that the step adds, and
//! values for its columns. The tests fail for a step without an entry, and for a table or a column
//! that stays empty. Rows thus pass through every later step, as those of an installation do.

use std::ops::RangeInclusive;
use std::path::Path;

use fleetgate_keys::{PrivateKey, SealKey};
use sqlx::AssertSqlSafe;

use super::{MAIN, SqliteSynchronous, contacts, files, migrate, migrations, pools, snapshot};

/// A step of the schema, and the rows that are written right after it.
type Rows = (i64, &'static str);

const FILLED: &[Rows] = &[
    (1, INIT),
    (2, STATES),
    (3, NOTIFICATIONS),
    (
        4,
        "insert into profiles (name, summary, edited_by) values ('camera', 'Cameras', 'user:bob');
         update profile_rules set edited_by = 'user:bob';
         update hosts set edited_by = 'user:bob' where id = 1;
         update service_overrides set edited_by = 'user:bob';
         update contacts set edited_by = 'user:bob';
         update notification_rules set edited_by = 'user:bob';",
    ),
    (5, ""),
    (6, INCIDENTS),
    (
        7,
        "insert into wire_days (day, peer, rx_bytes, tx_bytes) values (20000, 1, 5, 6);
         update hosts set budget_bytes_per_day = 5000000 where id = 1;",
    ),
    (
        8,
        r#"update downtimes set recurrence =
               '{"every":"sunday","from":"02:00","to":"04:00","time_zone":"Europe/Vienna"}',
               name = 'maintenance', edited_by = 'user:bob' where id = 32;
           update hosts set freshness_ms = 86400000 where id = 2;"#,
    ),
    (9, ""),
    (10, "update notices_waiting set rule = 51; update outbox_notices set rule = 51 where message = 61;"),
    (
        11,
        "insert into removals (id, manager, kind, name, renamed_to, removed_by, removed_at)
         values (81, 'apply', 'device', 'old', 'new', 'user:ada', 1000);",
    ),
    // The gateway itself uses the id 1 of `room`.
    (12, "update idempotency set etag = '\"1\"'; insert into room (id, filler) values (2, x'00');"),
    (14, "update hosts set ssh_pin_type = 'ssh-ed25519' where ssh_pin is not null;"),
    (18, ""),
    (19, "update peer_keys set stamp = x'400000000000000000000001' where retired_at is not null;"),
    (
        20,
        "update service_states set asked = '10.112.0.1', cause = 'answered' where service = 'ping';
         update host_states set silent_since = 900, last_alive = 800, asked_at = 850, asked = '192.168.1.2',
             strange_key = 'SHA256:strange' where host = 2;",
    ),
    (21, ""),
    (22, ""),
    (24, "insert into event_shares (host, day, listed, counted, event) values (1, 20000, 5, 2, 1);"),
    (25, ""),
    (26, ""),
    (27, ""),
    (28, "update downtimes set begun_at = 5 where id = 31;"),
    (29, ""),
    (30, REACH),
    (31, "insert into addresses (address, slot, host, allocated_at) values ('10.112.0.9', 9, 2, 1000);"),
    (
        32,
        "insert into forwarded (hour, source, host, protocol, port, user, grant_id, flows, sent_packets, sent_bytes,
                                received_packets, received_bytes)
         values (500000, 3, 1, 'tcp', 22, 13, 8, 1, 2, 100, 3, 900);",
    ),
    (
        33,
        "update instance set restored_at = 1000, backup_made_at = 900, confirmed_at = 1100, confirmed_by = 'user:ada';",
    ),
    (35, "update tokens set user = 13, user_name = 'ada';"),
    (37, "update peers set mtu = 1400 where id = 1;"),
    (
        40,
        "insert into intervals (id, host, service, series, value, began_at, ended_at)
         values (1001, 1, 'disk', 'state', 'ok', 500, 900), (1002, 0, '', 'gateway_stopped', '', 100, 200);",
    ),
    // Its rows belong to customers, who come with a later step.
    (
        41,
        "insert into forwarded (hour, source, host, protocol, port, rental, user, person, grant_id, flows,
                                sent_packets, sent_bytes, received_packets, received_bytes)
         values (500000, 119, 1, 'tcp', 22, 114, null, 117, 114, 1, 2, 100, 3, 900);",
    ),
    (42, ""),
    (45, RENTALS),
    (
        46,
        r#"insert into rental_changes (id, rental, at, author, what, changed, device, from_at, until_at)
           values (117, 114, 1800, 'user:ada', 'changed', '["until"]', 1, 2000, 3000);
           insert into rental_reports (rental, report, sha256, frozen_at) values (114, '{}', x'00', 9000);
           update rentals set reported = 1 where id = 114;"#,
    ),
    (
        47,
        "update rentals set admits = '[117]', alias_slot = 3, alias_v4 = '10.112.64.3', alias_v6 = 'fd72::4003',
             alias_freed_at = 90000000, name = 'rental-115' where id = 115;",
    ),
    (54, RENTAL_EVENTS),
    (
        55,
        r#"update rentals set gated = 1, handed_over_at = 2000 where id = 114;
           update device_rental_settings set not_ready_reason = 'no battery', gate_ms = 300000, gate_services = '["ssh"]';"#,
    ),
    (
        56,
        "update rentals set allowance_bytes = 5000, cut_at_allowance = 1, allowance_level = 1, forwarded_bytes = 4000
         where id = 114;",
    ),
    (
        57,
        "update device_rental_settings set delivery = 'shipped';
         update rentals set shipped = 1, dispatched_at = 1900, first_contact_at = 1950, returned_at = 3500 where id = 114;",
    ),
    (58, ""),
    (
        59,
        r#"update renters set ssh_keys = '["ssh-ed25519 AAAA"]' where id = 119;
           update rentals set ssh = 1 where id = 114;
           update device_rental_settings set ssh_account = 'renter', ssh_mode = 'certificates', ssh_root = 1;
           update hosts set ssh_pin_line = 'ssh-ed25519 BBBB' where ssh_pin is not null;"#,
    ),
    (
        60,
        r#"update device_rental_settings set cleaning_command = 'wipe';
           insert into device_ssh_access (device, rental, granted, used_by, failure, exposed_key, exposed_pin)
           values (1, 114, '{"until":3000,"keys":["ssh-ed25519 AAAA"]}', 114, 'no route', 'key', 'SHA256:pin');"#,
    ),
    (
        61,
        r#"update rentals set contacts = '[{"name":"Ada","email":"ada@example.org"}]' where id = 114;
           insert into rental_problems (rental, service, device, state, since, stage, stage_at)
           values (114, 'ssh', 1, 'critical', 2100, 'sent', 2200);
           insert into rental_messages (id, rental, email, parts, is_last, created_at, attempts, next_attempt, sent_at,
                                        given_up_at)
           values (131, 114, 'ada@example.org', '[]', 0, 2200, 1, 2300, 2400, null),
                  (132, 114, 'ada@example.org', '[]', 0, 2200, 9, 2300, null, 2500);"#,
    ),
    (
        62,
        "insert into person_sessions (hash, person, created_at, seen_at, expires_at)
         values (x'07', 117, 1000, 1100, 2000);
         insert into person_login_links (hash, person, created_at, expires_at) values (x'08', 117, 1000, 9000);",
    ),
    (
        63,
        r#"update rentals set selection = '{"kind":"camera"}', other_device_after_ms = 600000, other_device_at = 2500
           where id = 114;
           update device_blocks set covers = 1;"#,
    ),
    (
        64,
        r#"update rentals set thresholds = '{"disk":[{"metric":"used","warn":"80"}]}' where id = 114;"#,
    ),
    (
        65,
        r#"insert into profiles (name, rental) values ('kiosk', '{"preparation_ms":60000,"cleaning_command":"wipe"}');
           update device_rental_settings set inherited = '["delivery"]';"#,
    ),
    (66, ""),
    (67, ""),
    (68, "update intervals set measured_at = 400 where id = 1001;"),
    (69, "update rentals set selection_profile = 'camera' where id = 114;"),
    (70, ""),
    (71, "update device_ssh_access set rooted = 1;"),
    // A row of the redo without samples.
    (
        72,
        "insert into series (id, host, service, label, uom, last_at) values (1, 1, 'ping', 'rtt', 's', 2);
         insert into redo (id, generation, data) values (1, 1, x'0100000000');",
    ),
    (
        73,
        r#"update rentals set maintenance = '[{"from":2000,"until":3000,"comment":"new disk"}]' where id = 114;"#,
    ),
    (
        74,
        r#"insert into forecasts (host, service, at, full_at, text, basis) values (1, 'disk', 2000, 9000, 'full in about 9 days',
               '{"from":0,"to":1,"peaks":9,"period_s":86400,"slope_per_day":1.5,"spread":0.25}');
           insert into forecast_days (host, service, day, at, full_at) values (1, 'disk', 0, 2000, 9000);"#,
    ),
    (75, ""),
    (76, ""),
];

const INIT: &str = r#"
insert into settings (name, value) values ('a.setting', 'its value');
insert into hosts (id, name, labels, profile, route, direct_address, ssh_user, ssh_pin, ssh_pin_source,
                   interval_ms, retry_ms, attempts, timeout_ms, max_silence_ms, notes, created_at)
values (1, 'site-gw', '{"site":"north"}', 'default', 'tunnel', '192.0.2.7', 'watch', 'SHA256:abc', 'given',
        60000, 10000, 3, 5000, 3600000, 'in the cellar', 1000);
insert into hosts (id, name, profile, via, address, created_at)
values (2, 'camera', 'default', 1, '192.168.1.2', 1000);
insert into hosts (id, name, profile, created_at, removed_at) values (3, 'gone', 'default', 1000, 5000);
insert into peers (id, kind, networks, created_at, removed_at)
values (1, 'device', '["192.168.1.0/24"]', 1000, null), (3, 'device', '[]', 1000, 5000);
insert into peer_keys (public_key, peer, psk, added_at, retired_at)
values ('{key 1}', 1, {psk}, 1000, null), ('{key 3}', 3, null, 1000, 5000);
insert into peer_memory (peer, stamp, endpoint, last_packet, last_handshake, clock_skew_ms, rx_bytes, tx_bytes)
values (1, x'400000000000000000000000', '192.0.2.1:51820', 2000, 1900, 20, 7, 8);
insert into peer_endpoints (peer, endpoint, first_seen, last_seen) values (1, '192.0.2.1:51820', 1000, 2000);
insert into addresses (address, slot, peer, allocated_at, released_at)
values ('10.112.0.1', 1, 1, 1000, null), ('10.112.0.3', 3, 3, 1000, 5000);
insert into service_overrides (host, service, definition) values (1, 'disk', '{"check":{"type":"passive"}}');
insert into enrolment_tokens (id, hash, label, host_labels, profile, ssh_user, needs_approval, replaces,
                              uses_left, expires_at, customer, created_by, created_at, revoked_at, last_used_at)
values (11, x'01', 'cellar', '{"site":"north"}', 'default', 'watch', 1, 1, 5, 9000, 4, 'user:ada', 1000, 2000, 1500);
insert into enrolments (id, token, state, name, public_key, ssh_host_key, poll_hash, host, remote_address,
                        reason, created_at, decided_at, decided_by, expires_at)
values (12, 11, 'approved', 'site-gw', '{key 1}', 'ssh-ed25519 AAAA', x'02', 1, '192.0.2.9', 'known', 1000, 1100,
        'user:ada', 9000);
insert into users (id, name, role, customer, password_hash, created_at, disabled_at)
values (13, 'ada', 'admin', null, 'none', 1000, null), (14, 'bob', 'operator', 4, 'none', 1000, 2000);
insert into sessions (hash, user, created_at, seen_at, expires_at) values (x'03', 13, 1000, 1100, 2000);
insert into login_links (hash, user, expires_at, used_at) values (x'04', 13, 9000, 1500);
insert into tokens (id, hash, name, role, customer, created_by, created_at, expires_at, revoked_at, last_used_at)
values (15, x'05', 'ci', 'viewer', 4, 'user:ada', 1000, 9000, 3000, 2000);
insert into idempotency (principal, key, request_hash, status, body, created_at)
values ('user:ada', 'once', x'06', 201, '{}', 1000);
"#;

/// With messages that wait, were sent and were given up, in the form of this step.
const STATES: &str = r#"
insert into host_states (host, status, kind, attempt, hard, reachable, stale, asleep, since, last_check,
                         next_check, source, output, notified)
values (1, 'up', 'hard', 1, 'up', 1, 0, 0, 1000, 2000, 3000, 'echo', 'it replies', null),
       (2, 'down', 'hard', 3, 'down', 1, 0, 0, 900, 2000, 3000, 'none', 'no reply', 'down');
insert into service_states (host, service, status, kind, attempt, hard, stale, since, last_check, next_check,
                            route, output, long_output, metrics, warnings, notified)
values (1, 'ping', 'ok', 'hard', 1, 'ok', 0, 1000, 2000, 3000, 'tunnel', '3 of 3', 'more', '[]', '[]', null),
       (1, 'disk', 'critical', 'hard', 1, 'critical', 0, 900, 2000, null, 'passive', 'full', '', '[]', '[]', 'critical');
insert into events (seq, at, kind, object, object_id, service, cause, evidence, data, principal)
values (1, 900, 'state', 'service', 1, 'disk', 'the last attempt failed', 'full', '{}', 'system'),
       (2, 950, 'host.changed', 'host', 1, null, 'changed', '', '{"name":"site-gw"}', 'user:ada');
insert into outbox (id, event, host, recipient, body, created_at, attempts, next_attempt, last_error, sent_at,
                    given_up_at)
values (1, 1, 1, 'ops@example.org',
        '{"host_name":"site-gw","problem":true,"from":"up","to":"down","output":"no reply","since":4}',
        1000, 2, 9000, 'refused', null, null),
       (2, 1, 1, 'ops@example.org',
        '{"host_name":"site-gw","problem":false,"from":"down","to":"up","output":"fine","since":4}',
        1100, 1, 9000, null, 1200, null),
       (3, null, 2, 'ops@example.org',
        '{"host_name":"camera","problem":true,"from":"up","to":"down","output":"no reply","since":4}',
        1200, 9, 9000, 'refused', null, 1300);
"#;

const NOTIFICATIONS: &str = r#"
update hosts set parents = '[1]' where id = 2;
insert into acknowledgements (id, host, service, sticky, expires_at, author, comment, created_at, ended_at)
values (21, 1, 'disk', 1, 9000, 'user:ada', 'on it', 1000, null),
       (22, 2, '', 0, null, 'user:ada', 'known', 1000, 1500);
insert into downtimes (id, host, labels, service, start_at, end_at, duration_ms, author, comment, created_at,
                       cancelled_at, cancelled_by)
values (31, 1, null, 'disk', 0, 9000, 1000, 'user:bob', 'new disk', 0, null, null),
       (32, null, '{"site":"north"}', null, 0, 9000, null, 'user:bob', 'power', 0, 5000, 'user:ada');
insert into contacts (id, name, emails, webhook_url, webhook_secret, time_zone, digest_at, group_wait_ms,
                      created_at, digested_at)
values (41, 'ops', '["ops@example.org"]', 'http://127.0.0.1:9/hook', {secret}, 'UTC', '08:00', 5000, 1000, 1000);
insert into notification_rules (id, name, contact, labels, severity, period, delay_ms, created_at)
values (51, 'all', 41, '{}', 'warning', 'mon-fri 08:00-18:00', 60000, 1000);
insert into notices (id, at, event, host, host_name, service, labels, kind, problem, from_state, to_state,
                     output, since, routed_at)
values (101, 900, 1, 1, 'site-gw', 'disk', '{"site":"north"}', 'problem', 1, 'ok', 'critical', 'full', 900, 950);
insert into notices_waiting (contact, notice, why, until) values (41, 101, 'period', 9000);
insert into notices_told (contact, host, service, root, last, at, severity)
values (41, 1, 'disk', 101, 101, 1200, 'critical');
insert into notices_held (notice, contact, event) values (101, 41, 1);
insert into outbox (id, contact, contact_name, channel, address, kind, site, created_at, attempts, next_attempt,
                    last_error, sent_at)
values (61, 41, 'ops', 'webhook', 'http://127.0.0.1:9/hook', 'digest', 'north', 1000, 1, 2000, 'refused', 1500);
insert into outbox_notices (message, notice, root, dropped) values (61, 101, 101, 'it recovered');
"#;

const INCIDENTS: &str = r#"
insert into incidents (id, extent, cause, words, site, head, opened_at, closed_at, merged_into, acked_at,
                       ack_author, ack_comment, ack_sticky, ack_expires_at, ack_ended_at)
values (71, 'host', 'service_failed', 'disk of site-gw', 'north', 1, 900, 2000, null, 1000, 'user:ada', 'on it',
        1, 9000, 1500),
       (72, 'host', 'service_failed', 'disk of site-gw', 'north', 1, 900, 1000, 71, null, null, null, null, null,
        null);
insert into incident_members (incident, host, service, began_at, joined_at, left_at)
values (71, 1, 'disk', 900, 900, 2000);
update notices set incident = 71 where id = 101;
update acknowledgements set incident = 71 where id = 22;
"#;

const REACH: &str = r#"
insert into peers (id, kind, created_at, removed_at)
values (91, 'operator', 1000, null), (92, 'operator', 1000, 5000);
insert into operators (id, user, name, created_at, removed_at)
values (91, 13, 'ada-laptop', 1000, null), (92, 13, 'ada-phone', 1000, 5000);
insert into grants (id, name, source_peer, source_user, source_user_name, source_role, target_host, target_labels,
                    access, from_at, until_at, reason, author, edited_by, created_at, withdrawn_at, withdrawn_by)
values (93, 'night-work', 91, null, null, null, 1, null, '[{"protocol":"udp","ports":[[5000,5010]]}]', 1000, 9000,
        'a new disk', 'user:ada', 'user:bob', 1000, null, null),
       (94, null, null, 13, 'ada', null, null, '{"site":"north"}', '[{"protocol":"icmp","ports":[]}]', null, null,
        '', 'user:ada', null, 1000, 5000, 'user:ada');
"#;

const RENTALS: &str = r#"
insert into customers (id, external_ref, name, contacts, created_at, erased_at)
values (110, 'crm-17', 'Ada Ltd', '[{"name":"Ada","email":"ada@example.org","phone":"+43 1 2345"}]', 1000, null),
       (111, null, '', '[]', 1000, 5000);
insert into bookings (id, customer, external_ref, notes, metadata, time_zone, hold_until, lapsed_at, author,
                      created_at)
values (112, 110, 'order-4711', 'call before', '{"shop":"linz"}', 'Europe/Vienna', null, null, 'token:booking', 1000),
       (113, 111, null, '', '{}', null, 4000, 4000, 'token:booking', 1000);
insert into rentals (id, booking, device, from_at, until_at, prepared_from, preparation_ms, turnaround_ms, ended_at,
                     end_reason, end_note, created_at)
values (114, 112, 1, 2000, 3000, 1500, 500, 100, null, null, '', 1000),
       (115, 113, 1, 6000, 7000, 5500, 500, 100, 4000, 'lapsed', 'nothing was paid', 1000);
insert into people (id, customer, name, email, created_at, removed_at)
values (117, 110, 'Ada', 'ada@example.org', 1000, null), (118, 111, '', null, 1000, 5000);
insert into peers (id, kind, created_at, removed_at)
values (119, 'renter', 1000, null), (120, 'renter', 1000, 5000);
insert into renters (id, person, name, created_at, removed_at)
values (119, 117, 'laptop', 1000, null), (120, 118, '', 1000, 5000);
insert into alias_blocks (customer, first_slot, slots, created_at) values (110, 64, 64, 1000);
insert into device_rental_settings (device, rentable, preparation_ms, turnaround_ms) values (1, 1, 500, 100);
insert into device_blocks (id, device, from_at, until_at, reason, author, created_at, ended_at, ended_by)
values (116, 1, 8000, 9000, 'a new battery', 'user:ada', 1000, 8500, 'user:bob');
insert into occupancies (device, rental, block, from_at, until_at)
values (1, 114, null, 1500, 3100), (1, null, 116, 8000, 8500);
"#;

const RENTAL_EVENTS: &str = r#"
insert into rental_events (seq, id, at, rental, booking, customer, kind, version, data)
values (1, 120, 1000, 114, 112, 110, 'rental.booked', 1,
        '{"state":"booked","device":"h_0000000000001","from":"1970-01-01T00:00:02Z","until":"1970-01-01T00:00:03Z"}');
update rentals set announced_state = 'booked', announced_at = 1000, announce_at = 1500 where id = 114;
insert into subscriptions (id, url, kinds, secret, cursor, paused_at, failing_since, last_error, last_error_at,
                           delivered_at, created_by, created_at)
values (121, 'http://127.0.0.1:9/rentals', '["rental.booked"]', {secret}, 1, 2000, 2000, 'it answered 500', 2000,
        1500, 'token:booking', 1000);
insert into subscription_deliveries (event, subscription, rental, attempts, next_at) values (1, 121, 114, 2, 3000);
"#;

/// Creates the database at the first `steps` of the schema, and fills it.
pub(crate) async fn make(dir: &Path, steps: usize, seal: &SealKey) {
    grow(dir, 1..=steps, seal).await;
}

/// Takes these steps of the schema, and fills their tables.
async fn grow(dir: &Path, steps: RangeInclusive<usize>, seal: &SealKey) {
    let file = dir.join(files::MAIN_FILE);
    let (write, read) = pools(&file, SqliteSynchronous::Off).await.expect("a database");
    for taken in steps {
        migrate(migrations(&MAIN[..taken]), &write, &file).await.expect("a step of the schema");
        let version = MAIN[taken - 1].version;
        let rows = FILLED.iter().find(|(of, _)| *of == version).map_or("", |(_, rows)| *rows);
        let written = sqlx::raw_sql(AssertSqlSafe(with_secrets(rows, seal))).execute(&write).await;
        written.unwrap_or_else(|error| panic!("the rows of step {version}: {error}"));
    }
    // If a reader closes last, it leaves the log beside the file.
    read.close().await;
    write.close().await;
}

/// Replaces the places of keys and sealed secrets.
fn with_secrets(rows: &str, seal: &SealKey) -> String {
    let key = |n| PrivateKey::from_bytes([n; 32]).public();
    let literal = |sealed: Vec<u8>| {
        let digits: String = sealed.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("x'{digits}'")
    };
    let psk = seal.seal(&[7; 32], snapshot::psk_place(&key(1)).as_bytes());
    let secret =
        seal.seal(b"a secret", contacts::secret_place(fleetgate_engine::id::Id::from_i64(41)).as_bytes());
    rows.replace("{key 1}", &key(1).to_string())
        .replace("{key 3}", &key(3).to_string())
        .replace("{psk}", &literal(psk))
        .replace("{secret}", &literal(secret))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use sqlx::{Connection as _, SqliteConnection};

    use super::*;
    use crate::store::{Store, fixture, template};

    /// Columns with values that a later step rewrites or moves: the profile `default` has lost its
    /// name, the kind `notices` of a message is `notifications`, what a message says is in its
    /// notices, and the kind `state` of an event is `state.changed`.
    const REWRITTEN: [(&str, &str); 8] = [
        ("events", "kind"),
        ("hosts", "profile"),
        ("enrolment_tokens", "profile"),
        ("outbox", "kind"),
        ("outbox", "event"),
        ("outbox", "host"),
        ("outbox", "recipient"),
        ("outbox", "body"),
    ];

    type Columns = BTreeMap<String, BTreeSet<String>>;
    /// The rows of each table, as text.
    type Content = BTreeMap<String, Vec<String>>;

    fn seal() -> SealKey {
        SealKey::from_bytes([1; 32])
    }

    async fn texts(conn: &mut SqliteConnection, sql: String) -> Vec<String> {
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(conn).await.unwrap()
    }

    async fn columns(conn: &mut SqliteConnection) -> Columns {
        let sql = "select name from sqlite_master where type = 'table' and name not like 'sqlite_%'
                   and name <> '_sqlx_migrations'";
        let mut found = Columns::new();
        for table in texts(conn, sql.to_owned()).await {
            let columns = texts(conn, format!("select name from pragma_table_info('{table}')")).await;
            found.insert(table, columns.into_iter().collect());
        }
        found
    }

    /// Columns that a later step renames.
    const RENAMED: [(&str, &str, &str); 2] =
        [("host_states", "voice", "notification"), ("service_states", "voice", "notification")];

    /// Returns the rows of these columns, under whichever name the database has for them.
    async fn content(conn: &mut SqliteConnection, of: &Columns) -> Content {
        let now = columns(conn).await;
        let named = |table: &str, column: &str| {
            let renamed = RENAMED.iter().find(|(of, before, _)| (*of, *before) == (table, column));
            let later = renamed.map(|(_, _, later)| *later).filter(|later| now[table].contains(*later));
            later.unwrap_or(column).to_owned()
        };
        let mut found = Content::new();
        for (table, columns) in of {
            let stays = |column: &&String| !REWRITTEN.contains(&(table.as_str(), column.as_str()));
            let values: Vec<String> = columns
                .iter()
                .filter(stays)
                .map(|column| format!("quote([{}])", named(table, column)))
                .collect();
            let sql = format!("select {} from {table} order by 1", values.join(" || ' ' || "));
            found.insert(table.clone(), texts(conn, sql).await);
        }
        found
    }

    async fn content_of_file(dir: &Path) -> (Columns, Content) {
        let file = dir.join(files::MAIN_FILE);
        let mut conn = SqliteConnection::connect(&format!("sqlite:{}", file.display())).await.unwrap();
        let of = columns(&mut conn).await;
        let found = content(&mut conn, &of).await;
        conn.close().await.unwrap();
        (of, found)
    }

    #[test]
    fn every_step_of_the_schema_says_what_it_adds() {
        let steps: Vec<i64> = MAIN.iter().map(|step| step.version).collect();
        let filled: Vec<i64> = FILLED.iter().map(|(version, _)| *version).collect();
        assert_eq!(filled, steps, "a new step of the schema needs an entry in FILLED");
    }

    #[tokio::test]
    async fn every_table_and_every_column_has_a_value() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), MAIN.len(), &seal()).await;
        let store = Store::open(dir.path(), seal()).await.unwrap();
        let mut conn = store.reader().await.unwrap();
        for (table, columns) in columns(&mut conn).await {
            for column in columns {
                let sql = format!("select cast(count(\"{column}\") as text) from {table}");
                assert_ne!(texts(&mut conn, sql).await, ["0"], "FILLED has no value for {table}.{column}");
            }
        }
    }

    #[tokio::test]
    async fn a_copy_of_the_template_is_a_new_store() {
        let (copy, _dir) = fixture::store().await;
        let dir = tempfile::tempdir().unwrap();
        let new = Store::open(dir.path(), seal()).await.unwrap();
        let (mut schemas, mut contents) = (Vec::new(), Vec::new());
        for store in [&copy, &new] {
            let mut conn = store.reader().await.unwrap();
            let mut of = columns(&mut conn).await;
            for (table, column) in template::OF_EACH_STORE {
                assert!(of.get_mut(table).unwrap().remove(column), "{table}.{column}");
            }
            contents.push(content(&mut conn, &of).await);
            let sql = "select name || ' ' || coalesce(sql, '') from sqlite_schema order by name";
            schemas.push(texts(&mut conn, sql.to_owned()).await);
        }
        assert_eq!(schemas[0], schemas[1]);
        assert_eq!(
            contents[0], contents[1],
            "a step that writes something random or the time belongs into OF_EACH_STORE"
        );
        let (other, _dir) = fixture::store().await;
        for (table, column) in template::OF_EACH_STORE {
            let sql = format!("select cast(min({column}) as text) from {table}");
            let mut values = Vec::new();
            for store in [&copy, &other] {
                values.extend(texts(&mut store.reader().await.unwrap(), sql.clone()).await);
            }
            assert_ne!(values[0], values[1], "{table}.{column}");
        }
    }

    #[tokio::test]
    async fn an_upgrade_from_any_step_keeps_every_row() {
        let grown = tempfile::tempdir().unwrap();
        for steps in 1..=MAIN.len() {
            let (version, dir) = (MAIN[steps - 1].version, tempfile::tempdir().unwrap());
            grow(grown.path(), steps..=steps, &seal()).await;
            std::fs::copy(grown.path().join(files::MAIN_FILE), dir.path().join(files::MAIN_FILE)).unwrap();
            let (of, before) = content_of_file(dir.path()).await;
            let store = Store::open(dir.path(), seal()).await.unwrap();
            let mut conn = store.reader().await.unwrap();
            // A column that a step has dropped makes the statement fail.
            let after = content(&mut conn, &of).await;
            assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
            for (table, rows) in before {
                assert_eq!(after[&table], rows, "{table} from step {version}");
            }
            let broken = "select \"table\" || ' ' || coalesce(rowid, '') from pragma_foreign_key_check";
            assert_eq!(texts(&mut conn, broken.to_owned()).await, [""; 0], "from step {version}");
            let sound = "select integrity_check from pragma_integrity_check";
            assert_eq!(texts(&mut conn, sound.to_owned()).await, ["ok"], "from step {version}");
            drop(conn);
            store.close().await;
        }
    }
}
