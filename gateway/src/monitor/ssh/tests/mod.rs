//! The client against servers that behave, and servers that do not.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use fleetgate_engine::messages::{CommandEnd, HostKey, KeyType, LoginRefusal, RemoteCommand};
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{HashAlg, PrivateKey};
use russh::server::{self, Auth, ChannelOpenHandle, VerifiedPublicKey};
use russh::{Channel, ChannelId, Sig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf};

use super::*;

mod bounds;
mod dropbear_server;
mod openssh_server;

const SECOND: Duration = Duration::from_secs(1);
/// More than any step takes on a busy machine.
const PLENTY: Duration = Duration::from_secs(30);

fn ssh_key(seed: u8) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))
}

fn openssh(key: &PrivateKey) -> String {
    key.to_openssh(LineEnding::LF).expect("encodes").to_string()
}

fn fingerprint(key: &PrivateKey) -> String {
    key.public_key().fingerprint(HashAlg::Sha256).to_string()
}

fn gateway_key() -> PrivateKey {
    ssh_key(1)
}

fn client_with(limits: Limits) -> SshClient {
    SshClient::new(&openssh(&gateway_key()), limits).expect("a key")
}

fn client() -> SshClient {
    client_with(Limits::default())
}

fn key() -> SessionKey {
    let route = Route::Direct { host: "camera.example".to_owned() };
    SessionKey { host: HostId::from_i64(7), route, port: 22 }
}

fn pinned(pin: &str, lines: &[&str]) -> SshRun {
    let command = |line: &&str| RemoteCommand {
        name: (*line).to_owned(),
        line: (*line).to_owned(),
        timeout: PLENTY,
        bounded: false,
    };
    SshRun {
        pin: Some(pin.into()),
        learn: false,
        user: Some("watch".to_owned()),
        commands: lines.iter().map(command).collect(),
    }
}

/// A server in this process. Its reaction to a command depends on the command's text.
#[derive(Clone)]
struct Server {
    host_key: u8,
    accepts: u8,
    /// Whether it has a shell that runs the command line; without it a command is a word, see `act`.
    shell: bool,
    heard: Arc<Mutex<Vec<String>>>,
    logins: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    fn new() -> Self {
        Server {
            host_key: 2,
            accepts: 1,
            shell: false,
            heard: Arc::default(),
            logins: Arc::default(),
            connections: Arc::default(),
        }
    }

    fn pin(&self) -> String {
        fingerprint(&ssh_key(self.host_key))
    }

    fn shown(&self) -> HostKey {
        HostKey { fingerprint: self.pin(), key_type: Some(KeyType::Ed25519), line: None }
    }

