//! Traffic of people through the gateway to hosts, by hour: of operators, and of renters to the devices of their
//! rentals.

mod sums;

use std::collections::{BTreeMap, HashSet};

use fleetgate_engine::id::{GrantId, HostId, Id, PeerId, PersonId, RentalId, UserId};
use fleetgate_engine::messages::{FlowTraffic, SourceOwner};
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow, Row as _};

use super::access::id;
use super::grants::protocol_name;
use super::rentals::allowances;
pub use sums::Sums;
use sums::{Row, Sum, count};

const HOUR_MS: i64 = 3_600_000;
/// The hours that are kept: two years.
const KEEP_HOURS: i64 = 730 * 24;
/// Rows of one operator or renter in one hour. Beyond them all other hosts and ports count together: a scan of all
/// hosts or ports must not fill the disk. In a scan, so may a port that has a row. Those of a rental count for that rental, so that its traffic is exact.
const MOST_ROWS: usize = 500;
/// Rows deleted in one step.
const PRUNED: i64 = 2_000;
/// The rental of what an operator sent.
const NO_RENTAL: RentalId = Id::from_i64(0);

/// The traffic of one operator or renter to one port of one host in one hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    pub hour: Wall,
    pub source: PeerId,
    /// The name of the operator, unless it was removed long ago. Those of renters and people are personal data.
    pub source_name: Option<String>,
    pub owner: Owner,
    pub user_name: Option<String>,
    /// `None`: an operator sent it to a host.
    pub rental: Option<RentalId>,
    pub host: HostId,
    pub host_name: Option<String>,
    pub protocol: String,
    pub port: i64,
    pub grant: GrantId,
    pub flows: i64,
    pub sent: FlowTraffic,
    pub received: FlowTraffic,
}

/// Whose peer sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    User(UserId),
    Person(PersonId),
}

impl FromRow<'_, SqliteRow> for Forwarded {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let count = |column| read_count(row, column);
        Ok(Forwarded {
            hour: Wall::from_millis(row.try_get::<i64, _>("hour")? * HOUR_MS),
            source: id(row, "source")?,
            source_name: row.try_get("source_name")?,
            owner: match row.try_get::<Option<i64>, _>("person")? {
                Some(person) => Owner::Person(Id::from_i64(person)),
                None => Owner::User(id(row, "user")?),
            },
            user_name: row.try_get("user_name")?,
            rental: Some(id(row, "rental")?).filter(|rental| *rental != NO_RENTAL),
            host: id(row, "host")?,
            host_name: row.try_get("host_name")?,
            protocol: row.try_get("protocol")?,
            port: row.try_get("port")?,
            grant: id(row, "grant_id")?,
            flows: row.try_get("flows")?,
            sent: FlowTraffic { packets: count("sent_packets")?, bytes: count("sent_bytes")? },
            received: FlowTraffic { packets: count("received_packets")?, bytes: count("received_bytes")? },
        })
    }
}

fn read_count(row: &SqliteRow, column: &str) -> sqlx::Result<u64> {
    Ok(u64::try_from(row.try_get::<i64, _>(column)?).unwrap_or(0))
}

/// Adds what flows carried since their last records.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn add(conn: &mut SqliteConnection, sums: &Sums) -> sqlx::Result<()> {
    for (rental, bytes) in sums.bytes_of_rentals() {
        allowances::add(conn, rental, bytes).await?;
    }
    for (row, sum) in fitted(conn, sums).await? {
        add_one(conn, row, &sum).await?;
    }
    Ok(())
}

/// Returns the rows to write: those that are there, new ones while their source may have more, and one for the others.
async fn fitted(conn: &mut SqliteConnection, sums: &Sums) -> sqlx::Result<BTreeMap<Row, Sum>> {
    let mut fitted = BTreeMap::new();
    let (mut of, mut rows) = (None, HashSet::new());
    for (row, sum) in sums.rows() {
        if of != Some((row.hour, row.source)) {
            of = Some((row.hour, row.source));
            rows = rows_of(conn, row.hour, row.source).await?;
        }
        let key = key(row);
        let is_of_others = row == row.of_others();
        let has_place = is_of_others || rows.contains(&key) || (rows.len() < MOST_ROWS && rows.insert(key));
        count(&mut fitted, if has_place { row } else { row.of_others() }, sum);
    }
    Ok(fitted)
}

/// The columns of the key after the hour and the source.
type Key = (i64, String, i64, i64);

fn key(row: Row) -> Key {
    (row.host.as_i64(), protocol_name(row.protocol).to_owned(), row.port.into(), rental(row))
}

