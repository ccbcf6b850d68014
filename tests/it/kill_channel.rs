//! One channel is ended and nothing beside it: each is its own recording, and the others of its connection go on.

use std::fs;
use std::time::Duration;

use gatescribe::store::{EventStatus, Outcome, RecordingRow, RecordingState, SessionRow};
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use crate::harness::gateway::whoami;
use crate::harness::ssh::Running;
use crate::harness::{Api, SOON, Ssh, Sshd, eventually, free_port, gate, noise, process, within};

/// Far more than a kill takes, far less than any timeout that would end the channel by itself.
const AT_ONCE: Duration = Duration::from_secs(4);

/// A connection that others share, and where they find it. Its own channel echoes.
async fn master(ssh: &Ssh) -> (Running, String) {
    let control = ssh.path("control").display().to_string();
    let mut master = ssh.start(&["-M", "-S", &control, "web@gate", "echo master; exec cat"]);
    assert_eq!(master.receive_line().await, "master");
    (master, control)
}

async fn echoes(cat: &mut Running) {
    cat.send(b"still here").await;
    assert_eq!(cat.receive(10).await, b"still here");
}

/// The open channel of this kind, or with this in its command.
async fn channel(api: &Api, row: &SessionRow, what: &str) -> RecordingRow {
    let is_meant = |one: &RecordingRow| {
        one.end_time.is_none() && (one.kind == what || one.command.as_ref().is_some_and(|line| line.contains(what)))
    };
    eventually(what, SOON, async || api.details(row).await.recordings.into_iter().find(is_meant)).await
}

/// Ends a channel and looks at what was answered: it is down, and its session is not.
async fn kill(api: &Api, row: &SessionRow, recording: Uuid, reason: &str) -> SessionRow {
    let answer = tokio::time::timeout(AT_ONCE, api.try_kill_channel(row, recording, reason)).await;
    let answer = answer.unwrap_or_else(|_| panic!("the kill was not answered within {AT_ONCE:?}"));
    let row: SessionRow = serde_json::from_value(answer.ok_json()).unwrap();
    assert_eq!((row.killed, row.end_time, row.outcome), (false, None, None));
    let ended = row.recordings.iter().find(|one| one.recording_id == recording).unwrap();
    assert!(ended.end_time.is_some() && ended.state == RecordingState::Complete, "{ended:?}");
    let order = row.events.iter().find(|event| event.kind == "kill" && event.metadata["reason"] == reason).unwrap();
    assert_eq!(order.status, EventStatus::Success);
    assert_eq!(order.metadata["recording_id"], recording.to_string());
    row
}

/// What was started without a terminal is sent KILL, which sshd hands on unless root is logged in: then it says so.
async fn is_sent_kill(sshd: &Sshd, mark: &str) {
    if whoami() == "root" {
        sshd.log_with("session signalling requires privilege separation").await;
        process::with_argument(mark).into_iter().for_each(|pid| process::signal(pid, Signal::KILL));
    } else {
        eventually("the program has gone", SOON, async || process::with_argument(mark).is_empty().then_some(())).await;
    }
}

#[tokio::test]
async fn one_of_two_shells_ends_with_the_words_and_the_other_goes_on() {
    let (_sshd, gateway, ssh) = gate().await;
    let (mut master, control) = master(&ssh).await;
    let shell = |name: &str| ssh.terminal(&["-tt", "-S", &control, "web@gate", &format!("exec sh -i # {name}")]);
    let (mut one, mut two) = (shell("one"), shell("two"));
    let mark = format!("998.{}", gateway.pid());
    one.send(&format!("echo one-$((1+1)); sleep {mark}\n"));
    one.expect("one-2").await;
    two.send("echo two-$((1+1))\n");
    two.expect("two-2").await;
    let asleep = async || (process::with_argument(&mark).len() == 1).then_some(());
    eventually("it sleeps", SOON, asleep).await;

    let api = gateway.admin().await;
    let row = api.live("web").await;
    let victim = channel(&api, &row, "# one").await.recording_id;
    kill(&api, &row, victim, "this one only").await;
    one.expect("this one only (by admin@example.com)").await;
    assert!(!one.wait(SOON).await.success());
    // The server hangs its terminal up.
    eventually("the sleeper has gone", SOON, async || process::with_argument(&mark).is_empty().then_some(())).await;
    two.send("echo still-$((40+2))\n");
    two.expect("still-42").await;
    assert!(!two.text().contains("this one only"), "{}", two.text());
    echoes(&mut master).await;
    let cast = String::from_utf8(api.log(&row, Some(victim), "cast").await.ok()).unwrap();
    assert!(cast.contains("this one only"), "{cast}");

    // Once is enough, and no other session's.
    assert!(api.try_kill_channel(&row, victim, "again").await.error(409).contains("the channel has already ended"));
    assert!(api.try_kill_channel(&row, Uuid::now_v7(), "x").await.error(404).contains("no such recording"));
    let kills = api.details(&row).await.events.into_iter().filter(|event| event.kind == "kill").count();
    assert_eq!(kills, 1, "what was refused leaves no order");
    two.send("exit\n");
    two.wait(SOON).await;
    assert_eq!(master.finish(SOON).await.status, Some(0));
    let ended = api.end_of(&row).await;
    assert_eq!((ended.outcome, ended.killed, ended.remaining), (Some(Outcome::Closed), false, None));
    assert!(api.try_kill_channel(&row, victim, "late").await.error(409).contains("ended"));
}

