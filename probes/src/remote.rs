//! The command line that runs a command on a device: in `sh`, with a time limit on the device, and
//! with marks around its output.
//!
//! A server does not kill a command when its channel closes. A hanging command would stay on the
//! device, and each check would add another. The command therefore runs under the device's own
//! `timeout`, if there is one. It runs in a process group of its own, which is ended as a whole.
//! The exit status, and the signal that ended a command, are passed through unchanged.
//!
//! A server hands each command to the login shell of the account, and that shell reads its start-up
//! files first. The login shell may be any shell, so it is given one line that every shell accepts.
//! The line consists of words of printable ASCII or UTF-8 in single quotes. No word contains a
//! single quote, a backslash pair or a line feed, a blank follows each `!`, and no word is too long
//! for `csh`. The line starts `sh`, which marks on both outputs where those of the command begin
//! and end ([`Excerpt`]).
//!
//! A target without a shell (the command line of a router, a list of permitted commands) prints no
//! mark, and is then given the bare command. The module knows no SSH.

use std::time::Duration;

/// Longest line. Older dropbear servers refuse a command above 9,000 bytes.
pub const MAX_LINE: usize = 8_800;

/// The device's time limit is this much later than the gateway's, so that the gateway reports the
/// timeout.
const LATER: Duration = Duration::from_secs(1);

/// Longest word of a line: BSD's `csh` takes 1,023 bytes.
const MAX_WORD: usize = 900;

/// The mark before the output of the command, on a line of its own.
const BEGINS: &[u8] = b"@fleetgate run\n";
/// The mark directly after the output, followed by the exit status and a line feed.
const ENDS: &[u8] = b"@fleetgate end ";
/// Length with the longest exit status and the line feed.
const ENDS_BYTES: usize = ENDS.len() + 4;

/// Length of the newest output that is kept. It may hold the end mark and some text of a login
/// shell after it.
const NEWEST_BYTES: usize = 256;

/// Tries the forms of `timeout`: coreutils and newer busybox, busybox without `-k`, old busybox,
/// none. `-k` gives the commands below time to end the group, even on an overloaded device.
const BOUND: &str = r#"for t in "timeout -k 5 $0" "timeout $0" "timeout -t $0" "";do $t true 2>/dev/null&&break;done;exec $t sh -c "$@""#;

/// Runs the command in a process group and ends the whole group on a timeout.
///
/// busybox's `timeout` ends one process, but a plugin is often a shell and its child. The group is
/// therefore ended here, before `-k` acts. coreutils sends its signal twice, so the shell ignores
/// the second one and completes its work.
///
/// A command that was ended by a signal is reported with that signal instead of a number. That
/// applies to the first 15 signals, which end a process on every system. A higher number may be an
/// ordinary exit status, or would stop the shell or make it complain. A login shell that does not
/// let itself be replaced has its own exit status; the mark has the true one.
const GROUP: &str = r#"$(command -v setsid) "$@"&p=$! ;trap "trap : 15;exec 2>/dev/null;kill -15 -$p $p;sleep 1;kill -9 -$p $p;exit 124" 15;wait $p 2>/dev/null;r=$?;trap - 15;e="@fleetgate end $r";echo "$e";echo "$e" >&2;[ $r -gt 128 ]&&[ $r -lt 144 ]&&kill -$((r-128)) $$;exit $r"#;

/// Joins the pieces of the command with `printf` and runs it.
const RUN: &str =
    r#"export LC_ALL=C;b="@fleetgate run";echo "$b";echo "$b" >&2;exec sh -c "$(printf %b "$@")""#;

/// Returns the line that runs `command` in `sh` with a time limit, or `None` if the line would be
/// too long. An [`Excerpt`] of each output has the command's own output.
pub fn run(command: &str, timeout: Duration) -> Option<String> {
    let later = timeout.saturating_add(LATER);
    // Some versions of `timeout` take no fractions.
    let seconds = later.as_secs() + u64::from(later.subsec_nanos() > 0);
    let pieces = pieces(command).join("' '");
    let line =
        format!("exec sh -c '{BOUND}' {seconds} '{GROUP}' fleetgate sh -c '{RUN}' fleetgate '{pieces}'");
    Some(line).filter(|line| line.len() <= MAX_LINE)
}

