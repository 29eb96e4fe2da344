//! The steps of a first start, and the way back from a directory that cannot be used. All parts that open files at a
//! start know both.

use std::path::Path;

/// The steps of a first start, in order. Tests let each of them fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
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

impl Step {
    pub const ALL: [Step; 9] = [
        Step::Marked,
        Step::WireguardKey,
        Step::SshKey,
        Step::Sockets,
        Step::Databases,
        Step::Identity,
        Step::Engine,
        Step::Administrator,
        Step::LoginShown,
    ];
}

/// Callback after each step; its error ends the start.
pub type Reached<'a> = &'a (dyn Fn(Step) -> anyhow::Result<()> + Sync);

/// How to restore the gateway from a backup. A restore needs an empty directory.
pub fn restore_hint(dir: &Path) -> String {
    let dir = dir.display();
    format!("Restore a backup: move {dir} away, then run `fleetgate restore FILE --data {dir}`")
}
