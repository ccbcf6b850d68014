//! Reads a recording back: live, complete or left by a crash. Container first, then the spool's records that are not in
//! it yet. Blocking, streaming, bounded: one block or one spool segment at a time. Crash recovery reads through it too,
//! and `verify`, which may have no key: then it walks the chain and gives out nothing.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::codec;
use super::container::{
    self, Chain, Damage, FRAME_OVERHEAD, FrameKind, Front, Header, IndexEntry, MAX_HEADER, Seal, SealVerdict,
};
use super::crypt::FrameKey;
use super::error::ReadError;
use super::file::{Index, Resume};
use super::keys::Keys;
use super::observation::Observation;
use super::spool::{SEGMENT, SEGMENTS, Spool, read_full};

/// Iterates over a recording's observations in order.
///
/// Not fused: after `None` of a live recording, call again later for what came since. Ask for the [`Verdict`] at the end.
pub struct Reader {
    container: File,
    spool: Option<Arc<Spool>>,
    header: Header,
    lock: Lock,
    /// Where the next frame begins, and what has been seen up to there.
    good: Resume,
    /// The number of the next observation to give out; can be ahead of the container.
    next: u64,
    last: Duration,
    frame: Vec<u8>,
    run: Run,
    end: End,
}

/// How far a recording can be relied on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Being recorded; more may come.
    Live,
    /// Sealed, with all of the channel in it.
    Complete,
    /// Sound up to the last observation given out, then cut: by a crash, a full disk, a lost session.
    Truncated {
        /// Time of the last observation.
        at: Duration,
    },
    /// Changed or spoilt behind the last observation given out.
    Damaged {
        /// Time of the last observation.
        at: Duration,
        /// In what way.
        why: String,
    },
}

/// Observations that are unpacked but not given out.
#[derive(Default)]
struct Run {
    bytes: Bytes,
    clock_us: u64,
    /// The number of the first one in `bytes`.
    number: u64,
    /// The number after the last one.
    end: u64,
    spooled: bool,
}

/// What bodies are behind.
enum Lock {
    /// Nothing: version 1.
    None,
    Key(FrameKey),
    /// A key that is not here.
    Shut,
}

enum End {
    Open,
    Sealed(Seal),
    Damaged(Damage),
}

impl Reader {
    /// Opens a container and, while it is live, its spool.
    pub(super) fn open(container: &Path, spool: &Path, keys: &Keys) -> Result<Self, ReadError> {
        // The spool first: it goes only after the Seal is in the container. One that is there and cannot be opened is an
        // error: what it holds would be missing from what is read.
        let spool = match Spool::open(spool, false, keys) {
            Err(ReadError::NotFound) => None,
            opened => Some(Arc::new(opened?)),
        };
        Self::with_spool(container, spool, keys)
    }

    /// Opens a container with this spool, or with none.
    pub(super) fn with_spool(container: &Path, spool: Option<Arc<Spool>>, keys: &Keys) -> Result<Self, ReadError> {
        Self::over(File::open(container)?, spool, Some(keys))
    }

    /// Opens a container alone. Without keys, of an encrypted one the chain can be checked and nothing be read. Blocks, as
    /// everything here.
    pub fn open_file(path: &Path, keys: Option<&Keys>) -> Result<Self, ReadError> {
        Self::over(File::open(path)?, None, keys)
    }

    fn over(container: File, spool: Option<Arc<Spool>>, keys: Option<&Keys>) -> Result<Self, ReadError> {
        let mut front = vec![0; MAX_HEADER];
        let len = read_full(&container, &mut front, 0)?;
        front.truncate(len);
        let Front::Whole(header, len) = container::parse_header(&front)? else {
            return Err(Damage::Header.into());
        };
        front.truncate(len);
        let chain = Chain::start(&front);
        let lock = match keys {
            Some(keys) => match keys.unwrap(&header)? {
                Some(data) => Lock::Key(data.frames(chain.hash())?),
                None => Lock::None,
            },
            None if header.encrypted()? => Lock::Shut,
            None => Lock::None,
        };
        let good = Resume { len: len as u64, chain, index: Index::default(), observations: 0, raw_bytes: 0 };
        Ok(Self {
            container,
            spool,
            header,
            lock,
            good,
            next: 0,
            last: Duration::ZERO,
            frame: Vec::new(),
            run: Run::default(),
            end: End::Open,
        })
    }

