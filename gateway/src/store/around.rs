//! Who else was heard after a host fell silent, and who fell silent with it: for its verdict.
//!
//! Counts rows; decides nothing. The lists of one place are read whole, everybody else only as far
//! as somebody is heard.

use std::time::Duration;

use fleetgate_engine::id::HostId;
use fleetgate_engine::time::Wall;
use fleetgate_engine::verdict::{Behind, Clocks, Others};
use sqlx::sqlite::SqliteConnection;

/// Checks are a minute apart and a failure is tried again, so that one cause is found within minutes;
/// this leaves room for intervals of five.
const TOGETHER: Duration = Duration::from_secs(600);
/// So many that are heard elsewhere are enough to be counted.
const ENOUGH: i64 = 100;
/// A clock that was measured longer ago says nothing of today's.
const CLOCK_RECENT: Duration = Duration::from_secs(86_400);

/// `$1`: the host, `$2`: since when it is silent, `$3`: how far apart is together, `$5`: now. A packet
/// counts by its own time; of a check only an answer does, because evidence may be older than the check.
/// What is not judged while the gateway is cut off is stale and not down. A time in the future is from
/// before the clock was set back, and says nothing.
macro_rules! packet_since {
    () => {
        "coalesce(m.last_packet > $2 and m.last_packet <= $5, 0)"
    };
}

/// It may be over a limit, and down for that. Whom somebody only says to be down, did not fall silent either.
macro_rules! answered {
    () => {
        "s.source in ('echo', 'tcp', 'handshake', 'direct')"
    };
}

macro_rules! heard {
    () => {
        concat!("(", packet_since!(), " or s.last_check > $2 and s.last_check <= $5 and ", answered!(), ")")
    };
}

macro_rules! silent {
    () => {
        concat!(
            "(abs(case when s.status = 'down' and s.since <= $5 then s.since
                       when s.status = 'down' or s.stale = 1 then s.last_check end - $2) <= $3
             and not ",
            packet_since!(),
            " and not (s.status = 'down' and s.stale = 0 and (s.source = 'passive' or ",
            answered!(),
            ")))"
        )
    };
}

macro_rules! others {
    ($what:expr, $which:expr) => {
        concat!(
            "select ",
            $what,
            " from hosts h join host_states s on s.host = h.id left join peer_memory m on m.peer = h.id
             where h.removed_at is null and h.id <> $1 and ",
            $which
        )
    };
}

/// What is behind a device fails with it, and is no second witness.
const SITE: &str = others!(
    concat!(
        "count(*) filter (where ",
        heard!(),
        "), count(*) filter (where h.via is null and ",
        silent!(),
        ")"
    ),
    "instr(h.labels, $4) > 0"
);
const BESIDE: &str = others!(
    concat!("count(*) filter (where ", heard!(), "), count(*) filter (where ", silent!(), ")"),
    "h.via = $4"
);
const HEARD_ELSEWHERE: &str = concat!(
    "select count(*) from (",
    others!("1", concat!("($4 is null or instr(h.labels, $4) = 0) and $3 >= 0 and ", heard!())),
    " limit $6)"
);
const SILENT_ELSEWHERE: &str = others!(
    "count(distinct coalesce(h.labels ->> 'site', h.id))",
    concat!("($4 is null or instr(h.labels, $4) = 0) and h.via is null and ", silent!())
);

/// A host that fell silent.
#[derive(Clone, Copy, Debug)]
pub struct Silent {
    pub host: HostId,
    pub since: Wall,
    pub now: Wall,
}

/// Its label as a piece of the column: compact JSON of sorted strings.
fn piece(site: &str) -> String {
    format!("\"site\":{}", serde_json::Value::from(site))
}

/// The others of its site.
///
/// # Errors
/// When the database cannot be read.
pub async fn site(conn: &mut SqliteConnection, silent: Silent, site: &str) -> sqlx::Result<Others> {
    let query = sqlx::query_as(SITE).bind(silent.host.as_i64()).bind(silent.since.as_millis());
    let counted =
        query.bind(millis(TOGETHER)).bind(piece(site)).bind(silent.now.as_millis()).fetch_one(conn).await?;
    Ok(others(counted))
}

/// The others behind the same device.
///
/// # Errors
/// When the database cannot be read.
pub async fn beside(conn: &mut SqliteConnection, silent: Silent, device: HostId) -> sqlx::Result<Others> {
    let query = sqlx::query_as(BESIDE).bind(silent.host.as_i64()).bind(silent.since.as_millis());
    let counted = query
        .bind(millis(TOGETHER))
        .bind(device.as_i64())
        .bind(silent.now.as_millis())
        .fetch_one(conn)
        .await?;
    Ok(others(counted))
}

