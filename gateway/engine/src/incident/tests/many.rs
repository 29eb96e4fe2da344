//! Hosts that go down together, and services that fail on many hosts.

use super::*;

/// Hosts `0..count`, each at a site of its own.
fn scattered(count: i64) -> Watch {
    let mut watch = Watch::new();
    (0..count).for_each(|n| watch.know(n, Some(&format!("site-{n}")), &[]));
    watch
}

#[test]
fn a_service_that_fails_on_many_hosts_together_is_one_incident() {
    let mut watch = scattered(40);
    for n in 0..4 {
        watch.wait(10).problem(&service(n, "ssh"));
    }
    assert_ne!(watch.of(&service(0, "ssh")), watch.of(&service(3, "ssh")), "four may be a coincidence");
    for n in 4..40 {
        watch.wait(5).problem(&service(n, "ssh"));
    }
    let first = watch.of(&service(0, "ssh"));
    assert!((0..40).all(|n| watch.of(&service(n, "ssh")) == first));
    let matter = watch.matter();
    assert_eq!((matter.extent, matter.cause), (IncidentScope::Fleet, CauseKind::ServiceFailed));
    assert_eq!(matter.words, "ssh critical on many hosts");
    let opened = watch.said.iter().filter(|r| matches!(r.change, IncidentChange::Opened(_))).count();
    assert_eq!(opened, 5, "who fails later joins at once");
    (0..40).for_each(|n| watch.well(&service(n, "ssh")));
    watch.wait(120);
    assert!(watch.heard().ends_with(&["closed"]));
}

#[test]
fn a_service_that_has_different_states_on_many_hosts_is_failing_there() {
    let mut watch = scattered(10);
    watch.reads(&service(0, "disk"), Status::Warning, "used 85 %, limit 80");
    (1..5).for_each(|n| drop(watch.problem(&service(n, "disk"))));
    assert_eq!(watch.matter().words, "disk failing on many hosts");

    let mut watch = scattered(10);
    (0..5).for_each(|n| drop(watch.problem(&service(n, "disk"))));
    assert_eq!(watch.matter().words, "disk critical on many hosts");
    watch.reads(&service(7, "disk"), Status::Warning, "used 85 %, limit 80");
    assert_eq!(watch.heard(), ["joined", "reworded"]);
    let last = watch.said.last().map(|record| record.change.clone());
    assert_eq!(last, Some(IncidentChange::Reworded("disk failing on many hosts".to_owned())));
}

#[test]
fn a_few_of_a_large_fleet_and_hosts_that_fail_one_by_one_are_no_common_failure() {
    let mut watch = scattered(100);
    for n in 0..9 {
        watch.wait(1).problem(&service(n, "ssh"));
    }
    assert!((1..9).all(|n| watch.of(&service(n, "ssh")) != watch.of(&service(0, "ssh"))), "a tenth is ten");
    watch.wait(1).problem(&service(9, "ssh"));
    assert!((1..10).all(|n| watch.of(&service(n, "ssh")) == watch.of(&service(0, "ssh"))));

    let mut watch = scattered(10);
    for n in 0..10 {
        watch.wait(90).problem(&service(n, "ssh"));
    }
    assert!(
        (1..10).all(|n| watch.of(&service(n, "ssh")) != watch.of(&service(0, "ssh"))),
        "four in a window"
    );
}

#[test]
fn other_services_that_fail_with_a_common_failure_join_it_and_hosts_that_go_down_do_not() {
    let mut watch = scattered(40);
    for n in 0..8 {
        watch.wait(2).problem(&service(n, "disk"));
        watch.problem(&service(n, "load"));
    }
    let first = watch.of(&service(0, "disk"));
    assert!((0..8).all(|n| watch.of(&service(n, "disk")) == first && watch.of(&service(n, "load")) == first));
    assert_eq!(watch.matter().words, "several services have problems on many hosts");
    watch.problem(&service(20, "load"));
    assert_eq!(watch.of(&service(20, "load")), first);
    watch.problem(&host(3));
    assert_ne!(watch.of(&host(3)), first, "a host that is gone has another cause");
    let rest = watch.acknowledge(first, ack()).len();
    assert_eq!(rest, 17);
}

