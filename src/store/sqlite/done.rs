//! What was done in sessions and where people were last, so that other rules can be asked about it.

use rusqlite::{OptionalExtension, Row, params};
use uuid::Uuid;

use super::Store;
use super::values::{Id, Json, Word};
use crate::geo::Place;
use crate::policy::Action;
use crate::store::{LastVisit, Owner, StoreError};

impl Store {
    /// What was allowed and begun in these sessions: shells and commands, each once.
    pub async fn done_in(&self, sessions: Vec<Uuid>) -> Result<Vec<(Uuid, Action)>, StoreError> {
        let ids: Vec<String> = sessions.iter().map(|id| id.simple().to_string()).collect();
        self.lists
            .call(move |db| {
                let mut find = db.prepare_cached(
                    "SELECT DISTINCT s.session_id, e.type, e.metadata ->> 'command'
                     FROM sessions s JOIN events e ON e.session = s.seq
                     WHERE s.session_id IN (SELECT unhex(value) FROM json_each(?1))
                       AND e.type IN ('ssh_shell', 'ssh_exec') AND e.status = 'success'",
                )?;
                let rows = find.query_map([Json(&ids)], done)?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// The newest visit of a person; `None`: there is no session of theirs.
    pub async fn last_visit(&self, person: Owner) -> Result<Option<LastVisit>, StoreError> {
        self.look_ups
            .call(move |db| {
                let mut find = db.prepare_cached(
                    "SELECT client_ip, country_code, country, city, sshuser FROM sessions
                     WHERE issuer = ?1 AND sub = ?2 ORDER BY start_time DESC, session_id DESC LIMIT 1",
                )?;
                Ok(find.query_row(params![person.issuer(), person.subject()], visit).optional()?)
            })
            .await
    }
}

fn done(row: &Row<'_>) -> rusqlite::Result<(Uuid, Action)> {
    let command = row.get::<_, Option<String>>(2)?;
    let action = command.map_or(Action::SshShell, |command| Action::SshExec { command: command.into_bytes() });
    Ok((row.get::<_, Id>(0)?.0, action))
}

fn visit(row: &Row<'_>) -> rusqlite::Result<LastVisit> {
    Ok(LastVisit {
        client_ip: row.get::<_, Word<_>>("client_ip")?.0,
        place: Place { country_code: row.get("country_code")?, country: row.get("country")?, city: row.get("city")? },
        ssh_user: row.get("sshuser")?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::testing::{Book, new_session, time};
    use crate::store::{Event, EventStatus, NewSession};

    #[tokio::test]
    async fn what_was_done_is_told_once_and_what_was_refused_is_not() {
        let book = Book::new();
        let (one, other) = (new_session(), new_session());
        for new in [&one, &other] {
            book.open_session(new.clone()).await.unwrap();
        }
        let add = async |kind: &str, status, about| {
            book.add_event(one.session_id, Event::now(kind, status, about)).await.unwrap();
        };
        for _ in 0..2 {
            add("ssh_exec", EventStatus::Success, json!({"command": "uptime", "recording_id": Uuid::now_v7()})).await;
        }
        add("ssh_shell", EventStatus::Success, json!({"command": null})).await;
        add("ssh_exec", EventStatus::Denied, json!({"reason": "no"})).await;
        add("upstream", EventStatus::Success, json!({})).await;
        let mut done = book.done_in(vec![other.session_id, one.session_id]).await.unwrap();
        done.sort_by_key(|(_, action)| action.event_kind());
        let exec = Action::SshExec { command: b"uptime".to_vec() };
        assert_eq!(done, [(one.session_id, exec), (one.session_id, Action::SshShell)]);
        assert_eq!(book.done_in(vec![other.session_id]).await.unwrap(), []);
    }

    #[tokio::test]
    async fn the_last_visit_is_the_newest() {
        let book = Book::new();
        let alice = Owner::of(&new_session().identity);
        assert_eq!(book.last_visit(alice.clone()).await.unwrap(), None);
        for (start, ip) in [("2026-03-02T10:00:00Z", "192.0.2.9"), ("2026-03-01T10:00:00Z", "192.0.2.8")] {
            let place = Place { country_code: Some("NL".into()), ..Place::default() };
            let (start_time, client_ip) = (time(start), ip.parse().unwrap());
            book.open_session(NewSession { start_time, client_ip, place, ..new_session() }).await.unwrap();
        }
        let visit = book.last_visit(alice).await.unwrap().unwrap();
        assert_eq!(visit.client_ip.to_string(), "192.0.2.9");
        assert_eq!((visit.place.country_code.as_deref(), visit.ssh_user.as_deref()), (Some("NL"), Some("deploy")));
    }
}
