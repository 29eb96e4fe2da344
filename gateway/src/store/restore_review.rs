//! What a restore has brought back: who may log in or call the API, who reaches hosts, who rents, who receives events
//! and who may enrol. A backup has users, tokens and grants that were ended after it, so an admin looks at all of them.
//!
//! Each kind is one statement with the same columns. This module knows nothing of the confirmation.

use fleetgate_engine::id::Id;
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow, Row as _};

use super::access::{id, wall};
use crate::ids::IdKind;
use crate::outbound::secret_url::SecretUrl;

/// Objects of a kind that a review lists, those that changed last first. The lists of the API have all.
pub const LISTED: i64 = 500;

/// A kind of what comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReviewKind {
    /// Users that are enabled.
    User,
    /// Operators whose users may use grants.
    Operator,
    /// Peers of the people of customers.
    Renter,
    /// Tokens that are accepted.
    Token,
    /// Grants that have neither ended nor been withdrawn.
    Grant,
    /// Rentals that have not ended.
    Rental,
    /// The subscriptions, which receive the events of rentals.
    Subscription,
    /// Tokens with which a device enrols.
    EnrolmentToken,
}

impl ReviewKind {
    pub const ALL: [ReviewKind; 8] = [
        ReviewKind::User,
        ReviewKind::Operator,
        ReviewKind::Renter,
        ReviewKind::Token,
        ReviewKind::Grant,
        ReviewKind::Rental,
        ReviewKind::Subscription,
        ReviewKind::EnrolmentToken,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            ReviewKind::User => "user",
            ReviewKind::Operator => "operator",
            ReviewKind::Renter => "renter",
            ReviewKind::Token => "token",
            ReviewKind::Grant => "grant",
            ReviewKind::Rental => "rental",
            ReviewKind::Subscription => "subscription",
            ReviewKind::EnrolmentToken => "enrolment_token",
        }
    }

    /// The kind of the ids.
    pub const fn ids(self) -> IdKind {
        match self {
            ReviewKind::User => IdKind::User,
            ReviewKind::Operator => IdKind::Operator,
            ReviewKind::Renter => IdKind::Renter,
            ReviewKind::Token | ReviewKind::EnrolmentToken => IdKind::Token,
            ReviewKind::Grant => IdKind::Grant,
            ReviewKind::Rental => IdKind::Rental,
            ReviewKind::Subscription => IdKind::Subscription,
        }
    }

    const fn sql(self) -> &'static str {
        match self {
            ReviewKind::User => USERS,
            ReviewKind::Operator => OPERATORS,
            ReviewKind::Renter => RENTERS,
            ReviewKind::Token => TOKENS,
            ReviewKind::Grant => GRANTS,
            ReviewKind::Rental => RENTALS,
            ReviewKind::Subscription => SUBSCRIPTIONS,
            ReviewKind::EnrolmentToken => ENROLMENT_TOKENS,
        }
    }

    /// The path and query of an address may contain a token.
    fn shown(self, name: String) -> String {
        match self {
            ReviewKind::Subscription => SecretUrl::from(name).to_string(),
            _ => name,
        }
    }
}

/// An object that came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reviewed {
    pub id: Id,
    pub name: String,
    /// The rights that it gives, for people.
    pub details: String,
    /// The last event about it, or else when it was made.
    pub changed_at: Wall,
}

/// The objects of a kind that came back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReviewedKind {
    pub total: i64,
    /// At most [`LISTED`].
    pub objects: Vec<Reviewed>,
}

