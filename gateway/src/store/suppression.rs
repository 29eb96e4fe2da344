//! The present state of checkables with waiting notices, from the committed rows: downtime, host
//! down, acknowledgement.
//!
//! This module reports the state. The router draws the conclusions. It knows nothing of contacts.

use std::collections::BTreeMap;

use fleetgate_engine::id::Id;
use fleetgate_engine::messages::{GATEWAY, SuppressReason};
use fleetgate_engine::notification::{CheckableId, Suppression};
use sqlx::sqlite::SqliteConnection;

/// The first reason that applies, in the order of the monitor's own reasons. While the gateway's
/// uplink is lost, the state of every host is unknown. The state of a rental, which the gateway
/// itself sets, is known also while the device is down. An ok checkable without pending
/// notifications (`well`) needs no later notification.
const SUPPRESSED: &str = "with waits as (select distinct n.host, n.service from notices_waiting w
                                       join notices n on n.id = w.notice),
         uplink as (select exists (select 1 from incident_members where host = $1 and left_at is null) as lost),
         acks as (select host, service from acknowledgements where ended_at is null)
     select w.host, w.service, case
             when uplink.lost then 'parent_in_doubt'
             when h.reachable = 0 then 'unreachable'
             when h.notification ->> '$.suppressed_by' = 'parent_in_doubt' then 'parent_in_doubt'
             when h.asleep or h.stale or h.notification ->> '$.awaits_result' then 'not_current'
             when h.notification ->> '$.is_quiet' then 'rental'
             when h.notification ->> '$.in_downtime' then 'downtime'
             when acks.host is not null then 'acknowledged'
             when h.notification ->> '$.flapping' then 'flapping'
             when h.hard = 'up' and h.notified is null and h.notification ->> '$.told_flapping' is null then 'well'
             else h.notification ->> '$.suppressed_by'
         end as reason
     from waits w join host_states h on h.host = w.host join uplink
     left join acks on acks.host = w.host and acks.service = ''
     where w.service is null and reason is not null
     union all
     select w.host, w.service, case
             when uplink.lost then 'parent_in_doubt'
             when s.service <> 'rental' and h.hard = 'down' then 'host_down'
             when s.service <> 'rental' and h.reachable = 0 then 'unreachable'
             when s.stale or s.notification ->> '$.awaits_result' then 'not_current'
             when s.notification ->> '$.is_quiet' then 'rental'
             when s.notification ->> '$.in_downtime' then 'downtime'
             when acks.host is not null then 'acknowledged'
             when s.notification ->> '$.flapping' then 'flapping'
             when s.hard = 'ok' and s.notified is null and s.notification ->> '$.told_flapping' is null then 'well'
             else s.notification ->> '$.suppressed_by'
         end as reason
     from waits w join host_states h on h.host = w.host
     join service_states s on s.host = w.host and s.service = w.service join uplink
     left join acks on acks.host = w.host and acks.service = w.service
     where reason is not null
     union all
     select n.host, null, 'acknowledged' from notices_waiting w join notices n on n.id = w.notice
     join incidents i on i.id = n.incident join incidents r on r.id = coalesce(i.merged_into, i.id)
     where n.host = $1 and r.acked_at is not null and r.ack_ended_at is null";

