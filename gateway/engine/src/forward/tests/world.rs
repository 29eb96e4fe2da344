//! A forwarder with two operators and two sites, under a virtual clock.
//!
//! Operator 1 (user 101) and viewer 2 (user 102); devices 11 and 12, each with host 21 or 22 behind
//! it at the same 192.168.1.5.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use proptest::test_runner::Config as ProptestConfig;

use super::packets::*;
use crate::forward::headers::{ACK, SYN};
use crate::forward::{Config, Forwarder, Limits, Outcome};
use crate::id::{GrantId, Id, PeerId};
use crate::messages::{
    DropReason, FlowRecord, Gate, GrantAccess, GrantProtocol, GrantRole, GrantSource, GrantSpec, GrantTarget,
    PolicyChange, SourceOwner, SourceSpec, TargetAddress, TargetId, TargetSpec,
};
use crate::time::{ClockStep, Mono, Now, Wall};

pub const OPERATOR: [&str; 2] = ["10.0.0.1", "fd00::1"];
pub const VIEWER: [&str; 2] = ["10.0.0.2", "fd00::2"];
pub const DEVICE: [&str; 2] = ["10.1.0.11", "fd00:1::11"];
pub const ALIAS: [&str; 2] = ["10.2.0.21", "fd00:2::21"];
pub const REAL: [&str; 2] = ["192.168.1.5", "fd77::5"];
pub const GATEWAY: [&str; 2] = ["10.0.0.254", "fd00::fe"];

/// 2026, on a full second.
pub const START: i64 = 1_780_000_000_000;

/// So many random cases, or more if `PROPTEST_CASES` asks for them.
pub fn at_least(cases: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig { cases: cases.max(default.cases), ..default }
}

pub fn id(n: i64) -> Id {
    Id::from_i64(n)
}

pub fn wall(s: i64) -> Wall {
    Wall::from_millis(START + s * 1_000)
}

pub fn seconds(s: u64) -> Duration {
    Duration::from_secs(s)
}

pub fn access(protocol: GrantProtocol, ports: RangeInclusive<u16>) -> GrantAccess {
    let ports = if protocol == GrantProtocol::Icmp { Vec::new() } else { vec![ports] };
    GrantAccess { protocol, ports }
}

/// Everything on these devices, for operator 1.
pub fn grant(n: i64, target: GrantTarget) -> GrantSpec {
    GrantSpec {
        id: id(n),
        source: GrantSource::User(id(101)),
        target,
        access: [GrantProtocol::Icmp, GrantProtocol::Tcp, GrantProtocol::Udp]
            .map(|p| access(p, 1..=65_535))
            .into(),
        from: None,
        until: None,
        only: None,
        gate: Gate::default(),
    }
}

pub fn source(n: i64, addresses: [&str; 2], role: Option<GrantRole>) -> SourceSpec {
    let addresses = BTreeSet::from(addresses.map(ip_of));
    SourceSpec { peer: id(n), owner: SourceOwner::User { user: id(100 + n), role }, addresses }
}

/// Renter `n` of person `200 + n`, who belongs to a customer.
pub fn renter(n: i64, customer: i64) -> SourceSpec {
    let owner = SourceOwner::Person { person: id(200 + n), customer: id(customer) };
    let addresses = renter_at(n).map(|address| ip_of(&address));
    SourceSpec { peer: id(n), owner, addresses: addresses.into() }
}

/// The addresses of a renter.
pub fn renter_at(n: i64) -> [String; 2] {
    [format!("10.0.0.{n}"), format!("fd00::{n}")]
}

/// The alias of a rental.
pub fn alias_of(rental: i64) -> [String; 2] {
    [format!("10.3.0.{rental}"), format!("fd00:3::{rental}")]
}

/// Rental `n` of device `of`, at its alias.
pub fn rental(n: i64, of: i64) -> TargetSpec {
    let own = device(of);
    let addresses = alias_of(n).into_iter().zip(own.addresses);
    let addresses = addresses.map(|(alias, own)| TargetAddress { reached_at: ip_of(&alias), real: own.real });
    TargetSpec {
        id: TargetId::Rental(id(n)),
        host: id(of),
        name: "rented".to_owned(),
        peer: id(of),
        behind: false,
        labels: BTreeMap::new(),
        addresses: addresses.collect(),
    }
}

/// Everything on the device of rental `n` for a customer, in the window of the rental.
pub fn rental_grant(n: i64, customer: i64, from: Option<Wall>, until: Option<Wall>) -> GrantSpec {
    let source = GrantSource::Customer(id(customer));
    GrantSpec { source, from, until, ..grant(n, GrantTarget::Rental(id(n))) }
}

pub fn device(n: i64) -> TargetSpec {
    let addresses = [format!("10.1.0.{n}"), format!("fd00:1::{n}")].map(|address| {
        let address = ip_of(&address);
        TargetAddress { reached_at: address, real: address }
    });
    let labels = BTreeMap::from([("site".to_owned(), format!("s{n}"))]);
    let name = format!("host-{n}");
    let (id, host, peer) = (TargetId::Host(id(n)), id(n), id(n));
    TargetSpec { id, host, name, peer, behind: false, labels, addresses: addresses.into() }
}

