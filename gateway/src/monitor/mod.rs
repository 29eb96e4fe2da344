//! The monitor thread, and the dispatch of its probes.
//!
//! Probes through a tunnel go to the tunnel thread; direct ones and SSH run in tasks of their own. It
//! makes no decisions.

mod metrics;
pub mod ssh;
#[cfg(test)]
mod tests;
pub(crate) mod uplink_probe;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{
    Command, ConnectFailure, HandoverStep, MonitorInput, MonitorOutput, Probe, ProbeId, ProbeReply,
    ProbeRequest, Route, SshReply, SshRun,
};
use fleetgate_engine::monitor::Monitor;
use fleetgate_engine::time::{Mono, Now};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::health::progress::{Component, Progress};
use crate::monitor::ssh::{SessionKey, SshClient};
use crate::outbound::{Outbound, Purpose};
use crate::tunnel::stream::{Streams, TunnelStream};
use crate::tunnel::thread::sleep;
use crate::writer::Writer;
use metrics::Gauges;

/// Inputs taken in one turn before the records go to the writer.
const INPUTS_PER_TURN: usize = 1024;
/// Shortest time between two turns that take commands. One command alone is taken at once. Under load a turn takes
/// many: a turn, and a wake-up of this thread, for each would cost more than the commands.
const BETWEEN_COMMANDS: Duration = Duration::from_millis(1);

pub struct Inbox {
    /// Commands from the API. The channel is bounded, so the sender waits.
    pub commands: mpsc::Receiver<MonitorInput>,
    /// Replies and news, bounded by the monitor's cap on probes and the tunnel's rates.
    pub answers: mpsc::UnboundedReceiver<MonitorInput>,
}

/// Dispatches probes. Cheap to clone.
#[derive(Clone)]
pub struct ProbeExecutor(Arc<ProbePaths>);

struct ProbePaths {
    tunnel: mpsc::UnboundedSender<Command>,
    answers: mpsc::UnboundedSender<MonitorInput>,
    streams: Streams,
    ssh: SshClient,
    /// The rule for the targets of probes without a tunnel.
    outbound: Outbound,
    /// Wakes the probe of the uplink.
    outside: Arc<Notify>,
    runtime: tokio::runtime::Handle,
}

impl ProbeExecutor {
    pub fn new(
        tunnel: mpsc::UnboundedSender<Command>,
        answers: mpsc::UnboundedSender<MonitorInput>,
        streams: Streams,
        ssh: SshClient,
        outbound: Outbound,
        outside: Arc<Notify>,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        ProbeExecutor(Arc::new(ProbePaths { tunnel, answers, streams, ssh, outbound, outside, runtime }))
    }

    fn carry(&self, ask: ProbeRequest) {
        match ask.probe {
            Probe::Connect { route: Route::Direct { host }, port } => {
                let outbound = self.0.outbound.clone();
                self.spawn(ask.id, async move {
                    ProbeReply::Connect(direct_time(&outbound, &host, port, ask.timeout).await)
                });
            }
            Probe::Ssh { route, port, connect, run } => {
                let (this, host, times) = (self.clone(), ask.host, (connect, ask.timeout));
                self.spawn(ask.id, async move {
                    ProbeReply::Ssh(this.run_ssh(host, (route, port), run, times).await)
                });
            }
            _ => {
                if self.0.tunnel.send(Command::ProbeRequest(ask)).is_err() {
                    tracing::debug!("the tunnel thread has ended; a question was dropped");
                }
            }
        }
    }

    /// Runs commands on a host, in a session that is kept for its next run. `connect` limits the time until the login
    /// is complete.
    pub async fn run_ssh(
        &self,
        host: HostId,
        (route, port): (Route, u16),
        run: SshRun,
        (connect, timeout): (Duration, Duration),
    ) -> SshReply {
        let key = SessionKey { host, route: route.clone(), port };
        let (roads, patience) = (self.0.clone(), connect.min(timeout));
        let dialled = move || dial(roads.clone(), route.clone(), port, patience);
        self.0.ssh.run_within(key, dialled, run, (connect, timeout)).await
    }

    fn spawn(&self, id: ProbeId, work: impl Future<Output = ProbeReply> + Send + 'static) {
        let answers = self.0.answers.clone();
        self.0.runtime.spawn(async move {
            let answer = work.await;
            let _ = answers.send(MonitorInput::ProbeReply(id, answer));
        });
    }
}

/// Opens a connection for SSH: through the tunnel or directly.
async fn dial(
    roads: Arc<ProbePaths>,
    route: Route,
    port: u16,
    timeout: Duration,
) -> Result<Either<TunnelStream, TcpStream>, ConnectFailure> {
    match route {
        Route::Tunnel { peer, address } => {
            Ok(Either::Left(roads.streams.connect(peer, SocketAddr::new(address, port), timeout).await?))
        }
        Route::Direct { host } => Ok(Either::Right(direct(&roads.outbound, &host, port, timeout).await?)),
    }
}

async fn direct_time(
    outbound: &Outbound,
    host: &str,
    port: u16,
    timeout: Duration,
) -> Result<Duration, ConnectFailure> {
    let before = clock::now().mono;
    direct(outbound, host, port, timeout).await?;
    Ok(clock::now().mono.since(before))
}

