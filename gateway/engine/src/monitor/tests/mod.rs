//! Sequences over several hosts while their links, their parents or the gateway's own uplink fail.

mod doubt;
mod handovers;
mod incidents;
mod lab;
mod late_results;
mod parents;
#[cfg(test)]
pub(super) mod random_inputs;
mod rental_phases;
mod restart;
mod silence;