#[test]
fn the_acknowledgement_of_a_common_failure_covers_later_members_but_no_later_incident() {
    let mut watch = scattered(30);
    watch.problem(&service(0, "ssh"));
    let known = watch.of(&service(0, "ssh"));
    watch.acknowledge(known, ack());
    for n in 1..6 {
        assert_eq!(watch.wait(1).problem(&service(n, "ssh")).known, None, "who knows of one knows of one");
    }
    let first = watch.of(&service(5, "ssh"));
    assert!(first != known && (0..6).all(|n| watch.of(&service(n, "ssh")) == first));
    watch.acknowledge(first, ack());
    assert_eq!(watch.wait(60).problem(&service(6, "ssh")).known, Some(ack()));
    assert_eq!(watch.problem(&service(6, "disk")).known, None, "of another service nobody knows");
    watch.wait(3_600);
    for n in 10..20 {
        assert_eq!(watch.problem(&service(n, "ssh")).known, None, "the old one goes on");
    }
    let second = watch.of(&service(10, "ssh"));
    assert!(second != first && (10..20).all(|n| watch.of(&service(n, "ssh")) == second));
    let memory = IncidentSnapshot {
        id: first,
        opened: watch.now().wall,
        matter: summary::alike("ssh", Some(Status::Critical)),
        members: (0..6)
            .map(|n| MemberSnapshot {
                object: service(n, "ssh"),
                began: watch.now().wall,
                left: None,
                covered: true,
            })
            .collect(),
        ack: Some(ack()),
    };
    let mut again = scattered(30);
    (again.secs, _) = (watch.secs, again.incidents.restore(vec![memory], watch.now()));
    assert_eq!(again.problem(&service(7, "ssh")).known, Some(ack()), "also after a restart");
}

#[test]
fn hosts_of_many_places_that_fall_together_are_one_incident_with_one_thing_to_acknowledge() {
    let mut watch = scattered(1_000);
    for n in 0..99 {
        watch.problem(&host(n));
    }
    assert_ne!(watch.of(&host(0)), watch.of(&host(98)), "99 of 1,000 may be a coincidence");
    for n in 99..900 {
        watch.wait(u64::from(n % 10 == 0)).problem(&host(n));
    }
    let crowd = watch.of(&host(0));
    assert!((0..900).all(|n| watch.of(&host(n)) == crowd));
    let matter = watch.matter();
    assert_eq!((matter.extent, matter.cause, matter.head), (IncidentScope::Fleet, CauseKind::HostDown, None));
    assert_eq!(watch.acknowledge(crowd, ack()).len(), 900);
    assert_eq!(watch.wait(60).problem(&host(900)).known, Some(ack()), "who falls with them is known of");
    assert_eq!(watch.wait(3_600).problem(&host(901)).known, None, "who falls later is not");
    assert_ne!(watch.of(&host(901)), crowd);
    (0..=901).for_each(|n| watch.well(&host(n)));
    watch.wait(120);
    assert!(watch.incidents.open.is_empty());
}

#[test]
fn in_a_large_fleet_five_hundred_are_one_however_many_more_there_are() {
    let mut watch = scattered(8_000);
    (0..499).for_each(|n| drop(watch.problem(&host(n))));
    assert_ne!(watch.of(&host(0)), watch.of(&host(498)));
    watch.problem(&host(499));
    assert!((0..500).all(|n| watch.of(&host(n)) == watch.of(&host(499))));
}

#[test]
fn a_lost_site_stays_the_sites_whatever_falls_elsewhere() {
    let mut watch = scattered(70);
    (100..130).for_each(|n| watch.know(n, Some("north"), &[]));
    for n in 0..4 {
        watch.wait(1).problem(&host(100 + n));
        assert!((0..n).all(|m| watch.of(&host(100 + m)) != watch.of(&host(100 + n))), "four of it");
    }
    (104..115).for_each(|n| drop(watch.wait(1).problem(&host(n))));
    assert_eq!(watch.matter().words, "many hosts of north stopped answering at once");
    (115..130).for_each(|n| drop(watch.problem(&host(n))));
    (0..5).for_each(|n| drop(watch.problem(&host(n))));
    let north = watch.of(&host(100));
    assert!((0..5).all(|n| watch.incidents.open[&watch.of(&host(n))].is_of(id(n))), "by chance, or not its");
    (5..12).for_each(|n| drop(watch.problem(&host(n))));
    assert!((1..12).all(|n| watch.of(&host(n)) == watch.of(&host(0))), "many elsewhere are another");
    assert!((100..130).all(|n| watch.of(&host(n)) == north));
    assert_eq!(watch.incidents.open[&north].matter.site.as_deref(), Some("north"));
}

/// Loses whole sites of ten hosts each, one after the other, and returns their incidents.
fn lost_sites(count: i64) -> BTreeSet<IncidentId> {
    let mut watch = Watch::new();
    (0..100).for_each(|n| watch.know(n, Some(&format!("site-{}", n / 10)), &[]));
    (0..count * 10).for_each(|n| drop(watch.wait(1).problem(&host(n))));
    (0..count * 10).map(|n| watch.of(&host(n))).collect()
}

