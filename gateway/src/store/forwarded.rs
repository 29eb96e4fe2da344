//! Traffic of people through the gateway to hosts, by hour.

use std::collections::BTreeMap;

use fleetgate_engine::id::{GrantId, HostId, PeerId, UserId};
use fleetgate_engine::messages::{FlowRecord, FlowTraffic};
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow, Row as _};

use super::access::id;
use super::grants::protocol_name;

const HOUR_MS: i64 = 3_600_000;
/// The hours that are kept: two years.
const KEEP_HOURS: i64 = 730 * 24;
/// Rows of one operator in one hour. Beyond them all other hosts and ports count together: a scan of all
/// hosts or ports must not fill the disk.
const MOST_ROWS: i64 = 500;
/// Rows deleted in one step.
const PRUNED: i64 = 2_000;
/// The host and the port under which the others count.
const OTHERS: (HostId, u16) = (HostId::from_i64(0), 0);

/// The traffic of one operator to one port of one host in one hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    pub hour: Wall,
    pub source: PeerId,
    /// The name of the operator, unless it was removed long ago.
    pub source_name: Option<String>,
    pub user: UserId,
    pub user_name: Option<String>,
    pub host: HostId,
    pub host_name: Option<String>,
    pub protocol: String,
    pub port: i64,
    pub grant: GrantId,
    pub flows: i64,
    pub sent: FlowTraffic,
    pub received: FlowTraffic,
}

impl FromRow<'_, SqliteRow> for Forwarded {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let count = |column: &str| row.try_get::<i64, _>(column).map(|n| u64::try_from(n).unwrap_or(0));
        Ok(Forwarded {
            hour: Wall::from_millis(row.try_get::<i64, _>("hour")? * HOUR_MS),
            source: id(row, "source")?,
            source_name: row.try_get("source_name")?,
            user: id(row, "user")?,
            user_name: row.try_get("user_name")?,
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

/// Adds what flows carried since their last records.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn add(conn: &mut SqliteConnection, records: &[FlowRecord]) -> sqlx::Result<()> {
    for (record, flows) in sums(records) {
        let (host, port) = match has_room(conn, &record).await? {
            true => (record.host, record.port),
            false => OTHERS,
        };
        add_one(conn, (&record, flows), (host, port)).await?;
    }
    Ok(())
}

/// Returns the records that belong to one row as one, with the number of flows that ended. A flood of short
/// flows then costs a few statements.
fn sums(records: &[FlowRecord]) -> Vec<(FlowRecord, i64)> {
    let mut sums: BTreeMap<_, (FlowRecord, i64)> = BTreeMap::new();
    for record in records {
        let flows = i64::from(record.ended.is_some());
        let row = (hour(record), record.source, record.host, record.protocol, record.port);
        let joined = |(sum, before): &mut (FlowRecord, i64)| {
            let (sent, received) = (plus(sum.sent, record.sent), plus(sum.received, record.received));
            (*sum, *before) = (FlowRecord { sent, received, ..*record }, *before + flows);
        };
        sums.entry(row).and_modify(joined).or_insert((*record, flows));
    }
    sums.into_values().collect()
}

fn plus(a: FlowTraffic, b: FlowTraffic) -> FlowTraffic {
    FlowTraffic { packets: a.packets.saturating_add(b.packets), bytes: a.bytes.saturating_add(b.bytes) }
}

fn hour(record: &FlowRecord) -> i64 {
    record.until.as_millis().div_euclid(HOUR_MS)
}

/// Returns whether the record has a row already, or may have one.
async fn has_room(conn: &mut SqliteConnection, record: &FlowRecord) -> sqlx::Result<bool> {
    let sql = "select exists (select 1 from forwarded where hour = $1 and source = $2 and host = $3
                              and protocol = $4 and port = $5)
                   or (select count(*) from (select 1 from forwarded where hour = $1 and source = $2 limit $6)) < $6";
    sqlx::query_scalar(sql)
        .bind(hour(record))
        .bind(record.source.as_i64())
        .bind(record.host.as_i64())
        .bind(protocol_name(record.protocol))
        .bind(record.port)
        .bind(MOST_ROWS)
        .fetch_one(conn)
        .await
}

async fn add_one(
    conn: &mut SqliteConnection,
    (record, flows): (&FlowRecord, i64),
    (host, port): (HostId, u16),
) -> sqlx::Result<()> {
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    sqlx::query(
        "insert into forwarded (hour, source, host, protocol, port, user, grant_id, flows,
                                sent_packets, sent_bytes, received_packets, received_bytes)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
         on conflict (hour, source, host, protocol, port) do update set
             user = excluded.user, grant_id = excluded.grant_id, flows = flows + excluded.flows,
             sent_packets = sent_packets + excluded.sent_packets,
             sent_bytes = sent_bytes + excluded.sent_bytes,
             received_packets = received_packets + excluded.received_packets,
             received_bytes = received_bytes + excluded.received_bytes",
    )
    .bind(hour(record))
    .bind(record.source.as_i64())
    .bind(host.as_i64())
    .bind(protocol_name(record.protocol))
    .bind(port)
    .bind(record.user.as_i64())
    .bind(record.grant.as_i64())
    .bind(flows)
    .bind(count(record.sent.packets))
    .bind(count(record.sent.bytes))
    .bind(count(record.received.packets))
    .bind(count(record.received.bytes))
    .execute(conn)
    .await?;
    Ok(())
}

