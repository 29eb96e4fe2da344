//! Probes of the monitor and streams of the shell. Each probe gets exactly one reply, in time.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fleetgate_probes::echo::COOKIE_LEN;

use super::Tunnel;
use crate::id::PeerId;
use crate::messages::{
    ConnectFailure, EchoReply, Output, Probe, ProbeId, ProbeReply, ProbeRequest, Route, StreamId,
    StreamInput, StreamOutput,
};
use crate::time::Mono;
use crate::tunnel::peers::Slot;
use crate::tunnel::probe_flows::{Echo, Goal, Want};
use crate::tunnel::session::Noise;
use crate::tunnel::tcp::conn::{Purpose, Report};
use crate::tunnel::tcp::published_port::Census;
use crate::tunnel::tcp::stack::{MTU, Stack};

/// TCP connections to all peers together. 4,096 streams would take 256 MB.
const MAX_CONNECTIONS: usize = 4_096;

/// Returns the number of zeros that make an echo request as large as the largest segment that TCP
/// sends through a tunnel.
fn padding(address: IpAddr) -> u16 {
    let headers = if address.is_ipv4() { 20 + 8 } else { 40 + 8 };
    u16::try_from(MTU - headers - COOKIE_LEN).unwrap_or_default()
}

impl<N: Noise> Tunnel<N> {
    pub(super) fn ask(&mut self, ask: ProbeRequest) {
        let ProbeRequest { id, probe, timeout, .. } = ask;
        if self.quiet {
            return self.refuse_ask(id, "the gateway is stopping");
        }
        match probe {
            Probe::Evidence { peer } => self.evidence(id, peer),
            Probe::Echo { peer, address, count } => {
                let goal = Goal::Echo { ask: id, address, count, padding: 0 };
                self.want_at(id, peer, address, goal, timeout);
            }
            Probe::LargeEcho { peer, address, count } => {
                let goal = Goal::Echo { ask: id, address, count, padding: padding(address) };
                self.want_at(id, peer, address, goal, timeout);
            }
            Probe::Connect { route: Route::Tunnel { peer, address }, port } => {
                let to = SocketAddr::new(address, port);
                self.want_at(id, peer, address, Goal::Connect { ask: id, to }, timeout);
            }
            Probe::Handshake { peer } => match self.peers.find(peer) {
                Some(slot) => self.want(slot, Goal::Handshake { ask: id }, timeout),
                None => self.refuse_ask(id, "no such peer"),
            },
            Probe::Connect { route: Route::Direct { .. }, .. } | Probe::Ssh { .. } => {
                self.refuse_ask(id, "not a question for a tunnel");
            }
        }
    }

    fn refuse_ask(&mut self, id: ProbeId, reason: &str) {
        self.out.push_back(Output::ProbeReply(id, ProbeReply::Refused(reason.into())));
    }

    fn evidence(&mut self, id: ProbeId, peer: PeerId) {
        let now = self.now.wall;
        match self.peers.find(peer).and_then(|slot| self.peers.get(slot)) {
            Some(peer) => {
                self.out.push_back(Output::ProbeReply(id, ProbeReply::Evidence(peer.evidence(now))))
            }
            None => self.refuse_ask(id, "no such peer"),
        }
    }

    fn want_at(&mut self, id: ProbeId, peer: PeerId, address: IpAddr, goal: Goal, timeout: Duration) {
        let Some(slot) = self.peers.find(peer) else { return self.refuse_ask(id, "no such peer") };
        if self.peers.get(slot).is_some_and(|peer| peer.reaches(address)) {
            self.want(slot, goal, timeout);
        } else {
            self.fail(goal, ConnectFailure::Unreachable("not an address of this peer".into()));
        }
    }

