//! What a crash leaves behind: everything acknowledged is found again, whatever died, is missing or is damaged.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::observation::What;
use super::testing::*;
use super::*;
use crate::store::row::RecordingState;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_moment_loses_nothing_acknowledged() {
    let root = tempfile::tempdir().unwrap();
    let recordings = open(root.path());
    let (tap, new) = start(&recordings).await;
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let enough = CancellationToken::new();
    let writer = tokio::spawn({
        let (tap, acknowledged, enough) = (tap.clone(), Arc::clone(&acknowledged), enough.clone());
        async move {
            let mut n = 0;
            while !enough.is_cancelled() {
                tap.record(piece(n)).await.unwrap();
                n += 1;
                acknowledged.store(n, Ordering::SeqCst);
                if n % 97 == 0 {
                    tap.flush().await.unwrap();
                }
                tokio::task::yield_now().await;
            }
        }
    });
    for _ in 0..8 {
        let copy = tempfile::tempdir().unwrap();
        let before = acknowledged.load(Ordering::SeqCst);
        let (from, to) = (root.path().to_owned(), copy.path().to_owned());
        spawn_blocking(move || copy_tree(&from, &to)).await.unwrap();
        check_crash(copy.path(), &new, before).await;
    }
    enough.cancel();
    writer.await.unwrap();
    assert!(acknowledged.load(Ordering::SeqCst) > 0);
}

/// Output that tells its place, of many lengths.
fn piece(n: usize) -> What {
    output(format!("{n:08}").repeat(1 + n * 7 % 2000))
}

/// A copy made while writing goes on is harsher than a crash: its files are from different instants. The container is
/// copied after the spool, so it may be ahead, never behind.
async fn check_crash(copy: &Path, new: &NewRecording, acknowledged: usize) {
    let recordings = open(copy);
    let (before, verdict) = read_all(&recordings, new).await;
    assert!(matches!(verdict, Verdict::Truncated { .. }), "{verdict:?}");
    assert!(before.len() >= acknowledged, "{} of {acknowledged}", before.len());
    for (n, what) in whats(before.clone()).into_iter().enumerate() {
        assert!(what == piece(n), "{n}");
    }
    let recovered = recover(&recordings).await;
    assert_eq!(
        recovered.iter().map(|r| (r.recording, r.state)).collect::<Vec<_>>(),
        [(new.recording, RecordingState::Truncated)]
    );
    let (after, verdict) = read_all(&recordings, new).await;
    assert_eq!(before, after);
    assert!(matches!(verdict, Verdict::Truncated { .. }), "{verdict:?}");
    assert_eq!(spools(copy), 0);
    assert!(recover(&recordings).await.is_empty());
}

#[tokio::test]
async fn recovery_may_itself_die_at_any_byte() {
    let root = tempfile::tempdir().unwrap();
    let recordings = open(root.path());
    let last = [output("in the spool"), What::ExitStatus { status: 3 }];
    let (crashed, new) = crashed(&recordings, root.path(), last).await;
    let done = tempfile::tempdir().unwrap();
    copy_tree(crashed.path(), done.path());
    assert_eq!(recover(&open(done.path())).await.len(), 1);
    let (expected, _) = read_all(&open(done.path()), &new).await;
    assert_eq!(expected.len(), 3);
    let whole = fs::read(container_of(done.path(), &new)).unwrap();
    for cut in fs::metadata(container_of(crashed.path(), &new)).unwrap().len() as usize..=whole.len() {
        let copy = tempfile::tempdir().unwrap();
        copy_tree(crashed.path(), copy.path());
        fs::write(container_of(copy.path(), &new), &whole[..cut]).unwrap();
        let recordings = open(copy.path());
        let recovered = recover(&recordings).await;
        assert_eq!(recovered.len(), 1);
        assert_eq!((recovered[0].state, recovered[0].exit_status), (RecordingState::Truncated, Some(3)));
        assert_eq!(read_all(&recordings, &new).await.0, expected, "{cut}");
    }
}

