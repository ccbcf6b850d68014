//! One shell or command under its keeper, in two halves.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use super::keeper::{ENDED, tree};
use super::terminal::{self, Master, Opened};
use crate::upstream::{Preparation, Said, Size, UpstreamError};

/// How much is read from a pipe at once.
const READ: usize = 32 * 1024;

/// How long output of a terminal is waited for once its shell has ended.
const LAST_OUTPUT: Duration = Duration::from_millis(100);

/// How long a keeper has to end everything: more than its own deadline.
const END_DEADLINE: Duration = Duration::from_secs(3);

/// Signals that a client may send (RFC 4254 section 6.10), by name.
const SIGNALS: [(&str, Signal); 13] = [
    ("ABRT", Signal::ABORT),
    ("ALRM", Signal::ALARM),
    ("FPE", Signal::FPE),
    ("HUP", Signal::HUP),
    ("ILL", Signal::ILL),
    ("INT", Signal::INT),
    ("KILL", Signal::KILL),
    ("PIPE", Signal::PIPE),
    ("QUIT", Signal::QUIT),
    ("SEGV", Signal::SEGV),
    ("TERM", Signal::TERM),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
];

/// The sending half.
pub struct Input {
    keeper: Option<Pid>,
    to: To,
}

enum To {
    Terminal(pipe::Sender, Master),
    Pipe(Option<ChildStdin>),
}

/// The receiving half. Dropping it ends everything that was started.
pub struct Output {
    keeper: Kept,
    from: From,
    // Said once the streams have ended.
    last: VecDeque<Said>,
    ended: bool,
}

enum From {
    Terminal(Option<pipe::Receiver>),
    Pipes { stdout: Option<ChildStdout>, stderr: Option<ChildStderr> },
}

/// The keeper's process: ended with SIGTERM, upon which it ends all that it keeps.
struct Kept {
    child: Child,
    pid: Option<Pid>,
}

pub(super) fn start(command: Option<&[u8]>, how: Preparation) -> io::Result<(Input, Output)> {
    let mut keeper = keeper_command(command, &how)?;
    let (to, from, child) = match &how.terminal {
        Some(terminal) => {
            let Opened { master, output, input, slave } = terminal::open(terminal.size)?;
            let child = with_terminal(&mut keeper, slave)?;
            (To::Terminal(input, master), From::Terminal(Some(output)), child)
        }
        None => {
            let mut child = keeper.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
            let from = From::Pipes { stdout: child.stdout.take(), stderr: child.stderr.take() };
            (To::Pipe(child.stdin.take()), from, child)
        }
    };
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let output = Output { keeper: Kept { child, pid }, from, last: VecDeque::new(), ended: false };
    Ok((Input { keeper: pid, to }, output))
}

fn with_terminal(keeper: &mut Command, slave: OwnedFd) -> io::Result<Child> {
    keeper.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave).spawn()
}

fn keeper_command(command: Option<&[u8]>, how: &Preparation) -> io::Result<Command> {
    let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/sh".into());
    let name = std::path::Path::new(&shell).file_name().unwrap_or(OsStr::new("sh")).to_owned();
    // Still this binary when an upgrade has replaced its file.
    let mut keeper = Command::new("/proc/self/exe");
    keeper.arg("shell-keeper").arg("--gateway").arg(std::process::id().to_string());
    if how.terminal.is_some() {
        keeper.arg("--tty");
    }
    keeper.arg("--").arg(&shell);
    match command {
        // A leading dash in its name makes a shell a login shell.
        None => {
            let mut login = OsString::from("-");
            login.push(&name);
            keeper.arg(login);
        }
        Some(command) => {
            keeper.arg(&name).arg("-c").arg(OsStr::from_bytes(command));
        }
    }
    environment(&mut keeper, &shell, how);
    Ok(keeper)
}

/// A clean environment: who one is and where one lives, the terminal, and of the client's wishes the locale.
fn environment(keeper: &mut Command, shell: &OsStr, how: &Preparation) {
    keeper.env_clear().env("SHELL", shell);
    for name in ["HOME", "USER", "LOGNAME", "PATH", "LANG", "TZ"] {
        if let Some(value) = std::env::var_os(name) {
            keeper.env(name, value);
        }
    }
    if let Some(home) = std::env::var_os("HOME").filter(|home| std::path::Path::new(home).is_dir()) {
        keeper.current_dir(home);
    }
    for (name, value) in how.env.iter().filter(|(name, _)| name == "LANG" || name.starts_with("LC_")) {
        keeper.env(name, value);
    }
    if let Some(terminal) = &how.terminal {
        keeper.env("TERM", &terminal.term);
    }
}

impl Input {
    pub(in crate::upstream) async fn send(&mut self, data: Bytes) -> Result<(), UpstreamError> {
        let sent = match &mut self.to {
            To::Terminal(terminal, _) => terminal.write_all(&data).await,
            To::Pipe(Some(stdin)) => stdin.write_all(&data).await,
            To::Pipe(None) => return Ok(()),
        };
        match sent {
            Ok(()) => Ok(()),
            // Nobody reads there any more: as at any sshd, the rest of the input goes nowhere.
            Err(_) => {
                self.to = To::Pipe(None);
                Ok(())
            }
        }
    }

