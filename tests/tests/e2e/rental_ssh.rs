//! Renters log in to a device that `enrol.sh --rental-user` has set up, while they rent it: with OpenSSH and
//! certificates, and with dropbear and keys.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleetgate_tests::lab::{
    API, Api, CHECKS, Gateway, KEEPALIVE, LAPTOP, Lab, Make, Running, WireGuard, eventually, run, settings,
};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(90);
const DEVICE: &str = "d1";
/// The address of the device in its own network, which needs no tunnel.
const OUTSIDE: &str = "10.77.1.2";
const RENTER: &str = "renter";
const SSH: &str = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes \
                   -o IdentitiesOnly=yes -o ConnectTimeout=5 -o LogLevel=ERROR";

/// A machine of its own: its accounts, settings and processes are not those of the machine around it, which may also be
/// that of a developer. Everything ends with its first process.
fn machine(lab: &Lab, make: Make, token: &str) -> Running {
    let (server, host_key) = match make {
        Make::OpenSsh => {
            ("ssh-keygen -A >/dev/null; /usr/sbin/sshd -D -e &", "/etc/ssh/ssh_host_ed25519_key.pub")
        }
        Make::Dropbear => (
            "dropbearkey -t ed25519 -f /run/host | grep ^ssh- >/run/host.pub; dropbear -F -E -s -r /run/host -p 22 &",
            "/run/host.pub",
        ),
    };
    let line = format!(
        "set -e; mount -t tmpfs none /mnt; \
         for d in etc home root var usr/local; do \
             mkdir -p /mnt/upper/$d /mnt/work/$d; \
             mount -t overlay overlay -o lowerdir=/$d,upperdir=/mnt/upper/$d,workdir=/mnt/work/$d /$d; \
         done; \
         mount -t tmpfs none /run; mkdir -p /run/sshd /etc/wireguard; \
         rm -rf /root/.ssh /root/.bashrc /root/.profile /etc/fleetgate; usermod -p '*' root; \
         {server} \
         export WG_QUICK_USERSPACE_IMPLEMENTATION=wireguard-go; \
         curl -fsS http://10.77.0.2:8080/enrol.sh -o /run/enrol.sh; \
         sh /run/enrol.sh --url http://10.77.0.2:8080 --token {token} --name cam-1 --ssh-user root \
             --ssh-host-key {host_key} --rental-user {RENTER} --interface rented0 --no-service; \
         echo enrolled; exec sleep infinity"
    );
    let unshared = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", &line];
    let running = lab.spawn(DEVICE, "device.log", "unshare", &unshared, &[]);
    eventually("the device has enrolled", PATIENCE, || lab.log("device.log").contains("\nenrolled"));
    running
}

struct Site<'a> {
    lab: &'a Lab,
    gateway: Gateway<'a>,
    api: Api,
    _device: Running,
    _renter: WireGuard<'a>,
    /// The file of the renter's SSH key.
    key: String,
    renter: String,
}

