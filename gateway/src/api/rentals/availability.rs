//! When devices can be booked, by the functions that decide about a booking.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use fleetgate_engine::id::HostId;
use fleetgate_engine::rental::occupancy::{self, Occupancy, Window};
use fleetgate_engine::time::Wall;
use serde::Deserialize;
use tokio::sync::Semaphore;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::allocate::AT_ONCE;
use super::parse::LONGEST;
use super::query_time;
use super::types::{DeviceAvailability, FreeWindow, RentalAvailability};
use crate::api::AppState;
use crate::api::request::extract::Query;
use crate::api::request::ids::{self, IdKind};
use crate::api::request::query::WithLabels;
use crate::api::response::page::Paging;
use crate::api::response::problem::Problem;
use crate::api::types::{Labels, Page};
use crate::store::rentals::devices::{Candidate, candidates};
use crate::store::rentals::occupancies;

/// Searches at once. Each reads what occupies all devices of the selection, and holds one of the four connections for
/// reading meanwhile.
static SEARCHES: Semaphore = Semaphore::const_new(2);

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(availability))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Within {
    /// RFC 3339 with an offset; now when absent.
    from: Option<String>,
    /// RFC 3339 with an offset, not included.
    #[param(example = "2034-03-12T10:00:00+01:00")]
    to: String,
    /// Only devices with this profile.
    profile: Option<String>,
}

/// When devices can be booked between `from` and `to`: the free windows of each device of a selection, by name, and
/// how many devices are free all the time.
#[utoipa::path(get, path = "/rentals/availability", operation_id = "show_availability", tag = "rentals",
    security(("token" = ["rentals:operator"])), params(Paging, Within, WithLabels),
    responses((status = 200, body = RentalAvailability)))]
async fn availability(
    State(app): State<AppState>,
    Query(paging): Query<Paging>,
    Query(within): Query<Within>,
    WithLabels { label }: WithLabels,
) -> Result<Json<RentalAvailability>, Problem> {
    let (limit, after) = (paging.limit()?, paging.after()?.unwrap_or_default());
    let now = crate::clock::wall();
    let from = query_time("from", within.from.as_deref())?.unwrap_or(now).max(now);
    let to = query_time("to", Some(&within.to))?.unwrap_or(now);
    let asked = Window::new(from, to).filter(|asked| asked.length() <= LONGEST);
    let asked = asked.ok_or_else(|| {
        let detail = "to: a time to come is expected, after from and at most ten years after it";
        Problem::bad_request("bad_query", detail)
    })?;
    let given = label.len();
    let labels: Labels = label.into_iter().collect();
    let profile = within.profile.as_deref();
    let _turn = SEARCHES.acquire().await.map_err(Problem::internal)?;
    let mut conn = app.store.reader().await?;
    // No device has two values of one key.
    let devices =
        if labels.len() < given { Vec::new() } else { candidates(&mut conn, &labels, profile).await? };
    let (mut free_devices, mut rows) = (0, Vec::new());
    for part in devices.chunks(AT_ONCE) {
        let ids: Vec<HostId> = part.iter().map(|device| device.id).collect();
        let taken = occupancies::of_devices(&mut conn, &ids, now).await?;
        for device in part {
            let free = free_of(device, &taken, asked, now);
            free_devices += u64::from(free == [asked]);
            if device.name > after && rows.len() as i64 <= limit {
                rows.push(to_api(device, &free));
            }
        }
    }
    let page = Page::of(rows, limit, |row: &DeviceAvailability| row.device_name.clone(), |row| row);
    Ok(Json(RentalAvailability {
        from: ids::time(asked.from()),
        to: ids::time(asked.until()),
        devices: devices.len() as u64,
        free: free_devices,
        items: page.items,
        next: page.next,
    }))
}

fn free_of(
    device: &Candidate,
    taken: &BTreeMap<HostId, Vec<occupancies::Taken>>,
    asked: Window,
    now: Wall,
) -> Vec<Window> {
    let taken = taken.get(&device.id).into_iter().flatten();
    let taken: Vec<Occupancy> = taken.map(|taken| taken.occupancy).collect();
    occupancy::free(&taken, device.margins, asked, now)
}

fn to_api(device: &Candidate, free: &[Window]) -> DeviceAvailability {
    let window = |free: &Window| FreeWindow { from: ids::time(free.from()), until: ids::time(free.until()) };
    DeviceAvailability {
        device: IdKind::Host.text(device.id),
        device_name: device.name.clone(),
        free: free.iter().map(window).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::api::testing::TestApi;

    #[tokio::test]
    async fn a_third_search_waits_and_other_reads_do_not() {
        let api = TestApi::with_endpoint().await;
        let held = SEARCHES.acquire_many(2).await.unwrap();
        let to = ids::time(crate::clock::wall() + Duration::from_secs(3_600));
        let (caller, path) = (api.operator(), format!("/api/v1/rentals/availability?to={to}"));
        let mut search = std::pin::pin!(caller.get(&path));
        // A search that did not wait would end before as many other calls.
        let others = async {
            for _ in 0..20 {
                assert_eq!(api.operator().get("/api/v1/rentals").await.status, 200);
            }
        };
        tokio::select! {
            answer = &mut search => panic!("it did not wait: {}", answer.text),
            () = others => {}
        }
        drop(held);
        assert_eq!(search.await.status, 200);
    }
}
