//! Another device of the same selection, for a rental whose device is not handed over in time.
//!
//! It is a swap, in the same transaction and with the same refusals, and its author is the gateway. A device is taken
//! that would be handed over at once.

use std::time::Duration;

use fleetgate_engine::id::Id;
use fleetgate_engine::rental::device_access::Obstacle;
use fleetgate_engine::rental::life::State as RentalState;

use super::allocate::Selection;
use super::{access, begin, change, handovers, ssh};
use crate::api::AppState;
use crate::api::request::ids::IdKind;
use crate::api::request::transaction::ApiTx;
use crate::api::response::problem::Problem;
use crate::store::events::SYSTEM;
use crate::store::instance;
use crate::store::rentals::device_choices::{self, DeviceChoice};
use crate::store::rentals::devices::Candidate;
use crate::store::rentals::{self as stored, devices as renting, handovers as gates};

/// The shortest and the longest delay. A handover takes some seconds, and a window is rarely longer than a month.
const SHORTEST_S: f64 = 60.0;
const LONGEST_S: f64 = 2_678_400.0;
/// Rentals of one turn. Each is a transaction, and the others come with the next turn.
const AT_ONCE: i64 = 200;

/// Reads what an item says.
pub fn of_item(given: Option<f64>, of: Option<&Selection>) -> Result<DeviceChoice, String> {
    let (labels, profile) = match of {
        Some(Selection::Any { labels, profile }) => (Some(labels.clone()), profile.clone()),
        Some(Selection::Device(_)) | None => (None, None),
    };
    // Without a selection that is valid, its own error is enough.
    let choice = DeviceChoice { labels, profile, ..DeviceChoice::default() };
    if of.is_none() { Ok(choice) } else { changed(&choice, Some(given)) }
}

/// Returns the choice after a change. `None`: it stays as it is.
pub fn changed(before: &DeviceChoice, given: Option<Option<f64>>) -> Result<DeviceChoice, String> {
    let Some(given) = given else { return Ok(before.clone()) };
    if given.is_some() && before.labels.is_none() {
        return Err(
            "the device was given: only one that was chosen by labels or profile gives way to another"
                .to_owned(),
        );
    }
    Ok(DeviceChoice { other_after: given.map(delay).transpose()?, ..before.clone() })
}

fn delay(seconds: f64) -> Result<Duration, String> {
    if (SHORTEST_S..=LONGEST_S).contains(&seconds) {
        return Ok(Duration::from_millis((seconds * 1_000.0) as u64));
    }
    Err(format!("seconds from {SHORTEST_S} to {LONGEST_S} are expected"))
}

/// Gives other devices to the rentals that are delayed for long enough. One that gets none stays delayed.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn swap_delayed(app: AppState) -> anyhow::Result<()> {
    let mut conn = app.store.reader().await?;
    if instance::awaits_review(&mut conn).await? {
        return Ok(());
    }
    let due = device_choices::due(&mut conn, crate::clock::wall(), AT_ONCE).await?;
    drop(conn);
    for rental in due {
        if let Err(problem) = try_another(&app, rental).await {
            let name = IdKind::Rental.text(rental);
            tracing::warn!("the delayed rental {name} gets no other device now: {problem}");
        }
    }
    Ok(())
}

async fn try_another(app: &AppState, rental: Id) -> Result<(), Problem> {
    let mut write = begin(app, &SYSTEM).await?;
    let now = write.now;
    let Some(before) = stored::find(write.tx(), rental).await? else { return Ok(()) };
    let is_due = before.choice.is_due(before.life.window.from(), now);
    if !is_due || before.life.state(now) != RentalState::Delayed {
        return Ok(());
    }
    let Some(mut after) = on_another(app, &mut write, &before).await? else { return Ok(()) };
    after.choice.other_at = Some(now);
    change::store(&mut write, &mut after, "rental.changed", &["device"]).await?;
    write.commit().await
}

/// Moves a rental to the first device of its selection that is free and would be handed over now.
async fn on_another(
    app: &AppState,
    write: &mut ApiTx<'_>,
    before: &stored::Rental,
) -> Result<Option<stored::Rental>, Problem> {
    let Some(labels) = &before.choice.labels else { return Ok(None) };
    let profile = before.choice.profile.as_deref();
    for device in renting::candidates(write.tx(), labels, profile).await? {
        let is_other = device.id != before.device && allows(&device, before);
        if !is_other || !would_be_handed_over(app, write, &device, before).await? {
            continue;
        }
        let mut after = before.clone();
        match change::swap(write, before, &mut after, &IdKind::Host.text(device.id)).await {
            Ok(()) => return Ok(Some(after)),
            // It is not free. Nothing was written yet.
            Err(problem) if problem.status().is_client_error() => {}
            Err(problem) => return Err(problem),
        }
    }
    Ok(None)
}

/// Whether a device allows the access and SSH of a rental.
fn allows(device: &Candidate, rental: &stored::Rental) -> bool {
    let login = || ssh::not_possible(&device.name, device.ssh_port, &rental.access);
    access::beyond(&device.name, &rental.access, &device.access).is_none()
        && (!rental.ssh || login().is_none())
}

/// Whether a device is in its place and ready, and its gate is passed. Its blocks occupy it.
async fn would_be_handed_over(
    app: &AppState,
    write: &mut ApiTx<'_>,
    device: &Candidate,
    rental: &stored::Rental,
) -> Result<bool, Problem> {
    let now = write.now;
    let settings = renting::settings(write.tx(), device.id).await?;
    if settings.not_ready.is_some() || device.delivery.is_shipped() {
        return Ok(false);
    }
    match gates::obstacle_of(write.tx(), device.id, Some(rental.id), now).await? {
        // The renters get their login after the swap.
        None | Some((Obstacle::NotGranted, _)) => {}
        Some(_) => return Ok(false),
    }
    let Some(rule) = settings.gate else { return Ok(true) };
    let (failures, good_since) = handovers::judged(&app.store, device.id, &rule).await?;
    Ok(failures.is_empty() && good_since.is_some_and(|since| since + rule.ok_for <= now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_device_that_was_chosen_gives_way_to_another() {
        let labels = [("kind".to_owned(), "cam".to_owned())].into();
        let labels = Selection::Any { labels, profile: Some("camera".to_owned()) };
        let chosen = of_item(Some(600.0), Some(&labels)).unwrap();
        assert_eq!(chosen.other_after, Some(Duration::from_secs(600)));
        assert_eq!(chosen.profile.as_deref(), Some("camera"));
        assert_eq!(of_item(None, Some(&labels)).unwrap().other_after, None);
        let given = Selection::Device("cam-1".into());
        assert!(of_item(Some(600.0), Some(&given)).unwrap_err().contains("chosen by labels"));
        assert_eq!(of_item(None, Some(&given)), Ok(DeviceChoice::default()));
        assert_eq!(changed(&chosen, None).unwrap(), chosen);
        assert_eq!(changed(&chosen, Some(None)).unwrap().other_after, None);
        for bad in [0.0, 59.9, -1.0, f64::NAN, 2_678_401.0] {
            assert!(changed(&chosen, Some(Some(bad))).unwrap_err().contains("60 to 2678400"), "{bad}");
        }
    }
}
