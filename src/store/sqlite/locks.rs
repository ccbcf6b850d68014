//! Locks: added and removed with a line in the audit log and one for the other processes, in one transaction.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::json;
use uuid::Uuid;

use super::values::{Id, Time, Word};
use super::{Store, audit, changes};
use crate::policy::{Lock, LockTarget};
use crate::store::{Change, StoreError};

impl Store {
    /// Writes a lock.
    pub async fn add_lock(&self, lock: Lock) -> Result<(), StoreError> {
        self.writes.call(move |db| insert(db, &lock)).await
    }

    /// Takes a lock off and returns it. `None`: no such lock is in force.
    pub async fn remove_lock(&self, id: Uuid, by: &str, now: Timestamp) -> Result<Option<Lock>, StoreError> {
        let by = by.to_owned();
        self.writes
            .call(move |db| {
                let mut remove = db.prepare_cached(&format!(
                    "UPDATE locks SET removed = ?2, removed_by = ?3
                     WHERE lock_id = ?1 AND removed IS NULL AND (until IS NULL OR until > ?2) RETURNING {LOCK}"
                ))?;
                let removed = remove.query_row(params![Id(id), Time(now), by], lock).optional()?;
                if let Some(lock) = &removed {
                    audit::add(db, &by, "lock.removed", &id.to_string(), &about(lock))?;
                    changes::add(db, &Change::Lock)?;
                }
                Ok(removed)
            })
            .await
    }

    /// The locks in force, newest first.
    pub async fn locks(&self, now: Timestamp) -> Result<Vec<Lock>, StoreError> {
        self.look_ups
            .call(move |db| {
                let mut find = db.prepare_cached(&format!(
                    "SELECT {LOCK} FROM locks WHERE removed IS NULL AND (until IS NULL OR until > ?1)
                     ORDER BY created DESC, lock_id DESC"
                ))?;
                Ok(find.query_map([Time(now)], lock)?.collect::<Result<_, _>>()?)
            })
            .await
    }
}

