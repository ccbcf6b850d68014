//! One observation as bytes: the same encoding in the spool and in a container's blocks. Pure.
//!
//! `delta varint ‖ kind u8 ‖ length varint ‖ body`, where `delta` is microseconds since the previous observation of the
//! same run (a spool segment or a block); the first one of a run counts from the recording's start, or from the base that
//! the block names. The length lets a reader step over kinds that it does not know. It knows nothing of files or frames.

use std::time::Duration;

use bytes::{Buf, Bytes};

use super::observation::{Direction, Observation, What};

/// The most bytes of one string field that are kept; the rest is cut (and said, see [`oversize`]).
pub const MAX_TEXT: usize = 16 * 1024;
/// The most bytes of one payload (data, command, request) in one record. Longer data is split by the writer.
pub const MAX_DATA: usize = 128 * 1024;
/// The longest a whole record can get: two text fields or one payload, and the small numbers around them.
pub const MAX_RECORD: usize = MAX_DATA + 64;

/// Bytes that are no observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record is malformed")]
pub struct Malformed;

/// Appends everything of a record but its payload to `out`, and returns the payload, which follows directly: so a
/// caller can write both with one vectored write and never copies channel data.
///
/// Fields are cut at their limits; [`oversize`] tells beforehand by how much.
pub fn encode<'a>(what: &'a What, delta_us: u64, out: &mut Vec<u8>) -> &'a [u8] {
    put_varint(out, delta_us);
    let empty: &[u8] = &[];
    match what {
        What::Bytes { direction, stream, data } => {
            let data = cut(data, MAX_DATA);
            let input = *direction == Direction::Input;
            match stream {
                0 => put_head(out, if input { kind::INPUT } else { kind::OUTPUT }, data.len()),
                stream => {
                    let kind = if input { kind::INPUT_STREAM } else { kind::OUTPUT_STREAM };
                    put_head(out, kind, varint_len(u64::from(*stream)) + data.len());
                    put_varint(out, u64::from(*stream));
                }
            }
            data
        }
        What::Exec { command } => payload(out, kind::EXEC, command),
        What::Fact { body } => payload(out, kind::FACT, body),
        What::Request { body } => payload(out, kind::REQUEST, body),
        What::Response { body } => payload(out, kind::RESPONSE, body),
        What::Subsystem { name } => payload(out, kind::SUBSYSTEM, cut_text(name)),
        What::Signal { name } => payload(out, kind::SIGNAL, cut_text(name)),
        What::Told { text } => payload(out, kind::TOLD, cut_text(text)),
        What::Pty { term, cols, rows } => {
            let term = cut_text(term);
            put_head(out, kind::PTY, numbers_len(&[*cols, *rows]) + term.len());
            put_varint(out, u64::from(*cols));
            put_varint(out, u64::from(*rows));
            term
        }
        What::Resize { cols, rows } => {
            put_head(out, kind::RESIZE, numbers_len(&[*cols, *rows]));
            put_varint(out, u64::from(*cols));
            put_varint(out, u64::from(*rows));
            empty
        }
        What::Env { name, value } => pair(out, kind::ENV, name, value),
        What::ExitSignal { name, message } => pair(out, kind::EXIT_SIGNAL, name, message),
        What::Shell => payload(out, kind::SHELL, empty),
        What::Eof { direction: Direction::Input } => payload(out, kind::EOF_INPUT, empty),
        What::Eof { direction: Direction::Output } => payload(out, kind::EOF_OUTPUT, empty),
        What::ExitStatus { status } => {
            put_head(out, kind::EXIT_STATUS, numbers_len(&[*status]));
            put_varint(out, u64::from(*status));
            empty
        }
        What::Gap { reason, bytes } => {
            let reason = cut_text(reason);
            put_head(out, kind::GAP, varint_len(*bytes) + reason.len());
            put_varint(out, *bytes);
            reason
        }
        What::Withheld { direction, bytes } => {
            put_head(out, kind::WITHHELD, 1 + varint_len(*bytes));
            out.push(u8::from(*direction == Direction::Output));
            put_varint(out, *bytes);
            empty
        }
        What::ClockStep { wall_us } => {
            put_head(out, kind::CLOCK_STEP, 8);
            out.extend_from_slice(&wall_us.to_le_bytes());
            empty
        }
    }
}

