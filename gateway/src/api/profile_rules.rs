//! The rules that select the profiles of hosts by their labels. A host with a profile of its own
//! ignores them.

use axum::extract::State;
use fleetgate_engine::id::Id;
use fleetgate_engine::monitor::profile;
use fleetgate_engine::notification::Selector;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::profiles::fits;
use super::request::auth::Principal;
use super::request::extract::Body;
use super::request::managed_by::{self, Manager};
use super::request::parse::{self, Fields};
use super::request::transaction::ApiTx;
use super::response::etag::{IfMatch, Tagged};
use super::response::problem::Problem;
use super::types::{Labels, Managed, names};
use crate::store::events::Object;
use crate::store::profiles as stored;

/// Rules are evaluated for every host. A larger fleet can use a label of its own for the selection.
const MAX_RULES: usize = 128;

/// The profiles of hosts without a profile of their own: those of all matching rules, a later one overriding those
/// before it; `default` if no rule matches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProfileRules {
    pub rules: Vec<ProfileRule>,
    #[serde(flatten)]
    pub managed: Managed,
    /// The same number as in the `ETag`.
    #[schema(minimum = 1)]
    pub version: i64,
}

/// The whole list, in order.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewProfileRules {
    pub rules: Vec<ProfileRule>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfileRule {
    /// A host must have all of them; `*` takes any value. Empty: every host.
    #[serde(default)]
    #[schema(value_type = names::Labels)]
    pub labels: Labels,
    pub profile: String,
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(show, put))
}

/// The profile rules, in order.
#[utoipa::path(get, path = "/profile-rules", operation_id = "show_profile_rules", tag = "monitoring",
    security(("token" = ["monitoring:viewer"])), responses((status = 200, body = ProfileRules)))]
async fn show(State(app): State<AppState>) -> Result<Tagged<ProfileRules>, Problem> {
    let mut conn = app.store.reader().await?;
    Ok(to_api(&stored::rules(&mut conn).await?))
}

fn to_api(rules: &stored::Rules) -> Tagged<ProfileRules> {
    let rule =
        |r: &profile::ProfileRule| ProfileRule { labels: r.selector.0.clone(), profile: r.profile.clone() };
    let value = ProfileRules {
        rules: rules.rules.iter().map(rule).collect(),
        managed: (&rules.managed).into(),
        version: rules.version,
    };
    Tagged { version: rules.version, value }
}

/// Replaces the whole list. It takes effect at once on every host whose profiles differ by it.
///
/// A list that changes how a device is rented also needs the scope `devices`.
#[utoipa::path(put, path = "/profile-rules", operation_id = "put_profile_rules", tag = "monitoring",
    security(("token" = ["monitoring:operator"])), request_body = NewProfileRules,
    params(("If-Match" = Option<String>, Header, description = "the ETag that the change is meant for"),
        ("Fleetgate-Manager" = Option<String>, Header, description = "the program that manages it")),
    responses((status = 200, body = ProfileRules)))]
async fn put(
    State(app): State<AppState>,
    who: Principal,
    manager: Manager,
    if_match: IfMatch,
    Body(body): Body<NewProfileRules>,
) -> Result<Tagged<ProfileRules>, Problem> {
    let rules = parsed(body)?;
    let mut write = ApiTx::begin(&app, &who).await?;
    let before = stored::rules(write.tx()).await?;
    if_match.check(before.version)?;
    let (was, principal) = (stored::catalogue(write.tx()).await?, write.by.clone());
    let managed = managed_by::after(Some(before.managed), manager.writer(&principal));
    stored::put_rules(write.tx(), &rules, &managed).await?;
    let is = fits(write.tx()).await?;
    write.resettle(&was, &is, None).await?;
    let after = stored::rules(write.tx()).await?;
    let data = json!({ "rules": to_api(&after).value.rules });
    let about = (Object::Profile, Id::from_i64(0));
    write.event("profile_rules.changed", about, "profile rules changed", data).await?;
    write.commit().await?;
    Ok(to_api(&after))
}

fn parsed(body: NewProfileRules) -> Result<Vec<profile::ProfileRule>, Problem> {
    if body.rules.len() > MAX_RULES {
        return Err(Problem::invalid("rules", format!("at most {MAX_RULES} rules are possible")));
    }
    let mut fields = Fields::default();
    let mut rules = Vec::with_capacity(body.rules.len());
    for (i, rule) in body.rules.into_iter().enumerate() {
        let labels = fields.take(&format!("rules[{i}].labels"), parse::labels(rule.labels));
        rules.push(profile::ProfileRule {
            selector: Selector(labels.unwrap_or_default()),
            profile: rule.profile,
        });
    }
    fields.finish()?;
    Ok(rules)
}
