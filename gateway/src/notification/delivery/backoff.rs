//! Decides which addresses are served and which have to wait. Pure: it knows no messages and no
//! network.
//!
//! Each address fails independently and waits longer each time, so one that hangs delays no other.
//! Addresses behind one mail server share a success: the first delivery frees the others for one retry
//! each. An address that then fails again is itself the cause.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleetgate_engine::time::Mono;

use crate::store::outbox::Channel;

/// Addresses of a channel that are served at the same time: as many may hang before others wait.
const AT_ONCE: usize = 8;

pub(in crate::notification::delivery) type Line = (Channel, String);

/// An address that failed.
#[derive(Clone, Copy)]
struct Failed {
    until: Mono,
    times: u32,
    /// The success of another address has freed it since its own last success.
    freed: bool,
}

#[derive(Default)]
pub(in crate::notification::delivery) struct AddressBackoff {
    busy: Vec<Line>,
    /// Addresses that received a message while they were served.
    again: BTreeSet<Line>,
    failed: BTreeMap<Line, Failed>,
    /// Times before which nothing is due.
    later: BTreeMap<Line, Mono>,
}

impl AddressBackoff {
    pub fn may_start(&self, line: &Line) -> bool {
        let of_channel = self.busy.iter().filter(|busy| busy.0 == line.0).count();
        of_channel < AT_ONCE && !self.busy.contains(line)
    }

    pub fn not_before(&self, line: &Line) -> Mono {
        let failed = self.failed.get(line).map(|failed| failed.until);
        failed.max(self.later.get(line).copied()).unwrap_or_default()
    }

    /// Sorts by number of failures: many hanging addresses must not keep a working one from its turn.
    pub fn in_order(&self, mut lines: Vec<Line>) -> Vec<Line> {
        lines.sort_by_key(|line| self.failed.get(line).map_or(0, |failed| failed.times));
        lines
    }

    /// The addresses that are being served.
    pub fn busy(&self) -> &[Line] {
        &self.busy
    }

    pub fn begin(&mut self, line: Line) {
        self.busy.push(line);
    }

    pub fn end(&mut self, line: &Line) {
        self.busy.retain(|busy| busy != line);
    }

    /// Records a delivery.
    pub fn sent(&mut self, line: &Line, now: Mono) {
        self.failed.remove(line);
        if line.0 == Channel::Webhook {
            return;
        }
        for (_, failed) in self.failed.iter_mut().filter(|(other, failed)| other.0 == line.0 && !failed.freed)
        {
            (failed.until, failed.freed) = (now, true);
        }
    }

    /// Records that the server is unreachable or accepts nothing. `pause` gets the number of earlier
    /// failures.
    pub fn failed(&mut self, line: Line, now: Mono, pause: impl FnOnce(u32) -> Duration) {
        self.again.remove(&line);
        let before = self.failed.get(&line).copied();
        let times = before.map_or(0, |failed| failed.times);
        let freed = before.is_some_and(|failed| failed.freed);
        self.failed.insert(line, Failed { until: now + pause(times), times: times + 1, freed });
    }

    /// Records when the next message is due, unless one arrived while the address was served: it may have
    /// arrived too late to be seen.
    pub fn idle_until(&mut self, line: Line, at: Mono) {
        if !self.again.remove(&line) {
            self.later.insert(line, at);
        }
    }

    /// Records that there are new messages.
    pub fn look_again(&mut self) {
        self.later.clear();
        self.again.extend(self.busy.iter().cloned());
    }

    /// Forgets all failures, because the servers may be others.
    pub fn forgive(&mut self) {
        self.failed.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(name: &str) -> Line {
        (Channel::Email, name.to_owned())
    }

    fn hook(name: &str) -> Line {
        (Channel::Webhook, name.to_owned())
    }

    fn at(secs: u64) -> Mono {
        Mono::from_secs(1_000 + secs)
    }

    #[test]
    fn addresses_that_failed_are_served_last() {
        let mut traffic = AddressBackoff::default();
        traffic.failed(mail("a"), at(0), minutes);
        assert_eq!(traffic.in_order(vec![mail("a"), mail("b")]), [mail("b"), mail("a")]);
    }

    fn minutes(times: u32) -> Duration {
        Duration::from_secs(60 << times)
    }

    #[test]
    fn the_pause_of_a_failing_address_grows_and_is_its_own() {
        let mut traffic = AddressBackoff::default();
        for (begin, waits) in [(0, 60), (60, 120), (180, 240)] {
            traffic.failed(mail("hangs"), at(begin), minutes);
            assert_eq!(traffic.not_before(&mail("hangs")), at(begin + waits));
            assert_eq!(traffic.not_before(&mail("ops")), Mono::default());
        }
    }

    #[test]
    fn the_first_success_retries_the_other_addresses_of_its_server_once() {
        let mut traffic = AddressBackoff::default();
        for line in [mail("ops"), mail("hangs"), hook("pager")] {
            traffic.failed(line, at(0), minutes);
        }
        traffic.sent(&mail("boss"), at(1));
        assert_eq!(traffic.not_before(&mail("ops")), at(1));
        assert_eq!(traffic.not_before(&mail("hangs")), at(1));
        assert_eq!(traffic.not_before(&hook("pager")), at(60), "another server");

        traffic.failed(mail("hangs"), at(2), minutes);
        traffic.sent(&mail("ops"), at(3));
        assert_eq!(traffic.not_before(&mail("hangs")), at(122), "it is to blame itself");
        traffic.sent(&mail("hangs"), at(200));
        assert_eq!(traffic.not_before(&mail("hangs")), Mono::default());
    }

    #[test]
    fn hanging_deliveries_are_bounded_per_channel() {
        let mut traffic = AddressBackoff::default();
        for n in 0..AT_ONCE {
            assert!(traffic.may_start(&mail(&n.to_string())));
            traffic.begin(mail(&n.to_string()));
        }
        assert!(!traffic.may_start(&mail("ops")) && traffic.may_start(&hook("pager")));
        traffic.end(&mail("3"));
        assert!(traffic.may_start(&mail("ops")) && !traffic.may_start(&mail("4")));
    }

    #[test]
    fn the_outbox_is_read_when_due_or_after_a_wakeup() {
        let mut traffic = AddressBackoff::default();
        traffic.idle_until(mail("ops"), at(300));
        assert_eq!(traffic.not_before(&mail("ops")), at(300));
        traffic.look_again();
        assert_eq!(traffic.not_before(&mail("ops")), Mono::default());
    }

    #[test]
    fn messages_that_arrive_during_a_delivery_are_found_afterwards() {
        let mut traffic = AddressBackoff::default();
        traffic.begin(mail("ops"));
        traffic.look_again();
        traffic.end(&mail("ops"));
        traffic.idle_until(mail("ops"), at(300));
        assert_eq!(traffic.not_before(&mail("ops")), Mono::default());
        traffic.idle_until(mail("ops"), at(300));
        assert_eq!(traffic.not_before(&mail("ops")), at(300));
    }
}
