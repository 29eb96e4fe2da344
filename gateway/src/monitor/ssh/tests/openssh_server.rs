//! Real OpenSSH servers on pipes, as the user who runs the tests.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use super::*;

const SSHD: &str = "/usr/sbin/sshd";

/// A server with its configuration and keys in a folder of its own.
struct Sshd {
    dir: tempfile::TempDir,
    connections: AtomicUsize,
}

impl Sshd {
    /// Creates a server with these host keys. `None` when this user can start no server.
    fn new(keys: &[HostKeyOf], settings: &str) -> Option<Sshd> {
        if !usable() {
            eprintln!("skipped: no {SSHD} that this user can start");
            return None;
        }
        let sshd = Sshd { dir: tempfile::tempdir().expect("a folder"), connections: AtomicUsize::new(0) };
        sshd.authorize(&gateway_key());
        sshd.configure(keys, settings);
        Some(sshd)
    }

    fn authorize(&self, key: &PrivateKey) {
        self.write("authorized", &key.public_key().to_openssh().expect("encodes"));
    }

    /// Replaces the configuration. Each connection is a server process of its own.
    fn configure(&self, keys: &[HostKeyOf], settings: &str) {
        let at = self.dir.path().display();
        // sshd uses the first value of a setting.
        let mut text = format!(
            "{settings}\nAuthorizedKeysFile {at}/authorized\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nPrintMotd no\nPermitRootLogin yes\n"
        );
        for key in keys {
            key.make(self.dir.path());
            text.push_str(&format!("HostKey {at}/{}\n", key.file()));
        }
        self.write("sshd_config", &text);
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        fs::write(&path, text).expect("writes");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("own file");
    }

    fn pin(&self, key: HostKeyOf) -> HostKey {
        let line = fs::read_to_string(self.dir.path().join(format!("{}.pub", key.file()))).expect("a key");
        let key: fleetgate_keys::SshPublicKey = line.parse().expect("a public key");
        HostKey { key_type: KeyType::from_name(key.algorithm()), ..HostKey::from(key.fingerprint().as_str()) }
    }

    /// Connects to a server that this program starts after preparing its environment.
    fn connect_by(&self, program: &[String]) -> impl AsyncRead + AsyncWrite + Unpin + Send + 'static {
        self.connections.fetch_add(1, Ordering::SeqCst);
        let config = self.dir.path().join("sshd_config").display().to_string();
        let words = [SSHD, "-i", "-e", "-f", &config].map(str::to_owned);
        let words: Vec<String> = program.iter().cloned().chain(words).collect();
        let mut sshd = tokio::process::Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sshd starts");
        let pipes = sshd.stdin.take().zip(sshd.stdout.take());
        let (stdin, stdout) = pipes.expect("both are piped");
        tokio::spawn(async move { sshd.wait().await });
        tokio::io::join(stdout, stdin)
    }

    async fn ask(&self, client: &SshClient, run: SshRun) -> SshReply {
        client.run(key(), || async { Ok(self.connect_by(&[])) }, run, PLENTY).await
    }

    /// Runs the key exchange only.
    async fn meet(&self, pin: Option<HostKey>) -> SshReply {
        let learn = pin.is_none();
        self.ask(&client(), SshRun { pin, learn, user: None, commands: Vec::new() }).await
    }

    async fn log_in(&self) -> Option<SshFailure> {
        let run = SshRun { pin: None, learn: true, user: Some(user()), commands: Vec::new() };
        self.ask(&client(), run).await.failure
    }

    /// Returns the number of connections since the last call.
    fn connections(&self) -> usize {
        self.connections.swap(0, Ordering::SeqCst)
    }
}

