//! The history in a backup: one of an earlier version, one that is being converted, and unsealed samples.

use super::*;
use crate::store::history::Conversion;

/// Samples of the first schema: two series, one sample a minute.
const OLD_ROWS: [&str; 2] = [
    "insert into series (id, host, service, label, uom)
     values (1, 9, 'ping', 'rta', 'ms'), (2, 9, 'ping', 'pl', '%')",
    "with recursive n(x) as (select 1 union all select x + 1 from n where x < 50000)
     insert into samples select 1 + x % 2, 1700000000000 + x * 30000, x from n",
];

#[tokio::test]
async fn a_backup_of_the_first_schema_is_restored_and_its_history_is_converted() {
    let place = GatewayDir::new().await;
    fixture::run(&place.store, "delete from series", &[]).await;
    place.store.close().await;
    let file = place.dir.path().join(HISTORY_FILE);
    fs::remove_file(&file).unwrap();
    fixture::old_history(place.dir.path()).await;
    fixture::run_on(&file, &OLD_ROWS).await;
    let out = private_dir();
    let made = place.back_up(out.path()).await.unwrap();
    assert_eq!((made.head.history_schema, made.converting), (Some(1), false));
    let dir = private_dir();
    restore_to(&made.file, dir.path()).await.unwrap();
    let store = Store::open(dir.path(), Identity::read(dir.path()).unwrap().seal_key()).await.unwrap();
    assert!(dir.path().join(OLD_HISTORY_FILE).exists());
    loop {
        match store.convert_step().await.unwrap() {
            Conversion::Done => break,
            Conversion::More { .. } => {}
            Conversion::None => panic!("nothing is left to convert, and the last step did not say so"),
        }
    }
    let found = store.series(HostId::from_i64(9), Some("ping")).await.unwrap();
    assert_eq!(found.iter().map(|s| s.label.as_str()).collect::<Vec<_>>(), ["pl", "rta"]);
    for (series, first) in found.iter().zip([1, 2]) {
        let points = store.raw(series.id, 1_699_000_000, 1_702_000_000).await.unwrap().points;
        let wanted = (first..=50_000i32)
            .step_by(2)
            .map(|x| Point { at: 1_700_000_000 + i64::from(x) * 30, value: Some(f64::from(x)) });
        assert!(points.into_iter().eq(wanted), "{}", series.label);
    }
    assert!(!dir.path().join(OLD_HISTORY_FILE).exists());
}

#[tokio::test]
async fn a_backup_during_a_conversion_says_so() {
    let place = GatewayDir::new().await;
    fs::write(place.dir.path().join(OLD_HISTORY_FILE), "half converted").unwrap();
    let out = private_dir();
    let made = place.back_up(&out.path().join("n-1.tar")).await.unwrap();
    assert!(made.converting);
    assert!(entries_of(&made.file).iter().all(|(name, _)| name != OLD_HISTORY_FILE));
    let order = Order { history: false, ..place.order(&out.path().join("n-2.tar")) };
    assert!(!make(&order, silent()).await.unwrap().converting, "it has no history at all");
}

/// Samples that no block has yet are in the main database, with a history and without one.
#[tokio::test]
async fn unsealed_samples_are_in_every_backup() {
    let place = GatewayDir::new().await;
    fixture::run(&place.store, "insert into redo (generation, data) values (4, x'0102')", &[]).await;
    let out = private_dir();
    for (name, history) in [("n-1.tar", true), ("n-2.tar", false)] {
        let order = Order { history, ..place.order(&out.path().join(name)) };
        let made = make(&order, silent()).await.unwrap();
        let dir = private_dir();
        restore_to(&made.file, dir.path()).await.unwrap();
        let store = Store::open(dir.path(), Identity::read(dir.path()).unwrap().seal_key()).await.unwrap();
        let sql = "select id || ' ' || generation || ' ' || hex(data) from redo";
        assert_eq!(fixture::texts(&store, sql).await, ["1 4 0102"]);
        assert_eq!(series_of(&store).await, series_of(&place.store).await);
        assert_eq!(store.raw(1, 0, 11 * DAY).await.unwrap().points.is_empty(), !history);
    }
}
