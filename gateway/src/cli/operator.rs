//! `fleetgate operator`: the peers of people, which reach devices by grants.

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Client, api_path};
use super::conf::{self, Call, Output, Peer};
use super::device::{mtu, present, said};
use super::host::pages;
use super::listing;
use super::table::{self, Column};
use crate::api::operators::Operator;
use crate::cli::out;

#[derive(Subcommand)]
pub(crate) enum OperatorCommand {
    /// Add the peer of a person and print its WireGuard configuration, which is not stored
    Add {
        /// Name of the new operator, such as anna-laptop
        name: String,
        /// User that it belongs to
        #[arg(long, value_name = "USER")]
        user: String,
        /// Its own WireGuard public key [default: the gateway generates a key pair]
        #[arg(long)]
        public_key: Option<String>,
        /// Largest packet inside the tunnel, from 1280 to 1420 bytes [default: as the gateway has it]
        #[arg(long, value_name = "BYTES")]
        mtu: Option<u16>,
        #[command(flatten)]
        to: Output,
    },
    /// List operators
    List {
        /// Only those of this user
        #[arg(long, value_name = "USER")]
        user: Option<String>,
    },
    /// Show one operator
    Show {
        /// Name or id of the operator
        operator: String,
    },
    /// Change an operator
    #[command(group(clap::ArgGroup::new("change").required(true).multiple(true)))]
    Set {
        /// Name or id of the operator
        operator: String,
        /// New name
        #[arg(long, group = "change")]
        name: Option<String>,
        /// Largest packet inside the tunnel, from 1280 to 1420 bytes; its configuration needs the same
        #[arg(long, value_name = "BYTES", group = "change")]
        mtu: Option<u16>,
    },
    /// Remove an operator and end its tunnel; grants for it alone are withdrawn
    Remove {
        /// Name or id of the operator
        operator: String,
    },
    /// Give an operator new keys; the present ones stop working at once
    Reissue {
        /// Name or id of the operator
        operator: String,
        /// Its own new public key [default: the gateway generates a key pair]
        #[arg(long)]
        public_key: Option<String>,
        #[command(flatten)]
        to: Output,
    },
}

pub(crate) async fn run(client: &Client, command: OperatorCommand) -> anyhow::Result<()> {
    match command {
        OperatorCommand::Add { name, user, public_key, mtu, to } => {
            let body = present(json!({ "name": name, "user": user, "public_key": public_key, "mtu": mtu }));
            conf::make(client, Call { path: "/operators", body, otherwise: "nothing was added" }, to, peer)
                .await
        }
        OperatorCommand::List { user } => list(client, user).await,
        OperatorCommand::Show { operator } => show(client, &operator).await,
        OperatorCommand::Set { operator, name, mtu } => {
            let body = present(json!({ "name": name, "mtu": mtu }));
            client.patch(&api_path!("/operators/{}", operator), &body).await?;
            said(client, &format!("{operator} changed"))
        }
        OperatorCommand::Remove { operator } => {
            client.call(Method::DELETE, &api_path!("/operators/{}", operator), None).await?;
            said(client, &format!("{operator} removed; its tunnel has ended"))
        }
        OperatorCommand::Reissue { operator, public_key, to } => {
            let body = present(json!({ "public_key": public_key }));
            let path = api_path!("/operators/{}/credentials", operator);
            conf::make(client, Call { path: &path, body, otherwise: "nothing was changed" }, to, peer).await
        }
    }
}

fn peer(made: &Value) -> Peer {
    let name = made["operator"]["name"].as_str().unwrap_or_default();
    Peer { name: name.to_owned(), again: format!("fleetgate operator reissue {name}") }
}

pub(super) const COLUMNS: [Column; 6] = [
    Column::whole("ID"),
    Column::name("NAME"),
    Column::name("USER"),
    Column::whole("ADDRESS"),
    Column::whole("LAST HANDSHAKE"),
    Column::whole("STATE"),
];

async fn list(client: &Client, user: Option<String>) -> anyhow::Result<()> {
    let query: Vec<_> = user.map(|user| ("user", user)).into_iter().collect();
    let operators: Vec<Operator> = pages(client, "/operators", &query).await?;
    let none = "No operators. Add one: fleetgate operator add NAME --user USER";
    listing::print(client, &operators, (&COLUMNS, row), none)
}

fn row(o: &Operator) -> Vec<String> {
    vec![
        o.id.clone(),
        table::safe(&o.name),
        table::safe(&o.user),
        o.addresses.first().cloned().unwrap_or_default(),
        table::ago(o.last_handshake.as_deref(), table::now()),
        state(o).to_owned(),
    ]
}

fn state(o: &Operator) -> &'static str {
    match (o.enabled, o.established) {
        (false, _) => "disabled",
        (true, true) => "connected",
        (true, false) => "",
    }
}

async fn show(client: &Client, name: &str) -> anyhow::Result<()> {
    let o: Operator = client.get(&api_path!("/operators/{}", name), &[]).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&o)?);
        return Ok(());
    }
    let line = |key: &str, value: &str| out::line!("  {key:<12}{}", table::safe(value));
    out::line!("{}  {}", table::safe(&o.name), o.id);
    line(
        "user",
        &format!("{}{}", o.user, if o.enabled { "" } else { " (disabled or a viewer: cannot connect)" }),
    );
    line("public key", &format!("{} (since {})", o.public_key, o.keyed_at));
    line("addresses", &o.addresses.join(" "));
    line("MTU", &mtu(o.mtu));
    line("endpoint", o.endpoint.as_deref().unwrap_or("never seen"));
    line("handshake", &table::ago(o.last_handshake.as_deref(), table::now()));
    let dropped = table::counts(&o.drops);
    if !dropped.is_empty() {
        line("dropped", &dropped);
    }
    line("added", &o.created_at);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::access::Role;

    #[derive(clap::Parser)]
    struct Line {
        #[command(subcommand)]
        command: OperatorCommand,
    }

    fn parsed(line: &str) -> OperatorCommand {
        let line = <Line as clap::Parser>::try_parse_from(line.split(' '));
        line.map_err(|e| e.to_string()).expect("a command").command
    }

    #[tokio::test]
    async fn an_operator_is_added_renamed_rekeyed_and_removed() {
        let (client, api) = crate::cli::tests::connected_as(Role::Admin).await;
        let user = json!({ "name": "anna", "role": "operator", "password": "correct horse battery" });
        let _: Value = client.post("/users", &user).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("anna-laptop.conf");
        let add = format!("operator add anna-laptop --user anna --out {}", file.display());
        run(&client, parsed(&add)).await.unwrap();
        let conf = std::fs::read_to_string(&file).unwrap();
        assert!(conf.contains("AllowedIPs = 10.112.0.0/14") && !conf.contains("DNS"), "{conf}");
        let again = run(&client, parsed(&add)).await.unwrap_err();
        assert!(again.to_string().contains("the file exists already"), "{again}");
        run(&client, parsed("operator set anna-laptop --name anna-notebook")).await.unwrap();
        run(&client, parsed("operator set anna-notebook --mtu 1400")).await.unwrap();
        run(&client, parsed("operator list --user anna")).await.unwrap();
        run(&client, parsed("operator show anna-notebook")).await.unwrap();
        run(&client, parsed("operator reissue anna-notebook --qr")).await.unwrap();
        run(&client, parsed("operator remove anna-notebook")).await.unwrap();
        assert!(api.admin().get("/api/v1/operators").await.json["items"].as_array().unwrap().is_empty());
    }
}
