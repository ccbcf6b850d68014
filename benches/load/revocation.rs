//! Q13: from a change that takes a right away until both TCP connections of every session are closed, with many sessions
//! live, for each kind of change.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;

use crate::fleet::Fleet;
use crate::harness::{SOON, eventually, process};
use crate::percentile;

/// The kinds of change.
const KINDS: [&str; 6] =
    ["rule taken out of the file", "SIGHUP", "lock", "person revoked", "group lost at a sign-in", "window closes"];

/// How long the clients get to connect before the window closes.
const WINDOW: Duration = Duration::from_secs(60);

pub async fn revocation(count: usize) {
    println!("\n| Q13: {count} sessions | client closed p50 ms | p99 | last | last upstream closed |");
    println!("| --- | --- | --- | --- | --- |");
    for kind in KINDS {
        one(kind, count).await;
    }
}

async fn one(kind: &str, count: usize) {
    let fleet = Fleet::start("").await;
    let closes = jiff::Timestamp::now() + WINDOW;
    if kind == "window closes" {
        rewrite(&fleet, |text| {
            text.replace("effect = \"allow\"", &format!("effect = \"allow\"\nwhen.before = \"{closes}\""))
        });
        fleet.gateway.log_with("was read again").await;
    }
    let mut visitors = Vec::new();
    for _ in 0..count {
        let mut visitor = fleet.visit("cat").await;
        visitor.receive(3).await;
        visitors.push(visitor);
    }
    let upstream = fleet.port;
    assert_eq!(process::established_to(upstream), count);
    let mut waiting = JoinSet::new();
    for visitor in visitors {
        waiting.spawn(async move {
            visitor.until_closed().await;
            Instant::now()
        });
    }
    // Made before the clock runs: an administrator's sign-in is not what is measured.
    let api = fleet.gateway.admin().await;
    let begin = match kind {
        "rule taken out of the file" | "SIGHUP" => {
            let change = |text: String| text.replace("\"engineering\"", "\"nobody\"");
            let begin = Instant::now();
            rewrite(&fleet, change);
            if kind == "SIGHUP" {
                process::signal(fleet.gateway.pid(), rustix::process::Signal::HUP);
            }
            begin
        }
        "lock" => {
            let begin = Instant::now();
            let lock = json!({ "target": { "user": "alice@example.com" }, "reason": "measured" });
            api.call(Method::POST, "/api/v1/locks", Some(lock)).await.ok();
            begin
        }
        "person revoked" => {
            let begin = Instant::now();
            api.call(Method::DELETE, "/api/v1/sign-ins?user_email=alice@example.com", None).await.ok();
            begin
        }
        "group lost at a sign-in" => {
            fleet.gateway.issuer.as_ref().unwrap().own.as_ref().unwrap().set_groups("alice", &[]);
            // The whole sign-in counts in: the browser is answered once everybody was asked again.
            let begin = Instant::now();
            fleet.gateway.login("alice").await;
            begin
        }
        _ => {
            let left = closes.duration_since(jiff::Timestamp::now());
            Instant::now() + Duration::try_from(left).expect("this machine is too slow for so many sessions")
        }
    };
    let mut times = Vec::new();
    while let Some(closed) = waiting.join_next().await {
        times.push(closed.unwrap().saturating_duration_since(begin).as_secs_f64() * 1e3);
    }
    let last = eventually("every upstream connection is closed", SOON, async || {
        (process::established_to(upstream) == 0).then(|| begin.elapsed().as_secs_f64() * 1e3)
    })
    .await;
    let (p50, p99, most) = (percentile(&mut times, 0.5), percentile(&mut times, 0.99), percentile(&mut times, 1.0));
    println!("| {kind} | {p50:.0} | {p99:.0} | {most:.0} | {last:.0} |");
}

fn rewrite(fleet: &Fleet, change: impl FnOnce(String) -> String) {
    let file = fleet.gateway.config_file();
    let text = change(std::fs::read_to_string(&file).unwrap());
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, file).unwrap();
}
