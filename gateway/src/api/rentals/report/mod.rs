//! The report of a rental: its times and changes, how available its devices were while the customer had
//! them, and its traffic.
//!
//! While the rental is open the report is computed. After its turnaround a final one is made and stored,
//! which has all that it was computed from.

mod recorded;
mod types;

use anyhow::anyhow;
use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use fleetgate_engine::availability::{Period, Sums};
use fleetgate_engine::id::Id;
use fleetgate_engine::messages::{GATEWAY, RENTAL_SERVICE};
use fleetgate_engine::rental::life::EndReason;
use fleetgate_engine::rental::occupancy::{self, Window};
use fleetgate_engine::time::Wall;
use sha2::{Digest as _, Sha256};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::AppState;
use crate::api::reports::AT_ONCE;
use crate::api::reports::collect::Added;
use crate::api::request::extract::Path;
use crate::api::request::ids::{self, IdKind};
use crate::api::response::problem::Problem;
use crate::api::types::not_empty;
use crate::store::incidents::{self, PartRow};
use crate::store::intervals::Services;
use crate::store::rentals::changes::{self, Change, What};
use crate::store::rentals::reports::{self as stored, Device, Frozen};
use crate::store::rentals::{Rental, find};
use crate::store::{self, Store, forwarded};

use recorded::{Cut, Outage, Recorded, ReportFigures};
pub use types::*;

/// Changes that a report lists. A program may set the end of a rental as often as it likes.
const MAX_CHANGES: i64 = 1_000;
/// Outages that a report lists: more than a year with one in two hours.
const MAX_OUTAGES: usize = 5_000;
/// Incidents that a report lists, three a day for a year.
const MAX_INCIDENTS: usize = 1_000;
/// Intervals that a report lists, some 3 MB.
const MAX_INTERVALS: usize = 20_000;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(show))
}

/// The report of a rental: times, changes, availability, outages, incidents and traffic.
///
/// While the rental or its turnaround goes on, the numbers are those so far. Then the report is final. Its `ETag` is
/// the SHA-256 of the answer, in hex.
#[utoipa::path(get, path = "/rentals/{rental}/report", operation_id = "rental_report", tag = "rentals",
    security(("token" = ["rentals:operator"])), params(("rental" = String, Path, description = "id")),
    responses((status = 200, body = RentalReport)))]
async fn show(State(app): State<AppState>, Path(rental): Path<String>) -> Result<Response, Problem> {
    let id = IdKind::Rental.parse(&rental)?;
    let mut conn = app.store.reader().await?;
    let found = find(&mut conn, id).await?.ok_or_else(|| IdKind::Rental.unknown(&rental))?;
    let frozen = stored::find(&mut conn, id).await?;
    drop(conn);
    match frozen {
        Some(report) => as_it_was_made(report),
        None => {
            let _turn = AT_ONCE.acquire().await.map_err(Problem::internal)?;
            Ok(Json(made(&app.store, &found, crate::clock::wall()).await?).into_response())
        }
    }
}

/// # Errors
/// Fails when the stored report is not the one that was made.
fn as_it_was_made(report: Frozen) -> Result<Response, Problem> {
    let sha256 = Sha256::digest(&report.report).to_vec();
    if report.sha256 != sha256 {
        return Err(Problem::internal(anyhow!("the stored report of a rental is damaged")));
    }
    let tag: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    let headers =
        [(header::CONTENT_TYPE, "application/json".to_owned()), (header::ETAG, format!("\"{tag}\""))];
    Ok((headers, report.report).into_response())
}

/// Makes the final report of a rental that is over, and stores it.
///
/// # Errors
/// Fails when the database cannot be read or written.
pub async fn freeze(store: Store, rental: Id, now: Wall) -> anyhow::Result<()> {
    let found = find(&mut *store.reader().await?, rental).await?;
    let found = found.ok_or_else(|| anyhow!("there is no such rental"))?;
    let report = RentalReport { is_final: true, ..made(&store, &found, now).await? };
    let report = serde_json::to_string(&report)?;
    let frozen = Frozen { sha256: Sha256::digest(&report).to_vec(), report, at: now };
    let mut tx = store.begin().await?;
    stored::insert(&mut tx, rental, &frozen).await?;
    tx.commit().await?;
    Ok(())
}

