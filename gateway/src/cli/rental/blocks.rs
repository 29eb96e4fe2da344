//! `fleetgate rental block`: times in which a device cannot be booked.

use clap::Args;
use reqwest::Method;
use serde_json::json;

use crate::api::rentals::DeviceBlock;
use crate::cli::booking::Times;
use crate::cli::client::{Client, api_path};
use crate::cli::customer::printed;
use crate::cli::device::{present, said};
use crate::cli::host::pages;
use crate::cli::out;
use crate::cli::table::{self, Column};

#[derive(Args)]
pub(crate) struct BlockArgs {
    /// Name or id of the device
    device: String,
    /// Reason, for people
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    at: Times,
    /// Also cover rentals: they stay, and their renters reach nothing meanwhile
    #[arg(long)]
    force: bool,
}

pub(super) async fn block(client: &Client, args: BlockArgs) -> anyhow::Result<()> {
    let (from, until) = args.at.body(table::now())?;
    let force = args.force.then_some(true);
    let body = present(json!({ "from": from, "until": until, "reason": args.reason, "force": force }));
    let made = client.write(Method::POST, &api_path!("/devices/{}/blocks", args.device), &body, None).await?;
    printed(client, &made)?;
    let block: DeviceBlock = serde_json::from_value(made)?;
    let until = block.until.as_deref().map(|until| format!(" until {}", table::minute(until)));
    let over = match block.rentals.as_slice() {
        [] => String::new(),
        rentals => format!("; it covers {}", rentals.join(" ")),
    };
    let name = table::safe(&block.device_name);
    let from = table::minute(&block.from);
    said(client, &format!("Block {}: {name} from {from}{}{over}", block.id, until.unwrap_or_default()))
}

const BLOCKS: [Column; 4] =
    [Column::whole("ID"), Column::whole("FROM"), Column::whole("UNTIL"), Column::text("REASON")];

pub(super) async fn blocks(client: &Client, device: &str) -> anyhow::Result<()> {
    let blocks: Vec<DeviceBlock> = pages(client, &api_path!("/devices/{}/blocks", device), &[]).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&blocks)?);
        return Ok(());
    }
    if blocks.is_empty() {
        return said(client, "No blocks");
    }
    let row = |b: &DeviceBlock| {
        let end = b.ended_at.as_deref().or(b.until.as_deref());
        let end = end.map_or("unblocked".to_owned(), table::minute);
        vec![b.id.clone(), table::minute(&b.from), end, table::safe(&b.reason)]
    };
    table::print(&BLOCKS, blocks.iter().map(row).collect());
    Ok(())
}
