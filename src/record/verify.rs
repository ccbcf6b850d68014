//! Is a recording whole? Checks a container file by itself, without a gateway, its spool or its directory. Blocking,
//! streaming, bounded by one frame; the file is taken for hostile.
//!
//! Without a key the chain of hashes and the Seal are checked; with it also that the key's holder wrote every block and
//! the Seal, and that every block holds what it says.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::container::Header;
use super::error::ReadError;
use super::keys::Keys;
use super::reader::{Reader, Verdict};

/// What was found.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What the file says about itself. An attacker may have written it.
    pub header: Header,
    /// How far it can be relied on.
    pub verdict: Checkup,
    /// Bytes at the front of the file that are whole.
    pub good: u64,
    /// Time of the last observation that was read; `None` without a key.
    pub last: Option<Duration>,
    /// How far in it was looked.
    pub depth: Depth,
    /// Observations, as far as it is whole.
    pub observations: u64,
    /// When it ended, where it was sealed.
    pub ended: Option<Timestamp>,
}

/// How far a file can be relied on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checkup {
    /// All of the channel is in it.
    Complete,
    /// It stopped before the channel did; why, where the Seal tells.
    Truncated(String),
    /// It was changed or spoilt.
    Damaged(String),
}

/// How far in was looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// It is encrypted, and was decrypted.
    Decrypted,
    /// It is encrypted, and there was no key: the chain of hashes only.
    Chain,
    /// It is not encrypted (format version 1).
    Plain,
}

/// Checks one file.
pub fn check(path: &Path, keys: Option<&Keys>) -> Result<Checked, ReadError> {
    let mut reader = Reader::open_file(path, keys)?;
    let mut count = 0;
    for observation in reader.by_ref() {
        observation?;
        count += 1;
    }
    let encrypted = reader.header().encrypted()?;
    let (last, depth) = match reader.verdict() {
        _ if reader.shut() => (None, Depth::Chain),
        Verdict::Truncated { at } | Verdict::Damaged { at, .. } => (Some(at), depth(encrypted)),
        Verdict::Live | Verdict::Complete => (None, depth(encrypted)),
    };
    let verdict = match (reader.verdict(), reader.seal()) {
        (Verdict::Complete, _) => Checkup::Complete,
        (Verdict::Damaged { why, .. }, _) => Checkup::Damaged(why),
        (_, Some(seal)) => Checkup::Truncated(seal.reason.clone().unwrap_or_else(|| "it was cut off".to_owned())),
        (_, None) => Checkup::Truncated("no seal: cut off, or still being recorded".to_owned()),
    };
    Ok(Checked {
        header: reader.header().clone(),
        verdict,
        good: reader.good(),
        last,
        depth,
        observations: if depth == Depth::Chain { reader.walked() } else { count },
        ended: reader.seal().map(|seal| seal.ended),
    })
}

fn depth(encrypted: bool) -> Depth {
    if encrypted { Depth::Decrypted } else { Depth::Plain }
}