/// By how many bytes [`encode`] will cut this observation; 0 for nearly all. Channel data is not counted: it is split.
pub fn oversize(what: &What) -> usize {
    let text = |s: &str| s.len() - cut_text(s).len();
    match what {
        What::Exec { command: data }
        | What::Fact { body: data }
        | What::Request { body: data }
        | What::Response { body: data } => data.len().saturating_sub(MAX_DATA),
        What::Subsystem { name: s } | What::Signal { name: s } | What::Told { text: s } => text(s),
        What::Pty { term, .. } => text(term),
        What::Gap { reason, .. } => text(reason),
        What::Env { name: a, value: b } | What::ExitSignal { name: a, message: b } => text(a) + text(b),
        What::Bytes { .. }
        | What::Shell
        | What::Resize { .. }
        | What::Eof { .. }
        | What::ExitStatus { .. }
        | What::Withheld { .. }
        | What::ClockStep { .. } => 0,
    }
}

/// Takes one observation off the front of `buf`. `clock_us` is the time of the one before, and is moved on.
///
/// Payloads are slices of `buf`, not copies. A kind of a later version becomes a [`What::Gap`].
pub fn decode(buf: &mut Bytes, clock_us: &mut u64) -> Result<Observation, Malformed> {
    let delta = take_varint(buf)?;
    *clock_us = clock_us.checked_add(delta).ok_or(Malformed)?;
    let kind = take_u8(buf)?;
    let len = usize::try_from(take_varint(buf)?).map_err(|_| Malformed)?;
    if len > buf.len() || len > MAX_RECORD {
        return Err(Malformed);
    }
    let what = decode_body(kind, buf.split_to(len))?;
    Ok(Observation { at: Duration::from_micros(*clock_us), what })
}

fn decode_body(kind: u8, mut body: Bytes) -> Result<What, Malformed> {
    let bytes = |direction, stream, data| What::Bytes { direction, stream, data };
    let what = match kind {
        kind::INPUT => bytes(Direction::Input, 0, body.split_off(0)),
        kind::OUTPUT => bytes(Direction::Output, 0, body.split_off(0)),
        kind::INPUT_STREAM => bytes(Direction::Input, take_u32(&mut body)?, body.split_off(0)),
        kind::OUTPUT_STREAM => bytes(Direction::Output, take_u32(&mut body)?, body.split_off(0)),
        kind::PTY => {
            let (cols, rows) = (take_u32(&mut body)?, take_u32(&mut body)?);
            What::Pty { term: take_text(&mut body)?, cols, rows }
        }
        kind::ENV => {
            let (name, value) = take_pair(&mut body)?;
            What::Env { name, value }
        }
        kind::SHELL => What::Shell,
        kind::EXEC => What::Exec { command: body.split_off(0) },
        kind::SUBSYSTEM => What::Subsystem { name: take_text(&mut body)? },
        kind::RESIZE => What::Resize { cols: take_u32(&mut body)?, rows: take_u32(&mut body)? },
        kind::SIGNAL => What::Signal { name: take_text(&mut body)? },
        kind::EOF_INPUT => What::Eof { direction: Direction::Input },
        kind::EOF_OUTPUT => What::Eof { direction: Direction::Output },
        kind::EXIT_STATUS => What::ExitStatus { status: take_u32(&mut body)? },
        kind::EXIT_SIGNAL => {
            let (name, message) = take_pair(&mut body)?;
            What::ExitSignal { name, message }
        }
        kind::TOLD => What::Told { text: take_text(&mut body)? },
        kind::GAP => {
            let bytes = take_varint(&mut body)?;
            What::Gap { reason: take_text(&mut body)?, bytes }
        }
        kind::CLOCK_STEP if body.len() == 8 => What::ClockStep { wall_us: body.get_i64_le() },
        kind::CLOCK_STEP => return Err(Malformed),
        kind::WITHHELD => {
            let direction = match take_u8(&mut body)? {
                0 => Direction::Input,
                1 => Direction::Output,
                _ => return Err(Malformed),
            };
            What::Withheld { direction, bytes: take_varint(&mut body)? }
        }
        kind::FACT => What::Fact { body: body.split_off(0) },
        kind::REQUEST => What::Request { body: body.split_off(0) },
        kind::RESPONSE => What::Response { body: body.split_off(0) },
        later => {
            let missing = body.split_off(0).len() as u64;
            What::Gap {
                reason: format!("an observation of kind {later}, which this version does not know"),
                bytes: missing,
            }
        }
    };
    if body.is_empty() { Ok(what) } else { Err(Malformed) }
}

/// Appends `value` as an unsigned LEB128 number.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes an unsigned LEB128 number of at most 64 bits off the front of `buf`.
pub fn take_varint(buf: &mut Bytes) -> Result<u64, Malformed> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take_u8(buf)?;
        // The tenth byte has room for one bit only.
        if shift == 63 && byte > 1 {
            return Err(Malformed);
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

fn put_head(out: &mut Vec<u8>, kind: u8, len: usize) {
    out.push(kind);
    put_varint(out, len as u64);
}

fn payload<'a>(out: &mut Vec<u8>, kind: u8, data: &'a [u8]) -> &'a [u8] {
    let data = cut(data, MAX_DATA);
    put_head(out, kind, data.len());
    data
}

