//! A history of the first schema, whose conversion is killed.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use fleetgate::store::Store;
use fleetgate::store::files::{HISTORY_FILE, OLD_HISTORY_FILE, SIDE_FILES, beside};
use fleetgate::store::history::Conversion;
use fleetgate_engine::history::HOUR;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, SqlStr};
use tempfile::TempDir;

use super::block_on;
use super::model::{Model, Name, Samples};
use super::process::{copied, kill_everywhere};
use super::reading::Reader;
use super::story::{self, START};

pub const TASK: &str = "convert";
const OLD: &str = include_str!("../../../../gateway/src/store/history/old_schema.sql");
/// The day of the story on which it is kept up: the period with its samples is over.
const DAY: i64 = 9;

/// What the older gateway left.
pub struct Older {
    /// Samples of the longest series, one a second from 11 o'clock on. More than 45,000 up to midnight take two steps.
    pub samples: i64,
    /// The older gateway was killed, and its newest rows are only in the log.
    pub was_killed: bool,
}

impl Older {
    /// Kills the process that converts the history at its calls.
    pub fn is_survived(&self) {
        let (prepared, model) = block_on(self.prepared()).expect("an older history");
        kill_everywhere(TASK, prepared.path(), |data, _, place| {
            block_on(check(&model, data)).with_context(|| place.to_owned()).unwrap();
        });
    }

    async fn prepared(&self) -> Result<(TempDir, Model)> {
        let dir = tempfile::tempdir()?;
        story::open(dir.path()).await?.close().await;
        let file = dir.path().join(HISTORY_FILE);
        std::fs::remove_file(&file)?;
        let pool = self.filled(&file).await?;
        let model = Model::of(rows(&pool).await?);
        let left = self.was_killed.then(|| copied(dir.path()));
        pool.close().await;
        Ok((left.unwrap_or(dir), model))
    }

    async fn filled(&self, file: &Path) -> Result<SqlitePool> {
        let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
        let options = options.journal_mode(SqliteJournalMode::Wal);
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
        let schema = Migration::new(1, "init".into(), MigrationType::Simple, SqlStr::from_static(OLD), false);
        Migrator::with_migrations(vec![schema]).run(&pool).await?;
        for sql in self.inserts() {
            sqlx::query(AssertSqlSafe(sql)).execute(&pool).await?;
        }
        Ok(pool)
    }

    /// A series with two samples in some seconds, a counter with gaps, one without samples, and one of a host check.
    fn inserts(&self) -> [String; 5] {
        let (samples, from) = (self.samples, START + 11 * HOUR);
        [
            "insert into series (id, host, service, label, uom) values (3, 7, 'ping', 'rtt', 's'),
                 (5, 7, 'net', 'rx', 'c'), (6, 7, 'net', 'tx', 'c'), (9, 8, '', 'rta', 'ms')"
                .to_owned(),
            format!(
                "with recursive n (i) as (select 0 union all select i + 1 from n where i + 1 < {samples})
                 insert into samples select 3, ({from} + i) * 1000 + 17, i % 97 / 8.0 from n"
            ),
            "insert into samples select 3, at + 900, 1000.5 from samples where series = 3 and value = 5.0".to_owned(),
            format!(
                "with recursive n (i) as (select 0 union all select i + 1 from n where i < 199)
                 insert into samples select 5, ({START} + i * 60) * 1000, iif(i % 50 = 7, null, i * 30.0) from n"
            ),
            format!("insert into samples values (9, ({START} + 5) * 1000, 1.5)"),
        ]
    }
}

/// Reads the samples of the older history. Of two of one second the later one counts.
async fn rows(pool: &SqlitePool) -> Result<BTreeMap<Name, Samples>> {
    type Row = (i64, String, String, String, i64, Option<f64>);
    let sql = "select host, service, label, uom, at, value from samples join series on id = series
               order by series, at";
    let rows: Vec<Row> = sqlx::query_as(sql).fetch_all(pool).await?;
    let mut all: BTreeMap<Name, Samples> = BTreeMap::new();
    for (host, service, label, uom, at, value) in rows {
        let name = Name { host, service, label, uom };
        all.entry(name).or_default().insert(at.div_euclid(1_000), value);
    }
    Ok(all)
}

/// Opens a folder as an upgraded gateway does, and converts its history.
pub async fn live(data: &Path) -> Result<()> {
    let store = story::open(data).await?;
    convert(&store).await?;
    store.close().await;
    Ok(())
}

async fn convert(store: &Store) -> Result<()> {
    while let Conversion::More { .. } = store.convert_step().await? {}
    Ok(())
}

/// Fails if a folder does not have everything: in the older file as long as that is there.
async fn check(model: &Model, data: &Path) -> Result<()> {
    let reader = Reader::open(data, DAY).await?;
    let old = data.join(OLD_HISTORY_FILE);
    if !old.exists() {
        reader.one_of(&[model]).await.context("the older file is gone")?;
    }
    convert(&reader.store).await?;
    for side in ["", SIDE_FILES[0], SIDE_FILES[1]] {
        ensure!(!beside(&old, side).exists(), "{OLD_HISTORY_FILE}{side} is left");
    }
    reader.one_of(&[model]).await?;
    reader.graphs_are(model).await?;
    reader.keep_up().await?;
    reader.everything_is(model).await?;
    reader.store.close().await;
    Ok(())
}
