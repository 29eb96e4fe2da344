//! The host check: all that can be asked of a host is asked at once, under one deadline, and the first
//! proof of life ends it.
//!
//! The evidence comes first, for it costs nothing. Where it is too old, echo, TCP, a forced handshake and
//! the public address are asked together. Where an echo is known to answer it is asked alone for
//! [`HEAD_START`], which spares a living host the bytes of the others. Before a host is called dead the
//! evidence is read again: a packet that came meanwhile is life, and so is one after which the next need not
//! have come yet. Where all questions stayed unanswered, a packet that came after them shows that only one
//! direction works. Handshakes of the host that lead to no session are life too. Knows nothing of attempts,
//! states and schedules.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

pub use crate::time::age;

use crate::time::Mono;
use crate::wire::{
    ATTEMPTS, Answer, ConnectFailure, DIRECT, DirectAnswer, Evidence, HostKey, Question, Route, SshFailure,
    SshRun,
};

use super::reach::{Paths, Way};
use super::rhythm::Rhythm;

/// The source of a result that nothing had to be asked for.
pub const EVIDENCE: &str = "evidence";

/// One is enough to prove life.
const ECHOES: u8 = 1;
/// So long an echo is asked alone where one answered last: several round trips of a mobile link, and a
/// tenth of the usual timeout.
const HEAD_START: Duration = Duration::from_secs(1);
/// Of the timeout, at the most.
const HEAD_SHARE: u32 = 5;
/// What is asked late in a check, once a dial has come through, has at least so long.
const LEAST: Duration = Duration::from_secs(1);

/// A device may use but one of its two inner addresses. The other is asked where the first stays silent for
/// the head start, so that a device that answers there costs no more.
const OTHER: [Asked; 2] = [Asked::OtherEcho, Asked::OtherConnect];

/// What a check asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    Evidence,
    Echo,
    Connect,
    /// At the inner address of the other family.
    OtherEcho,
    OtherConnect,
    Handshake,
    Direct,
}

/// What a host check goes by.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Only what came after this spares it the questions.
    pub newer_than: Mono,
    /// What came before this came under another key.
    pub keyed_at: Mono,
    /// How long the host may be silent while it lives.
    pub rhythm: Rhythm,
    /// Somebody waits for it.
    pub demanded: bool,
    /// Since when questions get no answer, while packets come. They go out although there is evidence.
    pub vain_since: Option<Mono>,
    /// An echo is likely to be answered: it is asked alone for a moment.
    pub echo_first: bool,
    /// Whether the peer may be dialled now.
    pub may_dial: bool,
    /// Whether its tunnel has ever carried anything; before that nobody can be dialled.
    pub came: bool,
    /// Where something is known to listen, if anywhere.
    pub port: u16,
    /// Of the whole check.
    pub timeout: Duration,
    /// The host's SSH key, where `port` is that of SSH.
    pub pin: Option<HostKey>,
    pub paths: Paths,
}

/// A host check under way.
#[derive(Clone, Debug)]
pub struct Liveness {
    rules: Rules,
    began: Mono,
    phase: Phase,
    asked: BTreeSet<Asked>,
    open: BTreeSet<Asked>,
    /// The newest authenticated packet.
    packet: Option<Mono>,
    /// The newest handshake of the host's own that led to nothing.
    attempt: Option<Mono>,
    session: bool,
    /// A question went unanswered by us, not by the host: its silence proves nothing.
    unclear: bool,
    /// A question went out for the host's own tunnel, and no answer came.
    vain: bool,
    /// When something that was sent through its tunnel was answered last.
    answer: Option<Mono>,
    pub came: bool,
    /// When a forced handshake failed.
    pub dial_failed: Option<Mono>,
    /// When the peer was dialled.
    pub dialled: Option<Mono>,
    /// What the public address said.
    pub direct: DirectAnswer,
    /// The inner address that answered.
    pub answered: Option<IpAddr>,
    /// It answered at the public address, while its tunnel may still answer.
    direct_proof: Option<Verdict>,
    failures: BTreeMap<Asked, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The first look at the evidence.
    Look,
    /// An echo alone.
    HeadStart,
    Asking,
    /// The last look at the evidence, before the host is called dead.
    LastLook,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    Ask(Vec<(Asked, Question)>),
    /// For answers, or until [`Liveness::wake_at`].
    Wait,
    Done(Verdict),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Alive(Alive),
    Dead {
        text: String,
    },
    /// Something, or anything at all, could not be asked: nothing follows.
    Unclear,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Alive {
    pub source: &'static str,
    pub text: String,
    pub rtt: Option<Duration>,
    /// When the host is known to have been alive.
    pub proof: Mono,
    pub reply: Reply,
}

/// What became of the questions through its tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// None was asked, or none that it could have answered.
    NotAsked,
    Given,
    /// None, while something else shows that it lives.
    Missing,
}

