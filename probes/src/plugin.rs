//! What a plugin printed and how it ended, by the Nagios plugin conventions.

use crate::sample::{Metric, Status};

/// A result in its final form, whatever made it.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginResult {
    pub status: Status,
    /// The first line, without performance data.
    pub text: String,
    pub long_text: String,
    pub metrics: Vec<Metric>,
    /// Performance data that was skipped, and why; truncation.
    pub warnings: Vec<String>,
}
