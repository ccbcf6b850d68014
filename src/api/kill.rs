//! `PUT /session/{socket_id}/{session_id}`: ends a live session, or one channel of it, and answers when it is down.
//!
//! The order is written into the row first and given to the session second, on a task of its own: a client that hangs
//! up in between must not leave an order that nobody carries out.

use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, timeout};
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::{owner, require, session};
use super::parameters::{Ids, Parameters};
use super::{ApiError, ApiState, KillError, Shared, body, locks};
use crate::identity::tokens::{Caller, Scope};
use crate::policy::{Lock, LockTarget};
use crate::store::{Event, EventStatus, Ordered, SessionRow};

/// The handler.
#[utoipa::path(
    put, path = "/api/v1/session/{socket_id}/{session_id}", operation_id = "kill_session", tag = "sessions",
    params(Ids), request_body = Order,
    responses((status = 200, description = "The row, once the session is down, or the channel.", body = SessionRow)),
)]
pub(super) async fn put(
    State(shared): State<Shared>,
    caller: Caller,
    ids: Ids,
    parameters: Parameters,
    request: Request,
) -> Result<Json<SessionRow>, ApiError> {
    // Asked before the body is read; `carry_out` asks again, about this very session.
    owner(&caller, Scope::SessionsKill)?;
    parameters.finish()?;
    let order = checked(body::read(request).await?)?;
    if order.lock.is_some() {
        // A lock is about everybody's sessions there may be, also where this one is the caller's own.
        require(&caller, Scope::SessionsKill)?;
    }
    let ordered = tokio::spawn(async move {
        match order.recording_id {
            Some(recording) => carry_out_on_channel(&shared.api, &caller, &ids, &order, recording).await,
            None => carry_out(&shared.api, &caller, &ids, &order).await,
        }
    });
    match timeout(KILL_DEADLINE, ordered).await {
        Ok(Ok(answer)) => answer.map(Json),
        Ok(Err(_panicked_or_stopping)) => {
            Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the gateway failed to carry out the order"))
        }
        Err(_elapsed) => Err(not_down()),
    }
}

async fn carry_out(api: &ApiState, caller: &Caller, ids: &Ids, order: &Order) -> Result<SessionRow, ApiError> {
    let row = session(&api.store, caller, Scope::SessionsKill, ids).await?;
    if row.end_time.is_some() {
        return Err(already_ended("session"));
    }
    let reason = order.reason.as_str();
    let mut about = json!({"by": caller.name(), "reason": reason});
    let lock = order.lock.as_deref().map(|lasts| lock_out(&row, caller, reason, lasts)).transpose()?;
    let locks = lock.is_some();
    if let Some(lock) = &lock {
        about["lock_id"] = lock.lock_id.to_string().into();
    }
    let event = Event::now("kill", EventStatus::Success, about);
    match api.store.order_kill_and_lock(ids.session, event, lock).await? {
        Ordered::Live => {}
        Ordered::Ended => return Err(already_ended("session")),
        Ordered::Unknown => return Err(ApiError::not_found("there is no such session on this socket")),
    }
    tracing::info!(session = %ids.session, by = caller.name(), reason, locks, "ordered a session to end");
    // Before the session is told: nobody who is cut off gets in again. Only now, because what the lock itself ends must
    // find the order in its row.
    if locks && let Err(error) = api.lock.apply().await {
        tracing::error!(%error, "a lock stands in the book and is not in force yet");
    }
    let ordered = Instant::now();
    let killed = api.kill.kill(ids.session, caller.name(), reason).await;
    if killed.is_ok() {
        api.metrics.killed_after(ordered.elapsed());
    }
    // Whatever the session said, the row is the truth: it may have come to its own end while the order was written.
    let row = session(&api.store, caller, Scope::SessionsKill, ids).await?;
    match killed {
        _ if row.end_time.is_some() => Ok(row),
        Ok(()) | Err(KillError::TimedOut) => Err(not_down()),
        Err(KillError::NotLive) => Err(not_held()),
    }
}

