//! What people do over SSH all day, with the tools that they do it with. See `real_life_clients` for other clients.

use std::fs;
use std::path::Path;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use gatescribe::store::{Event, EventStatus, Outcome, RecordingState, SessionRow};

use crate::harness::ssh::Done;
use crate::harness::{SOON, Ssh, gate, noise};

/// For a lot of data through a debug build.
const LONG: Duration = Duration::from_secs(150);

/// The SHA-256 of this, as events tell it.
pub fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What was told of single files, where `operation` was done.
pub fn files<'a>(row: &'a SessionRow, operation: &str) -> Vec<&'a Event> {
    let done = |event: &&Event| event.kind == "ssh_file" && event.metadata["operation"] == operation;
    row.events.iter().filter(done).collect()
}

/// Fails unless each recording of the row is complete.
#[track_caller]
pub fn assert_complete(row: &SessionRow) {
    assert!(row.recordings.iter().all(|recording| recording.state == RecordingState::Complete), "{row:?}");
}

async fn line(ssh: &Ssh, line: &str) -> Done {
    ssh.bash(line, LONG).await
}

/// Runs `git` there; its words are those that a person has.
fn git(dir: &Path, args: &str) -> String {
    let dir = dir.display();
    format!("git -C {dir} -c user.name=Alice -c user.email=alice@example.com -c init.defaultBranch=main {args}")
}

#[tokio::test]
async fn git_clones_pushes_and_pulls() {
    let (sshd, gateway, ssh) = gate().await;
    let (origin, first, second) = (sshd.path("origin.git"), ssh.path("first"), ssh.path("second"));
    let url = format!("ssh://web@gate{}", origin.display());
    let clone = |to: &Path| format!("git clone -q {url} {}", to.display());
    let here = ssh.path("");
    let commit = [
        git(&here, &format!("init -q --bare {}", origin.display())),
        clone(&first),
        format!("head -c 3000000 /dev/urandom > {}/data", first.display()),
        git(&first, "add data"),
        git(&first, "commit -q -m one"),
        git(&first, "push -q origin HEAD:main"),
        clone(&second),
        git(&first, "commit -q --allow-empty -m two"),
        git(&first, "push -q origin HEAD:main"),
        git(&second, "pull -q --ff-only origin main"),
        git(&second, "fsck --strict"),
    ];
    let done = line(&ssh, &format!("export GIT_SSH_COMMAND=\"$SSH\"; set -e; {}", commit.join("; "))).await;
    assert_eq!(done.status, Some(0), "{done:?}");
    assert_eq!(fs::read(first.join("data")).unwrap(), fs::read(second.join("data")).unwrap());
    let log = |dir: &Path| git(dir, "log --format=%H main");
    let same = line(&ssh, &format!("cmp <({}) <({})", log(&origin), log(&second))).await;
    assert_eq!(same.status, Some(0), "{same:?}");
    let api = gateway.admin().await;
    api.ended("web").await;
    let rows = api.rows("socket_name=web").await;
    let mut commands = Vec::new();
    for row in &rows {
        let row = api.end_of(row).await;
        assert_complete(&row);
        commands.extend(row.recordings.into_iter().filter_map(|recording| recording.command));
    }
    for command in ["git-upload-pack", "git-receive-pack"] {
        assert!(commands.iter().any(|told| told.starts_with(command)), "{commands:?}");
    }
}

