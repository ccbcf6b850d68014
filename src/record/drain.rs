//! The drain job: moves a recording's spool into its container, and seals it at the end. Blocking: runs on a blocking
//! thread, one at a time per recording, and is the only thing that touches the recording's disk.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::codec::put_varint;
use super::container::SealVerdict;
use super::error::RecordingLost;
use super::file::{ContainerFile, Scratch};
use super::fresh::Block;
use super::observation::What;
use super::writer::{Ending, Finished, Run, Step, Writer};
use crate::store::row::RecordingState;

/// A step of the wall clock smaller than this is none.
const CLOCK_STEP: Duration = Duration::from_secs(1);
/// The share of the disk that one recording may fill: as long as a quarter of its own size is free beside the reserve. So
/// the largest one ends first. Sizes beyond this count no further.
const SHARE_CAP: u64 = 1 << 30;

impl Writer {
    /// Drains until there is nothing to do. Started by `kick` only, with `state.job` set.
    pub(super) fn drain(self: &Arc<Self>) {
        let mut bell = Bell(Some(self));
        let mut container = self.container.lock().unwrap_or_else(PoisonError::into_inner);
        self.note_clock();
        loop {
            let (step, fresh) = {
                let mut state = self.lock();
                let step = state.next_step();
                if matches!(step, Step::Rest) {
                    if state.all_saved() && state.lost.is_none() {
                        // Under the lock, because the next record goes to the beginning. Failing only keeps memory.
                        let _ = self.spool.truncate();
                        state.rest();
                    }
                    state.job = false;
                }
                // In the same moment as the run, so that both end at the same record.
                let fresh = match &step {
                    Step::Save(run) => state.fresh.take(run.segment, run.first, run.base_us),
                    _ => None,
                };
                (step, fresh)
            };
            let done = match step {
                Step::Rest => break,
                Step::Save(run) => self.save(&mut container, run, fresh),
                Step::Seal(ending) => self.seal(&mut container, ending),
            };
            if let Err(why) = done {
                self.stop(why);
                break;
            }
        }
        bell.0 = None;
    }

    fn save(
        self: &Arc<Self>,
        container: &mut ContainerFile,
        run: Run,
        fresh: Option<Block>,
    ) -> Result<(), RecordingLost> {
        let mut scratch = self.shared.scratch()?;
        let count = match fresh {
            Some(fresh) => {
                if cfg!(debug_assertions) {
                    let count = self.gather(&mut scratch, run)?;
                    assert!(count == fresh.count && scratch.block == fresh.bytes, "not what the spool holds");
                }
                scratch.block = fresh.bytes;
                fresh.count
            }
            None => self.gather(&mut scratch, run)?,
        };
        let (free, reserve) = (container.free()?, self.shared.settings.keep_free);
        if !may_append(free, reserve, container.len(), scratch.block.len() as u64, run.last) {
            return Err(RecordingLost::Full);
        }
        let bytes = container.append(&mut scratch, run.base_us, count)?;
        self.shared.give_back(scratch);
        let within = self.budget.spend(bytes);
        let mut state = self.lock();
        state.saved(run, count, container.len());
        // What is promised is saved; from here on nothing more is taken.
        if let Err(limit) = within
            && state.ending.is_none()
        {
            self.failed(&mut state, limit);
        }
        self.changed.send_replace(());
        Ok(())
    }

