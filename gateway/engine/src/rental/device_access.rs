//! What is to be done on a device for its renters: let them log in over SSH, take that away again, and clean.
//!
//! A rental that had something on the device is undone before the next one gets anything. Until a removal is
//! verified, and a grant has succeeded, the device is not handed over. Each call may be repeated.
//!
//! Access ends by both clocks, as in the packet filter: a clock that was set back leaves no login and no session on a
//! device after the end of a rental or in a block.

use std::time::Duration;

use crate::forward::KnownTimes;
use crate::id::RentalId;
use crate::time::{Mono, Now, Wall};

/// A principal is granted this long before the window: certificates themselves begin with it. Keys do not, so they are
/// granted when it begins.
pub const LEAD: Duration = Duration::from_secs(120);
/// Pause after a first failure; each further one doubles it.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// Longest pause: a device that comes back gives its renters away, or lets them in, within a minute.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// How renters log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Certificates,
    Keys,
}

impl Mode {
    pub const ALL: [Mode; 2] = [Mode::Certificates, Mode::Keys];

    pub const fn name(self) -> &'static str {
        match self {
            Mode::Certificates => "certificates",
            Mode::Keys => "keys",
        }
    }

    pub fn named(name: &str) -> Option<Mode> {
        Mode::ALL.into_iter().find(|mode| mode.name() == name)
    }
}

/// The data that a device is given for a rental.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    pub rental: RentalId,
    pub until: Wall,
    /// How the device recognises the keys.
    pub mode: Mode,
    /// The public keys that it lets in, itself or by their certificates.
    pub keys: Vec<String>,
}

/// A confirmed rental that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rented {
    pub rental: RentalId,
    /// The window.
    pub from: Wall,
    pub until: Wall,
    /// Its renters may log in.
    pub ssh: bool,
    /// The keys of the renters that it admits.
    pub keys: Vec<String>,
    /// Times in which its device is blocked, and its renters are kept out.
    pub blocks: Vec<(Wall, Wall)>,
}

impl Rented {
    /// Whether its renters are kept out now, or will be when its window begins.
    fn is_shut(&self, known: &KnownTimes, now: Now) -> bool {
        known.is_over(self.rental, self.until, now) || self.is_blocked(known, now)
    }

    fn is_blocked(&self, known: &KnownTimes, now: Now) -> bool {
        let wait = self.from.since(now.wall);
        let begun = Now { mono: now.mono + wait, wall: now.wall + wait };
        known.is_blocked(self.rental, &self.blocks, begun)
    }
}

/// What a device has of a rental, or may have: a call that got no answer may have worked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub rental: RentalId,
    /// `None`: no grant has succeeded.
    pub access: Option<Access>,
}

/// A device, as the store knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// It has an account for renters.
    pub has_account: bool,
    /// `None`: its helper has not been asked.
    pub mode: Option<Mode>,
    /// It has a cleaning command.
    pub cleans: bool,
    pub held: Option<Held>,
    /// The rental after which it is to be cleaned.
    pub used_by: Option<RentalId>,
    /// When the rental is over for which it was dispatched. `None`: it was not, or is back.
    pub lent_until: Option<Wall>,
    /// Keys of the device that a renter with root may have copied are still in use.
    pub is_exposed: bool,
}

/// Something to do on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Asks the helper how renters log in.
    Ask,
    Grant(Access),
    Revoke(RentalId),
    /// Notes that it is to be cleaned after this rental. Nothing is done on the device.
    Use(RentalId),
    /// Runs the cleaning command.
    Clean(RentalId),
}

