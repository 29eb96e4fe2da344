//! Secrets that are planted in every possible place must not appear in any log, event, response, metric
//! or listing.
//!
//! The test runs the real program at level debug. Its mail server and its webhook receiver fail and
//! repeat the text that they received. It does not search backups, which contain everything by design,
//! the responses that show a new secret once, or the first login, which the first start prints.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fleetgate_keys::{PrivateKey, SshKey};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const PROGRAM: &str = env!("CARGO_BIN_EXE_fleetgate");
/// Timeout for a busy machine, not a promise of speed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Fields of the responses that show a secret once.
const SHOWN_ONCE: [&str; 6] = ["secret", "webhook_secret", "private_key", "preshared_key", "url", "command"];
/// Name of the secrets that users with the right to change them see, and that the database stores for
/// delivery. The mailboxes of rentals are among them.
const ADDRESS: &str = "webhook address";
/// Name of what is personal data: who works with customers and bookings sees it there, and nobody elsewhere.
const PERSONAL: &str = "personal data";
/// The lists that have it.
const OF_PEOPLE: [&str; 5] = ["/bookings", "/customers", "/people", "/rentals", "/renters"];

// -------------------------------------------------------------------- secrets

/// The secrets that must not appear, each with its name.
#[derive(Default)]
struct Secrets(Vec<(String, String)>);

impl Secrets {
    /// Creates a secret that can be part of an address, a file and a password alike.
    fn plant(&mut self, what: &str) -> String {
        let mut bytes = [0; 12];
        getrandom::fill(&mut bytes).expect("random bytes");
        let secret: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let secret = format!("zq{secret}");
        self.keep(what, &secret);
        secret
    }

    /// Adds a secret that the gateway created.
    fn keep(&mut self, what: &str, secret: &str) {
        assert!(secret.len() >= 16, "{what}: {secret:?} is too short to be looked for");
        self.0.push((what.to_owned(), secret.to_owned()));
    }

    /// Adds all secrets that a response shows once.
    fn keep_shown(&mut self, what: &str, answer: &Value) {
        match answer {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value.as_str().filter(|_| SHOWN_ONCE.contains(&name.as_str())) {
                        Some(secret) => self.keep(&format!("{what}: {name}"), secret),
                        None => self.keep_shown(what, value),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.keep_shown(what, item)),
            _ => {}
        }
    }

    /// Returns the secrets in the text, except those that are allowed there.
    fn leaks(&self, place: &str, text: &str, may: &[&str]) -> Vec<String> {
        let hidden = self.0.iter().filter(|(what, _)| !may.iter().any(|may| what.starts_with(may)));
        let there = hidden.filter(|(_, secret)| text.contains(secret.as_str()));
        there.map(|(what, _)| format!("{what} in {place}")).collect()
    }
}

// -------------------------------------------------------------------- servers

fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    (listener, port)
}

/// Refuses the login, and repeats everything it received in the reply.
fn mail_server() -> u16 {
    let (listener, port) = listen();
    std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| drop(refuse_login(stream))));
    port
}

fn refuse_login(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(b"220 mail.example ESMTP\r\n")?;
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?;
        match line.split(' ').next().unwrap_or_default() {
            "EHLO" => stream.write_all(b"250-mail.example\r\n250 AUTH PLAIN LOGIN\r\n")?,
            "QUIT" => return stream.write_all(b"221 bye\r\n"),
            _ => stream.write_all(format!("535 what is {line}\r\n").as_bytes())?,
        }
    }
    Ok(())
}

/// Responds to each path in its own way, and repeats the path.
fn web_server() -> u16 {
    let (listener, port) = listen();
    std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| drop(answer(stream))));
    port
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut first = String::new();
    let mut reader = BufReader::new(stream.try_clone()?);
    reader.read_line(&mut first)?;
    let path = first.split(' ').nth(1).unwrap_or("/").to_owned();
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let status = match path.split('/').nth(1) {
        Some("gone") => "410 Gone",
        Some("moved") => "302 Found",
        Some("taken") => "204 No Content",
        _ => "500 Internal Server Error",
    };
    let body = if status.starts_with("204") { String::new() } else { format!("{path} failed") };
    let head = format!("HTTP/1.1 {status}\r\nlocation: {path}\r\nretry-after: 1\r\nconnection: close\r\n");
    stream.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes())
}

// -------------------------------------------------------------------- gateway

