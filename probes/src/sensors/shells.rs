//! The sensor script, actually run by each shell of this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use proptest::prelude::*;

use super::script::text as script;
use super::{Reading, Sensor, judge, parse};
use crate::remote::{self, Excerpt};
use crate::sample::Status;

/// Login shells of devices. Those that this machine lacks are skipped, but `sh` must exist.
const SHELLS: [&[&str]; 8] =
    [&["sh"], &["dash"], &["busybox", "sh"], &["bash"], &["zsh"], &["fish"], &["tcsh"], &["csh"]];

/// Longer than any of them takes.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A folder that is removed with its test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("fleetgate-probes-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("a scratch folder");
        Scratch(path)
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(&path, content).expect("a file");
        text(&path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A folder that cannot be removed is small and in the temporary folder.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}

/// Runs a command like an SSH server, by one shell; `None`: this machine lacks the shell.
fn run(shell: &[&str], command: &str) -> Option<Vec<u8>> {
    let line = remote::run(command, TIMEOUT).expect("short enough");
    let out = Command::new(shell[0]).args(&shell[1..]).arg("-c").arg(line).output().ok()?;
    assert_eq!(String::from_utf8_lossy(&between_marks(&out.stderr)), "", "{shell:?}");
    Some(between_marks(&out.stdout))
}

fn between_marks(output: &[u8]) -> Vec<u8> {
    let mut excerpt = Excerpt::marked(64 * 1024);
    excerpt.take(output);
    let found = excerpt.finish();
    assert_eq!(found.status, Some(0), "{}", String::from_utf8_lossy(output));
    found.output
}

/// Returns the readings from each shell. `adapt` may redirect the script to other folders.
fn readings(sensors: &[Sensor], adapt: impl Fn(String) -> String) -> Vec<Vec<Reading>> {
    let keyed: Vec<_> = sensors.iter().enumerate().map(|(i, s)| (format!("k{i}"), s.clone())).collect();
    let command = adapt(script(&keyed));
    let answers: Vec<_> = SHELLS.iter().filter_map(|shell| run(shell, &command)).collect();
    assert!(!answers.is_empty(), "this machine has no sh");
    let sections = answers.iter().map(|bytes| parse(bytes).expect("an answer"));
    sections
        .inspect(|sections| assert_eq!(sections.len(), sensors.len()))
        .map(|sections| sections.into_iter().map(|(_, reading)| reading).collect())
        .collect()
}

fn one(sensor: Sensor, adapt: impl Fn(String) -> String) -> Reading {
    let all = readings(&[sensor], adapt);
    assert!(all.iter().all(|r| *r == all[0]), "the shells disagree: {all:?}");
    all[0][0].clone()
}

fn as_is(command: String) -> String {
    command
}

fn disk(path: &str) -> Sensor {
    Sensor::Disk { path: path.into() }
}

fn file_age(path: &str) -> Sensor {
    Sensor::FileAge { path: path.into() }
}

#[test]
fn each_shell_answers_for_this_machine() {
    let sensors = [
        disk("/"),
        Sensor::Mounts,
        Sensor::Load,
        Sensor::Memory,
        Sensor::Uptime,
        Sensor::Processes { name: None },
        file_age("/proc/self/stat"),
    ];
    for readings in readings(&sensors, as_is) {
        for (sensor, reading) in sensors.iter().zip(&readings) {
            let result = judge(sensor, reading, jiff::Timestamp::UNIX_EPOCH, &[]);
            assert_eq!(result.status, Status::Ok, "{sensor:?}: {}", result.text);
            assert!(result.metrics.iter().all(|m| m.value.is_some_and(f64::is_finite)));
        }
    }
}

#[test]
fn a_machine_without_proc_and_sys_says_so() {
    let nowhere = |command: String| command.replace("/proc", "/nowhere").replace("/sys/class", "/nowhere");
    let table = [
        (Sensor::Load, "cannot read /nowhere/loadavg"),
        (Sensor::Memory, "cannot read /nowhere/meminfo"),
        (Sensor::Uptime, "cannot read /nowhere/uptime"),
        (Sensor::Processes { name: None }, "cannot read /nowhere"),
        (Sensor::Mounts, "cannot read /nowhere/mounts"),
        (Sensor::Temperature { name: Some("gpu".into()) }, "no temperature sensor named gpu can be read"),
    ];
    for (sensor, error) in table {
        assert_eq!(one(sensor, nowhere).error.as_deref(), Some(error));
    }
}

