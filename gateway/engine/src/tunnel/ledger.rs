//! The traffic that a peer causes on the uplink, by UTC day.
//!
//! The ledger keeps the current day and the one before it, so that the store has time to write
//! them. A clock that steps over midnight begins a new day or resumes the previous one, and loses
//! neither.

use std::net::SocketAddr;

use crate::time::Wall;
use crate::wire::WireDay;

const DAY_MS: i64 = 86_400_000;
const UDP_HEADER: u64 = 8;
const IPV4_HEADER: u64 = 20;
const IPV6_HEADER: u64 = 40;

#[derive(Clone, Copy, Debug, Default)]
pub struct Ledger([WireDay; 2]);

/// Returns the size of a datagram on the link to `remote`, headers included.
pub fn on_the_wire(remote: SocketAddr, payload: usize) -> u64 {
    let ip = if remote.ip().to_canonical().is_ipv4() { IPV4_HEADER } else { IPV6_HEADER };
    payload as u64 + UDP_HEADER + ip
}

impl Ledger {
    pub fn restored(days: [WireDay; 2]) -> Self {
        Ledger(days)
    }

    pub fn days(&self) -> [WireDay; 2] {
        self.0
    }

    /// Returns the traffic of the current day, both directions together.
    pub fn today(&self, now: Wall) -> u64 {
        let day = day_of(now);
        self.0.iter().find(|counted| counted.day == day).map_or(0, WireDay::total)
    }

    pub fn note_rx(&mut self, bytes: u64, now: Wall) {
        self.on(now).rx_bytes += bytes;
    }

    pub fn note_tx(&mut self, bytes: u64, now: Wall) {
        self.on(now).tx_bytes += bytes;
    }

    fn on(&mut self, now: Wall) -> &mut WireDay {
        let day = day_of(now);
        if self.0[0].day != day {
            self.0.swap(0, 1);
        }
        if self.0[0].day != day {
            self.0[0] = WireDay { day, ..WireDay::default() };
        }
        &mut self.0[0]
    }
}

fn day_of(now: Wall) -> i64 {
    now.as_millis().div_euclid(DAY_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> Wall {
        Wall::from_millis(hours * 3_600_000)
    }

    #[test]
    fn each_day_has_its_own_count_and_the_last_two_are_kept() {
        let mut ledger = Ledger::default();
        ledger.note_rx(10, at(23));
        ledger.note_tx(5, at(25));
        assert_eq!((ledger.today(at(23)), ledger.today(at(25)), ledger.today(at(49))), (10, 5, 0));
        ledger.note_rx(1, at(49));
        assert_eq!(ledger.days().map(|day| (day.day, day.total())), [(2, 1), (1, 5)]);
    }

    #[test]
    fn a_clock_that_goes_back_over_midnight_goes_on_counting_that_day() {
        let mut ledger = Ledger::default();
        ledger.note_rx(10, at(23));
        ledger.note_rx(1, at(24));
        ledger.note_rx(2, at(23));
        assert_eq!((ledger.today(at(23)), ledger.today(at(24))), (12, 1));
    }

    #[test]
    fn headers_are_those_of_the_family_on_the_link() {
        let size = |text: &str| on_the_wire(text.parse().expect("an address"), 32);
        assert_eq!(
            (size("192.0.2.1:1"), size("[::ffff:192.0.2.1]:1"), size("[2001:db8::1]:1")),
            (60, 60, 80)
        );
    }
}
