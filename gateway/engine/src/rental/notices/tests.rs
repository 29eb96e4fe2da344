use proptest::prelude::*;

use super::*;
use crate::id::Id;

const DEVICE: HostId = Id::from_i64(7);
const OTHER: HostId = Id::from_i64(8);
/// How often a caller looks.
const TICK: i64 = 5;

fn at(seconds: i64) -> Wall {
    Wall::from_millis(seconds * 1_000)
}

/// A rental from second 1000 on.
fn rented() -> Rented {
    Rented { device: DEVICE, had_from: at(1_000), is_forced: false, sent: 0 }
}

fn critical(since: i64) -> Shown {
    Shown::Bad { state: State::Critical, since: at(since) }
}

fn down(since: i64) -> Shown {
    Shown::Bad { state: State::Down, since: at(since) }
}

/// Looks at the device and `ssh`, and returns the parts of the message as text.
fn seen(rented: &Rented, known: &mut KnownProblems, shown: (Shown, Shown), now: i64) -> String {
    let shown = [(String::new(), shown.0), ("ssh".to_owned(), shown.1)].into();
    let message = look(rented, known, &shown, at(now));
    let text = |part: &Part| {
        let since = part.since.map_or("earlier".to_owned(), |at| (at.as_millis() / 1_000).to_string());
        format!("{}{} {since}{}", part.service, part.state.name(), if part.is_over { " over" } else { "" })
    };
    message.map(|m| m.parts.iter().map(text).collect::<Vec<_>>().join(", ")).unwrap_or_default()
}

#[test]
fn a_problem_and_its_end_are_sent_once_each_and_together_with_others() {
    let (rented, mut known) = (rented(), KnownProblems::new());
    let fine = Shown::Fine;
    let looks = [
        (1_000, (fine, fine), ""),
        (1_010, (fine, critical(1_008)), ""),
        (1_060, (down(1_055), critical(1_008)), ""),
        (1_070, (down(1_055), critical(1_008)), "down 1055, sshcritical 1008"),
        (1_300, (down(1_055), critical(1_008)), ""),
        (1_310, (fine, critical(1_008)), ""),
        (1_369, (fine, fine), ""),
        (1_370, (fine, fine), "down 1055 over, sshcritical 1008 over"),
        (1_500, (fine, fine), ""),
    ];
    for (now, shown, message) in looks {
        assert_eq!(seen(&rented, &mut known, shown, now), message, "at {now}");
    }
    assert!(known.is_empty());
}

#[test]
fn what_is_over_before_its_minute_is_not_sent_and_what_returns_within_one_is_the_same_problem() {
    let (rented, mut known) = (rented(), KnownProblems::new());
    let (fine, bad) = (Shown::Fine, |since| (Shown::Fine, critical(since)));
    for (now, shown, message) in [
        (1_010, bad(1_010), ""),
        (1_069, (fine, fine), ""),
        (1_100, bad(1_100), ""),
        (1_160, bad(1_100), "sshcritical 1100"),
        (1_200, (fine, fine), ""),
        (1_259, bad(1_259), ""),
        (1_400, bad(1_259), ""),
        (1_410, (fine, fine), ""),
        (1_470, (fine, fine), "sshcritical 1100 over"),
    ] {
        assert_eq!(seen(&rented, &mut known, shown, now), message, "at {now}");
    }
}

#[test]
fn what_began_before_is_sent_after_a_forced_handover_only() {
    for (is_forced, message) in [(false, ""), (true, "sshcritical earlier")] {
        let (rented, mut known) = (Rented { is_forced, ..rented() }, KnownProblems::new());
        let shown = (Shown::Fine, critical(900));
        assert_eq!(seen(&rented, &mut known, shown, 1_000), "");
        assert_eq!(seen(&rented, &mut known, shown, 1_060), message);
        let unknown = Shown::Bad { state: State::Unknown, since: at(1_100) };
        assert_eq!(seen(&rented, &mut known, (Shown::Fine, unknown), 1_200), "", "the same problem");
        seen(&rented, &mut known, (Shown::Fine, Shown::Fine), 1_300);
        let over = message.replace("critical earlier", "unknown earlier over");
        assert_eq!(seen(&rented, &mut known, (Shown::Fine, Shown::Fine), 1_360), over);
    }
}

