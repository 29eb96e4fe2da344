//! The part of a request's body that a handler did not read.
//!
//! A refusal does not wait for the body. If the connection ends while part of it is on its way, the
//! system resets the connection, and the client may lose the response. The rest is therefore read
//! first, within limits.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{Version, header};
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};

/// More than any request body, except uploads of backups.
const MOST: usize = 4 * 1024 * 1024;
/// Time limit, so that a slow client does not delay the response further.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Clone)]
struct Shared(Arc<Mutex<Incoming>>);

/// The shared body, read when the response is ready.
pub(super) struct Leftover(Shared);

/// Returns the request for its handler, and the body that the handler may leave. `None` over HTTP/2,
/// where a stream ends without its connection, and for a client that waits for `100 Continue` and has
/// sent no body.
pub(super) fn share(request: Request<Incoming>) -> (Request<Body>, Option<Leftover>) {
    let has_body = !hyper::body::Body::is_end_stream(request.body());
    let is_sent = !request.headers().contains_key(header::EXPECT);
    if !has_body || !is_sent || request.version() > Version::HTTP_11 {
        return (request.map(Body::new), None);
    }
    let (parts, body) = request.into_parts();
    let shared = Shared(Arc::new(Mutex::new(body)));
    (Request::from_parts(parts, Body::new(shared.clone())), Some(Leftover(shared)))
}

impl Leftover {
    pub async fn drain(self) {
        let _ = tokio::time::timeout(PATIENCE, self.read()).await;
    }

    async fn read(&self) {
        let mut left = MOST;
        while let Some(Ok(frame)) = std::future::poll_fn(|cx| self.0.poll(cx)).await {
            let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
            left = rest;
        }
    }
}

impl Shared {
    fn body(&self) -> MutexGuard<'_, Incoming> {
        self.0.lock().expect("no holder panics")
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        hyper::body::Body::poll_frame(Pin::new(&mut *self.body()), cx)
    }
}

impl hyper::body::Body for Shared {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        self.poll(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body().size_hint()
    }
}
