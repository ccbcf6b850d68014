//! Upgrades under load: a new process takes over, the old one keeps its sessions, and both answer for one book.

use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use gatescribe::store::{Event, EventStatus, Outcome, RecordingRow, RecordingState, SessionRow, Store};
use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::ssh::Running;
use crate::harness::{Gateway, SOON, Setup, Ssh, Sshd, eventually, free_port, gate, noise, process, within};

/// What is downloaded across an upgrade.
const FILE: usize = 100 << 20;

/// Far more than a kill takes, far less than any timeout that would end the session by itself.
const AT_ONCE: Duration = Duration::from_secs(4);

/// The processes of one gateway, found by its configuration file. Dropping it ends them all.
struct Family {
    config: String,
}

impl Family {
    fn of(gateway: &Gateway) -> Self {
        Self { config: gateway.config_file().display().to_string() }
    }

    fn pids(&self) -> Vec<u32> {
        process::with_argument(&self.config)
    }

    /// Has the newest process replaced by another one; its process id.
    async fn upgrade(&self, gateway: &Gateway, newest: u32) -> u32 {
        let (before, ready) = (self.pids(), readies(gateway));
        process::signal(newest, Signal::USR2);
        eventually("the new process is ready", SOON, async || (readies(gateway) > ready).then_some(())).await;
        let new: Vec<u32> = self.pids().into_iter().filter(|pid| !before.contains(pid)).collect();
        assert_eq!(new.len(), 1, "{new:?} beside {before:?}");
        new[0]
    }

    /// A process that a signal has started, as soon as it is there.
    async fn another_than(&self, known: &[u32]) -> u32 {
        eventually("a new process", SOON, async || self.pids().into_iter().find(|pid| !known.contains(pid))).await
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        self.pids().into_iter().for_each(|pid| process::signal(pid, Signal::KILL));
    }
}

fn readies(gateway: &Gateway) -> usize {
    gateway.stdout().iter().filter(|line| *line == "ready").count()
}

async fn gone(pid: u32) {
    eventually("the old process ends", SOON, async || (!process::is_alive(pid)).then_some(())).await;
}

/// `serve` with the gateway's configuration, to its end.
fn serve(gateway: &Gateway, more: &[&str]) -> Output {
    let config = gateway.config_file().display().to_string();
    let mut command = Command::new("timeout");
    command.args(["30", env!("CARGO_BIN_EXE_gatescribe"), "serve", "--config", &config]).args(more).output().unwrap()
}

/// A session that echoes, and has echoed.
async fn echo(ssh: &Ssh) -> Running {
    let mut cat = ssh.start(&["web@gate", "cat"]);
    cat.send(b"a").await;
    assert_eq!(cat.receive(1).await, b"a");
    cat
}

async fn echoes(cat: &mut Running) {
    cat.send(b"more").await;
    assert_eq!(cat.receive(4).await, b"more");
}

#[tokio::test]
async fn a_transfer_and_an_open_vim_go_on_across_an_upgrade() {
    let (sshd, gateway, ssh) = gate().await;
    let family = Family::of(&gateway);
    let data = noise(7, FILE);
    fs::write(sshd.path("big"), &data).unwrap();
    let mut transfer = ssh.start(&["web@gate", &format!("cat {}", sshd.path("big").display())]);
    let mut received = transfer.receive(8 << 20).await;
    let text = sshd.path("text");
    let mut vim = ssh.terminal(&["-t", "web@gate", &format!("vim -u NONE -n {}", text.display())]);
    vim.expect("~").await;
    vim.send("ityped before,");
    vim.expect("typed before,").await;

    family.upgrade(&gateway, gateway.pid()).await;
    vim.send(" and after");
    vim.expect("after").await;
    let rest = within(Duration::from_secs(60), "the rest of the transfer", async {
        let mut rest = Vec::new();
        transfer.stdout.as_mut().unwrap().read_to_end(&mut rest).await.unwrap();
        rest
    });
    received.extend(rest.await);
    assert!(received == data, "{} of {} bytes, or others", received.len(), data.len());
    vim.send("\x1b:wq\r");
    assert!(vim.wait(SOON).await.success());
    assert_eq!(fs::read_to_string(text).unwrap(), "typed before, and after\n");
    assert_eq!(transfer.finish(SOON).await.status, Some(0));
    gone(gateway.pid()).await;
    let rows = gateway.admin().await.rows("").await;
    assert!(rows.iter().all(|row| row.outcome == Some(Outcome::Closed)), "{rows:?}");
    assert!(rows.iter().flat_map(|row| &row.recordings).all(|r| r.state == RecordingState::Complete), "{rows:?}");
}

