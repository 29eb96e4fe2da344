//! Answers to questions in which a renter or a rental takes part. The packet filter decides; what it does not know,
//! such as a rental that is not confirmed, the row of the rental says.

use fleetgate_engine::id::{CustomerId, PeerId};
use fleetgate_engine::messages::{Explanation as PolicyDecision, GrantAccess, GrantWindow};
use fleetgate_engine::rental::access::excess;
use fleetgate_engine::time::Wall;

use super::words;
use crate::api::rentals::access_in_words;
use crate::api::request::ids::{self, IdKind};
use crate::store::rentals::Rental;

/// A question in which a renter or a rental takes part.
#[derive(Clone, Copy)]
pub struct Renting<'a> {
    /// `None`: an operator or user asks.
    pub renter: Option<(PeerId, CustomerId)>,
    /// `None`: the question is about a host.
    pub rental: Option<&'a Rental>,
    /// Why the rental is delayed, in words.
    pub delays: &'a str,
    pub at: Wall,
}

/// The rental that decides, in place of a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RentalDecision {
    pub result: &'static str,
    /// The permission, or the missing condition.
    pub why: String,
    /// When the rental permits something, if that decides.
    pub window: Option<(Wall, Wall)>,
}

impl Renting<'_> {
    /// Says what the answer of the filter means.
    pub fn decision(&self, found: &PolicyDecision, wanted: &GrantAccess) -> RentalDecision {
        match (self.renter, self.rental) {
            (Some(renter), Some(rental)) => self.of_rental((found, wanted), renter, rental),
            (Some(_), None) => {
                no_grant("renters reach the devices of their rentals alone, by the addresses of these".to_owned())
            }
            (None, _) => no_grant(
                "only renters of its customer reach a rental; operators reach its device by the name of the device"
                    .to_owned(),
            ),
        }
    }

    fn of_rental(
        &self,
        (found, wanted): (&PolicyDecision, &GrantAccess),
        renter: (PeerId, CustomerId),
        rental: &Rental,
    ) -> RentalDecision {
        let at = |at: Option<Wall>| at.map(ids::time).unwrap_or_default();
        let decided = |why: String, of: &GrantWindow| RentalDecision {
            result: words::name(found),
            why,
            window: of.from.zip(of.until),
        };
        match found {
            PolicyDecision::Permitted(of) => decided(format!("until {}", at(of.until)), of),
            PolicyDecision::NotYet(of) => decided(format!("the rental begins at {}", at(of.from)), of),
            PolicyDecision::Over(of) => decided(format!("the rental ended at {}", at(of.until)), of),
            PolicyDecision::Delayed(of) => decided(format!("the rental is delayed: {}", self.delays), of),
            PolicyDecision::Blocked(of) => decided("the device of the rental is blocked".to_owned(), of),
            PolicyDecision::ClockBehind(of) => {
                let why = "the rental waits, because the gateway's clock is behind an earlier time";
                decided(why.to_owned(), of)
            }
            PolicyDecision::ClockStep(of) => {
                let why = "the rental waits, because the gateway's clock was set minutes ago";
                decided(why.to_owned(), of)
            }
            PolicyDecision::UnknownSource if rental.admits(renter.0, renter.1) => RentalDecision {
                result: words::name(found),
                why: "this renter does not connect: it has no key, or was removed".to_owned(),
                window: None,
            },
            PolicyDecision::NoGrant
            | PolicyDecision::NoCommonFamily
            | PolicyDecision::UnknownSource
            | PolicyDecision::UnknownTarget => self.by_the_row(wanted, renter, rental),
        }
    }

    /// The first thing that is missing. The answer says nothing about a rental of others.
    fn by_the_row(
        &self,
        wanted: &GrantAccess,
        (renter, customer): (PeerId, CustomerId),
        rental: &Rental,
    ) -> RentalDecision {
        if !rental.admits(renter, customer) {
            let of = IdKind::Customer.text(rental.customer);
            return no_grant(format!("the rental of the customer {of} does not admit this renter"));
        }
        let Some((from, until)) = rental.life.access() else {
            return no_grant(match rental.life.hold_until {
                Some(_) if rental.life.state(self.at).is_open() => "the rental is not confirmed".to_owned(),
                _ => "the rental was cancelled".to_owned(),
            });
        };
        if excess(std::slice::from_ref(wanted), &rental.access).is_some() {
            let access = access_in_words(&rental.access);
            return no_grant(format!("renters of the rental reach {access}"));
        }
        let window = Some((from, until));
        match () {
            // One that was ended is over at all times, whatever the clock showed then.
            () if self.at >= until || rental.life.ending.is_some() => RentalDecision {
                result: "over",
                why: format!("the rental ended at {}", ids::time(until)),
                window,
            },
            () if self.at < from => RentalDecision {
                result: "not_yet",
                why: format!("the rental begins at {}", ids::time(from)),
                window,
            },
            () if rental.is_cut() => RentalDecision { result: "no_grant", why: used(rental), window },
            () => {
                RentalDecision { result: "unknown_target", why: unreachable(rental).to_owned(), window: None }
            }
        }
    }
}

fn no_grant(why: String) -> RentalDecision {
    RentalDecision { result: "no_grant", why, window: None }
}

fn used(rental: &Rental) -> String {
    let bytes = rental.allowance.map_or(0, |allowance| allowance.bytes);
    format!("the rental has used its allowance of {bytes} bytes, and a larger one opens it again")
}

fn unreachable(rental: &Rental) -> &'static str {
    match rental.alias {
        None => {
            "the rental has no address, because the block of its customer was full when the gateway started"
        }
        Some(_) => "the device of the rental cannot be reached: it was removed, or has no tunnel",
    }
}
