//! People reach a device through the API, without a tunnel of their own: `connect`, `ssh` and `forward`
//! from a machine that has a token alone.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

use fleetgate_tests::lab::{
    ACCOUNT, API, Api, CHECKS, Gateway, KEEPALIVE, Lab, Make, Running, SshServer, WireGuard, ensure_account,
    eventually, run, settings,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A person's machine in the namespace `d2`, with a token and a key of SSH.
struct Laptop<'a> {
    lab: &'a Lab,
    environment: String,
    key: String,
}

impl<'a> Laptop<'a> {
    fn new(lab: &'a Lab) -> Laptop<'a> {
        let key = lab.path("laptop-key").display().to_string();
        run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &key]);
        Laptop { lab, environment: String::new(), key }
    }

    fn public_key(&self) -> String {
        fs::read_to_string(format!("{}.pub", self.key)).expect("the lab's directory")
    }

    /// Takes a token of the role operator, and gets `fleetgate` on its path.
    fn set_up(&mut self, gateway: &Gateway<'_>) {
        let made = gateway.json(&["token", "create", "laptop", "--role", "operator"]);
        let token = made["secret"].as_str().expect("a token");
        let path = self.lab.dir.path().display();
        self.environment =
            format!("export FLEETGATE_URL=http://10.77.0.2:8080 FLEETGATE_TOKEN={token} PATH={path}:$PATH; ");
        // The agent stands for the keys in the home of the user.
        let agent = self.lab.path("agent").display().to_string();
        self.lab
            .sh("d2", &format!("ssh-agent -a {agent} > {agent}.env; . {agent}.env; ssh-add -q {}", self.key));
        self.environment.push_str(&format!(". {agent}.env > {agent}.out; "));
    }

    fn attempt(&self, line: &str) -> (bool, String) {
        self.lab.try_sh("d2", &format!("{}{line}", self.environment))
    }

    fn does(&self, line: &str) -> String {
        let (done, said) = self.attempt(line);
        assert!(done, "{line}: {said}");
        said
    }

    fn cannot(&self, line: &str) -> String {
        let (done, said) = self.attempt(line);
        assert!(!done, "{line} was to fail: {said}");
        said
    }

    fn spawn(&self, log: &str, line: &str) -> Running {
        self.lab.spawn("d2", log, "bash", &["-c", &format!("{}{line}", self.environment)], &[])
    }
}

impl Drop for Laptop<'_> {
    fn drop(&mut self) {
        let _ = self.lab.try_sh("d2", &format!("{}ssh-agent -k", self.environment));
    }
}

/// Returns a line of `ssh` that reads no settings of the machine that runs the tests.
fn settings_of_ssh(lab: &Lab) -> String {
    let file = lab.path("ssh_config");
    let fleetgate = lab.path("fleetgate").display().to_string();
    let text = format!(
        "Host cam-*\n  ProxyCommand fleetgate connect %h:%p\n  \
         KnownHostsCommand {fleetgate} known-host %H %t %f %K\n  StrictHostKeyChecking yes\n  \
         UserKnownHostsFile /dev/null\n  User {ACCOUNT}\n"
    );
    fs::write(&file, text).expect("the lab's directory");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("own file");
    file.display().to_string()
}

#[test]
fn a_person_reaches_a_device_without_a_tunnel_while_a_grant_permits_it() {
    let lab = Lab::new();
    ensure_account();
    let gateway = Gateway::start(&lab, &settings(&[API, KEEPALIVE, CHECKS]));
    let mut laptop = Laptop::new(&lab);
    let own = gateway.json(&["gateway", "show"])["ssh_public_key"].as_str().expect("a key").to_owned();
    let mut sshd = SshServer::start(&lab, "d1", Make::OpenSsh, &format!("{own}\n{}", laptop.public_key()));
    let conf = gateway.cli(&["device", "add", "cam-1", "--ssh-user", ACCOUNT]);
    let _tunnel = WireGuard::up(&lab, "d1", &conf);
    gateway.becomes("cam-1", Some("ssh"), "ok");
    laptop.set_up(&gateway);

    let banner = laptop.does("fleetgate connect cam-1:22 < /dev/null");
    assert!(banner.starts_with("SSH-2.0-"), "{banner}");
    let local = gateway.cli(&["connect", "cam-1:22"]);
    assert_eq!(local, banner, "over the socket of the gateway");
    shells_and_files(&lab, &laptop);
    a_local_port(&laptop);
    refusals(&gateway, &laptop);

    // Another key than the pinned one, as of a machine in between.
    sshd.new_host_key();
    sshd.stop();
    sshd.again();
    let said = laptop.cannot(&format!("fleetgate ssh cam-1 -l {ACCOUNT} -- true"));
    assert!(said.contains("and the gateway has pinned SHA256:"), "{said}");

    // The right ends while a connection is open.
    let mut open = laptop.spawn("cut.log", "exec fleetgate connect cam-1:22 < <(sleep 60)");
    eventually("the banner is there", PATIENCE, || lab.log("cut.log").contains("SSH-2.0-"));
    gateway.cli(&["grant", "withdraw", "operators"]);
    let begin = Instant::now();
    assert!(open.ended(PATIENCE), "the connection goes on");
    let took = begin.elapsed();
    println!("the connection ended {:.2} s after its grant", took.as_secs_f64());
    assert!(took < Duration::from_secs(2), "{took:?}");
    let said = lab.log("cut.log");
    assert!(
        said.contains("fleetgate: cam-1:22: the gateway ended the connection: no grant permits it"),
        "{said}"
    );
    // The client learns of the end before it is recorded.
    let api = Api::new(gateway.socket());
    eventually("the end is in the audit log", PATIENCE, || {
        let audit = api.get("audit?kind=stream.closed").expect("the audit log");
        let last = &audit["items"][0];
        last["data"]["why"] == "not_granted" && last["object_name"] == "cam-1"
    });
}

