//! Downtimes of a file: reading, comparing and writing them.
//!
//! A downtime changes in place. If it is for other hosts or another service, or becomes another kind
//! of downtime, a new one replaces it, and only then does the old one end. The same holds for the
//! times of a flexible downtime that has begun. An ended downtime is neither created nor missed. One
//! that an operator has cancelled stays cancelled and is reported.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};

use fleetgate_engine::time::Wall;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use toml::Spanned;

use super::super::client::{Client, api_path};
use super::super::device::present;
use super::super::host::pages;
use super::absent::Removed;
use super::file::{BadFile, Source};
use super::plan::{Desired, Existing, PlanStep, Policy, ResourceKind};
use crate::api::downtimes;
use crate::clock;
use crate::store::recurrence::{self, Text};

/// Once, from `start` to `end`, or repeatedly with `every`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Downtime {
    host: Option<String>,
    labels: Option<Spanned<BTreeMap<String, String>>>,
    service: Option<String>,
    start: Option<Spanned<toml::Value>>,
    end: Option<Spanned<toml::Value>>,
    /// The duration of a flexible downtime.
    duration_s: Option<f64>,
    every: Option<Spanned<String>>,
    from: Option<Spanned<String>>,
    to: Option<Spanned<String>>,
    time_zone: Option<Spanned<String>>,
    first_date: Option<Spanned<toml::Value>>,
    last_date: Option<Spanned<toml::Value>>,
    comment: Option<String>,
}

impl Source<'_> {
    /// Returns the downtime in the gateway's form.
    pub(super) fn downtime(&self, name: &Spanned<String>, d: Downtime) -> Result<Desired, BadFile> {
        self.name(name)?;
        let at = name.span().start;
        let when = match d.every {
            Some(_) => self.repeated(at, &d)?,
            None => self.once(at, &d)?,
        };
        if d.host.is_some() == d.labels.is_some() {
            return Err(self.bad(at, "either host or labels are expected"));
        }
        if let Some(labels) = d.labels.as_ref().filter(|labels| labels.get_ref().is_empty()) {
            return Err(self.bad(labels.span().start, "at least one label is expected"));
        }
        let mut fields = json!({
            "host": d.host,
            "labels": self.labels(d.labels)?,
            "service": d.service,
            "comment": d.comment,
        });
        fields.as_object_mut().into_iter().for_each(|fields| fields.extend(when.clone()));
        Ok(self.wanted(ResourceKind::Downtime, name, fields))
    }

    fn once(&self, at: usize, d: &Downtime) -> Result<Map<String, Value>, BadFile> {
        let strays = [&d.from, &d.to, &d.time_zone].into_iter().flatten().map(|s| s.span().start);
        let dates = [&d.first_date, &d.last_date].into_iter().flatten().map(|s| s.span().start);
        if let Some(stray) = strays.chain(dates).next() {
            return Err(self.bad(stray, "this needs every"));
        }
        let moment = |given: &Spanned<toml::Value>| {
            let parsed = text(given.get_ref()).and_then(|text| text.parse::<jiff::Timestamp>().ok());
            let expected = "a time such as 2026-03-10T13:03:22Z is expected";
            parsed.map(|at| at.to_string()).ok_or_else(|| self.bad(given.span().start, expected))
        };
        let start = d.start.as_ref().map(moment).transpose()?;
        let end = d.end.as_ref().map(moment).transpose()?;
        if start.is_none() || end.is_none() {
            return Err(self.bad(at, "start and end are expected, or every, from, to and time_zone"));
        }
        let fixed = d.duration_s.is_none();
        Ok(object(json!({ "start": start, "end": end, "fixed": fixed, "duration_s": d.duration_s })))
    }

    fn repeated(&self, at: usize, d: &Downtime) -> Result<Map<String, Value>, BadFile> {
        let (Some(every), Some(from), Some(to), Some(zone)) = (&d.every, &d.from, &d.to, &d.time_zone) else {
            return Err(self.bad(at, "every needs from, to and time_zone"));
        };
        if let Some(stray) = d.start.as_ref().or(d.end.as_ref()) {
            return Err(self.bad(stray.span().start, "every replaces start and end: remove this"));
        }
        let date = |given: &Option<Spanned<toml::Value>>| given.as_ref().and_then(|d| text(d.get_ref()));
        let wanted = Text {
            every: every.get_ref().clone(),
            from: from.get_ref().clone(),
            to: to.get_ref().clone(),
            time_zone: zone.get_ref().clone(),
            first_date: date(&d.first_date),
            last_date: date(&d.last_date),
        };
        let read = recurrence::parse(&wanted).map_err(|error| {
            let place = match error.field.as_str() {
                "every" => every.span(),
                "from" => from.span(),
                "to" => to.span(),
                "time_zone" => zone.span(),
                "first_date" => d.first_date.as_ref().map_or(at..at, Spanned::span),
                _ => d.last_date.as_ref().map_or(at..at, Spanned::span),
            };
            self.bad(place.start, error.detail)
        })?;
        Ok(object(json!({ "recurrence": recurrence::text(&read) })))
    }
}

