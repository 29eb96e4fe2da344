//! The values that a setting accepts, its default, and the error that names the key and what is expected.
//!
//! Each function checks one setting or section. It knows neither a file nor a variable.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use fleetgate_engine::dns::Suffix;
use fleetgate_engine::messages::{DEFAULT_MTU, MTU_RANGE};
use fleetgate_keys::Endpoint;
use ipnet::IpNet;

use super::file::{
    ChecksFile, DiskFile, DnsFile, HeartbeatFile, HistoryFile, List, OutboundFile, RetentionFile, UplinkFile,
};
use super::{
    ANCHORS, DiskSettings, DnsSettings, GROUP_WAIT, HeartbeatTarget, LONGEST_GROUP_WAIT,
    LONGEST_UPLINK_INTERVAL, SHORTEST_HEARTBEAT, TlsFiles, UplinkSettings,
};
use crate::health::telemetry;
use crate::history::Keep;
use crate::outbound::Outbound;
use crate::outbound::address;
use crate::store::TimingDefaults;
use crate::store::retention::Retention;

/// A domain that is reserved for private use.
const DEFAULT_DNS_SUFFIX: &str = "fleet.internal";
/// Each resolver without an answer costs the client seconds, and it gives up after ten.
const MAX_RESOLVERS: usize = 3;
/// The longest interval that is useful, in seconds.
const LONGEST: f64 = 7.0 * 86_400.0;

/// The default pool has room for 4,000 customers with so many rentals at a time.
const DEFAULT_ALIAS_SLOTS: u32 = 64;
/// One prefix covers a block, so its length is a power of two.
const ALIAS_SLOTS: RangeInclusive<u32> = 8..=4_096;

/// Days of samples as they were measured. At one value a minute, 43,000 of each metric.
const DEFAULT_RAW: u32 = 30;
/// A day becomes buckets after its end, and its samples must all be there by then.
const SHORTEST_RAW: u32 = 2;
/// In days: ten years. The disk is full before that.
const LONGEST_RAW: u32 = 3_660;
/// Days of buckets of five minutes: a quarter.
const DEFAULT_FIVE_MINUTES: u32 = 90;
/// Days of buckets of an hour, of intervals of states and of the traffic of a day: three years and some days, so that
/// the same week three years ago is still there.
const DEFAULT_YEARS: u32 = 1_098;

/// Free megabytes below which no history is written: four times the log of a database, and room for what results
/// bring meanwhile.
const DEFAULT_HISTORY_MB: u32 = 256;
/// Free megabytes below which results and changes are refused. The writer, which has decided already, uses the rest.
const DEFAULT_RESERVE_MB: u32 = 64;
/// A terabyte: a larger number is a mistake in the unit.
const MOST_MB: u32 = 1_048_576;

/// In days: two bills of a mobile provider.
const SHORTEST_TRAFFIC: u32 = 62;

/// Days of events and notifications: operators compare with the year before.
const DEFAULT_RETENTION: u32 = 730;
/// In days: a hundred years.
const LONGEST_RETENTION: u32 = 36_500;

pub(super) fn socket_addr(key: &str, text: &str) -> anyhow::Result<SocketAddr> {
    text.parse().with_context(|| {
        format!("{key} = {text:?}: expected address:port, such as 127.0.0.1:8080 or [::]:51820")
    })
}

pub(super) fn endpoint(text: &str) -> anyhow::Result<Endpoint> {
    text.parse().with_context(|| format!("endpoint = {text:?}"))
}

