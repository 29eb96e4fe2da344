//! The listeners of the API: TCP, TLS, the Unix socket, and the one inside the tunnels.
//!
//! No set of slow, silent or numerous clients keeps others out for ever, and a stop takes no longer
//! than [`Limits::grace`]. A request head must arrive within [`Limits::head`], and so must a TLS
//! handshake. The number of open connections is limited, in total and for each address. It does not
//! know the API: it hands each request to a router, with the [`Client`] that sent it.

mod idle;
mod leftover;
mod per_source_limit;
mod request_permits;
mod tls;
mod tunnels;
mod unread;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::api::{Client, no_place};
use idle::{Idle, Visit};
use per_source_limit::{ConnectionPermit, SourceLimit};
use request_permits::{RequestPermits, Shared};
pub use tls::Tls;
use unread::Unread;

/// The largest head of an HTTP/1 request, and so the most memory that a connection can occupy. A
/// cookie, a token and a long path take a tenth of it, and browsers send no more than 16 KiB.
const HEAD_BYTES: usize = 32 * 1024;
/// Concurrent requests on one HTTP/2 connection: a dashboard has an event stream and a handful of
/// lists.
const STREAMS: u32 = 32;
/// Flow-control window of an HTTP/2 stream: the largest body that the API accepts.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Interval of the pings on an idle HTTP/2 connection. A reply must arrive within [`Limits::head`].
const PING: Duration = Duration::from_secs(30);
/// Time after which a peer that neither acknowledges nor reads counts as gone.
const UNREAD: Duration = Duration::from_secs(60);
/// Open connections of the Unix socket: the gateway's own user and root run a handful of commands.
const LOCAL_CONNECTIONS: usize = 64;
/// When less than this fraction of all connections is free, each new one closes an idle one without a
/// login. A flood of idle connections thus displaces itself.
const NEARLY_FULL: usize = 8;
/// Time after its start or its last response during which a connection is not closed for another: its
/// request may be on its way.
const STILL_EXPECTED: Duration = Duration::from_secs(1);
/// Interval at which a full listener looks for a connection that has become idle.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Pause between attempts to accept while the process is out of file descriptors.
const NO_DESCRIPTORS: Duration = Duration::from_secs(1);

/// Limits on how much of a listener strangers can occupy, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Time limit for the head of a request, and for the idle time between two requests.
    pub head: Duration,
    /// Open connections of one listener: half of the 1,024 descriptors of an ordinary process. Further ones
    /// wait in the kernel's queue.
    pub connections: usize,
    /// Open connections of one IPv4 address or one IPv6 network. An office behind one address has a dozen
    /// dashboards with seven connections each. Further ones are closed at once.
    pub from_one_source: usize,
    /// Time that requests in progress get at a stop: a commit on a slow card takes a second.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            head: Duration::from_secs(10),
            connections: 512,
            from_one_source: 128,
            grace: Duration::from_secs(3),
        }
    }
}

/// The state that all listeners share. Cheap to clone.
#[derive(Clone)]
pub struct HttpServer {
    router: Router,
    limits: Limits,
    places: Shared,
    stop: CancellationToken,
}

impl HttpServer {
    pub fn new(router: Router, limits: Limits, stop: CancellationToken) -> HttpServer {
        HttpServer { router, limits, places: Shared::new(), stop }
    }

    /// Serves until the stop, after which requests in progress have the grace period. `trusted` are
    /// proxies, which connect for many clients.
    pub async fn serve_tcp(self, listener: TcpListener, tls: Option<Tls>, trusted: Vec<std::net::IpAddr>) {
        let crowd = SourceLimit::new(self.limits.from_one_source, trusted);
        let most = self.limits.connections;
        let mut visits = Connections::new(self, most);
        while let Some(room) = visits.room().await {
            let Some((stream, from)) = visits.accepted(listener.accept()).await else { continue };
            let Some(place) = crowd.enter(from.ip()) else {
                tracing::debug!(%from, "too many connections from there: closed");
                continue;
            };
            prepare(&stream);
            visits.begin(tls.clone(), stream, Client::Remote(from), (room, place));
        }
        drop(listener);
        visits.end().await;
    }

