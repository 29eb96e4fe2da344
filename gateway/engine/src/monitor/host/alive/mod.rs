//! The host check: sends all probes at once, under one deadline. The first proof that the host is
//! up ends it.
//!
//! It reads the tunnel's evidence first, because that costs nothing. If the evidence is too old, it
//! sends an echo, a TCP connect, a forced handshake and a probe of the public address together. A
//! host that usually replies to an echo gets only the echo for [`HEAD_START`], which saves the
//! bytes of the others.
//!
//! Before it declares a host down, it reads the evidence again. A packet that arrived meanwhile
//! proves that the host is up, and so does one so recent that the next need not have come yet. If a
//! packet came after the probes but every probe stayed without reply, only one direction works.
//! Handshakes of the host that lead to no session are proof, too.
//!
//! This module knows nothing of attempts, states and schedules. `probes.rs` builds the probes.

mod direct;
mod probes;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

pub use crate::time::age;

use crate::messages::{ATTEMPTS, ConnectFailure, DIRECT, DirectReply, Evidence, Probe, ProbeReply};
use crate::time::Mono;

use crate::monitor::paths::Paths;

pub use probes::{HostProbe, Rules};

use direct::{doubt, is_busy, silence, ssh_failure};

/// The source of a result that needed no probe.
pub const EVIDENCE: &str = "evidence";

/// The time for which the echo is alone, if an echo got the last reply. It covers several round
/// trips of a mobile link, and is a tenth of the usual timeout.
const HEAD_START: Duration = Duration::from_secs(1);
/// The head start takes at most this fraction of the timeout.
const HEAD_SHARE: u32 = 5;
/// The minimum timeout of a probe that is sent late in a check, after a dial has succeeded.
const LEAST: Duration = Duration::from_secs(1);

/// The probes of the other inner address. A device may use only one of its two. The other is probed
/// after the first has been silent for the head start, so a device that replies on the first costs
/// no more.
const OTHER: [HostProbe; 2] = [HostProbe::OtherEcho, HostProbe::OtherConnect];

/// A host check in progress.
#[derive(Clone, Debug)]
pub struct AliveCheck {
    rules: Rules,
    began: Mono,
    phase: Phase,
    asked: BTreeSet<HostProbe>,
    open: BTreeSet<HostProbe>,
    /// The newest authenticated packet.
    packet: Option<Mono>,
    /// The newest handshake of the host that led to no session.
    attempt: Option<Mono>,
    session: bool,
    /// A probe failed because of the gateway, not the host, so silence proves nothing.
    unclear: bool,
    /// A probe through the host's own tunnel got no reply.
    vain: bool,
    /// The time of the last reply to a packet that was sent through its tunnel.
    answer: Option<Mono>,
    pub came: bool,
    /// The time at which a forced handshake failed.
    pub dial_failed: Option<Mono>,
    /// The time at which the peer was dialled.
    pub dialled: Option<Mono>,
    /// The result at the public address.
    pub direct: DirectReply,
    /// The inner address that replied.
    pub answered: Option<IpAddr>,
    /// The reply from the public address, kept while a reply may still come through the tunnel.
    direct_proof: Option<AliveOutcome>,
    failures: BTreeMap<HostProbe, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The first reading of the evidence.
    Look,
    /// An echo alone.
    HeadStart,
    Asking,
    /// The last reading of the evidence, before the host is declared down.
    LastLook,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    ProbeRequest(Vec<(HostProbe, Probe)>),
    /// Wait for replies, or until [`AliveCheck::wake_at`].
    Wait,
    Done(AliveOutcome),
}

#[derive(Clone, Debug, PartialEq)]
pub enum AliveOutcome {
    Alive(Alive),
    Dead {
        text: String,
    },
    /// A probe, or all of them, could not be sent: the check has no result.
    Unclear,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Alive {
    pub source: &'static str,
    pub text: String,
    pub rtt: Option<Duration>,
    /// The time at which the host is known to have been up.
    pub proof: Mono,
    pub reply: Reply,
}

/// The outcome of the probes through its tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// No probe was sent that the host could have replied to.
    NotAsked,
    Given,
    /// No reply came, while other evidence proves that the host is up.
    Missing,
}

