//! The past of the demo in its databases: samples, hard states and their events of thirty days, the newest day first.
//!
//! Each day is lived in virtual time (`demo/past`) and stored in small steps, so that the demo answers meanwhile. A
//! demo begins in an empty directory, so that there is nothing to continue.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use fleetgate_engine::history::Point;
use fleetgate_engine::messages::{HostSpec, Sample};
use fleetgate_engine::time::Wall;
use tokio_util::task::AbortOnDropHandle;

use crate::clock;
use crate::demo::past::world::World;
use crate::demo::past::{self, Lived, Stretch};
use crate::health::{Health, Space};
use crate::server::Server;
use crate::store::history::Sealable;
use crate::store::history::series::{self, SeriesCache};
use crate::store::intervals::{self, Interval, Series};
use crate::store::reports::Selection;
use crate::store::{Store, events, snapshot};

/// Events for which numbers are reserved: many times those of the story. The oldest beyond them are left out.
pub(super) const EVENTS: i64 = 100_000;
/// More hosts than the fleet has.
const MOST_HOSTS: i64 = 1_000;
/// Samples whose series are looked up in one transaction, in some milliseconds.
const SAMPLES_AT_ONCE: usize = 2_000;
/// Series whose samples of a day are stored in one transaction, in some tens of milliseconds.
const SERIES_AT_ONCE: usize = 64;
/// The longest pause after a day. A day takes less, unless the machine is busy.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Interval between two looks at a disk without room.
const LOOK: Duration = Duration::from_secs(10);

/// What is stored of the past of some hosts.
struct Past {
    store: Store,
    health: Health,
    hosts: Arc<Vec<HostSpec>>,
    world: Arc<World>,
    series: SeriesCache,
    /// The reserved numbers of events that are left. The newest event has the last one.
    numbers: Range<i64>,
}

/// Begins to store these days of the past of all hosts. `numbers` are for its events.
///
/// # Errors
/// Fails when the hosts cannot be read.
pub(super) async fn begin(
    server: &Server,
    world: &Arc<World>,
    numbers: Range<i64>,
    days: u32,
) -> anyhow::Result<AbortOnDropHandle<()>> {
    let state = &server.state;
    let selected = state.store.selected_hosts(Selection::default(), MOST_HOSTS).await?;
    let ids: Vec<_> = selected.into_iter().map(|host| host.id).collect();
    let mut conn = state.store.reader().await?;
    let hosts = snapshot::host_specs(&mut conn, &ids, &state.config.timing).await?;
    drop(conn);
    let past = Past {
        store: state.store.clone(),
        health: state.live.health().clone(),
        hosts: Arc::new(hosts),
        world: Arc::clone(world),
        series: SeriesCache::default(),
        numbers,
    };
    Ok(AbortOnDropHandle::new(tokio::spawn(past.run(days))))
}

impl Past {
    async fn run(mut self, days: u32) {
        if let Err(error) = self.live_days(days).await {
            tracing::warn!("the past of the demo ends here, and its graphs begin later: {error:#}");
        }
    }

    async fn live_days(&mut self, days: u32) -> anyhow::Result<()> {
        for n in 0..days {
            while self.health.space() != Space::Enough {
                tokio::time::sleep(LOOK).await;
            }
            let begun = clock::now().mono;
            let (world, hosts) = (Arc::clone(&self.world), Arc::clone(&self.hosts));
            let lived = move || past::live(&world, &hosts, past::day(&world, n));
            let lived = tokio::task::spawn_blocking(lived).await?;
            self.put(lived).await?;
            tokio::time::sleep(clock::now().mono.since(begun).min(LONGEST_PAUSE)).await;
        }
        Ok(())
    }