/// Host `n` behind device `n - 10`.
pub fn behind(n: i64) -> TargetSpec {
    let addresses = [(format!("10.2.0.{n}"), REAL[0]), (format!("fd00:2::{n}"), REAL[1])]
        .map(|(alias, real)| TargetAddress { reached_at: ip_of(&alias), real: ip_of(real) });
    let labels = BTreeMap::from([("site".to_owned(), format!("s{}", n - 10))]);
    let name = format!("host-{n}");
    let (id, host, peer) = (TargetId::Host(id(n)), id(n), id(n - 10));
    TargetSpec { id, host, name, peer, behind: true, labels, addresses: addresses.into() }
}

pub struct World {
    pub forwarder: Forwarder,
    pub now: Now,
}

/// Returns a world without grants.
pub fn world() -> World {
    with_limits(Limits::default())
}

pub fn with_limits(limits: Limits) -> World {
    let config = Config {
        gateway_v4: "10.0.0.254".parse().expect("an address"),
        gateway_v6: "fd00::fe".parse().expect("an address"),
        limits,
    };
    let now = Now { mono: Mono::from_secs(10_000), wall: Wall::from_millis(START) };
    let mut world = World { forwarder: Forwarder::new(config), now };
    world.change(PolicyChange::Source(source(1, OPERATOR, Some(GrantRole::Operator))));
    world.change(PolicyChange::Source(source(2, VIEWER, None)));
    for target in [device(11), device(12), behind(21), behind(22)] {
        world.change(PolicyChange::Target(target));
    }
    world
}

/// Returns a world in which operator 1 reaches everything by grant 1.
pub fn open_world() -> World {
    let mut world = world();
    world.change(PolicyChange::Grant(grant(1, GrantTarget::AllDevices)));
    for n in [21, 22] {
        world.change(PolicyChange::Grant(grant(n, GrantTarget::Host(id(n)))));
    }
    world
}

impl World {
    pub fn change(&mut self, change: PolicyChange) {
        self.forwarder.change(change, self.now);
    }

    pub fn withdraw(&mut self, n: i64) {
        self.change(PolicyChange::WithdrawGrant(id(n)));
    }

    pub fn advance(&mut self, d: Duration) {
        self.now = Now { mono: self.now.mono + d, wall: self.now.wall + d };
        self.forwarder.clock(None, self.now);
    }

    /// The clock runs evenly until it is proved.
    pub fn prove(&mut self) {
        self.advance(crate::forward::window::DOUBT);
        self.work();
    }

    /// The wall clock is set, a millisecond later.
    pub fn set_clock(&mut self, to: Wall) {
        let now = Now { mono: self.now.mono + Duration::from_millis(1), wall: to };
        let step = ClockStep::between(self.now, now);
        self.now = now;
        self.forwarder.clock(step, now);
    }

    /// Hands in a packet. Returns where it goes, and how it looks then.
    pub fn send(&mut self, from: i64, packet: &[u8]) -> Result<(PeerId, Vec<u8>), DropReason> {
        let mut bytes = packet.to_vec();
        match self.forwarder.packet(id(from), &mut bytes, self.now) {
            Outcome::Forward { to, len } => {
                bytes.truncate(len);
                assert!(has_right_checksums(&bytes) || !has_right_checksums(packet), "{bytes:?}");
                Ok((to, bytes))
            }
            Outcome::Dropped(reason) | Outcome::Answered(reason) => Err(reason),
            Outcome::Diverted(_) => panic!("the gateway sent no probe"),
        }
    }

    /// Hands in a packet that is denied, and returns the answer to its sender.
    pub fn answer(&mut self, from: i64, packet: &[u8]) -> Option<Vec<u8>> {
        match self.forwarder.packet(id(from), &mut packet.to_vec(), self.now) {
            Outcome::Answered(_) => Some(self.forwarder.reply().to_vec()),
            Outcome::Dropped(_) => None,
            Outcome::Forward { .. } | Outcome::Diverted(_) => panic!("a denial is expected"),
        }
    }

    pub fn passes(&mut self, from: i64, packet: &[u8]) -> bool {
        self.send(from, packet).is_ok()
    }

    /// Does all work of as many turns as it needs, and returns the packets.
    pub fn work(&mut self) -> Vec<(PeerId, Vec<u8>)> {
        let mut sent = Vec::new();
        for _ in 0..10_000 {
            while let Some((to, bytes)) = self.forwarder.work(self.now) {
                sent.push((to, bytes.to_vec()));
            }
            if self.forwarder.next_due().is_none_or(|due| due > self.now.mono) {
                return sent;
            }
            self.now.mono = self.now.mono + Duration::from_nanos(1);
        }
        panic!("the work never ends");
    }

    pub fn records(&mut self) -> Vec<FlowRecord> {
        std::iter::from_fn(|| self.forwarder.next_record()).collect()
    }

    /// Opens a connection of operator 1 to port 22 by a whole handshake.
    pub fn connect(&mut self, port: u16, family: usize, target: &[&str; 2], real: &[&str; 2], device: i64) {
        let (src, dst) = (OPERATOR[family], target[family]);
        self.send(1, &tcp(src, dst, port, 22, SYN, 999, 0, &[])).expect("a SYN");
        self.send(device, &tcp(real[family], src, 22, port, SYN | ACK, 4_999, 1_000, &[]))
            .expect("a SYN-ACK");
        self.send(1, &tcp(src, dst, port, 22, ACK, 1_000, 5_000, &[])).expect("an ACK");
    }

    pub fn grant_window(&mut self, n: i64, from: Option<Wall>, until: Option<Wall>) -> GrantId {
        let spec = GrantSpec { from, until, ..grant(n, GrantTarget::AllDevices) };
        self.change(PolicyChange::Grant(spec));
        id(n)
    }
}