    /// The same on the Unix socket of this machine.
    pub async fn serve_local(self, listener: UnixListener) {
        let most = self.limits.connections.min(LOCAL_CONNECTIONS);
        let mut visits = Connections::new(self, most);
        while let Some(room) = visits.room().await {
            let Some((stream, _)) = visits.accepted(listener.accept()).await else { continue };
            let client = Client::local(&stream);
            visits.begin_local(stream, client, room);
        }
        drop(listener);
        visits.end().await;
    }

    // TLS negotiates the version. It is not detected from the first bytes, because that has no time
    // limit.
    fn http1(&self) -> http1::Builder {
        let mut builder = http1::Builder::new();
        let head = self.limits.head;
        builder.timer(TokioTimer::new()).header_read_timeout(head).max_buf_size(HEAD_BYTES);
        builder
    }

    fn http2(&self) -> Builder<TokioExecutor> {
        let mut builder = Builder::new(TokioExecutor::new()).http2_only();
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(self.limits.head)
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(STREAM_WINDOW)
            .max_send_buf_size(STREAM_WINDOW as usize)
            .max_header_list_size(HEAD_BYTES as u32);
        builder
    }

    /// Serves one connection until it ends or its grace period does.
    async fn attend<S>(&self, stream: S, client: Client, http: Http, visit: &Visit)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let streams = matches!(http, Http::Two).then(|| self.streams(visit));
        let answer = hyper::service::service_fn(|mut request: Request<Incoming>| {
            let asked = visit.asked();
            request.extensions_mut().insert(visit.login());
            let place = streams.as_ref().map(|(places, unread)| Some((places.take()?, unread.clone())));
            let is_refused = matches!(place, Some(None));
            let answer = (!is_refused).then(|| self.answer(request, client));
            async move {
                let _asked = asked;
                let Some(answer) = answer else { return Ok(no_place()) };
                let response = answer.await?;
                let Some((place, unread)) = place.flatten() else { return Ok(response) };
                Ok::<_, Infallible>(unread.watch(response, place.answered()))
            }
        });
        let stream = TokioIo::new(stream);
        match http {
            Http::One => {
                // A WebSocket leaves the listener: its route has limits of its own.
                let connection = self.http1().serve_connection(stream, answer).with_upgrades();
                self.drive(connection, |connection| connection.graceful_shutdown(), visit).await;
            }
            Http::Two => {
                let builder = self.http2();
                let connection = builder.serve_connection(stream, answer);
                let served = self.drive(connection, |connection| connection.graceful_shutdown(), visit);
                let (_, unread) = streams.as_ref().expect("HTTP/2 has limits of its own");
                tokio::select! {
                    () = served => {}
                    () = unread.found() => {}
                }
            }
        }
    }

    /// Serves until the connection ends or its grace period does. `leave` makes it end after the present
    /// requests.
    async fn drive<C, E>(&self, connection: C, leave: impl FnOnce(Pin<&mut C>), visit: &Visit)
    where
        C: Future<Output = Result<(), E>>,
        E: std::fmt::Display,
    {
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            grace = self.told_to_leave(visit) => {
                leave(connection.as_mut());
                tokio::time::timeout(grace, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::trace!("a connection broke off: {error}");
        }
    }

    /// Returns the limits of an HTTP/2 connection. HTTP/1 has one request at a time, and the system ends
    /// a connection that is not read.
    fn streams(&self, visit: &Visit) -> (RequestPermits, Unread) {
        (self.places.of_a_connection(visit.login()), Unread::default())
    }

    /// Waits until the connection must end, and returns its grace period. Requests in progress and the rest
    /// of a response have one. A connection that was dismissed before its first request ends at once.
    async fn told_to_leave(&self, visit: &Visit) -> Duration {
        tokio::select! {
            () = self.stop.cancelled() => self.limits.grace,
            () = visit.dismissed() => if visit.has_asked() { self.limits.grace } else { Duration::ZERO },
        }
    }

    fn answer(
        &self,
        request: Request<Incoming>,
        client: Client,
    ) -> impl Future<Output = Result<axum::response::Response, Infallible>> + use<> {
        let (mut request, left) = leftover::share(request);
        request.extensions_mut().insert(ConnectInfo(client));
        let answer = self.router.clone().oneshot(request);
        async move {
            let answer = answer.await;
            if let Some(left) = left {
                left.drain().await;
            }
            answer
        }
    }
}

