//! A container on disk while it is being written: appends blocks and the Seal, whole or not at all. Blocking; used on
//! blocking threads only. What a frame looks like is `container`'s business.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;

use jiff::Timestamp;

use super::container::{self, Chain, IndexEntry, MAX_INDEX, Seal, SealVerdict};
use super::crypt::FrameSealer;

/// The zstd level of blocks: the fastest that is worth it for terminal text.
const LEVEL: i32 = 1;

/// Blocks shorter than this are always tried to be compressed.
const SMALL: usize = 16 * 1024;

/// A container that blocks are appended to.
pub struct ContainerFile {
    pub(super) file: File,
    len: u64,
    chain: Chain,
    /// Encrypts; `None` where a recording of version 1 is gone on with.
    sealer: Option<FrameSealer>,
    index: Index,
    observations: u64,
    raw_bytes: u64,
    sync: bool,
    /// Part of a failed append may stand behind `len`.
    torn: bool,
    noise: Noise,
}

/// Where a container that was read to its good end stands.
pub struct Resume {
    /// Its length up to there.
    pub len: u64,
    /// The chain there.
    pub chain: Chain,
    /// The blocks seen.
    pub index: Index,
    /// The observations seen.
    pub observations: u64,
    /// Bytes of blocks before compression.
    pub raw_bytes: u64,
}

/// A bounded index: when it is full, every second entry goes, and from then on every second block is left out.
#[derive(Clone)]
pub struct Index {
    entries: Vec<IndexEntry>,
    blocks: u64,
    stride: u64,
}

/// What a drain needs beside the files. Kept and shared, because a compressor is large.
pub struct Scratch {
    /// A piece of the spool.
    pub spool: Vec<u8>,
    /// A block before compression.
    pub block: Vec<u8>,
    /// A frame.
    frame: Vec<u8>,
    zstd: zstd::bulk::Compressor<'static>,
}

/// What does not compress (a download of something packed or encrypted) is tried less and less often, because trying
/// costs more than all else that a drain does.
#[derive(Debug, Default)]
struct Noise {
    /// Blocks to store before the next try.
    skip: u32,
    /// Tries in a row that were not worth it.
    misses: u32,
}

impl Noise {
    /// At most this many blocks (of 256 KiB) go by between two tries.
    const MOST_SKIPPED: u32 = 16;

    fn tries(&mut self) -> bool {
        let tries = self.skip == 0;
        self.skip = self.skip.saturating_sub(1);
        tries
    }

    fn saw(&mut self, worth: bool) {
        self.misses = if worth { 0 } else { self.misses + 1 };
        self.skip = match self.misses {
            0 => 0,
            misses => 1 << misses.min(Self::MOST_SKIPPED.ilog2()),
        };
    }
}

impl ContainerFile {
    /// Creates the container and the directories above it. `sync` makes every append durable before it returns.
    pub fn create(path: &Path, header: &[u8], sealer: FrameSealer, sync: bool) -> io::Result<Self> {
        let file = begin(path, header, sync)?;
        let (len, chain) = (header.len() as u64, Chain::start(header));
        let at = Resume { len, chain, index: Index::default(), observations: 0, raw_bytes: 0 };
        Ok(Self::at(file, at, Some(sealer), sync))
    }

