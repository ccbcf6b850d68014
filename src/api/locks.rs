//! `GET` and `POST /locks`, `DELETE /lock/{lock_id}`: who or what is kept out for now, whatever the rules say.
//!
//! Whoever may end everybody's sessions may lock; whoever may read everybody's may see the locks.

use std::net::IpAddr;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use futures_util::future::BoxFuture;
use ipnet::{IpNet, Ipv4Net};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::require;
use super::parameters::{LockId, Parameters};
use super::{ApiError, ApiState, Shared, body};
use crate::config::size;
use crate::identity::tokens::{Caller, Scope};
use crate::policy::{Lock, LockTarget};
use crate::record::export::escape::is_unsafe;
use crate::store::StoreError;

/// Puts locks into force: in the book, and for whoever is asked from then on.
pub trait Locker: Send + Sync + 'static {
    /// Adds a lock, and returns how many live sessions it ends. In force once this returns.
    fn lock<'a>(&'a self, lock: Lock) -> BoxFuture<'a, Result<usize, StoreError>>;
    /// Takes a lock off and returns it; `None`: no such lock is in force.
    fn unlock<'a>(&'a self, id: Uuid, by: &'a str) -> BoxFuture<'a, Result<Option<Lock>, StoreError>>;
    /// Puts into force what stands in the book already.
    fn apply(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// `GET /locks`.
#[utoipa::path(
    get, path = "/api/v1/locks", operation_id = "list_locks", tag = "locks",
    responses((status = 200, description = "The locks in force, newest first.", body = LockList)),
)]
pub(super) async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Json<LockList>, ApiError> {
    require(&caller, Scope::SessionsRead)?;
    parameters.finish()?;
    let locks = shared.api.store.locks(Timestamp::now()).await?;
    Ok(Json(LockList { locks: locks.into_iter().map(LockRow::from).collect() }))
}

/// `POST /locks`.
#[utoipa::path(
    post, path = "/api/v1/locks", operation_id = "lock", tag = "locks", request_body = WantedLock,
    responses((status = 201, description = "The lock, which is in force.", body = NewLock)),
)]
pub(super) async fn lock(
    State(shared): State<Shared>,
    caller: Caller,
    parameters: Parameters,
    request: Request,
) -> Result<(StatusCode, Json<NewLock>), ApiError> {
    require(&caller, Scope::SessionsKill)?;
    parameters.finish()?;
    let wanted: WantedLock = body::read(request).await?;
    let target = wanted.target.checked(&shared.api)?;
    let lock = new(target, reason(&wanted.reason)?, &caller, wanted.r#for.as_deref())?;
    tracing::info!(lock = %lock.lock_id, by = lock.by, reason = lock.reason, target = ?lock.target, "locked");
    let locker = shared.api.lock;
    // On a task of its own: a client that hangs up must not leave a lock that stands in the book and is not in force.
    let told = lock.clone();
    let ended = carried_out(tokio::spawn(async move { locker.lock(lock).await }).await)?;
    Ok((StatusCode::CREATED, Json(NewLock { lock: told.into(), ended })))
}

/// `DELETE /lock/{lock_id}`.
#[utoipa::path(
    delete, path = "/api/v1/lock/{lock_id}", operation_id = "unlock", tag = "locks", params(LockId),
    responses((status = 200, description = "The lock, which is in force no more.", body = LockRow)),
)]
pub(super) async fn unlock(
    State(shared): State<Shared>,
    caller: Caller,
    LockId { lock: id }: LockId,
    parameters: Parameters,
) -> Result<Json<LockRow>, ApiError> {
    require(&caller, Scope::SessionsKill)?;
    parameters.finish()?;
    let (locker, by) = (shared.api.lock, caller.name().to_owned());
    let removed = carried_out(tokio::spawn(async move { locker.unlock(id, &by).await }).await)?;
    let removed = removed.ok_or_else(|| ApiError::not_found("there is no such lock in force"))?;
    tracing::info!(lock = %id, by = caller.name(), "unlocked");
    Ok(Json(removed.into()))
}

