//! The host's own check: its schedule, its parameters, and the effect of its result.
//!
//! `alive` contains the probes, `monitor/state.rs` the state machine.

use std::time::Duration;

use fleetgate_probes::plugin::PluginResult;
use fleetgate_probes::sample::{Metric, Status};

use crate::messages::{
    ATTEMPTS, Check, EventKind, HostKey, HostStatus, ProbeId, ProbeReply, SILENT, is_answer,
    is_through_tunnel,
};
use crate::time::Mono;

use crate::monitor::context::{Ctx, ProbeOwner, cause, measured_at};
use crate::monitor::host::Host;
use crate::monitor::host::alive::{Alive, AliveCheck, AliveOutcome, EVIDENCE, HostProbe, Next, Rules};
use crate::monitor::host::freshness::NOTHING_CAME;
use crate::monitor::host::last_result::HostResult;
use crate::monitor::notification::records::host_scene;
use crate::monitor::state::{Change, Level};
use crate::monitor::thresholds;

/// The interval at which a host that is down or asleep is dialled. A returning device dials by
/// itself. This is for hosts that cannot, and costs their uplink two small packets.
const QUIET_DIAL: Duration = Duration::from_secs(300);

/// A fraction of the interval: the longest time of a check, so that it ends before the next one.
const LONGEST_SHARE: f64 = 0.8;

impl Host {
    pub(in crate::monitor) fn start_check(&mut self, ctx: &mut Ctx<'_>) {
        ctx.started(self.check.planned().filter(|at| *at <= ctx.now.mono));
        let (check, next) = AliveCheck::begin(self.rules(ctx), ctx.now.mono);
        self.check.begin(check, ctx.now.wall);
        self.step(next, ctx);
    }

    pub(in crate::monitor) fn answer_check(
        &mut self,
        (id, asked): (ProbeId, HostProbe),
        answer: ProbeReply,
        ctx: &mut Ctx<'_>,
    ) {
        self.check.replied(id);
        if let ProbeReply::Evidence(evidence) = &answer {
            self.keep_pace(evidence.wire_today, ctx);
            self.proofs.note_carried(evidence.answered().filter(|_| self.paths.own));
            if self.check.running().is_some_and(AliveCheck::is_at_first_look) && self.can_rest(ctx.now.mono) {
                return self.rest(ctx);
            }
        }
        if let Some(check) = self.check.running_mut() {
            let next = check.answer(asked, answer, ctx.now.mono);
            self.step(next, ctx);
        }
    }

    /// Goes on after the head start of an echo, or when a waiting result can be evaluated.
    pub(in crate::monitor) fn go_on_asking(&mut self, ctx: &mut Ctx<'_>) {
        if self.check.is_undecided() {
            return self.decide(ctx);
        }
        if let Some(check) = self.check.running_mut() {
            let next = check.wake(ctx.now.mono);
            self.step(next, ctx);
        }
    }

    /// Whether the last result remains valid without a probe. A packet of its device does not prove
    /// that a host behind it is up, so each check sends. When the device uses much of its budget, a
    /// result is valid for longer. Retries and requested checks still run at once.
    fn can_rest(&self, now: Mono) -> bool {
        let sends = !self.paths.own && self.stretch > 1;
        let demanded = self.check.running().is_none_or(AliveCheck::is_demanded);
        let current = !self.asleep && !self.result.is_stale() && !self.notifier.awaits_result();
        let known = self.reach.is_reachable() && current;
        let failing = self.track.status.is_problem();
        let found = if failing { self.proofs.failed_at() } else { self.proofs.good_at() };
        let believed = self.spec.timing.interval.saturating_mul(self.stretch);
        let recent = found.is_some_and(|at| now.since(at) < believed);
        sends && known && recent && !demanded && !self.track.is_soft()
    }

    fn rest(&mut self, ctx: &mut Ctx<'_>) {
        self.check.skip();
        self.check.plan(ctx.slot(self.spec.id, &self.pace()));
        self.settle_held(ctx);
    }

    fn step(&mut self, next: Next, ctx: &mut Ctx<'_>) {
        match next {
            Next::ProbeRequest(probes) => {
                for (asked, probe) in probes {
                    let left = self.check.running().map_or(Duration::ZERO, |check| check.left(ctx.now.mono));
                    let id = ctx.ask(self.spec.id, ProbeOwner::Host(asked), probe, left);
                    self.check.sent(id);
                }
            }
            Next::Wait => {}
            Next::Done(outcome) => self.finish(outcome, ctx),
        }
    }

