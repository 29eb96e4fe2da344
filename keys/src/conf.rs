//! The text of a WireGuard configuration, for `wg-quick` and for `wg setconf`.
//!
//! A configuration has what a device needs: one interface and one peer. The parser refuses what it
//! could not write again (scripts, DNS, a second peer), so that nothing is lost silently.

use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use zeroize::Zeroizing;

use crate::endpoint::Endpoint;
use crate::key::{PresharedKey, PrivateKey, PublicKey};

/// Longest text of a configuration. The gateway's own are below 1 kB; a longer paste by an admin is
/// refused.
const MAX_TEXT: usize = 64 * 1024;
const PRIVATE_KEY_PLACE: &str = "# PrivateKey = (the device's own: it stays there)\n";

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadConf {
    #[error("line {line}: {why}")]
    Line { line: usize, why: BadLine },
    #[error("the configuration has no {0}")]
    Missing(&'static str),
    #[error("the configuration is longer than {MAX_TEXT} bytes")]
    TooLong,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadLine {
    #[error("neither [Interface], [Peer] nor `Key = value`")]
    Form,
    #[error("{0} has no place here: only one interface with one peer is supported")]
    Unknown(String),
    #[error("{0} stands here a second time")]
    Twice(&'static str),
    #[error("{key}: {why}")]
    Value { key: &'static str, why: String },
}

/// A name server that answers for one domain. A configuration has it only as a comment, because a
/// `DNS` line would send the lookups of all names to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitDns {
    pub servers: Vec<IpAddr>,
    pub domain: String,
}

/// One interface with one peer: a device and its gateway.
#[derive(Clone, Debug)]
pub struct Conf {
    /// `None`: the key was made on the device and stays there.
    pub private_key: Option<PrivateKey>,
    pub addresses: Vec<IpNet>,
    pub mtu: Option<u16>,
    /// It is lost when the text is read, as all comments are.
    pub split_dns: Option<SplitDns>,
    pub peer: PublicKey,
    pub psk: Option<PresharedKey>,
    pub allowed_ips: Vec<IpNet>,
    pub endpoint: Endpoint,
    /// In seconds; `None` is off.
    pub keepalive: Option<u16>,
}

impl SplitDns {
    fn write(&self, out: &mut String) {
        let servers: Vec<String> = self.servers.iter().map(IpAddr::to_string).collect();
        let (servers, domain) = (servers.join(" "), &self.domain);
        let text = format!(
            "# Names of hosts, as cam-07.{domain}, on Linux with systemd-resolved: remove the # before PostUp.\n\
             # PostUp = resolvectl dns %i {servers}; resolvectl domain %i '~{domain}'\n"
        );
        out.push_str(&text);
    }
}

impl Conf {
    /// Writes the form that `wg-quick` and the apps read. Without a private key a comment takes its
    /// place.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut out = Zeroizing::new(String::with_capacity(1024));
        self.write_interface(&mut out);
        line(&mut out, "Address", list(&self.addresses));
        if let Some(mtu) = self.mtu {
            line(&mut out, "MTU", mtu);
        }
        if let Some(dns) = &self.split_dns {
            dns.write(&mut out);
        }
        self.write_peer(&mut out);
        out
    }

    /// Writes the form that `wg setconf` reads: without the addresses and the MTU, which `ip` sets.
    pub fn to_setconf(&self) -> Zeroizing<String> {
        let mut out = Zeroizing::new(String::with_capacity(1024));
        self.write_interface(&mut out);
        self.write_peer(&mut out);
        out
    }

    fn write_interface(&self, out: &mut String) {
        out.push_str("[Interface]\n");
        match &self.private_key {
            Some(key) => line(out, "PrivateKey", key.to_base64().as_str()),
            None => out.push_str(PRIVATE_KEY_PLACE),
        }
    }

    fn write_peer(&self, out: &mut String) {
        out.push_str("\n[Peer]\n");
        line(out, "PublicKey", self.peer);
        if let Some(psk) = &self.psk {
            line(out, "PresharedKey", psk.to_base64().as_str());
        }
        line(out, "AllowedIPs", list(&self.allowed_ips));
        line(out, "Endpoint", &self.endpoint);
        if let Some(seconds) = self.keepalive {
            line(out, "PersistentKeepalive", seconds);
        }
    }

    /// # Errors
    /// Names the line, or the missing part: an address, a public key, an endpoint.
    pub fn parse(text: &str) -> Result<Self, BadConf> {
        if text.len() > MAX_TEXT {
            return Err(BadConf::TooLong);
        }
        let mut draft = Draft::default();
        for (at, raw) in text.lines().enumerate() {
            draft.take(raw).map_err(|why| BadConf::Line { line: at + 1, why })?;
        }
        draft.finish()
    }
}

impl FromStr for Conf {
    type Err = BadConf;

    fn from_str(text: &str) -> Result<Self, BadConf> {
        Conf::parse(text)
    }
}

fn line(out: &mut String, key: &str, value: impl fmt::Display) {
    writeln!(out, "{key} = {value}").expect("a string takes any text");
}

fn list(nets: &[IpNet]) -> String {
    nets.iter().map(IpNet::to_string).collect::<Vec<_>>().join(", ")
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Section {
    #[default]
    Nowhere,
    Interface,
    Peer,
}

/// The content of the lines read so far.
#[derive(Default)]
struct Draft {
    section: Section,
    had_peer: bool,
    private_key: Option<PrivateKey>,
    addresses: Vec<IpNet>,
    mtu: Option<u16>,
    peer: Option<PublicKey>,
    psk: Option<PresharedKey>,
    allowed_ips: Vec<IpNet>,
    endpoint: Option<Endpoint>,
    /// The inner one is `None` for `off`.
    keepalive: Option<Option<u16>>,
}

impl Draft {
    fn take(&mut self, raw: &str) -> Result<(), BadLine> {
        let line = raw.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            return Ok(());
        }
        if line.starts_with('[') {
            return self.enter(line);
        }
        let (key, value) = line.split_once('=').ok_or(BadLine::Form)?;
        let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
        match self.section {
            Section::Nowhere => Err(BadLine::Form),
            Section::Interface => self.take_interface(&key, value),
            Section::Peer => self.take_peer(&key, value),
        }
    }

    fn enter(&mut self, line: &str) -> Result<(), BadLine> {
        self.section = match line.to_ascii_lowercase().as_str() {
            "[interface]" => Section::Interface,
            "[peer]" if !self.had_peer => Section::Peer,
            "[peer]" => return Err(BadLine::Twice("[Peer]")),
            _ => return Err(BadLine::Form),
        };
        self.had_peer |= self.section == Section::Peer;
        Ok(())
    }

    fn take_interface(&mut self, key: &str, value: &str) -> Result<(), BadLine> {
        match key {
            "privatekey" => set(&mut self.private_key, "PrivateKey", value.parse()),
            "address" => extend(&mut self.addresses, "Address", value, |net| net),
            "mtu" => set(&mut self.mtu, "MTU", value.parse()),
            other => Err(BadLine::Unknown(other.to_owned())),
        }
    }

    fn take_peer(&mut self, key: &str, value: &str) -> Result<(), BadLine> {
        match key {
            "publickey" => set(&mut self.peer, "PublicKey", value.parse()),
            "presharedkey" => set(&mut self.psk, "PresharedKey", value.parse()),
            // wg cuts host bits off here, and for no other key.
            "allowedips" => extend(&mut self.allowed_ips, "AllowedIPs", value, |net| net.trunc()),
            "endpoint" => set(&mut self.endpoint, "Endpoint", value.parse()),
            "persistentkeepalive" => set(&mut self.keepalive, "PersistentKeepalive", seconds(value)),
            other => Err(BadLine::Unknown(other.to_owned())),
        }
    }

    fn finish(self) -> Result<Conf, BadConf> {
        if self.addresses.is_empty() {
            return Err(BadConf::Missing("Address"));
        }
        Ok(Conf {
            private_key: self.private_key,
            addresses: self.addresses,
            mtu: self.mtu,
            split_dns: None,
            peer: self.peer.ok_or(BadConf::Missing("PublicKey"))?,
            psk: self.psk,
            allowed_ips: self.allowed_ips,
            endpoint: self.endpoint.ok_or(BadConf::Missing("Endpoint"))?,
            keepalive: self.keepalive.flatten(),
        })
    }
}

fn set<T, E: fmt::Display>(
    slot: &mut Option<T>,
    key: &'static str,
    value: Result<T, E>,
) -> Result<(), BadLine> {
    let value = value.map_err(|e| BadLine::Value { key, why: e.to_string() })?;
    if slot.replace(value).is_some() { Err(BadLine::Twice(key)) } else { Ok(()) }
}

fn extend(
    nets: &mut Vec<IpNet>,
    key: &'static str,
    value: &str,
    form: impl Fn(IpNet) -> IpNet,
) -> Result<(), BadLine> {
    for item in value.split(',').map(str::trim).filter(|i| !i.is_empty()) {
        let net = parse_net(item);
        let net = net.ok_or_else(|| BadLine::Value { key, why: format!("not a network: {item}") })?;
        nets.push(form(net));
    }
    Ok(())
}

/// Parses a network. An address without a length is a network of one address.
fn parse_net(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn seconds(value: &str) -> Result<Option<u16>, std::num::ParseIntError> {
    match value {
        "off" => Ok(None),
        number => number.parse().map(|n| if n == 0 { None } else { Some(n) }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PEER: &str = "j0DFrbaPJWJK5bIU6nZ6bslNgp09e14a0bpvPiE4KF8=";

    fn conf() -> Conf {
        Conf {
            private_key: Some(PrivateKey::from_bytes([1; 32])),
            addresses: vec!["172.24.0.7/32".parse().unwrap(), "fd00::7/128".parse().unwrap()],
            mtu: Some(1_280),
            split_dns: None,
            peer: PEER.parse().unwrap(),
            psk: None,
            allowed_ips: vec!["172.24.0.0/14".parse().unwrap(), "fd00::/64".parse().unwrap()],
            endpoint: "vpn.example.net:51820".parse().unwrap(),
            keepalive: Some(25),
        }
    }

    #[test]
    fn the_text_is_what_wg_quick_reads() {
        let expected = format!(
            "[Interface]\nPrivateKey = AAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAUE=\n\
             Address = 172.24.0.7/32, fd00::7/128\nMTU = 1280\n\n\
             [Peer]\nPublicKey = {PEER}\nAllowedIPs = 172.24.0.0/14, fd00::/64\n\
             Endpoint = vpn.example.net:51820\nPersistentKeepalive = 25\n"
        );
        assert_eq!(conf().to_text().as_str(), expected);
    }

    #[test]
    fn a_name_server_for_one_domain_is_a_comment_that_changes_nothing() {
        let servers = ["172.24.0.1", "fd00::1"].map(|text| text.parse().unwrap());
        let dns = SplitDns { servers: servers.into(), domain: "fleet.internal".to_owned() };
        let text = Conf { split_dns: Some(dns), ..conf() }.to_text();
        let line =
            "\n# PostUp = resolvectl dns %i 172.24.0.1 fd00::1; resolvectl domain %i '~fleet.internal'\n";
        assert!(text.contains(line), "{}", text.as_str());
        assert_eq!(Conf::parse(&text).unwrap().to_text(), conf().to_text());
    }

    #[test]
    fn a_key_that_stays_on_the_device_leaves_a_place_for_it() {
        let text = Conf { private_key: None, ..conf() }.to_text();
        assert!(text.contains("\n# PrivateKey = "), "{}", text.as_str());
        assert!(Conf::parse(&text).unwrap().private_key.is_none());
    }

    #[test]
    fn the_setconf_form_has_no_address_and_no_mtu() {
        let text = conf().to_setconf();
        assert!(text.contains("PrivateKey") && text.contains("[Peer]"));
        assert!(!text.contains("Address") && !text.contains("MTU"));
    }

    #[test]
    fn what_wg_quick_accepts_in_another_dress_is_read() {
        let text = format!(
            "# mine\n[interface]\r\naddress=10.0.0.2\nADDRESS = fd00::2/64 # inside\n\n[PEER]\n\
             PublicKey={PEER}\nAllowedIPs = 10.0.0.9/8,,\nEndpoint = [2001:DB8::1]:51820\n\
             PersistentKeepalive = off\n"
        );
        let conf = Conf::parse(&text).unwrap();
        assert_eq!(list(&conf.addresses), "10.0.0.2/32, fd00::2/64");
        assert_eq!(list(&conf.allowed_ips), "10.0.0.0/8");
        assert_eq!(conf.endpoint.to_string(), "[2001:db8::1]:51820");
        assert_eq!(conf.keepalive, None);
    }

    #[test]
    fn a_bad_line_is_named() {
        let good = conf().to_text();
        let cases = [
            ("MTU = 1280", "MTU = 70000", "line 4: MTU"),
            ("MTU = 1280", "PostUp = reboot", "line 4: postup has no place here"),
            ("MTU = 1280", "MTU = 1\nMTU = 2", "line 5: MTU stands here a second time"),
            ("MTU = 1280", "what", "line 4: neither"),
            ("[Peer]", "[Pear]", "line 6: neither"),
            ("fd00::/64", "fd00::/129", "line 8: AllowedIPs: not a network: fd00::/129"),
            (PEER, "AAAA", "line 7: PublicKey: not a key"),
            (
                "vpn.example.net:51820",
                "vpn example:1",
                "line 9: Endpoint: \"vpn example:1\" is not an endpoint",
            ),
        ];
        for (from, to, expected) in cases {
            let error = Conf::parse(&good.replace(from, to)).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(Conf::parse("").unwrap_err(), BadConf::Missing("Address"));
        let no_endpoint = conf().to_text().replace("Endpoint", "#");
        assert_eq!(Conf::parse(&no_endpoint).unwrap_err(), BadConf::Missing("Endpoint"));
    }

    fn any_net() -> impl Strategy<Value = IpNet> {
        let v4 = (any::<u32>(), 0u8..=32).prop_map(|(a, l)| IpNet::new(IpAddr::V4(a.into()), l).unwrap());
        let v6 = (any::<u128>(), 0u8..=128).prop_map(|(a, l)| IpNet::new(IpAddr::V6(a.into()), l).unwrap());
        prop_oneof![v4, v6]
    }

    fn any_endpoint() -> impl Strategy<Value = Endpoint> {
        let host = prop_oneof![
            any::<u32>().prop_map(|a| std::net::Ipv4Addr::from(a).to_string()),
            any::<u128>().prop_map(|a| format!("[{}]", std::net::Ipv6Addr::from(a))),
            proptest::sample::select(vec!["gw".to_owned(), "vpn.example.net".to_owned()]),
        ];
        let text = (host, 1u16..).prop_map(|(host, port)| format!("{host}:{port}"));
        text.prop_filter_map("nobody can send there", |text| text.parse().ok())
    }

    fn any_conf() -> impl Strategy<Value = Conf> {
        let nets = |min| proptest::collection::vec(any_net(), min..5);
        let secrets = (any::<Option<[u8; 32]>>(), any::<[u8; 32]>(), any::<Option<[u8; 32]>>());
        let numbers = (any::<Option<u16>>(), proptest::option::of(1u16..));
        (secrets, nets(1), nets(0), any_endpoint(), numbers).prop_map(
            |((private, peer, psk), addresses, allowed, endpoint, (mtu, keepalive))| Conf {
                private_key: private.map(PrivateKey::from_bytes),
                addresses,
                mtu,
                split_dns: None,
                peer: PrivateKey::from_bytes(peer).public(),
                psk: psk.map(PresharedKey::from_bytes),
                allowed_ips: allowed.iter().map(IpNet::trunc).collect(),
                endpoint,
                keepalive,
            },
        )
    }

    proptest! {
        #[test]
        fn a_configuration_survives_its_text(conf in any_conf()) {
            let text = conf.to_text();
            prop_assert_eq!(Conf::parse(&text).unwrap().to_text(), text);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "(\\[Peer\\]|[A-Za-z]+ ?= ?.{0,40}|.{0,20}|\n){0,20}") {
            let _ = Conf::parse(&text);
        }
    }
}
