//! Notifications that wait for their time (an escalation, a digest, a reminder) are not sent for a host
//! that was removed meanwhile, nor to a removed contact. Each test has a counterpart that stays and is
//! notified. The removed one would have been notified by then too.

use super::*;

const ADA: ContactId = Id::from_i64(2);

fn ada() -> Contact {
    Contact {
        id: ADA,
        name: "ada".into(),
        webhook_url: Some("http://127.0.0.1:9/ada".into()),
        group_wait: Some(Duration::ZERO),
        ..ops()
    }
}

/// Escalates problems that persist after a moment.
fn late(contact: ContactId) -> Rule {
    let name = format!("late {}", contact.as_i64());
    Rule { id: contact, name, contact, delay: Duration::from_millis(600), ..everything() }
}

fn now(message: Message) -> Message {
    Message { at: clock::wall(), ..message }
}

fn reminder(host: i64) -> Message {
    Message { kind: MessageKind::Reminder, from: "down", ..down(host) }
}

impl Room {
    /// Opens a room with a second contact and these rules. All hosts have a state and are down.
    async fn with(rules: &[Rule]) -> Room {
        let room = Room::open().await;
        room.store.all_hosts(&fixture::TIMING).await.unwrap();
        room.write(async |tx| {
            contacts::put(tx, &ada()).await.unwrap();
            for rule in rules {
                contacts::put_rule(tx, rule).await.unwrap();
            }
        })
        .await;
        fixture::run(&room.store, "update host_states set hard = 'down', notified = 'down'", &[]).await;
        // The restarted dispatcher reads all of that.
        room.restart().await
    }

    async fn remove(&self, host: &str) {
        fixture::run(&self.store, "update hosts set removed_at = 1 where id = $1", &[host]).await;
        self.wakeups.routing();
    }

    async fn remove_contact(&self, contact: ContactId) {
        self.change(async |tx| {
            contacts::remove_rule(tx, contact).await.unwrap();
            contacts::remove(tx, contact).await.unwrap();
        })
        .await;
    }

    /// Returns the contact, the kind and the hosts of each message, in order.
    async fn words(&self) -> Vec<(String, OutboxKind, Vec<i64>)> {
        let mut words = Vec::new();
        for message in self.messages().await.iter().rev() {
            words.push((message.contact_name.clone(), message.kind, told(self, message).await));
        }
        words
    }

    /// Moves all earlier notifications into the distant past, and gives each contact a digest at midnight.
    async fn a_day_passes(&self) {
        self.write(async |tx| {
            for contact in [ops(), ada()] {
                let digest_at = Some(Time::midnight());
                contacts::put(tx, &Contact { digest_at, ..contact }).await.unwrap();
            }
            for (contact, object, mut told) in notices::told(tx).await.unwrap() {
                told.at = Wall::from_millis(0);
                notices::tell(tx, contact, &object, Some(&told)).await.unwrap();
            }
        })
        .await;
    }
}

fn word(contact: &str, kind: OutboxKind, host: i64) -> (String, OutboxKind, Vec<i64>) {
    (contact.to_owned(), kind, vec![host])
}

#[tokio::test]
async fn an_escalation_of_a_host_that_is_removed_is_not_sent() {
    let room = Room::with(&[late(OPS)]).await;
    room.say(&[now(down(7)), now(down(8))]).await;
    room.until(async |room| room.waiting().await == 2).await;
    room.remove("7").await;
    room.until_messages(1).await;
    assert_eq!(room.words().await, [word("ops", OutboxKind::Notices, 8)]);
    assert_eq!((room.waiting().await, room.held().await), (0, vec!["ops host_removed".to_owned()]));
}

#[tokio::test]
async fn an_escalation_of_a_host_that_is_removed_while_the_gateway_is_off_is_not_sent() {
    let room = Room::with(&[late(OPS)]).await;
    room.say(&[now(down(7)), now(down(8))]).await;
    room.until(async |room| room.waiting().await == 2).await;
    room.stop.cancel();
    fixture::run(&room.store, "update hosts set removed_at = 1 where id = 7", &[]).await;
    let room = room.restart().await;
    room.until_messages(1).await;
    assert_eq!(room.words().await, [word("ops", OutboxKind::Notices, 8)]);
    assert_eq!(room.waiting().await, 0);
}

