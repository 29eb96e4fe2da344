//! How much room the disk with the databases has, and the text about it.

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Space {
    #[default]
    Enough,
    /// The history is not written. Results and changes are taken.
    Low,
    /// Results and changes are refused.
    Reserved,
}

impl Space {
    /// Says what the lack of room stops, with the remedy. `None`: there is room.
    pub const fn problem(self) -> Option<&'static str> {
        match self {
            Space::Enough => None,
            Space::Low => Some(
                "the disk is nearly full: no history is written. Newer samples wait in fleetgate.db, and graphs have \
                 a gap once there is no room for more of them. Free some space; the gateway continues by itself",
            ),
            Space::Reserved => Some(
                "the disk is full: results and changes are refused (507 disk_full), and no history is written. Free \
                 some space; the gateway continues by itself",
            ),
        }
    }
}
