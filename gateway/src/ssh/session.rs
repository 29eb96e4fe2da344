//! One session with one server: identification, host key, login, commands.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fleetgate_engine::wire::{
    CommandAnswer, CommandEnd, KeyType, LoginRefusal, Negotiated, RemoteCommand, SshAnswer, SshFailure,
    SshRun,
};
use fleetgate_probes::remote::{self, Excerpt, Excerpted};
use russh::client::{self, AuthResult, Msg};
use russh::keys::{Algorithm, PrivateKey, PrivateKeyWithHashAlg, decode_secret_key};
use russh::{AlgorithmKind, Channel, ChannelMsg, MethodKind, MethodSet, Preferred, Sig, SshId, kex};
use tokio::io::{AsyncRead, AsyncWrite};

use super::guard::{Guard, RUN_BYTES, printable};
use super::handler::{HostKeyCheck, SeenKey, algorithms, judge};
use super::{Deadline, Ended};
use crate::clock;

/// Bytes kept of stdout and of stderr each (SEMANTICS: a plugin's output is cut at 64 KiB).
const OUTPUT_BYTES: usize = 64 * 1024;
/// A command that continues to print may run to its exit status up to this size; then its channel is
/// closed.
pub(super) const RUNAWAY_OUTPUT: usize = 1024 * 1024;
/// Unread bytes that a server may have in flight per channel: one full output.
const WINDOW_BYTES: u32 = 64 * 1024;
/// Messages queued between the protocol code and this code; the rest waits in the stream.
const CHANNEL_MESSAGES: usize = 16;
/// Time limit for the first reply on a kept connection; at most half of the run's remaining time. After
/// it a new connection is opened. It is longer than any round trip over LTE.
const REUSE_PATIENCE: Duration = Duration::from_secs(5);
/// Channels of a kept connection that we may close before the server does. russh (0.65) forgets such a
/// channel only with its connection, 2.6 kB each. A server that never closes a channel would cost 20 MB
/// a day.
const CLOSED_FIRST: usize = 8;
/// Names kept of a server's algorithms; OpenSSH's longest list has 20.
const OFFERED: usize = 64;
/// SSH_EXTENDED_DATA_STDERR (RFC 4254, 5.2).
const STDERR: u32 = 1;

/// The key that the gateway logs in with, on every server.
#[derive(Clone)]
pub(super) struct Login {
    key: Arc<PrivateKey>,
}

impl Login {
    /// Accepts an ed25519 key only, which `gateway_ssh_key` always is. This process uses no other private
    /// key: the RSA code only ever verifies.
    pub(super) fn new(openssh: &str) -> Option<Self> {
        let key = decode_secret_key(openssh, None).ok()?;
        (key.algorithm() == Algorithm::Ed25519).then(|| Login { key: Arc::new(key) })
    }

    /// For a server that must show a host key of one of these types: the first one that it has.
    pub(super) fn asking_for(&self, key_types: &[KeyType]) -> Asking {
        Asking { key: Arc::clone(&self.key), config: Arc::new(config(key_types)) }
    }
}

/// The login, and the configuration for one server.
pub(super) struct Asking {
    key: Arc<PrivateKey>,
    config: Arc<client::Config>,
}

fn config(key_types: &[KeyType]) -> client::Config {
    let host_keys: Vec<Algorithm> = key_types.iter().flat_map(|t| algorithms(*t)).cloned().collect();
    client::Config {
        client_id: SshId::Standard(Cow::Borrowed("SSH-2.0-fleetgate")),
        window_size: WINDOW_BYTES,
        channel_buffer_size: CHANNEL_MESSAGES,
        preferred: Preferred {
            key: Cow::Owned(host_keys),
            kex: Cow::Borrowed(KEY_EXCHANGES),
            ..Preferred::DEFAULT
        },
        ..client::Config::default()
    }
}