/// The same for one channel: the session goes on, so its row only gets the order.
async fn carry_out_on_channel(
    api: &ApiState,
    caller: &Caller,
    ids: &Ids,
    order: &Order,
    recording: Uuid,
) -> Result<SessionRow, ApiError> {
    session(&api.store, caller, Scope::SessionsKill, ids).await?;
    let reason = order.reason.as_str();
    let about = json!({"by": caller.name(), "reason": reason, "recording_id": recording});
    let event = Event::now("kill", EventStatus::Success, about);
    // What is gone gets no order. Where another process holds the session, the book and that process are asked.
    let open = api.kill.is_open(ids.session, recording).unwrap_or(true);
    match api.store.order_channel_kill(ids.session, recording, open, event).await? {
        Ordered::Live => {}
        Ordered::Ended => return Err(already_ended("channel")),
        Ordered::Unknown => return Err(ApiError::not_found("there is no such recording in this session")),
    }
    tracing::info!(session = %ids.session, %recording, by = caller.name(), reason, "ordered a channel to end");
    let killed = api.kill.kill_channel(ids.session, recording, caller.name(), reason).await;
    let row = session(&api.store, caller, Scope::SessionsKill, ids).await?;
    let recorded = row.recordings.iter().find(|one| one.recording_id == recording);
    match killed {
        Ok(()) => Ok(row),
        _ if recorded.is_some_and(|one| one.end_time.is_some()) => Ok(row),
        Err(KillError::TimedOut) => Err(not_down()),
        // Of one that is not recorded nothing tells whether it is open, but whoever holds it.
        Err(KillError::NotLive) if recorded.is_none() => Err(already_ended("channel")),
        Err(KillError::NotLive) => Err(not_held()),
    }
}

/// The order, checked.
fn checked(order: Order) -> Result<Order, ApiError> {
    if !order.killed {
        return Err(ApiError::bad_request("`killed` must be true"));
    }
    let reason = order.reason.trim();
    if reason.is_empty() || reason.chars().count() > REASON_CHARS {
        return Err(ApiError::bad_request(format!("`reason` must have 1 to {REASON_CHARS} characters")));
    }
    // It is shown in a terminal.
    if reason.chars().any(char::is_control) {
        return Err(ApiError::bad_request("`reason` must not have control characters"));
    }
    if order.lock.is_some() && order.recording_id.is_some() {
        return Err(ApiError::bad_request("`lock` is for a whole session; leave it out, or `recording_id`"));
    }
    Ok(Order { reason: reason.to_owned(), ..order })
}

/// What keeps this person off this socket.
fn lock_out(row: &SessionRow, caller: &Caller, reason: &str, lasts: &str) -> Result<Lock, ApiError> {
    let (user, socket) = (Some(row.user_email.clone()), Some(row.socket_name.clone()));
    locks::new(LockTarget { user, socket, ..LockTarget::default() }, reason, caller, Some(lasts))
}

/// The order to end a session, or one channel of it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Order {
    /// True.
    killed: bool,
    /// Why; shown to whoever is at the session.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
    /// For how long the person is kept off the socket from now on, as `15m`; left out: not at all.
    lock: Option<String>,
    /// The recording of the channel that is to end alone; left out: all of the session.
    recording_id: Option<Uuid>,
}

fn already_ended(what: &str) -> ApiError {
    ApiError::new(StatusCode::CONFLICT, format!("the {what} has already ended"))
}

fn not_down() -> ApiError {
    let words = "it has not come down in time; the order stands in the session's row";
    ApiError::new(StatusCode::GATEWAY_TIMEOUT, words)
}

fn not_held() -> ApiError {
    let words = "this gateway does not hold the session; the order stands in its row";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, words)
}

