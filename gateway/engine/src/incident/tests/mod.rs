mod clock;
mod lives;
mod many;

use proptest::prelude::*;

use super::*;
use crate::id::Id;
use crate::messages::{CauseKind, IncidentChange, IncidentScope, IncidentSnapshot, MemberSnapshot};

/// A fleet in which checkables fail, and the records of its incidents.
struct Watch {
    incidents: Incidents,
    secs: u64,
    /// Seconds by which the wall clock is ahead of its initial setting.
    ahead_s: i64,
    said: Vec<IncidentRecord>,
}

/// Returns the id of a host, never that of the gateway.
fn id(n: i64) -> HostId {
    Id::from_i64(n + 1)
}

fn host(n: i64) -> CheckableId {
    CheckableId::host(id(n))
}

fn service(n: i64, name: &str) -> CheckableId {
    CheckableId { host: id(n), service: Some(name.to_owned()) }
}

impl Watch {
    fn new() -> Watch {
        Watch { incidents: Incidents::default(), secs: 1_000_000, ahead_s: 0, said: Vec::new() }
    }

    /// Creates hosts `0..count` of one site, all up.
    fn of_site(site: &str, count: i64) -> Watch {
        let mut watch = Watch::new();
        (0..count).for_each(|n| watch.know(n, Some(site), &[]));
        watch
    }

    fn know(&mut self, n: i64, site: Option<&str>, parents: &[i64]) {
        let parents: Vec<HostId> = parents.iter().map(|p| id(*p)).collect();
        self.incidents.know(id(n), &format!("cam-{n}"), site, &parents, Some(None));
        self.incidents.know_services(id(n), ["disk", "load", "ssh"].into_iter());
    }

    fn now(&self) -> Now {
        let wall = Wall::from_millis((self.secs as i64 + self.ahead_s) * 1_000);
        Now { mono: Mono::from_secs(self.secs), wall }
    }

    fn at(&self) -> Moment {
        Moment { now: self.now(), draw: 7 }
    }

    fn wait(&mut self, secs: u64) -> &mut Watch {
        self.secs += secs;
        self.incidents.look(self.now());
        self
    }

    fn problem(&mut self, object: &CheckableId) -> Assigned {
        self.found(object, true)
    }

    /// Reports a problem that began this moment.
    fn found(&mut self, object: &CheckableId, reachable: bool) -> Assigned {
        let at = self.at();
        self.incidents.problem(object, at.now.wall, &critical(object), reachable, at)
    }

    /// Reports the state of a service that fails.
    fn reads(&mut self, object: &CheckableId, status: Status, reading: &str) {
        let (at, reading) = (self.at(), Some(reading.to_owned()));
        let found = ProblemFinding { status: Some(status), reading };
        self.incidents.problem(object, at.now.wall, &found, true, at);
    }

    fn well(&mut self, object: &CheckableId) {
        let now = self.now();
        self.incidents.well(object, now);
    }

    fn acknowledge(&mut self, id: IncidentId, ack: IncidentAck) -> Vec<CheckableId> {
        let now = self.now();
        self.incidents.acknowledge(id, ack, now)
    }

    fn of(&self, object: &CheckableId) -> IncidentId {
        self.incidents.of(object).expect("it belongs somewhere")
    }

    /// Returns the kinds of the changes since the last call.
    fn heard(&mut self) -> Vec<&'static str> {
        let fresh: Vec<IncidentRecord> = std::iter::from_fn(|| self.incidents.poll_record()).collect();
        let names = fresh.iter().map(|r| match r.change {
            IncidentChange::Opened(_) => "opened",
            IncidentChange::Widened(_) => "widened",
            IncidentChange::Reworded(_) => "reworded",
            IncidentChange::Joined { .. } => "joined",
            IncidentChange::Left(_) => "left",
            IncidentChange::Merged(_) => "merged",
            IncidentChange::Closed => "closed",
            IncidentChange::Covered { .. } => "covered",
            IncidentChange::AckEnded(_) => "ack ended",
        });
        let names = names.collect();
        self.said.extend(fresh);
        names
    }

    fn matter(&mut self) -> IncidentSummary {
        self.heard();
        let last = self.said.iter().rev().find_map(|r| match &r.change {
            IncidentChange::Opened(matter) | IncidentChange::Widened(matter) => Some(matter.clone()),
            _ => None,
        });
        last.expect("something was opened")
    }
}

