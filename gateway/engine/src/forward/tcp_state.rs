//! The states of a TCP connection as both directions pass by, and whether a reset is genuine.
//!
//! The two ends check their own sequence numbers; the gateway follows them as far as it needs to
//! judge a reset and to make one. It sees each acknowledgement before its receiver does, so the
//! receiver's window is known from what the receiver said itself.

use std::time::Duration;

use super::headers::{ACK, FIN, RST, SYN, Segment};
use crate::messages::DropReason;

/// The wait for each step of the handshake.
pub const HALF_OPEN: Duration = Duration::from_secs(30);
/// The idle time of a connection: two hours, as RFC 5382 asks for, and four minutes.
pub const ESTABLISHED: Duration = Duration::from_secs(2 * 3_600 + 4 * 60);
/// The idle time after one end sent its FIN; the other may still compute what it sends.
pub const HALF_CLOSED: Duration = Duration::from_secs(600);
/// The time after both FINs, in which segments may be repeated.
pub const CLOSING: Duration = Duration::from_secs(60);

/// The largest shift of RFC 7323.
const MAX_SHIFT: u8 = 14;

/// Whether a packet goes from the source to the target, or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Out,
    Back,
}

impl Direction {
    pub fn other(self) -> Direction {
        match self {
            Direction::Out => Direction::Back,
            Direction::Back => Direction::Out,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    SynSent,
    SynReceived,
    Established,
    /// At least one end sent its FIN.
    Closing,
    /// Both ends sent their FIN.
    Closed,
}

/// The numbers that one end sent and acknowledged.
#[derive(Clone, Copy, Debug, Default)]
struct Sender {
    /// The sequence number behind the last byte that it sent.
    end: u32,
    /// The sequence number that it expects next; `None` before its first acknowledgement.
    acked: Option<u32>,
    /// The right edge of the window that it offers.
    edge: u32,
    shift: u8,
    finished: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Tcp {
    pub state: State,
    out: Sender,
    back: Sender,
}

/// The effect of a permitted segment on its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentEffect {
    Passes,
    /// It passes, and the connection is over.
    Resets,
}

/// Returns whether `a` is at or after `b` in sequence space.
fn at_or_after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) < 1 << 31
}

impl Tcp {
    /// Begins with the first SYN of the source. `options`: those of the segment.
    pub fn open(syn: &Segment, options: &[u8]) -> Tcp {
        let out = Sender { end: syn.end(), shift: window_shift(options), ..Sender::default() };
        Tcp { state: State::SynSent, out, back: Sender::default() }
    }

    fn sender(&self, direction: Direction) -> &Sender {
        match direction {
            Direction::Out => &self.out,
            Direction::Back => &self.back,
        }
    }

    fn sender_mut(&mut self, direction: Direction) -> &mut Sender {
        match direction {
            Direction::Out => &mut self.out,
            Direction::Back => &mut self.back,
        }
    }

    pub fn timeout(&self) -> Duration {
        match self.state {
            State::SynSent | State::SynReceived => HALF_OPEN,
            State::Established => ESTABLISHED,
            State::Closing => HALF_CLOSED,
            State::Closed => CLOSING,
        }
    }

    /// Returns whether no end has confirmed yet that it hears the other.
    pub fn is_half_open(&self) -> bool {
        matches!(self.state, State::SynSent | State::SynReceived)
    }

    /// Follows a segment.
    ///
    /// # Errors
    /// Fails with the reason to drop the segment; nothing changes then.
    pub fn step(
        &mut self,
        direction: Direction,
        segment: &Segment,
        options: &[u8],
    ) -> Result<SegmentEffect, DropReason> {
        if segment.has(RST) {
            let genuine = self.is_genuine_reset(direction, segment);
            return if genuine { Ok(SegmentEffect::Resets) } else { Err(DropReason::BadReset) };
        }
        let opens = segment.is_pure_syn() && direction == Direction::Out;
        // A device that got one SYN must not send a stream before the handshake.
        if self.state == State::SynSent && segment.data > 0 && !opens {
            return Err(DropReason::NoFlow);
        }
        match (segment.has(SYN), segment.has(ACK), direction) {
            (true, false, Direction::Out) => self.repeated_syn(segment, options),
            // A device opens nothing, not even at the same moment.
            (true, false, Direction::Back) => return Err(DropReason::NoFlow),
            (true, true, Direction::Back) => self.syn_ack(segment, options),
            (true, true, Direction::Out) => return Err(DropReason::NoFlow),
            _ => self.follow(direction, segment),
        }
        Ok(SegmentEffect::Passes)
    }