    /// Returns the timeout of the whole check.
    pub(in crate::monitor) fn check_timeout(&self) -> Duration {
        self.spec.timing.timeout.min(self.spec.timing.interval.mul_f64(LONGEST_SHARE))
    }

    fn rules(&self, ctx: &Ctx<'_>) -> Rules {
        let now = ctx.now.mono;
        let over_ssh = self.services.iter().any(|s| s.rides()) || self.spec.ssh.user.is_some();
        let tcp = self.services.iter().find_map(|s| match s.spec.check {
            Check::Tcp { port } => Some(port),
            _ => None,
        });
        let port = tcp.filter(|_| !over_ssh).unwrap_or(self.spec.ssh.port);
        Rules {
            newer_than: self.check.newer_than().unwrap_or_else(|| self.evidence_limit(now)),
            keyed_at: self.tunnel.keyed_at(),
            rhythm: ctx.rhythm(),
            demanded: self.check.is_requested(),
            vain_since: self.one_way.since(),
            echo_first: !self.track.status.is_problem()
                && (self.check.is_in_passing() || self.proofs.only_answers()),
            may_dial: self.check.is_requested() || self.may_dial(now),
            came: self.tunnel.has_come(),
            port,
            timeout: self.check_timeout(),
            pin: self.pin().filter(|_| port == self.spec.ssh.port),
            paths: self.paths.clone(),
        }
    }

    /// Returns the time after which evidence counts. Within the interval a packet is as good as a
    /// reply; after a failure only a newer one counts. A reply above a threshold is measured again,
    /// because a packet does not show the reply time.
    fn evidence_limit(&self, now: Mono) -> Mono {
        let interval = now - self.spec.timing.interval;
        match self.proofs.failed_at().filter(|_| self.track.status.is_problem()) {
            Some(_) if self.result.is_answer() => now,
            Some(failed) => interval.max(failed),
            // Probes through the tunnel got no reply, so a packet from before proves nothing more.
            None if self.result.is_beside_tunnel() => {
                self.proofs.proved_at().map_or(interval, |at| interval.max(at))
            }
            None => interval,
        }
    }

    fn may_dial(&self, now: Mono) -> bool {
        let quiet = self.asleep || self.track.hard == HostStatus::Down;
        !quiet || self.check.may_dial(QUIET_DIAL, now)
    }

    pub(in crate::monitor) fn pin(&self) -> Option<HostKey> {
        self.keys.pin(self.spec.ssh.pin.as_ref())
    }

    fn leave_undecided(&mut self, text: String, now: Mono) {
        self.proofs.note_silent(now);
        self.check.leave_undecided(text, now);
    }

    /// Evaluates the check once it is decided. Packets may have come while it waited, so the
    /// evidence is read once more before that. It is also read now and then meanwhile, because a
    /// packet ends the doubt.
    fn decide(&mut self, ctx: &mut Ctx<'_>) {
        let (now, waits) = (ctx.now.mono, self.waits_for_witnesses(ctx));
        let Some(found) = self.check.take_undecided(waits, now) else { return };
        let look = self.check.running_mut().and_then(|check| check.look_once_more(now));
        match look {
            Some(next) => self.step(next, ctx),
            None => self.finish(AliveOutcome::Dead { text: found.into_text() }, ctx),
        }
    }

    /// Whether the result must wait for the witnesses, which soon show whether the gateway is cut
    /// off. No attempt is lost.
    fn waits_for_witnesses(&self, ctx: &Ctx<'_>) -> bool {
        let counts = !self.is_passive_only() && !self.never_came() && !self.may_sleep(ctx.now.mono);
        counts && self.track.hard != HostStatus::Down && ctx.asks_witnesses()
    }

