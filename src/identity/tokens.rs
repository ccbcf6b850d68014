//! API tokens: opaque secrets with an expiry and a role, known to the book by their SHA-256 only.
//!
//! A token has 256 random bits, so that it can neither be guessed nor found from its hash, and a fast hash is enough:
//! there is nothing for a slow one to protect. Looking the hash up tells an attacker's clock nothing about the secret.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};

use crate::store::{NewToken, Role, Store, StoreError};

/// Issues and verifies API tokens.
#[derive(Clone, Debug)]
pub struct Tokens {
    store: Store,
}

impl Tokens {
    /// Tokens kept in this book.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Makes an administrator's token that counts for `lifetime` from now. The answer is the only copy of the secret.
    pub async fn issue_admin(
        &self,
        label: &str,
        email: Option<&str>,
        lifetime: Duration,
    ) -> Result<SecretString, TokenError> {
        let created = Timestamp::now();
        let expires = created.checked_add(lifetime).map_err(|_| TokenError::Lifetime)?;
        let mut random = [0; RANDOM_BYTES];
        rand::fill(&mut random).map_err(|_| TokenError::Random)?;
        let secret = SecretString::from(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random)));
        let (label, email) = (label.to_owned(), email.map(str::to_owned));
        let hash = hash(secret.expose_secret());
        self.store.add_token(NewToken { hash, label, email, role: Role::Admin, created, expires }).await?;
        Ok(secret)
    }

    /// Who calls with this token; `None` when it is no token of ours, unknown or expired.
    pub async fn verify(&self, token: &str) -> Result<Option<Caller>, TokenError> {
        if token.len() > LONGEST || !token.starts_with(PREFIX) {
            return Ok(None);
        }
        let row = self.store.use_token(hash(token), Timestamp::now()).await?;
        Ok(row.map(|row| Caller { label: row.label, email: row.email, role: row.role, expires: row.expires }))
    }
}

/// Somebody who showed a token that counts. Made by [`Tokens::verify`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    label: String,
    email: Option<String>,
    role: Role,
    expires: Timestamp,
}

impl Caller {
    /// What the token is for.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Whose token it is, where it is somebody's.
    pub fn email(&self) -> Option<&str> {
        self.email.as_deref()
    }

    /// The token's role.
    pub fn role(&self) -> Role {
        self.role
    }

    /// From when on the token counts no more.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// The name for the log: the e-mail address, else the label.
    pub fn name(&self) -> &str {
        self.email().unwrap_or(&self.label)
    }

    /// Whether the caller may do this.
    pub fn may(&self, scope: Scope) -> bool {
        match (self.role, scope) {
            (Role::Admin, Scope::ReadLog | Scope::TypedInput | Scope::Kill) => true,
        }
    }
}

/// What a caller may be allowed to do over the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Read rows, and recordings without typed input.
    ReadLog,
    /// Read what was typed, and so the raw recording too.
    TypedInput,
    /// End sessions.
    Kill,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scope::ReadLog => "read the session log",
            Scope::TypedInput => "read typed input",
            Scope::Kill => "end sessions",
        })
    }
}

/// Why a token could not be issued or verified.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The expiry is no date.
    #[error("the token's lifetime is too long")]
    Lifetime,
    /// The system gave no random bytes.
    #[error("the system has no random numbers")]
    Random,
    /// The book failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn hash(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    hash
}

/// What our tokens begin with, so that secret scanners can find them.
const PREFIX: &str = "gsa_";
/// Random bytes in a token.
const RANDOM_BYTES: usize = 32;
/// No token of ours is longer than this many bytes.
const LONGEST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::Book;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn a_token_is_verified_until_it_expires() {
        let book = Book::new();
        let tokens = Tokens::new(book.clone());
        let secret = tokens.issue_admin("demo", Some("admin@example.com"), HOUR).await.unwrap();
        let caller = tokens.verify(secret.expose_secret()).await.unwrap().unwrap();
        assert_eq!((caller.label(), caller.name(), caller.role()), ("demo", "admin@example.com", Role::Admin));
        assert!(caller.expires() > Timestamp::now() + Duration::from_secs(3590));
        for scope in [Scope::ReadLog, Scope::TypedInput, Scope::Kill] {
            assert!(caller.may(scope));
        }
        let expired = tokens.issue_admin("demo", None, Duration::ZERO).await.unwrap();
        assert_eq!(tokens.verify(expired.expose_secret()).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_not_the_very_token_is_nobody() {
        let book = Book::new();
        let tokens = Tokens::new(book.clone());
        let secret = tokens.issue_admin("demo", None, HOUR).await.unwrap();
        let secret = secret.expose_secret();
        let (cut, longer, upper) = (&secret[..secret.len() - 1], format!("{secret}A"), secret.to_uppercase());
        for wrong in ["", "gsa_", cut, &longer, &upper, &secret[4..], &"gsa_A".repeat(1000)] {
            assert_eq!(tokens.verify(wrong).await.unwrap(), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn the_secret_is_short_unique_and_nowhere_else() {
        let book = Book::new();
        let tokens = Tokens::new(book.clone());
        let one = tokens.issue_admin("demo", None, HOUR).await.unwrap();
        let two = tokens.issue_admin("demo", None, HOUR).await.unwrap();
        let text = one.expose_secret();
        assert_ne!(text, two.expose_secret());
        assert!(text.starts_with("gsa_") && text.len() <= 64, "{text}");
        assert!(!format!("{one:?} {tokens:?}").contains(&text[4..]));
        for file in ["book.db", "book.db-wal"] {
            let bytes = std::fs::read(book.dir().join(file)).unwrap();
            assert!(!bytes.windows(text.len()).any(|window| window == text.as_bytes()), "{file} holds the secret");
        }
    }

    #[tokio::test]
    async fn a_lifetime_without_end_is_refused() {
        let book = Book::new();
        let issued = Tokens::new(book.clone()).issue_admin("demo", None, Duration::MAX).await;
        assert!(matches!(issued, Err(TokenError::Lifetime)));
    }
}
