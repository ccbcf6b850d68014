//! How large recordings are, beside what was seen: terminal text from this machine's own commands, as a screen shows it, and
//! bytes that do not compress. Sizes only, so the profile that it is built with does not matter.
//!
//! `cargo bench --bench size`. Goals: 0.2 for terminal text, 1.02 for what does not compress.

use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use gatescribe::record::keys::{Keys, RecordingKey};
use gatescribe::record::observation::{Direction, What};
use gatescribe::record::{Budget, Durability, Ending, NewRecording, Recordings, Settings};
use gatescribe::socket::OnFailure;
use uuid::Uuid;

/// What a shell shows at once.
const SCREENFUL: usize = 1500;
/// The same text again and again would compress better than anybody's session.
const MOST: usize = 8 << 20;

type Failed = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let root = std::env::temp_dir().join(format!("gatescribe-size-{}", std::process::id()));
    let settings = Settings {
        dir: root.join("recordings"),
        spool: root.join("spool"),
        durability: Durability::Process,
        keep_free: 0,
        flush_after: Duration::from_secs(3600),
        gateway: Uuid::nil(),
        keys: Keys::new(RecordingKey::random()?, Vec::new()),
    };
    let recordings = Recordings::open(settings)?;
    println!("{:>34} {:>10} {:>10} {:>7}", "what", "seen", "kept", "ratio");
    let mut noise = vec![0; MOST];
    aws_lc_rs::rand::fill(&mut noise).map_err(|_| "no random numbers")?;
    let listing = shown("ls -lR --color=always /usr/lib /etc 2>&1");
    let source = shown("cat src/*.rs src/*/*.rs src/*/*/*.rs 2>&1");
    let processes = shown("for n in 1 2 3 4 5 6 7 8; do cat /proc/[0-9]*/status 2>/dev/null; done");
    for (what, data, piece, pieces) in [
        ("ls -lR in colour", listing, SCREENFUL, 0),
        ("source code", source, SCREENFUL, 0),
        ("process tables", processes, SCREENFUL, 0),
        ("noise in 32 KiB", noise.clone(), 32 * 1024, 0),
        ("noise in 1500 bytes", noise, SCREENFUL, 0),
        ("source code, to disk every 20 KiB", shown("cat src/*/*.rs 2>&1"), SCREENFUL, 13),
    ] {
        let seen = data.len() as u64;
        let kept = runtime.block_on(record(&recordings, data.into(), piece, pieces))?;
        println!("{what:>34} {seen:>10} {kept:>10} {:>7.3}", kept as f64 / seen as f64);
    }
    Ok(std::fs::remove_dir_all(root)?)
}

/// Bytes of the container. `flush` pieces go to disk at a time, as in a session in which little happens; 0: when full.
async fn record(recordings: &Recordings, mut data: Bytes, piece: usize, flush: usize) -> Result<u64, Failed> {
    let new = NewRecording {
        session: Uuid::now_v7(),
        recording: Uuid::now_v7(),
        kind: "bench".to_owned(),
        started: jiff::Timestamp::now(),
        on_failure: OnFailure::EndSession,
        budget: Budget::new(u64::MAX),
    };
    let tap = recordings.create(new).await?;
    for number in 1.. {
        if data.is_empty() {
            break;
        }
        let data = data.split_to(data.len().min(piece));
        tap.record(What::Bytes { direction: Direction::Output, stream: 0, data }).await?;
        if flush > 0 && number % flush == 0 {
            tap.flush().await?;
        }
    }
    Ok(tap.finish(Ending::Complete).await.size)
}

/// What a terminal shows of a command.
fn shown(command: &str) -> Vec<u8> {
    let out = Command::new("sh").args(["-c", command]).output().map(|out| out.stdout).unwrap_or_default();
    let lines = out.split(|byte| *byte == b'\n').flat_map(|line| [line, b"\r\n"].concat());
    lines.take(MOST).collect()
}
