//! An open page with the behaviour of `gateway/web`: its stream, and its requests after an event of
//! the stream.

use std::time::Duration;

use anyhow::ensure;
use reqwest::Client;
use serde_json::Value;
use tokio::time::Instant;

use crate::bench::thread_cpu;

/// Minimum time between two requests after events of the stream.
const AGAIN: Duration = Duration::from_secs(1);
/// Interval of requests without an event.
const BY_ITSELF: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
pub enum View {
    Fleet,
    Host(&'static str),
}

/// The requests of a page, and its own CPU time.
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

    /// Returns the time of a request, up to the last byte of the response.
    ///
    /// # Errors
    /// Fails when there is no response, or the request is refused.
    pub async fn ask(&self, http: &Client, path: &str) -> anyhow::Result<(Duration, usize)> {
        let begun = Instant::now();
        let answer = http.get(format!("{}{path}", self.base)).bearer_auth(&self.token).send().await?;
        let (status, body) = (answer.status(), answer.bytes().await?);
        ensure!(status.is_success(), "{path}: {status}");
        Ok((begun.elapsed(), body.len()))
    }

    /// Follows the stream for this long, on this thread alone.
    ///
    /// # Errors
    /// Fails when the stream ends, or a request is refused.
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

    /// Returns whether the page makes a request after this event. It takes each row that it is
    /// sent. Every check counts as one of the displayed host, as if that host were checked
    /// constantly.
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
