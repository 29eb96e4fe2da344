//! The dashboard's files, embedded by `build.rs`. It serves them exactly as built. Files with a hash in
//! their name may be cached for ever; all others are revalidated. A page runs no script and no style
//! but its own. It does not know the API, nor whether the client is logged in: the pages contain no
//! data.

use std::borrow::Cow;

use axum::Router;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// `img-src data:` is for QR codes, which arrive as SVG and are shown as images, never as markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; \
                      frame-ancestors 'none'";
/// One year, the longest that caches honour. The name changes with the content.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
const ASK_AGAIN: &str = "no-cache";
const HASHED: &str = "assets/";
const INDEX: &str = "index.html";
const NOTICE: &str = "This fleetgate was built without its dashboard. The API is at /api/v1, its description at \
                      /api/v1/docs/, and `fleetgate status` shows the fleet in a terminal.\n";

/// A file of the dashboard.
struct Asset {
    name: &'static str,
    /// A digest of the content.
    tag: &'static str,
    body: &'static [u8],
    gzip: Option<&'static [u8]>,
}

static ASSETS: &[Asset] = include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// Answers every path that no other route takes. `base`: where a proxy serves it, such as `/fleet`, or nothing.
pub fn router(base: String) -> Router {
    let serve = async move |uri: Uri, headers: HeaderMap| answer(ASSETS, &base, uri.path(), &headers);
    Router::new().fallback_service(get(serve))
}

fn answer(assets: &'static [Asset], base: &str, path: &str, headers: &HeaderMap) -> Response {
    match choose(assets, path.trim_start_matches('/')) {
        Some(asset) => send(asset, base, headers),
        None if assets.is_empty() && path == "/" => (plain(), NOTICE).into_response(),
        None => (StatusCode::NOT_FOUND, plain(), "there is nothing at this address\n").into_response(),
    }
}

