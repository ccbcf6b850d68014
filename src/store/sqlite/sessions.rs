//! The life of a row: opened, written to, ordered down, closed.

use jiff::Timestamp;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::values::{Id, Json, Time, Word};
use super::{Store, locks, past};
use crate::policy::Lock;
use crate::socket::socket_id;
use crate::store::{AuthResult, Event, NewSession, Ordered, Outcome, RecordingRow, RecordingState, StoreError};

impl Store {
    /// Writes a session's row and its first events. A denied one is written as ended at once.
    ///
    /// Of all calls the only one that is skipped when its caller has given up before its turn: a row that nobody
    /// holds would stand as live until the next start.
    pub async fn open_session(&self, new: NewSession) -> Result<(), StoreError> {
        let process = self.process;
        self.writes
            .call_if_awaited(move |db| {
                let session = insert(db, &new, process)?;
                new.events.iter().try_for_each(|event| insert_event(db, session, event))
            })
            .await
    }

    /// Adds an event, also to a session that has ended (somebody read its recording).
    pub async fn add_event(&self, session: Uuid, event: Event) -> Result<(), StoreError> {
        self.writes.call(move |db| insert_event(db, number(db, session)?, &event)).await
    }

    /// Adds a recording.
    pub async fn add_recording(&self, session: Uuid, row: RecordingRow) -> Result<(), StoreError> {
        self.writes.call(move |db| insert_recording(db, number(db, session)?, &row)).await
    }

    /// What the bytes of a recording are to somebody who reads them, as it was found out later.
    pub async fn set_legibility(&self, recording: Uuid, legibility: &'static str) -> Result<(), StoreError> {
        self.writes
            .call(move |db| {
                let mut set = db.prepare_cached("UPDATE recordings SET legibility = ?2 WHERE recording_id = ?1")?;
                set.execute(params![Id(recording), legibility])?;
                Ok(())
            })
            .await
    }

    /// Closes a recording. The first end stands: closing twice changes nothing. `size` is in bytes on disk.
    pub async fn finish_recording(
        &self,
        recording: Uuid,
        end: Timestamp,
        state: RecordingState,
        size: u64,
        exit_status: Option<u32>,
    ) -> Result<(), StoreError> {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        self.writes
            .call(move |db| {
                let mut close = db.prepare_cached(
                    "UPDATE recordings SET end_time = ?2, state = ?3, size = ?4, exit_status = ?5
                     WHERE recording_id = ?1 AND end_time IS NULL",
                )?;
                if close.execute(params![Id(recording), Time(end), Word(state), size, exit_status])? == 1 {
                    return Ok(());
                }
                let mut known = db.prepare_cached("SELECT 1 FROM recordings WHERE recording_id = ?1")?;
                if known.exists([Id(recording)])? { Ok(()) } else { Err(StoreError::UnknownRecording) }
            })
            .await
    }

    /// Moves `last_seen` of live sessions forward. Ended and unknown ones are passed over.
    pub async fn touch(&self, sessions: Vec<Uuid>, seen: Timestamp) -> Result<(), StoreError> {
        self.writes
            .call(move |db| {
                let mut touch = db.prepare_cached(
                    "UPDATE sessions SET last_seen = ?2 WHERE session_id = ?1 AND end_time IS NULL AND last_seen < ?2",
                )?;
                for session in &sessions {
                    touch.execute(params![Id(*session), Time(seen)])?;
                }
                Ok(())
            })
            .await
    }

    /// Writes an order to end a session: `killed` and the event, together, or nothing if it is not live.
    ///
    /// The event's `metadata.reason` becomes the row's `end_reason`, however the race with another end goes.
    pub async fn order_kill(&self, session: Uuid, event: Event) -> Result<Ordered, StoreError> {
        self.order_kill_and_lock(session, event, None).await
    }

    /// The same, with a lock that is in the book from the same instant on, or not at all.
    pub async fn order_kill_and_lock(
        &self,
        session: Uuid,
        event: Event,
        lock: Option<Lock>,
    ) -> Result<Ordered, StoreError> {
        self.writes
            .call(move |db| {
                let mut order = db.prepare_cached(
                    "UPDATE sessions SET killed = 1 WHERE session_id = ?1 AND end_time IS NULL RETURNING seq",
                )?;
                if let Some(number) = one_number(&mut order, session)? {
                    insert_event(db, number, &event)?;
                    lock.iter().try_for_each(|lock| locks::insert(db, lock))?;
                    return Ok(Ordered::Live);
                }
                match number(db, session) {
                    Ok(_) => Ok(Ordered::Ended),
                    Err(StoreError::UnknownSession) => Ok(Ordered::Unknown),
                    Err(error) => Err(error),
                }
            })
            .await
    }

