//! A kill ends a live session at once, whatever state the peers are in, and answers when it is down.

use std::net::TcpListener;
use std::time::Duration;

use gatescribe::store::EventStatus;
use rustix::process::Signal;

use crate::harness::{Gateway, SOON, Setup, Ssh, Sshd, eventually, gate, process};

/// Far more than a kill takes, far less than any timeout that would end the session by itself.
const AT_ONCE: Duration = Duration::from_secs(4);

/// Neither the client's connection nor the upstream's is up any more.
async fn both_ends_are_down(gateway: &Gateway, upstream: u16) {
    eventually("both connections are down", Duration::from_secs(2), async || {
        (process::established_at(gateway.ssh) == 0 && process::established_to(upstream) == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_idle_session_ends_with_the_reason_in_the_terminal() {
    let (sshd, gateway, ssh) = gate().await;
    let mut terminal = ssh.terminal(&["-t", "web@gate", "sh"]);
    terminal.send("echo $((6*7)); echo $$ > /dev/null\n");
    terminal.expect("42").await;
    let api = gateway.admin().await;
    let row = api.live("web").await;
    let killed = api.kill(&row, "lunch is ready", AT_ONCE).await;
    both_ends_are_down(&gateway, sshd.port).await;
    assert!(!terminal.wait(SOON).await.success());
    let text = terminal.text();
    let line = text.lines().find(|line| line.contains("lunch")).unwrap_or_else(|| panic!("{text}"));
    assert!(line.contains("lunch is ready"), "{line}");
    assert!(killed.end_time.is_some());
    assert!(killed.end_reason.as_deref().unwrap_or_default().contains("lunch is ready"), "{killed:?}");
    let details = api.details(&row).await;
    let event = details.events.iter().find(|e| e.kind == "kill").unwrap_or_else(|| panic!("{details:?}"));
    assert_eq!(event.status, EventStatus::Success);
    // The words are in the recording too.
    let cast = String::from_utf8(api.log(&row, None, "cast").await.ok()).unwrap();
    assert!(cast.contains("lunch is ready"), "{cast}");
    eventually("the program at the upstream has gone", SOON, async || sshd.sessions().is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_second_kill_is_told_that_it_had_ended() {
    let (_sshd, gateway, ssh) = gate().await;
    assert_eq!(ssh.run("web", "true").await.status, Some(0));
    let api = gateway.admin().await;
    let row = api.ended("web").await;
    assert!(api.try_kill(&row, "too late").await.error(409).contains("ended"));
    assert!(!api.details(&row).await.killed);
}

#[tokio::test]
async fn a_kill_lands_on_a_flooding_upstream_and_a_client_that_does_not_read() {
    let (sshd, gateway, ssh) = gate().await;
    let mut flood = ssh.start(&["web@gate", "echo $$; exec cat /dev/zero"]);
    let target: u32 = flood.receive_line().await.parse().unwrap();
    // Nobody reads the pipe any more; then the client stops reading its connection altogether.
    process::signal(flood.pid(), Signal::STOP);
    output_is_stuck(target).await;
    let api = gateway.admin().await;
    let row = api.live("web").await;
    api.kill(&row, "stuck", AT_ONCE).await;
    both_ends_are_down(&gateway, sshd.port).await;
    eventually("the flood has ended", SOON, async || (!process::is_alive(target)).then_some(())).await;
    process::signal(flood.pid(), Signal::CONT);
}

#[tokio::test]
async fn a_kill_lands_on_a_client_that_floods_and_an_upstream_that_stopped() {
    let (sshd, gateway, ssh) = gate().await;
    let mut upload = ssh.start(&["web@gate", "echo up; exec cat > /dev/null"]);
    upload.receive_line().await;
    let stopped = sshd.sessions();
    assert!(!stopped.is_empty());
    stopped.iter().for_each(|pid| process::signal(*pid, Signal::STOP));
    let mut stdin = upload.stdin.take().unwrap();
    let pump = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        while stdin.write_all(&[0; 65536]).await.is_ok() {}
    });
    let api = gateway.admin().await;
    let row = api.live("web").await;
    eventually("the upload stands still", SOON, async || stands_still(gateway.pid()).await.then_some(())).await;
    api.kill(&row, "stuck", AT_ONCE).await;
    both_ends_are_down(&gateway, sshd.port).await;
    let done = upload.finish(SOON).await;
    assert_ne!(done.status, Some(0));
    pump.await.unwrap();
    stopped.iter().for_each(|pid| process::signal(*pid, Signal::CONT));
}

#[tokio::test]
async fn a_kill_lands_while_the_upstream_is_still_being_dialled() {
    let sshd = Sshd::start().await;
    // It accepts and says nothing.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = mute.local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let setup = Setup::new().ssh("web", &sshd);
    let gateway = setup.upstream("mute", "", &address, &sshd.login_key(), &sshd.host_fingerprint()).start().await;
    let ssh = gateway.signed_in("alice", "web").await;
    let waiting = ssh.start(&["mute@gate", "true"]);
    let api = gateway.admin().await;
    let row = api.live("mute").await;
    let (_held, _) = mute.accept().unwrap();
    api.kill(&row, "never mind", AT_ONCE).await;
    both_ends_are_down(&gateway, port).await;
    let done = waiting.finish(SOON).await;
    // On its channel, or where it has none yet as the reason of the disconnect.
    assert!(done.stderr.contains("never mind"), "{done:?}");
}

#[tokio::test]
async fn a_kill_ends_every_channel_of_its_connection_and_no_other_session() {
    let (sshd, gateway, ssh) = gate().await;
    let mut other = ssh.start(&["web@gate", "cat"]);
    other.send(b"a").await;
    other.receive(1).await;
    let bystander = gateway.admin().await.live("web").await;
    let control = ssh.path("control").display().to_string();
    let mut master = ssh.start(&["-M", "-S", &control, "web@gate", "echo master; exec cat"]);
    master.receive_line().await;
    let mut second = ssh.start(&["-S", &control, "web@gate", "echo second; exec cat"]);
    second.receive_line().await;
    let api = gateway.admin().await;
    let rows = api.rows("socket_name=web&live=true").await;
    let victim = rows.iter().find(|row| row.session_id != bystander.session_id).unwrap();
    api.kill(victim, "both of you", AT_ONCE).await;
    assert_ne!(master.finish(SOON).await.status, Some(0));
    assert_ne!(second.finish(SOON).await.status, Some(0));
    other.send(b"b").await;
    assert_eq!(other.receive(1).await, b"b");
    assert_eq!(process::established_to(sshd.port), 1);
    assert_eq!(other.finish(SOON).await.status, Some(0));
}

#[tokio::test]
async fn a_background_process_of_the_built_in_shell_is_gone_or_named() {
    let gateway = Gateway::demo(Some("alice")).await;
    let ssh = Ssh::new(gateway.ssh);
    let mut terminal = ssh.terminal(&["-t", "shell@gate"]);
    // A duration nobody else uses marks this test's processes, whoever their parent becomes.
    let mark = format!("999.{}", gateway.pid());
    terminal.send(&format!("setsid sleep {mark} & sleep {mark} & (sleep {mark} &) ; echo ready-$((1+1))\n"));
    terminal.expect("ready-2").await;
    let sleepers = || process::with_argument(&mark);
    eventually("three sleepers", SOON, async || (sleepers().len() == 3).then_some(())).await;
    let api = gateway.admin().await;
    let row = api.live("shell").await;
    let killed = api.kill(&row, "enough", AT_ONCE).await;
    let left = sleepers();
    left.iter().for_each(|pid| process::signal(*pid, Signal::KILL));
    match killed.remaining.as_deref() {
        Some("none") => assert!(left.is_empty(), "{left:?} still ran, but the row says none"),
        Some(words) => assert!(left.iter().all(|pid| words.contains(&pid.to_string())), "{words}: {left:?}"),
        None => panic!("a killed row says what remains: {killed:?}"),
    }
}

#[tokio::test]
async fn a_command_in_the_built_in_shell_cannot_be_suspended() {
    // Nobody would be there to continue it; under sshd it cannot be suspended either.
    let gateway = Gateway::demo(Some("alice")).await;
    let ssh = Ssh::new(gateway.ssh);
    let mut terminal = ssh.terminal(&["-t", "shell@gate", "echo armed; sleep 1; echo finished"]);
    terminal.expect("armed").await;
    terminal.send("\u{1a}");
    terminal.expect("finished").await;
    assert!(terminal.wait(SOON).await.success());
}

#[tokio::test]
async fn a_kill_needs_the_right_to_it() {
    let (_sshd, gateway, ssh) = gate().await;
    let mut cat = ssh.start(&["web@gate", "cat"]);
    cat.send(b"a").await;
    cat.receive(1).await;
    let admin = gateway.admin().await;
    let row = admin.live("web").await;
    admin.with_token(None).try_kill(&row, "x").await.error(401);
    admin.with_token(Some("wrong")).try_kill(&row, "x").await.error(401);
    // To others it does not exist, and auditors only look.
    for (person, status) in [("bob", 404), ("audrey", 403)] {
        admin.with_token(Some(&gateway.token_of(person).await)).try_kill(&row, "x").await.error(status);
    }
    assert!(!admin.details(&row).await.killed);
    cat.send(b"b").await;
    assert_eq!(cat.receive(1).await, b"b");
}

/// Waits until the target's process sleeps in a write that nobody takes.
async fn output_is_stuck(target: u32) {
    eventually("output is queued to the brim", SOON, async || stands_still(target).await.then_some(())).await;
}

/// Whether a process has used no CPU for half a second.
async fn stands_still(pid: u32) -> bool {
    let before = process::cpu_ticks(pid);
    tokio::time::sleep(Duration::from_millis(500)).await;
    process::cpu_ticks(pid) <= before + 1
}
