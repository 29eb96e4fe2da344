//! The traffic of each device by UTC day.
//!
//! A row only grows. It keeps the highest count ever written for its day, so that a late or
//! repeated write never lowers it.

use std::sync::LazyLock;

use fleetgate_engine::id::PeerId;
use fleetgate_engine::messages::{PeerStatus, WireDay};
use sqlx::sqlite::SqliteConnection;

use super::Store;
use super::rows::{Batched, NARROW};

/// Rows deleted in one step. The step takes some 20 ms, and other writes wait for it.
const PRUNED: i64 = 5_000;

static DAYS: LazyLock<Batched> = LazyLock::new(|| {
    Batched::new(NARROW, 4, |values| {
        format!(
            "with v (day, peer, rx_bytes, tx_bytes) as (values {values})
             insert into wire_days (day, peer, rx_bytes, tx_bytes)
             select v.day, v.peer, v.rx_bytes, v.tx_bytes from v
             where exists (select 1 from peers where id = v.peer)
             on conflict (day, peer) do update set rx_bytes = max(rx_bytes, excluded.rx_bytes),
                    tx_bytes = max(tx_bytes, excluded.tx_bytes)"
        )
    })
});

/// # Errors
/// Fails when the database refuses the write.
pub async fn write(conn: &mut SqliteConnection, statuses: &[(PeerId, Box<PeerStatus>)]) -> sqlx::Result<()> {
    let all = statuses.iter().flat_map(|(peer, status)| status.wire.map(|day| (*peer, day)));
    let rows: Vec<(PeerId, WireDay)> = all.filter(|(_, day)| day.total() > 0).collect();
    DAYS.run(conn, &rows, |(peer, day), arguments| {
        arguments
            .add(day.day)
            .add(peer.as_i64())
            .add(day.rx_bytes.cast_signed())
            .add(day.tx_bytes.cast_signed());
    })
    .await
}

/// Returns the newest two days of each device, or of one, newest first. Days in the future are left
/// out, because a clock that was once ahead may have left them.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn newest(
    conn: &mut SqliteConnection,
    one: Option<PeerId>,
    today: i64,
) -> sqlx::Result<Vec<(i64, WireDay)>> {
    let sql = "select peer, day, rx_bytes, tx_bytes from wire_days
               where day <= $2 and day >= (select max(day) from wire_days where day <= $2) - 1
                     and ($1 is null or peer = $1) order by day desc";
    let one = one.map(|peer| peer.as_i64());
    let rows: Vec<(i64, i64, i64, i64)> = sqlx::query_as(sql).bind(one).bind(today).fetch_all(conn).await?;
    Ok(rows.into_iter().map(|(peer, day, rx, tx)| (peer, wire_day((day, rx, tx)))).collect())
}

/// Deletes some of the rows older than `keep` days. Returns their number.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn prune(conn: &mut SqliteConnection, today: i64, keep: i64) -> sqlx::Result<u64> {
    let sql = "delete from wire_days where (day, peer) in
               (select day, peer from wire_days where day < $1 order by day limit $2)";
    let gone = sqlx::query(sql).bind(today - keep + 1).bind(PRUNED).execute(conn).await?;
    Ok(gone.rows_affected())
}

/// The traffic of a device in a month so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonthOfPeer {
    pub peer: PeerId,
    pub name: String,
    pub bytes: u64,
}

impl Store {
    /// Returns the devices with the most traffic from one day to another, both included, the highest first.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn most_traffic(&self, first: i64, last: i64, limit: i64) -> sqlx::Result<Vec<MonthOfPeer>> {
        let sql = "select h.id, h.name, sum(w.rx_bytes + w.tx_bytes) as bytes
                   from wire_days w join hosts h on h.id = w.peer and h.removed_at is null
                   where w.day >= $1 and w.day <= $2
                   group by h.id, h.name order by bytes desc, h.name limit $3";
        let rows: Vec<(i64, String, i64)> =
            sqlx::query_as(sql).bind(first).bind(last).bind(limit).fetch_all(&self.read).await?;
        let month = |(id, name, bytes): (i64, String, i64)| MonthOfPeer {
            peer: PeerId::from_i64(id),
            name,
            bytes: bytes.cast_unsigned(),
        };
        Ok(rows.into_iter().map(month).collect())
    }

    /// Returns the recorded days of a device, newest first, from the last `most` days.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn wire_days(&self, peer: PeerId, today: i64, most: i64) -> sqlx::Result<Vec<WireDay>> {
        let sql = "with recursive d (day) as
                       (select $2 union all select day - 1 from d where day > $2 - $3 + 1)
                   select w.day, w.rx_bytes, w.tx_bytes from d
                   join wire_days w on w.day = d.day and w.peer = $1 order by w.day desc";
        let rows: Vec<(i64, i64, i64)> =
            sqlx::query_as(sql).bind(peer.as_i64()).bind(today).bind(most).fetch_all(&self.read).await?;
        Ok(rows.into_iter().map(wire_day).collect())
    }
}

