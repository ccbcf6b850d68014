//! A line that is long or narrow: whatever goes through arrives later, or no faster than so many bytes a second.
//!
//! Only data is delayed, not the acknowledgements of the kernel's loopback TCP; so this measures windows and round
//! trips of the protocol above, not TCP's congestion control.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// Pieces on their way, in one direction of one connection: 16 MiB, at 15 ms more than a gigabyte a second. A narrow
/// line holds few, because what waits there would look taken.
const PIECE: usize = 64 << 10;
const ON_THE_WAY: usize = 256;
const IN_THE_BOTTLENECK: usize = 4;

/// The line, as a port that leads to another.
pub struct Line {
    pub port: u16,
    task: JoinHandle<()>,
}

impl Line {
    /// A line to this port of loopback: what is sent arrives `delay` later, at most `rate` bytes per second each way.
    pub async fn start(to: u16, delay: Duration, rate: Option<u64>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await else { continue };
                for stream in [&near, &far] {
                    let _ = stream.set_nodelay(true);
                }
                let (near, far) = (near.into_split(), far.into_split());
                carry(near.0, far.1, delay, rate);
                carry(far.0, near.1, delay, rate);
            }
        });
        Self { port, task }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One direction. Its end arrives as late as its data.
fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration, rate: Option<u64>) {
    let (sender, mut arriving) = mpsc::channel(if rate.is_some() { IN_THE_BOTTLENECK } else { ON_THE_WAY });
    tokio::spawn(async move {
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            let read = from.read_buf(&mut piece).await;
            if sender.send((Instant::now() + delay, piece)).await.is_err() || !matches!(read, Ok(1..)) {
                return;
            }
        }
    });
    tokio::spawn(async move {
        let mut free = Instant::now();
        while let Some((due, piece)) = arriving.recv().await {
            sleep_until(due.max(free)).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
            if let Some(rate) = rate {
                free = Instant::now().max(free) + Duration::from_secs_f64(piece.len() as f64 / rate as f64);
            }
        }
        let _ = to.shutdown().await;
    });
}
