//! The SSH session of a host while it is in progress, and the time that the last one took.

use std::net::IpAddr;
use std::time::Duration;

use crate::messages::{ProbeId, SshReply};

use crate::monitor::host::path_check::PathQuestion;
use crate::monitor::paths::Via;

/// The sessions of a host; at most one is open.
#[derive(Debug, Default)]
pub struct Sessions {
    open: Option<Session>,
    /// The time it took to open the last one that was not reused.
    connect: Option<Duration>,
}

impl Sessions {
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub fn open(&mut self, session: Session) {
        self.open = Some(session);
    }

    pub fn take(&mut self) -> Option<Session> {
        self.open.take()
    }

    pub fn open_mut(&mut self) -> Option<&mut Session> {
        self.open.as_mut()
    }

    /// Records how long a session took to open, and returns that time. A reused session has none,
    /// so that of the last one remains.
    pub fn note_connect(&mut self, answer: &SshReply) -> Option<Duration> {
        self.connect = answer.connect.filter(|_| !answer.reused).or(self.connect);
        self.connect
    }
}

/// A session in progress.
#[derive(Debug)]
pub struct Session {
    pub probe: ProbeId,
    /// The services in it, by their positions.
    pub riders: Vec<usize>,
    pub way: Via,
    /// The inner address that it went to.
    pub address: Option<IpAddr>,
    /// The other inner address, once that was probed.
    pub other: Option<IpAddr>,
    /// The paths still to be tried.
    pub rest: Vec<Via>,
    pub aside: Aside,
}

/// A probe beside the session before its reply is evaluated.
#[derive(Debug)]
pub enum Aside {
    Nothing,
    Path(Stalled),
    /// The session got no reply at one inner address, so the other is probed.
    Other(Box<SshReply>),
}

/// The session connected and fell silent, or did not connect. Echoes of two sizes show whether the
/// path is the cause.
#[derive(Debug)]
pub struct Stalled {
    pub answer: Box<SshReply>,
    pub path: PathQuestion,
}
