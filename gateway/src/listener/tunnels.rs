//! The door inside the tunnels: one request of a device per connection, and then it is closed.
//!
//! How many may come at once and for how long the engine says; what a head may be, this file.

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

/// The largest head: `curl` sends 150 bytes. The smallest that there is.
const HEAD_BYTES: usize = 8 * 1024;

impl House {
    /// Serves until the stop; then what is under way has its grace.
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
            // `nc` ends its direction before it reads.
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
