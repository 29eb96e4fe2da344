//! The settings as they are written: the keys of `fleetgate.toml`, and the variables that override them.
//!
//! serde stays in here. A key that does not exist is refused. Whether a value is plausible is unknown here.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;

use super::refusal;
use crate::bounded_file;
use crate::data_dir::secret_file;

/// The settings file in the data directory.
pub const FILE: &str = "fleetgate.toml";

/// The file as written. An unknown key is an error: a typo must not be ignored silently.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub listen: Option<String>,
    pub endpoint: Option<String>,
    pub api_listen: Option<String>,
    pub api_cleartext: bool,
    pub public_url: Option<String>,
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    pub pool_v4: Option<String>,
    pub pool_v6: Option<String>,
    pub keepalive: Option<u16>,
    pub tunnel: TunnelFile,
    pub dns: DnsFile,
    pub rentals: RentalsFile,
    pub log: Option<String>,
    pub trusted_proxies: List,
    pub checks: ChecksFile,
    pub ssh: SshFile,
    pub history: HistoryFile,
    pub disk: DiskFile,
    pub retention: RetentionFile,
    pub mail: Option<MailFile>,
    pub notifications: NotificationsFile,
    pub heartbeat: Option<HeartbeatFile>,
    pub uplink: UplinkFile,
    pub outbound: OutboundFile,
    pub log_filter: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TunnelFile {
    pub results_port: Option<u16>,
    pub mtu: Option<u16>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DnsFile {
    pub enabled: Option<bool>,
    pub suffix: Option<String>,
    pub resolvers: List,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RentalsFile {
    pub alias_slots: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ChecksFile {
    pub interval: Option<f64>,
    pub retry: Option<f64>,
    pub attempts: Option<u32>,
    pub timeout: Option<f64>,
    pub ping_interval: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SshFile {
    pub idle: Option<f64>,
    pub connections: Option<usize>,
}

/// In days.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct HistoryFile {
    pub raw: Option<u32>,
    /// The older name of `raw`.
    pub keep: Option<u32>,
    pub five_minutes: Option<u32>,
    pub hours: Option<u32>,
    pub days: Option<u32>,
    pub traffic: Option<u32>,
}

/// In MB of 1,048,576 bytes.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DiskFile {
    pub history_mb: Option<u32>,
    pub reserve_mb: Option<u32>,
}

/// In days.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RetentionFile {
    pub keep: Option<u32>,
    pub audit: Option<u32>,
}

/// The URL may be a secret.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeartbeatFile {
    pub url: Password,
    pub interval: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct UplinkFile {
    pub anchors: List,
    pub interval: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct OutboundFile {
    pub allow: List,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct NotificationsFile {
    pub group_wait: Option<f64>,
    pub digest: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MailFile {
    pub host: String,
    pub port: Option<u16>,
    pub security: Option<MailSecurity>,
    pub user: Option<String>,
    pub password: Option<Password>,
    pub from: String,
    #[serde(default)]
    pub to: List,
    pub ca: Option<PathBuf>,
    pub hello: Option<String>,
}

/// A list. In the environment, which has no lists, its items are separated by commas.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum List {
    Text(String),
    Items(Vec<String>),
}

impl Default for List {
    fn default() -> Self {
        List::Items(Vec::new())
    }
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

pub(super) type Variables = config::Map<String, String>;

pub(super) fn read(data: &Path, file: Option<&Path>, variables: Variables) -> anyhow::Result<File> {
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
pub(super) fn own_variables(all: impl Iterator<Item = (String, String)>) -> Variables {
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
