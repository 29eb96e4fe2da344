//! The listener inside the tunnels: it serves one request of a device per connection, then closes it.
//!
//! The engine limits the number and the duration of connections; this file limits the head.

use std::sync::Arc;

use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::House;
use crate::api::Client;
use crate::stream::Arrival;

/// The largest head: the smallest limit that hyper accepts. `curl` sends 150 bytes.
const HEAD_BYTES: usize = 8 * 1024;

impl House {
    /// Serves until the stop, after which requests in progress have the grace period.
    pub async fn serve_tunnels(self, mut arrivals: mpsc::Receiver<Arrival>) {
        let (house, open) = (Arc::new(self), TaskTracker::new());
        loop {
            let arrival = tokio::select! {
                biased;
                () = house.stop.cancelled() => break,
                arrival = arrivals.recv() => arrival,
            };
            let Some(arrival) = arrival else { break };
            let house = house.clone();
            open.spawn(async move { house.attend_device(arrival).await });
        }
        open.close();
        open.wait().await;
    }

    async fn attend_device(&self, Arrival { peer, stream }: Arrival) {
        let answer = |request: Request<Incoming>| self.answer(request, Client::Device(peer));
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
                    tracing::trace!("a device's connection broke off: {error}");
                }
            }
            () = graceful => {}
        }
    }
}