    /// What the recording says about itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The Seal, once it has been reached.
    pub fn seal(&self) -> Option<&Seal> {
        match &self.end {
            End::Sealed(seal) => Some(seal),
            End::Open | End::Damaged(_) => None,
        }
    }

    /// How far the recording can be relied on. Final only after the iterator has answered `None`.
    pub fn verdict(&mut self) -> Verdict {
        let at = self.last;
        if matches!(self.end, End::Open) {
            if self.spool.as_ref().is_some_and(|spool| spool.locked_elsewhere()) {
                return Verdict::Live;
            }
            // The lock goes after the Seal is written: it may have come since the last look.
            if self.advance().unwrap_or(false) && matches!(self.end, End::Open) {
                return Verdict::Live;
            }
        }
        match &self.end {
            End::Open => Verdict::Truncated { at },
            End::Damaged(why) => Verdict::Damaged { at, why: why.to_string() },
            End::Sealed(seal) => match seal.verdict {
                SealVerdict::Complete => Verdict::Complete,
                SealVerdict::Cut | SealVerdict::Crashed => Verdict::Truncated { at },
            },
        }
    }

    /// Whether damage has been come upon. Asks no lock, unlike [`Reader::verdict`], so the spool's own holder may ask.
    pub(super) fn damaged(&self) -> bool {
        matches!(self.end, End::Damaged(_))
    }

    /// Whether the observation given out last is in the spool only.
    pub(super) fn spooled(&self) -> bool {
        self.run.spooled
    }

    /// Bytes of the container that are good.
    pub(super) fn good(&self) -> u64 {
        self.good.len
    }

    /// Observations in the part of the container that is good, by what its frames say.
    pub(super) fn walked(&self) -> u64 {
        self.good.observations
    }

    /// Whether it is encrypted with a key that is not here.
    pub(super) fn shut(&self) -> bool {
        matches!(self.lock, Lock::Shut)
    }

    /// Where a container without a Seal can be gone on with, and the key to do it with.
    pub(super) fn into_resume(self) -> (Resume, Option<FrameKey>) {
        match self.lock {
            Lock::Key(key) => (self.good, Some(key)),
            Lock::None | Lock::Shut => (self.good, None),
        }
    }

    fn try_next(&mut self) -> Result<Option<Observation>, ReadError> {
        loop {
            while self.run.number < self.run.end {
                match codec::decode(&mut self.run.bytes, &mut self.run.clock_us) {
                    Ok(observation) => {
                        let number = self.run.number;
                        self.run.number += 1;
                        // Given out before, from the spool or another segment's look.
                        if number >= self.next {
                            self.next = number + 1;
                            self.last = observation.at;
                            return Ok(Some(observation));
                        }
                    }
                    Err(_) => self.damage(Damage::Block),
                }
            }
            if !self.run.bytes.is_empty() {
                self.damage(Damage::Block);
            }
            if !matches!(self.end, End::Open) || !(self.advance()? || self.load_spool()?) {
                return Ok(None);
            }
        }
    }

    /// Takes the container's next frame; false when no whole one is there.
    fn advance(&mut self) -> Result<bool, ReadError> {
        if !matches!(self.end, End::Open) {
            return Ok(false);
        }
        let there = self.container.metadata()?.len().saturating_sub(self.good.len);
        let mut need = FRAME_OVERHEAD;
        loop {
            // Bounded by what is there, whatever a length says.
            if there < need as u64 {
                return Ok(false);
            }
            self.frame.resize(need, 0);
            if read_full(&self.container, &mut self.frame, self.good.len)? < need {
                return Ok(false);
            }
            // A power loss can leave a length without its bytes.
            if need == FRAME_OVERHEAD && self.frame.iter().all(|byte| *byte == 0) {
                return Ok(false);
            }
            let mut chain = self.good.chain;
            match container::parse_frame(&self.frame, &mut chain) {
                Ok(Front::Need(more)) => need = more,
                Ok(Front::Whole((head, body), len)) => {
                    let body = self.frame.get(body).unwrap_or_default();
                    let taken = take(&head, body, &self.lock, &mut self.good, there > len as u64);
                    match taken {
                        Ok(Taken::Run(run)) => self.run = run,
                        Ok(Taken::Seal(seal)) => self.end = End::Sealed(seal),
                        Ok(Taken::Nothing) => {}
                        Err(damage) => {
                            self.damage(damage);
                            return Ok(true);
                        }
                    }
                    self.good.chain = chain;
                    self.good.len += len as u64;
                    return Ok(true);
                }
                Err(damage) => {
                    self.damage(damage);
                    return Ok(true);
                }
            }
        }
    }

