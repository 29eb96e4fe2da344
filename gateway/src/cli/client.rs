//! The connection to a gateway: by its socket on the same machine, or by URL and token.

use anyhow::{Context as _, bail};
use reqwest::{Method, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::options::Given;
use super::{Connection, advice};
use crate::api::MANAGER_HEADER;
use crate::clock;
use crate::data_dir;

/// The demo's data directory.
pub(super) const DEMO: &str = "fleetgate-demo";
/// Any host name works behind the socket.
const LOCAL_BASE: &str = "http://localhost";
/// An answer of another form: usually another version.
const UNEXPECTED: &str = "unexpected answer: do gateway and command line have the same version?";
/// The largest answer: a page of a list has at most 5 MB.
const MOST: usize = 64 * 1024 * 1024;
/// Patience with one answer; event streams have none of their own.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
/// Interval between the attempts of a call that finds the gateway busy.
const BUSY_INTERVAL: std::time::Duration = std::time::Duration::from_millis(500);
/// The largest message of a WebSocket, which is the gateway's limit too.
const MAX_MESSAGE: usize = 64 * 1024;

/// An open WebSocket.
pub(crate) type Socket = WebSocketStream<reqwest::Upgraded>;

pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
    /// The manager of the writes. `None` means a person.
    manager: Option<String>,
    /// The place to name if the gateway does not respond.
    place: String,
    /// How long a call is repeated while the gateway refuses it with 503, which has changed nothing.
    busy: std::time::Duration,
    pub json: bool,
}

impl Client {
    pub fn new(to: &Connection) -> anyhow::Result<Client> {
        Client::build(to, reqwest::Client::builder())
    }

    /// Returns a client for WebSockets, which HTTP/2 does not have.
    pub fn over_http1(to: &Connection) -> anyhow::Result<Client> {
        Client::build(to, reqwest::Client::builder().http1_only())
    }

    fn build(to: &Connection, builder: reqwest::ClientBuilder) -> anyhow::Result<Client> {
        let builder = builder.connect_timeout(PATIENCE);
        if let Some(url) = &to.url {
            if to.token.is_none() {
                bail!(
                    "--url needs a token: create one on the server with `fleetgate token create NAME`, and set FLEETGATE_TOKEN"
                );
            }
            return Ok(Client {
                http: builder.build()?,
                base: url.trim_end_matches('/').to_owned(),
                token: to.token.clone(),
                manager: None,
                place: url.clone(),
                busy: std::time::Duration::ZERO,
                json: to.json,
            });
        }
        let socket = find_socket(to)?;
        Ok(Client {
            manager: None,
            place: socket.display().to_string(),
            busy: std::time::Duration::ZERO,
            http: builder.unix_socket(socket).build()?,
            base: LOCAL_BASE.to_owned(),
            token: to.token.clone(),
            json: to.json,
        })
    }

    /// Returns the client for a program that manages its writes.
    pub fn managed_by(self, name: &str) -> Client {
        Client { manager: Some(name.to_owned()), ..self }
    }

    /// Returns the client for a program that waits for a busy gateway.
    pub fn patient(self, busy: std::time::Duration) -> Client {
        Client { busy, ..self }
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<T> {
        let response = self.send(Method::GET, path, query, None).await?;
        read(response).await
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> anyhow::Result<T> {
        let response = self.send(Method::POST, path, &[], Some(body)).await?;
        read(response).await
    }

    /// Sends a POST with a key. A repetition with the same key has no further effect.
    pub async fn post_once<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
        key: &str,
    ) -> anyhow::Result<T> {
        let request = self.request(Method::POST, path)?.json(body).timeout(PATIENCE);
        let response = self.judged(request.header("idempotency-key", key)).await?;
        read(response).await
    }

    /// Sends a request whose response has no body.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<()> {
        self.send(method, path, &[], body).await.map(drop)
    }

