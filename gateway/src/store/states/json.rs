//! The columns of states that hold lists, as JSON.

use std::sync::Arc;

use anyhow::Context as _;
use fleetgate_engine::messages::{Digest, Identity, Taken};
use fleetgate_probes::range::Range;
use fleetgate_probes::sample::Metric;
use serde::{Deserialize, Serialize};

/// A metric in the form of the column. Ranges are stored as text.
#[derive(Serialize, Deserialize)]
struct StoredMetric<'a> {
    label: std::borrow::Cow<'a, str>,
    value: Option<f64>,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    uom: std::borrow::Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    warn: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crit: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max: Option<f64>,
}

pub(super) fn metrics_json(metrics: &[Metric]) -> String {
    let stored: Vec<StoredMetric<'_>> = metrics
        .iter()
        .map(|m| StoredMetric {
            label: m.label.as_str().into(),
            value: m.value,
            uom: m.uom.as_str().into(),
            warn: m.warn.map(|r| r.to_string()),
            crit: m.crit.map(|r| r.to_string()),
            min: m.min,
            max: m.max,
        })
        .collect();
    serde_json::to_string(&stored).expect("metrics are plain values")
}

pub(super) fn metrics_from_json(text: &str) -> anyhow::Result<Arc<[Metric]>> {
    let range = |text: Option<String>| text.map(|t| t.parse::<Range>()).transpose();
    let stored: Vec<StoredMetric<'_>> = serde_json::from_str(text)?;
    stored
        .into_iter()
        .map(|m| {
            Ok(Metric {
                label: m.label.into_owned(),
                value: m.value,
                uom: m.uom.into_owned(),
                warn: range(m.warn)?,
                crit: range(m.crit)?,
                min: m.min,
                max: m.max,
            })
        })
        .collect()
}

pub(super) fn warnings_json(warnings: &[String]) -> String {
    serde_json::to_string(warnings).expect("a list of strings")
}

pub(super) fn warnings_from_json(text: &str) -> anyhow::Result<Vec<String>> {
    Ok(serde_json::from_str(text)?)
}

/// The identity of an accepted result: its digests in hexadecimal, if it has them.
#[derive(Serialize, Deserialize)]
struct StoredIdentity {
    /// The digest of principal, timestamp and content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    d: Option<String>,
    /// The digests of principal and key, and of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    k: Option<(String, String)>,
}

pub(super) fn taken_json(taken: &Taken) -> String {
    let stored: Vec<StoredIdentity> = taken
        .iter()
        .map(|identity| StoredIdentity {
            d: identity.dated.map(hex),
            k: identity.keyed.map(|(key, content)| (hex(key), hex(content))),
        })
        .collect();
    serde_json::to_string(&stored).expect("texts are plain values")
}

pub(super) fn taken_from_json(text: &str) -> anyhow::Result<Taken> {
    let stored: Vec<StoredIdentity> = serde_json::from_str(text)?;
    let identity = |stored: StoredIdentity| {
        let keyed = stored.k.map(|(key, content)| anyhow::Ok((unhex(&key)?, unhex(&content)?)));
        Ok(Identity { dated: stored.d.as_deref().map(unhex).transpose()?, keyed: keyed.transpose()? })
    };
    stored.into_iter().map(identity).collect()
}

fn hex(digest: Digest) -> String {
    let digits = b"0123456789abcdef";
    let digit = |half: u8| char::from(digits[usize::from(half)]);
    digest.0.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn unhex(text: &str) -> anyhow::Result<Digest> {
    let pair = |at: usize| text.get(2 * at..2 * at + 2).and_then(|d| u8::from_str_radix(d, 16).ok());
    let mut digest = Digest([0; 12]);
    for (at, byte) in digest.0.iter_mut().enumerate() {
        *byte = pair(at).with_context(|| format!("{text:?} is no digest: 24 hexadecimal digits"))?;
    }
    Ok(digest)
}
