//! What lets somebody in again: remembered SSH keys and API tokens. Secrets never get here, only what they hash to.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use super::Store;
use super::values::{Id, Json, Time, Word};
use crate::identity::Identity;
use crate::store::{NewToken, StoreError, TokenRow};

impl Store {
    /// Remembers whose key this is, until the sign-in expires. A later sign-in with the same key replaces it.
    pub async fn remember_key(&self, fingerprint: &str, identity: &Identity) -> Result<(), StoreError> {
        let (fingerprint, identity) = (fingerprint.to_owned(), identity.clone());
        self.writes
            .call(move |db| {
                db.prepare_cached("DELETE FROM remembered_keys WHERE expires <= ?1")?
                    .execute([Time(Timestamp::now())])?;
                let mut remember = db.prepare_cached(
                    "INSERT INTO remembered_keys (fingerprint, identity, expires) VALUES (?1, ?2, ?3)
                     ON CONFLICT (fingerprint) DO UPDATE SET identity = excluded.identity, expires = excluded.expires",
                )?;
                remember.execute(params![fingerprint, Json(&identity), Time(identity.expires())])?;
                Ok(())
            })
            .await
    }

    /// Whose key this is, while that sign-in counts at `now`.
    pub async fn remembered_key(&self, fingerprint: &str, now: Timestamp) -> Result<Option<Identity>, StoreError> {
        let fingerprint = fingerprint.to_owned();
        self.look_ups
            .call(move |db| {
                let mut find = db.prepare_cached("SELECT identity FROM remembered_keys WHERE fingerprint = ?1")?;
                let found = find.query_row([&fingerprint], |row| Ok(row.get::<_, Json<Identity>>(0)?.0)).optional()?;
                Ok(found.filter(|identity| identity.expires() > now))
            })
            .await
    }

    /// Writes a token.
    pub async fn add_token(&self, token: NewToken) -> Result<(), StoreError> {
        self.writes
            .call(move |db| {
                let mut add = db.prepare_cached(
                    "INSERT INTO tokens (hash, token_id, label, email, scopes, networks, created, expires)
                     VALUES (?1, ?2, ?3, ?4, json_array(?5), '[]', ?6, ?7)",
                )?;
                let (created, expires) = (Time(token.created), Time(token.expires));
                let id = Id(uuid::Uuid::now_v7());
                add.execute(params![token.hash, id, token.label, token.email, Word(token.role), created, expires])?;
                Ok(())
            })
            .await
    }

    /// The token with this hash; `None` when it is unknown or has expired at `now`.
    ///
    /// Moves `last_used`, at most once a minute and without waiting for it: neither a full disk nor a slow one keeps an
    /// administrator out.
    pub async fn use_token(&self, hash: [u8; 32], now: Timestamp) -> Result<Option<TokenRow>, StoreError> {
        let found = self.look_ups.call(move |db| token(db, &hash)).await?;
        let Some(token) = found.filter(|token| token.expires > now) else { return Ok(None) };
        let stale = now - USES_APART;
        if token.last_used.is_none_or(|used| used <= stale) {
            self.writes.offer(move |db| {
                let mut mark = db.prepare_cached(
                    "UPDATE tokens SET last_used = ?2 WHERE hash = ?1 AND (last_used IS NULL OR last_used <= ?3)",
                )?;
                mark.execute(params![hash, Time(now), Time(stale)])?;
                Ok(())
            });
        }
        Ok(Some(token))
    }
}

fn token(db: &Connection, hash: &[u8; 32]) -> Result<Option<TokenRow>, StoreError> {
    let mut find = db.prepare_cached(
        "SELECT label, email, scopes ->> 0 AS role, created, expires, last_used FROM tokens WHERE hash = ?1",
    )?;
    let found = find.query_row([hash], |row| {
        Ok(TokenRow {
            label: row.get("label")?,
            email: row.get("email")?,
            role: row.get::<_, Word<_>>("role")?.0,
            created: row.get::<_, Time>("created")?.0,
            expires: row.get::<_, Time>("expires")?.0,
            last_used: row.get::<_, Option<Time>>("last_used")?.map(|time| time.0),
        })
    });
    Ok(found.optional()?)
}

/// How far apart two writes of `last_used` are.
const USES_APART: SignedDuration = SignedDuration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Role;
    use crate::store::testing::{Book, identity, time};

    fn later(from: Timestamp, seconds: i64) -> Timestamp {
        from + SignedDuration::from_secs(seconds)
    }

    #[tokio::test]
    async fn a_key_is_remembered_until_its_sign_in_expires() {
        let book = Book::new();
        let now = Timestamp::now();
        let who = identity(later(now, 100));
        book.remember_key("SHA256:a", &who).await.unwrap();
        assert_eq!(book.remembered_key("SHA256:a", now).await.unwrap(), Some(who));
        assert!(book.remembered_key("SHA256:a", later(now, 99)).await.unwrap().is_some());
        assert_eq!(book.remembered_key("SHA256:a", later(now, 100)).await.unwrap(), None);
        assert_eq!(book.remembered_key("SHA256:b", now).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_later_sign_in_replaces_and_expired_ones_are_swept() {
        let book = Book::new();
        let now = Timestamp::now();
        book.remember_key("SHA256:old", &identity(later(now, -1))).await.unwrap();
        book.remember_key("SHA256:a", &identity(later(now, 100))).await.unwrap();
        let longer = identity(later(now, 200));
        book.remember_key("SHA256:a", &longer).await.unwrap();
        assert_eq!(book.remembered_key("SHA256:a", later(now, 150)).await.unwrap(), Some(longer));
        let kept = book
            .look_ups
            .call(|db| Ok(db.query_row("SELECT count(*) FROM remembered_keys", [], |row| row.get::<_, i64>(0))?))
            .await;
        assert_eq!(kept.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_token_counts_until_it_expires_and_notes_its_use_by_the_minute() {
        let book = Book::new();
        let (created, expires) = (time("2026-03-01T10:00:00Z"), time("2026-03-01T11:00:00Z"));
        let email = Some("admin@example.com".to_owned());
        let new =
            NewToken { hash: [7; 32], label: "ci".into(), email: email.clone(), role: Role::Admin, created, expires };
        book.add_token(new.clone()).await.unwrap();
        assert!(matches!(book.add_token(new).await, Err(StoreError::Conflict(_))));

        let used = async |seconds: i64| {
            let row = book.use_token([7; 32], later(created, seconds)).await.unwrap();
            // What was offered to the writer before is done once this is.
            book.touch(Vec::new(), created).await.unwrap();
            row
        };
        let row = TokenRow { label: "ci".into(), email, role: Role::Admin, created, expires, last_used: None };
        assert_eq!(used(1).await, Some(row.clone()));
        assert_eq!(used(60).await.unwrap().last_used, Some(later(created, 1)));
        assert_eq!(used(61).await.unwrap().last_used, Some(later(created, 1)), "59 seconds after: not moved");
        assert_eq!(used(62).await.unwrap().last_used, Some(later(created, 61)));
        assert!(used(3599).await.is_some());
        assert_eq!(used(3600).await, None);
        assert_eq!(book.use_token([8; 32], created).await.unwrap(), None);
    }
}
