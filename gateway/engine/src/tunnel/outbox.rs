//! Datagrams on their way out. They are sealed where they leave from, and gathered by destination.
//!
//! One call to the system sends many datagrams of one size to one destination, which costs a fraction
//! of a call for each. The outbox therefore puts a datagram behind the last one for its destination
//! if that call can take it; datagrams for one destination keep their order. A buffer that was sent
//! comes back and is used again, so that a stream of datagrams allocates nothing.

use std::collections::VecDeque;

use crate::messages::Transmit;
use crate::tunnel::peers::Endpoint;

/// Datagrams in one call, as Linux and other systems limit it.
const MAX_DATAGRAMS: usize = 64;
/// Bytes in one call: the largest IP packet, less the headers.
const MAX_BYTES: usize = 65_000;
/// Room for a datagram beyond its packet. The cryptography asks for more than it uses.
const ROOM: usize = 2_048;
/// Destinations among which the one of a datagram is searched: the receivers of a turn. With more of
/// them a datagram begins another batch.
const SEARCHED: usize = 16;
/// Buffers that are kept. Each has up to 67 KB; those beyond are freed.
const MAX_SPARE: usize = 32;

/// Datagrams for one destination.
struct Batch {
    to: Endpoint,
    /// The size of the first; the others are as long, and the last may be shorter.
    size: usize,
    count: usize,
    /// The end of the last one.
    used: usize,
    /// Longer than `used`, so that room for a datagram needs not be cleared each time.
    bytes: Vec<u8>,
}

impl Batch {
    fn takes(&self, len: usize) -> bool {
        self.count == 0 || (len <= self.size && len > 0 && self.used + len <= MAX_BYTES)
    }

    fn is_closed(&self) -> bool {
        self.count >= MAX_DATAGRAMS || self.used < self.size * self.count || self.used + self.size > MAX_BYTES
    }

    fn room(&mut self, len: usize) -> &mut [u8] {
        let end = self.used + len;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        &mut self.bytes[self.used..]
    }

    fn add(&mut self, len: usize) {
        if self.count == 0 {
            self.size = len;
        }
        self.count += 1;
        self.used += len;
    }
}

#[derive(Default)]
pub struct Outbox {
    batches: VecDeque<Batch>,
    spare: Vec<Vec<u8>>,
}

impl Outbox {
    /// Appends a datagram that `write` makes of a packet of this length. It gets more room than that, and
    /// returns the length of the datagram.
    ///
    /// # Errors
    /// Fails as `write` does. Nothing is appended then.
    pub fn write<E>(
        &mut self,
        to: Endpoint,
        packet: usize,
        write: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let at = self.open(to);
        let batch = &mut self.batches[at];
        let written = write(batch.room(packet + ROOM));
        match written {
            Ok(len) if batch.takes(len) => batch.add(len),
            Ok(len) => self.move_on(at, len),
            Err(_) => self.drop_empty(),
        }
        written
    }

    /// Appends a datagram.
    pub fn push(&mut self, to: Endpoint, datagram: &[u8]) {
        let copy = |room: &mut [u8]| {
            room[..datagram.len()].copy_from_slice(datagram);
            Ok::<usize, std::convert::Infallible>(datagram.len())
        };
        let Ok(_) = self.write(to, datagram.len(), copy);
    }

    /// Takes the oldest batch.
    pub fn pop(&mut self) -> Option<Transmit> {
        let Batch { to, size, used, mut bytes, .. } = self.batches.pop_front()?;
        bytes.truncate(used);
        Some(Transmit { to: to.remote, from: to.local, size, bytes })
    }

    /// Takes a buffer for datagrams to come.
    pub fn lend(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < MAX_SPARE {
            self.spare.push(buffer);
        }
    }

    /// Returns the batch that the next datagram for this destination is written to.
    fn open(&mut self, to: Endpoint) -> usize {
        let recent = self.batches.iter().enumerate().rev().take(SEARCHED);
        let newest = recent.into_iter().find(|(_, batch)| batch.to == to);
        match newest {
            Some((at, batch)) if !batch.is_closed() => at,
            _ => self.begin(to),
        }
    }

