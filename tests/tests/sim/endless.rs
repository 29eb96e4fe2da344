//! Peers that send without end cost the gateway 32 MiB at most in total: mail servers, receivers of
//! webhooks and heartbeats, SSH servers, callers of the API. The memory used during a flood is
//! released.

use std::fs::Permissions;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fleetgate_tests::bench::program::Program;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Memory that may remain of any flood.
const LEFT: usize = 30 * 1024 * 1024;
/// Time for the memory to be released; the gateway checks every five seconds.
const RETURNED: Duration = Duration::from_secs(60);
/// Memory that strangers may cost.
const MOST: usize = 32 * 1024 * 1024;
/// All of them send at the same time for this long. Loopback carries a gigabyte a second.
const ATTACK: Duration = Duration::from_secs(12);
const CHUNK: usize = 64 * 1024;

/// A peer that sends this text first, and then one text repeatedly.
#[derive(Clone, Copy)]
struct Manner {
    name: &'static str,
    first: &'static str,
    again: &'static str,
}

const fn manner(name: &'static str, first: &'static str, again: &'static str) -> Manner {
    Manner { name, first, again }
}

/// The gateway pauses after a failure of a mail server, so the first conversation is the one that
/// counts.
const MAIL: [Manner; 1] = [manner("mail: a greeting without end", "220 ", "a")];
const HOOKS: [Manner; 4] = [
    manner("HTTP: a status without end", "HTTP/1.1 200 ", "a"),
    manner("HTTP: headers without end", "HTTP/1.1 200 OK\r\n", "x-more: and more\r\n"),
    manner("HTTP: a body without end", "HTTP/1.1 200 OK\r\n\r\n", "a"),
    manner("HTTP: interim answers without end", "", "HTTP/1.1 103 Early Hints\r\n\r\n"),
];
const SSH: [Manner; 4] = [
    manner("SSH: an identification without end", "SSH-2.0-", "a"),
    manner("SSH: lines without end", "", "welcome\r\n"),
    manner("SSH: packets without end", "SSH-2.0-evil\r\n", "\u{0}\u{0}\u{7f}\u{7f}\u{1}"),
    manner("SSH: nothing but blanks", "", "\r\n"),
];
const CALLS: [Manner; 5] = [
    manner("API: a path without end", "GET /", "a"),
    manner("API: headers without end", "GET / HTTP/1.1\r\n", "x-more: and more\r\n"),
    manner(
        "API: a body without end",
        "POST /api/v1/session HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n",
        "8\r\n{\"a\":  1\r\n",
    ),
    manner("API: requests without end", "", "GET /api/v1/hosts HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    manner(
        "API: an extension of a chunk without end",
        "POST /api/v1/session HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n8;",
        "a",
    ),
];

/// Bytes that the other side accepted.
type Sent = Arc<AtomicU64>;

fn send_without_end(mut stream: TcpStream, manner: Manner, sent: &Sent) {
    let _ = stream.set_write_timeout(Some(ATTACK));
    let chunk = manner.again.repeat(CHUNK / manner.again.len());
    let mut say = |text: &str| stream.write_all(text.as_bytes()).is_ok();
    if !manner.first.is_empty() && !say(manner.first) {
        return;
    }
    sent.fetch_add(1, Ordering::Relaxed);
    while say(&chunk) {
        sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
    }
}

/// Starts a server that replies to each connection in one of these manners, in turn.
fn server(manners: &'static [Manner]) -> (SocketAddr, Vec<Sent>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let sent: Vec<Sent> = manners.iter().map(|_| Sent::default()).collect();
    let counted = sent.clone();
    std::thread::spawn(move || {
        for (n, stream) in listener.incoming().flatten().enumerate() {
            let (manner, sent) = (manners[n % manners.len()], counted[n % manners.len()].clone());
            std::thread::spawn(move || send_without_end(stream, manner, &sent));
        }
    });
    (address, sent)
}

/// Calls the API in this manner repeatedly, until it is stopped.
fn caller(api: SocketAddr, manner: Manner, sent: Sent, stop: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            let stream = TcpStream::connect(api).expect("the gateway listens");
            let mut answers = stream.try_clone().expect("the same");
            std::thread::spawn(move || {
                let mut buffer = vec![0; CHUNK];
                while answers.read(&mut buffer).is_ok_and(|read| read > 0) {}
            });
            send_without_end(stream, manner, &sent);
        }
    });
}

/// Returns the memory in bytes: `VmRSS` now, or `VmHWM`, the most since the last reset.
fn memory(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a size");
    line.trim_matches([':', ' ', '\t', 'k', 'B']).parse::<usize>().expect("a number") * 1024
}

/// Makes ten failed logins, each of which needs 19 MiB, as many as one source may.
async fn failed_logins(program: &Program) {
    let login = json!({ "name": "nobody", "password": "correct horse battery" });
    for _ in 0..10 {
        assert!(program.call(Method::POST, "/session", &login).await.is_err());
    }
}

/// Submits long results and lists everything, from many callers at once.
async fn long_results(program: &Arc<Program>) {
    let words = "all is well and more ".repeat(3_000);
    let device = json!({ "name": "cam-1" });
    program.call(Method::POST, "/devices", &device).await.expect("a device");
    for n in 0..50 {
        let service = format!("/hosts/cam-1/services/job-{n}");
        program
            .call(Method::PUT, &service, &json!({ "check": { "type": "passive" } }))
            .await
            .expect("a service");
    }
    let mut taken = 0;
    for round in 0..3 {
        let mut calls = JoinSet::new();
        for n in 0..100 {
            let (program, words) = (program.clone(), words.clone());
            calls.spawn(async move { result_and_list(&program, round * 100 + n, &words).await });
        }
        taken += calls.join_all().await.into_iter().filter(|taken| *taken).count();
    }
    assert!(taken > 50, "{taken}");
}