/// Completes the rows `(id, name, details, created_at)` of a kind. `$1`: now, `$2`: how many.
macro_rules! reviewed {
    ($object:literal, $rows:literal) => {
        concat!(
            "select t.id, t.name, t.details, count(*) over () as total,
                    coalesce((select max(e.at) from events e where e.object_id = t.id and e.object = '",
            $object,
            "'), t.created_at) as changed_at
             from (",
            $rows,
            ") t order by changed_at desc, t.id desc limit $2"
        )
    };
}

const USERS: &str = reviewed!(
    "user",
    "select id, name, role as details, created_at from users where disabled_at is null and $1 is not null"
);

/// As the sources of grants in `policy.rs`.
const OPERATORS: &str = reviewed!(
    "operator",
    "select o.id, o.name, 'of ' || u.name as details, o.created_at
     from operators o join users u on u.id = o.user
     where o.removed_at is null and u.disabled_at is null and u.role <> 'viewer' and $1 is not null"
);

/// As the sources of rentals in `policy.rs`. The person stays unnamed: the customer has the name in its list.
const RENTERS: &str = reviewed!(
    "renter",
    "select r.id, r.name, 'of ' || coalesce(c.external_ref, nullif(c.name, '')) as details, r.created_at
     from renters r join people y on y.id = r.person join customers c on c.id = y.customer
     where r.removed_at is null and y.removed_at is null and $1 is not null"
);

const TOKENS: &str = reviewed!(
    "token",
    "select k.id, k.name, k.created_at,
            case when k.customer is null then k.role
                 else 'of the customer ' || coalesce(c.external_ref, nullif(c.name, ''), k.customer) end
                || coalesce(' of ' || k.user_name, '')
                || coalesce(', only ' || (select string_agg(s.value, ', ') from json_each(k.scopes) s), '') as details
     from tokens k left join users u on u.id = k.user left join customers c on c.id = k.customer
     where k.revoked_at is null and (k.expires_at is null or k.expires_at > $1)
       and (k.user is null or (u.id is not null and u.disabled_at is null))"
);

const GRANTS: &str = reviewed!(
    "grant",
    "select g.id, coalesce(g.name, '') as name, g.created_at,
            coalesce('role ' || g.source_role, 'operator ' || o.name, 'user ' || coalesce(u.name, g.source_user_name),
                     'a removed operator')
            || ' to '
            || coalesce(h.name, 'hosts with the labels ' || g.target_labels, 'all devices')
            || ': '
            || (select string_agg((a.value ->> 'protocol')
                       || coalesce(' ' || (select string_agg(iif((p.value ->> 0) = (p.value ->> 1), p.value ->> 0,
                                                                 (p.value ->> 0) || '-' || (p.value ->> 1)), ' ')
                                           from json_each(a.value -> 'ports') p), ''), ', ')
                from json_each(g.access) a)
            || coalesce(', until ' || strftime('%Y-%m-%dT%H:%M:%SZ', g.until_at / 1000, 'unixepoch'), '') as details
     from grants g
     left join operators o on o.id = g.source_peer
     left join users u on u.id = g.source_user
     left join hosts h on h.id = g.target_host
     where g.withdrawn_at is null and (g.until_at is null or g.until_at > $1)"
);

/// The states that `life::State::is_open` has.
const RENTALS: &str = reviewed!(
    "rental",
    "select r.id, h.name, r.created_at,
            'from ' || strftime('%Y-%m-%dT%H:%M:%SZ', r.from_at / 1000, 'unixepoch')
            || ' until ' || strftime('%Y-%m-%dT%H:%M:%SZ', r.until_at / 1000, 'unixepoch')
            || coalesce(' for ' || c.external_ref, ' for ' || nullif(c.name, ''),
                        iif(c.erased_at is null, '', ' for a customer who was erased')) as details
     from rentals r
     join bookings b on b.id = r.booking
     join customers c on c.id = b.customer
     join hosts h on h.id = r.device
     where r.ended_at is null and r.until_at > $1 and (b.hold_until is null or b.hold_until > $1)"
);

const SUBSCRIPTIONS: &str = reviewed!(
    "subscription",
    "select s.id, s.url as name, s.created_at,
            coalesce((select string_agg(k.value, ', ') from json_each(s.kinds) k), 'all kinds')
            || iif(s.paused_at is null, '', ', paused') as details
     from subscriptions s where $1 is not null"
);

/// Those that `enrolment_tokens::consume` accepts.
const ENROLMENT_TOKENS: &str = reviewed!(
    "token",
    "select k.id, k.label as name, k.created_at,
            coalesce('replaces ' || h.name, 'new devices, profile ' || k.profile)
            || coalesce(', uses left: ' || k.uses_left, '')
            || iif(k.needs_approval, ', with approval', '')
            || coalesce(', until ' || strftime('%Y-%m-%dT%H:%M:%SZ', k.expires_at / 1000, 'unixepoch'), '') as details
     from enrolment_tokens k left join hosts h on h.id = k.replaces
     where k.revoked_at is null and (k.expires_at is null or k.expires_at > $1)
       and (k.uses_left is null or k.uses_left > 0)"
);

struct ReviewRow {
    reviewed: Reviewed,
    total: i64,
}

impl FromRow<'_, SqliteRow> for ReviewRow {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let reviewed = Reviewed {
            id: id(row, "id")?,
            name: row.try_get("name")?,
            details: row.try_get::<Option<String>, _>("details")?.unwrap_or_default(),
            changed_at: wall(row, "changed_at")?,
        };
        Ok(ReviewRow { reviewed, total: row.try_get("total")? })
    }
}