#[test]
fn four_lost_sites_are_four_incidents_and_five_are_one() {
    assert_eq!(lost_sites(2).len(), 2);
    assert_eq!(lost_sites(4).len(), 4);
    assert_eq!(lost_sites(5).len(), 1);
    assert_eq!(lost_sites(9).len(), 1);
}

/// Routers `0..8`, each before three hosts of its own site.
fn behind_routers() -> Watch {
    let mut watch = Watch::new();
    for n in 0..8 {
        let site = format!("site-{n}");
        watch.know(n, Some(&site), &[]);
        (0..3).for_each(|m| watch.know(10 + n * 3 + m, Some(&site), &[n]));
    }
    watch
}

#[test]
fn routers_that_go_down_together_take_in_the_hosts_behind_them_and_those_that_stay_down_leave() {
    let mut watch = behind_routers();
    for n in 0..8 {
        watch.wait(2).problem(&host(n));
        (0..3).for_each(|m| drop(watch.found(&host(10 + n * 3 + m), false)));
    }
    let crowd = watch.of(&host(0));
    assert!((0..8).chain(10..34).all(|n| watch.of(&host(n)) == crowd));
    watch.acknowledge(crowd, ack());
    let began = watch.incidents.open[&crowd].members[&host(16)].began;
    watch.wait(600).well(&host(2));
    let still = |watch: &mut Watch, n| {
        let at = watch.at();
        watch.incidents.problem(&host(n), began, &ProblemFinding::default(), true, at)
    };
    assert_eq!(still(&mut watch, 16), Assigned { left: Some(crowd), known: None });
    let own = watch.of(&host(16));
    assert_ne!(own, crowd);
    watch.heard();
    assert_eq!(still(&mut watch, 16), Assigned::default(), "it stays there");
    assert_eq!((watch.of(&host(16)), watch.heard()), (own, vec![]));
    assert_eq!(watch.found(&host(19), false), Assigned::default());
    assert_eq!(watch.of(&host(19)), crowd, "its router is still down");
}

#[test]
fn hosts_that_fall_and_services_that_fail_are_two_things_and_a_restart_knows_both() {
    let mut watch = scattered(20);
    (0..6).for_each(|n| drop(watch.problem(&host(n))));
    (0..6).for_each(|n| drop(watch.problem(&service(n, "ssh"))));
    let crowd = watch.of(&host(0));
    assert!((0..6).all(|n| watch.of(&service(n, "ssh")) == crowd));
    (10..16).for_each(|n| drop(watch.problem(&service(n, "ssh"))));
    let alike = watch.of(&service(10, "ssh"));
    assert!(alike != crowd && (10..16).all(|n| watch.of(&service(n, "ssh")) == alike));
    watch.acknowledge(crowd, ack());
    // In the order in which the store returns them.
    let memories = [alike, crowd].map(|id| remembered(&watch, id));
    let mut again = scattered(20);
    (again.secs, _) = (watch.secs, again.incidents.restore(memories.into(), watch.now()));
    assert_eq!(again.wait(60).problem(&host(7)).known, Some(ack()));
    assert_eq!(again.of(&host(7)), crowd);
    assert_eq!(again.problem(&service(17, "ssh")).known, None);
    assert_eq!(again.of(&service(17, "ssh")), alike);
}

pub(super) fn remembered(watch: &Watch, id: IncidentId) -> IncidentSnapshot {
    let Incident { opened, matter, members, ack, .. } = &watch.incidents.open[&id];
    let members = members.iter().map(|(object, m)| MemberSnapshot {
        object: object.clone(),
        began: m.began,
        left: m.left,
        covered: true,
    });
    let (opened, matter, ack) = (*opened, matter.clone(), ack.clone());
    IncidentSnapshot { id, opened, matter, members: members.collect(), ack }
}

#[test]
fn a_host_that_stays_down_after_its_router_recovers_leaves_an_unacknowledged_incident_once() {
    let mut watch = behind_routers();
    for n in 0..8 {
        watch.wait(2).problem(&host(n));
        (0..3).for_each(|m| drop(watch.found(&host(10 + n * 3 + m), false)));
    }
    let crowd = watch.of(&host(0));
    let began = watch.incidents.open[&crowd].members[&host(16)].began;
    watch.wait(600).well(&host(2));
    for left in [Some(crowd), None, None] {
        let at = watch.at();
        assert_eq!(
            watch.incidents.problem(&host(16), began, &ProblemFinding::default(), true, at).left,
            left
        );
        assert_ne!(watch.of(&host(16)), crowd);
    }
}

