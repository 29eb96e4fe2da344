//! Traffic of people through the gateway to hosts, by hour.

use axum::Json;
use axum::extract::State;
use fleetgate_engine::id::Id;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::hosts;
use super::operators;
use super::request::extract::Query;
use super::request::ids::{self, Kind};
use super::response::problem::Problem;
use super::types::names;
use crate::store::forwarded::{self as stored, Forwarded as Row};

const DEFAULT_ROWS: i64 = 100;
const MOST_ROWS: i64 = 1_000;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// Only what went to this host, by name or id.
    host: Option<String>,
    /// Only what this operator sent, by name or id.
    operator: Option<String>,
    /// The newest so many; 100 when absent.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
}

/// Forwarded traffic, the newest hour first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Forwarded {
    pub hours: Vec<ForwardedHour>,
}

/// Traffic of one operator with one port of one host in one hour, in bytes of inner packets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ForwardedHour {
    /// The begin of the hour.
    pub hour: String,
    /// A name, or the id of what was removed.
    pub operator: String,
    pub user: String,
    pub host: String,
    #[schema(value_type = names::GrantProtocolName)]
    pub protocol: String,
    /// The port of the host. 0 stands for `icmp`, and for everything beyond 500 rows of one operator in one hour,
    /// which has the host `h_0000000000000`.
    #[schema(minimum = 0, maximum = 65535)]
    pub port: i64,
    /// The grant that permitted the last packet.
    pub grant: String,
    /// Flows that ended in this hour.
    #[schema(minimum = 0)]
    pub flows: i64,
    /// From the operator to the host.
    pub sent_bytes: u64,
    /// From the host to the operator.
    pub received_bytes: u64,
}

/// Traffic of people through the gateway to hosts, by hour. The rows of a flow come when it ends, and each hour.
#[utoipa::path(get, path = "/forwarded", operation_id = "list_forwarded", tag = "access",
    security(("token" = ["access:operator"])), params(Wanted),
    responses((status = 200, body = Forwarded)))]
async fn list(State(app): State<AppState>, Query(wanted): Query<Wanted>) -> Result<Json<Forwarded>, Problem> {
    let limit = wanted.limit.unwrap_or(DEFAULT_ROWS);
    if !(1..=MOST_ROWS).contains(&limit) {
        return Err(Problem::bad_request("bad_query", format!("limit: 1 to {MOST_ROWS} is expected")));
    }
    let mut conn = app.store.reader().await?;
    let host = match &wanted.host {
        Some(text) => Some(hosts::load(&mut conn, Kind::Host.named(text)).await?.id),
        None => None,
    };
    let operator = match &wanted.operator {
        Some(text) => Some(operators::load(&mut conn, Kind::Operator.named(text)).await?.id),
        None => None,
    };
    let rows = stored::newest(&mut conn, (host, operator), limit).await?;
    Ok(Json(Forwarded { hours: rows.iter().map(to_api).collect() }))
}

/// Returns the name, or the id of what has none any more.
fn named(name: &Option<String>, kind: Kind, id: Id) -> String {
    name.clone().unwrap_or_else(|| kind.text(id))
}

fn to_api(row: &Row) -> ForwardedHour {
    ForwardedHour {
        hour: ids::time(row.hour),
        operator: named(&row.source_name, Kind::Operator, row.source),
        user: named(&row.user_name, Kind::User, row.user),
        host: named(&row.host_name, Kind::Host, row.host),
        protocol: row.protocol.clone(),
        port: row.port,
        grant: Kind::Grant.text(row.grant),
        flows: row.flows,
        sent_bytes: row.sent.bytes,
        received_bytes: row.received.bytes,
    }
}