#[test]
fn what_is_hidden_waits_and_is_sent_when_it_still_holds() {
    let (rented, mut known) = (rented(), KnownProblems::new());
    let (fine, hidden) = (Shown::Fine, Shown::Hidden);
    for (now, shown, message) in [
        (1_010, (fine, critical(1_010)), ""),
        (1_020, (fine, hidden), ""),
        (1_200, (fine, hidden), ""),
        (1_210, (fine, critical(1_010)), "sshcritical 1010"),
        (1_220, (fine, hidden), ""),
        (1_400, (fine, hidden), ""),
        (1_410, (fine, fine), ""),
        (1_470, (fine, fine), "sshcritical 1010 over"),
    ] {
        assert_eq!(seen(&rented, &mut known, shown, now), message, "at {now}");
    }
}

#[test]
fn problems_of_a_device_that_was_swapped_and_of_a_removed_service_are_forgotten() {
    let (first, mut known) = (rented(), KnownProblems::new());
    let bad = (Shown::Fine, critical(1_010));
    seen(&first, &mut known, bad, 1_010);
    assert_eq!(seen(&first, &mut known, bad, 1_070), "sshcritical 1010");
    let other = Rented { device: OTHER, had_from: at(1_100), ..first };
    for now in [1_100, 1_200, 1_300] {
        assert_eq!(seen(&other, &mut known, (Shown::Fine, Shown::Fine), now), "");
    }
    seen(&other, &mut known, (Shown::Fine, critical(1_310)), 1_310);
    look(&other, &mut known, &[(String::new(), Shown::Fine)].into(), at(1_400));
    assert!(known.is_empty());
}

#[test]
fn after_the_most_messages_of_a_day_changes_wait() {
    let (mut rented, mut known) = (Rented { sent: MOST - 1, ..rented() }, KnownProblems::new());
    let shown = |bad| [("ssh".to_owned(), bad)].into();
    look(&rented, &mut known, &shown(critical(1_010)), at(1_010));
    let last = look(&rented, &mut known, &shown(critical(1_010)), at(1_070)).unwrap();
    assert!(last.is_last);
    rented.sent = MOST;
    for now in [1_100, 1_200, 9_000] {
        assert_eq!(look(&rented, &mut known, &shown(Shown::Fine), at(now)), None);
    }
    rented.sent = MOST - 5;
    let over = look(&rented, &mut known, &shown(Shown::Fine), at(9_010)).unwrap();
    assert!(over.parts[0].is_over && !over.is_last);
}

#[test]
fn a_clock_that_is_set_back_keeps_nothing_waiting() {
    let (rented, mut known) = (rented(), KnownProblems::new());
    let shown = (Shown::Fine, critical(1_010));
    assert_eq!(seen(&rented, &mut known, shown, 900_000), "");
    assert_eq!(seen(&rented, &mut known, shown, 1_020), "sshcritical 1010");
}

// ------------------------------------------------------------------- simulation

/// What happens to a service: it becomes bad or fine, or is hidden or shown.
#[derive(Clone, Copy, Debug)]
enum Change {
    Bad(bool),
    Hidden(bool),
}

/// A change of a service of a device, some seconds after the one before.
#[derive(Clone, Debug)]
struct TimedChange {
    after: i64,
    device: usize,
    service: usize,
    change: Change,
}

const SERVICES: [&str; 3] = ["", "disk", "ssh"];
const DEVICES: [HostId; 2] = [DEVICE, OTHER];
/// When the rental begins and ends, and when it gets the other device.
const FROM: i64 = 1_000;
const SWAP: i64 = 2_500;
const UNTIL: i64 = 4_000;

fn step() -> impl Strategy<Value = TimedChange> {
    let change = prop_oneof![
        3 => any::<bool>().prop_map(Change::Bad),
        1 => any::<bool>().prop_map(Change::Hidden),
    ];
    (1..250_i64, 0..2_usize, 0..3_usize, change).prop_map(|(after, device, service, change)| TimedChange {
        after,
        device,
        service,
        change,
    })
}

