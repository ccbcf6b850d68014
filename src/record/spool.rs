//! The spool file of one live recording: where an observation is safe from a SIGKILL before it is forwarded.
//!
//! Normally on tmpfs: a write there never waits for a disk, and its pages outlive the process. A record is encrypted on
//! its way into the one buffer that one `pwrite` takes, so encryption costs no copy more than the write's own. Its tag
//! proves that all of it arrived, in whatever order a disk keeps pages, and is keyed, so that neither a stale record nor
//! bytes that an attacker placed in a payload can pose as one. The key is in the header, wrapped: recovery after a
//! SIGKILL needs the gateway's key and nothing else.
//!
//! ```text
//! file    = page (4096 bytes) ‖ segment*8 (256 KiB each)
//! page    = "GSSPOOL2" ‖ length u32 ‖ container header ‖ BLAKE3 of all that (32)
//! segment = (number u64 ‖ failures u32 ‖ length u32 ‖ ciphertext ‖ tag (16))*     numbers go up by one inside a segment
//! ```

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use super::container::{self, Damage, Front, array};
use super::crypt::{DataKey, RecordKey, Refused, TAG};
use super::error::ReadError;
use super::keys::Keys;

/// Segments of a spool: what of it is full is drained while the next one fills.
pub const SEGMENTS: u8 = 8;
/// Bytes of a segment.
pub const SEGMENT: usize = 256 * 1024;
/// Bytes around a record.
pub const RECORD_OVERHEAD: usize = RECORD_HEAD + TAG;
/// How a spool file's name ends.
pub const EXTENSION: &str = "spool";

const PAGE: usize = 4096;
const MAGIC: &[u8; 8] = b"GSSPOOL2";
const PREFIX: usize = 12;
/// Bytes before a record.
const RECORD_HEAD: usize = 16;
/// How long others may go on looking at a spool file that is being made: a look is two system calls.
const LOOKED_AT: Duration = Duration::from_secs(10);
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

/// An open spool file.
pub struct Spool {
    file: File,
    path: PathBuf,
    key: RecordKey,
    /// Writes that failed: part of a record's nonce, because what failed may have arrived in part, and the same number
    /// is written again with something else in it. Only the process that made the file writes records.
    failures: AtomicU32,
    header: Vec<u8>,
}

/// What a walk over records found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// Sound records.
    pub count: u32,
    /// The bytes they take in the segment.
    pub framed: usize,
}

/// What stands before a record.
#[derive(Clone, Copy)]
struct RecordHead {
    number: u64,
    failures: u32,
    len: u32,
}

impl Spool {
    /// Creates the spool file of a recording whose container begins with `header`, and locks it for this process' life.
    /// It appears under its name complete, or not at all.
    pub fn create(path: &Path, header: &[u8], data: &DataKey) -> io::Result<Self> {
        let page = encode_page(header)?;
        let deadline = Instant::now() + LOOKED_AT;
        // Between its making and its locking, another process that recovers looks at it: for that moment it has the
        // lock, or it took the file for a dead one's and removed it. Nothing was promised on its strength yet.
        let looked_at = |error: &io::Error| match error.kind() {
            io::ErrorKind::WouldBlock => true,
            io::ErrorKind::NotFound => path.parent().is_some_and(Path::is_dir),
            _ => false,
        };
        loop {
            match Self::make(path, header, data, &page) {
                Err(error) if looked_at(&error) && Instant::now() < deadline => std::thread::yield_now(),
                made => return made,
            }
        }
    }

