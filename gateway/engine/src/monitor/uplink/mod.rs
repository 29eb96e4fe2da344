//! Acts on the fleet-silence rule and the uplink check. Witnesses are checked, no failure counts
//! while the gateway may be cut off, and one notification covers all hosts. Failures count again
//! once a host is heard, or the uplink is back.

pub(super) mod fleet_silence;
pub(super) mod health;

use crate::id::HostId;
use crate::messages::{EventKind, GATEWAY, HostStatus, MessageKind, MonitorOutput, Record, UplinkReading};
use crate::time::{Now, Wall};

use super::Monitor;
use crate::monitor::notification::records::Subject;
use crate::monitor::notification::suppress::Emitted;
use crate::monitor::notification::transition::Notice;
use crate::monitor::uplink::fleet_silence::{Loss, SilenceAction};
use crate::monitor::uplink::health::Sight;

/// The number of hosts, from the whole fleet, that are checked for a sign of life: one that replies
/// is enough.
const WITNESSES: usize = 8;
/// The name of the gateway in a message.
const NAME: &str = "gateway";

impl Monitor {
    /// Continues from an earlier run that ended while cut off: no failure counts before a host is
    /// heard.
    pub(super) fn was_cut_off(&mut self, now: Now) {
        self.population.restore_lost(now.mono);
        self.shared.cut_off = true;
    }

    pub(super) fn weigh(&mut self, step: Option<SilenceAction>, now: Now) {
        let doubtful = self.population.is_doubtful();
        self.shared.cut_off = doubtful;
        self.shared.asks_witnesses = self.population.asks();
        match step {
            None => {}
            Some(SilenceAction::ProbeRequest) => self.probe_witnesses(now),
            Some(SilenceAction::Lost(loss)) => {
                let text = lost_words(self.sentinel.fault(), loss);
                self.tell_of_gateway(HostStatus::Down, &text, now);
            }
            Some(SilenceAction::Back) => {
                self.see_again(now);
                self.tell_of_gateway(
                    HostStatus::Up,
                    "the gateway's own uplink is back: a host was heard from",
                    now,
                );
            }
            Some(SilenceAction::Seen) => {
                self.see_again(now);
                let text = "the gateway's own uplink has no fault that it can see, and no host was heard \
                            from: hosts that stay silent are reported individually";
                self.tell_of_gateway(HostStatus::Up, text, now);
            }
        }
    }

    /// Applies a reading of the gateway's own uplink from the shell.
    pub(super) fn see_outside(&mut self, reading: &UplinkReading, now: Now) {
        self.shared.is_watched = true;
        let sight = self.sentinel.see(reading, now.mono);
        self.population.look_up(self.sentinel.sky());
        let step = match sight {
            Sight::Same => {
                self.sentinel.is_clear(reading).and_then(|proved| self.population.clear_sky(proved, now.mono))
            }
            Sight::Dim => self.population.suspect_uplink(now.mono),
            Sight::Dark => None,
            Sight::Clear => self.population.excuse(now.mono),
        };
        self.weigh(step, now);
        self.end_doubts(now);
    }

    /// Ends the doubts that a newer reading resolved, or that none will resolve.
    pub(super) fn end_doubts(&mut self, now: Now) {
        let doubted = |id: &HostId| self.hosts.get(id).is_some_and(|host| host.reach.is_in_doubt());
        let doubted: Vec<HostId> = self.hosts.keys().copied().filter(doubted).collect();
        for id in doubted {
            self.refresh(id, now);
        }
    }

    /// Requests a reading because a host fails: the gateway may be the cause.
    pub(super) fn look_outside(&mut self, now: Now) {
        let accusation = self.sentinel.fault().and_then(|_| self.population.suspect_uplink(now.mono));
        self.weigh(accusation, now);
        self.sentinel.want(now.mono);
        self.look_as_wanted(now);
    }

    /// Emits the request at once, or when the last reading is long enough ago.
    pub(super) fn look_as_wanted(&mut self, now: Now) {
        if self.sentinel.looks(now.mono) {
            self.shared.out.push_back(MonitorOutput::ProbeUplink);
        }
    }

    /// Gives up a reading that never came.
    pub(super) fn give_up_looking(&mut self, now: Now) {
        if self.sentinel.gives_up().is_some_and(|at| at <= now.mono) {
            self.sentinel.give_up();
            self.end_doubts(now);
        }
    }

    /// Checks witnesses. Sleeping hosts rarely reply, so they are only used if no others are left.
    fn probe_witnesses(&mut self, now: Now) {
        let there =
            |id: &HostId| self.hosts[id].track.hard == HostStatus::Up && !self.population.is_silent(*id);
        let all = self.hosts.keys().copied().filter(there);
        let (asleep, awake): (Vec<HostId>, Vec<HostId>) = all.partition(|id| self.hosts[id].asleep);
        let candidates = if awake.is_empty() { asleep } else { awake };
        let stride = (candidates.len() / WITNESSES).max(1);
        for id in candidates.into_iter().step_by(stride).take(WITNESSES) {
            self.with(id, now, |host, ctx| host.check_for_child(Some(ctx.now.mono), ctx));
        }
    }

    /// Starts a grace period of one interval for all hosts: silence until now was the gateway's.
    fn see_again(&mut self, now: Now) {
        self.shared.woke = Some(now.mono);
        for id in self.ids() {
            self.with(id, now, |host, ctx| host.excuse_silence(ctx.now.mono));
        }
    }

    fn tell_of_gateway(&mut self, to: HostStatus, text: &str, now: Now) {
        let (event, kind, from) = match to {
            HostStatus::Down => (EventKind::UplinkLost, MessageKind::Problem, HostStatus::Up),
            _ => (EventKind::UplinkBack, MessageKind::Recovery, HostStatus::Down),
        };
        self.note_uplink(to == HostStatus::Down, now);
        let at: Wall = now.wall;
        let subject = Subject { host: GATEWAY, name: NAME, service: None, output: text, since: at, at };
        let mut ctx = self.shared.ctx(now);
        ctx.record(subject.event(event, text.to_owned(), ""));
        let told: Vec<Record> = subject.records(vec![Emitted::Notification(Notice { kind, from, to })]);
        told.into_iter().for_each(|record| ctx.record(record));
    }
}

fn lost_words(fault: Option<&str>, loss: Loss) -> String {
    let silent = loss.words();
    let why = match (fault, loss.crowd) {
        (Some(fault), true) => format!("is down: {fault}, and {silent}"),
        (Some(fault), false) => format!("is down: {fault}, and no host answers"),
        (None, _) => format!("is probably down: {silent}, and no other answers"),
    };
    format!("the gateway's own uplink {why}. Notifications of hosts are suppressed until it is back")
}
