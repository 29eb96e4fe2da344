//! Flood protection: limits on initiations per source and in total, and when cookies are required.
//!
//! All counters have a fixed size. The module does not look into datagrams, and the caller supplies
//! all times.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use blake2::digest::FixedOutput as _;

use crate::time::Mono;
use crate::tunnel::handshake::initiation::mac;

/// Initiations per second over all sources before cookies are required. One takes a third of a
/// millisecond, and less if it fails to open: at this rate a fifth of a core. 100,000 devices in
/// steady state make 833.
pub const DEFAULT_LOAD_PER_S: u32 = 2_000;

/// Initiations per second from one source (an IPv4 address, an IPv6 /64) that has not proved its
/// address. Beyond this rate the source is sent a cookie. A whole fleet may share one address of a
/// carrier.
const UNPROVEN_PER_S: u32 = 100;
/// Burst per unproven source: a site of this many devices may come back at once after a power cut.
const UNPROVEN_BURST: u32 = 500;
/// The same for a source with a valid cookie. Its address is real, so a source cannot use up the
/// share of another.
const PROVEN_PER_S: u32 = 20;
const PROVEN_BURST: u32 = 200;

/// Cells of a table; each source has two of them. The table takes 128 KiB, and one flooding source
/// blocks a given bystander once in 10^8 cases.
const CELLS: usize = 16_384;

/// A token bucket, stored as the time at which it is full again.
#[derive(Clone, Copy)]
struct RateLimit {
    interval: Duration,
    burst: Duration,
}

impl RateLimit {
    fn new(per_s: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / per_s.max(1);
        RateLimit { interval, burst: interval * burst }
    }

    fn take(self, full_at: &mut Mono, now: Mono) -> bool {
        let next = (*full_at).max(now) + self.interval;
        let allowed = next <= now + self.burst;
        if allowed {
            *full_at = next;
        }
        allowed
    }
}

/// Token buckets of all sources, in a table that never grows. A source has two cells and passes if
/// one of them has a token: a bystander is blocked only if floods fill both of its cells.
struct Sources {
    pace: RateLimit,
    cells: Box<[Mono]>,
    key: [u8; 32],
}

impl Sources {
    fn new(pace: RateLimit, key: [u8; 32]) -> Self {
        Sources { pace, cells: vec![Mono::ZERO; CELLS].into_boxed_slice(), key }
    }

    fn take(&mut self, source: IpAddr, now: Mono) -> bool {
        let digest: [u8; 16] = mac(&self.key, &[&network_of(source)]).finalize_fixed().into();
        let (one, two) = digest.split_at(8);
        let [one, two] = [one, two].map(|half| {
            let number = u64::from_le_bytes(half.try_into().expect("half of 16 bytes"));
            number as usize % CELLS
        });
        let first = self.pace.take(&mut self.cells[one], now);
        let second = self.pace.take(&mut self.cells[two], now);
        first || second
    }
}

/// Returns the network that one customer of the Internet usually holds: an IPv4 address, a /64 of
/// IPv6.
fn network_of(source: IpAddr) -> [u8; 8] {
    match source.to_canonical() {
        IpAddr::V4(v4) => [&[0; 4][..], &v4.octets()].concat().try_into().expect("8 bytes"),
        IpAddr::V6(v6) => v6.octets()[..8].try_into().expect("8 bytes"),
    }
}

/// The load: whether there are more initiations than the gateway should open. High load begins
/// within the second in which the limit is exceeded. It ends after a second with less than half of
/// the limit, at most 2 s after a flood.
struct Load {
    limit: u32,
    second: u64,
    count: u32,
    high: bool,
}

impl Load {
    fn note(&mut self, now: Mono) -> bool {
        let second = now.as_nanos() / 1_000_000_000;
        if second != self.second {
            let calm = second != self.second + 1 || self.count < self.limit.div_ceil(2);
            self.high &= !calm;
            (self.second, self.count) = (second, 0);
        }
        self.count = self.count.saturating_add(1);
        self.high |= self.count > self.limit;
        self.high
    }
}

/// The decision about one initiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Open,
    /// Open it only with a valid cookie.
    AskForCookie,
    Refuse,
}

pub struct Floods {
    load: Load,
    unproven: Sources,
    proven: Sources,
    /// Limit over all proven sources, since they may be many as well. It equals the limit without
    /// load.
    total: RateLimit,
    total_full_at: Mono,
}