/// Splits a command for `printf %b`. A character that some shell would interpret in single quotes
/// is escaped.
fn pieces(command: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for c in command.chars() {
        let escape = match c {
            '\n' => "\\n".to_owned(),
            '\t' => "\\t".to_owned(),
            '\'' | '\\' | '!' | '\u{1}'..='\u{1f}' | '\u{7f}' => format!("\\0{:03o}", u32::from(c)),
            // An argument of a program cannot contain it.
            '\0' => continue,
            c => c.to_string(),
        };
        match pieces.last_mut() {
            Some(piece) if piece.len() + escape.len() <= MAX_WORD => piece.push_str(&escape),
            _ => pieces.push(escape),
        }
    }
    pieces
}

/// Returns the command in a line that [`run`] made. Line feeds and tabs are restored, other escapes
/// are not. For simulated devices, which have no shell.
pub(crate) fn carried(line: &str) -> Option<String> {
    let (_, command) = line.strip_prefix("exec sh -c '")?.rsplit_once("' fleetgate '")?;
    let command = command.strip_suffix('\'')?.replace("' '", "");
    Some(command.replace("\\n", "\n").replace("\\t", "\t"))
}

/// One output of a command between its marks, collected as it arrives.
#[derive(Debug)]
pub struct Excerpt {
    kept: Vec<u8>,
    /// Maximum bytes kept of the command's output.
    most: usize,
    /// The newest bytes, kept or not, because the end mark may follow more output than is kept.
    newest: Vec<u8>,
    begun: Begun,
    cut: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begun {
    /// No mark is expected.
    Bare,
    NotYet,
    Marked,
}

/// The final content of an [`Excerpt`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Excerpted {
    pub output: Vec<u8>,
    /// The output was longer than what was kept.
    pub truncated: bool,
    /// Whether `sh` began to run the command.
    pub began: bool,
    /// The exit status, as reported by the shell that ran the command to its end.
    pub status: Option<u32>,
}

impl Excerpt {
    /// Makes an excerpt of a command that [`run`] started.
    pub fn marked(most: usize) -> Self {
        Excerpt { kept: Vec::new(), most, newest: Vec::new(), begun: Begun::NotYet, cut: false }
    }

    /// Makes an excerpt of a command without marks: all output counts.
    pub fn bare(most: usize) -> Self {
        Excerpt { begun: Begun::Bare, ..Excerpt::marked(most) }
    }

    /// Returns whether the begin mark arrived.
    pub fn began(&self) -> bool {
        self.begun == Begun::Marked
    }

    pub fn take(&mut self, mut data: &[u8]) {
        if self.begun == Begun::NotYet {
            // The newest bytes may contain the beginning of the mark. The first bytes are kept in
            // case no mark arrives.
            let old = self.kept.len().saturating_sub(BEGINS.len() - 1);
            self.kept.extend_from_slice(data);
            let Some(at) = find(&self.kept[old..], BEGINS) else { return self.drop_middle() };
            let behind = old + at + BEGINS.len();
            data = &data[data.len() - (self.kept.len() - behind)..];
            self.kept.clear();
            (self.begun, self.cut) = (Begun::Marked, false);
        }
        let room = (self.most + ENDS_BYTES).saturating_sub(self.kept.len());
        self.kept.extend_from_slice(&data[..data.len().min(room)]);
        self.cut |= data.len() > room;
        self.newest.extend_from_slice(&data[data.len().saturating_sub(NEWEST_BYTES)..]);
        self.newest.drain(..self.newest.len().saturating_sub(NEWEST_BYTES));
    }

