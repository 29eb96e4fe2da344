//! The data that every open page polls: the counters, the first problems, and their verdicts. They
//! are computed once for all callers and cached while they are current.
//!
//! The summary shows one moment. It is never older than the last change of a state,
//! acknowledgement, incident or host ([`LiveState::revision`]), than the tunnel state of hosts with a
//! verdict, or than [`KEPT`]. A claim thus disappears once a sign of life or a change of state may
//! have refuted it.
//!
//! Changes by a mere result or by time appear within [`KEPT`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{Attempts, PeerStatus, Refusal};
use fleetgate_engine::time::{Mono, Wall};
use tokio::sync::Mutex;

use super::types::{self, HostCounts, Overview, VerdictLine};
use crate::api::AppState;
use crate::api::request::ids::{self, IdKind, time_if_known};
use crate::api::response::problem::Problem;
use crate::api::services::ServiceCounts;
use crate::api::types::Page;
use crate::clock;
use crate::engine::live_state::LiveState;
use crate::health::{Health, restore_problem};
use crate::store::hosts::{self, Totals, Trouble, TroublePlace};
use crate::store::neighbours::OtherHosts;
use crate::store::{Connection as _, SqliteConnection, instance, snapshot};
use crate::verdict;

/// The greatest age of counters, texts and verdicts, for changes without a signal.
pub const KEPT: Duration = Duration::from_secs(5);
/// The number of problems that a page shows.
pub const LISTED: i64 = 500;
/// Hosts that get a verdict, about one screen.
const MAX_JUDGED: usize = 25;

/// The cached summary. Callers wait while a new one is computed.
#[derive(Default)]
pub struct Summaries(Mutex<Option<Arc<Summary>>>);

pub struct Summary {
    revision: u64,
    made: Mono,
    /// The time that the computation took.
    pub took: Duration,
    pub totals: Totals,
    pub overview: Overview,
    /// The first problems, and one more if there are more than [`LISTED`].
    pub problems: Vec<Trouble>,
    verdicts: BTreeMap<HostId, Judged>,
    /// The first page of problems as it is sent.
    pub page: Bytes,
}

struct Judged {
    line: VerdictLine,
    /// The signs from each host's tunnel and from that of its device.
    signs: Vec<(HostId, Option<Signs>)>,
}

/// The signs from memory that a verdict uses.
#[derive(Clone, Debug, PartialEq)]
struct Signs {
    /// Absent for a device with hosts behind it, because its packets arrive all the time and prove
    /// nothing.
    packet: Option<Wall>,
    handshake: Option<Wall>,
    answer: Option<Wall>,
    refusal: Option<(Wall, Refusal)>,
    attempts: Attempts,
}

impl Signs {
    fn of(live: &LiveState, host: HostId, is_own: bool) -> Option<Signs> {
        let PeerStatus { last_packet, last_handshake, last_answer, last_refusal, attempts, .. } =
            live.peer(host)?;
        Some(Signs {
            packet: last_packet.filter(|_| is_own),
            handshake: last_handshake,
            answer: last_answer,
            refusal: last_refusal,
            attempts,
        })
    }
}

impl Summaries {
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn current(&self, app: &AppState) -> Result<Arc<Summary>, Problem> {
        let asked = clock::now().mono;
        let mut kept = self.0.lock().await;
        // A summary begun after the call is recent enough, regardless of later changes.
        let answers = |summary: &&Arc<Summary>| summary.made >= asked || summary.is_current(&app.live);
        if let Some(summary) = kept.as_ref().filter(answers) {
            return Ok(summary.clone());
        }
        let made = Arc::new(Summary::make(app).await?);
        *kept = Some(made.clone());
        Ok(made)
    }
}

impl Summary {
    async fn make(app: &AppState) -> Result<Summary, Problem> {
        // Before any read, so that a change meanwhile makes the summary outdated.
        let (revision, made) = (app.live.revision(), clock::now().mono);
        let mut conn = app.store.reader().await?;
        let mut moment = conn.begin().await?;
        let totals = hosts::totals(&mut moment, app.live.last_check()).await?;
        let problems = hosts::troubles(&mut moment, &TroublePlace::first(), LISTED + 1).await?;
        let verdicts = verdicts(app, &mut moment, &problems).await?;
        let unconfirmed = instance::unconfirmed(&mut moment).await?;
        drop(moment);
        let mut summary = Summary {
            revision,
            made,
            took: Duration::ZERO,
            overview: Overview {
                simulated: app.config.simulated,
                ..overview(&totals, app.live.health(), unconfirmed)
            },
            totals,
            problems,
            verdicts,
            page: Bytes::new(),
        };
        let page = summary.page_of(summary.problems.clone(), LISTED);
        summary.page = serde_json::to_vec(&page).map_err(Problem::internal)?.into();
        summary.took = clock::now().mono.since(made);
        Ok(summary)
    }

