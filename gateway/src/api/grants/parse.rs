//! Reads grants from requests, as far as that needs no database.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use fleetgate_engine::messages::{GrantAccess, GrantProtocol, GrantRole};
use fleetgate_engine::time::Wall;

use super::types;
use super::types::{GrantChange, GrantSource, GrantTarget, NewGrant, Port};
use crate::api::request::parse::{self, Fields};
use crate::api::response::problem::Problem;
use crate::api::types::Labels;
use crate::store::access::Role;
use crate::store::grants::{PROTOCOLS, grant_role, protocol_name};

/// The longest window, and how far ahead it may begin. A grant that is to last longer has no end.
const LONGEST: Duration = Duration::from_secs(3_660 * 86_400);
/// Ranges of ports for one protocol. More of them are no rule that a person understands.
const MAX_RANGES: usize = 64;
/// Entries of an access list, of which those of one protocol are joined.
const MAX_ACCESS: usize = 16;

/// A source that may not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceName {
    /// An operator, and the user that it must belong to.
    Peer(String, Option<String>),
    User(String),
    Role(GrantRole),
}

/// A target that may not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetName {
    AllDevices,
    Host(String),
    Labels(Labels),
}

/// A new grant, or a change: what is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    pub name: Option<String>,
    pub source: Option<SourceName>,
    pub target: Option<TargetName>,
    pub access: Option<Vec<GrantAccess>>,
    pub from: Option<Option<Wall>>,
    pub until: Option<Option<Wall>>,
    pub reason: Option<String>,
}

impl Draft {
    /// # Errors
    /// Returns 422 with every wrong field.
    pub fn of_new(new: NewGrant, now: Wall) -> Result<Self, Problem> {
        let mut fields = Fields::default();
        let name = fields.take("name", new.name.as_deref().map(parse::name).transpose()).flatten();
        let change = GrantChange {
            source: Some(new.source),
            target: Some(new.target),
            access: Some(new.access),
            from: Some(new.from),
            until: Some(new.until),
            reason: Some(Some(new.reason)),
        };
        let draft = Draft { name, ..Draft::read(change, &mut fields) };
        window_is_sound(&mut fields, draft.from.flatten(), draft.until.flatten(), now);
        fields.finish()?;
        Ok(draft)
    }

    /// Reads a change of a grant with this window.
    ///
    /// # Errors
    /// Returns 422 with every wrong field.
    pub fn of_change(
        change: GrantChange,
        (from, until): (Option<Wall>, Option<Wall>),
        now: Wall,
    ) -> Result<Self, Problem> {
        let mut fields = Fields::default();
        let draft = Draft::read(change, &mut fields);
        if draft.from.is_some() || draft.until.is_some() {
            window_is_sound(&mut fields, draft.from.unwrap_or(from), draft.until.unwrap_or(until), now);
        }
        fields.finish()?;
        Ok(draft)
    }

    fn read(change: GrantChange, fields: &mut Fields) -> Draft {
        let moment = |text: Option<String>| text.as_deref().map(parse::moment).transpose();
        Draft {
            name: None,
            source: change.source.and_then(|source| take(fields, source_name(source))),
            target: change.target.and_then(|target| take(fields, target_name(target))),
            access: change.access.and_then(|access| take(fields, access_list(access))),
            from: change.from.and_then(|from| fields.take("from", moment(from))),
            until: change.until.and_then(|until| fields.take("until", moment(until))),
            reason: change.reason.and_then(|r| fields.take("reason", parse::title(r.unwrap_or_default()))),
        }
    }
}

/// A wrong field, and what is wrong with it.
type Wrong = (String, String);

fn wrong<T>(field: impl Into<String>, detail: impl Display) -> Result<T, Wrong> {
    Err((field.into(), detail.to_string()))
}

fn take<T>(fields: &mut Fields, read: Result<T, Wrong>) -> Option<T> {
    let (field, detail) = match read {
        Ok(value) => return Some(value),
        Err(wrong) => wrong,
    };
    fields.take::<T>(&field, Err(detail))
}

fn window_is_sound(fields: &mut Fields, from: Option<Wall>, until: Option<Wall>, now: Wall) {
    let years = LONGEST.as_secs() / (366 * 86_400);
    if from.is_some_and(|from| from > now + LONGEST) {
        fields.take("from", Err::<(), _>(format!("a time within the next {years} years is expected")));
    }
    let Some(until) = until else { return };
    let detail = match from {
        _ if until <= now => "is over already: a time to come is expected".to_owned(),
        Some(from) if until <= from => "a time after from is expected".to_owned(),
        _ if until.since(from.unwrap_or(now)) > LONGEST => format!(
            "at most {years} years after its begin are expected; without an end it lasts until it is withdrawn"
        ),
        _ => return,
    };
    fields.take("until", Err::<(), _>(detail));
}

fn source_name(source: GrantSource) -> Result<SourceName, Wrong> {
    match (source.peer, source.user, source.role) {
        (Some(peer), user, None) => Ok(SourceName::Peer(peer, user)),
        (None, Some(user), None) => Ok(SourceName::User(user)),
        (None, None, Some(role)) => match role.parse::<Role>().map(grant_role) {
            Ok(Some(role)) => Ok(SourceName::Role(role)),
            Ok(None) => wrong("source.role", "viewers reach nothing: operator or admin is expected"),
            Err(_) => wrong("source.role", format!("{role:?}: operator or admin is expected")),
        },
        _ => wrong("source", "exactly one of peer, user and role is expected"),
    }
}

