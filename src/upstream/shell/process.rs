//! One shell or command under its keeper, in two halves.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::process::Command;

use super::helper::Helper;
use super::kept::{Kept, Teller};
use super::terminal::{self, Master, Opened};
use super::wire::{Answer, Order, Start, What};
use super::{Whose, is_locale, signal_name};
use crate::upstream::{Preparation, Said, Size, UpstreamError};

/// How much is read from a pipe at once.
const READ: usize = 32 * 1024;

/// How long output of a terminal is waited for once its shell has ended.
const LAST_OUTPUT: Duration = Duration::from_millis(100);

/// What is started.
pub(super) enum Program<'a> {
    /// The shell, as a login shell.
    Login,
    /// A command, by the shell.
    Command(&'a [u8]),
    /// A file with these arguments, without a shell.
    File(&'a Path, Vec<String>),
}

/// The sending half.
pub struct Input {
    keeper: Teller,
    to: To,
}

enum To {
    Terminal(pipe::Sender, Master),
    Pipe(Option<pipe::Sender>),
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
    Pipes { stdout: Option<pipe::Receiver>, stderr: Option<pipe::Receiver> },
}

/// Standard input, output and error as the program gets them.
struct Theirs([OwnedFd; 3]);

pub(super) async fn start(whose: &Whose, program: Program<'_>, how: Preparation) -> io::Result<(Input, Output)> {
    let (to, from, theirs) = streams(&how)?;
    let keeper = match whose {
        Whose::Own => own_keeper(program, &how, theirs)?,
        Whose::Other { helper, user, shell } => {
            let order = Start {
                user: user.clone(),
                shell: shell.clone(),
                program: match program {
                    Program::Login => What::Login,
                    Program::Command(command) => What::Command(command.to_owned()),
                    Program::File(path, arguments) => What::File(path.to_owned(), arguments),
                },
                term: how.terminal.map(|terminal| terminal.term),
                env: how.env.into_iter().filter(|(name, _)| is_locale(name)).collect(),
            };
            lent_keeper(helper, order, &theirs).await?
        }
    };
    let output = |keeper| Output { keeper, from, last: VecDeque::new(), ended: false };
    Ok((Input { keeper: keeper.teller(), to }, output(keeper)))
}

/// A terminal, or three pipes.
fn streams(how: &Preparation) -> io::Result<(To, From, Theirs)> {
    if let Some(terminal) = &how.terminal {
        let Opened { master, output, input, slave } = terminal::open(terminal.size)?;
        let theirs = Theirs([slave.try_clone()?, slave.try_clone()?, slave]);
        return Ok((To::Terminal(input, master), From::Terminal(Some(output)), theirs));
    }
    let (stdin, stdin_end) = io::pipe()?;
    let (stdout_end, stdout) = io::pipe()?;
    let (stderr_end, stderr) = io::pipe()?;
    let to = To::Pipe(Some(pipe::Sender::from_owned_fd(stdin_end.into())?));
    let stdout_end = Some(pipe::Receiver::from_owned_fd(stdout_end.into())?);
    let from = From::Pipes { stdout: stdout_end, stderr: Some(pipe::Receiver::from_owned_fd(stderr_end.into())?) };
    Ok((to, from, Theirs([stdin.into(), stdout.into(), stderr.into()])))
}

async fn lent_keeper(helper: &Helper, start: Start, theirs: &Theirs) -> io::Result<Kept> {
    let files = theirs.0.each_ref().map(AsFd::as_fd);
    let kept = helper.keeper(&Order::Start(start), &files).await?;
    match &kept.answer {
        Answer::Started => Ok(Kept::lent(kept)),
        Answer::Refused { words } => Err(io::Error::other(words.clone())),
        other => Err(io::Error::other(format!("the helper answered {other:?}"))),
    }
}

fn own_keeper(program: Program<'_>, how: &Preparation, theirs: Theirs) -> io::Result<Kept> {
    let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/sh".into());
    let name = Path::new(&shell).file_name().unwrap_or(OsStr::new("sh")).to_owned();
    // Still this binary when an upgrade has replaced its file.
    let mut keeper = Command::new("/proc/self/exe");
    keeper.arg("shell-keeper").arg("--gateway").arg(std::process::id().to_string());
    if how.terminal.is_some() {
        keeper.arg("--tty");
    }
    keeper.arg("--");
    match program {
        // A leading dash in its name makes a shell a login shell.
        Program::Login => {
            let mut login = OsString::from("-");
            login.push(&name);
            keeper.arg(&shell).arg(login);
        }
        Program::Command(command) => {
            keeper.arg(&shell).arg(&name).arg("-c").arg(OsStr::from_bytes(command));
        }
        Program::File(path, arguments) => {
            keeper.arg(path).arg(path).args(arguments);
        }
    }
    environment(&mut keeper, &shell, how);
    let [stdin, stdout, stderr] = theirs.0.map(Stdio::from);
    Ok(Kept::own(keeper.stdin(stdin).stdout(stdout).stderr(stderr).spawn()?))
}

/// A clean environment: who one is and where one lives, the terminal, and of the client's wishes the locale.
fn environment(keeper: &mut Command, shell: &OsStr, how: &Preparation) {
    keeper.env_clear().env("SHELL", shell);
    for name in ["HOME", "USER", "LOGNAME", "PATH", "LANG", "TZ"] {
        if let Some(value) = std::env::var_os(name) {
            keeper.env(name, value);
        }
    }
    if let Some(home) = std::env::var_os("HOME").filter(|home| Path::new(home).is_dir()) {
        keeper.current_dir(home);
    }
    for (name, value) in how.env.iter().filter(|(name, _)| is_locale(name)) {
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
        match &self.to {
            To::Terminal(_, terminal) => {
                if let Some(group) = terminal.foreground() {
                    self.keeper.signal(signal, Some(group));
                }
            }
            To::Pipe(_) => self.keeper.signal(signal, None),
        }
        Ok(())
    }

    pub(in crate::upstream) fn close(&mut self) {
        self.to = To::Pipe(None);
        self.keeper.end();
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
        let status = self.keeper.ended().await;
        self.ended = true;
        self.last.extend(status.ok().map(ended_with));
        self.last.push_back(Said::Eof);
        self.last.pop_front()
    }

    /// Has everything ended and waits for it. Whether it is known that nothing is left.
    pub(in crate::upstream) async fn end(self) -> bool {
        self.keeper.end().await
    }

    /// The next data; `None` once all has been read. Something may hold the streams open that the keeper could not end,
    /// so once it has ended only what is still on its way is read. Cancel safe.
    async fn read(&mut self) -> Option<(u32, Bytes)> {
        let (from, keeper) = (&mut self.from, &mut self.keeper);
        tokio::select! {
            biased;
            read = from.read() => read,
            _ = keeper.ended() => tokio::time::timeout(LAST_OUTPUT, from.read()).await.ok()?,
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
        Some(number) => Said::ExitSignal {
            signal: signal_name(number).to_owned(),
            core_dumped: status.core_dumped(),
            message: String::new(),
        },
        None => Said::ExitStatus(status.code().unwrap_or(1).cast_unsigned()),
    }
}
