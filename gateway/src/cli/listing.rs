//! A list of the API: a table for a person, JSON for a program.

use serde::Serialize;

use super::client::Client;
use super::device::said;
use super::table::{self, Column};
use crate::cli::out;

/// Prints a list. `none`: what is said of an empty one.
pub(super) fn print<T: Serialize>(
    client: &Client,
    items: &[T],
    (columns, row): (&[Column], impl Fn(&T) -> Vec<String>),
    none: &str,
) -> anyhow::Result<()> {
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(items)?);
        return Ok(());
    }
    if items.is_empty() {
        return said(client, none);
    }
    table::print(columns, items.iter().map(row).collect());
    Ok(())
}
