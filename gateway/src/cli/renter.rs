//! `fleetgate renter`: the peers of the people of customers, which reach rented devices.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::Client;
use super::conf::{self, Call, Output, Peer};
use super::customer::{path, printed};
use super::device::{mtu, present, said};
use super::host::pages;
use super::listing;
use super::ssh_keys;
use super::table::{self, Column};
use crate::api::rentals::Renter;
use crate::cli::out;

#[derive(Subcommand)]
pub(crate) enum RenterCommand {
    /// Add the peer of a person of a customer and print its WireGuard configuration, which is not stored
    Add {
        /// Name of the new renter, such as laptop; unique within the customer
        name: String,
        /// Id of the person whose renter it is
        #[arg(long, value_name = "PERSON")]
        person: String,
        /// Its own WireGuard public key [default: the gateway generates a key pair]
        #[arg(long)]
        public_key: Option<String>,
        /// Largest packet inside the tunnel, from 1280 to 1420 bytes [default: as the gateway has it]
        #[arg(long, value_name = "BYTES")]
        mtu: Option<u16>,
        /// File with its SSH public keys, or - for stdin; repeat it for more
        #[arg(long, value_name = "FILE")]
        ssh_key: Vec<PathBuf>,
        #[command(flatten)]
        to: Output,
    },
    /// List renters
    List {
        /// Only those of this customer (id or reference)
        #[arg(long, value_name = "CUSTOMER")]
        customer: Option<String>,
        /// Only those of this person (id)
        #[arg(long, value_name = "PERSON")]
        person: Option<String>,
    },
    /// Show one renter
    Show {
        /// Id of the renter
        renter: String,
    },
    /// Change a renter
    #[command(
        override_usage = "fleetgate renter set [OPTIONS] <RENTER>",
        group(clap::ArgGroup::new("change").required(true).multiple(true))
    )]
    Set {
        /// Id of the renter
        renter: String,
        /// New name
        #[arg(long, group = "change")]
        name: Option<String>,
        /// Largest packet inside the tunnel, from 1280 to 1420 bytes; its configuration needs the same
        #[arg(long, value_name = "BYTES", group = "change")]
        mtu: Option<u16>,
        /// File with all its SSH public keys, or - for stdin; repeat it for more
        #[arg(long, value_name = "FILE", group = "change")]
        ssh_key: Vec<PathBuf>,
        /// Remove its SSH public keys
        #[arg(long, group = "change", conflicts_with = "ssh_key")]
        no_ssh_key: bool,
    },
    /// Give a renter new keys; the present ones stop working at once
    Credentials {
        /// Id of the renter
        renter: String,
        /// Its own new public key [default: the gateway generates a key pair]
        #[arg(long)]
        public_key: Option<String>,
        #[command(flatten)]
        to: Output,
    },
    /// Remove a renter and end its tunnel
    Remove {
        /// Id of the renter
        renter: String,
    },
}

pub(crate) async fn run(client: &Client, command: RenterCommand) -> anyhow::Result<()> {
    match command {
        RenterCommand::Add { name, person, public_key, mtu, ssh_key, to } => {
            let keys = ssh_keys::read(&ssh_key)?;
            let body = json!({
                "name": name, "person": person, "public_key": public_key, "mtu": mtu, "ssh_keys": keys,
            });
            let call = Call { path: "/renters", body: present(body), otherwise: "nothing was added" };
            conf::make(client, call, to, |made| peer(name, made)).await
        }
        RenterCommand::List { customer, person } => list(client, customer, person).await,
        RenterCommand::Show { renter } => show(client, &renter).await,
        RenterCommand::Set { renter, name, mtu, ssh_key, no_ssh_key } => {
            let keys = ssh_keys::read(&ssh_key)?.or(no_ssh_key.then(Vec::new));
            let body = present(json!({ "name": name, "mtu": mtu, "ssh_keys": keys }));
            let changed = client.patch(&path("renters", &renter), &body).await?;
            printed(client, &changed)?;
            said(client, &format!("{renter} changed"))
        }
        RenterCommand::Credentials { renter, public_key, to } => {
            // The answer to the call has no name, and the file of a configuration has one.
            let of = path("renters", &renter);
            let Renter { name, .. } = client.get(&of, &[]).await?;
            let (of, body) = (format!("{of}/credentials"), present(json!({ "public_key": public_key })));
            let call = Call { path: &of, body, otherwise: "nothing was changed" };
            conf::make(client, call, to, |made| peer(name, made)).await
        }
        RenterCommand::Remove { renter } => {
            client.delete(&path("renters", &renter), None).await?;
            said(client, &format!("{renter} removed; its tunnel has ended"))
        }
    }
}

fn peer(name: String, made: &Value) -> Peer {
    let id = made["renter"]["id"].as_str().unwrap_or_default();
    Peer { name, again: format!("fleetgate renter credentials {id}") }
}

pub(super) const COLUMNS: [Column; 6] = [
    Column::whole("ID"),
    Column::name("NAME"),
    Column::whole("PERSON").optional(),
    Column::whole("ADDRESS"),
    Column::whole("LAST HANDSHAKE"),
    Column::whole("STATE"),
];

async fn list(client: &Client, customer: Option<String>, person: Option<String>) -> anyhow::Result<()> {
    let filters = [("customer", customer), ("person", person)];
    let query: Vec<_> = filters.into_iter().filter_map(|(key, of)| Some((key, of?))).collect();
    let renters: Vec<Renter> = pages(client, "/renters", &query).await?;
    let none = "No renters. Add one: fleetgate renter add NAME --person PERSON";
    listing::print(client, &renters, (&COLUMNS, row), none)
}