#[tokio::test]
async fn what_was_started_at_the_server_is_sent_a_kill() {
    let (sshd, gateway, ssh) = gate().await;
    let (mut master, control) = master(&ssh).await;
    let mark = format!("997.{}", gateway.pid());
    let mut sleeper = ssh.start(&["-S", &control, "web@gate", &format!("echo up; exec sleep {mark}")]);
    assert_eq!(sleeper.receive_line().await, "up");
    let api = gateway.admin().await;
    let row = api.live("web").await;
    assert!(!sshd.log().contains("session signalling"), "{}", sshd.log());
    kill(&api, &row, channel(&api, &row, &mark).await.recording_id, "wake up").await;
    is_sent_kill(&sshd, &mark).await;
    let done = sleeper.finish(SOON).await;
    assert!(done.status != Some(0) && done.stderr.contains("wake up (by admin@example.com)"), "{done:?}");
    echoes(&mut master).await;
    assert_eq!(master.finish(SOON).await.status, Some(0));
}

#[tokio::test]
async fn with_its_session_too() {
    let (sshd, gateway, ssh) = gate().await;
    let mark = format!("996.{}", gateway.pid());
    let mut sleeper = ssh.start(&["web@gate", &format!("echo up; exec sleep {mark}")]);
    assert_eq!(sleeper.receive_line().await, "up");
    let api = gateway.admin().await;
    let row = api.live("web").await;
    assert!(!sshd.log().contains("session signalling"), "{}", sshd.log());
    api.kill(&row, "all of it", AT_ONCE).await;
    is_sent_kill(&sshd, &mark).await;
    assert!(sleeper.finish(SOON).await.stderr.contains("all of it"));
}

#[tokio::test]
async fn a_transfer_under_way_ends_and_tells_how_far_it_came() {
    let (sshd, gateway, ssh) = gate().await;
    let (mut master, control) = master(&ssh).await;
    let (from, to) = (sshd.path("big"), ssh.path("copy"));
    fs::write(&from, noise(5, 20 << 20)).unwrap();
    let mut command = std::process::Command::new("sftp");
    let server = format!("ssh -F {} -S {control} -s web@gate sftp", ssh.path("config").display());
    // In kbit/s: minutes for all of it.
    command.args(["-l", "1600", "-D", &server]);
    let mut sftp = Running::start(command);
    sftp.send(format!("get {} {}\n", from.display(), to.display()).as_bytes()).await;
    let begun = async || fs::metadata(&to).is_ok_and(|file| file.len() > 0).then_some(());
    eventually("the transfer is under way", SOON, begun).await;
    let api = gateway.admin().await;
    let row = api.live("web").await;
    let victim = channel(&api, &row, "sftp").await.recording_id;
    kill(&api, &row, victim, "too much").await;
    let done = sftp.finish(SOON).await;
    assert!(done.status != Some(0) && done.stderr.contains("too much"), "{done:?}");
    assert!(fs::metadata(&to).unwrap().len() < 20 << 20);
    let about = |row: SessionRow, kind: &str| {
        row.events.into_iter().find(|one| one.kind == kind && one.metadata["recording_id"] == victim.to_string())
    };
    let file = eventually("the file's event", SOON, async || about(api.details(&row).await, "ssh_file")).await;
    assert_eq!(file.metadata["path"], from.display().to_string());
    let sum = eventually("the summary", SOON, async || about(api.details(&row).await, "ssh_files")).await;
    assert_eq!((&sum.metadata["incomplete"], &sum.metadata["bytes_written"]), (&Value::from(1), &Value::from(0)));
    echoes(&mut master).await;
    assert_eq!(master.finish(SOON).await.status, Some(0));
}

