//! Requests to one registry: encrypted where they must be, with the credentials that it asks for, and with those to nobody else.
//!
//! Follows <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>.

use std::collections::HashMap;
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use http::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use reqwest::{Body, Response, Url};
use serde::Deserialize;

use super::challenge::{self, Challenge, Scope};
use super::credentials::Login;
use super::settings::{self, Endpoint, Scheme};
use super::tls::{CertificateError, Certificates};

/// Why a request had no good answer.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("{method} {url}")]
    Request {
        method: Method,
        url: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("{}", .0)]
    Answer(Answer),
    #[error("unauthorized: authentication required")]
    Unauthorized,
    #[error("{realm} gives out tokens without encryption, and {host} asks to send the login there")]
    PlainRealm { host: String, realm: String },
    #[error("{url} sends on to {target}, which is not encrypted")]
    PlainRedirect { url: String, target: String },
    #[error("{0} sends on for ever")]
    Redirects(String),
    #[error("{url} does not answer as a registry does: {problem}")]
    Protocol { url: String, problem: &'static str },
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("cannot set up connections")]
    Setup(#[source] reqwest::Error),
    #[error("cannot read what is to be sent")]
    Source(#[source] std::io::Error),
}

/// An answer that says no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    /// What it says, in the words Docker prints it in: `code: message`.
    pub reasons: Vec<Reason>,
    pub retry_after: Option<Duration>,
}

/// One entry of a registry's `errors`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Reason {
    #[serde(default)]
    pub code: String,
    #[serde(default)]
    pub message: String,
}

impl std::fmt::Display for Reason {
    // docker/distribution registry/api/errcode: Error.Error
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let code = self.code.to_ascii_lowercase().replace('_', " ");
        match (code.as_str(), self.message.as_str()) {
            ("", message) => formatter.write_str(message),
            (code, "") => formatter.write_str(code),
            (code, message) => write!(formatter, "{code}: {message}"),
        }
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.reasons.is_empty() {
            write!(formatter, "received unexpected HTTP status: {}", self.status)?;
        }
        for (position, reason) in self.reasons.iter().enumerate() {
            let separator = if position == 0 { "" } else { ", " };
            write!(formatter, "{separator}{reason}")?;
        }
        match self.retry_after {
            Some(wait) => write!(formatter, " (it asks to try again in {} s)", wait.as_secs()),
            None => Ok(()),
        }
    }
}

impl TransportError {
    /// Returns whether the same request may succeed a little later.
    pub(super) fn is_temporary(&self) -> bool {
        match self {
            Self::Request { source, .. } => !source.is_builder() && !self.is_refused_connection(),
            Self::Answer(answer) => answer.status.is_server_error() || matches!(answer.status.as_u16(), 408 | 429),
            _ => false,
        }
    }

    /// A registry that is not there will not be there in a second either; the person should not wait to be told.
    fn is_refused_connection(&self) -> bool {
        matches!(self, Self::Request { source, .. } if source.is_connect())
    }

    /// Returns how long the registry asked to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Answer(answer) => answer.retry_after,
            _ => None,
        }
    }
}

/// A request; its body can be sent again when the registry asks for credentials first.
pub(super) struct Call<'c> {
    pub method: Method,
    pub url: Url,
    pub scope: &'c Scope,
    pub headers: HeaderMap,
    pub body: Option<&'c (dyn Fn() -> std::io::Result<Body> + Sync)>,
}

/// A connection to one registry.
pub(super) struct Transport {
    http: reqwest::Client,
    base: Url,
    host: String,
    /// Whether whoever answers is believed to be the registry.
    is_unverified: bool,
    login: Option<Login>,
    access: Mutex<Access>,
}

#[derive(Default)]
struct Access {
    challenge: Option<Challenge>,
    tokens: HashMap<Scope, Token>,
}

struct Token {
    header: HeaderValue,
    expires: Instant,
}

