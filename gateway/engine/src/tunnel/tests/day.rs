//! The traffic that an idle device causes in a day.

use std::time::Duration;

use super::world::*;
use crate::monitor::profile::PING_COUNT;
use crate::wire::Question;

const MINUTE: Duration = Duration::from_secs(60);
/// The default of `checks.ping_interval`.
const PING_EVERY: Duration = Duration::from_secs(300);
const MB: u64 = 1_000_000;

/// The default profile of a device without logins: evidence every minute, which is free, and
/// `ping`, which always sends. Keepalives are sent every 25 s, handshakes when they are due.
#[test]
fn an_idle_device_at_a_minutes_resolution_stays_under_a_megabyte_a_day() {
    let mut world = connected(1);
    let midnight = Duration::from_secs(86_400 - world.now.wall.as_millis() as u64 / 1_000 % 86_400);
    world.run(midnight);
    for minute in 0..24 * 60 {
        world.ask(Question::Evidence { peer: id(2) }, MINUTE / 4);
        if minute % (PING_EVERY.as_secs() / 60) == 0 {
            world.ask(Question::Echo { peer: id(2), address: v4(2), count: PING_COUNT }, MINUTE / 4);
        }
        world.run(MINUTE);
        world.answers.clear();
        world.captured.clear();
    }
    let status = world.tunnel.status(id(2)).expect("a peer");
    let now = world.now.wall.as_millis() / 86_400_000;
    let day = status.wire.into_iter().find(|day| day.day == now - 1).expect("a whole day");
    println!(
        "an idle device costs {} bytes a day: {} from it, {} to it",
        day.total(),
        day.rx_bytes,
        day.tx_bytes
    );
    assert!((MB / 4..MB).contains(&day.total()), "{day:?}");
}
