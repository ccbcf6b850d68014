//! Reads a recording back without a gateway: what was seen on the channel, and how far the file can be relied on.
//!
//! ```text
//! cargo run --example read_recording -- --key tests/golden/v2.key tests/golden/v2.gsr
//! ```
//!
//! Recordings are encrypted; the key is `recording.key` in the gateway's data directory, or what its configuration names.
//! Without it, only those of format version 1 can be read.
//!
//! A recording holds what somebody's server sent, so nothing of it reaches the terminal unescaped. Typed input holds
//! passwords, so only its length is shown. A live recording ends early here: its last seconds are in the gateway's spool.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use gatescribe::record::ReadError;
use gatescribe::record::codec;
use gatescribe::record::container::{self, Chain, Damage, FrameKind, Front, Seal, SealVerdict};
use gatescribe::record::keys::{self, Keys, RecordingKey};
use gatescribe::record::observation::{Direction, Observation, What};

fn main() -> anyhow::Result<()> {
    let usage = "usage: read_recording [--key FILE] FILE.gsr";
    let mut args = std::env::args_os().skip(1).peekable();
    let key_file = args.next_if(|word| word == "--key").map(|_| args.next().context(usage)).transpose()?;
    let path = args.next().context(usage)?;
    let file = std::fs::read(&path).with_context(|| path.display().to_string())?;
    let key = key_file.map(|key| RecordingKey::load(Path::new(&key))).transpose()?;
    let keys = key.map(|key| Keys::new(key, Vec::new()));
    let mut out = io::stdout().lock();
    let mut lines = String::new();
    let verdict = read(&file, keys.as_ref(), &mut lines);
    out.write_all(lines.as_bytes())?;
    writeln!(out, "{}", words(verdict))?;
    Ok(())
}

/// Walks header and frames, checking the chain of hashes on the way, until the seal or the end of the file.
fn read(file: &[u8], keys: Option<&Keys>, lines: &mut String) -> Result<Option<Seal>, ReadError> {
    let Front::Whole(header, end) = container::parse_header(file)? else { return Err(Damage::Header.into()) };
    let _ = writeln!(lines, "{} of session {}, begun {}", header.kind.escape_debug(), header.session, header.started);
    let Some((head, mut rest)) = file.split_at_checked(end) else { return Err(Damage::Header.into()) };
    let mut chain = Chain::start(head);
    let data = match keys {
        Some(ours) => ours.unwrap(&header)?,
        None if header.encrypted()? => return Err(ReadError::UnknownKey(keys::key_ids(&header))),
        None => None,
    };
    let key = data.map(|data| data.frames(chain.hash())).transpose()?;
    let (mut seen, mut raw) = (0, 0);
    // A last frame that is not all there was being written when the gateway died.
    loop {
        let before = chain;
        let Front::Whole((frame, place), len) = container::parse_frame(rest, &mut chain)? else { return Ok(None) };
        let body = rest.get(place).unwrap_or_default();
        let offset = (file.len() - rest.len()) as u64;
        rest = rest.get(len..).unwrap_or_default();
        match frame.kind {
            FrameKind::Block if frame.first == seen => {
                let body = container::decrypt_block(&frame, body, key.as_ref())?;
                let (mut clock, mut bytes) = container::open_block(&frame, &body)?;
                while !bytes.is_empty() {
                    tell(&codec::decode(&mut bytes, &mut clock).map_err(|_| Damage::Block)?, lines);
                }
                seen += u64::from(frame.count);
                raw += u64::from(frame.raw);
            }
            FrameKind::Block => return Err(Damage::Sequence.into()),
            FrameKind::Seal if !rest.is_empty() => return Err(Damage::AfterSeal.into()),
            FrameKind::Seal => {
                let told = match &key {
                    Some(key) => {
                        let (proof, told) = container::split_seal(body)?;
                        container::check_seal(&frame, proof, told, &before, key)?;
                        told
                    }
                    None => body,
                };
                let seal = container::parse_seal(&frame, told, offset)?;
                let true_told = seal.observations == seen && seal.raw_bytes == raw;
                return if true_told { Ok(Some(seal)) } else { Err(Damage::Seal.into()) };
            }
            // A later version's frame: part of the chain, and stepped over.
            FrameKind::Other(_) => {}
        }
    }
}

fn tell(seen: &Observation, lines: &mut String) {
    let _ = write!(lines, "{:>10.3} s  ", seen.at.as_secs_f64());
    let _ = match &seen.what {
        What::Bytes { direction: Direction::Input, data, .. } => writeln!(lines, "typed {} bytes", data.len()),
        What::Bytes { stream, data, .. } => writeln!(lines, "shown on {stream}: {:?}", String::from_utf8_lossy(data)),
        What::Exec { command } => writeln!(lines, "exec {:?}", String::from_utf8_lossy(command)),
        fact => writeln!(lines, "{fact:?}"),
    };
}

fn words(verdict: Result<Option<Seal>, ReadError>) -> String {
    let told = |seal: Seal, word: &str| {
        let why = seal.reason.map_or_else(String::new, |why| format!(": {}", why.escape_debug()));
        format!("{word}{why}; {} observations, ended {}", seal.observations, seal.ended)
    };
    match verdict {
        Ok(Some(seal)) => match seal.verdict {
            SealVerdict::Complete => told(seal, "complete"),
            SealVerdict::Cut => told(seal, "cut off"),
            SealVerdict::Crashed => told(seal, "cut off by a crash of the gateway"),
        },
        Ok(None) => "no seal: still being written, or the gateway died and has not been started again".into(),
        Err(ReadError::UnknownKey(ids)) => format!("encrypted: name the key {} with --key", ids.join(" or ")),
        Err(why) => format!("damaged: {why}"),
    }
}
