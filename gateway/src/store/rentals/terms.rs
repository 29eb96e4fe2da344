//! What profiles say about how their devices are rented, and the devices that follow them.
//!
//! `device_rental_settings` has what counts for a device, so that every reader finds it there. [`settle`] keeps it up to
//! date when a profile, a rule or the labels of a device change.

use std::collections::{BTreeMap, BTreeSet};

use fleetgate_engine::id::{HostId, RentalId};
use fleetgate_engine::messages::GateRule;
use fleetgate_engine::monitor::profile::Catalogue;
use fleetgate_engine::rental::life::Delivery;
use fleetgate_engine::rental::terms::{Effective, Terms};
use fleetgate_engine::time::Wall;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow as _, Row as _};

use super::{damaged, device_access, devices, handovers, millis, policy};
use crate::store::access::id;
use crate::store::grants::{AccessRow, access_of, access_rows};
use crate::store::profiles;

/// The column `rental` of profiles.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::store) struct TermsRow {
    #[serde(skip_serializing_if = "Option::is_none")]
    preparation_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    turnaround_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    access: Option<Vec<AccessRow>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gate: Option<GateRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ssh_root: Option<bool>,
    /// Empty: nothing runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    cleaning_command: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct GateRow {
    /// `None`: no gate.
    ok_for_ms: Option<u64>,
    services: Option<BTreeSet<String>>,
}

pub(in crate::store) fn terms_json(terms: &Terms) -> Json<TermsRow> {
    let whole = |duration| u64::try_from(millis(duration)).unwrap_or(u64::MAX);
    let gate = |gate: &Option<GateRule>| GateRow {
        ok_for_ms: gate.as_ref().map(|gate| whole(gate.ok_for)),
        services: gate.as_ref().and_then(|gate| gate.services.clone()),
    };
    Json(TermsRow {
        preparation_ms: terms.preparation.map(whole),
        turnaround_ms: terms.turnaround.map(whole),
        access: terms.access.as_ref().map(|access| access_rows(access).0),
        gate: terms.gate.as_ref().map(gate),
        delivery: terms.delivery.map(|delivery| delivery.name().to_owned()),
        ssh_root: terms.ssh_root,
        cleaning_command: terms.cleaning_command.as_ref().map(|line| line.clone().unwrap_or_default()),
    })
}

/// Reads the column.
pub(in crate::store) fn terms_column(row: &SqliteRow) -> sqlx::Result<Terms> {
    let Json(stored): Json<TermsRow> = row.try_get("rental")?;
    let duration = std::time::Duration::from_millis;
    let access = stored
        .access
        .map(|rows| rows.into_iter().map(access_of).collect::<sqlx::Result<Vec<_>>>())
        .transpose()?;
    let delivery = stored.delivery.map(|name| {
        Delivery::ALL.into_iter().find(|delivery| delivery.name() == name).ok_or_else(|| damaged("rental"))
    });
    Ok(Terms {
        preparation: stored.preparation_ms.map(duration),
        turnaround: stored.turnaround_ms.map(duration),
        access,
        gate: stored.gate.map(|GateRow { ok_for_ms, services }| {
            ok_for_ms.map(|ok_for| GateRule { services, ok_for: duration(ok_for) })
        }),
        delivery: delivery.transpose()?,
        ssh_root: stored.ssh_root,
        cleaning_command: stored.cleaning_command.map(|line| Some(line).filter(|line| !line.is_empty())),
    })
}

/// Returns what the profiles of a device say.
///
/// # Errors
/// Fails when the database cannot be read, or has no such device.
pub async fn of_device(conn: &mut SqliteConnection, device: HostId) -> anyhow::Result<Terms> {
    let sql = "select profile, labels from hosts where id = $1";
    let row = sqlx::query(sql).bind(device.as_i64()).fetch_one(&mut *conn).await?;
    Ok(said(&profiles::catalogue(conn).await?, &row)?)
}

