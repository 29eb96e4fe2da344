//! A customer rents devices: a renter with a stock client reaches what is rented, exactly while it is.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleetgate_tests::lab::{
    ACCOUNT, AnswersAll, Api, CHECKS, DEVICES, Gateway, KEEPALIVE, LAPTOP, Lab, Make, Running, SshServer,
    WireGuard, eventually, run, settings, sweep,
};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);
const NAMES: [&str; 2] = ["cam-1", "cam-2"];
/// What the settings of the devices let renters have at most.
const ACCESS: &str =
    r#"[{"protocol":"icmp"},{"protocol":"tcp","ports":[22,"8000-8100"]},{"protocol":"udp","ports":[9,53]}]"#;
/// The gateway's inner address.
const GATEWAY: &str = "10.112.0.1";
const GATEWAY_V6: &str = "fd72:6c65:6574::1";
/// Long enough before a window for a test to look at it closed.
const AHEAD: u64 = 5;

/// Two devices that can be rented, and a customer whose renter is connected. All clients are stock ones.
struct Site<'a> {
    lab: &'a Lab,
    gateway: Gateway<'a>,
    api: Api,
    devices: [WireGuard<'a>; 2],
    renter: WireGuard<'a>,
    renter_id: String,
    person: String,
}

/// A rental as the API shows it.
struct Rental {
    id: String,
    v4: String,
    v6: String,
    from: u64,
    until: u64,
}

impl<'a> Site<'a> {
    fn new(lab: &'a Lab) -> Site<'a> {
        let gateway = Gateway::start(lab, &settings(&[KEEPALIVE, CHECKS]));
        let api = Api::new(gateway.socket());
        let devices = [0, 1].map(|n| {
            let conf = gateway.cli(&["device", "add", NAMES[n]]);
            WireGuard::up(lab, DEVICES[n], &conf)
        });
        let access: Value = serde_json::from_str(ACCESS).expect("access");
        for name in NAMES {
            let rented = json!({ "rentable": true, "access": access, "without": ["gate"] });
            must(&api, "PUT", &format!("devices/{name}/rental-settings"), &rented);
            gateway.becomes(name, None, "up");
        }
        must(&api, "POST", "customers", &json!({ "external_ref": "crm-17", "name": "Alpine Films" }));
        let person = must(&api, "POST", "people", &json!({ "customer": "crm-17", "name": "Eva" }));
        let person = text(&person, "id");
        let made = must(&api, "POST", "renters", &json!({ "person": person, "name": "laptop" }));
        let renter = WireGuard::up(lab, LAPTOP, &text(&made["credentials"], "conf"));
        let renter_id = text(&made["renter"], "id");
        let site = Site { lab, gateway, api, devices, renter, renter_id, person };
        eventually("the renter is connected", PATIENCE, || site.renter_is_connected());
        site
    }

    fn renter_is_connected(&self) -> bool {
        // A client without keepalive shakes hands when it has something to send.
        let _ = self.pings(GATEWAY);
        self.api.get(&format!("renters/{}", self.renter_id)).is_ok_and(|r| r["established"] == true)
    }

    fn pings(&self, address: &str) -> bool {
        self.lab.try_sh(LAPTOP, &format!("ping -n -c 1 -W 1 {address}")).0
    }

    fn book(&self, device: &str, from: u64, until: u64, access: &Value) -> Rental {
        let item = json!({
            "device": device, "from": instant(from), "until": instant(until), "access": access,
        });
        let booked = must(&self.api, "POST", "bookings", &json!({ "customer": "crm-17", "items": [item] }));
        let rental = &booked["rentals"][0];
        let address = |n: usize| rental["addresses"][n].as_str().unwrap_or_default().to_owned();
        let rental = Rental { id: text(rental, "id"), v4: address(0), v6: address(1), from, until };
        assert!(!rental.v4.contains(':') && rental.v6.contains(':'), "an alias of each family: {booked}");
        rental
    }

    fn change(&self, rental: &str, change: &Value) {
        must(&self.api, "PATCH", &format!("rentals/{rental}"), change);
    }

    /// Counts packets of the renter that arrive at a device through its tunnel.
    fn count(&self, device: usize) {
        let rules: String = self
            .renter
            .own()
            .iter()
            .map(|own| {
                let family = if own.contains(':') { "ip6" } else { "ip" };
                format!("nft add rule inet rented in {family} saddr {own} counter; ")
            })
            .collect();
        self.lab.sh(
            DEVICES[device],
            &format!(
                "nft delete table inet rented 2>/dev/null || true; nft add table inet rented; \
                 nft add chain inet rented in '{{ type filter hook prerouting priority -300; }}'; {rules}"
            ),
        );
    }

    fn counted(&self, device: usize) -> u64 {
        let text = self.lab.sh(DEVICES[device], "nft list table inet rented");
        let counts =
            text.split("packets ").skip(1).filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok());
        counts.sum()
    }