impl AliveCheck {
    pub fn begin(rules: Rules, now: Mono) -> (AliveCheck, Next) {
        let mut check = AliveCheck {
            came: rules.came,
            rules,
            began: now,
            phase: Phase::Look,
            asked: BTreeSet::new(),
            open: BTreeSet::new(),
            packet: None,
            attempt: None,
            session: false,
            unclear: false,
            vain: false,
            answer: None,
            dial_failed: None,
            dialled: None,
            direct: DirectReply::NotAsked,
            answered: None,
            direct_proof: None,
            failures: BTreeMap::new(),
        };
        let next = check.look(Phase::Look, now).unwrap_or_else(|| check.probe_all(now));
        (check, next)
    }

    pub fn is_demanded(&self) -> bool {
        self.rules.demanded
    }

    /// Returns the time from which a proof satisfies the operator who requested this check, if one
    /// did.
    pub fn demanded_since(&self) -> Option<Mono> {
        self.rules.demanded.then_some(self.rules.newer_than)
    }

    /// Whether no probe has been sent yet.
    pub fn is_at_first_look(&self) -> bool {
        self.phase == Phase::Look
    }

    pub fn began(&self) -> Mono {
        self.began
    }

    /// Returns the remaining time for a probe that is sent now.
    pub fn left(&self, now: Mono) -> Duration {
        self.rules.timeout.saturating_sub(now.since(self.began)).max(LEAST.min(self.rules.timeout))
    }

    /// Returns when to go on without a reply.
    pub fn wake_at(&self) -> Option<Mono> {
        let waits = self.phase == Phase::HeadStart || self.owes_other();
        waits.then(|| self.head_start_ends())
    }

    fn head_start_ends(&self) -> Mono {
        self.began + HEAD_START.min(self.rules.timeout / HEAD_SHARE)
    }

    /// Whether the first inner address was probed, but not the other.
    fn owes_other(&self) -> bool {
        let asked = |asked| self.asked.contains(&asked);
        let other = self.session && self.rules.paths.other.is_some() && !asked(HostProbe::OtherEcho);
        other && self.phase == Phase::Asking && asked(HostProbe::Echo)
    }

    pub fn wake(&mut self, now: Mono) -> Next {
        match self.wake_at() {
            Some(at) if at <= now && self.phase == Phase::HeadStart => self.probe_all(now),
            Some(at) if at <= now => self.ask(&OTHER, now),
            _ => Next::Wait,
        }
    }

    pub fn answer(&mut self, asked: HostProbe, answer: ProbeReply, now: Mono) -> Next {
        if !self.open.remove(&asked) {
            return Next::Wait;
        }
        let next = self.take(asked, answer, now);
        if matches!(next, Next::Done(AliveOutcome::Alive(_))) {
            self.answered = self.rules.address(asked);
        }
        next
    }

    fn take(&mut self, asked: HostProbe, answer: ProbeReply, now: Mono) -> Next {
        match (asked, answer) {
            (HostProbe::Evidence, ProbeReply::Evidence(evidence)) => self.weigh(&evidence, now),
            (HostProbe::Echo | HostProbe::OtherEcho, ProbeReply::Echo(echo)) => {
                match echo.rtts.iter().min() {
                    Some(rtt) => {
                        let text = format!("echo{} in {}", self.rules.at(asked), millis(*rtt));
                        alive("echo", text, Some(*rtt), now)
                    }
                    None => self.failed(asked, &echo.failure.unwrap_or(ConnectFailure::Timeout), now),
                }
            }
            (HostProbe::Connect | HostProbe::OtherConnect, ProbeReply::Connect(outcome)) => {
                self.connected(asked, outcome, now)
            }
            (HostProbe::Handshake, ProbeReply::Handshake(outcome)) => self.dialled(outcome, now),
            (HostProbe::Direct, ProbeReply::Connect(outcome)) => self.direct_connect(outcome, now),
            (HostProbe::Direct, ProbeReply::Ssh(ssh)) => match ssh.failure {
                None => self.answers_directly("SSH at the public address", ssh.connect, now),
                Some(failure) => {
                    self.failed_directly(ssh_failure(&failure), doubt(&failure), is_busy(&failure), now)
                }
            },
            (_, ProbeReply::Refused(why)) => self.refused(asked, why, now),
            (_, _) => self.refused(asked, "the answer was to another question".into(), now),
        }
    }

