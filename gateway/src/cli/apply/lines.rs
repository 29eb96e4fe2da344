//! Finds the line of a field in the file.
//!
//! Every resource of the file has a line. A field that is not written itself, such as one from a
//! site, has the line of the closest part around it.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::plan::ResourceKind;

/// The start of each line, to find a line by its offset in the text.
pub(super) struct Begins(Vec<usize>);

impl Begins {
    pub fn of(text: &str) -> Begins {
        Begins(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect())
    }

    /// Returns the line, counted from 1.
    pub fn line(&self, at: usize) -> usize {
        1 + self.0.partition_point(|end| *end < at)
    }
}

/// Lines of the fields of one resource: `ssh.user`, `thresholds[0].warn`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines(BTreeMap<String, usize>);

impl Lines {
    pub fn of(root: &DeTable<'_>, begins: &Begins, kind: ResourceKind, name: &str) -> Lines {
        let mut lines = Lines::default();
        let of_host = |list: &'static str, host: &str, service: &str| {
            let services = entry(root, &[list, host])?.as_table()?.get("services")?.get_ref();
            services.as_table()?.get(service).map(Spanned::get_ref)
        };
        let found = match (kind, name.split_once('/')) {
            (ResourceKind::Service, Some((host, service))) => {
                of_host("devices", host, service).or_else(|| of_host("hosts", host, service))
            }
            (ResourceKind::ProfileRules, _) => root.get("profile_rules").map(Spanned::get_ref),
            _ => entry(root, &[table(kind), name]),
        };
        let at = if kind == ResourceKind::ProfileRules { "rules" } else { "" };
        found.into_iter().for_each(|value| lines.below(at, value, begins));
        lines
    }

    fn below(&mut self, at: &str, value: &DeValue<'_>, begins: &Begins) {
        match value {
            DeValue::Table(fields) => {
                for (name, value) in fields {
                    let dot = if at.is_empty() { "" } else { "." };
                    let path = format!("{at}{dot}{}", name.get_ref());
                    self.0.insert(path.clone(), begins.line(name.span().start));
                    self.below(&path, value.get_ref(), begins);
                }
            }
            DeValue::Array(list) => {
                for (i, value) in list.iter().enumerate() {
                    let path = format!("{at}[{i}]");
                    self.0.insert(path.clone(), begins.line(value.span().start));
                    self.below(&path, value.get_ref(), begins);
                }
            }
            _ => {}
        }
    }

    /// Returns the line of the field, or of the part that it belongs to.
    pub fn line(&self, field: &str) -> Option<usize> {
        let mut path = field;
        loop {
            if let Some(line) = self.0.get(path) {
                return Some(*line);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }
}

/// Finds a number that JSON cannot express: `inf` or `nan`.
pub(super) fn endless(root: &DeTable<'_>) -> Option<usize> {
    fn within(value: &Spanned<DeValue<'_>>) -> Option<usize> {
        match value.get_ref() {
            DeValue::Float(number) => {
                let is_endless = number.as_str().ends_with(['f', 'n']);
                is_endless.then(|| value.span().start)
            }
            DeValue::Table(fields) => fields.values().find_map(within),
            DeValue::Array(list) => list.iter().find_map(within),
            _ => None,
        }
    }
    root.values().find_map(within)
}

fn table(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Profile => "profiles",
        ResourceKind::ProfileRules => "profile_rules",
        ResourceKind::Contact => "contacts",
        ResourceKind::NotificationRule => "notification_rules",
        ResourceKind::Device | ResourceKind::Service => "devices",
        ResourceKind::Host => "hosts",
        ResourceKind::Downtime => "downtimes",
        ResourceKind::Grant => "grants",
    }
}

fn entry<'a, 'i>(root: &'a DeTable<'i>, path: &[&str; 2]) -> Option<&'a DeValue<'i>> {
    root.get(path[0])?.get_ref().as_table()?.get(path[1]).map(Spanned::get_ref)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_has_its_line_or_that_of_what_it_is_in() {
        let text = "[devices.a]\nssh = { user = \"u\" }\nthresholds = [\n {},\n { metric = \"m\" },\n]\n\
                    [devices.a.services.ping]\ninterval_s = 5\n[[profile_rules]]\nprofile = \"p\"\n";
        let root = DeTable::parse(text).unwrap();
        let begins = Begins::of(text);
        let of = |kind, name: &str, field: &str| Lines::of(root.get_ref(), &begins, kind, name).line(field);
        assert_eq!(of(ResourceKind::Device, "a", "ssh.user"), Some(2));
        assert_eq!(of(ResourceKind::Device, "a", "ssh.port"), Some(2));
        assert_eq!(of(ResourceKind::Device, "a", "thresholds[1].metric"), Some(5));
        assert_eq!(of(ResourceKind::Device, "a", "labels"), None);
        assert_eq!(of(ResourceKind::Service, "a/ping", "interval_s"), Some(8));
        assert_eq!(of(ResourceKind::ProfileRules, "", "rules[0].profile"), Some(10));
    }
}
