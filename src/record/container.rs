//! The container format: a header, then frames chained by BLAKE3, a Seal last. Pure: bytes in, values out; no files, no
//! clock. What it reads is hostile (attackers write into recordings): every length is capped, nothing is allocated on a
//! length's word, nothing panics.
//!
//! ```text
//! file    = header frame* [seal]
//! header  = "GSCRIBE\n" ‖ version u16 ‖ length u32 ‖ JSON                     chain₀ = BLAKE3(header)
//! frame   = head (24 bytes) ‖ chainₙ (32 bytes) ‖ body                        chainₙ = BLAKE3(chainₙ₋₁ ‖ head ‖ body)
//! head    = type u8 ‖ flags u8 ‖ 0 u16 ‖ stored u32 ‖ raw u32 ‖ first observation u64 ‖ observations u32
//! block   = base time varint ‖ observations (codec.rs); zstd-compressed when flag 1 is set, then encrypted
//! seal    = [proof] length u32 ‖ JSON ‖ index ‖ offset of this frame u64 ‖ "GSEL"
//! index   = (offset delta varint ‖ time delta varint ‖ first observation delta varint)*
//! ```
//! Numbers are little-endian. Frames of unknown types are stepped over but chained.
//!
//! Version 2 encrypts (`aead` in the header says so): blocks are `nonce (12) ‖ ciphertext ‖ tag (16)`, and the Seal, which
//! stays readable, begins with a `nonce (12) ‖ tag (16)` over the chain before it. What they are bound to is in `crypt`.
//! The chain runs over what is stored, so it is checked without any key; it shows changes inside a file. That a file
//! was rewritten as a whole shows to who has the key, by the Seal's tag; to all others only a signature could show it (a
//! slot in the header waits for it). Version 1 was not encrypted and stays readable.

use std::borrow::Cow;
use std::io;
use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::codec::{put_varint, take_varint};
use super::crypt::{AEAD, BODY_OVERHEAD, FrameKey, FrameSealer, NONCE, Refused, TAG};

/// The version that is written; higher ones are refused.
pub const VERSION: u16 = 2;
/// The longest header, with its prefix.
pub const MAX_HEADER: usize = 3 * 1024;
/// The most bytes of a block before compression.
pub const MAX_BLOCK: usize = 1024 * 1024;
/// The most bytes of any frame's body.
pub const MAX_BODY: usize = 16 * 1024 * 1024;
/// Bytes of a frame before its body: head and chain hash.
pub const FRAME_OVERHEAD: usize = HEAD + HASH;
/// The most entries of a Seal's index; beyond it every second one is dropped.
pub const MAX_INDEX: usize = 4096;

const MAGIC: &[u8; 8] = b"GSCRIBE\n";
const PREFIX: usize = 14;
const HEAD: usize = 24;
const HASH: usize = 32;
const SEAL_MAGIC: &[u8; 4] = b"GSEL";
const SEAL_TAIL: usize = 12;
const FLAG_ZSTD: u8 = 1;

/// What a recording says about itself before its first frame. Unknown fields are ignored; the empty slots have room for
/// what comes later without a new version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// The gateway that made it.
    pub gateway: Uuid,
    /// The session it belongs to.
    pub session: Uuid,
    /// Its own id.
    pub recording: Uuid,
    /// `shell`, `exec`, `subsystem`, …
    pub kind: String,
    /// When it began, on the wall clock.
    pub started: jiff::Timestamp,
    /// How bodies are encrypted: `aes-256-gcm`, or `none` (version 1).
    pub aead: String,
    /// Who can read it: the recording's key, wrapped for each of them (`keys.rs`).
    #[serde(default)]
    pub keys: Vec<serde_json::Value>,
    /// Hash of the recording before this one (later).
    #[serde(default)]
    pub previous: Option<String>,
    /// Hash of the policies in force (later).
    #[serde(default)]
    pub policy: Option<String>,
    /// Hash of the configuration in force (later).
    #[serde(default)]
    pub config: Option<String>,
    /// Who signs the Seal, and how (later).
    #[serde(default)]
    pub signature: Option<serde_json::Value>,
}

