//! How devices are rented, and which ones can be booked.

use std::collections::{BTreeMap, BTreeSet};

use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{GateRule, GrantAccess};
use fleetgate_engine::rental::life::Delivery;
use fleetgate_engine::rental::occupancy::Margins;
use fleetgate_engine::rental::terms::{Effective, Setting, Terms};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use super::{damaged, duration, handovers, millis, shipments};
use crate::store::access::id;
use crate::store::grants::{access_column, access_rows, has_labels};
use crate::store::lists::{Entry, ListRow, readable};
use crate::store::profiles;

/// The SSH server of the device trusts the certificates of the gateway.
pub const SSH_CERTIFICATES: &str = "certificates";
/// It takes a list of keys only, as dropbear and old versions of OpenSSH do.
pub const SSH_KEYS: &str = "keys";

/// How a device is rented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub rentable: bool,
    pub margins: Margins,
    /// The most that renters reach.
    pub access: Vec<GrantAccess>,
    /// Why it cannot be handed over. `None`: it is ready.
    pub not_ready: Option<String>,
    /// The conditions for handing it over. `None`: none.
    pub gate: Option<GateRule>,
    /// The account of the device that renters log in to. `None`: it has none.
    pub ssh_account: Option<String>,
    /// [`SSH_CERTIFICATES`] or [`SSH_KEYS`]. `None`: it is not known yet.
    pub ssh_mode: Option<String>,
    /// The account can become root.
    pub ssh_root: bool,
    /// How it gets to its renters. It has not left.
    pub delivery: Delivery,
    /// Counts the changes of people and programs; 0: never set.
    pub version: i64,
    /// Runs on the device after each rental. `None`: nothing does.
    pub cleaning_command: Option<String>,
    /// The settings that are not its own. They are as its profile says, or as is usual.
    pub inherits: BTreeSet<Setting>,
}

impl Settings {
    /// Returns what the device itself says.
    pub fn own(&self) -> Terms {
        let is_own = |setting| !self.inherits.contains(&setting);
        Terms {
            preparation: is_own(Setting::Preparation).then_some(self.margins.preparation),
            turnaround: is_own(Setting::Turnaround).then_some(self.margins.turnaround),
            access: is_own(Setting::Access).then(|| self.access.clone()),
            gate: is_own(Setting::Gate).then(|| self.gate.clone()),
            delivery: is_own(Setting::Delivery).then_some(self.delivery),
            ssh_root: is_own(Setting::SshRoot).then_some(self.ssh_root),
            cleaning_command: is_own(Setting::CleaningCommand).then(|| self.cleaning_command.clone()),
        }
    }

    /// Returns these settings with what counts for the device.
    #[must_use]
    pub fn with(self, counts: Effective) -> Settings {
        let Effective { margins, access, gate, delivery, ssh_root, cleaning_command } = counts;
        Settings { margins, access, gate, delivery, ssh_root, cleaning_command, ..self }
    }
}

impl FromRow<'_, SqliteRow> for Settings {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Settings {
            rentable: row.try_get("rentable")?,
            margins: margins(row)?,
            access: access_column(row)?,
            not_ready: row.try_get("not_ready_reason")?,
            gate: handovers::rule(row)?,
            ssh_account: row.try_get("ssh_account")?,
            ssh_mode: row.try_get("ssh_mode")?,
            ssh_root: row.try_get("ssh_root")?,
            delivery: shipments::delivery_of_device(row)?,
            version: row.try_get("version")?,
            cleaning_command: row.try_get("cleaning_command")?,
            inherits: inherited(row)?,
        })
    }
}

fn inherited(row: &SqliteRow) -> sqlx::Result<BTreeSet<Setting>> {
    let names: Json<Vec<String>> = row.try_get("inherited")?;
    names.0.iter().map(|name| Setting::named(name).ok_or_else(|| damaged("inherited"))).collect()
}

fn margins(row: &SqliteRow) -> sqlx::Result<Margins> {
    let (preparation, turnaround) = (duration(row, "preparation_ms")?, duration(row, "turnaround_ms")?);
    Ok(Margins { preparation, turnaround })
}

/// Returns the settings of a device. Without any it is not rented, and it follows its profile in all: its profile is not
/// asked here.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn settings(conn: &mut SqliteConnection, device: HostId) -> sqlx::Result<Settings> {
    let sql = "select * from device_rental_settings where device = $1";
    let found: Option<Settings> = sqlx::query_as(sql).bind(device.as_i64()).fetch_optional(conn).await?;
    Ok(found.unwrap_or_else(unset))
}

