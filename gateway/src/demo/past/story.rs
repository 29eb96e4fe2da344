//! What happened to the fleet of the demo in its past: outages, and when the problems of the present began.
//!
//! Plain data. All times are counted back from the start of the demo.

use std::ops::Range;
use std::time::Duration;

use fleetgate_engine::time::Wall;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// A device or a whole site without power or uplink.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    /// The name of a device, or of a site.
    pub who: &'static str,
    begins_before: Duration,
    lasts: Duration,
}

impl Outage {
    pub fn span(&self, began: Wall) -> Range<Wall> {
        let begins = began - self.begins_before;
        begins..begins + self.lasts
    }
}

/// `begins`: days and hours before the start.
const fn outage(who: &'static str, (days, hours): (u64, u64), minutes: u64) -> Outage {
    let begins_before = Duration::from_secs(days * DAY + hours * HOUR);
    Outage { who, begins_before, lasts: Duration::from_secs(minutes * MINUTE) }
}

/// The first one is the gap of three hours in the disk of cam-04.
pub const OUTAGES: [Outage; 12] = [
    outage("harbour", (0, 9), 180),
    outage("cam-07", (0, 4), 20),
    outage("quarry", (1, 15), 35),
    outage("cam-14", (3, 6), 25),
    outage("quarry", (6, 10), 50),
    outage("cam-19", (8, 12), 95),
    outage("wind-farm", (11, 20), 140),
    outage("cam-02", (13, 9), 20),
    outage("bridge-north", (16, 5), 75),
    outage("quarry", (20, 14), 30),
    outage("stadium", (23, 11), 240),
    outage("cam-20", (26, 8), 60),
];

/// The device whose purge fails, and a time since which it has failed: the last one was in the night before.
pub const PURGE_STOPS_ON: &str = "cam-05";
pub const PURGE_STOPPED: Duration = Duration::from_secs(3 * DAY);

/// Returns for how long a fan or a program of a device had failed when the demo began.
pub fn fault_age(device: &str) -> Duration {
    let days = match device {
        "cam-02" => 5,
        "cam-11" => 12,
        "cam-12" => 2,
        _ => 9,
    };
    Duration::from_secs(days * DAY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::past::DAYS;
    use crate::demo::plan;

    #[test]
    fn outages_are_of_the_fleet_and_keep_clear_of_the_days_in_which_the_past_is_lived() {
        let plan = plan::plan();
        let is_of_fleet = |who: &str| plan.iter().any(|d| d.name == who || d.labels["site"] == who);
        for outage in OUTAGES {
            assert!(is_of_fleet(outage.who), "{outage:?}");
            let begins = outage.begins_before.as_secs();
            let ends = begins.checked_sub(outage.lasts.as_secs()).expect("it ends before the start");
            assert_eq!(begins / DAY, ends / DAY, "{outage:?} ends on the day on which it begins");
            let near = |at: u64| (at % DAY).min(DAY - at % DAY) < HOUR;
            assert!(!near(begins) && !near(ends) && begins < u64::from(DAYS) * DAY, "{outage:?}");
        }
    }
}
