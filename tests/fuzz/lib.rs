//! What the targets share: bytes of a fuzzer as observations.
#![forbid(unsafe_code)]

use std::time::Duration;

use bytes::Bytes;
use gatescribe::record::codec;
use gatescribe::record::observation::{Direction, Observation, What};

/// Any bytes as observations. The first byte says how: 0, as the recorder encodes them; else as a script, in which a
/// fuzzer finds its way more easily: columns, rows, then pieces that begin with a byte for time and kind and end at 0xFF.
pub fn observations(data: &[u8]) -> Vec<Observation> {
    match data.split_first() {
        Some((0, encoded)) => decoded(encoded),
        Some((cols, [rows, script @ ..])) => scripted(*cols, *rows, script),
        _ => Vec::new(),
    }
}

fn decoded(encoded: &[u8]) -> Vec<Observation> {
    let (mut bytes, mut clock) = (Bytes::copy_from_slice(encoded), 0);
    std::iter::from_fn(|| codec::decode(&mut bytes, &mut clock).ok()).collect()
}

fn scripted(cols: u8, rows: u8, script: &[u8]) -> Vec<Observation> {
    let mut at = Duration::ZERO;
    let pty = What::Pty { term: "xterm".to_owned(), cols: cols.into(), rows: rows.into() };
    // Without rows there is no terminal.
    let mut all: Vec<_> = (rows > 0).then_some(Observation { at, what: pty }).into_iter().collect();
    for piece in script.split(|byte| *byte == 0xff) {
        let Some((head, data)) = piece.split_first() else { continue };
        at += Duration::from_millis([0, 50, 300, 5000][usize::from(head & 3)]);
        let bytes = |direction, stream| What::Bytes { direction, stream, data: Bytes::copy_from_slice(data) };
        let what = match (head >> 2) & 7 {
            0..=3 => bytes(Direction::Output, 0),
            4 => bytes(Direction::Output, 1),
            5 => bytes(Direction::Input, 0),
            6 => What::Told { text: String::from_utf8_lossy(data).into_owned() },
            _ => match data {
                [cols, rows, ..] => What::Resize { cols: u32::from(*cols).pow(4), rows: (*rows).into() },
                _ => What::ExitStatus { status: 1 },
            },
        };
        all.push(Observation { at, what });
    }
    all
}

/// How many bytes a recording of these would have, roughly.
pub fn length(observations: &[Observation]) -> usize {
    let payload = |what: &What| match what {
        What::Bytes { data, .. } => data.len(),
        What::Exec { command: data } | What::Request { body: data } | What::Response { body: data } => data.len(),
        What::Told { text } | What::Subsystem { name: text } | What::Signal { name: text } => text.len(),
        What::Gap { reason: text, .. } | What::Pty { term: text, .. } => text.len(),
        What::Env { name: a, value: b } | What::ExitSignal { name: a, message: b } => a.len() + b.len(),
        _ => 0,
    };
    observations.iter().map(|observation| payload(&observation.what) + 5).sum()
}