fn object(value: Value) -> Map<String, Value> {
    present(value).as_object().cloned().unwrap_or_default()
}

/// Reads a text, or a TOML time or date.
pub(super) fn text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Datetime(at) => Some(at.to_string()),
        _ => None,
    }
}

/// Whether all its windows are over.
pub(super) fn is_over(wanted: &Desired) -> bool {
    let ends = match wanted.fields.get("recurrence") {
        Some(again) => serde_json::from_value(again.clone())
            .ok()
            .and_then(|text: Text| recurrence::parse(&text).ok())
            .and_then(|again| again.over_at()),
        None => {
            let end = wanted.fields.get("end").and_then(Value::as_str).and_then(|end| end.parse().ok());
            end.map(|end: jiff::Timestamp| Wall::from_millis(end.as_millisecond()))
        }
    };
    wanted.kind == ResourceKind::Downtime && ends.is_some_and(|end| end <= clock::wall())
}

/// Returns the newest downtime of each name that is not over. A downtime of a removed host does not
/// belong to a new one of the same name. `hosts`: the ids of existing hosts.
pub(super) async fn look(
    client: &Client,
    policy: &Policy,
    hosts: &BTreeSet<&str>,
) -> anyhow::Result<Vec<Existing>> {
    let query = [("all", "true".to_owned()), ("managed_by", policy.manager.clone())];
    let all: Vec<downtimes::Downtime> = pages(client, "/downtimes", &query).await?;
    let mut newest: BTreeMap<String, downtimes::Downtime> = BTreeMap::new();
    let mut former = Vec::new();
    for downtime in all {
        let name = downtime.name.clone().unwrap_or_default();
        match newest.entry(name) {
            Entry::Vacant(entry) => drop(entry.insert(downtime)),
            Entry::Occupied(entry) => former.push((entry.key().clone(), downtime)),
        }
    }
    let now = clock::wall();
    let is_of_host = |d: &downtimes::Downtime| d.host.as_deref().is_none_or(|host| hosts.contains(host));
    let is_open = |d: &downtimes::Downtime| match (&d.cancelled_at, d.end.parse::<jiff::Timestamp>()) {
        (Some(_), _) => d.managed.edited_by.is_some(),
        (None, Ok(end)) => end.as_millisecond() > now.as_millis(),
        (None, Err(_)) => true,
    };
    // An interrupted run leaves downtimes behind that it had not ended yet.
    former.retain(|(_, d)| d.cancelled_at.is_none() && is_of_host(d) && is_open(d));
    let former = former.into_iter().map(|(name, d)| Existing { former: true, ..found(name, d) });
    let known = newest.into_iter().filter(|(_, d)| is_of_host(d) && is_open(d));
    Ok(known.map(|(name, d)| found(name, d)).chain(former).collect())
}

