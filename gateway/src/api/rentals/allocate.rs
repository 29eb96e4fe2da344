//! Chooses a device for each item of a booking, all or none.
//!
//! It runs in the transaction that writes. The availability and a refusal use the same functions.

use std::collections::BTreeMap;

use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::GrantAccess;
use fleetgate_engine::rental::occupancy::{self, Occupancy, Window};
use fleetgate_engine::time::Wall;

use super::access::beyond;
use super::parse::LONGEST;
use super::ssh;
use crate::api::devices;
use crate::api::request::ids::{self, IdKind};
use crate::api::request::transaction::ApiTx;
use crate::api::response::problem::{Conflict, NextFree, OccupiedDevice, Problem};
use crate::api::types::Labels;
use crate::store::rentals::devices::{self as renting, Candidate};
use crate::store::rentals::occupancies;

/// Devices whose occupancies are read at once.
pub const AT_ONCE: usize = 100;

/// Devices of a selection that a refusal names. A selection may be the whole fleet.
const MAX_NAMED: usize = 10;

/// The occupancies of one device, now and later. It bounds what a decision reads and a refusal names.
const MAX_OF_DEVICE: usize = 1_000;

/// # Errors
/// Returns 409 for a device that has too many rentals and blocks.
pub fn has_room(taken: usize, name: &str) -> Result<(), Problem> {
    if taken < MAX_OF_DEVICE {
        return Ok(());
    }
    let detail = format!("{name} has {MAX_OF_DEVICE} rentals and blocks, and no more are possible: end some");
    Err(Problem::limit_reached(detail))
}

/// One item of a booking.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    pub of: Selection,
    pub window: Window,
    /// `None`: all that the device allows.
    pub access: Option<Vec<GrantAccess>>,
    /// The renters may log in to the device.
    pub ssh: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Selection {
    /// A name or id.
    Device(String),
    /// Any rentable device with all of these labels and this profile.
    Any { labels: Labels, profile: Option<String> },
}

/// The device of one item.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    pub device: Candidate,
    pub window: Window,
    pub occupied: Occupancy,
    pub access: Vec<GrantAccess>,
    pub ssh: bool,
}

/// Given devices come first, so that no other item takes them.
///
/// # Errors
/// Returns 409 `occupied` for the first item without a free device, 409 `not_rentable`, 409
/// `limit_reached` where each device has too many rentals, and 422 for an unknown device, labels or a
/// profile that no rentable device has, and access or SSH that no such device allows.
pub async fn choose(write: &mut ApiTx<'_>, wishes: &[Wish]) -> Result<Vec<Choice>, Problem> {
    let mut order: Vec<usize> = (0..wishes.len()).collect();
    order.sort_by_key(|n| matches!(wishes[*n].of, Selection::Any { .. }));
    let mut chosen: Vec<(usize, Choice)> = Vec::with_capacity(wishes.len());
    let mut stored = Stored::new();
    for n in order {
        let choice = one(write, (n, &wishes[n]), &chosen, &mut stored).await?;
        chosen.push((n, choice));
    }
    chosen.sort_by_key(|(n, _)| *n);
    Ok(chosen.into_iter().map(|(_, choice)| choice).collect())
}

/// The occupancies of the devices that were looked at. Each is read once for all items: other writes wait for the
/// booking, and 50 items may each look at the whole fleet.
type Stored = BTreeMap<HostId, Vec<Occupancy>>;

/// Reads the occupancies of those devices that were not looked at yet.
async fn look_at(write: &mut ApiTx<'_>, devices: &[Candidate], stored: &mut Stored) -> Result<(), Problem> {
    let now = write.now;
    let new: Vec<HostId> =
        devices.iter().map(|device| device.id).filter(|id| !stored.contains_key(id)).collect();
    if new.is_empty() {
        return Ok(());
    }
    let mut taken = occupancies::of_devices(write.tx(), &new, now).await?;
    for id in new {
        let of_device = taken.remove(&id).unwrap_or_default();
        stored.insert(id, of_device.into_iter().map(|taken| taken.occupancy).collect());
    }
    Ok(())
}