/// The longest reason, in characters.
const REASON_CHARS: usize = 500;
/// The longest that a caller waits. What ends sessions has a shorter deadline of its own.
const KILL_DEADLINE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::Body;
    use axum::http::Method;
    use jiff::Timestamp;
    use serde_json::{Value, json};
    use tokio::time::timeout;
    use uuid::Uuid;

    use crate::api::testing::{Answer, Api, Ends, Exports, path};
    use crate::policy::LockTarget;
    use crate::store::testing::{denied_session, new_session, recording, socket_id};
    use crate::store::{Event, EventStatus, NewSession, Outcome, SessionRow};

    const ORDER: &str = r#"{"killed": true, "reason": "laptop lost"}"#;

    async fn killed(ends: Ends) -> (Api, NewSession, Answer) {
        let api = Api::with(ends, Exports::Facts).await;
        let new = new_session();
        api.book.open_session(new.clone()).await.unwrap();
        let answer = api.put(&path(&new), ORDER).await;
        (api, new, answer)
    }

    async fn row(api: &Api, new: &NewSession) -> SessionRow {
        api.book.session(socket_id(new), new.session_id).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn the_answer_is_the_row_after_it_is_down() {
        let (api, new, answer) = killed(Ends::Killed).await;
        assert_eq!(answer.status.as_u16(), 200);
        let told = answer.json();
        assert_eq!(told, api.get(&path(&new)).await.json());
        assert_eq!(
            (&told["killed"], &told["outcome"], &told["remaining"]),
            (&json!(true), &json!("killed"), &json!("none"))
        );
        assert_eq!(told["end_reason"], "laptop lost (by admin@example.com)");
        assert_eq!(told["end_time"], "2026-03-01T11:00:00Z");
        let event: &Value = told["events"].as_array().unwrap().last().unwrap();
        assert_eq!((&event["type"], &event["status"]), (&json!("kill"), &json!("success")));
        assert_eq!(event["metadata"], json!({"by": "admin@example.com", "reason": "laptop lost"}));
        api.put(&path(&new), ORDER).await.refused(409, "already ended");
        assert_eq!(serde_json::to_value(row(&api, &new).await).unwrap(), told);
    }

    #[tokio::test]
    async fn a_lock_is_there_when_the_kill_begins_and_not_without_a_kill() {
        let api = Api::with(Ends::KilledLater, Exports::Facts).await;
        let (new, denied) = (new_session(), denied_session());
        api.book.open_session(new.clone()).await.unwrap();
        api.book.open_session(denied.clone()).await.unwrap();
        let order = r#"{"killed": true, "reason": "laptop lost", "lock": "15m"}"#;
        api.put(&path(&denied), order).await.refused(409, "already ended");
        assert_eq!(api.book.locks(Timestamp::now()).await.unwrap(), []);
        let (url, looked) = (path(&new), async {
            api.killer_called().await;
            let locks = api.book.locks(Timestamp::now()).await.unwrap();
            api.let_kill_go();
            locks
        });
        let (answer, locks) = tokio::join!(api.put(&url, order), looked);
        let [lock] = &locks[..] else { panic!("{locks:?}") };
        let target = LockTarget {
            user: Some("alice@example.com".into()),
            socket: Some("shell".into()),
            ..LockTarget::default()
        };
        assert_eq!((&lock.target, lock.reason.as_str()), (&target, "laptop lost"));
        assert_eq!(lock.until.unwrap().duration_since(lock.created).as_secs(), 900);
        let told = answer.json();
        let event = told["events"].as_array().unwrap().last().unwrap();
        assert_eq!(event["metadata"]["lock_id"], lock.lock_id.to_string());
    }

    #[tokio::test]
    async fn a_session_that_ended_by_itself_meanwhile_was_still_ordered_to() {
        let (_api, _new, answer) = killed(Ends::Alone).await;
        assert_eq!(answer.status.as_u16(), 200);
        let told = answer.json();
        assert_eq!((&told["outcome"], &told["end_reason"]), (&json!("killed"), &json!("laptop lost")));
        assert_eq!(told["remaining"], "unknown");
    }

    #[tokio::test]
    async fn an_order_that_is_not_carried_out_is_told_and_stands() {
        for (ends, status) in [(Ends::NotLive, 503), (Ends::TimedOut, 504), (Ends::Lies, 504)] {
            let (api, new, answer) = killed(ends).await;
            answer.refused(status, "the order stands");
            let row = row(&api, &new).await;
            assert_eq!((row.killed, row.end_time), (true, None));
        }
    }

    #[tokio::test]
    async fn a_channel_ends_alone() {
        let (api, new, recording) = (Api::new().await, new_session(), recording());
        let id = recording.recording_id;
        let order = json!({"killed": true, "reason": "only this", "recording_id": id}).to_string();
        api.book.open_session(new.clone()).await.unwrap();
        api.put(&path(&new), order.clone()).await.refused(404, "no such recording");
        api.book.add_recording(new.session_id, recording).await.unwrap();
        for (person, status) in [("bob", 404), ("audrey", 403)] {
            let token = api.person(person).await;
            let request = api.request(Method::PUT, &path(&new), Some(&token)).body(Body::from(order.clone())).unwrap();
            api.send(request).await.refused(status, "");
        }
        assert_eq!(row(&api, &new).await.events, new.events);
        let told = api.put(&path(&new), order.clone()).await.json();
        assert_eq!((&told["killed"], &told["end_time"]), (&json!(false), &Value::Null));
        assert_eq!(told["recordings"][0]["end_time"], "2026-03-01T11:00:00Z");
        let event = told["events"].as_array().unwrap().last().unwrap();
        let about = json!({"by": "admin@example.com", "reason": "only this", "recording_id": id});
        assert_eq!((&event["type"], &event["metadata"]), (&json!("kill"), &about));
        let kills = async || row(&api, &new).await.events.iter().filter(|event| event.kind == "kill").count();
        api.put(&path(&new), order).await.refused(409, "the channel has already ended");
        assert_eq!(kills().await, 1);
        // The rest of it can still be ended.
        assert_eq!(api.put(&path(&new), ORDER).await.status.as_u16(), 200);
    }

    #[tokio::test]
    async fn an_order_for_a_channel_that_is_not_carried_out_is_told_and_stands() {
        for (ends, status) in [(Ends::NotLive, 503), (Ends::TimedOut, 504)] {
            let (api, new, recording) = (Api::with(ends, Exports::Facts).await, new_session(), recording());
            let order = json!({"killed": true, "reason": "x", "recording_id": recording.recording_id}).to_string();
            api.book.open_session(new.clone()).await.unwrap();
            api.book.add_recording(new.session_id, recording).await.unwrap();
            api.put(&path(&new), order).await.refused(status, "the order stands");
            let row = row(&api, &new).await;
            assert_eq!((row.killed, row.events.last().unwrap().kind.as_str()), (false, "kill"));
        }
        // One that is not recorded, and has gone.
        let (api, new) = (Api::with(Ends::NotLive, Exports::Facts).await, new_session());
        api.book.open_session(new.clone()).await.unwrap();
        let id = Uuid::now_v7();
        let started = Event::now("ssh_exec", EventStatus::Success, json!({"recording_id": id}));
        api.book.add_event(new.session_id, started).await.unwrap();
        let order = json!({"killed": true, "reason": "x", "recording_id": id}).to_string();
        api.put(&path(&new), order).await.refused(409, "the channel has already ended");
    }

    #[tokio::test]
    async fn a_channel_that_has_gone_gets_no_order_recorded_or_not() {
        let (api, new, recording) = (Api::with(Ends::Alive, Exports::Facts).await, new_session(), recording());
        api.book.open_session(new.clone()).await.unwrap();
        let (recorded, unrecorded) = (recording.recording_id, Uuid::now_v7());
        api.book.add_recording(new.session_id, recording).await.unwrap();
        let started = Event::now("ssh_exec", EventStatus::Success, json!({"recording_id": unrecorded}));
        api.book.add_event(new.session_id, started).await.unwrap();
        for (id, status) in [(recorded, 409), (unrecorded, 409), (Uuid::now_v7(), 404)] {
            let order = json!({"killed": true, "reason": "x", "recording_id": id}).to_string();
            api.put(&path(&new), order).await.refused(status, "");
        }
        assert!(row(&api, &new).await.events.iter().all(|event| event.kind != "kill"));
    }

    #[tokio::test]
    async fn a_channels_order_is_told_once_however_often_it_is_given() {
        let (api, new, recording) = (Api::with(Ends::TimedOut, Exports::Facts).await, new_session(), recording());
        let id = recording.recording_id;
        api.book.open_session(new.clone()).await.unwrap();
        api.book.add_recording(new.session_id, recording).await.unwrap();
        for reason in ["first", "second"] {
            let order = json!({"killed": true, "reason": reason, "recording_id": id}).to_string();
            api.put(&path(&new), order).await.refused(504, "the order stands");
        }
        let row = row(&api, &new).await;
        let kills: Vec<_> = row.events.iter().filter(|event| event.kind == "kill").collect();
        assert_eq!(kills.len(), 1, "{kills:?}");
        assert_eq!(kills[0].metadata["reason"], "first");
    }

    /// Here the answer's future is dropped as soon as the order has gone out.
    #[tokio::test]
    async fn a_caller_that_hangs_up_does_not_stop_the_kill() {
        let api = Api::with(Ends::KilledLater, Exports::Facts).await;
        let new = new_session();
        api.book.open_session(new.clone()).await.unwrap();
        let request = api.request(Method::PUT, &path(&new), Some(&api.admin)).body(Body::from(ORDER)).unwrap();
        tokio::select! {
            biased;
            () = api.killer_called() => {}
            _ = api.begin(request) => panic!("the kill waits until it is let go"),
        }
        api.let_kill_go();
        let ended = async {
            while row(&api, &new).await.outcome != Some(Outcome::Killed) {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), ended).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_not_there_or_not_live_is_not_killed() {
        let api = Api::new().await;
        let (live, denied) = (new_session(), denied_session());
        api.book.open_session(live.clone()).await.unwrap();
        api.book.open_session(denied.clone()).await.unwrap();
        api.put(&path(&denied), ORDER).await.refused(409, "already ended");
        let other = NewSession { socket_name: "other".into(), ..live.clone() };
        api.put(&path(&other), ORDER).await.refused(404, "no such session");
        let nobody = NewSession { session_id: Uuid::now_v7(), ..live.clone() };
        api.put(&path(&nobody), ORDER).await.refused(404, "no such session");
        assert!(!row(&api, &live).await.killed);
        assert!(!row(&api, &denied).await.killed);
    }

    #[tokio::test]
    async fn a_bad_order_is_refused_and_changes_nothing() {
        let api = Api::new().await;
        let new = new_session();
        api.book.open_session(new.clone()).await.unwrap();
        let too_long = json!({"killed": true, "reason": "é".repeat(501)}).to_string();
        let table = [
            ("", "EOF"),
            ("[]", "the body"),
            ("{", "EOF"),
            (r#"{"killed": true}"#, "`reason`"),
            (r#"{"reason": "x"}"#, "`killed`"),
            (r#"{"killed": false, "reason": "x"}"#, "`killed` must be true"),
            (r#"{"killed": "true", "reason": "x"}"#, "boolean"),
            (r#"{"killed": true, "reason": "  "}"#, "`reason` must have"),
            (r#"{"killed": true, "reason": "a\u001b[31m"}"#, "control"),
            (r#"{"killed": true, "reason": "x", "lock": "soon"}"#, "`15m`"),
            (r#"{"killed": true, "reason": "x", "lock": "0s"}"#, "`15m`"),
            (r#"{"killed": true, "reason": "x", "lock": true}"#, "string"),
            (r#"{"killed": true, "reason": "x", "recording_id": "1"}"#, "UUID"),
            (
                r#"{"killed": true, "reason": "x", "lock": "15m", "recording_id": "00000000-0000-0000-0000-000000000001"}"#,
                "`lock` is for a whole session",
            ),
            (r#"{"killed": true, "reason": "x", "force": 1}"#, "`force`"),
            (r#"{"killed": true, "reason": "x"} trailing"#, "trailing"),
            (too_long.as_str(), "`reason` must have 1 to 500"),
        ];
        for (body, words) in table {
            api.put(&path(&new), body.to_owned()).await.refused(400, words);
        }
        api.put(&format!("{}?force=1", path(&new)), ORDER).await.refused(400, "`force`");
        let huge = json!({"killed": true, "reason": "x".repeat(70_000)}).to_string();
        api.put(&path(&new), huge.clone()).await.refused(413, "too large");
        let pieces =
            huge.into_bytes().chunks(1000).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect::<Vec<_>>();
        let streamed = Body::from_stream(futures_util::stream::iter(pieces));
        api.put(&path(&new), streamed).await.refused(413, "too large");
        assert!(!row(&api, &new).await.killed);
        let longest = json!({"killed": true, "reason": "é".repeat(500)}).to_string();
        assert_eq!(api.put(&path(&new), longest).await.status.as_u16(), 200);
    }
}