    /// Starts the goal over the existing session, dials for a session, or fails with the reason.
    fn want(&mut self, slot: Slot, goal: Goal, timeout: Duration) {
        let now = self.now.mono;
        let Some(peer) = self.peers.get_mut(slot) else { return };
        if peer.live.as_ref().is_some_and(|live| live.is_full()) {
            return self.fail(goal, ConnectFailure::Busy);
        }
        let forced = matches!(goal, Goal::Handshake { .. });
        let up = peer.link().is_some_and(|link| link.up);
        let want = Want { goal, asked: now, deadline: now + timeout };
        if up && !forced {
            self.start(slot, want);
        } else if self.dial(slot, forced) {
            let Some(peer) = self.peers.get_mut(slot) else { return };
            peer.live().waiting.push(want);
        } else {
            self.fail(want.goal, ConnectFailure::NoTunnel);
        }
        self.settle(slot);
    }

    fn start(&mut self, slot: Slot, want: Want) {
        let now = self.now.mono;
        match want.goal {
            Goal::Echo { ask, address, count, padding } => {
                let ends = (self.own_address(address), address);
                let echo = Echo::new(ask, ends, (count, padding), (now, want.deadline), &mut self.random);
                if let Some(peer) = self.peers.get_mut(slot) {
                    peer.live().echoes.push(echo);
                }
                self.run_echoes(slot);
            }
            Goal::Connect { ask, to } => self.connect(slot, Purpose::Probe(ask), to, &want),
            Goal::Stream { id, to } => self.connect(slot, Purpose::Stream(id), to, &want),
            Goal::Handshake { .. } => {}
        }
    }

    fn own_address(&self, other: IpAddr) -> IpAddr {
        match other {
            IpAddr::V4(_) => self.config.gateway_v4().into(),
            IpAddr::V6(_) => self.config.gateway_v6().into(),
        }
    }

    fn connect(&mut self, slot: Slot, purpose: Purpose, to: SocketAddr, want: &Want) {
        let (config, now) = (self.config, self.now.mono);
        let full = self.connections.all - self.connections.accepted() >= MAX_CONNECTIONS;
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let live = peer.live();
        let stack = live.stack.get_or_insert_with(|| Box::new(Stack::new(config, &mut self.random, now)));
        let result = match full {
            true => Err(ConnectFailure::Busy),
            false => stack.connect(purpose, to, want.deadline, &mut self.random, now),
        };
        match result {
            Ok(()) => self.connections.all += 1,
            Err(failure) => self.report(purpose.failed(Some(failure))),
        }
        self.wake(slot);
    }

    /// Starts the goals that waited for a session. Requested handshakes keep waiting.
    pub(super) fn start_waiting(&mut self, slot: Slot) {
        let Some(live) = self.peers.get_mut(slot).and_then(|peer| peer.live.as_mut()) else { return };
        let ready = |want: &mut Want| !matches!(want.goal, Goal::Handshake { .. });
        let wants: Vec<Want> = live.waiting.extract_if(.., ready).collect();
        for want in wants {
            self.start(slot, want);
        }
    }

    /// Completes the requested handshakes. A handshake that began before the request does not
    /// count.
    pub(super) fn answer_handshakes(&mut self, slot: Slot, begun: Mono) {
        let arrived = self.arrived;
        let Some(live) = self.peers.get_mut(slot).and_then(|peer| peer.live.as_mut()) else { return };
        let is_done = |want: &mut Want| matches!(want.goal, Goal::Handshake { .. }) && want.asked <= begun;
        let done = live.waiting.extract_if(.., is_done);
        let answers = done.filter_map(|want| match want.goal {
            Goal::Handshake { ask } => {
                Some(Output::ProbeReply(ask, ProbeReply::Handshake(Ok(arrived.since(want.asked)))))
            }
            _ => None,
        });
        self.out.extend(answers);
    }

    /// Fails everything that waited for a dial that got no response.
    pub(super) fn fail_waiting(&mut self, slot: Slot) {
        let Some(live) = self.peers.get_mut(slot).and_then(|peer| peer.live.as_mut()) else { return };
        for want in std::mem::take(&mut live.waiting) {
            self.fail_late(want.goal);
        }
    }

