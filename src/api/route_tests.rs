//! Every route of the API for every kind of caller, in one table; one that is not in it fails. Pages, `/oauth` and what
//! is open to everybody (`about`) are tested where they are.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::body::Body;
use axum::http::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use uuid::Uuid;

use super::testing::{Api, path, person};
use crate::identity::tokens::Scope;
use crate::policy::{Lock, LockTarget};
use crate::store::testing::{new_session, recording, socket_id};
use crate::store::{NewSession, SessionRow};

/// Who calls. The session is alice's; everybody is in the group of their own name.
const CALLERS: [&str; 12] = [
    "nobody",
    "expired",
    "alice",
    "bob",
    "audrey",
    "oscar",
    "admin",
    "sessions:read",
    "recordings:read",
    "input:read",
    "sessions:kill",
    "scope admin",
];

/// What a route answers to each of [`CALLERS`], in their order.
struct Line {
    method: Method,
    /// As in the API's description.
    route: &'static str,
    /// What follows the path.
    query: &'static str,
    body: &'static str,
    answers: [u16; 12],
}

fn line(method: Method, route: &'static str, query: &'static str, body: &'static str, answers: [u16; 12]) -> Line {
    Line { method, route, query, body, answers }
}

const SESSION: &str = "/api/v1/session/{socket_id}/{session_id}";
const LOG: &str = "/api/v1/session/{socket_id}/{session_id}/session_log";
const WATCH: &str = "/api/v1/session/{socket_id}/{session_id}/watch";
const SHELL: &str = r#"{"socket": "shell"}"#;
const ASK: &str = r#"{"user": "alice@example.com", "socket": "shell"}"#;
const LEVEL: &str = r#"{"level": "debug"}"#;
const KILL: &str = r#"{"killed": true, "reason": "x"}"#;
const LOCK: &str = r#"{"target": {"socket": "shell"}, "reason": "x"}"#;
const KILL_AND_LOCK: &str = r#"{"killed": true, "reason": "x", "lock": "15m"}"#;
const TOKEN: &str = r#"{"label": "x", "scopes": ["admin"], "lifetime": "1m"}"#;

#[rustfmt::skip]
fn table() -> Vec<Line> {
    let (get, put, post, delete) = (Method::GET, Method::PUT, Method::POST, Method::DELETE);
    //                                                   nobody expired alice bob audrey oscar admin s:read r:read i:read s:kill admin
    vec![
        line(get.clone(), "/healthz", "", "",               [200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200]),
        line(get.clone(), "/readyz", "", "",                [200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200]),
        line(get.clone(), "/metrics", "", "",               [401, 401, 403, 403, 200, 200, 200, 200, 403, 403, 403, 200]),
        line(get.clone(), "/openapi.json", "", "",          [401, 401, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200]),
        line(get.clone(), "/api/v1/openapi.json", "", "",   [401, 401, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200]),
        line(get.clone(), "/api/v1/whoami", "", "",         [401, 401, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200]),
        line(get.clone(), "/api/v1/sockets", "", "",        [401, 401, 200, 200, 200, 200, 200, 403, 403, 403, 403, 403]),
        line(get.clone(), "/api/v1/policies", "", "",       [401, 401, 403, 403, 200, 200, 200, 200, 403, 403, 403, 200]),
        line(post.clone(), "/api/v1/policy/test", "", ASK,  [401, 401, 403, 403, 200, 200, 200, 200, 403, 403, 403, 200]),
        line(get.clone(), "/api/v1/sessions", "", "",       [401, 401, 200, 200, 200, 200, 200, 200, 403, 403, 403, 200]),
        line(get.clone(), "/api/v1/sessions", "?changed_after=0", "",
                                                            [401, 401, 200, 200, 200, 200, 200, 200, 403, 403, 403, 200]),
        line(get.clone(), SESSION, "", "",                  [401, 401, 200, 404, 200, 200, 200, 200, 403, 403, 403, 200]),
        line(put.clone(), SESSION, "", KILL,                [401, 401, 200, 404, 403, 200, 200, 403, 403, 403, 200, 200]),
        // To lock is about everybody's sessions, also where the session is one's own.
        line(put.clone(), SESSION, "", KILL_AND_LOCK,       [401, 401, 403, 403, 403, 200, 200, 403, 403, 403, 200, 200]),
        line(get.clone(), LOG, "", "",                      [401, 401, 200, 404, 200, 200, 200, 403, 200, 403, 403, 200]),
        line(get.clone(), LOG, "?input=true", "",           [401, 401, 403, 403, 403, 403, 200, 403, 403, 403, 403, 200]),
        line(get.clone(), LOG, "?format=raw", "",           [401, 401, 403, 403, 403, 403, 200, 403, 403, 403, 403, 200]),
        // 400: it is no WebSocket, which is asked once the caller may watch at all.
        line(get.clone(), WATCH, "", "",                    [401, 401, 400, 404, 400, 400, 400, 403, 400, 403, 403, 400]),
        line(get.clone(), WATCH, "?input=true", "",         [401, 401, 403, 403, 403, 403, 400, 403, 403, 403, 403, 400]),
        // Only `gatescribe login` gets credentials, and nobody here is it.
        line(post.clone(), "/api/v1/credentials", "", "{}", [401, 401, 403, 403, 403, 403, 403, 403, 403, 403, 403, 403]),
        line(post.clone(), "/api/v1/socket-tokens", "", SHELL,
                                                            [401, 401, 403, 403, 403, 403, 403, 403, 403, 403, 403, 403]),
        line(get.clone(), "/api/v1/sign-ins", "", "",       [401, 401, 200, 200, 200, 200, 200, 403, 403, 403, 403, 200]),
        line(get.clone(), "/api/v1/sign-ins", "?user_email=zoe@example.com", "",
                                                            [401, 401, 403, 403, 403, 403, 200, 403, 403, 403, 403, 200]),
        line(delete.clone(), "/api/v1/sign-ins", "?user_email=zoe@example.com", "",
                                                            [401, 401, 403, 403, 403, 403, 200, 403, 403, 403, 403, 200]),
        line(delete.clone(), "/api/v1/sign-in/{sign_in_id}", "", "",
                                                            [401, 401, 404, 404, 404, 404, 200, 404, 404, 404, 404, 200]),
        line(get.clone(), "/api/v1/locks", "", "",          [401, 401, 403, 403, 200, 200, 200, 200, 403, 403, 403, 200]),
        line(post.clone(), "/api/v1/locks", "", LOCK,       [401, 401, 403, 403, 403, 201, 201, 403, 403, 403, 201, 201]),
        line(delete.clone(), "/api/v1/lock/{lock_id}", "", "",
                                                            [401, 401, 403, 403, 403, 200, 200, 403, 403, 403, 200, 200]),
        line(get.clone(), "/api/v1/log", "", "",            [401, 401, 403, 403, 403, 403, 200, 403, 403, 403, 403, 200]),
        line(put.clone(), "/api/v1/log", "", LEVEL,         [401, 401, 403, 403, 403, 403, 200, 403, 403, 403, 403, 200]),
        line(get.clone(), "/api/v1/tokens", "", "",         [401, 401, 403, 403, 403, 403, 200, 403, 403, 403, 403, 200]),
        line(post.clone(), "/api/v1/tokens", "", TOKEN,     [401, 401, 403, 403, 403, 403, 201, 403, 403, 403, 403, 201]),
        line(delete.clone(), "/api/v1/token/{token_id}", "", "",
                                                            [401, 401, 403, 403, 403, 403, 200, 403, 403, 403, 403, 200]),
    ]
}