/// Everybody who is not of its site; the silent ones by their places, and only where nobody is heard.
///
/// # Errors
/// When the database cannot be read.
pub async fn elsewhere(
    conn: &mut SqliteConnection,
    silent: Silent,
    site: Option<&str>,
) -> sqlx::Result<Others> {
    let (host, since, site) = (silent.host.as_i64(), silent.since.as_millis(), site.map(piece));
    let now = silent.now.as_millis();
    let query = sqlx::query_scalar(HEARD_ELSEWHERE).bind(host).bind(since).bind(millis(TOGETHER));
    let heard: i64 = query.bind(&site).bind(now).bind(ENOUGH).fetch_one(&mut *conn).await?;
    if heard > 0 {
        return Ok(others((heard, 0)));
    }
    let query = sqlx::query_scalar(SILENT_ELSEWHERE).bind(host).bind(since).bind(millis(TOGETHER));
    Ok(others((0, query.bind(&site).bind(now).fetch_one(conn).await?)))
}

/// The device that a host stands behind, and whether its tunnel carries.
///
/// # Errors
/// When the database cannot be read.
pub async fn device(conn: &mut SqliteConnection, device: HostId) -> sqlx::Result<Option<Behind>> {
    let row: Option<(String, bool)> = sqlx::query_as(
        "select h.name, coalesce(s.status = 'up' and s.source <> 'direct'
                                 or s.source in ('evidence', 'echo', 'tcp', 'handshake'), 0)
         from hosts h left join host_states s on s.host = h.id where h.id = $1",
    )
    .bind(device.as_i64())
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|(device, heard)| Behind { device, heard }))
}

/// The clocks of the other devices at their last handshakes.
///
/// # Errors
/// When the database cannot be read.
pub async fn clocks(
    conn: &mut SqliteConnection,
    host: HostId,
    allowed_ms: u64,
    now: Wall,
) -> sqlx::Result<Clocks> {
    let (right, wrong): (i64, i64) = sqlx::query_as(
        "select count(*) filter (where abs(clock_skew_ms) <= $2),
                count(*) filter (where abs(clock_skew_ms) > $2)
         from peer_memory where peer <> $1 and last_handshake >= $3",
    )
    .bind(host.as_i64())
    .bind(allowed_ms.cast_signed())
    .bind((now - CLOCK_RECENT).as_millis())
    .fetch_one(conn)
    .await?;
    Ok(Clocks { right: few(right), wrong: few(wrong) })
}

fn others((heard, silent): (i64, i64)) -> Others {
    Others { heard: few(heard), silent: few(silent) }
}

