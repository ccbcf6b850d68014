//! What is kept: nothing of it in the clear, nothing of it changed unseen, and gone when it shall go.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use jiff::SignedDuration;
use proptest::prelude::*;

use super::container::{Chain, FRAME_OVERHEAD, Front, Head, finish_frame, parse_frame, parse_header};
use super::keys::{Keys, RecordingKey};
use super::observation::What;
use super::testing::*;
use super::verify::{Checkup, Depth, check};
use super::*;
use crate::store::row::RecordingState;

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// A finished recording with four blocks, and what can read it.
async fn recorded(root: &Path, session: Uuid) -> (Vec<u8>, Keys) {
    let recordings = open(root);
    let new = NewRecording { session, ..particulars(OnFailure::EndSession) };
    let tap = recordings.create(new.clone()).await.unwrap();
    for n in 0..4 {
        tap.record(output(format!("block {n}"))).await.unwrap();
        tap.flush().await.unwrap();
    }
    tap.finish(Ending::Complete).await;
    (fs::read(container_of(root, &new)).unwrap(), keys_of(root))
}

/// The same one for every case, because a recording takes its time.
fn sample() -> &'static (Vec<u8>, Keys) {
    static SAMPLE: OnceLock<(Vec<u8>, Keys)> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let root = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(recorded(root.path(), Uuid::now_v7()))
    })
}

/// How a file is judged, by its chain alone and with its key.
fn judged(bytes: &[u8], keys: &Keys) -> [Result<Checkup, ReadError>; 2] {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    [None, Some(keys)].map(|keys| check(file.path(), keys).map(|checked| checked.verdict))
}

fn complete(judged: &[Result<Checkup, ReadError>; 2]) -> [bool; 2] {
    [0, 1].map(|n| matches!(judged[n], Ok(Checkup::Complete)))
}

#[tokio::test]
async fn nothing_that_was_seen_is_kept_in_the_clear() {
    let root = tempfile::tempdir().unwrap();
    let recordings = open(root.path());
    let (tap, new) = start(&recordings).await;
    let secret = b"correct horse battery staple";
    tap.record(output(&secret[..])).await.unwrap();
    tap.flush().await.unwrap();
    tap.record(What::Exec { command: secret[..].into() }).await.unwrap();
    let look = || {
        let all = files(root.path());
        for file in &all {
            let bytes = fs::read(file).unwrap();
            let found = bytes.windows(12).any(|piece| secret.windows(12).any(|part| part == piece));
            assert!(!found, "{}", file.display());
        }
        all.len()
    };
    assert_eq!(look(), 3, "container, spool and key");
    tap.finish(Ending::Complete).await;
    assert_eq!(look(), 2);
    assert_eq!(read_all(&recordings, &new).await.0.len(), 2);
}

#[tokio::test]
async fn a_whole_file_is_complete_and_told_how_deep_it_was_looked() {
    let (bytes, keys) = tokio::task::spawn_blocking(sample).await.unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    for (keys, depth) in [(None, Depth::Chain), (Some(keys), Depth::Decrypted)] {
        let checked = check(file.path(), keys).unwrap();
        assert_eq!((checked.verdict, checked.depth, checked.observations), (Checkup::Complete, depth, 4));
        assert_eq!(checked.good, bytes.len() as u64);
    }
    let other = Keys::new(RecordingKey::random().unwrap(), Vec::new());
    assert!(matches!(check(file.path(), Some(&other)), Err(ReadError::UnknownKey(_))));
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1.gsr");
    let checked = check(&golden, None).unwrap();
    assert_eq!((checked.verdict, checked.depth), (Checkup::Complete, Depth::Plain));
}

#[test]
fn a_file_cut_or_changed_anywhere_is_not_complete() {
    let (whole, keys) = sample();
    assert_eq!(complete(&judged(whole, keys)), [true, true]);
    for at in 0..whole.len() {
        assert_eq!(complete(&judged(&whole[..at], keys)), [false, false], "cut at {at}");
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        assert_eq!(complete(&judged(&changed, keys)), [false, false], "changed at {at}");
    }
    assert_eq!(complete(&judged(&[&whole[..], b"x"].concat(), keys)), [false, false]);
    assert_eq!(complete(&judged(&[&whole[..], &whole[..]].concat(), keys)), [false, false]);
}

/// The frames of a container, for an attacker who has no key but can make the chain fit again.
struct Frames {
    header: Vec<u8>,
    frames: Vec<(Head, Vec<u8>)>,
}

type Change<'a> = dyn Fn(&mut Vec<(Head, Vec<u8>)>) + 'a;