fn row(r: &Renter) -> Vec<String> {
    let state = if r.established { "connected" } else { "" };
    vec![
        r.id.clone(),
        table::safe(&r.name),
        r.person.clone(),
        r.addresses.first().cloned().unwrap_or_default(),
        table::ago(r.last_handshake.as_deref(), table::now()),
        state.to_owned(),
    ]
}

async fn show(client: &Client, renter: &str) -> anyhow::Result<()> {
    let r: Renter = client.get(&path("renters", renter), &[]).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&r)?);
        return Ok(());
    }
    let line = |key: &str, value: &str| out::line!("  {key:<12}{}", table::safe(value));
    out::line!("{}  {}", table::safe(&r.name), r.id);
    line("person", &r.person);
    line("customer", &r.customer);
    line("public key", &format!("{} (since {})", r.public_key, r.keyed_at));
    line("addresses", &r.addresses.join(" "));
    line("allowed IPs", &r.allowed_ips.join(" "));
    line("MTU", &mtu(r.mtu));
    r.ssh_keys.iter().for_each(|key| line("SSH key", key));
    line("handshake", &table::ago(r.last_handshake.as_deref(), table::now()));
    let dropped = table::counts(&r.drops);
    if !dropped.is_empty() {
        line("dropped", &dropped);
    }
    line("added", &r.created_at);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::customer::{self, CustomerCommand};

    #[derive(clap::Parser)]
    enum Line {
        #[command(subcommand)]
        Customer(CustomerCommand),
        #[command(subcommand)]
        Renter(RenterCommand),
    }

    async fn try_run(client: &Client, words: &[&str]) -> anyhow::Result<()> {
        let line = <Line as clap::Parser>::try_parse_from([&["fleetgate"][..], words].concat());
        match line.map_err(|e| anyhow::anyhow!("{e}"))? {
            Line::Customer(command) => customer::run(client, command).await,
            Line::Renter(command) => run(client, command).await,
        }
    }

    async fn ids(client: &Client, list: &str) -> Vec<String> {
        let items: Vec<Value> = pages(client, list, &[]).await.unwrap();
        items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
    }

    #[tokio::test]
    async fn people_and_their_renters_are_added_changed_and_removed() {
        let (client, _api) = crate::cli::tests::connected().await;
        try_run(&client, &["customer", "add", "--ref", "crm-17"]).await.unwrap();
        let add = ["customer", "person", "add", "crm-17", "--name", "Ada", "--email", "ada@example.org"];
        try_run(&client, &add).await.unwrap();
        try_run(&client, &["customer", "person", "list", "crm-17"]).await.unwrap();
        let person = ids(&client, "/people").await.remove(0);
        try_run(&client, &["customer", "person", "set", &person, "--name", "Ada King", "--no-email"])
            .await
            .unwrap();
        let shown: Value = client.get(&format!("/people/{person}"), &[]).await.unwrap();
        assert_eq!((&shown["name"], &shown["email"]), (&json!("Ada King"), &Value::Null));
        assert!(
            try_run(&client, &["customer", "person", "set", &person]).await.is_err(),
            "nothing to change"
        );

        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("laptop.conf");
        let out = file.to_str().unwrap();
        let add = ["renter", "add", "laptop", "--person", &person, "--out", out];
        try_run(&client, &add).await.unwrap();
        let conf = std::fs::read_to_string(&file).unwrap();
        assert!(conf.contains("AllowedIPs = 10.") && !conf.contains("10.112.0.0/14"), "{conf}");
        let again = try_run(&client, &add).await.unwrap_err();
        assert!(again.to_string().contains("the file exists already"), "{again}");
        let renter = ids(&client, "/renters").await.remove(0);
        try_run(&client, &["renter", "list", "--customer", "crm-17", "--person", &person]).await.unwrap();
        try_run(&client, &["renter", "show", &renter]).await.unwrap();
        try_run(&client, &["renter", "set", &renter, "--name", "notebook", "--mtu", "1400"]).await.unwrap();
        let shown: Value = client.get(&format!("/renters/{renter}"), &[]).await.unwrap();
        assert_eq!((&shown["name"], &shown["mtu"]), (&json!("notebook"), &json!(1_400)));
        let line = fleetgate_keys::SshKey::generate("ada").public().to_string();
        let key = dir.path().join("id.pub");
        std::fs::write(&key, format!("{line}\n")).unwrap();
        let key = key.to_str().unwrap();
        try_run(&client, &["renter", "set", &renter, "--ssh-key", key]).await.unwrap();
        let shown: Value = client.get(&format!("/renters/{renter}"), &[]).await.unwrap();
        assert_eq!(shown["ssh_keys"], json!([line.trim_end_matches(" ada")]));
        try_run(&client, &["renter", "show", &renter]).await.unwrap();
        try_run(&client, &["renter", "set", &renter, "--no-ssh-key"]).await.unwrap();
        let shown: Value = client.get(&format!("/renters/{renter}"), &[]).await.unwrap();
        assert_eq!(shown["ssh_keys"], json!([]));
        let both = ["renter", "set", &renter, "--no-ssh-key", "--ssh-key", key];
        assert!(try_run(&client, &both).await.is_err());
        try_run(&client, &["renter", "credentials", &renter, "--qr"]).await.unwrap();
        let keyed: Value = client.get(&format!("/renters/{renter}"), &[]).await.unwrap();
        assert_ne!(keyed["public_key"], shown["public_key"]);
        try_run(&client, &["renter", "remove", &renter]).await.unwrap();
        assert!(ids(&client, "/renters").await.is_empty());
        try_run(&client, &["customer", "person", "remove", &person]).await.unwrap();
        assert!(ids(&client, "/people").await.is_empty());
    }
}