/// Returns what is to be done next. `rentals`: those of the device. `known`: of their times.
pub fn next_action(device: &Device, rentals: &[Rented], known: &KnownTimes, now: Now) -> Option<Action> {
    if device.lent_until.is_some_and(|until| until <= now.wall) {
        // It is with its former renters yet: cleaning, and what is for the next ones, wait until it is back.
        return device.held.as_ref().map(|held| Action::Revoke(held.rental));
    }
    let running = rentals.iter().find(|rental| (rental.from..rental.until).contains(&now.wall));
    let granted = running.or_else(|| upcoming(device, rentals, now.wall));
    let granted = granted.filter(|rental| rental.ssh && !rental.is_shut(known, now));
    if let Some(held) = &device.held
        && granted.is_none_or(|rental| rental.rental != held.rental)
    {
        return Some(Action::Revoke(held.rental));
    }
    let running = running.map(|rental| rental.rental);
    match (device.used_by.filter(|_| device.cleans), running) {
        (Some(used_by), running) if running != Some(used_by) => return Some(Action::Clean(used_by)),
        (None, Some(running)) if device.cleans => return Some(Action::Use(running)),
        _ => {}
    }
    if !device.has_account {
        return None;
    }
    let Some(mode) = device.mode else { return Some(Action::Ask) };
    let access = access(granted?, mode);
    let has = device.held.as_ref().and_then(|held| held.access.as_ref());
    (has != Some(&access)).then_some(Action::Grant(access))
}

/// Returns the rental that gets its principal before its window.
fn upcoming<'a>(device: &Device, rentals: &'a [Rented], now: Wall) -> Option<&'a Rented> {
    let mut soon = rentals.iter().filter(|rental| now < rental.from && rental.from <= now + LEAD);
    soon.next().filter(|_| device.mode == Some(Mode::Certificates))
}

fn access(rental: &Rented, mode: Mode) -> Access {
    Access { rental: rental.rental, until: rental.until, mode, keys: rental.keys.clone() }
}

/// The reasons that keep a device from being handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The removal of the access of a former rental is not verified.
    NotRevoked(RentalId),
    /// The cleaning command has not succeeded after this rental.
    NotCleaned(RentalId),
    /// It needs new keys.
    Exposed,
    /// The renters cannot log in yet.
    NotGranted,
    /// The renters may log in, and the device has no account for them any more.
    NoAccount,
}

/// Returns what keeps a device from being handed over. `rental`: to which one, and whether its renters may log in;
/// `None`: to any.
pub fn obstacle(device: &Device, rental: Option<(RentalId, bool)>) -> Option<Obstacle> {
    let is_other = |of: &RentalId| rental.is_none_or(|(rental, _)| rental != *of);
    let held = device.held.as_ref();
    if let Some(former) = held.map(|held| held.rental).filter(is_other) {
        return Some(Obstacle::NotRevoked(former));
    }
    if let Some(former) = device.used_by.filter(|_| device.cleans).filter(is_other) {
        return Some(Obstacle::NotCleaned(former));
    }
    if device.is_exposed {
        return Some(Obstacle::Exposed);
    }
    rental.filter(|(_, ssh)| *ssh)?;
    let is_granted = held.is_some_and(|held| held.access.is_some());
    match (device.has_account, is_granted) {
        (false, _) => Some(Obstacle::NoAccount),
        (true, false) => Some(Obstacle::NotGranted),
        (true, true) => None,
    }
}

/// What keeps renters from logging in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// Their device is blocked.
    Blocked,
    Other(Obstacle),
}

/// Returns what keeps the renters of a rental from logging in, or not all of them as they are to: in its window, what is
/// not on the device yet, and before it a device that has not said how renters log in.
pub fn hindrance(device: &Device, rented: &Rented, known: &KnownTimes, now: Now) -> Option<Hindrance> {
    if now.wall < rented.from {
        return device.mode.is_none().then_some(Hindrance::Other(Obstacle::NotGranted));
    }
    if rented.is_blocked(known, now) {
        return Some(Hindrance::Blocked);
    }
    let held = device.held.as_ref();
    if let Some(former) = held.filter(|held| held.rental != rented.rental) {
        return Some(Hindrance::Other(Obstacle::NotRevoked(former.rental)));
    }
    let wanted = device.mode.map(|mode| access(rented, mode));
    let is_granted = wanted.is_some() && held.and_then(|held| held.access.as_ref()) == wanted.as_ref();
    (!is_granted).then_some(Hindrance::Other(Obstacle::NotGranted))
}

/// When something that failed is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempts {
    action: Action,
    failures: u32,
    next: Mono,
}

impl Attempts {
    /// Notes that an action has failed now.
    pub fn failed(before: Option<Attempts>, action: Action, now: Mono) -> Attempts {
        let failures = before.filter(|before| before.action == action).map_or(0, |before| before.failures);
        let pause = FIRST_RETRY.saturating_mul(1 << failures.min(8)).min(LONGEST_RETRY);
        Attempts { action, failures: failures + 1, next: now + pause }
    }

