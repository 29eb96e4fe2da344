//! `fleetgate rental events [--follow]`: what happened to rentals.

use std::time::Duration;

use clap::Args;

use super::client::Client;
use super::table::{self, Column};
use crate::api::rentals::{RentalEvent, RentalEventPage};
use crate::cli::out;

/// Events of one answer.
const PAGE: usize = 500;
/// Time between two looks.
const LOOK: Duration = Duration::from_secs(2);

#[derive(Args)]
pub(crate) struct RentalEventsArgs {
    /// Only those of this rental
    #[arg(long, value_name = "RENTAL")]
    rental: Option<String>,
    /// Only those of this customer (id or reference)
    #[arg(long, value_name = "CUSTOMER")]
    customer: Option<String>,
    /// Print new events as they happen
    #[arg(long, short)]
    follow: bool,
}

pub(crate) async fn run(client: &Client, args: RentalEventsArgs) -> anyhow::Result<()> {
    let mut after: Option<String> = None;
    loop {
        let mut query = vec![("limit", PAGE.to_string())];
        let filters = [("rental", &args.rental), ("customer", &args.customer), ("after", &after)];
        query.extend(filters.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
        let page: RentalEventPage = client.get("/rental-events", &query).await?;
        page.items.iter().try_for_each(|event| print(client, event))?;
        after = Some(page.next);
        match (page.items.len() < PAGE, args.follow) {
            (true, true) => tokio::time::sleep(LOOK).await,
            (true, false) => return Ok(()),
            (false, _) => {}
        }
    }
}

/// Events come one by one: no heads are printed.
pub(super) const COLUMNS: [Column; 5] = [
    Column::whole("TIME"),
    Column::whole("RENTAL"),
    Column::whole("EVENT"),
    Column::whole("DEVICE").optional(),
    Column::text("WINDOW"),
];

fn print(client: &Client, event: &RentalEvent) -> anyhow::Result<()> {
    if client.json {
        out::line!("{}", serde_json::to_string(event)?);
        return Ok(());
    }
    let data = &event.data;
    let happened = event.kind.strip_prefix("rental.").unwrap_or(&event.kind);
    let reason = super::rental::end_reason(data.reason.as_deref(), &[happened]);
    let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    let what = format!("{:<28}", table::safe(&format!("{}{reason}", event.kind)));
    let window = super::rental::window(&data.from, &data.until, None);
    let cells = [
        table::minute(&event.at),
        table::safe(&event.rental),
        what,
        table::safe(&data.device),
        table::safe(&window),
    ];
    out::line!("{}", table::row(&COLUMNS, &cells, table::terminal_width()));
    Ok(())
}
