//! The settings: `fleetgate.toml`, overridden by `FLEETGATE_*` variables. Every key is optional.
//!
//! serde stays in here. The result is checked: addresses are parsed, paths resolved, prefixes
//! plausible.

pub(crate) mod mail_hello;
mod pool;
pub mod public_url;
mod refusal;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use fleetgate_engine::dns::Suffix;
use fleetgate_engine::messages::{DEFAULT_MTU, MTU_RANGE};
use fleetgate_keys::Endpoint;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use lettre::message::{Mailbox, Mailboxes};
use serde::Deserialize;

use crate::bounded_file;
use crate::config::public_url::PublicUrl;
use crate::data_dir::secret_file;
use crate::health::telemetry;
use crate::maintenance::retention::Retention;
use crate::monitor::uplink_probe;
use crate::outbound::Outbound;
use crate::outbound::address;
use crate::outbound::secret_url::SecretUrl;
use crate::store::TimingDefaults;
use crate::store::addresses::Pools;

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
    /// Where devices send their results to, on the gateway's inner addresses.
    pub results_port: Option<NonZeroU16>,
    /// The inner MTU of peers without one of their own.
    pub mtu: u16,
    /// Names of hosts for people, over DNS on the gateway's inner addresses.
    pub dns: Option<DnsSettings>,
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
    pub uplink: uplink_probe::Uplink,
    /// The rule for addresses of webhooks, the heartbeat, and hosts checked without a tunnel.
    pub outbound: Outbound,
    /// Additions to the default log filter.
    pub log_filter: Option<String>,
    pub ssh_idle: Duration,
    pub ssh_connections: usize,
    /// Retention of samples.
    pub history_keep: Duration,
    /// Retention of other data that expires.
    pub retention: Retention,
    pub log_json: bool,
    /// Proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Vec<IpAddr>,
}

/// How names are answered inside the tunnels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsSettings {
    pub suffix: Suffix,
    /// Servers that answer other names, for people; none: these names are refused.
    pub resolvers: Vec<SocketAddr>,
}

