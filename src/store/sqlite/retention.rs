//! What has been kept for long enough: found in small steps, oldest first, and removed. Whether a session's recordings
//! are gone already is for the caller to see to: the row is the list of what is to be removed, so it goes last.

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, params};
use serde_json::json;
use uuid::Uuid;

use super::values::{Id, Time};
use super::{Store, audit};
use crate::store::{ExpiredSession, StoreError};

impl Store {
    /// Ended sessions whose end is at or before `until`, oldest first, at most `limit`, after `after` (a session that
    /// was told before). One with a recording that has no end yet is not among them.
    pub async fn expired_sessions(
        &self,
        until: Timestamp,
        after: Option<(Timestamp, Uuid)>,
        limit: u32,
    ) -> Result<Vec<ExpiredSession>, StoreError> {
        let (after, id) = after.unwrap_or((Timestamp::MIN, Uuid::nil()));
        self.lists
            .call(move |db| {
                let view = db.unchecked_transaction()?;
                // A session begins before it ends, so the index on the start bounds the search.
                let mut find = view.prepare_cached(
                    "SELECT seq, session_id, socket_id, socket_name, user_email, start_time, end_time FROM sessions
                     WHERE start_time <= ?1 AND (start_time, session_id) > (?2, ?3) AND end_time <= ?1 AND NOT EXISTS
                        (SELECT 1 FROM recordings WHERE session = seq AND recordings.end_time IS NULL)
                     ORDER BY start_time, session_id LIMIT ?4",
                )?;
                let mut rows = find.query(params![Time(until), Time(after), Id(id), limit])?;
                let mut expired = Vec::new();
                while let Some(row) = rows.next()? {
                    expired.push(ExpiredSession {
                        session_id: row.get::<_, Id>(1)?.0,
                        socket_id: row.get::<_, Id>(2)?.0,
                        socket_name: row.get(3)?,
                        user_email: row.get(4)?,
                        start_time: row.get::<_, Time>(5)?.0,
                        end_time: row.get::<_, Time>(6)?.0,
                        recordings: recordings(&view, row.get(0)?)?,
                    });
                }
                Ok(expired)
            })
            .await
    }

    /// Removes a session's row with its events and recordings' rows, and adds a line to the audit log, together. Nothing
    /// of a session that is live, or whose end is after `until`; tells whether it was removed.
    pub async fn remove_session(
        &self,
        session: ExpiredSession,
        until: Timestamp,
        freed: u64,
    ) -> Result<bool, StoreError> {
        self.writes
            .call(move |db| {
                let mut remove = db.prepare_cached("DELETE FROM sessions WHERE session_id = ?1 AND end_time <= ?2")?;
                let removed = remove.execute(params![Id(session.session_id), Time(until)])? == 1;
                if removed {
                    let details = json!({
                        "why": "retention",
                        "socket_id": session.socket_id,
                        "socket_name": session.socket_name,
                        "user_email": session.user_email,
                        "start_time": session.start_time,
                        "end_time": session.end_time,
                        "recordings": session.recordings.iter().map(|(id, _)| id).collect::<Vec<_>>(),
                        "bytes": freed,
                    });
                    audit::add(db, "gateway", "session.removed", &session.session_id.to_string(), &details)?;
                }
                Ok(removed)
            })
            .await
    }

    /// The newest time up to `now` that the book knows of itself: of the audit log, of the sessions that changed last, of
    /// processes. What lies ahead was written by a clock that has been set right since. Steps of an index, but for the
    /// few processes.
    pub async fn newest_time(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        self.lists
            .call(move |db| {
                let mut find = db.prepare_cached(
                    "SELECT max(at) FROM (
                        SELECT at FROM (SELECT at FROM audit ORDER BY id DESC LIMIT 100)
                        UNION ALL SELECT last_seen FROM (SELECT last_seen FROM sessions ORDER BY changed DESC LIMIT 100)
                        UNION ALL SELECT last_seen FROM sessions WHERE end_time IS NULL
                        UNION ALL SELECT started FROM processes UNION ALL SELECT ended FROM processes)
                     WHERE at <= ?1",
                )?;
                Ok(find.query_row([Time(now)], |row| row.get::<_, Option<Time>>(0))?.map(|at| at.0))
            })
            .await
    }

    /// How many sessions are live, in whichever process.
    pub async fn live_sessions(&self) -> Result<u64, StoreError> {
        self.look_ups
            .call(|db| {
                let mut count = db.prepare_cached("SELECT count(*) FROM sessions WHERE end_time IS NULL")?;
                Ok(count.query_row([], |row| row.get::<_, u32>(0))?.into())
            })
            .await
    }

    /// Which of these sessions have a row.
    pub async fn known_sessions(&self, sessions: Vec<Uuid>) -> Result<HashSet<Uuid>, StoreError> {
        self.lists
            .call(move |db| {
                let mut find = db.prepare_cached("SELECT 1 FROM sessions WHERE session_id = ?1")?;
                let mut known = HashSet::new();
                for session in &sessions {
                    if find.exists([Id(*session)])? {
                        known.insert(*session);
                    }
                }
                Ok(known)
            })
            .await
    }

    /// Removes what let somebody in and has expired, a bounded number of each kind; tells how many. Sign-ins, with what
    /// they issued, and tokens stay for thirty days more, because rows and events may name them.
    pub async fn sweep_expired(&self, now: Timestamp) -> Result<usize, StoreError> {
        let before = now.checked_sub(GRACE).unwrap_or(Timestamp::MIN);
        self.writes
            .call(move |db| {
                let mut removed = 0;
                for (sql, until) in
                    [(SWEEP_KEYS, now), (SWEEP_SOCKET_TOKENS, now), (SWEEP_TOKENS, before), (SWEEP_SIGN_INS, before)]
                {
                    removed += db.prepare_cached(sql)?.execute(params![Time(until), SWEPT_AT_ONCE])?;
                }
                Ok(removed)
            })
            .await
    }
}

