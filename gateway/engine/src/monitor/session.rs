//! The SSH session of a host: the services in it, its path, and the result of each service.
//!
//! A failure of the session is a result of the `ssh` check alone; commands that did not run have no
//! result. Host keys are learnt here, through the tunnel only.

use std::net::IpAddr;
use std::time::Duration;

use fleetgate_probes::plugin::PluginResult;
use fleetgate_probes::sensors::{self, Sensor};

use crate::time::Wall;
use crate::wire::{
    Answer, AskId, Check, EventKind, HostKey, PathCheck, Question, Record, RemoteCommand, Route, SshAnswer,
    SshFailure, SshRun, is_beside_tunnel,
};

use super::answer::{self, Finding, Meaning, SENSORS};
use super::host::Host;
use super::path_check::{self, PathQuestion, Step};
use super::reach::Way;
use super::round::OTHER_TIMEOUT;
use super::service::Run;
use super::turn::{Asker, Turn};

/// A session in progress.
#[derive(Debug)]
pub struct Session {
    pub question: AskId,
    riders: Vec<usize>,
    way: Way,
    /// The inner address that it went to.
    address: Option<IpAddr>,
    /// The other inner address, once that was probed.
    other: Option<IpAddr>,
    /// The paths still to be tried.
    rest: Vec<Way>,
    aside: Aside,
}

/// A probe beside the session before its reply is evaluated.
#[derive(Debug)]
enum Aside {
    Nothing,
    Path(Stalled),
    /// The session got no reply at one inner address, so the other is probed.
    Other(Box<SshAnswer>),
}

/// The session connected and fell silent, or did not connect. Echoes of two sizes show whether the
/// path is the cause.
#[derive(Debug)]
struct Stalled {
    answer: Box<SshAnswer>,
    path: PathQuestion,
}

impl Host {
    /// Starts a session. `ssh` is part of every session, because it proves the dependency of the
    /// others.
    pub(super) fn start_session(&mut self, due: Vec<usize>, turn: &mut Turn<'_>) {
        let ways = self.paths.ssh(self.tunnel_is_down());
        let joins = |i: &usize| due.contains(i) || self.is_ssh(*i) && self.services[*i].is_idle();
        let riders: Vec<usize> = (0..self.services.len()).filter(joins).collect();
        if ways.is_empty() {
            let why = self.paths.refusal(&Check::Ssh).unwrap_or_default();
            return riders.into_iter().for_each(|i| self.refuse(i, why, turn));
        }
        for i in &riders {
            let service = &mut self.services[*i];
            turn.started(service.planned.filter(|at| *at <= turn.now.mono));
            service.begin(turn.now.mono);
            service.run = Run::Riding;
        }
        self.open_session(riders, ways, turn);
    }

    /// Opens a session on the next path. Over the Internet, it only authenticates if there is a
    /// pinned host key to require.
    fn open_session(&mut self, riders: Vec<usize>, mut ways: Vec<Way>, turn: &mut Turn<'_>) {
        let way = ways.remove(0);
        let Some(route) = self.paths.route(way) else {
            return riders.into_iter().for_each(|i| self.discard(i, turn));
        };
        let pin = self.pin();
        let user = self.spec.ssh.user.clone().filter(|_| way == Way::Tunnel || pin.is_some());
        let commands = if user.is_some() { self.commands(&riders) } else { Vec::new() };
        let connect = self.opening();
        let timeout = commands.iter().fold(connect, |sum, c| sum.saturating_add(c.timeout));
        let run = SshRun { learn: way == Way::Tunnel && pin.is_none(), pin, user, commands };
        let port = self.spec.ssh.port;
        let question = Question::Ssh { route, port, connect, run };
        let address = question.inner_address();
        let question = turn.ask(self.spec.id, Asker::Ssh, question, timeout);
        self.session =
            Some(Session { question, riders, way, address, other: None, rest: ways, aside: Aside::Nothing });
    }

