//! With the real `rsync`, and with bytes that are none of it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::arguments::{BAD_ARGUMENTS, MAX_ARGUMENTS};
use super::facts::mode;
use super::*;
use crate::wire::real_tests::{From, Run, Seen, Transcript, cut, replay, run};
use crate::wire::transfer::{Kind, recognise};

fn options(command: &[u8]) -> Options {
    match recognise(command).map(|transfer| transfer.kind) {
        Some(Kind::Rsync(options)) => *options,
        other => panic!("{other:?}: {}", String::from_utf8_lossy(command)),
    }
}

fn rsync(dir: &Path, keep: Keep, words: &[&str]) -> Run {
    let words: Vec<&OsStr> = ["rsync"].iter().chain(words).map(OsStr::new).collect();
    run(&words, "-e", &dir.join("wires"), |text| Box::new(Files::new(options(text), keep)))
}

/// Files with names that are hard, and their sizes.
fn tree(dir: &Path) -> Vec<(String, u64)> {
    let mut files = Vec::new();
    for (name, size) in [
        ("a", 1),
        ("a b", 40_000),
        ("a.d/z", 3),
        ("b/a", 0),
        ("b/..x", 5),
        ("b/c/d/e", 70_000),
        ("b/c.x", 7),
        ("b-c", 8),
        ("z\nnew", 9),
        ("z\u{f6}\u{df}", 10),
        ("z/long-long-long-long-long-name-1", 11),
        ("z/long-long-long-long-long-name-2", 12),
    ] {
        let path = dir.join("t").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let contents: Vec<u8> = (0..size).map(|n: u64| (n.wrapping_mul(2_654_435_761) >> 7) as u8).collect();
        fs::write(path, contents).unwrap();
        files.push((name.to_owned(), size));
    }
    for (name, value) in [("user.short", "v".repeat(9)), ("user.long", "w".repeat(90))] {
        let path = dir.join("t/b/c.x");
        // Not every file system has them; without, there are none to list.
        let _ = rustix::fs::setxattr(path, name, value.as_bytes(), rustix::fs::XattrFlags::empty());
    }
    symlink("a b", dir.join("t/link")).unwrap();
    fs::hard_link(dir.join("t/a.d/z"), dir.join("t/b/hard")).unwrap();
    files.sort();
    files
}

/// `(path, size)` of the files that were copied, in order of paths.
fn copied(seen: &Seen, operation: &str) -> Vec<(String, u64)> {
    let mut files: Vec<_> = seen
        .files()
        .into_iter()
        .filter(|about| about["operation"] == operation && about["complete"] == true)
        .map(|about| (about["path"].as_str().unwrap().to_owned(), about["size"].as_u64().unwrap()))
        .collect();
    let has_both = files.iter().any(|(path, _)| path.ends_with("b/hard"));
    for (path, _) in &mut files {
        if !has_both && path.ends_with("a.d/z") {
            *path = path.replace("a.d/z", "b/hard");
        }
    }
    files.sort();
    files
}

fn below(prefix: &str, files: &[(String, u64)]) -> Vec<(String, u64)> {
    files.iter().map(|(name, size)| (format!("{prefix}{name}"), *size)).collect()
}

#[test]
fn what_is_copied_is_listed() {
    copy_with(&[
        "-a",
        "-av",
        "-aH",
        "-r",
        "-rlt",
        "-a --checksum",
        "-ac --inplace",
        "-avs",
        "-ai",
        "-aW",
        "-avvv",
        "-aR",
        "-a --append",
        "-a --partial --delay-updates",
        "-a --delete",
    ]);
}

#[test]
fn what_is_copied_is_listed_in_one_list_and_in_older_protocols() {
    copy_with(&[
        "-a --no-inc-recursive",
        "-aH --no-inc-recursive",
        "-a --numeric-ids --no-inc-recursive",
        "-a --delete -m --no-inc-recursive",
        "-a --protocol=31",
        "-a --protocol=30",
        "-aH --protocol=30",
        "-a --protocol=29",
        "-aH --protocol=29",
        "-ac --protocol=29",
        "-rz --protocol=29",
        "-a --delete --protocol=29",
        "-a --protocol=28",
        "-acH --protocol=27",
    ]);
}

