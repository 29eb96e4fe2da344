//! Decides what the contacts of active rentals are sent about their devices.
//!
//! It looks at the stored states every few seconds. So it neither delays nor suppresses a notification of operators,
//! and it finds after a start what changed before. The decisions are written with the messages.

use std::collections::BTreeMap;
use std::time::Duration;

use fleetgate_engine::rental::notices::{Message, Part, Shown, look};
use fleetgate_engine::time::Wall;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::maintenance::steady_clock::SteadyClock;
use crate::store::rentals::Rental;
use crate::store::rentals::messages::{self, Said};
use crate::store::rentals::notices::{self, Seen};
use crate::store::{Store, instance};

/// Pause between two looks. A message waits for a minute anyway.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A larger change of the clock is a step.
const STEP: Duration = Duration::from_secs(1);
/// How long a clock must have run evenly: by one that is wrong a rental would be over. After a start the first results
/// come in this time.
const TRUSTED: Duration = Duration::from_secs(60);
/// Characters kept of an output: the message shows its first lines.
const MAX_OUTPUT: usize = 2_000;

pub fn start(tasks: &mut JoinSet<()>, store: Store, stop: CancellationToken) {
    tasks.spawn(async move {
        let mut steady = SteadyClock::new(clock::now(), STEP);
        while !stop.is_cancelled() {
            let now = clock::now();
            if steady.look(now) >= TRUSTED
                && let Err(error) = turn(&store, now.wall).await
            {
                tracing::warn!("messages to the contacts of rentals wait for the database: {error}");
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = stop.cancelled() => {}
            }
        }
    });
}

/// Forgets what concerns rentals that are over, and looks at the devices of the others. After a restore nothing is sent
/// until an admin has confirmed it: the rentals may be over.
///
/// # Errors
/// Fails when the database cannot be read or written.
pub(crate) async fn turn(store: &Store, now: Wall) -> crate::store::Result<()> {
    let mut conn = store.reader().await?;
    if instance::unconfirmed(&mut conn).await?.is_some() {
        return Ok(());
    }
    let over = notices::over(&mut conn, now).await?;
    let concerned = notices::concerned(&mut conn, now).await?;
    drop(conn);
    for rental in over {
        let mut tx = store.begin().await?;
        notices::forget(&mut tx, rental).await?;
        tx.commit().await?;
    }
    for rental in concerned {
        look_at(store, &rental, now).await?;
    }
    Ok(())
}

async fn look_at(store: &Store, rental: &Rental, now: Wall) -> crate::store::Result<()> {
    let mut conn = store.reader().await?;
    let rented = notices::rented(&mut conn, rental, now).await?;
    let before = notices::known(&mut conn, rental.id).await?;
    let seen = notices::seen(&mut conn, rental.device).await?;
    drop(conn);
    let shown: BTreeMap<String, Shown> = seen.iter().map(|(name, seen)| (name.clone(), seen.shown)).collect();
    let mut known = before.clone();
    let message = look(&rented, &mut known, &shown, now);
    if message.is_none() && known == before {
        return Ok(());
    }
    let mut tx = store.begin().await?;
    notices::keep(&mut tx, rental.id, &known).await?;
    if let Some(Message { parts, is_last }) = message {
        let said: Vec<Said> = parts.into_iter().map(|part| said(part, &seen, rented.had_from)).collect();
        messages::forget_settled(&mut tx, rental.id, now).await?;
        messages::insert(&mut tx, rental, (&said, is_last), now).await?;
    }
    tx.commit().await
}

