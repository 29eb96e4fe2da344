//! Events that the tunnel reports on its own.
//!
//! They start checks and write events, but are never a result.

use std::net::SocketAddr;

use crate::calendar::moment;
use crate::messages::{Event, EventKind, HostStatus, Record, Refusal, TunnelEvent};
use crate::time::Wall;

use crate::monitor::context::Ctx;
use crate::monitor::host::Host;
use crate::monitor::host::alive::age;
use crate::monitor::state::Level;

impl Host {
    pub fn on_tunnel_event(&mut self, news: &TunnelEvent, ctx: &mut Ctx<'_>) {
        match news {
            TunnelEvent::FirstHandshake(_) => self.first_handshake(ctx),
            TunnelEvent::Up(_) => self.session_up(ctx),
            TunnelEvent::Heard(_) => self.heard_again(ctx),
            TunnelEvent::Endpoint(_, to) => self.endpoint_moved(*to, ctx),
            TunnelEvent::Refused(_, refusal) => self.handshake_refused(*refusal, ctx),
            TunnelEvent::Rekeyed(_) => self.rekeyed(ctx),
            TunnelEvent::ClockReset(_)
            | TunnelEvent::Stamp(..)
            | TunnelEvent::RetiredStamp(..)
            | TunnelEvent::RemovedPeer(..)
            | TunnelEvent::UnknownKey(..)
            | TunnelEvent::Status(..) => {}
        }
    }

    /// Handles the first handshake ever, or under a new key: every check through the tunnel can
    /// start.
    fn first_handshake(&mut self, ctx: &mut Ctx<'_>) {
        if self.is_own() {
            // A device with a new key may be another machine, so its host key is learnt anew.
            self.keys.forget();
            self.event(EventKind::FirstHandshake, "the device came through its tunnel", String::new(), ctx);
        }
        if !self.tunnel.has_come() {
            self.tunnel_came(ctx.now.mono);
        }
        self.probe_again(ctx);
    }

    /// Handles a new key. The session ended with the old key, and so did the proof under it. The
    /// host is checked at once to see whether it has the new key.
    fn rekeyed(&mut self, ctx: &mut Ctx<'_>) {
        self.tunnel.note_rekeyed(ctx.now.mono);
        self.one_way.end_series();
        if self.tunnel.has_come() {
            self.probe_again(ctx);
            self.check.require(ctx.now.mono);
        }
    }

    /// Restarts the check, because one in progress began without this news.
    fn probe_again(&mut self, ctx: &mut Ctx<'_>) {
        self.drop_probe(ctx);
        self.check.plan(ctx.now.mono);
    }

    /// Handles a new session: hosts and services that were given up are checked at once. A soft
    /// failure is not, because its retry comes soon enough and must not use up an attempt.
    fn session_up(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.now.mono;
        if !self.tunnel.has_come() {
            self.tunnel_came(now);
        }
        let waits = self.track.hard == HostStatus::Down || self.track.status == HostStatus::Pending;
        if waits || self.asleep || self.is_own() && self.may_end_a_doubt(ctx) {
            self.probe_again(ctx);
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
    fn heard_again(&mut self, ctx: &mut Ctx<'_>) {
        let given_up = self.track.hard == HostStatus::Down || self.asleep;
        if self.is_own() && self.tunnel.has_come() && (given_up || self.may_end_a_doubt(ctx)) {
            self.probe_again(ctx);
        }
    }

    /// Whether a packet from this host may show that the gateway is not cut off. The host is then
    /// checked now, even if its interval is long.
    fn may_end_a_doubt(&self, ctx: &Ctx<'_>) -> bool {
        ctx.is_cut_off() || self.check.is_undecided()
    }

    fn endpoint_moved(&mut self, to: SocketAddr, ctx: &mut Ctx<'_>) {
        if self.is_own() && self.tunnel.events.admits_move(ctx.now.mono) {
            self.event(
                EventKind::EndpointMoved,
                "an authenticated packet came from there",
                to.to_string(),
                ctx,
            );
        }
    }

    fn handshake_refused(&mut self, refusal: Refusal, ctx: &mut Ctx<'_>) {
        if self.is_own() && self.tunnel.events.admits_refusal(&refusal, ctx.now.mono) {
            self.event(EventKind::HandshakeRefused, &reason(refusal, ctx.now.wall), String::new(), ctx);
        }
    }

    fn is_own(&self) -> bool {
        self.spec.own_tunnel
    }

    pub(in crate::monitor) fn event(
        &self,
        kind: EventKind,
        cause: &str,
        evidence: String,
        ctx: &mut Ctx<'_>,
    ) {
        ctx.record(Record::Event(Event {
            at: ctx.now.wall,
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
