//! Hosts for the tests of this module, and a monitor whose probes the test replies to.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::{Config, Monitor};
use crate::id::HostId;
use crate::time::{Mono, Now, Wall};
use crate::wire::{
    Alerting, Answer, HostSpec, MonitorInput, MonitorOutput, Question, Record, RoutePolicy, ServiceState,
    SshSpec, Timing,
};

/// A device with a tunnel, without services.
pub fn host(raw: i64) -> HostSpec {
    let id = HostId::from_i64(raw);
    HostSpec {
        id,
        name: format!("cam-{raw}"),
        labels: BTreeMap::new(),
        parents: Vec::new(),
        peer: Some(id),
        own_tunnel: true,
        address: Some(IpAddr::V4(Ipv4Addr::new(172, 24, 0, raw as u8))),
        other_address: None,
        direct: None,
        ssh: SshSpec { port: 22, user: None, pin: None },
        route: RoutePolicy::Auto,
        max_silence: None,
        freshness: None,
        budget: None,
        timing: Timing::DEFAULT,
        thresholds: Vec::new(),
        alerting: Alerting::default(),
        services: Vec::new(),
    }
}

/// A monitor of one host; each probe gets its reply at once.
pub struct Asked {
    monitor: Monitor,
    pub now: Now,
    pub questions: Vec<Question>,
    pub records: Vec<Record>,
}

impl Asked {
    pub fn of(spec: HostSpec) -> Asked {
        let now = Now { mono: Mono::from_secs(10_000), wall: Wall::from_millis(10_000_000) };
        let mut monitor = Monitor::new(Config::default(), 1);
        monitor.handle(MonitorInput::Upsert(Box::new(spec)), now);
        Asked { monitor, now, questions: Vec::new(), records: Vec::new() }
    }

    pub fn run(&mut self, time: Duration, mut answer: impl FnMut(&Question, Now) -> Answer) {
        let end = self.now.mono + time;
        loop {
            match self.monitor.poll_output() {
                MonitorOutput::Ask(ask) => {
                    let answer = answer(&ask.question, self.now);
                    self.questions.push(ask.question);
                    self.monitor.handle(MonitorInput::Answer(ask.id, answer), self.now);
                }
                MonitorOutput::Record(record) => self.records.push(record),
                MonitorOutput::LookOutside => {}
                MonitorOutput::Wait(at, _) => match at.filter(|at| *at <= end) {
                    Some(at) => {
                        let step = at.since(self.now.mono);
                        self.now = Now { mono: self.now.mono + step, wall: self.now.wall + step };
                        self.monitor.handle(MonitorInput::Timeout, self.now);
                    }
                    None => return,
                },
            }
        }
    }

    /// Returns the last state of a service.
    pub fn service(&self, name: &str) -> Option<&ServiceState> {
        self.records.iter().rev().find_map(|record| match record {
            Record::Service(_, state) if state.name == name => Some(state),
            _ => None,
        })
    }
}
