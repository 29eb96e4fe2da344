//! The matrix: each fault alone and in pairs, and the verdict that it must have in the end. `truth`
//! defines the verdicts that are allowed on the way.

use std::time::Duration;

use super::judge::Final;
use super::room::Plan;
use super::truth::{Fault, Host, World};

use Fault::{
    ClockBack, ClonedKey, GatewayCut, InLost, LanCut, LanOff, LargeLost, Lossy, NewPsk, Off, OldConfig,
    OnlyV6, OtherGatewayKey, OutLost, SiteCut, SshHung, SshKeyChanged, SshStopped, TunnelDead, TunnelHung,
    UdpBlocked, UnknownKey,
};
use Final::{Claims, Names, Open, True};
use Host::{Camera, Far, Lone, Nas, One, Printer, Three, Two};

/// Time for three attempts on a busy machine.
const SOON: Duration = Duration::from_secs(30);
/// The final verdict must not change within this time.
const HELD: Duration = Duration::from_secs(12);

/// Others of its site are heard, which excludes the site and the gateway. There is no second path,
/// so nothing distinguishes a dead tunnel, a dead line and a dead device.
const SILENT: Final = Open(&["tunnel_down", "line_lost", "device_gone"]);
/// Its Internet address is silent too, which excludes the tunnel alone.
const SILENT_TWICE: Final = Open(&["line_lost", "device_gone"]);
/// Its packets arrive, but it replies to nothing. Either probes do not arrive there, or only
/// WireGuard still works on the host.
const HEARD_ONLY: Final = Names("one_way_loss");
/// The only host of its site, or one without a site.
const SILENT_ALONE: Final = Open(&["site_uplink_lost", "tunnel_down", "line_lost", "device_gone"]);

/// One test case in a room.
#[derive(Clone, Debug)]
pub struct Cell {
    pub name: String,
    pub plan: Plan,
    /// Each fault with its time since the first.
    pub faults: Vec<(Duration, Fault)>,
    /// The final verdicts; hosts that are not named must have `ok`.
    pub finals: Vec<(Host, Final)>,
    /// Time since the last fault by which the final verdict must be reached.
    pub within: Duration,
    pub at_most_messages: Option<usize>,
    /// Time since the first fault at which a check of a host is requested.
    pub check_now: Option<(Duration, Host)>,
    /// Part of the short run before each change is merged.
    pub short: bool,
}

impl Cell {
    fn of(name: &str, faults: &[Fault], finals: &[(Host, Final)]) -> Cell {
        Cell {
            name: name.to_owned(),
            plan: Plan::default(),
            faults: faults.iter().map(|fault| (Duration::ZERO, *fault)).collect(),
            finals: finals.to_vec(),
            within: SOON,
            at_most_messages: None,
            check_now: None,
            short: false,
        }
    }

    fn direct(mut self) -> Cell {
        self.plan.direct = true;
        self
    }

    fn lan(mut self) -> Cell {
        self.plan.lan = true;
        self
    }

    fn without_anchors(mut self) -> Cell {
        self.plan.no_anchors = true;
        self
    }

    fn within(mut self, seconds: u64) -> Cell {
        self.within = Duration::from_secs(seconds);
        self
    }

    fn messages(mut self, most: usize) -> Cell {
        self.at_most_messages = Some(most);
        self
    }

    fn then(mut self, after_s: u64, fault: Fault) -> Cell {
        self.faults.push((Duration::from_secs(after_s), fault));
        self
    }

    fn check_now(mut self, after_s: u64, host: Host) -> Cell {
        self.check_now = Some((Duration::from_secs(after_s), host));
        self
    }

    fn short(mut self) -> Cell {
        self.short = true;
        self
    }

    /// Returns the time from the first fault until all are repaired.
    pub fn lasts(&self) -> Duration {
        let last = self.faults.iter().map(|(after, _)| *after).max().unwrap_or_default();
        last + self.within + HELD
    }

    /// Returns whether a fault affects this host, or a verdict is expected for it.
    pub fn is_about(&self, host: Host) -> bool {
        let faults: Vec<Fault> = self.faults.iter().map(|(_, fault)| *fault).collect();
        let says = World { faults: &faults, direct: self.plan.direct }.says(host);
        !says.listed.is_empty() || self.finals.iter().any(|(named, _)| *named == host)
    }
}

