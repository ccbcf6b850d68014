//! The API's description (OpenAPI 3.1), generated from the handlers.
//!
//! To add a route: put `#[utoipa::path(...)]` on its handler with the full path, an `operation_id`, the parameters and
//! the good answer; derive `ToSchema` on its types; name it in `routes!(...)` in `api/mod.rs`; and give it a line in
//! the table of `api/route_tests.rs`. Errors, and the token where one is needed, are put in here for all.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    Components, ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, PathItem, Ref, Response, ResponseBuilder,
    SecurityRequirement,
};
use utoipa::{PartialSchema, ToSchema};

use super::Shared;
use super::error::ErrorBody;

/// `GET /api/v1/openapi.json`.
#[utoipa::path(
    get, path = "/api/v1/openapi.json", operation_id = "openapi", tag = "about",
    responses((status = 200, description = "This document.", body = serde_json::Value)),
)]
pub(super) async fn document(State(shared): State<Shared>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], shared.document)
}

/// `GET /openapi.json`, the same: where tools look for it.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "openapi_at_root", tag = "about",
    responses((status = 200, description = "This document.", body = serde_json::Value)),
)]
pub(super) async fn document_at_root(shared: State<Shared>) -> impl IntoResponse {
    document(shared).await
}

/// A document without routes.
pub(super) fn empty() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Gatescribe")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "The session log of the gateway: who was where, what happened, recordings, and ending sessions. \
             What belongs to somebody else answers as if it did not exist.",
        ))
        .build();
    let mut components = Components::new();
    components.schemas.insert(ErrorBody::name().into_owned(), ErrorBody::schema());
    let key = "The token from `gatescribe login`, from the page /token, or made by an administrator.";
    let token = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description("x-access-token", key)));
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    components.security_schemes.extend([(TOKEN.to_owned(), token.into()), (BEARER.to_owned(), bearer.into())]);
    OpenApiBuilder::new().info(info).components(Some(components)).build()
}

/// Writes down that all that is in the document needs a token.
pub(super) fn guard(document: &mut OpenApi) {
    let none: [&str; 0] = [];
    let either = [TOKEN, BEARER].map(|scheme| SecurityRequirement::new(scheme, none));
    for operation in operations(document) {
        operation.security = Some(either.to_vec());
    }
}

/// The finished document: every operation can also answer an error.
pub(super) fn finish(mut document: OpenApi) -> Bytes {
    for operation in operations(&mut document) {
        operation.responses.responses.insert("default".to_owned(), refusal().into());
    }
    // Only maps with keys that are no text cannot be written, and it has none.
    document.to_json().unwrap_or_default().into()
}

fn refusal() -> Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(ErrorBody::name()))).build();
    ResponseBuilder::new().description("An error, in words.").content("application/json", content).build()
}

fn operations(document: &mut OpenApi) -> impl Iterator<Item = &mut Operation> {
    document.paths.paths.values_mut().flat_map(|item| {
        let PathItem { get, put, post, delete, patch, head, .. } = item;
        [get, put, post, delete, patch, head].into_iter().flatten()
    })
}