const MAX_REDIRECTS: usize = 10;
/// What a registry says when it refuses is not read further than this.
const MAX_REASON: usize = 64 * 1024;
const USER_AGENT: &str = concat!("compose/", env!("CARGO_PKG_VERSION"));

/// Chooses who does the cryptography, once.
pub(crate) fn use_tls() {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Someone else in the process may have chosen already, which is as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

impl Transport {
    /// Finds out how to speak to a registry, and what it asks for.
    pub(super) async fn connect(endpoint: &Endpoint, login: Option<Login>) -> Result<Self, TransportError> {
        use_tls();
        let certificates = Certificates::of(&endpoint.host)?;
        let schemes = match endpoint.schemes {
            // Whoever says whose signature to believe wants it checked.
            [_, _] | [Scheme::UnverifiedHttps] if certificates.has_authorities() => &[Scheme::Https],
            schemes => schemes,
        };
        let mut first = None;
        for (position, scheme) in schemes.iter().enumerate() {
            let transport = Self {
                http: client(*scheme, &certificates)?,
                base: base(*scheme, &endpoint.host)?,
                host: endpoint.host.clone(),
                is_unverified: *scheme == Scheme::UnverifiedHttps,
                login: login.clone(),
                access: Mutex::default(),
            };
            let is_last = position + 1 == schemes.len();
            match transport.ping().await {
                // What a server says that expects encryption.
                Ok(StatusCode::BAD_REQUEST) if *scheme == Scheme::Http && !is_last => {}
                Ok(_) => return Ok(transport),
                Err(error @ TransportError::Request { .. }) if !is_last => {
                    first.get_or_insert(error);
                }
                Err(error) => {
                    // Where the port is open the second way failed for a better reason than the first.
                    return Err(match first {
                        Some(first) if error.is_refused_connection() => first,
                        _ => error,
                    });
                }
            }
        }
        Err(first.unwrap_or_else(|| TransportError::Redirects(endpoint.host.clone())))
    }

    async fn ping(&self) -> Result<StatusCode, TransportError> {
        let url = self.url("")?;
        let response = exchange(&self.http, Method::GET, url, HeaderMap::new(), None).await?;
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED {
            self.access().challenge = challenge_of(&response);
        }
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(refusal(response).await);
        }
        Ok(status)
    }

    /// Returns the address of a path below `/v2/`.
    pub(super) fn url(&self, path: &str) -> Result<Url, TransportError> {
        let protocol = |_| TransportError::Protocol {
            url: format!("{}v2/{path}", self.base),
            problem: "that is no address",
        };
        self.base.join(&format!("v2/{path}")).map_err(protocol)
    }

    /// Sends a request and returns a good answer to it.
    pub(super) async fn send(&self, call: Call<'_>) -> Result<Response, TransportError> {
        let mut renewed = false;
        loop {
            let authorization = self.authorization(call.scope).await?;
            let (response, stayed) = self.follow(&call, authorization.as_ref()).await?;
            if response.status().is_success() || response.status() == StatusCode::NOT_MODIFIED {
                return Ok(response);
            }
            // What refuses on another host was not asked with our credentials, and gets none.
            if response.status() != StatusCode::UNAUTHORIZED || renewed || !stayed {
                return Err(refusal(response).await);
            }
            renewed = true;
            if !self.learn(&call, &response, authorization.is_some()) {
                return Err(refusal(response).await);
            }
        }
    }

    /// Remembers what a refusal asks for, and returns whether there is an answer to that which was not given yet.
    fn learn(&self, call: &Call<'_>, response: &Response, was_answered: bool) -> bool {
        let mut access = self.access();
        // A token that was good for this once has run out, or is not good for it.
        access.tokens.remove(call.scope);
        if let Some(challenge) = challenge_of(response) {
            access.challenge = Some(challenge);
        }
        match &access.challenge {
            Some(Challenge::Basic) => !was_answered && self.login.is_some(),
            Some(Challenge::Bearer { .. }) => true,
            None => false,
        }
    }

    /// Sends a request, and on to where the answer points. Says also whether the answer is the registry's own.
    async fn follow(
        &self,
        call: &Call<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<(Response, bool), TransportError> {
        let mut url = call.url.clone();
        for _ in 0..MAX_REDIRECTS {
            let stayed = is_same_origin(&url, &self.base);
            let mut headers = call.headers.clone();
            if let Some(authorization) = authorization.filter(|_| stayed) {
                headers.insert(AUTHORIZATION, authorization.clone());
            }
            let body = call
                .body
                .map(|make| make())
                .transpose()
                .map_err(TransportError::Source)?;
            let response = exchange(&self.http, call.method.clone(), url.clone(), headers, body).await?;
            let is_read = matches!(call.method, Method::GET | Method::HEAD);
            if !(is_read && response.status().is_redirection()) || response.status() == StatusCode::NOT_MODIFIED {
                return Ok((response, stayed));
            }
            let target = location(&response)?;
            let is_plain = target.scheme() == "http" && !settings::is_loopback(target.host_str().unwrap_or_default());
            if is_plain && url.scheme() == "https" {
                return Err(TransportError::PlainRedirect {
                    url: shown(&url),
                    target: shown(&target),
                });
            }
            url = target;
        }
        Err(TransportError::Redirects(shown(&call.url)))
    }

    /// Returns what asks for tokens where this connection must not: what listens on this machine need not prove who it is,
    /// but whoever it sends on to, elsewhere, gets the login.
    fn verifying(&self, realm: &Url) -> Result<Option<reqwest::Client>, TransportError> {
        let name = realm.host_str().unwrap_or_default();
        if !self.is_unverified || !settings::is_loopback(&self.host) || settings::is_loopback(name) {
            return Ok(None);
        }
        let host = match realm.port() {
            Some(port) => format!("{name}:{port}"),
            None => name.to_owned(),
        };
        client(Scheme::Https, &Certificates::of(&host)?).map(Some)
    }

    async fn authorization(&self, scope: &Scope) -> Result<Option<HeaderValue>, TransportError> {
        if let Some(Login::Token(token)) = &self.login {
            return Ok(secret(format!("Bearer {token}")));
        }
        let challenge = {
            let access = self.access();
            match access.tokens.get(scope) {
                Some(token) if token.expires > Instant::now() => return Ok(Some(token.header.clone())),
                _ => access.challenge.clone(),
            }
        };
        match challenge {
            None => Ok(None),
            Some(Challenge::Basic) => Ok(self.login.as_ref().and_then(basic)),
            Some(Challenge::Bearer { realm, service }) => {
                let token = self.token(&realm, service.as_deref(), scope).await?;
                let header = token.header.clone();
                self.access().tokens.insert(scope.clone(), token);
                Ok(Some(header))
            }
        }
    }

    /// Buys a token with the login, or asks for one that everybody gets.
    async fn token(&self, realm: &str, service: Option<&str>, scope: &Scope) -> Result<Token, TransportError> {
        #[derive(Deserialize)]
        struct Given {
            #[serde(default)]
            token: Option<String>,
            #[serde(default)]
            access_token: Option<String>,
            #[serde(default)]
            expires_in: Option<u64>,
        }
        let mut url = self.base.join(realm).map_err(|_| TransportError::Protocol {
            url: self.base.to_string(),
            problem: "the address it gives for tokens is none",
        })?;
        let is_plain = url.scheme() != "https" && !settings::is_loopback(url.host_str().unwrap_or_default());
        if is_plain && self.base.scheme() == "https" && self.login.is_some() {
            return Err(TransportError::PlainRealm {
                host: self.host.clone(),
                realm: shown(&url),
            });
        }
        let verifying = self.verifying(&url)?;
        let http = verifying.as_ref().unwrap_or(&self.http);
        let asked = Instant::now();
        let response = if let Some(Login::Identity(identity)) = &self.login {
            let form = {
                let mut form = url::form_urlencoded::Serializer::new(String::new());
                form.append_pair("grant_type", "refresh_token")
                    .append_pair("refresh_token", identity)
                    .append_pair("client_id", "compose")
                    .append_pair("scope", &scope.lines().join(" "));
                if let Some(service) = service {
                    form.append_pair("service", service);
                }
                form.finish()
            };
            let mut headers = HeaderMap::new();
            let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.insert(http::header::CONTENT_TYPE, kind);
            exchange(http, Method::POST, url.clone(), headers, Some(Body::from(form))).await?
        } else {
            {
                let mut query = url.query_pairs_mut();
                if let Some(service) = service {
                    query.append_pair("service", service);
                }
                for line in scope.lines() {
                    query.append_pair("scope", line);
                }
                if let Some(Login::Password { username, .. }) = &self.login {
                    query.append_pair("account", username);
                }
            }
            let mut headers = HeaderMap::new();
            if let Some(basic) = self.login.as_ref().and_then(basic) {
                headers.insert(AUTHORIZATION, basic);
            }
            exchange(http, Method::GET, url.clone(), headers, None).await?
        };
        if matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(TransportError::Unauthorized);
        }
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        let wrong = |problem| TransportError::Protocol {
            url: shown(&url),
            problem,
        };
        let bytes = beginning(response).await;
        let given: Given = serde_json::from_slice(&bytes).map_err(|_| wrong("that is no token"))?;
        let token = given.token.or(given.access_token).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| wrong("there is no token in it"))?;
        // As long as the specification says when the server does not; and not to its last second.
        let valid = Duration::from_secs(given.expires_in.unwrap_or(60).clamp(10, 24 * 3600) - 5);
        Ok(Token {
            header: secret(format!("Bearer {token}")).ok_or_else(|| wrong("the token has forbidden signs in it"))?,
            expires: asked + valid,
        })
    }

    fn access(&self) -> std::sync::MutexGuard<'_, Access> {
        // Every change of it is one assignment.
        self.access.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns where an answer says to go on.
