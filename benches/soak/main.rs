//! The soak: people at work for an hour or longer, with the stock `ssh` and a real `sshd`; shells with an editor in them,
//! commands, transfers both ways, refusals, kills, clients that vanish, replays and watchers. It fails when a checksum is
//! wrong, a row does not end as it must, memory or descriptors grow, or a recording is not complete at the end.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a program for developers, which may stop")]

mod people;

#[allow(dead_code, unused_imports, reason = "the tests use the rest of it")]
#[path = "../../tests/it/harness/mod.rs"]
mod harness;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::{Gateway, SOON, Setup, Ssh, Sshd, eventually, process};
use people::Work;

/// What may be in use more at the end than after the first tenth, when everything has been in use once.
const MORE_MEMORY: u64 = 24 << 20;
const MORE_DESCRIPTORS: usize = 8;

/// What the people share.
pub struct Soak {
    pub gateway: Gateway,
    pub target: Sshd,
    pub alice: Ssh,
    pub bob: Ssh,
    pub until: Instant,
}

#[tokio::main]
async fn main() {
    // The harness's futures stay on one thread.
    tokio::task::LocalSet::new().run_until(soak(minutes())).await;
}

async fn soak(minutes: f64) {
    let soak = Arc::new(start(minutes).await);
    let mut people = tokio::task::JoinSet::new();
    let work = Arc::new(Work::default());
    for person in people::ALL {
        let (soak, work) = (soak.clone(), work.clone());
        people.spawn_local(async move { person(soak, work).await });
    }
    let baseline = report(&soak, &work, &mut people, minutes).await;
    finish(&soak, &work, baseline).await;
}

async fn start(minutes: f64) -> Soak {
    let target = Sshd::start().await;
    let policies = format!(
        "{}\n[[policy]]\nname = \"contractors\"\neffect = \"allow\"\nwho = {{ groups = [\"contractors\"] }}\n\
         [policy.allow.ssh]\nexec = [\"date\"]\n",
        harness::gateway::POLICIES
    );
    let setup = Setup::new().ssh("web", &target).policies(&policies);
    let gateway = setup.more("[limits]\nconnections_per_address = 5000").start().await;
    let alice = gateway.signed_in("alice", "web").await;
    let bob = gateway.signed_in("bob", "web").await;
    Soak { gateway, target, alice, bob, until: Instant::now() + Duration::from_secs_f64(minutes * 60.0) }
}

/// Prints how it goes until everybody has gone home; returns memory and descriptors after the first tenth.
async fn report(soak: &Soak, work: &Work, people: &mut tokio::task::JoinSet<()>, minutes: f64) -> (u64, usize) {
    let (begin, mut baseline, mut shown) = (Instant::now(), None, Instant::now());
    println!("| minute | {} | MB | descriptors |", people::NAMES.join(" | "));
    println!("| --- |{}", " --- |".repeat(people::NAMES.len() + 2));
    while !people.is_empty() {
        if let Ok(Some(gone)) = tokio::time::timeout(Duration::from_secs(1), people.join_next()).await {
            gone.expect("everybody does their work");
        }
        let pid = soak.gateway.pid();
        assert!(process::is_alive(pid), "the gateway is gone");
        if baseline.is_none() && begin.elapsed().as_secs_f64() > minutes * 6.0 {
            baseline = Some((process::resident(pid), process::descriptors(pid)));
        }
        if shown.elapsed() > Duration::from_secs_f64((minutes * 1.5).max(5.0)) {
            shown = Instant::now();
            let (memory, files) = (process::resident(pid) >> 20, process::descriptors(pid));
            println!("| {:.1} | {} | {memory} | {files} |", begin.elapsed().as_secs_f64() / 60.0, work.line());
        }
    }
    baseline.expect("longer than its first tenth")
}

/// Everything is closed, everything is complete, nothing has grown.
async fn finish(soak: &Soak, work: &Work, (memory, files): (u64, usize)) {
    let api = soak.gateway.admin().await;
    eventually("all rows are closed", SOON * 3, async || api.rows("live=true").await.is_empty().then_some(())).await;
    let pid = soak.gateway.pid();
    eventually("descriptors are given back", SOON * 3, async || {
        (process::descriptors(pid) <= files + MORE_DESCRIPTORS).then_some(())
    })
    .await;
    let after = process::resident(pid);
    println!("\nmemory {} MB after the first tenth, {} MB at the end", memory >> 20, after >> 20);
    println!("descriptors {files} and {}", process::descriptors(pid));
    let mut checked = 0;
    for page in 1.. {
        let rows = api.rows(&format!("page={page}&page_size=500")).await;
        for row in &rows {
            work.check(row);
            checked += 1;
        }
        if rows.len() < 500 {
            break;
        }
    }
    println!("{checked} rows ended as they should");
    let files = recordings(&soak.gateway);
    for some in files.chunks(500) {
        let verified = Command::new(env!("CARGO_BIN_EXE_gatescribe")).arg("verify").args(some).output().unwrap();
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    }
    println!("{} recordings verify as complete", files.len());
    assert!(after < memory + MORE_MEMORY, "memory grew");
}

fn recordings(gateway: &Gateway) -> Vec<std::path::PathBuf> {
    let mut dirs = vec![gateway.data().join("recordings")];
    let mut found = Vec::new();
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => dirs.push(entry.path()),
                false => found.push(entry.path()),
            }
        }
    }
    found.retain(|path| path.extension().is_some_and(|end| end == "gsr"));
    found
}

fn minutes() -> f64 {
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    match (words.next().as_deref(), words.next()) {
        (None, _) => 60.0,
        (Some("--minutes"), Some(value)) => value.parse().expect("a number"),
        _ => panic!("usage: --minutes N"),
    }
}
