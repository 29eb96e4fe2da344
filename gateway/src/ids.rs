//! Ids and names in paths and responses. Names never contain `_`, so that a path accepts either.

use fleetgate_engine::id::Id;
use fleetgate_engine::time::Wall;

/// The kind of resource that an id names. Its prefix stands before the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdKind {
    /// Hosts and devices, which share their ids.
    Host,
    Enrolment,
    Token,
    User,
    Acknowledgement,
    Downtime,
    Contact,
    Rule,
    /// A notification, before it becomes messages.
    Notice,
    /// A message to one address.
    Message,
    Incident,
    /// A managed resource that was removed.
    Removal,
    /// A peer of a person.
    Operator,
    Grant,
    /// A connection of a person to a host.
    Stream,
    Customer,
    /// A person of a customer.
    Person,
    /// A peer of a person of a customer.
    Renter,
    Booking,
    Rental,
    /// A time in which a device cannot be booked.
    Block,
    RentalEvent,
    /// A receiver of the events of rentals.
    Subscription,
}

impl IdKind {
    const fn prefix(self) -> &'static str {
        match self {
            IdKind::Host => "h_",
            IdKind::Enrolment => "e_",
            IdKind::Token => "t_",
            IdKind::User => "u_",
            IdKind::Acknowledgement => "a_",
            IdKind::Downtime => "d_",
            IdKind::Contact => "c_",
            IdKind::Rule => "r_",
            IdKind::Notice => "n_",
            IdKind::Message => "m_",
            IdKind::Incident => "i_",
            IdKind::Removal => "g_",
            IdKind::Operator => "o_",
            IdKind::Grant => "p_",
            IdKind::Stream => "s_",
            IdKind::Customer => "k_",
            IdKind::Person => "y_",
            IdKind::Renter => "w_",
            IdKind::Booking => "b_",
            IdKind::Rental => "l_",
            IdKind::Block => "x_",
            IdKind::RentalEvent => "v_",
            IdKind::Subscription => "z_",
        }
    }

    const fn noun(self) -> &'static str {
        match self {
            IdKind::Host => "host or device",
            IdKind::Enrolment => "enrolment",
            IdKind::Token => "token",
            IdKind::User => "user",
            IdKind::Acknowledgement => "acknowledgement",
            IdKind::Downtime => "downtime",
            IdKind::Contact => "contact",
            IdKind::Rule => "rule",
            IdKind::Notice => "notification",
            IdKind::Message => "message",
            IdKind::Incident => "incident",
            IdKind::Removal => "removal",
            IdKind::Operator => "operator",
            IdKind::Grant => "grant",
            IdKind::Stream => "connection",
            IdKind::Customer => "customer",
            IdKind::Person => "person",
            IdKind::Renter => "renter",
            IdKind::Booking => "booking",
            IdKind::Rental => "rental",
            IdKind::Block => "block",
            IdKind::RentalEvent => "event of a rental",
            IdKind::Subscription => "subscription",
        }
    }

    pub fn text(self, id: Id) -> String {
        format!("{}{id}", self.prefix())
    }

    /// # Errors
    /// Fails for an invalid id, because it names nothing.
    pub fn parse(self, text: &str) -> Result<Id, Unknown> {
        self.id(text).ok_or_else(|| self.unknown(text))
    }

    fn id(self, text: &str) -> Option<Id> {
        text.strip_prefix(self.prefix())?.parse().ok()
    }

    pub fn unknown(self, text: &str) -> Unknown {
        // The text is hostile. Valid names are short.
        let shown: String = text.chars().take(80).collect();
        Unknown(format!("no {} is called {shown:?}", self.noun()))
    }
}

/// An id or a name that names nothing, as a sentence for the caller.
#[derive(Debug)]
pub struct Unknown(pub String);

/// An id or a name from a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    Id(Id),
    Name(String),
}

impl IdKind {
    pub fn named(self, text: &str) -> Named {
        self.id(text).map_or_else(|| Named::Name(text.to_owned()), Named::Id)
    }
}

/// Generates an id. The database's primary key ensures that it is unique.
///
/// # Panics
/// Panics when the operating system provides no randomness.
pub fn new_id(now: Wall) -> Id {
    let mut random = [0u8; 4];
    getrandom::fill(&mut random).expect("the operating system gives random bytes");
    Id::new(now.as_millis(), u32::from_ne_bytes(random))
}

/// Returns the id for events that have nothing to name.
pub fn nothing() -> Id {
    Id::from_i64(0)
}

/// Formats a time as RFC 3339 in UTC.
pub fn time(at: Wall) -> String {
    jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_takes_an_id_or_a_name() {
        let id = Id::from_i64(7);
        assert_eq!(IdKind::Host.named(&IdKind::Host.text(id)), Named::Id(id));
        assert_eq!(IdKind::Host.named("cam-07"), Named::Name("cam-07".into()));
        assert!(IdKind::User.parse(&IdKind::Host.text(id)).is_err());
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(time(Wall::from_millis(1_700_000_000_250)), "2023-11-14T22:13:20.25Z");
    }
}