/// A lock from now on, for as long as `wanted` says, which is as in the configuration.
pub(super) fn new(target: LockTarget, reason: &str, by: &Caller, wanted: Option<&str>) -> Result<Lock, ApiError> {
    // As the book keeps it, so that all answers about it are alike.
    let now = Timestamp::now();
    let created = Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now);
    let until = match wanted.map(size::duration) {
        None => None,
        Some(Ok(lasts)) if !lasts.is_zero() => created.checked_add(lasts).ok(),
        Some(_) => return Err(ApiError::bad_request("how long a lock lasts must be written as `15m` or `12h`")),
    };
    let (reason, by) = (reason.to_owned(), by.name().to_owned());
    Ok(Lock { lock_id: Uuid::now_v7(), target, reason, by, created, until })
}

fn carried_out<T>(done: Result<Result<T, StoreError>, tokio::task::JoinError>) -> Result<T, ApiError> {
    let failed = |_panicked_or_stopping| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the gateway failed to carry out the order")
    };
    Ok(done.map_err(failed)??)
}

/// A lock as it is asked for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WantedLock {
    target: Target,
    /// Why; shown to whom it keeps out.
    #[schema(min_length = 1, max_length = 256)]
    reason: String,
    /// For how long, as `15m` or `12h`; left out: until it is taken off.
    r#for: Option<String>,
}

/// Whom or what a lock keeps out: what fits all that is named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Target {
    /// A person's e-mail address.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// A group.
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    /// A socket's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    socket: Option<String>,
    /// A client's address or network.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// True, and nothing else named: everybody, everywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    everything: Option<bool>,
}

/// A lock.
#[derive(Serialize, ToSchema)]
pub(super) struct LockRow {
    /// Its id.
    lock_id: Uuid,
    target: Target,
    /// Why.
    reason: String,
    /// Who set it.
    by: String,
    /// Since when.
    created: Timestamp,
    /// Until when; null: until it is taken off.
    #[schema(required)]
    until: Option<Timestamp>,
}

/// A lock that was just set.
#[derive(Serialize, ToSchema)]
pub(super) struct NewLock {
    #[serde(flatten)]
    lock: LockRow,
    /// How many live sessions it ends.
    ended: usize,
}

/// The locks in force, newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct LockList {
    locks: Vec<LockRow>,
}

impl Target {
    fn checked(self, api: &ApiState) -> Result<LockTarget, ApiError> {
        let Self { user, group, socket, address, everything } = self;
        let target = LockTarget {
            user: user.map(|user| named("user", &user)).transpose()?,
            group: group.map(|group| named("group", &group)).transpose()?,
            socket: socket.map(|socket| known(&socket, api)).transpose()?,
            address: address.map(|address| network(&address)).transpose()?,
        };
        match (everything.unwrap_or_default(), target == LockTarget::default()) {
            (false, false) | (true, true) => Ok(target),
            (false, true) => Err(ApiError::bad_request(
                "`target` must name a `user`, `group`, `socket` or `address`; to lock all: `{\"everything\": true}`",
            )),
            (true, false) => Err(ApiError::bad_request("`everything` leaves nothing else to name in `target`")),
        }
    }
}

impl From<Lock> for LockRow {
    fn from(lock: Lock) -> Self {
        let Lock { lock_id, target, reason, by, created, until } = lock;
        let everything = (target == LockTarget::default()).then_some(true);
        let LockTarget { user, group, socket, address } = target;
        let address = address.map(|network| network.to_string());
        Self { lock_id, target: Target { user, group, socket, address, everything }, reason, by, created, until }
    }
}