impl Liveness {
    pub fn begin(rules: Rules, now: Mono) -> (Liveness, Next) {
        let mut check = Liveness {
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
            direct: DirectAnswer::NotAsked,
            answered: None,
            direct_proof: None,
            failures: BTreeMap::new(),
        };
        let next = check.look(Phase::Look, now).unwrap_or_else(|| check.ask_all(now));
        (check, next)
    }

    pub fn is_demanded(&self) -> bool {
        self.rules.demanded
    }

    /// From when on a proof satisfies who asked for this check, if somebody did.
    pub fn demanded_since(&self) -> Option<Mono> {
        self.rules.demanded.then_some(self.rules.newer_than)
    }

    /// Nothing has been sent yet.
    pub fn is_at_first_look(&self) -> bool {
        self.phase == Phase::Look
    }

    pub fn began(&self) -> Mono {
        self.began
    }

    /// What is left of the deadline for a question that is asked now.
    pub fn left(&self, now: Mono) -> Duration {
        self.rules.timeout.saturating_sub(now.since(self.began)).max(LEAST.min(self.rules.timeout))
    }

    /// When to go on without an answer.
    pub fn wake_at(&self) -> Option<Mono> {
        let waits = self.phase == Phase::HeadStart || self.owes_other();
        waits.then(|| self.head_start_ends())
    }

    fn head_start_ends(&self) -> Mono {
        self.began + HEAD_START.min(self.rules.timeout / HEAD_SHARE)
    }

    /// The first inner address has been asked, and the other has not.
    fn owes_other(&self) -> bool {
        let asked = |asked| self.asked.contains(&asked);
        let other = self.session && self.rules.paths.other.is_some() && !asked(Asked::OtherEcho);
        other && self.phase == Phase::Asking && asked(Asked::Echo)
    }

    pub fn wake(&mut self, now: Mono) -> Next {
        match self.wake_at() {
            Some(at) if at <= now && self.phase == Phase::HeadStart => self.ask_all(now),
            Some(at) if at <= now => self.ask(&OTHER, now),
            _ => Next::Wait,
        }
    }

    pub fn answer(&mut self, asked: Asked, answer: Answer, now: Mono) -> Next {
        if !self.open.remove(&asked) {
            return Next::Wait;
        }
        let next = self.take(asked, answer, now);
        if matches!(next, Next::Done(Verdict::Alive(_))) {
            self.answered = self.address(asked);
        }
        next
    }

    /// The inner address that this asks.
    fn address(&self, asked: Asked) -> Option<IpAddr> {
        match asked {
            Asked::Echo | Asked::Connect => self.rules.paths.address(),
            Asked::OtherEcho | Asked::OtherConnect => self.rules.paths.other,
            Asked::Evidence | Asked::Handshake | Asked::Direct => None,
        }
    }

    fn take(&mut self, asked: Asked, answer: Answer, now: Mono) -> Next {
        match (asked, answer) {
            (Asked::Evidence, Answer::Evidence(evidence)) => self.weigh(&evidence, now),
            (Asked::Echo | Asked::OtherEcho, Answer::Echo(echo)) => match echo.rtts.iter().min() {
                Some(rtt) => {
                    alive("echo", format!("echo{} in {}", self.at(asked), millis(*rtt)), Some(*rtt), now)
                }
                None => self.failed(asked, &echo.failure.unwrap_or(ConnectFailure::Timeout), now),
            },
            (Asked::Connect | Asked::OtherConnect, Answer::Connect(outcome)) => {
                self.connected(asked, outcome, now)
            }
            (Asked::Handshake, Answer::Handshake(outcome)) => self.dialled(outcome, now),
            (Asked::Direct, Answer::Connect(outcome)) => self.direct_connect(outcome, now),
            (Asked::Direct, Answer::Ssh(ssh)) => match ssh.failure {
                None => self.answers_directly("SSH at the public address", ssh.connect, now),
                Some(failure) => {
                    self.failed_directly(ssh_failure(&failure), doubt(&failure), is_busy(&failure), now)
                }
            },
            (_, Answer::Refused(why)) => self.refused(asked, why, now),
            (_, _) => self.refused(asked, "the answer was to another question".into(), now),
        }
    }