    /// Takes what the spool has beyond the container; false when there is nothing.
    ///
    /// A drain may move records away between two looks. It writes the container before it frees a segment, so: when the
    /// container has not grown after the segment was read, what was read is whole.
    fn load_spool(&mut self) -> Result<bool, ReadError> {
        let Some(spool) = &self.spool else { return Ok(false) };
        let mut candidates = Vec::new();
        for segment in 0..SEGMENTS {
            if let Some(first) = spool.first_number(segment)?.filter(|first| *first <= self.next) {
                candidates.push((first, segment));
            }
        }
        // Newest first; an older one of the same number can be a torn write that was tried again elsewhere.
        candidates.sort_unstable_by(|a, b| b.cmp(a));
        for (first, segment) in candidates {
            if let Some(run) = read_segment(spool, segment, first)?.filter(|run| run.end > self.next) {
                if self.advance()? {
                    return Ok(true);
                }
                self.run = run;
                return Ok(true);
            }
        }
        self.advance()
    }

    fn damage(&mut self, damage: Damage) {
        self.run = Run::default();
        self.end = End::Damaged(damage);
    }
}

impl Iterator for Reader {
    type Item = Result<Observation, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.try_next().transpose()
    }
}

enum Taken {
    Run(Run),
    Seal(Seal),
    Nothing,
}

/// Checks a frame against what came before it. `more` says that bytes follow it.
fn take(head: &container::Head, body: &[u8], lock: &Lock, good: &mut Resume, more: bool) -> Result<Taken, Damage> {
    match head.kind {
        FrameKind::Block => {
            if head.first != good.observations {
                return Err(Damage::Sequence);
            }
            let end = head.first.checked_add(u64::from(head.count)).ok_or(Damage::Sequence)?;
            let run = match lock {
                Lock::Shut => Run::default(),
                Lock::None => open_run(head, body, None, end)?,
                Lock::Key(key) => open_run(head, body, Some(key), end)?,
            };
            good.index.push(IndexEntry { offset: good.len, time_us: run.clock_us, first: head.first });
            good.observations = end;
            good.raw_bytes = good.raw_bytes.saturating_add(u64::from(head.raw));
            Ok(Taken::Run(run))
        }
        FrameKind::Seal => {
            let told = match lock {
                Lock::None => body,
                Lock::Shut => container::split_seal(body)?.1,
                Lock::Key(key) => {
                    let (proof, told) = container::split_seal(body)?;
                    container::check_seal(head, proof, told, &good.chain, key)?;
                    told
                }
            };
            let seal = container::parse_seal(head, told, good.len)?;
            if more {
                return Err(Damage::AfterSeal);
            }
            match seal.observations == good.observations && seal.raw_bytes == good.raw_bytes {
                true => Ok(Taken::Seal(seal)),
                false => Err(Damage::Seal),
            }
        }
        FrameKind::Other(_) => Ok(Taken::Nothing),
    }
}

fn open_run(head: &container::Head, body: &[u8], key: Option<&FrameKey>, end: u64) -> Result<Run, Damage> {
    let body = container::decrypt_block(head, body, key)?;
    let (clock_us, bytes) = container::open_block(head, &body)?;
    Ok(Run { bytes, clock_us, number: head.first, end, spooled: false })
}

/// All sound records of a segment, whose times count from zero.
fn read_segment(spool: &Spool, segment: u8, first: u64) -> Result<Option<Run>, ReadError> {
    let mut framed = vec![0; SEGMENT];
    let len = spool.read(segment, 0, &mut framed)?;
    framed.truncate(len);
    let mut bytes = Vec::new();
    let walked = spool.gather(segment, &framed, first, &mut bytes);
    let end = first.saturating_add(u64::from(walked.count));
    Ok((end > first).then(|| Run { bytes: bytes.into(), clock_us: 0, number: first, end, spooled: true }))
}
