//! Puts locks into force: the book first, then the rules that everybody is asked by. What lives is asked again, because
//! the rules have changed.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::api::Locker;
use crate::policy::{Lock, Locks};
use crate::session::Rules;
use crate::store::{Store, StoreError};

/// For how long locks are known that have run out.
const RUN_OUT: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The book's locks as the rules have them.
pub(super) struct LocksInForce {
    store: Store,
    rules: Rules,
    /// Held from reading the book until it is in force: else what was read first could come last, without a newer lock.
    turn: Mutex<()>,
}

impl LocksInForce {
    /// What is in the book is not in force before [`LocksInForce::reload`].
    pub(super) fn new(store: Store, rules: Rules) -> Self {
        Self { store, rules, turn: Mutex::default() }
    }

    /// Puts into force what stands in the book.
    pub(super) async fn reload(&self) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        // Those that have run out too, for a while: by a clock that is ahead, which somebody sets back.
        let locks = self.store.locks(Timestamp::now() - RUN_OUT).await?;
        self.rules.set_locks(Locks::new(locks));
        Ok(())
    }

    async fn add(&self, lock: Lock) -> Result<usize, StoreError> {
        self.store.add_lock(lock.clone()).await?;
        // Asked in this order, so that the count is of before.
        let (live, in_force) = tokio::join!(self.store.live_visits(), self.reload());
        in_force?;
        let held = live.map(|live| {
            live.iter().filter(|one| lock.target.holds(&one.identity, &one.socket_name, one.client_ip)).count()
        });
        Ok(held.unwrap_or_else(|error| {
            tracing::warn!(%error, "how many sessions a lock ends could not be counted");
            0
        }))
    }

    async fn remove(&self, id: Uuid, by: &str) -> Result<Option<Lock>, StoreError> {
        let removed = self.store.remove_lock(id, by, Timestamp::now()).await?;
        if removed.is_some() {
            self.reload().await?;
        }
        Ok(removed)
    }
}

impl Locker for LocksInForce {
    fn lock<'a>(&'a self, lock: Lock) -> BoxFuture<'a, Result<usize, StoreError>> {
        self.add(lock).boxed()
    }

    fn unlock<'a>(&'a self, id: Uuid, by: &'a str) -> BoxFuture<'a, Result<Option<Lock>, StoreError>> {
        self.remove(id, by).boxed()
    }

    fn apply(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.reload().boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::policy::{LockTarget, Policies};
    use crate::store::NewSession;
    use crate::store::testing::{Book, new_session};

    fn on(socket: &str) -> Lock {
        let target = LockTarget { socket: Some(socket.into()), ..LockTarget::default() };
        let (reason, by) = ("x".into(), "admin@example.com".into());
        Lock { lock_id: Uuid::now_v7(), target, reason, by, created: Timestamp::now(), until: None }
    }

    #[tokio::test]
    async fn what_is_in_the_book_is_in_force_whoever_wrote_it() {
        let book = Book::new();
        let (who, here) = (new_session().identity, IpAddr::from([192, 0, 2, 7]));
        book.open_session(new_session()).await.unwrap();
        book.open_session(NewSession { socket_name: "web".into(), ..new_session() }).await.unwrap();
        let rules = Rules::new(Policies::default(), Vec::new());
        let locks = LocksInForce::new(book.clone(), rules.clone());
        let is_locked = |socket: &str| rules.now().locks.on(&who, socket, here, Timestamp::now()).is_some();
        let mut changes = rules.changes();
        let shell = on("shell");
        assert_eq!(locks.lock(shell.clone()).await.unwrap(), 1);
        assert!(changes.has_changed().unwrap() && is_locked("shell") && !is_locked("web"));
        // Another process.
        book.add_lock(on("web")).await.unwrap();
        assert!(!is_locked("web"));
        locks.apply().await.unwrap();
        assert!(is_locked("shell") && is_locked("web"));
        changes.mark_unchanged();
        assert_eq!(locks.unlock(Uuid::now_v7(), "x").await.unwrap(), None);
        assert!(!changes.has_changed().unwrap(), "nothing to ask again about");
        assert_eq!(locks.unlock(shell.lock_id, "x").await.unwrap().map(|lock| lock.lock_id), Some(shell.lock_id));
        assert!(!is_locked("shell") && is_locked("web"));
    }
}
