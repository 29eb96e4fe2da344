//! Profiles: named sets of services. The built-in ones are read-only. Before the response to a
//! change of another one, the services of every affected host are adjusted in slices.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fleetgate_engine::id::Id;
use fleetgate_engine::monitor::profile::{self as engine, BadCatalogue, Catalogue, MAX_EXTENDS};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::rentals::{self, RentalTerms};
use super::request::auth::Principal;
use super::request::extract::{Body, Path};
use super::request::managed_by::{self, Manager};
use super::request::parse;
use super::request::permission::Area;
use super::request::transaction::ApiTx;
use super::request::validation::{self, Validation};
use super::response::etag::{IfMatch, Tagged};
use super::response::problem::Problem;
use super::services::ServiceSettings;
use super::types::{Managed, Page, ThresholdSettings, names};
use crate::store::SqliteConnection;
use crate::store::definition::{self, check_kind};
use crate::store::events::Object;
use crate::store::profiles::{self as stored, Stored};
use crate::store::removals::Removable;
use crate::store::resettle::{self, Member};

/// Profiles that operators create. A company has a few kinds of devices.
const MAX_PROFILES: usize = 256;
/// Names in one refusal.
const MAX_NAMED: usize = 10;

/// A named set of services. A host gets those that it can be checked by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Profile {
    pub name: String,
    pub summary: String,
    /// Built in and read-only: extend it instead.
    pub builtin: bool,
    /// A later one overrides those before it; the own services override all of them.
    pub extends: Vec<String>,
    /// The services that it adds or changes.
    pub services: BTreeMap<String, ServiceSettings>,
    /// All its services, inherited ones included.
    pub effective: Vec<ProfileService>,
    /// How its devices are rented, where it differs from the profiles that it extends.
    pub rental: RentalTerms,
    /// The same, with what it inherits.
    pub effective_rental: RentalTerms,
    /// Hosts with this profile, or with one that extends it.
    pub hosts: usize,
    #[serde(flatten)]
    pub managed: Managed,
    /// The same number as in the `ETag`; 0 of a built-in profile.
    #[schema(minimum = 0)]
    pub version: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProfileService {
    pub name: String,
    #[schema(value_type = names::CheckType)]
    pub check: String,
    /// If it differs from that of the host.
    #[schema(minimum = 0.1, maximum = 604800)]
    pub interval_s: Option<f64>,
    pub thresholds: Vec<ThresholdSettings>,
}

/// A whole profile; what is absent is empty.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProfileSettings {
    pub summary: String,
    pub extends: Vec<String>,
    /// By name. With a `check` it may be a service that no extended profile has.
    #[schema(value_type = BTreeMap<String, ServiceSettings>)]
    pub services: serde_json::Map<String, serde_json::Value>,
    /// How its devices are rented.
    pub rental: RentalTerms,
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show, put, remove))
}

/// Few enough for one page.
#[utoipa::path(get, path = "/profiles", operation_id = "list_profiles", tag = "monitoring",
    security(("token" = ["monitoring:viewer"])), responses((status = 200, body = Page<Profile>)))]
async fn list(State(app): State<AppState>) -> Result<Json<Page<Profile>>, Problem> {
    let mut conn = app.store.reader().await?;
    let shelf = Shelf::load(&mut conn).await?;
    let items = shelf.catalogue.profiles().map(|p| shelf.to_api(p)).collect::<Result<_, _>>()?;
    Ok(Json(Page { items, next: None }))
}

/// A profile with its services.
#[utoipa::path(get, path = "/profiles/{profile}", operation_id = "show_profile", tag = "monitoring",
    security(("token" = ["monitoring:viewer"])), params(("profile" = String, Path)),
    responses((status = 200, body = Profile)))]
async fn show(State(app): State<AppState>, Path(name): Path<String>) -> Result<Tagged<Profile>, Problem> {
    let mut conn = app.store.reader().await?;
    Shelf::load(&mut conn).await?.tagged(&name)
}

/// All data shown about profiles.
struct Shelf {
    catalogue: Catalogue,
    stored: Vec<Stored>,
    members: Vec<Member>,
}

impl Shelf {
    async fn load(conn: &mut SqliteConnection) -> Result<Self, Problem> {
        Ok(Shelf {
            catalogue: stored::catalogue(&mut *conn).await?,
            stored: stored::list(&mut *conn).await?,
            members: resettle::members(conn).await?,
        })
    }