/// Returns the checkables with waiting notices that cannot simply be sent.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn of_waiting(conn: &mut SqliteConnection) -> sqlx::Result<BTreeMap<CheckableId, Suppression>> {
    let rows: Vec<(i64, Option<String>, String)> =
        sqlx::query_as(SUPPRESSED).bind(GATEWAY.as_i64()).fetch_all(conn).await?;
    let suppression = |(host, service, name): (i64, Option<String>, String)| {
        let suppression = match name.as_str() {
            "well" => Suppression::Well,
            name => Suppression::Silent(SuppressReason::named(name)?),
        };
        Some((CheckableId { host: Id::from_i64(host), service }, suppression))
    };
    Ok(rows.into_iter().filter_map(suppression).collect())
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::messages::{
        HostState, HostStatus, Message, NotificationState, RENTAL_SERVICE, ServiceState,
    };
    use fleetgate_engine::notification::{WaitFor, Waiting};
    use fleetgate_engine::time::Wall;
    use fleetgate_probes::sample::Status;

    use super::*;
    use crate::store::{Store, fixture, notices, states};

    /// Creates a host and a service of it, each with a waiting notice.
    async fn waiting(service: &str) -> (Store, tempfile::TempDir) {
        let (store, dir) = fixture::store().await;
        let host = fixture::device(&store, 7, "cam-07").await;
        store.all_hosts(&fixture::TIMING).await.unwrap();
        let mut tx = store.begin().await.unwrap();
        for service in [None, Some(service.to_owned())] {
            notices::insert(&mut tx, &Message { service, ..fixture::down(host) }, None).await.unwrap();
        }
        for row in notices::unrouted(&mut tx, 9).await.unwrap() {
            let (contact, notice, until) = (Id::from_i64(1), row.notice().unwrap(), Wall::from_millis(9));
            let waits = Waiting { contact, notice, why: WaitFor::Delay, until, rule: None };
            notices::wait(&mut tx, &waits).await.unwrap();
        }
        tx.commit().await.unwrap();
        (store, dir)
    }

    /// Writes these states and returns the suppressions of both.
    async fn with(store: &Store, host: &HostState, ping: &ServiceState) -> [Option<Suppression>; 2] {
        let mut tx = store.begin().await.unwrap();
        states::write_hosts(&mut tx, &[host]).await.unwrap();
        states::write_services(&mut tx, &[(host.host, ping)]).await.unwrap();
        let suppressions = of_waiting(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        [None, Some(ping.name.clone())]
            .map(|service| suppressions.get(&CheckableId { host: host.host, service }).copied())
    }

    fn notification(change: impl FnOnce(&mut NotificationState)) -> NotificationState {
        let mut state = NotificationState::default();
        change(&mut state);
        state
    }

    #[tokio::test]
    async fn stored_states_suppress_waiting_notices() {
        use SuppressReason::{
            Downtime, Flapping, HostDown, Kind, NotCurrent, ParentInDoubt, Rental, Unreachable,
        };
        let (store, _dir) = waiting("ping").await;
        let up = HostState { notified: Some(HostStatus::Down), ..fixture::up(Id::from_i64(7)) };
        let down = HostState { status: HostStatus::Down, hard: HostStatus::Down, ..up.clone() };
        let ill =
            ServiceState { notified: Some(Status::Critical), ..fixture::service("ping", Status::Critical) };
        let planned = notification(|n| n.in_downtime = true);
        let quiet = notification(|n| (n.in_downtime, n.is_quiet) = (true, true));
        let silent = |host: Option<SuppressReason>, ping: Option<SuppressReason>| {
            [host.map(Suppression::Silent), ping.map(Suppression::Silent)]
        };
        for (host, ping, expected) in [
            (up.clone(), ill.clone(), silent(None, None)),
            (down.clone(), ill.clone(), silent(None, Some(HostDown))),
            (HostState { reachable: false, ..down }, ill.clone(), silent(Some(Unreachable), Some(HostDown))),
            (
                HostState {
                    notification: notification(|n| n.suppressed_by = Some(ParentInDoubt)),
                    asleep: true,
                    ..up.clone()
                },
                ServiceState { notification: notification(|n| n.suppressed_by = Some(Kind)), ..ill.clone() },
                silent(Some(ParentInDoubt), Some(Kind)),
            ),
            (HostState { asleep: true, ..up.clone() }, ill.clone(), silent(Some(NotCurrent), None)),
            (
                HostState { notification: planned.clone(), ..up.clone() },
                ServiceState { notification: planned, ..ill.clone() },
                silent(Some(Downtime), Some(Downtime)),
            ),
            (
                HostState { notification: quiet.clone(), ..up.clone() },
                ServiceState { notification: quiet, ..ill.clone() },
                silent(Some(Rental), Some(Rental)),
            ),
            (
                HostState { notification: notification(|n| n.awaits_result = true), ..up.clone() },
                ServiceState { notification: notification(|n| n.flapping = true), ..ill },
                silent(Some(NotCurrent), Some(Flapping)),
            ),
            (
                HostState { notified: None, ..up },
                fixture::service("ping", Status::Ok),
                [Some(Suppression::Well), Some(Suppression::Well)],
            ),
        ] {
            assert_eq!(with(&store, &host, &ping).await, expected, "{host:?} {ping:?}");
        }
    }

    #[tokio::test]
    async fn the_state_of_a_rental_is_known_while_its_device_is_not() {
        let (store, _dir) = waiting(RENTAL_SERVICE).await;
        let up = HostState { notified: Some(HostStatus::Down), ..fixture::up(Id::from_i64(7)) };
        let down = HostState { reachable: false, hard: HostStatus::Down, ..up };
        let overdue = fixture::service(RENTAL_SERVICE, Status::Critical);
        let overdue = ServiceState { notified: Some(Status::Critical), ..overdue };
        let unreachable = Some(Suppression::Silent(SuppressReason::Unreachable));
        assert_eq!(with(&store, &down, &overdue).await, [unreachable, None]);
    }

    #[tokio::test]
    async fn a_lost_uplink_suppresses_waiting_notices_of_hosts() {
        let (store, _dir) = waiting("ping").await;
        for sql in [
            "insert into incidents (id, extent, cause, words, opened_at)
             values (1, 'gateway', 'uplink_lost', 'gateway', 0)",
            "insert into incident_members (incident, host, service, began_at, joined_at)
             values (1, 0, '', 0, 0)",
        ] {
            fixture::run(&store, sql, &[]).await;
        }
        let doubt = Some(Suppression::Silent(SuppressReason::ParentInDoubt));
        let (host, ping) = (fixture::up(Id::from_i64(7)), fixture::service("ping", Status::Ok));
        assert_eq!(with(&store, &host, &ping).await, [doubt, doubt]);
        fixture::run(&store, "update incident_members set left_at = 1", &[]).await;
        assert_eq!(with(&store, &host, &ping).await, [Some(Suppression::Well); 2]);
    }
}
