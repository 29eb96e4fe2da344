//! Forecasts: once an hour, when each disk and memory is full by its past.
//!
//! The work is spread over the hour, in parts of some series: one read of each series, one transaction and one message
//! to the monitor, which adds the forecast to the results. It begins with those that the database kept. While the history
//! cannot be read, the forecasts stay as they are, and the monitor drops them after a day.

use std::time::Duration;

use fleetgate_engine::forecast::{self, Forecast, Hour};
use fleetgate_engine::history::query::{Columns, Plan, Tier};
use fleetgate_engine::history::{HOUR, Second};
use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::FullAt;
use fleetgate_engine::time::Wall;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Recorder, second};
use crate::clock;
use crate::engine::handle::Handle;
use crate::store::forecasts::{self, Stored};
use crate::store::history::Series;
use crate::store::{Result, Store};

const EVERY: Duration = Duration::from_secs(3_600);
/// After a start the first results come in this time.
const FIRST: Duration = Duration::from_secs(300);
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(300);
/// The longest pause between two parts, so that a small fleet has its forecasts soon after a start.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Series of one part. One takes less than a millisecond, most of it to read its blocks.
const PART: u32 = 32;
/// Where a share of a whole is full.
const FULL_PERCENT: f64 = 100.0;

pub fn start(
    tasks: &mut JoinSet<()>,
    (store, recorder, handle): (Store, Recorder, Handle),
    stop: CancellationToken,
) {
    let forecasts = Forecasts { store, recorder, handle };
    tasks.spawn(async move {
        tokio::select! {
            () = forecasts.run() => {}
            // A transaction that is dropped is rolled back.
            () = stop.cancelled() => {}
        }
    });
}

struct Forecasts {
    store: Store,
    recorder: Recorder,
    handle: Handle,
}