    /// A source that does not know the connection any more sends a SYN into it; the target answers
    /// with an acknowledgement that makes the source reset it.
    fn repeated_syn(&mut self, segment: &Segment, options: &[u8]) {
        if self.state == State::SynSent {
            *self = Tcp::open(segment, options);
        }
    }

    fn syn_ack(&mut self, segment: &Segment, options: &[u8]) {
        if self.state != State::SynSent || segment.ack != self.out.end {
            return;
        }
        self.state = State::SynReceived;
        self.back = Sender { end: segment.end(), shift: window_shift(options), ..Sender::default() };
        // Both ends scale, or none does (RFC 7323, 2.2). The window of a SYN is never scaled.
        if self.out.shift == NO_SCALING || self.back.shift == NO_SCALING {
            (self.out.shift, self.back.shift) = (0, 0);
        }
        self.back.acked = Some(segment.ack);
        self.back.edge = segment.ack.wrapping_add(segment.window.into());
    }

    fn follow(&mut self, direction: Direction, segment: &Segment) {
        if self.state == State::SynSent {
            return self.unexpected_ack(direction, segment);
        }
        self.note_ack(direction, segment);
        self.note_data(direction, segment);
        let acknowledged = self.sender(Direction::Out).acked == Some(self.back.end);
        if self.state == State::SynReceived && direction == Direction::Out && acknowledged {
            self.state = State::Established;
        }
        self.note_finish(direction, segment);
    }

    /// The target still has an earlier connection of the same addresses and ports. Its
    /// acknowledgement makes the source reset that one, and shows where a reset must lie.
    fn unexpected_ack(&mut self, direction: Direction, segment: &Segment) {
        if direction == Direction::Back {
            self.back.acked = Some(segment.ack);
            self.back.edge = segment.ack.wrapping_add(segment.window.into());
        }
    }

    /// Notes what an end says it has received: never more than the other end sent.
    fn note_ack(&mut self, direction: Direction, segment: &Segment) {
        let sent = self.sender(direction.other()).end;
        let sender = self.sender_mut(direction);
        let goes_on = sender.acked.is_none_or(|acked| at_or_after(segment.ack, acked));
        if !goes_on || !at_or_after(sent, segment.ack) {
            return;
        }
        let first = sender.acked.is_none();
        sender.acked = Some(segment.ack);
        let edge = segment.ack.wrapping_add(u32::from(segment.window) << sender.shift.min(MAX_SHIFT));
        if first || at_or_after(edge, sender.edge) {
            sender.edge = edge;
        }
    }

    /// Notes how far an end has sent: never beyond what the other end offers to take.
    fn note_data(&mut self, direction: Direction, segment: &Segment) {
        let receiver = *self.sender(direction.other());
        let sender = self.sender_mut(direction);
        let end = segment.end();
        // A FIN lies behind the last byte and takes no room in the window.
        let room = receiver.edge.wrapping_add(1);
        let fits = receiver.acked.is_none() || at_or_after(room, end);
        if at_or_after(end, sender.end) && fits {
            sender.end = end;
        }
    }

    fn note_finish(&mut self, direction: Direction, segment: &Segment) {
        let sender = self.sender_mut(direction);
        if segment.has(FIN) && segment.end() == sender.end {
            sender.finished = true;
        }
        self.state = match (self.out.finished, self.back.finished) {
            (true, true) => State::Closed,
            (true, false) | (false, true) => State::Closing,
            _ => self.state,
        };
    }

    /// A reset is genuine if its sequence number lies in the receiver's window (RFC 5961). The
    /// answer to a SYN has none and acknowledges exactly the SYN (RFC 9293, 3.5.2).
    fn is_genuine_reset(&self, direction: Direction, segment: &Segment) -> bool {
        if self.state == State::SynSent && direction == Direction::Back {
            return segment.has(ACK) && segment.ack == self.out.end;
        }
        let receiver = self.sender(direction.other());
        match receiver.acked {
            Some(acked) => at_or_after(segment.seq, acked) && at_or_after(receiver.edge, segment.seq),
            None => segment.seq == self.sender(direction).end,
        }
    }

