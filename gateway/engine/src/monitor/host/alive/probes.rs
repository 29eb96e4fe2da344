//! The probes of a host check, and which probe goes where.
//!
//! It does not know which of them is sent when, nor what a reply means.

use std::net::IpAddr;
use std::time::Duration;

use crate::messages::{HostKey, Probe, Route, SshRun};
use crate::monitor::host::allowed_silence::AllowedSilence;
use crate::monitor::paths::{Paths, Via};
use crate::time::Mono;

/// One reply is enough as proof.
const ECHOES: u8 = 1;

/// The probes of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostProbe {
    Evidence,
    Echo,
    Connect,
    /// The same probes at the inner address of the other family.
    OtherEcho,
    OtherConnect,
    Handshake,
    Direct,
}

/// The parameters of a host check.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Only evidence newer than this makes probes unnecessary.
    pub newer_than: Mono,
    /// Packets before this came under another key.
    pub keyed_at: Mono,
    /// How long the host may be silent while it is up.
    pub rhythm: AllowedSilence,
    /// Whether an operator waits for the check.
    pub demanded: bool,
    /// Since when probes get no reply while packets arrive. Probes are then sent even if there is
    /// evidence.
    pub vain_since: Option<Mono>,
    /// Whether an echo is likely to get a reply; it is then sent alone first.
    pub echo_first: bool,
    /// Whether the peer may be dialled now.
    pub may_dial: bool,
    /// Whether its tunnel has ever carried a packet; before that, the peer cannot be dialled.
    pub came: bool,
    /// The TCP port to probe.
    pub port: u16,
    /// The timeout of the whole check.
    pub timeout: Duration,
    /// The host's SSH key, if `port` is that of SSH.
    pub pin: Option<HostKey>,
    pub paths: Paths,
}

impl Rules {
    /// Builds a probe. If the host key is known through a tunnel, the public address must present
    /// the same key, because another machine may have that address by now.
    pub(super) fn probe(&self, asked: HostProbe) -> Option<Probe> {
        let Rules { port, paths, pin, .. } = self;
        let port = *port;
        Some(match asked {
            HostProbe::Evidence => Probe::Evidence { peer: paths.peer? },
            HostProbe::Handshake => Probe::Handshake { peer: paths.peer? },
            HostProbe::Echo => {
                let (peer, address) = paths.inner?;
                Probe::Echo { peer, address, count: ECHOES }
            }
            HostProbe::OtherEcho => Probe::Echo { peer: paths.peer?, address: paths.other?, count: ECHOES },
            HostProbe::Connect => Probe::Connect { route: paths.route(Via::Tunnel)?, port },
            HostProbe::OtherConnect => {
                let route = Route::Tunnel { peer: paths.peer?, address: paths.other? };
                Probe::Connect { route, port }
            }
            HostProbe::Direct => {
                let route = paths.route(Via::Direct)?;
                match pin.clone().filter(|_| paths.own) {
                    Some(pin) => Probe::Ssh { route, port, connect: self.timeout, run: key_only(pin) },
                    None => Probe::Connect { route, port },
                }
            }
        })
    }

    /// Returns the inner address of a probe.
    pub(super) fn address(&self, asked: HostProbe) -> Option<IpAddr> {
        match asked {
            HostProbe::Echo | HostProbe::Connect => self.paths.address(),
            HostProbe::OtherEcho | HostProbe::OtherConnect => self.paths.other,
            HostProbe::Evidence | HostProbe::Handshake | HostProbe::Direct => None,
        }
    }

    /// Returns the address for a text, if the host has two inner addresses.
    pub(super) fn at(&self, asked: HostProbe) -> String {
        let named = self.paths.other.and(self.address(asked));
        named.map(|address| format!(" at {address}")).unwrap_or_default()
    }
}

/// An SSH run that ends after the key exchange, which proves the identity of the host.
fn key_only(pin: HostKey) -> SshRun {
    SshRun { pin: Some(pin), learn: false, user: None, commands: Vec::new() }
}