impl DnsSettings {
    /// The part that the engine needs.
    pub fn engine(&self) -> fleetgate_engine::dns::Config {
        let forwards = !self.resolvers.is_empty();
        fleetgate_engine::dns::Config { suffix: self.suffix.clone(), forwards }
    }
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

#[derive(Clone, Debug)]
pub struct MailConfig {
    pub host: String,
    pub port: u16,
    pub security: MailSecurity,
    pub user: Option<String>,
    pub password: Option<Password>,
    pub from: Mailbox,
    pub to: Vec<Mailbox>,
    /// The name that the gateway sends in `EHLO`. The default is its full host name, or else its address.
    pub hello: Option<String>,
    /// PEM file of authorities and servers' own certificates that are trusted besides the system's.
    pub ca: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MailSecurity {
    None,
    Starttls,
    Tls,
}

/// `Debug` redacts it.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Password(String);

impl Password {
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(..)")
    }
}

/// The file as written. An unknown key is an error: a typo must not be ignored silently.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    listen: Option<String>,
    endpoint: Option<String>,
    api_listen: Option<String>,
    api_cleartext: bool,
    public_url: Option<String>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    pool_v4: Option<String>,
    pool_v6: Option<String>,
    keepalive: Option<u16>,
    tunnel: TunnelFile,
    dns: DnsFile,
    log: Option<String>,
    trusted_proxies: List,
    checks: ChecksFile,
    ssh: SshFile,
    history: HistoryFile,
    retention: RetentionFile,
    mail: Option<MailFile>,
    notifications: NotificationsFile,
    heartbeat: Option<HeartbeatFile>,
    uplink: UplinkFile,
    outbound: OutboundFile,
    log_filter: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TunnelFile {
    results_port: Option<u16>,
    mtu: Option<u16>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DnsFile {
    enabled: Option<bool>,
    suffix: Option<String>,
    resolvers: List,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ChecksFile {
    interval: Option<f64>,
    retry: Option<f64>,
    attempts: Option<u32>,
    timeout: Option<f64>,
    ping_interval: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SshFile {
    idle: Option<f64>,
    connections: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HistoryFile {
    keep: Option<u16>,
}

/// In days.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RetentionFile {
    keep: Option<u32>,
    audit: Option<u32>,
}

/// The URL may be a secret.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeartbeatFile {
    url: Password,
    interval: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct UplinkFile {
    anchors: List,
    interval: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct OutboundFile {
    allow: List,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct NotificationsFile {
    group_wait: Option<f64>,
    digest: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MailFile {
    host: String,
    port: Option<u16>,
    security: Option<MailSecurity>,
    user: Option<String>,
    password: Option<Password>,
    from: String,
    #[serde(default)]
    to: List,
    ca: Option<PathBuf>,
    hello: Option<String>,
}

/// A list. In the environment, which has no lists, its items are separated by commas.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum List {
    Text(String),
    Items(Vec<String>),
}

impl Default for List {
    fn default() -> Self {
        List::Items(Vec::new())
    }
}

/// The settings file in the data directory.
pub const FILE: &str = "fleetgate.toml";
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
/// A domain that is reserved for private use.
const DEFAULT_DNS_SUFFIX: &str = "fleet.internal";
/// Each resolver without an answer costs the client seconds, and it gives up after ten.
const MAX_RESOLVERS: usize = 3;
/// The longest interval that is useful, in seconds.
const LONGEST: f64 = 7.0 * 86_400.0;

/// In days. At one value a minute, 43,000 of each metric.
const DEFAULT_KEEP: u16 = 30;
/// In days: ten years. The disk is full before that.
const LONGEST_KEEP: u16 = 3_660;

/// Days of events and notifications: operators compare with the year before.
const DEFAULT_RETENTION: u32 = 730;
/// In days: a hundred years.
const LONGEST_RETENTION: u32 = 36_500;

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
            history_keep: history_keep(raw.history.keep)?,
            retention: retention(&raw.retention)?,
            log_json: log_json(raw.log.as_deref())?,
            trusted_proxies: trusted_proxies(raw.trusted_proxies)?,
        })
    }

    /// Returns the settings that differ in `other` and are read only at the start.
    pub fn fixed_differences(&self, other: &Config) -> Vec<&'static str> {
        let facts = |c: &Config| -> [(&'static str, String); 21] {
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
                ("keepalive", shown(&c.keepalive)),
                ("checks", shown(&c.timing)),
                ("ssh.idle", shown(&c.ssh_idle)),
                ("ssh.connections", shown(&c.ssh_connections)),
                ("history.keep", shown(&c.history_keep)),
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

    /// Where inner addresses come from, and what devices may reach.
    pub fn pools(&self) -> Pools {
        Pools { v4: self.pool_v4, v6: self.pool_v6 }
    }
}

type Variables = config::Map<String, String>;

fn read(data: &Path, file: Option<&Path>, variables: Variables) -> anyhow::Result<File> {
    let default = data.join(FILE);
    let path = file.unwrap_or(&default);
    let in_file = |error: config::ConfigError| {
        anyhow::anyhow!("settings in {}: {}", path.display(), refusal::words(&error))
    };
    let mut builder = config::Config::builder();
    if file.is_some() || path.exists() {
        let text =
            bounded_file::regular_text(path).with_context(|| format!("settings in {}", path.display()))?;
        builder = builder.add_source(config::File::from_str(&text, config::FileFormat::Toml));
        let alone = builder.clone().build().map_err(in_file)?;
        if alone.get_string("mail.password").is_ok() {
            secret_file::must_be_guarded(path, "change mail.password if it leaked")?;
        }
    }
    let environment = config::Environment::with_prefix("FLEETGATE")
        .prefix_separator("_")
        .separator("__")
        .ignore_empty(true)
        .source(Some(variables));
    let merged = builder.add_source(environment).build().map_err(in_file)?;
    merged.try_deserialize().map_err(|error| {
        let place = format!("settings in {} and FLEETGATE_* variables", path.display());
        anyhow::anyhow!("{place}: {}", refusal::words(&error))
    })
}

/// Leaves out the variables that are not settings: the command line or the build reads them.
fn own_variables(all: impl Iterator<Item = (String, String)>) -> Variables {
    const NOT_SETTINGS: [&str; 6] = [
        "FLEETGATE_DATA",
        "FLEETGATE_CONFIG",
        "FLEETGATE_URL",
        "FLEETGATE_TOKEN",
        "FLEETGATE_WEB",
        "FLEETGATE_WEB_DIST",
    ];
    all.filter(|(name, _)| name.starts_with("FLEETGATE_") && !NOT_SETTINGS.contains(&name.as_str()))
        .filter(|(name, _)| !name.starts_with("FLEETGATE_SIM_") && !name.starts_with("FLEETGATE_TEST_"))
        .collect()
}

fn socket_addr(key: &str, text: &str) -> anyhow::Result<SocketAddr> {
    text.parse().with_context(|| {
        format!("{key} = {text:?}: expected address:port, such as 127.0.0.1:8080 or [::]:51820")
    })
}

fn endpoint(text: &str) -> anyhow::Result<Endpoint> {
    text.parse().with_context(|| format!("endpoint = {text:?}"))
}

fn trusted_proxies(list: List) -> anyhow::Result<Vec<IpAddr>> {
    let address = |text: &str| {
        text.trim().parse().with_context(|| {
            format!("trusted_proxies: {text:?} is not an IP address; several are separated by commas")
        })
    };
    match &list {
        List::Text(text) => text.split(',').map(address).collect(),
        List::Items(items) => items.iter().map(|item| address(item)).collect(),
    }
}

fn seconds(key: &str, given: Option<f64>, default: f64) -> anyhow::Result<Duration> {
    let s = given.unwrap_or(default);
    if !(0.1..=LONGEST).contains(&s) {
        bail!("{key} = {s}: expected seconds between 0.1 and {LONGEST}");
    }
    Ok(Duration::from_secs_f64(s))
}

fn mtu(given: Option<u16>) -> anyhow::Result<u16> {
    let bytes = given.unwrap_or(DEFAULT_MTU);
    if !MTU_RANGE.contains(&bytes) {
        bail!("tunnel.mtu = {bytes}: expected {} to {} bytes", MTU_RANGE.start(), MTU_RANGE.end());
    }
    Ok(bytes)
}

fn history_keep(days: Option<u16>) -> anyhow::Result<Duration> {
    let days = days.unwrap_or(DEFAULT_KEEP);
    if !(1..=LONGEST_KEEP).contains(&days) {
        bail!("history.keep = {days}: expected 1 to {LONGEST_KEEP} days");
    }
    Ok(Duration::from_secs(u64::from(days) * 86_400))
}

fn retention(file: &RetentionFile) -> anyhow::Result<Retention> {
    let time = |key: &str, days: u32| {
        if !(1..=LONGEST_RETENTION).contains(&days) {
            bail!("retention.{key} = {days}: expected 1 to {LONGEST_RETENTION} days");
        }
        Ok(Duration::from_secs(u64::from(days) * 86_400))
    };
    let audit = file.audit.map(|days| time("audit", days)).transpose()?;
    Ok(Retention { keep: time("keep", file.keep.unwrap_or(DEFAULT_RETENTION))?, audit })
}

fn heartbeat(file: &HeartbeatFile, outbound: &Outbound) -> anyhow::Result<HeartbeatTarget> {
    let url = address::parse(file.url.reveal()).map_err(|e| anyhow::anyhow!("heartbeat.url: {e}"))?;
    address::permitted(&url, outbound).context("heartbeat.url")?;
    let interval = seconds("heartbeat.interval", file.interval, 60.0)?;
    if interval < SHORTEST_HEARTBEAT {
        bail!("heartbeat.interval = {}: expected at least 5 seconds", interval.as_secs_f64());
    }
    Ok(HeartbeatTarget { url: url.into(), interval })
}

fn uplink(file: &UplinkFile) -> anyhow::Result<uplink_probe::Uplink> {
    let anchors = match &file.anchors {
        List::Text(text) => text.split(',').map(anchor).collect::<anyhow::Result<Vec<String>>>()?,
        List::Items(items) => items.iter().map(|item| anchor(item)).collect::<anyhow::Result<_>>()?,
    };
    if !anchors.is_empty() && !uplink_probe::ANCHORS.contains(&anchors.len()) {
        bail!(
            "uplink.anchors names {}: expected 2 to 4 that do not depend on each other, or none",
            anchors.len()
        );
    }
    let longest = uplink_probe::INTERVAL.as_secs_f64();
    let interval = seconds("uplink.interval", file.interval, longest)?;
    if interval > uplink_probe::INTERVAL {
        bail!("uplink.interval = {}: expected at most {longest} seconds", interval.as_secs_f64());
    }
    Ok(uplink_probe::Uplink { anchors, interval })
}

fn dns(file: &DnsFile) -> anyhow::Result<Option<DnsSettings>> {
    let suffix = Suffix::parse(file.suffix.as_deref().unwrap_or(DEFAULT_DNS_SUFFIX)).context("dns.suffix")?;
    let resolvers: Vec<SocketAddr> = match &file.resolvers {
        List::Text(text) => text.split(',').map(resolver).collect::<anyhow::Result<_>>()?,
        List::Items(items) => items.iter().map(|item| resolver(item)).collect::<anyhow::Result<_>>()?,
    };
    if resolvers.len() > MAX_RESOLVERS {
        bail!("dns.resolvers names {}: expected at most {MAX_RESOLVERS}", resolvers.len());
    }
    Ok(file.enabled.unwrap_or(true).then_some(DnsSettings { suffix, resolvers }))
}

/// Returns the address of a name server. Without a port it is the one of DNS.
fn resolver(text: &str) -> anyhow::Result<SocketAddr> {
    let text = text.trim();
    let alone =
        || text.parse::<IpAddr>().map(|address| SocketAddr::new(address, fleetgate_engine::dns::PORT));
    let address = text.parse::<SocketAddr>().or_else(|_| alone());
    address.ok().filter(|at| at.port() > 0 && !at.ip().is_unspecified()).with_context(|| {
        format!(
            "dns.resolvers: {text:?} is no address of a name server; 192.0.2.53 or [2001:db8::53]:53 is \
             expected"
        )
    })
}

fn outbound(file: &OutboundFile) -> anyhow::Result<Outbound> {
    let network = |text: &str| {
        let text = text.trim();
        let address = || text.parse::<IpAddr>().map(IpNet::from);
        text.parse::<IpNet>().or_else(|_| address()).with_context(|| {
            format!("outbound.allow: {text:?} is no network; 10.0.0.0/8, fd00::/8 or one address is expected")
        })
    };
    let networks: anyhow::Result<Vec<IpNet>> = match &file.allow {
        List::Text(text) => text.split(',').map(network).collect(),
        List::Items(items) => items.iter().map(|item| network(item)).collect(),
    };
    Ok(Outbound::allowing(networks?))
}

/// Returns `host:port` as it is dialled.
fn anchor(text: &str) -> anyhow::Result<String> {
    let text = text.trim();
    let port =
        text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(port)) if port > 0 => Ok(text.to_owned()),
        _ => bail!("uplink.anchors: {text:?}: expected host:port, such as 192.0.2.1:443"),
    }
}

fn log_json(format: Option<&str>) -> anyhow::Result<bool> {
    match format {
        None | Some("text") => Ok(false),
        Some("json") => Ok(true),
        Some(other) => bail!(
            "log = {other:?}: expected text or json; which events are logged is said by log_filter \
             (FLEETGATE_LOG_FILTER)"
        ),
    }
}

fn log_filter(text: String) -> anyhow::Result<String> {
    match telemetry::is_filter(&text) {
        true => Ok(text),
        false => bail!("log_filter = {text:?}: expected a level or filter such as debug or fleetgate=trace"),
    }
}

fn group_wait(given: Option<f64>) -> anyhow::Result<Duration> {
    let longest = LONGEST_GROUP_WAIT.as_secs_f64();
    let s = given.unwrap_or(GROUP_WAIT.as_secs_f64());
    if !(0.0..=longest).contains(&s) {
        bail!("notifications.group_wait = {s}: expected seconds between 0 and {longest}");
    }
    Ok(Duration::from_secs_f64(s))
}

/// Parses `HH:MM`.
///
/// # Errors
/// Names `key` and the expected value.
pub fn time_of_day(key: &str, text: &str) -> anyhow::Result<jiff::civil::Time> {
    let time = jiff::civil::Time::strptime("%H:%M", text);
    time.with_context(|| format!("{key} = {text:?}: expected a time of day such as 08:00"))
}

fn timing(file: &ChecksFile) -> anyhow::Result<TimingDefaults> {
    let attempts = file.attempts.unwrap_or(3);
    if !(1..=100).contains(&attempts) {
        bail!("checks.attempts = {attempts}: expected 1 to 100");
    }
    let interval = seconds("checks.interval", file.interval, 60.0)?;
    let timeout = seconds("checks.timeout", file.timeout, 10f64.min(interval.as_secs_f64() * 0.8))?;
    if timeout >= interval {
        bail!("checks.timeout must be shorter than checks.interval ({} s)", interval.as_secs_f64());
    }
    Ok(TimingDefaults {
        interval,
        retry: seconds("checks.retry", file.retry, 10.0)?,
        attempts,
        timeout,
        ping_interval: seconds("checks.ping_interval", file.ping_interval, 300.0)?,
    })
}

fn tls_files(cert: Option<PathBuf>, key: Option<PathBuf>) -> anyhow::Result<Option<TlsFiles>> {
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert, key })),
        (None, None) => Ok(None),
        _ => bail!("tls_cert and tls_key belong together: only one of them is set"),
    }
}

