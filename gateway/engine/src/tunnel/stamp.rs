//! Arithmetic on WireGuard's handshake timestamps.

use std::time::Duration;

use crate::wire::Tai64n;

/// The label of 1970-01-01T00:00:10 TAI, from which the Linux kernel, wireguard-go and the other
/// clients of wireguard.com count Unix seconds. (boringtun counts from 37: the clock of such a
/// client seems 27 s ahead.)
const EPOCH: u64 = (1 << 62) + 10;

fn parts(stamp: Tai64n) -> (u64, u32) {
    let (seconds, nanos) = stamp.0.split_at(8);
    (
        u64::from_be_bytes(seconds.try_into().expect("eight bytes")),
        u32::from_be_bytes(nanos.try_into().expect("four bytes")),
    )
}

/// Returns milliseconds since 1970 by the clock that made the stamp. The stamp is authenticated but
/// not trusted: any value gives a number.
pub fn unix_ms(stamp: Tai64n) -> i64 {
    let (seconds, nanos) = parts(stamp);
    (seconds.wrapping_sub(EPOCH) as i64).saturating_mul(1_000).saturating_add(i64::from(nanos / 1_000_000))
}

/// Clients built on boringtun count from 37 s, so their clocks seem this far ahead.
const BORINGTUN_AHEAD_MS: i64 = 27_000;
/// Tolerance for a handshake over a slow link and a clock kept by NTP.
const ABOUT_MS: i64 = 1_500;

/// Returns the sender's clock minus ours, in milliseconds. An offset that looks like boringtun's
/// way of counting is corrected, and is not taken for a wrong clock.
pub fn skew_ms(stamp: Tai64n, wall_ms: i64) -> i64 {
    let raw = unix_ms(stamp).saturating_sub(wall_ms);
    let counted = raw.saturating_sub(BORINGTUN_AHEAD_MS);
    if (-ABOUT_MS..=ABOUT_MS).contains(&counted) { counted } else { raw }
}

/// Returns how far `older` lies behind `newer`, or zero.
pub fn behind(newer: Tai64n, older: Tai64n) -> Duration {
    let length = |(seconds, nanos): (u64, u32)| {
        Duration::from_secs(seconds).saturating_add(Duration::from_nanos(u64::from(nanos)))
    };
    length(parts(newer)).saturating_sub(length(parts(older)))
}

/// Returns the stamp of a moment, as a client makes it.
#[cfg(any(test, feature = "sim"))]
pub fn from_unix_ms(ms: i64) -> Tai64n {
    let seconds = EPOCH.wrapping_add_signed(ms.div_euclid(1_000));
    let nanos = ms.rem_euclid(1_000) as u32 * 1_000_000;
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&seconds.to_be_bytes());
    bytes[8..].copy_from_slice(&nanos.to_be_bytes());
    Tai64n(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_known_stamp_is_read_as_the_other_implementations_write_it() {
        // 2022-02-02T02:02:02Z by the kernel.
        let stamp = Tai64n([0x40, 0, 0, 0, 0x61, 0xf9, 0xe5, 0x24, 0, 0, 0, 0]);
        assert_eq!(unix_ms(stamp), 0x61f9_e51a * 1_000);
    }

    #[test]
    fn a_client_that_counts_as_boringtun_has_no_wrong_clock_and_others_have() {
        let now = 1_700_000_000_000;
        let skew = |off: i64| skew_ms(from_unix_ms(now + off), now);
        assert_eq!([skew(0), skew(27_000), skew(26_950), skew(-27_000)], [0, 0, -50, -27_000]);
        assert_eq!([skew(25_000), skew(30_000), skew(3_600_000)], [25_000, 30_000, 3_600_000]);
    }

    proptest! {
        #[test]
        fn any_stamp_gives_a_number(bytes in any::<[u8; 12]>(), other in any::<[u8; 12]>()) {
            let _ = unix_ms(Tai64n(bytes));
            let _ = behind(Tai64n(bytes), Tai64n(other));
        }

        #[test]
        fn stamps_keep_milliseconds_and_order(a in -2_000_000_000_000i64..4_000_000_000_000, step in 0u32..1_000_000) {
            let (older, newer) = (from_unix_ms(a), from_unix_ms(a + i64::from(step)));
            prop_assert_eq!(unix_ms(older), a);
            prop_assert!(older <= newer);
            prop_assert_eq!(behind(newer, older), Duration::from_millis(step.into()));
            prop_assert_eq!(behind(older, newer), Duration::ZERO);
        }
    }
}