impl Header {
    /// A header with nothing in its slots, of a recording that is not encrypted.
    pub fn new(gateway: Uuid, session: Uuid, recording: Uuid, kind: &str, started: jiff::Timestamp) -> Self {
        Self {
            gateway,
            session,
            recording,
            kind: kind.to_owned(),
            started,
            aead: "none".to_owned(),
            keys: Vec::new(),
            previous: None,
            policy: None,
            config: None,
            signature: None,
        }
    }

    /// Whether bodies are encrypted. An error for a cipher of a later version.
    pub fn encrypted(&self) -> Result<bool, Damage> {
        match self.aead.as_str() {
            "none" => Ok(false),
            AEAD => Ok(true),
            _ => Err(Damage::LaterVersion),
        }
    }
}

/// A frame's fixed head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What the body is.
    pub kind: FrameKind,
    /// Bit 0: the body is zstd-compressed.
    pub flags: u8,
    /// Bytes of the body in the file.
    pub stored: u32,
    /// Bytes of the body after decompression.
    pub raw: u32,
    /// The number of the first observation inside; for a Seal, how many there were in all.
    pub first: u64,
    /// How many observations are inside.
    pub count: u32,
}

/// What a frame's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A run of observations.
    Block,
    /// The last frame of a recording that came to an end.
    Seal,
    /// Of a later version: stepped over.
    Other(u8),
}

/// How and when a recording ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seal {
    /// Whether all of the channel is in it.
    pub verdict: SealVerdict,
    /// Why it is not.
    #[serde(default)]
    pub reason: Option<String>,
    /// When the recording ended, on the wall clock; after a crash, the time of the last observation.
    pub ended: jiff::Timestamp,
    /// Number of observations.
    pub observations: u64,
    /// Bytes of blocks before compression.
    pub raw_bytes: u64,
    /// Where to find what; times do not decrease. Not every block is in it.
    #[serde(skip)]
    pub index: Vec<IndexEntry>,
}

/// Whether all of the channel is in the recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SealVerdict {
    /// All of it.
    Complete,
    /// It stopped before the channel did.
    Cut,
    /// The gateway died; sealed at its next start.
    Crashed,
}

/// One block's place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexEntry {
    /// Where its frame begins in the file.
    pub offset: u64,
    /// The time from which it counts, in microseconds since the recording's start: at or before its first observation.
    pub time_us: u64,
    /// The number of its first observation.
    pub first: u64,
}

/// Why bytes are no sound container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The file does not begin as a recording does.
    #[error("not a recording")]
    NotARecording,
    /// A later version made it.
    #[error("made by a later version of the format")]
    LaterVersion,
    /// The header's JSON cannot be read.
    #[error("the header cannot be read")]
    Header,
    /// A length is beyond its limit.
    #[error("a length is beyond its limit")]
    TooLong,
    /// A body is not what was chained.
    #[error("the chain of hashes is broken")]
    Chain,
    /// The recording's wrapped key was changed, or belongs to another recording.
    #[error("its key does not belong to it")]
    Key,
    /// Encrypted bytes, or the Seal, were not made by who had the recording's key, or stood elsewhere.
    #[error("it was not written with the recording's key")]
    Cipher,
    /// A block does not unpack to what its head says.
    #[error("a block cannot be unpacked")]
    Block,
    /// Observations are missing or there twice.
    #[error("observations are missing")]
    Sequence,
    /// The Seal cannot be read, or does not tell the truth.
    #[error("the seal does not fit the recording")]
    Seal,
    /// Something follows the Seal.
    #[error("something was added after the seal")]
    AfterSeal,
}

/// The running hash. What is hashed in begins with the hash before it, so order and completeness are proved too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain([u8; HASH]);