#[test]
fn a_machine_without_a_temperature_sensor_is_well() {
    let sensor = Sensor::Temperature { name: None };
    let reading = one(sensor.clone(), |command| command.replace("/sys/class", "/nowhere"));
    let result = judge(&sensor, &reading, jiff::Timestamp::UNIX_EPOCH, &[]);
    assert_eq!((result.status, result.text.as_str()), (Status::Ok, "no temperature sensor"));
}

#[test]
fn only_what_turned_read_only_counts() {
    const RW: &str = "/dev/sda1 / ext4 rw,relatime 0 0\n";
    const RO: &str = "/dev/sda1 / ext4 ro,relatime,errors=remount-ro 0 0\n";
    const FSTAB: &str = "# /media/stick was on /dev/sdd1\n#/dev/sdd1 /media/stick vfat rw 0 0\nUUID=a / ext4 errors=remount-ro 0 1\nUUID=b /data ext4 defaults 0 2\n\
                         UUID=c /boot vfat ro 0 2\n";
    let data = |options: &str| format!("{RW}/dev/sdb1 /data ext4 {options} 0 0\n");
    let design = format!(
        "{RW}/dev/loop3 /snap squashfs ro 0 0\n/dev/sr0 /media/cd iso9660 ro 0 0\n/dev/mtdblock5 /rom squashfs ro 0 0\n\
         /dev/sdc1 /boot vfat ro,nosuid 0 0\ntmpfs /sys/fs/cgroup tmpfs ro 0 0\n/dev/sda1 /jail ext4 ro 0 0\n\
         /dev/sdd1 /media/stick vfat ro 0 0\n"
    );
    let table = [
        (RW.to_owned(), FSTAB, "quiet", 0.0, ""),
        (RO.to_owned(), FSTAB, "root=/dev/sda1 ro quiet", 1.0, "/"),
        (RO.to_owned(), "", "root=/dev/sda1 rw quiet", 1.0, "/"),
        (RO.to_owned(), "", "root=/dev/sda1 ro quiet", 0.0, ""),
        (RO.to_owned(), "", "root=/dev/sda1 quiet", 0.0, ""),
        (
            "/dev/mapper/a-b,c / btrfs ro 0 0\n/dev/mapper/a-b,c /home,x btrfs ro 0 0\n".to_owned(),
            "U / btrfs x\nU /home,x btrfs y\n",
            "ro",
            2.0,
            "/home,x",
        ),
        (RO.to_owned(), "/dev/sda1 / ext4 ro 0 0\n", "rw", 0.0, ""),
        (data("rw"), FSTAB, "ro", 0.0, ""),
        (data("ro,relatime"), FSTAB, "ro", 1.0, "/data"),
        (format!("{RO}/dev/sdb1 /data ext4 ro 0 0\n"), FSTAB, "ro", 2.0, "/data"),
        (design, FSTAB, "ro", 0.0, ""),
    ];
    for (i, (mounts, fstab, cmdline, count, place)) in table.into_iter().enumerate() {
        let scratch = Scratch::new(&format!("mounts-{i}"));
        scratch.file("mounts", &mounts);
        scratch.file("fstab", fstab);
        scratch.file("cmdline", &format!("{cmdline}\n"));
        let at = text(&scratch.0);
        let reading = one(Sensor::Mounts, |command| command.replace("/proc", &at).replace("/etc", &at));
        assert_eq!((reading.number("read_only", ""), reading.note.as_str()), (Some(count), place), "{i}");
    }
}

