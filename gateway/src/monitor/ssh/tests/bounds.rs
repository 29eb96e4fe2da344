//! The device bounds its commands itself, if it can.

use std::fs;
use std::process::Stdio;

use super::*;

/// Runs a command as `sshd` does: it continues when its channel is closed.
pub(super) async fn run(handle: server::Handle, id: ChannelId, line: String) {
    let mut shell = tokio::process::Command::new("sh");
    shell.arg("-c").arg(line).env("SHELL", "/bin/sh").stdin(Stdio::null());
    let output = shell.output().await.expect("a shell");
    let _ = handle.data(id, output.stdout).await;
    let _ = handle.extended_data(id, 1, output.stderr).await;
    let _ = handle.exit_status_request(id, output.status.code().unwrap_or(255) as u32).await;
    let _ = handle.eof(id).await;
    let _ = handle.close(id).await;
}

fn with_shell() -> Server {
    Server { shell: true, ..Server::new() }
}

fn heard(server: &Server) -> Vec<String> {
    server.heard.lock().expect("no panic").clone()
}

/// Returns the number of processes on this machine with that command line.
fn alive(command: &str) -> usize {
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let words = command.replace(' ', "\0") + "\0";
    let is = |p: &fs::DirEntry| fs::read(p.path().join("cmdline")).is_ok_and(|c| c == words.as_bytes());
    processes.filter(is).count()
}

#[tokio::test]
async fn a_command_that_hangs_leaves_no_process_on_the_device() {
    let server = with_shell();
    let mut run = pinned(&server.pin(), &["sleep 4321.5; echo never"]);
    run.commands[0].timeout = Duration::from_millis(500);
    let answer = ask(&client(), &server, run).await;
    assert_eq!(answer.commands[0].end, CommandEnd::Timeout, "the gateway says so, not the device");
    let deadline = Deadline::after(PLENTY);
    while alive("sleep 4321.5") > 0 && !deadline.remaining().is_zero() {
        tokio::time::sleep(SECOND / 5).await;
    }
    assert_eq!(alive("sleep 4321.5"), 0);
}

#[tokio::test]
async fn what_a_command_prints_comes_through_without_its_marks_and_costs_no_round_trip() {
    let (server, client) = (with_shell(), client());
    let lines = &["echo \"it's\"; echo no >&2; exit 3", "echo $LC_ALL"];
    for _ in 0..2 {
        let answer = ask(&client, &server, pinned(&server.pin(), lines)).await;
        let [first, second] = &answer.commands[..] else { panic!("{answer:?}") };
        assert_eq!((&first.stdout[..], &first.stderr[..]), (&b"it's\n"[..], &b"no\n"[..]));
        assert_eq!((&first.end, &second.stdout[..]), (&CommandEnd::Exit(3), &b"C\n"[..]));
    }
    assert_eq!(heard(&server).len(), 4);
}

#[tokio::test]
async fn long_output_is_cut_where_the_command_s_own_is_too_long() {
    let server = with_shell();
    let lines = &["head -c 65536 /dev/zero | tr '\\0' x; exit 1", "head -c 70000 /dev/zero; exit 2"];
    let answer = ask(&client(), &server, pinned(&server.pin(), lines)).await;
    let ends: Vec<_> = answer.commands.iter().map(|c| (c.stdout.len(), c.truncated, c.end.clone())).collect();
    assert_eq!(ends, [(65_536, false, CommandEnd::Exit(1)), (65_536, true, CommandEnd::Exit(2))]);
}

#[tokio::test]
async fn a_device_without_a_shell_gets_commands_unchanged() {
    let (server, client) = (Server::new(), client());
    for _ in 0..2 {
        let answer = ask(&client, &server, pinned(&server.pin(), &["hello", "fail"])).await;
        let ends: Vec<_> = answer.commands.iter().map(|c| c.end.clone()).collect();
        assert_eq!(ends, [CommandEnd::Exit(0), CommandEnd::Exit(3)]);
        assert_eq!(answer.commands[0].stdout, b"hello");
    }
    let heard = heard(&server);
    assert!(heard[0].contains("@fleetgate"));
    assert_eq!(heard[1..], ["hello", "fail", "hello", "fail"]);
}
