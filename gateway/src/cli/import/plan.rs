//! Plans what an import does with each line, as far as what is at the gateway decides it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::table_file::{Row, Wrong};
use crate::api::devices::Device;

/// What is there.
#[derive(Default)]
pub struct Inventory {
    pub has_endpoint: bool,
    pub gateway_key: String,
    pub pools: Vec<IpNet>,
    pub devices: BTreeMap<String, Device>,
    /// Hosts behind devices, which have their names in the same space.
    pub behind: BTreeSet<String>,
    pub profiles: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Add,
    /// The device exists. The columns that differ from it are not applied.
    Skip(Vec<&'static str>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct ImportStep {
    pub row: Row,
    pub action: Action,
}

impl fmt::Display for ImportStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.row.name;
        match &self.action {
            Action::Add if self.row.fields.contains_key("public_key") => write!(f, "+ {name} (its own key)"),
            Action::Add => write!(f, "+ {name}"),
            Action::Skip(differs) if differs.is_empty() => write!(f, "= {name}: exists, skipped"),
            Action::Skip(differs) => {
                write!(f, "= {name}: exists, skipped; not changed: {}", differs.join(", "))
            }
        }
    }
}

/// The action, or what is wrong if there is none.
pub fn plan(rows: Vec<Row>, known: &Inventory) -> (Vec<ImportStep>, Vec<Wrong>) {
    let keys = known
        .devices
        .values()
        .filter_map(|d| Some((d.tunnel.as_ref()?.public_key.as_str(), d.name.as_str())));
    let keys: BTreeMap<&str, &str> = keys.collect();
    let (mut steps, mut wrong) = (Vec::new(), Vec::new());
    for row in rows {
        match judge(&row, known, &keys) {
            Ok(action) => steps.push(ImportStep { row, action }),
            Err(what) => wrong.extend(what.into_iter().map(|what| Wrong { line: row.line, what })),
        }
    }
    (steps, wrong)
}

fn judge(row: &Row, known: &Inventory, keys: &BTreeMap<&str, &str>) -> Result<Action, Vec<String>> {
    let text = |field: &str| row.fields.get(field).and_then(Value::as_str);
    let name = &row.name;
    if let Some(device) = known.devices.get(name) {
        let its = device.tunnel.as_ref().map(|tunnel| tunnel.public_key.as_str());
        return match text("public_key") {
            Some(key) if its != Some(key) => Err(vec![format!(
                "public_key: {name} exists with another key: leave the line out, or replace its key with \
                 `fleetgate device reissue {name} --public-key KEY`"
            )]),
            _ => Ok(Action::Skip(differences(row, device))),
        };
    }
    let mut wrong = Vec::new();
    if known.behind.contains(name) {
        wrong.push(format!("name: {name} exists as a host behind a device: choose another name"));
    }
    if text("public_key") == Some(known.gateway_key.as_str()) {
        wrong.push("public_key: this is the gateway's own key: give the device's".to_owned());
    }
    if let Some(owner) = text("public_key").and_then(|key| keys.get(key)) {
        wrong.push(format!("public_key: this is the key of {owner} already"));
    }
    if let Some(profile) = text("profile").filter(|profile| !known.profiles.contains(*profile)) {
        wrong.push(format!("profile: no profile is called {profile:?}: see `fleetgate profile list`"));
    }
    let networks = row.fields.get("networks").and_then(Value::as_array).into_iter().flatten();
    for net in networks.filter_map(|net| net.as_str()?.parse::<IpNet>().ok()) {
        if known.pools.iter().any(|pool| pool.contains(&net) || net.contains(pool)) {
            wrong.push(format!("networks: {net} overlaps the gateway's own pool of addresses"));
        }
    }
    if wrong.is_empty() { Ok(Action::Add) } else { Err(wrong) }
}

/// The columns whose cells say something else than the device has.
fn differences(row: &Row, device: &Device) -> Vec<&'static str> {
    let has = [
        ("labels", "labels", json!(device.labels)),
        ("profile", "profile", json!(device.profile)),
        ("ssh", "ssh_user", json!({ "user": device.ssh.user })),
        ("networks", "networks", json!(device.networks)),
    ];
    let differs =
        has.iter().filter(|(field, _, has)| row.fields.get(*field).is_some_and(|wants| wants != has));
    differs.map(|(_, column, _)| *column).collect()
}
