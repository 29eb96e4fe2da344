use super::*;
use crate::store::fixture;

fn matter(extent: IncidentScope) -> IncidentSummary {
    let (words, site) = ("cam-07 is down".to_owned(), Some("north".to_owned()));
    IncidentSummary { extent, cause: CauseKind::HostDown, words, site, head: Some(Id::from_i64(7)) }
}

fn record(id: i64, at: i64, change: IncidentChange) -> IncidentRecord {
    IncidentRecord { id: IncidentId(Id::from_i64(id)), at: Wall::from_millis(at), change }
}

fn host(n: i64) -> CheckableId {
    CheckableId::host(Id::from_i64(n))
}

fn joined(id: i64, n: i64) -> IncidentRecord {
    record(id, 5, IncidentChange::Joined { object: host(n), began: Wall::from_millis(n) })
}

async fn run(store: &crate::store::Store, records: &[IncidentRecord]) {
    let mut tx = store.begin().await.unwrap();
    for record in records {
        write(&mut tx, record).await.unwrap();
    }
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_merged_incident_is_found_in_its_successor_even_over_a_restart() {
    let (store, _dir) = fixture::store().await;
    let opened = |id| record(id, 1, IncidentChange::Opened(matter(IncidentScope::Host)));
    let into = |id| IncidentChange::Merged(IncidentId(Id::from_i64(id)));
    let records = [opened(1), joined(1, 7), opened(2), joined(2, 8), opened(3), joined(3, 9)];
    run(&store, &records).await;
    let left = record(2, 6, IncidentChange::Left(host(8)));
    let wide = record(3, 7, IncidentChange::Widened(matter(IncidentScope::Site)));
    run(&store, &[left, record(1, 8, into(2)), record(2, 9, into(3)), wide]).await;
    let mut conn = store.reader().await.unwrap();
    let first = find(&mut conn, IncidentId(Id::from_i64(1))).await.unwrap().unwrap();
    assert_eq!(first.merged_into, Some(IncidentId(Id::from_i64(3))), "one step is enough");
    let memory = memories(&mut conn).await.unwrap();
    assert_eq!(memory.len(), 1);
    let members: Vec<_> = memory[0]
        .members
        .iter()
        .map(|m| (m.object.host.as_i64(), m.left.is_some(), m.began.as_millis()))
        .collect();
    assert_eq!(members, [(7, false, 7), (9, false, 9), (8, true, 8)]);
    assert_eq!(
        (memory[0].matter.extent, list(&mut conn, None, i64::MAX, 9).await.unwrap().len()),
        (IncidentScope::Site, 1)
    );
}

#[tokio::test]
async fn the_incidents_of_a_host_are_paged_and_a_merged_one_is_none() {
    let (store, _dir) = fixture::store().await;
    let opened = |id| record(id, 1, IncidentChange::Opened(matter(IncidentScope::Host)));
    let mut records = Vec::new();
    for id in 1..=5 {
        records.extend([opened(id), joined(id, 7 + i64::from(id == 4))]);
    }
    let service = CheckableId { host: Id::from_i64(7), service: Some("ping".into()) };
    records.push(record(5, 6, IncidentChange::Joined { object: service, began: Wall::from_millis(1) }));
    records.extend([record(1, 8, IncidentChange::Closed), record(2, 9, IncidentChange::Left(host(7)))]);
    records.push(record(3, 10, IncidentChange::Merged(IncidentId(Id::from_i64(4)))));
    run(&store, &records).await;
    let mut conn = store.reader().await.unwrap();
    let mut found = async |open, page| -> Vec<i64> {
        let wanted = OfHost { open, ..OfHost::default() };
        let rows = of_host(&mut conn, Id::from_i64(7), wanted, page).await.unwrap();
        rows.into_iter().map(|row| row.id.0.as_i64()).collect()
    };
    assert_eq!(
        found(None, (i64::MAX, 9)).await,
        [5, 4, 2, 1],
        "each once, and 4 by the one that was merged into it"
    );
    assert_eq!(found(None, (5, 2)).await, [4, 2]);
    assert_eq!(found(Some(true), (i64::MAX, 9)).await, [5, 4, 2]);
    assert_eq!(found(Some(false), (i64::MAX, 9)).await, [1]);
}

#[tokio::test]
async fn the_incidents_of_a_time_were_open_in_it() {
    let (store, _dir) = fixture::store().await;
    let mut records = Vec::new();
    // Open from 10 to 20, from 20 to 30, and since 30.
    for (id, at) in [(1, 10), (2, 20), (3, 30)] {
        records.extend([record(id, at, IncidentChange::Opened(matter(IncidentScope::Host))), joined(id, 7)]);
    }
    records.extend([record(1, 20, IncidentChange::Closed), record(2, 30, IncidentChange::Closed)]);
    run(&store, &records).await;
    let mut conn = store.reader().await.unwrap();
    for (from, to, expected) in [
        (None, None, vec![3, 2, 1]),
        (Some(19), Some(20), vec![1]),
        (Some(20), Some(21), vec![2]),
        (Some(30), None, vec![3]),
        (Some(1_000), Some(2_000), vec![3]),
        (None, Some(10), vec![]),
    ] {
        let at = |ms: Option<i64>| ms.map(Wall::from_millis);
        let wanted = OfHost { open: None, from: at(from), to: at(to) };
        let rows = of_host(&mut conn, Id::from_i64(7), wanted, (i64::MAX, 9)).await.unwrap();
        let ids: Vec<i64> = rows.iter().map(|row| row.id.0.as_i64()).collect();
        assert_eq!(ids, expected, "{from:?} to {to:?}");
    }
}

#[tokio::test]
async fn the_acknowledgement_of_a_merged_incident_stays_on_its_members() {
    let (store, _dir) = fixture::store().await;
    let host_id = fixture::device(&store, 7, "cam-07").await;
    let opened = |id| record(id, 1, IncidentChange::Opened(matter(IncidentScope::Host)));
    run(&store, &[opened(1), joined(1, 7), opened(2), joined(2, 8)]).await;
    let (first, second) = (IncidentId(Id::from_i64(1)), IncidentId(Id::from_i64(2)));
    let mut tx = store.begin().await.unwrap();
    acknowledge(&mut tx, first, &on_it()).await.unwrap();
    tx.commit().await.unwrap();
    let cover = IncidentChange::Covered { object: host(7), ack: Id::from_i64(77) };
    run(&store, &[record(1, 10, cover), record(1, 11, IncidentChange::Merged(second))]).await;
    let mut conn = store.reader().await.unwrap();
    assert_eq!(find(&mut conn, first).await.unwrap().unwrap().ack, None);
    let of_host = crate::store::acknowledgements::of_host(&mut conn, host_id).await.unwrap();
    assert_eq!((of_host.len(), of_host[0].incident), (1, None));
}

#[tokio::test]
async fn a_new_state_of_its_service_changes_the_text_and_is_no_event() {
    let (store, _dir) = fixture::store().await;
    run(&store, &[record(1, 1, IncidentChange::Opened(matter(IncidentScope::Service))), joined(1, 7)]).await;
    let words = "cam-07: temperature critical (78 °C, limit 70)".to_owned();
    let mut tx = store.begin().await.unwrap();
    let reworded = record(1, 2, IncidentChange::Reworded(words.clone()));
    assert_eq!(write(&mut tx, &reworded).await.unwrap(), None);
    tx.commit().await.unwrap();
    let mut conn = store.reader().await.unwrap();
    assert_eq!(memories(&mut conn).await.unwrap()[0].matter.words, words);
}

fn on_it() -> Ack {
    Ack {
        at: Wall::from_millis(9),
        author: "user:ada".into(),
        comment: "on it".into(),
        sticky: true,
        expires_at: None,
    }
}

#[tokio::test]
async fn an_incident_acknowledgement_lasts_until_withdrawn_or_recovered() {
    let (store, _dir) = fixture::store().await;
    let host_id = fixture::device(&store, 7, "cam-07").await;
    run(&store, &[record(1, 1, IncidentChange::Opened(matter(IncidentScope::Host))), joined(1, 7)]).await;
    let id = IncidentId(Id::from_i64(1));
    let ack = on_it();
    let mut tx = store.begin().await.unwrap();
    acknowledge(&mut tx, id, &ack).await.unwrap();
    tx.commit().await.unwrap();
    let left_over = memories(&mut store.reader().await.unwrap()).await.unwrap();
    assert!(!left_over[0].members[0].covered, "the monitor has not heard of it");
    let cover = IncidentChange::Covered { object: host(7), ack: Id::from_i64(77) };
    run(&store, &[record(1, 10, cover)]).await;
    let mut conn = store.reader().await.unwrap();
    assert!(memories(&mut conn).await.unwrap()[0].members[0].covered);
    let of_host = crate::store::acknowledgements::of_host(&mut conn, host_id).await.unwrap();
    assert_eq!((of_host[0].author.as_str(), of_host[0].incident), ("user:ada", Some(id)));
    assert_eq!(find(&mut conn, id).await.unwrap().unwrap().ack, Some(ack));
    drop(conn);
    run(&store, &[record(1, 11, IncidentChange::AckEnded(fleetgate_engine::messages::AckEnd::Well))]).await;
    let mut conn = store.reader().await.unwrap();
    assert_eq!(find(&mut conn, id).await.unwrap().unwrap().ack, None);
}
