//! A wrapper around the stream to an untrusted server. It remembers the first bytes, counts all of
//! them, and can be cut from outside while the protocol code is stuck.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Bytes that one run may receive: eight runaway commands (see `session::RUNAWAY_OUTPUT`).
pub(super) const RUN_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes within which the identification must appear: the protocol code allows 20 lines of 255 bytes
/// before it.
const HEAD_BYTES: usize = 21 * 256;
/// Characters shown of a server's text.
const SHOWN_CHARS: usize = 120;

/// State shared between the stream, which the protocol code owns, and the session.
pub(super) struct Guard {
    cut: CancellationToken,
    left: AtomicU64,
    head: Mutex<Vec<u8>>,
}

impl Guard {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Guard {
            cut: CancellationToken::new(),
            left: AtomicU64::new(RUN_BYTES),
            head: Mutex::new(Vec::new()),
        })
    }

    pub(super) fn wrap<S>(self: &Arc<Self>, inner: S) -> Guarded<S> {
        let cut = Box::pin(self.cut.clone().cancelled_owned());
        Guarded { inner, cut, guard: Arc::clone(self) }
    }

    /// Ends the stream: it reads as closed by the server, and accepts no more bytes.
    pub(super) fn cut(&self) {
        self.cut.cancel();
    }

    /// Resets the byte limit for a new run.
    pub(super) fn refill(&self) {
        self.left.store(RUN_BYTES, Ordering::Relaxed);
    }

    pub(super) fn exhausted(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    /// Returns `SSH-...` as the server sent it, once the line is complete.
    pub(super) fn identification(&self) -> Option<String> {
        identification(&self.head()).map(printable)
    }

    /// Returns the first text that the server sent, if any.
    pub(super) fn first_words(&self) -> Option<String> {
        let head = self.head();
        (!head.is_empty()).then(|| printable(head.trim_ascii()))
    }

    fn head(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn received(&self, bytes: &[u8]) -> io::Result<()> {
        let mut head = self.head();
        let room = HEAD_BYTES - head.len();
        if room > 0 && identification(&head).is_none() {
            head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        let left = self.left.load(Ordering::Relaxed).saturating_sub(bytes.len() as u64);
        self.left.store(left, Ordering::Relaxed);
        if left == 0 { Err(io::ErrorKind::QuotaExceeded.into()) } else { Ok(()) }
    }
}

fn identification(head: &[u8]) -> Option<&[u8]> {
    let complete = head.iter().rposition(|&b| b == b'\n')?;
    let mut lines = head[..complete].split(|&b| b == b'\n');
    lines.find(|line| line.starts_with(b"SSH-")).map(<[u8]>::trim_ascii_end)
}

/// Makes a server's text safe for logs and terminals.
pub(super) fn printable(bytes: &[u8]) -> String {
    let plain = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    String::from_utf8_lossy(bytes).chars().take(SHOWN_CHARS).map(plain).collect()
}

pub(super) struct Guarded<S> {
    inner: S,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    guard: Arc<Guard>,
}

impl<S> Guarded<S> {
    fn is_cut(&mut self, cx: &mut Context<'_>) -> bool {
        self.cut.as_mut().poll(cx).is_ready()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_cut(cx) {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let new = &buf.filled()[before..];
        Poll::Ready(if new.is_empty() { Ok(()) } else { self.guard.received(new) })
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_cut(cx) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_cut(cx) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identification_may_follow_other_lines() {
        assert_eq!(identification(b"welcome\r\nSSH-2.0-x\r\nrest"), Some(&b"SSH-2.0-x"[..]));
        assert_eq!(identification(b"SSH-2.0-x"), None, "the line is not complete");
        assert_eq!(identification(b"220 mail\r\n"), None);
    }

    #[test]
    fn text_of_a_server_cannot_control_a_terminal() {
        assert_eq!(printable("a\x1b[2Jb\u{202e}c".as_bytes()), "a?[2Jb?c");
        assert_eq!(printable(&[b'x'; 5000]).len(), SHOWN_CHARS);
    }

    #[test]
    fn the_bytes_of_a_run_are_counted() {
        let guard = Guard::new();
        assert!(guard.received(&[0; 1024]).is_ok());
        guard.left.store(10, Ordering::Relaxed);
        assert!(guard.received(&[0; 11]).is_err());
        assert!(guard.exhausted());
        guard.refill();
        assert!(!guard.exhausted());
    }
}
