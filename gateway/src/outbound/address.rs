//! Addresses of outgoing HTTP calls, as operators write them.

use super::{Outbound, Purpose, Refused};
use reqwest::Url;

/// The longest URL that browsers and proxies accept.
const MAX_URL: usize = 2_048;

/// Parses a URL that can be called: http or https, without a login. [`Outbound`] decides whether it may
/// be called.
///
/// # Errors
/// Describes the expected form.
pub fn parse(text: &str) -> Result<String, &'static str> {
    let wanted = "an address such as https://hooks.example.com/fleet is expected";
    let url: Url = text.parse().map_err(|_| wanted)?;
    if text.len() > MAX_URL || !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(wanted);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("no login is expected in the address: the signature proves who calls");
    }
    Ok(url.to_string())
}

/// Returns the host of a URL that [`parse`] accepted.
pub fn host_of(url: &str) -> String {
    let url: Option<Url> = url.parse().ok();
    let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
    // The brackets of an IPv6 address belong to the URL.
    host.trim_start_matches('[').trim_end_matches(']').to_owned()
}

/// Checks whether a URL that [`parse`] accepted may be called, if it contains an address and not a
/// name.
///
/// # Errors
/// Names the refused address.
pub fn permitted(url: &str, outbound: &Outbound) -> Result<(), Refused> {
    host_of(url).parse().map_or(Ok(()), |ip| outbound.permit(ip, Purpose::Call))
}