    pub(in crate::upstream) async fn eof(&mut self) -> Result<(), UpstreamError> {
        match &mut self.to {
            // A terminal has no half-close: the line discipline's end-of-file character says it (termios(3), VEOF).
            To::Terminal(..) => self.send(Bytes::from_static(b"\x04")).await,
            To::Pipe(stdin) => {
                *stdin = None;
                Ok(())
            }
        }
    }

    pub(in crate::upstream) fn resize(&mut self, size: Size) -> Result<(), UpstreamError> {
        if let To::Terminal(_, terminal) = &self.to {
            let _ = terminal.resize(size);
        }
        Ok(())
    }

    pub(in crate::upstream) fn signal(&mut self, signal: &str) -> Result<(), UpstreamError> {
        let Some((_, signal)) = SIGNALS.iter().find(|(known, _)| *known == signal) else { return Ok(()) };
        match &self.to {
            To::Terminal(_, terminal) => {
                if let Some(group) = terminal.foreground() {
                    let _ = kill_process_group(group, *signal);
                }
            }
            To::Pipe(_) => {
                // What was started is the keeper's first child, in a group of its own.
                if let Some(started) = self.keeper.and_then(|keeper| tree(keeper).into_iter().next()) {
                    let _ = kill_process_group(started.group, *signal);
                }
            }
        }
        Ok(())
    }

    pub(in crate::upstream) fn close(&mut self) {
        self.to = To::Pipe(None);
        if let Some(keeper) = self.keeper.take() {
            let _ = kill_process(keeper, Signal::TERM);
            let _ = kill_process(keeper, Signal::CONT);
        }
    }
}

impl Output {
    pub(in crate::upstream) async fn next(&mut self) -> Option<Said> {
        if let Some(said) = self.last.pop_front() {
            return Some(said);
        }
        if self.ended {
            return None;
        }
        if let Some((stream, data)) = self.read().await {
            return Some(Said::Data(stream, data));
        }
        let status = self.keeper.child.wait().await;
        self.ended = true;
        self.last.extend(status.ok().map(ended_with));
        self.last.push_back(Said::Eof);
        self.last.pop_front()
    }

    /// Tells the keeper to end everything and waits for it. Whether it is known that nothing is left.
    pub(in crate::upstream) async fn end(mut self) -> bool {
        self.keeper.tell_to_end();
        if let Ok(Ok(status)) = tokio::time::timeout(END_DEADLINE, self.keeper.child.wait()).await {
            return status.code() == Some(ENDED);
        }
        // It does not answer: what can be found is ended for it.
        if let Some(pid) = self.keeper.pid {
            for below in tree(pid) {
                let _ = kill_process(below.pid, Signal::KILL);
            }
            let _ = kill_process(pid, Signal::KILL);
        }
        false
    }

    /// The next data; `None` once all has been read. Something may hold the streams open that the keeper could not end,
    /// so once it has ended only what is still on its way is read. Cancel safe.
    async fn read(&mut self) -> Option<(u32, Bytes)> {
        let (from, keeper) = (&mut self.from, &mut self.keeper.child);
        tokio::select! {
            biased;
            read = from.read() => read,
            _ = keeper.wait() => tokio::time::timeout(LAST_OUTPUT, from.read()).await.ok()?,
        }
    }
}

impl From {
    async fn read(&mut self) -> Option<(u32, Bytes)> {
        match self {
            From::Terminal(terminal) => read_pipe(terminal).await.map(|data| (0, data)),
            From::Pipes { stdout, stderr } => loop {
                let (stream, data) = tokio::select! {
                    biased;
                    data = read_pipe(stdout), if stdout.is_some() => (0, data),
                    data = read_pipe(stderr), if stderr.is_some() => (1, data),
                    else => return None,
                };
                if let Some(data) = data {
                    return Some((stream, data));
                }
            },
        }
    }
}

/// Reads a pipe, or a terminal, and forgets it at its end. Cancel safe, as `read_buf` is.
async fn read_pipe<R: AsyncRead + Unpin>(pipe: &mut Option<R>) -> Option<Bytes> {
    let mut buffer = BytesMut::with_capacity(READ);
    match pipe.as_mut()?.read_buf(&mut buffer).await {
        Ok(read) if read > 0 => Some(buffer.freeze()),
        _ => {
            *pipe = None;
            None
        }
    }
}

fn ended_with(status: ExitStatus) -> Said {
    match status.signal() {
        Some(number) => {
            let name = SIGNALS.iter().find(|(_, signal)| signal.as_raw() == number).map_or("KILL", |(name, _)| name);
            Said::ExitSignal { signal: name.to_owned(), core_dumped: status.core_dumped(), message: String::new() }
        }
        None => Said::ExitStatus(status.code().unwrap_or(1).cast_unsigned()),
    }
}

impl Kept {
    fn tell_to_end(&mut self) {
        if let (Some(pid), Ok(None)) = (self.pid, self.child.try_wait()) {
            let _ = kill_process(pid, Signal::TERM);
            // A stopped keeper would not hear it.
            let _ = kill_process(pid, Signal::CONT);
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.tell_to_end();
    }
}
