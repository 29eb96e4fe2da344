//! Events that the tunnel reports on its own.
//!
//! They start checks and write events, but are never a result. Events that a device or the network
//! could cause at will are limited per host, so that they cannot flood the log.

use std::mem::{Discriminant, discriminant};
use std::net::SocketAddr;
use std::time::Duration;

use crate::id::PeerId;
use crate::time::{Mono, Wall, moment};
use crate::wire::{Event, EventKind, HostStatus, News, Record, Refusal};

use super::host::Host;
use super::liveness::age;
use super::status::Level;
use super::turn::Turn;

/// The minimum time between two recorded endpoint changes: a mobile link behind a busy NAT may
/// change every minute.
const MOVE_GAP: Duration = Duration::from_secs(60);
/// The minimum time before the same refusal is recorded again: a device with a wrong clock tries
/// every five seconds for days.
const REFUSAL_GAP: Duration = Duration::from_secs(3600);
/// The minimum time before a different refusal is recorded.
const OTHER_REFUSAL_GAP: Duration = Duration::from_secs(60);

/// The last events in the log.
#[derive(Debug, Default)]
pub struct Told {
    moved: Option<Mono>,
    refused: Option<(Mono, Discriminant<Refusal>)>,
}

/// Returns the peer whose hosts receive the event.
pub fn concerns(news: &News) -> Option<PeerId> {
    match news {
        News::FirstHandshake(peer)
        | News::Up(peer)
        | News::Heard(peer)
        | News::Rekeyed(peer)
        | News::Endpoint(peer, _)
        | News::Refused(peer, _) => Some(*peer),
        News::ClockReset(_)
        | News::Stamp(..)
        | News::RetiredStamp(..)
        | News::RemovedPeer(..)
        | News::UnknownKey(..)
        | News::Status(..) => None,
    }
}

impl Host {
    pub fn hear(&mut self, news: &News, turn: &mut Turn<'_>) {
        match news {
            News::FirstHandshake(_) => self.first_handshake(turn),
            News::Up(_) => self.session_up(turn),
            News::Heard(_) => self.heard_again(turn),
            News::Endpoint(_, to) => self.endpoint_moved(*to, turn),
            News::Refused(_, refusal) => self.handshake_refused(*refusal, turn),
            News::Rekeyed(_) => self.rekeyed(turn),
            News::ClockReset(_)
            | News::Stamp(..)
            | News::RetiredStamp(..)
            | News::RemovedPeer(..)
            | News::UnknownKey(..)
            | News::Status(..) => {}
        }
    }

    /// Handles the first handshake ever, or under a new key: every check through the tunnel can
    /// start.
    fn first_handshake(&mut self, turn: &mut Turn<'_>) {
        if self.is_own() {
            // A device with a new key may be another machine, so its host key is learnt anew.
            self.learnt = None;
            self.event(EventKind::FirstHandshake, "the device came through its tunnel", String::new(), turn);
        }
        if !self.came {
            self.tunnel_came(turn.now.mono);
        }
        self.ask_again(turn);
    }

    /// Handles a new key. The session ended with the old key, and so did the proof under it. The
    /// host is checked at once to see whether it has the new key.
    fn rekeyed(&mut self, turn: &mut Turn<'_>) {
        (self.keyed_at, self.vain) = (turn.now.mono, None);
        if self.came {
            self.ask_again(turn);
            self.newer_than = Some(turn.now.mono);
        }
    }

    /// Restarts the check, because one in progress began without this news.
    fn ask_again(&mut self, turn: &mut Turn<'_>) {
        self.forget_question(turn);
        self.planned = Some(turn.now.mono);
    }

    /// Handles a new session: hosts and services that were given up are checked at once. A soft
    /// failure is not, because its retry comes soon enough and must not use up an attempt.
    fn session_up(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.mono;
        if !self.came {
            self.tunnel_came(now);
        }
        let waits = self.track.hard == HostStatus::Down || self.track.status == HostStatus::Pending;
        if waits || self.asleep || self.is_own() && self.may_end_a_doubt(turn) {
            self.ask_again(turn);
        }
        if self.is_watched()
            && let Some(i) = self.tunnel_service()
        {
            let service = &mut self.services[i];
            let waits = service.waits() || service.track.status.is_problem() && !service.track.is_soft();
            if service.is_idle() && waits {
                service.planned = Some(now);
            }
        }
    }

    /// Handles a packet in a session that never ended, so that no other event follows: a host that
    /// was given up is up.
    fn heard_again(&mut self, turn: &mut Turn<'_>) {
        let given_up = self.track.hard == HostStatus::Down || self.asleep;
        if self.is_own() && self.came && (given_up || self.may_end_a_doubt(turn)) {
            self.ask_again(turn);
        }
    }

    /// Whether a packet from this host may show that the gateway is not cut off. The host is then
    /// checked now, even if its interval is long.
    fn may_end_a_doubt(&self, turn: &Turn<'_>) -> bool {
        turn.is_cut_off() || self.undecided.is_some()
    }

    fn endpoint_moved(&mut self, to: SocketAddr, turn: &mut Turn<'_>) {
        let now = turn.now.mono;
        if self.is_own() && self.told.moved.is_none_or(|at| now.since(at) >= MOVE_GAP) {
            self.told.moved = Some(now);
            self.event(
                EventKind::EndpointMoved,
                "an authenticated packet came from there",
                to.to_string(),
                turn,
            );
        }
    }

    fn handshake_refused(&mut self, refusal: Refusal, turn: &mut Turn<'_>) {
        let (now, kind) = (turn.now.mono, discriminant(&refusal));
        let silent = self.told.refused.is_some_and(|(at, last)| {
            now.since(at) < if last == kind { REFUSAL_GAP } else { OTHER_REFUSAL_GAP }
        });
        if self.is_own() && !silent {
            self.told.refused = Some((now, kind));
            self.event(EventKind::HandshakeRefused, &reason(refusal, turn.now.wall), String::new(), turn);
        }
    }

    fn is_own(&self) -> bool {
        self.spec.own_tunnel
    }

    pub(super) fn event(&self, kind: EventKind, cause: &str, evidence: String, turn: &mut Turn<'_>) {
        turn.record(Record::Event(Event {
            at: turn.now.wall,
            host: self.spec.id,
            service: None,
            kind,
            cause: cause.to_owned(),
            evidence: evidence.into(),
            by: None,
        }));
    }
}

fn reason(refusal: Refusal, now: Wall) -> String {
    match refusal {
        Refusal::ClockWentBack { behind } => format!(
            "the device's clock went back by {}, or an old handshake was replayed; if the clock is right now: \
             fleetgate device reset-clock",
            age(behind)
        ),
        Refusal::RateLimited => "too many handshakes".to_owned(),
        Refusal::Crypto => "the key is right, the preshared key is not".to_owned(),
        Refusal::ReplacedKey { replaced_at } => {
            format!(
                "it uses the key that was replaced at {}: install the configuration that was issued then",
                moment(replaced_at, now)
            )
        }
    }
}
