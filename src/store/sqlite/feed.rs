//! The feed: sessions in the order in which they last changed, as they are now.
//!
//! Triggers (`V3__feed.sql`) give a session the next number whenever it, its events or its recordings change. SQLite lets
//! one transaction write at a time, whatever process it is in, and the numbers are drawn inside it: so they are
//! committed in their order, and a reader who sees a number sees all below it that still stand. A session that
//! changes again moves behind every reader, and is met there once more, as it is then. So nothing is lost, and nothing
//! comes twice without a change. A session that is deleted is not told of.

use rusqlite::{Connection, Row, ToSql};

use super::Store;
use super::list::{COLUMNS, Piece, complete, session_row};
use crate::store::{Feed, Owner, SessionRow, StoreError};

impl Store {
    /// At most `most` sessions that changed after the cursor, in the order of their changes; of `owner` alone where one
    /// is given. The cursor 0 is before everything. `None`: the cursor is not from this book.
    pub async fn feed(&self, owner: Option<Owner>, after: u64, most: u32) -> Result<Option<Feed>, StoreError> {
        let Ok(cursor) = i64::try_from(after) else { return Ok(None) };
        self.lists
            .call(move |db| {
                // One transaction, so that the rows and what hangs on them are of one moment.
                let view = db.unchecked_transaction()?;
                let newest: i64 = view
                    .prepare_cached("SELECT n FROM counts WHERE what = 'changes'")?
                    .query_row([], |row| row.get(0))?;
                if cursor > newest {
                    return Ok(None);
                }
                let changed = changed_after(&view, owner.as_ref(), cursor, most)?;
                let last = changed.last().map_or(cursor, |changed| changed.number);
                let rows = complete(&view, changed.into_iter().map(|changed| changed.row).collect(), Piece::Newest)?;
                Ok(Some(Feed { rows, next: u64::try_from(last).unwrap_or(after) }))
            })
            .await
    }
}

/// A row, and the number of its last change.
struct Changed {
    number: i64,
    row: (i64, SessionRow),
}

fn changed_after(db: &Connection, owner: Option<&Owner>, cursor: i64, most: u32) -> Result<Vec<Changed>, StoreError> {
    let mut find = db.prepare_cached(&statement(owner.is_some()))?;
    let read = |row: &Row<'_>| Ok(Changed { number: row.get("changed")?, row: session_row(row)? });
    let (issuer, subject) = (owner.map(Owner::issuer), owner.map(Owner::subject));
    let values: [&dyn ToSql; 4] = [&cursor, &most, &issuer, &subject];
    let taken = values.get(..find.parameter_count()).unwrap_or(&values);
    Ok(find.query_map(taken, read)?.collect::<Result<_, _>>()?)
}

