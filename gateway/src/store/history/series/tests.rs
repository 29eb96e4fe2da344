use fleetgate_probes::sample::Metric;

use super::*;
use crate::store::fixture;

pub(super) const HOST: HostId = Id::from_i64(7);
pub(super) const START: Second = 20_000 * DAY;

pub(super) fn sample(at: Second, metrics: Vec<Metric>) -> Sample {
    Sample {
        host: HOST,
        service: "ping".into(),
        at: Wall::from_millis(at * 1_000 + 999),
        metrics: metrics.into(),
    }
}

pub(super) fn plain(label: &str, uom: &str) -> Metric {
    Metric::plain(label, 1.5, uom)
}

fn labels(from: usize, count: usize) -> Vec<Metric> {
    (from..from + count).map(|n| plain(&format!("label{n}"), "")).collect()
}

fn since(at: Second) -> Wall {
    Wall::from_millis(at * 1_000)
}

pub(super) async fn put(
    store: &Store,
    cache: &mut SeriesCache,
    samples: &[Sample],
    active: Second,
) -> Numbered {
    let mut tx = store.begin().await.unwrap();
    let numbered = number(&mut tx, cache, samples, since(active)).await.unwrap();
    tx.commit().await.unwrap();
    numbered
}

#[tokio::test]
async fn values_get_the_number_of_their_series_and_whole_seconds() {
    let (store, _dir) = fixture::store().await;
    let mut cache = SeriesCache::default();
    let gap = Metric::gap("rtt", "ms");
    let samples =
        [sample(START, vec![plain("rtt", "ms"), plain("loss", "%")]), sample(START + 60, vec![gap])];
    let numbered = put(&store, &mut cache, &samples, 0).await;
    let series = store.series(HOST, Some("ping")).await.unwrap();
    let named: Vec<(&str, u32)> = series.iter().map(|s| (s.label.as_str(), s.id)).collect();
    assert_eq!(named, [("loss", 2), ("rtt", 1)]);
    let point = |at, value| Point { at, value };
    let wanted = [(1, point(START, Some(1.5))), (2, point(START, Some(1.5))), (1, point(START + 60, None))];
    assert_eq!((numbered.samples, numbered.refused, numbered.too_old), (wanted.to_vec(), 0, 0));
    assert_eq!(put(&store, &mut SeriesCache::default(), &samples, 0).await.samples, wanted);
    assert!(store.series(HOST, Some("")).await.unwrap().is_empty());
    let (here, elsewhere) = (HOST, Id::from_i64(8));
    let of = store.series_of(&[here, elsewhere], "ping", "rtt").await.unwrap();
    assert_eq!(of.iter().map(|s| (s.host, s.id)).collect::<Vec<_>>(), [(HOST, 1)]);
}

#[tokio::test]
async fn a_gap_has_no_unit_of_its_own() {
    let (store, _dir) = fixture::store().await;
    let mut cache = SeriesCache::default();
    let at = |n: Second, metric| sample(START + n, vec![metric]);
    let unknown = put(&store, &mut cache, &[at(0, Metric::gap("rtt", ""))], 0).await;
    assert_eq!((unknown.samples.len(), unknown.refused), (0, 0), "its unit is not known");
    let samples = [at(1, plain("rtt", "ms")), at(2, Metric::gap("rtt", "")), at(3, plain("rtt", "ms"))];
    for cache in [&mut cache, &mut SeriesCache::default()] {
        let numbered = put(&store, cache, &samples, 0).await;
        assert_eq!(numbered.samples.iter().map(|(series, _)| *series).collect::<Vec<_>>(), [1, 1, 1]);
    }
    put(&store, &mut SeriesCache::default(), &samples[1..2], 0).await;
    let series = store.series(HOST, None).await.unwrap();
    assert_eq!((series.len(), series[0].uom.as_str()), (1, "ms"));
}

#[tokio::test]
async fn a_start_knows_the_series_and_their_kinds() {
    let (store, _dir) = fixture::store().await;
    let samples = [sample(START, vec![plain("rx", "c"), plain("rtt", "ms")])];
    let numbered = put(&store, &mut SeriesCache::default(), &samples, 0).await;
    let mut cache = SeriesCache::default();
    load(&mut store.reader().await.unwrap(), &mut cache).await.unwrap();
    assert_eq!((cache.count, cache.kind(1), cache.kind(2)), (2, SeriesKind::Counter, SeriesKind::Gauge));
    cache.clear();
    assert_eq!(cache.kind(1), SeriesKind::Counter, "a failed transaction changes no stored series");
    assert_eq!(put(&store, &mut cache, &samples, 0).await, numbered);
}

#[tokio::test]
async fn a_series_of_a_transaction_that_failed_does_not_exist() {
    let (store, _dir) = fixture::store().await;
    let mut cache = SeriesCache::default();
    let mut tx = store.begin().await.unwrap();
    number(&mut tx, &mut cache, &[sample(START, vec![plain("rx", "c")])], since(0)).await.unwrap();
    tx.rollback().await.unwrap();
    cache.clear();
    let numbered = put(&store, &mut cache, &[sample(START, vec![plain("rtt", "s")])], 0).await;
    assert_eq!((numbered.samples[0].0, cache.kind(1)), (1, SeriesKind::Gauge), "the number had another kind");
}

