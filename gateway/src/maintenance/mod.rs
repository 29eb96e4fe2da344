//! Background work that nobody asks for: expiries, and the removal of rows that have been kept long enough.

pub mod clock_watch;
pub mod forwarded;
pub mod housekeeping;
pub mod rental_times;
pub mod retention;
mod steady_clock;
mod stops;
