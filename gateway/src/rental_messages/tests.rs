use fleetgate_engine::id::Id;
use fleetgate_engine::rental::notices::{Part, State};
use tokio::task::JoinHandle;

use super::*;
use crate::config::{MailConfig, MailSecurity};
use crate::notification::mail::sink::{Manner, Sink};
use crate::outbound::Outbound;
use crate::store::fixture;
use crate::store::rentals::messages::Said;

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

fn settings(sink: &Sink) -> Settings {
    let mail = MailConfig {
        host: "127.0.0.1".into(),
        port: sink.address.port(),
        security: MailSecurity::None,
        user: None,
        password: None,
        from: "Fleet <fleet@gateway.example>".parse().unwrap(),
        to: vec!["ops@example.org".parse().unwrap()],
        hello: Some("[127.0.0.1]".into()),
        ca: None,
    };
    let public_url = Some("https://watch.example.com".to_owned());
    let (group_wait, timing) = (Duration::ZERO, fixture::TIMING);
    let outbound = Outbound::default();
    Settings { mail: Some(mail), public_url, group_wait, digest: None, heartbeat: None, outbound, timing }
}

/// A running delivery, a mail server, and an active rental of `cam-07` with two contacts.
struct Mailing {
    store: Store,
    _dir: tempfile::TempDir,
    sink: Sink,
    _settings: watch::Sender<Settings>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Mailing {
    async fn open(manners: &[Manner], pace: DeliveryTiming) -> Mailing {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (store, dir) = fixture::store().await;
        fixture::device(&store, 7, "cam-07").await;
        for sql in [
            "insert into customers (id, created_at) values (1, 0)",
            "insert into bookings (id, customer, external_ref, author, created_at) values (2, 1, 'order-7', '', 0)",
            r#"insert into rentals (id, booking, device, from_at, until_at, prepared_from, preparation_ms,
                                    turnaround_ms, created_at, name, contacts)
               values (10, 2, 7, 1000, 4102444800000, 1000, 0, 0, 0, 'entrance',
                       '[{"name":"Ada","email":"ada@example.org"},{"email":"bob@example.org"}]')"#,
        ] {
            fixture::run(&store, sql, &[]).await;
        }
        let sink = Sink::start(manners).await;
        let (settings, mut listener) = watch::channel(settings(&sink));
        let smtp = smtp(&listener.borrow_and_update(), pace).unwrap();
        let delivery = Delivery {
            smtp,
            store: store.clone(),
            settings: listener,
            pace,
            zone: TimeZone::UTC,
            look_every: Duration::from_millis(10),
        };
        let stop = CancellationToken::new();
        let running = tokio::spawn(delivery.run(stop.clone()));
        Mailing { store, _dir: dir, sink, _settings: settings, stop, running }
    }

