//! Names, labels and addresses of hosts, as operators choose them. They exist only when valid.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Names occur in DNS labels, file names and subject lines. 63 characters is the smallest of their
/// limits.
pub const MAX_NAME: usize = 63;
/// Labels of one host: a hundred would be a database of its own.
pub const MAX_LABELS: usize = 32;
const MAX_LABEL_KEY: usize = 63;
/// In characters.
const MAX_LABEL_VALUE: usize = 255;
/// The longest host name of DNS (RFC 1035, section 2.3.4).
const MAX_HOST: usize = 253;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    #[error(
        "a name has 1 to {MAX_NAME} characters of a-z 0-9 . and -, and begins and ends with a letter or digit"
    )]
    Name,
    #[error("at most {MAX_LABELS} labels are expected")]
    TooManyLabels,
    #[error("a label's key has 1 to {MAX_LABEL_KEY} characters of a-z 0-9 . _ / and -: not {0:?}")]
    LabelKey(String),
    #[error(
        "a label's value has at most {MAX_LABEL_VALUE} characters and no control characters: {0:?} differs"
    )]
    LabelValue(String),
    #[error("a host name or an address is expected, such as cam1.example.net, 192.0.2.7 or 2001:db8::7")]
    Host,
}

/// The name of a host, device or user: `[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// # Errors
    /// Describes a valid name.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let outer = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-".contains(b);
        let bytes = text.as_bytes();
        let fine = bytes.len() <= MAX_NAME && outer(bytes.first()) && outer(bytes.last());
        if fine && bytes.iter().all(inner) { Ok(Name(text.to_owned())) } else { Err(BadName::Name) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a Linux network interface, which `wg-quick` takes from the file's.
const MAX_INTERFACE: usize = 15;

/// A file name for the configuration of a device that `wg-quick` accepts. The page proposes the same.
pub fn conf_file(device: &str) -> String {
    let short = device.get(..MAX_INTERFACE).map_or(device, |short| short.trim_end_matches(['.', '-']));
    format!("{short}.conf")
}

/// The same among those of other devices: where it is shortened, in a folder with the name of the device.
/// The folder of a name that ends in `.conf` could be the file of another device. It has an underscore
/// at its end, which no name has.
pub fn conf_path(device: &str) -> PathBuf {
    let file = PathBuf::from(conf_file(device));
    match () {
        () if device.len() <= MAX_INTERFACE => file,
        () if device.ends_with(".conf") => Path::new(&format!("{device}_")).join(file),
        () => Path::new(device).join(file),
    }
}

/// Whether `wg-quick` makes an interface of a file of this name.
pub fn is_interface_file(file: &Path) -> bool {
    file.file_stem().is_some_and(|stem| stem.len() <= MAX_INTERFACE)
}

/// Sorted, bounded labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// # Errors
    /// Names the invalid label.
    pub fn parse(map: BTreeMap<String, String>) -> Result<Self, BadName> {
        if map.len() > MAX_LABELS {
            return Err(BadName::TooManyLabels);
        }
        for (key, value) in &map {
            check_label(key, value)?;
        }
        Ok(Labels(map))
    }

    /// Returns these labels, and those of `others` whose keys they do not have.
    ///
    /// # Errors
    /// Fails when there are too many together.
    pub fn or(mut self, others: Labels) -> Result<Self, BadName> {
        for (key, value) in others.0 {
            self.0.entry(key).or_insert(value);
        }
        Labels::parse(self.0)
    }

    pub fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    pub fn into_map(self) -> BTreeMap<String, String> {
        self.0
    }
}

fn check_label(key: &str, value: &str) -> Result<(), BadName> {
    let in_key = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._/-".contains(&b);
    if !(1..=MAX_LABEL_KEY).contains(&key.len()) || !key.bytes().all(in_key) {
        return Err(BadName::LabelKey(key.chars().take(MAX_LABEL_KEY).collect()));
    }
    if value.chars().count() > MAX_LABEL_VALUE || value.chars().any(char::is_control) {
        return Err(BadName::LabelValue(key.to_owned()));
    }
    Ok(())
}

