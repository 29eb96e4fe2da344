//! How each fault is injected into a room, and how it is repaired.

use fleetgate_keys::conf::Conf;

use serde_json::json;

use crate::attacker::{Initiator, handshake, socket_in, stamp};
use crate::lab::{WireGuard, run};

use super::room::{Room, call, net};
use super::truth::{Fault, Host};

/// The address where the gateway receives datagrams.
const GATEWAY: &str = "10.77.0.2:51820";
/// A day ahead, so that correct time is a day behind.
const AHEAD_S: i64 = 86_400;
/// The sender index of all handshake messages made here. The device's own almost certainly differs.
const SENDER: u32 = 0x00c1_0c4b;

impl<'a> Room<'a> {
    pub fn inject(&mut self, fault: Fault) {
        match fault {
            Fault::Off(device) => self.switch_off(device),
            Fault::OutLost(device) => self.lose(fault, &[format!("ip saddr {} drop", address(device))]),
            Fault::InLost(device) | Fault::Unanswered(device) => {
                self.lose(fault, &[format!("ip daddr {} drop", address(device))])
            }
            Fault::UdpBlocked(device) => {
                let address = address(device);
                self.lose(fault, &both(&address, "meta l4proto udp drop"));
            }
            Fault::Lossy(device) => {
                self.lose(fault, &both(&address(device), "numgen random mod 100 < 30 drop"));
            }
            Fault::LargeLost(device) => self.lose(fault, &both(&address(device), "meta length > 400 drop")),
            Fault::SiteCut => {
                let rules: Vec<String> = Host::HILL.iter().flat_map(|d| both(&address(*d), "drop")).collect();
                self.lose(fault, &rules);
            }
            Fault::GatewayCut => self.lose(fault, &both("10.77.0.2", "drop")),
            Fault::LanCut => drop(self.lab.sh("one", "ip link set lan0 down")),
            Fault::LanOff(host) => {
                let address = Room::address_behind(host);
                self.lab.sh("lan", &format!("ip addr del {address}/32 dev lan1"));
            }
            Fault::TunnelDead(device) => self.tunnel(device).down(),
            Fault::TunnelHung(device) => self.tunnel(device).signal("STOP"),
            Fault::OnlyV6(device) => self.v4(device, "del"),
            Fault::SshStopped(_) => self.ssh.stop(),
            Fault::SshHung(_) => self.ssh.signal("STOP"),
            Fault::SshKeyChanged(_) => {
                self.ssh.stop();
                self.ssh.new_host_key();
                self.ssh.again();
            }
            Fault::NewPsk(device) => self.reinstall(device, |conf| with(conf, "PresharedKey", &random_key())),
            Fault::UnknownKey(device) => {
                self.reinstall(device, |conf| with(conf, "PrivateKey", run("wg", &["genkey"]).trim()));
            }
            Fault::OtherGatewayKey(device) => {
                self.reinstall(device, |conf| with(conf, "PublicKey", &random_key()));
            }
            Fault::OldConfig(device) => self.reissue(device),
            Fault::ClockBack(device) => self.clock_back(device),
            Fault::ClonedKey(device) => {
                self.copy = Some(WireGuard::up(self.lab, "alt", &self.confs[&device]));
            }
        }
    }

    pub fn heal(&mut self, fault: Fault) {
        match fault {
            Fault::Off(device) => self.switch_on(device),
            Fault::LanCut => drop(self.lab.sh("one", "ip link set lan0 up")),
            Fault::LanOff(host) => {
                let address = Room::address_behind(host);
                self.lab.sh("lan", &format!("ip addr add {address}/32 dev lan1"));
            }
            Fault::TunnelDead(device) => self.tunnel(device).start(),
            Fault::TunnelHung(device) => self.tunnel(device).signal("CONT"),
            Fault::OnlyV6(device) => self.v4(device, "add"),
            Fault::SshStopped(_) => self.ssh.again(),
            Fault::SshHung(_) => self.ssh.signal("CONT"),
            Fault::SshKeyChanged(device) => self.trust(device),
            Fault::NewPsk(device)
            | Fault::UnknownKey(device)
            | Fault::OtherGatewayKey(device)
            | Fault::OldConfig(device) => self.reinstall(device, str::to_owned),
            Fault::ClockBack(device) => {
                let path = format!("devices/{}/reset-clock", device.name());
                call(&self.api, "POST", &path, &json!({}));
            }
            // A key does not become secret again, so the device gets another one.
            Fault::ClonedKey(device) => {
                self.copy = None;
                self.reissue(device);
                self.reinstall(device, str::to_owned);
            }
            Fault::OutLost(_)
            | Fault::InLost(_)
            | Fault::Unanswered(_)
            | Fault::UdpBlocked(_)
            | Fault::Lossy(_)
            | Fault::LargeLost(_)
            | Fault::SiteCut
            | Fault::GatewayCut => self.find(fault),
        }
    }

