//! An upgrade in the middle of a transfer each way, checked by its sum, and of an open vim: nothing is lost, nothing ends.

use std::fs;
use std::time::{Duration, Instant};

use gatescribe::store::{Outcome, RecordingState};
use rustix::process::Signal;

use crate::harness::{Gateway, SOON, Setup, Sshd, eventually, process};

/// No transfer takes longer.
const LONG: Duration = Duration::from_secs(600);

pub async fn upgrade(bytes: u64) {
    let sshd = Sshd::start().await;
    let gateway = Setup::new().ssh("web", &sshd).start().await;
    let ssh = gateway.signed_in("alice", "web").await;
    let text = sshd.path("text");
    let mut vim = ssh.terminal(&["-t", "web@gate", &format!("vim -u NONE -n {}", text.display())]);
    vim.expect("~").await;
    vim.send("ityped before,");
    vim.expect("typed before,").await;
    let noise = format!("head -c {bytes} /dev/urandom | tee >(cksum >&2)");
    let (down, up) = (format!("$SSH web@gate '{noise}' | cksum"), format!("{noise} | $SSH web@gate cksum"));
    let begin = Instant::now();
    let change = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let begin = Instant::now();
        let new = replaced(&gateway).await;
        (new, begin.elapsed())
    };
    let (down, up, (new, took)) = tokio::join!(ssh.bash(&down, LONG), ssh.bash(&up, LONG), change);
    let moved = begin.elapsed();
    assert!(process::is_alive(gateway.pid()), "the old process serves what it has: vim");
    for (way, done) in [("down", down), ("up", up)] {
        let sent = done.stderr.lines().find(|line| line.ends_with(&format!(" {bytes}"))).map(str::to_owned);
        assert_eq!(sent.as_deref(), Some(done.ok().trim()), "{way}");
    }
    vim.send(" and after\x1b:wq\r");
    assert!(vim.wait(SOON).await.success());
    assert_eq!(fs::read_to_string(text).unwrap(), "typed before, and after\n");
    eventually("the old process ends", SOON, async || (!process::is_alive(gateway.pid())).then_some(())).await;
    let rows = gateway.admin().await.rows("").await;
    assert!(rows.iter().all(|row| row.outcome == Some(Outcome::Closed)), "{rows:?}");
    assert!(rows.iter().flat_map(|row| &row.recordings).all(|r| r.state == RecordingState::Complete), "{rows:?}");
    process::signal(new, Signal::KILL);
    println!("\n| upgrade in the middle of {bytes} bytes each way, and of an open vim | |\n| --- | --- |");
    println!("| until the new process was ready | {:.2} s |", took.as_secs_f64());
    println!("| both transfers | {:.1} s, sums right, all rows closed, all recordings complete |", moved.as_secs_f64());
}

/// Has the gateway's process replaced by a new one; its process id.
async fn replaced(gateway: &Gateway) -> u32 {
    let config = gateway.config_file().display().to_string();
    let readies = || gateway.stdout().iter().filter(|line| *line == "ready").count();
    let ready = readies();
    process::signal(gateway.pid(), Signal::USR2);
    eventually("the new process is ready", SOON, async || (readies() > ready).then_some(())).await;
    process::with_argument(&config).into_iter().find(|pid| *pid != gateway.pid()).unwrap()
}
