use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::api::testing::TestApi;
use crate::cli::Connection;

const KEY: &str = "mUD4m9tbXHZpx8F0vlLZ0TmT8rY0bvv8Zd2q8dGHR1s=";
const LONG: &str = "bridge-north-camera-07";

struct Scene {
    client: Client,
    dir: tempfile::TempDir,
    _api: TestApi,
}

impl Scene {
    async fn new() -> Scene {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let api = TestApi::with_endpoint().await;
        let url = format!("http://{}", api.serve(api.router()).await);
        let token = Some(api.operator_token().to_owned());
        let client = Client::new(&Connection { data: None, url: Some(url), token, json: false }).unwrap();
        Scene { client, dir: tempfile::tempdir().unwrap(), _api: api }
    }

    async fn import(&self, text: &str, out: &str, dry_run: bool) -> anyhow::Result<()> {
        let file = self.dir.path().join("fleet.csv");
        std::fs::write(&file, text).unwrap();
        run(&self.client, ImportArgs { file, out: Some(self.dir.path().join(out)), dry_run }).await
    }

    async fn devices(&self) -> Vec<Device> {
        pages(&self.client, "/devices", &[]).await.unwrap()
    }

    /// The files of an archive; all must be their owner's alone.
    fn archive(&self, name: &str) -> BTreeMap<String, String> {
        let path = self.dir.path().join(name);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(std::fs::File::open(path).unwrap()).entries().unwrap() {
            let mut entry = entry.unwrap();
            assert_eq!(entry.header().mode().unwrap(), 0o600);
            let (path, mut text) = (entry.path().unwrap().display().to_string(), String::new());
            entry.read_to_string(&mut text).unwrap();
            files.insert(path, text);
        }
        files
    }
}

#[tokio::test]
async fn a_table_becomes_devices_and_an_archive_and_once_more_changes_nothing() {
    let scene = Scene::new().await;
    let text = format!(
        "name,labels,public_key,networks\ncam-01,site=hill;kind=cam,,\ncam-02,,{KEY},\n{LONG},,,192.168.7.0/24\n"
    );
    scene.import(&text, "dry.tar", true).await.unwrap();
    assert!(scene.devices().await.is_empty() && !scene.dir.path().join("dry.tar").exists());
    scene.import(&text, "one.tar", false).await.unwrap();
    let devices = scene.devices().await;
    assert_eq!(devices.len(), 3);
    let named = |name: &str| devices.iter().find(|d| d.name == name).unwrap();
    assert_eq!(json!(named("cam-01").labels), json!({ "site": "hill", "kind": "cam" }));
    assert_eq!(named(LONG).networks, ["192.168.7.0/24"]);
    let files = scene.archive("one.tar");
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(names, ["bridge-north-camera-07/bridge-north-ca.conf", "cam-01.conf", "cam-02.conf"]);
    let has_key = |name: &str| files[name].contains("\nPrivateKey = ");
    assert!(has_key("cam-01.conf") && !has_key("cam-02.conf"), "only of a key that the gateway generated");
    scene.import(&text, "two.tar", false).await.unwrap();
    assert_eq!(scene.devices().await, devices);
    assert!(!scene.dir.path().join("two.tar").exists(), "there is nothing to put into it");
}

#[tokio::test]
async fn what_is_wrong_is_found_before_anything_is_changed() {
    let scene = Scene::new().await;
    scene.import(&format!("name,public_key\ncam-01,{KEY}\n"), "one.tar", false).await.unwrap();
    let text = format!("name,public_key,profile\nnew,,\ntwin,{KEY},\nother,,nope\n");
    let refused = scene.import(&text, "two.tar", false).await.unwrap_err().to_string();
    assert!(refused.contains("fleet.csv: 2 errors; nothing was changed"), "{refused}");
    let refused = scene.import("name\nnew\n", "one.tar", false).await.unwrap_err();
    assert!(format!("{refused:#}").starts_with("nothing was changed: cannot make"), "{refused:#}");
    assert_eq!(scene.devices().await.len(), 1);
}

#[tokio::test]
async fn an_existing_device_is_skipped_and_never_changed_and_another_key_is_refused() {
    let scene = Scene::new().await;
    scene.import("name,labels\ncam-01,site=hill\n", "one.tar", false).await.unwrap();
    let before = scene.devices().await;
    scene.import("name,labels\ncam-01,site=sea\ncam-02,\n", "two.tar", false).await.unwrap();
    assert_eq!(scene.devices().await[0], before[0]);
    assert_eq!(scene.archive("two.tar").len(), 1);
    let text = format!("name,public_key\ncam-01,{KEY}\n");
    assert!(scene.import(&text, "three.tar", false).await.is_err());
    let known = look(&scene.client).await.unwrap();
    let (rows, _) = table_file::read(b"name,labels\ncam-01,site=sea\n");
    let (steps, _) = plan::plan(rows, &known);
    assert_eq!(steps[0].to_string(), "= cam-01: exists, skipped; not changed: labels");
    let (rows, _) = table_file::read(text.as_bytes());
    let (_, wrong) = plan::plan(rows, &known);
    assert!(wrong[0].what.contains("cam-01 exists with another key"), "{wrong:?}");
}

#[test]
fn two_thousand_lines_are_read_and_planned() {
    let lines: String = (0..2_000).map(|n| format!("cam-{n:04},site=s{};kind=cam\n", n % 40)).collect();
    let (rows, wrong) = table_file::read(format!("name,labels\n{lines}").as_bytes());
    assert_eq!((rows.len(), wrong.len()), (2_000, 0));
    let (steps, wrong) = plan::plan(rows, &Inventory::default());
    assert_eq!((counts(&steps), wrong.len()), ("2000 devices".to_owned(), 0));
}
