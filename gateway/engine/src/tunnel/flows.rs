//! Echo probes in flight, and whatever waits for a session.
//!
//! A reply counts only if address, ident, sequence number and an unpredictable cookie are those of
//! a request in flight, and only once: what a device sends without being asked proves nothing.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::icmp::{EchoBody, Icmp, Undelivered, request};
use super::random::Random;
use crate::time::Mono;
use crate::wire::{Answer, AskId, ConnectFailure, EchoAnswer, StreamId};

/// Asks, streams and connections of one peer at a time. A host has a dozen services; more than
/// this is a fault, and one peer must not fill the gateway.
pub const MAX_IN_FLIGHT: usize = 32;

/// Between the requests of one question, as `ping` has it for ordinary users.
pub const ECHO_SPACING: Duration = Duration::from_millis(200);

const COOKIE_LEN: usize = 16;

/// ICMPv4 and ICMPv6 type of an echo request.
const ECHO_REQUEST_TYPES: [u8; 2] = [8, 128];

/// Something that needs a session.
#[derive(Clone, Debug)]
pub enum Goal {
    Echo {
        ask: AskId,
        address: IpAddr,
        count: u8,
    },
    Connect {
        ask: AskId,
        to: SocketAddr,
    },
    Stream {
        id: StreamId,
        to: SocketAddr,
    },
    /// A handshake is itself what is asked for.
    Handshake {
        ask: AskId,
    },
}

#[derive(Clone, Debug)]
pub struct Want {
    pub goal: Goal,
    pub asked: Mono,
    pub deadline: Mono,
}

struct Sent {
    seq: u16,
    at: Mono,
}

/// One `Question::Echo` on its way.
pub struct Echo {
    ask: AskId,
    gateway: IpAddr,
    address: IpAddr,
    ident: u16,
    next_seq: u16,
    cookie: [u8; COOKIE_LEN],
    count: u8,
    sent: u8,
    next: Mono,
    deadline: Mono,
    open: Vec<Sent>,
    rtts: Vec<Duration>,
    unreachable: Option<&'static str>,
}

impl Echo {
    pub fn new(
        ask: AskId,
        (gateway, address): (IpAddr, IpAddr),
        count: u8,
        deadline: Mono,
        random: &mut Random,
        now: Mono,
    ) -> Self {
        Echo {
            ask,
            gateway,
            address,
            ident: random.u16(),
            next_seq: random.u16(),
            cookie: random.bytes(),
            count: count.max(1),
            sent: 0,
            next: now,
            deadline,
            open: Vec::new(),
            rtts: Vec::new(),
            unreachable: None,
        }
    }

    /// The next request, if one is due.
    pub fn request(&mut self, now: Mono) -> Option<Vec<u8>> {
        if self.sent == self.count || now < self.next {
            return None;
        }
        let seq = self.next_seq;
        let body = EchoBody { ident: self.ident, seq, data: &self.cookie };
        let packet = request(self.gateway, self.address, body)?;
        self.open.push(Sent { seq, at: now });
        self.next_seq = seq.wrapping_add(1);
        self.sent += 1;
        self.next = now + ECHO_SPACING;
        Some(packet)
    }

    /// Takes a packet if it answers a request in flight.
    pub fn accept(&mut self, source: IpAddr, icmp: &Icmp<'_>, now: Mono) -> bool {
        match icmp {
            Icmp::Reply(body) => source == self.address && self.replied(body, now),
            Icmp::Error(error) => self.failed(error),
        }
    }

    fn replied(&mut self, body: &EchoBody<'_>, now: Mono) -> bool {
        if body.ident != self.ident || body.data != self.cookie {
            return false;
        }
        let Some(at) = self.take(body.seq) else { return false };
        self.rtts.push(now.since(at));
        true
    }

    /// An error carries back at least type, ident and sequence number of what was sent.
    fn failed(&mut self, error: &Undelivered<'_>) -> bool {
        let ours = error.source == self.gateway
            && error.target == self.address
            && ECHO_REQUEST_TYPES.contains(&error.start[0])
            && error.start[4..6] == self.ident.to_be_bytes();
        let seq = u16::from_be_bytes([error.start[6], error.start[7]]);
        let ours = ours && self.take(seq).is_some();
        if ours {
            self.unreachable = Some(error.reason);
        }
        ours
    }

    fn take(&mut self, seq: u16) -> Option<Mono> {
        let place = self.open.iter().position(|sent| sent.seq == seq)?;
        Some(self.open.swap_remove(place).at)
    }

    pub fn is_over(&self, now: Mono) -> bool {
        now >= self.deadline || self.sent == self.count && self.open.is_empty()
    }