fn few(count: i64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::wire::{HostState, HostStatus};

    use super::*;
    use crate::store::{Store, fixture, states};

    const SINCE: i64 = 1_000_000;

    struct Other {
        site: &'static str,
        down_at: Option<i64>,
        packet: i64,
    }

    /// A fleet of devices 1, 2, ...: where they are, since when they are down, their last packets.
    async fn fleet(others: &[Other]) -> (Store, tempfile::TempDir) {
        let (store, dir) = fixture::store().await;
        for (n, other) in (1u8..).zip(others) {
            let id = fixture::device(&store, n, &format!("cam-{n}")).await;
            let labels = serde_json::json!({ "site": other.site }).to_string();
            let labels = if other.site.is_empty() { "{}".to_owned() } else { labels };
            let name = n.to_string();
            fixture::run(&store, "update hosts set labels = $1 where id = $2", &[&labels, &name]).await;
            let memory = "insert into peer_memory (peer, last_packet) values ($1, $2)";
            fixture::run(&store, memory, &[&name, &other.packet.to_string()]).await;
            let insert = "insert into host_states (host, status, kind, attempt, hard, reachable, stale,
                          asleep, since, source, output) values ($1, 'up', 'hard', 1, 'up', 1, 0, 0, 0, '', '')";
            fixture::run(&store, insert, &[&name]).await;
            let state = match other.down_at {
                Some(at) => {
                    let (since, source) = (Wall::from_millis(at), "none".to_owned());
                    HostState { status: HostStatus::Down, since, source, ..fixture::up(id) }
                }
                None => fixture::up(id),
            };
            let mut tx = store.begin().await.unwrap();
            states::write_hosts(&mut tx, &[&state]).await.unwrap();
            tx.commit().await.unwrap();
        }
        (store, dir)
    }

    fn silent() -> Silent {
        let now = Wall::from_millis(SINCE + 3_600_000);
        Silent { host: HostId::from_i64(1), since: Wall::from_millis(SINCE), now }
    }

    fn down(site: &'static str, down_at: i64) -> Other {
        Other { site, down_at: Some(down_at), packet: down_at - 60_000 }
    }

    fn well(site: &'static str, packet: i64) -> Other {
        Other { site, down_at: None, packet }
    }

    #[tokio::test]
    async fn the_others_of_a_site_are_counted_apart_from_the_rest() {
        let all = [
            down("north", SINCE),
            down("north", SINCE + 30_000),
            down("north", SINCE - 86_400_000),
            well("north", SINCE - 1),
            well("south", SINCE + 1),
            well("northern", SINCE + 1),
        ];
        let (store, _dir) = fleet(&all).await;
        let mut conn = store.reader().await.unwrap();
        let of_site = site(&mut conn, silent(), "north").await.unwrap();
        assert_eq!(
            of_site,
            Others { heard: 0, silent: 1 },
            "one died a day ago, of one nothing is known yet"
        );
        let rest = elsewhere(&mut conn, silent(), Some("north")).await.unwrap();
        assert_eq!(rest, Others { heard: 2, silent: 0 });
    }

    #[tokio::test]
    async fn where_nobody_is_heard_the_silent_places_are_counted() {
        let all = [
            down("north", SINCE),
            down("south", SINCE + 1),
            down("south", SINCE + 2),
            down("", SINCE + 3),
            down("", SINCE - 4),
        ];
        let (store, _dir) = fleet(&all).await;
        let mut conn = store.reader().await.unwrap();
        let rest = elsewhere(&mut conn, silent(), Some("north")).await.unwrap();
        assert_eq!(rest, Others { heard: 0, silent: 3 });
        let all = elsewhere(&mut conn, Silent { host: HostId::from_i64(5), ..silent() }, None).await.unwrap();
        assert_eq!(all.silent, 3, "north, south, and the other that names no site");
    }

    #[tokio::test]
    async fn who_answers_over_a_limit_is_heard_and_not_silent() {
        let (store, _dir) = fleet(&[down("north", SINCE), down("north", SINCE), down("north", SINCE)]).await;
        let slow = "update host_states set source = 'echo', last_check = $1 where host in (2, 3)";
        fixture::run(&store, slow, &[&(SINCE + 60_000).to_string()]).await;
        let mut conn = store.reader().await.unwrap();
        assert_eq!(site(&mut conn, silent(), "north").await.unwrap(), Others { heard: 2, silent: 0 });
        assert!(device(&mut conn, HostId::from_i64(2)).await.unwrap().is_some_and(|b| b.heard));
        assert!(device(&mut conn, HostId::from_i64(1)).await.unwrap().is_some_and(|b| !b.heard));
    }

    #[tokio::test]
    async fn who_is_only_said_to_be_down_did_not_fall_silent() {
        let (store, _dir) = fleet(&[down("north", SINCE), down("north", SINCE), down("", SINCE)]).await;
        fixture::run(&store, "update host_states set source = 'passive' where host > 1", &[]).await;
        let mut conn = store.reader().await.unwrap();
        let nobody = Others { heard: 0, silent: 0 };
        assert_eq!(site(&mut conn, silent(), "north").await.unwrap(), nobody);
        assert_eq!(elsewhere(&mut conn, silent(), Some("north")).await.unwrap(), nobody);
    }

    #[tokio::test]
    async fn a_packet_from_before_the_clock_was_set_back_is_none_since_then() {
        let all = [
            down("north", SINCE),
            well("north", SINCE + 1),
            well("south", SINCE + 7_200_000),
            down("north", SINCE + 7_200_000),
        ];
        let (store, _dir) = fleet(&all).await;
        let checked = (SINCE + 60_000).to_string();
        fixture::run(&store, "update host_states set last_check = $1 where host = 4", &[&checked]).await;
        let mut conn = store.reader().await.unwrap();
        let of_site = site(&mut conn, silent(), "north").await.unwrap();
        assert_eq!(of_site, Others { heard: 1, silent: 1 }, "by when the other was asked last");
        let rest = elsewhere(&mut conn, silent(), Some("north")).await.unwrap();
        assert_eq!(rest, Others { heard: 0, silent: 0 });
    }
}
