//! Steps of the wall clock while incidents are open.

use super::*;

const HOUR: u64 = 3_600;

impl Watch {
    fn set_clock(&mut self, ahead_s: i64) {
        let before = self.now();
        self.ahead_s += ahead_s;
        let now = self.now();
        self.incidents.mind_step(ClockStep::between(before, now).expect("a step"), now);
        self.incidents.look(now);
    }

    fn ack_for(&self, secs: u64) -> IncidentAck {
        IncidentAck { expires: Some(self.now().wall + Duration::from_secs(secs)), ..ack() }
    }

    /// Returns the number of seconds after which the acknowledgement ends, up to a limit.
    fn ack_ends_after(&mut self, limit: u64) -> Option<u64> {
        (0..limit).find(|_| {
            self.wait(1);
            self.heard().contains(&"ack ended")
        })
    }
}

#[test]
fn a_failure_half_an_hour_later_opens_another_incident_after_a_clock_step_back() {
    for ahead_s in [0, -3_600] {
        let mut watch = Watch::of_site("north", 1);
        watch.problem(&service(0, "disk"));
        watch.wait(10).problem(&service(0, "load"));
        let both = watch.of(&service(0, "load"));
        watch.acknowledge(both, ack());
        watch.wait(60).well(&service(0, "load"));
        if ahead_s != 0 {
            watch.set_clock(ahead_s);
        }
        let placed = watch.wait(1_800).problem(&service(0, "load"));
        assert_eq!(placed.known, None, "the clock was set by {ahead_s} s");
    }
}

#[test]
fn a_failure_within_two_minutes_rejoins_its_incident_after_a_clock_step_back() {
    let mut watch = Watch::of_site("north", 1);
    watch.problem(&service(0, "disk"));
    watch.wait(10).problem(&service(0, "load"));
    let both = watch.of(&service(0, "load"));
    watch.wait(60).well(&service(0, "load"));
    watch.set_clock(-3_600);
    watch.wait(100).problem(&service(0, "load"));
    assert_eq!(watch.of(&service(0, "load")), both);
}

#[test]
fn an_acknowledgement_expires_by_the_calendar() {
    for (ahead_s, after) in [(5 * 3_600, None), (3 * 3_600, Some(HOUR)), (-3_600, Some(5 * HOUR))] {
        let mut watch = Watch::of_site("north", 1);
        watch.problem(&host(0));
        let id = watch.of(&host(0));
        let until = watch.ack_for(4 * HOUR);
        watch.acknowledge(id, until);
        watch.heard();
        watch.set_clock(ahead_s);
        match after {
            None => assert_eq!(watch.heard(), ["ack ended"], "its time is over"),
            Some(secs) => assert_eq!(watch.ack_ends_after(10 * HOUR), Some(secs - 1), "{ahead_s}"),
        }
    }
}

/// A site of which most hosts are down, with an acknowledged incident.
fn lost_site() -> Watch {
    let mut watch = Watch::of_site("hill", 6);
    (0..4).for_each(|n| drop(watch.problem(&host(n))));
    let lost = watch.of(&host(0));
    watch.acknowledge(lost, ack());
    watch
}

#[test]
fn a_host_that_fails_when_a_clock_step_repeats_the_time_of_an_old_loss_does_not_join_it() {
    let mut watch = lost_site();
    assert_eq!(watch.wait(60).problem(&host(4)).known, Some(ack()), "it fell with the others");
    watch.set_clock(-3_600);
    assert_eq!(watch.wait(HOUR).problem(&host(5)).known, None);
}

#[test]
fn a_site_is_lost_as_one_though_the_clock_is_set_back_meanwhile() {
    let mut watch = Watch::of_site("hill", 6);
    (0..2).for_each(|n| drop(watch.problem(&host(n))));
    let began = watch.now().wall;
    watch.wait(20).set_clock(-3_600);
    // Its failure began before the clock was set back, and no incident has it yet.
    let at = watch.at();
    watch.incidents.problem(&host(2), began, &ProblemFinding::default(), true, at);
    watch.wait(20).problem(&host(3));
    let all: BTreeSet<IncidentId> = (0..4).map(|n| watch.of(&host(n))).collect();
    assert_eq!(all.len(), 1);
    assert_eq!(watch.matter().cause, CauseKind::SiteLost);
}

#[test]
fn later_results_do_not_change_the_start_of_a_problem() {
    let mut watch = Watch::of_site("hill", 5);
    let began = watch.now().wall;
    (0..2).for_each(|n| drop(watch.problem(&host(n))));
    watch.set_clock(-3_600);
    watch.wait(HOUR);
    let at = watch.at();
    // The monitor still reports the start by the earlier clock.
    (0..2).for_each(|n| drop(watch.incidents.problem(&host(n), began, &ProblemFinding::default(), true, at)));
    watch.problem(&host(2));
    assert_eq!(watch.matter().cause, CauseKind::HostDown, "two of an hour ago are no lost site");
}

#[test]
fn the_uplink_takes_in_nothing_that_failed_before_the_clock_was_set_back() {
    let mut watch = Watch::of_site("hill", 1);
    watch.problem(&host(0));
    let old = watch.of(&host(0));
    watch.wait(HOUR).set_clock(-2 * 3_600);
    let at = watch.wait(60).at();
    watch.incidents.uplink(true, at);
    assert_eq!(watch.of(&host(0)), old);
}
