//! `fleetgate demo` as a process of its own, in a fresh folder.

use std::fs::File;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use reqwest::Method;
use serde_json::Value;
use tempfile::TempDir;

/// The names of its data and of its output in the folder.
const DATA: &str = "demo";
const OUTPUT: &str = "out";
/// It prints a link with this once all devices are enrolled.
const LINK: &str = "/login#";
/// How long that may take, and the interval between two looks.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

/// The process. Dropping it ends the process.
pub(super) struct Demo {
    child: Child,
    http: reqwest::Client,
    dir: TempDir,
}

impl Drop for Demo {
    fn drop(&mut self) {
        // The number of one that has ended may be that of another process.
        if let Ok(None) = self.child.try_wait() {
            let _ = Command::new("kill").arg(self.child.id().to_string()).status();
            let _ = self.child.wait();
        }
    }
}

impl Demo {
    /// Starts the program that was built next to this one. Returns when all devices are enrolled.
    ///
    /// # Errors
    /// Fails when there is no such program, or when it ends or does not begin.
    pub async fn start() -> anyhow::Result<Demo> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let program = std::env::current_exe()?.with_file_name("fleetgate");
        let dir = tempfile::tempdir()?;
        let data = dir.path().join(DATA);
        let http = reqwest::Client::builder().unix_socket(data.join("fleetgate.sock")).build()?;
        let mut command = Command::new(&program);
        command.arg("--data").arg(&data).arg("demo").stdout(File::create(dir.path().join(OUTPUT))?);
        let child = command
            .spawn()
            .with_context(|| format!("{}: build it with `cargo build --release`", program.display()))?;
        let mut demo = Demo { child, http, dir };
        demo.has_begun().await?;
        Ok(demo)
    }

    async fn has_begun(&mut self) -> anyhow::Result<()> {
        let (begun, output) = (Instant::now(), self.dir.path().join(OUTPUT));
        while !std::fs::read_to_string(&output)?.contains(LINK) {
            if let Some(status) = self.child.try_wait()? {
                bail!("the demo has ended: {status}");
            }
            ensure!(begun.elapsed() < PATIENCE, "the demo does not start in {}", self.dir.path().display());
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// The number of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Calls the API and returns the response.
    ///
    /// # Errors
    /// Fails when the demo has ended or refuses the call.
    pub async fn call(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<Value> {
        let request = self.http.request(method, format!("http://localhost/api/v1/{path}"));
        let answer = if body.is_null() { request } else { request.json(body) }.send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "{path}: {status}: {text}");
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }
}
