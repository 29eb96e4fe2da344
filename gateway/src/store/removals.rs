//! Managed resources that were removed or renamed by hand or by another program.
//!
//! A short note is kept as long as the program's file may still name the resource: until the
//! program has created it again, or the note is deleted. The hosts of a removed device get a note
//! each. The services of a removed host get none. This module does not know the file.

use fleetgate_engine::id::Id;
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow, Row as _};

use super::lists::{Entry, ListRow};
use super::managed::{BY_HAND, Managed, Writer};

/// More than the devices of the largest fleet (10,000) with a host behind every second one. Beyond
/// this number the oldest notes are deleted, and the program creates those resources again.
const MOST: i64 = 16_384;

/// The kinds of resources that get a note. Cancelled downtimes need none, because their rows stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removable {
    Profile,
    Contact,
    NotificationRule,
    Device,
    /// Behind a device.
    Host,
    /// A service that differs from the profile.
    Service,
    /// It was withdrawn.
    Grant,
}

impl Removable {
    pub const ALL: [Removable; 7] = [
        Removable::Profile,
        Removable::Contact,
        Removable::NotificationRule,
        Removable::Device,
        Removable::Host,
        Removable::Service,
        Removable::Grant,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Removable::Profile => "profile",
            Removable::Contact => "contact",
            Removable::NotificationRule => "notification_rule",
            Removable::Device => "device",
            Removable::Host => "host",
            Removable::Service => "service",
            Removable::Grant => "grant",
        }
    }

    pub fn of_name(name: &str) -> Option<Removable> {
        Removable::ALL.into_iter().find(|kind| kind.name() == name)
    }

    const fn has_services(self) -> bool {
        matches!(self, Removable::Device | Removable::Host)
    }
}

/// A kind and a name of that kind.
pub type RemovedKind<'a> = (Removable, &'a str);

/// The author and the time of a change, and the id for its note.
#[derive(Clone, Copy, Debug)]
pub struct RemovalAction<'a> {
    pub id: Id,
    pub by: Writer<'a>,
    pub at: Wall,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    pub id: Id,
    pub manager: String,
    pub kind: Removable,
    pub name: String,
    pub renamed_to: Option<String>,
    pub by: String,
    pub at: Wall,
}

impl FromRow<'_, SqliteRow> for Removal {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let kind: String = row.try_get("kind")?;
        let unknown = || sqlx::Error::Decode(format!("removals: kind {kind:?} is none").into());
        Ok(Removal {
            id: Id::from_i64(row.try_get("id")?),
            manager: row.try_get("manager")?,
            kind: Removable::of_name(&kind).ok_or_else(unknown)?,
            name: row.try_get("name")?,
            renamed_to: row.try_get("renamed_to")?,
            by: row.try_get("removed_by")?,
            at: Wall::from_millis(row.try_get("removed_at")?),
        })
    }
}

impl ListRow for Removal {
    const TABLE: &'static str = "removals";
}

/// Records that a resource was removed.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn removed(
    tx: &mut SqliteConnection,
    thing: RemovedKind<'_>,
    before: &Managed,
    deed: RemovalAction<'_>,
) -> sqlx::Result<()> {
    let (kind, name) = thing;
    if kind.has_services() {
        let sql =
            "delete from removals where kind = 'service' and substr(name, 1, length($1) + 1) = $1 || '/'";
        sqlx::query(sql).bind(name).execute(&mut *tx).await?;
    }
    if before.by == BY_HAND {
        return Ok(());
    }
    if before.by == deed.by.manager {
        return made(tx, thing, deed.by).await;
    }
    if !follow(&mut *tx, thing, None, before, deed).await? {
        note(tx, thing, None, before, deed).await?;
    }
    Ok(())
}

