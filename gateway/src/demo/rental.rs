//! The story of the rental unit: it comes up, passes its check, and is switched off to be reconfigured.

use std::future::Future;
use std::time::Duration;

use super::fleet::{DemoFleet, FleetError};

/// Interval between two looks at the unit's check.
const LOOK: Duration = Duration::from_secs(1);

/// Polls `passed` until it returns true, then switches the unit off.
///
/// # Errors
/// Fails when the fleet has no such unit.
pub async fn reconfigure<F>(
    fleet: &DemoFleet,
    unit: &str,
    mut passed: impl FnMut() -> F,
) -> Result<(), FleetError>
where
    F: Future<Output = bool>,
{
    while !passed().await {
        tokio::time::sleep(LOOK).await;
    }
    fleet.off(unit).await
}
