//! The storage of the history.
//!
//! `fleetgate.db` has the names of the series and the redo: samples that are not sealed yet.
//! `history.db` has only blocks: sealed samples and their roll-ups, each with a checksum. It can be
//! lost at any time.
//!
//! Data only moves from a table of blocks to one that follows it in [`Table::ALL`], in one
//! transaction. Where two of them have a second or a bucket, the earlier table counts. So a reader
//! that reads them in this order misses nothing, and a step that is repeated changes nothing.
//!
//! This module decides neither when a step runs nor how long anything is kept.

pub mod blocks;
pub mod convert;
mod file;
pub mod read;
pub mod redo;
pub mod series;
pub mod steps;

pub use blocks::Table;
pub use convert::Conversion;
pub use file::{History, SetAside};
pub use read::Read;
pub use series::{Series, SeriesCache};
pub use steps::Sealable;
