//! Counts the hosts that were heard after a host fell silent, and those that fell silent with it,
//! for its verdict.
//!
//! This module counts and decides nothing. An index finds the hosts of one site, which are read
//! completely. All other hosts are read by id until enough have been heard. The verdicts of one
//! moment share these rows.

use std::collections::BTreeSet;
use std::time::Duration;

use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::is_of_others;
use fleetgate_engine::time::Wall;
use fleetgate_engine::verdict::{Behind, Clocks, Others};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow, Row as _};

/// The time that packets in flight may blur the moment of an outage.
///
/// One cause silences all hosts in the same moment. That moment lies between each host's last proof
/// of life and its first unanswered probe.
const IN_FLIGHT: Duration = Duration::from_secs(5);
/// This many hosts heard elsewhere are enough to count.
const ENOUGH_HEARD: u32 = 100;
/// The number of hosts in the first read.
const FIRST_READ: usize = 128;
/// A clock measured longer ago proves nothing about today's clock.
const CLOCK_RECENT: Duration = Duration::from_secs(86_400);

/// The stored state of another host. A time in the future dates from before the clock was set back
/// and proves nothing.
struct Other {
    id: i64,
    site: Option<String>,
    via: Option<i64>,
    down: bool,
    hard_up: bool,
    stale: bool,
    asleep: bool,
    source: String,
    last_check: Option<i64>,
    silent_since: Option<i64>,
    last_alive: Option<i64>,
    last_packet: Option<i64>,
}

macro_rules! others {
    ($which:literal) => {
        concat!(
            "select h.id, h.labels ->> 'site', h.via, s.status = 'down', s.hard = 'up', s.stale, s.asleep, s.source,
                    s.last_check, s.silent_since, s.last_alive, m.last_packet
             from hosts h join host_states s on s.host = h.id left join peer_memory m on m.peer = h.id
             where h.removed_at is null and ",
            $which
        )
    };
}

const OF_SITE: &str = others!("h.labels ->> 'site' = $1");
const BEHIND: &str = others!("h.via = $1");
const MORE: &str = others!("h.id > $1 order by h.id limit $2");

impl FromRow<'_, SqliteRow> for Other {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Other {
            id: row.try_get(0)?,
            site: row.try_get(1)?,
            via: row.try_get(2)?,
            down: row.try_get(3)?,
            hard_up: row.try_get(4)?,
            stale: row.try_get(5)?,
            asleep: row.try_get(6)?,
            source: row.try_get(7)?,
            last_check: row.try_get(8)?,
            silent_since: row.try_get(9)?,
            last_alive: row.try_get(10)?,
            last_packet: row.try_get(11)?,
        })
    }
}

impl Other {
    /// A packet counts by its own time. A check counts only if it got a reply, because its evidence
    /// may be older than the check. The host may still be down because it exceeds a limit.
    fn is_heard(&self, silent: &Silent) -> bool {
        let since =
            |at: Option<i64>| at.is_some_and(|at| at > silent.since.as_millis() && silent.has_come(at));
        let answered = matches!(self.source.as_str(), "echo" | "tcp" | "handshake" | "direct");
        since(self.last_packet) || since(self.last_alive) || answered && since(self.last_check)
    }

    /// No reply came since a moment that may be the same. A host that is only reported down did not
    /// fall silent. While the gateway is cut off, its hosts are stale and not down.
    fn is_silent(&self, silent: &Silent) -> bool {
        let began = self.silent_since(silent) >= silent.earliest();
        (self.down || self.stale)
            && began
            && self.last_life(silent) <= silent.latest()
            && !self.is_heard(silent)
    }

    /// The start of the silence. If the clock was set back meanwhile, the time of the last check.
    fn silent_since(&self, silent: &Silent) -> i64 {
        let come = |at: &i64| silent.has_come(*at);
        match self.silent_since {
            None => 0,
            found => found.filter(come).or(self.last_check.filter(come)).unwrap_or(0),
        }
    }

    fn last_life(&self, silent: &Silent) -> i64 {
        let come = |at: &i64| silent.has_come(*at);
        self.last_alive.filter(come).max(self.last_packet.filter(come)).unwrap_or(0)
    }

    /// The host was up, and since then neither a reply nor a failed probe is known. A host that
    /// sleeps, was never up or has its state reported by others is no witness.
    fn is_unasked(&self, silent: &Silent) -> bool {
        let witness = self.hard_up && !self.asleep && !is_of_others(&self.source);
        witness && self.silent_since.is_none() && !self.is_heard(silent)
    }

