//! `fleetgate status`: the counters, and the list of problems.

use std::process::ExitCode;

use clap::Args;

use super::client::Client;
use super::table::{self, Column};
use crate::api::overview::types::{HostCounts, Overview, Problem};
use crate::api::services::ServiceCounts;
use crate::api::types::Page;
use crate::cli::out;

/// Problems that fit on a screen. `host list` shows the rest.
const SHOWN: usize = 20;

#[derive(Args)]
pub(crate) struct StatusArgs {
    /// Print one line with metrics, in the form of a monitoring plugin
    #[arg(long, short)]
    quiet: bool,
}

/// The kind of a verdict without a claim.
const UNDETERMINED: &str = "undetermined";

/// The exit code of a plugin that cannot tell, for any reason. 1 and 2 would make a claim about the
/// fleet.
pub(crate) const UNKNOWN: u8 = 3;

pub(crate) async fn run(client: &Client, args: StatusArgs) -> anyhow::Result<ExitCode> {
    let overview: Overview = client.get("/overview", &[]).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&overview)?);
    } else if args.quiet {
        out::line!("{}", plugin_line(&overview));
    } else {
        show(&overview);
        problems(client).await?;
    }
    Ok(ExitCode::from(overview.exit_code()))
}

/// Formats `CRITICAL: hosts 1 down, 24 up; services 2 warning, 45 ok | up=24 down=1 ...`: the worst
/// first, and every count as a metric.
fn plugin_line(o: &Overview) -> String {
    let word = match o.exit_code() {
        0 => "OK",
        1 => "WARNING",
        _ => "CRITICAL",
    };
    let (h, s) = (&o.hosts, &o.services);
    let hosts = [
        ("down", h.down),
        ("unreachable", h.unreachable),
        ("not current", h.stale),
        ("handled", h.handled),
        ("asleep", h.asleep),
        ("pending", h.pending),
        ("up", h.up),
    ];
    let services = [
        ("critical", s.critical),
        ("unknown", s.unknown),
        ("warning", s.warning),
        ("handled", s.handled),
        ("not current", s.stale),
        ("pending", s.pending),
        ("ok", s.ok),
    ];
    let metrics = [("hosts", &hosts), ("services", &services)].map(|(of, all)| counts_as_metrics(of, all));
    let clock = if o.clock_problem.is_some() { "; clock not trusted" } else { "" };
    let restore = if o.restore_unconfirmed.is_some() { "; restore not confirmed" } else { "" };
    let disk = if o.disk_problem.is_some() { "; disk without room" } else { "" };
    format!(
        "{word}: hosts {}; services {}{clock}{restore}{disk} | {}",
        present(&hosts),
        present(&services),
        metrics.join(" ")
    )
}

/// Formats the counts above zero, or `none` if there are none.
fn present(counts: &[(&str, i64)]) -> String {
    let there: Vec<String> =
        counts.iter().filter(|(_, n)| *n > 0).map(|(word, n)| format!("{n} {word}")).collect();
    if there.is_empty() { "none".to_owned() } else { there.join(", ") }
}

fn counts_as_metrics(of: &str, counts: &[(&str, i64)]) -> String {
    let metric = |(word, n): &(&str, i64)| format!("{of}_{}={n}", word.replace(' ', "_"));
    counts.iter().map(metric).collect::<Vec<_>>().join(" ")
}

fn show(o: &Overview) {
    let now = table::now();
    out::line!("Problems  {}{}", o.problems, beside("handled", o.handled));
    out::line!("{}", hosts_line(&o.hosts));
    out::line!("{}", services_line(&o.services));
    out::line!("Last check {}", table::ago(o.last_check.as_deref(), now));
    for problem in [&o.clock_problem, &o.restore_unconfirmed, &o.disk_problem].into_iter().flatten() {
        out::line!("{}", table::coloured(&capitalised(problem), "critical"));
    }
    if o.awaiting_approval > 0 {
        out::line!("{} awaiting approval: fleetgate enrolment list", o.awaiting_approval);
    }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| format!("{}{}", first.to_uppercase(), letters.as_str()))
}

fn count(word: &str, state: &str, n: i64) -> String {
    if n > 0 { table::coloured(&format!("{word} {n}"), state) } else { format!("{word} {n}") }
}

fn beside(word: &str, n: i64) -> String {
    if n > 0 { format!("  ({n} {word})") } else { String::new() }
}

fn hosts_line(h: &HostCounts) -> String {
    format!(
        "Hosts     {} / {} / {} / {}{}{}{}",
        count("Up", "up", h.up),
        count("Down", "down", h.down),
        count("Unreachable", "unreachable", h.unreachable),
        count("Pending", "pending", h.pending),
        beside("not current", h.stale),
        beside("handled", h.handled),
        beside("asleep", h.asleep),
    )
}

fn services_line(s: &ServiceCounts) -> String {
    format!(
        "Services  {} / {} / {} / {} / {}{}{}",
        count("OK", "ok", s.ok),
        count("Warning", "warning", s.warning),
        count("Critical", "critical", s.critical),
        count("Unknown", "unknown", s.unknown),
        count("Pending", "pending", s.pending),
        beside("not current", s.stale),
        beside("handled", s.handled),
    )
}

