//! What flows carried, summed in memory until it is written: one entry for each row of the table. A flood of short
//! flows costs an entry each, and from a limit on none, so that nothing of the others is lost beside it.

use std::collections::{BTreeMap, HashMap};

use fleetgate_engine::id::{HostId, PeerId, RentalId};
use fleetgate_engine::messages::{FlowRecord, FlowTraffic, GrantProtocol};

use super::{HOUR_MS, MOST_ROWS};

/// Rows of all sources together: 4 MB. Beyond them a new host or port counts with the others, for which each source has
/// a few rows an hour, one for each protocol and rental. They are written each second, unless the database refuses.
const MOST: usize = 16_384;
/// The host and the port under which the others count.
const OTHERS: (HostId, u16) = (HostId::from_i64(0), 0);

/// The key of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    pub hour: i64,
    pub source: PeerId,
    pub host: HostId,
    pub protocol: GrantProtocol,
    pub port: u16,
    pub rental: Option<RentalId>,
}

impl Row {
    fn of(record: &FlowRecord) -> Row {
        let FlowRecord { source, host, protocol, port, rental, .. } = *record;
        Row { hour: record.until.as_millis().div_euclid(HOUR_MS), source, host, protocol, port, rental }
    }

    /// Returns the row in which a source's other hosts and ports count. A rental has one of its own.
    pub fn of_others(self) -> Row {
        let (host, port) = OTHERS;
        Row { host, port, ..self }
    }
}

/// What counts in one row.
#[derive(Clone, Copy)]
pub(super) struct Sum {
    /// The last record, with the traffic of all.
    pub record: FlowRecord,
    /// Flows that ended.
    pub flows: i64,
}

impl Sum {
    fn of(record: &FlowRecord) -> Sum {
        Sum { record: *record, flows: i64::from(record.ended.is_some()) }
    }

    fn add(&mut self, later: &Sum) {
        let (sent, received) =
            (plus(self.record.sent, later.record.sent), plus(self.record.received, later.record.received));
        self.record = FlowRecord { sent, received, ..later.record };
        self.flows += later.flows;
    }
}

fn plus(a: FlowTraffic, b: FlowTraffic) -> FlowTraffic {
    FlowTraffic { packets: a.packets.saturating_add(b.packets), bytes: a.bytes.saturating_add(b.bytes) }
}

#[derive(Default)]
pub struct Sums {
    rows: BTreeMap<Row, Sum>,
    of_source: HashMap<(i64, PeerId), usize>,
}

impl Sums {
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn add(&mut self, record: &FlowRecord) {
        let (row, sum) = (Row::of(record), Sum::of(record));
        if let Some(before) = self.rows.get_mut(&row) {
            return before.add(&sum);
        }
        let rows = self.of_source.entry((row.hour, row.source)).or_default();
        if *rows < MOST_ROWS && self.rows.len() < MOST {
            *rows += 1;
            self.rows.insert(row, sum);
        } else {
            count(&mut self.rows, row.of_others(), &sum);
        }
    }

    /// Returns what was forwarded for each rental, in both directions.
    pub(super) fn bytes_of_rentals(&self) -> BTreeMap<RentalId, u64> {
        let mut bytes: BTreeMap<RentalId, u64> = BTreeMap::new();
        for Sum { record, .. } in self.rows.values() {
            let Some(rental) = record.rental else { continue };
            let sum = bytes.entry(rental).or_default();
            *sum = sum.saturating_add(record.sent.bytes).saturating_add(record.received.bytes);
        }
        bytes.retain(|_, bytes| *bytes > 0);
        bytes
    }

    /// Returns the rows in order of hours and sources.
    pub(super) fn rows(&self) -> impl Iterator<Item = (Row, &Sum)> {
        self.rows.iter().map(|(row, sum)| (*row, sum))
    }
}

impl<'a> FromIterator<&'a FlowRecord> for Sums {
    fn from_iter<T: IntoIterator<Item = &'a FlowRecord>>(records: T) -> Self {
        let mut sums = Sums::default();
        records.into_iter().for_each(|record| sums.add(record));
        sums
    }
}

/// Adds to what counts in this row.
pub(super) fn count(rows: &mut BTreeMap<Row, Sum>, row: Row, sum: &Sum) {
    rows.entry(row).and_modify(|before| before.add(sum)).or_insert(*sum);
}
