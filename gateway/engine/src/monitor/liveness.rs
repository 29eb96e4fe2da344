//! The host check: one question after the other until one proves the host alive.
//!
//! Evidence, echo, TCP, a forced handshake, the public address. Promises a verdict after at most
//! one question of each kind (two echoes behind a device that had to be dialled first). Knows
//! nothing of attempts, states and schedules.

use std::time::Duration;

use crate::id::PeerId;
pub use crate::time::age;

use crate::time::Mono;
use crate::wire::{Answer, ConnectFailure, DirectAnswer, Evidence, Question, SshFailure, SshRun};

use super::reach::{Paths, Way};

/// The source of a result that nothing had to be asked for.
pub const EVIDENCE: &str = "evidence";

/// One is enough to prove life, and a lost one is followed by TCP.
const ECHOES: u8 = 1;

/// What a host check goes by.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Only what came after this proves anything.
    pub newer_than: Mono,
    /// Somebody waits for it.
    pub demanded: bool,
    /// Whether the peer may be dialled now.
    pub may_dial: bool,
    /// Whether its tunnel has ever carried anything; before that nobody can be dialled.
    pub came: bool,
    /// Where something is known to listen, if anywhere.
    pub port: u16,
    /// Of each question.
    pub timeout: Duration,
    /// The host's SSH key, where `port` is that of SSH.
    pub pin: Option<String>,
    pub paths: Paths,
}

/// A host check under way.
#[derive(Clone, Debug)]
pub struct Liveness {
    rules: Rules,
    step: Step,
    /// A question went unanswered by us, not by the host: its silence proves nothing.
    unclear: bool,
    pub came: bool,
    /// When a forced handshake failed.
    pub dial_failed: Option<Mono>,
    /// When the peer was dialled.
    pub dialled: Option<Mono>,
    /// What the public address said.
    pub direct: DirectAnswer,
    tried: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Evidence,
    Echo,
    Connect,
    Handshake,
    Direct,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    Ask(Question),
    Done(Verdict),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// `proof`: when the host is known to have been alive.
    Alive {
        source: &'static str,
        text: String,
        rtt: Option<Duration>,
        proof: Mono,
    },
    Dead {
        text: String,
    },
    /// Something, or anything at all, could not be asked: nothing follows.
    Unclear,
}

impl Liveness {
    pub fn begin(rules: Rules) -> (Liveness, Next) {
        let mut check = Liveness {
            came: rules.came,
            rules,
            step: Step::Evidence,
            unclear: false,
            dial_failed: None,
            dialled: None,
            direct: DirectAnswer::NotAsked,
            tried: Vec::new(),
        };
        let next = match check.rules.paths.peer {
            Some(peer) => Next::Ask(Question::Evidence { peer }),
            None => check.direct(),
        };
        (check, next)
    }

    pub fn is_demanded(&self) -> bool {
        self.rules.demanded
    }

    pub fn answer(&mut self, answer: Answer, now: Mono) -> Next {
        match (self.step, answer) {
            (Step::Evidence, Answer::Evidence(evidence)) => self.weigh(evidence, now),
            (Step::Echo, Answer::Echo(echo)) => match (echo.rtts.iter().min(), echo.failure) {
                (Some(rtt), _) => alive("echo", format!("echo in {}", millis(*rtt)), Some(*rtt), now),
                (None, failure) => self.no_echo(failure.unwrap_or(ConnectFailure::Timeout), now),
            },
            (Step::Connect, Answer::Connect(outcome)) => self.connected(outcome, now),
            (Step::Handshake, Answer::Handshake(outcome)) => self.dialled(outcome, now),
            (Step::Direct, Answer::Connect(outcome)) => self.direct_connect(outcome, now),
            (Step::Direct, Answer::Ssh(ssh)) => match ssh.failure {
                None => self.answers(self.over("SSH at the public address"), ssh.connect, now),
                Some(failure) => {
                    self.failed_direct(ssh_failure(&failure), doubt(&failure), is_busy(&failure))
                }
            },
            (step, Answer::Refused(why)) => self.refused(step, why, now),
            (step, _) => self.refused(step, "the answer was to another question".into(), now),
        }
    }

    fn weigh(&mut self, evidence: Evidence, now: Mono) -> Next {
        self.came |= evidence.last_packet.is_some() || evidence.last_handshake.is_some();
        if let Some(packet) = evidence.last_packet.filter(|_| self.rules.paths.own) {
            let text = format!("authenticated packet {} ago", age(now.since(packet)));
            if packet > self.rules.newer_than {
                return Next::Done(Verdict::Alive { source: EVIDENCE, text, rtt: None, proof: packet });
            }
            self.tried.push(format!("last {text}"));
        }
        match evidence.established {
            true => self.echo(now),
            false => {
                self.tried.push("no session".into());
                self.handshake(now)
            }
        }
    }

