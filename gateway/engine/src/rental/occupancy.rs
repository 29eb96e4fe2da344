//! When a device is occupied, and when it is free.
//!
//! Windows are half-open: one may begin at the moment at which another one ends.

use std::time::Duration;

use crate::time::Wall;

/// `[from, until)`, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    from: Wall,
    until: Wall,
}

impl Window {
    /// Returns `None` for a window that ends before it begins, or at that moment.
    pub fn new(from: Wall, until: Wall) -> Option<Window> {
        (from < until).then_some(Window { from, until })
    }

    pub const fn from(self) -> Wall {
        self.from
    }

    pub const fn until(self) -> Wall {
        self.until
    }

    pub fn length(self) -> Duration {
        self.until.since(self.from)
    }
}

/// The time in which one rental or block occupies a device: `[from, until)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupancy {
    pub from: Wall,
    /// `None`: it has no end yet.
    pub until: Option<Wall>,
}

impl Occupancy {
    pub fn overlaps(self, other: Occupancy) -> bool {
        let begins_in_time = |one: Occupancy, other: Occupancy| other.until.is_none_or(|end| one.from < end);
        !self.is_empty() && !other.is_empty() && begins_in_time(self, other) && begins_in_time(other, self)
    }

    fn is_empty(self) -> bool {
        self.until.is_some_and(|until| until <= self.from)
    }
}

/// The time that a device needs before and after each rental.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Margins {
    pub preparation: Duration,
    pub turnaround: Duration,
}

impl Margins {
    /// Returns what a rental occupies. A preparation that would begin in the past begins now.
    pub fn around(self, window: Window, now: Wall) -> Occupancy {
        let from = (window.from - self.preparation).max(now.min(window.from));
        Occupancy { from, until: Some(window.until + self.turnaround) }
    }
}

/// Returns the first of these that overlaps with a wanted one.
pub fn conflict(taken: &[Occupancy], wanted: Occupancy) -> Option<Occupancy> {
    taken.iter().copied().filter(|taken| taken.overlaps(wanted)).min_by_key(|taken| taken.from)
}

/// Returns the windows in which a rental may lie, in time order, cut to `within`.
pub fn free(taken: &[Occupancy], margins: Margins, within: Window, now: Wall) -> Vec<Window> {
    let mut sorted: Vec<Occupancy> = taken.iter().copied().filter(|taken| !taken.is_empty()).collect();
    sorted.sort_by_key(|taken| taken.from);
    let (mut found, mut gap_from) = (Vec::new(), None);
    for next in sorted {
        found.extend(in_gap((gap_from, Some(next.from)), margins, within, now));
        let Some(until) = next.until else { return found };
        gap_from = gap_from.max(Some(until));
    }
    found.extend(in_gap((gap_from, None), margins, within, now));
    found
}

/// Returns the window for rentals between two occupancies.
fn in_gap(
    (from, until): (Option<Wall>, Option<Wall>),
    margins: Margins,
    within: Window,
    now: Wall,
) -> Option<Window> {
    let earliest = match from {
        Some(from) if from > now => from + margins.preparation,
        _ => now,
    };
    let latest = until.map_or(within.until, |until| until - margins.turnaround);
    Window::new(earliest.max(within.from), latest.min(within.until))
}

/// Returns the next window of the same length that is free, up to `horizon`.
pub fn next_free(
    taken: &[Occupancy],
    margins: Margins,
    wanted: Window,
    (now, horizon): (Wall, Wall),
) -> Option<Window> {
    let within = Window::new(wanted.from.max(now), horizon)?;
    let fits = |free: &Window| free.length() >= wanted.length();
    let found = free(taken, margins, within, now).into_iter().find(fits)?;
    Window::new(found.from, found.from + wanted.length())
}

/// Returns what a rental would occupy besides, if it ended later.
pub fn extension(present: Window, until: Wall, turnaround: Duration) -> Occupancy {
    Occupancy { from: present.until + turnaround, until: Some(until + turnaround) }
}

/// Returns the latest end of a rental, given what else occupies its device. `None`: nothing follows.
pub fn latest_until(others: &[Occupancy], present: Window, turnaround: Duration) -> Option<Wall> {
    let occupied_until = present.until + turnaround;
    let next = conflict(others, Occupancy { from: occupied_until, until: None })?;
    Some(next.from.max(occupied_until) - turnaround)
}

/// Divides the time in which a rental was used among its devices. `begins`: from when it occupied each
/// device, in this order. A device was in use until the next one took its place.
pub fn in_use<D: Copy>(begins: &[(D, Wall)], used: Window) -> Vec<(D, Window)> {
    let swaps = begins.iter().skip(1).map(|(_, at)| *at);
    let from = std::iter::once(used.from).chain(swaps.clone());
    let until = swaps.chain(std::iter::once(used.until));
    let windows =
        from.zip(until).map(|(from, until)| Window::new(from.max(used.from), until.min(used.until)));
    begins.iter().zip(windows).filter_map(|((device, _), window)| Some((*device, window?))).collect()
}
