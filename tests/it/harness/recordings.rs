//! Recordings read from the disk with the library's own reader, as an auditor without a gateway would.

use std::path::{Path, PathBuf};
use std::time::Duration;

use gatescribe::record::keys::{Keys, RecordingKey};
use gatescribe::record::observation::{Direction, Observation, What};
use gatescribe::record::{Durability, Recordings, Settings, Verdict, default_spool};
use gatescribe::store::RecordingRow;
use uuid::Uuid;

/// A recording, read to its end.
pub struct Recorded {
    pub observations: Vec<Observation>,
    pub verdict: Verdict,
}

/// Reads a recording below a gateway's data directory.
pub async fn read(data: &Path, session: Uuid, row: &RecordingRow) -> Recorded {
    let container = find(data, &format!("{}.gsr", row.recording_id));
    // <dir>/<date>/<session>/<recording>.gsr
    let dir = container.ancestors().nth(3).unwrap().to_owned();
    let settings = Settings {
        dir,
        spool: default_spool(data),
        durability: Durability::Process,
        keep_free: 0,
        flush_after: Duration::from_secs(1),
        gateway: Uuid::nil(),
        keys: keys(data),
    };
    let recordings = Recordings::open(settings).unwrap();
    let mut reader = recordings.open_reader(session, row.recording_id, row.start_time).await.unwrap();
    tokio::task::spawn_blocking(move || {
        let observations: Vec<_> = reader.by_ref().map(Result::unwrap).collect();
        Recorded { observations, verdict: reader.verdict() }
    })
    .await
    .unwrap()
}

/// The key that a gateway made for itself below its data directory.
pub fn keys(data: &Path) -> Keys {
    Keys::new(RecordingKey::load(&data.join("recording.key")).unwrap(), Vec::new())
}

/// Everything that went one way on one stream, in order.
pub fn bytes(observations: &[Observation], way: Direction, of: u32) -> Vec<u8> {
    let pieces = observations.iter().filter_map(|observation| match &observation.what {
        What::Bytes { direction, stream, data } if (*direction, *stream) == (way, of) => Some(data.as_ref()),
        _ => None,
    });
    pieces.collect::<Vec<_>>().concat()
}

fn find(dir: &Path, name: &str) -> PathBuf {
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap().flatten() {
            match entry.path() {
                path if path.is_dir() => dirs.push(path),
                path if path.file_name().is_some_and(|n| n == name) => return path,
                _ => {}
            }
        }
    }
    panic!("no {name} below {}", dir.display());
}
