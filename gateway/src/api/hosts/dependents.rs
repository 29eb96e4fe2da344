//! The consequences of a removal for other hosts, which go too or lose a parent. They are listed
//! before it happens.
//!
//! Without `?cascade=true`, such a removal is refused, and the refusal lists all of them.

use fleetgate_engine::id::HostId;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::api::request::ids::IdKind;
use crate::api::response::problem::{Affected, Effect, Problem};
use crate::store::SqliteConnection;
use crate::store::devices::{self, Dependent};

/// Names in the text of one refusal. The list beside it has all.
const MAX_NAMED: usize = 10;

#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Removal {
    /// `true`: the hosts behind a device go with it, and hosts that have it as a parent lose that parent.
    /// Otherwise the removal is refused (409 `others_affected`) where there are any, and names them.
    #[serde(default)]
    pub cascade: bool,
}

/// The consequences of a removal: the hosts behind the host go too, and others lose it as a parent.
pub struct Consequences {
    pub removed: Vec<Dependent>,
    pub orphaned: Vec<Dependent>,
}

impl Consequences {
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn of(conn: &mut SqliteConnection, host: HostId) -> Result<Self, Problem> {
        let removed = devices::behind(conn, host).await?;
        let mut gone: Vec<HostId> = removed.iter().map(|dependent| dependent.id).collect();
        gone.push(host);
        let orphaned = devices::children(conn, &gone).await?;
        Ok(Consequences { removed, orphaned })
    }

    /// # Errors
    /// Returns 409 with the affected hosts, unless the caller asked for a cascade.
    pub fn agreed(&self, name: &str, removal: Removal) -> Result<(), Problem> {
        if removal.cascade || self.removed.is_empty() && self.orphaned.is_empty() {
            return Ok(());
        }
        let words = [
            self::words("behind it would be removed too", &self.removed),
            self::words("would lose it as a parent", &self.orphaned),
        ];
        let words: Vec<String> = words.into_iter().flatten().collect();
        let detail = format!("{name}: {}; ?cascade=true does that", words.join("; "));
        Err(Problem::affects("others_affected", detail, self.affected()))
    }

    fn affected(&self) -> Vec<Affected> {
        let named = |effect| {
            move |of: &Dependent| Affected { id: IdKind::Host.text(of.id), name: of.name.clone(), effect }
        };
        let removed = self.removed.iter().map(named(Effect::Removed));
        removed.chain(self.orphaned.iter().map(named(Effect::LosesParent))).collect()
    }
}

/// Formats `3 hosts would lose it as a parent: a, b, c`.
fn words(what: &str, hosts: &[Dependent]) -> Option<String> {
    let names: Vec<&str> = hosts.iter().take(MAX_NAMED).map(|host| host.name.as_str()).collect();
    let more = hosts.len().saturating_sub(MAX_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let count = if hosts.len() == 1 { "1 host".to_owned() } else { format!("{} hosts", hosts.len()) };
    (!hosts.is_empty()).then(|| format!("{count} {what}: {}{more}", names.join(", ")))
}
