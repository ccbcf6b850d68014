//! The spool file of one live recording: where an observation is safe from a SIGKILL before it is forwarded.
//!
//! Normally on tmpfs: a write there never waits for a disk, and its pages outlive the process. One `pwritev` per record
//! copies in order, so an intact trailer proves that all before it arrived; the trailer is keyed with a random key, so
//! that neither a stale record nor bytes that an attacker placed in a payload can pose as one. Off tmpfs the trailer
//! covers the payload too, because after a power loss a disk keeps pages in any order.
//!
//! ```text
//! file    = page (4096 bytes) ‖ segment*8 (256 KiB each)
//! page    = "GSSPOOL1" ‖ flags u32 ‖ key (32) ‖ length u32 ‖ container header ‖ BLAKE3 of all that (32)
//! segment = (number u64 ‖ length u32 ‖ record ‖ trailer (16))*       numbers go up by one inside a segment
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::container::array;

/// Segments of a spool: what of it is full is drained while the next one fills.
pub const SEGMENTS: u8 = 8;
/// Bytes of a segment.
pub const SEGMENT: usize = 256 * 1024;
/// Bytes before a record.
pub const RECORD_HEAD: usize = 12;
/// Bytes around a record.
pub const RECORD_OVERHEAD: usize = RECORD_HEAD + TAG;
/// How a spool file's name ends.
pub const EXTENSION: &str = "spool";

const PAGE: usize = 4096;
const MAGIC: &[u8; 8] = b"GSSPOOL1";
const TAG: usize = 16;
const KEY: usize = 32;
const FLAG_WHOLE: u32 = 1;
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

/// An open spool file.
pub struct Spool {
    file: File,
    path: PathBuf,
    seal: Sealer,
    header: Vec<u8>,
}

/// Makes and checks trailers.
#[derive(Clone)]
struct Sealer {
    key: [u8; KEY],
    /// Whether the trailer covers the record itself.
    whole: bool,
}

