//! Measures the time that the filter takes for a packet of a flow that exists:
//! `cargo run --release -p fleetgate-engine --features sim --example forwarding`.

use std::time::Instant;

use fleetgate_engine::forward::bench::Load;

const PACKETS: usize = 2_000_000;

fn main() {
    println!("grants    flows   active  bytes   ns/packet, with a copy into the buffer");
    for _ in 0..3 {
        for (grants, flows, active, size) in [
            (1, 16, 16, 1_200),
            (10_000, 16, 16, 1_200),
            (1, 100_000, 16, 1_200),
            (10_000, 100_000, 16, 1_200),
            (1, 10_000, 10_000, 64),
            (10_000, 100_000, 10_000, 64),
        ] {
            measure(grants, flows, active, size);
        }
    }
}

fn measure(grants: usize, flows: usize, active: usize, size: usize) {
    let mut load = Load::new(grants, flows, active, size);
    assert_eq!(load.flows(), flows);
    load.forward(PACKETS / 10);
    let begun = Instant::now();
    let passed = load.forward(PACKETS);
    let each = begun.elapsed().as_nanos() / PACKETS as u128;
    assert_eq!(passed, PACKETS);
    println!("{grants:6} {flows:8} {active:8} {size:6}   {each:9}");
}