#[test]
fn the_acknowledgement_of_a_former_incident_does_not_apply_in_the_next_one() {
    let mut watch = scattered(20);
    watch.problem(&host(0));
    watch.problem(&service(0, "disk"));
    let own = watch.of(&host(0));
    watch.acknowledge(own, ack());
    watch.well(&host(0));
    (1..5).for_each(|n| drop(watch.wait(1).problem(&host(n))));
    assert_eq!(watch.problem(&host(0)).known, None, "nobody knows of the crowd");
    assert_eq!(watch.of(&host(0)), watch.of(&host(4)));
}

#[test]
fn an_old_crowd_of_which_one_is_left_takes_no_lost_site() {
    let mut watch = scattered(12);
    (100..108).for_each(|n| watch.know(n, Some("north"), &[]));
    (0..6).for_each(|n| drop(watch.problem(&host(n))));
    let old = watch.of(&host(0));
    (1..6).for_each(|n| watch.well(&host(n)));
    watch.wait(172_800).well(&host(0));
    watch.wait(60).problem(&host(0));
    (100..108).for_each(|n| drop(watch.problem(&host(n))));
    let north = watch.of(&host(100));
    assert!(north != old && (100..108).all(|n| watch.of(&host(n)) == north));
    assert_eq!(watch.incidents.open[&north].matter.site.as_deref(), Some("north"));
}

#[test]
fn hosts_that_fell_together_long_before_they_are_placed_are_one() {
    let mut watch = Watch::of_site("north", 10);
    let began = watch.now().wall;
    watch.wait(21_600);
    for n in 0..10 {
        let at = watch.wait(1).at();
        watch.incidents.problem(&host(n), began, &ProblemFinding::default(), true, at);
    }
    let north = watch.of(&host(0));
    assert!((0..10).all(|n| watch.of(&host(n)) == north));
}

#[test]
fn an_unreachable_host_two_levels_behind_a_router_leaves_when_the_router_recovers() {
    let mut watch = scattered(8);
    watch.know(20, Some("site-0"), &[0]);
    watch.know(21, Some("site-0"), &[20]);
    (0..8).for_each(|n| drop(watch.problem(&host(n))));
    let crowd = watch.of(&host(0));
    watch.found(&host(21), false);
    assert_eq!(watch.of(&host(21)), crowd);
    let began = watch.now().wall;
    watch.wait(600).well(&host(0));
    let at = watch.at();
    assert_eq!(
        watch.incidents.problem(&host(21), began, &ProblemFinding::default(), true, at).left,
        Some(crowd)
    );
}

#[test]
fn the_uplink_takes_in_a_crowd_that_began_with_it_whatever_its_first_member_had_before() {
    let mut watch = scattered(40);
    watch.problem(&host(0));
    watch.wait(200);
    (1..20).for_each(|n| drop(watch.problem(&host(n))));
    let crowd = watch.of(&host(0));
    assert_eq!(watch.of(&host(19)), crowd);
    let at = watch.wait(60).at();
    watch.incidents.uplink(true, at);
    assert_eq!(watch.incidents.open[&watch.of(&host(19))].matter.extent, IncidentScope::Gateway);

    let mut watch = scattered(40);
    (0..20).for_each(|n| drop(watch.problem(&host(n))));
    let crowd = watch.of(&host(0));
    watch.wait(200).problem(&host(20));
    let at = watch.wait(60).at();
    watch.incidents.uplink(true, at);
    assert_eq!(watch.of(&host(20)), crowd, "one that falls late makes no old crowd the gateway's");
}

#[test]
fn an_acknowledgement_left_open_by_an_earlier_run_does_not_cover_later_failures() {
    let mut watch = scattered(2);
    watch.problem(&host(0));
    let first = watch.of(&host(0));
    watch.well(&host(0));
    let memory = IncidentSnapshot { ack: Some(ack()), ..remembered(&watch, first) };
    let mut again = scattered(2);
    (again.secs, _) = (watch.secs, again.incidents.restore(vec![memory], watch.now()));
    assert_eq!(again.heard(), ["ack ended"]);
    assert_eq!(again.wait(30).problem(&host(0)).known, None);
    assert_eq!(again.of(&host(0)), first);
}

#[test]
fn a_site_that_is_lost_just_after_a_crowd_is_part_of_it_and_later_it_is_its_own() {
    for (after, joins) in [(60, true), (600, false)] {
        let mut watch = scattered(20);
        (100..108).for_each(|n| watch.know(n, Some("north"), &[]));
        (0..6).for_each(|n| drop(watch.problem(&host(n))));
        let crowd = watch.of(&host(0));
        watch.acknowledge(crowd, ack());
        watch.wait(after);
        (100..108).for_each(|n| drop(watch.problem(&host(n))));
        let north = watch.of(&host(100));
        assert!((100..108).all(|n| watch.of(&host(n)) == north));
        assert_eq!(north == crowd, joins);
    }
}
