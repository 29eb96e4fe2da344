//! The newest values of metrics on many hosts, and their limits, from the states.
//!
//! This module reads neither the history nor the settings of checks. Metrics of a damaged row are left out.

use fleetgate_engine::id::{HostId, Id};
use sqlx::types::Json;

use super::Store;

/// The limits of one metric, as ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricLimits {
    pub warn: Option<String>,
    pub crit: Option<String>,
}

/// A metric of a service by which hosts are ranked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranked {
    pub label: &'static str,
    /// Another metric that the same service has. It tells the sensor from others with this label.
    pub beside: &'static str,
}

/// The newest value of a metric of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Current {
    pub host: HostId,
    pub host_name: String,
    pub service: String,
    pub value: f64,
    pub uom: String,
    pub output: String,
}

macro_rules! limits {
    ($states:literal) => {
        concat!(
            "select h.value, m.value ->> '$.warn', m.value ->> '$.crit'
             from json_each($1) h
             join ",
            $states,
            " join json_each(iif(json_valid(s.metrics), s.metrics, '[]')) m
             where m.value ->> '$.label' = $2
             order by h.key"
        )
    };
}

const LIMITS_OF_HOSTS: &str = limits!("host_states s on s.host = h.value");
const LIMITS_OF_SERVICE: &str = limits!("service_states s on s.host = h.value and s.service = $3");

/// Reads the table of states once. `$1`: the label, `$2`: the text of the metric beside it, as it is stored.
const HIGHEST: &str = "select h.id, h.name, s.service, cast(m.value ->> '$.value' as real) as reading,
            coalesce(m.value ->> '$.uom', ''), s.output
     from service_states s
     join hosts h on h.id = s.host
     join json_each(iif(json_valid(s.metrics), s.metrics, '[]')) m
     where h.removed_at is null and s.stale = 0 and instr(s.metrics, $2) > 0
           and m.value ->> '$.label' = $1 and m.value ->> '$.value' is not null
     order by reading desc, h.name, s.service limit $3";

/// A host with its name, the name of a service, a value, its unit and an output.
type HighestRow = (i64, String, String, f64, String, String);