    /// A host without a site is a place by itself.
    fn place(&self) -> (Option<&str>, i64) {
        (self.site.as_deref(), if self.site.is_some() { 0 } else { self.id })
    }
}

/// A host that fell silent.
#[derive(Clone, Copy, Debug)]
pub struct Silent {
    pub host: HostId,
    /// The first probe without a reply since.
    pub since: Wall,
    /// The last proof of life before that.
    pub alive: Wall,
    pub now: Wall,
}

impl Silent {
    fn earliest(&self) -> i64 {
        (self.alive.min(self.since) - IN_FLIGHT).as_millis()
    }

    fn latest(&self) -> i64 {
        (self.since + IN_FLIGHT).as_millis()
    }

    fn has_come(&self, at: i64) -> bool {
        at <= self.now.as_millis()
    }

    fn count<'a>(&self, others: impl Iterator<Item = &'a Other>, counts: impl Fn(&Other) -> bool) -> Others {
        let mut found = Others::default();
        for other in others.filter(|other| other.id != self.host.as_i64()) {
            found.heard += u32::from(other.is_heard(self));
            found.silent += u32::from(counts(other) && other.is_silent(self));
            found.unasked += u32::from(counts(other) && other.is_unasked(self));
        }
        found
    }
}

/// Counts the other hosts of the site. A host behind a device fails with the device and is no
/// second witness.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn site(conn: &mut SqliteConnection, silent: Silent, site: &str) -> sqlx::Result<Others> {
    let others: Vec<Other> = sqlx::query_as(OF_SITE).bind(site).fetch_all(conn).await?;
    Ok(silent.count(others.iter(), |other| other.via.is_none()))
}

/// Counts the other hosts behind the same device.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn beside(conn: &mut SqliteConnection, silent: Silent, device: HostId) -> sqlx::Result<Others> {
    let others: Vec<Other> = sqlx::query_as(BEHIND).bind(device.as_i64()).fetch_all(conn).await?;
    Ok(silent.count(others.iter(), |_| true))
}

/// All other hosts, read as far as a verdict of this moment needed.
#[derive(Default)]
pub struct OtherHosts {
    read: Vec<Other>,
    is_all: bool,
}

impl OtherHosts {
    /// Counts the hosts of other sites. Silent places are counted only if no host is heard.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn elsewhere(
        &mut self,
        conn: &mut SqliteConnection,
        silent: Silent,
        site: Option<&str>,
    ) -> sqlx::Result<Others> {
        let apart = |other: &&Other| {
            other.id != silent.host.as_i64() && (site.is_none() || other.site.as_deref() != site)
        };
        let (mut heard, mut seen) = (0, 0);
        while heard < ENOUGH_HEARD {
            if seen == self.read.len() && !self.read_on(conn).await? {
                break;
            }
            heard += u32::from(Some(&self.read[seen]).filter(apart).is_some_and(|o| o.is_heard(&silent)));
            seen += 1;
        }
        if heard > 0 {
            return Ok(Others { heard, ..Others::default() });
        }
        let places = |is: fn(&Other, &Silent) -> bool| {
            let own = self.read.iter().filter(apart).filter(|other| other.via.is_none());
            few(own.filter(|other| is(other, &silent)).map(Other::place).collect::<BTreeSet<_>>().len())
        };
        Ok(Others { heard, silent: places(Other::is_silent), unasked: places(Other::is_unasked) })
    }

    /// Reads as many rows again. Returns whether it found more.
    async fn read_on(&mut self, conn: &mut SqliteConnection) -> sqlx::Result<bool> {
        if self.is_all {
            return Ok(false);
        }
        let (last, many) =
            (self.read.last().map_or(i64::MIN, |other| other.id), self.read.len().max(FIRST_READ));
        let more = sqlx::query_as(MORE).bind(last).bind(i64::try_from(many).unwrap_or(i64::MAX));
        let more: Vec<Other> = more.fetch_all(conn).await?;
        self.is_all = more.len() < many;
        self.read.extend(more);
        Ok(self.read.last().is_some_and(|other| other.id > last))
    }
}

/// Reads the state of the tunnel of the device that a host stands behind.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn device(conn: &mut SqliteConnection, device: HostId, now: Wall) -> sqlx::Result<Option<Behind>> {
    type Row = (String, Option<i64>, Option<i64>, Option<i64>, Option<i64>);
    let row: Option<Row> =
        sqlx::query_as(DEVICE).bind(device.as_i64()).bind(now.as_millis()).fetch_optional(conn).await?;
    let wall = |at: Option<i64>| at.map(Wall::from_millis);
    Ok(row.map(|(device, up, own, beside, failed)| Behind {
        device,
        up_since: wall(up),
        answered: wall(own).max(wall(beside)),
        failed: wall(failed),
    }))
}

