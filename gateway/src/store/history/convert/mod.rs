//! The conversion of a history of the first schema, which had a row for each sample.
//!
//! It runs in the background in steps of one transaction. How far it has come stands in the new
//! history, in the transaction of what was converted. So it goes on after a crash, and begins again if
//! the new history is lost.

use std::path::Path;

use fleetgate_engine::history::{DAY, Point, Second, SeriesKind};
use fleetgate_engine::id::HostId;
use futures_util::TryStreamExt as _;
use sqlx::{Connection as _, Result, SqliteConnection};

use super::super::Store;
use super::super::files::{self, is_damage};
use super::{Sealable, blocks, file, series, steps};

/// Samples of a series after which a step ends with the day: a month of one a minute.
const SAMPLES: usize = 45_000;
/// The names in `progress`: the last series that is converted, and the day that the next step begins with
/// if it is not.
const CONVERTED: &str = "converted";
const NEXT_DAY: &str = "convert_day";
/// That some of the old file is not converted, so that it is kept.
const OLD_DAMAGED: &str = "convert_damaged";

/// The outcome of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conversion {
    /// There is no older history.
    None,
    More {
        percent: u8,
    },
    /// All is converted, and the old file is removed.
    Done,
}

/// How far the conversion has come.
#[derive(Clone, Copy, Debug, Default)]
struct ConvertCursor {
    after: i64,
    day: i64,
}

/// Samples of one series of the old file.
struct Part {
    id: i64,
    /// The greatest id.
    last_id: i64,
    name: Name,
    points: Vec<Point>,
    /// The day that follows. `None` at the end of the series.
    next: Option<i64>,
    /// The rest of the series cannot be read.
    is_damaged: bool,
}

struct Name {
    host: i64,
    service: String,
    label: String,
    uom: String,
}

impl Store {
    /// Converts the next part of an older history. Removes its file after the last one, or sets it aside
    /// if it is damaged.
    ///
    /// # Errors
    /// Fails when a database refuses a statement. The next call tries again.
    pub async fn convert_step(&self) -> Result<Conversion> {
        let file = self.history.old_file();
        if std::fs::symlink_metadata(&file).is_err() {
            return Ok(Conversion::None);
        }
        let place = self.history.judge(self.place().await)?;
        match read(&file, place).await {
            Ok(Some(part)) => {
                let percent = (part.id.saturating_mul(100) / part.last_id.max(1)).clamp(0, 99);
                self.convert(part).await?;
                Ok(Conversion::More { percent: u8::try_from(percent).unwrap_or(99) })
            }
            Ok(None) => {
                let is_damaged = self.history.judge(self.forget_place().await)?;
                if is_damaged {
                    set_aside(&file)?;
                } else {
                    files::remove(&file)?;
                }
                tracing::info!("the older history is converted");
                Ok(Conversion::Done)
            }
            Err(error) if is_damage(&error) => {
                tracing::warn!("the older history cannot be converted: {error}");
                set_aside(&file)?;
                self.history.judge(self.forget_place().await)?;
                Ok(Conversion::Done)
            }
            Err(error) => Err(error),
        }
    }

    async fn place(&self) -> Result<ConvertCursor> {
        let mut conn = self.history.read().acquire().await?;
        let after = blocks::progress(&mut conn, CONVERTED).await?.unwrap_or(0);
        let day = blocks::progress(&mut conn, NEXT_DAY).await?.unwrap_or(i64::MIN);
        Ok(ConvertCursor { after, day })
    }

    /// Returns whether a part of the old file was damaged.
    async fn forget_place(&self) -> Result<bool> {
        let mut tx = self.history.begin().await?;
        let is_damaged = blocks::progress(&mut tx, OLD_DAMAGED).await?.is_some();
        let sql = "delete from progress where name in ($1, $2, $3)";
        let names = sqlx::query(sql).bind(CONVERTED).bind(NEXT_DAY).bind(OLD_DAMAGED);
        names.execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(is_damaged)
    }

