//! What is refused, with which answer, and that nothing of it reaches the server.

use serde_json::json;

use super::talk::*;
use crate::wire::Outcome;

/// Sends a request with an open handle `h` where nothing may be written; returns what was told.
fn refused(request: &[u8], code: u32) -> Vec<(Outcome, serde_json::Value)> {
    let mut talk = Talk::with_file(3);
    talk.may_write = false;
    talk.client(request).unwrap();
    assert_eq!(talk.seen.to_server, b"", "{request:?}");
    assert_eq!(talk.seen.refused.len() as u64 + talk.seen.refused_unkept, request.len() as u64);
    let answer = &talk.seen.answers;
    assert_eq!(answer[..4], (answer.len() as u32 - 4).to_be_bytes());
    assert_eq!(answer[4..13], [&[101][..], &1_u32.to_be_bytes(), &code.to_be_bytes()].concat());
    // A client reads a message and a language behind it.
    let message = usize::try_from(u32::from_be_bytes(answer[13..17].try_into().unwrap())).unwrap();
    assert!(std::str::from_utf8(&answer[17..17 + message]).is_ok_and(|text| !text.is_empty()));
    assert_eq!(answer[17 + message..], *b"\0\0\0\x02en");
    // The session lives on, and the id is free.
    talk.both(&read(1, b"h", 0), &data(1, b"x"));
    let told = talk.told();
    assert!(told.iter().all(|(outcome, about)| *outcome == Outcome::Denied && about["reason"].is_string()));
    talk.finish();
    assert_eq!(talk.told().pop().unwrap().1["denied"], 1);
    told
}

#[test]
fn what_a_read_only_server_refuses() {
    let table: &[(Vec<u8>, &str)] = &[
        (open(1, "a", 2), "write"),
        (open(1, "a", 3), "read_write"),
        (open(1, "a", 4 | 1), "read_write"),
        (open(1, "a", 8 | 1), "read"),
        (open(1, "a", 0x10 | 1), "read"),
        (open(1, "a", 0x20 | 1), "read"),
        (open(1, "a", 0x40 | 1), "read"),
        (write(1, b"h", 0, b"x"), "write"),
        (write(1, b"h", 0, b""), "write"),
        (packet(9, 1, &[S(b"a"), N(0)]), "set"),
        (packet(10, 1, &[S(b"h"), N(0)]), "set"),
        (packet(13, 1, &[S(b"a")]), "remove"),
        (packet(14, 1, &[S(b"a"), N(0)]), "mkdir"),
        (packet(15, 1, &[S(b"a")]), "rmdir"),
        (packet(18, 1, &[S(b"a"), S(b"b")]), "rename"),
        (packet(20, 1, &[S(b"a"), S(b"b")]), "symlink"),
        (extended(1, "posix-rename@openssh.com", &[S(b"a"), S(b"b")]), "rename"),
        (extended(1, "hardlink@openssh.com", &[S(b"a"), S(b"b")]), "link"),
        (extended(1, "fsync@openssh.com", &[S(b"h")]), "fsync"),
        (extended(1, "lsetstat@openssh.com", &[S(b"a"), N(0)]), "set"),
        (extended(1, "copy-data", &[S(b"h"), L(0), L(0), S(b"h"), L(0)]), "copy"),
    ];
    for (request, operation) in table {
        let told = refused(request, 3);
        assert_eq!(told.len(), 1);
        let about = &told[0].1;
        assert_eq!(
            (&about["operation"], &about["reason"]),
            (&json!(operation), &json!("not allowed by policy")),
            "{request:?}"
        );
        // Through a handle, too, the path is known.
        assert!(["a", "b"].map(|path| json!(path)).contains(&about["path"]), "{about}");
        let mut talk = Talk::with_file(3);
        talk.client(request).unwrap();
        assert_eq!((&talk.seen.to_server, &talk.seen.answers), (request, &Vec::new()), "where it may be written");
    }
}

#[test]
fn what_nobody_knows() {
    let told = refused(&extended(1, "new@example.com", &[]), 8);
    assert_eq!((&told[0].1["operation"], &told[0].1["name"]), (&json!("extension"), &json!("new@example.com")));
    // LINK of version 6.
    assert_eq!(refused(&packet(21, 1, &[S(b"a"), S(b"b")]), 8)[0].1["operation"], "unknown");
    let mut talk = Talk::begun(true);
    talk.client(&packet(21, 1, &[S(b"a"), S(b"b")])).unwrap();
    assert_eq!(talk.seen.to_server, b"", "not even where it may be written");
}

