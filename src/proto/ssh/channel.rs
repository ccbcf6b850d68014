//! One session channel (RFC 4254 section 6), from its opening to the relay: what the client prepares, what it starts, what
//! is written down before.

use std::sync::Arc;

use bytes::Bytes;
use russh::Channel;
use russh::server::{Handle, Msg};
use serde_json::json;
use tokio::time::timeout;

use super::carried::Carried;
use super::client::{Client, Did, FromClient, ToClient, told};
use super::connection::Connection;
use super::deed::Deed;
use super::lobby::menu;
use super::notices::Notices;
use super::relay::Relay;
use super::{files, lent};
use crate::error::UserFacing;
use crate::policy::{Denied, Grant};
use crate::record::observation::What;
use crate::record::{Ending, RecordingLost};
use crate::session::{End, Flow, Legibility, Recording, Session};
use crate::store::{Event, EventStatus};
use crate::upstream::{Preparation, Program, SFTP, Terminal, X11};
use crate::wire::disguise::Disguise;
use crate::wire::mosh;

/// Most environment variables, and most bytes of them, that a channel may set. More are dropped.
const MAX_ENV: usize = 64;
const MAX_ENV_BYTES: usize = 8 * 1024;

/// The longest command line and the longest `TERM`. Longer ones are refused: recordings hold these whole.
const MAX_COMMAND: usize = 64 * 1024;
const MAX_TERM: usize = 256;

/// To somebody who started mosh.
const NO_MOSH: &str = "mosh does not work here: after its start it leaves SSH for UDP; use ssh";

/// What a client prepares before it starts something.
#[derive(Default)]
struct Wishes {
    how: Preparation,
    agent: bool,
    x11: Option<X11>,
}

/// Runs one channel from its opening to its close.
pub(super) async fn run(connection: Arc<Connection>, channel: Channel<Msg>, handle: Handle, flow: Arc<Flow>) {
    let mut client = Client::new(channel, handle, flow);
    let prepared = tokio::select! {
        biased;
        () = connection.until_ending() => None,
        prepared = prepare(&mut client.from) => prepared,
        () = connection.until_lobby_closes() => None,
    };
    let (session, prepared) = match (connection.session(), prepared) {
        (Some(session), prepared) => (session, prepared),
        (None, Some((program, mut wishes))) => {
            let chosen = Box::pin(menu::choose(&connection, &mut client, &program, &mut wishes.how.terminal)).await;
            let Some(session) = chosen else { return };
            (session, Some((program, wishes)))
        }
        (None, None) => return client.to.close().await,
    };
    match prepared {
        Some((Program::Subsystem(name), _)) if name != SFTP => {
            let about = json!({ "subsystem": name, "reason": "not offered" });
            session.note(Event::now("ssh_subsystem", EventStatus::Denied, about)).await;
            client.to.refuse(&format!("the subsystem {name} is not offered")).await;
        }
        Some((Program::Command(command), _)) if command.len() > MAX_COMMAND => {
            let about = json!({ "bytes": command.len(), "reason": "the command is too long" });
            session.note(Event::now("ssh_exec", EventStatus::Denied, about)).await;
            client.to.refuse("the command is too long").await;
        }
        Some((Program::Command(command), _)) if mosh::is_bootstrap(&command) => {
            let about = json!({ "command": String::from_utf8_lossy(&command), "reason": "mosh leaves SSH for UDP" });
            session.note(Event::now("ssh_exec", EventStatus::Denied, about)).await;
            client.to.refuse(NO_MOSH).await;
        }
        Some((program, wishes)) => begin(&connection, &session, client, program, wishes).await,
        None if session.ended().is_some() => client.to.refuse(&farewell(&session)).await,
        None => client.to.close().await,
    }
}

