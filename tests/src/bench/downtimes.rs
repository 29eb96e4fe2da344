//! The cost of a downtime for the monitor's thread, for one host and for all, in a fleet with many
//! planned downtimes.
//!
//! This runs the engine alone. The downtimes of other hosts must not affect the cost. Those of the
//! same host do, because each of its services evaluates them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::messages::{
    Check, Downtime, HostScope, HostSpec, MonitorInput, MonitorOutput, Scope, ServiceSpec, When,
};
use fleetgate_engine::monitor::{Config, Monitor};
use fleetgate_engine::time::{Mono, Now, Wall};

use super::{cpu_of, median, micros, report};

const HOSTS: i64 = 10_000;
const SERVICES: usize = 10;
const FEW: i64 = 10;
const MANY: i64 = 1_000;
/// Downtimes of the whole fleet that are planned and cancelled for one figure.
const ROUNDS: usize = 20;
/// The same for one host. They are measured together, because one takes a few microseconds.
const OF_ONE: usize = 1_000;
/// Later than every other planned downtime.
const MEASURED: i64 = 1 << 40;
const DAY: Duration = Duration::from_secs(86_400);

struct Fleet {
    monitor: Monitor,
    now: Now,
}

impl Fleet {
    /// Makes a fleet with this many planned downtimes, every tenth of them for all hosts.
    fn with(planned: i64) -> Fleet {
        let now = Now { mono: Mono::from_secs(1_000), wall: Wall::from_millis(1_800_000_000_000) };
        let mut fleet = Fleet { monitor: Monitor::new(Config::default(), 1), now };
        for n in 0..HOSTS {
            fleet.tell(MonitorInput::Upsert(Box::new(spec(n))));
        }
        for n in 0..planned {
            let hosts = if n % 10 == 0 { all() } else { HostScope::One(host(n * 7 % HOSTS)) };
            fleet.plan(n + 1, hosts);
        }
        fleet
    }

    fn tell(&mut self, input: MonitorInput) {
        self.monitor.handle(input, self.now);
        while !matches!(self.monitor.poll_output(), MonitorOutput::Wait(..)) {}
    }

    fn plan(&mut self, id: i64, hosts: HostScope) {
        let start = self.now.wall + DAY;
        let when = When::Once { start, end: start + DAY, duration: None };
        let scope = Scope { hosts, service: None };
        self.tell(MonitorInput::Downtime(Box::new(Downtime { id: Id::from_i64(id), scope, when })));
    }

    /// Returns the cost of planning a downtime and cancelling it again.
    fn cost(&mut self, hosts: impl Fn() -> HostScope, times: usize) -> f64 {
        let (time, ()) = cpu_of(|| {
            for _ in 0..times {
                self.plan(MEASURED, hosts());
                self.tell(MonitorInput::CancelDowntime(Id::from_i64(MEASURED)));
            }
        });
        micros(time) / times as f64
    }
}

fn host(n: i64) -> HostId {
    HostId::from_i64(n + 1)
}

fn all() -> HostScope {
    HostScope::Labels(BTreeMap::new())
}

fn spec(n: i64) -> HostSpec {
    let service = |k: usize| ServiceSpec::plain(format!("service-{k}"), Check::Passive);
    let address = Ipv4Addr::from(0xac18_0002 + n as u32);
    let services = (0..SERVICES).map(service).collect();
    HostSpec { services, ..HostSpec::device(host(n), format!("h{n}"), address) }
}

pub fn run() {
    let (mut few, mut many) = (Fleet::with(FEW), Fleet::with(MANY));
    let one = || HostScope::One(host(HOSTS / 2));
    let (mut alone, mut beside, mut fleet, mut crowded) = (vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        alone.push(few.cost(one, OF_ONE));
        beside.push(many.cost(one, OF_ONE));
        fleet.push(few.cost(all, 1));
        crowded.push(many.cost(all, 1));
    }
    let [alone, beside, fleet, crowded] = [alone, beside, fleet, crowded].map(median);
    let whole = fleet / 1_000.0;
    report(
        &format!("one host's downtime, planned and cancelled, {FEW} others"),
        &format!("{alone:.1} us"),
        "",
    );
    report(&format!("  the same with {MANY} others, against it"), &format!("{:.2}", beside / alone), "-");
    report(&format!("that of {HOSTS} hosts with {SERVICES} services each"), &format!("{whole:.1} ms"), "");
    report(&format!("  the same with {MANY} others, against it"), &format!("{:.2}", crowded / fleet), "-");
}
