//! Inner addresses: one slot of the pools per peer, for its IPv4 and IPv6 addresses together. A host
//! behind a device has a slot of its own, for an alias of the family of its real address.
//!
//! Slots are allocated upwards and reused only after the end of the pool. An address thus means one
//! device for as long as possible, in logs and in other firewalls. The index finds the next free
//! slot. (Random slots would serve as well, but ordered ones are easier to read.) The primary key
//! arbitrates. A released address rests before it is reused.
//!
//! The blocks of customers are runs of slots for the aliases of their rentals. They are taken from the end
//! of the pools downwards ([`super::rentals::alias_blocks`]), and no single address is in one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use fleetgate_engine::id::{HostId, Id, PeerId};
use fleetgate_engine::time::Wall;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sqlx::SqliteConnection;

/// The time that a released address rests, so that caches, logs and sessions of the old owner age
/// out.
pub const QUARANTINE: Duration = Duration::from_secs(24 * 3_600);
/// Slots tried in turn if an address is taken outside this order (released addresses of changed
/// pools). If more are taken, the pools overlap earlier ones.
const MAX_TRIES: u32 = 256;
/// Slot 0 is the network.
const GATEWAY_SLOT: i64 = 1;
const FIRST_SLOT: i64 = 2;

/// The pools of inner addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pools {
    pub v4: Ipv4Net,
    pub v6: Ipv6Net,
}

impl Pools {
    /// The last slot that has an address in both pools.
    pub(super) fn last_slot(self) -> i64 {
        let [v4, v6] = self.last_slots();
        v4.min(v6)
    }

    /// The last slot of each pool. The last IPv4 address is for broadcasts.
    fn last_slots(self) -> [i64; 2] {
        let v6_bits = u32::from(128 - self.v6.prefix_len()).min(62);
        [(1i64 << (32 - self.v4.prefix_len())) - 2, (1i64 << v6_bits) - 1]
    }

    /// The pool that fills up first.
    pub(super) fn narrower(self) -> IpNet {
        let [v4, v6] = self.last_slots();
        if v4 <= v6 { self.v4.into() } else { self.v6.into() }
    }

    /// The gateway's own inner addresses: the first of each pool.
    pub fn gateway(self) -> [IpAddr; 2] {
        self.at(GATEWAY_SLOT)
    }

    /// The addresses of a slot, IPv4 first.
    pub(super) fn at(self, slot: i64) -> [IpAddr; 2] {
        let v4 = u32::from(self.v4.network()) + u32::try_from(slot).expect("a slot of an IPv4 pool");
        let v6 = u128::from(self.v6.network()) + u128::try_from(slot).expect("slots are positive");
        [Ipv4Addr::from(v4).into(), Ipv6Addr::from(v6).into()]
    }
}

#[derive(Debug, thiserror::Error)]
pub enum NoAddress {
    #[error(
        "the pool {0} is full: remove devices, hosts behind them, operators or renters (an address rests for a \
         day), or set a larger pool that begins at the same address; devices keep their addresses, and {0} in \
         their AllowedIPs"
    )]
    Full(IpNet),
    #[error(
        "the pool {pool} has no {slots} free addresses in a row for the rentals of another customer: erase \
         customers (a block rests for a day), set a smaller [rentals] alias_slots, or set a larger pool that \
         begins at the same address"
    )]
    NoBlock { pool: IpNet, slots: i64 },
    #[error(transparent)]
    Store(#[from] sqlx::Error),
}

/// Allocates a pair of addresses to a peer.
///
/// # Errors
/// Fails when no slot is free, or the database cannot be written.
pub async fn allocate(
    tx: &mut SqliteConnection,
    peer: PeerId,
    pools: Pools,
    now: Wall,
) -> Result<[IpAddr; 2], NoAddress> {
    end_quarantine(tx, now).await?;
    let slot = allocate_slot(tx, Owner::Peer(peer), |slot| pools.at(slot).to_vec(), pools, now).await?;
    Ok(pools.at(slot))
}

/// Allocates the alias of a host behind a device, in the family of its real address.
///
/// # Errors
/// Fails when no slot is free, or the database cannot be written.
pub async fn allocate_alias(
    tx: &mut SqliteConnection,
    (host, real): (HostId, IpAddr),
    pools: Pools,
    now: Wall,
) -> Result<IpAddr, NoAddress> {
    end_quarantine(tx, now).await?;
    let family = usize::from(real.is_ipv6());
    let alias = |slot| pools.at(slot)[family];
    let slot = allocate_slot(tx, Owner::Host(host), |slot| vec![alias(slot)], pools, now).await?;
    Ok(alias(slot))
}