#[test]
fn what_is_copied_is_listed_however_it_is_packed() {
    copy_with(&[
        "-rz",
        "-a --zc=zstd",
        "-a --zc=zlibx",
        "-az --zc=lz4",
        "-ac --cc=sha1",
        "-a --cc=none",
        "-aUU",
        "-a --iconv=utf8,utf8",
        "-aAX",
        "-aHAX --protocol=30",
        "-aX --no-inc-recursive",
        "-aAXH --no-inc-recursive",
    ]);
}

/// With each set of options: up, up again, and down.
fn copy_with(sets: &[&str]) {
    for flags in sets {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let files = tree(dir.path());
        // With `-H` only one name of a file is copied, and which is rsync's choice.
        let all = |prefix: &str| {
            let mut all = below(prefix, &files);
            all.push((format!("{prefix}b/hard"), 3));
            if flags.contains('H') {
                all.retain(|(name, _)| !name.ends_with("a.d/z"));
            }
            all.sort();
            all
        };
        let flags: Vec<&str> = flags.split(' ').collect();
        let with =
            |more: [&str; 2]| flags.iter().map(|flag| (*flag).to_owned()).chain(more.map(str::to_owned)).collect();
        let go = |words: Vec<String>| {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            rsync(dir.path(), Keep::Metadata, &words)
        };
        let relative = flags.contains(&"-aR");
        let up = go(with([&at("t/"), &format!("host:{}/", at("to"))]));
        assert!(up.ok, "{flags:?}");
        assert_eq!(up.read.summary()["unlisted"], Value::Null, "{flags:?}");
        let prefix = if relative { format!("{}{}/", at("to"), at("t")) } else { at("to/") };
        let got = copied(&up.read, "write");
        assert_eq!(got.len(), all(&prefix).len(), "{flags:?} {got:?}");
        assert_eq!(got, all(&prefix), "{flags:?}");
        let literal: u64 = up.read.files().iter().filter_map(|about| about["transferred"].as_u64()).sum();
        let is_compressed = flags.iter().any(|flag| flag.contains('z'));
        if !is_compressed {
            assert_eq!(literal, all("").iter().map(|(_, size)| size).sum::<u64>(), "{flags:?}");
            assert!(up.read.kept[0].len() < 20_000, "{flags:?} {}", up.read.kept[0].len());
        }
        if relative {
            continue;
        }

        let again = go(with([&at("t/"), &format!("host:{}/", at("to"))]));
        assert!(again.ok);
        assert_eq!(again.read.summary()["unlisted"], Value::Null, "{flags:?}");
        // Without times everything is looked at again, and nothing of it is sent.
        let literal: u64 = again.read.files().iter().filter_map(|about| about["transferred"].as_u64()).sum();
        let keeps_times = flags.iter().any(|flag| *flag == "-rlt" || flag.starts_with("-a"));
        assert!(!keeps_times || copied(&again.read, "write").is_empty(), "{flags:?}");
        assert!(literal < 50_000, "{flags:?} {literal}");

        let down = go(with([&format!("host:{}", at("to")), &at("back")]));
        assert!(down.ok);
        assert_eq!(down.read.summary()["unlisted"], Value::Null, "{flags:?}");
        assert_eq!(copied(&down.read, "read"), all(&at("to/")), "{flags:?}");
        assert!(down.read.passed[1].len() > 60_000 || is_compressed);
        assert_eq!(fs::read(at("back/to/b/c/d/e")).unwrap(), fs::read(at("t/b/c/d/e")).unwrap());
        let whole = replay(Files::new(options(&down.command), Keep::Metadata), &down.transcript);
        assert_eq!(replay(Files::new(options(&down.command), Keep::Metadata), &cut(&down.transcript, &[1])), whole);
        assert_eq!(whole.facts, down.read.facts);
    }
}

