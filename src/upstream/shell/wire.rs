//! What the gateway and its helper's keepers say to each other: length-prefixed JSON on a Unix socket, descriptors beside
//! it (unix(7), `SCM_RIGHTS`). Both ends are one binary, so nothing here has versions.
//!
//! The gateway's end is of the runtime, a keeper's end blocks.

use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;

/// The longest message, in bytes: the longest command, as JSON numbers, and room.
const MAX_MESSAGE: usize = 1 << 20;

/// Most descriptors beside one message: standard input, output and error.
pub(super) const FILES: usize = 3;

/// What is asked of a keeper. The first order makes it what it is; [`Order::Signal`] and [`Order::End`] come later.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Order {
    /// Start something as another user. Its standard streams come beside: a terminal, or three pipes.
    Start(Start),
    /// Say what that user could do to these paths; also by being that user, if so.
    Probe { user: String, places: Places, by_being: bool },
    /// Send this signal (RFC 4254 section 6.10) to a process group, or to that of what was started.
    Signal { name: String, group: Option<i32> },
    /// End everything.
    End,
}

/// What nobody but the gateway may get at. Absolute paths.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Places {
    /// What the gateway keeps or reads as a secret: not to be read, nor to be changed.
    pub secret: Vec<PathBuf>,
    /// What the gateway believes, such as its configuration: not to be changed.
    pub believed: Vec<PathBuf>,
}

/// What is to be started.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) user: String,
    /// The shell; left out: the user's own.
    pub(super) shell: Option<PathBuf>,
    pub(super) program: What,
    /// The `TERM` value, where there is a terminal.
    pub(super) term: Option<String>,
    /// The client's wishes for the locale.
    pub(super) env: Vec<(String, String)>,
}

/// The program itself.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum What {
    /// The shell, as a login shell.
    Login,
    /// A command for the shell.
    Command(Vec<u8>),
    /// This file with these arguments, without a shell.
    File(PathBuf, Vec<String>),
}

/// What a keeper answers.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// It runs.
    Started,
    /// It will not be done. The words are for whoever runs the gateway.
    Refused { words: String },
    /// What the user can reach, each with how.
    Found { reached: Vec<(PathBuf, String)> },
    /// It has ended: its wait status (wait(2)), unless it was ended by order; and whether nothing is left of it.
    Ended { status: Option<i32>, clean: bool },
}

/// Bytes that come, until they are messages.
#[derive(Default)]
pub(super) struct Frames(Vec<u8>);

impl Frames {
    /// The next whole message.
    pub(super) fn take<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let Some((length, rest)) = self.0.split_first_chunk() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length > MAX_MESSAGE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let message = serde_json::from_slice(body)?;
        self.0.drain(..4 + length);
        Ok(Some(message))
    }
}

/// A message as it is sent.
pub(super) fn framed<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(message)?;
    if body.len() > MAX_MESSAGE {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"));
    }
    let mut frame = u32::try_from(body.len()).map_err(io::Error::other)?.to_be_bytes().to_vec();
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// A keeper's end.
pub(super) struct Line {
    stream: UnixStream,
    frames: Frames,
}

