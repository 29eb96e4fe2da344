use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use axum::Extension;
use axum::body::Body;
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

use super::*;
use crate::api::Login;
use crate::config::TlsFiles;

/// The usual limits with shorter times.
const LIMITS: Limits = Limits {
    head: Duration::from_millis(300),
    connections: 4,
    from_one_source: 4,
    grace: Duration::from_millis(300),
};
/// More than the buffers of a connection take.
const LARGE: usize = 16 << 20;
/// Timeout for a busy machine.
const LONG: Duration = Duration::from_secs(20);

struct Door {
    address: SocketAddr,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

/// `/` responds, `/slow` never does, `/read` waits for the body, and `/stream` takes longer than a head
/// may.
fn router() -> Router {
    let late = || async {
        tokio::time::sleep(LIMITS.head * 2).await;
        Ok::<_, Infallible>("the end")
    };
    let stream = move || async move { Body::from_stream(futures_util::stream::once(late())) };
    Router::new()
        .route("/stream", get(stream))
        .route("/", get(|ConnectInfo(client): ConnectInfo<Client>| async move { format!("{client:?}") }))
        .route("/slow", get(std::future::pending::<String>))
        .route("/large", get(|| async { vec![b'x'; LARGE] }))
        .route("/refuse", post(|| async { axum::http::StatusCode::UNAUTHORIZED }))
        .route("/login", get(|Extension(login): Extension<Login>| async move { login.note() }))
        .route("/read", post(|body: axum::body::Bytes| async move { body.len().to_string() }))
}

async fn open(limits: Limits, tls: Option<Tls>) -> Door {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let house = House::new(router(), limits, stop.clone());
    Door { address, running: tokio::spawn(house.serve_tcp(listener, tls, Vec::new())), stop }
}

async fn open_socket(path: &Path) -> (CancellationToken, JoinHandle<()>) {
    let stop = CancellationToken::new();
    let house = House::new(router(), LIMITS, stop.clone());
    (stop, tokio::spawn(house.serve_local(UnixListener::bind(path).unwrap())))
}

/// Reads until the other side closes, and returns the text.
async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut said = Vec::new();
    let _ = tokio::time::timeout(LONG, stream.read_to_end(&mut said)).await.expect("it stays open");
    String::from_utf8_lossy(&said).into_owned()
}

async fn ask(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    rest(&mut stream).await
}

impl Door {
    async fn says(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }

    async fn stops_at_once(self) {
        let begin = Instant::now();
        self.stop.cancel();
        tokio::time::timeout(LONG, self.running).await.expect("it ends").unwrap();
        assert!(begin.elapsed() < LIMITS.grace + Duration::from_secs(5), "{:?}", begin.elapsed());
        assert!(TcpStream::connect(self.address).await.is_err(), "nobody listens any more");
    }
}

#[tokio::test]
async fn a_caller_is_known_by_his_address() {
    let door = open(LIMITS, None).await;
    let answer = ask(door.address).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("Remote(127.0.0.1:"), "{answer}");
    door.stops_at_once().await;
}

#[tokio::test]
async fn who_is_silent_or_slow_with_the_head_is_cut_off() {
    let door = open(LIMITS, None).await;
    for half in [&b""[..], b"GET / HTTP/1.1\r\nhost: x\r\n", b"PRI * HTTP/2.0\r\n"] {
        let mut stream = door.says(half).await;
        let said = rest(&mut stream).await;
        assert!(!said.contains("200 OK"), "{said}");
    }
    door.stops_at_once().await;
}

#[tokio::test]
async fn an_answer_may_take_longer_than_a_head() {
    let door = open(LIMITS, None).await;
    let mut stream = door.says(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(rest(&mut stream).await.contains("the end"));
    door.stops_at_once().await;
}

#[tokio::test]
async fn a_refusal_reaches_a_caller_who_is_still_sending() {
    let door = open(LIMITS, None).await;
    for size in [2, 100_000] {
        let head = format!(
            "POST /refuse HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {size}\r\n\r\n"
        );
        let mut stream = door.says(head.as_bytes()).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        stream.write_all(&vec![b'x'; size]).await.unwrap();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).await.expect("no reset");
        assert!(said.starts_with(b"HTTP/1.1 401"), "{size}: {}", String::from_utf8_lossy(&said));
    }
    door.stops_at_once().await;
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let door = open(LIMITS, None).await;
    let head = format!("GET / HTTP/1.1\r\nx: {}\r\n", "a".repeat(HEAD_BYTES));
    assert!(rest(&mut door.says(head.as_bytes()).await).await.starts_with("HTTP/1.1 431"));
    door.stops_at_once().await;
}

#[tokio::test]
async fn the_next_connection_waits_until_one_ends() {
    let door = open(LIMITS, None).await;
    let mut held = Vec::new();
    for _ in 0..LIMITS.connections {
        held.push(door.says(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await);
    }
    let next = tokio::spawn(ask(door.address));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!next.is_finished(), "there is no room");
    held.pop();
    assert!(next.await.unwrap().starts_with("HTTP/1.1 200"));
    door.stops_at_once().await;
}

