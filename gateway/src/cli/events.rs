//! `fleetgate events [--follow]`.

use clap::Args;
use futures_util::StreamExt as _;

use super::client::Client;
use super::table::{self, Column};
use crate::api::events::Event;
use crate::api::types::Page;
use crate::cli::out;

#[derive(Args)]
pub(crate) struct EventsArgs {
    /// Only events of this host (name or id)
    #[arg(long)]
    host: Option<String>,
    /// Number of the newest ones
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 50)]
    lines: usize,
    /// Print new events as they happen
    #[arg(long, short)]
    follow: bool,
}

pub(crate) async fn run(client: &Client, args: EventsArgs) -> anyhow::Result<()> {
    let mut query = vec![("limit", args.lines.to_string())];
    query.extend(args.host.clone().map(|h| ("host", h)));
    // Opens the stream before reading the list. An event in between may appear twice but is never
    // lost.
    let stream = if args.follow { Some(client.stream("/stream").await?) } else { None };
    let page: Page<Event> = client.get("/events", &query).await?;
    let mut last = page.items.first().map_or(0, |e| e.seq);
    page.items.iter().rev().try_for_each(|e| print(client, e))?;
    let Some(stream) = stream else { return Ok(()) };
    let mut bytes = stream.bytes_stream();
    let mut lines = Lines::default();
    while let Some(chunk) = bytes.next().await {
        for event in lines.events(&chunk?) {
            let wanted = event.seq > last && args.host.as_ref().is_none_or(|h| is_of(&event, h));
            last = last.max(event.seq);
            if wanted {
                print(client, &event)?;
            }
        }
    }
    anstream::eprintln!("fleetgate: the gateway closed the connection");
    Ok(())
}

/// Events come one by one: no heads are printed.
pub(super) const COLUMNS: [Column; 5] = [
    Column::whole("TIME"),
    Column::name("OBJECT"),
    Column::state("EVENT"),
    Column::text("CAUSE"),
    Column::name("BY"),
];

fn is_of(event: &Event, host: &str) -> bool {
    event.object_id.as_deref() == Some(host) || event.object_name.as_deref() == Some(host)
}

fn print(client: &Client, e: &Event) -> anyhow::Result<()> {
    if client.json {
        out::line!("{}", serde_json::to_string(e)?);
        return Ok(());
    }
    let name = name(e);
    let service = e.service.as_deref().map(|s| format!("/{s}")).unwrap_or_default();
    let by = if e.principal == "system" { String::new() } else { format!("[{}]", table::safe(&e.principal)) };
    let object = format!("{:<24}", table::safe(&format!("{name}{service}")));
    let cells = [table::clock_time(&e.at), object, what(e), table::safe(&e.cause), by];
    out::line!("{}", table::row(&COLUMNS, &cells, table::terminal_width()));
    Ok(())
}

/// Returns the name of the host or incident. A rule or contact appears as `rule night`, with its
/// name at that time.
fn name(e: &Event) -> String {
    let own = e.object_name.as_ref().or(e.object_id.as_ref()).cloned();
    let called = || e.data["name"].as_str().map(|name| format!("{} {name}", e.object));
    own.or_else(called).unwrap_or_else(|| e.object.clone())
}

/// Formats a change of state as `UP -> DOWN`, and any other event by its name.
fn what(e: &Event) -> String {
    match (e.data["from"].as_str(), e.data["to"].as_str()) {
        (Some(from), Some(to)) if e.kind == "notification.suppressed" => {
            let kind = table::safe(e.data["kind"].as_str().unwrap_or_default());
            format!("suppressed: {kind} {} -> {}", table::state(from), table::state(to))
        }
        (Some(from), Some(to)) => format!("{} -> {}", table::state(from), table::state(to)),
        _ => e.kind.clone(),
    }
}

/// Reads the `event` messages from a stream of server-sent events.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
    name: String,
}

impl Lines {
    fn events(&mut self, chunk: &[u8]) -> Vec<Event> {
        self.rest.extend_from_slice(chunk);
        let mut events = Vec::new();
        while let Some(end) = self.rest.iter().position(|&b| b == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            events.extend(self.line(line.trim_end()));
        }
        events
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        if let Some(name) = line.strip_prefix("event:") {
            self.name = name.trim().to_owned();
            return None;
        }
        let data = line.strip_prefix("data:")?;
        if self.name == "event" { serde_json::from_str(data.trim()).ok() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_page_is_named_with_its_kind() {
        let event = |object: &str, name: Option<&str>, data: serde_json::Value| Event {
            seq: 1,
            at: "2026-03-10T13:03:22Z".into(),
            kind: "rule.changed".into(),
            object: object.into(),
            object_id: None,
            object_name: name.map(str::to_owned),
            service: None,
            cause: "changed".into(),
            evidence: String::new(),
            truncated: false,
            data,
            principal: "user:ada".into(),
        };
        assert_eq!(name(&event("rule", None, serde_json::json!({ "name": "night" }))), "rule night");
        assert_eq!(name(&event("host", Some("cam-07"), serde_json::json!({ "name": "old" }))), "cam-07");
        assert_eq!(name(&event("system", None, serde_json::json!({}))), "system");
    }

    #[test]
    fn events_come_out_of_a_stream_cut_anywhere() {
        let event = r#"{"seq":7,"at":"x","kind":"state.changed","object":"host","object_id":null,"object_name":"a","service":null,"cause":"c","evidence":"","data":{},"principal":"system"}"#;
        let text = format!("event: overview\ndata: {{}}\n\nevent: event\ndata: {event}\n\n");
        for cut in 1..text.len() {
            let mut lines = Lines::default();
            let mut seen = lines.events(&text.as_bytes()[..cut]);
            seen.extend(lines.events(&text.as_bytes()[cut..]));
            assert_eq!(seen.iter().map(|e| e.seq).collect::<Vec<_>>(), [7]);
        }
    }
}