    /// Reads a run back from the spool and decrypts it into `scratch.block`; returns the number of records.
    fn gather(&self, scratch: &mut Scratch, run: Run) -> io::Result<u32> {
        let len = run.to.saturating_sub(run.from);
        scratch.spool.resize(len, 0);
        scratch.block.clear();
        put_varint(&mut scratch.block, run.base_us);
        let read = self.spool.read(run.segment, run.from, &mut scratch.spool)?;
        let walked = self.spool.gather(run.segment, &scratch.spool, run.first, &mut scratch.block);
        match read == len && walked.framed == len {
            true => Ok(walked.count),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, "the spool was changed by somebody else")),
        }
    }

    fn seal(self: &Arc<Self>, container: &mut ContainerFile, ending: Ending) -> Result<(), RecordingLost> {
        let mut state = self.lock();
        if !self.place_gap(&mut state)? || !state.all_saved() {
            return Ok(());
        }
        let lost = state.lost.clone();
        drop(state);
        let (verdict, recording, reason) = match (ending, lost) {
            (_, Some(lost)) => (SealVerdict::Cut, RecordingState::Truncated, Some(lost.to_string())),
            (Ending::Cut(why), None) => (SealVerdict::Cut, RecordingState::Truncated, Some(why)),
            (Ending::Complete, None) => (SealVerdict::Complete, RecordingState::Complete, None),
        };
        container.seal(verdict, reason, Timestamp::now())?;
        // Should it stay behind, the next start's recovery finds a sealed container and removes it.
        let _ = self.spool.remove();
        self.finished(recording, container.len());
        Ok(())
    }

    /// Writing failed; the job ends. While the recording is being ended there is no later chance, so it stays as it is,
    /// its rest in the spool for the next start's recovery.
    fn stop(self: &Arc<Self>, why: RecordingLost) {
        let mut state = self.lock();
        if state.trouble.is_none() && state.lost.is_none() {
            tracing::error!(recording = %self.id, error = %why, "a recording cannot be written");
        }
        state.job = false;
        let size = state.size;
        if state.ending.is_some() {
            drop(state);
            self.finished(RecordingState::Truncated, size);
        } else {
            self.failed(&mut state, why);
        }
    }

    fn finished(&self, recording: RecordingState, size: u64) {
        self.shared.forget(self.id);
        let mut state = self.lock();
        state.size = size;
        state.job = false;
        state.finished = Some(Finished { state: recording, size });
        self.changed.send_replace(());
        self.grown.send_replace(());
    }

    /// Records a step of the wall clock against the monotonic one.
    fn note_clock(&self) {
        let mut state = self.lock();
        let wall = Timestamp::now().as_microsecond();
        let expected = self.started.as_microsecond().saturating_add(self.origin.elapsed().as_micros() as i64);
        let open = state.ending.is_none() && state.lost.is_none();
        if open && let Some(offset) = clock_step(wall, expected, state.wall_offset_us) {
            // With no room for it now, the next job sees the same step.
            if let Ok(Some(_)) = self.place(&mut state, &What::ClockStep { wall_us: wall }) {
                state.wall_offset_us = offset;
            }
        }
    }
}

/// Rings when a job dies of a panic: its callers must not wait for it.
struct Bell<'a>(Option<&'a Arc<Writer>>);

impl Drop for Bell<'_> {
    fn drop(&mut self) {
        if let Some(writer) = self.0 {
            writer.stop(RecordingLost::Io("the recorder failed".to_owned()));
        }
    }
}

/// Whether a recording of `own` bytes may grow by `more`. Its last piece may use half of what is kept free.
pub(super) fn may_append(free: u64, keep_free: u64, own: u64, more: u64, last: bool) -> bool {
    let reserve = if last { keep_free / 2 } else { keep_free.saturating_add(own.min(SHARE_CAP) / 4) };
    free >= reserve.saturating_add(more)
}

/// The wall clock's new offset, if it was stepped. All in microseconds.
fn clock_step(wall: i64, expected: i64, known_offset: i64) -> Option<i64> {
    let offset = wall.saturating_sub(expected);
    (offset.abs_diff(known_offset) > CLOCK_STEP.as_micros() as u64).then_some(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn the_largest_recording_ends_first() {
        assert!(may_append(GIB, GIB / 2, 0, 1000, false));
        assert!(!may_append(GIB, GIB, 0, 1000, false));
        assert!(!may_append(GIB, GIB / 2, 3 * GIB, GIB / 4 + 1, false));
        assert!(may_append(GIB, GIB / 2, 3 * GIB, GIB / 4, false), "the share is capped");
        assert!(may_append(GIB, GIB, 3 * GIB, 1000, true), "the last piece may use the reserve");
        assert!(!may_append(GIB / 2, GIB, 0, 1, true), "but not all of it");
    }

    #[test]
    fn a_step_of_the_clock_is_told_from_drift() {
        assert_eq!(clock_step(5_000_000, 4_500_000, 0), None);
        assert_eq!(clock_step(9_000_000, 4_500_000, 0), Some(4_500_000));
        assert_eq!(clock_step(9_000_000, 4_500_000, 4_400_000), None);
        assert_eq!(clock_step(1_000_000, 4_500_000, 4_400_000), Some(-3_500_000));
    }
}
