//! Assigns problems to incidents before they are notified. The results of hosts and services reach
//! the incidents here, and the records that leave the monitor refer to them.
//!
//! It does not decide which problems belong together; [`crate::incident`] does.

use crate::id::HostId;
use crate::incident::{Assigned, Moment, ProblemFinding};
use crate::messages::{
    AckEnd, Acknowledgement, CheckableId, EventKind, IncidentAck, IncidentChange, IncidentId, IncidentRecord,
    IncidentSnapshot, Message, MessageKind, MonitorOutput, Record, SuppressReason,
};
use crate::time::{Now, Wall};

use super::Monitor;
use crate::monitor::context::{Ctx, Shared};
use crate::monitor::host::Host;
use crate::monitor::notification::records::host_scene;
use crate::monitor::notification::suppress::{Emitted, Notifier};
use crate::monitor::state::Level;

/// The label that names a site.
pub(super) const SITE: &str = "site";

impl Shared {
    /// Moves the records of the incidents to the outputs, before any later record.
    pub(super) fn publish_incidents(&mut self) {
        while let Some(record) = self.incidents.poll_record() {
            self.out.push_back(MonitorOutput::Record(Record::Incident(record)));
        }
    }
}

impl Ctx<'_> {
    /// Queues a record to be committed, in order; a message gets its incident.
    pub fn record(&mut self, mut record: Record) {
        match &mut record {
            Record::Message(message) => self.attach_incident(message),
            Record::Event(event) => {
                if let EventKind::NotificationHeld { reason: SuppressReason::Acknowledged, .. } = event.kind {
                    let object = CheckableId { host: event.host, service: event.service.clone() };
                    if let Some((id, ack)) = self.shared.incidents.known(&object, self.now.wall) {
                        event.cause = format!("{id}, which it belongs to, is acknowledged by {}", ack.words);
                    }
                }
            }
            _ => {}
        }
        self.shared.out.push_back(crate::messages::MonitorOutput::Record(record));
    }

    /// A problem was assigned to an incident before its notification.
    fn attach_incident(&self, message: &mut Message) {
        let object = CheckableId { host: message.host, service: message.service.clone() };
        message.incident = self.shared.incidents.of(&object);
        let problem = message.kind == MessageKind::Problem && message.problem;
        debug_assert!(
            !problem || message.incident.is_some(),
            "{object:?} is told of, and belongs to nothing"
        );
    }

    /// Reports a hard problem, at each result that finds it.
    pub fn problem(
        &mut self,
        object: &CheckableId,
        began: Wall,
        found: &ProblemFinding,
        reachable: bool,
    ) -> Assigned {
        let placed = self.shared.incidents.problem(object, began, found, reachable, self.moment());
        self.shared.publish_incidents();
        placed
    }

    pub fn well(&mut self, object: &CheckableId) {
        self.shared.incidents.well(object, self.now);
        self.shared.publish_incidents();
    }

    /// Applies the acknowledgement of an incident to one of its members.
    fn cover(&mut self, object: &CheckableId, ack: IncidentAck) -> Option<Acknowledgement> {
        let (id, incident) = self.shared.incidents.cover(object, self.moment())?;
        self.shared.publish_incidents();
        let IncidentAck { sticky, expires, words } = ack;
        Some(Acknowledgement { id, sticky, expires, words, incident: Some(incident) })
    }

    /// Applies the acknowledgement of its new incident to a checkable, and ends that of the
    /// incident it has left.
    pub fn settle<S: Level>(
        &mut self,
        object: &CheckableId,
        placed: Assigned,
        notifier: &mut Notifier<S>,
    ) -> Option<Emitted<S>> {
        let ended = placed.left.and_then(|left| notifier.leave(left));
        if let Some(known) = placed.known.filter(|_| !notifier.is_acknowledged())
            && let Some(ack) = self.cover(object, known)
        {
            notifier.recall_ack(ack);
        }
        ended
    }
}

impl Host {
    /// Assigns the host to an incident. This waits while it is not known whether the host or a
    /// parent is down. A downtime is no incident.
    pub(super) fn place(&mut self, ctx: &mut Ctx<'_>) {
        let scene = host_scene(&self.spec, &self.windows, self.silence(), ctx.now);
        if !self.track.hard.is_problem() {
            ctx.well(&CheckableId::host(self.spec.id));
        } else if !self.reach.is_in_doubt() && !self.notifier.is_planned(&self.track, &scene) {
            self.find_place(ctx);
        }
    }

    /// Assigns a problem to an incident before its notification, if that was suppressed until now.
    pub(super) fn place_before_speech(&mut self, ctx: &mut Ctx<'_>) {
        let scene = host_scene(&self.spec, &self.windows, self.silence(), ctx.now);
        if self.notifier.may_complain(&self.track, &scene) {
            self.find_place(ctx);
        }
    }