    /// When it is tried again.
    pub fn due(&self) -> Mono {
        self.next
    }

    /// Whether an action is to be done now. Another one than that which failed is.
    pub fn permit(&self, action: &Action, now: Mono) -> bool {
        self.action != *action || self.next <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id;

    fn at(second: i64) -> Wall {
        Wall::from_millis(second * 1_000)
    }

    fn rented(id: i64, from: i64, until: i64) -> Rented {
        let keys = vec![format!("key {id}")];
        let (from, until) = (at(from), at(until));
        Rented { rental: Id::from_i64(id), from, until, ssh: true, keys, blocks: Vec::new() }
    }

    fn with(mode: Mode) -> Device {
        Device { has_account: true, mode: Some(mode), ..Device::default() }
    }

    fn holding(device: Device, rental: &Rented) -> Device {
        let mode = device.mode.expect("it was asked");
        let held = Held { rental: rental.rental, access: Some(access(rental, mode)) };
        Device { held: Some(held), ..device }
    }

    /// Both clocks, of which the other one began when this one showed zero.
    fn clocks(second: i64) -> Now {
        Now { mono: Mono::from_secs(second as u64), wall: at(second) }
    }

    fn next(device: &Device, rentals: &[Rented], second: i64) -> Option<Action> {
        next_action(device, rentals, &KnownTimes::default(), clocks(second))
    }

    #[test]
    fn renters_are_let_in_with_the_window_and_out_at_its_end() {
        let rental = rented(1, 1_000, 2_000);
        let rentals = [rental.clone()];
        let (certificates, keys) = (with(Mode::Certificates), with(Mode::Keys));
        let grant = |mode| Some(Action::Grant(access(&rental, mode)));
        assert_eq!(next(&certificates, &rentals, 879), None);
        assert_eq!(next(&certificates, &rentals, 880), grant(Mode::Certificates));
        assert_eq!((next(&keys, &rentals, 999), next(&keys, &rentals, 1_000)), (None, grant(Mode::Keys)));
        let has = holding(keys, &rental);
        assert_eq!((next(&has, &rentals, 1_000), next(&has, &rentals, 1_999)), (None, None));
        assert_eq!(next(&has, &rentals, 2_000), Some(Action::Revoke(rental.rental)));
        assert_eq!(next(&has, &[], 1_500), Some(Action::Revoke(rental.rental)), "it was ended or swapped");
        let without = [Rented { ssh: false, ..rental.clone() }];
        assert_eq!(next(&has, &without, 1_500), Some(Action::Revoke(rental.rental)));
    }

    #[test]
    fn a_longer_window_and_other_keys_are_granted_anew() {
        let rental = rented(1, 1_000, 2_000);
        let longer = Rented { until: at(3_000), ..rental.clone() };
        let other = Rented { keys: vec!["another".to_owned()], ..rental.clone() };
        for (mode, changed, is_granted) in [
            (Mode::Certificates, &longer, true),
            (Mode::Keys, &longer, true),
            (Mode::Keys, &other, true),
            (Mode::Certificates, &other, true),
            (Mode::Certificates, &rental, false),
        ] {
            let action = next(&holding(with(mode), &rental), std::slice::from_ref(changed), 1_500);
            assert_eq!(action, is_granted.then(|| Action::Grant(access(changed, mode))), "{mode:?}");
        }
    }

    #[test]
    fn a_device_that_recognises_renters_in_another_way_is_given_them_anew() {
        let rental = rented(1, 1_000, 2_000);
        let before = holding(with(Mode::Keys), &rental);
        let after = Device { mode: Some(Mode::Certificates), ..before };
        let grant = Action::Grant(access(&rental, Mode::Certificates));
        assert_eq!(next(&after, &[rental], 1_500), Some(grant));
    }

    #[test]
    fn renters_are_kept_out_while_their_device_is_blocked() {
        let blocks = vec![(at(1_200), at(1_300)), (at(1_900), at(9_000))];
        let rental = Rented { blocks, ..rented(1, 1_000, 2_000) };
        let rentals = [rental.clone()];
        let (without, has) = (with(Mode::Certificates), holding(with(Mode::Certificates), &rental));
        let grant = || Some(Action::Grant(access(&rental, Mode::Certificates)));
        let revoke = || Some(Action::Revoke(rental.rental));
        assert_eq!((next(&without, &rentals, 1_199), next(&has, &rentals, 1_199)), (grant(), None));
        assert_eq!((next(&without, &rentals, 1_200), next(&has, &rentals, 1_200)), (None, revoke()));
        assert_eq!((next(&without, &rentals, 1_300), next(&has, &rentals, 1_300)), (grant(), None));
        assert_eq!(next(&has, &rentals, 1_900), revoke());
        let blocked = [Rented { blocks: vec![(at(1_000), at(1_100))], ..rental.clone() }];
        assert_eq!(next(&without, &blocked, 950), None, "its window begins with the block");
        assert!(next(&without, &blocked, 1_100).is_some());
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_no_renter_on_a_device() {
        let rental = Rented { blocks: vec![(at(1_200), at(1_300))], ..rented(1, 1_000, 2_000) };
        let (rentals, has) = ([rental.clone()], holding(with(Mode::Certificates), &rental));
        let (without, mut known) = (with(Mode::Certificates), KnownTimes::default());
        let mut next = |device: &Device, mono, second| {
            let now = Now { mono: Mono::from_secs(mono), wall: at(second) };
            known.look(now);
            known.put(rental.rental, Some(rental.until), &rental.blocks, now);
            next_action(device, &rentals, &known, now)
        };
        let revoke = || Some(Action::Revoke(rental.rental));
        assert_eq!((next(&without, 0, 500), next(&has, 600, 1_100)), (None, None));
        assert_eq!(next(&has, 610, 1_010), None, "the clock is set back, and the block has not begun");
        assert_eq!((next(&has, 699, 1_099), next(&has, 700, 1_100)), (None, revoke()));
        assert_eq!((next(&without, 899, 1_299), next(&has, 899, 1_299)), (None, revoke()));
        let granted = next(&without, 900, 1_300);
        assert!(
            matches!(granted, Some(Action::Grant(_))),
            "a block ends by the clock that is shown: {granted:?}"
        );
        assert_eq!(
            (next(&has, 1_499, 1_899), next(&has, 1_500, 1_900)),
            (None, revoke()),
            "the rental is over"
        );
        assert_eq!(next(&without, 1_500, 1_900), None);
    }

    #[test]
    fn what_keeps_renters_out_is_told_also_in_a_rental_that_runs() {
        let rental = rented(1, 1_000, 2_000);
        let known = KnownTimes::default();
        let of = |device: &Device, second| hindrance(device, &rental, &known, clocks(second));
        let not_granted = Some(Hindrance::Other(Obstacle::NotGranted));
        let unknown = Device { has_account: true, ..Device::default() };
        assert_eq!((of(&unknown, 500), of(&with(Mode::Keys), 500)), (not_granted, None));
        let has = holding(with(Mode::Keys), &rental);
        assert_eq!((of(&with(Mode::Keys), 1_500), of(&has, 1_500)), (not_granted, None));
        let more = Rented { keys: vec!["another".to_owned()], ..rental.clone() };
        let more = hindrance(&has, &more, &known, clocks(1_500));
        assert_eq!(more, not_granted, "another renter is not let in yet");
        let blocked = Rented { blocks: vec![(at(1_400), at(1_600))], ..rental.clone() };
        assert_eq!(hindrance(&has, &blocked, &known, clocks(1_500)), Some(Hindrance::Blocked));
        let former = holding(with(Mode::Keys), &rented(7, 0, 1_000));
        let not_revoked = Hindrance::Other(Obstacle::NotRevoked(Id::from_i64(7)));
        assert_eq!(of(&former, 1_500), Some(not_revoked));
    }

    #[test]
    fn a_rental_with_ssh_does_not_begin_on_a_device_that_has_lost_its_account() {
        let rental = rented(1, 1_000, 2_000);
        let device = Device::default();
        assert_eq!(obstacle(&device, Some((rental.rental, true))), Some(Obstacle::NoAccount));
        assert_eq!(obstacle(&device, Some((rental.rental, false))), None);
        assert_eq!((next(&device, &[rental], 1_500), obstacle(&device, None)), (None, None));
    }

    #[test]
    fn the_former_rental_is_undone_and_cleaned_before_the_next_one_is_let_in() {
        let (first, second) = (rented(1, 1_000, 2_000), rented(2, 2_000, 3_000));
        let rentals = [first.clone(), second.clone()];
        let mut device = Device { cleans: true, ..holding(with(Mode::Certificates), &first) };
        assert_eq!(next(&device, &rentals, 1_000), Some(Action::Use(first.rental)));
        device.used_by = Some(first.rental);
        assert_eq!(next(&device, &rentals, 1_999), None, "the next one waits for the end of this one");
        assert_eq!(obstacle(&device, Some((first.rental, true))), None);
        assert_eq!(next(&device, &rentals, 2_000), Some(Action::Revoke(first.rental)));
        assert_eq!(obstacle(&device, Some((second.rental, true))), Some(Obstacle::NotRevoked(first.rental)));
        device.held = None;
        assert_eq!(next(&device, &rentals, 2_000), Some(Action::Clean(first.rental)));
        assert_eq!(obstacle(&device, None), Some(Obstacle::NotCleaned(first.rental)));
        device.used_by = None;
        assert_eq!(next(&device, &rentals, 2_000), Some(Action::Use(second.rental)));
        device.used_by = Some(second.rental);
        assert_eq!(next(&device, &rentals, 2_000), Some(Action::Grant(access(&second, Mode::Certificates))));
        assert_eq!(obstacle(&device, Some((second.rental, true))), Some(Obstacle::NotGranted));
        assert_eq!(obstacle(&device, Some((second.rental, false))), None);
    }

    #[test]
    fn a_device_that_has_not_come_back_is_neither_cleaned_nor_given_to_the_next_renters() {
        let (first, second) = (rented(1, 1_000, 2_000), rented(2, 2_000, 3_000));
        let lent = Device { cleans: true, lent_until: Some(at(2_000)), ..with(Mode::Certificates) };
        let mut device = Device { used_by: Some(first.rental), ..holding(lent, &first) };
        let rentals = [first.clone(), second];
        assert_eq!(next(&device, &rentals, 1_999), None);
        let revoke = Some(Action::Revoke(first.rental));
        assert_eq!(next(&device, &rentals, 2_000), revoke, "its renters are shut out at once");
        device.held = None;
        assert_eq!(next(&device, &rentals, 2_500), None, "the next rental waits");
        device.lent_until = None;
        assert_eq!(next(&device, &rentals, 2_500), Some(Action::Clean(first.rental)), "it is back");
    }

    #[test]
    fn a_device_without_a_command_or_an_account_is_left_alone() {
        let rental = rented(1, 1_000, 2_000);
        let device = Device { used_by: Some(rental.rental), ..Device::default() };
        assert_eq!((next(&device, &[rental], 1_500), obstacle(&device, None)), (None, None));
        let unknown = Device { has_account: true, ..Device::default() };
        assert_eq!(next(&unknown, &[], 0), Some(Action::Ask));
        let exposed = Device { is_exposed: true, ..unknown };
        assert_eq!(obstacle(&exposed, None), Some(Obstacle::Exposed));
    }

    #[test]
    fn what_fails_is_tried_again_later_and_something_else_at_once() {
        let revoke = Action::Revoke(Id::from_i64(1));
        let mut pauses = Vec::new();
        let (mut attempts, mut now) = (None, Mono::from_secs(100));
        for _ in 0..12 {
            let failed = Attempts::failed(attempts, revoke.clone(), now);
            pauses.push(failed.next.since(now).as_secs());
            assert!(!failed.permit(&revoke, now) && failed.permit(&revoke, failed.due()));
            assert!(failed.permit(&Action::Ask, now));
            now = failed.next;
            attempts = Some(failed);
        }
        assert_eq!(pauses[..6], [5, 10, 20, 40, 60, 60]);
        assert_eq!(pauses[11], 60);
        let other = Attempts::failed(attempts, Action::Ask, now);
        assert_eq!(other.next.since(now), FIRST_RETRY);
    }
}
