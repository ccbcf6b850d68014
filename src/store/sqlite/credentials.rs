//! What lets somebody in again without a link: remembered SSH keys.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::Store;
use super::values::{Json, Time};
use crate::identity::Identity;
use crate::store::StoreError;

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

    /// Forgets whose key this is.
    pub async fn forget_key(&self, fingerprint: &str) -> Result<(), StoreError> {
        let fingerprint = fingerprint.to_owned();
        self.writes
            .call(move |db| {
                db.prepare_cached("DELETE FROM remembered_keys WHERE fingerprint = ?1")?.execute([&fingerprint])?;
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
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::store::testing::{Book, identity};

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
}
