use std::time::Duration;

use fleetgate_engine::id::Id;
use fleetgate_engine::rental::life::{EndReason, Ending, Life};
use fleetgate_engine::rental::occupancy::{Occupancy, Window};
use fleetgate_engine::time::Wall;

use super::occupancies::Source;
use super::{bookings, customers, occupancies};
use crate::store::{Store, fixture};

fn at(millis: i64) -> Wall {
    Wall::from_millis(millis)
}

fn id(n: i64) -> Id {
    Id::from_i64(n)
}

/// A customer with one booking, which is held until then.
async fn booking(store: &Store, hold_until: Option<Wall>) -> Id {
    let mut tx = store.begin().await.unwrap();
    let customer = customers::Customer::new(id(1), at(0));
    customers::insert(&mut tx, &customer).await.unwrap();
    let booking = bookings::Booking {
        id: id(2),
        customer: id(1),
        external_ref: None,
        notes: String::new(),
        metadata: Default::default(),
        time_zone: None,
        hold_until,
        author: "test".into(),
        version: 1,
        created_at: at(0),
    };
    bookings::insert(&mut tx, &booking).await.unwrap();
    tx.commit().await.unwrap();
    booking.id
}

fn rental(n: i64, booking: Id, hold_until: Option<Wall>, ending: Option<Ending>) -> super::Rental {
    super::Rental {
        id: id(n),
        booking,
        customer: id(1),
        external_ref: None,
        time_zone: None,
        device: id(7),
        device_name: "cam".into(),
        life: Life {
            window: Window::new(at(600), at(1_200)).unwrap(),
            prepared_from: at(500),
            turnaround: Duration::from_millis(50),
            hold_until,
            ending,
        },
        preparation: Duration::from_millis(100),
        end_note: String::new(),
        version: 1,
        created_at: at(0),
    }
}

#[tokio::test]
async fn the_state_of_the_statement_is_that_of_the_engine() {
    for hold_until in [None, Some(at(550)), Some(at(800)), Some(at(5_000))] {
        let (store, _dir) = fixture::store().await;
        fixture::device(&store, 7, "cam").await;
        let booking = booking(&store, hold_until).await;
        let endings = EndReason::ALL.map(|reason| Some(Ending { at: at(700), reason }));
        let mut tx = store.begin().await.unwrap();
        for (n, ending) in endings.into_iter().chain([None]).enumerate() {
            let rental = rental(10 + n as i64, booking, hold_until, ending);
            super::insert(&mut tx, &rental).await.unwrap();
            super::update(&mut tx, &rental, at(0)).await.unwrap();
        }
        for now in [0, 499, 500, 549, 550, 599, 600, 700, 749, 750, 800, 1_199, 1_200, 1_249, 1_250, 9_000] {
            for state in fleetgate_engine::rental::life::State::ALL {
                let wanted = super::Wanted { state: Some(state), ..Default::default() };
                let found = super::list(&mut tx, wanted, at(now), (i64::MAX, 100)).await.unwrap();
                let all = super::list(&mut tx, Default::default(), at(now), (i64::MAX, 100)).await.unwrap();
                let expected: Vec<Id> =
                    all.iter().filter(|r| r.life.state(at(now)) == state).map(|r| r.id).collect();
                let found: Vec<Id> = found.iter().map(|r| r.id).collect();
                assert_eq!(found, expected, "{} at {now} with {hold_until:?}", state.name());
            }
        }
    }
}

#[tokio::test]
async fn a_hold_that_is_over_occupies_nothing_and_is_ended_once() {
    let (store, _dir) = fixture::store().await;
    fixture::device(&store, 7, "cam").await;
    let booking = booking(&store, Some(at(550))).await;
    let mut tx = store.begin().await.unwrap();
    let rental = rental(10, booking, Some(at(550)), None);
    super::insert(&mut tx, &rental).await.unwrap();
    let occupied = Occupancy { from: at(500), until: Some(at(1_250)) };
    occupancies::insert(&mut tx, id(7), Source::Rental(id(10)), occupied).await.unwrap();
    let count = async |tx: &mut crate::store::Tx, now| {
        occupancies::of_devices(tx, &[id(7)], at(now)).await.unwrap().get(&id(7)).map_or(0, Vec::len)
    };
    assert_eq!((count(&mut tx, 549).await, count(&mut tx, 550).await), (1, 0));
    assert!(bookings::lapse(&mut tx, at(549)).await.unwrap().is_empty());
    assert_eq!(bookings::lapse(&mut tx, at(550)).await.unwrap(), [booking]);
    assert!(bookings::lapse(&mut tx, at(550)).await.unwrap().is_empty());
    // The clock is set back.
    assert_eq!(count(&mut tx, 520).await, 0, "what has lapsed does not come back");
    let lapsed = super::find(&mut tx, id(10)).await.unwrap().unwrap();
    assert_eq!(lapsed.life.ending, Some(Ending { at: at(550), reason: EndReason::Lapsed }));
}
