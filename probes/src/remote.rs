//! How a command is started on a device, so that it ends there too.
//!
//! A server does not kill a command when its channel closes: one that hangs would stay on the device,
//! and another with each check. So it runs under the device's own `timeout`, where there is one, in a
//! process group of its own, which is ended as a whole. Output, exit status and the signal that ended a
//! command come through unchanged.
//!
//! Promises one line that every login shell takes: words in single quotes, without a single quote or a
//! line feed in them, and with a blank after each `!`, as `csh` and `fish` need it too. What takes no
//! shell at all (the command line of a router, a list of permitted commands) does not greet, and is then
//! to be given the command bare. Knows no SSH.

use std::time::Duration;

/// Longest line. Older dropbear servers refuse a command above 9,000 bytes.
pub const MAX_LINE: usize = 8_800;

/// The device gives up this much after the gateway, which is the one that says so.
const LATER: Duration = Duration::from_secs(1);

/// What is written to standard error before the command starts, if asked for.
const GREETING: &str = "@fleetgate run\n";
const GREET: &str = r#"echo "@fleetgate run" >&2;"#;

/// The forms of `timeout`: coreutils and newer busybox, busybox without `-k`, old busybox, none.
/// `-k` leaves the group below time to be ended, also on a device that is short of breath.
const BOUND: &str = r#"for t in "timeout -k 5 $0" "timeout $0" "timeout -t $0" "";do $t true 2>/dev/null&&break;done;exec $t sh -c "$@""#;

/// busybox's `timeout` ends one process, and a plugin is often a shell and its child: the group is
/// ended from here, before `-k` comes. coreutils sends its signal twice, and a shell that is disturbed by
/// the second one never comes to the end of that. Who was ended by a signal is told as that, not as a
/// number: by one of the first 15, which no system has another meaning for than to end a process. Above, a
/// number is also how a command may end by itself, and would stop the shell or be a complaint of its.
const GROUP: &str = r#"$(command -v setsid) "$@"&p=$! ;trap "trap : 15;exec 2>/dev/null;kill -15 -$p $p;sleep 1;kill -9 -$p $p;exit 124" 15;wait $p 2>/dev/null;r=$?;trap - 15;[ $r -gt 128 ]&&[ $r -lt 144 ]&&kill -$((r-128)) $$;exit $r"#;

/// The command is the login shell's, as a server would start it.
const LOGIN_SHELL: &str = r#"export LC_ALL=C;exec "${SHELL:-sh}" -c "$(printf %b "$1")""#;

/// `words`: a command that is already quoted for every shell.
pub(crate) fn bounded(words: &str, timeout: Duration) -> String {
    started("", words, timeout)
}

/// The line that runs `command` with a bound in time; `None` where it would be too long. With
/// `greets`, [`take_greeting`] tells afterwards whether the device took it.
pub fn run(command: &str, timeout: Duration, greets: bool) -> Option<String> {
    let greet = if greets { GREET } else { "" };
    let words = format!("sh -c '{LOGIN_SHELL}' fleetgate '{}'", encode(command));
    Some(started(greet, &words, timeout)).filter(|line| line.len() <= MAX_LINE)
}

/// Whether the line began to run; takes the greeting out of what the command wrote. A login shell may
/// have said something before it.
pub fn take_greeting(stderr: &mut Vec<u8>) -> bool {
    let at = stderr.windows(GREETING.len()).position(|words| words == GREETING.as_bytes());
    if let Some(at) = at {
        stderr.drain(at..at + GREETING.len());
    }
    at.is_some()
}

fn started(greet: &str, words: &str, timeout: Duration) -> String {
    let later = timeout.saturating_add(LATER);
    // Not every `timeout` takes fractions.
    let seconds = later.as_secs() + u64::from(later.subsec_nanos() > 0);
    format!("exec sh -c '{greet}{BOUND}' {seconds} '{GROUP}' fleetgate {words}")
}

