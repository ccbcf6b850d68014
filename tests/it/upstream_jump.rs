//! Servers that are reached through others: every one is verified and logged into, and all of it ends together.

use std::time::Duration;

use gatescribe::store::{AuthResult as Authorization, Outcome};
use rustix::process::Signal;

use crate::harness::{Gateway, SOON, Setup, Ssh, Sshd, eventually, process};
use crate::upstream_ssh::{own_login, socket};

/// Far more than a kill takes, far less than any timeout that would end the session by itself.
const AT_ONCE: Duration = Duration::from_secs(4);

/// Who may visit the inner server, and not the jump hosts.
const INNER_ALONE: &str = "[[policy]]\nname = \"inner\"\neffect = \"allow\"\nsockets = { names = [\"inner\", \"plain\"] }\n\
                           [policy.allow.ssh]\n";

struct Site {
    bastion: Sshd,
    target: Sshd,
    gateway: Gateway,
    ssh: Ssh,
}

/// A socket to a server of the harness, by fingerprint.
fn to(name: &str, sshd: &Sshd, more: &str) -> String {
    let lines = format!("{}host_key = {:?}\n{more}", own_login(sshd), sshd.host_fingerprint());
    socket(name, &sshd.address(), &lines)
}

impl Site {
    /// A socket `inner` that is reached through `bastion`.
    async fn start(bastion: &str) -> Self {
        let (bastion, target, plain) = (Sshd::start_with(bastion).await, Sshd::start().await, Sshd::start().await);
        let setup = Setup::new().policies(INNER_ALONE).ssh("plain", &plain);
        let setup = setup.socket(&to("inner", &target, "via = \"bastion\"")).socket(&to("bastion", &bastion, ""));
        let gateway = setup.start().await;
        let ssh = gateway.signed_in("alice", "plain").await;
        Self { bastion, target, gateway, ssh }
    }

