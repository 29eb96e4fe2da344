//! The dispatcher: passes new notices to the router and stores its outputs, each turn in one transaction.
//!
//! If that fails, the router is ahead of the store. It is then discarded and restored from the store.

use std::collections::BTreeMap;
use std::time::Duration;

use fleetgate_engine::id::Id;
use fleetgate_engine::messages::{Excerpt, SuppressReason};
use fleetgate_engine::notification::{
    CheckableId, ContactId, Input, Item, NotSent, Notice, NoticeId, Output, Router,
};
use fleetgate_engine::time::{Mono, Wall};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Settings, Wakeups};
use crate::clock;
use crate::engine::live_state::{Change, LiveState};
use crate::health::progress::Component;
use crate::ids::IdKind;
use crate::notification::reason_text;
use crate::notification::routing;
use crate::notification::routing::{LoadedRouting, Reach};
use crate::notification::rule_trace;
use crate::notification::rule_trace::EvaluatedRule;
use crate::store::events::{self, NewEvent, SYSTEM};
use crate::store::notices::HeldRow;
use crate::store::outbox::{self, Channel, NewMessage, OutboxKind};
use crate::store::{SqliteConnection, Store, incidents, notices, suppression, suppression_detail};

/// Notices routed in one transaction: a lost fleet needs a few, and none takes long.
const ROUND: i64 = 1_000;
/// Pause after a failure of the database.
const PAUSE: Duration = Duration::from_secs(2);
/// Window in which messages count towards a contact's limit.
const HOUR: Duration = Duration::from_secs(3_600);
/// The reason why a mail is not attempted.
const NO_MAIL: &str = "no [mail] section in fleetgate.toml";

pub(in crate::notification) struct Dispatcher {
    settings: watch::Receiver<Settings>,
    store: Store,
    live: LiveState,
    wakeups: Wakeups,
}

/// The running router, with the addresses of its contacts and the rules it evaluates.
struct RouterState {
    router: Router,
    reach: BTreeMap<ContactId, Reach>,
    asked: Vec<EvaluatedRule>,
    has_mail: bool,
}

/// The results of one turn of the router.
#[derive(Default)]
struct RouterTurn {
    outputs: Vec<Output>,
    /// The notices of this turn, for the events about them.
    routed: Vec<Notice>,
    /// Notices that acknowledgements had stopped and that are due again.
    resumed: Vec<(ContactId, NoticeId)>,
    wait: Option<Mono>,
}

impl Dispatcher {
    pub fn new(
        settings: watch::Receiver<Settings>,
        store: Store,
        live: LiveState,
        wakeups: Wakeups,
    ) -> Dispatcher {
        Dispatcher { settings, store, live, wakeups }
    }

    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            if let Err(error) = self.dispatch(&stop).await {
                tracing::warn!("notifications wait for the database: {error}");
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
    }

