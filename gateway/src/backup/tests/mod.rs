mod history;
mod restored;

use std::io::Read as _;
use std::num::NonZeroUsize;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::Mutex;

use fleetgate_engine::history::{DAY, Point, SeriesKind};
use fleetgate_engine::id::HostId;
use fleetgate_keys::PrivateKey;
use tempfile::TempDir;

use super::*;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::identity::Identity;
use crate::identity::continuity::PublishedIdentity;
use crate::store::history::Sealable;
use crate::store::{Store, fixture};

/// A data directory with a gateway's keys and databases, a device, and some samples.
struct GatewayDir {
    dir: TempDir,
    store: Store,
}

impl GatewayDir {
    async fn new() -> GatewayDir {
        let dir = private_dir();
        let identity = Identity::open(dir.path(), &|_| Ok(())).unwrap();
        let store = fixture::store_in(dir.path(), identity.seal_key()).await;
        let pools = Config::load(dir.path(), None).unwrap().pools();
        PublishedIdentity::of(&identity, pools).keep(&store, dir.path()).await.unwrap();
        fixture::device(&store, 9, "cam-09").await;
        fixture::run(
            &store,
            "insert into series (id, host, service, label, uom, last_at)
             values (1, 9, 'ping', 'rta', 'ms', 0), (2, 9, 'ping', 'pl', '%', 0)",
            &[],
        )
        .await;
        for series in [1, 2] {
            let points = (0..10 * DAY).step_by(60).map(|at| Point { at, value: Some((at % 977) as f64) });
            let samples = Sealable { series, kind: SeriesKind::Gauge, points: points.collect() };
            store.put_days(&samples).await.unwrap();
        }
        GatewayDir { dir, store }
    }

    fn order(&self, target: &Path) -> Order {
        Order { data: self.dir.path().to_owned(), target: target.to_owned(), history: true, keep: None }
    }

    async fn back_up(&self, target: &Path) -> anyhow::Result<Made> {
        make(&self.order(target), silent()).await
    }
}

/// Creates a directory with the mode of a data directory; `tempdir` leaves it to the umask.
fn private_dir() -> TempDir {
    tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir().unwrap()
}

fn silent() -> Progress {
    Arc::new(|_, _| {})
}

async fn restore_to(file: &Path, dir: &Path) -> anyhow::Result<Head> {
    restore(file, &DataDir::open(dir)?, silent()).await.map(|restored| restored.head)
}

fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

async fn refused(file: &Path) -> String {
    let empty = private_dir();
    let error = restore_to(file, empty.path()).await.expect_err("it was to be refused");
    assert_eq!(names_in(empty.path()), ["lock"], "nothing is left of it");
    format!("{error:#}")
}

#[tokio::test]
async fn what_was_backed_up_is_restored_and_belongs_to_its_owner_alone() {
    let place = GatewayDir::new().await;
    fs::write(place.dir.path().join("fleetgate.toml"), "keepalive = 30\n").unwrap();
    let out = private_dir();
    let made = place.back_up(out.path()).await.unwrap();
    assert_eq!(names_in(out.path()), [made.file.file_name().unwrap().to_str().unwrap()]);
    assert_eq!(fs::metadata(&made.file).unwrap().permissions().mode() & 0o777, 0o600);
    let target = out.path().join("a/b");
    let head = restore_to(&made.file, &target).await.unwrap();
    assert_eq!(head, made.head);
    let wanted = ["fleetgate.db", "fleetgate.toml", "gateway.key", "gateway_ssh_key", "history.db", "lock"];
    assert_eq!(names_in(&target), wanted);
    for name in names_in(&target) {
        let mode = fs::metadata(target.join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}");
    }
    for name in ["gateway.key", "gateway_ssh_key", "fleetgate.toml"] {
        assert_eq!(fs::read(place.dir.path().join(name)).unwrap(), fs::read(target.join(name)).unwrap());
    }
    let store = Store::open(&target, Identity::read(&target).unwrap().seal_key()).await.unwrap();
    assert_eq!(fixture::texts(&store, "select name from hosts").await, ["cam-09"]);
    assert_eq!(series_of(&store).await, series_of(&place.store).await);
    for series in [1, 2] {
        let wanted = place.store.raw(series, 0, 11 * DAY).await.unwrap().points;
        assert_eq!(wanted.len(), 14_400);
        assert!(store.raw(series, 0, 11 * DAY).await.unwrap().points == wanted);
    }
    let restored = "select cause from events where kind = 'gateway.restored'";
    assert!(fixture::texts(&store, restored).await[0].contains(&head.made_at));
}

