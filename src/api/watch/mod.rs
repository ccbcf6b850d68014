//! `GET …/watch`: a live recording over a WebSocket, in what asciinema's player speaks.
//!
//! Here stands who may come in; `hub` follows recordings for all watchers, `screen` makes events of them, `speak` puts
//! them into messages, and `watcher` carries those to one watcher. Nothing here touches the session: watching reads what
//! was recorded.

mod hub;
mod ring;
mod screen;
mod speak;
mod watcher;

use std::net::SocketAddr;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{ConnectInfo, FromRequestParts, Request, State, WebSocketUpgrade};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use secrecy::SecretString;
use serde_json::json;
use uuid::Uuid;

use self::hub::WatchError;
pub use self::hub::Watches;
use self::speak::Protocol;
use self::watcher::Watcher;
use super::auth::{owner, presented, require, session};
use super::parameters::{Ids, Parameters, flag};
use super::server::Lease;
use super::{ApiError, Shared};
use crate::identity::tokens::{Caller, Scope};
use crate::store::{Event, EventStatus, RecordingRow, RecordingState, SessionRow};

/// The handler.
#[utoipa::path(
    get, path = "/api/v1/session/{socket_id}/{session_id}/watch", operation_id = "watch", tag = "sessions",
    params(
        Ids,
        ("recording_id" = Option<Uuid>, Query, description = "Which recording; the newest live one if left out."),
        ("input" = Option<bool>, Query, description = "With what is typed; takes the scope `input:read`."),
    ),
    responses((status = 101, description = "A WebSocket that speaks `v1.alis` or `v3.asciicast`.")),
)]
pub(super) async fn watch(
    State(shared): State<Shared>,
    caller: Caller,
    ids: Ids,
    mut parameters: Parameters,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    request: Request,
) -> Result<Response, ApiError> {
    let (mut parts, _no_body) = request.into_parts();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await;
    let headers = parts.headers;
    from_here(&headers, &shared.api.origin)?;
    let wanted = parameters.take("recording_id", "a UUID", |text| text.parse::<Uuid>().ok())?;
    let with_input = parameters.take("input", "`true` or `false`", flag)?.unwrap_or(false);
    parameters.finish()?;
    if with_input {
        require(&caller, Scope::InputRead)?;
    }
    // Whether they may comes before what they asked for: else everybody would hear the same, whose session it ever is.
    let row = session(&shared.api.store, &caller, Scope::RecordingsRead, &ids).await?;
    let upgrade = upgrade.map_err(|refused| ApiError::new(refused.status(), told(&refused)))?;
    let protocol = protocol(&headers)?;
    let recording = live(row, wanted)?;
    let owner = owner(&caller, Scope::RecordingsRead)?;
    let joined = shared.api.watches.join(ids.session, &recording, owner.as_ref()).await?;

    let about = json!({
        "by": caller.name(),
        "from": client.ip(),
        "recording_id": recording.recording_id,
        "input": with_input,
    });
    // Written before the first byte goes out: watching leaves a trace, or does not happen.
    let event = Event::now("watch", EventStatus::Success, about.clone());
    shared.api.store.add_event(ids.session, event).await?;
    let watcher = Watcher {
        token: SecretString::from(presented(&headers).unwrap_or_default()),
        client: client.ip(),
        ids,
        recording,
        owner,
        protocol,
        with_input,
        about,
        api: shared.api,
        _lease: parts.extensions.remove::<Lease>(),
    };
    let upgrade = upgrade.max_message_size(FROM_WATCHERS).max_frame_size(FROM_WATCHERS).write_buffer_size(BUFFER);
    Ok(upgrade.protocols([protocol.name()]).on_upgrade(|socket| watcher.run(socket, joined)))
}

/// The recording to watch: the one asked for, else the newest that is live.
fn live(row: SessionRow, wanted: Option<Uuid>) -> Result<RecordingRow, ApiError> {
    let conflict = |words: &str| Err(ApiError::new(StatusCode::CONFLICT, words));
    if row.outcome.is_some() {
        return conflict("this session has ended; read its recordings instead");
    }
    if !row.audit_log {
        return conflict("this session is not recorded, so there is nothing to watch");
    }
    let is_live = |recording: &RecordingRow| recording.state == RecordingState::Live;
    let mut recordings = row.recordings;
    let Some(wanted) = wanted else {
        recordings.retain(is_live);
        let newest = recordings.into_iter().max_by_key(|recording| recording.start_time);
        return newest.map_or_else(|| conflict("nothing is being recorded in this session just now; try again"), Ok);
    };
    match recordings.into_iter().find(|recording| recording.recording_id == wanted) {
        Some(recording) if is_live(&recording) => Ok(recording),
        Some(_) => conflict("this recording has ended; read it instead"),
        None => Err(ApiError::not_found("there is no such recording in this session")),
    }
}

/// Refuses pages of other sites. A browser sends `Origin` with every WebSocket and lets no page change it; programs send
/// none.
fn from_here(headers: &HeaderMap, own: &str) -> Result<(), ApiError> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    match origins.all(|origin| origin.as_bytes() == own.as_bytes()) {
        true => Ok(()),
        false => Err(ApiError::new(StatusCode::FORBIDDEN, "only the gateway's own pages may watch")),
    }
}

/// The first of ours that the client offers.
fn protocol(headers: &HeaderMap) -> Result<Protocol, ApiError> {
    let offers = |protocol: &Protocol| offered(headers).any(|offered| offered == protocol.name());
    Protocol::ALL
        .into_iter()
        .find(offers)
        .ok_or_else(|| ApiError::bad_request("offer `v1.alis` or `v3.asciicast` as a WebSocket sub-protocol"))
}