    // ------------------------------------------------------------------ evidence

    /// Reads the evidence; `None` if there is no tunnel that could have any.
    fn look(&mut self, phase: Phase, now: Mono) -> Option<Next> {
        self.rules.paths.peer?;
        self.phase = phase;
        Some(self.ask(&[HostProbe::Evidence], now))
    }

    fn weigh(&mut self, evidence: &Evidence, now: Mono) -> Next {
        self.came |= evidence.last_packet.is_some() || evidence.last_handshake.is_some();
        self.packet = evidence.last_packet.filter(|_| self.rules.paths.own);
        self.attempt = evidence.last_attempt.filter(|_| self.rules.paths.own);
        self.answer = evidence.answered().filter(|_| self.rules.paths.own);
        let limit = match self.phase {
            Phase::LastLook => self.began.min(now - self.rules.rhythm.packets()),
            _ => self.rules.newer_than,
        };
        let limit = limit.max(self.rules.keyed_at);
        let fresh = self.packet.filter(|packet| *packet > limit);
        match (self.phase, fresh) {
            (Phase::LastLook, Some(packet)) => Next::Done(self.is_heard(packet, now)),
            (Phase::LastLook, None) => self.end(now),
            (_, Some(packet)) if self.rules.vain_since.is_none() => Next::Done(self.is_heard(packet, now)),
            _ => {
                self.session = evidence.established;
                self.probe_first(now)
            }
        }
    }

    fn is_heard(&self, packet: Mono, now: Mono) -> AliveOutcome {
        let reply = self.reply();
        let mut text = heard(packet, now);
        if reply == Reply::Missing {
            let failures = self.tried().join("; ");
            let since = self.rules.vain_since.unwrap_or(self.began);
            let what = if packet >= since { "its packets arrive, and ours get" } else { "since then" };
            text = format!("{text}; {what} no answer: {failures}");
        }
        AliveOutcome::Alive(Alive { source: EVIDENCE, text, rtt: None, proof: packet, reply })
    }

    fn reply(&self) -> Reply {
        match self.answer {
            Some(answer) if answer >= self.began => Reply::Given,
            _ if self.vain => Reply::Missing,
            _ => Reply::NotAsked,
        }
    }

    // ------------------------------------------------------------------- probing

    fn probe_first(&mut self, now: Mono) -> Next {
        if !(self.rules.echo_first && self.session && self.rules.paths.inner.is_some()) {
            return self.probe_all(now);
        }
        self.phase = Phase::HeadStart;
        self.ask(&[HostProbe::Echo], now)
    }

    fn probe_all(&mut self, now: Mono) -> Next {
        self.phase = Phase::Asking;
        let late = now >= self.head_start_ends();
        let Paths { own, inner, other, direct, .. } = &self.rules.paths;
        let through = self.session && inner.is_some();
        // Behind a connected device, a handshake of that device proves nothing about the host.
        let dials = self.may_dial() && (*own || !self.session);
        let wanted = [
            (HostProbe::Echo, through),
            (HostProbe::Connect, through),
            (HostProbe::OtherEcho, through && late && other.is_some()),
            (HostProbe::OtherConnect, through && late && other.is_some()),
            (HostProbe::Handshake, dials),
            (HostProbe::Direct, direct.is_some()),
        ];
        let wanted: Vec<HostProbe> =
            wanted.into_iter().filter(|(_, wanted)| *wanted).map(|(a, _)| a).collect();
        self.ask(&wanted, now)
    }

    /// Sends each probe once; only the evidence is read a second time.
    fn ask(&mut self, wanted: &[HostProbe], now: Mono) -> Next {
        let mut probes = Vec::new();
        for asked in wanted {
            let is_new = *asked == HostProbe::Evidence || !self.asked.contains(asked);
            if let Some(probe) = self.rules.probe(*asked).filter(|_| is_new) {
                self.asked.insert(*asked);
                self.open.insert(*asked);
                probes.push((*asked, probe));
            }
        }
        if self.asked.contains(&HostProbe::Handshake) {
            self.dialled = self.dialled.or(Some(now));
        }
        match (probes.is_empty(), self.open.is_empty()) {
            (false, _) => Next::ProbeRequest(probes),
            (true, false) => Next::Wait,
            (true, true) => self.settle(now),
        }
    }

