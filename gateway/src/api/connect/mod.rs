//! TCP connections to hosts, as WebSockets: people reach what they may reach without a tunnel of
//! their own.
//!
//! A connection needs a role, a scope and a grant, and it ends when one of them does (`right.rs`). It
//! runs through the tunnel of the host's device by the in-process stack, and never with the gateway's
//! own credentials. This module does not know what the bytes mean.

mod open_streams;
mod relay;
mod right;

use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::messages::ConnectFailure;
use fleetgate_engine::time::Mono;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::task::task_tracker::TaskTrackerToken;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::request::auth::Principal;
use super::request::extract::{Path, Query};
use super::request::ids::{self, IdKind};
use super::request::transaction::ApiTx;
use super::response::problem::Problem;
use super::{AppState, hosts};
use crate::clock;
use crate::store::events::Object;
use crate::tunnel::stream::TunnelStream;
pub(super) use open_streams::OpenStreams;
use open_streams::{Full, MAX_OF_ONE, MAX_STREAMS, MAX_TO_DEVICE, OpenStream};
use relay::{End, Traffic};
use right::Right;

/// The largest message, in both directions: as much as the tunnel takes of a stream at once.
const MAX_MESSAGE: usize = 64 * 1024;
/// Buffer for reading and writing a WebSocket. The library's usual one is eight times as large.
const BUFFER: usize = 16 * 1024;
/// The longest wait for the host. It includes a handshake with a device that has no session, and is
/// far shorter than the time limit of a request.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(connect))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ConnectParams {
    /// The TCP port of the host.
    #[param(minimum = 1, maximum = 65535)]
    port: u16,
}

/// A TCP connection to a host, as a WebSocket.
///
/// Binary messages carry its bytes. An empty one is the end of the data of its sender.
#[utoipa::path(get, path = "/hosts/{host}/connect", operation_id = "connect", tag = "access",
    security(("token" = ["access:operator"])),
    params(("host" = String, Path, description = "id or name"), ConnectParams),
    responses((status = 101, description = "connected; the rest is the protocol of WebSockets")))]
async fn connect(
    State(app): State<AppState>,
    who: Principal,
    Path(host): Path<String>,
    Query(ConnectParams { port }): Query<ConnectParams>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    parts: Parts,
) -> Result<Response, Problem> {
    let upgrade = upgrade.map_err(no_websocket)?;
    if port == 0 {
        return Err(Problem::bad_request("bad_query", "port: a number from 1 to 65535 is expected"));
    }
    let host = hosts::load(&mut *app.store.reader().await?, IdKind::Host.named(&host)).await?;
    let right = Right::of(&app, &who, (host.id, &host.name), port).await?;
    let place = enter(&app, &who, &right, &host.name)?;
    let to = right.target.address;
    let connected = app.streams.connect(right.target.peer, to, CONNECT_PATIENCE).await;
    let stream = connected.map_err(|failure| not_connected(&failure, &host.name, port))?;
    let session = Session {
        id: ids::new_id(clock::wall()),
        tracked: app.open_streams().track(),
        begun: clock::now().mono,
        app,
        who,
        host: host.id,
        right,
        place,
        parts,
    };
    let upgrade = upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE);
    let upgrade = upgrade.read_buffer_size(BUFFER).write_buffer_size(BUFFER);
    Ok(upgrade.on_upgrade(move |socket| session.run(socket, stream)))
}

/// Counts the connection.
fn enter(app: &AppState, who: &Principal, right: &Right, host: &str) -> Result<OpenStream, Problem> {
    let by = holder(who);
    let place = app.open_streams().enter(by.clone(), right.target.peer);
    let place = place.map_err(|full| Problem::too_many(full_text(full, &by, host), 5))?;
    app.rate_limits().stream(&by, clock::now().mono)?;
    Ok(place)
}

/// The caller that connections are counted for. All tokens and sessions of a user are one.
fn holder(who: &Principal) -> String {
    who.who.user().map_or_else(|| who.to_string(), |(_, user)| format!("user:{user}"))
}

fn no_websocket(rejection: WebSocketUpgradeRejection) -> Problem {
    let detail = format!(
        "this call opens a WebSocket over HTTP/1.1 ({}): use `fleetgate connect HOST:PORT`, or a client for \
         WebSockets",
        rejection.body_text()
    );
    Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", detail)
}

fn full_text(full: Full, by: &str, host: &str) -> String {
    match full {
        Full::Device => format!(
            "{MAX_TO_DEVICE} connections of people go through the tunnel of {host} now, which is the limit, \
             so that its checks have room: close one"
        ),
        Full::Caller => format!("{by} has {MAX_OF_ONE} connections open, which is the limit: close one"),
        Full::All => format!("{MAX_STREAMS} connections of people are open, which is the limit"),
    }
}

