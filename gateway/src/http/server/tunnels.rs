//! The listeners inside the tunnels: each serves one request of a peer per connection, then closes it.
//!
//! The engine limits the number and the duration of connections; this file limits the head.

use std::sync::Arc;

use axum::extract::Request;
use fleetgate_engine::id::PeerId;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::HttpServer;
use crate::api::Client;
use crate::tunnel::stream::AcceptedStream;

/// The largest head: the smallest limit that hyper accepts. `curl` sends 150 bytes.
const HEAD_BYTES: usize = 8 * 1024;

impl HttpServer {
    /// Serves until the stop, after which requests in progress have the grace period. `client`: what the peers are.
    pub async fn serve_tunnels(
        self,
        mut arrivals: mpsc::Receiver<AcceptedStream>,
        client: fn(PeerId) -> Client,
    ) {
        let (house, open) = (Arc::new(self), TaskTracker::new());
        loop {
            let arrival = tokio::select! {
                biased;
                () = house.stop.cancelled() => break,
                arrival = arrivals.recv() => arrival,
            };
            let Some(arrival) = arrival else { break };
            let house = house.clone();
            open.spawn(async move { house.attend_peer(arrival, client).await });
        }
        open.close();
        open.wait().await;
    }

    async fn attend_peer(&self, accepted: AcceptedStream, client: fn(PeerId) -> Client) {
        let AcceptedStream { peer, stream } = accepted;
        let answer = |request: Request<Incoming>| self.answer(request, client(peer));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head)
            .max_buf_size(HEAD_BYTES)
            .keep_alive(false)
            // `nc` closes its sending direction before it reads.
            .half_close(true)
            .serve_connection(TokioIo::new(stream), hyper::service::service_fn(answer));
        let graceful = async {
            self.stop.cancelled().await;
            tokio::time::sleep(self.limits.grace).await;
        };
        tokio::select! {
            ended = connection => {
                if let Err(error) = ended {
                    tracing::trace!("a peer's connection broke off: {error}");
                }
            }
            () = graceful => {}
        }
    }
}
