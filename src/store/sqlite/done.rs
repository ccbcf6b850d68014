//! What was done in sessions and where people were last, so that other rules can be asked about it.

use std::collections::{HashMap, HashSet};

use rusqlite::types::{FromSql, ValueRef};
use rusqlite::{OptionalExtension, Row, params};
use uuid::Uuid;

use super::Store;
use super::values::{Id, Json, Word};
use crate::geo::Place;
use crate::policy::{Action, Destination};
use crate::store::{LastVisit, Owner, StoreError};
use crate::wire::transfer;

impl Store {
    /// What was allowed and begun in these sessions: shells, commands, transfers, forwards and what was lent, each once.
    pub async fn done_in(&self, sessions: Vec<Uuid>) -> Result<Vec<(Uuid, Action)>, StoreError> {
        let ids: Vec<String> = sessions.iter().map(|id| id.simple().to_string()).collect();
        self.lists
            .call(move |db| {
                // Of files only in which recordings some were changed: there may be thousands. A forward's event is
                // written at its end; until then its recording tells of it.
                let mut find = db.prepare_cached(
                    "SELECT DISTINCT s.session_id, e.type,
                        iif(e.type IN ('ssh_shell', 'ssh_exec'), NULL, e.metadata ->> 'recording_id') AS recording,
                        e.metadata ->> 'command' AS command,
                        e.metadata ->> 'to' AS forward_to, e.metadata ->> 'from' AS forward_from,
                        e.metadata ->> 'socket' IS NOT NULL AS behind
                     FROM sessions s JOIN events e ON e.session = s.seq
                     WHERE s.session_id IN (SELECT unhex(value) FROM json_each(?1)) AND e.status = 'success'
                       AND e.type IN ('ssh_shell', 'ssh_exec', 'ssh_transfer', 'ssh_forward', 'ssh_agent', 'ssh_x11')
                     UNION
                     SELECT s.session_id, r.kind, r.recording_id, r.command, NULL, NULL, 0
                     FROM sessions s JOIN recordings r ON r.session = s.seq
                     WHERE s.session_id IN (SELECT unhex(value) FROM json_each(?1)) AND r.end_time IS NULL
                       AND r.kind IN ('forward', 'agent', 'x11')
                     UNION
                     SELECT s.session_id, e.type, e.metadata ->> 'recording_id', NULL, NULL, NULL, 0
                     FROM sessions s JOIN events e ON e.session = s.seq
                     WHERE s.session_id IN (SELECT unhex(value) FROM json_each(?1)) AND e.status = 'success'
                       AND (e.type = 'ssh_forward_opaque'
                            OR e.type = 'ssh_file' AND e.metadata ->> 'operation' NOT IN ('read', 'list'))",
                )?;
                let rows = find.query_map([Json(&ids)], Done::read)?;
                Ok(actions(&rows.collect::<Result<Vec<_>, _>>()?))
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

/// A recording's id, which is text in events and bytes in its own row.
fn recording(value: ValueRef<'_>) -> rusqlite::Result<Option<String>> {
    Ok(match value {
        ValueRef::Null => None,
        ValueRef::Blob(_) => Some(Id::column_result(value)?.0.to_string()),
        text => Some(String::column_result(text)?),
    })
}

/// A line about something that was done: an event's type, or the kind of a recording that is open.
struct Done {
    session: Uuid,
    event: String,
    /// Of transfers and forwards, and what they carried.
    recording: Option<String>,
    command: Option<String>,
    to: Option<String>,
    from: Option<String>,
    /// Whether it led to another socket's upstream, which only one may who may carry what cannot be read.
    behind: bool,
}

impl Done {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            session: row.get::<_, Id>(0)?.0,
            event: row.get(1)?,
            recording: recording(row.get_ref(2)?)?,
            command: row.get(3)?,
            to: row.get(4)?,
            from: row.get(5)?,
            behind: row.get(6)?,
        })
    }

    /// The actions that it came to; `more`: its recording carried what needs the larger of two rights.
    fn actions(&self, more: bool) -> Vec<Action> {
        let exec = |command: &String| Action::SshExec { command: command.clone().into_bytes() };
        let place = |text: &Option<String>| text.as_deref().and_then(|text| Destination::parse(text).ok());
        match self.event.as_str() {
            "ssh_shell" => vec![Action::SshShell],
            "ssh_exec" => self.command.as_ref().map(exec).into_iter().collect(),
            "ssh_transfer" => {
                let recognised = self.command.as_ref().and_then(|command| transfer::recognise(command.as_bytes()));
                let write = more || recognised.as_ref().is_some_and(|found| found.writes);
                let files = Action::SshFiles { write };
                // One that another program starts needed the right to run that, too.
                let run = self.command.as_ref().filter(|_| recognised.is_none_or(|found| !found.plain));
                run.map(exec).into_iter().chain([files]).collect()
            }
            "ssh_forward" => {
                let opaque = more || self.behind;
                let to = place(&self.to).map(|to| Action::SshForwardTo { to, opaque });
                let from = place(&self.from).map(|at| Action::SshForwardFrom { at, opaque });
                to.or(from).into_iter().collect()
            }
            "forward" => match self.command.as_deref().and_then(Action::forward_named) {
                Some(Action::SshForwardTo { to, .. }) => vec![Action::SshForwardTo { to, opaque: more }],
                Some(Action::SshForwardFrom { at, .. }) => vec![Action::SshForwardFrom { at, opaque: more }],
                _ => Vec::new(),
            },
            "ssh_agent" | "agent" => vec![Action::SshAgent],
            "ssh_x11" | "x11" => vec![Action::SshX11],
            _ => Vec::new(),
        }
    }
}

/// What the lines tell, each once.
fn actions(lines: &[Done]) -> Vec<(Uuid, Action)> {
    let is_more = |line: &&Done| matches!(line.event.as_str(), "ssh_file" | "ssh_forward_opaque");
    let more: HashSet<&str> = lines.iter().filter(is_more).filter_map(|line| line.recording.as_deref()).collect();
    let mut all: HashMap<Uuid, HashSet<Action>> = HashMap::new();
    for line in lines {
        let more = line.recording.as_deref().is_some_and(|recording| more.contains(recording));
        all.entry(line.session).or_default().extend(line.actions(more));
    }
    all.into_iter().flat_map(|(session, done)| done.into_iter().map(move |action| (session, action))).collect()
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
    use crate::store::testing::{self, Book, new_session, time};
    use crate::store::{Event, EventStatus, NewSession, RecordingRow, RecordingState};

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
    async fn what_a_transfer_or_a_forward_carried_decides_which_right_it_took() {
        let tcp = |host: &str, port| Destination::Tcp { host: host.into(), port };
        let exec = |command: &str| Action::SshExec { command: command.into() };
        let (read, write) = (Action::SshFiles { write: false }, Action::SshFiles { write: true });
        let sftp = json!({"command": null, "kind": "sftp"});
        let copied = |command: &str| json!({"command": command, "kind": "scp"});
        let file = |status, operation: &str| ("ssh_file", status, json!({"operation": operation, "path": "/a"}));
        let to = |to: &str| ("ssh_forward", EventStatus::Success, json!({"to": to}));
        let opaque = |status| ("ssh_forward_opaque", status, json!({"carries": "tls"}));
        let (success, denied) = (EventStatus::Success, EventStatus::Denied);
        let cases = [
            (vec![("ssh_transfer", success, sftp.clone())], vec![read.clone()]),
            (
                vec![("ssh_transfer", success, sftp.clone()), file(success, "read"), file(denied, "write")],
                vec![read.clone()],
            ),
            (vec![("ssh_transfer", success, sftp), file(success, "list"), file(success, "mkdir")], vec![write.clone()]),
            (vec![("ssh_transfer", success, copied("scp -f /a"))], vec![read.clone()]),
            (vec![("ssh_transfer", success, copied("scp -t /a"))], vec![write.clone()]),
            (vec![("ssh_transfer", success, copied("sudo scp -t /a"))], vec![exec("sudo scp -t /a"), write]),
            (vec![("ssh_transfer", denied, copied("scp -t /a"))], vec![]),
            (vec![to("db:5432")], vec![Action::SshForwardTo { to: tcp("db", 5432), opaque: false }]),
            (vec![to("db:443"), opaque(success)], vec![Action::SshForwardTo { to: tcp("db", 443), opaque: true }]),
            (
                vec![to("/run/a"), opaque(denied)],
                vec![Action::SshForwardTo { to: Destination::Path("/run/a".into()), opaque: false }],
            ),
            (
                vec![("ssh_forward", success, json!({"to": "[::1]:22", "socket": "other"}))],
                vec![Action::SshForwardTo { to: tcp("::1", 22), opaque: true }],
            ),
            (
                vec![("ssh_forward", success, json!({"from": "0.0.0.0:8080", "port": 8080, "listening": true}))],
                vec![Action::SshForwardFrom { at: tcp("0.0.0.0", 8080), opaque: false }],
            ),
            (
                vec![("ssh_agent", success, json!({})), ("ssh_x11", success, json!({}))],
                vec![Action::SshAgent, Action::SshX11],
            ),
        ];
        let book = Book::new();
        for (events, expected) in cases {
            let (new, recording) = (new_session(), Uuid::now_v7());
            book.open_session(new.clone()).await.unwrap();
            for (kind, status, mut about) in events.clone() {
                about["recording_id"] = recording.to_string().into();
                book.add_event(new.session_id, Event::now(kind, status, about)).await.unwrap();
            }
            let mut done: Vec<Action> =
                book.done_in(vec![new.session_id]).await.unwrap().into_iter().map(|(_, action)| action).collect();
            done.sort_by_key(Action::event_kind);
            assert_eq!(done, expected, "{events:?}");
        }
    }

    #[tokio::test]
    async fn what_is_still_open_counts_as_done() {
        let tcp = |host: &str, port| Destination::Tcp { host: host.into(), port };
        let to = |opaque| Action::SshForwardTo { to: tcp("db", 443), opaque };
        let from = Action::SshForwardFrom { at: tcp("::1", 8080), opaque: false };
        let cases = [
            ("forward", to(false).to_string(), None, vec![to(false)]),
            ("forward", to(false).to_string(), Some("ssh_forward_opaque"), vec![to(true)]),
            ("forward", from.to_string(), None, vec![from]),
            ("agent", Action::SshAgent.to_string(), None, vec![Action::SshAgent]),
            ("x11", Action::SshX11.to_string(), None, vec![Action::SshX11]),
            // An event tells of these from the beginning on.
            ("exec", "uptime".to_owned(), None, vec![]),
        ];
        let book = Book::new();
        for (kind, command, event, expected) in cases {
            let new = new_session();
            book.open_session(new.clone()).await.unwrap();
            let row = testing::recording();
            let id = row.recording_id;
            let row = RecordingRow { kind: kind.into(), command: Some(command), ..row };
            book.add_recording(new.session_id, row).await.unwrap();
            if let Some(event) = event {
                let about = json!({"carries": "tls", "recording_id": id});
                book.add_event(new.session_id, Event::now(event, EventStatus::Success, about)).await.unwrap();
            }
            let done = async || book.done_in(vec![new.session_id]).await.unwrap();
            let expected: Vec<_> = expected.into_iter().map(|action| (new.session_id, action)).collect();
            assert_eq!(done().await, expected);
            // Then its event is there, or it never was one.
            book.finish_recording(id, time("2026-03-02T10:00:00Z"), RecordingState::Complete, 1, None).await.unwrap();
            assert_eq!(done().await, []);
        }
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
