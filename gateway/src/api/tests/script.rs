//! The enrolment script, run by the system's shells against this API.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::api::testing::TestApi;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/api/enrol/enrol.sh");
const HELPER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/api/enrol/rental-access.sh");

/// The shells that read the scripts on devices.
pub(super) const SHELLS: [&[&str]; 4] = [&["sh"], &["dash"], &["bash", "--posix"], &["busybox", "sh"]];

pub(super) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).exists())
}

#[test]
fn every_shell_reads_the_script() {
    for shell in SHELLS.into_iter().filter(|shell| has(shell[0])) {
        for script in [SCRIPT, HELPER] {
            let read = std::process::Command::new(shell[0]).args(&shell[1..]).arg("-n").arg(script).output();
            let read = read.unwrap();
            assert!(read.status.success(), "{shell:?} {script}: {}", String::from_utf8_lossy(&read.stderr));
        }
    }
}

#[test]
fn the_script_has_no_known_mistakes() {
    if has("shellcheck") {
        let read =
            std::process::Command::new("shellcheck").args(["--shell=sh", SCRIPT, HELPER]).output().unwrap();
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stdout));
    }
}

struct Device {
    dir: tempfile::TempDir,
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// The method and the `Authorization` of a request.
type Seen = (String, Option<String>);

impl Device {
    /// Serves the API on loopback.
    async fn new(api: &TestApi) -> Device {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let notes = seen.clone();
        let noted = move |request: axum::extract::Request, next: axum::middleware::Next| {
            let text = |v: &axum::http::HeaderValue| v.to_str().unwrap().to_owned();
            let authorization = request.headers().get("authorization").map(text);
            notes.lock().unwrap().push((request.method().to_string(), authorization));
            next.run(request)
        };
        let router = api.router().layer(axum::middleware::from_fn(noted));
        let url = format!("http://{}", api.serve(router).await);
        Device { dir: tempfile::tempdir().unwrap(), url, seen }
    }

    fn etc(&self) -> PathBuf {
        self.dir.path().join("wireguard")
    }

    async fn run(&self, path: Option<&Path>, arguments: &[&str]) -> Output {
        let mut command = tokio::process::Command::new("/bin/sh");
        command.arg(SCRIPT).arg("--no-start").args(arguments);
        command.env("FLEETGATE_URL", &self.url).env("FLEETGATE_ETC", self.etc());
        if let Some(path) = path {
            command.env("PATH", path);
        }
        command.output().await.unwrap()
    }

    /// Checks that the script sends its polling secret only in polls, not in the enrolment.
    fn keeps_its_secret(&self) {
        let secret = std::fs::read_to_string(self.etc().join("fleetgate.poll")).unwrap();
        let bearer = format!("Bearer {}", secret.trim());
        for (method, authorization) in self.seen.lock().unwrap().iter() {
            let expected = (method == "GET").then_some(bearer.as_str());
            assert_eq!(authorization.as_deref(), expected, "{method}");
        }
    }

    /// Returns the files in the configuration folder with their contents.
    fn files(&self) -> BTreeMap<String, String> {
        let entries = std::fs::read_dir(self.etc()).unwrap().map(|e| e.unwrap().path());
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        entries.map(|path| (name(&path), std::fs::read_to_string(&path).unwrap())).collect()
    }

