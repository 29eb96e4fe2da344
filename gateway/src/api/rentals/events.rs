//! The feed of what happened to rentals.
//!
//! A cursor is the epoch of the gateway and the number of an event. After a restore the epoch is another
//! one, because the numbers then stand for other events.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::customers;
use crate::api::AppState;
use crate::api::request::extract::Query;
use crate::api::request::ids::{self, IdKind};
use crate::api::response::page::{self, Paging, bad_cursor};
use crate::api::response::problem::Problem;
use crate::api::types::names;
use crate::store::Connection as _;
use crate::store::rentals::events::{self as stored, EventRow};
use crate::store::rentals::find;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list))
}

/// An event of a rental. A webhook has the same body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RentalEvent {
    /// `v_...`; the same in the feed and at each attempt of a delivery.
    pub id: String,
    #[schema(value_type = names::RentalEventKind)]
    pub kind: String,
    /// When it happened.
    pub at: String,
    /// `l_...`
    pub rental: String,
    /// `b_...`
    pub booking: String,
    /// `k_...`
    pub customer: String,
    /// That of the rental after the event.
    #[schema(minimum = 1)]
    pub version: i64,
    pub data: RentalEventData,
}

/// The rental after the event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RentalEventData {
    #[schema(value_type = names::RentalState)]
    pub state: String,
    /// `h_...`
    pub device: String,
    /// The device that it had before: of `rental.swapped`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_device: Option<String>,
    /// The public SSH host keys of the device, as far as the gateway has seen them: of `rental.swapped`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_host_keys: Option<Vec<String>>,
    pub from: String,
    /// Not included.
    pub until: String,
    /// Until then it is not confirmed: in the state `held`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_until: Option<String>,
    /// Of `rental.ended`, `rental.cancelled` and `rental.failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::RentalEndReason>)]
    pub reason: Option<String>,
    /// Of `rental.allowance_80` and `rental.allowance_reached`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub allowance_bytes: Option<u64>,
    /// The bytes that the gateway had forwarded for it. In the same events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0)]
    pub forwarded_bytes: Option<u64>,
    /// The rental that is to have the device next: of `rental.overdue`, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_rental: Option<String>,
    /// The rental from which the device has not come back: of `rental.device_overdue`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_rental: Option<String>,
    /// Of `rental.blocked` and `rental.unblocked`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<RentalEventBlock>,
}

/// A block of the device of a rental.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RentalEventBlock {
    /// `x_...`
    pub id: String,
    pub from: String,
    /// Not included. `null`: until it is ended.
    pub until: Option<String>,
}

/// One page of the feed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RentalEventPage {
    /// In the order of what happened.
    pub items: Vec<RentalEvent>,
    /// Goes into `?after=` for what comes later. Never absent, also on an empty page.
    pub next: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Only those of this rental.
    rental: Option<String>,
    /// Only those of this customer (id or `external_ref`).
    customer: Option<String>,
}

/// The events of rentals, the oldest first.
///
/// Without `after` it begins with the oldest event that is kept: events stay for 90 days. 410 `cursor_gone`: a
/// backup was restored, or events after the cursor are no longer kept.
#[utoipa::path(get, path = "/rental-events", operation_id = "list_rental_events", tag = "rentals",
    security(("token" = ["rentals:operator"])), params(Paging, Filter),
    responses((status = 200, body = RentalEventPage)))]
async fn list(
    State(app): State<AppState>,
    Query(paging): Query<Paging>,
    Query(wanted): Query<Filter>,
) -> Result<Json<RentalEventPage>, Problem> {
    let limit = paging.limit()?;
    let filter = stored::Filter {
        rental: wanted.rental.as_deref().map(|text| IdKind::Rental.parse(text)).transpose()?,
        customer: customers::wanted(&app, wanted.customer.as_deref()).await?,
    };
    let mut conn = app.store.reader().await?;
    // One moment, so that nothing is removed between the check of the cursor and the list.
    let mut moment = conn.begin().await?;
    if let (Some(id), Some(text)) = (filter.rental, &wanted.rental) {
        find(&mut moment, id).await?.ok_or_else(|| IdKind::Rental.unknown(text))?;
    }
    let place = FeedPlace::of(&paging, stored::extent(&mut moment).await?)?;
    let rows = stored::list(&mut moment, filter, place.numbers, limit).await?;
    Ok(Json(RentalEventPage {
        items: rows.iter().map(to_api).collect(),
        next: place.next_cursor(&rows, limit),
    }))
}

/// Where a page of the feed begins.
pub(super) struct FeedPlace {
    epoch: String,
    /// After the first number, and not after the second one.
    pub(super) numbers: (i64, i64),
}