    fn explained(&self, rental: &str) -> String {
        let from = self.renter_id.as_str();
        let asked = ["explain", "--from", from, "--to", rental];
        self.gateway.attempt(&asked).unwrap_or_else(|refused| refused)
    }
}

fn must(api: &Api, method: &str, path: &str, body: &Value) -> Value {
    api.send(method, path, body).unwrap_or_else(|error| panic!("{error:#}"))
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}")).to_owned()
}

/// Whole seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs()
}

fn instant(seconds: u64) -> String {
    run("date", &["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%SZ"]).trim().to_owned()
}

/// Sleeps until this second since 1970, and some milliseconds more.
fn sleep_until(seconds: u64, more_ms: u64) {
    let wanted = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(more_ms);
    std::thread::sleep(wanted.duration_since(SystemTime::now()).unwrap_or_default());
}

const SSH: &str = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes \
                   -o ConnectTimeout=5 -o LogLevel=ERROR";

/// The renter's own key on the device.
fn key(lab: &Lab) -> (String, String) {
    let key = lab.path("eva").display().to_string();
    run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &key]);
    let public = fs::read_to_string(format!("{key}.pub")).expect("a public key");
    (key, public)
}

/// The copy on the device, which shares its files with all labs.
fn copy_on_device(lab: &Lab) -> String {
    format!("/tmp/{}", lab.ns("rented-copy"))
}

/// A shell, an scp and a stream of datagrams that would go on for a minute.
fn busy(lab: &Lab, key: &str, address: &str) -> [Running; 3] {
    let shell = format!("ssh {SSH} -i {key} {ACCOUNT}@{address} 'while :; do date; sleep 0.2; done'");
    let (file, there) = (lab.path("large").display().to_string(), copy_on_device(lab));
    // A megabyte in a second.
    let copy = format!(
        "truncate -s 100M {file}; exec scp -q -O -l 8000 {SSH} -i {key} {file} {ACCOUNT}@{address}:{there}"
    );
    let stream = format!("for i in $(seq 600); do echo x >/dev/udp/{address}/9; sleep 0.1; done 2>/dev/null");
    [("shell.log", shell), ("copy.log", copy), ("udp.log", stream)]
        .map(|(log, line)| lab.spawn(LAPTOP, log, "bash", &["-c", &line], &[]))
}

#[test]
fn a_renter_is_let_in_and_cut_to_the_second() {
    let lab = Lab::new();
    let site = Site::new(&lab);
    let (key, public) = key(&lab);
    let _ssh = SshServer::start(&lab, DEVICES[0], Make::OpenSsh, &public);
    let own = site.devices[0].own_v4();
    site.count(0);

    let from = now() + AHEAD;
    let all = json!([{ "protocol": "icmp" }, { "protocol": "tcp", "ports": [22] }, { "protocol": "udp", "ports": [9] }]);
    let first = site.book("cam-1", from, from + 14, &all);
    // The next one follows at once, with other access, for the same renter on the same device.
    let second = site.book("cam-1", first.until, first.until + 60, &json!([{ "protocol": "icmp" }]));
    assert_ne!(first.v4, second.v4);

    assert!(!site.pings(&first.v4) && !site.pings(&first.v6) && !site.pings(&second.v4));
    let said = site.explained(&first.id);
    assert!(said.contains("begins"), "{said}");
    sleep_until(first.from, 0);
    assert_eq!(site.counted(0), 0, "nothing arrives before the window");

    eventually("the window opens", Duration::from_secs(3), || site.pings(&first.v4));
    assert!(site.pings(&first.v6), "{}", first.v6);
    assert!(!site.pings(&own), "the device is reached by the alias only");
    assert!(!site.pings(&second.v4), "the next rental has not begun");
    let said = site.explained(&first.id);
    assert!(said.starts_with("permitted"), "{said}");
    let copied = lab.sh(
        LAPTOP,
        &format!("ssh {SSH} -i {key} {ACCOUNT}@{} 'head -c 3000000 /dev/zero' | wc -c", first.v4),
    );
    assert_eq!(copied.trim(), "3000000");

    let busy = busy(&lab, &key, &first.v4);
    sleep_until(first.until, 0);
    let before = site.counted(0);
    assert!(before > 1_000, "{before} packets while it is rented");
    sleep_until(first.until, 1_000);
    let at_the_end = site.counted(0);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(site.counted(0), at_the_end, "nothing arrives a second after the end");
    let [mut shell, mut copy, _stream] = busy;
    for (process, log) in [(&mut shell, "shell.log"), (&mut copy, "copy.log")] {
        assert!(process.ended(Duration::from_secs(10)), "it has got a reset: {}", lab.log(log));
    }
    // It had begun.
    lab.sh(DEVICES[0], &format!("test -s {0}; rm {0}", copy_on_device(&lab)));
    let said = site.explained(&first.id);
    assert!(said.contains("ended"), "{said}");

    // The same client, without a new configuration.
    eventually("the next rental is open", Duration::from_secs(3), || site.pings(&second.v4));
    let refused = format!("timeout 5 ssh {SSH} -i {key} {ACCOUNT}@{} true", second.v4);
    assert!(!lab.try_sh(LAPTOP, &refused).0, "SSH belonged to the rental before");
    assert!(!site.pings(&first.v4));

    // The person leaves, and with it what the person could reach.
    must_delete(&site.api, &format!("people/{}", site.person));
    eventually("a removed person reaches nothing", Duration::from_secs(3), || !site.pings(&second.v4));
    assert_eq!(
        site.api.answer("GET", &format!("renters/{}", site.renter_id), None).expect("an answer").0,
        404
    );
}

