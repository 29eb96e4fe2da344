//! The gateway's details for a device, as values and as the text of a configuration.
//!
//! The allowed networks of devices and operators are the whole pools from the first configuration on. They
//! thus need no visit when others become reachable through the tunnel.

use std::net::IpAddr;

use fast_qr::convert::svg::SvgBuilder;
use fast_qr::{ECL, QRBuilder};
use fleetgate_keys::{Conf, Endpoint, PresharedKey, PrivateKey, SplitDns};
use ipnet::IpNet;

use super::Credentials;
use crate::api::AppState;
use crate::api::enrol::Connection;
use crate::api::response::problem::Problem;

/// Returns the connection details for an approved device. They contain no secret.
pub fn connection(
    app: &AppState,
    endpoint: &Endpoint,
    (addresses, mtu): (&[IpAddr], Option<u16>),
    ssh_user: Option<String>,
) -> Connection {
    Connection {
        public_key: app.identity.public_key.to_string(),
        endpoint: endpoint.to_string(),
        addresses: addresses.iter().map(|a| IpNet::from(*a).to_string()).collect(),
        allowed_ips: vec![app.config.pool_v4.to_string(), app.config.pool_v6.to_string()],
        keepalive_s: app.config.keepalive,
        mtu: mtu.unwrap_or(app.config.mtu),
        ssh_public_key: app.identity.ssh_public_key.to_string(),
        ssh_user,
    }
}

/// The part of a configuration about the peer itself.
pub struct Inside<'a> {
    pub addresses: &'a [IpAddr],
    /// `None`: the usual one.
    pub mtu: Option<u16>,
    /// The networks whose packets the peer sends into the tunnel.
    pub allowed_ips: Vec<IpNet>,
    pub split_dns: Option<SplitDns>,
}

impl<'a> Inside<'a> {
    /// A peer that sends everything for the pools into the tunnel.
    pub fn whole_pools(app: &AppState, addresses: &'a [IpAddr], mtu: Option<u16>) -> Self {
        let allowed_ips = vec![app.config.pool_v4.into(), app.config.pool_v6.into()];
        Inside { addresses, mtu, allowed_ips, split_dns: None }
    }
}

/// Returns the credentials, which are shown once for setting the device up.
///
/// # Errors
/// Fails when a configuration does not fit a QR code. The gateway's own always fit.
pub fn credentials(
    app: &AppState,
    endpoint: Endpoint,
    inside: Inside<'_>,
    private_key: Option<PrivateKey>,
    psk: PresharedKey,
) -> Result<Credentials, Problem> {
    let made_here = private_key.is_some();
    let private_text = private_key.as_ref().map(|k| k.to_base64().to_string());
    let preshared_key = psk.to_base64().to_string();
    let conf = Conf {
        private_key,
        addresses: inside.addresses.iter().map(|a| IpNet::from(*a)).collect(),
        mtu: Some(inside.mtu.unwrap_or(app.config.mtu)),
        split_dns: None,
        peer: app.identity.public_key,
        psk: Some(psk),
        allowed_ips: inside.allowed_ips,
        endpoint,
        keepalive: Some(app.config.keepalive).filter(|s| *s > 0),
    };
    // An app has no use for a comment, which would only make the code larger.
    let (qr_text, qr_svg) = if made_here { qr(&conf.to_text())? } else { (None, None) };
    let conf = Conf { split_dns: inside.split_dns, ..conf }.to_text().to_string();
    Ok(Credentials { private_key: private_text, preshared_key, conf, qr_text, qr_svg })
}

/// Returns the name server for the names of hosts, which people may use and devices may not.
pub fn split_dns(app: &AppState) -> Option<SplitDns> {
    let dns = app.config.dns.as_ref()?;
    let servers = app.config.pools().gateway().into();
    Some(SplitDns { servers, domain: dns.suffix.as_str().to_owned() })
}

/// Low error correction, because the code is read from a screen and a smaller code is easier to
/// read.
fn qr(conf: &str) -> Result<(Option<String>, Option<String>), Problem> {
    let code = QRBuilder::new(conf).ecl(ECL::L).build();
    let code = code.map_err(|e| Problem::internal(anyhow::anyhow!("QR code: {e:?}")))?;
    Ok((Some(code.to_str()), Some(SvgBuilder::default().to_str(&code))))
}
