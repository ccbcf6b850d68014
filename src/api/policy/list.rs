//! `GET /policies`: the rules in force, in the order of the file.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::api::auth::require;
use crate::api::parameters::Parameters;
use crate::api::{ApiError, Shared};
use crate::identity::tokens::{Caller, Scope};
use crate::policy::{Effect, Rule};

/// The handler.
#[utoipa::path(
    get, path = "/api/v1/policies", operation_id = "list_policies", tag = "policies",
    responses((status = 200, description = "The rules in force, in the order of the file.", body = PolicyList)),
)]
pub(in crate::api) async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Json<PolicyList>, ApiError> {
    require(&caller, Scope::SessionsRead)?;
    parameters.finish()?;
    let desk = &shared.api.policy;
    let in_force = desk.rules.now();
    let policies = in_force.policies.rules().iter();
    let policies = policies.map(|rule| desk.written.get(&rule.name).unwrap_or_else(|| told(rule)));
    Ok(Json(PolicyList { policies: policies.collect() }))
}

/// The rules in force.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct PolicyList {
    /// Each with the keys of `[[policy]]` in the configuration that it has there; what is absent was left out.
    #[schema(value_type = Vec<Object>)]
    policies: Vec<Map<String, Value>>,
}

/// A rule that stands in no file, as the demo's: what it is called and whom it is about.
fn told(rule: &Rule) -> Map<String, Value> {
    let effect = match rule.effect {
        Effect::Allow => "allow",
        Effect::Deny => "deny",
    };
    let (who, sockets) = (&rule.who, &rule.sockets);
    let mut told = Map::from_iter([("name".to_owned(), json!(rule.name)), ("effect".to_owned(), json!(effect))]);
    let mut part = |name: &str, keys: Vec<(&str, Value)>| {
        let is_empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty) || *value == json!({});
        let keys = keys.into_iter().filter(|(_, value)| !is_empty(value));
        let keys: Map<String, Value> = keys.map(|(key, value)| (key.to_owned(), value)).collect();
        if !keys.is_empty() {
            told.insert(name.to_owned(), keys.into());
        }
    };
    part("sockets", vec![("names", json!(sockets.names)), ("tags", json!(sockets.tags))]);
    let all = vec![
        ("emails", json!(who.emails)),
        ("domains", json!(who.domains)),
        ("groups", json!(who.groups)),
        ("service_accounts", json!(who.service_accounts)),
        ("claims", json!(who.claims)),
    ];
    part("who", all);
    told
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::api::testing::Api;

    #[tokio::test]
    async fn rules_come_as_they_were_written_or_as_they_are() {
        let api = Api::new().await;
        let answer = api.get("/api/v1/policies").await.json();
        let expected = json!({"policies": [
            {"name": "reading", "effect": "allow", "sockets": {"names": ["shell"]}, "who": {"groups": ["alice"]},
                "allow": {"ssh": {"exec": ["uptime"]}}},
            {"name": "no-audit", "effect": "deny", "who": {"groups": ["audrey"]}},
        ]});
        assert_eq!(answer, expected);
        api.get("/api/v1/policies?name=x").await.refused(400, "`name`");
    }
}