/// Makes the report of a rental at a moment.
async fn made(store: &Store, rental: &Rental, now: Wall) -> store::Result<RentalReport> {
    let mut conn = store.reader().await?;
    let changes = changes::of(&mut conn, rental.id, MAX_CHANGES).await?;
    let devices = stored::devices(&mut conn, rental.id).await?;
    let traffic = forwarded::of_rental(&mut conn, rental.id).await?;
    drop(conn);
    let used = rental.life.used(now);
    let traffic = RentalTraffic {
        sent_packets: traffic.sent_packets,
        sent_bytes: traffic.sent_bytes,
        received_packets: traffic.received_packets,
        received_bytes: traffic.received_bytes,
    };
    let mut report = without_devices(rental, &changes, traffic, now);
    for (device, window) in used.map(|used| in_use(&devices, used)).unwrap_or_default() {
        if let Some(period) = Period::new(window.from(), window.until()) {
            add(store, &mut report, device, period).await?;
            add_incidents(store, &mut report, device, period).await?;
        }
    }
    Ok(report)
}

/// Returns the devices that the customer had, and when.
fn in_use(devices: &[Device], used: Window) -> Vec<(&Device, Window)> {
    let begins: Vec<(&Device, Wall)> = devices.iter().map(|device| (device, device.from)).collect();
    occupancy::in_use(&begins, used)
}

/// Reads what was recorded of a device in a time.
async fn recorded(store: &Store, device: Id, period: Period) -> store::Result<ReportFigures> {
    let mut recorded = Recorded::new(period);
    let span = (period.from(), period.until());
    store.intervals(&[GATEWAY], Services::None, span, |of| recorded.push(&of)).await?;
    store.intervals(&[device], Services::All, span, |of| recorded.push(&of)).await?;
    Ok(recorded.finish())
}

fn without_devices(rental: &Rental, changes: &[Change], traffic: RentalTraffic, now: Wall) -> RentalReport {
    let life = &rental.life;
    let lapsed = life.lapses_at().filter(|at| life.ending.is_none() && *at <= now);
    let failed = life.has_failed(now).then_some(EndReason::Failed);
    let by_time = lapsed.map(|_| EndReason::Lapsed).or(failed);
    let reason = life.ending.map(|ending| ending.reason).or(by_time);
    let window = (life.window.from(), life.window.until());
    let booked = changes.iter().find(|change| change.what == What::Booked);
    RentalReport {
        rental: IdKind::Rental.text(rental.id),
        booking: IdKind::Booking.text(rental.booking),
        customer: IdKind::Customer.text(rental.customer),
        is_final: false,
        made_at: ids::time(now),
        state: life.state(now).name().to_owned(),
        time_zone: rental.time_zone.clone(),
        booked: times(booked.map_or(window, |change| (change.from, change.until))),
        window: times(window),
        used: life.used(now).map(|used| times((used.from(), used.until()))),
        delayed_s: life.delay(now).as_secs_f64(),
        end_reason: reason.map(|reason| reason.name().to_owned()),
        changes: changes.iter().map(change).collect(),
        devices: Vec::new(),
        outages: Vec::new(),
        outages_left_out: 0,
        incidents: Vec::new(),
        incidents_left_out: 0,
        traffic,
        intervals: Vec::new(),
        intervals_left_out: 0,
    }
}

fn times((from, until): (Wall, Wall)) -> RentalTimes {
    RentalTimes { from: ids::time(from), until: ids::time(until) }
}

fn change(change: &Change) -> RentalReportChange {
    RentalReportChange {
        at: ids::time(change.at),
        author: change.author.clone(),
        change: change.what.name().to_owned(),
        changed: change.changed.clone(),
        device: IdKind::Host.text(change.device),
        device_name: change.device_name.clone(),
        window: times((change.from, change.until)),
    }
}

