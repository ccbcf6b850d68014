//! The harness itself, against a plain `sshd`: what it says about a gateway is worth as much as what it says here.

use std::time::Duration;

use crate::harness::{Ssh, Sshd, Terminal, process};

/// A machine that reaches an `sshd` directly, with the key that it lets in.
async fn direct() -> (Sshd, Ssh) {
    let sshd = Sshd::start().await;
    let ssh = Ssh::without_key(sshd.port);
    std::fs::copy(sshd.login_key(), ssh.path("id")).unwrap();
    (sshd, ssh)
}

#[tokio::test]
async fn ssh_runs_commands_with_status_output_and_errors_apart() {
    let (_sshd, ssh) = direct().await;
    let user = crate::harness::gateway::whoami();
    let done = ssh.run(&user, "echo out; echo err >&2; exit 7").await;
    assert_eq!((done.status, done.stdout.as_slice()), (Some(7), b"out\n".as_slice()));
    assert!(done.stderr.ends_with("err\n"), "{done:?}");
}

#[tokio::test]
async fn a_terminal_is_a_real_one_and_can_be_resized() {
    let (sshd, ssh) = direct().await;
    let user = format!("{}@gate", crate::harness::gateway::whoami());
    let mut terminal: Terminal = ssh.terminal(&["-tt", &user, "sh"]);
    terminal.send("stty size\n");
    terminal.expect("24 80").await;
    terminal.resize(120, 40);
    terminal.send("sleep 0.2; stty size\n");
    terminal.expect("40 120").await;
    assert!(!sshd.sessions().is_empty());
    assert_eq!(process::established_at(sshd.port), 1);
    terminal.send("exit 3\n");
    assert_eq!(terminal.wait(Duration::from_secs(10)).await.code(), Some(3));
}

#[tokio::test]
async fn a_prompt_is_answered_with_what_the_test_types() {
    let sshd = Sshd::start_with("PasswordAuthentication yes").await;
    let ssh = Ssh::without_key(sshd.port);
    std::fs::write(ssh.path("answer.1"), "wrong\n").unwrap();
    let options = ["-o", "PreferredAuthentications=password", "-o", "NumberOfPasswordPrompts=1", "nobody@gate", "true"];
    let done = ssh.start(&options).finish(Duration::from_secs(20)).await;
    assert_eq!(done.status, Some(255));
    assert!(std::fs::read_to_string(ssh.path("asked")).unwrap().contains("nobody@gate's password"));
    assert!(done.stderr.contains("Permission denied"), "{done:?}");
}

#[tokio::test]
async fn a_reader_that_stops_early_ends_the_writer() {
    let (_sshd, ssh) = direct().await;
    let done =
        ssh.bash("set +o pipefail; $SSH gate 'cat /dev/zero' | head -c 5M | wc -c", Duration::from_secs(20)).await;
    assert_eq!(done.ok(), "5242880\n");
}
