//! The SSH server of a simulated device. It authorizes one key, and serves the device's sensors instead
//! of a shell.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fleetgate_keys::ssh_key::{SshKey, SshPublicKey};
use russh::keys::{PrivateKey, PublicKey, decode_secret_key, parse_public_key_base64};
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session, VerifiedPublicKey, run_stream};
use russh::{Channel, ChannelId, Disconnect, Error};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;

use super::device::SshSpec;
use super::sensors::Sensors;
use super::stack::Service;

/// Concurrent connections; further ones are closed, as with OpenSSH's MaxStartups.
const MAX_CONNECTIONS: usize = 16;
/// Idle time after which a connection is closed: longer than the gateway keeps one.
const INACTIVITY: Duration = Duration::from_secs(600);
/// Commands after which the connection ends when it is quiet; the gateway then opens another. russh
/// (0.65) forgets a channel that the server closes first only with its connection, 2.6 kB each.
const COMMANDS: usize = 16;
/// Commands of one run follow each other faster.
const QUIET: Duration = Duration::from_secs(5);
/// Exit status of a shell for an unknown command.
const NOT_FOUND: u32 = 127;
const STDERR: u32 = 1;

#[derive(Clone)]
pub struct Sshd {
    config: Arc<Config>,
    user: Arc<str>,
    authorized: Arc<PublicKey>,
    sensors: Sensors,
    room: Arc<Semaphore>,
    /// Number of commands of this connection.
    served: Arc<AtomicUsize>,
}

impl Sshd {
    /// # Errors
    /// Fails when a key is unusable.
    pub fn new(spec: &SshSpec, sensors: Sensors) -> Result<Self, russh::keys::Error> {
        let config = Config {
            keys: vec![private(&spec.host_key)?],
            inactivity_timeout: Some(INACTIVITY),
            auth_rejection_time: Duration::ZERO,
            ..Config::default()
        };
        Ok(Sshd {
            config: Arc::new(config),
            user: spec.user.as_str().into(),
            authorized: Arc::new(public(&spec.authorized)?),
            sensors,
            room: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            served: Arc::default(),
        })
    }

    /// Returns the server as a service for a port of a device's stack.
    pub fn service(&self) -> Service {
        let sshd = self.clone();
        Arc::new(move |stream| drop(tokio::spawn(sshd.clone().serve(stream))))
    }

    /// Serves one connection until it ends.
    pub async fn serve<S>(mut self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.served = Arc::default();
        let Ok(_room) = Arc::clone(&self.room).try_acquire_owned() else { return };
        // The way in which a client ends its session does not matter.
        if let Ok(session) = run_stream(Arc::clone(&self.config), stream, self).await {
            let _ = session.await;
        }
    }

    /// Counts a command that was served.
    fn count(&self, session: &Session) {
        let nth = self.served.fetch_add(1, Ordering::Relaxed) + 1;
        if nth < COMMANDS {
            return;
        }
        let (handle, served) = (session.handle(), self.served.clone());
        tokio::spawn(async move {
            tokio::time::sleep(QUIET).await;
            if served.load(Ordering::Relaxed) == nth {
                // It does not matter if the connection has ended meanwhile.
                let _ = handle.disconnect(Disconnect::ByApplication, String::new(), String::new()).await;
            }
        });
    }

    /// Returns stdout, stderr and exit status of a command.
    fn execute(&self, line: &str) -> (String, String, u32) {
        match self.sensors.answer(line) {
            Some(output) => (output, String::new(), 0),
            None => {
                let name = line.split_whitespace().next().unwrap_or_default();
                (String::new(), format!("sh: {name}: not found\n"), NOT_FOUND)
            }
        }
    }
}

fn private(key: &SshKey) -> Result<PrivateKey, russh::keys::Error> {
    decode_secret_key(&key.to_openssh(), None)
}

fn public(key: &SshPublicKey) -> Result<PublicKey, russh::keys::Error> {
    let line = key.to_string();
    parse_public_key_base64(line.split_whitespace().nth(1).unwrap_or_default())
}

impl Handler for Sshd {
    type Error = Error;

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Error> {
        let known = key.public_key.key_data() == self.authorized.key_data();
        Ok(if known && user == &*self.user { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(&mut self, id: ChannelId, line: &[u8], session: &mut Session) -> Result<(), Error> {
        let (output, error, status) = self.execute(&String::from_utf8_lossy(line));
        session.channel_success(id)?;
        if !output.is_empty() {
            session.data(id, output)?;
        }
        if !error.is_empty() {
            session.extended_data(id, STDERR, error)?;
        }
        session.exit_status_request(id, status)?;
        session.eof(id)?;
        session.close(id)?;
        self.count(session);
        Ok(())
    }
}
