use fleetgate_engine::id::HostId;
use fleetgate_engine::wire::{Message, MessageKind};
use tokio::task::JoinHandle;

use super::super::sink::{Manner, Sink};
use super::*;
use crate::config::MailSecurity;
use crate::store::fixture;

/// Everything as usual, only faster.
const PACE: Pace = Pace {
    patience: Duration::from_millis(300),
    first_pause: Duration::from_millis(20),
    longest_pause: Duration::from_millis(100),
    refused_pause: Duration::from_millis(20),
    give_up: Duration::from_secs(3_600),
    farewell: Duration::from_millis(10),
};

struct Office {
    store: Store,
    _dir: tempfile::TempDir,
    sink: Sink,
    postman: Postman,
    stop: CancellationToken,
    courier: JoinHandle<()>,
}

impl Office {
    async fn open(manners: &[Manner], recipients: &[&str]) -> Office {
        Office::with_pace(manners, recipients, PACE).await
    }

    async fn with_pace(manners: &[Manner], recipients: &[&str], pace: Pace) -> Office {
        let (store, dir) = fixture::store().await;
        let sink = Sink::start(manners).await;
        let mail = settings(&sink, recipients);
        let postman = super::super::Postman(std::sync::Arc::new(super::super::Rounds {
            recipients: mail.to.clone(),
            wake: tokio::sync::Notify::new(),
        }));
        let stop = CancellationToken::new();
        let courier = courier(&mail, &store, &postman, pace);
        let courier = tokio::spawn(courier.run(stop.clone()));
        Office { store, _dir: dir, sink, postman, stop, courier }
    }

    async fn queue(&self, message: &Message) {
        let mut tx = self.store.begin().await.unwrap();
        self.postman.queue(&mut tx, message, None, clock::wall()).await.unwrap();
        tx.commit().await.unwrap();
        self.postman.wake();
    }

    /// What became of the rows: attempts, whether sent, whether given up.
    async fn rows(&self) -> Vec<(u32, bool, bool)> {
        sqlx::query_as(
            "select attempts, sent_at is not null, given_up_at is not null from outbox order by id",
        )
        .fetch_all(&self.store.read)
        .await
        .unwrap()
    }

    async fn events(&self) -> Vec<String> {
        let filter = events::EventFilter::default();
        let rows = self.store.events(events::Span::Since(0), &filter, 99).await.unwrap();
        rows.into_iter().map(|e| format!("{}: {}", e.kind, e.cause)).collect()
    }

    async fn until(&self, done: impl Fn(&[(u32, bool, bool)]) -> bool) -> Vec<(u32, bool, bool)> {
        for _ in 0..500 {
            let rows = self.rows().await;
            if done(&rows) {
                return rows;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the outbox stays at {:?}", self.rows().await);
    }

    async fn close(self) -> (Store, tempfile::TempDir) {
        self.stop.cancel();
        self.courier.await.unwrap();
        (self.store, self._dir)
    }
}

fn settings(sink: &Sink, recipients: &[&str]) -> MailConfig {
    MailConfig {
        host: "127.0.0.1".into(),
        port: sink.address.port(),
        security: MailSecurity::None,
        user: None,
        password: None,
        from: "Fleet <fleet@gateway.example>".parse().unwrap(),
        to: recipients.iter().map(|r| r.parse().unwrap()).collect(),
        ca: None,
    }
}

fn courier(mail: &MailConfig, store: &Store, postman: &Postman, pace: Pace) -> Courier {
    let url = Some("https://watch.example.com".to_owned());
    Courier::new(mail, url, store.clone(), Live::default(), postman.clone(), pace).unwrap()
}

fn down(name: &str) -> Message {
    Message {
        at: Wall::from_millis(1_773_147_810_000),
        host: HostId::from_i64(7),
        host_name: name.into(),
        service: None,
        kind: MessageKind::Problem,
        problem: true,
        from: "up",
        to: "down",
        output: "no answer".into(),
        since: Wall::from_millis(1_773_147_802_000),
    }
}

fn header<'a>(letter: &'a str, name: &str) -> &'a str {
    let line = letter.lines().take_while(|l| !l.is_empty()).find(|l| l.starts_with(name));
    line.unwrap_or_else(|| panic!("no {name} in {letter}"))
}

