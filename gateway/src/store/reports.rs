//! The hosts and services of a report.

use fleetgate_engine::id::{HostId, Id};
use sqlx::types::Json;

use super::Store;
use super::intervals::Services;

/// Selects hosts that have all of these properties.
#[derive(Clone, Copy, Debug, Default)]
pub struct Selection<'a> {
    /// One host, also a removed one.
    pub host: Option<HostId>,
    pub labels: &'a [(String, String)],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    pub id: HostId,
    pub name: String,
    /// The value of the label `site`.
    pub site: Option<String>,
}

/// The column holds compact JSON, so that one label is a substring of it. One host is found by its key.
macro_rules! selected_hosts {
    ($which:literal) => {
        concat!(
            "select h.id, h.name, iif(json_valid(h.labels), cast(h.labels ->> '$.site' as text), null)
             from hosts h where ",
            $which,
            " and not exists (select 1 from json_each($2) l where instr(h.labels, l.value) = 0)
             order by h.name, h.id limit $3"
        )
    };
}

impl Store {
    /// Returns the selected hosts, in name order.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn selected_hosts(&self, selection: Selection<'_>, limit: i64) -> sqlx::Result<Vec<Selected>> {
        let sql = match selection.host {
            Some(_) => selected_hosts!("h.id = $1"),
            None => selected_hosts!("$1 is null and h.removed_at is null"),
        };
        let piece = |text: &str| serde_json::Value::from(text).to_string();
        let labels: Vec<String> =
            selection.labels.iter().map(|(key, value)| format!("{}:{}", piece(key), piece(value))).collect();
        let query = sqlx::query_as(sql).bind(selection.host.map(Id::as_i64)).bind(Json(labels)).bind(limit);
        let rows: Vec<(i64, String, Option<String>)> = query.fetch_all(&self.read).await?;
        let host = |(id, name, site)| Selected { id: Id::from_i64(id), name, site };
        Ok(rows.into_iter().map(host).collect())
    }

    /// Returns the services that these hosts have now, of the selected ones.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn selected_services(
        &self,
        hosts: &[HostId],
        services: Services<'_>,
        limit: i64,
    ) -> sqlx::Result<Vec<(HostId, String)>> {
        let sql = "select host, service from service_states
                   where host in (select value from json_each($1)) and ($2 is null or service = $2) limit $3";
        let one = match services {
            Services::None => return Ok(Vec::new()),
            Services::One(service) => Some(service),
            Services::All => None,
        };
        let ids: Vec<i64> = hosts.iter().map(|host| host.as_i64()).collect();
        let query = sqlx::query_as(sql).bind(Json(ids)).bind(one).bind(limit);
        let rows: Vec<(i64, String)> = query.fetch_all(&self.read).await?;
        Ok(rows.into_iter().map(|(host, service)| (Id::from_i64(host), service)).collect())
    }
}
