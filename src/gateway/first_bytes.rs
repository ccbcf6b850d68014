//! Which protocol a client speaks, told from the first bytes that it sends, which stay where they are.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};

/// How long the first bytes are waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Between two looks at a beginning that is not enough.
const PAUSE: Duration = Duration::from_millis(10);

/// What every SSH client's first line begins with (RFC 4253 section 4.2).
const SSH: &[u8] = b"SSH-";

/// A TLS record with a handshake message, of version 3 in whatever minor one (RFC 8446 section 5.1).
const TLS: &[u8] = &[0x16, 0x03];

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    Ssh,
    Tls,
}

/// What the client of this connection speaks; `None` if that is nothing that is served here, or the connection is gone.
/// An SSH client may wait for the server's line first, so silence is taken for one. Cancel safe.
pub(super) async fn look(stream: &TcpStream) -> Option<Spoken> {
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = [0; 4];
    loop {
        let seen = match timeout_at(deadline, stream.peek(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => return None,
            Ok(Ok(seen)) => buffer.get(..seen).unwrap_or_default(),
            Err(_) => return Some(Spoken::Ssh),
        };
        match judge(seen) {
            Judged::Told(spoken) => return spoken,
            Judged::Open if Instant::now() >= deadline => return None,
            // What is there stays readable, so another look would answer at once.
            Judged::Open => sleep(PAUSE).await,
        }
    }
}

/// What can be said of a beginning.
#[derive(Debug, PartialEq, Eq)]
enum Judged {
    Told(Option<Spoken>),
    Open,
}

fn judge(seen: &[u8]) -> Judged {
    for (start, spoken) in [(SSH, Spoken::Ssh), (TLS, Spoken::Tls)] {
        if seen.starts_with(start) {
            return Judged::Told(Some(spoken));
        }
        if start.starts_with(seen) {
            return Judged::Open;
        }
    }
    Judged::Told(None)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn protocols_are_told_apart_by_how_they_begin() {
        let table: [(&[u8], Judged); 9] = [
            (b"", Judged::Open),
            (b"S", Judged::Open),
            (b"SSH", Judged::Open),
            (b"SSH-", Judged::Told(Some(Spoken::Ssh))),
            (&[0x16], Judged::Open),
            (&[0x16, 0x03, 0x01, 0x02], Judged::Told(Some(Spoken::Tls))),
            (&[0x16, 0x02], Judged::Told(None)),
            (b"SSL-", Judged::Told(None)),
            (b"GET ", Judged::Told(None)),
        ];
        for (seen, judged) in table {
            assert_eq!(judge(seen), judged, "{seen:?}");
        }
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, ours) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (client.unwrap(), ours.unwrap().0)
    }

    #[tokio::test]
    async fn a_beginning_in_pieces_is_waited_for_and_left_in_place() {
        let (mut client, ours) = pair().await;
        client.write_all(b"SS").await.unwrap();
        let (found, ()) = tokio::join!(look(&ours), async {
            tokio::task::yield_now().await;
            client.write_all(b"H-2.0-x\r\n").await.unwrap();
        });
        assert_eq!(found, Some(Spoken::Ssh));
        let mut first = [0; 7];
        assert_eq!(ours.peek(&mut first).await.unwrap(), 7);
        assert_eq!(&first, b"SSH-2.0");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_an_ssh_client_and_an_end_is_nobody() {
        let (client, ours) = pair().await;
        assert_eq!(look(&ours).await, Some(Spoken::Ssh));
        drop(client);
        assert_eq!(look(&ours).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_beginning_is_nobody_in_the_end() {
        let (mut client, ours) = pair().await;
        client.write_all(&[0x16]).await.unwrap();
        assert_eq!(look(&ours).await, None);
    }
}
