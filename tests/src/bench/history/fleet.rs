//! A fleet whose metrics go the way of the program's own: from the commit of a result to sealed blocks.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use fleetgate::history::Recorder;
use fleetgate::store::Store;
use fleetgate::store::history::{Series, SeriesCache, redo, series};
use fleetgate_engine::history::Second;
use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::Sample;
use fleetgate_engine::time::Wall;
use fleetgate_probes::sample::Metric;

use super::series::Generator;

/// Series of a host: five services with two metrics each.
pub const OF_HOST: u32 = 10;
const OF_SERVICE: u32 = 2;

/// The series of whole hosts.
pub struct Fleet {
    /// The number of the first host among all fleets of a store.
    first_host: i64,
    generators: Vec<Generator>,
}

impl Fleet {
    /// Makes at least this many series.
    pub fn new(first_host: i64, series: u32) -> Fleet {
        let generators = (0..series.next_multiple_of(OF_HOST)).map(Generator::new).collect();
        Fleet { first_host, generators }
    }

    pub fn hosts(&self) -> u32 {
        self.generators.len() as u32 / OF_HOST
    }

    pub fn series(&self) -> u64 {
        self.generators.len() as u64
    }

    /// Returns the results of these hosts at this time, and the number of their values.
    pub fn results(&mut self, hosts: Range<u32>, at: Second) -> (Vec<Sample>, u64) {
        let (mut results, mut values) = (Vec::new(), 0);
        for n in (hosts.start * OF_HOST..hosts.end * OF_HOST).step_by(OF_SERVICE as usize) {
            let metrics: Arc<[Metric]> = (n..n + OF_SERVICE).filter_map(|n| self.metric(n, at)).collect();
            values += metrics.len() as u64;
            if !metrics.is_empty() {
                let host = HostId::from_i64(self.first_host + i64::from(n / OF_HOST));
                let service = format!("svc-{}", n % OF_HOST / OF_SERVICE);
                results.push(Sample { host, service, at: Wall::from_millis(at * 1_000), metrics });
            }
        }
        (results, values)
    }

    fn metric(&mut self, n: u32, at: Second) -> Option<Metric> {
        let generator = self.generators.get_mut(n as usize)?;
        let point = generator.sample(at)?;
        Some(Metric::plain(&label(n), point.value?, generator.profile.uom()))
    }

    /// Makes the series of the fleet in the store.
    ///
    /// # Errors
    /// Fails when the database refuses the write.
    pub async fn enrol(&mut self, recorder: &Recorder, store: &Store, at: Second) -> anyhow::Result<()> {
        let (results, _) = self.results(0..self.hosts(), at);
        commit(recorder, store, &results).await
    }

    /// Makes the series of the fleet in a store that no program uses, without a sample. Returns their ids, in the order of
    /// the fleet.
    ///
    /// # Errors
    /// Fails when the database refuses the write.
    pub async fn register(&mut self, store: &Store, at: Second) -> anyhow::Result<Vec<u32>> {
        let (results, _) = self.results(0..self.hosts(), at);
        let mut tx = store.begin().await?;
        let ever = Wall::from_millis(0);
        let numbered = series::number(&mut tx, &mut SeriesCache::default(), &results, ever).await?;
        tx.commit().await?;
        let ids: Vec<u32> = numbered.samples.into_iter().map(|(id, _)| id).collect();
        ensure!(ids.len() as u64 == self.series(), "only {} series were made", ids.len());
        Ok(ids)
    }

    /// Returns the stored series by their number in the fleet.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn stored(&self, store: &Store) -> anyhow::Result<BTreeMap<u32, Series>> {
        let mut found = BTreeMap::new();
        for n in 0..self.hosts() {
            let host = HostId::from_i64(self.first_host + i64::from(n));
            for series in store.series(host, None).await? {
                found.insert(series.label.trim_start_matches('m').parse().context("a label")?, series);
            }
        }
        Ok(found)
    }
}

fn label(n: u32) -> String {
    format!("m{n}")
}

/// Commits samples as the writer does, without states.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn commit(recorder: &Recorder, store: &Store, samples: &[Sample]) -> anyhow::Result<()> {
    let mut turn = recorder.turn().await;
    let mut tx = store.begin().await?;
    let (cache, cut) = turn.series();
    let numbered = series::number(&mut tx, cache, samples, cut).await?;
    let rows = turn.rows(numbered);
    redo::append(&mut tx, turn.generation(), &rows).await?;
    tx.commit().await?;
    turn.committed()?;
    Ok(())
}