fn target_name(target: GrantTarget) -> Result<TargetName, Wrong> {
    match (target.all_devices, target.host, target.labels) {
        (Some(true), None, None) => Ok(TargetName::AllDevices),
        (Some(false), None, None) => wrong("target.all_devices", "true is expected, or host or labels"),
        (None, Some(host), None) => Ok(TargetName::Host(host)),
        (None, None, Some(labels)) if labels.is_empty() => {
            wrong("target.labels", "at least one label is expected; every device: all_devices")
        }
        (None, None, Some(labels)) => match parse::labels(labels) {
            Ok(labels) => Ok(TargetName::Labels(labels)),
            Err(error) => wrong("target.labels", error),
        },
        _ => wrong("target", "exactly one of all_devices, host and labels is expected"),
    }
}

/// Reads an access list, in one form for all that permit the same: sorted, each protocol once.
pub fn access_list(list: Vec<types::GrantAccess>) -> Result<Vec<GrantAccess>, Wrong> {
    if list.is_empty() {
        return wrong("access", "at least one protocol is expected");
    }
    if list.len() > MAX_ACCESS {
        return wrong("access", format!("at most {MAX_ACCESS} entries are expected"));
    }
    let mut all: BTreeMap<GrantProtocol, Vec<RangeInclusive<u16>>> = BTreeMap::new();
    for (n, entry) in list.into_iter().enumerate() {
        let protocol = PROTOCOLS.into_iter().find(|p| protocol_name(*p) == entry.protocol);
        let Some(protocol) = protocol else {
            let detail = format!("{:?}: icmp, tcp or udp is expected", entry.protocol);
            return wrong(format!("access[{n}].protocol"), detail);
        };
        let ports = ports_of(protocol, &entry.ports);
        all.entry(protocol).or_default().extend(ports.map_err(|e| (format!("access[{n}].ports"), e))?);
    }
    let joined = |(protocol, ports)| GrantAccess { protocol, ports: joined(ports) };
    Ok(all.into_iter().map(joined).collect())
}

fn ports_of(protocol: GrantProtocol, ports: &[Port]) -> Result<Vec<RangeInclusive<u16>>, String> {
    match protocol {
        GrantProtocol::Icmp if ports.is_empty() => Ok(Vec::new()),
        GrantProtocol::Icmp => Err("icmp has no ports: leave them out".to_owned()),
        _ if ports.is_empty() => Err("ports are expected, 1-65535 for all of them".to_owned()),
        _ if ports.len() > MAX_RANGES => Err(format!("at most {MAX_RANGES} ports and ranges are expected")),
        _ => ports.iter().map(range).collect(),
    }
}

fn range(port: &Port) -> Result<RangeInclusive<u16>, String> {
    let text = match port {
        Port::Number(number) => number.to_string(),
        Port::Range(text) => text.clone(),
    };
    let expected = || format!("{text:?}: a port from 1 to 65535 or a range such as 8000-8100 is expected");
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(expected);
    let (first, last) = match text.split_once('-').filter(|(first, _)| !first.is_empty()) {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(&text)?, number(&text)?),
    };
    if first > last {
        return Err(format!("{text:?}: the first port of a range is expected first"));
    }
    Ok(first..=last)
}

/// Sorts ranges, and joins those that overlap or touch.
fn joined(mut ranges: Vec<RangeInclusive<u16>>) -> Vec<RangeInclusive<u16>> {
    ranges.sort_by_key(|range| (*range.start(), *range.end()));
    let mut joined: Vec<RangeInclusive<u16>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if *range.start() <= last.end().saturating_add(1) => {
                *last = *last.start()..=*last.end().max(range.end());
            }
            _ => joined.push(range),
        }
    }
    joined
}

/// Returns a range as the API has it.
pub fn port(range: &RangeInclusive<u16>) -> Port {
    match (range.start(), range.end()) {
        (first, last) if first == last => Port::Number(i64::from(*first)),
        (first, last) => Port::Range(format!("{first}-{last}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(texts: &[&str]) -> Result<Vec<RangeInclusive<u16>>, String> {
        let ports: Vec<Port> = texts.iter().map(|text| Port::Range((*text).to_owned())).collect();
        ports_of(GrantProtocol::Tcp, &ports).map(joined)
    }

    #[test]
    fn ports_are_sorted_and_joined() {
        assert_eq!(ports(&["443", "80-90", "22", "85-100", "101"]).unwrap(), [22..=22, 80..=101, 443..=443]);
        assert_eq!(ports(&["1-65535", "65535"]).unwrap(), [1..=65_535]);
    }

    #[test]
    fn a_port_that_does_not_exist_is_named() {
        for bad in ["0", "65536", "-1", "80-", "-80", "", "http", "22-0", "1-65536", "1-2-3", "+5x"] {
            let error = ports(&[bad]).unwrap_err();
            assert!(error.starts_with(&format!("{bad:?}: a port from 1 to 65535")), "{error}");
        }
        assert!(ports(&["443-80"]).unwrap_err().contains("the first port"));
        assert!(ports(&[]).unwrap_err().contains("1-65535 for all"));
        assert!(ports(&["1"; 65]).unwrap_err().contains("at most 64"));
    }
}
