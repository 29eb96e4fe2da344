//! The control socket of the demo, for another terminal: one line in each direction over a Unix socket
//! in the data directory, which only its owner can open.

use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::task::AbortOnDropHandle;

use super::fleet::{DemoFleet, FleetError};

/// The socket's name in the data directory.
pub const SOCKET: &str = "demo.sock";
/// The longest order is a name, a sensor and a number.
const MAX_LINE: u64 = 256;
/// All names of a fleet, and some room.
const MAX_REPLY: u64 = 16 * 1024;
/// Time limit of one order; devices obey at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// An order to the fleet. [`FromStr`] parses the format of `Display`.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    Off(String),
    On(String),
    Sensor { device: String, sensor: String, value: f64 },
    List,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown command: use `off DEVICE`, `on DEVICE`, `sensor DEVICE SENSOR VALUE` or `list`")]
pub struct BadOrder;

impl FromStr for Order {
    type Err = BadOrder;

    fn from_str(line: &str) -> Result<Self, BadOrder> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["off", device] => Ok(Order::Off((*device).to_owned())),
            ["on", device] => Ok(Order::On((*device).to_owned())),
            ["list"] => Ok(Order::List),
            ["sensor", device, sensor, value] => {
                let value: f64 = value.parse().map_err(|_| BadOrder)?;
                let (device, sensor) = ((*device).to_owned(), (*sensor).to_owned());
                value.is_finite().then_some(Order::Sensor { device, sensor, value }).ok_or(BadOrder)
            }
            _ => Err(BadOrder),
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Order::Off(device) => write!(f, "off {device}"),
            Order::On(device) => write!(f, "on {device}"),
            Order::Sensor { device, sensor, value } => write!(f, "sensor {device} {sensor} {value}"),
            Order::List => f.write_str("list"),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("no demo is running: start one with `fleetgate demo` and the same --data ({0})")]
    NoDemo(io::Error),
    #[error("no answer from the demo: {0}")]
    Broken(#[from] io::Error),
    #[error("{0}")]
    Refused(String),
}

/// Serves the socket until it is dropped.
pub struct Control {
    path: PathBuf,
    _task: AbortOnDropHandle<()>,
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Control {
    /// Opens the socket in `data`, and replaces one that an earlier demo left behind.
    ///
    /// # Errors
    /// Fails when the socket cannot be created.
    pub fn serve(data: &Path, fleet: Arc<DemoFleet>) -> io::Result<Self> {
        let path = data.join(SOCKET);
        // The socket has another name until its mode is set. The rename replaces a stale one.
        let fresh = data.join(format!("{SOCKET}.new"));
        let _ = std::fs::remove_file(&fresh);
        let listener = UnixListener::bind(&fresh)?;
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&fresh, &path)?;
        let task = AbortOnDropHandle::new(tokio::spawn(answer_all(listener, fleet)));
        Ok(Control { path, _task: task })
    }
}

/// Handles one connection after the other: a single operator uses the terminal.
async fn answer_all(listener: UnixListener, fleet: Arc<DemoFleet>) {
    while let Ok((stream, _)) = listener.accept().await {
        let answered = tokio::time::timeout(PATIENCE, answer(stream, &fleet)).await;
        if let Ok(Err(error)) = answered {
            tracing::debug!(%error, "the connection of a demo command broke off");
        }
    }
}

async fn answer(stream: UnixStream, fleet: &DemoFleet) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    (&mut stream).take(MAX_LINE).read_line(&mut line).await?;
    let reply = match line.parse::<Order>() {
        Ok(order) => obey(fleet, order).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let text = match reply {
        Ok(text) => format!("ok {text}\n"),
        Err(text) => format!("error {text}\n"),
    };
    stream.write_all(text.as_bytes()).await
}

async fn obey(fleet: &DemoFleet, order: Order) -> Result<String, FleetError> {
    match order {
        Order::Off(device) => fleet.off(&device).await.map(|()| format!("{device} is off")),
        Order::On(device) => fleet.on(&device).await.map(|()| format!("{device} is on")),
        Order::Sensor { device, sensor, value } => {
            fleet.sensor(&device, &sensor, value).map(|()| format!("{sensor} of {device} is {value}"))
        }
        Order::List => Ok(fleet.names().collect::<Vec<_>>().join(" ")),
    }
}

/// Sends one order to the demo that runs on `data`, and returns its reply.
///
/// # Errors
/// Fails when no demo runs there, or when it refuses the order.
pub async fn send(data: &Path, order: &Order) -> Result<String, ControlError> {
    let mut stream = UnixStream::connect(data.join(SOCKET)).await.map_err(ControlError::NoDemo)?;
    stream.write_all(format!("{order}\n").as_bytes()).await?;
    let mut reply = String::new();
    stream.take(MAX_REPLY).read_to_string(&mut reply).await?;
    match reply.trim_end().split_once(' ') {
        Some(("ok", text)) => Ok(text.to_owned()),
        Some((_, text)) => Err(ControlError::Refused(text.to_owned())),
        None => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_survives_its_text_and_nothing_else_is_one() {
        for text in ["off cam-07", "on cam-07", "sensor cam-07 temperature 81.5", "list"] {
            assert_eq!(text.parse::<Order>().expect(text).to_string(), text);
        }
        for text in ["", "off", "off a b", "sensor cam-07 disk", "sensor cam-07 disk nan", "reboot"] {
            assert_eq!(text.parse::<Order>(), Err(BadOrder), "{text}");
        }
    }

    #[tokio::test]
    async fn without_a_demo_the_sender_is_told_so() {
        let dir = tempfile::tempdir().expect("a folder");
        let error = send(dir.path(), &Order::List).await.expect_err("nobody listens");
        assert!(error.to_string().contains("no demo is running"), "{error}");
    }
}
