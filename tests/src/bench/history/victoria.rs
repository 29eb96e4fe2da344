//! The same samples in VictoriaMetrics, which gets those of each minute in one request.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use fleetgate_engine::history::{DAY, Point, Second};
use tempfile::TempDir;

use super::super::cpu_of_process;
use super::series::{Generator, MINUTE};

const PROGRAM: &str = "victoria-metrics";
/// The time to start, and the time that its parts need to merge.
const PATIENCE: Duration = Duration::from_secs(30);
const MERGED: Duration = Duration::from_secs(5);

/// The costs of VictoriaMetrics.
pub struct Victoria {
    /// All files, and those with the samples alone.
    pub bytes: u64,
    pub samples_bytes: u64,
    pub cpu: Duration,
}

/// Writes a day of the first `series` series. `None` if VictoriaMetrics is not installed.
///
/// # Errors
/// Fails when it refuses a request, or has not stored the samples.
pub async fn measure(series: u32, from: Second) -> anyhow::Result<Option<Victoria>> {
    if Command::new(PROGRAM).arg("-version").output().is_err() {
        return Ok(None);
    }
    let server = Server::start().await?;
    let mut generators: Vec<Generator> = (0..series).map(Generator::new).collect();
    let before = cpu_of_process(server.child.id())?;
    for at in (from..from + DAY).step_by(MINUTE as usize) {
        server.send(&lines(&mut generators, at)).await?;
    }
    server.call("/internal/force_flush").await?;
    let cpu = cpu_of_process(server.child.id())? - before;
    // What the last merge takes is left out, in favour of VictoriaMetrics.
    server.call("/internal/force_merge").await?;
    tokio::time::sleep(MERGED).await;
    server.has_stored(from).await?;
    let data = server.dir.path();
    Ok(Some(Victoria { bytes: size(data), samples_bytes: size(&data.join("data")), cpu }))
}

/// Returns the samples of a minute as Prometheus writes them.
fn lines(generators: &mut [Generator], at: Second) -> String {
    let mut text = String::with_capacity(generators.len() * 64);
    for (n, generator) in generators.iter_mut().enumerate() {
        if let Some(Point { value: Some(value), .. }) = generator.sample(at) {
            text += &format!("v{{host=\"h{}\",series=\"m{n}\"}} {value} {}\n", n / 10, at * 1_000);
        }
    }
    text
}

struct Server {
    child: Child,
    address: SocketAddr,
    http: reqwest::Client,
    dir: TempDir,
}

impl Server {
    async fn start() -> anyhow::Result<Server> {
        // Another program in this process may have installed the provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let dir = tempfile::tempdir()?;
        let child = Command::new(PROGRAM)
            .arg(format!("-storageDataPath={}", dir.path().display()))
            .arg(format!("-httpListenAddr={address}"))
            .args(["-retentionPeriod=10y", "-loggerLevel=ERROR"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let server = Server { child, address, http: reqwest::Client::builder().build()?, dir };
        let begun = Instant::now();
        while server.call("/health").await.is_err() {
            ensure!(begun.elapsed() < PATIENCE, "{PROGRAM} does not start");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(server)
    }

    async fn call(&self, path: &str) -> anyhow::Result<String> {
        let answer = self.http.get(format!("http://{}{path}", self.address)).send().await?;
        Ok(answer.error_for_status()?.text().await?)
    }

    async fn send(&self, lines: &str) -> anyhow::Result<()> {
        let url = format!("http://{}/api/v1/import/prometheus", self.address);
        let answer = self.http.post(url).body(lines.to_owned()).send().await?;
        answer.error_for_status().context("VictoriaMetrics")?;
        Ok(())
    }

    async fn has_stored(&self, from: Second) -> anyhow::Result<()> {
        let range = format!("start={from}&end={}", from + DAY);
        let path = format!("/api/v1/export?match[]=v%7Bseries=%22m0%22%7D&{range}");
        let text = self.call(&path).await?;
        let mut stored = 0;
        for line in text.lines() {
            let series: serde_json::Value = serde_json::from_str(line)?;
            stored += series["values"].as_array().map_or(0, Vec::len);
        }
        ensure!(stored > 1_200, "VictoriaMetrics has only {stored} samples of a day");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the bytes of all files in a folder.
fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => size(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    });
    sizes.sum()
}
