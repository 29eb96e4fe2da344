//! Measures the time that the filter takes for a packet of a flow that exists:
//! `cargo run --release -p fleetgate-engine --features sim --example forwarding`.
//!
//! First the packets follow each other. Then they come in bursts, and before each of them other work has used the
//! caches of the processor, as between two bursts on a network.

use std::hint::black_box;
use std::time::{Duration, Instant};

use fleetgate_engine::forward::bench::Load;

const PACKETS: usize = 2_000_000;
const BURSTS: usize = 500;
const BURST: usize = 10;
/// Memory that other work uses: more than the caches of a core hold, and more pages than it knows the places of.
const OTHER: usize = 16 << 20;
const CACHE_LINE: usize = 64;

fn main() {
    println!(
        "grants    flows   active  bytes   ns/packet, with a copy into the buffer; in bursts with cold caches"
    );
    let mut other = vec![0; OTHER];
    for _ in 0..3 {
        for (grants, flows, active, size) in [
            (1, 16, 16, 1_200),
            (10_000, 16, 16, 1_200),
            (1, 100_000, 16, 1_200),
            (10_000, 100_000, 16, 1_200),
            (1, 10_000, 10_000, 64),
            (10_000, 100_000, 10_000, 64),
        ] {
            let mut load = Load::new(grants, flows, active, size);
            assert_eq!(load.flows(), flows);
            let (each, cold) = (in_a_row(&mut load), in_bursts(&mut load, &mut other));
            println!("{grants:6} {flows:8} {active:8} {size:6}   {each:9} {cold:9}");
        }
    }
}

fn in_a_row(load: &mut Load) -> u128 {
    load.forward(PACKETS / 10);
    let begun = Instant::now();
    let passed = load.forward(PACKETS);
    let each = begun.elapsed().as_nanos() / PACKETS as u128;
    assert_eq!(passed, PACKETS);
    each
}

fn in_bursts(load: &mut Load, other: &mut [u8]) -> u128 {
    let mut spent = Duration::ZERO;
    for _ in 0..BURSTS {
        other.iter_mut().step_by(CACHE_LINE).for_each(|byte| *byte = byte.wrapping_add(1));
        black_box(&mut *other);
        let begun = Instant::now();
        let passed = load.forward(BURST);
        spent += begun.elapsed();
        assert_eq!(passed, BURST);
    }
    spent.as_nanos() / (BURSTS * BURST) as u128
}
