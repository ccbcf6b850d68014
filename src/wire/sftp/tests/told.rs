//! What is told of changes and listings, and how paths are written.

use serde_json::{Value, json};

use super::talk::*;
use crate::wire::{Outcome, Reading, Step};

fn told_once(request: &[u8], reply: &[u8]) -> (Outcome, Value) {
    let mut talk = Talk::with_file(3);
    talk.both(request, reply);
    let mut told = talk.told();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(talk.seen.to_server, request);
    assert_eq!(talk.seen.to_client, reply);
    told.remove(0)
}

#[test]
fn changes() {
    let (a, b) = (S(b"/a"), S(b"/b"));
    let table = [
        (
            packet(18, 1, &[S(b"/a"), S(b"/b")]),
            json!({"operation": "rename", "path": "/a", "absolute": "/a", "to": "/b", "to_absolute": "/b", "posix": false}),
        ),
        (
            extended(1, "posix-rename@openssh.com", &[S(b"/a"), S(b"/b")]),
            json!({"operation": "rename", "path": "/a", "absolute": "/a", "to": "/b", "to_absolute": "/b", "posix": true}),
        ),
        (packet(13, 1, &[S(b"a")]), json!({"operation": "remove", "path": "a"})),
        (packet(15, 1, &[S(b"a")]), json!({"operation": "rmdir", "path": "a"})),
        (packet(14, 1, &[S(b"a"), N(0)]), json!({"operation": "mkdir", "path": "a"})),
        (packet(14, 1, &[S(b"a"), N(4), N(0o40750)]), json!({"operation": "mkdir", "path": "a", "mode": "0750"})),
        (
            extended(1, "hardlink@openssh.com", &[a, b]),
            json!({"operation": "link", "path": "/a", "absolute": "/a", "to": "/b", "to_absolute": "/b"}),
        ),
        (
            packet(20, 1, &[S(b"target"), S(b"link")]),
            json!({"operation": "symlink", "path": "link", "target": "target"}),
        ),
        (
            packet(9, 1, &[S(b"a"), N(0xf), L(5), N(1000), N(100), N(0o100644), N(7), N(8)]),
            json!({"operation": "set", "path": "a", "follow": true, "attributes": {
                "size": 5, "uid": 1000, "gid": 100, "mode": "0644", "atime": 7, "mtime": 8
            }}),
        ),
        (
            packet(10, 1, &[S(b"h"), N(1), L(5)]),
            json!({"operation": "set", "path": "a", "follow": true, "attributes": {"size": 5}}),
        ),
        (
            extended(1, "lsetstat@openssh.com", &[S(b"a"), N(0x8000_0000), N(1), S(b"x"), S(b"y")]),
            json!({"operation": "set", "path": "a", "follow": false, "attributes": {"extended": 1}}),
        ),
        (
            extended(1, "copy-data", &[S(b"h"), L(1), L(2), S(b"h"), L(3)]),
            json!({"operation": "copy", "path": "a", "to": "a", "offset": 1, "length": 2, "to_offset": 3}),
        ),
        (extended(1, "new@example.com", &[N(1)]), json!({"operation": "extension", "name": "new@example.com"})),
    ];
    for (request, mut about) in table {
        assert_eq!(told_once(&request, &status(1, 0)), (Outcome::Done, about.clone()));
        about["status"] = json!({"code": 4, "message": "as it is"});
        assert_eq!(told_once(&request, &status(1, 4)), (Outcome::Failed, about.clone()));
        // Without an answer.
        let mut talk = Talk::with_file(3);
        talk.client(&request).unwrap();
        assert!(talk.told().is_empty());
        talk.finish();
        about.as_object_mut().unwrap().remove("status");
        about["complete"] = false.into();
        assert_eq!(talk.told()[0], (Outcome::Failed, about));
    }
}

#[test]
fn an_extension_may_answer_in_its_own_way() {
    let about = json!({"operation": "extension", "name": "x"});
    assert_eq!(told_once(&extended(1, "x", &[]), &packet(201, 1, &[N(5)])), (Outcome::Done, about.clone()));
    assert_eq!(told_once(&extended(1, "x", &[]), &name(1, &["a"])), (Outcome::Done, about));
    let (_, about) = told_once(&extended(1, &"x".repeat(99), &[]), &status(1, 0));
    assert_eq!(about["name"], "x".repeat(64));
}

#[test]
fn lookups_are_counted_only() {
    let mut talk = Talk::with_file(3);
    let by_path = |kind| packet(kind, 1, &[S(b"a")]);
    talk.both(&by_path(7), &status(1, 2));
    talk.both(&by_path(17), &packet(105, 1, &[N(0)]));
    talk.both(&by_path(19), &name(1, &["b"]));
    talk.both(&by_path(16), &name(1, &["/a"]));
    talk.both(&packet(8, 1, &[S(b"h")]), &packet(105, 1, &[N(0)]));
    for name in ["statvfs@openssh.com", "limits@openssh.com", "expand-path@openssh.com", "home-directory"] {
        talk.both(&extended(1, name, &[S(b"a")]), &packet(201, 1, &[]));
    }
    talk.both(&extended(1, "fstatvfs@openssh.com", &[S(b"h")]), &packet(201, 1, &[]));
    talk.both(&extended(1, "fsync@openssh.com", &[S(b"h")]), &status(1, 0));
    talk.both(&extended(1, "users-groups-by-id@openssh.com", &[S(b""), S(b"")]), &packet(201, 1, &[]));
    talk.both(&close(1, b"h"), &status(1, 0));
    assert_eq!(talk.told().len(), 1, "the file");
    talk.finish();
    assert_eq!(
        talk.told(),
        [(
            Outcome::Done,
            json!({
                "files_read": 1, "files_written": 1, "bytes_read": 0, "bytes_written": 0, "changes": 0,
                "denied": 0, "failed": 0, "lookups": 12, "incomplete": 0
            })
        )]
    );
}

