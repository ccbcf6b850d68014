//! What stands in a URL: ids in the path, parameters behind the `?`. What is not known is an error, never ignored.

use std::collections::BTreeMap;

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use uuid::Uuid;

use super::ApiError;

/// The ids in `/session/{socket_id}/{session_id}`.
pub(super) struct Ids {
    pub(super) socket: Uuid,
    pub(super) session: Uuid,
}

impl<S: Send + Sync> FromRequestParts<S> for Ids {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path((socket, session)) = Path::<(String, String)>::from_request_parts(parts, state).await?;
        let id = |name: &str, text: &str| {
            text.parse::<Uuid>().map_err(|_| ApiError::bad_request(format!("`{name}` must be a UUID")))
        };
        Ok(Self { socket: id("socket_id", &socket)?, session: id("session_id", &session)? })
    }
}

/// The parameters of a request. Take those that are known, then [`Parameters::finish`].
pub(super) struct Parameters(BTreeMap<String, String>);

impl Parameters {
    /// A parameter, if it was given. `expected` says what it must be, for the error.
    pub(super) fn take<T>(
        &mut self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(text) = self.0.remove(name) else { return Ok(None) };
        match parse(&text) {
            Some(value) => Ok(Some(value)),
            None => Err(ApiError::bad_request(format!("`{name}` must be {expected}"))),
        }
    }

    /// Refuses parameters that the contract has and this version does not do yet.
    pub(super) fn refuse_unbuilt(&self, names: &[&str]) -> Result<(), ApiError> {
        match names.iter().find(|name| self.0.contains_key(**name)) {
            Some(name) => Err(ApiError::bad_request(format!("`{name}` is not built yet"))),
            None => Ok(()),
        }
    }

    /// Refuses what nobody took.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        match self.0.into_keys().next() {
            Some(name) => Err(ApiError::bad_request(format!("unknown parameter `{name}`"))),
            None => Ok(()),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(pairs) = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await?;
        let mut parameters = BTreeMap::new();
        for (name, value) in pairs {
            if let Some(_twice) = parameters.insert(name.clone(), value) {
                return Err(ApiError::bad_request(format!("`{name}` is given twice")));
            }
        }
        Ok(Self(parameters))
    }
}

/// `true` or `false`.
pub(super) fn flag(text: &str) -> Option<bool> {
    text.parse().ok()
}