/// Collects what is asked for until something is started. `None`: the client went away.
async fn prepare(client: &mut FromClient) -> Option<(Program, Wishes)> {
    let mut wishes = Wishes::default();
    let preparation = &mut wishes.how;
    let mut bytes = 0;
    loop {
        match client.next().await {
            Did::Terminal(terminal) if terminal.term.len() > MAX_TERM => {}
            Did::Terminal(terminal) => preparation.terminal = Some(terminal),
            Did::Resize(size) => {
                if let Some(terminal) = &mut preparation.terminal {
                    terminal.size = size;
                }
            }
            Did::Env(name, value) => {
                bytes += name.len() + value.len();
                if preparation.env.len() < MAX_ENV && bytes < MAX_ENV_BYTES {
                    preparation.env.push((name, value));
                }
            }
            Did::Agent => wishes.agent = true,
            Did::X11(x11) => wishes.x11 = Some(x11),
            Did::Start(program) => return Some((program, wishes)),
            // Nothing takes data before something is started (RFC 4254 section 6.5).
            Did::Data(_, data) => client.taken(data.len()),
            Did::Signal(_) | Did::Eof => {}
            Did::Gone => return None,
        }
    }
}

/// Checks, opens the recording, reaches the upstream and relays.
async fn begin(connection: &Arc<Connection>, session: &Arc<Session>, client: Client, program: Program, wishes: Wishes) {
    let Wishes { how, agent, x11 } = wishes;
    let deed = Deed::of(program);
    let (grant, rights) = match Box::pin(deed.ask(session, how.terminal.is_some())).await {
        Ok(begun) => begun,
        Err(denied) => return client.to.refuse(&denied.to_string()).await,
    };
    let mut how = deed.fitting(how, &grant, connection);
    let recording = match Box::pin(open_book(session, &grant, &deed, &how)).await {
        Ok(recording) => recording,
        Err(lost) => {
            session.end(End::RecordingLost(lost.told()));
            return client.to.refuse(&farewell(session)).await;
        }
    };
    if let (Some(notice), true) = (&session.socket().notice, how.terminal.is_some())
        && let Err(lost) = show_notice(&client, &recording, notice).await
    {
        session.end(End::RecordingLost(lost.told()));
        return client.to.refuse(&farewell(session)).await;
    }
    if deed.transfer.is_none() {
        Box::pin(lent::lend(connection, session, &mut how, agent, x11)).await;
    }
    // A program that was started by name is not written into, terminal or not.
    let terminal = how.terminal.is_some() && deed.program == Program::Shell;
    let terminal_size = how.terminal.as_ref().map(|terminal| terminal.size);
    let starting = async {
        let upstream = connection.upstream().await.map_err(|error| (error, true))?;
        if how.agent.is_some() || how.x11.is_some() {
            lent::serve(connection, &upstream);
        }
        Box::pin(upstream.start(grant, &deed.program, how)).await.map_err(|error| {
            let gone = error.is_gone();
            (error, gone)
        })
    };
    let started = tokio::select! {
        biased;
        () = session.until_ending() => {
            refuse_recorded(session, &client.to, &recording, &farewell(session)).await;
            return recording.finish(Ending::Complete, None);
        }
        denied = rights.until_refused() => {
            refuse_recorded(session, &client.to, &recording, &denied.to_string()).await;
            note_cut(session, &recording, &denied).await;
            return recording.finish(Ending::Complete, None);
        }
        kill = recording.until_killed() => {
            refuse_recorded(session, &client.to, &recording, &kill.words()).await;
            return recording.finish(Ending::Complete, None);
        }
        started = starting => started,
    };
    match started {
        Ok((input, output)) => {
            let notices = terminal.then(|| Notices::new(session));
            let keep = session.socket().record_files;
            let carried = match deed.transfer {
                Some(transfer) => files::carried(connection, transfer, keep),
                None => Carried::new(connection, Disguise::default(), None),
            };
            let size = terminal_size.filter(|_| deed.kind.legibility == Legibility::Screen);
            let carried = Some(carried);
            let relay = Relay { connection, session, recording, rights, notices, carried, size, passed: (0, 0) };
            Box::pin(relay.run(client, input, output)).await;
        }
        Err((error, gone)) => {
            let about = json!({ "reason": error.to_string() });
            session.note(Event::now("upstream", EventStatus::Error, about)).await;
            if gone {
                // The reason first: the client may be gone as soon as it is told.
                session.end(End::UpstreamFailed(error.to_string()));
            }
            refuse_recorded(session, &client.to, &recording, &error.to_string()).await;
            recording.finish(Ending::Complete, None);
        }
    }
}