    fn logins(&self) -> usize {
        self.logins.load(Ordering::SeqCst)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    async fn connect(&self) -> Result<DuplexStream, ConnectFailure> {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let config = server::Config {
            keys: vec![ssh_key(self.host_key)],
            auth_rejection_time: Duration::ZERO,
            ..server::Config::default()
        };
        self.connections.fetch_add(1, Ordering::SeqCst);
        let server = self.clone();
        tokio::spawn(async move {
            if let Ok(session) = server::run_stream(Arc::new(config), theirs, server).await {
                let _ = session.await;
            }
        });
        Ok(ours)
    }
}

impl server::Handler for Server {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        _: &str,
        _: server::PublicKeyOffer<'_>,
    ) -> Result<Auth, russh::Error> {
        self.logins.fetch_add(1, Ordering::SeqCst);
        Ok(Auth::Accept)
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        let right = key.public_key.key_data() == ssh_key(self.accepts).public_key().key_data();
        Ok(if user == "watch" && right { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<server::Msg>,
        reply: ChannelOpenHandle,
        _: &mut server::Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        line: &[u8],
        session: &mut server::Session,
    ) -> Result<(), russh::Error> {
        if line == b"refuse" {
            return session.channel_failure(id);
        }
        session.channel_success(id)?;
        let line = String::from_utf8_lossy(line).into_owned();
        self.heard.lock().expect("no panic").push(line.clone());
        match self.shell {
            true => drop(tokio::spawn(bounds::run(session.handle(), id, line))),
            false => drop(tokio::spawn(act(session.handle(), id, line))),
        }
        Ok(())
    }
}

async fn act(handle: server::Handle, id: ChannelId, line: String) {
    match line.as_str() {
        "hang" => return,
        "stay" => {
            let _ = handle.exit_status_request(id, 0).await;
            return;
        }
        "flood" => drop(handle.data(id, vec![b'x'; 100 * 1024]).await),
        "drop" => {
            let reason = russh::Disconnect::ByApplication;
            let _ = handle.disconnect(reason, String::new(), String::new()).await;
        }
        "fail" => {
            let _ = handle.extended_data(id, 1, "no such sensor").await;
            let _ = handle.exit_status_request(id, 3).await;
        }
        "signal" => {
            let text = String::new;
            let _ = handle.exit_signal_request(id, Sig::KILL, false, text(), text()).await;
        }
        "open back" => {
            let opened = handle.channel_open_forwarded_tcpip("a", 1, "b", 2).await;
            let _ = handle.data(id, if opened.is_ok() { "accepted" } else { "refused" }).await;
            let _ = handle.exit_status_request(id, 0).await;
        }
        other => {
            let _ = handle.data(id, other.to_owned()).await;
            let _ = handle.exit_status_request(id, 0).await;
        }
    }
    let _ = handle.eof(id).await;
    let _ = handle.close(id).await;
}

/// Connects on the first call only.
fn once<S>(stream: S) -> impl Fn() -> std::future::Ready<Result<S, ConnectFailure>> {
    let stream = Mutex::new(Some(stream));
    move || std::future::ready(stream.lock().expect("no panic").take().ok_or(ConnectFailure::Refused))
}

async fn ask(client: &SshClient, server: &Server, run: SshRun) -> SshReply {
    client.run(key(), || server.connect(), run, PLENTY).await
}

/// A server that sends these bytes once the client has sent some, and then keeps the connection or
/// closes it.
async fn says(words: Vec<u8>, then_closes: bool) -> Result<DuplexStream, ConnectFailure> {
    let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move {
        let _ = theirs.read(&mut [0; 1024]).await;
        let _ = theirs.write_all(&words).await;
        while !then_closes && theirs.read(&mut [0; 1024]).await.is_ok_and(|n| n > 0) {}
    });
    Ok(ours)
}

async fn hear(words: &[u8], then_closes: bool) -> SshReply {
    let run = pinned("SHA256:x", &[]);
    client().run(key(), || says(words.to_vec(), then_closes), run, SECOND).await
}

#[tokio::test]
async fn a_command_is_run_under_the_right_host_key() {
    let server = Server::new();
    let answer = ask(&client(), &server, pinned(&server.pin(), &["hello", "world"])).await;
    assert_eq!(answer.failure, None);
    assert!(answer.identification.is_some_and(|id| id.starts_with("SSH-2.0-russh")));
    assert_eq!(answer.host_key, Some(server.shown()));
    assert!(answer.logged_in && answer.connect.is_some() && !answer.reused);
    let outputs: Vec<_> = answer.commands.iter().map(|c| c.stdout.as_slice()).collect();
    assert_eq!(outputs, [b"hello", b"world"]);
    assert!(answer.commands.iter().all(|c| c.end == CommandEnd::Exit(0) && !c.truncated));
}

#[tokio::test]
async fn nothing_is_authenticated_under_a_wrong_host_key() {
    let server = Server::new();
    let answer = ask(&client(), &server, pinned("SHA256:other", &["hello"])).await;
    let pinned = HostKey::from("SHA256:other");
    assert_eq!(answer.failure, Some(SshFailure::HostKeyChanged { pinned, seen: server.shown() }));
    assert!(!answer.logged_in && answer.commands.is_empty());
    assert_eq!(server.logins(), 0);
}

#[tokio::test]
async fn an_unknown_host_key_is_reported_and_nothing_is_authenticated() {
    let server = Server::new();
    let run = SshRun { pin: None, ..pinned("", &["hello"]) };
    let answer = ask(&client(), &server, run).await;
    assert_eq!(answer.failure, Some(SshFailure::HostKeyUnknown { seen: server.shown() }));
    assert_eq!(answer.host_key, Some(server.shown()));
    assert_eq!(server.logins(), 0);
}

#[tokio::test]
async fn an_unknown_host_key_may_be_learnt_and_then_serves_as_the_pin() {
    let (server, client) = (Server::new(), client());
    let run = SshRun { pin: None, learn: true, ..pinned("", &["hello"]) };
    let answer = ask(&client, &server, run).await;
    assert_eq!((answer.failure, answer.host_key), (None, Some(server.shown())));
    let answer = ask(&client, &server, pinned(&server.pin(), &["hello"])).await;
    assert!(answer.reused && answer.commands.len() == 1);
}

#[tokio::test]
async fn without_a_user_there_is_no_login() {
    let server = Server::new();
    let run = SshRun { user: None, ..pinned(&server.pin(), &["hello"]) };
    let client = client();
    let answer = ask(&client, &server, run).await;
    assert_eq!(answer.failure, None);
    assert!(!answer.logged_in && answer.commands.is_empty() && answer.connect.is_some());
    assert_eq!((server.logins(), client.kept()), (0, 0));
}

#[tokio::test]
async fn a_refused_login_names_the_user() {
    let server = Server { accepts: 9, ..Server::new() };
    let answer = ask(&client(), &server, pinned(&server.pin(), &["hello"])).await;
    let refused = SshFailure::LoginRefused { user: "watch".to_owned(), why: LoginRefusal::Key };
    assert_eq!(answer.failure, Some(refused));
    assert_eq!(server.logins(), 1);
}

#[tokio::test]
async fn exit_status_stderr_and_signals_are_reported() {
    let server = Server::new();
    let answer = ask(&client(), &server, pinned(&server.pin(), &["fail", "signal"])).await;
    assert_eq!(answer.commands[0].end, CommandEnd::Exit(3));
    assert_eq!(answer.commands[0].stderr, b"no such sensor");
    assert_eq!(answer.commands[1].end, CommandEnd::Signal("KILL".to_owned()));
}

#[tokio::test]
async fn output_over_the_limit_is_cut_and_flagged() {
    let server = Server::new();
    let answer = ask(&client(), &server, pinned(&server.pin(), &["flood", "ok"])).await;
    assert_eq!(answer.failure, None);
    let sizes: Vec<_> = answer.commands.iter().map(|c| (c.stdout.len(), c.truncated)).collect();
    assert_eq!(sizes, [(65_536, true), (2, false)]);
}

#[tokio::test]
async fn a_command_that_hangs_costs_only_its_own_time() {
    let server = Server::new();
    let mut run = pinned(&server.pin(), &["hang", "hello"]);
    run.commands[0].timeout = Duration::from_millis(200);
    let answer = ask(&client(), &server, run).await;
    assert_eq!(answer.failure, None);
    assert_eq!(answer.commands[0].end, CommandEnd::Timeout);
    assert!(answer.commands[0].took >= Duration::from_millis(200));
    assert_eq!(answer.commands[1].stdout, b"hello");
}

#[tokio::test]
async fn a_session_that_does_not_open_has_the_time_for_that_alone() {
    let silent = || says(b"SSH-2.0-silent\r\n".to_vec(), false);
    let times = (SECOND / 10, 600 * SECOND);
    let answer = client().run_within(key(), silent, pinned("SHA256:x", &["hello"]), times).await;
    assert_eq!(answer.failure, Some(SshFailure::Timeout));
    let never = || std::future::pending::<Result<DuplexStream, ConnectFailure>>();
    let answer = client().run_within(key(), never, pinned("", &[]), times).await;
    assert_eq!(answer.failure, Some(SshFailure::Connect(ConnectFailure::Timeout)));
}

#[tokio::test]
async fn the_whole_run_ends_in_time_and_keeps_what_it_has() {
    let server = Server::new();
    let run = pinned(&server.pin(), &["hello", "hang", "never"]);
    let answer = client().run(key(), || server.connect(), run, 3 * SECOND).await;
    assert_eq!(answer.failure, Some(SshFailure::Timeout));
    let ends: Vec<_> = answer.commands.iter().map(|c| c.end.clone()).collect();
    assert_eq!(ends, [CommandEnd::Exit(0), CommandEnd::Timeout]);
}

#[tokio::test]
async fn a_connection_lost_in_a_command_is_a_failure_of_the_transport() {
    let server = Server::new();
    let answer = ask(&client(), &server, pinned(&server.pin(), &["drop", "hello"])).await;
    assert!(matches!(answer.failure, Some(SshFailure::Protocol(_))), "{answer:?}");
    assert_eq!(answer.commands.len(), 1);
    assert_eq!(answer.commands[0].end, CommandEnd::Lost);
}

#[tokio::test]
async fn a_server_that_refuses_commands_is_told_from_one_whose_commands_fail() {
    let server = Server::new();
    let answer = ask(&client(), &server, pinned(&server.pin(), &["refuse"])).await;
    assert!(matches!(answer.failure, Some(SshFailure::Protocol(text)) if text.contains("refused")));
}

#[tokio::test]
async fn channels_that_a_server_opens_are_refused() {
    let server = Server::new();
    let answer = ask(&client(), &server, pinned(&server.pin(), &["open back"])).await;
    assert_eq!(answer.commands[0].stdout, b"refused");
}

#[tokio::test]
async fn a_silent_ssh_server_times_out() {
    assert_eq!(hear(b"", false).await.failure, Some(SshFailure::Timeout));
}

#[tokio::test]
async fn a_server_that_disconnects_at_once_is_reported() {
    assert!(matches!(hear(b"", true).await.failure, Some(SshFailure::Protocol(_))));
}

#[tokio::test]
async fn a_server_without_ssh_is_reported_with_its_first_bytes() {
    for (words, closes) in [(&b"220 mail \x1b[31mESMTP\r\n"[..], false), (b"HTTP/1.1 400\r\n\r\n", true)] {
        let failure = hear(words, closes).await.failure;
        let Some(SshFailure::NotSsh(shown)) = failure else { panic!("{failure:?}") };
        assert!(shown.starts_with("220 mail ?[31mESMTP") || shown.starts_with("HTTP/1.1 400"));
    }
}

#[tokio::test]
async fn garbage_and_banners_without_end_are_not_ssh() {
    let long = [b"SSH-2.0-".as_slice(), &[b'A'; 100_000]].concat();
    let lines = b"motd\r\n".repeat(10_000);
    for words in [vec![0xff; 300], long, lines] {
        let failure = hear(&words, false).await.failure;
        assert!(matches!(&failure, Some(SshFailure::NotSsh(s)) if s.len() <= 120), "{failure:?}");
    }
}

#[tokio::test]
async fn garbage_after_the_identification_is_a_protocol_error() {
    let words = [b"SSH-2.0-evil\r\n".as_slice(), &[0xff; 5000]].concat();
    let answer = hear(&words, false).await;
    assert_eq!(answer.identification.as_deref(), Some("SSH-2.0-evil"));
    assert!(matches!(answer.failure, Some(SshFailure::Protocol(_))), "{answer:?}");
}

#[tokio::test]
async fn a_failed_connect_is_passed_on_and_a_slow_one_times_out() {
    let refused = || async { Err::<DuplexStream, _>(ConnectFailure::Refused) };
    let answer = client().run(key(), refused, pinned("", &[]), PLENTY).await;
    assert_eq!(answer.failure, Some(SshFailure::Connect(ConnectFailure::Refused)));
    let never = std::future::pending::<Result<DuplexStream, ConnectFailure>>;
    let answer = client().run(key(), never, pinned("", &[]), SECOND / 10).await;
    assert_eq!(answer.failure, Some(SshFailure::Connect(ConnectFailure::Timeout)));
}

#[tokio::test]
async fn a_run_that_gets_no_turn_is_reported_as_busy() {
    let client = client_with(Limits { concurrent: 0, ..Limits::default() });
    let answer =
        client.run(key(), || async { Server::new().connect().await }, pinned("", &[]), SECOND / 10).await;
    assert_eq!(answer.failure, Some(SshFailure::Connect(ConnectFailure::Busy)));
}

/// Panics in the code that reads it.
struct Bomb(DuplexStream);

impl AsyncRead for Bomb {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        panic!("as a bug in the protocol code would");
    }
}

