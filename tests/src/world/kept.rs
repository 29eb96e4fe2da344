//! The contents of a store, built only from what was committed.

use std::collections::BTreeMap;

use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{
    CheckableId, Event, HostKey, HostState, IncidentAck, IncidentChange, IncidentId, IncidentRecord,
    IncidentSnapshot, MemberSnapshot, Message, Record, ServiceState,
};

#[derive(Default)]
pub struct Kept {
    pub hosts: BTreeMap<HostId, HostState>,
    pub services: BTreeMap<(HostId, String), ServiceState>,
    pub events: Vec<Event>,
    pub messages: Vec<Message>,
    pub incidents: Vec<IncidentRecord>,
    /// Acknowledgements by users, which the records do not contain.
    pub known: BTreeMap<IncidentId, IncidentAck>,
    pub pins: Vec<(HostId, HostKey)>,
    pub samples: usize,
}

impl Kept {
    pub fn keep(&mut self, record: Record) {
        match record {
            Record::Host(state) => drop(self.hosts.insert(state.host, *state)),
            Record::Service(host, state) => {
                self.services.insert((host, state.name.clone()), state);
            }
            Record::Sample(sample) => {
                assert!(!sample.metrics.is_empty());
                self.samples += 1;
            }
            Record::Event(event) => self.events.push(event),
            Record::Message(message) => self.messages.push(message),
            Record::Incident(record) => self.incidents.push(record),
            Record::Pinned { host, key } => self.pins.push((host, key)),
            Record::AckEnded(..) => {}
            Record::Reply(..) => {}
        }
    }

    /// Returns the open incidents as a restart finds them.
    pub fn open_incidents(&self) -> Vec<IncidentSnapshot> {
        let mut open: BTreeMap<IncidentId, IncidentSnapshot> = BTreeMap::new();
        for record in &self.incidents {
            apply(&mut open, record);
        }
        let known = |memory: IncidentSnapshot| {
            let ack = self.known.get(&memory.id).cloned();
            IncidentSnapshot { ack, ..memory }
        };
        open.into_values().map(known).collect()
    }

    /// Returns the open incident of a host.
    pub fn incident_of(&self, host: HostId) -> Option<IncidentSnapshot> {
        let has = |i: &IncidentSnapshot| {
            i.members.iter().any(|m| m.object == CheckableId::host(host) && m.left.is_none())
        };
        self.open_incidents().into_iter().find(has)
    }
}

fn apply(open: &mut BTreeMap<IncidentId, IncidentSnapshot>, record: &IncidentRecord) {
    match &record.change {
        IncidentChange::Opened(matter) => {
            let (id, opened, matter) = (record.id, record.at, matter.clone());
            let memory = IncidentSnapshot { id, opened, matter, members: Vec::new(), ack: None };
            assert!(open.insert(id, memory).is_none(), "{id} is opened twice");
        }
        IncidentChange::Merged(into) => {
            let gone = open.remove(&record.id).expect("it is open");
            let members = &mut of(open, *into).members;
            members.retain(|m| m.left.is_none() || !gone.members.iter().any(|g| g.object == m.object));
            let new = |g: &MemberSnapshot| !members.iter().any(|m| m.object == g.object);
            let new: Vec<MemberSnapshot> = gone.members.into_iter().filter(new).collect();
            members.extend(new);
        }
        IncidentChange::Closed => {
            let gone = open.remove(&record.id).expect("it is open");
            assert!(
                gone.members.iter().all(|m| m.left.is_some()),
                "{} closes with something wrong",
                record.id
            );
        }
        IncidentChange::Widened(matter) => of(open, record.id).matter = matter.clone(),
        IncidentChange::Reworded(words) => of(open, record.id).matter.words.clone_from(words),
        IncidentChange::Joined { object, began } => {
            let members = &mut of(open, record.id).members;
            members.retain(|m| m.object != *object);
            members.push(MemberSnapshot {
                object: object.clone(),
                began: *began,
                left: None,
                covered: false,
            });
        }
        IncidentChange::Left(object) => {
            let members = of(open, record.id).members.iter_mut();
            members.filter(|m| m.object == *object).for_each(|m| m.left = Some(record.at));
        }
        IncidentChange::Covered { object, .. } => {
            let members = of(open, record.id).members.iter_mut();
            members.filter(|m| m.object == *object).for_each(|m| m.covered = true);
        }
        IncidentChange::AckEnded(_) => {}
    }
}

fn of(open: &mut BTreeMap<IncidentId, IncidentSnapshot>, id: IncidentId) -> &mut IncidentSnapshot {
    open.get_mut(&id).unwrap_or_else(|| panic!("{id} is not open"))
}
