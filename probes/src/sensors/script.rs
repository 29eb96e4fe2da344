//! The text of the sensor script, and the request inside it.
//!
//! The result is one command that any login shell accepts ([`remote::run`]). No path or name can
//! break out of its quotes, and a simulated device can read the request without a shell. The module
//! does not interpret the output.
//!
//! # Shape
//!
//! ```text
//! # fleetgate-checks 1
//! # root disk %2F
//! # cpu load -
//! ...functions...
//! set -- root disk '/' cpu load ''
//! ...a loop over these...
//! ```
//!
//! Comment lines come first: key, kind and argument, percent-encoded (`-` for none). Only the
//! required functions (`functions.rs`) follow, because a metered link pays for each byte with every
//! check. Arguments are positional parameters and are never parsed again.

use std::time::Duration;

use super::Sensor;
use super::functions::{EPILOGUE, KINDS, PROLOGUE};
use crate::remote;

/// The first line of every request.
const MARK: &str = "# fleetgate-checks 1";

/// Longest request.
pub const MAX_SCRIPT: usize = remote::MAX_LINE;

/// Sensors per request; more would not fit `MAX_SCRIPT` either.
pub const MAX_SENSORS: usize = 64;

/// Returns the complete command to run on a device. Sensors beyond `MAX_SENSORS`, or that would
/// make it longer than `MAX_SCRIPT`, are left out; their keys are then missing in the output.
/// `timeout`: how long the gateway listens.
pub fn script(sensors: &[(String, Sensor)], timeout: Duration) -> String {
    let most = sensors.len().min(MAX_SENSORS);
    let mut fitting = (0..=most).rev().filter_map(|n| remote::run(&text(&sensors[..n]), timeout));
    fitting.next().unwrap_or_default()
}

/// Returns the sensors of a request, read from its comment lines alone. `None`: not a request of
/// ours.
pub fn parse_request(line: &str) -> Option<Vec<(String, Sensor)>> {
    let script = remote::carried(line)?;
    let mut lines = script.lines();
    lines.next().filter(|line| *line == MARK)?;
    let comments = lines.map_while(|line| line.strip_prefix("# "));
    comments.take(MAX_SENSORS).map(read_comment).collect()
}

pub(super) fn text(sensors: &[(String, Sensor)]) -> String {
    let comments: String = sensors.iter().map(|(key, sensor)| comment(key, sensor)).collect();
    let needed = KINDS.iter().filter(|(kind, _)| sensors.iter().any(|(_, s)| s.asked() == *kind));
    let functions: String = needed.map(|(_, function)| *function).collect();
    let arguments: String = sensors.iter().map(|(key, sensor)| arguments(key, sensor)).collect();
    format!("{MARK}\n{comments}{PROLOGUE}{functions}set --{arguments}\n{EPILOGUE}")
}

fn comment(key: &str, sensor: &Sensor) -> String {
    let argument = sensor.argument().map_or("-".to_owned(), encode);
    format!("# {} {} {argument}\n", encode(key), sensor.asked())
}

fn arguments(key: &str, sensor: &Sensor) -> String {
    format!(" {} {} {}", encode(key), sensor.asked(), quote(sensor.argument().unwrap_or_default()))
}

fn read_comment(comment: &str) -> Option<(String, Sensor)> {
    let (key, rest) = comment.split_once(' ')?;
    let (kind, argument) = rest.split_once(' ')?;
    let argument = if argument == "-" { None } else { Some(decode(argument)?) };
    let sensor = Sensor::from_parts(kind, argument.as_deref()).ok()?;
    Some((decode(key)?, sensor))
}

/// Quotes one word for `sh`. An argument of a program cannot contain a zero byte, and
/// `Sensor::from_parts` refuses it.
fn quote(text: &str) -> String {
    let text = text.replace('\0', "");
    if !text.contains('\'') {
        return format!("'{text}'");
    }
    let escaped = |c: char| if "\"$`\\".contains(c) { format!("\\{c}") } else { c.to_string() };
    format!("\"{}\"", text.chars().map(escaped).collect::<String>())
}

/// Percent-encodes all but the plainest bytes. The result is never empty and never a lone `-`.
pub(super) fn encode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    match text {
        "" => "%".to_owned(),
        "-" => "%2D".to_owned(),
        _ => text
            .bytes()
            .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect(),
    }
}

