use fleetgate_probes::sample::Status;

use super::*;
use crate::id::Id;
use crate::messages::{Downtime, Flapping, HostScope, Kinds, Notify, Scope, States, When};
use crate::time::Wall;

type State = Option<Status>;

const OK: State = Some(Status::Ok);
const WARNING: State = Some(Status::Warning);
const CRITICAL: State = Some(Status::Critical);

/// One checkable under a clock of seconds, and its notifications.
struct Stage {
    now: u64,
    attempts: u32,
    rules: Alerting,
    windows: Vec<Window>,
    covered: bool,
    silence: Option<SuppressReason>,
    track: Track<State>,
    notifier: Notifier<State>,
    said: Vec<String>,
}

fn at(secs: u64) -> Now {
    let wall = Wall::from_millis(1_800_000_000_000) + Duration::from_secs(secs);
    Now { mono: Mono::from_secs(1_000_000 + secs), wall }
}

impl Stage {
    fn new() -> Stage {
        let calm = Flapping { enabled: false, ..Flapping::default() };
        Stage {
            now: 0,
            attempts: 1,
            rules: Alerting { flapping: calm, ..Alerting::default() },
            windows: Vec::new(),
            covered: false,
            silence: None,
            track: Track::pending(),
            notifier: Notifier::default(),
            said: Vec::new(),
        }
    }

    fn with(notify: Notify) -> Stage {
        let mut stage = Stage::new();
        stage.rules.notify = notify;
        stage
    }

    fn act(
        &mut self,
        act: impl FnOnce(&mut Notifier<State>, &Track<State>, &NotifyContext<'_>) -> Vec<Emitted<State>>,
    ) {
        let scene = NotifyContext {
            now: at(self.now),
            rules: &self.rules,
            windows: &self.windows,
            service: Some("disk"),
            covered: self.covered,
            current: true,
            silence: self.silence,
            cancelled: false,
        };
        let said = act(&mut self.notifier, &self.track, &scene);
        self.said.extend(said.iter().map(|said| format!("{} {}", self.now, words(said))));
    }

    fn result(&mut self, state: State) -> &mut Self {
        let before = self.track.status;
        let change = self.track.apply(state, self.attempts);
        self.act(|notifier, track, scene| notifier.on_result(before, track, change.as_ref(), scene));
        self
    }

    fn results(&mut self, count: usize, state: State) {
        (0..count).for_each(|_| {
            self.result(state);
        });
    }

    /// Lets time pass, with each evaluation when it is due.
    fn pass(&mut self, secs: u64) -> &mut Self {
        let end = self.now + secs;
        while let Some(due) = self.notifier.due().filter(|due| *due <= at(end).mono) {
            self.now = due.since(at(0).mono).as_secs().max(self.now);
            self.act(Notifier::re_evaluate);
        }
        self.now = end;
        self
    }

    /// Restarts from the stored state.
    fn restart(&mut self) -> &mut Self {
        let (notified, state) = (self.notifier.notified(), self.notifier.state(at(self.now)));
        let ack = self.notifier.ack.take();
        self.notifier = Notifier::restored(notified, state, at(self.now));
        if let Some(ack) = ack {
            self.notifier.recall_ack(*ack);
        }
        self.pass(0)
    }

    fn acknowledge(&mut self, sticky: bool, expires: Option<u64>) -> &mut Self {
        let expires = expires.map(|secs| at(secs).wall);
        let ack =
            Acknowledgement { id: Id::from_i64(1), sticky, expires, words: String::new(), incident: None };
        self.act(|notifier, track, scene| notifier.acknowledge(ack, track, scene));
        self
    }

    fn downtime(&mut self, id: i64, from: u64, to: u64, flexible: Option<u64>) -> &mut Self {
        let host = crate::monitor::testing::host(1);
        let scope = Scope { hosts: HostScope::One(host.id), service: Some("disk".into()) };
        let (start, end) = (at(from).wall, at(to).wall);
        let duration = flexible.map(Duration::from_secs);
        let plan = Downtime { id: Id::from_i64(id), scope, when: When::Once { start, end, duration } };
        self.windows.extend(Window::of(&plan, &host));
        self.act(Notifier::re_evaluate);
        self
    }

    fn said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.said)
    }
}

