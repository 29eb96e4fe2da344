use super::*;
use crate::store::fixture::{self, Dice};

fn at(ms: i64) -> Wall {
    Wall::from_millis(ms)
}

fn id(n: i64) -> Id {
    Id::from_i64(n)
}

fn visible(customer: i64, person: i64, now: i64) -> Visible {
    Visible { customer: id(customer), person: Some(id(person)), now: at(now) }
}

/// Two customers, 1 and 2. The first has the people 11 and 12, the second the person 13. Each has a renter, 21 to 23.
async fn scene() -> (Store, tempfile::TempDir) {
    let (store, dir) = fixture::store().await;
    fixture::device(&store, 7, "cam-7").await;
    fixture::device(&store, 8, "cam-8").await;
    for sql in [
        "insert into customers (id, created_at) values (1, 0), (2, 0)",
        "insert into people (id, customer, created_at) values (11, 1, 0), (12, 1, 0), (13, 2, 0)",
        "insert into peers (id, kind, created_at) values (21, 'renter', 0), (22, 'renter', 0), (23, 'renter', 0)",
        "insert into peer_keys (public_key, peer, added_at) values ('a', 21, 0), ('b', 22, 0), ('c', 23, 0)",
        "insert into renters (id, person, name, created_at) values (21, 11, 'a', 0), (22, 12, 'b', 0), (23, 13, 'c', 0)",
        "insert into bookings (id, customer, author, created_at) values (101, 1, '', 0), (102, 2, '', 0)",
    ] {
        fixture::run(&store, sql, &[]).await;
    }
    (store, dir)
}

/// Adds a rental of device 7.
async fn rent(
    store: &Store,
    rental: i64,
    booking: i64,
    (from, until): (i64, i64),
    admits: Option<&'static str>,
) {
    sqlx::query(
        "insert into rentals (id, booking, device, from_at, until_at, prepared_from, preparation_ms, turnaround_ms,
                              admits, created_at)
         values ($1, $2, 7, $3, $4, $3, 0, 0, $5, 0)",
    )
    .bind(rental)
    .bind(booking)
    .bind(from)
    .bind(until)
    .bind(admits)
    .execute(&store.write)
    .await
    .unwrap();
    occupy(store, rental, 7, (from, until)).await;
}

async fn occupy(store: &Store, rental: i64, device: i64, (from, until): (i64, i64)) {
    sqlx::query("insert into occupancies (device, rental, from_at, until_at) values ($1, $2, $3, $4)")
        .bind(device)
        .bind(rental)
        .bind(from)
        .bind(until)
        .execute(&store.write)
        .await
        .unwrap();
}

async fn put(store: &Store, host: i64, service: &str, value: &str, (from, until): (i64, Option<i64>)) {
    sqlx::query(
        "insert into intervals (host, service, series, value, began_at, ended_at)
         values ($1, $2, 'state', $3, $4, $5)",
    )
    .bind(host)
    .bind(service)
    .bind(value)
    .bind(from)
    .bind(until)
    .execute(&store.write)
    .await
    .unwrap();
}

