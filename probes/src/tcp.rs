//! The result of a TCP connect.
//!
//! A refusal or a timeout is what this check tests for, so it is CRITICAL. UNKNOWN is only for a
//! connect that could not be tried. The module knows no sockets.

use std::time::Duration;

use crate::plugin::PluginResult;
use crate::sample::{Metric, Status};
use crate::words;

/// Characters of a foreign reason that a text quotes.
const REASON_CHARS: usize = 200;

/// The outcome of a connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectEnd {
    Connected(Duration),
    /// No reply arrived within this time.
    Timeout(Duration),
    Refused,
    Reset,
    /// A router reported it, or the name has no address.
    Unreachable(String),
    /// There is no tunnel to send it through.
    NoTunnel,
    /// Nothing was sent, for a reason on our side.
    NotTried(String),
}

impl ConnectEnd {
    /// Returns the failure in plain words, to follow a colon; `None` for a success.
    pub fn failure(&self) -> Option<String> {
        Some(match self {
            ConnectEnd::Connected(_) => return None,
            ConnectEnd::Timeout(after) => format!("no answer within {}", words::age(after.as_secs_f64())),
            ConnectEnd::Refused => "connection refused: the host answers, nothing listens there".to_owned(),
            ConnectEnd::Reset => "connection reset while it was being made".to_owned(),
            ConnectEnd::Unreachable(why) => format!("unreachable: {}", words::line(why, REASON_CHARS)),
            ConnectEnd::NoTunnel => "no tunnel".to_owned(),
            ConnectEnd::NotTried(why) => format!("not tried: {}", words::line(why, REASON_CHARS)),
        })
    }

    pub(crate) fn status(&self) -> Status {
        match self {
            ConnectEnd::Connected(_) => Status::Ok,
            ConnectEnd::NotTried(_) => Status::Unknown,
            _ => Status::Critical,
        }
    }
}

/// Returns the result of the `tcp` check, with the metric `time` in s if there was a connection.
pub fn judge(port: u16, end: &ConnectEnd) -> PluginResult {
    match (end, end.failure()) {
        (ConnectEnd::Connected(took), _) => {
            let text = format!("port {port} answers in {}", words::latency(*took));
            PluginResult::new(Status::Ok, text, vec![time(*took)])
        }
        (_, why) => {
            let text = format!("port {port}: {}", why.unwrap_or_default());
            PluginResult::new(end.status(), text, Vec::new()).because(end.into())
        }
    }
}

pub fn time(took: Duration) -> Metric {
    Metric::seconds("time", took)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::range::Thresholds;

    #[test]
    fn a_connection_is_ok_with_its_time() {
        let r = judge(443, &ConnectEnd::Connected(Duration::from_millis(25)));
        assert_eq!((r.status, r.text.as_str()), (Status::Ok, "port 443 answers in 25.0 ms"));
        assert_eq!(*r.metrics, [Metric::amount("time", 0.025, "s")]);
    }

    #[test]
    fn each_failure_is_critical_in_plain_words() {
        let table = [
            (ConnectEnd::Timeout(Duration::from_secs(10)), "port 22: no answer within 10 s"),
            (ConnectEnd::Refused, "port 22: connection refused: the host answers, nothing listens there"),
            (ConnectEnd::Reset, "port 22: connection reset while it was being made"),
            (ConnectEnd::Unreachable("no route\x07\nx".into()), "port 22: unreachable: no route\u{fffd}"),
            (ConnectEnd::NoTunnel, "port 22: no tunnel"),
        ];
        for (end, text) in table {
            let r = judge(22, &end);
            assert_eq!((r.status, r.text.as_str()), (Status::Critical, text));
            assert!(r.metrics.is_empty());
        }
    }

    #[test]
    fn whoever_refuses_has_answered() {
        for (end, answered) in [
            (ConnectEnd::Refused, true),
            (ConnectEnd::Reset, true),
            (ConnectEnd::Timeout(Duration::from_secs(10)), false),
            (ConnectEnd::NoTunnel, false),
            (ConnectEnd::Unreachable("connection refused".into()), false),
        ] {
            assert_eq!(judge(22, &end).cause.is_answer(), answered, "{end:?}");
        }
    }

    #[test]
    fn what_was_not_tried_is_unknown() {
        assert_eq!(judge(22, &ConnectEnd::NotTried("busy".into())).status, Status::Unknown);
    }

    #[test]
    fn a_slow_connection_is_judged_by_thresholds() {
        let limits = [("time".to_owned(), Thresholds { warn: "0.5".parse().ok(), crit: None })];
        let slow = judge(80, &ConnectEnd::Connected(Duration::from_millis(800))).apply(&limits);
        assert_eq!(slow.status, Status::Warning);
        let refused = judge(80, &ConnectEnd::Refused).apply(&limits);
        assert_eq!((refused.status, refused.text.contains("limit")), (Status::Critical, false));
    }
}