    fn tagged(&self, name: &str) -> Result<Tagged<Profile>, Problem> {
        let profile = self.catalogue.known(name).map_err(|e| Problem::not_found(e.to_string()))?;
        let value = self.to_api(profile)?;
        Ok(Tagged { version: value.version, value })
    }

    fn to_api(&self, profile: &engine::Profile) -> Result<Profile, Problem> {
        let stored = self.stored.iter().find(|s| s.profile.name == profile.name);
        let own = stored::services_json(&profile.services);
        let effective = self.catalogue.services(&[&profile.name]);
        Ok(Profile {
            name: profile.name.clone(),
            summary: profile.summary.clone(),
            builtin: is_builtin(&profile.name),
            extends: profile.extends.clone(),
            services: serde_json::from_value(own).map_err(Problem::internal)?,
            effective: effective.iter().filter_map(service).collect(),
            rental: rentals::terms_to_api(&profile.rental),
            effective_rental: rentals::terms_to_api(&self.catalogue.rental(&[&profile.name])),
            hosts: self.members.iter().filter(|m| goes_by(m, &self.catalogue, &profile.name)).count(),
            managed: stored.map(|s| (&s.managed).into()).unwrap_or_default(),
            version: stored.map_or(0, |s| s.version),
        })
    }
}

fn service(change: &engine::ServiceOverride) -> Option<ProfileService> {
    let check = change.check.as_ref().filter(|_| !change.disabled)?;
    let limits = change.thresholds.iter().flatten();
    Some(ProfileService {
        name: change.service.clone(),
        check: check_kind(check).to_owned(),
        interval_s: change.interval.map(|i| i.as_secs_f64()),
        thresholds: limits.map(ThresholdSettings::from).collect(),
    })
}

fn is_builtin(name: &str) -> bool {
    engine::builtin().iter().any(|p| p.name == name)
}

fn goes_by(member: &Member, catalogue: &Catalogue, profile: &str) -> bool {
    member.profiles(catalogue).iter().any(|own| catalogue.descends(own, profile))
}

/// Makes or replaces a profile. It takes effect at once on every host that is checked by it.
///
/// A change of `rental` also needs the scope `devices`.
#[utoipa::path(put, path = "/profiles/{profile}", operation_id = "put_profile", tag = "monitoring",
    security(("token" = ["monitoring:operator"])), request_body = ProfileSettings,
    params(("profile" = String, Path),
        ("If-Match" = Option<String>, Header, description = "the ETag that the change is meant for"),
        ("Fleetgate-Manager" = Option<String>, Header, description = "the program that manages it")),
    responses((status = 200, body = Profile)))]
async fn put(
    State(app): State<AppState>,
    who: Principal,
    manager: Manager,
    Path(name): Path<String>,
    if_match: IfMatch,
    Body(body): Body<ProfileSettings>,
) -> Result<Tagged<Profile>, Problem> {
    let profile = parsed(&name, body)?;
    let mut write = ApiTx::begin(&app, &who).await?;
    let before = stored::find(write.tx(), &name).await?;
    if_match.check(before.as_ref().map_or(0, |b| b.version))?;
    let rented = before.as_ref().map(|b| b.profile.rental.clone()).unwrap_or_default();
    if before.is_none() && stored::list(write.tx()).await?.len() >= MAX_PROFILES {
        return Err(Problem::limit_reached(format!("at most {MAX_PROFILES} profiles are possible")));
    }
    let (was, principal) = (stored::catalogue(write.tx()).await?, write.by.clone());
    let managed = managed_by::after(before.map(|b| b.managed), manager.writer(&principal));
    stored::put(write.tx(), &profile, &managed).await?;
    write.made((Removable::Profile, &name), &manager).await?;
    let is = fits(write.tx()).await?;
    // What it inherits counts too.
    if profile.rental != rented || was.rental(&[&name]) != is.rental(&[&name]) {
        // So do the settings of a device.
        who.must_reach(Area::Devices)?;
    }
    gates_have_services(&was, &is, &name)?;
    let members = write.resettle(&was, &is, Some(&name)).await?;
    let settings = json!({ "extends": profile.extends, "services": stored::services_json(&profile.services),
        "rental": rentals::terms_to_api(&profile.rental) });
    let data = json!({ "profile": name, "settings": settings });
    write
        .event(
            "profile.changed",
            (Object::Profile, Id::from_i64(0)),
            &format!("profile {name} changed"),
            data,
        )
        .await?;
    let stored = stored::list(write.tx()).await?;
    write.commit().await?;
    Shelf { catalogue: is, stored, members }.tagged(&name)
}

