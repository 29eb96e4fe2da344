//! Acknowledgements of problems. Each checkable has at most one open acknowledgement. Ended ones
//! are kept.

use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::messages;
use fleetgate_engine::messages::IncidentId;
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow, Row as _};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    pub id: Id,
    pub host: HostId,
    /// `None` for the host itself.
    pub service: Option<String>,
    pub sticky: bool,
    pub expires_at: Option<Wall>,
    /// The principal.
    pub author: String,
    pub comment: String,
    pub created_at: Wall,
    /// The incident that was acknowledged, if the checkable was not acknowledged by itself.
    pub incident: Option<IncidentId>,
}

impl From<&Acknowledgement> for messages::Acknowledgement {
    fn from(a: &Acknowledgement) -> Self {
        let words = format!("{}: {}", a.author, a.comment);
        messages::Acknowledgement {
            id: a.id,
            sticky: a.sticky,
            expires: a.expires_at,
            words,
            incident: a.incident,
        }
    }
}

impl FromRow<'_, SqliteRow> for Acknowledgement {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let service: String = row.try_get("service")?;
        Ok(Acknowledgement {
            id: Id::from_i64(row.try_get("id")?),
            host: Id::from_i64(row.try_get("host")?),
            service: Some(service).filter(|s| !s.is_empty()),
            sticky: row.try_get("sticky")?,
            expires_at: row.try_get::<Option<i64>, _>("expires_at")?.map(Wall::from_millis),
            author: row.try_get("author")?,
            comment: row.try_get("comment")?,
            created_at: Wall::from_millis(row.try_get("created_at")?),
            incident: row.try_get::<Option<i64>, _>("incident")?.map(|id| IncidentId(Id::from_i64(id))),
        })
    }
}

/// Stores an acknowledgement and ends the open one of the same checkable.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn put(tx: &mut SqliteConnection, ack: &Acknowledgement) -> sqlx::Result<()> {
    withdraw(tx, ack.host, ack.service.as_deref(), ack.created_at).await?;
    sqlx::query(
        "insert into acknowledgements (id, host, service, sticky, expires_at, author, comment, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(ack.id.as_i64())
    .bind(ack.host.as_i64())
    .bind(ack.service.as_deref().unwrap_or_default())
    .bind(ack.sticky)
    .bind(ack.expires_at.map(Wall::as_millis))
    .bind(&ack.author)
    .bind(&ack.comment)
    .bind(ack.created_at.as_millis())
    .execute(tx)
    .await
    .map(drop)
}

/// Ends the open acknowledgement of a checkable and returns its id.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn withdraw(
    tx: &mut SqliteConnection,
    host: HostId,
    service: Option<&str>,
    at: Wall,
) -> sqlx::Result<Option<Id>> {
    let ended: Option<i64> = sqlx::query_scalar(
        "update acknowledgements set ended_at = $3 where host = $1 and service = $2 and ended_at is null
         returning id",
    )
    .bind(host.as_i64())
    .bind(service.unwrap_or_default())
    .bind(at.as_millis())
    .fetch_optional(tx)
    .await?;
    Ok(ended.map(Id::from_i64))
}

/// Ends the acknowledgements of a removed host and its services.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn end_of_host(tx: &mut SqliteConnection, host: HostId, at: Wall) -> sqlx::Result<()> {
    let sql = "update acknowledgements set ended_at = $2 where host = $1 and ended_at is null";
    sqlx::query(sql).bind(host.as_i64()).bind(at.as_millis()).execute(tx).await.map(drop)
}

/// Marks an acknowledgement as ended by itself.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn ended(conn: &mut SqliteConnection, id: Id, at: Wall) -> sqlx::Result<()> {
    sqlx::query("update acknowledgements set ended_at = $2 where id = $1 and ended_at is null")
        .bind(id.as_i64())
        .bind(at.as_millis())
        .execute(conn)
        .await
        .map(drop)
}

/// Returns all open acknowledgements.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn open(conn: &mut SqliteConnection) -> sqlx::Result<Vec<Acknowledgement>> {
    sqlx::query_as("select * from acknowledgements where ended_at is null order by id").fetch_all(conn).await
}

/// Returns the open acknowledgements of one host and its services.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn of_host(conn: &mut SqliteConnection, host: HostId) -> sqlx::Result<Vec<Acknowledgement>> {
    sqlx::query_as("select * from acknowledgements where host = $1 and ended_at is null order by service")
        .bind(host.as_i64())
        .fetch_all(conn)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixture;

    #[tokio::test]
    async fn a_second_acknowledgement_replaces_the_first() {
        let (store, _dir) = fixture::store().await;
        let host = fixture::device(&store, 7, "cam-07").await;
        let ack = |id, service: Option<&str>| Acknowledgement {
            id: Id::from_i64(id),
            host,
            service: service.map(str::to_owned),
            sticky: id == 2,
            expires_at: Some(Wall::from_millis(99)),
            author: "user:jo".into(),
            comment: "on it".into(),
            created_at: Wall::from_millis(id),
            incident: None,
        };
        let mut tx = store.begin().await.unwrap();
        for made in [ack(1, None), ack(2, None), ack(3, Some("disk"))] {
            put(&mut tx, &made).await.unwrap();
        }
        assert_eq!(of_host(&mut tx, host).await.unwrap(), [ack(2, None), ack(3, Some("disk"))]);
        ended(&mut tx, Id::from_i64(2), Wall::from_millis(9)).await.unwrap();
        let at = Wall::from_millis(10);
        assert_eq!(withdraw(&mut tx, host, Some("disk"), at).await.unwrap(), Some(Id::from_i64(3)));
        assert_eq!(withdraw(&mut tx, host, None, at).await.unwrap(), None);
        assert_eq!(open(&mut tx).await.unwrap(), []);
    }

    #[tokio::test]
    async fn the_acknowledgement_of_a_removed_service_or_host_ends() {
        let (store, _dir) = fixture::store().await;
        let host = fixture::device(&store, 7, "cam-07").await;
        store.all_hosts(&fixture::TIMING).await.unwrap();
        let mut tx = store.begin().await.unwrap();
        for (id, service) in [(1, None), (2, Some("ping")), (3, Some("tunnel"))] {
            let (author, comment) = ("user:jo".into(), "on it".into());
            let (service, created_at) = (service.map(str::to_owned), Wall::from_millis(1));
            let (id, sticky, expires_at, incident) = (Id::from_i64(id), true, None, None);
            let ack = Acknowledgement {
                id,
                host,
                service,
                sticky,
                expires_at,
                author,
                comment,
                created_at,
                incident,
            };
            put(&mut tx, &ack).await.unwrap();
        }
        tx.commit().await.unwrap();
        let of = async || {
            let open = open(&mut store.reader().await.unwrap()).await.unwrap();
            open.into_iter().map(|ack| ack.service.unwrap_or_default()).collect::<Vec<_>>()
        };
        let mut spec = store.host_spec(host, &fixture::TIMING).await.unwrap().unwrap();
        spec.services.retain(|service| service.name != "ping");
        store.settle(&spec).await.unwrap();
        assert_eq!(of().await, ["", "tunnel"]);
        store.forget_states(host).await.unwrap();
        assert_eq!(of().await, [""; 0]);
    }
}
