//! Echo probes in flight, and goals that wait for a session.
//!
//! A reply counts only once, and only if address, ident, sequence number and an unpredictable
//! cookie match a request in flight. An unsolicited packet of a device proves nothing.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fleetgate_probes::echo::EchoProbe;
use fleetgate_probes::packet::{ICMP, ICMPV6, Parsed};

use crate::messages::{ConnectFailure, EchoReply, ProbeId, ProbeReply, StreamId};
use crate::time::Mono;
use crate::tunnel::icmp_error::Undelivered;
use crate::tunnel::random::Random;

/// Probes, streams and connections of one peer at a time. A host has a dozen services; more than
/// this is a fault, and one peer must not fill the gateway.
pub const MAX_IN_FLIGHT: usize = 32;

/// Time between the requests of one probe, the minimum that `ping` allows ordinary users.
pub const ECHO_SPACING: Duration = Duration::from_millis(200);

/// Protocol and type of an echo request, as an ICMP error quotes it.
const ECHO_REQUESTS: [(u8, u8); 2] = [(ICMP, 8), (ICMPV6, 128)];

/// A goal that needs a session.
#[derive(Clone, Debug)]
pub enum Goal {
    Echo {
        ask: ProbeId,
        address: IpAddr,
        count: u8,
        /// See [`EchoProbe`].
        padding: u16,
    },
    Connect {
        ask: ProbeId,
        to: SocketAddr,
    },
    Stream {
        id: StreamId,
        to: SocketAddr,
    },
    /// A requested handshake: the session is itself the goal.
    Handshake {
        ask: ProbeId,
    },
}

#[derive(Clone, Debug)]
pub struct Want {
    pub goal: Goal,
    pub asked: Mono,
    pub deadline: Mono,
}

struct Sent {
    probe: EchoProbe,
    at: Mono,
}

/// One `Probe::Echo` in flight.
pub struct Echo {
    ask: ProbeId,
    /// The next request to be sent.
    next: EchoProbe,
    due: Mono,
    /// Requests that are still to be sent, and requests that were sent.
    left: u8,
    sent: u8,
    deadline: Mono,
    open: Vec<Sent>,
    rtts: Vec<Duration>,
    unreachable: Option<&'static str>,
}

impl Echo {
    pub fn new(
        ask: ProbeId,
        (from, to): (IpAddr, IpAddr),
        (count, padding): (u8, u16),
        (now, deadline): (Mono, Mono),
        random: &mut Random,
    ) -> Self {
        let next =
            EchoProbe { from, to, ident: random.u16(), seq: random.u16(), cookie: random.bytes(), padding };
        Echo {
            ask,
            next,
            due: now,
            left: count.max(1),
            sent: 0,
            deadline,
            open: Vec::new(),
            rtts: Vec::new(),
            unreachable: None,
        }
    }

    /// Returns the next request, if one is due.
    pub fn request(&mut self, random: &mut Random, now: Mono) -> Option<Vec<u8>> {
        if self.left == 0 || now < self.due {
            return None;
        }
        let packet = self.next.request().ok()?;
        self.open.push(Sent { probe: self.next, at: now });
        self.next.seq = self.next.seq.wrapping_add(1);
        self.next.cookie = random.bytes();
        self.left -= 1;
        self.sent += 1;
        self.due = now + ECHO_SPACING;
        Some(packet)
    }

    /// Takes a packet if it replies to a request in flight.
    pub fn accept(&mut self, packet: &Parsed<'_>, arrived: Mono) -> bool {
        let answered = self.take(|probe| probe.is_answered_by(packet));
        self.rtts.extend(answered.map(|at| arrived.since(at)));
        answered.is_some()
    }

    /// Takes an ICMP error if it quotes a request in flight: its addresses, ident and sequence
    /// number.
    pub fn undelivered(&mut self, error: &Undelivered) -> bool {
        let word = |at: usize| u16::from_be_bytes([error.quoted[at], error.quoted[at + 1]]);
        let is_request = ECHO_REQUESTS.contains(&(error.protocol, error.quoted[0]));
        let quotes = |probe: &EchoProbe| {
            (probe.from, probe.to, probe.ident, probe.seq) == (error.src, error.dst, word(4), word(6))
        };
        let ours = is_request && self.take(quotes).is_some();
        if ours {
            self.unreachable = Some(error.reason);
        }
        ours
    }

    fn take(&mut self, is_it: impl Fn(&EchoProbe) -> bool) -> Option<Mono> {
        let place = self.open.iter().position(|sent| is_it(&sent.probe))?;
        Some(self.open.swap_remove(place).at)
    }

    pub fn is_over(&self, now: Mono) -> bool {
        now >= self.deadline || self.left == 0 && self.open.is_empty()
    }

