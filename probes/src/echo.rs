//! Ping: which packet replies to which request, and the result of a series of replies.
//!
//! A reply counts only if it comes from the probed address, to the probing one, with the request's
//! ident, sequence number and secret cookie. The module does not know when requests are sent or
//! given up: times come in as round trips.

use std::net::IpAddr;
use std::time::Duration;

use crate::cause::Cause;
use crate::packet::{self, EchoKind, MixedFamilies, Parsed};
use crate::plugin::PluginResult;
use crate::sample::{Metric, Status};
use crate::words;

/// Random bytes in each request. Sixteen bytes cannot be guessed, so a host can only reply to what
/// it received. They make the smallest request whose round trip is worth measuring.
pub const COOKIE_LEN: usize = 16;

/// One echo request, in flight or about to be sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct EchoProbe {
    pub from: IpAddr,
    pub to: IpAddr,
    pub ident: u16,
    pub seq: u16,
    /// From the random source, and different for each request.
    pub cookie: [u8; COOKIE_LEN],
    /// Zeros after the cookie, to try a certain packet size. A reply has all of them.
    pub padding: u16,
}

/// Omits the cookie, because it proves the reply.
impl std::fmt::Debug for EchoProbe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EchoProbe({} -> {}, ident {}, seq {})", self.from, self.to, self.ident, self.seq)
    }
}

impl EchoProbe {
    /// Returns the whole IP packet to send.
    ///
    /// # Errors
    /// Fails when the addresses are of different families.
    pub fn request(&self) -> Result<Vec<u8>, MixedFamilies> {
        let mut data = self.cookie.to_vec();
        data.resize(COOKIE_LEN + usize::from(self.padding), 0);
        packet::echo_request(self.from, self.to, self.ident, self.seq, &data)
    }

    pub fn is_answered_by(&self, packet: &Parsed<'_>) -> bool {
        echo_reply(packet).is_some_and(|reply| reply == *self)
    }
}

/// Returns the probe that a packet claims to reply to, to find it among those in flight. The caller
/// compares the whole probe. `None`: not an echo reply of ours.
pub fn echo_reply(packet: &Parsed<'_>) -> Option<EchoProbe> {
    let echo = packet::echo(packet).filter(|echo| echo.kind == EchoKind::Reply)?;
    let (cookie, zeros) = echo.data.split_first_chunk::<COOKIE_LEN>()?;
    let padding = u16::try_from(zeros.len()).ok().filter(|_| zeros.iter().all(|byte| *byte == 0))?;
    let (from, to) = (packet.dst, packet.src);
    Some(EchoProbe { from, to, ident: echo.ident, seq: echo.seq, cookie: *cookie, padding })
}

/// Returns the result of `sent` requests and their replies. If all were lost it is CRITICAL. Less
/// loss or a long round trip is judged by thresholds. Metrics are named as in `check_icmp`: `rta`,
/// `rtmin` and `rtmax` in ms, `pl` in percent.
pub fn summary(sent: u8, rtts: &[Duration]) -> PluginResult {
    if sent == 0 {
        return PluginResult::unknown("no echo request was sent").because(Cause::NotTried);
    }
    let answered = rtts.len().min(sent.into());
    let loss = 100.0 * (f64::from(sent) - answered as f64) / f64::from(sent);
    let (Some(min), Some(max)) = (rtts.iter().min(), rtts.iter().max()) else {
        let requests =
            if sent == 1 { "the echo request".to_owned() } else { format!("{sent} echo requests") };
        let metrics = vec![Metric::gap("rta", "ms"), Metric::percent("pl", loss)];
        let text = format!("no answer to {requests}, loss 100 %");
        return PluginResult::new(Status::Critical, text, metrics).because(Cause::NoAnswer);
    };
    // There are at most 255 round trips, so the sum does not overflow for any measurable time.
    let average = rtts.iter().copied().fold(Duration::ZERO, Duration::saturating_add) / rtts.len() as u32;
    let text = format!("rtt {}, loss {} %", words::latency(average), words::brief(loss.round()));
    let metrics = vec![
        Metric::millis("rta", average),
        Metric::percent("pl", loss),
        Metric::millis("rtmin", *min),
        Metric::millis("rtmax", *max),
    ];
    PluginResult::new(Status::Ok, text, metrics)
}