    fn make(path: &Path, header: &[u8], data: &DataKey, page: &[u8]) -> io::Result<Self> {
        let key = data.records()?;
        let new = path.with_extension("new");
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&new)?;
        let made = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(io::Error::from)
            .and_then(|()| file.write_all_at(page, 0))
            .and_then(|()| std::fs::rename(&new, path));
        match made {
            Ok(()) => {
                Ok(Self { file, path: path.to_owned(), key, failures: AtomicU32::new(0), header: header.to_vec() })
            }
            Err(error) => {
                // Nothing was promised on its strength yet.
                let _ = std::fs::remove_file(&new);
                Err(error)
            }
        }
    }

    /// Opens an existing spool file, for a reader or for recovery.
    pub fn open(path: &Path, write: bool, keys: &Keys) -> Result<Self, ReadError> {
        let file = OpenOptions::new().read(true).write(write).open(path)?;
        let header = read_header(&file)?;
        let Front::Whole(told, _) = container::parse_header(&header)? else { return Err(Damage::Header.into()) };
        // A spool is always encrypted, whatever somebody wrote into its header.
        let data = keys.unwrap(&told)?.ok_or(Damage::Header)?;
        Ok(Self { file, path: path.to_owned(), key: data.records()?, failures: AtomicU32::new(0), header })
    }

    /// The container's header, as it stands in the container or is to stand there.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// Whether somebody else, in this process or another, is recording into it.
    pub fn locked_elsewhere(&self) -> bool {
        locked(&self.file)
    }

    /// Locks it for this process' life; false when another records into it.
    pub fn lock(&self) -> bool {
        rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive).is_ok()
    }

    /// Writes one record at `at` in a segment, in one system call. The record is `front` and then `payload`; `room` is
    /// kept for its memory. An error means that the record does not exist.
    pub fn append(
        &self,
        segment: u8,
        at: usize,
        number: u64,
        (front, payload): (&[u8], &[u8]),
        room: &mut Vec<u8>,
    ) -> io::Result<usize> {
        let head = RecordHead {
            number,
            failures: self.failures.load(Ordering::Relaxed),
            len: (front.len() + payload.len()) as u32,
        };
        let total = RECORD_OVERHEAD + front.len() + payload.len();
        // Never shortened here: filling it with zeroes each time would cost as much as the encryption.
        if room.len() < total {
            room.resize(total, 0);
        }
        let record = room.get_mut(..total).unwrap_or_default();
        self.encrypt(segment, head, front, payload, record)?;
        loop {
            match rustix::io::pwrite(&self.file, record, place(segment, at)) {
                Ok(written) if written == total => return Ok(total),
                Err(rustix::io::Errno::INTR) => {}
                // A short write on a local file: it is full. The tag is missing, so there is no record.
                failed => {
                    self.failures.fetch_add(1, Ordering::Relaxed);
                    return Err(failed.map_or_else(io::Error::from, |_| io::ErrorKind::StorageFull.into()));
                }
            }
        }
    }

    /// Reads `out.len()` bytes of a segment from `at` on; returns how many there are.
    pub fn read(&self, segment: u8, at: usize, out: &mut [u8]) -> io::Result<usize> {
        read_full(&self.file, out, place(segment, at))
    }

    /// Decrypts the sound records of a piece of a segment, beginning with the record `first`, and appends them to `out`.
    pub fn gather(&self, segment: u8, bytes: &[u8], first: u64, out: &mut Vec<u8>) -> Walked {
        let (mut walked, mut rest, start) = (Walked::default(), bytes, out.len());
        let mut end = start;
        // At once, because each record's share is overwritten anyhow.
        out.resize(start + bytes.len(), 0);
        for number in first.. {
            let Some((len, after)) = self.record(segment, number, rest, out.get_mut(end..).unwrap_or_default()) else {
                break;
            };
            (rest, end, walked.count) = (after, end + len, walked.count + 1);
        }
        out.truncate(end);
        walked.framed = bytes.len() - rest.len();
        walked
    }

    /// The number that a segment's first record claims to have.
    pub fn first_number(&self, segment: u8) -> io::Result<Option<u64>> {
        let mut head = [0; RECORD_HEAD];
        let len = self.read(segment, 0, &mut head)?;
        let head = RecordHead::parse(&head).filter(|head| head.len != 0 && len == RECORD_HEAD);
        Ok(head.map(|head| head.number))
    }

    /// The number after the newest sound record's, wherever it stands; 0 when there is none.
    pub fn end(&self) -> io::Result<u64> {
        let (mut bytes, mut out, mut end) = (vec![0; SEGMENT], Vec::new(), 0);
        for segment in 0..SEGMENTS {
            let Some(first) = self.first_number(segment)? else { continue };
            let len = self.read(segment, 0, &mut bytes)?;
            out.clear();
            let walked = self.gather(segment, bytes.get(..len).unwrap_or_default(), first, &mut out);
            if walked.count > 0 {
                end = end.max(first.saturating_add(u64::from(walked.count)));
            }
        }
        Ok(end)
    }

    /// Gives all memory of drained segments back.
    pub fn truncate(&self) -> io::Result<()> {
        self.file.set_len(PAGE as u64)
    }

    /// Removes the file: everything is in the sealed container.
    pub fn remove(&self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }

    fn encrypt(&self, segment: u8, head: RecordHead, front: &[u8], payload: &[u8], out: &mut [u8]) -> io::Result<()> {
        let (head_place, rest) = out.split_at_mut_checked(RECORD_HEAD).ok_or(Refused)?;
        let (front_place, rest) = rest.split_at_mut_checked(front.len()).ok_or(Refused)?;
        head_place.copy_from_slice(&head.bytes());
        front_place.copy_from_slice(front);
        Ok(self.key.seal((head.number, head.failures), &head.aad(segment), front_place, payload, rest)?)
    }

    /// Decrypts the record at the front of `bytes` to the front of `out`; its length, and what follows it.
    fn record<'a>(&self, segment: u8, number: u64, bytes: &'a [u8], out: &mut [u8]) -> Option<(usize, &'a [u8])> {
        let (head, rest) = bytes.split_at_checked(RECORD_HEAD)?;
        let head = RecordHead::parse(head).filter(|head| head.number == number)?;
        let len = head.len as usize;
        let (text, rest) = rest.split_at_checked(len)?;
        let (tag, rest) = rest.split_at_checked(TAG)?;
        let out = out.get_mut(..len)?;
        self.key.open((number, head.failures), &head.aad(segment), text, tag, out).ok()?;
        Some((len, rest))
    }
}

