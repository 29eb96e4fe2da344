//! A forwarder with many grants and flows, for measurements. The caller measures the time.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::{Config, Forwarder, Limits, Outcome};
use crate::id::{Id, PeerId};
use crate::messages::{
    Gate, GrantAccess, GrantProtocol, GrantRole, GrantSource, GrantSpec, GrantTarget, PolicyChange,
    SourceOwner, SourceSpec, TargetAddress, TargetId, TargetSpec,
};
use crate::time::{Mono, Now, Wall};

/// Sources and devices, each. Every pair may have flows.
const PEERS: u32 = 64;

/// The gateway does its due work once for so many packets.
const BATCH: usize = 32;

pub struct Load {
    forwarder: Forwarder,
    /// Packets of the active flows in both directions, with their senders.
    templates: Vec<(PeerId, Vec<u8>)>,
    buffer: Vec<u8>,
    next: usize,
    now: Now,
}

fn source_id(n: u32) -> PeerId {
    Id::from_i64(1_000 + i64::from(n))
}

fn device_id(n: u32) -> PeerId {
    Id::from_i64(2_000 + i64::from(n))
}

fn source_address(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0100 + n)
}

fn device_address(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0200 + n)
}

impl Load {
    /// Returns a forwarder with this many grants and UDP flows. Packets of `size` bytes go through
    /// `active` of the flows in turn, half of them replies.
    pub fn new(grants: usize, flows: usize, active: usize, size: usize) -> Load {
        let config = Config {
            gateway_v4: Ipv4Addr::new(10, 0, 0, 1),
            gateway_v6: 1.into(),
            limits: Limits::default(),
        };
        let now = Now { mono: Mono::from_secs(1_000), wall: Wall::from_millis(1_780_000_000_000) };
        let forwarder = Forwarder::new(config);
        let mut load = Load { forwarder, templates: Vec::new(), buffer: vec![0; size], next: 0, now };
        load.add_peers();
        (0..grants).for_each(|n| load.add_grant(n));
        for n in 0..flows {
            let is_active = n % (flows / active.max(1)).max(1) == 0;
            load.open(n as u32, size, is_active);
        }
        load
    }

    fn change(&mut self, change: PolicyChange) {
        self.forwarder.change(change, self.now);
    }

    fn add_peers(&mut self) {
        for n in 0..PEERS {
            self.forwarder.set_mtu(source_id(n), 1_420);
            self.forwarder.set_mtu(device_id(n), 1_420);
            self.change(PolicyChange::Source(SourceSpec {
                peer: source_id(n),
                owner: SourceOwner::User { user: source_id(n), role: Some(GrantRole::Operator) },
                addresses: [source_address(n).into()].into(),
            }));
            let address: IpAddr = device_address(n).into();
            self.change(PolicyChange::Target(TargetSpec {
                id: TargetId::Host(device_id(n)),
                host: device_id(n),
                name: format!("device-{n}"),
                peer: device_id(n),
                behind: false,
                labels: BTreeMap::from([("site".to_owned(), n.to_string())]),
                addresses: vec![TargetAddress { reached_at: address, real: address }],
            }));
        }
    }

    /// The first grant permits all flows for a day; the others stand beside it.
    fn add_grant(&mut self, n: usize) {
        let peer = n as u32 % PEERS;
        let (source, target) = match n {
            0 => (GrantSource::Role(GrantRole::Operator), GrantTarget::AllDevices),
            n if n % 2 == 0 => {
                (GrantSource::User(source_id(peer)), GrantTarget::Host(Id::from_i64(n as i64)))
            }
            n => {
                let rental = [("site".to_owned(), peer.to_string()), ("rental".to_owned(), n.to_string())];
                (GrantSource::Peer(source_id(peer)), GrantTarget::Labels(rental.into()))
            }
        };
        let access = vec![GrantAccess { protocol: GrantProtocol::Udp, ports: vec![1..=65_535] }];
        let until = Some(self.now.wall + Duration::from_secs(86_400 + n as u64));
        let id = Id::from_i64(10_000 + n as i64);
        let (from, only, gate) = (None, None, Gate::default());
        self.change(PolicyChange::Grant(GrantSpec { id, source, target, access, from, until, only, gate }));
    }

    fn open(&mut self, n: u32, size: usize, is_active: bool) {
        let (source, device, port) = (n % PEERS, n / PEERS % PEERS, 1_024 + (n / PEERS / PEERS) as u16);
        let there = udp(source_address(source), device_address(device), (port, 53), size);
        let back = udp(device_address(device), source_address(source), (53, port), size);
        for (sender, template) in [(source_id(source), there), (device_id(device), back)] {
            self.buffer.copy_from_slice(&template);
            self.forwarder.packet(sender, &mut self.buffer, self.now);
            if is_active {
                self.templates.push((sender, template));
            }
        }
    }

    /// Hands in packets, one each microsecond, and does the due work. Returns how many passed.
    pub fn forward(&mut self, packets: usize) -> usize {
        let mut passed = 0;
        for n in 0..packets {
            let Some((sender, template)) = self.templates.get(self.next) else { return passed };
            self.next = (self.next + 1) % self.templates.len();
            self.buffer.copy_from_slice(template);
            let step = Duration::from_micros(1);
            self.now = Now { mono: self.now.mono + step, ..self.now };
            let outcome = self.forwarder.packet(*sender, &mut self.buffer, self.now);
            passed += usize::from(matches!(outcome, Outcome::Forward { .. }));
            if n % BATCH == 0 {
                while self.forwarder.work(self.now).is_some() {}
            }
        }
        passed
    }

    pub fn flows(&self) -> usize {
        self.forwarder.totals().flows
    }
}

/// A UDP packet of `size` bytes without a checksum of its own.
fn udp(src: Ipv4Addr, dst: Ipv4Addr, (src_port, dst_port): (u16, u16), size: usize) -> Vec<u8> {
    let mut out = vec![0x45, 0];
    out.extend((size as u16).to_be_bytes());
    out.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    out.extend(src.octets());
    out.extend(dst.octets());
    let sum = super::checksum::checksum(&[&out]);
    out[10..12].copy_from_slice(&sum.to_be_bytes());
    out.extend(src_port.to_be_bytes());
    out.extend(dst_port.to_be_bytes());
    out.extend((size as u16).saturating_sub(20).to_be_bytes());
    out.resize(size, 0);
    out
}