    async fn everything_is_down(&self) {
        eventually("all connections are down", AT_ONCE, async || {
            let there = |port: u16| process::established_to(port) > 0;
            (!there(self.bastion.port) && !there(self.target.port)).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_server_behind_a_jump_host_is_reached_by_who_may_visit_it() {
    let site = Site::start("").await;
    let mut cat = site.ssh.start(&["inner@gate", "echo $SSH_CONNECTION; exec cat"]);
    let line = cat.receive_line().await;
    assert!(line.ends_with(&format!(" {}", site.target.port)), "{line}");
    cat.send(b"over the river").await;
    assert_eq!(cat.receive(14).await, b"over the river");
    // One connection from the gateway, and one from the jump host.
    assert_eq!((process::established_to(site.bastion.port), process::established_to(site.target.port)), (1, 1));
    assert!(!site.bastion.sessions().is_empty());
    assert_eq!(cat.finish(SOON).await.status, Some(0));
    let row = site.gateway.admin().await.ended("inner").await;
    assert_eq!((row.result, row.outcome), (Authorization::Success, Some(Outcome::Closed)));
    assert_eq!(row.upstream, format!("{} -> {}", site.bastion.address(), site.target.address()));
    site.everything_is_down().await;
    // The way through is no visit.
    let done = site.ssh.run("bastion", "true").await;
    assert_eq!(site.gateway.admin().await.newest("bastion").await.result, Authorization::Denied, "{done:?}");
}

#[tokio::test]
async fn a_chain_of_jump_hosts_is_gone_through_in_order() {
    let (first, second, target) = (Sshd::start().await, Sshd::start().await, Sshd::start().await);
    let setup = Setup::new().ssh("plain", &target).socket(&to("inner", &target, "via = \"second\""));
    let setup = setup.socket(&to("second", &second, "via = \"first\"")).socket(&to("first", &first, ""));
    let gateway = setup.start().await;
    let ssh = gateway.signed_in("alice", "plain").await;
    assert_eq!(ssh.run("inner", "echo in").await.ok(), "in\n");
    for sshd in [&first, &second] {
        sshd.log_with("Accepted publickey").await;
    }
}

#[tokio::test]
async fn a_jump_host_that_is_not_the_expected_one_or_does_not_lead_on_is_told() {
    let mut site = Site::start("").await;
    let pinned = site.bastion.host_fingerprint();
    site.bastion.change_host_key("ed25519").await;
    let done = site.ssh.run("inner", "true").await;
    let words = done.refusal();
    assert!(words.contains("at a jump host") && words.contains(&pinned), "{words}");
    assert!(words.contains(&site.bastion.host_fingerprint()) && !words.contains("bastion"), "{words}");
    // Nobody logged in anywhere.
    assert!(!site.bastion.log().contains("Accepted") && !site.target.log().contains("Accepted"));
    let row = site.gateway.admin().await.ended("inner").await;
    assert_eq!(row.outcome, Some(Outcome::UpstreamFailed));
    site.gateway.log_with("jump_host=\"bastion\"").await;
}

#[tokio::test]
async fn a_server_is_verified_behind_its_jump_host_too() {
    let mut site = Site::start("").await;
    let pinned = site.target.host_fingerprint();
    site.target.change_host_key("ed25519").await;
    let done = site.ssh.run("inner", "true").await;
    assert!(done.refusal().contains(&pinned) && !done.refusal().contains("jump host"), "{done:?}");
    assert!(!site.target.log().contains("Accepted"), "{}", site.target.log());
    site.bastion.log_with("Accepted publickey").await;
    site.everything_is_down().await;
}

#[tokio::test]
async fn a_jump_host_that_forbids_or_cannot_reach_is_told() {
    let forbids = Site::start("AllowTcpForwarding no").await;
    let done = forbids.ssh.run("inner", "true").await;
    assert!(done.refusal().contains("forbids to lead on"), "{done:?}");
    let mut site = Site::start("").await;
    // Nothing listens there any more.
    site.target.end();
    let done = site.ssh.run("inner", "true").await;
    assert!(done.refusal().contains("cannot reach the server"), "{done:?}");
    site.everything_is_down().await;
}

#[tokio::test]
async fn a_kill_ends_the_whole_way_also_under_a_flood_that_nobody_reads() {
    let site = Site::start("").await;
    let api = site.gateway.admin().await;
    let mut terminal = site.ssh.terminal(&["-t", "inner@gate", "sh"]);
    terminal.send("echo $((6*7))\n");
    terminal.expect("42").await;
    api.kill(&api.live("inner").await, "lunch is ready", AT_ONCE).await;
    assert!(!terminal.wait(SOON).await.success());
    assert!(terminal.text().contains("lunch is ready"), "{}", terminal.text());
    site.everything_is_down().await;
    let before = process::resident(site.gateway.pid());
    let mut flood = site.ssh.start(&["inner@gate", "echo $$; exec cat /dev/zero"]);
    let target: u32 = flood.receive_line().await.parse().unwrap();
    process::signal(flood.pid(), Signal::STOP);
    eventually("output is queued to the brim", SOON, async || {
        let before = process::cpu_ticks(target);
        tokio::time::sleep(Duration::from_millis(500)).await;
        (process::cpu_ticks(target) <= before + 1).then_some(())
    })
    .await;
    // What is held on the way is bounded at every hop.
    let after = process::resident(site.gateway.pid());
    assert!(after < before + (96 << 20), "memory went from {before} to {after} bytes");
    api.kill(&api.live("inner").await, "stuck", AT_ONCE).await;
    site.everything_is_down().await;
    process::signal(flood.pid(), Signal::CONT);
}

#[tokio::test]
async fn the_end_of_a_jump_host_ends_the_session() {
    let site = Site::start("").await;
    let mut cat = site.ssh.start(&["inner@gate", "cat"]);
    cat.send(b"a").await;
    cat.receive(1).await;
    for pid in site.bastion.sessions() {
        process::signal(pid, Signal::KILL);
    }
    let done = cat.finish(SOON).await;
    assert!(!done.refusal().is_empty(), "{done:?}");
    let row = site.gateway.admin().await.ended("inner").await;
    assert_eq!(row.outcome, Some(Outcome::UpstreamFailed));
    site.everything_is_down().await;
}

#[tokio::test]
async fn bulk_goes_both_ways_through_a_jump_host_and_memory_stays_flat() {
    let site = Site::start("").await;
    let line = "head -c 100M /dev/zero | $SSH inner@gate cat | cksum";
    let done = site.ssh.bash(line, Duration::from_secs(400)).await;
    let expected = site.ssh.bash("head -c 100M /dev/zero | cksum", SOON).await;
    assert_eq!(done.ok(), expected.ok());
    // Into a reader that takes 40 MB/s.
    let before = process::resident(site.gateway.pid());
    let reader = "total=0; while got=$(head -c 4M | wc -c); [ $got -gt 0 ]; do total=$((total + got)); sleep 0.1; done; echo $total";
    let line = format!("$SSH inner@gate 'head -c 200M /dev/zero' | ({reader})");
    assert_eq!(site.ssh.bash(&line, Duration::from_secs(200)).await.ok(), "209715200\n");
    let after = process::resident(site.gateway.pid());
    assert!(after < before + (64 << 20), "memory went from {before} to {after} bytes");
}
