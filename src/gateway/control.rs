//! The wire between the processes of one gateway: a Unix socket of each in `data_dir/run`, for processes of the same
//! user. Messages are length-prefixed JSON; descriptors travel beside single bytes (unix(7), `SCM_RIGHTS`).
//!
//! Two versions of the program talk here. A message may gain fields that have a default; what it means stays.

use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use uuid::Uuid;

/// What one process asks of another.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub(super) enum Order {
    /// Hand over the listening sockets. Answered with [`Answer::Listeners`]; [`Order::Ready`] follows on the same line.
    HandOver,
    /// The new process is built and could accept: stop accepting. Answered with [`Answer::Yours`].
    Ready,
    /// The new process serves from now on. Answered with [`Answer::Over`].
    Taken,
    /// End a session whose row has the order already. Answered when it is down.
    Kill {
        /// Which.
        session: Uuid,
        /// Who ordered it.
        by: String,
        /// Why.
        reason: String,
    },
    /// End one channel of a session whose row has the order already. Answered when it is down. A version that does not
    /// know this order gives no answer, and must not take it for the one above.
    KillChannel {
        /// Which session.
        session: Uuid,
        /// The channel's recording.
        recording: Uuid,
        /// Who ordered it.
        by: String,
        /// Why.
        reason: String,
    },
    /// Stop, as by SIGTERM. Answered at once.
    Stop,
}

/// What it is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(super) enum Answer {
    /// Descriptors follow: the lock of the data directory, then a listening socket for each name.
    Listeners {
        /// What each is for.
        names: Vec<String>,
    },
    /// Nobody accepts any more: it is the new process' turn.
    Yours {
        /// Whether [`Order::Taken`] is answered.
        #[serde(default)]
        confirms: bool,
    },
    /// The new process was heard: from now on it alone accepts.
    Over,
    /// The session is down and its row closed; or the channel is down.
    Down,
    /// It is not live there.
    NotLive,
    /// It did not come down in time.
    TimedOut,
    /// It will stop.
    Stopping,
    /// No, and why.
    Refused {
        /// In words.
        why: String,
    },
}

/// `data_dir/run`. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct RunDir {
    path: PathBuf,
    open: Arc<File>,
}

/// One conversation.
#[derive(Debug)]
pub(super) struct Line(UnixStream);

impl RunDir {
    /// Opens the directory below `data`, which is private to this user; makes it where there is none.
    pub(super) fn open(data: &Path) -> io::Result<Self> {
        let path = data.join("run");
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        let open = Arc::new(File::open(&path)?);
        Ok(Self { path, open })
    }

    /// The file that a process holds a lock on for as long as it lives.
    pub(super) fn alive(&self, process: Uuid) -> PathBuf {
        self.path.join(format!("{process}.alive"))
    }

    /// The file that whoever cleans up after the dead holds a lock on.
    pub(super) fn burial(&self) -> PathBuf {
        self.path.join("burial.lock")
    }

    /// Binds a process' control socket.
    pub(super) fn bind(&self, process: Uuid) -> io::Result<UnixListener> {
        let listener = UnixListener::bind(self.short(process))?;
        std::fs::set_permissions(self.path.join(socket_name(process)), Permissions::from_mode(0o600))?;
        Ok(listener)
    }

    /// Removes what a process had here.
    pub(super) fn forget(&self, process: Uuid) {
        for path in [self.path.join(socket_name(process)), self.alive(process)] {
            let _ = std::fs::remove_file(path);
        }
    }

    /// The socket's path by way of the open directory: a socket's path has room for 107 bytes (unix(7)), and a data
    /// directory may be deep.
    fn short(&self, process: Uuid) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.open.as_raw_fd())).join(socket_name(process))
    }
}

impl Line {
    /// Calls a process.
    pub(super) async fn call(run: &RunDir, process: Uuid) -> io::Result<Self> {
        let stream = timeout(MESSAGE, UnixStream::connect(run.short(process))).await.map_err(late)??;
        Self::of_this_user(stream)
    }

    /// The other process' id, as the kernel tells it.
    pub(super) fn peer(&self) -> Option<i32> {
        self.0.peer_cred().ok()?.pid()
    }