impl FeedPlace {
    /// # Errors
    /// Returns 400 for what is no cursor, and 410 for one after which events may be missing.
    pub(super) fn of(paging: &Paging, there: stored::Extent) -> Result<FeedPlace, Problem> {
        let after = paging.after()?.map(|text| Cursor::parse(&text)).transpose()?;
        let stored::Extent { epoch, first, last } = there;
        let from = match after {
            Some(cursor) => cursor.check(&epoch, (first, last))?,
            None => first - 1,
        };
        Ok(FeedPlace { epoch, numbers: (from, last) })
    }

    /// Returns the cursor of the next page. With a filter, it does not look again at what this one has passed over.
    pub(super) fn next_cursor(self, rows: &[EventRow], limit: i64) -> String {
        let is_full = usize::try_from(limit).is_ok_and(|limit| rows.len() >= limit);
        let seq = rows.last().filter(|_| is_full).map_or(self.numbers.1, |row| row.seq);
        Cursor { epoch: self.epoch, seq }.text()
    }
}

/// The place of an event in the log of one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cursor {
    epoch: String,
    seq: i64,
}

impl Cursor {
    fn parse(text: &str) -> Result<Cursor, Problem> {
        let (epoch, seq) = text.split_once('.').ok_or_else(bad_cursor)?;
        let seq = seq.parse::<i64>().ok().filter(|seq| *seq >= 0).ok_or_else(bad_cursor)?;
        Ok(Cursor { epoch: epoch.to_owned(), seq })
    }

    fn text(&self) -> String {
        page::cursor(&format!("{}.{}", self.epoch, self.seq))
    }

    /// # Errors
    /// Returns 410 when the gateway cannot tell what comes after this cursor.
    fn check(self, epoch: &str, (first, last): (i64, i64)) -> Result<i64, Problem> {
        let gone = |why: &str| {
            let rest = "read the rentals (GET /rentals), and then the events without after";
            Problem::new(StatusCode::GONE, "cursor_gone", format!("after: {why}: {rest}"))
        };
        if self.epoch != epoch {
            return Err(gone("a backup was restored since, and some events may never have been seen"));
        }
        if self.seq > last {
            return Err(bad_cursor());
        }
        if self.seq + 1 < first {
            return Err(gone("events that follow are older than 90 days and no longer kept"));
        }
        Ok(self.seq)
    }
}

pub(super) fn to_api(row: &EventRow) -> RentalEvent {
    RentalEvent {
        id: IdKind::RentalEvent.text(row.id),
        kind: row.kind.clone(),
        at: ids::time(row.at),
        rental: IdKind::Rental.text(row.rental),
        booking: IdKind::Booking.text(row.booking),
        customer: IdKind::Customer.text(row.customer),
        version: row.version,
        data: serde_json::from_str(&row.data).unwrap_or_default(),
    }
}

/// Returns an event as JSON, for a webhook.
///
/// # Errors
/// Fails when the event cannot be written as JSON.
pub fn event_body(row: &EventRow) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&to_api(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(result: Result<i64, Problem>) -> Result<i64, (u16, &'static str)> {
        result.map_err(|problem| (problem.status().as_u16(), problem.code()))
    }

    #[test]
    fn a_cursor_is_good_while_everything_after_it_is_kept() {
        let at = |epoch: &str, seq| Cursor { epoch: epoch.to_owned(), seq };
        for (cursor, bounds, expected) in [
            (at("a", 0), (1, 0), Ok(0)),
            (at("a", 7), (3, 7), Ok(7)),
            (at("a", 2), (3, 7), Ok(2)),
            (at("a", 1), (3, 7), Err((410, "cursor_gone"))),
            (at("a", 8), (3, 7), Err((400, "bad_query"))),
            (at("b", 7), (3, 7), Err((410, "cursor_gone"))),
        ] {
            assert_eq!(code(cursor.clone().check("a", bounds)), expected, "{cursor:?} {bounds:?}");
        }
    }

    #[test]
    fn a_cursor_comes_back_as_it_was() {
        let cursor = Cursor { epoch: "6f2a".into(), seq: 41 };
        let paging = Paging { limit: None, after: Some(cursor.text()) };
        let read = paging.after().unwrap().map(|text| Cursor::parse(&text).unwrap());
        assert_eq!(read, Some(cursor));
        for wrong in ["", "6f2a", "6f2a.", "6f2a.x", "6f2a.-1"] {
            assert!(Cursor::parse(wrong).is_err(), "{wrong}");
        }
    }
}
