use fleetgate_engine::id::Id;
use fleetgate_engine::messages::{
    CauseKind, GATEWAY, HostState, HostStatus, IncidentChange, IncidentId, IncidentRecord, IncidentScope,
    IncidentSummary, Message, MessageKind, Sample,
};
use fleetgate_engine::notification::Item;
use fleetgate_engine::time::Wall;
use fleetgate_probes::sample::{Metric, Status};
use tokio::task::JoinHandle;

use super::*;
use crate::config::{MailConfig, MailSecurity};
use crate::history::Keep;
use crate::notification::mail::sink::{Manner, Sink};
use crate::notification::test_sink;
use crate::notification::test_sink::HookSink;
use crate::outbound::Outbound;
use crate::store::contacts::{self, Contact};
use crate::store::managed::Managed;
use crate::store::outbox::{Channel, NewMessage, OutboxKind};
use crate::store::{SqliteConnection, events, fixture, incidents, notices, states};

/// The usual behaviour with shorter times.
const PACE: DeliveryTiming = DeliveryTiming {
    patience: Duration::from_millis(300),
    hook_patience: Duration::from_millis(300),
    first_pause: Duration::from_millis(20),
    longest_pause: Duration::from_millis(100),
    refused_pause: Duration::from_millis(20),
    give_up: Duration::from_secs(3_600),
    farewell: Duration::from_millis(10),
};

const OPS: &str = "ops@example.org";

const KEEP: Keep = Keep {
    raw: Duration::from_secs(30 * 86_400),
    five_minutes: Duration::from_secs(90 * 86_400),
    hours: Duration::from_secs(1_098 * 86_400),
    days: None,
};

