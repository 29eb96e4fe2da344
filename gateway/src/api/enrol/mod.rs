//! The calls of a device that enrols, and the script that makes them.
//!
//! The device generates its keys and its polling secret. Requests and responses contain none of
//! them. The preshared key is the exception: the device fetches it with the polling secret until
//! its first handshake.

pub mod refused;

use std::net::IpAddr;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use fleetgate_engine::id::Id;
use fleetgate_keys::{PresharedKey, PublicKey, Token, TokenKind};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::devices::load;
use super::enrolments::admit_device::{self, AdmittedDevice};
use super::request::client::Source;
use super::request::extract::{Body, Path};
use super::request::ids::{self, IdKind, Named};
use super::request::parse::{self, Fields};
use super::request::transaction::ApiTx;
use super::response::problem::Problem;
use super::restore_review;
use super::types::names;
use crate::maintenance::housekeeping;
use crate::store::enrolment_tokens::{self, EnrolmentToken, TokenRefused};
use crate::store::enrolments::{self, Enrolment};
use crate::store::events::Object;
use crate::store::snapshot::psk_place;
use crate::store::{SqliteConnection, devices, instance};
use refused::ANONYMOUS;

/// A person decides in minutes.
const RETRY_AFTER_S: u64 = 60;
const SCRIPT: &str = include_str!("enrol.sh");
/// The placeholder for the gateway's address in the script.
const PLACE: &str = "@FLEETGATE_URL@";
/// The program that the script installs for the SSH access of renters, and its placeholder.
const RENTAL_ACCESS: &str = include_str!("rental-access.sh");
const RENTAL_ACCESS_PLACE: &str = "@FLEETGATE_RENTAL_ACCESS@";
/// The placeholder for the public key of the authority that signs the keys of renters.
const RENTAL_CA_PLACE: &str = "@FLEETGATE_RENTAL_CA@";
/// A polling secret is random text of at least 128 bits. Longer text than this is not hashed.
const SECRET_LEN: std::ops::RangeInclusive<usize> = 16..=256;
/// SHA-256 in hexadecimal.
const HASH_LEN: usize = 64;

/// The request of a device. Its only secret is the token.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    pub token: String,
    /// The name of the device. A replacement keeps the name of its predecessor.
    pub name: String,
    pub public_key: String,
    /// SHA-256, in hexadecimal, of the secret that the device uses to poll.
    pub poll_hash: String,
    /// A public key line of the device's SSH server.
    pub ssh_host_key: Option<String>,
}

impl std::fmt::Debug for EnrolRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnrolRequest").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The answer to a device. It contains no secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EnrolAnswer {
    pub id: String,
    #[schema(value_type = names::EnrolmentState)]
    pub state: String,
    pub name: String,
    pub reason: String,
    /// Seconds to wait before the next poll.
    pub poll_after_s: u64,
    /// Set after the approval.
    pub connection: Option<Connection>,
}

/// The WireGuard configuration of a device, and the SSH key of the gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Connection {
    pub public_key: String,
    pub endpoint: String,
    pub addresses: Vec<String>,
    pub allowed_ips: Vec<String>,
    pub keepalive_s: u16,
    pub mtu: u16,
    /// A line for `authorized_keys`.
    pub ssh_public_key: String,
    /// The account for this key.
    pub ssh_user: Option<String>,
}

#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct Psk {
    pub preshared_key: String,
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(enrol)).routes(routes!(poll)).routes(routes!(preshared_key))
}

pub(super) fn script_route() -> Router<AppState> {
    Router::new().route("/enrol.sh", get(script))
}

/// Asks to be let in. Repeated with the same key it gives the same answer.
///
/// With `Accept: text/plain` the answer is lines of `name=value`, for a shell.
#[utoipa::path(post, path = "/enrol", operation_id = "enrol", tag = "enrolment", security(()),
    request_body = EnrolRequest,
    responses((status = 201, body = EnrolAnswer), (status = 200, body = EnrolAnswer,
        description = "the same key enrolled before")))]
async fn enrol(
    State(app): State<AppState>,
    Source(source): Source,
    headers: HeaderMap,
    Body(request): Body<EnrolRequest>,
) -> Result<Response, Problem> {
    app.rate_limits().enrol(source, crate::clock::now().mono)?;
    let mut attempt = Attempt { source, by: ANONYMOUS.into(), about: (Object::System, Id::from_i64(0)) };
    match admit(&app, &mut attempt, request).await {
        Ok((status, answer)) => {
            app.rate_limits().enrolled(source);
            Ok((status, rendered(&headers, answer)).into_response())
        }
        Err(problem) => {
            attempt.note_refusal(&app, &problem).await?;
            Err(problem)
        }
    }
}