#[tokio::test]
async fn an_escalation_to_a_contact_that_is_removed_is_not_sent() {
    let room = Room::with(&[late(OPS), late(ADA)]).await;
    room.say(&[now(down(7))]).await;
    room.until(async |room| room.waiting().await == 2).await;
    room.remove_contact(OPS).await;
    room.until_messages(1).await;
    assert_eq!(room.words().await, [word("ada", OutboxKind::Notices, 7)]);
    let room = room.restart().await;
    room.say(&[now(down(8))]).await;
    room.until_messages(2).await;
    assert_eq!(room.words().await[1..], [word("ada", OutboxKind::Notices, 8)]);
    assert_eq!(room.waiting().await, 0);
}

#[tokio::test]
async fn an_escalation_whose_rule_is_removed_is_not_sent() {
    let room = Room::with(&[late(OPS), late(ADA)]).await;
    room.say(&[now(down(7))]).await;
    room.until(async |room| room.waiting().await == 2).await;
    room.change(async |tx| contacts::remove_rule(tx, OPS).await.unwrap()).await;
    room.until_messages(1).await;
    assert_eq!(room.words().await, [word("ada", OutboxKind::Notices, 7)]);
    assert_eq!(room.waiting().await, 0);
}

#[tokio::test]
async fn a_reminder_of_a_host_that_is_removed_is_not_sent() {
    let room = Room::with(&[]).await;
    room.say(&[down(7), down(8)]).await;
    room.until(async |room| room.told().await == 2).await;
    let before = room.messages().await.len();
    // The monitor emitted it just as the operator removed the host.
    fixture::run(&room.store, "update hosts set removed_at = 1 where id = 7", &[]).await;
    room.say(&[reminder(7), reminder(8)]).await;
    room.until_messages(before + 1).await;
    assert_eq!(room.words().await[before..], [word("ops", OutboxKind::Notices, 8)]);
    room.until(async |room| room.told().await == 1).await;
}

#[tokio::test]
async fn a_reminder_to_a_contact_that_is_removed_is_not_sent() {
    let to_ada = Rule { id: ADA, contact: ADA, name: "ada".into(), ..everything() };
    let room = Room::with(&[to_ada]).await;
    room.say(&[down(7)]).await;
    room.until_messages(2).await;
    room.remove_contact(OPS).await;
    room.say(&[reminder(7)]).await;
    room.until_messages(3).await;
    assert_eq!(room.words().await[2..], [word("ada", OutboxKind::Notices, 7)]);
}

#[tokio::test]
async fn a_digest_does_not_list_a_host_that_is_removed() {
    let room = Room::with(&[]).await;
    room.say(&[down(7), down(8)]).await;
    room.until(async |room| room.told().await == 2).await;
    let before = room.messages().await.len();
    room.a_day_passes().await;
    fixture::run(&room.store, "update hosts set removed_at = 1 where id = 7", &[]).await;
    let room = room.restart().await;
    room.until_messages(before + 1).await;
    assert_eq!(room.words().await[before..], [word("ops", OutboxKind::Digest, 8)]);
}

#[tokio::test]
async fn a_contact_that_is_removed_gets_no_digest() {
    let to_ada = Rule { id: ADA, contact: ADA, name: "ada".into(), ..everything() };
    let room = Room::with(&[to_ada]).await;
    room.say(&[down(7)]).await;
    room.until(async |room| room.told().await == 2).await;
    let before = room.messages().await.len();
    room.a_day_passes().await;
    // The running dispatcher remembers the times of its notifications; a new one reads them from the store.
    room.write(async |tx| {
        contacts::remove_rule(tx, OPS).await.unwrap();
        contacts::remove(tx, OPS).await.unwrap();
    })
    .await;
    let room = room.restart().await;
    room.until_messages(before + 1).await;
    assert_eq!(room.words().await[before..], [word("ada", OutboxKind::Digest, 7)]);
    room.say(&[down(8)]).await;
    room.until_messages(before + 2).await;
    assert_eq!(room.words().await[before + 1..], [word("ada", OutboxKind::Notices, 8)]);
}
