//! The result of a reading, in plain words and metrics.
//!
//! | sensor | metrics |
//! |---|---|
//! | disk | `used` in %, `free` in B, `fullness` in %, `inodes` in % where they are counted |
//! | mounts | `read_only`: file systems that turned read-only |
//! | load | `load1 load5 load15`, and each with `_per_cpu` where the number of processors is known |
//! | memory | `used` in %, `available` in B, `swap` in % where there is any |
//! | uptime | `uptime` in s |
//! | temperature | `temperature` in C, where the machine has a sensor |
//! | processes | `processes` |
//! | file_age | `age` in s; negative for a file from the future |
//! | usb, users | `devices`, `users` |
//! | cpu | `used` in % |
//! | traffic | `rx` and `tx`, ever-growing, and `in` and `out` in B of one second |
//! | daily | `files`, `bytes` |
//! | values | the values in the file, and its `age` in s |
//! | capture | `age` in s, `missed` |
//!
//! Percentages have three decimals. A value that could not be read is UNKNOWN, with the device's error. The module has no limits of
//! its own: a reading is OK unless a threshold is exceeded. Pictures are the exception, because
//! they have a schedule.

use jiff::{SignedDuration, Timestamp};

use super::{Capture, Reading, Sensor};
use crate::plugin::PluginResult;
use crate::range::Thresholds;
use crate::sample::{Metric, Status};
use crate::words;

const BYTES_PER_KB: f64 = 1024.0;

/// Returns the result of one sensor, with the thresholds of its service applied.
pub fn judge(
    sensor: &Sensor,
    reading: &Reading,
    now: Timestamp,
    limits: &[(String, Thresholds)],
) -> PluginResult {
    if let Sensor::Capture(plan) = sensor
        && let Some(result) = capture(plan, reading, now)
    {
        return result.apply(limits);
    }
    if let Some(why) = &reading.error {
        return PluginResult::unknown(format!("{}: {why}", name(sensor)));
    }
    match said(sensor, reading) {
        Some((text, metrics)) => PluginResult::new(Status::Ok, text, metrics).apply(limits),
        None => PluginResult::unknown(format!("{}: the device's answer lacks a number", name(sensor))),
    }
}

/// Returns the result of a sensor whose key is missing in the output.
pub fn unanswered(sensor: &Sensor) -> PluginResult {
    PluginResult::unknown(format!("{}: the device's answer does not speak of it", name(sensor)))
}

fn name(sensor: &Sensor) -> String {
    let kind = sensor.kind().replace('_', " ");
    match sensor.argument() {
        Some(argument) => format!("{kind} {}", words::line(argument, 80)),
        None => kind,
    }
}

/// Returns text and metrics; `None` if a number is missing.
fn said(sensor: &Sensor, reading: &Reading) -> Option<(String, Vec<Metric>)> {
    match sensor {
        Sensor::Disk { .. } => disk(&name(sensor), reading),
        Sensor::Mounts => mounts(reading),
        Sensor::Load => load(reading),
        Sensor::Memory => memory(reading),
        Sensor::Uptime => uptime(reading),
        Sensor::Temperature { name } => temperature(name.as_deref(), reading),
        Sensor::Processes { name } => processes(name.as_deref(), reading),
        Sensor::FileAge { path } | Sensor::Capture(Capture { path, .. }) => file_age(path, reading),
        Sensor::Usb { name } => usb(name, reading),
        Sensor::Users => users(reading),
        Sensor::Cpu => cpu(reading),
        Sensor::Traffic { .. } => traffic(reading),
        Sensor::Daily { path } => daily(path, reading),
        Sensor::Values { path } => values(path, reading),
    }
}

/// A larger disk counts as one of this size in `fullness`: 5 % of a small card are soon full, but 5
/// % of 4 TB last for months.
const LARGE_DISK: f64 = 100e9;