fn recordings(db: &Connection, session: i64) -> Result<Vec<(Uuid, Timestamp)>, StoreError> {
    let mut find = db.prepare_cached("SELECT recording_id, start_time FROM recordings WHERE session = ?1")?;
    let rows = find.query_map([session], |row| Ok((row.get::<_, Id>(0)?.0, row.get::<_, Time>(1)?.0)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

const GRACE: SignedDuration = SignedDuration::from_hours(30 * 24);
const SWEPT_AT_ONCE: u32 = 200;

const SWEEP_KEYS: &str = "DELETE FROM remembered_keys WHERE fingerprint IN
    (SELECT fingerprint FROM remembered_keys WHERE expires <= ?1 LIMIT ?2)";
const SWEEP_SOCKET_TOKENS: &str =
    "DELETE FROM socket_tokens WHERE hash IN (SELECT hash FROM socket_tokens WHERE expires <= ?1 LIMIT ?2)";
const SWEEP_TOKENS: &str = "DELETE FROM tokens WHERE hash IN (SELECT hash FROM tokens WHERE expires <= ?1 LIMIT ?2)";
const SWEEP_SIGN_INS: &str =
    "DELETE FROM sign_ins WHERE sign_in_id IN (SELECT sign_in_id FROM sign_ins WHERE expires <= ?1 LIMIT ?2)";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{Book, identity, new_session, recording, time};
    use crate::store::{Filter, NewSession, Outcome, RecordingState};

    async fn session(book: &Book, start: &str, end: Option<&str>) -> NewSession {
        let new = NewSession { start_time: time(start), ..new_session() };
        book.open_session(new.clone()).await.unwrap();
        if let Some(end) = end {
            book.close_session(new.session_id, time(end), Outcome::Closed, String::new(), None).await.unwrap();
        }
        new
    }

    async fn told(book: &Book, until: &str) -> Vec<Uuid> {
        let expired = book.expired_sessions(time(until), None, 100).await.unwrap();
        expired.iter().map(|session| session.session_id).collect()
    }

    #[tokio::test]
    async fn the_newest_time_is_what_the_book_saw_last() {
        let book = Book::new();
        assert_eq!(book.newest_time(Timestamp::now()).await.unwrap(), None);
        session(&book, "2025-01-01T00:00:00Z", Some("2025-01-01T01:00:00Z")).await;
        let live = session(&book, "2024-01-01T00:00:00Z", None).await;
        assert_eq!(book.newest_time(Timestamp::now()).await.unwrap(), Some(time("2025-01-01T01:00:00Z")));
        book.touch(vec![live.session_id], time("2025-01-02T00:00:00Z")).await.unwrap();
        assert_eq!(book.newest_time(Timestamp::now()).await.unwrap(), Some(time("2025-01-02T00:00:00Z")));
        assert_eq!(book.live_sessions().await.unwrap(), 1);
        let before = Timestamp::now();
        book.begin_process(Uuid::now_v7(), 1, "0").await.unwrap();
        assert!(book.newest_time(Timestamp::now()).await.unwrap() >= Some(before));
        // What lies ahead was written by a clock that was wrong.
        let earlier = before - jiff::SignedDuration::from_secs(1);
        assert_eq!(book.newest_time(earlier).await.unwrap(), Some(time("2025-01-02T00:00:00Z")));
    }

    #[tokio::test]
    async fn only_what_ended_long_ago_is_told_oldest_first() {
        let book = Book::new();
        let second = session(&book, "2025-01-02T00:00:00Z", Some("2025-01-02T01:00:00Z")).await;
        let first = session(&book, "2025-01-01T00:00:00Z", Some("2025-01-01T01:00:00Z")).await;
        let _live = session(&book, "2025-01-01T00:00:00Z", None).await;
        let _long = session(&book, "2025-01-01T00:00:00Z", Some("2025-03-01T00:00:00Z")).await;
        let recorded = session(&book, "2025-01-03T00:00:00Z", Some("2025-01-03T01:00:00Z")).await;
        let row = recording();
        book.add_recording(recorded.session_id, row.clone()).await.unwrap();
        let until = "2025-02-01T00:00:00Z";
        assert_eq!(told(&book, until).await, [first.session_id, second.session_id]);
        let end = time("2025-01-03T01:00:00Z");
        book.finish_recording(row.recording_id, end, RecordingState::Complete, 7, None).await.unwrap();
        let all = book.expired_sessions(time(until), None, 100).await.unwrap();
        assert_eq!(all[2].recordings, [(row.recording_id, row.start_time)]);
        let after = (all[0].start_time, all[0].session_id);
        let rest = book.expired_sessions(time(until), Some(after), 1).await.unwrap();
        assert_eq!(rest[..], all[1..2]);
        assert!(told(&book, "2025-01-01T00:30:00Z").await.is_empty());
    }

    #[tokio::test]
    async fn a_session_goes_with_all_that_hangs_on_it_and_leaves_a_line() {
        let book = Book::new();
        let (start, end) = ("2025-01-01T00:00:00Z", "2025-01-01T01:00:00Z");
        let new = session(&book, start, Some(end)).await;
        let kept = session(&book, "2026-01-01T00:00:00Z", None).await;
        let [expired] = &book.expired_sessions(time(end), None, 9).await.unwrap()[..] else { panic!("one") };
        assert!(!book.remove_session(expired.clone(), time(start), 5).await.unwrap(), "it ended later than that");
        assert!(book.remove_session(expired.clone(), time(end), 5).await.unwrap());
        assert!(!book.remove_session(expired.clone(), time(end), 5).await.unwrap(), "it is gone");
        let page = book.list(Filter::default(), 1, 10).await.unwrap();
        assert_eq!((page.total, page.rows[0].session_id), (1, kept.session_id));
        let events: i64 = book
            .lists
            .call(|db| Ok(db.query_row("SELECT count(DISTINCT session) FROM events", [], |row| row.get(0))?))
            .await
            .unwrap();
        assert_eq!(events, 1);
        let [line] = &book.audit_entries(None, 10).await.unwrap()[..] else { panic!("one") };
        assert_eq!((line.actor.as_str(), line.action.as_str()), ("gateway", "session.removed"));
        assert_eq!(line.subject, new.session_id.to_string());
        assert_eq!((&line.details["user_email"], &line.details["bytes"]), (&json!("alice@example.com"), &json!(5)));
        let both = book.known_sessions(vec![new.session_id, kept.session_id]).await.unwrap();
        assert_eq!(both, HashSet::from([kept.session_id]));
    }

    #[tokio::test]
    async fn a_live_session_is_never_removed() {
        let book = Book::new();
        let (start, end) = ("2025-01-01T00:00:00Z", "2025-01-01T01:00:00Z");
        let ended = session(&book, start, Some(end)).await;
        let live = session(&book, start, None).await;
        let [expired] = &book.expired_sessions(time(end), None, 9).await.unwrap()[..] else { panic!("one") };
        let forged = ExpiredSession { session_id: live.session_id, ..expired.clone() };
        assert!(!book.remove_session(forged, Timestamp::MAX, 0).await.unwrap());
        assert_eq!(told(&book, end).await, [ended.session_id]);
    }

    #[tokio::test]
    async fn expired_sign_ins_go_after_thirty_days_with_what_they_issued() {
        let book = Book::new();
        let now = Timestamp::now();
        let ago = move |days: i64| now - SignedDuration::from_hours(24 * days);
        book.remember_key("SHA256:a", &identity(ago(-1))).await.unwrap();
        book.writes
            .call(move |db| {
                for (id, expires) in [(1u8, ago(31)), (2, ago(29)), (3, ago(-1))] {
                    let (id, expires) = ([id; 16], Time(expires));
                    db.execute(
                        "INSERT INTO sign_ins (sign_in_id, issuer, sub, user_email, identity, client_ip, created, expires)
                         VALUES (?1, 'i', 's', 'e', '{}', '::1', 0, ?2)",
                        params![id, expires],
                    )?;
                    db.execute(
                        "INSERT INTO certificates (sign_in_id, kind, fingerprint, created, expires) VALUES (?1, 'ssh', 'f', 0, ?2)",
                        params![id, expires],
                    )?;
                    let insert = "INSERT INTO socket_tokens (hash, sign_in_id, socket_name, client_ip, created, expires)
                                  VALUES (randomblob(32), ?1, 's', '::1', 0, ?2)";
                    db.execute(insert, params![id, expires])?;
                }
                Ok(())
            })
            .await
            .unwrap();
        let count = async |table: &'static str| -> i64 {
            let sql = format!("SELECT count(*) FROM {table}");
            book.lists.call(move |db| Ok(db.query_row(&sql, [], |row| row.get(0))?)).await.unwrap()
        };
        assert_eq!(book.sweep_expired(now).await.unwrap(), 3, "two socket tokens and a sign-in");
        assert_eq!((count("sign_ins").await, count("certificates").await, count("socket_tokens").await), (2, 2, 1));
        assert_eq!(count("remembered_keys").await, 1);
        assert_eq!(book.sweep_expired(now).await.unwrap(), 0);
    }
}
