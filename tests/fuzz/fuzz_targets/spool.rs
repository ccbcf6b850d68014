//! A live recording, container and spool, with any of their bytes changed, through the reader: must end, without a panic,
//! and must never give out more than was written.
//!
//! The fuzzer's bytes are changes: file and place (3 bytes), how many, and the bytes; so that hashes and keys stay sound
//! where it does not touch them.
#![no_main]

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use gatescribe::record::keys::{Keys, RecordingKey};
use gatescribe::record::observation::{Direction, What};
use gatescribe::record::{Budget, Durability, NewRecording, Recordings, Settings, Tap};
use gatescribe::socket::OnFailure;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::Runtime;
use uuid::Uuid;

struct Live {
    runtime: Runtime,
    recordings: Recordings,
    started: jiff::Timestamp,
    /// The files, and what was in them.
    files: [(PathBuf, Vec<u8>); 2],
    /// Not dropped, because that would seal the recording.
    _tap: Tap,
}

static LIVE: LazyLock<Live> = LazyLock::new(|| make().expect("a recording can be made"));

fuzz_target!(|data: &[u8]| {
    let live = &*LIVE;
    let mut files = live.files.each_ref().map(|(_, bytes)| bytes.clone());
    let mut rest = data;
    while let [a, b, c, length, changes @ ..] = rest {
        let at = usize::from_le_bytes([*a, *b, c & 0x7f, 0, 0, 0, 0, 0]);
        let (new, after) = changes.split_at(changes.len().min(usize::from(*length)));
        let file = &mut files[usize::from(c >> 7)];
        match (*length, file.len()) {
            // Cut there.
            (0, len) => file.truncate(at % (len + 1)),
            (_, 0) => {}
            (_, len) => new.iter().enumerate().for_each(|(n, byte)| file[(at + n) % len] = *byte),
        }
        rest = after;
    }
    for ((path, _), bytes) in live.files.iter().zip(&files) {
        std::fs::write(path, bytes).expect("a file can be written");
    }
    let opened = live.runtime.block_on(live.recordings.open_reader(Uuid::nil(), Uuid::nil(), live.started));
    let Ok(mut reader) = opened else { return };
    let mut observations = 0;
    while let Some(Ok(_)) = reader.next() {
        observations += 1;
        assert!(observations <= 1 << 20, "more than fits");
    }
    reader.verdict();
});

/// A recording with a block in its container, and more in its spool, as a crash leaves it.
fn make() -> Result<Live, Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let shm = PathBuf::from("/dev/shm");
    let base = if shm.is_dir() { shm } else { std::env::temp_dir() };
    forget_runs_before(&base)?;
    let root = base.join(format!("{PREFIX}{}", std::process::id()));
    let key = RecordingKey::random()?;
    let settings = |name: &str| Settings {
        dir: root.join(name).join("recordings"),
        spool: root.join(name).join("spool"),
        durability: Durability::Process,
        keep_free: 0,
        flush_after: Duration::from_secs(3600),
        gateway: Uuid::nil(),
        keys: Keys::new(key.clone(), Vec::new()),
    };
    let started = "2026-11-22T10:00:00Z".parse()?;
    let new = NewRecording {
        session: Uuid::nil(),
        recording: Uuid::nil(),
        kind: "shell".to_owned(),
        started,
        on_failure: OnFailure::EndSession,
        budget: Arc::clone(&Budget::new(u64::MAX)),
    };
    let path = |name: &str| {
        let file = |below: &str| root.join(name).join(below);
        [
            file(&format!("recordings/2026-11-22/{0}/{0}.gsr", Uuid::nil())),
            file(&format!("spool/{}.spool", Uuid::nil())),
        ]
    };
    let (made, tap) = runtime.block_on(async {
        let recordings = Recordings::open(settings("made"))?;
        let tap = recordings.create(new).await?;
        let output = |data: &'static [u8]| What::Bytes {
            direction: Direction::Output,
            stream: 0,
            data: Bytes::from_static(data),
        };
        tap.record(What::Pty { term: "xterm".to_owned(), cols: 80, rows: 24 }).await?;
        tap.record(output(b"in the container\r\n")).await?;
        recordings.raw(Uuid::nil(), Uuid::nil(), started).await?;
        tap.record(output(b"in the spool\r\n")).await?;
        tap.record(What::Env { name: "LANG".to_owned(), value: "C".to_owned() }).await?;
        tap.record(What::ExitStatus { status: 3 }).await?;
        let files: Result<Vec<Vec<u8>>, _> = path("made").iter().map(std::fs::read).collect();
        Ok::<_, Box<dyn std::error::Error>>((files?, tap))
    })?;
    let recordings = Recordings::open(settings("fuzzed"))?;
    let [container, spool] = path("fuzzed");
    std::fs::create_dir_all(container.parent().ok_or("a parent")?)?;
    let mut made = made.into_iter();
    let mut next = || made.next().unwrap_or_default();
    let files = [(container, next()), (spool, next())];
    // The files are held open; what runs in memory goes with the process.
    std::fs::remove_dir_all(root.join("made"))?;
    Ok(Live { runtime, recordings, started, files, _tap: tap })
}

/// A fuzzer ends without tidying up, so the next one does.
fn forget_runs_before(base: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(base)?.flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if process.is_some_and(|id| id.parse::<u32>().is_ok() && !Path::new("/proc").join(id).exists()) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

const PREFIX: &str = "gatescribe-fuzz-";