fn words(said: &Emitted<State>) -> String {
    match said {
        Emitted::Notification(n) => format!("{} {}>{}", n.kind.name(), n.from.name(), n.to.name()),
        Emitted::Suppressed(n, reason) => {
            format!("held {} {} ({})", n.kind.name(), n.to.name(), reason.name())
        }
        Emitted::Flapping { begins, .. } => format!("flapping {begins}"),
        Emitted::Downtime { begins, .. } => format!("downtime {begins}"),
        Emitted::Acknowledged(state, _) => format!("acknowledged {0}>{0}", state.name()),
        Emitted::AckEnded(_, end) => format!("ack {}", end.name()),
    }
}

fn every(secs: u64) -> Notify {
    Notify { interval: Some(Duration::from_secs(secs)), ..Notify::default() }
}

#[test]
fn a_problem_that_begins_and_ends_in_a_downtime_is_not_notified() {
    let mut stage = Stage::new();
    stage.result(OK).downtime(1, 10, 20, None).pass(12).result(CRITICAL).pass(3).result(OK).pass(60);
    assert_eq!(
        stage.said(),
        ["10 downtime true", "12 held problem critical (downtime)", "20 downtime false"]
    );
}

#[test]
fn a_problem_that_outlasts_a_downtime_is_notified_once_at_its_end() {
    let mut stage = Stage::new();
    stage.downtime(1, 0, 20, None).downtime(2, 10, 40, None).pass(5).result(CRITICAL).pass(60);
    let expected = [
        "0 downtime true",
        "5 held problem critical (downtime)",
        "40 downtime false",
        "40 problem ok>critical",
    ];
    assert_eq!(stage.said(), expected);
}

#[test]
fn a_recovery_inside_a_downtime_is_delivered_afterwards() {
    let mut stage = Stage::new();
    stage.result(CRITICAL).downtime(1, 5, 20, None).pass(10).result(OK).pass(60);
    let expected = [
        "0 problem ok>critical",
        "5 downtime true",
        "10 held recovery ok (downtime)",
        "20 downtime false",
        "20 recovery critical>ok",
    ];
    assert_eq!(stage.said(), expected);
}

#[test]
fn a_recovery_and_a_new_failure_in_a_downtime_are_not_notified() {
    let mut stage = Stage::new();
    stage.result(CRITICAL).downtime(1, 5, 20, None).pass(10).result(OK).result(CRITICAL).pass(60);
    let told: Vec<String> = stage.said().into_iter().filter(|s| s.contains('>')).collect();
    assert_eq!(told, ["0 problem ok>critical"]);
}

#[test]
fn a_soft_state_at_the_end_of_a_downtime_waits_until_it_is_hard() {
    let mut stage = Stage { attempts: 2, ..Stage::new() };
    stage.result(CRITICAL).result(CRITICAL).downtime(1, 5, 20, None).pass(10).result(OK);
    stage.pass(9).result(CRITICAL).pass(5);
    let told =
        |stage: &mut Stage| -> Vec<String> { stage.said().into_iter().filter(|s| s.contains('>')).collect() };
    assert_eq!(told(&mut stage), ["0 problem ok>critical"]);
    stage.result(CRITICAL);
    assert_eq!(told(&mut stage), Vec::<String>::new(), "the same problem as was told");
    stage.result(OK);
    assert_eq!(told(&mut stage), ["24 recovery critical>ok"]);
}

#[test]
fn a_flexible_downtime_begins_with_the_failure_and_suppresses_its_notification() {
    let mut stage = Stage::new();
    stage.result(OK).downtime(1, 10, 50, Some(30)).pass(40).result(CRITICAL).pass(60);
    let expected = [
        "40 downtime true",
        "40 held problem critical (downtime)",
        "70 downtime false",
        "70 problem ok>critical",
    ];
    assert_eq!(stage.said(), expected);
}

#[test]
fn reminders_come_by_timer_and_stop_with_an_acknowledgement() {
    let mut stage = Stage::with(every(60));
    stage.result(CRITICAL).pass(130).acknowledge(false, None).pass(600);
    let expected =
        ["0 problem ok>critical", "60 reminder critical>critical", "120 reminder critical>critical"];
    assert_eq!(stage.said(), expected);
    stage.result(OK);
    assert_eq!(stage.said(), ["730 ack recovered", "730 recovery critical>ok"], "a recovery is always told");
}

#[test]
fn the_reminder_interval_restarts_after_a_suppression() {
    let mut stage = Stage::with(every(60));
    stage.result(CRITICAL).downtime(1, 30, 100, None).pass(170);
    assert_eq!(stage.said()[3..], ["160 reminder critical>critical"]);
}