impl RecordHead {
    fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            number: u64::from_le_bytes(array(bytes, 0)?),
            failures: u32::from_le_bytes(array(bytes, 8)?),
            len: u32::from_le_bytes(array(bytes, 12)?),
        })
    }

    fn bytes(self) -> [u8; RECORD_HEAD] {
        let mut out = [0; RECORD_HEAD];
        let number = self.number.to_le_bytes().into_iter();
        let all = number.chain(self.failures.to_le_bytes()).chain(self.len.to_le_bytes());
        out.iter_mut().zip(all).for_each(|(place, byte)| *place = byte);
        out
    }

    /// What a record's tag covers beside the record: that it stands in this segment, under this head.
    fn aad(self, segment: u8) -> [u8; RECORD_HEAD + 1] {
        let mut out = [segment; RECORD_HEAD + 1];
        out.iter_mut().zip(self.bytes()).for_each(|(place, byte)| *place = byte);
        out
    }
}

/// Whether a spool file, or one that is being made, is somebody's who lives, or may be: it is not when it is not there or
/// its lock could be had. Needs no key.
pub fn in_use(path: &Path) -> bool {
    match File::open(path) {
        Ok(file) => locked(&file),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// The header in a spool file, without a key.
pub fn header(path: &Path) -> Result<Vec<u8>, ReadError> {
    read_header(&File::open(path)?)
}

fn read_header(file: &File) -> Result<Vec<u8>, ReadError> {
    let mut page = vec![0; PAGE];
    let len = read_full(file, &mut page, 0)?;
    page.truncate(len);
    Ok(parse_page(&page).ok_or(Damage::Header)?)
}

fn locked(file: &File) -> bool {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {
            let _ = rustix::fs::flock(file, FlockOperation::Unlock);
            false
        }
        // Whatever else keeps the lock from being had: that it is free is not known.
        Err(_) => true,
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

fn encode_page(header: &[u8]) -> io::Result<Vec<u8>> {
    let mut page = Vec::with_capacity(PAGE);
    page.extend_from_slice(MAGIC);
    page.extend_from_slice(&(header.len() as u32).to_le_bytes());
    page.extend_from_slice(header);
    let hash = blake3::hash(&page);
    page.extend_from_slice(hash.as_bytes());
    match page.len() <= PAGE {
        true => Ok(page),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "the recording's header is too long")),
    }
}

fn parse_page(page: &[u8]) -> Option<Vec<u8>> {
    let len = u32::from_le_bytes(array(page, 8)?) as usize;
    let end = PREFIX.checked_add(len)?;
    let header = page.get(PREFIX..end)?;
    let hash: [u8; 32] = array(page, end)?;
    let sound = page.starts_with(MAGIC) && hash == *blake3::hash(page.get(..end)?).as_bytes();
    sound.then(|| header.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::testing::sealed_header;

    struct Made {
        dir: tempfile::TempDir,
        keys: Keys,
        spool: Spool,
    }

    fn made() -> Made {
        let dir = tempfile::tempdir().unwrap();
        let (keys, data, header) = sealed_header();
        let spool = Spool::create(&dir.path().join("x.spool"), &header, &data).unwrap();
        Made { dir, keys, spool }
    }

    fn append(spool: &Spool, at: usize, number: u64, payload: &[u8]) -> usize {
        at + spool.append(3, at, number, (b"front", payload), &mut Vec::new()).unwrap()
    }

    fn records(spool: &Spool, first: u64) -> (Vec<u8>, u32) {
        let mut bytes = vec![0; SEGMENT];
        let len = spool.read(3, 0, &mut bytes).unwrap();
        let mut out = b"before".to_vec();
        let walked = spool.gather(3, &bytes[..len], first, &mut out);
        assert!(walked.framed <= len);
        (out.strip_prefix(b"before").unwrap().to_vec(), walked.count)
    }

    #[test]
    fn records_are_walked_until_the_first_that_is_not_sound() {
        let Made { dir, keys, spool } = made();
        let mut at = 0;
        for number in 0..5 {
            at = append(&spool, at, number, &[number as u8; 10]);
        }
        assert_eq!((records(&spool, 0).1, spool.end().unwrap()), (5, 5));
        // The segment is used again: two new records, then stale ones.
        at = append(&spool, 0, 5, b"five");
        append(&spool, at, 6, b"six");
        assert_eq!(records(&spool, 5), (b"frontfivefrontsix".to_vec(), 2));
        assert_eq!((spool.first_number(3).unwrap(), spool.end().unwrap()), (Some(5), 7));
        assert_eq!(spool.first_number(4).unwrap(), None);
        let path = dir.path().join("x.spool");
        let again = Spool::open(&path, false, &keys).unwrap();
        assert_eq!(records(&again, 5).1, 2);
        assert!(again.locked_elsewhere() && in_use(&path));
        drop(spool);
        assert!(!again.locked_elsewhere() && !in_use(&path));
    }

    #[test]
    fn a_spool_is_made_while_somebody_looks_at_it_and_leaves_nothing_when_it_is_not() {
        use std::sync::atomic::AtomicBool;

        let dir = tempfile::tempdir().unwrap();
        let (path, over) = (dir.path().join("x.spool"), AtomicBool::new(false));
        let (_, data, header) = sealed_header();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    in_use(&path.with_extension("new"));
                }
            });
            let made: Vec<_> = (0..3000).map(|_| Spool::create(&path, &header, &data).map(drop)).collect();
            over.store(true, Ordering::Relaxed);
            assert!(made.iter().all(Result::is_ok), "{:?}", made.iter().find(|made| made.is_err()));
        });
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir_all(path.join("in the way")).unwrap();
        assert!(Spool::create(&path, &header, &data).is_err());
        assert!(!path.with_extension("new").exists());
    }

    #[test]
    fn a_spool_that_cannot_be_opened_may_be_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.spool");
        assert!(!in_use(&path));
        std::os::unix::fs::symlink(&path, &path).unwrap();
        assert!(in_use(&path));
    }

    #[test]
    fn nothing_of_a_record_can_be_read_without_the_key() {
        let Made { dir, spool, .. } = made();
        append(&spool, 0, 0, b"s3cret on its way");
        let bytes = std::fs::read(dir.path().join("x.spool")).unwrap();
        assert!(bytes.len() > PAGE && !bytes.windows(6).any(|piece| piece == b"s3cret" || piece == b"front"));
        let others = sealed_header().0;
        let opened = Spool::open(&dir.path().join("x.spool"), false, &others);
        assert!(matches!(opened, Err(ReadError::UnknownKey(_))));
    }

    #[test]
    fn a_torn_record_is_none_wherever_it_is_torn() {
        let Made { spool, dir: _dir, .. } = made();
        let one = append(&spool, 0, 0, b"first");
        let two = append(&spool, one, 1, b"second");
        for cut in one..two {
            spool.file.set_len(place(3, cut)).unwrap();
            assert_eq!(records(&spool, 0), (b"frontfirst".to_vec(), 1));
            append(&spool, one, 1, b"second");
        }
        assert_eq!(records(&spool, 0).1, 2);
    }

    #[test]
    fn bytes_in_a_payload_cannot_pose_as_a_record() {
        let (Made { spool, dir: _dir, .. }, foreign) = (made(), made().spool);
        // What an attacker can do: a whole record, made with a key of their own, as channel data at the right place. It
        // would have to come out of the encryption as it went in, too, so here it is written behind the cipher's back.
        foreign.append(3, 0, 1, (b"", b"forged"), &mut Vec::new()).unwrap();
        let mut forged = vec![0; RECORD_OVERHEAD + 6];
        foreign.read(3, 0, &mut forged).unwrap();
        let end = append(&spool, 0, 0, &[0; 14]);
        spool.file.write_all_at(&forged, place(3, end)).unwrap();
        assert_eq!(records(&spool, 0).1, 1);
        // Wherever a walk for record 1 is begun, nothing is found.
        let mut bytes = vec![0; 200];
        let len = spool.read(3, 0, &mut bytes).unwrap();
        for from in 0..len {
            assert_eq!(spool.gather(3, &bytes[from..len], 1, &mut Vec::new()).count, 0);
        }
        let mut other = vec![0; 200];
        let len = foreign.read(3, 0, &mut other).unwrap();
        assert_eq!(foreign.gather(3, &other[..len], 1, &mut Vec::new()).count, 1);
    }

    #[test]
    fn a_record_changed_anywhere_or_moved_is_none() {
        let Made { spool, dir: _dir, .. } = made();
        let end = append(&spool, 0, 0, b"payload");
        let mut whole = vec![0; end];
        spool.read(3, 0, &mut whole).unwrap();
        for at in 0..end {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert_eq!(spool.gather(3, &changed, 0, &mut Vec::new()), Walked::default(), "{at}");
        }
        assert_eq!(spool.gather(3, &whole, 0, &mut Vec::new()), Walked { count: 1, framed: end });
        assert_eq!(spool.gather(4, &whole, 0, &mut Vec::new()).count, 0, "another segment");
    }

    #[test]
    fn after_a_failed_write_the_same_number_has_another_nonce() {
        let Made { mut spool, dir: _dir, .. } = made();
        let full = OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
        let disk = std::mem::replace(&mut spool.file, full);
        let mut torn = Vec::new();
        assert!(spool.append(3, 0, 0, (b"", &[0; 40]), &mut torn).is_err());
        spool.file = disk;
        let mut kept = Vec::new();
        spool.append(3, 0, 0, (b"", &[0; 40]), &mut kept).unwrap();
        assert_ne!(torn[RECORD_HEAD..][..40], kept[RECORD_HEAD..][..40], "one key stream over two texts");
        assert_eq!(records(&spool, 0), (vec![0; 40], 1));
    }
}