impl Chain {
    /// The chain's beginning: the hash of the whole header.
    pub fn start(header: &[u8]) -> Self {
        Self(*blake3::hash(header).as_bytes())
    }

    /// The hash up to here; at the beginning it is the header's.
    pub fn hash(&self) -> &[u8; HASH] {
        &self.0
    }

    fn next(&self, head: &[u8], body: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0).update(head).update(body);
        Self(*hasher.finalize().as_bytes())
    }
}

/// What the front of a buffer holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Front<T> {
    /// It, and how many bytes it takes.
    Whole(T, usize),
    /// Not all of it: so many bytes must be there to see more.
    Need(usize),
}

/// Writes a header. The kind is cut to 64 characters, so that the header cannot outgrow [`MAX_HEADER`].
pub fn encode_header(header: &Header) -> io::Result<Vec<u8>> {
    let mut header = header.clone();
    header.kind = header.kind.chars().take(64).collect();
    let json = serde_json::to_vec(&header)?;
    let mut out = Vec::with_capacity(PREFIX + json.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&(json.len() as u32).to_le_bytes());
    out.extend_from_slice(&json);
    Ok(out)
}

/// Reads the header at the front of `buf`.
pub fn parse_header(buf: &[u8]) -> Result<Front<Header>, Damage> {
    let known = buf.len().min(MAGIC.len());
    if buf.get(..known) != MAGIC.get(..known) {
        return Err(Damage::NotARecording);
    }
    let (Some(version), Some(len)) = (array(buf, 8), array(buf, 10)) else {
        return Ok(Front::Need(PREFIX));
    };
    if u16::from_le_bytes(version) > VERSION {
        return Err(Damage::LaterVersion);
    }
    let end = PREFIX.saturating_add(u32::from_le_bytes(len) as usize);
    if end > MAX_HEADER {
        return Err(Damage::TooLong);
    }
    let Some(json) = buf.get(PREFIX..end) else {
        return Ok(Front::Need(end));
    };
    let header = serde_json::from_slice(json).map_err(|_| Damage::Header)?;
    Ok(Front::Whole(header, end))
}

/// Reads and checks the frame at the front of `buf`, moving `chain` on. The body's place in `buf` is returned with its head.
pub fn parse_frame(buf: &[u8], chain: &mut Chain) -> Result<Front<(Head, Range<usize>)>, Damage> {
    let (Some(head_bytes), Some(hash)) = (array::<HEAD>(buf, 0), array::<HASH>(buf, HEAD)) else {
        return Ok(Front::Need(FRAME_OVERHEAD));
    };
    let head = Head::parse(&head_bytes)?;
    let end = FRAME_OVERHEAD + head.stored as usize;
    let Some(body) = buf.get(FRAME_OVERHEAD..end) else {
        return Ok(Front::Need(end));
    };
    let next = chain.next(&head_bytes, body);
    if next.0 != hash {
        return Err(Damage::Chain);
    }
    *chain = next;
    Ok(Front::Whole((head, FRAME_OVERHEAD..end), end))
}

/// Finishes a frame whose body was placed at `out[FRAME_OVERHEAD..]`: fills in head and hash, and moves `chain` on.
pub fn finish_frame(out: &mut [u8], head: Head, chain: &mut Chain) {
    let head_bytes = head.bytes();
    let Some((front, body)) = out.split_at_mut_checked(FRAME_OVERHEAD) else { return };
    *chain = chain.next(&head_bytes, body);
    let (head_place, hash_place) = front.split_at_mut(HEAD);
    head_place.copy_from_slice(&head_bytes);
    hash_place.copy_from_slice(&chain.0);
}