pub(super) fn location(response: &Response) -> Result<Url, TransportError> {
    let target = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let target = target.and_then(|target| response.url().join(target).ok());
    target
        .filter(|target| matches!(target.scheme(), "http" | "https"))
        .ok_or_else(|| TransportError::Protocol {
            url: shown(response.url()),
            problem: "it sends on to nowhere",
        })
}

/// Reads what a registry says when it refuses.
pub(super) async fn refusal(response: Response) -> TransportError {
    #[derive(Deserialize)]
    struct Envelope {
        #[serde(default)]
        errors: Vec<Reason>,
    }
    let status = response.status();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| wait(value, jiff::Timestamp::now()));
    let envelope = serde_json::from_slice(&beginning(response).await);
    let mut reasons = envelope.map_or_else(|_| Vec::new(), |envelope: Envelope| envelope.errors);
    reasons.retain(|reason| !(reason.code.is_empty() && reason.message.is_empty()));
    TransportError::Answer(Answer {
        status,
        reasons,
        retry_after,
    })
}

/// Reads `Retry-After`: seconds, or a date.
fn wait(value: &str, now: jiff::Timestamp) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(value.trim()).ok()?.timestamp();
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

async fn beginning(mut response: Response) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < MAX_REASON
        && let Ok(Some(chunk)) = response.chunk().await
    {
        bytes.extend_from_slice(&chunk);
    }
    bytes
}