/// Parses a host name or an address to connect to. It never contains blanks, ports or line ends.
///
/// # Errors
/// Describes the expected form.
pub fn host_address(text: &str) -> Result<String, BadName> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(ip.to_string());
    }
    let label = |l: &str| {
        let inner = l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        (1..=63).contains(&l.len()) && inner && !l.starts_with('-') && !l.ends_with('-')
    };
    // Some resolvers read a name that ends in a number as an old form of IPv4 address.
    let last_is_a_name = text.rsplit('.').next().is_some_and(|l| l.bytes().any(|b| !b.is_ascii_digit()));
    let fine = text.len() <= MAX_HOST && last_is_a_name && text.split('.').all(label);
    if fine { Ok(text.to_ascii_lowercase()) } else { Err(BadName::Host) }
}

/// Whether this is a login name on a device, as `useradd` accepts it.
pub fn is_login(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.".contains(&b);
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_');
    text.len() <= 32 && first && text.bytes().all(inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_configuration_has_a_name_that_wg_quick_accepts() {
        assert_eq!(conf_path("cam-07"), Path::new("cam-07.conf"));
        assert_eq!(conf_file("fifteen-letters"), "fifteen-letters.conf");
        assert_eq!(
            conf_path("bridge-north-camera-07"),
            Path::new("bridge-north-camera-07/bridge-north-ca.conf")
        );
        assert_eq!(conf_file("camera-number--of-hill"), "camera-number.conf");
        assert_eq!(conf_path("camera-number-1"), Path::new("camera-number-1.conf"));
        assert_eq!(
            conf_path("camera-number-1.conf"),
            Path::new("camera-number-1.conf_/camera-number-1.conf"),
            "no folder is called like the file of another device"
        );
        assert!(is_interface_file(Path::new("a/long/folder/cam.conf")));
        assert!(!is_interface_file(Path::new("bridge-north-camera-07.conf")));
    }

    #[test]
    fn names_are_what_a_path_and_a_dns_label_take() {
        for good in ["a", "0", "cam-07", "cam.site.north", &"a".repeat(63)] {
            assert_eq!(Name::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a-", ".a", "a.", "A", "a_b", "a b", "ä", "a\n", "h_1", &"a".repeat(64), "a/b"]
        {
            assert_eq!(Name::parse(bad), Err(BadName::Name), "{bad:?}");
        }
    }

    #[test]
    fn labels_are_bounded() {
        let one = |k: &str, v: &str| Labels::parse(BTreeMap::from([(k.to_owned(), v.to_owned())]));
        assert!(one("site/floor.1-a_b", "Nordpol \u{2744} <b>").is_ok());
        assert_eq!(one("Site", ""), Err(BadName::LabelKey("Site".into())));
        assert_eq!(one("", "x"), Err(BadName::LabelKey(String::new())));
        assert_eq!(one("a", "x\u{1b}[31m"), Err(BadName::LabelValue("a".into())));
        assert_eq!(one("a", &"x".repeat(256)), Err(BadName::LabelValue("a".into())));
        let many = (0..=MAX_LABELS).map(|i| (format!("k{i}"), String::new())).collect();
        assert_eq!(Labels::parse(many), Err(BadName::TooManyLabels));
    }

    #[test]
    fn an_address_is_a_name_or_an_ip_and_nothing_else() {
        for (given, kept) in [
            ("Cam1.Example.net", "cam1.example.net"),
            ("192.0.2.7", "192.0.2.7"),
            ("2001:DB8::7", "2001:db8::7"),
            ("my_host", "my_host"),
        ] {
            assert_eq!(host_address(given).unwrap(), kept);
        }
        for bad in
            ["", "a b", "a:22", "-oProxyCommand=x", "a..b", "a/b", "[::1]", "127.1", "2130706433", "a\n"]
        {
            assert_eq!(host_address(bad), Err(BadName::Host), "{bad:?}");
        }
    }

    #[test]
    fn login_names_hold_nothing_that_a_shell_reads() {
        assert!(["root", "_svc", "cam.user-1"].iter().all(|u| is_login(u)));
        assert!(["", "1a", "a b", "a;b", "-a", "A", "$x"].iter().all(|u| !is_login(u)));
    }

    proptest! {
        #[test]
        fn every_name_matches_its_pattern(text in "\\PC{0,70}") {
            let pattern = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' || c == '-';
            if Name::parse(&text).is_ok() {
                prop_assert!(text.chars().all(pattern) && !text.starts_with(['.', '-']));
            }
        }
    }
}
