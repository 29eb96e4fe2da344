//! The effect of changed profiles and rules: the hosts concerned, and whether all of them can have
//! their services.
//!
//! The rows follow in slices after the change (`engine/handle/mod.rs`).

use std::collections::BTreeMap;

use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::monitor::profile::{self, Catalogue, MAX_SERVICES};
use sqlx::sqlite::SqliteConnection;
use sqlx::types::Json;

use super::snapshot;
use crate::store::TimingDefaults;

/// A host and the settings that select its profiles.
#[derive(Clone, Debug)]
pub struct Member {
    pub host: HostId,
    pub name: String,
    /// The host's own profile. Empty: the rules decide.
    pub profile: String,
    pub labels: BTreeMap<String, String>,
}

impl Member {
    /// Returns its profiles. Each overrides those before it.
    pub fn profiles<'a>(&'a self, catalogue: &'a Catalogue) -> Vec<&'a str> {
        catalogue.of_host(Some(self.profile.as_str()).filter(|p| !p.is_empty()), &self.labels)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    #[error("{0} would have more than {MAX_SERVICES} services")]
    TooMany(String),
    #[error(transparent)]
    Store(#[from] sqlx::Error),
    #[error(transparent)]
    Damaged(#[from] anyhow::Error),
}

/// Id, name, profile, labels.
type Row = (i64, String, String, Json<BTreeMap<String, String>>);

/// Returns all hosts in name order.
///
/// # Errors
/// Fails when the database cannot be read.
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

/// Checks that none of these hosts has more services than the monitor supports. Hosts with the same
/// profiles are counted once. Only doubtful hosts are checked individually.
///
/// # Errors
/// Fails when a host would have too many services, or the database cannot be read.
pub async fn must_fit(
    conn: &mut SqliteConnection,
    members: &[&Member],
    catalogue: &Catalogue,
    timing: &TimingDefaults,
) -> Result<(), Unfit> {
    let sql = "select host, count(*) from service_overrides group by host";
    let own: Vec<(i64, i64)> = sqlx::query_as(sql).fetch_all(&mut *conn).await?;
    let own: BTreeMap<i64, i64> = own.into_iter().collect();
    let mut offered: BTreeMap<Vec<&str>, usize> = BTreeMap::new();
    let mut doubtful = Vec::new();
    for member in members {
        let profiles = member.profiles(catalogue);
        let offered =
            offered.entry(profiles).or_insert_with_key(|profiles| catalogue.services(profiles).len());
        let own = own.get(&member.host.as_i64()).copied().unwrap_or_default();
        if *offered + usize::try_from(own).unwrap_or(MAX_SERVICES) > MAX_SERVICES {
            doubtful.push(member.host);
        }
    }
    let specs = snapshot::host_specs(conn, &doubtful, timing).await?;
    match specs.into_iter().find(|spec| profile::count(&spec.services) > MAX_SERVICES) {
        Some(spec) => Err(Unfit::TooMany(spec.name)),
        None => Ok(()),
    }
}
