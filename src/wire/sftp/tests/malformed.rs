//! What ends the channel, and that nothing of it passes.

use proptest::prelude::*;

use super::talk::*;
use crate::wire::Keep;
use crate::wire::sftp::change::{Change, Details};
use crate::wire::sftp::outstanding::{Asked, MAX_OUTSTANDING, Outstanding};
use crate::wire::sftp::packet::{MAX_HELD, MAX_STREAMED, Name};

fn words_of_client(talk: &mut Talk, bytes: &[u8]) -> &'static str {
    let (before, stop) = (talk.seen.clone(), talk.client(bytes).unwrap_err());
    assert_eq!(talk.seen, before, "something of it passed");
    assert_eq!(talk.client(&read(99, b"h", 0)), Err(stop.clone()), "it went on");
    assert_eq!(talk.server(b"x"), Err(stop.clone()), "it went on");
    stop.words
}

fn words_of_server(talk: &mut Talk, bytes: &[u8]) -> &'static str {
    let (before, stop) = (talk.seen.clone(), talk.server(bytes).unwrap_err());
    assert_eq!(talk.seen, before, "something of it passed");
    assert_eq!(talk.client(&read(99, b"h", 0)), Err(stop.clone()), "it went on");
    stop.words
}

fn length(length: usize, kind: u8) -> Vec<u8> {
    [&(length as u32).to_be_bytes()[..], &[kind], &[0; 8]].concat()
}

