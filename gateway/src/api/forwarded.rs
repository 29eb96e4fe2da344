//! Traffic of people through the gateway to hosts, by hour: of operators, and of renters to the devices of their
//! rentals.

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
use super::request::ids::{self, IdKind};
use super::response::problem::Problem;
use super::types::names;
use crate::store::forwarded::{self as stored, Forwarded as Row, Owner};
use crate::store::rentals;

const DEFAULT_ROWS: i64 = 100;
const MOST_ROWS: i64 = 1_000;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Only what went to this host, by name or id.
    host: Option<String>,
    /// Only what this operator sent, by name or id.
    operator: Option<String>,
    /// Only what was sent to the device of this rental, by id.
    rental: Option<String>,
    /// The newest so many; 100 when absent.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
}

/// Forwarded traffic, the newest hour first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Forwarded {
    pub hours: Vec<ForwardedHour>,
}

/// Traffic of one operator or renter with one port of one host in one hour, in bytes of inner packets. Either
/// `operator` and `user` are there, or `renter`, `person` and `rental`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ForwardedHour {
    /// The begin of the hour.
    pub hour: String,
    /// A name, or the id of what was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// An id, because the name is personal data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renter: Option<String>,
    /// An id, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
    /// The rental whose address was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rental: Option<String>,
    /// A name, or the id of what was removed.
    pub host: String,
    #[schema(value_type = names::GrantProtocolName)]
    pub protocol: String,
    /// The port of the host. 0 stands for `icmp`, and for everything beyond 500 rows of one operator or renter in
    /// one hour, which has the host `h_0000000000000`.
    #[schema(minimum = 0, maximum = 65535)]
    pub port: i64,
    /// The grant that permitted the last packet; of a renter, the one of the rental.
    pub grant: String,
    /// Flows that ended in this hour.
    #[schema(minimum = 0)]
    pub flows: i64,
    /// From the operator or renter to the host.
    pub sent_bytes: u64,
    /// From the host to the operator or renter.
    pub received_bytes: u64,
}

/// Traffic of people through the gateway to hosts, by hour. The rows of a flow come when it ends, and
/// each hour; those of a rental each minute.
#[utoipa::path(get, path = "/forwarded", operation_id = "list_forwarded", tag = "access",
    security(("token" = ["access:operator"])), params(Filter),
    responses((status = 200, body = Forwarded)))]
async fn list(State(app): State<AppState>, Query(wanted): Query<Filter>) -> Result<Json<Forwarded>, Problem> {
    let limit = wanted.limit.unwrap_or(DEFAULT_ROWS);
    if !(1..=MOST_ROWS).contains(&limit) {
        return Err(Problem::bad_request("bad_query", format!("limit: 1 to {MOST_ROWS} is expected")));
    }
    let mut conn = app.store.reader().await?;
    let host = match &wanted.host {
        Some(text) => Some(hosts::load(&mut conn, IdKind::Host.named(text)).await?.id),
        None => None,
    };
    let operator = match &wanted.operator {
        Some(text) => Some(operators::load(&mut conn, IdKind::Operator.named(text)).await?.id),
        None => None,
    };
    let rental = match &wanted.rental {
        Some(text) => {
            let found = rentals::find(&mut conn, IdKind::Rental.parse(text)?).await?;
            Some(found.ok_or_else(|| IdKind::Rental.unknown(text))?.id)
        }
        None => None,
    };
    let wanted = stored::Filter { host, source: operator, rental };
    let rows = stored::newest(&mut conn, wanted, limit).await?;
    Ok(Json(Forwarded { hours: rows.iter().map(to_api).collect() }))
}

/// Returns the name, or the id of what has none any more.
fn named(name: &Option<String>, kind: IdKind, id: Id) -> String {
    name.clone().unwrap_or_else(|| kind.text(id))
}

fn to_api(row: &Row) -> ForwardedHour {
    let (user, person) = match row.owner {
        Owner::User(user) => (Some(user), None),
        Owner::Person(person) => (None, Some(person)),
    };
    let grant = if row.rental.is_some() { IdKind::Rental } else { IdKind::Grant };
    ForwardedHour {
        hour: ids::time(row.hour),
        operator: user.map(|_| named(&row.source_name, IdKind::Operator, row.source)),
        user: user.map(|user| named(&row.user_name, IdKind::User, user)),
        renter: person.map(|_| IdKind::Renter.text(row.source)),
        person: person.map(|person| IdKind::Person.text(person)),
        rental: row.rental.map(|rental| IdKind::Rental.text(rental)),
        host: named(&row.host_name, IdKind::Host, row.host),
        protocol: row.protocol.clone(),
        port: row.port,
        grant: grant.text(row.grant),
        flows: row.flows,
        sent_bytes: row.sent.bytes,
        received_bytes: row.received.bytes,
    }
}
