//! The output of the sensor script: its lines, read and written.
//!
//! The parser reads any bytes within bounds and finds the output after anything that a login shell
//! printed before it. A truncated section is an error instead of a value. The module does not know
//! which numbers a sensor should have.
//!
//! ```text
//! @fleetgate 1
//! @key root
//! total 264212084 kB
//! @note ext4
//! @end
//! @key cpu
//! @error cannot read /proc/loadavg
//! @end
//! ```

use super::MAX_SENSORS;
use super::script::{decode, encode};
use crate::range;
use crate::words;

/// Values kept of one section: four of each of four sources on a sensor board, and their age.
pub const MAX_VALUES: usize = 17;

/// Bytes of output that are read: `MAX_SENSORS` sections of the maximum length.
const MAX_ANSWER: usize = 64 * 1024;
/// Longest note or error in characters.
const WORDS_CHARS: usize = 200;
/// Longest name or unit of a value in characters.
const NAME_CHARS: usize = 32;

/// A device's reading of one sensor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    pub values: Vec<Value>,
    /// The source among several: the name of the zone or of the newest file. May be empty.
    pub note: String,
    /// The folder was read and contains no file.
    pub empty: bool,
    /// The reason why there are no values, as the device reported it.
    pub error: Option<String>,
}

/// One number as the device reported it.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    pub name: String,
    pub value: f64,
    /// `kB`, `s`, `mC` or empty.
    pub unit: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    #[error("the device printed nothing: look whether its account has a shell")]
    Empty,
    #[error("the device did not run the check but said: {0}")]
    NoAnswer(String),
}

impl Reading {
    pub fn of(values: &[(&str, f64, &str)]) -> Reading {
        let value =
            |&(name, value, unit): &(&str, f64, &str)| Value { name: name.into(), value, unit: unit.into() };
        Reading { values: values.iter().map(value).collect(), ..Reading::default() }
    }

    pub fn failed(error: &str) -> Reading {
        Reading { error: Some(words::line(error, WORDS_CHARS)), ..Reading::default() }
    }

    /// Makes the reading of a file system of `total` bytes, `used` of them in use.
    pub fn disk(total: u64, used: u64) -> Reading {
        let kb = |bytes: u64| (bytes / 1024) as f64;
        let free = total.saturating_sub(used);
        Reading::of(&[("used", kb(used), "kB"), ("free", kb(free), "kB")])
    }

    /// Adds the inodes of the file system.
    pub fn with_inodes(mut self, used: u32, free: u32) -> Reading {
        self.values.extend(Reading::of(&[("iused", used.into(), ""), ("ifree", free.into(), "")]).values);
        self
    }

    pub fn mounts(read_only: u32) -> Reading {
        Reading::count("read_only", read_only)
    }

    pub fn load(averages: [f64; 3], cpus: u32) -> Reading {
        let [one, five, fifteen] = averages;
        Reading::of(&[
            ("load1", one, ""),
            ("load5", five, ""),
            ("load15", fifteen, ""),
            ("cpus", cpus.into(), ""),
        ])
    }

    /// Makes a reading of the memory, in bytes.
    pub fn memory(total: u64, available: u64) -> Reading {
        let kb = |bytes: u64| (bytes / 1024) as f64;
        Reading::of(&[("total", kb(total), "kB"), ("available", kb(available), "kB")])
    }

    pub fn uptime(seconds: f64) -> Reading {
        Reading::of(&[("uptime", seconds, "s")])
    }

    pub fn temperature(celsius: f64, zone: &str) -> Reading {
        let note = words::line(zone, WORDS_CHARS);
        Reading { note, ..Reading::of(&[("temperature", (celsius * 1000.0).round(), "mC")]) }
    }

    pub fn processes(count: u32) -> Reading {
        Reading::of(&[("processes", count.into(), "")])
    }

    pub fn file_age(seconds: f64, newest: &str) -> Reading {
        Reading { note: words::line(newest, WORDS_CHARS), ..Reading::of(&[("age", seconds, "s")]) }
    }

    pub fn count(name: &str, count: u32) -> Reading {
        Reading::of(&[(name, count.into(), "")])
    }

    /// Makes the reading of two samples a second apart.
    pub fn cpu(percent: f64) -> Reading {
        Reading::of(&[("busy", percent, ""), ("idle", 100.0 - percent, "")])
    }

    pub fn traffic(rx: u64, tx: u64, interface: &str) -> Reading {
        let values = [("rx", rx as f64, "B"), ("tx", tx as f64, "B"), ("in", 0.0, "B"), ("out", 0.0, "B")];
        Reading { note: words::line(interface, WORDS_CHARS), ..Reading::of(&values) }
    }

    pub fn daily(files: u32, bytes: u64) -> Reading {
        Reading::of(&[("files", files.into(), ""), ("bytes", bytes as f64, "B")])
    }

    /// Returns the value of that name in that unit.
    pub(super) fn number(&self, name: &str, unit: &str) -> Option<f64> {
        self.values.iter().find(|v| v.name == name && v.unit == unit).map(|v| v.value)
    }
}

