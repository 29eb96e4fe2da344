//! Detects which states differ from those written before. Most results repeat the previous one.
//!
//! For the dashboards, times of checks, figures and the output of ok services do not count. For the rows,
//! only those columns do not count that are written with each result. Pure; a state that it has not seen yet is new.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher as _};

use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{Detail, HostSnapshot, HostState, HostStatus, ServiceState};
use fleetgate_probes::plugin::PluginResult;
use fleetgate_probes::sample::Status;

use super::pending::{Batch, Entry};
use crate::engine::live_state::Change;

/// States that are remembered, 24 bytes each. When there are more, all count as new once.
const MOST: usize = 4_000_000;

/// The digests of a state: of what the dashboards show of it, and of the columns that do not change with each result.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Digests {
    shown: u64,
    lasting: u64,
}

/// The digests of the state last written for each host or service.
#[derive(Default)]
pub(super) struct Written(HashMap<u64, Digests>);

/// The states of a batch.
#[derive(Debug, PartialEq)]
pub(super) struct Rows<'a> {
    pub hosts: Split<&'a HostState>,
    pub services: Split<(HostId, &'a ServiceState)>,
}

#[derive(Debug, PartialEq)]
pub(super) struct Split<T> {
    /// The whole row is written.
    pub changed: Vec<T>,
    /// The lasting columns are on disk already.
    pub repeated: Vec<T>,
}

impl<T> Split<T> {
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.changed.iter().chain(&self.repeated)
    }
}

impl Written {
    /// Takes over the states of the rows at a start. Without them every first result would count as a
    /// change.
    pub fn know(&mut self, hosts: &[HostSnapshot]) {
        for memory in hosts {
            if let Some(state) = &memory.state {
                self.is_new(host_digest(state.host), digests_of_host(state));
            }
            for service in &memory.services {
                self.is_new(service_digest(memory.spec.id, service), digests_of_service(service));
            }
        }
    }

    /// Divides the states of a batch into those that change more than a repeated result does, and the others.
    pub fn rows<'a>(&self, batch: &'a Batch) -> Rows<'a> {
        let knows = |of: u64, lasting: u64| self.0.get(&of).is_some_and(|known| known.lasting == lasting);
        let services =
            batch.services.iter().flat_map(|(host, list)| list.iter().map(|s| (*host, s.as_ref())));
        let (repeated, changed) =
            batch.hosts.values().partition(|s| knows(host_digest(s.host), lasting_of_host(s)));
        let hosts = Split { changed, repeated };
        let (repeated, changed) =
            services.partition(|(host, s)| knows(service_digest(*host, s), lasting_of_service(s)));
        Rows { hosts, services: Split { changed, repeated } }
    }

    /// Returns the changes for the dashboards of a batch that is on disk.
    pub fn changes(&mut self, batch: &Batch) -> Vec<Change> {
        if self.0.len() > MOST {
            self.0.clear();
        }
        let change = |host: HostId| {
            let own = batch.hosts.get(&host);
            let services = batch.services.get(&host).into_iter().flatten();
            let mut moved = own.is_some_and(|state| self.is_new(host_digest(host), digests_of_host(state)));
            for service in services {
                moved |= self.is_new(service_digest(host, service), digests_of_service(service));
            }
            match moved {
                true => Change::Host(host),
                false => Change::Checked {
                    host,
                    last_check: own.and_then(|state| state.last_check),
                    next_check: own.and_then(|state| state.next_check),
                },
            }
        };
        let mut changes: Vec<Change> = batch.changed_hosts().into_iter().map(change).collect();
        changes.extend(batch.log.iter().any(moves_problems).then_some(Change::Problems));
        changes
    }

    /// Whether the dashboards show a difference.
    fn is_new(&mut self, of: u64, digests: Digests) -> bool {
        self.0.insert(of, digests).is_none_or(|before| before.shown != digests.shown)
    }
}

fn host_digest(host: HostId) -> u64 {
    digest(host)
}

fn service_digest(host: HostId, service: &ServiceState) -> u64 {
    digest((host, &service.name))
}

