//! Counts the open connections of each address, so that one address cannot occupy all places.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use crate::api::throttled_as;

/// Cheap to clone. It has at most one entry for each open connection.
#[derive(Clone)]
pub(in crate::http::server) struct SourceLimit(Arc<Inner>);

struct Inner {
    most: usize,
    /// Proxies, which connect for many clients.
    trusted: Vec<IpAddr>,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// A counted connection, until it is dropped.
pub(in crate::http::server) struct ConnectionPermit {
    crowd: SourceLimit,
    source: Option<IpAddr>,
}

impl SourceLimit {
    pub fn new(most: usize, trusted: Vec<IpAddr>) -> SourceLimit {
        SourceLimit(Arc::new(Inner { most, trusted, open: Mutex::default() }))
    }

    /// `None` when the source has its share. This machine and trusted proxies are not counted.
    pub fn enter(&self, from: IpAddr) -> Option<ConnectionPermit> {
        let from = from.to_canonical();
        if from.is_loopback() || self.0.trusted.contains(&from) {
            return Some(ConnectionPermit { crowd: self.clone(), source: None });
        }
        let source = throttled_as(from);
        let mut open = self.0.open.lock().expect("no holder panics");
        let count = open.entry(source).or_default();
        if *count >= self.0.most {
            return None;
        }
        *count += 1;
        Some(ConnectionPermit { crowd: self.clone(), source: Some(source) })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let Some(source) = self.source else { return };
        let mut open = self.crowd.0.open.lock().expect("no holder panics");
        let left = open.get(&source).map_or(0, |count| count - 1);
        if left == 0 {
            open.remove(&source);
        } else {
            open.insert(source, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_source_has_its_share_and_no_more() {
        let crowd = SourceLimit::new(2, Vec::new());
        let first = crowd.enter(ip("2001:db8::1")).unwrap();
        let _second = crowd.enter(ip("2001:db8::2")).unwrap();
        assert!(crowd.enter(ip("2001:db8::3")).is_none(), "one network is one source");
        assert!(crowd.enter(ip("198.51.100.1")).is_some());
        drop(first);
        assert!(crowd.enter(ip("2001:db8::3")).is_some());
    }

    #[test]
    fn this_machine_and_trusted_proxies_are_not_counted() {
        let crowd = SourceLimit::new(0, vec![ip("10.0.0.1")]);
        assert!(crowd.enter(ip("::ffff:10.0.0.1")).is_some() && crowd.enter(ip("127.0.0.1")).is_some());
        assert!(crowd.enter(ip("10.0.0.2")).is_none());
    }

    #[test]
    fn nothing_is_remembered_of_who_left() {
        let crowd = SourceLimit::new(1, Vec::new());
        drop(crowd.enter(ip("198.51.100.1")));
        assert!(crowd.0.open.lock().unwrap().is_empty());
    }
}