impl Spool {
    /// Creates the spool file of a recording whose container begins with `header`, and locks it for this process' life.
    /// It appears under its name complete, or not at all.
    pub fn create(path: &Path, header: &[u8]) -> io::Result<Self> {
        let mut key = [0; KEY];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| io::Error::other("no random numbers"))?;
        let new = path.with_extension("new");
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&new)?;
        let whole = !on_tmpfs(&file);
        let seal = Sealer { key, whole };
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let made = encode_page(&seal, header)
            .and_then(|page| file.write_all_at(&page, 0))
            .and_then(|()| std::fs::rename(&new, path));
        match made {
            Ok(()) => Ok(Self { file, path: path.to_owned(), seal, header: header.to_vec() }),
            Err(error) => {
                // Nothing was promised on its strength yet.
                let _ = std::fs::remove_file(&new);
                Err(error)
            }
        }
    }

    /// Opens an existing spool file, for a reader or for recovery.
    pub fn open(path: &Path, write: bool) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(write).open(path)?;
        let mut page = vec![0; PAGE];
        let len = read_full(&file, &mut page, 0)?;
        page.truncate(len);
        let (seal, header) =
            parse_page(&page).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a spool file"))?;
        Ok(Self { file, path: path.to_owned(), seal, header })
    }

    /// The container's header, as it stands in the container or is to stand there.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// Whether somebody else, in this process or another, is recording into it.
    pub fn locked_elsewhere(&self) -> bool {
        match rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {
                let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
                false
            }
            Err(error) => error == rustix::io::Errno::WOULDBLOCK,
        }
    }

    /// Locks it for this process' life; false when another records into it.
    pub fn lock(&self) -> bool {
        rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive).is_ok()
    }

    /// Writes one record at `at` in a segment, in one system call. `head` begins with [`RECORD_HEAD`] bytes of room;
    /// what follows there, and `payload`, are the record. An error means that the record does not exist.
    pub fn append(&self, segment: u8, at: usize, number: u64, head: &mut [u8], payload: &[u8]) -> io::Result<usize> {
        let len = (head.len() + payload.len()).saturating_sub(RECORD_HEAD) as u32;
        if let Some((room, _)) = head.split_first_chunk_mut::<RECORD_HEAD>() {
            let (a, b) = room.split_at_mut(8);
            a.copy_from_slice(&number.to_le_bytes());
            b.copy_from_slice(&len.to_le_bytes());
        }
        let record = head.get(RECORD_HEAD..).unwrap_or_default();
        let tag = self.seal.tag(segment, number, len, [record, payload]);
        let parts = [IoSlice::new(head), IoSlice::new(payload), IoSlice::new(&tag)];
        let total = head.len() + payload.len() + TAG;
        loop {
            match rustix::io::pwritev(&self.file, &parts, place(segment, at)) {
                Ok(written) if written == total => return Ok(total),
                // A short write on a local file: it is full. The trailer is missing, so there is no record.
                Ok(_) => return Err(io::ErrorKind::StorageFull.into()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads `out.len()` bytes of a segment from `at` on; returns how many there are.
    pub fn read(&self, segment: u8, at: usize, out: &mut [u8]) -> io::Result<usize> {
        read_full(&self.file, out, place(segment, at))
    }

    /// Walks the sound records of a piece of a segment, beginning with the record `first`.
    pub fn records<'a>(&'a self, segment: u8, bytes: &'a [u8], first: u64) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = bytes;
        (first..).map_while(move |number| {
            let (record, after) = self.record(segment, number, rest)?;
            rest = after;
            Some(record)
        })
    }

    /// The number that a segment's first record claims to have.
    pub fn first_number(&self, segment: u8) -> io::Result<Option<u64>> {
        let mut head = [0; RECORD_HEAD];
        let len = self.read(segment, 0, &mut head)?;
        let used = array::<4>(&head, 8).is_some_and(|len| len != [0; 4]);
        Ok(array(&head, 0).map(u64::from_le_bytes).filter(|_| used && len == RECORD_HEAD))
    }

    /// Gives all memory of drained segments back.
    pub fn truncate(&self) -> io::Result<()> {
        self.file.set_len(PAGE as u64)
    }

    /// Removes the file: everything is in the sealed container.
    pub fn remove(&self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }

    fn record<'a>(&self, segment: u8, number: u64, bytes: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let (head, rest) = bytes.split_at_checked(RECORD_HEAD)?;
        let len = u32::from_le_bytes(array(head, 8)?);
        let (record, rest) = rest.split_at_checked(len as usize)?;
        let (tag, rest) = rest.split_at_checked(TAG)?;
        let sound =
            u64::from_le_bytes(array(head, 0)?) == number && tag == self.seal.tag(segment, number, len, [record, &[]]);
        sound.then_some((record, rest))
    }
}

impl Sealer {
    fn tag(&self, segment: u8, number: u64, len: u32, record: [&[u8]; 2]) -> [u8; TAG] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&[segment]).update(&number.to_le_bytes()).update(&len.to_le_bytes());
        if self.whole {
            record.iter().for_each(|part| _ = hasher.update(part));
        }
        array(hasher.finalize().as_bytes(), 0).unwrap_or_default()
    }
}

/// Whether a file lives in memory, where pages are not written out in an order of their own.
pub fn on_tmpfs(file: &File) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|fs| fs.f_type == TMPFS_MAGIC)
}

/// Reads until `out` is full or the file ends.
pub fn read_full(file: &File, out: &mut [u8], mut at: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at) {
            Ok(0) => break,
            Ok(n) => {
                done += n;
                at += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

fn place(segment: u8, at: usize) -> u64 {
    (PAGE + usize::from(segment) * SEGMENT + at) as u64
}

fn encode_page(seal: &Sealer, header: &[u8]) -> io::Result<Vec<u8>> {
    let mut page = Vec::with_capacity(PAGE);
    page.extend_from_slice(MAGIC);
    page.extend_from_slice(&if seal.whole { FLAG_WHOLE } else { 0 }.to_le_bytes());
    page.extend_from_slice(&seal.key);
    page.extend_from_slice(&(header.len() as u32).to_le_bytes());
    page.extend_from_slice(header);
    let hash = blake3::hash(&page);
    page.extend_from_slice(hash.as_bytes());
    match page.len() <= PAGE {
        true => Ok(page),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "the recording's header is too long")),
    }
}

