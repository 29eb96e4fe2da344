//! The SSH session of a host: the services in it, its path, and the result of each service.
//!
//! A failure of the session is a result of the `ssh` check alone; commands that did not run have no
//! result. Host keys are learnt here, through the tunnel only.

use std::net::IpAddr;
use std::time::Duration;

use fleetgate_probes::plugin::PluginResult;
use fleetgate_probes::sensors::{self, Sensor};

use crate::messages::{
    Check, EventKind, HostKey, PathCheck, Probe, ProbeReply, Record, RemoteCommand, Route, SshFailure,
    SshReply, SshRun,
};
use crate::time::Wall;

use crate::monitor::context::{Ctx, ProbeOwner};
use crate::monitor::host::Host;
use crate::monitor::host::path_check;
use crate::monitor::host::path_check::{OTHER_TIMEOUT, PathQuestion, PathStep};
use crate::monitor::host::session::{Aside, Session, Stalled};
use crate::monitor::interpret;
use crate::monitor::interpret::{Finding, Meaning, SENSORS};
use crate::monitor::paths::Via;
use crate::monitor::run::Run;

impl Host {
    /// Starts a session. `ssh` is part of every session, because it proves the dependency of the
    /// others.
    pub(in crate::monitor) fn start_session(&mut self, due: Vec<usize>, ctx: &mut Ctx<'_>) {
        let ways = self.paths.ssh(self.tunnel_is_down());
        let joins = |i: &usize| due.contains(i) || self.is_ssh(*i) && self.services[*i].is_idle();
        let riders: Vec<usize> = (0..self.services.len()).filter(joins).collect();
        if ways.is_empty() {
            let why = self.paths.refusal(&Check::Ssh).unwrap_or_default();
            return riders.into_iter().for_each(|i| self.refuse(i, why, ctx));
        }
        for i in &riders {
            let service = &mut self.services[*i];
            ctx.started(service.planned.filter(|at| *at <= ctx.now.mono));
            service.begin(ctx.now.mono);
            service.run = Run::Riding;
        }
        self.open_session(riders, ways, ctx);
    }

