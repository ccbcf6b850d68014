//! What a person does over SSH, through the gate into a real server: it works as it does without the gate.

use std::time::Duration;

use gatescribe::store::{Outcome, RecordingState};

use crate::harness::{SOON, Setup, Sshd, eventually, gate};

#[tokio::test]
async fn exec_keeps_exit_status_and_stderr_apart() {
    let (_sshd, _gateway, ssh) = gate().await;
    let done = ssh.run("web", "echo out; echo err >&2; exit 42").await;
    assert_eq!(done.status, Some(42));
    assert_eq!(done.stdout, b"out\n");
    assert!(done.stderr.ends_with("err\n"), "{done:?}");
    assert_eq!(ssh.run("web", "true").await.status, Some(0));
}

#[tokio::test]
async fn a_program_that_died_of_a_signal_is_told_as_such() {
    let (_sshd, gateway, ssh) = gate().await;
    let done = ssh.start(&["-v", "web@gate", "kill -KILL $$"]).finish(SOON).await;
    assert_eq!(done.status, Some(255), "{done:?}");
    assert!(done.stderr.contains("rtype exit-signal"), "{done:?}");
    let row = gateway.admin().await.ended("web").await;
    assert_eq!(row.outcome, Some(Outcome::Closed), "{row:?}");
}

#[tokio::test]
async fn input_ends_where_it_ended_and_output_goes_on() {
    let (_sshd, _gateway, ssh) = gate().await;
    let line = "printf 'a\\nb\\n' | $SSH web@gate 'cat; echo after the end; sleep 0.3; echo later'";
    assert_eq!(ssh.bash(line, SOON).await.ok(), "a\nb\nafter the end\nlater\n");
    // Output that ends first does not take the input with it.
    let line = "(sleep 0.5; echo x) | $SSH web@gate 'exec >&-; cat > /dev/null; exit 5'";
    assert_eq!(ssh.bash(line, SOON).await.status, Some(5));
}

#[tokio::test]
async fn bytes_that_are_no_text_arrive_as_they_were_sent() {
    let (_sshd, _gateway, ssh) = gate().await;
    let mut cat = ssh.start(&["web@gate", "cat"]);
    let bytes: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    cat.send(&bytes).await;
    assert!(cat.receive(bytes.len()).await == bytes);
    assert_eq!(cat.finish(SOON).await.status, Some(0));
}

#[tokio::test]
async fn variables_reach_a_server_that_accepts_them() {
    let (_sshd, _gateway, ssh) = gate().await;
    let done = ssh.start(&["-o", "SetEnv GREETING=hello", "web@gate", "echo $GREETING"]).finish(SOON).await;
    assert_eq!(done.ok(), "hello\n");
}