/// Records that a resource was renamed.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn renamed(
    tx: &mut SqliteConnection,
    thing: RemovedKind<'_>,
    to: &str,
    before: &Managed,
    deed: RemovalAction<'_>,
) -> sqlx::Result<()> {
    let (kind, from) = thing;
    if kind.has_services() {
        let sql = "update removals set name = $2 || substr(name, length($1) + 1)
                   where kind = 'service' and substr(name, 1, length($1) + 1) = $1 || '/'";
        sqlx::query(sql).bind(from).bind(to).execute(&mut *tx).await?;
    }
    if before.by == BY_HAND {
        return Ok(());
    }
    if before.by != deed.by.manager && !follow(&mut *tx, thing, Some(to), before, deed).await? {
        note(&mut *tx, thing, Some(to), before, deed).await?;
    }
    // A resource with this name exists now.
    let sql = "delete from removals where manager = $1 and kind = $2 and name = $3";
    sqlx::query(sql).bind(&before.by).bind(kind.name()).bind(to).execute(tx).await.map(drop)
}

/// Deletes the note for a resource that its program has written.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn made(
    tx: &mut SqliteConnection,
    (kind, name): RemovedKind<'_>,
    writer: Writer<'_>,
) -> sqlx::Result<()> {
    let sql = "delete from removals where manager = $1 and kind = $2 and name = $3";
    sqlx::query(sql).bind(writer.manager).bind(kind.name()).bind(name).execute(tx).await.map(drop)
}

/// Updates the note of a resource that was renamed before. The note keeps the first name, which the
/// program's file uses.
async fn follow(
    tx: &mut SqliteConnection,
    (kind, name): RemovedKind<'_>,
    to: Option<&str>,
    before: &Managed,
    deed: RemovalAction<'_>,
) -> sqlx::Result<bool> {
    let sql = "update removals set renamed_to = $4, removed_by = $5, removed_at = $6
               where manager = $1 and kind = $2 and renamed_to = $3";
    let done = sqlx::query(sql).bind(&before.by).bind(kind.name()).bind(name).bind(to);
    let done = done.bind(deed.by.principal).bind(deed.at.as_millis()).execute(tx).await?;
    Ok(done.rows_affected() > 0)
}

async fn note(
    tx: &mut SqliteConnection,
    (kind, name): RemovedKind<'_>,
    to: Option<&str>,
    before: &Managed,
    deed: RemovalAction<'_>,
) -> sqlx::Result<()> {
    let sql = "insert into removals (id, manager, kind, name, renamed_to, removed_by, removed_at)
               values ($1, $2, $3, $4, $5, $6, $7)
               on conflict (manager, kind, name) do update set renamed_to = excluded.renamed_to,
                   removed_by = excluded.removed_by, removed_at = excluded.removed_at";
    let new = sqlx::query(sql).bind(deed.id.as_i64()).bind(&before.by).bind(kind.name()).bind(name).bind(to);
    new.bind(deed.by.principal).bind(deed.at.as_millis()).execute(&mut *tx).await?;
    let sql = "delete from removals where id <=
                   (select id from removals order by id desc limit 1 offset $1)";
    sqlx::query(sql).bind(MOST).execute(tx).await.map(drop)
}

/// Returns the newest notes first, from below the id `before`. They belong to one manager or to
/// all. `grants`: also those of grants.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn list(
    conn: &mut SqliteConnection,
    (manager, grants): (Option<&str>, bool),
    before: i64,
    limit: i64,
) -> sqlx::Result<Vec<Entry<Removal>>> {
    let sql =
        "select * from removals where id < $1 and ($2 is null or manager = $2) and ($4 or kind != 'grant')
               order by id desc limit $3";
    sqlx::query_as(sql).bind(before).bind(manager).bind(limit).bind(grants).fetch_all(conn).await
}