/// Adds a device to a report. Its time is read in parts: the device decides how many intervals there are.
async fn add(store: &Store, report: &mut RentalReport, device: &Device, period: Period) -> store::Result<()> {
    let (mut sums, mut services) = (Sums::default(), Added::new());
    for part in store.parts(device.id, period).await? {
        let found = recorded(store, device.id, part).await?;
        list(report, device, &found);
        sums += found.device;
        services.add(found.services, found.without);
    }
    let service =
        |(service, sums): (String, Sums)| RentalReportService { service, availability: (&sums).into() };
    report.devices.push(RentalReportDevice {
        device: IdKind::Host.text(device.id),
        device_name: device.name.clone(),
        from: ids::time(period.from()),
        until: ids::time(period.until()),
        availability: (&sums).into(),
        services: services.finish().into_iter().map(service).collect(),
    });
    Ok(())
}

/// Lists the incidents of a device. As everywhere, the service that shows the rentals says nothing of the device.
async fn add_incidents(
    store: &Store,
    report: &mut RentalReport,
    device: &Device,
    period: Period,
) -> store::Result<()> {
    let span = (period.from(), period.until());
    let most = i64::try_from(MAX_INCIDENTS).unwrap_or(i64::MAX);
    let mut conn = store.reader().await?;
    let (parts, all) = incidents::parts(&mut conn, (device.id, RENTAL_SERVICE), span, most).await?;
    drop(conn);
    let read = u64::try_from(parts.len()).unwrap_or(u64::MAX);
    let listed = parts.iter().map(|part| incident(device.id, part, period));
    report.incidents_left_out +=
        fill(&mut report.incidents, MAX_INCIDENTS, listed) + all.saturating_sub(read);
    Ok(())
}

/// Lists what was recorded. Entries beyond the limits are counted.
fn list(report: &mut RentalReport, device: &Device, found: &ReportFigures) {
    let outages = found.outages.iter().map(|of| outage(device.id, of));
    report.outages_left_out += fill(&mut report.outages, MAX_OUTAGES, outages);
    report.intervals_left_out +=
        fill(&mut report.intervals, MAX_INTERVALS, found.intervals.iter().map(interval));
}

/// Appends items up to a length, and returns how many are left out.
fn fill<T>(list: &mut Vec<T>, most: usize, mut items: impl Iterator<Item = T>) -> u64 {
    list.extend(items.by_ref().take(most.saturating_sub(list.len())));
    u64::try_from(items.count()).unwrap_or(u64::MAX)
}

fn outage(device: Id, of: &Outage) -> RentalOutage {
    RentalOutage {
        device: IdKind::Host.text(device),
        service: not_empty(&of.service),
        state: of.state.to_owned(),
        from: ids::time(of.time.from()),
        until: ids::time(of.time.until()),
    }
}

fn incident(device: Id, of: &PartRow, period: Period) -> RentalIncident {
    let from = of.from.max(period.from());
    let until = of.until.unwrap_or(period.until()).min(period.until()).max(from);
    RentalIncident {
        incident: of.id.to_string(),
        device: IdKind::Host.text(device),
        scope: of.extent.clone(),
        cause: of.cause.clone(),
        from: ids::time(from),
        until: ids::time(until),
    }
}

fn interval(of: &Cut) -> RentalInterval {
    RentalInterval {
        device: (of.host != GATEWAY).then(|| IdKind::Host.text(of.host)),
        service: not_empty(&of.service),
        series: of.series.name().to_owned(),
        value: not_empty(&of.value),
        from: ids::time(of.time.from()),
        until: ids::time(of.time.until()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_a_limit_is_counted() {
        let mut list = vec![1, 2];
        assert_eq!(fill(&mut list, 4, 3..=9), 5);
        assert_eq!(list, [1, 2, 3, 4]);
        assert_eq!(fill(&mut list, 4, 1..=1), 1);
        assert_eq!(fill(&mut list, 9, 5..=5), 0);
    }
}