/// The sub-protocols that a client offers (RFC 6455 section 11.3.4).
pub(super) fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lists = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(str::trim)
}

fn told(refused: &WebSocketUpgradeRejection) -> &'static str {
    match refused {
        WebSocketUpgradeRejection::MethodNotGet(_) => "a WebSocket is opened with GET",
        _ => "watching needs a WebSocket: this is no request for one",
    }
}

impl From<WatchError> for ApiError {
    fn from(error: WatchError) -> Self {
        let status = match &error {
            WatchError::TooMany => StatusCode::SERVICE_UNAVAILABLE,
            WatchError::TooManyOwn => StatusCode::TOO_MANY_REQUESTS,
            WatchError::Read(_) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a recording cannot be watched");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Self::new(status, error.to_string())
    }
}

/// Bytes that a watcher may send in a message: it has nothing to say.
const FROM_WATCHERS: usize = 4096;
/// Bytes that wait for a watcher who reads slowly, beside one message.
const BUFFER: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Method;

    use super::*;
    use crate::api::testing::{Api, path};
    use crate::store::testing::{new_session, recording, time};
    use crate::store::{NewSession, Outcome};

    fn headers(values: &[(header::HeaderName, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_preferred_protocol_is_chosen_and_none_is_made_up() {
        let table = [
            (&["v1.alis, v2.asciicast, v3.asciicast, raw"][..], Some(Protocol::Alis)),
            (&["v3.asciicast,v1.alis"], Some(Protocol::Alis)),
            (&["raw", "v3.asciicast"], Some(Protocol::Asciicast3)),
            (&["gatescribe.token.x, v3.asciicast"], Some(Protocol::Asciicast3)),
            (&["v2.asciicast, raw"], None),
            (&["V1.ALIS"], None),
            (&[], None),
        ];
        for (lists, expected) in table {
            let values: Vec<_> = lists.iter().map(|list| (header::SEC_WEBSOCKET_PROTOCOL, *list)).collect();
            assert_eq!(protocol(&headers(&values)).ok(), expected, "{lists:?}");
        }
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let own = "https://access.example.com:8443";
        let table = [
            (&[][..], true),
            (&["https://access.example.com:8443"], true),
            (&["https://access.example.com"], false),
            (&["http://access.example.com:8443"], false),
            (&["https://evil.example"], false),
            (&["https://access.example.com:8443.evil.example"], false),
            (&["null"], false),
            (&[""], false),
            (&["https://access.example.com:8443", "https://evil.example"], false),
        ];
        for (origins, allowed) in table {
            let values: Vec<_> = origins.iter().map(|origin| (header::ORIGIN, *origin)).collect();
            assert_eq!(from_here(&headers(&values), own).is_ok(), allowed, "{origins:?}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_watched_says_why() {
        let api = Api::new().await;
        let (new, bare, ended) = (new_session(), new_session(), new_session());
        let unrecorded = NewSession { audit_log: false, ..new_session() };
        for session in [&new, &bare, &ended, &unrecorded] {
            api.book.open_session((*session).clone()).await.unwrap();
        }
        let over = recording();
        api.book.add_recording(new.session_id, over.clone()).await.unwrap();
        let end = time("2026-03-01T11:00:00Z");
        api.book.finish_recording(over.recording_id, end, RecordingState::Complete, 1, None).await.unwrap();
        api.book.close_session(ended.session_id, end, Outcome::Closed, String::new(), None).await.unwrap();
        let row = async |session: &NewSession| {
            api.book.session(crate::store::testing::socket_id(session), session.session_id).await.unwrap().unwrap()
        };
        let refused = async |session, wanted| live(row(session).await, wanted).unwrap_err();
        assert!(format!("{:?}", refused(&new, None).await).contains("just now"));
        assert!(format!("{:?}", refused(&new, Some(over.recording_id)).await).contains("read it instead"));
        assert!(format!("{:?}", refused(&new, Some(Uuid::nil())).await).contains("404"));
        assert!(format!("{:?}", refused(&bare, None).await).contains("just now"));
        assert!(format!("{:?}", refused(&ended, None).await).contains("has ended"));
        assert!(format!("{:?}", refused(&unrecorded, None).await).contains("not recorded"));
        let (first, second) = (recording(), recording());
        for one in [&first, &second] {
            api.book.add_recording(bare.session_id, one.clone()).await.unwrap();
        }
        assert_eq!(live(row(&bare).await, Some(first.recording_id)).unwrap(), first);
        assert!(live(row(&bare).await, None).is_ok());
    }

    #[tokio::test]
    async fn a_plain_request_is_told_to_ask_for_a_websocket() {
        let api = Api::new().await;
        let new = new_session();
        api.book.open_session(new.clone()).await.unwrap();
        let path = format!("{}/watch", path(&new));
        api.get(&path).await.refused(400, "WebSocket");
        api.get(&format!("{path}?input=maybe")).await.refused(400, "`input`");
        api.get(&format!("{path}?view=screen")).await.refused(400, "`view`");
        let request = api.request(Method::GET, &path, Some(&api.admin)).header(header::ORIGIN, "https://evil.example");
        api.send(request.body(Body::empty()).unwrap()).await.refused(403, "own pages");
        let request = api.request(Method::GET, &path, None).header(header::SEC_WEBSOCKET_PROTOCOL, "v1.alis");
        api.send(request.body(Body::empty()).unwrap()).await.refused(401, "token");
    }
}