fn pair<'a>(out: &mut Vec<u8>, kind: u8, first: &str, second: &'a str) -> &'a [u8] {
    let (first, second) = (cut_text(first), cut_text(second));
    put_head(out, kind, varint_len(first.len() as u64) + first.len() + second.len());
    put_varint(out, first.len() as u64);
    out.extend_from_slice(first);
    second
}

fn cut(data: &[u8], max: usize) -> &[u8] {
    data.get(..max).unwrap_or(data)
}

fn cut_text(text: &str) -> &[u8] {
    text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or(text).as_bytes()
}

pub(super) fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn numbers_len(values: &[u32]) -> usize {
    values.iter().map(|&v| varint_len(u64::from(v))).sum()
}

fn take_u8(buf: &mut Bytes) -> Result<u8, Malformed> {
    if buf.is_empty() { Err(Malformed) } else { Ok(buf.get_u8()) }
}

fn take_u32(buf: &mut Bytes) -> Result<u32, Malformed> {
    u32::try_from(take_varint(buf)?).map_err(|_| Malformed)
}

fn take_text(buf: &mut Bytes) -> Result<String, Malformed> {
    String::from_utf8(buf.split_off(0).into()).map_err(|_| Malformed)
}

fn take_pair(buf: &mut Bytes) -> Result<(String, String), Malformed> {
    let len = usize::try_from(take_varint(buf)?).map_err(|_| Malformed)?;
    if len > buf.len() {
        return Err(Malformed);
    }
    let first = take_text(&mut buf.split_to(len))?;
    Ok((first, take_text(buf)?))
}

/// The numbers of the kinds. They stand in files: never change one, never use one again.
mod kind {
    pub const INPUT: u8 = 0;
    pub const OUTPUT: u8 = 1;
    pub const INPUT_STREAM: u8 = 2;
    pub const OUTPUT_STREAM: u8 = 3;
    pub const PTY: u8 = 4;
    pub const ENV: u8 = 5;
    pub const SHELL: u8 = 6;
    pub const EXEC: u8 = 7;
    pub const SUBSYSTEM: u8 = 8;
    pub const RESIZE: u8 = 9;
    pub const SIGNAL: u8 = 10;
    pub const EOF_INPUT: u8 = 11;
    pub const EOF_OUTPUT: u8 = 12;
    pub const EXIT_STATUS: u8 = 13;
    pub const EXIT_SIGNAL: u8 = 14;
    pub const TOLD: u8 = 15;
    pub const GAP: u8 = 16;
    pub const CLOCK_STEP: u8 = 17;
    pub const REQUEST: u8 = 18;
    pub const RESPONSE: u8 = 19;
    pub const WITHHELD: u8 = 20;
    pub const FACT: u8 = 21;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::testing::any_what;

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(whats in prop::collection::vec((any_what(), 0u64..1 << 40), 0..20)) {
            let mut out = Vec::new();
            for (what, delta) in &whats {
                let payload = encode(what, *delta, &mut out);
                out.extend_from_slice(payload);
            }
            let (mut buf, mut clock, mut expected) = (Bytes::from(out), 0, 0);
            for (what, delta) in whats {
                expected += delta;
                let got = decode(&mut buf, &mut clock).unwrap();
                prop_assert_eq!(got, Observation { at: Duration::from_micros(expected), what });
            }
            prop_assert!(buf.is_empty());
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let (mut buf, mut clock) = (Bytes::from(bytes), 0);
            while decode(&mut buf, &mut clock).is_ok() {}
        }
    }

    #[test]
    fn a_kind_of_a_later_version_is_stepped_over() {
        let mut buf = Bytes::from_static(&[5, 200, 3, 1, 2, 3, 0, 6, 0]);
        let mut clock = 0;
        assert!(matches!(decode(&mut buf, &mut clock).unwrap().what, What::Gap { bytes: 3, .. }));
        assert_eq!(decode(&mut buf, &mut clock).unwrap().what, What::Shell);
    }

    #[test]
    fn fields_beyond_their_limit_are_cut_on_a_character() {
        let what = What::Told { text: format!("a{}", "é".repeat(MAX_TEXT)) };
        let mut out = Vec::new();
        let tail = encode(&what, 0, &mut out);
        assert_eq!(tail.len(), MAX_TEXT - 1);
        assert_eq!(oversize(&what), 2 * MAX_TEXT + 1 - tail.len());
        assert!(out.len() + tail.len() <= MAX_RECORD);
    }
}
