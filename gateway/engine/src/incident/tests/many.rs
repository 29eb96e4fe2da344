//! Services that fail on many hosts.

use super::*;

/// Hosts `0..count` of which none stands near another.
fn scattered(count: i64) -> Watch {
    let mut watch = Watch::new();
    (0..count).for_each(|n| watch.know(n, Some(&format!("site-{n}")), &[]));
    watch
}

#[test]
fn a_service_that_fails_on_many_hosts_together_is_one_incident() {
    let mut watch = scattered(40);
    for n in 0..4 {
        watch.wait(10).ill(&service(n, "ssh"));
    }
    assert_ne!(watch.of(&service(0, "ssh")), watch.of(&service(3, "ssh")), "four may be a coincidence");
    for n in 4..40 {
        watch.wait(5).ill(&service(n, "ssh"));
    }
    let first = watch.of(&service(0, "ssh"));
    assert!((0..40).all(|n| watch.of(&service(n, "ssh")) == first));
    let matter = watch.matter();
    assert_eq!((matter.extent, matter.cause), (Extent::Fleet, CauseKind::ServiceFailed));
    assert_eq!(matter.words, "ssh is not well on many hosts at once");
    let opened = watch.said.iter().filter(|r| matches!(r.change, IncidentChange::Opened(_))).count();
    assert_eq!(opened, 5, "who fails later joins at once");
    (0..40).for_each(|n| watch.well(&service(n, "ssh")));
    watch.wait(120);
    assert!(watch.heard().ends_with(&["closed"]));
}

#[test]
fn a_few_of_a_large_fleet_and_hosts_that_fail_one_by_one_are_no_common_failure() {
    let mut watch = scattered(100);
    for n in 0..9 {
        watch.wait(1).ill(&service(n, "ssh"));
    }
    assert!((1..9).all(|n| watch.of(&service(n, "ssh")) != watch.of(&service(0, "ssh"))), "a tenth is ten");
    watch.wait(1).ill(&service(9, "ssh"));
    assert!((1..10).all(|n| watch.of(&service(n, "ssh")) == watch.of(&service(0, "ssh"))));

    let mut watch = scattered(10);
    for n in 0..10 {
        watch.wait(90).ill(&service(n, "ssh"));
    }
    assert!(
        (1..10).all(|n| watch.of(&service(n, "ssh")) != watch.of(&service(0, "ssh"))),
        "four in a window"
    );
}

#[test]
fn what_else_such_an_update_breaks_belongs_to_it_and_a_host_that_falls_does_not() {
    let mut watch = scattered(40);
    for n in 0..8 {
        watch.wait(2).ill(&service(n, "disk"));
        watch.ill(&service(n, "load"));
    }
    let first = watch.of(&service(0, "disk"));
    assert!((0..8).all(|n| watch.of(&service(n, "disk")) == first && watch.of(&service(n, "load")) == first));
    assert_eq!(watch.matter().words, "several services are not well on many hosts at once");
    watch.ill(&service(20, "load"));
    assert_eq!(watch.of(&service(20, "load")), first);
    watch.ill(&host(3));
    assert_ne!(watch.of(&host(3)), first, "a host that is gone has another cause");
    let rest = watch.acknowledge(first, ack()).len();
    assert_eq!(rest, 17);
}

#[test]
fn who_knows_of_a_common_failure_knows_of_who_joins_it_and_of_no_later_one() {
    let mut watch = scattered(30);
    watch.ill(&service(0, "ssh"));
    let known = watch.of(&service(0, "ssh"));
    watch.acknowledge(known, ack());
    for n in 1..6 {
        assert_eq!(watch.wait(1).ill(&service(n, "ssh")).known, None, "who knows of one knows of one");
    }
    let first = watch.of(&service(5, "ssh"));
    assert!(first != known && (0..6).all(|n| watch.of(&service(n, "ssh")) == first));
    watch.acknowledge(first, ack());
    assert_eq!(watch.wait(60).ill(&service(6, "ssh")).known, Some(ack()));
    assert_eq!(watch.ill(&service(6, "disk")).known, None, "of another service nobody knows");
    watch.wait(3_600);
    for n in 10..20 {
        assert_eq!(watch.ill(&service(n, "ssh")).known, None, "the old one goes on");
    }
    let second = watch.of(&service(10, "ssh"));
    assert!(second != first && (10..20).all(|n| watch.of(&service(n, "ssh")) == second));
    let memory = IncidentMemory {
        id: first,
        opened: watch.now().wall,
        matter: words::alike("ssh"),
        members: (0..6)
            .map(|n| MemberMemory {
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
    assert_eq!(again.ill(&service(7, "ssh")).known, Some(ack()), "also after a restart");
}