/// Checks whether the API would accept this profile.
///
/// # Errors
/// Returns the fields that would be refused.
pub fn validate(name: &str, fields: Value) -> Validation {
    validation::of(fields, |body| parsed(name, body))
}

/// Returns a profile of these settings. `None`: the API would not accept it.
pub fn read(name: &str, fields: Value) -> Option<engine::Profile> {
    serde_json::from_value(fields).ok().and_then(|body| parsed(name, body).ok())
}

/// Checks whether the API would accept a change of a profile with regard to the gates of all profiles.
///
/// # Errors
/// Returns the field that would be refused.
pub fn validate_gates(was: &Catalogue, is: &Catalogue, changed: &str) -> Validation {
    validation::errors(gates_have_services(was, is, changed))
}

fn parsed(name: &str, body: ProfileSettings) -> Result<engine::Profile, Problem> {
    if is_builtin(name) {
        let detail = format!("{name} is built in: make a profile of another name that extends it");
        return Err(Problem::conflict("built_in", detail));
    }
    let mut fields = parse::Fields::default();
    fields.take("name", parse::name(name));
    fields.take("extends", extends(&body.extends));
    let summary = fields.take("summary", parse::title(body.summary));
    let rental = rentals::terms(&mut fields, "rental.", body.rental);
    fields.finish()?;
    let services = body.services.iter().map(|(service, value)| read_service(service, value));
    Ok(engine::Profile {
        name: name.to_owned(),
        summary: summary.unwrap_or_default(),
        extends: body.extends,
        services: services.collect::<Result<_, _>>()?,
        rental,
    })
}

/// # Errors
/// Returns 422 when the gate of the changed profile, or of one that extends it, names a service that this profile does not
/// have, or has switched off: its devices would never be handed over. What another profile lacked before is no obstacle.
fn gates_have_services(was: &Catalogue, is: &Catalogue, changed: &str) -> Result<(), Problem> {
    for profile in is.profiles().map(|p| p.name.as_str()).filter(|name| is.descends(name, changed)) {
        let known = if profile == changed { BTreeSet::new() } else { lacked_by_gate(was, profile) };
        let Some(lacked) = lacked_by_gate(is, profile).into_iter().find(|name| !known.contains(name)) else {
            continue;
        };
        let has_other_gate = was.rental(&[profile]).gate != is.rental(&[profile]).gate;
        let field = if profile == changed || has_other_gate { "rental.gate" } else { "services" };
        let shown: String = lacked.chars().take(80).collect();
        let services = checked_by(is, profile).into_iter().collect::<Vec<_>>().join(", ");
        let detail =
            format!("the gate of {profile} names the service {shown:?}, and {profile} has only {services}");
        return Err(Problem::invalid(field, detail));
    }
    Ok(())
}

/// Returns the services that the gate of a profile names, inherited or not, and the profile does not have.
fn lacked_by_gate(catalogue: &Catalogue, profile: &str) -> BTreeSet<String> {
    let gate = catalogue.rental(&[profile]).gate.flatten();
    let named = gate.and_then(|gate| gate.services).unwrap_or_default();
    named.difference(&checked_by(catalogue, profile)).cloned().collect()
}

/// Returns the services of a profile that are checked.
pub fn checked_by(catalogue: &Catalogue, profile: &str) -> BTreeSet<String> {
    let services = catalogue.services(&[profile]).into_iter();
    let checked = services.filter(|service| service.check.is_some() && !service.disabled);
    checked.map(|service| service.service).collect()
}

fn extends(names: &[String]) -> Result<(), String> {
    if names.len() > MAX_EXTENDS {
        return Err(format!("at most {MAX_EXTENDS} profiles can be extended"));
    }
    Ok(())
}

