//! The notification state of a checkable, as the JSON of the columns `voice`.
//!
//! Only unusual values are written, because most checkables are quiet. This module decides nothing.

use anyhow::Context as _;
use fleetgate_engine::id::Id;
use fleetgate_engine::time::Wall;
use fleetgate_engine::wire::{Held, HeldReason, MessageKind, Occasion, VoiceState};
use serde::{Deserialize, Serialize};

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Stored {
    /// Plugin codes, the oldest first.
    recent: String,
    #[serde(skip_serializing_if = "is_default")]
    flapping: bool,
    #[serde(skip_serializing_if = "is_default")]
    told_flapping: bool,
    #[serde(skip_serializing_if = "is_default")]
    in_downtime: bool,
    /// The downtime, and the start of its window.
    #[serde(skip_serializing_if = "is_default")]
    occasion: Option<(i64, i64)>,
    #[serde(skip_serializing_if = "is_default")]
    begun: Vec<(i64, i64)>,
    #[serde(skip_serializing_if = "is_default")]
    remind_from: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    problem_since: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    awaits_result: bool,
    #[serde(skip_serializing_if = "is_default")]
    held: Option<StoredHeld>,
}

#[derive(PartialEq, Serialize, Deserialize)]
struct StoredHeld {
    kind: String,
    to: u8,
    reason: String,
}

pub fn to_json(voice: &VoiceState) -> String {
    let stored = Stored {
        recent: voice.recent.codes().map(|code| char::from(b'0' + code)).collect(),
        flapping: voice.flapping,
        told_flapping: voice.told_flapping,
        in_downtime: voice.in_downtime,
        occasion: voice.own_downtime.map(|of| (of.downtime.as_i64(), of.from.as_millis())),
        begun: voice.begun.iter().map(|(id, until)| (id.as_i64(), until.as_millis())).collect(),
        remind_from: voice.remind_from.map(Wall::as_millis),
        problem_since: voice.problem_since.map(Wall::as_millis),
        awaits_result: voice.awaits_result,
        held: voice.held.map(|held| StoredHeld {
            kind: held.kind.name().to_owned(),
            to: held.to,
            reason: held.reason.name().to_owned(),
        }),
    };
    serde_json::to_string(&stored).expect("text and numbers")
}

/// # Errors
/// Fails when the gateway has not written the text.
pub fn from_json(text: &str) -> anyhow::Result<VoiceState> {
    let stored: Stored = serde_json::from_str(text).context("voice")?;
    let code = |c: char| c.to_digit(4).map(|d| d as u8).with_context(|| format!("voice: {c:?} is no code"));
    Ok(VoiceState {
        recent: stored.recent.chars().map(code).collect::<anyhow::Result<_>>()?,
        flapping: stored.flapping,
        told_flapping: stored.told_flapping,
        in_downtime: stored.in_downtime,
        own_downtime: stored
            .occasion
            .map(|(id, from)| Occasion { downtime: Id::from_i64(id), from: Wall::from_millis(from) }),
        begun: stored
            .begun
            .into_iter()
            .map(|(id, until)| (Id::from_i64(id), Wall::from_millis(until)))
            .collect(),
        remind_from: stored.remind_from.map(Wall::from_millis),
        problem_since: stored.problem_since.map(Wall::from_millis),
        awaits_result: stored.awaits_result,
        held: stored.held.map(held).transpose()?,
    })
}

fn held(stored: StoredHeld) -> anyhow::Result<Held> {
    Ok(Held {
        kind: MessageKind::named(&stored.kind).with_context(|| format!("{:?} is no kind", stored.kind))?,
        to: stored.to,
        reason: HeldReason::named(&stored.reason)
            .with_context(|| format!("{:?} is no reason", stored.reason))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_calm_takes_little_room() {
        assert_eq!(to_json(&VoiceState::default()), r#"{"recent":""}"#);
        assert_eq!(from_json("{}").unwrap(), VoiceState::default());
    }

    #[test]
    fn all_of_it_survives() {
        let at = |n| Some(Wall::from_millis(n));
        for (kind, reason) in MessageKind::ALL.into_iter().zip(HeldReason::ALL) {
            let voice = VoiceState {
                recent: [0, 1, 2, 3, 0].into_iter().collect(),
                flapping: true,
                told_flapping: true,
                in_downtime: true,
                own_downtime: Some(Occasion { downtime: Id::from_i64(8), from: Wall::from_millis(3) }),
                begun: vec![(Id::from_i64(7), Wall::from_millis(9))],
                remind_from: at(1),
                problem_since: at(2),
                awaits_result: true,
                held: Some(Held { kind, to: 2, reason }),
            };
            assert_eq!(from_json(&to_json(&voice)).unwrap(), voice);
        }
    }
}
