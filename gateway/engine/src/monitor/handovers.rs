//! When rented devices are handed over. The gate of a rental is judged at its begin, and at each change of its device.
//!
//! The gate is passed when nothing was seen to fail for the time that it wants. What was before a start of the gateway,
//! a suspend or an outage of its uplink does not count. A rental is handed over once: a later problem is none of the
//! gate.
//!
//! A shipped device arrives when it is up again after it had left. One that had left before its rental begins, and was
//! never silent, has arrived when it is up at that moment. Only then does its gate count.
//!
//! A block is judged by both clocks, as the packet filter does: a clock that was set back lets no device be handed over in
//! one. Windows are judged by the clock that is shown. One that is over by the other clock keeps the packets of renters out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Monitor;
use crate::forward::KnownTimes;
use crate::id::{HostId, RentalId};
use crate::messages::{Arrival, FirstContact, GateRule, HandedOver, HandoverSpec, MonitorOutput};
use crate::monitor::host::Host;
use crate::monitor::schedule::DueQueue;
use crate::rental::handover::{DeviceSeen, ServiceSeen, failures, good_since};
use crate::time::{Mono, Now, Wall};

/// A handover that comes this soon after the begin of the rental is no delay. The gateway wakes up milliseconds late.
const LATENESS: Duration = Duration::from_secs(1);
/// A rental is kept this long after its end: a clock that was ahead may be set back.
const KEPT: Duration = Duration::from_secs(86_400);

/// The observations of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    /// Nothing yet. The times of its states count.
    None,
    /// Something failed.
    Failing,
    /// Nothing has failed since then.
    Good(Mono),
}

/// The times that make results doubtful.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    /// When results became meaningful again.
    woke: Option<Mono>,
    is_cut_off: bool,
}

#[derive(Debug)]
struct Waiting {
    spec: HandoverSpec,
    sight: Sight,
    /// When it had left, of a shipped device that was heard from.
    arrived_of: Option<Wall>,
}

impl Waiting {
    /// Returns the first contact with a shipped device, if this is it.
    fn arrive(&mut self, host: Option<&Host>, doubt: Doubt, now: Now) -> Option<FirstContact> {
        let HandoverSpec { rental, host: of, from, until, arrival, .. } = self.spec;
        let Arrival::Awaited { dispatched_at } = arrival else { return None };
        if until <= now.wall {
            // What is heard of it then, is heard on its way back.
            return None;
        }
        let device = host.map(device_seen).filter(|device| device.is_up() && !doubt.is_cut_off)?;
        let may_be_there = dispatched_at < from && from <= now.wall;
        if device.since <= dispatched_at && !may_be_there {
            return None;
        }
        self.spec.arrival = Arrival::Done;
        self.arrived_of = Some(dispatched_at);
        Some(FirstContact { rental, host: of, at: now.wall })
    }

    /// Returns when the device can be handed over, if nothing changes. `None`: not before a change. `free_from`: when its
    /// blocks are over.
    fn due(&mut self, host: Option<&Host>, free_from: Mono, doubt: Doubt, now: Now) -> Option<Mono> {
        let Waiting { spec, sight, .. } = self;
        let passes_at = match &spec.rule {
            Some(rule) => {
                *sight = look(*sight, rule, host, doubt, now);
                if let Sight::Good(since) = sight { Some(*since + rule.ok_for) } else { None }
            }
            None => Some(now.mono),
        };
        let may_begin = match spec.arrival {
            Arrival::Done => true,
            Arrival::NotDispatched => false,
            // Whether it has arrived is judged again when the rental begins.
            Arrival::Awaited { dispatched_at } => dispatched_at < spec.from && now.wall < spec.from,
        };
        let is_open = spec.handed_over_at.is_none() && spec.is_ready && may_begin && now.wall < spec.until;
        let begins_at = now.mono + spec.from.since(now.wall);
        passes_at.filter(|_| is_open).map(|passes_at| passes_at.max(begins_at).max(free_from))
    }

    /// Notes that the device is handed over now.
    fn hand_over(&mut self, now: Now) -> HandedOver {
        let spec = &mut self.spec;
        let at = if now.wall.since(spec.from) <= LATENESS { spec.from } else { now.wall };
        spec.handed_over_at = Some(at);
        HandedOver { rental: spec.rental, host: spec.host, at }
    }
}

/// Returns what is seen of a device after what was seen before.
fn look(before: Sight, rule: &GateRule, host: Option<&Host>, doubt: Doubt, now: Now) -> Sight {
    let device = host.map(device_seen);
    let services = host.map(services_seen).unwrap_or_default();
    let is_failing = doubt.is_cut_off || !failures(rule, device.as_ref(), &services).is_empty();
    match (before, device) {
        (_, None) => Sight::Failing,
        _ if is_failing => Sight::Failing,
        (Sight::None, Some(device)) => {
            let since = now.mono_at(good_since(rule, &device, &services));
            Sight::Good(doubt.woke.map_or(since, |woke| since.max(woke)))
        }
        (Sight::Failing, _) => Sight::Good(now.mono),
        (good @ Sight::Good(_), _) => good,
    }
}

fn device_seen(host: &Host) -> DeviceSeen {
    DeviceSeen {
        status: host.track.status,
        is_reachable: host.reach.is_reachable(),
        is_current: !host.asleep && !host.result.is_stale(),
        since: host.result.since().status,
    }
}

