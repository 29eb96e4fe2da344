//! The text of an incident, as the API, the page, the command line and mails show it. Pure.

use fleetgate_engine::messages::{CauseKind, IncidentScope};

use crate::store::incidents::IncidentRow;

/// The end of the summary of one service on many hosts.
const MANY: &str = " on many hosts";
/// The beginning of a summary of different services. Its members are not one for each host.
const SEVERAL: &str = "several services ";

/// Returns the text. One service on many hosts has the number of hosts with a problem, or after the
/// recovery of all hosts.
pub fn of(row: &IncidentRow) -> String {
    let is_of_fleet =
        row.extent == IncidentScope::Fleet.name() && row.cause == CauseKind::ServiceFailed.name();
    let number = if row.ill > 0 { row.ill } else { row.members };
    let hosts = if number == 1 { "host" } else { "hosts" };
    match row.words.strip_suffix(MANY) {
        Some(what) if is_of_fleet && !row.words.starts_with(SEVERAL) => format!("{what} on {number} {hosts}"),
        _ => row.words.clone(),
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;
    use fleetgate_engine::messages::IncidentId;
    use fleetgate_engine::time::Wall;

    use super::*;

    fn row(words: &str, ill: i64) -> IncidentRow {
        IncidentRow {
            id: IncidentId(Id::from_i64(1)),
            extent: "fleet".into(),
            cause: "service_failed".into(),
            words: words.into(),
            site: None,
            head: None,
            opened_at: Wall::from_millis(0),
            closed_at: None,
            merged_into: None,
            ack: None,
            ill,
            members: 7,
        }
    }

    #[test]
    fn one_service_on_many_hosts_has_their_number() {
        let text = |words, ill| of(&row(words, ill));
        assert_eq!(text("temperature critical on many hosts", 5), "temperature critical on 5 hosts");
        assert_eq!(text("temperature critical on many hosts", 1), "temperature critical on 1 host");
        assert_eq!(text("temperature critical on many hosts", 0), "temperature critical on 7 hosts");
        let several = "several services have problems on many hosts";
        assert_eq!(text(several, 5), several, "they are more than the hosts");
    }
}