/// The tokens of [`CALLERS`].
async fn tokens(api: &Api) -> Vec<Option<String>> {
    let mut tokens = Vec::new();
    for caller in CALLERS {
        tokens.push(match caller {
            "nobody" => None,
            "expired" => {
                let issued = api.tokens.issue(vec![Scope::Admin], Vec::new(), "old", Duration::ZERO, None).await;
                Some(issued.unwrap().secret.expose_secret().to_owned())
            }
            "scope admin" => Some(api.scoped(Scope::Admin).await),
            scope if scope.contains(':') => Some(api.scoped(serde_json::from_value(json!(scope)).unwrap()).await),
            person => Some(api.person(person).await),
        });
    }
    tokens
}

/// A live session of alice's with a recording.
async fn session(api: &Api) -> NewSession {
    let new = new_session();
    api.book.open_session(new.clone()).await.unwrap();
    api.book.add_recording(new.session_id, recording()).await.unwrap();
    new
}

async fn row(api: &Api, new: &NewSession) -> SessionRow {
    api.book.session(socket_id(new), new.session_id).await.unwrap().unwrap()
}

#[tokio::test]
async fn every_route_answers_every_caller_as_the_table_says() {
    let api = Api::new().await;
    let tokens = tokens(&api).await;
    for line in table() {
        for ((caller, token), expected) in CALLERS.iter().zip(&tokens).zip(line.answers) {
            // A session, a lock and a token of its own for each, because calls end them.
            let new = session(&api).await;
            let doomed =
                api.tokens.issue(vec![Scope::Admin], Vec::new(), "doomed", Duration::from_secs(60), None).await;
            let doomed = doomed.unwrap();
            let zoe = api.sign_ins.begin(person("zoe"), "192.0.2.1".parse().unwrap(), "tests").await.unwrap();
            let now = jiff::Timestamp::now();
            let lock = Lock {
                lock_id: Uuid::now_v7(),
                target: LockTarget::default(),
                reason: "x".into(),
                by: "x".into(),
                created: now,
                until: None,
            };
            api.book.add_lock(lock.clone()).await.unwrap();
            let locks = api.book.locks(now).await.unwrap();
            let route = line.route.replace("{lock_id}", &lock.lock_id.to_string());
            let route = route.replace("{token_id}", &doomed.row.token_id.to_string());
            let route = route.replace("{sign_in_id}", &zoe.sign_in_id.to_string());
            let path = route.replace(SESSION, &super::testing::path(&new)) + line.query;
            let request = api.request(line.method.clone(), &path, token.as_deref()).body(Body::from(line.body));
            let answer = api.send(request.unwrap()).await;
            let words = String::from_utf8_lossy(answer.body.as_ref().unwrap()).into_owned();
            let about = format!("{} {}{} as {caller}: {words}", line.method, line.route, line.query);
            assert_eq!(answer.status.as_u16(), expected, "{about}");
            // What was refused has changed nothing.
            let locks_now = api.book.locks(now).await.unwrap();
            let locks_more = line.body == LOCK || line.body == KILL_AND_LOCK;
            assert_eq!(locks_now.len() > locks.len(), locks_more && expected < 300, "{about}");
            let changed = row(&api, &new).await.killed
                || !locks_now.contains(&locks[0])
                || api.sign_ins.living(zoe.sign_in_id).await.is_err()
                || api
                    .tokens
                    .verify(doomed.secret.expose_secret(), "192.0.2.1".parse().unwrap())
                    .await
                    .unwrap()
                    .is_none();
            let changes = matches!(line.method, Method::PUT | Method::DELETE) && line.route != "/api/v1/log";
            assert_eq!(changed, expected == 200 && changes, "{about}");
        }
    }
}

