//! The life of a fleet: faults, flapping links, lost sites and uplinks, restarts, clock steps,
//! and the actions of operators.

use std::collections::BTreeMap;
use std::time::Duration;

use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::messages::{
    Acknowledgement, Check, CheckableId, Downtime, HostScope, HostSpec, IncidentAck, MonitorInput,
    PassiveResult, Scope, Ticket, When,
};
use fleetgate_engine::time::Wall;
use fleetgate_probes::plugin::PluginResult;
use fleetgate_probes::sample::Status;

use super::fleet;
use super::recorder::Recorder;
use crate::dice::Dice;
use crate::world::{Truth, World};

const MINUTE: Duration = Duration::from_secs(60);
/// A fleet is at peace for so long at first.
const PEACE: Duration = Duration::from_secs(900);

pub struct Life {
    pub world: World,
    dice: Dice,
    plans: BTreeMap<Id, Downtime>,
    ids: i64,
    began: bool,
}

impl Life {
    pub fn new(seed: u64, hosts: i64) -> Life {
        let mut dice = Dice(seed);
        let mut world = World::new(seed);
        for spec in fleet::hosts(&mut dice, hosts) {
            world.add(spec, Truth::well());
        }
        if dice.one_in(2) {
            world.look_outside();
        }
        Life { world, dice, plans: BTreeMap::new(), ids: 0, began: false }
    }

    /// Does something, and returns how long nothing else is done.
    pub fn act(&mut self, recorder: &mut Recorder) -> Duration {
        if !std::mem::replace(&mut self.began, true) {
            return PEACE;
        }
        match self.dice.roll(48) {
            0..=14 => self.change_truth(),
            15..=17 => self.flap(recorder),
            18 => self.lose_site(recorder),
            19 => self.lose_uplink(recorder),
            20 => self.restart(recorder),
            21 => self.suspend(),
            22 => self.set_clock(),
            23..=32 => self.submit(),
            33..=35 => self.acknowledge(),
            36 => self.unacknowledge(),
            37 => self.acknowledge_incident(),
            38..=40 => self.plan_downtime(),
            41 => self.cancel_downtime(),
            42 | 43 => self.check_now(),
            44 | 45 => self.change_spec(),
            46 => self.replace_host(),
            _ => {}
        }
        let secs = self.dice.secs(5, 420);
        if self.dice.one_in(12) { secs + 40 * MINUTE } else { secs }
    }

    fn any(&mut self) -> HostId {
        let nth = self.dice.roll(self.world.devices.len() as u64) as usize;
        *self.world.devices.keys().nth(nth).expect("a host")
    }

    /// Returns a host, or one of its services.
    fn checkable(&mut self, wanted: impl Fn(&Check) -> bool) -> CheckableId {
        let host = self.any();
        let services = &self.world.devices[&host].spec.services;
        let names: Vec<String> =
            services.iter().filter(|s| wanted(&s.check)).map(|s| s.name.clone()).collect();
        let nth = self.dice.roll(names.len() as u64 + 1) as usize;
        CheckableId { host, service: names.get(nth).cloned() }
    }

    fn change_truth(&mut self) {
        let (id, truth) = (self.any(), self.truth());
        self.world.set(id, truth);
    }

    fn truth(&mut self) -> Truth {
        let dice = &mut self.dice;
        let mut truth = Truth { wire_today: dice.roll(1_500_000), ..Truth::well() };
        for _ in 0..dice.roll(3) {
            match dice.roll(14) {
                0 => truth.alive = false,
                1 | 2 => truth.link = false,
                3 => truth.hung = true,
                4 => truth.deaf = true,
                5 => truth.refused = true,
                6 => truth.quiet = true,
                7 => truth.uses = (dice.one_in(2), true),
                8 => truth.direct = false,
                9 => truth.sshd = false,
                10 => truth.login = false,
                11 => truth.host_key = "SHA256:other",
                12 => truth.temperature = [55.0, 70.0][dice.roll(2) as usize],
                _ => (truth.plugin_exit, truth.tcp) = (dice.roll(4) as u32, dice.one_in(2)),
            }
        }
        truth
    }

    fn flap(&mut self, recorder: &mut Recorder) {
        let id = self.any();
        for _ in 0..4 + self.dice.roll(14) {
            let there = self.dice.one_in(2);
            self.world.set(id, if there { Truth::well() } else { Truth::off() });
            let pause = self.dice.secs(5, 150);
            recorder.pass(&mut self.world, pause);
        }
        self.world.set(id, Truth::well());
    }

    /// Switches these hosts off for a while.
    fn lose(&mut self, lost: &[HostId], recorder: &mut Recorder) {
        let before: Vec<(HostId, Truth)> =
            lost.iter().map(|id| (*id, self.world.devices[id].truth.clone())).collect();
        for id in lost {
            self.world.set(*id, Truth::off());
        }
        let time = self.dice.secs(20, 1_500);
        recorder.pass(&mut self.world, time);
        before.into_iter().for_each(|(id, truth)| self.world.set(id, truth));
    }

    fn lose_site(&mut self, recorder: &mut Recorder) {
        let site = self.dice.roll(2) as i64;
        let at_site = |id: &&HostId| (id.as_i64() - 1) % 3 == site;
        let lost: Vec<HostId> = self.world.devices.keys().filter(at_site).copied().collect();
        self.lose(&lost, recorder);
    }