    pub(super) fn expire_waiting(&mut self, slot: Slot) {
        let now = self.now.mono;
        let Some(live) = self.peers.get_mut(slot).and_then(|peer| peer.live.as_mut()) else { return };
        let late: Vec<Want> = live.waiting.extract_if(.., |want| want.deadline <= now).collect();
        for want in late {
            self.fail_late(want.goal);
        }
    }

    /// Fails a goal that ran out of time. A requested handshake was tried and timed out; the other
    /// goals never had a tunnel to begin with.
    fn fail_late(&mut self, goal: Goal) {
        let failure = match goal {
            Goal::Handshake { .. } => ConnectFailure::Timeout,
            _ => ConnectFailure::NoTunnel,
        };
        self.fail(goal, failure);
    }

    fn fail(&mut self, goal: Goal, failure: ConnectFailure) {
        let output = match goal {
            Goal::Echo { ask, .. } => {
                let answer = EchoReply { sent: 0, rtts: Vec::new(), failure: Some(failure) };
                Output::ProbeReply(ask, ProbeReply::Echo(answer))
            }
            Goal::Connect { ask, .. } => Output::ProbeReply(ask, ProbeReply::Connect(Err(failure))),
            Goal::Handshake { ask } => Output::ProbeReply(ask, ProbeReply::Handshake(Err(failure))),
            Goal::Stream { id, .. } => return self.report(Purpose::Stream(id).failed(Some(failure))),
        };
        self.out.push_back(output);
    }

    /// Sends the echo requests that are due and replies to the probes that are over.
    pub(super) fn run_echoes(&mut self, slot: Slot) {
        let now = self.now.mono;
        let Some(live) = self.peers.get_mut(slot).and_then(|peer| peer.live.as_mut()) else { return };
        let random = &mut self.random;
        let due = live.echoes.iter_mut().filter_map(|echo| echo.request(random, now));
        let packets: Vec<Vec<u8>> = due.collect();
        let over = live.echoes.extract_if(.., |echo| echo.is_over(now)).map(Echo::answer);
        self.out.extend(over.map(|(ask, answer)| Output::ProbeReply(ask, answer)));
        for packet in packets {
            self.seal(slot, &packet);
        }
    }

    pub(super) fn stream(&mut self, id: StreamId, input: StreamInput) {
        if let StreamInput::Open { peer, to, timeout } = input {
            return self.open_stream(id, peer, to, timeout);
        }
        let Some(slot) = self.streams.get(&id).copied() else { return };
        if self.take_waiting_stream(slot, id, &input) {
            return self.report(Purpose::Stream(id).failed(None));
        }
        let (now, mut reports) = (self.now.mono, Vec::new());
        if let Some(stack) = self.peers.get_mut(slot).and_then(|peer| peer.stack_mut()) {
            match input {
                StreamInput::Open { .. } => {}
                StreamInput::Send(bytes) => stack.send(id, &bytes, &mut reports),
                StreamInput::Taken(count) => stack.taken(id, count),
                StreamInput::Finish => stack.finish(id, &mut reports),
                StreamInput::Abort => stack.let_go(id, now, &mut reports),
                StreamInput::Reset => stack.reset(id, &mut reports),
            }
        }
        reports.into_iter().for_each(|report| self.report(report));
        self.wake(slot);
    }

    fn open_stream(&mut self, id: StreamId, peer: PeerId, to: SocketAddr, timeout: Duration) {
        let goal = Goal::Stream { id, to };
        let Some(slot) = self.peers.find(peer).filter(|_| !self.quiet) else {
            return self.fail(goal, ConnectFailure::NoTunnel);
        };
        self.streams.insert(id, slot);
        if self.peers.get(slot).is_some_and(|peer| peer.reaches(to.ip())) {
            self.want(slot, goal, timeout);
        } else {
            self.fail(goal, ConnectFailure::Unreachable("not an address of this peer".into()));
        }
    }

