//! The program's own thread for tunnels, with its socket, and without the rest of the program.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use fleetgate::tunnel::stream::Streams;
use fleetgate::tunnel::thread;
use fleetgate::tunnel::thread::{Inbox, TunnelOutputs};
use fleetgate::tunnel::udp;
use fleetgate::tunnel::udp::SocketStats;
use fleetgate_engine::messages::{Command, PeerSnapshot, PeerSpec};
use fleetgate_engine::tunnel::Tunnel;
use fleetgate_engine::tunnel::noise::BoringNoise;
use fleetgate_keys::PrivateKey;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{named_thread_cpu, pool, seed};

/// It ends when dropped.
pub struct TunnelThread {
    pub address: SocketAddr,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
    commands: mpsc::Sender<Command>,
    _asks: mpsc::UnboundedSender<Command>,
}

impl TunnelThread {
    /// # Errors
    /// Fails when the socket or the thread cannot be made.
    pub fn start(private: &PrivateKey, peers: impl IntoIterator<Item = PeerSpec>) -> anyhow::Result<Self> {
        let mut tunnel = Tunnel::new(pool(), BoringNoise::new(private, seed()), seed());
        let peers = peers.into_iter().map(|spec| (spec, PeerSnapshot::default()));
        tunnel.restore(peers, fleetgate::clock::now());
        let socket = udp::bind("127.0.0.1:0".parse()?)?;
        let address = socket.local_addr()?;
        let (commands, commands_out) = mpsc::channel(1);
        let (asks_in, asks) = mpsc::unbounded_channel();
        let (streams, _) = Streams::new(asks_in.clone());
        let outputs = TunnelOutputs {
            answer: Box::new(|_, _| {}),
            news: Box::new(|_| {}),
            explanations: Box::new(|_, _| {}),
            forward_probes: Box::new(|_, _| {}),
            dns_answers: Box::new(|_, _| {}),
            dns_forwards: Box::new(|_, _| {}),
            flows: Box::new(|_| {}),
            streams,
            passage: SocketStats::default(),
        };
        let (stop, inbox) = (CancellationToken::new(), Inbox { commands: commands_out, asks });
        let thread =
            thread::start(tunnel, socket, inbox, outputs, stop.clone()).context("the tunnel's thread")?;
        Ok(TunnelThread { address, stop, thread: Some(thread), commands, _asks: asks_in })
    }

    /// # Errors
    /// Fails when the thread has ended.
    pub fn command(&self, command: Command) -> anyhow::Result<()> {
        self.commands.blocking_send(command).context("the tunnel's thread has ended")
    }

    /// Returns the CPU time of the thread during `work`. There must be one such thread in the process.
    pub fn cpu_while(&self, work: impl FnOnce()) -> Duration {
        let begin = named_thread_cpu("tunnel");
        work();
        named_thread_cpu("tunnel") - begin
    }
}

impl Drop for TunnelThread {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
