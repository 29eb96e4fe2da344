//! The truth about each host of a room while faults last, and the verdicts that it allows.
//!
//! This is a naive model written from docs/operations.md. It shares no code with the gateway.

use std::time::Duration;

/// The hosts of a room. `One`, `Two` and `Three` share the site `hill`; `Camera`, `Nas` and
/// `Printer` are behind `One`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    One,
    Two,
    Three,
    Far,
    Lone,
    Camera,
    Nas,
    Printer,
}

use Host::{Camera, Far, Lone, Nas, One, Printer, Three, Two};

impl Host {
    pub const DEVICES: [Host; 5] = [One, Two, Three, Far, Lone];
    pub const HILL: [Host; 3] = [One, Two, Three];
    pub const BEHIND: [Host; 3] = [Camera, Nas, Printer];

    pub const fn name(self) -> &'static str {
        match self {
            One => "one",
            Two => "two",
            Three => "three",
            Far => "far",
            Lone => "lone",
            Camera => "camera",
            Nas => "nas",
            Printer => "printer",
        }
    }

    pub fn named(name: &str) -> Option<Host> {
        Host::DEVICES.into_iter().chain(Host::BEHIND).find(|host| host.name() == name)
    }

    /// Returns the device whose tunnel leads to the host.
    pub const fn device(self) -> Host {
        match self {
            Camera | Nas | Printer => One,
            device => device,
        }
    }

    pub fn is_device(self) -> bool {
        self.device() == self
    }
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No power.
    Off(Host),
    /// All packets that it sends are lost.
    OutLost(Host),
    /// All packets to it are lost.
    InLost(Host),
    /// The same for longer than a session lives: only its handshakes still arrive.
    Unanswered(Host),
    /// No UDP between it and the gateway.
    UdpBlocked(Host),
    /// Three of ten packets are lost, both ways.
    Lossy(Host),
    /// Reinstalled with another preshared key, at another port.
    NewPsk(Host),
    /// New credentials were made, but it keeps the old ones.
    OldConfig(Host),
    /// Reinstalled with a key that the gateway never saw.
    UnknownKey(Host),
    /// Its configuration has another gateway's public key.
    OtherGatewayKey(Host),
    /// Its clock is a day behind the newest handshake.
    ClockBack(Host),
    /// Another machine elsewhere has the same configuration.
    ClonedKey(Host),
    /// Its WireGuard has ended.
    TunnelDead(Host),
    /// Its WireGuard hangs.
    TunnelHung(Host),
    SshStopped(Host),
    SshHung(Host),
    SshKeyChanged(Host),
    /// Packets above 400 bytes are lost, both ways.
    LargeLost(Host),
    /// It uses only its inner IPv6 address.
    OnlyV6(Host),
    /// The uplink of the site `hill` is cut.
    SiteCut,
    /// The network behind `one` is cut.
    LanCut,
    /// A host behind `one` is off.
    LanOff(Host),
    GatewayCut,
}

use Fault::{
    ClockBack, ClonedKey, GatewayCut, InLost, LanCut, LanOff, LargeLost, Lossy, NewPsk, Off, OldConfig,
    OnlyV6, OtherGatewayKey, OutLost, SiteCut, SshHung, SshKeyChanged, SshStopped, TunnelDead, TunnelHung,
    UdpBlocked, Unanswered, UnknownKey,
};

impl Fault {
    /// Returns the host with the fault; `None`: the fault affects several.
    pub const fn on(self) -> Option<Host> {
        match self {
            Off(host)
            | OutLost(host)
            | InLost(host)
            | Unanswered(host)
            | UdpBlocked(host)
            | Lossy(host)
            | NewPsk(host)
            | OldConfig(host)
            | UnknownKey(host)
            | OtherGatewayKey(host)
            | ClockBack(host)
            | ClonedKey(host)
            | TunnelDead(host)
            | TunnelHung(host)
            | SshStopped(host)
            | SshHung(host)
            | SshKeyChanged(host)
            | LargeLost(host)
            | OnlyV6(host)
            | LanOff(host) => Some(host),
            SiteCut | LanCut | GatewayCut => None,
        }
    }

    /// Returns whether the fault blocks all packets between the device and the gateway in this
    /// direction.
    fn cuts(self, device: Host, way: Way) -> bool {
        match self {
            Off(host) => host == device,
            OutLost(host) => host == device && way == Way::Out,
            InLost(host) | Unanswered(host) => host == device && way == Way::In,
            SiteCut => Host::HILL.contains(&device),
            GatewayCut => true,
            _ => false,
        }
    }

