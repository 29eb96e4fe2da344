//! The rows of hosts, and how a host for the monitor is made of them: its profiles, overrides, inner address
//! and settings.
//!
//! It knows no states, nor what happens to an invalid row.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context as _;
use fleetgate_engine::id::{HostId, Id, PeerId};
use fleetgate_engine::messages::{
    Alerting, HostKey, HostSpec, KeyType, RoutePolicy, ServiceSpec, SshSpec, TIMEOUT_SHARE, Timing,
};
use fleetgate_engine::monitor::profile::{
    self, AlertingChange, Catalogue, CheckDefaults, Facts, ServiceOverride,
};
use serde_json::Value;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use super::group;
use super::peer_rows::{ADDRESSES, inner};
use crate::store::devices::route_named;
use crate::store::rentals::phases::{self, leftovers};
use crate::store::{TimingDefaults, alerting, definition, profiles, zones};

pub(super) struct HostBase {
    pub id: HostId,
    name: String,
    profile: String,
    route: String,
    via: Option<Id>,
    address: Option<String>,
    direct: Option<String>,
    ssh: SshSpec,
    timing: TimingRow,
    max_silence: Option<Duration>,
    freshness: Option<Duration>,
    budget: Option<u64>,
    /// JSON, as are the next three. It is read with the host, so that damage costs this host alone.
    labels: String,
    parents: String,
    alerting: String,
    thresholds: String,
    /// The host's own peer, or that of the device it stands behind.
    peer: Option<PeerId>,
}

/// The timing settings that a host has of its own.
struct TimingRow {
    interval: Option<Duration>,
    retry: Option<Duration>,
    attempts: Option<u32>,
    timeout: Option<Duration>,
}

impl TimingRow {
    fn over(&self, defaults: &TimingDefaults) -> Timing {
        let interval = self.interval.unwrap_or(defaults.interval);
        Timing {
            interval,
            retry: self.retry.unwrap_or(defaults.retry.min(interval)),
            attempts: self.attempts.unwrap_or(defaults.attempts),
            timeout: self.timeout.unwrap_or(defaults.timeout.min(interval.mul_f64(TIMEOUT_SHARE))),
        }
        .ending_in_time()
    }
}

macro_rules! host_base {
    ($peer:literal, $which:literal) => {
        concat!(
            "select h.id, h.name, h.profile, h.route, h.via, h.address, h.direct_address, h.ssh_port,
                    h.ssh_user, h.ssh_pin, h.interval_ms, h.retry_ms, h.attempts, h.timeout_ms,
                    h.max_silence_ms, p.id, h.labels, h.parents, h.alerting, h.freshness_ms,
                    coalesce(h.budget_bytes_per_day,
                             (select d.budget_bytes_per_day from hosts d where d.id = h.via)),
                    h.thresholds, h.ssh_pin_type, h.ssh_pin_line
             from hosts h left join peers p on p.id = coalesce(h.via, h.id)",
            $peer,
            " where ",
            $which
        )
    };
}

const ALL_HOSTS: &str = host_base!(" and p.removed_at is null", "h.removed_at is null");
const THESE_HOSTS: &str = host_base!(
    " and p.removed_at is null",
    "h.removed_at is null and h.id in (select value from json_each($1))"
);
const ONE_HOST: &str = host_base!(" and p.removed_at is null", "h.removed_at is null and h.id = $1");
/// The host as it was when it was removed.
const EVER_ONE_HOST: &str = host_base!("", "h.id = $1");

impl FromRow<'_, SqliteRow> for HostBase {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let id = |at: usize| -> sqlx::Result<Option<Id>> {
            Ok(row.try_get::<Option<i64>, _>(at)?.map(Id::from_i64))
        };
        let time = |at: usize| -> sqlx::Result<Option<Duration>> {
            Ok(row.try_get::<Option<i64>, _>(at)?.map(|ms| Duration::from_millis(ms.cast_unsigned())))
        };
        Ok(HostBase {
            id: Id::from_i64(row.try_get(0)?),
            name: row.try_get(1)?,
            profile: row.try_get(2)?,
            route: row.try_get(3)?,
            via: id(4)?,
            address: row.try_get(5)?,
            direct: row.try_get(6)?,
            ssh: SshSpec { port: row.try_get(7)?, user: row.try_get(8)?, pin: pin(row)? },
            timing: TimingRow {
                interval: time(10)?,
                retry: time(11)?,
                attempts: row.try_get(12)?,
                timeout: time(13)?,
            },
            max_silence: time(14)?,
            peer: id(15)?,
            labels: row.try_get(16)?,
            parents: row.try_get(17)?,
            alerting: row.try_get(18)?,
            freshness: time(19)?,
            budget: row.try_get::<Option<i64>, _>(20)?.map(i64::cast_unsigned),
            thresholds: row.try_get(21)?,
        })
    }
}

