//! Names of addresses: `7.0.112.10.in-addr.arpa` and `ip6.arpa`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::message::DomainName;

/// The networks whose names are ours.
#[derive(Clone, Copy, Debug)]
pub struct Pools {
    pub v4: Ipv4Net,
    pub v6: Ipv6Net,
}

/// The place of a name among the names of the pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReversePosition {
    /// It is a part of a pool.
    Above,
    At(IpAddr),
    /// It stands below an address, or is no number where one is expected.
    Below,
}

/// The part of an address that a name gives.
struct Given {
    net: IpNet,
    /// The name goes on with labels that are no part of an address.
    has_more: bool,
}

impl Pools {
    /// Returns the place of a name; `None`: it is not in the pools.
    pub fn place(&self, name: &DomainName) -> Option<ReversePosition> {
        let given = given(name).filter(|given| self.contain(given.net))?;
        let is_whole = given.net.prefix_len() == given.net.max_prefix_len();
        Some(match (given.has_more, is_whole) {
            (true, _) => ReversePosition::Below,
            (false, true) => ReversePosition::At(given.net.addr()),
            (false, false) => ReversePosition::Above,
        })
    }

    /// Returns the name of the smallest part of a pool that has a name and contains this one.
    pub fn apex(&self, name: &DomainName) -> Option<DomainName> {
        let given = given(name).filter(|given| self.contain(given.net))?;
        let text = match given.net.addr() {
            IpAddr::V4(address) => {
                let octets = address.octets();
                let count = usize::from(self.v4.prefix_len().div_ceil(8));
                reversed(octets[..count].iter().map(u8::to_string), "in-addr.arpa")
            }
            IpAddr::V6(address) => {
                let bits = u128::from(address);
                let count = u32::from(self.v6.prefix_len().div_ceil(4));
                let nibble = |at: u32| format!("{:x}", bits >> (124 - 4 * at) & 0xf);
                reversed((0..count).map(nibble), "ip6.arpa")
            }
        };
        text.parse().ok()
    }

    fn contain(&self, net: IpNet) -> bool {
        match net {
            IpNet::V4(net) => self.v4.contains(&net),
            IpNet::V6(net) => self.v6.contains(&net),
        }
    }
}

fn reversed(parts: impl DoubleEndedIterator<Item = String>, zone: &str) -> String {
    parts.rev().chain([zone.to_owned()]).collect::<Vec<_>>().join(".")
}

fn given(name: &DomainName) -> Option<Given> {
    let text = name.to_string().to_ascii_lowercase();
    let v4 = text.strip_suffix(".in-addr.arpa").map(given_v4);
    v4.or_else(|| text.strip_suffix(".ip6.arpa").map(given_v6)).flatten()
}

fn given_v4(text: &str) -> Option<Given> {
    let is_octet = |label: &&str| label.parse::<u8>().is_ok_and(|octet| octet.to_string() == **label);
    let labels: Vec<&str> = text.rsplit('.').collect();
    let octets = labels.iter().copied().take_while(is_octet).take(4).flat_map(str::parse::<u8>);
    let (mut address, mut count) = ([0; 4], 0);
    for (place, octet) in address.iter_mut().zip(octets) {
        *place = octet;
        count += 1;
    }
    let net = Ipv4Net::new(Ipv4Addr::from(address), 8 * count).ok()?;
    Some(Given { net: net.into(), has_more: labels.len() > usize::from(count) })
}

fn given_v6(text: &str) -> Option<Given> {
    let nibble = |label: &str| {
        let is_digit = label.len() == 1 && label.bytes().all(|b| b.is_ascii_hexdigit());
        is_digit.then(|| u128::from_str_radix(label, 16).ok()).flatten()
    };
    let labels: Vec<&str> = text.rsplit('.').collect();
    let (mut bits, mut count) = (0, 0);
    for nibble in labels.iter().map_while(|label| nibble(label)).take(32) {
        bits |= nibble << (124 - 4 * u32::from(count));
        count += 1;
    }
    let net = Ipv6Net::new(Ipv6Addr::from(bits), 4 * count).ok()?;
    Some(Given { net: net.into(), has_more: labels.len() > usize::from(count) })
}