/// Computes percent like `df`: of the space that ordinary users can fill, without the part reserved
/// for root.
fn disk(name: &str, reading: &Reading) -> Option<(String, Vec<Metric>)> {
    let used = reading.number("used", "kB")?;
    let free = reading.number("free", "kB")?;
    let percent = share(used, used + free)?;
    let free = free * BYTES_PER_KB;
    let mut text = format!("{name} {} % used, {} free", whole(percent), words::bytes(free));
    let room = (used * BYTES_PER_KB + free).min(LARGE_DISK);
    let fullness = share(room - free, room)?;
    let mut metrics = vec![
        Metric::percent("used", percent),
        Metric::amount("free", free, "B"),
        Metric::percent("fullness", fullness),
    ];
    if let Some(inodes) = inodes(reading) {
        text = format!("{text}, inodes {} % used", whole(inodes));
        metrics.push(Metric::percent("inodes", inodes));
    }
    Some((text, metrics))
}

fn inodes(reading: &Reading) -> Option<f64> {
    let (used, free) = (reading.number("iused", "")?, reading.number("ifree", "")?);
    share(used, used + free)
}

fn mounts(reading: &Reading) -> Option<(String, Vec<Metric>)> {
    let count = reading.number("read_only", "")?;
    let text = match (count, reading.note.as_str()) {
        (0.0, _) => "no file system turned read-only".to_owned(),
        (1.0, place) => format!("{place} turned read-only"),
        (n, place) => format!("{} file systems turned read-only, {place} among them", words::brief(n)),
    };
    Some((text, vec![Metric::amount("read_only", count, "")]))
}

fn load(reading: &Reading) -> Option<(String, Vec<Metric>)> {
    const AVERAGES: [&str; 3] = ["load1", "load5", "load15"];
    let values: Vec<f64> = AVERAGES.iter().map(|name| reading.number(name, "")).collect::<Option<_>>()?;
    let mut text = format!("load {:.2}, {:.2}, {:.2}", values[0], values[1], values[2]);
    let plain = |(name, value): (&&str, &f64)| Metric::amount(name, *value, "");
    let mut metrics: Vec<_> = AVERAGES.iter().zip(&values).map(plain).collect();
    if let Some(cpus) = reading.number("cpus", "").filter(|n| *n >= 1.0) {
        text = format!("{text} on {} cpu{}", words::brief(cpus), plural(cpus));
        let per_cpu =
            |(name, value): (&&str, &f64)| Metric::amount(&format!("{name}_per_cpu"), value / cpus, "");
        metrics.extend(AVERAGES.iter().zip(&values).map(per_cpu));
    }
    Some((text, metrics))
}

fn memory(reading: &Reading) -> Option<(String, Vec<Metric>)> {
    let total = reading.number("total", "kB")?;
    let available = reading.number("available", "kB")?;
    let percent = share(total - available, total)?;
    let available = available * BYTES_PER_KB;
    let mut text = format!("memory {} % used, {} available", whole(percent), words::bytes(available));
    let mut metrics = vec![Metric::percent("used", percent), Metric::amount("available", available, "B")];
    if let Some(swap) = swap(reading) {
        text = format!("{text}, swap {} % used", whole(swap));
        metrics.push(Metric::percent("swap", swap));
    }
    Some((text, metrics))
}

fn swap(reading: &Reading) -> Option<f64> {
    let (total, free) = (reading.number("swap", "kB")?, reading.number("swap_free", "kB")?);
    share(total - free, total)
}

fn uptime(reading: &Reading) -> Option<(String, Vec<Metric>)> {
    let seconds = reading.number("uptime", "s")?;
    Some((format!("up {}", words::age(seconds)), vec![Metric::amount("uptime", seconds, "s")]))
}

fn temperature(name: Option<&str>, reading: &Reading) -> Option<(String, Vec<Metric>)> {
    if name.is_none() && reading.values.is_empty() {
        return Some(("no temperature sensor".to_owned(), Vec::new()));
    }
    let celsius = reading.number("temperature", "mC")? / 1000.0;
    let place = if reading.note.is_empty() { String::new() } else { format!(" ({})", reading.note) };
    Some((format!("temperature {celsius:.1} °C{place}"), vec![Metric::plain("temperature", celsius, "C")]))
}