    /// Changes a resource, provided that its version is the one just read.
    pub async fn patch(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let current = self.send(Method::GET, path, &[], None).await?;
        let mut request = self.request(Method::PATCH, path)?.json(body).timeout(PATIENCE);
        if let Some(etag) = current.headers().get("etag") {
            request = request.header("if-match", etag.clone());
        }
        let response = self.judged(request).await?;
        read(response).await
    }

    /// Writes a resource. A given version must be the present one.
    pub async fn write(
        &self,
        method: Method,
        path: &str,
        body: &Value,
        version: Option<i64>,
    ) -> anyhow::Result<Value> {
        let request = self.request(method, path)?.json(body).timeout(PATIENCE);
        let response = self.judged(only_at(request, version)).await?;
        read(response).await
    }

    /// Replaces a resource. A given version must be the present one.
    pub async fn put(&self, path: &str, body: &Value, version: Option<i64>) -> anyhow::Result<Value> {
        self.write(Method::PUT, path, body, version).await
    }

    /// Removes a resource. A given version must be the present one.
    pub async fn delete(&self, path: &str, version: Option<i64>) -> anyhow::Result<()> {
        let request = self.request(Method::DELETE, path)?.timeout(PATIENCE);
        self.judged(only_at(request, version)).await.map(drop)
    }

    /// Removes a resource together with what depends on it. A given version must be the present one.
    pub async fn delete_cascade(&self, path: &str, version: Option<i64>) -> anyhow::Result<()> {
        let request = self.request(Method::DELETE, path)?.query(&[("cascade", "true")]).timeout(PATIENCE);
        self.judged(only_at(request, version)).await.map(drop)
    }

    /// Opens a stream of server-sent events.
    pub async fn stream(&self, path: &str) -> anyhow::Result<Response> {
        self.judged(self.request(Method::GET, path)?).await
    }

    /// Opens a WebSocket. A refusal is a problem document, as that of any other call.
    pub async fn websocket(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<Socket> {
        let key = generate_key();
        let request = self.request(Method::GET, path)?.query(query);
        let request = request.header("connection", "upgrade").header("upgrade", "websocket");
        let request = request.header("sec-websocket-version", "13").header("sec-websocket-key", &key);
        let sent = tokio::time::timeout(PATIENCE, request.send()).await;
        let sent =
            sent.with_context(|| format!("{}: no answer within {} s", self.place, PATIENCE.as_secs()))?;
        let response = sent.map_err(|e| self.unreachable(&e))?;
        let status = response.status();
        if status.is_client_error() || status.is_server_error() {
            return Err(Refused::of(status, read(response).await.unwrap_or_default()).into());
        }
        let accept = response.headers().get("sec-websocket-accept").map(|value| value.as_bytes());
        let is_ours = accept == Some(derive_accept_key(key.as_bytes()).as_bytes());
        anyhow::ensure!(status == StatusCode::SWITCHING_PROTOCOLS && is_ours, UNEXPECTED);
        let config = WebSocketConfig::default();
        let config = config.max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
        Ok(WebSocketStream::from_raw_socket(response.upgrade().await?, Role::Client, Some(config)).await)
    }

    /// Uploads a whole file, without a time limit.
    pub async fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        file: tokio::fs::File,
        size: u64,
    ) -> anyhow::Result<T> {
        let body = reqwest::Body::wrap_stream(tokio_util::io::ReaderStream::new(file));
        let request = self.request(Method::POST, path)?.body(body);
        let request =
            request.header("content-type", "application/octet-stream").header("content-length", size);
        let response = self.judged(request).await?;
        read(response).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<&Value>,
    ) -> anyhow::Result<Response> {
        let mut request = self.request(method, path)?.query(query).timeout(PATIENCE);
        if let Some(body) = body {
            request = request.json(body);
        }
        self.judged(request).await
    }