/// A running delivery worker, a mail server, and a contact with id 1.
struct Notifications {
    store: Store,
    history: Recorder,
    _dir: tempfile::TempDir,
    sink: Sink,
    wakeups: Wakeups,
    _settings: watch::Sender<Settings>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Notifications {
    async fn open(manners: &[Manner]) -> Notifications {
        Notifications::with_pace(manners, PACE).await
    }

    async fn with_pace(manners: &[Manner], pace: DeliveryTiming) -> Notifications {
        let (store, dir) = fixture::store().await;
        Notifications::on(store, dir, manners, pace).await
    }

    async fn on(
        store: Store,
        dir: tempfile::TempDir,
        manners: &[Manner],
        pace: DeliveryTiming,
    ) -> Notifications {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let sink = Sink::start(manners).await;
        let (wakeups, stop) = (Wakeups::default(), CancellationToken::new());
        let (settings, listener) = watch::channel(settings(&sink));
        let history = Recorder::open(store.clone(), KEEP).await.unwrap();
        let read = (store.clone(), history.clone());
        let worker =
            DeliveryWorker::new(listener, read, LiveState::default(), wakeups.clone(), pace).unwrap();
        let running = tokio::spawn(worker.run(stop.clone()));
        Notifications { store, history, _dir: dir, sink, wakeups, _settings: settings, stop, running }
    }

    /// Gives the contact a secret, so that its webhooks can be signed.
    async fn with_secret(self) -> Notifications {
        self.with_contact("UTC").await
    }

    /// The same, for a contact in this time zone.
    async fn with_contact(self, zone: &str) -> Notifications {
        let place = contacts::secret_place(Id::from_i64(1));
        let mut tx = self.store.begin().await.unwrap();
        let webhook_secret = Some(self.store.seal(&place, b"secret"));
        let contact = Contact { webhook_secret, time_zone: zone.into(), ..contact(&mut tx).await };
        contacts::put(&mut tx, &contact).await.unwrap();
        tx.commit().await.unwrap();
        self
    }

    async fn queue(&self, channel: Channel, address: &str, messages: &[Message]) -> i64 {
        self.queue_a(OutboxKind::Notices, channel, address, messages).await
    }

    async fn queue_a(&self, kind: OutboxKind, channel: Channel, address: &str, messages: &[Message]) -> i64 {
        queue_at(&self.store, (kind, channel), address, messages, clock::wall(), &self.wakeups).await
    }

    async fn mail(&self, address: &str, message: &Message) -> i64 {
        self.queue(Channel::Email, address, std::slice::from_ref(message)).await
    }

    /// Returns the state of the rows: attempts, whether sent, whether given up.
    async fn rows(&self) -> Vec<(u32, bool, bool)> {
        let mut conn = self.store.reader().await.unwrap();
        let rows = outbox::list(&mut conn, outbox::Filter::All, i64::MAX, 999).await.unwrap();
        let row = |m: MessageRow| (m.attempts, m.sent_at.is_some(), m.given_up_at.is_some());
        rows.into_iter().rev().map(row).collect()
    }

    async fn events(&self) -> Vec<String> {
        let filter = events::EventFilter::default();
        let rows = self.store.events(events::Span::Since(0), &filter, 99).await.unwrap();
        rows.into_iter().map(|e| format!("{}: {}", e.kind, e.cause)).collect()
    }

    async fn until(&self, done: impl Fn(&[(u32, bool, bool)]) -> bool) -> Vec<(u32, bool, bool)> {
        self.until_all(0, done).await
    }

    /// Waits for at least this many rows.
    async fn until_all(
        &self,
        count: usize,
        done: impl Fn(&[(u32, bool, bool)]) -> bool,
    ) -> Vec<(u32, bool, bool)> {
        for _ in 0..500 {
            let rows = self.rows().await;
            if rows.len() >= count && done(&rows) {
                return rows;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the outbox stays at {:?}", self.rows().await);
    }

    async fn close(self) -> (Store, tempfile::TempDir) {
        self.stop.cancel();
        self.running.await.unwrap();
        (self.store, self._dir)
    }
}

/// Returns contact 1 as it is stored.
async fn contact(conn: &mut SqliteConnection) -> Contact {
    let new = || Contact {
        id: Id::from_i64(1),
        name: "ops".into(),
        emails: vec![],
        webhook_url: None,
        webhook_secret: None,
        time_zone: "UTC".into(),
        digest_at: None,
        group_wait: None,
        managed: Managed { by: "api".into(), edited_by: None },
        version: 1,
        created_at: Wall::from_millis(0),
        digested_at: Wall::from_millis(0),
    };
    contacts::find(conn, Id::from_i64(1)).await.unwrap().unwrap_or_else(new)
}

/// Adds this address to contact 1.
async fn reached_at(tx: &mut SqliteConnection, channel: Channel, address: &str) {
    let mut contact = contact(tx).await;
    match channel {
        Channel::Email if !contact.emails.iter().any(|e| e == address) => contact.emails.push(address.into()),
        Channel::Email => return,
        Channel::Webhook => contact.webhook_url = Some(address.into()),
    }
    contacts::put(tx, &contact).await.unwrap();
}

async fn queue_at(
    store: &Store,
    (kind, channel): (OutboxKind, Channel),
    address: &str,
    messages: &[Message],
    at: Wall,
    wakeups: &Wakeups,
) -> i64 {
    let mut tx = store.begin().await.unwrap();
    reached_at(&mut tx, channel, address).await;
    let mut items = Vec::new();
    for message in messages {
        let notice = notices::insert(&mut tx, message, None).await.unwrap();
        // The very first notice began every thread.
        items.push(Item { notice, root: fleetgate_engine::notification::NoticeId(1), rule: None });
    }
    let (contact, contact_name) = (Id::from_i64(1), "ops");
    let new =
        NewMessage { contact, contact_name, channel, address, kind, site: "", folded: 0, items: &items };
    let id = outbox::insert(&mut tx, &new, at).await.unwrap();
    tx.commit().await.unwrap();
    wakeups.messages();
    id
}

fn settings(sink: &Sink) -> Settings {
    let mail = MailConfig {
        host: "127.0.0.1".into(),
        port: sink.address.port(),
        security: MailSecurity::None,
        user: None,
        password: None,
        from: "Fleet <fleet@gateway.example>".parse().unwrap(),
        to: vec![OPS.parse().unwrap()],
        hello: Some("[127.0.0.1]".into()),
        ca: None,
    };
    let public_url = Some("https://watch.example.com".to_owned());
    let (group_wait, timing) = (Duration::ZERO, fixture::TIMING);
    let outbound = Outbound::default();
    Settings { mail: Some(mail), public_url, group_wait, digest: None, heartbeat: None, outbound, timing }
}

fn down(host: i64) -> Message {
    let at = Wall::from_millis(1_773_147_802_000);
    Message { at, since: at, ..fixture::down(Id::from_i64(host)) }
}

fn up(host: i64) -> Message {
    Message { kind: MessageKind::Recovery, problem: false, from: "down", to: "up", ..down(host) }
}

fn header<'a>(letter: &'a str, name: &str) -> &'a str {
    let line = letter.lines().take_while(|l| !l.is_empty()).find(|l| l.starts_with(name));
    line.unwrap_or_else(|| panic!("no {name} in {letter}"))
}

// ----------------------------------------------------------------------- mail

#[tokio::test]
async fn every_recipient_gets_a_mail_of_its_own() {
    let office = Notifications::open(&[Manner::Take]).await;
    office.mail(OPS, &down(7)).await;
    office.mail("Ada <ada@example.org>", &down(7)).await;
    let letters = office.sink.wait_for(2).await;
    let mut to: Vec<_> = letters.iter().map(|l| header(l, "To")).collect();
    to.sort_unstable();
    assert_eq!(to, ["To: Ada <ada@example.org>", "To: ops@example.org"]);
    for letter in &letters {
        assert_eq!(header(letter, "Subject"), "Subject: DOWN cam-07");
        assert_eq!(header(letter, "From"), "From: Fleet <fleet@gateway.example>");
        assert_eq!(header(letter, "Auto-Submitted"), "Auto-Submitted: auto-generated");
        assert!(header(letter, "Content-Type").starts_with("Content-Type: multipart/alternative"));
        assert!(letter.contains("Content-Type: text/plain") && letter.contains("Content-Type: text/html"));
        assert!(letter.contains("https://watch.example.com/hosts/cam-07"), "{letter}");
    }
    assert_eq!(office.until(|rows| rows.iter().all(|r| r.1)).await, [(1, true, false), (1, true, false)]);
    let mut events = office.events().await;
    events.sort();
    assert_eq!(
        events,
        ["message.sent: mail to Ada <ada@example.org>", "message.sent: mail to ops@example.org"]
    );
}

#[tokio::test]
async fn messages_about_one_problem_are_one_mail_thread() {
    let office = Notifications::open(&[Manner::Take]).await;
    office.mail(OPS, &down(7)).await;
    let first = office.sink.wait_for(1).await.remove(0);
    office.mail(OPS, &up(7)).await;
    let second = office.sink.wait_for(2).await.remove(1);
    let id = header(&first, "Message-ID").trim_start_matches("Message-ID: ");
    assert_eq!(header(&second, "In-Reply-To"), format!("In-Reply-To: {id}"));
    assert_eq!(header(&second, "References"), format!("References: {id}"));
    assert!(!first.contains("References:"));
}

#[tokio::test]
async fn a_thousand_hosts_are_one_mail() {
    let office = Notifications::open(&[Manner::Take]).await;
    let lost: Vec<Message> = (1..=1_000).map(down).collect();
    office.queue(Channel::Email, OPS, &lost).await;
    let letters = office.sink.wait_for(1).await;
    assert_eq!(header(&letters[0], "Subject"), "Subject: DOWN: cam-07 and 999 more hosts");
    assert!(letters[0].contains("and 900 more"));
    office.until(|rows| rows[0].1).await;
    assert_eq!(office.events().await, ["message.sent: mail to ops@example.org"]);
}

#[tokio::test]
async fn a_busy_server_is_retried_until_it_accepts_the_mail() {
    let office = Notifications::open(&[Manner::Busy, Manner::Busy, Manner::Take]).await;
    office.mail(OPS, &down(7)).await;
    assert_eq!(office.until(|rows| rows[0].1).await, [(3, true, false)]);
    let events = office.events().await;
    assert_eq!(events[0], "message.failed: mail to ops@example.org failed, it will be tried again");
    assert_eq!(events[1..], ["message.sent: mail to ops@example.org"]);
}

#[tokio::test]
async fn a_hanging_server_is_given_up() {
    let office = Notifications::open(&[Manner::Hang, Manner::Take]).await;
    office.mail(OPS, &down(7)).await;
    assert_eq!(office.until(|rows| rows[0].1).await, [(2, true, false)]);
}

#[tokio::test]
async fn a_lost_reply_repeats_the_mail_under_the_same_id() {
    let office = Notifications::open(&[Manner::DropAfterData, Manner::Take]).await;
    office.mail(OPS, &down(7)).await;
    office.until(|rows| rows[0].1).await;
    let letters = office.sink.wait_for(2).await;
    assert_eq!(header(&letters[0], "Message-ID"), header(&letters[1], "Message-ID"));
    office.mail(OPS, &down(7)).await;
    let letters = office.sink.wait_for(3).await;
    assert_ne!(header(&letters[0], "Message-ID"), header(&letters[2], "Message-ID"));
}

#[tokio::test]
async fn a_mail_shows_times_in_the_time_zone_of_its_contact() {
    let office = Notifications::open(&[Manner::Take]).await.with_contact("Asia/Kolkata").await;
    office.mail(OPS, &down(7)).await;
    let letter = office.sink.wait_for(1).await.remove(0);
    assert!(letter.contains("IST (UTC+05:30)"), "{letter}");
}

#[tokio::test]
async fn a_refused_recipient_delays_no_other() {
    let manners = [Manner::RefuseRecipient("550 no such user"), Manner::Take];
    let office = Notifications::open(&manners).await;
    office.mail("gone@example.org", &down(7)).await;
    office.until(|rows| rows[0].0 > 0).await;
    office.mail(OPS, &down(7)).await;
    let rows = office.until(|rows| rows.len() == 2 && rows.iter().all(|r| r.1)).await;
    assert_eq!(rows[1], (1, true, false));
}

#[tokio::test]
async fn a_message_that_fails_for_days_is_given_up_and_can_be_resent() {
    let pace = DeliveryTiming { give_up: Duration::ZERO, ..PACE };
    let manners = [Manner::RefuseRecipient("550 no such user"), Manner::Take];
    let office = Notifications::with_pace(&manners, pace).await;
    let id = office.mail("gone@example.org", &down(7)).await;
    assert_eq!(office.until(|rows| rows[0].2).await, [(1, false, true)]);
    assert_eq!(office.events().await, ["message.given_up: mail to gone@example.org failed, given up"]);
    let mut tx = office.store.begin().await.unwrap();
    outbox::resend(&mut tx, id, clock::wall()).await.unwrap();
    tx.commit().await.unwrap();
    office.wakeups.messages();
    assert_eq!(office.until(|rows| rows[0].1).await, [(1, true, false)]);
}

#[test]
fn no_pause_is_longer_than_the_longest() {
    let pace = DeliveryTiming::default();
    let refused = |times| doubled(pace.refused_pause, times, outbox::LONGEST_PAUSE);
    for times in (0..40).cycle().take(4_000) {
        assert!(refused(times) <= outbox::LONGEST_PAUSE);
        assert!(doubled(pace.first_pause, times, pace.longest_pause) <= pace.longest_pause);
        assert!(refused(times) >= (pace.refused_pause * 4 / 5).min(outbox::LONGEST_PAUSE));
    }
}

#[tokio::test]
async fn a_new_delivery_worker_continues_where_the_last_one_ended() {
    let office = Notifications::open(&[Manner::Busy]).await;
    office.mail(OPS, &down(7)).await;
    office.until(|rows| rows[0].0 > 0).await;
    let (store, dir) = office.close().await;
    let office = Notifications::on(store, dir, &[Manner::Take], PACE).await;
    office.sink.wait_for(1).await;
}

#[tokio::test]
async fn after_an_outage_only_the_final_state_is_sent_and_the_log_says_so() {
    let (store, dir) = fixture::store().await;
    let long_ago = clock::wall() - 2 * backlog::HELD_UP;
    for to in ["warning", "critical"] {
        let message = Message { service: Some("disk".into()), to, ..down(7) };
        queue_at(
            &store,
            (OutboxKind::Notices, Channel::Email),
            OPS,
            &[message],
            long_ago,
            &Wakeups::default(),
        )
        .await;
    }
    let office = Notifications::on(store, dir, &[Manner::Take], PACE).await;
    office.until(|rows| rows[1].1).await;
    let letters = office.sink.letters();
    assert_eq!((letters.len(), header(&letters[0], "Subject")), (1, "Subject: CRITICAL cam-07 disk"));
    let overtaken = format!("message.superseded: {}", backlog::OVERTAKEN);
    assert_eq!(office.events().await, [overtaken.as_str(), "message.sent: mail to ops@example.org"]);
}

#[tokio::test]
async fn a_recovery_is_sent_even_while_its_problem_is_being_delivered() {
    let slow = Manner::Slow(Duration::from_millis(1_500));
    let office =
        Notifications::with_pace(&[slow], DeliveryTiming { patience: Duration::from_secs(9), ..PACE }).await;
    let nearly_held_up = clock::wall() - backlog::HELD_UP + Duration::from_millis(500);
    let queue = |message| async {
        let messages = [message];
        queue_at(
            &office.store,
            (OutboxKind::Notices, Channel::Email),
            OPS,
            &messages,
            nearly_held_up,
            &office.wakeups,
        )
        .await
    };
    queue(down(7)).await;
    office.sink.wait_for(1).await;
    queue(up(7)).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    // Now both are delayed, and the first is being delivered.
    office.wakeups.messages();
    let letters = office.sink.wait_for(2).await;
    assert_eq!(header(&letters[1], "Subject"), "Subject: RECOVERED cam-07 after 0 s");
    assert_eq!(office.until(|rows| rows[1].1).await, [(1, true, false); 2]);
}

#[tokio::test]
async fn a_problem_that_may_have_been_delivered_gets_its_recovery() {
    let slow = Manner::Slow(Duration::from_secs(60));
    let office =
        Notifications::with_pace(&[slow], DeliveryTiming { patience: Duration::from_secs(60), ..PACE }).await;
    let long_ago = clock::wall() - 2 * backlog::HELD_UP;
    queue_at(
        &office.store,
        (OutboxKind::Notices, Channel::Email),
        OPS,
        &[down(7)],
        long_ago,
        &office.wakeups,
    )
    .await;
    office.sink.wait_for(1).await;
    office.running.abort();
    let (store, dir) = (office.store, office._dir);
    queue_at(&store, (OutboxKind::Notices, Channel::Email), OPS, &[up(7)], long_ago, &Wakeups::default())
        .await;
    let office = Notifications::on(store, dir, &[Manner::Take], PACE).await;
    let letters = office.sink.wait_for(1).await;
    assert_eq!(header(&letters[0], "Subject"), "Subject: RECOVERED cam-07 after 0 s");
}

#[tokio::test]
async fn without_a_mail_server_the_mail_waits_with_a_reason() {
    let office = Notifications::open(&[Manner::Take]).await;
    office._settings.send_modify(|s| s.mail = None);
    tokio::time::sleep(Duration::from_millis(50)).await;
    office.mail(OPS, &down(7)).await;
    office.until(|rows| rows[0].0 > 0).await;
    let mail = settings(&office.sink).mail;
    office._settings.send_modify(|s| s.mail = mail);
    office.until(|rows| rows[0].1).await;
}

// ------------------------------------------------------------------- webhooks

#[tokio::test]
async fn a_webhook_is_signed_and_contains_the_change() {
    let office = Notifications::open(&[Manner::Take]).await.with_secret().await;
    let hook = HookSink::start(&[test_sink::Manner::Answer(204)]).await;
    let id = office.queue(Channel::Webhook, &hook.url(), &[down(7)]).await;
    office.until(|rows| rows[0].1).await;
    let call = hook.calls().remove(0);
    assert!(call.head.starts_with("POST /fleet HTTP/1.1"), "{}", call.head);
    let signature = call.header("x-fleetgate-signature");
    let seconds = signature.strip_prefix("t=").and_then(|s| s.split_once(',')).unwrap().0;
    let expected = webhook::signature(b"secret", seconds.parse().unwrap(), call.body.as_bytes());
    assert_eq!(signature, expected);
    let body = call.json();
    assert_eq!(body["id"].as_str().unwrap(), call.header("x-fleetgate-message"));
    assert_eq!(body["id"].as_str().unwrap(), format!("m_{}", Id::from_i64(id)));
    assert_eq!((body["type"].as_str(), body["state"].as_str()), (Some("problem"), Some("down")));
    assert_eq!(body["previous_notified_state"], "up");
    assert_eq!((&body["object"]["host"], &body["cause"]), (&"cam-07".into(), &"no answer".into()));
    assert_eq!((&body["count"], &body["notifications"][0]["time"]), (&1.into(), &body["time"]));
}

#[tokio::test]
async fn a_failing_webhook_gets_its_message_once_it_works_again() {
    use test_sink::Manner::{Answer, Hang, Refuse};
    let office = Notifications::open(&[Manner::Take]).await.with_secret().await;
    let hook = HookSink::start(&[Refuse, Hang, Answer(500), Answer(429), Answer(200)]).await;
    office.queue(Channel::Webhook, &hook.url(), &[down(7)]).await;
    assert_eq!(office.until(|rows| rows[0].1).await, [(5, true, false)]);
    let calls = hook.calls();
    assert_eq!(calls.len(), 4, "one was refused before it was read");
    assert!(calls.iter().all(|c| c.body == calls[0].body), "the same at each attempt");
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_a_refusal_concerns_one_host() {
    use test_sink::Manner::Answer;
    let pace = DeliveryTiming { refused_pause: Duration::from_secs(60), ..PACE };
    let office = Notifications::with_pace(&[Manner::Take], pace).await.with_secret().await;
    let hook = HookSink::start(&[Answer(302), Answer(200)]).await;
    office.queue(Channel::Webhook, &hook.url(), &[down(7)]).await;
    office.until(|rows| rows[0].0 > 0).await;
    office.queue(Channel::Webhook, &hook.url(), &[up(7)]).await;
    office.queue(Channel::Webhook, &hook.url(), &[down(8)]).await;
    let rows = office.until(|rows| rows.len() == 3 && rows[2].1).await;
    assert_eq!(rows, [(1, false, false), (0, false, false), (1, true, false)]);
}

#[tokio::test]
async fn one_dead_recipient_delays_no_other() {
    let pace = DeliveryTiming { hook_patience: Duration::from_secs(30), ..PACE };
    let office = Notifications::with_pace(&[Manner::Take], pace).await.with_secret().await;
    let dead = HookSink::start(&[test_sink::Manner::Hang]).await;
    let well = HookSink::start(&[test_sink::Manner::Answer(200)]).await;
    office.queue(Channel::Webhook, &dead.url(), &[down(7)]).await;
    dead.wait_for(1).await;
    office.queue(Channel::Webhook, &well.url(), &[down(7)]).await;
    office.mail(OPS, &down(7)).await;
    well.wait_for(1).await;
    office.sink.wait_for(1).await;
    office.until(|rows| rows.iter().map(|r| r.1).eq([false, true, true])).await;
}

/// External addresses do not respond any more, but the mail server in the gateway's own network does.
#[tokio::test]
async fn a_lost_uplink_is_notified_by_the_channel_that_works() {
    let pace = DeliveryTiming { hook_patience: Duration::from_secs(30), ..PACE };
    let office = Notifications::with_pace(&[Manner::Take], pace).await.with_secret().await;
    let outside = HookSink::start(&[test_sink::Manner::Hang]).await;
    let output = "the gateway's own uplink is down: no anchor answers".to_owned();
    let lost = Message { host: GATEWAY, host_name: "gateway".into(), output: output.into(), ..down(7) };
    office.queue(Channel::Webhook, &outside.url(), std::slice::from_ref(&lost)).await;
    outside.wait_for(1).await;
    office.mail(OPS, &lost).await;
    let letter = office.sink.wait_for(1).await.remove(0);
    assert_eq!(header(&letter, "Subject"), "Subject: DOWN gateway");
    assert!(!letter.contains("1 host"), "{letter}");
    office.until(|rows| rows.iter().map(|r| r.1).eq([false, true])).await;
}

#[tokio::test]
async fn messages_that_always_fail_do_not_block_those_about_other_hosts() {
    let (first_pause, longest_pause) = (Duration::from_millis(300), Duration::from_millis(500));
    let pace = DeliveryTiming { first_pause, longest_pause, ..PACE };
    let office = Notifications::with_pace(&[Manner::Take], pace).await.with_secret().await;
    let hook =
        HookSink::start(&[500, 500, 500, 500, 500, 500, 200, 500].map(test_sink::Manner::Answer)).await;
    for host in [7, 7, 8, 9] {
        office.queue(Channel::Webhook, &hook.url(), &[down(host)]).await;
    }
    // Messages about different hosts take turns; the second one about a host waits for the first.
    let rows = office.until(|rows| rows.iter().any(|row| row.1)).await;
    assert_eq!(rows.iter().map(|row| row.1).collect::<Vec<_>>(), [true, false, false, false]);
    assert!([0, 2, 3].iter().all(|n| rows[*n].0 >= 2) && rows[1].0 == 0, "{rows:?}");
}

#[tokio::test]
async fn a_mail_server_that_hangs_for_one_recipient_delays_no_other() {
    let pace = DeliveryTiming {
        longest_pause: Duration::from_secs(60),
        first_pause: Duration::from_secs(60),
        ..PACE
    };
    let office = Notifications::with_pace(&[Manner::HangFor("hangs@example.org")], pace).await;
    office.mail("hangs@example.org", &down(7)).await;
    office.until(|rows| rows[0].0 > 0).await;
    office.mail(OPS, &down(7)).await;
    office.until(|rows| rows[1].1).await;
    assert_eq!(office.rows().await[0], (1, false, false));
}

#[tokio::test]
async fn a_delivery_failure_is_logged_when_it_changes() {
    let manners = [Manner::Busy, Manner::Busy, Manner::RefuseRecipient("450 later"), Manner::Take];
    let office = Notifications::open(&manners).await;
    office.mail(OPS, &down(7)).await;
    assert_eq!(office.until(|rows| rows[0].1).await, [(4, true, false)]);
    let kinds: Vec<String> =
        office.events().await.iter().map(|e| e.split(':').next().unwrap().to_owned()).collect();
    assert_eq!(kinds, ["message.failed", "message.failed", "message.sent"]);
}

#[tokio::test]
async fn a_mail_about_a_host_has_its_incident_and_its_verdict() {
    let office = Notifications::open(&[Manner::Take]).await;
    let host = fixture::device(&office.store, 7, "cam-07").await;
    office.store.all_hosts(&fixture::TIMING).await.unwrap();
    let (status, hard) = (HostStatus::Down, HostStatus::Down);
    let state = HostState { status, hard, output: "no answer".into(), ..fixture::up(host) };
    let mut tx = office.store.begin().await.unwrap();
    states::write_hosts(&mut tx, &[&state]).await.unwrap();
    let (id, at) = (IncidentId(Id::from_i64(1)), clock::wall());
    let matter = IncidentSummary {
        extent: IncidentScope::Host,
        cause: CauseKind::HostDown,
        words: "cam-07 is down".into(),
        site: None,
        head: Some(host),
    };
    let opened = IncidentRecord { id, at, change: IncidentChange::Opened(matter) };
    incidents::write(&mut tx, &opened).await.unwrap();
    tx.commit().await.unwrap();
    office.mail(OPS, &Message { incident: Some(id), ..fixture::down(host) }).await;
    let letter = office.sink.wait_for(1).await.remove(0);
    assert_eq!(header(&letter, "Subject"), format!("Subject: DOWN cam-07 [{id}]"));
    assert!(header(&letter, "References").starts_with(&format!("References: <{id}.")), "{letter}");
    assert!(letter.contains("Verdict") && letter.contains(&format!("{id}: cam-07 is down")), "{letter}");
}

/// Records values of cam-07/ping, of which the last is the state's, with limits.
async fn ping_of(office: &Notifications, values: &[f64]) -> Message {
    let host = fixture::device(&office.store, 7, "cam-07").await;
    office.store.all_hosts(&fixture::TIMING).await.unwrap();
    let now = clock::wall();
    let metric = |value: f64| Metric {
        warn: "80".parse().ok(),
        crit: "90".parse().ok(),
        ..Metric::amount("rta", value, "ms")
    };
    let sample = |(at, value): (usize, &f64)| Sample {
        host,
        service: "ping".into(),
        at: now - Duration::from_secs(60 * (values.len() - at) as u64),
        metrics: [metric(*value)].into(),
    };
    let samples: Vec<Sample> = values.iter().enumerate().map(sample).collect();
    let mut tx = office.store.begin().await.unwrap();
    let mut state = fixture::service("ping", Status::Critical);
    state.result.metrics = values.last().map(|value| metric(*value)).into_iter().collect();
    states::write_services(&mut tx, &[(host, &state)]).await.unwrap();
    tx.commit().await.unwrap();
    crate::history::testing::record(&office.history, &office.store, &samples).await;
    Message { service: Some("ping".into()), to: "critical", ..fixture::down(host) }
}

#[tokio::test]
async fn a_mail_about_a_value_has_its_last_hours_and_goes_without_if_there_are_none() {
    let office = Notifications::open(&[Manner::Take]).await;
    let message = ping_of(&office, &[61.0, 75.0, 93.0]).await;
    office.mail(OPS, &message).await;
    let letter = office.sink.wait_for(1).await.remove(0);
    assert!(letter.contains("rta, last 6 h: 61ms to 93ms"), "{letter}");
    fixture::run(&office.store, "delete from redo", &[]).await;
    fixture::run(&office.store, "delete from series", &[]).await;
    office.mail(OPS, &message).await;
    let letter = office.sink.wait_for(2).await.remove(1);
    assert!(letter.contains("Output") && !letter.contains("last 6 h"), "{letter}");
}

// ------------------------------------------------------------- what is withdrawn

impl Notifications {
    async fn without(&self, sql: &'static str) {
        fixture::run(&self.store, sql, &[]).await;
    }

    /// Waits until its failure is recorded.
    async fn failed(&self, id: i64) -> MessageRow {
        for _ in 0..500 {
            let message = self.message(id).await;
            if message.last_error.is_some() {
                return message;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{id} has not failed");
    }

    async fn message(&self, id: i64) -> MessageRow {
        outbox::find(&mut self.store.reader().await.unwrap(), id).await.unwrap().unwrap()
    }
}

/// Pauses so long that only a change makes the delivery worker look at waiting messages.
const PATIENT: DeliveryTiming =
    DeliveryTiming { first_pause: Duration::from_secs(600), longest_pause: Duration::from_secs(600), ..PACE };

#[tokio::test]
async fn a_removed_contact_gets_no_message() {
    let office = Notifications::with_pace(&[Manner::Busy, Manner::Take], PATIENT).await;
    let id = office.mail(OPS, &down(7)).await;
    office.until(|rows| rows == [(1, false, false)]).await;
    office.without("delete from contacts").await;
    office.wakeups.routing();
    assert_eq!(office.until(|rows| rows[0].2).await, [(1, false, true)]);
    let message = office.message(id).await;
    assert_eq!(message.last_error.unwrap(), "the contact ops is no longer reached at this address");
    // A manual resend does not send it either.
    let mut tx = office.store.begin().await.unwrap();
    outbox::resend(&mut tx, id, clock::wall()).await.unwrap();
    tx.commit().await.unwrap();
    office.wakeups.messages();
    assert_eq!(office.until(|rows| rows[0].2).await, [(0, false, true)]);
    assert!(office.sink.letters().is_empty());
    assert!(
        office.events().await.iter().any(|e| e == "message.given_up: mail to ops@example.org is not sent")
    );
}

#[tokio::test]
async fn a_removed_address_gets_no_message_and_the_others_do() {
    let office = Notifications::with_pace(&[Manner::Busy, Manner::Take], PATIENT).await;
    office.mail(OPS, &down(7)).await;
    office.until(|rows| rows == [(1, false, false)]).await;
    office.without("update contacts set emails = '[\"ada@example.org\"]'").await;
    office.mail("ada@example.org", &down(8)).await;
    office.until(|rows| rows == [(1, false, true), (1, true, false)]).await;
    assert_eq!(header(&office.sink.letters()[0], "To"), "To: ada@example.org");
    // A message that is queued for the former address at the same moment is found at its turn.
    office.mail(OPS, &down(9)).await;
    office.without("update contacts set emails = '[\"ada@example.org\"]'").await;
    office.wakeups.routing();
    office.until(|rows| rows[2].1 || rows[2].2).await;
}

#[tokio::test]
async fn removed_checkables_are_dropped_from_a_message_and_the_others_are_sent() {
    let office = Notifications::with_pace(&[Manner::Busy, Manner::Busy, Manner::Take], PATIENT).await;
    let gone = fixture::device(&office.store, 7, "cam-07").await.as_i64();
    let alone = office.mail(OPS, &down(gone)).await;
    office.until(|rows| rows == [(1, false, false)]).await;
    let both = office.queue(Channel::Email, "ada@example.org", &[down(gone), down(8)]).await;
    office.until(|rows| rows.iter().all(|row| row.0 == 1)).await;
    office.without("update hosts set removed_at = 1").await;
    office.wakeups.messages();
    office.until(|rows| rows[0].2).await;
    assert_eq!(office.message(alone).await.last_error.unwrap(), "superseded");
    assert_eq!(
        outbox::contents(&mut office.store.reader().await.unwrap(), both, 9, outbox::Order::Time)
            .await
            .unwrap()
            .total(),
        1
    );
    // A message that was created at the same moment.
    office.mail("boss@example.org", &down(gone)).await;
    office.until(|rows| rows[2].2).await;
    assert!(office.sink.letters().is_empty());
    let events = office.events().await;
    assert_eq!(
        events.iter().filter(|e| *e == "message.superseded: superseded: it was removed").count(),
        3,
        "{events:?}"
    );
}

#[tokio::test]
async fn a_waiting_digest_and_reminder_drop_removed_checkables() {
    let office =
        Notifications::with_pace(&[Manner::Busy, Manner::Busy, Manner::Busy, Manner::Take], PATIENT).await;
    for host in [7, 8] {
        fixture::device(&office.store, host, &format!("cam-0{host}")).await;
    }
    let reminder = Message { kind: MessageKind::Reminder, from: "down", ..down(7) };
    let reminded = office.mail("ada@example.org", &reminder).await;
    let alone = office.queue_a(OutboxKind::Digest, Channel::Email, "bo@example.org", &[down(7)]).await;
    let both =
        office.queue_a(OutboxKind::Digest, Channel::Email, "cy@example.org", &[down(7), down(8)]).await;
    office.until(|rows| rows.iter().all(|row| row.0 == 1)).await;
    office.without("update hosts set removed_at = 1 where id = 7").await;
    office.wakeups.messages();
    for id in [reminded, alone] {
        office.until(|rows| rows.iter().filter(|row| row.2).count() == 2).await;
        assert_eq!(office.message(id).await.last_error.unwrap(), "superseded");
    }
    let mut conn = office.store.reader().await.unwrap();
    let left = outbox::contents(&mut conn, both, 9, outbox::Order::Time).await.unwrap();
    assert_eq!((left.total(), left.notices[0].host.as_i64()), (1, 8));
    assert!(office.sink.letters().is_empty());
}

// ----------------------------------------------------------------- whose turn it is

#[tokio::test]
async fn two_hundred_refused_messages_do_not_block_later_ones() {
    let refused = vec![test_sink::Manner::Answer(422); 250];
    let hook = HookSink::start(&[refused, vec![test_sink::Manner::Answer(200)]].concat()).await;
    // Refused messages are retried only after the test.
    let pace = DeliveryTiming { refused_pause: Duration::from_secs(600), ..PACE };
    let office = Notifications::with_pace(&[Manner::Take], pace).await.with_secret().await;
    for host in 0..250 {
        office.queue(Channel::Webhook, &hook.url(), &[down(host)]).await;
    }
    hook.wait_for(250).await;
    office.until_all(250, |rows| rows.iter().all(|row| row.0 == 1)).await;
    for host in 1_000..1_010 {
        office.queue(Channel::Webhook, &hook.url(), &[down(host)]).await;
    }
    hook.wait_for(260).await;
    let rows = office.until_all(260, |rows| rows[250..].iter().all(|row| row.1)).await;
    assert!(rows[..250].iter().all(|row| *row == (1, false, false)));
}

#[tokio::test]
async fn retry_after_pauses_one_server_and_no_other() {
    let busy = HookSink::start(&[test_sink::Manner::Later(429, "600"), test_sink::Manner::Answer(200)]).await;
    let office = Notifications::open(&[Manner::Take]).await.with_secret().await;
    let id = office.queue(Channel::Webhook, &busy.url(), &[down(7)]).await;
    busy.wait_for(1).await;
    office.until(|rows| rows == [(1, false, false)]).await;
    let message = office.failed(id).await;
    let pause = message.next_attempt.since(clock::wall());
    assert!((590..=600).contains(&pause.as_secs()), "{pause:?}");
    assert!(message.last_error.unwrap().starts_with("it answered 429"));
    // Its next message waits with it; a mail to the same contact does not.
    office.queue(Channel::Webhook, &busy.url(), &[down(8)]).await;
    office.mail(OPS, &down(8)).await;
    office.sink.wait_for(1).await;
    assert_eq!(busy.calls().len(), 1);
}

#[tokio::test]
async fn retry_after_is_bounded() {
    let now = Manner::Take;
    let hook =
        HookSink::start(&[test_sink::Manner::Later(503, "0"), test_sink::Manner::Later(503, "99999999")])
            .await;
    let office = Notifications::open(&[now]).await.with_secret().await;
    let id = office.queue(Channel::Webhook, &hook.url(), &[down(7)]).await;
    hook.wait_for(2).await;
    office.until(|rows| rows[0].0 == 2).await;
    for _ in 0..100 {
        let pause = office.message(id).await.next_attempt.since(clock::wall());
        if pause > Duration::from_secs(3_000) {
            assert!(pause <= outbox::LONGEST_PAUSE, "{pause:?}");
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the second answer is not obeyed");
}