#[test]
fn requests_that_are_none() {
    let table: &[(&str, Vec<u8>)] = &[
        ("init twice", init(3)),
        ("an empty packet", length(0, 3)),
        ("longer than may be held", length(MAX_HELD - 3, 3)),
        ("longer than may stream", length(MAX_STREAMED - 3, 6)),
        ("text", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("no id", raw(3, &[])),
        ("no path", packet(3, 1, &[])),
        ("a path beyond the packet", packet(17, 1, &[N(5)])),
        ("no flags", packet(3, 1, &[S(b"a")])),
        ("no attributes", packet(3, 1, &[S(b"a"), N(1)])),
        ("attributes without the size they say", packet(9, 1, &[S(b"a"), N(1), N(0)])),
        ("attributes without the pairs they say", packet(9, 1, &[S(b"a"), N(0x8000_0000), N(u32::MAX)])),
        ("half a rename", packet(18, 1, &[S(b"a")])),
        ("half a copy", extended(1, "copy-data", &[S(b"h"), L(0), L(0)])),
        ("an extension without a name", packet(200, 1, &[])),
        ("a handle longer than the draft's", packet(6, 1, &[S(&[0; 257]), L(0), S(b"x")])),
        ("a write whose handle leaves no room", raw(6, &[N(1), N(200)])),
        ("a write with less than it says", packet(6, 1, &[S(b"h"), L(0), N(2), N(0)][..3])),
        ("a write with more than it says", packet(6, 1, &[S(b"h"), L(0), N(2), L(0)])),
        ("a reply", status(1, 0)),
        ("a version", version(3)),
    ];
    for (what, bytes) in table {
        let mut talk = Talk::with_file(3);
        assert!(words_of_client(&mut talk, bytes).contains("not sftp"), "{what}");
    }
}

#[test]
fn replies_that_are_none() {
    let table: &[(&str, Vec<u8>, &str)] = &[
        ("an empty packet", length(0, 101), "not sftp"),
        ("longer than may be held", length(MAX_HELD - 3, 101), "not sftp"),
        ("longer than may stream", length(MAX_STREAMED - 3, 103), "not sftp"),
        ("text", b"Connection reset\n".to_vec(), "not sftp"),
        ("version twice", version(3), "not sftp"),
        ("a request", read(1, b"h", 0), "not sftp"),
        ("data with more than it says", packet(103, 1, &[N(1), N(0)]), "not sftp"),
        ("data with less than it says", packet(103, 1, &[N(5), N(0)]), "not sftp"),
        ("data without a length", packet(103, 1, &[]), "not sftp"),
        ("more names than there is room for", packet(104, 1, &[N(2), S(b"a"), S(b""), N(0)]), "not sftp"),
        ("a handle longer than the draft's", packet(102, 1, &[S(&[0; 257])]), "not sftp"),
        ("a status without a code", packet(101, 1, &[]), "not sftp"),
        ("an id that was never asked", status(2, 0), "not sent"),
        ("contents never asked for", data(2, b"x"), "not sent"),
        ("a handle for a read", handle(1, b"x"), "does not fit"),
        ("names for a read", name(1, &["x"]), "does not fit"),
        ("attributes for a read", packet(105, 1, &[N(0)]), "does not fit"),
    ];
    for (what, bytes, words) in table {
        let mut talk = Talk::with_file(3);
        talk.client(&read(1, b"h", 0)).unwrap();
        assert!(words_of_server(&mut talk, bytes).contains(words), "{what}");
    }
}

#[test]
fn an_answer_must_fit_what_was_asked() {
    let fits_only = |request: &[u8], kinds: &[u8]| {
        for kind in [101, 102, 103, 104, 105, 201] {
            let reply = match kind {
                101 => status(1, 0),
                102 => handle(1, b"x"),
                103 => data(1, b"xy"),
                104 => name(1, &["x"]),
                kind => packet(kind, 1, &[N(0)]),
            };
            let mut talk = Talk::with_file(3);
            talk.client(request).unwrap();
            assert_eq!(talk.server(&reply).is_ok(), kinds.contains(&kind), "{kind} after {request:?}");
        }
    };
    fits_only(&open(1, "b", 1), &[101, 102]);
    fits_only(&close(1, b"h"), &[101]);
    fits_only(&read(1, b"h", 0), &[101, 103]);
    fits_only(&write(1, b"h", 0, b"x"), &[101]);
    fits_only(&packet(12, 1, &[S(b"h")]), &[101, 104]);
    fits_only(&packet(16, 1, &[S(b".")]), &[101, 104]);
    fits_only(&packet(17, 1, &[S(b"a")]), &[101, 104, 105, 201]);
    fits_only(&packet(13, 1, &[S(b"a")]), &[101]);
    fits_only(&extended(1, "new@example.com", &[]), &[101, 104, 105, 201]);
}

#[test]
fn an_id_is_free_again_once_answered() {
    let mut talk = Talk::with_file(3);
    talk.client(&read(7, b"h", 0)).unwrap();
    talk.client(&read(6, b"h", 1)).unwrap();
    talk.server(&data(7, b"x")).unwrap();
    talk.client(&read(7, b"h", 2)).unwrap();
    assert!(words_of_client(&mut talk, &read(6, b"h", 3)).contains("one id"));
    let mut talk = Talk::with_file(3);
    talk.client(&read(7, b"h", 0)).unwrap();
    talk.may_write = false;
    assert!(words_of_client(&mut talk, &write(7, b"h", 0, b"x")).contains("one id"), "refused, but ambiguous");
}

#[test]
fn greetings() {
    let mut talk = Talk::new(Keep::Metadata);
    assert!(words_of_client(&mut talk, &read(1, b"h", 0)).contains("not sftp"));
    let mut talk = Talk::new(Keep::Metadata);
    assert!(words_of_server(&mut talk, &version(3)).contains("not sent"), "before init");
    let mut talk = Talk::new(Keep::Metadata);
    talk.client(&init(3)).unwrap();
    assert!(words_of_server(&mut talk, &version(4)).contains("version other than 3"));
    let mut talk = Talk::new(Keep::Metadata);
    talk.client(&init(3)).unwrap();
    assert!(words_of_server(&mut talk, &status(0, 0)).contains("not sftp"), "no version first");
    // The length that OpenSSH's clients complain of: 1416586337 is `Tota`.
    for text in ["Total: 3 users\n", "\nhi", "\x1b[2J", "Grüezi", "ü"] {
        for asked in [false, true] {
            let mut talk = Talk::new(Keep::Metadata);
            if asked {
                talk.client(&init(3)).unwrap();
            }
            assert!(words_of_server(&mut talk, text.as_bytes()).contains("start-up files print text"), "{text:?}");
        }
    }
}

#[test]
fn a_client_of_a_later_version_gets_the_third() {
    let mut talk = Talk::new(Keep::Metadata);
    let offers = |version| raw(1, &[N(version), S(b"x"), S(b"y")]);
    for byte in offers(6) {
        talk.client(&[byte]).unwrap();
    }
    assert_eq!(talk.seen.to_server, offers(3));
    assert_eq!(talk.seen.kept[0], offers(3));
    let mut talk = Talk::new(Keep::Metadata);
    talk.client(&init(2)).unwrap();
    assert_eq!(talk.seen.to_server, init(2));
    talk.server(&version(2)).unwrap();
    talk.both(&packet(17, 1, &[S(b"a")]), &packet(101, 1, &[N(2)]));
}

#[test]
fn outstanding_requests_have_a_limit() {
    assert!(size_of::<Asked>() <= 16, "there can be a million");
    let mut outstanding = Outstanding::default();
    for id in 0..MAX_OUTSTANDING as u32 {
        outstanding.check(id).unwrap();
        outstanding.insert(id, Asked::Read { file: 0, offset: 0 });
    }
    assert!(outstanding.check(u32::MAX).unwrap_err().words.contains("too many"));
    assert!(outstanding.answered(5).is_some());
    assert_eq!(outstanding.check(u32::MAX), Ok(()));

    let mut outstanding = Outstanding::default();
    for id in 0..20_000 {
        assert_eq!(outstanding.check(id), Ok(()), "what was answered counts no more");
        let path = Name::new(&[b'x'; 4096]);
        let change = Change { operation: "remove", path, to: None, details: Details::None };
        outstanding.insert(id, Asked::Change(Box::new(change)));
        outstanding.answered(id).unwrap();
    }

    let mut talk = Talk::begun(true);
    let long = "x".repeat(4096);
    let stop = (0..).find_map(|id| talk.client(&packet(13, id, &[S(long.as_bytes())])).err()).unwrap();
    assert!(stop.words.contains("too many"));
    let passed = talk.seen.to_server.len();
    assert!((30 << 20..65 << 20).contains(&passed), "{passed}");
}

#[test]
fn a_handle_is_given_once() {
    let mut talk = Talk::with_file(3);
    talk.client(&open(1, "b", 1)).unwrap();
    assert!(words_of_server(&mut talk, &handle(1, b"h")).contains("still open"));
}

proptest! {
    #[test]
    fn any_bytes(pieces in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..200)), 0..20)) {
        let mut talk = Talk::begun(true);
        for (from_client, bytes) in pieces {
            let _ = if from_client { talk.client(&bytes) } else { talk.server(&bytes) };
        }
        talk.finish();
    }

    #[test]
    fn any_bodies(
        packets in prop::collection::vec(
            (any::<bool>(), prop::sample::select(KINDS), 0..4u32, prop::collection::vec(0..5u8, 0..60)), 0..40
        ),
        may_write: bool,
    ) {
        let mut talk = Talk::with_file(3);
        talk.may_write = may_write;
        for (from_client, kind, id, body) in packets {
            let mut bytes = packet(kind, id, &[]);
            bytes.extend(&body);
            bytes[3] += body.len() as u8;
            let _ = if from_client { talk.client(&bytes) } else { talk.server(&bytes) };
        }
        talk.finish();
    }
}

const KINDS: &[u8] =
    &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 101, 102, 103, 104, 105, 200, 201];
