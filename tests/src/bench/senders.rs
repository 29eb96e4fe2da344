//! Results over HTTP/1.1 with keep-alive, sent by a separate process. The CPU time of its clients
//! is not the program's, and they run on another core if there is one.
//!
//! The program's process starts it ([`Wave::send`]) and passes all parameters on its standard
//! input. It reports the outcome as one line of JSON.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::results::{SERVICES, Sent, WATCHED, exit_status, host_name, said, service_name, stay_on_core};

/// The name of this benchmark's second process; it is no benchmark of its own.
pub const NAME: &str = "http-senders";
pub(super) const CONNECTIONS: usize = 256;
/// The largest response: a hundred outcomes, or the state of a service.
const ANSWER: usize = 64 * 1024;

/// The results to send, and for how long.
#[derive(Clone, Copy)]
pub(super) struct Wave {
    /// Results in one call; 1: a separate call for each.
    pub batch: usize,
    pub hosts: usize,
    pub round: usize,
    pub time: Duration,
}

impl Wave {
    /// Blocks until the senders have ended.
    ///
    /// # Errors
    /// Fails when the senders fail, or a result is lost.
    pub fn send(self, to: SocketAddr, token: &str) -> anyhow::Result<Sent> {
        let program = std::env::current_exe()?;
        let mut senders =
            Command::new(program).arg(NAME).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let order = json!({
            "to": to.to_string(), "token": token, "batch": self.batch, "hosts": self.hosts,
            "round": self.round, "time_s": self.time.as_secs_f64(),
        });
        senders.stdin.take().context("an input")?.write_all(order.to_string().as_bytes())?;
        let ended = senders.wait_with_output()?;
        ensure!(ended.status.success(), "the senders failed: {}", ended.status);
        sent(&serde_json::from_slice(&ended.stdout)?).context("what the senders say")
    }
}

fn sent(said: &Value) -> Option<Sent> {
    let numbers =
        |name: &str| -> Option<Vec<u64>> { said[name].as_array()?.iter().map(Value::as_u64).collect() };
    Some(Sent {
        count: said["count"].as_u64()? as usize,
        rounds: said["rounds"].as_u64()? as usize,
        watched: numbers("watched")?.into_iter().map(|round| round as usize).collect(),
        waited: numbers("waited_us")?.into_iter().map(Duration::from_micros).collect(),
        took: Duration::from_secs_f64(said["took_s"].as_f64()?),
        ..Sent::default()
    })
}

/// Runs the second process.
///
/// # Errors
/// Fails when a result is lost.
pub fn run_senders() -> anyhow::Result<()> {
    // On a machine with one core, both processes share it.
    let _ = stay_on_core(1, 0);
    let mut order = String::new();
    std::io::stdin().read_to_string(&mut order)?;
    let order: Value = serde_json::from_str(&order)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    println!("{}", runtime.block_on(send_all(&order))?);
    Ok(())
}

async fn send_all(order: &Value) -> anyhow::Result<Value> {
    let number = |name: &str| order[name].as_u64().map(|n| n as usize).context("a number");
    let (batch, hosts, round) = (number("batch")?, number("hosts")?, number("round")?);
    let to: SocketAddr = order["to"].as_str().context("an address")?.parse()?;
    let begin = Instant::now();
    let until = begin + Duration::from_secs_f64(order["time_s"].as_f64().context("a time")?);
    let mut senders = JoinSet::new();
    for n in 0..CONNECTIONS {
        let token = order["token"].as_str().context("a token")?.to_owned();
        let line = Line { stream: connect(to).await?, token, answer: Vec::new() };
        senders.spawn(Sender { line, n, batch, services: hosts * SERVICES, round }.run(until));
    }
    let mut all = Sent { rounds: round, ..Sent::default() };
    while let Some(sent) = senders.join_next().await {
        let sent = sent??;
        all.count += sent.count;
        all.rounds = all.rounds.max(sent.rounds);
        all.watched.extend(sent.watched);
        all.waited.extend(sent.waited);
    }
    all.waited.sort_unstable();
    Ok(json!({
        "count": all.count, "rounds": all.rounds, "watched": all.watched, "took_s": begin.elapsed().as_secs_f64(),
        "waited_us": all.waited.iter().map(|w| w.as_micros() as u64).collect::<Vec<_>>(),
    }))
}

