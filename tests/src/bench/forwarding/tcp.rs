//! A TCP connection between the peers: iperf3 on their TUN devices.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::hub::Hub;
use super::load::Load;
use super::peer::halves;
use super::tun::Tun;
use crate::bench::median;
use crate::lab::{Lab, eventually};

const SECONDS: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(10);
/// The namespaces of the devices.
const SENDER: &str = "a";
const RECEIVER: &str = "b";

/// The measurements of one connection.
pub struct Transfer {
    bytes: f64,
    time: f64,
    cpu: Duration,
}

impl Transfer {
    pub fn seconds_per_gb(&self) -> f64 {
        self.cpu.as_secs_f64() / (self.bytes / 1e9)
    }

    pub fn gbit_per_s(&self) -> f64 {
        self.bytes * 8.0 / self.time / 1e9
    }
}

/// Returns the median of a figure over the rounds.
///
/// # Errors
/// Fails without a round.
pub fn median_of(rounds: &[Transfer], figure: impl Fn(&Transfer) -> f64) -> anyhow::Result<f64> {
    let figures: Vec<f64> = rounds.iter().map(figure).collect();
    (!figures.is_empty()).then(|| median(figures)).context("no round was measured")
}

/// Builds the lab of one hub.
pub fn lab() -> Lab {
    let mut lab = Lab::of(&[("gw", 0)]);
    lab.namespace(SENDER);
    lab.namespace(RECEIVER);
    lab
}

/// Runs one connection through the hub.
///
/// # Errors
/// Fails without iperf3, or when the hub does not forward the connection.
pub fn transfer(lab: &Lab, load: &Load, hub: &Hub<'_>) -> anyhow::Result<Transfer> {
    let [here, there] = &load.wires;
    let [us, them] = &hub.members;
    let (sealer, opener) = halves(&here.shake_hands(&us.keys, 1)?);
    let (back, theirs) = halves(&there.shake_hands(&them.keys, 2)?);
    let (sender, receiver) = (Tun::new(lab, SENDER, us.inner)?, Tun::new(lab, RECEIVER, them.inner)?);
    let stop = AtomicBool::new(false);
    scope(|scope| {
        scope.spawn(|| sender.seal(here, sealer, &stop));
        scope.spawn(|| sender.open(here, &opener, &stop));
        scope.spawn(|| receiver.seal(there, back, &stop));
        scope.spawn(|| receiver.open(there, &theirs, &stop));
        let measured = iperf(lab, hub);
        stop.store(true, Ordering::Relaxed);
        measured
    })
}

fn iperf(lab: &Lab, hub: &Hub<'_>) -> anyhow::Result<Transfer> {
    let inner = hub.members[1].inner.to_string();
    let _server = lab.spawn(RECEIVER, "iperf.log", "iperf3", &["-s", "-1"], &[]);
    eventually("iperf3 listens", PATIENCE, || lab.try_sh(RECEIVER, "ss -ltn | grep -q :5201").0);
    let cpu = hub.cpu()?;
    let out = Command::new("ip")
        .args(["netns", "exec", &lab.ns(SENDER), "timeout", "30", "iperf3", "-J", "-c", &inner])
        .args(["-t", &SECONDS.to_string()])
        .output()?;
    let cpu = hub.cpu()? - cpu;
    let said = String::from_utf8_lossy(&out.stdout);
    ensure!(out.status.success(), "iperf3: {said}");
    let report: Value = serde_json::from_str(&said)?;
    let received = &report["end"]["sum_received"];
    let figure = |name: &str| received[name].as_f64().with_context(|| format!("iperf3 gave no {name}"));
    Ok(Transfer { bytes: figure("bytes")?, time: figure("seconds")?, cpu })
}