/// The audit details of a call to enrol.
struct Attempt {
    source: IpAddr,
    by: String,
    about: (Object, Id),
}

impl Attempt {
    async fn note_refusal(&self, app: &AppState, problem: &Problem) -> Result<(), Problem> {
        if !refused::is_written(app, &self.by, crate::clock::now().mono) {
            return Ok(());
        }
        let mut write = ApiTx::beside(app, &self.by).await?;
        let data = json!({ "code": problem.code(), "from": self.source.to_string() });
        write.event("enrolment.refused", self.about, problem.detail(), data).await?;
        write.commit().await
    }
}

/// A parsed call to enrol.
struct Candidate {
    token: Token,
    name: String,
    key: PublicKey,
    poll_hash: Vec<u8>,
    ssh_host_key: Option<String>,
}

impl Candidate {
    fn parse(app: &AppState, request: EnrolRequest) -> Result<Self, Problem> {
        let refused = |why: String| Problem::unauthorized("token_invalid", why);
        let token: Token = request.token.parse().map_err(|e| refused(format!("{e}")))?;
        let mut fields = Fields::default();
        let name = fields.take("name", parse::name(&request.name));
        let key = fields.take("public_key", parse::public_key(app, &request.public_key));
        let poll_hash = fields.take("poll_hash", parse_hash(&request.poll_hash));
        let host_key = request.ssh_host_key.as_deref().map(parse::host_key);
        let ssh_host_key = host_key.and_then(|k| fields.take("ssh_host_key", k));
        fields.finish()?;
        match (name, key, poll_hash) {
            (Some(name), Some(key), Some(poll_hash)) => {
                Ok(Candidate { token, name, key, poll_hash, ssh_host_key })
            }
            _ => unreachable!("what is missing was named by finish"),
        }
    }
}

fn parse_hash(text: &str) -> Result<Vec<u8>, &'static str> {
    let wanted = "SHA-256 of the polling secret is expected, as 64 hexadecimal digits";
    let pair = |i: usize| text.get(2 * i..2 * i + 2).and_then(|d| u8::from_str_radix(d, 16).ok());
    let hex = text.len() == HASH_LEN && text.bytes().all(|b| b.is_ascii_hexdigit());
    let bytes: Option<Vec<u8>> = (0..HASH_LEN / 2).map(pair).collect();
    bytes.filter(|_| hex).ok_or(wanted)
}

async fn admit(
    app: &AppState,
    attempt: &mut Attempt,
    request: EnrolRequest,
) -> Result<(StatusCode, EnrolAnswer), Problem> {
    let candidate = Candidate::parse(app, request)?;
    let mut write = ApiTx::begin(app, &ANONYMOUS).await?;
    let token = verified(write.tx(), &candidate.token).await?;
    write.by = format!("token:{}", IdKind::Token.text(token.id));
    (attempt.by, attempt.about) = (write.by.clone(), (Object::Token, token.id));
    let now = write.now;
    enrolments::expire(write.tx(), now).await?.into_iter().for_each(|id| write.enrolment(id));
    if let Some(before) = enrolments::by_key(write.tx(), &candidate.key).await? {
        return repeated(app, &mut write, &token, before).await;
    }
    if let Some(taken) = devices::key_taken(write.tx(), &candidate.key).await? {
        return Err(super::devices::refusal(taken.into(), None));
    }
    if let Some(restored_at) = instance::unconfirmed(write.tx()).await? {
        return Err(restore_review::unconfirmed(restored_at));
    }
    if !enrolment_tokens::consume(write.tx(), token.id, now).await? {
        return Err(token_problem(token.refusal(now)));
    }
    let enrolment = record(app, &mut write, &token, candidate, attempt.source).await?;
    let answer = admit_device::answer(app, write.tx(), &enrolment).await?;
    write.commit().await?;
    Ok((StatusCode::CREATED, answer))
}

/// Returns the token's row if its secret is right.
async fn verified(tx: &mut SqliteConnection, token: &Token) -> Result<EnrolmentToken, Problem> {
    let unknown = || token_problem(TokenRefused::Unknown);
    let id: Id = token.id().parse().map_err(|_| unknown())?;
    let found = enrolment_tokens::find(tx, id).await?.filter(|(_, hash)| token.matches(hash));
    let (row, _) = found.ok_or_else(unknown)?;
    let kind = if row.replaces.is_some() { TokenKind::Replacement } else { TokenKind::Enrolment };
    if token.kind() == kind { Ok(row) } else { Err(unknown()) }
}

fn token_problem(refused: TokenRefused) -> Problem {
    let code = match refused {
        TokenRefused::Unknown => return Problem::unauthorized("token_invalid", refused.to_string()),
        TokenRefused::Revoked => "token_revoked",
        TokenRefused::Expired => "token_expired",
        TokenRefused::Spent => "token_spent",
    };
    Problem::forbidden(code, refused.to_string())
}