/// Writes a lock, in the transaction of what it belongs to.
pub(super) fn insert(db: &Connection, lock: &Lock) -> Result<(), StoreError> {
    let Lock { lock_id, target, reason, by, created, until } = lock;
    let LockTarget { user, group, socket, address } = target;
    let mut add = db.prepare_cached(
        "INSERT INTO locks (lock_id, user, user_group, socket, address, reason, by, created, until)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    let (address, until) = (address.map(Word), until.map(Time));
    add.execute(params![Id(*lock_id), user, group, socket, address, reason, by, Time(*created), until])?;
    audit::add(db, by, "lock.added", &lock_id.to_string(), &about(lock))?;
    changes::add(db, &Change::Lock)
}

fn about(lock: &Lock) -> serde_json::Value {
    json!({ "target": lock.target, "reason": lock.reason, "until": lock.until })
}

fn lock(row: &Row<'_>) -> rusqlite::Result<Lock> {
    Ok(Lock {
        lock_id: row.get::<_, Id>("lock_id")?.0,
        target: LockTarget {
            user: row.get("user")?,
            group: row.get("user_group")?,
            socket: row.get("socket")?,
            address: row.get::<_, Option<Word<_>>>("address")?.map(|address| address.0),
        },
        reason: row.get("reason")?,
        by: row.get("by")?,
        created: row.get::<_, Time>("created")?.0,
        until: row.get::<_, Option<Time>>("until")?.map(|until| until.0),
    })
}

/// A lock's columns.
const LOCK: &str = "lock_id, user, user_group, socket, address, reason, by, created, until";

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::store::Store;
    use crate::store::testing::{Book, time};

    fn new(target: LockTarget, created: &str, seconds: Option<i64>) -> Lock {
        let created = time(created);
        let until = seconds.map(|seconds| created + SignedDuration::from_secs(seconds));
        let (reason, by) = ("laptop lost".into(), "admin@example.com".into());
        Lock { lock_id: Uuid::now_v7(), target, reason, by, created, until }
    }

    #[tokio::test]
    async fn locks_in_force_are_told_newest_first_and_survive() {
        let book = Book::new();
        let whole = LockTarget {
            user: Some("alice@example.com".into()),
            group: Some("engineering".into()),
            socket: Some("shell".into()),
            address: Some("192.0.2.0/24".parse().unwrap()),
        };
        let locks = [
            new(whole, "2026-03-01T10:00:00Z", None),
            new(LockTarget::default(), "2026-03-01T10:00:01Z", Some(60)),
            new(
                LockTarget { address: Some("2001:db8::/32".parse().unwrap()), ..LockTarget::default() },
                "2026-03-01T10:00:02Z",
                Some(3600),
            ),
        ];
        for lock in &locks {
            book.add_lock(lock.clone()).await.unwrap();
        }
        let [first, second, third] = locks.clone();
        let at = |text| book.locks(time(text));
        assert_eq!(at("2026-03-01T10:00:30Z").await.unwrap(), [third.clone(), second, first.clone()]);
        assert_eq!(at("2026-03-01T10:01:01Z").await.unwrap(), [third.clone(), first.clone()], "one ran out");
        let again = Store::open(&book.dir().join("book.db")).unwrap();
        assert_eq!(again.locks(time("2026-03-01T10:01:01Z")).await.unwrap(), [third, first]);
        assert!(matches!(book.add_lock(locks[0].clone()).await, Err(StoreError::Conflict(_))), "an id is one lock's");
    }

    #[tokio::test]
    async fn a_lock_is_removed_once_and_only_while_in_force() {
        let book = Book::new();
        let (open, short) = (
            new(LockTarget::default(), "2026-03-01T10:00:00Z", None),
            new(LockTarget::default(), "2026-03-01T10:00:00Z", Some(1)),
        );
        for lock in [&open, &short] {
            book.add_lock(lock.clone()).await.unwrap();
        }
        let now = time("2026-03-01T11:00:00Z");
        assert_eq!(book.remove_lock(Uuid::now_v7(), "oscar", now).await.unwrap(), None);
        assert_eq!(book.remove_lock(short.lock_id, "oscar", now).await.unwrap(), None, "it ran out");
        assert_eq!(book.remove_lock(open.lock_id, "oscar", now).await.unwrap(), Some(open.clone()));
        assert_eq!(book.remove_lock(open.lock_id, "oscar", now).await.unwrap(), None, "it is off");
        assert_eq!(book.locks(now).await.unwrap(), []);
    }

    #[tokio::test]
    async fn whoever_adds_or_removes_one_is_in_the_audit_log_and_others_hear_of_it() {
        let book = Book::new();
        let lock =
            new(LockTarget { socket: Some("shell".into()), ..LockTarget::default() }, "2026-03-01T10:00:00Z", None);
        book.add_lock(lock.clone()).await.unwrap();
        let now = time("2026-03-01T11:00:00Z");
        book.remove_lock(lock.lock_id, "oscar@example.com", now).await.unwrap().unwrap();
        book.remove_lock(lock.lock_id, "nobody", now).await.unwrap();
        let lines = book.audit_entries(None, 10).await.unwrap();
        let told: Vec<_> = lines.iter().map(|line| (line.action.as_str(), line.actor.as_str())).collect();
        assert_eq!(told, [("lock.removed", "oscar@example.com"), ("lock.added", "admin@example.com")]);
        assert!(lines.iter().all(|line| line.subject == lock.lock_id.to_string()));
        let details = json!({"target": {"socket": "shell"}, "reason": "laptop lost", "until": null});
        assert_eq!(lines[1].details, details);
        assert_eq!(book.changes_after(0).await.unwrap(), [(1, Change::Lock), (2, Change::Lock)]);
    }
}
