//! What somebody needs to know before anybody is signed in: a client the certificate authority to compare and pin, and
//! where SSH is; a server behind a socket the public key that it is to trust. Open to everybody, and says nothing else.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

/// The routes `/ca.pem`, `/ssh_upstream_ca.pub` and `/.well-known/gatescribe`, with the authorities' certificate and
/// public key and the port of SSH.
pub fn router(ca_pem: &str, upstream_ca: &str, ssh_port: u16) -> Router {
    Router::new()
        .route("/ca.pem", get(ca))
        .route("/ssh_upstream_ca.pub", get(upstream))
        .route("/.well-known/gatescribe", get(about))
        .with_state(About { ca_pem: ca_pem.into(), upstream_ca: upstream_ca.into(), ssh_port })
}

#[derive(Clone)]
struct About {
    ca_pem: Arc<str>,
    upstream_ca: Arc<str>,
    ssh_port: u16,
}

/// `GET /ca.pem`. Whoever gets it over a connection that is not trusted yet must compare its fingerprint.
async fn ca(State(about): State<About>) -> File {
    file("application/x-pem-file", &about.ca_pem)
}

/// `GET /ssh_upstream_ca.pub`, for `TrustedUserCAKeys`. To be fetched over a connection that is trusted: whoever could
/// put another key in its place could log in at the server.
async fn upstream(State(about): State<About>) -> File {
    file("text/plain; charset=utf-8", &about.upstream_ca)
}

/// `GET /.well-known/gatescribe`.
async fn about(State(about): State<About>) -> Json<Value> {
    Json(json!({"ssh_port": about.ssh_port}))
}

type File = ([(HeaderName, HeaderValue); 2], String);

fn file(kind: &'static str, text: &str) -> File {
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static(kind));
    let nosniff = (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    ([kind, nosniff], text.to_owned())
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn it_tells_what_it_was_given_and_nothing_else() {
        let router = router("-----BEGIN CERTIFICATE-----\n", "ssh-ed25519 AAAA\n", 2222);
        for (path, expected) in [
            ("/ca.pem", "-----BEGIN CERTIFICATE-----\n"),
            ("/ssh_upstream_ca.pub", "ssh-ed25519 AAAA\n"),
            ("/.well-known/gatescribe", "{\"ssh_port\":2222}"),
        ] {
            let answer = router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(to_bytes(answer.into_body(), 1000).await.unwrap(), expected, "{path}");
        }
        let answer = router.oneshot(Request::post("/ca.pem").body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(answer.status().as_u16(), 405);
    }
}
