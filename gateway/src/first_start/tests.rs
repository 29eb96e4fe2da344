use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::Duration;

use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::Sample;
use fleetgate_keys::{Token, TokenKind};
use fleetgate_probes::sample::Metric;
use tempfile::TempDir;

use super::*;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::data_dir::start::{Reached, StartStep};
use crate::history::testing::record;
use crate::identity::Identity;
use crate::server::Server;
use crate::store::access::Role;
use crate::store::tokens::{self, ApiToken};
use crate::store::{Store, filled, fixture};

async fn start(dir: &Path, reached: Reached<'_>) -> anyhow::Result<Server> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let data = DataDir::open(dir)?;
    let mut config = Config::load(dir, None)?;
    (config.listen, config.api_listen) = (([127, 0, 0, 1], 0).into(), ([127, 0, 0, 1], 0).into());
    Server::start_noting(config, data, reached).await
}

async fn refused(dir: &Path) -> String {
    match start(dir, &|_| Ok(())).await {
        Ok(_) => panic!("it starts"),
        Err(error) => format!("{error:#}"),
    }
}

/// Logs in with the first administrator's name and password.
async fn logs_in(server: &Server) -> bool {
    let first = server.first_admin.as_ref().expect("a login is shown");
    let http = reqwest::Client::new();
    let body = serde_json::json!({ "name": first.name, "password": first.password.as_str() });
    let asked = http.post(format!("http://{}/api/v1/session", server.api)).json(&body);
    asked.send().await.unwrap().status().is_success()
}

