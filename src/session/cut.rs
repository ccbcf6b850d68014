//! A stream that dies with its kill line, whatever its user is doing.
//!
//! Protocol libraries hold their stream for as long as they like: measured on russh 0.65, dropping the server's future
//! ends nothing, and a disconnect waits behind a client that does not read. So the bytes are cut below the library:
//! once the line is cut every poll fails, and on drop the connection is reset, so that a peer that has stopped reading
//! is not left with a full buffer and an open socket.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::KillLine;

/// A TCP stream on a kill line.
pub struct Cut {
    stream: TcpStream,
    line: KillLine,
    // One future per direction: halves of the stream may be polled by two tasks, and a future keeps one waker.
    reading: Pin<Box<WaitForCancellationFutureOwned>>,
    writing: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Cut {
    /// Puts `stream` on `line`.
    pub fn new(stream: TcpStream, line: &KillLine) -> Self {
        Self {
            stream,
            line: line.clone(),
            reading: Box::pin(line.token().cancelled_owned()),
            writing: Box::pin(line.token().cancelled_owned()),
        }
    }

    fn poll_line(waiting: &mut Pin<Box<WaitForCancellationFutureOwned>>, cx: &mut Context<'_>) -> io::Result<()> {
        match waiting.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Cut {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Self::poll_line(&mut self.reading, cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Cut {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Self::poll_line(&mut self.writing, cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Self::poll_line(&mut self.writing, cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        if self.line.is_cut() {
            // Reset rather than close: what is queued for a peer that does not read is thrown away with the connection.
            let _ = rustix::net::sockopt::set_socket_linger(&self.stream, Some(std::time::Duration::ZERO));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn pair(line: &KillLine) -> (Cut, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (peer, ours) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (Cut::new(ours.unwrap().0, line), peer.unwrap())
    }

    #[tokio::test]
    async fn a_cut_wakes_a_writer_whose_peer_does_not_read() {
        let line = KillLine::new();
        let (mut ours, mut peer) = pair(&line.child()).await;
        let writer = tokio::spawn(async move {
            loop {
                ours.write_all(&[0; 65536]).await?;
            }
            #[expect(unreachable_code, reason = "names the error type")]
            Ok::<(), io::Error>(())
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!writer.is_finished(), "the peer reads nothing, so the writer must be waiting");
        line.cut();
        let ended = tokio::time::timeout(Duration::from_secs(1), writer).await.expect("the cut must wake the writer");
        assert!(ended.unwrap().is_err());
        // The reset throws away what was queued: the peer never gets to a clean end.
        let mut sink = Vec::new();
        assert!(peer.read_to_end(&mut sink).await.is_err());
    }

    #[tokio::test]
    async fn without_a_cut_bytes_pass_and_the_end_is_clean() {
        let (mut ours, mut peer) = pair(&KillLine::new()).await;
        ours.write_all(b"hello").await.unwrap();
        drop(ours);
        let mut got = Vec::new();
        peer.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"hello");
    }
}