/// Who an address is allocated to.
#[derive(Clone, Copy)]
enum Owner {
    Peer(PeerId),
    /// A host behind a device.
    Host(HostId),
}

/// Takes the next slot in which these addresses are free.
async fn allocate_slot(
    tx: &mut SqliteConnection,
    owner: Owner,
    addresses: impl Fn(i64) -> Vec<IpAddr>,
    pools: Pools,
    now: Wall,
) -> Result<i64, NoAddress> {
    let mut from = next_slot(tx, pools).await?;
    for _ in 0..MAX_TRIES {
        let slot = match free_slot(tx, from, pools).await? {
            Some(slot) => slot,
            // Blocks of customers may take all that is left above.
            None => free_slot(tx, FIRST_SLOT, pools).await?.ok_or(NoAddress::Full(pools.narrower()))?,
        };
        if take(tx, owner, slot, &addresses(slot), now).await? {
            return Ok(slot);
        }
        from = slot + 1;
    }
    Err(NoAddress::Full(pools.narrower()))
}

/// Releases the addresses of a peer. They rest from now on.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn release(tx: &mut SqliteConnection, peer: PeerId, now: Wall) -> sqlx::Result<()> {
    let sql = "update addresses set released_at = $2 where peer = $1 and released_at is null";
    sqlx::query(sql).bind(peer.as_i64()).bind(now.as_millis()).execute(tx).await.map(drop)
}

/// Releases the alias of a host. It rests from now on.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn release_alias(tx: &mut SqliteConnection, host: HostId, now: Wall) -> sqlx::Result<()> {
    let sql = "update addresses set released_at = $2 where host = $1 and released_at is null";
    sqlx::query(sql).bind(host.as_i64()).bind(now.as_millis()).execute(tx).await.map(drop)
}

/// Gives an alias to each host behind a device that has none, as after an upgrade. Returns the number
/// of hosts that got none, because the pool is full.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn allocate_missing_aliases(
    tx: &mut SqliteConnection,
    pools: Pools,
    now: Wall,
) -> sqlx::Result<usize> {
    let sql = "select h.id, h.address from hosts h
               where h.removed_at is null and h.via is not null and h.address is not null
                 and not exists (select 1 from addresses a where a.host = h.id and a.released_at is null)
               order by h.id";
    let hosts: Vec<(i64, String)> = sqlx::query_as(sql).fetch_all(&mut *tx).await?;
    for (done, (host, real)) in hosts.iter().enumerate() {
        let Ok(real) = real.parse() else { continue };
        match allocate_alias(tx, (Id::from_i64(*host), real), pools, now).await {
            Ok(_) => {}
            Err(NoAddress::Full(_) | NoAddress::NoBlock { .. }) => return Ok(hosts.len() - done),
            Err(NoAddress::Store(error)) => return Err(error),
        }
    }
    Ok(0)
}

/// Whether any peer has an address.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn any_held(conn: &mut SqliteConnection) -> sqlx::Result<bool> {
    let sql = "select exists (select 1 from addresses where released_at is null)";
    sqlx::query_scalar(sql).fetch_one(conn).await
}

/// Deletes the addresses, and the blocks of erased customers, that have rested.
///
/// # Errors
/// Fails when the database cannot be written.
pub(super) async fn end_quarantine(tx: &mut SqliteConnection, now: Wall) -> sqlx::Result<()> {
    for sql in [
        "delete from addresses where released_at < $1",
        "delete from alias_blocks where customer in (select id from customers where erased_at < $1)",
    ] {
        sqlx::query(sql).bind((now - QUARANTINE).as_millis()).execute(&mut *tx).await?;
    }
    Ok(())
}

/// Returns the slot after the highest allocated one, or the first slot if none is left above.
async fn next_slot(tx: &mut SqliteConnection, pools: Pools) -> sqlx::Result<i64> {
    let sql = "select coalesce(max(slot) + 1, $1) from addresses where slot between $1 and $2";
    let next: i64 = sqlx::query_scalar(sql).bind(FIRST_SLOT).bind(pools.last_slot()).fetch_one(tx).await?;
    Ok(if next > pools.last_slot() { FIRST_SLOT } else { next })
}

/// The lowest slot from `$1` on that no address and no block has. That is `$1` itself, or what follows
/// such an address or block.
const FREE_SLOT: &str = "
    select min(c.slot) from (
        select $1 as slot
        union all select slot + 1 from addresses where slot >= $1
        union all select first_slot + slots from alias_blocks where first_slot + slots > $1) c
    where not exists (select 1 from addresses a where a.slot = c.slot)
      and coalesce((select b.first_slot + b.slots from alias_blocks b where b.first_slot <= c.slot
                    order by b.first_slot desc limit 1), 0) <= c.slot";

