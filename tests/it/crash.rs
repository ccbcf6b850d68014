//! SIGKILL in the middle of traffic: what anybody had received is in the recording, and the next start closes the book.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use gatescribe::record::observation::{Direction, What};
use gatescribe::store::{Outcome, RecordingState, SessionRow};

use crate::harness::recordings::{self, Recorded};
use crate::harness::{Api, Gateway, SOON, Setup, Ssh, Sshd, noise};

const ROUNDS: u64 = 20;

#[tokio::test]
async fn a_crash_loses_nothing_that_anybody_received() {
    let sshd = Sshd::start().await;
    let mut gateway = Setup::new().ssh("web", &sshd).start().await;
    let ssh = gateway.signed_in("alice", "web").await;
    let token = gateway.admin().await;
    let mut seen: HashSet<_> = token.rows("").await.iter().map(|row| row.session_id).collect();
    for round in 0..ROUNDS {
        let loop_forever = "while :; do date +%N; done";
        let mut terminal = ssh.terminal(&["-o", "LogLevel=QUIET", "-tt", "web@gate", loop_forever]);
        terminal.expect("\n").await;
        let traffic = Traffic::start(&ssh, sshd.path(&format!("written-{round}")), round).await;
        // Anywhere between the first bytes and the middle of a flood, and never at the same moment twice.
        tokio::time::sleep(Duration::from_millis(noise(round, 1)[0] as u64 * 3)).await;
        gateway.crash();
        let received = traffic.end().await;
        terminal.wait(SOON).await;
        // `ssh` itself says at the end that the connection is closed, even when it was asked to be quiet.
        let shown = terminal.bytes();
        let end = shown.windows(14).rposition(|bytes| bytes == b"Connection to ").unwrap_or(shown.len());
        let shown = shown[..end].trim_ascii_end().to_vec();
        gateway.start_again().await;
        let api = gateway.admin().await;
        let rows: Vec<_> = api.rows("").await.into_iter().filter(|row| seen.insert(row.session_id)).collect();
        assert_eq!(rows.len(), 2, "round {round}");
        for row in rows {
            check(&gateway, &api, &row, &received, &shown).await;
        }
    }
}

/// One `tee` at the upstream: what goes in is written to a file there and comes back.
struct Traffic {
    file: PathBuf,
    received: tokio::task::JoinHandle<Vec<u8>>,
    feed: tokio::task::JoinHandle<()>,
}

struct Received {
    by_client: Vec<u8>,
    by_target: Vec<u8>,
}

impl Traffic {
    async fn start(ssh: &Ssh, file: PathBuf, seed: u64) -> Self {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut tee = ssh.start(&["web@gate", &format!("tee {}", file.display())]);
        let mut stdin = tee.stdin.take().unwrap();
        let feed = tokio::spawn(async move {
            // Pieces of every size, without an end.
            for piece in 0.. {
                let length = 1 + usize::from(noise(piece, 1)[0]) * 256;
                if stdin.write_all(&noise(seed << 32 | piece, length)).await.is_err() {
                    return;
                }
            }
        });
        let first = tee.receive(1).await;
        let received = tokio::spawn(async move {
            let mut all = first;
            let mut stdout = tee.stdout.take().unwrap();
            let _ = stdout.read_to_end(&mut all).await;
            let _ = tee.child.wait().await;
            all
        });
        Self { file, received, feed }
    }

    async fn end(self) -> Received {
        let by_client =
            tokio::time::timeout(SOON, self.received).await.expect("ssh ends when the gateway dies").unwrap();
        self.feed.abort();
        // The server's own process has what the gateway forwarded; give it the moment it needs to write that down.
        let mut by_target = std::fs::read(&self.file).unwrap();
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = std::fs::read(&self.file).unwrap();
            if now.len() == by_target.len() {
                return Received { by_client, by_target };
            }
            by_target = now;
        }
    }
}

async fn check(gateway: &Gateway, api: &Api, row: &SessionRow, received: &Received, shown: &[u8]) {
    let row = api.end_of(row).await;
    assert_eq!(row.outcome, Some(Outcome::Crashed), "{row:?}");
    assert!(row.end_time.is_some() && row.end_reason.is_some());
    assert_eq!(row.recordings.len(), 1, "{row:?}");
    let recording = &row.recordings[0];
    assert_eq!(recording.state, RecordingState::Truncated, "{row:?}");
    let Recorded { observations, .. } = recordings::read(&gateway.data(), row.session_id, recording).await;
    let bytes = |direction| recordings::bytes(&observations, direction, 0);
    let (input, output) = (bytes(Direction::Input), bytes(Direction::Output));
    let is_terminal = observations.iter().any(|o| matches!(o.what, What::Pty { .. }));
    match is_terminal {
        true => assert!(
            output.starts_with(shown),
            "the terminal showed {} bytes, {} are recorded",
            shown.len(),
            output.len()
        ),
        false => {
            assert!(
                output.starts_with(&received.by_client),
                "{} received, {} recorded",
                received.by_client.len(),
                output.len()
            );
            assert!(
                input.starts_with(&received.by_target),
                "{} written, {} recorded",
                received.by_target.len(),
                input.len()
            );
        }
    }
    let cast = api.log(&row, Some(recording.recording_id), "cast").await.ok();
    assert!(
        cast.starts_with(b"{\"version\": 2") || cast.starts_with(b"{\"version\":2"),
        "{:?}",
        &cast[..40.min(cast.len())]
    );
    assert!(!api.log(&row, Some(recording.recording_id), "raw").await.ok().is_empty());
}

#[tokio::test]
async fn what_began_before_the_crash_is_closed_and_new_sessions_are_let_in() {
    let sshd = Sshd::start().await;
    let mut gateway = Setup::new().ssh("web", &sshd).start().await;
    let ssh = gateway.signed_in("alice", "web").await;
    let mut waiting = Ssh::new(gateway.ssh).sign_in(&["web@gate", "true"]).await;
    let mut cat = ssh.start(&["web@gate", "cat"]);
    cat.send(b"a").await;
    cat.receive(1).await;
    gateway.crash();
    gateway.start_again().await;
    let api = gateway.admin().await;
    assert!(api.rows("live=true").await.is_empty());
    assert_eq!(api.newest("web").await.outcome, Some(Outcome::Crashed));
    // A link dies with the gateway that showed it.
    let page = gateway.browser().sign_in(&waiting.link, "alice").await;
    assert!(page.find_form("approve").is_none(), "{page:?}");
    waiting.ssh.child.kill().await.unwrap();
    assert_eq!(ssh.run("web", "true").await.status, Some(0));
}
