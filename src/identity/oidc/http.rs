//! The one HTTP client for the identity provider: no redirects (a provider must not steer the gateway to other hosts),
//! deadlines, a limit on answers, and no plain HTTP beyond this machine.

use std::time::Duration;

use futures_util::future::BoxFuture;
use openidconnect::{AsyncHttpClient, HttpRequest, HttpResponse, http};
use reqwest::redirect::Policy;

/// The longest answer that is read, in bytes: key sets of large providers stay below 100 kB.
const MAX_ANSWER: usize = 1024 * 1024;
/// Until the TCP and TLS handshakes are done.
const CONNECT: Duration = Duration::from_secs(5);
/// Until the answer is read to its end.
const ANSWER: Duration = Duration::from_secs(10);

/// A request to the provider that failed. Names the host, never a query or a body.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpFailed {
    #[error("{0}")]
    Request(String),
    #[error("the answer is longer than {MAX_ANSWER} bytes")]
    TooLong,
    #[error("plain http is allowed on this machine only")]
    Plain,
}

pub(super) struct Http(reqwest::Client);

impl Http {
    /// A client for this issuer. An issuer on this machine is never reached through a proxy.
    pub(super) fn new(issuer: &reqwest::Url) -> Result<Self, reqwest::Error> {
        let builder = reqwest::Client::builder().redirect(Policy::none()).connect_timeout(CONNECT).timeout(ANSWER);
        let builder = if on_this_machine(issuer) { builder.no_proxy() } else { builder };
        builder.build().map(Self)
    }

    /// Sends one request. Cancel safe: dropping it closes the connection.
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpFailed> {
        let request = reqwest::Request::try_from(request).map_err(told)?;
        if !allowed(request.url()) {
            return Err(HttpFailed::Plain);
        }
        let mut answer = self.0.execute(request).await.map_err(told)?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(told)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(HttpFailed::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        let mut response = http::Response::new(body);
        *response.status_mut() = answer.status();
        *response.headers_mut() = std::mem::take(answer.headers_mut());
        Ok(response)
    }
}

// Not a closure: the compiler cannot see that the futures of closures which borrow are `Send`.
impl<'c> AsyncHttpClient<'c> for Http {
    type Error = HttpFailed;
    type Future = BoxFuture<'c, Result<HttpResponse, HttpFailed>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}

/// Whether a URL may be used for sign-in at all: HTTPS, or plain HTTP to this machine.
pub(super) fn allowed(url: &reqwest::Url) -> bool {
    url.scheme() == "https" || (url.scheme() == "http" && on_this_machine(url))
}

fn on_this_machine(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The words of a failed request with its causes, without the URL's query.
fn told(error: reqwest::Error) -> HttpFailed {
    let host = error.url().and_then(|url| url.host_str()).unwrap_or("?").to_owned();
    let error = error.without_url();
    let mut words = format!("{host}: {error}");
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        words.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    HttpFailed::Request(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_stays_on_this_machine() {
        for (url, ok) in [
            ("https://idp.example.com/x", true),
            ("http://127.0.0.1:9/x", true),
            ("http://[::1]:9/x", true),
            ("http://localhost/x", true),
            ("http://idp.example.com/x", false),
            ("http://127.0.0.1.example.com/x", false),
            ("http://10.0.0.1/x", false),
            ("file:///etc/passwd", false),
        ] {
            assert_eq!(allowed(&url.parse().unwrap()), ok, "{url}");
        }
    }
}
