//! One change to the database and what follows from it: commit first, then tell the engine and
//! the dashboards. No handler can get that order wrong.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::store::SqliteConnection;
use fleetgate_engine::id::{HostId, Id, PeerId};
use fleetgate_engine::monitor::profile::{Catalogue, MAX_SERVICES};
use fleetgate_engine::time::Wall;

use super::idempotency::Call;
use super::manager::Manager;
use super::problem::Problem;
use super::{AppState, ids};
use crate::handle::Changes;
use crate::live::Change;
use crate::store::Tx;
use crate::store::events::{self, NewEvent, Object};
use crate::store::managed::Managed;
use crate::store::removals::{self, Deed, Thing};
use crate::store::resettle::{self, Member, Unfit};
use crate::store::{profiles, snapshot};

/// How long a caller waits for his turn to write. A commit takes milliseconds, on a slow card a second; after
/// this another process holds the file, and nothing was changed.
pub(super) const PATIENCE: Duration = Duration::from_millis(1_500);

/// A transaction on the one writing connection. Dropped, it changes nothing.
pub struct Write<'a> {
    app: &'a AppState,
    tx: Tx,
    /// Read once, at the beginning.
    pub now: Wall,
    /// The principal of all its events.
    pub by: String,
    peers: BTreeSet<PeerId>,
    hosts: BTreeSet<HostId>,
    resettled: BTreeSet<HostId>,
    enrolments: Vec<Id>,
    last_event: Option<i64>,
    /// Whose key is committed with the effect.
    call: Option<Arc<Call>>,
}

impl<'a> Write<'a> {
    /// # Errors
    /// When the database cannot be written now, or a backup takes its place at the next start.
    pub async fn begin(app: &'a AppState, by: &impl fmt::Display) -> Result<Self, Problem> {
        let write = Write::of_a_login(app, by).await?;
        // Asked with the turn to write: whoever waited for it behind the beginning of an upload would be lost.
        app.uploads().must_be_none()?;
        Ok(write)
    }

    /// What may be lost with a backup that is restored: who came in, and that it was given.
    ///
    /// # Errors
    /// When the database cannot be written now.
    pub async fn of_a_login(app: &'a AppState, by: &impl fmt::Display) -> Result<Self, Problem> {
        let tx = app.store.begin_within(PATIENCE).await?;
        let now = crate::clock::wall();
        Ok(Write {
            app,
            tx,
            now,
            by: by.to_string(),
            peers: BTreeSet::new(),
            hosts: BTreeSet::new(),
            resettled: BTreeSet::new(),
            enrolments: Vec::new(),
            last_event: None,
            call: Call::current(),
        })
    }

    /// A transaction beside the call: a repetition of the call is not one of this.
    ///
    /// # Errors
    /// When the database cannot be written now.
    pub async fn beside(app: &'a AppState, by: &impl fmt::Display) -> Result<Self, Problem> {
        Ok(Write { call: None, ..Write::begin(app, by).await? })
    }

    pub fn tx(&mut self) -> &mut SqliteConnection {
        &mut self.tx
    }

    /// An event that a person or a program caused.
    ///
    /// # Errors
    /// When the database cannot be written.
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

    /// The same about a host or one of its services.
    ///
    /// # Errors
    /// When the database cannot be written.
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

    /// Something is taken away: whoever manages it and did not do that is to know.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn removed(
        &mut self,
        thing: Thing<'_>,
        before: &Managed,
        manager: &Manager,
    ) -> Result<(), Problem> {
        let deed = Deed { id: ids::new_id(self.now), by: manager.writer(&self.by), at: self.now };
        Ok(removals::removed(&mut self.tx, thing, before, deed).await?)
    }

    /// The same for something that has another name now.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn renamed(
        &mut self,
        thing: Thing<'_>,
        to: &str,
        before: &Managed,
        manager: &Manager,
    ) -> Result<(), Problem> {
        if thing.1 == to {
            return self.made(thing, manager).await;
        }
        let deed = Deed { id: ids::new_id(self.now), by: manager.writer(&self.by), at: self.now };
        Ok(removals::renamed(&mut self.tx, thing, to, before, deed).await?)
    }

    /// Something is made, or changed: a program that writes it has it.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn made(&mut self, thing: Thing<'_>, manager: &Manager) -> Result<(), Problem> {
        match manager.is_program() {
            true => Ok(removals::made(&mut self.tx, thing, manager.writer(&self.by)).await?),
            false => Ok(()),
        }
    }

    /// The engine is to load this peer again.
    pub fn peer(&mut self, id: PeerId) {
        self.peers.insert(id);
    }

    /// The engine is to load this host again.
    pub fn host(&mut self, id: HostId) {
        self.hosts.insert(id);
    }

    /// Every host whose profiles differ between these catalogues, or among whose profiles is `changed`, is to
    /// have the services that it has by them now: in slices, after the commit. Gives all hosts there are.
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

    /// The dashboards are to show this enrolment again.
    pub fn enrolment(&mut self, id: Id) {
        self.enrolments.push(id);
    }

    /// Labels choose profiles: a change of them can bring more services than the monitor takes.
    async fn must_fit(&mut self, host: HostId) -> Result<(), Problem> {
        let spec = snapshot::host_spec(&mut self.tx, host, &self.app.config.timing).await;
        let spec = spec.map_err(Problem::internal)?.filter(|spec| spec.services.len() > MAX_SERVICES);
        let Some(spec) = spec else { return Ok(()) };
        let catalogue = profiles::catalogue(&mut self.tx).await?;
        let rules = catalogue.rules().iter().zip(1..).filter(|(rule, _)| rule.selector.matches(&spec.labels));
        let given: Vec<String> =
            rules.map(|(rule, n)| format!("rule {n} gives it {}", rule.profile)).collect();
        let by = if given.is_empty() { "of its profile and its own".to_owned() } else { given.join(", ") };
        let (name, count) = (&spec.name, spec.services.len());
        let detail = format!("{name} would have {count} services, at most {MAX_SERVICES} are possible: {by}");
        Err(Problem::limit_reached(detail))
    }

    /// # Errors
    /// When a host would have too many services; when the commit fails. Then nothing happened.
    pub async fn commit(mut self) -> Result<(), Problem> {
        for host in self.hosts.clone() {
            self.must_fit(host).await?;
        }
        if let Some(call) = &self.call {
            call.keep(&mut self.tx, self.now).await?;
        }
        let tokens_changed = self.app.tokens().change();
        self.tx.commit().await?;
        drop(tokens_changed);
        self.call.iter().for_each(|call| call.kept());
        let live = &self.app.live;
        let removed_or_changed = !self.hosts.is_empty();
        let Write { peers, hosts, resettled, .. } = self;
        self.app.handle.changed(Changes { peers, hosts, resettled }).await;
        // Of a host that is gone nothing more is told.
        if removed_or_changed {
            self.app.office.bell.notices();
            self.app.office.bell.messages();
        }
        self.enrolments.iter().for_each(|id| live.tell(Change::Enrolment(id.as_i64())));
        // Whoever reads after this call finds what it did, whatever that was.
        live.tell(Change::Problems);
        if let Some(seq) = self.last_event {
            live.tell(Change::Event(seq));
        }
        Ok(())
    }
}