fn mail(file: MailFile) -> anyhow::Result<MailConfig> {
    let to = receivers(&file.to)?;
    if to.is_empty() {
        bail!("mail.to is empty: name at least one receiver, or leave [mail] out");
    }
    if file.user.is_some() != file.password.is_some() {
        bail!("mail.user and mail.password belong together: only one of them is set");
    }
    let security = file.security.unwrap_or(MailSecurity::Starttls);
    if security == MailSecurity::None && file.password.is_some() && !is_this_machine(&file.host) {
        bail!("mail.password would travel in clear to {}: set mail.security to starttls or tls", file.host);
    }
    let port = file.port.unwrap_or(match security {
        MailSecurity::None => 25,
        MailSecurity::Starttls => 587,
        MailSecurity::Tls => 465,
    });
    Ok(MailConfig {
        host: file.host,
        port,
        security,
        user: file.user,
        password: file.password,
        from: file.from.parse().with_context(|| no_address("mail.from", &file.from))?,
        to,
        hello: file.hello.as_deref().map(hello).transpose()?,
        ca: file.ca,
    })
}

fn hello(text: &str) -> anyhow::Result<String> {
    crate::config::mail_hello::setting(text).with_context(|| {
        format!("mail.hello: {text:?} is neither a name such as gateway.example.com nor an address")
    })
}

fn receivers(list: &List) -> anyhow::Result<Vec<Mailbox>> {
    match list {
        List::Text(text) => {
            let all: Mailboxes = text.parse().with_context(|| no_address("mail.to", text))?;
            Ok(all.into_iter().collect())
        }
        List::Items(items) => {
            items.iter().map(|item| item.parse().with_context(|| no_address("mail.to", item))).collect()
        }
    }
}

fn no_address(key: &str, text: &str) -> String {
    format!("{key}: {text:?} is not an e-mail address")
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