fn processes(name: Option<&str>, reading: &Reading) -> Option<(String, Vec<Metric>)> {
    let count = reading.number("processes", "")?;
    let of_name = name.map_or(String::new(), |name| format!(" named {}", words::line(name, 80)));
    let es = if count == 1.0 { "" } else { "es" };
    let text = format!("{} process{es}{of_name}", words::brief(count));
    Some((text, vec![Metric::amount("processes", count, "")]))
}

fn file_age(path: &str, reading: &Reading) -> Option<(String, Vec<Metric>)> {
    let seconds = reading.number("age", "s")?;
    let newest =
        if reading.note.is_empty() { String::new() } else { format!(": newest file {}", reading.note) };
    let when = match seconds {
        s if s < 0.0 => format!("{} in the future", words::age(-s)),
        s => format!("{} old", words::age(s)),
    };
    let text = format!("{}{newest} is {when}", words::line(path, 80));
    Some((text, vec![Metric::plain("age", seconds, "s")]))
}

fn usb(name: &str, reading: &Reading) -> Option<(String, Vec<Metric>)> {
    let count = reading.number("devices", "")?;
    let found = if reading.note.is_empty() { String::new() } else { format!(": {}", reading.note) };
    let text = match count {
        0.0 => format!("no USB device {}", words::line(name, 80)),
        n => format!("{} USB device{} {}{found}", words::brief(n), plural(n), words::line(name, 80)),
    };
    Some((text, vec![Metric::amount("devices", count, "")]))
}

fn users(reading: &Reading) -> Option<(String, Vec<Metric>)> {
    let count = reading.number("users", "")?;
    let text = format!("{} user{} logged in", words::brief(count), plural(count));
    Some((text, vec![Metric::amount("users", count, "")]))
}

fn cpu(reading: &Reading) -> Option<(String, Vec<Metric>)> {
    let (busy, idle) = (reading.number("busy", "")?, reading.number("idle", "")?);
    let percent = share(busy, busy + idle)?;
    Some((format!("cpu {} % busy", whole(percent)), vec![Metric::percent("used", percent)]))
}

fn traffic(reading: &Reading) -> Option<(String, Vec<Metric>)> {
    const NAMES: [(&str, &str); 4] = [("rx", "c"), ("tx", "c"), ("in", "B"), ("out", "B")];
    let metric = |(name, unit): &(&str, &str)| Some(Metric::amount(name, reading.number(name, "B")?, unit));
    let metrics: Vec<Metric> = NAMES.iter().map(metric).collect::<Option<_>>()?;
    let shown = |i: usize| words::bytes(metrics[i].value.unwrap_or_default());
    let text = format!("{} {}/s in, {}/s out", reading.note, shown(2), shown(3));
    Some((text.trim_start().to_owned(), metrics))
}

fn daily(path: &str, reading: &Reading) -> Option<(String, Vec<Metric>)> {
    let (files, bytes) = (reading.number("files", "")?, reading.number("bytes", "B")?);
    let (shown, path) = (words::brief(files), words::line(path, 80));
    let text = format!("{path}: {shown} file{} of 24 h, {}", plural(files), words::bytes(bytes));
    Some((text, vec![Metric::amount("files", files, ""), Metric::amount("bytes", bytes, "B")]))
}

fn values(path: &str, reading: &Reading) -> Option<(String, Vec<Metric>)> {
    let mut metrics: Vec<Metric> = Vec::new();
    for v in &reading.values {
        if metrics.iter().all(|m| m.label != v.name) {
            metrics.push(Metric::plain(&v.name, v.value, &v.unit));
        }
    }
    let own: Vec<_> = metrics.iter().filter(|m| m.label != "age").collect();
    let shown = |m: &&Metric| format!("{} {} {}", m.label, words::brief(m.value.unwrap_or_default()), m.uom);
    let text: Vec<String> = own.iter().map(|m| shown(m).trim_end().to_owned()).collect();
    (!own.is_empty()).then(|| (format!("{}: {}", words::line(path, 80), text.join(", ")), metrics.clone()))
}

