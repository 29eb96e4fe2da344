//! Processes that are killed at one of the calls by which they change files.
//!
//! A preloaded library counts these calls (`killer.c`). `strace` can kill at a call too, but it counts those of each
//! thread for itself, and each connection to a database has a thread of its own: most calls would never be the N-th.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use fleetgate_tests::dice::{Dice, seeds_to};
use tempfile::TempDir;

/// The variables that tell the process its task and its folder.
pub const TASK: &str = "FLEETGATE_KILLS_TASK";
pub const DATA: &str = "FLEETGATE_KILLS_DATA";
/// The last line of a process that was not killed.
pub const LIVED: &str = "lived";
/// The test that is the process.
const LIFE: &str = "kills::the_process_that_is_killed";
/// The library and its source, in the folder in which the processes run.
const LIBRARY: &str = "./killer.so";
const SOURCE: &str = "killer.c";
/// Kills of one task, unless there are more kinds of calls. `FLEETGATE_KILLS=all` takes all.
const KILLS: usize = 24;
/// Processes at a time. They mostly wait for the disk and for the pauses between two steps.
const AT_ONCE: usize = 6;
/// A task that makes fewer calls is not seen.
const FEWEST: usize = 50;

/// A call that changes a file: its name, and that of the file.
type Call = (String, String);

/// Where a process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kill {
    /// The number of the call, from 1.
    pub at: usize,
    /// Half of the bytes are written, if it is a write.
    pub is_torn: bool,
}

/// What is left of a process, beside its files.
pub struct Ended {
    pub was_killed: bool,
    pub said: String,
}

/// Starts processes with the library.
pub struct Killer {
    dir: TempDir,
}

impl Killer {
    /// Compiles the library.
    pub fn new() -> Killer {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::write(dir.path().join(SOURCE), include_str!("killer.c")).expect("a file");
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-o", LIBRARY, SOURCE, "-ldl"]).current_dir(dir.path());
        let compiled = compile.output().expect("cc of the Debian package gcc");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        Killer { dir }
    }

    fn command(&self, task: &str, data: &Path) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("own path"));
        command.args(["--exact", LIFE, "--ignored", "--nocapture"]).stdin(Stdio::null());
        // The list of libraries is separated by spaces and colons, which the path of the folder may have.
        command.current_dir(self.dir.path()).env("LD_PRELOAD", LIBRARY).env(TASK, task).env(DATA, data);
        command
    }

    /// Runs a process until it is killed or ends by itself.
    pub fn run(&self, task: &str, data: &Path, kill: Kill) -> Ended {
        let mut command = self.command(task, data);
        command.env("KILL_AT", kill.at.to_string());
        if kill.is_torn {
            command.env("KILL_TORN", "1");
        }
        ended(&command.output().expect("this program"))
    }

    /// Runs a process to its end. Returns its calls.
    fn calls(&self, task: &str, data: &Path) -> (Ended, Vec<Call>) {
        let log = self.dir.path().join("calls");
        let out = self.command(task, data).env("KILL_LOG", &log).output().expect("this program");
        let ended = ended(&out);
        assert!(ended.said.lines().any(|line| line == LIVED), "{task}: {}", ended.said);
        let text = fs::read_to_string(&log).expect("the library is preloaded");
        let calls: Vec<Call> = text.lines().map(call).collect();
        assert!(calls.len() >= FEWEST, "{task}: only {} calls are seen", calls.len());
        (ended, calls)
    }
}

fn ended(out: &Output) -> Ended {
    let was_killed = out.status.signal() == Some(libc::SIGKILL);
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(was_killed || out.status.success(), "{}: {said}{errors}", out.status);
    Ended { was_killed, said }
}

fn call(line: &str) -> Call {
    let (name, file) = line.split_once(' ').unwrap_or((line, ""));
    (name.to_owned(), file.rsplit('/').next().unwrap_or_default().to_owned())
}

/// Copies the files of a folder.
pub fn copied(from: &Path) -> TempDir {
    let to = tempfile::tempdir().expect("a temporary folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        fs::copy(entry.path(), to.path().join(entry.file_name())).expect("a copy");
    }
    to
}

/// Kills the process of a task at many calls, each time on a copy of the folder. `check` gets what it left, what it said
/// and where it was killed. The first process is not killed.
pub fn kill_everywhere(task: &str, prepared: &Path, check: impl Fn(&Path, &str, &str) + Sync) {
    let killer = Killer::new();
    let data = copied(prepared);
    let (unharmed, calls) = killer.calls(task, data.path());
    check(data.path(), &unharmed.said, "not killed");
    let kills = chosen(&calls);
    let (next, killed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(kill) = kills.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let data = copied(prepared);
                    let ended = killer.run(task, data.path(), *kill);
                    killed.fetch_add(usize::from(ended.was_killed), Ordering::Relaxed);
                    check(data.path(), &ended.said, &place(*kill, &calls));
                }
            });
        }
    });
    let killed = killed.into_inner();
    println!("{task}: {} calls, {killed} kills", calls.len());
    assert!(killed * 10 >= kills.len() * 9, "{task}: {} processes ended by themselves", kills.len() - killed);
}

fn place(kill: Kill, calls: &[Call]) -> String {
    let (name, file) = &calls[kill.at - 1];
    let torn = if kill.is_torn { ", half of it done" } else { "" };
    format!("killed at call {} of {}, {name} of {file}{torn}", kill.at, calls.len())
}

/// Chooses some kills by the seed, with the first and the last of each kind of call.
fn chosen(calls: &[Call]) -> Vec<Kill> {
    let whole = (1..=calls.len()).map(|at| Kill { at, is_torn: false });
    let writes = (1..).zip(calls).filter(|(_, (name, _))| name == "pwrite");
    let all: Vec<Kill> = whole.chain(writes.map(|(at, _)| Kill { at, is_torn: true })).collect();
    if std::env::var("FLEETGATE_KILLS").is_ok_and(|which| which == "all") {
        return all;
    }
    let mut chosen = first_and_last(calls);
    let mut dice = Dice(seeds_to(1)[0]);
    while chosen.len() < KILLS.min(all.len()) {
        chosen.insert(all[dice.roll(all.len() as u64) as usize]);
    }
    chosen.into_iter().collect()
}

/// The first and the last call of each kind. Calls on the index of a log are left out, because the next start makes the
/// index anew.
fn first_and_last(calls: &[Call]) -> BTreeSet<Kill> {
    let mut kinds: BTreeMap<&Call, (usize, usize)> = BTreeMap::new();
    for (at, call) in (1..).zip(calls).filter(|(_, (_, file))| !file.ends_with("-shm")) {
        kinds.entry(call).and_modify(|(_, last)| *last = at).or_insert((at, at));
    }
    let ends = kinds.into_values().flat_map(|(first, last)| [first, last]);
    ends.map(|at| Kill { at, is_torn: false }).collect()
}