impl AsyncWrite for Bomb {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_panic_in_a_session_is_reported() {
    let (ours, _theirs) = tokio::io::duplex(1024);
    let bomb = once(Bomb(ours));
    let answer = client().run(key(), bomb, pinned("", &[]), PLENTY).await;
    assert!(matches!(answer.failure, Some(SshFailure::Protocol(text)) if text.contains("broke")));
}

#[tokio::test]
async fn a_kept_connection_serves_the_next_run_also_without_commands() {
    let (server, client) = (Server::new(), client());
    for (lines, reused) in [(&["hello"][..], false), (&["hello"], true), (&[], true)] {
        let answer = ask(&client, &server, pinned(&server.pin(), lines)).await;
        assert_eq!((answer.failure, answer.reused), (None, reused));
        assert!(answer.logged_in && answer.host_key == Some(server.shown()));
    }
    assert_eq!((server.connections(), client.kept()), (1, 1));
}

#[tokio::test]
async fn a_server_that_closes_no_channel_loses_its_kept_connection() {
    let (server, client) = (Server::new(), client());
    let mut run = pinned(&server.pin(), &["stay"]);
    run.commands[0].timeout = Duration::from_millis(50);
    for nth in 0..12 {
        let answer = ask(&client, &server, run.clone()).await;
        assert_eq!((answer.failure, answer.reused), (None, nth != 0 && nth != 9), "{nth}");
    }
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_kept_connection_does_not_serve_another_pin_or_user() {
    let (server, client) = (Server::new(), client());
    ask(&client, &server, pinned(&server.pin(), &[])).await;
    let answer = ask(&client, &server, pinned("SHA256:other", &[])).await;
    assert!(matches!(answer.failure, Some(SshFailure::HostKeyChanged { .. })));
    let stranger = SshRun { user: Some("root".to_owned()), ..pinned(&server.pin(), &[]) };
    let answer = ask(&client, &server, stranger).await;
    assert!(matches!(answer.failure, Some(SshFailure::LoginRefused { .. })));
    assert_eq!(server.connections(), 4, "a wrong pin is looked for once more among its other keys");
}

#[tokio::test]
async fn a_kept_connection_that_died_is_replaced_once() {
    let (server, client) = (Server::new(), client());
    let mut ours = server.connect().await.expect("connects");
    let (mut near, far) = tokio::io::duplex(64 * 1024);
    let relay = tokio::spawn(async move {
        let _ = tokio::io::copy_bidirectional(&mut ours, &mut near).await;
    });
    let first = client.run(key(), once(far), pinned(&server.pin(), &["a"]), PLENTY).await;
    assert_eq!((first.failure, client.kept()), (None, 1));
    relay.abort();
    let second = ask(&client, &server, pinned(&server.pin(), &["b"])).await;
    assert_eq!((second.failure, second.reused, second.commands.len()), (None, false, 1));
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn kept_connections_end_when_old_or_forgotten() {
    let server = Server::new();
    let client = client_with(Limits { idle: SECOND / 2, ..Limits::default() });
    ask(&client, &server, pinned(&server.pin(), &["a"])).await;
    assert_eq!(client.kept(), 1);
    tokio::time::sleep(SECOND).await;
    assert_eq!(client.kept(), 0);
    ask(&client, &server, pinned(&server.pin(), &["a"])).await;
    client.forget(key().host);
    assert_eq!(client.kept(), 0);
}

#[test]
fn an_invalid_host_key_is_refused() {
    assert!(SshClient::new("-----BEGIN NONSENSE-----", Limits::default()).is_err());
}
