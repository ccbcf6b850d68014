//! What other processes of this gateway must hear. A line is written in the transaction of what it tells, so that nobody
//! hears of what is not there, and nothing is there that nobody hears of.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, Row, params};
use serde::Deserialize;
use serde_json::json;

use super::Store;
use super::values::Time;
use crate::store::{Change, StoreError};

impl Store {
    /// The number of the newest change: begin with it, then ask [`Store::changes_after`].
    pub async fn newest_change(&self) -> Result<i64, StoreError> {
        self.look_ups
            .call(|db| {
                Ok(db.prepare_cached("SELECT coalesce(max(n), 0) FROM changes")?.query_row([], |row| row.get(0))?)
            })
            .await
    }

    /// What has changed after the change `n`, in order, each with its number; a bounded piece of it. Changes are kept
    /// for a day.
    pub async fn changes_after(&self, n: i64) -> Result<Vec<(i64, Change)>, StoreError> {
        self.look_ups
            .call(move |db| {
                let mut find =
                    db.prepare_cached("SELECT n, kind, what FROM changes WHERE n > ?1 ORDER BY n LIMIT ?2")?;
                Ok(find.query_map([n, AT_ONCE], numbered)?.collect::<Result<_, _>>()?)
            })
            .await
    }
}

/// Adds a line, and sweeps those that everybody has heard or will never ask for.
pub(super) fn add(db: &Connection, change: &Change) -> Result<(), StoreError> {
    let now = Timestamp::now();
    db.prepare_cached("DELETE FROM changes WHERE at < ?1")?.execute([Time(now - KEPT)])?;
    let (kind, what) = match change {
        Change::Lock => (LOCK, String::new()),
        Change::Person { issuer, subject } => (PERSON, json!({ "issuer": issuer, "sub": subject }).to_string()),
        Change::SignInRevoked(id) => (SIGN_IN_REVOKED, id.to_string()),
        Change::PersonRevoked(email) => (PERSON_REVOKED, email.clone()),
        Change::Unknown => return Ok(()),
    };
    let mut add = db.prepare_cached("INSERT INTO changes (at, kind, what) VALUES (?1, ?2, ?3)")?;
    add.execute(params![Time(now), kind, what])?;
    Ok(())
}

fn numbered(row: &Row<'_>) -> rusqlite::Result<(i64, Change)> {
    let change = match row.get_ref("kind")?.as_str()? {
        LOCK => Change::Lock,
        PERSON => {
            let person = serde_json::from_str(row.get_ref("what")?.as_str()?);
            person.map_or(Change::Unknown, |Person { issuer, sub }| Change::Person { issuer, subject: sub })
        }
        SIGN_IN_REVOKED => row.get_ref("what")?.as_str()?.parse().map_or(Change::Unknown, Change::SignInRevoked),
        PERSON_REVOKED => Change::PersonRevoked(row.get("what")?),
        // Written by a newer version during an upgrade.
        _ => Change::Unknown,
    };
    Ok((row.get("n")?, change))
}

/// A person, as they stand in a line.
#[derive(Deserialize)]
struct Person {
    issuer: String,
    sub: String,
}

const LOCK: &str = "lock";
const PERSON: &str = "person";
const SIGN_IN_REVOKED: &str = "sign_in_revoked";
const PERSON_REVOKED: &str = "person_revoked";
/// How long a change is kept.
const KEPT: SignedDuration = SignedDuration::from_hours(24);
/// Changes in one answer.
const AT_ONCE: i64 = 1000;

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::store::testing::Book;

    async fn write(book: &Book, change: Change) {
        book.writes.call(move |db| add(db, &change)).await.unwrap();
    }

    #[tokio::test]
    async fn changes_are_read_back_in_order_from_where_one_is() {
        let book = Book::new();
        assert_eq!(book.newest_change().await.unwrap(), 0);
        let all = [
            Change::Lock,
            Change::Person { issuer: "https://idp.example.com".into(), subject: "u-1".into() },
            Change::SignInRevoked(Uuid::now_v7()),
            Change::PersonRevoked("alice@example.com".into()),
        ];
        for change in all.clone() {
            write(&book, change).await;
        }
        let told = book.changes_after(0).await.unwrap();
        assert_eq!(told, (1..).zip(all).collect::<Vec<_>>());
        assert_eq!(book.newest_change().await.unwrap(), 4);
        assert_eq!(book.changes_after(3).await.unwrap(), told[3..]);
        assert_eq!(book.changes_after(4).await.unwrap(), []);
    }

    #[tokio::test]
    async fn what_a_newer_version_tells_is_stepped_over() {
        let book = Book::new();
        let newer = "INSERT INTO changes (at, kind, what) VALUES (9000000000000000, 'moon', '{}')";
        book.writes.call(move |db| Ok(db.execute(newer, [])?)).await.unwrap();
        write(&book, Change::Lock).await;
        assert_eq!(book.changes_after(0).await.unwrap(), [(1, Change::Unknown), (2, Change::Lock)]);
    }

    #[tokio::test]
    async fn old_changes_go_and_their_numbers_never_come_back() {
        let book = Book::new();
        for _ in 0..3 {
            write(&book, Change::Lock).await;
        }
        let day_ago = Timestamp::now() - KEPT - SignedDuration::from_secs(1);
        let age = move |db: &Connection| Ok(db.execute("UPDATE changes SET at = ?1", [Time(day_ago)])?);
        book.writes.call(age).await.unwrap();
        write(&book, Change::Lock).await;
        assert_eq!(book.changes_after(0).await.unwrap(), [(4, Change::Lock)]);
        book.writes.call(|db| Ok(db.execute("DELETE FROM changes", [])?)).await.unwrap();
        write(&book, Change::Lock).await;
        assert_eq!(book.newest_change().await.unwrap(), 5);
    }
}
