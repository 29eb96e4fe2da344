//! The review after a restore. A backup has users, tokens and grants that were ended after it, so nobody
//! reaches anything through the gateway, nothing is booked, no device enrols and no event of a rental is delivered,
//! until an admin has looked at what came back and confirmed it. Devices, checks and notifications go on.
//!
//! `store/policy.rs` withholds the sources of grants. This module says so, and refuses the rest.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fleetgate_engine::time::Wall;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::request::auth::Principal;
use super::request::extract::Body;
use super::request::transaction::ApiTx;
use super::request::{ids, parse};
use super::response::problem::Problem;
use super::types::names;
use crate::clock;
use crate::health::{RESTORE_CONFIRMED, restore_problem};
use crate::notification::gateway_message;
use crate::store::instance::{self, Instance};
use crate::store::restore_review::{self as stored, ReviewKind, Reviewed, ReviewedKind};
use crate::store::{events, notices, policy};

/// The access that a restore has brought back, and whether an admin has confirmed it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RestoreReview {
    /// Until an admin confirms, operators and renters reach nothing, no connection to a host opens over the API,
    /// nothing is booked or changed of rentals, no device enrols, and subscriptions receive nothing.
    pub awaits_confirmation: bool,
    /// When the backup was restored. Absent: never.
    pub restored_at: Option<String>,
    /// When the backup was made.
    pub backup_made_at: Option<String>,
    pub confirmed_at: Option<String>,
    /// The user who confirmed, as in the audit log.
    pub confirmed_by: Option<String>,
    /// The access that is in effect again after the confirmation. Empty unless it is awaited.
    pub kinds: Vec<ReviewList>,
}

/// The objects of one kind that came back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReviewList {
    #[schema(value_type = names::ReviewKindName)]
    pub kind: String,
    #[schema(minimum = 0)]
    pub total: i64,
    /// The 500 that changed last, the newest change first. The list of the kind has all.
    pub objects: Vec<ReviewObject>,
}

/// An object that came back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReviewObject {
    pub id: String,
    /// The device of a rental, and the server of a subscription. Absent if it has none.
    pub name: Option<String>,
    /// The rights that it gives, for people.
    pub details: String,
    /// The last change before the backup that the event log has.
    pub changed_at: String,
}

/// The confirmation of a review.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreConfirmation {
    /// `restored_at` of the review that was looked at.
    pub restored_at: String,
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(show)).routes(routes!(confirm))
}

/// What a restore has brought back: users, operators, renters, tokens, grants, rentals, subscriptions and enrolment
/// tokens.
#[utoipa::path(get, path = "/restore-review", operation_id = "show_restore_review", tag = "gateway",
    security(("token" = ["unlimited:admin"])), responses((status = 200, body = RestoreReview)))]
async fn show(State(app): State<AppState>) -> Result<Json<RestoreReview>, Problem> {
    let (mut conn, now) = (app.store.reader().await?, clock::wall());
    let found = instance::load(&mut conn).await?;
    let mut kinds = Vec::new();
    if found.unconfirmed().is_some() {
        for kind in ReviewKind::ALL {
            kinds.push(list(kind, stored::of_kind(&mut conn, kind, now).await?));
        }
    }
    Ok(Json(to_api(found, kinds)))
}

/// Confirms what a restore has brought back. Operators and renters reach what their grants permit, and booking goes
/// on.
///
/// 409 `other_restore`: another backup was restored since; look at the review again. 409 `nothing_to_confirm`: no
/// restore waits.
#[utoipa::path(post, path = "/restore-review/confirm", operation_id = "confirm_restore", tag = "gateway",
    security(("token" = ["unlimited:admin"])), request_body = RestoreConfirmation,
    responses((status = 200, body = RestoreReview)))]