/// Places a block's frame into `out` (emptied first): compressed where that is smaller, then encrypted.
///
/// `raw` is the base time as a varint and the observations; at most [`MAX_BLOCK`] bytes. Without a compressor it is
/// stored as it is, without a sealer in the clear. Tells whether compressing was worth it.
pub fn encode_block(
    raw: &[u8],
    first: u64,
    count: u32,
    zstd: Option<&mut zstd::bulk::Compressor<'static>>,
    sealer: Option<&mut FrameSealer>,
    chain: &mut Chain,
    out: &mut Vec<u8>,
) -> Result<bool, Refused> {
    let (before, behind) = if sealer.is_some() { (NONCE, TAG) } else { (0, 0) };
    // The room is as large as the raw bytes: a result that does not fit would not have been worth it.
    out.resize(FRAME_OVERHEAD + before + raw.len() + behind, 0);
    let room = out.get_mut(FRAME_OVERHEAD + before..).and_then(|room| room.get_mut(..raw.len())).unwrap_or_default();
    let compressed = zstd.and_then(|zstd| zstd.compress_to_buffer(raw, room).ok()).filter(|len| *len < raw.len());
    let (flags, packed) = match compressed {
        Some(len) => (FLAG_ZSTD, len),
        None => {
            room.copy_from_slice(raw);
            (0, raw.len())
        }
    };
    let stored = before + packed + behind;
    out.truncate(FRAME_OVERHEAD + stored);
    let head = Head { kind: FrameKind::Block, flags, stored: stored as u32, raw: raw.len() as u32, first, count };
    if let Some(sealer) = sealer {
        sealer.seal(&head.bytes(), out.get_mut(FRAME_OVERHEAD..).unwrap_or_default())?;
    }
    finish_frame(out, head, chain);
    Ok(packed < raw.len() - raw.len() / 32)
}

/// Decrypts a block's body, for [`open_block`]; without a key it is in the clear.
pub fn decrypt_block<'a>(head: &Head, body: &'a [u8], key: Option<&FrameKey>) -> Result<Cow<'a, [u8]>, Damage> {
    match key {
        Some(key) => Ok(key.open(&head.bytes(), body).map_err(|Refused| Damage::Cipher)?.into()),
        None => Ok(body.into()),
    }
}

/// Unpacks a block's body: its base time in microseconds, and its observations.
pub fn open_block(head: &Head, body: &[u8]) -> Result<(u64, Bytes), Damage> {
    let raw = head.raw as usize;
    if raw > MAX_BLOCK {
        return Err(Damage::TooLong);
    }
    let bytes = match head.flags & FLAG_ZSTD {
        0 => body.to_vec(),
        _ => zstd::bulk::decompress(body, raw).map_err(|_| Damage::Block)?,
    };
    if bytes.len() != raw {
        return Err(Damage::Block);
    }
    let mut bytes = Bytes::from(bytes);
    let base = take_varint(&mut bytes).map_err(|_| Damage::Block)?;
    Ok((base, bytes))
}

/// A Seal's frame, to be placed at `offset` in the file.
pub fn encode_seal(
    seal: &Seal,
    offset: u64,
    sealer: Option<&mut FrameSealer>,
    chain: &mut Chain,
) -> io::Result<Vec<u8>> {
    let start = FRAME_OVERHEAD + if sealer.is_some() { BODY_OVERHEAD } else { 0 };
    let json = serde_json::to_vec(seal)?;
    let mut out = vec![0; start];
    out.extend_from_slice(&(json.len() as u32).to_le_bytes());
    out.extend_from_slice(&json);
    let mut last = IndexEntry::default();
    for entry in &seal.index {
        put_varint(&mut out, entry.offset.saturating_sub(last.offset));
        put_varint(&mut out, entry.time_us.saturating_sub(last.time_us));
        put_varint(&mut out, entry.first.saturating_sub(last.first));
        last = *entry;
    }
    out.extend_from_slice(&offset.to_le_bytes());
    out.extend_from_slice(SEAL_MAGIC);
    let len = (out.len() - FRAME_OVERHEAD) as u32;
    let head = Head { kind: FrameKind::Seal, flags: 0, stored: len, raw: len, first: seal.observations, count: 0 };
    if let Some(sealer) = sealer {
        let told = out.get(start..).unwrap_or_default();
        let proof = sealer.prove(&[chain.hash(), &head.bytes(), told])?;
        out.get_mut(FRAME_OVERHEAD..start).unwrap_or_default().copy_from_slice(&proof);
    }
    finish_frame(&mut out, head, chain);
    Ok(out)
}

