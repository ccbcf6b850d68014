//! The gateway's API as commands use it: which gateway, whom it trusts, with which token; errors say what to do.
//!
//! The profile's token and pinned authority go to the profile's gateway alone: another `--gateway` needs its own.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use aws_lc_rs::digest::{SHA256, digest};
use reqwest::header::{
    AUTHORIZATION, CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use reqwest::{Certificate, Method, RequestBuilder, Response, StatusCode, Url};
use rustls::CertificateError;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::escape;
use super::profile::{self, Known, Profile};

/// Which gateway to ask, and as whom; what is left out is as `gatescribe login` left it.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
    /// The gateway's URL, with its port [default: the one signed in to]
    #[arg(long, value_name = "URL", env = "GATESCRIBE_GATEWAY", hide_env_values = true)]
    pub gateway: Option<String>,
    /// Trust this certificate authority (PEM) and no other
    #[arg(long, value_name = "FILE", env = "GATESCRIBE_CA", hide_env_values = true)]
    pub ca: Option<PathBuf>,
    /// Use the API token in this file
    #[arg(long, value_name = "FILE", env = "GATESCRIBE_TOKEN_FILE", hide_env_values = true)]
    pub token_file: Option<PathBuf>,
}

/// Speaks to one gateway with one token.
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: SecretString,
    /// Whether the token is that of `gatescribe login`.
    is_sign_in: bool,
}

/// An open WebSocket.
pub type WebSocket = WebSocketStream<reqwest::Upgraded>;

/// The gateway answered, but not with what was asked for.
#[derive(Debug, thiserror::Error)]
#[error("{words}")]
pub struct Refused {
    /// The HTTP status.
    pub status: StatusCode,
    /// The gateway's words, safe to print.
    pub words: String,
}

/// The gateway's certificate is signed by nobody who is trusted.
#[derive(Debug, thiserror::Error)]
#[error("the certificate of {0} is not signed by an authority that is trusted here; name its file with --ca")]
pub struct Untrusted(pub String);

/// Whom a connection to the gateway trusts.
#[derive(Clone, Debug)]
pub(super) enum Trust {
    /// The platform's roots.
    Platform,
    /// This authority alone, PEM.
    Only(Vec<u8>),
    /// Anybody: to ask for what the person will then compare, nothing else.
    Unchecked,
}

impl Client {
    /// The client that the options and the profile describe. Connects to nothing yet.
    pub fn open(options: &Options) -> anyhow::Result<Self> {
        let known = Profile::locate()?.known()?;
        let given = options.gateway.as_deref().map(gateway_url).transpose()?;
        let Some(base) = given.or_else(|| known.as_ref()?.url.parse().ok()) else {
            bail!("you are not signed in; run: gatescribe login --gateway https://…");
        };
        let known = known.filter(|known| known.url == origin(&base));
        let trust = match (&options.ca, &known) {
            (Some(file), _) => Trust::Only(fs::read(file).with_context(|| file.display().to_string())?),
            (None, Some(known)) => pinned(&Profile::locate()?, known)?,
            (None, None) => Trust::Platform,
        };
        let token = match &options.token_file {
            Some(file) => fs::read_to_string(file).with_context(|| file.display().to_string())?.trim().into(),
            None => token_of_sign_in(&base, known.as_ref())?,
        };
        Ok(Self { http: http(&base, &trust)?, base, token, is_sign_in: options.token_file.is_none() })
    }

