//! The tunnel thread: the UDP socket, the engine's `Tunnel`, and one clock reading per turn.
//!
//! It feeds inputs, drains outputs until `Wait`, and passes each output on to its receiver. It makes no
//! decisions.

use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use fleetgate_engine::messages::{
    Command, DnsClient, DnsDecision, DnsId, ExplainId, Explanation, FlowRecord, ForwardProbeReply, Input,
    Output, ProbeId, ProbeReply, TunnelEvent,
};
use fleetgate_engine::time::{Mono, Now};
use fleetgate_engine::tunnel::Tunnel;
use fleetgate_engine::tunnel::session::Noise;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::tunnel::rx_moderation::RxModeration;
use crate::tunnel::stream::Streams;
use crate::tunnel::udp::{SocketStats, Udp};

/// Commands taken in one turn, so that packets get theirs.
const COMMANDS_PER_TURN: usize = 256;

/// Interval of the metrics: a scrape comes about every 15 s.
const PUBLISH_EVERY: Duration = Duration::from_secs(5);

/// The receivers of the tunnel's outputs. None of them may block: this thread carries every packet.
pub struct TunnelOutputs {
    pub answer: Box<dyn FnMut(ProbeId, ProbeReply) + Send>,
    pub news: Box<dyn FnMut(TunnelEvent) + Send>,
    pub explanations: Box<dyn FnMut(ExplainId, Explanation) + Send>,
    pub forward_probes: Box<dyn FnMut(ExplainId, ForwardProbeReply) + Send>,
    pub flows: Box<dyn FnMut(FlowRecord) + Send>,
    pub dns_answers: Box<dyn FnMut(DnsId, DnsDecision) + Send>,
    pub dns_forwards: Box<dyn FnMut(DnsClient, Vec<u8>) + Send>,
    pub streams: Streams,
    pub passage: SocketStats,
}

pub struct Inbox {
    /// Commands from the API. The channel is bounded, so the sender waits.
    pub commands: mpsc::Receiver<Command>,
    /// Probes and stream messages, bounded by the monitor's cap and the streams' windows.
    pub asks: mpsc::UnboundedReceiver<Command>,
}

/// Starts the tunnel thread, which runs until `stop`.
///
/// # Errors
/// Fails when the thread or its reactor cannot be created, or when the socket refuses its options.
pub fn start<N: Noise + Send + 'static>(
    tunnel: Tunnel<N>,
    socket: std::net::UdpSocket,
    inbox: Inbox,
    outputs: TunnelOutputs,
    stop: CancellationToken,
) -> anyhow::Result<JoinHandle<()>>
where
    N::Session: Send,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let udp = {
        let _inside = runtime.enter();
        Udp::new(socket, outputs.passage.clone()).context("the UDP socket does not take its options")?
    };
    let driver = TunnelThread { tunnel, udp, outputs, rest: RxModeration::default(), published: Mono::ZERO };
    let thread = std::thread::Builder::new().name("tunnel".to_owned());
    Ok(thread.spawn(move || runtime.block_on(driver.run(inbox, stop)))?)
}

struct TunnelThread<N: Noise> {
    tunnel: Tunnel<N>,
    udp: Udp,
    outputs: TunnelOutputs,
    rest: RxModeration,
    /// Time of the last update of the metrics.
    published: Mono,
}