#[tokio::test]
async fn the_schema_of_a_copy_is_that_of_the_original_and_numbers_go_on() {
    let place = GatewayDir::new().await;
    fixture::run(&place.store, "insert into events (at, kind, object, cause, principal) values (1, 'a', 'host', '', 'x'), (2, 'b', 'host', '', 'x')", &[]).await;
    fixture::run(&place.store, "delete from events where kind = 'b'", &[]).await;
    let out = private_dir();
    let made = place.back_up(&out.path().join("one.tar")).await.unwrap();
    let target = private_dir();
    restore_to(&made.file, target.path()).await.unwrap();
    let store = Store::open(target.path(), Identity::read(target.path()).unwrap().seal_key()).await.unwrap();
    let schema = "select type || name || coalesce(sql, '') from sqlite_schema order by type, name";
    assert_eq!(fixture::texts(&store, schema).await, fixture::texts(&place.store, schema).await);
    let seq = "select cast(max(seq) as text) from events";
    // The event of the restore follows the one that was removed.
    assert_eq!(fixture::texts(&store, seq).await, ["3"]);
}

#[tokio::test]
async fn a_file_that_is_there_is_not_replaced_and_a_folder_that_is_not_there_is_said() {
    let place = GatewayDir::new().await;
    let out = private_dir();
    let file = out.path().join("mine.tar");
    fs::write(&file, "mine").unwrap();
    let error = place.back_up(&file).await.unwrap_err().to_string();
    assert!(error.contains("is there already"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), b"mine");
    let error = place.back_up(&out.path().join("no/x.tar")).await.unwrap_err().to_string();
    assert!(error.contains("there is no folder"), "{error}");
    assert_eq!(names_in(out.path()), ["mine.tar"]);
}

#[tokio::test]
async fn of_two_to_one_file_one_is_refused_and_two_to_two_are_made() {
    let place = GatewayDir::new().await;
    let out = private_dir();
    let (a, b) = (out.path().join("a.tar"), out.path().join("b.tar"));
    let (first, second) = tokio::join!(place.back_up(&a), place.back_up(&a));
    assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
    let error = first.err().or(second.err()).unwrap().to_string();
    assert!(error.contains("under way") || error.contains("there already"), "{error}");
    let c = out.path().join("c.tar");
    let (first, second) = tokio::join!(place.back_up(&b), place.back_up(&c));
    assert!(first.is_ok() && second.is_ok());
    assert_eq!(names_in(out.path()), ["a.tar", "b.tar", "c.tar"]);
}

#[tokio::test]
async fn what_a_killed_backup_left_goes_with_the_next_one_and_what_runs_stays() {
    let place = GatewayDir::new().await;
    let out = private_dir();
    let left = out.path().join(".nightly-1.tar.partial");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("backup.tar"), "half").unwrap();
    let running = Workshop::open(&out.path().join("nightly-3.tar")).unwrap();
    place.back_up(&out.path().join("nightly-2.tar")).await.unwrap();
    assert_eq!(names_in(out.path()), [".nightly-3.tar.partial", "nightly-2.tar"]);
    drop(running);
    assert_eq!(names_in(out.path()), ["nightly-2.tar"]);
}

#[tokio::test]
async fn a_backup_that_is_dropped_at_any_time_leaves_nothing() {
    let place = GatewayDir::new().await;
    let out = private_dir();
    for ms in [0, 1, 5, 20, 50, 100, 200] {
        let file = out.path().join("x.tar");
        let cut = tokio::time::timeout(std::time::Duration::from_millis(ms), place.back_up(&file)).await;
        if cut.is_err() {
            assert!(names_in(out.path()).is_empty(), "{ms}");
        }
        let _ = fs::remove_file(&file);
    }
}