    fn request(&self, method: Method, path: &str) -> anyhow::Result<reqwest::RequestBuilder> {
        let mut request = self.http.request(method, self.address(path)?);
        if let Some(manager) = &self.manager {
            request = request.header(MANAGER_HEADER, manager);
        }
        Ok(match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        })
    }

    /// Returns the URL of a path of the API. A path has names that a person typed: each part is encoded, so
    /// that `cam#7` is not the host `cam`, and a part that would lead elsewhere is refused.
    fn address(&self, path: &str) -> anyhow::Result<Url> {
        let base = format!("{}/api/v1", self.base);
        let mut url = Url::parse(&base).with_context(|| format!("--url {}: no URL", self.place))?;
        let parts: Vec<String> = path.split('/').skip(1).map(name).collect();
        if let Some(dots) = parts.iter().find(|part| matches!(part.as_str(), "." | "..")) {
            bail!("{dots:?} names nothing");
        }
        let mut whole =
            url.path_segments_mut().map_err(|()| anyhow::anyhow!("--url {}: no http URL", self.place))?;
        whole.extend(parts);
        drop(whole);
        Ok(url)
    }

    async fn judged(&self, mut request: reqwest::RequestBuilder) -> anyhow::Result<Response> {
        let until = clock::now().mono + self.busy;
        loop {
            // A body that is streamed cannot be sent again.
            let again = request.try_clone();
            let response = request.send().await.map_err(|e| self.unreachable(&e))?;
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            let is_busy = status == StatusCode::SERVICE_UNAVAILABLE && clock::now().mono < until;
            request = match again {
                Some(again) if is_busy => again,
                _ => return Err(Refused::of(status, read(response).await.unwrap_or_default()).into()),
            };
            tokio::time::sleep(BUSY_INTERVAL).await;
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> anyhow::Error {
        if error.is_timeout() {
            return anyhow::anyhow!("{}: no answer within {} s", self.place, PATIENCE.as_secs());
        }
        let (place, cause) = (&self.place, root_cause(error));
        match tls_error(error) {
            Some(rustls::Error::InvalidMessage(_)) => {
                anyhow::anyhow!("{place}: this port does not speak TLS: use http:// ({cause})")
            }
            Some(rustls::Error::InvalidCertificate(
                rustls::CertificateError::UnknownIssuer | rustls::CertificateError::Other(_),
            )) => anyhow::anyhow!(
                "{place}: the certificate is refused ({cause}): if its authority is your own, let this \
                 system trust it, or name its file in SSL_CERT_FILE (Linux)"
            ),
            Some(_) => anyhow::anyhow!("{place}: the TLS connection failed: {cause}"),
            None if self.base == LOCAL_BASE => anyhow::anyhow!(
                "no gateway answers at {place}: start `fleetgate serve`, or name its data directory with \
                 --data ({cause})"
            ),
            None => anyhow::anyhow!(
                "no gateway answers at {place}: is `fleetgate serve` running there? ({cause})"
            ),
        }
    }
}

/// Makes a path of the API with names that a person typed, as in `api_path!("/hosts/{}/settings", host)`. Each name is one
/// part: with `format!`, `host remove cam/services/disk` would reset a service.
macro_rules! api_path {
    ($form:literal, $($name:expr),+ $(,)?) => {
        format!($form, $($crate::cli::client::part(&$name)),+)
    };
}
pub(crate) use api_path;

/// Returns the path of a host or one of its services. `cam-07/disk` is a service too, as in the
/// log.
pub(super) fn path_of(host: &str, service: Option<&str>) -> String {
    match (service, host.split_once('/')) {
        (Some(service), _) => api_path!("/hosts/{}/services/{}", host, service),
        (None, Some((host, service))) => api_path!("/hosts/{}/services/{}", host, service),
        (None, None) => api_path!("/hosts/{}", host),
    }
}

/// Returns a name with a slash as a part of a path, such as the reference of a customer.
pub(crate) fn part(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2F")
}

/// Returns the name that [`part`] was made of.
fn name(part: &str) -> String {
    part.replace("%2F", "/").replace("%25", "%")
}

/// Reads an answer with a limit: the gateway of a URL may be another program.
async fn read<T: DeserializeOwned>(mut response: Response) -> anyhow::Result<T> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.context(UNEXPECTED)? {
        if bytes.len() + chunk.len() > MOST {
            bail!("the answer is larger than {} MiB: is this URL a gateway?", MOST / 1024 / 1024);
        }
        bytes.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&bytes).context(UNEXPECTED)
}