impl Store {
    /// Returns the limits of a metric on those of these hosts whose last result has it, in the order of the hosts. An
    /// empty service is the host check.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn metric_limits(
        &self,
        hosts: &[HostId],
        service: &str,
        label: &str,
    ) -> sqlx::Result<Vec<(HostId, MetricLimits)>> {
        let ids: Vec<i64> = hosts.iter().map(|host| host.as_i64()).collect();
        let sql = if service.is_empty() { LIMITS_OF_HOSTS } else { LIMITS_OF_SERVICE };
        let mut query = sqlx::query_as(sql).bind(Json(ids)).bind(label);
        if !service.is_empty() {
            query = query.bind(service);
        }
        let rows: Vec<(i64, Option<String>, Option<String>)> = query.fetch_all(&self.read).await?;
        let of_host = |(host, warn, crit)| (Id::from_i64(host), MetricLimits { warn, crit });
        Ok(rows.into_iter().map(of_host).collect())
    }

    /// Returns the highest values of a metric among the services that are current, the highest first.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn highest(&self, ranked: Ranked, limit: i64) -> sqlx::Result<Vec<Current>> {
        let beside = format!("\"label\":\"{}\"", ranked.beside);
        let query = sqlx::query_as(HIGHEST).bind(ranked.label).bind(beside).bind(limit);
        let rows: Vec<HighestRow> = query.fetch_all(&self.read).await?;
        let current = |(id, host_name, service, value, uom, output): HighestRow| Current {
            host: Id::from_i64(id),
            host_name,
            service,
            value,
            uom,
            output,
        };
        Ok(rows.into_iter().map(current).collect())
    }

    /// Returns the value of one label on each of these hosts, removed ones included.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn label_values(
        &self,
        hosts: &[HostId],
        key: &str,
    ) -> sqlx::Result<Vec<(HostId, Option<String>)>> {
        let sql = "select h.id, (select cast(l.value as text)
                                 from json_each(iif(json_valid(h.labels), h.labels, '{}')) l where l.key = $2)
                   from hosts h where h.id in (select value from json_each($1))";
        let ids: Vec<i64> = hosts.iter().map(|host| host.as_i64()).collect();
        let rows: Vec<(i64, Option<String>)> =
            sqlx::query_as(sql).bind(Json(ids)).bind(key).fetch_all(&self.read).await?;
        Ok(rows.into_iter().map(|(id, value)| (Id::from_i64(id), value)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixture;

    /// A fleet whose services have these metrics, as JSON.
    async fn fleet(states: &[(u8, &str, &str)]) -> (Store, tempfile::TempDir) {
        let (store, dir) = fixture::store().await;
        for (host, name) in [(1, "cam-1"), (2, "cam-2"), (3, "cam-3")] {
            fixture::device(&store, host, name).await;
        }
        for (host, service, metrics) in states {
            let sql = "insert into service_states
                           (host, service, kind, attempt, stale, since, route, output, long_output, metrics, warnings)
                       values (cast($1 as integer), $2, 'hard', 1, 0, 0, 'tunnel', 'text', '', $3, '[]')";
            fixture::run(&store, sql, &[&host.to_string(), service, metrics]).await;
        }
        (store, dir)
    }

    const DISK: Ranked = Ranked { label: "used", beside: "fullness" };

    #[tokio::test]
    async fn the_fullest_disks_come_first_and_memory_is_no_disk() {
        let disk = |used: &str| {
            format!(r#"[{{"label":"used","value":{used},"uom":"%"}},{{"label":"fullness","value":1}}]"#)
        };
        let (first, second, none) = (disk("40.0"), disk("97.5"), disk("null"));
        let memory = r#"[{"label":"used","value":99.0,"uom":"%"}]"#;
        let (store, _dir) = fleet(&[
            (1, "disk", first.as_str()),
            (2, "disk", second.as_str()),
            (2, "memory", memory),
            (3, "disk", none.as_str()),
        ])
        .await;
        let found = store.highest(DISK, 9).await.unwrap();
        let shown: Vec<(&str, f64, &str)> =
            found.iter().map(|c| (c.host_name.as_str(), c.value, c.uom.as_str())).collect();
        assert_eq!(shown, [("cam-2", 97.5, "%"), ("cam-1", 40.0, "%")]);
        assert_eq!(store.highest(DISK, 1).await.unwrap().len(), 1);
        fixture::run(&store, "update service_states set stale = 1 where host = 1", &[]).await;
        fixture::run(&store, "update service_states set metrics = metrics || '{' where host = 2", &[]).await;
        assert_eq!(store.highest(DISK, 9).await.unwrap(), [], "neither old nor damaged rows");
    }

    #[tokio::test]
    async fn limits_come_in_the_order_of_the_hosts() {
        let limited = r#"[{"label":"rta","value":1.0,"warn":"100"},{"label":"pl","value":0.0,"crit":"5"}]"#;
        let free = r#"[{"label":"rta","value":1.0}]"#;
        let (store, _dir) = fleet(&[(1, "ping", limited), (2, "ping", free), (3, "other", limited)]).await;
        let of = |host: i64, warn: Option<&str>| {
            (Id::from_i64(host), MetricLimits { warn: warn.map(str::to_owned), crit: None })
        };
        let hosts = [3, 2, 1].map(Id::from_i64);
        let found = store.metric_limits(&hosts, "ping", "rta").await.unwrap();
        assert_eq!(found, [of(2, None), of(1, Some("100"))]);
        assert_eq!(store.metric_limits(&hosts, "ping", "nope").await.unwrap(), []);
        assert_eq!(store.metric_limits(&hosts, "", "rtt").await.unwrap(), []);
    }

    #[tokio::test]
    async fn hosts_are_told_apart_by_one_label() {
        let (store, _dir) = fleet(&[]).await;
        let labels = r#"update hosts set labels = '{"kind":"camera","site":"north"}' where id = 1"#;
        fixture::run(&store, labels, &[]).await;
        fixture::run(&store, "update hosts set labels = '{}' where id = 2", &[]).await;
        let mut found = store.label_values(&[1, 2].map(Id::from_i64), "site").await.unwrap();
        found.sort();
        assert_eq!(found, [(Id::from_i64(1), Some("north".to_owned())), (Id::from_i64(2), None)]);
    }
}
