//! What a sign-in at the command line gets for itself (`POST /credentials`, `POST /socket-tokens`), and the sign-ins
//! there are: listed and revoked, one's own or, for an administrator, everybody's.
//!
//! Only a sign-in's own token gets credentials: a token that a program keeps must not grow into a person's certificate.

use std::net::{IpAddr, SocketAddr};

use axum::Json;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::StatusCode;
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::require;
use super::parameters::{Pages, Pagination, Parameters, SignInId};
use super::{ApiError, Shared, body};
use crate::error::{Fault, UserFacing};
use crate::identity::Identity;
use crate::identity::sign_ins::{NotCertified, SignInError};
use crate::identity::ssh_ca::SshCa;
use crate::identity::tokens::{Caller, Scope};
use crate::socket::Protocol;
use crate::store::{SignInRow, SignInsOf};

/// The keys to be certified. Either may be left out.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    /// One line, as in `id_ed25519.pub`: Ed25519, ECDSA, or RSA from 2048 bits on.
    ssh_public_key: Option<String>,
    /// A certificate signing request (PKCS #10) in PEM; only its key counts.
    x509_csr: Option<String>,
}

/// What a sign-in's owner gets for their keys.
#[derive(Serialize, ToSchema)]
pub(super) struct Credentials {
    /// An OpenSSH certificate, one line.
    #[schema(required)]
    ssh_certificate: Option<String>,
    /// A line of `known_hosts` that trusts the gateway.
    ssh_known_hosts: String,
    /// An X.509 certificate in PEM.
    #[schema(required)]
    x509_certificate: Option<String>,
    /// The gateway's authority in PEM.
    ca: String,
    /// When all of it ends.
    expires: Timestamp,
}

/// For which socket a token is wanted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ForSocket {
    /// Its name.
    socket: String,
}

/// A token for one socket, from the caller's address.
#[derive(Serialize, ToSchema)]
pub(super) struct SocketToken {
    token: String,
    socket: String,
    /// Until when something may be opened with it.
    expires: Timestamp,
}

/// A page of the sign-ins that count now, newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct SignInList {
    pagination: Pagination,
    sign_ins: Vec<SignIn>,
}

/// A sign-in that counts now.
#[derive(Serialize, ToSchema)]
struct SignIn {
    sign_in_id: Uuid,
    user_email: String,
    #[schema(required)]
    name: Option<String>,
    #[schema(value_type = String)]
    client_ip: IpAddr,
    /// The program, as it calls itself.
    #[schema(required)]
    software: Option<String>,
    created: Timestamp,
    expires: Timestamp,
    /// Whether the caller's own token belongs to it.
    current: bool,
}

/// What was revoked.
#[derive(Serialize, ToSchema)]
pub(super) struct Revoked {
    /// Sign-ins, each with all that it issued.
    sign_ins: usize,
    /// SSH keys that links had vouched for.
    remembered_keys: usize,
    /// Tokens that this person made for programs, or that those made.
    tokens: usize,
}

/// `POST /credentials`.
#[utoipa::path(
    post, path = "/api/v1/credentials", operation_id = "certify_keys", tag = "sign-ins",
    request_body = Keys,
    responses((status = 200, description = "The certificates, until the sign-in ends.", body = Credentials)),
)]
pub(super) async fn certify(
    State(shared): State<Shared>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    caller: Caller,
    parameters: Parameters,
    request: Request,
) -> Result<Json<Credentials>, ApiError> {
    let (sign_in, who) = own_sign_in(&shared, &caller).await?;
    parameters.finish()?;
    let keys: Keys = body::read(request).await?;
    let certified =
        shared.api.sign_ins.certify(sign_in, keys.ssh_public_key.as_deref(), keys.x509_csr.as_deref()).await?;
    // With `ssh -J` a socket is a host: the gateway stands for those that this person knows.
    let sockets = (shared.api.reachable)(who, client.ip().to_canonical());
    let names = sockets.iter().filter(|socket| socket.protocol == Protocol::Ssh).map(|socket| socket.name.clone());
    Ok(Json(Credentials {
        ssh_certificate: certified.ssh_certificate,
        ssh_known_hosts: SshCa::known_hosts_with(&certified.ssh_known_hosts, names),
        x509_certificate: certified.x509_certificate,
        ca: certified.ca,
        expires: certified.expires,
    }))
}

