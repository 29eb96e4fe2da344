//! The settings: `fleetgate.toml`, overridden by `FLEETGATE_*` variables. Every key is optional.
//!
//! The result is checked: addresses are parsed, paths resolved, prefixes plausible. `file.rs` reads what is
//! written, and `values.rs` knows which values are accepted.

mod file;
mod mail;
pub(crate) mod mail_hello;
pub mod pem;
mod pool;
pub mod public_url;
mod refusal;
#[cfg(test)]
mod tests;
mod values;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use fleetgate_engine::dns::Suffix;
use fleetgate_keys::Endpoint;
use ipnet::{Ipv4Net, Ipv6Net};

use crate::config::public_url::PublicUrl;
use crate::history::Keep;
use crate::outbound::Outbound;
use crate::outbound::secret_url::SecretUrl;
use crate::store::TimingDefaults;
use crate::store::addresses::Pools;
use crate::store::retention::Retention;

pub use file::{FILE, MailSecurity, Password};
pub use mail::MailConfig;
pub use values::time_of_day;

use file::{File, Variables, own_variables, read};
use mail::mail;
use values::{
    alias_slots, disk, dns, endpoint, group_wait, heartbeat, history, log_filter, log_json, mtu, outbound,
    retention, seconds, socket_addr, timing, tls_files, traffic_days, trusted_proxies, uplink,
};

/// Which pools the settings name.
#[derive(Clone, Copy, Debug)]
pub struct NamedPools {
    pub v4: bool,
    pub v6: bool,
}

/// The settings in force.
#[derive(Clone, Debug)]
pub struct Config {
    pub data: PathBuf,
    /// The UDP address of the tunnels.
    pub listen: SocketAddr,
    /// The endpoint in the configuration of devices, as `host:port`. Never guessed: set here, or confirmed
    /// once.
    pub endpoint: Option<Endpoint>,
    pub api_listen: SocketAddr,
    pub public_url: Option<PublicUrl>,
    pub tls: Option<TlsFiles>,
    pub pool_v4: Ipv4Net,
    pub pool_v6: Ipv6Net,
    /// Which pools the settings name. An installation keeps its own of the others.
    pub named_pools: NamedPools,
    /// The port to which devices send their results, on the gateway's inner addresses.
    pub results_port: Option<NonZeroU16>,
    /// The inner MTU of peers without one of their own.
    pub mtu: u16,
    /// Names of hosts for people, over DNS on the gateway's inner addresses.
    pub dns: Option<DnsSettings>,
    /// The addresses that a new customer gets for rentals, a power of two.
    pub alias_slots: u32,
    /// The keepalive in the configuration of devices, in seconds.
    pub keepalive: u16,
    pub timing: TimingDefaults,
    pub mail: Option<MailConfig>,
    /// How long a message waits for others, for contacts without a group wait of their own.
    pub group_wait: Duration,
    /// Time of the daily digest of open problems, for the contact that `mail.to` makes.
    pub digest: Option<jiff::civil::Time>,
    /// Target of the gateway's own heartbeat.
    pub heartbeat: Option<HeartbeatTarget>,
    /// Probes of the gateway's own uplink.
    pub uplink: UplinkSettings,
    /// The rule for addresses of webhooks, the heartbeat, and hosts checked without a tunnel.
    pub outbound: Outbound,
    /// Additions to the default log filter.
    pub log_filter: Option<String>,
    pub ssh_idle: Duration,
    pub ssh_connections: usize,
    /// How long samples and their buckets are kept.
    pub history: Keep,
    /// Days of the traffic of each device that are kept.
    pub traffic_days: i64,
    pub disk: DiskSettings,
    /// Retention of other data that expires.
    pub retention: Retention,
    pub log_json: bool,
    /// Proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Vec<IpAddr>,
    /// The devices and their past are simulated, and the page says so. Set by the demo alone.
    pub simulated: bool,
}

/// How names are answered inside the tunnels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsSettings {
    pub suffix: Suffix,
    /// Servers that answer other names, for operators; none: these names are refused.
    pub resolvers: Vec<SocketAddr>,
}

