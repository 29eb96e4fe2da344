mod shipped;

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::time::Duration;

use fleetgate_engine::id::Id;
use fleetgate_engine::messages::{GrantAccess, GrantProtocol, HandedOver};
use fleetgate_engine::rental::allowance::Level;
use fleetgate_engine::rental::life::{Delivery, EndReason, Ending, Handover, Life};
use fleetgate_engine::rental::maintenance::Maintenance;
use fleetgate_engine::rental::occupancy::{Occupancy, Window};
use fleetgate_engine::time::Wall;

use super::aliases::{self, Alias};
use super::allowances::{self, Allowance};
use super::changes::{self, NewChange, What};
use super::contacts::Contact;
use super::device_choices::DeviceChoice;
use super::events::EventRow;
use super::occupancies::Source;
use super::{announcements, blocks, bookings, customers, events, handovers, occupancies, policy, reports};
use crate::ids::Named;
use crate::store::addresses::Pools;
use crate::store::lists::readable;
use crate::store::{Store, Tx, fixture};

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
        choice: DeviceChoice {
            labels: Some([("kind".to_owned(), "cam".to_owned())].into()),
            profile: Some("camera".to_owned()),
            other_after: Some(Duration::from_secs(600)),
            other_at: None,
        },
        life: Life {
            window: Window::new(at(600), at(1_200)).unwrap(),
            prepared_from: at(500),
            turnaround: Duration::from_millis(50),
            hold_until,
            handover: Handover::AtBegin,
            ending,
            delivery: Delivery::Mounted,
        },
        preparation: Duration::from_millis(100),
        name: "device-1".into(),
        access: vec![GrantAccess { protocol: GrantProtocol::Tcp, ports: vec![22..=22, 8_000..=8_100] }],
        ssh: true,
        admits: Some([id(21), id(22)].into()),
        alias: Some(Alias { slot: n, addresses: [[10, 112, 64, 3].into(), Ipv6Addr::LOCALHOST.into()] }),
        allowance: Some(Allowance { bytes: 1_000, cuts: false }),
        thresholds: [("disk".to_owned(), vec![])].into(),
        maintenance: vec![Maintenance {
            window: Window::new(at(700), at(800)).unwrap(),
            comment: "new disk".to_owned(),
        }],
        allowance_level: Level::Below,
        forwarded_bytes: 0,
        contacts: vec![Contact { name: Some("Ada".into()), email: "ada@example.org".into() }],
        end_note: String::new(),
        version: 1,
        created_at: at(0),
    }
}

#[tokio::test]
async fn the_state_of_the_statement_is_that_of_the_engine() {
    let handovers = [Handover::AtBegin, Handover::Awaited].into_iter();
    let handovers: Vec<Handover> =
        handovers.chain([550, 650, 1_200].map(|ms| Handover::Done(at(ms)))).collect();
    for hold_until in [None, Some(at(550)), Some(at(800)), Some(at(5_000))] {
        let (store, _dir) = fixture::store().await;
        fixture::device(&store, 7, "cam").await;
        let booking = booking(&store, hold_until).await;
        let endings = EndReason::ALL.map(|reason| Some(Ending { at: at(700), reason }));
        let endings = endings.into_iter().chain([None]);
        let all = endings.flat_map(|ending| handovers.iter().map(move |handover| (ending, *handover)));
        let all = all.flat_map(|life| shipped::deliveries().map(move |delivery| (life, delivery)));
        let mut tx = store.begin().await.unwrap();
        for (n, ((ending, handover), delivery)) in all.enumerate() {
            let mut rental = rental(10 + n as i64, booking, hold_until, ending);
            (rental.life.handover, rental.life.delivery) = (handover, delivery);
            super::insert(&mut tx, &rental).await.unwrap();
            super::update(&mut tx, &rental, at(0)).await.unwrap();
        }
        for now in [
            0, 499, 500, 549, 550, 599, 600, 649, 650, 700, 749, 750, 800, 1_199, 1_200, 1_249, 1_250, 1_300,
            9_000,
        ] {
            let all = super::list(&mut tx, Default::default(), at(now), (i64::MAX, 1_000)).await.unwrap();
            let all = readable(all);
            for state in fleetgate_engine::rental::life::State::ALL {
                let wanted = super::Filter { state: Some(state), ..Default::default() };
                let found = super::list(&mut tx, wanted, at(now), (i64::MAX, 1_000)).await.unwrap();
                let expected: Vec<Id> =
                    all.iter().filter(|r| r.life.state(at(now)) == state).map(|r| r.id).collect();
                let found: Vec<Id> = found.into_iter().map(|r| r.row().unwrap().id).collect();
                assert_eq!(found, expected, "{} at {now} with {hold_until:?}", state.name());
            }
        }
    }
}

#[tokio::test]
async fn the_alias_of_the_statement_is_free_when_that_of_the_engine_is() {
    let day = 86_400_000;
    for hold_until in [None, Some(at(550)), Some(at(800)), Some(at(5_000))] {
        let (store, _dir) = fixture::store().await;
        fixture::device(&store, 7, "cam").await;
        let booking = booking(&store, hold_until).await;
        let endings = EndReason::ALL.map(|reason| Some(Ending { at: at(700), reason }));
        let mut tx = store.begin().await.unwrap();
        let mut all = Vec::new();
        let endings = endings.into_iter().chain([None]);
        let lives = endings.flat_map(|ending| shipped::deliveries().map(move |delivery| (ending, delivery)));
        for (n, (ending, delivery)) in lives.enumerate() {
            let mut rental = rental(10 + n as i64, booking, hold_until, ending);
            rental.life.delivery = delivery;
            super::insert(&mut tx, &rental).await.unwrap();
            super::update(&mut tx, &rental, at(0)).await.unwrap();
            all.push(rental);
        }
        let is_free =
            |r: &super::Rental, now| r.life.alias_freed_at().is_some_and(|freed_at| freed_at <= now);
        for now in [
            549, 550, 699, 700, 749, 750, 769, 770, 799, 800, 1_199, 1_200, 1_249, 1_250, 1_309, 1_310,
            90_000,
        ] {
            let now = at(now + day);
            let ids = |rentals: &[super::Rental]| rentals.iter().map(|r| r.id).collect::<Vec<Id>>();
            let in_use: Vec<super::Rental> = all.iter().filter(|r| !is_free(r, now)).cloned().collect();
            let found = aliases::in_use(&mut tx, id(1), now).await.unwrap();
            assert_eq!(ids(&found), ids(&in_use), "{now:?} with {hold_until:?}");
            let rested = aliases::rested(&mut tx, now).await.unwrap();
            let others = all.iter().filter(|r| is_free(r, now)).map(|r| r.id);
            assert_eq!(rested, others.collect::<Vec<Id>>(), "{now:?} with {hold_until:?}");
        }
    }
}

