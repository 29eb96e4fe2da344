//! The only module that reads the clocks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleetgate_engine::time::{Mono, Now, Wall};

/// Returns both clocks. The boot-time clock counts time in suspend, so that a resumed machine knows how
/// long it was away.
pub fn now() -> Now {
    Now { mono: boot_time(), wall: wall() }
}

pub fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Both clocks at one moment, to convert times that the kernel notes.
pub struct Moment {
    mono: Mono,
    since_1970: Duration,
}

impl Moment {
    pub fn now() -> Moment {
        Moment {
            mono: boot_time(),
            since_1970: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        }
    }

    /// Converts a time that lies before this moment. A step of the wall clock between the two shows in the result.
    pub fn mono_at(&self, since_1970: Duration) -> Mono {
        self.mono - self.since_1970.saturating_sub(since_1970)
    }
}

/// Returns the instant at which a task with this time limit must be finished.
pub fn deadline(within: Duration) -> tokio::time::Instant {
    tokio::time::Instant::now() + within
}

#[allow(unsafe_code, reason = "std has no CLOCK_BOOTTIME")]
fn boot_time() -> Mono {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a valid timespec for the call to fill.
    let rc = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut t) };
    assert_eq!(rc, 0, "CLOCK_BOOTTIME exists on every Linux we run on");
    Mono::from_nanos(t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64)
}

/// Returns the number of UTC days since 1970.
pub fn day() -> i64 {
    wall().as_millis().div_euclid(86_400_000)
}
