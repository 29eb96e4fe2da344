//! What state every host and service is in, and who is to be told.
//!
//! Pure: time and randomness are handed in, questions and records are handed out. Mutate with
//! [`Monitor::handle`], then drain [`Monitor::poll_output`] until it says `Wait`.

use std::collections::{BTreeMap, VecDeque};

use crate::id::HostId;
use crate::time::Now;
use crate::wire::{HostMemory, HostSpec, MonitorInput, MonitorOutput, Why};

pub mod profile;

/// Settings of the whole monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Questions under way at one time, over all hosts. Checks that are running may finish over it.
    pub max_in_flight: usize,
}

impl Default for Config {
    /// 10,000 hosts a minute whose every question times out after 10 s need 1,700; twice that.
    fn default() -> Self {
        Config { max_in_flight: 4096 }
    }
}

pub struct Monitor {
    hosts: BTreeMap<HostId, HostSpec>,
    out: VecDeque<MonitorOutput>,
}

impl Monitor {
    /// `seed` feeds the jitter of retries.
    pub fn new(_config: Config, _seed: u64) -> Self {
        Monitor { hosts: BTreeMap::new(), out: VecDeque::new() }
    }

    /// Continues where an earlier run was. Once, before anything else.
    pub fn restore(&mut self, hosts: impl IntoIterator<Item = HostMemory>, _now: Now) {
        self.hosts.extend(hosts.into_iter().map(|h| (h.spec.id, h.spec)));
    }

    pub fn handle(&mut self, input: MonitorInput, _now: Now) {
        match input {
            MonitorInput::Upsert(spec) => drop(self.hosts.insert(spec.id, *spec)),
            MonitorInput::Remove(host) => drop(self.hosts.remove(&host)),
            _ => {}
        }
    }

    /// What is to be done, one thing at a time; `Wait` when there is nothing more.
    pub fn poll_output(&mut self) -> MonitorOutput {
        self.out.pop_front().unwrap_or(MonitorOutput::Wait(None, Why::Idle))
    }
}