#[tokio::test]
async fn a_rental_is_read_as_it_was_written() {
    let (store, _dir) = fixture::store().await;
    fixture::device(&store, 7, "cam").await;
    let booking = booking(&store, None).await;
    let mut tx = store.begin().await.unwrap();
    let mut written = rental(10, booking, None, None);
    super::insert(&mut tx, &written).await.unwrap();
    assert_eq!(super::find(&mut tx, id(10)).await.unwrap().as_ref(), Some(&written));
    (written.name, written.access, written.admits) = ("attic".into(), Vec::new(), None);
    super::update(&mut tx, &written, at(0)).await.unwrap();
    written.version = 2;
    assert_eq!(super::find(&mut tx, id(10)).await.unwrap().as_ref(), Some(&written));
    for address in written.alias.unwrap().addresses {
        let found = aliases::find(&mut tx, address).await.unwrap();
        assert_eq!(found.map(|rental| rental.id), Some(id(10)), "{address}");
    }
    aliases::free(&mut tx, &[id(10)], at(9)).await.unwrap();
    let freed = super::find(&mut tx, id(10)).await.unwrap().unwrap();
    assert_eq!((freed.alias, freed.version), (None, 2), "the client changed nothing");
}

#[tokio::test]
async fn a_rental_is_loaded_at_a_start_until_it_has_been_over_for_a_day() {
    let (store, _dir) = fixture::store().await;
    fixture::device(&store, 7, "cam").await;
    let booking = booking(&store, None).await;
    let mut tx = store.begin().await.unwrap();
    let ended = Some(Ending { at: at(700), reason: EndReason::Ended });
    super::insert(&mut tx, &rental(10, booking, None, None)).await.unwrap();
    for (n, ending) in [(11, ended), (12, Some(Ending { at: at(550), reason: EndReason::Cancelled }))] {
        let rental = rental(n, booking, None, ending);
        super::insert(&mut tx, &rental).await.unwrap();
        super::update(&mut tx, &rental, at(0)).await.unwrap();
    }
    let day = 86_400_000;
    for (now, expected) in [
        (0, vec![id(10), id(11)]),
        (699 + day, vec![id(10), id(11)]),
        (700 + day, vec![id(10)]),
        (1_199 + day, vec![id(10)]),
        (1_200 + day, vec![]),
    ] {
        assert_eq!(policy::open_ids(&mut tx, at(now)).await.unwrap(), expected, "{now}");
    }
    let of_device = policy::of_devices(&mut tx, &[id(7)].into()).await.unwrap();
    assert_eq!(of_device, [id(10), id(11), id(12)].into());
}

#[tokio::test]
async fn a_rental_is_loaded_with_the_latest_changes_of_others_on_its_device() {
    let (store, _dir, booking) = shop().await;
    let mut tx = store.begin().await.unwrap();
    let change = async |tx: &mut Tx, rental: i64, what| {
        let change = NewChange { at: at(0), author: "test", what, changed: &[] };
        changes::insert(tx, &[id(rental)], &change).await.unwrap();
    };
    for (n, device) in [(10, 7), (11, 7), (12, 7), (13, 8)] {
        let rental = super::Rental { device: id(device), ..rental(n, booking, None, None) };
        super::insert(&mut tx, &rental).await.unwrap();
        change(&mut tx, n, What::Booked).await;
    }
    let swapped = super::Rental { device: id(8), ..rental(11, booking, None, None) };
    super::update(&mut tx, &swapped, at(0)).await.unwrap();
    change(&mut tx, 11, What::Changed).await;
    let beside = policy::changed_lately(&mut tx, &[id(12)].into()).await.unwrap();
    assert_eq!(beside, [id(10), id(11), id(12)].into(), "11 was swapped away from the device");
    let beside = policy::changed_lately(&mut tx, &[id(13)].into()).await.unwrap();
    assert_eq!(beside, [id(11), id(13)].into());
    for _ in 0..200 {
        change(&mut tx, 13, What::Changed).await;
    }
    assert_eq!(policy::changed_lately(&mut tx, &[id(12)].into()).await.unwrap(), BTreeSet::new());
}

