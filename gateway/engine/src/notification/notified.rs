//! The problems that each contact was notified of, and thereby the incidents that it knows.

use std::collections::BTreeMap;

use crate::messages::IncidentId;

use super::{CheckableId, ContactId, Notified};
use crate::notification::incident_roots::IncidentRoots;

#[derive(Debug, Default)]
pub(in crate::notification) struct NotifiedIndex {
    told: BTreeMap<(ContactId, CheckableId), Notified>,
    /// The number of notified problems in each incident by contact. Each notice looks it up, and
    /// thousands of problems may be open.
    incidents: BTreeMap<(ContactId, IncidentId), usize>,
    wide: IncidentRoots,
}

impl NotifiedIndex {
    pub fn new(told: impl IntoIterator<Item = (ContactId, CheckableId, Notified)>) -> NotifiedIndex {
        let mut known = NotifiedIndex::default();
        told.into_iter().for_each(|(contact, object, told)| known.put(contact, object, told));
        known
    }

    pub fn of(&self, contact: ContactId, object: &CheckableId) -> Option<&Notified> {
        self.told.get(&(contact, object.clone()))
    }

    pub fn has(&self, contact: ContactId, object: &CheckableId) -> bool {
        self.of(contact, object).is_some()
    }

    pub fn has_incident(&self, contact: ContactId, incident: IncidentId) -> bool {
        self.incidents.contains_key(&(contact, self.wide.whole(incident)))
    }

    pub fn of_contact(&self, contact: ContactId) -> impl Iterator<Item = (&CheckableId, &Notified)> {
        let of_contact = self.told.iter().filter(move |((of, _), _)| *of == contact);
        of_contact.map(|((_, object), told)| (object, told))
    }

    pub fn put(&mut self, contact: ContactId, object: CheckableId, told: Notified) {
        let before = self.told.insert((contact, object), told);
        before.into_iter().for_each(|told| self.uncount(contact, told.incident));
        self.count(contact, told.incident);
    }

    /// Forgets a problem; returns whether it was recorded.
    pub fn forget(&mut self, contact: ContactId, object: &CheckableId) -> bool {
        let told = self.told.remove(&(contact, object.clone()));
        told.inspect(|told| self.uncount(contact, told.incident)).is_some()
    }

    pub fn forget_all(
        &mut self,
        gone: impl Fn(ContactId, &CheckableId) -> bool,
    ) -> Vec<(ContactId, CheckableId)> {
        let gone: Vec<_> = self.told.keys().filter(|(contact, of)| gone(*contact, of)).cloned().collect();
        for (contact, object) in &gone {
            self.forget(*contact, object);
        }
        gone
    }

    pub fn widen(&mut self, wide: &IncidentRoots) {
        self.wide = wide.clone();
        self.incidents.clear();
        let all: Vec<_> = self.told.iter().map(|((contact, _), told)| (*contact, told.incident)).collect();
        all.into_iter().for_each(|(contact, incident)| self.count(contact, incident));
    }

    fn count(&mut self, contact: ContactId, incident: Option<IncidentId>) {
        let Some(incident) = incident else { return };
        *self.incidents.entry((contact, self.wide.whole(incident))).or_default() += 1;
    }

    fn uncount(&mut self, contact: ContactId, incident: Option<IncidentId>) {
        let Some(incident) = incident else { return };
        let place = (contact, self.wide.whole(incident));
        if let Some(count) = self.incidents.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                self.incidents.remove(&place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id;
    use crate::notification::NoticeId;
    use crate::time::Wall;

    const OPS: ContactId = Id::from_i64(1);

    fn incident(n: i64) -> IncidentId {
        IncidentId(Id::from_i64(n))
    }

    fn told(of: i64) -> Notified {
        let (notice, at, severity) = (NoticeId(1), Wall::from_millis(0), None);
        Notified { root: notice, last: notice, at, severity, flapping: false, incident: Some(incident(of)) }
    }

    #[test]
    fn a_notified_incident_is_known_also_by_the_one_it_was_merged_into() {
        let host = |n| CheckableId::host(Id::from_i64(n));
        let mut known = NotifiedIndex::new([(OPS, host(7), told(1)), (OPS, host(8), told(2))]);
        assert!(known.has_incident(OPS, incident(1)) && !known.has_incident(OPS, incident(3)));
        known.widen(&IncidentRoots::new([(incident(1), incident(3)), (incident(2), incident(3))].into()));
        assert!(known.has_incident(OPS, incident(3)));
        assert!(known.forget(OPS, &host(7)) && known.has_incident(OPS, incident(2)));
        known.put(OPS, host(8), told(4));
        assert!(!known.has_incident(OPS, incident(1)) && known.has_incident(OPS, incident(4)));
        assert_eq!(known.forget_all(|_, _| true), [(OPS, host(8))]);
        assert!(!known.has_incident(OPS, incident(4)));
    }
}
