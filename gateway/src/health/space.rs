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
                "the disk is nearly full: no history is written. States and notifications go on. New samples wait in \
                 fleetgate.db; when the room for them there is used up, the samples of further results are lost, also \
                 of results that are answered 202, and graphs have a gap. Free some space; the gateway continues by \
                 itself",
            ),
            Space::Reserved => Some(
                "the disk is full: results and changes are refused (507 disk_full), and no history is written. The \
                 samples of the gateway's own checks are lost, and graphs have a gap. Free some space; the gateway \
                 continues by itself",
            ),
        }
    }
}
