//! The properties by which devices in the field know their gateway, kept across starts.
//!
//! Their configurations contain its key and its pools. After a start that contradicts them the gateway
//! would reach no device, and would blame the devices. Such a start is refused; the error names the
//! conflict and the remedy. It does not look at single devices, only at whether there is any.

use std::fmt::Display;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context as _, bail};
use fleetgate_keys::PublicKey;
use ipnet::IpNet;

use crate::data_dir::start::restore_hint;
use crate::identity::Identity;
use crate::store::addresses::{self, Pools};
use crate::store::{Store, settings};

/// The fingerprint of the key that the gateway logs in with.
const SSH_KEY: &str = "gateway_ssh_key";
const POOL_V4: &str = "pool_v4";
const POOL_V6: &str = "pool_v6";

/// The properties that this start would use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedIdentity {
    pub key: PublicKey,
    /// The fingerprint of the SSH key that devices accept.
    pub ssh: String,
    pub pools: Pools,
}

impl PublishedIdentity {
    pub fn of(identity: &Identity, pools: Pools) -> PublishedIdentity {
        PublishedIdentity {
            key: identity.wireguard.public(),
            ssh: identity.ssh.public().fingerprint(),
            pools,
        }
    }

    /// Compares them with those that earlier starts stored, and stores new ones.
    ///
    /// # Errors
    /// Fails when devices know the gateway by other properties, or when the database cannot be read or
    /// written.
    pub async fn keep(&self, store: &Store, data: &Path) -> anyhow::Result<()> {
        let mut tx = store.begin().await?;
        let key: Option<PublicKey> =
            stored(settings::find(&mut tx, settings::PUBLIC_KEY).await?, settings::PUBLIC_KEY, data)?;
        if key.is_some_and(|key| key != self.key) {
            let hint = restore_hint(data);
            bail!("gateway.key is not the key of this database: both must come from the same backup. {hint}");
        }
        let ssh: Option<String> = settings::find(&mut tx, SSH_KEY).await?;
        if let Some(before) = ssh.as_ref().filter(|ssh| **ssh != self.ssh) {
            let hint = restore_hint(data);
            bail!(
                "gateway_ssh_key is {}, but the devices of this gateway let in {before}: put the former file back. {hint}",
                self.ssh
            );
        }
        let v4 = stored(settings::find(&mut tx, POOL_V4).await?, POOL_V4, data)?;
        let v6 = stored(settings::find(&mut tx, POOL_V6).await?, POOL_V6, data)?;
        let before = v4.zip(v6).map(|(v4, v6)| Pools { v4, v6 });
        if key.is_some() && ssh.is_some() && before == Some(self.pools) {
            return Ok(());
        }
        // A gateway without devices may still change its pools: no device has one before the first address is
        // assigned.
        if let Some(before) = before
            && addresses::any_held(&mut tx).await?
        {
            for (was, grown) in grown(before, self.pools)? {
                tracing::warn!(
                    "the pool {was} is now {grown}: devices that were set up before keep {was} in their \
                     AllowedIPs and reach nothing beyond it until they get a new configuration"
                );
            }
        }
        settings::put(&mut tx, settings::PUBLIC_KEY, &self.key.to_string()).await?;
        settings::put(&mut tx, SSH_KEY, &self.ssh).await?;
        settings::put(&mut tx, POOL_V4, &self.pools.v4.to_string()).await?;
        settings::put(&mut tx, POOL_V6, &self.pools.v6.to_string()).await?;
        tx.commit().await.context("cannot keep the gateway's key and pools in fleetgate.db")
    }
}

/// The pools of an installation, as earlier starts have kept them; `None`: this is the first.
///
/// # Errors
/// When the database cannot be read.
pub async fn stored_pools(store: &Store, data: &Path) -> anyhow::Result<Option<Pools>> {
    let mut conn = store.reader().await?;
    let v4 = stored(settings::find(&mut conn, POOL_V4).await?, POOL_V4, data)?;
    let v6 = stored(settings::find(&mut conn, POOL_V6).await?, POOL_V6, data)?;
    Ok(v4.zip(v6).map(|(v4, v6)| Pools { v4, v6 }))
}

fn stored<T: FromStr>(text: Option<String>, name: &str, data: &Path) -> anyhow::Result<Option<T>>
where
    T::Err: Display,
{
    let parse = |text: String| {
        text.parse().map_err(|e| {
            let hint = restore_hint(data);
            anyhow::anyhow!("the setting {name} = {text:?} in fleetgate.db cannot be read: {e}. {hint}")
        })
    };
    text.map(parse).transpose()
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{key} = {new}, and the gateway at {new_gateway}, but the devices of this gateway were set up for \
     {old} and answer only a gateway at {old_gateway}: say {key} = \"{old}\" again, or a larger pool that \
     begins at the same address"
)]
struct OtherPool {
    key: &'static str,
    old: IpNet,
    old_gateway: IpAddr,
    new: IpNet,
    new_gateway: IpAddr,
}

