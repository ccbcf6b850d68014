//! How recording goes: what was recorded, what waits for the disk, how much room is left. For metrics and readiness.

use std::fs::File;
use std::path::Path;
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{Access, access, fstatvfs};

use super::Recordings;
use super::observation::{Direction, What};
use super::spool::{SEGMENT, SEGMENTS};

/// What was recorded and what waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Bytes from clients since the start.
    pub input: u64,
    /// Bytes for clients since the start.
    pub output: u64,
    /// Recordings that are being written.
    pub live: u64,
    /// Bytes in spools that are not in a container yet.
    pub pending: u64,
    /// How long the oldest of them has been waiting.
    pub pending_age: Duration,
    /// Free bytes where spools are; 0 when that cannot be told.
    pub spool_free: u64,
    /// Free bytes where containers are; 0 when that cannot be told.
    pub free: u64,
}

/// What keeps a recording from beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The directory of the containers cannot be written to.
    Unwritable,
    /// There is not more left than `keep_free`.
    Full,
    /// The spool's directory cannot be written to, or has no room for one more.
    Spool,
}

/// Bytes recorded since the start.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    input: AtomicU64,
    output: AtomicU64,
}

impl Recorded {
    pub(super) fn count(&self, what: &What) {
        if let What::Bytes { direction, data, .. } = what {
            let counter = match direction {
                Direction::Input => &self.input,
                Direction::Output => &self.output,
            };
            counter.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
    }
}

impl Recordings {
    /// How recording goes now. Asks the file systems, which blocks.
    pub fn vitals(&self) -> Vitals {
        let shared = &self.shared;
        let writers: Vec<_> = shared.live().values().filter_map(Weak::upgrade).collect();
        let mut vitals = Vitals {
            input: shared.recorded.input.load(Ordering::Relaxed),
            output: shared.recorded.output.load(Ordering::Relaxed),
            live: writers.len() as u64,
            spool_free: free(&shared.settings.spool).unwrap_or(0),
            free: free(&shared.settings.dir).unwrap_or(0),
            ..Vitals::default()
        };
        for writer in writers {
            let (bytes, age) = writer.pending();
            vitals.pending += bytes;
            vitals.pending_age = vitals.pending_age.max(age);
        }
        vitals
    }

    /// What keeps recordings from beginning now. Asks the file systems, which blocks.
    pub fn troubles(&self) -> Vec<Trouble> {
        let settings = &self.shared.settings;
        let room = u64::from(SEGMENTS) * SEGMENT as u64;
        let spool = is_writable(&settings.spool) && free(&settings.spool).is_some_and(|free| free >= room);
        let full = free(&settings.dir).is_some_and(|free| free <= settings.keep_free);
        [(!is_writable(&settings.dir), Trouble::Unwritable), (full, Trouble::Full), (!spool, Trouble::Spool)]
            .into_iter()
            .filter_map(|(is, trouble)| is.then_some(trouble))
            .collect()
    }
}

fn is_writable(dir: &Path) -> bool {
    dir.is_dir() && access(dir, Access::WRITE_OK).is_ok()
}

fn free(dir: &Path) -> Option<u64> {
    let fs = fstatvfs(File::open(dir).ok()?).ok()?;
    Some(fs.f_bavail.saturating_mul(fs.f_frsize))
}