#[tokio::test]
async fn every_receiver_gets_a_letter_of_his_own() {
    let office = Office::open(&[Manner::Take], &["ops@example.org", "Ada <ada@example.org>"]).await;
    office.queue(&down("cam-07")).await;
    office.until(|rows| rows.iter().all(|r| r.1)).await;
    let letters = office.sink.letters();
    assert_eq!(header(&letters[0], "Subject"), "Subject: DOWN cam-07");
    assert_eq!(header(&letters[0], "To"), "To: ops@example.org");
    assert_eq!(header(&letters[1], "To"), "To: Ada <ada@example.org>");
    assert_eq!(header(&letters[0], "Auto-Submitted"), "Auto-Submitted: auto-generated");
    assert!(letters[0].contains("https://watch.example.com/hosts/cam-07"), "{}", letters[0]);
    let expected = ["message.sent: mail to ops@example.org", "message.sent: mail to Ada <ada@example.org>"];
    assert_eq!(office.events().await, expected);
}

#[tokio::test]
async fn hostile_names_make_no_headers() {
    let office = Office::open(&[Manner::Take], &["ops@example.org"]).await;
    let message = Message { host_name: "x\r\nBcc: all@example.org\r\n\r\nhello".into(), ..down("x") };
    office.queue(&message).await;
    let letters = office.sink.wait_for(1).await;
    let head: Vec<&str> = letters[0].lines().take_while(|l| !l.is_empty()).collect();
    assert!(!head.iter().any(|l| l.starts_with("Bcc")), "{head:?}");
}

#[tokio::test]
async fn a_server_that_is_busy_gets_it_later() {
    let office = Office::open(&[Manner::Busy, Manner::Busy, Manner::Take], &["ops@example.org"]).await;
    office.queue(&down("cam-07")).await;
    let rows = office.until(|rows| rows[0].1).await;
    assert_eq!(rows, [(3, true, false)]);
    let events = office.events().await;
    assert_eq!(events[0], "message.failed: mail to ops@example.org failed, it will be tried again");
    assert_eq!(events[1..], ["message.sent: mail to ops@example.org"]);
}

#[tokio::test]
async fn a_server_that_hangs_is_left() {
    let office = Office::open(&[Manner::Hang, Manner::Take], &["ops@example.org"]).await;
    office.queue(&down("cam-07")).await;
    assert_eq!(office.until(|rows| rows[0].1).await, [(2, true, false)]);
}

#[tokio::test]
async fn a_lost_answer_repeats_the_letter_under_the_same_id() {
    let office = Office::open(&[Manner::DropAfterData, Manner::Take], &["ops@example.org"]).await;
    office.queue(&down("cam-07")).await;
    office.until(|rows| rows[0].1).await;
    let letters = office.sink.wait_for(2).await;
    assert_eq!(header(&letters[0], "Message-ID"), header(&letters[1], "Message-ID"));
    assert_eq!(letters[0], letters[1]);
    office.queue(&down("cam-07")).await;
    let letters = office.sink.wait_for(3).await;
    assert_ne!(header(&letters[0], "Message-ID"), header(&letters[2], "Message-ID"));
}

#[tokio::test]
async fn a_refused_receiver_holds_up_nobody_else() {
    let manners = [Manner::RefuseRecipient("550 no such user"), Manner::Take];
    let office = Office::open(&manners, &["gone@example.org", "ops@example.org"]).await;
    office.queue(&down("cam-07")).await;
    let rows = office.until(|rows| rows.iter().all(|r| r.1)).await;
    assert_eq!(rows, [(2, true, false), (1, true, false)]);
    assert!(header(&office.sink.letters()[0], "To").contains("ops@example.org"));
}