/// Runs a first start to its end.
async fn gateway() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &|_| Ok(())).await.unwrap();
    server.login_shown().unwrap();
    server.stop().await;
    dir
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_that_fails_after_any_step_is_completed_by_the_next() {
    for failing in StartStep::ALL {
        let dir = tempfile::tempdir().unwrap();
        let fail = |step| if step == failing { anyhow::bail!("cut off") } else { Ok(()) };
        match start(dir.path(), &fail).await {
            // The start succeeded, but its login was never shown.
            Ok(server) => server.stop().await,
            Err(error) => assert_eq!(error.to_string(), "cut off", "{failing:?}"),
        }
        let key = fs::read(dir.path().join(WIREGUARD_FILE)).ok();
        let server = start(dir.path(), &|_| Ok(())).await.unwrap_or_else(|e| panic!("{failing:?}: {e:#}"));
        assert!(logs_in(&server).await, "{failing:?}");
        if let Some(key) = key {
            assert_eq!(fs::read(dir.path().join(WIREGUARD_FILE)).unwrap(), key, "{failing:?}");
        }
        server.login_shown().unwrap();
        server.stop().await;
        let server = start(dir.path(), &|_| Ok(())).await.unwrap();
        assert!(server.first_admin.is_none() && !lies_in(dir.path(), FIRST_START), "{failing:?}");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_half_made_is_completed_from_any_step_on() {
    for steps in 0..=fixture::schema_steps() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        begin(dir.path()).unwrap();
        fixture::half_made(dir.path(), steps).await;
        let server = start(dir.path(), &|_| Ok(())).await.unwrap_or_else(|e| panic!("{steps}: {e:#}"));
        assert!(logs_in(&server).await, "{steps}");
        server.stop().await;
    }
}

/// Makes a token of an administrator.
async fn token(store: &Store) -> Token {
    let id = crate::ids::new_id(crate::clock::wall());
    let secret = Token::generate(TokenKind::Api, id);
    let row = ApiToken {
        id,
        name: "test".into(),
        role: Role::Admin,
        user: None,
        customer: None,
        scopes: Vec::new(),
        created_by: "test".into(),
        created_at: crate::clock::wall(),
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
    };
    let mut tx = store.begin().await.unwrap();
    tokens::insert(&mut tx, &row, &secret.hash()).await.unwrap();
    tx.commit().await.unwrap();
    secret
}

async fn ask(server: &Server, token: &Token, path: &str) -> serde_json::Value {
    let asked = reqwest::Client::new().get(format!("http://{}/api/v1{path}", server.api));
    let answer = asked.bearer_auth(token.reveal()).send().await.unwrap();
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert!(status.is_success(), "{path}: {text}");
    serde_json::from_str(&text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_starts_from_a_filled_database_of_an_earlier_version_and_answers_from_it() {
    for steps in [2, fixture::steps_before("causes"), fixture::schema_steps()] {
        let dir = gateway().await;
        for end in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(dir.path().join(format!("{MAIN_FILE}{end}")));
        }
        let seal = Identity::open(dir.path(), &|_| Ok(())).unwrap().seal_key();
        filled::make(dir.path(), steps, &seal).await;
        let server = start(dir.path(), &|_| Ok(())).await.unwrap_or_else(|e| panic!("{steps}: {e:#}"));
        let token = token(&server.state.store).await;
        let hosts = ask(&server, &token, "/hosts").await;
        let names: Vec<_> = hosts["items"].as_array().unwrap().iter().map(|host| &host["name"]).collect();
        assert_eq!(names, ["camera", "site-gw"], "{steps}");
        for path in [
            "/hosts/site-gw",
            "/devices/site-gw",
            "/problems",
            "/overview",
            "/incidents",
            "/downtimes",
            "/contacts",
            "/rules",
            "/messages",
            "/notifications",
            "/profiles",
            "/events",
            "/enrolments",
            "/enrolment-tokens",
            "/tokens",
            "/users",
        ] {
            ask(&server, &token, path).await;
        }
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_was_used_is_not_replaced_by_a_mark_that_stays() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &|_| Ok(())).await.unwrap();
    assert!(logs_in(&server).await);
    server.stop().await;
    let server = start(dir.path(), &|_| Ok(())).await.unwrap();
    assert!(server.first_admin.is_none());
    server.stop().await;
}

fn overwrite(file: &Path, at: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt as _;
    fs::OpenOptions::new().write(true).open(file).unwrap().write_all_at(bytes, at).unwrap();
}

type Harm = (&'static str, fn(&Path));

const HARMS: [Harm; 9] = [
    ("missing", |file| fs::remove_file(file).unwrap()),
    ("0 bytes", |file| fs::write(file, "").unwrap()),
    ("a zeroed header", |file| overwrite(file, 0, &[0; 100])),
    ("a zeroed first page", |file| overwrite(file, 0, &[0; 4096])),
    ("truncated to a page", |file| {
        fs::OpenOptions::new().write(true).open(file).unwrap().set_len(4096).unwrap();
    }),
    ("truncated within a page", |file| {
        fs::OpenOptions::new().write(true).open(file).unwrap().set_len(10_000).unwrap();
    }),
    ("text", |file| fs::write(file, "this is no database at all\n".repeat(200)).unwrap()),
    ("a directory", |file| {
        fs::remove_file(file).unwrap();
        fs::create_dir(file).unwrap();
    }),
    ("a link to nothing", |file| {
        fs::remove_file(file).unwrap();
        symlink("/nowhere/fleetgate.db", file).unwrap();
    }),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_has_lost_its_database_does_not_start_and_says_what_to_do() {
    for (harm, inflict) in HARMS {
        let dir = gateway().await;
        inflict(&dir.path().join(MAIN_FILE));
        let error = refused(dir.path()).await;
        for part in [MAIN_FILE, "fleetgate restore FILE", dir.path().to_str().unwrap()] {
            assert!(error.contains(part), "{harm}: {error}");
        }
        assert_eq!(refused(dir.path()).await, error, "{harm}: nothing was changed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_a_gateways_rows_is_no_start_either() {
    for statements in [
        &["drop table settings"][..],
        &["delete from settings", "delete from login_links", "delete from users"][..],
    ] {
        let dir = gateway().await;
        fixture::run_on(&dir.path().join(MAIN_FILE), statements).await;
        let error = refused(dir.path()).await;
        assert!(error.contains("would watch nothing") && error.contains("--new"), "{error}");
    }
    let dir = gateway().await;
    fs::remove_file(dir.path().join(MAIN_FILE)).unwrap();
    fixture::run_on(&dir.path().join(MAIN_FILE), &["create table other (x integer)"]).await;
    let error = refused(dir.path()).await;
    assert!(error.contains("holds no gateway's rows"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_gateway_sets_the_files_of_the_old_one_aside_and_a_good_one_stays() {
    let dir = gateway().await;
    assert_eq!(start_over(dir.path()).await.unwrap(), None, "it lacks nothing");
    let key = fs::read(dir.path().join(WIREGUARD_FILE)).unwrap();
    fs::write(dir.path().join(MAIN_FILE), "").unwrap();
    let folder = start_over(dir.path()).await.unwrap().expect("a folder");
    for name in [WIREGUARD_FILE, SSH_FILE, MAIN_FILE, HISTORY_FILE] {
        assert!(folder.join(name).exists() && !dir.path().join(name).exists(), "{name}");
    }
    let server = start(dir.path(), &|_| Ok(())).await.unwrap();
    assert!(logs_in(&server).await);
    assert_ne!(fs::read(dir.path().join(WIREGUARD_FILE)).unwrap(), key);
    assert_eq!(fs::read(folder.join(WIREGUARD_FILE)).unwrap(), key);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_its_keys_does_not_get_others() {
    for name in [WIREGUARD_FILE, SSH_FILE] {
        let dir = gateway().await;
        fs::remove_file(dir.path().join(name)).unwrap();
        let error = refused(dir.path()).await;
        assert!(error.contains(name) && error.contains("fleetgate restore FILE"), "{error}");
        assert!(!dir.path().join(name).exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_of_no_use_is_set_aside_and_a_new_one_begins() {
    for (harm, inflict) in HARMS.into_iter().skip(1) {
        let dir = gateway().await;
        inflict(&dir.path().join(HISTORY_FILE));
        begins_anew(dir.path(), harm).await;
    }
    let others: [(&str, &[&str]); 3] = [
        ("a table that is missing", &["drop table raw"]),
        ("another schema", &["alter table raw add column more text"]),
        ("steps of another program", &["update _sqlx_migrations set checksum = x'00'"]),
    ];
    for (harm, statements) in others {
        let dir = gateway().await;
        fixture::run_on(&dir.path().join(HISTORY_FILE), statements).await;
        begins_anew(dir.path(), harm).await;
    }
    let dir = gateway().await;
    fs::copy(dir.path().join(MAIN_FILE), dir.path().join(HISTORY_FILE)).unwrap();
    begins_anew(dir.path(), "the main database").await;
}

async fn begins_anew(dir: &Path, harm: &str) {
    let server = start(dir, &|_| Ok(())).await.unwrap_or_else(|e| panic!("{harm}: {e:#}"));
    assert!(server.state.store.history.was_set_aside(), "{harm}");
    assert!(server.state.store.raw(1, 0, 1).await.is_ok(), "{harm}");
    let told =
        fixture::texts(&server.state.store, "select data from events where kind = 'history.set_aside'");
    assert!(told.await.concat().contains("history.db.damaged-"), "{harm}");
    let health = reqwest::get(format!("http://{}/healthz", server.api)).await.unwrap();
    let health = health.text().await.unwrap();
    assert!(health.contains("set aside") && health.contains("degraded"), "{harm}: {health}");
    let ready = reqwest::get(format!("http://{}/readyz", server.api)).await.unwrap();
    assert!(ready.status().is_success(), "{harm}");
    server.stop().await;
    let again = start(dir, &|_| Ok(())).await.unwrap_or_else(|e| panic!("{harm}: {e:#}"));
    let aside = fs::read_dir(dir).unwrap().flatten().filter(|e| {
        let name = e.file_name().to_string_lossy().into_owned();
        name.starts_with("history.db.damaged-") && !name.ends_with("-wal") && !name.ends_with("-shm")
    });
    assert_eq!(aside.count(), 1, "{harm}: once");
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_was_not_made_yet_when_the_gateway_was_killed_is_not_damaged() {
    let dir = gateway().await;
    let history = dir.path().join(HISTORY_FILE);
    fs::write(&history, "").unwrap();
    fs::write(files::beside(&history, "-journal"), [0_u8; 512]).unwrap();
    let server = start(dir.path(), &|_| Ok(())).await.unwrap();
    assert!(!server.state.store.history.was_set_aside());
    assert!(server.state.store.raw(1, 0, 1).await.is_ok());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_is_removed_or_of_a_newer_version_is_not_damaged() {
    let dir = gateway().await;
    fs::remove_file(dir.path().join(HISTORY_FILE)).unwrap();
    let server = start(dir.path(), &|_| Ok(())).await.unwrap();
    assert!(!server.state.store.history.was_set_aside());
    server.stop().await;
    let newer = ["insert into _sqlx_migrations (version, description, success, checksum, execution_time)
                  values (999, 'later', 1, x'00', 0)"];
    fixture::run_on(&dir.path().join(HISTORY_FILE), &newer).await;
    let error = refused(dir.path()).await;
    assert!(error.contains("newer fleetgate (schema 999)"), "{error}");
}

/// Two thousand samples of the first schema, one a minute up to now.
const OLD_SAMPLES: [&str; 2] = [
    "insert into series (id, host, service, label, uom) values (1, 9, 'ping', 'rta', 'ms')",
    "with recursive n(x) as (select 1 union all select x + 1 from n where x < 2000)
     insert into samples select 1, (unixepoch() - x * 60) * 1000, x from n",
];

/// Returns the values of the series of the older history, with those since, the oldest first.
async fn all_values(server: &Server) -> Vec<f64> {
    let (host, state) = (HostId::from_i64(9), &server.state);
    let series = state.store.series(host, Some("ping")).await.unwrap();
    assert_eq!(series.iter().map(|s| s.label.as_str()).collect::<Vec<_>>(), ["rta"]);
    let end = crate::clock::wall().as_millis() / 1_000 + 60;
    let found = state.history.series(series[0].id, end - 3 * 86_400, end).await.unwrap();
    found.into_iter().filter_map(|point| point.value).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_history_is_converted_while_the_gateway_takes_samples_and_its_file_goes() {
    let dir = gateway().await;
    fs::remove_file(dir.path().join(HISTORY_FILE)).unwrap();
    fixture::old_history(dir.path()).await;
    fixture::run_on(&dir.path().join(HISTORY_FILE), &OLD_SAMPLES).await;
    let server = start(dir.path(), &|_| Ok(())).await.unwrap();
    let metrics = [Metric::plain("rta", 0.5, "ms")].into();
    let (host, at) = (HostId::from_i64(9), crate::clock::wall());
    let sample = Sample { host, service: "ping".into(), at, metrics };
    record(&server.state.history, &server.state.store, &[sample]).await;
    let converted = async {
        while dir.path().join(OLD_HISTORY_FILE).exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), converted).await.expect("it is converted");
    assert!(!server.state.store.history.was_set_aside());
    let all: Vec<f64> = (1..=2_000i32).rev().map(f64::from).chain([0.5]).collect();
    assert!(all_values(&server).await == all, "in the running gateway");
    server.stop().await;
    let again = start(dir.path(), &|_| Ok(())).await.unwrap();
    assert!(all_values(&again).await == all, "after the next start");
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_others_own_is_named_with_the_remedy() {
    let dir = gateway().await;
    let file = dir.path().join(MAIN_FILE);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    if File::open(&file).is_ok() {
        return; // root reads everything
    }
    let error = refused(dir.path()).await;
    assert!(error.contains("chown"), "{error}");
}
