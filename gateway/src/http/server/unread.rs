//! Responses that an HTTP/2 client does not read.
//!
//! Such a client still answers pings and acknowledges packets, so that the connection looks alive. Its
//! responses are handed over in pieces, and the connection ends when it takes none for too long.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::request_permits::RequestPermit;

/// Time within which a client takes the next piece.
const PATIENCE: Duration = if cfg!(test) { Duration::from_millis(200) } else { super::UNREAD };
/// Bytes that are handed over at once. The connection keeps what it was given until the client reads.
const PIECE: usize = 4 * 1024;

/// The mark of one connection that a response was not read in time. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Unread(CancellationToken);

/// The part of one response that was taken.
#[derive(Default)]
struct Taken {
    pieces: AtomicU64,
    /// The client has taken all that there is so far.
    is_all: AtomicBool,
}

/// The body of a response, in pieces. It keeps the place of its request.
struct Pieces {
    body: Body,
    rest: Bytes,
    taken: Arc<Taken>,
    _place: RequestPermit,
    _sent: DropGuard,
}

impl Unread {
    /// Waits until a response was not read in time.
    pub async fn found(&self) {
        self.0.cancelled().await;
    }

    /// Watches how a response is read, and keeps its place until then.
    pub fn watch(&self, response: Response, place: RequestPermit) -> Response {
        if response.body().is_end_stream() {
            return response;
        }
        let (taken, sent) = (Arc::new(Taken::default()), CancellationToken::new());
        tokio::spawn(self.clone().wait(taken.clone(), sent.clone()));
        let sent = sent.drop_guard();
        response.map(|body| Body::new(Pieces { body, rest: Bytes::new(), taken, _place: place, _sent: sent }))
    }

    async fn wait(self, taken: Arc<Taken>, sent: CancellationToken) {
        let mut before = 0;
        while tokio::time::timeout(PATIENCE, sent.cancelled()).await.is_err() {
            let pieces = taken.pieces.load(Ordering::Relaxed);
            if pieces == before && !taken.is_all.load(Ordering::Relaxed) {
                return self.0.cancel();
            }
            before = pieces;
        }
    }
}

impl Pieces {
    fn next_piece(&mut self) -> Frame<Bytes> {
        self.taken.pieces.fetch_add(1, Ordering::Relaxed);
        Frame::data(self.rest.split_to(self.rest.len().min(PIECE)))
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.next_piece())));
        }
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        self.taken.is_all.store(frame.is_pending(), Ordering::Relaxed);
        let Some(frame) = std::task::ready!(frame).transpose()? else { return Poll::Ready(None) };
        Poll::Ready(Some(Ok(match frame.into_data() {
            Ok(data) => {
                self.rest = data;
                self.next_piece()
            }
            Err(trailers) => trailers,
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(rest + body.lower());
        if let Some(upper) = body.upper() {
            hint.set_upper(rest + upper);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::super::request_permits::{RequestPermits, Shared};
    use super::*;
    use crate::api::Login;

    fn places() -> RequestPermits {
        Shared::new().of_a_connection(Login::default())
    }

    fn watched(unread: &Unread, body: Body) -> Body {
        unread.watch(Response::new(body), places().take().expect("a place")).into_body()
    }

    async fn is_found(unread: &Unread, within: Duration) -> bool {
        tokio::time::timeout(within, unread.found()).await.is_ok()
    }

    #[tokio::test]
    async fn a_response_is_handed_over_in_pieces() {
        let mut body = watched(&Unread::default(), Body::from(vec![b'x'; PIECE + 1]));
        assert_eq!(body.size_hint().exact(), Some(PIECE as u64 + 1));
        let piece = body.frame().await.expect("a piece").expect("no error").into_data().expect("data");
        assert_eq!((piece.len(), body.size_hint().exact(), body.is_end_stream()), (PIECE, Some(1), false));
        assert_eq!(body.collect().await.expect("the rest").to_bytes().len(), 1);
    }

    #[tokio::test]
    async fn a_place_is_kept_until_the_response_was_sent() {
        let (unread, flood) = (Unread::default(), Shared::new());
        let other = flood.of_a_connection(Login::default());
        let held: Vec<RequestPermit> = std::iter::from_fn(|| other.take()).collect();
        let places = flood.of_a_connection(Login::default());
        let answer = unread.watch(Response::new(Body::from("x")), places.take().expect("its own"));
        assert!(places.take().is_none());
        drop((answer, held));
        assert!(places.take().is_some());
    }

    #[tokio::test]
    async fn a_response_that_is_not_read_is_found_and_one_that_is_has_time() {
        let unread = Unread::default();
        drop(watched(&unread, Body::from("read")));
        // An event stream without events has been read as far as it goes.
        let mut stream = watched(
            &unread,
            Body::from_stream(futures_util::stream::pending::<Result<Bytes, axum::Error>>()),
        );
        assert!(futures_util::poll!(std::pin::pin!(stream.frame())).is_pending());
        assert!(!is_found(&unread, PATIENCE * 3).await);
        let _left = watched(&unread, Body::from("x"));
        assert!(is_found(&unread, PATIENCE * 100).await);
    }
}