impl Forecasts {
    async fn run(&self) {
        tokio::time::sleep(FIRST).await;
        loop {
            if let Err(error) = self.round().await {
                tracing::warn!("forecasts stay as they are for now: {error}");
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Makes all forecasts once. Takes an hour.
    async fn round(&self) -> Result<()> {
        let begun = clock::now().mono;
        let count = forecasts::count(&mut *self.store.reader().await?).await?;
        let pause = (EVERY / count.div_ceil(PART).max(1)).min(LONGEST_PAUSE);
        let mut last = 0;
        loop {
            let series = forecasts::next(&mut *self.store.reader().await?, last, PART).await?;
            let newest = series.last().map(|series| series.id);
            // Without room, only what cannot be made again is written.
            if newest.is_some() && self.store.has_space() {
                self.try_part(&series).await;
            }
            tokio::time::sleep(pause).await;
            match newest {
                Some(id) if series.len() >= PART as usize => last = id,
                _ => break,
            }
        }
        // A clock that was set far ahead does not remove those of a month.
        let believed = Wall::from_millis(self.recorder.believed().saturating_mul(1_000));
        let mut tx = self.store.begin().await?;
        forecasts::prune(&mut tx, believed).await?;
        tx.commit().await?;
        tokio::time::sleep(EVERY.saturating_sub(clock::now().mono.since(begun))).await;
        Ok(())
    }

    /// A part that fails is left out, so that those after it have their turn.
    async fn try_part(&self, series: &[Series]) {
        if let Err(error) = self.part(series, clock::wall()).await {
            tracing::warn!("some forecasts stay as they are for now: {error}");
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn part(&self, series: &[Series], now: Wall) -> Result<()> {
        let plan = plan(now);
        let past = self.recorder.query(series, &plan).await?;
        let made: Vec<Made> =
            series.iter().zip(&past).map(|(series, past)| Made::of(series, past, &plan, now)).collect();
        let told = made.iter().map(Made::told).collect();
        let (stored, none) = parted(made);
        let mut tx = self.store.begin().await?;
        forecasts::write(&mut tx, &stored).await?;
        forecasts::remove(&mut tx, &none).await?;
        tx.commit().await?;
        self.handle.forecasts(told).await;
        Ok(())
    }
}

/// The hours of the past up to now.
fn plan(now: Wall) -> Plan {
    let end = (second(now).div_euclid(HOUR) + 1) * HOUR;
    Plan { tier: Tier::Hours, step: HOUR, start: end - forecast::PAST, end }
}

fn hours(past: &Columns, plan: &Plan) -> Vec<Hour> {
    let slots = past.min.iter().zip(&past.max).zip(0..);
    let hour = |((min, max), slot): ((&Option<f64>, &Option<f64>), Second)| {
        Some(Hour { at: plan.start + slot * plan.step, min: (*min)?, max: (*max)? })
    };
    slots.filter_map(hour).collect()
}

/// The forecast of a service, if its past supports one.
struct Made {
    series: Series,
    at: Wall,
    forecast: Option<Forecast>,
}

impl Made {
    fn of(series: &Series, past: &Columns, plan: &Plan, at: Wall) -> Made {
        let forecast = forecast::forecast(&hours(past, plan), second(at), FULL_PERCENT);
        Made { series: series.clone(), at, forecast }
    }

    fn full_at(&self) -> Option<Wall> {
        self.forecast.as_ref()?.full_within.map(|within| self.at + within)
    }

    fn told(&self) -> FullAt {
        let (host, service) = (self.series.host, self.series.service.clone());
        FullAt { host, service, at: self.full_at(), made_at: self.at }
    }
}

/// Returns the forecasts, and the services that have none.
fn parted(made: Vec<Made>) -> (Vec<Stored>, Vec<(HostId, String)>) {
    let (mut stored, mut none) = (Vec::new(), Vec::new());
    for made in made {
        let (at, full_at) = (made.at, made.full_at());
        let Series { host, service, .. } = made.series;
        match made.forecast {
            Some(Forecast { full_since, text, basis, .. }) => {
                let full_since = full_since.map(|at| Wall::from_millis(at.saturating_mul(1_000)));
                stored.push(Stored { host, service, at, full_at, full_since, text, basis });
            }
            None => none.push((host, service)),
        }
    }
    (stored, none)
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::history::{DAY, Point, SeriesKind};
    use fleetgate_engine::id::Id;
    use fleetgate_engine::messages::{DEFAULT_MTU, MonitorInput};
    use tokio::sync::mpsc;

    use super::super::Keep;
    use super::*;
    use crate::engine::live_state::LiveState;
    use crate::store::fixture;
    use crate::store::history::Sealable;

    fn series(id: u32) -> Series {
        Series { id, host: Id::from_i64(1), service: "disk".into(), label: "used".into(), uom: "%".into() }
    }

    #[test]
    fn a_gap_of_the_past_is_no_hour() {
        let plan = Plan { tier: Tier::Hours, step: HOUR, start: 7 * HOUR, end: 10 * HOUR };
        let past = Columns {
            min: vec![Some(1.0), None, Some(3.0)],
            avg: vec![Some(1.5), None, Some(3.5)],
            max: vec![Some(2.0), None, Some(4.0)],
            count: vec![1, 0, 1],
        };
        let expected = [Hour { at: 7 * HOUR, min: 1.0, max: 2.0 }, Hour { at: 9 * HOUR, min: 3.0, max: 4.0 }];
        assert_eq!(hours(&past, &plan), expected);
    }

    #[test]
    fn a_disk_that_fills_has_a_forecast_and_one_without_a_past_has_none() {
        let now = Wall::from_millis(20_000 * DAY * 1_000 + 1_800_000);
        let plan = plan(now);
        assert_eq!((plan.end, plan.end - plan.start), (20_000 * DAY + HOUR, forecast::PAST));
        let length = (plan.end - plan.start) / HOUR;
        // 1 % a day, from 30 to 72.
        let value = |slot: Second| Some(30.0 + slot as f64 / 24.0);
        let past = Columns {
            min: (0..length).map(value).collect(),
            avg: (0..length).map(value).collect(),
            max: (0..length).map(value).collect(),
            count: vec![1; usize::try_from(length).unwrap()],
        };
        let fills = Made::of(&series(1), &past, &plan, now);
        let days = fills.full_at().expect("a forecast").since(now).as_secs_f64() / DAY as f64;
        assert!((days - 28.0).abs() < 1.0, "{days}");
        assert_eq!(fills.told().at, fills.full_at());
        let new = Made::of(&series(2), &Columns::default(), &plan, now);
        assert_eq!(new.told().at, None);
        let (stored, none) = parted(vec![fills, new]);
        assert_eq!(stored.len(), 1);
        assert_eq!(stored[0].text, "full in about 28 days");
        assert_eq!(none, [(Id::from_i64(1), "disk".to_owned())]);
    }

    /// Forecasts of a gateway with the past of a disk, and what the monitor is told.
    async fn scene() -> (Forecasts, mpsc::Receiver<MonitorInput>, tempfile::TempDir) {
        let (store, dir) = fixture::store().await;
        let (to_tunnel, _) = mpsc::channel(1);
        let (to_monitor, inputs) = mpsc::channel(8);
        let usual = (fixture::TIMING, DEFAULT_MTU);
        let handle = Handle::new(store.clone(), LiveState::default(), usual, to_tunnel, to_monitor);
        let recorder = Recorder::open(store.clone(), Keep::ALL).await.unwrap();
        (Forecasts { store, recorder, handle }, inputs, dir)
    }

    #[tokio::test]
    async fn what_is_made_of_the_history_is_stored_and_told() {
        let (forecasts, mut inputs, _dir) = scene().await;
        let host = fixture::device(&forecasts.store, 1, "cam-01").await;
        let now = clock::wall();
        // 1 % a day, up to 50.
        let value = |at: Second| Some(50.0 + (at - second(now)) as f64 / DAY as f64);
        let past = (second(now) - 20 * DAY..second(now)).step_by(600);
        let points = past.map(|at| Point { at, value: value(at) }).collect();
        forecasts.store.put_days(&Sealable { series: 7, kind: SeriesKind::Gauge, points }).await.unwrap();
        let [fills, new] = [7, 8].map(|id| Series { host, ..series(id) });
        let new = Series { service: "memory".into(), ..new };
        forecasts.part(&[fills, new], now).await.unwrap();
        let Ok(MonitorInput::Forecasts(told)) = inputs.try_recv() else { panic!("the monitor is told") };
        assert_eq!(told.iter().map(|full| full.at.is_some()).collect::<Vec<_>>(), [true, false]);
        let mut conn = forecasts.store.reader().await.unwrap();
        let stored = super::forecasts::of_host(&mut conn, host).await.unwrap();
        assert_eq!(stored.iter().map(|f| f.text.as_str()).collect::<Vec<_>>(), ["full in about 50 days"]);
        assert_eq!(super::forecasts::all(&mut conn).await.unwrap(), told[..1], "what a start begins with");
    }
}
