//! Intervals as they are written, ended, read and removed.

use std::time::Duration;

use super::*;
use crate::store::fixture;

const HOST: HostId = Id::from_i64(7);

fn at(seconds: i64) -> Wall {
    Wall::from_millis(seconds * 1_000)
}

fn change(service: &'static str, seconds: i64, begins: Option<&'static str>) -> Change<'static> {
    let (host, series, at) = (HOST, Series::State, at(seconds));
    Change { host, service, series, at, since: None, begins, measured_at: None }
}

async fn scene() -> (Store, tempfile::TempDir) {
    let (store, dir) = fixture::store().await;
    fixture::device(&store, 7, "cam-07").await;
    store.all_hosts(&fixture::TIMING).await.unwrap();
    (store, dir)
}

async fn put(store: &Store, changes: &[Change<'_>]) {
    let mut tx = store.begin().await.unwrap();
    write(&mut tx, changes).await.unwrap();
    tx.commit().await.unwrap();
}

/// Returns the stored intervals as text, with times in seconds.
async fn stored(store: &Store, services: Services<'_>, from: i64, until: i64) -> Vec<String> {
    let mut found = Vec::new();
    let seconds = |at: Wall| (at.as_millis() / 1_000).to_string();
    let push = |of: Interval<'_>| {
        let end = of.until.map_or("...".to_owned(), seconds);
        found.push(format!("{}:{} {}-{end}", of.service, of.value, seconds(of.from)));
    };
    store.intervals(&[HOST], services, (at(from), at(until)), push).await.unwrap();
    found
}

#[tokio::test]
async fn a_change_ends_the_interval_before_it_and_begins_another() {
    let (store, _dir) = scene().await;
    put(&store, &[change("", 10, Some("up")), change("ping", 12, Some("ok"))]).await;
    put(&store, &[change("", 20, Some("down"))]).await;
    let all = [":up 10-20", ":down 20-...", "ping:ok 12-..."];
    assert_eq!(stored(&store, Services::All, 0, 99).await, all);
    assert_eq!(stored(&store, Services::None, 0, 99).await, all[..2]);
    assert_eq!(stored(&store, Services::One("ping"), 20, 99).await, all[1..]);
    assert_eq!(stored(&store, Services::One("disk"), 0, 20).await, all[..1], "the end is not included");
}

#[tokio::test]
async fn a_report_reads_the_index_alone_in_its_order() {
    let (store, _dir) = scene().await;
    let mut conn = store.reader().await.unwrap();
    for sql in [OF_HOSTS, OF_ONE_SERVICE, OF_ALL_SERVICES] {
        let sql = sqlx::AssertSqlSafe(format!("explain query plan {sql}"));
        let query = sqlx::query_as(sql).bind("[7]").bind(0).bind(9).bind("ping");
        let rows: Vec<(i64, i64, i64, String)> = query.fetch_all(&mut *conn).await.unwrap();
        let plan = rows.into_iter().map(|row| row.3).collect::<Vec<_>>().join("; ");
        assert!(plan.contains("COVERING INDEX intervals_object (host=?"), "{plan}");
        assert!(!plan.contains("TEMP B-TREE") && !plan.contains("SCAN intervals"), "{plan}");
    }
}

#[tokio::test]
async fn a_value_that_needs_an_escape_is_read_as_it_is() {
    let (store, _dir) = scene().await;
    let sql =
        "insert into intervals (host, service, series, value, began_at) values (7, '', 'state', $1, 5000)";
    fixture::run(&store, sql, &["u\"p,\n"]).await;
    assert_eq!(stored(&store, Services::None, 0, 99).await, [":u\"p,\n 5-..."]);
}

#[tokio::test]
async fn several_changes_of_one_commit_are_all_kept() {
    let (store, _dir) = scene().await;
    let changes = [("up", 10), ("down", 20), ("up", 30)].map(|(to, at)| change("", at, Some(to)));
    put(&store, &changes).await;
    assert_eq!(stored(&store, Services::None, 0, 99).await, [":up 10-20", ":down 20-30", ":up 30-..."]);
}

#[tokio::test]
async fn a_clock_that_was_set_back_leaves_one_interval_for_each_moment() {
    let (store, _dir) = scene().await;
    let ahead = [("up", 10), ("down", 500), ("up", 600)].map(|(to, at)| change("", at, Some(to)));
    put(&store, &ahead).await;
    put(&store, &[change("", 50, Some("down"))]).await;
    assert_eq!(stored(&store, Services::None, 0, 999).await, [":up 10-50", ":down 50-..."]);
}

