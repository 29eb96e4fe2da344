//! Shipped devices in the store: their times, what they occupy, and their events.

use fleetgate_engine::messages::{Arrival, FirstContact};
use fleetgate_engine::rental::life::Shipment;

use super::*;
use crate::store::rentals::{Rental, devices, find, insert, reports, shipments, update};

/// A device that is mounted, and shipped ones: here, away, and back early and late.
pub(super) fn deliveries() -> impl Iterator<Item = Delivery> {
    let shipped = [(None, None), (Some(450), None), (Some(450), Some(720)), (Some(450), Some(1_260))];
    let shipped = shipped.map(|(dispatched, returned)| {
        Delivery::Shipped(Shipment {
            dispatched_at: dispatched.map(at),
            first_contact_at: None,
            returned_at: returned.map(at),
        })
    });
    std::iter::once(Delivery::Mounted).chain(shipped)
}

/// A rental whose device left at 450.
fn sent(n: i64, booking: Id) -> Rental {
    let mut sent = rental(n, booking, None, None);
    let shipment = Shipment { dispatched_at: Some(at(450)), ..Shipment::default() };
    sent.ssh = false;
    sent.life = Life {
        handover: Handover::Awaited,
        delivery: Delivery::Shipped(shipment),
        prepared_from: at(450),
        ..sent.life
    };
    sent
}

fn returned(rental: &Rental, ms: i64) -> Rental {
    let shipment = rental.life.delivery.shipment().unwrap_or_default();
    let delivery = Delivery::Shipped(Shipment { returned_at: Some(at(ms)), ..shipment });
    Rental { life: Life { delivery, ..rental.life }, ..rental.clone() }
}

/// Stores a rental whose device left at 450, with what it occupies.
async fn dispatched(tx: &mut Tx, n: i64, booking: Id) -> Rental {
    let rental = sent(n, booking);
    let here = Delivery::Shipped(Shipment::default());
    let kept = Life { delivery: here, prepared_from: at(500), ..rental.life };
    insert(tx, &Rental { life: kept, ..rental.clone() }).await.unwrap();
    let occupied = Occupancy { from: at(500), until: Some(at(1_250)) };
    occupancies::insert(tx, id(7), Source::Rental(rental.id), occupied).await.unwrap();
    occupancies::begin_by(tx, Source::Rental(rental.id), at(450)).await.unwrap();
    update(tx, &rental, at(450)).await.unwrap();
    rental
}

#[tokio::test]
async fn the_times_of_a_shipment_come_back_as_they_were_stored() {
    let (store, _dir, booking) = shop().await;
    let mut tx = store.begin().await.unwrap();
    for (n, delivery) in (10..).zip(deliveries()) {
        let mut stored = rental(n, booking, None, None);
        stored.life.delivery = delivery;
        insert(&mut tx, &stored).await.unwrap();
        update(&mut tx, &stored, at(0)).await.unwrap();
        assert_eq!(find(&mut tx, stored.id).await.unwrap().unwrap().life.delivery, delivery);
    }
    for delivery in Delivery::ALL {
        let settings = devices::Settings { delivery, ..devices::settings(&mut tx, id(7)).await.unwrap() };
        devices::set(&mut tx, id(7), &settings).await.unwrap();
        assert_eq!(devices::settings(&mut tx, id(7)).await.unwrap().delivery, delivery);
    }
}

#[tokio::test]
async fn a_device_is_occupied_without_an_end_until_it_is_back() {
    let (store, _dir, booking) = shop().await;
    let mut tx = store.begin().await.unwrap();
    let rental = dispatched(&mut tx, 10, booking).await;
    let occupied = async |tx: &mut Tx, now: i64| -> Vec<(i64, Option<i64>)> {
        let all = occupancies::of_devices(tx, &[id(7)], at(now)).await.unwrap();
        let times = |taken: &occupancies::Taken| {
            (taken.occupancy.from.as_millis(), taken.occupancy.until.map(Wall::as_millis))
        };
        all.values().flatten().map(times).collect()
    };
    assert_eq!(occupied(&mut tx, 1_199).await, [(450, Some(1_250))], "the plan");
    for now in [1_200, 1_250, 9_000] {
        assert_eq!(occupied(&mut tx, now).await, [(450, None)], "{now}");
    }
    let ending = Some(Ending { at: at(700), reason: EndReason::Cancelled });
    let over = Rental { life: Life { ending, ..rental.life }, ..rental.clone() };
    update(&mut tx, &over, at(700)).await.unwrap();
    assert_eq!(occupied(&mut tx, 700).await, [(450, None)]);
    occupancies::set_until(&mut tx, Source::Rental(over.id), at(9_050)).await.unwrap();
    update(&mut tx, &returned(&over, 9_000), at(9_000)).await.unwrap();
    assert_eq!(occupied(&mut tx, 9_000).await, [(450, Some(9_050))]);
    assert!(occupied(&mut tx, 9_050).await.is_empty());
}

