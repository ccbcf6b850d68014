//! The first bytes of a connection: the client's identification string (RFC 4253 section 4.2), looked at and left in
//! place. russh tells it only after sign-in, and the link page wants to show it before.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};

/// How long the line is waited for. A client may wait for ours first, so this is short.
const PATIENCE: Duration = Duration::from_millis(300);

/// The longest identification string, with its line end.
const LONGEST: usize = 255;

/// The client's software as it names itself, fit to show. `None` if what came first is not SSH: it was told so.
pub(super) async fn peek(stream: &TcpStream) -> Option<String> {
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = [0; LONGEST];
    loop {
        let Ok(Ok(read)) = timeout_at(deadline, stream.peek(&mut buffer)).await else { break };
        let seen = buffer.get(..read).unwrap_or_default();
        if read == 0 || !b"SSH-".starts_with(seen.get(..4).unwrap_or(seen)) {
            refuse(stream, seen).await;
            return None;
        }
        if let Some(end) = seen.iter().position(|byte| *byte == b'\n') {
            return Some(shown(seen.get(..end).unwrap_or_default()));
        }
        if read == LONGEST || Instant::now() >= deadline {
            break;
        }
        // What is there stays readable, so another peek would answer at once.
        sleep(Duration::from_millis(10)).await;
    }
    Some("unknown".into())
}

async fn refuse(stream: &TcpStream, seen: &[u8]) {
    tracing::debug!(first = ?seen.first(), "not an SSH client");
    // Before the identification string a server may send other lines (RFC 4253 section 4.2): any client can show this.
    let words = b"gatescribe: this port speaks SSH; connect with an ssh client\r\n";
    if stream.writable().await.is_ok() {
        let _ = stream.try_write(words);
    }
}

/// Printable ASCII only, for a page and a log.
fn shown(line: &[u8]) -> String {
    let text = line.strip_suffix(b"\r").unwrap_or(line).strip_prefix(b"SSH-2.0-").unwrap_or(line);
    text.iter().take(64).map(|byte| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '?' }).collect()
}