/// A packet that only arrived proves one direction. An echo, a connection and a handshake prove
/// both, and so does a reply from another host behind the device. `$2`: now.
const DEVICE: &str = "
    select h.name,
           case when s.status = 'up' and s.since <= $2 and coalesce(t.status, 'ok') = 'ok'
                then max(s.since, case when t.since <= $2 then t.since else 0 end) end,
           case when s.source in ('echo', 'tcp', 'handshake') and s.last_check <= $2 then s.last_check end,
           (select max(b.last_check) from hosts o join host_states b on b.host = o.id
            where o.via = h.id and o.removed_at is null and o.route <> 'direct' and b.last_check <= $2
              and b.source in ('echo', 'tcp')),
           case when s.last_check <= $2 and (s.source in ('direct', 'handshakes') or s.one_way
                                             or s.hard = 'down' and s.source = 'none')
                then s.last_check end
    from hosts h left join host_states s on s.host = h.id
         left join service_states t on t.host = h.id and t.service = 'tunnel' and t.status is not null
    where h.id = $1";

/// Counts right and wrong clocks of the other devices at their last handshakes.
///
/// # Errors
/// Fails when the database cannot be read.
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

fn few<N: TryInto<u32>>(count: N) -> u32 {
    count.try_into().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::messages::{HostState, HostStatus};

    use super::*;
    use crate::store::{Store, fixture, states};

    const SINCE: i64 = 1_000_000;

    async fn elsewhere(
        conn: &mut SqliteConnection,
        silent: Silent,
        site: Option<&str>,
    ) -> sqlx::Result<Others> {
        OtherHosts::default().elsewhere(conn, silent, site).await
    }

    struct Other {
        site: &'static str,
        down_at: Option<i64>,
        packet: i64,
    }

    /// Creates devices 1, 2, ... with their sites, the times of their failures and their last
    /// packets.
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
                    let silent_since = Some(since);
                    HostState { status: HostStatus::Down, since, source, silent_since, ..fixture::up(id) }
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
        let (since, alive) = (Wall::from_millis(SINCE), Wall::from_millis(SINCE - 60_000));
        Silent { host: HostId::from_i64(1), since, alive, now }
    }

    fn down(site: &'static str, down_at: i64) -> Other {
        Other { site, down_at: Some(down_at), packet: down_at - 60_000 }
    }

    fn well(site: &'static str, packet: i64) -> Other {
        Other { site, down_at: None, packet }
    }

    #[tokio::test]
    async fn hosts_of_the_site_are_counted_apart_from_the_others() {
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
            Others { heard: 0, silent: 1, unasked: 1 },
            "one died a day ago, of one nothing is known yet"
        );
        let rest = elsewhere(&mut conn, silent(), Some("north")).await.unwrap();
        assert_eq!(rest, Others { heard: 2, ..Others::default() });
    }

    #[tokio::test]
    async fn silent_sites_are_counted_if_no_host_is_heard() {
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
        assert_eq!(rest, Others { silent: 3, ..Others::default() });
        let all = elsewhere(&mut conn, Silent { host: HostId::from_i64(5), ..silent() }, None).await.unwrap();
        assert_eq!(all.silent, 3, "north, south, and the other that names no site");
    }

    #[tokio::test]
    async fn a_host_that_replies_above_a_threshold_is_heard() {
        let (store, _dir) = fleet(&[down("north", SINCE), down("north", SINCE), down("north", SINCE)]).await;
        let slow = "update host_states set source = 'echo', last_check = $1, silent_since = null
                    where host in (2, 3)";
        fixture::run(&store, slow, &[&(SINCE + 60_000).to_string()]).await;
        let mut conn = store.reader().await.unwrap();
        let heard = Others { heard: 2, ..Others::default() };
        assert_eq!(site(&mut conn, silent(), "north").await.unwrap(), heard);
        let now = silent().now;
        let two = device(&mut conn, HostId::from_i64(2), now).await.unwrap().unwrap();
        assert_eq!((two.answered, two.up_since), (Some(Wall::from_millis(SINCE + 60_000)), None));
        let one = device(&mut conn, HostId::from_i64(1), now).await.unwrap().unwrap();
        assert_eq!((one.answered, one.up_since), (None, None));
    }

    #[tokio::test]
    async fn a_host_with_only_passive_results_did_not_fall_silent() {
        let (store, _dir) = fleet(&[down("north", SINCE), down("north", SINCE), down("", SINCE)]).await;
        let sent = "update host_states set source = 'passive', silent_since = null where host > 1";
        fixture::run(&store, sent, &[]).await;
        let mut conn = store.reader().await.unwrap();
        let nobody = Others::default();
        assert_eq!(site(&mut conn, silent(), "north").await.unwrap(), nobody);
        assert_eq!(elsewhere(&mut conn, silent(), Some("north")).await.unwrap(), nobody);
    }

    #[tokio::test]
    async fn a_packet_time_in_the_future_proves_nothing() {
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
        assert_eq!(of_site, Others { heard: 1, silent: 1, unasked: 0 }, "by when the other was asked last");
        let rest = elsewhere(&mut conn, silent(), Some("north")).await.unwrap();
        assert_eq!(rest, Others { unasked: 1, ..Others::default() }, "its last packet is from the future");
    }

    #[tokio::test]
    async fn devices_that_fell_silent_at_different_times_have_no_common_cause() {
        // Both were found within the same minute, but each has a packet newer than the other's
        // silence.
        let all = [down("", SINCE), down("", SINCE + 90_000), down("", SINCE - 90_000), well("", SINCE - 1)];
        let (store, _dir) = fleet(&all).await;
        let mut conn = store.reader().await.unwrap();
        let rest = elsewhere(&mut conn, silent(), None).await.unwrap();
        assert_eq!(rest, Others { heard: 1, ..Others::default() }, "a packet came after the silence began");
        fixture::run(&store, "update peer_memory set last_packet = $1 where peer = 2", &[&SINCE.to_string()])
            .await;
        let rest = elsewhere(&mut conn, silent(), None).await.unwrap();
        assert_eq!(
            rest,
            Others { silent: 1, unasked: 1, ..Others::default() },
            "that may be the same moment"
        );
    }

    #[tokio::test]
    async fn a_device_with_a_failed_tunnel_carries_no_traffic() {
        let (store, _dir) = fleet(&[well("", SINCE)]).await;
        let mut conn = store.reader().await.unwrap();
        let now = silent().now;
        let up = async |conn: &mut SqliteConnection| {
            device(conn, HostId::from_i64(1), now).await.unwrap().unwrap().up_since.map(Wall::as_millis)
        };
        assert_eq!(up(&mut conn).await, Some(1_000), "without the service `tunnel`");
        let tunnel = "insert into service_states (host, service, status, kind, attempt, hard, stale, since,
                      route, output, long_output, metrics, warnings)
                      values (1, 'tunnel', 'critical', 'soft', 1, 'ok', 0, 1500, '', '', '', '[]', '[]')";
        fixture::run(&store, tunnel, &[]).await;
        assert_eq!(up(&mut conn).await, None);
        fixture::run(&store, "update service_states set status = 'ok', since = 2000", &[]).await;
        assert_eq!(up(&mut conn).await, Some(2_000));
    }

    #[tokio::test]
    async fn a_device_replies_through_its_tunnel_or_a_host_behind_it() {
        let (store, _dir) = fleet(&[well("", SINCE), well("", SINCE)]).await;
        let mut conn = store.reader().await.unwrap();
        let now = silent().now;
        let of = async |conn: &mut SqliteConnection| {
            device(conn, HostId::from_i64(1), now).await.unwrap().unwrap()
        };
        assert_eq!(of(&mut conn).await.answered, None, "packets that come prove one direction");
        let behind = "update hosts set via = 1 where id = 2";
        fixture::run(&store, behind, &[]).await;
        fixture::run(&store, "update host_states set source = 'tcp', last_check = 500 where host = 2", &[])
            .await;
        assert_eq!(of(&mut conn).await.answered, Some(Wall::from_millis(500)), "a host behind it answered");
        let direct = "update host_states set source = 'direct', last_check = 700 where host = 1";
        fixture::run(&store, direct, &[]).await;
        assert_eq!(
            of(&mut conn).await.failed,
            Some(Wall::from_millis(700)),
            "only its public address answers"
        );
        for (set, failed) in [
            ("update host_states set source = 'handshakes', one_way = 0 where host = 1", true),
            ("update host_states set source = 'evidence', one_way = 1 where host = 1", true),
            ("update host_states set source = 'evidence', one_way = 0 where host = 1", false),
        ] {
            fixture::run(&store, set, &[]).await;
            assert_eq!(of(&mut conn).await.failed.is_some(), failed, "{set}");
        }
        let down = "update host_states set source = 'none', hard = 'down', status = 'down' where host = 1";
        fixture::run(&store, down, &[]).await;
        let found = of(&mut conn).await;
        assert_eq!((found.up_since, found.failed), (None, Some(Wall::from_millis(700))));
    }
}