/// The proof at the front of an encrypted recording's Seal, and what [`parse_seal`] wants.
pub fn split_seal(body: &[u8]) -> Result<(&[u8], &[u8]), Damage> {
    body.split_at_checked(BODY_OVERHEAD).ok_or(Damage::Seal)
}

/// Checks a Seal's proof; `before` is the chain before its frame.
pub fn check_seal(head: &Head, proof: &[u8], told: &[u8], before: &Chain, key: &FrameKey) -> Result<(), Damage> {
    key.check(&[before.hash(), &head.bytes(), told], proof).map_err(|Refused| Damage::Cipher)
}

/// Reads a Seal's body, without its proof. `offset` is where its frame stands in the file.
pub fn parse_seal(head: &Head, body: &[u8], offset: u64) -> Result<Seal, Damage> {
    let len = u32::from_le_bytes(array(body, 0).ok_or(Damage::Seal)?) as usize;
    let json_end = len.checked_add(4).ok_or(Damage::Seal)?;
    let index_end = body.len().checked_sub(SEAL_TAIL).ok_or(Damage::Seal)?;
    let json = body.get(4..json_end).ok_or(Damage::Seal)?;
    let index = body.get(json_end..index_end).ok_or(Damage::Seal)?;
    let own: u64 = u64::from_le_bytes(array(body, index_end).ok_or(Damage::Seal)?);
    let mut seal: Seal = serde_json::from_slice(json).map_err(|_| Damage::Seal)?;
    if own != offset || !body.ends_with(SEAL_MAGIC) || head.first != seal.observations {
        return Err(Damage::Seal);
    }
    seal.index = parse_index(Bytes::copy_from_slice(index)).ok_or(Damage::Seal)?;
    Ok(seal)
}

fn parse_index(mut buf: Bytes) -> Option<Vec<IndexEntry>> {
    let (mut index, mut last) = (Vec::new(), IndexEntry::default());
    while !buf.is_empty() {
        let mut add = |to: &mut u64| {
            *to = to.checked_add(take_varint(&mut buf).ok()?)?;
            Some(())
        };
        add(&mut last.offset)?;
        add(&mut last.time_us)?;
        add(&mut last.first)?;
        if index.len() == MAX_INDEX {
            return None;
        }
        index.push(last);
    }
    Some(index)
}

impl Head {
    fn parse(bytes: &[u8; HEAD]) -> Result<Self, Damage> {
        let number = |at| u32::from_le_bytes(array(bytes, at).unwrap_or_default());
        let [kind, flags, ..] = *bytes;
        let kind = match kind {
            1 => FrameKind::Block,
            2 => FrameKind::Seal,
            other => FrameKind::Other(other),
        };
        let first = u64::from_le_bytes(array(bytes, 12).unwrap_or_default());
        let head = Head { kind, flags, stored: number(4), raw: number(8), first, count: number(20) };
        match head.stored as usize > MAX_BODY {
            true => Err(Damage::TooLong),
            false => Ok(head),
        }
    }

    fn bytes(&self) -> [u8; HEAD] {
        let mut out = [0; HEAD];
        let kind = match self.kind {
            FrameKind::Block => 1,
            FrameKind::Seal => 2,
            FrameKind::Other(other) => other,
        };
        let fields: [&[u8]; 6] = [
            &[kind, self.flags, 0, 0],
            &self.stored.to_le_bytes(),
            &self.raw.to_le_bytes(),
            &self.first.to_le_bytes(),
            &self.count.to_le_bytes(),
            &[],
        ];
        for (place, byte) in out.iter_mut().zip(fields.into_iter().flatten()) {
            *place = *byte;
        }
        out
    }
}