    /// Runs until the gateway stops or the database fails.
    async fn dispatch(&mut self, stop: &CancellationToken) -> crate::store::Result<()> {
        let mut state = self.open().await?;
        loop {
            // The states are read before the notices. Every notice that was committed with the end of a
            // problem is then among those read.
            let resumed = self.look_around(&mut state).await?;
            let new = notices::unrouted(&mut *self.store.reader().await?, ROUND).await?;
            let new: Vec<Notice> = new.iter().map(notices::NoticeRow::notice).collect::<Result<_, _>>()?;
            let (more, turn) = (!new.is_empty(), RouterTurn { resumed, ..state.drain(new) });
            let wait = turn.wait;
            if !turn.outputs.is_empty() || !turn.routed.is_empty() || !turn.resumed.is_empty() {
                self.write(&state, turn).await?;
            }
            self.live.pulse().beat(Component::Router);
            if more {
                continue;
            }
            tokio::select! {
                () = crate::tunnel::thread::sleep(wait.map(|at| at.since(clock::now().mono))) => {}
                () = self.wakeups.0.dispatcher.notified() => {}
                () = self.wakeups.0.routing.notified() => self.reconfigure(&mut state).await?,
                changed = self.settings.changed() => match changed {
                    Ok(()) => self.reconfigure(&mut state).await?,
                    Err(_) => return Ok(()),
                },
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    async fn open(&mut self) -> crate::store::Result<RouterState> {
        let settings = self.settings.borrow_and_update().clone();
        let mut conn = self.store.reader().await?;
        let LoadedRouting { routing, reach, asked } = routing::load(&mut conn, &settings).await?;
        let (told, waiting) = (notices::told(&mut conn).await?, notices::waiting(&mut conn).await?);
        let now = clock::now();
        let posted = outbox::posted_since(&mut conn, now.wall - HOUR).await?;
        let router = Router::restore(routing, told, waiting, &posted, now);
        let mut state = RouterState { router, reach, asked, has_mail: settings.mail.is_some() };
        state.forget(notices::removed(&mut conn).await?);
        Ok(state)
    }

    /// Passes the router the states, acknowledgements and incidents of waiting notices. Returns the notices
    /// that an ended acknowledgement had stopped.
    async fn look_around(&self, state: &mut RouterState) -> crate::store::Result<Vec<(ContactId, NoticeId)>> {
        let mut conn = self.store.reader().await?;
        let suppressions = suppression::of_waiting(&mut conn).await?;
        state.router.handle(Input::Stands(suppressions), clock::now());
        for object in notices::acknowledged_meanwhile(&mut conn).await? {
            state.router.handle(Input::Acknowledged(object), clock::now());
        }
        let wide = incidents::wide_waiting(&mut conn).await?;
        state.router.handle(Input::IncidentRoots(wide.into_iter().collect()), clock::now());
        let ended = notices::acknowledgement_ended(&mut conn).await?;
        let resumed = ended.iter().map(|(contact, notice)| (*contact, notice.id)).collect();
        for (contact, notice) in ended {
            state.router.handle(Input::AcknowledgementEnded { contact, notice }, clock::now());
        }
        state.forget(notices::removed(&mut conn).await?);
        for object in notices::over(&mut conn).await? {
            state.router.handle(Input::Over(object), clock::now());
        }
        Ok(resumed)
    }

    async fn reconfigure(&mut self, state: &mut RouterState) -> crate::store::Result<()> {
        let settings = self.settings.borrow_and_update().clone();
        let mut conn = self.store.reader().await?;
        let LoadedRouting { routing, reach, asked } = routing::load(&mut conn, &settings).await?;
        state.router.handle(Input::Configure(routing), clock::now());
        (state.reach, state.asked, state.has_mail) = (reach, asked, settings.mail.is_some());
        Ok(())
    }

    async fn write(&self, state: &RouterState, turn: RouterTurn) -> crate::store::Result<()> {
        let mut tx = self.store.begin().await?;
        let mut writer =
            OutputWriter { state, now: clock::wall(), routed: &turn.routed, ..OutputWriter::new(state) };
        if let Some(last) = turn.routed.last() {
            notices::routed(&mut tx, last.id, writer.now).await?;
        }
        for output in &turn.outputs {
            writer.write(&mut tx, output).await?;
        }
        if !turn.resumed.is_empty() {
            notices::note_acknowledgement_ended(&mut tx, &turn.resumed).await?;
        }
        notices::hold(&mut tx, &writer.held).await?;
        tx.commit().await?;
        writer.last_event.into_iter().for_each(|seq| self.live.tell(Change::Event(seq)));
        if writer.messages {
            self.wakeups.messages();
        }
        Ok(())
    }
}

impl RouterState {
    fn forget(&mut self, removed: Vec<CheckableId>) {
        for object in removed {
            self.router.handle(Input::Forget(object), clock::now());
        }
    }

    /// Explains why the rules of one contact, or of all, did not match a notice.
    fn refusals(&self, of: Option<ContactId>, notice: &Notice, now: Wall) -> String {
        let asked = self.asked.iter().filter(|asked| of.is_none_or(|contact| asked.rule.contact == contact));
        rule_trace::words(asked, notice, now)
    }

    fn drain(&mut self, new: Vec<Notice>) -> RouterTurn {
        let now = clock::now();
        for notice in &new {
            self.router.handle(Input::Notice(notice.clone()), now);
        }
        // While more notices follow, no timer is due.
        if new.len() < usize::try_from(ROUND).unwrap_or(usize::MAX) {
            self.router.handle(Input::Timeout, now);
        }
        let mut turn = RouterTurn { routed: new, ..RouterTurn::default() };
        loop {
            match self.router.poll_output() {
                Output::Wait(at) => {
                    turn.wait = at;
                    return turn;
                }
                output => turn.outputs.push(output),
            }
        }
    }
}

/// The content of one transaction.
struct OutputWriter<'a> {
    state: &'a RouterState,
    now: Wall,
    routed: &'a [Notice],
    held: Vec<HeldRow>,
    last_event: Option<i64>,
    messages: bool,
}

impl<'a> OutputWriter<'a> {
    fn new(state: &'a RouterState) -> OutputWriter<'a> {
        OutputWriter {
            state,
            now: Wall::default(),
            routed: &[],
            held: Vec::new(),
            last_event: None,
            messages: false,
        }
    }

    async fn write(&mut self, tx: &mut SqliteConnection, output: &Output) -> crate::store::Result<()> {
        match output {
            Output::Waits(waits) => notices::wait(tx, waits).await,
            Output::Notified { contact, object, told } => {
                notices::tell(tx, *contact, object, told.as_ref()).await
            }
            Output::Suppressed { contact, notice, why } => self.hold(tx, *contact, *notice, *why).await,
            Output::Post { contact, site, folded, items } => {
                notices::posted(tx, *contact, items).await?;
                self.post(tx, *contact, OutboxKind::Notices, (site, *folded), items).await
            }
            Output::Digest { contact, items } => {
                routing::digested(tx, *contact, self.now).await?;
                let items: Vec<Item> =
                    items.iter().map(|n| Item { notice: *n, root: *n, rule: None }).collect();
                if items.is_empty() {
                    return Ok(());
                }
                self.post(tx, *contact, OutboxKind::Digest, ("", 0), &items).await
            }
            Output::Wait(_) => Ok(()),
        }
    }

    /// Queues one message for each address of the contact.
    async fn post(
        &mut self,
        tx: &mut SqliteConnection,
        contact: ContactId,
        kind: OutboxKind,
        (site, folded): (&str, usize),
        items: &[Item],
    ) -> crate::store::Result<()> {
        let Some(reach) = self.state.reach.get(&contact) else { return Ok(()) };
        for address in &reach.addresses {
            let new = NewMessage {
                contact,
                contact_name: &reach.name,
                channel: address.channel(),
                address: address.reveal(),
                kind,
                site,
                folded,
                items,
            };
            let id = outbox::insert(tx, &new, self.now).await?;
            self.messages = true;
            if address.channel() == Channel::Email && !self.state.has_mail {
                outbox::given_up(tx, id, NO_MAIL, self.now).await?;
            }
        }
        Ok(())
    }

    async fn hold(
        &mut self,
        tx: &mut SqliteConnection,
        contact: Option<ContactId>,
        notice: NoticeId,
        why: NotSent,
    ) -> crate::store::Result<()> {
        if let Some(contact) = contact {
            notices::wait_no_more(tx, contact, notice).await?;
        }
        let Some(told) = self.notice(tx, notice).await? else { return Ok(()) };
        let CheckableId { host, service } = told.object.clone();
        let (reason, cause) = reason_text::hold(why, |n| IdKind::Notice.text(Id::from_i64(n)));
        let name = contact.and_then(|c| self.state.reach.get(&c)).map(|r| r.name.as_str());
        let about = events::about(host, service.is_some());
        let evidence = self.evidence(tx, &told, contact, why).await?;
        let event = NewEvent {
            service: service.as_deref(),
            evidence,
            data: serde_json::json!({
                "notification": IdKind::Notice.text(Id::from_i64(notice.0)), "contact": name, "reason": reason,
            }),
            ..NewEvent::new(self.now, "notification.suppressed", about, &cause, SYSTEM)
        };
        let seq = events::append(tx, &event).await?;
        let stopped = why == NotSent::Acknowledged && contact.is_some();
        self.held.push(HeldRow { notice, contact, event: seq, stopped });
        self.last_event = Some(seq);
        Ok(())
    }

    /// Returns the evidence for a suppression.
    async fn evidence(
        &self,
        tx: &mut SqliteConnection,
        notice: &Notice,
        contact: Option<ContactId>,
        why: NotSent,
    ) -> crate::store::Result<Excerpt> {
        let CheckableId { host, service } = &notice.object;
        let evidence = match why {
            NotSent::Acknowledged => {
                suppression_detail::of(tx, *host, service.as_deref(), SuppressReason::Acknowledged).await?
            }
            NotSent::Untimely(why) => suppression_detail::of(tx, *host, service.as_deref(), why).await?,
            NotSent::Superseded(by) | NotSent::OverBefore(by) => {
                let newer = notices::find(tx, by).await?;
                newer.map_or_else(String::new, |n| format!("{}: {}", n.to.to_uppercase(), n.output))
            }
            NotSent::NoRule | NotSent::BelowSeverity(_) | NotSent::OutsidePeriod => {
                self.state.refusals(contact, notice, self.now)
            }
            _ => String::new(),
        };
        Ok(evidence.into())
    }

    async fn notice(&self, tx: &mut SqliteConnection, id: NoticeId) -> crate::store::Result<Option<Notice>> {
        if let Ok(at) = self.routed.binary_search_by_key(&id, |n| n.id) {
            return Ok(self.routed.get(at).cloned());
        }
        notices::find(tx, id).await?.map(|row| row.notice()).transpose()
    }
}

#[cfg(test)]
mod tests;
