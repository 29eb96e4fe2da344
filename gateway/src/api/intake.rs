//! The body of a result that comes through a tunnel: what is kept of it is read, the rest is let go.
//!
//! Promises that a result is not refused for a long output, and that all devices together hold no more
//! memory than a few large bodies take. Knows nothing of what is in it.

use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use futures_util::StreamExt as _;
use http_body_util::LengthLimitError;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::problem::Problem;

/// A body up to here needs no room of its own: a plugin sends a quarter of it, and all connections that
/// devices may have at once take 8 MB.
const SMALL: usize = 16 * 1024;
/// Larger ones at once, of all devices: 4 MB. The next ones wait, and their senders with them.
pub const LARGE_AT_ONCE: usize = 32;
/// The largest body that is listened to: who sends more is not sending the output of a plugin.
pub const MOST: usize = 1024 * 1024;
/// For the whole of a body, the wait for room included.
const PATIENCE: Duration = Duration::from_secs(15);

/// Holds its room until it is dropped.
pub struct Body<'a> {
    pub bytes: Vec<u8>,
    /// There was more than was to be kept.
    pub cut: bool,
    room: Option<SemaphorePermit<'a>>,
}

/// Reads a body to its end and keeps `kept` bytes of it.
///
/// # Errors
/// 408 for a body that trickles in, 413 above [`MOST`] or the router's limit, 400 for one that breaks off.
pub async fn read<'a>(request: Request, kept: usize, large: &'a Semaphore) -> Result<Body<'a>, Problem> {
    read_within(PATIENCE, request, kept, large).await
}

async fn read_within<'a>(
    patience: Duration,
    request: Request,
    kept: usize,
    large: &'a Semaphore,
) -> Result<Body<'a>, Problem> {
    let read = tokio::time::timeout(patience, read_all(request, kept, large)).await;
    read.unwrap_or_else(|_| Err(Problem::from_status(StatusCode::REQUEST_TIMEOUT)))
}

async fn read_all<'a>(request: Request, kept: usize, large: &'a Semaphore) -> Result<Body<'a>, Problem> {
    let mut body = Body { bytes: Vec::new(), cut: false, room: None };
    let (mut chunks, mut all) = (request.into_body().into_data_stream(), 0);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| broken_off(&error))?;
        all += chunk.len();
        if all > MOST {
            return Err(Problem::from_status(StatusCode::PAYLOAD_TOO_LARGE));
        }
        if all > SMALL && body.room.is_none() {
            body.room = large.acquire().await.ok();
        }
        let wanted = chunk.len().min(kept - body.bytes.len());
        body.bytes.extend_from_slice(&chunk[..wanted]);
        body.cut |= wanted < chunk.len();
    }
    Ok(body)
}

/// The router's limit ends a body that does not say its length.
fn broken_off(error: &(dyn std::error::Error + 'static)) -> Problem {
    if std::iter::successors(Some(error), |e| e.source()).any(|e| e.is::<LengthLimitError>()) {
        return Problem::from_status(StatusCode::PAYLOAD_TOO_LARGE);
    }
    Problem::bad_request("broken_body", "the body broke off before its end: send it again")
}

#[cfg(test)]
mod tests {
    use axum::body::{Body as HttpBody, Bytes};

    use super::*;

    fn request(chunks: Vec<usize>) -> Request {
        let chunks = chunks.into_iter().map(|n| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; n])));
        Request::new(HttpBody::from_stream(futures_util::stream::iter(chunks)))
    }

    #[tokio::test]
    async fn what_is_over_is_let_go_and_said() {
        let large = Semaphore::new(1);
        for (chunks, kept, cut) in
            [(vec![], 0, false), (vec![50, 50], 100, false), (vec![60, 60, 9], 100, true)]
        {
            let body = read(request(chunks), 100, &large).await.unwrap_or_else(|e| panic!("{e}"));
            assert_eq!((body.bytes.len(), body.cut), (kept, cut));
        }
        let refused = read(request(vec![MOST, 1]), 100, &large).await.err().map(|e| e.code());
        assert_eq!(refused, Some("too_large"));
    }

    #[tokio::test]
    async fn large_bodies_wait_for_each_other_and_small_ones_for_nobody() {
        let large = Semaphore::new(1);
        let first = read(request(vec![SMALL + 1]), MOST, &large).await.unwrap_or_else(|e| panic!("{e}"));
        assert!(read(request(vec![SMALL]), MOST, &large).await.is_ok());
        let soon = Duration::from_millis(50);
        let waited = read_within(soon, request(vec![SMALL + 1]), MOST, &large).await;
        assert_eq!(waited.err().map(|e| e.code()), Some("too_slow"));
        drop(first);
        assert!(read(request(vec![SMALL + 1]), MOST, &large).await.is_ok());
    }
}