pub(super) fn trusted_proxies(list: List) -> anyhow::Result<Vec<IpAddr>> {
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

pub(super) fn seconds(key: &str, given: Option<f64>, default: f64) -> anyhow::Result<Duration> {
    let s = given.unwrap_or(default);
    if !(0.1..=LONGEST).contains(&s) {
        bail!("{key} = {s}: expected seconds between 0.1 and {LONGEST}");
    }
    Ok(Duration::from_secs_f64(s))
}

pub(super) fn mtu(given: Option<u16>) -> anyhow::Result<u16> {
    let bytes = given.unwrap_or(DEFAULT_MTU);
    if !MTU_RANGE.contains(&bytes) {
        bail!("tunnel.mtu = {bytes}: expected {} to {} bytes", MTU_RANGE.start(), MTU_RANGE.end());
    }
    Ok(bytes)
}

pub(super) fn alias_slots(given: Option<u32>) -> anyhow::Result<u32> {
    let slots = given.unwrap_or(DEFAULT_ALIAS_SLOTS);
    if !slots.is_power_of_two() || !ALIAS_SLOTS.contains(&slots) {
        let (least, most) = (ALIAS_SLOTS.start(), ALIAS_SLOTS.end());
        bail!("rentals.alias_slots = {slots}: expected a power of two from {least} to {most}");
    }
    Ok(slots)
}

/// A coarser tier is kept at least as long as a finer one, of which it is made.
pub(super) fn history(file: &HistoryFile) -> anyhow::Result<Keep> {
    let raw = raw_days(file)?;
    let five_minutes = tier_days("five_minutes", file.five_minutes, (DEFAULT_FIVE_MINUTES, raw))?;
    let hours = tier_days("hours", file.hours, (DEFAULT_YEARS, five_minutes))?;
    let for_ever = file.days.unwrap_or_default() == 0;
    let daily = if for_ever { None } else { Some(tier_days("days", file.days, (hours, hours))?) };
    Ok(Keep {
        raw: of_days(raw),
        five_minutes: of_days(five_minutes),
        hours: of_days(hours),
        days: daily.map(of_days),
    })
}

fn raw_days(file: &HistoryFile) -> anyhow::Result<u32> {
    if file.raw.is_some() && file.keep.is_some() {
        bail!("history.keep is the older name of history.raw: give history.raw alone");
    }
    let (key, least) = if file.keep.is_some() { ("keep", 1) } else { ("raw", SHORTEST_RAW) };
    let days = file.raw.or(file.keep).unwrap_or(DEFAULT_RAW);
    if !(least..=LONGEST_RAW).contains(&days) {
        bail!("history.{key} = {days}: expected {least} to {LONGEST_RAW} days");
    }
    Ok(days.max(SHORTEST_RAW))
}

/// Returns the days of a tier, which by default are `usual`, or those of the `finer` tier if these are more.
fn tier_days(key: &str, given: Option<u32>, (usual, finer): (u32, u32)) -> anyhow::Result<u32> {
    let days = given.unwrap_or_else(|| usual.max(finer));
    if !(finer..=LONGEST_RETENTION).contains(&days) {
        bail!(
            "history.{key} = {days}: expected {finer} to {LONGEST_RETENTION} days; finer values are kept for {finer}"
        );
    }
    Ok(days)
}

fn of_days(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 86_400)
}

/// Returns the days of the traffic of each device that are kept.
pub(super) fn traffic_days(given: Option<u32>) -> anyhow::Result<i64> {
    let days = given.unwrap_or(DEFAULT_YEARS);
    if !(SHORTEST_TRAFFIC..=LONGEST_RETENTION).contains(&days) {
        bail!("history.traffic = {days}: expected {SHORTEST_TRAFFIC} to {LONGEST_RETENTION} days");
    }
    Ok(days.into())
}

pub(super) fn disk(file: &DiskFile) -> anyhow::Result<DiskSettings> {
    let bytes = |key: &str, given: Option<u32>, usual: u32| {
        let mb = given.unwrap_or(usual);
        if !(1..=MOST_MB).contains(&mb) {
            bail!("disk.{key} = {mb}: expected 1 to {MOST_MB} MB");
        }
        Ok(u64::from(mb) * 1024 * 1024)
    };
    let reserve = bytes("reserve_mb", file.reserve_mb, DEFAULT_RESERVE_MB)?;
    let history = bytes("history_mb", file.history_mb, DEFAULT_HISTORY_MB)?;
    // The history stops first, whatever the settings say.
    Ok(DiskSettings { history: history.max(reserve), reserve })
}

