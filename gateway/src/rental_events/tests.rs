//! The delivery with a real database, real calls and a receiver that misbehaves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleetgate_engine::id::Id;
use fleetgate_engine::time::Wall;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Parts, SubscriptionTiming, Wakeups, start};
use crate::engine::live_state::LiveState;
use crate::ids::IdKind;
use crate::notification::test_sink::{Call, HookSink, Manner};
use crate::outbound::Outbound;
use crate::outbound::secret_url::SecretUrl;
use crate::store::rentals::events::{self, EventRow};
use crate::store::subscriptions::deliveries::{self, At, Failed};
use crate::store::subscriptions::{self, Subscription, secret_place};
use crate::store::{Store, Tx, fixture, instance};

/// The usual behaviour with shorter times.
const PACE: SubscriptionTiming = SubscriptionTiming {
    patience: Duration::from_millis(300),
    first_pause: Duration::from_millis(20),
    longest_pause: Duration::from_millis(100),
    reported_after: 50,
    farewell: Duration::from_millis(10),
};
const SUBSCRIPTION: i64 = 90;
const RENTAL: &str =
    "insert into rentals (id, booking, device, from_at, until_at, prepared_from, preparation_ms,
                                           turnaround_ms, created_at)
     values ($1, 2, 7, 600, 1200, 500, 100, 50, 0)";
/// Six of each rental.
const EVENTS: &str = "insert into rental_events (id, at, rental, booking, customer, kind, version, data)
     select 1000 + k.key * 100 + r.id, 0, r.id, 2, 1, k.value, 1, '{}'
     from rentals r, json_each('[\"rental.booked\", \"rental.preparing\", \"rental.active\", \"rental.ended\",
                                 \"rental.cleaning\", \"rental.closed\"]') k
     order by k.key, r.id";

fn at(millis: i64) -> Wall {
    Wall::from_millis(millis)
}

fn id(n: i64) -> Id {
    Id::from_i64(n)
}

fn body(row: &EventRow) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&serde_json::json!({ "id": IdKind::RentalEvent.text(row.id), "kind": row.kind }))
}