fn unset() -> Settings {
    let nothing = Terms::default();
    let Effective { margins, access, gate, delivery, ssh_root, cleaning_command } =
        Effective::of(&nothing, &nothing);
    Settings {
        rentable: false,
        margins,
        access,
        not_ready: None,
        gate,
        ssh_account: None,
        ssh_mode: None,
        ssh_root,
        delivery,
        version: 0,
        cleaning_command,
        inherits: Setting::ALL.into(),
    }
}

/// Stores the settings of a device and raises the version.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn set(tx: &mut SqliteConnection, device: HostId, settings: &Settings) -> sqlx::Result<()> {
    sqlx::query(
        "insert into device_rental_settings (device, rentable, preparation_ms, turnaround_ms, access, not_ready_reason,
                                             gate_ms, gate_services, ssh_account, ssh_mode, ssh_root, delivery,
                                             inherited, version)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, (select version from instance))
         on conflict (device) do update set rentable = excluded.rentable, version = version + 1,
             preparation_ms = excluded.preparation_ms, turnaround_ms = excluded.turnaround_ms,
             access = excluded.access, not_ready_reason = excluded.not_ready_reason,
             gate_ms = excluded.gate_ms, gate_services = excluded.gate_services, ssh_account = excluded.ssh_account,
             ssh_mode = excluded.ssh_mode, ssh_root = excluded.ssh_root, delivery = excluded.delivery,
             inherited = excluded.inherited",
    )
    .bind(device.as_i64())
    .bind(settings.rentable)
    .bind(millis(settings.margins.preparation))
    .bind(millis(settings.margins.turnaround))
    .bind(access_rows(&settings.access))
    .bind(&settings.not_ready)
    .bind(settings.gate.as_ref().map(|gate| millis(gate.ok_for)))
    .bind(settings.gate.as_ref().and_then(|gate| gate.services.as_ref()).map(Json))
    .bind(&settings.ssh_account)
    .bind(&settings.ssh_mode)
    .bind(settings.ssh_root)
    .bind(settings.delivery.name())
    .bind(Json(settings.inherits.iter().map(|setting| setting.name()).collect::<Vec<_>>()))
    .execute(tx)
    .await
    .map(drop)
}

/// Stores what runs on a device after each rental.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn set_cleaning(
    tx: &mut SqliteConnection,
    device: HostId,
    command: Option<&str>,
) -> sqlx::Result<()> {
    let sql = "update device_rental_settings set cleaning_command = $2 where device = $1";
    sqlx::query(sql).bind(device.as_i64()).bind(command).execute(tx).await.map(drop)
}

/// A device that can be booked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub id: HostId,
    pub name: String,
    pub margins: Margins,
    /// The most that renters reach.
    pub access: Vec<GrantAccess>,
    /// The TCP port at which renters log in. `None`: the device has no account for them, or has not said how they log in.
    pub ssh_port: Option<u16>,
    /// How it gets to its renters. It has not left.
    pub delivery: Delivery,
}

impl FromRow<'_, SqliteRow> for Candidate {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Candidate {
            id: id(row, "id")?,
            name: row.try_get("name")?,
            margins: margins(row)?,
            access: access_column(row)?,
            ssh_port: row.try_get("ssh_port")?,
            delivery: shipments::delivery_of_device(row)?,
        })
    }
}

impl ListRow for Candidate {
    const TABLE: &'static str = "device_rental_settings";
}

/// Rentable, enrolled, and without hosts behind it. `$1`: only this one; `$2`: its labels as JSON; `$3`: only
/// these, as JSON.
const CANDIDATES: &str = concat!(
    "select h.id, h.name, s.preparation_ms, s.turnaround_ms, s.access, s.delivery,
            case when s.ssh_account is not null and s.ssh_mode is not null then h.ssh_port end as ssh_port
     from hosts h join device_rental_settings s on s.device = h.id and s.rentable
     where h.removed_at is null and h.via is null
       and exists (select 1 from peers p join peer_keys k on k.peer = p.id and k.retired_at is null
                   where p.id = h.id and p.removed_at is null)
       and not exists (select 1 from hosts behind where behind.via = h.id and behind.removed_at is null)
       and ($1 is null or h.id = $1) and ($3 is null or h.id in (select value from json_each($3))) and ",
    has_labels!("$2"),
    " order by h.name"
);

