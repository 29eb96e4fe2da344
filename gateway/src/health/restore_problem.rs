//! The text about what waits after a restore.

use fleetgate_engine::time::Wall;

/// The end of the waiting.
pub const RESTORE_CONFIRMED: &str = "an admin has confirmed what the restore brought back: operators and renters reach what their grants permit";

/// Says what waits for an admin since a restore, with the remedy.
pub fn restore_problem(restored_at: Wall) -> String {
    let at = jiff::Timestamp::from_millisecond(restored_at.as_millis()).unwrap_or_default();
    format!(
        "this gateway was restored from a backup at {at}, and operators, renters and bookings wait until an admin \
         confirms what came back: look at `fleetgate restore-review show` or the page, then confirm it"
    )
}
