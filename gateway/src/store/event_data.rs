//! The kinds of events, and the data that each has for programs.
//!
//! The API document lists them. [`super::events::append`] compares each event with them in tests.

use self::Shape::{Count, Flag, MaybeNumber, MaybeObject, MaybeText, Object, Objects, Text, Texts};

/// The type of a field of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Text,
    /// Text, or `null`.
    MaybeText,
    Texts,
    /// A whole number from 0 on.
    Count,
    /// A number, or `null`.
    MaybeNumber,
    Flag,
    Object,
    /// An object, or `null`.
    MaybeObject,
    Objects,
}

/// A field of the data; `needed`: it is never absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: &'static str,
    pub shape: Shape,
    pub needed: bool,
}

/// The data of one kind, or of several.
#[derive(Debug, PartialEq, Eq)]
pub struct Data {
    /// The name of its schema.
    pub name: &'static str,
    pub fields: &'static [Field],
}

const fn has(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, needed: true }
}

const fn may(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, needed: false }
}

macro_rules! data {
    ($($which:ident = $name:literal [$($field:expr),* $(,)?];)+) => { $(
        const $which: Data = Data { name: $name, fields: &[$($field),*] };
    )+ };
}

data! {
    NONE = "NoData" [];
    STATE = "StateData" [has("from", Text), has("to", Text), has("state_type", Text)];
    SOFT = "SoftChangesData" [has("soft_changes", Count), has("date", Text)];
    NAME = "NameData" [has("name", Text)];
    CHANGED = "ChangedData" [has("changed", Texts)];
    HOST = "HostCreatedData" [has("name", Text), has("via", Text)];
    DEVICE = "DeviceCreatedData" [
        has("name", Text), has("tunnel", Flag), may("token", Text), may("public_key", Text),
    ];
    REPLACED = "DeviceReplacedData" [has("token", Text), has("public_key", Text)];
    REKEYED = "DeviceRekeyedData" [has("previous_key", MaybeText)];
    TRUSTED = "TrustedData" [has("fingerprint", Text), has("previous", MaybeText)];
    SERVICE = "ServiceChangedData" [
        has("service", Text), has("settings", Object), has("disabled", Flag), may("previous", MaybeObject),
    ];
    RESET = "ServiceResetData" [has("service", Text), may("previous", MaybeObject)];
    CHECK = "CheckRequestedData" [has("service", MaybeText)];
    SUPPRESSED = "NotificationSuppressedData" [
        has("reason", Text), may("kind", Text), may("from", Text), may("to", Text),
        may("notification", Text), may("contact", MaybeText),
    ];
    MESSAGE = "MessageData" [
        has("message", Text), has("to", Text), has("contact", Text), has("notifications", Count),
    ];
    DROPPED = "MessageSupersededData" [has("message", Text), has("to", Text)];
    ACKNOWLEDGED = "AcknowledgementAddedData" [has("id", Text), has("sticky", Flag), has("expires", MaybeText)];
    ACK_ENDED = "AcknowledgementEndedData" [has("id", Text), has("why", Text)];
    ID = "IdData" [has("id", Text)];
    WINDOW = "DowntimeWindowData" [has("id", Text), has("from", Text)];
    DOWNTIME = "DowntimeData" [
        has("id", Text), has("host", MaybeText), has("host_name", MaybeText), has("labels", MaybeObject),
        has("service", MaybeText), has("start", Text), has("end", Text), has("fixed", Flag),
        has("duration_s", MaybeNumber), has("recurrence", MaybeObject), has("name", MaybeText),
        has("managed_by", Text), has("edited_by", MaybeText), has("author", Text), has("comment", Text),
        has("created_at", Text), has("cancelled_at", MaybeText), may("begun_at", MaybeText), may("version", Count),
    ];
    INCIDENT = "IncidentData" [has("scope", Text), has("cause", Text), has("site", MaybeText)];
    MERGED = "IncidentMergedData" [has("into", Text)];
    INCIDENT_ACK = "IncidentAcknowledgedData" [
        has("sticky", Flag), has("expires", MaybeText), has("members", Count),
    ];
    WHY = "EndedData" [has("why", Text)];
    ENROLMENT = "EnrolmentData" [
        has("name", Text), may("public_key", Text), may("from", Text), may("device", MaybeText),
    ];
    NOT_ENROLLED = "EnrolmentRefusedData" [may("code", Text), may("from", Text), may("count", Count)];
    ENROLMENT_TOKEN = "EnrolmentTokenData" [has("label", Text), has("replaces", MaybeText)];
    TOKEN = "TokenData" [has("name", Text), has("role", Text), has("scopes", Texts), may("user", MaybeText), may("customer", Text)];
    USER = "UserCreatedData" [may("name", Text), may("role", Text)];
    USER_CHANGED = "UserChangedData" [has("role", Text), has("disabled", Flag), has("password", Flag)];
    OPERATOR = "OperatorCreatedData" [has("name", Text), has("user", Text)];
    GRANT = "GrantData" [
        has("id", Text), has("name", MaybeText), has("source", Object), has("target", Object),
        has("access", Objects), has("from", MaybeText), has("until", MaybeText), has("reason", Text),
    ];
    PERSON = "PersonCreatedData" [has("id", Text), has("customer", Text)];
    RENTER = "RenterCreatedData" [has("id", Text), has("person", Text), has("customer", Text)];
    BOOKING = "BookingCreatedData" [
        has("id", Text), has("customer", Text), has("rentals", Texts), has("held", Flag),
    ];
    NAMED_CHANGED = "NamedChangedData" [has("id", Text), has("changed", Texts)];
    LAPSED = "BookingLapsedData" [has("id", Text), has("rentals", Texts)];
    RENTAL = "RentalData" [
        has("id", Text), has("booking", Text), has("customer", Text), has("device", Text), has("from", Text),
        has("until", Text), has("changed", Texts), may("reason", Text), may("version", Count),
    ];
    HANDED_OVER = "RentalHandedOverData" [
        has("id", Text), has("booking", Text), has("customer", Text), has("device", Text), has("reason", Text),
        has("version", Count),
    ];
    RENTING = "DeviceRentalSettingsData" [
        has("rentable", Flag), has("preparation_s", MaybeNumber), has("turnaround_s", MaybeNumber),
        may("access", Objects), may("ready", Flag), may("not_ready_reason", MaybeText), may("gate", MaybeObject),
        may("delivery", Text), may("ssh_account", MaybeText), may("ssh_root", Flag),
        may("cleaning_command", MaybeText), may("origins", Object),
    ];
    BLOCK = "DeviceBlockData" [
        has("id", Text), has("from", Text), has("until", MaybeText), has("reason", Text), may("rentals", Texts),
        may("covered", Count),
    ];
    ACCOUNT_LOST = "DeviceRentalAccountLostData" [has("rentals", Texts)];
    UNDELIVERED = "SubscriptionFailingData" [has("id", Text), has("error", Text)];
    STREAM_OPENED = "StreamOpenedData" [has("id", Text), has("address", Text), has("port", Count)];
    STREAM_CLOSED = "StreamClosedData" [
        has("id", Text), has("address", Text), has("port", Count), has("sent_bytes", Count),
        has("received_bytes", Count), has("duration_s", MaybeNumber), has("why", Text),
    ];
    PROBED = "ForwardingProbedData" [
        has("from", Text), has("protocol", Text), has("port", MaybeNumber),
    ];
    SESSION = "SessionData" [has("from", Text)];
    PROFILE = "ProfileChangedData" [has("profile", Text), has("settings", Object)];
    NO_PROFILE = "ProfileRemovedData" [has("profile", Text)];
    RULES = "ProfileRulesData" [has("rules", Objects)];
    RESULT = "ResultRefusedData" [has("host", Text)];
    ENDPOINT = "EndpointData" [has("endpoint", Text)];
    CLOCK = "ClockAcceptedData" [has("clock", Text)];
    CLOCK_BEHIND = "ClockUntrustedData" [has("floor", MaybeText)];
    CLOCK_STEP = "ClockSteppedData" [has("ahead_s", MaybeNumber), has("not_listed", Count)];
    RESTORE = "RestoreData" [has("public_key", Text), has("made_at", Text)];
    BACKUP = "BackupBegunData" [has("name", Text), has("history", Flag)];
    RESTORED = "RestoreTimeData" [has("restored_at", Text)];
    FILE = "FileData" [has("file", Text)];
}

