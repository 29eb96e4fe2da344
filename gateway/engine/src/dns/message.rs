//! Queries and answers on the wire. A query has exactly one question.

use std::net::IpAddr;

use domain::base::iana::{Class, Opcode, OptRcode, Rcode};
use domain::base::message_builder::{AdditionalBuilder, AnswerBuilder, PushError};
use domain::base::wire::ParseError;
use domain::base::{Message, MessageBuilder, Name, Rtype, Serial, StaticCompressor, ToName as _, Ttl};
use domain::rdata::{A, Aaaa, Ptr, Soa};

use super::{Carrier, LARGEST_DATAGRAM, TTL};

pub type DomainName = Name<Vec<u8>>;
type Target = StaticCompressor<Vec<u8>>;

/// The largest answer to a client that does not name another size (RFC 1035, section 4.2.1).
const PLAIN_DATAGRAM: usize = 512;

/// The times of an SOA record that only secondary servers use, of which there are none.
const UNUSED: Ttl = Ttl::from_secs(3_600);

/// Why bytes are not a query with one question.
#[derive(Debug)]
pub enum Unreadable<'a> {
    /// They are no message, or an answer: they get none, so that nothing goes round in circles.
    NoQuery,
    Malformed(Header<'a>),
}

/// A message of which only the header is known to be readable.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a>(&'a Message<[u8]>);

/// What a client with EDNS says of itself.
#[derive(Clone, Copy, Debug)]
struct Edns {
    size: u16,
    version: u8,
}

pub struct Query<'a> {
    message: &'a Message<[u8]>,
    pub name: DomainName,
    pub rtype: Rtype,
    pub class: Class,
    edns: Option<Edns>,
}

/// The data of a name.
#[derive(Clone, Debug)]
pub enum Data {
    Address(IpAddr),
    Pointer(DomainName),
    Soa(DomainName),
}

impl Data {
    pub fn rtype(&self) -> Rtype {
        match self {
            Data::Address(IpAddr::V4(_)) => Rtype::A,
            Data::Address(IpAddr::V6(_)) => Rtype::AAAA,
            Data::Pointer(_) => Rtype::PTR,
            Data::Soa(_) => Rtype::SOA,
        }
    }
}

/// What is answered, without the form that the query asks for.
#[derive(Clone, Debug)]
pub struct Response {
    pub rcode: OptRcode,
    /// The gateway itself knows it.
    pub authoritative: bool,
    /// The domain whose SOA record says how long an absence is remembered.
    pub authority: Option<DomainName>,
    pub data: Vec<Data>,
    /// The gateway answers other names by resolvers.
    pub recursion: bool,
    /// How long it may be remembered, in seconds.
    pub ttl: u32,
}

impl Response {
    pub fn error(rcode: Rcode) -> Self {
        Response { authoritative: false, ..Response::own(rcode) }
    }

    /// An answer about a name of ours.
    pub fn own(rcode: Rcode) -> Self {
        Response {
            rcode: rcode.into(),
            authoritative: true,
            authority: None,
            data: Vec::new(),
            recursion: false,
            ttl: TTL,
        }
    }

    /// The answer to a version of EDNS that does not exist yet.
    pub fn bad_version() -> Self {
        Response { rcode: OptRcode::BADVERS, ..Response::error(Rcode::NOERROR) }
    }
}

impl Header<'_> {
    pub fn form_error(self) -> Vec<u8> {
        let mut builder = MessageBuilder::new_vec();
        let (asked, header) = (self.0.header(), builder.header_mut());
        header.set_id(asked.id());
        header.set_qr(true);
        header.set_opcode(asked.opcode());
        header.set_rd(asked.rd());
        header.set_rcode(Rcode::FORMERR);
        builder.finish()
    }
}