/// A failing service is critical, and no limit explains it.
fn critical(object: &CheckableId) -> ProblemFinding {
    ProblemFinding { status: object.service.as_ref().map(|_| Status::Critical), reading: None }
}

fn ack() -> IncidentAck {
    IncidentAck { sticky: true, expires: None, words: "user:ada: on it".into() }
}

#[test]
fn a_host_keeps_its_incident_until_it_has_been_up_for_a_while() {
    let mut watch = Watch::new();
    watch.know(1, None, &[]);
    watch.problem(&host(1));
    assert_eq!(watch.heard(), ["opened", "joined"]);
    watch.wait(60).problem(&host(1));
    assert_eq!(watch.heard(), [""; 0]);
    let first = watch.of(&host(1));
    watch.well(&host(1));
    watch.wait(60).problem(&host(1));
    assert_eq!((watch.of(&host(1)), watch.heard()), (first, vec!["left", "joined"]), "a bounce");
    watch.well(&host(1));
    watch.wait(120);
    assert_eq!(watch.heard(), ["left", "closed"]);
    let closed = watch.said.last().unwrap();
    assert_eq!(closed.at.as_millis(), (watch.secs as i64 - 120) * 1_000, "closed when it was well");
    watch.problem(&host(1));
    assert!(watch.of(&host(1)) > first);
}

#[test]
fn the_incident_of_a_service_names_its_state_and_the_value_that_crossed_a_limit() {
    let mut watch = Watch::new();
    watch.know(1, None, &[]);
    let temperature = service(1, "temperature");
    watch.reads(&temperature, Status::Warning, "62 °C, limit 60");
    assert_eq!(watch.matter().words, "cam-1: temperature warning (62 °C, limit 60)");
    watch.reads(&temperature, Status::Warning, "64 °C, limit 60");
    assert_eq!(watch.heard(), [""; 0], "only a new state is news");
    watch.reads(&temperature, Status::Critical, "78 °C, limit 70");
    assert_eq!(watch.heard(), ["reworded"]);
    let last = watch.said.last().map(|record| record.change.clone());
    let words = "cam-1: temperature critical (78 °C, limit 70)".to_owned();
    assert_eq!(last, Some(IncidentChange::Reworded(words)));
    watch.well(&temperature);
    watch.wait(60).reads(&temperature, Status::Warning, "61 °C, limit 60");
    assert_eq!(watch.heard(), ["left", "joined", "reworded"], "it comes back in another state");
    watch.problem(&service(1, "disk"));
    assert_eq!(watch.matter().words, "cam-1: several services have problems");

    let mut watch = Watch::new();
    watch.know(2, None, &[]);
    watch.problem(&service(2, "ssh"));
    assert_eq!(watch.matter().words, "cam-2: ssh critical", "no value is invented");
}

#[test]
fn services_that_fail_together_on_a_host_share_an_incident_and_later_ones_open_another() {
    let mut watch = Watch::new();
    watch.know(1, None, &[]);
    watch.problem(&service(1, "disk"));
    assert_eq!(watch.matter().extent, IncidentScope::Service);
    watch.wait(60).problem(&service(1, "load"));
    assert_eq!(watch.of(&service(1, "load")), watch.of(&service(1, "disk")));
    assert_eq!(watch.matter().extent, IncidentScope::Host);
    watch.wait(3_600).problem(&service(1, "camera"));
    assert_ne!(watch.of(&service(1, "camera")), watch.of(&service(1, "disk")));
}

