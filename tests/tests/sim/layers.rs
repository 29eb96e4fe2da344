//! Checks the layers of docs/architecture.md. A failure prints the rule's reason.

use std::path::{Path, PathBuf};

use fleetgate_tests::layers::{mentions, sources};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the repository").to_owned()
}

/// Modules that are compiled for tests only, by name. `mentions` cuts off the tests at a file's
/// end, after `#[cfg(test)]`.
const TESTS: [&str; 4] = ["/tests/", "/tests.rs", "/testing.rs", "/sensors/shells.rs"];

/// Forbids `words` in every source of `dirs` but those whose path contains one of `except`.
fn forbid(reason: &str, dirs: &[&str], except: &[&str], words: &[&str]) {
    let files: Vec<PathBuf> = dirs.iter().flat_map(|d| sources(&root().join(d))).collect();
    assert!(!files.is_empty(), "{dirs:?} hold no sources: the check looks in the wrong place");
    let own = |f: &PathBuf| f.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
    let excepted = |f: &PathBuf| except.iter().chain(&TESTS).any(|e| own(f).contains(e));
    let found: Vec<String> = files.iter().filter(|f| !excepted(f)).flat_map(|f| mentions(f, words)).collect();
    assert!(found.is_empty(), "{reason}\n{}", found.join("\n"));
}

#[test]
fn the_pure_crates_touch_nothing() {
    forbid(
        "the pure crates are told the time and carried their messages, so that days of behaviour can be \
         simulated in seconds: no clock, runtime, socket, file, environment or database",
        &["keys/src", "probes/src", "gateway/engine/src"],
        &[],
        &[
            "Instant::now",
            "SystemTime",
            // Calendar functions get both the time and the zone as arguments.
            "Timestamp::now",
            "Zoned::now",
            "TimeZone::system",
            "TimeZone::get",
            "tokio::",
            "sqlx",
            "axum",
            "serde",
            "std::fs",
            "std::env::",
            "UdpSocket",
            "TcpStream",
            "std::thread",
        ],
    );
}

#[test]
fn boringtun_is_named_in_one_file_of_the_engine() {
    forbid(
        "boringtun reads its own clock and has traps: noise.rs fences them, and keeps it replaceable",
        &["gateway/engine/src"],
        &["tunnel/noise"],
        &["boringtun::"],
    );
}

#[test]
fn the_program_reads_its_clocks_in_one_file() {
    forbid(
        "one clock: a second reading in the same turn makes states that cannot be reproduced",
        &["gateway/src"],
        &["gateway/src/clock.rs"],
        &["Instant::now", "SystemTime::now", "Timestamp::now", "Zoned::now"],
    );
}

#[test]
fn probes_know_no_wireguard_and_no_other_crate_of_ours() {
    forbid(
        "probes are packets and answers; what carries them is none of their business",
        &["probes/src"],
        &[],
        &["wireguard", "boringtun", "fleetgate_keys", "fleetgate_engine"],
    );
    forbid("keys stand below everything", &["keys/src"], &[], &["fleetgate_probes", "fleetgate_engine"]);
}

#[test]
fn the_two_halves_of_the_engine_speak_by_messages_only() {
    forbid(
        "the tunnel may run on several threads: it must not reach into the monitor",
        &["gateway/engine/src/tunnel"],
        &[],
        &["crate::monitor"],
    );
    forbid(
        "the monitor asks questions; it must not reach into the tunnel",
        &["gateway/engine/src/monitor"],
        &[],
        &["crate::tunnel"],
    );
}

#[test]
fn the_gateway_never_starts_a_process() {
    forbid(
        "probes are in-process code with typed arguments and commands run on the device over SSH: \
         a spawned process is a command injection waiting to happen",
        &["gateway/src", "gateway/engine/src"],
        &[],
        &["std::process::Command", "process::Command::new", "tokio::process"],
    );
}

#[test]
fn sql_stays_in_the_store() {
    forbid(
        "sqlx stays in store/, the one seam for another database",
        &["gateway/src"],
        &["gateway/src/store/"],
        &["sqlx::"],
    );
}