/// A service as it really is.
#[derive(Clone, Copy, Default)]
struct Real {
    bad_since: Option<i64>,
    is_hidden: bool,
}

impl Real {
    fn shown(self) -> Shown {
        match self.bad_since {
            _ if self.is_hidden => Shown::Hidden,
            Some(since) => critical(since),
            None => Shown::Fine,
        }
    }
}

/// The services of both devices at every second.
fn history(steps: &[TimedChange]) -> Vec<[[Real; 3]; 2]> {
    let mut now = [[Real::default(); 3]; 2];
    let (mut all, mut due) = (Vec::new(), steps.iter().peekable());
    let mut next = due.peek().map_or(i64::MAX, |step| step.after);
    for second in 0..UNTIL + 500 {
        while second >= next {
            let Some(step) = due.next() else { break };
            let real = &mut now[step.device][step.service];
            match step.change {
                Change::Bad(true) => real.bad_since = real.bad_since.or(Some(second)),
                Change::Bad(false) => real.bad_since = None,
                Change::Hidden(is_hidden) => real.is_hidden = is_hidden,
            }
            next = due.peek().map_or(i64::MAX, |step| next + step.after);
        }
        all.push(now);
    }
    all
}

fn device_at(second: i64) -> usize {
    usize::from(second >= SWAP)
}

fn begun_at(second: i64) -> i64 {
    if second >= SWAP { SWAP } else { FROM }
}

/// What the contacts were sent last of each service: the begin of the problem, if it is not over.
type SentProblems = [Option<i64>; 3];

proptest! {
    /// The naive model has no stages. It only knows that what holds for a minute and a look has been sent, and that
    /// nothing is sent of what did not hold within the window.
    #[test]
    fn contacts_know_what_holds_for_a_minute_within_the_window_and_nothing_else(
        steps in proptest::collection::vec(step(), 0..30)
    ) {
        let history = history(&steps);
        let (mut known, mut told): (KnownProblems, SentProblems) = (KnownProblems::new(), [None; 3]);
        let look_back = i64::try_from(GATHER.as_secs()).unwrap() + 2 * TICK;
        for second in (FROM..UNTIL).step_by(usize::try_from(TICK).unwrap()) {
            let (device, had_from) = (device_at(second), begun_at(second));
            if second == SWAP {
                told = [None; 3];
            }
            let real = |second: i64| history[usize::try_from(second).unwrap()][device];
            let shown = SERVICES.iter().zip(real(second)).map(|(name, real)| ((*name).to_owned(), real.shown()));
            let rented = Rented { device: DEVICES[device], had_from: at(had_from), is_forced: false, sent: 0 };
            for part in look(&rented, &mut known, &shown.collect(), at(second)).iter().flat_map(|m| &m.parts) {
                let service = SERVICES.iter().position(|name| *name == part.service).unwrap();
                let is_bad = real(second)[service].bad_since;
                prop_assert_eq!(part.is_over, is_bad.is_none(), "it says what is, at {}", second);
                prop_assert_eq!(part.is_over, told[service].is_some(), "each once, at {}", second);
                let since = part.since.map(|since| since.as_millis() / 1_000);
                prop_assert!(since.is_some_and(|since| (had_from..=second).contains(&since)), "in the window");
                told[service] = is_bad.filter(|_| !part.is_over);
            }
            if second - look_back < had_from {
                continue;
            }
            for (service, told) in told.iter().enumerate() {
                let mut past = (second - look_back..=second).map(|second| real(second)[service]);
                let present = real(second)[service];
                let holds = !present.is_hidden
                    && past.all(|past| past.shown() == present.shown());
                match present.bad_since {
                    Some(since) if holds && since >= had_from => {
                        prop_assert!(told.is_some(), "bad since {}, and not sent at {}", since, second);
                    }
                    None if holds => prop_assert!(told.is_none(), "fine, and not sent at {}", second),
                    _ => {}
                }
            }
        }
    }
}
