//! A device outside the VPN: an SSH server on a public address, which is a loopback address here.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::sshd::Sshd;

/// Orders queued for a device.
const ORDERS: usize = 8;

pub(super) struct PublicDevice {
    orders: mpsc::Sender<(bool, oneshot::Sender<io::Result<()>>)>,
    _task: AbortOnDropHandle<()>,
}

impl PublicDevice {
    pub(super) fn start(listener: TcpListener, sshd: Sshd) -> io::Result<Self> {
        let (orders, inbox) = mpsc::channel(ORDERS);
        let server = Server { address: listener.local_addr()?, sshd, connections: JoinSet::new() };
        let task = AbortOnDropHandle::new(tokio::spawn(server.run(Some(listener), inbox)));
        Ok(PublicDevice { orders, _task: task })
    }

    /// Switches it on, at its old address, or off.
    pub(super) async fn set_power(&self, on: bool) -> io::Result<()> {
        let gone = || io::Error::other("the device's task has ended");
        let (reply, done) = oneshot::channel();
        self.orders.send((on, reply)).await.map_err(|_| gone())?;
        done.await.map_err(|_| gone())?
    }
}

struct Server {
    address: SocketAddr,
    sshd: Sshd,
    connections: JoinSet<()>,
}

impl Server {
    async fn run(
        mut self,
        mut listener: Option<TcpListener>,
        mut orders: mpsc::Receiver<(bool, oneshot::Sender<io::Result<()>>)>,
    ) {
        loop {
            tokio::select! {
                order = orders.recv() => {
                    let Some((on, reply)) = order else { return };
                    let _ = reply.send(self.obey(on, &mut listener).await);
                }
                stream = accept(listener.as_ref()) => {
                    self.connections.spawn(self.sshd.clone().serve(stream));
                }
                Some(_) = self.connections.join_next() => {}
            }
        }
    }

    async fn obey(&mut self, on: bool, listener: &mut Option<TcpListener>) -> io::Result<()> {
        if !on {
            *listener = None;
            self.connections.abort_all();
        } else if listener.is_none() {
            *listener = Some(TcpListener::bind(self.address).await?);
        }
        Ok(())
    }
}

/// Waits for ever while the device is off.
async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    loop {
        match listener {
            None => std::future::pending().await,
            Some(listener) => match listener.accept().await {
                Ok((stream, _)) => return stream,
                // Out of file descriptors, or the client has already left.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
            },
        }
    }
}