/// Adds the output to a problem. One from before the customer had the device is not the customer's.
fn said(part: Part, seen: &BTreeMap<String, Seen>, had_from: Wall) -> Said {
    let of_customer = |seen: &&Seen| seen.last_check.is_some_and(|at| had_from <= at);
    let seen = seen.get(&part.service).filter(|_| !part.is_over).filter(of_customer);
    let output = seen.map(|seen| seen.output.chars().take(MAX_OUTPUT).collect::<String>());
    Said { part, output: output.filter(|output| !output.trim().is_empty()) }
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::{HostId, Id};
    use fleetgate_engine::messages::{HostState, HostStatus, NotificationState, ServiceState};
    use fleetgate_probes::sample::Status;

    use super::*;
    use crate::store::{fixture, states};

    const FROM: i64 = 1_000;
    const UNTIL: i64 = 9_000;

    fn at(seconds: i64) -> Wall {
        Wall::from_millis(seconds * 1_000)
    }

    /// A rental of `cam` from second 1000 to 9000, and the next one of it. Each has a contact.
    async fn rented() -> (Store, tempfile::TempDir, HostId) {
        let (store, dir) = fixture::store().await;
        let host = fixture::device(&store, 7, "cam").await;
        fixture::device(&store, 8, "dog").await;
        store.all_hosts(&fixture::TIMING).await.unwrap();
        for sql in [
            "insert into customers (id, created_at) values (1, 0)",
            "insert into bookings (id, customer, external_ref, author, created_at) values (2, 1, 'order-7', '', 0)",
            r#"insert into rentals (id, booking, device, from_at, until_at, prepared_from, preparation_ms,
                                    turnaround_ms, created_at, name, contacts)
               values (10, 2, 7, 1000000, 9000000, 1000000, 0, 0, 0, 'entrance',
                       '[{"name":"Ada","email":"ada@example.org"}]'),
                      (11, 2, 7, 9000000, 9500000, 9000000, 0, 0, 0, 'later',
                       '[{"name":"Bob","email":"bob@example.org"}]')"#,
        ] {
            fixture::run(&store, sql, &[]).await;
        }
        (store, dir, host)
    }

    /// Stores the state of the device and of `ping`, each with its time, and looks.
    async fn seen(store: &Store, now: i64, host: HostState, ping: ServiceState) -> Vec<String> {
        let mut tx = store.begin().await.unwrap();
        states::write_hosts(&mut tx, &[&host]).await.unwrap();
        states::write_services(&mut tx, &[(host.host, &ping)]).await.unwrap();
        tx.commit().await.unwrap();
        turn(store, at(now)).await.unwrap();
        fixture::texts(store, "select rental || ' ' || email || ' ' || (created_at / 1000) || ' ' || group_concat(
                 (p.value ->> 'service') || ':' || (p.value ->> 'state') || iif(p.value ->> 'is_over', ' over', ''), ',')
             from rental_messages m join json_each(m.parts) p group by m.id order by m.id").await
    }

    fn ping(status: Status, since: i64) -> ServiceState {
        ServiceState {
            hard_since: at(since),
            last_check: Some(at(since)),
            ..fixture::service("ping", status)
        }
    }

    fn down(host: HostId, since: i64) -> HostState {
        HostState {
            status: HostStatus::Down,
            hard: HostStatus::Down,
            hard_since: at(since),
            ..fixture::up(host)
        }
    }

    #[tokio::test]
    async fn a_problem_within_the_window_and_its_end_reach_the_contacts_of_the_rental() {
        let (store, _dir, host) = rented().await;
        let (up, ok) = (fixture::up(host), ping(Status::Ok, 1));
        let problem = "10 ada@example.org 2060 ping:critical";
        let over = "10 ada@example.org 3060 ping:critical over";
        for (now, state, messages) in [
            (2_000, ping(Status::Critical, 2_000), &[][..]),
            (2_060, ping(Status::Critical, 2_000), &[problem][..]),
            (2_900, ping(Status::Critical, 2_000), &[problem][..]),
            (3_000, ok.clone(), &[problem][..]),
            (3_060, ok.clone(), &[problem, over][..]),
            (8_990, ping(Status::Unknown, 8_990), &[problem, over][..]),
            (UNTIL + 5, ping(Status::Unknown, 8_990), &[][..]),
            (UNTIL + 100, ping(Status::Unknown, 8_990), &[][..]),
        ] {
            assert_eq!(seen(&store, now, up.clone(), state).await, messages, "at {now}");
        }
        let output = fixture::texts(&store, "select cast(count(*) as text) from rental_problems");
        assert_eq!(output.await, ["1"], "the next customer is not told of what was there before");
    }

    #[tokio::test]
    async fn what_was_sent_a_day_ago_is_forgotten_and_what_waits_is_not() {
        let (store, _dir, host) = rented().await;
        fixture::run(&store, "update rentals set until_at = 900000000 where id = 10", &[]).await;
        fixture::run(&store, "delete from rentals where id = 11", &[]).await;
        let (up, day) = (fixture::up(host), 86_400);
        for now in [2_000, 2_060] {
            seen(&store, now, up.clone(), ping(Status::Critical, 2_000)).await;
        }
        fixture::run(&store, "update rental_messages set sent_at = created_at", &[]).await;
        for now in [3_000, 3_060] {
            seen(&store, now, up.clone(), ping(Status::Ok, 3_000)).await;
        }
        for now in [2 * day, 2 * day + 60] {
            seen(&store, now, up.clone(), ping(Status::Unknown, 2 * day)).await;
        }
        let left =
            fixture::texts(&store, "select cast(created_at / 1000 as text) from rental_messages order by id")
                .await;
        assert_eq!(left, ["3060", "172860"]);
    }

    #[tokio::test]
    async fn what_began_before_the_window_is_sent_after_a_handover_by_hand_only() {
        for by_hand in [false, true] {
            let (store, _dir, host) = rented().await;
            if by_hand {
                let sql = "insert into rental_changes (rental, at, author, what, device, from_at, until_at)
                           values (10, 1000000, '', 'handed_over', 7, 1000000, 9000000)";
                fixture::run(&store, sql, &[]).await;
            }
            let old = ping(Status::Critical, 500);
            assert!(seen(&store, FROM - 10, fixture::up(host), old.clone()).await.is_empty());
            seen(&store, FROM, fixture::up(host), old.clone()).await;
            let sent = seen(&store, FROM + 60, fixture::up(host), old).await;
            assert_eq!(sent.len(), usize::from(by_hand), "{sent:?}");
            let outputs = "select cast(count(parts ->> '$[0].output') as text) from rental_messages";
            assert_eq!(fixture::texts(&store, outputs).await, ["0"], "it is an output of before the window");
        }
    }

    #[tokio::test]
    async fn a_device_that_is_down_explains_its_services_and_a_downtime_hides_both() {
        let (store, _dir, host) = rented().await;
        let ill = ping(Status::Critical, 2_000);
        let planned = NotificationState { in_downtime: true, ..NotificationState::default() };
        let silent = HostState { notification: planned.clone(), ..down(host, 2_000) };
        let in_downtime = ServiceState { notification: planned, ..ill.clone() };
        for now in [2_000, 2_100] {
            assert!(seen(&store, now, silent.clone(), in_downtime.clone()).await.is_empty());
        }
        seen(&store, 2_200, down(host, 2_000), ill.clone()).await;
        let sent = seen(&store, 2_260, down(host, 2_000), ill).await;
        assert_eq!(sent, ["10 ada@example.org 2260 :down"]);
    }

    #[tokio::test]
    async fn contacts_hear_of_the_device_that_they_have_only() {
        let (store, _dir, host) = rented().await;
        let ill = ping(Status::Critical, 2_000);
        seen(&store, 2_000, fixture::up(host), ill.clone()).await;
        let other = seen(&store, 2_060, fixture::up(Id::from_i64(8)), ping(Status::Unknown, 2_000)).await;
        assert_eq!(other, ["10 ada@example.org 2060 ping:critical"]);
        for sql in [
            "update rentals set device = 8 where id = 10",
            r#"insert into rental_changes (rental, at, author, what, changed, device, from_at, until_at)
               values (10, 2100000, '', 'changed', '["device"]', 8, 1000000, 9000000)"#,
        ] {
            fixture::run(&store, sql, &[]).await;
        }
        for now in [2_100, 2_200] {
            let sent = seen(&store, now, fixture::up(host), ill.clone()).await;
            assert_eq!(sent.len(), 1, "the problem of the second device began before the swap: {sent:?}");
        }
    }

    #[tokio::test]
    async fn after_a_restore_nothing_is_sent_until_it_is_confirmed() {
        let (store, _dir, host) = rented().await;
        fixture::restored(&store, at(1_500)).await;
        for now in [2_000, 2_060] {
            assert!(seen(&store, now, fixture::up(host), ping(Status::Critical, 2_000)).await.is_empty());
        }
    }
}
