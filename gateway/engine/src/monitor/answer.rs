//! What an answer means for the service that asked: a result, or nothing.
//!
//! Translates the engine's answers for `fleetgate-probes`, which judges them. Knows no states, no
//! thresholds and no dependencies.

use std::net::IpAddr;
use std::time::Duration;

use fleetgate_probes::cause::Cause;
use fleetgate_probes::plugin::{Ending, PluginResult};
use fleetgate_probes::sample::{Metric, Status};
use fleetgate_probes::sensors::Sensor;
use fleetgate_probes::ssh::{self, SshSeen};
use fleetgate_probes::tcp::{self, ConnectEnd};
use fleetgate_probes::{echo, sensors};

use crate::time::{Mono, Wall};
use crate::wire::{
    Answer, CommandAnswer, CommandEnd, ConnectFailure, EchoAnswer, Evidence, SshAnswer, SshFailure,
};

use super::liveness::{age, millis};

/// The command of an SSH session that reads all sensors. Service names never begin with a colon.
pub const SENSORS: &str = ":sensors";

/// A result before thresholds and dependencies.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub result: PluginResult,
    /// The host said nothing at all, which may be our own fault for a while after a restart.
    pub silence: bool,
}

impl Finding {
    pub fn said(result: PluginResult) -> Self {
        Finding { result, silence: false }
    }
}

/// `None`: could not be tried, so that nothing follows.
pub type Meaning = Option<Finding>;

/// A tunnel that carried an authenticated packet lately.
pub fn evidence(evidence: &Evidence, packet: Mono, now: Mono) -> PluginResult {
    let mut metrics = vec![seconds("packet_age", now.since(packet))];
    metrics.extend(evidence.last_handshake.map(|at| seconds("handshake_age", now.since(at))));
    metrics.extend(evidence.clock_skew_ms.map(clock_skew));
    let text = format!("authenticated packet {} ago", age(now.since(packet)));
    PluginResult::new(Status::Ok, text, metrics)
}

/// The packet that ends a handshake is authenticated. `skew_ms`: what the device's last own handshake
/// told of its clock, which this one does not.
pub fn handshake(outcome: &Result<Duration, ConnectFailure>, skew_ms: Option<i64>) -> Meaning {
    Some(match outcome {
        Ok(took) => {
            let mut metrics = vec![seconds("packet_age", Duration::ZERO)];
            metrics.push(seconds("handshake_age", Duration::ZERO));
            metrics.extend(skew_ms.map(clock_skew));
            metrics.push(Metric::amount("handshake_time", took.as_secs_f64() * 1000.0, "ms"));
            let text = format!("handshake in {}", millis(*took));
            Finding::said(PluginResult::new(Status::Ok, text, metrics))
        }
        Err(ConnectFailure::Busy) => return None,
        Err(failure) => no_handshake(cause(failure), &failure.to_string()),
    })
}

fn seconds(label: &str, time: Duration) -> Metric {
    Metric::amount(label, time.as_secs_f64(), "s")
}

fn clock_skew(ms: i64) -> Metric {
    Metric::plain("clock_skew", ms as f64 / 1000.0, "s")
}

pub fn no_handshake(cause: Cause, why: &str) -> Finding {
    let text = format!("no authenticated packet, and no answer to a handshake: {why}");
    Finding { result: PluginResult::critical(text).because(cause), silence: true }
}

/// A handshake came to nothing, and an echo came back: both directions work.
pub fn echoed(rtt: Duration, failure: &ConnectFailure) -> Finding {
    let text = format!("echo in {}, while a handshake {failure}", millis(rtt));
    Finding::said(PluginResult::new(Status::Ok, text, vec![seconds("packet_age", Duration::ZERO)]))
}

/// Packets come, and neither a handshake nor so many echoes were answered.
pub fn no_answer(failure: &ConnectFailure, echoes: u8) -> Finding {
    let text = format!(
        "its packets arrive, and ours get no answer: handshake: {failure}; {echoes} echoes: timed out"
    );
    Finding { result: PluginResult::critical(text).because(Cause::NoAnswer), silence: true }
}

pub fn ping(answer: &EchoAnswer) -> Meaning {
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

/// What the session itself is worth, whatever ran in it. `connect`: how long it took to open the one
/// that may have been kept.
pub fn session(
    answer: &SshAnswer,
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
    result.metrics.extend(connect.filter(|_| answer.reused).map(tcp::time));
    Some(Finding { result, silence })
}

/// A connection was there, and the session or a command of it went silent.
pub fn is_stalled(answer: &SshAnswer) -> bool {
    let silent = |run: &CommandAnswer| matches!(run.end, CommandEnd::Timeout | CommandEnd::Lost);
    answer.failure == Some(SshFailure::Timeout) || answer.commands.iter().any(silent)
}

/// Its connection got no answer in time.
pub fn is_timed_out(answer: &SshAnswer) -> bool {
    answer.failure == Some(SshFailure::Connect(ConnectFailure::Timeout))
}

/// Nobody answered, so that another way may lead there.
pub fn is_unreached(answer: &SshAnswer) -> bool {
    matches!(&answer.failure, Some(SshFailure::Connect(failure)) if is_silence(failure))
}

/// Nothing at all came back from that inner address: the device may be using its other one.
pub fn is_unanswered(answer: &Answer) -> bool {
    let silent = |f: &ConnectFailure| matches!(f, ConnectFailure::Timeout | ConnectFailure::Unreachable(_));
    match answer {
        Answer::Echo(echo) => echo.rtts.is_empty() && echo.failure.as_ref().map_or(echo.sent > 0, silent),
        Answer::Connect(Err(failure)) => silent(failure),
        Answer::Ssh(SshAnswer { failure: Some(SshFailure::Connect(failure)), .. }) => silent(failure),
        _ => false,
    }
}

/// Something of the device answered; a refusal comes from it too.
pub fn is_answered(answer: &Answer) -> bool {
    match answer {
        Answer::Echo(echo) => !echo.rtts.is_empty(),
        Answer::Connect(outcome) => {
            matches!(outcome, Ok(_) | Err(ConnectFailure::Refused | ConnectFailure::Reset))
        }
        _ => false,
    }
}

/// Says of a silence that the other inner address was asked too.
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

/// A plugin's result; `None`: it was never started, or the connection went under it, which is a
/// finding about the session.
pub fn command(answer: &SshAnswer, name: &str, timeout: Duration) -> Meaning {
    let run = answer.commands.iter().find(|c| c.name == name)?;
    let result = PluginResult::from_run(&ending(run, timeout), &run.stdout, &run.stderr, run.truncated);
    Some(Finding::said(result))
}

/// What the sensor script said of each of `wanted`, by key. A script that broke off has answered
/// for what it came to.
pub fn sensors(
    answer: &SshAnswer,
    wanted: &[(String, Sensor)],
    timeout: Duration,
    now: Wall,
) -> Vec<Meaning> {
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

/// The script ended otherwise than it should: what a plugin that ends like this would yield, but
/// never better than UNKNOWN.
fn abnormal(run: &CommandAnswer, timeout: Duration) -> PluginResult {
    let result = PluginResult::from_run(&ending(run, timeout), b"", &run.stderr, run.truncated);
    PluginResult { status: Status::Unknown, ..result }
}

fn ending(run: &CommandAnswer, timeout: Duration) -> Ending {
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
