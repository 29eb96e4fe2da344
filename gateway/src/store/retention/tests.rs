use super::*;
use crate::maintenance::retention::round;
use crate::store::{Store, fixture};

/// Rows from before 1,000 are old.
const KEEP: Limits =
    Limits { keep: Wall::from_millis(1_000), audit: None, intervals: Wall::from_millis(1_000) };

async fn numbers(store: &Store, sql: &'static str) -> Vec<i64> {
    sqlx::query_scalar(sql).fetch_all(&store.read).await.unwrap()
}

async fn run(store: &Store, statements: &[&'static str]) {
    for sql in statements {
        fixture::run(store, sql, &[]).await;
    }
}

const EVENTS: &str = "select seq from events order by seq";
const NOTICES: &str = "select id from notices order by id";
const MESSAGES: &str = "select id from outbox order by id";

/// Creates a host and three incidents: 1 is closed, 2 is open and 3 was merged into 2.
async fn scene() -> (Store, tempfile::TempDir) {
    let (store, dir) = fixture::store().await;
    fixture::device(&store, 7, "cam-07").await;
    run(
        &store,
        &["insert into incidents (id, extent, cause, words, opened_at, closed_at, merged_into)
           values (1, 'host', 'host_down', '', 1, 900, null), (2, 'host', 'host_down', '', 1, null, null),
                  (3, 'host', 'host_down', '', 1, 900, 2)"],
    )
    .await;
    (store, dir)
}

/// Creates a notice with that number and time, sent by a message of the same number.
async fn told(store: &Store, n: i64, at: i64, incident: i64) {
    for sql in [
        "insert into events (seq, at, kind, object, object_id, cause, principal)
         values ($1, $2, 'state.changed', 'host', 7, '', 'system')",
        "insert into notices (id, at, event, host, host_name, kind, problem, from_state, to_state, output, since,
                              routed_at, incident)
         values ($1, $2, $1, 7, 'cam-07', 'problem', 1, 'up', 'down', '', $2, $2, nullif($3, 0))",
        "insert into outbox (id, contact, contact_name, channel, address, kind, created_at, next_attempt, sent_at)
         values ($1, 1, 'ops', 'email', 'ops@example.org', 'notifications', $2, $2, $2)",
        "insert into outbox_notices (message, notice, root) values ($1, $1, $1)",
    ] {
        sqlx::query(sql).bind(n).bind(at).bind(incident).execute(&store.write).await.unwrap();
    }
}

async fn goes_to(store: &Store, left: &[i64]) {
    round(store, &KEEP).await.unwrap();
    for sql in [MESSAGES, NOTICES, EVENTS] {
        assert_eq!(numbers(store, sql).await, left, "{sql}");
    }
    assert!(round(store, &KEEP).await.unwrap().is_empty(), "nothing is removed twice");
}

#[tokio::test]
async fn old_rows_are_removed_with_their_dependants() {
    let (store, _dir) = scene().await;
    for (n, at) in [(1, 10), (2, 999), (3, 1_000), (4, 2_000)] {
        told(&store, n, at, 1).await;
    }
    run(&store, &["insert into notices_held (notice, contact, event) values (1, 2, 1), (4, 2, 4)"]).await;
    let removed = round(&store, &KEEP).await.unwrap();
    assert_eq!((removed[&RetentionKind::Messages], removed[&RetentionKind::Events]), (4, 2), "{removed:?}");
    goes_to(&store, &[3, 4]).await;
    assert_eq!(numbers(&store, "select id from incidents").await, [1, 2, 3], "its newer notices are kept");
}

#[tokio::test]
async fn open_waiting_and_last_notified_rows_are_kept() {
    let (store, _dir) = scene().await;
    for (n, incident) in [(1, 2), (2, 3), (3, 1), (4, 0), (5, 0), (6, 0), (7, 0), (8, 0)] {
        told(&store, n, 10, incident).await;
    }
    run(
        &store,
        &[
            "insert into notices_waiting (contact, notice, why, until) values (1, 4, 'delay', 20)",
            "insert into notices_told (contact, host, service, root, last, at) values (1, 7, '', 5, 6, 10)",
            "update notices set routed_at = null where id = 7",
            "update outbox set sent_at = null where id = 8",
        ],
    )
    .await;
    goes_to(&store, &[1, 2, 4, 5, 6, 7, 8]).await;
    assert_eq!(numbers(&store, "select id from incidents order by id").await, [2, 3]);
}

#[tokio::test]
async fn notices_that_a_newer_message_answers_are_kept() {
    let (store, _dir) = scene().await;
    told(&store, 1, 10, 0).await;
    told(&store, 2, 2_000, 0).await;
    run(&store, &["update outbox_notices set root = 1 where message = 2"]).await;
    round(&store, &KEEP).await.unwrap();
    assert_eq!((numbers(&store, MESSAGES).await, numbers(&store, NOTICES).await), (vec![2], vec![1, 2]));
}

#[tokio::test]
async fn notices_that_an_acknowledgement_stopped_are_kept() {
    let (store, _dir) = scene().await;
    told(&store, 1, 10, 0).await;
    run(
        &store,
        &[
            "insert into acknowledgements (id, host, sticky, author, comment, created_at, ended_at)
             values (1, 7, 0, 'user:ada', '', 5, 20), (2, 7, 0, 'user:ada', '', 5, null)",
            "insert into notices_held (notice, contact, event, stopped) values (1, 1, 1, 1)",
        ],
    )
    .await;
    goes_to(&store, &[1]).await;
    let acknowledgements = "select id from acknowledgements order by id";
    assert_eq!(numbers(&store, acknowledgements).await, [1, 2]);
    run(&store, &["update notices_held set stopped = 0"]).await;
    goes_to(&store, &[]).await;
    assert_eq!(numbers(&store, acknowledgements).await, [2], "the one that is open");
}

#[tokio::test]
async fn the_audit_has_a_time_of_its_own() {
    let (store, _dir) = scene().await;
    run(
        &store,
        &["insert into events (seq, at, kind, object, object_id, cause, principal)
           values (1, 10, 'device.created', 'device', 7, '', 'user:ada'),
                  (2, 10, 'state.changed', 'host', 7, '', 'device:7'),
                  (3, 600, 'device.removed', 'device', 7, '', 'token:t'), (4, 10, 'host.asleep', 'host', 7, '', 'system')"],
    )
    .await;
    round(&store, &KEEP).await.unwrap();
    assert_eq!(numbers(&store, EVENTS).await, [1, 3], "for ever, where nothing else is said");
    round(&store, &Limits { audit: Some(Wall::from_millis(500)), ..KEEP }).await.unwrap();
    assert_eq!(numbers(&store, EVENTS).await, [3]);
}

#[tokio::test]
async fn old_rows_behind_kept_rows_are_found() {
    let (store, _dir) = scene().await;
    run(
        &store,
        &["with recursive n (n) as (select 1 union all select n + 1 from n where n < 12000)
           insert into events (seq, at, kind, object, object_id, cause, principal)
           select n, 10, 'x', 'host', 7, '', iif(n <= 11000, 'user:ada', 'system') from n"],
    )
    .await;
    assert_eq!(round(&store, &KEEP).await.unwrap()[&RetentionKind::Events], 1_000);
}

#[tokio::test]
async fn old_downtimes_are_removed_when_over_or_cancelled() {
    let (store, _dir) = scene().await;
    run(
        &store,
        &["insert into downtimes (id, host, start_at, end_at, duration_ms, author, comment, created_at,
                                  cancelled_at, managed_by)
           values (1, 7, 1, 900, null, '', '', 1, null, 'api'), (2, 7, 1, 9999, null, '', '', 1, null, 'api'),
                  (3, 7, 1, 9999, null, '', '', 1, 20, 'api'), (4, 7, 1, 9999, null, '', '', 1, 20, 'apply'),
                  (5, 7, 1, 900, 200, '', '', 1, null, 'api'), (6, 7, 1, 900, null, '', '', 1, 20, 'apply')"],
    )
    .await;
    round(&store, &KEEP).await.unwrap();
    assert_eq!(numbers(&store, "select id from downtimes order by id").await, [2, 4, 5]);
}

#[tokio::test]
async fn old_grants_are_removed_when_ended_or_withdrawn() {
    let (store, _dir) = scene().await;
    run(
        &store,
        &[
            "update grants set withdrawn_at = 20 where id = 2",
            "insert into grants (id, source_role, access, author, created_at, until_at, withdrawn_at)
             values (3, 'admin', '[]', '', 1, 900, null), (4, 'admin', '[]', '', 1, 9999, null),
                    (5, 'admin', '[]', '', 1, 9999, 20), (6, 'admin', '[]', '', 1, null, null),
                    (7, 'admin', '[]', '', 1, 9999, 9999)",
        ],
    )
    .await;
    round(&store, &KEEP).await.unwrap();
    assert_eq!(numbers(&store, "select id from grants order by id").await, [1, 4, 6, 7]);
}

#[tokio::test]
async fn an_incident_is_removed_after_those_merged_into_it() {
    let (store, _dir) = scene().await;
    run(
        &store,
        &[
            "update incidents set closed_at = 900",
            "insert into incident_members (incident, host, service, began_at, joined_at)
             values (1, 7, '', 1, 1), (2, 7, '', 1, 1)",
            "insert into incidents (id, extent, cause, words, opened_at, closed_at)
             values (4, 'host', 'host_down', '', 1, 1000)",
        ],
    )
    .await;
    for _ in 0..2 {
        round(&store, &KEEP).await.unwrap();
    }
    assert_eq!(numbers(&store, "select id from incidents").await, [4]);
    assert!(numbers(&store, "select incident from incident_members").await.is_empty());
}

#[tokio::test]
async fn the_name_of_a_removed_host_is_kept() {
    let (store, _dir) = scene().await;
    fixture::device(&store, 8, "cam-08").await;
    run(
        &store,
        &[
            "update hosts set labels = '{\"site\":\"north\"}', notes = 'x'",
            "update hosts set removed_at = 20 where id = 7",
            "insert into service_overrides (host, service) values (7, 'ping'), (8, 'ping')",
            "insert into peer_memory (peer) values (7), (8)",
            "insert into peer_endpoints (peer, endpoint, first_seen, last_seen) values (7, 'a', 1, 1), (7, 'b', 1, 1)",
            "insert into event_shares (host, day, listed, counted) values (7, 1, 1, 0)",
        ],
    )
    .await;
    assert_eq!(round(&store, &KEEP).await.unwrap()[&RetentionKind::Hosts], 6);
    assert!(round(&store, &KEEP).await.unwrap().is_empty());
    let left =
        "select name || labels || notes || (select count(*) from service_overrides where host = hosts.id)
                from hosts order by id";
    assert_eq!(fixture::texts(&store, left).await, ["cam-07{}0", "cam-08{\"site\":\"north\"}x1"]);
    let keys = "select count(*) from peer_keys where peer = 7";
    assert_eq!(numbers(&store, keys).await, [1], "a key is one peer's for ever");
}

#[tokio::test]
async fn an_enrolment_without_a_device_is_removed() {
    let (store, _dir) = scene().await;
    let enrolment =
        "insert into enrolments (id, state, name, public_key, poll_hash, created_at, decided_at, host)
                     values ($1, $2, 'cam', $1, x'00', 1, $3, $4)";
    let old = Some(999);
    for (id, state, decided, host) in [
        (1, "rejected", old, None),
        (2, "expired", old, None),
        (3, "expired", old, Some(7)),
        (4, "rejected", Some(1_000), None),
        (5, "approved", old, Some(7)),
        (6, "awaiting_approval", None, None),
    ] {
        let sql = sqlx::query(enrolment).bind(id).bind(state).bind(decided).bind(host);
        sql.execute(&store.write).await.unwrap();
    }
    assert_eq!(round(&store, &KEEP).await.unwrap()[&RetentionKind::Enrolments], 3);
    assert_eq!(numbers(&store, "select id from enrolments order by id").await, [4, 5, 6]);
}

#[tokio::test]
async fn a_large_message_is_removed_in_slices() {
    let (store, _dir) = scene().await;
    for n in 1..=500 {
        told(&store, n, 10, 0).await;
    }
    run(
        &store,
        &[
            "update outbox set sent_at = null where id > 1",
            "update outbox_notices set message = 1",
            "delete from outbox where id > 1",
        ],
    )
    .await;
    let mut slices = Vec::new();
    while let Some(rows) = {
        let mut tx = store.begin().await.unwrap();
        let rows = remove(&mut tx, RetentionKind::Messages, &[1], &KEEP).await.unwrap();
        tx.commit().await.unwrap();
        Some(rows).filter(|rows| *rows > 0)
    } {
        slices.push(rows);
    }
    assert_eq!(slices, [200, 200, 101], "then what is left of it, and itself");
    assert!(numbers(&store, "select message from outbox_notices").await.is_empty());
}

#[tokio::test]
async fn intervals_that_ended_before_are_removed_and_those_that_last_stay() {
    let (store, _dir) = scene().await;
    run(
        &store,
        &["insert into intervals (id, host, service, series, value, began_at, ended_at)
           values (1, 7, '', 'state', 'up', 100, 999), (2, 7, '', 'state', 'down', 999, 1000),
                  (3, 7, '', 'state', 'up', 100, null), (4, 0, '', 'uplink_lost', '', 5, 6)"],
    )
    .await;
    let removed = round(&store, &KEEP).await.unwrap();
    assert_eq!(removed[&RetentionKind::Intervals], 2);
    assert_eq!(numbers(&store, "select id from intervals order by id").await, [2, 3]);
}

#[tokio::test]
async fn intervals_are_kept_for_years_beside_events_that_are_not() {
    let (store, _dir) = scene().await;
    run(
        &store,
        &[
            "insert into intervals (id, host, service, series, value, began_at, ended_at)
             values (1, 7, '', 'state', 'up', 1, 99), (2, 7, '', 'state', 'down', 99, 100)",
            "insert into events (seq, at, kind, object, object_id, cause, principal)
             values (1, 100, 'state.changed', 'host', 7, '', 'system')",
        ],
    )
    .await;
    let limits = Limits { intervals: Wall::from_millis(100), ..KEEP };
    let removed = round(&store, &limits).await.unwrap();
    assert_eq!((removed[&RetentionKind::Intervals], removed[&RetentionKind::Events]), (1, 1));
    assert_eq!(numbers(&store, "select id from intervals").await, [2]);
}

#[tokio::test]
async fn every_statement_finds_what_refers_to_a_row_by_an_index() {
    let (store, _dir) = scene().await;
    for kind in RetentionKind::ALL {
        for sql in [&kind.statements().find, &kind.statements().still] {
            let plan: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(sqlx::AssertSqlSafe(format!("explain query plan {sql}")))
                    .fetch_all(&store.read)
                    .await
                    .unwrap();
            let scans: Vec<&String> =
                plan.iter().map(|(.., step)| step).filter(|s| s.starts_with("SCAN")).collect();
            let harmless = |s: &&&String| s.contains("json_each") || s.contains("VIRTUAL");
            assert_eq!(scans.iter().filter(|s| !harmless(s)).count(), 0, "{kind:?}: {plan:?}");
        }
    }
}

#[test]
fn rows_are_kept_by_their_own_time_and_the_audit_by_its() {
    const DAY: Duration = Duration::from_secs(86_400);
    let now = Wall::from_millis(1_000 * 86_400_000);
    let keep = Retention { keep: 730 * DAY, audit: None, intervals: 900 * DAY };
    let day = |n: i64| Wall::from_millis(n * 86_400_000);
    assert_eq!(keep.limits(now), Limits { keep: day(270), audit: None, intervals: day(100) });
    let both = Retention { audit: Some(10 * DAY), ..keep };
    assert_eq!(both.limits(now).audit, Some(Wall::from_millis(990 * 86_400_000)));
}
