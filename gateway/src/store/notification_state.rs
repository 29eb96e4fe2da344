//! The notification state of a checkable, as the JSON of the columns `notification`.
//!
//! Only unusual values are written, because most checkables are quiet. This module decides nothing.

use anyhow::Context as _;
use fleetgate_engine::id::Id;
use fleetgate_engine::messages::{
    BegunDowntime, DowntimeOccurrence, MessageKind, NotificationState, SuppressReason, Suppressed,
};
use fleetgate_engine::time::Wall;
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
    #[serde(skip_serializing_if = "is_default")]
    is_quiet: bool,
    /// The downtime, and the start of its window.
    #[serde(skip_serializing_if = "is_default")]
    occasion: Option<(i64, i64)>,
    #[serde(skip_serializing_if = "is_default")]
    begun: Vec<StoredBegun>,
    #[serde(skip_serializing_if = "is_default")]
    remind_from: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    problem_since: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    awaits_result: bool,
    #[serde(skip_serializing_if = "is_default")]
    held: Option<StoredHeld>,
    #[serde(skip_serializing_if = "is_default")]
    suppressed_by: Option<String>,
}

/// The downtime, its end and its begin. An earlier version wrote no begin.
#[derive(PartialEq, Serialize, Deserialize)]
struct StoredBegun(i64, i64, #[serde(default)] Option<i64>);

#[derive(PartialEq, Serialize, Deserialize)]
struct StoredHeld {
    kind: String,
    to: u8,
    reason: String,
}

pub fn to_json(state: &NotificationState) -> String {
    let stored = Stored {
        recent: state.recent.codes().map(|code| char::from(b'0' + code)).collect(),
        flapping: state.flapping,
        told_flapping: state.told_flapping,
        in_downtime: state.in_downtime,
        is_quiet: state.is_quiet,
        occasion: state.own_downtime.map(|of| (of.downtime.as_i64(), of.from.as_millis())),
        begun: state.begun.iter().map(stored_begun).collect(),
        remind_from: state.remind_from.map(Wall::as_millis),
        problem_since: state.problem_since.map(Wall::as_millis),
        awaits_result: state.awaits_result,
        held: state.held.map(|held| StoredHeld {
            kind: held.kind.name().to_owned(),
            to: held.to,
            reason: held.reason.name().to_owned(),
        }),
        suppressed_by: state.suppressed_by.map(|reason| reason.name().to_owned()),
    };
    serde_json::to_string(&stored).expect("text and numbers")
}

fn stored_begun(begun: &BegunDowntime) -> StoredBegun {
    let BegunDowntime { of, until } = begun;
    StoredBegun(of.downtime.as_i64(), until.as_millis(), Some(of.from.as_millis()))
}

/// # Errors
/// Fails when the gateway has not written the text.
pub fn from_json(text: &str) -> anyhow::Result<NotificationState> {
    let stored: Stored = serde_json::from_str(text).context("column notification")?;
    let code = |c: char| {
        c.to_digit(4).map(|d| d as u8).with_context(|| format!("column notification: {c:?} is no code"))
    };
    Ok(NotificationState {
        recent: stored.recent.chars().map(code).collect::<anyhow::Result<_>>()?,
        flapping: stored.flapping,
        told_flapping: stored.told_flapping,
        in_downtime: stored.in_downtime,
        is_quiet: stored.is_quiet,
        own_downtime: stored.occasion.map(|(id, from)| DowntimeOccurrence {
            downtime: Id::from_i64(id),
            from: Wall::from_millis(from),
        }),
        begun: stored.begun.iter().map(|one| begun(one, stored.occasion)).collect(),
        remind_from: stored.remind_from.map(Wall::from_millis),
        problem_since: stored.problem_since.map(Wall::from_millis),
        awaits_result: stored.awaits_result,
        held: stored.held.map(held).transpose()?,
        suppressed_by: stored.suppressed_by.as_deref().map(reason).transpose()?,
    })
}

/// If no begin is stored, that of the downtime in effect is in `occasion`. For another, the end is
/// the nearest time that is known.
fn begun(stored: &StoredBegun, occasion: Option<(i64, i64)>) -> BegunDowntime {
    let StoredBegun(id, until, from) = *stored;
    let in_effect = occasion.filter(|(downtime, _)| *downtime == id).map(|(_, from)| from);
    let from = Wall::from_millis(from.or(in_effect).unwrap_or(until));
    let of = DowntimeOccurrence { downtime: Id::from_i64(id), from };
    BegunDowntime { of, until: Wall::from_millis(until) }
}

fn held(stored: StoredHeld) -> anyhow::Result<Suppressed> {
    Ok(Suppressed {
        kind: MessageKind::named(&stored.kind).with_context(|| format!("{:?} is no kind", stored.kind))?,
        to: stored.to,
        reason: reason(&stored.reason)?,
    })
}

fn reason(name: &str) -> anyhow::Result<SuppressReason> {
    SuppressReason::named(name).with_context(|| format!("{name:?} is no reason"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_checkable_takes_little_space() {
        assert_eq!(to_json(&NotificationState::default()), r#"{"recent":""}"#);
        assert_eq!(from_json("{}").unwrap(), NotificationState::default());
    }

    #[test]
    fn a_begun_downtime_without_a_stored_begin_is_read() {
        let state = from_json(r#"{"recent":"","occasion":[7,4],"begun":[[7,9],[8,6]]}"#).unwrap();
        let begun = |id, from, until| BegunDowntime {
            of: DowntimeOccurrence { downtime: Id::from_i64(id), from: Wall::from_millis(from) },
            until: Wall::from_millis(until),
        };
        assert_eq!(state.begun, [begun(7, 4, 9), begun(8, 6, 6)]);
    }

    #[test]
    fn every_field_survives_the_store() {
        let at = |n| Some(Wall::from_millis(n));
        for (kind, reason) in MessageKind::ALL.into_iter().zip(SuppressReason::ALL) {
            let state = NotificationState {
                recent: [0, 1, 2, 3, 0].into_iter().collect(),
                flapping: true,
                told_flapping: true,
                in_downtime: true,
                is_quiet: true,
                own_downtime: Some(DowntimeOccurrence {
                    downtime: Id::from_i64(8),
                    from: Wall::from_millis(3),
                }),
                begun: vec![BegunDowntime {
                    of: DowntimeOccurrence { downtime: Id::from_i64(7), from: Wall::from_millis(4) },
                    until: Wall::from_millis(9),
                }],
                remind_from: at(1),
                problem_since: at(2),
                awaits_result: true,
                held: Some(Suppressed { kind, to: 2, reason }),
                suppressed_by: Some(reason),
            };
            assert_eq!(from_json(&to_json(&state)).unwrap(), state);
        }
    }
}
