//! The names of states, kinds and reasons, as schemas of the API document.
//!
//! A closed set is an `enum` in the document. A set that grows with the gateway is text there, with today's values
//! in `x-extensible-enum`. The values come from the code that makes or reads them.

use fleetgate_engine::availability::Condition;
use fleetgate_engine::history::query::Tier;
use fleetgate_engine::messages::{
    self, CauseKind, DropReason, GrantRole, HostStatus, MessageKind, PathCheck, RENTAL_SERVICE, RoutePolicy,
    StateType, SuppressReason,
};
use fleetgate_engine::notification::{Severity, WaitFor};
use fleetgate_engine::rental::handover::Failure;
use fleetgate_engine::rental::terms::Origin;
use fleetgate_engine::rental::{events as rental_events, life};
use fleetgate_engine::verdict;
use fleetgate_probes::cause::Cause;
use fleetgate_probes::sample::Status;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::schema::{
    AdditionalProperties, Object, ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type,
};
use utoipa::openapi::{RefOr, schema::SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

use crate::api::explain;
use crate::api::hosts::HOST_FILTERS;
use crate::api::rentals;
use crate::api::request::permission::Area;
use crate::api::response::problem::CODES;
use crate::api::top::TopMetric;
use crate::notification::reason_text;
use crate::store::definition::{self, sensor};
use crate::store::devices::route_name;
use crate::store::intervals::Series;
use crate::store::rentals::changes::What;
use crate::store::rentals::devices as renting;
use crate::store::restore_review::ReviewKind;
use crate::store::states::state_type_name;
use crate::store::{enrolments, event_data, events, grants, outbox, removals};

fn text(about: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).description(Some(about.trim()))
}

/// A set that is complete.
fn closed(about: &str, values: Vec<&'static str>) -> Object {
    text(about).enum_values(Some(values)).build()
}

/// A set that grows.
fn open(about: &str, values: Vec<&'static str>) -> Object {
    let known = ExtensionsBuilder::new().add("x-extensible-enum", values).build();
    text(&format!("{about} More values may come.")).extensions(Some(known)).build()
}

/// The type is only named: fields that hold these values are text.
macro_rules! sets {
    ($($kind:ident $name:ident $about:literal = $values:expr;)+) => { $(
        #[doc = $about]
        pub struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                $kind($about, $values.into_iter().collect()).into()
            }
        }

        impl ToSchema for $name {}
    )+ };
}

fn service_states() -> impl Iterator<Item = &'static str> {
    std::iter::once("pending").chain(Status::ALL.map(Status::name))
}