struct Gateway {
    dir: tempfile::TempDir,
    process: Child,
    port: u16,
    owner: reqwest::Client,
    http: reqwest::Client,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Gateway {
    async fn start(settings: &str) -> Gateway {
        let dir = tempfile::tempdir().expect("a folder");
        fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).expect("our own");
        let port = listen().1;
        let (at_start, log) = (dir.path().join("stdout"), dir.path().join("log"));
        let mut serve = Command::new(PROGRAM);
        serve.arg("--data").arg(dir.path()).arg("serve");
        serve.stdout(File::create(at_start).expect("a file")).stderr(File::create(log).expect("a file"));
        let _ = rustls::crypto::ring::default_provider().install_default();
        let owner = reqwest::Client::builder().unix_socket(dir.path().join("fleetgate.sock"));
        let (owner, http) = (owner.build().expect("a client"), reqwest::Client::new());
        write(&dir.path().join("fleetgate.toml"), &format!("api_listen = \"127.0.0.1:{port}\"\n{settings}"));
        let process = serve.spawn().expect("it runs");
        let gateway = Gateway { dir, process, port, owner, http };
        gateway.until("it answers", async || gateway.ask(Method::GET, "/gateway", None).await.is_ok()).await;
        gateway
    }

    async fn until(&self, what: &str, yes: impl AsyncFn() -> bool) {
        let begin = Instant::now();
        while !yes().await {
            assert!(begin.elapsed() < PATIENCE, "not in time: {what}; {}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).expect("a log")
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> reqwest::Result<(StatusCode, Value)> {
        let mut request = self.owner.request(method, format!("http://localhost/api/v1{path}"));
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        Ok((status, serde_json::from_str(&answer.text().await?).unwrap_or_default()))
    }

    /// Calls the API as its owner and expects success.
    async fn does(&self, method: Method, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(method, path, Some(&body)).await.expect("an answer");
        assert!(status.is_success(), "{path}: {status} {answer}");
        answer
    }

    async fn posts(&self, path: &str, body: Value) -> Value {
        self.does(Method::POST, path, body).await
    }

    async fn gets(&self, path: &str) -> Value {
        self.ask(Method::GET, path, None).await.expect("an answer").1
    }

    /// Collects the event stream from now on, for the user with the most rights.
    async fn listens(&self) -> Arc<Mutex<String>> {
        let heard = Arc::new(Mutex::new(String::new()));
        let kept = heard.clone();
        let mut answer = self.owner.get("http://localhost/api/v1/stream").send().await.expect("a stream");
        tokio::spawn(async move {
            while let Ok(Some(chunk)) = answer.chunk().await {
                kept.lock().expect("no holder panics").push_str(&String::from_utf8_lossy(&chunk));
            }
        });
        heard
    }

    /// Returns a request over TCP, without a login.
    fn call(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("http://127.0.0.1:{}{path}", self.port))
    }

    fn cli(&self, args: &[&str]) -> Output {
        let mut command = Command::new(PROGRAM);
        command.arg("--data").arg(self.dir.path()).args(args).stdin(Stdio::null());
        command.output().expect("it runs")
    }

    fn hang_up(&self) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-s", "HUP", &pid]).status().expect("kill").success());
    }
}

fn write(file: &Path, text: &str) {
    fs::write(file, text).expect("a file");
    fs::set_permissions(file, Permissions::from_mode(0o600)).expect("our own");
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

// ------------------------------------------------------------------- planting

fn settings(secrets: &mut Secrets, mail: u16, web: u16) -> String {
    let (password, ping) = (secrets.plant("the mail password"), secrets.plant("the heartbeat's address"));
    secrets.keep("the mail login", &base64(&format!("\0gate\0{password}")));
    secrets.keep("the mail password in base64", &base64(&password));
    format!(
        "listen = \"127.0.0.1:0\"\nendpoint = \"127.0.0.1:51820\"\nlog_filter = \"debug\"\n\
         [mail]\nhost = \"127.0.0.1\"\nport = {mail}\nsecurity = \"none\"\nuser = \"gate\"\n\
         password = \"{password}\"\nfrom = \"gate@example.org\"\nto = [\"ops@example.org\"]\n\
         [heartbeat]\nurl = \"http://127.0.0.1:{web}/ping/{ping}\"\ninterval = 5\n"
    )
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// Creates contacts with webhooks: each fails in another way, one works, and one has a port without a
/// listener.
async fn plant_webhooks(gateway: &Gateway, secrets: &mut Secrets, web: u16) {
    let nobody = listen().1;
    for (name, port, path) in [
        ("gone", web, "gone"),
        ("busy", web, "busy"),
        ("moved", web, "moved"),
        ("taken", web, "taken"),
        ("away", nobody, "x"),
    ] {
        let (token, key) = (secrets.plant("webhook address, path"), secrets.plant("webhook address, query"));
        let url = format!("http://127.0.0.1:{port}/{path}/{token}?key={key}");
        let body = json!({ "name": name, "emails": ["ada@example.org"], "webhook_url": url });
        secrets.keep_shown("contact", &gateway.posts("/contacts", body).await);
        gateway.posts(&format!("/contacts/{name}/test"), json!({})).await;
    }
    let renewed = gateway.posts("/contacts/gone/webhook-secret", json!({})).await;
    secrets.keep_shown("renewed", &renewed);
    gateway.posts("/contacts/default/test", json!({})).await;
    gateway.posts("/rules", json!({ "name": "all", "contact": "taken" })).await;
}

/// Creates subscriptions: one fails and repeats what it received, and one works. Each gets the events of a rental.
async fn plant_subscriptions(gateway: &Gateway, secrets: &mut Secrets, web: u16) {
    for answer in ["busy", "taken"] {
        let token = secrets.plant("webhook address of a subscription");
        let url = format!("http://127.0.0.1:{web}/{answer}/{token}");
        let made = gateway.posts("/subscriptions", json!({ "url": url })).await;
        secrets.keep("the secret of a subscription", made["secret"].as_str().expect("a secret"));
    }
    gateway.posts("/devices", json!({ "name": "rented" })).await;
    let rented = json!({ "rentable": true, "without": ["gate"] });
    gateway.does(Method::PUT, "/devices/rented/rental-settings", rented).await;
    gateway.posts("/customers", json!({ "external_ref": "crm-1" })).await;
    let mailbox = format!("{}@example.org", secrets.plant("webhook address beside a mailbox of a rental"));
    let contacts = json!([{ "name": "Ada", "email": mailbox }]);
    let items = json!([{ "device": "rented", "until": "2035-01-01T00:00:00Z", "contacts": contacts }]);
    let mut own = |what: &str| secrets.plant(&format!("{PERSONAL}, {what}"));
    let booking = json!({ "customer": "crm-1", "items": items, "notes": own("the notes of a booking"),
                          "metadata": { "order": own("the metadata of a booking") } });
    let booked = gateway.posts("/bookings", booking).await;
    let failed = async || {
        let listed = gateway.gets("/subscriptions").await;
        let items = listed["items"].as_array().cloned().unwrap_or_default();
        items.iter().any(|s| !s["last_error"].is_null()) && items.iter().any(|s| !s["delivered_at"].is_null())
    };
    gateway.until("each subscription was called", failed).await;
    let end = format!("/rentals/{}/end", booked["rentals"][0]["id"].as_str().expect("an id"));
    let note = secrets.plant(&format!("{PERSONAL}, the note of an end"));
    gateway.posts(&end, json!({ "reason": "ended", "note": note })).await;
}

async fn plant_access(gateway: &Gateway, secrets: &mut Secrets) {
    let password = secrets.plant("a user's password");
    let user = json!({ "name": "ada", "role": "viewer", "password": password });
    gateway.posts("/users", user).await;
    secrets.keep_shown("login link", &gateway.posts("/users/ada/login-link", json!({})).await);
    let login = gateway.call(Method::POST, "/api/v1/session");
    let login = login.json(&json!({ "name": "ada", "password": password })).send().await.expect("an answer");
    assert!(login.status().is_success(), "{}", login.status());
    let cookie = login.headers()["set-cookie"].to_str().expect("text");
    let cookie = cookie.split(['=', ';']).nth(1).expect("a cookie").to_owned();
    secrets.keep("a session's cookie", &cookie);
    let changed = secrets.plant("a changed password");
    gateway.does(Method::PATCH, "/users/ada", json!({ "password": changed })).await;
    let once = secrets.plant("a password for a repeated call");
    let body = json!({ "name": "eve", "role": "viewer", "password": once });
    for _ in 0..2 {
        let call = gateway.owner.post("http://localhost/api/v1/users").header("idempotency-key", "once");
        assert!(call.json(&body).send().await.expect("an answer").status().is_success());
    }
}

async fn plant_renters(gateway: &Gateway, secrets: &mut Secrets) {
    let ssh_key =
        SshKey::from_seed(&[9; 32], &secrets.plant("the comment of an SSH key")).public().to_string();
    let blob = ssh_key.split(' ').nth(1).expect("a key");
    secrets.keep(&format!("{PERSONAL}, an SSH key"), blob);
    let mut own = |what: &str| secrets.plant(&format!("{PERSONAL}, {what}"));
    let contact = json!({ "name": own("a contact"), "email": format!("{}@example.org", own("its mailbox")),
                          "phone": own("its phone") });
    let customer = json!({ "external_ref": "crm-17", "name": own("a customer"), "contacts": [contact] });
    gateway.posts("/customers", customer).await;
    let person = json!({ "customer": "crm-17", "name": own("a person"),
                         "email": format!("{}@example.org", own("the mailbox of a person")) });
    let person = gateway.posts("/people", person).await;
    let renter = json!({ "person": person["id"], "name": own("a renter"), "ssh_keys": [ssh_key] });
    let renter = gateway.posts("/renters", renter).await;
    secrets.keep_shown("renter", &renter);
    let path = format!("/renters/{}/credentials", renter["renter"]["id"].as_str().expect("an id"));
    secrets.keep_shown("new credentials of a renter", &gateway.posts(&path, json!({})).await);
    let link = gateway.posts("/customers/crm-17/login-link", json!({ "person": person["id"] })).await;
    let token = link["url"].as_str().and_then(|url| url.split_once("#token=")).expect("a link").1;
    secrets.keep("login link of a person", token);
    let login = gateway.call(Method::POST, "/api/v1/my/login").json(&json!({ "token": token }));
    let begun = login.send().await.expect("an answer");
    let cookie = begun.headers()["set-cookie"].to_str().expect("text");
    secrets.keep("session of a person", cookie.split(['=', ';']).nth(1).expect("a value"));
}

async fn plant_devices(gateway: &Gateway, secrets: &mut Secrets) {
    let made = gateway.posts("/devices", json!({ "name": "cam-1", "labels": { "site": "north" } })).await;
    secrets.keep_shown("a device", &made);
    secrets.keep_shown("new credentials", &gateway.posts("/devices/cam-1/credentials", json!({})).await);
    let password = secrets.plant("an operator's password");
    gateway.posts("/users", json!({ "name": "olga", "role": "operator", "password": password })).await;
    let operator = json!({ "name": "olga-laptop", "user": "olga" });
    secrets.keep_shown("operator", &gateway.posts("/operators", operator).await);
    let again = gateway.posts("/operators/olga-laptop/credentials", json!({})).await;
    secrets.keep_shown("new credentials of an operator", &again);
    plant_renters(gateway, secrets).await;
    let token = gateway.posts("/enrolment-tokens", json!({ "label": "north" })).await;
    secrets.keep_shown("an enrolment token", &token);
    let (poll, private) = (secrets.plant("a polling secret"), PrivateKey::from_bytes([7; 32]));
    let hash: String = Sha256::digest(&poll).iter().map(|b| format!("{b:02x}")).collect();
    let wish = json!({ "token": token["secret"], "name": "cam-2", "public_key": private.public().to_string(),
                       "poll_hash": hash });
    let asked = gateway.call(Method::POST, "/api/v1/enrol").json(&wish).send().await.expect("an answer");
    let asked: Value = asked.json().await.expect("JSON");
    let id = asked["id"].as_str().expect("an id");
    let psk = gateway.call(Method::GET, &format!("/api/v1/enrol/{id}/preshared-key")).bearer_auth(&poll);
    secrets.keep_shown("an enrolment", &psk.send().await.expect("an answer").json().await.expect("JSON"));
    let passive = json!({ "check": { "type": "passive" }, "max_check_attempts": 1 });
    gateway.does(Method::PUT, "/hosts/cam-1/services/backup", passive).await;
    for exit_status in [0, 2] {
        let result = json!({ "exit_status": exit_status, "output": "copied" });
        gateway.posts("/hosts/cam-1/services/backup/results", result).await;
    }
}

/// Adds the gateway's own keys, as in their files.
fn plant_own_keys(gateway: &Gateway, secrets: &mut Secrets) {
    for file in ["gateway.key", "gateway_ssh_key"] {
        let text = fs::read_to_string(gateway.dir.path().join(file)).expect("a key");
        let lines = text.lines().filter(|line| line.len() >= 40 && !line.starts_with("----"));
        lines.enumerate().for_each(|(n, line)| secrets.keep(&format!("{file}, line {n}"), line));
    }
}

/// Makes calls that are refused: at level debug the log contains their text.
async fn plant_refusals(gateway: &Gateway, secrets: &mut Secrets, web: u16) {
    let mut wrong = |what: &str| secrets.plant(what);
    let login = format!("http://u:{}@127.0.0.1:{web}/", wrong("the login of a refused address"));
    let ftp = format!("ftp://127.0.0.1/{}", wrong("the path of a refused address"));
    let metadata = format!("http://169.254.169.254/{}", wrong("the path of a forbidden address"));
    let direct = format!("u:{}@192.0.2.1", wrong("the login of a direct address"));
    let long = wrong("a list for a password");
    let guess = json!({ "name": "ada", "password": wrong("a wrong password") });
    for (method, path, body) in [
        (Method::POST, "/contacts", json!({ "name": "a", "webhook_url": login })),
        (Method::POST, "/contacts", json!({ "name": "a", "webhook_url": ftp })),
        (Method::POST, "/contacts", json!({ "name": "a", "webhook_url": metadata })),
        (Method::PATCH, "/contacts/gone", json!({ "webhook_url": login })),
        (Method::POST, "/subscriptions", json!({ "url": login })),
        (Method::POST, "/subscriptions", json!({ "url": metadata })),
        (Method::PATCH, "/devices/cam-1", json!({ "direct_address": direct })),
        (Method::POST, "/users", json!({ "name": "x", "role": "viewer", "password": [long] })),
        (Method::POST, "/session", guess),
        (Method::POST, "/session", json!({ "link": wrong("a wrong link") })),
        (Method::POST, "/my/login", json!({ "token": wrong("a wrong link of a person") })),
        (
            Method::POST,
            "/enrol",
            json!({ "token": wrong("a wrong enrolment token"), "name": "x", "public_key": "y",
                                         "poll_hash": "z" }),
        ),
        (
            Method::PUT,
            "/gateway/endpoint",
            json!({ "endpoint": format!("u:{}@host:1", wrong("the login of an endpoint")) }),
        ),
    ] {
        let (status, answer) = gateway.ask(method, path, Some(&body)).await.expect("an answer");
        assert!(status.is_client_error(), "{path}: {status} {answer}");
    }
    let token = wrong("a wrong token");
    let call = gateway
        .call(Method::GET, "/api/v1/hosts")
        .bearer_auth(&token)
        .header("cookie", format!("fleetgate={token}"));
    assert_eq!(call.send().await.expect("an answer").status(), StatusCode::UNAUTHORIZED);
    let query = format!("/api/v1/hosts?token={}", wrong("a token in a query"));
    let _ = gateway.call(Method::GET, &query).send().await.expect("an answer");
}

/// Loads settings into a running gateway that are invalid where a secret is expected.
async fn plant_broken_settings(gateway: &Gateway, secrets: &mut Secrets) {
    let file = gateway.dir.path().join("fleetgate.toml");
    let before = fs::read_to_string(&file).expect("the settings");
    let mut wrong = |what: &str| secrets.plant(what);
    let (open, table) = (wrong("a password without its end"), wrong("an address in place of a section"));
    let (bare, url) = (wrong("a password without quotes"), wrong("the login of the public URL"));
    let mailbox = wrong("the login of the heartbeat");
    for broken in [
        format!("[mail]\npassword = \"{open}\n"),
        format!("[mail]\npassword = {bare}\n"),
        format!("heartbeat = \"https://hc.example/{table}\"\n"),
        format!("mail = \"smtp://gate:{table}@mail.example\"\n"),
        format!("public_url = \"https://u:{url}@fleet.example\"\n"),
        format!("[heartbeat]\nurl = \"https://u:{mailbox}@hc.example/\"\n"),
    ] {
        let failures = |log: &str| log.matches("settings").count();
        let already = failures(&gateway.log());
        write(&file, &broken);
        gateway.hang_up();
        gateway.until("the log says what is wrong", async || failures(&gateway.log()) > already).await;
    }
    write(&file, &before);
    gateway.hang_up();
}

/// Applies a fleet file that creates a contact and changes its address.
fn plant_by_apply(gateway: &Gateway, secrets: &mut Secrets) -> Vec<(String, String)> {
    let fleet = gateway.dir.path().join("fleet.toml");
    let out = gateway.dir.path().join("out");
    let (file, out) = (fleet.to_str().expect("text"), out.to_str().expect("text"));
    let mut heard = Vec::new();
    for round in ["made", "changed"] {
        let url = format!("https://hooks.example.com/{}", secrets.plant("webhook address in a fleet file"));
        write(&fleet, &format!("[contacts.pager]\nwebhook_url = \"{url}\"\n"));
        for args in [
            ["apply", file, "--dry-run"].as_slice(),
            &["apply", file, "--yes", "--out", out],
            &["--json", "apply", file, "--dry-run"],
        ] {
            heard.push((format!("{args:?}, {round}"), said(&gateway.cli(args))));
        }
    }
    let key = fs::read_to_string(PathBuf::from(out).join("pager.webhook-secret")).expect("shown once");
    secrets.keep("a webhook secret by apply", key.trim());
    heard
}

// ------------------------------------------------------------------ searching

/// Creates tokens of the three roles.
async fn roles(gateway: &Gateway, secrets: &mut Secrets) -> Vec<(&'static str, String)> {
    let mut roles = Vec::new();
    for role in ["viewer", "operator", "admin"] {
        let made = gateway.posts("/tokens", json!({ "name": role, "role": role })).await;
        secrets.keep_shown("a token", &made);
        roles.push((role, made["secret"].as_str().expect("a secret").to_owned()));
    }
    roles
}

/// Returns every path of the OpenAPI document with a GET, with existing objects as parameters.
async fn paths(gateway: &Gateway) -> Vec<String> {
    let document = gateway.call(Method::GET, "/api/v1/openapi.json").send().await.expect("an answer");
    let document: Value = document.json().await.expect("JSON");
    let mut all = Vec::new();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        let own = path.strip_prefix("/api/v1").expect("the API");
        // A backup contains everything. The stream does not end, and is collected separately.
        if operations.get("get").is_some() && !own.ends_with("/file") && own != "/stream" {
            all.extend(filled(gateway, own).await);
        }
    }
    all
}

async fn filled(gateway: &Gateway, path: &str) -> Vec<String> {
    let mut begun = vec![String::new()];
    for part in path.split('/').skip(1) {
        let mut next = Vec::new();
        for so_far in begun {
            if !part.starts_with('{') {
                next.push(format!("{so_far}/{part}"));
                continue;
            }
            let list = if so_far == "/enrol" { "/enrolments".to_owned() } else { so_far.clone() };
            let listed = gateway.gets(&format!("{list}?limit=20")).await;
            let names = ["id", "name", "label"];
            let named = |item: &Value| names.iter().find_map(|name| item[name].as_str().map(str::to_owned));
            let items = listed["items"].as_array().cloned().unwrap_or_default();
            next.extend(items.iter().filter_map(named).map(|name| format!("{so_far}/{name}")));
        }
        begun = next;
    }
    begun
}

/// Returns the field with an address, for users who may change it. They see no other secret.
fn address_field(role: &str, path: &str) -> Option<&'static str> {
    match path {
        _ if role == "viewer" => None,
        _ if path.starts_with("/contacts") => Some("webhook_url"),
        _ if path.starts_with("/subscriptions") => Some("url"),
        _ if path.starts_with("/rentals/") => Some("email"),
        _ => None,
    }
}

async fn search_answers(gateway: &Gateway, secrets: &Secrets, roles: &[(&str, String)]) -> Vec<String> {
    let (mut leaks, paths) = (Vec::new(), paths(gateway).await);
    for (role, token) in roles {
        let mut got = 0;
        for path in &paths {
            let call = gateway.call(Method::GET, &format!("/api/v1{path}")).bearer_auth(token);
            let answer = call.send().await.expect("an answer");
            got += usize::from(answer.status().is_success());
            let text = answer.text().await.expect("text");
            let text = match address_field(role, path) {
                Some(field) => without_field(&text, field),
                None => text,
            };
            let sees_people = *role != "viewer" && OF_PEOPLE.iter().any(|list| path.starts_with(list));
            let may: &[&str] = if sees_people { &[PERSONAL] } else { &[] };
            leaks.extend(secrets.leaks(&format!("GET {path} of a {role}"), &text, may));
        }
        assert!(got >= 30, "only {got} of {} paths answered a {role}", paths.len());
    }
    for path in ["/metrics", "/healthz", "/readyz", "/enrol.sh", "/api/v1/openapi.json"] {
        let answer = gateway.call(Method::GET, path).send().await.expect("an answer");
        leaks.extend(secrets.leaks(path, &answer.text().await.expect("text"), &[]));
    }
    leaks
}

fn without_field(text: &str, field: &str) -> String {
    fn strip(value: &mut Value, field: &str) {
        match value {
            Value::Object(fields) => {
                fields.remove(field);
                fields.values_mut().for_each(|value| strip(value, field));
            }
            Value::Array(items) => items.iter_mut().for_each(|item| strip(item, field)),
            _ => {}
        }
    }
    let mut value: Value = serde_json::from_str(text).unwrap_or_default();
    strip(&mut value, field);
    value.to_string()
}

async fn search_events(gateway: &Gateway, secrets: &Secrets) -> Vec<String> {
    let (mut leaks, mut after, mut kinds) = (Vec::new(), 0, BTreeSet::new());
    loop {
        let page = gateway.gets(&format!("/events?since={after}&limit=500")).await;
        let items = page["items"].as_array().expect("events");
        for event in items {
            let kind = event["kind"].as_str().expect("a kind");
            kinds.insert(kind.to_owned());
            leaks.extend(secrets.leaks(&format!("the event {kind}"), &event.to_string(), &[]));
        }
        match items.last() {
            Some(last) => after = last["seq"].as_i64().expect("a number"),
            None => break,
        }
    }
    for kind in [
        "message.failed",
        "message.sent",
        "contact.created",
        "device.created",
        "user.created",
        "state.changed",
    ] {
        assert!(kinds.contains(kind), "no event {kind} among {kinds:?}");
    }
    leaks
}

fn search_listings(gateway: &Gateway, secrets: &Secrets) -> Vec<String> {
    let mut leaks = Vec::new();
    for words in [
        "status",
        "events -n 1000",
        "host list",
        "host show cam-1",
        "device list",
        "device show cam-1",
        "service show cam-1 backup",
        "contact list",
        "contact show gone",
        "rule list",
        "rule show all",
        "message list",
        "enrolment list",
        "token list",
        "user list",
        "customer person list",
        "renter list",
        "gateway show",
        "incident list",
        "downtime list",
        "profile list",
        "why cam-1",
        "subscription list",
        "rental events",
    ] {
        for json in [false, true] {
            let mut args: Vec<&str> = if json { vec!["--json"] } else { Vec::new() };
            args.extend(words.split(' '));
            let output = gateway.cli(&args);
            assert!(!said(&output).contains("Usage:"), "{words}: {}", said(&output));
            let may: &[&str] = match words.split(' ').next() {
                Some("contact" | "subscription") => &[ADDRESS],
                Some("customer" | "renter") => &[PERSONAL],
                _ => &[],
            };
            leaks.extend(secrets.leaks(&format!("fleetgate {}", args.join(" ")), &said(&output), may));
        }
    }
    leaks
}

/// The database contains no secret in clear except delivery addresses, and what is known of people.
fn search_database(gateway: &Gateway, secrets: &Secrets) -> Vec<String> {
    let mut leaks = Vec::new();
    for file in ["fleetgate.db", "fleetgate.db-wal", "history.db"] {
        let mut bytes = Vec::new();
        if let Ok(mut file) = File::open(gateway.dir.path().join(file)) {
            file.read_to_end(&mut bytes).expect("bytes");
        }
        let text = String::from_utf8_lossy(&bytes);
        leaks.extend(secrets.leaks(file, &text, &[ADDRESS, PERSONAL]));
    }
    leaks
}

#[tokio::test(flavor = "multi_thread")]
async fn no_planted_secret_is_found_anywhere() {
    let (mut secrets, mail, web) = (Secrets::default(), mail_server(), web_server());
    let settings = settings(&mut secrets, mail, web);
    let gateway = Gateway::start(&settings).await;
    let stream = gateway.listens().await;
    plant_own_keys(&gateway, &mut secrets);
    plant_devices(&gateway, &mut secrets).await;
    plant_webhooks(&gateway, &mut secrets, web).await;
    plant_subscriptions(&gateway, &mut secrets, web).await;
    plant_access(&gateway, &mut secrets).await;
    plant_refusals(&gateway, &mut secrets, web).await;
    let heard = plant_by_apply(&gateway, &mut secrets);
    let tried = async || {
        let messages = gateway.gets("/messages?limit=100").await;
        let items = messages["items"].as_array().cloned().unwrap_or_default();
        let open = |m: &&Value| m["sent_at"].is_null() && m["last_error"].is_null();
        // One address waits for an earlier message.
        items.len() >= 11 && items.iter().filter(open).count() <= 5
    };
    gateway.until("every address was tried", tried).await;
    gateway.until("the ping has failed", async || gateway.log().contains("the heartbeat's ping")).await;
    plant_broken_settings(&gateway, &mut secrets).await;
    let roles = roles(&gateway, &mut secrets).await;

    let mut leaks = search_answers(&gateway, &secrets, &roles).await;
    leaks.extend(search_events(&gateway, &secrets).await);
    leaks.extend(search_listings(&gateway, &secrets));
    leaks.extend(search_database(&gateway, &secrets));
    leaks.extend(heard.iter().flat_map(|(place, text)| secrets.leaks(place, text, &[])));
    let stream = stream.lock().expect("no holder panics").clone();
    let told = ["event: snapshot", "event: event", "event: host", "token.created", "message."];
    assert!(told.iter().all(|word| stream.contains(word)), "the stream says what happens: {stream}");
    leaks.extend(secrets.leaks("the stream", &stream, &[]));
    let log = gateway.log();
    assert!(log.contains("DEBUG") && log.contains("message not sent"), "the log says what happens: {log}");
    leaks.extend(secrets.leaks("the log", &log, &[]));
    assert!(leaks.is_empty(), "{} secrets were planted; found: {leaks:#?}", secrets.0.len());
}

// --------------------------------------------------------------------- fields

/// Fields of requests and responses that can contain a secret; the test above plants each.
const SECRET_FIELDS: [&str; 12] = [
    "command",
    "conf",
    "current",
    "link",
    "password",
    "preshared_key",
    "private_key",
    "secret",
    "token",
    "url",
    "webhook_secret",
    "webhook_url",
];
/// Fields whose names sound like a secret, and their actual content.
const NO_SECRETS: [(&str, &str); 19] = [
    ("previous_key", "a public key"),
    ("address", "an inner address or mailbox; of a webhook only the server"),
    ("addresses", "inner addresses"),
    ("asked_address", "where a check went to"),
    ("direct_address", "an address on the Internet; a login in it is refused"),
    ("host_key", "public"),
    ("key", "the public key of a certificate"),
    ("keyed_at", "a time"),
    ("poll_hash", "the digest of a secret"),
    ("public_key", "public"),
    ("public_keys", "public"),
    ("public_url", "what everybody is told"),
    ("remote_address", "where an enrolment came from"),
    ("ssh_host_key", "public"),
    ("ssh_host_keys", "public"),
    ("ssh_keys", "public"),
    ("ssh_public_key", "public"),
    ("token_label", "what people call a token"),
    ("unknown_keys", "public keys of refused handshakes"),
];

#[test]
fn a_field_that_sounds_like_a_secret_is_planted_or_known_to_be_none() {
    let document =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json")).expect("a file");
    let document: Value = serde_json::from_str(&document).expect("JSON");
    let words = [
        "secret",
        "password",
        "token",
        "key",
        "url",
        "address",
        "link",
        "hash",
        "psk",
        "credential",
        "cookie",
    ];
    let mut unknown = BTreeSet::new();
    for schema in document["components"]["schemas"].as_object().expect("schemas").values() {
        let fields = schema["properties"].as_object().cloned().unwrap_or_default();
        for (name, field) in fields {
            let text =
                field["type"].to_string().contains("string") || field["type"].to_string().contains("array");
            let sounds = words.iter().any(|word| name.contains(word));
            let known =
                SECRET_FIELDS.contains(&name.as_str()) || NO_SECRETS.iter().any(|(none, _)| *none == name);
            if text && sounds && !known {
                unknown.insert(name);
            }
        }
    }
    assert!(unknown.is_empty(), "plant these in this test, or say what they are: {unknown:?}");
}
