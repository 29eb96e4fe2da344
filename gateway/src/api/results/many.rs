//! Many results in one call, with an outcome for each, for programs that collect results.
//!
//! Each is accepted or refused individually, in the order of the call. All such calls together hold
//! no more memory than a few large bodies.
//!
//! The whole call is refused if no result was accepted for a reason outside the results, such as a
//! full disk or a locked database.

use std::collections::HashMap;
use std::fmt;
use std::pin::pin;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::response::IntoResponse as _;
use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{Identity, MAX_AT_ONCE};
use fleetgate_engine::time::Wall;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::SemaphorePermit;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::{self, Bounds};
use super::{Answer, Fate, NewResult, Sender, Sent, Timestamp, became, not_taken, taking};
use crate::api::AppState;
use crate::api::hosts::definition;
use crate::api::request::auth::Principal;
use crate::api::request::ids::IdKind;
use crate::api::request::{extract, idempotency};
use crate::api::response::layers;
use crate::api::response::problem::{FieldError, Problem};
use crate::api::types::names;
use crate::engine::commit_wait;
use crate::engine::handle::Offered;

/// Results in one call. A body of this many plugin outputs has 200 kB.
const MOST: usize = 1_000;
/// The largest body: a thousand results with 2 kB of output each.
pub const BODY_LIMIT: usize = 2 * 1024 * 1024;
/// Concurrent bodies larger than those of any other call: 8 MiB, and the same again as results.
pub const LARGE_AT_ONCE: usize = 4;
/// Results of all such calls that wait for their commit: a quarter of the queue, so that single
/// results find room.
pub const AT_ONCE: usize = 16_384;
/// The longest wait for a permit. A commit takes milliseconds, so a longer wait means too many
/// callers. Tests do not wait.
const WAIT: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(5) };
const RETRY_AFTER_S: u64 = 2;

/// Results of hosts and services.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewResults {
    /// At most 1,000.
    #[schema(max_items = 1_000)]
    pub results: Vec<ResultOf>,
}

/// One result of many.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResultOf {
    /// Id or name.
    pub host: String,
    /// Absent: a result of the host itself.
    pub service: Option<String>,
    /// 0 to 3, anything else is UNKNOWN. For a host 0 and 1 mean up, the rest down.
    pub exit_status: u32,
    /// Text, and performance data after a `|`.
    #[serde(default)]
    pub output: String,
    /// When it was measured: RFC 3339, or seconds since 1970; now when absent.
    pub timestamp: Option<Timestamp>,
}

/// An outcome for each result, in their order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SubmittedResults {
    pub results: Vec<ResultOutcome>,
}

/// The outcome of one result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ResultOutcome {
    #[schema(value_type = names::SubmitResult)]
    pub outcome: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<ResultRefusal>,
}

/// Why one result was refused: the error that a call with this result alone would get.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ResultRefusal {
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// Stable: programs branch on this.
    #[schema(value_type = names::ErrorCode)]
    pub code: String,
    pub detail: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(take_many))
}

/// Submits up to 1,000 passive results of hosts and services.
///
/// Each is on disk before the answer, which has an outcome for each in their order. A refused result stops no other. Of
/// two equal results without timestamp and key the second is `repeated`. With an `Idempotency-Key` each result has a key
/// of its own: that of the call, and its position among the results of its service (or host). There are at most 32
/// results of one service then, and at most 32 of one service with the same timestamp or with timestamps in the future.
#[utoipa::path(post, path = "/results", operation_id = "submit_results", tag = "monitoring",
    security(("token" = ["monitoring:operator"])), request_body = NewResults,
    responses((status = 200, body = SubmittedResults, description = "an outcome for each result, in their order")))]
async fn take_many(State(app): State<AppState>, who: Principal, request: Request) -> Answer {
    extract::must_be_json(&request)?;
    let key = idempotency::key_of(request.headers())?;
    let bounds = Bounds {
        kept: BODY_LIMIT,
        most: BODY_LIMIT,
        small: layers::BODY_LIMIT,
        large: &app.rate_limits().large_batches,
        wait: WAIT,
    };
    let body::Body { bytes, room: _room, .. } = body::read(request, bounds).await?;
    let ManyResults { results: Few(wanted) } = extract::parse(&bytes)?;
    drop(bytes);
    let _place = place(&app, wanted.len()).await?;
    let (keyed, dated) = (HashMap::new(), HashMap::new());
    let mut reader = Reader { app: &app, by: who.to_string(), key, now: crate::clock::wall(), keyed, dated };
    let mut results = Vec::with_capacity(wanted.len());
    for result in wanted {
        results.push(reader.read(&result).await);
    }
    reader.repetitions_are_known()?;
    answer(give(&app, results).await?)
}

/// Acquires a place in the queue for each result.
async fn place(app: &AppState, count: usize) -> Result<SemaphorePermit<'_>, Problem> {
    let count = u32::try_from(count).map_err(Problem::internal)?;
    let places = tokio::time::timeout(WAIT, app.rate_limits().batched.acquire_many(count)).await;
    places.map_err(|_| busy())?.map_err(Problem::internal)
}

fn busy() -> Problem {
    Problem::busy("too many results are on their way to the disk: send this again in a moment", RETRY_AFTER_S)
}

/// The body. Each result is kept as raw JSON, so that an error concerns only that one.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ManyResults {
    results: Few,
}

struct Few(Vec<Box<RawValue>>);

impl<'de> Deserialize<'de> for Few {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(AtMost)
    }
}

struct AtMost;