/// The threads of a dropped call still create files.
#[test]
fn a_folder_is_removed_while_files_are_created_in_it() {
    let place = private_dir();
    for round in 0..20 {
        let folder = place.path().join(round.to_string());
        fs::create_dir(&folder).unwrap();
        let begun = std::sync::Barrier::new(2);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                begun.wait();
                (0..60).for_each(|n| drop(File::create(folder.join(n.to_string()))));
            });
            begun.wait();
            remove_folder(&folder).unwrap();
        });
    }
    assert!(names_in(place.path()).is_empty());
}

#[tokio::test]
async fn an_upload_whose_sender_has_gone_leaves_nothing() {
    let place = GatewayDir::new().await;
    let out = private_dir();
    let made = place.back_up(&out.path().join("x.tar")).await.unwrap();
    let dir = private_dir();
    let (mut sender, reader) = std::os::unix::net::UnixStream::pair().unwrap();
    let bytes = fs::read(&made.file).unwrap();
    {
        let staged = stage(reader, dir.path());
        tokio::pin!(staged);
        let sent = std::thread::spawn(move || {
            std::io::Write::write_all(&mut sender, &bytes[..bytes.len() / 2]).map(|()| sender)
        });
        let cut = tokio::time::timeout(std::time::Duration::from_millis(200), &mut staged).await;
        assert!(cut.is_err(), "it waits for the rest");
        assert_eq!(names_in(dir.path()), [UPLOAD]);
        drop(sent);
    }
    assert!(names_in(dir.path()).is_empty());
}

#[tokio::test]
async fn the_newest_stay_and_only_whole_backups_of_this_gateway_go() {
    let place = GatewayDir::new().await;
    let out = private_dir();
    let others = GatewayDir::new().await;
    others.back_up(&out.path().join("n-0.tar")).await.unwrap();
    fs::write(out.path().join("n-1.tar"), "no backup at all").unwrap();
    fs::write(out.path().join("letter-1.tar"), "").unwrap();
    symlink("/etc/passwd", out.path().join("n-00.tar")).unwrap();
    for n in 2..7 {
        let file = out.path().join(format!("n-{n}.tar"));
        let order = Order { keep: NonZeroUsize::new(2), history: false, ..place.order(&file) };
        let made = make(&order, silent()).await.unwrap();
        assert_eq!(made.removed.len(), usize::from(n > 3), "{n}");
    }
    let left = ["letter-1.tar", "n-0.tar", "n-00.tar", "n-1.tar", "n-5.tar", "n-6.tar"];
    assert_eq!(names_in(out.path()), left);
}

/// Half of a copy over the network, or of a full disk.
#[tokio::test]
async fn what_was_cut_off_is_none_of_those_that_are_kept() {
    let place = GatewayDir::new().await;
    let out = private_dir();
    let whole = out.path().join("n-1.tar");
    place.back_up(&whole).await.unwrap();
    let bytes = fs::read(&whole).unwrap();
    for (n, len) in [(7, bytes.len() / 3), (8, bytes.len() - 2_048), (9, 20_000)] {
        fs::write(out.path().join(format!("n-{n}.tar")), &bytes[..len]).unwrap();
    }
    let file = out.path().join("n-2.tar");
    let order = Order { keep: NonZeroUsize::new(2), ..place.order(&file) };
    assert_eq!(make(&order, silent()).await.unwrap().removed, Vec::<PathBuf>::new());
    assert_eq!(names_in(out.path()), ["n-1.tar", "n-2.tar", "n-7.tar", "n-8.tar", "n-9.tar"]);
}

#[tokio::test]
async fn a_backup_that_fails_removes_no_older_one() {
    let place = GatewayDir::new().await;
    let out = private_dir();
    place.back_up(&out.path().join("n-1.tar")).await.unwrap();
    fs::write(place.dir.path().join("gateway.key"), PrivateKey::from_bytes([3; 32]).to_base64()).unwrap();
    let order = Order { keep: NonZeroUsize::new(1), ..place.order(&out.path().join("n-2.tar")) };
    let error = make(&order, silent()).await.unwrap_err().to_string();
    assert!(error.contains("is not the key of its database"), "{error}");
    assert_eq!(names_in(out.path()), ["n-1.tar"]);
}

