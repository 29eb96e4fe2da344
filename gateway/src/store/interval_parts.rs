//! Divides a time into parts that can be read at once.
//!
//! A device decides how often its services change. The intervals of a day of one that changes all the time are as many
//! as those of a usual device in its life, and a report reads each series as a whole.

use std::time::Duration;

use fleetgate_engine::availability::Period;
use fleetgate_engine::id::HostId;
use sqlx::types::Json;

use super::Store;
use super::intervals::Services;

/// Intervals of one host that are read at once: some 20 MB in memory.
const MOST_AT_ONCE: i64 = 100_000;
/// No part is shorter. A device sends two results a second.
const SHORTEST: Duration = Duration::from_secs(60);

/// Counts what begins within a time, up to a limit. The first part finds the services in steps of the index, and the
/// index finds the times.
const COUNT: &str = "with recursive names (service) as (
         select min(service) from intervals where host = $1
         union all
         select (select min(i.service) from intervals i where i.host = $1 and i.service > n.service)
         from names n where n.service is not null)
     select count(*) from (
         select 1 from names n cross join intervals i on i.host = $1 and i.service = n.service
         where n.service is not null
               and i.series in ('state', 'downtime', 'rental', 'unreachable', 'gateway_stopped', 'uplink_lost')
               and i.began_at >= $2 and i.began_at < $3
         limit $4)";

macro_rules! crowded {
    ($service:literal) => {
        concat!(
            "select host from intervals where host in (select value from json_each($1)) and ",
            $service,
            " and began_at >= $2 and began_at < $3 group by host having count(*) > $4"
        )
    };
}

const OF_HOSTS: &str = crowded!("service = ''");
const OF_ONE_SERVICE: &str = crowded!("service in ('', $5)");
const OF_ALL_SERVICES: &str = crowded!("true");

impl Store {
    /// Returns those of these hosts that have more intervals in a time than are read at once.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn crowded_hosts(
        &self,
        hosts: &[HostId],
        services: Services<'_>,
        period: Period,
    ) -> sqlx::Result<Vec<HostId>> {
        self.with_more(hosts, services, period, MOST_AT_ONCE).await
    }

    async fn with_more(
        &self,
        hosts: &[HostId],
        services: Services<'_>,
        period: Period,
        most: i64,
    ) -> sqlx::Result<Vec<HostId>> {
        let sql = match services {
            Services::None => OF_HOSTS,
            Services::One(_) => OF_ONE_SERVICE,
            Services::All => OF_ALL_SERVICES,
        };
        let ids: Vec<i64> = hosts.iter().map(|host| host.as_i64()).collect();
        let mut query = sqlx::query_scalar(sql)
            .bind(Json(ids))
            .bind(period.from().as_millis())
            .bind(period.until().as_millis())
            .bind(most);
        if let Services::One(service) = services {
            query = query.bind(service);
        }
        let found: Vec<i64> = query.fetch_all(&self.read).await?;
        Ok(found.into_iter().map(HostId::from_i64).collect())
    }

    /// Divides a time into parts, in their order. In each of them not much more begins than is read at once.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn parts(&self, host: HostId, period: Period) -> sqlx::Result<Vec<Period>> {
        self.parts_of(host, period, MOST_AT_ONCE).await
    }

    async fn parts_of(&self, host: HostId, period: Period, most: i64) -> sqlx::Result<Vec<Period>> {
        let (mut open, mut parts) = (vec![period], Vec::new());
        while let Some(part) = open.pop() {
            let halves = halves(part);
            let is_crowded = halves.is_some() && self.has_more(host, part, most).await?;
            match halves.filter(|_| is_crowded) {
                Some([first, second]) => open.extend([second, first]),
                None => parts.push(part),
            }
        }
        Ok(parts)
    }

    async fn has_more(&self, host: HostId, part: Period, most: i64) -> sqlx::Result<bool> {
        let found: i64 = sqlx::query_scalar(COUNT)
            .bind(host.as_i64())
            .bind(part.from().as_millis())
            .bind(part.until().as_millis())
            .bind(most + 1)
            .fetch_one(&self.read)
            .await?;
        Ok(found > most)
    }
}