    /// Decides on a message about a service.
    async fn decide(&self, service: &str, is_over: bool) {
        let part = Part { service: service.to_owned(), state: State::Critical, since: None, is_over };
        let said = [Said { part, output: (!is_over).then(|| "refused by 10.112.0.7".to_owned()) }];
        let mut tx = self.store.begin().await.unwrap();
        let rental = rentals::find(&mut tx, Id::from_i64(10)).await.unwrap().unwrap();
        messages::insert(&mut tx, &rental, (&said, false), clock::wall()).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Waits until no message waits, and returns what became of each.
    async fn settled(&self) -> Vec<String> {
        for _ in 0..500 {
            let sql = "select email || iif(sent_at is not null, ' sent', iif(given_up_at is not null, ' given up', ''))
                       from rental_messages order by id";
            let rows = fixture::texts(&self.store, sql).await;
            if rows.iter().all(|row| row.contains(' ')) {
                return rows;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("messages wait: {:?}", self.sink.letters());
    }

    async fn close(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }
}

#[tokio::test]
async fn every_contact_gets_each_message_in_order_and_as_plain_text() {
    let mailing = Mailing::open(&[Manner::Take], PACE).await;
    mailing.decide("ssh", false).await;
    mailing.decide("ssh", true).await;
    let rows = ["ada@example.org sent", "bob@example.org sent"];
    assert_eq!(mailing.settled().await, rows.repeat(2));
    let letters = mailing.sink.letters();
    for address in ["ada@example.org", "bob@example.org"] {
        let own: Vec<&String> = letters.iter().filter(|letter| letter.contains(address)).collect();
        let subjects = ["Subject: entrance: ssh critical", "Subject: entrance: ssh recovered"];
        assert_eq!(own.len(), 2);
        assert!(own.iter().zip(subjects).all(|(letter, subject)| letter.contains(subject)), "{own:?}");
    }
    for letter in &letters {
        assert!(letter.contains("Content-Type: text/plain") && !letter.contains("text/html"), "{letter}");
        assert!(letter.contains(".rental."), "an id of its own: {letter}");
        for foreign in ["cam-07", "10.112.0.7", "watch.example.com", "ops@"] {
            assert!(!letter.contains(foreign), "{foreign}: {letter}");
        }
    }
    mailing.close().await;
}

#[tokio::test]
async fn a_failing_server_and_a_refused_address_delay_no_other_and_are_tried_again() {
    for manner in [Manner::Busy, Manner::RefuseRecipient("550 no such user"), Manner::Hang] {
        let mailing = Mailing::open(&[manner, Manner::Take], PACE).await;
        mailing.decide("ssh", false).await;
        assert_eq!(mailing.settled().await, ["ada@example.org sent", "bob@example.org sent"], "{manner:?}");
        let attempts = "select cast(sum(attempts) as text) from rental_messages";
        assert_eq!(fixture::texts(&mailing.store, attempts).await, ["3"], "{manner:?}");
        mailing.close().await;
    }
}

#[tokio::test]
async fn a_message_that_is_refused_for_too_long_is_given_up_and_no_event_names_an_address() {
    let refuse = Manner::RefuseRecipient("550 no such user ada@example.org");
    let mailing = Mailing::open(&[refuse], DeliveryTiming { give_up: Duration::ZERO, ..PACE }).await;
    mailing.decide("ssh", false).await;
    assert_eq!(mailing.settled().await, ["ada@example.org given up", "bob@example.org given up"]);
    let events = "select coalesce(data, '') || cause from events";
    let events = fixture::texts(&mailing.store, events).await;
    assert!(!events.iter().any(|event| event.contains("example.org")), "{events:?}");
    mailing.close().await;
}

#[tokio::test]
async fn after_a_restore_nothing_is_sent_until_it_is_confirmed() {
    let mailing = Mailing::open(&[Manner::Take], PACE).await;
    fixture::restored(&mailing.store, clock::wall()).await;
    mailing.decide("ssh", false).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(mailing.sink.letters().is_empty());
    let confirm = "update instance set confirmed_at = restored_at, confirmed_by = 'user:ada'";
    fixture::run(&mailing.store, confirm, &[]).await;
    assert_eq!(mailing.settled().await, ["ada@example.org sent", "bob@example.org sent"]);
    mailing.close().await;
}

#[tokio::test]
async fn nothing_is_sent_after_the_end_and_to_an_address_that_was_taken_away() {
    let mailing = Mailing::open(&[Manner::Take], PACE).await;
    for sql in [
        r#"update rentals set contacts = '[{"email":"bob@example.org"}]' where id = 10"#,
        "insert into rental_messages (rental, email, parts, is_last, created_at, next_attempt)
         values (10, 'ada@example.org', '[]', 0, 0, 0)",
    ] {
        fixture::run(&mailing.store, sql, &[]).await;
    }
    mailing.decide("ssh", false).await;
    let rows = mailing.settled().await;
    assert_eq!(rows, ["ada@example.org given up", "bob@example.org sent"]);
    fixture::run(&mailing.store, "update rentals set until_at = 2000 where id = 10", &[]).await;
    mailing.decide("disk", false).await;
    assert_eq!(mailing.settled().await[2..], ["bob@example.org given up"]);
    assert!(!mailing.sink.letters().iter().any(|letter| letter.contains("disk")));
    mailing.close().await;
}

#[tokio::test]
async fn what_waits_about_a_device_is_dropped_after_a_swap() {
    let mailing = Mailing::open(&[Manner::Take], PACE).await;
    fixture::device(&mailing.store, 8, "cam-08").await;
    for sql in [
        "update rentals set device = 8 where id = 10",
        r#"insert into rental_changes (rental, at, author, what, changed, device, from_at, until_at)
           values (10, 5000, '', 'changed', '["device"]', 8, 1000, 4102444800000)"#,
        r#"insert into rental_messages (rental, email, parts, is_last, created_at, next_attempt)
           values (10, 'ada@example.org', '[{"service":"disk","state":"critical","since":null,"is_over":false,
                                             "output":"cam-07 is full"}]', 0, 4999, 0)"#,
    ] {
        fixture::run(&mailing.store, sql, &[]).await;
    }
    mailing.decide("ssh", false).await;
    let rows = ["ada@example.org given up", "ada@example.org sent", "bob@example.org sent"];
    assert_eq!(mailing.settled().await, rows);
    assert!(!mailing.sink.letters().iter().any(|letter| letter.contains("cam-07")));
    mailing.close().await;
}