#[test]
fn a_host_that_falls_with_its_services_takes_them_in_and_never_hides_behind_their_acknowledgement() {
    let mut watch = Watch::new();
    watch.know(1, None, &[]);
    watch.problem(&service(1, "ping"));
    watch.wait(20).problem(&host(1));
    assert_eq!(watch.of(&host(1)), watch.of(&service(1, "ping")));
    assert_eq!(watch.matter().words, "cam-1 is down");

    let mut watch = Watch::new();
    watch.know(1, None, &[]);
    watch.problem(&service(1, "disk"));
    let disk = watch.of(&service(1, "disk"));
    assert_eq!(watch.acknowledge(disk, ack()), [service(1, "disk")]);
    assert_eq!(watch.wait(20).problem(&host(1)), Assigned::default());
    assert_ne!(watch.of(&host(1)), disk);
}

#[test]
fn the_acknowledgement_of_a_service_covers_no_other_service_unless_the_host_is_down() {
    let mut watch = Watch::new();
    watch.know(1, None, &[]);
    watch.problem(&service(1, "disk"));
    let disk = watch.of(&service(1, "disk"));
    watch.acknowledge(disk, ack());
    assert_eq!(watch.wait(20).problem(&service(1, "backup")), Assigned::default());
    assert_ne!(watch.of(&service(1, "backup")), disk);
    watch.problem(&host(1));
    let down = watch.of(&host(1));
    watch.acknowledge(down, ack());
    assert!(watch.wait(600).problem(&service(1, "load")).known.is_some(), "the host speaks for it");
}

#[test]
fn most_of_a_site_that_falls_silent_together_is_one_incident() {
    let mut watch = Watch::of_site("north", 10);
    for n in 0..4 {
        watch.wait(2).problem(&host(n));
    }
    let first = watch.of(&host(0));
    assert_ne!(watch.of(&host(3)), first, "four are soon read");
    watch.wait(2).problem(&host(4));
    assert!((0..5).all(|n| watch.of(&host(n)) == first));
    assert_eq!(watch.matter().words, "many hosts of north stopped answering at once", "half is not most");
    watch.wait(2).problem(&host(5));
    assert!((0..6).all(|n| watch.of(&host(n)) == first));
    let matter = watch.matter();
    assert_eq!((matter.extent, matter.cause), (IncidentScope::Site, CauseKind::SiteLost));
    assert_eq!(matter.words, "most of north stopped answering at once");
    watch.wait(60).problem(&host(9));
    assert_eq!(watch.of(&host(9)), first, "later ones join");
}

#[test]
fn a_later_failure_is_not_covered_by_the_acknowledgement_of_a_lost_site() {
    let mut watch = Watch::of_site("north", 5);
    (0..4).for_each(|n| drop(watch.problem(&host(n))));
    let site = watch.of(&host(0));
    watch.acknowledge(site, ack());
    watch.well(&host(0));
    watch.wait(3_600);
    for later in [4, 0] {
        assert_eq!(watch.problem(&host(later)).known, None, "most of it is still down");
        assert_ne!(watch.of(&host(later)), site);
    }
    assert_eq!(watch.of(&host(1)), site);
}

#[test]
fn two_hosts_and_hosts_that_fail_one_by_one_are_no_lost_site() {
    let mut watch = Watch::of_site("pair", 2);
    watch.problem(&host(0));
    watch.problem(&host(1));
    assert_ne!(watch.of(&host(0)), watch.of(&host(1)));

    let mut watch = Watch::of_site("north", 5);
    for n in 0..5 {
        watch.wait(3_600).problem(&host(n));
    }
    assert!((1..5).all(|n| watch.of(&host(n)) != watch.of(&host(n - 1))));
}