    fn finish(&mut self, outcome: AliveOutcome, ctx: &mut Ctx<'_>) {
        self.cancel_probes(ctx);
        let outcome = match outcome {
            AliveOutcome::Dead { text } if self.waits_for_witnesses(ctx) => {
                return self.leave_undecided(text, ctx.now.mono);
            }
            outcome => outcome,
        };
        let mut begun = ctx.now.mono;
        if let Some(check) = self.check.finish() {
            begun = check.began();
            check.answered.into_iter().for_each(|address| self.prefer(address, ctx));
            if check.came && !self.tunnel.has_come() {
                self.tunnel_came(ctx.now.mono);
            }
        }
        match outcome {
            AliveOutcome::Alive(alive) => self.answered(alive, begun, ctx),
            AliveOutcome::Dead { .. } | AliveOutcome::Unclear if self.is_passive_only() => {
                self.check.plan(ctx.slot(self.spec.id, &self.pace()));
            }
            AliveOutcome::Dead { .. } if self.never_came() => self.await_first_handshake(ctx),
            AliveOutcome::Dead { .. } if self.is_our_silence(ctx) => self.excused(ctx),
            AliveOutcome::Dead { text } if self.may_sleep(ctx.now.mono) => self.fall_asleep(text, ctx),
            AliveOutcome::Dead { text } => {
                let missed = self.one_way.missed(self.proofs.good_at());
                self.one_way.clear();
                self.proofs.note_unanswered(self.check.began());
                let result = PluginResult::critical(text);
                self.found_dead(HostResult { source: "none", result, at: ctx.now.wall, begun, missed }, ctx);
            }
            AliveOutcome::Unclear => self.inconclusive(ctx),
        }
        if self.check.is_requested() {
            // A check was requested while this one was in progress.
            self.check.plan(ctx.now.mono);
        }
        self.settle_held(ctx);
    }

    /// Starts the checks that waited for the first packet of the tunnel.
    pub(in crate::monitor) fn tunnel_came(&mut self, now: Mono) {
        self.tunnel.note_came();
        if self.is_watched() {
            self.resume_services(now, true);
        }
    }

    /// Whether there was no path yet on which it could have replied.
    fn never_came(&self) -> bool {
        !self.tunnel.has_come() && self.paths.direct.is_none()
    }

    /// Stops checking a host that has never been there. A host that has been there, on a path that
    /// was removed since, is not current.
    fn await_first_handshake(&mut self, ctx: &mut Ctx<'_>) {
        match self.track.status {
            HostStatus::Pending => self.check.unplan(),
            _ => self.inconclusive(ctx),
        }
    }

    fn is_our_silence(&self, ctx: &Ctx<'_>) -> bool {
        self.track.hard != HostStatus::Down && ctx.in_grace(self.spec.timing.interval)
    }

    /// Drops a failure that does not count. The number of hosts with such failures shows whether
    /// the gateway is the cause.
    fn excused(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.now.mono;
        self.proofs.note_unanswered(self.check.began());
        if ctx.is_cut_off() && !self.may_sleep(now) {
            self.proofs.note_silent(now);
        }
        self.inconclusive(ctx);
        // The check is evaluated by the first moment that counts.
        let ends = ctx.grace_ends(self.spec.timing.interval).filter(|_| !ctx.is_cut_off());
        let ends =
            ends.map(|at| ctx.shortly_before(at, self.check_timeout())).filter(|at| *at > ctx.now.mono);
        if let Some(at) = ends {
            self.check.plan_at_latest(at);
        }
    }

    fn may_sleep(&self, now: Mono) -> bool {
        let within = self.spec.max_silence.is_some_and(|limit| now.since(self.proofs.silent_from()) < limit);
        within && !self.track.status.is_problem()
    }

    fn answered(&mut self, alive: Alive, begun: Mono, ctx: &mut Ctx<'_>) {
        let Alive { source, text, rtt, proof, reply } = alive;
        self.one_way.note_reply((source, reply), proof, begun, &self.spec.timing);
        if !matches!(source, EVIDENCE | ATTEMPTS) {
            self.proofs.note_reply(ctx.now.mono);
        }
        let metrics = match rtt {
            Some(rtt) => vec![Metric::millis("rtt", rtt)],
            None if source == EVIDENCE => {
                vec![Metric::seconds("packet_age", ctx.now.mono.since(proof))]
            }
            None => Vec::new(),
        };
        let result = PluginResult::new(Status::Ok, text, metrics);
        self.take_own(HostResult { source, result, at: ctx.now.wall, begun, missed: 0 }, proof, ctx);
    }