/// Returns all cells; those of the short run are marked.
pub fn all() -> Vec<Cell> {
    [devices(), keys(), services(), places(), pairs()].concat()
}

fn devices() -> Vec<Cell> {
    vec![
        Cell::of("off", &[Off(One)], &[(One, SILENT)]),
        Cell::of("off, with a second path", &[Off(One)], &[(One, SILENT_TWICE)]).direct(),
        Cell::of("sends in vain", &[OutLost(One)], &[(One, SILENT)]),
        Cell::of("sends in vain, second path", &[OutLost(One)], &[(One, SILENT_TWICE)]).direct(),
        Cell::of("hears nothing", &[InLost(One)], &[(One, HEARD_ONLY)]),
        Cell::of("hears nothing, second path", &[InLost(One)], &[(One, HEARD_ONLY)]).direct(),
        Cell::of(
            "hears nothing for four minutes",
            &[InLost(One)],
            &[(One, Open(&["key_refused", "one_way_loss"]))],
        )
        .within(230),
        Cell::of("UDP blocked", &[UdpBlocked(One)], &[(One, SILENT)]),
        Cell::of("UDP blocked, second path", &[UdpBlocked(One)], &[(One, Claims("tunnel_down"))])
            .direct()
            .short(),
        Cell::of("lossy", &[Lossy(One)], &[(One, True)]).within(60),
        Cell::of(
            "lossy, with hosts behind",
            &[Lossy(One)],
            &[(One, True), (Camera, True), (Nas, True), (Printer, True)],
        )
        .lan()
        .within(60),
        Cell::of("WireGuard ended", &[TunnelDead(One)], &[(One, SILENT)]),
        Cell::of("WireGuard ended, second path", &[TunnelDead(One)], &[(One, Claims("tunnel_down"))])
            .direct()
            .short(),
        Cell::of("WireGuard hangs", &[TunnelHung(One)], &[(One, SILENT)]),
        Cell::of("WireGuard hangs, second path", &[TunnelHung(One)], &[(One, Claims("tunnel_down"))])
            .direct()
            .short(),
        Cell::of("check now, dead session", &[UdpBlocked(One)], &[(One, SILENT)]).check_now(25, One),
        Cell::of("check now at once", &[TunnelDead(One)], &[(One, Claims("tunnel_down"))])
            .direct()
            .check_now(3, One),
    ]
}

fn keys() -> Vec<Cell> {
    let refused = [(One, Claims("key_refused"))];
    vec![
        Cell::of("another preshared key", &[NewPsk(One)], &refused).within(60),
        Cell::of("another preshared key, second path", &[NewPsk(One)], &refused).direct().within(60),
        Cell::of("the replaced key", &[OldConfig(One)], &refused).within(60),
        Cell::of("the replaced key, second path", &[OldConfig(One)], &refused).direct().within(60),
        Cell::of("a key nobody knows", &[UnknownKey(One)], &[(One, SILENT)]),
        Cell::of("a key nobody knows, second path", &[UnknownKey(One)], &[(One, Claims("tunnel_down"))])
            .direct(),
        Cell::of("another gateway's key", &[OtherGatewayKey(One)], &[(One, SILENT)]),
        Cell::of(
            "another gateway's key, second path",
            &[OtherGatewayKey(One)],
            &[(One, Claims("tunnel_down"))],
        )
        .direct()
        .short(),
        Cell::of("clock a day back", &[ClockBack(One)], &[(One, Claims("clock_wrong"))]).within(60).short(),
        Cell::of("clock a day back, second path", &[ClockBack(One)], &[(One, Claims("clock_wrong"))])
            .direct()
            .within(60),
        Cell::of("a cloned key", &[ClonedKey(One)], &[(One, Claims("probable_cloned_key"))]).within(90),
    ]
}

fn services() -> Vec<Cell> {
    vec![
        Cell::of("sshd stopped", &[SshStopped(One)], &[(One, Claims("service_problem"))]).short(),
        Cell::of("sshd hangs", &[SshHung(One)], &[(One, Claims("service_hung"))]).short(),
        Cell::of("another host key", &[SshKeyChanged(One)], &[(One, Claims("service_problem"))]).short(),
        Cell::of("large packets lost", &[LargeLost(One)], &[(One, Claims("path_mtu"))]),
        Cell::of("large packets lost, second path", &[LargeLost(One)], &[(One, Claims("path_mtu"))]).direct(),
        Cell::of("IPv6 alone inside", &[OnlyV6(One)], &[]),
    ]
}

