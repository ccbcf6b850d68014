//! What the targets share: bytes of a fuzzer as observations, and what must hold of what is made from them.
#![forbid(unsafe_code)]

use std::time::Duration;

use bytes::Bytes;
use gatescribe::record::codec;
use gatescribe::record::export::cast::CastOptions;
use gatescribe::record::export::text::{TextOptions, View, write_text};
use gatescribe::record::observation::{Direction, Observation, What};
use gatescribe::wire::{Reading, Step};

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

/// Any observations as text: it must be safe to print, and in proportion to the recording.
pub fn check_text(data: &[u8], view: View) {
    let observations = observations(data);
    let most = 40 * length(&observations) + (2 << 20);
    let options = TextOptions { started: jiff::Timestamp::UNIX_EPOCH, view, input: true, opaque: false };
    let mut out = Vec::new();
    assert!(write_text(observations.into_iter().map(Ok::<_, ()>), &options, &mut out).is_ok());
    assert!(out.len() <= most, "{} bytes, at most {most}", out.len());
    let text = std::str::from_utf8(&out).expect("text is UTF-8");
    assert!(
        !text.chars().any(|c| (c.is_control() && c != '\n' && c != '\t') || ('\u{202a}'..='\u{202e}').contains(&c))
    );
    assert!(text.ends_with('\n'));
}

/// Any observations as a cast, which must be UTF-8 and in proportion to the recording. `write` tells whether it could.
pub fn any_cast(
    data: &[u8],
    write: impl FnOnce(Vec<Result<Observation, ()>>, &CastOptions, &mut Vec<u8>) -> bool,
) -> String {
    let observations = observations(data);
    let most = 8 * length(&observations) + 80 * observations.len() + 20_000;
    let options = CastOptions { started: jiff::Timestamp::UNIX_EPOCH, title: None, input: true, opaque: false };
    let mut out = Vec::new();
    assert!(write(observations.into_iter().map(Ok).collect(), &options, &mut out));
    assert!(out.len() <= most, "{} bytes, at most {most}", out.len());
    String::from_utf8(out).expect("a cast is UTF-8")
}

/// The time at the beginning of an event's line.
pub fn time(line: &str) -> f64 {
    let (time, rest) = line.trim_start_matches('[').split_once(',').expect("an event has a time");
    assert!(rest.ends_with(']'));
    time.parse().expect("a time is a number")
}

/// A command, up to a newline, and what comes after it.
pub fn command(data: &[u8]) -> (&[u8], &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    (&data[..end], data.get(end + 1..).unwrap_or_default())
}

/// A channel as a script: pieces that begin with who speaks (1 byte, odd is the upstream) and how much (2 bytes). What is
/// passed on must be what was said, from its beginning; gives whether all of it was.
pub fn follow(script: &[u8], mut reading: impl Reading) -> bool {
    let (mut said, mut passed) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let (mut rest, mut stopped, mut told) = (script, false, 0);
    while let [who, high, low, after @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        let (piece, after) = after.split_at(length);
        let (side, data, mut steps) = (usize::from(who & 1), Bytes::copy_from_slice(piece), Vec::new());
        said[side].extend_from_slice(piece);
        stopped = match side {
            0 => reading.input(data, true, &mut steps),
            _ => reading.output(data, true, &mut steps),
        }
        .is_err();
        for step in steps {
            match step {
                Step::Pass(bytes) | Step::PassUnkept(bytes) => passed[side].extend_from_slice(&bytes),
                Step::Tell(_) => told += 1,
                step => panic!("{step:?}"),
            }
        }
        if stopped {
            break;
        }
        rest = after;
    }
    let mut steps = Vec::new();
    reading.finish(&mut steps);
    assert!(told + steps.len() <= script.len() + 4, "{told} and {}", steps.len());
    assert!(said.iter().zip(&passed).all(|(said, passed)| said.starts_with(passed)));
    !stopped && said == passed
}