/// For `printf %b`: what some shell would read in single quotes travels as an octal number.
fn encode(command: &str) -> String {
    let mut word = String::with_capacity(command.len());
    for c in command.chars() {
        match c {
            '\'' | '\\' | '!' | '\u{1}'..='\u{1f}' | '\u{7f}' => {
                word.push_str(&format!("\\0{:03o}", u32::from(c)));
            }
            // No argument of any program can hold it.
            '\0' => {}
            c => word.push(c),
        }
    }
    word
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::{Path, PathBuf};
    use std::process::{Command, Output};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);
    const BUSYBOX: &str = "/usr/bin/busybox";
    /// busybox before 1.30 knew one form only.
    const OLD_TIMEOUT: &str =
        "#!/bin/sh\n[ \"$1\" = -t ] || exit 1\nshift\nexec /usr/bin/busybox timeout \"$@\"\n";

    /// A device: what stands in its search path.
    struct Device(PathBuf);

    impl Device {
        fn new(name: &str, applets: &[&str]) -> Device {
            static MADE: AtomicUsize = AtomicUsize::new(0);
            let n = MADE.fetch_add(1, Ordering::Relaxed);
            let path =
                std::env::temp_dir().join(format!("fleetgate-remote-{}-{n}-{name}", std::process::id()));
            fs::create_dir_all(&path).expect("a folder");
            for applet in ["sh", "sleep", "true", "printf", "kill", "env"].iter().chain(applets) {
                symlink(BUSYBOX, path.join(applet)).expect("a link");
            }
            Device(path)
        }

        fn with_old_timeout() -> Device {
            let device = Device::new("old", &["setsid"]);
            let path = device.0.join("timeout");
            fs::write(&path, OLD_TIMEOUT).expect("a script");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
            device
        }

        fn all() -> Vec<Device> {
            let busybox = Path::new(BUSYBOX).exists();
            let made = || {
                [
                    Device::new("busybox", &["timeout", "setsid"]),
                    Device::new("without-setsid", &["timeout"]),
                    Device::new("bare", &["setsid"]),
                    Device::with_old_timeout(),
                ]
            };
            let own = Device(PathBuf::from("/usr/bin:/bin"));
            std::iter::once(own).chain(busybox.then(made).into_iter().flatten()).collect()
        }

        fn is(&self, name: &str) -> bool {
            self.0.to_str().is_some_and(|path| path.ends_with(name))
        }

        /// As a server starts it: by the login shell.
        fn run(&self, command: &str, timeout: Duration) -> Output {
            let line = run(command, timeout, false).expect("short enough");
            self.shell("sh", &line)
        }

        fn shell(&self, shell: &str, line: &str) -> Output {
            let mut login = Command::new(shell);
            login.arg("-c").arg(line).env("PATH", &self.0).env("SHELL", "/bin/sh").env("LC_ALL", "POSIX");
            login.output().expect("a shell")
        }
    }

    impl Drop for Device {
        fn drop(&mut self) {
            if self.0.starts_with(std::env::temp_dir()) {
                let _ = fs::remove_dir_all(&self.0);
            }
        }
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// Whether that nap ends soon: what is killed needs the processor once more to be gone.
    fn is_gone(nap: usize) -> bool {
        let word = format!("sleep\0{nap}\0");
        let is_it = |p: fs::DirEntry| fs::read(p.path().join("cmdline")).is_ok_and(|c| text(&c) == word);
        let alive = || fs::read_dir("/proc").expect("processes").flatten().any(is_it);
        (0..100).any(|_| {
            let gone = !alive();
            if !gone {
                std::thread::sleep(SECOND / 10);
            }
            gone
        })
    }

    #[test]
    fn output_and_exit_status_come_through_as_they_are() {
        let table = [
            ("echo a; echo b >&2; exit 2", "a\n", "b\n", 2),
            ("printf '%s|' \"it's\" '$HOME' 'a\\nb' '!!' \"é\"", "it's|$HOME|a\\nb|!!|é|", "", 0),
            ("echo one\necho \"two\"\nexit 124", "one\ntwo\n", "", 124),
            ("trap 'echo trapped; exit 3' EXIT; true", "trapped\n", "", 3),
            ("exec printf %s \"$LC_ALL\"", "C", "", 0),
        ];
        for device in Device::all() {
            for (command, stdout, stderr, status) in table {
                let out = device.run(command, MINUTE);
                let got = (text(&out.stdout), text(&out.stderr), out.status.code());
                assert_eq!(
                    got,
                    (stdout.to_owned(), stderr.to_owned(), Some(status)),
                    "{command} {:?}",
                    device.0
                );
            }
        }
    }

    #[test]
    fn many_that_hang_at_once_are_all_ended() {
        let naps = (0..20).map(|i| 200_000 + 20 * std::process::id() as usize + i);
        let running: Vec<_> = naps
            .map(|nap| {
                let hang = format!("trap '' TERM; (sleep {nap} & wait); sleep {nap}");
                let line = run(&hang, SECOND, false).expect("short enough");
                let quiet = std::process::Stdio::null;
                let child = Command::new("sh").arg("-c").arg(line).stdout(quiet()).stderr(quiet()).spawn();
                (nap, child.expect("a shell"))
            })
            .collect();
        for (nap, mut child) in running {
            child.wait().expect("it ends");
            assert!(is_gone(nap), "{nap}");
        }
    }

    #[test]
    fn a_number_that_only_looks_like_a_signal_comes_through_at_once() {
        for device in Device::all() {
            for status in [129 + 17, 147, 148, 150, 200, 255] {
                let begun = Instant::now();
                let out = device.run(&format!("exit {status}"), 5 * SECOND);
                let got = (out.status.code(), text(&out.stderr));
                assert_eq!(got, (Some(status), String::new()), "{:?}", device.0);
                assert!(begun.elapsed() < 4 * SECOND, "exit {status} {:?}", device.0);
            }
        }
    }

    #[test]
    fn a_signal_is_told_as_one() {
        use std::os::unix::process::ExitStatusExt;
        for device in Device::all() {
            for signal in [9, 15, 1] {
                let out = device.run(&format!("kill -{signal} $$"), MINUTE);
                assert_eq!(out.status.signal(), Some(signal), "{:?} {}", device.0, text(&out.stderr));
            }
        }
    }

    #[test]
    fn what_hangs_is_ended_with_all_its_children_unless_there_is_no_timeout() {
        // Without a group of its own only the command itself can be found.
        let ends_groups = |device: &&Device| !device.is("bare") && !device.is("without-setsid");
        for (i, device) in Device::all().iter().filter(ends_groups).enumerate() {
            // Of no other run of this test on the machine.
            let nap = 100_000 + 10 * std::process::id() as usize + i;
            let stubborn = format!("trap '' TERM; (sleep {nap} & wait); sleep {nap}; echo no");
            let began = Instant::now();
            let out = device.run(&stubborn, SECOND);
            assert!(began.elapsed() < 10 * SECOND && out.stdout.is_empty(), "{:?}", device.0);
            assert!(is_gone(nap), "{:?}", device.0);
        }
    }

    #[test]
    fn where_there_is_no_timeout_the_command_runs_all_the_same() {
        let bare = Device::all().into_iter().find(|device| device.is("bare"));
        let out = bare.map(|device| device.run("sleep 3; echo done", Duration::ZERO));
        assert!(out.is_none_or(|out| text(&out.stdout) == "done\n"));
    }

    #[test]
    fn every_login_shell_of_this_machine_takes_the_line() {
        let device = Device(PathBuf::from("/usr/bin:/bin"));
        let line = run("echo \"a b\" 'c'!\nexit 2", MINUTE, true).expect("short enough");
        for shell in ["sh", "dash", "bash", "zsh", "mksh", "fish", "tcsh", "csh"] {
            if !["/bin", "/usr/bin"].iter().any(|folder| Path::new(folder).join(shell).exists()) {
                continue;
            }
            let mut out = device.shell(shell, &line);
            assert!(take_greeting(&mut out.stderr), "{shell}: {}", text(&out.stderr));
            let got = (text(&out.stdout), text(&out.stderr), out.status.code());
            assert_eq!(got, ("a b c!\n".to_owned(), String::new(), Some(2)), "{shell}");
        }
    }

    #[test]
    fn what_is_no_shell_does_not_greet() {
        for (said, greeted, left) in [
            ("bad command name exec", false, "bad command name exec"),
            ("@fleetgate run\nno such disk", true, "no such disk"),
            ("warning: no locale\n@fleetgate run\n", true, "warning: no locale\n"),
        ] {
            let mut stderr = said.as_bytes().to_vec();
            assert_eq!((take_greeting(&mut stderr), text(&stderr)), (greeted, left.to_owned()), "{said}");
        }
    }

    #[test]
    fn a_line_is_no_longer_than_a_server_takes() {
        assert!(run(&"x".repeat(8_000), SECOND, true).is_some());
        assert!(run(&"'".repeat(2_000), SECOND, true).is_none());
    }

    #[test]
    fn the_device_waits_a_little_longer_than_the_gateway_in_whole_seconds() {
        for (timeout_ms, seconds) in [(10_000, "11"), (1_500, "3"), (0, "1")] {
            let line = bounded("x", Duration::from_millis(timeout_ms));
            assert!(line.contains(&format!("{BOUND}' {seconds} '{GROUP}' fleetgate x")), "{line}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn no_command_breaks_out_of_its_quotes(words in "[^\0]{0,40}") {
            let line = run(&words, SECOND, false).expect("short enough");
            prop_assert!(!line.contains(|c: char| c.is_ascii_control()) && !line.replace("! ", "").contains('!'), "{line}");
            let command = format!("printf %sx \"$(cat <<'fg'\n{words}\nfg\n)\"");
            let device = Device(PathBuf::from("/usr/bin:/bin"));
            let plain = Command::new("sh").arg("-c").arg(&command).output().expect("a shell");
            prop_assert_eq!(text(&device.run(&command, MINUTE).stdout), text(&plain.stdout));
        }
    }
}
