//! A metric whose unit changes goes on in another series, so that no line has values of two units. The
//! series of the earlier unit gets a label that names it, and its own one again if the unit comes back.

use fleetgate_engine::history::Second;
use sqlx::sqlite::SqliteConnection;

use super::{Name, Series, found, made, number_of};

impl Series {
    /// The label under which its values were measured. That the unit has changed later says nothing of them.
    pub fn measured_label(&self) -> &str {
        let numbered = self.label.strip_suffix(&format!(" ({})", self.id)).unwrap_or(&self.label);
        let measured = numbered.strip_suffix(&former("", &self.uom));
        measured.filter(|label| !label.is_empty()).unwrap_or(&self.label)
    }
}

/// The label of a series whose metric has another unit now.
pub(in super::super) fn former(label: &str, uom: &str) -> String {
    if uom.is_empty() {
        format!("{label}, formerly without unit")
    } else {
        format!("{label}, formerly in {uom}")
    }
}

/// Gives the label to the series of the new unit, which it finds or makes. `None`: it would be one too many, and all
/// stays as it is.
pub(super) async fn changed(
    conn: &mut SqliteConnection,
    name: Name<'_>,
    (old, old_uom): (i64, String),
    times: (Second, Second),
    most: i64,
) -> sqlx::Result<Option<u32>> {
    let earlier = found(conn, name, &former(name.label, name.uom)).await?;
    let earlier = earlier.filter(|(_, uom)| uom == name.uom);
    if earlier.is_none() && most == 0 {
        return Ok(None);
    }
    // A plugin may have these very labels too. A label that is there twice would fail the commit of all results.
    let mut aside = former(name.label, &old_uom);
    if found(conn, name, &aside).await?.is_some() {
        aside = format!("{aside} ({old})");
        if found(conn, name, &aside).await?.is_some() {
            return Ok(None);
        }
    }
    relabel(conn, old, &aside).await?;
    if let Some((id, _)) = earlier {
        relabel(conn, id, name.label).await?;
        return number_of(id).map(Some);
    }
    let made = made(conn, name, times, most).await?;
    if made.is_none() {
        relabel(conn, old, name.label).await?;
    }
    Ok(made)
}

async fn relabel(conn: &mut SqliteConnection, id: i64, label: &str) -> sqlx::Result<()> {
    let update = sqlx::query("update series set label = $2 where id = $1").bind(id).bind(label);
    update.execute(conn).await.map(drop)
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::history::{DAY, SeriesKind};

    use super::super::tests::{HOST, START, plain, put, sample};
    use super::super::{Series, SeriesCache};
    use crate::store::fixture;

    #[tokio::test]
    async fn values_of_two_units_are_in_two_series_and_the_label_is_that_of_the_present_one() {
        let (store, _dir) = fixture::store().await;
        let mut cache = SeriesCache::default();
        let (in_ms, in_c) = ("time, formerly in ms", "time, formerly in c");
        for (at, uom, number, former) in [
            (1, "ms", 1, None),
            (2, "c", 2, Some((in_ms, "ms", 1))),
            (3, "ms", 1, Some((in_c, "c", 2))),
            (4, "c", 2, Some((in_ms, "ms", 1))),
            (5, "", 3, Some((in_c, "c", 2))),
        ] {
            let numbered = put(&store, &mut cache, &[sample(START + at, vec![plain("time", uom)])], 0).await;
            assert_eq!(numbered.samples[0].0, number, "{at}");
            let all = store.series(HOST, None).await.unwrap();
            let found: Vec<_> = all.iter().map(|s| (s.label.as_str(), s.uom.as_str(), s.id)).collect();
            assert_eq!(found[0], ("time", uom, number), "{at}");
            assert_eq!(found.get(1).copied(), former, "{at}");
            assert_eq!(cache.kind(number), SeriesKind::of(uom), "{at}");
            let of = store.series_of(&[HOST], "ping", "time").await.unwrap();
            assert_eq!(
                of.iter().map(|s| s.id).collect::<Vec<_>>(),
                [number],
                "a query has one of them: {at}"
            );
        }
        let all = store.series(HOST, None).await.unwrap();
        assert_eq!((all.len(), all[2].label.as_str(), cache.count), (3, in_ms, 1));
        let again =
            put(&store, &mut SeriesCache::default(), &[sample(START, vec![plain("time", "ms")])], 0).await;
        assert_eq!(again.samples[0].0, 1);
        let labels: Vec<String> =
            store.series(HOST, None).await.unwrap().into_iter().map(|s| s.label).collect();
        assert_eq!(labels, ["time", in_c, "time, formerly without unit"]);
    }

    #[tokio::test]
    async fn all_metrics_of_a_service_may_change_their_unit_and_none_for_ever() {
        let (store, _dir) = fixture::store().await;
        let mut cache = SeriesCache::default();
        let of = |uom: &str| sample(START, (0..64).map(|n| plain(&format!("label{n}"), uom)).collect());
        let mut refused = Vec::new();
        for uom in ["KB", "MB", "GB", "MB"] {
            refused.push(put(&store, &mut cache, &[of(uom)], START - DAY).await.refused);
            // A service is asked again on another day.
            cache.full.clear();
        }
        assert_eq!(refused, [0, 0, 64, 0]);
        let all = store.series(HOST, None).await.unwrap();
        let present: Vec<_> = all.iter().filter(|s| !s.label.contains("formerly")).collect();
        assert!(present.len() == 64 && present.iter().all(|s| s.uom == "MB"), "{}", present.len());
    }

    #[tokio::test]
    async fn a_plugin_with_a_label_of_a_former_unit_keeps_it() {
        let (store, _dir) = fixture::store().await;
        let mut cache = SeriesCache::default();
        for uom in ["ms", "s"] {
            let metrics = vec![plain("a, formerly in ms", "%"), plain("a", uom)];
            put(&store, &mut cache, &[sample(START, metrics)], 0).await;
        }
        let all = store.series(HOST, None).await.unwrap();
        let found: Vec<_> = all.iter().map(|s| (s.label.as_str(), s.uom.as_str(), s.id)).collect();
        let wanted = [("a", "s", 3), ("a, formerly in ms", "%", 1), ("a, formerly in ms (2)", "ms", 2)];
        assert_eq!(found, wanted);
        let measured: Vec<&str> = all.iter().map(Series::measured_label).collect();
        assert_eq!(measured, ["a", "a, formerly in ms", "a"]);
    }

    #[tokio::test]
    async fn labels_that_guess_those_of_former_units_refuse_the_change_and_fail_nothing() {
        let (store, _dir) = fixture::store().await;
        let mut cache = SeriesCache::default();
        let guesses = (1..=9).map(|n| plain(&format!("a, formerly in ms ({n})"), "%"));
        let mut first = vec![plain("a, formerly in ms", "%"), plain("a", "ms")];
        first.extend(guesses);
        put(&store, &mut cache, &[sample(START, first)], 0).await;
        for _ in 0..2 {
            let numbered = put(&store, &mut cache, &[sample(START + 60, vec![plain("a", "s")])], 0).await;
            assert_eq!((numbered.samples.len(), numbered.refused), (0, 1));
        }
        let numbered = put(&store, &mut cache, &[sample(START + 120, vec![plain("a", "ms")])], 0).await;
        assert_eq!((numbered.samples.len(), numbered.refused), (1, 0), "the unit that it had goes on");
    }
}