#[tokio::test]
async fn a_directory_that_holds_something_is_not_restored_into() {
    let place = GatewayDir::new().await;
    let out = private_dir();
    let made = place.back_up(out.path()).await.unwrap();
    for name in ["gateway.key", "fleetgate.db", "letter.txt", ".hidden", "first-start"] {
        let dir = private_dir();
        fs::write(dir.path().join(name), "").unwrap();
        let error = restore_to(&made.file, dir.path()).await.unwrap_err().to_string();
        assert!(error.contains("is not empty") && error.contains(name), "{error}");
    }
    let error = restore_to(&made.file, place.dir.path()).await.unwrap_err().to_string();
    assert!(error.contains("is not empty"), "{error}");
}

#[tokio::test]
async fn the_administrators_settings_stay_and_those_of_the_backup_lie_beside_them() {
    let place = GatewayDir::new().await;
    fs::write(place.dir.path().join("fleetgate.toml"), "keepalive = 30\n").unwrap();
    let out = private_dir();
    let made = place.back_up(out.path()).await.unwrap();
    let dir = private_dir();
    fs::write(dir.path().join("fleetgate.toml"), "keepalive = 25\n").unwrap();
    restore_to(&made.file, dir.path()).await.unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("fleetgate.toml")).unwrap(), "keepalive = 25\n");
    assert_eq!(fs::read_to_string(dir.path().join("fleetgate.toml.restored")).unwrap(), "keepalive = 30\n");
}

#[tokio::test]
async fn a_backup_that_was_cut_off_anywhere_is_refused() {
    let place = GatewayDir::new().await;
    let out = private_dir();
    let made = place.back_up(&out.path().join("whole.tar")).await.unwrap();
    let whole = fs::read(&made.file).unwrap();
    let cut = out.path().join("cut.tar");
    let digests = whole.len() - 1_024 - 1_024;
    for length in (0..30).map(|n| digests * n / 30).chain([1, 511, 512, digests - 1, digests]) {
        fs::write(&cut, &whole[..length]).unwrap();
        let error = refused(&cut).await;
        assert!(error.contains("cut.tar"), "{length}: {error}");
    }
}

#[tokio::test]
async fn a_byte_that_was_changed_anywhere_in_a_file_is_found() {
    let place = GatewayDir::new().await;
    let out = private_dir();
    let made = place.back_up(&out.path().join("whole.tar")).await.unwrap();
    let whole = fs::read(&made.file).unwrap();
    let changed = out.path().join("changed.tar");
    for n in 0..40 {
        // Within the content of blocks: the padding of a last block belongs to no file.
        let at = (whole.len() - 8_192) * n / 40 / 512 * 512 + 17;
        let mut bytes = whole.clone();
        bytes[at] ^= 0x20;
        fs::write(&changed, bytes).unwrap();
        let dir = private_dir();
        assert!(restore_to(&changed, dir.path()).await.is_err(), "byte {at}");
        assert_eq!(names_in(dir.path()), ["lock"]);
    }
    let mut longer = whole;
    longer.extend_from_slice(b"and more");
    fs::write(&changed, longer).unwrap();
    assert!(refused(&changed).await.contains("behind its end"));
}

/// Writes a tar archive of these entries.
fn tarred(out: &Path, entries: &[(&str, &[u8], tar::EntryType)]) {
    let mut tar = tar::Builder::new(File::create(out).unwrap());
    for (name, content, kind) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(content.len() as u64);
        header.set_entry_type(*kind);
        header.set_cksum();
        tar.append(&header, *content).unwrap();
    }
    tar.finish().unwrap();
}

fn entries_of(file: &Path) -> Vec<(String, Vec<u8>)> {
    let mut tar = tar::Archive::new(File::open(file).unwrap());
    let read = |entry: io::Result<tar::Entry<'_, File>>| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (String::from_utf8_lossy(&entry.path_bytes()).into_owned(), content)
    };
    tar.entries().unwrap().map(read).collect()
}