/// The name of the scheme of `x-access-token`.
const TOKEN: &str = "token";
/// The name of the scheme of `Authorization: Bearer`.
const BEARER: &str = "bearer";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use axum::body::Body;
    use axum::http::Method;
    use serde_json::{Value, json};

    use crate::api::testing::{Api, path};
    use crate::store::testing::{new_session, recording};

    const METHODS: [Method; 5] = [Method::GET, Method::PUT, Method::POST, Method::DELETE, Method::PATCH];

    async fn document(api: &Api) -> Value {
        let document = api.get("/api/v1/openapi.json").await.json();
        assert_eq!(document, api.get("/openapi.json").await.json());
        document
    }

    /// Every operation: path, method, what is said about it.
    fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
        let paths = document["paths"].as_object().unwrap().iter();
        paths
            .flat_map(|(path, item)| item.as_object().unwrap().iter().map(|(m, op)| (path.as_str(), m.as_str(), op)))
            .collect()
    }

    #[tokio::test]
    async fn it_has_every_route_and_no_other() {
        let api = Api::new().await;
        let document = document(&api).await;
        let documented: BTreeSet<_> = document["paths"].as_object().unwrap().keys().cloned().collect();
        // What answers that there is nothing; the first and the last are axum's own.
        let unnamed = ["/", "/api/v1", "/api/v1/", "/api/v1/{*rest}", "/{*__private__axum_fallback}"];
        let routes: BTreeSet<_> = api.routes().into_iter().filter(|path| !unnamed.contains(&path.as_str())).collect();
        assert!(routes.len() > 8, "{routes:?}");
        assert_eq!(documented, routes);
    }

    #[tokio::test]
    async fn every_documented_method_is_there_and_no_other() {
        let api = Api::new().await;
        let document = document(&api).await;
        for (path, item) in document["paths"].as_object().unwrap() {
            let filled = fill(path);
            for method in METHODS {
                let documented = item.get(method.as_str().to_lowercase()).is_some();
                let request = api.request(method.clone(), &filled, Some(&api.admin)).body(Body::empty()).unwrap();
                let answer = api.send(request).await;
                assert_eq!(answer.status.as_u16() != 405, documented, "{method} {path}: {}", answer.status);
                let words = String::from_utf8_lossy(answer.body.as_ref().unwrap()).into_owned();
                assert!(!words.contains("there is nothing here"), "{method} {path}");
            }
        }
    }

    /// The path with an id that nothing has in each place.
    fn fill(path: &str) -> String {
        let id = uuid::Uuid::nil().to_string();
        path.split('/').map(|part| if part.starts_with('{') { id.as_str() } else { part }).collect::<Vec<_>>().join("/")
    }

    #[tokio::test]
    async fn every_documented_parameter_is_known_and_checked() {
        let api = Api::new().await;
        let new = new_session();
        api.book.open_session(new.clone()).await.unwrap();
        api.book.add_recording(new.session_id, recording()).await.unwrap();
        let document = document(&api).await;
        let mut checked = 0;
        for (template, method, operation) in operations(&document) {
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let in_path = parameters.iter().filter(|one| one["in"] == "path").count();
            assert_eq!(in_path, template.matches('{').count(), "{method} {template}");
            for parameter in parameters.iter().filter(|one| one["in"] == "query") {
                let name = parameter["name"].as_str().unwrap();
                assert!(parameter["description"].is_string(), "{template} {name}");
                let rest = template.strip_prefix("/api/v1/session/{socket_id}/{session_id}");
                let filled = rest.map_or_else(|| fill(template), |rest| format!("{}{rest}", path(&new)));
                let method: Method = method.to_uppercase().parse().unwrap();
                // Control characters are nothing that any parameter may be.
                let asked = format!("{filled}?{name}=%01");
                let answer = api.send(api.request(method, &asked, Some(&api.admin)).body(Body::empty()).unwrap()).await;
                if !FREE_TEXT.contains(&name) {
                    answer.refused(400, &format!("`{name}` must"));
                }
                let words = String::from_utf8_lossy(answer.body.as_ref().unwrap()).into_owned();
                assert!(!words.contains("unknown parameter"), "{template} {name}");
                checked += 1;
            }
        }
        assert!(checked > 15);
    }

    /// Parameters that may be any text.
    const FREE_TEXT: [&str; 3] = ["socket_name", "user_email", "country"];

    #[tokio::test]
    async fn every_operation_says_what_it_needs_and_answers() {
        let api = Api::new().await;
        let document = document(&api).await;
        let mut ids = BTreeSet::new();
        for (path, method, operation) in operations(&document) {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id), "{id} is there twice");
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.keys().any(|status| status.starts_with(['1', '2'])), "{method} {path}");
            let words = &responses["default"]["content"]["application/json"]["schema"]["$ref"];
            assert_eq!(words, "#/components/schemas/Error", "{method} {path}");
            let asked = api.request(method.to_uppercase().parse().unwrap(), &fill(path), None).body(Body::empty());
            let is_guarded = api.send(asked.unwrap()).await.status.as_u16() == 401;
            let says = operation["security"] == json!([{"token": []}, {"bearer": []}]);
            assert_eq!(says, is_guarded, "{method} {path}");
        }
        let schemes = document["components"]["securitySchemes"].as_object().unwrap();
        assert_eq!(schemes["token"]["name"], "x-access-token");
        assert_eq!(schemes["bearer"]["scheme"], "bearer");
    }

    #[tokio::test]
    async fn what_it_refers_to_is_in_it() {
        let api = Api::new().await;
        let document = document(&api).await;
        let text = document.to_string();
        let mut referred = 0;
        for rest in text.split("\"$ref\":\"#").skip(1) {
            let pointer = rest.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
            referred += 1;
        }
        assert!(referred > 10);
    }

    #[tokio::test]
    async fn rows_are_as_it_says() {
        let api = Api::new().await;
        let new = new_session();
        api.book.open_session(new.clone()).await.unwrap();
        api.book.add_recording(new.session_id, recording()).await.unwrap();
        let document = document(&api).await;
        let row = api.get(&path(&new)).await.json();
        let token = api.get("/api/v1/tokens").await.json()["tokens"][0].clone();
        let whoami = api.get("/api/v1/whoami").await.json();
        let samples = [
            ("SessionRow", &row),
            ("Event", &row["events"][0]),
            ("RecordingRow", &row["recordings"][0]),
            ("TokenRow", &token),
            ("Whoami", &whoami),
        ];
        for (name, sample) in samples {
            let schema = &document["components"]["schemas"][name];
            let properties = schema["properties"].as_object().unwrap_or_else(|| panic!("{name}: {schema}"));
            let told: BTreeSet<_> = sample.as_object().unwrap().keys().collect();
            assert_eq!(told, properties.keys().collect(), "{name}");
            assert_eq!(schema["required"].as_array().unwrap().len(), told.len(), "{name}: all are always there");
            for (key, value) in sample.as_object().unwrap() {
                let allows = |kind: &str| {
                    let types = &properties[key]["type"];
                    types == kind || types.as_array().is_some_and(|types| types.contains(&json!(kind)))
                };
                let fits = match value {
                    Value::Null => allows("null") || properties[key]["oneOf"][1]["type"] == "null",
                    Value::Bool(_) => allows("boolean"),
                    Value::Number(_) => allows("integer"),
                    Value::Array(_) => allows("array"),
                    Value::String(_) => allows("string") || properties[key].to_string().contains("$ref"),
                    Value::Object(_) => true,
                };
                assert!(fits, "{name}.{key} is {value}, not {}", properties[key]);
            }
        }
        assert_eq!(document["components"]["schemas"]["SessionRow"]["properties"]["start_time"]["format"], "date-time");
        assert_eq!(document["components"]["schemas"]["SessionRow"]["properties"]["session_id"]["format"], "uuid");
    }
}