fn pin(row: &SqliteRow) -> sqlx::Result<Option<HostKey>> {
    let key_type: Option<&str> = row.try_get("ssh_pin_type")?;
    let fingerprint: Option<String> = row.try_get("ssh_pin")?;
    let (key_type, line) = (key_type.and_then(KeyType::from_name), row.try_get("ssh_pin_line")?);
    Ok(fingerprint.map(|fingerprint| HostKey { fingerprint, key_type, line }))
}

/// Selects hosts to load.
#[derive(Clone, Copy)]
pub(super) enum Which<'a> {
    All,
    One(HostId),
    /// The host as it was when it was removed.
    OneEver(HostId),
    These(&'a [HostId]),
}

impl Which<'_> {
    /// Returns all rows, or those of some hosts by the index. The statements are for all, one and
    /// several.
    async fn fetch<T>(
        self,
        conn: &mut SqliteConnection,
        [all, one, these]: [&'static str; 3],
    ) -> sqlx::Result<Vec<T>>
    where
        T: for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
    {
        match self {
            Which::All => sqlx::query_as(all).fetch_all(conn).await,
            Which::One(id) | Which::OneEver(id) => {
                sqlx::query_as(one).bind(id.as_i64()).fetch_all(conn).await
            }
            Which::These(ids) => {
                let ids: Vec<i64> = ids.iter().map(|id| id.as_i64()).collect();
                sqlx::query_as(these).bind(Json(ids)).fetch_all(conn).await
            }
        }
    }
}

const OVERRIDES: [&str; 3] = [
    "select host, service, disabled, definition from service_overrides order by host, service",
    "select host, service, disabled, definition from service_overrides where host = $1 order by service",
    "select host, service, disabled, definition from service_overrides
     where host in (select value from json_each($1)) order by host, service",
];

/// The devices that a rental concerns now, by an index, and those on which one has left something.
macro_rules! rented {
    ($which:literal) => {
        concat!(
            "select device from rentals indexed by rentals_of_now
             where announced_state not in ('closed', 'cancelled', 'failed')",
            $which,
            " union select device from (",
            leftovers!(),
            ") where true",
            $which
        )
    };
}

const RENTED: [&str; 3] =
    [rented!(""), rented!(" and device = $1"), rented!(" and device in (select value from json_each($1))")];

/// The thresholds of the rentals that are active. Of two rentals of a device the later one counts.
macro_rules! limited {
    ($which:literal) => {
        concat!(
            "select device, thresholds from rentals indexed by rentals_of_now
             where announced_state not in ('closed', 'cancelled', 'failed') and announced_state = 'active'
               and thresholds is not null",
            $which,
            " order by id"
        )
    };
}

const LIMITS: [&str; 3] = [
    limited!(""),
    limited!(" and device = $1"),
    limited!(" and device in (select value from json_each($1))"),
];

pub(super) struct HostRows {
    pub hosts: Vec<HostBase>,
    catalogue: Catalogue,
    addresses: HashMap<i64, Vec<String>>,
    overrides: HashMap<i64, Vec<(String, bool, String)>>,
    rented: HashSet<i64>,
    limits: HashMap<i64, String>,
}

impl HostRows {
    pub async fn load(conn: &mut SqliteConnection, which: Which<'_>) -> anyhow::Result<Self> {
        let one = if matches!(which, Which::OneEver(_)) { EVER_ONE_HOST } else { ONE_HOST };
        let hosts = which.fetch(conn, [ALL_HOSTS, one, THESE_HOSTS]).await?;
        let catalogue = profiles::catalogue(conn).await?;
        let overrides: Vec<(i64, String, bool, String)> = which.fetch(conn, OVERRIDES).await?;
        let row = |(host, service, disabled, json)| (host, (service, disabled, json));
        let rented: Vec<(i64,)> = which.fetch(conn, RENTED).await?;
        let now = crate::clock::wall();
        let former = phases::over(conn, now).await?.into_keys();
        let former = former.chain(phases::swapped(conn, now).await?.into_keys());
        let limits: Vec<(i64, String)> = which.fetch(conn, LIMITS).await?;
        Ok(HostRows {
            hosts,
            catalogue,
            addresses: group(which.fetch(conn, ADDRESSES).await?),
            overrides: group(overrides.into_iter().map(row).collect()),
            rented: rented.into_iter().map(|(device,)| device).chain(former.map(Id::as_i64)).collect(),
            limits: limits.into_iter().collect(),
        })
    }