#[tokio::test]
async fn rsync_goes_both_ways_and_names_every_file() {
    let (sshd, gateway, ssh) = gate().await;
    let (here, there, back) = (ssh.path("tree"), sshd.path("tree"), ssh.path("back"));
    fs::create_dir_all(here.join("deep/er")).unwrap();
    for n in 0..30 {
        fs::write(here.join(format!("deep/file {n}")), noise(n, 2000 * n as usize)).unwrap();
    }
    fs::write(here.join("deep/er/text"), "words ".repeat(20_000)).unwrap();
    std::os::unix::fs::symlink("deep", here.join("link")).unwrap();
    let paths = [&here, &there, &back].map(|path| path.display().to_string());
    let [here_, there_, back_] = &paths;
    let api = gateway.admin().await;

    let up = line(&ssh, &format!("rsync -e \"$SSH\" -a {here_}/ web@gate:{there_}/")).await;
    assert_eq!(up.status, Some(0), "{up:?}");
    same_trees(&ssh, here_, there_).await;
    let row = api.ended("web").await;
    assert_complete(&row);
    let written = files(&row, "write");
    for n in 0..30 {
        let name = format!("deep/file {n}");
        let named = |event: &&&Event| event.metadata["path"].as_str().is_some_and(|path| path.ends_with(&name));
        assert!(written.iter().any(|event| named(&event)), "{name} is not among {written:#?}");
    }

    // Something changes, something goes: compressed, and with what is no longer here removed there.
    fs::write(here.join("deep/er/text"), "other words ".repeat(15_000)).unwrap();
    fs::remove_file(here.join("deep/file 7")).unwrap();
    let up = line(&ssh, &format!("rsync -e \"$SSH\" -az --delete {here_}/ web@gate:{there_}/")).await;
    assert_eq!(up.status, Some(0), "{up:?}");
    same_trees(&ssh, here_, there_).await;
    for options in ["-a", "-az --delete"] {
        fs::create_dir_all(&back).unwrap();
        fs::write(back.join("surplus"), "").unwrap();
        let down = line(&ssh, &format!("rsync -e \"$SSH\" {options} web@gate:{there_}/ {back_}/")).await;
        assert_eq!(down.status, Some(0), "{down:?}");
        let row = api.ended("web").await;
        assert_complete(&row);
        assert_eq!(row.outcome, Some(Outcome::Closed));
    }
    assert!(!back.join("surplus").exists());
    same_trees(&ssh, here_, back_).await;
}

async fn same_trees(ssh: &Ssh, one: &str, other: &str) {
    let done = line(ssh, &format!("diff -r --no-dereference {one} {other}")).await;
    assert_eq!(done.status, Some(0), "{done:?}");
}

#[tokio::test]
async fn mosh_is_told_that_it_cannot_work() {
    let (_sshd, gateway, ssh) = gate().await;
    let mosh = format!("LC_ALL=C.UTF-8 TERM=xterm mosh --ssh='ssh -F {}' web@gate", ssh.path("config").display());
    let done = ssh.bash(&format!("{mosh} < /dev/null 2>&1"), SOON).await;
    let told = String::from_utf8_lossy(&done.stdout);
    assert!(told.contains("gatescribe: mosh does not work here") && told.contains("use ssh"), "{told}");
    assert_ne!(done.status, Some(0));
    let row = gateway.admin().await.ended("web").await;
    let denied = |event: &&Event| event.kind == "ssh_exec" && event.status == EventStatus::Denied;
    let event = row.events.iter().find(denied).unwrap_or_else(|| panic!("{row:?}"));
    assert!(event.metadata["command"].as_str().unwrap().starts_with("mosh-server "), "{event:?}");
    assert!(row.recordings.is_empty(), "nothing was started: {row:?}");
    // Only its start is refused.
    assert_eq!(ssh.run("web", "echo mosh-server new").await.ok(), "mosh-server new\n");
}

#[tokio::test]
async fn a_connection_without_any_channel_stays_until_it_is_killed() {
    let (_sshd, gateway, ssh) = gate().await;
    let api = gateway.admin().await;
    let mut nothing = ssh.start(&["-N", "-v", "web@gate"]);
    nothing.told("Entering interactive session").await;
    let row = api.live("web").await;
    // Somebody else's comes and goes in between.
    assert_eq!(ssh.run("web", "echo in").await.ok(), "in\n");
    assert!(nothing.child.try_wait().unwrap().is_none(), "{}", nothing.stderr());
    assert!(api.details(&row).await.outcome.is_none());
    api.kill(&row, "test over", SOON).await;
    let done = nothing.finish(SOON).await;
    assert_eq!(done.status, Some(255), "{done:?}");
    assert!(api.end_of(&row).await.recordings.is_empty());
}