/// The library's defaults, and the NIST curves, which are all that some servers have (FIPS, small SSH
/// stacks). None hashes with SHA-1.
const KEY_EXCHANGES: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::ECDH_SHA2_NISTP256,
    kex::ECDH_SHA2_NISTP384,
    kex::ECDH_SHA2_NISTP521,
    kex::DH_GEX_SHA256,
    kex::DH_G18_SHA512,
    kex::DH_G17_SHA512,
    kex::DH_G16_SHA512,
    kex::DH_G15_SHA512,
    kex::DH_G14_SHA256,
    kex::EXTENSION_SUPPORT_AS_CLIENT,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
];

/// A connection whose host key was accepted. Dropping it ends the stream.
pub(super) struct Connection {
    handle: client::Handle<HostKeyCheck>,
    stream: Stream,
    seen: SeenKey,
    user: Option<String>,
    shell: Shell,
    /// Channels that we closed before the server did.
    closed_first: usize,
}

/// Whether the server has a shell that runs the line of [`remote::run`]. The first command on a
/// connection shows it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shell {
    Unknown,
    There,
    /// There is no shell, or only a list of permitted commands.
    Missing,
}

/// Our end of the guarded stream.
struct Stream(Arc<Guard>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.cut();
    }
}

/// Executes a whole run on a new stream. The login must be complete by `opening`.
pub(super) async fn converse<S>(
    stream: S,
    login: Asking,
    run: SshRun,
    (opening, deadline): (Deadline, Deadline),
) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut answer = SshAnswer::default();
    let connection = match introduce(stream, &login, &run, opening, &mut answer).await {
        Ok(connection) => connection.perform(&run, None, deadline, &mut answer).await,
        Err(failure) => Err(failure),
    };
    ended(answer, connection)
}

fn ended(mut answer: SshAnswer, connection: Result<Connection, SshFailure>) -> Ended {
    match connection {
        Ok(connection) => Ended { connection: connection.keepable(&answer), answer },
        Err(failure) => {
            answer.failure = Some(failure);
            Ended { answer, connection: None }
        }
    }
}

/// Connects up to and including the login.
async fn introduce<S>(
    stream: S,
    login: &Asking,
    run: &SshRun,
    deadline: Deadline,
    answer: &mut SshAnswer,
) -> Result<Connection, SshFailure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let started = clock::now().mono;
    let guard = Guard::new();
    let guarded = guard.wrap(stream);
    let stream = Stream(guard);
    let seen = SeenKey::new(OnceLock::new());
    let check = HostKeyCheck { run: run.clone(), seen: Arc::clone(&seen) };
    let outcome = deadline.limit(client::connect_stream(Arc::clone(&login.config), guarded, check)).await;
    answer.identification = stream.0.identification();
    answer.host_key = seen.get().cloned();
    if let Some(Err(refused)) = seen.get().map(|key| judge(run, key)) {
        return Err(refused);
    }
    let handle = outcome
        .ok_or_else(|| stream.contact_failure(None))?
        .map_err(|error| stream.contact_failure(Some(&error)))?;
    answer.connect = Some(clock::now().mono.since(started));
    let mut connection =
        Connection { handle, stream, seen, user: run.user.clone(), shell: Shell::Unknown, closed_first: 0 };
    answer.logged_in = connection.log_in(login, deadline).await?;
    Ok(connection)
}

impl Stream {
    /// Returns why there is no connection. Without an error the time was over.
    fn contact_failure(&self, error: Option<&russh::Error>) -> SshFailure {
        match (self.0.identification(), self.0.first_words(), error) {
            (None, Some(words), _) => SshFailure::NotSsh(words),
            (_, _, None) => SshFailure::Timeout,
            (None, None, Some(_)) => protocol("closed the connection without a word"),
            (_, _, Some(russh::Error::NoCommonAlgo { kind, theirs, .. })) => {
                SshFailure::NothingInCommon { what: negotiated(kind), offered: bounded(theirs) }
            }
            (Some(_), _, Some(error)) => self.broke(&error.to_string()),
        }
    }

    fn broke(&self, how: &str) -> SshFailure {
        if self.0.exhausted() {
            return protocol(&format!("sent more than {} MiB, cut off", RUN_BYTES >> 20));
        }
        protocol(how)
    }
}

