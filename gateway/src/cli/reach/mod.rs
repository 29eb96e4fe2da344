//! `fleetgate connect`, `forward` and `ssh`: hosts are reached through the gateway's API, without a
//! tunnel on this machine.

mod forward;
mod pump;
mod ssh;

use std::str::FromStr;

use clap::Args;

use super::Connection;
use super::client::{Client, Socket, api_path};
pub(super) use forward::{ForwardArgs, forward};
pub(super) use ssh::{KnownHostArgs, SshArgs, known_host, ssh};

#[derive(Args)]
pub(crate) struct ConnectArgs {
    /// Host and TCP port, such as cam-07:22
    #[arg(value_name = "HOST:PORT")]
    to: HostPort,
}

/// A TCP port of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HostPort {
    host: String,
    port: u16,
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<HostPort, String> {
        let parsed = text.split_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        match parsed {
            Some((host, port @ 1..)) if !host.is_empty() => Ok(HostPort { host: host.to_owned(), port }),
            _ => Err("a host and a port are expected, such as cam-07:22".to_owned()),
        }
    }
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl HostPort {
    async fn open(&self, client: &Client) -> anyhow::Result<Socket> {
        let query = [("port", self.port.to_string())];
        client.websocket(&api_path!("/hosts/{}/connect", self.host), &query).await
    }
}

/// Connects stdin and stdout with the host, until the host has sent all its data.
pub(super) async fn connect(to: &Connection, args: ConnectArgs) -> anyhow::Result<()> {
    let socket = args.to.open(&Client::over_http1(to)?).await?;
    let ended = pump::run(socket, pump::stdin(), tokio::io::stdout(), pump::Until::HostEnds).await;
    ended.map_err(|error| error.context(args.to.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_a_port() {
        let cam = HostPort { host: "cam-07".to_owned(), port: 22 };
        assert_eq!("cam-07:22".parse(), Ok(cam));
        for wrong in ["cam-07", "cam-07:", ":22", "cam-07:0", "cam-07:ssh", "cam-07:22:80", "cam-07:65536"] {
            assert!(wrong.parse::<HostPort>().is_err(), "{wrong}");
        }
    }
}