/// Four addresses with their share of 128 each can occupy all places.
#[tokio::test]
async fn idle_strangers_make_room_and_who_has_a_login_stays() {
    let limits = Limits { head: LONG, ..Limits::default() };
    let door = open(limits, None).await;
    let mut known = door.says(b"GET /login HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut answer = [0; 15];
    known.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    let mut strangers = Vec::new();
    for n in 0..limits.connections {
        let half = [&b""[..], b"GET / HTTP/1.1\r\nhost:"][n % 2];
        strangers.push(door.says(half).await);
    }
    assert!(ask(door.address).await.starts_with("HTTP/1.1 200"), "there is room for somebody who asks");
    assert_eq!(rest(&mut strangers[0]).await, "", "the one that was idle for the longest made room");
    known.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(rest(&mut known).await.contains("Remote(127.0.0.1"));
    door.stops_at_once().await;
}

#[tokio::test]
async fn a_stranger_who_still_gets_his_answer_has_a_grace_for_it() {
    let limits = Limits { head: LONG, ..Limits::default() };
    let door = open(limits, None).await;
    let mut loading = door.says(b"GET /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let mut answer = [0; 15];
    loading.read_exact(&mut answer).await.unwrap();
    let mut idle = Vec::new();
    for _ in 0..limits.connections {
        idle.push(door.says(b"").await);
    }
    assert_eq!(rest(&mut idle[0]).await, "", "another made room");
    assert!(rest(&mut loading).await.len() > LARGE);
    door.stops_at_once().await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_the_slow_the_silent_and_the_half_sent() {
    let door = open(Limits { head: LONG, ..LIMITS }, None).await;
    let mut held = Vec::new();
    for half in [
        &b""[..],
        b"GET / HTTP/1.1\r\nhost:",
        b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /read HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf",
    ] {
        held.push(door.says(half).await);
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    door.stops_at_once().await;
}

#[tokio::test]
async fn what_is_answered_within_the_grace_is_still_answered() {
    let door = open(Limits { grace: LONG, head: LONG, ..LIMITS }, None).await;
    let mut stream = door.says(b"POST /read HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    door.stop.cancel();
    tokio::time::sleep(Duration::from_millis(50)).await;
    stream.write_all(b"late").await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 200"));
    tokio::time::timeout(LONG, door.running).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_socket_has_the_same_limits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("door");
    let (stop, running) = open_socket(&path).await;
    let mut silent = UnixStream::connect(&path).await.unwrap();
    rest(&mut silent).await;
    let mut asks = UnixStream::connect(&path).await.unwrap();
    asks.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let answer = rest(&mut asks).await;
    assert!(answer.contains("Local { uid:"), "{answer}");
    let mut slow = UnixStream::connect(&path).await.unwrap();
    slow.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    stop.cancel();
    tokio::time::timeout(LONG, running).await.expect("it ends").unwrap();
}

/// A certificate and key for localhost, as files and as the client's trust anchor.
struct Pair {
    files: TlsFiles,
    cert: rustls::pki_types::CertificateDer<'static>,
}

impl Pair {
    fn make(dir: &Path) -> Pair {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let files = TlsFiles { cert: dir.join("cert.pem"), key: dir.join("key.pem") };
        std::fs::write(&files.cert, made.cert.pem()).unwrap();
        crate::secret_file::write_new(&files.key, &made.signing_key.serialize_pem()).unwrap();
        Pair { files, cert: made.cert.der().clone() }
    }

    async fn shake(&self, address: SocketAddr) -> tokio_rustls::client::TlsStream<TcpStream> {
        self.shake_for(address, &[]).await
    }

    /// Performs a handshake that offers these protocols.
    async fn shake_for(
        &self,
        address: SocketAddr,
        protocols: &[&str],
    ) -> tokio_rustls::client::TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.cert.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(address).await.unwrap();
        let name = "localhost".try_into().unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }
}

#[tokio::test]
async fn over_tls_everything_is_the_same_and_a_handshake_has_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::make(dir.path());
    let door = open(LIMITS, Some(Tls::open(&pair.files).unwrap())).await;
    let mut stream = pair.shake(door.address).await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("Remote(127.0.0.1:"), "{answer}");
    assert_eq!(rest(&mut door.says(b"").await).await, "", "no handshake");
    assert!(!rest(&mut pair.shake(door.address).await).await.contains("200 OK"), "no request after it");
    let _silent = door.says(b"").await;
    let _shaken = pair.shake(door.address).await;
    door.stops_at_once().await;
}

#[tokio::test]
async fn a_browser_gets_http_2_and_a_stop_waits_for_none_of_its_requests() {
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::make(dir.path());
    let door = open(LIMITS, Some(Tls::open(&pair.files).unwrap())).await;
    let stream = TokioIo::new(pair.shake_for(door.address, &["h2", "http/1.1"]).await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let get =
        |path: &str| Request::builder().uri(format!("https://localhost{path}")).body(Body::empty()).unwrap();
    let answer = sender.send_request(get("/")).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, axum::http::Version::HTTP_2));
    let slow = tokio::spawn(sender.send_request(get("/slow")));
    tokio::time::sleep(Duration::from_millis(50)).await;
    door.stops_at_once().await;
    assert!(slow.await.unwrap().is_err());
    let _ = tokio::time::timeout(LONG, connection).await.expect("the connection ends");
}

#[test]
fn files_for_tls_that_cannot_be_used_are_named() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let good = Pair::make(dir.path()).files;
    let error = |files: &TlsFiles| format!("{:#}", Tls::open(files).err().unwrap());
    let swapped = TlsFiles { cert: good.key.clone(), key: good.key.clone() };
    assert!(error(&swapped).contains("holds no certificate"), "{}", error(&swapped));
    let missing = TlsFiles { cert: dir.path().join("none.pem"), key: good.key.clone() };
    assert!(error(&missing).contains("none.pem"), "{}", error(&missing));
    std::fs::set_permissions(&good.key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let open = error(&good);
    assert!(open.contains("tls_key") && open.contains("chmod 640") && open.contains("key.pem"), "{open}");
}