async fn one(
    write: &mut ApiTx<'_>,
    (n, wish): (usize, &Wish),
    chosen: &[(usize, Choice)],
    stored: &mut Stored,
) -> Result<Choice, Problem> {
    let now = write.now;
    let candidates = allowing(candidates(write, n, &wish.of).await?, n, wish)?;
    let mut refusal = Refusal::default();
    for part in candidates.chunks(AT_ONCE) {
        look_at(write, part, stored).await?;
        for device in part {
            let before = stored.get(&device.id).into_iter().flatten().copied();
            let beside = chosen.iter().filter(|(_, choice)| choice.device.id == device.id);
            let all: Vec<Occupancy> = before.chain(beside.map(|(_, choice)| choice.occupied)).collect();
            if let Err(full) = has_room(all.len(), &device.name) {
                refusal.full.get_or_insert(full);
                continue;
            }
            let occupied = device.margins.around(wish.window, now);
            match occupancy::conflict(&all, occupied) {
                None => return Ok(choice(device, wish, occupied)),
                Some(conflict) => refusal.add(device, conflict, &all, (wish.window, now)),
            }
        }
    }
    let item = u64::try_from(n).ok();
    Err(refusal.problem(matches!(wish.of, Selection::Device(_)), wish.window, item))
}

fn choice(device: &Candidate, wish: &Wish, occupied: Occupancy) -> Choice {
    let access = wish.access.clone().unwrap_or_else(|| device.access.clone());
    Choice { device: device.clone(), window: wish.window, occupied, access, ssh: wish.ssh }
}

/// Returns the devices that allow the access of an item, and SSH if it wants that.
///
/// # Errors
/// Returns 422 when none does.
fn allowing(candidates: Vec<Candidate>, n: usize, wish: &Wish) -> Result<Vec<Candidate>, Problem> {
    let mut devices = candidates;
    if let Some(wanted) = &wish.access {
        let refusal = |device: &Candidate| beyond(&device.name, wanted, &device.access);
        devices = those(devices, (&format!("items[{n}].access"), &wish.of), refusal)?;
    }
    if wish.ssh {
        let refusal = |device: &Candidate| {
            let access = wish.access.as_ref().unwrap_or(&device.access);
            ssh::not_possible(&device.name, device.ssh_port, access)
        };
        devices = those(devices, (&format!("items[{n}].ssh"), &wish.of), refusal)?;
    }
    Ok(devices)
}

/// Returns the devices without a refusal.
///
/// # Errors
/// Returns 422 when each has one.
fn those(
    candidates: Vec<Candidate>,
    (field, of): (&str, &Selection),
    refusal: impl Fn(&Candidate) -> Option<String>,
) -> Result<Vec<Candidate>, Problem> {
    let mut refused = None;
    let allows = |device: &Candidate| match refusal(device) {
        None => true,
        Some(why) => {
            refused.get_or_insert(why);
            false
        }
    };
    let allowing: Vec<Candidate> = candidates.into_iter().filter(allows).collect();
    match refused.filter(|_| allowing.is_empty()) {
        None => Ok(allowing),
        Some(why) => {
            let why = match of {
                Selection::Device(_) => why,
                Selection::Any { .. } => format!("no device of the selection allows all of it: {why}"),
            };
            Err(Problem::invalid(field, why))
        }
    }
}

async fn candidates(write: &mut ApiTx<'_>, n: usize, of: &Selection) -> Result<Vec<Candidate>, Problem> {
    match of {
        Selection::Device(text) => {
            let found = devices::load(write.tx(), IdKind::Host.named(text)).await;
            let device = found.map_err(|e| e.in_field(&format!("items[{n}].device")))?;
            Ok(vec![candidate(write, device.id, &device.settings.name).await?])
        }
        Selection::Any { labels, profile } => {
            let found = renting::candidates(write.tx(), labels, profile.as_deref()).await?;
            if !found.is_empty() {
                return Ok(found);
            }
            let (field, detail) = match (labels.is_empty(), profile) {
                (_, None) => ("labels", "no rentable device has all of these labels"),
                (true, Some(_)) => ("profile", "no rentable device has this profile"),
                (false, Some(_)) => ("labels", "no rentable device of this profile has all of these labels"),
            };
            Err(Problem::invalid(format!("items[{n}].{field}"), detail))
        }
    }
}

/// Returns a given device.
///
/// # Errors
/// Returns 409 when it cannot be booked.
pub async fn candidate(write: &mut ApiTx<'_>, device: HostId, name: &str) -> Result<Candidate, Problem> {
    renting::candidate(write.tx(), device).await?.ok_or_else(|| {
        let detail = format!(
            "{name} cannot be booked: a device must be rentable (PUT /devices/{name}/rental-settings) and \
             enrolled, and must have no hosts behind it"
        );
        Problem::conflict("not_rentable", detail)
    })
}

