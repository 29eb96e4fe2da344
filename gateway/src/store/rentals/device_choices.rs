//! How the device of a rental was chosen, and whether the gateway takes another one when it is not handed over.

use std::collections::BTreeMap;
use std::time::Duration;

use fleetgate_engine::id::Id;
use fleetgate_engine::time::Wall;
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;

use super::{damaged, millis};
use crate::store::access::maybe_wall;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceChoice {
    /// The labels that the device was chosen by. `None`: it was given.
    pub labels: Option<BTreeMap<String, String>>,
    /// The profile that it had to have beside them. `None`: any.
    pub profile: Option<String>,
    /// After how long of a delay the gateway takes another device of this selection. `None`: never.
    pub other_after: Option<Duration>,
    /// When it did so last.
    pub other_at: Option<Wall>,
}

impl DeviceChoice {
    /// Whether the gateway takes another device now for a rental that is delayed since its begin.
    pub fn is_due(&self, begin: Wall, now: Wall) -> bool {
        let Some(after) = self.other_after else { return false };
        let since = self.other_at.map_or(begin, |at| at.max(begin));
        self.labels.is_some() && since + after <= now
    }

    pub(super) fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let labels: Option<Json<BTreeMap<String, String>>> = row.try_get("selection")?;
        let after: Option<i64> = row.try_get("other_device_after_ms")?;
        let after = after.map(|after| u64::try_from(after).map(Duration::from_millis)).transpose();
        Ok(DeviceChoice {
            labels: labels.map(|labels| labels.0),
            profile: row.try_get("selection_profile")?,
            other_after: after.map_err(|_| damaged("other_device_after_ms"))?,
            other_at: maybe_wall(row, "other_device_at")?,
        })
    }

    /// The value of the column `selection`.
    pub(super) fn labels_row(&self) -> Option<Json<&BTreeMap<String, String>>> {
        self.labels.as_ref().map(Json)
    }

    /// The value of the column `other_device_after_ms`.
    pub(super) fn after_row(&self) -> Option<i64> {
        self.other_after.map(millis)
    }
}

const DUE: &str = "select id from rentals
     where other_device_after_ms is not null and handed_over_at is null and ended_at is null
       and gated = 1 and dispatched_at is null and until_at > $1 and from_at + other_device_after_ms <= $1
       and (other_device_at is null or other_device_at + other_device_after_ms <= $1)
     order by until_at limit $2";

/// Returns rentals whose devices are not handed over and that may get another one now. They may not be confirmed. A
/// device that was dispatched is on its way, and is not replaced.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn due(conn: &mut SqliteConnection, now: Wall, limit: i64) -> sqlx::Result<Vec<Id>> {
    let ids: Vec<i64> = sqlx::query_scalar(DUE).bind(now.as_millis()).bind(limit).fetch_all(conn).await?;
    Ok(ids.into_iter().map(Id::from_i64).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixture;

    fn at(second: i64) -> Wall {
        Wall::from_millis(second * 1_000)
    }

    #[test]
    fn another_device_is_due_after_the_delay_and_as_long_after_the_last_one() {
        let choice = DeviceChoice {
            labels: Some(BTreeMap::new()),
            profile: None,
            other_after: Some(Duration::from_secs(60)),
            other_at: None,
        };
        let due = |choice: &DeviceChoice, now| choice.is_due(at(1_000), at(now));
        assert_eq!((due(&choice, 1_059), due(&choice, 1_060)), (false, true));
        let again = DeviceChoice { other_at: Some(at(1_070)), ..choice.clone() };
        assert_eq!((due(&again, 1_129), due(&again, 1_130)), (false, true));
        assert!(!due(&DeviceChoice { labels: None, ..choice.clone() }, 9_000), "the device was given");
        assert!(!due(&DeviceChoice { other_after: None, ..choice }, 9_000), "it was not wanted");
    }

    #[tokio::test]
    async fn what_is_due_is_found_without_a_look_at_all_rentals() {
        let (store, _dir) = fixture::store().await;
        let mut conn = store.reader().await.unwrap();
        let plan = sqlx::AssertSqlSafe(format!("explain query plan {DUE}"));
        let rows: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(plan).bind(0).bind(9).fetch_all(&mut *conn).await.unwrap();
        let plan = rows.into_iter().map(|row| row.3).collect::<Vec<_>>().join("; ");
        assert!(plan.contains("rentals_other_device ") && !plan.contains("SCAN"), "{plan}");
    }
}