#[tokio::test]
async fn a_rental_that_goes_on_without_an_alias_gets_another_one_unless_its_customer_was_erased() {
    let pools = Pools { v4: "10.112.0.0/14".parse().unwrap(), v6: "fd72::/64".parse().unwrap() };
    for erased in [false, true] {
        let (store, _dir, booking) = shop().await;
        let mut tx = store.begin().await.unwrap();
        let mut first = rental(10, booking, None, None);
        first.alias = None;
        super::insert(&mut tx, &first).await.unwrap();
        assert_eq!(aliases::take_missing(&mut tx, (8, pools), at(0)).await.unwrap(), 0);
        // By a clock that is ahead it has rested, and another rental gets its alias.
        let ahead = at(90_000_000);
        let (alias, former) = aliases::take(&mut tx, id(1), (8, pools), ahead).await.unwrap();
        assert_eq!((alias.slot, former), (0, vec![id(10)]));
        let mut next = rental(11, booking, None, None);
        (next.alias, next.life.window) = (Some(alias), Window::new(ahead, at(99_000_000)).unwrap());
        super::insert(&mut tx, &next).await.unwrap();
        assert_eq!(super::find(&mut tx, id(10)).await.unwrap().unwrap().alias, None);
        if erased {
            customers::erase(&mut tx, id(1), at(1)).await.unwrap();
        }
        assert_eq!(aliases::take_missing(&mut tx, (8, pools), at(700)).await.unwrap(), 0);
        let slot = super::find(&mut tx, id(10)).await.unwrap().unwrap().alias.map(|alias| alias.slot);
        assert_eq!(slot, if erased { None } else { Some(1) });
        let kept = super::find(&mut tx, id(11)).await.unwrap().unwrap().alias;
        assert_eq!(kept, Some(alias), "erased: {erased}");
    }
}

