//! `fleetgate gateway`: the gateway's identity towards devices.

use clap::Subcommand;
use fleetgate_keys::Endpoint;
use reqwest::Method;
use serde_json::json;

use super::client::Client;
use super::device::said;
use super::table;
use crate::api::gateway::{Gateway, UnknownKey};
use crate::cli::out;

#[derive(Subcommand)]
pub(crate) enum GatewayCommand {
    /// Show keys, endpoint and address pools
    Show,
    /// Set the address at which devices reach the gateway's UDP port
    Endpoint {
        /// host:port, preferably with a host name
        endpoint: String,
    },
    /// Accept the gateway's clock although it is behind a time that it has shown before, or cannot be compared with it
    AcceptClock,
}

pub(crate) async fn run(client: &Client, command: GatewayCommand) -> anyhow::Result<()> {
    match command {
        GatewayCommand::Show => show(client).await,
        GatewayCommand::AcceptClock => {
            client.call(Method::POST, "/gateway/accept-clock", None).await?;
            said(client, "Clock accepted: grants with a window pass again, by this clock")
        }
        GatewayCommand::Endpoint { endpoint } => {
            let body = json!({ "endpoint": endpoint });
            client.call(Method::PUT, "/gateway/endpoint", Some(&body)).await?;
            if endpoint.parse::<Endpoint>().is_ok_and(|e| e.is_loopback()) {
                anstream::eprintln!(
                    "warning: {endpoint} is a loopback address: other machines cannot reach it"
                );
            }
            said(client, &format!("Endpoint set: new configurations contain {endpoint}"))
        }
    }
}

async fn show(client: &Client) -> anyhow::Result<()> {
    let g: Gateway = client.get("/gateway", &[]).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&g)?);
        return Ok(());
    }
    let line = |key: &str, value: &str| out::line!("{key:<12}{value}");
    line("version", &g.version);
    line("public key", &g.public_key);
    line("endpoint", g.endpoint.as_deref().unwrap_or("not set: fleetgate gateway endpoint HOST:PORT"));
    line("UDP port", &g.udp_port.to_string());
    line("pools", &format!("{} {}", g.pool_v4, g.pool_v6));
    line("MTU", &g.mtu.to_string());
    line("addresses", &g.addresses.join(" "));
    line("SSH key", &g.ssh_public_key);
    line("renters' CA", &g.rental_ssh_ca);
    for (i, unknown) in g.unknown_keys.iter().enumerate() {
        let key = if i == 0 { "unknown keys" } else { "" };
        out::line!("{key:<12} {}", unknown_key(unknown));
    }
    if let Some(problem) = &g.clock_problem {
        line("clock", problem);
    }
    if let Some(restore) = &g.restore {
        let waits = format!(
            "the backup of {} takes effect at the next start; until then nothing can be changed",
            restore.made_at
        );
        line("restore", &waits);
    }
    Ok(())
}

/// Describes the key of a refused handshake, which belongs to no device.
fn unknown_key(unknown: &UnknownKey) -> String {
    let UnknownKey { public_key, from, last_at, reports } = unknown;
    let minutes = if *reports == 1 { "minute" } else { "minutes" };
    format!("{public_key} from {from}, last {}, in {reports} {minutes}", table::clock_time(last_at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_has_its_sender_and_its_last_time() {
        let unknown = UnknownKey {
            public_key: "KEY=".into(),
            from: "192.0.2.9:1024".into(),
            last_at: "2026-01-02T12:05:00Z".into(),
            reports: 3,
        };
        let expected = "KEY= from 192.0.2.9:1024, last 2026-01-02 12:05:00Z, in 3 minutes";
        assert_eq!(unknown_key(&unknown), expected);
    }
}
