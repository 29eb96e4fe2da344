//! What follows from changed profiles and rules: the services of every host that they concern, in the
//! transaction of the change.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::monitor::profile::{Catalogue, MAX_SERVICES};
use fleetgate_engine::wire::HostSpec;
use sqlx::sqlite::SqliteConnection;
use sqlx::types::Json;

use super::snapshot::{ALL_HOSTS, HostRows, sensible};
use super::{Store, states};
use crate::config::TimingDefaults;

/// The profiles that hosts go by.
#[derive(Clone, Debug)]
pub struct Member {
    pub host: HostId,
    pub name: String,
    /// What it names itself; empty: by the rules.
    pub profile: String,
    pub labels: BTreeMap<String, String>,
}

impl Member {
    /// Its profiles, each over those before it.
    pub fn profiles<'a>(&'a self, catalogue: &'a Catalogue) -> Vec<&'a str> {
        catalogue.of_host(Some(self.profile.as_str()).filter(|p| !p.is_empty()), &self.labels)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum NotSettled {
    #[error("{0} would have more than {MAX_SERVICES} services")]
    TooMany(String),
    #[error(transparent)]
    Store(#[from] sqlx::Error),
    #[error(transparent)]
    Damaged(#[from] anyhow::Error),
}

/// Id, name, profile, labels.
type Row = (i64, String, String, Json<BTreeMap<String, String>>);

/// Every host, by name.
///
/// # Errors
/// When the database cannot be read.
pub async fn members(conn: &mut SqliteConnection) -> sqlx::Result<Vec<Member>> {
    let sql = "select id, name, profile, labels from hosts where removed_at is null order by name";
    let rows: Vec<Row> = sqlx::query_as(sql).fetch_all(conn).await?;
    let member = |(id, name, profile, labels): (_, _, _, Json<_>)| Member {
        host: Id::from_i64(id),
        name,
        profile,
        labels: labels.0,
    };
    Ok(rows.into_iter().map(member).collect())
}

/// Brings the rows of states in line with what these hosts have by the profiles as they are now.
///
/// # Errors
/// When a host would have too many services, or the database cannot be written.
pub async fn resettle(
    tx: &mut SqliteConnection,
    hosts: &BTreeSet<HostId>,
    timing: &TimingDefaults,
) -> Result<(), NotSettled> {
    let known = services(tx).await?;
    let now = crate::clock::wall();
    for spec in specs(tx, hosts, timing).await? {
        if spec.services.len() > MAX_SERVICES {
            return Err(NotSettled::TooMany(spec.name));
        }
        let wanted: BTreeSet<&str> = spec.services.iter().map(|s| s.name.as_str()).collect();
        let has = known.get(&spec.id);
        if has.is_none_or(|has| has.len() != wanted.len() || !has.iter().all(|s| wanted.contains(s.as_str())))
        {
            states::settle(tx, &spec, now).await?;
        }
    }
    Ok(())
}

/// The services that have rows.
async fn services(conn: &mut SqliteConnection) -> sqlx::Result<HashMap<HostId, Vec<String>>> {
    let rows: Vec<(i64, String)> =
        sqlx::query_as("select host, service from service_states").fetch_all(conn).await?;
    let mut found: HashMap<HostId, Vec<String>> = HashMap::new();
    for (host, service) in rows {
        found.entry(Id::from_i64(host)).or_default().push(service);
    }
    Ok(found)
}

async fn specs(
    conn: &mut SqliteConnection,
    hosts: &BTreeSet<HostId>,
    timing: &TimingDefaults,
) -> anyhow::Result<Vec<HostSpec>> {
    let mut rows = HostRows::load(conn, None, ALL_HOSTS).await?;
    let wanted = std::mem::take(&mut rows.hosts).into_iter().filter(|host| hosts.contains(&host.id));
    Ok(wanted.filter_map(|host| sensible("host", host.id, rows.assemble(host, timing))).collect())
}

impl Store {
    /// These hosts as the monitor wants them; one that is no more is left out.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn host_specs(
        &self,
        hosts: &BTreeSet<HostId>,
        timing: &TimingDefaults,
    ) -> anyhow::Result<Vec<HostSpec>> {
        let mut conn = self.read.acquire().await?;
        specs(&mut conn, hosts, timing).await
    }
}
