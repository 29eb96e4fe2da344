//! Background work that nobody asks for: expiries, and the removal of rows that have been kept long enough.

mod clock_messages;
mod clock_readings;
pub mod clock_watch;
pub mod forwarded;
mod future_intervals;
pub mod handovers;
pub mod housekeeping;
pub mod other_devices;
pub mod rental_allowances;
pub mod rental_notices;
pub mod rental_phases;
pub mod rental_reports;
pub mod rental_times;
pub mod restore_notice;
pub mod retention;
mod steady_clock;
mod stop_records;
mod stops;
