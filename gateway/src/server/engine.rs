//! The assembly of the engine: restores both halves from the store, connects them with the rest of the
//! program, and starts their threads.
//!
//! No packet passes before the grants and the floor of the clock are restored. This file knows neither the
//! API nor the order of a stop.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use fleetgate_engine::messages::{
    Command, DnsClient, DnsId, ExplainId, HandoverStep, Input, MonitorInput, PolicyChange, TunnelEvent,
};
use fleetgate_engine::monitor::{self, Monitor};
use fleetgate_engine::tunnel::noise::BoringNoise;
use fleetgate_engine::tunnel::{self, MAX_RETIRED, Tunnel};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::config::Config;
use crate::dns;
use crate::engine::handle::{Handle, QUEUE};
use crate::engine::live_state::LiveState;
use crate::identity::Identity;
use crate::maintenance::forwarded::FlowLog;
use crate::maintenance::handovers::HandoverLog;
use crate::maintenance::rental_phases;
use crate::monitor::ssh;
use crate::monitor::ssh::SshClient;
use crate::monitor::uplink_probe;
use crate::monitor::{ProbeExecutor, TakeHandover};
use crate::rental_access::{self, OverSsh};
use crate::rental_events;
use crate::store::policy::{self, PolicyRows};
use crate::store::rentals::{aliases, handovers};
use crate::store::{Store, addresses, forecasts, settings};
use crate::tunnel::stream::{AcceptedStream, Streams};
use crate::tunnel::thread;
use crate::tunnel::thread::TunnelOutputs;
use crate::tunnel::udp::SocketStats;
use crate::writer::{MemoryUpdate, Writer};

/// The running engine, and what it passes to the rest.
pub(super) struct Running {
    pub handle: Handle,
    pub threads: Vec<JoinHandle<()>>,
    pub streams: Streams,
    /// Connections of devices to the API inside the tunnels.
    pub results: mpsc::Receiver<AcceptedStream>,
    /// Connections of renters to their page.
    pub page: mpsc::Receiver<AcceptedStream>,
    /// Questions for names that the engine does not answer itself.
    pub names: dns::Inbox,
    /// The state that the monitor has of rented devices.
    pub rental_phases: rental_phases::PublishedPhases,
}

/// The parts that the engine is assembled from, and the queues of its threads.
pub(super) struct Engine<'a> {
    config: &'a Config,
    identity: &'a Identity,
    store: &'a Store,
    live: &'a LiveState,
    writer: &'a Writer,
    handle: Handle,
    commands: mpsc::Receiver<Command>,
    inputs: mpsc::Receiver<MonitorInput>,
    outside: Arc<Notify>,
    passage: SocketStats,
    flows: FlowLog,
    handovers: HandoverLog,
}