/// A key type as `ssh-keygen` names it, its bits, and its number among such keys.
#[derive(Clone, Copy)]
struct HostKeyOf(&'static str, u32, u8);

const ED25519: HostKeyOf = HostKeyOf("ed25519", 256, 0);
const P256: HostKeyOf = HostKeyOf("ecdsa", 256, 0);
const P384: HostKeyOf = HostKeyOf("ecdsa", 384, 0);
const P521: HostKeyOf = HostKeyOf("ecdsa", 521, 0);
const RSA: HostKeyOf = HostKeyOf("rsa", 2048, 0);
const RSA_LONG: HostKeyOf = HostKeyOf("rsa", 4096, 0);

impl HostKeyOf {
    fn file(self) -> String {
        format!("{}-{}-{}", self.0, self.1, self.2)
    }

    fn make(self, dir: &Path) {
        let path = dir.join(self.file());
        if path.exists() {
            return;
        }
        let bits = self.1.to_string();
        let made = std::process::Command::new("ssh-keygen")
            .args(["-q", "-t", self.0, "-b", &bits, "-N", "", "-C", "", "-f"])
            .arg(path)
            .status();
        assert!(made.expect("ssh-keygen runs").success());
    }
}

pub(super) fn user() -> String {
    let out = std::process::Command::new("id").arg("-un").output().expect("id runs");
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// Root's sshd requires its chroot directory; that of other users does not.
fn usable() -> bool {
    let chroot = Path::new("/run/sshd");
    Path::new(SSHD).exists() && (user() != "root" || chroot.exists() || fs::create_dir(chroot).is_ok())
}

fn blind(pin: &HostKey) -> HostKey {
    HostKey { key_type: None, ..pin.clone() }
}

#[tokio::test]
async fn a_server_with_one_key_of_any_type_is_known_again() {
    for one in [ED25519, P256, P384, P521, RSA, RSA_LONG] {
        let Some(sshd) = Sshd::new(&[one], "") else { return };
        let pin = sshd.pin(one);
        assert!(pin.key_type.is_some());
        for asked in [None, Some(pin.clone()), Some(blind(&pin))] {
            let answer = sshd.meet(asked).await;
            assert_eq!((answer.failure, answer.host_key), (None, Some(pin.clone())));
        }
        assert_eq!(sshd.connections(), 3);
    }
}

#[tokio::test]
async fn each_of_several_keys_serves_as_the_pin() {
    let all = [ED25519, P256, P384, P521, RSA];
    let Some(sshd) = Sshd::new(&all, "") else { return };
    for (tries, pinned) in all.into_iter().enumerate() {
        let pin = sshd.pin(pinned);
        let answer = sshd.meet(Some(pin.clone())).await;
        assert_eq!((answer.failure, answer.host_key, sshd.connections()), (None, Some(pin.clone()), 1));
        let answer = sshd.meet(Some(blind(&pin))).await;
        let found = (answer.failure, answer.host_key, sshd.connections());
        assert_eq!(found, (None, Some(pin), tries + 1), "the types in turn");
    }
    let answer = sshd.meet(Some("SHA256:none of them".into())).await;
    let Some(SshFailure::HostKeyChanged { seen, .. }) = answer.failure else { panic!("{answer:?}") };
    assert_eq!((seen, sshd.connections()), (sshd.pin(ED25519), 5));
    assert!(!answer.logged_in);
}

#[tokio::test]
async fn a_key_that_is_added_changes_nothing_and_one_that_is_removed_does() {
    let Some(sshd) = Sshd::new(&[P256], "") else { return };
    let pin = sshd.pin(P256);
    sshd.configure(&[ED25519, P256, RSA], "");
    for asked in [pin.clone(), blind(&pin)] {
        assert_eq!(sshd.meet(Some(asked)).await.failure, None);
    }
    sshd.configure(&[ED25519, RSA], "");
    for asked in [pin.clone(), blind(&pin)] {
        let changed = SshFailure::HostKeyChanged { pinned: asked.clone(), seen: sshd.pin(ED25519) };
        assert_eq!(sshd.meet(Some(asked)).await.failure, Some(changed));
    }
    let other = HostKeyOf("ecdsa", 256, 1);
    sshd.configure(&[ED25519, other], "");
    let changed = SshFailure::HostKeyChanged { pinned: pin.clone(), seen: sshd.pin(other) };
    assert_eq!(sshd.meet(Some(pin)).await.failure, Some(changed), "the same type is asked for first");
}

#[tokio::test]
async fn an_rsa_key_is_verified_by_both_hashes_and_never_by_sha_1() {
    for algorithm in ["rsa-sha2-256", "rsa-sha2-512"] {
        let Some(sshd) = Sshd::new(&[RSA], &format!("HostKeyAlgorithms {algorithm}")) else { return };
        assert_eq!(sshd.log_in().await, None, "{algorithm}");
    }
    let Some(sshd) = Sshd::new(&[RSA], "HostKeyAlgorithms ssh-rsa") else { return };
    let offered = vec!["ssh-rsa".to_owned()];
    let nothing = SshFailure::NothingInCommon { what: Negotiated::HostKey, offered };
    assert_eq!(sshd.meet(None).await.failure, Some(nothing.clone()));
    assert_eq!(sshd.meet(Some("SHA256:a".into())).await.failure, Some(nothing));
}

#[tokio::test]
async fn offered_algorithms_are_reported_if_none_is_common() {
    let table = [
        ("Ciphers 3des-cbc,aes128-cbc", Negotiated::Cipher, vec!["3des-cbc", "aes128-cbc"]),
        (
            "KexAlgorithms diffie-hellman-group14-sha1",
            Negotiated::KeyExchange,
            vec!["diffie-hellman-group14-sha1"],
        ),
        ("Ciphers aes128-ctr\nMACs hmac-sha1", Negotiated::Mac, vec!["hmac-sha1"]),
    ];
    for (settings, what, offered) in table {
        let Some(sshd) = Sshd::new(&[ED25519], settings) else { return };
        let failure = sshd.meet(None).await.failure;
        let Some(SshFailure::NothingInCommon { what: found, offered: theirs }) = failure else {
            panic!("{failure:?}")
        };
        let own: Vec<_> =
            theirs.iter().map(String::as_str).filter(|name| !name.starts_with("kex-strict")).collect();
        assert_eq!((found, own), (what, offered), "{settings}");
    }
}

#[tokio::test]
async fn servers_with_only_nist_curves_are_supported() {
    for kex in
        ["ecdh-sha2-nistp256", "ecdh-sha2-nistp384", "ecdh-sha2-nistp521", "diffie-hellman-group14-sha256"]
    {
        let settings = format!("KexAlgorithms {kex}\nCiphers aes256-ctr\nMACs hmac-sha2-256");
        let Some(sshd) = Sshd::new(&[P256], &settings) else { return };
        assert_eq!(sshd.log_in().await, None, "{kex}");
    }
}

#[tokio::test]
async fn the_reason_of_a_refused_login_is_reported() {
    let second = |method: &str| LoginRefusal::SecondFactor(vec![method.to_owned()]);
    let table = [
        ("AuthenticationMethods publickey", None),
        ("AuthenticationMethods publickey,keyboard-interactive", Some(second("keyboard-interactive"))),
        ("PasswordAuthentication yes\nAuthenticationMethods publickey,password", Some(second("password"))),
        ("AuthenticationMethods publickey,publickey", Some(second("publickey"))),
        (
            "AuthenticationMethods keyboard-interactive,publickey",
            Some(LoginRefusal::NoKeys(vec!["keyboard-interactive".into()])),
        ),
        (
            "PubkeyAuthentication no\nPasswordAuthentication yes\nKbdInteractiveAuthentication no",
            Some(LoginRefusal::NoKeys(vec!["password".into()])),
        ),
    ];
    for (settings, why) in table {
        let Some(sshd) = Sshd::new(&[ED25519], &format!("{settings}\nKbdInteractiveAuthentication yes"))
        else {
            return;
        };
        let refused = why.map(|why| SshFailure::LoginRefused { user: user(), why });
        assert_eq!(sshd.log_in().await, refused, "{settings}");
    }
}

#[tokio::test]
async fn openssh_runs_commands_on_one_kept_connection() {
    let Some(sshd) = Sshd::new(&[ED25519], "") else { return };
    let client = client();
    let lines = ["echo out; echo err >&2; exit 3", "cat; kill -9 $$"];
    for reused in [false, true] {
        let run = SshRun { user: Some(user()), pin: Some(sshd.pin(ED25519)), ..pinned("", &lines) };
        let answer = sshd.ask(&client, run).await;
        assert_eq!((answer.failure, answer.reused), (None, reused));
        let [first, second] = answer.commands.as_slice() else { panic!("two commands") };
        assert_eq!(first.end, CommandEnd::Exit(3));
        assert_eq!((first.stdout.as_slice(), first.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
        assert_eq!(second.end, CommandEnd::Signal("KILL".to_owned()));
    }
}

#[tokio::test]
async fn openssh_is_stopped_in_a_command_that_prints_without_end() {
    let Some(sshd) = Sshd::new(&[ED25519], "") else { return };
    let run = SshRun { user: Some(user()), pin: Some(sshd.pin(ED25519)), ..pinned("", &["yes", "echo ok"]) };
    let client = client();
    let answer = sshd.ask(&client, run).await;
    assert_eq!(answer.failure, None);
    assert_eq!((&answer.commands[0].end, answer.commands[0].truncated), (&CommandEnd::Lost, true));
    assert_eq!(answer.commands[1].stdout, b"ok\n");
    assert_eq!(client.kept(), 0, "a server that may still be busy is not worth keeping");
}

#[tokio::test]
async fn openssh_refuses_a_key_that_is_not_authorized() {
    let Some(sshd) = Sshd::new(&[ED25519], "") else { return };
    sshd.authorize(&ssh_key(9));
    let refused = SshFailure::LoginRefused { user: user(), why: LoginRefusal::Key };
    assert_eq!(sshd.log_in().await, Some(refused));
}

#[tokio::test]
async fn a_forced_command_runs_whatever_is_asked() {
    let Some(sshd) = Sshd::new(&[ED25519], "ForceCommand echo forced; exit 1") else { return };
    let run = SshRun { user: Some(user()), pin: Some(sshd.pin(ED25519)), ..pinned("", &["check_it"]) };
    let answer = sshd.ask(&client(), run).await;
    assert_eq!(answer.commands[0].stdout, b"forced\n");
    assert_eq!(answer.commands[0].end, CommandEnd::Exit(1));
}

/// Accounts with other login shells: in a mount namespace with another `/etc/passwd`, which only root
/// can create.
mod login_shells {
    use fleetgate_probes::sensors::{Sensor, parse, script};

    use super::*;

    const SHELLS: [(&str, &str); 9] = [
        ("/bin/sh", ""),
        ("/bin/dash", ""),
        ("/bin/bash", ".bashrc"),
        ("/usr/bin/fish", ".config/fish/config.fish"),
        ("/usr/bin/tcsh", ".tcshrc"),
        ("/bin/csh", ".cshrc"),
        ("/usr/bin/zsh", ".zshenv"),
        ("ash", ""),
        ("wrapper", ""),
    ];

    /// Uses only words that all shells have.
    const TALKATIVE: &str =
        "echo 'OK - all is well | fake=1'\necho '@fleetgate 1'\nprintf 'prompt> '\necho oops >/dev/stderr\n";

    /// The login shell of some bastion hosts: it prints text before and after the command, and hides the
    /// exit status.
    const WRAPPER: &str =
        "#!/bin/sh\necho Welcome\necho oops >&2\nsh \"$@\"\necho Goodbye\necho oops >&2\nexit 0\n";

    struct Account {
        name: String,
        enter: Vec<String>,
    }

    fn executable(path: &Path, text: &str) -> String {
        fs::write(path, text).expect("writes");
        fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("own file");
        path.display().to_string()
    }

    /// `None` when this machine has no such shell.
    fn shell_at(dir: &Path, shell: &str) -> Option<String> {
        let busybox = Path::new("/usr/bin/busybox");
        match shell {
            "ash" => busybox.exists().then(|| {
                let path = dir.join("ash");
                std::os::unix::fs::symlink(busybox, &path).expect("a link");
                path.display().to_string()
            }),
            "wrapper" => Some(executable(&dir.join("wrapper"), WRAPPER)),
            path => Path::new(path).exists().then(|| path.to_owned()),
        }
    }

    impl Account {
        fn new(sshd: &Sshd, shell: &str, startup: &str) -> Option<Account> {
            let dir = sshd.dir.path();
            let path = shell_at(dir, shell)?;
            let home = dir.join("home");
            let startup = home.join(startup);
            if startup != home.join("") {
                fs::create_dir_all(startup.parent().expect("a folder")).expect("a folder");
                fs::write(&startup, TALKATIVE).expect("writes");
            }
            fs::create_dir_all(&home).expect("a folder");
            let passwd = fs::read_to_string("/etc/passwd").expect("accounts");
            let passwd = format!("{passwd}cam:x:0:0::{}:{path}\n", home.display());
            fs::write(dir.join("passwd"), passwd).expect("writes");
            let enter = executable(
                &dir.join("enter"),
                &format!("#!/bin/sh\nmount --bind {}/passwd /etc/passwd && exec \"$@\"\n", dir.display()),
            );
            let enter = ["unshare", "--mount", &enter].map(str::to_owned).to_vec();
            Some(Account { name: "cam".to_owned(), enter })
        }

        async fn ask(&self, sshd: &Sshd, client: &SshClient, mut run: SshRun) -> SshReply {
            run.user = Some(self.name.clone());
            run.pin = Some(sshd.pin(ED25519));
            client.run(key(), || async { Ok(sshd.connect_by(&self.enter)) }, run, PLENTY).await
        }
    }

    fn may_unshare() -> bool {
        let enter =
            std::process::Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status();
        user() == "root" && enter.is_ok_and(|status| status.success())
    }

    #[tokio::test]
    async fn every_login_shell_gives_the_command_s_own_output_and_status() {
        if !may_unshare() {
            return eprintln!("skipped: root alone can have other accounts for a test");
        }
        for (shell, startup) in SHELLS {
            let Some(sshd) = Sshd::new(&[ED25519], "") else { return };
            let Some(account) = Account::new(&sshd, shell, startup) else { continue };
            let client = client();
            let lines = [
                "printf 'DISK OK | a=1'; echo why >&2; exit 2",
                "true",
                "x='a b'; echo \"$x $(echo '!') `echo c`\"; [ -n \"$HOME\" ] && exit 3",
            ];
            let answer = account.ask(&sshd, &client, pinned("", &lines)).await;
            assert_eq!(answer.failure, None, "{shell}");
            let got: Vec<_> = answer
                .commands
                .iter()
                .map(|c| {
                    (String::from_utf8_lossy(&c.stdout), String::from_utf8_lossy(&c.stderr), c.end.clone())
                })
                .collect();
            let wanted = [
                ("DISK OK | a=1".into(), "why\n".into(), CommandEnd::Exit(2)),
                ("".into(), "".into(), CommandEnd::Exit(0)),
                ("a b ! c\n".into(), "".into(), CommandEnd::Exit(3)),
            ];
            assert_eq!(got, wanted, "{shell}");
            let answer = account.ask(&sshd, &client, pinned("", &["kill -9 $$"])).await;
            let ended =
                if shell == "wrapper" { CommandEnd::Exit(137) } else { CommandEnd::Signal("KILL".into()) };
            assert_eq!(answer.commands[0].end, ended, "{shell}");
        }
    }

    #[tokio::test]
    async fn the_sensors_answer_under_every_login_shell() {
        if !may_unshare() {
            return eprintln!("skipped: root alone can have other accounts for a test");
        }
        for (shell, startup) in SHELLS {
            let Some(sshd) = Sshd::new(&[ED25519], "") else { return };
            let Some(account) = Account::new(&sshd, shell, startup) else { continue };
            let sensors =
                [("up".to_owned(), Sensor::Uptime), ("root".to_owned(), Sensor::Disk { path: "/".into() })];
            let mut run = pinned("", &["sensors"]);
            (run.commands[0].line, run.commands[0].bounded) = (script(&sensors, PLENTY), true);
            let answer = account.ask(&sshd, &client(), run).await;
            let readings = parse(&answer.commands[0].stdout).expect(shell);
            let values: Vec<usize> = readings.iter().map(|(_, reading)| reading.values.len()).collect();
            assert!(values.len() == 2 && !values.contains(&0), "{shell}: {readings:?}");
        }
    }

    #[tokio::test]
    async fn an_account_without_a_shell_says_so() {
        if !may_unshare() {
            return eprintln!("skipped: root alone can have other accounts for a test");
        }
        let Some(sshd) = Sshd::new(&[ED25519], "") else { return };
        let Some(account) = Account::new(&sshd, "/usr/sbin/nologin", "") else { return };
        let answer = account.ask(&sshd, &client(), pinned("", &["true"])).await;
        let said = String::from_utf8_lossy(&answer.commands[0].stdout).into_owned();
        assert!(said.contains("not available"), "{said}");
        assert_eq!(answer.commands[0].end, CommandEnd::Exit(1));
    }
}
