//! What operators look at: readiness, metrics, the log and its level, traces.

use std::io::{PipeWriter, Read, Write};
use std::time::Duration;

use gatescribe::record::default_spool;
use reqwest::Method;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::collector::Collector;
use crate::harness::issuer::Issuer;
use crate::harness::{Api, Gateway, SOON, Setup, Ssh, Sshd, eventually, free_port, process};

async fn gate(more: &str) -> (Sshd, Gateway, Ssh) {
    let sshd = Sshd::start().await;
    let gateway = Setup::new().ssh("web", &sshd).more(more).start().await;
    let ssh = gateway.signed_in("alice", "web").await;
    (sshd, gateway, ssh)
}

/// Somebody who is known and may not.
async fn refuse_bob(gateway: &Gateway) {
    let mut sign_in = Ssh::new(gateway.ssh).sign_in(&["web@gate", "true"]).await;
    let digits = gateway.browser().approve(&sign_in.link, "bob").await;
    sign_in.answer(&digits);
    assert!(sign_in.ssh.finish(SOON).await.refusal().contains("no policy lets bob"));
}

/// What `/readyz` says is wrong; `None` when it is ready.
async fn troubles(api: &Api) -> Option<Vec<String>> {
    let answer = api.get("/readyz").await;
    let told: Value = serde_json::from_slice(&answer.body).unwrap();
    match answer.status.as_u16() {
        200 => {
            assert_eq!(told, json!({"status": "ready"}));
            None
        }
        503 => {
            assert_eq!(told["status"], "not ready");
            Some(serde_json::from_value(told["reasons"].clone()).unwrap())
        }
        other => panic!("{other}: {told}"),
    }
}

async fn until_ready(api: &Api) {
    eventually("it is ready", SOON, async || troubles(api).await.is_none().then_some(())).await;
}

async fn until_trouble(api: &Api, words: &str) {
    eventually(words, SOON, async || troubles(api).await.filter(|all| all == &[words])).await;
}

#[tokio::test]
async fn readiness_says_what_is_missing_and_comes_back() {
    let gateway = Setup::new().start().await;
    let api = gateway.api(None);
    until_ready(&api).await;
    let spool = default_spool(&gateway.data());
    std::fs::remove_dir(&spool).unwrap();
    until_trouble(&api, "there is no room for what is being recorded").await;
    std::fs::create_dir(&spool).unwrap();
    until_ready(&api).await;
    let recordings = gateway.data().join("recordings");
    std::fs::rename(&recordings, recordings.with_extension("away")).unwrap();
    until_trouble(&api, "recordings cannot be written").await;
    std::fs::rename(recordings.with_extension("away"), &recordings).unwrap();
    until_ready(&api).await;
}

#[tokio::test]
async fn a_full_disk_is_no_place_to_begin() {
    let gateway = Setup::new().recording("keep_free = \"1000TiB\"").start().await;
    until_trouble(&gateway.api(None), "there is no room left for recordings").await;
}

#[tokio::test]
async fn a_provider_that_never_answered_is_missed() {
    let (https, ssh) = (free_port(), free_port());
    let issuer = Issuer::other(&format!("http://127.0.0.1:{}", free_port()), "gatescribe", "secret");
    let gateway = Setup::new().start_at(issuer, https, ssh).await;
    let api = gateway.api(None);
    until_trouble(&api, "the identity provider has not answered yet").await;
    assert_eq!(api.get("/healthz").await.status, 200, "alive all the same");
}

/// The value of a series, 0 where it is not there yet.
async fn metric(api: &Api, series: &str) -> f64 {
    let text = String::from_utf8(api.get("/metrics").await.ok()).unwrap();
    assert!(text.ends_with("# EOF\n"), "{text}");
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or(0.0)
}

