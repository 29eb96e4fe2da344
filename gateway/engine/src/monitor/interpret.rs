//! Interprets the reply to a probe for the service that sent it: a result, or none.
//!
//! It translates the engine's replies for `fleetgate-probes`, which evaluates them. It knows no
//! states, thresholds or dependencies.

use std::net::IpAddr;
use std::time::Duration;

use fleetgate_probes::cause::Cause;
use fleetgate_probes::plugin::{Ending, PluginResult};
use fleetgate_probes::sample::{Metric, Status};
use fleetgate_probes::sensors::Sensor;
use fleetgate_probes::ssh::{self, SshSeen};
use fleetgate_probes::tcp::{self, ConnectEnd};
use fleetgate_probes::{echo, sensors};

use crate::messages::{
    CommandEnd, CommandReply, ConnectFailure, EchoReply, Evidence, ProbeReply, SshFailure, SshReply,
};
use crate::time::{Mono, Wall};

use crate::monitor::host::alive::{age, millis};

/// The name of the command in an SSH session that reads all sensors. Service names never begin with
/// a colon.
pub const SENSORS: &str = ":sensors";

/// A result before thresholds and dependencies.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub result: PluginResult,
    /// Whether the host was completely silent. For a while after a restart the cause may be the
    /// gateway itself.
    pub silence: bool,
}

impl Finding {
    pub fn said(result: PluginResult) -> Self {
        Finding { result, silence: false }
    }
}

/// A finding; `None` if the probe could not be sent, so that nothing follows.
pub type Meaning = Option<Finding>;

/// Returns the result for a tunnel that recently carried an authenticated packet.
pub fn evidence(evidence: &Evidence, packet: Mono, now: Mono) -> PluginResult {
    let mut metrics = vec![Metric::seconds("packet_age", now.since(packet))];
    metrics.extend(evidence.last_handshake.map(|at| Metric::seconds("handshake_age", now.since(at))));
    metrics.extend(evidence.clock_skew_ms.map(clock_skew));
    let text = format!("authenticated packet {} ago", age(now.since(packet)));
    PluginResult::new(Status::Ok, text, metrics)
}

/// Returns the result of a handshake; the packet that completes it is authenticated. `skew_ms`: the
/// clock skew from the device's own last handshake, because this one carries no timestamp of the
/// device.
pub fn handshake(outcome: &Result<Duration, ConnectFailure>, skew_ms: Option<i64>) -> Meaning {
    Some(match outcome {
        Ok(took) => {
            let mut metrics = vec![Metric::seconds("packet_age", Duration::ZERO)];
            metrics.push(Metric::seconds("handshake_age", Duration::ZERO));
            metrics.extend(skew_ms.map(clock_skew));
            metrics.push(Metric::millis("handshake_time", *took));
            let text = format!("handshake in {}", millis(*took));
            Finding::said(PluginResult::new(Status::Ok, text, metrics))
        }
        Err(ConnectFailure::Busy) => return None,
        Err(failure) => no_handshake(cause(failure), &failure.to_string()),
    })
}

fn clock_skew(ms: i64) -> Metric {
    Metric::plain("clock_skew", ms as f64 / 1000.0, "s")
}

pub fn no_handshake(cause: Cause, why: &str) -> Finding {
    let text = format!("no authenticated packet, and no answer to a handshake: {why}");
    Finding { result: PluginResult::critical(text).because(cause), silence: true }
}

/// Returns the result when a handshake failed and an echo came back: both directions work.
pub fn echoed(rtt: Duration, failure: &ConnectFailure) -> Finding {
    let text = format!("echo in {}, while a handshake {failure}", millis(rtt));
    Finding::said(PluginResult::new(Status::Ok, text, vec![Metric::seconds("packet_age", Duration::ZERO)]))
}

/// Returns the result when packets arrive, but the handshake and all echoes timed out.
pub fn no_answer(failure: &ConnectFailure, echoes: u8) -> Finding {
    let text = format!(
        "its packets arrive, and ours get no answer: handshake: {failure}; {echoes} echoes: timed out"
    );
    Finding { result: PluginResult::critical(text).because(Cause::NoAnswer), silence: true }
}