    /// Returns whether the fault prevents a tunnel even with a working line.
    fn ends_tunnel(self, device: Host) -> bool {
        let on = match self {
            Off(host)
            | NewPsk(host)
            | OldConfig(host)
            | UnknownKey(host)
            | OtherGatewayKey(host)
            | ClockBack(host)
            | TunnelDead(host)
            | TunnelHung(host)
            | UdpBlocked(host) => host,
            _ => return false,
        };
        on == device
    }

    fn ends_ssh(self, device: Host) -> bool {
        match self {
            Off(host) | SshStopped(host) | SshHung(host) | SshKeyChanged(host) | LargeLost(host) => {
                host == device
            }
            _ => false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Out,
    In,
}

/// How far the gateway can reach a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// It replies on at least one path, so it is not down.
    Answers,
    /// Its authentic packets arrive, even if ours do not: it is alive, and not down.
    Heard,
    /// It is alive while the gateway itself is cut off, so it is not down either.
    Unseen,
    Nothing,
}

/// The faults at one moment, in a room where `One` may have an Internet address.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    pub faults: &'a [Fault],
    pub direct: bool,
}

impl World<'_> {
    fn any(&self, fault: impl Fn(Fault) -> bool) -> bool {
        self.faults.iter().any(|f| fault(*f))
    }

    /// Returns whether packets of a new session can pass both ways.
    pub fn has_tunnel(&self, device: Host) -> bool {
        !self.any(|f| f.cuts(device, Way::In) || f.cuts(device, Way::Out) || f.ends_tunnel(device))
    }

    fn is_heard(&self, device: Host) -> bool {
        !self.any(|f| f.cuts(device, Way::Out) || f.ends_tunnel(device) || f == Unanswered(device))
    }

    fn answers_directly(&self, device: Host) -> bool {
        let cut = |f: Fault| f.cuts(device, Way::In) || f.cuts(device, Way::Out) || f.ends_ssh(device);
        self.direct && device == One && !self.any(cut)
    }

    pub fn reach(&self, host: Host) -> Reach {
        let rest: Vec<Fault> = self.faults.iter().copied().filter(|f| *f != GatewayCut).collect();
        let alone = World { faults: &rest, ..*self }.reach_beside_the_gateway(host);
        match self.any(|f| f == GatewayCut) {
            true if alone != Reach::Nothing => Reach::Unseen,
            _ => alone,
        }
    }

    /// Returns the reach that the host would have with a working uplink of the gateway.
    fn reach_beside_the_gateway(&self, host: Host) -> Reach {
        let device = host.device();
        if !host.is_device() {
            let there = self.has_tunnel(device) && !self.any(|f| f == LanCut || f == LanOff(host));
            return if there { Reach::Answers } else { Reach::Nothing };
        }
        match (self.has_tunnel(device) || self.answers_directly(device), self.is_heard(device)) {
            (true, _) => Reach::Answers,
            (false, true) => Reach::Heard,
            (false, false) => Reach::Nothing,
        }
    }

    /// Returns the verdicts that are allowed for the host.
    pub fn says(&self, host: Host) -> Says {
        let mut says = Says::default();
        for fault in self.faults {
            says.add(*fault, host);
        }
        says
    }
}

/// The verdicts that are allowed for one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Says {
    /// Kinds that are true and may be claimed.
    pub claims: Vec<&'static str>,
    /// A list of candidates must contain at least one of these.
    pub listed: Vec<&'static str>,
    /// Time after the fault began from which `ok` is wrong. `None`: it stays right.
    pub found_within: Option<Duration>,
}

/// Time for three attempts on a busy machine.
const FOUND: Duration = Duration::from_secs(30);
/// Without anchors the gateway needs thirty seconds of silence from all.
const FOUND_OF_ALL: Duration = Duration::from_secs(60);
/// WireGuard must try again first: every five seconds, after fifteen without a reply.
const FOUND_BY_HANDSHAKES: Duration = Duration::from_secs(60);
/// Time after which the device gives up a dead session.
const FOUND_BY_TURNS: Duration = Duration::from_secs(75);

/// The kinds of a fault of the device's own line, in one direction or both.
const LINE: &[&str] = &["line_lost", "one_way_loss"];

impl Says {
    fn add(&mut self, fault: Fault, host: Host) {
        let Some((claims, listed, within)) = said_of(fault, host) else { return };
        self.claims.extend(claims);
        self.listed.extend(listed);
        self.found_within = match (self.found_within, within) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
}

type Said = (&'static [&'static str], &'static [&'static str], Option<Duration>);