    fn is_current(&self, live: &LiveState) -> bool {
        let unmoved = |(host, signs): &(HostId, Option<Signs>), of: HostId| {
            Signs::of(live, *host, *host == of) == *signs
        };
        let silent = |(of, judged): (&HostId, &Judged)| judged.signs.iter().all(|seen| unmoved(seen, *of));
        self.revision == live.revision()
            && clock::now().mono.since(self.made) < KEPT
            && self.verdicts.iter().all(silent)
    }

    /// `rows` were read with `limit + 1`.
    pub fn page_of(&self, rows: Vec<Trouble>, limit: i64) -> Page<types::Problem> {
        let key = |trouble: &Trouble| serde_json::json!(trouble.place).to_string();
        Page::of(rows, limit, key, |trouble| {
            let verdict = self.verdicts.get(&trouble.host).filter(|_| is_host(&trouble));
            let verdict = verdict.map(|judged| judged.line.clone());
            problem(trouble, verdict)
        })
    }
}

fn is_host(trouble: &Trouble) -> bool {
    trouble.place.service.is_empty()
}

/// Computes the verdicts on the first hosts of the list. They share the look at all other hosts.
async fn verdicts(
    app: &AppState,
    conn: &mut SqliteConnection,
    problems: &[Trouble],
) -> Result<BTreeMap<HostId, Judged>, Problem> {
    let first = problems.iter().filter(|t| is_host(t)).take(MAX_JUDGED).map(|t| t.host);
    let first: Vec<HostId> = first.collect();
    let specs = snapshot::host_specs(conn, &first, &app.config.timing).await.map_err(Problem::internal)?;
    let mut rows = hosts::by_ids(conn, &first).await?;
    let (mut everybody, mut found) = (OtherHosts::default(), BTreeMap::new());
    for spec in &specs {
        let Some(at) = rows.iter().position(|row| row.id == spec.id) else { continue };
        let row = rows.swap_remove(at);
        let around = spec.peer.into_iter().chain([spec.id]);
        let signs = around.map(|host| (host, Signs::of(&app.live, host, host == spec.id))).collect();
        let judged = verdict::of_one(conn, &app.live, &row, spec, clock::wall(), &mut everybody).await?;
        let Some(judged) = judged else { continue };
        let line = VerdictLine { kind: judged.kind.name().to_owned(), text: judged.text };
        found.insert(spec.id, Judged { line, signs });
    }
    Ok(found)
}

fn overview(totals: &Totals, health: &Health, unconfirmed: Option<Wall>) -> Overview {
    Overview {
        hosts: HostCounts {
            up: totals.up,
            down: totals.down,
            unreachable: totals.unreachable,
            pending: totals.pending,
            stale: totals.stale,
            handled: totals.handled,
            asleep: totals.asleep,
        },
        services: ServiceCounts::from(totals.services),
        problems: totals.problems(),
        handled: totals.handled + totals.services.handled,
        last_check: time_if_known(totals.last_check),
        awaiting_approval: totals.awaiting_approval,
        clock_problem: health.clock_problem().map(|problem| problem.to_string()),
        restore_unconfirmed: unconfirmed.map(restore_problem),
        disk_problem: health.space().problem().map(str::to_owned),
        simulated: false,
    }
}

fn problem(trouble: Trouble, verdict: Option<VerdictLine>) -> types::Problem {
    let service = Some(trouble.place.service.clone()).filter(|s| !s.is_empty());
    types::Problem {
        host: IdKind::Host.text(trouble.host),
        since: Some(ids::time(trouble.place.since())),
        host_name: trouble.place.host_name,
        service,
        state: trouble.state,
        state_type: "hard".into(),
        acknowledged: trouble.acknowledged,
        in_downtime: trouble.in_downtime,
        handled: trouble.handled,
        flapping: trouble.flapping,
        incident: trouble.incident.map(|id| id.to_string()),
        last_check: time_if_known(trouble.last_check),
        text: trouble.output,
        verdict,
    }
}