#[test]
fn the_acknowledgement_of_one_host_does_not_cover_its_site() {
    let mut watch = Watch::of_site("north", 4);
    watch.problem(&host(0));
    let known = watch.of(&host(0));
    watch.acknowledge(known, ack());
    watch.problem(&host(1));
    assert_eq!(watch.problem(&host(2)).known, None);
    let site = watch.of(&host(2));
    assert!(site != known && (0..3).all(|n| watch.of(&host(n)) == site));
    assert_eq!(watch.problem(&host(3)).known, None);
}

#[test]
fn a_lost_site_is_unacknowledged_even_if_each_of_its_hosts_was_acknowledged() {
    let mut watch = Watch::of_site("north", 4);
    watch.problem(&host(2));
    watch.problem(&service(2, "disk"));
    let mut known = vec![watch.of(&host(2))];
    watch.well(&host(2));
    for n in 0..2 {
        watch.problem(&host(n));
        known.push(watch.of(&host(n)));
    }
    known.iter().for_each(|id| drop(watch.acknowledge(*id, ack())));
    watch.wait(30).problem(&host(2));
    let site = watch.of(&host(2));
    assert!(!known.contains(&site) && (0..3).all(|n| watch.of(&host(n)) == site));
    assert_eq!(watch.problem(&host(3)).known, None);
    let merged = |r: &&IncidentRecord| matches!(r.change, IncidentChange::Merged(_));
    watch.heard();
    assert_eq!(watch.said.iter().filter(merged).count(), 3, "who knew of a host knows of that");
}

/// Three devices of a site, and hosts behind the first. The hosts carry the label of the site or
/// none.
#[test]
fn a_lost_site_takes_in_the_incident_of_its_device_and_members_that_stay_down_leave() {
    for label in [None, Some("north")] {
        let mut watch = Watch::of_site("north", 3);
        (3..8).for_each(|n| watch.know(n, label, &[0]));
        watch.problem(&host(1));
        watch.problem(&host(0));
        watch.problem(&host(2));
        (3..8).for_each(|n| drop(watch.found(&host(n), false)));
        let site = watch.of(&host(0));
        assert!((1..8).all(|n| watch.of(&host(n)) == site), "{label:?}");
        assert_eq!(watch.matter(), summary::site("north"), "{label:?}");
        watch.well(&host(0));
        let placed = watch.wait(30).problem(&host(7));
        assert_eq!(placed.left, Some(site), "{label:?}: its device is back");
    }
}

/// The same in the other order: the hosts behind the device are found down first.
#[test]
fn a_device_that_heads_others_is_one_of_the_hosts_of_a_lost_site() {
    let mut watch = Watch::of_site("north", 6);
    (6..30).for_each(|n| watch.know(n, Some("north"), &[0]));
    watch.problem(&host(0));
    (6..30).for_each(|n| drop(watch.found(&host(n), false)));
    assert_eq!(watch.matter().cause, CauseKind::ParentDown, "nothing else of the site has failed");
    watch.problem(&host(1));
    watch.problem(&host(2));
    assert_ne!(watch.of(&host(1)), watch.of(&host(0)), "three of six are not most of it");
    watch.problem(&host(3));
    assert!((1..4).all(|n| watch.of(&host(n)) == watch.of(&host(0))));
    assert_eq!(watch.matter(), summary::site("north"));
}

/// A router (0) before cameras (1..=count).
fn behind_a_router(count: i64) -> Watch {
    let mut watch = Watch::new();
    watch.know(0, Some("north"), &[]);
    (1..=count).for_each(|n| watch.know(n, Some("north"), &[0]));
    watch
}

#[test]
fn an_unreachable_host_joins_the_incident_of_its_parent() {
    let mut watch = behind_a_router(1_000);
    watch.problem(&host(1));
    watch.wait(5).problem(&host(0));
    for n in 1..=1_000 {
        watch.found(&host(n), false);
    }
    let router = watch.of(&host(0));
    assert!((1..=1_000).all(|n| watch.of(&host(n)) == router), "the first one too");
    assert_eq!(watch.matter().cause, CauseKind::ParentDown);
    let heard: Vec<_> =
        watch.said.iter().filter(|r| matches!(r.change, IncidentChange::Widened(_))).collect();
    assert_eq!(heard.len(), 1);
}