/// `POST /socket-tokens`. A socket that does not exist is answered as one that this person may not reach.
#[utoipa::path(
    post, path = "/api/v1/socket-tokens", operation_id = "make_socket_token", tag = "sign-ins",
    request_body = ForSocket,
    responses((status = 200, description = "The token; ten minutes to open something with.", body = SocketToken)),
)]
pub(super) async fn socket_token(
    State(shared): State<Shared>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    caller: Caller,
    parameters: Parameters,
    request: Request,
) -> Result<Json<SocketToken>, ApiError> {
    let (sign_in, who) = own_sign_in(&shared, &caller).await?;
    parameters.finish()?;
    let ForSocket { socket } = body::read(request).await?;
    let client = client.ip().to_canonical();
    if !(shared.api.reachable)(who, client).iter().any(|one| one.name == socket) {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "there is no such socket, or you may not reach it from here"));
    }
    let made = shared.api.sign_ins.socket_token(sign_in, &socket, client).await?;
    Ok(Json(SocketToken { token: made.token.expose_secret().to_owned(), socket, expires: made.expires }))
}

/// `GET /sign-ins`.
#[utoipa::path(
    get, path = "/api/v1/sign-ins", operation_id = "list_sign_ins", tag = "sign-ins",
    params(
        ("user_email" = Option<String>, Query, description = "Whose; takes the scope `admin` for somebody else's."),
        Pages,
    ),
    responses((status = 200, description = "One's own, or with the scope `admin` everybody's.", body = SignInList)),
)]
pub(super) async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    mut parameters: Parameters,
) -> Result<Json<SignInList>, ApiError> {
    let (email, pages) = (email(&mut parameters)?, Pages::take(&mut parameters)?);
    parameters.finish()?;
    let of = match (caller.may(Scope::Admin), email, caller.identity()) {
        (true, Some(email), _) => SignInsOf::Email(email),
        (true, None, _) => SignInsOf::All,
        (false, email, Some(who)) if email.as_ref().is_none_or(|email| email == who.email()) => own(who),
        _ => return Err(require(&caller, Scope::Admin).err().unwrap_or_else(ApiError::unauthorized)),
    };
    let (rows, total) = shared.api.sign_ins.list(of, pages.page, pages.size).await?;
    let pagination = pages.of(total);
    Ok(Json(SignInList { pagination, sign_ins: rows.into_iter().map(|row| shown(row, &caller)).collect() }))
}

/// `DELETE /sign-in/{sign_in_id}`. Somebody else's is answered as one that does not exist.
#[utoipa::path(
    delete, path = "/api/v1/sign-in/{sign_in_id}", operation_id = "revoke_sign_in", tag = "sign-ins",
    params(SignInId),
    responses((status = 200, description = "It is revoked, with all that it issued.", body = Revoked)),
)]
pub(super) async fn revoke(
    State(shared): State<Shared>,
    caller: Caller,
    SignInId { sign_in: id }: SignInId,
    parameters: Parameters,
) -> Result<Json<Revoked>, ApiError> {
    parameters.finish()?;
    let none = || ApiError::not_found("there is no such sign-in, or it has ended");
    let row = match shared.api.sign_ins.living(id).await {
        Err(SignInError::Over) => {
            if caller.may(Scope::Admin) {
                // It counts for nothing any more, but what was opened by it may go on.
                shared.api.sign_ins.revoke(id, caller.name()).await?;
                shared.api.changes.hear().await;
            }
            return Err(none());
        }
        row => row?,
    };
    let is_own = caller.identity().is_some_and(|who| same_person(who, &row.identity));
    if !is_own && !caller.may(Scope::Admin) {
        return Err(none());
    }
    let revoked = shared.api.sign_ins.revoke(id, caller.name()).await?;
    shared.api.changes.hear().await;
    match revoked {
        true => Ok(Json(Revoked { sign_ins: 1, remembered_keys: 0, tokens: 0 })),
        false => Err(none()),
    }
}

/// `DELETE /sign-ins?user_email=`: everything of a person, SSH keys that links remembered and tokens that they made too.
#[utoipa::path(
    delete, path = "/api/v1/sign-ins", operation_id = "revoke_person", tag = "sign-ins",
    params(("user_email" = String, Query, description = "Whose.")),
    responses((status = 200, description = "Everything of that person is revoked.", body = Revoked)),
)]
pub(super) async fn revoke_person(
    State(shared): State<Shared>,
    caller: Caller,
    mut parameters: Parameters,
) -> Result<Json<Revoked>, ApiError> {
    require(&caller, Scope::Admin)?;
    let email = email(&mut parameters)?;
    parameters.finish()?;
    let email = email.ok_or_else(|| ApiError::bad_request("`user_email` must say whose"))?;
    let revoked = shared.api.sign_ins.revoke_person(&email, caller.name()).await?;
    shared.api.changes.hear().await;
    Ok(Json(Revoked { sign_ins: revoked.sign_ins, remembered_keys: revoked.keys, tokens: revoked.tokens }))
}