#[tokio::test]
async fn a_crash_before_the_container_was_made_is_recovered() {
    let root = tempfile::tempdir().unwrap();
    let recordings = open(root.path());
    let (tap, new) = start(&recordings).await;
    tap.record(output("only in the spool")).await.unwrap();
    for there in [None, Some(0), Some(20)] {
        let copy = tempfile::tempdir().unwrap();
        copy_tree(root.path(), copy.path());
        let path = container_of(copy.path(), &new);
        match there {
            None => fs::remove_file(&path).unwrap(),
            Some(len) => File::options().write(true).open(&path).unwrap().set_len(len).unwrap(),
        }
        fs::write(copy.path().join("spool/abc.new"), "half a page").unwrap();
        let recordings = open(copy.path());
        assert_eq!(recover(&recordings).await.len(), 1);
        assert_eq!(whats(read_all(&recordings, &new).await.0), [output("only in the spool")]);
        assert_eq!(spools(copy.path()), 0);
    }
}

#[tokio::test]
async fn without_its_spool_an_open_recording_is_closed_by_name() {
    let root = tempfile::tempdir().unwrap();
    let recordings = open(root.path());
    let (tap, new) = start(&recordings).await;
    tap.record(output("on disk")).await.unwrap();
    tap.flush().await.unwrap();
    let close = |recordings: Recordings, new: NewRecording| {
        spawn_blocking(move || recordings.recover_recording(new.session, new.recording, new.started))
    };
    assert_eq!(close(recordings.clone(), new.clone()).await.unwrap(), Recovery::NotNow, "it is live");
    let copy = tempfile::tempdir().unwrap();
    copy_tree(root.path(), copy.path());
    fs::remove_dir_all(copy.path().join("spool")).unwrap();
    let after = open(copy.path());
    assert!(recover(&after).await.is_empty());
    let recovered = close(after.clone(), new.clone()).await.unwrap();
    assert!(matches!(&recovered, Recovery::Closed(found) if found.state == RecordingState::Truncated));
    assert_eq!(close(after.clone(), new.clone()).await.unwrap(), recovered);
    assert_eq!(whats(read_all(&after, &new).await.0), [output("on disk")]);
    let unheard_of = NewRecording { recording: Uuid::now_v7(), ..new.clone() };
    assert_eq!(close(after.clone(), unheard_of).await.unwrap(), Recovery::Nothing);
    let path = container_of(copy.path(), &new);
    fs::write(&path, "damaged from its beginning on").unwrap();
    let told = close(after.clone(), new.clone()).await.unwrap();
    assert!(matches!(told, Recovery::Closed(found) if (found.state, found.size) == (RecordingState::Damaged, 29)));
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&path, &path).unwrap();
    assert_eq!(close(after, new).await.unwrap(), Recovery::NotNow, "it cannot be opened");
}

#[tokio::test]
async fn a_damaged_spool_is_no_reason_to_leave_a_recording_open() {
    let root = tempfile::tempdir().unwrap();
    let recordings = open(root.path());
    let (tap, new) = start(&recordings).await;
    tap.record(output("on disk")).await.unwrap();
    tap.flush().await.unwrap();
    let copy = tempfile::tempdir().unwrap();
    copy_tree(root.path(), copy.path());
    fs::write(spool_path(&copy.path().join("spool"), new.recording), "no page").unwrap();
    let after = open(copy.path());
    assert!(recover(&after).await.is_empty());
    let (closing, named) = (after.clone(), new.clone());
    let close = move || closing.recover_recording(named.session, named.recording, named.started);
    let told = spawn_blocking(close).await.unwrap();
    assert!(matches!(told, Recovery::Closed(found) if found.state == RecordingState::Truncated));
    assert_eq!(whats(read_all(&after, &new).await.0), [output("on disk")]);
    assert!(container_of(copy.path(), &new).with_extension("spool").exists());
    assert_eq!(spools(copy.path()), 0);
}

