//! Backups that the gateway creates, and one that it restores.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a backup is to be like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBackup {
    /// Whether the samples are in it; `true` when absent.
    #[serde(default = "yes")]
    pub history: bool,
    /// Afterwards only so many backups stay in the data directory, 1 to 1000; all when absent.
    #[serde(default)]
    pub keep: Option<u16>,
}

fn yes() -> bool {
    true
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BackupState {
    Running,
    /// Read back and whole.
    Complete,
    /// `error` says why; it is forgotten when the next one begins.
    Failed,
}

/// A backup in the data directory of the gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Backup {
    /// Such as `fleetgate-20261128T191500Z.tar`.
    pub name: String,
    pub state: BackupState,
    /// Of the step that is under way; 100 when it is complete.
    pub percent: u8,
    /// What is done now, in words.
    pub step: Option<String>,
    pub error: Option<String>,
    /// Of a complete one.
    pub bytes: Option<u64>,
    /// When the copying began.
    pub made_at: Option<String>,
    /// Whether the samples are in it.
    pub history: Option<bool>,
}

/// A backup that takes effect at the next start of the gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Restore {
    /// The key of the gateway that comes back.
    pub public_key: String,
    /// As it was then.
    pub made_at: String,
    /// Whether the samples are in it.
    pub history: bool,
}