    /// `GET`, for example of `/api/v1/sessions`, with these query parameters.
    pub async fn get_json<T: DeserializeOwned>(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<T> {
        self.json(self.request(Method::GET, path, query)?).await
    }

    /// Any method, with a JSON body if there is one.
    pub async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<T> {
        let request = self.request(method, path, &[])?;
        self.json(if let Some(body) = body { request.json(body) } else { request }).await
    }

    /// `GET` of something long: read it piece by piece with `chunk()`; an error there means it broke off.
    pub async fn stream(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<Response> {
        self.answer(self.request(Method::GET, path, query)?).await
    }

    /// Opens a WebSocket and returns it with the sub-protocol that the gateway chose of these.
    pub async fn websocket(
        &self,
        path: &str,
        query: &[(&str, String)],
        protocols: &[&str],
    ) -> anyhow::Result<(WebSocket, String)> {
        let key = generate_key();
        let request = self
            .request(Method::GET, path, query)?
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, &key)
            .header(SEC_WEBSOCKET_PROTOCOL, protocols.join(", "));
        let answer = timeout(HANDSHAKE, self.answer(request)).await;
        let answer = answer.map_err(|_| anyhow!("{} does not answer", origin(&self.base)))??;
        let header = |name: HeaderName| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let protocol = header(SEC_WEBSOCKET_PROTOCOL).unwrap_or_default().to_owned();
        let is_websocket = answer.status() == StatusCode::SWITCHING_PROTOCOLS
            && header(UPGRADE).is_some_and(|to| to.eq_ignore_ascii_case("websocket"))
            && header(SEC_WEBSOCKET_ACCEPT) == Some(derive_accept_key(key.as_bytes()).as_str());
        if !is_websocket || !protocols.contains(&protocol.as_str()) {
            bail!("{} does not speak the live protocol of this version", origin(&self.base));
        }
        let stream = answer.upgrade().await.map_err(|error| explain(&self.base, &error))?;
        let config = WebSocketConfig::default().max_message_size(Some(LARGEST_MESSAGE));
        Ok((WebSocketStream::from_raw_socket(stream, Role::Client, Some(config)).await, protocol))
    }

    /// Where the gateway is.
    pub fn base(&self) -> &Url {
        &self.base
    }

    fn request(&self, method: Method, path: &str, query: &[(&str, String)]) -> anyhow::Result<RequestBuilder> {
        let mut url = self.base.join(path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", self.token.expose_secret()))
            .map_err(|_| anyhow!("the token's file holds more than a token"))?;
        bearer.set_sensitive(true);
        Ok(self.http.request(method, url).header(AUTHORIZATION, bearer))
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> anyhow::Result<T> {
        let answer = self.answer(request.timeout(WHOLE_ANSWER)).await?;
        read_json(&self.base, answer).await
    }

    async fn answer(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let answer = call(&self.base, request).await;
        answer.map_err(|error| match error.downcast::<Refused>() {
            Ok(refused) if refused.status == StatusCode::UNAUTHORIZED => self.not_signed_in(refused).into(),
            Ok(refused) => refused.into(),
            Err(error) => error,
        })
    }

    fn not_signed_in(&self, refused: Refused) -> Refused {
        let words = match self.is_sign_in {
            true => "the gateway does not accept your sign-in any more (ended or revoked); run: gatescribe login",
            false => "the gateway does not accept this token (ended, revoked, or of another gateway)",
        };
        Refused { words: words.into(), ..refused }
    }
}

/// Sends a request and returns a successful answer.
pub(super) async fn call(base: &Url, request: RequestBuilder) -> anyhow::Result<Response> {
    let answer = request.send().await.map_err(|error| explain(base, &error))?;
    let status = answer.status();
    if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(answer);
    }
    let body = read(base, answer).await.unwrap_or_default();
    let told: Option<Value> = serde_json::from_slice(&body).ok();
    // The API's own errors, and those of OAuth (RFC 6749 section 5.2).
    let words =
        ["error_message", "error_description", "error"].iter().find_map(|name| told.as_ref()?.get(name)?.as_str());
    let words =
        words.map_or_else(|| format!("{} answers {status}", origin(base)), |words| escape::line(words).to_string());
    Err(Refused { status, words }.into())
}

/// The whole of an answer, as JSON.
pub(super) async fn read_json<T: DeserializeOwned>(base: &Url, answer: Response) -> anyhow::Result<T> {
    let body = read(base, answer).await?;
    serde_json::from_slice(&body).with_context(|| format!("{} answers something else than was asked", origin(base)))
}

/// The whole of an answer, which has a limit.
pub(super) async fn read(base: &Url, mut answer: Response) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(|error| explain(base, &error))? {
        if body.len() + piece.len() > LARGEST_ANSWER {
            bail!("{} answers more than can be taken at once", origin(base));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// What speaks HTTP with whoever this trusts. Follows no redirect: a token goes where it was meant to.
pub(super) fn http(base: &Url, trust: &Trust) -> anyhow::Result<reqwest::Client> {
    let builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT)
        .read_timeout(SILENCE)
        .user_agent(concat!("gatescribe/", env!("CARGO_PKG_VERSION")));
    let builder = match is_loopback(base) {
        true => builder.no_proxy(),
        false => builder,
    };
    let builder = match trust {
        Trust::Platform => builder,
        Trust::Only(pem) => builder.tls_certs_only(authorities(pem)?),
        Trust::Unchecked => builder.tls_danger_accept_invalid_certs(true),
    };
    match builder.build() {
        Ok(http) => Ok(http),
        // The platform has no roots at all.
        Err(_) if matches!(trust, Trust::Platform) => Err(Untrusted(origin(base)).into()),
        Err(error) => Err(error).context("TLS cannot be set up"),
    }
}

/// A gateway's address as a person types it: only scheme, host and port count.
pub(super) fn gateway_url(typed: &str) -> anyhow::Result<Url> {
    let wrong =
        || super::Usage(format!("{} is no gateway; write it as https://access.example.com:8443", escape::line(typed)));
    let whole = if typed.contains("://") { typed.to_owned() } else { format!("https://{typed}") };
    let url: Url = whole.parse().map_err(|_| wrong())?;
    let is_plain = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    if url.scheme() != "https"
        || url.host_str().is_none()
        || !url.username().is_empty()
        || url.password().is_some()
        || !is_plain
    {
        return Err(wrong().into());
    }
    Ok(url)
}

/// Scheme, host and port, without the slash at the end.
pub(super) fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// The profile's trust: the pinned authority, which must be the one that was pinned.
pub(super) fn pinned(profile: &Profile, known: &Known) -> anyhow::Result<Trust> {
    let Some(expected) = &known.ca_sha256 else { return Ok(Trust::Platform) };
    let pem = profile.read(profile::CA)?.unwrap_or_default();
    match fingerprint(pem.as_bytes()) {
        Ok(found) if found == *expected => Ok(Trust::Only(pem.into_bytes())),
        _ => bail!(
            "{} is not the authority that was pinned; sign in again with: gatescribe login --ca FILE",
            profile.path(profile::CA).display()
        ),
    }
}

/// SHA-256 of an authority's certificate (DER), in hexadecimal; of several, of all of them in turn.
pub(super) fn fingerprint(pem: &[u8]) -> anyhow::Result<String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.ok().filter(|all| !all.is_empty()).context("there is no certificate in PEM")?;
    Ok(digest(&SHA256, &all.iter().flat_map(|der| der.as_ref()).copied().collect::<Vec<u8>>())
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// What went wrong, in words that say what to do.
pub(super) fn explain(base: &Url, error: &reqwest::Error) -> anyhow::Error {
    let origin = origin(base);
    match certificate_error(error) {
        Some(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => {
            anyhow!("the certificate of {origin} is for other names; use the name that the gateway goes by")
        }
        Some(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            anyhow!("the certificate of {origin} has expired; tell whoever runs the gateway")
        }
        Some(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            anyhow!("the certificate of {origin} is not valid yet; is this machine's clock right?")
        }
        Some(_) => Untrusted(origin).into(),
        None if error.is_timeout() => anyhow!("{origin} does not answer"),
        None if error.is_connect() => anyhow!("{origin} cannot be reached: {}", innermost(error)),
        None => anyhow!("the connection to {origin} broke off: {}", innermost(error)),
    }
}

fn token_of_sign_in(base: &Url, known: Option<&Known>) -> anyhow::Result<SecretString> {
    let here = origin(base);
    let sign_in = known.and_then(|known| known.sign_in.as_ref());
    let sign_in = sign_in.ok_or_else(|| anyhow!("you are not signed in; run: gatescribe login --gateway {here}"))?;
    if !sign_in.is_fresh() {
        bail!("your sign-in ended at {}; run: gatescribe login", super::local(sign_in.expires));
    }
    let token = Profile::locate()?.token()?;
    token.ok_or_else(|| anyhow!("the token of your sign-in is gone; run: gatescribe login --force"))
}

fn authorities(pem: &[u8]) -> anyhow::Result<Vec<Certificate>> {
    let all = Certificate::from_pem_bundle(pem).ok().filter(|all| !all.is_empty());
    all.context("the authority's file holds no certificate in PEM")
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// What TLS said about the certificate, wherever it is in the chain. An `io::Error` hides what it wraps from `source`.
fn certificate_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a CertificateError> {
    if let Some(rustls::Error::InvalidCertificate(why)) = error.downcast_ref() {
        return Some(why);
    }
    let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    match wrapped {
        Some(inner) => certificate_error(inner),
        None => certificate_error(error.source()?),
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    escape::line(&last.to_string()).to_string()
}

const CONNECT: Duration = Duration::from_secs(15);
/// The longest that nothing may come. A kill is answered after a minute at most.
const SILENCE: Duration = Duration::from_secs(90);
/// For the whole of an answer that is read at once.
const WHOLE_ANSWER: Duration = Duration::from_secs(120);
/// For the answer that opens a WebSocket.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// In bytes.
const LARGEST_ANSWER: usize = 64 << 20;
/// In bytes: more than any screen.
const LARGEST_MESSAGE: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_an_https_origin() {
        let table = [
            ("https://access.example.com:8443", "https://access.example.com:8443"),
            ("https://access.example.com/", "https://access.example.com"),
            ("https://access.example.com:443", "https://access.example.com"),
            ("access.example.com", "https://access.example.com"),
            ("localhost:8443", "https://localhost:8443"),
            ("https://[::1]:8443", "https://[::1]:8443"),
        ];
        for (typed, expected) in table {
            assert_eq!(origin(&gateway_url(typed).unwrap()), expected, "{typed}");
        }
        let wrong = [
            "http://a.example.com",
            "https://me:pw@a.example.com",
            "https://a.example.com/x",
            "https://a/?q",
            "",
            "a b",
        ];
        for typed in wrong {
            assert!(gateway_url(typed).unwrap_err().is::<crate::cli::Usage>(), "{typed}");
        }
    }

    #[test]
    fn loopback_goes_past_proxies() {
        for (url, expected) in [
            ("https://localhost:1", true),
            ("https://web.localhost", true),
            ("https://127.0.0.2", true),
            ("https://[::1]:1", true),
            ("https://localhost.example.com", false),
            ("https://10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(&url.parse().unwrap()), expected, "{url}");
        }
    }
}
