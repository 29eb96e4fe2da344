//! The pools of inner addresses, as the settings write them.
//!
//! A device's AllowedIPs cover the whole pool. A pool outside the private networks would pull the
//! device's own traffic into the tunnel.

use anyhow::{Context as _, bail};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// RFC 1918, and the shared addresses of carriers (RFC 6598).
const PRIVATE_V4: &str = "10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10";
/// RFC 4193.
const PRIVATE_V6: &str = "fc00::/7";
/// Room for five devices.
const LONGEST_V4: u8 = 29;
/// Room for 65,000 devices: IPv6 addresses are not scarce.
const LONGEST_V6: u8 = 112;

pub(super) fn v4(text: &str) -> anyhow::Result<Ipv4Net> {
    let net: Ipv4Net = text
        .parse()
        .with_context(|| format!("pool_v4 = {text:?}: expected a prefix such as 10.112.0.0/14"))?;
    sane("pool_v4", net.into(), LONGEST_V4, PRIVATE_V4)?;
    Ok(net)
}

pub(super) fn v6(text: &str) -> anyhow::Result<Ipv6Net> {
    let net: Ipv6Net =
        text.parse().with_context(|| format!("pool_v6 = {text:?}: expected a prefix such as fd00:1::/64"))?;
    sane("pool_v6", net.into(), LONGEST_V6, PRIVATE_V6)?;
    Ok(net)
}

fn sane(key: &str, net: IpNet, longest: u8, private: &str) -> anyhow::Result<()> {
    if net != net.trunc() {
        bail!("{key} = \"{net}\": bits are set behind the prefix; did you mean {}?", net.trunc());
    }
    if net.prefix_len() > longest {
        bail!("{key} = \"{net}\": too small, at least a /{longest} is needed");
    }
    let mut allowed = private.split(", ").map(|p| p.parse::<IpNet>().expect("a network"));
    if !allowed.any(|p| p.contains(&net)) {
        bail!(
            "{key} = \"{net}\": devices would send traffic of their own into the tunnel; allowed is what \
             lies within {private}"
        );
    }
    Ok(())
}