/// Deletes a note, so that the program may create the resource again. Returns `false` if there is
/// no such note.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn forget(tx: &mut SqliteConnection, id: Id) -> sqlx::Result<bool> {
    let done = sqlx::query("delete from removals where id = $1").bind(id.as_i64()).execute(tx).await?;
    Ok(done.rows_affected() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::lists::readable;
    use crate::store::{Tx, fixture};

    const ANN: Writer<'static> = Writer { manager: BY_HAND, principal: "user:ann" };
    const APPLY: Writer<'static> = Writer { manager: "apply", principal: "token:t_1" };

    fn deed(id: i64, by: Writer<'static>) -> RemovalAction<'static> {
        RemovalAction { id: Id::from_i64(id), by, at: Wall::from_millis(id) }
    }

    async fn noted(tx: &mut Tx) -> Vec<(String, Option<String>, String)> {
        let all = list(tx, (Some("apply"), true), i64::MAX, 100).await.unwrap();
        readable(all).into_iter().map(|r| (r.name, r.renamed_to, r.by)).collect()
    }

    #[tokio::test]
    async fn a_removal_by_hand_is_recorded_until_the_manager_creates_it_again() {
        let (store, _dir) = fixture::store().await;
        let mut tx = store.begin().await.unwrap();
        let (own, theirs) = (Managed::new(ANN), Managed::new(APPLY));
        removed(&mut tx, (Removable::Contact, "own"), &own, deed(1, ANN)).await.unwrap();
        removed(&mut tx, (Removable::Contact, "left-the-file"), &theirs, deed(2, APPLY)).await.unwrap();
        removed(&mut tx, (Removable::Contact, "ops"), &theirs, deed(3, ANN)).await.unwrap();
        assert_eq!(noted(&mut tx).await, [("ops".to_owned(), None, "user:ann".to_owned())]);
        made(&mut tx, (Removable::Contact, "ops"), ANN).await.unwrap();
        assert_eq!(noted(&mut tx).await.len(), 1, "a hand's own is the hand's");
        made(&mut tx, (Removable::Contact, "ops"), APPLY).await.unwrap();
        assert_eq!(noted(&mut tx).await, []);
    }

    #[tokio::test]
    async fn a_removal_is_recorded_under_the_name_in_the_file() {
        let (store, _dir) = fixture::store().await;
        let mut tx = store.begin().await.unwrap();
        let theirs = Managed::new(APPLY);
        removed(&mut tx, (Removable::Service, "a/disk"), &theirs, deed(1, ANN)).await.unwrap();
        for (n, from, to) in [(2, "a", "b"), (3, "b", "c")] {
            renamed(&mut tx, (Removable::Device, from), to, &theirs, deed(n, ANN)).await.unwrap();
        }
        let ann = || "user:ann".to_owned();
        let expected = [("a".to_owned(), Some("c".to_owned()), ann()), ("c/disk".to_owned(), None, ann())];
        assert_eq!(noted(&mut tx).await, expected);
        removed(&mut tx, (Removable::Device, "c"), &theirs, deed(4, ANN)).await.unwrap();
        assert_eq!(noted(&mut tx).await, [("a".to_owned(), None, ann())], "and its services with it");
    }

    #[tokio::test]
    async fn a_name_that_is_restored_leaves_no_record() {
        let (store, _dir) = fixture::store().await;
        for back in [ANN, APPLY] {
            let mut tx = store.begin().await.unwrap();
            let theirs = Managed::new(APPLY);
            renamed(&mut tx, (Removable::Device, "a"), "b", &theirs, deed(1, ANN)).await.unwrap();
            renamed(&mut tx, (Removable::Device, "b"), "a", &theirs, deed(2, back)).await.unwrap();
            assert_eq!(noted(&mut tx).await, []);
        }
    }

    #[tokio::test]
    async fn the_oldest_records_beyond_the_limit_are_removed() {
        let (store, _dir) = fixture::store().await;
        let mut tx = store.begin().await.unwrap();
        let theirs = Managed::new(APPLY);
        let fill = "with recursive n(i) as (select 1 union all select i + 1 from n where i < $1)
                    insert into removals (id, manager, kind, name, removed_by, removed_at)
                    select i, 'other', 'host', 'h' || i, 'x', 0 from n";
        sqlx::query(fill).bind(MOST).execute(&mut *tx).await.unwrap();
        removed(&mut tx, (Removable::Host, "last"), &theirs, deed(MOST + 1, ANN)).await.unwrap();
        let left: (i64, i64) =
            sqlx::query_as("select count(*), min(id) from removals").fetch_one(&mut *tx).await.unwrap();
        assert_eq!(left, (MOST, 2));
    }
}