fn wire_day((day, rx, tx): (i64, i64, i64)) -> WireDay {
    WireDay { day, rx_bytes: rx.cast_unsigned(), tx_bytes: tx.cast_unsigned() }
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::messages::DEFAULT_MTU;

    use super::*;
    use crate::store::{fixture, peer_state};

    fn status(days: [(i64, u64); 2]) -> Box<PeerStatus> {
        let wire = days.map(|(day, rx_bytes)| WireDay { day, rx_bytes, tx_bytes: 1 });
        Box::new(PeerStatus { wire, ..PeerStatus::default() })
    }

    async fn put(store: &Store, statuses: &[(PeerId, Box<PeerStatus>)]) {
        let mut conn = store.write.acquire().await.unwrap();
        peer_state::write_statuses(&mut conn, statuses).await.unwrap();
        write(&mut conn, statuses).await.unwrap();
    }

    #[tokio::test]
    async fn daily_traffic_survives_a_restart_and_only_grows() {
        let (store, _dir) = fixture::store().await;
        let peer = fixture::device(&store, 7, "cam-07").await;
        put(&store, &[(peer, status([(100, 50), (99, 40)]))]).await;
        put(&store, &[(peer, status([(100, 30), (101, 5)]))]).await;
        let days = store.wire_days(peer, 101, 31).await.unwrap();
        assert_eq!(
            days.iter().map(|d| (d.day, d.rx_bytes)).collect::<Vec<_>>(),
            [(101, 5), (100, 50), (99, 40)]
        );
        let (_, memory) = store.peer_spec(peer, DEFAULT_MTU).await.unwrap().unwrap();
        assert_eq!(memory.wire.map(|d| (d.day, d.rx_bytes)), [(101, 5), (100, 50)]);
    }

    #[tokio::test]
    async fn a_day_to_come_that_a_wrong_clock_has_left_hides_nothing_of_today() {
        let (store, _dir) = fixture::store().await;
        let peer = fixture::device(&store, 7, "cam-07").await;
        let today = crate::clock::day();
        put(&store, &[(peer, status([(today + 400, 3), (today, 50)]))]).await;
        put(&store, &[(peer, status([(today - 1, 40), (today - 2, 30)]))]).await;
        let (_, memory) = store.peer_spec(peer, DEFAULT_MTU).await.unwrap().unwrap();
        assert_eq!(memory.wire.map(|d| (d.day, d.rx_bytes)), [(today, 50), (today - 1, 40)]);
        let all = store.all_peers(DEFAULT_MTU).await.unwrap();
        assert_eq!(all[0].1.wire, memory.wire);
    }

    #[tokio::test]
    async fn old_days_are_removed_and_unknown_peers_leave_no_row() {
        let (store, _dir) = fixture::store().await;
        let peer = fixture::device(&store, 7, "cam-07").await;
        let stranger = PeerId::from_i64(99);
        put(&store, &[(peer, status([(100, 1), (100 + 62, 2)])), (stranger, status([(100, 1), (99, 1)]))])
            .await;
        let mut conn = store.write.acquire().await.unwrap();
        assert_eq!(prune(&mut conn, 100 + 62 - 1, 62).await.unwrap(), 0);
        assert_eq!(prune(&mut conn, 100 + 62, 62).await.unwrap(), 1);
        assert_eq!(store.wire_days(peer, 100 + 62, 99).await.unwrap().len(), 1);
    }
}
