//! Reading rows: one, or a page of those that match a filter.
//!
//! Events come in pieces: a session may have more of them than anybody wants to hold in memory.

use std::collections::HashMap;

use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params, params_from_iter};
use uuid::Uuid;

use super::Store;
use super::filter::Terms;
use super::values::{Id, Json, Time, Word};
use crate::store::{Event, Filter, Owner, Page, RecordingRow, SessionRow, StoreError};

impl Store {
    /// One session with its recordings and its first thousand events; `None` if there is none on that socket.
    pub async fn session(&self, socket_id: Uuid, session: Uuid) -> Result<Option<SessionRow>, StoreError> {
        self.session_of(None, socket_id, session, 0).await
    }

    /// The same, without as many of its oldest events. Of `owner` alone where one is given: somebody else's is `None`,
    /// as if it did not exist.
    pub async fn session_of(
        &self,
        owner: Option<Owner>,
        socket_id: Uuid,
        session: Uuid,
        events_after: u32,
    ) -> Result<Option<SessionRow>, StoreError> {
        self.look_ups
            .call(move |db| {
                let view = db.unchecked_transaction()?;
                let mut find = view.prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM sessions s WHERE s.session_id = ?1 AND s.socket_id = ?2
                       AND (?3 IS NULL OR (s.issuer = ?3 AND s.sub = ?4))"
                ))?;
                let (issuer, sub) = (owner.as_ref().map(Owner::issuer), owner.as_ref().map(Owner::subject));
                let row = find.query_row(params![Id(session), Id(socket_id), issuer, sub], session_row).optional()?;
                let piece = Piece::From(events_after);
                Ok(complete(&view, row.into_iter().collect(), piece)?.pop())
            })
            .await
    }

    /// A page of sessions, newest first (equal start times: the greater id first). Pages count from 1.
    pub async fn list(&self, filter: Filter, page: u32, page_size: u32) -> Result<Page, StoreError> {
        let skipped = i64::from(page.saturating_sub(1)) * i64::from(page_size);
        self.lists
            .call(move |db| {
                let terms = Terms::of(&filter);
                // One transaction, so that the total, the rows and what hangs on them are of one moment.
                let view = db.unchecked_transaction()?;
                let total = terms.count(&view)?;
                let rows = page_of(&view, &terms, page_size, skipped)?;
                Ok(Page { rows: complete(&view, rows, Piece::Newest)?, total })
            })
            .await
    }
}

/// The page's rows. The inner statement finds their numbers on the index alone, also far from the first page.
fn page_of(db: &Connection, terms: &Terms, page_size: u32, skipped: i64) -> Result<Vec<(i64, SessionRow)>, StoreError> {
    let mut find = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM sessions s WHERE s.seq IN (
            SELECT seq FROM sessions WHERE {} ORDER BY start_time DESC, session_id DESC LIMIT ? OFFSET ?)
         ORDER BY s.start_time DESC, s.session_id DESC",
        terms.conditions()
    ))?;
    let limits = [ToSqlOutput::from(i64::from(page_size)), ToSqlOutput::from(skipped)];
    let values = terms.values().iter().chain(&limits).map(|value| value as &dyn ToSql);
    Ok(find.query_map(params_from_iter(values), session_row)?.collect::<Result<_, _>>()?)
}

/// Which of a session's events.
#[derive(Clone, Copy)]
pub(super) enum Piece {
    /// A few, for lists.
    Newest,
    /// Those after so many.
    From(u32),
}

/// Puts events and recordings on their rows.
pub(super) fn complete(
    db: &Connection,
    rows: Vec<(i64, SessionRow)>,
    piece: Piece,
) -> Result<Vec<SessionRow>, StoreError> {
    let numbers = Json(rows.iter().map(|(number, _)| *number).collect::<Vec<_>>());
    let mut recordings = gather(
        db,
        "SELECT session, recording_id, kind, command, start_time, end_time, state, legibility, size, exit_status
         FROM recordings WHERE session IN (SELECT value FROM json_each(?1)) ORDER BY session, start_time, id",
        &numbers,
        recording,
    )?;
    rows.into_iter()
        .map(|(number, mut row)| {
            row.events = events(db, number, piece)?;
            row.recordings = recordings.remove(&number).unwrap_or_default();
            row.legibility = legibility(&row.recordings);
            Ok(row)
        })
        .collect()
}

