//! The reason for a suppressed notification in words: the acknowledgement and its comment, the
//! downtime and its author, the rental and its window, or the output of the host that is down.
//!
//! Read only. The text is empty if the reason explains itself.

use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::messages::SuppressReason;
use fleetgate_engine::time::Wall;
use sqlx::sqlite::SqliteConnection;

use crate::ids::{self, IdKind};

/// The author and comment of the acknowledgement. `$2` is empty for the host itself.
const ACKNOWLEDGEMENT: &str = "select author || iif(comment = '', '', ': ' || comment) from acknowledgements
     where host = $1 and service = $2 order by ended_at is not null, created_at desc limit 1";
/// The downtime of the service, or else of its host.
const DOWNTIME: &str = "select d.id, d.author || iif(d.comment = '', '', ': ' || d.comment) from downtimes d
     where d.id = coalesce(
         (select notification ->> '$.occasion[0]' from service_states where host = $1 and service = $2),
         (select notification ->> '$.occasion[0]' from host_states where host = $1))";
/// The rental that is prepared, or was last dispatched, and when it begins and ends.
const RENTAL: &str = "select id, from_at, until_at from rentals
     where device = $1 and announced_state not in ('held', 'booked', 'closed', 'cancelled', 'failed')
     order by announced_state <> 'preparing', from_at limit 1";
const DOWN: &str = "select output from host_states where host = $1 and hard = 'down'";

/// Returns the current explanation for a reason.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn of(
    conn: &mut SqliteConnection,
    host: HostId,
    service: Option<&str>,
    reason: SuppressReason,
) -> sqlx::Result<String> {
    let (host, service) = (host.as_i64(), service.unwrap_or_default());
    let words: Option<String> = match reason {
        SuppressReason::Acknowledged => {
            sqlx::query_scalar(ACKNOWLEDGEMENT).bind(host).bind(service).fetch_optional(conn).await?
        }
        SuppressReason::Downtime => {
            let row: Option<(i64, String)> =
                sqlx::query_as(DOWNTIME).bind(host).bind(service).fetch_optional(conn).await?;
            row.map(|(id, words)| format!("d_{} by {words}", Id::from_i64(id)))
        }
        SuppressReason::Rental => {
            let row: Option<(i64, i64, i64)> = sqlx::query_as(RENTAL).bind(host).fetch_optional(conn).await?;
            row.map(|(id, from, until)| {
                let [from, until] = [from, until].map(|at| ids::time(Wall::from_millis(at)));
                format!("{} from {from} until {until}", IdKind::Rental.text(Id::from_i64(id)))
            })
        }
        SuppressReason::HostDown => sqlx::query_scalar(DOWN).bind(host).fetch_optional(conn).await?,
        _ => None,
    };
    Ok(words.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixture;

    #[tokio::test]
    async fn a_suppression_names_its_rental_or_the_author_of_its_downtime_or_acknowledgement() {
        let (store, _dir) = fixture::store().await;
        let host = fixture::device(&store, 7, "cam-07").await;
        store.all_hosts(&fixture::TIMING).await.unwrap();
        for sql in [
            "insert into acknowledgements (id, host, service, sticky, author, comment, created_at)
             values (1, 7, 'ping', 0, 'user:ada', 'on it', 0), (3, 7, 'ssh', 0, 'user:ada', '', 0)",
            "insert into downtimes (id, host, start_at, end_at, author, comment, created_at)
             values (2, 7, 0, 9, 'user:bob', 'new disk', 0)",
            "insert into customers (id, created_at) values (1, 0)",
            "insert into bookings (id, customer, author, created_at) values (2, 1, '', 0)",
            "insert into rentals (id, booking, device, from_at, until_at, prepared_from, preparation_ms, turnaround_ms,
                                  created_at, announced_state, announced_at)
             values (10, 2, 7, 90000, 99000, 90000, 0, 0, 0, 'booked', 0),
                    (11, 2, 7, 60000, 80000, 0, 60000, 0, 0, 'preparing', 0)",
            "update host_states set notification = '{\"in_downtime\":true,\"occasion\":[2,0]}' where host = 7",
        ] {
            fixture::run(&store, sql, &[]).await;
        }
        let mut conn = store.reader().await.unwrap();
        let mut words = async |service, reason| of(&mut conn, host, service, reason).await.unwrap();
        assert_eq!(words(Some("ping"), SuppressReason::Acknowledged).await, "user:ada: on it");
        assert_eq!(words(Some("ssh"), SuppressReason::Acknowledged).await, "user:ada", "without a reason");
        assert_eq!(words(None, SuppressReason::Acknowledged).await, "");
        let downtime = format!("d_{} by user:bob: new disk", Id::from_i64(2));
        assert_eq!(words(Some("ping"), SuppressReason::Downtime).await, downtime, "its host's");
        let window = "from 1970-01-01T00:01:00Z until 1970-01-01T00:01:20Z";
        let rental = format!("{} {window}", IdKind::Rental.text(Id::from_i64(11)));
        assert_eq!(words(Some("ping"), SuppressReason::Rental).await, rental);
        assert_eq!(words(None, SuppressReason::Rental).await, rental);
    }
}