impl<'de> Visitor<'de> for AtMost {
    type Value = Few;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MOST} results")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Few, A::Error> {
        let mut few = Vec::new();
        while let Some(result) = seq.next_element()? {
            if few.len() == MOST {
                return Err(serde::de::Error::custom(format!(
                    "at most {MOST} results in one call: make several"
                )));
            }
            few.push(result);
        }
        Ok(Few(few))
    }
}

/// Parses one result after the other.
struct Reader<'a> {
    app: &'a AppState,
    by: String,
    /// The key of the call.
    key: Option<String>,
    now: Wall,
    /// The number of results with a key, per service.
    keyed: HashMap<Of, usize>,
    /// The number of results with the same timestamp, per service. In a sequence of results, the
    /// newest is recognised by its time.
    dated: HashMap<(Of, Wall), usize>,
}

/// A service of a host, or the host.
type Of = (HostId, Option<String>);

impl Reader<'_> {
    async fn read(&mut self, result: &RawValue) -> Result<Sent, Problem> {
        let ResultOf { host, service, exit_status, output, timestamp } =
            extract::parse(result.get().as_bytes())?;
        let host = definition(self.app, IdKind::Host.named(&host)).await?;
        if let Some(name) = &service {
            taking(&host, name)?;
        }
        let of = (host.id, service);
        let sender = Sender { by: self.by.clone(), key: self.own_key(&of) };
        let sent = Sent::new(sender, of.clone(), NewResult { exit_status, output, timestamp })?;
        if let Identity { dated: Some(_), .. } = sent.identity {
            // A time in the future counts as now.
            *self.dated.entry((of, sent.at.min(self.now))).or_default() += 1;
        }
        Ok(sent)
    }

    /// Returns the key of one result. A line break separates its parts, because no caller's key
    /// contains one.
    fn own_key(&mut self, of: &Of) -> Option<String> {
        let key = self.key.as_ref()?;
        let nth = self.keyed.entry(of.clone()).or_default();
        *nth += 1;
        Some(format!("{key}\n{nth}"))
    }

    /// Checks the number of results per service. Beyond the limit, a repetition would be counted
    /// again.
    fn repetitions_are_known(&self) -> Result<(), Problem> {
        if self.keyed.values().chain(self.dated.values()).all(|count| *count <= MAX_AT_ONCE) {
            return Ok(());
        }
        let detail = format!(
            "at most {MAX_AT_ONCE} results of one service may have an Idempotency-Key or one timestamp, so that a \
             repetition of the call is known: make several calls"
        );
        Err(Problem::invalid("results", detail))
    }
}

/// The outcome of each result.
type Outcomes = Vec<Result<Fate, Problem>>;

/// Submits all results before it waits for any, so that they share their commits.
async fn give(app: &AppState, results: Vec<Result<Sent, Problem>>) -> Result<Outcomes, Problem> {
    if results.iter().any(Result::is_ok) {
        app.handle.check_writable().await.map_err(not_taken)?;
    }
    let (mut given, mut first) = (Vec::with_capacity(results.len()), HashMap::new());
    for result in results {
        given.push(match result {
            Ok(sent) => {
                let (content, make) = sent.parts();
                let nth = given.len();
                match content.map(|content| *first.entry(content).or_insert(nth)) {
                    Some(earlier) if earlier < nth => Given::SameAs(earlier),
                    _ => Given::Offered(app.handle.offer((content, None), make).await.map_err(not_taken)?),
                }
            }
            Err(problem) => Given::Refused(problem),
        });
    }
    let mut patience = pin!(commit_wait::patience());
    let mut outcomes: Outcomes = Vec::with_capacity(given.len());
    for given in given {
        let outcome = match given {
            Given::Offered(offered) => became(offered.settled(patience.as_mut()).await).map(|(fate, _)| fate),
            Given::SameAs(earlier) => outcomes[earlier].clone().map(|_| Fate::Repeated),
            Given::Refused(problem) => Err(problem),
        };
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

/// A result of the call under way.
enum Given<'a> {
    Offered(Offered<'a>),
    /// A repetition of an earlier result of the call, by its index. Both count as one, even after
    /// that one's commit.
    SameAs(usize),
    Refused(Problem),
}

fn answer(outcomes: Outcomes) -> Answer {
    if let Some(problem) = of_the_call(&outcomes) {
        return Err(problem.clone());
    }
    let repeated = !outcomes.is_empty() && outcomes.iter().all(|o| matches!(o, Ok(Fate::Repeated)));
    let results = outcomes.into_iter().map(shown).collect();
    let mut response = Json(SubmittedResults { results }).into_response();
    if repeated {
        response.headers_mut().insert(idempotency::REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// Returns the problem that concerns the whole call, if no result was accepted.
fn of_the_call(outcomes: &Outcomes) -> Option<&Problem> {
    let refusals = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    let nothing = outcomes.iter().all(Result::is_err);
    let concerns_all =
        |problem: &&Problem| problem.status().is_server_error() || problem.code() == idempotency::REUSED;
    refusals.filter(|_| nothing).find(concerns_all)
}

fn shown(outcome: Result<Fate, Problem>) -> ResultOutcome {
    let word = match &outcome {
        Ok(Fate::Taken) => "taken",
        Ok(Fate::Repeated) => "repeated",
        Ok(Fate::Older) => "older",
        Err(_) => "refused",
    };
    ResultOutcome { outcome: word.to_owned(), problem: outcome.err().map(refusal) }
}

fn refusal(problem: Problem) -> ResultRefusal {
    ResultRefusal {
        status: problem.status().as_u16(),
        code: problem.code().to_owned(),
        detail: problem.detail().to_owned(),
        errors: problem.errors().to_vec(),
    }
}