fn negotiated(kind: &AlgorithmKind) -> Negotiated {
    match kind {
        AlgorithmKind::Kex => Negotiated::KeyExchange,
        AlgorithmKind::Key => Negotiated::HostKey,
        AlgorithmKind::Cipher => Negotiated::Cipher,
        AlgorithmKind::Compression => Negotiated::Compression,
        AlgorithmKind::Mac => Negotiated::Mac,
    }
}

fn bounded(names: &[String]) -> Vec<String> {
    names.iter().take(OFFERED).map(|name| printable(name.as_bytes())).collect()
}

fn protocol(text: &str) -> SshFailure {
    SshFailure::Protocol(printable(text.as_bytes()))
}

impl Connection {
    /// Whether a later run may use this connection: it has the same user and accepts the key.
    pub(super) fn serves(&self, run: &SshRun) -> bool {
        let accepted = self.seen.get().is_some_and(|key| judge(run, key).is_ok());
        accepted && self.user == run.user && !self.handle.is_closed()
    }

    /// Executes a run on this kept connection. `None` when it is dead and nothing was run.
    pub(super) async fn resume(self, run: SshRun, deadline: Deadline) -> Option<Ended> {
        self.stream.0.refill();
        let patience = REUSE_PATIENCE.min(deadline.remaining() / 2);
        let first = tokio::time::timeout(patience, self.sign_of_life(&run)).await.ok()??;
        let mut answer = SshAnswer {
            identification: self.stream.0.identification(),
            host_key: self.seen.get().cloned(),
            logged_in: true,
            reused: true,
            ..SshAnswer::default()
        };
        let connection = self.perform(&run, first, deadline, &mut answer).await;
        Some(ended(answer, connection))
    }

    /// Opens the first command's channel, or sends a ping if there is no command. Each check costs bytes on
    /// a metered link, so it sends nothing that the run does not need anyway.
    async fn sign_of_life(&self, run: &SshRun) -> Option<Option<Channel<Msg>>> {
        if run.commands.is_empty() {
            self.handle.send_ping().await.ok()?;
            return (!self.handle.is_closed()).then_some(None);
        }
        self.handle.channel_open_session().await.ok().map(Some)
    }

    /// Keeps only a connection that is logged in, because servers soon drop the others. All its commands
    /// must have ended, because some servers stay stuck in an abandoned one.
    fn keepable(self, answer: &SshAnswer) -> Option<Self> {
        if self.closed_first > CLOSED_FIRST {
            return None;
        }
        let over = |c: &CommandAnswer| matches!(c.end, CommandEnd::Exit(_) | CommandEnd::Signal(_));
        let quiet = answer.commands.iter().all(over);
        (answer.logged_in && quiet && !self.handle.is_closed()).then_some(self)
    }

    /// Logs in. Returns whether there was a user to log in.
    async fn log_in(&mut self, login: &Asking, deadline: Deadline) -> Result<bool, SshFailure> {
        let Some(user) = self.user.clone() else { return Ok(false) };
        let key = PrivateKeyWithHashAlg::new(Arc::clone(&login.key), None);
        let outcome = deadline.limit(self.handle.authenticate_publickey(&user, key)).await;
        match outcome.ok_or(SshFailure::Timeout)? {
            Ok(AuthResult::Success) => Ok(true),
            // The protocol code reports the end of the connection as a refusal without remaining methods.
            Ok(AuthResult::Failure { remaining_methods, .. })
                if remaining_methods.is_empty() && self.handle.is_closed() =>
            {
                Err(self.stream.broke("the connection ended during the login"))
            }
            Ok(AuthResult::Failure { remaining_methods, partial_success }) => {
                Err(SshFailure::LoginRefused { user, why: refusal(&remaining_methods, partial_success) })
            }
            Err(error) => Err(self.stream.broke(&error.to_string())),
        }
    }

