//! Describes invalid settings for a log. It shows no line of the file, and no value that may be a
//! secret. Pure.

use config::ConfigError;

/// Sections that contain a secret. A value in place of the whole section may be one too.
const SECRET: [&str; 2] = ["mail", "heartbeat"];

pub(super) fn words(error: &ConfigError) -> String {
    said(error, None)
}

fn said(error: &ConfigError, below: Option<&str>) -> String {
    match error {
        // The library shows the line with its content.
        ConfigError::FileParse { cause, .. } => without_lines(&cause.to_string()),
        ConfigError::Type { expected, key, .. } if may_be_secret(key.as_deref().or(below)) => {
            let key = key.as_deref().or(below).map(|key| format!("{key}: ")).unwrap_or_default();
            format!("{key}expected {expected}")
        }
        ConfigError::At { error, key, .. } => {
            let key = key.as_deref().or(below);
            let place = key.map(|key| format!(" for key `{key}`")).unwrap_or_default();
            format!("{}{place}", said(error, key))
        }
        ConfigError::Message(text) if may_be_secret(below) => without_value(text),
        other => other.to_string(),
    }
}

/// An error without a key may concern any section.
fn may_be_secret(key: Option<&str>) -> bool {
    let section = key.and_then(|key| key.split(['.', '[']).next()).unwrap_or_default();
    section.is_empty() || SECRET.contains(&section)
}

/// The input is `TOML parse error at line 3, column 12`, the line itself between bars, and the cause.
fn without_lines(text: &str) -> String {
    let said = text.lines().filter(|line| !line.contains('|') && !line.trim().is_empty());
    said.collect::<Vec<_>>().join(": ")
}

/// The input is `invalid type: string "...", expected a map`, as the library writes it. Other messages
/// contain only keys.
fn without_value(text: &str) -> String {
    let about_value = ["invalid type: ", "invalid value: ", "invalid length "];
    match text.rsplit_once(", expected ") {
        Some((value, expected)) if about_value.iter().any(|words| value.starts_with(words)) => {
            format!("expected {expected}")
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(toml: &str) -> String {
        let source = config::File::from_str(toml, config::FileFormat::Toml);
        words(&config::Config::builder().add_source(source).build().unwrap_err())
    }

    #[test]
    fn of_a_broken_line_its_place_is_said_and_not_what_it_holds() {
        let said = parsed("[mail]\npassword = \"s3cret\nto = 5\n");
        assert!(said.contains("line 2") && !said.contains("s3cret"), "{said}");
        let said = parsed("[mail]\npassword = s3cret\n");
        assert!(said.contains("line 2") && !said.contains("s3cret"), "{said}");
        let said = parsed("[mail]\npassword = \"s3cret\" # | \"\n= | s3cret |\n");
        assert!(said.contains("line 3") && !said.contains("s3cret"), "{said}");
    }

    #[test]
    fn a_value_in_a_wrong_place_is_said_only_where_no_secret_stands() {
        let wrong = |key: Option<&str>| {
            let found = config::ConfigError::At {
                error: Box::new(ConfigError::Message(
                    "invalid type: string \"s3cret\", expected a map".into(),
                )),
                origin: None,
                key: key.map(str::to_owned),
            };
            words(&found)
        };
        assert_eq!(wrong(Some("heartbeat")), "expected a map for key `heartbeat`");
        assert_eq!(wrong(Some("mail.password")), "expected a map for key `mail.password`");
        assert_eq!(wrong(None), "expected a map");
        assert!(wrong(Some("keepalive")).contains("s3cret"), "a number that is none helps who reads it");
        let unknown = ConfigError::Message("unknown field `listn`, expected one of `listen`".into());
        assert!(words(&unknown).contains("listn"));
    }
}