async fn exchange(
    http: &reqwest::Client,
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<Body>,
) -> Result<Response, TransportError> {
    let shown = shown(&url);
    let mut request = http.request(method.clone(), url).headers(headers);
    if let Some(body) = body {
        request = request.body(body);
    }
    request.send().await.map_err(|source| TransportError::Request {
        method,
        url: shown,
        // It would name the address again, with the signature that storage services put into it.
        source: source.without_url(),
    })
}

fn challenge_of(response: &Response) -> Option<Challenge> {
    let values = response.headers().get_all(WWW_AUTHENTICATE).iter();
    challenge::best(values.filter_map(|value| value.to_str().ok()))
}

fn client(scheme: Scheme, certificates: &Certificates) -> Result<reqwest::Client, TransportError> {
    let builder = || {
        reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(USER_AGENT)
            .connect_timeout(Duration::from_secs(15))
            .read_timeout(Duration::from_secs(60))
            .tls_danger_accept_invalid_certs(scheme == Scheme::UnverifiedHttps)
    };
    match certificates.apply(builder()).build() {
        // A machine without any authorities can still be spoken to in the clear.
        Err(_) if scheme == Scheme::Http => builder().tls_certs_only([]).build(),
        other => other,
    }
    .map_err(TransportError::Setup)
}

