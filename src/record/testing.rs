//! What the recorder's tests share: arbitrary observations and recordings in a directory of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;
use uuid::Uuid;

use super::container::{self, Header};
use super::crypt::{self, DataKey};
use super::keys::{Keys, RecordingKey};
use super::observation::{Direction, Observation, What};
use tokio::task::spawn_blocking;

use super::recover::Recovered;
use super::{Budget, Durability, NewRecording, Reader, Recordings, Settings, Tap, container_path};
use crate::socket::OnFailure;

/// Any observation, with small payloads.
pub fn any_what() -> impl Strategy<Value = What> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
    let direction = || prop_oneof![Just(Direction::Input), Just(Direction::Output)];
    let text = || "\\PC{0,20}";
    prop_oneof![
        (direction(), prop_oneof![Just(0), Just(1), any::<u32>()], bytes())
            .prop_map(|(direction, stream, data)| What::Bytes { direction, stream, data }),
        (text(), any::<u32>(), any::<u32>()).prop_map(|(term, cols, rows)| What::Pty { term, cols, rows }),
        (text(), text()).prop_map(|(name, value)| What::Env { name, value }),
        Just(What::Shell),
        bytes().prop_map(|command| What::Exec { command }),
        text().prop_map(|name| What::Subsystem { name }),
        (any::<u32>(), any::<u32>()).prop_map(|(cols, rows)| What::Resize { cols, rows }),
        text().prop_map(|name| What::Signal { name }),
        direction().prop_map(|direction| What::Eof { direction }),
        any::<u32>().prop_map(|status| What::ExitStatus { status }),
        (text(), text()).prop_map(|(name, message)| What::ExitSignal { name, message }),
        text().prop_map(|text| What::Told { text }),
        (text(), any::<u64>()).prop_map(|(reason, bytes)| What::Gap { reason, bytes }),
        any::<i64>().prop_map(|wall_us| What::ClockStep { wall_us }),
        (direction(), any::<u64>()).prop_map(|(direction, bytes)| What::Withheld { direction, bytes }),
        bytes().prop_map(|body| What::Fact { body }),
        bytes().prop_map(|body| What::Request { body }),
        bytes().prop_map(|body| What::Response { body }),
    ]
}

/// Settings below `root`, with the spool on whatever the temporary directory is.
pub fn settings(root: &Path) -> Settings {
    Settings {
        dir: root.join("recordings"),
        spool: root.join("spool"),
        durability: Durability::Process,
        keep_free: 0,
        flush_after: Duration::from_secs(3600),
        gateway: Uuid::nil(),
        keys: keys_of(root),
    }
}

/// The keys of the recordings below `root`; made if there are none, so that whoever opens a copy has them too.
pub fn keys_of(root: &Path) -> Keys {
    Keys::new(RecordingKey::load_or_create(&root.join("recording.key")).unwrap().0, Vec::new())
}

/// New keys, a data key, and the header of a recording that is encrypted with it.
pub fn sealed_header() -> (Keys, DataKey, Vec<u8>) {
    let keys = Keys::new(RecordingKey::random().unwrap(), Vec::new());
    let data = DataKey::random().unwrap();
    let mut header = Header::new(Uuid::nil(), Uuid::nil(), Uuid::nil(), "exec", jiff::Timestamp::UNIX_EPOCH);
    header.aead = crypt::AEAD.to_owned();
    header.keys = keys.wrap(&data, &header).unwrap();
    (keys, data, container::encode_header(&header).unwrap())
}

/// A new recording's particulars.
pub fn particulars(on_failure: OnFailure) -> NewRecording {
    NewRecording {
        session: Uuid::now_v7(),
        recording: Uuid::now_v7(),
        kind: "shell".to_owned(),
        started: "2026-11-22T10:00:00Z".parse().unwrap(),
        on_failure,
        budget: Budget::new(u64::MAX),
    }
}

/// A recording that ends its session on failure.
pub async fn start(recordings: &Recordings) -> (Tap, NewRecording) {
    let new = particulars(OnFailure::EndSession);
    (recordings.create(new.clone()).await.unwrap(), new)
}

/// Output on the main stream.
pub fn output(data: impl Into<Bytes>) -> What {
    What::Bytes { direction: Direction::Output, stream: 0, data: data.into() }
}

/// All that can be read of a recording now, and the verdict.
pub async fn read_all(recordings: &Recordings, new: &NewRecording) -> (Vec<Observation>, super::Verdict) {
    let reader = recordings.open_reader(new.session, new.recording, new.started).await.unwrap();
    let read = move || {
        let mut reader = reader;
        let seen = reader.by_ref().map(Result::unwrap).collect();
        (seen, reader.verdict())
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

/// Only what was observed, without times.
pub fn whats(observations: Vec<Observation>) -> Vec<What> {
    observations.into_iter().map(|o| o.what).collect()
}

/// Shares a budget of `max` bytes.
pub fn with_budget(max: u64) -> NewRecording {
    NewRecording { budget: Arc::clone(&Budget::new(max)), ..particulars(OnFailure::EndSession) }
}

/// The recorder below `root`, as a new process opens it.
pub fn open(root: &Path) -> Recordings {
    Recordings::open(settings(root)).unwrap()
}

/// Where a recording is kept below `root`.
pub fn container_of(root: &Path, new: &NewRecording) -> PathBuf {
    container_path(&root.join("recordings"), new.started, new.session, new.recording)
}

/// Observations in the container alone.
pub fn on_disk(root: &Path, new: &NewRecording) -> usize {
    Reader::open_file(&container_of(root, new), Some(&keys_of(root))).unwrap().count()
}

/// How many spools there are below `root`.
pub fn spools(root: &Path) -> usize {
    fs::read_dir(root.join("spool")).unwrap().count()
}

/// What a new process does first.
pub async fn recover(recordings: &Recordings) -> Vec<Recovered> {
    let recordings = recordings.clone();
    spawn_blocking(move || recordings.recover(|| {})).await.unwrap()
}

/// Copies all of a recorder's files, spool first: as they could be found after a SIGKILL somewhere in between.
pub fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    let mut entries: Vec<_> = fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort_by_key(|path| !path.ends_with("spool"));
    for path in entries {
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy_tree(&path, &target) } else { drop(fs::copy(&path, &target)) }
    }
}
/// Records one thing into the container and another that only the spool has, and returns the files as a crash leaves them.
pub async fn crashed(
    recordings: &Recordings,
    root: &Path,
    last: impl IntoIterator<Item = What>,
) -> (TempDir, NewRecording) {
    let (tap, new) = start(recordings).await;
    tap.record(output("in the container")).await.unwrap();
    tap.flush().await.unwrap();
    for what in last {
        tap.record(what).await.unwrap();
    }
    let copy = tempfile::tempdir().unwrap();
    copy_tree(root, copy.path());
    (copy, new)
}
