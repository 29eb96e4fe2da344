//! DNS inside the tunnels, as far as the engine does not answer by itself: queries over TCP, and names
//! that resolvers answer for operators.
//!
//! The engine decides about each query and limits how many a peer sends. This module reads streams and
//! asks resolvers, within limits of its own, and holds up nothing else.

mod in_flight;
mod resolvers;
mod stream;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use fleetgate_engine::dns::Carrier;
use fleetgate_engine::messages::DnsClient;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::handle::Handle;
use crate::tunnel::stream::AcceptedStream;
use in_flight::InFlight;
use resolvers::Resolvers;

/// Queries that wait to be passed to a resolver.
pub const QUEUE: usize = 256;

/// Work that the tunnel thread passes on.
pub struct Inbox {
    /// Connections of people to the port of DNS.
    pub streams: mpsc::Receiver<AcceptedStream>,
    /// Queries over UDP for resolvers.
    pub forwards: mpsc::Receiver<(DnsClient, Vec<u8>)>,
}

#[derive(Clone)]
struct Service {
    handle: Handle,
    resolvers: Resolvers,
    in_flight: InFlight,
}

/// Starts the tasks, which run until `stop`.
pub fn start(
    tasks: &mut JoinSet<()>,
    inbox: Inbox,
    handle: Handle,
    resolvers: &[SocketAddr],
    stop: &CancellationToken,
) {
    let service = Service { handle, resolvers: Resolvers::new(resolvers), in_flight: InFlight::default() };
    tasks.spawn(service.clone().serve_streams(inbox.streams, stop.clone()));
    tasks.spawn(service.serve_forwards(inbox.forwards, stop.clone()));
}

impl Service {
    /// Nothing is acknowledged over DNS, so a stop cuts what is in progress off.
    async fn serve_streams(self, mut streams: mpsc::Receiver<AcceptedStream>, stop: CancellationToken) {
        let open = TaskTracker::new();
        while let Some(arrival) = next(&mut streams, &stop).await {
            let (service, stop) = (self.clone(), stop.clone());
            open.spawn(async move { stop.run_until_cancelled(service.serve_stream(arrival)).await });
        }
        open.close();
        open.wait().await;
    }

    async fn serve_forwards(
        self,
        mut forwards: mpsc::Receiver<(DnsClient, Vec<u8>)>,
        stop: CancellationToken,
    ) {
        let open = TaskTracker::new();
        while let Some((client, query)) = next(&mut forwards, &stop).await {
            // Without a place the query is lost, as datagrams are, and the client asks again.
            let Some(place) = self.in_flight.enter(client.peer) else { continue };
            let (service, stop) = (self.clone(), stop.clone());
            open.spawn(async move {
                let _place = place;
                stop.run_until_cancelled(service.forward(client, query)).await
            });
        }
        open.close();
        open.wait().await;
    }

    async fn forward(&self, client: DnsClient, query: Vec<u8>) {
        if let Some(reply) = self.resolvers.ask(&query, Carrier::Udp).await {
            self.handle.dns_reply(client, reply).await;
        }
    }
}

async fn next<T>(queue: &mut mpsc::Receiver<T>, stop: &CancellationToken) -> Option<T> {
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        item = queue.recv() => item,
    }
}