/// Returns the rows that a source has in an hour, without those of the others.
async fn rows_of(conn: &mut SqliteConnection, hour: i64, source: PeerId) -> sqlx::Result<HashSet<Key>> {
    let sql =
        "select host, protocol, port, rental from forwarded where hour = $1 and source = $2 and host <> 0";
    let rows = sqlx::query_as(sql).bind(hour).bind(source.as_i64()).fetch_all(conn).await?;
    Ok(rows.into_iter().collect())
}

fn rental(row: Row) -> i64 {
    row.rental.unwrap_or(NO_RENTAL).as_i64()
}

async fn add_one(conn: &mut SqliteConnection, row: Row, sum: &Sum) -> sqlx::Result<()> {
    let Sum { record, flows } = sum;
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let (user, person) = match record.owner {
        SourceOwner::User { user, .. } => (Some(user.as_i64()), None),
        SourceOwner::Person { person, .. } => (None, Some(person.as_i64())),
    };
    sqlx::query(
        "insert into forwarded (hour, source, host, protocol, port, user, grant_id, flows,
                                sent_packets, sent_bytes, received_packets, received_bytes, person, rental)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
         on conflict (hour, source, host, protocol, port, rental) do update set
             user = excluded.user, person = excluded.person, grant_id = excluded.grant_id,
             flows = flows + excluded.flows,
             sent_packets = sent_packets + excluded.sent_packets,
             sent_bytes = sent_bytes + excluded.sent_bytes,
             received_packets = received_packets + excluded.received_packets,
             received_bytes = received_bytes + excluded.received_bytes",
    )
    .bind(row.hour)
    .bind(row.source.as_i64())
    .bind(row.host.as_i64())
    .bind(protocol_name(row.protocol))
    .bind(row.port)
    .bind(user)
    .bind(record.grant.as_i64())
    .bind(flows)
    .bind(count(record.sent.packets))
    .bind(count(record.sent.bytes))
    .bind(count(record.received.packets))
    .bind(count(record.received.bytes))
    .bind(person)
    .bind(rental(row))
    .execute(conn)
    .await?;
    Ok(())
}

/// Selects rows. A field that is `None` selects all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    pub host: Option<HostId>,
    /// The operator or renter.
    pub source: Option<PeerId>,
    pub rental: Option<RentalId>,
}

/// Returns the newest hours, the newest first.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn newest(conn: &mut SqliteConnection, wanted: Filter, limit: i64) -> sqlx::Result<Vec<Forwarded>> {
    let sql = "select f.*, o.name as source_name, u.name as user_name, h.name as host_name
               from forwarded f left join operators o on o.id = f.source left join users u on u.id = f.user
                    left join hosts h on h.id = f.host
               where ($1 is null or f.host = $1) and ($2 is null or f.source = $2)
                     and ($4 is null or f.rental = $4)
               order by f.hour desc, f.source, f.host, f.protocol, f.port, f.rental limit $3";
    let id = |id: Option<Id>| id.map(Id::as_i64);
    let query = sqlx::query_as(sql).bind(id(wanted.host)).bind(id(wanted.source)).bind(limit);
    query.bind(id(wanted.rental)).fetch_all(conn).await
}

/// Traffic between renters and the devices of a rental.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// From the renters.
    pub sent_packets: u64,
    pub sent_bytes: u64,
    /// From the devices.
    pub received_packets: u64,
    pub received_bytes: u64,
}

impl FromRow<'_, SqliteRow> for Totals {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let count = |column| read_count(row, column);
        Ok(Totals {
            sent_packets: count("sent_packets")?,
            sent_bytes: count("sent_bytes")?,
            received_packets: count("received_packets")?,
            received_bytes: count("received_bytes")?,
        })
    }
}

/// Returns the traffic of a rental so far. That of a flow which lasts counts within about a minute.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn of_rental(conn: &mut SqliteConnection, rental: RentalId) -> sqlx::Result<Totals> {
    // Without `<> 0` SQLite does not use the index.
    let sql =
        "select coalesce(sum(sent_packets), 0) as sent_packets, coalesce(sum(sent_bytes), 0) as sent_bytes,
                      coalesce(sum(received_packets), 0) as received_packets,
                      coalesce(sum(received_bytes), 0) as received_bytes
               from forwarded where rental = $1 and rental <> 0";
    sqlx::query_as(sql).bind(rental.as_i64()).fetch_one(conn).await
}