/// Returns the allowed claims for the host while the fault lasts, the required candidates, and the
/// time to find it. `None`: the fault does not affect this host.
fn said_of(fault: Fault, host: Host) -> Option<Said> {
    let behind = !host.is_device();
    match fault {
        GatewayCut if behind => said(&["gateway_uplink_lost", "parent_down"], FOUND_OF_ALL),
        GatewayCut => said(&["gateway_uplink_lost"], FOUND_OF_ALL),
        SiteCut if behind => said(&["parent_down"], FOUND),
        SiteCut => Host::HILL.contains(&host).then(|| said(&["site_uplink_lost"], FOUND))?,
        LanCut => behind.then(|| said(&["local_network_lost"], FOUND))?,
        LanOff(off) => (off == host).then(|| said(&["device_gone"], FOUND))?,
        fault if fault.on() == Some(host) => Some(said_of_device(fault)),
        // Hosts behind a device share the state of its tunnel.
        fault if behind && fault.on() == Some(One) => said_behind(fault),
        _ => None,
    }
}

/// Returns a result whose allowed claims are also the required candidates.
fn said(kinds: &'static [&'static str], within: Duration) -> Option<Said> {
    Some((kinds, kinds, Some(within)))
}

fn said_of_device(fault: Fault) -> Said {
    match fault {
        Off(_) => (&["device_gone"], &["device_gone"], Some(FOUND)),
        OutLost(_) | InLost(_) | Unanswered(_) => (LINE, LINE, Some(FOUND)),
        UdpBlocked(_) | TunnelDead(_) | TunnelHung(_) => (&["tunnel_down"], &["tunnel_down"], Some(FOUND)),
        // It is also true that its tunnel alone is down, while the reason is not known yet.
        NewPsk(_) | OldConfig(_) => {
            (&["key_refused", "tunnel_down"], &["key_refused"], Some(FOUND_BY_HANDSHAKES))
        }
        UnknownKey(_) | OtherGatewayKey(_) => {
            (&["key_refused", "tunnel_down"], &["key_refused", "tunnel_down"], Some(FOUND))
        }
        ClockBack(_) => (&["clock_wrong", "tunnel_down"], &["clock_wrong"], Some(FOUND_BY_HANDSHAKES)),
        ClonedKey(_) => (&["probable_cloned_key"], &["probable_cloned_key"], Some(FOUND_BY_TURNS)),
        SshHung(_) => (&["service_hung"], &["service_hung"], Some(FOUND)),
        SshStopped(_) | SshKeyChanged(_) => (&["service_problem"], &["service_problem"], Some(FOUND)),
        LargeLost(_) => (&["path_mtu"], &["path_mtu"], Some(FOUND)),
        Lossy(_) => LOSSY,
        OnlyV6(_) => (&[], &[], None),
        SiteCut | LanCut | LanOff(_) | GatewayCut => unreachable!("of several hosts"),
    }
}

/// Some attempts fail, and a service may report that.
const LOSSY: Said = (&["packet_loss", "service_problem"], &["packet_loss", "service_problem"], None);

fn said_behind(fault: Fault) -> Option<Said> {
    match fault {
        Lossy(_) => Some(LOSSY),
        fault if fault.ends_tunnel(One) || fault.cuts(One, Way::In) || fault.cuts(One, Way::Out) => {
            said(&["parent_down"], FOUND)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(faults: &[Fault], direct: bool) -> World<'_> {
        World { faults, direct }
    }

    #[test]
    fn a_dead_tunnel_cuts_off_what_stands_behind_and_not_a_device_that_answers_directly() {
        let faults = [TunnelDead(One)];
        assert_eq!(world(&faults, true).reach(One), Reach::Answers);
        assert_eq!(world(&faults, true).reach(Camera), Reach::Nothing);
        assert_eq!(world(&faults, false).reach(One), Reach::Nothing);
        assert_eq!(world(&faults, false).says(Camera).claims, ["parent_down"]);
        assert_eq!(world(&faults, false).says(Two), Says::default());
    }

    #[test]
    fn a_device_whose_packets_come_is_alive() {
        assert_eq!(world(&[InLost(One)], false).reach(One), Reach::Heard);
        assert_eq!(world(&[OutLost(One)], false).reach(One), Reach::Nothing);
        assert_eq!(world(&[Unanswered(One)], false).reach(One), Reach::Nothing);
        assert_eq!(world(&[InLost(One)], false).reach(Camera), Reach::Nothing);
    }

    #[test]
    fn two_faults_together_may_hide_what_one_leaves_open() {
        assert_eq!(world(&[UdpBlocked(One), SshStopped(One)], true).reach(One), Reach::Nothing);
        let both = world(&[UdpBlocked(One), SshStopped(One)], true).says(One);
        assert_eq!(both.claims, ["tunnel_down", "service_problem"]);
    }

    #[test]
    fn nobody_is_down_while_the_gateway_is_cut_off() {
        let faults = [GatewayCut];
        for host in Host::DEVICES.into_iter().chain(Host::BEHIND) {
            assert_eq!(world(&faults, true).reach(host), Reach::Unseen);
        }
        assert_eq!(world(&[GatewayCut, Off(Far)], true).reach(Far), Reach::Nothing, "it is dead as well");
    }
}
