//! The truth: which devices are on, which links carry packets, and when that changes.
//!
//! Every host has one kind of fate and lives it independently; it also needs its site's router and
//! the gateway. This module knows nothing about checks.

use std::collections::BTreeMap;
use std::time::Duration;

use fleetgate_engine::time::Mono;

use super::MAX_SILENCE;
use crate::dice::Dice;

/// How often a device with a keepalive sends a packet.
const KEEPALIVE: Duration = Duration::from_secs(25);
/// How long the gateway keeps a session whose link is lost.
const SESSION: Duration = Duration::from_secs(120);
/// Hosts of a site with a router; the first host is the router.
const SITE: usize = 20;
const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;

/// The recurring events of a host.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// Fails every few days, for a minute or a day.
    Steady,
    /// The same, for a whole site.
    Router,
    /// Its link flaps for hours, then is stable for hours.
    Restless,
    /// Silent at night, and sometimes for days, which is longer than allowed.
    Sleeper,
}

#[derive(Debug)]
pub struct Device {
    fate: Fate,
    pub router: Option<usize>,
    there: bool,
    /// Remaining changes of a flapping link.
    flips: u64,
    /// Since when packets have flowed.
    flow: Option<Mono>,
    /// Without a flow: until when the gateway keeps the session.
    believed: Mono,
    last_packet: Option<Mono>,
    /// Since when it has its present state.
    since: Mono,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Happening {
    Turns(usize),
    Redials(usize),
    Uplink,
    /// The duration of the gateway's absence.
    GatewayEnds(Duration),
    GatewayStarts,
    ClockSet,
}

/// The part of an event that the gateway notices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Notice {
    SessionUp(usize),
    Ends,
    Starts,
    /// The gateway's clock was set, by so many milliseconds.
    ClockSet(i64),
}

pub struct Fleet {
    pub devices: Vec<Device>,
    uplink: bool,
    gateway: bool,
    /// Since when the gateway runs with an uplink.
    pub seeing: Mono,
    coming: BTreeMap<(Mono, u64), Happening>,
    order: u64,
    dice: Dice,
}

fn secs(dice: &mut Dice, from: u64, to: u64) -> Duration {
    Duration::from_millis(dice.roll((to - from) * 1_000) + from * 1_000)
}

/// Mostly minutes, sometimes a night, and now and then too short to be noticed.
fn outage(dice: &mut Dice) -> Duration {
    match dice.roll(8) {
        0 | 1 => secs(dice, 5, 200),
        2..=5 => secs(dice, 5 * MINUTE, 90 * MINUTE),
        _ => secs(dice, 2 * HOUR, 20 * HOUR),
    }
}

impl Fate {
    fn of(n: usize, dice: &mut Dice) -> Fate {
        match dice.roll(100) {
            _ if router_of(n) == Some(n) => Fate::Router,
            0..=2 => Fate::Restless,
            3..=7 => Fate::Sleeper,
            _ => Fate::Steady,
        }
    }

    /// Returns how long the host keeps its new state.
    fn lasts(self, there: bool, flips: u64, dice: &mut Dice) -> Duration {
        match (self, there) {
            (Fate::Steady, true) => secs(dice, HOUR, 192 * HOUR),
            (Fate::Router, true) => secs(dice, HOUR, 120 * HOUR),
            (Fate::Steady | Fate::Router, false) => outage(dice),
            (Fate::Restless, true) if flips == 0 => secs(dice, 4 * HOUR, 24 * HOUR),
            (Fate::Restless, _) => secs(dice, MINUTE, 20 * MINUTE),
            (Fate::Sleeper, true) => secs(dice, 8 * HOUR, 14 * HOUR),
            (Fate::Sleeper, false) if dice.one_in(12) => secs(dice, 28 * HOUR, 60 * HOUR),
            (Fate::Sleeper, false) => secs(dice, 2 * HOUR, 14 * HOUR),
        }
    }
}

/// Every other group of twenty has a router, the first of the group.
fn router_of(n: usize) -> Option<usize> {
    (n / SITE).is_multiple_of(2).then_some(n / SITE * SITE)
}

impl Fleet {
    pub fn new(seed: u64, hosts: usize, now: Mono) -> Fleet {
        let mut dice = Dice(seed);
        let device = |n: usize, dice: &mut Dice| Device {
            fate: Fate::of(n, dice),
            router: router_of(n).filter(|router| *router != n),
            there: true,
            flips: 0,
            flow: Some(now),
            believed: now,
            last_packet: Some(now),
            since: now,
        };
        let devices = (0..hosts).map(|n| device(n, &mut dice)).collect();
        let mut fleet = Fleet {
            devices,
            uplink: true,
            gateway: true,
            seeing: now,
            coming: BTreeMap::new(),
            order: 0,
            dice,
        };
        for n in 0..hosts {
            // The hosts begin at different times of their lives.
            let life = fleet.devices[n].fate.lasts(true, 0, &mut fleet.dice);
            let lived = fleet.dice.roll(1_000) as u32;
            fleet.plan(now + life * lived / 1_000, Happening::Turns(n));
        }
        fleet.plan_uplink(now);
        fleet.plan_end(now);
        fleet.plan_clock(now);
        fleet
    }

    pub fn sleeps(&self, n: usize) -> Option<Duration> {
        (self.devices[n].fate == Fate::Sleeper).then_some(MAX_SILENCE)
    }

    fn plan(&mut self, at: Mono, happening: Happening) {
        self.order += 1;
        self.coming.insert((at, self.order), happening);
    }

    fn plan_uplink(&mut self, now: Mono) {
        let lasts = match self.uplink {
            true => secs(&mut self.dice, 6 * HOUR, 60 * HOUR),
            false if self.dice.one_in(4) => secs(&mut self.dice, 10, 4 * MINUTE),
            false => secs(&mut self.dice, 10 * MINUTE, 6 * HOUR),
        };
        self.plan(now + lasts, Happening::Uplink);
    }