fn digests_of_host(s: &HostState) -> Digests {
    Digests { shown: shown_of_host(s), lasting: lasting_of_host(s) }
}

fn digests_of_service(s: &ServiceState) -> Digests {
    Digests { shown: shown_of_service(s), lasting: lasting_of_service(s) }
}

/// The columns that [`states::repeat_hosts`](crate::store::states::repeat_hosts) does not write.
fn lasting_of_host(s: &HostState) -> u64 {
    let HostState {
        host: _,
        status,
        kind,
        attempt,
        hard,
        reachable,
        stale,
        asleep,
        since,
        hard_since,
        last_check: _,
        next_check: _,
        source,
        direct,
        one_way,
        silent_since,
        last_alive: _,
        asked_at: _,
        asked,
        strange_key,
        output: _,
        detail: Detail { long_text, metrics: _, warnings },
        notified,
        notification: _,
        taken,
    } = s;
    let state = (status, kind, attempt, hard, since, hard_since);
    let marks = (reachable, stale, asleep, direct, one_way, silent_since, asked, strange_key);
    digest((state, marks, source, long_text, warnings, notified, taken))
}

/// The columns that [`states::repeat_services`](crate::store::states::repeat_services) does not write.
fn lasting_of_service(s: &ServiceState) -> u64 {
    let ServiceState {
        name: _,
        status,
        kind,
        attempt,
        hard,
        stale,
        since,
        hard_since,
        last_check: _,
        next_check: _,
        route,
        asked,
        path,
        cause_since,
        result: PluginResult { status: result, cause, text: _, long_text, metrics: _, warnings },
        notified,
        notification: _,
        taken: _,
    } = s;
    let state = (status, kind, attempt, hard, stale, since, hard_since);
    let result = (result, cause, cause_since, long_text, warnings);
    digest((state, route, asked, path, result, notified))
}

/// Whether an entry changes the list of problems without a state.
fn moves_problems(entry: &Entry) -> bool {
    matches!(entry, Entry::AckEnded(..) | Entry::Incident(_))
}

fn shown_of_host(s: &HostState) -> u64 {
    let says = (s.hard != HostStatus::Up || s.status != HostStatus::Up).then_some((&s.source, &s.output));
    let notification = (s.notification.in_downtime, s.notification.flapping);
    let status = (s.status as u8, s.kind as u8, s.attempt, s.hard as u8, s.direct as u8);
    let marks = (s.reachable, s.stale, s.asleep, s.one_way, &s.strange_key);
    digest((status, marks, millis(s.since), s.silent_since.map(millis), notification, says))
}

fn shown_of_service(s: &ServiceState) -> u64 {
    let says = (s.hard != Some(Status::Ok)).then_some(&s.result.text);
    let notification = (s.notification.in_downtime, s.notification.flapping);
    let status = (s.status.map(|s| s as u8), s.kind as u8, s.attempt, s.hard.map(|s| s as u8));
    digest((status, s.stale, millis(s.since), notification, says))
}

fn millis(at: fleetgate_engine::time::Wall) -> i64 {
    at.as_millis()
}