/// Says why the host is not reached. The caller may reach it, so that the reason reveals nothing.
fn not_connected(failure: &ConnectFailure, host: &str, port: u16) -> Problem {
    let unreached = |why: &str| {
        Problem::new(StatusCode::BAD_GATEWAY, "not_connected", format!("{host} TCP {port}: {why}"))
    };
    match failure {
        ConnectFailure::NoTunnel => {
            let detail = format!(
                "{host} has no tunnel now: its device is off, or has lost its connection (GET /hosts/{host} says \
                 since when)"
            );
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "tunnel_down", detail)
        }
        ConnectFailure::Busy => {
            Problem::too_many(format!("too much is in flight through the tunnel of {host}: try again"), 5)
        }
        ConnectFailure::Refused => unreached("the host refuses the connection: no program listens there"),
        ConnectFailure::Timeout => {
            unreached("there was no answer within 10 s: a firewall of the host may drop the connection")
        }
        ConnectFailure::Reset | ConnectFailure::Unreachable(_) => unreached(&failure.to_string()),
    }
}

/// One open connection and what belongs to it.
struct Session {
    /// Names the connection in both of its events.
    id: Id,
    app: AppState,
    who: Principal,
    host: HostId,
    right: Right,
    place: OpenStream,
    parts: Parts,
    begun: Mono,
    /// The gateway's stop waits for it, so that no end is missing in the audit log.
    tracked: TaskTrackerToken,
}

/// Attempts to record an end, which take half a minute with their pauses. A stop of the gateway waits
/// for one.
const ATTEMPTS: u32 = 30;
const ATTEMPT_AFTER: Duration = Duration::from_secs(1);

/// The stack keeps the port of a connection that ended in order for so long.
const LINGER: Duration = Duration::from_secs(1);

impl Session {
    async fn run(self, socket: WebSocket, stream: TunnelStream) {
        let traffic = Traffic::default();
        let end = match self.record("stream.opened", "a connection to the host", self.data()).await {
            Ok(()) => {
                let ended = self.right.ended(&self.app, self.parts.clone());
                relay::run(socket, stream, (ended, self.app.shutdown.clone()), &traffic).await
            }
            // A stream that cannot be recorded is not opened.
            Err(problem) => {
                drop(stream);
                relay::refuse(socket, End::NotRecorded(problem.detail().to_owned())).await
            }
        };
        self.close(&end, &traffic).await;
    }

    async fn close(self, end: &End, traffic: &Traffic) {
        let mut data = self.data();
        data["sent_bytes"] = json!(traffic.sent());
        data["received_bytes"] = json!(traffic.received());
        data["duration_s"] = json!(clock::now().mono.since(self.begun).as_secs_f64());
        data["why"] = json!(end.name());
        if !matches!(end, End::NotRecorded(_)) {
            self.record_end(&end.text(), data).await;
        }
        drop(self.tracked);
        if *end == End::Closed {
            tokio::time::sleep(LINGER).await;
        }
        drop(self.place);
    }

    /// A database that is locked or full for a moment must not cost the audit an end.
    async fn record_end(&self, cause: &str, data: Value) {
        for left in (0..ATTEMPTS).rev() {
            let Err(problem) = self.record("stream.closed", cause, data.clone()).await else { return };
            if left == 0 || self.app.shutdown.is_cancelled() {
                tracing::warn!(id = %self.id, by = %self.who, "the end of a connection is not in the audit: {problem}");
                return;
            }
            tokio::time::sleep(ATTEMPT_AFTER).await;
        }
    }

    fn data(&self) -> Value {
        let to = self.right.target.address;
        json!({ "id": IdKind::Stream.text(self.id), "address": to.ip().to_string(), "port": to.port() })
    }

    async fn record(&self, kind: &str, cause: &str, data: Value) -> Result<(), Problem> {
        let mut write = ApiTx::beside(&self.app, &self.who).await?;
        write.event(kind, (Object::Host, self.host), cause, data).await?;
        write.commit().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::request::auth::{Role, Who};

    #[test]
    fn the_tokens_of_a_user_are_counted_together_and_those_of_programs_apart() {
        let holder_of = |who| holder(&Principal { who, role: Role::Operator, scopes: Vec::new() });
        let of_ada = |n| Who::UserToken { token: Id::from_i64(n), user: Id::from_i64(1), name: "ada".into() };
        assert_eq!(holder_of(of_ada(2)), holder_of(of_ada(3)));
        assert_eq!(holder_of(of_ada(2)), "user:ada");
        assert_ne!(holder_of(Who::Token(Id::from_i64(2))), holder_of(Who::Token(Id::from_i64(3))));
    }
}