pub fn ping(answer: &EchoReply) -> Meaning {
    let result = match &answer.failure {
        Some(ConnectFailure::Busy) => return None,
        Some(failure) if answer.rtts.is_empty() => echo::not_sent(cause(failure), &failure.to_string()),
        _ if answer.sent == 0 => return None,
        _ => echo::summary(answer.sent, &answer.rtts),
    };
    Some(Finding { result, silence: answer.rtts.is_empty() })
}

pub fn connect(port: u16, outcome: &Result<Duration, ConnectFailure>, timeout: Duration) -> Meaning {
    if *outcome == Err(ConnectFailure::Busy) {
        return None;
    }
    let silence = outcome.as_ref().is_err_and(is_silence);
    Some(Finding { result: tcp::judge(port, &connect_end(outcome, timeout)), silence })
}

/// Returns the result of the SSH session itself, regardless of its commands. `connect`: the time it
/// took to open the session, which may have been kept from an earlier check.
pub fn session(
    answer: &SshReply,
    user: Option<&str>,
    timeout: Duration,
    connect: Option<Duration>,
) -> Meaning {
    if answer.failure == Some(SshFailure::Connect(ConnectFailure::Busy)) {
        return None;
    }
    let seen = SshSeen {
        identification: answer.identification.clone(),
        logged_in_as: user.filter(|_| answer.logged_in).map(str::to_owned),
        connect: answer.connect.filter(|_| !answer.reused),
        failure: answer.failure.as_ref().map(|f| ssh_failure(f, timeout)),
    };
    let silence = answer.failure.as_ref().is_some_and(|f| match f {
        SshFailure::Connect(failure) => is_silence(failure),
        failure => *failure == SshFailure::Timeout,
    });
    let mut result = ssh::judge(&seen);
    result.add_metrics(connect.filter(|_| answer.reused).map(tcp::time));
    Some(Finding { result, silence })
}

/// Whether the connection was established, but the session or one of its commands went silent.
pub fn is_stalled(answer: &SshReply) -> bool {
    let silent = |run: &CommandReply| matches!(run.end, CommandEnd::Timeout | CommandEnd::Lost);
    answer.failure == Some(SshFailure::Timeout) || answer.commands.iter().any(silent)
}

/// Whether the connection attempt timed out.
pub fn is_timed_out(answer: &SshReply) -> bool {
    answer.failure == Some(SshFailure::Connect(ConnectFailure::Timeout))
}

/// Whether the host was silent, so that another path may reach it.
pub fn is_unreached(answer: &SshReply) -> bool {
    matches!(&answer.failure, Some(SshFailure::Connect(failure)) if is_silence(failure))
}

/// Whether that inner address was completely silent. The device may be using its other one.
pub fn is_unanswered(answer: &ProbeReply) -> bool {
    let silent = |f: &ConnectFailure| matches!(f, ConnectFailure::Timeout | ConnectFailure::Unreachable(_));
    match answer {
        ProbeReply::Echo(echo) => echo.rtts.is_empty() && echo.failure.as_ref().map_or(echo.sent > 0, silent),
        ProbeReply::Connect(Err(failure)) => silent(failure),
        ProbeReply::Ssh(SshReply { failure: Some(SshFailure::Connect(failure)), .. }) => silent(failure),
        _ => false,
    }
}

/// Whether the device replied; a refused connection is a reply, too.
pub fn is_answered(answer: &ProbeReply) -> bool {
    match answer {
        ProbeReply::Echo(echo) => !echo.rtts.is_empty(),
        ProbeReply::Connect(outcome) => {
            matches!(outcome, Ok(_) | Err(ConnectFailure::Refused | ConnectFailure::Reset))
        }
        _ => false,
    }
}

/// Adds to a silent result that the other inner address was probed, too.
pub fn nor_at(meaning: Meaning, other: Option<IpAddr>) -> Meaning {
    let mut finding = meaning?;
    if let Some(other) = other.filter(|_| finding.silence) {
        finding.result.text = format!("{}; no answer at {other} either", finding.result.text);
    }
    Some(finding)
}

fn cause(failure: &ConnectFailure) -> Cause {
    Cause::from(&connect_end(&Err(failure.clone()), Duration::ZERO))
}

