//! Gives every recording that a crash left open its verdict: cuts a torn frame off, appends what the spool holds, seals.
//!
//! Found by the spool directory (a live recording has a spool file until its Seal is written), so a million sealed
//! recordings cost nothing. May be killed at any point and run again: the spool goes last, and what of it is in the
//! container already is told by its numbers.

use std::io;
use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::codec::{self, put_varint};
use super::container::{self, Front, SealVerdict};
use super::error::ReadError;
use super::file::{ContainerFile, Scratch};
use super::observation::{Observation, What};
use super::reader::{Reader, Verdict};
use super::spool::{self, SEGMENT, Spool};
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

impl Recordings {
    /// Closes all recordings that a crash left open. Blocking; call once at the start, before anything is recorded.
    ///
    /// Recordings of another living process on the same directories are left alone. One that cannot be recovered now
    /// (a full disk) keeps its spool for the next start, and is told as `Truncated`.
    pub fn recover(&self) -> Vec<Recovered> {
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
                Some(spool::EXTENSION) => match self.recover_spool(&path) {
                    Ok(found) => recovered.extend(found),
                    Err(error) => tracing::error!(%error, spool = %path.display(), "a spool file cannot be recovered"),
                },
                // It had not come to its name when the process died, so nothing was recorded into it.
                Some("new") if Spool::open(&path, false).is_ok_and(|spool| spool.locked_elsewhere()) => {}
                Some("new") => _ = std::fs::remove_file(&path),
                _ => {}
            }
        }
        recovered
    }

    /// Closes one recording that the book has as live, although [`Recordings::recover`] did not find it: its spool was
    /// in memory and the machine went down. `None` when there is nothing of it, or it is being recorded. Blocking.
    pub fn recover_recording(&self, session: Uuid, recording: Uuid, started: Timestamp) -> Option<Recovered> {
        let settings = &self.shared.settings;
        let spool = spool_path(&settings.spool, recording);
        if Spool::open(&spool, false).is_ok_and(|spool| spool.locked_elsewhere()) {
            return None;
        }
        let path = container_path(&settings.dir, started, session, recording);
        close(&path, &spool).inspect_err(|error| tracing::warn!(%error, %recording, "nothing to recover")).ok()
    }

    fn recover_spool(&self, path: &Path) -> Result<Option<Recovered>, ReadError> {
        let spool = Spool::open(path, true)?;
        if !spool.lock() {
            return Ok(None);
        }
        let Front::Whole(header, _) = container::parse_header(spool.header())? else {
            return Err(container::Damage::Header.into());
        };
        let dir = &self.shared.settings.dir;
        let container = container_path(dir, header.started, header.session, header.recording);
        begin(&container, spool.header())?;
        let recovered = close(&container, path)?;
        match recovered.state {
            RecordingState::Live => {}
            // Its chain cannot be gone on with; what was spooled stays beside it as evidence.
            RecordingState::Damaged => {
                let aside = container.with_extension(spool::EXTENSION);
                std::fs::copy(path, aside)?;
                spool.remove()?;
            }
            RecordingState::Complete | RecordingState::Truncated => spool.remove()?,
        }
        Ok(Some(Recovered {
            state: match recovered.state {
                RecordingState::Live => RecordingState::Truncated,
                state => state,
            },
            ..recovered
        }))
    }
}

/// Makes sure that the container has its header: the crash may have come just before.
fn begin(path: &Path, header: &[u8]) -> io::Result<()> {
    match std::fs::read(path).as_deref() {
        Ok(there) if there.len() < header.len() && header.starts_with(there) => std::fs::remove_file(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        _ => return Ok(()),
    }
    ContainerFile::create(path, header, true).map(drop)
}

/// Reads a recording to its end and seals it, unless it is sealed. The state `Live` means that it could not be sealed.
fn close(path: &Path, spool: &Path) -> Result<Recovered, ReadError> {
    let mut reader = Reader::open(path, spool)?;
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
    let sealed = reader.seal().map(|seal| (seal.verdict, seal.ended));
    let verdict = reader.verdict();
    let state = match (sealed, &verdict) {
        (Some((SealVerdict::Complete, _)), _) => RecordingState::Complete,
        (Some(_), _) => RecordingState::Truncated,
        (None, Verdict::Damaged { .. }) => RecordingState::Damaged,
        (None, _) => match append_and_seal(path, reader, &tail, clock.now) {
            Ok(()) => RecordingState::Truncated,
            Err(error) => {
                tracing::error!(%error, recording = %header.recording, "a recording cannot be sealed");
                RecordingState::Live
            }
        },
    };
    Ok(Recovered {
        session: header.session,
        recording: header.recording,
        state,
        size: std::fs::metadata(path)?.len(),
        ended: sealed.map_or(clock.now, |(_, ended)| ended),
        exit_status,
    })
}

fn append_and_seal(path: &Path, reader: Reader, tail: &[Observation], ended: Timestamp) -> io::Result<()> {
    let mut container = ContainerFile::resume(path, reader.into_resume(), true)?;
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
    container.seal(SealVerdict::Crashed, Some("the gateway stopped without a goodbye".to_owned()), ended)
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