#[tokio::test]
async fn a_problem_begins_with_its_first_failure_unless_the_clock_was_behind_then() {
    let (store, _dir) = scene().await;
    let down = |turned, failed| Change { since: Some(at(failed)), ..change("", turned, Some("down")) };
    put(&store, &[change("", 100, Some("up"))]).await;
    put(&store, &[down(210, 200)]).await;
    put(&store, &[change("", 300, Some("up"))]).await;
    put(&store, &[down(400, 5)]).await;
    let all = [":up 100-200", ":down 200-300", ":up 300-400", ":down 400-..."];
    assert_eq!(stored(&store, Services::None, 0, 999).await, all);
}

#[tokio::test]
async fn what_a_clock_that_was_ahead_has_left_ends_now() {
    let (store, _dir) = scene().await;
    put(&store, &[change("", 10, Some("up")), change("ping", 10, Some("ok"))]).await;
    put(&store, &[change("", 500, Some("down"))]).await;
    put(&store, &[change("", 600, Some("up"))]).await;
    put(&store, &[change("", 700, Some("down"))]).await;
    assert!(has_future(&mut store.reader().await.unwrap(), at(50)).await.unwrap());
    let mut tx = store.begin().await.unwrap();
    remove_future(&mut tx, at(50)).await.unwrap();
    tx.commit().await.unwrap();
    assert!(!has_future(&mut store.reader().await.unwrap(), at(50)).await.unwrap());
    let all = [":up 10-50", ":down 50-...", "ping:ok 10-..."];
    assert_eq!(stored(&store, Services::All, 0, 999).await, all);
}

#[tokio::test]
async fn a_stop_takes_the_place_of_those_within_it() {
    let (store, _dir) = scene().await;
    let mut tx = store.begin().await.unwrap();
    for (from, until) in [(10, 15), (20, 30), (22, 25), (20, 40)] {
        add_stop(&mut tx, at(from), at(until)).await.unwrap();
    }
    tx.commit().await.unwrap();
    let sql = "select began_at || ' ' || ended_at from intervals order by began_at";
    assert_eq!(fixture::texts(&store, sql).await, ["10000 15000", "20000 40000"]);
}

#[tokio::test]
async fn a_clock_that_is_behind_leaves_the_time_of_what_is_removed() {
    let (store, _dir) = scene().await;
    put(&store, &[change("", 10, Some("up")), change("ping", 12, Some("ok"))]).await;
    fixture::run(&store, "insert into settings (name, value) values ('clock_floor', '90000')", &[]).await;
    let mut tx = store.begin().await.unwrap();
    end_of_service(&mut tx, HOST, "ping", at(1)).await.unwrap();
    end_of_host(&mut tx, HOST, at(95)).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(stored(&store, Services::All, 0, 99).await, [":up 10-95", "ping:ok 12-90"]);
}

#[tokio::test]
async fn the_past_is_added_backwards_and_joins_what_it_continues() {
    let (store, _dir) = scene().await;
    put(&store, &[change("", 90, Some("up"))]).await;
    let mut tx = store.begin().await.unwrap();
    let past = [("", "up", 70, 80), ("", "down", 60, 70), ("", "down", 40, 60), ("ping", "ok", 40, 80)];
    for (service, value, from, until) in past {
        let (from, until) = (at(from), Some(at(until)));
        let past = Interval { host: HOST, service, series: Series::State, value, from, until };
        add_past(&mut tx, &past).await.unwrap();
    }
    tx.commit().await.unwrap();
    let all = stored(&store, Services::All, 0, 99).await;
    assert_eq!(all, [":down 40-70", ":up 70-80", ":up 90-...", "ping:ok 40-80"]);
    put(&store, &[change("", 95, Some("down"))]).await;
    assert_eq!(stored(&store, Services::None, 85, 99).await, [":up 90-95", ":down 95-..."]);
}

