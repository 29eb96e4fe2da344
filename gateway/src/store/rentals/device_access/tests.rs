//! What is stored of the SSH access and the cleaning of devices.

use super::*;
use crate::store::rentals::{customers, devices as settings, handovers, renters, terms};
use crate::store::{Store, fixture};

fn id(n: i64) -> Id {
    Id::from_i64(n)
}

fn at(second: i64) -> Wall {
    Wall::from_millis(second * 1_000)
}

/// A device with an account for renters, three renters of two people, and two rentals.
async fn site() -> (Store, tempfile::TempDir) {
    let (store, dir) = fixture::store().await;
    fixture::device(&store, 7, "cam").await;
    for sql in [
        "insert into customers (id, created_at) values (1, 0)",
        "insert into people (id, customer, created_at, removed_at) values (5, 1, 0, null), (6, 1, 0, 9)",
        "insert into peers (id, kind, created_at) values (21, 'renter', 0), (22, 'renter', 0), (23, 'renter', 0)",
        "insert into renters (id, person, created_at, ssh_keys)
         values (21, 5, 0, '[\"A\",\"B\"]'), (22, 5, 0, '[\"C\",\"A\"]'), (23, 6, 0, '[\"D\"]')",
        "insert into bookings (id, customer, author, created_at) values (2, 1, '', 0)",
        "insert into rentals (id, booking, device, from_at, until_at, prepared_from, preparation_ms, turnaround_ms,
                              created_at, ssh, admits)
         values (10, 2, 7, 1000000, 2000000, 1000000, 0, 0, 0, 1, null),
                (11, 2, 7, 3000000, 4000000, 3000000, 0, 0, 0, 1, '[22]'),
                (12, 2, 7, 5000000, 6000000, 5000000, 0, 0, 0, 0, null)",
        "insert into device_rental_settings (device, rentable, preparation_ms, turnaround_ms, ssh_account, ssh_root)
         values (7, 1, 0, 0, 'renter', 1)",
    ] {
        fixture::run(&store, sql, &[]).await;
    }
    (store, dir)
}

#[tokio::test]
async fn a_device_gets_the_keys_of_the_renters_that_a_rental_admits() {
    let (store, _dir) = site().await;
    let mut conn = store.reader().await.unwrap();
    let of = rented(&mut conn, (at(1_500), at(5_000))).await.unwrap().remove(&id(7)).unwrap();
    let keys: Vec<(Id, bool, String)> =
        of.iter().map(|rental| (rental.rental, rental.ssh, rental.keys.concat())).collect();
    let expected =
        [(id(10), true, "ABC".to_owned()), (id(11), true, "AC".to_owned()), (id(12), false, String::new())];
    assert_eq!(keys, expected);
    let later = rented(&mut conn, (at(2_000), at(2_999))).await.unwrap();
    assert_eq!(later.get(&id(7)), None);
}