impl<'a> Site<'a> {
    fn new(lab: &'a Lab, make: Make) -> Site<'a> {
        let gateway = Gateway::start(lab, &settings(&[API, KEEPALIVE, CHECKS]));
        let api = Api::new(gateway.socket());
        let token = gateway.cli(&["token", "create", "field", "--enrol", "--ssh-user", "root"]);
        let device = machine(lab, make, token.trim());
        gateway.becomes("cam-1", None, "up");
        gateway.becomes("cam-1", Some("ssh"), "ok");
        let (key, public) = new_key(lab, "eva");
        must(&api, "POST", "customers", &json!({ "external_ref": "crm-17", "name": "Alpine Films" }));
        let person = must(&api, "POST", "people", &json!({ "customer": "crm-17", "name": "Eva" }));
        let renter = json!({ "person": person["id"], "name": "laptop", "ssh_keys": [public] });
        let made = must(&api, "POST", "renters", &renter);
        let conf = made["credentials"]["conf"].as_str().expect("a configuration");
        let tunnel = WireGuard::up(lab, LAPTOP, conf);
        let renter = made["renter"]["id"].as_str().expect("an id").to_owned();
        Site { lab, gateway, api, _device: device, _renter: tunnel, key, renter }
    }

    fn settings(&self) -> Value {
        self.api.get("devices/cam-1/rental-settings").expect("settings")
    }

    /// Books the device from now on, and returns the rental once it is active.
    fn rented(&self) -> Value {
        let access = json!([{ "protocol": "tcp", "ports": [22] }]);
        let item = json!({ "device": "cam-1", "until": instant(now() + 600), "access": access, "ssh": true });
        let booked = must(&self.api, "POST", "bookings", &json!({ "customer": "crm-17", "items": [item] }));
        let path = format!("rentals/{}", booked["rentals"][0]["id"].as_str().expect("an id"));
        eventually("its renters are let in", PATIENCE, || {
            self.api.get(&path).is_ok_and(|rental| rental["state"] == "active")
        });
        self.api.get(&path).expect("the rental")
    }

    /// Takes the certificate of the renter, if the device lets renters in by certificates. Returns how they log in.
    fn takes_certificate(&self, rental: &Value) -> Value {
        let id = rental["id"].as_str().expect("an id");
        let ssh = self.api.get(&format!("rentals/{id}/ssh")).expect("how to log in");
        if let Some(certificate) = ssh["certificates"][0]["certificate"].as_str() {
            fs::write(format!("{}-cert.pub", self.key), certificate).expect("the lab's directory");
        }
        ssh
    }

    /// Logs in with a key, and with a certificate if there is one beside it.
    fn logs_in(&self, from: &str, key: &str, address: &str, command: &str) -> (bool, String) {
        let line = format!("timeout 20 ssh {SSH} -i {key} {RENTER}@{address} '{command}'");
        self.lab.try_sh(from, &line)
    }
}

fn new_key(lab: &Lab, name: &str) -> (String, String) {
    let key = lab.path(name).display().to_string();
    run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", &key]);
    let public = fs::read_to_string(format!("{key}.pub")).expect("a public key");
    (key, public.trim().to_owned())
}

fn must(api: &Api, method: &str, path: &str, body: &Value) -> Value {
    api.send(method, path, body).unwrap_or_else(|error| panic!("{error:#}"))
}

/// Whole seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs()
}

fn instant(seconds: u64) -> String {
    run("date", &["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%SZ"]).trim().to_owned()
}

/// A process that a renter leaves on the device. Other tests have theirs on the same machine.
fn left_behind() -> String {
    format!("sleep 617.{}", std::process::id())
}

fn is_left_behind(lab: &Lab) -> bool {
    lab.try_sh("r", &format!("pgrep -f '[s]leep 617.{}$'", std::process::id())).0
}