/// Returns whether the result was accepted: a busy gateway responds with 503.
async fn result_and_list(program: &Program, n: usize, words: &str) -> bool {
    let result = json!({ "exit_status": n % 3, "output": format!("{n} {words}") });
    let path = format!("/hosts/cam-1/services/job-{}/results", n % 50);
    let taken = program.call_once(Method::POST, &path, &result, None).await.is_ok();
    if n.is_multiple_of(10) {
        let _ = program.call_once(Method::GET, "/hosts/cam-1/services", &Value::Null, None).await;
    }
    taken
}

async fn returns(before: usize, what: &str) {
    let peak = memory("VmHWM");
    let begin = Instant::now();
    while memory("VmRSS") > before + LEFT {
        let now = memory("VmRSS").saturating_sub(before) / 1024;
        assert!(begin.elapsed() < RETURNED, "{what}: {now} KiB stay");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let (most, left) = (peak.saturating_sub(before) / 1024, memory("VmRSS").saturating_sub(before) / 1024);
    println!("{what}: {most} KiB at most, {left} KiB after {:.0} s", begin.elapsed().as_secs_f64());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_flood_needed_is_given_back() {
    fleetgate::health::memory::set_up();
    let program = Arc::new(Program::start().await.expect("it starts"));
    let before = memory("VmRSS");
    failed_logins(&program).await;
    returns(before, "ten failed logins").await;
    long_results(&program).await;
    returns(before, "300 results of 63 kB").await;
    Arc::into_inner(program).expect("nobody calls any more").server.stop().await;
}

async fn program(mail: SocketAddr, hooks: SocketAddr) -> Program {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).expect("our own");
    let settings = format!(
        "listen = \"127.0.0.1:0\"\napi_listen = \"127.0.0.1:0\"\nendpoint = \"127.0.0.1:9\"\n\
         [outbound]\nallow = [\"127.0.0.0/8\"]\n\
         [mail]\nhost = \"127.0.0.1\"\nport = {}\nsecurity = \"none\"\nfrom = \"gateway@example.com\"\nto = [\"ops@example.com\"]\n\
         [heartbeat]\nurl = \"http://{hooks}/ping\"\ninterval = 5\n",
        mail.port()
    );
    let file = dir.path().join("fleetgate.toml");
    std::fs::write(&file, settings).expect("settings");
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("our own");
    Program::start_in(dir).await.expect("it starts")
}

/// Makes a contact with mail and a webhook, to receive the test message.
async fn contact(program: &Program, n: usize, hooks: SocketAddr) -> String {
    let url = format!("http://{hooks}/hook");
    let body = json!({ "name": format!("ops-{n}"), "emails": ["ops@example.com"], "webhook_url": url });
    let made = program.call(Method::POST, "/contacts", &body).await.expect("a contact");
    format!("/contacts/{}", made["contact"]["id"].as_str().or(made["id"].as_str()).expect("an id"))
}

async fn device(program: &Program, n: usize, ssh: SocketAddr) {
    let body = json!({ "name": format!("pub-{n}"), "tunnel": false, "direct_address": "127.0.0.1",
                       "ssh": { "user": "fleet", "port": ssh.port() } });
    program.call(Method::POST, "/devices", &body).await.expect("a device");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_without_end_costs_the_gateway_32_mib_at_most() {
    let ((mail, by_mail), (hooks, by_hooks), (ssh, by_ssh)) = (server(&MAIL), server(&HOOKS), server(&SSH));
    let program = program(mail, hooks).await;
    let mut contacts = Vec::new();
    for n in 0..8 {
        contacts.push(contact(&program, n, hooks).await);
    }
    let before = memory("VmRSS");
    std::fs::write("/proc/self/clear_refs", "5").expect("our own peak");
    let stop = Arc::new(AtomicBool::new(false));
    let by_calls: Vec<Sent> = CALLS.iter().map(|_| Sent::default()).collect();
    for _ in 0..4 {
        CALLS
            .iter()
            .zip(&by_calls)
            .for_each(|(call, sent)| caller(program.server.api, *call, sent.clone(), stop.clone()));
    }
    for n in 0..8 {
        device(&program, n, ssh).await;
    }
    // The attack lasts this long from here: a disk that is held up may have delayed the last device.
    let until = Instant::now() + ATTACK;
    while Instant::now() < until {
        for contact in &contacts {
            // Too many test messages in a row are refused.
            let _ = program.call_once(Method::POST, &format!("{contact}/test"), &Value::Null, None).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let grown = memory("VmHWM").saturating_sub(before);
    let all = MAIL.iter().chain(&HOOKS).chain(&SSH).chain(&CALLS);
    for (manner, sent) in all.zip(by_mail.iter().chain(&by_hooks).chain(&by_ssh).chain(&by_calls)) {
        println!("{:<45} {:>12} B", manner.name, sent.load(Ordering::Relaxed));
        assert!(sent.load(Ordering::Relaxed) > 0, "{}: nobody asked", manner.name);
    }
    println!("grown by {} KiB", grown / 1024);
    assert!(grown < MOST, "{} MiB", grown / 1024 / 1024);
    program.server.stop().await;
}