async fn direct(
    outbound: &Outbound,
    host: &str,
    port: u16,
    timeout: Duration,
) -> Result<TcpStream, ConnectFailure> {
    let connected = async {
        let found = outbound.resolve(host, port, Purpose::Watch).await;
        let addresses = found.map_err(|error| unresolved(host, error))?;
        TcpStream::connect(addresses.as_slice()).await
    };
    match tokio::time::timeout(timeout, connected).await {
        Ok(Ok(stream)) => {
            // Packets are small in both directions, so Nagle's algorithm gains nothing.
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        Ok(Err(error)) => Err(failure(&error)),
        Err(_) => Err(ConnectFailure::Timeout),
    }
}

/// Names the host of a failed lookup. A refused address and a lack of the gateway's own means stay
/// what they are.
fn unresolved(host: &str, error: std::io::Error) -> std::io::Error {
    if is_ours(&error) || error.kind() == std::io::ErrorKind::PermissionDenied {
        return error;
    }
    let text = error.to_string();
    let why =
        text.rsplit_once("failed to lookup address information: ").map_or(text.as_str(), |(_, why)| why);
    std::io::Error::other(format!("the name {host} does not resolve ({why})"))
}

fn failure(error: &std::io::Error) -> ConnectFailure {
    use std::io::ErrorKind;
    match error.kind() {
        _ if is_ours(error) => ConnectFailure::Busy,
        ErrorKind::ConnectionRefused => ConnectFailure::Refused,
        ErrorKind::ConnectionReset => ConnectFailure::Reset,
        ErrorKind::TimedOut => ConnectFailure::Timeout,
        _ => ConnectFailure::Unreachable(error.to_string()),
    }
}

/// Whether the gateway itself lacks file descriptors, memory or ports. Nothing was sent then, so the
/// error does not concern the host.
fn is_ours(error: &std::io::Error) -> bool {
    let scarce = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| scarce.contains(&code))
}

/// Receives the arrivals and handovers of rented devices. It must not block.
pub type TakeHandover = Box<dyn FnMut(HandoverStep) + Send>;

/// Starts the monitor thread, which runs until `stop`. The writer has all records by then.
///
/// # Errors
/// Fails when the thread or its reactor cannot be created.
pub fn start(
    monitor: Monitor,
    inbox: Inbox,
    carrier: ProbeExecutor,
    (writer, handovers): (Writer, TakeHandover),
    pulse: Progress,
    stop: CancellationToken,
) -> anyhow::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let watch = MonitorThread { monitor, carrier, writer, handovers, pulse, gauges: Gauges::default() };
    let thread = std::thread::Builder::new().name("monitor".to_owned());
    Ok(thread.spawn(move || runtime.block_on(watch.run(inbox, stop)))?)
}

struct MonitorThread {
    monitor: Monitor,
    carrier: ProbeExecutor,
    writer: Writer,
    handovers: TakeHandover,
    pulse: Progress,
    gauges: Gauges,
}

/// Returns the host whose kept connections may be outdated: another address, another pinned key,
/// another machine. A new connection costs one handshake.
fn outdated(input: &MonitorInput) -> Option<HostId> {
    match input {
        MonitorInput::Remove(host) => Some(*host),
        MonitorInput::Upsert(spec) => Some(spec.id),
        _ => None,
    }
}

impl MonitorThread {
    async fn run(mut self, mut inbox: Inbox, stop: CancellationToken) {
        let mut deadline = self.drain().await;
        let mut next_commands = Mono::ZERO;
        loop {
            let now = clock::now().mono;
            let wait = deadline.map(|at| at.since(now));
            let gathers = next_commands.since(now);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                input = inbox.answers.recv() => match input {
                    Some(first) => self.take(first, &mut inbox),
                    None => return,
                },
                input = inbox.commands.recv(), if gathers.is_zero() => match input {
                    Some(first) => {
                        self.take(first, &mut inbox);
                        next_commands = clock::now().mono + BETWEEN_COMMANDS;
                    }
                    None => return,
                },
                () = sleep(wait) => self.monitor.handle(MonitorInput::Timeout, clock::now()),
                () = sleep(Some(gathers)), if !gathers.is_zero() => continue,
            }
            deadline = self.drain().await;
            self.pulse.beat(Component::Scheduler);
        }
    }

    fn take(&mut self, first: MonitorInput, inbox: &mut Inbox) {
        let now = clock::now();
        self.hand_over(first, now);
        for _ in 1..INPUTS_PER_TURN {
            let next = inbox.answers.try_recv().or_else(|_| inbox.commands.try_recv());
            match next {
                Ok(input) => self.hand_over(input, now),
                Err(_) => return,
            }
        }
    }

    fn hand_over(&mut self, input: MonitorInput, now: Now) {
        if let Some(host) = outdated(&input) {
            self.carrier.0.ssh.forget(host);
        }
        self.monitor.handle(input, now);
    }

    /// Empties the engine's outputs. The records of one turn go to the writer together: a state and its
    /// message must not be separated.
    async fn drain(&mut self) -> Option<Mono> {
        let mut records = Vec::new();
        let deadline = loop {
            match self.monitor.poll_output() {
                MonitorOutput::ProbeRequest(ask) => self.carrier.carry(ask),
                MonitorOutput::Record(record) => records.push(record),
                MonitorOutput::HandedOver(handover) => (self.handovers)(HandoverStep::HandedOver(handover)),
                MonitorOutput::FirstContact(contact) => (self.handovers)(HandoverStep::Arrived(contact)),
                MonitorOutput::ProbeUplink => self.carrier.0.outside.notify_one(),
                MonitorOutput::Wait(at, why) => {
                    tracing::trace!(?at, ?why, "monitor waits");
                    break at;
                }
            }
        };
        self.writer.append(records).await;
        self.gauges.publish(clock::now().mono, || self.monitor.figures());
        deadline
    }
}
