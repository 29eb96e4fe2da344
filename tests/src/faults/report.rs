//! The printed report: a line for each cell, the timeline of a failed one, and the table of all.

use super::judge::{Judged, Wrong};
use super::observer::{Millis, ObservedNotification, Seen, Timeline};
use super::run::Outcome;

/// False reports of one cell that are printed.
const PRINTED: usize = 12;

/// Prints a line, and the whole timeline of a failed cell.
pub fn print(outcome: &Outcome) {
    println!("{}", line(outcome));
    if !outcome.is_right() {
        println!("{}", story(outcome));
    }
}

/// Returns one line for each cell, and the totals.
pub fn table(outcomes: &[Outcome]) -> String {
    let lines: Vec<String> = outcomes.iter().map(line).collect();
    let right = outcomes.iter().filter(|outcome| outcome.is_right()).count();
    let quiet =
        outcomes.iter().filter(|o| o.judged.as_ref().is_ok_and(|judged| judged.wrong.is_empty())).count();
    format!(
        "{:<34} {:>6} {:>6}  verdict at the end\n{}\n{right} of {} cells right; {quiet} said nothing false on the way",
        "cell",
        "after",
        "false",
        lines.join("\n"),
        outcomes.len()
    )
}

fn line(outcome: &Outcome) -> String {
    let mark = if outcome.is_right() { "ok " } else { "BAD" };
    let name = &outcome.cell.name;
    match &outcome.judged {
        Ok(judged) => format!(
            "{mark} {name:<30} {:>6} {:>6}  {}",
            seconds(outcome, judged),
            judged.wrong.len(),
            ends(outcome, judged)
        ),
        Err(why) => format!("{mark} {name:<30} broke down: {}", why.lines().next().unwrap_or_default()),
    }
}

/// Returns the time until the last of the cell's verdicts was right.
fn seconds(outcome: &Outcome, judged: &Judged) -> String {
    let about = judged.ends.iter().filter(|end| outcome.cell.is_about(end.host));
    let afters: Option<Vec<f64>> =
        about.map(|end| end.right_after.map(|after| after.as_secs_f64())).collect();
    match afters {
        Some(afters) => format!("{:.1} s", afters.into_iter().fold(0.0, f64::max)),
        None => "never".to_owned(),
    }
}

fn ends(outcome: &Outcome, judged: &Judged) -> String {
    let about = judged.ends.iter().filter(|end| outcome.cell.is_about(end.host) || end.said != "ok");
    let said: Vec<String> = about.map(|end| format!("{} {}", end.host.name(), end.said)).collect();
    if said.is_empty() { "all ok".to_owned() } else { said.join("; ") }
}

fn story(outcome: &Outcome) -> String {
    let judged = match &outcome.judged {
        Ok(judged) => judged,
        Err(why) => return format!("  {why}"),
    };
    let zero = outcome.spans.first().map(|span| span.begun.1).unwrap_or_default();
    let mut lines: Vec<String> =
        judged.missing.iter().map(|missing| format!("  missing: {missing}")).collect();
    lines.extend(runs(&judged.wrong).into_iter().take(PRINTED).map(|(first, last, wrong)| {
        format!("  false {}..{}: {}: {}", at(first, zero), at(last, zero), wrong.host, wrong.what)
    }));
    lines.push("  timeline (s after the first fault):".to_owned());
    lines.extend(timeline(outcome, zero));
    lines.join("\n")
}

fn at(at: Millis, zero: Millis) -> String {
    let tenths = (at - zero) / 100;
    let sign = if tenths < 0 { "-" } else { "" };
    format!("{sign}{}.{}", tenths.abs() / 10, tenths.abs() % 10)
}

/// Groups equal reports of the same host, from the first moment to the last.
fn runs(wrong: &[Wrong]) -> Vec<(Millis, Millis, &Wrong)> {
    let mut runs: Vec<(Millis, Millis, &Wrong)> = Vec::new();
    for one in wrong {
        match runs.iter_mut().find(|(_, _, run)| run.host == one.host && run.what == one.what) {
            Some(run) => run.1 = one.at,
            None => runs.push((one.at, one.at, one)),
        }
    }
    runs
}

/// Returns the faults, the changes of reports, and the notifications, in order of time.
fn timeline(outcome: &Outcome, zero: Millis) -> Vec<String> {
    let mut lines: Vec<(Millis, String)> = Vec::new();
    for span in &outcome.spans {
        lines.push((span.begun.0, format!("### {:?} begins", span.fault)));
        lines.push((span.ended.0, format!("### {:?} is mended", span.fault)));
    }
    lines.extend(changes(&outcome.timeline));
    lines.extend(outcome.timeline.told.iter().map(|told| (told.at, told_line(told))));
    lines.extend(
        outcome.timeline.incidents.iter().map(|i| (i.at, format!("incident {}: {}", i.cause, i.text))),
    );
    lines.sort_by_key(|(at, _)| *at);
    let said = lines.into_iter().map(|(when, text)| format!("    {:>7} {text}", at(when, zero)));
    said.chain(outcome.timeline.subjects.iter().map(|subject| format!("    mail: {subject}"))).collect()
}

fn told_line(told: &ObservedNotification) -> String {
    let service = told.service.as_ref().map(|s| format!(" {s}")).unwrap_or_default();
    format!("notice {} {}{service} {} [{}] {}", told.kind, told.host, told.state, told.outcome, told.cause)
}

fn changes(timeline: &Timeline) -> Vec<(Millis, String)> {
    let mut lines = Vec::new();
    for (n, seen) in timeline.seen.iter().enumerate() {
        let before = timeline.seen[..n].iter().rev().find(|earlier| earlier.host == seen.host);
        let is_news = match before {
            Some(before) => said(before) != said(seen),
            None => seen.kind != "ok",
        };
        if is_news {
            lines.push((seen.asked, format!("{}: {}", seen.host.name(), in_words(seen))));
        }
    }
    lines
}

fn said(seen: &Seen) -> (&str, &str, String, bool) {
    (&seen.state, &seen.last_result, seen.verdict(), seen.reachable)
}

fn in_words(seen: &Seen) -> String {
    let evidence: String = seen.evidence.iter().map(|line| format!("\n              - {line}")).collect();
    let reach = if seen.reachable { "" } else { ", unreachable" };
    format!("{} (last {}{reach}) {} | {}{evidence}", seen.state, seen.last_result, seen.verdict(), seen.words)
}