#[test]
fn reading_is_not_refused() {
    let mut talk = Talk::begun(false);
    talk.both(&open(1, "a", 1), &handle(1, b"h"));
    talk.both(&read(1, b"h", 0), &data(1, b"x"));
    talk.both(&packet(16, 1, &[S(b"a")]), &name(1, &["/a"]));
    talk.both(&packet(11, 1, &[S(b"a")]), &handle(1, b"d"));
    talk.both(&packet(12, 1, &[S(b"d")]), &status(1, 1));
    talk.both(&extended(1, "statvfs@openssh.com", &[S(b"a")]), &packet(201, 1, &[]));
    talk.both(&close(1, b"h"), &status(1, 0));
    assert_eq!((talk.seen.refused, talk.seen.answers), (Vec::new(), Vec::new()));
}

#[test]
fn handles_that_were_not_given() {
    let changes: &[Vec<u8>] = &[
        write(1, b"x", 0, b"x"),
        packet(10, 1, &[S(b"x"), N(0)]),
        extended(1, "fsync@openssh.com", &[S(b"x")]),
        extended(1, "copy-data", &[S(b"x"), L(0), L(0), S(b"h"), L(0)]),
        extended(1, "copy-data", &[S(b"h"), L(0), L(0), S(b"x"), L(0)]),
    ];
    let others: &[Vec<u8>] = &[
        read(1, b"x", 0),
        close(1, b"x"),
        packet(8, 1, &[S(b"x")]),
        packet(12, 1, &[S(b"x")]),
        extended(1, "fstatvfs@openssh.com", &[S(b"x")]),
    ];
    for (request, is_told) in changes.iter().map(|c| (c, true)).chain(others.iter().map(|o| (o, false))) {
        let mut talk = Talk::with_file(3);
        talk.client(request).unwrap();
        assert_eq!(talk.seen.to_server, b"", "{request:?}");
        assert_eq!(talk.seen.answers[4..13], [101, 0, 0, 0, 1, 0, 0, 0, 4]);
        assert_eq!(talk.told().len(), usize::from(is_told), "{request:?}");
        // The same once more is not told again.
        talk.client(request).unwrap();
        assert!(talk.told().is_empty());
        talk.finish();
        let counted = if is_told { ("denied", 1) } else { ("failed", 2) };
        assert_eq!(talk.told().pop().unwrap().1[counted.0], counted.1);
    }
}

#[test]
fn a_handle_ends_with_its_close() {
    let mut talk = Talk::with_file(3);
    // A client that guesses: the handle is given again by the time that the server reads this.
    talk.client(&[close(1, b"h"), open(2, "b", 3), write(3, b"h", 0, b"x"), read(4, b"h", 0)].concat()).unwrap();
    assert_eq!(talk.seen.to_server, [close(1, b"h"), open(2, "b", 3)].concat());
    talk.server(&[status(1, 0), handle(2, b"h")].concat()).unwrap();
    talk.both(&read(4, b"h", 0), &data(4, b"x"));
}

#[test]
fn a_right_that_is_taken_away() {
    let mut talk = Talk::with_file(0x1a);
    let pieces = [write(1, b"h", 0, b"0123456789"), write(2, b"h", 10, b"0123456789")].concat();
    talk.client(&pieces[..30]).unwrap();
    talk.may_write = false;
    // What was begun goes on, or the stream would be out of step.
    for byte in &pieces[30..] {
        talk.client(&[*byte]).unwrap();
    }
    talk.client(&write(3, b"h", 20, b"x")).unwrap();
    assert_eq!(talk.seen.to_server, pieces[..36]);
    assert_eq!(talk.seen.refused_unkept, 11);
    talk.server(&status(1, 0)).unwrap();
    let told = talk.told();
    assert_eq!(told.len(), 1, "once for the file");
    assert_eq!((&told[0].1["operation"], &told[0].1["path"]), (&json!("write"), &json!("a")));
    talk.both(&close(1, b"h"), &status(1, 0));
    assert_eq!(talk.told()[0].1["bytes_written"], 10);
    talk.finish();
    assert_eq!(talk.told()[0].1["denied"], 2);
}

#[test]
fn open_files_have_a_limit() {
    let mut talk = Talk::begun(true);
    for id in 0..crate::wire::sftp::files::MAX_OPEN as u32 {
        talk.both(&open(id, "a", 1), &handle(id, &id.to_be_bytes()));
    }
    talk.client(&open(0, "b", 1)).unwrap();
    assert_eq!(talk.seen.answers[9..13], 4_u32.to_be_bytes());
    assert_eq!(talk.told()[0].1["reason"], "too many files are open");
    talk.both(&close(0, &7_u32.to_be_bytes()), &status(0, 0));
    talk.both(&open(0, "b", 1), &handle(0, b"new"));
}
