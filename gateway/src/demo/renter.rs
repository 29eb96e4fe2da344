//! A renter of the demo: a WireGuard client that fetches pictures from the camera that its customer rents.
//!
//! It knows what the booking says of the camera, which is its addresses. Requests that do not get through are tried
//! again.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use fleetgate_keys::{PresharedKey, PrivateKey};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_util::task::AbortOnDropHandle;

use super::device::{Device, DeviceError, DeviceHandle, DeviceSpec, Service};
use super::fleet::Gateway;
use super::sensors::Sensors;

/// The port at which a camera serves its pictures.
pub const WEB_PORT: u16 = 80;
/// A small picture, some packets long.
const PICTURE: usize = 24 * 1024;
/// The longest request.
const REQUEST: usize = 1024;
/// Time between two pictures.
const PAUSE: Duration = Duration::from_secs(3);
/// Time for one picture.
const PATIENCE: Duration = Duration::from_secs(15);
/// The renter sends this often, so that it stays connected.
const KEEPALIVE: Duration = Duration::from_secs(25);

/// The keys and addresses of a renter.
pub struct RenterSpec {
    pub private: PrivateKey,
    pub psk: Option<PresharedKey>,
    /// At most one of each family.
    pub addresses: Vec<IpAddr>,
    /// The addresses of its rental.
    pub rented: Vec<IpAddr>,
}

/// A connected renter. Dropping it ends it.
pub struct Renter {
    _task: AbortOnDropHandle<()>,
}

impl Renter {
    /// Connects, and fetches pictures from then on.
    ///
    /// # Errors
    /// Fails when there is no socket.
    pub async fn start(gateway: &Gateway, spec: RenterSpec) -> Result<Renter, DeviceError> {
        let device = DeviceSpec {
            private: spec.private,
            psk: spec.psk,
            gateway: gateway.public_key,
            endpoint: gateway.endpoint,
            addresses: spec.addresses,
            networks: Vec::new(),
            keepalive: Some(KEEPALIVE),
            sensors: Sensors::default(),
            ssh: None,
            services: Vec::new(),
        };
        let device = Device::start(device).await?;
        let task = tokio::spawn(fetch_pictures(device, spec.rented));
        Ok(Renter { _task: AbortOnDropHandle::new(task) })
    }
}

async fn fetch_pictures(renter: DeviceHandle, rented: Vec<IpAddr>) {
    loop {
        for address in &rented {
            let camera = SocketAddr::new(*address, WEB_PORT);
            // The camera may be off, and the rental over.
            let _ = tokio::time::timeout(PATIENCE, fetch(&renter, camera)).await;
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Returns the bytes of the answer.
async fn fetch(renter: &DeviceHandle, camera: SocketAddr) -> io::Result<u64> {
    let mut stream = renter.connect(camera).await.map_err(io::Error::other)?;
    stream.write_all(b"GET /picture HTTP/1.1\r\nhost: camera\r\nconnection: close\r\n\r\n").await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
}

/// Returns the web server of a camera: any request gets a picture.
pub fn web_server() -> Service {
    Arc::new(|stream| drop(tokio::spawn(answer(stream))))
}

/// It does not matter if the client leaves.
async fn answer(mut stream: DuplexStream) {
    let mut request = [0; REQUEST];
    if matches!(stream.read(&mut request).await, Ok(1..)) {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {PICTURE}\r\n\
             connection: close\r\n\r\n"
        );
        let _ = stream.write_all(&[head.as_bytes(), &[0; PICTURE]].concat()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_gets_one_picture() {
        let (mut client, server) = tokio::io::duplex(REQUEST);
        web_server()(server);
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("takes it");
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.expect("an answer");
        assert!(got.starts_with(b"HTTP/1.1 200 OK\r\n"));
        assert!(got.len() > PICTURE, "{}", got.len());
    }
}
