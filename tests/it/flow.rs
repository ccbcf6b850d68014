//! Flow control with a lot of data: nothing stalls, nothing is lost, memory stays flat. The places where the nearest
//! peer of this gateway breaks.

use std::time::Duration;

use crate::harness::{SOON, eventually, gate, process};

/// Bulk through a debug build on a shared machine.
const BULK: Duration = Duration::from_secs(400);

#[tokio::test]
async fn a_gigabyte_of_stdin_arrives_with_its_checksum() {
    let (_sshd, _gateway, ssh) = gate().await;
    let line = "head -c 1G /dev/urandom | tee >(cksum >&2) | $SSH web@gate cksum";
    let done = ssh.bash(line, BULK).await;
    let arrived = String::from_utf8(done.stdout).unwrap();
    assert!(arrived.trim().ends_with(" 1073741824"), "{arrived:?} {}", done.stderr);
    assert!(done.stderr.lines().any(|line| line == arrived.trim()), "{arrived:?} is not among {:?}", done.stderr);
}

#[tokio::test]
async fn two_hundred_megabytes_go_both_ways_through_cat() {
    let (_sshd, _gateway, ssh) = gate().await;
    let done = ssh.bash("head -c 200M /dev/zero | $SSH web@gate cat | cksum", BULK).await;
    let expected = ssh.bash("head -c 200M /dev/zero | cksum", BULK).await;
    assert_eq!(done.ok(), expected.ok());
}

#[tokio::test]
async fn a_download_into_a_slow_reader_ends_cleanly() {
    let (_sshd, _gateway, ssh) = gate().await;
    // 40 MB/s: four megabytes, a tenth of a second, again.
    let reader = "total=0; while got=$(head -c 4M | wc -c); [ $got -gt 0 ]; do total=$((total + got)); sleep 0.1; done; echo $total";
    let line = format!("$SSH web@gate 'head -c 200M /dev/zero' | ({reader})");
    for _ in 0..3 {
        assert_eq!(ssh.bash(&line, Duration::from_secs(120)).await.ok(), "209715200\n");
    }
}

#[tokio::test]
async fn an_upload_to_a_target_that_does_not_read_keeps_memory_flat() {
    let (_sshd, gateway, ssh) = gate().await;
    ssh.run("web", "true").await;
    let before = process::resident(gateway.pid());
    let mut upload = ssh.start(&["web@gate", "echo $$; exec sleep 1000"]);
    upload.receive_line().await;
    // Sent for as long as ssh takes any: two gigabytes, unless the flow ebbs away first, which it must.
    let sent = push(&mut upload, 2 << 30).await;
    let after = process::resident(gateway.pid());
    assert!(sent < 64 << 20, "{sent} bytes went to a target that reads none");
    assert!(after < before + (32 << 20), "memory went from {before} to {after} bytes");
    // The same connection is still alive to the other side: it can be ended in good order.
    let row = gateway.admin().await.live("web").await;
    gateway.admin().await.kill(&row, "test over", SOON).await;
}

/// Writes until less than a megabyte was taken within ten seconds; returns how much was in all.
async fn push(ssh: &mut crate::harness::ssh::Running, limit: usize) -> usize {
    use tokio::io::AsyncWriteExt as _;
    let chunk = vec![0; 1 << 20];
    let mut sent = 0;
    while sent < limit {
        let megabyte = ssh.stdin.as_mut().unwrap().write_all(&chunk);
        match tokio::time::timeout(Duration::from_secs(10), megabyte).await {
            Ok(written) => written.unwrap(),
            Err(_) => break,
        }
        sent += chunk.len();
    }
    sent
}

#[tokio::test]
async fn five_hundred_channels_open_and_close_in_turn() {
    let (_sshd, gateway, ssh) = gate().await;
    let control = ssh.path("control").display().to_string();
    let _master = ssh.start(&["-M", "-N", "-S", &control, "web@gate"]);
    eventually("the master is there", SOON, async || ssh.path("control").exists().then_some(())).await;
    let turns =
        |n: u32| format!("for i in $(seq {n}); do $SSH -S {control} web@gate \"echo $i\" < /dev/null || exit 1; done");
    let warm = ssh.bash(&turns(20), SOON).await;
    assert_eq!(warm.status, Some(0), "after {:?}: {}", String::from_utf8_lossy(&warm.stdout), warm.stderr);
    let descriptors = process::descriptors(gateway.pid());
    let memory = process::resident(gateway.pid());
    let lines = ssh.bash(&turns(480), BULK).await.ok();
    assert_eq!(lines.lines().count(), 480);
    assert_eq!(lines.lines().last(), Some("480"));
    let left = process::descriptors(gateway.pid());
    assert!(left <= descriptors + 4, "descriptors went from {descriptors} to {left}");
    let after = process::resident(gateway.pid());
    assert!(after < memory + (32 << 20), "memory went from {memory} to {after} bytes");
    let row = gateway.admin().await.live("web").await;
    assert_eq!(row.recordings.len().max(gateway.admin().await.details(&row).await.recordings.len()), 500);
}

#[tokio::test]
async fn a_reader_that_stops_early_holds_nothing_back() {
    let (_sshd, gateway, ssh) = gate().await;
    // Endless programs run on: russh 0.65 does not show a server the client's `eow@openssh.com` that would stop them.
    let line = "set +o pipefail; $SSH web@gate 'head -c 100M /dev/zero' | head -c 5M | wc -c";
    assert_eq!(ssh.bash(line, BULK).await.ok(), "5242880\n");
    let api = gateway.admin().await;
    assert_eq!(api.ended("web").await.recordings[0].exit_status, Some(0));
}