    /// Writes an order to end one channel of a session, by its recording: the event, or nothing if one of them has
    /// ended, or if there is such an order: the first one stands. `open` is what is known of the channel itself: one that
    /// is not recorded is known here by the events about it, and not whether it is open.
    pub async fn order_channel_kill(
        &self,
        session: Uuid,
        recording: Uuid,
        open: bool,
        event: Event,
    ) -> Result<Ordered, StoreError> {
        self.writes
            .call(move |db| match channel(db, session, recording)? {
                Some(_) if !open => Ok(Ordered::Ended),
                Some((number, true)) if is_ordered(db, number, recording)? => Ok(Ordered::Live),
                Some((number, true)) => insert_event(db, number, &event).map(|()| Ordered::Live),
                Some((_, false)) => Ok(Ordered::Ended),
                None => Ok(Ordered::Unknown),
            })
            .await
    }

    /// Closes a session. The first end stands: closing twice changes nothing.
    ///
    /// A session with an order to end it ends as `killed` with that order's reason, whatever `outcome` says: the order
    /// came first. `remaining` is for kills alone: `none`, `unknown` (also when not given), or what still runs upstream.
    pub async fn close_session(
        &self,
        session: Uuid,
        end: Timestamp,
        outcome: Outcome,
        reason: String,
        remaining: Option<String>,
    ) -> Result<(), StoreError> {
        self.writes
            .call(move |db| {
                let mut close = db.prepare_cached(
                    "UPDATE sessions SET
                        end_time = ?2, last_seen = max(last_seen, ?2),
                        outcome = iif(killed, 'killed', ?3), killed = killed OR ?3 = 'killed',
                        end_reason = iif(killed AND ?3 <> 'killed', coalesce((
                            SELECT json_extract(metadata, '$.reason') FROM events
                            WHERE session = seq AND type = 'kill' AND metadata ->> '$.recording_id' IS NULL
                            ORDER BY id LIMIT 1), ?4), ?4),
                        remaining = iif(killed OR ?3 = 'killed', coalesce(?5, 'unknown'), NULL)
                     WHERE session_id = ?1 AND end_time IS NULL",
                )?;
                match close.execute(params![Id(session), Time(end), Word(outcome), reason, remaining])? {
                    0 => number(db, session).map(drop),
                    _ => Ok(()),
                }
            })
            .await
    }
}

/// The row's number, by which events and recordings know it.
fn number(db: &Connection, session: Uuid) -> Result<i64, StoreError> {
    let mut find = db.prepare_cached("SELECT seq FROM sessions WHERE session_id = ?1")?;
    one_number(&mut find, session)?.ok_or(StoreError::UnknownSession)
}

/// The number of a channel's session, and whether both may still be open.
fn channel(db: &Connection, session: Uuid, recording: Uuid) -> Result<Option<(i64, bool)>, StoreError> {
    let mut recorded = db.prepare_cached(
        "SELECT s.seq, s.end_time IS NULL AND r.end_time IS NULL
         FROM sessions s JOIN recordings r ON r.session = s.seq WHERE s.session_id = ?1 AND r.recording_id = ?2",
    )?;
    let both = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    if let Some(found) = recorded.query_row(params![Id(session), Id(recording)], both).optional()? {
        return Ok(Some(found));
    }
    let mut told = db.prepare_cached(
        "SELECT s.seq, s.end_time IS NULL FROM sessions s WHERE s.session_id = ?1 AND EXISTS (
            SELECT 1 FROM events
            WHERE session = s.seq AND type <> 'kill' AND metadata ->> '$.recording_id' = ?2)",
    )?;
    Ok(told.query_row(params![Id(session), recording.to_string()], both).optional()?)
}

/// Whether there is an order to end this channel.
fn is_ordered(db: &Connection, number: i64, recording: Uuid) -> Result<bool, StoreError> {
    let mut find = db.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM events
         WHERE session = ?1 AND type = 'kill' AND metadata ->> '$.recording_id' = ?2)",
    )?;
    Ok(find.query_row(params![number, recording.to_string()], |row| row.get(0))?)
}

fn one_number(statement: &mut CachedStatement<'_>, session: Uuid) -> Result<Option<i64>, StoreError> {
    Ok(statement.query_row([Id(session)], |row| row.get(0)).optional()?)
}

