//! Decides when a downtime is in effect for a checkable (SEMANTICS 6).
//!
//! Downtimes follow the calendar, so a step of the wall clock moves them. A fixed downtime is in
//! effect from its start to its end, and a repeated one in each of its windows. A flexible downtime
//! begins with the first failure inside its window and lasts for its duration from there. Any
//! number may overlap. This module knows nothing of notifications.

mod planned;

use std::time::Duration;

use crate::id::Id;
use crate::messages::{BegunDowntime, Downtime, DowntimeOccurrence, HostScope, HostSpec, When};
use crate::time::Wall;

pub use planned::Planned;

/// A downtime as it applies to one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    pub id: Id,
    /// `None`: the host itself and all its services.
    pub service: Option<String>,
    when: When,
}

impl Window {
    /// Returns `None` if the downtime is not for this host.
    pub fn of(downtime: &Downtime, host: &HostSpec) -> Option<Window> {
        let meant = match &downtime.scope.hosts {
            HostScope::One(id) => *id == host.id,
            HostScope::Labels(labels) => labels.iter().all(|(k, v)| host.labels.get(k) == Some(v)),
        };
        meant.then(|| Window {
            id: downtime.id,
            service: downtime.scope.service.clone(),
            when: downtime.when.clone(),
        })
    }

    /// Returns since when the window is open.
    fn open_from(&self, now: Wall) -> Option<Wall> {
        match &self.when {
            When::Once { start, end, .. } => Some(*start).filter(|start| *start <= now && now < *end),
            When::Repeated(recurrence) => recurrence.at(now).map(|span| span.start),
        }
    }

    fn duration(&self) -> Option<Duration> {
        match self.when {
            When::Once { duration, .. } => duration,
            When::Repeated(_) => None,
        }
    }

    /// Returns the next time at which the window opens or closes.
    fn next_edge(&self, now: Wall) -> Option<Wall> {
        let (start, end) = match &self.when {
            When::Once { start, end, .. } => (*start, *end),
            When::Repeated(recurrence) => recurrence.next(now).map(|span| (span.start, span.end))?,
        };
        [start, end].into_iter().find(|at| *at > now)
    }
}

/// Returns the time from which the downtime can no longer have an effect; `None` if it never ends.
pub fn over_at(downtime: &Downtime) -> Option<Wall> {
    match &downtime.when {
        When::Once { end, duration, .. } => Some(*end + duration.unwrap_or_default()),
        When::Repeated(recurrence) => recurrence.over_at(),
    }
}

/// The flexible downtimes of a checkable that have begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Begun(pub Vec<BegunDowntime>);

