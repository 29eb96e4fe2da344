//! The last hours of the value that a mail is about: a bar for each ten minutes, the lowest and the highest
//! value. Pure; the text and the HTML have the same content.

use fleetgate_engine::history::query::sparkline;

use crate::notification::mail::render::{MAX_LINE, escaped, one_line};

/// A metric over the last hours.
#[derive(Clone, Debug, PartialEq)]
pub struct RecentValues {
    pub metric: String,
    pub uom: String,
    pub hours: u32,
    /// The average of each part of the time, oldest first. `None` is a gap.
    pub averages: Vec<Option<f64>>,
    pub low: f64,
    pub high: f64,
}

impl RecentValues {
    /// Returns `used, last 6 h`.
    fn title(&self) -> String {
        format!("{}, last {} h", one_line(&self.metric, MAX_LINE), self.hours)
    }

    /// Returns `61% to 93%`.
    fn range(&self) -> String {
        let uom = one_line(&self.uom, MAX_LINE);
        format!("{}{uom} to {}{uom}", number(self.low), number(self.high))
    }
}

/// Returns a paragraph with the bars, or nothing.
pub fn text(values: Option<&RecentValues>) -> String {
    let Some(values) = values else { return String::new() };
    let bars = sparkline(&values.averages);
    format!("Values\n    {}: {}\n    {}\n", values.title(), values.range(), bars.trim_end())
}

pub fn html(values: Option<&RecentValues>) -> String {
    let Some(values) = values else { return String::new() };
    let (title, range) = (escaped(&values.title()), escaped(&values.range()));
    let bars = sparkline(&values.averages);
    format!("<p>{title}: {range}<br><span style=\"{BARS}\">{}</span></p>\n", bars.trim_end())
}

const BARS: &str = "font-family:monospace;white-space:pre";

/// Formats a value with at most three digits behind the point.
fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