fn places() -> Vec<Cell> {
    let cut = [
        (One, Claims("site_uplink_lost")),
        (Two, Claims("site_uplink_lost")),
        (Three, Claims("site_uplink_lost")),
    ];
    let behind = |word| [(Camera, word), (Nas, word), (Printer, word)];
    let parent = behind(Claims("parent_down"));
    let lost = Claims("gateway_uplink_lost");
    let all = [(One, lost), (Two, lost), (Three, lost), (Far, lost), (Lone, lost)];
    vec![
        Cell::of("site cut", &[SiteCut], &cut).messages(1).short(),
        Cell::of("site cut, hosts behind", &[SiteCut], &[&cut[..], &parent].concat()).lan().messages(1),
        Cell::of("tunnel dead, hosts behind", &[TunnelDead(One)], &[&[(One, SILENT)], &parent[..]].concat())
            .lan()
            .messages(1),
        Cell::of(
            "tunnel dead, behind, second path",
            &[TunnelDead(One)],
            &[&[(One, Claims("tunnel_down"))], &parent[..]].concat(),
        )
        .direct()
        .lan()
        .messages(1),
        Cell::of(
            "tunnel hangs, behind, second path",
            &[TunnelHung(One)],
            &[&[(One, Claims("tunnel_down"))], &parent[..]].concat(),
        )
        .direct()
        .lan(),
        Cell::of("device off, hosts behind", &[Off(One)], &[&[(One, SILENT)], &parent[..]].concat())
            .lan()
            .messages(1),
        Cell::of(
            "hears nothing, hosts behind",
            &[InLost(One)],
            &[&[(One, HEARD_ONLY)], &parent[..]].concat(),
        )
        .lan()
        .messages(1),
        Cell::of("local network cut", &[LanCut], &behind(Claims("local_network_lost"))).lan().messages(1),
        Cell::of("host behind off", &[LanOff(Camera)], &[(Camera, SILENT_TWICE)]).lan(),
        Cell::of("gateway cut", &[GatewayCut], &all).within(60),
        Cell::of("gateway cut, hosts behind", &[GatewayCut], &[&all[..], &behind(lost)].concat())
            .lan()
            .within(60),
        Cell::of("gateway cut, nobody to ask", &[GatewayCut], &all).without_anchors().within(60).short(),
        Cell::of("two unrelated off", &[Off(Far), Off(Lone)], &[(Far, SILENT_ALONE), (Lone, SILENT_ALONE)]),
        Cell::of(
            "two unrelated off, nobody to ask",
            &[Off(Far), Off(Lone)],
            &[(Far, SILENT_ALONE), (Lone, SILENT_ALONE)],
        )
        .without_anchors(),
        Cell::of(
            "three unrelated off",
            &[Off(One), Off(Far), Off(Lone)],
            &[(One, SILENT), (Far, SILENT_ALONE), (Lone, SILENT_ALONE)],
        ),
    ]
}