impl Begun {
    /// Returns the first downtime in effect. `failing`: the checkable has a problem, which begins a
    /// flexible downtime, once.
    pub fn see<'a>(
        &mut self,
        own: impl Iterator<Item = &'a Window> + Clone,
        failing: bool,
        now: Wall,
    ) -> Option<DowntimeOccurrence> {
        self.0.retain(|begun| own.clone().any(|w| w.id == begun.of.downtime));
        for window in own.clone().filter(|_| failing) {
            let duration = window.duration().filter(|_| self.begun(window.id).is_none());
            if let Some(duration) = duration.filter(|_| window.open_from(now).is_some()) {
                let of = DowntimeOccurrence { downtime: window.id, from: now };
                self.0.push(BegunDowntime { of, until: now + duration });
            }
        }
        own.clone().find_map(|window| self.occasion(window, now))
    }

    fn occasion(&self, window: &Window, now: Wall) -> Option<DowntimeOccurrence> {
        match window.duration() {
            None => window.open_from(now).map(|from| DowntimeOccurrence { downtime: window.id, from }),
            Some(_) => self.begun(window.id).filter(|begun| now < begun.until).map(|begun| begun.of),
        }
    }

    /// Returns the next time at which `see` may return something else without a new result.
    pub fn next<'a>(&self, own: impl Iterator<Item = &'a Window>, now: Wall) -> Option<Wall> {
        let until = |id| self.begun(id).map(|begun| begun.until).filter(|at| *at > now);
        let times = own.flat_map(|w| [w.next_edge(now), until(w.id)]);
        times.flatten().min()
    }

    fn begun(&self, id: Id) -> Option<&BegunDowntime> {
        self.0.iter().find(|begun| begun.of.downtime == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::recurrence::{Hours, Recurrence};

    fn at(secs: i64) -> Wall {
        Wall::from_millis(secs * 1_000)
    }

    fn window(id: i64, start: i64, end: i64, duration: Option<u64>) -> Window {
        let duration = duration.map(Duration::from_secs);
        let when = When::Once { start: at(start), end: at(end), duration };
        Window { id: Id::from_i64(id), service: None, when }
    }

    /// Evaluates each second, with the checkable failing or not; `x`: a downtime is in effect.
    fn effects(windows: &[Window], failing: impl Fn(i64) -> bool, until: i64) -> String {
        let mut begun = Begun::default();
        let mut see = |t| begun.see(windows.iter(), failing(t), at(t)).is_some();
        (0..until).map(|t| if see(t) { 'x' } else { '.' }).collect()
    }

    #[test]
    fn a_fixed_one_holds_from_its_start_up_to_its_end() {
        assert_eq!(effects(&[window(1, 2, 5, None)], |_| false, 8), "..xxx...");
    }

    #[test]
    fn a_flexible_one_begins_with_the_first_failure_inside_and_may_outlast_its_window() {
        let flexible = [window(1, 2, 6, Some(4))];
        assert_eq!(effects(&flexible, |_| false, 12), "............");
        assert_eq!(effects(&flexible, |t| t == 5, 12), ".....xxxx...");
        assert_eq!(effects(&flexible, |t| t < 2, 12), "............");
        assert_eq!(effects(&flexible, |t| t < 3, 12), "..xxxx......");
        assert_eq!(effects(&flexible, |t| t >= 6, 12), "............");
    }

    #[test]
    fn a_flexible_one_begins_once() {
        assert_eq!(effects(&[window(1, 0, 9, Some(2))], |t| t == 1 || t == 6, 10), ".xx.......");
    }

    #[test]
    fn a_begun_downtime_keeps_its_start_and_end_when_the_plan_changes() {
        let mut begun = Begun::default();
        let occasion = begun.see([window(1, 0, 9, Some(5))].iter(), true, at(1));
        let longer = [window(1, 0, 9, Some(50))];
        assert_eq!(begun.see(longer.iter(), true, at(5)), occasion);
        assert_eq!(begun.see(longer.iter(), true, at(6)), None);
    }

    #[test]
    fn overlapping_ones_nest() {
        let both = [window(1, 1, 4, None), window(2, 3, 6, None), window(3, 0, 9, Some(1))];
        assert_eq!(effects(&both, |t| t == 7, 9), ".xxxxx.x.");
    }

    #[test]
    fn a_repeated_one_has_an_effect_in_each_of_its_windows() {
        let recurrence = Recurrence {
            every: "day".parse().unwrap(),
            hours: Hours::new("00:01", "00:02").unwrap(),
            zone: jiff::tz::TimeZone::UTC,
            first: None,
            last: None,
        };
        let daily = Window { when: When::Repeated(recurrence), ..window(1, 0, 0, None) };
        let mut begun = Begun::default();
        for day in 0..3 {
            let mut see = |t| begun.see([&daily].into_iter(), false, at(day * 86_400 + t));
            let from = at(day * 86_400 + 60);
            assert_eq!((see(59), see(120)), (None, None));
            assert_eq!(see(119), Some(DowntimeOccurrence { downtime: Id::from_i64(1), from }));
            assert_eq!(begun.next([&daily].into_iter(), from), Some(at(day * 86_400 + 120)));
            assert_eq!(
                begun.next([&daily].into_iter(), at(day * 86_400 + 120)),
                Some(at((day + 1) * 86_400 + 60))
            );
        }
    }

    #[test]
    fn a_cancelled_downtime_is_forgotten() {
        let mut begun = Begun::default();
        let flexible = [window(1, 0, 9, Some(5))];
        let occasion = begun.see(flexible.iter(), true, at(1));
        assert_eq!(occasion, Some(DowntimeOccurrence { downtime: Id::from_i64(1), from: at(1) }));
        assert_eq!(begun.see([].iter(), true, at(2)), None);
        assert_eq!(begun, Begun::default());
    }

    #[test]
    fn the_next_look_is_at_the_next_edge() {
        let windows = [window(1, 2, 5, None), window(2, 1, 9, Some(20))];
        let mut begun = Begun::default();
        let mut next = |t, failing| {
            begun.see(windows.iter(), failing, at(t));
            begun.next(windows.iter(), at(t))
        };
        assert_eq!(next(0, false), Some(at(1)));
        assert_eq!(next(1, false), Some(at(2)));
        assert_eq!(next(5, true), Some(at(9)));
        assert_eq!(next(9, true), Some(at(25)));
        assert_eq!(next(25, true), None);
    }
}
