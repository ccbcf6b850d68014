//! Whether the gateway answers at all. Open to everybody, and says nothing else.

use axum::Json;
use serde_json::{Value, json};

/// `GET /healthz`.
pub(super) async fn healthz() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Method;
    use serde_json::json;

    use crate::api::testing::Api;

    #[tokio::test]
    async fn health_is_open() {
        let api = Api::new().await;
        let answer = api.send(api.request(Method::GET, "/healthz", None).body(Body::empty()).unwrap()).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"status": "ok"})));
    }
}