fn services_seen(host: &Host) -> Vec<ServiceSeen<'_>> {
    let checked = host.services.iter().filter(|service| !service.is_of_rental());
    let seen = checked.map(|service| ServiceSeen {
        name: &service.spec.name,
        status: service.track.status,
        is_current: !service.stale,
        since: service.since().status,
    });
    seen.collect()
}

/// The rentals that await, or had, a handover.
#[derive(Debug, Default)]
pub(super) struct Handovers {
    rentals: BTreeMap<RentalId, Waiting>,
    of_host: BTreeMap<HostId, BTreeSet<RentalId>>,
    times: KnownTimes,
    /// When each is judged next.
    agenda: DueQueue,
    was_cut_off: bool,
}

impl Handovers {
    /// Adds or changes a rental.
    pub fn put(&mut self, mut spec: HandoverSpec, now: Now) {
        let (rental, host) = (spec.rental, spec.host);
        let before = self.forget(rental).filter(|before| before.spec.host == host);
        // The store may not have the handover yet, or still the one by a clock that was ahead.
        let known = before.as_ref().and_then(|before| before.spec.handed_over_at);
        spec.handed_over_at = spec.handed_over_at.filter(|at| *at <= now.wall).or(known);
        // Nor the first contact.
        let arrived_of = before.as_ref().and_then(|before| before.arrived_of);
        if arrived_of.is_some_and(|dispatched_at| spec.arrival == Arrival::Awaited { dispatched_at }) {
            spec.arrival = Arrival::Done;
        }
        let sight = before.filter(|before| before.spec.rule == spec.rule).map(|before| before.sight);
        self.times.put(rental, Some(spec.until), &spec.blocks, now);
        self.rentals.insert(rental, Waiting { spec, sight: sight.unwrap_or(Sight::None), arrived_of });
        self.of_host.entry(host).or_default().insert(rental);
        self.agenda.set(rental, Some(now.mono));
    }

    fn forget(&mut self, rental: RentalId) -> Option<Waiting> {
        let before = self.rentals.remove(&rental)?;
        self.agenda.set(rental, None);
        let host = before.spec.host;
        if let Some(rentals) = self.of_host.get_mut(&host) {
            rentals.remove(&rental);
            if rentals.is_empty() {
                self.of_host.remove(&host);
            }
        }
        Some(before)
    }

    pub fn remove(&mut self, rental: RentalId) {
        self.forget(rental);
        self.times.forget(rental);
    }

    /// Notes the progress of the clocks.
    pub fn look(&mut self, now: Now) {
        if self.times.look(now) {
            self.touch_all(now.mono);
        }
    }

    /// Notes the greatest time that the clock has shown in earlier runs.
    pub fn set_floor(&mut self, floor: Wall) {
        self.times.set_floor(floor);
    }

    /// The clock is right by the word of an admin.
    pub fn accept_clock(&mut self, now: Now) {
        self.times.accept_clock(now);
        self.touch_all(now.mono);
    }

    /// Notes that a host may have changed.
    pub fn touch(&mut self, host: HostId, now: Mono) {
        for rental in self.of_host.get(&host).into_iter().flatten() {
            self.agenda.set(*rental, Some(now));
        }
    }

    fn touch_all(&mut self, now: Mono) {
        for rental in self.rentals.keys() {
            self.agenda.set(*rental, Some(now));
        }
    }

    /// After a suspend: nothing was seen in that time.
    pub fn skip_missed(&mut self, now: Mono) {
        self.rentals.values_mut().for_each(|waiting| waiting.sight = Sight::None);
        self.touch_all(now);
    }

    /// After a step of the wall clock: a handover of the future is to come again.
    pub fn mind_step(&mut self, now: Now) {
        for waiting in self.rentals.values_mut() {
            waiting.spec.handed_over_at = waiting.spec.handed_over_at.filter(|at| *at <= now.wall);
        }
        self.touch_all(now.mono);
    }

    pub fn due(&self) -> Option<Mono> {
        self.agenda.first().into_iter().chain(self.times.due()).min()
    }
}

impl Monitor {
    /// Judges the gates that may have changed, and those whose time has come.
    pub(super) fn judge_handovers(&mut self, now: Now) {
        let doubt = Doubt { woke: self.shared.woke, is_cut_off: self.shared.cut_off };
        if self.handovers.was_cut_off != doubt.is_cut_off {
            self.handovers.was_cut_off = doubt.is_cut_off;
            self.handovers.touch_all(now.mono);
        }
        while let Some(rental) = self.handovers.agenda.pop_due(now.mono) {
            let Some(waiting) = self.handovers.rentals.get_mut(&rental) else { continue };
            if waiting.spec.until + KEPT <= now.wall {
                self.handovers.remove(rental);
                continue;
            }
            let host = self.hosts.get(&waiting.spec.host);
            let arrival = waiting.arrive(host, doubt, now).map(MonitorOutput::FirstContact);
            self.shared.out.extend(arrival);
            let free_from = self.handovers.times.free_from(rental, &waiting.spec.blocks, now);
            match waiting.due(host, free_from, doubt, now) {
                Some(at) if at <= now.mono => {
                    let handover = waiting.hand_over(now);
                    self.shared.out.push_back(MonitorOutput::HandedOver(handover));
                }
                later => self.handovers.agenda.set(rental, later),
            }
        }
    }
}
