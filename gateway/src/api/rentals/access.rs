//! What rentals give access to: the protocols and ports, the renters who are admitted, and under which name and
//! address they reach the device.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use fleetgate_engine::id::{CustomerId, PeerId};
use fleetgate_engine::messages::{GrantAccess, GrantProtocol};
use fleetgate_engine::rental::access::{Excess, excess};
use fleetgate_engine::time::Wall;

use crate::api::AppState;
use crate::api::devices::refusal;
use crate::api::grants::{self, access_list, access_to_api};
use crate::api::request::ids::{self, IdKind};
use crate::api::request::parse::Fields;
use crate::api::request::transaction::ApiTx;
use crate::api::response::problem::Problem;
use crate::store::grants::protocol_name;
use crate::store::rentals::aliases::{self, Alias, NoAlias};
use crate::store::rentals::renters;

/// Renters that a rental names. Without any it admits all of the customer.
const MAX_RENTERS: usize = 256;
/// Characters of a DNS label (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 63;

// ------------------------------------------------------------------- parsing

/// Reads the access of a rental.
pub fn access(wrong: &mut Fields, prefix: &str, list: Vec<grants::GrantAccess>) -> Option<Vec<GrantAccess>> {
    match access_list(list) {
        Ok(list) => Some(list),
        Err((field, detail)) => wrong.take(&format!("{prefix}{field}"), Err(detail)),
    }
}

/// Reads what a device or profile allows, which may be nothing.
pub fn allowed(wrong: &mut Fields, prefix: &str, list: Vec<grants::GrantAccess>) -> Option<Vec<GrantAccess>> {
    if list.is_empty() { Some(Vec::new()) } else { access(wrong, prefix, list) }
}

/// Reads the name of a rental: a label of DNS, in lower case.
pub fn name(text: String) -> Result<String, String> {
    let is_outer = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
    let fine = bytes.len() <= MAX_NAME && is_outer(bytes.first()) && is_outer(bytes.last());
    if fine && bytes.iter().all(inner) {
        return Ok(text);
    }
    Err(format!(
        "1 to {MAX_NAME} characters of a-z 0-9 and - are expected, with a letter or digit at the begin and the end"
    ))
}

/// Reads the ids of renters, who may not exist.
pub fn renters_named(list: Vec<String>) -> Result<BTreeSet<PeerId>, String> {
    if list.len() > MAX_RENTERS {
        return Err(format!(
            "at most {MAX_RENTERS} are expected; without renters all of the customer are admitted"
        ));
    }
    list.iter().map(|text| IdKind::Renter.parse(text).map_err(|unknown| unknown.0)).collect()
}

// ------------------------------------------------------------------ decisions

/// # Errors
/// Returns 422 when one of these is no renter of the customer.
pub async fn must_be_renters(
    write: &mut ApiTx<'_>,
    customer: CustomerId,
    (field, wanted): (&str, Option<&BTreeSet<PeerId>>),
) -> Result<(), Problem> {
    let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) else { return Ok(()) };
    let known = renters::of_customer(write.tx(), customer).await?;
    let known: BTreeSet<PeerId> = known.into_iter().map(|renter| renter.id).collect();
    match wanted.difference(&known).next() {
        None => Ok(()),
        Some(stranger) => {
            let stranger = IdKind::Renter.text(*stranger);
            Err(Problem::invalid(field, format!("{stranger} is no renter of this customer (GET /renters)")))
        }
    }
}

/// Says what of the wanted access a device does not allow.
pub fn beyond(device: &str, wanted: &[GrantAccess], allowed: &[GrantAccess]) -> Option<String> {
    let Excess { protocol, port } = excess(wanted, allowed)?;
    let what = match port {
        Some(port) => format!("{} {port}", protocol_name(protocol)),
        None => protocol_name(protocol).to_owned(),
    };
    Some(format!("{device} does not allow {what}; renters reach at most {}", words(allowed)))
}

/// Formats `icmp, tcp 22 80 8000-8100`.
pub fn words(access: &[GrantAccess]) -> String {
    let ports = |of: &GrantAccess| -> String {
        let range = |range: &RangeInclusive<u16>| match (range.start(), range.end()) {
            (first, last) if first == last => format!(" {first}"),
            (first, last) => format!(" {first}-{last}"),
        };
        if of.protocol == GrantProtocol::Icmp { String::new() } else { of.ports.iter().map(range).collect() }
    };
    let all: Vec<String> =
        access.iter().map(|of| format!("{}{}", protocol_name(of.protocol), ports(of))).collect();
    if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
}

/// The names that rentals of a customer have, each with the time from which it is free.
pub type NamesInUse = BTreeMap<String, Wall>;

/// Returns the names of new rentals: the given ones, and for the others `device-N` with the lowest numbers that no
/// rental of the customer has.
///
/// # Errors
/// Returns 409 for a name that another one has.
pub fn names(in_use: &NamesInUse, given: &[Option<String>]) -> Result<Vec<String>, Problem> {
    let mut new = BTreeSet::new();
    for (n, name) in given.iter().enumerate().filter_map(|(n, name)| Some((n, name.as_ref()?))) {
        let field = format!("items[{n}].name");
        if let Some(free_at) = in_use.get(name) {
            return Err(name_taken(&field, name, *free_at));
        }
        if !new.insert(name) {
            let detail = format!("{field}: another item is called {name:?} too: choose another name");
            return Err(Problem::conflict("name_taken", detail));
        }
    }
    let mut numbers = 1..;
    let is_free = |name: &String| !in_use.contains_key(name) && !new.contains(name);
    let mut next = || numbers.by_ref().map(|n: u32| format!("device-{n}")).find(is_free).unwrap_or_default();
    Ok(given.iter().map(|name| name.clone().unwrap_or_else(&mut next)).collect())
}