#[test]
fn a_normal_acknowledgement_ends_with_any_change_and_a_sticky_one_with_the_recovery() {
    for (sticky, expected) in [
        (false, vec!["0 ack state_changed", "0 problem critical>warning", "0 recovery warning>ok"]),
        (true, vec!["0 held problem warning (acknowledged)", "0 ack recovered", "0 recovery critical>ok"]),
    ] {
        let mut stage = Stage::new();
        stage.result(CRITICAL).acknowledge(sticky, None).result(WARNING).result(OK);
        assert_eq!(stage.said()[1..], expected, "sticky {sticky}");
    }
}

#[test]
fn after_an_acknowledgement_expires_the_changed_state_is_notified() {
    let mut stage = Stage::new();
    stage.result(CRITICAL).acknowledge(true, Some(50)).pass(10).result(WARNING).pass(60);
    let expected =
        ["10 held problem warning (acknowledged)", "50 ack expired", "50 problem critical>warning"];
    assert_eq!(stage.said()[1..], expected);
}

#[test]
fn an_ok_object_cannot_be_acknowledged() {
    let mut stage = Stage::new();
    stage.result(OK).acknowledge(false, None).result(CRITICAL);
    assert_eq!(stage.said(), ["0 ack recovered", "0 problem ok>critical"]);
}

#[test]
fn a_problem_that_ends_within_the_delay_is_not_notified() {
    let mut stage = Stage::with(Notify { delay: Duration::from_secs(30), ..Notify::default() });
    stage.result(CRITICAL).pass(20).result(OK).pass(60);
    assert_eq!(stage.said(), ["0 held problem critical (delay)"]);
    stage.result(CRITICAL).pass(60).result(OK);
    let expected =
        ["80 held problem critical (delay)", "110 problem ok>critical", "140 recovery critical>ok"];
    assert_eq!(stage.said(), expected);
}

#[test]
fn a_state_that_the_filter_excludes_has_no_recovery() {
    let mut stage = Stage::with(Notify { states: States::of([2]), ..Notify::default() });
    stage.result(WARNING).result(OK);
    assert_eq!(stage.said(), ["0 held problem warning (state_filter)"]);
    stage.result(CRITICAL).result(WARNING).result(OK);
    let expected =
        ["0 problem ok>critical", "0 held problem warning (state_filter)", "0 recovery critical>ok"];
    assert_eq!(stage.said(), expected);
}

#[test]
fn a_recovery_that_the_filter_excludes_still_ends_the_problem() {
    let mut stage = Stage::with(Notify { kinds: Kinds::of([MessageKind::Problem]), ..Notify::default() });
    stage.result(CRITICAL).result(OK).result(CRITICAL);
    let expected = ["0 problem ok>critical", "0 held recovery ok (kind_filter)", "0 problem ok>critical"];
    assert_eq!(stage.said(), expected);
}

#[test]
fn a_volatile_object_notifies_each_hard_failure() {
    let mut stage = Stage { attempts: 2, ..Stage::new() };
    stage.rules.volatile = true;
    stage.result(CRITICAL).result(CRITICAL).result(CRITICAL).result(WARNING).result(OK);
    let expected = [
        "0 problem ok>critical",
        "0 problem critical>critical",
        "0 problem critical>warning",
        "0 recovery warning>ok",
    ];
    assert_eq!(stage.said(), expected);
}

fn flap(stage: &mut Stage, changes: usize) {
    for i in 0..changes {
        stage.result(if i % 2 == 0 { CRITICAL } else { OK });
    }
}

fn flapping() -> Stage {
    let mut stage = Stage::new();
    stage.rules.flapping.enabled = true;
    stage.results(21, OK);
    stage
}

#[test]
fn without_flapping_notifications_the_state_after_flapping_is_notified() {
    let unwanted = |told: State, left: State| {
        let mut stage = flapping();
        stage.rules.notify.kinds = Kinds::of([MessageKind::Problem, MessageKind::Recovery]);
        stage.result(told);
        flap(&mut stage, 13);
        let held = |said: &String| said.contains("held flapping_start");
        let meanwhile = stage.said();
        assert!(meanwhile.iter().any(held), "{meanwhile:?}");
        stage.results(21, left);
        let said = stage.said();
        said.into_iter()
            .filter(|said| !said.contains("held") && !said.contains("flapping"))
            .collect::<Vec<_>>()
    };
    assert_eq!(unwanted(CRITICAL, OK), ["0 recovery critical>ok"]);
    assert_eq!(unwanted(CRITICAL, WARNING), ["0 problem critical>warning"]);
    assert_eq!(unwanted(CRITICAL, CRITICAL), [""; 0], "that is known");
}