fn statement(of_owner: bool) -> String {
    let owner = if of_owner { "s.issuer = ?3 AND s.sub = ?4 AND" } else { "" };
    format!("SELECT {COLUMNS}, s.changed FROM sessions s WHERE {owner} s.changed > ?1 ORDER BY s.changed LIMIT ?2")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use jiff::{SignedDuration, Timestamp};
    use rusqlite::params;
    use serde_json::json;
    use uuid::Uuid;

    use super::super::embedded;
    use super::*;
    use crate::store::testing::{Book, denied_session, new_session, recording, time};
    use crate::store::{Event, EventStatus, Filter, NewSession, Outcome, RecordingState};

    const NONE: [Uuid; 0] = [];

    /// Numbers that look random and are the same in every run (Numerical Recipes, "Quick and Dirty Generators").
    struct Dice(u32);

    impl Dice {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (self.0 >> 8) as usize % end
        }
    }

    /// Changes what it finds at random.
    async fn scribble(store: Store, seed: u32, changes: usize) {
        let mut dice = Dice(seed);
        let mut sessions: Vec<Uuid> = Vec::new();
        let mut recordings: Vec<Uuid> = Vec::new();
        let end = time("2026-03-01T11:00:00Z");
        for _ in 0..changes {
            let kind = if sessions.is_empty() { 0 } else { dice.below(8) };
            let session = sessions.get(dice.below(sessions.len().max(1))).copied().unwrap_or_default();
            match kind {
                0 | 1 => {
                    let new = if dice.below(5) == 0 { denied_session() } else { new_session() };
                    sessions.push(new.session_id);
                    store.open_session(new).await.unwrap();
                }
                2 | 3 => {
                    let event = Event::now("ssh_exec", EventStatus::Success, json!({"n": dice.below(1000)}));
                    store.add_event(session, event).await.unwrap();
                }
                4 => {
                    let new = recording();
                    recordings.push(new.recording_id);
                    store.add_recording(session, new).await.unwrap();
                }
                5 if !recordings.is_empty() => {
                    let id = recordings[dice.below(recordings.len())];
                    store.finish_recording(id, end, RecordingState::Complete, 1, Some(0)).await.unwrap();
                }
                6 => {
                    let event = Event::now("kill", EventStatus::Success, json!({"by": "x", "reason": "y"}));
                    store.order_kill(session, event).await.unwrap();
                }
                _ => store.close_session(session, end, Outcome::Closed, "closed".into(), None).await.unwrap(),
            }
            if dice.below(4) == 0 {
                store.touch(sessions.clone(), Timestamp::now()).await.unwrap();
            }
        }
    }

    /// `last_seen` is left out: it moves without being a change.
    fn shown(row: &SessionRow) -> SessionRow {
        SessionRow { last_seen: Timestamp::UNIX_EPOCH, ..row.clone() }
    }

    /// Reads a page into what is known. A row that comes again must have changed.
    async fn read(store: &Store, cursor: &mut u64, known: &mut HashMap<Uuid, SessionRow>) -> usize {
        let feed = store.feed(None, *cursor, 3).await.unwrap().unwrap();
        assert!(feed.next > *cursor || feed.rows.is_empty());
        assert!(feed.rows.len() <= 3);
        *cursor = feed.next;
        for row in &feed.rows {
            let before = known.insert(row.session_id, shown(row));
            assert_ne!(before, Some(shown(row)), "the same again");
        }
        feed.rows.len()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn a_reader_ends_with_what_the_book_says() {
        for seed in [1, 7, 42] {
            let book = Book::new();
            let done = Arc::new(AtomicBool::new(false));
            let (store, told) = (Store::clone(&book), done.clone());
            let reader = tokio::spawn(async move {
                let (mut cursor, mut known) = (0, HashMap::new());
                while !told.load(Ordering::SeqCst) {
                    read(&store, &mut cursor, &mut known).await;
                }
                while read(&store, &mut cursor, &mut known).await > 0 {}
                known
            });
            let writers: Vec<_> =
                (0..3).map(|n| tokio::spawn(scribble(Store::clone(&book), seed * 10 + n, 150))).collect();
            for writer in writers {
                writer.await.unwrap();
            }
            done.store(true, Ordering::SeqCst);
            let known = reader.await.unwrap();
            let all = book.list(Filter::default(), 1, 1000).await.unwrap().rows;
            assert!(all.len() > 20);
            let book: HashMap<_, _> = all.iter().map(|row| (row.session_id, shown(row))).collect();
            assert_eq!(known.len(), book.len());
            for (id, row) in &book {
                assert_eq!(known.get(id), Some(row));
            }
        }
    }

    #[tokio::test]
    async fn each_change_is_told_and_nothing_else() {
        let book = Book::new();
        let (one, two) = (new_session(), new_session());
        let (id, recording) = (one.session_id, recording());
        let mut cursor = 0;
        let mut told = async || {
            let feed = book.feed(None, cursor, 100).await.unwrap().unwrap();
            cursor = feed.next;
            feed.rows.iter().map(|row| row.session_id).collect::<Vec<_>>()
        };
        assert_eq!(told().await, NONE);
        book.open_session(one.clone()).await.unwrap();
        book.open_session(two.clone()).await.unwrap();
        assert_eq!(told().await, [id, two.session_id]);
        assert_eq!(told().await, NONE);
        book.add_event(id, Event::now("x", EventStatus::Error, json!({}))).await.unwrap();
        assert_eq!(told().await, [id]);
        book.touch(vec![id], Timestamp::now() + SignedDuration::from_hours(1)).await.unwrap();
        assert_eq!(told().await, NONE, "last_seen is no change");
        book.add_recording(id, recording.clone()).await.unwrap();
        assert_eq!(told().await, [id]);
        let end = time("2026-03-01T11:00:00Z");
        for expected in [&[id][..], &[]] {
            book.finish_recording(recording.recording_id, end, RecordingState::Complete, 1, None).await.unwrap();
            assert_eq!(told().await, expected, "the second end changes nothing");
        }
        book.order_kill(two.session_id, Event::now("kill", EventStatus::Success, json!({}))).await.unwrap();
        assert_eq!(told().await, [two.session_id]);
        for expected in [&[id][..], &[]] {
            book.close_session(id, end, Outcome::Closed, String::new(), None).await.unwrap();
            assert_eq!(told().await, expected, "the second end changes nothing");
        }
        book.close_orphans(&[]).await.unwrap();
        assert_eq!(told().await, [two.session_id]);
    }

    #[tokio::test]
    async fn numbers_are_never_given_twice() {
        let book = Book::new();
        book.open_session(new_session()).await.unwrap();
        let cursor = book.feed(None, 0, 10).await.unwrap().unwrap().next;
        book.writes.call(|db| Ok(db.execute("DELETE FROM sessions", [])?)).await.unwrap();
        assert_eq!(book.feed(None, cursor, 10).await.unwrap().unwrap().next, cursor);
        let new = new_session();
        book.open_session(new.clone()).await.unwrap();
        let feed = book.feed(None, cursor, 10).await.unwrap().unwrap();
        assert_eq!(feed.rows.iter().map(|row| row.session_id).collect::<Vec<_>>(), [new.session_id]);
        assert!(book.feed(None, feed.next + 1, 10).await.unwrap().is_none(), "a cursor from nowhere");
        assert!(book.feed(None, u64::MAX, 10).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn rows_from_before_the_feed_have_their_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("book.db");
        let mut db = Connection::open(&path).unwrap();
        let before = refinery::Target::Version(2);
        embedded::migrations::runner().set_target(before).run(&mut db).unwrap();
        let ids: Vec<_> = (0..3).map(|_| Uuid::now_v7()).collect();
        for (n, id) in (0_i64..).zip(&ids) {
            db.execute(
                "INSERT INTO sessions (session_id, socket_id, socket_name, session_type, start_time, last_seen, issuer, sub,
                     user_email, groups, signed_in, actor, server_name, server_port, upstream, client_ip, client_port,
                     audit_log, result, durability)
                 VALUES (?1, ?1, 'shell', 'ssh', ?2, ?2, 'i', 's', 'e', '[]', 0, 'person', 'x', 1, 'y', '::1', 1, 0,
                     'success', 'process')",
                params![id.as_bytes(), 1000 - n],
            )
            .unwrap();
            for _ in 0..n {
                let sql = "INSERT INTO events (session, created_at, type, status, metadata)
                           VALUES (?1, 0, 'x', 'success', '{}')";
                db.execute(sql, [n + 1]).unwrap();
            }
        }
        drop(db);
        let store = Store::open(&path).unwrap();
        let feed = store.feed(None, 0, 10).await.unwrap().unwrap();
        let told: Vec<_> = feed.rows.iter().map(|row| (row.session_id, row.events_total)).collect();
        assert_eq!(told, ids.iter().copied().zip(0..).collect::<Vec<_>>());
        store.add_event(ids[0], Event::now("x", EventStatus::Success, json!({}))).await.unwrap();
        let rows = store.feed(None, feed.next, 10).await.unwrap().unwrap().rows;
        assert_eq!(rows.iter().map(|row| (row.session_id, row.events_total)).collect::<Vec<_>>(), [(ids[0], 1)]);
    }

    #[tokio::test]
    async fn a_person_s_feed_has_their_own() {
        let book = Book::new();
        let alice = new_session();
        let mut bob = serde_json::to_value(&alice.identity).unwrap();
        bob["subject"] = "u-2".into();
        let bob = NewSession { identity: serde_json::from_value(bob).unwrap(), ..new_session() };
        for new in [&alice, &bob] {
            book.open_session(new.clone()).await.unwrap();
        }
        for new in [&alice, &bob] {
            let feed = book.feed(Some(Owner::of(&new.identity)), 0, 10).await.unwrap().unwrap();
            assert_eq!(feed.rows.iter().map(|row| row.session_id).collect::<Vec<_>>(), [new.session_id]);
        }
    }

    #[tokio::test]
    async fn both_feeds_use_their_index() {
        let book = Book::new();
        for (of_owner, index) in [(false, "sessions_by_change"), (true, "sessions_of_person_by_change")] {
            let plan = book.lists.call(move |db| {
                let mut explain = db.prepare(&format!("EXPLAIN QUERY PLAN {}", statement(of_owner)))?;
                let read = |row: &Row<'_>| row.get::<_, String>("detail");
                let lines = match of_owner {
                    true => explain.query_map(params![0, 1, "i", "s"], read)?.collect::<Result<Vec<_>, _>>()?,
                    false => explain.query_map(params![0, 1], read)?.collect::<Result<Vec<_>, _>>()?,
                };
                Ok(lines.join("; "))
            });
            let plan = plan.await.unwrap();
            assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{index}: {plan}");
        }
    }
}
