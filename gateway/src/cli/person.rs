//! `fleetgate customer person`: the people of customers.

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::Client;
use super::customer::{path, printed};
use super::device::{present, said};
use super::host::pages;
use super::listing;
use super::table::{self, Column};
use crate::api::rentals::Person;

#[derive(Subcommand)]
pub(crate) enum PersonCommand {
    /// Add a person to a customer
    Add {
        /// Id or reference of the customer
        customer: String,
        /// Name of the person
        #[arg(long)]
        name: Option<String>,
        /// Mail address of the person
        #[arg(long, value_name = "ADDRESS")]
        email: Option<String>,
    },
    /// List the people of customers
    List {
        /// Id or reference of the customer [default: all]
        customer: Option<String>,
    },
    /// Change a person
    #[command(
        group(clap::ArgGroup::new("change").required(true).multiple(true)),
        override_usage = "fleetgate customer person set [OPTIONS] <PERSON>"
    )]
    Set {
        /// Id of the person
        person: String,
        /// New name
        #[arg(long, group = "change")]
        name: Option<String>,
        /// New mail address
        #[arg(long, value_name = "ADDRESS", group = "change")]
        email: Option<String>,
        /// Have no mail address
        #[arg(long, group = "change", conflicts_with = "email")]
        no_email: bool,
    },
    /// Remove a person with name, mail address and renters; their tunnels end
    Remove {
        /// Id of the person
        person: String,
    },
}

pub(super) async fn run(client: &Client, command: PersonCommand) -> anyhow::Result<()> {
    match command {
        PersonCommand::Add { customer, name, email } => {
            let body = present(json!({ "customer": customer, "name": name, "email": email }));
            let made: Value = client.post("/people", &body).await?;
            printed(client, &made)?;
            said(client, &format!("Person {} added", made["id"].as_str().unwrap_or_default()))
        }
        PersonCommand::List { customer } => {
            let query: Vec<_> = customer.map(|customer| ("customer", customer)).into_iter().collect();
            let people: Vec<Person> = pages(client, "/people", &query).await?;
            let none = "No people. Add one: fleetgate customer person add CUSTOMER --name NAME";
            listing::print(client, &people, (&COLUMNS, row), none)
        }
        PersonCommand::Set { person, name, email, no_email } => {
            let mut body = present(json!({ "name": name, "email": email }));
            if no_email {
                body["email"] = Value::Null;
            }
            let changed = client.patch(&path("people", &person), &body).await?;
            printed(client, &changed)?;
            said(client, &format!("{person} changed"))
        }
        PersonCommand::Remove { person } => {
            client.delete(&path("people", &person), None).await?;
            said(client, &format!("{person} removed; the tunnels of its renters have ended"))
        }
    }
}

pub(super) const COLUMNS: [Column; 4] =
    [Column::whole("ID"), Column::whole("CUSTOMER"), Column::name("NAME"), Column::text("E-MAIL")];

fn row(p: &Person) -> Vec<String> {
    let email = p.email.as_deref().unwrap_or_default();
    vec![p.id.clone(), p.customer.clone(), table::safe(&p.name), table::safe(email)]
}