#[tokio::test]
async fn an_archive_that_was_made_by_hand_writes_nothing_elsewhere_and_is_refused() {
    let place = GatewayDir::new().await;
    let out = private_dir();
    let order = Order { history: false, ..place.order(&out.path().join("whole.tar")) };
    let made = make(&order, silent()).await.unwrap();
    let whole = entries_of(&made.file);
    let regular = tar::EntryType::Regular;
    let as_they_are: Vec<(&str, &[u8], tar::EntryType)> =
        whole.iter().map(|(name, content)| (name.as_str(), content.as_slice(), regular)).collect();
    let forged = out.path().join("forged.tar");
    tarred(&forged, &as_they_are);
    let dir = private_dir();
    assert!(restore_to(&forged, dir.path()).await.is_ok(), "a copy is as good");

    let with = |at: usize, extra: (&'static str, &'static [u8], tar::EntryType)| {
        let mut entries = as_they_are.clone();
        entries.insert(at, extra);
        entries
    };
    let other = PrivateKey::from_bytes([3; 32]).to_base64().to_string();
    let replaced = |name: &str, content: &'static [u8]| -> Vec<(&str, &[u8], tar::EntryType)> {
        as_they_are.iter().map(|e| if e.0 == name { (e.0, content, e.2) } else { *e }).collect()
    };
    let other: &'static [u8] = other.into_bytes().leak();
    for (entries, said) in [
        (with(1, ("../gateway.key", b"x", regular)), "which no backup has"),
        (with(1, ("/etc/cron.d/x", b"x", regular)), "which no backup has"),
        (with(1, ("gateway.key", b"", tar::EntryType::Symlink)), "is no file"),
        (with(1, ("gateway.key", b"", tar::EntryType::Link)), "is no file"),
        (with(1, ("././@LongLink", b"gateway.key", tar::EntryType::GNULongName)), "is no file"),
        (with(1, ("././@LongLink", b"gateway.key", tar::EntryType::GNULongLink)), "is no file"),
        (with(1, ("pax", b"20 path=gateway.key\n", tar::EntryType::XHeader)), "is no file"),
        (with(0, ("pax", b"20 path=gateway.key\n", tar::EntryType::XGlobalHeader)), "is no file"),
        (with(2, ("gateway.key", b"x", regular)), "twice"),
        (with(0, ("gateway.key", b"x", regular)), "begins with"),
        (with(as_they_are.len(), ("history.db", b"x", regular)), "behind its digests"),
        (replaced("gateway.key", other), "damaged or changed"),
        (replaced("fleetgate-backup.json", b"{}"), "format"),
        (as_they_are.iter().filter(|e| e.0 != "gateway.key").copied().collect(), "gateway.key is missing"),
        (as_they_are.iter().filter(|e| e.0 != "SHA256SUMS").copied().collect(), "digests are missing"),
    ] {
        tarred(&forged, &entries);
        let error = refused(&forged).await;
        assert!(error.contains(said), "{said}: {error}");
    }
}

#[tokio::test]
async fn what_is_no_backup_and_what_is_newer_is_said() {
    let out = private_dir();
    let file = out.path().join("x.tar");
    for content in [&b""[..], b"hello", &[0; 4_096]] {
        fs::write(&file, content).unwrap();
        let error = refused(&file).await;
        assert!(error.contains("no backup of fleetgate"), "{error}");
    }
    assert!(refused(&out.path().join("nowhere.tar")).await.contains("cannot open"));
    let place = GatewayDir::new().await;
    fixture::run(&place.store, "insert into _sqlx_migrations (version, description, success, checksum, execution_time) values (999, 'later', 1, x'00', 0)", &[]).await;
    let made = place.back_up(&out.path().join("newer.tar")).await.unwrap();
    let error = refused(&made.file).await;
    assert!(error.contains("newer fleetgate") && error.contains("999"), "{error}");
}