impl Frames {
    fn of(bytes: &[u8]) -> Self {
        let Front::Whole(_, len) = parse_header(bytes).unwrap() else { panic!("no header") };
        let (header, mut rest) = bytes.split_at(len);
        let (mut chain, mut frames) = (Chain::start(header), Vec::new());
        while let Front::Whole((head, body), len) = parse_frame(rest, &mut chain).unwrap() {
            frames.push((head, rest[body].to_vec()));
            rest = &rest[len..];
        }
        Self { header: header.to_vec(), frames }
    }

    /// Chained again, with numbers and the Seal's words as they have to be.
    fn forged(mut self) -> Vec<u8> {
        let (mut seal_head, seal) = self.frames.pop().unwrap();
        let (mut first, mut raw) = (0, 0);
        for (head, _) in &mut self.frames {
            head.first = first;
            first += u64::from(head.count);
            raw += head.raw;
        }
        let (proof, told) = container::split_seal(&seal).unwrap();
        let mut out = self.header.clone();
        let mut chain = Chain::start(&self.header);
        let mut put = |head: Head, body: &[u8], out: &mut Vec<u8>| {
            let mut frame = [&[0; FRAME_OVERHEAD], body].concat();
            finish_frame(&mut frame, head, &mut chain);
            out.extend_from_slice(&frame);
        };
        for (head, body) in &self.frames {
            put(*head, body, &mut out);
        }
        let was = container::parse_seal(&seal_head, told, offset_of(told)).unwrap();
        let now = container::Seal { observations: first, raw_bytes: u64::from(raw), index: Vec::new(), ..was };
        let frame = container::encode_seal(&now, out.len() as u64, None, &mut Chain::start(b"")).unwrap();
        let body = [proof, &frame[FRAME_OVERHEAD..]].concat();
        (seal_head.first, seal_head.stored, seal_head.raw) = (first, body.len() as u32, body.len() as u32);
        put(seal_head, &body, &mut out);
        out
    }
}

fn offset_of(told: &[u8]) -> u64 {
    u64::from_le_bytes(told[told.len() - 12..][..8].try_into().unwrap())
}