async fn connect(to: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends results for every nth service, or for a row of services, one call after the other.
struct Sender {
    line: Line,
    n: usize,
    batch: usize,
    services: usize,
    round: usize,
}

impl Sender {
    async fn run(mut self, until: Instant) -> anyhow::Result<Sent> {
        let mut sent = Sent { rounds: self.round, ..Sent::default() };
        loop {
            for first in (self.n * self.batch..self.services).step_by(CONNECTIONS * self.batch) {
                let from = Instant::now();
                if from >= until {
                    return Ok(sent);
                }
                let services = first..(first + self.batch).min(self.services);
                self.call(services.clone(), sent.rounds).await?;
                sent.waited.push(from.elapsed());
                sent.count += services.len();
                if services.contains(&WATCHED) {
                    sent.watched.push(sent.rounds);
                }
            }
            sent.rounds += 1;
        }
    }

    async fn call(&mut self, services: std::ops::Range<usize>, round: usize) -> anyhow::Result<()> {
        let count = services.len();
        if self.batch == 1 {
            let (host, service) = place(services.start);
            let path = format!("/hosts/{host}/services/{service}/results");
            let answer = self.line.post(&path, &result(services.start, round)).await?;
            ensure!(contains(answer, b"\"service\":{"), "no state: {}", String::from_utf8_lossy(answer));
            return Ok(());
        }
        let results: Vec<Value> = services.map(|service| named(service, round)).collect();
        let answer = self.line.post("/results", &json!({ "results": results })).await?;
        let outcomes: Value = serde_json::from_slice(answer)?;
        let outcomes = outcomes["results"].as_array().context("outcomes")?;
        let taken = outcomes.iter().filter(|outcome| outcome["outcome"] == "taken").count();
        ensure!(taken == count, "{taken} of {count} were taken: {outcomes:?}");
        Ok(())
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn place(service: usize) -> (String, String) {
    (host_name(service / SERVICES), service_name(service % SERVICES))
}

fn result(service: usize, round: usize) -> Value {
    let code = exit_status(service, round);
    json!({ "exit_status": code, "output": said(code, service, round) })
}

fn named(service: usize, round: usize) -> Value {
    let (host, name) = place(service);
    let code = exit_status(service, round);
    json!({ "host": host, "service": name, "exit_status": code, "output": said(code, service, round) })
}

/// One kept connection.
struct Line {
    stream: TcpStream,
    token: String,
    answer: Vec<u8>,
}

impl Line {
    /// Sends a request; returns the body of the response.
    async fn post(&mut self, path: &str, body: &Value) -> anyhow::Result<&[u8]> {
        let (token, body) = (&self.token, body.to_string());
        let request = format!(
            "POST /api/v1{path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await?;
        self.answer.clear();
        loop {
            if let Some(head) = self.head()? {
                return Ok(&self.answer[head..]);
            }
            ensure!(self.answer.len() < ANSWER, "an answer without end");
            ensure!(self.stream.read_buf(&mut self.answer).await? > 0, "the gateway hung up");
        }
    }

    /// Returns the length of the head, once the response is complete.
    fn head(&self) -> anyhow::Result<Option<usize>> {
        let Some(end) = self.answer.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(None) };
        let head = std::str::from_utf8(&self.answer[..end])?.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.context("a length")?.trim().parse()?;
        if self.answer.len() < end + 4 + length {
            return Ok(None);
        }
        if !head.starts_with("http/1.1 20") {
            bail!("{}", String::from_utf8_lossy(&self.answer));
        }
        Ok(Some(end + 4))
    }
}
