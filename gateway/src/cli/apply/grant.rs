//! Grants of a file: reading, comparing and writing them.
//!
//! A grant counts as a whole: what the file does not give is not part of it. A grant that has ended is
//! neither created nor missed. One that was withdrawn by hand stays withdrawn and is reported.
//!
//! The name of a peer is free again when the peer is renamed or removed, and another user may take it. A file
//! therefore names the user of the peer too.

use std::collections::BTreeMap;

use fleetgate_engine::time::Wall;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use toml::Spanned;

use super::super::client::{Client, Refused};
use super::super::device::present;
use super::super::host::pages;
use super::downtime::text;
use super::file::{BadFile, Source};
use super::plan::{Desired, Existing, PlanStep, ResourceKind};
use super::refusals::Names;
use crate::api::grants::{self, GrantAccess, Port};
use crate::api::operators::Operator;
use crate::api::users::User;
use crate::clock;

/// Who (`user`, `role`, or `peer` of a `user`) may reach what (`host`, `labels` or `all_devices`).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Grant {
    user: Option<String>,
    role: Option<String>,
    peer: Option<String>,
    host: Option<String>,
    labels: Option<Spanned<BTreeMap<String, String>>>,
    all_devices: Option<bool>,
    #[serde(default)]
    icmp: bool,
    tcp: Option<Spanned<Vec<Port>>>,
    udp: Option<Spanned<Vec<Port>>>,
    from: Option<Spanned<toml::Value>>,
    until: Option<Spanned<toml::Value>>,
    reason: Option<String>,
}

impl Source<'_> {
    /// Returns the grant in the gateway's form.
    pub(super) fn grant(&self, name: &Spanned<String>, g: Grant) -> Result<Desired, BadFile> {
        self.name(name)?;
        let at = name.span().start;
        let user = match (g.user, &g.role, &g.peer) {
            (None, None, Some(peer)) => return Err(self.bad(at, without_user(peer))),
            (user @ Some(_), None, _) => user,
            (None, Some(_), None) => None,
            _ => return Err(self.bad(at, "user, role, or peer with its user is expected")),
        };
        let targets = [g.host.is_some(), g.labels.is_some(), g.all_devices.is_some()];
        if targets.iter().filter(|given| **given).count() != 1 {
            return Err(self.bad(at, "exactly one of host, labels and all_devices is expected"));
        }
        if let Some(labels) = g.labels.as_ref().filter(|labels| labels.get_ref().is_empty()) {
            return Err(self.bad(labels.span().start, "at least one label is expected"));
        }
        let access = self.access(at, g.icmp, [("tcp", g.tcp), ("udp", g.udp)])?;
        let moment = |given: Spanned<toml::Value>| {
            let parsed = text(given.get_ref()).and_then(|text| text.parse::<jiff::Timestamp>().ok());
            let expected = "a time such as 2026-03-10T13:03:22Z is expected";
            parsed.map(|at| at.to_string()).ok_or_else(|| self.bad(given.span().start, expected))
        };
        let fields = json!({
            "source": present(json!({ "user": user, "role": g.role, "peer": g.peer })),
            "target": present(json!({
                "host": g.host, "labels": self.labels(g.labels)?, "all_devices": g.all_devices,
            })),
            "access": access,
            "from": g.from.map(moment).transpose()?,
            "until": g.until.map(moment).transpose()?,
            "reason": g.reason.unwrap_or_default(),
        });
        Ok(self.wanted(ResourceKind::Grant, name, fields))
    }

    /// Returns the access list in the form in which the gateway shows it.
    fn access(
        &self,
        at: usize,
        icmp: bool,
        with_ports: [(&str, Option<Spanned<Vec<Port>>>); 2],
    ) -> Result<Vec<GrantAccess>, BadFile> {
        let entry = |protocol: &str, ports| GrantAccess { protocol: protocol.to_owned(), ports };
        let mut list: Vec<GrantAccess> = icmp.then(|| entry("icmp", Vec::new())).into_iter().collect();
        for (protocol, ports) in with_ports {
            let Some(ports) = ports else { continue };
            let at = ports.span().start;
            let usual = grants::usual_form(vec![entry(protocol, ports.into_inner())]);
            list.extend(usual.map_err(|e| self.bad(at, e.replace("access[0].ports", protocol)))?);
        }
        if list.is_empty() {
            return Err(self.bad(at, "icmp = true, tcp or udp is expected"));
        }
        Ok(list)
    }
}