#[test]
fn inodes_and_swap_are_read_where_there_are_any() {
    let reading = one(Sensor::Memory, |command| {
        let scratch = Scratch::new("swap");
        scratch.file("meminfo", "MemTotal: 1000 kB\nMemAvailable: 400 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n");
        let command = command.replace("/proc", &text(&scratch.0));
        std::mem::forget(scratch);
        command
    });
    assert_eq!(reading.number("swap", "kB"), None);
    for (listing, inodes) in [("x 100 90 10 90% /\n", Some(90.0)), ("x 0 0 0 - /\n", Some(0.0))] {
        let scratch = Scratch::new("inodes");
        let listing =
            scratch.file("listing", &format!("Filesystem Inodes IUsed IFree IUse% Mounted on\n{listing}"));
        let fake = format!("df() {{ cat {listing}; }}\nfg_df() {{");
        let reading = one(disk("/"), |command| command.replace("fg_df() {", &fake));
        assert_eq!(reading.number("iused", ""), inodes);
    }
}

#[test]
fn an_old_kernel_without_memavailable_is_read() {
    let scratch = Scratch::new("meminfo");
    scratch
        .file("meminfo", "MemTotal: 1000 kB\nMemFree: 100 kB\nBuffers: 50 kB\nCached: 250 kB\nSlab: 9 kB\n");
    let reading = one(Sensor::Memory, |command| command.replace("/proc", &text(&scratch.0)));
    assert_eq!(
        (reading.number("total", "kB"), reading.number("available", "kB")),
        (Some(1000.0), Some(400.0))
    );
}

#[test]
fn the_hottest_or_the_named_temperature_is_taken() {
    let scratch = Scratch::new("temperature");
    scratch.file("thermal/thermal_zone0/temp", "45300\n");
    scratch.file("thermal/thermal_zone0/type", "cpu-thermal\n");
    scratch.file("thermal/thermal_zone1/temp", "garbage\n");
    scratch.file("hwmon/hwmon0/name", "coretemp\n");
    scratch.file("hwmon/hwmon0/temp1_input", "61000\n");
    scratch.file("hwmon/hwmon0/temp1_label", "Core 0\n");
    scratch.file("hwmon/hwmon0/temp2_input", "-5000\n");
    scratch.file("hwmon/hwmon1/name", "nct6775\n");
    scratch.file("hwmon/hwmon1/temp3_input", "127000\n");
    let read = |name: Option<&str>| {
        let sensor = Sensor::Temperature { name: name.map(str::to_owned) };
        let reading = one(sensor, |command| command.replace("/sys/class", &text(&scratch.0)));
        (reading.number("temperature", "mC"), reading.note)
    };
    assert_eq!(read(None), (Some(61_000.0), "coretemp/Core 0".into()));
    assert_eq!(read(Some("cpu-thermal")), (Some(45_300.0), "cpu-thermal".into()));
    assert_eq!(read(Some("coretemp")), (Some(61_000.0), "coretemp/Core 0".into()));
    assert_eq!(read(Some("coretemp/Core 0")).0, Some(61_000.0));
    assert_eq!(read(Some("coretemp/Core 1")).0, None);
}

#[test]
fn processes_are_counted_by_the_name_that_the_kernel_keeps() {
    let scratch = Scratch::new("processes");
    scratch.file("self/stat", "");
    for (pid, name) in [(1, "init"), (20, "a-very-long-nam"), (300, "a-very-long-nam"), (4, "two words")] {
        scratch.file(&format!("{pid}/comm"), &format!("{name}\n"));
    }
    fs::create_dir_all(scratch.0.join("5")).expect("a process that is gone");
    let count = |name: Option<&str>| {
        let sensor = Sensor::Processes { name: name.map(str::to_owned) };
        one(sensor, |command| command.replace("/proc", &text(&scratch.0))).number("processes", "")
    };
    assert_eq!(count(None), Some(5.0));
    assert_eq!(count(Some("a-very-long-name-indeed")), Some(2.0));
    assert_eq!(count(Some("two words")), Some(1.0));
    assert_eq!(count(Some("*")), Some(0.0));
}

#[test]
fn a_device_name_with_blanks_does_not_shift_the_figures() {
    let scratch = Scratch::new("df");
    let table = "Filesystem 1024-blocks Used Available Capacity Mounted on\n//nas/my 2 share 1000 710 290 71% /mnt/a b\n";
    let listing = scratch.file("listing", table);
    let fake = format!("df() {{ cat {listing}; }}\nfg_df() {{");
    let reading = one(disk("/"), |command| command.replace("fg_df() {", &fake));
    assert_eq!(reading.number("used", "kB"), Some(710.0));
    assert_eq!(reading.number("free", "kB"), Some(290.0));
}