    fn lose_uplink(&mut self, recorder: &mut Recorder) {
        let lost: Vec<HostId> = self.world.devices.keys().copied().collect();
        self.world.outside = self.world.outside.map(|_| false);
        self.lose(&lost, recorder);
        self.world.outside = self.world.outside.map(|_| true);
    }

    fn restart(&mut self, recorder: &mut Recorder) {
        let away = if self.dice.one_in(2) { self.dice.secs(1, 60) } else { self.dice.secs(60, 4_000) };
        self.world.restart(away);
        for plan in self.plans.values() {
            self.world.input(MonitorInput::Downtime(Box::new(plan.clone())));
        }
        recorder.pass(&mut self.world, MINUTE);
    }

    fn suspend(&mut self) {
        let time = self.dice.secs(5, 4_000);
        self.world.suspend(time);
    }

    fn set_clock(&mut self) {
        let most = [10, 300, 20_000][self.dice.roll(3) as usize];
        let secs = self.dice.roll(most).cast_signed();
        self.world.step_wall(if self.dice.one_in(2) { secs } else { -secs });
        self.world.input(MonitorInput::Timeout);
    }

    fn submit(&mut self) {
        let CheckableId { host, service } = self.checkable(Check::is_sent);
        let status = Status::ALL[[0, 0, 0, 1, 2, 3][self.dice.roll(6) as usize]];
        let age = if self.dice.one_in(6) { self.dice.secs(0, 900) } else { Duration::ZERO };
        self.world.input(MonitorInput::Submit(Box::new(PassiveResult {
            host,
            service,
            result: PluginResult::new(status, "sent", Vec::new()),
            at: self.world.now.wall - age,
            by: "token:t_1".to_owned(),
            identity: Default::default(),
            ticket: Ticket(1),
        })));
    }

    fn expiry(&mut self) -> Option<Wall> {
        let secs = self.dice.secs(60, 3_600);
        self.dice.one_in(2).then(|| self.world.now.wall + secs)
    }

    fn acknowledge(&mut self) {
        let CheckableId { host, service } = self.checkable(|_| true);
        self.ids += 1;
        let (id, sticky, expires) = (Id::from_i64(self.ids), self.dice.one_in(2), self.expiry());
        let ack = Acknowledgement { id, sticky, expires, words: "user:ada".to_owned(), incident: None };
        self.world.input(MonitorInput::Acknowledge { host, service, ack });
    }

    fn unacknowledge(&mut self) {
        let CheckableId { host, service } = self.checkable(|_| true);
        self.world.input(MonitorInput::Unacknowledge { host, service });
    }

    fn acknowledge_incident(&mut self) {
        let Some(incident) = self.world.kept.open_incidents().into_iter().next() else { return };
        let (sticky, expires) = (true, self.expiry());
        let ack = IncidentAck { sticky, expires, words: "user:jo".to_owned() };
        self.world.kept.known.insert(incident.id, ack.clone());
        self.world.input(MonitorInput::AcknowledgeIncident(incident.id, ack));
    }

    fn plan_downtime(&mut self) {
        let CheckableId { host, service } = self.checkable(|_| true);
        let hosts = if self.dice.one_in(4) {
            HostScope::Labels(BTreeMap::from([("site".to_owned(), "north".to_owned())]))
        } else {
            HostScope::One(host)
        };
        let start = self.world.now.wall + self.dice.secs(0, 900);
        let end = start + self.dice.secs(60, 3_600);
        let duration = self.dice.one_in(3).then(|| 10 * MINUTE);
        self.ids += 1;
        let when = When::Once { start, end, duration };
        let plan = Downtime { id: Id::from_i64(self.ids), scope: Scope { hosts, service }, when };
        self.plans.insert(plan.id, plan.clone());
        self.world.input(MonitorInput::Downtime(Box::new(plan)));
    }

    fn cancel_downtime(&mut self) {
        if let Some((id, _)) = self.plans.pop_last() {
            self.world.input(MonitorInput::CancelDowntime(id));
        }
    }

    fn check_now(&mut self) {
        let CheckableId { host, service } = self.checkable(|_| true);
        self.world.check_now(host, service.as_deref());
    }

    /// Changes a host's services and timing, or only its name.
    fn change_spec(&mut self) {
        let id = self.any();
        let (name, renames) = (format!("cam-{}-{}", id.as_i64(), self.dice.roll(10)), self.dice.one_in(3));
        let dice = &mut self.dice;
        self.world.change(id, |spec| {
            if renames {
                spec.name = name;
            } else if dice.one_in(2) {
                spec.services.pop();
            } else {
                spec.timing.interval = MINUTE * (1 + dice.roll(4) as u32);
            }
        });
    }

    /// Removes a host and enrols another one in its place.
    fn replace_host(&mut self) {
        let id = self.any();
        if fleet::ROUTERS.contains(&id.as_i64()) {
            return;
        }
        self.world.remove(id);
        self.world.kept.hosts.remove(&id);
        self.world.kept.services.retain(|(host, _), _| *host != id);
        let spec: HostSpec = fleet::host(&mut self.dice, id.as_i64());
        self.world.add(spec, Truth::well());
    }
}
