//! Adding and removing one of many peers.

use super::{Gate, cpu_of, median, micros, peer_id, report, spec};
use crate::attacker::Initiator;

const PEERS: u32 = 5_000;
const ROUNDS: u32 = 500;

pub fn run() {
    let mut gate = Gate::default();
    let public = |gate: &Gate| Initiator::stranger(&gate.public).public();
    for n in 0..PEERS {
        let public = public(&gate);
        gate.add(spec(n, public));
    }
    let (mut adding, mut removing) = (Vec::new(), Vec::new());
    for n in 0..ROUNDS {
        let spec = spec(PEERS + n, public(&gate));
        adding.push(micros(cpu_of(|| gate.add(spec)).0));
        // Removes a peer from anywhere in the table, not the newest.
        removing.push(micros(cpu_of(|| gate.remove(peer_id(n * 7))).0));
    }
    report("adding one of 5,000 peers", &format!("{:.1} us", median(adding)), "under 5 ms");
    report("removing one of 5,000 peers", &format!("{:.1} us", median(removing)), "under 5 ms");
}