fn short(dir: &Path, words: &[&str]) -> Run {
    let run = rsync(dir, Keep::Contents, words);
    assert_eq!(run.read.stop, None);
    assert_eq!(run.read.kept, run.read.passed);
    run
}

#[test]
fn one_file_is_the_target_or_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("a"), "abc").unwrap();
    let up = short(dir.path(), &["-a", &at("a"), &format!("host:{}", at("b"))]);
    assert!(up.ok);
    let files = up.read.files();
    assert_eq!((&files[0]["path"], &files[0]["name"]), (&json!(at("b")), &json!("a")));
    let mode = mode(fs::metadata(at("a")).unwrap().permissions().mode());
    assert_eq!((&files[0]["mode"], &files[0]["transferred"]), (&json!(mode), &json!(3)));
    assert_eq!(files[0]["contents_kept"], true);
    let down = short(dir.path(), &["-a", &format!("host:{}", at("b")), &at("c")]);
    assert_eq!(down.read.files()[0]["path"], at("b"));
    let two = short(dir.path(), &["-a", &format!("host:{}", at("a")), &format!("host:{}", at("b")), &at("d")]);
    assert_eq!(copied(&two.read, "read"), [("a".to_owned(), 3), ("b".to_owned(), 3)]);
    assert_eq!(two.read.summary()["files_read"], 2);
    assert_eq!(two.read.summary()["bytes_read"], 6);
    assert_eq!(two.read.summary()["files_listed"], 2);
}

#[test]
fn what_is_not_there_or_removed_or_made_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    // Otherwise a server says it on its standard error, which is no part of this stream.
    let missing = short(dir.path(), &["-a", "--stderr=client", &format!("host:{}", at("missing")), &at("c")]);
    assert!(missing.read.files()[0]["message"].as_str().unwrap().contains("No such file"));
    assert_eq!(missing.read.summary()["failed"], 1);

    tree(dir.path());
    fs::create_dir_all(at("to/gone")).unwrap();
    fs::write(at("to/gone/x"), "").unwrap();
    let up = short(dir.path(), &["-aiH", "--delete", &at("t/"), &format!("host:{}", at("to"))]);
    assert!(up.ok);
    let told = |operation: &str| {
        let files = up.read.files().into_iter().filter(|about| about["operation"] == operation);
        let mut paths: Vec<_> = files.map(|about| about["path"].as_str().unwrap().to_owned()).collect();
        paths.sort();
        paths
    };
    assert_eq!(told("remove"), [at("to/gone"), at("to/gone/x")]);
    assert_eq!(told("mkdir"), ["a.d", "b", "b/c", "b/c/d", "z"].map(|name| at(&format!("to/{name}"))));
    assert_eq!(told("symlink"), [at("to/link")]);
    assert_eq!(told("link").len(), 1);
    assert_eq!(up.read.summary()["changes"], 9);
}

#[test]
fn a_dry_run_copies_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    tree(dir.path());
    let up = short(dir.path(), &["-ain", &at("t/"), &format!("host:{}", at("to"))]);
    assert!(up.ok);
    assert_eq!(up.read.files(), Vec::<&Value>::new());
    assert_eq!(up.read.summary()["unlisted"], Value::Null);
    assert_eq!(up.read.summary()["files_listed"], 20);
}

#[test]
fn many_directories_are_followed() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    for n in 0..300 {
        fs::create_dir_all(at(&format!("t/{}/{n}", n % 17))).unwrap();
        for name in ["a", "b.c", "b-c", "b"] {
            fs::write(at(&format!("t/{}/{n}/{name}", n % 17)), name).unwrap();
        }
    }
    for flags in ["-r", "-rz"] {
        let run = short(dir.path(), &[flags, &format!("host:{}", at("t/")), &at(flags)]);
        assert_eq!(run.read.summary()["unlisted"], Value::Null);
        let got = copied(&run.read, "read");
        assert_eq!(got.len(), 1200);
        for (path, size) in got {
            assert_eq!(fs::metadata(path).unwrap().len(), size);
        }
    }
}