impl<'a> Query<'a> {
    /// # Errors
    /// Fails when the bytes are no query with exactly one question.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Unreadable<'a>> {
        let message = Message::from_slice(bytes).map_err(|_| Unreadable::NoQuery)?;
        if message.header().qr() {
            return Err(Unreadable::NoQuery);
        }
        let malformed = || Unreadable::Malformed(Header(message));
        let question = message.sole_question().map_err(|_| malformed())?;
        if !has_sound_additions(message).unwrap_or(false) {
            return Err(malformed());
        }
        let edns = message.opt().map(|opt| Edns { size: opt.udp_payload_size(), version: opt.version() });
        let (name, rtype, class) = (question.qname().to_name(), question.qtype(), question.qclass());
        Ok(Query { message, name, rtype, class, edns })
    }

    pub fn id(&self) -> u16 {
        self.message.header().id()
    }

    pub fn opcode(&self) -> Opcode {
        self.message.header().opcode()
    }

    pub fn wants_recursion(&self) -> bool {
        self.message.header().rd()
    }

    pub fn edns_version(&self) -> u8 {
        self.edns.map_or(0, |edns| edns.version)
    }

    /// The largest answer that the client takes this way.
    pub fn room(&self, carrier: Carrier) -> usize {
        let size = self.edns.map_or(PLAIN_DATAGRAM, |edns| usize::from(edns.size));
        match carrier {
            Carrier::Udp => size.clamp(PLAIN_DATAGRAM, LARGEST_DATAGRAM),
            Carrier::Tcp => usize::from(u16::MAX),
        }
    }

    /// Writes the answer. One that is too large for a datagram says so instead, and the client comes
    /// back over TCP.
    pub fn answer(&self, response: &Response, carrier: Carrier) -> Vec<u8> {
        let whole = self.write(response, false).ok().filter(|bytes| bytes.len() <= self.room(carrier));
        whole.unwrap_or_else(|| self.truncated(response.clone()))
    }

    /// Writes an answer without data, by which the client comes back over TCP.
    pub fn truncated(&self, response: Response) -> Vec<u8> {
        let empty = Response { authority: None, data: Vec::new(), ..response };
        // A question and an OPT record always have room.
        self.write(&empty, true).unwrap_or_default()
    }

    fn write(&self, response: &Response, truncated: bool) -> Result<Vec<u8>, PushError> {
        let builder = MessageBuilder::from_target(StaticCompressor::new(Vec::new()));
        let builder = builder.map_err(|_| PushError::ShortBuf)?;
        let mut builder = builder.start_answer(self.message, response.rcode.rcode())?;
        let header = builder.header_mut();
        header.set_aa(response.authoritative);
        header.set_tc(truncated);
        header.set_ra(response.recursion);
        let ttl = Ttl::from_secs(response.ttl);
        for data in &response.data {
            push(&mut builder, &self.name, data, ttl)?;
        }
        let mut builder = builder.authority();
        if let Some(apex) = &response.authority {
            builder.push((apex, Class::IN, ttl, soa(apex, ttl)))?;
        }
        let mut builder = builder.additional();
        if self.edns.is_some() {
            push_opt(&mut builder, response.rcode)?;
        }
        Ok(builder.finish().into_target())
    }
}

/// Returns whether there is at most one OPT record (RFC 6891, section 6.1.1).
///
/// # Errors
/// Fails when a record cannot be read.
fn has_sound_additions(message: &Message<[u8]>) -> Result<bool, ParseError> {
    let mut opts = 0;
    for record in message.additional()? {
        opts += usize::from(record?.rtype() == Rtype::OPT);
    }
    Ok(opts <= 1)
}

fn push(
    builder: &mut AnswerBuilder<Target>,
    name: &DomainName,
    data: &Data,
    ttl: Ttl,
) -> Result<(), PushError> {
    match data {
        Data::Address(IpAddr::V4(address)) => builder.push((name, Class::IN, ttl, A::new(*address))),
        Data::Address(IpAddr::V6(address)) => builder.push((name, Class::IN, ttl, Aaaa::new(*address))),
        Data::Pointer(to) => builder.push((name, Class::IN, ttl, Ptr::new(to))),
        Data::Soa(apex) => builder.push((name, Class::IN, ttl, soa(apex, ttl))),
    }
}

fn push_opt(builder: &mut AdditionalBuilder<Target>, rcode: OptRcode) -> Result<(), PushError> {
    builder.opt(|opt| {
        opt.set_udp_payload_size(LARGEST_DATAGRAM as u16);
        opt.set_rcode(rcode);
        Ok(())
    })
}

/// The record by which an absence is remembered for so long. No server but this one has the domain,
/// and no mailbox belongs to it.
fn soa(apex: &DomainName, ttl: Ttl) -> Soa<DomainName> {
    Soa::new(apex.clone(), Name::root_vec(), Serial(1), UNUSED, UNUSED, UNUSED, ttl)
}