#[tokio::test]
async fn a_download_from_the_old_process_goes_on_when_no_session_is_left() {
    let sshd = Sshd::start().await;
    let gateway = Setup::new().ssh("web", &sshd).more("[limits]\ndrain = \"2m\"").start().await;
    let ssh = gateway.signed_in("alice", "web").await;
    let family = Family::of(&gateway);
    // More than fits on the way.
    fs::write(sshd.path("big"), noise(8, 30 << 20)).unwrap();
    let shown = ssh.start(&["web@gate", &format!("cat {}", sshd.path("big").display())]).finish(SOON).await;
    assert_eq!(shown.stdout.len(), 30 << 20);
    let api = gateway.admin().await;
    let row = api.ended("web").await;
    let mut download = api.download(&row, "raw").await;
    let mut received = download.chunk().await.unwrap().unwrap().len();
    family.upgrade(&gateway, gateway.pid()).await;
    // Longer than a process that stops leaves its last answers.
    tokio::time::sleep(Duration::from_secs(18)).await;
    while let Some(piece) = download.chunk().await.expect("it is not cut") {
        received += piece.len();
    }
    assert_eq!(Some(received as u64), row.recordings[0].size);
    gone(gateway.pid()).await;
}

#[tokio::test]
async fn nobody_is_refused_while_processes_change() {
    let (_sshd, gateway, ssh) = gate().await;
    let family = Family::of(&gateway);
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let port = gateway.ssh;
    let knocking = tokio::spawn(async move {
        let mut answered = 0;
        while !*stopped.borrow_and_update() {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("nobody is refused");
            stream.write_all(b"SSH-2.0-knock\r\n").await.unwrap();
            let mut greeting = [0; 8];
            within(SOON, "a greeting", stream.read_exact(&mut greeting)).await.expect("nobody is reset");
            assert_eq!(&greeting, b"SSH-2.0-");
            answered += 1;
        }
        answered
    });
    let mut newest = gateway.pid();
    for _ in 0..3 {
        let old = newest;
        newest = family.upgrade(&gateway, old).await;
        assert_eq!(ssh.run("web", "echo in").await.ok(), "in\n");
    }
    stop.send_replace(true);
    let answered: usize = knocking.await.unwrap();
    assert!(answered > 10, "{answered}");
}

#[tokio::test]
async fn the_new_process_lists_replays_and_ends_what_the_old_ones_hold() {
    let (_sshd, gateway, ssh) = gate().await;
    let family = Family::of(&gateway);
    let mut first = echo(&ssh).await;
    let second_pid = family.upgrade(&gateway, gateway.pid()).await;
    let mut second = echo(&ssh).await;
    let third_pid = family.upgrade(&gateway, second_pid).await;
    let mut third = echo(&ssh).await;
    let api = gateway.admin().await;
    let rows = api.rows("live=true").await;
    assert_eq!(rows.len(), 3, "{rows:?}");
    let (row_of_third, row_of_second, row_of_first) = (&rows[0], &rows[1], &rows[2]);

    first.send(b"seen").await;
    first.receive(4).await;
    let cast = String::from_utf8(api.log(row_of_first, None, "cast").await.ok()).unwrap();
    assert!(cast.contains("seen"), "what the first process still has in its spool: {cast}");
    let seen = row_of_first.last_seen;
    eventually("last_seen moves", SOON, async || (api.details(row_of_first).await.last_seen > seen).then_some(()))
        .await;

    let killed = api.kill(row_of_first, "from afar", AT_ONCE).await;
    assert_eq!(killed.outcome, Some(Outcome::Killed), "{killed:?}");
    assert!(killed.end_reason.as_deref().unwrap_or_default().contains("from afar"), "{killed:?}");
    assert!(first.finish(SOON).await.refusal().contains("from afar"));
    gone(gateway.pid()).await;
    echoes(&mut second).await;
    assert!(api.try_kill(row_of_first, "again").await.error(409).contains("ended"));
    assert_eq!(api.kill(row_of_second, "too", AT_ONCE).await.outcome, Some(Outcome::Killed));
    gone(second_pid).await;
    echoes(&mut third).await;
    assert_eq!(api.kill(row_of_third, "here", AT_ONCE).await.outcome, Some(Outcome::Killed));
    assert!(process::is_alive(third_pid));
    drop((second, third));
}