/// Returns the devices that can be booked and have all of these labels and this profile, in name order, and those whose
/// settings can be read.
///
/// # Errors
/// Fails when the database cannot be read, or the stored profiles do not fit together.
pub async fn candidates(
    conn: &mut SqliteConnection,
    labels: &BTreeMap<String, String>,
    profile: Option<&str>,
) -> anyhow::Result<Vec<Candidate>> {
    let members = match profile {
        Some(profile) => Some(Json(of_profile(&mut *conn, profile).await?)),
        None => None,
    };
    let query = sqlx::query_as(CANDIDATES).bind(None::<i64>).bind(Json(labels)).bind(members);
    let rows: Vec<Entry<Candidate>> = query.fetch_all(conn).await?;
    Ok(readable(rows))
}

/// Returns the ids of the rented devices that have this profile, by their own setting or by the rules.
async fn of_profile(conn: &mut SqliteConnection, profile: &str) -> anyhow::Result<Vec<i64>> {
    let sql = "select h.id, h.profile, h.labels from hosts h
               join device_rental_settings s on s.device = h.id and s.rentable
               where h.removed_at is null and h.profile in ('', $1)";
    let rows: Vec<(i64, String, Json<BTreeMap<String, String>>)> =
        sqlx::query_as(sql).bind(profile).fetch_all(&mut *conn).await?;
    let catalogue = profiles::catalogue(conn).await?;
    let has_profile = |own: &str, labels: &BTreeMap<String, String>| {
        catalogue.of_host(Some(own).filter(|own| !own.is_empty()), labels).contains(&profile)
    };
    let members = rows.iter().filter(|(_, own, Json(labels))| has_profile(own, labels));
    Ok(members.map(|(id, ..)| *id).collect())
}

/// Returns a device if it can be booked.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn candidate(conn: &mut SqliteConnection, device: HostId) -> sqlx::Result<Option<Candidate>> {
    let none: BTreeMap<String, String> = BTreeMap::new();
    let query =
        sqlx::query_as(CANDIDATES).bind(device.as_i64()).bind(Json(none)).bind(None::<Json<Vec<i64>>>);
    query.fetch_optional(conn).await
}

/// The SSH server of a device, as renters find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshServer {
    pub port: u16,
    /// As OpenSSH writes it. `None`: the gateway has no key of it, or its fingerprint only.
    pub host_key: Option<String>,
}

/// # Errors
/// Fails when the database cannot be read or has no such host.
pub async fn ssh_server(conn: &mut SqliteConnection, device: HostId) -> sqlx::Result<SshServer> {
    let sql = "select ssh_port, ssh_pin_line from hosts where id = $1";
    let (port, host_key): (u16, Option<String>) =
        sqlx::query_as(sql).bind(device.as_i64()).fetch_one(conn).await?;
    Ok(SshServer { port, host_key })
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;
    use fleetgate_engine::messages::{HostKey, KeyType};

    use super::*;
    use crate::store::{fixture, host_settings};

    #[tokio::test]
    async fn the_host_key_of_a_device_is_known_when_the_server_has_shown_the_pinned_one() {
        let (store, _dir) = fixture::store().await;
        fixture::device(&store, 7, "cam").await;
        let device = Id::from_i64(7);
        let key = async |shown: Option<HostKey>| {
            let mut tx = store.begin().await.unwrap();
            if let Some(shown) = shown {
                host_settings::learn_pin(&mut tx, device, &shown).await.unwrap();
            }
            let server = ssh_server(&mut tx, device).await.unwrap();
            tx.commit().await.unwrap();
            server.host_key
        };
        let shown = |fingerprint: &str, line: &str| {
            Some(HostKey {
                key_type: Some(KeyType::Ed25519),
                line: Some(line.to_owned()),
                ..HostKey::from(fingerprint)
            })
        };
        fixture::run(&store, "update hosts set ssh_pin = 'SHA256:a' where id = 7", &[]).await;
        assert_eq!(key(None).await, None);
        assert_eq!(key(shown("SHA256:b", "another")).await, None);
        assert_eq!(key(shown("SHA256:a", "ssh-ed25519 A")).await.as_deref(), Some("ssh-ed25519 A"));
        fixture::run(&store, "update hosts set ssh_pin = null, ssh_pin_line = null where id = 7", &[]).await;
        assert_eq!(key(shown("SHA256:b", "ssh-ed25519 B")).await.as_deref(), Some("ssh-ed25519 B"));
    }
}