#[tokio::test]
async fn the_keys_of_a_customer_who_is_erased_are_not_kept_and_their_removal_stays() {
    let (store, _dir) = site().await;
    let access = Access { rental: id(10), until: at(2_000), mode: Mode::Keys, keys: vec!["A".to_owned()] };
    let mut tx = store.begin().await.unwrap();
    granting(&mut tx, id(7), id(10)).await.unwrap();
    granted_now(&mut tx, id(7), &access).await.unwrap();
    customers::erase(&mut tx, id(1), at(9)).await.unwrap();
    let kept = of_device(&mut tx, id(7)).await.unwrap().unwrap();
    assert_eq!(kept.state.held, Some(Held { rental: id(10), access: None }));
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn the_keys_of_a_renter_who_is_removed_are_not_kept_and_those_of_others_are() {
    let (store, _dir) = site().await;
    let access = Access { rental: id(10), until: at(2_000), mode: Mode::Keys, keys: vec!["C".to_owned()] };
    let mut tx = store.begin().await.unwrap();
    granting(&mut tx, id(7), id(10)).await.unwrap();
    granted_now(&mut tx, id(7), &access).await.unwrap();
    renters::remove(&mut tx, id(23), at(9)).await.unwrap();
    let held = of_device(&mut tx, id(7)).await.unwrap().unwrap().state.held;
    assert_eq!(held, Some(Held { rental: id(10), access: Some(access) }));
    renters::remove(&mut tx, id(22), at(9)).await.unwrap();
    let held = of_device(&mut tx, id(7)).await.unwrap().unwrap().state.held;
    assert_eq!(held, Some(Held { rental: id(10), access: None }), "it is granted anew");
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_device_that_was_replaced_is_asked_and_given_access_anew() {
    let (store, _dir) = site().await;
    let access = Access { rental: id(10), until: at(2_000), mode: Mode::Certificates, keys: Vec::new() };
    let mut tx = store.begin().await.unwrap();
    asked(&mut tx, id(7), ("renter", Mode::Certificates)).await.unwrap();
    granting(&mut tx, id(7), id(10)).await.unwrap();
    granted_now(&mut tx, id(7), &access).await.unwrap();
    replaced(&mut tx, id(7)).await.unwrap();
    let state = of_device(&mut tx, id(7)).await.unwrap().unwrap().state;
    assert_eq!((state.mode, state.held), (None, Some(Held { rental: id(10), access: None })));
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn what_a_device_has_is_kept_until_it_is_removed_and_its_keys_are_new() {
    let (store, _dir) = site().await;
    let state = async || of_device(&mut store.reader().await.unwrap(), id(7)).await.unwrap().unwrap();
    let access = Access { rental: id(10), until: at(2_000), mode: Mode::Keys, keys: vec!["A".to_owned()] };
    let mut tx = store.begin().await.unwrap();
    granting(&mut tx, id(7), id(10)).await.unwrap();
    assert!(failed(&mut tx, id(7), "no route").await.unwrap());
    assert!(!failed(&mut tx, id(7), "no route").await.unwrap());
    tx.commit().await.unwrap();
    let begun = state().await;
    assert_eq!(begun.state.held, Some(Held { rental: id(10), access: None }));
    assert_eq!(begun.failure.as_deref(), Some("no route"));
    let mut tx = store.begin().await.unwrap();
    granted_now(&mut tx, id(7), &access).await.unwrap();
    granting(&mut tx, id(7), id(10)).await.unwrap();
    asked(&mut tx, id(7), ("another", Mode::Keys)).await.unwrap();
    tx.commit().await.unwrap();
    let granted = state().await;
    assert_eq!(granted.state.held, Some(Held { rental: id(10), access: Some(access) }));
    assert_eq!((granted.failure, granted.state.mode), (None, None));
    let mut tx = store.begin().await.unwrap();
    revoked(&mut tx, id(7), Some(id(11))).await.unwrap();
    revoked(&mut tx, id(7), Some(id(10))).await.unwrap();
    asked(&mut tx, id(7), ("renter", Mode::Keys)).await.unwrap();
    tx.commit().await.unwrap();
    let removed = state().await.state;
    assert_eq!((removed.held, removed.mode, removed.is_exposed), (None, Some(Mode::Keys), true));
    fixture::run(&store, "update peer_keys set retired_at = 1 where peer = 7", &[]).await;
    assert!(!state().await.state.is_exposed);
}

#[tokio::test]
async fn another_word_of_its_profile_does_not_make_the_keys_of_a_device_secret_again() {
    let (store, _dir) = site().await;
    let root = async |root: &'static str| fixture::run(&store, root, &[]).await;
    let is_exposed = async || {
        let found = of_device(&mut store.reader().await.unwrap(), id(7)).await.unwrap().unwrap();
        found.state.is_exposed
    };
    let rent = async |rental: Id| {
        let mut tx = store.begin().await.unwrap();
        granting(&mut tx, id(7), rental).await.unwrap();
        tx.commit().await.unwrap();
    };
    let end = async |rental: Id| {
        let mut tx = store.begin().await.unwrap();
        revoked(&mut tx, id(7), Some(rental)).await.unwrap();
        tx.commit().await.unwrap();
    };
    rent(id(10)).await;
    root("update device_rental_settings set ssh_root = 0").await;
    rent(id(10)).await;
    assert!(!is_exposed().await, "the renter has it yet");
    end(id(10)).await;
    assert!(is_exposed().await, "its renters could become root");
    rent(id(11)).await;
    end(id(11)).await;
    assert!(is_exposed().await, "those of the next rental could not, and the keys are the same");
    let mut tx = store.begin().await.unwrap();
    never_rooted(&mut tx, id(7)).await.unwrap();
    tx.commit().await.unwrap();
    assert!(!is_exposed().await);
    rent(id(11)).await;
    end(id(11)).await;
    assert!(!is_exposed().await, "it never could");
}

#[tokio::test]
async fn what_a_profile_says_during_a_part_of_a_rental_is_known_at_its_end() {
    let (store, _dir) = site().await;
    let without = "update device_rental_settings set ssh_root = 0, inherited = '[\"ssh_root\"]'";
    fixture::run(&store, without, &[]).await;
    let mut tx = store.begin().await.unwrap();
    granting(&mut tx, id(7), id(10)).await.unwrap();
    tx.commit().await.unwrap();
    fixture::run(&store, "update device_rental_settings set ssh_root = 1", &[]).await;
    let mut tx = store.begin().await.unwrap();
    terms::settle(&mut tx, &[id(7)].into(), at(9)).await.unwrap();
    assert!(!settings::settings(&mut tx, id(7)).await.unwrap().ssh_root, "no profile says it any more");
    revoked(&mut tx, id(7), Some(id(10))).await.unwrap();
    assert!(of_device(&mut tx, id(7)).await.unwrap().unwrap().state.is_exposed);
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_device_that_was_dispatched_is_lent_until_its_rental_is_over_and_it_is_back() {
    let (store, _dir) = site().await;
    let lent = async |change: &'static str| {
        fixture::run(&store, change, &[]).await;
        let found = of_device(&mut store.reader().await.unwrap(), id(7)).await.unwrap().unwrap();
        found.state.lent_until
    };
    let sent = "update rentals set shipped = 1, dispatched_at = 900000 where id = 10";
    assert_eq!(lent(sent).await, Some(at(2_000)));
    assert_eq!(lent("update rentals set ended_at = 1500000 where id = 10").await, Some(at(1_500)));
    let used = "insert into device_ssh_access (device, used_by, failure) values (7, 10, 'no route')";
    fixture::run(&store, used, &[]).await;
    assert_eq!(lent("update device_rental_settings set cleaning_command = 'wipe'").await, Some(at(1_500)));
    let why = async || {
        let mut conn = store.reader().await.unwrap();
        let found = handovers::obstacle_of(&mut conn, id(7), None, at(1_500)).await.unwrap();
        found.and_then(|(_, why)| why)
    };
    assert_eq!(why().await.as_deref(), Some("the device has not come back"));
    assert_eq!(lent("update rentals set returned_at = 1600000 where id = 10").await, None);
    assert_eq!(why().await.as_deref(), Some("no route"));
}