    /// Applies a result that follows the rules of a host check's plugin: 0 and 1 mean up. Above a
    /// critical threshold the host is down, but it did reply.
    pub(in crate::monitor) fn take_own(&mut self, own: HostResult<'_>, proof: Mono, ctx: &mut Ctx<'_>) {
        let is_up = |status| matches!(status, Status::Ok | Status::Warning);
        let answered = is_up(own.result.status);
        if is_answer(own.source) {
            self.proofs.note_alive(proof, ctx.now);
        }
        self.proofs.note_carried(Some(proof).filter(|_| is_through_tunnel(own.source)));
        let own = HostResult { result: thresholds::judge_host(own.result, &self.spec.thresholds), ..own };
        if is_up(own.result.status) {
            return self.proved_alive(own, proof, ctx);
        }
        if answered {
            self.proofs.note_good(proof);
        }
        self.found_dead(own, ctx);
    }

    fn proved_alive(&mut self, own: HostResult<'_>, proof: Mono, ctx: &mut Ctx<'_>) {
        let (watched, first) = (self.is_watched(), self.track.status == HostStatus::Pending);
        // One soft failure of the host does not affect the failure counts of its services.
        let anew = self.track.hard != HostStatus::Up || self.asleep;
        if !self.expects_results() {
            self.end_excuse(ctx.now.mono);
        }
        self.proofs.note_good(proof);
        if std::mem::take(&mut self.asleep) {
            self.event(EventKind::Woke, "it was heard from again", own.result.text.clone(), ctx);
        }
        self.take(HostStatus::Up, own, ctx);
        if !watched {
            let at = if first { ctx.now.mono } else { ctx.soon(self.soon()) };
            self.resume_services(at, anew);
        }
    }

    fn found_dead(&mut self, own: HostResult<'_>, ctx: &mut Ctx<'_>) {
        self.proofs.note_failed(ctx.now.mono);
        if std::mem::take(&mut self.asleep) {
            self.excuse_silence(ctx.now.mono);
        }
        self.take(HostStatus::Down, own, ctx);
        if self.track.hard == HostStatus::Down {
            self.suspend_all(ctx);
        }
    }

    /// Records overdue passive results: the host is down at once, without attempts.
    pub(in crate::monitor) fn found_silent(&mut self, text: String, ctx: &mut Ctx<'_>) {
        let before = self.track.status;
        let change = self.track.settle(HostStatus::Down, self.spec.timing.attempts);
        self.proofs.note_failed(ctx.now.mono);
        self.result.came_from(SILENT, None);
        self.tell(before, change, PluginResult::unknown(text), ctx.now.mono, ctx);
        self.suspend_all(ctx);
    }

    /// Counts and records one result.
    fn take(&mut self, status: HostStatus, own: HostResult<'_>, ctx: &mut Ctx<'_>) {
        let before = self.track.status;
        let change = self.track.apply_row(status, own.missed.saturating_add(1), self.spec.timing.attempts);
        self.submitted.restart(ctx.now.mono);
        self.result.came_from(own.source, Some(own.at));
        self.tell(before, change, own.result, own.begun, ctx);
    }

    fn tell(
        &mut self,
        before: HostStatus,
        change: Option<Change<HostStatus>>,
        result: PluginResult,
        begun: Mono,
        ctx: &mut Ctx<'_>,
    ) {
        self.result.show(result, before != self.track.status, change.as_ref(), ctx.now.wall);
        self.note_failing(ctx);
        self.place(ctx);
        self.check.plan(self.next_check(begun, ctx));
        let covered = self.notifier.in_downtime();
        let scene = host_scene(&self.spec, &self.windows, self.silence(), ctx.now);
        let said = self.notifier.on_result(before, &self.track, change.as_ref(), &scene);
        ctx.record(self.row(ctx.now));
        self.result.sample(self.spec.id).into_iter().for_each(|sample| ctx.record(sample));
        if let Some(change) = change {
            self.record_change(&change, ctx);
        }
        self.emit(said, ctx);
        if covered != self.notifier.in_downtime() {
            self.re_evaluate_services(false, ctx);
        }
    }

    /// Returns the next check: the retry after a failure, the expiry of the evidence, or else the
    /// next slot.
    fn next_check(&self, begun: Mono, ctx: &Ctx<'_>) -> Mono {
        let pace = self.pace();
        let next = ctx.next(self.spec.id, &pace, begun);
        match self.proofs.proved_at().filter(|_| !self.track.status.is_problem()) {
            _ if self.track.is_soft() || self.is_asked_in_vain() => next.retry,
            Some(packet) if self.result.is_evidence() => (packet + pace.interval).max(ctx.earliest()),
            Some(tried) if self.result.source() == ATTEMPTS => {
                (tried + pace.interval.max(ctx.rhythm().tries())).max(ctx.earliest())
            }
            _ => next.regular,
        }
    }

