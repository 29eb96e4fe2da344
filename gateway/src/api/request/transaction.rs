//! One change to the database and its consequences. The commit comes first, then the engine and the
//! dashboards are informed. No handler can get that order wrong.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fleetgate_engine::id::{GrantId, HostId, Id, PeerId, RentalId};
use fleetgate_engine::monitor::profile::{self, Catalogue, MAX_SERVICES};
use fleetgate_engine::time::Wall;

use super::auth::{Author, reaches};
use super::idempotency::Call;
use super::ids;
use super::managed_by::Manager;
use super::permission::Area;
use crate::api::AppState;
use crate::api::response::problem::Problem;
use crate::engine::handle::Changes;
use crate::engine::live_state::Change;
use crate::store::events::{self, NewEvent, Object};
use crate::store::managed::Managed;
use crate::store::policy::PolicyRows;
use crate::store::removals::{self, RemovalAction, RemovedKind};
use crate::store::rentals::terms;
use crate::store::resettle::{self, Member, Unfit};
use crate::store::{SqliteConnection, Tx, instance, profiles, snapshot};

/// The longest wait for the write connection. A commit takes milliseconds, or a second on a slow
/// card. Beyond this time, another process must have locked the file. Nothing was changed then.
pub const PATIENCE: Duration = Duration::from_millis(1_500);

/// A transaction on the only writing connection. Dropped, it changes nothing.
pub struct ApiTx<'a> {
    app: &'a AppState,
    tx: Tx,
    /// The time at the beginning of the transaction.
    pub now: Wall,
    /// The principal of all its events.
    pub by: String,
    /// The areas that it is limited to. Empty: all.
    scopes: Vec<String>,
    peers: BTreeSet<PeerId>,
    hosts: BTreeSet<HostId>,
    resettled: BTreeSet<HostId>,
    downtimes: BTreeSet<Id>,
    grants: BTreeSet<GrantId>,
    sources: BTreeSet<PeerId>,
    rentals: BTreeSet<RentalId>,
    enrolments: Vec<Id>,
    /// Rentals or subscriptions may have changed.
    wakes_rental_events: bool,
    last_event: Option<i64>,
    /// The call whose key is committed with the effect.
    call: Option<Arc<Call>>,
}

impl<'a> ApiTx<'a> {
    /// # Errors
    /// Fails when the database cannot be written now, or a backup is being uploaded or awaits the
    /// next start.
    pub async fn begin(app: &'a AppState, by: &impl Author) -> Result<Self, Problem> {
        let write = ApiTx::of_a_login(app, by).await?;
        // Checked while holding the write connection. A write that had waited behind the start of
        // an upload would otherwise be lost.
        app.uploads().must_be_none()?;
        Ok(write)
    }

    /// Begins a transaction for data that a restore may discard: a login, and the upload itself.
    ///
    /// # Errors
    /// Fails when the database cannot be written now.
    pub async fn of_a_login(app: &'a AppState, by: &impl Author) -> Result<Self, Problem> {
        let tx = app.store.begin_within(PATIENCE).await?;
        let now = crate::clock::wall();
        Ok(ApiTx {
            app,
            tx,
            now,
            by: by.to_string(),
            scopes: by.scopes().to_vec(),
            peers: BTreeSet::new(),
            hosts: BTreeSet::new(),
            resettled: BTreeSet::new(),
            downtimes: BTreeSet::new(),
            grants: BTreeSet::new(),
            sources: BTreeSet::new(),
            rentals: BTreeSet::new(),
            enrolments: Vec::new(),
            wakes_rental_events: false,
            last_event: None,
            call: Call::current(),
        })
    }

    /// Begins a transaction besides the call, to which the call's key does not apply.
    ///
    /// # Errors
    /// Fails when the database cannot be written now.
    pub async fn beside(app: &'a AppState, by: &impl Author) -> Result<Self, Problem> {
        Ok(ApiTx { call: None, ..ApiTx::begin(app, by).await? })
    }

    pub fn tx(&mut self) -> &mut SqliteConnection {
        &mut self.tx
    }