#[test]
fn flapping_that_ends_in_ok_is_closed_by_its_end() {
    let mut stage = flapping();
    flap(&mut stage, 12);
    let said = stage.said();
    assert_eq!(
        said[5..8],
        ["0 flapping true", "0 held recovery ok (flapping)", "0 flapping_start critical>ok"]
    );
    assert!(said[8..].iter().all(|s| s.contains("held") && s.contains("(flapping)")), "{said:?}");
    stage.results(20, OK);
    assert_eq!(stage.said(), ["0 flapping false", "0 flapping_end ok>ok"]);
}

#[test]
fn results_of_an_unreachable_object_do_not_count_for_flapping() {
    let mut stage = flapping();
    for _ in 0..4 {
        stage.result(OK).silence = Some(SuppressReason::Unreachable);
        stage.result(CRITICAL).result(CRITICAL).silence = None;
    }
    assert!(!stage.said().iter().any(|said| said.contains("flapping")));
}

#[test]
fn states_that_are_ignored_are_no_changes_and_let_it_calm_down() {
    const UNKNOWN: State = Some(Status::Unknown);
    let mut stage = flapping();
    stage.rules.flapping.ignore = States::of([Status::Unknown.exit_code()]);
    for _ in 0..21 {
        stage.result(UNKNOWN).result(OK);
    }
    assert!(!stage.said().iter().any(|said| said.contains("flapping true")), "only what is ignored changes");
    for _ in 0..21 {
        stage.result(CRITICAL).result(OK);
    }
    assert!(stage.said().iter().any(|said| said.contains("flapping true")));
    stage.results(21, UNKNOWN);
    let said = stage.said();
    assert!(said.iter().any(|said| said.contains("problem") && !said.contains("held")), "{said:?}");
}

#[test]
fn a_problem_that_remains_after_flapping_is_notified_once() {
    let mut stage = flapping();
    flap(&mut stage, 11);
    stage.said();
    stage.restart();
    stage.results(30, CRITICAL);
    let expected = ["0 flapping false", "0 flapping_end ok>critical", "0 problem ok>critical"];
    assert_eq!(stage.said(), expected);
}

#[test]
fn services_of_a_host_that_is_down_wait_for_a_newer_result() {
    let mut stage = Stage::new();
    stage.silence = Some(SuppressReason::HostDown);
    stage.result(CRITICAL);
    stage.silence = None;
    stage.pass(10);
    stage.act(Notifier::re_evaluate);
    assert_eq!(
        stage.said(),
        ["0 held problem critical (host_down)", "10 held problem critical (not_current)"]
    );
    stage.result(CRITICAL);
    assert_eq!(stage.said(), ["10 problem ok>critical"]);
}

#[test]
fn a_restart_repeats_nothing_and_forgets_nothing() {
    let mut stage = Stage::with(Notify { delay: Duration::from_secs(30), ..every(60) });
    stage.result(CRITICAL).pass(20).restart().pass(15).restart().pass(45).restart();
    stage.pass(20).restart().downtime(1, 110, 120, None).pass(12).restart().pass(20).restart().result(OK);
    let expected = [
        "0 held problem critical (delay)",
        "30 problem ok>critical",
        "90 reminder critical>critical",
        "110 downtime true",
        "120 downtime false",
        "132 recovery critical>ok",
    ];
    assert_eq!(stage.said(), expected);
}

#[test]
fn operators_actions_are_notified_if_the_kinds_include_them() {
    let kinds = Kinds::of([MessageKind::Problem, MessageKind::Acknowledged, MessageKind::DowntimeStart]);
    let mut stage = Stage::with(Notify { kinds, ..Notify::default() });
    stage.result(CRITICAL).acknowledge(false, None).downtime(1, 10, 20, None).pass(30);
    let expected = [
        "0 problem ok>critical",
        "0 acknowledged critical>critical",
        "10 downtime true",
        "10 downtime_start critical>critical",
        "20 downtime false",
    ];
    assert_eq!(stage.said(), expected);
}
