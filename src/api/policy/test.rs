//! `POST /policy/test`: would somebody get in, by which rule, and why not. Nothing happens by asking.

use std::net::SocketAddr;

use axum::Json;
use axum::extract::{ConnectInfo, Request, State};
use jiff::Timestamp;

use super::answer::{Answer, Ask, BadAsk, World, answer};
use crate::api::auth::require;
use crate::api::parameters::Parameters;
use crate::api::{ApiError, Shared, body};
use crate::identity::Identity;
use crate::identity::tokens::{Caller, Scope};
use crate::store::{SignInsOf, Store, StoreError};

/// The handler.
#[utoipa::path(
    post, path = "/api/v1/policy/test", operation_id = "test_policy", tag = "policies", request_body = Ask,
    responses((status = 200, description = "What the rules in force answer.", body = Answer)),
)]
pub(in crate::api) async fn test(
    State(shared): State<Shared>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    caller: Caller,
    parameters: Parameters,
    request: Request,
) -> Result<Json<Answer>, ApiError> {
    // Asked before the body is read.
    require(&caller, Scope::SessionsRead)?;
    parameters.finish()?;
    let ask: Ask = body::read(request).await?;
    let known = newest(&shared.api.store, &ask.user).await?;
    let desk = &shared.api.policy;
    let world = World {
        in_force: &desk.rules.now(),
        geo: &desk.geo,
        session_lifetime: desk.session_lifetime,
        known: Some(&known),
        here: client.ip().to_canonical(),
        now: Timestamp::now(),
    };
    answer(&ask, &world).map(Json).map_err(|error| match error {
        BadAsk::Wrong(words) => ApiError::bad_request(words),
        BadAsk::NoSocket(_) => ApiError::not_found(error.to_string()),
    })
}

/// Everybody with this e-mail address as they last signed in, the newest first. Who signed in before people were written
/// down may be known by a sign-in that still counts.
async fn newest(store: &Store, email: &str) -> Result<Vec<Identity>, StoreError> {
    let (sign_ins, _) = store.sign_ins(SignInsOf::Email(email.to_owned()), Timestamp::now(), 1, MOST).await?;
    let mut all = store.person(email).await?;
    all.extend(sign_ins.into_iter().map(|sign_in| sign_in.identity));
    all.sort_by_key(|who| std::cmp::Reverse(who.signed_in()));
    let mut people: Vec<Identity> = Vec::new();
    for who in all {
        if !people.iter().any(|known| known.is_same_person(&who)) {
            people.push(who);
        }
    }
    Ok(people)
}

/// Sign-ins that are looked at.
const MOST: u32 = 100;

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Method;
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use crate::api::testing::{Answer, Api, person};

    async fn ask(api: &Api, question: Value) -> Answer {
        let request = api.request(Method::POST, "/api/v1/policy/test", Some(&api.admin));
        api.send(request.body(Body::from(question.to_string())).unwrap()).await
    }

    fn question(more: Value) -> Value {
        let mut question = json!({"user": "alice@example.com", "socket": "shell"});
        question.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        question
    }

    #[tokio::test]
    async fn what_is_in_force_answers_for_people_as_they_last_signed_in() {
        let api = Api::new().await;
        api.person("alice").await;
        let signed_in = person("alice").signed_in();
        let answer = ask(&api, question(json!({"action": "exec uptime"}))).await.json();
        assert_eq!((&answer["allowed"], &answer["rule"]), (&json!(true), &json!("reading")), "{answer}");
        assert!(answer["reason"].as_str().unwrap().contains("by a pattern"), "{answer}");
        assert_eq!(answer["asked"]["ip"], "192.0.2.1", "of whoever asks");
        assert_eq!(answer["asked"]["groups"], json!(["alice"]));
        assert_eq!((&answer["notes"], &answer["step_up"]), (&json!([]), &json!(null)));
        // The end of the sign-in, which is an hour long here.
        let ends: Timestamp = answer["ends"]["at"].as_str().unwrap().parse().unwrap();
        assert!((ends.duration_since(signed_in).as_secs() - 3600).abs() < 60, "{answer}");
        assert_eq!(answer["until"], answer["ends"]["at"]);
        let rules = json!([
            {"name": "reading", "effect": "allow", "about": true, "holds": true, "why": "allows exec \"uptime\""},
            {"name": "no-audit", "effect": "deny", "about": false, "holds": false, "why": "is about other people"},
        ]);
        assert_eq!(answer["rules"], rules);

        let answer = ask(&api, question(json!({"action": "shell"}))).await.json();
        assert_eq!(
            (&answer["allowed"], &answer["rule"], &answer["ends"]),
            (&json!(false), &json!("reading"), &json!(null))
        );
        assert_eq!(answer["reason"], "reading does not allow shell");
    }

    #[tokio::test]
    async fn what_is_supposed_counts_instead() {
        let api = Api::new().await;
        api.person("alice").await;
        let table = [
            (json!({"groups": ["audrey"]}), false, "no-audit denies"),
            (json!({"groups": []}), false, "no policy lets"),
            (json!({"user": "zoe@example.com", "groups": ["alice"]}), true, "reading allows"),
            (json!({"user": "zoe@example.com"}), false, "no policy lets"),
            (json!({"sign_in_age": "59m"}), true, "reading allows"),
            (json!({"sign_in_age": "61m"}), false, "sign-in has expired"),
            (json!({"at": "2030-01-01T00:00:00Z", "ip": "2001:db8::1", "country": "nl"}), true, "reading allows"),
            (json!({"login": "root"}), false, "the login there is fixed"),
        ];
        for (more, allowed, words) in table {
            let answer = ask(&api, question(more.clone())).await.json();
            assert_eq!(answer["allowed"], allowed, "{more}: {answer}");
            assert!(answer["reason"].as_str().unwrap().contains(words), "{more}: {answer}");
        }
        let answer = ask(&api, question(json!({"user": "zoe@example.com"}))).await.json();
        assert!(answer["notes"][0].as_str().unwrap().contains("has never seen zoe@example.com"), "{answer}");
        let answer = ask(&api, question(json!({"at": "2030-01-01T00:00:00Z", "country": "nl"}))).await.json();
        assert!(answer["notes"][0].as_str().unwrap().contains("is over by then"), "{answer}");
        assert_eq!(
            (&answer["asked"]["country"], &answer["asked"]["signed_in"]),
            (&json!("NL"), &answer["asked"]["at"])
        );
    }

    #[tokio::test]
    async fn a_bad_question_is_told() {
        let api = Api::new().await;
        let table = [
            (json!({"socket": "other"}), 404, "there is no socket called \"other\""),
            (json!({"action": "dance"}), 400, "`action` is not known: an action is connect"),
            (json!({"country": "Chile"}), 400, "`country` must be a two-letter code"),
            (json!({"sign_in_age": "long"}), 400, "`sign_in_age` must be"),
            (json!({"user": " "}), 400, "`user` must be"),
            (json!({"ip": "here"}), 400, "IP address"),
            (json!({"at": "noon"}), 400, "the body"),
            (json!({"colour": "red"}), 400, "`colour`"),
        ];
        for (more, status, words) in table {
            ask(&api, question(more)).await.refused(status, words);
        }
    }
}
