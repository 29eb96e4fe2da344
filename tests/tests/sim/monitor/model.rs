//! The states and messages that the truth about a device requires, once they have settled.
//!
//! The model is written from the semantics, without attempts, schedules, evidence or probes. It
//! shares no logic with the engine.

use std::collections::BTreeMap;

use fleetgate_engine::messages::{Check, HostSpec, HostStatus, RoutePolicy};
use fleetgate_probes::sample::Status;

use fleetgate_tests::world::Truth;

/// The content of one message: service (empty: the host), problem, from, to.
pub type Said = (String, bool, &'static str, &'static str);

#[derive(Clone, Debug, Default)]
pub struct Belief {
    pub host: HostStatus,
    told_down: bool,
    pub services: BTreeMap<String, ServiceBelief>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ServiceBelief {
    pub status: Option<Status>,
    pub stale: bool,
    told: Option<Status>,
}

impl Belief {
    /// Settles a truth that has lasted long. Returns the messages that it must have caused, sorted.
    pub fn settle(&mut self, spec: &HostSpec, truth: &Truth, came: bool, asleep: bool) -> Vec<Said> {
        let mut said = Vec::new();
        self.settle_host(spec, truth, came, asleep, &mut said);
        for service in &spec.services {
            let verdict = if self.host == HostStatus::Up && !asleep {
                judge(spec, &service.check, truth, came)
            } else {
                None
            };
            let known = self.services.entry(service.name.clone()).or_default();
            known.stale = verdict.is_none() && known.status.is_some();
            if let Some(status) = verdict {
                known.status = Some(status);
                said.extend(known.tell(&service.name, status));
            }
        }
        said.sort();
        said
    }

    fn settle_host(
        &mut self,
        spec: &HostSpec,
        truth: &Truth,
        came: bool,
        asleep: bool,
        said: &mut Vec<Said>,
    ) {
        let there = is_there(spec, truth);
        if asleep || !there && self.host == HostStatus::Pending && !came && !goes_direct(spec) {
            return;
        }
        self.host = if there { HostStatus::Up } else { HostStatus::Down };
        if there == self.told_down {
            said.push(if there {
                (String::new(), false, "down", "up")
            } else {
                (String::new(), true, "up", "down")
            });
            self.told_down = !there;
        }
    }
}

impl ServiceBelief {
    fn tell(&mut self, name: &str, status: Status) -> Option<Said> {
        let before = self.told.unwrap_or(Status::Ok);
        self.told = Some(status).filter(|s| *s != Status::Ok);
        (before != status).then(|| (name.to_owned(), status != Status::Ok, before.name(), status.name()))
    }
}

fn goes_direct(spec: &HostSpec) -> bool {
    spec.direct.is_some() && spec.route != RoutePolicy::Tunnel
}

fn goes_inside(spec: &HostSpec) -> bool {
    spec.own_tunnel && spec.route != RoutePolicy::Direct
}

/// Returns whether the device is provably alive. A tunnel that carries packets proves it. A reply
/// on the Internet proves it too, if its host key matches the one that the tunnel confirmed.
pub fn is_there(spec: &HostSpec, truth: &Truth) -> bool {
    let impostor =
        spec.own_tunnel && spec.ssh.pin.as_ref().is_some_and(|pin| pin.fingerprint != truth.host_key);
    let answers = truth.alive && truth.direct && !truth.hung && truth.sshd && !impostor;
    spec.own_tunnel && truth.tunnel_works() || goes_direct(spec) && answers
}

/// Returns the expected status. `None`: it cannot be known now.
fn judge(spec: &HostSpec, check: &Check, truth: &Truth, came: bool) -> Option<Status> {
    let ok_if = |good: bool| if good { Status::Ok } else { Status::Critical };
    let tunnel = came && truth.tunnel_works();
    match check {
        Check::Passive | Check::Heartbeat(_) | Check::Rental => None,
        Check::Tunnel if !came => None,
        Check::Tunnel => Some(ok_if(tunnel)),
        Check::Ping { .. } => tunnel.then(|| ok_if(!truth.hung)),
        Check::Tcp { .. } if goes_inside(spec) => tunnel.then(|| ok_if(!truth.hung && truth.tcp)),
        Check::Tcp { .. } => Some(ok_if(truth.direct && !truth.hung && truth.tcp)),
        Check::Ssh => ssh(spec, truth, tunnel),
        Check::Sensor(_) => runs(spec, truth, tunnel).then_some(match truth.temperature {
            t if t > 60.0 => Status::Critical,
            t if t > 50.0 => Status::Warning,
            _ => Status::Ok,
        }),
        Check::Command { .. } => runs(spec, truth, tunnel).then_some(match truth.plugin_exit {
            0 => Status::Ok,
            1 => Status::Warning,
            2 => Status::Critical,
            _ => Status::Unknown,
        }),
    }
}

fn ssh(spec: &HostSpec, truth: &Truth, tunnel: bool) -> Option<Status> {
    let inside = goes_inside(spec) && tunnel;
    let outside = goes_direct(spec) && truth.direct;
    if !inside && !goes_direct(spec) {
        return None;
    }
    let right_key = spec.ssh.pin.as_ref().is_none_or(|pin| pin.fingerprint == truth.host_key);
    let good = (inside || outside) && !truth.hung && truth.sshd && right_key;
    let login = truth.login || !may_log_in(spec, tunnel);
    Some(if good && login { Status::Ok } else { Status::Critical })
}

/// Returns whether checks that need a login run: exactly when `ssh` is ok.
fn runs(spec: &HostSpec, truth: &Truth, tunnel: bool) -> bool {
    may_log_in(spec, tunnel) && ssh(spec, truth, tunnel) == Some(Status::Ok)
}

/// Returns whether a login is allowed. On the Internet it requires a confirmed host key.
fn may_log_in(spec: &HostSpec, tunnel: bool) -> bool {
    spec.ssh.user.is_some() && (goes_inside(spec) && tunnel || spec.ssh.pin.is_some())
}