impl From<SignInError> for ApiError {
    fn from(error: SignInError) -> Self {
        match error {
            SignInError::Store(error) => error.into(),
            other => from_fault(&other, StatusCode::FORBIDDEN),
        }
    }
}

impl From<NotCertified> for ApiError {
    fn from(error: NotCertified) -> Self {
        match error {
            NotCertified::SignIn(error) => error.into(),
            other => from_fault(&other, StatusCode::BAD_REQUEST),
        }
    }
}

fn from_fault<E: UserFacing + std::error::Error + 'static>(error: &E, client: StatusCode) -> ApiError {
    let status = match error.fault() {
        Fault::Client => client,
        Fault::Upstream | Fault::Gateway => {
            tracing::error!(error = error as &dyn std::error::Error, "credentials could not be made");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    ApiError::new(status, error.told())
}

/// The command line's sign-in whose token this is.
async fn own_sign_in<'a>(shared: &Shared, caller: &'a Caller) -> Result<(Uuid, &'a Identity), ApiError> {
    let words = "only `gatescribe login` gets credentials; this token belongs to no sign-in";
    let own = caller.sign_in().zip(caller.identity());
    let (sign_in, who) = own.ok_or_else(|| ApiError::new(StatusCode::FORBIDDEN, words))?;
    shared.api.sign_ins.of_command_line(sign_in).await?;
    Ok((sign_in, who))
}

fn own(who: &Identity) -> SignInsOf {
    SignInsOf::Person { issuer: who.issuer().to_owned(), subject: who.subject().to_owned() }
}

fn same_person(one: &Identity, other: &Identity) -> bool {
    (one.issuer(), one.subject()) == (other.issuer(), other.subject())
}

fn shown(row: SignInRow, caller: &Caller) -> SignIn {
    SignIn {
        sign_in_id: row.sign_in_id,
        user_email: row.identity.email().to_owned(),
        name: row.identity.name().map(str::to_owned),
        client_ip: row.client_ip,
        software: row.software,
        created: row.created,
        expires: row.identity.expires(),
        current: caller.sign_in() == Some(row.sign_in_id),
    }
}