#[tokio::test]
async fn a_terminal_has_its_size_and_follows_the_window() {
    let (_sshd, gateway, ssh) = gate().await;
    let mut terminal = ssh.terminal(&["-t", "web@gate", "sh"]);
    terminal.send("PS1='>'; stty size; echo $TERM\n");
    terminal.expect("24 80").await;
    terminal.expect("xterm-256color").await;
    terminal.resize(132, 50);
    eventually("the new size arrives", SOON, async || {
        terminal.send("stty size\n");
        tokio::time::sleep(Duration::from_millis(200)).await;
        terminal.text().contains("50 132").then_some(())
    })
    .await;
    terminal.send("exit 3\n");
    assert_eq!(terminal.wait(SOON).await.code(), Some(3));
    let api = gateway.admin().await;
    let row = api.ended("web").await;
    let cast = String::from_utf8(api.log(&row, None, "cast").await.ok()).unwrap();
    assert!(cast.contains(r#""r", "132x50""#) || cast.contains(r#""r","132x50""#), "{cast}");
}

#[tokio::test]
async fn a_login_shell_with_vim_works() {
    let (sshd, _gateway, ssh) = gate().await;
    let file = sshd.path("poem");
    let mut terminal = ssh.terminal(&["web@gate"]);
    terminal.send("PS1=now; PS1=$PS1'> '\r");
    terminal.expect("now> ").await;
    terminal.send(&format!("vim -u NONE -N {}\r", file.display()));
    terminal.expect("[New").await;
    terminal.resize(100, 30);
    // Drawn anew down to the last line but one; what is typed while vim does that is thrown away.
    terminal.expect("\u{1b}[29;1H").await;
    terminal.send("iroses are red\u{1b}");
    terminal.expect("roses are red").await;
    terminal.send(":set lines?\r");
    terminal.expect("lines=30").await;
    terminal.send(":wq\r");
    terminal.expect("now> ").await;
    terminal.send("echo back-$((40+2)); exit\n");
    terminal.expect("back-42").await;
    terminal.wait(SOON).await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "roses are red\n");
}

#[tokio::test]
async fn a_key_for_interrupt_reaches_the_program() {
    let (_sshd, _gateway, ssh) = gate().await;
    let mut terminal =
        ssh.terminal(&["-t", "web@gate", "trap 'echo caught; exit 9' INT; echo armed; while :; do sleep 0.1; done"]);
    terminal.expect("armed").await;
    terminal.send("\u{3}");
    terminal.expect("caught").await;
    assert_eq!(terminal.wait(SOON).await.code(), Some(9));
}

#[tokio::test]
async fn the_status_of_a_program_that_closes_its_streams_early_is_told() {
    let (_sshd, _gateway, ssh) = gate().await;
    let done = ssh.bash("$SSH web@gate 'exec >&- 2>&-; sleep 2; exit 7' < /dev/null", SOON).await;
    assert_eq!(done.status, Some(7), "{done:?}");
}

#[tokio::test]
async fn ten_channels_share_one_connection_and_have_their_own_recordings() {
    let (_sshd, gateway, ssh) = gate().await;
    let control = ssh.path("control").display().to_string();
    let mut master = ssh.start(&["-M", "-N", "-S", &control, "-o", "LogLevel=INFO", "web@gate"]);
    eventually("the master is there", SOON, async || ssh.path("control").exists().then_some(())).await;
    let channels: Vec<_> = (0..10)
        .map(|n| ssh.start(&["-S", &control, "web@gate", &format!("read line; echo {n}-$line; exit {n}")]))
        .collect();
    let row = gateway.admin().await.live("web").await;
    let api = gateway.admin().await;
    eventually("ten live recordings", SOON, async || {
        let live = api.details(&row).await.recordings;
        (live.iter().filter(|r| r.state == RecordingState::Live).count() == 10).then_some(())
    })
    .await;
    for (n, mut channel) in channels.into_iter().enumerate().rev() {
        channel.send(b"go\n").await;
        let done = channel.finish(SOON).await;
        assert_eq!(done.stdout, format!("{n}-go\n").as_bytes());
        assert_eq!(done.status, Some(n as i32));
    }
    // Asked and not signalled: OpenSSH 9.2 misses a signal that comes just before it waits.
    assert_eq!(ssh.start(&["-S", &control, "-O", "exit", "web@gate"]).finish(SOON).await.status, Some(0));
    master.child.wait().await.unwrap();
    let ended = api.end_of(&row).await;
    assert_eq!(ended.recordings.len(), 10);
    let mut statuses: Vec<_> = ended.recordings.iter().map(|r| r.exit_status).collect();
    statuses.sort();
    assert_eq!(statuses, (0..10).map(Some).collect::<Vec<_>>());
    assert!(ended.recordings.iter().all(|r| r.state == RecordingState::Complete), "{ended:?}");
    for recording in &ended.recordings {
        let raw = api.log(&ended, Some(recording.recording_id), "raw").await.ok();
        assert!(!raw.is_empty());
    }
}

#[tokio::test]
async fn the_gateway_keeps_its_host_key_and_leaves_the_upstreams_out() {
    let (_sshd, mut gateway, ssh) = gate().await;
    let before = std::fs::read_to_string(ssh.path("known_hosts")).unwrap();
    let done = ssh.start(&["-o", "UpdateHostKeys=yes", "web@gate", "true"]).finish(SOON).await;
    assert_eq!(done.status, Some(0), "{done:?}");
    gateway.stop().await;
    gateway.start_again().await;
    assert_eq!(ssh.run("web", "true").await.status, Some(0));
    assert_eq!(std::fs::read_to_string(ssh.path("known_hosts")).unwrap(), before);
}

#[tokio::test]
async fn weak_algorithms_are_not_offered() {
    let (_sshd, _gateway, ssh) = gate().await;
    for option in [
        "HostKeyAlgorithms=ssh-rsa",
        "KexAlgorithms=diffie-hellman-group14-sha1",
        "Ciphers=aes256-ctr -oMACs=hmac-sha1",
        "Ciphers=aes128-cbc",
    ] {
        let done = ssh.bash(&format!("$SSH -o{option} web@gate true"), SOON).await;
        assert_eq!(done.status, Some(255), "{option} was accepted: {done:?}");
        assert!(done.stderr.contains("no matching") || done.stderr.contains("Unable to negotiate"), "{done:?}");
    }
    let done = ssh.start(&["-v", "-C", "web@gate", "true"]).finish(SOON).await;
    assert!(done.stderr.contains("compression: none"), "{done:?}");
}

#[tokio::test]
async fn a_socket_with_its_own_port_needs_no_name() {
    let sshd = Sshd::start().await;
    let port = crate::harness::free_port();
    let own = format!("listen = \"127.0.0.1:{port}\"");
    let gateway = Setup::new().ssh_with("web", &sshd, &own).start().await;
    let ssh = gateway.signed_in("alice", "web").await;
    let done = ssh.start(&["-p", &port.to_string(), "whoever@gate", "echo here"]).finish(SOON).await;
    assert_eq!(done.ok(), "here\n");
}
