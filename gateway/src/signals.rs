//! Signals to the gateway: SIGTERM and SIGINT stop it, SIGHUP reloads its settings.
//!
//! [`hold`] is the first statement of the program. From then on a signal stays pending: it cannot kill
//! a start with a status that systemd takes for a clean exit. [`Signals::listen`] receives the pending
//! ones.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that the gateway handles.
const ACTED_ON: [libc::c_int; 3] = [libc::SIGHUP, libc::SIGINT, libc::SIGTERM];

/// Blocks the signals that the gateway handles, for this thread and all threads it starts.
pub fn hold() {
    mask(libc::SIG_BLOCK);
}

/// Unblocks them for this thread. They reach the handlers of [`Signals::listen`]. In a command other
/// than the gateway they reach the system's default, which ends the process.
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
    // SAFETY: sigemptyset initialises `set` before it is read, and `set` outlives all calls. The calls
    // fail only for an invalid signal number or another `how`.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for number in ACTED_ON {
            libc::sigaddset(&raw mut set, number);
        }
        libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut());
    }
}

/// The request that a signal makes.
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
    /// Installs the handlers, then unblocks the pending signals.
    ///
    /// # Errors
    /// Fails when the operating system refuses a handler.
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

    /// Waits until the gateway is to stop, and returns at once from then on. A SIGHUP stays for
    /// [`Signals::next`].
    pub async fn stop(&mut self) {
        if !self.stopping {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
            self.stopping = true;
        }
    }

    /// Returns the next request. A stop takes precedence over a reload.
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
