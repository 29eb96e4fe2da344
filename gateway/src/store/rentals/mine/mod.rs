//! What people and programs of customers see: the rentals of their customer, and what was measured within the time of each.
//!
//! Every query takes one [`Visible`] and decides by it alone. Of a device it returns what was measured while the
//! customer had it, and nothing of the time before or after: no state, output or value of a predecessor.

mod changes;

use std::cmp::Reverse;
use std::sync::Arc;

use fleetgate_engine::id::{CustomerId, HostId, Id, PeerId, PersonId};
use fleetgate_engine::messages::{HostState, HostStatus, ServiceState};
use fleetgate_engine::rental::life::State;
use fleetgate_engine::rental::occupancy::{self, Window};
use fleetgate_engine::time::Wall;
use fleetgate_probes::sample::{Metric, Status};
use sqlx::sqlite::SqliteConnection;

use super::customers::{self, Customer};
use super::events::EventRow;
use super::people::{self, Person};
use super::renters::{self, Renter};
use super::{Rental, reports, select};
use crate::ids::Named;
use crate::store::history::Series;
use crate::store::lists::{Entry, readable};
use crate::store::{Store, states};

pub use changes::Change;

/// Rentals that a person sees: those of years.
const MAX_RENTALS: i64 = 100;
/// Changes that are shown of a rental.
const MAX_CHANGES: usize = 500;
/// The built-in service of a rented device tells operators of the rentals before and after. The state of a rental is
/// what its customer sees.
const BUILT_IN: &str = "rental";

/// Whose data is read, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visible {
    pub customer: CustomerId,
    /// `None`: a program of the customer, which sees what any person of the customer sees.
    pub person: Option<PersonId>,
    pub now: Wall,
}

/// The rentals of the customer `$1` that admit a renter of the person `$2`, or all. Without a person: all of the customer.
macro_rules! is_visible {
    () => {
        "b.customer = $1
         and ($2 is null and exists (select 1 from customers k where k.id = b.customer and k.erased_at is null)
              or exists (select 1 from people y
                         where y.id = $2 and y.customer = b.customer and y.removed_at is null)
                 and (r.admits is null
                      or exists (select 1 from renters w
                                 where w.person = $2 and w.removed_at is null
                                   and w.id in (select value from json_each(
                                                    case when json_valid(r.admits) then r.admits else '[]' end))))) "
    };
}

macro_rules! visible {
    ($rest:literal) => {
        select!(concat!("where ", is_visible!(), $rest))
    };
}

/// Returns the rentals that the person sees, those that begin last first. If there are too many, those that are over are
/// left out: many that were cancelled long before they began must not hide the present one.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn rentals(conn: &mut SqliteConnection, visible: Visible) -> sqlx::Result<Vec<Rental>> {
    let sql = visible!(
        "order by (r.ended_at is null and r.until_at > $4) desc, r.from_at desc, r.id desc limit $3"
    );
    let rows: Vec<Entry<Rental>> = sqlx::query_as(sql)
        .bind(visible.customer.as_i64())
        .bind(visible.person.map(PersonId::as_i64))
        .bind(MAX_RENTALS)
        .bind(visible.now.as_millis())
        .fetch_all(conn)
        .await?;
    let mut found = readable(rows);
    found.sort_by_key(|rental| Reverse((rental.life.window.from(), rental.id)));
    Ok(found)
}

/// Returns a rental, if the person sees it.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn rental(
    conn: &mut SqliteConnection,
    visible: Visible,
    rental: Id,
) -> sqlx::Result<Option<Rental>> {
    sqlx::query_as(visible!("and r.id = $3"))
        .bind(visible.customer.as_i64())
        .bind(visible.person.map(PersonId::as_i64))
        .bind(rental.as_i64())
        .fetch_optional(conn)
        .await
}

