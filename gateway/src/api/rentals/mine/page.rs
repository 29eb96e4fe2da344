//! The page that a renter's browser shows at the gateway's inner address: what the renter reaches, and why not.
//!
//! A WireGuard client says that it is connected, whatever passes. The tunnel alone says who asks, so the page needs no
//! login and shows no measured values. It is made here and runs no script.

use std::fmt::Write as _;
use std::net::IpAddr;

use axum::Router;
use axum::extract::{FromRequestParts, State};
use axum::http::header::{self, HeaderMap};
use axum::http::request::Parts;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use fleetgate_engine::time::Wall;
use jiff::tz::TimeZone;

use super::delayed;
use crate::api::AppState;
use crate::api::explain::reach_of_renter;
use crate::api::rentals::access_in_words;
use crate::api::request::client::Client;
use crate::api::response::layers;
use crate::api::response::problem::Problem;
use crate::sanitize::{escaped, harmless};
use crate::store::rentals::Rental;
use crate::store::rentals::mine::{self as stored, Visible};
use crate::store::rentals::renters::Renter;

/// Returns the routes of the page.
pub fn router(app: AppState) -> Router {
    let routes = Router::new().route("/", get(page)).route("/style.css", get(style));
    layers::wrap(routes, &app, layers::BODY_LIMIT).with_state(app)
}

/// The renter whose tunnel the request came through.
struct Reader {
    renter: Renter,
    visible: Visible,
}

impl FromRequestParts<AppState> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let Ok(client) = Client::from_request_parts(parts, app).await;
        let Client::Renter(peer) = client else {
            return Err(Problem::forbidden("no_tunnel", "this is for renters, through their tunnels"));
        };
        if !is_ours(&parts.headers, app) {
            // A name of others that leads to this address would let their script read the page.
            return Err(Problem::not_found("open this page by the address of the gateway"));
        }
        // The renter may have been removed after the backup.
        app.restore_must_be_confirmed().await?;
        let mut conn = app.store.reader().await?;
        let found = stored::of_renter(&mut conn, peer, crate::clock::wall()).await?;
        let (renter, visible) = found.ok_or_else(|| Problem::not_found("there is no such renter"))?;
        Ok(Reader { renter, visible })
    }
}

/// Whether the page was asked for by an address of the gateway.
fn is_ours(headers: &HeaderMap, app: &AppState) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let host = host.to_str().unwrap_or_default();
    let host = host.strip_suffix(":80").unwrap_or(host);
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.parse::<IpAddr>().is_ok_and(|host| app.config.pools().gateway().contains(&host))
}

async fn page(State(app): State<AppState>, reader: Reader) -> Result<Html<String>, Problem> {
    let Reader { renter, visible } = reader;
    let mut windows = Vec::new();
    for rental in shown(&app, &renter, visible).await? {
        let delays = match delayed(&app, visible, &rental).await? {
            // The filter is asked later than the database.
            none if none.is_empty() => "the device is not handed over yet".to_owned(),
            delays => delays.join("; "),
        };
        let of = (renter.id, renter.customer);
        let (is_open, why) = reach_of_renter(&app, of, (&rental, &delays), visible.now).await?;
        windows.push(Window::of(&rental, is_open, why, visible.now));
    }
    Ok(Html(rendered(&renter.name, &windows)))
}

/// Returns the rentals that admit the renter and have their addresses: those to come, the present ones, and those that
/// ended a short time ago. In the order of time.
async fn shown(app: &AppState, renter: &Renter, visible: Visible) -> Result<Vec<Rental>, Problem> {
    let mut all = stored::rentals(&mut *app.store.reader().await?, visible).await?;
    all.retain(|rental| rental.admits(renter.id, renter.customer) && rental.alias(visible.now).is_some());
    all.reverse();
    Ok(all)
}

/// A rental on the page.
struct Window {
    name: String,
    is_open: bool,
    why: String,
    addresses: Vec<String>,
    access: String,
    from: String,
    until: String,
}

impl Window {
    fn of(rental: &Rental, is_open: bool, why: String, now: Wall) -> Window {
        let zone = rental.time_zone.as_deref();
        let window = rental.life.window;
        Window {
            name: rental.name.clone(),
            is_open,
            why,
            addresses: rental.alias(now).map(super::addresses).unwrap_or_default(),
            access: access_in_words(&rental.access),
            from: time(window.from(), zone),
            until: time(window.until(), zone),
        }
    }
}

/// Formats a time in the zone of a rental, or else in UTC.
fn time(at: Wall, zone: Option<&str>) -> String {
    let zone = zone.and_then(|name| TimeZone::get(name).ok()).unwrap_or(TimeZone::UTC);
    let at = jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or_default();
    at.to_zoned(zone).strftime("%Y-%m-%d %H:%M %Z").to_string()
}