pub(super) const COLUMNS: [Column; 6] = [
    Column::state("STATE"),
    Column::whole("FOR"),
    Column::name("HOST"),
    Column::name("SERVICE"),
    Column::whole("INCIDENT"),
    Column::text("OUTPUT"),
];

async fn problems(client: &Client) -> anyhow::Result<()> {
    let page: Page<Problem> = client.get("/problems", &[("limit", SHOWN.to_string())]).await?;
    if page.items.is_empty() {
        return Ok(());
    }
    let now = table::now();
    out::line!();
    table::print(&COLUMNS, page.items.iter().map(|p| row(p, now)).collect());
    if page.next.is_some() {
        out::line!("... and more: see `fleetgate host list`");
    }
    Ok(())
}

fn row(p: &Problem, now: jiff::Timestamp) -> Vec<String> {
    vec![
        state(p),
        table::lasting(p.since.as_deref(), now),
        table::safe(&p.host_name),
        table::safe(p.service.as_deref().unwrap_or("")),
        p.incident.clone().unwrap_or_default(),
        table::safe(said(p)),
    ]
}

/// Without a colour where it is handled: only what somebody should look at stands out.
fn state(p: &Problem) -> String {
    let state = if p.handled { table::calm_state(&p.state) } else { table::state(&p.state) };
    format!("{state}{}", table::marks(p.acknowledged, p.in_downtime, p.flapping))
}

/// Returns the verdict's text if it makes a claim, which says more than the last check. Otherwise
/// returns the output.
fn said(p: &Problem) -> &str {
    match &p.verdict {
        Some(verdict) if verdict.kind != UNDETERMINED => &verdict.text,
        _ => &p.text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::overview::types::VerdictLine;

    #[test]
    fn a_claim_stands_in_the_place_of_the_output_and_a_doubt_does_not() {
        let of = |kind: &str| Problem {
            host: "h_1".into(),
            host_name: "cam-07".into(),
            service: None,
            state: "down".into(),
            state_type: "hard".into(),
            acknowledged: false,
            in_downtime: false,
            handled: false,
            flapping: false,
            incident: None,
            since: None,
            last_check: None,
            text: "no answer".into(),
            verdict: Some(VerdictLine { kind: kind.into(), text: "uplink of north lost".into() }),
        };
        assert_eq!(said(&of("site_uplink_lost")), "uplink of north lost");
        assert_eq!(said(&of("undetermined")), "no answer");
        assert_eq!(said(&Problem { verdict: None, ..of("") }), "no answer");
    }

    #[test]
    fn a_plugins_line_is_one_with_the_worst_first_and_metrics() {
        let mut o = Overview::default();
        let metrics = |hosts: &str, services: &str| {
            let (h, s) = (hosts.split(' ').collect::<Vec<_>>(), services.split(' ').collect::<Vec<_>>());
            let names = ["down", "unreachable", "not_current", "handled", "asleep", "pending", "up"];
            let hosts: Vec<_> = names.iter().zip(h).map(|(name, n)| format!("hosts_{name}={n}")).collect();
            let names = ["critical", "unknown", "warning", "handled", "not_current", "pending", "ok"];
            let services: Vec<_> =
                names.iter().zip(s).map(|(name, n)| format!("services_{name}={n}")).collect();
            format!("{} {}", hosts.join(" "), services.join(" "))
        };
        let none = metrics("0 0 0 0 0 0 0", "0 0 0 0 0 0 0");
        assert_eq!(plugin_line(&o), format!("OK: hosts none; services none | {none}"));
        (o.hosts.up, o.hosts.down, o.services.ok, o.services.warning, o.problems) = (24, 1, 45, 2, 3);
        let some = metrics("1 0 0 0 0 0 24", "0 0 2 0 0 0 45");
        let line = format!("CRITICAL: hosts 1 down, 24 up; services 2 warning, 45 ok | {some}");
        assert_eq!(plugin_line(&o), line);
    }

    #[test]
    fn the_exit_code_is_a_plugins() {
        let mut o = Overview::default();
        assert_eq!(o.exit_code(), 0);
        (o.hosts.stale, o.problems) = (1, 1);
        assert_eq!(o.exit_code(), 1, "silence is not health");
        (o.hosts.stale, o.services.warning) = (0, 1);
        assert_eq!(o.exit_code(), 1);
        o.hosts.down = 1;
        assert_eq!(o.exit_code(), 2);
        let handled = Overview { handled: 2, ..Overview::default() };
        assert_eq!(handled.exit_code(), 0, "somebody has acknowledged or planned it");
        let clock = Overview { clock_problem: Some("the clock is behind".to_owned()), ..Overview::default() };
        assert_eq!(clock.exit_code(), 1);
        let line = plugin_line(&clock);
        assert!(line.starts_with("WARNING: hosts none; services none; clock not trusted | "), "{line}");
        let restore = Overview { restore_unconfirmed: Some("restored".to_owned()), ..Overview::default() };
        assert_eq!(restore.exit_code(), 1);
        let line = plugin_line(&restore);
        assert!(line.starts_with("WARNING: hosts none; services none; restore not confirmed | "), "{line}");
        let disk = Overview { disk_problem: Some("the disk is full".to_owned()), ..Overview::default() };
        assert_eq!(disk.exit_code(), 1);
        assert!(plugin_line(&disk).contains("services none; disk without room | "));
    }
}