    // ------------------------------------------------------------------ evidence

    /// `None`: there is no tunnel that could know anything.
    fn look(&mut self, phase: Phase, now: Mono) -> Option<Next> {
        self.rules.paths.peer?;
        self.phase = phase;
        Some(self.ask(&[Asked::Evidence], now))
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
                self.ask_first(now)
            }
        }
    }

    fn is_heard(&self, packet: Mono, now: Mono) -> Verdict {
        let reply = self.reply();
        let mut text = heard(packet, now);
        if reply == Reply::Missing {
            let failures = self.tried().join("; ");
            let since = self.rules.vain_since.unwrap_or(self.began);
            let what = if packet >= since { "its packets arrive, and ours get" } else { "since then" };
            text = format!("{text}; {what} no answer: {failures}");
        }
        Verdict::Alive(Alive { source: EVIDENCE, text, rtt: None, proof: packet, reply })
    }

    fn reply(&self) -> Reply {
        match self.answer {
            Some(answer) if answer >= self.began => Reply::Given,
            _ if self.vain => Reply::Missing,
            _ => Reply::NotAsked,
        }
    }

    // ------------------------------------------------------------------- asking

    fn ask_first(&mut self, now: Mono) -> Next {
        if !(self.rules.echo_first && self.session && self.rules.paths.inner.is_some()) {
            return self.ask_all(now);
        }
        self.phase = Phase::HeadStart;
        self.ask(&[Asked::Echo], now)
    }

    fn ask_all(&mut self, now: Mono) -> Next {
        self.phase = Phase::Asking;
        let late = now >= self.head_start_ends();
        let Paths { own, inner, other, direct, .. } = &self.rules.paths;
        let through = self.session && inner.is_some();
        // Behind a device that is there, a handshake of that device proves nothing.
        let dials = self.may_dial() && (*own || !self.session);
        let wanted = [
            (Asked::Echo, through),
            (Asked::Connect, through),
            (Asked::OtherEcho, through && late && other.is_some()),
            (Asked::OtherConnect, through && late && other.is_some()),
            (Asked::Handshake, dials),
            (Asked::Direct, direct.is_some()),
        ];
        let wanted: Vec<Asked> = wanted.into_iter().filter(|(_, wanted)| *wanted).map(|(a, _)| a).collect();
        self.ask(&wanted, now)
    }

    /// Each once; the last look is another than the first.
    fn ask(&mut self, wanted: &[Asked], now: Mono) -> Next {
        let mut questions = Vec::new();
        for asked in wanted {
            let is_new = *asked == Asked::Evidence || !self.asked.contains(asked);
            if let Some(question) = self.question(*asked).filter(|_| is_new) {
                self.asked.insert(*asked);
                self.open.insert(*asked);
                questions.push((*asked, question));
            }
        }
        if self.asked.contains(&Asked::Handshake) {
            self.dialled = self.dialled.or(Some(now));
        }
        match (questions.is_empty(), self.open.is_empty()) {
            (false, _) => Next::Ask(questions),
            (true, false) => Next::Wait,
            (true, true) => self.settle(now),
        }
    }

    /// Where a tunnel has told the host's key, the public address must prove to be the same host:
    /// it may be somebody else's by now.
    fn question(&self, asked: Asked) -> Option<Question> {
        let Rules { port, paths, pin, .. } = &self.rules;
        let port = *port;
        Some(match asked {
            Asked::Evidence => Question::Evidence { peer: paths.peer? },
            Asked::Handshake => Question::Handshake { peer: paths.peer? },
            Asked::Echo => {
                let (peer, address) = paths.inner?;
                Question::Echo { peer, address, count: ECHOES }
            }
            Asked::OtherEcho => Question::Echo { peer: paths.peer?, address: paths.other?, count: ECHOES },
            Asked::Connect => Question::Connect { route: paths.route(Way::Tunnel)?, port },
            Asked::OtherConnect => {
                let route = Route::Tunnel { peer: paths.peer?, address: paths.other? };
                Question::Connect { route, port }
            }
            Asked::Direct => {
                let route = paths.route(Way::Direct)?;
                match pin.clone().filter(|_| paths.own) {
                    Some(pin) => {
                        Question::Ssh { route, port, connect: self.rules.timeout, run: key_only(pin) }
                    }
                    None => Question::Connect { route, port },
                }
            }
        })
    }

    fn may_dial(&self) -> bool {
        self.rules.paths.peer.is_some() && self.rules.may_dial && self.came && self.dialled.is_none()
    }

    // ------------------------------------------------------------------ answers

    /// A refusal that came through the tunnel is an answer.
    fn connected(&mut self, asked: Asked, outcome: Result<Duration, ConnectFailure>, now: Mono) -> Next {
        let what = format!("tcp port {}{}", self.rules.port, self.at(asked));
        match outcome {
            Ok(took) => alive("tcp", format!("{what} in {}", millis(took)), Some(took), now),
            Err(failure @ (ConnectFailure::Refused | ConnectFailure::Reset)) => {
                alive("tcp", format!("{what} answered: {failure}"), None, now)
            }
            Err(failure) => self.failed(asked, &failure, now),
        }
    }

    /// Where a host has two inner addresses, words name the one that is meant.
    fn at(&self, asked: Asked) -> String {
        let named = self.rules.paths.other.and(self.address(asked));
        named.map(|address| format!(" at {address}")).unwrap_or_default()
    }

    /// Behind a device it opens the way to ask.
    fn dialled(&mut self, outcome: Result<Duration, ConnectFailure>, now: Mono) -> Next {
        match outcome {
            Ok(took) if self.rules.paths.own => {
                let text = self.beside(format!("handshake in {}", millis(took)));
                alive("handshake", text, Some(took), now)
            }
            Ok(_) => {
                self.session = true;
                // The session that they were to go through is another one now.
                let open = self.open.clone();
                let inside = |asked: &Asked| matches!(asked, Asked::Echo | Asked::Connect);
                self.asked.retain(|asked| open.contains(asked) || !inside(asked));
                self.ask(&[Asked::Echo, Asked::Connect], now)
            }
            Err(failure) => {
                self.dial_failed = Some(now);
                self.failed(Asked::Handshake, &failure, now)
            }
        }
    }

    /// On the Internet a refusal may come from whatever stands in front.
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

    /// It lives. What its tunnel says is waited for all the same: that is how it is watched.
    fn answers_directly(&mut self, way: &str, rtt: Option<Duration>, now: Mono) -> Next {
        self.direct = DirectAnswer::Answered;
        let text = format!("answers: {way}");
        let proof = Alive { source: DIRECT, text, rtt, proof: now, reply: Reply::NotAsked };
        self.direct_proof = Some(Verdict::Alive(proof));
        self.go_on(now)
    }

    fn failed_directly(&mut self, text: String, said: DirectAnswer, busy: bool, now: Mono) -> Next {
        self.unclear |= busy;
        self.direct = said;
        self.failures.insert(Asked::Direct, text);
        self.go_on(now)
    }

    fn failed(&mut self, asked: Asked, failure: &ConnectFailure, now: Mono) -> Next {
        self.unclear |= *failure == ConnectFailure::Busy;
        self.vain |= self.rules.paths.own && *failure == ConnectFailure::Timeout;
        self.failures.insert(asked, failure.to_string());
        let lost = *failure == ConnectFailure::NoTunnel;
        self.session &= !lost;
        match lost && self.phase != Phase::HeadStart && self.may_dial() {
            true => self.ask(&[Asked::Handshake], now),
            false => self.go_on(now),
        }
    }

    /// Without its peer the tunnel can be asked nothing; other refusals concern one question.
    fn refused(&mut self, asked: Asked, why: String, now: Mono) -> Next {
        self.unclear = true;
        self.failures.insert(asked, why);
        match (asked, self.phase) {
            (Asked::Evidence, Phase::LastLook) => self.end(now),
            (Asked::Evidence, _) => {
                self.phase = Phase::Asking;
                self.ask(&[Asked::Direct], now)
            }
            _ => self.go_on(now),
        }
    }

    fn go_on(&mut self, now: Mono) -> Next {
        match (self.phase, self.open.is_empty()) {
            (Phase::HeadStart, _) => self.ask_all(now),
            (_, true) => self.settle(now),
            (_, false) => Next::Wait,
        }
    }

    // -------------------------------------------------------------------- the end

    /// Nothing is open any more, and nothing has proved it alive through its tunnel.
    fn settle(&mut self, now: Mono) -> Next {
        if self.owes_other() {
            return self.ask(&OTHER, now);
        }
        self.look_once_more(now).unwrap_or_else(|| self.end(now))
    }

    /// Reads the evidence once more, where packets of its own tunnel are evidence.
    pub fn look_once_more(&mut self, now: Mono) -> Option<Next> {
        let asked = self.asked.iter().any(|asked| *asked != Asked::Evidence);
        let looks = self.rules.paths.own && asked && !self.failures.contains_key(&Asked::Evidence);
        if looks { self.look(Phase::LastLook, now) } else { None }
    }

    fn end(&mut self, now: Mono) -> Next {
        if let Some(Verdict::Alive(proof)) = self.direct_proof.take() {
            let text = self.beside(proof.text);
            return Next::Done(Verdict::Alive(Alive { text, ..proof }));
        }
        let limit = self.rules.newer_than.min(now - self.rules.rhythm.tries());
        if let Some(proof) = self.attempt.filter(|attempt| *attempt > limit) {
            return Next::Done(Verdict::Alive(self.is_refused(proof, now)));
        }
        let mut found: Vec<String> =
            self.packet.map(|packet| format!("last {}", heard(packet, now))).into_iter().collect();
        if self.rules.paths.peer.is_some() && !self.session && !self.failures.contains_key(&Asked::Evidence) {
            found.push("no session".to_owned());
        }
        found.extend(self.tried());
        if self.unclear || found.is_empty() {
            return Next::Done(Verdict::Unclear);
        }
        Next::Done(Verdict::Dead { text: format!("no answer: {}", found.join("; ")) })
    }

    /// It makes handshakes, and the answers are lost or refused: it is alive, and its tunnel is not.
    fn is_refused(&self, proof: Mono, now: Mono) -> Alive {
        let text =
            format!("its handshakes arrive (the last {} ago), and lead to no session", age(now.since(proof)));
        Alive { source: ATTEMPTS, text: self.beside(text), rtt: None, proof, reply: Reply::NotAsked }
    }

    /// What was asked in vain.
    fn tried(&self) -> Vec<String> {
        let port = self.rules.port;
        let words = |(asked, failure): (&Asked, &String)| match asked {
            Asked::Evidence => failure.clone(),
            Asked::Echo | Asked::OtherEcho => format!("echo{}: {failure}", self.at(*asked)),
            Asked::Connect | Asked::OtherConnect => {
                format!("tcp port {port}{}: {failure}", self.at(*asked))
            }
            Asked::Handshake => format!("handshake: {failure}"),
            Asked::Direct => format!("public address: {failure}"),
        };
        self.failures.iter().map(words).collect()
    }

    /// What answered, and what did not.
    fn beside(&self, text: String) -> String {
        [text].into_iter().chain(self.tried()).collect::<Vec<_>>().join("; ")
    }
}

