use std::path::PathBuf;
use std::sync::Mutex;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::config::Config;

/// Time limit of the tests: long enough for a busy machine, and never reached when a reply comes.
const PATIENCE: Duration = Duration::from_secs(30);
const LETTER: &[u8] = b"Subject: x\r\n\r\n.hidden\r\n";

// ---------------------------------------------------------------------- a server

/// The behaviour of a server.
#[derive(Clone, Default)]
struct Manner {
    tls: Option<Arc<ServerConfig>>,
    implicit: bool,
    /// Lines of its reply to EHLO, besides STARTTLS.
    offers: &'static [&'static str],
    /// Rejects a bare host name with 504, as Postfix does: at RCPT, not at EHLO.
    strict: bool,
    /// Sends this together with its reply to STARTTLS, in clear.
    injects: &'static str,
    /// Its reply to a command that it refuses.
    refuses: Option<fn(&str) -> Option<String>>,
}

struct Server {
    port: u16,
    /// The lines that it received.
    told: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(manner: Manner) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, told) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Vec::new())));
        let record = told.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, manner.clone(), record.clone()));
            }
        });
        Server { port, told }
    }

    fn told(&self, begin: &str) -> Vec<String> {
        let told = self.told.lock().unwrap();
        told.iter().filter_map(|line| line.strip_prefix(begin)).map(str::to_owned).collect()
    }
}

async fn serve(stream: TcpStream, manner: Manner, told: Arc<Mutex<Vec<String>>>) -> Option<()> {
    let acceptor = manner.tls.clone().map(TlsAcceptor::from);
    if manner.implicit {
        let stream = acceptor?.accept(stream).await.ok()?;
        return converse(stream, &manner, &told, true).await.map(drop);
    }
    let stream = converse(stream, &manner, &told, true).await?;
    let stream = acceptor?.accept(stream).await.ok()?;
    let inner = Manner { implicit: true, ..manner };
    converse(stream, &inner, &told, false).await.map(drop)
}

/// Runs until the client leaves, or returns the stream when the client starts TLS.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    manner: &Manner,
    told: &Mutex<Vec<String>>,
    greets: bool,
) -> Option<S> {
    let mut stream = BufReader::new(stream);
    let (mut bare, mut content) = (false, false);
    if greets {
        stream.write_all(b"220 mx\r\n").await.ok()?;
    }
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_owned();
        told.lock().unwrap().push(line.clone());
        let answer = if content {
            content = line != ".";
            if content { String::new() } else { "250 taken\r\n".to_owned() }
        } else {
            bare |= line.starts_with("EHLO ") && !line.contains('.') && !line.contains(':');
            content = line == "DATA";
            answer(&line, manner, manner.strict && bare)
        };
        stream.write_all(answer.as_bytes()).await.ok()?;
        stream.flush().await.ok()?;
        if line == "STARTTLS" {
            return Some(stream.into_inner());
        }
    }
}

fn answer(line: &str, manner: &Manner, refuses: bool) -> String {
    if let Some(refused) = manner.refuses.and_then(|refuses| refuses(line)) {
        return refused;
    }
    let verb = line.split([' ', ':']).next().unwrap_or_default();
    match verb {
        "EHLO" => {
            let starttls = if manner.tls.is_some() && !manner.implicit { "250-STARTTLS\r\n" } else { "" };
            let offers: String = manner.offers.iter().map(|offer| format!("250-{offer}\r\n")).collect();
            format!("250-mx\r\n{starttls}{offers}250 8BITMIME\r\n")
        }
        "STARTTLS" => format!("220 go\r\n{}", manner.injects),
        "RCPT" if refuses => {
            "504 5.5.2 <gateway>: Helo command rejected: need fully-qualified hostname\r\n".into()
        }
        "DATA" => "354 go on\r\n".into(),
        "AUTH" if line == "AUTH LOGIN" => "334 VXNlcm5hbWU6\r\n".into(),
        "AUTH" if line.ends_with("AHVzZXIAcGFzcw==") => "235 in\r\n".into(),
        "AUTH" => "535 5.7.8 no\r\n".into(),
        "dXNlcg==" => "334 UGFzc3dvcmQ6\r\n".into(),
        "cGFzcw==" => "235 in\r\n".into(),
        "QUIT" => "221 bye\r\n".into(),
        _ => "250 fine\r\n".into(),
    }
}