fn only_at(request: reqwest::RequestBuilder, version: Option<i64>) -> reqwest::RequestBuilder {
    match version {
        Some(version) => request.header("if-match", format!("\"{version}\"")),
        None => request,
    }
}

/// Returns the innermost cause of an error, which says what happened.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Returns the error of TLS behind an error, if there is one.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    // An I/O error hides the error that it carries from the chain of sources.
    let next =
        |error: &&'a (dyn std::error::Error + 'static)| -> Option<&'a (dyn std::error::Error + 'static)> {
            match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
                Some(carried) => Some(carried),
                None => error.source(),
            }
        };
    std::iter::successors(Some(error), next).find_map(|error| error.downcast_ref::<rustls::Error>())
}

/// Returns the socket in the given data directory, or that of this user's running gateway: `serve`
/// before `demo`.
pub(super) fn find_socket(to: &Connection) -> anyhow::Result<std::path::PathBuf> {
    let serve = data_dir::default_path(to.data.clone(), "fleetgate")?.join(data_dir::SOCKET);
    let demo = data_dir::default_path(to.data.clone(), DEMO)?.join(data_dir::SOCKET);
    Ok(if !serve.exists() && demo.exists() { demo } else { serve })
}

/// The gateway's refusal: a problem document.
#[derive(Debug)]
pub(crate) struct Refused {
    pub document: Value,
    /// The options that the text names in place of fields.
    given: Given,
}

impl Refused {
    /// Converts an error response. A proxy in between may respond with something else.
    fn of(status: StatusCode, body: Value) -> Self {
        if problem_text(&body, &Given::default()).is_some() {
            return Refused::new(body);
        }
        let detail = format!("the gateway answered {status}");
        Refused::new(json!({ "title": "Refused", "status": status.as_u16(), "detail": detail }))
    }

    pub fn new(document: Value) -> Self {
        Refused { document, given: Given::default() }
    }

    /// Lets a refusal name the options that a person typed. The document stays as the gateway sent it.
    pub fn in_options(mut error: anyhow::Error, given: Given) -> anyhow::Error {
        if let Some(refused) = error.downcast_mut::<Refused>() {
            refused.given = given;
        }
        error
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&advice::as_commands(&problem_text(&self.document, &self.given).unwrap_or_default()))
    }
}

impl std::error::Error for Refused {}

/// Formats a problem document in one line, followed by field errors.
fn problem_text(body: &Value, given: &Given) -> Option<String> {
    let detail = body.get("detail").or_else(|| body.get("title"))?.as_str()?;
    let errors = body.get("errors").and_then(Value::as_array).into_iter().flatten();
    let errors: Vec<(&str, &str)> =
        errors.filter_map(|e| Some((e.get("field")?.as_str()?, e.get("detail")?.as_str()?))).collect();
    let words =
        |(field, detail): &(&str, &str)| format!("{}: {detail}", given.option(field).unwrap_or(field));
    // The gateway repeats the first field in the detail of the whole.
    let first = errors.first().filter(|(field, of)| detail == format!("{field}: {of}"));
    let detail = first.map_or_else(|| query_text(body, detail, given), words);
    let fields: Vec<String> = errors.iter().map(words).collect();
    Some(if fields.len() < 2 { detail } else { format!("{detail} ({})", fields.join("; ")) })
}