#[test]
fn a_router_of_which_several_services_failed_first_heads_its_incident_once_it_is_down() {
    let mut watch = behind_a_router(2);
    watch.problem(&service(0, "disk"));
    watch.problem(&service(0, "load"));
    watch.problem(&host(0));
    assert_eq!(watch.matter().words, "cam-0 is down");
    watch.found(&host(1), false);
    assert_eq!(watch.matter().cause, CauseKind::ParentDown);
    let (router, began) = (watch.of(&host(0)), watch.now().wall);
    watch.wait(600).well(&host(0));
    let at = watch.at();
    assert_eq!(
        watch.incidents.problem(&host(1), began, &ProblemFinding::default(), true, at).left,
        Some(router)
    );
}

#[test]
fn a_host_that_stays_down_after_the_cause_is_gone_leaves_and_is_notified_by_itself() {
    let mut watch = behind_a_router(3);
    watch.problem(&host(0));
    for n in 1..=3 {
        watch.found(&host(n), false);
    }
    let router = watch.of(&host(0));
    watch.acknowledge(router, ack());
    watch.well(&host(0));
    watch.well(&host(1));
    watch.well(&host(2));
    let placed = watch.wait(30).problem(&host(3));
    assert_eq!(placed, Assigned { left: Some(router), known: None });
    assert_ne!(watch.of(&host(3)), router);
    watch.wait(300);
    assert!(watch.heard().ends_with(&["closed"]));
}

#[test]
fn a_host_that_joins_an_acknowledged_incident_is_acknowledged_until_that_expires() {
    let mut watch = behind_a_router(2);
    watch.problem(&host(0));
    let router = watch.of(&host(0));
    let until = watch.now().wall + Duration::from_secs(60);
    watch.acknowledge(router, IncidentAck { expires: Some(until), ..ack() });
    assert!(watch.found(&host(1), false).known.is_some());
    assert_eq!(watch.wait(60).found(&host(2), false), Assigned::default());
}

#[test]
fn an_expired_acknowledgement_does_not_apply_and_a_later_one_replaces_it() {
    let mut watch = Watch::new();
    watch.know(1, None, &[]);
    watch.problem(&service(1, "disk"));
    let disk = watch.of(&service(1, "disk"));
    let until = |watch: &Watch, secs| {
        let expires = Some(watch.now().wall + Duration::from_secs(secs));
        IncidentAck { expires, ..ack() }
    };
    let (first, second) = (until(&watch, 60), until(&watch, 90));
    watch.acknowledge(disk, first);
    watch.acknowledge(disk, second);
    watch.heard();
    watch.wait(60);
    assert_eq!(watch.heard(), [""; 0], "the second holds");
    let due = watch.incidents.due();
    assert_eq!(due, Some(Mono::from_secs(watch.secs + 30)));
    watch.wait(30);
    assert_eq!((watch.heard(), watch.incidents.due()), (vec!["ack ended"], None));
    watch.problem(&service(1, "load"));
    assert_eq!(watch.of(&service(1, "load")), disk, "nobody knows of it any more");
}

#[test]
fn the_uplink_takes_in_what_it_explains_and_leaves_what_outlives_it() {
    let mut watch = Watch::of_site("north", 2);
    watch.know(7, None, &[]);
    watch.problem(&host(7));
    watch.wait(3_600).problem(&host(0));
    let at = watch.wait(30).at();
    watch.incidents.uplink(true, at);
    let gateway = watch.of(&CheckableId::host(GATEWAY));
    assert_eq!(watch.of(&host(0)), gateway);
    assert_ne!(watch.of(&host(7)), gateway, "down for an hour before");
    let at = watch.wait(600).at();
    watch.incidents.uplink(false, at);
    assert_eq!(watch.problem(&host(0)).left, Some(gateway));
    assert_ne!(watch.of(&host(0)), gateway);
}