    /// Returns when the next request or the deadline is due.
    pub fn due(&self) -> Mono {
        if self.left > 0 { self.due.min(self.deadline) } else { self.deadline }
    }

    /// Ends the probe because the tunnel is gone.
    pub fn abandon(self, failure: ConnectFailure) -> (ProbeId, ProbeReply) {
        let failure = self.rtts.is_empty().then_some(failure);
        (self.ask, ProbeReply::Echo(EchoReply { sent: self.sent, rtts: self.rtts, failure }))
    }

    pub fn answer(self) -> (ProbeId, ProbeReply) {
        let failure = match self.unreachable {
            Some(reason) if self.rtts.is_empty() => Some(ConnectFailure::Unreachable(reason.into())),
            _ => None,
        };
        (self.ask, ProbeReply::Echo(EchoReply { sent: self.sent, rtts: self.rtts, failure }))
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_probes::packet::{answer_to_echo, echo_request, parse};

    use super::*;
    use crate::tunnel::icmp_error::host_unreachable;

    const GATEWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(172, 24, 0, 1));
    const DEVICE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(172, 24, 0, 2));

    fn ms(at: u64) -> Mono {
        Mono::from_millis(at)
    }

    fn echo(count: u8) -> (Echo, Random) {
        let mut random = Random::new([3; 32]);
        let echo = Echo::new(ProbeId(1), (GATEWAY, DEVICE), (count, 0), (ms(0), ms(5_000)), &mut random);
        (echo, random)
    }

    fn answer(request: &[u8]) -> Vec<u8> {
        answer_to_echo(&parse(request).expect("a packet")).expect("an answer")
    }

    fn accept(echo: &mut Echo, packet: &[u8], now: Mono) -> bool {
        echo.accept(&parse(packet).expect("a packet"), now)
    }

    fn result(echo: Echo) -> EchoReply {
        match echo.answer() {
            (_, ProbeReply::Echo(answer)) => answer,
            other => panic!("an echo answer is expected, not {other:?}"),
        }
    }

    #[test]
    fn three_requests_go_out_200_ms_apart_and_each_reply_is_timed() {
        let (mut echo, mut random) = echo(3);
        for at in [0, 200, 400] {
            let request = echo.request(&mut random, ms(at)).expect("a request is due");
            assert_eq!(echo.request(&mut random, ms(at + 199)), None);
            assert!(accept(&mut echo, &answer(&request), ms(at + 30)));
        }
        assert!(echo.is_over(ms(430)));
        let answer = result(echo);
        assert_eq!((answer.sent, answer.rtts, answer.failure), (3, vec![Duration::from_millis(30); 3], None));
    }

    #[test]
    fn a_reply_counts_once() {
        let (mut echo, mut random) = echo(2);
        let reply = answer(&echo.request(&mut random, ms(0)).expect("a request"));
        assert!(accept(&mut echo, &reply, ms(1)));
        assert!(!accept(&mut echo, &reply, ms(2)));
    }

    #[test]
    fn a_reply_without_the_cookie_is_not_ours() {
        let (mut echo, mut random) = echo(1);
        let probe = echo.next;
        assert!(echo.request(&mut random, ms(0)).is_some());
        let forged = echo_request(GATEWAY, DEVICE, probe.ident, probe.seq, &[0; 16]).expect("one family");
        assert!(!accept(&mut echo, &answer(&forged), ms(1)));
    }

    #[test]
    fn a_reply_from_another_address_is_not_ours() {
        let (mut echo, mut random) = echo(1);
        let mut reply = answer(&echo.request(&mut random, ms(0)).expect("a request"));
        let mut packet = smoltcp::wire::Ipv4Packet::new_unchecked(&mut reply);
        packet.set_src_addr([172, 24, 0, 3].into());
        packet.fill_checksum();
        assert!(!accept(&mut echo, &reply, ms(1)));
    }

    #[test]
    fn an_unreachable_host_ends_the_question_with_the_reason() {
        let (mut echo, mut random) = echo(1);
        let sent = echo.request(&mut random, ms(0)).expect("a request");
        let error = host_unreachable(DEVICE, &sent);
        let error = Undelivered::parse(&parse(&error).expect("a packet")).expect("an error");
        assert!(echo.undelivered(&error));
        assert!(echo.is_over(ms(9)));
        let unreachable = ConnectFailure::Unreachable("no route to the host".into());
        assert_eq!(result(echo).failure, Some(unreachable));
    }

    #[test]
    fn silence_ends_at_the_deadline() {
        let (mut echo, mut random) = echo(1);
        assert!(echo.request(&mut random, ms(0)).is_some());
        assert_eq!(echo.due(), ms(5_000));
        assert!(!echo.is_over(ms(4_999)));
        assert!(echo.is_over(ms(5_000)));
        assert_eq!(result(echo), EchoReply { sent: 1, rtts: vec![], failure: None });
    }
}
