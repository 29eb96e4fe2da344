//! How a device is rented: what its own settings say, else what its profile says, else the default.
//!
//! [`Effective::of`] alone decides which of them counts.

use std::time::Duration;

use super::life::Delivery;
use super::occupancy::Margins;
use crate::messages::{GateRule, GrantAccess, GrantProtocol};

/// One of the settings that a profile may say for its devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setting {
    Preparation,
    Turnaround,
    Access,
    Gate,
    Delivery,
    SshRoot,
    CleaningCommand,
}

impl Setting {
    pub const ALL: [Setting; 7] = [
        Setting::Preparation,
        Setting::Turnaround,
        Setting::Access,
        Setting::Gate,
        Setting::Delivery,
        Setting::SshRoot,
        Setting::CleaningCommand,
    ];

    /// Returns its name in the API and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Setting::Preparation => "preparation_s",
            Setting::Turnaround => "turnaround_s",
            Setting::Access => "access",
            Setting::Gate => "gate",
            Setting::Delivery => "delivery",
            Setting::SshRoot => "ssh_root",
            Setting::CleaningCommand => "cleaning_command",
        }
    }

    pub fn named(name: &str) -> Option<Setting> {
        Setting::ALL.into_iter().find(|setting| setting.name() == name)
    }
}

/// What a device or a profile says. `None`: nothing, and what is below it counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    pub preparation: Option<Duration>,
    pub turnaround: Option<Duration>,
    /// The most that renters reach.
    pub access: Option<Vec<GrantAccess>>,
    /// `Some(None)`: no gate.
    pub gate: Option<Option<GateRule>>,
    pub delivery: Option<Delivery>,
    /// The account of the renters can become root.
    pub ssh_root: Option<bool>,
    /// `Some(None)`: nothing runs after a rental.
    pub cleaning_command: Option<Option<String>>,
}

impl Terms {
    /// Combines these terms with those below them.
    #[must_use]
    pub fn upon(&self, below: &Terms) -> Terms {
        Terms {
            preparation: self.preparation.or(below.preparation),
            turnaround: self.turnaround.or(below.turnaround),
            access: self.access.as_ref().or(below.access.as_ref()).cloned(),
            gate: self.gate.as_ref().or(below.gate.as_ref()).cloned(),
            delivery: self.delivery.or(below.delivery),
            ssh_root: self.ssh_root.or(below.ssh_root),
            cleaning_command: self.cleaning_command.as_ref().or(below.cleaning_command.as_ref()).cloned(),
        }
    }

    /// Whether they say something about a setting.
    pub fn says(&self, setting: Setting) -> bool {
        match setting {
            Setting::Preparation => self.preparation.is_some(),
            Setting::Turnaround => self.turnaround.is_some(),
            Setting::Access => self.access.is_some(),
            Setting::Gate => self.gate.is_some(),
            Setting::Delivery => self.delivery.is_some(),
            Setting::SshRoot => self.ssh_root.is_some(),
            Setting::CleaningCommand => self.cleaning_command.is_some(),
        }
    }
}

/// What decides about a setting of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Its own settings.
    Device,
    Profile,
    Default,
}

impl Origin {
    pub const ALL: [Origin; 3] = [Origin::Device, Origin::Profile, Origin::Default];

    pub const fn name(self) -> &'static str {
        match self {
            Origin::Device => "device",
            Origin::Profile => "profile",
            Origin::Default => "default",
        }
    }

    pub fn of(setting: Setting, own: &Terms, profile: &Terms) -> Origin {
        match (own.says(setting), profile.says(setting)) {
            (true, _) => Origin::Device,
            (false, true) => Origin::Profile,
            (false, false) => Origin::Default,
        }
    }
}

/// What counts for a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    pub margins: Margins,
    pub access: Vec<GrantAccess>,
    pub gate: Option<GateRule>,
    pub delivery: Delivery,
    pub ssh_root: bool,
    pub cleaning_command: Option<String>,
}

impl Effective {
    /// `own`: the settings of the device. `profile`: what its profiles say.
    pub fn of(own: &Terms, profile: &Terms) -> Effective {
        let terms = own.upon(profile);
        Effective {
            margins: Margins {
                preparation: terms.preparation.unwrap_or_default(),
                turnaround: terms.turnaround.unwrap_or_default(),
            },
            access: terms.access.unwrap_or_else(usual_access),
            gate: terms.gate.unwrap_or_else(|| Some(GateRule::usual())),
            delivery: terms.delivery.unwrap_or(Delivery::Mounted),
            ssh_root: terms.ssh_root.unwrap_or(false),
            cleaning_command: terms.cleaning_command.flatten(),
        }
    }
}

/// What renters reach of a device when nothing says it: whether it answers, SSH, and its page. The default of the
/// database is the same.
fn usual_access() -> Vec<GrantAccess> {
    let icmp = GrantAccess { protocol: GrantProtocol::Icmp, ports: Vec::new() };
    let tcp = GrantAccess { protocol: GrantProtocol::Tcp, ports: vec![22..=22, 80..=80, 443..=443] };
    vec![icmp, tcp]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rental::life::Shipment;

    fn whole() -> Terms {
        Terms {
            preparation: Some(Duration::from_secs(60)),
            turnaround: Some(Duration::from_secs(120)),
            access: Some(Vec::new()),
            gate: Some(Some(GateRule { services: None, ok_for: Duration::from_secs(300) })),
            delivery: Some(Delivery::Shipped(Shipment::default())),
            ssh_root: Some(true),
            cleaning_command: Some(Some("wipe".to_owned())),
        }
    }

    fn origins(own: &Terms, profile: &Terms) -> Vec<&'static str> {
        let mut found: Vec<_> =
            Setting::ALL.into_iter().map(|setting| Origin::of(setting, own, profile).name()).collect();
        found.dedup();
        found
    }

    #[test]
    fn a_device_overrides_its_profile_and_the_profile_the_default() {
        let nothing = Terms::default();
        let usual = Effective::of(&nothing, &nothing);
        assert_eq!((usual.margins, usual.access), (Margins::default(), usual_access()));
        assert_eq!((usual.delivery, usual.ssh_root), (Delivery::Mounted, false));
        let gate = GateRule { services: None, ok_for: Duration::from_secs(300) };
        assert_eq!(usual.gate, Some(gate), "all services, for five minutes");
        assert_eq!(Effective::of(&nothing, &whole()), Effective::of(&whole(), &nothing));
        assert_eq!(origins(&nothing, &nothing), ["default"]);
        assert_eq!(origins(&nothing, &whole()), ["profile"]);
        assert_eq!(origins(&whole(), &whole()), ["device"]);
    }

    #[test]
    fn a_single_setting_of_the_device_leaves_the_others_to_the_profile() {
        let own = Terms {
            turnaround: Some(Duration::ZERO),
            gate: Some(None),
            cleaning_command: Some(None),
            ..Terms::default()
        };
        let counts = Effective::of(&own, &whole());
        assert_eq!(counts.margins.preparation, Duration::from_secs(60));
        assert_eq!(counts.margins.turnaround, Duration::ZERO);
        assert_eq!((counts.gate, counts.cleaning_command), (None, None), "none is a setting too");
        assert_eq!((counts.delivery, counts.ssh_root), (Delivery::Shipped(Shipment::default()), true));
    }

    #[test]
    fn every_setting_is_found_by_its_name() {
        for setting in Setting::ALL {
            assert_eq!(Setting::named(setting.name()), Some(setting));
        }
        assert_eq!(Setting::named("rentable"), None);
    }
}
