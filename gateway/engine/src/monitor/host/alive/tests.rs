use super::*;
use crate::messages::{EchoReply, HostSpec, SshFailure, SshReply};
use crate::monitor::host::allowed_silence::AllowedSilence;
use crate::monitor::testing;

const START: Mono = Mono::from_secs(1_000);
const TOOK: Duration = Duration::from_millis(30);

fn spec() -> HostSpec {
    HostSpec { direct: Some("cam.example".into()), ..testing::host(1) }
}

fn rules(spec: &HostSpec) -> Rules {
    Rules {
        newer_than: Mono::from_secs(940),
        keyed_at: Mono::ZERO,
        rhythm: AllowedSilence::of(Duration::from_secs(25)),
        demanded: false,
        vain_since: None,
        echo_first: false,
        may_dial: true,
        came: true,
        port: 22,
        timeout: Duration::from_secs(10),
        pin: spec.ssh.pin.clone(),
        paths: Paths::of(spec),
    }
}

fn evidence(last_packet: u64, established: bool) -> ProbeReply {
    let at = Some(Mono::from_secs(last_packet));
    let last_handshake = Some(Mono::from_secs(1));
    ProbeReply::Evidence(Evidence { last_packet: at, last_handshake, established, ..Evidence::default() })
}

fn echo(answered: bool) -> ProbeReply {
    let rtts = if answered { vec![TOOK] } else { vec![] };
    ProbeReply::Echo(EchoReply { sent: 1, rtts, failure: None })
}

fn no_session() -> ProbeReply {
    let failure = Some(ConnectFailure::NoTunnel);
    ProbeReply::Echo(EchoReply { sent: 0, rtts: vec![], failure })
}

const CONNECTED: ProbeReply = ProbeReply::Connect(Ok(TOOK));
const SILENT: ProbeReply = ProbeReply::Connect(Err(ConnectFailure::Timeout));
const NO_HANDSHAKE: ProbeReply = ProbeReply::Handshake(Err(ConnectFailure::Timeout));
const DIALLED: ProbeReply = ProbeReply::Handshake(Ok(TOOK));

/// A check in progress with its probes; `|` separates the groups that were sent together.
struct Run {
    check: AliveCheck,
    next: Next,
    asked: String,
}

impl Run {
    fn new(rules: Rules) -> Run {
        let (check, next) = AliveCheck::begin(rules, START);
        let mut run = Run { check, next: Next::Wait, asked: String::new() };
        run.note(next);
        run
    }

    fn note(&mut self, next: Next) {
        if let Next::ProbeRequest(probes) = &next {
            let names: Vec<&str> = probes.iter().map(|(_, probe)| name(probe)).collect();
            let between = if self.asked.is_empty() { "" } else { " | " };
            self.asked = format!("{}{between}{}", self.asked, names.join(" "));
        }
        self.next = next;
    }

    fn gets(mut self, asked: HostProbe, answer: ProbeReply) -> Run {
        let next = self.check.answer(asked, answer, START + TOOK);
        self.note(next);
        self
    }

    fn looks(self, last_packet: u64, established: bool) -> Run {
        self.gets(HostProbe::Evidence, evidence(last_packet, established))
    }

    fn end(&self) -> &'static str {
        match &self.next {
            Next::Done(AliveOutcome::Alive(alive)) => alive.source,
            Next::Done(AliveOutcome::Dead { .. }) => "dead",
            Next::Done(AliveOutcome::Unclear) => "unclear",
            Next::ProbeRequest(_) | Next::Wait => "open",
        }
    }

    fn is(&self, asked: &str, end: &str) {
        assert_eq!((self.asked.as_str(), self.end()), (asked, end));
    }

    fn alive(self) -> Alive {
        match self.next {
            Next::Done(AliveOutcome::Alive(alive)) => alive,
            next => panic!("{next:?}"),
        }
    }
}

fn name(probe: &Probe) -> &'static str {
    match probe {
        Probe::Evidence { .. } => "evidence",
        Probe::Echo { .. } | Probe::LargeEcho { .. } => "echo",
        Probe::Connect { route: crate::messages::Route::Tunnel { .. }, .. } => "tcp",
        Probe::Connect { .. } => "direct",
        Probe::Handshake { .. } => "handshake",
        Probe::Ssh { .. } => "key",
    }
}

