//! The steps of a first start, and the way back from a directory that cannot be used. All parts that open files at a
//! start know both.

use std::path::Path;

/// The steps of a first start, in order. Tests let each of them fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartStep {
    Marked,
    WireguardKey,
    SshKey,
    Sockets,
    Databases,
    Identity,
    Engine,
    Administrator,
    LoginShown,
}

impl StartStep {
    pub const ALL: [StartStep; 9] = [
        StartStep::Marked,
        StartStep::WireguardKey,
        StartStep::SshKey,
        StartStep::Sockets,
        StartStep::Databases,
        StartStep::Identity,
        StartStep::Engine,
        StartStep::Administrator,
        StartStep::LoginShown,
    ];
}

/// Callback after each step; its error ends the start.
pub type Reached<'a> = &'a (dyn Fn(StartStep) -> anyhow::Result<()> + Sync);

/// How to restore the gateway from a backup. A restore needs an empty directory.
pub fn restore_hint(dir: &Path) -> String {
    let dir = dir.display();
    format!("Restore a backup: move {dir} away, then run `fleetgate restore FILE --data {dir}`")
}
