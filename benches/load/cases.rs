//! Q3 echo, Q11 memory, Q16 and the hundred thousand sessions, Q15 the size of recordings.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::fleet::Fleet;
use crate::harness::{SOON, Setup, Sshd, eventually, gateway, process};
use crate::percentile;

/// Q3: one key there and back, stock `ssh` and `sshd`, direct and through the gateway in turn, a hundred keys a turn.
pub async fn echo(keys: usize) {
    const TURN: usize = 100;
    let sshd = Sshd::start().await;
    let setup = Setup::new().ssh("recorded", &sshd).ssh_with("unrecorded", &sshd, "record = false");
    let gate = setup.start().await;
    let ssh = gate.signed_in("alice", "recorded").await;
    let (login, hosts) = (sshd.login_key(), ssh.path("known_hosts.direct"));
    let direct = format!(
        "Host direct\nHostName 127.0.0.1\nPort {}\nIdentityFile {}\nUser {}\nStrictHostKeyChecking accept-new\n\
         UserKnownHostsFile {}\n",
        sshd.port,
        login.display(),
        gateway::whoami(),
        hosts.display()
    );
    let config = fs::read_to_string(ssh.path("config")).unwrap();
    fs::write(ssh.path("config"), format!("{config}{direct}")).unwrap();
    let ways = ["direct", "recorded@gate", "unrecorded@gate"];
    let mut open = Vec::new();
    for way in ways {
        let mut cat = ssh.start(&[way, "echo up; exec cat"]);
        cat.receive_line().await;
        open.push((cat, Vec::new()));
    }
    for _ in 0..keys.div_ceil(TURN) {
        for (cat, times) in &mut open {
            for _ in 0..TURN {
                let begin = Instant::now();
                cat.send(b"x").await;
                cat.receive(1).await;
                times.push(begin.elapsed().as_secs_f64() * 1e3);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }
    println!(
        "\n| Q3: echo of {keys} keys | p50 ms | p99 ms | added p50 | added p99 |\n| --- | --- | --- | --- | --- |"
    );
    let (p50, p99) = (percentile(&mut open[0].1, 0.5), percentile(&mut open[0].1, 0.99));
    for (way, (_, times)) in ways.iter().zip(&mut open) {
        let (this50, this99) = (percentile(times, 0.5), percentile(times, 0.99));
        println!("| {way} | {this50:.3} | {this99:.3} | {:.3} | {:.3} |", this50 - p50, this99 - p99);
    }
}

/// Q11: what an idle session takes, and what is given back.
pub async fn idle(count: usize) {
    let fleet = Fleet::start("").await;
    let pid = fleet.gateway.pid();
    // Caches and pools fill with the first sessions, and are nobody's.
    for _ in 0..20 {
        fleet.visit("true").await.finish().await;
    }
    let mut told = Vec::new();
    println!("\n| Q11: {count} idle sessions | MB | per session KB | descriptors |\n| --- | --- | --- | --- |");
    for round in ["first", "again"] {
        let (before, files) = settled(pid).await;
        let mut visitors = Vec::new();
        for _ in 0..count {
            let mut visitor = fleet.visit("cat").await;
            visitor.receive(3).await;
            visitors.push(visitor);
        }
        let (during, open) = settled(pid).await;
        for visitor in visitors {
            visitor.leave().await;
        }
        let api = fleet.gateway.admin().await;
        eventually("all rows are closed", SOON * 3, async || api.rows("live=true").await.is_empty().then_some(()))
            .await;
        tokio::time::sleep(GIVEN_BACK).await;
        let (after, left) = settled(pid).await;
        let each = during.saturating_sub(before) / 1024 / count as u64;
        told.push((round, before, files, during, open, after, left, each));
    }
    for (round, before, files, during, open, after, left, each) in told {
        let mb = |bytes: u64| bytes >> 20;
        println!("| {round}: before | {} | | {files} |", mb(before));
        println!("| {round}: open | {} | {each} | {open} |", mb(during));
        println!("| {round}: after | {} | | {left} |", mb(after));
    }
}

/// How long the gateway may take to give memory back.
const GIVEN_BACK: Duration = Duration::from_secs(20);

/// Q16, and whether anything is left behind: sessions one after another, 16 at a time.
pub async fn churn(count: usize) {
    const AT_ONCE: usize = 16;
    let fleet = Arc::new(Fleet::start("").await);
    let pid = fleet.gateway.pid();
    for _ in 0..100 {
        fleet.visit("true").await.finish().await;
    }
    let (memory, files) = settled(pid).await;
    let (begin, cpu) = (Instant::now(), process::cpu_ticks(pid));
    let left = Arc::new(AtomicUsize::new(count));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        let (fleet, left) = (fleet.clone(), left.clone());
        workers.spawn(async move {
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
                assert_eq!(fleet.visit("true").await.finish().await, 0);
            }
        });
    }
    println!("\n| Q16: {count} sessions | per second | per second of gateway CPU | MB | descriptors |");
    println!("| --- | --- | --- | --- | --- |");
    let mut shown = count;
    while !workers.is_empty() {
        let step = tokio::time::timeout(Duration::from_secs(1), workers.join_next()).await;
        if let Ok(Some(done)) = step {
            done.unwrap();
        }
        let now = left.load(Ordering::Relaxed);
        if now + count / 10 <= shown {
            shown = now;
            let files = process::descriptors(pid);
            println!("| after {} | | | {} | {files} |", count - now, process::resident(pid) >> 20);
        }
    }
    let took = begin.elapsed().as_secs_f64();
    let busy = (process::cpu_ticks(pid) - cpu) as f64 / 100.0;
    let api = fleet.gateway.admin().await;
    eventually("all rows are closed", SOON, async || api.rows("live=true").await.is_empty().then_some(())).await;
    let (after, now) = settled(pid).await;
    println!("| before | | | {} | {files} |", memory >> 20);
    println!("| end | {:.0} | {:.0} | {} | {now} |", count as f64 / took, count as f64 / busy, after >> 20);
}