/// Repeats the response for a device that calls again with the same key.
async fn repeated(
    app: &AppState,
    write: &mut ApiTx<'_>,
    token: &EnrolmentToken,
    before: Enrolment,
) -> Result<(StatusCode, EnrolAnswer), Problem> {
    if before.token != token.id {
        let detail = "this key was enrolled with another token: make a new pair on the device";
        return Err(Problem::conflict("key_in_use", detail));
    }
    Ok((StatusCode::OK, admit_device::answer(app, write.tx(), &before).await?))
}

async fn record(
    app: &AppState,
    write: &mut ApiTx<'_>,
    token: &EnrolmentToken,
    candidate: Candidate,
    source: IpAddr,
) -> Result<Enrolment, Problem> {
    let waits = token.needs_approval;
    if waits && enrolments::are_enough(write.tx()).await? {
        let most = enrolments::MOST_WAITING;
        let detail = format!("{most} enrolments wait for approval: approve or reject some, then try again");
        return Err(Problem::too_many(detail, RETRY_AFTER_S));
    }
    let host =
        if waits { None } else { Some(admit_device::let_in(app, write, token, candidate.newcomer()).await?) };
    // A replacement takes the name of the device.
    let name = match host.or(token.replaces) {
        Some(host) => load(write.tx(), Named::Id(host)).await?.settings.name,
        None => candidate.name,
    };
    let now = write.now;
    let enrolment = Enrolment {
        id: ids::new_id(now),
        token: token.id,
        token_label: token.label.clone(),
        replaces: token.replaces,
        state: if waits { enrolments::State::AwaitingApproval } else { enrolments::State::Approved },
        name,
        public_key: candidate.key.to_string(),
        ssh_host_key: candidate.ssh_host_key,
        poll_hash: candidate.poll_hash,
        host,
        remote_address: source.to_string(),
        reason: String::new(),
        created_at: now,
        decided_at: (!waits).then_some(now),
        decided_by: (!waits).then(|| write.by.clone()),
        expires_at: waits.then(|| now + enrolments::PATIENCE),
    };
    enrolments::insert(write.tx(), &enrolment).await?;
    let kind = if waits { "enrolment.requested" } else { "enrolment.approved" };
    let data =
        json!({ "name": enrolment.name, "public_key": enrolment.public_key, "from": source.to_string() });
    write.event(kind, (Object::Enrolment, enrolment.id), "a device enrolled", data).await?;
    write.enrolment(enrolment.id);
    Ok(enrolment)
}

impl Candidate {
    fn newcomer(&self) -> AdmittedDevice<'_> {
        AdmittedDevice {
            name: &self.name,
            labels: Default::default(),
            key: self.key,
            ssh_host_key: self.ssh_host_key.as_deref(),
        }
    }
}

/// The state of an enrolment, for its device. The polling secret goes into `Authorization: Bearer`.
#[utoipa::path(get, path = "/enrol/{enrolment}", operation_id = "poll_enrolment", tag = "enrolment",
    security(("enrolment" = [])), params(("enrolment" = String, Path)),
    responses((status = 200, body = EnrolAnswer)))]
async fn poll(
    State(app): State<AppState>,
    Source(source): Source,
    headers: HeaderMap,
    Path(enrolment): Path<String>,
) -> Result<Response, Problem> {
    housekeeping::end_enrolments(&app.store, &app.live).await?;
    let mut conn = app.store.reader().await?;
    let found = own_enrolment(&app, &mut conn, source, &headers, &enrolment).await?;
    let answer = admit_device::answer(&app, &mut conn, &found).await?;
    Ok(rendered(&headers, answer))
}

/// The preshared key of an approved device, until its first handshake.
#[utoipa::path(get, path = "/enrol/{enrolment}/preshared-key", operation_id = "fetch_preshared_key",
    tag = "enrolment", security(("enrolment" = [])), params(("enrolment" = String, Path)),
    responses((status = 200, body = Psk)))]
async fn preshared_key(
    State(app): State<AppState>,
    Source(source): Source,
    headers: HeaderMap,
    Path(enrolment): Path<String>,
) -> Result<Response, Problem> {
    let mut conn = app.store.reader().await?;
    let found = own_enrolment(&app, &mut conn, source, &headers, &enrolment).await?;
    let (enrolments::State::Approved, Some(host)) = (found.state, found.host) else {
        return Err(Problem::conflict("not_approved", "this enrolment is not approved"));
    };
    let key: PublicKey = found.public_key.parse().map_err(|e| Problem::internal(anyhow::anyhow!("{e}")))?;
    if has_connected(&app, &mut conn, host).await? {
        let detail = "the preshared key was given until the first handshake; \
                      POST /devices/{device}/credentials makes new ones";
        return Err(Problem::new(StatusCode::GONE, "connected_already", detail));
    }
    let sealed = devices::sealed_psk(&mut conn, &key).await?.ok_or_else(|| unknown(&enrolment))?;
    let bytes = app.store.unseal(&psk_place(&key), &sealed)?;
    let bytes = bytes.as_slice().try_into().map_err(Problem::internal)?;
    let preshared_key = PresharedKey::from_bytes(bytes).to_base64().to_string();
    if wants_lines(&headers) {
        return Ok(format!("preshared_key={preshared_key}\n").into_response());
    }
    Ok(Json(Psk { preshared_key }).into_response())
}

