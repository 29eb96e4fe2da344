//! Arguments that several commands share: labels, and how checks log in to a host or device.

use clap::Args;
use serde_json::{Map, Value, json};

use super::device::present;

/// How checks log in to something new.
#[derive(Args)]
pub(crate) struct Ssh {
    #[command(flatten)]
    login: Login,
    /// SSH host key to pin: SHA256:..., a public key, or a line of known_hosts
    #[arg(long)]
    host_key: Option<String>,
}

#[derive(Args)]
pub(crate) struct Login {
    /// User that checks log in as [default: no login]
    #[arg(long, value_name = "USER", value_parser = login)]
    ssh_user: Option<String>,
    /// Port of the SSH server
    #[arg(long)]
    ssh_port: Option<u16>,
}

/// Parses a user. `none` is no user here: elsewhere it means that there is no login.
fn login(text: &str) -> Result<String, String> {
    match text {
        "none" => Err("without a user there is no login: leave the option out; \
                       `--no-ssh-user` of `fleetgate device set` and `fleetgate host set` removes a user"
            .to_owned()),
        user => Ok(user.to_owned()),
    }
}

impl Ssh {
    pub(crate) fn body(&self) -> Value {
        let Login { ssh_user, ssh_port } = &self.login;
        json!({ "user": ssh_user, "port": ssh_port, "host_key": self.host_key })
    }
}

/// The changes of how checks log in to a host or device.
#[derive(Args)]
pub(crate) struct LoginChange {
    #[command(flatten)]
    login: Login,
    /// Remove the user: checks log in no more
    #[arg(long, conflicts_with = "ssh_user")]
    no_ssh_user: bool,
}

impl LoginChange {
    /// As a change of the API has it; `None`: nothing changes.
    pub(crate) fn body(&self) -> Option<Value> {
        let mut body = present(json!({ "user": self.login.ssh_user, "port": self.login.ssh_port }));
        if self.no_ssh_user {
            body["user"] = Value::Null;
        }
        (body != json!({})).then_some(body)
    }
}

/// The changes of the labels of a host or device.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct LabelChanges {
    /// Add or change a label, as key=value (key= removes it); may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// Remove a label; may be repeated
    #[arg(long, value_name = "KEY")]
    drop_label: Vec<String>,
}

impl LabelChanges {
    /// As a change of the API has it, where `null` removes; `None`: nothing changes.
    ///
    /// # Errors
    /// Names a label that is to be dropped and is not there, or one that is given twice.
    pub(crate) fn body(&self, of: &str, before: &Value) -> anyhow::Result<Option<Value>> {
        let mut change = Map::new();
        for key in &self.drop_label {
            anyhow::ensure!(before.get(key).is_some(), "--drop-label {key}: {of} has no such label");
            change.insert(key.clone(), Value::Null);
        }
        for (key, value) in labels(self.labels.clone())? {
            let is_empty = value.as_str().is_some_and(str::is_empty);
            change.insert(key, if is_empty { Value::Null } else { value });
        }
        Ok((!change.is_empty()).then_some(Value::Object(change)))
    }
}

/// `key=value` of the command line.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?}: expected key=value"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Returns the `--label` options as an object.
///
/// # Errors
/// Names a key that is given twice, because one value would be lost.
pub(crate) fn labels(pairs: Vec<(String, String)>) -> anyhow::Result<Map<String, Value>> {
    let mut labels = Map::new();
    for (key, value) in pairs {
        if labels.contains_key(&key) {
            anyhow::bail!("--label {key} is given twice: give it one value");
        }
        labels.insert(key, Value::String(value));
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_key_and_value() {
        assert_eq!(pair("site=hill=1"), Ok(("site".to_owned(), "hill=1".to_owned())));
        assert!(pair("site").is_err());
    }

    #[test]
    fn a_label_is_changed_or_removed() {
        let given = |text: &str| pair(text).unwrap();
        let before = json!({ "site": "hill", "rack": "3" });
        let changes =
            LabelChanges { labels: vec![given("site=sea"), given("kind=")], drop_label: vec!["rack".into()] };
        let expected = json!({ "site": "sea", "kind": null, "rack": null });
        assert_eq!(changes.body("cam", &before).unwrap(), Some(expected));
        assert_eq!(LabelChanges::default().body("cam", &before).unwrap(), None);
        let gone = LabelChanges { drop_label: vec!["old".into()], ..LabelChanges::default() };
        assert!(gone.body("cam", &before).unwrap_err().to_string().contains("cam has no such label"));
    }

    #[test]
    fn a_label_has_one_value() {
        let pairs = |keys: [&str; 2]| keys.map(|k| (k.to_owned(), "x".to_owned())).to_vec();
        assert_eq!(labels(pairs(["site", "kind"])).unwrap().len(), 2);
        let refused = labels(pairs(["site", "site"])).unwrap_err().to_string();
        assert!(refused.contains("--label site is given twice"), "{refused}");
    }
}
