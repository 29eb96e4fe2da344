//! The checks of a request before its handler, in one layer, because each layer costs every request.

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::response::{IntoResponse as _, Response};

use super::permission::{self, Reading, Rule};
use super::query;
use crate::api::AppState;
use crate::api::response::around::{self, Around, Below};
use crate::api::response::etag;
use crate::api::response::layers::OpenRoute;
use crate::api::response::problem::Problem;
use crate::store::Trouble;

/// Checks permission, room on the disk, query parameters and conditions.
#[derive(Clone)]
pub struct Checks(pub AppState);

impl Around for Checks {
    async fn around<S: Below>(self, request: Request, below: S) -> Response {
        let request = match checked(&self.0, request).await {
            Ok(request) => request,
            Err(problem) => return problem.into_response(),
        };
        let is_open = request.extensions().get::<Rule>().is_none();
        let reading = request.extensions().get::<Reading>().cloned();
        let mut response = around::run(below, request).await;
        drop(reading);
        if is_open {
            response.extensions_mut().insert(OpenRoute);
        }
        response
    }
}

/// # Errors
/// Returns the problem that the first failed check found.
async fn checked(app: &AppState, request: Request) -> Result<Request, Problem> {
    let request = permission::check(app, request).await?;
    if needs_room(&request) && !app.store.has_space() {
        return Err(Trouble::Full.into());
    }
    query::check(&request)?;
    etag::check(&request)?;
    Ok(request)
}

/// Whether the request may make the databases larger. On a full disk, people can still log in and remove what they do
/// not need.
fn needs_room(request: &Request) -> bool {
    let method = request.method();
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str).unwrap_or_default();
    let is_login = path.contains("/session") || path.ends_with("/my/login") || path.ends_with("/my/logout");
    !method.is_safe() && method != Method::DELETE && !is_login
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::api::testing::TestApi;

    #[tokio::test]
    async fn a_disk_without_its_reserve_takes_no_change_but_a_removal_and_a_login() {
        let api = TestApi::with_endpoint().await;
        let cam = json!({ "name": "cam" });
        assert_eq!(api.operator().post("/api/v1/devices", cam.clone()).await.status, 201);
        api.state.store.set_reserve(u64::MAX);
        for (path, body) in [("devices", json!({ "name": "nas" })), ("contacts", json!({ "name": "ops" }))] {
            let refused = api.admin().post(&format!("/api/v1/{path}"), body).await;
            assert_eq!((refused.status, refused.code()), (507, "disk_full"), "{path}: {}", refused.text);
            assert!(
                refused.text.contains("disk is full or nearly full; nothing was changed. Free some space")
            );
        }
        let changed = api.operator().patch("/api/v1/devices/cam", json!({ "notes": "x" })).await;
        assert_eq!(changed.code(), "disk_full");
        assert_eq!(api.anonymous().post("/api/v1/devices", cam).await.status, 401, "strangers learn nothing");
        assert_eq!(api.viewer().get("/api/v1/devices/cam").await.status, 200);
        let login = json!({ "name": "nobody", "password": "wrong" });
        assert_ne!(api.anonymous().post("/api/v1/session", login).await.status, 507);
        assert!(api.operator().delete("/api/v1/devices/cam").await.status < 300);
        api.state.store.set_reserve(0);
        assert_eq!(api.operator().post("/api/v1/devices", json!({ "name": "nas" })).await.status, 201);
    }
}
