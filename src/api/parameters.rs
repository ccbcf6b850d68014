//! What stands in a URL: ids in the path, parameters behind the `?`. What is not known is an error, never ignored.

use std::collections::BTreeMap;

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::ApiError;

/// The ids in `/session/{socket_id}/{session_id}`.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct Ids {
    /// The socket's id, from its row.
    #[param(rename = "socket_id")]
    pub(super) socket: Uuid,
    /// The session's id, from its row.
    #[param(rename = "session_id")]
    pub(super) session: Uuid,
}

/// The id in `/token/{token_id}`.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct TokenId {
    /// The token's id, from its row.
    #[param(rename = "token_id")]
    pub(super) token: Uuid,
}

/// The id in `/sign-in/{sign_in_id}`.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct SignInId {
    /// The sign-in's id, from its row.
    #[param(rename = "sign_in_id")]
    pub(super) sign_in: Uuid,
}

/// The id in `/lock/{lock_id}`.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct LockId {
    /// The lock's id, from the list of them.
    #[param(rename = "lock_id")]
    pub(super) lock: Uuid,
}

impl<S: Send + Sync> FromRequestParts<S> for Ids {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path((socket, session)) = Path::<(String, String)>::from_request_parts(parts, state).await?;
        Ok(Self { socket: id("socket_id", &socket)?, session: id("session_id", &session)? })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for TokenId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(token) = Path::<String>::from_request_parts(parts, state).await?;
        Ok(Self { token: id("token_id", &token)? })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for SignInId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(sign_in) = Path::<String>::from_request_parts(parts, state).await?;
        Ok(Self { sign_in: id("sign_in_id", &sign_in)? })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for LockId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(lock) = Path::<String>::from_request_parts(parts, state).await?;
        Ok(Self { lock: id("lock_id", &lock)? })
    }
}

fn id(name: &str, text: &str) -> Result<Uuid, ApiError> {
    text.parse().map_err(|_| ApiError::bad_request(format!("`{name}` must be a UUID")))
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

    /// Whether a parameter was given and not taken yet.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
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

/// Which page of a list, from `page` and `page_size`.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Pages {
    /// Which page.
    #[param(required = false, minimum = 1, default = 1)]
    pub(super) page: u32,
    /// Rows on a page.
    #[param(rename = "page_size", required = false, minimum = 1, maximum = 1000, default = 100)]
    pub(super) size: u32,
}

impl Pages {
    pub(super) fn take(parameters: &mut Parameters) -> Result<Self, ApiError> {
        let number = |text: &str| text.parse::<u32>().ok();
        let page = parameters.take("page", "a number from 1", |text| number(text).filter(|page| *page >= 1))?;
        Ok(Self { page: page.unwrap_or(1), size: page_size(parameters)? })
    }

    /// Where this page is in a list of so many.
    pub(super) fn of(&self, total: u64) -> Pagination {
        let total_pages = total.div_ceil(self.size.into());
        Pagination {
            current_page: self.page,
            next_page: if u64::from(self.page) < total_pages { self.page.saturating_add(1) } else { 0 },
            total_records: total,
            total_pages,
        }
    }
}

/// `page_size`: how many rows at most.
pub(super) fn page_size(parameters: &mut Parameters) -> Result<u32, ApiError> {
    let size = |text: &str| text.parse::<u32>().ok().filter(|size| (1..=1000).contains(size));
    Ok(parameters.take("page_size", "a number from 1 to 1000", size)?.unwrap_or(100))
}

/// Where a page is in its list.
#[derive(Serialize, ToSchema)]
pub(super) struct Pagination {
    current_page: u32,
    /// 0 on the last page.
    next_page: u32,
    total_records: u64,
    total_pages: u64,
}

/// `true` or `false`.
pub(super) fn flag(text: &str) -> Option<bool> {
    text.parse().ok()
}
