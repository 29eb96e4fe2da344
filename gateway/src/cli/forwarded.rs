//! `fleetgate forwarded`: what people sent through the gateway to hosts, by hour.

use clap::Args;

use super::client::Client;
use super::device::said;
use super::table::{self, Column};
use crate::api::forwarded::{Forwarded, ForwardedHour};
use crate::cli::out;

#[derive(Args)]
pub(crate) struct ForwardedArgs {
    /// Only what went to this host
    #[arg(long)]
    host: Option<String>,
    /// Only what this operator sent
    #[arg(long)]
    operator: Option<String>,
    /// Only what renters sent to the device of this rental
    #[arg(long, conflicts_with = "operator")]
    rental: Option<String>,
    /// Number of the newest rows
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 50)]
    lines: usize,
}

pub(super) const COLUMNS: [Column; 8] = [
    Column::whole("HOUR"),
    Column::name("PEER"),
    Column::name("OWNER"),
    Column::whole("RENTAL").optional(),
    Column::name("HOST"),
    Column::whole("PORT"),
    Column::whole("SENT"),
    Column::whole("RECEIVED"),
];

pub(crate) async fn run(client: &Client, args: ForwardedArgs) -> anyhow::Result<()> {
    let mut query = vec![("limit", args.lines.to_string())];
    query.extend(args.host.map(|host| ("host", host)));
    query.extend(args.operator.map(|operator| ("operator", operator)));
    query.extend(args.rental.map(|rental| ("rental", rental)));
    let found: Forwarded = client.get("/forwarded", &query).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&found)?);
        return Ok(());
    }
    if found.hours.is_empty() {
        return said(
            client,
            "Nothing was forwarded. A flow is listed when it ends, and each hour or, of a rental, each minute",
        );
    }
    table::print(&COLUMNS, found.hours.iter().map(row).collect());
    Ok(())
}

fn row(of: &ForwardedHour) -> Vec<String> {
    let port = match (of.protocol.as_str(), of.port) {
        ("icmp", _) => "icmp".to_owned(),
        (protocol, 0) => format!("{protocol} others"),
        (protocol, port) => format!("{protocol} {port}"),
    };
    vec![
        table::minute(&of.hour),
        either(&of.operator, &of.renter),
        either(&of.user, &of.person),
        table::safe(of.rental.as_deref().unwrap_or("-")),
        table::safe(&of.host),
        port,
        table::bytes(of.sent_bytes),
        table::bytes(of.received_bytes),
    ]
}

/// The source is an operator or a renter.
fn either(operator: &Option<String>, renter: &Option<String>) -> String {
    table::safe(operator.as_deref().or(renter.as_deref()).unwrap_or("-"))
}