    async fn put(&mut self, lived: Lived) -> anyhow::Result<()> {
        self.put_samples(&lived.samples).await?;
        let mut tx = self.store.begin().await?;
        // Each is put before all that is stored.
        for stretch in lived.states.iter().rev() {
            intervals::add_past(&mut tx, &interval(stretch)).await?;
        }
        for event in lived.events.iter().rev() {
            let Some(seq) = self.numbers.next_back() else { break };
            events::add_past(&mut tx, event, seq).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    async fn put_samples(&mut self, samples: &[Sample]) -> anyhow::Result<()> {
        let mut points: BTreeMap<u32, Vec<Point>> = BTreeMap::new();
        for part in samples.chunks(SAMPLES_AT_ONCE) {
            let mut tx = self.store.begin().await?;
            // Of any age: what is too old for a tier is removed from it like all else.
            let since = Wall::from_millis(0);
            let numbered = series::number(&mut tx, &mut self.series, part, since).await?;
            tx.commit().await?;
            for (series, point) in numbered.samples {
                points.entry(series).or_default().push(point);
            }
        }
        let of = |(series, points)| Sealable { series, kind: self.series.kind(series), points };
        let sealable: Vec<Sealable> = points.into_iter().map(of).collect();
        for part in sealable.chunks(SERIES_AT_ONCE) {
            self.store.put_days_of(part).await?;
        }
        Ok(())
    }
}

fn interval(stretch: &Stretch) -> Interval<'_> {
    Interval {
        host: stretch.host,
        service: &stretch.service,
        series: Series::State,
        value: stretch.value,
        from: stretch.from,
        until: Some(stretch.until),
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::history::query::Tier;
    use fleetgate_engine::history::{BUCKET, DAY, HOUR, Second};
    use fleetgate_engine::id::HostId;
    use fleetgate_engine::messages::Check;
    use fleetgate_probes::sensors::Sensor;

    use super::*;
    use crate::store::events::{EventFilter, Span};
    use crate::store::fixture;
    use crate::store::intervals::Services;

    /// 2026-11-20 10:00 UTC.
    const BEGAN: Second = 1_795_168_800;
    const DAYS: u32 = 2;

    struct Scene {
        store: Store,
        camera: HostId,
        _dir: tempfile::TempDir,
    }

    /// Two days of cam-04, whose site is down for three hours of the last one, and of its site's gateway.
    async fn lived() -> Scene {
        let (store, dir) = fixture::store().await;
        let mut hosts = Vec::new();
        for (n, name) in [(4, "cam-04"), (5, "gw-harbour")] {
            let id = fixture::device(&store, n, name).await;
            hosts.push(store.host_spec(id, &fixture::TIMING).await.unwrap().expect("it is there"));
        }
        with_disk(&mut hosts[0]);
        let numbers = store.reserve_events(EVENTS).await.unwrap();
        let camera = hosts[0].id;
        let mut past = Past {
            store: store.clone(),
            health: Health::default(),
            hosts: Arc::new(hosts),
            world: Arc::new(World::new(Wall::from_millis(BEGAN * 1_000))),
            series: SeriesCache::default(),
            numbers,
        };
        past.live_days(DAYS).await.unwrap();
        Scene { store, camera, _dir: dir }
    }

    fn with_disk(host: &mut HostSpec) {
        host.ssh.user = Some("watch".to_owned());
        host.services
            .retain(|service| matches!(service.check, Check::Tunnel | Check::Ping { .. } | Check::Ssh));
        let disk = Check::Sensor(Sensor::Disk { path: "/".into() });
        let like = host.services[0].clone();
        host.services.push(fleetgate_engine::messages::ServiceSpec {
            name: "disk".to_owned(),
            check: disk,
            thresholds: Vec::new(),
            ..like
        });
    }

    #[tokio::test]
    async fn the_past_is_read_back_from_every_tier_with_its_gap() {
        let Scene { store, camera, _dir } = lived().await;
        let series = store.series(camera, Some("disk")).await.unwrap();
        let used = series.iter().find(|series| series.label == "used").expect("the disk was measured");
        let begin = BEGAN - Second::from(DAYS) * DAY;
        let raw = store.raw(used.id, begin, BEGAN).await.unwrap().points;
        let rounds = usize::try_from((BEGAN - begin) / 300).unwrap();
        assert!((rounds - 60..rounds).contains(&raw.len()), "{} of {rounds}", raw.len());
        let longest = raw.windows(2).map(|two| two[1].at - two[0].at).max().unwrap();
        assert!((3 * HOUR..3 * HOUR + 1_500).contains(&longest), "{longest}");
        assert!(raw.iter().filter_map(|point| point.value).all(|used| (80.0..95.0).contains(&used)));
        for (tier, least) in [(Tier::FiveMinutes, 480), (Tier::Hours, 44), (Tier::Days, 2)] {
            let buckets = store.buckets(used.id, tier, begin - DAY, BEGAN).await.unwrap();
            assert!(buckets.len() >= least, "{tier:?}: {}", buckets.len());
            let count: usize = buckets.iter().map(|bucket| bucket.count as usize).sum();
            assert_eq!(count, raw.len(), "{tier:?}");
        }
        let gap = (BEGAN - 9 * HOUR + BUCKET, BEGAN - 6 * HOUR);
        assert!(store.buckets(used.id, Tier::FiveMinutes, gap.0, gap.1).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn outages_are_intervals_and_events_of_their_time_and_notify_nobody() {
        let Scene { store, camera, _dir } = lived().await;
        let (from, until) = (Wall::from_millis(0), Wall::from_millis(BEGAN * 1_000));
        let mut found = Vec::new();
        let each = |i: Interval<'_>| found.push((i.value.to_owned(), i.from, i.until.expect("it ended")));
        store.intervals(&[camera], Services::None, (from, until), each).await.unwrap();
        let values: Vec<&str> = found.iter().map(|(value, ..)| value.as_str()).collect();
        assert_eq!(values, ["up", "down", "up"], "days join: {found:?}");
        let down = found[1].2.since(found[1].1);
        assert!((Duration::from_secs(2 * 3_600)..Duration::from_secs(11_700)).contains(&down), "{down:?}");
        assert_eq!(found[2].2, until);

        let state =
            EventFilter { object: Some(camera), kind: Some("state.changed"), ..EventFilter::default() };
        let log = store.events(Span::Since(0), &state, 1_000).await.unwrap();
        assert!(log.windows(2).all(|two| two[0].at <= two[1].at), "the log is in the order of time");
        let of_host = log.iter().filter(|event| event.object == "host").count();
        assert_eq!(of_host, 2, "down and up");
        let messages = fixture::texts(&store, "select cast(count(*) as text) from outbox").await;
        assert_eq!(messages, ["0"]);
    }
}