/// Returns the newest hours, the newest first.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn newest(
    conn: &mut SqliteConnection,
    (host, source): (Option<HostId>, Option<PeerId>),
    limit: i64,
) -> sqlx::Result<Vec<Forwarded>> {
    let sql = "select f.*, o.name as source_name, u.name as user_name, h.name as host_name
               from forwarded f left join operators o on o.id = f.source left join users u on u.id = f.user
                    left join hosts h on h.id = f.host
               where ($1 is null or f.host = $1) and ($2 is null or f.source = $2)
               order by f.hour desc, f.source, f.host, f.protocol, f.port limit $3";
    let id = |id: Option<HostId>| id.map(HostId::as_i64);
    sqlx::query_as(sql).bind(id(host)).bind(id(source)).bind(limit).fetch_all(conn).await
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
    use fleetgate_engine::id::Id;
    use fleetgate_engine::messages::{FlowEnd, GrantProtocol};

    use super::*;
    use crate::store::fixture;

    const NOON: i64 = 1_800_000 * HOUR_MS / 1_000;

    fn record(port: u16, at: i64, ended: Option<FlowEnd>) -> FlowRecord {
        let traffic = |bytes| FlowTraffic { packets: 1, bytes };
        FlowRecord {
            source: Id::from_i64(3),
            user: Id::from_i64(70),
            host: Id::from_i64(9),
            protocol: GrantProtocol::Tcp,
            port,
            from: Wall::from_millis(at - 1_000),
            until: Wall::from_millis(at),
            sent: traffic(100),
            received: traffic(900),
            grant: Id::from_i64(8),
            ended,
        }
    }

    #[tokio::test]
    async fn flows_of_one_hour_to_one_port_count_together() {
        let (store, _dir) = fixture::store().await;
        let mut tx = store.begin().await.unwrap();
        let ended = Some(FlowEnd::Closed);
        let records = [record(22, NOON, None), record(22, NOON + 5, ended), record(443, NOON, ended)];
        add(&mut tx, &records).await.unwrap();
        add(&mut tx, &[record(22, NOON + HOUR_MS, ended)]).await.unwrap();
        let rows = newest(&mut tx, (Some(Id::from_i64(9)), None), 10).await.unwrap();
        let short: Vec<_> = rows.iter().map(|row| (row.port, row.flows, row.received.bytes)).collect();
        assert_eq!(short, [(22, 1, 900), (22, 1, 1_800), (443, 1, 900)]);
        assert!(newest(&mut tx, (None, Some(Id::from_i64(4))), 10).await.unwrap().is_empty());
    }

    #[test]
    fn a_flood_of_short_flows_is_one_row_at_a_time() {
        let evicted = Some(FlowEnd::Evicted);
        let mut records = vec![record(22, NOON, evicted); 10_000];
        records.extend([record(22, NOON + 1, None), record(443, NOON, evicted)]);
        records.push(FlowRecord { grant: Id::from_i64(9), ..record(443, NOON, evicted) });
        let sums = sums(&records);
        let [(first, flows), (second, others)] = sums[..] else { panic!("two rows: {}", sums.len()) };
        assert_eq!(
            (first.port, first.sent.packets, first.received.bytes, flows),
            (22, 10_001, 9_000_900, 10_000)
        );
        assert_eq!((second.port, second.grant, others), (443, Id::from_i64(9), 2), "the last grant");
    }

    #[tokio::test]
    async fn a_scan_of_all_ports_makes_a_limited_number_of_rows() {
        let (store, _dir) = fixture::store().await;
        let mut tx = store.begin().await.unwrap();
        let records: Vec<FlowRecord> = (1..=1_200).map(|port| record(port, NOON, None)).collect();
        add(&mut tx, &records).await.unwrap();
        add(&mut tx, &[record(7, NOON, None)]).await.unwrap();
        let rows = newest(&mut tx, (None, None), 10_000).await.unwrap();
        assert_eq!(rows.len(), 501);
        let bytes = |port| rows.iter().find(|row| row.port == port).map(|row| row.sent.bytes);
        assert_eq!((bytes(0), bytes(7)), (Some(70_000), Some(200)));
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
        add(&mut tx, &records).await.unwrap();
        add(&mut tx, &[ping(7), ping(1_100)]).await.unwrap();
        let rows = newest(&mut tx, (None, None), 10_000).await.unwrap();
        assert_eq!(rows.len(), 501);
        let bytes = |host| rows.iter().find(|row| row.host.as_i64() == host).map(|row| row.sent.bytes);
        assert_eq!((bytes(0), bytes(7), bytes(1_100)), (Some(70_100), Some(200), None));
        assert!(rows.iter().all(|row| row.protocol == "icmp" && row.port == 0));
    }

    #[tokio::test]
    async fn old_hours_are_removed_in_steps() {
        let (store, _dir) = fixture::store().await;
        let mut tx = store.begin().await.unwrap();
        add(&mut tx, &[record(22, NOON, None), record(22, NOON + KEEP_HOURS * HOUR_MS, None)]).await.unwrap();
        let now = Wall::from_millis(NOON + (KEEP_HOURS + 1) * HOUR_MS);
        assert_eq!(prune(&mut tx, now).await.unwrap(), 1);
        assert_eq!(prune(&mut tx, now).await.unwrap(), 0);
    }
}
