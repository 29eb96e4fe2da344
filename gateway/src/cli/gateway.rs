//! `fleetgate gateway`: the gateway's identity towards devices.

use clap::Subcommand;
use fleetgate_keys::Endpoint;
use reqwest::Method;
use serde_json::json;

use super::client::Client;
use super::device::said;
use crate::api::gateway::Gateway;
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
}

pub(crate) async fn run(client: &Client, command: GatewayCommand) -> anyhow::Result<()> {
    match command {
        GatewayCommand::Show => show(client).await,
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
    line("addresses", &g.addresses.join(" "));
    line("SSH key", &g.ssh_public_key);
    if let Some(restore) = &g.restore {
        let waits = format!(
            "the backup of {} takes effect at the next start; until then nothing can be changed",
            restore.made_at
        );
        line("restore", &waits);
    }
    Ok(())
}
