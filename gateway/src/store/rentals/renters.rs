//! Renters: the peers of the people of customers, such as a laptop or a phone. They reach rented devices.
//!
//! A renter is no host: it is never checked and never counted as one. Its peer has the same id. People
//! choose its name, so the name is personal data. This module takes valid values.

use std::net::IpAddr;

use fleetgate_engine::id::{CustomerId, PeerId, PersonId};
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use super::alias_blocks::AliasBlock;
use crate::ids::Named;
use crate::store::access::{id, maybe_wall, wall};
use crate::store::addresses::Pools;
use crate::store::devices::{self, NewKey, NotMade, inner_addresses};
use crate::store::peers_of_people::{self, write_mtu};

/// A stored renter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renter {
    pub id: PeerId,
    pub person: PersonId,
    pub customer: CustomerId,
    pub name: String,
    pub public_key: String,
    /// The time when this key was set.
    pub keyed_at: Wall,
    pub addresses: Vec<IpAddr>,
    /// That of the customer.
    pub block: Option<AliasBlock>,
    pub last_handshake: Option<Wall>,
    /// The inner MTU of its peer; `None`: the usual one.
    pub mtu: Option<u16>,
    /// The SSH public keys with which the person logs in, as OpenSSH writes them and without comments.
    pub ssh_keys: Vec<String>,
    /// Counts the changes of people and programs.
    pub version: i64,
    pub created_at: Wall,
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "select r.*, y.customer, k.public_key, k.added_at as keyed_at, m.last_handshake, p.mtu,
                    b.first_slot, b.slots,
                    (select string_agg(a.address, ' ') from addresses a
                     where a.peer = r.id and a.released_at is null) as inner_addresses
             from renters r
             join people y on y.id = r.person
             join peers p on p.id = r.id
             join peer_keys k on k.peer = r.id and k.retired_at is null and k.position = 0
             left join peer_memory m on m.peer = r.id
             left join alias_blocks b on b.customer = y.customer
             where r.removed_at is null and ",
            $rest
        )
    };
}

impl FromRow<'_, SqliteRow> for Renter {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let first_slot: Option<i64> = row.try_get("first_slot")?;
        let ssh_keys: Json<Vec<String>> = row.try_get("ssh_keys")?;
        Ok(Renter {
            id: id(row, "id")?,
            person: id(row, "person")?,
            customer: id(row, "customer")?,
            name: row.try_get("name")?,
            public_key: row.try_get("public_key")?,
            keyed_at: wall(row, "keyed_at")?,
            addresses: inner_addresses(row)?,
            block: first_slot.map(|_| AliasBlock::from_row(row)).transpose()?,
            last_handshake: maybe_wall(row, "last_handshake")?,
            mtu: row.try_get("mtu")?,
            ssh_keys: ssh_keys.0,
            version: row.try_get("version")?,
            created_at: wall(row, "created_at")?,
        })
    }
}

const LIST: &str = select!(
    "r.id < $1 and ($2 is null or y.customer = $2) and ($3 is null or r.person = $3)
     order by r.id desc limit $4"
);

/// Returns the newest renters first, below an id. Only those of this customer and of this person.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn list(
    conn: &mut SqliteConnection,
    (customer, person): (Option<CustomerId>, Option<PersonId>),
    before: i64,
    limit: i64,
) -> sqlx::Result<Vec<Renter>> {
    sqlx::query_as(LIST)
        .bind(before)
        .bind(customer.map(CustomerId::as_i64))
        .bind(person.map(PersonId::as_i64))
        .bind(limit)
        .fetch_all(conn)
        .await
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn by_id(conn: &mut SqliteConnection, renter: PeerId) -> sqlx::Result<Option<Renter>> {
    sqlx::query_as(select!("r.id = $1")).bind(renter.as_i64()).fetch_optional(conn).await
}

/// Returns the renters with this id or name. A name is unique within a customer only.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn named(conn: &mut SqliteConnection, named: &Named) -> sqlx::Result<Vec<Renter>> {
    match named {
        Named::Id(id) => Ok(by_id(conn, *id).await?.into_iter().collect()),
        Named::Name(name) => {
            sqlx::query_as(select!("r.name = $1 order by r.id")).bind(name).fetch_all(conn).await
        }
    }
}

/// Returns the renters of a customer in name order.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn of_customer(conn: &mut SqliteConnection, customer: CustomerId) -> sqlx::Result<Vec<Renter>> {
    let sql = select!("y.customer = $1 order by r.name");
    sqlx::query_as(sql).bind(customer.as_i64()).fetch_all(conn).await
}

/// Returns the renters of a person in name order.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn of_person(conn: &mut SqliteConnection, person: PersonId) -> sqlx::Result<Vec<Renter>> {
    sqlx::query_as(select!("r.person = $1 order by r.name")).bind(person.as_i64()).fetch_all(conn).await
}

/// The settings of a renter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub name: String,
    /// The inner MTU of its peer; `None`: the usual one.
    pub mtu: Option<u16>,
    /// The SSH public keys with which the person logs in.
    pub ssh_keys: Vec<String>,
}

