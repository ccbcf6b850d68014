//! Gives every recording that a crash left open its verdict: cuts a torn frame off, appends what the spool holds, seals.
//!
//! Found by the spool directory (a live recording has a spool file until its Seal is written), so a million sealed
//! recordings cost nothing. May be killed at any point and run again: the spool goes last, and what of it is in the
//! container already is told by its numbers.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::codec::{self, put_varint};
use super::container::{self, Front, Header, SealVerdict};
use super::crypt::FrameKey;
use super::error::ReadError;
use super::file::{self, ContainerFile, Scratch};
use super::keys::Keys;
use super::observation::{Observation, What};
use super::reader::Reader;
use super::spool::{self, SEGMENT, Spool, read_full};
use super::{Recordings, container_path, spool_path};
use crate::store::row::RecordingState;

/// What a recording that was left open turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The session it belongs to.
    pub session: Uuid,
    /// Its id.
    pub recording: Uuid,
    /// `Truncated`, `Damaged`, or `Complete` when the crash came between the Seal and the end.
    pub state: RecordingState,
    /// Bytes of the container.
    pub size: u64,
    /// When it was sealed in good order, else the time of its last observation, on the wall clock.
    pub ended: Timestamp,
    /// The program's exit status, where it had been told.
    pub exit_status: Option<u32>,
}

/// What came of looking for one recording that was left open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// It is closed.
    Closed(Recovered),
    /// There is nothing of it.
    Nothing,
    /// It cannot be told now: it is being recorded, or a file of it cannot be read or written. To be asked again.
    NotNow,
}

impl Recordings {
    /// Closes all recordings that a crash left open, telling `each` before each of them, which may take long. Blocking.
    ///
    /// Recordings of another living process on the same directories are left alone. One that cannot be recovered now
    /// (a full disk) keeps its spool for the next start, and is told as `Truncated`.
    pub fn recover(&self, each: impl Fn()) -> Vec<Recovered> {
        let mut recovered = Vec::new();
        let entries = match std::fs::read_dir(&self.shared.settings.spool) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::error!(%error, "the spool directory cannot be read");
                return recovered;
            }
        };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some(spool::EXTENSION) => {
                    each();
                    match self.recover_spool(&path) {
                        Ok(found) => recovered.extend(found),
                        Err(error) => {
                            tracing::error!(%error, spool = %path.display(), "a spool file cannot be recovered");
                        }
                    }
                }
                // It had not come to its name when the process died, so nothing was recorded into it.
                Some("new") if spool::in_use(&path) => {}
                Some("new") => _ = std::fs::remove_file(&path),
                _ => {}
            }
        }
        recovered
    }

    /// Closes one recording that the book has as live, although [`Recordings::recover`] did not find it: its spool was
    /// in memory and the machine went down, or could not be read then. Blocking.
    pub fn recover_recording(&self, session: Uuid, recording: Uuid, started: Timestamp) -> Recovery {
        let settings = &self.shared.settings;
        let path = container_path(&settings.dir, started, session, recording);
        let spool = spool_path(&settings.spool, recording);
        let found = match self.recover_spool(&spool) {
            Ok(Some(recovered)) => return Recovery::Closed(recovered),
            Ok(None) => return Recovery::NotNow,
            Err(ReadError::NotFound) => close(&path, None, &settings.keys),
            // The spool or the container, from its beginning on. Of the one nothing can be had, nor added to the other.
            Err(ReadError::Damaged(why)) => {
                tracing::error!(%why, %recording, "what a recording was spooled into is kept beside it");
                let closed = close(&path, None, &settings.keys);
                match closed {
                    Ok(_) | Err(ReadError::Damaged(_)) => set_aside(&spool, &path).map_err(ReadError::Io).and(closed),
                    _ => closed,
                }
            }
            Err(error) => Err(error),
        };
        match found {
            Ok(closed) => Recovery::Closed(closed.told()),
            Err(ReadError::NotFound) => Recovery::Nothing,
            Err(error @ ReadError::UnknownKey(_)) => {
                tracing::error!(%error, %recording, "a recording cannot be sealed");
                Recovery::Closed(unread(session, recording, started, RecordingState::Truncated, &path))
            }
            Err(ReadError::Damaged(why)) => {
                tracing::error!(%why, %recording, "a recording is damaged");
                Recovery::Closed(unread(session, recording, started, RecordingState::Damaged, &path))
            }
            Err(ReadError::Io(error)) => {
                tracing::error!(%error, %recording, "a recording cannot be recovered now");
                Recovery::NotNow
            }
        }
    }

    fn recover_spool(&self, path: &Path) -> Result<Option<Recovered>, ReadError> {
        if spool::in_use(path) {
            return Ok(None);
        }
        let settings = &self.shared.settings;
        let Front::Whole(header, _) = container::parse_header(&spool::header(path)?)? else {
            return Err(container::Damage::Header.into());
        };
        let Header { session, recording, started, .. } = header;
        let container = container_path(&settings.dir, started, session, recording);
        let spool = match Spool::open(path, true, &settings.keys) {
            // The spool stays as it is: a later start, with the key, makes the recording whole.
            Err(error @ ReadError::UnknownKey(_)) => {
                tracing::error!(%error, %recording, "a recording cannot be completed; its spool is kept");
                return Ok(Some(unread(session, recording, started, RecordingState::Truncated, &container)));
            }
            opened => opened?,
        };
        if !spool.lock() {
            return Ok(None);
        }
        begin(&container, spool.header())?;
        let spool = Arc::new(spool);
        let closed = close(&container, Some(Arc::clone(&spool)), &settings.keys)?;
        match closed.recovered.state {
            RecordingState::Live => {}
            // Its chain cannot be gone on with; what was spooled stays beside it as evidence.
            RecordingState::Damaged => set_aside(path, &container)?,
            RecordingState::Complete | RecordingState::Truncated if spool.end()? <= closed.observations => {
                spool.remove()?
            }
            // Promised, and not to be added behind a Seal.
            RecordingState::Complete | RecordingState::Truncated => {
                tracing::error!(%recording, "a recording was sealed without all of its spool, which is kept beside it");
                set_aside(path, &container)?;
            }
        }
        Ok(Some(closed.told()))
    }
}

