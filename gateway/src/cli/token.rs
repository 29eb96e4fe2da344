//! `fleetgate token`: tokens for programs (API) and for devices (enrolment).

use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Client, api_path};
use super::device::{present, said};
use super::host::pages;
use super::host_args::{labels, pair};
use super::table::{self, Column};
use crate::api::enrolment_tokens::EnrolmentToken;
use crate::api::tokens::ApiToken;
use crate::cli::out;

#[derive(Subcommand)]
pub(crate) enum TokenCommand {
    /// Create a token and print its secret, which is not shown again
    Create(Box<CreateArgs>),
    /// List API tokens and enrolment tokens
    List,
    /// Revoke a token
    Revoke {
        /// Id of the token, as in `fleetgate token list`
        id: String,
    },
}

#[derive(Args)]
pub(crate) struct CreateArgs {
    /// Purpose of the token
    name: String,
    /// viewer, operator or admin [default: viewer; with --user, the role of the user]
    #[arg(long, conflicts_with = "enrol")]
    role: Option<String>,
    /// User that it belongs to: grants of the user apply to it, and it ends with the user
    #[arg(long, conflicts_with = "enrol")]
    user: Option<String>,
    /// Customer that it belongs to: it reads the rentals of the customer, and nothing else
    #[arg(long, conflicts_with_all = ["enrol", "role", "user", "scopes"])]
    customer: Option<String>,
    /// Area that it is limited to: monitoring, devices, enrolments, access, gateway or rentals; may be repeated
    #[arg(long = "scope", value_name = "AREA", conflicts_with = "enrol")]
    scopes: Vec<String>,
    /// Lifetime, such as 90d or 12h, or never [default: 90d; with --enrol, 7d]
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
    /// Create an enrolment token instead of an API token
    #[arg(long)]
    enrol: bool,
    /// Number of devices that may enrol with it, or unlimited [default: 1]
    #[arg(long, value_name = "NUMBER", requires = "enrol")]
    uses: Option<String>,
    /// Label of the devices that enrol with it, as key=value; may be repeated
    #[arg(long = "label", value_parser = pair, requires = "enrol")]
    labels: Vec<(String, String)>,
    /// Profile of the devices that enrol with it [default: chosen by their labels]
    #[arg(long, requires = "enrol")]
    profile: Option<String>,
    /// User that checks log in as on these devices
    #[arg(long, requires = "enrol")]
    ssh_user: Option<String>,
    /// Each device needs approval by an operator
    #[arg(long, requires = "enrol")]
    approval: bool,
}

pub(crate) async fn run(client: &Client, command: TokenCommand) -> anyhow::Result<()> {
    match command {
        TokenCommand::Create(args) if args.enrol => create_enrolment(client, *args).await,
        TokenCommand::Create(args) => create_api(client, *args).await,
        TokenCommand::List => list(client).await,
        TokenCommand::Revoke { id } => revoke(client, &id).await,
    }
}

/// Sets the lifetime: absent, unlimited (`null`), or seconds.
fn expiry(body: &mut Value, given: Option<&str>) -> anyhow::Result<()> {
    let Some(text) = given else { return Ok(()) };
    body["expires_in_s"] =
        if text == "never" { Value::Null } else { json!(span("--expires", text)?.as_secs()) };
    Ok(())
}

/// Parses a duration. Days are common, but the duration type knows hours at most. `option` is the
/// name for errors.
pub(crate) fn span(option: &str, text: &str) -> anyhow::Result<SignedDuration> {
    let bad = || anyhow::anyhow!("{option} {text:?}: expected a duration such as 90d, 12h or 30m");
    if let Some(days) = text.strip_suffix('d') {
        let days: i64 = days.parse().map_err(|_| bad())?;
        return Ok(SignedDuration::from_secs(days.checked_mul(24 * 3_600).ok_or_else(bad)?));
    }
    text.parse().map_err(|_| bad())
}

/// Parses an RFC 3339 time, or a time ago.
pub(crate) fn when(option: &str, text: &str, now: Timestamp) -> anyhow::Result<Timestamp> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let ago = span(option, text).map_err(|_| {
        anyhow::anyhow!(
            "{option} {text:?}: a time such as 2026-03-10T13:00:00Z is expected, or how long ago: 2h"
        )
    })?;
    Ok(now.saturating_sub(ago)?)
}

async fn create_api(client: &Client, args: CreateArgs) -> anyhow::Result<()> {
    let has_owner = args.user.is_some() || args.customer.is_some();
    let role = args.role.or_else(|| (!has_owner).then(|| "viewer".to_owned()));
    let mut body = present(json!({
        "name": args.name, "role": role, "user": args.user, "customer": args.customer, "scopes": args.scopes,
    }));
    expiry(&mut body, args.expires.as_deref())?;
    let made: Value = client.post("/tokens", &body).await?;
    secret(
        client,
        &made,
        "The token is not shown again. Use it as FLEETGATE_TOKEN, or in the header `Authorization: Bearer`",
    )
}

async fn create_enrolment(client: &Client, args: CreateArgs) -> anyhow::Result<()> {
    let mut body = present(json!({
        "label": args.name,
        "labels": labels(args.labels)?,
        "profile": args.profile,
        "ssh_user": args.ssh_user,
        "needs_approval": args.approval,
    }));
    match args.uses.as_deref() {
        None => {}
        Some("unlimited") => body["uses"] = Value::Null,
        Some(n) => {
            body["uses"] = json!(
                n.parse::<u32>()
                    .map_err(|_| anyhow::anyhow!("--uses {n:?}: expected a number or `unlimited`"))?
            )
        }
    }
    expiry(&mut body, args.expires.as_deref())?;
    let made: Value = client.post("/enrolment-tokens", &body).await?;
    let command = made["command"].as_str().unwrap_or_default();
    let hint = made["hint"].as_str().map(|hint| format!("\n{hint}")).unwrap_or_default();
    secret(
        client,
        &made,
        &format!("The token is not shown again. On the device, as root:\n  {command}{hint}"),
    )
}

