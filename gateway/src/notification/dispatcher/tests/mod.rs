use fleetgate_engine::id::Id;
use fleetgate_engine::messages::{Event, EventKind, GATEWAY, Message, MessageKind};
use fleetgate_engine::notification::Severity;
use jiff::civil::Time;
use tokio::task::JoinHandle;

use super::*;
use crate::outbound::Outbound;
use crate::store::contacts::{self, Contact, Rule};
use crate::store::managed::Managed;
use crate::store::outbox::{Filter, MessageRow};
use crate::store::{Tx, fixture};

mod removed;

const OPS: ContactId = Id::from_i64(1);

/// A running dispatcher on a store with a contact `ops`, a rule that matches everything, and hosts 7, 8, 9.
struct Room {
    store: Store,
    dir: tempfile::TempDir,
    wakeups: Wakeups,
    settings: watch::Sender<Settings>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

async fn put_rule(tx: &mut crate::store::SqliteConnection, rule: &Rule) {
    contacts::put_rule(tx, rule).await.unwrap();
}

fn settings() -> Settings {
    Settings {
        mail: None,
        public_url: None,
        group_wait: Duration::ZERO,
        digest: None,
        heartbeat: None,
        outbound: Outbound::default(),
        timing: fixture::TIMING,
    }
}

fn ops() -> Contact {
    Contact {
        id: OPS,
        name: "ops".into(),
        emails: Vec::new(),
        webhook_url: Some("http://127.0.0.1:9/".into()),
        webhook_secret: None,
        time_zone: "Europe/Berlin".into(),
        digest_at: None,
        group_wait: Some(Duration::from_millis(300)),
        managed: Managed { by: "api".into(), edited_by: None },
        version: 1,
        created_at: Wall::from_millis(0),
        digested_at: Wall::from_millis(0),
    }
}

fn everything() -> Rule {
    Rule {
        id: Id::from_i64(1),
        name: "everything".into(),
        contact: OPS,
        labels: BTreeMap::new(),
        severity: Severity::Warning,
        period: None,
        delay: Duration::ZERO,
        managed: Managed { by: "api".into(), edited_by: None },
        version: 1,
        created_at: Wall::from_millis(0),
    }
}

impl Room {
    async fn open() -> Room {
        let (store, dir) = fixture::store().await;
        for host in [7, 8, 9] {
            fixture::device(&store, host, &format!("cam-0{host}")).await;
        }
        let mut tx = store.begin().await.unwrap();
        contacts::put(&mut tx, &ops()).await.unwrap();
        contacts::put_rule(&mut tx, &everything()).await.unwrap();
        tx.commit().await.unwrap();
        Room::on(store, dir)
    }

    fn on(store: Store, dir: tempfile::TempDir) -> Room {
        let (wakeups, stop) = (Wakeups::default(), CancellationToken::new());
        let (settings, listener) = watch::channel(settings());
        let dispatcher = Dispatcher::new(listener, store.clone(), LiveState::default(), wakeups.clone());
        let running = tokio::spawn(dispatcher.run(stop.clone()));
        Room { store, dir, wakeups, settings, stop, running }
    }

    /// Stops the dispatcher and starts another one: only the store remains of the first.
    async fn restart(self) -> Room {
        self.stop.cancel();
        self.running.await.unwrap();
        Room::on(self.store, self.dir)
    }

    async fn say(&self, messages: &[Message]) {
        let mut tx = self.store.begin().await.unwrap();
        for message in messages {
            notices::insert(&mut tx, message, None).await.unwrap();
        }
        tx.commit().await.unwrap();
        self.wakeups.notices();
    }

    async fn change(&self, change: impl AsyncFnOnce(&mut Tx)) {
        self.write(change).await;
        self.wakeups.routing();
    }

    /// Writes without a wake-up of the dispatcher.
    async fn write(&self, change: impl AsyncFnOnce(&mut Tx)) {
        let mut tx = self.store.begin().await.unwrap();
        change(&mut tx).await;
        tx.commit().await.unwrap();
    }

