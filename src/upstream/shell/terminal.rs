//! A pseudo-terminal: the gateway's end of it, and the process's end.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::Pid;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetpgrp, tcsetwinsize};
use tokio::net::unix::pipe;

use crate::upstream::Size;

/// The gateway's end, for what is neither reading nor writing.
pub(super) struct Master(OwnedFd);

/// A new terminal.
pub(super) struct Opened {
    pub(super) master: Master,
    /// What the process writes. Fails with EIO once no process holds the terminal any more.
    pub(super) output: pipe::Receiver,
    /// What the process reads.
    pub(super) input: pipe::Sender,
    /// The process's end.
    pub(super) slave: OwnedFd,
}

/// Opens a terminal of this size. Must run inside a tokio runtime.
pub(super) fn open(size: Size) -> io::Result<Opened> {
    let fd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&fd)?;
    unlockpt(&fd)?;
    let name = ptsname(&fd, Vec::new())?;
    let slave = rustix::fs::open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
    // Not a pipe, but a descriptor that is read, written and polled like one; hence unchecked.
    let output = pipe::Receiver::from_owned_fd_unchecked(fd.try_clone()?)?;
    let input = pipe::Sender::from_owned_fd_unchecked(fd.try_clone()?)?;
    let master = Master(fd);
    master.resize(size)?;
    Ok(Opened { master, output, input, slave })
}

impl Master {
    /// Changes the size; the kernel tells the foreground process group (SIGWINCH).
    pub(super) fn resize(&self, size: Size) -> io::Result<()> {
        let cell = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
        let size = Winsize {
            ws_col: cell(size.cols),
            ws_row: cell(size.rows),
            ws_xpixel: cell(size.width),
            ws_ypixel: cell(size.height),
        };
        Ok(tcsetwinsize(&self.0, size)?)
    }

    /// The process group in the foreground.
    pub(super) fn foreground(&self) -> Option<Pid> {
        tcgetpgrp(&self.0).ok()
    }
}
