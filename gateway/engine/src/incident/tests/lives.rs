//! Long random runs of a small fleet in which routers, devices and the hosts behind them fail. A
//! second gateway over the same fleet restarts now and then, and must agree with the first.

use super::*;

/// Three routers, each before three devices of its site; one more host behind the first of those
/// devices; and nine hosts that are behind no other.
const HOSTS: i64 = 24;
/// Rounds of results after which no checkable may change its incident. A host that leaves is placed
/// in the first round, and the hosts behind it follow in the second.
const SETTLED: usize = 3;

fn before(n: i64) -> Option<i64> {
    match n {
        3..12 => Some((n - 3) / 3),
        12..15 => Some(3 + (n - 12) * 3),
        _ => None,
    }
}

fn site(n: i64) -> i64 {
    before(n).map_or(n, site)
}

/// The true state of the fleet, independent of any gateway.
#[derive(Default)]
struct Truth {
    dead: BTreeSet<i64>,
    /// The failing checkables, each with the start of its failure.
    failing: BTreeMap<CheckableId, Wall>,
}

impl Truth {
    fn is_cut_off(&self, n: i64) -> bool {
        before(n).is_some_and(|parent| self.dead.contains(&parent) || self.is_cut_off(parent))
    }

    fn change(&mut self, what: u8, n: i64) {
        let many = || n..(n + 7).min(HOSTS);
        match what {
            0 | 1 => drop(self.dead.insert(n)),
            2 | 3 => drop(self.dead.remove(&n)),
            4 => self.dead.extend(many()),
            5 => self.dead.retain(|dead| !many().contains(dead)),
            _ => {}
        }
    }

    fn note(&mut self, now: Wall) {
        for n in 0..HOSTS {
            if self.dead.contains(&n) || self.is_cut_off(n) {
                self.failing.entry(host(n)).or_insert(now);
            } else {
                self.failing.remove(&host(n));
            }
        }
    }
}

impl Watch {
    fn of_lives(secs: u64, truth: &Truth) -> Watch {
        let mut watch = Watch { secs, ..Watch::new() };
        for n in 0..HOSTS {
            let parents: Vec<i64> = before(n).into_iter().collect();
            watch.know(n, Some(&format!("site-{}", site(n))), &parents);
            if let Some(began) = truth.failing.get(&host(n)) {
                watch.incidents.fleet.down(id(n), *began);
            }
        }
        watch
    }

    /// Reports one result for each host.
    fn round(&mut self, truth: &Truth) {
        let at = self.at();
        for n in 0..HOSTS {
            match truth.failing.get(&host(n)) {
                Some(began) => drop(self.incidents.problem(
                    &host(n),
                    *began,
                    &ProblemFinding::default(),
                    !truth.is_cut_off(n),
                    at,
                )),
                None => self.incidents.well(&host(n), at.now),
            }
        }
        while self.incidents.poll_cover().is_some() {}
    }

    fn settle(&mut self, truth: &Truth) -> Result<(), TestCaseError> {
        (0..SETTLED).for_each(|_| self.round(truth));
        self.heard();
        self.round(truth);
        prop_assert_eq!(self.heard(), vec![""; 0], "nothing has changed, and yet somebody moves");
        Ok(())
    }

    /// Restarts from the state that the store kept.
    fn again(&self, truth: &Truth) -> Watch {
        let mut again = Watch::of_lives(self.secs, truth);
        let newest_first = self.incidents.open.keys().rev();
        let memories = newest_first.map(|id| many::remembered(self, *id)).collect();
        again.incidents.restore(memories, self.now());
        again
    }

    /// Returns the sets of problems that share an incident.
    fn groups(&self) -> BTreeSet<BTreeSet<CheckableId>> {
        let problem = |i: &Incident| open_members(i).into_iter().collect::<BTreeSet<CheckableId>>();
        self.incidents.open.values().map(problem).filter(|group| !group.is_empty()).collect()
    }

    fn check(&self, truth: &Truth) -> Result<(), TestCaseError> {
        let now = self.now();
        for object in truth.failing.keys() {
            let within = self.incidents.open.values().filter(|i| i.has_problem(object)).count();
            let cut_off = (0..HOSTS).any(|n| host(n) == *object && truth.is_cut_off(n));
            prop_assert!(within == 1 || cut_off && within == 0, "{:?} is ill in {}", object, within);
        }
        for (id, incident) in &self.incidents.open {
            let quiet = incident.quiet.map(|since| now.mono.since(since.mono));
            prop_assert!(quiet.is_none_or(|quiet| quiet < CLOSE_AFTER), "{:?} is open for {:?}", id, quiet);
            let problem = open_members(incident).into_iter().filter(|o| o.host != GATEWAY);
            for object in problem {
                prop_assert!(truth.failing.contains_key(&object), "{:?} is well in {:?}", object, id);
                prop_assert_eq!(self.incidents.of(&object), Some(*id));
            }
            prop_assert!(incident.ack.is_none() || incident.problem > 0, "{:?} is known of, and over", id);
        }
        Ok(())
    }
}

proptest! {
    /// For any sequence of failures and recoveries, each failing checkable is in one open incident
    /// and stays there until something changes. Incidents whose members have recovered close, and a
    /// restart changes none of this.
    #[test]
    fn every_problem_is_in_one_incident_and_a_restart_changes_nothing(
        steps in proptest::collection::vec((0u8..10, 0..HOSTS, 1u64..400), 1..40),
    ) {
        let mut truth = Truth::default();
        let mut watch = Watch::of_lives(1_000_000, &truth);
        let mut other = Watch::of_lives(1_000_000, &truth);
        for (what, n, secs) in steps {
            truth.change(what, n);
            watch.wait(secs);
            other.wait(secs);
            truth.note(watch.now().wall);
            if what == 6 {
                other = other.again(&truth);
            }
            for each in [&mut watch, &mut other] {
                match (what, each.incidents.of(&host(n))) {
                    (7, Some(id)) if each.incidents.open[&id].problem > 0 => drop(each.acknowledge(id, ack())),
                    (8, _) => { let at = each.at(); each.incidents.uplink(n % 3 == 0, at); }
                    _ => {}
                }
                each.settle(&truth)?;
                each.check(&truth)?;
            }
            prop_assert_eq!(watch.groups(), other.groups());
        }
    }
}