impl<'a> Engine<'a> {
    pub fn new(
        tasks: &mut JoinSet<()>,
        config: &'a Config,
        identity: &'a Identity,
        store: &'a Store,
        live: &'a LiveState,
        (writer, rental_events): (&'a Writer, &rental_events::Wakeups),
    ) -> Self {
        let (commands_in, commands) = mpsc::channel(QUEUE);
        let (inputs_in, inputs) = mpsc::channel(QUEUE);
        let usual = (config.timing, config.mtu);
        let handle = Handle::new(store.clone(), live.clone(), usual, commands_in, inputs_in);
        let (outside, passage) = (Arc::new(Notify::new()), SocketStats::default());
        let flows = FlowLog::start(tasks, store.clone());
        let handovers =
            HandoverLog::start(tasks, store.clone(), live.clone(), handle.clone(), rental_events.clone());
        Engine {
            config,
            identity,
            store,
            live,
            writer,
            handle,
            commands,
            inputs,
            outside,
            passage,
            flows,
            handovers,
        }
    }

    /// Starts the threads, which run until `stop`, and the probes of the uplink, which end with the API.
    pub async fn start(
        self,
        tasks: &mut JoinSet<()>,
        socket: std::net::UdpSocket,
        stop_api: &CancellationToken,
        stop: &CancellationToken,
    ) -> anyhow::Result<Running> {
        let (asks_in, asks) = mpsc::unbounded_channel();
        let (answers_in, answers) = mpsc::unbounded_channel();
        let (streams, arrivals) = Streams::new(asks_in.clone());
        let (monitor, rental_phases) = self.monitor().await?;
        self.allocate_aliases().await?;
        self.allocate_aliases_of_rentals().await?;
        let tunnel = self.tunnel().await?;
        asks_in.send(Command::DialAll).context("the queue is new")?;

        let (forward, forwards) = mpsc::channel(dns::QUEUE);
        let outputs = self.tunnel_outputs(answers_in.clone(), streams.clone(), forward);
        let take_handover = self.take_handover(asks_in.clone());
        let carrier = self.probe_executor(asks_in, answers_in, streams.clone())?;
        self.start_rental_access(tasks, carrier.clone(), stop_api);
        let inbox = thread::Inbox { commands: self.commands, asks };
        let tunnels = thread::start(tunnel, socket, inbox, outputs, stop.clone())?;
        let inbox = crate::monitor::Inbox { commands: self.inputs, answers };
        let (writer, pulse) = ((self.writer.clone(), take_handover), self.live.pulse().clone());
        let monitors = crate::monitor::start(monitor, inbox, carrier, writer, pulse, stop.clone())?;
        let (uplink, handle) = (self.config.uplink.clone(), self.handle.clone());
        uplink_probe::start(tasks, uplink, handle, self.passage, self.outside, stop_api.clone());
        Ok(Running {
            handle: self.handle,
            threads: vec![monitors, tunnels],
            streams,
            results: arrivals.results,
            page: arrivals.page,
            names: dns::Inbox { streams: arrivals.dns, forwards },
            rental_phases,
        })
    }

    fn probe_executor(
        &self,
        asks: mpsc::UnboundedSender<Command>,
        answers: mpsc::UnboundedSender<MonitorInput>,
        streams: Streams,
    ) -> anyhow::Result<ProbeExecutor> {
        let limits = ssh::Limits {
            idle: self.config.ssh_idle,
            kept: self.config.ssh_connections,
            ..ssh::Limits::default()
        };
        let ssh = SshClient::new(&self.identity.ssh.to_openssh(), limits)?;
        let runtime = tokio::runtime::Handle::current();
        let (outbound, outside) = (self.config.outbound.clone(), self.outside.clone());
        Ok(ProbeExecutor::new(asks, answers, streams, ssh, outbound, outside, runtime))
    }

    /// Starts the task that lets renters log in to devices.
    fn start_rental_access(
        &self,
        tasks: &mut JoinSet<()>,
        executor: ProbeExecutor,
        stop_api: &CancellationToken,
    ) {
        let (store, handle) = (self.store.clone(), self.handle.clone());
        let runner = OverSsh { store: store.clone(), executor, timing: self.config.timing };
        rental_access::start(tasks, rental_access::Parts { store, handle, runner }, stop_api.clone());
    }

    fn take_handover(&self, asks: mpsc::UnboundedSender<Command>) -> TakeHandover {
        let log = self.handovers.clone();
        Box::new(move |step| {
            // The grant is opened first: the database may be away.
            if let HandoverStep::HandedOver(handover) = step {
                let _ = asks.send(Command::Policy(vec![PolicyChange::HandOver(handover)]));
            }
            log.add(step);
        })
    }

    async fn monitor(&self) -> anyhow::Result<(Monitor, rental_phases::PublishedPhases)> {
        let seed = u64::from_le_bytes(seed()?[..8].try_into().expect("32 bytes hold 8"));
        let usual = monitor::Config {
            interval: self.config.timing.interval,
            keepalive: Duration::from_secs(self.config.keepalive.into()),
            ..monitor::Config::default()
        };
        let mut monitor = Monitor::new(usual, seed);
        let mut conn = self.store.reader().await?;
        let ended = clock::wall() - monitor::KEPT_DOWNTIME;
        for downtime in crate::store::downtimes::open(&mut conn, ended).await? {
            monitor.handle(MonitorInput::Downtime(Box::new(downtime.plan)), clock::now());
        }
        if crate::store::events::was_cut_off(&mut conn).await? {
            monitor.handle(MonitorInput::RestoreUplinkLost, clock::now());
        }
        monitor.recall_incidents(crate::store::incidents::memories(&mut conn).await?, clock::now());
        drop(conn);
        let (phases, _) = rental_phases::read(self.store, clock::wall()).await?;
        for phase in phases.phases.values() {
            monitor.handle(MonitorInput::RentalPhase(Box::new(phase.clone())), clock::now());
        }
        let hosts = self.store.all_hosts(&self.config.timing).await?;
        self.handle.begin_with(hosts.iter().map(|memory| &memory.spec));
        self.writer.know(&hosts);
        monitor.restore(hosts, clock::now());
        // Before the first result: without its forecast, a limit on it would be over.
        let forecasts = forecasts::all(&mut *self.store.reader().await?).await?;
        monitor.handle(MonitorInput::Forecasts(forecasts), clock::now());
        if let Some(floor) = settings::clock_floor(&mut *self.store.reader().await?).await?.at() {
            monitor.handle(MonitorInput::ClockFloor(floor), clock::now());
        }
        for handover in handovers::open(&mut *self.store.reader().await?, clock::wall()).await? {
            monitor.handle(MonitorInput::Handover(Box::new(handover)), clock::now());
        }
        Ok((monitor, phases))
    }

    async fn tunnel(&self) -> anyhow::Result<Tunnel<BoringNoise>> {
        let config = tunnel::Config {
            pool_v4: self.config.pool_v4,
            pool_v6: self.config.pool_v6,
            results_port: self.config.results_port,
        };
        let noise = BoringNoise::new(&self.identity.wireguard, seed()?);
        let mut tunnel = Tunnel::new(config, noise, seed()?);
        if let Some(dns) = &self.config.dns {
            tunnel.serve_dns(dns.engine());
        }
        tunnel.restore(self.store.all_peers(self.config.mtu).await?, clock::now());
        tunnel.restore_retired(self.store.retired_keys(MAX_RETIRED).await?);
        let mut conn = self.store.reader().await?;
        // The floor comes first: not one packet passes by a clock that is behind it.
        let floor = settings::clock_floor(&mut conn).await?.at();
        let mut policy: Vec<PolicyChange> = floor.map(PolicyChange::Floor).into_iter().collect();
        let read = policy::all(&mut conn, clock::wall()).await?;
        drop(conn);
        self.handle.note_unreadable(&PolicyRows::default(), &read.unreadable);
        policy.extend(read.changes);
        self.handle.rental_times().note(&policy, clock::now());
        tunnel.handle(Input::Command(Command::Policy(policy)), clock::now());
        Ok(tunnel)
    }

    /// Gives an alias to hosts behind devices that have none: those of an earlier version, or those for
    /// which the pool had no room.
    async fn allocate_aliases(&self) -> anyhow::Result<()> {
        let mut tx = self.store.begin().await?;
        let (pools, now) = (self.config.pools(), clock::wall());
        let without = addresses::allocate_missing_aliases(&mut tx, pools, now).await?;
        tx.commit().await?;
        if without > 0 {
            tracing::warn!(
                "{without} hosts behind devices have no alias, because the pool is full, so that no grant \
                 reaches them: free addresses or set a larger pool, and start again"
            );
        }
        Ok(())
    }

    /// Gives an alias to rentals that have none: those of an earlier version, or those for which there was no
    /// room.
    async fn allocate_aliases_of_rentals(&self) -> anyhow::Result<()> {
        let mut tx = self.store.begin().await?;
        let (room, now) = ((self.config.alias_slots, self.config.pools()), clock::wall());
        let without = aliases::take_missing(&mut tx, room, now).await?;
        tx.commit().await?;
        if without > 0 {
            tracing::warn!(
                "{without} rentals have no address, because the pool or the block of their customer is full, so that \
                 no renter reaches their devices: cancel or end rentals, or set a larger pool, and start again"
            );
        }
        Ok(())
    }

    fn tunnel_outputs(
        &self,
        answers: mpsc::UnboundedSender<MonitorInput>,
        streams: Streams,
        dns_forward: mpsc::Sender<(DnsClient, Vec<u8>)>,
    ) -> TunnelOutputs {
        let news_to = answers.clone();
        let (live, writer) = (self.live.clone(), self.writer.clone());
        TunnelOutputs {
            answer: Box::new(move |id, answer| drop(answers.send(MonitorInput::ProbeReply(id, answer)))),
            news: Box::new(move |news| {
                writer.memory(MemoryUpdate::from_news(&news));
                if let TunnelEvent::Rekeyed(peer) = &news {
                    live.forget_moves(*peer);
                }
                match news {
                    TunnelEvent::Status(peer, status) => live.set_peer(peer, *status),
                    TunnelEvent::RemovedPeer(peer, from) => tracing::info!(
                        %peer,
                        %from,
                        "a device, operator or renter that was removed or disabled still uses its key: \
                         switch its tunnel off, or add it again"
                    ),
                    TunnelEvent::UnknownKey(key, from) => {
                        if let Some(others) = live.note_unknown_key(key, from, clock::now()) {
                            tracing::info!(
                                %key,
                                %from,
                                others,
                                "a handshake was refused: its key belongs to no device"
                            );
                        }
                    }
                    other => drop(news_to.send(MonitorInput::TunnelEvent(other))),
                }
            }),
            explanations: {
                let explanations = self.handle.explanations().clone();
                Box::new(move |ExplainId(number), explanation| explanations.answer(number, explanation))
            },
            dns_answers: {
                let decisions = self.handle.dns_decisions().clone();
                Box::new(move |DnsId(number), decision| decisions.answer(number, decision))
            },
            // Without room it is lost, as datagrams are, and the client asks again.
            dns_forwards: Box::new(move |client, query| drop(dns_forward.try_send((client, query)))),
            forward_probes: {
                let probes = self.handle.forward_probes().clone();
                Box::new(move |ExplainId(number), reply| probes.answer(number, reply))
            },
            flows: {
                let flows = self.flows.clone();
                Box::new(move |record| flows.add(&record))
            },
            streams,
            passage: self.passage.clone(),
        }
    }
}
fn seed() -> anyhow::Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|e| anyhow::anyhow!("the operating system gives no random bytes: {e}"))?;
    Ok(seed)
}