/// The recording, and what is known before anything is started: written down before the upstream hears of it.
async fn open_book(
    session: &Session,
    grant: &Grant,
    deed: &Deed,
    how: &Preparation,
) -> Result<Recording, RecordingLost> {
    let command = match &deed.program {
        Program::Command(command) => Some(command.as_slice()),
        Program::Shell | Program::Subsystem(_) => None,
    };
    let recording = session.record(deed.kind, command).await?;
    if let Some(Terminal { term, size, .. }) = &how.terminal {
        recording.record(What::Pty { term: term.clone(), cols: size.cols, rows: size.rows }).await?;
    }
    for (name, value) in &how.env {
        recording.record(What::Env { name: name.clone(), value: shown(name, value) }).await?;
    }
    let what = match &deed.program {
        Program::Command(command) => What::Exec { command: Bytes::copy_from_slice(command) },
        Program::Subsystem(name) => What::Subsystem { name: name.clone() },
        Program::Shell => What::Shell,
    };
    recording.record(what).await?;
    let about = json!({
        "recording_id": recording.id(),
        "command": command.map(String::from_utf8_lossy),
        "pty": how.terminal.is_some(),
        "kind": deed.kind.name,
        "rule": grant.rule(),
    });
    session.note(Event::now(grant.action().event_kind(), EventStatus::Success, about)).await;
    Ok(recording)
}

/// The socket's notice, before anything is started. Only into a terminal: what programs read stays theirs.
async fn show_notice(client: &Client, recording: &Recording, notice: &str) -> Result<(), RecordingLost> {
    let text = format!("{}\r\n", notice.replace('\n', "\r\n"));
    recording.record(What::Told { text: text.clone() }).await?;
    let _ = timeout(super::GOODBYE, client.to.send(0, Bytes::from(text))).await;
    Ok(())
}

/// Refuses with words that stand in the recording too. Where they cannot, that is the reason.
pub(super) async fn refuse_recorded(session: &Session, to: &ToClient, recording: &Recording, words: &str) {
    match recording.record(What::Told { text: told(words) }).await {
        Ok(()) => to.refuse(words).await,
        Err(lost) => {
            session.end(End::RecordingLost(lost.told()));
            to.refuse(&farewell(session)).await;
        }
    }
}

/// Writes into the session that a channel was ended because what it does is no longer allowed.
pub(super) async fn note_cut(session: &Session, recording: &Recording, denied: &Denied) {
    let about = json!({ "recording_id": recording.id(), "reason": denied.to_string(), "rule": denied.rule() });
    session.note(Event::now("cut", EventStatus::Denied, about)).await;
}

/// The words for a session that is ended from outside.
pub(super) fn farewell(session: &Session) -> String {
    session.ended().map_or_else(|| "the session has ended".into(), |end| end.words())
}

/// Variables whose values are about language, time and the terminal. By their whole names: what a server takes, such as
/// `LC_*`, is what people pass secrets in.
const SHOWN: [&str; 20] = [
    "COLORTERM",
    "LANG",
    "LANGUAGE",
    "LC_ADDRESS",
    "LC_ALL",
    "LC_COLLATE",
    "LC_CTYPE",
    "LC_IDENTIFICATION",
    "LC_MEASUREMENT",
    "LC_MESSAGES",
    "LC_MONETARY",
    "LC_NAME",
    "LC_NUMERIC",
    "LC_PAPER",
    "LC_TELEPHONE",
    "LC_TIME",
    "NO_COLOR",
    "TERM",
    "TERM_PROGRAM",
    "TZ",
];

/// A variable's value as it is written down: of one that may be a secret, how long it is.
fn shown(name: &str, value: &str) -> String {
    match SHOWN.contains(&name) {
        true => value.to_owned(),
        false => format!("({} bytes)", value.len()),
    }
}