    /// Returns the segments that reset the receiver in a direction: sequence number and
    /// acknowledgement. The receiver takes a reset only at the byte that it expects. That is the
    /// last byte that was sent, unless segments were lost; then it is the one that it acknowledged.
    pub fn resets(&self, direction: Direction) -> [Option<(u32, u32)>; 2] {
        if self.state == State::Closed {
            return [None, None];
        }
        let (sender, receiver) = (self.sender(direction), self.sender(direction.other()));
        // The target has not answered: the source accepts a reset by its acknowledgement.
        let seq = if self.state == State::SynSent && direction == Direction::Back { 0 } else { sender.end };
        let expected = receiver.acked.filter(|acked| *acked != seq);
        [Some((seq, receiver.end)), expected.map(|seq| (seq, receiver.end))]
    }
}

const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const WINDOW_SCALE: u8 = 3;
/// No shift: the option is absent.
const NO_SCALING: u8 = u8::MAX;

/// Returns the shift that a SYN announces.
fn window_shift(options: &[u8]) -> u8 {
    let mut at = 0;
    while let Some(kind) = options.get(at) {
        let length = match (*kind, options.get(at + 1)) {
            (END_OF_OPTIONS, _) => return NO_SCALING,
            (NO_OPERATION, _) => 1,
            (WINDOW_SCALE, Some(3)) => {
                return options.get(at + 2).map_or(NO_SCALING, |shift| (*shift).min(MAX_SHIFT));
            }
            (_, Some(length)) if *length >= 2 => usize::from(*length),
            _ => return NO_SCALING,
        };
        at += length;
    }
    NO_SCALING
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(flags: u8, seq: u32, ack: u32, data: usize) -> Segment {
        Segment { src_port: 1, dst_port: 2, seq, ack, flags, window: 1_000, header: 20, data }
    }

    fn established() -> Tcp {
        let mut tcp = Tcp::open(&segment(SYN, 99, 0, 0), &[1, 3, 3, 2]);
        tcp.step(Direction::Back, &segment(SYN | ACK, 499, 100, 0), &[3, 3, 1]).expect("a SYN-ACK");
        tcp.step(Direction::Out, &segment(ACK, 100, 500, 0), &[]).expect("an ACK");
        assert_eq!(tcp.state, State::Established);
        tcp
    }

    fn reset(tcp: &Tcp, direction: Direction, seq: u32) -> bool {
        let mut tcp = *tcp;
        tcp.step(direction, &segment(RST, seq, 0, 0), &[]) == Ok(SegmentEffect::Resets)
    }

    #[test]
    fn a_handshake_passes_its_states() {
        let mut tcp = Tcp::open(&segment(SYN, 99, 0, 0), &[]);
        assert_eq!((tcp.state, tcp.timeout()), (State::SynSent, HALF_OPEN));
        tcp.step(Direction::Back, &segment(SYN | ACK, 499, 100, 0), &[]).expect("a SYN-ACK");
        assert_eq!(tcp.state, State::SynReceived);
        tcp.step(Direction::Out, &segment(ACK, 100, 500, 0), &[]).expect("an ACK");
        assert_eq!((tcp.state, tcp.timeout()), (State::Established, ESTABLISHED));
        tcp.step(Direction::Out, &segment(FIN | ACK, 100, 500, 0), &[]).expect("a FIN");
        assert_eq!((tcp.state, tcp.timeout()), (State::Closing, HALF_CLOSED));
        tcp.step(Direction::Back, &segment(FIN | ACK, 500, 101, 0), &[]).expect("a FIN");
        assert_eq!((tcp.state, tcp.timeout()), (State::Closed, CLOSING));
    }

    #[test]
    fn a_reset_is_genuine_in_the_receivers_window_only() {
        let tcp = established();
        // The source's window is scaled by four, the target's by two once it has said so.
        for (seq, genuine) in [(500, true), (4_500, true), (4_501, false), (499, false), (500_000, false)] {
            assert_eq!(reset(&tcp, Direction::Back, seq), genuine, "{seq}");
        }
        for (seq, genuine) in [(100, true), (1_100, true), (1_101, false), (99, false)] {
            assert_eq!(reset(&tcp, Direction::Out, seq), genuine, "{seq}");
        }
        let mut spoken = tcp;
        spoken.step(Direction::Back, &segment(ACK, 500, 100, 0), &[]).expect("an ACK");
        assert!(reset(&spoken, Direction::Out, 2_100) && !reset(&spoken, Direction::Out, 2_101));
    }

    #[test]
    fn the_answer_to_a_syn_acknowledges_it() {
        let tcp = Tcp::open(&segment(SYN, 99, 0, 0), &[]);
        for (flags, ack, genuine) in [(RST | ACK, 100, true), (RST | ACK, 99, false), (RST, 100, false)] {
            let mut tcp = tcp;
            let step = tcp.step(Direction::Back, &segment(flags, 0, ack, 0), &[]);
            assert_eq!(step.is_ok(), genuine);
        }
        assert!(reset(&tcp, Direction::Out, 100) && !reset(&tcp, Direction::Out, 777));
    }

    #[test]
    fn an_old_connection_of_the_target_can_be_reset() {
        let mut tcp = Tcp::open(&segment(SYN, 99, 0, 0), &[]);
        tcp.step(Direction::Back, &segment(ACK, 7_000, 55_000, 0), &[]).expect("an ACK");
        assert_eq!(tcp.state, State::SynSent);
        assert!(reset(&tcp, Direction::Out, 55_000) && !reset(&tcp, Direction::Out, 5_000));
    }

    #[test]
    fn no_data_passes_before_the_handshake() {
        let mut tcp = Tcp::open(&segment(SYN, 99, 0, 0), &[]);
        for (flags, ack) in [(ACK, 100), (FIN | ACK, 100), (SYN | ACK, 100), (SYN | ACK, 7), (0, 0)] {
            let data = segment(flags, 499, ack, 10);
            assert_eq!(tcp.step(Direction::Back, &data, &[]), Err(DropReason::NoFlow), "{flags}");
        }
        let early = segment(ACK, 100, 500, 10);
        assert_eq!(tcp.step(Direction::Out, &early, &[]), Err(DropReason::NoFlow));
        assert_eq!(tcp.state, State::SynSent);
        let fast_open = segment(SYN, 99, 0, 10);
        assert_eq!(tcp.step(Direction::Out, &fast_open, &[]), Ok(SegmentEffect::Passes));
    }

    #[test]
    fn sequence_numbers_wrap() {
        let mut tcp = Tcp::open(&segment(SYN, u32::MAX - 1, 0, 0), &[]);
        tcp.step(Direction::Back, &segment(SYN | ACK, u32::MAX, u32::MAX, 0), &[]).expect("a SYN-ACK");
        tcp.step(Direction::Out, &segment(ACK, u32::MAX, 0, 100), &[]).expect("data");
        assert_eq!(tcp.state, State::Established);
        tcp.step(Direction::Back, &segment(ACK, 0, 99, 0), &[]).expect("an ACK");
        assert!(reset(&tcp, Direction::Out, 99) && reset(&tcp, Direction::Out, 1_099));
        assert!(!reset(&tcp, Direction::Out, u32::MAX));
    }

    #[test]
    fn acknowledgements_of_unsent_bytes_and_data_beyond_the_window_move_nothing() {
        let mut tcp = established();
        tcp.step(Direction::Out, &segment(ACK, 100, 900_000, 0), &[]).expect("an ACK");
        assert!(!reset(&tcp, Direction::Back, 900_000));
        tcp.step(Direction::Back, &segment(ACK, 500_000, 100, 10), &[]).expect("data");
        assert_eq!(tcp.resets(Direction::Back)[0], Some((500, 100)));
    }

    #[test]
    fn resets_hit_the_expected_byte_after_a_loss_too() {
        let mut tcp = established();
        assert_eq!(tcp.resets(Direction::Out), [Some((100, 500)), None]);
        tcp.step(Direction::Out, &segment(ACK, 100, 500, 50), &[]).expect("data");
        assert_eq!(tcp.resets(Direction::Out), [Some((150, 500)), Some((100, 500))]);
        assert_eq!(tcp.resets(Direction::Back), [Some((500, 150)), None]);
        let half = Tcp::open(&segment(SYN, 99, 0, 0), &[]);
        assert_eq!(half.resets(Direction::Back), [Some((0, 100)), None]);
    }
}