    /// Returns the commands of a session: one for all sensors, and one for each plugin.
    fn commands(&self, riders: &[usize]) -> Vec<RemoteCommand> {
        let specs = || riders.iter().map(|i| &self.services[*i].spec);
        let sensors = self.sensors(riders);
        let script = self.script_timeout(riders).map(|timeout| RemoteCommand {
            name: SENSORS.to_owned(),
            line: sensors::script(&sensors, timeout),
            timeout,
            bounded: true,
        });
        let plugins = specs().filter_map(|s| match &s.check {
            Check::Command { line } => Some(RemoteCommand {
                name: s.name.clone(),
                line: line.clone(),
                timeout: s.timing.timeout,
                bounded: false,
            }),
            _ => None,
        });
        script.into_iter().chain(plugins).collect()
    }

    /// Returns the timeout of the sensor command: the longest timeout of its sensors.
    fn script_timeout(&self, riders: &[usize]) -> Option<Duration> {
        let specs = riders.iter().map(|i| &self.services[*i].spec);
        specs.filter(|s| matches!(s.check, Check::Sensor(_))).map(|s| s.timing.timeout).max()
    }

    /// Returns the limit for opening a session with login: the timeout of the `ssh` service.
    fn opening(&self) -> Duration {
        let ssh = (0..self.services.len()).find(|i| self.is_ssh(*i));
        ssh.map_or(self.spec.timing.timeout, |i| self.services[i].spec.timing.timeout)
    }

    /// Returns the sensors with the names of their services.
    fn sensors(&self, riders: &[usize]) -> Vec<(String, Sensor)> {
        let sensor = |i: &usize| match &self.services[*i].spec.check {
            Check::Sensor(sensor) => Some((self.services[*i].spec.name.clone(), sensor.clone())),
            _ => None,
        };
        riders.iter().filter_map(sensor).collect()
    }

    pub(super) fn answer_session(&mut self, answer: Answer, turn: &mut Turn<'_>) {
        let Some(mut session) = self.session.take() else {
            return;
        };
        match std::mem::replace(&mut session.aside, Aside::Nothing) {
            Aside::Nothing => self.take_session(session, answer, turn),
            Aside::Path(stalled) => self.weigh_path(session, stalled, &answer, turn),
            Aside::Other(unreached) => self.weigh_other(session, *unreached, &answer, turn),
        }
        self.settle_held(turn);
    }

    fn take_session(&mut self, session: Session, answer: Answer, turn: &mut Turn<'_>) {
        let silent = answer::is_unanswered(&answer) && session.other.is_none();
        match (answer, self.paths.other_than(session.address)) {
            (Answer::Ssh(answer), Some(other)) if silent => self.ask_other_too(session, answer, other, turn),
            (Answer::Ssh(answer), _) if answer::is_unreached(&answer) => {
                self.try_rest(session, answer, turn);
            }
            (Answer::Ssh(answer), _) if answer::is_stalled(&answer) => {
                self.ask_path(session, answer, turn);
            }
            (Answer::Ssh(answer), _) => self.read_session(&session, &answer, PathCheck::NotAsked, turn),
            _ => session.riders.into_iter().for_each(|i| self.discard(i, turn)),
        }
    }

    fn try_rest(&mut self, session: Session, unreached: SshAnswer, turn: &mut Turn<'_>) {
        match session.rest.is_empty() {
            true if answer::is_timed_out(&unreached) => self.ask_path(session, unreached, turn),
            true => self.read_session(&session, &unreached, PathCheck::NotAsked, turn),
            false => self.open_session(session.riders, session.rest, turn),
        }
    }

    /// Probes the same port with a TCP connect, which soon shows whether a session there is
    /// worthwhile.
    fn ask_other_too(
        &mut self,
        mut session: Session,
        unreached: SshAnswer,
        other: IpAddr,
        turn: &mut Turn<'_>,
    ) {
        let Some(peer) = self.paths.peer else {
            return self.try_rest(session, unreached, turn);
        };
        let route = Route::Tunnel { peer, address: other };
        let question = Question::Connect { route, port: self.spec.ssh.port };
        session.question = turn.ask(self.spec.id, Asker::Ssh, question, self.opening().min(OTHER_TIMEOUT));
        session.other = Some(other);
        session.aside = Aside::Other(Box::new(unreached));
        self.session = Some(session);
    }