/// `N` bytes of `buf` from `at` on, if they are there.
pub(super) fn array<const N: usize>(buf: &[u8], at: usize) -> Option<[u8; N]> {
    buf.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header::new(Uuid::nil(), Uuid::nil(), Uuid::nil(), "exec", jiff::Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_header_round_trips_and_ignores_what_it_does_not_know() {
        let bytes = encode_header(&header()).unwrap();
        assert_eq!(parse_header(&bytes), Ok(Front::Whole(header(), bytes.len())));
        for cut in 0..bytes.len() {
            assert!(matches!(parse_header(&bytes[..cut]), Ok(Front::Need(n)) if n > cut));
        }
        let json = String::from_utf8(bytes[PREFIX..].to_vec()).unwrap().replacen('{', r#"{"new":[1],"#, 1);
        let mut newer = bytes[..10].to_vec();
        newer.extend_from_slice(&(json.len() as u32).to_le_bytes());
        newer.extend_from_slice(json.as_bytes());
        assert_eq!(parse_header(&newer), Ok(Front::Whole(header(), newer.len())));
    }

    #[test]
    fn lengths_beyond_their_limits_are_refused_before_the_bytes_are_there() {
        let mut bytes = encode_header(&header()).unwrap();
        bytes[10..14].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(parse_header(&bytes), Err(Damage::TooLong));
        let mut frame = vec![0; FRAME_OVERHEAD];
        frame[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(parse_frame(&frame, &mut Chain::start(b"")), Err(Damage::TooLong));
    }

    #[test]
    fn a_block_that_unpacks_to_more_than_it_says_is_refused() {
        let mut zstd = zstd::bulk::Compressor::new(1).unwrap();
        let body = zstd.compress(&vec![0; 10_000_000]).unwrap();
        let mut head = Head { kind: FrameKind::Block, flags: FLAG_ZSTD, stored: 0, raw: 1000, first: 0, count: 0 };
        assert_eq!(open_block(&head, &body), Err(Damage::Block));
        head.raw = 10_000_000;
        assert_eq!(open_block(&head, &body), Err(Damage::TooLong));
    }

    #[test]
    fn a_seal_round_trips_with_its_index() {
        let index = (0..100).map(|n| IndexEntry { offset: 1000 * n, time_us: n * n, first: 7 * n }).collect();
        let seal = Seal {
            verdict: SealVerdict::Cut,
            reason: Some("the disk is full".to_owned()),
            ended: jiff::Timestamp::UNIX_EPOCH,
            observations: 700,
            raw_bytes: 9,
            index,
        };
        let (mut chain, mut check) = (Chain::start(b"x"), Chain::start(b"x"));
        let frame = encode_seal(&seal, 4711, None, &mut chain).unwrap();
        let Front::Whole((head, body), _) = parse_frame(&frame, &mut check).unwrap() else { panic!("incomplete") };
        assert_eq!(chain, check);
        assert_eq!(parse_seal(&head, &frame[body.clone()], 4711), Ok(seal));
        assert_eq!(parse_seal(&head, &frame[body], 4712), Err(Damage::Seal));
    }

    #[test]
    fn a_frame_of_a_later_version_is_chained_and_told_apart() {
        let mut chain = Chain::start(b"x");
        let mut out = vec![0; FRAME_OVERHEAD + 3];
        let head = Head { kind: FrameKind::Other(77), flags: 0, stored: 3, raw: 3, first: 0, count: 0 };
        finish_frame(&mut out, head, &mut chain);
        let mut check = Chain::start(b"x");
        assert_eq!(parse_frame(&out, &mut check), Ok(Front::Whole((head, 56..59), 59)));
        out[58] ^= 1;
        assert_eq!(parse_frame(&out, &mut Chain::start(b"x")), Err(Damage::Chain));
    }
}