    fn find_place(&mut self, ctx: &mut Ctx<'_>) {
        let object = CheckableId::host(self.spec.id);
        let placed = ctx.problem(
            &object,
            self.result.since().status,
            &ProblemFinding::default(),
            self.reach.is_reachable(),
        );
        let said = ctx.settle(&object, placed, &mut self.notifier);
        self.emit(said.into_iter().collect(), ctx);
    }

    /// Applies the acknowledgement of the incident to the host or a service.
    fn cover(&mut self, service: Option<&str>, ack: IncidentAck, ctx: &mut Ctx<'_>) {
        let object = CheckableId { host: self.spec.id, service: service.map(str::to_owned) };
        let incident = ctx.shared.incidents.of(&object);
        let free = match service.map(|name| self.position(name)) {
            None => self.track.status.is_problem() && self.notifier.is_free_for(incident),
            Some(Some(i)) => {
                let service = &self.services[i];
                service.track.status.is_problem() && service.notifier.is_free_for(incident)
            }
            Some(None) => false,
        };
        if free && let Some(ack) = ctx.cover(&object, ack) {
            self.acknowledge(service, ack, ctx);
        }
    }

    /// Removes the acknowledgement of the incident from the host or a service.
    fn uncover(&mut self, service: Option<&str>, incident: IncidentId, ctx: &mut Ctx<'_>) {
        let of_it = match service.map(|name| self.position(name)) {
            None => self.notifier.covered_by(incident),
            Some(Some(i)) => self.services[i].notifier.covered_by(incident),
            Some(None) => None,
        };
        if let Some(ack) = of_it {
            ctx.record(Record::AckEnded(ack, ctx.now.wall));
            self.unacknowledge(service, ctx);
        }
    }
}

impl Monitor {
    /// Restores the incidents that an earlier run left open, before the hosts are restored.
    pub fn recall_incidents(&mut self, open: Vec<IncidentSnapshot>, now: Now) {
        self.shared.incidents.restore(open, now);
    }

    /// Removes members that no longer exist, or whose state was not stored.
    pub(super) fn re_evaluate_incidents(&mut self, now: Now) {
        for object in self.shared.incidents.objects() {
            if !self.is_ill(&object) && object.host != crate::messages::GATEWAY {
                self.shared.incidents.forget(|o| *o == object, object.host, now);
            }
        }
        self.shared.publish_incidents();
    }

    fn is_ill(&self, object: &CheckableId) -> bool {
        let Some(host) = self.hosts.get(&object.host) else { return false };
        match &object.service {
            None => host.track.hard.is_problem(),
            Some(name) => {
                let service = host.position(name).map(|i| &host.services[i]);
                service.is_some_and(|s| s.track.hard.is_problem())
            }
        }
    }

    /// Introduces a host to the incidents, with its restored state.
    pub(super) fn introduce(&mut self, id: HostId) {
        let Some(host) = self.hosts.get(&id) else { return };
        let site = host.spec.labels.get(SITE).map(String::as_str);
        let state = (host.track.status != Level::PENDING)
            .then(|| host.track.hard.is_problem().then_some(host.result.since().status));
        self.neighbours.know(id, site);
        self.shared.incidents.know(id, &host.spec.name, site, &host.spec.parents, state);
        if host.track.hard.is_problem() && !host.reach.is_reachable() {
            self.shared.incidents.know_unreachable(id);
        }
        let tunnel = host.tunnel_service().map(|i| host.services[i].spec.name.as_str());
        self.shared.incidents.know_tunnel(id, tunnel);
        self.shared.incidents.know_services(id, host.services.iter().map(|s| s.spec.name.as_str()));
    }

    /// Removes the services that a host no longer has.
    pub(super) fn forget_lost_services(&mut self, id: HostId, now: Now) {
        let Some(host) = self.hosts.get(&id) else { return };
        let lost = |o: &CheckableId| o.service.as_deref().is_some_and(|name| host.position(name).is_none());
        self.shared.incidents.forget(lost, id, now);
        self.shared.publish_incidents();
    }

    pub(super) fn acknowledge_incident(&mut self, id: IncidentId, ack: &IncidentAck, now: Now) {
        let problem = self.shared.incidents.acknowledge(id, ack.clone(), now);
        if problem.is_empty() {
            return self.end_late_acknowledgement(id, now);
        }
        for object in problem {
            let service = object.service.as_deref();
            self.with(object.host, now, |host, ctx| host.cover(service, ack.clone(), ctx));
        }
    }