/// Inserts a renter with its key and addresses.
///
/// # Errors
/// Fails when another renter of the customer has the name, the key is or was in use, or no address is
/// free.
pub async fn insert(
    tx: &mut SqliteConnection,
    renter: PeerId,
    (person, settings): (PersonId, &Settings),
    key: NewKey,
    pools: Pools,
    now: Wall,
) -> Result<(), NotMade> {
    name_is_free(tx, renter, person, &settings.name).await?;
    set_key(tx, renter, key, pools, now).await?;
    sqlx::query("insert into renters (id, person, name, created_at, ssh_keys) values ($1, $2, $3, $4, $5)")
        .bind(renter.as_i64())
        .bind(person.as_i64())
        .bind(&settings.name)
        .bind(now.as_millis())
        .bind(Json(&settings.ssh_keys))
        .execute(&mut *tx)
        .await?;
    Ok(write_mtu(tx, renter, settings.mtu).await?)
}

/// The transaction that writes also decides: writes come one after the other.
async fn name_is_free(
    tx: &mut SqliteConnection,
    renter: PeerId,
    person: PersonId,
    name: &str,
) -> Result<(), NotMade> {
    let sql = "select exists (
                   select 1 from renters r join people y on y.id = r.person
                   where r.removed_at is null and r.id <> $1 and r.name = $3
                     and y.customer = (select customer from people where id = $2))";
    let query = sqlx::query_scalar(sql).bind(renter.as_i64()).bind(person.as_i64()).bind(name);
    let is_taken: bool = query.fetch_one(tx).await?;
    if is_taken { Err(NotMade::NameTaken(name.to_owned())) } else { Ok(()) }
}

/// Sets the only key of a renter. Earlier keys are retired.
///
/// # Errors
/// Fails when the key is or was in use.
pub async fn set_key(
    tx: &mut SqliteConnection,
    renter: PeerId,
    key: NewKey,
    pools: Pools,
    now: Wall,
) -> Result<(), NotMade> {
    devices::set_key(tx, (renter, peers_of_people::RENTER), key, pools, now).await
}

/// Changes the settings and raises the version.
///
/// # Errors
/// Fails when another renter of the customer has the name, or the database cannot be written.
pub async fn update(
    tx: &mut SqliteConnection,
    (renter, person): (PeerId, PersonId),
    settings: &Settings,
) -> Result<(), NotMade> {
    name_is_free(tx, renter, person, &settings.name).await?;
    let sql = "update renters set name = $2, ssh_keys = $3, version = version + 1 where id = $1";
    let query = sqlx::query(sql).bind(renter.as_i64()).bind(&settings.name);
    query.bind(Json(&settings.ssh_keys)).execute(&mut *tx).await?;
    Ok(write_mtu(tx, renter, settings.mtu).await?)
}

