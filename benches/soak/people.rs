//! What each person does, again and again, until the time is up.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gatescribe::store::{AuthResult, Outcome, SessionRow};
use rustix::process::Signal;
use uuid::Uuid;

use crate::Soak;
use crate::harness::{SOON, process};

type Person = fn(Arc<Soak>, Arc<Work>) -> Pin<Box<dyn Future<Output = ()>>>;

/// Their names, in the order of [`Work::line`].
pub const NAMES: [&str; 8] = ["commands", "edits", "downloads", "uploads", "refusals", "kills", "vanished", "replays"];

/// Everybody.
pub const ALL: [Person; 8] = [
    |soak, work| Box::pin(commands(soak, work)),
    |soak, work| Box::pin(edits(soak, work)),
    |soak, work| Box::pin(downloads(soak, work)),
    |soak, work| Box::pin(uploads(soak, work)),
    |soak, work| Box::pin(refusals(soak, work)),
    |soak, work| Box::pin(kills(soak, work)),
    |soak, work| Box::pin(vanishes(soak, work)),
    |soak, work| Box::pin(replays(soak, work)),
];

/// No transfer takes longer.
const LONG: Duration = Duration::from_secs(300);

/// How much was done, and how the rows that are special must have ended.
#[derive(Default)]
pub struct Work {
    done: [AtomicUsize; NAMES.len()],
    killed: Mutex<HashMap<Uuid, ()>>,
    vanished: AtomicUsize,
    found_gone: AtomicUsize,
}

impl Work {
    fn did(&self, what: &str) {
        let index = NAMES.iter().position(|name| *name == what).unwrap();
        self.done[index].fetch_add(1, Ordering::Relaxed);
    }

    /// The counts, as cells of a table.
    pub fn line(&self) -> String {
        self.done.each_ref().map(|n| n.load(Ordering::Relaxed).to_string()).join(" | ")
    }

    /// Whether a row ended as it must.
    pub fn check(&self, row: &SessionRow) {
        let killed = self.killed.lock().unwrap().contains_key(&row.session_id);
        let as_expected = match row.outcome {
            Some(Outcome::Killed) => killed,
            Some(Outcome::Refused) => row.result == AuthResult::Denied,
            Some(Outcome::ClientGone) => {
                self.found_gone.fetch_add(1, Ordering::Relaxed) < self.vanished.load(Ordering::Relaxed)
            }
            Some(Outcome::Closed) => !killed,
            _ => false,
        };
        assert!(as_expected, "this row ended in a way nobody caused: {row:?}");
    }
}

async fn commands(soak: Arc<Soak>, work: Arc<Work>) {
    for n in 0_u64.. {
        if Instant::now() > soak.until {
            return;
        }
        let command = format!("echo {n}; ls -la /etc | head -50; echo err >&2; exit {}", n % 5);
        let done = soak.alice.run("web", &command).await;
        assert_eq!(done.status, Some((n % 5) as i32), "{done:?}");
        assert!(done.stdout.starts_with(format!("{n}\n").as_bytes()) && done.stderr.contains("err"), "{done:?}");
        work.did("commands");
    }
}