#[tokio::test]
async fn the_table_has_every_route() {
    let api = Api::new().await;
    let document = api.get("/openapi.json").await.json();
    let documented: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| item.as_object().unwrap().keys().map(|method| (path.clone(), method.to_uppercase())))
        .collect();
    let tabled = table().iter().map(|line| (line.route.to_owned(), line.method.to_string())).collect();
    assert_eq!(documented, tabled);
}

#[tokio::test]
async fn somebody_else_s_session_answers_as_one_that_does_not_exist() {
    let api = Api::new().await;
    let (new, bob) = (session(&api).await, api.person("bob").await);
    let missing = NewSession { session_id: Uuid::now_v7(), ..new.clone() };
    for (method, rest) in [(Method::GET, ""), (Method::GET, "/session_log"), (Method::GET, "/watch"), (Method::PUT, "")]
    {
        let ask = async |new: &NewSession| {
            let request = api.request(method.clone(), &format!("{}{rest}", path(new)), Some(&bob));
            let answer = api.send(request.body(Body::from(KILL)).unwrap()).await;
            (answer.status, answer.headers.clone(), answer.json())
        };
        assert_eq!(ask(&new).await, ask(&missing).await, "{method} {rest}");
    }
}

#[tokio::test]
async fn people_see_their_own_rows_in_lists_and_feed() {
    let api = Api::new().await;
    let alice = session(&api).await;
    // The same e-mail address and `sub` at another provider is somebody else.
    let mut who = serde_json::to_value(&alice.identity).unwrap();
    who["issuer"] = "https://other.example.com".into();
    let other = NewSession { identity: serde_json::from_value(who.clone()).unwrap(), ..new_session() };
    who["issuer"] = "https://idp.example.com".into();
    who["subject"] = "bob".into();
    let bob = NewSession { identity: serde_json::from_value(who).unwrap(), ..new_session() };
    for new in [&other, &bob] {
        api.book.open_session(new.clone()).await.unwrap();
    }
    let ids = |rows: &Value| {
        let rows = rows["session_logs"].as_array().unwrap().iter();
        rows.map(|row| row["session_id"].as_str().unwrap().parse().unwrap()).collect::<BTreeSet<Uuid>>()
    };
    let everybody = [&alice, &other, &bob].map(|new| new.session_id);
    let queries = ["", "?user_email=alice@example.com", "?live=true", "?changed_after=0"];
    for (person, seen) in [
        ("alice", &[alice.session_id][..]),
        ("bob", &[bob.session_id]),
        ("carol", &[]),
        ("audrey", &everybody),
        ("oscar", &everybody),
        ("admin", &everybody),
    ] {
        let token = api.person(person).await;
        for query in queries {
            let rows = api.get_as(&token, &format!("/api/v1/sessions{query}")).await.json();
            assert_eq!(ids(&rows), seen.iter().copied().collect(), "{person} {query}");
            if query != "?changed_after=0" {
                assert_eq!(rows["pagination"]["total_records"], seen.len(), "{person} {query}");
            }
        }
    }
    // Which is why the address alone is no way to somebody's rows.
    let rows = api.get_as(&api.person("bob").await, "/api/v1/sessions?user_email=alice@example.com").await.json();
    assert_eq!(ids(&rows), BTreeSet::from([bob.session_id]), "bob's rows say alice's address here");
}