/// Returns the pools that became larger, each with its old and its new network.
fn grown(old: Pools, new: Pools) -> Result<Vec<(IpNet, IpNet)>, OtherPool> {
    let [old_v4, old_v6] = old.gateway();
    let [new_v4, new_v6] = new.gateway();
    let pairs = [
        OtherPool {
            key: POOL_V4,
            old: old.v4.into(),
            old_gateway: old_v4,
            new: new.v4.into(),
            new_gateway: new_v4,
        },
        OtherPool {
            key: POOL_V6,
            old: old.v6.into(),
            old_gateway: old_v6,
            new: new.v6.into(),
            new_gateway: new_v6,
        },
    ];
    let mut grown = Vec::new();
    for pair in pairs {
        if !pair.new.contains(&pair.old) || pair.old_gateway != pair.new_gateway {
            return Err(pair);
        }
        if pair.old != pair.new {
            grown.push((pair.old, pair.new));
        }
    }
    Ok(grown)
}

#[cfg(test)]
mod tests {
    use fleetgate_keys::PrivateKey;

    use super::*;
    use crate::store::fixture;

    fn known(v4: &str, v6: &str) -> PublishedIdentity {
        let pools = Pools { v4: v4.parse().unwrap(), v6: v6.parse().unwrap() };
        PublishedIdentity {
            key: PrivateKey::from_bytes([7; 32]).public(),
            ssh: "SHA256:ours".to_owned(),
            pools,
        }
    }

    async fn refusal(store: &Store, known: PublishedIdentity) -> String {
        format!("{:#}", known.keep(store, Path::new("/data")).await.unwrap_err())
    }

    #[tokio::test]
    async fn a_pool_that_devices_do_not_know_is_refused_with_both_and_the_way_back() {
        let (store, _dir) = fixture::store().await;
        let told = known("172.24.0.0/14", "fd72::/64");
        told.keep(&store, Path::new("/data")).await.unwrap();
        fixture::device(&store, 9, "cam-09").await;
        told.keep(&store, Path::new("/data")).await.unwrap();
        let other = refusal(&store, known("10.9.0.0/16", "fd72::/64")).await;
        for part in ["10.9.0.1", "172.24.0.1", "pool_v4 = \"172.24.0.0/14\" again"] {
            assert!(other.contains(part), "{other}");
        }
        // The gateway's address would change, or devices would be outside the pool.
        for (v4, v6) in
            [("172.16.0.0/12", "fd72::/64"), ("172.24.0.0/15", "fd72::/64"), ("172.24.0.0/14", "fd73::/64")]
        {
            assert!(refusal(&store, known(v4, v6)).await.contains("were set up for"), "{v4} {v6}");
        }
        told.keep(&store, Path::new("/data")).await.unwrap();
    }

    #[tokio::test]
    async fn a_pool_may_grow_at_its_end_and_does_not_shrink_again() {
        let (store, _dir) = fixture::store().await;
        let small = known("172.24.0.0/14", "fd72::/64");
        small.keep(&store, Path::new("/data")).await.unwrap();
        fixture::device(&store, 9, "cam-09").await;
        let large = known("172.24.0.0/13", "fd72::/64");
        large.keep(&store, Path::new("/data")).await.unwrap();
        assert!(refusal(&store, small.clone()).await.contains("set up for 172.24.0.0/13"));
        let pair = |was: &str, is: &str| (was.parse().unwrap(), is.parse().unwrap());
        assert_eq!(grown(small.pools, large.pools).unwrap(), [pair("172.24.0.0/14", "172.24.0.0/13")]);
    }

    #[tokio::test]
    async fn the_pools_of_an_installation_are_known_from_its_first_start_on() {
        let (store, _dir) = fixture::store().await;
        let data = Path::new("/data");
        assert_eq!(stored_pools(&store, data).await.unwrap(), None);
        let first = known("172.24.0.0/14", "fd72::/64");
        first.keep(&store, data).await.unwrap();
        assert_eq!(stored_pools(&store, data).await.unwrap(), Some(first.pools));
    }

    #[tokio::test]
    async fn pools_may_change_while_no_device_has_an_address() {
        let (store, _dir) = fixture::store().await;
        known("172.24.0.0/14", "fd72::/64").keep(&store, Path::new("/data")).await.unwrap();
        known("10.9.0.0/16", "fd73::/64").keep(&store, Path::new("/data")).await.unwrap();
        fixture::device(&store, 9, "cam-09").await;
        assert!(refusal(&store, known("172.24.0.0/14", "fd72::/64")).await.contains("10.9.0.0/16"));
    }

    #[tokio::test]
    async fn a_key_of_another_backup_is_refused() {
        let (store, _dir) = fixture::store().await;
        let told = known("172.24.0.0/14", "fd72::/64");
        told.keep(&store, Path::new("/data")).await.unwrap();
        let foreign = PublishedIdentity { key: PrivateKey::from_bytes([8; 32]).public(), ..told.clone() };
        assert_eq!(
            refusal(&store, foreign).await,
            "gateway.key is not the key of this database: both must come from the same backup. Restore a \
             backup: move /data away, then run `fleetgate restore FILE --data /data`"
        );
        let swapped = PublishedIdentity { ssh: "SHA256:theirs".to_owned(), ..told.clone() };
        assert_eq!(
            refusal(&store, swapped).await,
            "gateway_ssh_key is SHA256:theirs, but the devices of this gateway let in SHA256:ours: put the former \
             file back. Restore a backup: move /data away, then run `fleetgate restore FILE --data /data`"
        );
        told.keep(&store, Path::new("/data")).await.unwrap();
    }
}
