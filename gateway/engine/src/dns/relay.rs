//! Gives the shell all that it needs to pass a query on to a resolver, and the reply back.

use domain::base::Message;
use domain::base::iana::Rcode;

use super::Carrier;
use super::message::{Query, Response};

/// The outcome of the reply of a resolver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Relayed {
    /// The reply for the client.
    Reply(Vec<u8>),
    /// It does not answer the query: a stranger's guess, or a late reply.
    NoAnswer,
}

/// Returns a query as it goes to a resolver, with another id, which a stranger would have to guess.
/// `None`: it is no query.
pub fn query_of(query: &[u8], id: u16) -> Option<Vec<u8>> {
    Query::read(query).ok()?;
    let mut copy = query.to_vec();
    set_id(&mut copy, id);
    Some(copy)
}

/// Returns what the client gets for the reply of a resolver to `sent`. A reply that is too large for
/// a datagram becomes the advice to come back over TCP.
pub fn relayed(query: &[u8], sent: &[u8], reply: &[u8], carrier: Carrier) -> Relayed {
    let (Ok(asked), Ok(sent), Ok(answer)) =
        (Query::read(query), Message::from_slice(sent), Message::from_slice(reply))
    else {
        return Relayed::NoAnswer;
    };
    if !answer.is_answer(sent) {
        return Relayed::NoAnswer;
    }
    if reply.len() > asked.room(carrier) {
        let response = Response { recursion: true, ..Response::error(answer.header().rcode()) };
        return Relayed::Reply(asked.truncated(response));
    }
    let mut copy = reply.to_vec();
    set_id(&mut copy, asked.id());
    Relayed::Reply(copy)
}

/// Returns the answer to a query that no resolver answered. `None`: it is no query.
pub fn failure(query: &[u8], carrier: Carrier) -> Option<Vec<u8>> {
    let response = Response { recursion: true, ..Response::error(Rcode::SERVFAIL) };
    Some(Query::read(query).ok()?.answer(&response, carrier))
}

fn set_id(message: &mut [u8], id: u16) {
    if let Some(place) = message.first_chunk_mut::<2>() {
        *place = id.to_be_bytes();
    }
}
