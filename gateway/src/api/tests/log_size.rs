//! The size that one device can make the event log grow to, in bytes on disk.

use serde_json::{Value, json};

use super::with_monitor::Ward;
use crate::api::testing::TestApi;
use crate::store::fixture;

/// The same limit as in the writer.
const LISTED_A_DAY: usize = 500;
/// The size of an output in bytes, near the limit.
const OUTPUT: usize = 60_000;

/// Returns the bytes of all tables and indexes that grow with events.
async fn log_bytes(api: &TestApi) -> i64 {
    let sql = "select cast(coalesce(sum(pgsize), 0) as text) from dbstat where name in
               (select name from sqlite_schema where tbl_name in
                    ('events', 'event_shares', 'notices', 'notices_held', 'notices_waiting', 'outbox',
                     'outbox_notices', 'incidents', 'incident_members'))";
    fixture::texts(&api.state.store, sql).await[0].parse().unwrap()
}

/// Sends results of that length. Each differs from the one before in status and output.
async fn alternate(ward: &Ward, results: usize, bytes: usize) -> i64 {
    let before = log_bytes(&ward.api).await;
    for n in 0..results {
        let output = format!("{n} {}", "x".repeat(bytes));
        let body = json!({ "exit_status": if n % 2 == 0 { 2 } else { 0 }, "output": output });
        let sent = ward.post("/hosts/nas/services/backup/results", body).await;
        assert_eq!(sent.status, 202, "{}", sent.text);
    }
    log_bytes(&ward.api).await - before
}

async fn events(ward: &Ward, kind: &str) -> Vec<Value> {
    let page = ward.get(&format!("/events?since=0&kind={kind}&limit=500")).await;
    page["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn soft_changes_cost_little_each_and_nothing_beyond_the_share_of_a_day() {
    let ward = Ward::new(json!({ "max_check_attempts": 3 })).await;
    ward.sends(0).await;
    let listed = 100;
    let each = alternate(&ward, listed, OUTPUT).await / listed as i64;
    println!("{each} bytes a soft change");
    assert!(each < 2_000, "{each} bytes a soft change");
    let last = events(&ward, "state.changed").await.pop().unwrap();
    assert_eq!((last["evidence"].as_str().unwrap().len(), &last["truncated"]), (1_024, &json!(true)));
    let whole = ward.backup().await["text"].as_str().unwrap().len();
    assert!(whole > OUTPUT, "the current state has the whole text, not {whole} bytes");

    alternate(&ward, LISTED_A_DAY - listed, 9).await;
    let before = events(&ward, "state.not_listed").await;
    let beyond = alternate(&ward, 100, OUTPUT).await;
    println!("{beyond} bytes for 100 soft changes beyond the share");
    assert!(beyond <= 4_096, "{beyond} bytes beyond the share");
    let after = events(&ward, "state.not_listed").await;
    assert_eq!(after.len(), 1, "one row counts: {after:?}");
    let counted = |rows: &[Value]| rows.first().map_or(0, |e| e["data"]["soft_changes"].as_i64().unwrap());
    assert_eq!(counted(&after) - counted(&before), 100);
    let cause = after[0]["cause"].as_str().unwrap();
    assert!(cause.starts_with(&format!("{} soft changes more on ", counted(&after))), "{cause}");
}

#[tokio::test]
async fn a_hard_change_with_all_that_follows_costs_excerpts() {
    let ward = Ward::new(json!({ "flapping": { "enabled": false } })).await;
    ward.sends(0).await;
    let results = 40;
    let each = alternate(&ward, results, OUTPUT).await / results as i64;
    println!("{each} bytes a hard change with its notification");
    assert!(each < 6_000, "{each} bytes a hard change");
    assert_eq!(events(&ward, "state.changed").await.len(), results + 1, "each is listed");
    let told = ward.get("/notifications").await["items"][0].clone();
    assert_eq!((told["cause"].as_str().unwrap().len(), &told["truncated"]), (1_024, &json!(true)));
}