/// A store with rentals, and a delivery that may be stopped and started again.
struct Scene {
    store: Store,
    _dir: TempDir,
    wakeups: Wakeups,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Scene {
    /// One with this many rentals, each with six events, and a subscription that has seen none of them.
    async fn of(rentals: u64, url: &str, kinds: &[&str]) -> Scene {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (store, dir) = fixture::store().await;
        fixture::device(&store, 7, "cam").await;
        fixture::run(&store, "insert into customers (id, created_at) values (1, 0)", &[]).await;
        let booking = "insert into bookings (id, customer, author, created_at) values (2, 1, 'test', 0)";
        fixture::run(&store, booking, &[]).await;
        for n in 0..rentals {
            fixture::run(&store, RENTAL, &[&(10 + n).to_string()]).await;
        }
        fixture::run(&store, EVENTS, &[]).await;
        let place = secret_place(id(SUBSCRIPTION));
        let subscription = Subscription {
            id: id(SUBSCRIPTION),
            url: SecretUrl::from(url),
            kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
            secret: store.seal(&place, b"secret"),
            cursor: 0,
            paused_at: None,
            failing_since: None,
            next_attempt: None,
            last_error: None,
            delivered_at: None,
            created_by: "test".into(),
            version: 1,
            created_at: at(0),
            waiting: 0,
        };
        let mut tx = store.begin().await.unwrap();
        subscriptions::insert(&mut tx, &subscription).await.unwrap();
        tx.commit().await.unwrap();
        let (wakeups, stop) = (Wakeups::default(), CancellationToken::new());
        Scene { store, _dir: dir, wakeups, tasks: JoinSet::new(), stop }
    }

    fn start(&mut self, pace: SubscriptionTiming) {
        self.stop = CancellationToken::new();
        let parts = Parts {
            store: self.store.clone(),
            live: LiveState::default(),
            wakeups: self.wakeups.clone(),
            outbound: Outbound::default(),
            body,
        };
        start(&mut self.tasks, parts, pace, self.stop.clone()).unwrap();
    }

    async fn stop(&mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }

    async fn subscription(&self) -> Subscription {
        let mut conn = self.store.reader().await.unwrap();
        subscriptions::find(&mut conn, id(SUBSCRIPTION)).await.unwrap().unwrap()
    }

    async fn until(&self, what: &str, yes: impl Fn(&Subscription) -> bool) -> Subscription {
        for _ in 0..1_000 {
            let now = self.subscription().await;
            if yes(&now) {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not in time: {what}: {:?}", self.subscription().await);
    }

    /// Waits until every event was accepted.
    async fn all_accepted(&self) -> Subscription {
        let (_, last) = events::bounds(&mut self.store.reader().await.unwrap()).await.unwrap();
        self.until("all is accepted", |s| s.cursor == last && s.waiting == 0).await
    }

    /// The ids of the events of each rental, in their order.
    async fn log(&self) -> BTreeMap<Id, Vec<String>> {
        let mut conn = self.store.reader().await.unwrap();
        let all = events::list(&mut conn, events::Filter::default(), (0, i64::MAX), 10_000).await.unwrap();
        let mut log: BTreeMap<Id, Vec<String>> = BTreeMap::new();
        all.iter().for_each(|event| log.entry(event.rental).or_default().push(name(event)));
        log
    }
}

fn name(event: &EventRow) -> String {
    IdKind::RentalEvent.text(event.id)
}

/// The ids in the order in which they first came.
fn heard(calls: &[Call]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let ids = calls.iter().map(|call| call.header("x-fleetgate-event").to_owned());
    ids.filter(|id| seen.insert(id.clone())).collect()
}

/// Checks that all events came, and those of each rental in their order.
async fn in_order(scene: &Scene, calls: &[Call]) {
    let heard = heard(calls);
    for (rental, log) in scene.log().await {
        let own: Vec<&String> = heard.iter().filter(|id| log.contains(id)).collect();
        assert_eq!(own, log.iter().collect::<Vec<_>>(), "{rental}");
    }
}

#[tokio::test]
async fn a_receiver_that_refuses_and_hangs_gets_every_event_in_the_order_of_its_rental() {
    let manners = [
        Manner::Answer(500),
        Manner::Hang,
        Manner::Answer(204),
        Manner::Refuse,
        Manner::Answer(404),
        Manner::Later(429, "0"),
        Manner::Answer(200),
    ];
    let sink = HookSink::start(&manners).await;
    let mut scene = Scene::of(3, &sink.url(), &[]).await;
    scene.start(PACE);
    let after = scene.all_accepted().await;
    in_order(&scene, &sink.calls()).await;
    assert!(after.delivered_at.is_some() && after.last_error.is_some() && after.failing_since.is_none());
    assert!(sink.calls().len() > 18, "failed ones came again");
}

#[tokio::test]
async fn a_call_is_one_event_with_its_id_and_a_signature() {
    let sink = HookSink::start(&[Manner::Answer(204)]).await;
    let mut scene = Scene::of(1, &sink.url(), &["rental.active", "rental.closed"]).await;
    scene.start(PACE);
    scene.all_accepted().await;
    let calls = sink.calls();
    let kinds: Vec<String> =
        calls.iter().map(|call| call.json()["kind"].as_str().unwrap_or_default().to_owned()).collect();
    assert_eq!(kinds, ["rental.active", "rental.closed"], "only the kinds that it wants");
    for call in &calls {
        assert_eq!(call.json()["id"], call.header("x-fleetgate-event"));
        assert!(call.head.starts_with("POST /fleet "), "{}", call.head);
        let signature = call.header("x-fleetgate-signature");
        let seconds: i64 = signature["t=".len()..].split(',').next().unwrap().parse().unwrap();
        let expected = crate::notification::webhook::signature(b"secret", seconds, call.body.as_bytes());
        assert_eq!(signature, expected);
    }
}

#[tokio::test]
async fn after_a_restore_nothing_is_sent_before_the_confirmation() {
    let sink = HookSink::start(&[Manner::Answer(204)]).await;
    let mut scene = Scene::of(1, &sink.url(), &[]).await;
    fixture::restored(&scene.store, at(5_000)).await;
    scene.start(PACE);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let waits = scene.subscription().await;
    assert_eq!((sink.calls().len(), waits.cursor, waits.waiting), (0, 0, 0));
    let mut tx = scene.store.begin().await.unwrap();
    instance::confirm(&mut tx, at(6_000), "user:ada").await.unwrap();
    tx.commit().await.unwrap();
    scene.wakeups.changed();
    scene.all_accepted().await;
    in_order(&scene, &sink.calls()).await;
    scene.stop().await;
}

#[tokio::test]
async fn a_restart_loses_nothing() {
    let sink = HookSink::start(&[Manner::Answer(204), Manner::Answer(204), Manner::Hang]).await;
    let mut scene = Scene::of(2, &sink.url(), &[]).await;
    // A long patience: the calls hang when the gateway stops.
    scene.start(SubscriptionTiming { patience: Duration::from_secs(60), ..PACE });
    sink.wait_for(4).await;
    scene.stop().await;
    let before = scene.subscription().await;
    assert_eq!((before.waiting, before.last_error), (10, None), "what a stop ends has not failed");

    let second = HookSink::start(&[Manner::Answer(204)]).await;
    let moved = Subscription { url: SecretUrl::from(second.url()), ..scene.subscription().await };
    let mut tx = scene.store.begin().await.unwrap();
    subscriptions::update(&mut tx, &moved).await.unwrap();
    tx.commit().await.unwrap();
    scene.start(PACE);
    scene.all_accepted().await;
    let calls = [sink.calls(), second.calls()].concat();
    in_order(&scene, &calls).await;
    assert_eq!(second.calls().len(), 10, "only what was in flight is repeated");
    scene.stop().await;
}

#[tokio::test]
async fn a_failure_that_lasts_is_reported_once_and_everything_comes_when_the_receiver_is_back() {
    let manners = [[Manner::Answer(500); 5].as_slice(), &[Manner::Answer(204)]].concat();
    let sink = HookSink::start(&manners).await;
    let mut scene = Scene::of(1, &sink.url(), &[]).await;
    scene.start(SubscriptionTiming { reported_after: 2, ..PACE });
    let after = scene.all_accepted().await;
    assert_eq!((after.failing_since, after.next_attempt), (None, None), "it fails no more");
    in_order(&scene, &sink.calls()).await;
    let reported = "select cause from events where kind = 'subscription.failing'";
    assert_eq!(fixture::texts(&scene.store, reported).await.len(), 1);
}

#[tokio::test]
async fn a_resume_does_not_wait_for_the_next_attempt() {
    let sink = HookSink::start(&[Manner::Answer(500), Manner::Answer(204)]).await;
    let mut scene = Scene::of(1, &sink.url(), &[]).await;
    let hour = Duration::from_secs(3_600);
    scene.start(SubscriptionTiming { first_pause: hour, longest_pause: hour, reported_after: 1, ..PACE });
    let failing = scene.until("it fails", |s| s.failing_since.is_some()).await;
    assert!(failing.next_attempt > failing.failing_since, "{failing:?}");
    assert_eq!(
        failing.last_error.map(|(_, error)| error).as_deref(),
        Some("it answered 500 Internal Server Error")
    );
    assert_eq!(failing.waiting, 6, "the later events of the rental wait");
    let events = fixture::texts(&scene.store, "select kind || ' ' || data from events").await;
    assert!(events.iter().any(|e| e.starts_with("subscription.failing") && e.contains("500")), "{events:?}");
    assert_eq!(sink.calls().len(), 1);

    let mut tx = scene.store.begin().await.unwrap();
    subscriptions::resume(&mut tx, id(SUBSCRIPTION)).await.unwrap();
    tx.commit().await.unwrap();
    scene.wakeups.changed();
    let after = scene.all_accepted().await;
    assert_eq!((after.failing_since, after.last_error), (None, None));
    in_order(&scene, &sink.calls()).await;
}

#[tokio::test]
async fn a_resume_does_not_wait_for_the_pause_that_the_server_requested_before() {
    let sink = HookSink::start(&[Manner::Later(503, "3600"), Manner::Answer(204)]).await;
    let mut scene = Scene::of(1, &sink.url(), &[]).await;
    scene.start(SubscriptionTiming { longest_pause: Duration::from_secs(3_600), ..PACE });
    let busy = scene.until("it is busy", |s| s.last_error.is_some()).await;
    scene.wakeups.changed();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(sink.calls().len(), 1, "the server has its pause");
    let mut tx = scene.store.begin().await.unwrap();
    subscriptions::resume(&mut tx, id(SUBSCRIPTION)).await.unwrap();
    subscriptions::update(&mut tx, &busy).await.unwrap();
    tx.commit().await.unwrap();
    scene.wakeups.changed();
    scene.all_accepted().await;
}

/// Returns the numbers of the events that are due.
async fn due(tx: &mut Tx, now: i64) -> Vec<i64> {
    let longest = Duration::from_secs(3_600);
    let all = deliveries::due(tx, id(SUBSCRIPTION), At { now: at(now), longest }, 10).await.unwrap();
    all.into_iter().map(|due| due.event.seq).collect()
}

#[tokio::test]
async fn a_failure_from_before_a_resume_does_not_count() {
    let scene = Scene::of(1, "http://127.0.0.1:9/", &[]).await;
    let mut tx = scene.store.begin().await.unwrap();
    deliveries::take(&mut tx, id(SUBSCRIPTION), 6).await.unwrap();
    let place = (id(SUBSCRIPTION), 1);
    let first = Failed { attempts: 0, error: "it answered 500", next: at(9_000), is_reported: false };
    assert!(!deliveries::failed(&mut tx, place, first, at(5_000)).await.unwrap());
    subscriptions::resume(&mut tx, id(SUBSCRIPTION)).await.unwrap();
    let last = Failed { attempts: 1, is_reported: true, ..first };
    assert!(!deliveries::failed(&mut tx, place, last, at(6_000)).await.unwrap());
    assert_eq!(due(&mut tx, 6_000).await, [1], "it is tried again");
    let after = subscriptions::find(&mut tx, id(SUBSCRIPTION)).await.unwrap().unwrap();
    assert_eq!((after.failing_since, after.last_error), (None, None));
}

#[tokio::test]
async fn a_clock_that_is_set_back_puts_nothing_off() {
    let scene = Scene::of(2, "http://127.0.0.1:9/", &[]).await;
    let mut tx = scene.store.begin().await.unwrap();
    deliveries::take(&mut tx, id(SUBSCRIPTION), 12).await.unwrap();
    let (minute, hour) = (60_000, 3_600_000);
    assert_eq!(due(&mut tx, hour).await, [1, 2], "the first of each rental");
    for (event, next) in [(1, at(hour + minute)), (2, at(hour + 2 * minute))] {
        let failed = Failed { attempts: 0, error: "it answered 500", next, is_reported: false };
        deliveries::failed(&mut tx, (id(SUBSCRIPTION), event), failed, at(hour)).await.unwrap();
    }
    assert_eq!(due(&mut tx, hour).await, [0i64; 0]);
    // Back by half an hour.
    deliveries::hasten(&mut tx, at(hour / 2)).await.unwrap();
    assert_eq!(due(&mut tx, hour / 2).await, [1, 2]);
}

#[tokio::test]
async fn a_paused_subscription_gets_nothing_until_it_is_resumed() {
    let sink = HookSink::start(&[Manner::Answer(204)]).await;
    let mut scene = Scene::of(1, &sink.url(), &[]).await;
    let mut tx = scene.store.begin().await.unwrap();
    let paused = Subscription { paused_at: Some(at(1)), ..scene.subscription().await };
    subscriptions::update(&mut tx, &paused).await.unwrap();
    tx.commit().await.unwrap();
    scene.start(PACE);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(sink.calls().is_empty() && scene.subscription().await.cursor == 0);
    let mut tx = scene.store.begin().await.unwrap();
    subscriptions::update(&mut tx, &Subscription { paused_at: None, ..paused }).await.unwrap();
    tx.commit().await.unwrap();
    scene.wakeups.changed();
    scene.all_accepted().await;
    assert_eq!(sink.calls().len(), 6);
}

#[tokio::test]
async fn an_answer_without_an_end_and_a_redirect_hold_up_nothing() {
    let sink = HookSink::start(&[Manner::Answer(302), Manner::Endless]).await;
    let mut scene = Scene::of(1, &sink.url(), &[]).await;
    scene.start(PACE);
    let after = scene.all_accepted().await;
    let (_, error) = after.last_error.unwrap();
    assert!(error.contains("redirects are not followed"), "{error}");
    assert_eq!(sink.calls().len(), 7, "the status decides");
}

#[tokio::test]
async fn a_subscription_that_is_removed_in_flight_is_called_no_more() {
    let sink = HookSink::start(&[Manner::Hang, Manner::Answer(204)]).await;
    let mut scene = Scene::of(1, &sink.url(), &[]).await;
    scene.start(SubscriptionTiming { reported_after: 1, ..PACE });
    sink.wait_for(1).await;
    let mut tx = scene.store.begin().await.unwrap();
    subscriptions::remove(&mut tx, id(SUBSCRIPTION)).await.unwrap();
    tx.commit().await.unwrap();
    tokio::time::sleep(2 * PACE.patience).await;
    assert_eq!(sink.calls().len(), 1);
    let failures = "select kind from events where kind = 'subscription.failing'";
    assert!(fixture::texts(&scene.store, failures).await.is_empty());
    scene.stop().await;
}

#[tokio::test]
async fn an_address_that_is_refused_is_not_called() {
    let mut scene = Scene::of(1, "http://169.254.169.254/latest", &[]).await;
    scene.start(PACE);
    let refused = scene.until("it is refused", |s| s.last_error.is_some()).await;
    let (_, error) = refused.last_error.unwrap();
    assert!(error.contains("169.254.169.254 is not connected to"), "{error}");
}
