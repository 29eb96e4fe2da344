//! The gateway's name in `EHLO`. It is the setting, or else this machine's fully qualified name, or
//! else the address that the connection comes from (RFC 5321, 4.1.4). A bare host name is never sent:
//! strict servers reject it with 504.

use std::ffi::{CStr, CString};
use std::net::IpAddr;
use std::time::Duration;

/// Longest name in the DNS.
const MAX_NAME: usize = 253;
/// Longest label of a name.
const MAX_LABEL: usize = 63;
/// Time limit, so that a name server without a reply does not delay a mail.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(3);

/// Returns `mail.hello` in the form for `EHLO`: a name, or an address in brackets. `None` when it is
/// neither.
pub fn setting(text: &str) -> Option<String> {
    let text = text.trim();
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = bracketed.unwrap_or(text);
    match address.strip_prefix("IPv6:").unwrap_or(address).parse::<IpAddr>() {
        Ok(address) => Some(literal(address)),
        Err(_) => (bracketed.is_none() && is_name(text)).then(|| text.to_owned()),
    }
}

/// Returns the name. `local` is the local address of the connection to the server.
pub async fn name(setting: Option<&str>, local: IpAddr) -> String {
    match setting {
        Some(name) => name.to_owned(),
        None => chosen(fully_qualified_name().await.as_deref(), local),
    }
}

fn chosen(found: Option<&str>, local: IpAddr) -> String {
    found.and_then(qualified).unwrap_or_else(|| literal(local))
}

fn literal(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => format!("[{address}]"),
        IpAddr::V6(address) => format!("[IPv6:{address}]"),
    }
}

/// Returns a name whose domain is known to others, without the trailing dot.
fn qualified(name: &str) -> Option<String> {
    let name = name.trim_end_matches('.');
    let placeholder = name.starts_with("localhost.") || name.ends_with(".localdomain");
    (is_name(name) && name.contains('.') && !placeholder).then(|| name.to_owned())
}

fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_number = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
    name.len() <= MAX_NAME && name.split('.').all(is_label) && !name.rsplit('.').next().is_some_and(is_number)
}

/// Returns the name as `hostname --fqdn` does: the name of this machine, or the canonical name from the
/// resolver (the file `hosts`, DNS).
async fn fully_qualified_name() -> Option<String> {
    let name = tokio::fs::read_to_string("/proc/sys/kernel/hostname").await.ok()?;
    let name = name.trim().to_owned();
    if qualified(&name).is_some() {
        return Some(name);
    }
    let asked = tokio::task::spawn_blocking(move || canonical_name(&name));
    tokio::time::timeout(LOOKUP_PATIENCE, asked).await.ok()?.ok()?
}

#[allow(unsafe_code, reason = "getaddrinfo with AI_CANONNAME, which std does not have")]
fn canonical_name(name: &str) -> Option<String> {
    let name = CString::new(name).ok()?;
    // SAFETY: `hints` is zero except for two numbers, as the call requires. `found` is read only after
    // success. Its list, and the C text in it, live until `freeaddrinfo`.
    unsafe {
        let mut hints: libc::addrinfo = std::mem::zeroed();
        hints.ai_flags = libc::AI_CANONNAME;
        hints.ai_socktype = libc::SOCK_STREAM;
        let mut found = std::ptr::null_mut();
        if libc::getaddrinfo(name.as_ptr(), std::ptr::null(), &raw const hints, &raw mut found) != 0 {
            return None;
        }
        let canonical = (*found).ai_canonname;
        let text = (!canonical.is_null()).then(|| CStr::from_ptr(canonical).to_string_lossy().into_owned());
        libc::freeaddrinfo(found);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn a_bare_host_name_is_never_said() {
        for found in [
            None,
            Some(""),
            Some("gateway"),
            Some("localhost"),
            Some("localhost.localdomain"),
            Some("gateway.localdomain"),
            Some("my_host.example.com"),
            Some("-a.example.com"),
            Some("192.0.2.7"),
            Some("gateway."),
        ] {
            assert_eq!(chosen(found, V4), "[192.0.2.1]", "{found:?}");
        }
        assert_eq!(chosen(Some("gateway.example.com."), V4), "gateway.example.com");
        assert_eq!(chosen(None, "2001:db8::1".parse().unwrap()), "[IPv6:2001:db8::1]");
        assert_eq!(chosen(None, "::ffff:192.0.2.1".parse().unwrap()), "[192.0.2.1]");
    }

    #[test]
    fn a_setting_is_a_name_or_an_address() {
        for (text, said) in [
            ("mx.example.com", "mx.example.com"),
            ("192.0.2.1", "[192.0.2.1]"),
            ("[192.0.2.1]", "[192.0.2.1]"),
            ("2001:db8::1", "[IPv6:2001:db8::1]"),
            ("[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]"),
        ] {
            assert_eq!(setting(text).as_deref(), Some(said), "{text}");
        }
        for text in ["", "a b", "mx.example.com\r\nRCPT TO:<x@y>", "a..b", "ä.example", "1.2.3", "[x", "[x]"]
        {
            assert_eq!(setting(text), None, "{text}");
        }
        let long = format!("{}.example.com", "a".repeat(64));
        assert_eq!(setting(&long), None);
    }

    #[tokio::test]
    async fn what_this_machine_is_called_is_a_name_or_an_address() {
        let said = name(None, V4).await;
        assert!(said.contains('.') && setting(&said).as_deref() == Some(&*said), "{said}");
    }
}
