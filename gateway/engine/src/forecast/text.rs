//! The forecast in plain words.

use crate::history::{DAY, HOUR, Second};

use super::envelope::Teeth;

/// Days of a month in round numbers.
const MONTH: Second = 30 * DAY;

pub const FULL: &str = "full";

/// Returns what keeps it below its highest peak. `teeth`: the purges.
pub fn held(teeth: Option<&Teeth>, top: f64, full: f64) -> String {
    let below = (top.floor() + 1.0).min(full);
    match teeth {
        Some(teeth) => format!("{} below {below} %", keeper(teeth)),
        None => format!("stays below {below} %"),
    }
}

pub fn full_before_purge(teeth: &Teeth) -> String {
    match purge(teeth) {
        Purge::Named(name) => format!("full before the {name} purge"),
        Purge::Every(time) => format!("full before the purge every {time}"),
        Purge::Irregular => "full before each purge".to_owned(),
    }
}

pub fn full_in(within: Second) -> String {
    match within {
        ..HOUR => "full within an hour".to_owned(),
        _ => format!("full in about {}", span(within)),
    }
}

pub fn not_within(horizon: Second) -> String {
    format!("not full within {}", span(horizon))
}

enum Purge {
    Named(&'static str),
    Every(String),
    Irregular,
}

fn purge(teeth: &Teeth) -> Purge {
    match rounded(teeth.period, HOUR) {
        _ if !teeth.is_regular => Purge::Irregular,
        20..=28 => Purge::Named("daily"),
        156..=180 => Purge::Named("weekly"),
        _ => Purge::Every(span(teeth.period)),
    }
}

fn keeper(teeth: &Teeth) -> String {
    match purge(teeth) {
        Purge::Named(name) => format!("the {name} purge keeps it"),
        Purge::Every(time) => format!("a purge every {time} keeps it"),
        Purge::Irregular => "purges keep it".to_owned(),
    }
}

/// Returns a time in the largest unit of which it has two.
fn span(time: Second) -> String {
    let (count, unit) = match time {
        _ if time >= 2 * MONTH => (rounded(time, MONTH), "month"),
        _ if time >= 2 * DAY => (rounded(time, DAY), "day"),
        _ => (rounded(time, HOUR), "hour"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

fn rounded(time: Second, unit: Second) -> Second {
    (time + unit / 2) / unit
}