    fn weigh_other(
        &mut self,
        mut session: Session,
        unreached: SshAnswer,
        answer: &Answer,
        turn: &mut Turn<'_>,
    ) {
        let Some(other) = session.other.filter(|_| answer::is_answered(answer)) else {
            return self.try_rest(session, unreached, turn);
        };
        self.prefer(other, turn);
        session.rest.insert(0, Way::Tunnel);
        self.open_session(session.riders, session.rest, turn);
        if let Some(again) = &mut self.session {
            again.other = session.address;
        }
    }

    /// Checks the path, if the session went through the tunnel.
    fn ask_path(&mut self, session: Session, answer: SshAnswer, turn: &mut Turn<'_>) {
        match (self.paths.peer, session.address) {
            (Some(peer), Some(address)) => {
                let path = PathQuestion::new(peer, address);
                self.go_on_with_path(session, Stalled { answer: Box::new(answer), path }, turn);
            }
            _ => self.read_session(&session, &answer, PathCheck::NotAsked, turn),
        }
    }

    fn go_on_with_path(&mut self, mut session: Session, stalled: Stalled, turn: &mut Turn<'_>) {
        let timeout = self.spec.timing.timeout.min(path_check::TIMEOUT);
        session.question = turn.ask(self.spec.id, Asker::Ssh, stalled.path.question(), timeout);
        session.aside = Aside::Path(stalled);
        self.session = Some(session);
    }

    fn weigh_path(&mut self, session: Session, stalled: Stalled, answer: &Answer, turn: &mut Turn<'_>) {
        match stalled.path.take(answer) {
            Step::Ask(path) => self.go_on_with_path(session, Stalled { path, ..stalled }, turn),
            Step::Known(path) => self.read_session(&session, &stalled.answer, path, turn),
        }
    }

    /// Evaluates the session itself first, because the others depend on it.
    fn read_session(&mut self, session: &Session, answer: &SshAnswer, path: PathCheck, turn: &mut Turn<'_>) {
        for i in &session.riders {
            self.services[*i].note_path(path);
            self.services[*i].asked = session.address;
        }
        self.note_host_key(session.way, answer, turn);
        let (own, runs): (Vec<usize>, Vec<usize>) = session.riders.iter().partition(|i| self.is_ssh(**i));
        let user = self.spec.ssh.user.clone();
        self.connect = answer.connect.filter(|_| !answer.reused).or(self.connect);
        let verdict = answer::session(answer, user.as_deref(), self.opening(), self.connect);
        let silent = session.other.filter(|_| answer::is_unreached(answer) && session.way == Way::Tunnel);
        let verdict = answer::nor_at(verdict, silent);
        for i in &own {
            self.conclude(*i, verdict.clone(), session.way, turn);
        }
        let without = verdict.filter(|_| !self.watches_ssh() && answer.failure.is_some());
        for (i, meaning) in self.meanings(&runs, answer, turn.now.wall) {
            let meaning = meaning.or_else(|| without.clone().map(no_session));
            self.conclude(i, meaning, session.way, turn);
        }
    }

    fn meanings(&self, runs: &[usize], answer: &SshAnswer, now: Wall) -> Vec<(usize, Meaning)> {
        let timeout = self.script_timeout(runs).unwrap_or(self.spec.timing.timeout);
        let mut read = answer::sensors(answer, &self.sensors(runs), timeout, now).into_iter();
        let meaning = |i: &usize| {
            let spec = &self.services[*i].spec;
            let meaning = match &spec.check {
                Check::Sensor(_) => read.next().flatten(),
                _ => answer::command(answer, &spec.name, spec.timing.timeout),
            };
            (*i, meaning)
        };
        runs.iter().map(meaning).collect()
    }