#[tokio::test]
async fn what_becomes_of_a_device_that_is_away_is_announced_and_names_the_next_rental() {
    let (store, _dir, booking) = shop().await;
    let mut tx = store.begin().await.unwrap();
    let first = dispatched(&mut tx, 10, booking).await;
    let mut next = rental(11, booking, None, None);
    next.life.window = Window::new(at(50_000), at(60_000)).unwrap();
    next.life.prepared_from = at(50_000);
    insert(&mut tx, &next).await.unwrap();
    catch_up(&mut tx, 9_000).await;
    update(&mut tx, &returned(&first, 9_500), at(9_500)).await.unwrap();
    catch_up(&mut tx, 20_000).await;
    let rows = events_of(&mut tx).await;
    let own = |row: &&EventRow| row.rental == first.id;
    let kinds: Vec<(i64, &str)> =
        rows.iter().filter(own).map(|row| (row.at.as_millis(), row.kind.as_str())).collect();
    let all = [
        (0, "rental.booked"),
        (450, "rental.dispatched"),
        (450, "rental.preparing"),
        (600, "rental.delayed"),
        (1_200, "rental.failed"),
        (1_200, "rental.returning"),
        (1_250, "rental.overdue"),
        (9_500, "rental.returned"),
        (9_500, "rental.cleaning"),
        (9_550, "rental.closed"),
    ];
    assert_eq!(kinds, all);
    let of = |kind: &str| rows.iter().find(|row| row.kind == kind).expect("it is announced");
    let name = crate::ids::IdKind::Rental.text(next.id);
    assert!(of("rental.overdue").data.contains(&format!(r#""next_rental":"{name}""#)));
    let warning = of("rental.device_overdue");
    assert_eq!((warning.rental, warning.at, warning.version), (next.id, at(1_250), next.version));
    let name = crate::ids::IdKind::Rental.text(first.id);
    assert!(warning.data.contains(&format!(r#""previous_rental":"{name}""#)), "{}", warning.data);
    assert!(of("rental.failed").data.contains(r#""reason":"failed""#));
    assert!(!of("rental.returning").data.contains("next_rental"));
}

#[tokio::test]
async fn a_device_is_heard_from_once_and_of_another_device_nothing_is_stored() {
    let (store, _dir, booking) = shop().await;
    let mut tx = store.begin().await.unwrap();
    let rental = dispatched(&mut tx, 10, booking).await;
    let contact = |host: i64, ms: i64| FirstContact { rental: rental.id, host: id(host), at: at(ms) };
    for (host, ms, is_stored) in [(8, 500, false), (7, 510, true), (7, 520, false)] {
        let stored = shipments::arrived(&mut tx, contact(host, ms)).await.unwrap();
        assert_eq!(stored.is_some(), is_stored, "{host} at {ms}");
    }
    let found = find(&mut tx, rental.id).await.unwrap().unwrap();
    assert_eq!(found.life.delivery.shipment().and_then(|of| of.first_contact_at), Some(at(510)));
    let spec = handovers::these(&mut tx, &[rental.id].into()).await.unwrap().remove(&rental.id).unwrap();
    assert_eq!((spec.arrival, spec.is_ready), (Arrival::Done, true));
    assert_eq!(found.version, 2, "it is no change of a person");
}

#[tokio::test]
async fn the_report_waits_for_the_device() {
    let (store, _dir, booking) = shop().await;
    let mut tx = store.begin().await.unwrap();
    let rental = dispatched(&mut tx, 10, booking).await;
    assert!(reports::due(&mut tx, at(9_000), 9).await.unwrap().is_empty());
    update(&mut tx, &returned(&rental, 9_000), at(9_000)).await.unwrap();
    assert!(reports::due(&mut tx, at(9_049), 9).await.unwrap().is_empty());
    assert_eq!(reports::due(&mut tx, at(9_050), 9).await.unwrap(), [rental.id]);
}

#[tokio::test]
async fn a_rental_that_is_over_gets_no_alias_again_while_its_device_is_away() {
    let (store, _dir, booking) = shop().await;
    let mut tx = store.begin().await.unwrap();
    dispatched(&mut tx, 10, booking).await;
    // An earlier version took its alias a day after its end.
    sqlx::query("update rentals set alias_freed_at = 1").execute(&mut *tx).await.unwrap();
    let pools = Pools { v4: "10.112.0.0/14".parse().unwrap(), v6: "fd72::/64".parse().unwrap() };
    for (now, has_alias) in [(1_250, false), (1_249, true)] {
        let now = at(now + 86_400_000);
        assert_eq!(aliases::take_missing(&mut tx, (8, pools), now).await.unwrap(), 0);
        let found = find(&mut tx, id(10)).await.unwrap().unwrap();
        assert_eq!(found.alias.is_some(), has_alias, "{now:?}");
    }
}