    /// Opens a session on the next path. Over the Internet, it only authenticates if there is a
    /// pinned host key to require.
    fn open_session(&mut self, riders: Vec<usize>, mut ways: Vec<Via>, ctx: &mut Ctx<'_>) {
        let way = ways.remove(0);
        let Some(route) = self.paths.route(way) else {
            return riders.into_iter().for_each(|i| self.discard(i, ctx));
        };
        let pin = self.pin();
        let user = self.spec.ssh.user.clone().filter(|_| way == Via::Tunnel || pin.is_some());
        let commands = if user.is_some() { self.commands(&riders) } else { Vec::new() };
        let connect = self.opening();
        let timeout = commands.iter().fold(connect, |sum, c| sum.saturating_add(c.timeout));
        let run = SshRun { learn: way == Via::Tunnel && pin.is_none(), pin, user, commands };
        let port = self.spec.ssh.port;
        let probe = Probe::Ssh { route, port, connect, run };
        let address = probe.inner_address();
        let probe = ctx.ask(self.spec.id, ProbeOwner::Ssh, probe, timeout);
        let (other, aside) = (None, Aside::Nothing);
        self.sessions.open(Session { probe, riders, way, address, other, rest: ways, aside });
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

    pub(in crate::monitor) fn answer_session(&mut self, answer: ProbeReply, ctx: &mut Ctx<'_>) {
        let Some(mut session) = self.sessions.take() else {
            return;
        };
        match std::mem::replace(&mut session.aside, Aside::Nothing) {
            Aside::Nothing => self.take_session(session, answer, ctx),
            Aside::Path(stalled) => self.weigh_path(session, stalled, &answer, ctx),
            Aside::Other(unreached) => self.weigh_other(session, *unreached, &answer, ctx),
        }
        self.settle_held(ctx);
    }

    fn take_session(&mut self, session: Session, answer: ProbeReply, ctx: &mut Ctx<'_>) {
        let silent = interpret::is_unanswered(&answer) && session.other.is_none();
        match (answer, self.paths.other_than(session.address)) {
            (ProbeReply::Ssh(answer), Some(other)) if silent => {
                self.probe_other_too(session, answer, other, ctx)
            }
            (ProbeReply::Ssh(answer), _) if interpret::is_unreached(&answer) => {
                self.try_rest(session, answer, ctx);
            }
            (ProbeReply::Ssh(answer), _) if interpret::is_stalled(&answer) => {
                self.probe_path(session, answer, ctx);
            }
            (ProbeReply::Ssh(answer), _) => self.read_session(&session, &answer, PathCheck::NotAsked, ctx),
            _ => session.riders.into_iter().for_each(|i| self.discard(i, ctx)),
        }
    }

    fn try_rest(&mut self, session: Session, unreached: SshReply, ctx: &mut Ctx<'_>) {
        match session.rest.is_empty() {
            true if interpret::is_timed_out(&unreached) => self.probe_path(session, unreached, ctx),
            true => self.read_session(&session, &unreached, PathCheck::NotAsked, ctx),
            false => self.open_session(session.riders, session.rest, ctx),
        }
    }

    /// Probes the same port with a TCP connect, which soon shows whether a session there is
    /// worthwhile.
    fn probe_other_too(
        &mut self,
        mut session: Session,
        unreached: SshReply,
        other: IpAddr,
        ctx: &mut Ctx<'_>,
    ) {
        let Some(peer) = self.paths.peer else {
            return self.try_rest(session, unreached, ctx);
        };
        let route = Route::Tunnel { peer, address: other };
        let probe = Probe::Connect { route, port: self.spec.ssh.port };
        session.probe = ctx.ask(self.spec.id, ProbeOwner::Ssh, probe, self.opening().min(OTHER_TIMEOUT));
        session.other = Some(other);
        session.aside = Aside::Other(Box::new(unreached));
        self.sessions.open(session);
    }

    fn weigh_other(
        &mut self,
        mut session: Session,
        unreached: SshReply,
        answer: &ProbeReply,
        ctx: &mut Ctx<'_>,
    ) {
        let Some(other) = session.other.filter(|_| interpret::is_answered(answer)) else {
            return self.try_rest(session, unreached, ctx);
        };
        self.prefer(other, ctx);
        session.rest.insert(0, Via::Tunnel);
        self.open_session(session.riders, session.rest, ctx);
        if let Some(again) = self.sessions.open_mut() {
            again.other = session.address;
        }
    }

    /// Checks the path, if the session went through the tunnel.
    fn probe_path(&mut self, session: Session, answer: SshReply, ctx: &mut Ctx<'_>) {
        match (self.paths.peer, session.address) {
            (Some(peer), Some(address)) => {
                let path = PathQuestion::new(peer, address);
                self.go_on_with_path(session, Stalled { answer: Box::new(answer), path }, ctx);
            }
            _ => self.read_session(&session, &answer, PathCheck::NotAsked, ctx),
        }
    }

    fn go_on_with_path(&mut self, mut session: Session, stalled: Stalled, ctx: &mut Ctx<'_>) {
        let timeout = self.spec.timing.timeout.min(path_check::TIMEOUT);
        session.probe = ctx.ask(self.spec.id, ProbeOwner::Ssh, stalled.path.probe(), timeout);
        session.aside = Aside::Path(stalled);
        self.sessions.open(session);
    }

    fn weigh_path(&mut self, session: Session, stalled: Stalled, answer: &ProbeReply, ctx: &mut Ctx<'_>) {
        match stalled.path.take(answer) {
            PathStep::ProbeRequest(path) => self.go_on_with_path(session, Stalled { path, ..stalled }, ctx),
            PathStep::Known(path) => self.read_session(&session, &stalled.answer, path, ctx),
        }
    }

    /// Evaluates the session itself first, because the others depend on it.
    fn read_session(&mut self, session: &Session, answer: &SshReply, path: PathCheck, ctx: &mut Ctx<'_>) {
        for i in &session.riders {
            self.services[*i].note_path(path);
            self.services[*i].asked = session.address;
        }
        self.note_host_key(session.way, answer, ctx);
        let (own, runs): (Vec<usize>, Vec<usize>) = session.riders.iter().partition(|i| self.is_ssh(**i));
        let user = self.spec.ssh.user.clone();
        let connect = self.sessions.note_connect(answer);
        let verdict = interpret::session(answer, user.as_deref(), self.opening(), connect);
        let silent = session.other.filter(|_| interpret::is_unreached(answer) && session.way == Via::Tunnel);
        let verdict = interpret::nor_at(verdict, silent);
        for i in &own {
            self.conclude(*i, verdict.clone(), session.way, ctx);
        }
        let without = verdict.filter(|_| !self.watches_ssh() && answer.failure.is_some());
        for (i, meaning) in self.meanings(&runs, answer, ctx.now.wall) {
            let meaning = meaning.or_else(|| without.clone().map(no_session));
            self.conclude(i, meaning, session.way, ctx);
        }
    }

    fn meanings(&self, runs: &[usize], answer: &SshReply, now: Wall) -> Vec<(usize, Meaning)> {
        let timeout = self.script_timeout(runs).unwrap_or(self.spec.timing.timeout);
        let mut read = interpret::sensors(answer, &self.sensors(runs), timeout, now).into_iter();
        let meaning = |i: &usize| {
            let spec = &self.services[*i].spec;
            let meaning = match &spec.check {
                Check::Sensor(_) => read.next().flatten(),
                _ => interpret::command(answer, &spec.name, spec.timing.timeout),
            };
            (*i, meaning)
        };
        runs.iter().map(meaning).collect()
    }

    fn note_host_key(&mut self, way: Via, answer: &SshReply, ctx: &mut Ctx<'_>) {
        if let Some(SshFailure::HostKeyChanged { pinned, seen }) = &answer.failure {
            return self.note_strange_key(pinned, seen, ctx);
        }
        self.set_strange_key(None, ctx);
        let Some(key) = answer.host_key.clone() else { return };
        match self.pin() {
            None if way == Via::Tunnel => {
                let cause = "first contact through the tunnel";
                self.event(EventKind::HostKeyPinned, cause, key.to_string(), ctx);
                self.learn(key, ctx);
            }
            // The client asks the server for this key type at once from now on, and renters get the key.
            Some(pin) if pin.is(&key) && pin.is_known_less_than(&key) => self.learn(key, ctx),
            _ => {}
        }
    }

    fn learn(&mut self, key: HostKey, ctx: &mut Ctx<'_>) {
        self.keys.learn(key.clone());
        ctx.record(Record::Pinned { host: self.spec.id, key });
    }

    /// Records an unexpected key; returns whether it changed. The row keeps it over a restart.
    fn set_strange_key(&mut self, fingerprint: Option<&str>, ctx: &mut Ctx<'_>) -> bool {
        let news = self.keys.set_strange(fingerprint);
        if news {
            ctx.record(self.row(ctx.now));
        }
        news
    }

    /// Records an event once per key, also across restarts.
    fn note_strange_key(&mut self, pinned: &HostKey, seen: &HostKey, ctx: &mut Ctx<'_>) {
        if self.set_strange_key(Some(&seen.fingerprint), ctx) {
            let evidence = format!("pinned {pinned}, seen {seen}");
            self.event(EventKind::HostKeyChanged, "nothing was authenticated", evidence, ctx);
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
        self.result.is_beside_tunnel() || self.tunnel_service().is_some_and(|i| !self.services[i].holds())
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
    use super::*;
    use crate::messages::{Alerting, ConnectFailure, EchoReply, Evidence, ServiceSpec, ServiceState, Timing};
    use crate::monitor::host::Host;
    use crate::monitor::testing;
    use crate::time::{Mono, Now};
    use fleetgate_probes::sample::Status;

    fn service(name: &str, check: Check, secs: u64) -> ServiceSpec {
        let timing = Timing { timeout: Duration::from_secs(secs), ..Timing::DEFAULT };
        let (thresholds, freshness, alerting) = (Vec::new(), None, Alerting::default());
        ServiceSpec { name: name.to_owned(), check, timing, thresholds, usual: None, freshness, alerting }
    }

    fn with(services: Vec<ServiceSpec>) -> Host {
        let spec = crate::messages::HostSpec { services, ..testing::host(1) };
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
    fn the_sensors_of_a_session_share_the_longest_timeout() {
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
    fn stalled(session: &SshReply, large: usize, small: usize) -> (String, ServiceState) {
        let mut asked = testing::TestMonitor::of(crate::messages::HostSpec {
            services: vec![service("ssh", Check::Ssh, 10)],
            ..testing::host(1)
        });
        let echo = |count: u8, rtts: usize| EchoReply {
            sent: count,
            rtts: vec![Duration::from_millis(30); rtts],
            failure: None,
        };
        asked.run(Duration::from_secs(15), |probe, now| match probe {
            Probe::Evidence { .. } => ProbeReply::Evidence(Evidence {
                last_packet: Some(now.mono),
                established: true,
                ..Evidence::default()
            }),
            Probe::LargeEcho { count, .. } => ProbeReply::Echo(echo(*count, large)),
            Probe::Echo { count, .. } => ProbeReply::Echo(echo(*count, small)),
            Probe::Ssh { .. } => ProbeReply::Ssh(session.clone()),
            Probe::Connect { .. } => ProbeReply::Connect(Err(ConnectFailure::Timeout)),
            Probe::Handshake { .. } => ProbeReply::Handshake(Err(ConnectFailure::Timeout)),
        });
        let size = |probe: &Probe| match probe {
            Probe::LargeEcho { .. } => Some("large"),
            Probe::Echo { count, .. } if *count > 1 => Some("small"),
            _ => None,
        };
        let sizes: Vec<&str> = asked.probes.iter().filter_map(size).collect();
        (sizes.join(" "), asked.service("ssh").expect("a result").clone())
    }

    #[test]
    fn a_stall_is_followed_by_echoes_of_two_sizes_that_distinguish_the_path_from_the_server() {
        use PathCheck::{LargeAnswered, LargeLost, Lossy, Silent};
        let stalls = SshReply { failure: Some(SshFailure::Timeout), ..SshReply::default() };
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
    fn a_connect_timeout_is_followed_by_a_path_check_and_a_refusal_is_not() {
        let failed =
            |failure| SshReply { failure: Some(SshFailure::Connect(failure)), ..SshReply::default() };
        let (sizes, state) = stalled(&failed(ConnectFailure::Timeout), 2, 3);
        assert!(sizes.starts_with("large") && state.path == PathCheck::Lossy, "{sizes} {state:?}");
        let (sizes, state) = stalled(&failed(ConnectFailure::Refused), 3, 3);
        assert_eq!((sizes.as_str(), state.path), ("", PathCheck::NotAsked));
        let (sizes, state) = stalled(&SshReply::default(), 3, 3);
        assert_eq!((sizes.as_str(), state.status), ("", Some(Status::Ok)));
    }
}