    fn note_host_key(&mut self, way: Way, answer: &SshAnswer, turn: &mut Turn<'_>) {
        if let Some(SshFailure::HostKeyChanged { pinned, seen }) = &answer.failure {
            return self.note_strange_key(pinned, seen, turn);
        }
        self.set_strange_key(None, turn);
        let Some(key) = answer.host_key.clone() else { return };
        match self.pin() {
            None if way == Way::Tunnel => {
                let cause = "first contact through the tunnel";
                self.event(EventKind::HostKeyPinned, cause, key.to_string(), turn);
                self.learn(key, turn);
            }
            // The client asks the server for this key type at once from now on.
            Some(pin) if pin.is(&key) && pin.key_type.is_none() && key.key_type.is_some() => {
                self.learn(key, turn);
            }
            _ => {}
        }
    }

    fn learn(&mut self, key: HostKey, turn: &mut Turn<'_>) {
        self.learnt = Some(key.clone());
        turn.record(Record::Pinned { host: self.spec.id, key });
    }

    /// Records an unexpected key; returns whether it changed. The row keeps it over a restart.
    fn set_strange_key(&mut self, fingerprint: Option<&str>, turn: &mut Turn<'_>) -> bool {
        let news = self.strange_key.as_deref() != fingerprint;
        self.strange_key = fingerprint.map(str::to_owned);
        if news {
            turn.record(self.row(turn.now));
        }
        news
    }

    /// Records an event once per key, also across restarts.
    fn note_strange_key(&mut self, pinned: &HostKey, seen: &HostKey, turn: &mut Turn<'_>) {
        if self.set_strange_key(Some(&seen.fingerprint), turn) {
            let evidence = format!("pinned {pinned}, seen {seen}");
            self.event(EventKind::HostKeyChanged, "nothing was authenticated", evidence, turn);
        }
    }

    fn is_ssh(&self, i: usize) -> bool {
        self.services[i].spec.check == Check::Ssh
    }

    fn watches_ssh(&self) -> bool {
        (0..self.services.len()).any(|i| self.is_ssh(i))
    }

    /// Whether the tunnel is down, by the states so far.
    fn tunnel_is_down(&self) -> bool {
        is_beside_tunnel(&self.source) || self.tunnel_service().is_some_and(|i| !self.services[i].holds())
    }
}

/// The result of a service without a session, when `ssh` is switched off and cannot report it.
fn no_session(finding: Finding) -> Finding {
    let cause = finding.result.cause;
    let result = PluginResult::unknown(format!("ssh: {}", finding.result.text)).because(cause);
    Finding { result, ..finding }
}

#[cfg(test)]
mod tests {
    use super::super::host::Host;
    use super::super::testing;
    use super::*;
    use crate::time::{Mono, Now};
    use crate::wire::{Alerting, ConnectFailure, EchoAnswer, Evidence, ServiceSpec, ServiceState, Timing};
    use fleetgate_probes::sample::Status;

    fn service(name: &str, check: Check, secs: u64) -> ServiceSpec {
        let timing = Timing { timeout: Duration::from_secs(secs), ..Timing::DEFAULT };
        let (thresholds, freshness, alerting) = (Vec::new(), None, Alerting::default());
        ServiceSpec { name: name.to_owned(), check, timing, thresholds, freshness, alerting }
    }

    fn with(services: Vec<ServiceSpec>) -> Host {
        let spec = crate::wire::HostSpec { services, ..testing::host(1) };
        Host::new(spec, Vec::new(), Now { mono: Mono::from_secs(1_000), wall: Wall::from_millis(0) })
    }

    #[test]
    fn the_timeout_of_the_ssh_service_bounds_the_opening_of_the_session() {
        let ssh = || service("login", Check::Ssh, 3);
        let disk = service("disk", Check::Sensor(Sensor::Load), 20);
        assert_eq!(with(vec![disk.clone(), ssh()]).opening(), Duration::from_secs(3));
        assert_eq!(with(vec![disk]).opening(), Timing::DEFAULT.timeout, "without it the host's");
    }