/// Returns the result for pictures. `None`: nothing is known about them.
fn capture(plan: &Capture, reading: &Reading, now: Timestamp) -> Option<PluginResult> {
    let empty = reading.empty;
    if reading.error.is_some() && !empty {
        return None;
    }
    let age = reading.number("age", "s");
    let taken =
        age.map(|age| now.saturating_sub(SignedDuration::from_secs_f64(age.clamp(-1e9, 1e9))).unwrap_or(now));
    if taken.is_none() && !empty {
        return None;
    }
    let freshness = plan.judge(taken, now);
    let (text, mut metrics) = file_age(&plan.path, reading).unwrap_or_else(|| {
        (format!("{}: no picture", words::line(&plan.path, 80)), vec![Metric::gap("age", "s")])
    });
    metrics.push(Metric::amount("missed", freshness.missed() as f64, ""));
    Some(PluginResult::new(freshness.status(), format!("{text}{}", freshness.remark(now)), metrics))
}

/// Returns percent with three decimals: more are noise, which years of history would keep. Only nothing is 0 % and only
/// the whole is 100 %, so that a limit at either end means what it says.
fn share(part: f64, whole: f64) -> Option<f64> {
    const UNIT: f64 = 1e3;
    const ENDS: (f64, f64) = (1.0 / UNIT, (100.0 * UNIT - 1.0) / UNIT);
    let share = (whole > 0.0).then(|| (part / whole).clamp(0.0, 1.0))?;
    let percent = (100.0 * UNIT * share).round() / UNIT;
    Some(if share > 0.0 && share < 1.0 { percent.clamp(ENDS.0, ENDS.1) } else { percent })
}

/// Formats percent without decimals. A disk that still has space is not called full.
fn whole(percent: f64) -> String {
    match percent {
        99.0..100.0 => format!("{:.1}", (percent * 10.0).floor() / 10.0),
        _ => format!("{percent:.0}"),
    }
}

