//! Several gateway processes on one book: whose a session is, which orders wait for its holder, and what a process that
//! died left open. Who lives is not decided here: callers name the dead.

use jiff::Timestamp;
use rusqlite::Error::FromSqlConversionFailure;
use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Row, params};
use uuid::Uuid;

use super::Store;
use super::values::{Id, Json, Time};
use crate::store::StoreError;

/// An order to end a session, or one channel of it, that stands in the book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KillOrder {
    /// Which session.
    pub session: Uuid,
    /// The channel's recording; `None`: all of the session.
    pub recording: Option<Uuid>,
    /// Who ordered it, as it is shown.
    pub by: String,
    /// Why.
    pub reason: String,
}

impl Store {
    /// The same book, in whose rows the sessions that are opened from now on belong to this process.
    pub fn held_by(mut self, process: Uuid) -> Self {
        self.process = Some(process);
        self
    }

    /// Writes a process down. Its locked file must be there already: a process that is here without one is dead.
    pub async fn begin_process(&self, process: Uuid, pid: u32, version: &'static str) -> Result<(), StoreError> {
        let started = Timestamp::now();
        self.writes
            .call(move |db| {
                let mut add = db.prepare_cached(
                    "INSERT INTO processes (process_id, pid, version, started) VALUES (?1, ?2, ?3, ?4)",
                )?;
                add.execute(params![Id(process), pid, version, Time(started)])?;
                Ok(())
            })
            .await
    }

    /// Notes that a process has ended, if nothing of it is open: no session, no recording. Whether it was noted; the first
    /// end stands.
    pub async fn end_process(&self, process: Uuid) -> Result<bool, StoreError> {
        let ended = Timestamp::now();
        self.writes
            .call(move |db| {
                // By the few that are unfinished, not by all that the process ever held.
                let mut end = db.prepare_cached(
                    "UPDATE processes SET ended = ?2 WHERE process_id = ?1 AND ended IS NULL
                        AND NOT EXISTS (SELECT 1 FROM sessions WHERE process = ?1 AND end_time IS NULL)
                        AND NOT EXISTS (
                            SELECT 1 FROM recordings r CROSS JOIN sessions s ON s.seq = r.session
                            WHERE r.end_time IS NULL AND s.process = ?1)",
                )?;
                Ok(end.execute(params![Id(process), Time(ended)])? == 1)
            })
            .await
    }