use HostProbe::{Connect, Direct, Echo, Handshake};
const ALL: &str = "evidence | echo tcp handshake direct";

fn tunnel_only() -> HostSpec {
    HostSpec { direct: None, ..spec() }
}

#[test]
fn all_probes_are_sent_at_once_and_the_first_reply_ends_the_check() {
    let asked = || Run::new(rules(&spec())).looks(940, true);
    Run::new(rules(&spec())).looks(941, true).is("evidence", "evidence");
    asked().is(ALL, "open");
    asked().gets(Echo, echo(true)).is(ALL, "echo");
    asked().gets(Connect, CONNECTED).is(ALL, "tcp");
    let refused = ProbeReply::Connect(Err(ConnectFailure::Refused));
    asked().gets(Echo, echo(false)).gets(Connect, refused.clone()).is(ALL, "tcp");
    asked().gets(Handshake, DIALLED).is(ALL, "handshake");
    asked().gets(Direct, refused).gets(Echo, echo(false)).is(ALL, "open");
}

#[test]
fn a_host_without_any_reply_is_down_after_the_evidence_is_read_once_more() {
    let silent = || {
        let asked = Run::new(rules(&spec())).looks(1, true).gets(Echo, echo(false));
        asked.gets(Connect, SILENT).gets(Handshake, NO_HANDSHAKE).gets(Direct, SILENT)
    };
    let all = format!("{ALL} | evidence");
    silent().is(&all, "open");
    silent().looks(1, true).is(&all, "dead");
    let heard = silent().looks(1_000, true);
    heard.is(&all, "evidence");
    let alive = heard.alive();
    assert!(alive.reply == Reply::Missing && alive.text.contains("ours get no answer"), "{alive:?}");
    Run::new(rules(&spec())).looks(1, false).is("evidence | handshake direct", "open");
}

#[test]
fn a_packet_proves_the_host_up_until_the_next_keepalive_is_due_and_never_under_another_key() {
    let start = START.as_nanos() / 1_000_000_000;
    let end = |rules: Rules, packet| {
        let silent = Run::new(rules).looks(packet, true).gets(Echo, echo(false)).gets(Connect, SILENT);
        silent.gets(Handshake, NO_HANDSHAKE).looks(packet, true).end()
    };
    let demanded = Rules { newer_than: START, demanded: true, ..rules(&tunnel_only()) };
    assert_eq!(end(demanded.clone(), start - 29), "evidence");
    assert_eq!(end(demanded.clone(), start - 31), "dead");
    assert_eq!(end(Rules { keyed_at: START - Duration::from_secs(5), ..demanded }, start - 9), "dead");
}

#[test]
fn a_handshake_in_the_meantime_speaks_against_one_way_loss() {
    let silent = Run::new(rules(&tunnel_only())).looks(1, true).gets(Echo, echo(false));
    let silent = silent.gets(Connect, SILENT).gets(Handshake, NO_HANDSHAKE);
    let now = Some(START + TOOK);
    let back = Evidence { last_packet: now, last_handshake: now, established: true, ..Evidence::default() };
    let alive = silent.gets(HostProbe::Evidence, ProbeReply::Evidence(back)).alive();
    assert!(alive.reply == Reply::Given && alive.source == EVIDENCE);
}

#[test]
fn a_host_that_did_not_reply_is_probed_again_although_its_packets_arrive() {
    let again = || {
        Run::new(Rules { vain_since: Some(Mono::from_secs(980)), ..rules(&tunnel_only()) }).looks(999, true)
    };
    again().is("evidence | echo tcp handshake", "open");
    assert_eq!(again().gets(Echo, echo(true)).alive().reply, Reply::Given);
    let silent = again().gets(Echo, echo(false)).gets(Connect, SILENT).gets(Handshake, NO_HANDSHAKE);
    assert_eq!(silent.looks(999, true).alive().reply, Reply::Missing);
}