    fn tunnel(&mut self, device: Host) -> &mut WireGuard<'a> {
        self.tunnels.get_mut(&device).expect("a device")
    }

    /// Reinstalls a device with its clean configuration, changed.
    fn reinstall(&mut self, device: Host, change: impl FnOnce(&str) -> String) {
        let conf = change(&self.confs[&device]);
        self.tunnel(device).reinstall(&conf);
    }

    /// Makes new credentials, which the device gets only when the fault is repaired.
    fn reissue(&mut self, device: Host) {
        let path = format!("devices/{}/credentials", device.name());
        let made = call(&self.api, "POST", &path, &json!({}));
        let made = made.get("credentials").unwrap_or(&made);
        let conf = made["conf"].as_str().expect("a configuration").to_owned();
        self.confs.insert(device, conf);
    }

    /// Makes a handshake a day ahead of the device's clock, so that all of its later stamps are
    /// older.
    fn clock_back(&mut self, device: Host) {
        self.tunnel(device).down();
        let conf = Conf::parse(&self.confs[&device]).expect("a configuration");
        let socket = socket_in(&self.lab.ns(device.name()), "0.0.0.0:0");
        let mut ahead = Initiator::device(&conf).initiation(stamp(AHEAD_S), SENDER);
        let gateway = GATEWAY.parse().expect("an address");
        handshake(&socket, &mut ahead, gateway).expect("a session a day ahead");
        self.tunnel(device).start();
    }

    fn v4(&mut self, device: Host, what: &str) {
        let (own, dev) = (self.tunnel(device).own_v4(), self.tunnel(device).interface.clone());
        self.lab.sh(device.name(), &format!("ip addr {what} {own}/32 dev {dev}"));
    }

    fn trust(&self, device: Host) {
        let key = std::fs::read_to_string(self.ssh.public_key_file()).expect("a public key");
        let path = format!("devices/{}/trust", device.name());
        call(&self.api, "POST", &path, &json!({"host_key": key.trim()}));
    }

    /// Drops packets that pass the router and match one of these rules.
    fn lose(&self, fault: Fault, rules: &[String]) {
        let table = table(fault);
        let add: String = rules.iter().map(|rule| format!("add rule inet {table} lost {rule}\n")).collect();
        let script = format!(
            "add table inet {table}\nadd chain inet {table} lost {{ type filter hook forward priority 0; }}\n{add}"
        );
        self.lab.sh("r", &format!("nft -f - <<'END'\n{script}END"));
    }

    /// Lets the packets pass again.
    fn find(&self, fault: Fault) {
        self.lab.sh("r", &format!("nft delete table inet {}", table(fault)));
    }

    /// Switches a device off. Its line is silent too, because no router of the Internet reports
    /// that a machine is off.
    fn switch_off(&mut self, device: Host) {
        self.lose(Fault::Off(device), &both(&address(device), "drop"));
        self.tunnel(device).down();
        if device == Host::One {
            self.ssh.stop();
        }
    }

    fn switch_on(&mut self, device: Host) {
        if device == Host::One {
            self.ssh.again();
        }
        self.tunnel(device).start();
        self.find(Fault::Off(device));
    }
}

fn address(device: Host) -> String {
    format!("10.77.{}.2", net(device))
}

fn both(address: &str, rule: &str) -> Vec<String> {
    vec![format!("ip saddr {address} {rule}"), format!("ip daddr {address} {rule}")]
}

/// Returns this fault's own name for nft.
fn table(fault: Fault) -> String {
    format!("{fault:?}").replace(['(', ')'], "_").to_lowercase()
}

fn random_key() -> String {
    run("wg", &["genpsk"]).trim().to_owned()
}

/// Returns the configuration with another value under this key.
fn with(conf: &str, key: &str, value: &str) -> String {
    let changed = |line: &str| match line.split_once('=') {
        Some((name, _)) if name.trim() == key => format!("{key} = {value}\n"),
        _ => format!("{line}\n"),
    };
    conf.lines().map(changed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_of_a_configuration_is_changed() {
        let conf = "[Peer]\nPublicKey = a=\nPresharedKey = b=\n";
        assert_eq!(with(conf, "PresharedKey", "c="), "[Peer]\nPublicKey = a=\nPresharedKey = c=\n");
    }
}