/// Returns the renters of the person, or else of the customer, by name.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn renters(conn: &mut SqliteConnection, visible: Visible) -> sqlx::Result<Vec<Renter>> {
    let Some(person) = visible.person else { return renters::of_customer(conn, visible.customer).await };
    let all = renters::of_person(conn, person).await?;
    Ok(all.into_iter().filter(|renter| renter.customer == visible.customer).collect())
}

const EVENTS: &str = concat!(
    "select e.* from rental_events e join rentals r on r.id = e.rental join bookings b on b.id = r.booking
     where e.customer = $1 and e.seq > $3 and e.seq <= $4 and ($5 is null or e.rental = $5) and ",
    is_visible!(),
    "order by e.seq limit $6"
);

/// Returns events of the rentals in their order: those after one number and not after another.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn events(
    conn: &mut SqliteConnection,
    visible: Visible,
    rental: Option<Id>,
    (after, through): (i64, i64),
    limit: i64,
) -> sqlx::Result<Vec<EventRow>> {
    sqlx::query_as(EVENTS)
        .bind(visible.customer.as_i64())
        .bind(visible.person.map(PersonId::as_i64))
        .bind(after)
        .bind(through)
        .bind(rental.map(Id::as_i64))
        .bind(limit)
        .fetch_all(conn)
        .await
}

/// Returns whose renter a peer is. `None`: it is no renter, or was removed.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn of_renter(
    conn: &mut SqliteConnection,
    renter: PeerId,
    now: Wall,
) -> sqlx::Result<Option<(Renter, Visible)>> {
    let found = renters::by_id(conn, renter).await?;
    Ok(found.map(|renter| {
        let visible = Visible { customer: renter.customer, person: Some(renter.person), now };
        (renter, visible)
    }))
}

/// Returns a person who is logged in, with the customer. `None`: either has left.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn who(conn: &mut SqliteConnection, person: PersonId) -> sqlx::Result<Option<(Person, Customer)>> {
    let Some(person) = people::by_id(conn, person).await? else { return Ok(None) };
    let customer = customers::find(conn, &Named::Id(person.customer)).await?;
    Ok(customer.map(|customer| (person, customer)))
}

impl Visible {
    /// Returns the devices that the customer had in a rental, and when.
    async fn windows(
        self,
        conn: &mut SqliteConnection,
        rental: &Rental,
    ) -> sqlx::Result<Vec<(HostId, Window)>> {
        let Some(used) = rental.life.used(self.now) else { return Ok(Vec::new()) };
        let devices = reports::devices(conn, rental.id).await?;
        let begins: Vec<(HostId, Wall)> = devices.iter().map(|device| (device.id, device.from)).collect();
        Ok(occupancy::in_use(&begins, used))
    }
}

/// The device of a rental as it was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub status: &'static str,
    /// `None`: there is no result yet.
    pub since: Option<Wall>,
    pub services: Vec<SeenService>,
}

/// A service of the device as it was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenService {
    pub name: String,
    pub status: &'static str,
    /// `None`: there is no result yet.
    pub since: Option<Wall>,
    pub output: String,
    pub metrics: Arc<[Metric]>,
}

const PENDING: &str = "pending";

/// Returns the device of a rental that is active. `None`: it is not.
///
/// # Errors
/// Fails when the database cannot be read or a row is invalid.
pub async fn device(
    conn: &mut SqliteConnection,
    visible: Visible,
    rental: &Rental,
) -> sqlx::Result<Option<Seen>> {
    if rental.life.state(visible.now) != State::Active {
        return Ok(None);
    }
    let windows = visible.windows(conn, rental).await?;
    let present = windows.last().filter(|(device, _)| *device == rental.device);
    let time = present.and_then(|(_, window)| Window::new(window.from(), rental.life.ends_at()));
    let Some(time) = time else {
        return Ok(Some(Seen { status: PENDING, since: None, services: Vec::new() }));
    };
    let host = states::of_host(conn, rental.device).await?;
    let services = states::services_of(conn, rental.device).await?;
    let begun = changes::lasting(conn, rental.device, time).await?;
    let hard_since = |name: &str| begun.get(name).copied();
    let (status, since) = host_within(host.as_ref(), time, hard_since(""));
    let services = services.iter().filter(|row| row.state.name != BUILT_IN);
    let services =
        services.map(|row| service_within(&row.state, time, hard_since(&row.state.name))).collect();
    Ok(Some(Seen { status, since, services }))
}