// ------------------------------------------------------------- certificates

struct Identity {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// Returns parameters as `openssl req -x509` uses them.
fn authority(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn of_itself(params: &CertificateParams) -> Identity {
    let key = KeyPair::generate().unwrap();
    Identity { certificate: params.self_signed(&key).unwrap(), key }
}

fn signed_by(params: &CertificateParams, issuer: &CertificateParams, by: &Identity) -> Identity {
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::from_params(issuer, &by.key);
    Identity { certificate: params.signed_by(&key, &issuer).unwrap(), key }
}

impl Identity {
    fn config(&self) -> Arc<ServerConfig> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        let chain = vec![self.certificate.der().clone()];
        Arc::new(ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap())
    }
}

// --------------------------------------------------------------------- a client

/// Returns the settings of a file.
fn settings(server: &Server, more: &str) -> MailConfig {
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "[mail]\nhost = \"localhost\"\nport = {}\nfrom = \"fleet@example.com\"\nto = [\"ops@example.com\"]\n{more}",
        server.port
    );
    let file = dir.path().join("fleetgate.toml");
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    Config::load(dir.path(), None).unwrap().mail.unwrap()
}

fn envelope() -> Envelope {
    let address = |text: &str| text.parse().unwrap();
    Envelope::new(Some(address("fleet@example.com")), vec![address("ops@example.com")]).unwrap()
}

/// Sends a mail, and returns the error as in the log.
async fn send(mail: &MailConfig) -> Result<(), String> {
    let transport = Transport::new(mail, PATIENCE).unwrap();
    transport.send(&envelope(), LETTER).await.map_err(|error| explain(&error, mail))
}

/// Sends over STARTTLS and over implicit TLS to a server with this certificate, while the gateway
/// trusts `named`.
async fn over_tls(server: &Identity, named: Option<&Identity>, host: &str) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let ca: Option<PathBuf> = named.map(|named| {
        let file = dir.path().join("ca.pem");
        std::fs::write(&file, named.certificate.pem()).unwrap();
        file
    });
    let mut outcomes = Vec::new();
    for (implicit, security) in [(false, MailSecurity::Starttls), (true, MailSecurity::Tls)] {
        let to = Server::start(Manner { tls: Some(server.config()), implicit, ..Manner::default() }).await;
        let mail = MailConfig { security, ca: ca.clone(), host: host.into(), ..settings(&to, "") };
        let sent = send(&mail).await;
        assert_eq!(sent.is_ok(), to.told("..hidden").len() == 1, "the letter leaves, or nothing does");
        outcomes.push(sent);
    }
    assert_eq!(outcomes[0], outcomes[1], "both doors are kept alike");
    outcomes.swap_remove(0)
}

// ------------------------------------------------------------------------ tests

#[tokio::test]
async fn a_configured_self_signed_certificate_is_trusted() {
    let authority = of_itself(&authority("localhost"));
    over_tls(&authority, Some(&authority), "localhost").await.unwrap();
    let plain = of_itself(&params("localhost"));
    over_tls(&plain, Some(&plain), "localhost").await.unwrap();
    let numbered = of_itself(&params("127.0.0.1"));
    over_tls(&numbered, Some(&numbered), "127.0.0.1").await.unwrap();
}

#[tokio::test]
async fn a_configured_certificate_without_alternative_names_is_trusted_by_its_subject() {
    let bare = |name| {
        let mut params = authority(name);
        params.subject_alt_names.clear();
        params
    };
    let (good, other) = (of_itself(&bare("localhost")), of_itself(&bare("mx.example.com")));
    over_tls(&good, Some(&good), "localhost").await.unwrap();
    let refused = over_tls(&other, Some(&other), "localhost").await.unwrap_err();
    assert!(refused.contains("for another name; set mail.host"), "{refused}");
}

