//! The effect of a restore on the database: erasures that the backup lacks, and the review by an admin.

use std::collections::BTreeSet;

use fleetgate_engine::id::Id;
use fleetgate_engine::time::Wall;

use super::*;
use crate::backup::erased_ids::ERASED_FILE;
use crate::store::instance;
use crate::store::rentals::erasures::Erasure;

/// Backs up a gateway with three customers. It ended between the line of the first one and the commit of that
/// erasure, so that its file has a line which its database lacks.
async fn backed_up(place: &GatewayDir, out: &Path) -> Made {
    let insert = "insert into customers (id, external_ref, name, created_at)
        values (1, 'crm-1', 'Ada', 1), (2, 'crm-2', 'Bob', 1), (3, 'crm-3', 'Eve', 1)";
    fixture::run(&place.store, insert, &[]).await;
    drop(erased_ids::append(place.dir.path(), &[erasure(1)]).unwrap());
    place.back_up(out).await.unwrap()
}

fn erasure(customer: i64) -> Erasure {
    Erasure { customer: Id::from_i64(customer), at: Wall::from_millis(500) }
}

async fn names_of_customers(data: &Path) -> Vec<String> {
    let store = Store::open(data, Identity::read(data).unwrap().seal_key()).await.unwrap();
    fixture::texts(&store, "select name || coalesce(external_ref, '') from customers order by id").await
}

#[tokio::test]
async fn a_restore_erases_whom_the_backup_or_the_data_directory_has_as_erased() {
    let (place, out) = (GatewayDir::new().await, private_dir());
    let made = backed_up(&place, &out.path().join("n-1.tar")).await;
    let same = private_dir();
    restore_to(&made.file, same.path()).await.unwrap();
    assert_eq!(names_of_customers(same.path()).await, ["", "Bobcrm-2", "Evecrm-3"]);
    assert_eq!(erased_ids::read(same.path()).unwrap().erasures, [erasure(1)], "it is in the backup");
    // Of a former gateway in this directory, which has erased another one.
    let with_more = private_dir();
    drop(erased_ids::append(with_more.path(), &[erasure(2), erasure(99)]).unwrap());
    let data = DataDir::open(with_more.path()).unwrap();
    let restored = restore(&made.file, &data, silent()).await.unwrap();
    assert_eq!((restored.erased, restored.damage), (2, None));
    assert_eq!(names_of_customers(with_more.path()).await, ["", "", "Evecrm-3"]);
    let ids = erased_ids::read(with_more.path()).unwrap().erasures;
    assert_eq!(ids, [erasure(2), erasure(99), erasure(1)]);
    let mode = fs::metadata(with_more.path().join(ERASED_FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn an_upload_erases_by_the_file_of_the_gateway_that_takes_it_which_stays_until_then() {
    let (place, out, dir) = (GatewayDir::new().await, private_dir(), private_dir());
    let made = backed_up(&place, &out.path().join("n-1.tar")).await;
    drop(erased_ids::append(dir.path(), &[erasure(2)]).unwrap());
    let before = fs::read(dir.path().join(ERASED_FILE)).unwrap();
    let staged = stage(File::open(&made.file).unwrap(), dir.path()).await.unwrap();
    assert_eq!(staged.erased, 2);
    assert_eq!(fs::read(dir.path().join(ERASED_FILE)).unwrap(), before);
    // Cut off after each file that was moved.
    fs::write(dir.path().join(".fleetgate-restore/moved"), "").unwrap();
    fs::rename(dir.path().join(".fleetgate-restore").join(ERASED_FILE), dir.path().join(ERASED_FILE))
        .unwrap();
    assert!(finish_restore(dir.path()).unwrap() && !finish_restore(dir.path()).unwrap());
    assert_eq!(names_of_customers(dir.path()).await, ["", "", "Evecrm-3"]);
    assert_eq!(erased_ids::read(dir.path()).unwrap().erasures, [erasure(2), erasure(1)]);
    unstaged_leaves_the_file(&made.file).await;
}

async fn unstaged_leaves_the_file(backup: &Path) {
    let dir = private_dir();
    drop(erased_ids::append(dir.path(), &[erasure(2)]).unwrap());
    stage(File::open(backup).unwrap(), dir.path()).await.unwrap();
    unstage(dir.path()).unwrap();
    assert!(!finish_restore(dir.path()).unwrap());
    assert_eq!(erased_ids::read(dir.path()).unwrap().erasures, [erasure(2)]);
}

#[tokio::test]
async fn a_line_that_comes_after_an_upload_is_not_lost() {
    let (place, out, dir) = (GatewayDir::new().await, private_dir(), private_dir());
    let made = backed_up(&place, &out.path().join("n-1.tar")).await;
    stage(File::open(&made.file).unwrap(), dir.path()).await.unwrap();
    drop(erased_ids::append(dir.path(), &[erasure(2)]).unwrap());
    assert!(finish_restore(dir.path()).unwrap());
    assert_eq!(erased_ids::read(dir.path()).unwrap().erasures, [erasure(2), erasure(1)]);
    let store = Store::open(dir.path(), Identity::read(dir.path()).unwrap().seal_key()).await.unwrap();
    erased_ids::reconcile(&store, dir.path()).await.unwrap();
    let names = "select name from customers order by id";
    assert_eq!(fixture::texts(&store, names).await, ["", "", "Eve"]);
}

#[tokio::test]
async fn damaged_lines_are_reported_and_the_others_count() {
    let (place, out, dir) = (GatewayDir::new().await, private_dir(), private_dir());
    let made = backed_up(&place, &out.path().join("n-1.tar")).await;
    drop(erased_ids::append(dir.path(), &[erasure(3)]).unwrap());
    let half = fs::read_to_string(dir.path().join(ERASED_FILE)).unwrap() + "{\"erased_at\":\"2026";
    fs::write(dir.path().join(ERASED_FILE), half).unwrap();
    let data = DataDir::open(dir.path()).unwrap();
    let restored = restore(&made.file, &data, silent()).await.unwrap();
    assert!(restored.damage.unwrap().contains("skipped (2)"));
    assert_eq!(names_of_customers(dir.path()).await, ["", "Bobcrm-2", ""]);
    assert!(
        fs::read_to_string(dir.path().join(ERASED_FILE)).unwrap().contains("\"2026\n"),
        "it can be repaired"
    );
}

#[tokio::test]
async fn a_restored_gateway_waits_for_an_admin_and_the_original_does_not() {
    let (place, out) = (GatewayDir::new().await, private_dir());
    let made = place.back_up(&out.path().join("n-1.tar")).await.unwrap();
    let mut epochs = BTreeSet::new();
    for dir in [private_dir(), private_dir()] {
        restore_to(&made.file, dir.path()).await.unwrap();
        let store = Store::open(dir.path(), Identity::read(dir.path()).unwrap().seal_key()).await.unwrap();
        let found = instance::load(&mut store.reader().await.unwrap()).await.unwrap();
        assert!(found.unconfirmed().is_some());
        let made_at: jiff::Timestamp = made.head.made_at.parse().unwrap();
        assert_eq!(found.backup_made_at.map(Wall::as_millis), Some(made_at.as_millisecond()));
        epochs.insert(found.epoch);
    }
    let mut conn = place.store.reader().await.unwrap();
    let original = instance::load(&mut conn).await.unwrap();
    assert_eq!(original.unconfirmed(), None);
    epochs.insert(original.epoch);
    assert_eq!(epochs.len(), 3, "{epochs:?}");
}