#[tokio::test]
async fn an_order_in_the_book_is_carried_out_whoever_wrote_it() {
    let (_sshd, gateway, ssh) = gate().await;
    let cat = echo(&ssh).await;
    let api = gateway.admin().await;
    let row = api.live("web").await;
    let book = Store::open(&gateway.data().join("sessions.db")).unwrap();
    let order = Event::now("kill", EventStatus::Success, json!({"by": "somebody", "reason": "by the book"}));
    book.order_kill(row.session_id, order).await.unwrap();
    let ended = api.end_of(&row).await;
    assert_eq!((ended.outcome, ended.killed), (Some(Outcome::Killed), true));
    assert!(cat.finish(SOON).await.refusal().contains("session ended by somebody: by the book"));
}

#[tokio::test]
async fn a_channel_that_an_older_process_holds_ends_alone() {
    let (_sshd, gateway, ssh) = gate().await;
    let family = Family::of(&gateway);
    let control = ssh.path("control").display().to_string();
    let mut master = ssh.start(&["-M", "-S", &control, "web@gate", "echo master; exec cat"]);
    master.receive_line().await;
    let mut open = Vec::new();
    for name in ["one", "two"] {
        let mut other = ssh.start(&["-S", &control, "web@gate", &format!("echo {name}; exec cat")]);
        other.receive_line().await;
        open.push(other);
    }
    family.upgrade(&gateway, gateway.pid()).await;
    let api = gateway.admin().await;
    let row = api.live("web").await;
    let named = |row: &SessionRow, name: &str| {
        let is_meant = |one: &&RecordingRow| one.command.as_ref().is_some_and(|line| line.contains(name));
        row.recordings.iter().find(is_meant).cloned().unwrap()
    };
    let (one, two) = (named(&row, "one").recording_id, named(&row, "two").recording_id);
    let answer = within(AT_ONCE, "the kill", api.try_kill_channel(&row, one, "from afar")).await;
    let told: SessionRow = serde_json::from_value(answer.ok_json()).unwrap();
    assert!(told.end_time.is_none() && named(&told, "one").end_time.is_some(), "{told:?}");
    assert!(open.remove(0).finish(SOON).await.stderr.contains("from afar"));
    assert!(api.try_kill_channel(&row, one, "again").await.error(409).contains("ended"));
    // An order that nobody told it of, in the book.
    let book = Store::open(&gateway.data().join("sessions.db")).unwrap();
    let about = json!({"by": "somebody", "reason": "by the book", "recording_id": two});
    book.order_channel_kill(row.session_id, two, true, Event::now("kill", EventStatus::Success, about)).await.unwrap();
    let mut two = open.remove(0);
    two.told("by the book (by somebody)").await;
    assert_ne!(two.finish(SOON).await.status, Some(0));
    master.send(b"b").await;
    assert_eq!(master.receive(1).await, b"b");
    assert_eq!(master.finish(SOON).await.status, Some(0));
    let ended = api.end_of(&row).await;
    assert_eq!((ended.outcome, ended.killed), (Some(Outcome::Closed), false));
}

#[tokio::test]
async fn a_process_that_dies_beside_another_is_cleaned_up_after() {
    let (_sshd, gateway, ssh) = gate().await;
    let family = Family::of(&gateway);
    let lost = echo(&ssh).await;
    family.upgrade(&gateway, gateway.pid()).await;
    let mut kept = echo(&ssh).await;
    let api = gateway.admin().await;
    let row = api.rows("live=true").await.remove(1);
    process::signal(gateway.pid(), Signal::KILL);
    let ended = eventually("the row is closed", Duration::from_secs(10), async || {
        Some(api.details(&row).await).filter(|row| row.outcome.is_some())
    });
    let ended = ended.await;
    assert_eq!(ended.outcome, Some(Outcome::Crashed));
    assert_eq!(ended.recordings[0].state, RecordingState::Truncated);
    echoes(&mut kept).await;
    let live = api.rows("live=true").await;
    assert_eq!((live.len(), live[0].recordings[0].state), (1, RecordingState::Live));
    drop(lost);
}