fn insert(db: &Connection, new: &NewSession, process: Option<Uuid>) -> Result<i64, StoreError> {
    let denied = new.result == AuthResult::Denied;
    let who = &new.identity;
    let mut insert = db.prepare_cached(
        "INSERT INTO sessions (
            session_id, socket_id, socket_name, session_type, start_time, end_time, last_seen,
            issuer, sub, user_email, name, picture, nickname, groups, signed_in, actor,
            server_name, server_port, upstream, client_ip, client_port, sshuser,
            audit_log, result, outcome, end_reason, rule, durability, country_code, country, city, process,
            proved, sign_in
         ) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?5, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, 'person',
            ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31,
            ?32)",
    )?;
    insert.execute(params![
        Id(new.session_id),
        Id(socket_id(&new.socket_name)),
        new.socket_name,
        new.session_type,
        Time(new.start_time),
        denied.then_some(Time(new.start_time)),
        who.issuer(),
        who.subject(),
        who.email(),
        who.name(),
        who.picture(),
        who.nickname(),
        Json(who.groups()),
        Time(who.signed_in()),
        new.server_name,
        new.server_port,
        new.upstream,
        new.client_ip.to_canonical().to_string(),
        new.client_port,
        new.ssh_user,
        new.audit_log,
        Word(new.result),
        denied.then_some(Word(Outcome::Refused)),
        if denied { new.end_reason.as_deref() } else { None },
        new.rule,
        new.durability,
        new.place.country_code,
        new.place.country,
        new.place.city,
        process.map(Id),
        past::proved(who)?,
        new.sign_in_id.map(Id),
    ])?;
    Ok(db.last_insert_rowid())
}