#[tokio::test]
async fn what_is_removed_ends_and_begins_nothing_more() {
    let (store, _dir) = scene().await;
    put(&store, &[change("", 10, Some("up")), change("ping", 10, Some("ok"))]).await;
    let mut tx = store.begin().await.unwrap();
    end_of_service(&mut tx, HOST, "ping", at(15)).await.unwrap();
    tx.commit().await.unwrap();
    fixture::run(&store, "delete from service_states where service = 'ping'", &[]).await;
    put(&store, &[change("ping", 20, Some("critical"))]).await;
    assert_eq!(stored(&store, Services::All, 0, 99).await, [":up 10-...", "ping:ok 10-15"]);
    let mut tx = store.begin().await.unwrap();
    crate::store::states::forget(&mut tx, HOST, at(30)).await.unwrap();
    tx.commit().await.unwrap();
    put(&store, &[change("", 40, Some("down"))]).await;
    assert_eq!(stored(&store, Services::None, 0, 99).await, [":up 10-30"]);
}

#[tokio::test]
async fn what_was_removed_just_before_the_gateway_ended_ends_at_its_removal() {
    let (store, _dir) = scene().await;
    put(&store, &[change("", 10, Some("up")), change("ping", 10, Some("ok"))]).await;
    fixture::run(&store, "update hosts set removed_at = 30000 where id = 7", &[]).await;
    fixture::run(&store, "update peers set removed_at = 30000 where id = 7", &[]).await;
    store.all_hosts(&fixture::TIMING).await.unwrap();
    assert_eq!(stored(&store, Services::All, 0, 99).await, [":up 10-30", "ping:ok 10-30"]);
}

#[tokio::test]
async fn the_states_present_at_an_upgrade_begin_with_it() {
    let dir = tempfile::tempdir().unwrap();
    fixture::half_made(dir.path(), fixture::steps_before("intervals")).await;
    let rows = [
        "insert into hosts (id, name, profile, created_at) values (7, 'cam-07', '', 0), (8, 'new', '', 0)",
        "insert into host_states (host, status, kind, attempt, hard, reachable, stale, asleep, since, source,
                                  output, notification)
         values (7, 'down', 'hard', 1, 'down', 0, 0, 0, 0, '', '', '{\"occasion\":[2,5000]}'),
                (8, 'pending', 'hard', 1, 'pending', 1, 0, 0, 0, '', '', '{}')",
        "insert into service_states (host, service, status, kind, attempt, hard, stale, since, route, output,
                                     long_output, metrics, warnings)
         values (7, 'disk', 'critical', 'soft', 1, 'ok', 0, 0, '', '', '', '[]', '[]'),
                (8, 'disk', null, 'hard', 1, null, 0, 0, '', '', '', '[]', '[]')",
        "insert into events (at, kind, object, cause, principal) values
             (1, 'uplink.lost', 'system', '', 'system'), (2, 'uplink.back', 'system', '', 'system'),
             (3, 'uplink.lost', 'system', '', 'system')",
    ];
    fixture::run_on(&dir.path().join(crate::store::files::MAIN_FILE), &rows).await;
    let before = crate::clock::wall();
    let seal = fleetgate_keys::SealKey::from_bytes([1; 32]);
    let store = Store::open(dir.path(), seal).await.unwrap();
    let sql = "select host || ' ' || service || ' ' || series || ' ' || value from intervals order by 1";
    let begun = ["0  uplink_lost ", "7  downtime ", "7  state down", "7  unreachable ", "7 disk state ok"];
    assert_eq!(fixture::texts(&store, sql).await, begun);
    let first = ran_until(&mut store.reader().await.unwrap(), ClockFloor::None).await.unwrap().unwrap();
    assert!(first + Duration::from_secs(2) > before, "{first:?} is the time of the upgrade");
}

#[tokio::test]
async fn an_upgrade_by_a_clock_that_is_behind_begins_at_the_greatest_time_shown() {
    let dir = tempfile::tempdir().unwrap();
    fixture::half_made(dir.path(), fixture::steps_before("intervals")).await;
    let rows = [
        "insert into hosts (id, name, profile, created_at) values (7, 'cam-07', '', 0)",
        "insert into host_states (host, status, kind, attempt, hard, reachable, stale, asleep, since, source,
                                  output, notification)
         values (7, 'up', 'hard', 1, 'up', 1, 0, 0, 0, '', '', '{}')",
        "insert into settings (name, value) values ('clock_floor', '9000000000000')",
    ];
    fixture::run_on(&dir.path().join(crate::store::files::MAIN_FILE), &rows).await;
    let seal = fleetgate_keys::SealKey::from_bytes([1; 32]);
    let store = Store::open(dir.path(), seal).await.unwrap();
    let begun = fixture::texts(&store, "select cast(began_at as text) from intervals").await;
    assert_eq!(begun, ["9000000000000"]);
}