/// Returns what came back of a kind, as it is now.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn of_kind(conn: &mut SqliteConnection, kind: ReviewKind, now: Wall) -> sqlx::Result<ReviewedKind> {
    let rows = sqlx::query_as(kind.sql()).bind(now.as_millis()).bind(LISTED);
    let rows: Vec<ReviewRow> = rows.fetch_all(conn).await?;
    let total = rows.first().map_or(0, |row| row.total);
    let objects = rows.into_iter().map(|ReviewRow { reviewed, .. }| {
        let name = kind.shown(reviewed.name);
        Reviewed { name, ..reviewed }
    });
    Ok(ReviewedKind { total, objects: objects.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Store, filled, fixture};
    use fleetgate_keys::SealKey;

    async fn lines(store: &Store, kind: ReviewKind, now: i64) -> Vec<String> {
        let mut conn = store.reader().await.unwrap();
        let found = of_kind(&mut conn, kind, Wall::from_millis(now)).await.unwrap();
        let line = |of: &Reviewed| format!("{} {}", of.name, of.details).trim().to_owned();
        assert_eq!(found.total, i64::try_from(found.objects.len()).unwrap());
        found.objects.iter().map(line).collect()
    }

    #[tokio::test]
    async fn each_kind_lists_what_is_open_and_nothing_that_has_ended() {
        let (seal, dir) = (SealKey::from_bytes([1; 32]), tempfile::tempdir().unwrap());
        filled::make(dir.path(), crate::store::MAIN.len(), &seal).await;
        let store = Store::open(dir.path(), seal).await.unwrap();
        assert_eq!(lines(&store, ReviewKind::User, 1_500).await, ["ada admin"], "bob is disabled");
        assert_eq!(lines(&store, ReviewKind::Operator, 1_500).await, ["ada-laptop of ada"]);
        assert_eq!(lines(&store, ReviewKind::Renter, 1_500).await, ["laptop of crm-17"], "one was removed");
        assert_eq!(lines(&store, ReviewKind::Token, 1_500).await, [""; 0], "it was revoked");
        let of_customer = "update tokens set revoked_at = null, user = null, user_name = null,
                           customer = (select id from customers where external_ref = 'crm-17')";
        fixture::run(&store, of_customer, &[]).await;
        assert_eq!(lines(&store, ReviewKind::Token, 1_500).await, ["ci of the customer crm-17"]);
        let grants = lines(&store, ReviewKind::Grant, 1_500).await;
        let night = "night-work operator ada-laptop to site-gw: udp 5000-5010, until 1970-01-01T00:00:09Z";
        assert!(grants.contains(&night.to_owned()), "{grants:?}");
        let usual = "operators role operator to all devices: icmp, tcp 22 80 443";
        assert!(grants.contains(&usual.to_owned()) && grants.len() == 3, "{grants:?}");
        assert_eq!(lines(&store, ReviewKind::Grant, 9_000).await.len(), 2, "night-work has ended");
        let rental = "site-gw from 1970-01-01T00:00:02Z until 1970-01-01T00:00:03Z for crm-17";
        assert_eq!(lines(&store, ReviewKind::Rental, 1_500).await, [rental]);
        assert_eq!(lines(&store, ReviewKind::Rental, 3_000).await, [""; 0]);
        let subscription = "http://127.0.0.1:9 rental.booked, paused";
        assert_eq!(lines(&store, ReviewKind::Subscription, 1_500).await, [subscription], "without its path");
        assert_eq!(lines(&store, ReviewKind::EnrolmentToken, 1_500).await, [""; 0], "it was revoked");
        fixture::run(&store, "update enrolment_tokens set revoked_at = null", &[]).await;
        let token = "cellar replaces site-gw, uses left: 5, with approval, until 1970-01-01T00:00:09Z";
        assert_eq!(lines(&store, ReviewKind::EnrolmentToken, 1_500).await, [token]);
        assert_eq!(lines(&store, ReviewKind::EnrolmentToken, 9_000).await, [""; 0], "it has expired");
    }
}
