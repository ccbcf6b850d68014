//! A TCP connection from the gateway's own host, in two halves.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Said, UpstreamError};
use crate::session::{Cut, KillLine};

/// For the connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// How much is read at once.
const READ: usize = 32 * 1024;

/// The sending half.
pub struct Input {
    write: WriteHalf<Cut>,
    closed: CancellationToken,
}

/// The receiving half.
pub struct Output {
    read: ReadHalf<Cut>,
    state: State,
    /// Nothing is sent any more either.
    closed: CancellationToken,
}

enum State {
    Open,
    /// The other side sends no more, and may still read (half-closed).
    Ended,
    Failed,
}

/// Connects to the first of these addresses that answers, on a child of `line`.
pub(super) async fn connect(
    addresses: &[SocketAddr],
    line: &KillLine,
) -> Result<(super::Input, super::Output), UpstreamError> {
    let failed = || UpstreamError::new("that cannot be reached from the gateway");
    let stream = timeout(CONNECT_DEADLINE, TcpStream::connect(addresses)).await;
    let stream = stream.map_err(|_| failed())?.map_err(|_| failed())?;
    stream.set_nodelay(true).map_err(|_| failed())?;
    let (read, write) = split(Cut::new(stream, &line.child()));
    let closed = CancellationToken::new();
    let input = Input { write, closed: closed.clone() };
    Ok((super::Input::Tcp(input), super::Output::Tcp(Output { read, state: State::Open, closed })))
}

impl Input {
    pub(super) async fn send(&mut self, data: Bytes) -> Result<(), UpstreamError> {
        self.write.write_all(&data).await.map_err(|_| UpstreamError::lost())
    }

    pub(super) async fn eof(&mut self) -> Result<(), UpstreamError> {
        self.closed.cancel();
        self.write.shutdown().await.map_err(|_| UpstreamError::lost())
    }
}

impl Output {
    /// Ends once both directions have. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Said> {
        match self.state {
            State::Open => {}
            State::Ended => {
                self.closed.cancelled().await;
                return None;
            }
            State::Failed => return None,
        }
        let mut buffer = BytesMut::with_capacity(READ);
        match self.read.read_buf(&mut buffer).await {
            Ok(0) => {
                self.state = State::Ended;
                Some(Said::Eof)
            }
            Ok(_) => Some(Said::Data(0, buffer.freeze())),
            Err(_) => {
                self.state = State::Failed;
                None
            }
        }
    }
}
