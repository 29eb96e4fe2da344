//! `fleetgate customer`: who rents devices.

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::{Client, part};
use super::device::{present, said};
use super::host::pages;
use super::listing;
use super::person::{self, PersonCommand};
use super::table::{self, Column};
use crate::api::rentals::mine::PersonLoginLink;
use crate::api::rentals::{Customer, CustomerContact};
use crate::cli::out;

#[derive(Subcommand)]
pub(crate) enum CustomerCommand {
    /// Add a customer
    Add {
        /// Your own name for the customer, such as a number; unique
        #[arg(long = "ref", value_name = "REF")]
        external_ref: Option<String>,
        /// Name of the customer
        #[arg(long)]
        name: Option<String>,
        /// Contact, as "Ada <ada@example.org>" or "Ada <+43 1 2345>"
        #[arg(long, value_name = "CONTACT", value_parser = contact)]
        contact: Vec<CustomerContact>,
    },
    /// List customers
    List,
    /// Show one customer
    Show {
        /// Id or reference of the customer
        customer: String,
    },
    /// Change a customer
    #[command(
        group(clap::ArgGroup::new("change").required(true).multiple(true)),
        override_usage = "fleetgate customer set [OPTIONS] <CUSTOMER>"
    )]
    Set {
        /// Id or reference of the customer
        customer: String,
        /// New reference; unique
        #[arg(long = "ref", value_name = "REF", group = "change")]
        external_ref: Option<String>,
        /// Have no reference
        #[arg(long, group = "change", conflicts_with = "external_ref")]
        no_ref: bool,
        /// New name
        #[arg(long, group = "change")]
        name: Option<String>,
        /// Contact that replaces the present ones
        #[arg(long, value_name = "CONTACT", value_parser = contact, group = "change")]
        contact: Vec<CustomerContact>,
        /// Have no contacts
        #[arg(long, group = "change", conflicts_with = "contact")]
        no_contacts: bool,
    },
    /// Delete the personal data of a customer; rentals stay without it
    Erase {
        /// Id or reference of the customer
        customer: String,
    },
    /// Create a link with which a person logs in once, within 15 minutes
    LoginLink {
        /// Id or reference of the customer
        customer: String,
        /// Id of the person
        #[arg(long)]
        person: String,
    },
    /// Manage the people of customers
    #[command(subcommand)]
    Person(PersonCommand),
}

/// Parses `Ada <ada@example.org>`, or what is between the brackets alone.
fn contact(text: &str) -> Result<CustomerContact, String> {
    let (name, at) = match text.split_once('<') {
        Some((name, rest)) => {
            let at = rest.strip_suffix('>').ok_or_else(|| format!("{text:?}: > is missing at the end"))?;
            (Some(name.trim().to_owned()).filter(|name| !name.is_empty()), at.trim())
        }
        None => (None, text.trim()),
    };
    let (email, phone) = match at.contains('@') {
        true => (Some(at.to_owned()), None),
        false => (None, Some(at.to_owned())),
    };
    Ok(CustomerContact { name, email, phone })
}

/// Returns the path of a customer, booking, person or renter. A reference may have any printable characters.
pub(super) fn path(list: &str, named: &str) -> String {
    format!("/{list}/{}", part(named))
}

pub(crate) async fn run(client: &Client, command: CustomerCommand) -> anyhow::Result<()> {
    match command {
        CustomerCommand::Add { external_ref, name, contact } => {
            let body = json!({ "external_ref": external_ref, "name": name, "contacts": contact });
            let made: Value = client.post("/customers", &present(body)).await?;
            printed(client, &made)?;
            said(client, &format!("Customer {} added", made["id"].as_str().unwrap_or_default()))
        }
        CustomerCommand::List => list(client).await,
        CustomerCommand::Show { customer } => show(client, &customer).await,
        CustomerCommand::Set { customer, external_ref, no_ref, name, contact, no_contacts } => {
            let contacts = (no_contacts || !contact.is_empty()).then_some(contact);
            let body = json!({ "external_ref": external_ref, "name": name, "contacts": contacts });
            let mut body = present(body);
            if no_ref {
                body["external_ref"] = Value::Null;
            }
            let changed = client.patch(&path("customers", &customer), &body).await?;
            printed(client, &changed)?;
            said(client, &format!("{customer} changed"))
        }
        CustomerCommand::Erase { customer } => {
            client.delete(&path("customers", &customer), None).await?;
            said(client, &format!("{customer} erased; rentals stay without personal data"))
        }
        CustomerCommand::LoginLink { customer, person } => login_link(client, &customer, &person).await,
        CustomerCommand::Person(command) => person::run(client, command).await,
    }
}