/// Whether the device has completed a handshake with its present key. If so, it has the preshared
/// key.
async fn has_connected(app: &AppState, conn: &mut SqliteConnection, host: Id) -> Result<bool, Problem> {
    let Some(tunnel) = load(conn, Named::Id(host)).await?.tunnel else { return Ok(false) };
    let live = app.live.peer(host).and_then(|status| status.last_handshake);
    Ok(tunnel.last_handshake.max(live).is_some_and(|at| at > tunnel.keyed_at))
}

/// Returns the enrolment whose polling secret the caller has. A wrong secret and an unknown id look
/// the same.
async fn own_enrolment(
    app: &AppState,
    conn: &mut SqliteConnection,
    source: IpAddr,
    headers: &HeaderMap,
    text: &str,
) -> Result<Enrolment, Problem> {
    app.rate_limits().enrol(source, crate::clock::now().mono)?;
    let bearer = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()?.strip_prefix("Bearer "));
    let secret = bearer.map(str::trim).filter(|s| SECRET_LEN.contains(&s.len())).ok_or_else(|| {
        Problem::unauthorized(
            "secret_missing",
            "the polling secret is expected as `Authorization: Bearer ...`",
        )
    })?;
    let found = enrolments::by_id(conn, IdKind::Enrolment.parse(text)?).await?;
    let hash = Sha256::digest(secret);
    let own = found.filter(|e| bool::from(e.poll_hash.as_slice().ct_eq(hash.as_slice())));
    let own = own.ok_or_else(|| unknown(text))?;
    app.rate_limits().enrolled(source);
    Ok(own)
}

fn unknown(text: &str) -> Problem {
    IdKind::Enrolment.unknown(text).into()
}

fn wants_lines(headers: &HeaderMap) -> bool {
    headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).is_some_and(|a| a.starts_with("text/plain"))
}

fn rendered(headers: &HeaderMap, answer: EnrolAnswer) -> Response {
    if wants_lines(headers) { lines(&answer).into_response() } else { Json(answer).into_response() }
}

/// Formats the response for a shell. The gateway generated or parsed all values as single lines, so
/// that none contains a line break.
fn lines(answer: &EnrolAnswer) -> String {
    let one_line = |text: &str| text.replace(char::is_control, " ");
    let mut out = format!(
        "id={}\nstate={}\nname={}\nreason={}\npoll_after_s={}\n",
        answer.id,
        answer.state,
        answer.name,
        one_line(&answer.reason),
        answer.poll_after_s
    );
    if let Some(c) = &answer.connection {
        out += &format!(
            "public_key={}\nendpoint={}\naddresses={}\nallowed_ips={}\nkeepalive_s={}\nmtu={}\n\
             ssh_public_key={}\nssh_user={}\n",
            c.public_key,
            c.endpoint,
            c.addresses.join(", "),
            c.allowed_ips.join(", "),
            c.keepalive_s,
            c.mtu,
            one_line(&c.ssh_public_key),
            c.ssh_user.as_deref().unwrap_or_default()
        );
    }
    out
}

/// Serves the script with the address that it was fetched from.
async fn script(State(app): State<AppState>, headers: HeaderMap) -> Response {
    let text = SCRIPT
        .replace(PLACE, &url_seen(&app, &headers))
        .replace(RENTAL_CA_PLACE, &app.ssh_ca.public_line())
        .replace(RENTAL_ACCESS_PLACE, RENTAL_ACCESS.trim_end());
    ([(header::CONTENT_TYPE, "text/x-shellscript; charset=utf-8"), (header::CACHE_CONTROL, "no-store")], text)
        .into_response()
}

/// Returns the public URL, or else the requested host if it is safe inside a script.
fn url_seen(app: &AppState, headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|v| v.to_str().ok());
    let safe =
        |h: &&str| h.len() <= 300 && h.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:[]".contains(&b));
    match (&app.config.public_url, host.filter(safe)) {
        (None, Some(host)) => format!("{}://{host}", if app.config.tls.is_some() { "https" } else { "http" }),
        _ => app.base_url(),
    }
}