#[tokio::test]
async fn what_nobody_takes_for_days_is_given_up_and_said() {
    let pace = Pace { give_up: Duration::ZERO, ..PACE };
    let manners = [Manner::RefuseRecipient("550 no such user")];
    let office = Office::with_pace(&manners, &["gone@example.org"], pace).await;
    office.queue(&down("cam-07")).await;
    assert_eq!(office.until(|rows| rows[0].2).await, [(1, false, true)]);
    assert_eq!(office.events().await, ["message.given_up: mail to gone@example.org failed, given up"]);
}

#[tokio::test]
async fn a_new_courier_continues_where_the_last_one_ended() {
    let office = Office::open(&[Manner::Busy], &["ops@example.org"]).await;
    office.queue(&down("cam-07")).await;
    office.until(|rows| rows[0].0 > 0).await;
    let (store, _dir) = office.close().await;

    let sink = Sink::start(&[Manner::Take]).await;
    let mail = settings(&sink, &["ops@example.org"]);
    let stop = CancellationToken::new();
    let running = tokio::spawn(courier(&mail, &store, &Postman::nobody(), PACE).run(stop.clone()));
    sink.wait_for(1).await;
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn after_an_outage_only_the_final_state_is_told_and_the_log_says_so() {
    let (store, _dir) = fixture::store().await;
    let long_ago = clock::wall() - 2 * backlog::HELD_UP;
    let mut tx = store.begin().await.unwrap();
    for to in ["warning", "critical"] {
        let message = Message { service: Some("disk".into()), to, ..down("cam-07") };
        outbox::insert(&mut tx, &message, "ops@example.org", None, long_ago).await.unwrap();
    }
    tx.commit().await.unwrap();

    let sink = Sink::start(&[Manner::Take]).await;
    let mail = settings(&sink, &["ops@example.org"]);
    let courier = courier(&mail, &store, &Postman::nobody(), PACE);
    courier.round(&CancellationToken::new()).await.unwrap();
    let letters = sink.letters();
    assert_eq!((letters.len(), header(&letters[0], "Subject")), (1, "Subject: CRITICAL cam-07 disk"));
    let rows = store.events(events::Span::Since(0), &events::EventFilter::default(), 9).await.unwrap();
    let kinds: Vec<&str> = rows.iter().map(|e| e.kind.as_str()).collect();
    assert_eq!(kinds, ["message.superseded", "message.sent"]);
    assert_eq!(rows[0].cause, backlog::OVERTAKEN);
}

#[tokio::test]
async fn what_waits_is_given_up_one_by_one_when_mail_is_switched_off() {
    let (store, _dir) = fixture::store().await;
    let mut tx = store.begin().await.unwrap();
    outbox::insert(&mut tx, &down("cam-07"), "ops@example.org", None, clock::wall()).await.unwrap();
    tx.commit().await.unwrap();
    super::super::try_give_up_all(&store, clock::wall()).await.unwrap();
    let rows = store.events(events::Span::Since(0), &events::EventFilter::default(), 9).await.unwrap();
    assert_eq!((rows[0].kind.as_str(), rows[0].object_id), ("message.given_up", Some(HostId::from_i64(7))));
    assert_eq!(store.next_message_due().await.unwrap(), None);
}

#[tokio::test]
async fn without_receivers_nothing_waits_and_the_log_says_why() {
    let (store, _dir) = fixture::store().await;
    let mut tx = store.begin().await.unwrap();
    let seq = Postman::nobody().queue(&mut tx, &down("cam-07"), None, clock::wall()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(store.next_message_due().await.unwrap(), None);
    let rows = store.events(events::Span::Since(0), &events::EventFilter::default(), 9).await.unwrap();
    assert_eq!((Some(rows[0].seq), rows[0].kind.as_str()), (seq, "message.not_sent"));
}