/// Returns the settings that count for a device, and what its profiles say.
///
/// # Errors
/// Fails as [`of_device`] does.
pub async fn counting(
    conn: &mut SqliteConnection,
    device: HostId,
) -> anyhow::Result<(devices::Settings, Terms)> {
    let settings = devices::settings(&mut *conn, device).await?;
    let profile = of_device(conn, device).await?;
    let counts = Effective::of(&settings.own(), &profile);
    Ok((settings.with(counts), profile))
}

fn said(catalogue: &Catalogue, row: &SqliteRow) -> sqlx::Result<Terms> {
    Ok(catalogue.rental(&profiles_of(catalogue, row)?))
}

/// Returns the profiles of a host: its own one, or those that the rules give it.
pub(super) fn profiles_of<'a>(catalogue: &'a Catalogue, row: &'a SqliteRow) -> sqlx::Result<Vec<&'a str>> {
    let (profile, labels): (&str, Json<BTreeMap<String, String>>) =
        (row.try_get("profile")?, row.try_get("labels")?);
    Ok(catalogue.of_host(Some(profile).filter(|name| !name.is_empty()), &labels.0))
}

/// Devices with settings that are not their own.
const FOLLOWERS: &str = "select s.*, h.name as device_name, h.profile, h.labels
    from device_rental_settings s join hosts h on h.id = s.device and h.removed_at is null
    where s.inherited <> '[]' and s.device in (select value from json_each($1)) order by s.device";

/// Stores what counts for devices from now on, in one statement: a profile may have thousands of them. `$1`: a list of
/// [`SettledRow`].
const STORE: &str = "update device_rental_settings set version = version + 1,
        preparation_ms = n.value ->> 'preparation_ms', turnaround_ms = n.value ->> 'turnaround_ms',
        access = n.value ->> 'access', gate_ms = n.value ->> 'gate_ms', gate_services = n.value ->> 'gate_services',
        ssh_root = n.value ->> 'ssh_root', delivery = n.value ->> 'delivery',
        cleaning_command = n.value ->> 'cleaning_command'
    from json_each($1) n where device_rental_settings.device = n.value ->> 'device'";

/// The columns that [`STORE`] sets.
#[derive(Serialize)]
struct SettledRow<'a> {
    device: i64,
    preparation_ms: i64,
    turnaround_ms: i64,
    access: Vec<AccessRow>,
    gate_ms: Option<i64>,
    gate_services: Option<&'a BTreeSet<String>>,
    ssh_root: bool,
    delivery: &'static str,
    cleaning_command: Option<&'a str>,
}

fn settled_row((device, settings): &(HostId, devices::Settings)) -> SettledRow<'_> {
    let gate = settings.gate.as_ref();
    SettledRow {
        device: device.as_i64(),
        preparation_ms: millis(settings.margins.preparation),
        turnaround_ms: millis(settings.margins.turnaround),
        access: access_rows(&settings.access).0,
        gate_ms: gate.map(|gate| millis(gate.ok_for)),
        gate_services: gate.and_then(|gate| gate.services.as_ref()),
        ssh_root: settings.ssh_root,
        delivery: settings.delivery.name(),
        cleaning_command: settings.cleaning_command.as_deref(),
    }
}

/// What [`settle`] has changed.
#[derive(Debug, Default)]
pub struct Settled {
    /// The names of the devices that are rented on other terms from now on.
    pub devices: Vec<String>,
    /// The rentals that it concerns.
    pub rentals: BTreeSet<RentalId>,
}

/// Gives those of these devices that follow their profiles what those say now. Returns the rentals that it concerns, as
/// a change of the settings of a device does. Rentals keep the times that they were booked with.
///
/// # Errors
/// Fails when the database cannot be written, or the stored profiles do not fit together.
pub async fn settle(
    tx: &mut SqliteConnection,
    devices: &BTreeSet<HostId>,
    now: Wall,
) -> anyhow::Result<Settled> {
    if devices.is_empty() {
        return Ok(Settled::default());
    }
    let ids: Vec<i64> = devices.iter().map(|device| device.as_i64()).collect();
    let rows = sqlx::query(FOLLOWERS).bind(Json(ids)).fetch_all(&mut *tx).await?;
    if rows.is_empty() {
        return Ok(Settled::default());
    }
    let catalogue = profiles::catalogue(&mut *tx).await?;
    let (names, changed): (Vec<String>, Vec<(HostId, devices::Settings)>) =
        rows.iter().filter_map(|row| follower(&catalogue, row)).unzip();
    if changed.is_empty() {
        return Ok(Settled::default());
    }
    let devices: BTreeSet<HostId> = changed.iter().map(|(device, _)| *device).collect();
    device_access::note_root(&mut *tx, &devices).await?;
    let settled: Vec<SettledRow<'_>> = changed.iter().map(settled_row).collect();
    sqlx::query(STORE).bind(Json(settled)).execute(&mut *tx).await?;
    handovers::settle(&mut *tx, &devices, now).await?;
    Ok(Settled { devices: names, rentals: policy::of_devices(tx, &devices).await? })
}