#[tokio::test]
async fn a_plugin_that_invents_labels_is_cut_until_its_others_are_old() {
    let (store, _dir) = fixture::store().await;
    let mut cache = SeriesCache::default();
    let first = put(&store, &mut cache, &[sample(START, labels(0, 100))], START - DAY).await;
    assert_eq!((first.samples.len(), first.refused), (64, 36));
    assert_eq!((cache.count, cache.full.len()), (64, 1), "what is refused takes no memory");
    let (full, full_on) = (cache.full.clone(), cache.full_on);
    let mut forgetful = SeriesCache { full, full_on, ..SeriesCache::default() };
    let known = put(&store, &mut forgetful, &[sample(START, labels(0, 1))], START - DAY).await;
    assert_eq!(known.samples.len(), 1, "a series that is there is found in a full service too");
    let later = START + 20 * DAY;
    let again = put(&store, &mut cache, &[sample(later, labels(64, 36))], START - DAY).await;
    assert_eq!((again.samples.len(), again.refused), (0, 36));
    let old = put(&store, &mut cache, &[sample(later, labels(64, 36))], START + DAY).await;
    assert_eq!((old.samples.len(), old.refused), (36, 0));
    assert_eq!(cache.count, 100);
}

#[tokio::test]
async fn a_service_never_has_more_series_than_the_hard_limit() {
    let (store, _dir) = fixture::store().await;
    let mut cache = SeriesCache::default();
    let many = "with recursive n (i) as (select 1 union all select i + 1 from n where i < 4090)
                insert into series (host, service, label, uom, last_at)
                select 7, 'ping', 'old' || i, '', 5 from n";
    fixture::run(&store, many, &[]).await;
    let numbered = put(&store, &mut cache, &[sample(START, labels(0, 10))], START - DAY).await;
    assert_eq!((numbered.samples.len(), numbered.refused), (6, 4));
}

#[tokio::test]
async fn samples_of_days_that_are_removed_are_left_out() {
    let (store, _dir) = fixture::store().await;
    let mut cache = SeriesCache::default();
    let times = [-1, 0, START - 1, START, START + DAY - 1, START + DAY, i64::MAX / 2_000];
    let samples: Vec<Sample> = times.map(|at| sample(at, vec![plain("rtt", "s")])).into();
    let numbered = put(&store, &mut cache, &samples, START + 5).await;
    let taken: Vec<Second> = numbered.samples.iter().map(|(_, p)| p.at).collect();
    assert_eq!(taken, [START, START + DAY - 1, START + DAY]);
    assert_eq!(numbered.too_old, 4);
    let ever = put(&store, &mut cache, &samples, i64::MIN / 2_000).await;
    assert_eq!((ever.samples.len(), ever.too_old), (5, 2), "what no key can hold");
}

#[tokio::test]
async fn a_removed_hosts_series_goes_when_no_tier_has_a_sample_of_it() {
    let (store, _dir) = fixture::store().await;
    fixture::device(&store, 7, "cam-07").await;
    let mut cache = SeriesCache::default();
    put(&store, &mut cache, &[sample(START, vec![plain("rtt", "s"), plain("loss", "%")])], 0).await;
    let step = async |after, before| {
        let mut tx = store.begin().await.unwrap();
        let gone = remove_gone(&mut tx, after, before).await.unwrap();
        tx.commit().await.unwrap();
        (gone.next, gone.removed)
    };
    assert_eq!(step(0, i64::MAX).await, (None, 0), "the host is there");
    fixture::run(&store, "update hosts set removed_at = 5 where id = 7", &[]).await;
    let mut tx = store.begin().await.unwrap();
    seen(&mut tx, &[(1, START + 60), (2, START - 60)]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(step(0, START).await, (None, 0));
    assert_eq!(step(1, START + 60).await, (None, 1), "the first is not looked at");
    assert_eq!(step(0, START + 60).await, (None, 0), "it was seen later");
    assert_eq!(step(0, START + 61).await, (None, 1));
    let numbered = put(&store, &mut SeriesCache::default(), &[sample(START, labels(0, 1))], 0).await;
    assert_eq!(numbered.samples[0].0, 3, "numbers are not reused");
}

#[tokio::test]
async fn an_adopted_series_is_found_or_made() {
    let (store, _dir) = fixture::store().await;
    put(&store, &mut SeriesCache::default(), &[sample(START, vec![plain("rtt", "ms")])], 0).await;
    let mut tx = store.begin().await.unwrap();
    assert_eq!(adopted(&mut tx, (7, "ping", "rtt", "ms"), 5).await.unwrap(), Some(1));
    assert_eq!(adopted(&mut tx, (7, "ping", "rtt", "s"), 5).await.unwrap(), None, "of another unit");
    assert_ne!(adopted(&mut tx, (7, "ping", "loss", "%"), 5).await.unwrap(), Some(1));
    tx.commit().await.unwrap();
    let units: Vec<String> = store.series(HOST, None).await.unwrap().into_iter().map(|s| s.uom).collect();
    assert_eq!(units, ["%", "ms"]);
}