#[derive(Clone, Copy)]
enum Http {
    One,
    Two,
}

/// The open connections of one listener.
struct Connections {
    house: Arc<HttpServer>,
    most: usize,
    free: Arc<Semaphore>,
    idle: Idle,
    open: TaskTracker,
}

impl Connections {
    fn new(house: HttpServer, most: usize) -> Connections {
        let free = Arc::new(Semaphore::new(most));
        Connections {
            house: Arc::new(house),
            most,
            free,
            idle: Idle::new(STILL_EXPECTED),
            open: TaskTracker::new(),
        }
    }

    /// Waits for a free place; `None` at the stop.
    async fn room(&self) -> Option<OwnedSemaphorePermit> {
        let room = self.free.clone().acquire_owned();
        tokio::pin!(room);
        loop {
            tokio::select! {
                biased;
                () = self.house.stop.cancelled() => return None,
                room = room.as_mut() => return room.ok(),
                () = tokio::time::sleep(LOOK_AGAIN) => drop(self.idle.dismiss_one()),
            }
        }
    }

    /// Registers a new connection. When places get scarce, an idle one is closed for it.
    fn enter(&self) -> Visit {
        if self.free.available_permits() < self.most / NEARLY_FULL {
            self.idle.dismiss_one();
        }
        self.idle.enter()
    }

    /// `None` when the stop came first, or when the client is already gone.
    async fn accepted<T>(&mut self, accept: impl Future<Output = std::io::Result<T>>) -> Option<T> {
        let accepted = tokio::select! {
            accepted = accept => accepted,
            () = self.house.stop.cancelled() => return None,
        };
        match accepted {
            Ok(visitor) => Some(visitor),
            Err(error) => {
                if !is_the_visitors(&error) {
                    tracing::error!(%error, "no connection to the API can be accepted: raise the limit of open files");
                    tokio::time::sleep(NO_DESCRIPTORS).await;
                }
                None
            }
        }
    }

    fn begin(
        &mut self,
        tls: Option<Tls>,
        stream: TcpStream,
        client: Client,
        held: (OwnedSemaphorePermit, ConnectionPermit),
    ) {
        let (house, visit) = (self.house.clone(), self.enter());
        self.open.spawn(async move {
            let _held = held;
            let Some(tls) = tls else { return house.attend(stream, client, Http::One, &visit).await };
            let shaken = tokio::select! {
                shaken = tokio::time::timeout(house.limits.head, tls.accept(stream)) => shaken,
                _ = house.told_to_leave(&visit) => return,
            };
            match shaken {
                Ok(Ok((stream, true))) => house.attend(stream, client, Http::Two, &visit).await,
                Ok(Ok((stream, false))) => house.attend(stream, client, Http::One, &visit).await,
                Ok(Err(error)) => tracing::debug!("a TLS handshake failed: {error}"),
                Err(_) => tracing::debug!("a TLS handshake took too long"),
            }
        });
    }

    fn begin_local(&mut self, stream: UnixStream, client: Client, room: OwnedSemaphorePermit) {
        let (house, visit) = (self.house.clone(), self.enter());
        self.open.spawn(async move {
            let _room = room;
            house.attend(stream, client, Http::One, &visit).await;
        });
    }

    /// Waits for all connections. Each ends by itself within the grace period.
    async fn end(self) {
        self.open.close();
        self.open.wait().await;
    }
}

fn is_the_visitors(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Limits how long a client that reads nothing keeps its connection and the unsent data. An option that
/// the kernel lacks is no reason to refuse the client.
fn prepare(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(UNREAD).with_interval(UNREAD / 4);
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&keepalive);
    let _ = socket.set_tcp_user_timeout(Some(UNREAD));
}

#[cfg(test)]
mod tests;