    /// Takes the input of a stream that waits for a session. A stream that is given up meanwhile
    /// never begins.
    fn take_waiting_stream(&mut self, slot: Slot, id: StreamId, input: &StreamInput) -> bool {
        let given_up = matches!(input, StreamInput::Abort | StreamInput::Finish | StreamInput::Reset);
        let Some(live) = self.peers.get_mut(slot).and_then(|peer| peer.live.as_mut()) else { return false };
        let ours = |want: &Want| matches!(want.goal, Goal::Stream { id: other, .. } if other == id);
        let place = live.waiting.iter().position(ours).filter(|_| given_up);
        place.map(|place| live.waiting.remove(place)).is_some()
    }

    pub(super) fn report(&mut self, report: Report) {
        match report {
            Report::ProbeReply(ask, answer) => self.out.push_back(Output::ProbeReply(ask, answer)),
            Report::Accepted(id, from, service) => self.accepted(id, from, service),
            Report::Stream(id, output) => {
                if matches!(output, StreamOutput::Closed(_)) {
                    self.streams.remove(&id);
                }
                self.out.push_back(Output::Stream(id, output));
            }
        }
    }

    /// Queues the peer's stack to be polled.
    pub(super) fn wake(&mut self, slot: Slot) {
        if let Some(stack) = self.peers.get_mut(slot).and_then(|peer| peer.stack_mut())
            && !std::mem::replace(&mut stack.ready, true)
        {
            self.ready.push_back(slot);
        }
    }

    pub(super) fn run_stack(&mut self) -> bool {
        if self.ready.is_empty() || !self.budget.stack() {
            return false;
        }
        let Some(slot) = self.ready.pop_front() else { return false };
        if let Some(stack) = self.peers.get_mut(slot).and_then(|peer| peer.stack_mut()) {
            stack.ready = false;
        }
        self.poll_stack(slot);
        true
    }

    /// Runs the peer's stack once, and sends its segments.
    pub(super) fn poll_stack(&mut self, slot: Slot) {
        let (mut packets, mut reports) = (Vec::new(), Vec::new());
        if let Some(stack) = self.peers.get_mut(slot).and_then(|peer| peer.stack_mut()) {
            let before = Census::of(stack);
            stack.poll(self.now.mono, &mut reports);
            packets.extend(std::iter::from_fn(|| stack.take_packet()));
            let after = Census::of(stack);
            self.recount(slot, before, after);
        }
        if reports.iter().any(Report::is_answer) {
            self.was_answered(slot);
        }
        reports.into_iter().for_each(|report| self.report(report));
        self.send_segments(slot, packets);
        self.settle(slot);
    }

    /// Sends TCP segments. Without a session a segment is lost, and TCP repeats it after the dial
    /// succeeded.
    fn send_segments(&mut self, slot: Slot, packets: Vec<Vec<u8>>) {
        let mut lost = false;
        for packet in packets {
            lost |= !self.seal(slot, &packet);
        }
        if lost && !self.dial(slot, false) {
            self.fail_connections(slot, &ConnectFailure::NoTunnel);
        }
    }

    pub(super) fn fail_connections(&mut self, slot: Slot, failure: &ConnectFailure) {
        let mut reports = Vec::new();
        if let Some(stack) = self.peers.get_mut(slot).and_then(|peer| peer.stack_mut()) {
            let before = Census::of(stack);
            stack.fail_all(failure, &mut reports);
            self.recount(slot, before, Census::default());
        }
        reports.into_iter().for_each(|report| self.report(report));
    }

    /// Ends everything in flight through a tunnel that no longer exists.
    pub(super) fn abandon(&mut self, slot: Slot) {
        self.fail_connections(slot, &ConnectFailure::NoTunnel);
        let Some(live) = self.peers.get_mut(slot).and_then(|peer| peer.live.as_mut()) else { return };
        live.dial = None;
        let echoes = std::mem::take(&mut live.echoes);
        for want in std::mem::take(&mut live.waiting) {
            self.fail(want.goal, ConnectFailure::NoTunnel);
        }
        let ended = echoes.into_iter().map(|echo| echo.abandon(ConnectFailure::NoTunnel));
        self.out.extend(ended.map(|(ask, answer)| Output::ProbeReply(ask, answer)));
    }
}