    /// Ends an acknowledgement that came too late: its incident was merged into another, or every
    /// member has recovered.
    fn end_late_acknowledgement(&mut self, id: IncidentId, now: Now) {
        self.shared.incidents.unacknowledge(id);
        let change = IncidentChange::AckEnded(AckEnd::Late);
        let record = Record::Incident(IncidentRecord { id, at: now.wall, change });
        self.shared.out.push_back(MonitorOutput::Record(record));
    }

    pub(super) fn unacknowledge_incident(&mut self, id: IncidentId, now: Now) {
        for object in self.shared.incidents.unacknowledge(id) {
            let service = object.service.as_deref();
            self.with(object.host, now, |host, ctx| host.uncover(service, id, ctx));
        }
    }

    /// Completes acknowledgements after a restart. The acknowledgement of an incident, or its end,
    /// is stored before those of its members, and the earlier run may have ended in between.
    pub(super) fn mend_acknowledgements(&mut self, now: Now) {
        self.cover_members(now);
        for (id, object) in self.shared.incidents.unknown() {
            self.with(object.host, now, |host, ctx| host.uncover(object.service.as_deref(), id, ctx));
        }
    }

    /// Applies the acknowledgements that merges caused, and closes or expires what is due.
    pub(super) fn look_after_incidents(&mut self, now: Now) {
        self.cover_members(now);
        self.shared.incidents.look(now);
        self.shared.publish_incidents();
    }

    fn cover_members(&mut self, now: Now) {
        while let Some(cover) = self.shared.incidents.poll_cover() {
            let service = cover.object.service.as_deref();
            self.with(cover.object.host, now, |host, ctx| host.cover(service, cover.ack, ctx));
        }
    }

    pub(super) fn note_uplink(&mut self, lost: bool, now: Now) {
        let at = self.shared.ctx(now).moment();
        self.shared.incidents.uplink(lost, at);
        self.shared.publish_incidents();
    }
}