fn safe(text: &str) -> String {
    escaped(&harmless(text))
}

fn rendered(renter: &str, windows: &[Window]) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"refresh\" content=\"60\">\n<title>What {0} reaches</title>\n\
         <link rel=\"stylesheet\" href=\"/style.css\">\n</head>\n<body>\n<main>\n<h1>What {0} reaches</h1>\n",
        safe(renter)
    );
    if windows.is_empty() {
        page.push_str("<p>Nothing: no rental admits it now or later.</p>\n");
    }
    windows.iter().for_each(|window| section(&mut page, window));
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

fn section(page: &mut String, of: &Window) {
    let (class, state) = if of.is_open { ("open", "Open") } else { ("shut", "Not open") };
    let addresses: Vec<String> =
        of.addresses.iter().map(|address| format!("<code>{}</code>", safe(address))).collect();
    // Writing to a string does not fail.
    let _ = writeln!(
        page,
        "<section class=\"{class}\">\n<h2>{}</h2>\n<p><strong>{state}</strong>: {}</p>\n<dl>\n\
         <dt>Addresses</dt><dd>{}</dd>\n<dt>Ports</dt><dd>{}</dd>\n<dt>From</dt><dd>{}</dd>\n\
         <dt>Until</dt><dd>{}</dd>\n</dl>\n</section>",
        safe(&of.name),
        safe(&of.why),
        addresses.join("<br>"),
        safe(&of.access),
        safe(&of.from),
        safe(&of.until),
    );
}

/// The policy of all pages permits no style in the page itself.
const STYLE: &str = ":root { color-scheme: light dark; --ground: #fff; --text: #1c2024; --line: #d0d5da; \
--open: #18794e; --shut: #ad5700; }\n\
@media (prefers-color-scheme: dark) { :root { --ground: #16181b; --text: #e6e8ea; --line: #3a3f45; \
--open: #4cc38a; --shut: #ffa057; } }\n\
body { margin: 0; background: var(--ground); color: var(--text); font: 16px/1.5 system-ui, sans-serif; }\n\
main { max-width: 40rem; margin: 0 auto; padding: 1rem; }\n\
h1 { font-size: 1.375rem; } h2 { font-size: 1.125rem; margin: 0; }\n\
h1, h2, p, dd { overflow-wrap: anywhere; }\n\
section { border: 1px solid var(--line); border-left: 4px solid var(--shut); border-radius: 4px; \
padding: .75rem 1rem; margin: 1rem 0; }\n\
section.open { border-left-color: var(--open); }\n\
section strong { color: var(--shut); } section.open strong { color: var(--open); }\n\
p { margin: .25rem 0 .5rem; } dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; \
margin: 0; } dt { font-weight: 600; } dd { margin: 0; }\n";

async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(name: &str, is_open: bool, why: &str) -> Window {
        Window {
            name: name.to_owned(),
            is_open,
            why: why.to_owned(),
            addresses: vec!["10.112.0.65".to_owned(), "fd72::41".to_owned()],
            access: "icmp, tcp 22 443".to_owned(),
            from: time(Wall::from_millis(0), Some("Europe/Vienna")),
            until: time(Wall::from_millis(3_600_000), None),
        }
    }

    #[test]
    fn the_page_says_what_is_open_and_why_not() {
        let windows = [
            window("cam-1", true, "until 1970-01-01T01:00:00Z"),
            window("attic", false, "the rental begins at 1970-01-01T00:00:00Z"),
        ];
        let page = rendered("laptop", &windows);
        for part in [
            "<h1>What laptop reaches</h1>",
            "<section class=\"open\">\n<h2>cam-1</h2>\n<p><strong>Open</strong>: until 1970-01-01T01:00:00Z</p>",
            "<p><strong>Not open</strong>: the rental begins at 1970-01-01T00:00:00Z</p>",
            "<code>10.112.0.65</code><br><code>fd72::41</code>",
            "<dd>icmp, tcp 22 443</dd>",
            "<dd>1970-01-01 01:00 CET</dd>",
            "<dd>1970-01-01 01:00 UTC</dd>",
        ] {
            assert!(page.contains(part), "{part} in {page}");
        }
        assert!(rendered("laptop", &[]).contains("no rental admits it"));
    }

    #[test]
    fn a_name_is_no_markup_and_the_page_has_no_script() {
        let page = rendered("<img src=x onerror=alert(1)>\u{202e}", &[window("<script>", false, "\"&'")]);
        assert!(!page.contains("<img") && !page.contains("<script") && !page.contains('\u{202e}'), "{page}");
        assert!(page.contains("&lt;script&gt;") && page.contains("&quot;&amp;&#39;"), "{page}");
    }
}