#[tokio::test]
async fn a_forwarded_connection_ends_and_the_forward_stays() {
    let (_sshd, gateway, ssh) = gate().await;
    let (mut master, control) = master(&ssh).await;
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (there, here) = (target.local_addr().unwrap().port(), free_port());
    let forward = format!("127.0.0.1:{here}:127.0.0.1:{there}");
    ssh.start(&["-S", &control, "-O", "forward", "-L", &forward, "web@gate"]).finish(SOON).await.ok();
    let open = async || {
        let mut near = TcpStream::connect(("127.0.0.1", here)).await.unwrap();
        let (mut far, _) = within(SOON, "the connection arrives", target.accept()).await.unwrap();
        let mut hello = [0; 5];
        near.write_all(b"hello").await.unwrap();
        within(SOON, "what was sent", far.read_exact(&mut hello)).await.unwrap();
        (near, far)
    };
    let (mut near, mut far) = open().await;
    let api = gateway.admin().await;
    let row = api.live("web").await;
    let victim = channel(&api, &row, "forward").await.recording_id;
    kill(&api, &row, victim, "no more").await;
    for side in [&mut near, &mut far] {
        let mut rest = Vec::new();
        let _reset_or_end = within(SOON, "the end of it", side.read_to_end(&mut rest)).await;
        assert!(rest.is_empty(), "{rest:?}");
    }
    let told = async || {
        let events = api.details(&row).await.events;
        events.into_iter().find(|one| one.kind == "ssh_forward" && one.metadata["recording_id"] == victim.to_string())
    };
    let told = eventually("the forward's event", SOON, told).await;
    assert_eq!((&told.metadata["bytes_sent"], told.status), (&Value::from(5), EventStatus::Success));
    // The next one is another channel.
    let _open = open().await;
    echoes(&mut master).await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_holds_up_neither_the_kill_nor_others() {
    let (_sshd, gateway, ssh) = gate().await;
    let (mut master, control) = master(&ssh).await;
    let mut flood = ssh.start(&["-S", &control, "web@gate", "echo $$; exec cat /dev/zero"]);
    let target: u32 = flood.receive_line().await.parse().unwrap();
    // Nobody reads its pipe: the channel's window fills, and the connection is as before.
    eventually("output is stuck", SOON, async || stands_still(target).await.then_some(())).await;
    let api = gateway.admin().await;
    let row = api.live("web").await;
    kill(&api, &row, channel(&api, &row, "/dev/zero").await.recording_id, "stuck").await;
    eventually("the flood has ended", SOON, async || (!process::is_alive(target)).then_some(())).await;
    echoes(&mut master).await;
    // Once it reads again it finds the end.
    assert_ne!(flood.finish(SOON).await.status, Some(0));
    echoes(&mut master).await;
    assert_eq!(master.finish(SOON).await.status, Some(0));
}

#[tokio::test]
async fn a_client_that_stopped_altogether_does_not_hold_up_the_kill() {
    let (_sshd, gateway, ssh) = gate().await;
    let mut flood = ssh.start(&["web@gate", "echo $$; exec cat /dev/zero"]);
    let target: u32 = flood.receive_line().await.parse().unwrap();
    let api = gateway.admin().await;
    let row = api.live("web").await;
    let mut other = ssh.start(&["web@gate", "exec cat"]);
    echoes(&mut other).await;
    process::signal(flood.pid(), Signal::STOP);
    eventually("output is stuck", SOON, async || stands_still(target).await.then_some(())).await;
    kill(&api, &row, channel(&api, &row, "/dev/zero").await.recording_id, "stuck").await;
    eventually("the flood has ended", SOON, async || (!process::is_alive(target)).then_some(())).await;
    echoes(&mut other).await;
    process::signal(flood.pid(), Signal::CONT);
    assert_ne!(flood.finish(SOON).await.status, Some(0));
    assert_eq!(other.finish(SOON).await.status, Some(0));
}

#[tokio::test]
async fn it_takes_the_right_to_end_the_session() {
    let (_sshd, gateway, ssh) = gate().await;
    let mut cat = ssh.start(&["web@gate", "exec cat"]);
    echoes(&mut cat).await;
    let admin = gateway.admin().await;
    let row = admin.live("web").await;
    let victim = channel(&admin, &row, "cat").await.recording_id;
    admin.with_token(None).try_kill_channel(&row, victim, "x").await.error(401);
    for (person, status) in [("bob", 404), ("audrey", 403)] {
        let api = admin.with_token(Some(&gateway.token_of(person).await));
        api.try_kill_channel(&row, victim, "x").await.error(status);
    }
    echoes(&mut cat).await;
    // One may end what is one's own.
    let own = admin.with_token(Some(&gateway.token_of("alice").await));
    own.try_kill_channel(&row, victim, "mine").await.ok_json();
    assert!(cat.finish(SOON).await.stderr.contains("mine (by alice@example.com)"));
}

/// Whether a process has used no CPU for half a second.
async fn stands_still(pid: u32) -> bool {
    let before = process::cpu_ticks(pid);
    tokio::time::sleep(Duration::from_millis(500)).await;
    process::cpu_ticks(pid) <= before + 1
}
