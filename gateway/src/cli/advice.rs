//! Puts the advice of errors into the words of the command line: the gateway names calls of its API.
//!
//! Pure. A call without a command stays as it is.

const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// A call and its command. `{}` is one part of the path; `$1` is the first of them in the command.
pub(super) const COMMANDS: [(&str, &str); 39] = [
    ("POST /contacts", "fleetgate contact add NAME"),
    ("GET /contacts", "fleetgate contact list"),
    ("GET /devices", "fleetgate device list"),
    ("POST /devices", "fleetgate device add NAME"),
    ("PATCH /devices/{}", "fleetgate device set $1"),
    ("DELETE /devices/{}", "fleetgate device remove $1"),
    ("POST /devices/{}/credentials", "fleetgate device reissue $1"),
    ("PUT /devices/{}/rental-settings", "fleetgate rental device $1 --rentable"),
    ("POST /devices/{}/replacement", "fleetgate device replace $1"),
    ("POST /devices/{}/trust", "fleetgate device trust $1 HOST-KEY"),
    ("GET /downtimes", "fleetgate downtime list"),
    ("POST /downtimes", "fleetgate downtime add --label KEY=VALUE"),
    ("PATCH /downtimes/{}", "fleetgate downtime set $1"),
    ("DELETE /downtimes/{}", "fleetgate downtime cancel $1"),
    ("POST /enrolment-tokens", "fleetgate token create NAME --enrol"),
    ("PUT /gateway/endpoint", "fleetgate gateway endpoint HOST:PORT"),
    ("GET /grants", "fleetgate grant list"),
    ("GET /hosts", "fleetgate host list"),
    ("POST /hosts", "fleetgate host add NAME"),
    ("GET /hosts/{}", "fleetgate host show $1"),
    ("PATCH /hosts/{}", "fleetgate host set $1"),
    ("DELETE /hosts/{}", "fleetgate host remove $1"),
    ("POST /hosts/{}/downtimes", "fleetgate downtime add $1"),
    ("GET /hosts/{}/metrics", "fleetgate metrics $1"),
    ("POST /hosts/{}/trust", "fleetgate host trust $1 HOST-KEY"),
    ("GET /incidents", "fleetgate incident list"),
    ("GET /metrics/query", "fleetgate graph HOST METRIC"),
    ("GET /operators", "fleetgate operator list"),
    ("GET /profiles", "fleetgate profile list"),
    ("PUT /profiles/{}", "fleetgate profile set $1"),
    ("GET /rentals", "fleetgate rental list"),
    ("PATCH /rentals/{}", "fleetgate rental set $1"),
    ("POST /rentals/{}/cancel", "fleetgate rental cancel $1"),
    ("POST /rentals/{}/end", "fleetgate rental end $1"),
    ("POST /rentals/{}/return", "fleetgate rental return $1"),
    ("GET /renters", "fleetgate renter list"),
    ("GET /restore-review", "fleetgate restore-review show"),
    ("GET /rules", "fleetgate rule list"),
    ("POST /tokens", "fleetgate token create NAME"),
];

/// The same advice with commands in place of calls.
pub(super) fn as_commands(text: &str) -> String {
    let mut said = String::new();
    let mut rest = text;
    while let Some((before, call, after)) = next_call(rest) {
        said.push_str(before);
        match command(&call) {
            Some(command) => {
                said.push_str(&format!("`{command}`"));
                rest = without_body(after);
            }
            None => {
                let until = rest.len() - after.len();
                said.push_str(&rest[before.len()..until]);
                rest = after;
            }
        }
    }
    said.push_str(rest);
    said.replace("?cascade=true", "--cascade")
}

/// Returns the text before the first call, the call without the API's own prefix, and what follows it.
fn next_call(text: &str) -> Option<(&str, String, &str)> {
    let find = |method: &'static str| text.find(&format!("{method} /")).map(|at| (at, method));
    let (at, method) = METHODS.into_iter().filter_map(find).min()?;
    let from = at + method.len() + 1;
    let is_path = |c: char| c.is_ascii_alphanumeric() || "/-_.{}".contains(c);
    let length = text[from..].find(|c| !is_path(c)).unwrap_or(text.len() - from);
    let path = text[from..from + length].trim_end_matches('.');
    let call = format!("{method} {}", path.strip_prefix("/api/v1").unwrap_or(path));
    Some((&text[..at], call, &text[from + path.len()..]))
}

fn command(call: &str) -> Option<String> {
    COMMANDS.iter().find_map(|(pattern, command)| {
        let (pattern, call): (Vec<&str>, Vec<&str>) =
            (pattern.split('/').collect(), call.split('/').collect());
        let fits = |(wanted, given): (&&str, &&str)| *wanted == "{}" || *wanted == *given;
        if pattern.len() != call.len() || !pattern.iter().zip(&call).all(fits) {
            return None;
        }
        let name = pattern.iter().zip(&call).find(|(wanted, _)| **wanted == "{}").map(|(_, given)| *given);
        // A placeholder of the API's own description is one of ours.
        let name = name.map(|name| match name.strip_prefix('{') {
            Some(placeholder) => placeholder.trim_end_matches('}').to_uppercase(),
            None => name.to_owned(),
        });
        Some(command.replace("$1", &name.unwrap_or_default()))
    })
}

/// A JSON body behind a call says what the command says in its options.
fn without_body(text: &str) -> &str {
    let Some(body) = text.strip_prefix(" {") else { return text };
    let mut depth = 1;
    for (at, c) in body.char_indices() {
        depth += match c {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        if depth == 0 {
            return &body[at + 1..];
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_become_commands() {
        let table = [
            (
                "10.0.0.1 is in none of the networks behind cam: add it (PATCH /devices/cam {\"networks\": [...]})",
                "10.0.0.1 is in none of the networks behind cam: add it (`fleetgate device set cam`)",
            ),
            (
                "cam is a device: DELETE /devices/cam ends it",
                "cam is a device: `fleetgate device remove cam` ends it",
            ),
            ("POST /devices/{device}/credentials makes one", "`fleetgate device reissue DEVICE` makes one"),
            ("a selection: POST /downtimes.", "a selection: `fleetgate downtime add --label KEY=VALUE`."),
            (
                "or PUT /api/v1/gateway/endpoint {\"endpoint\": \"a:1\"}. UDP",
                "or `fleetgate gateway endpoint HOST:PORT`. UDP",
            ),
            ("GET /nowhere and GET /rules", "GET /nowhere and `fleetgate rule list`"),
            ("nas stands behind it; ?cascade=true does that", "nas stands behind it; --cascade does that"),
            ("a body {like this} stays", "a body {like this} stays"),
        ];
        for (call, command) in table {
            assert_eq!(as_commands(call), command);
        }
    }
}