/// A piece of a session's events, oldest first. One statement for each session: it stops on the index where the piece
/// ends, which one statement for all of them cannot.
fn events(db: &Connection, session: i64, piece: Piece) -> Result<Vec<Event>, StoreError> {
    let (order, most, skipped) = match piece {
        Piece::Newest => ("created_at DESC, id DESC", NEWEST_EVENTS, 0),
        Piece::From(skipped) => ("created_at, id", EVENTS_AT_ONCE, skipped),
    };
    let mut find = db.prepare_cached(&format!(
        "SELECT created_at, type, status, metadata FROM events WHERE session = ?1 ORDER BY {order} LIMIT ?2 OFFSET ?3"
    ))?;
    let mut found = find.query_map([session, most, skipped.into()], event)?.collect::<Result<Vec<_>, _>>()?;
    if matches!(piece, Piece::Newest) {
        found.reverse();
    }
    Ok(found)
}

/// What hangs on rows, by their number (the first column), in the statement's order.
fn gather<T>(
    db: &Connection,
    sql: &str,
    numbers: &Json<Vec<i64>>,
    read: fn(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<HashMap<i64, Vec<T>>, StoreError> {
    let mut found: HashMap<i64, Vec<T>> = HashMap::new();
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([numbers])?;
    while let Some(row) = rows.next()? {
        found.entry(row.get(0)?).or_default().push(read(row)?);
    }
    Ok(found)
}

/// A session is as legible as its least legible recording: nobody pretends otherwise.
fn legibility(recordings: &[RecordingRow]) -> Option<String> {
    let rank = |word: &str| ["screen", "structured"].iter().position(|known| *known == word).unwrap_or(usize::MAX);
    recordings.iter().map(|recording| &recording.legibility).max_by_key(|word| rank(word)).cloned()
}

pub(super) fn session_row(row: &Row<'_>) -> rusqlite::Result<(i64, SessionRow)> {
    let session = SessionRow {
        session_id: row.get::<_, Id>("session_id")?.0,
        socket_id: row.get::<_, Id>("socket_id")?.0,
        socket_name: row.get("socket_name")?,
        start_time: row.get::<_, Time>("start_time")?.0,
        end_time: row.get::<_, Option<Time>>("end_time")?.map(|time| time.0),
        last_seen: row.get::<_, Time>("last_seen")?.0,
        user_email: row.get("user_email")?,
        name: row.get("name")?,
        picture: row.get("picture")?,
        sub: row.get("sub")?,
        nickname: row.get("nickname")?,
        actor: row.get("actor")?,
        server_name: row.get("server_name")?,
        server_port: row.get::<_, u16>("server_port")?.to_string(),
        upstream: row.get("upstream")?,
        client_ip: row.get("client_ip")?,
        client_port: row.get::<_, u16>("client_port")?.to_string(),
        country_code: row.get("country_code")?,
        country: row.get("country")?,
        city: row.get("city")?,
        session_type: row.get("session_type")?,
        sshuser: row.get("sshuser")?,
        audit_log: row.get("audit_log")?,
        killed: row.get("killed")?,
        result: row.get::<_, Word<_>>("result")?.0,
        outcome: row.get::<_, Option<Word<_>>>("outcome")?.map(|word| word.0),
        end_reason: row.get("end_reason")?,
        rule: row.get("rule")?,
        durability: row.get("durability")?,
        legibility: None,
        remaining: row.get("remaining")?,
        recordings: Vec::new(),
        events: Vec::new(),
        events_total: u64::try_from(row.get::<_, i64>("events_total")?).unwrap_or(0),
    };
    Ok((row.get("seq")?, session))
}

fn event(row: &Row<'_>) -> rusqlite::Result<Event> {
    Ok(Event {
        created_at: row.get::<_, Time>("created_at")?.0,
        kind: row.get("type")?,
        status: row.get::<_, Word<_>>("status")?.0,
        metadata: row.get::<_, Json<_>>("metadata")?.0,
    })
}

fn recording(row: &Row<'_>) -> rusqlite::Result<RecordingRow> {
    let size: Option<i64> = row.get("size")?;
    Ok(RecordingRow {
        recording_id: row.get::<_, Id>("recording_id")?.0,
        kind: row.get("kind")?,
        command: row.get("command")?,
        start_time: row.get::<_, Time>("start_time")?.0,
        end_time: row.get::<_, Option<Time>>("end_time")?.map(|time| time.0),
        state: row.get::<_, Word<_>>("state")?.0,
        legibility: row.get("legibility")?,
        size: size.and_then(|size| u64::try_from(size).ok()),
        exit_status: row.get("exit_status")?,
    })
}

/// The columns that [`session_row`] reads.
pub(super) const COLUMNS: &str = "s.seq, s.session_id, s.socket_id, s.socket_name, s.start_time, s.end_time, s.last_seen, \
    s.user_email, s.name, s.picture, s.sub, s.nickname, s.actor, s.server_name, s.server_port, s.upstream, \
    s.client_ip, s.client_port, s.country_code, s.country, s.city, s.session_type, s.sshuser, s.audit_log, s.killed, \
    s.result, s.outcome, s.end_reason, s.rule, s.durability, s.remaining, s.events_total";
/// Events on a row of a list.
const NEWEST_EVENTS: i64 = 20;
/// Events that come at once.
const EVENTS_AT_ONCE: i64 = 1000;

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use jiff::SignedDuration;

    use super::*;
    use crate::socket::socket_id;
    use crate::store::testing::{self, Book, denied_session, new_session, time};
    use crate::store::{AuthResult, NewSession, Outcome};

    #[tokio::test]
    async fn pages_are_newest_first_also_among_equal_times() {
        let book = Book::new();
        let mut expected = Vec::new();
        for n in 0..25_i64 {
            // Groups of five share a start time.
            let start_time = time("2026-03-01T10:00:00Z") + SignedDuration::from_secs(n / 5);
            let new = NewSession { start_time, ..new_session() };
            expected.push((start_time, new.session_id));
            book.open_session(new).await.unwrap();
        }
        expected.sort();
        expected.reverse();
        let mut seen = Vec::new();
        for (page, len) in [(1, 10), (2, 10), (3, 5), (4, 0)] {
            let page = book.list(Filter::default(), page, 10).await.unwrap();
            assert_eq!((page.total, page.rows.len()), (25, len));
            seen.extend(page.rows.iter().map(|row| (row.start_time, row.session_id)));
        }
        assert_eq!(seen, expected);
    }

    #[tokio::test]
    async fn far_pages_are_empty_and_not_an_error() {
        let book = Book::new();
        let page = book.list(Filter::default(), 1, 100).await.unwrap();
        assert_eq!((page.total, page.rows.len()), (0, 0));
        let page = book.list(Filter::default(), u32::MAX, 1000).await.unwrap();
        assert_eq!((page.total, page.rows.len()), (0, 0));
    }

    #[tokio::test]
    async fn rows_carry_their_own_events_and_recordings() {
        let book = Book::new();
        let (with, without) = (new_session(), NewSession { events: Vec::new(), ..new_session() });
        book.open_session(with.clone()).await.unwrap();
        book.open_session(without.clone()).await.unwrap();
        let recordings =
            [testing::recording(), RecordingRow { legibility: "opaque".to_owned(), ..testing::recording() }];
        for recording in &recordings {
            book.add_recording(with.session_id, recording.clone()).await.unwrap();
        }
        let rows = book.list(Filter::default(), 1, 100).await.unwrap().rows;
        let row = |id| rows.iter().find(|row| row.session_id == id).unwrap();
        assert_eq!(row(with.session_id).events, with.events);
        assert_eq!(row(with.session_id).recordings, recordings);
        assert_eq!(row(with.session_id).legibility.as_deref(), Some("opaque"));
        assert_eq!((row(without.session_id).events.len(), row(without.session_id).recordings.len()), (0, 0));
        assert_eq!(row(without.session_id).legibility, None);
        let detail = book.session(testing::socket_id(&with), with.session_id).await.unwrap().unwrap();
        assert_eq!(&detail, row(with.session_id));
    }

    /// Each filter with a hit and a miss. The book has one session that is in every way special among three others.
    #[tokio::test]
    async fn filters_hit_and_miss() {
        let book = Book::new();
        for _ in 0..3 {
            book.open_session(new_session()).await.unwrap();
        }
        let who = serde_json::to_value(testing::identity(time("2027-01-01T00:00:00Z"))).unwrap();
        let mut who = who.as_object().unwrap().clone();
        who.insert("email".to_owned(), "Bob@example.com".into());
        who.insert("subject".to_owned(), "u-2".into());
        let mut other_issuer = who.clone();
        other_issuer.insert("issuer".to_owned(), "https://other.example.com".into());
        let other_issuer = serde_json::from_value(other_issuer.into()).unwrap();
        let special = NewSession {
            socket_name: "orders".to_owned(),
            session_type: "database",
            identity: serde_json::from_value(who.into()).unwrap(),
            client_ip: "2001:db8::1".parse().unwrap(),
            start_time: time("2026-04-01T00:00:00Z"),
            ..denied_session()
        };
        book.open_session(special.clone()).await.unwrap();
        let id = special.session_id;
        let mark = move |db: &Connection| {
            let sql = "UPDATE sessions SET country_code = 'NL', country = 'The Netherlands', killed = 1 WHERE session_id = ?1";
            Ok(db.execute(sql, params![Id(id)])?)
        };
        book.writes.call(mark).await.unwrap();

        let f = Filter::default;
        let mapped: IpAddr = "::ffff:192.0.2.7".parse().unwrap();
        let table: Vec<(&str, Filter, u64)> = vec![
            ("owner", Filter { owner: Some(Owner::of(&special.identity)), ..f() }, 1),
            ("owner by e-mail alone", Filter { owner: Some(Owner::of(&other_issuer)), ..f() }, 0),
            ("socket_id", Filter { socket_id: Some(socket_id("orders")), ..f() }, 1),
            ("socket_id miss", Filter { socket_id: Some(socket_id("none")), ..f() }, 0),
            ("socket_name", Filter { socket_name: Some("orders".into()), ..f() }, 1),
            ("socket_name miss", Filter { socket_name: Some("order".into()), ..f() }, 0),
            (
                "id and name differ",
                Filter { socket_id: Some(socket_id("orders")), socket_name: Some("shell".into()), ..f() },
                0,
            ),
            ("session_type", Filter { session_type: Some("database".into()), ..f() }, 1),
            ("session_type miss", Filter { session_type: Some("http".into()), ..f() }, 0),
            ("user_email", Filter { user_email: Some("bob@EXAMPLE.com".into()), ..f() }, 1),
            ("user_email miss", Filter { user_email: Some("b%".into()), ..f() }, 0),
            ("client_ip", Filter { client_ip: Some("2001:db8:0::1".parse().unwrap()), ..f() }, 1),
            ("client_ip mapped", Filter { client_ip: Some(mapped), ..f() }, 3),
            ("client_ip miss", Filter { client_ip: Some("192.0.2.8".parse().unwrap()), ..f() }, 0),
            ("country code", Filter { country: Some("nl".into()), ..f() }, 1),
            ("country", Filter { country: Some("the netherlands".into()), ..f() }, 1),
            ("country miss", Filter { country: Some("DE".into()), ..f() }, 0),
            ("denied", Filter { result: Some(AuthResult::Denied), ..f() }, 1),
            ("success", Filter { result: Some(AuthResult::Success), ..f() }, 3),
            ("live", Filter { live: Some(true), ..f() }, 3),
            ("not live", Filter { live: Some(false), ..f() }, 1),
            ("live and denied", Filter { live: Some(true), result: Some(AuthResult::Denied), ..f() }, 0),
            ("killed", Filter { killed: Some(true), ..f() }, 1),
            ("not killed", Filter { killed: Some(false), ..f() }, 3),
            ("not killed, not live", Filter { killed: Some(false), live: Some(false), ..f() }, 0),
            ("start_after", Filter { start_after: Some(time("2026-03-01T10:00:00.250001Z")), ..f() }, 1),
            ("start_after itself", Filter { start_after: Some(special.start_time), ..f() }, 0),
            ("start_before", Filter { start_before: Some(special.start_time), ..f() }, 3),
            ("start_before miss", Filter { start_before: Some(time("2026-01-01T00:00:00Z")), ..f() }, 0),
        ];
        for (name, filter, hits) in table {
            let page = book.list(filter, 1, 100).await.unwrap();
            assert_eq!((page.total, page.rows.len() as u64), (hits, hits), "{name}");
            assert_eq!(page.rows.iter().any(|row| row.session_id == id), hits == 1, "{name}");
        }
    }

    /// What a million rows need: no list sorts, and none of the selective filters walks the table.
    #[tokio::test]
    async fn lists_use_an_index() {
        let book = Book::new();
        let f = Filter::default;
        let own = || Owner::of(&testing::identity(time("2027-01-01T00:00:00Z")));
        let table = [
            (f(), "sessions_by_start"),
            (Filter { user_email: Some("a".into()), ..f() }, "sessions_by_email"),
            (Filter { socket_name: Some("a".into()), ..f() }, "sessions_by_socket"),
            (Filter { client_ip: Some("::1".parse().unwrap()), ..f() }, "sessions_by_client"),
            (Filter { session_type: Some("ssh".into()), ..f() }, "sessions_by_type"),
            (Filter { country: Some("NL".into()), ..f() }, "sessions_by_code"),
            (Filter { country: Some("Chile".into()), ..f() }, "sessions_by_country"),
            (Filter { live: Some(true), ..f() }, "sessions_live"),
            (Filter { killed: Some(true), ..f() }, "sessions_killed"),
            (Filter { result: Some(AuthResult::Denied), ..f() }, "sessions_denied"),
            (Filter { start_after: Some(time("2026-01-01T00:00:00Z")), ..f() }, "sessions_by_start"),
            (Filter { session_type: Some("ssh".into()), live: Some(true), ..f() }, "sessions_live"),
            (Filter { session_type: Some("ssh".into()), user_email: Some("a".into()), ..f() }, "sessions_by_email"),
            (Filter { session_type: Some("ssh".into()), live: Some(false), ..f() }, "sessions_by_type"),
            (
                Filter { session_type: Some("ssh".into()), user_email: Some("a".into()), live: Some(false), ..f() },
                "sessions_by_email",
            ),
            (Filter { live: Some(true), start_after: Some(time("2026-01-01T00:00:00Z")), ..f() }, "sessions_live"),
            (Filter { owner: Some(own()), ..f() }, "sessions_by_person"),
            (Filter { owner: Some(own()), session_type: Some("ssh".into()), ..f() }, "sessions_by_person"),
        ];
        for (filter, index) in table {
            let plan = book.lists.call(move |db| plan(db, &Terms::of(&filter))).await.unwrap();
            assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{index}: {plan}");
        }
    }

    fn plan(db: &Connection, terms: &Terms) -> Result<String, StoreError> {
        let mut explain = db.prepare(&format!(
            "EXPLAIN QUERY PLAN SELECT seq FROM sessions WHERE {} ORDER BY start_time DESC, session_id DESC LIMIT 9",
            terms.conditions()
        ))?;
        let lines = explain.query_map(params_from_iter(terms.values()), |row| row.get::<_, String>("detail"))?;
        Ok(lines.collect::<Result<Vec<_>, _>>()?.join("; "))
    }

    #[tokio::test]
    async fn the_total_follows_what_is_removed() {
        let book = Book::new();
        let new = new_session();
        book.open_session(new.clone()).await.unwrap();
        book.open_session(new_session()).await.unwrap();
        book.close_session(new.session_id, new.start_time, Outcome::Closed, String::new(), None).await.unwrap();
        book.writes.call(|db| Ok(db.execute("DELETE FROM sessions WHERE end_time IS NOT NULL", [])?)).await.unwrap();
        assert_eq!(book.list(Filter::default(), 1, 10).await.unwrap().total, 1);
    }
}