/// A shell with an editor in it, typed at a person's speed.
async fn edits(soak: Arc<Soak>, work: Arc<Work>) {
    for n in 0.. {
        if Instant::now() > soak.until {
            return;
        }
        let file = soak.target.path(&format!("note.{}", n % 10));
        let mut terminal = soak.alice.terminal(&["-tt", "web@gate"]);
        // What is typed comes back too, and a prompt may hold anything: only the shell itself puts this together.
        terminal.send("PS1='rea''dy> '\r");
        terminal.expect("ready> ").await;
        terminal.send(&format!("rm -f {0}; vim -u NONE -n {0}\r", file.display()));
        terminal.expect("[New").await;
        terminal.resize(100, 30);
        terminal.send("i");
        for word in ["the ", "quick ", "brown ", "fox ", "\u{1f98a} ", "ünïcödé"] {
            terminal.send(word);
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        terminal.send("\x1b");
        tokio::time::sleep(Duration::from_millis(200)).await;
        terminal.send(":wq\r");
        terminal.expect("ready> ").await;
        terminal.send("exit\r");
        terminal.wait(SOON).await;
        let written = std::fs::read_to_string(&file).unwrap();
        assert_eq!(written.trim_end(), "the quick brown fox \u{1f98a} ünïcödé");
        work.did("edits");
    }
}

async fn downloads(soak: Arc<Soak>, work: Arc<Work>) {
    for n in 0.. {
        if Instant::now() > soak.until {
            return;
        }
        let size = [1_000, 300_000, 20_000_000][n % 3];
        let line = format!("$SSH web@gate 'head -c {size} /dev/urandom | tee >(cksum >&2)' | cksum");
        let done = soak.alice.bash(&line, LONG).await;
        let sent = done.stderr.lines().find(|line| line.ends_with(&format!(" {size}"))).map(str::to_owned);
        assert_eq!(sent.as_deref(), Some(done.ok().trim()), "download of {size}");
        work.did("downloads");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn uploads(soak: Arc<Soak>, work: Arc<Work>) {
    for n in 0.. {
        if Instant::now() > soak.until {
            return;
        }
        let size = [1_000, 300_000, 20_000_000][n % 3];
        let line = format!("head -c {size} /dev/urandom | tee >(cksum >&2) | $SSH web@gate cksum");
        let done = soak.alice.bash(&line, LONG).await;
        let sent = done.stderr.lines().find(|line| line.ends_with(&format!(" {size}"))).map(str::to_owned);
        assert_eq!(sent.as_deref(), Some(done.ok().trim()), "upload of {size}");
        work.did("uploads");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// A contractor tries what only engineers may.
async fn refusals(soak: Arc<Soak>, work: Arc<Work>) {
    while Instant::now() < soak.until {
        let refused = soak.bob.run("web", "id").await;
        assert!(refused.status != Some(0) && refused.stdout.is_empty(), "{refused:?}");
        assert_eq!(soak.bob.run("web", "date").await.status, Some(0));
        work.did("refusals");
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
}

/// A flood is ended by an administrator.
async fn kills(soak: Arc<Soak>, work: Arc<Work>) {
    let api = soak.gateway.admin().await;
    while Instant::now() < soak.until {
        let marker = format!("marker-{}", Uuid::now_v7());
        let mut flood =
            soak.alice.start(&["web@gate", &format!("echo {marker}; yes $(head -c 300 /dev/zero | tr '\\0' x)")]);
        flood.receive_line().await;
        let rows = api.rows("live=true&page_size=50").await;
        for row in rows {
            let details = api.details(&row).await;
            if details.recordings.iter().any(|r| r.command.as_ref().is_some_and(|c| c.contains(&marker))) {
                work.killed.lock().unwrap().insert(row.session_id, ());
                let answer = api.kill(&row, "soak", SOON).await;
                drop(answer);
            }
        }
        let done = flood.finish(SOON).await;
        assert_ne!(done.status, Some(0), "a killed command is no success");
        work.did("kills");
        tokio::time::sleep(Duration::from_millis(900)).await;
    }
}

/// A client is gone from one moment to the next.
async fn vanishes(soak: Arc<Soak>, work: Arc<Work>) {
    while Instant::now() < soak.until {
        let mut ssh = soak.alice.start(&["web@gate", "echo up; exec cat"]);
        ssh.receive_line().await;
        ssh.send(b"last words\n").await;
        ssh.receive_line().await;
        work.vanished.fetch_add(1, Ordering::Relaxed);
        process::signal(ssh.pid(), Signal::KILL);
        let _ = ssh.child.wait().await;
        work.did("vanished");
        tokio::time::sleep(Duration::from_millis(800)).await;
    }
}

/// Security looks at what happened, in every format.
async fn replays(soak: Arc<Soak>, work: Arc<Work>) {
    let api = soak.gateway.admin().await;
    for n in 0.. {
        if Instant::now() > soak.until {
            return;
        }
        let page = n % 5 + 1;
        for row in api.rows(&format!("page={page}&page_size=3&result=success")).await {
            let details = api.details(&row).await;
            for recording in &details.recordings {
                if recording.size.is_some_and(|size| size > 4 << 20) {
                    continue;
                }
                for format in ["cast", "cast3", "text", "text&view=all"] {
                    let answer = api.log(&row, Some(recording.recording_id), format).await;
                    assert_eq!(answer.status.as_u16(), 200, "{format} of {recording:?}");
                }
            }
        }
        work.did("replays");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
