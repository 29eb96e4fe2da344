//! The replies of a simulated device, computed from the injected truth.

use std::net::IpAddr;
use std::time::Duration;

use fleetgate_engine::messages::{
    CommandEnd, CommandReply, ConnectFailure, EchoReply, Evidence, HostKey, KeyType, LoginRefusal, Probe,
    ProbeReply, ProbeRequest, RemoteCommand, Route, SshFailure, SshReply, SshRun, TunnelEvent,
};
use fleetgate_engine::time::Mono;
use fleetgate_probes::sensors::{Reading, parse_request, render};

use super::{Device, RTT};

impl Device {
    pub fn answer(&mut self, ask: &ProbeRequest, now: Mono) -> (ProbeReply, Option<TunnelEvent>) {
        let answer = match &ask.probe {
            Probe::Evidence { .. } => ProbeReply::Evidence(Evidence {
                last_packet: self.last_packet,
                last_handshake: self.last_handshake,
                last_answer: self.last_answer,
                last_attempt: self.last_attempt(now),
                established: self.established(now),
                clock_skew_ms: self.truth.skew_ms,
                wire_today: self.truth.wire_today,
            }),
            Probe::Echo { count, address, .. } | Probe::LargeEcho { count, address, .. } => {
                ProbeReply::Echo(self.echo(*address, *count, now))
            }
            Probe::Connect { route, port } => ProbeReply::Connect(self.connect(route, *port, now)),
            Probe::Handshake { .. } => {
                let news = self.handshake(now);
                let there = (self.flow.is_some() && !self.truth.deaf).then_some(RTT);
                let there = there.ok_or(ConnectFailure::Timeout);
                if there.is_ok() {
                    (self.last_packet, self.last_answer) = (Some(now), Some(now));
                }
                return (ProbeReply::Handshake(there), news);
            }
            Probe::Ssh { route, port, run, .. } => ProbeReply::Ssh(self.ssh(route, *port, run, now)),
        };
        (answer, None)
    }

    fn echo(&mut self, address: IpAddr, count: u8, now: Mono) -> EchoReply {
        match self.inside(address, now) {
            Ok(()) => EchoReply { sent: count, rtts: vec![RTT; count.into()], failure: None },
            Err(ConnectFailure::Timeout) => EchoReply { sent: count, rtts: Vec::new(), failure: None },
            Err(failure) => EchoReply { sent: 0, rtts: Vec::new(), failure: Some(failure) },
        }
    }

    /// Returns whether a packet through the tunnel gets a reply.
    fn inside(&mut self, address: IpAddr, now: Mono) -> Result<(), ConnectFailure> {
        let (v4, v6) = self.truth.uses;
        let used = if address.is_ipv4() { v4 } else { v6 };
        let mute = !used || self.truth.hung || self.truth.deaf || !self.truth.alive;
        match (self.flow.is_some(), mute) {
            (true, false) => {
                (self.last_packet, self.last_answer) = (Some(now), Some(now));
                Ok(())
            }
            (false, _) if !self.established(now) => Err(ConnectFailure::NoTunnel),
            _ => Err(ConnectFailure::Timeout),
        }
    }

    fn reach(&mut self, route: &Route, now: Mono) -> Result<(), ConnectFailure> {
        match route {
            Route::Tunnel { address, .. } => self.inside(*address, now),
            Route::Direct { .. } if self.truth.alive && self.truth.direct && !self.truth.hung => Ok(()),
            Route::Direct { .. } => Err(ConnectFailure::Timeout),
        }
    }

    fn connect(&mut self, route: &Route, port: u16, now: Mono) -> Result<Duration, ConnectFailure> {
        self.reach(route, now)?;
        let open = if port == self.spec.ssh.port { self.truth.sshd } else { self.truth.tcp };
        if open { Ok(RTT) } else { Err(ConnectFailure::Refused) }
    }

    fn ssh(&mut self, route: &Route, port: u16, run: &SshRun, now: Mono) -> SshReply {
        let mut answer = SshReply::default();
        answer.failure = self.converse(route, port, run, now, &mut answer).err();
        answer
    }

    fn converse(
        &mut self,
        route: &Route,
        port: u16,
        run: &SshRun,
        now: Mono,
        answer: &mut SshReply,
    ) -> Result<(), SshFailure> {
        self.connect(route, port, now).map_err(SshFailure::Connect)?;
        let fingerprint = self.truth.host_key.to_owned();
        let seen = HostKey { fingerprint, key_type: Some(KeyType::Ed25519), line: None };
        answer.identification = Some("SSH-2.0-OpenSSH_9.2p1".into());
        answer.host_key = Some(seen.clone());
        (answer.connect, answer.reused) = (self.truth.connect, self.truth.connect.is_none());
        match &run.pin {
            Some(pinned) if !pinned.is(&seen) => {
                return Err(SshFailure::HostKeyChanged { pinned: pinned.clone(), seen });
            }
            None if !run.learn => return Err(SshFailure::HostKeyUnknown { seen }),
            _ => {}
        }
        let Some(user) = run.user.clone() else {
            assert!(run.commands.is_empty(), "commands need a login");
            return Ok(());
        };
        if !self.truth.login {
            return Err(SshFailure::LoginRefused { user, why: LoginRefusal::Key });
        }
        answer.logged_in = true;
        answer.commands = run.commands.iter().map(|c| self.command(c)).collect();
        Ok(())
    }

    fn command(&self, command: &RemoteCommand) -> CommandReply {
        let (stdout, exit) = match parse_request(&command.line) {
            Some(wanted) => {
                let reading = |(key, _)| (key, Reading::temperature(self.truth.temperature, "board"));
                (render(&wanted.into_iter().map(reading).collect::<Vec<_>>()), 0)
            }
            None => ("PLUGIN said | value=1".to_owned(), self.truth.plugin_exit),
        };
        CommandReply {
            name: command.name.clone(),
            end: CommandEnd::Exit(exit),
            stdout: stdout.into_bytes(),
            stderr: Vec::new(),
            truncated: false,
            took: RTT,
        }
    }
}

/// Returns the delay of a reply: a round trip, the timeout for no reply, and none for what the
/// gateway knows at once.
pub fn delay(answer: &ProbeReply, timeout: Duration) -> Duration {
    let silent = match answer {
        ProbeReply::Evidence(_) | ProbeReply::Refused(_) => return Duration::ZERO,
        ProbeReply::Echo(echo) if echo.failure.is_some() => return Duration::ZERO,
        ProbeReply::Echo(echo) => echo.rtts.is_empty(),
        ProbeReply::Connect(outcome) | ProbeReply::Handshake(outcome) => {
            *outcome == Err(ConnectFailure::Timeout)
        }
        ProbeReply::Ssh(ssh) => ssh.failure == Some(SshFailure::Connect(ConnectFailure::Timeout)),
    };
    if silent { timeout } else { RTT }
}
