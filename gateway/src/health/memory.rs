//! Returns memory to the system after a load peak.
//!
//! The C library keeps freed memory for ever for the next allocation from the same pool. Ten logins of
//! 19 MiB each, or the rows of a flood, would stay resident. Large blocks therefore get pages of their
//! own, which go when they are freed. When much more is resident than in use, free pages are returned.
//! This applies to the GNU library alone: others return pages by themselves, or cannot.

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Gives large blocks pages of their own. The library's own threshold follows the largest block ever
/// freed, so that the 19 MiB of the second login would come from a pool.
pub fn set_up() {
    #[cfg(target_env = "gnu")]
    glibc::keep_large_blocks_apart();
}

#[cfg(not(target_env = "gnu"))]
pub fn start(_: &mut JoinSet<()>, _: CancellationToken) {}

#[cfg(target_env = "gnu")]
pub fn start(tasks: &mut JoinSet<()>, stop: CancellationToken) {
    /// Interval between two looks, each of which takes a millisecond.
    const EVERY: std::time::Duration = std::time::Duration::from_secs(5);
    tasks.spawn(async move {
        let mut idle = Idle::default();
        loop {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = stop.cancelled() => return,
            }
            // The call waits for the lock of each pool.
            let Ok(after) = tokio::task::spawn_blocking(move || give_back(idle)).await else { return };
            idle = after;
        }
    });
}

/// Resident memory that is not in use: the program itself, stacks, and free pages that a trim cannot
/// return.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Idle {
    /// The least since the last trim, in bytes. `None` before the first one: a flood in the first seconds
    /// must not count as the program itself.
    floor: Option<usize>,
}

impl Idle {
    /// Amount that may be kept for the next load, in bytes.
    const KEPT: usize = 8 * 1024 * 1024;

    /// Whether pages are to be returned, given this many idle bytes.
    fn is_too_much(&mut self, idle: usize) -> bool {
        let Some(floor) = self.floor.map(|floor| floor.min(idle)) else { return true };
        self.floor = Some(floor);
        idle > floor + Idle::KEPT
    }

    fn returned(&mut self, left: usize) {
        self.floor = Some(left);
    }
}

#[cfg(target_env = "gnu")]
fn give_back(mut idle: Idle) -> Idle {
    if idle.is_too_much(glibc::idle()) {
        glibc::trim();
        idle.returned(glibc::idle());
    }
    idle
}

#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "std does not know the allocator below it")]
mod glibc {
    /// Larger blocks are rare: password hashes, large bodies, lists of a whole fleet.
    const LARGE: libc::c_int = 512 * 1024;

    pub fn keep_large_blocks_apart() {
        // SAFETY: sets an option of the allocator for later blocks.
        unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
    }

    /// Returns the bytes that are resident and not in use.
    pub fn idle() -> usize {
        // SAFETY: reads the allocator's statistics, under its locks.
        let books = unsafe { libc::mallinfo2() };
        resident().saturating_sub(books.uordblks + books.hblkhd)
    }

    /// Returns the whole free pages of all pools to the system.
    pub fn trim() {
        // SAFETY: touches only unused pages, under the locks of the pools.
        unsafe { libc::malloc_trim(0) };
    }

    fn resident() -> usize {
        // SAFETY: reads a constant of the system.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4_096);
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0) * page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn what_a_flood_leaves_is_returned_once() {
        let mut idle = Idle::default();
        assert!(idle.is_too_much(30 * MIB), "what the start leaves");
        idle.returned(20 * MIB);
        assert!(!idle.is_too_much(20 * MIB), "the program itself");
        assert!(!idle.is_too_much(27 * MIB), "kept for what comes next");
        assert!(idle.is_too_much(220 * MIB));
        idle.returned(40 * MIB);
        assert!(!idle.is_too_much(42 * MIB), "what could not be returned is not tried again and again");
        assert!(!idle.is_too_much(22 * MIB) && idle.is_too_much(31 * MIB), "the least counts");
    }

    #[test]
    fn a_flood_before_the_first_look_is_returned_too() {
        let mut idle = Idle::default();
        assert!(idle.is_too_much(220 * MIB));
        idle.returned(20 * MIB);
        assert!(!idle.is_too_much(21 * MIB));
    }
}
