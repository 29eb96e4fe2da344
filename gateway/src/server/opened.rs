//! The resources that a start opens before any part runs: the data directory, the keys, the sockets and
//! the databases.
//!
//! A start that fails here has started nothing. This file knows neither the engine nor the API.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::{TcpListener, UnixListener};

use crate::backup;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::data_dir::start::{Reached, StartStep};
use crate::first_start;
use crate::first_start::StartKind;
use crate::identity::Identity;
use crate::identity::continuity;
use crate::identity::continuity::PublishedIdentity;
use crate::store::Store;
use crate::tunnel::udp;

/// The sockets that a start needs. They are bound first, so that a busy port changes nothing.
pub(super) struct Sockets {
    pub udp: std::net::UdpSocket,
    pub api: TcpListener,
    pub local: UnixListener,
}

impl Sockets {
    async fn bind(config: &Config, data: &DataDir) -> anyhow::Result<Sockets> {
        let udp = udp::bind(config.listen)?;
        let api = TcpListener::bind(config.api_listen).await.with_context(|| {
            format!(
                "cannot listen for the API on TCP {}: is it in use? set api_listen to another",
                config.api_listen
            )
        })?;
        let path = data.socket();
        // The directory is locked, so an existing socket is left over from a killed gateway.
        let _ = std::fs::remove_file(&path);
        let local = UnixListener::bind(&path).with_context(|| format!("cannot make {}", path.display()))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Sockets { udp, api, local })
    }
}

/// The resources that a start opens before any part runs.
pub(super) struct Opened {
    pub config: Config,
    pub data: DataDir,
    pub identity: Arc<Identity>,
    pub sockets: Sockets,
    pub store: Store,
    pub is_first: bool,
}

impl Opened {
    pub async fn new(mut config: Config, data: DataDir, reached: Reached<'_>) -> anyhow::Result<Opened> {
        if backup::finish_restore(data.path())? {
            tracing::warn!(
                "a backup that was given takes effect; the gateway that was here lies in a folder beside"
            );
        }
        let is_first = first_start::examine(data.path()).await? == StartKind::FirstStart;
        if is_first {
            first_start::begin(data.path())?;
            reached(StartStep::Marked)?;
        }
        let identity = Arc::new(Identity::open(data.path(), reached)?);
        let sockets = Sockets::bind(&config, &data).await?;
        reached(StartStep::Sockets)?;
        let (store, lost) = Store::open_noticing(data.path(), identity.seal_key(), is_first).await?;
        store.set_reserve(config.disk.reserve);
        reached(StartStep::Databases)?;
        if let Some(stored) = continuity::stored_pools(&store, data.path()).await? {
            config.keep_pools(stored);
        }
        PublishedIdentity::of(&identity, config.pools()).keep(&store, data.path()).await?;
        reached(StartStep::Identity)?;
        if let Some(lost) = &lost {
            store.tell_of_lost_history(lost).await;
        }
        // Before any part reads a customer. A file that cannot be read is no reason to leave devices unwatched.
        if let Err(error) = backup::erased_ids::reconcile(&store, data.path()).await {
            tracing::error!("customers who were erased are perhaps not erased in this database: {error:#}");
        }
        Ok(Opened { config, data, identity, sockets, store, is_first })
    }
}