fn reason(words: &str) -> Result<&str, ApiError> {
    let words = words.trim();
    if words.is_empty() || words.chars().count() > REASON_CHARS {
        return Err(ApiError::bad_request(format!("`reason` must have 1 to {REASON_CHARS} characters")));
    }
    // It is shown in terminals.
    if words.chars().any(|c| c.is_control() || is_unsafe(c)) {
        return Err(ApiError::bad_request("`reason` must not have control characters, or others that cannot be seen"));
    }
    Ok(words)
}

/// A person or a group. Nobody needs to have heard of them: a lock may come before the first sign-in.
fn named(what: &str, name: &str) -> Result<String, ApiError> {
    let name = name.trim();
    let fits =
        (1..=NAME_CHARS).contains(&name.chars().count()) && !name.chars().any(|c| c.is_control() || is_unsafe(c));
    let words = || format!("`{what}` must have 1 to {NAME_CHARS} characters, and none that cannot be seen");
    fits.then(|| name.to_owned()).ok_or_else(|| ApiError::bad_request(words()))
}

fn known(name: &str, api: &ApiState) -> Result<String, ApiError> {
    let in_force = api.rules.now();
    if in_force.sockets.get(name).is_some() {
        return Ok(name.to_owned());
    }
    let names: Vec<&str> = in_force.sockets.all().iter().map(|socket| socket.name.as_str()).collect();
    let more = if names.len() > NAMES_TOLD { ", …" } else { "" };
    let told = names.iter().take(NAMES_TOLD).copied().collect::<Vec<_>>().join(", ");
    Err(ApiError::bad_request(format!("there is no such `socket`; there are: {told}{more}")))
}

/// A network or an address. What is an IPv4 address in IPv6's clothes is the same client.
fn network(text: &str) -> Result<IpNet, ApiError> {
    let network = match (text.parse::<IpNet>(), text.parse::<IpAddr>()) {
        (Ok(network), _) => network.trunc(),
        (_, Ok(address)) => address.into(),
        _ => {
            return Err(ApiError::bad_request(
                "`address` must be an address or a network, as `192.0.2.7` or `10.0.0.0/8`",
            ));
        }
    };
    let inner = match network.addr().to_canonical() {
        IpAddr::V4(inner) => network.prefix_len().checked_sub(MAPPED).and_then(|bits| Ipv4Net::new(inner, bits).ok()),
        IpAddr::V6(_) => None,
    };
    Ok(match (network, inner) {
        (IpNet::V6(_), Some(inner)) => inner.into(),
        (network, _) => network,
    })
}

