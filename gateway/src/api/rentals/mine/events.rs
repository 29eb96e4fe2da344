//! The events of the rentals that a person or a program of a customer sees.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::AppState;
use crate::api::rentals::events::{self, FeedPlace, RentalEvent};
use crate::api::request::extract::Query;
use crate::api::request::ids::IdKind;
use crate::api::request::person::CustomerCaller;
use crate::api::response::page::Paging;
use crate::api::response::problem::Problem;
use crate::api::types::names;
use crate::store::Connection as _;
use crate::store::rentals::events::extent;
use crate::store::rentals::mine as stored;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list))
}

/// An event of a rental, as its customer sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MyRentalEvent {
    /// `v_...`
    pub id: String,
    #[schema(value_type = names::RentalEventKind)]
    pub kind: String,
    /// When it happened.
    pub at: String,
    /// `l_...`
    pub rental: String,
    /// That of the rental after the event.
    #[schema(minimum = 1)]
    pub version: i64,
    /// The state of the rental after the event.
    #[schema(value_type = names::RentalState)]
    pub state: String,
    pub from: String,
    /// Not included.
    pub until: String,
    /// Of `rental.ended`, `rental.cancelled` and `rental.failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::RentalEndReason>)]
    pub reason: Option<String>,
}

/// One page of the events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MyRentalEventPage {
    /// In the order of what happened.
    pub items: Vec<MyRentalEvent>,
    /// Goes into `?after=` for what comes later. Never absent, also on an empty page.
    pub next: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Only those of this rental.
    rental: Option<String>,
}

/// The events of the rentals that the caller sees, the oldest first.
///
/// Without `after` it begins with the oldest event that is kept: events stay for 90 days. 410 `cursor_gone`: a
/// backup was restored, or events after the cursor are no longer kept.
#[utoipa::path(get, path = "/my/rental-events", operation_id = "list_my_rental_events", tag = "rentals",
    security(("person" = []), ("customer" = [])), params(Paging, Filter),
    responses((status = 200, body = MyRentalEventPage)))]
async fn list(
    State(app): State<AppState>,
    who: CustomerCaller,
    Query(paging): Query<Paging>,
    Query(wanted): Query<Filter>,
) -> Result<Json<MyRentalEventPage>, Problem> {
    let (limit, visible) = (paging.limit()?, super::visible(who));
    let rental = wanted.rental.as_deref().map(|text| IdKind::Rental.parse(text)).transpose()?;
    let mut conn = app.store.reader().await?;
    // One moment, so that nothing is removed between the check of the cursor and the list.
    let mut moment = conn.begin().await?;
    if let (Some(id), Some(text)) = (rental, &wanted.rental) {
        let found = stored::rental(&mut moment, visible, id).await?;
        found.ok_or_else(|| IdKind::Rental.unknown(text))?;
    }
    let place = FeedPlace::of(&paging, extent(&mut moment).await?)?;
    let rows = stored::events(&mut moment, visible, rental, place.numbers, limit).await?;
    let items = rows.iter().map(|row| to_api(events::to_api(row))).collect();
    Ok(Json(MyRentalEventPage { items, next: place.next_cursor(&rows, limit) }))
}

/// Leaves out the device, which is the operator's, and the rentals and blocks around this one.
fn to_api(event: RentalEvent) -> MyRentalEvent {
    let RentalEvent { id, kind, at, rental, version, data, .. } = event;
    MyRentalEvent {
        id,
        kind,
        at,
        rental,
        version,
        state: data.state,
        from: data.from,
        until: data.until,
        reason: data.reason,
    }
}