    fn may_dial(&self) -> bool {
        self.rules.paths.peer.is_some() && self.rules.may_dial && self.came && self.dialled.is_none()
    }

    // ------------------------------------------------------------------- replies

    /// Handles a TCP connect through the tunnel; a refusal is a reply, too.
    fn connected(&mut self, asked: HostProbe, outcome: Result<Duration, ConnectFailure>, now: Mono) -> Next {
        let what = format!("tcp port {}{}", self.rules.port, self.rules.at(asked));
        match outcome {
            Ok(took) => alive("tcp", format!("{what} in {}", millis(took)), Some(took), now),
            Err(failure @ (ConnectFailure::Refused | ConnectFailure::Reset)) => {
                alive("tcp", format!("{what} answered: {failure}"), None, now)
            }
            Err(failure) => self.failed(asked, &failure, now),
        }
    }

    /// Handles a handshake. For a host behind a device, it only opens the path for further probes.
    fn dialled(&mut self, outcome: Result<Duration, ConnectFailure>, now: Mono) -> Next {
        match outcome {
            Ok(took) if self.rules.paths.own => {
                let text = self.beside(format!("handshake in {}", millis(took)));
                alive("handshake", text, Some(took), now)
            }
            Ok(_) => {
                self.session = true;
                // The replaced session no longer carries these probes.
                let open = self.open.clone();
                let inside = |asked: &HostProbe| matches!(asked, HostProbe::Echo | HostProbe::Connect);
                self.asked.retain(|asked| open.contains(asked) || !inside(asked));
                self.ask(&[HostProbe::Echo, HostProbe::Connect], now)
            }
            Err(failure) => {
                self.dial_failed = Some(now);
                self.failed(HostProbe::Handshake, &failure, now)
            }
        }
    }

    /// Handles a TCP connect to the public address. On the Internet, a refusal may come from a
    /// firewall in front of the host.
    fn direct_connect(&mut self, outcome: Result<Duration, ConnectFailure>, now: Mono) -> Next {
        let port = self.rules.port;
        match outcome {
            Ok(took) => {
                self.answers_directly(&format!("tcp port {port} at the public address"), Some(took), now)
            }
            Err(failure) => {
                let busy = failure == ConnectFailure::Busy;
                self.failed_directly(format!("tcp port {port}: {failure}"), silence(&failure), busy, now)
            }
        }
    }

    /// Records the proof from the public address. The check still waits for the tunnel's probes,
    /// because they monitor the tunnel.
    fn answers_directly(&mut self, way: &str, rtt: Option<Duration>, now: Mono) -> Next {
        self.direct = DirectReply::Answered;
        let text = format!("answers: {way}");
        let proof = Alive { source: DIRECT, text, rtt, proof: now, reply: Reply::NotAsked };
        self.direct_proof = Some(AliveOutcome::Alive(proof));
        self.go_on(now)
    }

    fn failed_directly(&mut self, text: String, said: DirectReply, busy: bool, now: Mono) -> Next {
        self.unclear |= busy;
        self.direct = said;
        self.failures.insert(HostProbe::Direct, text);
        self.go_on(now)
    }

    fn failed(&mut self, asked: HostProbe, failure: &ConnectFailure, now: Mono) -> Next {
        self.unclear |= *failure == ConnectFailure::Busy;
        self.vain |= self.rules.paths.own && *failure == ConnectFailure::Timeout;
        self.failures.insert(asked, failure.to_string());
        let lost = *failure == ConnectFailure::NoTunnel;
        self.session &= !lost;
        match lost && self.phase != Phase::HeadStart && self.may_dial() {
            true => self.ask(&[HostProbe::Handshake], now),
            false => self.go_on(now),
        }
    }

    /// Handles a probe that was refused. Without its peer no probe can use the tunnel; other
    /// refusals concern only one probe.
    fn refused(&mut self, asked: HostProbe, why: String, now: Mono) -> Next {
        self.unclear = true;
        self.failures.insert(asked, why);
        match (asked, self.phase) {
            (HostProbe::Evidence, Phase::LastLook) => self.end(now),
            (HostProbe::Evidence, _) => {
                self.phase = Phase::Asking;
                self.ask(&[HostProbe::Direct], now)
            }
            _ => self.go_on(now),
        }
    }