/// `hours`: how long the buckets of an hour are kept. Intervals of states are kept as long as these graphs, and at
/// least as long as events.
pub(super) fn retention(file: &RetentionFile, hours: Duration) -> anyhow::Result<Retention> {
    let time = |key: &str, days: u32| {
        if !(1..=LONGEST_RETENTION).contains(&days) {
            bail!("retention.{key} = {days}: expected 1 to {LONGEST_RETENTION} days");
        }
        Ok(of_days(days))
    };
    let audit = file.audit.map(|days| time("audit", days)).transpose()?;
    let keep = time("keep", file.keep.unwrap_or(DEFAULT_RETENTION))?;
    Ok(Retention { keep, audit, intervals: keep.max(hours) })
}

pub(super) fn heartbeat(file: &HeartbeatFile, outbound: &Outbound) -> anyhow::Result<HeartbeatTarget> {
    let url = address::parse(file.url.reveal()).map_err(|e| anyhow::anyhow!("heartbeat.url: {e}"))?;
    address::permitted(&url, outbound).context("heartbeat.url")?;
    let interval = seconds("heartbeat.interval", file.interval, 60.0)?;
    if interval < SHORTEST_HEARTBEAT {
        bail!("heartbeat.interval = {}: expected at least 5 seconds", interval.as_secs_f64());
    }
    Ok(HeartbeatTarget { url: url.into(), interval })
}

pub(super) fn uplink(file: &UplinkFile) -> anyhow::Result<UplinkSettings> {
    let anchors = match &file.anchors {
        List::Text(text) => text.split(',').map(anchor).collect::<anyhow::Result<Vec<String>>>()?,
        List::Items(items) => items.iter().map(|item| anchor(item)).collect::<anyhow::Result<_>>()?,
    };
    if !anchors.is_empty() && !ANCHORS.contains(&anchors.len()) {
        bail!(
            "uplink.anchors names {}: expected 2 to 4 that do not depend on each other, or none",
            anchors.len()
        );
    }
    let longest = LONGEST_UPLINK_INTERVAL.as_secs_f64();
    let interval = seconds("uplink.interval", file.interval, longest)?;
    if interval > LONGEST_UPLINK_INTERVAL {
        bail!("uplink.interval = {}: expected at most {longest} seconds", interval.as_secs_f64());
    }
    Ok(UplinkSettings { anchors, interval })
}

pub(super) fn dns(file: &DnsFile) -> anyhow::Result<Option<DnsSettings>> {
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

pub(super) fn outbound(file: &OutboundFile) -> anyhow::Result<Outbound> {
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

pub(super) fn log_json(format: Option<&str>) -> anyhow::Result<bool> {
    match format {
        None | Some("text") => Ok(false),
        Some("json") => Ok(true),
        Some(other) => bail!(
            "log = {other:?}: expected text or json; which events are logged is said by log_filter \
             (FLEETGATE_LOG_FILTER)"
        ),
    }
}

pub(super) fn log_filter(text: String) -> anyhow::Result<String> {
    match telemetry::is_filter(&text) {
        true => Ok(text),
        false => bail!("log_filter = {text:?}: expected a level or filter such as debug or fleetgate=trace"),
    }
}

pub(super) fn group_wait(given: Option<f64>) -> anyhow::Result<Duration> {
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

pub(super) fn timing(file: &ChecksFile) -> anyhow::Result<TimingDefaults> {
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

pub(super) fn tls_files(cert: Option<PathBuf>, key: Option<PathBuf>) -> anyhow::Result<Option<TlsFiles>> {
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert, key })),
        (None, None) => Ok(None),
        _ => bail!("tls_cert and tls_key belong together: only one of them is set"),
    }
}