fn must_delete(api: &Api, path: &str) {
    let (status, answer) = api.answer("DELETE", path, None).expect("an answer");
    assert!((200..300).contains(&status), "{path}: {status} {answer}");
}

#[test]
fn exactly_what_is_rented_answers_a_renter_and_a_device_reaches_no_renter() {
    let lab = Lab::new();
    let site = Site::new(&lab);
    let servers = [0, 1].map(|n| AnswersAll::start(&lab, DEVICES[n], &site.devices[n].interface));
    let laptop = AnswersAll::start(&lab, LAPTOP, &site.renter.interface);
    let access = json!([{ "protocol": "tcp", "ports": ["8000-8100"] }, { "protocol": "udp", "ports": [53] }]);
    let begun = now();
    let rental = site.book("cam-1", begun + 1, begun + 600, &access);
    sleep_until(rental.from, 500);
    let aliases = [rental.v4.clone(), rental.v6.clone()];
    let mut tcp: Vec<String> =
        aliases.iter().flat_map(|a| [8000, 8100].map(|port| format!("tcp {a} {port}"))).collect();
    let mut udp: Vec<String> = aliases.iter().map(|a| format!("udp {a} 53")).collect();
    tcp.sort();
    udp.sort();
    const PORTS: &str = "1-120,443,7999,8000,8100,8101,65535";
    assert_eq!(sweep(&lab, LAPTOP, "tcp", PORTS, &aliases), tcp);
    assert_eq!(sweep(&lab, LAPTOP, "udp", "1-100,65535", &aliases), udp);
    assert!(!site.pings(&rental.v4), "ping is not rented");

    // Not by the devices' own addresses, which a stock client would not even send to: it gets a route.
    let direct: Vec<String> = site.devices.iter().flat_map(WireGuard::own).collect();
    let route = |address: &String| {
        let family = if address.contains(':') { "-6" } else { "-4" };
        format!("ip {family} route add {address} dev {}; ", site.renter.interface)
    };
    lab.sh(LAPTOP, &direct.iter().map(route).collect::<String>());
    lab.sh(
        LAPTOP,
        &format!("wg set {0} peer $(wg show {0} peers) allowed-ips 0.0.0.0/0,::/0", site.renter.interface),
    );
    for server in &servers {
        server.count(&site.renter.own());
    }
    assert_eq!(sweep(&lab, LAPTOP, "tcp", PORTS, &direct), Vec::<String>::new());
    assert_eq!(sweep(&lab, LAPTOP, "udp", "1-100,65535", &direct), Vec::<String>::new());
    assert_eq!(servers.iter().map(AnswersAll::counted).sum::<u64>(), 0, "nothing of it arrives");

    // A rented device reaches neither the renter nor the alias, and the alias answers no other device.
    laptop.count(&site.devices[0].own());
    let targets = [site.renter.own(), aliases.to_vec()].concat();
    for device in DEVICES {
        assert_eq!(sweep(&lab, device, "tcp", PORTS, &targets), Vec::<String>::new(), "{device}");
        assert_eq!(sweep(&lab, device, "udp", "1-100,65535", &targets), Vec::<String>::new(), "{device}");
    }
    assert_eq!(laptop.counted(), 0);
}

