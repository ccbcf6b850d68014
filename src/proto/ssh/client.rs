//! The client's end of a channel: what it does, in the order in which it did it, and how it is told something. Knows
//! nothing of sessions and recordings.

use std::sync::Arc;

use bytes::Bytes;
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelId, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::time::timeout;

use crate::record::export::escape::is_unsafe;
use crate::session::Flow;
use crate::upstream::ssh::signal_name_of;
use crate::upstream::{Program, Size, Terminal, X11};

/// The exit status when the gateway refuses or fails: what a shell says of a command that it may not run.
const REFUSED: u32 = 126;

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

impl Client {
    /// A channel that something may be started on.
    pub(super) fn new(channel: Channel<Msg>, handle: Handle, flow: Arc<Flow>) -> Self {
        let id = channel.id();
        let (read, write) = channel.split();
        Self { from: FromClient { read, flow }, to: ToClient { write, handle, id, speaks: true } }
    }

    /// A channel that is no program's: nothing is said on it.
    pub(super) fn silent(channel: Channel<Msg>, handle: Handle, flow: Arc<Flow>) -> Self {
        let Self { from, to } = Self::new(channel, handle, flow);
        Self { from, to: ToClient { speaks: false, ..to } }
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

/// Words as they stand in a terminal: on a line of their own, whatever mode it is in.
pub(super) fn told(words: &str) -> String {
    format!("\r\ngatescribe: {}\r\n", harmless(words))
}

/// Words that others had a hand in, without anything that a terminal obeys.
pub(super) fn harmless(words: &str) -> String {
    words.chars().map(|c| if c.is_control() || is_unsafe(c) { '?' } else { c }).collect()
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