    fn conf(&self) -> String {
        std::fs::read_to_string(self.etc().join("fleetgate.conf")).unwrap()
    }
}

async fn token(api: &TestApi, body: serde_json::Value) -> String {
    let made = api.operator().post("/api/v1/enrolment-tokens", body).await;
    made.json["secret"].as_str().unwrap().to_owned()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_enrols_itself_and_a_second_run_changes_nothing() {
    if !has("wg") || !has("curl") {
        return;
    }
    let api = TestApi::with_endpoint().await;
    let device = Device::new(&api).await;
    let key_file = device.dir.path().join("host.pub");
    let host_key = fleetgate_keys::SshKey::generate("root@cam\"1").public();
    std::fs::write(&key_file, format!("{host_key}\n")).unwrap();
    let token = token(&api, json!({})).await;
    let arguments = ["--token", &token, "--name", "cam1", "--ssh-host-key", key_file.to_str().unwrap()];
    let first = device.run(None, &arguments).await;
    assert!(first.status.success(), "{}", told(&first));
    let text = device.conf();
    let conf: fleetgate_keys::Conf = text.parse().unwrap();
    let shown = api.viewer().get("/api/v1/devices/cam1").await.json;
    let public = conf.private_key.as_ref().unwrap().public().to_string();
    assert_eq!(shown["tunnel"]["public_key"], public);
    assert_eq!(shown["ssh"]["pin"], host_key.fingerprint());
    assert!(conf.psk.is_some() && conf.keepalive == Some(25) && conf.mtu == Some(1_280));
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(device.etc().join("fleetgate.conf")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    device.keeps_its_secret();

    for again in [&arguments[..], &[]] {
        let again = device.run(None, again).await;
        assert!(again.status.success(), "{}", told(&again));
        assert_eq!(device.conf(), text);
    }
}

/// Returns a `PATH` with a packet filter that does nothing.
fn with_packet_filter(device: &Device) -> PathBuf {
    let bin = device.dir.path().join("filter");
    std::fs::create_dir_all(&bin).unwrap();
    let nft = bin.join("nft");
    std::fs::write(&nft, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&nft, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_behind_a_device_are_kept_replaced_and_given_up() {
    if !has("wg") || !has("curl") {
        return;
    }
    let api = TestApi::with_endpoint().await;
    let device = Device::new(&api).await;
    let path = with_packet_filter(&device);
    let token = token(&api, json!({})).await;
    let first = ["--token", &token, "--name", "cam1"];
    let run = async |arguments: &[&str]| {
        let done = device.run(Some(&path), &[&first[..], arguments].concat()).await;
        assert!(done.status.success(), "{arguments:?}: {}", told(&done));
    };
    let set = |name: &str| {
        let script = device.files().remove("fleetgate.forward").expect("a script");
        let start = format!("{name}='");
        let line = script.lines().find_map(|line| line.strip_prefix(&start)).map(str::to_owned);
        line.expect(name).trim_end_matches('\'').to_owned()
    };
    run(&[]).await;
    let without = device.conf();
    assert!(!without.contains("PostUp"));

    run(&["--network", "192.168.7.0/24", "--network", "fd00:7::/64,10.9.0.0/16"]).await;
    assert_eq!(set("networks"), "192.168.7.0/24 fd00:7::/64 10.9.0.0/16");
    assert_eq!(set("pools"), "10.112.0.0/14 fd72:6c65:6574::/64");
    let script = device.etc().join("fleetgate.forward");
    let with = device.conf();
    let hook = |when: &str, what: &str| format!("\n{when} = sh {} {what} || true\n", script.display());
    assert!(with.contains(&hook("PostUp", "up")) && with.contains(&hook("PostDown", "down")), "{with}");
    let other: String = with.split_inclusive('\n').filter(|line| !line.starts_with("Post")).collect();
    assert_eq!(other, without);
    for shell in SHELLS {
        if has(shell[0]) {
            let mut read = std::process::Command::new(shell[0]);
            let read = read.args(&shell[1..]).arg("-n").arg(&script).output().unwrap();
            assert!(read.status.success(), "{shell:?}: {}", String::from_utf8_lossy(&read.stderr));
        }
    }

    let former = device.files();
    run(&[]).await;
    assert_eq!(device.files(), former, "a run without the option keeps them");
    run(&["--network", "192.168.8.0/24"]).await;
    assert_eq!((set("networks").as_str(), device.conf()), ("192.168.8.0/24", with));
    let given_up = device.run(Some(&path), &[&first[..], &["--no-networks"]].concat()).await;
    assert!(given_up.status.success() && told(&given_up).contains("stay as they are"), "{}", told(&given_up));
    assert_eq!(device.conf(), without);
    assert!(!script.exists());
    let again = device.run(Some(&path), &[&first[..], &["--no-networks"]].concat()).await;
    assert!(again.status.success() && !told(&again).contains("stay as they are"), "{}", told(&again));
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_the_other_program_go_after_the_new_ones_are_set() {
    if !has("wg") || !has("curl") {
        return;
    }
    let api = TestApi::with_endpoint().await;
    let device = Device::new(&api).await;
    let path = with_packet_filter(&device);
    let token = token(&api, json!({})).await;
    let done = device.run(Some(&path), &["--token", &token, "--network", "192.168.7.0/24"]).await;
    assert!(done.status.success(), "{}", told(&done));
    let log = device.dir.path().join("calls");
    let unusable = "case $* in *'-L FORWARD') exit 1 ;; esac\n";
    for (program, ending) in [("nft", ""), ("iptables", unusable), ("ip6tables", unusable)] {
        let text = format!("#!/bin/sh\necho {program} $* >>{}\n{ending}", log.display());
        let file = device.dir.path().join("filter").join(program);
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    // The filters of this machine are not touched, and `down` turns nothing on.
    let mut down = tokio::process::Command::new("/bin/sh");
    down.arg(device.etc().join("fleetgate.forward")).arg("down").env("PATH", &path);
    let down = down.output().await.unwrap();
    assert!(down.status.success(), "{}", told(&down));
    let calls = std::fs::read_to_string(&log).unwrap();
    let at = |call: &str| calls.find(call).unwrap_or_else(|| panic!("{call:?} is not in {calls}"));
    assert!(at("nft -f -") < at("iptables -w -t filter -D FORWARD -j fleetgate-fleetgate"), "{calls}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_with_commands_in_it_gets_into_no_script() {
    if !has("wg") || !has("curl") {
        return;
    }
    let api = TestApi::with_endpoint().await;
    let answer = "id=e_1\nstate=approved\nname=cam1\npublic_key=x\nendpoint=192.0.2.1:51820\n\
        addresses=10.112.0.2/32\nallowed_ips=10.112.0.0/14'; id; '\npreshared_key=x\nmtu=1280\nkeepalive_s=25\n";
    let hostile = axum::Router::new().fallback(move || async move { answer });
    let device = Device { url: format!("http://{}", api.serve(hostile).await), ..Device::new(&api).await };
    let path = with_packet_filter(&device);
    let refused = device.run(Some(&path), &["--token", "fge_x", "--network", "192.168.7.0/24"]).await;
    assert!(
        told(&refused).contains("allowed_ips of the gateway's answer are no networks"),
        "{}",
        told(&refused)
    );
    let written = device.files();
    let lacks = |name: &str| !written.contains_key(name);
    assert!(lacks("fleetgate.forward") && lacks("fleetgate.conf"), "{written:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_is_none_and_a_missing_packet_filter_are_named() {
    if !has("wg") || !has("curl") {
        return;
    }
    let api = TestApi::with_endpoint().await;
    let device = Device::new(&api).await;
    let path = with_packet_filter(&device);
    let token = token(&api, json!({})).await;
    for bad in ["192.168.7.1", "0.0.0.0/0", "192.168.7.0/33", "192.168.7.256/24", "::/0", "fd00::/129", "x;y"]
        .into_iter()
        .chain(["*", "127.0.0.0/8", "224.0.0.0/4", "1.2.3/24", "1.2.3.4/24/8"])
    {
        let refused = device.run(Some(&path), &["--token", &token, "--network", bad]).await;
        let says = format!("--network: {bad} is no network: a prefix such as 192.168.7.0/24 is expected");
        assert!(told(&refused).contains(&says), "{bad}: {}", told(&refused));
    }
    let both = ["--token", &token, "--network", "192.168.7.0/24", "--no-networks"];
    assert!(told(&device.run(Some(&path), &both).await).contains("exclude each other"));
    let odd = ["--token", &token, "--network", "192.168.7.0/24", "--etc", "/tmp/a b"];
    assert!(told(&device.run(Some(&path), &odd).await).contains("--etc: with --network, an absolute path"));

    let bare = device.dir.path().join("bare");
    std::fs::create_dir(&bare).unwrap();
    for tool in ["wg", "curl", "sha256sum", "id", "tr", "sed", "awk"] {
        let dirs = ["/usr/bin", "/bin"].map(|d| Path::new(d).join(tool));
        let found = dirs.iter().find(|p| p.exists()).unwrap();
        std::os::unix::fs::symlink(found, bare.join(tool)).unwrap();
    }
    let none = device.run(Some(&bare), &["--token", &token, "--network", "192.168.7.0/24"]).await;
    let says = "--network needs nft or iptables: install nftables, then run this again";
    assert!(told(&none).contains(says), "{}", told(&none));
    assert!(!device.etc().exists(), "nothing was asked of the gateway");
}

#[tokio::test(flavor = "multi_thread")]
async fn wget_does_as_well_as_curl() {
    if !has("wg") || !has("wget") {
        return;
    }
    let api = TestApi::with_endpoint().await;
    let device = Device::new(&api).await;
    let bin = device.dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let tools =
        "sh wg wget sha256sum cut sed head tail tr cat mv rm mkdir mktemp id hostname cp cmp chmod sleep awk";
    for tool in tools.split(' ') {
        let dirs = ["/usr/bin", "/bin"].map(|d| Path::new(d).join(tool));
        let found = dirs.iter().find(|p| p.exists()).unwrap();
        std::os::unix::fs::symlink(found, bin.join(tool)).unwrap();
    }
    let token = token(&api, json!({})).await;
    let refused = device.run(Some(&bin), &["--token", "fge_x", "--name", "cam1"]).await;
    assert_eq!(refused.status.code(), Some(4), "{}", told(&refused));
    let done = device.run(Some(&bin), &["--token", &token, "--name", "cam1"]).await;
    assert!(done.status.success(), "{}", told(&done));
    assert!(device.conf().contains("PresharedKey = "));
    device.keeps_its_secret();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_waits_for_its_approval_and_resumes_without_the_token() {
    if !has("wg") || !has("curl") {
        return;
    }
    let api = TestApi::with_endpoint().await;
    let device = Device::new(&api).await;
    let token = token(&api, json!({ "needs_approval": true })).await;
    let waits = device.run(None, &["--token", &token, "--name", "cam1", "--wait", "0"]).await;
    assert_eq!(waits.status.code(), Some(3), "{}", told(&waits));
    assert!(told(&waits).contains("waiting for an operator to approve cam1"));
    let queue = api.operator().get("/api/v1/enrolments").await;
    let id = queue.json["items"][0]["id"].as_str().unwrap().to_owned();
    api.operator().post(&format!("/api/v1/enrolments/{id}/approve"), json!({})).await;
    let done = device.run(None, &[]).await;
    assert!(done.status.success(), "{}", told(&done));
    assert!(device.conf().contains("vpn.example.net:51820"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_is_said_with_what_to_do() {
    if !has("wg") || !has("curl") {
        return;
    }
    let api = TestApi::with_endpoint().await;
    let device = Device::new(&api).await;
    let good = token(&api, json!({ "uses": null })).await;
    api.operator().post("/api/v1/devices", json!({ "name": "taken" })).await;
    for (arguments, says) in [
        (&["--token", "fge_nonsense", "--name", "cam1"][..], "typo"),
        (&["--token", &good, "--name", "taken"], "run this again with another --name"),
        (&["--token", &good, "--name", "UPPER"], "a name has 1 to 63"),
        (&["--token", "x;reboot"], "this is not a token"),
        (&["--nonsense"], "is no option"),
        (&[], "the token is missing"),
        (&["--token", &good, "--url", "ftp://x"], "where is the gateway"),
        (&["--token", &good, "--interface", "a/b"], "--interface"),
        (&["--token", &good, "--url", "http://127.0.0.1:1"], "no answer from http://127.0.0.1:1"),
    ] {
        let refused = device.run(None, arguments).await;
        assert!(!refused.status.success());
        assert!(told(&refused).contains(says), "{arguments:?}: {}", told(&refused));
        assert!(!device.etc().join("fleetgate.conf").exists());
    }
    let two = ["--token", &good, "--name", "UPPER", "--ssh-host-key"];
    let key_file = device.dir.path().join("host.pub");
    std::fs::write(&key_file, "ssh-ed25519 AAAA\n").unwrap();
    let refused = device.run(None, &[&two[..], &[key_file.to_str().unwrap()]].concat()).await;
    assert!(told(&refused).contains("error: name: a name has 1 to 63"), "{}", told(&refused));
    assert!(!told(&refused).contains(['{', '[', '}']), "{}", told(&refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_for_renters_that_cannot_be_is_named_before_anything_is_done() {
    let api = TestApi::with_endpoint().await;
    let device = Device::new(&api).await;
    let long = "a".repeat(33);
    for (arguments, says) in [
        (&["--rental-user", "a b"][..], "a b is no name of an account"),
        (&["--rental-user", "Renter"], "Renter is no name of an account"),
        (&["--rental-user", "-u"], "-u is no name of an account"),
        (&["--rental-user", &long], "is no name of an account"),
        (&["--rental-user", "renter", "--no-rental-user"], "exclude each other"),
        (&["--rental-user", "renter"], "--rental-user and --no-start exclude each other"),
    ] {
        let refused = device.run(None, arguments).await;
        assert!(!refused.status.success() && told(&refused).contains(says), "{}", told(&refused));
        assert!(!device.etc().exists());
    }
}

#[tokio::test]
async fn an_account_that_can_become_root_by_a_group_is_refused_unless_that_is_meant() {
    let dir = tempfile::tempdir().unwrap();
    let groups = "'-Gn renter') echo renter docker ;;";
    for (name, body) in [
        ("id", format!("case $* in -u) echo 0 ;; '-u renter') echo 1000 ;; {groups} *) exit 1 ;; esac")),
        ("wg", "echo key".to_owned()),
        ("curl", "exit 1".to_owned()),
    ] {
        let file = dir.path().join(name);
        std::fs::write(&file, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let run = async |more: &[&str]| {
        let mut command = tokio::process::Command::new("/bin/sh");
        command.args([SCRIPT, "--url", "http://127.0.0.1:1", "--rental-user", "renter"]).args(more);
        command.env("PATH", &path).env("FLEETGATE_ETC", dir.path().join("etc"));
        told(&command.output().await.unwrap())
    };
    let refused = run(&[]).await;
    assert!(refused.contains("renter can become root by the group docker"), "{refused}");
    assert!(!dir.path().join("etc").exists(), "nothing was done");
    let meant = run(&["--rental-root"]).await;
    assert!(meant.contains("error: the token is missing"), "{meant}");
}

#[tokio::test]
async fn the_script_carries_the_helper_and_the_authority_of_renters() {
    let api = TestApi::with_endpoint().await;
    let served = api.viewer().get("/enrol.sh").await.text;
    let helper = std::fs::read_to_string(HELPER).unwrap();
    assert!(served.contains(&format!("<<'RENTAL_ACCESS'\n{}\nRENTAL_ACCESS\n", helper.trim_end())));
    assert!(!helper.contains("RENTAL_ACCESS") && !served.contains("@FLEETGATE_"));
    let authority = served.lines().find(|line| line.starts_with("RENTAL_CA=")).unwrap();
    assert!(authority.starts_with("RENTAL_CA='ssh-ed25519 AAAA"), "{authority}");
}

/// Returns a server that answers a TLS handshake with something else.
async fn no_tls() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"SSH-2.0-x\r\n").await;
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_tls_is_named_and_not_the_advice_below_it() {
    if !has("wg") || !has("curl") {
        return;
    }
    let device = Device::new(&TestApi::with_endpoint().await).await;
    let token = token(&TestApi::with_endpoint().await, json!({})).await;
    let url = no_tls().await;
    let refused = device.run(None, &["--token", &token, "--name", "cam1", "--url", &url]).await;
    assert!(told(&refused).contains(&format!("no answer from {url}: (")), "{}", told(&refused));

    // The errors of a certificate end in advice. The script reads them from here.
    let script = std::fs::read_to_string(SCRIPT).unwrap();
    let function = |name: &str| {
        let from = script.find(&format!("\n{name}() {{")).unwrap();
        &script[from..from + script[from..].find("\n}\n").unwrap() + 3]
    };
    let functions = format!("die() {{ echo \"$*\"; }}{}{}", function("reason"), function("unanswered"));
    std::fs::write(
        device.dir.path().join("errors"),
        "curl: (60) SSL certificate problem: unable to get local issuer certificate\n\
         More details here: https://curl.se/docs/sslcerts.html\n\ncurl failed to verify the legitimacy\n",
    )
    .unwrap();
    let expected = "no answer from gw: (60) SSL certificate problem: unable to get local issuer certificate";
    for (ca, advice) in [("", ": if its authority is your own, add --cacert FILE"), ("ca.pem", "")] {
        let mut shell = tokio::process::Command::new("/bin/sh");
        shell.arg("-euc").arg(format!("{functions}unanswered")).env("TMP", device.dir.path());
        let said = shell.env("URL", "gw").env("CACERT", ca).output().await.unwrap().stdout;
        assert_eq!(String::from_utf8_lossy(&said), format!("{expected}{advice}\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_device_comes_back_with_a_new_key() {
    if !has("wg") || !has("curl") {
        return;
    }
    let api = TestApi::with_endpoint().await;
    let device = Device::new(&api).await;
    let token = token(&api, json!({ "uses": null })).await;
    let arguments = ["--token", &token, "--name", "cam1"];
    assert!(device.run(None, &arguments).await.status.success());
    api.operator().delete("/api/v1/devices/cam1").await;
    let refused = device.run(None, &arguments).await;
    assert!(told(&refused).contains("--new-key"), "{}", told(&refused));
    let again = device.run(None, &[&arguments[..], &["--new-key"]].concat()).await;
    assert!(again.status.success(), "{}", told(&again));
}

#[tokio::test(flavor = "multi_thread")]
async fn old_keys_stay_until_the_gateway_has_agreed_to_the_new_ones() {
    if !has("wg") || !has("curl") {
        return;
    }
    let api = TestApi::with_endpoint().await;
    let device = Device::new(&api).await;
    let open = token(&api, json!({})).await;
    let slow = token(&api, json!({ "needs_approval": true, "uses": null })).await;
    assert!(device.run(None, &["--token", &open, "--name", "cam1"]).await.status.success());
    let works = device.files();
    let kept = || works.iter().all(|(name, text)| device.files().get(name) == Some(text));

    let away = device.run(None, &["--new-key", "--token", &slow, "--url", "http://127.0.0.1:1"]).await;
    assert!(!away.status.success() && kept(), "{}", told(&away));
    let refused = device.run(None, &["--new-key", "--token", "fge_nonsense", "--name", "cam2"]).await;
    assert_eq!(refused.status.code(), Some(4), "{}", told(&refused));
    assert_eq!(device.files(), works);

    let ask = ["--new-key", "--token", &slow, "--name", "cam2", "--wait", "0"];
    for verdict in ["reject", "approve"] {
        for arguments in [&ask[..], &ask[..], &["--wait", "0"]] {
            let waits = device.run(None, arguments).await;
            assert_eq!(waits.status.code(), Some(3), "{}", told(&waits));
        }
        assert!(kept());
        let queue = api.operator().get("/api/v1/enrolments?state=awaiting_approval").await;
        let items = queue.json["items"].as_array().unwrap();
        let [asked] = &items[..] else { panic!("the same key asks again: {items:?}") };
        let id = asked["id"].as_str().unwrap();
        api.operator().post(&format!("/api/v1/enrolments/{id}/{verdict}"), json!({})).await;
        let decided = device.run(None, &[]).await;
        if verdict == "reject" {
            assert_eq!(decided.status.code(), Some(4), "{}", told(&decided));
            assert_eq!(device.files(), works);
        } else {
            assert!(decided.status.success(), "{}", told(&decided));
        }
    }
    let now = device.files();
    assert_eq!(now.keys().collect::<Vec<_>>(), works.keys().collect::<Vec<_>>());
    assert!(now.iter().all(|(name, text)| works[name] != *text), "{:?}", now.keys());
}