impl Floods {
    /// Creates the counters. `seed` decides which sources share cells, so it must be unpredictable.
    pub fn new(load_per_s: u32, seed: [u8; 32]) -> Self {
        Floods {
            load: Load { limit: load_per_s, second: 0, count: 0, high: false },
            unproven: Sources::new(RateLimit::new(UNPROVEN_PER_S, UNPROVEN_BURST), seed),
            proven: Sources::new(RateLimit::new(PROVEN_PER_S, PROVEN_BURST), seed),
            total: RateLimit::new(load_per_s, load_per_s),
            total_full_at: Mono::ZERO,
        }
    }

    /// Decides about one initiation. `proven`: the datagram carries a cookie that was recently sent
    /// to its source.
    pub fn admit(&mut self, from: SocketAddr, proven: bool, now: Mono) -> Admission {
        if proven {
            return self.admit_proven(from.ip(), now);
        }
        // The excess of one loud source does not count as load, so the others go on without
        // cookies.
        if !self.unproven.take(from.ip(), now) || self.load.note(now) {
            return Admission::AskForCookie;
        }
        Admission::Open
    }

    fn admit_proven(&mut self, source: IpAddr, now: Mono) -> Admission {
        let allowed = self.proven.take(source, now) && self.total.take(&mut self.total_full_at, now);
        if allowed { Admission::Open } else { Admission::Refuse }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u32 = 2_000;

    fn floods() -> Floods {
        Floods::new(LIMIT, [7; 32])
    }

    fn source(n: u32) -> SocketAddr {
        SocketAddr::new(IpAddr::V4((0x0a00_0000 + n).into()), 1_000)
    }

    /// Sends `per_s` initiations a second from `from(i)`, spread evenly; returns how many were
    /// opened.
    fn flood(
        floods: &mut Floods,
        seconds: std::ops::Range<u64>,
        per_s: u64,
        from: impl Fn(u64) -> SocketAddr,
    ) -> usize {
        let times = (seconds.start * per_s)..(seconds.end * per_s);
        let at = |i: u64| Mono::from_nanos(i * (1_000_000_000 / per_s));
        times.filter(|&i| floods.admit(from(i), false, at(i)) == Admission::Open).count()
    }

    #[test]
    fn one_loud_source_gets_its_share_and_bystanders_need_no_cookie() {
        let mut floods = floods();
        let opened = flood(&mut floods, 10..15, 5_000, |_| source(1));
        assert!((900..=1_001).contains(&opened), "{opened}");
        for n in 2..500 {
            assert_eq!(floods.admit(source(n), false, Mono::from_secs(15)), Admission::Open);
        }
    }

    #[test]
    fn a_flood_from_everywhere_brings_cookies_which_end_within_three_seconds() {
        let mut floods = floods();
        let opened = flood(&mut floods, 10..15, 5_000, |i| source(i as u32));
        assert!(opened <= LIMIT as usize, "{opened}");
        let bystander = source(1_000_000);
        let (during, after) = (Mono::from_millis(15_001), Mono::from_secs(18));
        assert_eq!(floods.admit(bystander, false, during), Admission::AskForCookie);
        assert_eq!(floods.admit(bystander, true, during), Admission::Open);
        assert_eq!(floods.admit(bystander, false, after), Admission::Open);
    }

    #[test]
    fn cookies_end_also_while_quiet_bystanders_go_on() {
        let mut floods = floods();
        flood(&mut floods, 10..15, 5_000, |i| source(i as u32));
        let late = flood(&mut floods, 15..18, 10, |i| source(2_000_000 + i as u32));
        assert!(late >= 10, "{late}");
    }

    #[test]
    fn a_rate_just_below_the_limit_never_brings_cookies() {
        let opened = flood(&mut floods(), 10..20, u64::from(LIMIT), |i| source(i as u32));
        assert_eq!(opened, 10 * LIMIT as usize);
    }

    #[test]
    fn a_proven_source_has_a_share_of_its_own_that_spoofers_cannot_use_up() {
        let mut floods = floods();
        flood(&mut floods, 10..11, 10_000, |_| source(1));
        let now = Mono::from_secs(11);
        let opened = (0..1_000).filter(|_| floods.admit(source(1), true, now) == Admission::Open).count();
        assert_eq!(opened, PROVEN_BURST as usize);
    }

    #[test]
    fn all_proven_sources_together_get_no_more_than_the_limit() {
        let mut floods = floods();
        let now = Mono::from_secs(10);
        let opened = (0..10_000).filter(|&n| floods.admit(source(n), true, now) == Admission::Open).count();
        assert_eq!(opened, LIMIT as usize);
    }

    #[test]
    fn ports_and_hosts_of_one_network_are_one_source() {
        let of = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
    }
}
