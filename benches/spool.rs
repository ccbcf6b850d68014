//! What recording costs before anything may be forwarded: nanoseconds per record and MB/s, and with the drain behind it.
//!
//! `cargo bench --bench spool`. Prints the median of five rounds; machines are noisy, so compare within one run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gatescribe::record::keys::{Keys, RecordingKey};
use gatescribe::record::observation::{Direction, What};
use gatescribe::record::{Budget, Durability, Ending, NewRecording, Recordings, Settings, default_spool};
use gatescribe::socket::OnFailure;
use uuid::Uuid;

const ROUNDS: usize = 5;
/// Fits into the spool, so that no disk is waited for.
const BURST: usize = 1 << 20;
/// Does not, so that the container's disk has to keep up.
const BULK: usize = 300 << 20;

type Failed = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let root = std::env::temp_dir().join(format!("gatescribe-bench-{}", std::process::id()));
    let spool = default_spool(&root);
    println!("spool in {}", spool.display());
    let settings = Settings {
        dir: root.join("recordings"),
        spool: spool.clone(),
        durability: Durability::Process,
        keep_free: 0,
        flush_after: Duration::from_secs(3600),
        gateway: Uuid::nil(),
        keys: Keys::new(RecordingKey::random()?, Vec::new()),
    };
    let recordings = Recordings::open(settings)?;
    println!("{:>8} {:>6} {:>24} {:>24}", "record", "data", "burst (into the spool)", "bulk (300 MB, drained)");
    for size in [64, 4 << 10, 32 << 10] {
        for (name, data) in [("text", text(size)), ("noise", noise(size)?)] {
            let round = |total: usize| {
                let (recordings, data) = (recordings.clone(), data.clone());
                runtime.block_on(async move { tokio::spawn(record(recordings, data, total / size)).await? })
            };
            let mut burst = Vec::new();
            let mut bulk = Vec::new();
            for _ in 0..ROUNDS {
                burst.push(round(if size == 64 { BURST / 2 } else { BURST })?);
                bulk.push(round(if size == 64 { BULK / 30 } else { BULK })?);
            }
            println!("{size:>8} {name:>6} {:>24} {:>24}", figures(burst, size), figures(bulk, size));
        }
    }
    std::fs::remove_dir_all(root)?;
    Ok(std::fs::remove_dir_all(spool)?)
}

/// Nanoseconds per record, without creating and finishing.
async fn record(recordings: Recordings, data: Bytes, count: usize) -> Result<f64, Failed> {
    let new = NewRecording {
        session: Uuid::now_v7(),
        recording: Uuid::now_v7(),
        kind: "bench".to_owned(),
        started: jiff::Timestamp::now(),
        on_failure: OnFailure::EndSession,
        budget: Arc::clone(&Budget::new(u64::MAX)),
    };
    let tap = recordings.create(new).await?;
    let begin = Instant::now();
    for _ in 0..count {
        tap.record(What::Bytes { direction: Direction::Output, stream: 0, data: data.clone() }).await?;
    }
    let took = begin.elapsed();
    tap.finish(Ending::Complete).await;
    Ok(took.as_nanos() as f64 / count as f64)
}

fn figures(mut nanos: Vec<f64>, size: usize) -> String {
    nanos.sort_by(f64::total_cmp);
    let median = nanos.get(nanos.len() / 2).copied().unwrap_or(f64::NAN);
    format!("{median:>7.0} ns {:>7.0} MB/s", size as f64 * 1e3 / median)
}

fn text(size: usize) -> Bytes {
    let lines = (0..)
        .flat_map(|n| format!("-rw-r--r-- 1 deploy deploy {n:>8} Nov 22 10:{:02} file-{n}\r\n", n % 60).into_bytes());
    lines.take(size).collect::<Vec<u8>>().into()
}

fn noise(size: usize) -> Result<Bytes, Failed> {
    let mut noise = vec![0; size];
    aws_lc_rs::rand::fill(&mut noise).map_err(|_| "no random numbers")?;
    Ok(noise.into())
}