fn digest(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fleetgate_engine::id::Id;
    use fleetgate_engine::time::Wall;

    use super::*;
    use crate::store::{fixture, states};

    const HOST: HostId = Id::from_i64(7);

    fn of_host(state: HostState) -> Batch {
        Batch { hosts: [(HOST, state)].into(), ..Batch::default() }
    }

    fn of_service(state: ServiceState) -> Batch {
        Batch { services: [(HOST, vec![Arc::new(state)])].into(), ..Batch::default() }
    }

    fn at(seconds: i64) -> Option<Wall> {
        Some(Wall::from_millis(seconds * 1_000))
    }

    #[test]
    fn a_result_like_the_one_before_is_a_check_and_another_state_is_a_change() {
        let mut written = Written::default();
        let up = fixture::up(HOST);
        let next = HostState {
            last_check: at(60),
            next_check: at(120),
            output: "packet 3 s ago".into(),
            ..up.clone()
        };
        let checked = |last_check, next_check| Change::Checked { host: HOST, last_check, next_check };
        assert_eq!(written.changes(&of_host(up.clone())), [Change::Host(HOST)], "it is new");
        assert_eq!(written.changes(&of_host(next.clone())), [checked(at(60), at(120))]);
        for moved in [
            HostState { stale: true, ..next.clone() },
            HostState { status: HostStatus::Down, ..next.clone() },
            HostState { status: HostStatus::Down, output: "no answer".into(), ..next.clone() },
            HostState { asleep: true, ..next },
        ] {
            assert_eq!(written.changes(&of_host(moved)), [Change::Host(HOST)]);
        }
    }

    #[test]
    fn a_result_like_the_one_before_repeats_the_row_and_another_state_changes_it() {
        let mut written = Written::default();
        let (up, ping) = (fixture::up(HOST), fixture::service("ping", Status::Ok));
        let batch = |host: &HostState, service: &ServiceState| Batch {
            hosts: [(HOST, host.clone())].into(),
            services: [(HOST, vec![Arc::new(service.clone())])].into(),
            ..Batch::default()
        };
        let split = |written: &Written, batch: &Batch| {
            let Rows { hosts, services } = written.rows(batch);
            (hosts.changed.len(), hosts.repeated.len(), services.changed.len(), services.repeated.len())
        };
        let first = batch(&up, &ping);
        assert_eq!(split(&written, &first), (1, 0, 1, 0), "both are new");
        written.changes(&first);
        let host = HostState { last_check: at(60), output: "packet 3 s ago".into(), ..up.clone() };
        let mut service = ServiceState { last_check: at(60), ..ping };
        service.result.text = "rta 3 ms".into();
        assert_eq!(split(&written, &batch(&host, &service)), (0, 1, 0, 1));
        let host = HostState { silent_since: at(1), ..host };
        service.cause_since = Wall::from_millis(1);
        assert_eq!(split(&written, &batch(&host, &service)), (1, 0, 1, 0));
    }

    #[test]
    fn services_differ_and_a_changed_problem_text_is_a_change() {
        let mut written = Written::default();
        let (ping, ssh) = (fixture::service("ping", Status::Ok), fixture::service("ssh", Status::Critical));
        let checked = Change::Checked { host: HOST, last_check: None, next_check: None };
        for state in [&ping, &ssh] {
            assert_eq!(written.changes(&of_service(state.clone())), [Change::Host(HOST)]);
            assert_eq!(written.changes(&of_service(state.clone())), std::slice::from_ref(&checked));
        }
        let said = |state: &ServiceState| {
            let mut state = state.clone();
            state.result.text = "something else".into();
            of_service(state)
        };
        assert_eq!(written.changes(&said(&ping)), [checked]);
        assert_eq!(written.changes(&said(&ssh)), [Change::Host(HOST)]);
    }

    #[tokio::test]
    async fn states_read_at_the_start_are_no_changes() {
        let (store, _dir) = fixture::store().await;
        fixture::device(&store, 7, "cam").await;
        store.all_hosts(&fixture::TIMING).await.unwrap();
        let (up, ping) = (fixture::up(HOST), fixture::service("ping", Status::Ok));
        let mut tx = store.begin().await.unwrap();
        states::write_hosts(&mut tx, &[&up]).await.unwrap();
        states::write_services(&mut tx, &[(HOST, &ping)]).await.unwrap();
        tx.commit().await.unwrap();
        let mut written = Written::default();
        written.know(&store.all_hosts(&fixture::TIMING).await.unwrap());
        for batch in [of_host(up), of_service(ping)] {
            assert!(matches!(written.changes(&batch)[..], [Change::Checked { .. }]));
        }
    }

    #[test]
    fn an_acknowledgement_that_ends_moves_the_problems() {
        let log = vec![Entry::AckEnded(Id::from_i64(1), Wall::from_millis(0))];
        let batch = Batch { log, ..Batch::default() };
        assert_eq!(Written::default().changes(&batch), [Change::Problems]);
    }
}