impl DnsSettings {
    /// The part that the engine needs.
    pub fn engine(&self) -> fleetgate_engine::dns::Config {
        let forwards = !self.resolvers.is_empty();
        fleetgate_engine::dns::Config { suffix: self.suffix.clone(), forwards }
    }
}

/// Free space of the disk with the databases, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSettings {
    /// Below this, no history is written. At least the reserve.
    pub history: u64,
    /// Below this, results and changes are refused.
    pub reserve: u64,
}

#[derive(Clone, Debug)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Default group wait: hosts that fail together are notified together, and the delay is too short to
/// matter.
pub const GROUP_WAIT: Duration = Duration::from_secs(10);
/// Longest group wait. A group leaves after 90 s at the latest, so a longer wait for quiet would have
/// no effect.
pub const LONGEST_GROUP_WAIT: Duration = Duration::from_secs(60);
/// The shortest interval that the settings may give: more frequent pings would flood the receiver.
pub const SHORTEST_HEARTBEAT: Duration = Duration::from_secs(5);

/// The address and the interval of the ping.
#[derive(Clone, Debug)]
pub struct HeartbeatTarget {
    pub url: SecretUrl,
    pub interval: Duration,
}

/// Longest interval of the uplink probes: two readings must be complete before any device has failed three times.
pub const LONGEST_UPLINK_INTERVAL: Duration = Duration::from_secs(10);
/// Number of anchors. With one alone, a failure of the anchor and one of the uplink would look the same.
pub const ANCHORS: RangeInclusive<usize> = 2..=4;

/// The probes of the gateway's own uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkSettings {
    /// `host:port`, probed by TCP.
    pub anchors: Vec<String>,
    pub interval: Duration,
}

/// Defaults.
const DEFAULT_LISTEN: &str = "[::]:51820";
const DEFAULT_API: &str = "127.0.0.1:8080";
/// Room for 262,000 devices, and for growth up to 10.112.0.0/12. Outside of what devices use themselves: 172.16/12
/// and 192.168/16 (Docker, home routers), 100.64/10 (LTE carriers), and in 10/8 the defaults of Kubernetes (10.42,
/// 10.43, 10.96/12, 10.244), Podman (10.88), OpenVPN (10.8) and of clouds (10.128/9).
const DEFAULT_POOL_V4: &str = "10.112.0.0/14";
const DEFAULT_POOL_V6: &str = "fd72:6c65:6574::/64";
/// The default port of HTTP, so that a script on a device names no port. The socket is in our own
/// process, so it needs no privilege.
const DEFAULT_RESULTS_PORT: u16 = 80;

impl Config {
    /// Reads the environment, and `file` or else `fleetgate.toml` in the data directory, if it exists.
    ///
    /// # Errors
    /// Names the key and the expected value.
    pub fn load(data: &Path, file: Option<&Path>) -> anyhow::Result<Config> {
        Config::load_with(data, file, own_variables(std::env::vars()))
    }

    fn load_with(data: &Path, file: Option<&Path>, variables: Variables) -> anyhow::Result<Config> {
        Config::check(data, read(data, file, variables)?)
    }

