//! Any chunking of both directions gives the same: what passes, what is kept, and what is told.

use proptest::prelude::*;

use super::talk::*;
use crate::wire::Keep;

/// What one side says, up to where the other side must have said something.
type Turn = (bool, Vec<u8>);

fn conversation() -> Vec<Turn> {
    let long: Vec<u8> = (0..3000_u32).map(|n| n as u8).collect();
    vec![
        (true, init(5)),
        (false, version(3)),
        (true, [packet(16, 1, &[S(b".")]), open(2, "up", 0x1a), packet(11, 3, &[S(b"dir")])].concat()),
        (false, [name(1, &["/home/me"]), handle(2, b"h\0\x01"), handle(3, b"d")].concat()),
        (true, [write(4, b"h\0\x01", 0, &long), packet(12, 5, &[S(b"d")]), write(6, b"h\0\x01", 3000, &long)].concat()),
        (true, [write(7, b"guessed", 0, &long), open(8, "down", 1), packet(21, 9, &[N(1)])].concat()),
        (false, [status(6, 0), name(5, &["a", "b", "c"]), status(4, 0), handle(8, b"r")].concat()),
        (true, [read(1, b"r", 0), read(2, b"r", 3000), read(3, b"r", 6000), close(4, b"h\0\x01")].concat()),
        (false, [data(1, &long), status(4, 0), data(2, &long), status(3, 1)].concat()),
        (
            true,
            [
                close(1, b"d"),
                packet(13, 2, &[S(b"gone")]),
                extended(3, "posix-rename@openssh.com", &[S(b"a"), S(b"b")]),
            ]
            .concat(),
        ),
        (false, [status(3, 0), status(2, 2), status(1, 0)].concat()),
        (true, close(1, b"r")[..7].to_vec()),
    ]
}

/// Says it all in pieces of these lengths, again and again; 0 stands for all that is left of a turn.
fn said(keep: Keep, lengths: &[usize]) -> Seen {
    let mut talk = Talk::new(keep);
    let mut lengths = lengths.iter().cycle();
    for (is_client, bytes) in conversation() {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let length = lengths.next().copied().filter(|length| *length > 0).unwrap_or(rest.len()).min(rest.len());
            let (now, later) = rest.split_at(length);
            if is_client {
                talk.client(now).unwrap()
            } else {
                talk.server(now).unwrap()
            }
            rest = later;
        }
    }
    talk.finish();
    talk.seen
}

#[test]
fn the_conversation_is_worth_it() {
    let whole = said(Keep::Metadata, &[0]);
    let operations: Vec<_> = whole.facts.iter().map(|fact| fact.about["operation"].as_str().unwrap_or("")).collect();
    assert_eq!(operations, ["write", "unknown", "write", "rename", "remove", "list", "read", ""]);
    assert_eq!(whole.unkept, [6000, 6000]);
    assert_eq!(whole.refused_unkept, 3000);
    assert_eq!(whole.facts[2].about["absolute"], "/home/me/up");
}

#[test]
fn one_byte_at_a_time() {
    for keep in [Keep::Metadata, Keep::Contents] {
        assert_eq!(said(keep, &[1]), said(keep, &[0]));
    }
}

proptest! {
    #[test]
    fn any_chunks(
        keep in prop::sample::select(&[Keep::Metadata, Keep::Contents][..]),
        lengths in prop::collection::vec(prop_oneof![Just(0), 1..5_usize, 1..100_usize, 1..4000_usize], 1..30),
    ) {
        prop_assert_eq!(said(keep, &lengths), said(keep, &[0]));
    }
}