    fn plan_end(&mut self, now: Mono) {
        let in_a_while = secs(&mut self.dice, 3 * HOUR, 40 * HOUR);
        let away = match self.dice.one_in(2) {
            true => secs(&mut self.dice, 1, 60),
            false => secs(&mut self.dice, MINUTE, 4 * HOUR),
        };
        self.plan(now + in_a_while, Happening::GatewayEnds(away));
    }

    fn plan_clock(&mut self, now: Mono) {
        let in_a_while = secs(&mut self.dice, 6 * HOUR, 60 * HOUR);
        self.plan(now + in_a_while, Happening::ClockSet);
    }

    /// Returns a clock step of seconds or hours, ahead or back.
    fn step(&mut self) -> i64 {
        let most = if self.dice.one_in(3) { MINUTE } else { 5 * HOUR };
        let far = secs(&mut self.dice, 0, most);
        let millis = i64::try_from(far.as_millis()).expect("hours");
        if self.dice.one_in(2) { millis } else { -millis }
    }

    pub fn next(&self) -> Option<Mono> {
        self.coming.keys().next().map(|(at, _)| *at)
    }

    /// Runs the next event that is due.
    pub fn happen(&mut self, now: Mono) -> Option<Notice> {
        let (_, happening) = self.coming.pop_first()?;
        match happening {
            Happening::Turns(n) => {
                self.turn(n, now);
                None
            }
            Happening::Redials(n) => self.redial(n, now).then_some(Notice::SessionUp(n)),
            Happening::Uplink => {
                self.uplink = !self.uplink;
                self.see(now);
                self.plan_uplink(now);
                None
            }
            Happening::ClockSet => {
                self.plan_clock(now);
                Some(Notice::ClockSet(self.step()))
            }
            Happening::GatewayEnds(away) => {
                self.gateway = false;
                self.see(now);
                self.plan(now + away, Happening::GatewayStarts);
                Some(Notice::Ends)
            }
            Happening::GatewayStarts => {
                self.gateway = true;
                for device in &mut self.devices {
                    (device.believed, device.last_packet) = (now, None);
                }
                self.see(now);
                self.plan_end(now);
                Some(Notice::Starts)
            }
        }
    }

    fn see(&mut self, now: Mono) {
        self.seeing = now;
        (0..self.devices.len()).for_each(|n| self.settle(n, now));
    }

    fn turn(&mut self, n: usize, now: Mono) {
        let device = &mut self.devices[n];
        device.there = !device.there;
        if device.fate == Fate::Restless {
            // An odd number, so that the last change leaves it up.
            device.flips = if device.flips == 0 { 9 + 2 * self.dice.roll(20) } else { device.flips - 1 };
        }
        let lasts = device.fate.lasts(device.there, device.flips, &mut self.dice);
        self.plan(now + lasts, Happening::Turns(n));
        self.settle(n, now);
        if self.devices[n].fate == Fate::Router {
            (n + 1..(n + SITE).min(self.devices.len())).for_each(|child| self.settle(child, now));
        }
    }

    /// Returns whether a packet of the host would reach the gateway.
    fn path(&self, n: usize) -> bool {
        let there = |n: usize| self.devices[n].there;
        self.gateway && self.uplink && there(n) && self.devices[n].router.is_none_or(there)
    }

    /// Updates the host's tunnel.
    fn settle(&mut self, n: usize, now: Mono) {
        let (path, last) = (self.path(n), self.last_packet(n, now));
        let device = &mut self.devices[n];
        if path == device.flow.is_some() {
            return;
        }
        device.since = now;
        if path {
            let spread = Duration::from_millis(n as u64 * 977 % 8_000 + 100);
            self.plan(now + spread, Happening::Redials(n));
        } else {
            (device.flow, device.last_packet, device.believed) = (None, last, now + SESSION);
        }
    }

    /// Makes a handshake, if it gets through. Returns whether it made a session where there was
    /// none.
    pub fn redial(&mut self, n: usize, now: Mono) -> bool {
        if !self.path(n) || self.devices[n].flow.is_some() {
            return false;
        }
        let news = !self.is_established(n, now);
        let device = &mut self.devices[n];
        (device.flow, device.last_packet, device.since) = (Some(now), Some(now), now);
        news
    }

    pub fn flows(&self, n: usize) -> bool {
        self.devices[n].flow.is_some()
    }

    pub fn is_established(&self, n: usize, now: Mono) -> bool {
        self.flows(n) || now < self.devices[n].believed
    }

    /// Returns the last handshake, that of the session with a flow.
    pub fn last_handshake(&self, n: usize) -> Option<Mono> {
        self.devices[n].flow
    }

    pub fn last_packet(&self, n: usize, now: Mono) -> Option<Mono> {
        let device = &self.devices[n];
        let beat = |since: Mono| {
            let beats = now.since(since).as_nanos() / KEEPALIVE.as_nanos();
            since + KEEPALIVE * u32::try_from(beats).expect("few")
        };
        device.last_packet.max(device.flow.map(beat))
    }

    /// Records the reply to a probe.
    pub fn answered(&mut self, n: usize, now: Mono) {
        self.devices[n].last_packet = Some(now);
    }

    /// Returns whether the flow has been in this state for that long while the gateway could see
    /// it.
    pub fn is_settled(&self, n: usize, flows: bool, time: Duration, now: Mono) -> bool {
        let seen = self.gateway && self.uplink && now.since(self.seeing) > time;
        seen && self.flows(n) == flows && now.since(self.devices[n].since) > time
    }
}