fn without_user(peer: &str) -> String {
    format!("peer {peer:?} needs its user too: otherwise it would be any operator who takes this name later")
}

/// Returns what is wrong if the peer of a grant belongs to another user than the file says.
fn taken_over(wanted: &Desired, owners: &BTreeMap<String, String>) -> Option<String> {
    let source = wanted.fields.get("source")?;
    let (peer, expected) = (source.get("peer")?.as_str()?, source.get("user")?.as_str()?);
    let owner = owners.get(peer)?;
    let so =
        format!("{peer} belongs to {owner}, and not to {expected}: name another peer, or user = {owner:?}");
    (owner != expected).then_some(so)
}

/// Whether its window is over.
pub(super) fn is_over(wanted: &Desired) -> bool {
    let until = wanted.fields.get("until").and_then(Value::as_str).and_then(|until| until.parse().ok());
    let until = until.map(|until: jiff::Timestamp| Wall::from_millis(until.as_millisecond()));
    wanted.kind == ResourceKind::Grant && until.is_some_and(|until| until <= clock::wall())
}

/// Returns the grants with names that are in effect or planned. Reads the names that grants of the file
/// may refer to.
pub(super) async fn look(
    client: &Client,
    wanted: &[Desired],
    names: &mut Names,
) -> anyhow::Result<Vec<Existing>> {
    let is_wanted = wanted.iter().any(|w| w.kind == ResourceKind::Grant);
    let all: Vec<grants::Grant> = match pages(client, "/grants", &[]).await {
        // A file without grants needs no permission for them.
        Err(error) if !is_wanted && is_forbidden(&error) => return Ok(Vec::new()),
        read => read?,
    };
    let mut owners = BTreeMap::new();
    if is_wanted {
        let users: Vec<User> = pages(client, "/users", &[]).await?;
        names.people = users.into_iter().map(|user| user.name).collect();
        let operators: Vec<Operator> = pages(client, "/operators", &[]).await?;
        owners = operators.into_iter().map(|o| (o.name, o.user)).collect();
        let wrong = wanted.iter().filter_map(|w| Some((w.name.clone(), taken_over(w, &owners)?)));
        names.taken_over = wrong.collect();
        names.operators = owners.keys().cloned().collect();
    }
    Ok(all.into_iter().filter_map(|g| found(g, &owners)).collect())
}

fn is_forbidden(error: &anyhow::Error) -> bool {
    let code = error.downcast_ref::<Refused>().and_then(|refused| refused.document["code"].as_str());
    matches!(code, Some("role_missing" | "scope_missing"))
}

/// The gateway compares the user of a peer again when it writes, because the name may be taken meanwhile.
fn found(g: grants::Grant, owners: &BTreeMap<String, String>) -> Option<Existing> {
    let mut source = g.source;
    if let Some(owner) = source.peer.as_ref().and_then(|peer| owners.get(peer)) {
        source.user = Some(owner.clone());
    }
    let fields = present(json!({
        "source": source, "target": g.target, "access": g.access, "from": g.from, "until": g.until,
        "reason": g.reason,
    }));
    Some(Existing {
        kind: ResourceKind::Grant,
        name: g.name?,
        fields: fields.as_object().cloned().unwrap_or_default(),
        managed_by: g.managed.managed_by,
        edited_by: g.managed.edited_by,
        version: Some(g.version),
        id: Some(g.id),
        former: false,
        removed: None,
    })
}

/// Returns the whole grant as a change. `null` removes what the file does not give.
pub(super) fn change(step: &PlanStep) -> Value {
    let mut fields: Map<String, Value> = step.fields.clone();
    fields.remove("name");
    for field in ["from", "until"] {
        fields.entry(field).or_insert(Value::Null);
    }
    Value::Object(fields)
}
