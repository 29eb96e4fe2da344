//! Backups and restores.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Options of a backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBackup {
    /// Whether it contains the samples; `true` when absent.
    #[serde(default = "yes")]
    pub history: bool,
    /// How many backups are kept afterwards; all when absent.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1000)]
    pub keep: Option<u16>,
}

fn yes() -> bool {
    true
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BackupState {
    Running,
    /// Verified and complete.
    Complete,
    /// `error` has the reason. It is forgotten when the next backup starts.
    Failed,
}

/// A backup in the data directory of the gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Backup {
    /// Such as `fleetgate-20261128T191500Z.tar`.
    pub name: String,
    pub state: BackupState,
    /// Progress of the current step; 100 when complete.
    #[schema(minimum = 0, maximum = 100)]
    pub percent: u8,
    /// The current step.
    pub step: Option<String>,
    pub error: Option<String>,
    /// The size of a complete backup.
    pub bytes: Option<u64>,
    /// When the copy was started.
    pub made_at: Option<String>,
    /// Whether it contains the samples.
    pub history: Option<bool>,
}

/// A backup that takes effect at the next start of the gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Restore {
    /// The public key of the gateway in the backup.
    pub public_key: String,
    /// When the backup was made.
    pub made_at: String,
    /// Whether it contains the samples.
    pub history: bool,
}