    pub(super) async fn say<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        let body = serde_json::to_vec(message)?;
        let mut framed = u32::try_from(body.len()).map_err(io::Error::other)?.to_be_bytes().to_vec();
        framed.extend_from_slice(&body);
        timeout(MESSAGE, self.0.write_all(&framed)).await.map_err(late)?
    }

    /// The next message. Not cancel safe: after an error or a late one the line is of no use any more.
    pub(super) async fn hear<T: DeserializeOwned>(&mut self, within: Duration) -> io::Result<T> {
        let message = async {
            let mut length = [0; 4];
            self.0.read_exact(&mut length).await?;
            let length = u32::from_be_bytes(length) as usize;
            if length > MAX_MESSAGE {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
            }
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).await?;
            Ok(serde_json::from_slice(&body)?)
        };
        timeout(within, message).await.map_err(late)?
    }

    pub(super) async fn say_files(&self, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        for some in files.chunks(FILES) {
            let sent = self.0.async_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(FILES))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                if !control.push(SendAncillaryMessage::ScmRights(some)) {
                    return Err(io::Error::other("no room for descriptors"));
                }
                Ok(rustix::net::sendmsg(self.0.as_fd(), &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?)
            });
            timeout(MESSAGE, sent).await.map_err(late)??;
        }
        Ok(())
    }

    pub(super) async fn hear_files(&self, count: usize) -> io::Result<Vec<OwnedFd>> {
        let mut files = Vec::new();
        while files.len() < count {
            let received = self.0.async_io(Interest::READABLE, || {
                let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(FILES))];
                let mut control = RecvAncillaryBuffer::new(&mut space);
                let mut byte = [0];
                let iov = &mut [IoSliceMut::new(&mut byte)];
                let got = rustix::net::recvmsg(self.0.as_fd(), iov, &mut control, RecvFlags::CMSG_CLOEXEC)?;
                let some = control.drain().flat_map(|message| match message {
                    RecvAncillaryMessage::ScmRights(files) => files.collect::<Vec<_>>(),
                    _ => Vec::new(),
                });
                Ok((got.bytes, some.collect::<Vec<_>>()))
            });
            match timeout(MESSAGE, received).await.map_err(late)?? {
                (1, some) if !some.is_empty() => files.extend(some),
                _ => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "descriptors are missing")),
            }
        }
        Ok(files)
    }

    /// The directory is private already; this holds should somebody have opened it.
    fn of_this_user(stream: UnixStream) -> io::Result<Self> {
        match stream.peer_cred()?.uid() == rustix::process::geteuid().as_raw() {
            true => Ok(Self(stream)),
            false => Err(io::Error::new(io::ErrorKind::PermissionDenied, "the other process is another user's")),
        }
    }
}

/// Accepts calls for as long as the process runs; each is answered in a task of its own.
pub(super) async fn answer_calls<F>(listener: UnixListener, answer: impl Fn(Line) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let calls = Arc::new(Semaphore::new(CALLS));
    while let Ok(place) = calls.clone().acquire_owned().await {
        match listener.accept().await.and_then(|(stream, _)| Line::of_this_user(stream)) {
            Ok(line) => {
                let answered = answer(line);
                tokio::spawn(async move {
                    let _place = place;
                    answered.await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the control socket could not take a call");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn socket_name(process: Uuid) -> String {
    format!("{process}.sock")
}

fn late(_: tokio::time::error::Elapsed) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the other process does not answer")
}

/// For one message to go or to come, where nothing has to be done for it.
pub(super) const MESSAGE: Duration = Duration::from_secs(10);
/// The longest message, in bytes.
const MAX_MESSAGE: usize = 1 << 20;
/// Descriptors beside one byte; the kernel takes 253 (`SCM_MAX_FD`).
const FILES: usize = 64;
/// Calls at a time: as many kills as somebody may order at once.
const CALLS: usize = 1024;
/// After a call that could not be taken.
const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    async fn pair() -> (tempfile::TempDir, Line, Line) {
        let data = tempfile::tempdir().unwrap();
        // Deeper than a socket's path may be long.
        let deep = data.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let run = RunDir::open(&deep).unwrap();
        let process = Uuid::now_v7();
        let listener = run.bind(process).unwrap();
        let mode = std::fs::metadata(deep.join("run").join(socket_name(process))).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let called = Line::call(&run, process).await.unwrap();
        let answered = Line(listener.accept().await.unwrap().0);
        (data, called, answered)
    }

    #[tokio::test]
    async fn messages_and_descriptors_come_as_they_were_sent() {
        let (_data, mut one, mut other) = pair().await;
        assert_eq!(one.peer(), Some(std::process::id().cast_signed()));
        one.say(&Answer::Listeners { names: vec!["ssh".into()] }).await.unwrap();
        let files: Vec<_> = (0..130).map(|_| tempfile::tempfile().unwrap()).collect();
        (&files[129]).write_all(b"the last one").unwrap();
        let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        one.say_files(&borrowed).await.unwrap();
        one.say(&Order::Taken).await.unwrap();
        assert!(matches!(other.hear(MESSAGE).await.unwrap(), Answer::Listeners { names } if names == ["ssh"]));
        let mut received = other.hear_files(130).await.unwrap();
        assert!(matches!(other.hear(MESSAGE).await.unwrap(), Order::Taken));
        let mut last = File::from(received.pop().unwrap());
        let mut text = String::new();
        std::io::Seek::rewind(&mut last).unwrap();
        last.read_to_string(&mut text).unwrap();
        assert_eq!(text, "the last one");
    }

    #[test]
    fn what_a_version_before_says_is_understood() {
        let told: Answer = serde_json::from_str(r#"{"answer":"yours"}"#).unwrap();
        assert!(matches!(told, Answer::Yours { confirms: false }));
    }

    #[tokio::test]
    async fn an_end_a_lie_and_a_silence_are_errors() {
        let (_data, one, mut other) = pair().await;
        let silent = other.hear::<Order>(Duration::from_millis(1)).await.unwrap_err();
        assert_eq!(silent.kind(), io::ErrorKind::TimedOut);
        drop(one);
        assert_eq!(other.hear::<Order>(MESSAGE).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let (_data, mut one, mut other) = pair().await;
        one.0.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        assert_eq!(other.hear::<Order>(MESSAGE).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let (_data, mut one, other) = pair().await;
        one.say(&Order::Stop).await.unwrap();
        assert!(other.hear_files(1).await.is_err(), "a byte without a descriptor");
    }
}
