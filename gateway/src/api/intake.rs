//! The body of a result that comes through a tunnel, or of many results: what is kept of it is read, the rest is
//! let go.
//!
//! Promises that a result is not refused for a long output, and that all senders together hold no more
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
const RETRY_AFTER_S: u64 = 2;
/// For the whole of a body, the wait for room included.
const PATIENCE: Duration = Duration::from_secs(15);

/// What is read of a body.
#[derive(Clone, Copy)]
pub struct Bounds<'a> {
    /// Bytes that are kept.
    pub kept: usize,
    /// Bytes that are listened to.
    pub most: usize,
    /// A body up to here needs no room of its own.
    pub small: usize,
    /// Room for larger ones.
    pub large: &'a Semaphore,
    /// Whoever finds no room for so long is sent away.
    pub wait: Duration,
}

impl<'a> Bounds<'a> {
    /// Of what comes through tunnels.
    pub fn of_tunnels(kept: usize, large: &'a Semaphore) -> Self {
        Bounds { kept, most: MOST, small: SMALL, large, wait: PATIENCE }
    }
}

/// Holds its room until that is dropped.
pub struct Body<'a> {
    pub bytes: Vec<u8>,
    /// There was more than was to be kept.
    pub cut: bool,
    pub room: Option<SemaphorePermit<'a>>,
}

/// Reads a body to its end.
///
/// # Errors
/// 408 for a body that trickles in, 413 for more than is listened to or the router takes, 400 for one that breaks
/// off, 503 where there is no room.
pub async fn read(request: Request, bounds: Bounds<'_>) -> Result<Body<'_>, Problem> {
    read_within(PATIENCE, request, bounds).await
}

async fn read_within(patience: Duration, request: Request, bounds: Bounds<'_>) -> Result<Body<'_>, Problem> {
    let read = tokio::time::timeout(patience, read_all(request, bounds)).await;
    read.unwrap_or_else(|_| Err(Problem::from_status(StatusCode::REQUEST_TIMEOUT)))
}

async fn read_all(request: Request, bounds: Bounds<'_>) -> Result<Body<'_>, Problem> {
    let mut body = Body { bytes: Vec::new(), cut: false, room: None };
    let (mut chunks, mut all) = (request.into_body().into_data_stream(), 0);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| broken_off(&error))?;
        all += chunk.len();
        if all > bounds.most {
            return Err(Problem::from_status(StatusCode::PAYLOAD_TOO_LARGE));
        }
        if all > bounds.small && body.room.is_none() {
            body.room = Some(room(bounds).await?);
        }
        let wanted = chunk.len().min(bounds.kept - body.bytes.len());
        body.bytes.extend_from_slice(&chunk[..wanted]);
        body.cut |= wanted < chunk.len();
    }
    Ok(body)
}

async fn room(bounds: Bounds<'_>) -> Result<SemaphorePermit<'_>, Problem> {
    let found = tokio::time::timeout(bounds.wait, bounds.large.acquire()).await;
    let found = found.map_err(|_| {
        Problem::busy("too many large bodies at once: send this again in a moment", RETRY_AFTER_S)
    })?;
    found.map_err(Problem::internal)
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
            let body = read(request(chunks), Bounds::of_tunnels(100, &large))
                .await
                .unwrap_or_else(|e| panic!("{e}"));
            assert_eq!((body.bytes.len(), body.cut), (kept, cut));
        }
        let refused =
            read(request(vec![MOST, 1]), Bounds::of_tunnels(100, &large)).await.err().map(|e| e.code());
        assert_eq!(refused, Some("too_large"));
    }

    #[tokio::test]
    async fn large_bodies_wait_for_each_other_and_small_ones_for_nobody() {
        let large = Semaphore::new(1);
        let bounds = Bounds::of_tunnels(MOST, &large);
        let first = read(request(vec![SMALL + 1]), bounds).await.unwrap_or_else(|e| panic!("{e}"));
        assert!(read(request(vec![SMALL]), bounds).await.is_ok());
        let soon = Duration::from_millis(50);
        let waited = read_within(soon, request(vec![SMALL + 1]), bounds).await;
        assert_eq!(waited.err().map(|e| e.code()), Some("too_slow"));
        let hasty = read(request(vec![SMALL + 1]), Bounds { wait: soon, ..bounds }).await;
        assert_eq!(hasty.err().map(|e| e.code()), Some("busy"));
        drop(first);
        assert!(read(request(vec![SMALL + 1]), bounds).await.is_ok());
    }
}