fn base(scheme: Scheme, host: &str) -> Result<Url, TransportError> {
    let scheme = match scheme {
        Scheme::Http => "http",
        Scheme::Https | Scheme::UnverifiedHttps => "https",
    };
    let text = format!("{scheme}://{host}/");
    Url::parse(&text).map_err(|_| TransportError::Protocol {
        url: text,
        problem: "that is no address",
    })
}

fn is_same_origin(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host() == other.host()
        && one.port_or_known_default() == other.port_or_known_default()
}

/// Writes an address without what gives rights to whoever reads it.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    // An address of HTTP can always be without these.
    let _ = (url.set_username(""), url.set_password(None));
    url.to_string()
}

fn basic(login: &Login) -> Option<HeaderValue> {
    use base64::Engine as _;
    match login {
        Login::Password { username, password } => {
            let pair = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
            secret(format!("Basic {pair}"))
        }
        Login::Identity(_) | Login::Token(_) => None,
    }
}

fn secret(text: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_as_docker_tells_them() {
        let answer = |status: u16, reasons: &[(&str, &str)], retry_after: Option<u64>| {
            let reason = |(code, message): &(&str, &str)| Reason {
                code: (*code).to_owned(),
                message: (*message).to_owned(),
            };
            let answer = Answer {
                status: StatusCode::from_u16(status).unwrap(),
                reasons: reasons.iter().map(reason).collect(),
                retry_after: retry_after.map(Duration::from_secs),
            };
            answer.to_string()
        };
        assert_eq!(
            answer(404, &[("MANIFEST_UNKNOWN", "manifest unknown")], None),
            "manifest unknown: manifest unknown"
        );
        assert_eq!(
            answer(429, &[("TOOMANYREQUESTS", "slow down")], Some(30)),
            "toomanyrequests: slow down (it asks to try again in 30 s)"
        );
        assert_eq!(
            answer(500, &[], None),
            "received unexpected HTTP status: 500 Internal Server Error"
        );
    }

    #[test]
    fn a_wait_is_a_number_of_seconds_or_a_date() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(wait("7", now), Some(Duration::from_secs(7)));
        assert_eq!(wait("Thu, 01 Jan 2026 00:00:09 GMT", now), Some(Duration::from_secs(9)));
        assert_eq!(wait("Wed, 31 Dec 2025 00:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(wait("soon", now), None);
    }

    #[test]
    fn addresses_are_shown_without_signatures() {
        let url = Url::parse("https://user:word@host/blob?X-Signature=abc").unwrap();
        assert_eq!(shown(&url), "https://host/blob");
        let other = |text: &str| is_same_origin(&Url::parse(text).unwrap(), &Url::parse("https://host/").unwrap());
        assert!(other("https://host:443/x"));
        assert!(!other("http://host/"));
        assert!(!other("https://host:5000/"));
        assert!(!other("https://host.example/"));
    }
}