/// Returns the result of a ping that could not be sent at all.
pub fn not_sent(cause: Cause, reason: &str) -> PluginResult {
    PluginResult::critical(format!("no echo request could be sent: {reason}")).because(cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::range::Thresholds;
    use std::collections::BTreeMap;

    fn probe(from: &str, to: &str) -> EchoProbe {
        let address = |text: &str| text.parse().expect("an address");
        EchoProbe {
            from: address(from),
            to: address(to),
            ident: 1,
            seq: 2,
            cookie: [3; COOKIE_LEN],
            padding: 0,
        }
    }

    fn answer(probe: &EchoProbe) -> Vec<u8> {
        let request = probe.request().expect("one family");
        packet::answer_to_echo(&packet::parse(&request).expect("a packet")).expect("an answer")
    }

    fn values(result: &PluginResult) -> BTreeMap<&str, Option<f64>> {
        result.metrics.iter().map(|m| (m.label.as_str(), m.value)).collect()
    }

    #[test]
    fn a_host_answers_the_probe_it_was_sent() {
        let v4 = probe("172.24.0.1", "172.24.0.7");
        for probe in [v4, probe("fd00::1", "fd00::7"), EchoProbe { padding: 1_236, ..v4 }] {
            let len = probe.request().expect("one family").len();
            assert!(probe.padding == 0 || len == 1_280, "{len}");
            let answer = answer(&probe);
            let packet = packet::parse(&answer).expect("a packet");
            assert!(probe.is_answered_by(&packet));
            assert_eq!(echo_reply(&packet), Some(probe));
        }
    }

    #[test]
    fn another_address_ident_sequence_or_cookie_answers_nothing() {
        let asked = probe("172.24.0.1", "172.24.0.7");
        let others = [
            EchoProbe { to: "172.24.0.8".parse().expect("an address"), ..asked },
            EchoProbe { from: "172.24.0.2".parse().expect("an address"), ..asked },
            EchoProbe { ident: 9, ..asked },
            EchoProbe { seq: 9, ..asked },
            EchoProbe { cookie: [9; COOKIE_LEN], ..asked },
            EchoProbe { padding: 1, ..asked },
        ];
        for other in others {
            assert!(!asked.is_answered_by(&packet::parse(&answer(&other)).expect("a packet")), "{other:?}");
        }
    }

    #[test]
    fn our_own_request_is_no_answer() {
        let asked = probe("fd00::1", "fd00::1");
        let request = asked.request().expect("one family");
        assert!(!asked.is_answered_by(&packet::parse(&request).expect("a packet")));
    }

    #[test]
    fn the_cookie_does_not_print() {
        let shown = format!("{:?}", probe("172.24.0.1", "172.24.0.7"));
        assert_eq!(shown, "EchoProbe(172.24.0.1 -> 172.24.0.7, ident 1, seq 2)");
    }

    #[test]
    fn answers_are_averaged_and_losses_counted() {
        let r = summary(4, &[10, 20, 30].map(Duration::from_millis));
        assert_eq!((r.status, r.text.as_str()), (Status::Ok, "rtt 20.0 ms, loss 25 %"));
        let expected = [("rta", 20.0), ("pl", 25.0), ("rtmin", 10.0), ("rtmax", 30.0)];
        assert_eq!(values(&r), expected.map(|(label, v)| (label, Some(v))).into());
    }

    #[test]
    fn all_lost_is_critical_with_a_gap_in_the_round_trip() {
        let r = summary(3, &[]);
        assert_eq!(
            (r.status, r.text.as_str()),
            (Status::Critical, "no answer to 3 echo requests, loss 100 %")
        );
        assert_eq!(values(&r), [("rta", None), ("pl", Some(100.0))].into());
    }

    #[test]
    fn partial_loss_is_judged_by_thresholds() {
        let limits = [("pl".to_owned(), Thresholds { warn: "20".parse().ok(), crit: "60".parse().ok() })];
        let r = summary(4, &[Duration::from_millis(5); 3]).apply(&limits);
        assert_eq!(r.status, Status::Warning);
        assert_eq!(r.text, "rtt 5.00 ms, loss 25 %; pl 25 % is above 20 (warning)");
    }

    #[test]
    fn odd_counts_do_no_harm() {
        assert_eq!(summary(0, &[]).status, Status::Unknown);
        assert_eq!(values(&summary(1, &[Duration::from_millis(1); 3]))["pl"], Some(0.0));
        assert_eq!(summary(2, &[Duration::MAX; 2]).status, Status::Ok);
    }
}