/// Deletes some of the rows older than the retention period. Returns their number.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn prune(conn: &mut SqliteConnection, now: Wall) -> sqlx::Result<u64> {
    let sql = "delete from forwarded where hour < $1 and hour <= (select max(hour) from (
                   select hour from forwarded order by hour limit $2))";
    let before = now.as_millis().div_euclid(HOUR_MS) - KEEP_HOURS;
    let gone = sqlx::query(sql).bind(before).bind(PRUNED).execute(conn).await?;
    Ok(gone.rows_affected())
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::messages::{FlowEnd, FlowRecord, GrantProtocol};

    use super::*;
    use crate::store::fixture::{self, flow_record as record};

    const ALL: Filter = Filter { host: None, source: None, rental: None };

    fn of_host(host: i64) -> Filter {
        Filter { host: Some(Id::from_i64(host)), ..ALL }
    }

    const NOON: i64 = 1_800_000 * HOUR_MS / 1_000;

    async fn write(conn: &mut SqliteConnection, records: &[FlowRecord]) -> sqlx::Result<()> {
        add(conn, &records.iter().collect()).await
    }

    #[tokio::test]
    async fn flows_of_one_hour_to_one_port_count_together() {
        let (store, _dir) = fixture::store().await;
        let mut tx = store.begin().await.unwrap();
        let ended = Some(FlowEnd::Closed);
        let records = [record(22, NOON, None), record(22, NOON + 5, ended), record(443, NOON, ended)];
        write(&mut tx, &records).await.unwrap();
        write(&mut tx, &[record(22, NOON + HOUR_MS, ended)]).await.unwrap();
        let rows = newest(&mut tx, of_host(9), 10).await.unwrap();
        let short: Vec<_> = rows.iter().map(|row| (row.port, row.flows, row.received.bytes)).collect();
        assert_eq!(short, [(22, 1, 900), (22, 1, 1_800), (443, 1, 900)]);
        let source = Some(Id::from_i64(4));
        assert!(newest(&mut tx, Filter { source, ..ALL }, 10).await.unwrap().is_empty());
    }

    /// The traffic of renter 5 to the device of a rental.
    fn of_renter(rental: i64, port: u16) -> FlowRecord {
        let owner = SourceOwner::Person { person: Id::from_i64(60), customer: Id::from_i64(50) };
        let rental = Id::from_i64(rental);
        FlowRecord {
            source: Id::from_i64(5),
            owner,
            rental: Some(rental),
            grant: rental,
            ..record(port, NOON, Some(FlowEnd::Closed))
        }
    }

    #[tokio::test]
    async fn two_rentals_of_one_device_in_one_hour_are_told_apart() {
        let (store, _dir) = fixture::store().await;
        let mut tx = store.begin().await.unwrap();
        let records = [of_renter(41, 22), of_renter(42, 22), of_renter(42, 80), record(22, NOON, None)];
        write(&mut tx, &records).await.unwrap();
        write(&mut tx, &[of_renter(42, 22)]).await.unwrap();
        let rental = Some(Id::from_i64(42));
        let rows = newest(&mut tx, Filter { rental, ..ALL }, 10).await.unwrap();
        let short: Vec<_> = rows.iter().map(|row| (row.port, row.flows, row.owner, row.rental)).collect();
        let person = Owner::Person(Id::from_i64(60));
        assert_eq!(short, [(22, 2, person, rental), (80, 1, person, rental)]);
        let all = newest(&mut tx, of_host(9), 10).await.unwrap();
        assert_eq!(all.iter().filter(|row| row.rental.is_none()).count(), 1, "that of the operator");
        let totals = of_rental(&mut tx, Id::from_i64(42)).await.unwrap();
        let expected =
            Totals { sent_packets: 3, sent_bytes: 300, received_packets: 3, received_bytes: 2_700 };
        assert_eq!(totals, expected);
        for nothing in [7, 0] {
            assert_eq!(of_rental(&mut tx, Id::from_i64(nothing)).await.unwrap(), Totals::default());
        }
    }

    #[tokio::test]
    async fn the_traffic_of_a_rental_is_exact_after_a_scan() {
        let (store, _dir) = fixture::store().await;
        let mut tx = store.begin().await.unwrap();
        let records: Vec<FlowRecord> = (1..=1_200).map(|port| of_renter(41, port)).collect();
        write(&mut tx, &records).await.unwrap();
        write(&mut tx, &[of_renter(42, 22), of_renter(42, 80)]).await.unwrap();
        let rows = newest(&mut tx, ALL, 10_000).await.unwrap();
        assert_eq!(rows.len(), 502, "500, and one more for each rental");
        for (rental, bytes) in [(41, 120_000), (42, 200)] {
            assert_eq!(of_rental(&mut tx, Id::from_i64(rental)).await.unwrap().sent_bytes, bytes);
        }
    }

    #[test]
    fn a_flood_of_short_flows_is_one_row_at_a_time() {
        let evicted = Some(FlowEnd::Evicted);
        let mut records = vec![record(22, NOON, evicted); 10_000];
        records.extend([record(22, NOON + 1, None), record(443, NOON, evicted)]);
        records.push(FlowRecord { grant: Id::from_i64(9), ..record(443, NOON, evicted) });
        let sums: Sums = records.iter().collect();
        let sums: Vec<&Sum> = sums.rows().map(|(_, sum)| sum).collect();
        let [first, second] = sums[..] else { panic!("two rows: {}", sums.len()) };
        assert_eq!(
            (first.record.port, first.record.sent.packets, first.record.received.bytes, first.flows),
            (22, 10_001, 9_000_900, 10_000)
        );
        let (port, grant, flows) = (second.record.port, second.record.grant, second.flows);
        assert_eq!((port, grant, flows), (443, Id::from_i64(9), 2), "the last grant");
    }

    #[tokio::test]
    async fn a_scan_of_all_ports_makes_a_limited_number_of_rows() {
        let (store, _dir) = fixture::store().await;
        let mut tx = store.begin().await.unwrap();
        let records: Vec<FlowRecord> = (1..=1_200).map(|port| record(port, NOON, None)).collect();
        write(&mut tx, &records).await.unwrap();
        write(&mut tx, &[record(7, NOON, None)]).await.unwrap();
        let rows = newest(&mut tx, ALL, 10_000).await.unwrap();
        assert_eq!(rows.len(), 501);
        let bytes = |port| rows.iter().find(|row| row.port == port).map(|row| row.sent.bytes);
        assert_eq!((bytes(0), bytes(7)), (Some(70_000), Some(200)));
    }

    #[test]
    fn a_scan_of_one_source_takes_no_place_of_another_one_before_it_is_written() {
        let scan = |port| record(port, NOON, Some(FlowEnd::Evicted));
        let mut sums: Sums = (1..=10_000).map(scan).collect::<Vec<_>>().iter().collect();
        sums.add(&of_renter(41, 22));
        assert_eq!(sums.rows().count(), MOST_ROWS + 2, "one for the others, and one for the renter");
        let flows: i64 = sums.rows().map(|(_, sum)| sum.flows).sum();
        assert_eq!((flows, sums.bytes_of_rentals()[&Id::from_i64(41)]), (10_001, 1_000));
    }

    #[tokio::test]
    async fn the_rows_before_count_for_the_limit() {
        let (store, _dir) = fixture::store().await;
        let mut tx = store.begin().await.unwrap();
        for ports in [1..=300, 301..=600, 590..=700] {
            let records: Vec<FlowRecord> = ports.map(|port| record(port, NOON, None)).collect();
            write(&mut tx, &records).await.unwrap();
        }
        let rows = newest(&mut tx, ALL, 10_000).await.unwrap();
        assert_eq!(rows.len(), 501);
        assert_eq!(rows.iter().map(|row| row.sent.bytes).sum::<u64>(), 100 * (300 + 300 + 111));
    }

    #[tokio::test]
    async fn a_sweep_of_pings_makes_a_limited_number_of_rows() {
        let (store, _dir) = fixture::store().await;
        let mut tx = store.begin().await.unwrap();
        // ICMP has no ports, so that only the hosts differ.
        let ping = |host| FlowRecord {
            host: Id::from_i64(host),
            protocol: GrantProtocol::Icmp,
            ..record(0, NOON, None)
        };
        let records: Vec<FlowRecord> = (1..=1_200).map(ping).collect();
        write(&mut tx, &records).await.unwrap();
        write(&mut tx, &[ping(7), ping(1_100)]).await.unwrap();
        let rows = newest(&mut tx, ALL, 10_000).await.unwrap();
        assert_eq!(rows.len(), 501);
        let bytes = |host| rows.iter().find(|row| row.host.as_i64() == host).map(|row| row.sent.bytes);
        assert_eq!((bytes(0), bytes(7), bytes(1_100)), (Some(70_100), Some(200), None));
        assert!(rows.iter().all(|row| row.protocol == "icmp" && row.port == 0));
    }

    #[tokio::test]
    async fn old_hours_are_removed_in_steps() {
        let (store, _dir) = fixture::store().await;
        let mut tx = store.begin().await.unwrap();
        write(&mut tx, &[record(22, NOON, None), record(22, NOON + KEEP_HOURS * HOUR_MS, None)])
            .await
            .unwrap();
        let now = Wall::from_millis(NOON + (KEEP_HOURS + 1) * HOUR_MS);
        assert_eq!(prune(&mut tx, now).await.unwrap(), 1);
        assert_eq!(prune(&mut tx, now).await.unwrap(), 0);
    }
}