    /// Runs the commands in order, until one ends the connection.
    async fn perform(
        mut self,
        run: &SshRun,
        mut opened: Option<Channel<Msg>>,
        deadline: Deadline,
        answer: &mut SshAnswer,
    ) -> Result<Self, SshFailure> {
        let commands = if answer.logged_in { run.commands.as_slice() } else { &[] };
        for command in commands {
            let channel = match opened.take() {
                Some(channel) => channel,
                None => self.open_channel(deadline).await?,
            };
            let (ended, stop) = self.command(command, channel, deadline).await?;
            answer.commands.push(ended);
            if let Some(failure) = self.failure(stop, command, deadline) {
                return Err(failure);
            }
        }
        Ok(self)
    }

    async fn open_channel(&self, deadline: Deadline) -> Result<Channel<Msg>, SshFailure> {
        let outcome = deadline.limit(self.handle.channel_open_session()).await;
        outcome
            .ok_or(SshFailure::Timeout)?
            .map_err(|error| self.stream.broke(&format!("no session was opened: {error}")))
    }

    /// Runs the command in `sh` under the device's own `timeout`, or without them if the device turns out
    /// to have no shell.
    async fn command(
        &mut self,
        command: &RemoteCommand,
        channel: Channel<Msg>,
        deadline: Deadline,
    ) -> Result<(CommandAnswer, Stop), SshFailure> {
        let Some(line) = self.line(command) else {
            let heard = self.execute(&command.line, Heard::bare(), command.timeout, channel, deadline).await;
            return Ok(heard.into_answer(&command.name));
        };
        let heard = self.execute(&line, Heard::marked(), command.timeout, channel, deadline).await;
        if heard.began() {
            self.shell = Shell::There;
        } else if !command.bounded && matches!(heard.stop, Stop::Closed | Stop::Refused) {
            // Nothing was run so far.
            self.shell = Shell::Missing;
            let took = heard.took;
            let (left, channel) = (command.timeout.saturating_sub(took), self.open_channel(deadline).await?);
            let bare = self.execute(&command.line, Heard::bare(), left, channel, deadline).await;
            return Ok(Heard { took: took + bare.took, ..bare }.into_answer(&command.name));
        }
        Ok(heard.into_answer(&command.name))
    }

    /// `None` when the command runs without a shell.
    fn line<'a>(&self, command: &'a RemoteCommand) -> Option<Cow<'a, str>> {
        match self.shell {
            _ if command.bounded => Some(Cow::Borrowed(&command.line)),
            Shell::Missing => None,
            Shell::Unknown | Shell::There => remote::run(&command.line, command.timeout).map(Cow::Owned),
        }
    }

    async fn execute(
        &mut self,
        line: &str,
        mut heard: Heard,
        timeout: Duration,
        mut channel: Channel<Msg>,
        deadline: Deadline,
    ) -> Heard {
        let started = clock::now().mono;
        let limit = timeout.min(deadline.remaining());
        let work = listen(&mut channel, line, &mut heard);
        heard.stop = tokio::time::timeout(limit, work).await.unwrap_or(Stop::TimeOver);
        if heard.stop != Stop::Closed && heard.stop != Stop::Gone {
            // Frees the command's slot on the server; further output is discarded. This does not wait for the
            // server's reply, because a stuck session must not delay the result.
            let _ = deadline.limit(channel.close()).await;
            self.closed_first += 1;
        }
        heard.took = clock::now().mono.since(started);
        heard
    }

    /// Returns the failure that ends the whole run, not only the command.
    fn failure(&self, stop: Stop, command: &RemoteCommand, deadline: Deadline) -> Option<SshFailure> {
        match stop {
            Stop::Gone => {
                let text = format!("the connection ended during {}", command.name);
                Some(self.stream.broke(&text))
            }
            Stop::Refused => Some(protocol("the server refused to run a command")),
            Stop::TimeOver if deadline.remaining().is_zero() => Some(SshFailure::Timeout),
            Stop::TimeOver | Stop::Closed | Stop::Runaway => None,
        }
    }
}

/// The reason why a command is no longer read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    Closed,
    /// The connection is gone.
    Gone,
    Refused,
    Runaway,
    TimeOver,
}

