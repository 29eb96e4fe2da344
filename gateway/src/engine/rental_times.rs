//! The ends of rentals and the begins of their blocks by both clocks, as the packet filter has them. Others that decide
//! about renters ask here, so that no clock that was set back makes them let in whom the filter keeps out.

use std::sync::{Mutex, MutexGuard};

use fleetgate_engine::forward::KnownTimes;
use fleetgate_engine::messages::{GrantTarget, PolicyChange};
use fleetgate_engine::time::Now;

/// Hears of rentals what the packet filter hears.
#[derive(Default)]
pub struct RentalTimes(Mutex<KnownTimes>);

impl RentalTimes {
    /// Notes changes of the policy that the packet filter gets, too.
    pub fn note(&self, changes: &[PolicyChange], now: Now) {
        let mut known = self.at(now);
        known.forget_over(now);
        changes.iter().for_each(|change| note(&mut known, change, now));
    }

    /// Returns what a decision by the known times says.
    pub fn decide<T>(&self, now: Now, decision: impl FnOnce(&KnownTimes) -> T) -> T {
        decision(&self.at(now))
    }

    fn at(&self, now: Now) -> MutexGuard<'_, KnownTimes> {
        let mut known = self.0.lock().expect("no holder panics");
        known.look(now);
        known
    }
}

fn note(known: &mut KnownTimes, change: &PolicyChange, now: Now) {
    match change {
        PolicyChange::Grant(spec) if matches!(spec.target, GrantTarget::Rental(_)) => {
            known.put(spec.id, spec.until, &spec.gate.blocks, now);
        }
        PolicyChange::WithdrawGrant(id) => known.forget(*id),
        PolicyChange::Floor(floor) => known.set_floor(*floor),
        PolicyChange::AcceptClock => known.accept_clock(now),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;
    use fleetgate_engine::messages::{Gate, GrantSource, GrantSpec};
    use fleetgate_engine::time::{Mono, Wall};

    use super::*;

    fn at(second: i64) -> Wall {
        Wall::from_millis(second * 1_000)
    }

    fn clocks(mono: u64, wall: i64) -> Now {
        Now { mono: Mono::from_secs(mono), wall: at(wall) }
    }

    #[test]
    fn the_times_of_rentals_are_those_that_the_filter_was_told() {
        let (times, rental) = (RentalTimes::default(), Id::from_i64(7));
        let blocks = vec![(at(1_500), at(1_600))];
        let spec = GrantSpec {
            id: rental,
            source: GrantSource::Customer(Id::from_i64(1)),
            target: GrantTarget::Rental(rental),
            access: Vec::new(),
            from: Some(at(1_000)),
            until: Some(at(2_000)),
            only: None,
            gate: Gate { blocks: blocks.clone(), ..Gate::default() },
        };
        times.note(&[PolicyChange::Floor(at(900)), PolicyChange::Grant(spec)], clocks(0, 1_000));
        let is_blocked = |now| times.decide(now, |known| known.is_blocked(rental, &blocks, now));
        let is_over = |now| times.decide(now, |known| known.is_over(rental, at(2_000), now));
        assert!(!is_blocked(clocks(400, 1_400)));
        assert!(!is_blocked(clocks(401, 1_101)), "the clock is set back");
        assert!(is_blocked(clocks(500, 1_200)));
        assert!(is_over(clocks(1_000, 1_700)));
        times.note(&[PolicyChange::AcceptClock], clocks(1_001, 1_701));
        assert!(!is_over(clocks(1_002, 1_702)) && !is_blocked(clocks(1_002, 1_702)));
        times.note(&[PolicyChange::WithdrawGrant(rental)], clocks(1_003, 1_703));
        assert!(
            !is_over(clocks(1_299, 1_999)) && is_over(clocks(1_300, 2_000)),
            "by the clock that is shown"
        );
    }
}