#[tokio::test]
async fn a_configured_certificate_is_trusted_for_its_names_and_dates_only() {
    let faulty = |change: fn(&mut CertificateParams)| {
        let mut params = authority("localhost");
        change(&mut params);
        of_itself(&params)
    };
    let expired = faulty(|p| p.not_after = date_time_ymd(2020, 1, 1));
    let early = faulty(|p| p.not_before = date_time_ymd(2090, 1, 1));
    let elsewhere = of_itself(&authority("mx.example.com"));
    for (server, why) in [
        (&expired, "it has expired"),
        (&early, "it is not valid yet"),
        (&elsewhere, "it is for another name; set mail.host"),
    ] {
        let refused = over_tls(server, Some(server), "localhost").await.unwrap_err();
        assert!(refused.contains(why), "{why}: {refused}");
    }
}

#[tokio::test]
async fn another_certificate_of_the_same_name_is_refused() {
    let (named, other) = (of_itself(&authority("localhost")), of_itself(&authority("localhost")));
    let refused = over_tls(&other, Some(&named), "localhost").await.unwrap_err();
    assert!(refused.contains("mail.ca holds neither this certificate nor"), "{refused}");
    let refused = over_tls(&other, None, "localhost").await.unwrap_err();
    assert!(refused.contains("name that certificate in mail.ca"), "{refused}");
}

#[tokio::test]
async fn a_configured_authority_is_trusted_for_certificates_that_it_signed() {
    let (root, leaf) = (authority("Our authority"), params("localhost"));
    let named = of_itself(&root);
    over_tls(&signed_by(&leaf, &root, &named), Some(&named), "localhost").await.unwrap();
    // The key of a server's certificate cannot sign other certificates.
    let named = of_itself(&leaf);
    let refused = over_tls(&signed_by(&params("localhost"), &leaf, &named), Some(&named), "localhost").await;
    assert!(refused.is_err(), "only exactly that certificate");
}

#[tokio::test]
async fn replies_from_before_tls_are_discarded() {
    let identity = of_itself(&authority("localhost"));
    let injects = "250-mx\r\n250 AUTH PLAIN\r\n";
    let server = Server::start(Manner { tls: Some(identity.config()), injects, ..Manner::default() }).await;
    let refused = send(&settings(&server, "user = \"user\"\npassword = \"pass\"\n")).await.unwrap_err();
    assert!(refused.contains("answer to STARTTLS is no SMTP"), "{refused}");
    assert!(server.told("AUTH").is_empty());
}

#[tokio::test]
async fn the_hello_name_is_accepted_by_strict_servers() {
    let manner = Manner { strict: true, ..Manner::default() };
    for (setting, said) in [
        ("", None),
        ("hello = \"gw.example.com\"\n", Some("gw.example.com")),
        ("hello = \"2001:db8::1\"\n", Some("[IPv6:2001:db8::1]")),
    ] {
        let server = Server::start(manner.clone()).await;
        send(&settings(&server, &format!("security = \"none\"\n{setting}"))).await.unwrap();
        let told = server.told("EHLO ");
        assert!(told.len() == 1 && said.is_none_or(|said| told[0] == said), "{told:?}");
        assert!(told[0].contains('.') || told[0].contains(':'), "{told:?}");
    }
    let server = Server::start(manner).await;
    let refused = send(&settings(&server, "security = \"none\"\nhello = \"gateway\"\n")).await.unwrap_err();
    assert!(
        refused.contains("504 5.5.2") && refused.contains("set mail.hello to its full name"),
        "{refused}"
    );
}