#[test]
fn an_echo_that_is_likely_to_get_a_reply_is_sent_alone_first() {
    let first = || Run::new(Rules { echo_first: true, ..rules(&tunnel_only()) }).looks(1, true);
    first().gets(Echo, echo(true)).is("evidence | echo", "echo");
    let mut late = first();
    assert_eq!(late.check.wake_at(), Some(START + HEAD_START));
    assert_eq!(late.check.wake(START + TOOK), Next::Wait);
    let next = late.check.wake(START + HEAD_START);
    late.note(next);
    late.is("evidence | echo | tcp handshake", "open");
    assert_eq!(late.check.wake_at(), None);
    first().gets(Echo, no_session()).is("evidence | echo | handshake", "open");
    let brief = Rules { echo_first: true, timeout: HEAD_START, ..rules(&tunnel_only()) };
    let brief = Run::new(brief).looks(1, true);
    assert_eq!(brief.check.wake_at(), Some(START + HEAD_START / HEAD_SHARE), "within the deadline");
}

#[test]
fn all_probes_share_one_deadline() {
    let (check, _) = AliveCheck::begin(rules(&spec()), START);
    let left = |secs| check.left(START + Duration::from_secs(secs)).as_secs();
    assert_eq!((left(0), left(4), left(60)), (10, 6, 1));
}

#[test]
fn a_probe_that_could_not_be_sent_proves_nothing() {
    let refused = || ProbeReply::Refused("no such peer".into());
    let busy = || ProbeReply::Connect(Err(ConnectFailure::Busy));
    let start = || Run::new(rules(&spec()));
    start().gets(HostProbe::Evidence, refused()).gets(Direct, SILENT).is("evidence | direct", "unclear");
    let away = start().looks(1, false).gets(Handshake, NO_HANDSHAKE).gets(Direct, busy());
    assert_eq!(away.looks(1, false).end(), "unclear");
    let there = start().looks(1, true).gets(Echo, echo(false)).gets(Connect, busy());
    let there = there.gets(Handshake, NO_HANDSHAKE).gets(Direct, SILENT);
    assert_eq!(there.looks(1, true).end(), "unclear");
    let other = start().gets(HostProbe::Evidence, echo(true)).gets(Direct, SILENT);
    assert_eq!(other.end(), "unclear", "an answer to another question");
}

#[test]
fn a_peer_is_not_dialled_if_it_may_not_or_cannot_be() {
    let quiet = Rules { may_dial: false, ..rules(&spec()) };
    Run::new(quiet).looks(1, false).is("evidence | direct", "open");
    let never = ProbeReply::Evidence(Evidence::default());
    let unseen = Rules { came: false, ..rules(&spec()) };
    Run::new(unseen).gets(HostProbe::Evidence, never).is("evidence | direct", "open");
}

#[test]
fn a_reply_at_the_public_address_proves_the_host_up_and_the_tunnel_probes_still_run() {
    let direct = || Run::new(rules(&spec())).looks(1, true).gets(Direct, CONNECTED);
    direct().is(ALL, "open");
    assert_eq!(direct().gets(Echo, echo(true)).end(), "echo");
    let silent = direct().gets(Echo, echo(false)).gets(Connect, SILENT).gets(Handshake, NO_HANDSHAKE);
    assert_eq!(silent.looks(1, true).end(), "direct");
}

#[test]
fn a_known_host_must_prove_its_key_at_the_public_address() {
    let mut spec = spec();
    spec.ssh.pin = Some("SHA256:a".into());
    let end = |answer| {
        let run = Run::new(rules(&spec)).looks(1, false).gets(Handshake, NO_HANDSHAKE);
        run.gets(Direct, ProbeReply::Ssh(answer)).looks(1, false)
    };
    end(SshReply::default()).is("evidence | handshake key | evidence", "direct");
    let changed = SshFailure::HostKeyChanged { pinned: "SHA256:a".into(), seen: "SHA256:b".into() };
    let stranger = SshReply { failure: Some(changed), ..SshReply::default() };
    assert_eq!(end(stranger).end(), "dead");
}

#[test]
fn an_unproven_server_at_the_public_address_is_distinguished_from_silence() {
    use DirectReply::{Doubtful, Silent};
    let connect = SshFailure::Connect;
    let other = SshFailure::HostKeyChanged { pinned: "a".into(), seen: "b".into() };
    assert_eq!(doubt(&connect(ConnectFailure::Timeout)), Silent);
    for failure in [connect(ConnectFailure::Refused), SshFailure::Timeout, other] {
        assert_eq!(doubt(&failure), Doubtful, "{failure:?}");
    }
    let run = Run::new(rules(&spec())).looks(1, false);
    assert_eq!(run.check.direct, DirectReply::NotAsked);
    assert_eq!(run.gets(Direct, SILENT).check.direct, Silent);
}

