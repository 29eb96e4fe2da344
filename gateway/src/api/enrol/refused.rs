//! Audit entries for refused enrolments. Each is written while they are few, and a flood is
//! counted. Neither strangers nor a person who found a spent token can fill the disk.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fleetgate_engine::id::Id;
use fleetgate_engine::time::Mono;
use serde_json::json;

use crate::api::AppState;
use crate::api::request::throttle::{Rate, Throttle};
use crate::api::request::transaction::ApiTx;
use crate::api::response::problem::Problem;
use crate::store::events::Object;

/// The principal of an attempt with an unknown token.
pub const ANONYMOUS: &str = "anonymous";
/// The entries of all strangers together, and of each token: one hour of mistakes, then one a
/// minute, which is 300 kB a day.
const WRITTEN: Rate = Rate { burst: 60, refill: Duration::from_secs(60) };
/// The shortest time between summaries of a flood.
const SUMMARY_EVERY: Duration = Duration::from_secs(600);

pub struct Refusals {
    buckets: Throttle<String>,
    /// The number since the last summary.
    unwritten: AtomicU64,
}

impl Default for Refusals {
    fn default() -> Self {
        Refusals { buckets: Throttle::new(WRITTEN), unwritten: AtomicU64::new(0) }
    }
}

impl Refusals {
    /// Decides whether one more attempt of this principal should be written.
    fn admit(&self, by: &str, now: Mono) -> AuditDecision {
        match self.buckets.take(&by.to_owned(), now) {
            Ok(()) => AuditDecision::Write,
            Err(_) if self.unwritten.fetch_add(1, Ordering::Relaxed) == 0 => AuditDecision::FirstUnwritten,
            Err(_) => AuditDecision::Count,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum AuditDecision {
    Write,
    /// The attempt is counted, and a summary must follow.
    FirstUnwritten,
    Count,
}

/// Whether this attempt should be written. If not, it is counted, and a summary follows.
pub fn is_written(app: &AppState, by: &str, now: Mono) -> bool {
    let decision = app.rate_limits().refusals.admit(by, now);
    if decision == AuditDecision::FirstUnwritten {
        let app = app.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(SUMMARY_EVERY) => {}
                () = app.shutdown.cancelled() => {}
            }
            let told = summarize(&app).await;
            told.unwrap_or_else(|error| tracing::warn!("refused enrolments: {error}"));
        });
    }
    decision == AuditDecision::Write
}

async fn summarize(app: &AppState) -> Result<(), Problem> {
    let count = app.rate_limits().refusals.unwritten.swap(0, Ordering::Relaxed);
    let mut write = ApiTx::begin(app, &ANONYMOUS).await?;
    let cause = format!("{count} more enrolments were refused, not written one by one");
    let about = (Object::System, Id::from_i64(0));
    write.event("enrolment.refused", about, &cause, json!({ "count": count })).await?;
    write.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::TestApi;
    use crate::store::events::{EventFilter, Span};

    #[tokio::test]
    async fn a_flood_of_strangers_is_one_line_of_the_log() {
        let api = TestApi::new().await;
        let body = json!({ "token": "x", "name": "cam", "public_key": "x", "poll_hash": "x" });
        for n in 0..100 {
            let source = api.anonymous().at_address(&format!("198.51.100.{n}"));
            assert_eq!(source.post("/api/v1/enrol", body.clone()).await.status, 401);
        }
        summarize(&api.state).await.unwrap();
        let filter = EventFilter { kind: Some("enrolment.refused"), ..EventFilter::default() };
        let rows = api.state.store.events(Span::Before(i64::MAX), &filter, 999).await.unwrap();
        assert_eq!((rows.len(), rows[0].data.as_str()), (61, r#"{"count":40}"#));
    }

    #[test]
    fn a_quiet_time_makes_room_again() {
        let refusals = Refusals::default();
        let first = Mono::from_secs(100_000);
        let written = (0..100).filter(|_| refusals.admit(ANONYMOUS, first) == AuditDecision::Write).count();
        assert_eq!((written, refusals.unwritten.load(Ordering::Relaxed)), (60, 40));
        assert_eq!(refusals.admit("token:t_1", first), AuditDecision::Write, "a token has its own bucket");
        assert_eq!(refusals.admit(ANONYMOUS, first + WRITTEN.refill), AuditDecision::Write);
    }
}
