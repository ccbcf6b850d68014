//! The audit log: what was done with the gateway and what it keeps. Lines are added; the database itself refuses to
//! change or remove one.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::Store;
use super::values::{Json, Time};
use crate::store::{AuditEntry, StoreError};

impl Store {
    /// Adds a line: who did what to what. `actor` is an e-mail address, a token's label, or `gateway`; `action` is
    /// `what.done` (`session.removed`); `subject` an id; `details` an object without secrets.
    pub async fn audit(
        &self,
        actor: &str,
        action: &str,
        subject: &str,
        details: serde_json::Value,
    ) -> Result<(), StoreError> {
        let [actor, action, subject] = [actor, action, subject].map(str::to_owned);
        self.writes.call(move |db| add(db, &actor, &action, &subject, &details)).await
    }

    /// The newest lines before the line `before`, newest first, at most `limit`.
    pub async fn audit_entries(&self, before: Option<i64>, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
        self.lists
            .call(move |db| {
                let mut find = db.prepare_cached(
                    "SELECT id, at, actor, action, subject, details FROM audit WHERE id < ?1 ORDER BY id DESC LIMIT ?2",
                )?;
                let rows = find.query_map(params![before.unwrap_or(i64::MAX), limit], |row| {
                    Ok(AuditEntry {
                        id: row.get(0)?,
                        at: row.get::<_, Time>(1)?.0,
                        actor: row.get(2)?,
                        action: row.get(3)?,
                        subject: row.get(4)?,
                        details: row.get::<_, Json<_>>(5)?.0,
                    })
                })?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// When the newest line about this was added.
    pub async fn newest_audit(&self, action: &'static str) -> Result<Option<Timestamp>, StoreError> {
        self.lists
            .call(move |db| {
                let mut find = db.prepare_cached("SELECT at FROM audit WHERE action = ?1 ORDER BY id DESC LIMIT 1")?;
                Ok(find.query_row([action], |row| row.get::<_, Time>(0)).optional()?.map(|at| at.0))
            })
            .await
    }
}

/// Adds a line in the transaction of what it tells.
pub(super) fn add(
    db: &Connection,
    actor: &str,
    action: &str,
    subject: &str,
    details: &serde_json::Value,
) -> Result<(), StoreError> {
    let mut add =
        db.prepare_cached("INSERT INTO audit (at, actor, action, subject, details) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    add.execute(params![Time(Timestamp::now()), actor, action, subject, Json(details)])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::testing::Book;

    #[tokio::test]
    async fn lines_are_read_back_newest_first_and_by_the_page() {
        let book = Book::new();
        for n in 0..5 {
            book.audit("admin@example.com", "token.made", &n.to_string(), json!({"n": n})).await.unwrap();
        }
        let page = book.audit_entries(None, 3).await.unwrap();
        assert_eq!(page.iter().map(|entry| entry.subject.as_str()).collect::<Vec<_>>(), ["4", "3", "2"]);
        assert_eq!(page[0].details, json!({"n": 4}));
        let rest = book.audit_entries(Some(page[2].id), 3).await.unwrap();
        assert_eq!(rest.iter().map(|entry| entry.subject.as_str()).collect::<Vec<_>>(), ["1", "0"]);
    }

    #[tokio::test]
    async fn no_line_is_changed_or_removed() {
        let book = Book::new();
        book.audit("a", "b", "c", json!({})).await.unwrap();
        let before = book.audit_entries(None, 10).await.unwrap();
        for sql in ["UPDATE audit SET actor = 'x'", "DELETE FROM audit", "DELETE FROM audit WHERE id = 1"] {
            let tried = book.writes.call(move |db| Ok(db.execute(sql, [])?)).await;
            assert!(matches!(tried, Err(StoreError::Conflict(_))), "{sql}: {tried:?}");
        }
        assert_eq!(book.audit_entries(None, 10).await.unwrap(), before);
    }
}
