//! Q17: the start with a full book.

use std::time::Instant;

use rusqlite::Connection;

use crate::harness::{Setup, Sshd};

/// Copies one row many times, as if a year had passed, and starts the gateway again.
pub async fn start(rows: i64) {
    let sshd = Sshd::start().await;
    let mut gate = Setup::new().ssh("web", &sshd).start().await;
    let ssh = gate.signed_in("alice", "web").await;
    ssh.run("web", "true").await;
    gate.admin().await.ended("web").await;
    gate.stop().await;
    fill(&gate.data().join("sessions.db"), rows);
    println!("\n| Q17: start to ready | rows | s |\n| --- | --- | --- |");
    for run in ["first", "second", "third", "after a crash"] {
        let begin = Instant::now();
        gate.start_again().await;
        println!("| {run} | {rows} | {:.3} |", begin.elapsed().as_secs_f64());
        match run {
            "third" => gate.crash(),
            _ => drop(gate.stop().await),
        }
    }
}

fn fill(path: &std::path::Path, rows: i64) {
    let db = Connection::open(path).unwrap();
    let columns: Vec<String> = db
        .prepare("SELECT name FROM pragma_table_info('sessions') WHERE name NOT IN ('seq', 'session_id', 'start_time', 'changed')")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let columns = columns.join(", ");
    let copy = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
         INSERT INTO sessions (session_id, start_time, {columns})
         SELECT randomblob(16), start_time - i * 30000000, {columns}
         FROM n, (SELECT * FROM sessions ORDER BY seq LIMIT 1)"
    );
    db.execute(&copy, [rows]).unwrap();
    let events = "INSERT INTO events (session, created_at, type, status, metadata)
         SELECT s.seq, s.start_time, e.type, e.status, e.metadata FROM sessions s
         JOIN (SELECT type, status, metadata FROM events LIMIT 3) e WHERE s.seq > 10";
    db.execute(events, []).unwrap();
}
