//! Recordings as an attacker would like them, through every export: no panic, output in proportion to the recording,
//! and never much of it in memory at once.

use std::convert::Infallible;
use std::io::{self, Write};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use proptest::prelude::*;

use super::cast::{CastOptions, write_cast};
use super::cast3::write_cast3;
use super::text::{TextOptions, View, write_text};
use crate::record::codec::{self, MAX_DATA};
use crate::record::observation::{Direction, Observation, What};
use crate::record::testing::{any_what, output};

/// What an export wrote.
#[derive(Default)]
struct Exported {
    bytes: Vec<u8>,
    /// The longest piece it handed over at once.
    longest: usize,
}

impl Write for Exported {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.longest = self.longest.max(piece.len());
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const EXPORTS: [&str; 4] = ["cast", "cast3", "screen", "all"];

fn export(name: &str, observations: impl Iterator<Item = Observation>) -> Exported {
    let observations = observations.map(Ok::<_, Infallible>);
    let started = Timestamp::UNIX_EPOCH;
    let cast = CastOptions { started, title: Some("\x1b]0;t\x07".repeat(10_000)), input: true, opaque: false };
    let text = |view| TextOptions { started, view, input: true, opaque: false };
    let mut out = Exported::default();
    let done = match name {
        "cast" => write_cast(observations, &cast, &mut out),
        "cast3" => write_cast3(observations, &cast, &mut out),
        "screen" => write_text(observations, &text(View::Screen), &mut out),
        _ => write_text(observations, &text(View::All), &mut out),
    };
    done.unwrap();
    let text = std::str::from_utf8(&out.bytes).unwrap();
    let safe = |c: char| c == '\n' || !c.is_control() || (c == '\t' && name == "screen");
    assert!(text.chars().all(safe), "{name} is not safe to print");
    out
}

/// A story at one observation for each hundred milliseconds, in a terminal.
fn terminal(whats: impl IntoIterator<Item = What>) -> impl Iterator<Item = Observation> {
    let pty = What::Pty { term: "xterm".to_owned(), cols: 80, rows: 24 };
    let whats = std::iter::once(pty).chain(whats);
    whats.enumerate().map(|(n, what)| Observation { at: Duration::from_millis(100 * n as u64), what })
}

/// Exports `whats` in every way and holds the result against what was recorded.
fn in_proportion(case: &str, whats: impl IntoIterator<Item = What> + Clone) {
    let recorded: usize = whats.clone().into_iter().map(|what| recorded(&what)).sum();
    for name in EXPORTS {
        let out = export(name, terminal(whats.clone()));
        let most = 24 * recorded + (2 << 20);
        assert!(out.bytes.len() <= most, "{case} as {name}: {} bytes of {recorded}", out.bytes.len());
        assert!(out.longest <= 4 << 20, "{case} as {name}: {} bytes at once", out.longest);
    }
}

fn recorded(what: &What) -> usize {
    let mut head = Vec::new();
    let payload = codec::encode(what, 100_000, &mut head).len();
    head.len() + payload
}

#[test]
fn floods_of_control_sequences() {
    let floods = [
        // Whole screens for a few bytes: filled, cleared, scrolled, switched, reset.
        "\x1b#8\x1b[2J",
        "x\x1b[24;80Hx\x1b[H\x1b[J",
        "\x1b[65535b",
        "X\x1b[65535b\x1b[2J",
        "\x1b[65535S\x1b[65535T\x1b[65535L\x1b[65535M\x1b[65535@\x1b[65535P\x1b[65535X",
        "\x1b[?1049h\x1b#8\x1b[?1049l",
        "\x1bcx\x1bc",
        "\x1b[4294967295;99999999999999999999H.\n",
        "\x1b[80Gx\n",
        "\x1b[2;23r\x1b[23;1H\n\n\n\x1bM\x1bM\x1b[r",
        // Sequences that never end, or nest.
        "\x1b]0;",
        "\x1bP\x1bP\x1b[",
        "\x1b[1;2;3;4;5;6;7;8;9:1:2:3:4:5:6:7:8:9:10:11",
        "\u{9b}\u{90}\u{98}\u{9d}\u{9e}\u{9f}\u{9c}",
        // What is invisible, wide, combining, or turns text around.
        "\u{202e}\u{2066}\u{200b}\u{feff}\u{e0041}",
        "e\u{301}\u{301}\u{301}\u{301}\u{4f60}\u{1f468}\u{200d}\u{1f469}",
        "\x07\x08\x7f\0",
        "\n",
        "\t\r",
    ];
    for flood in floods {
        let data = Bytes::from(flood.repeat(4096 / flood.len()));
        in_proportion(&format!("{flood:?}"), vec![output(data); 4]);
    }
}

#[test]
fn sizes_of_zero_and_of_billions() {
    let sizes = [(0, 0), (1, 1), (u32::MAX, u32::MAX), (u32::MAX, 1), (1, u32::MAX), (0, 7), (80, 24)];
    let whats = sizes.into_iter().cycle().take(140).flat_map(|(cols, rows)| {
        [What::Resize { cols, rows }, output("a wide \u{4f60} line\r\n\x1b[?1049h\x1b[9;9Hx\x1b[?1049l")]
    });
    in_proportion("sizes", whats.clone());
    let ptys = sizes.into_iter().map(|(cols, rows)| What::Pty { term: "x\x1b".repeat(9000), cols, rows });
    in_proportion("terminals", ptys.chain(whats).collect::<Vec<_>>());
}

#[test]
fn one_line_without_an_end() {
    let piece = output("0123456789 abcdef".repeat(MAX_DATA / 17));
    in_proportion("a long line", vec![piece.clone(); 4]);
    let plain = (0..4).map(|n| Observation { at: Duration::from_secs(n), what: piece.clone() });
    let out = export("screen", plain);
    let longest = out.bytes.split(|byte| *byte == b'\n').map(<[u8]>::len).max();
    assert!(longest <= Some(16 * 1024), "{longest:?}");
    let shown = out.bytes.windows(6).filter(|shown| shown == b"abcdef").count();
    // All but those that an end of line parts.
    assert!(shown >= 4 * (MAX_DATA / 17) - 40, "{shown}");
}

#[test]
fn broken_letters_on_every_stream() {
    let broken: [&'static [u8]; 8] = [
        b"\xff\xfe",
        b"\xe4\xbd",
        b"\xa0\xf0\x9f",
        b"\x98",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xc3",
    ];
    let whats = (0..400).map(|n| What::Bytes {
        direction: if n % 7 == 0 { Direction::Input } else { Direction::Output },
        stream: n % 3,
        data: Bytes::from_static(broken[n as usize % broken.len()]),
    });
    in_proportion("broken letters", whats);
}

#[test]
fn very_many_tiny_records() {
    for what in
        [output("x"), output(""), What::Resize { cols: 80, rows: 25 }, What::Eof { direction: Direction::Input }]
    {
        in_proportion("tiny records", vec![what; 10_000]);
    }
    let typed = What::Bytes { direction: Direction::Input, stream: 0, data: Bytes::from_static(b"\r") };
    in_proportion("keys", vec![typed; 10_000]);
}

#[test]
fn facts_of_any_length() {
    let long = "\x1b]0;\u{202e}\n".repeat(3000);
    let whats = [
        What::Exec { command: Bytes::from(vec![0xff; MAX_DATA]) },
        What::Env { name: long.clone(), value: long.clone() },
        What::Subsystem { name: long.clone() },
        What::Signal { name: long.clone() },
        What::ExitSignal { name: long.clone(), message: long.clone() },
        What::Gap { reason: long.clone(), bytes: u64::MAX },
        What::Told { text: long },
        What::ClockStep { wall_us: i64::MAX },
        What::Request { body: Bytes::from(vec![7; MAX_DATA]) },
    ];
    in_proportion("facts", whats);
}

#[test]
fn times_that_jump() {
    let times = [Duration::MAX, Duration::ZERO, Duration::from_micros(u64::MAX), Duration::from_nanos(1)];
    for name in EXPORTS {
        let pty = What::Pty { term: String::new(), cols: 10, rows: 3 };
        let whats = std::iter::once(pty).chain((0..40).map(|n| output(format!("{n}\r\n"))));
        let out = export(name, whats.zip(times.into_iter().cycle()).map(|(what, at)| Observation { at, what }));
        assert!(out.bytes.len() < 70_000, "{name}");
    }
}

#[test]
fn a_recording_cut_at_every_byte() {
    let story = [
        What::Pty { term: "xterm".to_owned(), cols: 20, rows: 4 },
        What::Exec { command: Bytes::from_static(b"vim") },
        output("\x1b[?1049h\x1b[H\x1b[2Jgr\u{fc}n\u{4f60}"),
        What::Bytes { direction: Direction::Input, stream: 0, data: Bytes::from_static(b":q\r") },
        What::Resize { cols: 30, rows: 5 },
        output("\x1b[?1049l"),
        What::ExitStatus { status: 1 },
    ];
    let mut encoded = Vec::new();
    for what in &story {
        let payload = codec::encode(what, 200_000, &mut encoded);
        encoded.extend_from_slice(payload);
    }
    let mut whole = 0;
    for cut in 0..=encoded.len() {
        let (mut bytes, mut clock) = (Bytes::copy_from_slice(&encoded[..cut]), 0);
        let read: Vec<_> = std::iter::from_fn(|| codec::decode(&mut bytes, &mut clock).ok()).collect();
        whole = whole.max(read.len());
        EXPORTS.iter().for_each(|name| drop(export(name, read.clone().into_iter())));
    }
    assert_eq!(whole, story.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_bytes_and_any_facts(
        whats in prop::collection::vec(prop_oneof![any_what(), hostile_output()], 0..30),
    ) {
        in_proportion("any", whats);
    }
}

/// Output that is mostly control sequences.
fn hostile_output() -> impl Strategy<Value = What> {
    let sequence = prop_oneof![
        "\x1b\\[[?>!]?[0-9]{0,6}(;[0-9:]{0,6}){0,3}[ $]?[@-~]",
        "\x1b[ #%()*+]?[0-~]",
        "\x1b[\\]PX^_][ -~]{0,12}(\x07|\x1b\\\\)?",
        "[\u{80}-\u{9f}a-z\u{4f60}\u{301}\r\n\t]{1,8}",
    ];
    prop::collection::vec(sequence, 1..40).prop_map(|sequences| output(sequences.concat()))
}