    /// Returns the version that a new object begins with.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn first_version(&mut self) -> Result<i64, Problem> {
        Ok(instance::first_version(&mut self.tx).await?)
    }

    /// Adds an event caused by an operator or a program.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn event(
        &mut self,
        kind: &str,
        object: (Object, Id),
        cause: &str,
        data: serde_json::Value,
    ) -> Result<(), Problem> {
        let (object, id) = object;
        let event = NewEvent { data, ..NewEvent::new(self.now, kind, (object, Some(id)), cause, &self.by) };
        self.last_event = Some(events::append(&mut self.tx, &event).await?);
        Ok(())
    }

    /// Adds an event about a host or one of its services.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn about(
        &mut self,
        kind: &str,
        (host, service): (HostId, Option<&str>),
        cause: &str,
        data: serde_json::Value,
    ) -> Result<(), Problem> {
        let object = if service.is_some() { Object::Service } else { Object::Host };
        let event = NewEvent {
            data,
            service,
            ..NewEvent::new(self.now, kind, (object, Some(host)), cause, &self.by)
        };
        self.last_event = Some(events::append(&mut self.tx, &event).await?);
        Ok(())
    }

    /// Records the removal of a resource, so that its manager learns of it unless the manager
    /// itself removed it.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn removed(
        &mut self,
        thing: RemovedKind<'_>,
        before: &Managed,
        manager: &Manager,
    ) -> Result<(), Problem> {
        let deed = RemovalAction { id: ids::new_id(self.now), by: manager.writer(&self.by), at: self.now };
        Ok(removals::removed(&mut self.tx, thing, before, deed).await?)
    }

    /// Records the new name of a resource in the same way.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn renamed(
        &mut self,
        thing: RemovedKind<'_>,
        to: &str,
        before: &Managed,
        manager: &Manager,
    ) -> Result<(), Problem> {
        if thing.1 == to {
            return self.made(thing, manager).await;
        }
        let deed = RemovalAction { id: ids::new_id(self.now), by: manager.writer(&self.by), at: self.now };
        Ok(removals::renamed(&mut self.tx, thing, to, before, deed).await?)
    }

    /// Records a new or changed resource. A program that writes it has it again.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn made(&mut self, thing: RemovedKind<'_>, manager: &Manager) -> Result<(), Problem> {
        match manager.is_program() {
            true => Ok(removals::made(&mut self.tx, thing, manager.writer(&self.by)).await?),
            false => Ok(()),
        }
    }

    /// Makes the engine load this peer again.
    pub fn peer(&mut self, id: PeerId) {
        self.peers.insert(id);
    }

    /// Makes the engine load this host again.
    pub fn host(&mut self, id: HostId) {
        self.hosts.insert(id);
    }

    /// Makes the engine load this downtime again.
    pub fn downtime(&mut self, id: Id) {
        self.downtimes.insert(id);
    }

    /// Makes the engine load this grant again.
    pub fn grant(&mut self, id: GrantId) {
        self.grants.insert(id);
    }

    /// Makes the engine load again, together, what these peers of people may reach.
    pub fn sources(&mut self, peers: BTreeSet<PeerId>) {
        self.sources.extend(peers);
    }

    /// Makes the engine load what this rental permits again.
    pub fn rental(&mut self, id: RentalId) {
        self.rentals.insert(id);
    }

    /// Wakes the tasks for the events of rentals.
    pub fn wakes_rental_events(&mut self) {
        self.wakes_rental_events = true;
    }

    /// Adjusts the services of hosts whose profiles differ between these catalogues or descend from
    /// `changed`. The rows follow in slices after the commit. Returns all existing hosts.
    ///
    /// # Errors
    /// 409 when a host would have too many services.
    pub async fn resettle(
        &mut self,
        was: &Catalogue,
        is: &Catalogue,
        changed: Option<&str>,
    ) -> Result<Vec<Member>, Problem> {
        let members = resettle::members(&mut self.tx).await?;
        let concerned = members.iter().filter(|m| {
            let now = m.profiles(is);
            now != m.profiles(was) || changed.is_some_and(|name| now.iter().any(|p| is.descends(p, name)))
        });
        let concerned: Vec<&Member> = concerned.collect();
        let fit = resettle::must_fit(&mut self.tx, &concerned, is, &self.app.config.timing).await;
        fit.map_err(|error| match error {
            Unfit::TooMany(_) => Problem::limit_reached(error.to_string()),
            Unfit::Store(error) => error.into(),
            Unfit::Damaged(error) => error.into(),
        })?;
        self.resettled.extend(concerned.iter().map(|member| member.host));
        Ok(members)
    }

    /// Makes the dashboards show this enrolment again.
    pub fn enrolment(&mut self, id: Id) {
        self.enrolments.push(id);
    }

    /// Checks the number of services. A change of labels can select other profiles and exceed the
    /// monitor's limit.
    async fn must_fit(&mut self, host: HostId) -> Result<(), Problem> {
        let spec = snapshot::host_spec(&mut self.tx, host, &self.app.config.timing).await;
        let spec =
            spec.map_err(Problem::internal)?.filter(|spec| profile::count(&spec.services) > MAX_SERVICES);
        let Some(spec) = spec else { return Ok(()) };
        let catalogue = profiles::catalogue(&mut self.tx).await?;
        let rules = catalogue.rules().iter().zip(1..).filter(|(rule, _)| rule.selector.matches(&spec.labels));
        let given: Vec<String> =
            rules.map(|(rule, n)| format!("rule {n} gives it {}", rule.profile)).collect();
        let by = if given.is_empty() { "of its profile and its own".to_owned() } else { given.join(", ") };
        let (name, count) = (&spec.name, profile::count(&spec.services));
        let detail = format!("{name} would have {count} services, at most {MAX_SERVICES} are possible: {by}");
        Err(Problem::limit_reached(detail))
    }

    /// Refuses to rent devices on other terms, whatever the change is that leads to it: another profile, another rule,
    /// or other labels.
    fn may_rent_otherwise(&self, devices: &[String]) -> Result<(), Problem> {
        let Some(first) = devices.first().filter(|_| !reaches(&self.scopes, Area::Devices)) else {
            return Ok(());
        };
        let others = match devices.len() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        let detail = format!(
            "this changes how {first}{others} would be rented, and needs the scope {}, which this token does not have",
            Area::Devices
        );
        Err(Problem::forbidden("scope_missing", detail))
    }

    /// # Errors
    /// Fails when a host would have too many services, a token may not change how a device is rented, or the commit
    /// fails. Then nothing has changed.
    pub async fn commit(mut self) -> Result<(), Problem> {
        for host in self.hosts.clone() {
            self.must_fit(host).await?;
        }
        // Another profile may say otherwise how a device is rented.
        let devices: BTreeSet<HostId> = self.hosts.union(&self.resettled).copied().collect();
        let terms::Settled { devices, rentals: settled } =
            terms::settle(&mut self.tx, &devices, self.now).await?;
        self.may_rent_otherwise(&devices)?;
        if let Some(call) = &self.call {
            call.keep(&mut self.tx, self.now).await?;
        }
        let tokens_changed = self.app.tokens().change();
        self.tx.commit().await?;
        drop(tokens_changed);
        self.call.iter().for_each(|call| call.kept());
        let live = &self.app.live;
        let removed_or_changed = !self.hosts.is_empty();
        let ApiTx { peers, hosts, resettled, downtimes, grants, sources, rentals, .. } = self;
        let policy = PolicyRows { sources, grants, rentals, ..PolicyRows::default() };
        self.app.handle.changed(Changes { peers, hosts, resettled, downtimes, settled, policy }).await;
        // Notifications about removed hosts are withdrawn.
        if removed_or_changed {
            self.app.office.wakeups.notices();
            self.app.office.wakeups.messages();
        }
        self.enrolments.iter().for_each(|id| live.tell(Change::Enrolment(id.as_i64())));
        if self.wakes_rental_events {
            self.app.rental_events.changed();
        }
        // A read after this call must see all its effects.
        live.tell(Change::Problems);
        if let Some(seq) = self.last_event {
            live.tell(Change::Event(seq));
        }
        Ok(())
    }
}