impl Line {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, frames: Frames::default() }
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// The next order, and what came beside it. Waits for as long as the stream's own timeout says.
    pub(super) fn hear(&mut self) -> io::Result<(Order, Vec<OwnedFd>)> {
        let mut files = Vec::new();
        loop {
            if let Some(order) = self.frames.take()? {
                return Ok((order, files));
            }
            let mut bytes = [0; 8192];
            let (length, some) = receive(self.stream.as_fd(), &mut bytes)?;
            self.frames.0.extend_from_slice(bytes.get(..length).unwrap_or_default());
            files.extend(some);
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Answers on a keeper's end.
pub(super) fn say(mut stream: &UnixStream, answer: &Answer) -> io::Result<()> {
    stream.write_all(&framed(answer)?)
}

/// Sends an order from the gateway's end, with these descriptors. Not cancel safe: a part may have been sent.
pub(super) async fn order(to: &tokio::net::UnixStream, order: &Order, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let frame = framed(order)?;
    let mut sent = to.async_io(Interest::WRITABLE, || send(to.as_fd(), &frame, files)).await?;
    while let Some(rest) = frame.get(sent..).filter(|rest| !rest.is_empty()) {
        sent += to.async_io(Interest::WRITABLE, || to.try_write(rest)).await?;
    }
    Ok(())
}

/// The next answer at the gateway's end. Cancel safe: what has come stays in `frames`.
pub(super) async fn answer(from: &tokio::net::UnixStream, frames: &mut Frames) -> io::Result<Answer> {
    loop {
        if let Some(answer) = frames.take()? {
            return Ok(answer);
        }
        from.readable().await?;
        match from.try_read_buf(&mut frames.0) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Sends bytes with descriptors beside the first of them; how many bytes went.
pub(super) fn send(to: BorrowedFd<'_>, bytes: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(FILES))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::Error::other("no room for descriptors"));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    Ok(rustix::net::sendmsg(to, &[IoSlice::new(bytes)], &mut control, flags)?)
}

/// Receives bytes, and the descriptors that came beside them; no bytes: the other end is closed.
pub(super) fn receive(from: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(FILES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let iov = &mut [IoSliceMut::new(bytes)];
    let got = loop {
        match rustix::net::recvmsg(from, iov, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            got => break got?,
        }
    };
    let mut files = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            files.extend(some);
        }
    }
    Ok((got.bytes, files))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn orders_come_with_their_descriptors_and_answers_come_back() {
        let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        let theirs = theirs.into_std().unwrap();
        theirs.set_nonblocking(false).unwrap();
        let mut line = Line::new(theirs);
        let (mut read, write) = io::pipe().unwrap();
        let long = Order::Start(Start {
            user: "u".into(),
            shell: None,
            program: What::Command(vec![0xff; 64 * 1024]),
            term: None,
            env: vec![("LANG".into(), "C".into())],
        });
        let keeper = std::thread::spawn(move || {
            let (first, files) = line.hear().unwrap();
            let mut pipe = std::fs::File::from(files.into_iter().next().unwrap());
            pipe.write_all(b"here").unwrap();
            drop(pipe);
            let (second, none) = line.hear().unwrap();
            assert!(none.is_empty());
            say(line.stream(), &Answer::Started).unwrap();
            say(line.stream(), &Answer::Ended { status: Some(9), clean: true }).unwrap();
            (first, second, line.hear().unwrap_err().kind())
        });
        order(&ours, &long, &[write.as_fd()]).await.unwrap();
        drop(write);
        let mut text = String::new();
        order(&ours, &Order::End, &[]).await.unwrap();
        let mut frames = Frames::default();
        assert_eq!(answer(&ours, &mut frames).await.unwrap(), Answer::Started);
        assert_eq!(answer(&ours, &mut frames).await.unwrap(), Answer::Ended { status: Some(9), clean: true });
        drop(ours);
        assert_eq!(keeper.join().unwrap(), (long, Order::End, io::ErrorKind::UnexpectedEof));
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "here");
    }

    #[test]
    fn a_length_without_end_and_a_lie_are_errors() {
        assert!(Frames(u32::MAX.to_be_bytes().to_vec()).take::<Order>().is_err());
        assert!(Frames(b"\0\0\0\x01x".to_vec()).take::<Order>().is_err());
        assert!(Frames(b"\0\0\0\x09\"En".to_vec()).take::<Order>().unwrap().is_none());
        let most = Answer::Refused { words: "x".repeat(MAX_MESSAGE) };
        assert!(framed(&most).is_err());
    }

    #[test]
    fn a_silent_gateway_is_not_waited_for() {
        let (_ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        assert!(Line::new(theirs).hear().is_err());
    }
}