    fn echo(&mut self, now: Mono) -> Next {
        let Some((peer, address)) = self.rules.paths.inner else {
            return self.handshake(now);
        };
        self.step = Step::Echo;
        Next::Ask(Question::Echo { peer, address, count: ECHOES })
    }

    fn no_echo(&mut self, failure: ConnectFailure, now: Mono) -> Next {
        self.unclear |= failure == ConnectFailure::Busy;
        let session_lost = failure == ConnectFailure::NoTunnel;
        self.tried.push(format!("echo: {failure}"));
        match self.rules.paths.route(Way::Tunnel) {
            Some(route) if !session_lost => {
                self.step = Step::Connect;
                Next::Ask(Question::Connect { route, port: self.rules.port })
            }
            _ => self.handshake(now),
        }
    }

    /// A refusal that came through the tunnel is an answer.
    fn connected(&mut self, outcome: Result<Duration, ConnectFailure>, now: Mono) -> Next {
        let port = self.rules.port;
        match outcome {
            Ok(took) => alive("tcp", format!("tcp port {port} in {}", millis(took)), Some(took), now),
            Err(failure @ (ConnectFailure::Refused | ConnectFailure::Reset)) => {
                alive("tcp", format!("tcp port {port} answered: {failure}"), None, now)
            }
            Err(failure) => {
                self.unclear |= failure == ConnectFailure::Busy;
                self.tried.push(format!("tcp port {port}: {failure}"));
                // Behind a device that is there, a handshake of that device proves nothing more.
                if self.rules.paths.own { self.handshake(now) } else { self.direct() }
            }
        }
    }

    fn handshake(&mut self, now: Mono) -> Next {
        match self.rules.paths.peer {
            Some(peer) if self.rules.may_dial && self.came && self.dialled.is_none() => self.dial(peer, now),
            _ => self.direct(),
        }
    }

    fn dial(&mut self, peer: PeerId, now: Mono) -> Next {
        self.step = Step::Handshake;
        self.dialled = Some(now);
        Next::Ask(Question::Handshake { peer })
    }

    fn dialled(&mut self, outcome: Result<Duration, ConnectFailure>, now: Mono) -> Next {
        match outcome {
            Ok(took) if self.rules.paths.own => {
                let text = format!("handshake in {}; {}", millis(took), self.tried.join("; "));
                alive("handshake", text, Some(took), now)
            }
            Ok(_) => self.echo(now),
            Err(failure) => {
                self.unclear |= failure == ConnectFailure::Busy;
                self.dial_failed = Some(now);
                self.tried.push(format!("handshake: {failure}"));
                self.direct()
            }
        }
    }

    /// Where a tunnel has told the host's key, the public address must prove to be the same host:
    /// it may be somebody else's by now.
    fn direct(&mut self) -> Next {
        let Some(route) = self.rules.paths.route(Way::Direct) else {
            return self.end();
        };
        self.step = Step::Direct;
        let port = self.rules.port;
        Next::Ask(match self.rules.pin.clone().filter(|_| self.rules.paths.own) {
            Some(pin) => Question::Ssh { route, port, connect: self.rules.timeout, run: key_only(pin) },
            None => Question::Connect { route, port },
        })
    }

    /// On the Internet a refusal may come from whatever stands in front.
    fn direct_connect(&mut self, outcome: Result<Duration, ConnectFailure>, now: Mono) -> Next {
        let port = self.rules.port;
        match outcome {
            Ok(took) => {
                self.answers(self.over(&format!("tcp port {port} at the public address")), Some(took), now)
            }
            Err(failure) => {
                let busy = failure == ConnectFailure::Busy;
                self.failed_direct(format!("tcp port {port}: {failure}"), silence(&failure), busy)
            }
        }
    }

    fn answers(&mut self, text: String, took: Option<Duration>, now: Mono) -> Next {
        self.direct = DirectAnswer::Answered;
        alive("direct", text, took, now)
    }

    fn failed_direct(&mut self, text: String, said: DirectAnswer, busy: bool) -> Next {
        self.unclear |= busy;
        self.direct = said;
        self.tried.push(format!("public address: {text}"));
        self.end()
    }