#[tokio::test]
async fn a_rental_that_cannot_be_read_keeps_no_other_one_from_its_alias() {
    let (store, _dir, booking) = shop().await;
    let mut tx = store.begin().await.unwrap();
    let of = |n, slot| {
        let alias = Alias { slot, addresses: [[10, 112, 64, 3].into(), Ipv6Addr::LOCALHOST.into()] };
        super::Rental { alias: Some(alias).filter(|_| slot >= 0), ..rental(n, booking, None, None) }
    };
    for rental in [of(10, 0), of(11, -1), of(12, -1)] {
        super::insert(&mut tx, &rental).await.unwrap();
    }
    let damage = "update rentals set access = 'x' where id in (10, 12)";
    sqlx::query(damage).execute(&mut *tx).await.unwrap();
    let pools = Pools { v4: "10.112.0.0/14".parse().unwrap(), v6: "fd72::/64".parse().unwrap() };
    assert_eq!(aliases::take_missing(&mut tx, (8, pools), at(0)).await.unwrap(), 0);
    let sql = "select alias_slot from rentals order by id";
    let slots: Vec<i64> = sqlx::query_scalar(sql).fetch_all(&mut *tx).await.unwrap();
    assert_eq!(slots, [0, 1, 2]);
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

// ------------------------------------------------------------------ announcements

/// A store with a device, and a confirmed booking without rentals.
async fn shop() -> (Store, tempfile::TempDir, Id) {
    let (store, dir) = fixture::store().await;
    fixture::device(&store, 7, "cam").await;
    fixture::device(&store, 8, "spare").await;
    let booking = booking(&store, None).await;
    (store, dir, booking)
}

async fn events_of(tx: &mut Tx) -> Vec<EventRow> {
    events::list(tx, events::Filter::default(), (0, i64::MAX), 10_000).await.unwrap()
}

async fn told(tx: &mut Tx) -> Vec<(i64, String)> {
    let short = |event: EventRow| (event.at.as_millis(), event.kind.replace("rental.", ""));
    events_of(tx).await.into_iter().map(short).collect()
}

fn expected(all: &[(i64, &str)]) -> Vec<(i64, String)> {
    all.iter().map(|(at, kind)| (*at, (*kind).to_owned())).collect()
}

/// Announces until nothing is due.
async fn catch_up(tx: &mut Tx, now: i64) -> usize {
    let mut written = 0;
    loop {
        let announced = announcements::announce(tx, at(now)).await.unwrap();
        written += announced.events;
        if !announced.more {
            return written;
        }
    }
}

#[tokio::test]
async fn what_came_while_the_gateway_was_off_is_announced_once_with_the_true_times() {
    let (store, _dir, booking) = shop().await;
    let mut tx = store.begin().await.unwrap();
    super::insert(&mut tx, &rental(10, booking, None, None)).await.unwrap();
    let first = announcements::announce(&mut tx, at(0)).await.unwrap();
    assert_eq!((first.events, first.more, first.next), (0, false, Some(at(500))));
    assert_eq!(catch_up(&mut tx, 5_000).await, 5);
    let begin = [(0, "booked"), (500, "preparing"), (600, "active")];
    let end = [(1_200, "ended"), (1_200, "cleaning"), (1_250, "closed")];
    let all: Vec<(i64, &str)> = begin.into_iter().chain(end).collect();
    assert_eq!(told(&mut tx).await, expected(&all));
    let again = announcements::announce(&mut tx, at(6_000)).await.unwrap();
    assert_eq!((again.events, again.next), (0, None));
    let ended = &events_of(&mut tx).await[3];
    assert!(ended.data.contains(r#""reason":"ended""#), "{}", ended.data);
    assert!(events_of(&mut tx).await.iter().all(|event| event.version == 1));
}

#[tokio::test]
async fn a_delay_is_announced_after_a_moment_and_a_handover_at_the_begin_is_none() {
    let (store, _dir, booking) = shop().await;
    let mut tx = store.begin().await.unwrap();
    for n in [10, 11] {
        let mut gated = rental(n, booking, None, None);
        gated.life.handover = Handover::Awaited;
        gated.life.window = Window::new(at(600), at(60_000)).unwrap();
        super::insert(&mut tx, &gated).await.unwrap();
    }
    assert_eq!(catch_up(&mut tx, 500).await, 2);
    let waits = announcements::announce(&mut tx, at(3_599)).await.unwrap();
    assert_eq!((waits.events, waits.next), (0, Some(at(3_600))));
    let handed_over = |n: i64, host: i64, ms: i64| HandedOver { rental: id(n), host: id(host), at: at(ms) };
    assert_eq!(handovers::done(&mut tx, handed_over(10, 8, 600)).await.unwrap(), None, "of another device");
    assert!(handovers::done(&mut tx, handed_over(10, 7, 600)).await.unwrap().is_some());
    assert_eq!(catch_up(&mut tx, 3_600).await, 1);
    assert!(handovers::done(&mut tx, handed_over(11, 7, 5_000)).await.unwrap().is_some());
    assert_eq!(handovers::done(&mut tx, handed_over(11, 7, 6_000)).await.unwrap(), None, "once");
    let all = [(0, "booked"), (0, "booked"), (500, "preparing"), (500, "preparing")];
    let begin = [(600, "active"), (600, "delayed"), (5_000, "active")];
    let all: Vec<(i64, &str)> = all.into_iter().chain(begin).collect();
    assert_eq!(told(&mut tx).await, expected(&all));
}

#[tokio::test]
async fn a_handover_by_a_clock_that_was_ahead_is_taken_back() {
    let (store, _dir, booking) = shop().await;
    let mut tx = store.begin().await.unwrap();
    let mut gated = rental(10, booking, None, None);
    gated.life.handover = Handover::Awaited;
    gated.life.window = Window::new(at(100_000), at(200_000)).unwrap();
    super::insert(&mut tx, &gated).await.unwrap();
    let handover = HandedOver { rental: id(10), host: id(7), at: at(150_000) };
    assert!(handovers::done(&mut tx, handover).await.unwrap().is_some());
    let small = announcements::announce(&mut tx, at(149_000)).await.unwrap();
    assert!(small.shut.is_empty(), "an adjustment");
    let set_back = announcements::announce(&mut tx, at(1_000)).await.unwrap();
    assert_eq!((set_back.events, set_back.shut), (1, [id(10)].into()));
    let found = super::find(&mut tx, id(10)).await.unwrap().unwrap();
    assert_eq!(found.life.handover, Handover::Awaited);
    catch_up(&mut tx, 199_000).await;
    let last = told(&mut tx).await.pop().unwrap();
    assert_eq!(last, (100_000, "delayed".to_owned()), "its time alone brings nothing");
    let again = HandedOver { at: at(160_000), ..handover };
    assert!(handovers::done(&mut tx, again).await.unwrap().is_some());
}

#[tokio::test]
async fn a_change_of_a_rental_keeps_no_handover_by_a_clock_that_was_ahead() {
    let (store, _dir, booking) = shop().await;
    let mut tx = store.begin().await.unwrap();
    let mut gated = rental(10, booking, None, None);
    gated.life.handover = Handover::Awaited;
    gated.life.window = Window::new(at(100_000), at(200_000)).unwrap();
    super::insert(&mut tx, &gated).await.unwrap();
    let handover = HandedOver { rental: id(10), host: id(7), at: at(150_000) };
    handovers::done(&mut tx, handover).await.unwrap();
    for (now, expected) in
        [(140_000, Handover::Done(at(150_000))), (1_000, Handover::Awaited), (160_000, Handover::Awaited)]
    {
        let named = super::Rental { name: format!("at {now}"), ..found(&mut tx).await };
        super::update(&mut tx, &named, at(now)).await.unwrap();
        assert_eq!(found(&mut tx).await.life.handover, expected, "{now}");
    }
}

#[tokio::test]
async fn a_gate_that_cannot_be_read_holds_up_no_other() {
    let (store, _dir, booking) = shop().await;
    let mut tx = store.begin().await.unwrap();
    for (n, device) in [(10, 7), (11, 8)] {
        let mut gated = rental(n, booking, None, None);
        (gated.device, gated.life.handover) = (id(device), Handover::Awaited);
        super::insert(&mut tx, &gated).await.unwrap();
    }
    let damage = [
        "insert into device_rental_settings (device, rentable, preparation_ms, turnaround_ms, gate_ms, gate_services)
         values (7, 1, 0, 0, 1, 'damaged')",
        "update rentals set end_reason = 'damaged', ended_at = 700 where id = 10",
    ];
    sqlx::query(damage[0]).execute(&mut *tx).await.unwrap();
    let open = handovers::open(&mut tx, at(0)).await.unwrap();
    assert_eq!(open.iter().map(|spec| spec.rental).collect::<Vec<_>>(), [id(11)]);
    let these = handovers::these(&mut tx, &[id(10), id(11)].into()).await.unwrap();
    assert_eq!(these.into_keys().collect::<Vec<_>>(), [id(11)]);
    sqlx::query(damage[1]).execute(&mut *tx).await.unwrap();
    let handover = HandedOver { rental: id(10), host: id(7), at: at(650) };
    assert_eq!(handovers::done(&mut tx, handover).await.unwrap(), None);
}

#[tokio::test]
async fn what_a_gate_keeps_shut_to_the_end_has_failed() {
    let (store, _dir, booking) = shop().await;
    let mut tx = store.begin().await.unwrap();
    let mut gated = rental(10, booking, None, None);
    gated.life.handover = Handover::Awaited;
    super::insert(&mut tx, &gated).await.unwrap();
    catch_up(&mut tx, 9_000).await;
    let all = [(0, "booked"), (500, "preparing"), (600, "delayed"), (1_200, "failed")];
    assert_eq!(told(&mut tx).await, expected(&all));
    let failed = events_of(&mut tx).await.pop().unwrap();
    assert!(failed.data.contains(r#""reason":"failed""#), "{}", failed.data);
}

#[tokio::test]
async fn a_call_announces_what_came_before_it_first() {
    let (store, _dir, booking) = shop().await;
    let mut tx = store.begin().await.unwrap();
    let before = rental(10, booking, None, None);
    super::insert(&mut tx, &before).await.unwrap();
    let swapped = super::Rental { device: id(8), device_name: "spare".into(), ..before.clone() };
    super::update(&mut tx, &swapped, at(650)).await.unwrap();
    let ending = Some(Ending { at: at(700), reason: EndReason::ReturnedEarly });
    let ended = super::Rental { life: Life { ending, ..swapped.life }, ..swapped };
    super::update(&mut tx, &ended, at(700)).await.unwrap();
    catch_up(&mut tx, 9_000).await;
    let begin = [(0, "booked"), (500, "preparing"), (600, "active"), (650, "swapped")];
    let end = [(700, "ended"), (700, "cleaning"), (750, "closed")];
    let all: Vec<(i64, &str)> = begin.into_iter().chain(end).collect();
    assert_eq!(told(&mut tx).await, expected(&all));
    let rows = events_of(&mut tx).await;
    let versions: Vec<i64> = rows.iter().map(|event| event.version).collect();
    assert_eq!(versions, [1, 1, 1, 2, 3, 3, 3]);
    assert!(rows[3].data.contains("previous_device") && !rows[2].data.contains("previous_device"));
    assert!(rows[4].data.contains(r#""reason":"returned_early""#), "{}", rows[4].data);
}

#[tokio::test]
async fn a_hold_lapses_at_its_own_time_also_when_that_was_stored_before() {
    for stored_first in [true, false] {
        let (store, _dir) = fixture::store().await;
        fixture::device(&store, 7, "cam").await;
        let booking = booking(&store, Some(at(550))).await;
        let mut tx = store.begin().await.unwrap();
        super::insert(&mut tx, &rental(10, booking, Some(at(550)), None)).await.unwrap();
        if stored_first {
            bookings::lapse(&mut tx, at(900)).await.unwrap();
        }
        catch_up(&mut tx, 900).await;
        bookings::lapse(&mut tx, at(900)).await.unwrap();
        catch_up(&mut tx, 5_000).await;
        assert_eq!(told(&mut tx).await, expected(&[(0, "held"), (550, "cancelled")]), "{stored_first}");
        assert!(events_of(&mut tx).await[1].data.contains(r#""reason":"lapsed""#));
        let changes = changes::of(&mut tx, id(10), 9).await.unwrap();
        assert_eq!(changes.iter().map(|c| (c.at, c.what)).collect::<Vec<_>>(), [(at(550), What::Lapsed)]);
    }
}

#[tokio::test]
async fn a_confirmation_begins_what_would_have_begun() {
    let (store, _dir) = fixture::store().await;
    fixture::device(&store, 7, "cam").await;
    let held = booking(&store, Some(at(580))).await;
    let mut tx = store.begin().await.unwrap();
    super::insert(&mut tx, &rental(10, held, Some(at(580)), None)).await.unwrap();
    let found = bookings::find(&mut tx, &Named::Id(held)).await.unwrap().unwrap();
    let longer = bookings::Booking { hold_until: Some(at(590)), ..found };
    bookings::update(&mut tx, &longer, at(300)).await.unwrap();
    let confirmed = bookings::Booking { hold_until: None, ..longer };
    bookings::update(&mut tx, &confirmed, at(520)).await.unwrap();
    catch_up(&mut tx, 600).await;
    let all = [(0, "held"), (300, "changed"), (520, "confirmed"), (520, "preparing"), (600, "active")];
    assert_eq!(told(&mut tx).await, expected(&all));
    let rows = events_of(&mut tx).await;
    assert!(rows[1].data.contains("hold_until") && !rows[2].data.contains("hold_until"), "{rows:?}");
}

/// Forwards something for rental 10. Returns how many events it has brought, and whether the rental is cut now.
async fn forwarded(tx: &mut Tx, bytes: u64, now: i64) -> (usize, bool) {
    allowances::add(tx, id(10), bytes).await.unwrap();
    let crossed = allowances::cross(tx, id(10), at(now)).await.unwrap();
    (crossed.events, crossed.cut.contains(&id(10)))
}

async fn found(tx: &mut Tx) -> super::Rental {
    super::find(tx, id(10)).await.unwrap().unwrap()
}

#[tokio::test]
async fn each_level_of_an_allowance_is_announced_once_and_those_of_another_one_anew() {
    let (store, _dir, booking) = shop().await;
    let mut tx = store.begin().await.unwrap();
    let of = |bytes| Some(Allowance { bytes, cuts: true });
    let rental = super::Rental { allowance: of(1_000), ..rental(10, booking, None, None) };
    super::insert(&mut tx, &rental).await.unwrap();
    assert_eq!(forwarded(&mut tx, 799, 610).await, (0, false));
    assert_eq!(forwarded(&mut tx, 1, 620).await, (1, false), "80 %");
    assert_eq!(forwarded(&mut tx, 100, 630).await, (0, false));
    assert_eq!(forwarded(&mut tx, 100, 640).await, (1, true), "all of it");
    assert_eq!(forwarded(&mut tx, 500, 650).await, (0, false), "what was on its way");
    let used = found(&mut tx).await;
    assert_eq!((used.forwarded_bytes, used.is_cut(), used.version), (1_500, true, 1));
    super::update(&mut tx, &super::Rental { allowance: of(1_800), ..used }, at(660)).await.unwrap();
    let larger = found(&mut tx).await;
    assert_eq!((larger.allowance_level, larger.is_cut()), (Level::Nearly, false));
    assert_eq!(forwarded(&mut tx, 300, 670).await, (1, true));
    let unlimited = super::Rental { allowance: None, ..found(&mut tx).await };
    super::update(&mut tx, &unlimited, at(680)).await.unwrap();
    assert_eq!(forwarded(&mut tx, 9_000, 690).await, (0, false));
    assert!(!found(&mut tx).await.is_cut());
    let begin = [(0, "booked"), (500, "preparing"), (600, "active")];
    let first = [(620, "allowance_80"), (640, "allowance_reached")];
    let other = [(660, "changed"), (660, "allowance_80"), (670, "allowance_reached"), (680, "changed")];
    let all: Vec<(i64, &str)> = begin.into_iter().chain(first).chain(other).collect();
    assert_eq!(told(&mut tx).await, expected(&all));
    let rows = events_of(&mut tx).await;
    let says = |row: &EventRow, words: &str| assert!(row.data.contains(words), "{}", row.data);
    says(&rows[3], r#""allowance_bytes":1000"#);
    says(&rows[3], r#""forwarded_bytes":800"#);
    says(&rows[6], r#""allowance_bytes":1800"#);
    assert!(!rows[5].data.contains("forwarded_bytes"), "{}", rows[5].data);
}

#[tokio::test]
async fn both_levels_come_together_in_their_order_and_only_those_that_are_due_are_read() {
    let (store, _dir, booking) = shop().await;
    let mut tx = store.begin().await.unwrap();
    for n in [10, 11] {
        super::insert(&mut tx, &rental(n, booking, None, None)).await.unwrap();
    }
    allowances::add(&mut tx, id(10), 1_200).await.unwrap();
    allowances::add(&mut tx, id(11), 700).await.unwrap();
    tx.commit().await.unwrap();
    let crossed = store.cross_allowances(at(0)).await.unwrap();
    assert_eq!((crossed.events, crossed.cut.len(), crossed.more), (2, 0, false), "it does not ask for a cut");
    assert_eq!(store.cross_allowances(at(1)).await.unwrap(), allowances::Crossed::default());
    let kinds: Vec<String> =
        told(&mut store.begin().await.unwrap()).await.into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds, ["booked", "booked", "allowance_80", "allowance_reached"]);
}

/// A rental that begins at this second and lasts a minute.
fn later(n: i64, booking: Id, second: i64) -> super::Rental {
    let before = rental(n, booking, None, None);
    let (from, until) = (at(second * 1_000), at((second + 60) * 1_000));
    let window = Window::new(from, until).unwrap();
    super::Rental { life: Life { window, prepared_from: from, ..before.life }, ..before }
}

#[tokio::test]
async fn many_rentals_are_announced_in_the_order_of_time() {
    let (store, _dir, booking) = shop().await;
    let mut tx = store.begin().await.unwrap();
    for n in 0..250 {
        super::insert(&mut tx, &later(10 + n, booking, 100 + (n * 37) % 250)).await.unwrap();
    }
    // Active, ended, cleaning and closed.
    assert_eq!(catch_up(&mut tx, 1_000_000).await, 1_000);
    let times: Vec<i64> = told(&mut tx).await.into_iter().map(|(at, _)| at).collect();
    assert!(times.is_sorted(), "{times:?}");
    for n in 0..250 {
        let wanted = events::Filter { rental: Some(id(10 + n)), customer: Some(id(1)) };
        let own = events::list(&mut tx, wanted, (0, i64::MAX), 10).await.unwrap();
        let kinds: Vec<&str> = own.iter().map(|event| event.kind.as_str()).collect();
        assert_eq!(
            kinds,
            ["rental.booked", "rental.active", "rental.ended", "rental.cleaning", "rental.closed"]
        );
    }
    let nobody = events::Filter { customer: Some(id(99)), ..events::Filter::default() };
    assert!(events::list(&mut tx, nobody, (0, i64::MAX), 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_clock_that_was_ahead_is_taken_back_and_what_comes_is_announced_again() {
    let (store, _dir, booking) = shop().await;
    let mut tx = store.begin().await.unwrap();
    super::insert(&mut tx, &later(10, booking, 600)).await.unwrap();
    assert_eq!(catch_up(&mut tx, 600_000).await, 1);
    assert_eq!(catch_up(&mut tx, 599_000).await, 0, "an adjusted clock");
    assert_eq!(catch_up(&mut tx, 100_000).await, 1);
    assert_eq!(catch_up(&mut tx, 100_000).await, 0);
    assert_eq!(catch_up(&mut tx, 600_000).await, 1);
    let all = [(0, "booked"), (600_000, "active"), (100_000, "changed"), (600_000, "active")];
    assert_eq!(told(&mut tx).await, expected(&all));
    assert!(events_of(&mut tx).await[2].data.contains(r#""state":"booked""#));
}

#[tokio::test]
async fn what_a_clock_ahead_has_let_lapse_is_confirmed_with_an_event() {
    let (store, _dir) = fixture::store().await;
    fixture::device(&store, 7, "cam").await;
    let held = booking(&store, Some(at(580))).await;
    let mut tx = store.begin().await.unwrap();
    super::insert(&mut tx, &rental(10, held, Some(at(580)), None)).await.unwrap();
    assert_eq!(catch_up(&mut tx, 590).await, 1);
    let found = bookings::find(&mut tx, &Named::Id(held)).await.unwrap().unwrap();
    bookings::update(&mut tx, &bookings::Booking { hold_until: None, ..found }, at(300)).await.unwrap();
    assert_eq!(catch_up(&mut tx, 500).await, 1);
    let all = [(0, "held"), (580, "cancelled"), (300, "confirmed"), (500, "preparing")];
    assert_eq!(told(&mut tx).await, expected(&all));
}

/// A hold of a device that can be booked, from 600 s on. It lapses at 500 s.
async fn held(store: &Store) -> super::Rental {
    fixture::device(store, 7, "cam").await;
    let settings = "insert into device_rental_settings (device, rentable, preparation_ms, turnaround_ms)
                    values (7, 1, 0, 0)";
    fixture::run(store, settings, &[]).await;
    let booking = booking(store, Some(at(500_000))).await;
    let before = later(10, booking, 600);
    let life = Life { hold_until: Some(at(500_000)), ..before.life };
    // With SSH it would wait for the access on the device.
    let held = super::Rental { life, ssh: false, ..before };
    let mut tx = store.begin().await.unwrap();
    super::insert(&mut tx, &held).await.unwrap();
    occupy(&mut tx, &held).await;
    tx.commit().await.unwrap();
    held
}

async fn occupy(tx: &mut Tx, rental: &super::Rental) {
    let until = rental.life.window.until() + rental.life.turnaround;
    let occupied = Occupancy { from: rental.life.prepared_from, until: Some(until) };
    occupancies::insert(tx, rental.device, Source::Rental(rental.id), occupied).await.unwrap();
}

async fn occupied_by(tx: &mut Tx, now: i64) -> Vec<Source> {
    let taken = occupancies::of_devices(tx, &[id(7)], at(now)).await.unwrap();
    taken.values().flatten().map(|taken| taken.source).collect()
}

#[tokio::test]
async fn a_hold_that_lapsed_by_a_clock_ahead_comes_back_when_the_clock_is_set_back() {
    let (store, _dir) = fixture::store().await;
    let held = held(&store).await;
    let mut tx = store.begin().await.unwrap();
    // The step is looked at within a minute, and doubted for longer.
    assert_eq!(bookings::lapse(&mut tx, at(4_000_000)).await.unwrap(), [held.booking]);
    assert!(occupied_by(&mut tx, 4_000_000).await.is_empty());
    assert_eq!(catch_up(&mut tx, 470_000).await, 0, "an adjusted clock");
    assert_eq!(catch_up(&mut tx, 400_000).await, 1);
    assert_eq!(super::find(&mut tx, held.id).await.unwrap().unwrap().life, held.life);
    assert_eq!(occupied_by(&mut tx, 400_000).await, [Source::Rental(held.id)]);
    assert!(changes::of(&mut tx, held.id, 9).await.unwrap().is_empty(), "it did not lapse");
    assert_eq!(catch_up(&mut tx, 400_000).await, 0);
    assert!(bookings::lapse(&mut tx, at(499_999)).await.unwrap().is_empty());
    assert_eq!(bookings::lapse(&mut tx, at(500_000)).await.unwrap(), [held.booking]);
    let all = [(0, "held"), (500_000, "cancelled"), (400_000, "changed"), (500_000, "cancelled")];
    assert_eq!(told(&mut tx).await, expected(&all));
    assert!(events_of(&mut tx).await[2].data.contains(r#""state":"held""#));
    tx.commit().await.unwrap();
    let noted = "select kind || ' ' || principal from events where kind like 'booking.%' order by seq";
    let noted = fixture::texts(&store, noted).await;
    assert_eq!(noted, ["booking.lapsed system", "booking.changed system", "booking.lapsed system"]);
}

#[tokio::test]
async fn a_hold_does_not_come_back_where_another_rental_was_booked() {
    let (store, _dir) = fixture::store().await;
    let held = held(&store).await;
    let mut tx = store.begin().await.unwrap();
    bookings::lapse(&mut tx, at(4_000_000)).await.unwrap();
    let other = "insert into bookings (id, customer, author, created_at) values (3, 1, 'test', 0)";
    sqlx::query(other).execute(&mut *tx).await.unwrap();
    let other = later(11, id(3), 650);
    super::insert(&mut tx, &other).await.unwrap();
    occupy(&mut tx, &other).await;
    assert_eq!(catch_up(&mut tx, 400_000).await, 0);
    let lapsed = super::find(&mut tx, held.id).await.unwrap().unwrap().life.ending;
    assert_eq!(lapsed, Some(Ending { at: at(500_000), reason: EndReason::Lapsed }));
    assert_eq!(occupied_by(&mut tx, 400_000).await, [Source::Rental(other.id)]);
}

#[tokio::test]
async fn the_final_report_of_a_rental_that_goes_on_was_made_by_a_clock_ahead_and_is_made_again() {
    let (store, _dir, booking) = shop().await;
    let mut tx = store.begin().await.unwrap();
    super::insert(&mut tx, &later(10, booking, 600)).await.unwrap();
    catch_up(&mut tx, 9_000_000).await;
    let report = reports::Frozen { report: "{}".into(), sha256: vec![1], at: at(9_000_000) };
    reports::insert(&mut tx, id(10), &report).await.unwrap();
    assert!(reports::due(&mut tx, at(9_000_000), 9).await.unwrap().is_empty());
    catch_up(&mut tx, 5_000_000).await;
    assert!(reports::find(&mut tx, id(10)).await.unwrap().is_some(), "it is over by this clock, too");
    catch_up(&mut tx, 100_000).await;
    assert_eq!(reports::find(&mut tx, id(10)).await.unwrap(), None);
    assert_eq!(reports::due(&mut tx, at(9_000_000), 9).await.unwrap(), [id(10)]);
}

#[tokio::test]
async fn a_block_that_ends_by_the_time_is_announced_to_the_open_rentals_that_it_covered() {
    let (store, _dir, booking) = shop().await;
    let mut tx = store.begin().await.unwrap();
    for (n, second) in [(10, 600), (11, 700), (12, 900)] {
        let rental = later(n, booking, second);
        super::insert(&mut tx, &rental).await.unwrap();
        occupy(&mut tx, &rental).await;
    }
    let block = blocks::Block {
        id: id(30),
        device: id(7),
        device_name: "cam".into(),
        from: at(620_000),
        until: Some(at(740_000)),
        reason: "a new battery".into(),
        author: "test".into(),
        created_at: at(0),
        ended: None,
    };
    blocks::insert(&mut tx, &block).await.unwrap();
    announcements::blocked(&mut tx, &block, at(1_000)).await.unwrap();
    catch_up(&mut tx, 800_000).await;
    catch_up(&mut tx, 800_000).await;
    // The clock was ahead.
    catch_up(&mut tx, 650_000).await;
    catch_up(&mut tx, 650_000).await;
    catch_up(&mut tx, 800_000).await;
    let of_block: Vec<(i64, i64, String)> = events_of(&mut tx)
        .await
        .into_iter()
        .filter(|event| event.kind.contains("blocked"))
        .map(|event| (event.rental.as_i64(), event.at.as_millis(), event.kind.replace("rental.", "")))
        .collect();
    let expected = [
        (10, 1_000, "blocked"),
        (11, 1_000, "blocked"),
        (11, 740_000, "unblocked"),
        (10, 650_000, "blocked"),
        (11, 650_000, "blocked"),
        (11, 740_000, "unblocked"),
    ];
    let expected = expected.map(|(rental, at, kind)| (rental, at, kind.to_owned()));
    assert_eq!(
        of_block, expected,
        "the first one is over by its end, unless the clock is set back to before it"
    );
    let last = events_of(&mut tx).await.into_iter().rfind(|event| event.kind == "rental.unblocked").unwrap();
    assert!(last.data.contains(r#""state":"active""#) && !last.data.contains("battery"), "{}", last.data);
}

#[tokio::test]
async fn a_block_that_began_when_it_was_made_does_not_wait_for_a_clock_that_was_ahead() {
    let (store, _dir, booking) = shop().await;
    let mut tx = store.begin().await.unwrap();
    let mut rental = rental(10, booking, None, None);
    rental.life.handover = Handover::Awaited;
    super::insert(&mut tx, &rental).await.unwrap();
    let block = |n, from, created_at| blocks::Block {
        id: id(n),
        device: id(7),
        device_name: "cam".into(),
        from: at(from),
        until: Some(at(9_000)),
        reason: "a new battery".into(),
        author: "test".into(),
        created_at: at(created_at),
        ended: None,
    };
    let planned = [block(30, 700, 100), block(31, 5_000, 100)];
    for block in &planned {
        blocks::insert(&mut tx, block).await.unwrap();
    }
    let begins = handovers::of_device(&mut tx, id(7), Delivery::Mounted, at(600)).await.unwrap();
    assert_eq!(begins, Handover::AtBegin, "no block has begun then");
    blocks::insert(&mut tx, &block(32, 5_000, 5_000)).await.unwrap();
    let begins = handovers::of_device(&mut tx, id(7), Delivery::Mounted, at(600)).await.unwrap();
    assert_eq!(begins, Handover::Awaited);
    let spec = handovers::these(&mut tx, &[id(10)].into()).await.unwrap().remove(&id(10)).unwrap();
    assert_eq!(spec.blocks, [(at(700), at(9_000)), (at(0), at(9_000))]);
    assert_eq!(blocks::since(&mut tx, id(7), at(699)).await.unwrap(), None);
    assert_eq!(blocks::since(&mut tx, id(7), at(5_000)).await.unwrap(), Some(at(700)));
}

#[tokio::test]
async fn of_a_rental_of_an_earlier_version_only_what_comes_is_announced() {
    let (store, _dir, booking) = shop().await;
    let mut tx = store.begin().await.unwrap();
    super::insert(&mut tx, &rental(10, booking, None, None)).await.unwrap();
    for sql in [
        "delete from rental_events",
        "update rentals set announced_at = null, announced_state = null, announce_at = 0",
    ] {
        sqlx::query(sql).execute(&mut *tx).await.unwrap();
    }
    assert_eq!(catch_up(&mut tx, 700).await, 0);
    assert_eq!(catch_up(&mut tx, 1_200).await, 2);
    assert_eq!(told(&mut tx).await, expected(&[(1_200, "ended"), (1_200, "cleaning")]));
}

#[tokio::test]
async fn a_rental_that_cannot_be_read_holds_up_no_other() {
    let (store, _dir, booking) = shop().await;
    let mut tx = store.begin().await.unwrap();
    for n in [10, 11] {
        super::insert(&mut tx, &rental(n, booking, None, None)).await.unwrap();
    }
    sqlx::query("update rentals set until_at = 0 where id = 10").execute(&mut *tx).await.unwrap();
    assert_eq!(catch_up(&mut tx, 600).await, 2);
    let rentals: Vec<Id> = events_of(&mut tx).await.iter().skip(2).map(|event| event.rental).collect();
    assert_eq!(rentals, [id(11), id(11)]);
    assert_eq!(catch_up(&mut tx, 1_250).await, 3);
}

#[tokio::test]
async fn old_events_go_from_the_front_and_the_newest_stays() {
    let (store, _dir, booking) = shop().await;
    let mut tx = store.begin().await.unwrap();
    assert_eq!(events::bounds(&mut tx).await.unwrap(), (1, 0));
    super::insert(&mut tx, &rental(10, booking, None, None)).await.unwrap();
    catch_up(&mut tx, 5_000).await;
    assert_eq!(events::bounds(&mut tx).await.unwrap(), (1, 6));
    for (before, gone, bounds) in [(0, 0, (1, 6)), (600, 2, (3, 6)), (9_000, 3, (6, 6)), (9_000, 0, (6, 6))] {
        assert_eq!(events::prune(&mut tx, at(before) + events::KEPT).await.unwrap(), gone, "{before}");
        assert_eq!(events::bounds(&mut tx).await.unwrap(), bounds, "{before}");
    }
}

#[tokio::test]
async fn an_event_of_a_clock_that_was_ahead_goes_with_the_old_ones_and_keeps_none() {
    let (store, _dir, booking) = shop().await;
    let mut tx = store.begin().await.unwrap();
    super::insert(&mut tx, &later(10, booking, 1_000)).await.unwrap();
    catch_up(&mut tx, 1_000_000).await;
    catch_up(&mut tx, 100_000).await;
    catch_up(&mut tx, 1_200_000).await;
    let wrong = "update rental_events set at = 9000000000000 where seq in (1, 2)";
    sqlx::query(wrong).execute(&mut *tx).await.unwrap();
    let times: Vec<i64> = told(&mut tx).await.into_iter().map(|(at, _)| at).collect();
    assert_eq!(times[2..4], [100_000, 1_000_000]);
    for (before, gone, first) in [(100_000, 0, 1), (100_001, 3, 4), (1_000_001, 1, 5)] {
        assert_eq!(events::prune(&mut tx, at(before) + events::KEPT).await.unwrap(), gone, "{before}");
        assert_eq!(events::bounds(&mut tx).await.unwrap().0, first, "{before}");
    }
}