impl Ctx<'_> {
    /// Uses the random number of the turn for ids; they differ in any case.
    fn moment(&self) -> Moment {
        Moment { now: self.now, draw: self.draw() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id;
    use crate::messages::{
        CauseKind, HostSnapshot, HostState, HostStatus, IncidentScope, IncidentSummary, MemberSnapshot,
        MonitorInput, NotificationState, StateType,
    };
    use crate::monitor::{Config, testing};
    use crate::time::{Mono, Wall};

    const INCIDENT: IncidentId = IncidentId(Id::from_i64(9));

    fn at(secs: u64) -> Now {
        Now { mono: Mono::from_secs(secs), wall: Wall::from_millis(secs as i64 * 1_000) }
    }

    fn ack(words: &str) -> IncidentAck {
        IncidentAck { sticky: true, expires: None, words: words.to_owned() }
    }

    /// A host that is down and was notified.
    fn lost(acknowledged: Option<Acknowledgement>) -> HostSnapshot {
        let spec = testing::host(1);
        let state = HostState {
            host: spec.id,
            status: HostStatus::Down,
            kind: StateType::Hard,
            attempt: 3,
            hard: HostStatus::Down,
            reachable: true,
            stale: false,
            asleep: false,
            since: at(900).wall,
            hard_since: at(900).wall,
            last_check: Some(at(995).wall),
            next_check: None,
            source: "none".to_owned(),
            direct: Default::default(),
            one_way: false,
            silent_since: None,
            last_alive: None,
            asked_at: None,
            asked: None,
            strange_key: None,
            output: String::new(),
            detail: Default::default(),
            notified: Some(HostStatus::Down),
            notification: NotificationState::default(),
            taken: Default::default(),
        };
        let acknowledged = acknowledged.into_iter().map(|ack| (None, ack)).collect();
        HostSnapshot { spec, state: Some(state), services: Vec::new(), acknowledged }
    }

    /// The incident of that host.
    fn open(member: MemberSnapshot, ack: Option<IncidentAck>) -> IncidentSnapshot {
        let words = "cam-1 is down".to_owned();
        let (extent, cause, head) = (IncidentScope::Host, CauseKind::HostDown, Some(member.object.host));
        let matter = IncidentSummary { extent, cause, words, site: None, head };
        IncidentSnapshot { id: INCIDENT, opened: at(900).wall, matter, members: vec![member], ack }
    }

    fn problem() -> MemberSnapshot {
        MemberSnapshot {
            object: CheckableId::host(testing::host(1).id),
            began: at(900).wall,
            left: None,
            covered: false,
        }
    }

    /// A monitor restarted at second 1000.
    fn restarted(incident: IncidentSnapshot, host: HostSnapshot) -> Monitor {
        let mut monitor = Monitor::new(Config::default(), 1);
        monitor.recall_incidents(vec![incident], at(1_000));
        monitor.restore([host], at(1_000));
        monitor
    }

    /// Returns the records about acknowledgements.
    fn heard(monitor: &mut Monitor) -> Vec<String> {
        let mut heard = Vec::new();
        loop {
            match monitor.poll_output() {
                MonitorOutput::Wait(..) => return heard,
                MonitorOutput::Record(Record::Incident(record)) => match record.change {
                    IncidentChange::Covered { .. } => heard.push("covered".to_owned()),
                    IncidentChange::AckEnded(end) => heard.push(end.name().to_owned()),
                    IncidentChange::Closed => {
                        heard.push(format!("closed at {}", record.at.as_millis() / 1_000))
                    }
                    _ => {}
                },
                MonitorOutput::Record(Record::AckEnded(id, _)) => {
                    heard.push(format!("ended {}", id.as_i64()))
                }
                _ => {}
            }
        }
    }

    #[test]
    fn an_acknowledgement_that_an_earlier_run_did_not_finish_covers_the_members() {
        let mut monitor = restarted(open(problem(), Some(ack("user:ada: on it"))), lost(None));
        assert_eq!(heard(&mut monitor), ["covered"]);
        let had = MemberSnapshot { covered: true, ..problem() };
        let mut monitor = restarted(open(had, Some(ack("user:ada: on it"))), lost(None));
        assert_eq!(heard(&mut monitor), [""; 0], "its own has ended since");
    }

    #[test]
    fn an_incident_that_was_over_before_a_restart_closes_with_that_time() {
        let well = MemberSnapshot { left: Some(at(950).wall), ..problem() };
        let mut monitor = restarted(open(well, None), HostSnapshot { state: None, ..lost(None) });
        monitor.handle(MonitorInput::Timeout, at(1_069));
        assert_eq!(heard(&mut monitor), [""; 0]);
        monitor.handle(MonitorInput::Timeout, at(1_070));
        assert_eq!(heard(&mut monitor), ["closed at 950"]);
    }

    #[test]
    fn an_acknowledgement_removed_before_the_restart_covers_nothing() {
        let given = |incident| Acknowledgement {
            id: Id::from_i64(5),
            sticky: true,
            expires: None,
            words: String::new(),
            incident,
        };
        let mut monitor = restarted(open(problem(), None), lost(Some(given(Some(INCIDENT)))));
        assert_eq!(heard(&mut monitor), ["ended 5"]);
        let mut monitor = restarted(open(problem(), None), lost(Some(given(None))));
        assert_eq!(heard(&mut monitor), [""; 0], "that is its own");
    }

    #[test]
    fn an_acknowledgement_after_the_recovery_ends_and_covers_no_later_failure() {
        let well = MemberSnapshot { left: Some(at(990).wall), ..problem() };
        let mut monitor = restarted(open(well, None), HostSnapshot { state: None, ..lost(None) });
        for id in [INCIDENT, IncidentId(Id::from_i64(77))] {
            monitor.handle(MonitorInput::AcknowledgeIncident(id, ack("user:ada: on it")), at(1_001));
            assert_eq!(heard(&mut monitor), ["late"]);
        }
        let host = CheckableId::host(testing::host(1).id);
        assert_eq!(monitor.shared.incidents.known(&host, at(1_002).wall), None);
    }

    #[test]
    fn a_second_acknowledgement_of_an_incident_takes_the_place_of_the_first() {
        let mut monitor = restarted(open(problem(), None), lost(None));
        let until = IncidentAck { expires: Some(at(1_060).wall), ..ack("user:ada: for a minute") };
        monitor.handle(MonitorInput::AcknowledgeIncident(INCIDENT, until), at(1_001));
        monitor.handle(MonitorInput::AcknowledgeIncident(INCIDENT, ack("user:jo: on it")), at(1_002));
        assert_eq!(heard(&mut monitor), ["covered", "covered"]);
        monitor.handle(MonitorInput::Timeout, at(1_061));
        assert_eq!(heard(&mut monitor), [""; 0], "the end of the first is none");
        assert!(monitor.hosts[&testing::host(1).id].notifier.covered_by(INCIDENT).is_some());
    }
    #[test]
    fn the_acknowledgement_of_an_incident_expires_by_the_calendar() {
        let mut monitor = restarted(open(problem(), None), lost(None));
        let until = IncidentAck { expires: Some(at(1_000 + 4 * 3_600).wall), ..ack("user:ada: on it") };
        monitor.handle(MonitorInput::AcknowledgeIncident(INCIDENT, until), at(1_001));
        assert_eq!(heard(&mut monitor), ["covered"]);
        let set_ahead = Now { wall: at(1_060 + 5 * 3_600).wall, ..at(1_060) };
        monitor.handle(MonitorInput::Timeout, set_ahead);
        let said = heard(&mut monitor);
        assert!(said.contains(&"expired".to_owned()), "that of its member has ended: {said:?}");
    }
}
