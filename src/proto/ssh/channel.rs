//! One session channel (RFC 4254 section 6): what the client prepares, what it starts, how it is told what went wrong.

use std::sync::Arc;

use bytes::Bytes;
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelId, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use serde_json::json;
use tokio::time::timeout;

use super::carried::Carried;
use super::connection::Connection;
use super::files::{self, Transfer};
use super::lent;
use super::lobby::menu;
use super::notices::Notices;
use super::relay::Relay;
use super::rights::Rights;
use crate::error::UserFacing;
use crate::policy::{Action, Denied, Grant};
use crate::record::export::escape::is_unsafe;
use crate::record::observation::What;
use crate::record::{Ending, RecordingLost};
use crate::session::{End, Flow, Kind, Legibility, Manner, Recording, Session};
use crate::store::{Event, EventStatus};
use crate::upstream::ssh::signal_name_of;
use crate::upstream::{Preparation, Program, SFTP, Size, Terminal, X11};
use crate::wire::disguise::Disguise;
use crate::wire::mosh;

/// Most environment variables, and most bytes of them, that a channel may set. More are dropped.
const MAX_ENV: usize = 64;
const MAX_ENV_BYTES: usize = 8 * 1024;

/// The longest command line and the longest `TERM`. Longer ones are refused: recordings hold these whole.
const MAX_COMMAND: usize = 64 * 1024;
const MAX_TERM: usize = 256;

/// The exit status when the gateway refuses or fails: what a shell says of a command that it may not run.
const REFUSED: u32 = 126;

/// To somebody who started mosh.
const NO_MOSH: &str = "mosh does not work here: after its start it leaves SSH for UDP; use ssh";

/// What a client prepares before it starts something.
#[derive(Default)]
struct Wishes {
    how: Preparation,
    agent: bool,
    x11: Option<X11>,
}

/// What is going to be done on a channel.
struct Deed {
    program: Program,
    kind: Kind,
    transfer: Option<Transfer>,
}

/// The client's side of a channel, one half a direction.
pub(super) struct Client {
    pub(super) from: FromClient,
    pub(super) to: ToClient,
}

/// What comes from the client.
pub(super) struct FromClient {
    read: ChannelReadHalf,
    flow: Arc<Flow>,
}

/// What goes to the client.
pub(super) struct ToClient {
    write: ChannelWriteHalf<Msg>,
    handle: Handle,
    id: ChannelId,
    /// Whether somebody reads what is said on stderr.
    speaks: bool,
}

/// What the client did.
pub(super) enum Did {
    /// Asked for a terminal.
    Terminal(Terminal),
    /// Set a variable.
    Env(String, String),
    /// Lent its agent.
    Agent,
    /// Lent its display.
    X11(X11),
    /// Started something.
    Start(Program),
    /// Sent data on a stream.
    Data(u32, Bytes),
    /// Changed its terminal's size.
    Resize(Size),
    /// Sent a signal, without `SIG`.
    Signal(String),
    /// Will send no more.
    Eof,
    /// Closed the channel, or went away.
    Gone,
}