fn email(parameters: &mut Parameters) -> Result<Option<String>, ApiError> {
    parameters.take("user_email", "an e-mail address", |text| Some(text.to_owned()).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Method;
    use jiff::SignedDuration;
    use serde_json::json;

    use super::*;
    use crate::api::testing::{Answer, Api};
    use crate::identity::sign_ins::Begun;
    use crate::store::testing::identity;

    async fn begin(api: &Api) -> Begun {
        let who = identity(Timestamp::now() + SignedDuration::from_hours(1));
        api.sign_ins.begin(who, "192.0.2.1".parse().unwrap(), "tests").await.unwrap()
    }

    async fn send(api: &Api, method: Method, path: &str, token: &str, body: &str) -> Answer {
        let request = api.request(method, &format!("/api/v1/{path}"), Some(token)).body(Body::from(body.to_owned()));
        api.send(request.unwrap()).await
    }

    #[tokio::test]
    async fn a_token_for_a_socket_is_for_who_may_reach_it() {
        let api = Api::new().await;
        let begun = begin(&api).await;
        let token = begun.token.expose_secret();
        let made = send(&api, Method::POST, "socket-tokens", token, r#"{"socket": "shell"}"#).await;
        assert_eq!((made.status.as_u16(), made.json()["socket"].as_str()), (200, Some("shell")));
        let address = "192.0.2.1".parse().unwrap();
        let secret = made.json()["token"].as_str().unwrap().to_owned();
        assert!(api.sign_ins.by_socket_token(&secret, "shell", address).await.unwrap().is_some());
        let other = send(&api, Method::POST, "socket-tokens", token, r#"{"socket": "other"}"#).await;
        let unknown = send(&api, Method::POST, "socket-tokens", token, r#"{"socket": "unknown"}"#).await;
        other.refused(403, "no such socket, or you may not");
        assert_eq!(other.body, unknown.body, "one that may not be reached looks like one that is not there");
        for body in ["", "{}", r#"{"socket": 1}"#, r#"{"socket": "shell", "x": 1}"#] {
            send(&api, Method::POST, "socket-tokens", token, body).await.refused(400, "the body");
        }
    }

    #[tokio::test]
    async fn a_token_of_no_sign_in_gets_no_credentials() {
        let api = Api::new().await;
        for (path, body) in [("credentials", "{}"), ("socket-tokens", r#"{"socket": "shell"}"#)] {
            send(&api, Method::POST, path, &api.admin, body).await.refused(403, "only `gatescribe login`");
        }
        let begun = begin(&api).await;
        let token = begun.token.expose_secret();
        let answer = send(&api, Method::POST, "credentials", token, "{}").await.json();
        assert!(answer["ssh_certificate"].is_null() && answer["x509_certificate"].is_null());
        assert!(answer["ssh_known_hosts"].as_str().unwrap().starts_with("@cert-authority "));
        assert_eq!(answer["expires"], json!(begun.expires));
        for body in ["[]", r#"{"x": 1}"#, r#"{"ssh_public_key": "x"}"#, r#"{"x509_csr": "x"}"#] {
            assert_eq!(send(&api, Method::POST, "credentials", token, body).await.status.as_u16(), 400, "{body}");
        }
        let long = format!("{{\"ssh_public_key\": \"{}\"}}", "x".repeat(64 << 10));
        assert_eq!(send(&api, Method::POST, "credentials", token, &long).await.status.as_u16(), 413);
    }

    #[tokio::test]
    async fn sign_ins_are_listed_and_revoked_by_their_person_or_an_administrator() {
        let api = Api::new().await;
        let (one, two) = (begin(&api).await, begin(&api).await);
        let token = one.token.expose_secret();
        let listed = send(&api, Method::GET, "sign-ins", token, "").await.json();
        let listed = listed["sign_ins"].as_array().unwrap().clone();
        assert_eq!(listed.len(), 2);
        let current: Vec<_> = listed.iter().filter(|row| row["current"] == true).collect();
        assert_eq!(current[0]["sign_in_id"], json!(one.sign_in_id));
        assert_eq!(current[0]["client_ip"], "192.0.2.1");
        assert_eq!(send(&api, Method::GET, "sign-ins?user_email=alice@example.com", token, "").await.status, 200);
        let others = send(&api, Method::GET, "sign-ins?user_email=bob@example.com", token, "").await;
        others.refused(403, "this token may not");
        send(&api, Method::DELETE, "sign-ins?user_email=alice@example.com", token, "").await.refused(403, "may not");
        let second = send(&api, Method::GET, "sign-ins?page=2&page_size=1", token, "").await.json();
        let expected = json!({"current_page": 2, "next_page": 0, "total_records": 2, "total_pages": 2});
        assert_eq!((&second["pagination"], &second["sign_ins"]), (&expected, &json!([listed[1]])));
        send(&api, Method::GET, "sign-ins?page=0", token, "").await.refused(400, "`page`");
        send(&api, Method::GET, "sign-ins?x=1", token, "").await.refused(400, "unknown parameter");
        send(&api, Method::DELETE, &format!("sign-in/{}", Uuid::now_v7()), token, "").await.refused(404, "no such");

        let path = format!("sign-in/{}", two.sign_in_id);
        assert_eq!(send(&api, Method::DELETE, &path, token, "").await.status, 200);
        send(&api, Method::DELETE, &path, token, "").await.refused(404, "has ended");
        send(&api, Method::GET, "sign-ins", two.token.expose_secret(), "").await.refused(401, "token");

        // The administrator's own, and the one of alice's that is left.
        let all = send(&api, Method::GET, "sign-ins", &api.admin, "").await.json();
        assert_eq!(all["sign_ins"].as_array().unwrap().len(), 2);
        let none = send(&api, Method::GET, "sign-ins?user_email=bob@example.com", &api.admin, "").await.json();
        assert_eq!(none["sign_ins"], json!([]));
        send(&api, Method::DELETE, "sign-ins", &api.admin, "").await.refused(400, "user_email");
        let ended = send(&api, Method::DELETE, "sign-ins?user_email=ALICE@example.com", &api.admin, "").await.json();
        assert_eq!(ended, json!({ "sign_ins": 1, "remembered_keys": 0, "tokens": 0 }));
        send(&api, Method::GET, "whoami", token, "").await.refused(401, "token");
    }

    #[tokio::test]
    async fn somebody_elses_sign_in_looks_like_none() {
        let api = Api::new().await;
        let begun = begin(&api).await;
        let mut other = serde_json::to_value(identity(Timestamp::now() + SignedDuration::from_hours(1))).unwrap();
        other["subject"] = "u-2".into();
        let other: Identity = serde_json::from_value(other).unwrap();
        let other = api.sign_ins.begin(other, "192.0.2.1".parse().unwrap(), "").await.unwrap();
        let path = format!("sign-in/{}", other.sign_in_id);
        send(&api, Method::DELETE, &path, begun.token.expose_secret(), "").await.refused(404, "no such sign-in");
        assert_eq!(send(&api, Method::DELETE, &path, &api.admin, "").await.status, 200);
    }
}
