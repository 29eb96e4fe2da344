//! Hosts for the tests of this module, and a monitor whose probes the test replies to.

use std::net::IpAddr;
use std::time::Duration;

use super::{Config, Monitor};
use crate::id::HostId;
use crate::messages::{HostSpec, MonitorInput, MonitorOutput, Probe, ProbeReply, Record, ServiceState};
use crate::time::{Mono, Now, Wall};

/// A device with a tunnel, without services.
pub fn host(raw: i64) -> HostSpec {
    let address = IpAddr::from([172, 24, 0, raw as u8]);
    HostSpec::device(HostId::from_i64(raw), format!("cam-{raw}"), address)
}

/// A monitor of one host; each probe gets its reply at once.
pub struct TestMonitor {
    monitor: Monitor,
    pub now: Now,
    pub probes: Vec<Probe>,
    pub records: Vec<Record>,
}

impl TestMonitor {
    pub fn of(spec: HostSpec) -> TestMonitor {
        let now = Now { mono: Mono::from_secs(10_000), wall: Wall::from_millis(10_000_000) };
        let mut monitor = Monitor::new(Config::default(), 1);
        monitor.handle(MonitorInput::Upsert(Box::new(spec)), now);
        TestMonitor { monitor, now, probes: Vec::new(), records: Vec::new() }
    }

    pub fn run(&mut self, time: Duration, mut answer: impl FnMut(&Probe, Now) -> ProbeReply) {
        let end = self.now.mono + time;
        loop {
            match self.monitor.poll_output() {
                MonitorOutput::ProbeRequest(ask) => {
                    let answer = answer(&ask.probe, self.now);
                    self.probes.push(ask.probe);
                    self.monitor.handle(MonitorInput::ProbeReply(ask.id, answer), self.now);
                }
                MonitorOutput::Record(record) => self.records.push(record),
                MonitorOutput::ProbeUplink
                | MonitorOutput::HandedOver(_)
                | MonitorOutput::FirstContact(_) => {}
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
