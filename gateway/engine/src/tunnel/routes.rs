//! Which peer owns which inner address, and whether a packet's source belongs to its sender.
//!
//! Pool addresses are judged by the longest prefix over **all** peers, so that two overlapping
//! lists never let one peer use another's address. Networks behind a device are in a table of that
//! device only (every site has a 192.168.1.0/24) and never cover pool addresses.

use std::net::IpAddr;

use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;

use super::Config;
use super::peers::Slot;

/// Whether a source address belongs to the peer that used it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The peer's own pool address.
    Own,
    /// In a network behind the peer: accepted only as a reply.
    Behind,
    Foreign,
}

pub struct Routes {
    config: Config,
    owners: JointPrefixMap<IpNet, Slot>,
}

impl Routes {
    pub fn new(config: Config) -> Self {
        Routes { config, owners: JointPrefixMap::new() }
    }

    pub fn is_gateway(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => address == self.config.gateway_v4(),
            IpAddr::V6(address) => address == self.config.gateway_v6(),
        }
    }

    fn in_pool(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.config.pool_v4.contains(&address),
            IpAddr::V6(address) => self.config.pool_v6.contains(&address),
        }
    }

    /// Assigns an address to a peer. The store arbitrates between peers; if two commands cross, the
    /// later one wins.
    pub fn insert(&mut self, address: IpAddr, owner: Slot) {
        self.owners.insert(IpNet::from(address), owner);
    }

    /// Releases an address, if it still belongs to this peer.
    pub fn remove(&mut self, address: IpAddr, owner: Slot) {
        let net = IpNet::from(address);
        if self.owners.get(&net) == Some(&owner) {
            self.owners.remove(&net);
        }
    }

    /// Returns the owner by the longest prefix over all peers.
    pub fn owner(&self, address: IpAddr) -> Option<Slot> {
        self.owners.get_lpm(&IpNet::from(address)).map(|(_, owner)| *owner)
    }

    pub fn judge(&self, source: IpAddr, sender: Slot, networks: &[IpNet]) -> Source {
        match self.owner(source) {
            Some(owner) if owner == sender => Source::Own,
            Some(_) => Source::Foreign,
            None if self.in_pool(source) => Source::Foreign,
            None if networks.iter().any(|net| net.contains(&source)) => Source::Behind,
            None => Source::Foreign,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Slot = Slot { index: 1, generation: 1 };
    const B: Slot = Slot { index: 2, generation: 1 };

    fn routes() -> Routes {
        Routes::new(Config {
            pool_v4: "172.24.0.0/14".parse().expect("a network"),
            pool_v6: "fd00:1::/64".parse().expect("a network"),
            results_port: None,
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_gateway_has_the_first_usable_address_of_each_pool() {
        let routes = routes();
        assert!(routes.is_gateway(ip("172.24.0.1")) && routes.is_gateway(ip("fd00:1::1")));
        assert!(!routes.is_gateway(ip("172.24.0.2")) && !routes.is_gateway(ip("fd00:1::")));
    }

    #[test]
    fn a_peer_speaks_for_its_own_addresses_and_no_others() {
        let mut routes = routes();
        routes.insert(ip("172.24.0.9"), A);
        routes.insert(ip("fd00:1::9"), A);
        routes.insert(ip("172.24.0.10"), B);
        assert_eq!(routes.judge(ip("172.24.0.9"), A, &[]), Source::Own);
        assert_eq!(routes.judge(ip("fd00:1::9"), A, &[]), Source::Own);
        assert_eq!(routes.judge(ip("172.24.0.10"), A, &[]), Source::Foreign);
        assert_eq!(routes.judge(ip("172.24.0.11"), A, &[]), Source::Foreign);
    }

    #[test]
    fn a_network_behind_a_device_never_covers_the_pool() {
        let everything = ["0.0.0.0/0".parse().expect("a network")];
        assert_eq!(routes().judge(ip("172.24.0.77"), A, &everything), Source::Foreign);
        assert_eq!(routes().judge(ip("192.168.1.5"), A, &everything), Source::Behind);
        assert_eq!(routes().judge(ip("192.168.1.5"), A, &[]), Source::Foreign);
    }

    #[test]
    fn an_address_that_moved_on_is_not_taken_from_its_new_owner() {
        let mut routes = routes();
        routes.insert(ip("172.24.0.9"), A);
        routes.insert(ip("172.24.0.9"), B);
        routes.remove(ip("172.24.0.9"), A);
        assert_eq!(routes.owner(ip("172.24.0.9")), Some(B));
        routes.remove(ip("172.24.0.9"), B);
        assert_eq!(routes.owner(ip("172.24.0.9")), None);
    }
}