/// Makes sure that the container has its header: the crash may have come just before.
fn begin(path: &Path, header: &[u8]) -> io::Result<()> {
    match File::open(path) {
        Ok(there) => {
            // A container may be larger than memory: never more of it than a header.
            let mut front = vec![0; header.len()];
            let len = read_full(&there, &mut front, 0)?;
            front.truncate(len);
            if len == header.len() || !header.starts_with(&front) {
                return Ok(());
            }
            std::fs::remove_file(path)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    file::begin(path, header, true).map(drop)
}

/// Moves a spool beside its container. The copy is durable before the spool goes, whose memory does not outlive the
/// machine.
fn set_aside(spool: &Path, container: &Path) -> io::Result<()> {
    let aside = container.with_extension(spool::EXTENSION);
    std::fs::copy(spool, &aside)?;
    file::sync_with_parents(&File::open(&aside)?, &aside)?;
    std::fs::remove_file(spool)
}

/// What can be told of a recording whose key is not here, or that is damaged from its beginning on.
fn unread(session: Uuid, recording: Uuid, started: Timestamp, state: RecordingState, container: &Path) -> Recovered {
    let size = std::fs::metadata(container).map_or(0, |meta| meta.len());
    Recovered { session, recording, state, size, ended: started, exit_status: None }
}

/// A recording after its end.
struct Closed {
    recovered: Recovered,
    /// How many observations it was sealed with.
    observations: u64,
}

impl Closed {
    /// One that could not be sealed is as good as cut: its last state is for a later start.
    fn told(self) -> Recovered {
        let state = match self.recovered.state {
            RecordingState::Live => RecordingState::Truncated,
            state => state,
        };
        Recovered { state, ..self.recovered }
    }
}

/// Reads a recording to its end and seals it, unless it is sealed. The state `Live` means that it could not be sealed.
/// The spool is the one whose lock is held here: opened once, it is either read or the recording is not closed.
fn close(path: &Path, spool: Option<Arc<Spool>>, keys: &Keys) -> Result<Closed, ReadError> {
    let mut reader = Reader::with_spool(path, spool, keys)?;
    let header = reader.header().clone();
    let mut clock = Clock::new(header.started);
    let (mut tail, mut exit_status) = (Vec::new(), None);
    while let Some(observation) = reader.next() {
        let observation = observation?;
        clock.see(&observation);
        if let What::ExitStatus { status } = observation.what {
            exit_status = Some(status);
        }
        // At most as much as a spool holds.
        if reader.spooled() {
            tail.push(observation);
        }
    }
    let sealed = reader.seal().map(|seal| (seal.verdict, seal.ended, seal.observations));
    let (state, observations) = match sealed {
        Some((SealVerdict::Complete, _, observations)) => (RecordingState::Complete, observations),
        Some((SealVerdict::Cut | SealVerdict::Crashed, _, observations)) => (RecordingState::Truncated, observations),
        None if reader.damaged() => (RecordingState::Damaged, 0),
        None => match append_and_seal(path, reader, &tail, clock.now) {
            Ok(observations) => (RecordingState::Truncated, observations),
            Err(error) => {
                tracing::error!(%error, recording = %header.recording, "a recording cannot be sealed");
                (RecordingState::Live, 0)
            }
        },
    };
    let recovered = Recovered {
        session: header.session,
        recording: header.recording,
        state,
        size: std::fs::metadata(path)?.len(),
        ended: sealed.map_or(clock.now, |(_, ended, _)| ended),
        exit_status,
    };
    Ok(Closed { recovered, observations })
}

/// How many observations are in it then.
fn append_and_seal(path: &Path, reader: Reader, tail: &[Observation], ended: Timestamp) -> io::Result<u64> {
    let (resume, key) = reader.into_resume();
    let sealer = key.map(FrameKey::sealer).transpose()?;
    let mut container = ContainerFile::resume(path, resume, sealer, true)?;
    let mut scratch = Scratch::new()?;
    let mut rest = tail.iter().peekable();
    while let Some(first) = rest.peek() {
        let base = micros(first.at);
        let (mut last, mut count) = (base, 0);
        scratch.block.clear();
        put_varint(&mut scratch.block, base);
        while let Some(observation) = rest.next_if(|_| scratch.block.len() < SEGMENT) {
            let at = micros(observation.at);
            let payload = codec::encode(&observation.what, at.saturating_sub(last), &mut scratch.block);
            scratch.block.extend_from_slice(payload);
            (last, count) = (at.max(last), count + 1);
        }
        container.append(&mut scratch, base, count)?;
    }
    container.seal(SealVerdict::Crashed, Some("the gateway stopped without a goodbye".to_owned()), ended)?;
    Ok(container.observations())
}

/// Tells the wall clock's time of observations.
struct Clock {
    base: Timestamp,
    base_at: Duration,
    now: Timestamp,
}

impl Clock {
    fn new(started: Timestamp) -> Self {
        Self { base: started, base_at: Duration::ZERO, now: started }
    }

    fn see(&mut self, observation: &Observation) {
        if let What::ClockStep { wall_us } = observation.what
            && let Ok(wall) = Timestamp::from_microsecond(wall_us)
        {
            (self.base, self.base_at) = (wall, observation.at);
        }
        let since = SignedDuration::try_from(observation.at.saturating_sub(self.base_at)).unwrap_or_default();
        self.now = self.base.saturating_add(since).unwrap_or(self.base);
    }
}

fn micros(at: Duration) -> u64 {
    u64::try_from(at.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The most memory that this process has had, in bytes.
    fn peak() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    #[test]
    fn a_large_container_is_not_read_to_look_at_its_header() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large.gsr");
        File::create(&path).unwrap().set_len(1 << 30).unwrap();
        let before = peak();
        begin(&path, &[0; 400]).unwrap();
        assert!(peak() - before < 1 << 29, "{} bytes more", peak() - before);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 30, "what is there is left alone");
    }

    #[test]
    fn a_header_that_is_there_in_part_is_written_anew_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.gsr");
        for there in [None, Some(&b""[..]), Some(b"hea"), Some(b"header"), Some(b"header and more"), Some(b"xyz")] {
            let _ = std::fs::remove_file(&path);
            if let Some(there) = there {
                std::fs::write(&path, there).unwrap();
            }
            begin(&path, b"header").unwrap();
            let kept = there.filter(|there| !b"header".starts_with(there)).unwrap_or(b"header");
            assert_eq!(std::fs::read(&path).unwrap(), kept);
        }
    }
}
