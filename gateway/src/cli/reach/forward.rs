//! `fleetgate forward`: local TCP ports that lead to hosts.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::super::Connection;
use super::super::client::Client;
use super::super::table;
use super::{HostPort, pump};
use crate::cli::out;

/// Connections of one port at a time: what the gateway takes to one device. Further ones wait.
const MAX_OPEN: usize = 16;
/// Pause after an accept that failed, because the process is out of file descriptors.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(crate) struct ForwardArgs {
    /// Local port, host and port, such as 8080:cam-07:80; the port is open to this machine alone,
    /// unless an address stands before it
    #[arg(value_name = "[LISTEN:]PORT:HOST:PORT", required = true)]
    mappings: Vec<Mapping>,
}

/// A local port and what it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapping {
    listen: SocketAddr,
    to: HostPort,
}

impl FromStr for Mapping {
    type Err = String;

    fn from_str(text: &str) -> Result<Mapping, String> {
        let expected = || "write it as 8080:cam-07:80, or 0.0.0.0:8080:cam-07:80".to_owned();
        let mut parts = text.rsplitn(4, ':');
        let (Some(port), Some(host), Some(local)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(expected());
        };
        let listen = match parts.next() {
            None => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            Some(address) => address.trim_start_matches('[').trim_end_matches(']').parse().ok(),
        };
        let listen = listen.zip(local.parse().ok()).ok_or_else(expected)?;
        let to = format!("{host}:{port}").parse().map_err(|_| expected())?;
        Ok(Mapping { listen: listen.into(), to })
    }
}

/// Listens until the program is ended.
pub(in super::super) async fn forward(to: &Connection, args: ForwardArgs) -> anyhow::Result<()> {
    let client = Arc::new(Client::over_http1(to)?);
    let mut ports = JoinSet::new();
    let mut bound = Vec::new();
    for mapping in args.mappings {
        let listener = TcpListener::bind(mapping.listen).await.map_err(|error| {
            let advice = match error.kind() {
                std::io::ErrorKind::PermissionDenied => "a port below 1024 needs root",
                _ => "is the port in use?",
            };
            anyhow::Error::new(error).context(format!("cannot listen on {}: {advice}", mapping.listen))
        })?;
        bound.push((listener, mapping.to));
    }
    for (listener, to) in bound {
        out::line!("{} -> {to}", listener.local_addr()?);
        ports.spawn(serve(client.clone(), listener, to));
    }
    tokio::signal::ctrl_c().await.context("cannot wait for Ctrl-C")
}

async fn serve(client: Arc<Client>, listener: TcpListener, to: HostPort) {
    let (places, said) = (Arc::new(Semaphore::new(MAX_OPEN)), Said::default());
    let to = Arc::new(to);
    loop {
        let place = places.clone().acquire_owned().await.expect("it is never closed");
        let Ok((local, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (client, to, said) = (client.clone(), to.clone(), said.clone());
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = carry(&client, local, &to).await {
                said.once(&to, &format!("{error:#}"));
            }
        });
    }
}

async fn carry(client: &Client, mut local: TcpStream, to: &HostPort) -> anyhow::Result<()> {
    let socket = to.open(client).await?;
    let (from, into) = local.split();
    pump::run(socket, from, into, pump::Until::BothEnd).await
}

/// The failures that were printed. A browser repeats its requests, and each would fail alike.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<BTreeSet<String>>>);

/// Different failures that are remembered. Times in their texts make them differ.
const MAX_SAID: usize = 64;

impl Said {
    fn once(&self, to: &HostPort, why: &str) {
        if self.is_new(why) {
            anstream::eprintln!("fleetgate: {to}: {}", table::safe(why));
        }
    }

    fn is_new(&self, why: &str) -> bool {
        let mut said = self.0.lock().expect("no holder panics");
        if said.len() >= MAX_SAID {
            said.clear();
        }
        said.insert(why.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_open_to_this_machine_unless_an_address_says_otherwise() {
        let parsed =
            |text: &str| text.parse::<Mapping>().map(|of| (of.listen.to_string(), of.to.to_string()));
        for (text, listen) in [
            ("8080:cam-07:80", "127.0.0.1:8080"),
            ("0:cam-07:80", "127.0.0.1:0"),
            ("0.0.0.0:8080:cam-07:80", "0.0.0.0:8080"),
            ("[::1]:8080:cam-07:80", "[::1]:8080"),
            ("::1:8080:cam-07:80", "[::1]:8080"),
        ] {
            assert_eq!(parsed(text), Ok((listen.to_owned(), "cam-07:80".to_owned())), "{text}");
        }
        for wrong in ["8080", "cam-07:80", "x:cam-07:80", "8080::80", "8080:cam-07:0", "here:1:cam-07:80"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_failure_is_said_once() {
        let said = Said::default();
        assert!(said.is_new("refused") && !said.is_new("refused") && said.is_new("other"));
        assert!((0..MAX_SAID).all(|n| said.is_new(&n.to_string())));
        assert!(said.0.lock().unwrap().len() <= MAX_SAID);
    }
}