#[tokio::test]
async fn an_impossible_login_is_reported_with_its_reason() {
    let user = "security = \"none\"\nuser = \"user\"\npassword = \"pass\"\n";
    for (offers, words) in [
        (
            &["AUTH CRAM-MD5 DIGEST-MD5"][..],
            "logins by CRAM-MD5, DIGEST-MD5 alone, and fleetgate has PLAIN and LOGIN",
        ),
        (&[][..], "the server offers no login; it may offer one over TLS alone"),
    ] {
        let server = Server::start(Manner { offers, ..Manner::default() }).await;
        let refused =
            send(&MailConfig { host: "127.0.0.1".into(), ..settings(&server, user) }).await.unwrap_err();
        assert!(refused.contains(words), "{refused}");
        assert_eq!(refused.contains("leave mail.user"), offers.is_empty(), "{refused}");
        assert!(server.told("MAIL").is_empty(), "nothing is sent without the login");
    }
}

#[tokio::test]
async fn the_supported_login_mechanisms_work() {
    let user = "security = \"none\"\nuser = \"user\"\npassword = \"pass\"\n";
    for offers in
        [&["AUTH CRAM-MD5 PLAIN LOGIN"][..], &["AUTH LOGIN"][..], &["AUTH=LOGIN"][..], &["auth plain"][..]]
    {
        let server = Server::start(Manner { offers, ..Manner::default() }).await;
        send(&settings(&server, user)).await.unwrap();
        assert_eq!(server.told("..hidden").len(), 1, "{offers:?}");
    }
    let server = Server::start(Manner { offers: &["AUTH PLAIN"], ..Manner::default() }).await;
    let wrong = "security = \"none\"\nuser = \"user\"\npassword = \"other\"\n";
    let refused = send(&settings(&server, wrong)).await.unwrap_err();
    assert!(refused.contains("535 5.7.8 no; check mail.user and mail.password"), "{refused}");
}

/// The refusal of a line, if the server refuses it.
type Refusal = fn(&str) -> Option<String>;

#[tokio::test]
async fn no_part_of_a_login_that_a_server_repeats_is_shown() {
    let user = "security = \"none\"\nuser = \"user\"\npassword = \"Xyzzy-Plugh-9137\"\n";
    let hidden = "(the text repeats a part of the login and is not shown)";
    let cases: [(Refusal, &str); 4] = [
        (
            |line| line.strip_prefix("AUTH").map(|sent| format!("500 what is AUTH{}?\r\n", &sent[..26])),
            "AUTH with 500 ",
        ),
        (
            |line| line.starts_with("AUTH").then(|| "535-5.7.8 Xyzzy-Plu\r\n535 gh-9137\r\n".into()),
            "AUTH with 535 5.7.8 ",
        ),
        (
            |line| match line.split(' ').next() {
                Some("AUTH") => Some("235 welcome\r\n".into()),
                Some("MAIL") => Some("550 5.1.0 eHl6enktUGx1Z2gtOTEzNw\r\n".into()),
                _ => None,
            },
            "MAIL FROM with 550 5.1.0 ",
        ),
        (|line| line.starts_with("EHLO").then(|| "550 XYZZY-PLUGH\r\n".into()), "EHLO with 550 "),
    ];
    for (refuses, step) in cases {
        let manner = Manner { offers: &["AUTH PLAIN"], refuses: Some(refuses), ..Manner::default() };
        let server = Server::start(manner).await;
        let accepts = refuses("MAIL").is_some();
        let refused = send(&settings(&server, user)).await;
        let refused = refused.unwrap_err();
        assert!(accepts || server.told("MAIL").is_empty(), "{refused}");
        assert!(refused.contains(&format!("answered {step}{hidden}")), "{step}: {refused}");
    }
}

#[tokio::test]
async fn a_silent_mail_server_times_out_with_a_hint() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = Server { port, told: Arc::default() };
    let mail = settings(&server, "security = \"none\"\n");
    let transport = Transport::new(&mail, Duration::from_millis(100)).unwrap();
    let error = transport.send(&envelope(), LETTER).await.unwrap_err();
    let words = explain(&error, &mail);
    assert!(
        words.contains("did not answer the connection in time; if it speaks TLS from the start"),
        "{words}"
    );
}