    /// When the next request or the end is due.
    pub fn due(&self) -> Mono {
        if self.sent < self.count { self.next.min(self.deadline) } else { self.deadline }
    }

    /// The tunnel is gone.
    pub fn abandon(self, failure: ConnectFailure) -> (AskId, Answer) {
        let failure = self.rtts.is_empty().then_some(failure);
        (self.ask, Answer::Echo(EchoAnswer { sent: self.sent, rtts: self.rtts, failure }))
    }

    pub fn answer(self) -> (AskId, Answer) {
        let failure = match self.unreachable {
            Some(reason) if self.rtts.is_empty() => Some(ConnectFailure::Unreachable(reason.into())),
            _ => None,
        };
        (self.ask, Answer::Echo(EchoAnswer { sent: self.sent, rtts: self.rtts, failure }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::icmp::{answer, host_unreachable};
    use super::super::inner::Inner;
    use super::*;

    const GATEWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(172, 24, 0, 1));
    const DEVICE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(172, 24, 0, 2));

    fn ms(at: u64) -> Mono {
        Mono::from_millis(at)
    }

    fn echo(count: u8) -> Echo {
        Echo::new(AskId(1), (GATEWAY, DEVICE), count, ms(5_000), &mut Random::new([3; 32]), ms(0))
    }

    fn accept(echo: &mut Echo, packet: &[u8], now: Mono) -> bool {
        let inner = Inner::parse(packet).expect("a packet");
        Icmp::parse(&inner).is_some_and(|icmp| echo.accept(inner.source, &icmp, now))
    }

    fn result(echo: Echo) -> EchoAnswer {
        match echo.answer() {
            (_, Answer::Echo(answer)) => answer,
            other => panic!("an echo answer is expected, not {other:?}"),
        }
    }

    #[test]
    fn three_requests_go_out_200_ms_apart_and_each_reply_is_timed() {
        let mut echo = echo(3);
        for at in [0, 200, 400] {
            let request = echo.request(ms(at)).expect("a request is due");
            assert_eq!(echo.request(ms(at + 199)), None);
            assert!(accept(&mut echo, &answer(&request).expect("an answer"), ms(at + 30)));
        }
        assert!(echo.is_over(ms(430)));
        let answer = result(echo);
        assert_eq!((answer.sent, answer.rtts, answer.failure), (3, vec![Duration::from_millis(30); 3], None));
    }

    #[test]
    fn a_reply_counts_once() {
        let mut echo = echo(2);
        let reply = answer(&echo.request(ms(0)).expect("a request")).expect("an answer");
        assert!(accept(&mut echo, &reply, ms(1)));
        assert!(!accept(&mut echo, &reply, ms(2)));
    }

    #[test]
    fn a_reply_without_the_cookie_is_not_ours() {
        let mut echo = echo(1);
        let first = echo.request(ms(0)).expect("a request");
        let inner = Inner::parse(&first).expect("a packet");
        let (ident, seq) = (&inner.payload[4..6], &inner.payload[6..8]);
        let forged = EchoBody {
            ident: u16::from_be_bytes([ident[0], ident[1]]),
            seq: u16::from_be_bytes([seq[0], seq[1]]),
            data: &[0; COOKIE_LEN],
        };
        let forged = answer(&request(GATEWAY, DEVICE, forged).expect("one family")).expect("an answer");
        assert!(!accept(&mut echo, &forged, ms(1)));
    }

    #[test]
    fn a_reply_from_another_address_is_not_ours() {
        let mut echo = echo(1);
        let mut reply = answer(&echo.request(ms(0)).expect("a request")).expect("an answer");
        let mut packet = smoltcp::wire::Ipv4Packet::new_unchecked(&mut reply);
        packet.set_src_addr([172, 24, 0, 3].into());
        packet.fill_checksum();
        assert!(!accept(&mut echo, &reply, ms(1)));
    }

    #[test]
    fn an_unreachable_host_ends_the_question_with_the_reason() {
        let mut echo = echo(1);
        let sent = echo.request(ms(0)).expect("a request");
        assert!(accept(&mut echo, &host_unreachable([172, 24, 0, 2].into(), &sent), ms(9)));
        assert!(echo.is_over(ms(9)));
        let unreachable = ConnectFailure::Unreachable("no route to the host".into());
        assert_eq!(result(echo).failure, Some(unreachable));
    }

    #[test]
    fn silence_ends_at_the_deadline() {
        let mut echo = echo(1);
        assert!(echo.request(ms(0)).is_some());
        assert_eq!(echo.due(), ms(5_000));
        assert!(!echo.is_over(ms(4_999)));
        assert!(echo.is_over(ms(5_000)));
        assert_eq!(result(echo), EchoAnswer { sent: 1, rtts: vec![], failure: None });
    }
}