#[tokio::test]
async fn a_spool_is_kept_beside_a_container_that_is_damaged_from_its_beginning_on() {
    let root = tempfile::tempdir().unwrap();
    let recordings = open(root.path());
    let (tap, new) = start(&recordings).await;
    tap.record(output("in the spool")).await.unwrap();
    let copy = tempfile::tempdir().unwrap();
    copy_tree(root.path(), copy.path());
    fs::write(container_of(copy.path(), &new), vec![7; 4096]).unwrap();
    let after = open(copy.path());
    let close = move || after.recover_recording(new.session, new.recording, new.started);
    let told = spawn_blocking(close).await.unwrap();
    assert!(matches!(told, Recovery::Closed(found) if found.state == RecordingState::Damaged));
    assert_eq!(spools(copy.path()), 0);
}

#[tokio::test]
async fn a_spool_that_cannot_be_opened_is_an_error_and_not_an_absence() {
    let root = tempfile::tempdir().unwrap();
    let recordings = open(root.path());
    let (tap, new) = start(&recordings).await;
    tap.record(output("promised")).await.unwrap();
    let copy = tempfile::tempdir().unwrap();
    copy_tree(root.path(), copy.path());
    let spool = spool_path(&copy.path().join("spool"), new.recording);
    fs::remove_file(&spool).unwrap();
    std::os::unix::fs::symlink(&spool, &spool).unwrap();
    let opened = open(copy.path()).open_reader(new.session, new.recording, new.started).await;
    assert!(matches!(opened, Err(ReadError::Io(_))));
}

#[tokio::test]
async fn a_spool_goes_only_when_all_of_it_is_in_the_sealed_container() {
    let root = tempfile::tempdir().unwrap();
    let recordings = open(root.path());
    let (copy, new) = crashed(&recordings, root.path(), [output("promised")]).await;
    let (spool, hidden) = (spool_path(&copy.path().join("spool"), new.recording), copy.path().join("hidden"));
    fs::rename(&spool, &hidden).unwrap();
    let after = open(copy.path());
    let (closing, named) = (after.clone(), new.clone());
    let closed =
        spawn_blocking(move || closing.recover_recording(named.session, named.recording, named.started)).await.unwrap();
    assert!(matches!(closed, Recovery::Closed(found) if found.state == RecordingState::Truncated), "without its spool");
    let bytes = fs::read(&hidden).unwrap();
    fs::rename(&hidden, &spool).unwrap();
    assert_eq!(recover(&after).await.len(), 1);
    assert_eq!(spools(copy.path()), 0);
    assert_eq!(fs::read(container_of(copy.path(), &new).with_extension("spool")).unwrap(), bytes);
}

#[tokio::test]
async fn live_recordings_of_another_process_are_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let recordings = open(root.path());
    let (tap, new) = start(&recordings).await;
    tap.record(output("a")).await.unwrap();
    let other = open(root.path());
    assert!(recover(&other).await.is_empty());
    tap.record(output("b")).await.unwrap();
    assert_eq!(tap.finish(Ending::Complete).await.state, RecordingState::Complete);
    assert_eq!(read_all(&other, &new).await.1, Verdict::Complete);
}

#[tokio::test]
async fn a_damaged_container_is_told_and_its_spool_kept_beside_it() {
    let root = tempfile::tempdir().unwrap();
    let recordings = open(root.path());
    let (tap, new) = start(&recordings).await;
    tap.record(output("first")).await.unwrap();
    tap.flush().await.unwrap();
    tap.record(output("second")).await.unwrap();
    let copy = tempfile::tempdir().unwrap();
    copy_tree(root.path(), copy.path());
    let path = container_of(copy.path(), &new);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, &bytes).unwrap();
    let recovered = recover(&open(copy.path())).await;
    assert_eq!(recovered[0].state, RecordingState::Damaged);
    assert_eq!(fs::read(&path).unwrap(), bytes, "evidence stays as it is");
    assert!(path.with_extension("spool").exists());
    assert_eq!(spools(copy.path()), 0);
}
