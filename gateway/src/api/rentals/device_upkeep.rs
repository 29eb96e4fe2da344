//! What the gateway does on a rented device: the account that renters log in to, and cleaning. What of it keeps a
//! device from being handed over.

use fleetgate_engine::id::HostId;
use fleetgate_engine::rental::device_access::Obstacle;

use super::device_types::NewDeviceRentalSettings;
use crate::api::request::ids::IdKind;
use crate::api::request::parse::Fields;
use crate::api::request::transaction::ApiTx;
use crate::api::response::problem::Problem;
use crate::store::devices::Device;
use crate::store::events::Object;
use crate::store::rentals::{device_access, devices};

/// useradd takes no longer names.
const MAX_ACCOUNT: usize = 32;
/// A longer command belongs into a script on the device.
const MAX_COMMAND: usize = 1_000;

/// The account in a request. Absent, it stays as it is.
pub struct UpkeepChange {
    account: Option<Option<String>>,
}

impl UpkeepChange {
    pub fn parsed(wrong: &mut Fields, new: &mut NewDeviceRentalSettings) -> UpkeepChange {
        let given = new.ssh_account.take();
        let parsed = given.and_then(|given| wrong.take("ssh_account", given.map(account).transpose()));
        UpkeepChange { account: parsed }
    }

    /// Changes the settings of a device.
    ///
    /// # Errors
    /// Returns 422 for the account of the gateway, and 409 for another account while renters have, or may have, the
    /// present one.
    pub async fn apply(
        self,
        write: &mut ApiTx<'_>,
        device: &Device,
        settings: &mut devices::Settings,
    ) -> Result<(), Problem> {
        if let Some(account) = self.account.filter(|account| *account != settings.ssh_account) {
            let login = device.settings.ssh.user.as_deref();
            if account.is_some() && account.as_deref() == login {
                let detail = "this is the login of the gateway: renters need an account of their own";
                return Err(Problem::invalid("ssh_account", detail));
            }
            not_in_use(write, device).await?;
            (settings.ssh_account, settings.ssh_mode) = (account, None);
        }
        Ok(())
    }
}

/// # Errors
/// Returns 422 if the gateway would log in to the account for renters.
pub async fn is_no_renter(write: &mut ApiTx<'_>, device: HostId, login: Option<&str>) -> Result<(), Problem> {
    let account = devices::settings(write.tx(), device).await?.ssh_account;
    if login.is_none() || account.as_deref() != login {
        return Ok(());
    }
    Err(Problem::invalid("ssh.user", "this is the account for renters: the gateway needs another one"))
}

/// Warns of rentals with SSH that are open while the account of their device is taken away, or becomes another one.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn warn_of_account(
    write: &mut ApiTx<'_>,
    device: HostId,
    account: Option<&str>,
) -> Result<(), Problem> {
    let now = write.now;
    let Some(data) = device_access::without_account(write.tx(), device, now).await? else { return Ok(()) };
    let cause = match account {
        Some(account) => {
            format!("{account} is the account for renters now, and is to be set up on the device")
        }
        None => "the account for renters was taken away, and rentals with SSH are open".to_owned(),
    };
    write.event(device_access::ACCOUNT_LOST, (Object::Device, device), &cause, data).await
}

/// Refuses to remove a device while renters have, or may have, SSH access to it: it would never be taken away. Returns
/// why it is removed nevertheless, for the event.
///
/// # Errors
/// Returns 409 with the rental, unless the caller asked for a cascade.
pub async fn removed_with(
    write: &mut ApiTx<'_>,
    device: &Device,
    cascade: bool,
) -> Result<Option<String>, Problem> {
    let kept_up = device_access::of_device(write.tx(), device.id).await?;
    let Some(kept_up) = kept_up else { return Ok(None) };
    let Some(held) = kept_up.state.held else { return Ok(None) };
    let (rental, name) = (IdKind::Rental.text(held.rental), &device.settings.name);
    if cascade {
        return Ok(Some(format!("removed, before the SSH access of {rental} was removed from it")));
    }
    let why = kept_up.failure.map(|failure| format!(" ({failure})")).unwrap_or_default();
    let detail = format!(
        "renters of {rental} have, or may have, SSH access to {name}, which stays there after its removal: wait \
         until it is removed{why}; ?cascade=true removes the device nevertheless"
    );
    Err(Problem::conflict("access_not_removed", detail))
}

async fn not_in_use(write: &mut ApiTx<'_>, device: &Device) -> Result<(), Problem> {
    let kept_up = device_access::of_device(write.tx(), device.id).await?;
    let Some(held) = kept_up.and_then(|kept_up| kept_up.state.held) else { return Ok(()) };
    let (rental, name) = (IdKind::Rental.text(held.rental), &device.settings.name);
    let detail =
        format!("renters of {rental} have, or may have, SSH access to {name}: wait until it is removed");
    Err(Problem::conflict("access_not_removed", detail))
}

fn account(name: String) -> Result<String, String> {
    let is_first = |c: char| c.is_ascii_lowercase() || c == '_';
    let is_next = |c: char| is_first(c) || c.is_ascii_digit() || c == '-';
    if name == "root" {
        return Err("renters need an account of their own, and not root".to_owned());
    }
    if name.len() > MAX_ACCOUNT || !name.starts_with(is_first) || !name.chars().all(is_next) {
        return Err(format!(
            "the name of an account is expected: a-z, 0-9, _ and -, at most {MAX_ACCOUNT} characters"
        ));
    }
    Ok(name)
}

pub fn command_line(line: String) -> Result<String, String> {
    let is_long = line.chars().count() > MAX_COMMAND;
    if is_long || line.trim().is_empty() || line.chars().any(char::is_control) {
        return Err(format!("one line of 1 to {MAX_COMMAND} characters is expected, or null for none"));
    }
    Ok(line)
}

/// Returns what keeps a device from being handed over, for people. `failure`: why the last call to it failed.
pub fn in_words(obstacle: Obstacle, failure: Option<&str>) -> String {
    let rental = |rental| IdKind::Rental.text(rental);
    let what = match obstacle {
        Obstacle::NotRevoked(former) => format!("the access of {} is not removed", rental(former)),
        Obstacle::NotCleaned(former) => format!("it is not cleaned after {}", rental(former)),
        Obstacle::NotGranted => "SSH access for the renters is not set up".to_owned(),
        Obstacle::NoAccount => {
            return "the device has no account for its renters any more: set one up with enrol.sh --rental-user, and in \
                    its settings (fleetgate rental device DEVICE --ssh-account USER), take SSH away from the rental, or \
                    give it another device"
                .to_owned();
        }
        Obstacle::Exposed => {
            return "renters could become root, and may know its keys: give it new WireGuard and host keys \
                    (fleetgate device replace)"
                .to_owned();
        }
    };
    format!("{what}: {}", failure.unwrap_or("it is in progress"))
}
