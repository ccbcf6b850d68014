//! Hears what other processes of this gateway have written into the book, and what this one wrote and did not get to
//! carry out: the book's changes, looked for every second.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::locks::LocksInForce;
use crate::store::{Change, Store, StoreError};

/// How often the book is looked into.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What was heard until now, and who acts on the rest.
pub(super) struct Changes {
    store: Store,
    locks: Arc<LocksInForce>,
    heard: i64,
}

impl Changes {
    /// From now on. Puts the book's locks into force.
    pub(super) async fn from_now(store: Store, locks: Arc<LocksInForce>) -> Result<Self, StoreError> {
        // The number first: a lock that is added in between is then heard of again, and not missed.
        let heard = store.newest_change().await?;
        locks.reload().await?;
        Ok(Self { store, locks, heard })
    }

    /// For as long as the gateway runs.
    pub(super) async fn keep_hearing(mut self) {
        loop {
            sleep(LOOK_EVERY).await;
            if let Err(error) = self.hear().await {
                tracing::error!(%error, "what has changed in the book could not be heard; trying again");
            }
        }
    }

    /// Acts on what is new. What could not be acted on is heard again.
    async fn hear(&mut self) -> Result<(), StoreError> {
        let new = self.store.changes_after(self.heard).await?;
        let Some((newest, _)) = new.last() else { return Ok(()) };
        if new.iter().any(|(_, change)| *change == Change::Lock) {
            self.locks.reload().await?;
        }
        self.heard = *newest;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::policy::{Lock, LockTarget, Policies};
    use crate::session::Rules;
    use crate::store::testing::{Book, new_session};

    #[tokio::test]
    async fn another_process_locks_are_heard_of() {
        let book = Book::new();
        let rules = Rules::new(Policies::default(), Vec::new());
        let locks = Arc::new(LocksInForce::new(book.clone(), rules.clone()));
        let (who, here) = (new_session().identity, [192, 0, 2, 7].into());
        let is_locked = || rules.now().locks.on(&who, "shell", here, Timestamp::now()).is_some();
        let lock = || Lock {
            lock_id: Uuid::now_v7(),
            target: LockTarget::default(),
            reason: "x".into(),
            by: "x".into(),
            created: Timestamp::now(),
            until: None,
        };
        let (before, after) = (lock(), lock());
        book.add_lock(before.clone()).await.unwrap();
        let mut changes = Changes::from_now(book.clone(), locks).await.unwrap();
        assert!(is_locked(), "from the start");
        let mut asked_again = rules.changes();
        changes.hear().await.unwrap();
        assert!(!asked_again.has_changed().unwrap(), "nothing is new");
        book.remove_lock(before.lock_id, "x", Timestamp::now()).await.unwrap();
        changes.hear().await.unwrap();
        assert!(!is_locked() && asked_again.has_changed().unwrap());
        asked_again.mark_unchanged();
        book.add_lock(after).await.unwrap();
        book.person_seen(&who).await.unwrap();
        changes.hear().await.unwrap();
        assert!(is_locked() && asked_again.has_changed().unwrap());
        asked_again.mark_unchanged();
        changes.hear().await.unwrap();
        assert!(!asked_again.has_changed().unwrap(), "each is heard once");
    }
}