#[tokio::test]
async fn options_that_scripts_give_mean_what_they_mean() {
    let (_sshd, gateway, ssh) = gate().await;
    // A terminal although there is none here.
    let done = ssh.bash("echo 'tty; exit 3' | $SSH -tt web@gate", SOON).await;
    assert_eq!(done.status, Some(3), "{done:?}");
    assert!(String::from_utf8_lossy(&done.stdout).contains("/dev/pts/"), "{done:?}");
    let done = ssh.bash("$SSH -o BatchMode=yes web@gate echo in < /dev/null", SOON).await;
    assert_eq!(done.ok(), "in\n");
    // Without anything to sign in with, it ends at once and says how.
    let stranger = Ssh::without_key(gateway.ssh);
    let done = stranger.bash("$SSH -o BatchMode=yes web@gate true < /dev/null", SOON).await;
    assert_eq!(done.status, Some(255), "{done:?}");
    assert!(done.stderr.contains("Permission denied") && done.stderr.contains("`gatescribe login`"), "{done:?}");
    let send = "GREETING='good day' LC_TIME=C $SSH -o 'SendEnv GREETING LC_*' web@gate 'echo \"$GREETING\" $LC_TIME'";
    assert_eq!(ssh.bash(send, SOON).await.ok(), "good day C\n");
}

#[tokio::test]
async fn keys_are_exchanged_again_and_again_under_load() {
    let (_sshd, gateway, ssh) = gate().await;
    let data = ssh.path("data");
    let sent = noise(1, 50 << 20);
    fs::write(&data, &sent).unwrap();
    let through = format!("$SSH -v -o RekeyLimit=1M web@gate cat < {} | sha256sum", data.display());
    let done = line(&ssh, &through).await;
    assert_eq!(done.status, Some(0), "{done:?}");
    assert!(done.stdout.starts_with(sha256(&sent).as_bytes()), "something else came back");
    let exchanges = done.stderr.matches("SSH2_MSG_NEWKEYS received").count();
    assert!(exchanges >= 50, "{exchanges} key exchanges");
    assert_complete(&gateway.admin().await.ended("web").await);
}

#[tokio::test]
async fn an_idle_connection_is_kept_alive_by_the_clients_questions() {
    let (_sshd, _gateway, ssh) = gate().await;
    // Without answers, ssh would give up after two seconds.
    let line = "$SSH -vvv -o ServerAliveInterval=1 -o ServerAliveCountMax=2 web@gate 'sleep 5; echo awake'";
    let done = ssh.bash(line, SOON).await;
    // REQUEST_FAILURE, the answer to a question that means nothing more.
    assert!(done.stderr.matches("receive packet: type 82").count() >= 3, "{done:?}");
    assert_eq!(done.ok(), "awake\n");
}

#[tokio::test]
async fn sftp_with_sixty_four_requests_in_flight_sums_up_what_passed() {
    let (sshd, gateway, ssh) = gate().await;
    let (up, there, down) = (ssh.path("up"), sshd.path("there"), ssh.path("down"));
    let sent = noise(2, 30 << 20);
    fs::write(&up, &sent).unwrap();
    let batch = format!("put {} {there}\nget {there} {}\n", up.display(), down.display(), there = there.display());
    let sftp = format!("sftp -F {} -q -R 64 -B 32768 -b - web@gate", ssh.path("config").display());
    let done = line(&ssh, &format!("printf '{}' | {sftp}", batch.replace('\n', "\\n"))).await;
    assert_eq!(done.status, Some(0), "{done:?}");
    assert!(fs::read(&there).unwrap() == sent && fs::read(&down).unwrap() == sent);
    let row = gateway.admin().await.ended("web").await;
    assert_complete(&row);
    for (operation, count) in [("write", "bytes_written"), ("read", "bytes_read")] {
        let told = files(&row, operation);
        assert_eq!(told.len(), 1, "{:#?}", row.events);
        assert_eq!(told[0].metadata[count], sent.len(), "{told:?}");
        assert_eq!(told[0].metadata["sha256"], sha256(&sent), "{told:?}");
    }
}
