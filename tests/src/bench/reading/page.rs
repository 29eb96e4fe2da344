//! An open page, as `gateway/web` has it: its stream, and what it asks when the stream tells of something.

use std::time::Duration;

use anyhow::ensure;
use reqwest::Client;
use serde_json::Value;
use tokio::time::Instant;

use crate::bench::thread_cpu;

/// What moves a page is asked for again so seldom.
const AGAIN: Duration = Duration::from_secs(1);
/// Without anything that moves it.
const BY_ITSELF: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
pub enum View {
    Fleet,
    Host(&'static str),
}

/// What a page did, and what it took of its own CPU.
pub struct Watched {
    pub asked: usize,
    pub bytes: usize,
    pub cpu: Duration,
}

#[derive(Clone)]
pub struct Page {
    base: String,
    token: String,
}

impl Page {
    pub fn new(base: String, token: String) -> Page {
        Page { base, token }
    }

    pub fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::builder().no_proxy().build()?)
    }

    /// How long the answer took, to its last byte.
    ///
    /// # Errors
    /// When it is none, or refuses.
    pub async fn ask(&self, http: &Client, path: &str) -> anyhow::Result<(Duration, usize)> {
        let begun = Instant::now();
        let answer = http.get(format!("{}{path}", self.base)).bearer_auth(&self.token).send().await?;
        let (status, body) = (answer.status(), answer.bytes().await?);
        ensure!(status.is_success(), "{path}: {status}");
        Ok((begun.elapsed(), body.len()))
    }

    /// Follows the stream for so long, on this thread alone.
    ///
    /// # Errors
    /// When the stream ends, or a request is refused.
    pub fn watch(&self, view: View, time: Duration) -> anyhow::Result<Watched> {
        let cpu = thread_cpu();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let watched = runtime.block_on(self.follow(view, time))?;
        Ok(Watched { cpu: thread_cpu() - cpu, ..watched })
    }

    async fn follow(&self, view: View, time: Duration) -> anyhow::Result<Watched> {
        let http = self.client()?;
        let end = Instant::now() + time;
        let (mut watched, mut next) = (Watched { asked: 0, bytes: 0, cpu: Duration::ZERO }, None);
        let mut stream = http.get(format!("{}/stream", self.base)).bearer_auth(&self.token).send().await?;
        let mut read = String::new();
        let mut last: Option<Instant> = None;
        loop {
            let again = last.map_or(end, |at| at + BY_ITSELF);
            let due = next.unwrap_or(again).min(end);
            tokio::select! {
                () = tokio::time::sleep_until(due) => {
                    if due >= end {
                        return Ok(watched);
                    }
                    (next, last) = (None, Some(Instant::now()));
                    for path in view.asks() {
                        watched.bytes += self.ask(&http, &path).await?.1;
                        watched.asked += 1;
                    }
                }
                chunk = stream.chunk() => {
                    let Some(chunk) = chunk? else { anyhow::bail!("the stream has ended") };
                    watched.bytes += chunk.len();
                    read.push_str(std::str::from_utf8(&chunk)?);
                    while let Some((frame, rest)) = read.split_once("\n\n") {
                        if next.is_none() && view.is_moved_by(frame) {
                            next = Some(last.map_or_else(Instant::now, |at| at + AGAIN));
                        }
                        read = rest.to_owned();
                    }
                }
            }
        }
    }
}

impl View {
    fn asks(self) -> Vec<String> {
        match self {
            View::Fleet => vec!["/problems?limit=500".to_owned()],
            View::Host(name) => vec![
                "/problems?limit=500".to_owned(),
                format!("/hosts/{name}"),
                format!("/hosts/{name}/services"),
            ],
        }
    }

    /// Whether the page asks again for that. It takes each row that it is sent; a check is taken for one of the host on
    /// show, as if that had one all the time.
    fn is_moved_by(self, frame: &str) -> bool {
        let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        match field("event: ") {
            "overview" | "snapshot" => true,
            "host" => serde_json::from_str::<Value>(field("data: ")).is_ok(),
            "checked" => matches!(self, View::Host(_)),
            _ => false,
        }
    }
}