/// Prints only the secret to stdout.
fn secret(client: &Client, made: &Value, words: &str) -> anyhow::Result<()> {
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(made)?);
        return Ok(());
    }
    out::line!("{}", made["secret"].as_str().unwrap_or_default());
    said(client, words)
}

pub(super) const COLUMNS: [Column; 7] = [
    Column::whole("KIND"),
    Column::whole("ID"),
    Column::name("NAME"),
    Column::text("PERMISSION"),
    Column::whole("EXPIRES"),
    Column::whole("LAST USED").optional(),
    Column::whole("STATE"),
];

async fn list(client: &Client) -> anyhow::Result<()> {
    let api: Vec<ApiToken> = pages(client, "/tokens", &[]).await?;
    let enrolment: Vec<EnrolmentToken> = pages(client, "/enrolment-tokens", &[]).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&json!({ "api": api, "enrolment": enrolment }))?);
        return Ok(());
    }
    let now = table::now();
    let mut rows: Vec<Vec<String>> = api.iter().map(|t| api_row(t, now)).collect();
    rows.extend(enrolment.iter().map(|t| enrolment_row(t, now)));
    table::print(&COLUMNS, rows);
    Ok(())
}

fn ended(revoked_at: Option<&str>) -> String {
    if revoked_at.is_some() { "revoked".to_owned() } else { String::new() }
}

fn api_row(t: &ApiToken, now: jiff::Timestamp) -> Vec<String> {
    let role =
        serde_json::to_value(t.role).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
    let scopes = if t.scopes.is_empty() { String::new() } else { format!(" ({})", t.scopes.join(", ")) };
    let user = t.user.as_ref().map(|user| format!(" of {}", table::safe(user))).unwrap_or_default();
    let permission = match &t.customer {
        Some(customer) => format!("of the customer {}", table::safe(customer)),
        None => format!("{role}{user}{scopes}"),
    };
    vec![
        "api".to_owned(),
        t.id.clone(),
        table::safe(&t.name),
        permission,
        t.expires_at.as_deref().map_or("never".to_owned(), table::minute),
        table::ago(t.last_used_at.as_deref(), now),
        ended(t.revoked_at.as_deref()),
    ]
}

fn enrolment_row(t: &EnrolmentToken, now: jiff::Timestamp) -> Vec<String> {
    let uses = t.uses_left.map_or("any number".to_owned(), |n| format!("{n} more"));
    let approval = if t.needs_approval { ", with approval" } else { "" };
    vec![
        "enrolment".to_owned(),
        t.id.clone(),
        table::safe(&t.label),
        format!("{uses}{approval}"),
        t.expires_at.as_deref().map_or("never".to_owned(), table::minute),
        table::ago(t.last_used_at.as_deref(), now),
        ended(t.revoked_at.as_deref()),
    ]
}

/// Both kinds of tokens share one space of ids.
async fn revoke(client: &Client, token: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        token.starts_with("t_"),
        "{token:?} is not the id of a token (t_...): see `fleetgate token list`"
    );
    let api: Vec<ApiToken> = pages(client, "/tokens", &[]).await?;
    let area = if api.iter().any(|t| t.id == token) { "tokens" } else { "enrolment-tokens" };
    client.call(Method::DELETE, &api_path!("/{}/{}", area, token), None).await?;
    said(client, &format!("{token} revoked"))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Cli, Command};
    use super::*;
    use crate::store::access::Role;

    #[tokio::test]
    async fn a_token_of_either_kind_is_revoked_by_its_id() {
        let (client, _api) = crate::cli::tests::connected_as(Role::Admin).await;
        let _: Value = client.post("/tokens", &json!({ "name": "booking", "role": "viewer" })).await.unwrap();
        let _: Value = client.post("/enrolment-tokens", &json!({ "label": "field" })).await.unwrap();
        let api: Vec<ApiToken> = pages(&client, "/tokens", &[]).await.unwrap();
        let enrolment: Vec<EnrolmentToken> = pages(&client, "/enrolment-tokens", &[]).await.unwrap();
        let ids = [
            api.iter().find(|t| t.name == "booking").unwrap().id.as_str(),
            enrolment.iter().find(|t| t.label == "field").unwrap().id.as_str(),
        ];
        for id in ids {
            let line = Cli::try_parse_from(["fleetgate", "token", "revoke", id]).unwrap();
            let Command::Token(command) = line.command else { panic!("another command") };
            run(&client, command).await.unwrap();
        }
        let api: Vec<ApiToken> = pages(&client, "/tokens", &[]).await.unwrap();
        let enrolment: Vec<EnrolmentToken> = pages(&client, "/enrolment-tokens", &[]).await.unwrap();
        let revoked = api.iter().map(|t| (&t.id, &t.revoked_at));
        let revoked = revoked.chain(enrolment.iter().map(|t| (&t.id, &t.revoked_at)));
        let revoked: Vec<&str> = revoked.filter(|(_, at)| at.is_some()).map(|(id, _)| id.as_str()).collect();
        assert_eq!(revoked, ids);
    }

    #[test]
    fn durations_are_what_people_say() {
        assert_eq!(span("--expires", "2d").unwrap().as_secs(), 172_800);
        assert_eq!(span("--expires", "12h").unwrap().as_secs(), 43_200);
        for bad in ["", "d", "soon", "99999999999999999d"] {
            assert!(span("--expires", bad).is_err(), "{bad:?}");
        }
    }
}