/// Reads the output: the sections in order. The first of two with one key counts.
///
/// # Errors
/// Fails when the output is not that of the script; the error quotes the output.
pub fn parse(stdout: &[u8]) -> Result<Vec<(String, Reading)>, BadAnswer> {
    let text = String::from_utf8_lossy(&stdout[..stdout.len().min(MAX_ANSWER)]);
    let mut lines = text.lines();
    if !lines.any(|line| line.trim_end() == "@fleetgate 1") {
        return Err(match words::line(&text, WORDS_CHARS) {
            said if said.is_empty() => BadAnswer::Empty,
            said => BadAnswer::NoAnswer(said),
        });
    }
    let mut sections: Vec<(String, Reading)> = Vec::new();
    while let Some(line) = lines.next().filter(|_| sections.len() < MAX_SENSORS) {
        let key = line.trim_end().strip_prefix("@key ").and_then(decode);
        let Some(key) = key else { continue };
        let reading = section(&mut lines);
        if sections.iter().all(|(known, _)| *known != key) {
            sections.push((key, reading));
        }
    }
    Ok(sections)
}

fn section(lines: &mut std::str::Lines<'_>) -> Reading {
    let mut reading = Reading::default();
    for line in lines {
        let line = line.trim_end();
        match line.split_once(' ').unwrap_or((line, "")) {
            ("@end", _) => return reading,
            ("@error", why) => reading.error = Some(words::line(why, WORDS_CHARS)),
            ("@empty", _) => reading.empty = true,
            ("@note", note) => reading.note = words::line(note, WORDS_CHARS),
            (name, rest) if reading.values.len() < MAX_VALUES => reading.values.extend(value(name, rest)),
            _ => {}
        }
    }
    Reading::failed("the answer was cut off")
}

fn value(name: &str, rest: &str) -> Option<Value> {
    let (number, unit) = rest.split_once(' ').unwrap_or((rest, ""));
    let fits = |text: &str| text.chars().count() <= NAME_CHARS && text.chars().all(|c| c.is_ascii_graphic());
    let value = range::number(number).filter(|_| fits(name) && fits(unit) && !name.starts_with('@'))?;
    Some(Value { name: name.to_owned(), value, unit: unit.to_owned() })
}

/// Writes the output of a device, in the form that [`parse`] reads. For simulated devices.
pub fn render(sections: &[(String, Reading)]) -> String {
    let mut text = String::from("@fleetgate 1\n");
    for (key, reading) in sections {
        text.push_str(&format!("@key {}\n", encode(key)));
        for Value { name, value, unit } in &reading.values {
            text.push_str(format!("{name} {} {unit}", words::exact(*value)).trim_end());
            text.push('\n');
        }
        if !reading.note.is_empty() {
            text.push_str(&format!("@note {}\n", reading.note));
        }
        if reading.empty {
            text.push_str("@empty\n");
        }
        if let Some(error) = &reading.error {
            text.push_str(&format!("@error {error}\n"));
        }
        text.push_str("@end\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sections() -> Vec<(String, Reading)> {
        vec![
            ("root".into(), Reading::disk(1 << 40, 3 << 38)),
            ("cpu load".into(), Reading::load([0.5, 1.25, 2.0], 4)),
            ("hot".into(), Reading::temperature(45.3, "cpu-thermal")),
            ("pics".into(), Reading::failed("no file in /data")),
        ]
    }

    #[test]
    fn what_a_simulated_device_writes_is_read_back() {
        assert_eq!(parse(render(&sections()).as_bytes()), Ok(sections()));
    }

    #[test]
    fn a_talkative_login_shell_does_no_harm() {
        let noisy = format!("Welcome to Fancy OS!\r\n{}logout\n", render(&sections()).replace('\n', "\r\n"));
        assert_eq!(parse(noisy.as_bytes()), Ok(sections()));
    }

    #[test]
    fn what_is_no_answer_is_quoted() {
        assert_eq!(parse(b" \n"), Err(BadAnswer::Empty));
        let nologin = parse(b"\nThis account is currently not available.\n");
        assert_eq!(nologin, Err(BadAnswer::NoAnswer("This account is currently not available.".into())));
    }

    #[test]
    fn a_section_that_is_cut_off_is_an_error_and_not_a_value() {
        let read = parse(b"@fleetgate 1\n@key a\nage 5 s\n@end\n@key b\nage 12").expect("an answer");
        assert_eq!(read[0].1, Reading::of(&[("age", 5.0, "s")]));
        assert_eq!(read[1].1, Reading::failed("the answer was cut off"));
    }

    #[test]
    fn lines_that_are_no_values_are_skipped_and_the_first_key_counts() {
        let read =
            parse(b"@fleetgate 1\n@key a\nage x s\nage\nage 1,5 s\nok 1\n@who 3\n@end\n@key a\nok 2\n@end\n");
        assert_eq!(read, Ok(vec![("a".into(), Reading::of(&[("ok", 1.0, "")]))]));
    }

    #[test]
    fn an_endless_answer_is_bounded() {
        let many = format!("@fleetgate 1\n@key a\n{}@end\n", "x 1\n".repeat(MAX_VALUES * 2));
        assert_eq!(parse(many.as_bytes()).expect("an answer")[0].1.values.len(), MAX_VALUES);
        let keys: String = (0..MAX_SENSORS * 2).map(|i| format!("@key {i}\n@end\n")).collect();
        assert_eq!(parse(format!("@fleetgate 1\n{keys}").as_bytes()).expect("an answer").len(), MAX_SENSORS);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_within_bounds(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            near in "(@key a|@end|@error x|@note y|v 1 s|\n){0,20}",
        ) {
            let _ = parse(&bytes);
            for body in [bytes, near.into_bytes()] {
                let text = [b"@fleetgate 1\n", &body[..]].concat();
                for (_, reading) in parse(&text).expect("an answer") {
                    prop_assert!(reading.values.len() <= MAX_VALUES);
                    prop_assert!(reading.note.chars().count() <= WORDS_CHARS);
                }
            }
        }
    }
}
