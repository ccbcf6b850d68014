//! What a client needs to know before anybody is signed in: the certificate authority to compare and pin, and where SSH
//! is. Open to everybody, and says nothing else.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

/// The routes `/ca.pem` and `/.well-known/gatescribe`, with the authority's certificate and the port of SSH.
pub fn router(ca_pem: &str, ssh_port: u16) -> Router {
    Router::new()
        .route("/ca.pem", get(ca))
        .route("/.well-known/gatescribe", get(about))
        .with_state(About { ca_pem: ca_pem.into(), ssh_port })
}

#[derive(Clone)]
struct About {
    ca_pem: Arc<str>,
    ssh_port: u16,
}

/// `GET /ca.pem`. Whoever gets it over a connection that is not trusted yet must compare its fingerprint.
async fn ca(State(about): State<About>) -> ([(HeaderName, HeaderValue); 2], String) {
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/x-pem-file"));
    let nosniff = (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    ([kind, nosniff], about.ca_pem.to_string())
}

/// `GET /.well-known/gatescribe`.
async fn about(State(about): State<About>) -> Json<Value> {
    Json(json!({"ssh_port": about.ssh_port}))
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn it_tells_what_it_was_given_and_nothing_else() {
        let router = router("-----BEGIN CERTIFICATE-----\n", 2222);
        for (path, expected) in
            [("/ca.pem", "-----BEGIN CERTIFICATE-----\n"), ("/.well-known/gatescribe", "{\"ssh_port\":2222}")]
        {
            let answer = router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(to_bytes(answer.into_body(), 1000).await.unwrap(), expected, "{path}");
        }
        let answer = router.oneshot(Request::post("/ca.pem").body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(answer.status().as_u16(), 405);
    }
}
