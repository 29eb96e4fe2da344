//! The parsers that read what a stranger or a device sends. Each returns its outcome as text.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::LazyLock;

use fleetgate_engine::time::{Mono, Now, Wall};
use fleetgate_engine::tunnel::handshake::gate::{FrontDoor, FrontSettings};
use fleetgate_keys::PrivateKey;
use fleetgate_probes::plugin::{Ending, PluginResult};
use fleetgate_probes::{packet, perfdata, sensors};

use crate::attacker::{hash, mac};

pub type Target = (&'static str, fn(&[u8]) -> String);

pub const TARGETS: [Target; 3] = [("handshake", handshake), ("packet", inner_packet), ("plugin", plugin)];

const INITIATION: usize = 148;
/// The range of an initiation that mac1 covers.
const COVERED: usize = 116;

static GATEWAY: LazyLock<PrivateKey> = LazyLock::new(|| PrivateKey::from_bytes([7; 32]));

/// A datagram at the gate: as it is, and with a mac1 that holds, which strangers can make too.
fn handshake(input: &[u8]) -> String {
    let mut gate = FrontDoor::new(&GATEWAY, [9; 32], FrontSettings::default());
    let from = SocketAddr::from((Ipv4Addr::LOCALHOST, 51820));
    let now = Now { mono: Mono::ZERO, wall: Wall::from_millis(1_800_000_000_000) };
    let first = gate.judge(input, from, &|_| true, now);
    let mut signed = input.to_vec();
    sign(&mut signed);
    format!("{first:?} {:?}", gate.judge(&signed, from, &|key| key.as_bytes()[0] % 2 == 0, now))
}

fn sign(message: &mut [u8]) {
    if message.len() != INITIATION {
        return;
    }
    let key = hash(&[b"mac1----", GATEWAY.public().as_bytes()]);
    let mac1 = mac(&key, &message[..COVERED]);
    message[COVERED..COVERED + mac1.len()].copy_from_slice(&mac1);
}

/// A packet from a tunnel, and the reply to it.
fn inner_packet(input: &[u8]) -> String {
    match packet::parse(input) {
        Err(bad) => format!("{bad:?}"),
        Ok(parsed) => {
            let reply = packet::answer_to_echo(&parsed);
            let again = reply.as_deref().map(|reply| packet::parse(reply).is_ok());
            assert!(again != Some(false), "the reply is no packet");
            format!("{again:?} {} {parsed:?}", packet::echo(&parsed).is_some())
        }
    }
}

/// The output of a plugin or of the sensor script.
fn plugin(input: &[u8]) -> String {
    let code = input.first().map_or(0, |byte| u32::from(*byte % 6));
    let result = PluginResult::from_run(&Ending::Exit(code), input, &[], false);
    let data = perfdata::parse(&String::from_utf8_lossy(input));
    format!("{:?} {} {:?}", result.status, data.metrics.len(), sensors::parse(input))
}