/// Returns the name of a device, and its settings if they differ from before. One that cannot be read keeps no change of
/// others from being made.
fn follower(catalogue: &Catalogue, row: &SqliteRow) -> Option<(String, (HostId, devices::Settings))> {
    let read = || -> sqlx::Result<(String, HostId, devices::Settings, Terms)> {
        let (name, device) = (row.try_get("device_name")?, id(row, "device")?);
        Ok((name, device, devices::Settings::from_row(row)?, said(catalogue, row)?))
    };
    let unread = |error: &sqlx::Error| {
        let device: i64 = row.try_get("device").unwrap_or_default();
        tracing::error!("the rental settings of the device {device} cannot be read, and stay: {error}");
    };
    let (name, device, before, profile) = read().inspect_err(unread).ok()?;
    let after = before.clone().with(Effective::of(&before.own(), &profile));
    (after != before).then_some((name, (device, after)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fleetgate_engine::id::Id;
    use fleetgate_engine::messages::{GrantAccess, GrantProtocol};
    use fleetgate_engine::monitor::profile::Profile;
    use fleetgate_engine::rental::life::Shipment;
    use fleetgate_engine::rental::terms::Setting;
    use fleetgate_keys::SealKey;
    use sqlx::sqlite::SqliteConnectOptions;
    use sqlx::{ConnectOptions as _, Connection as _};

    use super::*;
    use crate::store::managed::Managed;
    use crate::store::{Store, files, filled, fixture};

    fn whole() -> Terms {
        Terms {
            preparation: Some(Duration::from_secs(60)),
            turnaround: Some(Duration::ZERO),
            access: Some(vec![GrantAccess { protocol: GrantProtocol::Udp, ports: vec![5_000..=5_010] }]),
            gate: Some(Some(GateRule {
                services: Some(["ssh".to_owned()].into()),
                ok_for: Duration::from_secs(300),
            })),
            delivery: Some(Delivery::Shipped(Shipment::default())),
            ssh_root: Some(true),
            cleaning_command: Some(Some("wipe".to_owned())),
        }
    }

    async fn put(store: &Store, name: &str, rental: Terms) -> i64 {
        let profile = Profile { name: name.to_owned(), rental, ..Profile::default() };
        let managed = Managed { by: "api".to_owned(), edited_by: None };
        let mut tx = store.begin().await.unwrap();
        let version = profiles::put(&mut tx, &profile, &managed).await.unwrap();
        tx.commit().await.unwrap();
        version
    }

    #[tokio::test]
    async fn what_a_profile_says_is_read_as_it_was_written() {
        let (store, _dir) = fixture::store().await;
        let none = Terms { gate: Some(None), cleaning_command: Some(None), ..Terms::default() };
        for (n, terms) in (1..).zip([whole(), none, Terms::default()]) {
            assert_eq!(put(&store, "kiosk", terms.clone()).await, n);
            assert_eq!(put(&store, "kiosk", terms.clone()).await, n, "nothing changed");
            let found = profiles::find(&mut store.reader().await.unwrap(), "kiosk").await.unwrap().unwrap();
            assert_eq!(found.profile.rental, terms);
        }
    }

    #[tokio::test]
    async fn a_device_that_was_rented_before_gates_were_usual_has_none_after_the_upgrade() {
        let (seal, dir) = (SealKey::from_bytes([1; 32]), tempfile::tempdir().unwrap());
        filled::make(dir.path(), fixture::steps_before("usual_gates"), &seal).await;
        let file = dir.path().join(files::MAIN_FILE);
        let mut conn = SqliteConnectOptions::new().filename(&file).connect().await.unwrap();
        let sql = r#"update device_rental_settings set gate_ms = null, inherited = '["gate","delivery"]'"#;
        sqlx::query(sql).execute(&mut conn).await.unwrap();
        conn.close().await.unwrap();
        let store = Store::open(dir.path(), seal).await.unwrap();
        let settings = devices::settings(&mut store.reader().await.unwrap(), Id::from_i64(1)).await.unwrap();
        assert_eq!((settings.gate, settings.inherits), (None, BTreeSet::from([Setting::Delivery])));
    }

    #[tokio::test]
    async fn devices_follow_their_profile_in_what_is_not_their_own() {
        let (store, _dir) = fixture::store().await;
        for n in [7, 8, 9] {
            fixture::device(&store, n, &format!("cam-{n}")).await;
        }
        for sql in [
            "update hosts set profile = 'kiosk'",
            "insert into device_rental_settings (device, rentable, preparation_ms, turnaround_ms) values (7, 1, 5000, 0)",
            "insert into device_rental_settings (device, rentable, preparation_ms, turnaround_ms, inherited)
             values (8, 1, 5000, 0, '[\"cleaning_command\",\"delivery\"]')",
            "insert into device_rental_settings (device, rentable, preparation_ms, turnaround_ms, not_ready_reason,
                                                 ssh_account, ssh_mode, inherited)
             values (9, 1, 5000, 0, 'no battery', 'renter', 'keys',
                     '[\"preparation_s\",\"turnaround_s\",\"access\",\"gate\",\"delivery\",\"ssh_root\",\"cleaning_command\"]')",
        ] {
            fixture::run(&store, sql, &[]).await;
        }
        put(&store, "kiosk", whole()).await;
        let all: BTreeSet<HostId> = [7, 8, 9].map(Id::from_i64).into();
        let mut tx = store.begin().await.unwrap();
        let settled = settle(&mut tx, &all, Wall::from_millis(9)).await.unwrap();
        assert_eq!(settled.devices, ["cam-8", "cam-9"]);
        let own = devices::settings(&mut tx, Id::from_i64(7)).await.unwrap();
        assert_eq!((own.delivery, own.cleaning_command, own.version), (Delivery::Mounted, None, 1));
        let follows = devices::settings(&mut tx, Id::from_i64(8)).await.unwrap();
        assert_eq!(follows.inherits, BTreeSet::from([Setting::Delivery, Setting::CleaningCommand]));
        assert_eq!(
            (follows.delivery, follows.margins.preparation),
            (Delivery::Shipped(Shipment::default()), Duration::from_secs(5))
        );
        assert_eq!((follows.cleaning_command.as_deref(), follows.version), (Some("wipe"), 2));
        let whole = Effective::of(&Terms::default(), &whole());
        let ninth = devices::settings(&mut tx, Id::from_i64(9)).await.unwrap();
        assert_eq!(ninth, ninth.clone().with(whole), "each of them");
        assert_eq!(
            (ninth.not_ready.as_deref(), ninth.ssh_mode.as_deref()),
            (Some("no battery"), Some("keys"))
        );
        let settled = settle(&mut tx, &all, Wall::from_millis(9)).await.unwrap();
        assert!(settled.devices.is_empty(), "{settled:?}");
        let again = devices::settings(&mut tx, Id::from_i64(8)).await.unwrap();
        assert_eq!(again.version, 2, "nothing changed");
        tx.commit().await.unwrap();
        put(&store, "kiosk", Terms::default()).await;
        let mut tx = store.begin().await.unwrap();
        settle(&mut tx, &all, Wall::from_millis(9)).await.unwrap();
        let usual = Effective::of(&Terms::default(), &Terms::default());
        let ninth = devices::settings(&mut tx, Id::from_i64(9)).await.unwrap();
        assert_eq!(ninth, ninth.clone().with(usual), "the profile says nothing any more");
        tx.commit().await.unwrap();
    }
}