fn contains(time: Window, at: Wall) -> bool {
    time.from() <= at && at < time.until()
}

/// Returns the hard state if it began within the time, and the last result otherwise.
fn shown<S>(last: (S, Wall), hard: (S, Option<Wall>), time: Window) -> (S, Option<Wall>) {
    let (state, since) = match hard {
        (state, Some(since)) => (state, since),
        (_, None) => last,
    };
    (state, Some(since.max(time.from())))
}

/// `hard_since`: when the hard state began, if it began within the time.
fn host_within(
    state: Option<&HostState>,
    time: Window,
    hard_since: Option<Wall>,
) -> (&'static str, Option<Wall>) {
    let state = state.filter(|state| state.last_check.is_some_and(|at| contains(time, at)));
    let Some(state) = state else { return (PENDING, None) };
    let (status, since) = shown((state.status, state.since), (state.hard, hard_since), time);
    match status {
        HostStatus::Down if !state.reachable => ("unreachable", since),
        status => (status.name(), since),
    }
}

/// `hard_since`: when the hard state began, if it began within the time.
fn service_within(state: &ServiceState, time: Window, hard_since: Option<Wall>) -> SeenService {
    let nothing = SeenService {
        name: state.name.clone(),
        status: PENDING,
        since: None,
        output: String::new(),
        metrics: Arc::default(),
    };
    if !state.last_check.is_some_and(|at| contains(time, at)) {
        return nothing;
    }
    let (status, since) = shown((state.status, state.since), (state.hard, hard_since), time);
    SeenService {
        status: status.map_or(PENDING, Status::name),
        since,
        output: state.result.text.clone(),
        metrics: state.result.metrics.clone(),
        ..nothing
    }
}

/// A device of a rental.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// When the customer had it. What was measured before and after is not for the customer.
    pub time: Window,
    /// Series that may have samples of that time. The name of one that has none is not for the customer.
    pub series: Vec<Series>,
}

/// Returns the devices of a rental with `most` series in all, the last device first.
///
/// # Errors
/// Fails when the database cannot be read or a row is invalid.
pub async fn measured(
    store: &Store,
    visible: Visible,
    rental: &Rental,
    most: usize,
) -> sqlx::Result<Vec<Measured>> {
    let mut conn = store.reader().await?;
    let windows = visible.windows(&mut conn, rental).await?;
    drop(conn);
    let (mut found, mut room) = (Vec::with_capacity(windows.len()), most);
    for (device, time) in windows.into_iter().rev() {
        let limit = i64::try_from(room).unwrap_or(i64::MAX);
        let series = store.series_since((device, BUILT_IN), time.from(), limit).await?;
        room = room.saturating_sub(series.len());
        found.push(Measured { time, series });
    }
    Ok(found)
}

/// The changes of a rental.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The latest, in the order of time.
    pub list: Vec<Change>,
    /// There were more before.
    pub truncated: bool,
}

/// Returns the latest changes of the devices of a rental, each while the customer had it.
///
/// # Errors
/// Fails when the database cannot be read or a row is invalid.
pub async fn changes(store: &Store, visible: Visible, rental: &Rental) -> sqlx::Result<Changes> {
    let mut conn = store.reader().await?;
    let mut list = Vec::new();
    for (device, time) in visible.windows(&mut conn, rental).await? {
        // One more tells whether there are more.
        list.extend(changes::latest(&mut conn, device, time, MAX_CHANGES as i64 + 1).await?);
    }
    list.sort();
    let first = list.len().saturating_sub(MAX_CHANGES);
    Ok(Changes { list: list.split_off(first), truncated: first > 0 })
}

#[cfg(test)]
mod tests;