    /// Without its peer the tunnel can be asked nothing; other refusals concern one question.
    fn refused(&mut self, step: Step, why: String, now: Mono) -> Next {
        self.unclear = true;
        self.tried.push(why);
        match step {
            Step::Evidence | Step::Handshake => self.direct(),
            Step::Echo | Step::Connect => self.handshake(now),
            Step::Direct => self.end(),
        }
    }

    fn end(&self) -> Next {
        if self.unclear || self.tried.is_empty() {
            return Next::Done(Verdict::Unclear);
        }
        Next::Done(Verdict::Dead { text: format!("no answer: {}", self.tried.join("; ")) })
    }

    /// The way it went, and what failed before.
    fn over(&self, way: &str) -> String {
        match self.tried.is_empty() {
            true => format!("answers: {way}"),
            false => format!("answers: {way}; {}", self.tried.join("; ")),
        }
    }
}

/// The key exchange and nothing more: proves who is there.
fn key_only(pin: String) -> SshRun {
    SshRun { pin: Some(pin), learn: false, user: None, commands: Vec::new() }
}

fn alive(source: &'static str, text: String, rtt: Option<Duration>, proof: Mono) -> Next {
    Next::Done(Verdict::Alive { source, text, rtt, proof })
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
mod tests {
    use super::*;
    use crate::monitor::testing;
    use crate::wire::{EchoAnswer, HostSpec, SshAnswer};

    const NOW: Mono = Mono::from_secs(1_000);
    const TOOK: Duration = Duration::from_millis(30);

    fn spec() -> HostSpec {
        HostSpec { direct: Some("cam.example".into()), ..testing::host(1) }
    }

    fn rules(spec: &HostSpec) -> Rules {
        Rules {
            newer_than: Mono::from_secs(940),
            demanded: false,
            may_dial: true,
            came: true,
            port: 22,
            timeout: Duration::from_secs(10),
            pin: spec.ssh.pin.clone(),
            paths: Paths::of(spec),
        }
    }

    fn evidence(last_packet: u64, established: bool) -> Answer {
        let at = Some(Mono::from_secs(last_packet));
        Answer::Evidence(Evidence { last_packet: at, last_handshake: at, established, ..Evidence::default() })
    }

    fn echo(answered: bool) -> Answer {
        let rtts = if answered { vec![TOOK] } else { vec![] };
        Answer::Echo(EchoAnswer { sent: 1, rtts, failure: None })
    }

    fn no_session() -> Answer {
        let failure = Some(ConnectFailure::NoTunnel);
        Answer::Echo(EchoAnswer { sent: 0, rtts: vec![], failure })
    }

    const SILENT: Answer = Answer::Connect(Err(ConnectFailure::Timeout));
    const NO_HANDSHAKE: Answer = Answer::Handshake(Err(ConnectFailure::Timeout));

    /// Runs a check on these answers: what was asked, and how it ended.
    fn check(rules: Rules, answers: Vec<Answer>) -> (String, &'static str) {
        let (mut check, mut next) = Liveness::begin(rules);
        let mut asked = Vec::new();
        let mut answers = answers.into_iter();
        loop {
            match next {
                Next::Ask(question) => asked.push(name(&question)),
                Next::Done(Verdict::Alive { source, .. }) => return (asked.join(" "), source),
                Next::Done(Verdict::Dead { .. }) => return (asked.join(" "), "dead"),
                Next::Done(Verdict::Unclear) => return (asked.join(" "), "unclear"),
            }
            next = check.answer(answers.next().expect("an answer to each question"), NOW);
        }
    }

    fn name(question: &Question) -> &'static str {
        match question {
            Question::Evidence { .. } => "evidence",
            Question::Echo { .. } => "echo",
            Question::Connect { route: crate::wire::Route::Tunnel { .. }, .. } => "tcp",
            Question::Connect { .. } => "direct",
            Question::Handshake { .. } => "handshake",
            Question::Ssh { .. } => "key",
        }
    }

    #[test]
    fn each_step_follows_from_the_failure_of_the_one_before() {
        let connected = Answer::Connect(Ok(TOOK));
        let refused = Answer::Connect(Err(ConnectFailure::Refused));
        let table: Vec<(Vec<Answer>, &str, &str)> = vec![
            (vec![evidence(941, true)], "evidence", "evidence"),
            (vec![evidence(940, true), echo(true)], "evidence echo", "echo"),
            (vec![evidence(1, true), echo(false), connected.clone()], "evidence echo tcp", "tcp"),
            (vec![evidence(1, true), echo(false), refused.clone()], "evidence echo tcp", "tcp"),
            (
                vec![evidence(1, true), echo(false), SILENT, Answer::Handshake(Ok(TOOK))],
                "evidence echo tcp handshake",
                "handshake",
            ),
            (
                vec![evidence(1, true), echo(false), SILENT, NO_HANDSHAKE, connected.clone()],
                "evidence echo tcp handshake direct",
                "direct",
            ),
            (
                vec![evidence(1, true), echo(false), SILENT, NO_HANDSHAKE, refused],
                "evidence echo tcp handshake direct",
                "dead",
            ),
            (
                vec![evidence(1, true), no_session(), NO_HANDSHAKE, SILENT],
                "evidence echo handshake direct",
                "dead",
            ),
            (vec![evidence(1, false), NO_HANDSHAKE, connected], "evidence handshake direct", "direct"),
        ];
        for (answers, asked, ended) in table {
            assert_eq!(check(rules(&spec()), answers), (asked.to_owned(), ended));
        }
    }

    #[test]
    fn what_could_not_be_asked_proves_nothing() {
        let refused = || Answer::Refused("no such peer".into());
        let busy = || Answer::Connect(Err(ConnectFailure::Busy));
        let unclear = |answers| check(rules(&spec()), answers).1;
        assert_eq!(unclear(vec![refused(), SILENT]), "unclear");
        assert_eq!(unclear(vec![evidence(1, false), NO_HANDSHAKE, busy()]), "unclear");
        assert_eq!(unclear(vec![evidence(1, true), echo(false), busy(), NO_HANDSHAKE, SILENT]), "unclear");
        assert_eq!(unclear(vec![echo(true), SILENT]), "unclear", "an answer to another question");
    }

    #[test]
    fn nobody_is_dialled_who_may_not_or_cannot_be() {
        let quiet = Rules { may_dial: false, ..rules(&spec()) };
        assert_eq!(check(quiet, vec![evidence(1, false), SILENT]).0, "evidence direct");
        let never = Answer::Evidence(Evidence::default());
        let unseen = Rules { came: false, ..rules(&spec()) };
        assert_eq!(check(unseen, vec![never, SILENT]).0, "evidence direct");
    }

    #[test]
    fn a_known_host_must_prove_its_key_at_the_public_address() {
        let mut spec = spec();
        spec.ssh.pin = Some("SHA256:a".into());
        let start = || vec![evidence(1, false), NO_HANDSHAKE];
        let own = Answer::Ssh(SshAnswer::default());
        let end = |answer| check(rules(&spec), start().into_iter().chain([answer]).collect());
        assert_eq!(end(own), ("evidence handshake key".into(), "direct"));
        let changed = SshFailure::HostKeyChanged { pinned: "SHA256:a".into(), seen: "SHA256:b".into() };
        let stranger = Answer::Ssh(SshAnswer { failure: Some(changed), ..SshAnswer::default() });
        assert_eq!(end(stranger).1, "dead");
    }

    #[test]
    fn what_does_not_prove_to_be_this_host_is_told_from_silence() {
        use DirectAnswer::{Doubtful, Silent};
        let connect = SshFailure::Connect;
        let other = SshFailure::HostKeyChanged { pinned: "a".into(), seen: "b".into() };
        assert_eq!(doubt(&connect(ConnectFailure::Timeout)), Silent);
        for failure in [connect(ConnectFailure::Refused), SshFailure::Timeout, other] {
            assert_eq!(doubt(&failure), Doubtful, "{failure:?}");
        }
        let (mut check, _) = Liveness::begin(rules(&spec()));
        assert_eq!(check.direct, DirectAnswer::NotAsked);
        check.answer(evidence(1, false), NOW);
        check.answer(NO_HANDSHAKE, NOW);
        check.answer(SILENT, NOW);
        assert_eq!(check.direct, Silent);
    }

    #[test]
    fn behind_a_device_only_its_own_answers_count() {
        let behind = HostSpec { own_tunnel: false, direct: None, ..spec() };
        let with = |answers| check(rules(&behind), answers);
        assert_eq!(with(vec![evidence(999, true), echo(true)]), ("evidence echo".into(), "echo"));
        assert_eq!(
            with(vec![evidence(999, true), echo(false), SILENT]),
            ("evidence echo tcp".into(), "dead")
        );
        let dialled = vec![evidence(1, false), Answer::Handshake(Ok(TOOK)), echo(true)];
        assert_eq!(with(dialled), ("evidence handshake echo".into(), "echo"));
        let lost_again = vec![evidence(1, false), Answer::Handshake(Ok(TOOK)), no_session()];
        assert_eq!(with(lost_again), ("evidence handshake echo".into(), "dead"));
    }
}