fn read_service(service: &str, value: &Value) -> Result<engine::ServiceOverride, Problem> {
    let wrong = |e: definition::FieldError| {
        let at = format!("services.{service}.{}", e.field);
        Problem::invalid(at.trim_end_matches('.'), e.detail)
    };
    definition::parse_new_service(service, value).map_err(wrong)
}

/// Returns the present profiles if they fit together.
///
/// # Errors
/// Returns 422 with the field that causes the conflict.
pub(super) async fn fits(conn: &mut SqliteConnection) -> Result<Catalogue, Problem> {
    stored::catalogue(conn).await.map_err(|error| match error.downcast::<BadCatalogue>() {
        Ok(bad) => Problem::invalid(field_of(&bad), bad.to_string()),
        Err(error) => error.into(),
    })
}

fn field_of(bad: &BadCatalogue) -> String {
    match bad {
        BadCatalogue::Unknown(..) => "profile".to_owned(),
        BadCatalogue::UnknownParent { .. } | BadCatalogue::Cycle(..) => "extends".to_owned(),
        BadCatalogue::NoCheck { service, .. } => format!("services.{service}.check"),
        BadCatalogue::TooMany(_) => "services".to_owned(),
    }
}

/// # Errors
/// Returns 422 when a host is to name an unknown profile. An empty name means none.
pub(super) async fn must_exist(conn: &mut SqliteConnection, name: &str) -> Result<(), Problem> {
    if name.is_empty() {
        return Ok(());
    }
    let catalogue = stored::catalogue(conn).await?;
    catalogue.known(name).map(drop).map_err(|e| Problem::invalid("profile", e.to_string()))
}

/// Removes a profile that nothing uses.
#[utoipa::path(delete, path = "/profiles/{profile}", operation_id = "remove_profile", tag = "monitoring",
    security(("token" = ["monitoring:operator"])),
    params(("profile" = String, Path),
        ("If-Match" = Option<String>, Header, description = "the ETag that the removal is meant for"),
        ("Fleetgate-Manager" = Option<String>, Header, description = "the program that manages it")),
    responses((status = 204)))]
async fn remove(
    State(app): State<AppState>,
    who: Principal,
    manager: Manager,
    Path(name): Path<String>,
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    let mut write = ApiTx::begin(&app, &who).await?;
    let shelf = Shelf::load(write.tx()).await?;
    let shown = shelf.tagged(&name)?;
    if shown.value.builtin {
        return Err(Problem::conflict("built_in", format!("{name} is built in and stays")));
    }
    if_match.check(shown.version)?;
    is_unused(&shelf, write.tx(), &name).await?;
    if let Some(gone) = shelf.stored.iter().find(|s| s.profile.name == name) {
        write.removed((Removable::Profile, &name), &gone.managed, &manager).await?;
    }
    stored::remove(write.tx(), &name).await?;
    let data = json!({ "profile": name });
    write
        .event(
            "profile.removed",
            (Object::Profile, Id::from_i64(0)),
            &format!("profile {name} removed"),
            data,
        )
        .await?;
    write.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn is_unused(shelf: &Shelf, conn: &mut SqliteConnection, name: &str) -> Result<(), Problem> {
    let catalogue = &shelf.catalogue;
    let hosts = shelf.members.iter().filter(|m| goes_by(m, catalogue, name)).map(|m| m.name.as_str());
    let heirs = catalogue.profiles().filter(|p| p.extends.iter().any(|e| e == name)).map(|p| p.name.as_str());
    let mut uses = Vec::new();
    uses.extend(named("hosts", hosts.collect()));
    uses.extend(named("profiles that extend it", heirs.collect()));
    if catalogue.rules().iter().any(|rule| rule.profile == name) {
        uses.push("a profile rule".to_owned());
    }
    let tokens = stored::tokens(conn, name).await?;
    uses.extend(named("enrolment tokens", tokens.iter().map(String::as_str).collect()));
    if uses.is_empty() {
        return Ok(());
    }
    Err(Problem::conflict("profile_in_use", format!("{name} is used by {}", uses.join("; "))))
}

fn named(what: &str, names: Vec<&str>) -> Option<String> {
    let shown = names[..names.len().min(MAX_NAMED)].join(", ");
    let more = names.len().saturating_sub(MAX_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!names.is_empty()).then(|| format!("{what}: {shown}{more}"))
}