    async fn convert(&self, part: Part) -> Result<()> {
        let mut lacks_some = part.is_damaged;
        let new = match part.points.last() {
            Some(last) => {
                let (series, kind) = (self.adopt(&part.name, last.at).await?, SeriesKind::of(&part.name.uom));
                lacks_some |= series.is_none();
                series.map(|series| Sealable { series, kind, points: part.points })
            }
            None => None,
        };
        let done = async {
            let mut tx = self.history.begin().await?;
            if let Some(new) = &new {
                steps::days_put(&mut tx, new).await?;
            }
            if lacks_some {
                blocks::set_progress(&mut tx, OLD_DAMAGED, 1).await?;
            }
            match part.next {
                Some(day) => blocks::set_progress(&mut tx, NEXT_DAY, day).await?,
                None => {
                    blocks::set_progress(&mut tx, NEXT_DAY, i64::MIN).await?;
                    blocks::set_progress(&mut tx, CONVERTED, part.id).await?;
                }
            }
            tx.commit().await
        };
        self.history.judge(done.await)
    }

    /// Returns the number of a series. Most series exist already, because they have newer samples. If those have
    /// another unit, the older ones are in a series beside. `None`: a plugin has the labels of all of these in other
    /// units. The samples are left out then, because an error would hold up the conversion for ever, and the old file
    /// is kept.
    async fn adopt(&self, name: &Name, last_at: Second) -> Result<Option<u32>> {
        let Name { host, service, label, uom } = name;
        let found = self.series_of(&[HostId::from_i64(*host)], service, label).await?;
        if let Some(series) = found.first().filter(|series| series.uom == *uom) {
            return Ok(Some(series.id));
        }
        let former = series::former(label, uom);
        // A plugin may have the label of a former unit too.
        let older = format!("{former} (older)");
        let mut tx = self.begin().await?;
        for label in [label, &former, &older] {
            if let Some(id) = series::adopted(&mut tx, (*host, service, label, uom), last_at).await? {
                tx.commit().await?;
                return Ok(Some(id));
            }
        }
        let host = HostId::from_i64(*host);
        tracing::warn!(
            "samples of host {host}, service {service:?}, metric {label:?} are not converted: newer ones have other units"
        );
        Ok(None)
    }
}

fn set_aside(file: &Path) -> Result<()> {
    let moved = file::set_aside(file)?;
    tracing::warn!(
        "a part of the older history is not converted, and it is now {}: graphs lack that part",
        moved.display()
    );
    Ok(())
}

/// Reads the samples that follow. Returns `None` at the end of the file.
async fn read(file: &Path, place: ConvertCursor) -> Result<Option<Part>> {
    let mut conn = files::read_only(file).await?;
    let part = next_part(&mut conn, place).await;
    let _ = conn.close().await;
    part
}

async fn next_part(conn: &mut SqliteConnection, place: ConvertCursor) -> Result<Option<Part>> {
    let sql = "select id, host, service, label, uom, (select max(id) from series) from series
               where id > $1 order by id limit 1";
    let found: Option<(i64, i64, String, String, String, i64)> =
        sqlx::query_as(sql).bind(place.after).fetch_optional(&mut *conn).await?;
    let Some((id, host, service, label, uom, last_id)) = found else { return Ok(None) };
    let name = Name { host, service, label, uom };
    let mut part = Part { id, last_id, name, points: Vec::new(), next: None, is_damaged: false };
    match samples(conn, place.day, &mut part).await {
        Err(error) if is_damage(&error) => {
            part.is_damaged = true;
            let Name { host, service, label, .. } = &part.name;
            tracing::warn!(
                "samples of host {}, service {service:?}, metric {label:?} are lost in the older history: {error}",
                HostId::from_i64(*host)
            );
        }
        outcome => outcome?,
    }
    Ok(Some(part))
}

/// Reads samples from this day on, to the end of the day in which there are enough. Of those of one
/// second the last counts.
async fn samples(conn: &mut SqliteConnection, day: i64, part: &mut Part) -> Result<()> {
    let sql = "select at, value from samples where series = $1 and at >= $2 order by at";
    let from = day.saturating_mul(DAY * 1_000);
    let mut rows = sqlx::query_as::<_, (i64, Option<f64>)>(sql).bind(part.id).bind(from).fetch(conn);
    while let Some((at, value)) = rows.try_next().await? {
        let point = Point { at: at.div_euclid(1_000), value };
        let last = part.points.last().map(|last| last.at);
        if part.points.len() >= SAMPLES && last.map(day_of) != Some(day_of(point.at)) {
            part.next = Some(day_of(point.at));
            return Ok(());
        }
        if last == Some(point.at) {
            part.points.pop();
        }
        part.points.push(point);
    }
    Ok(())
}

fn day_of(at: Second) -> i64 {
    at.div_euclid(DAY)
}

#[cfg(test)]
mod tests;