fn insert_event(db: &Connection, session: i64, event: &Event) -> Result<(), StoreError> {
    let mut insert = db.prepare_cached(
        "INSERT INTO events (session, created_at, type, status, metadata) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    insert.execute(params![session, Time(event.created_at), event.kind, Word(event.status), Json(&event.metadata)])?;
    Ok(())
}

fn insert_recording(db: &Connection, session: i64, row: &RecordingRow) -> Result<(), StoreError> {
    let mut insert = db.prepare_cached(
        "INSERT INTO recordings (
            recording_id, session, kind, command, start_time, end_time, state, legibility, size, exit_status
         ) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    insert.execute(params![
        Id(row.recording_id),
        session,
        row.kind,
        row.command,
        Time(row.start_time),
        row.end_time.map(Time),
        Word(row.state),
        row.legibility,
        row.size.map(|size| i64::try_from(size).unwrap_or(i64::MAX)),
        row.exit_status,
    ])?;
    let mut mark = db.prepare_cached("UPDATE sessions SET audit_log = 1 WHERE seq = ?1 AND audit_log = 0")?;
    mark.execute([session])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::testing::{self, Book, denied_session, new_session, time};
    use crate::store::{EventStatus, Filter, SessionRow};

    const END: &str = "2026-03-01T11:00:00Z";

    async fn opened(book: &Book) -> NewSession {
        let new = new_session();
        book.open_session(new.clone()).await.unwrap();
        new
    }

    async fn row(book: &Book, new: &NewSession) -> SessionRow {
        book.session(testing::socket_id(new), new.session_id).await.unwrap().unwrap()
    }

    async fn close(book: &Book, new: &NewSession, outcome: Outcome, reason: &str) {
        book.close_session(new.session_id, time(END), outcome, reason.to_owned(), None).await.unwrap();
    }

    fn kill(reason: &str) -> Event {
        Event::now("kill", EventStatus::Success, json!({"by": "admin@example.com", "reason": reason}))
    }

    #[tokio::test]
    async fn a_session_is_read_back_as_it_was_written() {
        let book = Book::new();
        let new = opened(&book).await;
        let row = row(&book, &new).await;
        assert_eq!((row.session_id, row.socket_id), (new.session_id, socket_id("shell")));
        assert_eq!((row.start_time, row.last_seen, row.end_time), (new.start_time, new.start_time, None));
        assert_eq!((row.user_email.as_str(), row.sub.as_str()), ("alice@example.com", "u-1"));
        assert_eq!((row.client_ip.as_str(), row.client_port.as_str()), ("192.0.2.7", "50022"));
        assert_eq!((row.killed, row.audit_log, row.outcome), (false, true, None));
        assert_eq!(row.events, new.events);
        assert!(book.session(socket_id("other"), new.session_id).await.unwrap().is_none());
        assert!(book.session(socket_id("shell"), Uuid::now_v7()).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_denied_session_has_ended_when_it_began() {
        let book = Book::new();
        let new = denied_session();
        book.open_session(new.clone()).await.unwrap();
        let row = row(&book, &new).await;
        assert_eq!((row.result, row.outcome), (AuthResult::Denied, Some(Outcome::Refused)));
        assert_eq!((row.end_time, row.end_reason.as_deref()), (Some(new.start_time), Some("no rule allows it")));
        assert_eq!(book.order_kill(new.session_id, kill("late")).await.unwrap(), Ordered::Ended);
    }

    #[tokio::test]
    async fn an_id_is_taken_once() {
        let book = Book::new();
        let new = opened(&book).await;
        assert!(matches!(book.open_session(new).await, Err(StoreError::Conflict(_))));
        assert_eq!(book.list(Filter::default(), 1, 10).await.unwrap().total, 1);
    }

    #[tokio::test]
    async fn fifty_at_once_all_stand() {
        let book = Book::new();
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let (store, new) = (Store::clone(&book), new_session());
                tokio::spawn(async move { store.open_session(new.clone()).await.map(|()| new.session_id) })
            })
            .collect();
        let mut ids = Vec::new();
        for task in tasks {
            ids.push(task.await.unwrap().unwrap());
        }
        let page = book.list(Filter::default(), 1, 100).await.unwrap();
        let mut listed: Vec<_> = page.rows.iter().map(|row| row.session_id).collect();
        ids.sort();
        listed.sort();
        assert_eq!((page.total, listed), (50, ids));
    }

    #[tokio::test]
    async fn events_and_recordings_need_their_session() {
        let book = Book::new();
        let nobody = Uuid::now_v7();
        assert!(matches!(book.add_event(nobody, kill("x")).await, Err(StoreError::UnknownSession)));
        assert!(matches!(book.add_recording(nobody, testing::recording()).await, Err(StoreError::UnknownSession)));
        let closed = book.close_session(nobody, time(END), Outcome::Closed, String::new(), None).await;
        assert!(matches!(closed, Err(StoreError::UnknownSession)));
        let finished = book.finish_recording(nobody, time(END), RecordingState::Complete, 1, None).await;
        assert!(matches!(finished, Err(StoreError::UnknownRecording)));
        assert_eq!(book.order_kill(nobody, kill("x")).await.unwrap(), Ordered::Unknown);
    }

    #[tokio::test]
    async fn an_event_is_read_back_in_its_order() {
        let book = Book::new();
        let new = opened(&book).await;
        let later =
            Event { created_at: time(END), ..Event::now("ssh_exec", EventStatus::Denied, json!({"n": [1, null]})) };
        let earlier = Event { created_at: time("2026-03-01T10:30:00Z"), ..later.clone() };
        book.add_event(new.session_id, later.clone()).await.unwrap();
        book.add_event(new.session_id, earlier.clone()).await.unwrap();
        assert_eq!(row(&book, &new).await.events, [new.events.clone(), vec![earlier, later]].concat());
    }

    #[tokio::test]
    async fn a_recording_lives_and_ends_once() {
        let book = Book::new();
        let new = NewSession { audit_log: false, ..new_session() };
        book.open_session(new.clone()).await.unwrap();
        let recording = testing::recording();
        let id = recording.recording_id;
        book.add_recording(new.session_id, recording.clone()).await.unwrap();
        let unfinished = book.unfinished_recordings(&[]).await.unwrap();
        assert_eq!(unfinished, [(new.session_id, id, recording.start_time)]);
        assert!(row(&book, &new).await.audit_log, "a recording exists");
        book.finish_recording(id, time(END), RecordingState::Complete, 4096, Some(3)).await.unwrap();
        book.finish_recording(id, time(END), RecordingState::Damaged, 1, None).await.unwrap();
        let ended = RecordingRow {
            end_time: Some(time(END)),
            state: RecordingState::Complete,
            size: Some(4096),
            exit_status: Some(3),
            ..recording
        };
        assert_eq!(row(&book, &new).await.recordings, [ended]);
        assert!(book.unfinished_recordings(&[]).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn last_seen_moves_forward_while_live() {
        let book = Book::new();
        let (live, ended) = (opened(&book).await, opened(&book).await);
        close(&book, &ended, Outcome::Closed, "").await;
        let seen = time("2026-03-01T12:00:00Z");
        book.touch(vec![live.session_id, Uuid::now_v7(), ended.session_id], seen).await.unwrap();
        book.touch(vec![live.session_id], time(END)).await.unwrap();
        assert_eq!(row(&book, &live).await.last_seen, seen);
        assert_eq!(row(&book, &ended).await.last_seen, time(END));
    }

    #[tokio::test]
    async fn the_first_end_stands() {
        let book = Book::new();
        let new = opened(&book).await;
        close(&book, &new, Outcome::ClientGone, "the client went away").await;
        let first = row(&book, &new).await;
        assert_eq!((first.end_time, first.outcome), (Some(time(END)), Some(Outcome::ClientGone)));
        let again = time("2026-03-01T12:00:00Z");
        book.close_session(new.session_id, again, Outcome::Idle, "idle".into(), Some("none".into())).await.unwrap();
        assert_eq!(row(&book, &new).await, first);
        assert_eq!(book.order_kill(new.session_id, kill("late")).await.unwrap(), Ordered::Ended);
        assert_eq!(row(&book, &new).await, first, "an order that came too late leaves no trace");
    }

    #[tokio::test]
    async fn an_order_is_a_row_first_and_wins_the_race() {
        let book = Book::new();
        let new = opened(&book).await;
        assert_eq!(book.order_kill(new.session_id, kill("first")).await.unwrap(), Ordered::Live);
        assert_eq!(book.order_kill(new.session_id, kill("second")).await.unwrap(), Ordered::Live);
        let ordered = row(&book, &new).await;
        assert_eq!((ordered.killed, ordered.outcome, ordered.end_time), (true, None, None));
        assert_eq!(ordered.events.iter().filter(|event| event.kind == "kill").count(), 2);
        close(&book, &new, Outcome::ClientGone, "the client went away").await;
        let ended = row(&book, &new).await;
        assert_eq!((ended.killed, ended.outcome), (true, Some(Outcome::Killed)));
        assert_eq!((ended.end_reason.as_deref(), ended.remaining.as_deref()), (Some("first"), Some("unknown")));
    }

    #[tokio::test]
    async fn an_order_for_a_channel_is_no_order_for_its_session() {
        let book = Book::new();
        let (new, other) = (opened(&book).await, opened(&book).await);
        let recording = testing::recording();
        let id = recording.recording_id;
        book.add_recording(new.session_id, recording).await.unwrap();
        let order = |id: Uuid| {
            let about = json!({"by": "admin@example.com", "reason": "this one", "recording_id": id});
            Event::now("kill", EventStatus::Success, about)
        };
        let ordered = async |session, id| book.order_channel_kill(session, id, true, order(id)).await.unwrap();
        assert_eq!(ordered(new.session_id, Uuid::now_v7()).await, Ordered::Unknown);
        assert_eq!(ordered(other.session_id, id).await, Ordered::Unknown, "it is another session's");
        assert_eq!(row(&book, &new).await.events, new.events);
        assert_eq!(ordered(new.session_id, id).await, Ordered::Live);
        assert_eq!(row(&book, &new).await.events.last().unwrap().kind, "kill");
        assert!(!row(&book, &new).await.killed);
        // Once more is the same order, and none is for one that is known to be gone.
        assert_eq!(ordered(new.session_id, id).await, Ordered::Live);
        assert_eq!(book.order_channel_kill(new.session_id, id, false, order(id)).await.unwrap(), Ordered::Ended);
        assert_eq!(row(&book, &new).await.events.iter().filter(|event| event.kind == "kill").count(), 1);
        // One that is not recorded is known by what was told of it, and not by an order alone.
        let told = Event::now("ssh_exec", EventStatus::Success, json!({"recording_id": Uuid::nil()}));
        assert_eq!(ordered(other.session_id, Uuid::nil()).await, Ordered::Unknown);
        book.add_event(other.session_id, told).await.unwrap();
        assert_eq!(ordered(other.session_id, Uuid::nil()).await, Ordered::Live);
        book.finish_recording(id, time(END), RecordingState::Complete, 1, None).await.unwrap();
        assert_eq!(ordered(new.session_id, id).await, Ordered::Ended);
        // The session's own order has other words.
        book.order_kill(new.session_id, kill("all of it")).await.unwrap();
        close(&book, &new, Outcome::ClientGone, "the client went away").await;
        assert_eq!(row(&book, &new).await.end_reason.as_deref(), Some("all of it"));
        close(&book, &other, Outcome::Closed, "closed").await;
        assert_eq!(row(&book, &other).await.outcome, Some(Outcome::Closed));
        assert_eq!(ordered(other.session_id, Uuid::nil()).await, Ordered::Ended);
    }

    #[tokio::test]
    async fn a_kill_keeps_its_words_and_what_remains() {
        let book = Book::new();
        let new = opened(&book).await;
        let remaining = Some("sleep 999 (process 12)".to_owned());
        book.close_session(new.session_id, time(END), Outcome::Killed, "locked".into(), remaining.clone())
            .await
            .unwrap();
        let row = row(&book, &new).await;
        assert_eq!((row.killed, row.outcome), (true, Some(Outcome::Killed)));
        assert_eq!((row.end_reason.as_deref(), row.remaining), (Some("locked"), remaining));
    }
}