fn parse_page(page: &[u8]) -> Option<(Sealer, Vec<u8>)> {
    let flags = u32::from_le_bytes(array(page, 8)?);
    let key = array(page, 12)?;
    let len = u32::from_le_bytes(array(page, 12 + KEY)?) as usize;
    let start = 16 + KEY;
    let header = page.get(start..start.checked_add(len)?)?;
    let hash: [u8; 32] = array(page, start + len)?;
    let sound = page.starts_with(MAGIC) && hash == *blake3::hash(page.get(..start + len)?).as_bytes();
    sound.then(|| (Sealer { key, whole: flags & FLAG_WHOLE != 0 }, header.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spool(dir: &Path) -> Spool {
        Spool::create(&dir.join("x.spool"), b"header").unwrap()
    }

    fn append(spool: &Spool, at: usize, number: u64, payload: &[u8]) -> usize {
        at + spool.append(3, at, number, &mut [0; RECORD_HEAD], payload).unwrap()
    }

    fn numbers(spool: &Spool, first: u64) -> Vec<Vec<u8>> {
        let mut bytes = vec![0; SEGMENT];
        let len = spool.read(3, 0, &mut bytes).unwrap();
        spool.records(3, &bytes[..len], first).map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn records_are_walked_until_the_first_that_is_not_sound() {
        let dir = tempfile::tempdir().unwrap();
        let spool = spool(dir.path());
        let mut at = 0;
        for number in 0..5 {
            at = append(&spool, at, number, &[number as u8; 10]);
        }
        assert_eq!(numbers(&spool, 0).len(), 5);
        // The segment is used again: two new records, then stale ones.
        at = append(&spool, 0, 5, &[5; 10]);
        append(&spool, at, 6, &[6; 10]);
        assert_eq!(numbers(&spool, 5), [[5; 10], [6; 10]]);
        assert_eq!(spool.first_number(3).unwrap(), Some(5));
        assert_eq!(spool.first_number(4).unwrap(), None);
        let again = Spool::open(&dir.path().join("x.spool"), false).unwrap();
        assert_eq!(numbers(&again, 5).len(), 2);
        assert!(again.locked_elsewhere());
        drop(spool);
        assert!(!again.locked_elsewhere());
    }

    #[test]
    fn a_torn_record_is_none_wherever_it_is_torn() {
        let dir = tempfile::tempdir().unwrap();
        let spool = spool(dir.path());
        let one = append(&spool, 0, 0, b"first");
        let two = append(&spool, one, 1, b"second");
        for cut in one..two {
            spool.file.set_len(place(3, cut)).unwrap();
            assert_eq!(numbers(&spool, 0), [b"first"]);
            append(&spool, one, 1, b"second");
        }
        assert_eq!(numbers(&spool, 0).len(), 2);
    }

    #[test]
    fn bytes_in_a_payload_cannot_pose_as_a_record() {
        let dir = tempfile::tempdir().unwrap();
        let (spool, foreign) = (spool(dir.path()), Spool::create(&dir.path().join("y.spool"), b"header").unwrap());
        // What an attacker can do: a whole record, made with a key of their own, as channel data at the right place.
        foreign.append(3, 0, 1, &mut [0; RECORD_HEAD], b"forged").unwrap();
        let mut forged = vec![0; RECORD_OVERHEAD + 6];
        foreign.read(3, 0, &mut forged).unwrap();
        let forged_at = append(&spool, 0, 7, &[&[0; 30], &forged[..]].concat()) - TAG - forged.len();
        // The segment is used again, and the last sound record ends exactly where the stale forgery begins.
        let end = append(&spool, 0, 0, &[0; 14]);
        assert_eq!(end, forged_at);
        assert_eq!(numbers(&spool, 0).len(), 1);
        // Wherever a walk for record 1 is begun, nothing is found.
        let mut bytes = vec![0; 200];
        let len = spool.read(3, 0, &mut bytes).unwrap();
        for from in 0..len {
            assert_eq!(spool.records(3, &bytes[from..len], 1).count(), 0);
        }
        let mut other = vec![0; 200];
        let len = foreign.read(3, 0, &mut other).unwrap();
        assert_eq!(foreign.records(3, &other[..len], 1).count(), 1);
    }

    #[test]
    fn off_tmpfs_the_payload_is_covered() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = spool(dir.path());
        for (whole, left) in [(true, 0), (false, 1)] {
            spool.seal.whole = whole;
            append(&spool, 0, 0, b"payload");
            spool.file.write_all_at(b"P", place(3, RECORD_HEAD)).unwrap();
            assert_eq!(numbers(&spool, 0).len(), left);
        }
    }
}
