//! The gateway's memory per peer, by a counting allocator.

use super::{Counting, Gate, report, spec};
use crate::attacker::Initiator;

const PEERS: u32 = 5_000;
const SESSIONS: u32 = 1_000;

pub fn run() {
    let mut gate = Gate::default();
    let mut devices: Vec<Initiator> = Vec::with_capacity(SESSIONS as usize);
    devices.extend((0..SESSIONS).map(|_| Initiator::stranger(&gate.public)));
    let empty = Counting::in_use();
    for n in 0..PEERS {
        let public = devices
            .get(n as usize)
            .map_or_else(|| Initiator::stranger(&gate.public).public(), Initiator::public);
        gate.add(spec(n, public));
    }
    let enrolled = Counting::in_use();
    for (n, device) in devices.iter().enumerate() {
        gate.shake_hands(device, n as u32);
    }
    let established = Counting::in_use();
    assert_eq!(gate.tunnel.totals().sessions, SESSIONS as usize);
    let idle = (enrolled - empty) as f64 / f64::from(PEERS);
    let session = (established - enrolled) as f64 / f64::from(SESSIONS);
    report("memory of a peer that never came", &format!("{idle:.0} B"), "under 1 KB");
    report("memory of a peer with a session", &format!("{:.0} B", idle + session), "13 KB; others 17 to 43");
}
