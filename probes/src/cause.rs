//! The cause of a result, as a value.
//!
//! Code that decides reads the cause and never a text: a plugin prints what it likes, and its
//! output decides nothing. This module knows no states and no verdicts.

use crate::plugin::Ending;
use crate::tcp::ConnectEnd;

/// The outcome of the probe behind a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// The host replied, or a result was submitted. The result has its content.
    #[default]
    Answered,
    /// The host refused the connection: no program listens on the port.
    Refused,
    /// The host reset the connection.
    Reset,
    /// No reply arrived in time.
    NoAnswer,
    /// A connection was made, and then no data arrived in time.
    Stalled,
    /// The command ran and did not end in time.
    CommandTimedOut,
    /// The connection broke before the command ended.
    ConnectionLost,
    /// A router reported that the host cannot be reached, or its name has no address.
    Unreachable,
    /// There was no tunnel to send it through.
    NoTunnel,
    /// Nothing was sent: the gateway could not, or there is no way.
    NotTried,
    /// An SSH server replied with another host key than the pinned one.
    HostKeyChanged,
    /// The login was refused.
    LoginRefused,
    /// The server replied, but does not speak SSH.
    NotSsh,
    /// The SSH connection failed with a protocol error.
    Protocol,
    /// No result was submitted in time.
    Overdue,
}

impl Cause {
    pub const ALL: [Cause; 15] = [
        Cause::Answered,
        Cause::Refused,
        Cause::Reset,
        Cause::NoAnswer,
        Cause::Stalled,
        Cause::CommandTimedOut,
        Cause::ConnectionLost,
        Cause::Unreachable,
        Cause::NoTunnel,
        Cause::NotTried,
        Cause::HostKeyChanged,
        Cause::LoginRefused,
        Cause::NotSsh,
        Cause::Protocol,
        Cause::Overdue,
    ];

    /// Returns the name in the API and in the store.
    pub const fn name(self) -> &'static str {
        match self {
            Cause::Answered => "answered",
            Cause::Refused => "refused",
            Cause::Reset => "reset",
            Cause::NoAnswer => "no_answer",
            Cause::Stalled => "stalled",
            Cause::CommandTimedOut => "command_timed_out",
            Cause::ConnectionLost => "connection_lost",
            Cause::Unreachable => "unreachable",
            Cause::NoTunnel => "no_tunnel",
            Cause::NotTried => "not_tried",
            Cause::HostKeyChanged => "host_key_changed",
            Cause::LoginRefused => "login_refused",
            Cause::NotSsh => "not_ssh",
            Cause::Protocol => "protocol",
            Cause::Overdue => "overdue",
        }
    }

    pub fn named(name: &str) -> Option<Cause> {
        Cause::ALL.into_iter().find(|cause| cause.name() == name)
    }

    /// Returns whether the host, or another machine at its address, sent a reply.
    pub const fn is_answer(self) -> bool {
        match self {
            Cause::Answered
            | Cause::Refused
            | Cause::Reset
            | Cause::HostKeyChanged
            | Cause::LoginRefused
            | Cause::NotSsh
            | Cause::Protocol => true,
            Cause::NoAnswer
            | Cause::Stalled
            | Cause::CommandTimedOut
            | Cause::ConnectionLost
            | Cause::Unreachable
            | Cause::NoTunnel
            | Cause::NotTried
            | Cause::Overdue => false,
        }
    }

    /// Returns whether an open connection went silent. A path that drops large packets looks the
    /// same.
    pub const fn is_stall(self) -> bool {
        matches!(self, Cause::Stalled | Cause::CommandTimedOut | Cause::ConnectionLost)
    }
}

impl From<&ConnectEnd> for Cause {
    fn from(end: &ConnectEnd) -> Self {
        match end {
            ConnectEnd::Connected(_) => Cause::Answered,
            ConnectEnd::Timeout(_) => Cause::NoAnswer,
            ConnectEnd::Refused => Cause::Refused,
            ConnectEnd::Reset => Cause::Reset,
            ConnectEnd::Unreachable(_) => Cause::Unreachable,
            ConnectEnd::NoTunnel => Cause::NoTunnel,
            ConnectEnd::NotTried(_) => Cause::NotTried,
        }
    }
}

impl From<&Ending> for Cause {
    fn from(ending: &Ending) -> Self {
        match ending {
            Ending::Exit(_) | Ending::Signal(_) => Cause::Answered,
            Ending::Timeout(_) => Cause::CommandTimedOut,
            Ending::Lost => Cause::ConnectionLost,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::plugin::PluginResult;

    #[test]
    fn each_cause_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = Cause::ALL.iter().map(|cause| cause.name()).collect();
        assert_eq!(names.len(), Cause::ALL.len());
        for cause in Cause::ALL {
            assert_eq!(Cause::named(cause.name()), Some(cause));
        }
        assert_eq!(Cause::named("timed out after"), None);
    }

    #[test]
    fn what_a_plugin_prints_decides_no_cause() {
        for text in ["timed out after 10 s", "connection refused", "host key changed", "no answer"] {
            for code in [0, 1, 2, 3, 4, 127] {
                let result = PluginResult::from_run(&Ending::Exit(code), text.as_bytes(), b"", false);
                assert_eq!(result.cause, Cause::Answered, "{text} {code}");
            }
        }
        let ended = |ending: Ending| PluginResult::from_run(&ending, b"OK", b"", false).cause;
        assert_eq!(ended(Ending::Timeout(Duration::from_secs(10))), Cause::CommandTimedOut);
        assert_eq!(ended(Ending::Lost), Cause::ConnectionLost);
        assert_eq!(ended(Ending::Signal("KILL".into())), Cause::Answered);
    }
}
