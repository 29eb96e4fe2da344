//! The manager of a resource: an operator by hand, or a program that keeps it equal to a file.
//!
//! A change by hand to a managed resource is recorded with its author, so that the program can see
//! and keep it.

use fleetgate_engine::id::HostId;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow, Row as _};

/// The manager of resources that operators create and change by hand.
pub const BY_HAND: &str = "api";

/// The writer of a change: the manager named in the request, and the principal behind it.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    pub manager: &'a str,
    pub principal: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Managed {
    pub by: String,
    /// The principal that changed it by hand since its manager last wrote it.
    pub edited_by: Option<String>,
}

impl Managed {
    /// The manager of a new resource.
    pub fn new(writer: Writer<'_>) -> Self {
        Managed { by: writer.manager.to_owned(), edited_by: None }
    }

    /// The manager after a change. A program takes over the resources that it writes. A change by
    /// hand marks a managed resource.
    pub fn written(self, writer: Writer<'_>) -> Self {
        match writer.manager {
            BY_HAND if self.by == BY_HAND => self,
            BY_HAND => Managed { edited_by: Some(writer.principal.to_owned()), ..self },
            _ => Managed::new(writer),
        }
    }
}

/// Reads the columns `managed_by` and `edited_by`.
impl FromRow<'_, SqliteRow> for Managed {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Managed { by: row.try_get("managed_by")?, edited_by: row.try_get("edited_by")? })
    }
}

/// # Errors
/// Fails when there is no such host, or the database cannot be read.
pub async fn of_host(conn: &mut SqliteConnection, host: HostId) -> sqlx::Result<Managed> {
    let sql = "select managed_by, edited_by from hosts where id = $1";
    sqlx::query_as(sql).bind(host.as_i64()).fetch_one(conn).await
}

/// Records the writer of a host.
///
/// # Errors
/// Fails when there is no such host, or the database cannot be written.
pub async fn host_written(
    tx: &mut SqliteConnection,
    host: HostId,
    writer: Writer<'_>,
) -> sqlx::Result<Managed> {
    let managed = of_host(&mut *tx, host).await?.written(writer);
    sqlx::query("update hosts set managed_by = $2, edited_by = $3 where id = $1")
        .bind(host.as_i64())
        .bind(&managed.by)
        .bind(managed.edited_by.as_deref())
        .execute(tx)
        .await?;
    Ok(managed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_by_hand_marks_a_managed_resource() {
        let hand = Writer { manager: BY_HAND, principal: "user:ann" };
        let apply = Writer { manager: "apply", principal: "token:t_1" };
        let own = Managed::new(hand).written(hand);
        assert_eq!(own, Managed { by: BY_HAND.into(), edited_by: None });
        let edited = own.written(apply).written(hand);
        assert_eq!(edited, Managed { by: "apply".into(), edited_by: Some("user:ann".into()) });
        assert_eq!(edited.written(apply), Managed::new(apply));
    }
}