#[test]
fn a_swap_resets_what_runs_and_keeps_the_address() {
    let lab = Lab::new();
    let mut site = Site::new(&lab);
    let (key, public) = key(&lab);
    let _servers = DEVICES.map(|ns| SshServer::start(&lab, ns, Make::OpenSsh, &public));
    let begun = now();
    let rental = site.book(
        "cam-1",
        begun + 1,
        begun + 600,
        &json!([{ "protocol": "icmp" }, { "protocol": "tcp", "ports": [22] }]),
    );
    sleep_until(rental.from, 300);
    eventually("the window opens", Duration::from_secs(3), || site.pings(&rental.v4));
    let shell = format!("ssh {SSH} -i {key} {ACCOUNT}@{} 'sleep 60'", rental.v4);
    let mut shell = lab.spawn(LAPTOP, "shell.log", "sh", &["-c", &shell], &[]);
    let sessions = "ss -tnH state established dport = :22 | grep -c . || true";
    eventually("the shell is open", Duration::from_secs(10), || lab.sh(LAPTOP, sessions).trim() == "1");
    site.count(0);
    site.count(1);

    site.change(&rental.id, &json!({ "device": "cam-2" }));
    assert!(shell.ended(Duration::from_secs(10)), "the shell has got a reset: {}", lab.log("shell.log"));
    eventually("the other device answers at the same address", Duration::from_secs(5), || {
        site.pings(&rental.v4)
    });
    let before = site.counted(0);
    let said = lab.sh(LAPTOP, &format!("ssh {SSH} -i {key} {ACCOUNT}@{} 'echo in'", rental.v4));
    assert_eq!(said.trim(), "in");
    assert!(site.counted(1) > 10);
    assert_eq!(site.counted(0), before, "nothing more arrives at the first device");

    // It goes on after a restart of the gateway, and what ended while it was off does not.
    site.gateway.stop();
    site.gateway.again();
    eventually("it goes on after a restart", PATIENCE, || site.pings(&rental.v4));
    let ended = json!({ "reason": "returned_early" });
    must(&site.api, "POST", &format!("rentals/{}/end", rental.id), &ended);
    eventually("an ended rental is cut", Duration::from_secs(3), || !site.pings(&rental.v4));
    site.count(1);
    site.gateway.stop();
    site.gateway.again();
    eventually("the renter is connected again", PATIENCE, || site.renter_is_connected());
    assert!(!site.pings(&rental.v4));
    assert_eq!(site.counted(1), 0);
}

#[test]
fn what_ends_while_the_gateway_is_off_lets_not_even_the_first_packet_pass() {
    let lab = Lab::new();
    let mut site = Site::new(&lab);
    let begun = now();
    let rental = site.book("cam-1", begun + 1, begun + 8, &json!([{ "protocol": "icmp" }]));
    sleep_until(rental.from, 300);
    eventually("the window opens", Duration::from_secs(3), || site.pings(&rental.v4));
    site.gateway.process.as_mut().expect("running").kill();
    assert!(now() < rental.until, "it ends while the gateway is off");
    sleep_until(rental.until, 100);
    site.count(0);
    // The client sends all the time, so that its first packets meet a gateway that has just started.
    let args = ["-n", "-q", "-i", "0.1", rental.v4.as_str()];
    let _pings = lab.spawn(LAPTOP, "pings.log", "ping", &args, &[]);
    site.gateway.again();
    eventually("the renter is connected again", PATIENCE, || site.renter_is_connected());
    assert!(!site.pings(&rental.v4));
    assert_eq!(site.counted(0), 0);
}

#[test]
fn a_renter_s_browser_shows_at_the_gateway_what_is_open_and_why_not() {
    let lab = Lab::new();
    let site = Site::new(&lab);
    let from = now() + AHEAD;
    let rental = site.book("cam-1", from, from + 10, &json!([{ "protocol": "icmp" }]));
    let page =
        |ns: &str, at: &str| lab.try_sh(ns, &format!("curl -g -s -m 5 -w ' %{{http_code}}' http://{at}")).1;
    for at in [format!("{GATEWAY}/"), format!("[{GATEWAY_V6}]/")] {
        let shown = page(LAPTOP, &at);
        assert!(shown.ends_with(" 200") && shown.contains("begins at"), "{at}: {shown}");
        assert!(shown.contains(&rental.v4) && shown.contains(&rental.v6), "{shown}");
        assert!(!shown.contains("cam-1") && !shown.contains("<script"), "{shown}");
    }
    let root = format!("{GATEWAY}/");
    eventually("the page shows that it is open", PATIENCE, || {
        page(LAPTOP, &root).contains("<strong>Open</strong>")
    });
    assert!(site.pings(&rental.v4), "and it is");
    sleep_until(rental.until, 500);
    let over = page(LAPTOP, &root);
    assert!(over.contains("<strong>Not open</strong>: the rental ended at"), "{over}");

    // A renter sends no results, and a device sees no page.
    assert!(page(LAPTOP, &format!("{GATEWAY}/results")).ends_with(" 404"));
    let device = page(DEVICES[0], &root);
    assert!(device.contains("the tunnel says that you are cam-1") && !device.contains("<html"), "{device}");
}
