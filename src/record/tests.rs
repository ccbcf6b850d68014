//! The recorder as a whole, on real files: what is acknowledged is there, whatever dies, fills up or is changed.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::codec::MAX_DATA;
use super::container::MAX_INDEX;
use super::observation::{Direction, What};
use super::spool::SEGMENT;
use super::testing::*;
use super::*;
use crate::store::row::RecordingState;

#[tokio::test]
async fn what_is_recorded_is_read_back_and_sealed() {
    let root = tempfile::tempdir().unwrap();
    let recordings = open(root.path());
    let (tap, new) = start(&recordings).await;
    let seen = vec![
        What::Pty { term: "xterm".to_owned(), cols: 80, rows: 24 },
        What::Shell,
        output("hello"),
        What::Bytes { direction: Direction::Input, stream: 0, data: Bytes::from_static(b"ls\r") },
        What::ExitStatus { status: 7 },
    ];
    for what in &seen {
        tap.record(what.clone()).await.unwrap();
    }
    let (live, verdict) = read_all(&recordings, &new).await;
    assert_eq!((whats(live), verdict), (seen.clone(), Verdict::Live));
    let finished = tap.finish(Ending::Complete).await;
    assert_eq!(finished.state, RecordingState::Complete);
    assert_eq!(finished.size, fs::metadata(container_of(root.path(), &new)).unwrap().len());
    assert_eq!(tap.finish(Ending::Cut("again".to_owned())).await, finished, "the first ending stands");
    assert_eq!(tap.record(What::Shell).await, Err(RecordingLost::Ended));
    let (all, verdict) = read_all(&recordings, &new).await;
    assert!(all.is_sorted_by_key(|observation| observation.at));
    assert_eq!((whats(all), verdict), (seen, Verdict::Complete));
    assert_eq!(spools(root.path()), 0);
    assert!(recover(&recordings).await.is_empty());
}

#[tokio::test]
async fn long_data_is_split_and_long_facts_are_cut_with_a_gap() {
    let root = tempfile::tempdir().unwrap();
    let recordings = open(root.path());
    let (tap, new) = start(&recordings).await;
    let data: Bytes = (0..3_000_000u32).map(|n| (n % 251) as u8).collect::<Vec<_>>().into();
    tap.record(output(data.clone())).await.unwrap();
    tap.record(What::Exec { command: vec![b'x'; MAX_DATA + 5].into() }).await.unwrap();
    tap.finish(Ending::Complete).await;
    let (all, verdict) = read_all(&recordings, &new).await;
    assert_eq!(verdict, Verdict::Complete);
    let (mut bytes, mut facts) = (Vec::new(), Vec::new());
    for what in whats(all) {
        match what {
            What::Bytes { data, .. } => bytes.extend_from_slice(&data),
            fact => facts.push(fact),
        }
    }
    assert_eq!(bytes, data);
    assert!(matches!(&facts[..], [What::Exec { command }, What::Gap { bytes: 5, .. }] if command.len() == MAX_DATA));
}

