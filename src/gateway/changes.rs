//! Hears what other processes of this gateway have written into the book, and what this one wrote and did not get to
//! carry out: the book is looked into twice a second, and at once by whoever has written something.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::locks::LocksInForce;
use crate::api::Hears;
use crate::identity::people::People;
use crate::session::Sessions;
use crate::store::{Change, Owner, Store, StoreError};

/// How often the book is looked into.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What was heard until now, and who acts on the rest. Cheap to clone.
#[derive(Clone)]
pub(super) struct Changes(Arc<Shared>);

/// Who acts on what is heard.
pub(super) struct Parts {
    pub(super) store: Store,
    pub(super) locks: Arc<LocksInForce>,
    pub(super) people: People,
    pub(super) sessions: Sessions,
}

struct Shared {
    parts: Parts,
    /// The number of what was heard last. Held while it is acted on, so that all is acted on in order and once.
    heard: Mutex<i64>,
}

impl Changes {
    /// From now on. Puts the book's locks into force, and knows its people.
    pub(super) async fn from_now(parts: Parts) -> Result<Self, StoreError> {
        // The number first: a lock that is added in between is then heard of again, and not missed.
        let heard = Mutex::new(parts.store.newest_change().await?);
        parts.locks.reload().await?;
        for (known, _) in parts.store.people().await? {
            parts.people.note(known);
        }
        Ok(Self(Arc::new(Shared { parts, heard })))
    }

    /// For as long as the gateway runs.
    pub(super) async fn keep_hearing(&self) {
        loop {
            self.now().await;
            sleep(LOOK_EVERY).await;
        }
    }

    /// Acts at once on what stands in the book.
    pub(super) async fn now(&self) {
        if let Err(error) = self.hear_all().await {
            tracing::error!(%error, "what has changed in the book could not be heard; trying again");
        }
    }

    /// Acts on what is new. What could not be acted on is heard again.
    async fn hear_all(&self) -> Result<(), StoreError> {
        let mut heard = self.0.heard.lock().await;
        let new = self.0.parts.store.changes_after(*heard).await?;
        for (number, change) in new {
            self.0.parts.act(change).await?;
            *heard = number;
        }
        Ok(())
    }
}

impl Hears for Changes {
    fn hear(&self) -> BoxFuture<'_, ()> {
        self.now().boxed()
    }
}

impl Parts {
    async fn act(&self, change: Change) -> Result<(), StoreError> {
        match change {
            Change::Lock => self.locks.reload().await?,
            Change::Person { issuer, subject } => {
                if let Some(who) = self.store.newest_identity(Owner::named(&issuer, &subject)).await? {
                    self.people.note(who.clone());
                    self.sessions.signed_in(&who);
                }
            }
            Change::SignInRevoked(id) => _ = self.sessions.revoke_sign_in(id),
            Change::PersonRevoked(email) => _ = self.sessions.revoke_person(&email),
            Change::Unknown => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::geo::Geo;
    use crate::policy::{Lock, LockTarget, Policies};
    use crate::record::Recordings;
    use crate::session::{Rules, SessionSettings};
    use crate::store::testing::{Book, new_session};
    use crate::telemetry::Metrics;

    fn parts(book: &Book, rules: &Rules, dir: &std::path::Path) -> Parts {
        let (store, people) = (Store::clone(book), People::default());
        let recordings = Recordings::open(crate::record::testing::settings(dir)).unwrap();
        let settings = SessionSettings {
            domain: "localhost".into(),
            durability: "process",
            max_recording: 1 << 20,
            rules: rules.clone(),
            people: people.clone(),
            sessions_per_user: 10,
            sessions_per_minute: 10,
            public_url: "https://localhost".into(),
            geo: Geo::default(),
            metrics: Metrics::new(),
        };
        let sessions = Sessions::new(settings, store.clone(), recordings);
        Parts { locks: Arc::new(LocksInForce::new(store.clone(), rules.clone())), store, people, sessions }
    }

    #[tokio::test]
    async fn another_process_locks_are_heard_of() {
        let book = Book::new();
        let rules = Rules::new(Policies::default(), Vec::new());
        let dir = tempfile::tempdir().unwrap();
        let parts = parts(&book, &rules, dir.path());
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
        let people = parts.people.clone();
        let changes = Changes::from_now(parts).await.unwrap();
        assert!(is_locked(), "from the start");
        let mut asked_again = rules.changes();
        changes.hear_all().await.unwrap();
        assert!(!asked_again.has_changed().unwrap(), "nothing is new");
        book.remove_lock(before.lock_id, "x", Timestamp::now()).await.unwrap();
        changes.hear_all().await.unwrap();
        assert!(!is_locked() && asked_again.has_changed().unwrap());
        asked_again.mark_unchanged();
        book.add_lock(after).await.unwrap();
        book.person_seen(&who).await.unwrap();
        changes.hear_all().await.unwrap();
        assert!(is_locked() && asked_again.has_changed().unwrap());
        asked_again.mark_unchanged();
        changes.hear_all().await.unwrap();
        assert!(!asked_again.has_changed().unwrap(), "each is heard once");
        assert_eq!(people.get(&who).as_deref(), Some(&who));
    }
}