#[test]
fn a_listing_has_a_count() {
    let list = |talk: &mut Talk| {
        talk.both(&packet(11, 1, &[S(b"d")]), &handle(1, b"d1"));
        talk.both(&packet(12, 2, &[S(b"d1")]), &name(2, &[".", "..", "a"]));
        talk.both(&packet(12, 2, &[S(b"d1")]), &name(2, &["b"]));
        talk.both(&packet(12, 2, &[S(b"d1")]), &status(2, 1));
    };
    let mut talk = Talk::begun(false);
    list(&mut talk);
    talk.both(&close(1, b"d1"), &status(1, 0));
    let mut about = json!({"operation": "list", "path": "d", "entries": 4, "complete": true});
    assert_eq!(talk.told(), [(Outcome::Done, about.clone())]);
    list(&mut talk);
    talk.finish();
    about["complete"] = false.into();
    assert_eq!(talk.told()[0], (Outcome::Done, about));

    let missing = told_once(&packet(11, 1, &[S(b"d")]), &status(1, 2));
    let about = json!({"operation": "list", "path": "d", "status": {"code": 2, "message": "as it is"}});
    assert_eq!(missing, (Outcome::Failed, about));
    let mut talk = Talk::begun(false);
    talk.both(&packet(11, 1, &[S(b"d")]), &handle(1, b"d1"));
    talk.both(&packet(12, 2, &[S(b"d1")]), &status(2, 3));
    talk.both(&close(1, b"d1"), &status(1, 0));
    assert_eq!(talk.told()[0].0, Outcome::Failed);
}

#[test]
fn relative_paths_begin_where_the_server_says() {
    let absolute = |directory: &str, path: &str| {
        let mut talk = Talk::begun(true);
        talk.both(&packet(16, 1, &[S(b".")]), &name(1, &[directory]));
        talk.both(&packet(13, 1, &[S(path.as_bytes())]), &status(1, 0));
        talk.told()[0].1["absolute"].clone()
    };
    for (directory, path, joined) in [
        ("/home/me", "a", "/home/me/a"),
        ("/home/me", "../a", "/home/me/../a"),
        ("/home/me", ".", "/home/me"),
        ("/home/me", "", "/home/me"),
        ("/home/me", "/etc/x", "/etc/x"),
        ("/", "a", "/a"),
    ] {
        assert_eq!(absolute(directory, path), joined);
    }
    assert_eq!(absolute("not absolute", "a"), Value::Null);
    let mut talk = Talk::begun(true);
    talk.both(&packet(16, 1, &[S(b"x")]), &name(1, &["/elsewhere"]));
    talk.both(&packet(16, 1, &[S(b".")]), &name(1, &[]));
    talk.both(&packet(16, 1, &[S(b".")]), &status(1, 2));
    talk.both(&packet(13, 1, &[S(b"a")]), &status(1, 0));
    assert_eq!(talk.told()[0].1, json!({"operation": "remove", "path": "a"}));
    // What is known stays so.
    talk.both(&packet(16, 1, &[S(b"")]), &name(1, &["/home"]));
    talk.both(&packet(16, 1, &[S(b".")]), &name(1, &["odd"]));
    talk.both(&packet(13, 1, &[S(b"a")]), &status(1, 0));
    assert_eq!(talk.told()[0].1["absolute"], "/home/a");
}

#[test]
fn what_is_told_stands_behind_the_bytes_that_say_so() {
    let mut talk = Talk::with_file(3);
    talk.client(&packet(13, 1, &[S(b"a")])).unwrap();
    let mut steps = Vec::new();
    talk.files.output([status(1, 0), status(1, 0)].concat().into(), true, &mut steps).unwrap_err();
    assert!(matches!(&steps[..], [Step::Pass(bytes), Step::Tell(_)] if *bytes == status(1, 0)), "{steps:?}");
}

#[test]
fn paths_are_bytes() {
    let (_, about) = told_once(&packet(13, 1, &[S(b"/\xff\x00a")]), &status(1, 0));
    assert_eq!(about["path"], "/\u{fffd}\0a");
    assert_eq!(about["path_hex"], "2fff0061");
    let (_, about) = told_once(&packet(18, 1, &[S(b"a"), S(b"\xc3")]), &status(1, 0));
    assert_eq!(about["to_hex"], "c3");
    assert!(about.get("path_hex").is_none());
    let (_, about) = told_once(&packet(13, 1, &[S(&[b'x'; 5000])]), &status(1, 0));
    assert_eq!(about["path"], "x".repeat(4096));
    assert_eq!(about["path_cut"], true);
}

#[test]
fn messages_of_servers_are_cut() {
    let long = packet(101, 1, &[N(4), S(&[b'm'; 300]), S(b"")]);
    assert_eq!(told_once(&packet(13, 1, &[S(b"a")]), &long).1["status"]["message"], "m".repeat(256));
    let short = packet(101, 1, &[N(4)]);
    assert_eq!(told_once(&packet(13, 1, &[S(b"a")]), &short).1["status"], json!({"code": 4, "message": ""}));
}