async fn listen(channel: &mut Channel<Msg>, line: &str, heard: &mut Heard) -> Stop {
    // Plugins print numbers with a comma in some locales. Servers may ignore the request.
    let locale = channel.set_env(false, "LC_ALL", "C").await;
    if locale.is_err() || channel.exec(true, line).await.is_err() || channel.eof().await.is_err() {
        return Stop::Gone;
    }
    loop {
        let Some(message) = channel.wait().await else { return Stop::Gone };
        if let Some(stop) = heard.take(message) {
            return stop;
        }
    }
}

/// The output of one command so far.
struct Heard {
    stdout: Excerpt,
    stderr: Excerpt,
    received: usize,
    end: Option<CommandEnd>,
    stop: Stop,
    took: Duration,
}

impl Heard {
    /// For a command between the marks of [`remote::run`].
    fn marked() -> Self {
        Heard::of(Excerpt::marked)
    }

    fn bare() -> Self {
        Heard::of(Excerpt::bare)
    }

    fn of(excerpt: impl Fn(usize) -> Excerpt) -> Self {
        let (stdout, stderr) = (excerpt(OUTPUT_BYTES), excerpt(OUTPUT_BYTES));
        Heard { stdout, stderr, received: 0, end: None, stop: Stop::TimeOver, took: Duration::ZERO }
    }

    fn began(&self) -> bool {
        self.stdout.began() || self.stderr.began()
    }

    fn take(&mut self, message: ChannelMsg) -> Option<Stop> {
        match message {
            ChannelMsg::Data { data } => self.output(&data, false),
            ChannelMsg::ExtendedData { data, ext: STDERR } => self.output(&data, true),
            ChannelMsg::ExitStatus { exit_status } => {
                self.end = Some(CommandEnd::Exit(exit_status));
                None
            }
            ChannelMsg::ExitSignal { signal_name, .. } => {
                self.end = Some(CommandEnd::Signal(signal(signal_name)));
                None
            }
            ChannelMsg::Failure => Some(Stop::Refused),
            ChannelMsg::Close => Some(Stop::Closed),
            _ => None,
        }
    }

    fn output(&mut self, data: &[u8], error: bool) -> Option<Stop> {
        if error {
            self.stderr.take(data)
        } else {
            self.stdout.take(data)
        }
        self.received += data.len();
        (self.received > RUNAWAY_OUTPUT).then_some(Stop::Runaway)
    }

    fn into_answer(self, name: &str) -> (CommandAnswer, Stop) {
        let began = self.began();
        let (stdout, stderr) = (self.stdout.finish(), self.stderr.finish());
        let status = stdout.status.or(stderr.status);
        // A command whose exit status arrived has ended, even if its child keeps the channel open. The mark
        // has the command's own status; that of the channel may come from a login shell around it.
        let end = match (self.end, status, self.stop) {
            (Some(CommandEnd::Signal(name)), ..) => CommandEnd::Signal(name),
            (_, Some(status), _) => CommandEnd::Exit(status),
            (Some(end), None, _) => end,
            (None, None, Stop::TimeOver) => CommandEnd::Timeout,
            (None, None, _) => CommandEnd::Lost,
        };
        // Output without a mark on the other stream belongs to the login shell.
        let own = |said: Excerpted| if said.began == began { said } else { Excerpted::default() };
        let (stdout, stderr) = (own(stdout), own(stderr));
        let answer = CommandAnswer {
            name: name.to_owned(),
            end,
            truncated: stdout.truncated || stderr.truncated,
            stdout: stdout.output,
            stderr: stderr.output,
            took: self.took,
        };
        (answer, self.stop)
    }
}

fn signal(signal: Sig) -> String {
    match signal {
        Sig::Custom(name) => printable(name.as_bytes()),
        known => format!("{known:?}"),
    }
}

/// The gateway has one key and no other method.
fn refusal(remaining: &MethodSet, partial_success: bool) -> LoginRefusal {
    let methods = || remaining.iter().map(|method| <&str>::from(method).to_owned()).collect();
    match partial_success {
        true => LoginRefusal::SecondFactor(methods()),
        false if remaining.contains(&MethodKind::PublicKey) || remaining.is_empty() => LoginRefusal::Key,
        false => LoginRefusal::NoKeys(methods()),
    }
}