#[tokio::test]
async fn metrics_follow_what_happens_and_are_not_for_everybody() {
    let (_sshd, gateway, ssh) = gate("").await;
    let api = gateway.admin().await;
    assert_eq!(gateway.api(None).get("/metrics").await.status, 401);
    assert_eq!(metric(&api, "gatescribe_sessions_opened_total{type=\"ssh\"}").await, 1.0);
    let received = metric(&api, "gatescribe_recorded_output_bytes_total").await;
    assert_eq!(ssh.run("web", "head -c 100000 /dev/zero").await.stdout.len(), 100_000);
    assert_eq!(metric(&api, "gatescribe_recorded_output_bytes_total").await - received, 100_000.0);
    let running = ssh.start(&["web@gate", "sleep 600"]);
    let live = api.live("web").await;
    assert_eq!(metric(&api, "gatescribe_sessions_live").await, 1.0);
    assert_eq!(metric(&api, "gatescribe_process_sessions_live").await, 1.0);
    assert_eq!(metric(&api, "gatescribe_connections_open{listener=\"ssh\"}").await, 1.0);
    api.kill(&live, "enough", SOON).await;
    drop(running);
    let killed = "gatescribe_sessions_ended_total{type=\"ssh\",outcome=\"killed\"}";
    assert_eq!(metric(&api, killed).await, 1.0);
    assert_eq!(metric(&api, "gatescribe_kill_latency_seconds_count").await, 1.0);
    refuse_bob(&gateway).await;
    assert_eq!(metric(&api, "gatescribe_denials_total{type=\"ssh\",reason=\"no_rule\"}").await, 1.0);
    assert_eq!(metric(&api, "gatescribe_sessions_live").await, 0.0);
    for series in ["gatescribe_spool_free_bytes", "gatescribe_recordings_free_bytes"] {
        assert!(metric(&api, series).await > 1e6, "{series}");
    }
    eventually("the connections are gone", SOON, async || {
        (metric(&api, "gatescribe_connections_open{listener=\"ssh\"}").await == 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn live_sessions_are_counted_across_an_upgrade() {
    let (_sshd, gateway, ssh) = gate("").await;
    let mut cat = ssh.start(&["web@gate", "cat"]);
    cat.send(b"a").await;
    cat.receive(1).await;
    let api = gateway.admin().await;
    process::signal(gateway.pid(), Signal::USR2);
    eventually("the new process answers", SOON, async || {
        let readies = gateway.stdout().iter().filter(|line| *line == "ready").count();
        (readies == 2 && metric(&api, "gatescribe_process_sessions_live").await == 0.0).then_some(())
    })
    .await;
    assert_eq!(metric(&api, "gatescribe_sessions_live").await, 1.0);
    cat.send(b"b").await;
    assert_eq!(cat.receive(1).await, b"b");
}

#[tokio::test]
async fn the_level_changes_while_it_runs_and_comes_back() {
    let (_sshd, gateway, ssh) = gate("").await;
    let api = gateway.admin().await;
    let debug_lines = || gateway.log().lines().filter(|line| line.contains(" DEBUG ")).count();
    let path = "/api/v1/log";
    assert_eq!(gateway.api(None).call(Method::PUT, path, Some(json!({"level": "debug"}))).await.status, 401);
    ssh.run("web", "true").await;
    assert_eq!(debug_lines(), 0);
    let change = json!({"level": "debug", "for": "10m"});
    api.call(Method::PUT, path, Some(change)).await.ok();
    eventually("debug lines", SOON, async || {
        Ssh::new(gateway.ssh).start(&["-o", "BatchMode=yes", "web@gate", "true"]).finish(SOON).await;
        (debug_lines() > 0).then_some(())
    })
    .await;
    api.call(Method::PUT, path, Some(json!({"level": "debug", "for": "1s"}))).await.ok();
    eventually("the configured level is back", SOON, async || {
        (api.get(path).await.ok_json() == json!({"level": "info", "until": null, "configured": "info"})).then_some(())
    })
    .await;
    let lines = debug_lines();
    ssh.run("web", "true").await;
    assert_eq!(debug_lines(), lines);
}

#[tokio::test]
async fn a_json_log_is_one_whole_object_an_event() {
    let (_sshd, gateway, ssh) = gate("[log]\nformat = \"json\"\n").await;
    ssh.run("web", "true").await;
    refuse_bob(&gateway).await;
    let parse = |line: &str| serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("no JSON: {line:?}"));
    let lines: Vec<Value> = gateway.log_with("no policy lets bob").await.lines().map(parse).collect();
    for line in &lines {
        assert!(["timestamp", "level", "target", "message"].iter().all(|key| line[key].is_string()), "{line}");
    }
    let refused = lines.iter().find(|line| line["message"] == "refused").expect("bob was refused");
    let connection = refused["spans"].as_array().unwrap().iter().find(|span| span["name"] == "connection").unwrap();
    assert!(connection["client"].as_str().unwrap().starts_with("127.0.0.1:"), "{refused}");
    assert!(refused["reason"].as_str().unwrap().contains("no policy lets bob"), "{refused}");
}

/// The writing end of a pipe that is full.
fn full(writer: PipeWriter) -> PipeWriter {
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    while (&writer).write(&[b'\n'; 4096]).is_ok() {}
    fcntl_setfl(&writer, flags).unwrap();
    writer
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_nobody_up() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let sshd = Sshd::start().await;
    let gateway = Setup::new().ssh("web", &sshd).more("[log]\nlevel = \"debug\"\n").stderr(full(writer)).start().await;
    let ssh = gateway.signed_in("alice", "web").await;
    let api = gateway.admin().await;
    assert_eq!(gateway.api(None).get("/healthz").await.status, 200);
    let running = ssh.start(&["web@gate", "sleep 600"]);
    let live = api.live("web").await;
    api.kill(&live, "enough", SOON).await;
    assert_ne!(running.finish(SOON).await.status, Some(0));
    assert_eq!(metric(&api, "gatescribe_log_lines_dropped_total").await, 0.0, "it only waits");
    // What waited is there once somebody reads.
    let (read, mut reading) = tokio::sync::mpsc::channel(16);
    let mut log = Vec::new();
    std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = reader.read(&mut piece)
            && read.blocking_send(piece[..length].to_vec()).is_ok()
        {}
    });
    while !String::from_utf8_lossy(&log).contains(" serving ") {
        let piece = tokio::time::timeout(SOON, reading.recv()).await.expect("the log goes on");
        log.extend(piece.unwrap());
    }
}

fn traced(url: &str) -> String {
    format!("[telemetry]\notlp = \"{url}\"\nservice_name = \"gate-7\"\n")
}

#[tokio::test]
async fn a_connection_is_traced_from_end_to_end() {
    let collector = Collector::start().await;
    let (_sshd, gateway, ssh) = gate(&traced(&collector.url)).await;
    assert_eq!(ssh.run("web", "echo not-for-traces").await.status, Some(0));
    let all = ["connection", "sign_in", "decision", "dial", "channel"];
    let trace = eventually("a whole trace", SOON, async || {
        let spans = collector.spans();
        let roots = spans.iter().filter(|span| span.name == "connection");
        let traces = roots.map(|root| spans.iter().filter(|s| s.trace == root.trace).cloned().collect::<Vec<_>>());
        traces.into_iter().find(|trace| all.iter().all(|name| trace.iter().any(|span| span.name == *name)))
    })
    .await;
    let one = |name: &str| trace.iter().find(|span| span.name == name).unwrap();
    assert_eq!(one("connection").parent, b"");
    for name in ["sign_in", "dial", "channel"] {
        assert_eq!(one(name).parent, one("connection").id, "{name}");
    }
    let sign_ins = || trace.iter().filter(|span| span.name == "sign_in");
    assert!(sign_ins().any(|span| span.id == one("decision").parent), "{trace:?}");
    assert!(one("connection").attributes.iter().any(|(key, value)| key == "client" && value.starts_with("127.0.0.1")));
    assert!(collector.services().iter().all(|name| name == "gate-7"));
    // What is no business of a trace's: commands, tokens.
    let token = gateway.token_of("admin").await;
    assert_eq!(gateway.api(Some(token.clone())).get("/api/v1/whoami").await.status, 200);
    assert!(!collector.contains("not-for-traces") && !collector.contains(&token));
}

#[tokio::test]
async fn nothing_is_traced_that_is_not_sampled() {
    let collector = Collector::start().await;
    let (_sshd, mut gateway, ssh) = gate(&format!("{}sample = 0.0\n", traced(&collector.url))).await;
    assert_eq!(ssh.run("web", "true").await.status, Some(0));
    assert!(gateway.stop().await.success());
    assert_eq!(collector.spans(), []);
}

#[tokio::test]
async fn what_is_left_is_sent_when_the_gateway_stops() {
    let collector = Collector::start().await;
    let (_sshd, mut gateway, ssh) = gate(&traced(&collector.url)).await;
    assert_eq!(ssh.run("web", "true").await.status, Some(0));
    assert!(gateway.stop().await.success());
    let channels = collector.spans().iter().filter(|span| span.name == "channel").count();
    assert_eq!(channels, 2, "one of the sign-in and one more: {:?}", collector.spans());
}

#[tokio::test]
async fn a_collector_that_fails_costs_spans_and_nothing_else() {
    let silent = Collector::silent().await;
    let nobody = format!("http://127.0.0.1:{}", free_port());
    for url in [silent.url.clone(), nobody.clone()] {
        let (_sshd, gateway, ssh) = gate(&traced(&url)).await;
        let api = gateway.admin().await;
        for _ in 0..5 {
            assert_eq!(ssh.run("web", "true").await.status, Some(0));
        }
        eventually("drops are counted", SOON + Duration::from_secs(10), async || {
            (metric(&api, "gatescribe_trace_spans_dropped_total").await > 0.0).then_some(())
        })
        .await;
        let told = gateway.log().lines().filter(|line| line.contains("traces cannot be sent")).count();
        assert_eq!(told, 1, "told once, not for each batch");
    }
    assert!(silent.connections() > 0);
}