fn shells_and_files(lab: &Lab, laptop: &Laptop<'_>) {
    let user = laptop.does(&format!("fleetgate ssh cam-1 -l {ACCOUNT} -- id -un"));
    assert_eq!(user.trim(), ACCOUNT);
    let code =
        laptop.cannot(&format!("fleetgate ssh cam-1 -l {ACCOUNT} -- 'exit 7' || {{ echo code $?; false; }}"));
    assert!(code.contains("code 7"), "{code}");
    let ssh = settings_of_ssh(lab);
    let (sent, back) = (lab.path("sent").display().to_string(), lab.path("back").display().to_string());
    laptop.does(&format!("head -c 3000000 /dev/urandom > {sent}"));
    let there = format!("cam-1:/tmp/{}", lab.ns("file"));
    laptop.does(&format!(
        "scp -O -q -F {ssh} {sent} {there} && scp -O -q -F {ssh} {there} {back} && cmp {sent} {back}"
    ));
    laptop.does(&format!("ssh -F {ssh} cam-1 rm /tmp/{}", lab.ns("file")));
}

fn a_local_port(laptop: &Laptop<'_>) {
    let _forward = laptop.spawn("forward.log", "exec fleetgate forward 2222:cam-1:22 2223:cam-1:4444");
    let said = || laptop.lab.log("forward.log");
    eventually("the ports are open", PATIENCE, || said().contains("127.0.0.1:2223 -> cam-1:4444"));
    for _ in 0..3 {
        let banner = laptop.does("bash -c 'exec 3<>/dev/tcp/127.0.0.1/2222; head -n 1 <&3'");
        assert!(banner.starts_with("SSH-2.0-"), "{banner}");
        let nothing = laptop.does("bash -c 'exec 3<>/dev/tcp/127.0.0.1/2223; cat <&3'");
        assert_eq!(nothing, "");
    }
    sleep(Duration::from_millis(200));
    assert_eq!(said().matches("cam-1:4444: ").count(), 1, "the refusal is said once: {}", said());
}

fn refusals(gateway: &Gateway<'_>, laptop: &Laptop<'_>) {
    let said = laptop.cannot("fleetgate connect cam-1:4444 < /dev/null");
    let advice = "fleetgate grant add --role operator --to cam-1 --tcp 4444";
    assert!(said.starts_with("fleetgate: ") && said.contains(advice) && said.lines().count() == 1, "{said}");
    let said = laptop.cannot("FLEETGATE_TOKEN=fgt_wrong fleetgate connect cam-1:22 < /dev/null");
    assert_eq!(said.lines().count(), 1, "{said}");
    gateway.cli(&["device", "add", "ghost"]);
    let said = laptop.cannot("fleetgate ssh ghost");
    assert!(said.contains("the gateway has no SSH host key of ghost"), "{said}");
    let said = laptop.cannot("fleetgate connect ghost:22 < /dev/null");
    assert!(said.contains("ghost has no tunnel now"), "{said}");
}

#[test]
fn a_person_reaches_a_device_with_dropbear() {
    let lab = Lab::new();
    ensure_account();
    let gateway = Gateway::start(&lab, &settings(&[API, KEEPALIVE, CHECKS]));
    let mut laptop = Laptop::new(&lab);
    let own = gateway.json(&["gateway", "show"])["ssh_public_key"].as_str().expect("a key").to_owned();
    let _sshd = SshServer::start(&lab, "d1", Make::Dropbear, &format!("{own}\n{}", laptop.public_key()));
    let conf = gateway.cli(&["device", "add", "cam-1", "--ssh-user", ACCOUNT]);
    let _tunnel = WireGuard::up(&lab, "d1", &conf);
    gateway.becomes("cam-1", Some("ssh"), "ok");
    laptop.set_up(&gateway);

    let banner = laptop.does("fleetgate connect cam-1:22 < /dev/null");
    assert!(banner.starts_with("SSH-2.0-dropbear"), "{banner}");
    shells_and_files(&lab, &laptop);
    a_local_port(&laptop);
}