    fn check(data: &Path, raw: File) -> anyhow::Result<Config> {
        let api_listen = socket_addr("api_listen", raw.api_listen.as_deref().unwrap_or(DEFAULT_API))?;
        let tls = tls_files(raw.tls_cert, raw.tls_key)?;
        if tls.is_none() && !api_listen.ip().is_loopback() && !raw.api_cleartext {
            bail!(
                "api_listen is {api_listen}: without tls_cert and tls_key the API answers on loopback only. \
                 Set both, or put a TLS proxy in front (and name it in trusted_proxies), or say api_cleartext = true (FLEETGATE_API_CLEARTEXT) \
                 if the network between is yours"
            );
        }
        let public_url = raw.public_url.map(|url| url.parse()).transpose()?;
        let endpoint = raw.endpoint.map(|e| endpoint(&e)).transpose()?;
        let outbound = outbound(&raw.outbound)?;
        let history = history(&raw.history)?;
        Ok(Config {
            data: data.to_owned(),
            listen: socket_addr("listen", raw.listen.as_deref().unwrap_or(DEFAULT_LISTEN))?,
            endpoint,
            api_listen,
            public_url,
            tls,
            pool_v4: pool::v4(raw.pool_v4.as_deref().unwrap_or(DEFAULT_POOL_V4))?,
            pool_v6: pool::v6(raw.pool_v6.as_deref().unwrap_or(DEFAULT_POOL_V6))?,
            named_pools: NamedPools { v4: raw.pool_v4.is_some(), v6: raw.pool_v6.is_some() },
            results_port: NonZeroU16::new(raw.tunnel.results_port.unwrap_or(DEFAULT_RESULTS_PORT)),
            mtu: mtu(raw.tunnel.mtu)?,
            dns: dns(&raw.dns)?,
            alias_slots: alias_slots(raw.rentals.alias_slots)?,
            keepalive: raw.keepalive.unwrap_or(25),
            timing: timing(&raw.checks)?,
            mail: raw.mail.map(mail).transpose()?,
            group_wait: group_wait(raw.notifications.group_wait)?,
            heartbeat: raw.heartbeat.map(|file| heartbeat(&file, &outbound)).transpose()?,
            uplink: uplink(&raw.uplink)?,
            outbound,
            log_filter: raw.log_filter.map(log_filter).transpose()?,
            digest: raw.notifications.digest.map(|t| time_of_day("notifications.digest", &t)).transpose()?,
            ssh_idle: seconds("ssh.idle", raw.ssh.idle, 300.0)?,
            ssh_connections: raw.ssh.connections.unwrap_or(256),
            history,
            traffic_days: traffic_days(raw.history.traffic)?,
            disk: disk(&raw.disk)?,
            retention: retention(&raw.retention, history.hours)?,
            log_json: log_json(raw.log.as_deref())?,
            trusted_proxies: trusted_proxies(raw.trusted_proxies)?,
            simulated: false,
        })
    }

    /// Returns the settings that differ in `other` and are read only at the start.
    pub fn fixed_differences(&self, other: &Config) -> Vec<&'static str> {
        let facts = |c: &Config| -> [(&'static str, String); 23] {
            let shown = |fact: &dyn std::fmt::Debug| format!("{fact:?}");
            [
                ("listen", shown(&c.listen)),
                ("endpoint", shown(&c.endpoint)),
                ("api_listen", shown(&c.api_listen)),
                ("tls_cert, tls_key", shown(&c.tls)),
                ("public_url (mails have it already)", shown(&c.public_url)),
                ("pool_v4", shown(&c.pool_v4)),
                ("pool_v6", shown(&c.pool_v6)),
                ("tunnel.results_port", shown(&c.results_port)),
                ("tunnel.mtu", shown(&c.mtu)),
                ("dns", shown(&c.dns)),
                ("rentals.alias_slots", shown(&c.alias_slots)),
                ("keepalive", shown(&c.keepalive)),
                ("checks", shown(&c.timing)),
                ("ssh.idle", shown(&c.ssh_idle)),
                ("ssh.connections", shown(&c.ssh_connections)),
                ("history", shown(&(c.history, c.traffic_days))),
                ("disk", shown(&c.disk)),
                ("retention", shown(&c.retention)),
                ("log", shown(&c.log_json)),
                ("uplink", shown(&c.uplink)),
                ("outbound", shown(&c.outbound)),
                ("trusted_proxies", shown(&c.trusted_proxies)),
                ("data", shown(&c.data)),
            ]
        };
        let mut other = other.clone();
        other.keep_pools(self.pools());
        let (ours, theirs) = (facts(self), facts(&other));
        let differs = ours.into_iter().zip(theirs).filter(|(a, b)| a != b);
        differs.map(|((name, _), _)| name).collect()
    }

    /// The pools of an installation go before the defaults, which may change from version to version.
    pub fn keep_pools(&mut self, stored: Pools) {
        if !self.named_pools.v4 {
            self.pool_v4 = stored.v4;
        }
        if !self.named_pools.v6 {
            self.pool_v6 = stored.v6;
        }
    }

    /// The source of inner addresses, and what devices may reach.
    pub fn pools(&self) -> Pools {
        Pools { v4: self.pool_v4, v6: self.pool_v6 }
    }
}