/// Names options in place of query parameters, which a refusal has at its begin and in backticks.
fn query_text(body: &Value, detail: &str, given: &Given) -> String {
    let (name, said) = match detail.split_once(": ") {
        Some(parts) if body["code"] == "bad_query" => parts,
        _ => return detail.to_owned(),
    };
    let option = |name: &str| given.option(name).unwrap_or(name).to_owned();
    let in_backticks = |at: usize| at % 2 == 1;
    let part = |(at, text): (usize, &str)| if in_backticks(at) { option(text) } else { text.to_owned() };
    let said: Vec<String> = said.split('`').enumerate().map(part).collect();
    format!("{}: {}", option(name), said.join("`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refusal(url: Option<String>, data: Option<std::path::PathBuf>) -> String {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let to = Connection { data, url, token: Some("fgt_x".into()), json: false };
        let client = Client::new(&to).expect("a client");
        client.get::<Value>("/gateway", &[]).await.expect_err("no gateway answers").to_string()
    }

    /// Serves two refusals with 503, then an answer, and returns its URL.
    async fn busy_gateway() -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move {
            for status in ["503 Service Unavailable", "503 Service Unavailable", "200 OK"] {
                let (mut stream, _) = listener.accept().await.expect("a call");
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let answer =
                    format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}");
                stream.write_all(answer.as_bytes()).await.expect("it is sent");
            }
        });
        url
    }

    #[tokio::test]
    async fn a_patient_client_repeats_what_a_busy_gateway_refuses() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = |url| {
            let to = Connection { data: None, url: Some(url), token: Some("fgt_x".into()), json: false };
            Client::new(&to).expect("a client")
        };
        let refused = client(busy_gateway().await).post::<Value>("/people", &json!({})).await;
        assert!(refused.expect_err("it is busy").to_string().contains("503"));
        let patient = client(busy_gateway().await).patient(PATIENCE);
        patient.post::<Value>("/people", &json!({})).await.expect("the third attempt");
    }

    #[test]
    fn a_name_leads_to_no_other_object() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = Some("https://fleet.example.com/gate/".to_owned());
        let to = Connection { data: None, url, token: Some("fgt_x".into()), json: false };
        let client = Client::new(&to).expect("a client");
        let path = |path: &str| client.address(path).map(|url| url.to_string());
        let (base, cam) = ("https://fleet.example.com/gate/api/v1", String::from("cam"));
        for (typed, sent) in [
            ("/hosts/cam-07/services/disk", "/hosts/cam-07/services/disk"),
            ("/operators/a#b", "/operators/a%23b"),
            ("/hosts/cam?cascade=true", "/hosts/cam%3Fcascade=true"),
            ("/hosts/a%2fb c", "/hosts/a%252fb%20c"),
            (&format!("/customers/{}", part("crm/17%2F")), "/customers/crm%2F17%252F"),
            (&api_path!("/hosts/{}/settings", "cam/services/disk"), "/hosts/cam%2Fservices%2Fdisk/settings"),
            (&api_path!("/hosts/{}/services/{}", cam, "a%2Fb"), "/hosts/cam/services/a%252Fb"),
        ] {
            assert_eq!(path(typed).expect("a URL"), format!("{base}{sent}"));
        }
        for elsewhere in ["/operators/../hosts/cam-07", "/hosts/."] {
            path(elsewhere).expect_err(elsewhere);
        }
    }

    #[tokio::test]
    async fn an_error_of_tls_is_no_gateway_that_does_not_run() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 No\r\n\r\n").await;
            }
        });
        let said = refusal(Some(format!("https://{address}")), None).await;
        assert!(said.contains("does not speak TLS: use http://") && !said.contains("running"), "{said}");
        let closed = refusal(Some("http://127.0.0.1:1".into()), None).await;
        assert!(closed.contains("is `fleetgate serve` running there?"), "{closed}");
    }

    #[tokio::test]
    async fn a_gateway_of_another_data_directory_is_looked_for_with_an_option() {
        let dir = tempfile::tempdir().expect("a folder");
        let said = refusal(None, Some(dir.path().to_owned())).await;
        assert!(said.contains("start `fleetgate serve`") && said.contains("--data"), "{said}");
    }
}