    async fn messages(&self) -> Vec<MessageRow> {
        outbox::list(&mut self.store.reader().await.unwrap(), Filter::All, i64::MAX, 99).await.unwrap()
    }

    async fn until_messages(&self, count: usize) -> Vec<MessageRow> {
        for _ in 0..500 {
            let messages = self.messages().await;
            if messages.len() >= count {
                return messages;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{:?}", self.messages().await);
    }

    async fn held(&self) -> Vec<String> {
        let rows = self.store.events(events::Span::Since(0), &Default::default(), 99).await.unwrap();
        let held = rows.into_iter().filter(|e| e.kind == "notification.suppressed");
        held.map(|e| {
            let data: serde_json::Value = serde_json::from_str(&e.data).unwrap();
            format!("{} {}", data["contact"].as_str().unwrap_or("-"), data["reason"].as_str().unwrap())
        })
        .collect()
    }

    async fn told(&self) -> usize {
        notices::told(&mut self.store.reader().await.unwrap()).await.unwrap().len()
    }

    async fn waiting(&self) -> usize {
        notices::waiting(&mut self.store.reader().await.unwrap()).await.unwrap().len()
    }

    async fn until(&self, done: impl AsyncFn(&Room) -> bool) {
        for _ in 0..500 {
            if done(self).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} told, {} waiting, held: {:?}", self.told().await, self.waiting().await, self.held().await);
    }

    async fn until_held(&self, count: usize) -> Vec<String> {
        for _ in 0..500 {
            let held = self.held().await;
            if held.len() >= count {
                return held;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{:?}", self.held().await);
    }
}

fn down(host: i64) -> Message {
    fixture::down(Id::from_i64(host))
}

fn up(host: i64) -> Message {
    Message { kind: MessageKind::Recovery, problem: false, from: "down", to: "up", ..down(host) }
}

async fn told(room: &Room, message: &MessageRow) -> Vec<i64> {
    let mut conn = room.store.reader().await.unwrap();
    let contents = outbox::contents(&mut conn, message.id, 99, outbox::Order::Time).await.unwrap();
    contents.notices.iter().map(|n| n.host.as_i64()).collect()
}

#[tokio::test]
async fn hosts_that_fail_together_make_one_message_even_over_a_restart() {
    let room = Room::open().await;
    room.say(&[down(7), down(8)]).await;
    while notices::waiting(&mut room.store.reader().await.unwrap()).await.unwrap().len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let room = room.restart().await;
    room.say(&[down(9)]).await;
    let messages = room.until_messages(1).await;
    assert_eq!(told(&room, &messages[0]).await, [7, 8, 9]);
    assert_eq!((messages[0].contact_name.as_str(), messages[0].channel), ("ops", Channel::Webhook));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(room.messages().await.len(), 1);
    assert!(notices::waiting(&mut room.store.reader().await.unwrap()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_recovery_after_a_restart_goes_to_notified_contacts() {
    let room = Room::open().await;
    room.say(&[down(7)]).await;
    let first = room.until_messages(1).await[0].id;
    let room = room.restart().await;
    room.say(&[up(7), up(8)]).await;
    let messages = room.until_messages(2).await;
    assert_eq!(told(&room, &messages[0]).await, [7]);
    let thread = outbox::thread(&mut room.store.reader().await.unwrap(), &messages[0]).await.unwrap();
    assert_eq!(thread, [first]);
    assert_eq!(room.until_held(1).await, ["ops never_notified"]);
}

/// A message of the monitor about the gateway itself.
fn of_gateway(message: Message) -> Message {
    Message { host: GATEWAY, host_name: "gateway".into(), ..message }
}

#[tokio::test]
async fn a_lost_uplink_and_its_recovery_are_notified_even_over_a_restart() {
    let room = Room::open().await;
    room.change(async |tx| {
        let north = Rule { labels: [("site".into(), "north".into())].into(), ..everything() };
        contacts::put_rule(tx, &north).await.unwrap();
    })
    .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    room.say(&[of_gateway(down(0))]).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    room.wakeups.notices();
    let first = room.until_messages(1).await[0].id;
    let room = room.restart().await;
    room.wakeups.notices();
    room.say(&[of_gateway(up(0))]).await;
    let messages = room.until_messages(2).await;
    assert_eq!(told(&room, &messages[0]).await, [GATEWAY.as_i64()]);
    let thread = outbox::thread(&mut room.store.reader().await.unwrap(), &messages[0]).await.unwrap();
    assert_eq!((thread, room.held().await), (vec![first], vec![]));
}

#[tokio::test]
async fn rules_change_while_the_dispatcher_runs() {
    let room = Room::open().await;
    room.change(async |tx| {
        let strict = Rule {
            severity: Severity::Critical,
            labels: [("site".into(), "south".into())].into(),
            ..everything()
        };
        contacts::put_rule(tx, &strict).await.unwrap();
    })
    .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    room.say(&[down(7)]).await;
    assert_eq!(room.until_held(1).await, ["- no_rule"]);
    let said = room.store.events(events::Span::Since(0), &Default::default(), 99).await.unwrap();
    let evidence = said.iter().find(|e| e.kind == "notification.suppressed").unwrap().evidence.to_string();
    assert_eq!(evidence, "rule everything (to ops) requires site=south, this host has no site");
}

#[tokio::test]
async fn without_a_contact_notifications_are_suppressed_and_logged() {
    let room = Room::open().await;
    room.change(async |tx| {
        contacts::remove_rule(tx, everything().id).await.unwrap();
        contacts::remove(tx, OPS).await.unwrap();
    })
    .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    room.say(&[down(7)]).await;
    assert_eq!(room.until_held(1).await, ["- no_contact"]);
}

#[tokio::test]
async fn mail_to_receives_all_notifications_without_rules() {
    let room = Room::open().await;
    room.change(async |tx| contacts::remove_rule(tx, everything().id).await.unwrap()).await;
    let toml = "[mail]\nhost = \"mx.example.org\"\nfrom = \"fleetgate@example.org\"\nto = [\"a@example.org\", \"b@example.org\"]";
    std::fs::write(room.dir.path().join("fleetgate.toml"), toml).unwrap();
    let config = crate::config::Config::load(room.dir.path(), None).unwrap();
    room.settings.send_replace(Settings { group_wait: Duration::ZERO, ..Settings::from(&config) });
    tokio::time::sleep(Duration::from_millis(100)).await;
    room.say(&[down(7)]).await;
    let mut addresses: Vec<String> = room
        .until_messages(2)
        .await
        .into_iter()
        .map(|m| format!("{} {}", m.contact_name, m.address))
        .collect();
    addresses.sort();
    assert_eq!(addresses, ["default a@example.org", "default b@example.org"]);
}

#[tokio::test]
async fn a_digest_lists_open_problems_once() {
    let room = Room::open().await;
    let opened = "insert into incidents (id, extent, cause, words, opened_at)
                  values (1, 'host', 'host_down', 'cam-07 is down', 0)";
    fixture::run(&room.store, opened, &[]).await;
    room.say(&[Message { incident: Some(incident_id(1)), ..down(7) }]).await;
    room.until_messages(1).await;
    room.write(async |tx| {
        let digest_at = Some(Time::midnight());
        contacts::put(tx, &Contact { digest_at, ..ops() }).await.unwrap();
        // The contact was notified of it long ago.
        let object = CheckableId { host: Id::from_i64(7), service: None };
        let mut told = notices::told(tx).await.unwrap().remove(0).2;
        told.at = Wall::from_millis(0);
        notices::tell(tx, OPS, &object, Some(&told)).await.unwrap();
    })
    .await;
    let room = room.restart().await;
    let messages = room.until_messages(2).await;
    assert_eq!((messages[0].kind, told(&room, &messages[0]).await), (OutboxKind::Digest, vec![7]));
    let digest =
        outbox::contents(&mut room.store.reader().await.unwrap(), messages[0].id, 9, outbox::Order::Time)
            .await
            .unwrap();
    let cited: Vec<_> = digest.incidents.iter().map(|c| c.incident.id).collect();
    assert_eq!(cited, [incident_id(1)], "it cites the incident");
    let room = room.restart().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(room.messages().await.len(), 2);
}

#[tokio::test]
async fn a_removed_host_is_notified_no_more() {
    let room = Room::open().await;
    room.say(&[down(7)]).await;
    room.until_messages(1).await;
    fixture::run(&room.store, "update hosts set removed_at = 1 where id = 7", &[]).await;
    room.wakeups.routing();
    for _ in 0..200 {
        if notices::told(&mut room.store.reader().await.unwrap()).await.unwrap().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("still told");
}

#[tokio::test]
async fn hosts_of_one_incident_are_one_message_across_sites() {
    let room = Room::open().await;
    let said = |host: i64, incident: i64| Message { incident: Some(incident_id(incident)), ..down(host) };
    for sql in [
        "insert into incidents (id, extent, cause, words, opened_at) values (1, 'site', 'parent_down', 'r1', 0)",
        "insert into incidents (id, extent, cause, words, opened_at, merged_into)
         values (2, 'host', 'host_down', 'cam-08', 0, 1)",
        "update hosts set labels = json_object('site', name) where id in (7, 8)",
    ] {
        fixture::run(&room.store, sql, &[]).await;
    }
    room.say(&[said(7, 1), said(8, 2)]).await;
    let messages = room.until_messages(1).await;
    assert_eq!((told(&room, &messages[0]).await, messages[0].site.as_str()), (vec![7, 8], ""));
    let mut conn = room.store.reader().await.unwrap();
    let contents = outbox::contents(&mut conn, messages[0].id, 9, outbox::Order::Time).await.unwrap();
    let incidents: Vec<_> = contents.incidents.iter().map(|c| c.incident.id).collect();
    assert_eq!(incidents, [incident_id(1)], "merged ones as what they belong to");
    assert_eq!(contents.sites, [("cam-07".to_owned(), 1), ("cam-08".to_owned(), 1)]);
    drop(conn);
    let recovery = Message { incident: Some(incident_id(2)), ..up(8) };
    room.say(&[recovery, said(9, 1)]).await;
    let again = room.until_messages(2).await;
    let thread = outbox::thread(&mut room.store.reader().await.unwrap(), &again[0]).await.unwrap();
    assert_eq!(thread, [messages[0].id], "one thread");
}

fn incident_id(n: i64) -> fleetgate_engine::messages::IncidentId {
    fleetgate_engine::messages::IncidentId(Id::from_i64(n))
}

#[tokio::test]
async fn a_rule_delay_restarts_when_the_acknowledgement_ends() {
    let room = Room::open().await;
    let late = Rule { delay: Duration::from_millis(1_500), ..everything() };
    room.change(async |tx| put_rule(tx, &late).await).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    room.say(&[Message { at: clock::wall(), ..down(7) }]).await;
    let ack = "insert into acknowledgements (id, host, sticky, author, comment, created_at)
               values (1, 7, 0, 'user:ada', 'on it', 0)";
    fixture::run(&room.store, ack, &[]).await;
    room.wakeups.notices();
    assert_eq!(room.until_held(1).await, ["ops acknowledged"]);
    let room = room.restart().await;
    let ended = "update acknowledgements set ended_at = cast(unixepoch('subsec') * 1000 as integer)";
    fixture::run(&room.store, ended, &[]).await;
    room.wakeups.notices();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(room.messages().await.is_empty(), "its delay runs");
    let messages = room.until_messages(1).await;
    assert_eq!(told(&room, &messages[0]).await, [7]);
    room.wakeups.notices();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((room.messages().await.len(), room.held().await.len()), (1, 1));
}

/// A rule whose delay is over within moments, but whose period never begins before tomorrow.
fn tomorrow() -> Rule {
    let today = clock::wall().as_millis().div_euclid(86_400_000);
    // 1 January 1970 was a Thursday.
    let day = ["fri", "sat", "sun", "mon", "tue", "wed", "thu"][today.rem_euclid(7) as usize];
    let period = Some(format!("{day} 12:00-12:30").parse().unwrap());
    Rule { delay: Duration::from_millis(10), period, ..everything() }
}

#[tokio::test]
async fn an_acknowledgement_stops_notifications_that_wait_for_a_period() {
    let room = Room::open().await;
    room.change(async |tx| put_rule(tx, &tomorrow()).await).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    room.say(&[Message { at: clock::wall(), ..down(7) }]).await;
    while notices::waiting(&mut room.store.reader().await.unwrap()).await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let ack = "insert into acknowledgements (id, host, sticky, author, comment, created_at)
               values (1, 7, 0, 'user:ada', 'on it', 0)";
    fixture::run(&room.store, ack, &[]).await;
    room.wakeups.notices();
    assert_eq!(room.until_held(1).await, ["ops acknowledged"]);
}

#[tokio::test]
async fn an_escalation_waits_for_the_end_of_a_downtime_that_began_meanwhile() {
    let room = Room::open().await;
    room.store.all_hosts(&fixture::TIMING).await.unwrap();
    let late = Rule { delay: Duration::from_millis(600), ..everything() };
    room.change(async |tx| put_rule(tx, &late).await).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let lost = "update host_states set hard = 'down', notified = 'down' where host = 7";
    fixture::run(&room.store, lost, &[]).await;
    room.say(&[Message { at: clock::wall(), ..down(7) }]).await;
    let downtime =
        "update host_states set notification = json_object('in_downtime', json($1)) where host = 7";
    fixture::run(&room.store, downtime, &["true"]).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let waiting = notices::waiting(&mut room.store.reader().await.unwrap()).await.unwrap();
    assert_eq!(waiting.iter().map(|w| w.why.name()).collect::<Vec<_>>(), ["downtime"]);
    let room = room.restart().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(room.messages().await.is_empty(), "also over a restart");
    fixture::run(&room.store, downtime, &["false"]).await;
    room.wakeups.notices();
    let messages = room.until_messages(1).await;
    assert_eq!(told(&room, &messages[0]).await, [7]);
}

#[tokio::test]
async fn an_acknowledgement_that_ends_during_a_turn_is_found_by_the_next() {
    let (store, _dir) = fixture::store().await;
    for raw in [7u8, 8] {
        let host = fixture::device(&store, raw, &format!("cam-0{raw}")).await;
        let mut tx = store.begin().await.unwrap();
        let notice = notices::insert(&mut tx, &down(i64::from(raw)), None).await.unwrap();
        let about = events::about(host, false);
        let data = serde_json::json!({ "reason": "acknowledged" });
        let event = NewEvent {
            data,
            ..NewEvent::new(Wall::from_millis(1), "notification.suppressed", about, "on it", SYSTEM)
        };
        let event = events::append(&mut tx, &event).await.unwrap();
        let held = HeldRow { notice, contact: Some(OPS), event, stopped: true };
        notices::hold(&mut tx, &[held]).await.unwrap();
        tx.commit().await.unwrap();
        let ack = "insert into acknowledgements (id, host, sticky, author, comment, created_at)
                   values ($1, $1, 0, 'user:ada', 'on it', 0)";
        fixture::run(&store, ack, &[&raw.to_string()]).await;
    }
    let mut found = Vec::new();
    for ends in ["7", "8"] {
        fixture::run(&store, "update acknowledgements set ended_at = 9 where id = $1", &[ends]).await;
        let ended = notices::acknowledgement_ended(&mut store.reader().await.unwrap()).await.unwrap();
        found.push(ended.iter().map(|(_, n)| n.object.host.as_i64()).collect::<Vec<_>>());
        // The other one ends while this is written.
        fixture::run(&store, "update acknowledgements set ended_at = 9", &[]).await;
        let known: Vec<_> = ended.iter().map(|(contact, n)| (*contact, n.id)).collect();
        let mut tx = store.begin().await.unwrap();
        notices::note_acknowledgement_ended(&mut tx, &known).await.unwrap();
        tx.commit().await.unwrap();
    }
    assert_eq!(found, [vec![7], vec![8]]);
    assert!(notices::acknowledgement_ended(&mut store.reader().await.unwrap()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_removed_service_is_notified_no_more() {
    let room = Room::open().await;
    room.store.all_hosts(&fixture::TIMING).await.unwrap();
    let disk = Message { service: Some("ping".into()), ..down(7) };
    room.say(std::slice::from_ref(&disk)).await;
    room.until_messages(1).await;
    room.change(async |tx| put_rule(tx, &tomorrow()).await).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    room.say(&[Message { service: Some("ping".into()), at: clock::wall(), ..down(8) }]).await;
    room.until(async |room| room.waiting().await == 1).await;
    fixture::run(&room.store, "delete from service_states where service = 'ping'", &[]).await;
    room.wakeups.notices();
    room.until(async |room| room.told().await == 0 && room.waiting().await == 0).await;
    assert_eq!(room.held().await, ["ops service_removed"]);
}

#[tokio::test]
async fn a_problem_that_ended_without_a_recovery_is_in_no_digest() {
    let room = Room::open().await;
    room.store.all_hosts(&fixture::TIMING).await.unwrap();
    let state = "update host_states set hard = $1, notified = nullif($1, 'up') where host = 7";
    fixture::run(&room.store, state, &["down"]).await;
    room.say(&[down(7)]).await;
    room.until_messages(1).await;
    room.wakeups.notices();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(room.told().await, 1);
    // The host recovers without a notification.
    fixture::run(&room.store, state, &["up"]).await;
    room.wakeups.notices();
    room.until(async |room| room.told().await == 0).await;
    assert!(room.held().await.is_empty());
}

#[tokio::test]
async fn an_escalation_continues_when_the_acknowledgement_ends() {
    let (store, _dir) = fixture::store().await;
    let host = fixture::device(&store, 7, "cam-07").await;
    let mut tx = store.begin().await.unwrap();
    let notice = notices::insert(&mut tx, &down(7), None).await.unwrap();
    let about = events::about(host, false);
    let data = serde_json::json!({ "reason": "acknowledged" });
    let event = NewEvent {
        data,
        ..NewEvent::new(Wall::from_millis(1), "notification.suppressed", about, "on it", SYSTEM)
    };
    let event = events::append(&mut tx, &event).await.unwrap();
    notices::hold(&mut tx, &[HeldRow { notice, contact: Some(OPS), event, stopped: true }]).await.unwrap();
    // It got worse and better again during the acknowledgement, so the monitor suppressed both.
    let worse = Event {
        at: Wall::from_millis(2),
        host,
        service: None,
        kind: EventKind::NotificationHeld {
            kind: MessageKind::Problem,
            from: "down",
            to: "down",
            reason: SuppressReason::Acknowledged,
        },
        cause: String::new(),
        evidence: "".into(),
        by: None,
    };
    let seq = events::append_observed(&mut tx, &worse).await.unwrap();
    notices::insert_held(&mut tx, &worse, seq).await.unwrap();
    notices::note_acknowledgement_ended(&mut tx, &[]).await.unwrap();
    assert_eq!(notices::acknowledgement_ended(&mut tx).await.unwrap().len(), 1);
    notices::insert(&mut tx, &up(7), None).await.unwrap();
    assert!(notices::acknowledgement_ended(&mut tx).await.unwrap().is_empty(), "it is over");
    tx.commit().await.unwrap();
}
