//! Signals to a gateway: SIGTERM and SIGINT end it, SIGHUP loads its settings again.
//!
//! [`hold`] is the first statement of the program: from then on a signal waits, and cannot kill a start with a
//! status that systemd takes for a clean exit. [`Signals::listen`] takes what has come since.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that a gateway acts on.
const ACTED_ON: [libc::c_int; 3] = [libc::SIGHUP, libc::SIGINT, libc::SIGTERM];

/// Keeps the signals that a gateway acts on waiting, for this thread and all that it starts.
pub fn hold() {
    mask(libc::SIG_BLOCK);
}

/// Lets them through to this thread: to the handlers of [`Signals::listen`], or, in a command that is no
/// gateway, to the system's default, which ends the process.
pub fn release() {
    mask(libc::SIG_UNBLOCK);
}

/// Whether this process was started so that SIGHUP does not end it, as `nohup` does. To be asked before
/// [`Signals::listen`].
#[allow(unsafe_code, reason = "sigaction, which std does not have")]
pub fn hangup_is_ignored() -> bool {
    // SAFETY: `now` is written by the call, which only reads what holds, and is all zeros where it fails.
    let now = unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGHUP, std::ptr::null(), &raw mut now);
        now
    };
    now.sa_sigaction == libc::SIG_IGN
}

#[allow(unsafe_code, reason = "pthread_sigmask, which std does not have")]
fn mask(how: libc::c_int) {
    // SAFETY: `set` is initialised by sigemptyset before it is read, and lives for the length of all calls;
    // the calls fail only for numbers that are no signals, or another `how`.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for number in ACTED_ON {
            libc::sigaddset(&raw mut set, number);
        }
        libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut());
    }
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    Stop,
    Reload,
}

/// The signals to this process since [`hold`].
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    stopping: bool,
}

impl Signals {
    /// Installs the handlers, then lets the signals through that have waited.
    ///
    /// # Errors
    /// When the operating system refuses a handler.
    pub fn listen() -> io::Result<Signals> {
        let signals = Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            stopping: false,
        };
        release();
        Ok(signals)
    }

    /// Until the gateway is to end, and at once from then on. A SIGHUP waits for [`Signals::next`].
    pub async fn stop(&mut self) {
        if !self.stopping {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
            self.stopping = true;
        }
    }

    /// The next request; a stop goes before a reload.
    pub async fn next(&mut self) -> Request {
        if self.stopping {
            return Request::Stop;
        }
        tokio::select! {
            biased;
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => return Request::Reload,
        }
        self.stopping = true;
        Request::Stop
    }
}
