//! `fleetgate user`: users who may log in to the dashboard.

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Client, api_path};
use super::device::said;
use super::host::pages;
use super::secret;
use super::table::{self, Column};
use crate::api::users::User;
use crate::cli::out;

#[derive(Subcommand)]
pub(crate) enum UserCommand {
    /// List users
    List,
    /// Add a user and print a one-time login link, where the user chooses a password
    Add {
        /// Name of the new user
        name: String,
        /// viewer, operator or admin
        #[arg(long, default_value = "viewer")]
        role: String,
    },
    /// Print a one-time login link
    LoginLink {
        /// Name of the user
        name: String,
    },
    /// Set a password, from the terminal or the first line of standard input
    Password {
        /// Name of the user
        name: String,
    },
    /// Change the role of a user
    Role {
        /// Name of the user
        name: String,
        /// viewer, operator or admin
        role: String,
    },
    /// Disable a user and end all sessions
    Disable {
        /// Name of the user
        name: String,
    },
    /// Enable a user again
    Enable {
        /// Name of the user
        name: String,
    },
    /// Remove a user; events keep the name
    Remove {
        /// Name of the user
        name: String,
    },
}

pub(crate) async fn run(client: &Client, command: UserCommand) -> anyhow::Result<()> {
    match command {
        UserCommand::List => list(client).await,
        UserCommand::Add { name, role } => add(client, &name, &role).await,
        UserCommand::LoginLink { name } => login_link(client, &name).await,
        UserCommand::Password { name } => set_password(client, &name).await,
        UserCommand::Role { name, role } => set_role(client, &name, &role).await,
        UserCommand::Remove { name } => remove(client, &name).await,
        UserCommand::Disable { name } => set_disabled(client, &name, true).await,
        UserCommand::Enable { name } => set_disabled(client, &name, false).await,
    }
}

const COLUMNS: [Column; 4] =
    [Column::name("NAME"), Column::whole("ROLE"), Column::whole("ADDED"), Column::whole("STATE")];

async fn list(client: &Client) -> anyhow::Result<()> {
    let users: Vec<User> = pages(client, "/users", &[]).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&users)?);
        return Ok(());
    }
    let row = |u: &User| {
        let role = serde_json::to_value(u.role).ok().and_then(|v| v.as_str().map(str::to_owned));
        let state = if u.disabled_at.is_some() { "disabled" } else { "" };
        vec![table::safe(&u.name), role.unwrap_or_default(), table::minute(&u.created_at), state.to_owned()]
    };
    table::print(&COLUMNS, users.iter().map(row).collect());
    Ok(())
}

/// The first password is random and never shown. The link lets the user choose another one.
async fn add(client: &Client, name: &str, role: &str) -> anyhow::Result<()> {
    let mut unknown = [0u8; 24];
    getrandom::fill(&mut unknown).map_err(|e| anyhow::anyhow!("no random bytes: {e}"))?;
    let password: String = unknown.iter().map(|b| format!("{b:02x}")).collect();
    let body = json!({ "name": name, "role": role, "password": password });
    let _: Value = client.post("/users", &body).await?;
    login_link(client, name).await
}

/// Prints only the address to stdout.
pub(crate) async fn login_link(client: &Client, name: &str) -> anyhow::Result<()> {
    let link: Value = client.post(&api_path!("/users/{}/login-link", name), &json!({})).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&link)?);
        return Ok(());
    }
    out::line!("{}", link["url"].as_str().unwrap_or_default());
    said(client, &format!("The link works once, until {}", link["expires_at"].as_str().unwrap_or_default()))
}

async fn change(client: &Client, name: &str, change: &Value) -> anyhow::Result<()> {
    client.call(Method::PATCH, &api_path!("/users/{}", name), Some(change)).await.map(drop)
}

async fn set_password(client: &Client, name: &str) -> anyhow::Result<()> {
    let password = secret::new_password(name)?;
    change(client, name, &json!({ "password": password.as_str() })).await?;
    said(client, &format!("{name}: password set; all sessions have ended"))
}

async fn set_role(client: &Client, name: &str, role: &str) -> anyhow::Result<()> {
    change(client, name, &json!({ "role": role })).await?;
    said(client, &format!("{name}: role set to {role}; all sessions have ended"))
}

async fn remove(client: &Client, name: &str) -> anyhow::Result<()> {
    client.call(Method::DELETE, &api_path!("/users/{}", name), None).await?;
    said(client, &format!("{name} removed"))
}

async fn set_disabled(client: &Client, name: &str, disabled: bool) -> anyhow::Result<()> {
    change(client, name, &json!({ "disabled": disabled })).await?;
    said(
        client,
        &format!("{name} {}", if disabled { "disabled; all sessions have ended" } else { "enabled" }),
    )
}