sets! {
    closed HostStateName "The state of a host." =
        [HostStatus::Pending, HostStatus::Up, HostStatus::Down].map(HostStatus::name);
    closed ServiceStateName "The state of a service." = service_states();
    closed ObjectState "The state of a host or a service." =
        service_states().chain(["up", "down"]);
    closed ProblemState "What is wrong with a host or a service." =
        ["down", "unreachable", "stale", "warning", "critical", "unknown"];
    closed HostFilter "A part of the hosts, as the counters have them." = HOST_FILTERS;
    closed StateTypeName "`hard` after `max_attempts` equal results, `soft` before." =
        [StateType::Soft, StateType::Hard].map(state_type_name);
    closed AlertState "A state that may be notified. A host is `down`; of its services that is `critical`." =
        ["warning", "critical", "unknown", "down"];
    closed AnyState "A state of a host or a service that was checked." =
        ["ok", "warning", "critical", "unknown", "up", "down"];
    closed RouteName "Which way a host is checked." =
        [RoutePolicy::Tunnel, RoutePolicy::Direct, RoutePolicy::Auto].map(route_name);
    closed ResultRoute "The way of the last result." = ["tunnel", "direct", "passive", "rental", "none"];
    open HostSource "The evidence that decided the state of a host." = [
        "evidence", "echo", "tcp", "ssh", "handshake", "handshakes", "direct", "passive", "silence", "none",
    ];
    open CheckCause "The outcome of a check. The text of a result decides none of these." =
        Cause::ALL.map(Cause::name);
    closed PathResult "What echoes of two sizes showed of the path, after a connection stalled." =
        PathCheck::ALL.into_iter().filter(|p| *p != PathCheck::NotAsked).map(PathCheck::name);
    closed CheckType "What a service checks. Of `passive` and `heartbeat` the results are sent." =
        definition::CHECKS;
    closed CheckKind "What a service checks. `rental`: the gateway sets the state, which is that of the rentals." =
        definition::CHECKS.into_iter().chain([RENTAL_SERVICE]);
    open SensorName "What a check of type `sensor` measures." = sensor::SENSORS;
    closed WeekdayName "A day of the week." = sensor::DAYS.map(|(word, _)| word);
    closed PinSource "How an SSH host key became the pinned one." = ["tunnel", "given", "trusted"];
    open VerdictKind "The cause of a problem, as far as the evidence shows it." =
        verdict::VerdictKind::ALL.map(verdict::VerdictKind::name);
    open DropReasonName "Why a datagram or packet was dropped." = DropReason::ALL.map(DropReason::name);

    closed IncidentScope "How far an incident reaches." = messages::IncidentScope::ALL.map(messages::IncidentScope::name);
    closed IncidentCause "What began an incident." = CauseKind::ALL.map(CauseKind::name);
    closed IncidentState "`merged` is part of another incident." = ["open", "closed", "merged"];
    closed IncidentFilter "Incidents that are listed." = ["open", "closed"];

    closed SeverityName "The mildest state that a rule selects. A host that is down is `critical`." =
        Severity::ALL.map(Severity::name);
    closed NotificationType "What a notification is about." = MessageKind::ALL.map(MessageKind::name);
    closed NotificationResult "What became of a notification." =
        ["new", "waiting", "sending", "sent", "suppressed", "given_up"];
    closed ContactResult "What became of a notification for one contact." =
        ["waiting", "sending", "sent", "suppressed", "given_up"];
    closed NotificationReason "Why a notification waits or is suppressed." = reasons();
    closed ChannelName "How a message is sent." = outbox::Channel::ALL.map(outbox::Channel::name);
    closed MessageContent "What a message contains." = outbox::OutboxKind::ALL.map(outbox::OutboxKind::name);
    closed MessageResult "What became of a message." = ["waiting", "sent", "given_up"];

    closed TierName "What points of a metric are made of: samples, or buckets of 5 minutes, an hour or a day (UTC)." =
        Tier::ALL.map(Tier::name);
    closed TopMetricName "What hosts are ranked by." = TopMetric::ALL.map(TopMetric::name);

    closed AvailabilityCondition "What held for a host or a service." = Condition::ALL.map(Condition::name);

    closed SubmitResult "What became of a result." = ["taken", "repeated", "older", "refused"];
    closed IgnoredReason "Why a result was ignored." = ["older"];

    closed EnrolmentState "The state of an enrolment." = enrolments::State::ALL.map(enrolments::State::name);
    closed GrantState "Whether a grant is in effect." = grants::State::ALL.map(grants::State::name);
    closed GrantRoleName "A role whose users have operators." =
        [GrantRole::Operator, GrantRole::Admin].map(grants::role_name);
    closed GrantProtocolName "A protocol that a grant permits." = grants::PROTOCOLS.map(grants::protocol_name);
    closed RentalSshMode "How the SSH server of a device recognises renters." =
        [renting::SSH_CERTIFICATES, renting::SSH_KEYS];
    closed RentalState "The state of a rental." = life::State::ALL.map(life::State::name);
    closed RentalDelivery "How a device gets to its renters. One that is `shipped` is sent to them and comes back." =
        life::Delivery::ALL.map(life::Delivery::name);
    closed RentalSettingOrigin "What decides about a rental setting of a device." = Origin::ALL.map(Origin::name);
    closed RentalSettingOfNone "A rental setting that can be none." = rentals::WITHOUT;
    closed MyDeviceState "The state of the device of a rental, as its customer sees it." =
        ["up", "down", "unreachable", "pending"];
    open RentalDelayKind "What keeps a rental from beginning. `settling`: all is OK, and has not been for long enough." =
        rentals::DELAY_KINDS;
    open HandoverState "The state of a device or service that is not as the gate wants it." = Failure::STATES;
    open RentalEndReason "Why a rental ended before its time, or did not begin." =
        life::EndReason::ALL.map(life::EndReason::name);
    closed RentalEndGiven "Why a rental that has begun is ended." =
        life::EndReason::AFTER_BEGIN.map(life::EndReason::name);
    open RentalChangeName "What was done with a rental." = What::ALL.map(What::name);
    open IntervalSeries "What an interval is about." = Series::ALL.map(Series::name);
    open RentalEventKind "What happened to a rental." =
        rental_events::RentalEventKind::ALL.map(rental_events::RentalEventKind::name);
    open ExplanationResult "What the packet filter does with a packet, and why." = explain::RESULTS;
    open ForwardProbeResult "What became of a probe of forwarding." = explain::PROBE_RESULTS;
    closed ScopeName "A part of the API that a token can be limited to." = Area::ALL.map(Area::name);
    closed RemovedKind "A kind of object that a program manages." =
        removals::Removable::ALL.map(removals::Removable::name);
    open ReviewKindName "A kind of what a restore has brought back." = ReviewKind::ALL.map(ReviewKind::name);
    open ErrorCode "What went wrong. Programs branch on this." = CODES;
    open EventKindName "What happened." = event_data::KINDS.iter().map(|(kind, _)| *kind);
    closed EventObject "What an event is about." = events::Object::ALL.map(events::Object::name);
}