    /// Whether checks without reply follow each other like retries, until there are enough of them.
    fn is_asked_in_vain(&self) -> bool {
        self.result.is_evidence() && self.one_way.is_suspected() && !self.one_way.is_found()
    }

    fn record_change(&self, change: &Change<HostStatus>, ctx: &mut Ctx<'_>) {
        let (from, to, hard) = (change.from.name(), change.to.name(), change.hard);
        let measured_at = measured_at(self.result.source(), self.result.at(), ctx.now);
        let kind = EventKind::StateChanged { from, to, hard, measured_at };
        let cause = match self.result.source() {
            SILENT => NOTHING_CAME.to_owned(),
            _ => cause(&self.track, change, self.spec.timing.attempts),
        };
        ctx.record(self.subject(ctx.now).event(kind, cause, self.result.output()));
    }

    /// Marks the host as asleep. Its silence is expected: there is no result, and its services are
    /// not checked.
    fn fall_asleep(&mut self, text: String, ctx: &mut Ctx<'_>) {
        let news = !self.asleep;
        self.asleep = true;
        self.check.plan(ctx.slot(self.spec.id, &self.pace()));
        if news {
            ctx.record(self.row(ctx.now));
            self.event(EventKind::FellAsleep, "it may be silent for a while", text, ctx);
            self.suspend_all(ctx);
        }
    }

    /// Ends a check without a result; the last state remains, marked as not current.
    fn inconclusive(&mut self, ctx: &mut Ctx<'_>) {
        let news = self.track.status != HostStatus::Pending && self.result.mark_stale();
        self.check.plan(ctx.slot(self.spec.id, &self.pace()));
        if news {
            ctx.record(self.row(ctx.now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{EchoReply, Evidence, HostState, Probe, Record, Timing};
    use crate::monitor::testing::{self, TestMonitor};

    /// A device that no packet reaches, with the given age of its last packet at each reading. Its
    /// handshakes lead to no session, and one came a second ago.
    fn deaf(seconds: u64, packet_age: impl Fn(u64) -> u64) -> Vec<HostState> {
        let secs = Duration::from_secs;
        let timing = Timing { interval: secs(3), retry: secs(1), attempts: 3, timeout: secs(2) };
        let mut probes = TestMonitor::of(crate::messages::HostSpec { timing, ..testing::host(1) });
        let (start, mut looks) = (probes.now.mono, 0);
        probes.run(secs(seconds), |probe, now| match probe {
            Probe::Evidence { .. } => {
                looks += 1;
                let age = if now.mono == start { 0 } else { packet_age(looks) };
                ProbeReply::Evidence(Evidence {
                    last_packet: Some(now.mono - secs(age)),
                    last_attempt: Some(now.mono - secs(1)),
                    established: true,
                    ..Evidence::default()
                })
            }
            Probe::Echo { .. } => ProbeReply::Echo(EchoReply { sent: 1, rtts: Vec::new(), failure: None }),
            Probe::Handshake { .. } => ProbeReply::Handshake(Err(crate::messages::ConnectFailure::Timeout)),
            _ => ProbeReply::Connect(Err(crate::messages::ConnectFailure::Timeout)),
        });
        let host = |record| match record {
            Record::Host(state) => Some(*state),
            _ => None,
        };
        probes.records.into_iter().filter_map(host).collect()
    }

    /// Its packets prove it up in one check and its handshakes in the next; both times no packet
    /// reaches it.
    #[test]
    fn one_way_loss_is_reported_with_either_proof_that_the_device_is_up() {
        let states = deaf(600, |look| if look % 7 < 3 { 40 } else { 5 + look % 24 });
        let named = states.iter().skip_while(|state| !state.one_way);
        let (mut packets, mut handshakes) = (0, 0);
        for state in named {
            match state.source.as_str() {
                EVIDENCE => packets += 1,
                ATTEMPTS => handshakes += 1,
                source => panic!("{source}"),
            }
            assert!(state.one_way || state.source == ATTEMPTS, "{state:?}");
        }
        assert!(packets > 3 && handshakes > 3, "{packets} {handshakes}");
        assert!(states.iter().all(|state| state.status != HostStatus::Down));
    }
}
