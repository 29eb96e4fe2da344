//! How much of its allowance of forwarded bytes a rental has used, and what booking systems learn of it.

use super::events::RentalEventKind;

/// The part of its allowance that a rental has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    Below,
    /// 80 % or more.
    Nearly,
    Reached,
}

impl Level {
    pub const ALL: [Level; 3] = [Level::Below, Level::Nearly, Level::Reached];

    pub fn of(forwarded: u64, allowance: u64) -> Level {
        let (forwarded, allowance) = (u128::from(forwarded), u128::from(allowance));
        match () {
            () if forwarded >= allowance => Level::Reached,
            () if forwarded * 5 >= allowance * 4 => Level::Nearly,
            () => Level::Below,
        }
    }

    /// Returns what happens on the way from this level to another one, in order. On the way down nothing does.
    pub fn entering(self, to: Level) -> Vec<RentalEventKind> {
        let all = [
            (Level::Nearly, RentalEventKind::Allowance80),
            (Level::Reached, RentalEventKind::AllowanceReached),
        ];
        let crossed = all.into_iter().filter(|(level, _)| self < *level && *level <= to);
        crossed.map(|(_, kind)| kind).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_begins_with_its_first_byte() {
        for (forwarded, level) in
            [(0, Level::Below), (799, Level::Below), (800, Level::Nearly), (999, Level::Nearly)]
        {
            assert_eq!(Level::of(forwarded, 1_000), level, "{forwarded}");
        }
        assert_eq!(Level::of(1_000, 1_000), Level::Reached);
        assert_eq!(Level::of(u64::MAX - 1, u64::MAX), Level::Nearly);
        assert_eq!((Level::of(0, 1), Level::of(1, 1)), (Level::Below, Level::Reached));
    }

    #[test]
    fn each_level_is_announced_once_on_the_way_up() {
        let both = [RentalEventKind::Allowance80, RentalEventKind::AllowanceReached];
        assert_eq!(Level::Below.entering(Level::Reached), both);
        assert_eq!(Level::Below.entering(Level::Nearly), both[..1]);
        assert_eq!(Level::Nearly.entering(Level::Reached), both[1..]);
        for level in Level::ALL {
            assert!(level.entering(level).is_empty() && level.entering(Level::Below).is_empty());
        }
    }
}
