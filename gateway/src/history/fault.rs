//! The places at which a test ends the recorder as a kill would.

use std::sync::Arc;

/// A place between two steps that a power cut or a kill may separate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum At {
    /// The redo is written and not committed.
    Redo,
    /// The redo is committed, and memory does not have its samples.
    Committed,
    /// A generation has ended, and nothing of it is sealed.
    Rotated,
    /// Some series of a generation are sealed.
    SealStep,
    /// A generation is sealed, and its redo is still there.
    Sealed,
    /// Some of the redo of a sealed generation is removed.
    Forget,
    CompactStep,
    MergeStep,
    ConvertStep,
}

impl At {
    /// All of them, in the order in which a sample meets them.
    #[cfg(test)]
    pub const ALL: [At; 9] = [
        At::Redo,
        At::Committed,
        At::Rotated,
        At::SealStep,
        At::Sealed,
        At::Forget,
        At::CompactStep,
        At::MergeStep,
        At::ConvertStep,
    ];
}

/// Whether the recorder ends here. The step that asks fails, and the test drops everything.
pub type Fault = Arc<dyn Fn(At) -> bool + Send + Sync>;
