//! `GET /sockets`: what the caller may reach from where they are, by the policy in force. Says nothing of where sockets
//! lead, and nothing of those that this person may not reach.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::parameters::Parameters;
use super::{ApiError, Shared};
use crate::identity::tokens::Caller;
use crate::socket::Socket;

/// The handler.
#[utoipa::path(
    get, path = "/api/v1/sockets", operation_id = "list_sockets", tag = "sockets",
    responses((status = 200, description = "The sockets that the caller may reach, by name.", body = SocketList)),
)]
pub(super) async fn list(
    State(shared): State<Shared>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Json<SocketList>, ApiError> {
    parameters.finish()?;
    let who = caller.identity().ok_or_else(|| {
        ApiError::new(StatusCode::FORBIDDEN, "this token belongs to nobody, and only people reach sockets")
    })?;
    let mut sockets: Vec<_> =
        (shared.api.reachable)(who, client.ip().to_canonical()).iter().map(|socket| shown(socket)).collect();
    sockets.sort_by(|a, b| a.socket_name.cmp(&b.socket_name));
    Ok(Json(SocketList { sockets }))
}

/// What a caller may reach.
#[derive(Serialize, ToSchema)]
pub(super) struct SocketList {
    sockets: Vec<ReachableSocket>,
}

/// A socket that the caller may reach.
#[derive(Serialize, ToSchema)]
struct ReachableSocket {
    socket_id: Uuid,
    socket_name: String,
    /// What is spoken there, as in the session log.
    session_type: &'static str,
    tags: BTreeMap<String, String>,
    /// Whether sessions are recorded.
    record: bool,
    /// Words shown before access.
    #[schema(required)]
    notice: Option<String>,
    /// The socket's own port, beside the shared one.
    #[schema(required)]
    port: Option<u16>,
    /// Whether it is reached with a login, as `login@socket`; otherwise the login is fixed.
    needs_login: bool,
}

fn shown(socket: &Socket) -> ReachableSocket {
    ReachableSocket {
        socket_id: socket.id(),
        socket_name: socket.name.clone(),
        session_type: socket.protocol.session_type(),
        tags: socket.tags.clone(),
        record: socket.record,
        notice: socket.notice.clone(),
        port: socket.listen.map(|address| address.port()),
        needs_login: !socket.fixes_login(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::api::testing::Api;
    use crate::identity::tokens::Scope;
    use crate::socket::socket_id;

    #[tokio::test]
    async fn people_are_told_what_they_may_reach_and_no_more() {
        let api = Api::new().await;
        let answer = api.get_as(&api.person("alice").await, "/api/v1/sockets").await;
        let shell = json!({
            "socket_id": socket_id("shell"), "socket_name": "shell", "session_type": "ssh", "tags": {"env": "demo"},
            "record": true, "notice": "This session is recorded.", "port": 2022,
            "needs_login": false,
        });
        assert_eq!(answer.json(), json!({"sockets": [shell]}));
        let bob = api.person("bob").await;
        assert_eq!(api.get_as(&bob, "/api/v1/sockets").await.json(), json!({"sockets": []}));
        api.get_as(&bob, "/api/v1/sockets?socket_name=shell").await.refused(400, "`socket_name`");
        api.get_as(&api.scoped(Scope::Admin).await, "/api/v1/sockets").await.refused(403, "belongs to nobody");
    }
}
