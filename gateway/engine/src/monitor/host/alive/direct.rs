//! The meaning of a failure at the public address: silence, a doubtful reply, or nothing at all.
//!
//! A failure is no proof that the host is down. It knows no check.

use crate::messages::{ConnectFailure, DirectReply, SshFailure};

pub(super) fn is_busy(failure: &SshFailure) -> bool {
    *failure == SshFailure::Connect(ConnectFailure::Busy)
}

/// A refusal may come from a firewall in front of the host.
pub(super) fn silence(failure: &ConnectFailure) -> DirectReply {
    match failure {
        ConnectFailure::Refused | ConnectFailure::Reset => DirectReply::Doubtful,
        ConnectFailure::Timeout | ConnectFailure::Unreachable(_) => DirectReply::Silent,
        ConnectFailure::NoTunnel | ConnectFailure::Busy => DirectReply::NotAsked,
    }
}

pub(super) fn doubt(failure: &SshFailure) -> DirectReply {
    match failure {
        SshFailure::Connect(failure) => silence(failure),
        _ => DirectReply::Doubtful,
    }
}

pub(super) fn ssh_failure(failure: &SshFailure) -> String {
    match failure {
        SshFailure::Connect(failure) => format!("ssh: {failure}"),
        SshFailure::HostKeyChanged { seen, .. } => format!("another host answers (key {seen})"),
        SshFailure::Timeout => "ssh: timed out".into(),
        _ => "answers, but not as this host's SSH server".into(),
    }
}
