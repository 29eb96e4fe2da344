//! What is told of a host while its parents, or the tunnel that leads to it, are not there.

use std::time::Duration;

use super::lab::{Lab, Truth};
use crate::monitor::testing;
use crate::wire::{HostSpec, MonitorInput, News};

/// Both are back at the same time, and the tunnel tells of the router first.
#[test]
fn a_host_is_not_told_of_by_a_question_that_was_asked_while_its_parent_was_down() {
    for to in (1_500..1_860).step_by(3).map(f64::from) {
        // Each sends a packet a second once it has sent the first.
        let back = |after: f64| {
            let packet = move |t: f64| match t {
                t if t < 600.0 => (t / 25.0).floor() * 25.0,
                t if t < to + after => 575.0,
                t => t.floor(),
            };
            Truth::new(packet, move |t| t < 600.0 || t >= to)
        };
        let mut lab = Lab::new();
        let router = lab.add(testing::host(1), back(1.0));
        lab.add(testing::host(9), Truth::well());
        let child = lab.add(HostSpec { parents: vec![router], ..testing::host(2) }, back(20.0));
        lab.run_to(to + 1.0);
        lab.input(MonitorInput::News(News::Heard(router)));
        lab.run_to(to + 20.0);
        lab.input(MonitorInput::News(News::Heard(child)));
        lab.run(Duration::from_secs(120));
        assert_eq!(lab.told_of("cam-2"), Vec::<String>::new(), "{to}");
    }
}
