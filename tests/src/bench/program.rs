//! The whole program in this process, with a data directory of its own, and its API.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use fleetgate::config::Config;
use fleetgate::data_dir::DataDir;
use fleetgate::server::Server;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

/// How long a call is repeated that a busy gateway refuses.
const HELD_UP: Duration = Duration::from_secs(60);
const REPEATED: Duration = Duration::from_millis(500);

pub struct Program {
    pub server: Server,
    http: reqwest::Client,
    dir: TempDir,
    /// Each call has a key of its own, also after a restart on the same data.
    started: i64,
    calls: AtomicU64,
}

impl Program {
    pub async fn start() -> anyhow::Result<Program> {
        let dir = tempfile::tempdir()?;
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o700))?;
        let settings = "listen = \"127.0.0.1:0\"\napi_listen = \"127.0.0.1:0\"\nendpoint = \"127.0.0.1:9\"\n\
                        [disk]\nhistory_mb = 1\nreserve_mb = 1\n";
        std::fs::write(dir.path().join("fleetgate.toml"), settings)?;
        Program::start_in(dir).await
    }

    /// Starts the program with the data and settings in this directory.
    pub async fn start_in(dir: TempDir) -> anyhow::Result<Program> {
        // Another program in this process may have installed the provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let data = DataDir::open(dir.path())?;
        let http = reqwest::Client::builder().unix_socket(data.socket()).build()?;
        let server = Server::start(Config::load(dir.path(), None)?, data).await?;
        server.login_shown()?;
        let started = fleetgate::clock::wall().as_millis();
        Ok(Program { server, http, dir, started, calls: AtomicU64::new(0) })
    }

    /// Stops the program; its data stays.
    pub async fn stop(self) -> TempDir {
        self.server.stop().await;
        self.dir
    }

    pub fn data(&self) -> &Path {
        self.dir.path()
    }

    /// Calls the API and returns the response. A call that a busy gateway refuses is repeated with its
    /// `Idempotency-Key`, as `docs/api.md` asks of clients: a disk may be held up for seconds.
    pub async fn call(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<Value> {
        let key = format!("{}-{}", self.started, self.calls.fetch_add(1, Ordering::Relaxed));
        let key = (method == Method::POST).then_some(key.as_str());
        let begin = Instant::now();
        loop {
            let (status, text) = self.answer(method.clone(), path, body, key).await?;
            if status != StatusCode::SERVICE_UNAVAILABLE || begin.elapsed() > HELD_UP {
                return read(path, status, &text);
            }
            tokio::time::sleep(REPEATED).await;
        }
    }

    /// Calls the API once, with this `Idempotency-Key`, and returns the response.
    pub async fn call_once(
        &self,
        method: Method,
        path: &str,
        body: &Value,
        key: Option<&str>,
    ) -> anyhow::Result<Value> {
        let (status, text) = self.answer(method, path, body, key).await?;
        read(path, status, &text)
    }

    async fn answer(
        &self,
        method: Method,
        path: &str,
        body: &Value,
        key: Option<&str>,
    ) -> anyhow::Result<(StatusCode, String)> {
        let url = format!("http://localhost/api/v1{path}");
        let mut request = self.http.request(method, url);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if !body.is_null() {
            request = request.json(body);
        }
        let answer = request.send().await?;
        Ok((answer.status(), answer.text().await?))
    }

    /// Sends any body, and returns whatever the answer is.
    ///
    /// # Errors
    /// Fails when there is no answer.
    pub async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> anyhow::Result<(u16, Value)> {
        let url = format!("http://localhost/api/v1{path}");
        let request = self.http.request(method, url).header("content-type", "application/json").body(body);
        let answer = request.send().await?;
        let (status, text) = (answer.status().as_u16(), answer.text().await?);
        Ok((status, serde_json::from_str(&text).unwrap_or_default()))
    }
}

fn read(path: &str, status: StatusCode, text: &str) -> anyhow::Result<Value> {
    ensure!(status.is_success(), "{path}: {status}: {text}");
    Ok(serde_json::from_str(text).unwrap_or_default())
}