fn pairs() -> Vec<Cell> {
    let behind = |word| [(Camera, word), (Nas, word), (Printer, word)];
    let parent = behind(Claims("parent_down"));
    let hill = [
        (One, Claims("site_uplink_lost")),
        (Two, Claims("site_uplink_lost")),
        (Three, Claims("site_uplink_lost")),
    ];
    vec![
        Cell::of("UDP blocked + sshd stopped", &[UdpBlocked(One), SshStopped(One)], &[(One, True)]).direct(),
        Cell::of("UDP blocked + sshd hangs", &[UdpBlocked(One), SshHung(One)], &[(One, True)]).direct(),
        Cell::of(
            "UDP blocked + replaced key",
            &[UdpBlocked(One), OldConfig(One)],
            &[(One, Claims("tunnel_down"))],
        )
        .direct(),
        Cell::of("preshared key + sshd hangs", &[NewPsk(One), SshHung(One)], &[(One, Claims("key_refused"))])
            .direct()
            .within(60),
        Cell::of("preshared key + lossy", &[NewPsk(One), Lossy(One)], &[(One, True)]).within(60),
        Cell::of(
            "preshared key + large lost",
            &[NewPsk(One), LargeLost(One)],
            &[(One, Claims("key_refused"))],
        )
        .within(60),
        Cell::of(
            "preshared key + clock of another",
            &[NewPsk(One), ClockBack(Two)],
            &[(One, Claims("key_refused")), (Two, Claims("clock_wrong"))],
        )
        .within(60),
        Cell::of(
            "clock back + sshd stopped",
            &[ClockBack(One), SshStopped(One)],
            &[(One, Claims("clock_wrong"))],
        )
        .direct()
        .within(60)
        .short(),
        Cell::of(
            "replaced key + another off",
            &[OldConfig(One), Off(Two)],
            &[(One, Claims("key_refused")), (Two, SILENT)],
        )
        .within(60),
        Cell::of("cloned key + lossy", &[ClonedKey(One), Lossy(One)], &[(One, True)]).within(90),
        Cell::of("sends in vain + another off", &[OutLost(One), Off(Two)], &[(One, SILENT), (Two, SILENT)]),
        Cell::of(
            "hears nothing + another off",
            &[InLost(One), Off(Two)],
            &[(One, HEARD_ONLY), (Two, SILENT)],
        ),
        Cell::of(
            "sends in vain + hears nothing",
            &[OutLost(One), InLost(Two)],
            &[(One, SILENT), (Two, HEARD_ONLY)],
        ),
        Cell::of("lossy + another off", &[Lossy(One), Off(Two)], &[(One, True), (Two, SILENT)]),
        Cell::of("lossy + sshd hangs", &[Lossy(One), SshHung(One)], &[(One, True)]).within(60),
        Cell::of(
            "IPv6 alone + sshd stopped",
            &[OnlyV6(One), SshStopped(One)],
            &[(One, Claims("service_problem"))],
        ),
        Cell::of("IPv6 alone + sshd hangs", &[OnlyV6(One), SshHung(One)], &[(One, Claims("service_hung"))]),
        Cell::of("IPv6 alone + large lost", &[OnlyV6(One), LargeLost(One)], &[(One, Claims("path_mtu"))]),
        Cell::of("large lost + sshd hangs", &[LargeLost(One), SshHung(One)], &[(One, True)]),
        Cell::of(
            "large lost + another off",
            &[LargeLost(One), Off(Two)],
            &[(One, Claims("path_mtu")), (Two, SILENT)],
        ),
        Cell::of(
            "tunnel dead + host behind off",
            &[TunnelDead(One), LanOff(Camera)],
            &[&[(One, SILENT)], &parent[..]].concat(),
        )
        .lan(),
        Cell::of(
            "tunnel dead + another lossy",
            &[TunnelDead(One), Lossy(Two)],
            &[&[(One, SILENT), (Two, True)], &parent[..]].concat(),
        )
        .lan(),
        Cell::of(
            "network behind cut + sshd hangs",
            &[LanCut, SshHung(One)],
            &[&[(One, Claims("service_hung"))], &behind(Claims("local_network_lost"))[..]].concat(),
        )
        .lan(),
        Cell::of("network behind cut, then tunnel", &[LanCut], &[&[(One, SILENT)], &parent[..]].concat())
            .lan()
            .then(20, TunnelDead(One)),
        Cell::of(
            "site cut + another off",
            &[SiteCut, Off(Far)],
            &[&hill[..], &[(Far, SILENT_ALONE)]].concat(),
        ),
        Cell::of("off, then its site cut", &[Off(One)], &[(One, True), (Two, True), (Three, True)])
            .then(20, SiteCut),
        Cell::of(
            "gateway cut + one off",
            &[GatewayCut, Off(Far)],
            &[(One, Claims("gateway_uplink_lost")), (Two, True), (Three, True), (Far, True), (Lone, True)],
        )
        .within(60),
        Cell::of(
            "off, then the gateway cut",
            &[Off(Far)],
            &[(Far, True), (One, True), (Two, True), (Three, True), (Lone, True)],
        )
        .then(20, GatewayCut)
        .within(60),
    ]
}