pub(super) fn decode(text: &str) -> Option<String> {
    if text == "%" {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let byte = u8::from_str_radix(part.get(..2)?, 16).ok()?;
        bytes.push(byte);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn disk(key: &str, path: &str) -> (String, Sensor) {
        (key.to_owned(), Sensor::Disk { path: path.to_owned() })
    }

    fn all_kinds() -> Vec<(String, Sensor)> {
        let sensors = [
            Sensor::Disk { path: "/".into() },
            Sensor::Mounts,
            Sensor::Load,
            Sensor::Memory,
            Sensor::Uptime,
            Sensor::Temperature { name: Some("Core 0".into()) },
            Sensor::Processes { name: None },
            Sensor::FileAge { path: "/tmp".into() },
            Sensor::Usb { name: "class:06".into() },
            Sensor::Users,
            Sensor::Cpu,
            Sensor::Traffic { name: None },
            Sensor::Daily { path: "/tmp".into() },
            Sensor::Values { path: "/tmp/board".into() },
        ];
        sensors.into_iter().map(|sensor| (sensor.kind().to_owned(), sensor)).collect()
    }

    /// Lets a shell parse the text without running it.
    fn shell_accepts(text: &str) -> bool {
        let mut sh = Command::new("sh").arg("-n").stdin(Stdio::piped()).spawn().expect("a shell");
        sh.stdin.take().expect("its input").write_all(text.as_bytes()).expect("it reads");
        sh.wait().expect("it ends").success()
    }

    #[test]
    fn a_request_says_in_comments_what_it_asks() {
        let asked = [disk("root", "/"), ("cpu".into(), Sensor::Load)];
        let script_text = text(&asked);
        assert!(script_text.starts_with("# fleetgate-checks 1\n# root disk %2F\n# cpu load -\n"));
        assert!(script_text.contains("\nset -- root disk '/' cpu load ''\n"));
        assert_eq!(parse_request(&script(&asked, TIMEOUT)), Some(asked.to_vec()));
    }

    #[test]
    fn only_the_functions_that_are_needed_are_sent() {
        let text = script(&[("up".into(), Sensor::Uptime)], TIMEOUT);
        assert!(text.contains("fg_uptime()") && !text.contains("fg_disk()"));
        assert!(text.len() < 1_500, "{}", text.len());
    }

    #[test]
    fn the_functions_travel_well() {
        for text in KINDS.iter().map(|(_, function)| *function).chain([PROLOGUE, EPILOGUE]) {
            assert!(!text.contains('\'') && text.matches('\\').count() <= 2 && text.is_ascii(), "{text}");
        }
    }

    #[test]
    fn everything_asked_at_once_fits_the_strictest_server() {
        assert!(script(&all_kinds(), TIMEOUT).len() < MAX_SCRIPT * 3 / 4);
        let many: Vec<_> = (0..200).map(|i| disk(&format!("d{i}"), &"/é'".repeat(40))).collect();
        let text = script(&many, TIMEOUT);
        assert!(text.len() <= MAX_SCRIPT);
        let asked = parse_request(&text).expect("a request");
        assert!(asked.len() > 5 && asked[..] == many[..asked.len()]);
    }

    #[test]
    fn other_commands_are_no_requests() {
        let carried = |text: &str| remote::run(text, TIMEOUT).expect("short enough");
        for line in [
            String::new(),
            "uptime".to_owned(),
            "# fleetgate-checks 1\n".to_owned(),
            carried("# fleetgate-checks 2\n"),
            carried("# fleetgate-checks 1\n# a disk\n"),
            carried("# fleetgate-checks 1\n# a nose -\n"),
        ] {
            assert_eq!(parse_request(&line), None, "{line:?}");
        }
        assert_eq!(parse_request(&carried("# fleetgate-checks 1\nexec sh")), Some(vec![]));
    }

    /// Paths that an attacker or a playful customer might choose.
    fn hostile() -> impl Strategy<Value = String> {
        let nasty = prop_oneof![
            Just("'; touch /tmp/pwned; '"),
            Just("$(id)"),
            Just("`id`"),
            Just("\\'"),
            Just("\\"),
            Just("\n"),
            Just("# x\n"),
            Just("\""),
            Just("%"),
            Just("-"),
            Just("é"),
            Just("!"),
            Just("*"),
            Just("\r\n"),
            Just(" "),
        ];
        let piece = prop_oneof![nasty.prop_map(str::to_owned), "[^\0]{0,4}"];
        proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn no_name_breaks_out_of_its_quotes(key in hostile(), path in hostile()) {
            let sensors = vec![disk(&key, &format!("/{path}")), ("b".to_owned(), Sensor::Load)];
            let line = script(&sensors, TIMEOUT);
            prop_assert!(shell_accepts(&line) && shell_accepts(&text(&sensors)), "{}", line);
            // The shell sees the unchanged argument.
            let echoed = format!("printf %s {}", quote(&path));
            let out = Command::new("sh").arg("-c").arg(&echoed).output().expect("a shell");
            prop_assert_eq!(String::from_utf8_lossy(&out.stdout), path);
            prop_assert_eq!(parse_request(&line), Some(sensors));
        }

        #[test]
        fn encoding_is_one_plain_word_and_turns_back(text in any::<String>(), junk in "[%0-9A-Fa-z]{0,12}") {
            let word = encode(&text);
            prop_assert!(!word.is_empty() && word != "-" && word.bytes().all(|b| b.is_ascii_graphic()));
            prop_assert_eq!(decode(&word), Some(text));
            let _ = (decode(&junk), remote::run(&format!("{MARK}\n# {junk} disk {junk}\n"), TIMEOUT).map(|line| parse_request(&line)));
        }
    }
}