fn found(name: String, d: downtimes::Downtime) -> Existing {
    let once = d.recurrence.is_none();
    let fields = object(json!({
        "host": d.host_name,
        "labels": d.labels,
        "service": d.service,
        "comment": d.comment,
        "recurrence": d.recurrence,
        "start": once.then_some(d.start),
        "end": once.then_some(d.end),
        "fixed": once.then_some(d.fixed),
        "duration_s": d.duration_s,
    }));
    let (managed_by, edited_by, version) = (d.managed.managed_by, d.managed.edited_by, d.version);
    let removed =
        d.cancelled_at.map(|at| Removed { by: edited_by.clone().unwrap_or_default(), at, renamed_to: None });
    let id = removed.is_none().then_some(d.id);
    Existing {
        kind: ResourceKind::Downtime,
        name,
        fields,
        managed_by,
        edited_by,
        version: Some(version),
        id,
        former: false,
        removed,
    }
}

/// Creates or changes a downtime. A new one is created before the old one is cancelled, so that no
/// notification is sent in between.
pub(super) async fn write(client: &Client, step: &PlanStep) -> anyhow::Result<()> {
    if let Some(id) = &step.id {
        let path = api_path!("/downtimes/{}", id);
        let now: downtimes::Downtime = client.get(&path, &[]).await?;
        if let Some(change) = change(&step.fields, &now) {
            return client.write(Method::PATCH, &path, &change, step.version).await.map(drop);
        }
    }
    let mut body = step.fields.clone();
    body.insert("name".to_owned(), json!(step.name));
    let host = body.remove("host");
    let path = match (host.as_ref().and_then(Value::as_str), body.get("service").and_then(Value::as_str)) {
        (Some(host), Some(service)) => api_path!("/hosts/{}/services/{}/downtimes", host, service),
        (Some(host), None) => api_path!("/hosts/{}/downtimes", host),
        (None, _) => "/downtimes".to_owned(),
    };
    let _: Value = client.post(&path, &Value::Object(body)).await?;
    cancel(client, step).await
}

/// Returns the change in place; `None` if only another downtime has these fields.
fn change(wanted: &Map<String, Value>, now: &downtimes::Downtime) -> Option<Value> {
    let text = |field: &str| wanted.get(field).and_then(Value::as_str);
    let labels = now.labels.as_ref().map(|labels| json!(labels));
    let is_for_same = text("host") == now.host_name.as_deref()
        && wanted.get("labels") == labels.as_ref()
        && text("service") == now.service.as_deref();
    let mut change = match (wanted.get("recurrence"), &now.recurrence) {
        (Some(wanted), Some(now)) => json!({ "recurrence": patch(wanted, &json!(now)) }),
        (None, None) => times(wanted, now)?,
        _ => return None,
    };
    change["comment"] = json!(text("comment").unwrap_or_default());
    is_for_same.then_some(change)
}

/// Returns the times of a single downtime. A flexible one keeps them once it has begun.
fn times(wanted: &Map<String, Value>, now: &downtimes::Downtime) -> Option<Value> {
    let duration = wanted.get("duration_s").and_then(Value::as_f64);
    let present = [json!(now.start), json!(now.end), json!(now.duration_s)];
    let fields = ["start", "end", "duration_s"];
    let mut change = Map::new();
    for (field, present) in fields.into_iter().zip(present) {
        let value = wanted.get(field).cloned().unwrap_or_default();
        let is_same = value == present || field == "duration_s" && duration == now.duration_s;
        if !is_same {
            change.insert(field.to_owned(), value);
        }
    }
    let is_possible =
        duration.is_some() == now.duration_s.is_some() && (change.is_empty() || now.begun_at.is_none());
    is_possible.then_some(Value::Object(change))
}

/// Returns a recurrence as a change: `null` removes what the file does not have.
fn patch(wanted: &Value, now: &Value) -> Value {
    let mut patch = wanted.clone();
    for (field, _) in now.as_object().into_iter().flatten().filter(|(field, _)| wanted.get(field).is_none()) {
        patch[field.as_str()] = Value::Null;
    }
    patch
}

pub(super) async fn cancel(client: &Client, step: &PlanStep) -> anyhow::Result<()> {
    match &step.id {
        Some(id) => client.call(Method::DELETE, &api_path!("/downtimes/{}", id), None).await,
        None => Ok(()),
    }
}