fn plural(count: f64) -> &'static str {
    if count == 1.0 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::constant(1_772_366_400, 0);

    fn result(sensor: &Sensor, reading: &Reading) -> (Status, String, Vec<(String, f64)>) {
        let r = judge(sensor, reading, NOW, &[]);
        let values = r.metrics.iter().map(|m| (m.label.clone(), m.value.expect("a value"))).collect();
        (r.status, r.text, values)
    }

    fn root() -> Sensor {
        Sensor::Disk { path: "/".into() }
    }

    #[test]
    fn a_disk_says_how_full_and_how_much_is_left() {
        let reading = Reading::of(&[("total", 1e8, "kB"), ("used", 7.1e7, "kB"), ("free", 2.9e7, "kB")]);
        let (status, text, values) = result(&root(), &reading);
        assert_eq!((status, text.as_str()), (Status::Ok, "disk / 71 % used, 29.7 GB free"));
        assert_eq!(values[..2], [("used".into(), 71.0), ("free".into(), 2.9e7 * 1024.0)]);
    }

    #[test]
    fn a_large_disk_is_as_full_as_one_of_100_gb_with_the_same_room() {
        let gb = |n: f64| n * 1e9 / 1024.0;
        let table = [
            (8.0, 0.4, 95.0),
            (64.0, 32.0, 50.0),
            (500.0, 100.0, 0.0),
            (4000.0, 200.0, 0.0),
            (4000.0, 15.0, 85.0),
            (4000.0, 5.0, 95.0),
            (4000.0, 0.0, 100.0),
            (0.5, 0.0, 100.0),
        ];
        for (size, free, expected) in table {
            let reading = Reading::of(&[("used", gb(size - free), "kB"), ("free", gb(free), "kB")]);
            let values = result(&root(), &reading).2;
            let (label, fullness) = &values[2];
            assert_eq!(label, "fullness");
            assert!((fullness - expected).abs() < 0.01, "{size} GB, {free} free: {fullness}");
        }
    }

    #[test]
    fn inodes_swap_and_mounts_are_told() {
        let reading = Reading::disk(100 << 30, 50 << 30).with_inodes(90, 10);
        let (_, text, values) = result(&root(), &reading);
        assert!(text.ends_with("free, inodes 90 % used") && values[3] == ("inodes".into(), 90.0), "{text}");
        let mut reading = Reading::memory(4_000_000_000, 1_000_000_000);
        reading.values.extend(Reading::of(&[("swap", 100.0, "kB"), ("swap_free", 25.0, "kB")]).values);
        let (_, text, values) = result(&Sensor::Memory, &reading);
        assert!(text.ends_with("available, swap 75 % used") && values[2] == ("swap".into(), 75.0), "{text}");
        let turned = Reading { note: "/data".into(), ..Reading::mounts(1) };
        assert_eq!(result(&Sensor::Mounts, &turned).1, "/data turned read-only");
    }

    #[test]
    fn percent_has_three_decimals_and_is_whole_only_at_the_ends() {
        let table = [
            (1.0, 3.0, 33.333),
            (2.0, 3.0, 66.667),
            (0.0, 8e6, 0.0),
            (1.0, 8e6, 0.001),
            (8e6 - 1.0, 8e6, 99.999),
            (8e6, 8e6, 100.0),
            (-1.0, 8e6, 0.0),
            (9e6, 8e6, 100.0),
        ];
        for (part, whole, expected) in table {
            assert_eq!(share(part, whole), Some(expected), "{part} of {whole}");
        }
        assert_eq!((share(1.0, 0.0), share(0.0, 0.0), share(1.0, f64::NAN)), (None, None, None));
    }

    #[test]
    fn an_almost_full_disk_is_not_called_full() {
        let reading = Reading::of(&[("used", 99_970.0, "kB"), ("free", 30.0, "kB")]);
        assert_eq!(result(&root(), &reading).1, "disk / 99.9 % used, 30.7 kB free");
        let reading = Reading::of(&[("used", 996.0, "kB"), ("free", 4.0, "kB")]);
        assert_eq!(result(&root(), &reading).1, "disk / 99.6 % used, 4.1 kB free");
    }

    #[test]
    fn load_is_given_per_cpu_too() {
        let (_, text, values) = result(&Sensor::Load, &Reading::load([0.5, 1.0, 2.0], 4));
        assert_eq!(text, "load 0.50, 1.00, 2.00 on 4 cpus");
        assert_eq!(values[2], ("load15".into(), 2.0));
        assert_eq!(values[5], ("load15_per_cpu".into(), 0.5));
        let unknown_cpus = Reading::of(&[("load1", 1.0, ""), ("load5", 1.0, ""), ("load15", 1.0, "")]);
        assert_eq!(result(&Sensor::Load, &unknown_cpus).2.len(), 3);
    }

    #[test]
    fn the_other_sensors_read_well() {
        let table = [
            (
                Sensor::Memory,
                Reading::memory(4_000_000_000, 1_000_000_000),
                "memory 75 % used, 1.0 GB available",
            ),
            (Sensor::Uptime, Reading::uptime(1_051_200.4), "up 12 d 4 h"),
            (
                Sensor::Temperature { name: None },
                Reading::temperature(45.3, "cpu"),
                "temperature 45.3 °C (cpu)",
            ),
            (Sensor::Processes { name: None }, Reading::processes(143), "143 processes"),
            (Sensor::Processes { name: Some("sshd".into()) }, Reading::processes(1), "1 process named sshd"),
            (
                Sensor::FileAge { path: "/data".into() },
                Reading::file_age(35.0, "a.jpg"),
                "/data: newest file a.jpg is 35 s old",
            ),
            (Sensor::FileAge { path: "/x".into() }, Reading::file_age(-5.0, ""), "/x is 5 s in the future"),
            (Sensor::Usb { name: "class:06".into() }, Reading::count("devices", 1), "1 USB device class:06"),
            (Sensor::Usb { name: "04a9:".into() }, Reading::count("devices", 0), "no USB device 04a9:"),
            (Sensor::Mounts, Reading::mounts(0), "no file system turned read-only"),
            (Sensor::Users, Reading::count("users", 2), "2 users logged in"),
            (Sensor::Cpu, Reading::cpu(12.4), "cpu 12 % busy"),
            (Sensor::Traffic { name: None }, Reading::traffic(5, 6, "wwan0"), "wwan0 0 B/s in, 0 B/s out"),
            (
                Sensor::Daily { path: "/p".into() },
                Reading::daily(480, 2_000_000_000),
                "/p: 480 files of 24 h, 2.0 GB",
            ),
            (
                Sensor::Values { path: "/b".into() },
                Reading::of(&[("age", 3.0, "s"), ("temperature", 21.5, "C"), ("humidity", 40.0, "%")]),
                "/b: temperature 21.5 C, humidity 40 %",
            ),
        ];
        for (sensor, reading, text) in table {
            let (status, said, values) = result(&sensor, &reading);
            assert_eq!((status, said.as_str(), values.is_empty()), (Status::Ok, text, false));
        }
    }

    #[test]
    fn thresholds_judge_a_reading() {
        let limits = [("used".to_owned(), Thresholds { warn: "80".parse().ok(), crit: "90".parse().ok() })];
        let full = judge(&root(), &Reading::disk(100 << 30, 95 << 30), NOW, &limits);
        assert_eq!(full.status, Status::Critical);
        assert_eq!(full.text, "disk / 95 % used, 5.4 GB free; used 95 % is above 90 (critical)");
    }

    #[test]
    fn pictures_are_judged_by_their_plan() {
        let plan = Capture {
            path: "/p".into(),
            plan: super::super::Plan::Every(Duration::from_secs(180)),
            grace: Duration::from_secs(60),
        };
        let sensor = Sensor::Capture(plan);
        let table = [
            (Reading::file_age(35.0, "a.jpg"), Status::Ok, "/p: newest file a.jpg is 35 s old"),
            (Reading::file_age(200.0, "a.jpg"), Status::Warning, "late, due 20 s ago"),
            (Reading::file_age(500.0, "a.jpg"), Status::Critical, "2 missed, the first due"),
            (
                Reading { empty: true, ..Reading::failed("no file in /p") },
                Status::Critical,
                "/p: no picture; missed",
            ),
            (Reading::failed("no such file: /p"), Status::Unknown, "no such file: /p"),
        ];
        for (reading, status, says) in table {
            let result = judge(&sensor, &reading, NOW, &[]);
            assert_eq!(result.status, status, "{}", result.text);
            assert!(result.text.contains(says), "{}", result.text);
        }
    }

    #[test]
    fn what_could_not_be_read_is_unknown_in_the_device_s_words() {
        let limits = [("used".to_owned(), Thresholds { warn: "80".parse().ok(), crit: None })];
        let r = judge(&root(), &Reading::failed("df: /: Permission denied"), NOW, &limits);
        assert_eq!((r.status, r.text.as_str()), (Status::Unknown, "disk /: df: /: Permission denied"));
        let r = judge(&Sensor::Memory, &Reading::default(), NOW, &[]);
        assert_eq!(
            (r.status, r.text.as_str()),
            (Status::Unknown, "memory: the device's answer lacks a number")
        );
        assert_eq!(unanswered(&Sensor::Load).status, Status::Unknown);
        let empty = Reading::of(&[("used", 0.0, "kB"), ("free", 0.0, "kB")]);
        assert_eq!(judge(&root(), &empty, NOW, &[]).status, Status::Unknown);
    }

    proptest! {
        #[test]
        fn any_numbers_make_a_finite_result(a in any::<f64>(), b in any::<f64>()) {
            let reading = Reading::of(&[
                ("used", a, "kB"), ("free", b, "kB"), ("total", a, "kB"), ("available", b, "kB"),
                ("uptime", a, "s"), ("age", b, "s"), ("temperature", a, "mC"), ("processes", b, ""),
            ]);
            for kind in ["disk", "memory", "uptime", "temperature", "processes", "file_age"] {
                let sensor = Sensor::from_parts(kind, Some("/x")).or_else(|_| Sensor::from_parts(kind, None));
                let r = judge(&sensor.expect("a sensor"), &reading, NOW, &[]);
                prop_assert!(r.text.chars().count() < 2_000 && !r.text.is_empty());
            }
        }
    }
}