fn heard(packet: Mono, now: Mono) -> String {
    format!("authenticated packet {} ago", age(now.since(packet)))
}

/// The key exchange and nothing more: proves who is there.
fn key_only(pin: HostKey) -> SshRun {
    SshRun { pin: Some(pin), learn: false, user: None, commands: Vec::new() }
}

fn alive(source: &'static str, text: String, rtt: Option<Duration>, proof: Mono) -> Next {
    Next::Done(Verdict::Alive(Alive { source, text, rtt, proof, reply: Reply::Given }))
}

fn is_busy(failure: &SshFailure) -> bool {
    *failure == SshFailure::Connect(ConnectFailure::Busy)
}

/// A refusal may come from whatever stands in front.
fn silence(failure: &ConnectFailure) -> DirectAnswer {
    match failure {
        ConnectFailure::Refused | ConnectFailure::Reset => DirectAnswer::Doubtful,
        ConnectFailure::Timeout | ConnectFailure::Unreachable(_) => DirectAnswer::Silent,
        ConnectFailure::NoTunnel | ConnectFailure::Busy => DirectAnswer::NotAsked,
    }
}

fn doubt(failure: &SshFailure) -> DirectAnswer {
    match failure {
        SshFailure::Connect(failure) => silence(failure),
        _ => DirectAnswer::Doubtful,
    }
}

fn ssh_failure(failure: &SshFailure) -> String {
    match failure {
        SshFailure::Connect(failure) => format!("ssh: {failure}"),
        SshFailure::HostKeyChanged { seen, .. } => format!("another host answers (key {seen})"),
        SshFailure::Timeout => "ssh: timed out".into(),
        _ => "answers, but not as this host's SSH server".into(),
    }
}

/// For people: `12.3 ms`.
pub fn millis(d: Duration) -> String {
    format!("{:.1} ms", d.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests;