#[test]
fn merged_members_are_covered_by_the_acknowledgement_of_the_cause() {
    let mut watch = behind_a_router(2);
    watch.problem(&host(1));
    watch.problem(&host(0));
    let router = watch.of(&host(0));
    watch.acknowledge(router, ack());
    watch.found(&host(1), false);
    assert_eq!(watch.incidents.poll_cover(), Some(AckToApply { object: host(1), ack: ack() }));
    let (_, incident) = watch.incidents.cover(&host(1), watch.at()).unwrap();
    assert_eq!(incident, router);
}

#[test]
fn a_former_incident_does_not_decide_the_present_one() {
    let mut watch = behind_a_router(2);
    watch.problem(&host(1));
    watch.problem(&service(1, "disk"));
    let own = watch.of(&host(1));
    watch.well(&host(1));
    watch.wait(30).problem(&host(0));
    watch.found(&host(1), false);
    let router = watch.of(&host(0));
    assert_eq!(watch.of(&host(1)), router);
    let now = watch.now();
    watch.incidents.merge(own, router, now);
    assert_eq!(watch.incidents.place_of_ill(&host(1)), Some(router));
    let member = |object, left| MemberSnapshot { object, began: now.wall, left, covered: false };
    let memory = |id, members| {
        let matter = summary::host("cam-1", host(1).host, None);
        IncidentSnapshot { id, opened: now.wall, matter, members, ack: None }
    };
    let mut again = behind_a_router(2);
    let newest_first =
        vec![memory(router, vec![member(host(1), None)]), memory(own, vec![member(host(1), Some(now.wall))])];
    again.incidents.restore(newest_first, now);
    assert_eq!(again.incidents.place_of_ill(&host(1)), Some(router));
}

#[test]
fn removed_objects_leave_and_a_restart_continues() {
    let mut watch = Watch::of_site("north", 3);
    watch.problem(&host(0));
    let before = watch.of(&host(0));
    let memory = IncidentSnapshot {
        id: before,
        opened: watch.now().wall,
        matter: watch.matter(),
        members: vec![MemberSnapshot { object: host(0), began: watch.now().wall, left: None, covered: true }],
        ack: Some(ack()),
    };
    let mut again = Watch::of_site("north", 3);
    again.incidents.restore(vec![memory], again.now());
    assert_eq!(again.problem(&host(0)), Assigned::default());
    assert_eq!((again.of(&host(0)), again.heard()), (before, vec![]), "nothing is said twice");
    let now = again.now();
    again.incidents.forget(|_| true, id(0), now);
    again.wait(120);
    assert_eq!(again.heard(), ["left", "ack ended", "closed"]);
}

proptest! {
    /// For any sequence of failures and recoveries, each problem belongs to exactly one open
    /// incident. The records add up to the incidents, and everything closes when all have
    /// recovered.
    #[test]
    fn the_records_of_an_incident_are_consistent(steps in proptest::collection::vec((0i64..12, 0u8..8, 1u64..400), 1..120)) {
        let mut watch = behind_a_router(5);
        (6..12).for_each(|n| watch.know(n, Some("south"), &[]));
        let mut problem: BTreeMap<CheckableId, ()> = BTreeMap::new();
        for (n, what, secs) in steps {
            watch.wait(secs);
            let object = match what {
                0 | 6 => service(n, "disk"),
                7 => service(n, "load"),
                _ => host(n),
            };
            let is_host = object.service.is_none();
            let router_down = problem.contains_key(&host(0));
            let reachable = !(is_host && router_down && (1..=5).contains(&n));
            match what {
                0..=2 | 6 | 7 if secs % 4 > 0 || is_host => {
                    let fresh = problem.insert(object.clone(), ()).is_none();
                    watch.found(&object, reachable);
                    if fresh && !is_host {
                        prop_assert!(naive_common(&watch, &object).is_none_or(|common| common));
                    }
                }
                0..=4 | 6 | 7 => { watch.well(&object); problem.remove(&object); }
                _ => { let at = watch.at(); watch.incidents.uplink(secs % 2 == 0, at); }
            }
            prop_assert!(watch.incidents.places.values().all(|id| watch.incidents.open.contains_key(id)));
            for object in problem.keys() {
                let place = watch.incidents.place_of_ill(object);
                prop_assert!(place.is_some(), "{object:?}");
            }
            for (id, incident) in &watch.incidents.open {
                let count = incident.members.values().filter(|m| m.has_problem()).count();
                prop_assert_eq!(count, incident.problem, "{:?}", id);
                prop_assert_eq!(incident.quiet.is_some(), count == 0);
                prop_assert!(is_of_one_host_or_explained(incident), "{:?}", incident);
            }
        }
        let at = watch.at();
        watch.incidents.uplink(false, at);
        problem.keys().for_each(|object| watch.well(object));
        watch.wait(120);
        prop_assert!(watch.incidents.open.is_empty() && watch.incidents.places.is_empty());
        prop_assert_eq!(replay(&mut watch), 0);
    }
}