fn name_taken(field: &str, name: &str, free_at: Wall) -> Problem {
    let free = match free_at {
        aliases::NOT_KNOWN => "a day after its device is back and cleaned".to_owned(),
        free_at => format!("at {}, a day after it is over", ids::time(free_at)),
    };
    let detail = format!(
        "{field}: a rental of this customer is called {name:?}, and its name is free {free}: choose another name"
    );
    Problem::conflict("name_taken", detail)
}

pub async fn names_in_use(write: &mut ApiTx<'_>, customer: CustomerId) -> Result<NamesInUse, Problem> {
    let now = write.now;
    let mut names = NamesInUse::new();
    for (name, freed_at) in aliases::names(write.tx(), customer, now).await? {
        let free_at = names.entry(name).or_insert(now);
        *free_at = freed_at.max(*free_at);
    }
    Ok(names)
}

/// # Errors
/// Returns 409 when another rental of the customer has this name.
pub async fn name_is_free(write: &mut ApiTx<'_>, customer: CustomerId, name: &str) -> Result<(), Problem> {
    let free_at = names_in_use(write, customer).await?.remove(name);
    free_at.map_or(Ok(()), |free_at| Err(name_taken("name", name, free_at)))
}

/// Takes the lowest free alias of a customer. Rentals that have it no longer leave the policy.
///
/// # Errors
/// Returns 409 when the block of the customer is full, or there is no room for one.
pub async fn take_alias(
    app: &AppState,
    write: &mut ApiTx<'_>,
    customer: CustomerId,
) -> Result<Alias, Problem> {
    let (room, now) = ((app.config.alias_slots, app.config.pools()), write.now);
    let (alias, former) = aliases::take(write.tx(), customer, room, now).await.map_err(no_alias)?;
    former.into_iter().for_each(|rental| write.rental(rental));
    Ok(alias)
}

fn no_alias(error: NoAlias) -> Problem {
    match error {
        NoAlias::Full { next_at, .. } => Problem::conflict("alias_block_full", block_full(&error, next_at)),
        NoAlias::Address(error) => refusal(error.into(), None),
        NoAlias::Store(error) => error.into(),
    }
}

fn block_full(error: &NoAlias, next_at: Wall) -> String {
    if next_at == aliases::NOT_KNOWN {
        return format!(
            "{error}; one is free a day after a device is back from its rental and cleaned: note the return of shipped \
             devices"
        );
    }
    format!(
        "{error}; the next one is free at {}, a day after its rental is over: book then, or cancel or end rentals in \
         time",
        ids::time(next_at)
    )
}

/// Returns the access of a rental as the API has it.
pub fn to_api(access: &[GrantAccess]) -> Vec<grants::GrantAccess> {
    access.iter().map(access_to_api).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_label_of_dns_in_lower_case() {
        for fine in ["a", "7", "device-1", "cam--x", &"x".repeat(63)] {
            assert_eq!(name(fine.to_owned()).as_deref(), Ok(fine));
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "a b", "\u{fc}", &"x".repeat(64)] {
            assert!(name(bad.to_owned()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_that_are_not_given_are_the_lowest_free_ones() {
        let free_at = Wall::from_millis(86_400_000);
        let taken: NamesInUse = ["device-1", "device-4", "cam"].map(|name| (name.to_owned(), free_at)).into();
        let given = |names: &[&str]| -> Vec<Option<String>> {
            names.iter().map(|name| Some((*name).to_owned()).filter(|name| !name.is_empty())).collect()
        };
        let named = names(&taken, &given(&["", "device-2", "", ""])).unwrap();
        assert_eq!(named, ["device-3", "device-2", "device-5", "device-6"]);
        for (wanted, n) in [(["nas", "cam"], 1), (["nas", "nas"], 1)] {
            let refused = names(&taken, &given(&wanted)).unwrap_err();
            assert!(refused.detail().starts_with(&format!("items[{n}].name: ")), "{}", refused.detail());
            let says_when = refused.detail().contains("is free at 1970-01-02T00:00:00Z");
            assert_eq!(says_when, wanted[n] == "cam", "{}", refused.detail());
        }
    }

    #[test]
    fn what_a_device_does_not_allow_is_named_with_what_it_allows() {
        let tcp = |ports: &[RangeInclusive<u16>]| GrantAccess {
            protocol: GrantProtocol::Tcp,
            ports: ports.to_vec(),
        };
        let icmp = GrantAccess { protocol: GrantProtocol::Icmp, ports: Vec::new() };
        let allowed = [icmp.clone(), tcp(&[22..=22, 8_000..=8_100])];
        assert_eq!(
            beyond("cam-07", &[tcp(&[23..=23])], &allowed).as_deref(),
            Some("cam-07 does not allow tcp 23; renters reach at most icmp, tcp 22 8000-8100")
        );
        let nothing = beyond("cam-07", &[icmp], &[]);
        assert_eq!(nothing.as_deref(), Some("cam-07 does not allow icmp; renters reach at most nothing"));
        assert_eq!(beyond("cam-07", &[], &[]), None);
    }
}