    fn begin(&mut self, to: Endpoint) -> usize {
        let bytes = self.spare.pop().unwrap_or_default();
        self.batches.push_back(Batch { to, size: 0, count: 0, used: 0, bytes });
        self.batches.len() - 1
    }

    /// Moves a datagram that was written behind others of another size to a batch of its own.
    fn move_on(&mut self, from: usize, len: usize) {
        let at = self.begin(self.batches[from].to);
        let mut bytes = std::mem::take(&mut self.batches[at].bytes);
        let Batch { used, bytes: written, .. } = &self.batches[from];
        bytes.clear();
        bytes.extend_from_slice(&written[*used..*used + len]);
        self.batches[at].bytes = bytes;
        self.batches[at].add(len);
    }

    /// Drops a batch whose first datagram could not be written.
    fn drop_empty(&mut self) {
        if self.batches.back().is_some_and(|batch| batch.count == 0)
            && let Some(empty) = self.batches.pop_back()
        {
            self.lend(empty.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(port: u16) -> Endpoint {
        Endpoint { remote: ([192, 0, 2, 1], port).into(), local: None }
    }

    /// Returns the port and the lengths of the datagrams of each batch.
    fn drained(outbox: &mut Outbox) -> Vec<(u16, Vec<usize>)> {
        std::iter::from_fn(|| outbox.pop())
            .map(|transmit| (transmit.to.port(), transmit.datagrams().map(<[u8]>::len).collect()))
            .collect()
    }

    #[test]
    fn datagrams_are_gathered_by_destination_and_size() {
        let mut outbox = Outbox::default();
        for (port, len) in [(1, 100), (2, 50), (1, 100), (2, 50), (1, 40), (1, 100), (2, 60)] {
            outbox.push(to(port), &vec![port as u8; len]);
        }
        assert_eq!(
            drained(&mut outbox),
            [(1, vec![100, 100, 40]), (2, vec![50, 50]), (1, vec![100]), (2, vec![60])]
        );
    }

    #[test]
    fn a_batch_holds_what_one_call_takes() {
        let mut outbox = Outbox::default();
        (0..70).for_each(|_| outbox.push(to(1), &[1; 32]));
        (0..60).for_each(|_| outbox.push(to(2), &[2; 1_312]));
        let counts: Vec<usize> = drained(&mut outbox).iter().map(|(_, sizes)| sizes.len()).collect();
        assert_eq!(counts, [64, 6, 49, 11]);
    }

    #[test]
    fn datagrams_for_one_destination_keep_their_order() {
        let mut outbox = Outbox::default();
        let sizes = |n: u16| usize::from(n * 7 % 5) * 30 + 30;
        // More destinations than are searched.
        for n in 0..400 {
            outbox.push(to(n % 40), &vec![(n / 40) as u8; sizes(n)]);
        }
        let mut last = [0; 40];
        let mut count = 0;
        while let Some(transmit) = outbox.pop() {
            for datagram in transmit.datagrams() {
                let last = &mut last[usize::from(transmit.to.port())];
                assert!(datagram[0] >= *last);
                *last = datagram[0];
                count += 1;
            }
        }
        assert_eq!(count, 400);
    }

    #[test]
    fn a_datagram_that_is_not_made_leaves_nothing() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.write(to(1), 10, |_| Err(7)), Err(7));
        assert!(outbox.pop().is_none());
        outbox.push(to(1), &[1; 20]);
        assert_eq!(outbox.write(to(1), 10, |_| Err(7)), Err(7));
        assert_eq!(drained(&mut outbox), [(1, vec![20])]);
    }

    #[test]
    fn buffers_come_back_and_are_bounded() {
        let mut outbox = Outbox::default();
        outbox.push(to(1), &[1; 100]);
        let sent = outbox.pop().expect("a batch").bytes;
        let place = sent.as_ptr();
        outbox.lend(sent);
        outbox.push(to(2), &[2; 80]);
        let transmit = outbox.pop().expect("a batch");
        assert_eq!((transmit.bytes.as_ptr(), &transmit.bytes[..]), (place, &[2; 80][..]));
        (0..100).for_each(|_| outbox.lend(Vec::with_capacity(10)));
        assert_eq!(outbox.spare.len(), MAX_SPARE);
    }
}