/// Whether a service that has just failed shares an incident with the hosts on which the same
/// service fails. Applies if enough hosts fail at that time without another explanation; counts
/// them one by one.
fn naive_common(watch: &Watch, object: &CheckableId) -> Option<bool> {
    let open = &watch.incidents.open;
    let place = |o: &CheckableId| watch.incidents.place_of_ill(o).and_then(|id| Some((id, open.get(&id)?)));
    let began = place(object)?.1.members[object].began;
    let same = (0..12).map(|n| CheckableId { host: id(n), ..object.clone() }).filter(|o| {
        let Some((_, i)) = place(o) else { return false };
        let of_hosts = i.members.keys().any(|m| m.service.is_none());
        !of_hosts && apart(i.members[o].began, began) <= CORRELATION_WINDOW
    });
    let (own, hosts) = (place(object)?.0, same.clone().count());
    let with_it = same.filter(|o| place(o).is_some_and(|(id, _)| id == own)).count();
    (hosts >= by_service::FEWEST).then(|| {
        with_it >= by_service::FEWEST
            || place(object).unwrap().1.members.contains_key(&CheckableId::host(object.host))
    })
}

/// Whether an incident of several hosts has a head host, covers a site, or had enough hosts.
fn is_of_one_host_or_explained(incident: &Incident) -> bool {
    let hosts: BTreeSet<HostId> = incident.members.keys().map(|o| o.host).collect();
    match incident.matter.extent {
        IncidentScope::Service | IncidentScope::Host => hosts.len() == 1,
        IncidentScope::Fleet => hosts.len() >= by_service::FEWEST,
        IncidentScope::Site | IncidentScope::Gateway => true,
    }
}

/// Replays the records alone and returns the number of members left in open incidents.
fn replay(watch: &mut Watch) -> usize {
    watch.heard();
    let mut open: BTreeMap<IncidentId, BTreeMap<CheckableId, bool>> = BTreeMap::new();
    for record in &watch.said {
        match &record.change {
            IncidentChange::Opened(_) => drop(open.insert(record.id, BTreeMap::new())),
            IncidentChange::Joined { object, .. } => {
                open.get_mut(&record.id).expect("open").insert(object.clone(), true);
            }
            IncidentChange::Left(object) => {
                open.get_mut(&record.id).expect("open").insert(object.clone(), false);
            }
            IncidentChange::Merged(into) => {
                let members = open.remove(&record.id).expect("open");
                open.get_mut(into).expect("open").extend(members);
            }
            IncidentChange::Closed => {
                let members = open.remove(&record.id).expect("open");
                assert!(members.values().all(|problem| !problem), "closed while something is wrong");
            }
            _ => {}
        }
    }
    open.values().flat_map(|members| members.values()).filter(|problem| **problem).count()
}