/// Runs one channel from its opening to its close.
pub(super) async fn run(connection: Arc<Connection>, channel: Channel<Msg>, handle: Handle, flow: Arc<Flow>) {
    let id = channel.id();
    let (read, write) = channel.split();
    let mut client = Client { from: FromClient { read, flow }, to: ToClient { write, handle, id, speaks: true } };
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

impl Deed {
    /// What starting this comes to.
    fn of(program: Program) -> Self {
        let transfer = files::recognise(&program);
        let screen = |name| Kind { name, legibility: Legibility::Screen };
        let kind = match (&transfer, &program) {
            (Some(transfer), _) => Kind { name: transfer.name(), legibility: Legibility::Structured },
            (None, Program::Command(_)) => screen("exec"),
            (None, Program::Shell | Program::Subsystem(_)) => screen("shell"),
        };
        Self { program, kind, transfer }
    }

    /// May it be done? A program that moves files needs the right to move files; one that another program starts for it
    /// needs the right to run that, too.
    async fn ask(&self, session: &Session, terminal: bool) -> Result<(Grant, Rights), Denied> {
        let how = if terminal { Manner::Interactive } else { Manner::Alone };
        let exec = || match &self.program {
            Program::Command(command) => Action::SshExec { command: command.clone() },
            Program::Shell | Program::Subsystem(_) => Action::SshShell,
        };
        let Some(transfer) = &self.transfer else {
            return session.begin(exec(), how).await.map(|(grant, underway)| (grant, underway.into()));
        };
        let run = match transfer.is_plain() {
            true => None,
            false => Some(session.begin(exec(), Manner::Interactive).await?.1),
        };
        // Somebody at a prompt may have gone.
        let how = if transfer.finishes() { Manner::Alone } else { Manner::Interactive };
        let (grant, underway) = session.begin(Action::SshFiles { write: transfer.writes() }, how).await?;
        Ok((grant, Rights::both(underway, run)))
    }

    /// What is left of the client's wishes.
    fn fitting(&self, mut how: Preparation, grant: &Grant, connection: &Connection) -> Preparation {
        // A pattern allows a command, and a transfer what it is, not a terminal to escape into, nor variables that change
        // what it means.
        let bare = grant.patterned() || self.transfer.is_some();
        if bare {
            how.env.retain(|(name, _)| is_locale(name));
        }
        if bare || !connection.permits_terminals() {
            how.terminal = None;
        }
        how
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
        recording.record(What::Env { name: name.clone(), value: value.clone() }).await?;
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

/// The language of a program's words, and what kind of terminal there is.
fn is_locale(name: &str) -> bool {
    matches!(name, "LANG" | "TERM") || name.starts_with("LC_")
}

/// Words as they stand in a terminal: on a line of their own, whatever mode it is in.
pub(super) fn told(words: &str) -> String {
    format!("\r\ngatescribe: {}\r\n", harmless(words))
}

/// Words that others had a hand in, without anything that a terminal obeys.
pub(super) fn harmless(words: &str) -> String {
    words.chars().map(|c| if c.is_control() || is_unsafe(c) { '?' } else { c }).collect()
}

impl Client {
    /// A channel that is no program's: nothing is said on it.
    pub(super) fn silent(channel: Channel<Msg>, handle: Handle, flow: Arc<Flow>) -> Self {
        let id = channel.id();
        let (read, write) = channel.split();
        Self { from: FromClient { read, flow }, to: ToClient { write, handle, id, speaks: false } }
    }
}

impl FromClient {
    /// What the client does next. Data must be given back with [`FromClient::taken`]. Cancel safe.
    pub(super) async fn next(&mut self) -> Did {
        loop {
            let did = match self.read.wait().await {
                None | Some(ChannelMsg::Close) => return Did::Gone,
                Some(ChannelMsg::Data { data }) => return Did::Data(0, data),
                Some(ChannelMsg::ExtendedData { data, ext }) => return Did::Data(ext, data),
                Some(ChannelMsg::SetEnv { variable_name, variable_value, .. }) => {
                    self.flow.taken(variable_name.len() + variable_value.len());
                    return Did::Env(variable_name, variable_value);
                }
                Some(ChannelMsg::Exec { command, .. }) => {
                    self.flow.taken(command.len());
                    return Did::Start(Program::Command(command));
                }
                Some(ChannelMsg::RequestSubsystem { name, .. }) => {
                    self.flow.taken(name.len());
                    return Did::Start(Program::Subsystem(name));
                }
                Some(other) => without_data(other),
            };
            self.flow.taken(0);
            if let Some(did) = did {
                return did;
            }
        }
    }

    /// Data was forwarded: the connection's loop may take more.
    pub(super) fn taken(&self, bytes: usize) {
        self.flow.taken(bytes);
    }
}

impl ToClient {
    /// Whether something was started on it, and not only connected.
    pub(super) fn is_of_program(&self) -> bool {
        self.speaks
    }

    /// Sends data of a stream; waits for the client's window. Not cancel safe: a part may have been sent.
    pub(super) async fn send(&self, stream: u32, data: Bytes) -> Result<(), russh::Error> {
        match stream {
            0 => self.write.data_bytes(data).await,
            _ => self.write.extended_data_bytes(stream, data).await,
        }
    }

    pub(super) async fn eof(&self) {
        let _ = self.write.eof().await;
    }

    pub(super) async fn exit_status(&self, status: u32) {
        let _ = self.write.exit_status(status).await;
    }

    pub(super) async fn exit_signal(&self, signal: String, core_dumped: bool, message: String) {
        let signal = Sig::Custom(signal);
        let _ = self.handle.exit_signal_request(self.id, signal, core_dumped, message, String::new()).await;
    }

    pub(super) async fn close(&self) {
        let _ = self.write.close().await;
    }

    /// Ends the channel as a program that did all it was asked to do.
    pub(super) async fn done(&self) {
        let ended = async {
            self.exit_status(0).await;
            self.eof().await;
            self.close().await;
        };
        let _ = timeout(super::GOODBYE, ended).await;
    }

    /// Says why on stderr and closes, without a status: the program did not end, it was ended.
    pub(super) async fn dismiss(&self, words: &str) {
        let said = async {
            if self.speaks {
                let _ = self.send(1, Bytes::from(told(words))).await;
            }
            self.eof().await;
        };
        let _ = timeout(super::GOODBYE, said).await;
        // Also where the words found no room: others may go on beside this channel.
        let _ = timeout(super::GOODBYE, self.close()).await;
    }

    /// Says why on stderr, then ends the channel as a program that failed.
    pub(super) async fn refuse(&self, words: &str) {
        let said = async {
            if self.speaks {
                let _ = self.send(1, Bytes::from(told(words))).await;
                self.exit_status(REFUSED).await;
            }
            self.eof().await;
        };
        // A client that does not read its window is not waited for.
        let _ = timeout(super::GOODBYE, said).await;
        let _ = timeout(super::GOODBYE, self.close()).await;
    }
}

/// Requests that carry no data to speak of. `None`: nothing to do.
fn without_data(message: ChannelMsg) -> Option<Did> {
    Some(match message {
        ChannelMsg::RequestPty { term, col_width, row_height, pix_width, pix_height, terminal_modes, .. } => {
            let size = Size { cols: col_width, rows: row_height, width: pix_width, height: pix_height };
            let modes = terminal_modes.into_iter().map(|(mode, value)| (mode as u8, value)).collect();
            Did::Terminal(Terminal { term, size, modes })
        }
        ChannelMsg::RequestShell { .. } => Did::Start(Program::Shell),
        ChannelMsg::AgentForward { .. } => Did::Agent,
        ChannelMsg::RequestX11 {
            single_connection,
            x11_authentication_protocol,
            x11_authentication_cookie,
            x11_screen_number,
            ..
        } => Did::X11(X11 {
            single: single_connection,
            protocol: x11_authentication_protocol,
            cookie: x11_authentication_cookie,
            screen: x11_screen_number,
        }),
        ChannelMsg::WindowChange { col_width, row_height, pix_width, pix_height } => {
            Did::Resize(Size { cols: col_width, rows: row_height, width: pix_width, height: pix_height })
        }
        ChannelMsg::Signal { signal } => Did::Signal(signal_name_of(&signal)),
        ChannelMsg::Eof => Did::Eof,
        _ => return None,
    })
}
