//! The blocks of customers: aligned runs of address slots, in which the rentals of a customer have their
//! aliases. One prefix of each family covers a block, so that a peer of the customer routes to all rentals
//! of the customer and to nothing else, with a configuration that never changes.
//!
//! Blocks are taken from the end of the pools downwards, so that the addresses of devices stay together.
//! The block of an erased customer rests for a day, as addresses do.

use std::collections::BTreeSet;
use std::net::IpAddr;

use fleetgate_engine::id::CustomerId;
use fleetgate_engine::time::Wall;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use crate::store::addresses::{self, NoAddress, Pools};

/// Blocks tried in turn if an address of theirs was allocated in another pool.
const MAX_TRIES: usize = 256;

/// A run of slots. Its length is a power of two, and its first slot a multiple of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AliasBlock {
    pub first_slot: i64,
    pub slots: i64,
}

impl FromRow<'_, SqliteRow> for AliasBlock {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(AliasBlock { first_slot: row.try_get("first_slot")?, slots: row.try_get("slots")? })
    }
}

impl AliasBlock {
    /// The prefixes that cover the block, IPv4 first.
    pub fn prefixes(self, pools: Pools) -> [IpNet; 2] {
        let host_bits = self.slots.trailing_zeros().min(32) as u8;
        self.at(0, pools).map(|first| match first {
            IpAddr::V4(first) => Ipv4Net::new_assert(first, 32 - host_bits).into(),
            IpAddr::V6(first) => Ipv6Net::new_assert(first, 128 - host_bits).into(),
        })
    }

    /// The addresses at this offset, from 0 to `slots - 1`, IPv4 first.
    pub fn at(self, offset: i64, pools: Pools) -> [IpAddr; 2] {
        pools.at(self.first_slot + offset)
    }

    fn last_slot(self) -> i64 {
        self.first_slot + self.slots - 1
    }

    fn addresses(self, pools: Pools) -> Vec<String> {
        (0..self.slots).flat_map(|offset| self.at(offset, pools)).map(|address| address.to_string()).collect()
    }
}

/// Returns the block of a customer, if there is one.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn of(conn: &mut SqliteConnection, customer: CustomerId) -> sqlx::Result<Option<AliasBlock>> {
    let sql = "select first_slot, slots from alias_blocks where customer = $1";
    sqlx::query_as(sql).bind(customer.as_i64()).fetch_optional(conn).await
}

/// Returns the block of a customer. Without one, the customer gets a block of so many slots, a power of
/// two.
///
/// # Errors
/// Fails when no such run of slots is free, or the database cannot be written.
pub async fn ensure(
    tx: &mut SqliteConnection,
    customer: CustomerId,
    slots: u32,
    pools: Pools,
    now: Wall,
) -> Result<AliasBlock, NoAddress> {
    if let Some(block) = of(tx, customer).await? {
        let inside = block.last_slot() <= pools.last_slot();
        return if inside { Ok(block) } else { Err(none_left(block.slots, pools)) };
    }
    addresses::end_quarantine(tx, now).await?;
    let block = free(tx, i64::from(slots), pools).await?;
    sqlx::query("insert into alias_blocks (customer, first_slot, slots, created_at) values ($1, $2, $3, $4)")
        .bind(customer.as_i64())
        .bind(block.first_slot)
        .bind(block.slots)
        .bind(now.as_millis())
        .execute(tx)
        .await?;
    Ok(block)
}

fn none_left(slots: i64, pools: Pools) -> NoAddress {
    NoAddress::NoBlock { pool: pools.narrower(), slots }
}

/// Returns the last block of this length that nothing occupies.
async fn free(tx: &mut SqliteConnection, slots: i64, pools: Pools) -> Result<AliasBlock, NoAddress> {
    let taken = taken(tx, slots).await?;
    // The run with the slot 0 has the addresses of the gateway.
    let last = (pools.last_slot() + 1) / slots - 1;
    let runs = (1..=last).rev().filter(|run| !taken.contains(run)).take(MAX_TRIES);
    for run in runs {
        let block = AliasBlock { first_slot: run * slots, slots };
        if !has_address(tx, block, pools).await? {
            return Ok(block);
        }
    }
    Err(none_left(slots, pools))
}

/// Returns the numbers of the runs of this length that an address, also one that rests, or a block
/// occupies.
async fn taken(tx: &mut SqliteConnection, slots: i64) -> sqlx::Result<BTreeSet<i64>> {
    let sql = "select distinct slot / $1 from addresses";
    let runs: Vec<i64> = sqlx::query_scalar(sql).bind(slots).fetch_all(&mut *tx).await?;
    let blocks: Vec<AliasBlock> =
        sqlx::query_as("select first_slot, slots from alias_blocks").fetch_all(tx).await?;
    let of_blocks = blocks.into_iter().flat_map(|b| b.first_slot / slots..=b.last_slot() / slots);
    Ok(runs.into_iter().chain(of_blocks).collect())
}