/// Q15: what a recording takes on disk, against the bytes that passed.
pub async fn size() {
    const BYTES: usize = 64 << 20;
    let sshd = Sshd::start().await;
    let gate = Setup::new().ssh("web", &sshd).start().await;
    let ssh = gate.signed_in("alice", "web").await;
    let noise = sshd.path("noise");
    fs::write(&noise, crate::harness::noise(1, BYTES)).unwrap();
    let cases = [
        ("listings in colour, slowly", "TERM=xterm-256color; for i in $(seq 40); do ls -la --color=always /usr/bin /usr/lib /etc | head -c 20000; sleep 0.1; done".to_owned()),
        ("a busy screen", "for i in $(seq 600); do printf '\\033[H'; head -c 1500 /proc/meminfo; printf '\\033[31m%s\\033[0m' $i; sleep 0.02; done".to_owned()),
        ("compiler output", "for i in $(seq 20000); do echo \"   Compiling crate-$i v1.$((i % 7)).$((i % 31)) (/home/user/src/project/crates/crate-$i)\"; done".to_owned()),
        ("incompressible", format!("cat {}", noise.display())),
    ];
    println!("\n| Q15: recording | bytes passed | on disk | ratio |\n| --- | --- | --- | --- |");
    for (name, command) in cases {
        let before = below(&gate.data().join("recordings"));
        let passed = ssh.run("web", &command).await.stdout.len();
        gate.admin().await.ended("web").await;
        let kept = below(&gate.data().join("recordings")) - before;
        println!("| {name} | {passed} | {kept} | {:.3} |", kept as f64 / passed as f64);
    }
}

/// Memory and descriptors once they change no more.
async fn settled(pid: u32) -> (u64, usize) {
    let mut last = (0, 0);
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = (process::resident(pid), process::descriptors(pid));
        if now.0.abs_diff(last.0) < 1 << 18 && now.1 == last.1 {
            return now;
        }
        last = now;
    }
    last
}

/// The bytes of all files below.
fn below(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().flatten();
    entries
        .map(|entry| match entry.file_type().unwrap().is_dir() {
            true => below(&entry.path()),
            false => entry.metadata().unwrap().len(),
        })
        .sum()
}