    /// The processes that have not ended in good order: the living, and the dead that nobody has cleaned up after.
    pub async fn open_processes(&self) -> Result<Vec<Uuid>, StoreError> {
        self.look_ups
            .call(|db| {
                let mut all = db.prepare_cached("SELECT process_id FROM processes WHERE ended IS NULL")?;
                let ids = all.query_map([], |row| Ok(row.get::<_, Id>(0)?.0))?;
                Ok(ids.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// Which process holds a live session; `None` when it is not live, not there, or from before there were processes.
    pub async fn holder(&self, session: Uuid) -> Result<Option<Uuid>, StoreError> {
        self.look_ups
            .call(move |db| {
                let mut find =
                    db.prepare_cached("SELECT process FROM sessions WHERE session_id = ?1 AND end_time IS NULL")?;
                let found = find.query_row([Id(session)], |row| row.get::<_, Option<Id>>(0)).optional()?;
                Ok(found.flatten().map(|id| id.0))
            })
            .await
    }

    /// The orders that stand for live sessions of this handle's process: for each session in the words of the first one
    /// given, and for single channels all that were given, also those that were carried out.
    pub async fn kill_orders(&self) -> Result<Vec<KillOrder>, StoreError> {
        let process = self.process;
        self.look_ups
            .call(move |db| {
                let mut find = db.prepare_cached(
                    "SELECT s.session_id, e.metadata ->> '$.by', e.metadata ->> '$.reason',
                        e.metadata ->> '$.recording_id'
                     FROM sessions s JOIN events e ON e.session = s.seq AND e.type = 'kill'
                     WHERE s.process IS ?1 AND s.end_time IS NULL AND (
                        e.metadata ->> '$.recording_id' IS NOT NULL
                        OR s.killed = 1 AND e.id = (
                            SELECT id FROM events
                            WHERE session = s.seq AND type = 'kill' AND metadata ->> '$.recording_id' IS NULL
                            ORDER BY id LIMIT 1))
                     ORDER BY e.id",
                )?;
                let orders = find.query_map([process.map(Id)], kill_order)?;
                Ok(orders.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// Recordings without an end that belong to dead processes (or to none), with their sessions and when they began.
    pub async fn unfinished_recordings(&self, dead: &[Uuid]) -> Result<Vec<(Uuid, Uuid, Timestamp)>, StoreError> {
        let dead = hex(dead);
        self.look_ups
            .call(move |db| {
                let mut all = db.prepare_cached(
                    "SELECT s.session_id, r.recording_id, r.start_time
                     FROM recordings r JOIN sessions s ON s.seq = r.session
                     WHERE r.end_time IS NULL
                        AND (s.process IS NULL OR hex(s.process) IN (SELECT value FROM json_each(?1)))
                     ORDER BY r.id",
                )?;
                let rows = all.query_map([&dead], |row| {
                    Ok((row.get::<_, Id>(0)?.0, row.get::<_, Id>(1)?.0, row.get::<_, Time>(2)?.0))
                })?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// Closes, as of when they were last seen, the sessions that dead processes (or none) left open, and names them.
    pub async fn close_orphans(&self, dead: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
        let dead = hex(dead);
        self.writes
            .call(move |db| {
                let mut close = db.prepare_cached(
                    "UPDATE sessions SET
                        end_time = last_seen, outcome = iif(killed, 'killed', 'crashed'), end_reason = iif(killed,
                            'ended by order; the gateway stopped without closing the session', ?1),
                        remaining = iif(killed, 'unknown', NULL)
                     WHERE end_time IS NULL
                        AND (process IS NULL OR hex(process) IN (SELECT value FROM json_each(?2)))
                     RETURNING session_id",
                )?;
                let closed = close.query_map(params![CRASHED, dead], |row| Ok(row.get::<_, Id>(0)?.0))?;
                Ok(closed.collect::<Result<_, _>>()?)
            })
            .await
    }
}

fn kill_order(row: &Row<'_>) -> rusqlite::Result<KillOrder> {
    let recording = row.get::<_, Option<String>>(3)?.map(|id| id.parse());
    Ok(KillOrder {
        session: row.get::<_, Id>(0)?.0,
        by: row.get::<_, Option<String>>(1)?.unwrap_or_default(),
        reason: row.get::<_, Option<String>>(2)?.unwrap_or_default(),
        recording: recording.transpose().map_err(|error| FromSqlConversionFailure(3, Type::Text, Box::new(error)))?,
    })
}

/// Ids as SQLite's `hex` writes them: a list of BLOBs cannot be bound.
fn hex(ids: &[Uuid]) -> Json<Vec<String>> {
    Json(ids.iter().map(|id| format!("{:X}", id.simple())).collect())
}

/// What stands on a row that a crash left open.
const CRASHED: &str = "the gateway stopped without closing the session; it ended when it was last seen, or soon after";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::testing::{self, Book, new_session, time};
    use crate::store::{Event, EventStatus, NewSession, Ordered, Outcome, RecordingState, SessionRow};

    const END: &str = "2026-03-01T11:00:00Z";

    async fn opened(store: &Store) -> NewSession {
        let new = new_session();
        store.open_session(new.clone()).await.unwrap();
        new
    }

    async fn row(book: &Book, new: &NewSession) -> SessionRow {
        book.session(testing::socket_id(new), new.session_id).await.unwrap().unwrap()
    }

    fn kill(by: &str, reason: &str) -> Event {
        Event::now("kill", EventStatus::Success, json!({"by": by, "reason": reason}))
    }

    #[tokio::test]
    async fn orphans_end_when_they_were_last_seen() {
        let book = Book::new();
        let (orphan, ordered, ended) = (opened(&book).await, opened(&book).await, opened(&book).await);
        let seen = time("2026-03-01T10:59:00Z");
        book.touch(vec![orphan.session_id], seen).await.unwrap();
        book.order_kill(ordered.session_id, kill("admin", "out")).await.unwrap();
        book.close_session(ended.session_id, time(END), Outcome::Closed, "closed".into(), None).await.unwrap();
        let before = row(&book, &ended).await;

        let mut closed = book.close_orphans(&[]).await.unwrap();
        closed.sort();
        assert_eq!(closed, [orphan.session_id, ordered.session_id]);
        let crashed = row(&book, &orphan).await;
        assert_eq!((crashed.end_time, crashed.outcome), (Some(seen), Some(Outcome::Crashed)));
        assert!(crashed.end_reason.unwrap().contains("without closing"));
        let killed = row(&book, &ordered).await;
        assert_eq!((killed.end_time, killed.outcome), (Some(ordered.start_time), Some(Outcome::Killed)));
        assert_eq!((killed.remaining.as_deref(), row(&book, &orphan).await.remaining), (Some("unknown"), None));
        assert_eq!(row(&book, &ended).await, before);
        assert!(book.close_orphans(&[]).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn only_what_the_dead_held_is_closed() {
        let book = Book::new();
        let (living, dead) = (Uuid::now_v7(), Uuid::now_v7());
        let (mine, theirs) = (Store::clone(&book).held_by(living), Store::clone(&book).held_by(dead));
        let (kept, lost) = (opened(&mine).await, opened(&theirs).await);
        let (one, other) = (testing::recording(), testing::recording());
        mine.add_recording(kept.session_id, one.clone()).await.unwrap();
        theirs.add_recording(lost.session_id, other.clone()).await.unwrap();
        assert!(book.unfinished_recordings(&[]).await.unwrap().is_empty());
        assert!(book.close_orphans(&[]).await.unwrap().is_empty());
        let unfinished = book.unfinished_recordings(&[dead]).await.unwrap();
        assert_eq!(unfinished, [(lost.session_id, other.recording_id, other.start_time)]);
        assert_eq!(book.close_orphans(&[dead]).await.unwrap(), [lost.session_id]);
        assert_eq!(row(&book, &kept).await.outcome, None);
        book.finish_recording(other.recording_id, time(END), RecordingState::Truncated, 1, None).await.unwrap();
        assert!(book.unfinished_recordings(&[dead]).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_process_is_open_until_it_has_ended() {
        let book = Book::new();
        let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
        book.begin_process(one, 11, "1").await.unwrap();
        book.begin_process(other, 12, "2").await.unwrap();
        assert!(matches!(book.begin_process(one, 13, "1").await, Err(StoreError::Conflict(_))), "an id is taken once");
        assert!(book.end_process(one).await.unwrap());
        assert_eq!(book.open_processes().await.unwrap(), [other]);
        assert!(!book.end_process(one).await.unwrap(), "once");
        assert!(!book.end_process(Uuid::now_v7()).await.unwrap(), "nobody");
    }

    #[tokio::test]
    async fn a_process_has_not_ended_while_anything_of_it_is_open() {
        let book = Book::new();
        let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
        for process in [one, other] {
            book.begin_process(process, 11, "1").await.unwrap();
        }
        let (mine, theirs) = (Store::clone(&book).held_by(one), Store::clone(&book).held_by(other));
        let (session, _theirs) = (opened(&mine).await, opened(&theirs).await);
        let recording = testing::recording();
        mine.add_recording(session.session_id, recording.clone()).await.unwrap();
        assert!(!book.end_process(one).await.unwrap(), "a session is open");
        book.close_session(session.session_id, time(END), Outcome::Closed, "closed".into(), None).await.unwrap();
        assert!(!book.end_process(one).await.unwrap(), "a recording is");
        let open = book.open_processes().await.unwrap();
        assert!(open.contains(&one) && open.contains(&other), "{open:?}");
        book.finish_recording(recording.recording_id, time(END), RecordingState::Complete, 1, None).await.unwrap();
        assert!(book.end_process(one).await.unwrap());
        assert!(!book.end_process(other).await.unwrap(), "its own session is open");
    }

    #[tokio::test]
    async fn an_order_is_found_by_the_holder_alone_and_in_the_first_words() {
        let book = Book::new();
        let (me, they) = (Uuid::now_v7(), Uuid::now_v7());
        let (mine, theirs) = (Store::clone(&book).held_by(me), Store::clone(&book).held_by(they));
        let (ordered, _left_alone) = (opened(&mine).await, opened(&mine).await);
        assert_eq!(book.holder(ordered.session_id).await.unwrap(), Some(me));
        assert_eq!(book.holder(Uuid::now_v7()).await.unwrap(), None);
        assert!(mine.kill_orders().await.unwrap().is_empty());
        assert_eq!(book.order_kill(ordered.session_id, kill("anna", "first")).await.unwrap(), Ordered::Live);
        assert_eq!(book.order_kill(ordered.session_id, kill("bert", "second")).await.unwrap(), Ordered::Live);
        let order = |recording, by: &str, reason: &str| KillOrder {
            session: ordered.session_id,
            recording,
            by: by.into(),
            reason: reason.into(),
        };
        assert_eq!(mine.kill_orders().await.unwrap(), [order(None, "anna", "first")]);
        assert!(theirs.kill_orders().await.unwrap().is_empty());
        let recording = testing::recording();
        let id = recording.recording_id;
        mine.add_recording(ordered.session_id, recording).await.unwrap();
        let about = json!({"by": "carl", "reason": "this one", "recording_id": id});
        let event = Event::now("kill", EventStatus::Success, about);
        assert_eq!(book.order_channel_kill(ordered.session_id, id, true, event).await.unwrap(), Ordered::Live);
        let both = [order(None, "anna", "first"), order(Some(id), "carl", "this one")];
        assert_eq!(mine.kill_orders().await.unwrap(), both);
        assert!(theirs.kill_orders().await.unwrap().is_empty());
        book.close_session(ordered.session_id, time(END), Outcome::Killed, "first".into(), None).await.unwrap();
        assert!(mine.kill_orders().await.unwrap().is_empty());
        assert_eq!(book.holder(ordered.session_id).await.unwrap(), None);
    }
}
