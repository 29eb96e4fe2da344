//! The acknowledgements of incidents: what they cover, and when they expire.

use crate::id::Id;
use crate::messages::{AckEnd, CheckableId, IncidentAck, IncidentChange, IncidentId};
use crate::time::Now;

use super::{Incidents, Moment, open_members};

impl Incidents {
    /// Acknowledges an incident and returns the problems that it covers now.
    pub fn acknowledge(&mut self, id: IncidentId, ack: IncidentAck, now: Now) -> Vec<CheckableId> {
        self.watch_expiry(id, Some(&ack), now);
        let Some(incident) = self.open.get_mut(&id) else { return Vec::new() };
        incident.ack = Some(ack);
        open_members(incident)
    }

    pub fn unacknowledge(&mut self, id: IncidentId) -> Vec<CheckableId> {
        let Some(incident) = self.open.get_mut(&id) else { return Vec::new() };
        incident.ack = None;
        open_members(incident)
    }

    pub(super) fn watch_expiry(&mut self, id: IncidentId, ack: Option<&IncidentAck>, now: Now) {
        if let Some(at) = ack.and_then(|ack| ack.expires) {
            self.expiring.insert((now.mono + at.since(now.wall), id));
        }
    }

    /// Ends an acknowledgement that has expired; those of its members expire by themselves. If the
    /// wall clock was set, or another acknowledgement has taken its place, looks again when that
    /// one expires.
    pub(super) fn expire(&mut self, id: IncidentId, now: Now) {
        let Some(ack) = self.open.get(&id).and_then(|i| i.ack.clone()) else { return };
        if ack.holds(now.wall) {
            return self.watch_expiry(id, Some(&ack), now);
        }
        if let Some(incident) = self.open.get_mut(&id) {
            incident.ack = None;
        }
        self.record(id, now.wall, IncidentChange::AckEnded(AckEnd::Expired));
    }

    /// Records that the incident's acknowledgement covers a checkable; returns the id of the new
    /// acknowledgement.
    pub fn cover(&mut self, object: &CheckableId, at: Moment) -> Option<(Id, IncidentId)> {
        let incident = self.of(object)?;
        let ack = self.draw_id(at).0;
        self.record(incident, at.now.wall, IncidentChange::Covered { object: object.clone(), ack });
        Some((ack, incident))
    }
}