impl<N: Noise> TunnelThread<N> {
    async fn run(mut self, mut inbox: Inbox, stop: CancellationToken) {
        let mut deadline = self.drain();
        loop {
            let now = clock::now().mono;
            let wait = deadline.map(|at| at.since(now));
            self.lie_still(&inbox, wait, now);
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    self.tunnel.end_flows(clock::now());
                    self.drain();
                    return;
                }
                ready = self.udp.readable() => match ready {
                    Ok(()) => self.receive(),
                    Err(error) => return tracing::error!(%error, "the UDP socket is gone; tunnels have ended"),
                },
                command = inbox.asks.recv() => match command {
                    Some(first) => self.asks(first, &mut inbox.asks),
                    None => return,
                },
                command = inbox.commands.recv() => match command {
                    Some(first) => self.commands(first, &mut inbox.commands),
                    None => return,
                },
                () = sleep(wait) => self.tunnel.handle(Input::Timeout, clock::now()),
            }
            // `select!` is biased: a flood of packets would starve the commands, so each turn takes some.
            self.waiting(&mut inbox);
            deadline = self.drain();
        }
    }

    /// Blocks the thread instead of waiting in the reactor, which every arriving packet would wake.
    fn lie_still(&self, inbox: &Inbox, wait: Option<Duration>, now: Mono) {
        // A forwarded packet does not wait for others.
        let busy = self.tunnel.connections() + usize::from(self.tunnel.expects_packets(now));
        let rest = self.rest.left(busy, now);
        let rest = wait.map_or(rest, |wait| rest.min(wait));
        if !rest.is_zero() && inbox.asks.is_empty() && inbox.commands.is_empty() {
            std::thread::sleep(rest);
        }
    }

    fn receive(&mut self) {
        let now = clock::now();
        let tunnel = &mut self.tunnel;
        let (mut count, mut is_timed) = (0, true);
        // A step of the wall clock shows as an earlier time. Most datagrams came after the last look: only a full turn
        // leaves some of them for the next one.
        let last_look = self.rest.last_look();
        self.udp.receive(|from, to, arrived, bytes| {
            count += 1;
            is_timed &= arrived.is_some();
            let arrived = arrived.unwrap_or(now.mono).max(last_look);
            tunnel.handle(Input::Datagram { from, to, arrived, bytes }, now);
        });
        self.rest.looked(count, is_timed, now.mono);
    }

    fn asks(&mut self, first: Command, more: &mut mpsc::UnboundedReceiver<Command>) {
        self.take(first, || more.try_recv());
    }

    fn commands(&mut self, first: Command, more: &mut mpsc::Receiver<Command>) {
        self.take(first, || more.try_recv());
    }

    fn waiting(&mut self, inbox: &mut Inbox) {
        if let Ok(first) = inbox.asks.try_recv() {
            self.asks(first, &mut inbox.asks);
        }
        if let Ok(first) = inbox.commands.try_recv() {
            self.commands(first, &mut inbox.commands);
        }
    }

    fn take(&mut self, first: Command, mut more: impl FnMut() -> Result<Command, TryRecvError>) {
        let now = clock::now();
        self.obey(first, now);
        for _ in 1..COMMANDS_PER_TURN {
            match more() {
                Ok(command) => self.obey(command, now),
                Err(_) => return,
            }
        }
    }

    fn obey(&mut self, command: Command, now: Now) {
        if matches!(command, Command::ProbeRequest(_) | Command::ForwardProbe(..)) {
            self.rest.asked();
        }
        self.tunnel.handle(Input::Command(command), now);
    }

    /// Empties the engine's outputs. Returns when the engine is due again.
    fn drain(&mut self) -> Option<Mono> {
        let deadline = loop {
            match self.tunnel.poll_output() {
                Output::Transmit(transmit) => {
                    self.udp.send(&transmit);
                    self.tunnel.lend(transmit.bytes);
                }
                Output::ProbeReply(id, answer) => {
                    self.rest.answered();
                    (self.outputs.answer)(id, answer);
                }
                Output::Stream(id, word) => self.outputs.streams.deliver(id, word),
                Output::TunnelEvent(news) => (self.outputs.news)(news),
                Output::Explanation(id, explanation) => (self.outputs.explanations)(id, explanation),
                Output::ForwardProbe(id, reply) => {
                    self.rest.answered();
                    (self.outputs.forward_probes)(id, reply);
                }
                Output::Flow(record) => (self.outputs.flows)(record),
                Output::DnsAnswer(id, decision) => (self.outputs.dns_answers)(id, decision),
                Output::DnsForward(client, query) => (self.outputs.dns_forwards)(client, query),
                Output::Wait(at, why) => {
                    tracing::trace!(?at, ?why, "tunnel waits");
                    break at;
                }
            }
        };
        self.publish();
        deadline
    }

    /// Updates the totals for `/metrics`, every few seconds while there is traffic.
    fn publish(&mut self) {
        let now = clock::now().mono;
        if now.since(self.published) < PUBLISH_EVERY {
            return;
        }
        self.published = now;
        let totals = self.tunnel.totals();
        metrics::gauge!("fleetgate_peers").set(totals.peers as f64);
        metrics::gauge!("fleetgate_sessions").set(totals.sessions as f64);
        metrics::gauge!("fleetgate_tunnel_connections").set(totals.connections as f64);
        let forwarding = self.tunnel.forwarding();
        metrics::gauge!("fleetgate_grants").set(forwarding.grants as f64);
        metrics::gauge!("fleetgate_flows").set(forwarding.flows as f64);
        metrics::gauge!("fleetgate_flows_half_open").set(forwarding.half_open as f64);
        metrics::counter!("fleetgate_flow_records_lost_total").absolute(forwarding.lost_records);
        for (outcome, count) in self.tunnel.dns_queries() {
            metrics::counter!("fleetgate_dns_queries_total", "outcome" => outcome.name()).absolute(count);
        }
        for (reason, count) in self.tunnel.global_drops() {
            metrics::counter!("fleetgate_unknown_sender_drops_total", "reason" => reason.name())
                .absolute(*count);
        }
        for (reason, count) in self.tunnel.peer_drops() {
            metrics::counter!("fleetgate_drops_total", "reason" => reason.name()).absolute(*count);
        }
    }
}

/// Sleeps until the engine is due, or for ever.
pub(crate) async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}
