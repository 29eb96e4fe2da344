//! Profiles: named sets of services. The built-in ones are read-only.

use axum::Json;
use fleetgate_engine::monitor::profile::{self, Profile};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::auth::RequireViewer;
use super::model::{self, Page, ProfileService};
use crate::store::definition::check_kind;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Few enough for one page.
#[utoipa::path(get, path = "/profiles", operation_id = "list_profiles", tag = "monitoring",
    security(("token" = ["viewer"])), responses((status = 200, body = Page<model::Profile>)))]
async fn list(_: RequireViewer) -> Json<Page<model::Profile>> {
    Json(Page { items: profile::builtin().iter().map(wire).collect(), next: None })
}

fn wire(profile: &Profile) -> model::Profile {
    let service = |service: &profile::ProfileService| ProfileService {
        name: service.name.to_owned(),
        check: check_kind(&service.check).to_owned(),
        interval_s: service.interval.map(|i| i.as_secs_f64()),
    };
    model::Profile {
        name: profile.name.to_owned(),
        summary: profile.summary.to_owned(),
        services: profile.services.iter().map(service).collect(),
    }
}

#[cfg(test)]
mod tests {
    use crate::api::testing::TestApi;

    #[tokio::test]
    async fn the_built_in_profiles_are_listed() {
        let api = TestApi::new().await;
        let listed = api.viewer().get("/api/v1/profiles").await;
        let default = &listed.json["items"][0];
        assert_eq!(
            (default["name"].as_str(), default["services"][0]["name"].as_str()),
            (Some("default"), Some("tunnel"))
        );
    }
}