    pub fn assemble(&self, host: HostBase, defaults: &TimingDefaults) -> anyhow::Result<HostSpec> {
        let id = host.id.as_i64();
        let labels: BTreeMap<String, String> = serde_json::from_str(&host.labels).context("labels")?;
        let own_parents: Vec<i64> = serde_json::from_str(&host.parents).context("parents")?;
        let thresholds: Value = serde_json::from_str(&host.thresholds).context("thresholds")?;
        let timing = host.timing.over(defaults);
        let route = route_named(&host.route).context("route: tunnel, direct or auto")?;
        let facts = Facts {
            tunnel: host.peer.is_some() && route != RoutePolicy::Direct,
            behind: host.via.is_some(),
            login: host.ssh.user.is_some(),
            direct: host.direct.is_some(),
        };
        let own = Some(host.profile.as_str()).filter(|p| !p.is_empty());
        let profiles = self.catalogue.of_host(own, &labels);
        let pace = CheckDefaults { timing, ping: defaults.ping_interval };
        let mut services = self.catalogue.fold(&profiles, facts, pace, &self.changes(id)?)?;
        zones::settle(&mut services, &labels);
        if let Some(Err(error)) = self.limits.get(&id).map(|limits| limit(&mut services, limits)) {
            tracing::error!("host {} goes on without the thresholds of its rental: {error:#}", host.id);
        }
        if self.rented.contains(&id) {
            profile::add_rental(&mut services, timing);
        }
        let mut inside = match &host.via {
            Some(_) => host.address.iter().map(|a| a.parse().context("address")).collect::<Result<_, _>>()?,
            None => inner(self.addresses.get(&id))?,
        }
        .into_iter();
        let address: Option<IpAddr> = inside.next();
        let other_address = address.and_then(|a| inside.find(|other| other.is_ipv4() != a.is_ipv4()));
        let parents = host.via.into_iter().chain(own_parents.into_iter().map(Id::from_i64));
        Ok(HostSpec {
            id: host.id,
            name: host.name,
            labels,
            parents: parents.collect(),
            alerting: stored_alerting(&host.alerting)?.over(Alerting::default()),
            peer: host.peer,
            own_tunnel: host.peer == Some(host.id),
            address,
            other_address,
            direct: host.direct,
            ssh: host.ssh,
            route,
            max_silence: host.max_silence,
            freshness: host.freshness,
            budget: host.budget,
            thresholds: definition::thresholds(&thresholds)?,
            timing,
            services,
        })
    }

    fn changes(&self, host: i64) -> anyhow::Result<Vec<ServiceOverride>> {
        let rows = self.overrides.get(&host).map_or(&[][..], Vec::as_slice);
        rows.iter().map(|(service, disabled, json)| stored_override(service, *disabled, json)).collect()
    }
}

/// Puts the thresholds of a rental in place of those of the services.
fn limit(services: &mut [ServiceSpec], limits: &str) -> anyhow::Result<()> {
    let limits: BTreeMap<String, Value> = serde_json::from_str(limits)?;
    for (service, own) in &limits {
        profile::limit_for_rental(services, service, &definition::thresholds(own)?);
    }
    Ok(())
}

/// Reads one row of `service_overrides`.
///
/// # Errors
/// Fails when the gateway has not written the row.
pub fn stored_override(service: &str, disabled: bool, json: &str) -> anyhow::Result<ServiceOverride> {
    let value = serde_json::from_str(json).with_context(|| format!("override of {service}"))?;
    definition::parse(service, disabled, &value).with_context(|| format!("override of {service}"))
}

/// Reads the column `hosts.alerting`.
///
/// # Errors
/// Fails when the gateway has not written the column.
pub fn stored_alerting(json: &str) -> anyhow::Result<AlertingChange> {
    alerting::parse(&serde_json::from_str(json).context("alerting")?).context("alerting")
}