/// `rsync -s`, as a client sends it that wants something else.
#[test]
fn arguments_in_the_stream_are_judged_before_they_pass() {
    let go = |command: &[u8], stream: &'static [u8], may_write: bool| {
        let mut files = Files::new(options(command), Keep::Metadata);
        let mut steps = Vec::new();
        let (first, second) = stream.split_at(9);
        let before = files.input(Bytes::from_static(first), may_write, &mut steps);
        assert!(before.is_err() || steps.is_empty());
        let result = files.input(Bytes::from_static(second), may_write, &mut steps);
        (result.err().map(|stop| stop.words), steps.len())
    };
    let (up, down) = (b"rsync --server -se.iLsfxCIvu".as_slice(), b"rsync --server --sender -se.iLsfxCIvu".as_slice());
    let fine = b"rsync\0--no-W\0.\0a b\0c\0\0\x1f\0\0\0";
    assert_eq!(go(down, fine, false), (None, 2));
    assert_eq!(go(up, fine, true), (None, 2));
    assert_eq!(go(down, b"rsync\0--remove-source-files\0.\0a\0\0", true), (None, 1));
    assert_eq!(go(down, b"rsync\0--remove-source-files\0.\0a\0\0", false), (Some(MAY_NOT_WRITE.words), 0));
    assert_eq!(go(up, fine, false), (Some(MAY_NOT_WRITE.words), 0));
    for bad in [
        b"rsync\0--log-file=/etc/x\0.\0a\0\0".as_slice(),
        b"rsync\0.\0a\0--log-file=/etc/x\0\0",
        b"rsync\0.\0*\0\0",
        b"rsync\0.\0\\--log-file=x\0\0",
        b"rsync\0--daemon\0.\0a\0\0",
        b"rsync\0-M--log-file=x\0.\0\0",
    ] {
        assert_eq!(go(down, bad, true), (Some(BAD_ARGUMENTS.words), 0), "{}", String::from_utf8_lossy(bad));
    }
    assert_eq!(go(up, b"rsync\0--sender\0.\0a\0\0", true), (Some(BAD_ARGUMENTS.words), 0));
    let mut files = Files::new(options(down), Keep::Metadata);
    let long = Bytes::from(vec![b'x'; MAX_ARGUMENTS + 1]);
    assert!(files.input(long, true, &mut Vec::new()).is_err());
}

#[test]
fn what_is_not_understood_goes_on_unread_and_is_told() {
    for (said, why) in [
        (b"Welcome to this host\n".as_slice(), "does not begin"),
        (b"\x1a\0\0\0".as_slice(), "not known"),
        (b"\x1f\0\0\0\x80".as_slice(), "did not wait"),
    ] {
        let transcript = [
            (From::Client, Bytes::from_static(b"\x1f\0\0\0")),
            (From::Upstream, Bytes::from_static(said)),
            (From::Client, Bytes::from_static(b"this is all of it")),
        ];
        let seen = replay(Files::new(options(b"rsync --server -re.LsfxCIvu . a"), Keep::Metadata), &transcript);
        assert_eq!(seen.stop, None);
        assert_eq!(seen.passed[0], b"\x1f\0\0\0this is all of it");
        assert!(seen.summary()["unlisted"].as_str().unwrap().contains(why), "{said:?} {}", seen.summary());
        assert_eq!(seen.files().len(), 1);
        assert_eq!(seen.summary()["bytes_carried"], 21);
    }
}