#[tokio::test]
async fn a_container_cut_or_changed_anywhere_never_lies() {
    let root = tempfile::tempdir().unwrap();
    let recordings = open(root.path());
    let (tap, new) = start(&recordings).await;
    for n in 0..6 {
        tap.record(output(format!("line {n}\r\n").repeat(5))).await.unwrap();
        if n % 2 == 1 {
            tap.flush().await.unwrap();
        }
    }
    tap.finish(Ending::Complete).await;
    let truth = read_all(&recordings, &new).await.0;
    let path = container_of(root.path(), &new);
    let whole = fs::read(&path).unwrap();
    let header = whole.windows(6).position(|w| w == b"null}\x01").unwrap() + 5;
    let keys = keys_of(root.path());
    let read = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let mut reader = Reader::open_file(&path, Some(&keys))?;
        let seen: Vec<_> = reader.by_ref().map(Result::unwrap).collect();
        Ok::<_, ReadError>((seen, reader.verdict()))
    };
    for cut in 0..whole.len() {
        match read(&whole[..cut]) {
            Ok((seen, verdict)) => {
                assert!(truth.starts_with(&seen));
                assert!(matches!(verdict, Verdict::Truncated { .. }), "{cut}: {verdict:?}");
            }
            Err(error) => assert!(cut < header, "{cut}: {error}"),
        }
    }
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        match read(&changed) {
            Ok((seen, verdict)) => {
                assert!(truth.starts_with(&seen));
                // A length made longer looks like a missing end: told as cut, never as complete.
                assert!(matches!(verdict, Verdict::Truncated { .. } | Verdict::Damaged { .. }), "{at}: {verdict:?}");
            }
            Err(error) => assert!(at < header, "{at}: {error}"),
        }
    }
    let (seen, verdict) = read(&[&whole[..], b"x"].concat()).unwrap();
    assert_eq!(seen, truth);
    assert!(matches!(verdict, Verdict::Damaged { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_recording_is_followed_in_order_without_loss() {
    let root = tempfile::tempdir().unwrap();
    let recordings = open(root.path());
    let (tap, new) = start(&recordings).await;
    let reader = recordings.open_reader(new.session, new.recording, new.started).await.unwrap();
    let follower = spawn_blocking(move || {
        let (mut reader, mut seen) = (reader, Vec::new());
        loop {
            seen.extend(reader.by_ref().map(Result::unwrap));
            if reader.verdict() == Verdict::Complete {
                return seen;
            }
            std::thread::yield_now();
        }
    });
    let mut expected = Vec::new();
    for n in 0..1500u32 {
        let what = output(n.to_string().repeat(1 + (n as usize * 37) % 3000));
        tap.record(what.clone()).await.unwrap();
        expected.push(what);
    }
    tap.finish(Ending::Complete).await;
    let seen = whats(follower.await.unwrap());
    assert_eq!(seen.len(), expected.len());
    assert!(seen == expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_blocks_holds_up_its_own_recording_only() {
    let root = tempfile::tempdir().unwrap();
    let recordings = open(root.path());
    let ((slow, _), (quick, _)) = (start(&recordings).await, start(&recordings).await);
    let stuck = writer_of(&recordings, &slow);
    // Whoever holds this lock is the disk.
    let (held, wait_held) = tokio::sync::oneshot::channel();
    let (free, wait_free) = std::sync::mpsc::channel::<()>();
    let disk = spawn_blocking(move || {
        let _disk = stuck.container.lock().unwrap();
        held.send(()).unwrap();
        wait_free.recv().unwrap();
    });
    wait_held.await.unwrap();
    let piece = Bytes::from(vec![7; 100_000]);
    let mut taken = 0;
    while let Some(done) = slow.record(output(piece.clone())).now_or_never() {
        done.unwrap();
        taken += 1;
    }
    assert_eq!(taken, 16, "two of these fit into each of the eight segments");
    for _ in 0..200 {
        quick.record(output(piece.clone())).await.unwrap();
    }
    assert_eq!(quick.finish(Ending::Complete).await.state, RecordingState::Complete);
    free.send(()).unwrap();
    disk.await.unwrap();
    slow.record(output(piece)).await.unwrap();
    assert_eq!(slow.finish(Ending::Complete).await.state, RecordingState::Complete);
}

fn writer_of(recordings: &Recordings, tap: &Tap) -> Arc<writer::Writer> {
    let words = format!("{tap:?}");
    let live = recordings.shared.live();
    let (_, writer) = live.iter().find(|(id, _)| words.contains(&id.to_string())).unwrap();
    writer.upgrade().unwrap()
}

/// Puts a device that is always full in the place of the container's file.
fn fill_disk(writer: &writer::Writer) -> File {
    let full = OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
    std::mem::replace(&mut writer.container.lock().unwrap().file, full)
}

#[tokio::test]
async fn a_full_disk_ends_the_session_and_keeps_what_was_promised() {
    let root = tempfile::tempdir().unwrap();
    let recordings = open(root.path());
    let (tap, new) = start(&recordings).await;
    tap.record(output("safe")).await.unwrap();
    fill_disk(&writer_of(&recordings, &tap));
    let writer = Arc::downgrade(&writer_of(&recordings, &tap));
    assert_eq!(tap.flush().await, Err(RecordingLost::Full));
    tap.lost().cancelled().await;
    assert_eq!(tap.record(output("no more")).await, Err(RecordingLost::Full));
    assert_eq!(tap.finish(Ending::Complete).await.state, RecordingState::Truncated);
    let spool = spool_path(&root.path().join("spool"), new.recording);
    assert!(spool.exists(), "it holds what is not saved");
    drop(tap);
    // The spool is locked until the job's thread has let go of it.
    while writer.strong_count() > 0 {
        tokio::task::yield_now().await;
    }
    let recovered = recover(&open(root.path())).await;
    assert_eq!(recovered.len(), 1);
    assert_eq!(whats(read_all(&recordings, &new).await.0), [output("safe")]);
    assert!(!spool.exists());
}

#[tokio::test]
async fn on_a_full_disk_no_session_begins() {
    let root = tempfile::tempdir().unwrap();
    let recordings = Recordings::open(Settings { keep_free: u64::MAX, ..settings(root.path()) }).unwrap();
    let new = particulars(OnFailure::EndSession);
    assert_eq!(recordings.create(new.clone()).await.unwrap_err(), RecordingLost::Full);
    assert_eq!(spools(root.path()), 0);
    assert!(!container_of(root.path(), &new).exists());
}

#[tokio::test]
async fn with_continue_a_full_disk_becomes_a_gap() {
    let root = tempfile::tempdir().unwrap();
    let recordings =
        Recordings::open(Settings { flush_after: Duration::from_millis(10), ..settings(root.path()) }).unwrap();
    let new = particulars(OnFailure::Continue);
    let tap = recordings.create(new.clone()).await.unwrap();
    let writer = writer_of(&recordings, &tap);
    let disk = fill_disk(&writer);
    let (piece, pieces) = (Bytes::from(vec![1; 100_000]), 40);
    for _ in 0..pieces {
        tap.record(output(piece.clone())).await.unwrap();
    }
    assert!(!tap.lost().is_cancelled());
    writer.container.lock().unwrap().file = disk;
    tap.record(output("after")).await.unwrap();
    assert_eq!(tap.finish(Ending::Complete).await.state, RecordingState::Complete);
    let (seen, verdict) = read_all(&recordings, &new).await;
    assert_eq!(verdict, Verdict::Complete);
    let (mut kept, mut missing) = (0, 0);
    for what in whats(seen) {
        match what {
            What::Bytes { data, .. } => kept += data.len() as u64,
            What::Gap { bytes, reason } => {
                assert!(reason.contains("were not recorded"), "{reason}");
                missing += bytes;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(missing > 0);
    assert_eq!(kept + missing, pieces * piece.len() as u64 + 5, "every byte is there or counted");
}

#[tokio::test]
async fn a_spent_budget_ends_every_recording_of_the_session() {
    let root = tempfile::tempdir().unwrap();
    let recordings = open(root.path());
    let new = with_budget(300_000);
    let tap = recordings.create(new.clone()).await.unwrap();
    let mut noise = vec![0; 100_000];
    let mut kept = 0;
    let lost = loop {
        aws_lc_rs::rand::fill(&mut noise).unwrap();
        match tap.record(output(noise.clone())).await {
            Ok(()) => kept += 1,
            Err(lost) => break lost,
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(lost, RecordingLost::Limit(300_000));
    assert!(tap.lost().is_cancelled());
    let second = NewRecording { recording: Uuid::now_v7(), ..new.clone() };
    assert_eq!(recordings.create(second).await.unwrap_err(), RecordingLost::Limit(300_000));
    assert_eq!(tap.finish(Ending::Complete).await.state, RecordingState::Truncated);
    let (seen, verdict) = read_all(&recordings, &new).await;
    assert_eq!(seen.len(), kept, "what was promised is there");
    assert!(matches!(verdict, Verdict::Truncated { .. }));
}

#[tokio::test]
async fn with_disk_durability_ok_means_in_the_container() {
    let root = tempfile::tempdir().unwrap();
    let disk = Settings { durability: Durability::Disk, ..settings(root.path()) };
    let recordings = Recordings::open(disk).unwrap();
    let (tap, new) = start(&recordings).await;
    for n in 0..5 {
        tap.record(output(format!("{n}"))).await.unwrap();
        let container = container_of(root.path(), &new);
        assert_eq!(Reader::open_file(&container, Some(&keys_of(root.path()))).unwrap().count(), n + 1);
    }
}

#[tokio::test]
async fn a_quiet_recording_goes_to_disk_by_itself_and_gives_its_memory_back() {
    let root = tempfile::tempdir().unwrap();
    let soon = Settings { flush_after: Duration::from_millis(5), ..settings(root.path()) };
    let recordings = Recordings::open(soon).unwrap();
    let (tap, new) = start(&recordings).await;
    tap.record(output(vec![0; SEGMENT / 2])).await.unwrap();
    let spool = spool_path(&root.path().join("spool"), new.recording);
    let writer = writer_of(&recordings, &tap);
    let mut changed = writer.changed.subscribe();
    while writer.lock().saved < 1 {
        changed.changed().await.unwrap();
    }
    assert_eq!(on_disk(root.path(), &new), 1);
    // The job that saved it holds this until it has tidied up.
    let _idle = writer.container.lock().unwrap();
    assert!(fs::metadata(spool).unwrap().len() <= 4096);
}

#[tokio::test]
async fn a_session_that_vanishes_leaves_a_sealed_recording() {
    let root = tempfile::tempdir().unwrap();
    let recordings = open(root.path());
    let (tap, new) = start(&recordings).await;
    tap.record(output("x")).await.unwrap();
    let writer = writer_of(&recordings, &tap);
    let mut changed = writer.changed.subscribe();
    drop(tap);
    while writer.lock().finished.is_none() {
        changed.changed().await.unwrap();
    }
    let (seen, verdict) = read_all(&recordings, &new).await;
    assert_eq!(whats(seen), [output("x")]);
    assert!(matches!(verdict, Verdict::Truncated { .. }));
}

#[tokio::test]
async fn raw_is_the_container_up_to_its_last_whole_frame() {
    let root = tempfile::tempdir().unwrap();
    let recordings = open(root.path());
    let (tap, new) = start(&recordings).await;
    tap.record(output("so far")).await.unwrap();
    let raw = recordings.raw(new.session, new.recording, new.started).await.unwrap();
    let path = container_of(root.path(), &new);
    assert_eq!(raw.len, fs::metadata(&path).unwrap().len());
    assert_eq!(on_disk(root.path(), &new), 1);
    let missing = recordings.raw(new.session, Uuid::now_v7(), new.started).await;
    assert!(matches!(missing, Err(ReadError::NotFound)));
}

#[tokio::test]
async fn the_index_leads_to_blocks() {
    let root = tempfile::tempdir().unwrap();
    let recordings = open(root.path());
    let (tap, new) = start(&recordings).await;
    for n in 0..20 {
        tap.record(output(format!("{n}"))).await.unwrap();
        tap.flush().await.unwrap();
    }
    tap.finish(Ending::Complete).await;
    let bytes = fs::read(container_of(root.path(), &new)).unwrap();
    let mut reader = recordings.open_reader(new.session, new.recording, new.started).await.unwrap();
    assert_eq!(reader.by_ref().count(), 20);
    let index = reader.seal().unwrap().index.clone();
    assert_eq!(index.len(), 20.min(MAX_INDEX));
    for entry in index {
        let frame = &bytes[entry.offset as usize..];
        assert_eq!((frame[0], frame[12]), (1, entry.first as u8));
    }
}

#[test]
fn a_spool_directory_of_somebody_else_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let settings = settings(root.path());
    fs::create_dir(&settings.spool).unwrap();
    fs::set_permissions(&settings.spool, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    assert!(Recordings::open(settings.clone()).is_err());
    fs::remove_dir(&settings.spool).unwrap();
    std::os::unix::fs::symlink(root.path(), &settings.spool).unwrap();
    assert!(Recordings::open(settings).is_err());
}

/// Recordings of every format version, made once and kept: they must stay readable for ever. Version 2 is encrypted.
#[tokio::test]
async fn the_golden_containers_stay_readable() {
    let golden_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    if std::env::var_os("GATESCRIBE_MAKE_GOLDEN").is_some() {
        make_golden(&golden_dir.join("v2.gsr"), &golden_dir.join("v2.key")).await;
    }
    let key = keys::RecordingKey::load(&golden_dir.join("v2.key")).unwrap();
    let keys = Keys::new(key, Vec::new());
    for (name, encrypted) in [("v1.gsr", false), ("v2.gsr", true)] {
        let mut reader = Reader::open_file(&golden_dir.join(name), Some(&keys)).unwrap();
        let seen: Vec<_> = reader.by_ref().map(Result::unwrap).collect();
        assert_eq!(reader.verdict(), Verdict::Complete, "{name}");
        assert_eq!((reader.header().kind.as_str(), reader.header().encrypted()), ("golden", Ok(encrypted)));
        assert_eq!(reader.seal().unwrap().observations, 22);
        assert_eq!(whats(seen), golden(), "{name}");
    }
}

fn golden() -> Vec<What> {
    let text = || "grüße".to_owned();
    let data = Bytes::from_static(b"\x00\xff bytes");
    let mut whats = vec![
        What::Pty { term: text(), cols: 80, rows: 24 },
        What::Env { name: "LANG".to_owned(), value: text() },
        What::Shell,
        What::Exec { command: data.clone() },
        What::Subsystem { name: text() },
        What::Resize { cols: 1000, rows: 1 },
        What::Signal { name: "INT".to_owned() },
        What::Eof { direction: Direction::Input },
        What::Eof { direction: Direction::Output },
        What::ExitStatus { status: u32::MAX },
        What::ExitSignal { name: "KILL".to_owned(), message: text() },
        What::Told { text: text() },
        What::Gap { reason: text(), bytes: u64::MAX },
        What::ClockStep { wall_us: -1 },
        What::Request { body: data.clone() },
        What::Response { body: data.clone() },
        output(vec![b'='; 5000]),
    ];
    for (direction, stream) in
        [(Direction::Input, 0), (Direction::Output, 0), (Direction::Input, 9), (Direction::Output, 1)]
    {
        whats.push(What::Bytes { direction, stream, data: data.clone() });
    }
    whats.push(output(Bytes::new()));
    whats
}

async fn make_golden(path: &Path, key: &Path) {
    let root = tempfile::tempdir().unwrap();
    let recordings = open(root.path());
    let new = NewRecording { kind: "golden".to_owned(), ..particulars(OnFailure::EndSession) };
    let tap = recordings.create(new.clone()).await.unwrap();
    for (n, what) in golden().into_iter().enumerate() {
        tap.record(what).await.unwrap();
        if n == 8 {
            tap.flush().await.unwrap();
        }
    }
    tap.finish(Ending::Complete).await;
    let bytes = fs::read(container_of(root.path(), &new)).unwrap();
    File::create_new(path).unwrap().write_all(&bytes).unwrap();
    fs::copy(root.path().join("recording.key"), key).unwrap();
}
