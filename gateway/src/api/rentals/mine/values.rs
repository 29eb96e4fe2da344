//! What was measured of the devices of a rental while the customer had them.
//!
//! Only steps that lie within that time as a whole are shown: others may have values of other customers in them. Where a
//! tier is coarse, that leaves out more at both ends.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use fleetgate_engine::history::query::{self, Columns, Plan};
use fleetgate_engine::history::{Second, SeriesKind};
use fleetgate_engine::rental::occupancy::Window;
use fleetgate_engine::time::Wall;
use serde::Deserialize;
use tokio::sync::Semaphore;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::types::{MySeries, MyValues};
use super::visible;
use crate::api::AppState;
use crate::api::metrics::{points_within, text};
use crate::api::metrics_query::{rounded, uom};
use crate::api::request::extract::{Path, Query};
use crate::api::request::ids::IdKind;
use crate::api::request::person::CustomerCaller;
use crate::api::response::problem::Problem;
use crate::api::types::not_empty;
use crate::store::rentals::mine::{self as stored, Measured};

/// Reads of customers at once. They leave those of operators alone.
static READS: Semaphore = Semaphore::const_new(1);
const PATIENCE: Duration = Duration::from_secs(5);
/// Series of one answer, as for a comparison of hosts.
const MAX_SERIES: usize = 200;
/// Series that are looked at for one answer. Those of other times have no values in it.
const MAX_LOOKED_AT: usize = 2_000;
/// Points of each series: small graphs, one below the other.
const MAX_POINTS: i64 = 300;
const DEFAULT_POINTS: i64 = 120;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(values))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ValuesParams {
    /// At most so many points of each series; 120 when absent.
    #[param(minimum = 2, maximum = 300)]
    points: Option<i64>,
}

/// What was measured of the devices of a rental within its time, also after its end, from the finest samples or roll-ups
/// that need no more points than were asked for.
///
/// Steps that reach beyond the begin or the end are left out.
#[utoipa::path(get, path = "/my/rentals/{rental}/values", operation_id = "show_my_rental_values", tag = "rentals",
    security(("person" = []), ("customer" = [])), params(("rental" = String, Path, description = "id"), ValuesParams),
    responses((status = 200, body = MyValues)))]
async fn values(
    State(app): State<AppState>,
    who: CustomerCaller,
    Path(rental): Path<String>,
    Query(wanted): Query<ValuesParams>,
) -> Result<Json<MyValues>, Problem> {
    let (id, visible) = (IdKind::Rental.parse(&rental)?, visible(who));
    let points = points_within(wanted.points.unwrap_or(DEFAULT_POINTS), MAX_POINTS)?;
    let found = stored::rental(&mut *app.store.reader().await?, visible, id).await?;
    let found = found.ok_or_else(|| IdKind::Rental.unknown(&rental))?;
    let busy = |_| Problem::too_many("too many values are being read: try again", 3);
    let _turn =
        tokio::time::timeout(PATIENCE, READS.acquire()).await.map_err(busy)?.map_err(Problem::internal)?;
    let devices = stored::measured(&app.store, visible, &found, MAX_LOOKED_AT).await?;
    let points = u32::try_from(points).unwrap_or(u32::MAX);
    let Some(plan) = plan(&app, &devices, points, visible.now) else { return Ok(Json(MyValues::default())) };
    let (mut all, mut truncated) = (BTreeMap::new(), false);
    for device in &devices {
        truncated |= add(&app, &mut all, device, &plan).await?;
    }
    Ok(Json(MyValues {
        start: Some(text(plan.start)),
        step_s: plan.step,
        tier: Some(plan.tier.name().to_owned()),
        series: all.into_iter().map(series).collect(),
        truncated,
    }))
}

/// The seconds that lie within a window as a whole: samples have whole seconds.
fn seconds(time: Window) -> (Second, Second) {
    let first_from = |at: Wall| at.as_millis().saturating_add(999).div_euclid(1_000);
    (first_from(time.from()), time.until().as_millis().div_euclid(1_000))
}

/// Plans the whole time of a rental. `None`: no step lies within it.
fn plan(app: &AppState, devices: &[Measured], points: u32, now: Wall) -> Option<Plan> {
    let from = devices.iter().map(|device| seconds(device.time).0).min()?;
    let until = devices.iter().map(|device| seconds(device.time).1).max()?;
    let now = now.as_millis().div_euclid(1_000);
    query::plan(from, until.max(from + 1), points, now, &app.history.kept(now)).within(from, until)
}

/// The service, the label and the unit.
type Name = (String, String, String);

/// Adds what was measured of a device. After a swap both devices have one series. Returns whether there is more than fits.
async fn add(
    app: &AppState,
    all: &mut BTreeMap<Name, Columns>,
    device: &Measured,
    plan: &Plan,
) -> Result<bool, Problem> {
    let (from, until) = seconds(device.time);
    let Some(own) = plan.within(from, until) else { return Ok(false) };
    let mut more = false;
    let offset = usize::try_from((own.start - plan.start) / plan.step).unwrap_or(usize::MAX);
    for part in device.series.chunks(MAX_SERIES) {
        let found = app.history.query(part, &own).await?;
        for (series, mut columns) in part.iter().zip(found) {
            if SeriesKind::of(&series.uom) == SeriesKind::Counter {
                columns.remove_first();
            }
            if columns.count.iter().all(|count| *count == 0) {
                continue;
            }
            let name = (series.service.clone(), series.measured_label().to_owned(), uom(series));
            if all.len() < MAX_SERIES || all.contains_key(&name) {
                all.entry(name).or_insert_with(|| Columns::of(plan)).put(&columns, offset);
            } else {
                more = true;
            }
        }
    }
    Ok(more)
}

fn series(((service, name, unit), columns): (Name, Columns)) -> MySeries {
    MySeries {
        service: not_empty(&service),
        name,
        unit,
        min: rounded(columns.min),
        avg: rounded(columns.avg),
        max: rounded(columns.max),
        count: columns.count,
    }
}