#[test]
fn behind_a_device_only_its_own_answers_count() {
    let behind = HostSpec { own_tunnel: false, direct: None, ..spec() };
    let start = |packet, session| Run::new(rules(&behind)).looks(packet, session);
    let asked = "evidence | echo tcp";
    start(999, true).gets(Echo, echo(true)).is(asked, "echo");
    start(999, true).gets(Echo, echo(false)).gets(Connect, SILENT).is(asked, "dead");
    let dialled = || start(1, false).gets(Handshake, DIALLED);
    dialled().gets(Echo, echo(true)).is("evidence | handshake | echo tcp", "echo");
    let lost = dialled().gets(Echo, no_session()).gets(Connect, SILENT);
    assert_eq!(lost.end(), "dead");
    let stale = start(999, true).gets(Echo, no_session());
    stale.is("evidence | echo tcp | handshake", "open");
}

#[test]
fn handshakes_without_a_session_prove_the_host_up_while_they_arrive() {
    let with = |attempt: u64| {
        let last_attempt = Some(Mono::from_secs(attempt));
        let at = Some(Mono::from_secs(1));
        ProbeReply::Evidence(Evidence {
            last_packet: at,
            last_handshake: at,
            last_attempt,
            ..Evidence::default()
        })
    };
    let end = |attempt| {
        let run = Run::new(rules(&tunnel_only())).gets(HostProbe::Evidence, with(attempt));
        run.gets(Handshake, NO_HANDSHAKE).gets(HostProbe::Evidence, with(attempt))
    };
    end(999).is("evidence | handshake | evidence", "handshakes");
    assert_eq!(end(900).end(), "dead", "none since then");
    let alive = end(999).alive();
    assert!(alive.text.contains("lead to no session; handshake: "), "{}", alive.text);
    assert_eq!((alive.proof, alive.reply), (Mono::from_secs(999), Reply::NotAsked));
    let outside = Run::new(rules(&spec())).gets(HostProbe::Evidence, with(999));
    let outside = outside.gets(Direct, ProbeReply::Connect(Ok(TOOK))).gets(Handshake, NO_HANDSHAKE);
    assert_eq!(outside.gets(HostProbe::Evidence, with(999)).end(), "direct", "an answer says more");
}

#[test]
fn a_device_that_is_silent_at_one_inner_address_is_probed_at_the_other() {
    let other: IpAddr = "fd00::1".parse().unwrap();
    let spec = HostSpec { other_address: Some(other), ..tunnel_only() };
    let quiet = Rules { may_dial: false, ..rules(&spec) };
    let asked = || Run::new(quiet.clone()).looks(1, true);
    asked().gets(Echo, echo(true)).is("evidence | echo tcp", "echo");
    let silent = || asked().gets(Echo, echo(false)).gets(Connect, SILENT);
    silent().is("evidence | echo tcp | echo tcp", "open");
    let found = silent().gets(HostProbe::OtherEcho, echo(true));
    assert_eq!((found.end(), found.check.answered), ("echo", Some(other)));
    assert!(found.alive().text.starts_with("echo at fd00::1 in"));
    let none = silent().gets(HostProbe::OtherEcho, echo(false)).gets(HostProbe::OtherConnect, SILENT);
    none.looks(1, true).is("evidence | echo tcp | echo tcp | evidence", "dead");
    let mut late = asked();
    assert_eq!(late.check.wake_at(), Some(START + HEAD_START), "not longer, where nothing comes back");
    let next = late.check.wake(START + HEAD_START);
    late.note(next);
    late.is("evidence | echo tcp | echo tcp", "open");
    assert_eq!(late.check.wake_at(), None);
    let mut first = Run::new(Rules { echo_first: true, ..quiet.clone() }).looks(1, true);
    let next = first.check.wake(START + HEAD_START);
    first.note(next);
    first.is("evidence | echo | tcp echo tcp", "open");
    let lost = asked().gets(Echo, no_session()).gets(Connect, SILENT);
    lost.is("evidence | echo tcp | evidence", "open");
}