#[tokio::test]
async fn a_person_sees_the_rentals_of_the_customer_that_admit_a_renter_of_the_person() {
    let (store, _dir) = scene().await;
    for (rental, booking, admits) in
        [(1, 101, None), (2, 101, Some("[21]")), (3, 101, Some("[22]")), (4, 101, Some("[]")), (5, 102, None)]
    {
        rent(&store, rental, booking, (100 * rental, 100 * rental + 50), admits).await;
    }
    let mut conn = store.reader().await.unwrap();
    // The last two are a person of another customer, and nobody.
    for (customer, person, seen) in
        [(1, 11, vec![2, 1]), (1, 12, vec![3, 1]), (2, 13, vec![5]), (1, 13, vec![]), (1, 99, vec![])]
    {
        let who = visible(customer, person, 0);
        let all = rentals(&mut conn, who).await.unwrap();
        let ids: Vec<i64> = all.iter().map(|rental| rental.id.as_i64()).collect();
        assert_eq!(ids, seen, "{person}");
        for n in 1..=5 {
            let found = rental(&mut conn, who, id(n)).await.unwrap();
            assert_eq!(found.is_some(), seen.contains(&n), "{person} {n}");
        }
    }
    let program = |customer| Visible { person: None, ..visible(customer, 0, 0) };
    for (customer, seen) in [(1, vec![4, 3, 2, 1]), (2, vec![5]), (9, vec![])] {
        let all = rentals(&mut conn, program(customer)).await.unwrap();
        assert_eq!(all.iter().map(|rental| rental.id.as_i64()).collect::<Vec<_>>(), seen, "{customer}");
    }
    let of_customer = renters(&mut conn, program(1)).await.unwrap();
    assert_eq!(of_customer.iter().map(|renter| renter.id.as_i64()).collect::<Vec<_>>(), [21, 22]);
    let own: Vec<i64> =
        renters(&mut conn, visible(1, 11, 0)).await.unwrap().iter().map(|r| r.id.as_i64()).collect();
    assert_eq!((own, renters(&mut conn, visible(1, 13, 0)).await.unwrap().len()), (vec![21], 0));
    let (renter, who) = of_renter(&mut conn, id(22), at(5)).await.unwrap().expect("a renter");
    assert_eq!((renter.name.as_str(), who), ("b", visible(1, 12, 5)));
    drop(conn);
    fixture::run(&store, "update renters set removed_at = 1 where id = 21", &[]).await;
    fixture::run(&store, "update people set removed_at = 1 where id = 12", &[]).await;
    let mut conn = store.reader().await.unwrap();
    assert_eq!(rentals(&mut conn, visible(1, 11, 0)).await.unwrap().len(), 1, "without the removed renter");
    assert!(rentals(&mut conn, visible(1, 12, 0)).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_events_of_the_rentals_that_are_seen_are_seen() {
    let (store, _dir) = scene().await;
    for (rental, booking, customer, admits) in
        [(1, 101, 1, None), (2, 101, 1, Some("[22]")), (3, 102, 2, None), (4, 101, 1, Some("[21]"))]
    {
        rent(&store, rental, booking, (100 * rental, 100 * rental + 50), admits).await;
        let sql = "insert into rental_events (id, at, rental, booking, customer, kind, version, data)
                   values ($1, 1, $1, $2, $3, 'rental.booked', 1, '{}')";
        sqlx::query(sql).bind(rental).bind(booking).bind(customer).execute(&store.write).await.unwrap();
    }
    let mut conn = store.reader().await.unwrap();
    for (customer, person, rental, seen) in [
        (1, Some(11), None, vec![1, 4]),
        (1, Some(12), None, vec![1, 2]),
        (1, None, None, vec![1, 2, 4]),
        (1, None, Some(2), vec![2]),
        (1, None, Some(3), vec![]),
        (2, None, None, vec![3]),
        (2, Some(11), None, vec![]),
    ] {
        let who = Visible { customer: id(customer), person: person.map(id), now: at(0) };
        let found = events(&mut conn, who, rental.map(id), (0, 99), 10).await.unwrap();
        let rentals: Vec<i64> = found.iter().map(|event| event.rental.as_i64()).collect();
        assert_eq!(rentals, seen, "{customer} {person:?} {rental:?}");
    }
}

#[tokio::test]
async fn cancelled_rentals_do_not_hide_the_present_one() {
    let (store, _dir) = scene().await;
    for rental in 1..=105 {
        rent(&store, rental, 101, (100 * rental, 100 * rental + 50), None).await;
    }
    let cancelled = "update rentals set ended_at = 50, end_reason = 'cancelled' where id > 1";
    fixture::run(&store, cancelled, &[]).await;
    let all = rentals(&mut store.reader().await.unwrap(), visible(1, 11, 120)).await.unwrap();
    let ids: Vec<i64> = all.iter().map(|rental| rental.id.as_i64()).collect();
    assert_eq!((ids.len(), &ids[..2], ids.last()), (100, &[105, 104][..], Some(&1)));
}

#[tokio::test]
async fn a_damaged_rental_hides_no_other() {
    let (store, _dir) = scene().await;
    for (rental, admits) in [(1, Some("[21]")), (2, None), (3, Some("[21")), (4, None)] {
        rent(&store, rental, 101, (100 * rental, 100 * rental + 50), admits).await;
    }
    let damaged = "update rentals set end_reason = 'damaged', ended_at = 250 where id = 2";
    fixture::run(&store, damaged, &[]).await;
    let all = rentals(&mut store.reader().await.unwrap(), visible(1, 11, 0)).await.unwrap();
    assert_eq!(all.iter().map(|rental| rental.id.as_i64()).collect::<Vec<_>>(), [4, 1]);
}

async fn seen(store: &Store, who: Visible, rental: i64) -> Vec<Change> {
    let found = super::rental(&mut store.reader().await.unwrap(), who, id(rental)).await.unwrap();
    changes(store, who, &found.expect("a rental")).await.unwrap().list
}

#[tokio::test]
async fn after_a_swap_each_device_is_seen_in_its_own_time() {
    let (store, _dir) = scene().await;
    rent(&store, 1, 101, (100, 500), None).await;
    fixture::run(&store, "update rentals set device = 8 where id = 1", &[]).await;
    occupy(&store, 1, 8, (300, 500)).await;
    for device in [7, 8] {
        for (n, value) in ["up", "down", "up", "down"].iter().enumerate() {
            let from = 50 + 150 * n as i64;
            put(&store, device, "", value, (from, Some(from + 150))).await;
        }
    }
    let times: Vec<i64> =
        seen(&store, visible(1, 11, 900), 1).await.iter().map(|c| c.at.as_millis()).collect();
    // 50: before; 200: of the first device; 350: of the second; 500: after.
    assert_eq!(times, [200, 350]);
    assert!(seen(&store, visible(1, 11, 150), 1).await.is_empty(), "what is to come");
}

#[tokio::test]
async fn the_series_of_each_device_are_those_of_its_own_time() {
    let (store, _dir) = scene().await;
    rent(&store, 1, 101, (100_000, 500_000), None).await;
    occupy(&store, 1, 8, (300_000, 500_000)).await;
    fixture::run(
        &store,
        "insert into series (host, service, label, uom, last_at) values
             (7, 'ping', 'rta', 'ms', 200), (7, '', 'x', '', 50), (7, 'rental', 'x', '', 200),
             (7, 'old', 'x', '', -3000000), (8, 'ping', 'rta', 'ms', 900), (9, 'ping', 'rta', 'ms', 200)",
        &[],
    )
    .await;
    let all = async |now: i64, most: usize| {
        let who = visible(1, 11, now);
        let found = rental(&mut store.reader().await.unwrap(), who, id(1)).await.unwrap().expect("a rental");
        let found = measured(&store, who, &found, most).await.unwrap();
        let of = |of: &Measured| {
            let names: Vec<String> =
                of.series.iter().map(|one| format!("{} {}", one.host.as_i64(), one.service)).collect();
            (of.time.from().as_millis(), of.time.until().as_millis(), names)
        };
        found.iter().map(of).collect::<Vec<_>>()
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let (second, first) =
        ((300_000, 500_000, names(&["8 ping"])), (100_000, 300_000, names(&["7 ping", "7 "])));
    assert_eq!(all(900_000, 3).await, [second.clone(), first]);
    assert_eq!(all(900_000, 2).await, [second, (100_000, 300_000, names(&["7 ping"]))]);
    assert_eq!(all(200_000, 3).await, [(100_000, 200_000, names(&["7 ping", "7 "]))]);
    assert_eq!(all(99_999, 3).await, []);
}

#[tokio::test]
async fn changes_outside_of_the_window_and_of_the_built_in_service_are_never_seen() {
    let (store, _dir) = scene().await;
    let mut dice = Dice(7);
    let mut all: Vec<(i64, &str, &str)> = Vec::new();
    for service in ["", "disk", "rental"] {
        let mut from = 0;
        while from < 10_000 {
            let until = from + 1 + dice.below(60) as i64;
            let value = dice.pick(&["ok", "critical", "warning"]).unwrap();
            put(&store, 7, service, value, (from, (until < 10_000).then_some(until))).await;
            all.push((from, service, value));
            from = until;
        }
    }
    for n in 1..=60 {
        let from = dice.below(9_000) as i64;
        let until = from + 1 + dice.below(1_000) as i64;
        let now = dice.below(11_000) as i64;
        rent(&store, n, 101, (from, until), None).await;
        let ended = dice.once_in(3).then(|| from + dice.below((until - from) as u64) as i64);
        if let Some(ended) = ended {
            let sql = "update rentals set ended_at = $1, end_reason = 'ended' where id = $2";
            sqlx::query(sql).bind(ended).bind(n).execute(&store.write).await.unwrap();
        }
        let end = ended.unwrap_or(until).min(now);
        let mut model: Vec<Change> = all
            .iter()
            .filter(|(at, service, _)| from <= *at && *at < end && *service != "rental")
            .map(|(began, service, value)| Change {
                at: at(*began),
                service: (!service.is_empty()).then(|| (*service).to_owned()),
                status: (*value).to_owned(),
            })
            .collect();
        model.sort();
        assert_eq!(seen(&store, visible(1, 11, now), n).await, model, "[{from}, {until}) {ended:?} at {now}");
    }
}

#[test]
fn a_result_from_before_or_after_the_window_is_never_seen() {
    let mut dice = Dice(11);
    let moment = |dice: &mut Dice| at(dice.below(1_000) as i64);
    let mut inside = 0;
    for _ in 0..20_000 {
        let from = moment(&mut dice);
        let until = at(from.as_millis() + 1 + dice.below(500) as i64);
        let time = Window::new(from, until).expect("a window");
        let checked = moment(&mut dice);
        let last = Some(checked).filter(|_| !dice.once_in(10));
        let statuses = [None, Some(Status::Ok), Some(Status::Critical)];
        let state = ServiceState {
            status: dice.pick(&statuses).unwrap(),
            hard: dice.pick(&statuses).unwrap(),
            since: moment(&mut dice),
            hard_since: moment(&mut dice),
            last_check: last,
            ..fixture::service("disk", Status::Ok)
        };
        let host = HostState {
            status: dice.pick(&[HostStatus::Up, HostStatus::Down]).unwrap(),
            hard: dice.pick(&[HostStatus::Up, HostStatus::Down]).unwrap(),
            reachable: dice.once_in(2),
            since: state.since,
            hard_since: state.hard_since,
            last_check: last,
            ..fixture::up(id(7))
        };
        let hard = Some(state.hard_since).filter(|at| contains(time, *at));
        let service = service_within(&state, time, hard);
        let (status, since) = host_within(Some(&host), time, hard);
        let is_inside = last.is_some_and(|at| from <= at && at < until);
        inside += usize::from(is_inside);
        if is_inside {
            assert!(since >= Some(from) && service.since >= Some(from));
            assert_eq!((&service.output, &service.metrics), (&state.result.text, &state.result.metrics));
            let is_last = service.status == state.status.map_or("pending", Status::name);
            assert!(is_last || contains(time, state.hard_since), "{state:?} in {time:?}");
        } else {
            let nothing = (PENDING, None, String::new(), Arc::default());
            assert_eq!((service.status, service.since, service.output, service.metrics), nothing);
            assert_eq!((status, since), (PENDING, None));
        }
    }
    assert!(inside > 1_000, "{inside}");
    let time = Window::new(at(1), at(2)).expect("a window");
    assert_eq!(host_within(None, time, None), (PENDING, None));
}

/// A result: when it arrived, when it was measured, and what it said.
#[derive(Clone, Copy, Debug)]
struct Sent {
    at: i64,
    measured: i64,
    status: &'static str,
}

/// Returns results in the order of their arrival, of which some were measured long before.
fn results(dice: &mut Dice) -> Vec<Sent> {
    let (mut sent, mut at, mut newest) = (Vec::new(), 0, 0);
    while at < 1_000 {
        at += 1 + dice.below(60) as i64;
        let late = if dice.once_in(3) { dice.below(300) as i64 } else { 0 };
        // The monitor ignores what is older than what it has.
        let measured = (at - late).max(newest);
        newest = measured;
        sent.push(Sent { at, measured, status: dice.pick(&["ok", "warning", "critical"]).unwrap() });
    }
    sent
}

/// Stores the results until `now` as the writer does: the last one as the state, and each other status as an interval.
async fn keep(store: &Store, sent: &[Sent]) {
    fixture::run(store, "delete from intervals", &[]).await;
    let mut before = None;
    for of in sent.iter().filter(|of| before.replace(of.status) != Some(of.status)) {
        let sql = "update intervals set ended_at = $1 where ended_at is null";
        sqlx::query(sql).bind(of.at).execute(&store.write).await.unwrap();
        put(store, 7, "disk", of.status, (of.at, None)).await;
        let sql = "update intervals set measured_at = $1 where ended_at is null";
        let measured = Some(of.measured).filter(|measured| *measured < of.at);
        sqlx::query(sql).bind(measured).execute(&store.write).await.unwrap();
    }
    let never =
        "update service_states set status = null, hard = null, since = 0, hard_since = 0, last_check = null,
                                           output = '' where host = 7 and service = 'disk'";
    fixture::run(store, never, &[]).await;
    let Some(last) = sent.last() else { return };
    let begun = sent.iter().rev().take_while(|of| of.status == last.status).last().map_or(0, |of| of.at);
    let sql =
        "update service_states set status = $1, hard = $1, since = $2, hard_since = $2, last_check = $3,
                      output = $4 where host = 7 and service = 'disk'";
    sqlx::query(sql)
        .bind(last.status)
        .bind(begun)
        .bind(last.measured)
        .bind(format!("measured at {}", last.measured))
        .execute(&store.write)
        .await
        .unwrap();
}

#[tokio::test]
async fn of_results_that_were_sent_late_only_those_measured_within_the_window_are_seen() {
    let (store, _dir) = scene().await;
    store.all_hosts(&fixture::TIMING).await.unwrap();
    let row =
        "insert into service_states (host, service, kind, attempt, stale, since, route, output, long_output,
                                           metrics, warnings)
               values (7, 'disk', 'hard', 1, 0, 0, '', '', '', '[]', '[]')";
    fixture::run(&store, row, &[]).await;
    let (mut dice, mut hidden) = (Dice(3), 0);
    for n in 1..=150 {
        let all = results(&mut dice);
        let from = dice.below(800) as i64;
        let length = 2 + dice.below(300);
        let (until, now) = (from + length as i64, from + 1 + dice.below(length - 1) as i64);
        let sent: Vec<Sent> = all.into_iter().filter(|of| of.at <= now).collect();
        keep(&store, &sent).await;
        rent(&store, n, 101, (from, until), None).await;
        let who = visible(1, 11, now);

        let mut before = None;
        let turns = sent.iter().filter(|of| before.replace(of.status) != Some(of.status));
        let model: Vec<(i64, &str)> = turns
            .filter(|of| from <= of.at && of.at < now && from <= of.measured)
            .map(|of| (of.at, of.status))
            .collect();
        let found = seen(&store, who, n).await;
        let found: Vec<(i64, &str)> =
            found.iter().map(|change| (change.at.as_millis(), change.status.as_str())).collect();
        assert_eq!(found, model, "[{from}, {until}) at {now}: {sent:?}");

        let mut conn = store.reader().await.unwrap();
        let rental = rental(&mut conn, who, id(n)).await.unwrap().expect("a rental");
        let device = device(&mut conn, who, &rental).await.unwrap().expect("it is active");
        let disk = device.services.iter().find(|of| of.name == "disk").expect("a service");
        match sent.last().filter(|of| from <= of.measured) {
            Some(last) => {
                let output = format!("measured at {}", last.measured);
                assert_eq!((disk.status, &disk.output), (last.status, &output), "{sent:?}");
                assert!(disk.since >= Some(at(from)), "{disk:?}");
            }
            None => {
                hidden += usize::from(!sent.is_empty());
                assert_eq!((disk.status, disk.since, disk.output.as_str()), (PENDING, None, ""), "{sent:?}");
            }
        }
    }
    assert!(hidden > 5, "{hidden}");
}

#[tokio::test]
async fn the_latest_changes_of_a_rental_are_seen_and_that_there_are_more() {
    let (store, _dir) = scene().await;
    rent(&store, 1, 101, (100, 100_000), None).await;
    let read = async || {
        let mut conn = store.reader().await.unwrap();
        let rental = rental(&mut conn, visible(1, 11, 90_000), id(1)).await.unwrap().expect("a rental");
        drop(conn);
        changes(&store, visible(1, 11, 90_000), &rental).await.unwrap()
    };
    for n in 0..MAX_CHANGES as i64 {
        put(&store, 7, "disk", "ok", (200 + n, Some(201 + n))).await;
    }
    put(&store, 7, "rental", "ok", (300, None)).await;
    let all = read().await;
    assert_eq!((all.list.len(), all.truncated), (MAX_CHANGES, false), "the built-in service does not count");
    put(&store, 7, "", "up", (150, None)).await;
    let latest = read().await;
    assert_eq!((latest.list, latest.truncated), (all.list, true), "the first one is left out");
}

#[tokio::test]
async fn the_device_is_seen_while_its_rental_is_active() {
    let (store, _dir) = scene().await;
    rent(&store, 1, 101, (100, 500), None).await;
    store.all_hosts(&fixture::TIMING).await.unwrap();
    let sql =
        "update host_states set status = 'up', hard = 'up', last_check = 90, since = 10, hard_since = 10";
    fixture::run(&store, sql, &[]).await;
    let status = async |now: i64| {
        let who = visible(1, 11, now);
        let mut conn = store.reader().await.unwrap();
        let found = rental(&mut conn, who, id(1)).await.unwrap().expect("a rental");
        device(&mut conn, who, &found).await.unwrap().map(|seen| (seen.status, seen.since))
    };
    assert_eq!(status(99).await, None);
    assert_eq!(status(200).await, Some((PENDING, None)), "the last result is older");
    fixture::run(&store, "update host_states set last_check = 150", &[]).await;
    assert_eq!(status(200).await, Some(("up", Some(at(100)))));
    assert_eq!(status(500).await, None);
}