/// The occupancies in the way of an item, and the next window that is free.
#[derive(Default)]
pub struct Refusal {
    /// A device that has too many rentals and blocks. Others of a selection may be free.
    full: Option<Problem>,
    /// The first ones.
    occupied: Vec<(Candidate, Occupancy)>,
    left_out: u64,
    next: Option<(Candidate, Window)>,
}

impl Refusal {
    pub fn add(
        &mut self,
        device: &Candidate,
        conflict: Occupancy,
        taken: &[Occupancy],
        (wanted, now): (Window, Wall),
    ) {
        if self.occupied.len() < MAX_NAMED {
            self.occupied.push((device.clone(), conflict));
        } else {
            self.left_out += 1;
        }
        let horizon = now + LONGEST + LONGEST;
        let next = occupancy::next_free(taken, device.margins, wanted, (now, horizon));
        let earlier =
            |window: &Window| self.next.as_ref().is_none_or(|(_, known)| window.from() < known.from());
        // A later one could not be booked.
        let soon = |window: &Window| window.from() <= now + LONGEST;
        if let Some(next) = next.filter(soon).filter(earlier) {
            self.next = Some((device.clone(), next));
        }
    }

    /// `one`: the caller named the device.
    pub fn problem(self, one: bool, wanted: Window, item: Option<u64>) -> Problem {
        if let (true, Some(full)) = (self.occupied.is_empty(), self.full) {
            return full;
        }
        let next = self.next.map(|(device, window)| NextFree {
            device: IdKind::Host.text(device.id),
            device_name: device.name,
            from: ids::time(window.from()),
            until: ids::time(window.until()),
        });
        let mut conflict = Conflict { item, next_free: next, ..Conflict::default() };
        let mut detail = match self.occupied.first().filter(|_| one) {
            Some((device, occupied)) => of_device(&mut conflict, device.id, &device.name, *occupied),
            None => {
                conflict.devices = self.occupied.iter().map(occupied_device).collect();
                conflict.devices_left_out = Some(self.left_out);
                let (from, until) = (ids::time(wanted.from()), ids::time(wanted.until()));
                format!("no device of the selection is free from {from} until {until}")
            }
        };
        if let Some(next) = &conflict.next_free {
            detail += &format!("; {} is free from {} until {}", next.device_name, next.from, next.until);
        }
        Problem::occupied(detail, conflict)
    }
}

fn occupied_device((device, occupied): &(Candidate, Occupancy)) -> OccupiedDevice {
    OccupiedDevice {
        device: IdKind::Host.text(device.id),
        device_name: device.name.clone(),
        from: ids::time(occupied.from),
        until: occupied.until.map(ids::time),
    }
}

/// Notes what occupies a device, and returns it in words.
pub fn of_device(conflict: &mut Conflict, device: HostId, name: &str, occupied: Occupancy) -> String {
    conflict.device = Some(IdKind::Host.text(device));
    conflict.device_name = Some(name.to_owned());
    conflict.from = Some(ids::time(occupied.from));
    conflict.until = occupied.until.map(ids::time);
    let until = conflict.until.as_ref().map(|until| format!(" until {until}")).unwrap_or_default();
    format!("{name} is occupied from {}{until}", ids::time(occupied.from))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::testing::TestApi;

    #[tokio::test]
    async fn a_device_is_looked_at_once_for_all_items() {
        let api = TestApi::with_endpoint().await;
        let mut ids = Vec::new();
        for name in ["cam-1", "cam-2"] {
            let made = api.operator().post("/api/v1/devices", json!({ "name": name })).await;
            ids.push(IdKind::Host.parse(made.json["device"]["id"].as_str().unwrap()).unwrap());
            let settings = format!("/api/v1/devices/{name}/rental-settings");
            assert_eq!(api.operator().put(&settings, json!({ "rentable": true })).await.status, 200);
        }
        let mut write = ApiTx::begin(&api.state, &"user:ada").await.unwrap();
        let mut devices = Vec::new();
        for id in &ids {
            devices.push(candidate(&mut write, *id, "cam").await.unwrap());
        }
        let seen = Occupancy { from: Wall::from_millis(1), until: None };
        let mut stored = Stored::from([(ids[0], vec![seen])]);
        look_at(&mut write, &devices, &mut stored).await.unwrap();
        assert_eq!(stored, Stored::from([(ids[0], vec![seen]), (ids[1], Vec::new())]));
    }
}
