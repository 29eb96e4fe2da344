//! The running fleet of the demo.
//!
//! It starts in three steps, because the gateway takes part. [`recruit`] gives every device its keys,
//! and the public ones their addresses. The caller enrols them. [`DemoFleet::start`] switches them on
//! with the results of the enrolment.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use fleetgate_keys::ssh_key::{SshKey, SshPublicKey};
use fleetgate_keys::{PresharedKey, PrivateKey, PublicKey};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use zeroize::Zeroizing;

use super::device::{Device, DeviceError, DeviceHandle, DeviceSpec, SshSpec};
use super::past::world::World;
use super::plan::{self, PlannedDevice};
use super::public::PublicDevice;
use super::renter::{WEB_PORT, web_server};
use super::sensors::{NoSensor, Sensors};
use super::sshd::Sshd;

/// The facts about the gateway that a device of the fleet needs.
#[derive(Clone)]
pub struct Gateway {
    pub endpoint: SocketAddr,
    pub public_key: PublicKey,
    /// The key that the gateway logs in with.
    pub ssh_key: SshPublicKey,
}

/// A device that has its keys and is not enrolled yet.
pub struct Recruit {
    pub planned: PlannedDevice,
    private: PrivateKey,
    host_key: SshKey,
    listener: Option<TcpListener>,
}

impl Recruit {
    pub fn public_key(&self) -> PublicKey {
        self.private.public()
    }

    /// Returns `SHA256:...`.
    pub fn host_key(&self) -> String {
        self.host_key.public().fingerprint()
    }

    /// Returns the address on which a public device listens.
    pub fn direct(&self) -> Option<SocketAddr> {
        self.listener.as_ref()?.local_addr().ok()
    }
}

/// A device that is enrolled.
pub struct Member {
    pub recruit: Recruit,
    /// Addresses inside the tunnel; empty for a public device.
    pub addresses: Vec<IpAddr>,
    pub psk: Option<PresharedKey>,
}

/// Returns the planned devices with keys derived from `seed`. The keys are the same each time, so that
/// a gateway with a kept database recognises its devices.
///
/// # Errors
/// Fails when a public device finds no port.
pub async fn recruit(seed: &[u8; 32]) -> io::Result<Vec<Recruit>> {
    let mut recruits = Vec::new();
    for planned in plan::plan() {
        let listener = match planned.public {
            Some(address) => Some(listen(address.into()).await?),
            None => None,
        };
        let private = PrivateKey::from_bytes(*derive(seed, "wireguard", planned.name));
        let host_key = SshKey::from_seed(&derive(seed, "ssh", planned.name), planned.name);
        recruits.push(Recruit { planned, private, host_key, listener });
    }
    Ok(recruits)
}

async fn listen(address: IpAddr) -> io::Result<TcpListener> {
    match TcpListener::bind((address, plan::PUBLIC_SSH_PORT)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind((address, 0)).await,
    }
}

fn derive(seed: &[u8; 32], purpose: &str, name: &str) -> Zeroizing<[u8; 32]> {
    let mut hash = Sha256::new_with_prefix(seed);
    hash.update(purpose);
    hash.update([0]);
    hash.update(name);
    Zeroizing::new(hash.finalize().into())
}

#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    #[error("the demo has no device {0:?}: `fleetgate demo list` shows them")]
    NoDevice(String),
    #[error(transparent)]
    NoSensor(#[from] NoSensor),
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl From<io::Error> for FleetError {
    fn from(error: io::Error) -> Self {
        FleetError::Device(error.into())
    }
}

/// The running fleet. Dropping it ends the devices.
pub struct DemoFleet(BTreeMap<String, Unit>);

struct Unit {
    sensors: Sensors,
    power: Power,
}

enum Power {
    Tunnel(DeviceHandle),
    Public(PublicDevice),
}

impl DemoFleet {
    /// Switches all devices on. Their sensors have the values of `world`.
    ///
    /// # Errors
    /// Fails when a device finds no socket, or when its keys are unusable.
    pub async fn start(
        gateway: &Gateway,
        world: &Arc<World>,
        members: Vec<Member>,
    ) -> Result<Self, FleetError> {
        let mut units = BTreeMap::new();
        for member in members {
            let name = member.recruit.planned.name;
            let sensors = Sensors::of(Arc::clone(world), name);
            units.insert(name.to_owned(), Unit::start(gateway, sensors, member).await?);
        }
        Ok(DemoFleet(units))
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// # Errors
    /// Fails when there is no such device.
    pub async fn off(&self, name: &str) -> Result<(), FleetError> {
        match &self.unit(name)?.power {
            Power::Tunnel(device) => Ok(device.off().await?),
            Power::Public(device) => Ok(device.set_power(false).await?),
        }
    }

    /// # Errors
    /// Fails when there is no such device, or when it finds no socket.
    pub async fn on(&self, name: &str) -> Result<(), FleetError> {
        match &self.unit(name)?.power {
            Power::Tunnel(device) => Ok(device.on().await?),
            Power::Public(device) => Ok(device.set_power(true).await?),
        }
    }

    /// # Errors
    /// Fails when there is no such device or sensor.
    pub fn sensor(&self, name: &str, sensor: &str, value: f64) -> Result<(), FleetError> {
        Ok(self.unit(name)?.sensors.set(sensor, value)?)
    }

    fn unit(&self, name: &str) -> Result<&Unit, FleetError> {
        self.0.get(name).ok_or_else(|| FleetError::NoDevice(name.to_owned()))
    }
}

impl Unit {
    async fn start(gateway: &Gateway, sensors: Sensors, member: Member) -> Result<Self, FleetError> {
        let Recruit { planned, private, host_key, listener } = member.recruit;
        let ssh = SshSpec {
            port: plan::SSH_PORT,
            host_key,
            user: plan::SSH_USER.to_owned(),
            authorized: gateway.ssh_key.clone(),
        };
        let is_rented = plan::RENTABLE.contains(&planned.name);
        let power = match listener {
            Some(listener) => {
                let sshd = Sshd::new(&ssh, sensors.clone()).map_err(DeviceError::from)?;
                Power::Public(PublicDevice::start(listener, sshd)?)
            }
            None => Power::Tunnel(
                Device::start(DeviceSpec {
                    private,
                    psk: member.psk,
                    gateway: gateway.public_key,
                    endpoint: gateway.endpoint,
                    addresses: member.addresses,
                    networks: Vec::new(),
                    keepalive: Some(plan::KEEPALIVE),
                    sensors: sensors.clone(),
                    ssh: Some(ssh),
                    services: is_rented.then(|| (WEB_PORT, web_server())).into_iter().collect(),
                })
                .await?,
            ),
        };
        Ok(Unit { sensors, power })
    }
}