fn is_silence(failure: &ConnectFailure) -> bool {
    matches!(failure, ConnectFailure::NoTunnel | ConnectFailure::Timeout | ConnectFailure::Unreachable(_))
}

/// Returns the result of a plugin; `None` if it did not run, because the session failed before.
pub fn command(answer: &SshReply, name: &str, timeout: Duration) -> Meaning {
    let run = answer.commands.iter().find(|c| c.name == name)?;
    let result = PluginResult::from_run(&ending(run, timeout), &run.stdout, &run.stderr, run.truncated);
    Some(Finding::said(result))
}

/// Returns the result of the sensor script for each of `wanted`, by key. A script that broke off
/// still yields the sensors that it had printed.
pub fn sensors(answer: &SshReply, wanted: &[(String, Sensor)], timeout: Duration, now: Wall) -> Vec<Meaning> {
    let now = jiff::Timestamp::from_millisecond(now.as_millis()).unwrap_or_default();
    let Some(run) = answer.commands.iter().find(|c| c.name == SENSORS) else {
        return vec![None; wanted.len()];
    };
    let readings = sensors::parse(&run.stdout);
    let read = |(key, sensor): &(String, Sensor)| {
        let found = readings.as_ref().map(|all| all.iter().find(|(known, _)| known == key));
        Some(Finding::said(match found {
            Ok(Some((_, reading))) => sensors::judge(sensor, reading, now, &[]),
            _ if run.end != CommandEnd::Exit(0) => abnormal(run, timeout),
            Ok(None) => sensors::unanswered(sensor),
            Err(said) => PluginResult::unknown(said.to_string()),
        }))
    };
    wanted.iter().map(read).collect()
}

/// Returns the result of a script that ended abnormally: that of a plugin with the same end, but
/// never better than UNKNOWN.
fn abnormal(run: &CommandReply, timeout: Duration) -> PluginResult {
    let result = PluginResult::from_run(&ending(run, timeout), b"", &run.stderr, run.truncated);
    PluginResult { status: Status::Unknown, ..result }
}

fn ending(run: &CommandReply, timeout: Duration) -> Ending {
    match &run.end {
        CommandEnd::Exit(code) => Ending::Exit(*code),
        CommandEnd::Signal(name) => Ending::Signal(name.clone()),
        CommandEnd::Timeout => Ending::Timeout(timeout),
        CommandEnd::Lost => Ending::Lost,
    }
}

fn connect_end(outcome: &Result<Duration, ConnectFailure>, timeout: Duration) -> ConnectEnd {
    match outcome {
        Ok(took) => ConnectEnd::Connected(*took),
        Err(ConnectFailure::NoTunnel) => ConnectEnd::NoTunnel,
        Err(ConnectFailure::Timeout) => ConnectEnd::Timeout(timeout),
        Err(ConnectFailure::Refused) => ConnectEnd::Refused,
        Err(ConnectFailure::Reset) => ConnectEnd::Reset,
        Err(ConnectFailure::Unreachable(why)) => ConnectEnd::Unreachable(why.clone()),
        Err(ConnectFailure::Busy) => ConnectEnd::NotTried(ConnectFailure::Busy.to_string()),
    }
}

fn ssh_failure(failure: &SshFailure, timeout: Duration) -> ssh::SshFailure {
    match failure.clone() {
        SshFailure::Connect(failure) => ssh::SshFailure::Connect(connect_end(&Err(failure), timeout)),
        SshFailure::NotSsh(said) => ssh::SshFailure::NotSsh(said),
        SshFailure::Protocol(why) => ssh::SshFailure::Protocol(why),
        SshFailure::HostKeyChanged { pinned, seen } => {
            ssh::SshFailure::HostKeyChanged { pinned: pinned.to_string(), seen: seen.to_string() }
        }
        SshFailure::HostKeyUnknown { seen } => ssh::SshFailure::HostKeyUnknown { seen: seen.to_string() },
        SshFailure::NothingInCommon { what, offered } => ssh::SshFailure::NothingInCommon { what, offered },
        SshFailure::LoginRefused { user, why } => ssh::SshFailure::LoginRefused { user, why },
        SshFailure::Timeout => ssh::SshFailure::Timeout,
    }
}
