//! What a client and a server say over SFTP: must not panic, must not pass more than came, and must come to the same however
//! it is cut into pieces.
//!
//! The fuzzer's bytes are pieces: a byte (bit 0: from the server; bit 1: nothing may be written), a length (2 bytes, most
//! significant first), and what was said.
#![no_main]

use bytes::Bytes;
use gatescribe::wire::{Keep, sftp::Files};
use gatescribe::wire::{Fact, Reading, Step, Stop};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let pieces = pieces(data);
    for keep in [Keep::Metadata, Keep::Contents] {
        let whole = follow(keep, &pieces, usize::MAX);
        assert_eq!(whole, follow(keep, &pieces, 1));
    }
});

/// What has come of it, put together by direction.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    passed: [Vec<u8>; 2],
    refused: u64,
    answers: Vec<u8>,
    facts: Vec<Fact>,
    stopped: Option<Stop>,
}

fn pieces(mut data: &[u8]) -> Vec<(u8, &[u8])> {
    let mut pieces = Vec::new();
    while let [how, high, low, rest @ ..] = data {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (said, after) = rest.split_at(length);
        pieces.push((*how, said));
        data = after;
    }
    pieces
}

fn follow(keep: Keep, pieces: &[(u8, &[u8])], most: usize) -> Seen {
    let mut files = Files::new(keep);
    let mut seen = Seen::default();
    let mut came = [0; 2];
    'all: for (how, said) in pieces {
        let direction = usize::from(how & 1);
        for piece in said.chunks(most) {
            came[direction] += piece.len() as u64;
            let (piece, mut steps) = (Bytes::copy_from_slice(piece), Vec::new());
            let read = match direction {
                0 => files.input(piece, how & 2 == 0, &mut steps),
                _ => files.output(piece, true, &mut steps),
            };
            seen.add(direction, steps);
            if let Err(stop) = read {
                seen.stopped = Some(stop);
                break 'all;
            }
        }
    }
    let mut steps = Vec::new();
    files.finish(&mut steps);
    seen.add(0, steps);
    assert!(seen.passed[0].len() as u64 + seen.refused <= came[0]);
    assert!(seen.passed[1].len() as u64 <= came[1]);
    seen
}

impl Seen {
    fn add(&mut self, direction: usize, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Pass(bytes) | Step::PassUnkept(bytes) => self.passed[direction].extend(bytes),
                Step::Refuse(bytes) => self.refused += bytes.len() as u64,
                Step::RefuseUnkept(length) => self.refused += length,
                Step::Left(..) => panic!("{step:?}"),
                Step::Answer(bytes) => self.answers.extend(bytes),
                Step::Tell(fact) => self.facts.push(fact),
            }
        }
    }
}