/// The longest reason, in characters.
const REASON_CHARS: usize = 256;
/// The longest e-mail address (RFC 3696, erratum 1690) fits.
const NAME_CHARS: usize = 320;
/// Sockets that are named when one was not found.
const NAMES_TOLD: usize = 20;
/// Bits before the IPv4 address in an IPv4-mapped one (RFC 4291 section 2.5.5.2).
const MAPPED: u8 = 96;

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Method;
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;
    use crate::api::testing::{Answer, Api};

    async fn post(api: &Api, body: impl Into<Body>) -> Answer {
        api.send(api.request(Method::POST, "/api/v1/locks", Some(&api.admin)).body(body.into()).unwrap()).await
    }

    async fn delete(api: &Api, id: &str) -> Answer {
        let path = format!("/api/v1/lock/{id}");
        api.send(api.request(Method::DELETE, &path, Some(&api.admin)).body(Body::empty()).unwrap()).await
    }

    #[tokio::test]
    async fn a_lock_is_told_listed_and_taken_off() {
        let api = Api::new().await;
        assert_eq!(api.get("/api/v1/locks").await.json(), json!({"locks": []}));
        let wanted = json!({"target": {"user": " alice@example.com ", "socket": "shell"}, "reason": " laptop lost ", "for": "15m"});
        let answer = post(&api, wanted.to_string()).await;
        assert_eq!(answer.status.as_u16(), 201);
        let mut told = answer.json();
        assert_eq!(told.as_object_mut().unwrap().remove("ended"), Some(json!(1)));
        assert_eq!(told["target"], json!({"user": "alice@example.com", "socket": "shell"}));
        assert_eq!((&told["reason"], &told["by"]), (&json!("laptop lost"), &json!("admin@example.com")));
        let time = |name: &str| told[name].as_str().unwrap().parse::<Timestamp>().unwrap();
        assert_eq!(time("until").duration_since(time("created")).as_secs(), 900);
        let all = post(&api, r#"{"target": {"everything": true}, "reason": "x"}"#).await.json();
        assert_eq!((&all["target"], &all["until"]), (&json!({"everything": true}), &Value::Null));
        let listed = api.get("/api/v1/locks").await.json();
        assert_eq!(listed["locks"][1], told);
        assert_eq!(listed["locks"][0]["lock_id"], all["lock_id"], "newest first");
        let id = told["lock_id"].as_str().unwrap().to_owned();
        assert_eq!(delete(&api, &id).await.json(), told);
        delete(&api, &id).await.refused(404, "no such lock");
        delete(&api, &Uuid::now_v7().to_string()).await.refused(404, "no such lock");
        delete(&api, "x").await.refused(400, "`lock_id` must be a UUID");
        assert_eq!(api.get("/api/v1/locks").await.json()["locks"].as_array().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn what_makes_no_lock_is_refused_with_words_and_changes_nothing() {
        let api = Api::new().await;
        let long = "é".repeat(257);
        let table = [
            (json!({"reason": "x"}), "`target`"),
            (json!({"target": {"socket": "shell"}}), "`reason`"),
            (json!({"target": {}, "reason": "x"}), "must name"),
            (json!({"target": {"everything": false}, "reason": "x"}), "must name"),
            (json!({"target": {"everything": true, "socket": "shell"}, "reason": "x"}), "nothing else"),
            (json!({"target": {"person": "alice"}, "reason": "x"}), "`person`"),
            (json!({"target": {"socket": "shel"}, "reason": "x"}), "there are: shell"),
            (json!({"target": {"user": " "}, "reason": "x"}), "`user` must"),
            (json!({"target": {"group": "a\nb"}, "reason": "x"}), "`group` must"),
            (json!({"target": {"address": "office"}, "reason": "x"}), "`address` must"),
            (json!({"target": {"address": "10.0.0.0/33"}, "reason": "x"}), "`address` must"),
            (json!({"target": {"socket": "shell"}, "reason": "  "}), "1 to 256"),
            (json!({"target": {"socket": "shell"}, "reason": long}), "1 to 256"),
            (json!({"target": {"socket": "shell"}, "reason": "a\u{1b}[31m"}), "control"),
            (json!({"target": {"socket": "shell"}, "reason": "a\u{202e}b"}), "control"),
            (json!({"target": {"socket": "shell"}, "reason": "x", "for": "soon"}), "`15m`"),
            (json!({"target": {"socket": "shell"}, "reason": "x", "for": "0s"}), "`15m`"),
            (json!({"target": {"socket": "shell"}, "reason": "x", "by": "me"}), "`by`"),
        ];
        for (body, words) in table {
            post(&api, body.to_string()).await.refused(400, words);
        }
        assert_eq!(api.get("/api/v1/locks").await.json(), json!({"locks": []}));
    }

    #[test]
    fn an_address_is_one_however_it_is_written() {
        let table = [
            ("192.0.2.7", "192.0.2.7/32"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("::ffff:192.0.2.7/120", "192.0.2.0/24"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("192.0.2.7/24", "192.0.2.0/24"),
            ("2001:DB8::1", "2001:db8::1/128"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("::/0", "::/0"),
        ];
        for (text, expected) in table {
            assert_eq!(network(text).unwrap().to_string(), expected, "{text}");
        }
    }
}