    fn go_on(&mut self, now: Mono) -> Next {
        match (self.phase, self.open.is_empty()) {
            (Phase::HeadStart, _) => self.probe_all(now),
            (_, true) => self.settle(now),
            (_, false) => Next::Wait,
        }
    }

    // -------------------------------------------------------------------- the end

    /// Goes on when no probe is open and none has proved the host up through its tunnel.
    fn settle(&mut self, now: Mono) -> Next {
        if self.owes_other() {
            return self.ask(&OTHER, now);
        }
        self.look_once_more(now).unwrap_or_else(|| self.end(now))
    }

    /// Reads the evidence once more, if packets of its own tunnel are evidence.
    pub fn look_once_more(&mut self, now: Mono) -> Option<Next> {
        let asked = self.asked.iter().any(|asked| *asked != HostProbe::Evidence);
        let looks = self.rules.paths.own && asked && !self.failures.contains_key(&HostProbe::Evidence);
        if looks { self.look(Phase::LastLook, now) } else { None }
    }

    fn end(&mut self, now: Mono) -> Next {
        if let Some(AliveOutcome::Alive(proof)) = self.direct_proof.take() {
            let text = self.beside(proof.text);
            return Next::Done(AliveOutcome::Alive(Alive { text, ..proof }));
        }
        let limit = self.rules.newer_than.min(now - self.rules.rhythm.tries());
        if let Some(proof) = self.attempt.filter(|attempt| *attempt > limit) {
            return Next::Done(AliveOutcome::Alive(self.is_refused(proof, now)));
        }
        let mut found: Vec<String> =
            self.packet.map(|packet| format!("last {}", heard(packet, now))).into_iter().collect();
        if self.rules.paths.peer.is_some()
            && !self.session
            && !self.failures.contains_key(&HostProbe::Evidence)
        {
            found.push("no session".to_owned());
        }
        found.extend(self.tried());
        if self.unclear || found.is_empty() {
            return Next::Done(AliveOutcome::Unclear);
        }
        Next::Done(AliveOutcome::Dead { text: format!("no answer: {}", found.join("; ")) })
    }

    /// Returns the result for a host whose handshakes arrive but lead to no session: the host is
    /// up, its tunnel is not.
    fn is_refused(&self, proof: Mono, now: Mono) -> Alive {
        let text =
            format!("its handshakes arrive (the last {} ago), and lead to no session", age(now.since(proof)));
        Alive { source: ATTEMPTS, text: self.beside(text), rtt: None, proof, reply: Reply::NotAsked }
    }

    /// Describes the probes that failed.
    fn tried(&self) -> Vec<String> {
        let port = self.rules.port;
        let words = |(asked, failure): (&HostProbe, &String)| match asked {
            HostProbe::Evidence => failure.clone(),
            HostProbe::Echo | HostProbe::OtherEcho => format!("echo{}: {failure}", self.rules.at(*asked)),
            HostProbe::Connect | HostProbe::OtherConnect => {
                format!("tcp port {port}{}: {failure}", self.rules.at(*asked))
            }
            HostProbe::Handshake => format!("handshake: {failure}"),
            HostProbe::Direct => format!("public address: {failure}"),
        };
        self.failures.iter().map(words).collect()
    }

    /// Joins the proof and the failed probes.
    fn beside(&self, text: String) -> String {
        [text].into_iter().chain(self.tried()).collect::<Vec<_>>().join("; ")
    }
}

fn heard(packet: Mono, now: Mono) -> String {
    format!("authenticated packet {} ago", age(now.since(packet)))
}

fn alive(source: &'static str, text: String, rtt: Option<Duration>, proof: Mono) -> Next {
    Next::Done(AliveOutcome::Alive(Alive { source, text, rtt, proof, reply: Reply::Given }))
}

/// Formats a duration for people: `12.3 ms`.
pub fn millis(d: Duration) -> String {
    format!("{:.1} ms", d.as_secs_f64() * 1000.0)
}