#[tokio::test]
async fn a_restore_that_is_cut_off_while_it_moves_goes_on() {
    let place = GatewayDir::new().await;
    let out = private_dir();
    let made = place.back_up(out.path()).await.unwrap();
    for moved in 0..=CONTENTS_OF_A_GATEWAY.len() {
        let dir = private_dir();
        let old = Identity::open(dir.path(), &|_| Ok(())).unwrap().wireguard.public();
        stage(File::open(&made.file).unwrap(), dir.path()).await.unwrap();
        // The state of an interrupted restore: the old gateway is out of the way, and some files are in
        // place.
        let aside = new_folder(dir.path(), "before-restore").unwrap();
        fs::write(dir.path().join("history-1.db"), "half converted").unwrap();
        move_gateway(dir.path(), &aside).unwrap();
        assert!(aside.join("history-1.db").exists() && !dir.path().join("history-1.db").exists());
        fs::write(dir.path().join(".fleetgate-restore/moved"), "").unwrap();
        for name in &CONTENTS_OF_A_GATEWAY[..moved] {
            fs::rename(dir.path().join(".fleetgate-restore").join(name), dir.path().join(name)).unwrap();
        }
        assert!(finish_restore(dir.path()).unwrap() && !finish_restore(dir.path()).unwrap());
        let now = Identity::read(dir.path()).unwrap().wireguard.public();
        assert!(now == made.head.key && now != old);
        assert_eq!(Identity::read(&aside).unwrap().wireguard.public(), old, "nothing is lost");
        assert!(dir.path().join("history.db").exists() && !dir.path().join(".fleetgate-restore").exists());
    }
}

const CONTENTS_OF_A_GATEWAY: [&str; 4] = ["gateway.key", "gateway_ssh_key", "fleetgate.db", "history.db"];

#[tokio::test]
async fn a_restore_that_is_cut_off_while_it_reads_is_no_gateway_and_can_be_done_again() {
    let place = GatewayDir::new().await;
    let out = private_dir();
    let made = place.back_up(out.path()).await.unwrap();
    let dir = private_dir();
    fs::create_dir(dir.path().join(".fleetgate-restore")).unwrap();
    fs::write(dir.path().join(".fleetgate-restore/gateway.key"), "half").unwrap();
    let error = crate::first_start::examine(dir.path()).await.unwrap_err().to_string();
    assert!(error.contains("cut off") && error.contains("fleetgate restore FILE"), "{error}");
    restore_to(&made.file, dir.path()).await.unwrap();
    assert!(crate::first_start::examine(dir.path()).await.is_ok());
}

#[tokio::test]
async fn progress_only_grows_and_names_each_step() {
    let place = GatewayDir::new().await;
    let out = private_dir();
    let seen: Arc<Mutex<Vec<(Phase, u8)>>> = Arc::default();
    let told = seen.clone();
    let progress: Progress = Arc::new(move |phase, percent| told.lock().unwrap().push((phase, percent)));
    make(&place.order(out.path()), progress).await.unwrap();
    let seen = seen.lock().unwrap();
    for pair in seen.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
        assert!(pair[0].1 <= pair[1].1, "{pair:?}");
    }
    let first = |phase| seen.iter().position(|(seen, _)| *seen == phase);
    assert!(first(Phase::Database) < first(Phase::History), "the redo is in the database");
    for phase in [Phase::Database, Phase::History, Phase::Checking, Phase::Writing, Phase::Reading] {
        assert!(seen.contains(&(phase, 100)), "{phase:?}");
    }
}

#[tokio::test]
async fn a_damaged_database_is_named_and_there_is_no_backup() {
    for (name, said) in [("history.db", "--without-history"), ("fleetgate.db", "fleetgate.db")] {
        let place = GatewayDir::new().await;
        place.store.close().await;
        let file = place.dir.path().join(name);
        let size = fs::metadata(&file).unwrap().len();
        let mut bytes = fs::read(&file).unwrap();
        let middle = usize::try_from(size / 2 / 4096 * 4096).unwrap();
        bytes[8_192..middle + 8_192].fill(0x5a);
        fs::write(&file, bytes).unwrap();
        let out = private_dir();
        let error = format!("{:#}", place.back_up(out.path()).await.unwrap_err());
        assert!(error.contains(said), "{name}: {error}");
        assert!(names_in(out.path()).is_empty());
    }
}

async fn series_of(store: &Store) -> Vec<String> {
    let series = store.series(HostId::from_i64(9), None).await.unwrap();
    series.iter().map(|s| format!("{} {} {} {}", s.id, s.service, s.label, s.uom)).collect()
}