/// Returns the halves of a time. `None`: they would be too short.
fn halves(period: Period) -> Option<[Period; 2]> {
    let length = period.until().since(period.from());
    let middle = period.from() + length / 2;
    let halves = Period::new(period.from(), middle).zip(Period::new(middle, period.until()));
    halves.filter(|_| length >= 2 * SHORTEST).map(|(first, second)| [first, second])
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;
    use fleetgate_engine::time::Wall;

    use super::*;
    use crate::store::fixture;

    const HOST: HostId = Id::from_i64(7);

    fn minutes(from: i64, until: i64) -> Period {
        let at = |minute: i64| Wall::from_millis(minute * 60_000);
        Period::new(at(from), at(until)).unwrap()
    }

    /// Adds intervals of 10 s that follow each other, from one minute to another.
    async fn fill(store: &Store, host: i64, service: &'static str, (from, until): (i64, i64)) {
        let sql =
            "with recursive n (x) as (values ($3 * 6) union all select x + 1 from n where x + 1 < $4 * 6)
                   insert into intervals (host, service, series, value, began_at, ended_at)
                   select $1, $2, 'state', iif(x % 2, 'ok', 'critical'), x * 10000, (x + 1) * 10000 from n";
        let query = sqlx::query(sql).bind(host).bind(service).bind(from).bind(until);
        query.execute(&store.write).await.unwrap();
    }

    /// Returns how many intervals begin in each part.
    async fn counts(store: &Store, parts: &[Period]) -> Vec<i64> {
        let mut counts = Vec::new();
        for part in parts {
            let sql = "select count(*) from intervals where host = 7 and began_at >= $1 and began_at < $2";
            let query = sqlx::query_scalar(sql).bind(part.from().as_millis()).bind(part.until().as_millis());
            counts.push(query.fetch_one(&store.read).await.unwrap());
        }
        counts
    }

    #[tokio::test]
    async fn a_crowded_time_is_read_in_parts_and_a_quiet_one_at_once() {
        let (store, _dir) = fixture::store().await;
        fill(&store, 7, "", (0, 3)).await;
        fill(&store, 7, "ping", (64, 128)).await;
        fill(&store, 8, "ping", (0, 128)).await;
        let whole = minutes(0, 128);
        let parts = store.parts_of(HOST, whole, 100).await.unwrap();
        assert_eq!(parts.first().map(|part| part.from()), Some(whole.from()));
        assert_eq!(parts.last().map(|part| part.until()), Some(whole.until()));
        assert!(parts.windows(2).all(|two| two[0].until() == two[1].from()), "{parts:?}");
        let found = counts(&store, &parts).await;
        assert_eq!((found.iter().sum::<i64>(), found.len()), (18 + 64 * 6, 5), "{found:?}");
        assert!(found.iter().all(|count| *count <= 100), "{found:?}");
        assert_eq!(store.parts_of(HOST, whole, 402).await.unwrap(), [whole]);
        assert_eq!(store.parts(HOST, whole).await.unwrap(), [whole]);
    }

    #[tokio::test]
    async fn no_part_is_shorter_than_a_minute() {
        let (store, _dir) = fixture::store().await;
        fill(&store, 7, "ping", (0, 4)).await;
        let parts = store.parts_of(HOST, minutes(0, 4), 1).await.unwrap();
        assert_eq!(parts, [minutes(0, 1), minutes(1, 2), minutes(2, 3), minutes(3, 4)]);
    }

    #[tokio::test]
    async fn only_what_is_asked_for_makes_a_host_crowded() {
        let (store, _dir) = fixture::store().await;
        fill(&store, 7, "", (0, 1)).await;
        fill(&store, 7, "ping", (0, 5)).await;
        fill(&store, 8, "", (0, 1)).await;
        let hosts = [HOST, Id::from_i64(8)];
        let found = async |services, period| store.with_more(&hosts, services, period, 10).await.unwrap();
        assert_eq!(found(Services::All, minutes(0, 9)).await, [HOST]);
        assert_eq!(found(Services::One("ping"), minutes(0, 9)).await, [HOST]);
        assert!(found(Services::One("disk"), minutes(0, 9)).await.is_empty());
        assert!(found(Services::None, minutes(0, 9)).await.is_empty());
        assert!(found(Services::All, minutes(4, 5)).await.is_empty());
    }

    #[tokio::test]
    async fn the_index_finds_what_begins_within_a_time() {
        let (store, _dir) = fixture::store().await;
        let mut conn = store.reader().await.unwrap();
        let sql = sqlx::AssertSqlSafe(format!("explain query plan {COUNT}"));
        let query = sqlx::query_as(sql).bind(7).bind(0).bind(9).bind(5);
        let rows: Vec<(i64, i64, i64, String)> = query.fetch_all(&mut *conn).await.unwrap();
        let plan = rows.into_iter().map(|row| row.3).collect::<Vec<_>>().join("; ");
        let whole = "intervals_object (host=? AND service=? AND series=? AND began_at>? AND began_at<?)";
        assert!(plan.contains(whole) && !plan.contains("SCAN i"), "{plan}");
    }
}