async fn confirm(
    State(app): State<AppState>,
    who: Principal,
    Body(body): Body<RestoreConfirmation>,
) -> Result<Json<RestoreReview>, Problem> {
    let seen = parse::moment(&body.restored_at).map_err(|detail| Problem::invalid("restored_at", detail))?;
    let mut write = ApiTx::begin(&app, &who).await?;
    let restored_at = confirmable(&instance::load(write.tx()).await?, seen)?;
    let (now, by) = (write.now, write.by.clone());
    instance::confirm(write.tx(), now, &by).await?;
    write.wakes_rental_events();
    let people = policy::people(write.tx()).await?;
    write.sources(people);
    let data = json!({ "restored_at": ids::time(restored_at) });
    write.of_nothing("restore.confirmed", "confirmed", data).await?;
    if events::restore_is_noted(write.tx()).await? {
        let message = gateway_message(events::RESTORE_SERVICE, false, RESTORE_CONFIRMED, now);
        notices::insert(write.tx(), &message, None).await?;
    }
    let confirmed = instance::load(write.tx()).await?;
    write.commit().await?;
    app.office.wakeups.notices();
    tracing::info!("{by} has confirmed what the restore at {} brought back", ids::time(restored_at));
    Ok(Json(to_api(confirmed, Vec::new())))
}

/// Returns the time of the restore that waits.
///
/// # Errors
/// Returns 409 if none does, or it is not the one that was looked at.
fn confirmable(found: &Instance, seen: Wall) -> Result<Wall, Problem> {
    let nothing = |detail: String| Err(Problem::conflict("nothing_to_confirm", detail));
    let Some(restored_at) = found.restored_at else {
        return nothing("this gateway was not restored from a backup".to_owned());
    };
    if restored_at != seen {
        let detail = format!(
            "the last restore was at {}, not at {}: look at what it brought back (GET /restore-review), then \
             confirm that time",
            ids::time(restored_at),
            ids::time(seen)
        );
        return Err(Problem::conflict("other_restore", detail));
    }
    match &found.confirmation {
        None => Ok(restored_at),
        Some(done) => nothing(format!("{} has confirmed it at {}", done.by, ids::time(done.at))),
    }
}

fn list(kind: ReviewKind, found: ReviewedKind) -> ReviewList {
    let object = |of: Reviewed| ReviewObject {
        id: kind.ids().text(of.id),
        name: Some(of.name).filter(|name| !name.is_empty()),
        details: of.details,
        changed_at: ids::time(of.changed_at),
    };
    ReviewList {
        kind: kind.name().to_owned(),
        total: found.total,
        objects: found.objects.into_iter().map(object).collect(),
    }
}

fn to_api(found: Instance, kinds: Vec<ReviewList>) -> RestoreReview {
    RestoreReview {
        awaits_confirmation: found.unconfirmed().is_some(),
        restored_at: ids::time_if_known(found.restored_at),
        backup_made_at: ids::time_if_known(found.backup_made_at),
        confirmed_at: ids::time_if_known(found.confirmation.as_ref().map(|done| done.at)),
        confirmed_by: found.confirmation.map(|done| done.by),
        kinds,
    }
}

impl AppState {
    /// Returns the time of a restore that no admin has confirmed.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub(super) async fn unconfirmed_restore(&self) -> Result<Option<Wall>, Problem> {
        Ok(instance::unconfirmed(&mut *self.store.reader().await?).await?)
    }

    /// # Errors
    /// Returns 503 while a restore waits for an admin.
    pub(super) async fn restore_must_be_confirmed(&self) -> Result<(), Problem> {
        self.unconfirmed_restore().await?.map_or(Ok(()), |restored_at| Err(unconfirmed(restored_at)))
    }
}

/// Returns the refusal of what waits for the confirmation.
pub(super) fn unconfirmed(restored_at: Wall) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "restore_unconfirmed", restore_problem(restored_at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::instance::Confirmation;

    #[test]
    fn only_the_restore_that_was_looked_at_is_confirmed_and_only_once() {
        let at = |seconds: i64| Wall::from_millis(seconds * 1_000);
        let never =
            Instance { epoch: "e".into(), restored_at: None, backup_made_at: None, confirmation: None };
        let code = |of: &Instance, seen| confirmable(of, seen).map_err(|problem| problem.code());
        assert_eq!(code(&never, at(5)), Err("nothing_to_confirm"));
        let waits = Instance { restored_at: Some(at(5)), ..never };
        assert_eq!((code(&waits, at(4)), code(&waits, at(5))), (Err("other_restore"), Ok(at(5))));
        let confirmation = Some(Confirmation { at: at(6), by: "user:ada".into() });
        let confirmed = Instance { confirmation, ..waits };
        assert_eq!(
            (code(&confirmed, at(5)), code(&confirmed, at(4))),
            (Err("nothing_to_confirm"), Err("other_restore"))
        );
        assert!(
            confirmable(&confirmed, at(5)).unwrap_err().detail().starts_with("user:ada has confirmed it")
        );
    }
}