#[tokio::test]
async fn who_has_no_key_cannot_forge_even_with_a_chain_that_fits() {
    let root = tempfile::tempdir().unwrap();
    let session = Uuid::now_v7();
    let (whole, keys) = recorded(root.path(), session).await;
    let (other, _) = recorded(root.path(), session).await;
    let forge = |change: &Change<'_>| {
        let mut frames = Frames::of(&whole);
        assert_eq!(frames.frames.len(), 5);
        change(&mut frames.frames);
        judged(&frames.forged(), &keys)
    };
    let plain = |text: &[u8]| [&[0, 0, 2, text.len() as u8][..], text].concat();
    let forgeries: [(&str, &Change<'_>); 6] = [
        ("nothing but a new seal", &|_| {}),
        ("two frames swapped", &|frames| frames.swap(1, 2)),
        ("a frame dropped in the middle", &|frames| drop(frames.remove(1))),
        ("the last frame dropped", &|frames| drop(frames.remove(3))),
        ("a frame of another recording", &|frames| {
            // Times take more or fewer bytes, so it may be longer or shorter.
            let body = Frames::of(&other).frames[1].1.clone();
            frames[1] = (Head { stored: body.len() as u32, ..frames[1].0 }, body);
        }),
        ("a frame that is not encrypted", &|frames| {
            let body = plain(b"forged!");
            let head = Head { stored: body.len() as u32, raw: body.len() as u32, flags: 0, ..frames[1].0 };
            frames[1] = (head, body);
        }),
    ];
    for (what, change) in forgeries {
        let [chain, key] = forge(change);
        assert!(matches!(chain, Ok(Checkup::Complete)), "{what}: the chain alone cannot tell: {chain:?}");
        assert!(matches!(key, Ok(Checkup::Damaged(_))), "{what}: {key:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn spoilt_files_are_never_complete(cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..40usize), 1..6)) {
        let (whole, keys) = sample();
        let mut bytes = whole.clone();
        for (at, byte, len) in cuts {
            let at = at.index(bytes.len().max(1)).min(bytes.len());
            match byte % 3 {
                0 => drop(bytes.splice(at..at, vec![byte; len])),
                1 => drop(bytes.drain(at..(at + len).min(bytes.len()))),
                _ => bytes.iter_mut().skip(at).take(len).for_each(|place| *place = byte),
            }
        }
        prop_assert_eq!(complete(&judged(&bytes, keys)), [bytes == *whole; 2]);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert_eq!(complete(&judged(&bytes, &sample().1)), [false; 2]);
        // Behind a sound header, too.
        let Front::Whole(_, len) = parse_header(&sample().0).unwrap() else { panic!("no header") };
        prop_assert_eq!(complete(&judged(&[&sample().0[..len], &bytes].concat(), &sample().1)), [false; 2]);
    }
}

#[tokio::test]
async fn without_its_key_a_crashed_recording_waits_for_it() {
    let root = tempfile::tempdir().unwrap();
    let recordings = open(root.path());
    let (crashed, new) = crashed(&recordings, root.path(), [output("in the spool")]).await;
    fs::rename(crashed.path().join("recording.key"), crashed.path().join("lost.key")).unwrap();
    let without = open(crashed.path());
    let spool = spool_path(&crashed.path().join("spool"), new.recording);
    let told = recover(&without).await;
    assert_eq!(told.iter().map(|found| found.state).collect::<Vec<_>>(), [RecordingState::Truncated]);
    assert!(spool.exists(), "it holds what is nowhere else");
    let read = without.open_reader(new.session, new.recording, new.started).await;
    let words = read.err().unwrap().to_string();
    let id = keys_of(root.path());
    assert!(words.contains("which this gateway does not have"), "{words}");
    assert!(format!("{id:?}").contains(words.split(' ').nth(7).unwrap().trim_end_matches(',')), "{words} {id:?}");
    // A gateway with the key among its old ones.
    let old = RecordingKey::load(&crashed.path().join("lost.key")).unwrap();
    let settings = Settings { keys: Keys::new(RecordingKey::random().unwrap(), vec![old]), ..settings(crashed.path()) };
    let with = Recordings::open(settings).unwrap();
    assert_eq!(recover(&with).await.len(), 1);
    assert_eq!(whats(read_all(&with, &new).await.0), [output("in the container"), output("in the spool")]);
    assert!(!spool.exists());
}

#[tokio::test]
async fn a_removed_recording_leaves_nothing_and_a_live_one_stays() {
    let root = tempfile::tempdir().unwrap();
    let recordings = open(root.path());
    let ((gone, first), (live, second)) = (start(&recordings).await, start(&recordings).await);
    gone.finish(Ending::Complete).await;
    let path = container_of(root.path(), &first);
    fs::write(path.with_extension("spool"), "evidence").unwrap();
    let remove = async |new: &NewRecording| {
        let (all, new) = (recordings.clone(), new.clone());
        let removed = tokio::task::spawn_blocking(move || all.remove(new.session, new.recording, new.started));
        removed.await.unwrap()
    };
    let size = fs::metadata(&path).unwrap().len();
    assert_eq!(remove(&first).await.unwrap(), size + 8);
    assert!(!path.exists() && !path.parent().unwrap().exists());
    assert_eq!(remove(&first).await.unwrap(), 0, "again is no error");
    assert_eq!(remove(&second).await.unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    live.record(output("goes on")).await.unwrap();
    live.finish(Ending::Complete).await;
    assert_eq!(read_all(&recordings, &second).await.1, Verdict::Complete);
    remove(&second).await.unwrap();
    // The day is long over where the test runs, or it is today and stays.
    assert!(files(&root.path().join("recordings")).is_empty());
}

#[tokio::test]
async fn files_are_listed_by_their_day_in_order_and_foreign_ones_never() {
    let root = tempfile::tempdir().unwrap();
    let recordings = open(root.path());
    let mut made = Vec::new();
    for day in 0..3 {
        for _ in 0..2 {
            let started = particulars(OnFailure::EndSession).started + SignedDuration::from_hours(24 * day);
            let new = NewRecording { started, ..particulars(OnFailure::EndSession) };
            recordings.create(new.clone()).await.unwrap().finish(Ending::Complete).await;
            made.push((new.session, new.recording));
        }
    }
    let dir = root.path().join("recordings");
    fs::write(dir.join("2026-11-22/notes"), "").unwrap();
    fs::create_dir_all(dir.join("2026-11-22/mine")).unwrap();
    fs::write(dir.join("2026-11-22/mine/a.gsr"), "").unwrap();
    fs::create_dir_all(dir.join("1999-notes/x")).unwrap();
    let list = |before: &str, limit| {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = recordings.files_before(before.parse().unwrap(), after.as_ref(), limit).unwrap();
            assert!(page.len() <= limit);
            let Some(last) = page.last() else { return all };
            after = Some(last.clone());
            all.extend(page.into_iter().map(|orphan| (orphan.session, orphan.recording)));
        }
    };
    for limit in [1, 2, 3, 100] {
        assert_eq!(list("2026-11-24T23:59:59Z", limit), made[..4], "{limit}");
    }
    assert!(list("2026-11-22T23:59:59Z", 5).is_empty(), "a day that is not over");
}
