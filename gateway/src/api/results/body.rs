//! Reads the body of a result through a tunnel, or of many results. Keeps the useful part and
//! discards the rest.
//!
//! A long output never causes a refusal, and all senders together hold no more memory than a few
//! large bodies. This module does not know the contents.

use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use futures_util::StreamExt as _;
use http_body_util::LengthLimitError;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::api::response::problem::Problem;

/// A body up to this size needs no permit. A plugin sends a quarter of it, and all concurrent
/// connections of devices take 8 MB.
const SMALL: usize = 16 * 1024;
/// Concurrent larger bodies of all devices, together 4 MB. Further ones wait, and so do their
/// senders.
pub const LARGE_AT_ONCE: usize = 32;
/// The largest accepted body. A larger one is no output of a plugin.
pub const MOST: usize = 1024 * 1024;
const RETRY_AFTER_S: u64 = 2;
/// The time for a whole body, including the wait for a permit.
const PATIENCE: Duration = Duration::from_secs(15);

/// The limits for a body.
#[derive(Clone, Copy)]
pub struct Bounds<'a> {
    /// Bytes to keep.
    pub kept: usize,
    /// Bytes to accept.
    pub most: usize,
    /// The size up to which a body needs no permit.
    pub small: usize,
    /// Permits for larger bodies.
    pub large: &'a Semaphore,
    /// The longest wait for a permit. After that, the caller is refused.
    pub wait: Duration,
}

impl<'a> Bounds<'a> {
    /// Returns the limits for bodies through tunnels.
    pub fn of_tunnels(kept: usize, large: &'a Semaphore) -> Self {
        Bounds { kept, most: MOST, small: SMALL, large, wait: PATIENCE }
    }
}

/// A body with its permit, which is returned on drop.
pub struct Body<'a> {
    pub bytes: Vec<u8>,
    /// Whether the body was longer than the part kept.
    pub cut: bool,
    pub room: Option<SemaphorePermit<'a>>,
}

/// Reads a whole body.
///
/// # Errors
/// Returns 408 for a slow body, 400 for one that breaks off, and 413 for one above the limit of
/// this call or the router. Returns 503 without a free permit.
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

/// Returns the error for a broken body. The router's limit ends a body without a length.
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
