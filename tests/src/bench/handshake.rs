//! The gateway's cost of a handshake, in units of X25519 of the same run.

use std::hint::black_box;
use std::time::Duration;

use rand_core::OsRng;
use x25519_dalek::{PublicKey, StaticSecret};

use super::{Gate, cpu_of, home, median, micros, report, spec};
use crate::attacker::{Initiator, RESPONSE, stamp};

const ROUNDS: u32 = 400;
/// X25519 operations in one measurement, because their sum varies less than a single one.
const UNITS: u32 = 8;

pub fn run() {
    let mut gate = Gate::default();
    let (mut first, mut rekey, mut unit, mut unknown) = (vec![], vec![], vec![], vec![]);
    for n in 0..ROUNDS {
        let device = Initiator::stranger(&gate.public);
        let one = x25519();
        unknown.push((one, in_vain(&mut gate, &device)));
        gate.add(spec(n, device.public()));
        first.push((one, handshake(&mut gate, &device, n)));
        rekey.push((one, handshake(&mut gate, &device, n)));
        unit.push(micros(one));
    }
    let ratio = |all: &[(Duration, Duration)]| {
        median(all.iter().map(|(unit, cost)| cost.as_secs_f64() / unit.as_secs_f64()).collect())
    };
    let cost = |all: &[(Duration, Duration)]| median(all.iter().map(|(_, cost)| micros(*cost)).collect());
    report("X25519", &format!("{:.1} us", median(unit)), "the unit");
    for (what, all, target) in [
        ("first contact, with the packet that proves it", &first, "8 or fewer"),
        ("rekey, with the packet that proves it", &rekey, "6 or fewer"),
        ("an initiation under an unknown key", &unknown, "-"),
    ] {
        report(what, &format!("{:.2} ({:.0} us)", ratio(all), cost(all)), target);
    }
}

fn x25519() -> Duration {
    let secret = StaticSecret::random_from_rng(OsRng);
    let mut point = PublicKey::from(&StaticSecret::random_from_rng(OsRng));
    let (time, ()) = cpu_of(|| {
        for _ in 0..UNITS {
            point = PublicKey::from(*secret.diffie_hellman(black_box(&point)).as_bytes());
        }
    });
    black_box(point);
    time / UNITS
}

/// Measures the gateway's part only, without the device's computation.
fn handshake(gate: &mut Gate, device: &Initiator, sender: u32) -> Duration {
    gate.pass(Duration::from_millis(25));
    let initiation = device.initiation(stamp(0), sender);
    let (answering, sent) = cpu_of(|| gate.receive(home(sender), &initiation.bytes));
    let response = sent.iter().find(|sent| sent.len() == RESPONSE).expect("a response");
    let keepalive = initiation.finish(response).expect("a session").seal(&[]);
    let (proving, _) = cpu_of(|| gate.receive(home(sender), &keepalive));
    answering + proving
}

fn in_vain(gate: &mut Gate, stranger: &Initiator) -> Duration {
    gate.pass(Duration::from_millis(25));
    let initiation = stranger.initiation(stamp(0), 1);
    let (time, sent) = cpu_of(|| gate.receive(home(0), &initiation.bytes));
    assert!(sent.is_empty(), "a stranger was answered");
    time
}