    #[test]
    fn the_sensors_of_a_session_have_the_time_of_the_most_patient() {
        let sensor = |name: &str, secs| service(name, Check::Sensor(Sensor::Load), secs);
        let host = with(vec![sensor("a", 5), sensor("b", 20), service("ssh", Check::Ssh, 60)]);
        assert_eq!(host.script_timeout(&[0, 1, 2]), Some(Duration::from_secs(20)));
        assert_eq!(
            (host.script_timeout(&[0]), host.script_timeout(&[2])),
            (Some(Duration::from_secs(5)), None)
        );
    }

    /// A device that replies, with an SSH server that connects and then falls silent; of three
    /// echoes of each size, the given numbers come back. Returns the sizes probed and the state of
    /// the service.
    fn stalled(session: &SshAnswer, large: usize, small: usize) -> (String, ServiceState) {
        let mut asked = testing::Asked::of(crate::wire::HostSpec {
            services: vec![service("ssh", Check::Ssh, 10)],
            ..testing::host(1)
        });
        let echo = |count: u8, rtts: usize| EchoAnswer {
            sent: count,
            rtts: vec![Duration::from_millis(30); rtts],
            failure: None,
        };
        asked.run(Duration::from_secs(15), |question, now| match question {
            Question::Evidence { .. } => Answer::Evidence(Evidence {
                last_packet: Some(now.mono),
                established: true,
                ..Evidence::default()
            }),
            Question::LargeEcho { count, .. } => Answer::Echo(echo(*count, large)),
            Question::Echo { count, .. } => Answer::Echo(echo(*count, small)),
            Question::Ssh { .. } => Answer::Ssh(session.clone()),
            Question::Connect { .. } => Answer::Connect(Err(ConnectFailure::Timeout)),
            Question::Handshake { .. } => Answer::Handshake(Err(ConnectFailure::Timeout)),
        });
        let size = |question: &Question| match question {
            Question::LargeEcho { .. } => Some("large"),
            Question::Echo { count, .. } if *count > 1 => Some("small"),
            _ => None,
        };
        let sizes: Vec<&str> = asked.questions.iter().filter_map(size).collect();
        (sizes.join(" "), asked.service("ssh").expect("a result").clone())
    }

    #[test]
    fn a_stall_is_followed_by_echoes_of_two_sizes_that_tell_the_path_from_the_server() {
        use PathCheck::{LargeAnswered, LargeLost, Lossy, Silent};
        let stalls = SshAnswer { failure: Some(SshFailure::Timeout), ..SshAnswer::default() };
        let table = [
            ((3, 3), "large", LargeAnswered),
            ((1, 3), "large", Lossy),
            ((0, 3), "large small", LargeLost),
            ((0, 2), "large small", Lossy),
            ((0, 0), "large small", Silent),
        ];
        for ((large, small), asked, path) in table {
            let (sizes, state) = stalled(&stalls, large, small);
            assert!(sizes.starts_with(asked), "{large} {small}: {sizes}");
            assert_eq!((state.path, state.status), (path, Some(Status::Critical)), "{large} {small}");
        }
    }

    #[test]
    fn a_connection_in_vain_asks_the_path_too_and_one_that_is_refused_does_not() {
        let failed =
            |failure| SshAnswer { failure: Some(SshFailure::Connect(failure)), ..SshAnswer::default() };
        let (sizes, state) = stalled(&failed(ConnectFailure::Timeout), 2, 3);
        assert!(sizes.starts_with("large") && state.path == PathCheck::Lossy, "{sizes} {state:?}");
        let (sizes, state) = stalled(&failed(ConnectFailure::Refused), 3, 3);
        assert_eq!((sizes.as_str(), state.path), ("", PathCheck::NotAsked));
        let (sizes, state) = stalled(&SshAnswer::default(), 3, 3);
        assert_eq!((sizes.as_str(), state.status), ("", Some(Status::Ok)));
    }
}