async fn free_slot(tx: &mut SqliteConnection, from: i64, pools: Pools) -> sqlx::Result<Option<i64>> {
    let free: Option<i64> = sqlx::query_scalar(FREE_SLOT).bind(from).fetch_one(tx).await?;
    Ok(free.filter(|slot| *slot <= pools.last_slot()))
}

/// Takes the addresses of a slot. Returns whether all of them were free.
async fn take(
    tx: &mut SqliteConnection,
    owner: Owner,
    slot: i64,
    addresses: &[IpAddr],
    now: Wall,
) -> sqlx::Result<bool> {
    let (peer, host) = match owner {
        Owner::Peer(peer) => (Some(peer.as_i64()), None),
        Owner::Host(host) => (None, Some(host.as_i64())),
    };
    for (i, address) in addresses.iter().enumerate() {
        let done = sqlx::query(
            "insert into addresses (address, slot, peer, host, allocated_at) values ($1, $2, $3, $4, $5)
             on conflict (address) do nothing",
        )
        .bind(address.to_string())
        .bind(slot)
        .bind(peer)
        .bind(host)
        .bind(now.as_millis())
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 0 {
            undo(tx, &addresses[..i]).await?;
            return Ok(false);
        }
    }
    Ok(true)
}

async fn undo(tx: &mut SqliteConnection, addresses: &[IpAddr]) -> sqlx::Result<()> {
    for address in addresses {
        let sql = "delete from addresses where address = $1";
        sqlx::query(sql).bind(address.to_string()).execute(&mut *tx).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fleetgate_engine::id::Id;
    use proptest::prelude::*;

    use super::*;
    use crate::store::rentals::alias_blocks;
    use crate::store::{Store, Tx, fixture};

    const SMALL: &str = "10.9.0.0/29";

    fn pools(v4: &str) -> Pools {
        Pools { v4: v4.parse().unwrap(), v6: "fd00::/112".parse().unwrap() }
    }

    async fn peer(tx: &mut Tx, id: i64) -> PeerId {
        let sql = "insert into peers (id, kind, created_at) values ($1, 'device', 0)";
        sqlx::query(sql).bind(id).execute(&mut **tx).await.unwrap();
        Id::from_i64(id)
    }

    async fn give(tx: &mut Tx, id: i64, v4: &str, now: i64) -> Result<String, NoAddress> {
        let peer = peer(tx, id).await;
        let given = allocate(tx, peer, pools(v4), Wall::from_millis(now)).await?;
        Ok(given.map(|a| a.to_string()).join(" "))
    }

    async fn store() -> (Store, tempfile::TempDir) {
        fixture::store().await
    }

    #[tokio::test]
    async fn a_peer_gets_the_same_slot_of_both_pools_and_the_gateway_has_the_first() {
        let (store, _dir) = store().await;
        let mut tx = store.begin().await.unwrap();
        assert_eq!(give(&mut tx, 1, SMALL, 0).await.unwrap(), "10.9.0.2 fd00::2");
        assert_eq!(give(&mut tx, 2, SMALL, 0).await.unwrap(), "10.9.0.3 fd00::3");
    }

    #[tokio::test]
    async fn a_full_pool_is_named_and_a_released_address_rests_for_a_day() {
        let (store, _dir) = store().await;
        let mut tx = store.begin().await.unwrap();
        for id in 1..=5 {
            give(&mut tx, id, SMALL, 0).await.unwrap();
        }
        let full = give(&mut tx, 6, SMALL, 0).await.unwrap_err();
        assert!(full.to_string().starts_with("the pool 10.9.0.0/29 is full"), "{full}");
        assert_eq!(pools("10.0.0.0/8").narrower().to_string(), "fd00::/112");
        release(&mut tx, Id::from_i64(3), Wall::from_millis(1_000)).await.unwrap();
        let day = i64::try_from(QUARANTINE.as_millis()).unwrap();
        assert!(give(&mut tx, 7, SMALL, 1_000 + day).await.is_err());
        assert_eq!(give(&mut tx, 8, SMALL, 1_001 + day).await.unwrap(), "10.9.0.4 fd00::4");
    }

    #[tokio::test]
    async fn an_address_taken_by_an_earlier_pool_is_stepped_over() {
        let (store, _dir) = store().await;
        let mut tx = store.begin().await.unwrap();
        assert_eq!(give(&mut tx, 1, "10.9.0.0/24", 0).await.unwrap(), "10.9.0.2 fd00::2");
        // Slot 1 of this pool is the gateway's. The pool before has allocated slot 2.
        assert_eq!(give(&mut tx, 2, "10.8.0.0/15", 0).await.unwrap(), "10.8.0.3 fd00::3");
    }

    async fn host(tx: &mut Tx, id: i64, address: &str) -> HostId {
        let sql = "insert into hosts (id, name, profile, via, address, created_at) values ($1, 'h' || $1, '', 1, $2, 0)";
        sqlx::query(sql).bind(id).bind(address).execute(&mut **tx).await.unwrap();
        Id::from_i64(id)
    }

    #[tokio::test]
    async fn an_alias_has_a_slot_of_its_own_and_the_family_of_the_real_address() {
        let (store, _dir) = store().await;
        let device = fixture::device(&store, 1, "cam").await;
        let mut tx = store.begin().await.unwrap();
        let [first, second] = [host(&mut tx, 5, "192.168.1.5").await, host(&mut tx, 6, "2001:db8::6").await];
        let now = Wall::from_millis(0);
        let mut alias = async |host, real: &str| {
            let real = real.parse().unwrap();
            allocate_alias(&mut tx, (host, real), pools(SMALL), now).await.map(|alias| alias.to_string())
        };
        assert_eq!(alias(first, "192.168.1.5").await.unwrap(), "10.9.0.2");
        assert_eq!(alias(second, "2001:db8::6").await.unwrap(), "fd00::3");
        assert_eq!(give(&mut tx, 8, SMALL, 0).await.unwrap(), "10.9.0.4 fd00::4");
        release(&mut tx, device, now).await.unwrap();
        let sql = "select count(*) from addresses where host is not null and released_at is null";
        let held: i64 = sqlx::query_scalar(sql).fetch_one(&mut *tx).await.unwrap();
        assert_eq!(held, 2, "those of peers are apart");
        release_alias(&mut tx, first, now).await.unwrap();
        let held: i64 = sqlx::query_scalar(sql).fetch_one(&mut *tx).await.unwrap();
        assert_eq!(held, 1);
    }

    #[tokio::test]
    async fn hosts_without_an_alias_get_one_as_far_as_the_pool_has_room() {
        let (store, _dir) = store().await;
        fixture::device(&store, 1, "cam").await;
        let mut tx = store.begin().await.unwrap();
        for id in 11..=17 {
            host(&mut tx, id, &format!("192.168.1.{id}")).await;
        }
        let now = Wall::from_millis(0);
        assert_eq!(allocate_missing_aliases(&mut tx, pools(SMALL), now).await.unwrap(), 2);
        assert_eq!(allocate_missing_aliases(&mut tx, pools("10.9.0.0/24"), now).await.unwrap(), 0);
        let sql = "select address from addresses where host = 17";
        let last: String = sqlx::query_scalar(sql).fetch_one(&mut *tx).await.unwrap();
        assert_eq!(last, "10.9.0.8");
    }

    #[tokio::test]
    async fn single_addresses_leave_out_the_blocks_of_customers() {
        let (store, _dir) = store().await;
        let mut tx = store.begin().await.unwrap();
        // Slots 16 to 23 of 2 to 30; 24 to 31 has the address for broadcasts.
        block(&mut tx, 1, 8, 0).await.expect("a block");
        for id in 1..=14 {
            give(&mut tx, id, "10.9.0.0/27", 0).await.unwrap();
        }
        assert_eq!(give(&mut tx, 15, "10.9.0.0/27", 0).await.unwrap(), "10.9.0.24 fd00::18");
        for id in 16..=21 {
            give(&mut tx, id, "10.9.0.0/27", 0).await.unwrap();
        }
        assert!(matches!(give(&mut tx, 22, "10.9.0.0/27", 0).await, Err(NoAddress::Full(_))));
        release(&mut tx, Id::from_i64(2), Wall::from_millis(0)).await.unwrap();
        let later = i64::try_from(QUARANTINE.as_millis()).unwrap() + 1;
        assert_eq!(give(&mut tx, 23, "10.9.0.0/27", later).await.unwrap(), "10.9.0.3 fd00::3");
    }

    #[tokio::test]
    async fn a_block_at_the_end_of_the_pool_leaves_the_free_slots_below_it() {
        let (store, _dir) = store().await;
        let mut tx = store.begin().await.unwrap();
        for id in 1..=5 {
            give(&mut tx, id, "10.9.0.0/28", 0).await.unwrap();
        }
        release(&mut tx, Id::from_i64(2), Wall::from_millis(0)).await.unwrap();
        let later = i64::try_from(QUARANTINE.as_millis()).unwrap() + 1;
        let customer = "insert into customers (id, created_at) values (9, 0)";
        sqlx::query(customer).execute(&mut *tx).await.unwrap();
        let sql = "insert into alias_blocks (customer, first_slot, slots, created_at) values (9, 7, 8, 0)";
        sqlx::query(sql).execute(&mut *tx).await.unwrap();
        assert_eq!(give(&mut tx, 7, "10.9.0.0/28", later).await.unwrap(), "10.9.0.3 fd00::3");
    }

    /// Gives a block to a new customer, if one is free.
    async fn block(tx: &mut Tx, customer: i64, slots: u32, now: i64) -> Option<()> {
        let sql = "insert into customers (id, created_at) values ($1, 0)";
        sqlx::query(sql).bind(customer).execute(&mut **tx).await.unwrap();
        let (customer, now) = (Id::from_i64(customer), Wall::from_millis(now));
        alias_blocks::ensure(tx, customer, slots, pools("10.9.0.0/27"), now).await.ok().map(drop)
    }

    async fn erase(tx: &mut Tx, customer: i64, now: i64) {
        let sql = "update customers set erased_at = $2 where id = $1";
        sqlx::query(sql).bind(customer).bind(now).execute(&mut **tx).await.unwrap();
    }

    async fn nothing_overlaps(tx: &mut Tx) {
        let sql = "select slot, slot + 1 from (select distinct slot from addresses)
                   union all select 0, 2
                   union all select first_slot, first_slot + slots from alias_blocks order by 1";
        let runs: Vec<(i64, i64)> = sqlx::query_as(sql).fetch_all(&mut **tx).await.unwrap();
        assert!(runs.windows(2).all(|two| two[0].1 <= two[1].0), "{runs:?}");
        assert!(runs.iter().all(|run| run.1 <= 31), "the last address is for broadcasts: {runs:?}");
        let sql = "select count(*) from alias_blocks where first_slot % slots <> 0";
        let crooked: i64 = sqlx::query_scalar(sql).fetch_one(&mut **tx).await.unwrap();
        assert_eq!(crooked, 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn no_address_is_given_twice_while_it_is_held_or_rests(
            steps in proptest::collection::vec((any::<bool>(), 0usize..8, 0i64..100_000_000), 1..40)
        ) {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let (store, _dir) = store().await;
                let mut tx = store.begin().await.unwrap();
                let (mut now, mut held): (i64, Vec<(i64, String)>) = (0, Vec::new());
                for (i, (give_one, which, pause)) in steps.into_iter().enumerate() {
                    now += pause;
                    let id = i64::try_from(i).unwrap() + 1;
                    if !give_one && !held.is_empty() {
                        let (id, _) = held.remove(which % held.len());
                        release(&mut tx, Id::from_i64(id), Wall::from_millis(now)).await.unwrap();
                    } else if let Ok(address) = give(&mut tx, id, "10.9.0.0/28", now).await {
                        held.push((id, address));
                    }
                    let different: BTreeSet<&String> = held.iter().map(|(_, a)| a).collect();
                    assert_eq!(different.len(), held.len());
                }
            });
        }

        #[test]
        fn no_address_that_is_held_or_rests_is_in_a_block_and_no_two_blocks_overlap(
            steps in proptest::collection::vec((0u8..4, 0usize..8, 0i64..50_000_000), 1..40)
        ) {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let (store, _dir) = store().await;
                let mut tx = store.begin().await.unwrap();
                let (mut now, mut peers, mut customers) = (0, Vec::new(), Vec::new());
                for (i, (step, which, pause)) in steps.into_iter().enumerate() {
                    now += pause;
                    let id = i64::try_from(i).unwrap() + 1;
                    match step {
                        0 if !peers.is_empty() => {
                            let id = peers.remove(which % peers.len());
                            release(&mut tx, Id::from_i64(id), Wall::from_millis(now)).await.unwrap();
                        }
                        1 if !customers.is_empty() => {
                            erase(&mut tx, customers.remove(which % customers.len()), now).await;
                        }
                        2 => customers.extend(block(&mut tx, id, 4 << (which % 2), now).await.map(|()| id)),
                        _ => peers.extend(give(&mut tx, id, "10.9.0.0/27", now).await.ok().map(|_| id)),
                    }
                    nothing_overlaps(&mut tx).await;
                }
            });
        }
    }
}