async fn login_link(client: &Client, customer: &str, person: &str) -> anyhow::Result<()> {
    let path = format!("{}/login-link", path("customers", customer));
    let link: PersonLoginLink = client.post(&path, &json!({ "person": person })).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&link)?);
        return Ok(());
    }
    let until = table::minute(&link.expires_at);
    out::line!("{}", link.url.unwrap_or_default());
    said(client, &format!("The link works once, until {until}"))
}

/// Prints an answer for a program.
pub(super) fn printed(client: &Client, answer: &Value) -> anyhow::Result<()> {
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(answer)?);
    }
    Ok(())
}

pub(super) const COLUMNS: [Column; 4] =
    [Column::whole("ID"), Column::name("REF"), Column::name("NAME"), Column::text("CONTACTS")];

async fn list(client: &Client) -> anyhow::Result<()> {
    let customers: Vec<Customer> = pages(client, "/customers", &[]).await?;
    let none = "No customers. Add one: fleetgate customer add --ref REF";
    listing::print(client, &customers, (&COLUMNS, row), none)
}

fn row(c: &Customer) -> Vec<String> {
    let contacts: Vec<String> = c.contacts.iter().map(words).collect();
    vec![
        c.id.clone(),
        table::safe(c.external_ref.as_deref().unwrap_or_default()),
        table::safe(&c.name),
        table::safe(&contacts.join(", ")),
    ]
}

fn words(contact: &CustomerContact) -> String {
    let at: Vec<&str> = [&contact.email, &contact.phone].into_iter().flatten().map(String::as_str).collect();
    match &contact.name {
        Some(name) => format!("{name} <{}>", at.join(", ")),
        None => at.join(", "),
    }
}

async fn show(client: &Client, customer: &str) -> anyhow::Result<()> {
    let c: Customer = client.get(&path("customers", customer), &[]).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&c)?);
        return Ok(());
    }
    let line = |key: &str, value: &str| out::line!("  {key:<12}{}", table::safe(value));
    out::line!("{}  {}", table::safe(&c.name), c.id);
    line("reference", c.external_ref.as_deref().unwrap_or("none"));
    c.contacts.iter().for_each(|contact| line("contact", &words(contact)));
    line("added", &c.created_at);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(subcommand)]
        command: CustomerCommand,
    }

    async fn try_run(client: &Client, words: &[&str]) -> anyhow::Result<()> {
        let line = <Line as clap::Parser>::try_parse_from([&["customer"][..], words].concat());
        run(client, line.map_err(|e| anyhow::anyhow!("{e}"))?.command).await
    }

    #[test]
    fn a_contact_is_a_mailbox_or_a_phone() {
        let both = ["Ada <ada@example.org>", "ada@example.org", "Ada <+43 1 2345>", "+43 1 2345"];
        let shown = both.map(|text| words(&contact(text).unwrap()));
        assert_eq!(shown, both);
        assert!(contact("Ada <ada@example.org").is_err());
    }

    #[tokio::test]
    async fn a_customer_is_added_changed_and_erased() {
        let (client, api) = crate::cli::tests::connected().await;
        let add = ["add", "--ref", "crm/17", "--name", "Ada Ltd", "--contact", "Ada <ada@example.org>"];
        try_run(&client, &add).await.unwrap();
        let shown: Customer = client.get("/customers/crm%2F17", &[]).await.unwrap();
        assert_eq!((shown.name.as_str(), shown.contacts.len()), ("Ada Ltd", 1));
        try_run(&client, &["list"]).await.unwrap();
        try_run(&client, &["show", "crm/17"]).await.unwrap();
        try_run(&client, &["set", "crm/17", "--no-ref", "--no-contacts", "--name", "Ada"]).await.unwrap();
        let changed: Customer = client.get(&format!("/customers/{}", shown.id), &[]).await.unwrap();
        assert_eq!((changed.external_ref, changed.contacts.len(), changed.version), (None, 0, 2));
        let person = json!({ "customer": shown.id });
        let person: Value = client.post("/people", &person).await.unwrap();
        let person = person["id"].as_str().unwrap();
        try_run(&client, &["login-link", &shown.id, "--person", person]).await.unwrap();
        assert!(try_run(&client, &["login-link", "crm/18", "--person", person]).await.is_err());
        try_run(&client, &["erase", &shown.id]).await.unwrap();
        assert!(try_run(&client, &["show", &shown.id]).await.is_err());
        assert!(try_run(&client, &["set", &shown.id]).await.is_err(), "nothing to change");
        let log = api.admin().get("/api/v1/audit").await;
        assert!(!log.text.contains("Ada") && !log.text.contains("crm/17"), "{}", log.text);
    }
}