#[tokio::test]
async fn what_the_old_process_holds_outlives_the_new_one() {
    let (_sshd, mut gateway, ssh) = gate().await;
    let family = Family::of(&gateway);
    let old = gateway.pid();
    let mut kept = echo(&ssh).await;
    let new = family.upgrade(&gateway, old).await;
    process::signal(new, Signal::KILL);
    gone(new).await;
    echoes(&mut kept).await;
    gateway.start_again().await;
    let api = gateway.admin().await;
    let row = api.live("web").await;
    echoes(&mut kept).await;
    assert_eq!(api.kill(&row, "still found", AT_ONCE).await.outcome, Some(Outcome::Killed));
    assert!(kept.finish(SOON).await.refusal().contains("still found"));
    gone(old).await;
}

#[tokio::test]
async fn a_death_in_the_middle_of_an_upgrade_leaves_one_that_serves() {
    let (_sshd, mut gateway, ssh) = gate().await;
    let family = Family::of(&gateway);
    gateway.expect_errors();
    let old = gateway.pid();
    let mut kept = echo(&ssh).await;
    for _ in 0..3 {
        process::signal(old, Signal::USR2);
        let new = family.another_than(&[old]).await;
        process::signal(new, Signal::KILL);
        gone(new).await;
        assert_eq!(ssh.run("web", "echo in").await.ok(), "in\n");
    }
    echoes(&mut kept).await;
    assert_eq!((readies(&gateway), family.pids()), (1, vec![old]));
    // And the other one: the new process serves, whether it had asked already or not.
    process::signal(old, Signal::USR2);
    family.another_than(&[old]).await;
    process::signal(old, Signal::KILL);
    eventually("the new process is ready", SOON, async || (readies(&gateway) == 2).then_some(())).await;
    assert_eq!(ssh.run("web", "echo in").await.ok(), "in\n");
    let api = gateway.admin().await;
    eventually("the row of the dead is closed", Duration::from_secs(10), async || {
        api.rows("live=true").await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_upgrade_that_fails_changes_nothing() {
    let (_sshd, mut gateway, ssh) = gate().await;
    let family = Family::of(&gateway);
    gateway.expect_errors();
    let mut kept = echo(&ssh).await;
    let config = fs::read_to_string(gateway.config_file()).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = config.replace(
        &format!("ssh = \"127.0.0.1:{}\"", gateway.ssh),
        &format!("ssh = \"{}\"", taken.local_addr().unwrap()),
    );
    assert_ne!(elsewhere, config);
    for broken in [config.replace("[listen]", "[lissten]"), elsewhere] {
        fs::write(gateway.config_file(), broken).unwrap();
        let failed = gateway.log().matches("the upgrade failed").count();
        process::signal(gateway.pid(), Signal::USR2);
        eventually("the failure is told", SOON, async || {
            (gateway.log().matches("the upgrade failed").count() > failed).then_some(())
        })
        .await;
        echoes(&mut kept).await;
        assert_eq!(ssh.run("web", "echo in").await.ok(), "in\n");
    }
    fs::write(gateway.config_file(), config).unwrap();
    family.upgrade(&gateway, gateway.pid()).await;
    echoes(&mut kept).await;
}

#[tokio::test]
async fn a_second_gateway_is_refused_and_told_of_the_upgrade() {
    let (_sshd, gateway, ssh) = gate().await;
    let told = serve(&gateway, &[]);
    let words = String::from_utf8_lossy(&told.stderr).into_owned();
    assert_eq!(told.status.code(), Some(1), "{words}");
    assert!(words.contains("another gateway uses it") && words.contains("serve --upgrade"), "{words}");
    assert_eq!(ssh.run("web", "echo in").await.ok(), "in\n");
}

#[tokio::test]
async fn an_administrator_starts_the_new_program_by_hand() {
    let (_sshd, gateway, ssh) = gate().await;
    let family = Family::of(&gateway);
    let config = gateway.config_file().display().to_string();
    let log = fs::File::options().append(true).open(gateway.config_file().with_file_name("log")).unwrap();
    let mut new = Command::new(env!("CARGO_BIN_EXE_gatescribe"))
        .args(["serve", "--upgrade", "--config", &config])
        .stdout(std::process::Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    // It has nobody to wait for.
    gone(gateway.pid()).await;
    assert_eq!(ssh.run("web", "echo in").await.ok(), "in\n");
    assert_eq!(family.pids(), [new.id()]);
    process::signal(new.id(), Signal::TERM);
    let ended = eventually("it stops", SOON, async || new.try_wait().unwrap()).await;
    assert!(ended.success());
    let left: Vec<_> = fs::read_dir(gateway.data().join("run")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["burial.lock"], "nothing of them is left");
}

#[tokio::test]
async fn a_terminal_that_waits_for_its_link_is_told_to_connect_again() {
    let (_sshd, gateway, _ssh) = gate().await;
    let family = Family::of(&gateway);
    let waiting = Ssh::new(gateway.ssh).sign_in(&["web@gate", "true"]).await;
    family.upgrade(&gateway, gateway.pid()).await;
    let done = waiting.ssh.finish(SOON).await;
    assert!(done.stderr.contains("the gateway was upgraded; connect again"), "{done:?}");
    let page = gateway.browser().sign_in(&waiting.link, "alice").await;
    assert!(page.body.contains("connect again"), "{page:?}");
    gone(gateway.pid()).await;
}

#[tokio::test]
async fn who_has_no_session_does_not_hold_up_the_old_process() {
    let (_sshd, gateway, ssh) = gate().await;
    let family = Family::of(&gateway);
    let mut menu = ssh.terminal(&["gate"]);
    menu.expect("q to leave: ").await;
    // One that leads on holds it up for as long as it leads somewhere.
    let control = ssh.path("control");
    let config = fs::read_to_string(ssh.path("config")).unwrap();
    fs::write(ssh.path("config"), format!("{config}ControlPath {}\n", control.display())).unwrap();
    let mut outer = ssh.start(&["-M", "-N", "gate"]);
    eventually("the way is open", SOON, async || control.exists().then_some(())).await;
    let hosts = format!("UserKnownHostsFile={}", ssh.path("known_inside").display());
    let args = ["-J", "gate", "-o", &hosts, "-o", "StrictHostKeyChecking=no", "web"];
    let mut cat = ssh.start(&[&args[..], &["cat"]].concat());
    echoes(&mut cat).await;

    family.upgrade(&gateway, gateway.pid()).await;
    let words = "the gateway was upgraded; connect again";
    menu.expect(words).await;
    menu.wait(SOON).await;
    let another = ssh.start(&[&args[..], &["true"]].concat()).finish(SOON).await;
    assert_ne!(another.status, Some(0));
    assert!(outer.stderr().contains(words), "{}", outer.stderr());
    echoes(&mut cat).await;
    assert!(process::is_alive(gateway.pid()));
    assert_eq!(cat.finish(SOON).await.status, Some(0));
    outer.told("Received disconnect").await;
    gone(gateway.pid()).await;
}

#[tokio::test]
async fn a_stop_is_for_all_processes() {
    let sshd = Sshd::start().await;
    let mut gateway = Setup::new().ssh("web", &sshd).more("[limits]\ndrain = \"2s\"").start().await;
    let ssh = gateway.signed_in("alice", "web").await;
    let family = Family::of(&gateway);
    let first = echo(&ssh).await;
    let new = family.upgrade(&gateway, gateway.pid()).await;
    let second = echo(&ssh).await;
    process::signal(new, Signal::TERM);
    for mut cat in [first, second] {
        cat.told("the gateway is being stopped").await;
        cat.finish(SOON).await.refusal();
    }
    gone(new).await;
    gone(gateway.pid()).await;
    gateway.start_again().await;
    let rows = gateway.admin().await.rows("page_size=2").await;
    assert!(rows.iter().all(|row| row.outcome == Some(Outcome::Shutdown)), "{rows:?}");
}

#[tokio::test]
async fn the_one_port_for_all_goes_on_with_what_came_by_it() {
    let sshd = Sshd::start().await;
    let port = free_port().to_string();
    let gateway = Setup::new().ssh("web", &sshd).listen(&format!("all = \"127.0.0.1:{port}\"")).start().await;
    let family = Family::of(&gateway);
    let ssh = gateway.signed_in("alice", "web").await;
    let mut cat = ssh.start(&["-p", &port, "web@gate", "cat"]);
    echoes(&mut cat).await;
    let new = family.upgrade(&gateway, gateway.pid()).await;
    echoes(&mut cat).await;
    assert_eq!(ssh.start(&["-p", &port, "web@gate", "echo new"]).finish(SOON).await.ok(), "new\n");
    assert_eq!(cat.finish(SOON).await.status, Some(0));
    gone(gateway.pid()).await;
    assert_eq!(family.pids(), [new]);
}