/// Removes a renter with its name and its SSH keys. Its WireGuard keys are retired, and its addresses rest. Nothing that the tunnel
/// learnt of it stays.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn remove(tx: &mut SqliteConnection, renter: PeerId, now: Wall) -> sqlx::Result<()> {
    peers_of_people::remove(tx, renter, now).await?;
    // Devices that are not reached have its keys yet, and their rows too. Without what was granted, it is granted anew.
    let sql = "update device_ssh_access set granted = null
               where exists (select 1 from json_each(device_ssh_access.granted, '$.keys') has,
                                           json_each((select w.ssh_keys from renters w where w.id = $1)) k
                             where k.value = has.value)";
    sqlx::query(sql).bind(renter.as_i64()).execute(&mut *tx).await?;
    let sql = "update renters set name = '', ssh_keys = '[]', removed_at = $2, version = version + 1
               where id = $1";
    sqlx::query(sql).bind(renter.as_i64()).bind(now.as_millis()).execute(tx).await.map(drop)
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;
    use fleetgate_engine::messages::{DEFAULT_MTU, PeerKind, PolicyChange, SourceOwner};
    use fleetgate_keys::PrivateKey;

    use super::*;
    use crate::store::policy::{self, PolicyRows};
    use crate::store::rentals::{customers, people};
    use crate::store::snapshot::psk_place;
    use crate::store::{Store, fixture};

    const NOW: Wall = Wall::from_millis(1_000);

    fn id(n: i64) -> Id {
        Id::from_i64(n)
    }

    fn pools() -> Pools {
        Pools { v4: "10.112.0.0/14".parse().unwrap(), v6: "fd72::/64".parse().unwrap() }
    }

    fn settings(name: &str) -> Settings {
        let ssh_keys = vec!["ssh-ed25519 AAAA".to_owned()];
        Settings { name: name.to_owned(), mtu: Some(1_400), ssh_keys }
    }

    /// Two customers, 1 and 2, with a person each, 11 and 12.
    async fn store() -> (Store, tempfile::TempDir) {
        let (store, dir) = fixture::store().await;
        let mut tx = store.begin().await.unwrap();
        for n in [1, 2] {
            customers::insert(&mut tx, &customers::Customer::new(id(n), NOW)).await.unwrap();
            let ada = people::Person { name: "Ada".into(), ..people::Person::new(id(10 + n), id(n), NOW) };
            people::insert(&mut tx, &ada).await.unwrap();
        }
        tx.commit().await.unwrap();
        (store, dir)
    }

    async fn add(store: &Store, n: u8, person: i64, name: &str) -> Result<(), NotMade> {
        let public = PrivateKey::from_bytes([n; 32]).public();
        let sealed_psk = store.seal(&psk_place(&public), &[7; 32]);
        let mut tx = store.begin().await.unwrap();
        let key = NewKey { public, sealed_psk };
        insert(&mut tx, id(n.into()), (id(person), &settings(name)), key, pools(), NOW).await?;
        tx.commit().await.unwrap();
        Ok(())
    }

    async fn sources(store: &Store, changed: &[i64]) -> Vec<PolicyChange> {
        let rows = PolicyRows { sources: changed.iter().map(|n| id(*n)).collect(), ..PolicyRows::default() };
        policy::changes(&mut store.reader().await.unwrap(), &rows).await.unwrap().changes
    }

    #[tokio::test]
    async fn a_renter_is_a_peer_and_a_source_of_its_customer_and_no_host() {
        let (store, _dir) = store().await;
        add(&store, 21, 11, "laptop").await.unwrap();
        let (spec, _) = store.peer_spec(id(21), DEFAULT_MTU).await.unwrap().expect("a peer");
        assert_eq!((spec.kind, spec.mtu, spec.addresses.len()), (PeerKind::Renter, 1_400, 2));
        let changes = sources(&store, &[21]).await;
        let [PolicyChange::Source(source)] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!(source.owner, SourceOwner::Person { person: id(11), customer: id(1) });
        assert!(spec.addresses.iter().all(|address| source.addresses.contains(address)));
        let all = policy::all(&mut store.reader().await.unwrap(), NOW).await.unwrap().changes;
        assert!(all.iter().any(|c| matches!(c, PolicyChange::Source(source) if source.peer == id(21))));
        assert!(store.all_hosts(&fixture::TIMING).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_removed_renter_leaves_its_key_alone() {
        let (store, _dir) = store().await;
        add(&store, 21, 11, "laptop").await.unwrap();
        let sql = "insert into peer_memory (peer, endpoint) values (21, '192.0.2.1:1')";
        fixture::run(&store, sql, &[]).await;
        let mut tx = store.begin().await.unwrap();
        remove(&mut tx, id(21), NOW).await.unwrap();
        assert!(by_id(&mut tx, id(21)).await.unwrap().is_none());
        tx.commit().await.unwrap();
        assert!(store.peer_spec(id(21), DEFAULT_MTU).await.unwrap().is_none());
        assert!(matches!(sources(&store, &[21]).await[..], [PolicyChange::RemoveSource(_)]));
        let left = "select (select name || ssh_keys from renters) || (select count(*) from peer_memory)";
        assert_eq!(fixture::texts(&store, left).await, ["[]0"]);
        assert_eq!(store.retired_keys(9).await.unwrap().len(), 1, "a key belongs to one peer for ever");
        assert!(matches!(add(&store, 21, 11, "laptop").await, Err(NotMade::Key(_))));
    }

    #[tokio::test]
    async fn the_renters_of_a_removed_person_do_not_connect() {
        let (store, _dir) = store().await;
        add(&store, 21, 11, "laptop").await.unwrap();
        let mut tx = store.begin().await.unwrap();
        people::remove(&mut tx, id(11), NOW).await.unwrap();
        tx.commit().await.unwrap();
        assert!(store.all_peers(DEFAULT_MTU).await.unwrap().is_empty());
        assert!(matches!(sources(&store, &[21]).await[..], [PolicyChange::RemoveSource(_)]));
        let left = "select name || coalesce(email, '') from people where id = 11";
        assert_eq!(fixture::texts(&store, left).await, [""]);
    }

    #[tokio::test]
    async fn a_name_is_unique_within_a_customer() {
        let (store, _dir) = store().await;
        add(&store, 21, 11, "laptop").await.unwrap();
        add(&store, 22, 12, "laptop").await.unwrap();
        assert!(matches!(add(&store, 23, 11, "laptop").await, Err(NotMade::NameTaken(_))));
        add(&store, 23, 11, "phone").await.unwrap();
        let mut tx = store.begin().await.unwrap();
        let taken = update(&mut tx, (id(23), id(11)), &settings("laptop")).await;
        assert!(matches!(taken, Err(NotMade::NameTaken(_))));
        update(&mut tx, (id(23), id(11)), &settings("phone")).await.unwrap();
        let names: Vec<String> =
            of_customer(&mut tx, id(1)).await.unwrap().into_iter().map(|renter| renter.name).collect();
        assert_eq!(names, ["laptop", "phone"]);
    }
}