/// Returns the file of that name, or the page for an address that the page itself routes.
fn choose(assets: &'static [Asset], path: &str) -> Option<&'static Asset> {
    let named = |name: &str| assets.iter().find(|asset| asset.name == name);
    named(path).or_else(|| if is_page(path) { named(INDEX) } else { None })
}

/// Whether the page routes this path. A dot in the last segment means a file, except below `hosts/`:
/// names of hosts contain dots.
fn is_page(path: &str) -> bool {
    let file = path.rsplit('/').next().is_some_and(|last| last.contains('.'));
    !path.starts_with("api/") && !path.starts_with(HASHED) && (!file || path.starts_with("hosts/"))
}

fn send(asset: &'static Asset, base: &str, headers: &HeaderMap) -> Response {
    let moved = asset.name == INDEX && !base.is_empty();
    let gzip = asset.gzip.filter(|_| takes_gzip(headers) && !moved);
    let place = if moved { base } else { "" };
    let tag = format!("\"{}{}{place}\"", asset.tag, if gzip.is_some() { "-gz" } else { "" });
    let cache = if asset.name.starts_with(HASHED) { FOR_EVER } else { ASK_AGAIN };
    let fixed = [(CACHE_CONTROL, cache), (VARY, "accept-encoding")];
    if knows(headers, &tag) {
        return (StatusCode::NOT_MODIFIED, fixed, [(ETAG, tag)]).into_response();
    }
    let body: Cow<'static, [u8]> = match gzip {
        _ if moved => Cow::Owned(below(base, asset.body)),
        packed => Cow::Borrowed(packed.unwrap_or(asset.body)),
    };
    let mut response =
        (fixed, [(ETAG, tag)], guards(), [(CONTENT_TYPE, media_type(asset.name))], body).into_response();
    if gzip.is_some() {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// The page, with its own files below the path that a proxy serves it under. Those find the rest by themselves.
fn below(base: &str, page: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(page).replace("=\"/", &format!("=\"{base}/")).into_bytes()
}

fn guards() -> [(HeaderName, &'static str); 3] {
    [(CONTENT_SECURITY_POLICY, POLICY), (X_CONTENT_TYPE_OPTIONS, "nosniff"), (REFERRER_POLICY, "no-referrer")]
}

fn plain() -> [(HeaderName, &'static str); 1] {
    [(CONTENT_TYPE, "text/plain; charset=utf-8")]
}

/// Whether `gzip` is listed without a weight of zero.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let listed = headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or("");
    listed.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or("");
        let refused =
            parts.any(|part| matches!(part.strip_prefix("q=").map(str::parse::<f32>), Some(Ok(0.0))));
        name.eq_ignore_ascii_case("gzip") && !refused
    })
}

fn knows(headers: &HeaderMap, tag: &str) -> bool {
    let listed = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or("");
    listed.split(',').any(|known| known.trim().trim_start_matches("W/") == tag)
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("webmanifest") => "application/manifest+json",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static SITE: &[Asset] = &[
        Asset { name: "index.html", tag: "1", body: b"<!doctype html>", gzip: Some(b"packed page") },
        Asset { name: "assets/index-abc.js", tag: "2", body: b"run()", gzip: None },
    ];

    fn asked(path: &str) -> Response {
        answer(SITE, "", path, &HeaderMap::new())
    }

    fn asked_with(path: &str, name: HeaderName, value: &'static str) -> Response {
        answer(SITE, "", path, &HeaderMap::from_iter([(name, value.parse().expect("a header"))]))
    }

    fn header(response: &Response, name: HeaderName) -> &str {
        response.headers().get(name).map_or("", |value| value.to_str().expect("text"))
    }

    #[test]
    fn a_hashed_name_may_be_kept_for_ever_and_the_page_is_asked_for_again() {
        assert_eq!(header(&asked("/assets/index-abc.js"), CACHE_CONTROL), FOR_EVER);
        assert_eq!(header(&asked("/"), CACHE_CONTROL), ASK_AGAIN);
    }

    #[tokio::test]
    async fn under_a_path_of_a_proxy_the_page_finds_its_files() {
        static PAGE: &[Asset] = &[
            Asset {
                name: "index.html",
                tag: "1",
                body: b"<script src=\"/assets/a.js\"></script>",
                gzip: Some(b"x"),
            },
            Asset { name: "assets/a.js", tag: "2", body: b"x=\"/\"", gzip: None },
        ];
        let wants_gzip = HeaderMap::from_iter([(ACCEPT_ENCODING, "gzip".parse().expect("a header"))]);
        let text = async |path: &str| {
            let response = answer(PAGE, "/fleet", path, &wants_gzip);
            let tag = header(&response, ETAG).to_owned();
            let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a body");
            (tag, String::from_utf8(body.to_vec()).expect("text"))
        };
        let page = "<script src=\"/fleet/assets/a.js\"></script>".to_owned();
        assert_eq!(text("/hosts/cam").await, ("\"1/fleet\"".to_owned(), page));
        assert_eq!(text("/assets/a.js").await, ("\"2\"".to_owned(), "x=\"/\"".to_owned()));
    }

    #[test]
    fn an_address_of_the_page_gets_the_page() {
        for path in ["/", "/login", "/my", "/hosts/cam-07", "/hosts/cam.site-7.example"] {
            let response = asked(path);
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            assert_eq!(header(&response, CONTENT_TYPE), "text/html; charset=utf-8");
        }
    }

    #[test]
    fn what_looks_like_a_file_or_the_api_does_not_get_the_page() {
        for path in ["/favicon.ico", "/assets/old-hash.js", "/assets/x", "/api/v1/nothing", "/.env"] {
            assert_eq!(asked(path).status(), StatusCode::NOT_FOUND, "{path}");
        }
    }

    #[test]
    fn a_page_runs_no_foreign_script_and_stands_in_no_frame() {
        let page = asked("/");
        let policy = header(&page, CONTENT_SECURITY_POLICY);
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
        assert!(!policy.contains("unsafe"));
    }

    #[test]
    fn gzip_is_sent_to_those_who_take_it() {
        let packed = asked_with("/", ACCEPT_ENCODING, "br, gzip;q=0.8");
        assert_eq!(header(&packed, CONTENT_ENCODING), "gzip");
        assert_eq!(header(&packed, ETAG), "\"1-gz\"");
        let refused = asked_with("/", ACCEPT_ENCODING, "gzip;q=0, br");
        assert_eq!(header(&refused, CONTENT_ENCODING), "");
    }

    #[test]
    fn what_a_browser_has_is_not_sent_again() {
        let response = asked_with("/", IF_NONE_MATCH, "\"0\", W/\"1\"");
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(asked_with("/", IF_NONE_MATCH, "\"0\"").status(), StatusCode::OK);
    }

    #[test]
    fn a_program_without_its_dashboard_says_so() {
        assert_eq!(answer(&[], "", "/", &HeaderMap::new()).status(), StatusCode::OK);
        assert_eq!(answer(&[], "", "/login", &HeaderMap::new()).status(), StatusCode::NOT_FOUND);
    }
}