    /// Goes on where a reader found the container's good end, and cuts off what is behind it.
    pub fn resume(path: &Path, at: Resume, sealer: Option<FrameSealer>, sync: bool) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        if file.metadata()?.len() != at.len {
            file.set_len(at.len)?;
        }
        Ok(Self::at(file, at, sealer, sync))
    }

    fn at(file: File, at: Resume, sealer: Option<FrameSealer>, sync: bool) -> Self {
        let Resume { len, chain, index, observations, raw_bytes } = at;
        Self { file, len, chain, sealer, index, observations, raw_bytes, sync, torn: false, noise: Noise::default() }
    }

    /// Bytes in the file.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Observations in it.
    pub fn observations(&self) -> u64 {
        self.observations
    }

    /// Appends `scratch.block` as one frame; returns the bytes it took. After an error the frame does not count;
    /// what of it is there looks torn to readers and is cut off before the next append.
    pub fn append(&mut self, scratch: &mut Scratch, base_us: u64, count: u32) -> io::Result<u64> {
        let (mut chain, first) = (self.chain, self.observations);
        let Scratch { block, frame, zstd, .. } = scratch;
        // A small block says nothing of the next one, and trying it costs little.
        let small = block.len() < SMALL;
        let tries = small || self.noise.tries();
        let (zstd, sealer) = (tries.then_some(zstd), self.sealer.as_mut());
        let worth = container::encode_block(block, first, count, zstd, sealer, &mut chain, frame)?;
        if tries && !small {
            self.noise.saw(worth);
        }
        let entry = IndexEntry { offset: self.len, time_us: base_us, first };
        self.write(frame)?;
        self.chain = chain;
        self.index.push(entry);
        self.observations += u64::from(count);
        self.raw_bytes += block.len() as u64;
        Ok(frame.len() as u64)
    }

    /// Writes the last frame.
    pub fn seal(&mut self, verdict: SealVerdict, reason: Option<String>, ended: Timestamp) -> io::Result<()> {
        let seal = Seal {
            verdict,
            reason,
            ended,
            observations: self.observations,
            raw_bytes: self.raw_bytes,
            index: self.index.entries.clone(),
        };
        let mut chain = self.chain;
        let frame = container::encode_seal(&seal, self.len, self.sealer.as_mut(), &mut chain)?;
        self.write(&frame)?;
        self.chain = chain;
        Ok(())
    }

    /// Bytes that may still be written where the container lives.
    pub fn free(&self) -> io::Result<u64> {
        let fs = rustix::fs::fstatvfs(&self.file)?;
        Ok(fs.f_bavail.saturating_mul(fs.f_frsize))
    }

    fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.len)?;
        }
        self.torn = true;
        self.file.write_all_at(frame, self.len)?;
        if self.sync {
            self.file.sync_data()?;
        }
        self.torn = false;
        self.len += frame.len() as u64;
        Ok(())
    }
}

impl Default for Index {
    fn default() -> Self {
        Self { entries: Vec::new(), blocks: 0, stride: 1 }
    }
}

impl Index {
    /// Notes a block.
    pub fn push(&mut self, entry: IndexEntry) {
        if self.entries.len() == MAX_INDEX {
            let mut keep = false;
            self.entries.retain(|_| {
                keep = !keep;
                keep
            });
            self.stride *= 2;
        }
        if self.blocks.is_multiple_of(self.stride) {
            self.entries.push(entry);
        }
        self.blocks += 1;
    }
}

impl Scratch {
    /// Empty buffers and a compressor.
    pub fn new() -> io::Result<Self> {
        let zstd = zstd::bulk::Compressor::new(LEVEL)?;
        Ok(Self { spool: Vec::new(), block: Vec::new(), frame: Vec::new(), zstd })
    }
}

/// Makes a container that holds its header only, and the directories above it.
pub fn begin(path: &Path, header: &[u8], sync: bool) -> io::Result<File> {
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    let begun = file.write_all_at(header, 0).and_then(|()| if sync { sync_with_parents(&file, path) } else { Ok(()) });
    match begun {
        Ok(()) => Ok(file),
        Err(error) => {
            let _ = std::fs::remove_file(path);
            Err(error)
        }
    }
}

/// A new name is durable only when its directory is; the two above it may be new as well.
pub fn sync_with_parents(file: &File, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    path.ancestors().skip(1).take(3).try_for_each(|dir| File::open(dir)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_stays_bounded_and_even() {
        let mut index = Index::default();
        for n in 0..100_000 {
            index.push(IndexEntry { offset: n, time_us: n, first: n });
            assert!(index.entries.len() <= MAX_INDEX);
        }
        assert_eq!(index.entries[0].offset, 0);
        let gaps: Vec<_> = index.entries.windows(2).map(|w| w[1].offset - w[0].offset).collect();
        assert!(gaps.iter().all(|gap| *gap == gaps[0]), "{gaps:?}");
    }
}