    /// Bounds the output while no mark has arrived: keeps the first bytes, and as many of the last
    /// as may contain the beginning of a mark.
    fn drop_middle(&mut self) {
        let last = BEGINS.len() - 1;
        if self.kept.len() > self.most + last {
            self.kept.drain(self.most..self.kept.len() - last);
            self.cut = true;
        }
    }

    pub fn finish(mut self) -> Excerpted {
        let began = self.began();
        let end = end_mark(&self.kept).filter(|_| began);
        if let Some((at, _)) = end {
            self.kept.truncate(at);
            self.cut = false;
        }
        let truncated = self.cut || self.kept.len() > self.most;
        self.kept.truncate(self.most);
        let status = end.or_else(|| end_mark(&self.newest)).map(|(_, status)| status);
        Excerpted { output: self.kept, truncated, began, status: status.filter(|_| began) }
    }
}

fn find(bytes: &[u8], words: &[u8]) -> Option<usize> {
    bytes.windows(words.len()).position(|window| window == words)
}

/// Returns the position of the last end mark, and its exit status.
fn end_mark(bytes: &[u8]) -> Option<(usize, u32)> {
    let at = bytes.windows(ENDS.len()).rposition(|words| words == ENDS)?;
    let behind = &bytes[at + ENDS.len()..];
    let line = &behind[..find(behind, b"\n")?];
    Some((at, std::str::from_utf8(line).ok()?.parse().ok()?))
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
    /// The only form that busybox before 1.30 accepted.
    const OLD_TIMEOUT: &str =
        "#!/bin/sh\n[ \"$1\" = -t ] || exit 1\nshift\nexec /usr/bin/busybox timeout \"$@\"\n";

    /// A device, given by the folder that is its search path.
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

        /// Runs a command as a server does, by the login shell.
        fn run(&self, command: &str, timeout: Duration) -> Output {
            let line = run(command, timeout).expect("short enough");
            let mut login = Command::new("sh");
            login.arg("-c").arg(line).env("PATH", &self.0).env("LC_ALL", "POSIX");
            let output = login.output().expect("a shell");
            let (stdout, stderr) = (excerpt(&output.stdout), excerpt(&output.stderr));
            Output { stdout: stdout.output, stderr: stderr.output, ..output }
        }
    }

    impl Drop for Device {
        fn drop(&mut self) {
            if self.0.starts_with(std::env::temp_dir()) {
                let _ = fs::remove_dir_all(&self.0);
            }
        }
    }

    fn excerpt(bytes: &[u8]) -> Excerpted {
        let mut excerpt = Excerpt::marked(64 * 1024);
        excerpt.take(bytes);
        excerpt.finish()
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// Returns whether that process ends soon. A killed process needs the processor once more to
    /// exit.
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
                let line = run(&hang, SECOND).expect("short enough");
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
            // A duration that no other run of this test on the machine uses.
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

    /// Login shells, with the folder of their start-up files and the file that each reads for a
    /// command.
    const SHELLS: [(&str, &[&str], &str); 9] = [
        ("sh", &["-c"], ""),
        ("dash", &["-c"], ""),
        ("busybox", &["ash", "-c"], ""),
        ("bash", &["-c"], ".bashrc"),
        ("zsh", &["-c"], ".zshenv"),
        ("mksh", &["-c"], ""),
        ("fish", &["-c"], ".config/fish/config.fish"),
        ("tcsh", &["-c"], ".tcshrc"),
        ("csh", &["-c"], ".cshrc"),
    ];

    fn is_there(program: &str) -> bool {
        ["/bin", "/usr/bin"].iter().any(|folder| Path::new(folder).join(program).exists())
    }

    /// Runs a line as `sshd` does: by each login shell of this machine, in a home with that
    /// start-up text.
    fn by_every_shell(line: &str, startup: &str, mut check: impl FnMut(&str, Output)) {
        for (shell, arguments, file) in SHELLS.iter().filter(|(shell, ..)| is_there(shell)) {
            let home = Device::new(shell, &[]);
            if !file.is_empty() {
                let path = home.0.join(file);
                fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
                fs::write(&path, startup).expect("a file");
            }
            let mut login = Command::new(shell);
            login
                .args(*arguments)
                .arg(line)
                .env("HOME", &home.0)
                .env("XDG_CONFIG_HOME", home.0.join(".config"));
            // bash takes these variables as a sign that sshd starts it.
            login.env("SSH_CLIENT", "192.0.2.1 1 22").env("SSH2_CLIENT", "x").env_remove("SHLVL");
            check(shell, login.output().expect("a shell"));
        }
    }

    /// In syntax that all shells share: a line, one without an end, and one that could be a
    /// plugin's.
    const TALKATIVE: &str =
        "echo 'Welcome | a=1'\necho 'OK - @fleetgate'\nprintf 'prompt> '\necho oops >/dev/stderr\n";

    #[test]
    fn every_login_shell_of_this_machine_takes_the_line() {
        let command =
            "printf '%s|' \"a b\" 'c'!\\\\n \"$0\"\n\techo \"~ * $((1+1)) `echo x`\"; echo é >&2\nexit 2";
        let line = run(command, MINUTE).expect("short enough");
        for startup in ["", TALKATIVE] {
            by_every_shell(&line, startup, |shell, out| {
                let (stdout, stderr) = (excerpt(&out.stdout), excerpt(&out.stderr));
                assert!(stdout.began && stderr.began, "{shell}: {}", text(&out.stderr));
                let got = (text(&stdout.output), text(&stderr.output), out.status.code());
                let said = "a b|c!\\n|sh|~ * 2 x\n".to_owned();
                assert_eq!(got, (said, "é\n".to_owned(), Some(2)), "{shell}");
                assert_eq!((stdout.status, stdout.truncated), (Some(2), false), "{shell}");
            });
        }
    }

    #[test]
    fn start_up_text_is_there_in_the_shells_that_read_such_a_file() {
        let mut heard = 0;
        let line = run("echo x", MINUTE).expect("short enough");
        by_every_shell(&line, TALKATIVE, |shell, out| {
            let talks = text(&out.stdout).contains("Welcome | a=1");
            heard += usize::from(talks);
            assert!(talks || !matches!(shell, "fish" | "tcsh" | "zsh"), "{shell} read nothing");
        });
        assert!(heard > 0 || !is_there("fish"));
    }

    #[test]
    fn the_longest_line_passes_through_every_login_shell() {
        let words = "0123456789 ".repeat(700);
        let line = run(&format!("echo '{words}'; exit 3"), MINUTE).expect("short enough");
        assert!(line.len() > MAX_LINE * 9 / 10, "{}", line.len());
        by_every_shell(&line, "", |shell, out| {
            let stdout = excerpt(&out.stdout);
            assert_eq!((text(&stdout.output), stdout.status), (format!("{words}\n"), Some(3)), "{shell}");
        });
    }

    #[test]
    fn a_login_shell_that_talks_to_the_end_and_hides_the_status_does_no_harm() {
        let line = run("printf 'no line end'; printf 'why\\n' >&2; exit 2", MINUTE).expect("short enough");
        for shell in ["sh", "bash"] {
            let around = r#"echo before; echo before >&2; sh -c "$1"; echo after; echo after >&2; exit 0"#;
            let mut login = Command::new(shell);
            let out = login.args(["-c", around, "login", &line]).output().expect("a shell");
            let (stdout, stderr) = (excerpt(&out.stdout), excerpt(&out.stderr));
            assert_eq!((text(&stdout.output), text(&stderr.output)), ("no line end".into(), "why\n".into()));
            assert_eq!((out.status.code(), stdout.status, stderr.status), (Some(0), Some(2), Some(2)));
        }
    }

    fn in_pieces(said: &[u8], most: usize, pieces: usize) -> Excerpted {
        let mut excerpt = Excerpt::marked(most);
        said.chunks(pieces).for_each(|piece| excerpt.take(piece));
        excerpt.finish()
    }

    #[test]
    fn an_output_is_what_stands_between_the_marks_in_whatever_pieces_it_comes() {
        let table: [(&str, &str, Option<u32>, bool, bool); 12] = [
            ("@fleetgate run\nOK\n@fleetgate end 0\n", "OK\n", Some(0), true, false),
            ("motd\nprompt> @fleetgate run\nOK@fleetgate end 2\nbye\n", "OK", Some(2), true, false),
            ("@fleetgate run\n@fleetgate end 137\n", "", Some(137), true, false),
            (
                "@fleetgate run\n0123456789@fleetgate end 1\nlogout, and more\n",
                "0123456789",
                Some(1),
                true,
                false,
            ),
            ("@fleetgate run\n0123456789abc@fleetgate end 1\n", "0123456789", Some(1), true, true),
            (
                "@fleetgate run\n0123456789abcdefghijklmnopqrstuvwxyzabcdefgh\n",
                "0123456789",
                None,
                true,
                true,
            ),
            (
                "@fleetgate run\n0123456789abcdefghijklmnopqrst@fleetgate end 1\nbye\n",
                "0123456789",
                Some(1),
                true,
                true,
            ),
            ("@fleetgate run\nhalf", "half", None, true, false),
            ("@fleetgate run\nx@fleetgate end 4@fleetgate end 0\n", "x@fleetgat", Some(0), true, true),
            ("no shell here", "no shell h", None, false, true),
            ("no shell", "no shell", None, false, false),
            (
                "a very long speech before it is our turn @fleetgate @fleetgate run\nOK",
                "OK",
                None,
                true,
                false,
            ),
        ];
        for (said, output, status, began, truncated) in table {
            for pieces in [1, 2, 3, 7, 1000] {
                let found = in_pieces(said.as_bytes(), 10, pieces);
                let got = (text(&found.output), found.status, found.began, found.truncated);
                assert_eq!(got, (output.to_owned(), status, began, truncated), "{said:?} by {pieces}");
            }
        }
    }

    #[test]
    fn without_marks_all_of_it_counts() {
        let mut bare = Excerpt::bare(4);
        bare.take(b"OK @fleetgate run\n");
        let found = bare.finish();
        assert_eq!((text(&found.output), found.truncated, found.began), ("OK @".into(), true, false));
    }

    #[test]
    fn a_line_is_no_longer_than_a_server_takes() {
        assert!(run(&"x".repeat(7_500), SECOND).is_some());
        assert!(run(&"'".repeat(2_000), SECOND).is_none());
    }

    #[test]
    fn the_device_waits_a_little_longer_than_the_gateway_in_whole_seconds() {
        for (timeout_ms, seconds) in [(10_000, "11"), (1_500, "3"), (0, "1")] {
            let line = run("x", Duration::from_millis(timeout_ms)).expect("short enough");
            assert!(line.contains(&format!("{BOUND}' {seconds} '{GROUP}' fleetgate sh")), "{line}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn no_command_breaks_out_of_its_quotes(words in "[^\0]{0,40}") {
            let line = run(&words, SECOND).expect("short enough");
            prop_assert!(!line.contains(|c: char| c.is_ascii_control()) && !line.replace("! ", "").contains('!'), "{line}");
            prop_assert!(!line.contains(r"\\") && line.split(' ').all(|word| word.len() <= MAX_WORD + 2), "{line}");
            let command = format!("printf %sx \"$(cat <<'fg'\n{words}\nfg\n)\"");
            let device = Device(PathBuf::from("/usr/bin:/bin"));
            let plain = Command::new("sh").arg("-c").arg(&command).output().expect("a shell");
            prop_assert_eq!(text(&device.run(&command, MINUTE).stdout), text(&plain.stdout));
        }
    }
}