fn reasons() -> Vec<&'static str> {
    let waits = WaitFor::BY_RULES.map(WaitFor::name).into_iter();
    let given = waits.chain(SuppressReason::ALL.map(SuppressReason::name)).chain(reason_text::REASONS);
    let mut all: Vec<&str> = Vec::new();
    // A delay is one of a rule or of a service.
    given.for_each(|reason| {
        if !all.contains(&reason) {
            all.push(reason)
        }
    });
    all
}

fn map_of(about: &str, value: impl Into<Schema>) -> ObjectBuilder {
    let values = AdditionalProperties::RefOr(RefOr::T(value.into()));
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .additional_properties(Some(values))
        .description(Some(about))
}

/// Labels by their keys.
pub struct Labels;

impl PartialSchema for Labels {
    fn schema() -> RefOr<Schema> {
        let about = "At most 32. Keys have 1 to 63 characters a-z 0-9 . _ / -, values up to 255.";
        map_of(about, ObjectBuilder::new().schema_type(Type::String)).into()
    }
}

impl ToSchema for Labels {}

/// Data that a client keeps with a booking.
pub struct Metadata;

impl PartialSchema for Metadata {
    fn schema() -> RefOr<Schema> {
        let about = "At most 32 entries. Keys have 1 to 63 printable ASCII characters without blanks, values up to 255.";
        map_of(about, ObjectBuilder::new().schema_type(Type::String)).into()
    }
}

impl ToSchema for Metadata {}

/// Labels in a PATCH.
pub struct LabelsChange;

impl PartialSchema for LabelsChange {
    fn schema() -> RefOr<Schema> {
        let about = "Merged with the present labels: a value sets a label, `null` removes it.";
        let types = SchemaType::from_iter([Type::String, Type::Null]);
        map_of(about, ObjectBuilder::new().schema_type(types)).into()
    }
}

impl ToSchema for LabelsChange {}

/// A port, or a range of ports.
pub struct PortOrRange;

impl PartialSchema for PortOrRange {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(1.0))
            .maximum(Some(65_535.0))
            .description(Some("A port."));
        let range = text("A port, or a range such as `8000-8100`.");
        OneOfBuilder::new().item(number).item(range).into()
    }
}

impl ToSchema for PortOrRange {}

/// A backup, as the body of a request or an answer.
pub struct BackupFile;

impl PartialSchema for BackupFile {
    fn schema() -> RefOr<Schema> {
        text("A backup as a tar archive.").format(Some(SchemaFormat::Custom("binary".into()))).into()
    }
}

impl ToSchema for BackupFile {}