/// Every kind of event with its data.
pub const KINDS: &[(&str, Data)] = &[
    ("state.changed", STATE),
    ("state.not_listed", SOFT),
    ("host.created", HOST),
    ("host.changed", CHANGED),
    ("host.trusted", TRUSTED),
    ("host.removed", NAME),
    ("host.asleep", NONE),
    ("host.awake", NONE),
    ("host.unreachable", NONE),
    ("host.reachable", NONE),
    ("service.changed", SERVICE),
    ("service.reset", RESET),
    ("flapping.started", NONE),
    ("flapping.ended", NONE),
    ("check.requested", CHECK),
    ("notification.suppressed", SUPPRESSED),
    ("message.sent", MESSAGE),
    ("message.failed", MESSAGE),
    ("message.given_up", MESSAGE),
    ("message.resent", NONE),
    ("message.superseded", DROPPED),
    ("acknowledgement.added", ACKNOWLEDGED),
    ("acknowledgement.withdrawn", ID),
    ("acknowledgement.ended", ACK_ENDED),
    ("downtime.added", DOWNTIME),
    ("downtime.changed", DOWNTIME),
    ("downtime.cancelled", ID),
    ("downtime.started", WINDOW),
    ("downtime.ended", WINDOW),
    ("maintenance.started", NONE),
    ("maintenance.ended", NONE),
    ("incident.opened", INCIDENT),
    ("incident.widened", INCIDENT),
    ("incident.merged", MERGED),
    ("incident.closed", NONE),
    ("incident.acknowledged", INCIDENT_ACK),
    ("incident.acknowledgement_withdrawn", NONE),
    ("incident.acknowledgement_ended", WHY),
    ("tunnel.first_handshake", NONE),
    ("tunnel.handshake_refused", NONE),
    ("tunnel.endpoint_moved", NONE),
    ("ssh.key_pinned", NONE),
    ("ssh.key_changed", NONE),
    ("uplink.lost", NONE),
    ("uplink.back", NONE),
    ("device.created", DEVICE),
    ("device.changed", CHANGED),
    ("device.removed", NAME),
    ("device.rekeyed", REKEYED),
    ("device.replaced", REPLACED),
    ("device.trusted", TRUSTED),
    ("device.clock_reset", NONE),
    ("enrolment.requested", ENROLMENT),
    ("enrolment.approved", ENROLMENT),
    ("enrolment.rejected", ENROLMENT),
    ("enrolment.expired", NONE),
    ("enrolment.refused", NOT_ENROLLED),
    ("enrolment_token.created", ENROLMENT_TOKEN),
    ("enrolment_token.revoked", NONE),
    ("token.created", TOKEN),
    ("token.revoked", NONE),
    ("user.created", USER),
    ("user.changed", USER_CHANGED),
    ("user.removed", NAME),
    ("user.password_changed", NONE),
    ("user.login_link_created", NONE),
    ("session.begun", SESSION),
    ("operator.created", OPERATOR),
    ("operator.changed", CHANGED),
    ("operator.rekeyed", REKEYED),
    ("operator.removed", NAME),
    ("grant.created", GRANT),
    ("grant.changed", GRANT),
    ("grant.withdrawn", GRANT),
    ("customer.created", ID),
    ("customer.changed", NAMED_CHANGED),
    ("customer.erased", ID),
    ("person.created", PERSON),
    ("person.changed", NAMED_CHANGED),
    ("person.removed", ID),
    ("person.login_link_created", ID),
    ("person.logged_in", ID),
    ("renter.created", RENTER),
    ("renter.changed", NAMED_CHANGED),
    ("renter.rekeyed", ID),
    ("renter.removed", ID),
    ("booking.created", BOOKING),
    ("booking.changed", NAMED_CHANGED),
    ("booking.lapsed", LAPSED),
    ("rental.changed", RENTAL),
    ("rental.cancelled", RENTAL),
    ("rental.ended", RENTAL),
    ("rental.handed_over", HANDED_OVER),
    ("rental.dispatched", RENTAL),
    ("rental.arrived", HANDED_OVER),
    ("rental.returned", RENTAL),
    ("subscription.created", ID),
    ("subscription.changed", NAMED_CHANGED),
    ("subscription.removed", ID),
    ("subscription.failing", UNDELIVERED),
    ("device.rental_settings_changed", RENTING),
    ("device.rental_account_lost", ACCOUNT_LOST),
    ("device.blocked", BLOCK),
    ("device.unblocked", ID),
    ("stream.opened", STREAM_OPENED),
    ("stream.closed", STREAM_CLOSED),
    ("forwarding.probed", PROBED),
    ("contact.created", NAME),
    ("contact.changed", NAME),
    ("contact.removed", NAME),
    ("contact.tested", NAME),
    ("contact.secret_renewed", NAME),
    ("rule.created", NAME),
    ("rule.changed", NAME),
    ("rule.removed", NAME),
    ("profile.changed", PROFILE),
    ("profile.removed", NO_PROFILE),
    ("profile_rules.changed", RULES),
    ("result.refused", RESULT),
    ("gateway.endpoint_changed", ENDPOINT),
    ("gateway.clock_accepted", CLOCK),
    ("gateway.clock_untrusted", CLOCK_BEHIND),
    ("gateway.clock_trusted", NONE),
    ("gateway.clock_stepped", CLOCK_STEP),
    ("gateway.restored", NONE),
    ("gateway.restore_unconfirmed", RESTORED),
    ("history.set_aside", FILE),
    ("backup.begun", BACKUP),
    ("backup.downloaded", NAME),
    ("backup.removed", NAME),
    ("restore.staged", RESTORE),
    ("restore.withdrawn", RESTORE),
    ("restore.confirmed", RESTORED),
];

