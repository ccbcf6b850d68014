//! API tokens as the book holds them and as the API tells them. The secret itself never gets here.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::identity::Identity;

/// What a caller may be allowed to do over the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub enum Scope {
    /// Read rows.
    #[serde(rename = "sessions:read")]
    SessionsRead,
    /// Read and watch recordings, without typed input.
    #[serde(rename = "recordings:read")]
    RecordingsRead,
    /// Read what was typed, and so raw recordings too.
    #[serde(rename = "input:read")]
    InputRead,
    /// End sessions.
    #[serde(rename = "sessions:kill")]
    SessionsKill,
    /// All of the above, and tokens and sign-ins of others.
    #[serde(rename = "admin")]
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Scope; 5] =
        [Scope::SessionsRead, Scope::RecordingsRead, Scope::InputRead, Scope::SessionsKill, Scope::Admin];
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scope::SessionsRead => "sessions:read",
            Scope::RecordingsRead => "recordings:read",
            Scope::InputRead => "input:read",
            Scope::SessionsKill => "sessions:kill",
            Scope::Admin => "admin",
        })
    }
}

/// An API token about to be written into the book.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// UUIDv7.
    pub token_id: Uuid,
    /// SHA-256 of the secret.
    pub hash: [u8; 32],
    /// What it is for, for people who read the log.
    pub label: String,
    /// Whose it is, where it is somebody's.
    pub user_email: Option<String>,
    /// The sign-in that it counts with.
    pub sign_in_id: Option<Uuid>,
    /// What it may do; empty for a sign-in's, which may do what its person may.
    pub scopes: Vec<Scope>,
    /// Where it may be used from; empty: anywhere.
    pub networks: Vec<IpNet>,
    /// Who made it, where it was made for others to use.
    pub created_by: Option<String>,
    /// The token that it is made with, which must count.
    pub maker: Option<Uuid>,
    /// When it was made.
    pub created: Timestamp,
    /// From when on it counts no more.
    pub expires: Timestamp,
}

/// What stands as the software of a sign-in in a browser.
pub const IN_BROWSER: &str = "browser";

/// A sign-in in a browser that a token is made for, about to be written into the book.
#[derive(Clone, Debug)]
pub struct BrowserSignIn {
    /// UUIDv7.
    pub sign_in_id: Uuid,
    /// Who signed in.
    pub identity: Identity,
    /// Where the browser was.
    pub client_ip: IpAddr,
}

/// An API token, as the API tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenRow {
    /// Names the token; no secret.
    pub token_id: Uuid,
    /// What it is for.
    pub label: String,
    /// Whose it is; null where it belongs to nobody.
    #[schema(required)]
    pub user_email: Option<String>,
    /// The sign-in that it counts with; null where it belongs to nobody.
    #[schema(required)]
    pub sign_in_id: Option<Uuid>,
    /// What it may do; empty where its person's role says.
    pub scopes: Vec<Scope>,
    /// Where it may be used from; empty: anywhere.
    #[schema(value_type = Vec<String>)]
    pub networks: Vec<IpNet>,
    /// Who made it, where it was made for others to use.
    #[schema(required)]
    pub created_by: Option<String>,
    /// When it was made.
    pub created: Timestamp,
    /// From when on it counts no more.
    pub expires: Timestamp,
    /// When it was last used, to the minute.
    #[schema(required)]
    pub last_used: Option<Timestamp>,
    /// From where it was last used.
    #[schema(required)]
    pub last_ip: Option<String>,
    /// When it was revoked.
    #[schema(required)]
    pub revoked: Option<Timestamp>,
}

/// A token that counts, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidToken {
    /// The token.
    pub row: TokenRow,
    /// The person of its sign-in.
    pub identity: Option<Identity>,
}