/// Whether an address of the block is allocated under another slot: in another pool, at another time.
async fn has_address(tx: &mut SqliteConnection, block: AliasBlock, pools: Pools) -> sqlx::Result<bool> {
    let sql = "select exists (select 1 from addresses where address in (select value from json_each($1)))";
    sqlx::query_scalar(sql).bind(Json(block.addresses(pools))).fetch_one(tx).await
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;

    use super::*;
    use crate::store::{Tx, fixture};

    fn pools(v4: &str) -> Pools {
        Pools { v4: v4.parse().unwrap(), v6: "fd00::/112".parse().unwrap() }
    }

    async fn give(tx: &mut Tx, customer: i64, slots: u32, v4: &str) -> Result<AliasBlock, NoAddress> {
        let sql = "insert into customers (id, created_at) values ($1, 0) on conflict (id) do nothing";
        sqlx::query(sql).bind(customer).execute(&mut **tx).await.unwrap();
        ensure(tx, Id::from_i64(customer), slots, pools(v4), Wall::from_millis(0)).await
    }

    fn texts(block: AliasBlock, v4: &str) -> [String; 2] {
        block.prefixes(pools(v4)).map(|prefix| prefix.to_string())
    }

    #[tokio::test]
    async fn a_customer_has_one_block_with_a_prefix_of_each_family() {
        let (store, _dir) = fixture::store().await;
        let mut tx = store.begin().await.unwrap();
        let net = "10.9.0.0/24";
        let first = give(&mut tx, 1, 16, net).await.unwrap();
        assert_eq!(
            texts(first, net),
            ["10.9.0.224/28", "fd00::e0/124"],
            "the last address is for broadcasts"
        );
        assert_eq!(first.at(3, pools(net)).map(|a| a.to_string()), ["10.9.0.227", "fd00::e3"]);
        assert_eq!(give(&mut tx, 1, 8, net).await.unwrap(), first, "a changed setting is for new customers");
        let smaller = give(&mut tx, 2, 8, net).await.unwrap();
        assert_eq!(texts(smaller, net), ["10.9.0.240/29", "fd00::f0/125"]);
        let next = give(&mut tx, 3, 16, net).await.unwrap();
        assert_eq!(texts(next, net), ["10.9.0.208/28", "fd00::d0/124"]);
        assert_eq!(of(&mut tx, Id::from_i64(3)).await.unwrap(), Some(next));
        assert_eq!(of(&mut tx, Id::from_i64(4)).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_pool_without_a_free_run_is_named_with_what_to_do() {
        let (store, _dir) = fixture::store().await;
        let mut tx = store.begin().await.unwrap();
        let small = "10.9.0.0/27";
        let taken =
            "insert into addresses (address, slot, host, allocated_at) values ('10.9.0.9', 9, null, 0)";
        sqlx::query(taken).execute(&mut *tx).await.unwrap();
        assert_eq!(texts(give(&mut tx, 1, 8, small).await.unwrap(), small)[0], "10.9.0.16/29");
        let full = give(&mut tx, 2, 8, small).await.unwrap_err().to_string();
        assert!(full.starts_with("the pool 10.9.0.0/27 has no 8 free addresses in a row"), "{full}");
        assert!(full.contains("alias_slots") && full.contains("erase customers"), "{full}");
        assert!(give(&mut tx, 2, 64, small).await.is_err(), "the pool is smaller than a block");
        assert!(of(&mut tx, Id::from_i64(2)).await.unwrap().is_none(), "nothing is left behind");
        let outside = give(&mut tx, 1, 8, "10.9.0.0/28").await;
        assert!(matches!(outside, Err(NoAddress::NoBlock { .. })), "the pool was made smaller");
    }

    #[tokio::test]
    async fn a_block_avoids_addresses_that_were_allocated_in_another_pool() {
        let (store, _dir) = fixture::store().await;
        let mut tx = store.begin().await.unwrap();
        // The slot of another pool is no slot of this one.
        let taken =
            "insert into addresses (address, slot, host, allocated_at) values ('10.9.0.20', 5, null, 0)";
        sqlx::query(taken).execute(&mut *tx).await.unwrap();
        let block = give(&mut tx, 1, 8, "10.9.0.0/27").await.unwrap();
        assert_eq!(texts(block, "10.9.0.0/27")[0], "10.9.0.8/29");
    }

    #[tokio::test]
    async fn the_block_of_an_erased_customer_rests_for_a_day() {
        let (store, _dir) = fixture::store().await;
        let mut tx = store.begin().await.unwrap();
        let small = "10.9.0.0/28";
        let first = give(&mut tx, 1, 4, small).await.unwrap();
        give(&mut tx, 2, 4, small).await.unwrap();
        sqlx::query("update customers set erased_at = 1000 where id = 1").execute(&mut *tx).await.unwrap();
        sqlx::query("insert into customers (id, created_at) values (3, 0)").execute(&mut *tx).await.unwrap();
        let day = i64::try_from(addresses::QUARANTINE.as_millis()).unwrap();
        let mut later = async |millis: i64| {
            ensure(&mut tx, Id::from_i64(3), 4, pools(small), Wall::from_millis(millis)).await
        };
        assert!(later(1_000 + day).await.is_err());
        assert_eq!(later(1_001 + day).await.unwrap(), first);
    }
}