/// The data that events of this kind have.
pub fn of(kind: &str) -> Option<&'static Data> {
    KINDS.iter().find(|(name, _)| *name == kind).map(|(_, data)| data)
}

/// # Errors
/// Says how the data of an event differs from what its kind declares.
#[cfg(test)]
pub(super) fn check(kind: &str, data: &serde_json::Value) -> Result<(), String> {
    use serde_json::Value;
    let declared = of(kind).ok_or_else(|| format!("the event kind {kind} is not declared"))?;
    let given = data.as_object().ok_or_else(|| format!("the data of {kind} is no object: {data}"))?;
    let texts = |v: &Value| v.as_array().is_some_and(|list| list.iter().all(Value::is_string));
    let objects = |v: &Value| v.as_array().is_some_and(|list| list.iter().all(Value::is_object));
    for field in declared.fields {
        let Some(value) = given.get(field.name) else {
            if field.needed {
                return Err(format!("{kind} lacks {}: {data}", field.name));
            }
            continue;
        };
        let fits = match field.shape {
            Text => value.is_string(),
            MaybeText => value.is_string() || value.is_null(),
            Texts => texts(value),
            Count => value.is_u64(),
            Flag => value.is_boolean(),
            Object => value.is_object(),
            MaybeObject => value.is_object() || value.is_null(),
            Objects => objects(value),
            MaybeNumber => value.is_number() || value.is_null(),
        };
        if !fits {
            return Err(format!("{kind}: {} is not {:?}: {data}", field.name, field.shape));
        }
    }
    match given.keys().find(|name| !declared.fields.iter().any(|field| field.name == **name)) {
        Some(name) => Err(format!("{kind} does not declare {name}: {data}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_names_an_object_and_what_happened() {
        let is_word =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        for (kind, _) in KINDS {
            let parts: Vec<&str> = kind.split('.').collect();
            assert!(parts.len() == 2 && parts.into_iter().all(is_word), "{kind}");
        }
    }
}