fn renters_log_in_while_they_rent(make: Make, mode: &str) {
    let lab = Lab::new();
    let site = Site::new(&lab, make);
    let account = json!({
        "rentable": true, "access": [{ "protocol": "tcp", "ports": [22] }], "ssh_account": RENTER,
        "cleaning_command": "echo cleaned >>/run/cleaned", "without": ["gate"],
    });
    must(&site.api, "PUT", "devices/cam-1/rental-settings", &account);
    eventually("the device says how renters log in", PATIENCE, || site.settings()["ssh_mode"] == mode);
    assert!(!site.logs_in("r", &site.key, OUTSIDE, "true").0, "nobody rents it");

    let rental = site.rented();
    let id = rental["id"].as_str().expect("an id");
    let ssh = site.takes_certificate(&rental);
    assert_eq!((&ssh["account"], &ssh["mode"]), (&json!(RENTER), &json!(mode)));
    let alias = rental["addresses"][0].as_str().expect("an alias");
    let (is_in, said) = site.logs_in(LAPTOP, &site.key, alias, "id -un");
    assert!(is_in && said.trim() == RENTER, "{said}");
    assert!(site.logs_in("r", &site.key, OUTSIDE, "true").0, "the account is open now");

    // A renter that wants to stay.
    let (own, public) = new_key(&lab, "own");
    let stay = format!(
        "mkdir -p .ssh; echo {public} >>.ssh/authorized_keys; mv .ssh .away; mkdir .ssh; \
         echo {public} >>.ssh/authorized_keys; nohup {} >/dev/null 2>&1 & exit 0",
        left_behind()
    );
    site.logs_in(LAPTOP, &site.key, alias, &stay);
    assert!(!site.logs_in("r", &own, OUTSIDE, "true").0, "keys that the account has added are not taken");
    assert!(is_left_behind(&lab), "a process of the renter runs");
    let shell = format!("ssh {SSH} -i {} {RENTER}@{OUTSIDE} 'sleep 600'", site.key);
    let mut shell = lab.spawn("r", "shell.log", "sh", &["-c", &shell], &[]);
    assert!(!shell.ended(Duration::from_secs(2)), "{}", lab.log("shell.log"));

    must(&site.api, "POST", &format!("rentals/{id}/end"), &json!({ "reason": "ended" }));
    eventually("nothing of the renter is left", PATIENCE, || site.settings()["ready"] == true);
    assert!(!is_left_behind(&lab), "the process was ended");
    assert!(shell.ended(Duration::from_secs(10)), "a session beside the tunnel was ended");
    for key in [&site.key, &own] {
        assert!(!site.logs_in("r", key, OUTSIDE, "true").0, "neither key nor certificate logs in any more");
    }

    // The next rental of the same renter, after a restart in between.
    let mut site = site;
    site.gateway.stop();
    site.gateway.again();
    let rental = site.rented();
    assert_eq!(
        site.logs_in("r", &site.key, OUTSIDE, "true").0,
        mode == "keys",
        "a certificate is for one rental"
    );
    site.takes_certificate(&rental);
    let alias = rental["addresses"][0].as_str().expect("an alias");
    let (is_in, said) = site.logs_in(LAPTOP, &site.key, alias, "cat /run/cleaned");
    assert!(is_in && said.trim() == "cleaned", "{said}");
    renters_are_out_when_the_window_ends(&site, &rental);

    // The key is removed while the rental runs.
    let rental = site.rented();
    site.takes_certificate(&rental);
    let shell = format!("ssh {SSH} -i {} {RENTER}@{OUTSIDE} 'sleep 600'", site.key);
    let mut shell = lab.spawn("r", "second.log", "sh", &["-c", &shell], &[]);
    assert!(!shell.ended(Duration::from_secs(2)), "{}", lab.log("second.log"));
    must(&site.api, "PATCH", &format!("renters/{}", site.renter), &json!({ "ssh_keys": [] }));
    eventually("the session of the removed key has ended", PATIENCE, || shell.ended(Duration::ZERO));
    assert!(!site.logs_in("r", &site.key, OUTSIDE, "true").0, "neither the key nor its certificate logs in");
}

/// The certificate of the renter would be valid for ten minutes more.
fn renters_are_out_when_the_window_ends(site: &Site<'_>, rental: &Value) {
    let id = rental["id"].as_str().expect("an id");
    let alias = rental["addresses"][0].as_str().expect("an alias");
    let stay = format!("nohup {} >/dev/null 2>&1 & exit 0", left_behind());
    site.logs_in(LAPTOP, &site.key, alias, &stay);
    assert!(is_left_behind(site.lab), "a process of the renter runs");
    let shell = format!("ssh {SSH} -i {} {RENTER}@{OUTSIDE} 'sleep 600'", site.key);
    let mut shell = site.lab.spawn("r", "window.log", "sh", &["-c", &shell], &[]);
    assert!(!shell.ended(Duration::from_secs(2)), "{}", site.lab.log("window.log"));

    let until = now() + 10;
    must(&site.api, "PATCH", &format!("rentals/{id}"), &json!({ "until": instant(until) }));
    eventually("a session beside the tunnel was ended", PATIENCE, || shell.ended(Duration::ZERO));
    assert!(now() >= until, "it was ended before the window: {}", site.lab.log("window.log"));
    eventually("nothing of the renter is left", PATIENCE, || site.settings()["ready"] == true);
    assert!(!is_left_behind(site.lab), "the process was ended");
    assert!(!site.logs_in("r", &site.key, OUTSIDE, "true").0, "neither key nor certificate logs in any more");
    let rental = site.api.get(&format!("rentals/{id}")).expect("the rental");
    let by_time = (&json!("closed"), &Value::Null);
    assert_eq!((&rental["state"], &rental["end_reason"]), by_time, "no call has ended it");
}

#[test]
fn renters_log_in_to_openssh_by_certificate_while_they_rent() {
    renters_log_in_while_they_rent(Make::OpenSsh, "certificates");
}

#[test]
fn renters_log_in_to_dropbear_by_key_while_they_rent() {
    renters_log_in_while_they_rent(Make::Dropbear, "keys");
}
