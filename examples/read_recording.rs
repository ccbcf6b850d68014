//! Reads a recording back without a gateway: what was seen on the channel, and how far the file can be relied on.
//!
//! ```text
//! cargo run --example read_recording -- tests/golden/v1.gsr
//! ```
//!
//! A recording holds what somebody's server sent, so nothing of it reaches the terminal unescaped. Typed input holds
//! passwords, so only its length is shown. A live recording ends early here: its last seconds are in the gateway's spool.

use std::fmt::Write as _;
use std::io::{self, Write};

use anyhow::Context;
use gatescribe::record::codec;
use gatescribe::record::container::{self, Chain, Damage, FrameKind, Front, Seal, SealVerdict};
use gatescribe::record::observation::{Direction, Observation, What};

fn main() -> anyhow::Result<()> {
    let path = std::env::args_os().nth(1).context("usage: read_recording FILE.gsr")?;
    let file = std::fs::read(&path).with_context(|| path.display().to_string())?;
    let mut out = io::stdout().lock();
    let mut lines = String::new();
    let verdict = read(&file, &mut lines);
    out.write_all(lines.as_bytes())?;
    writeln!(out, "{}", words(verdict))?;
    Ok(())
}

/// Walks header and frames, checking the chain of hashes on the way, until the seal or the end of the file.
fn read(file: &[u8], lines: &mut String) -> Result<Option<Seal>, Damage> {
    let Front::Whole(header, end) = container::parse_header(file)? else { return Err(Damage::Header) };
    let _ = writeln!(lines, "{} of session {}, begun {}", header.kind.escape_debug(), header.session, header.started);
    let Some((head, mut rest)) = file.split_at_checked(end) else { return Err(Damage::Header) };
    let mut chain = Chain::start(head);
    let (mut seen, mut raw) = (0, 0);
    // A last frame that is not all there was being written when the gateway died.
    while let Front::Whole((frame, place), len) = container::parse_frame(rest, &mut chain)? {
        let body = rest.get(place).unwrap_or_default();
        let offset = (file.len() - rest.len()) as u64;
        rest = rest.get(len..).unwrap_or_default();
        match frame.kind {
            FrameKind::Block if frame.first == seen => {
                let (mut clock, mut bytes) = container::open_block(&frame, body)?;
                while !bytes.is_empty() {
                    tell(&codec::decode(&mut bytes, &mut clock).map_err(|_| Damage::Block)?, lines);
                }
                seen += u64::from(frame.count);
                raw += u64::from(frame.raw);
            }
            FrameKind::Block => return Err(Damage::Sequence),
            FrameKind::Seal if !rest.is_empty() => return Err(Damage::AfterSeal),
            FrameKind::Seal => {
                let seal = container::parse_seal(&frame, body, offset)?;
                let true_told = seal.observations == seen && seal.raw_bytes == raw;
                return if true_told { Ok(Some(seal)) } else { Err(Damage::Seal) };
            }
            // A later version's frame: part of the chain, and stepped over.
            FrameKind::Other(_) => {}
        }
    }
    Ok(None)
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

fn words(verdict: Result<Option<Seal>, Damage>) -> String {
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
        Err(why) => format!("damaged: {why}"),
    }
}
