//! One session channel at an SSH server, in two halves.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use russh::client::Msg;
use russh::{Channel, ChannelId, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Pty, Sig};

use crate::session::{Flow, Held};
use crate::upstream::{Preparation, Program, Said, Size, UpstreamError};

/// What each channel of one connection holds; the connection's loop waits on it.
#[derive(Clone, Default)]
pub(super) struct Flows {
    channels: Arc<Mutex<HashMap<ChannelId, Arc<Flow>>>>,
    held: Arc<Held>,
}

/// The sending half. Dropping it closes the channel.
pub struct Input {
    write: Option<ChannelWriteHalf<Msg>>,
}

/// The receiving half.
pub struct Output {
    read: ChannelReadHalf,
    closed: bool,
    flow: Arc<Flow>,
    _registered: Registered,
}

pub(super) async fn start(
    channel: Channel<Msg>,
    flows: &Flows,
    program: &Program,
    how: Preparation,
) -> Result<(Input, Output), UpstreamError> {
    let (input, output) = halves(channel, flows);
    request(&input, program, how).await.map_err(lost)?;
    Ok((input, output))
}

/// A channel in two halves, counted.
pub(super) fn halves(channel: Channel<Msg>, flows: &Flows) -> (Input, Output) {
    let (flow, registered) = flows.register(channel.id());
    let (read, write) = channel.split();
    (Input { write: Some(write) }, Output { read, closed: false, flow, _registered: registered })
}

async fn request(input: &Input, program: &Program, how: Preparation) -> Result<(), russh::Error> {
    let write = input.write()?;
    if let Some(terminal) = how.terminal {
        let size = terminal.size;
        let modes: Vec<(Pty, u32)> =
            terminal.modes.iter().filter_map(|(code, value)| Some((Pty::from_u8(*code)?, *value))).collect();
        write.request_pty(false, &terminal.term, size.cols, size.rows, size.width, size.height, &modes).await?;
    }
    for (name, value) in how.env {
        write.set_env(false, name, value).await?;
    }
    if let Some((_allowed, x11)) = how.x11 {
        write.request_x11(false, x11.single, x11.protocol, x11.cookie, x11.screen).await?;
    }
    if how.agent.is_some() {
        write.agent_forward(false).await?;
    }
    match program {
        Program::Shell => write.request_shell(true).await,
        Program::Command(command) => write.exec(true, command.clone()).await,
        Program::Subsystem(name) => write.request_subsystem(true, name).await,
    }
}

impl Input {
    pub(in crate::upstream) async fn send(&mut self, data: Bytes) -> Result<(), UpstreamError> {
        self.write().map_err(lost)?.data_bytes(data).await.map_err(lost)
    }

    pub(in crate::upstream) async fn eof(&mut self) -> Result<(), UpstreamError> {
        self.write().map_err(lost)?.eof().await.map_err(lost)
    }

    pub(in crate::upstream) async fn resize(&mut self, size: Size) -> Result<(), UpstreamError> {
        let Size { cols, rows, width, height } = size;
        self.write().map_err(lost)?.window_change(cols, rows, width, height).await.map_err(lost)
    }

    pub(in crate::upstream) async fn signal(&mut self, signal: &str) -> Result<(), UpstreamError> {
        self.write().map_err(lost)?.signal(Sig::Custom(signal.to_owned())).await.map_err(lost)
    }

    pub(in crate::upstream) async fn close(&mut self) {
        if let Some(write) = &self.write {
            let _ = write.close().await;
        }
        self.write = None;
    }

    /// `Err`: it is closed.
    fn write(&self) -> Result<&ChannelWriteHalf<Msg>, russh::Error> {
        self.write.as_ref().ok_or(russh::Error::SendError)
    }
}

impl Drop for Input {
    /// Whoever is stopped between its opening and its end must not leave it open at the server.
    fn drop(&mut self) {
        if let (Some(write), Ok(runtime)) = (self.write.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { write.close().await });
        }
    }
}

fn lost(_: russh::Error) -> UpstreamError {
    UpstreamError::lost()
}

impl Output {
    pub(in crate::upstream) async fn next(&mut self) -> Option<Said> {
        loop {
            if self.closed {
                return None;
            }
            let Some(message) = self.read.wait().await else {
                self.closed = true;
                return Some(Said::Lost);
            };
            return Some(match message {
                ChannelMsg::Data { data } => Said::Data(0, data),
                ChannelMsg::ExtendedData { data, ext } => Said::Data(ext, data),
                ChannelMsg::Eof => Said::Eof,
                ChannelMsg::ExitStatus { exit_status } => Said::ExitStatus(exit_status),
                ChannelMsg::ExitSignal { signal_name, core_dumped, error_message, .. } => {
                    Said::ExitSignal { signal: signal_name_of(&signal_name), core_dumped, message: error_message }
                }
                // The answer to `shell` or `exec`: the only request that asks for one.
                ChannelMsg::Failure => Said::Refused,
                ChannelMsg::Close => {
                    self.closed = true;
                    return None;
                }
                _ => continue,
            });
        }
    }

    pub(in crate::upstream) fn taken(&self, said: &Said) {
        if let Said::Data(_, data) = said {
            self.flow.taken(data.len());
        }
    }
}

impl Flows {
    /// The connection's loop took data for a channel: waits, for a bounded time, while the channel lags.
    pub(super) async fn arrived(&self, channel: ChannelId, bytes: usize) -> Result<(), russh::Error> {
        let flow = self.lock().get(&channel).cloned();
        match flow {
            Some(flow) => flow.arrived(bytes).await.map_err(|_| russh::Error::Pending),
            // The channel's task has gone: nothing is kept.
            None => Ok(()),
        }
    }

    /// Counts what a channel holds, for as long as the second value lives.
    pub(super) fn register(&self, channel: ChannelId) -> (Arc<Flow>, Registered) {
        let flow = Arc::new(Flow::new(&self.held));
        self.lock().insert(channel, flow.clone());
        (flow, Registered { flows: self.clone(), channel })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ChannelId, Arc<Flow>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a channel's flow out again, or the loop would wait for a task that has gone.
pub(super) struct Registered {
    flows: Flows,
    channel: ChannelId,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.flows.lock().remove(&self.channel);
    }
}

/// The name of a signal as SSH writes it, without `SIG` (RFC 4254 section 6.10).
pub fn signal_name_of(signal: &Sig) -> String {
    match signal {
        Sig::Custom(name) => name.clone(),
        known => format!("{known:?}"),
    }
}
