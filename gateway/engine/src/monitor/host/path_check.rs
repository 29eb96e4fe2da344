//! The path check: probes a path after a check over it got no reply. It sends echoes as large as
//! any packet, and small ones if none of those came back.
//!
//! On a lossy path, each echo comes back by chance. A cause is therefore excluded only if all
//! echoes of one size agree, in several attempts in a row. This module knows no services.

use std::net::IpAddr;
use std::time::Duration;

use crate::id::PeerId;
use crate::messages::{EchoReply, PathCheck, Probe, ProbeReply};

/// Echoes of each size: on a path that loses one in three, all three come back three times in ten.
const ECHOES: u8 = 3;
/// The timeout for each size, so that the result does not wait for long.
pub const TIMEOUT: Duration = Duration::from_secs(3);
/// The timeout of the probe of a device's second inner address, after the first was silent. It
/// covers several round trips of a mobile link, and delays a failure only a little.
pub const OTHER_TIMEOUT: Duration = Duration::from_secs(3);
/// The number of attempts whose path checks must agree: the default number of attempts to a hard
/// state.
pub const AGREEING: usize = 3;

/// A path check in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathQuestion {
    peer: PeerId,
    address: IpAddr,
    large_lost: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum PathStep {
    ProbeRequest(PathQuestion),
    Known(PathCheck),
}

impl PathQuestion {
    pub fn new(peer: PeerId, address: IpAddr) -> PathQuestion {
        PathQuestion { peer, address, large_lost: false }
    }

    /// Returns the next probe. Large packets come first: if they pass, no more probes are needed.
    pub fn probe(self) -> Probe {
        let PathQuestion { peer, address, large_lost } = self;
        match large_lost {
            false => Probe::LargeEcho { peer, address, count: ECHOES },
            true => Probe::Echo { peer, address, count: ECHOES },
        }
    }

    pub fn take(self, answer: &ProbeReply) -> PathStep {
        let ProbeReply::Echo(echo) = answer else { return PathStep::Known(PathCheck::NotAsked) };
        match (came_back(echo), self.large_lost) {
            (Came::NotSent, _) => PathStep::Known(PathCheck::NotAsked),
            (Came::None, false) => PathStep::ProbeRequest(PathQuestion { large_lost: true, ..self }),
            (Came::None, true) => PathStep::Known(PathCheck::Silent),
            (Came::Some, _) => PathStep::Known(PathCheck::Lossy),
            (Came::All, false) => PathStep::Known(PathCheck::LargeAnswered),
            (Came::All, true) => PathStep::Known(PathCheck::LargeLost),
        }
    }
}

enum Came {
    NotSent,
    None,
    Some,
    All,
}

fn came_back(echo: &EchoReply) -> Came {
    match echo.rtts.len() {
        0 if echo.sent == 0 => Came::NotSent,
        0 => Came::None,
        n if n < usize::from(ECHOES) => Came::Some,
        _ => Came::All,
    }
}

/// Combines the last attempts, the newest last: if they differ, packets are lost by chance.
pub fn together(checks: [PathCheck; AGREEING]) -> PathCheck {
    let newest = checks[AGREEING - 1];
    let mut asked = checks.into_iter().filter(|check| *check != PathCheck::NotAsked);
    let settled = matches!(newest, PathCheck::NotAsked | PathCheck::Silent);
    if settled || asked.all(|check| check == newest) { newest } else { PathCheck::Lossy }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PathCheck::{LargeAnswered, LargeLost, Lossy, NotAsked, Silent};

    fn known(answers: &[usize]) -> PathCheck {
        let echo = |n: usize| {
            let rtts = vec![Duration::from_millis(30); n];
            ProbeReply::Echo(EchoReply { sent: ECHOES, rtts, failure: None })
        };
        let mut asked = PathQuestion::new(PeerId::from_i64(1), [172, 24, 0, 2].into());
        for n in answers {
            match asked.take(&echo(*n)) {
                PathStep::Known(check) => return check,
                PathStep::ProbeRequest(next) => asked = next,
            }
        }
        panic!("it ends")
    }

    #[test]
    fn a_cause_is_excluded_only_if_all_echoes_of_one_size_agree() {
        let table = [
            (&[3][..], LargeAnswered),
            (&[1], Lossy),
            (&[2], Lossy),
            (&[0, 3], LargeLost),
            (&[0, 1], Lossy),
            (&[0, 0], Silent),
        ];
        for (answers, expected) in table {
            assert_eq!(known(answers), expected, "{answers:?}");
        }
    }

    #[test]
    fn an_echo_that_could_not_be_sent_yields_no_path_check() {
        let asked = PathQuestion::new(PeerId::from_i64(1), [172, 24, 0, 2].into());
        let none = ProbeReply::Echo(EchoReply { sent: 0, rtts: Vec::new(), failure: None });
        assert_eq!(asked.take(&none), PathStep::Known(NotAsked));
        assert_eq!(asked.take(&ProbeReply::Refused("no".into())), PathStep::Known(NotAsked));
    }

    #[test]
    fn attempts_that_differ_are_packets_lost_by_chance() {
        let table = [
            ([NotAsked, NotAsked, LargeAnswered], LargeAnswered),
            ([LargeAnswered, LargeAnswered, LargeAnswered], LargeAnswered),
            ([LargeAnswered, LargeLost, LargeAnswered], Lossy),
            ([Lossy, LargeAnswered, LargeAnswered], Lossy),
            ([LargeLost, LargeLost, LargeLost], LargeLost),
            ([LargeAnswered, LargeAnswered, Silent], Silent),
            ([Silent, LargeLost, LargeLost], Lossy),
            ([Lossy, Lossy, NotAsked], NotAsked),
        ];
        for (checks, expected) in table {
            assert_eq!(together(checks), expected, "{checks:?}");
        }
    }
}