/// A short download: protocol 31, one file of three bytes.
fn download() -> Transcript {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::create_dir(at("t")).unwrap();
    fs::write(at("t/a"), "abc").unwrap();
    fs::write(at("t/b"), vec![b'x'; 5000]).unwrap();
    short(dir.path(), &["-r", &format!("host:{}", at("t/")), &at("c")]).transcript
}

const DOWNLOAD: &[u8] = b"rsync --server --sender -re.iLsfxCIvu . /srv/";

#[test]
fn a_cut_that_comes_early_leaves_a_file_that_is_not_complete() {
    let mut transcript = download();
    let place = transcript.iter().rposition(|(_, data)| data.windows(3).any(|three| three == b"abc")).unwrap();
    let (from, data) = transcript[place].clone();
    let end = data.windows(3).position(|three| three == b"abc").unwrap() + 2;
    transcript.truncate(place);
    transcript.push((from, data.slice(..end)));
    let seen = replay(Files::new(options(DOWNLOAD), Keep::Metadata), &transcript);
    assert_eq!((&seen.files()[0]["path"], &seen.files()[0]["complete"]), (&json!("/srv/a"), &json!(false)));
    assert_eq!(seen.files()[0]["transferred"], 2);
    assert_eq!(seen.summary()["incomplete"], 1);
}

/// A list without an end: what is held of it has one.
#[test]
fn too_many_names_are_not_held() {
    let int = |number: i32| number.to_le_bytes().to_vec();
    let version = Bytes::from(int(31));
    let mut list = Vec::new();
    for n in 0..200_001 {
        let name = format!("{n:08}");
        // Flags, the name, size, time, mode.
        list.extend([&[1, 8], name.as_bytes(), &[0; 3], &[0; 4], &int(0o100_644)].concat());
    }
    let mut stream = [int(31), vec![0], int(5)].concat();
    for piece in list.chunks(30_000) {
        stream.extend([&int(7 << 24 | i32::try_from(piece.len()).unwrap()), piece].concat());
    }
    let transcript = [(From::Client, version), (From::Upstream, Bytes::from(stream.clone()))];
    let command = b"rsync --server --sender -re.LsfxC . /srv";
    let seen = replay(Files::new(options(command), Keep::Metadata), &transcript);
    assert_eq!(seen.summary()["unlisted"], "too many names are listed at once");
    assert_eq!(seen.summary()["files_listed"], 200_000);
    assert_eq!(seen.passed[1], stream);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_cut_is_read_alike(lengths in proptest::collection::vec(1_usize..40, 1..8)) {
        static TRANSCRIPT: std::sync::LazyLock<Transcript> = std::sync::LazyLock::new(download);
        let whole = replay(Files::new(options(DOWNLOAD), Keep::Metadata), &TRANSCRIPT);
        prop_assert_eq!(whole.files().len(), 2);
        let pieces = replay(Files::new(options(DOWNLOAD), Keep::Metadata), &cut(&TRANSCRIPT, &lengths));
        prop_assert_eq!(pieces, whole);
    }

    /// Bytes that are changed anywhere: all of them pass, nothing fails.
    #[test]
    fn any_bytes_pass(changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..6), cuts in 1_usize..99) {
        static TRANSCRIPT: std::sync::LazyLock<Transcript> = std::sync::LazyLock::new(download);
        let mut transcript = TRANSCRIPT.clone();
        let count = transcript.len();
        for (place, byte) in changes {
            let (_, data) = &mut transcript[usize::from(place) % count];
            let mut bytes = data.to_vec();
            let length = bytes.len();
            bytes[usize::from(place) / count % length] = byte;
            *data = bytes.into();
        }
        let seen = replay(Files::new(options(DOWNLOAD), Keep::Metadata), &cut(&transcript, &[cuts]));
        for side in [From::Client, From::Upstream] {
            let sent: Vec<u8> =
                transcript.iter().filter(|(from, _)| *from == side).flat_map(|(_, data)| data.to_vec()).collect();
            prop_assert_eq!(&seen.passed[side as usize], &sent);
        }
    }
}