#[test]
fn the_newest_plain_file_of_a_folder_counts() {
    let scratch = Scratch::new("newest");
    let folder = text(&scratch.0);
    assert_eq!(one(file_age(&folder), as_is).error, Some(format!("no file in {folder}")));
    scratch.file("old 'quoted' $(x)", "");
    let aged = |path: &str, seconds: u64| {
        let then = std::time::SystemTime::now() - std::time::Duration::from_secs(seconds);
        fs::File::options().write(true).open(path).and_then(|f| f.set_modified(then)).expect("a time");
    };
    aged(&scratch.file("old", ""), 9_000);
    aged(&scratch.file("old 'quoted' $(x)", ""), 5_000);
    scratch.file(".hidden", "");
    scratch.file("sub/newer", "");
    let reading = readings(&[file_age(&format!("{folder}/"))], as_is).remove(0).remove(0);
    assert_eq!(reading.note, "old 'quoted' $(x)");
    let age = reading.number("age", "s").expect("an age");
    assert!((5_000.0..5_100.0).contains(&age), "{age}");
    assert_eq!(one(file_age("/nowhere/x"), as_is).error.as_deref(), Some("no such file: /nowhere/x"));
}

#[test]
fn what_does_not_exist_is_told_in_the_device_s_words() {
    for reading in readings(&[disk("/nowhere at all")], as_is) {
        let error = reading[0].error.clone().expect("an error");
        assert!(error.contains("/nowhere at all") && error.contains("No such file"), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_hostile_path_is_only_ever_a_path(
        pieces in proptest::collection::vec(
            prop_oneof![
                Just("'; touch PWNED; '"), Just("$(touch PWNED)"), Just("`touch PWNED`"), Just("\"; touch PWNED; \""),
                Just("\\'; touch PWNED; #"), Just("\ntouch PWNED\n"), Just("%s%n"), Just("*"), Just("\\"), Just("a b"),
            ],
            1..5,
        ),
    ) {
        let scratch = Scratch::new("hostile");
        let mark = scratch.0.join("pwned");
        let name = pieces.concat().replace("PWNED", &text(&mark).replace('/', "/./"));
        let path = format!("/nowhere/{name}");
        let sensors = [disk(&path), file_age(&path), Sensor::Processes { name: Some(name.clone()) },
            Sensor::Temperature { name: Some(name) }];
        for readings in readings(&sensors, as_is) {
            prop_assert!(readings[0].error.is_some() && readings[1].error.is_some());
            prop_assert_eq!(readings[2].number("processes", ""), Some(0.0));
        }
        prop_assert!(!mark.exists(), "the shell ran {:?}", path);
    }
}

#[test]
fn a_folder_s_day_a_board_s_values_and_the_rest_are_read_by_every_shell() {
    let scratch = Scratch::new("camera");
    let board = scratch.file("board", "temperature 21.5 C\n@end\nhumidity 40 %");
    let first = scratch.file("pictures/a b.jpg", "12345");
    scratch.file("pictures/2026/b.jpg", "678");
    let pictures = text(Path::new(&first).parent().expect("a folder"));
    let sensors = [
        Sensor::Daily { path: pictures },
        Sensor::Values { path: board },
        Sensor::Cpu,
        Sensor::Users,
        Sensor::Traffic { name: Some("lo".into()) },
        Sensor::Usb { name: "class:zz".into() },
    ];
    for found in readings(&sensors, as_is) {
        assert_eq!(found[0], Reading::daily(2, 8));
        let names: Vec<&str> = found[1].values.iter().map(|v| v.name.as_str()).collect();
        assert_eq!(names, ["age", "temperature", "humidity"]);
        for (sensor, reading) in sensors.iter().zip(&found).skip(2) {
            let result = judge(sensor, reading, jiff::Timestamp::UNIX_EPOCH, &[]);
            // A container may have no network and no USB.
            assert!(result.status == Status::Ok || reading.error.is_some(), "{}", result.text);
        }
    }
}
