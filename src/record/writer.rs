//! One live recording: takes observations into the spool inline, and has them moved into the container by one blocking
//! job at a time (`drain`). Only this recording's callers ever wait for its disk.
//!
//! A newcomer would get wrong: the state's mutex is held over the `pwritev` into the spool. That is a copy into memory,
//! and it is what keeps order, number and place of records one thing. It is never held over the container's disk.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::codec::{self, MAX_DATA};
use super::error::RecordingLost;
use super::file::ContainerFile;
use super::fresh::{Fresh, Held};
use super::observation::What;
use super::spool::{RECORD_OVERHEAD, SEGMENT, SEGMENTS, Spool};
use super::{Durability, Shared};
use crate::socket::OnFailure;
use crate::store::row::RecordingState;

/// How long anybody waits for a disk that makes no progress.
const STALL: Duration = Duration::from_secs(60);

/// The handle through which a channel is recorded. When the last clone goes without [`Tap::finish`], the recording is
/// sealed as cut.
#[derive(Clone, Debug)]
pub struct Tap(Arc<Guard>);

/// Why a recording ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The channel ended, and all of it was recorded.
    Complete,
    /// The recording stops before the channel did; why, in words.
    Cut(String),
}

/// What became of a finished recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// `Complete` or `Truncated`.
    pub state: RecordingState,
    /// Bytes of the container.
    pub size: u64,
}

/// Bytes on disk that a session's recordings may take together (`max_recording`). Share one among them.
#[derive(Debug)]
pub struct Budget {
    max: u64,
    used: AtomicU64,
}

impl Budget {
    /// A budget of `max` bytes. It can be overdrawn by what is in the spools (2 MiB each) when it runs out: that was
    /// promised to be kept.
    pub fn new(max: u64) -> Arc<Self> {
        Arc::new(Self { max, used: AtomicU64::new(0) })
    }

    /// Notes bytes written; an error when that was too many.
    pub(super) fn spend(&self, bytes: u64) -> Result<(), RecordingLost> {
        match self.used.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > self.max {
            true => Err(RecordingLost::Limit(self.max)),
            false => Ok(()),
        }
    }
}

impl Tap {
    pub(super) fn new(writer: Arc<Writer>) -> Self {
        Self(Arc::new(Guard(writer)))
    }

    /// Records what was just seen, at this instant. After `Ok` it is safe from a SIGKILL of the gateway (or on disk,
    /// with [`Durability::Disk`]) and may be forwarded.
    ///
    /// Mostly returns without waiting; waits, for this recording's own disk, when its spool is full. Cancel safe: an
    /// observation is recorded whole, or (longer channel data) a part of it, or not; nothing is promised before `Ok`.
    pub async fn record(&self, what: What) -> Result<(), RecordingLost> {
        let writer = &self.0.0;
        let cut = codec::oversize(&what);
        let mut last = match what {
            What::Bytes { direction, stream, mut data } if data.len() > MAX_DATA => loop {
                let piece = data.split_to(data.len().min(MAX_DATA));
                let stored = writer.store(&What::Bytes { direction, stream, data: piece }).await?;
                if data.is_empty() {
                    break stored;
                }
            },
            what => writer.store(&what).await?,
        };
        if cut > 0 {
            let reason = "the observation before this one was too long and was cut".to_owned();
            last = writer.store(&What::Gap { reason, bytes: cut as u64 }).await?;
        }
        match (writer.shared.settings.durability, last) {
            (Durability::Disk, Some(number)) => writer.drained(number.saturating_add(1)).await,
            _ => Ok(()),
        }
    }

    /// Fires when the recording is lost for good and its session must end, idle or not.
    pub fn lost(&self) -> &CancellationToken {
        &self.0.0.lost
    }

    /// Why it was lost, once [`Tap::lost`] has fired.
    pub fn loss(&self) -> RecordingLost {
        self.0.0.lock().lost.clone().unwrap_or(RecordingLost::Ended)
    }

    /// Moves all that was recorded so far into the container.
    pub async fn flush(&self) -> Result<(), RecordingLost> {
        self.0.0.flush().await
    }

    /// Seals the recording. The first ending stands; later calls wait for the same result. At most a minute when the
    /// disk does not answer; then sealing goes on behind the caller's back.
    pub async fn finish(&self, why: Ending) -> Finished {
        let writer = &self.0.0;
        writer.end(why);
        match writer.wait(|state| state.finished.clone()).await {
            Some(finished) => finished,
            None => Finished { state: RecordingState::Truncated, size: writer.lock().size },
        }
    }
}

struct Guard(Arc<Writer>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.end(Ending::Cut("its session went away".to_owned()));
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recording({})", self.0.id)
    }
}

/// A live recording. See the module.
pub(super) struct Writer {
    pub(super) id: Uuid,
    pub(super) shared: Arc<Shared>,
    pub(super) spool: Spool,
    /// Only the drain job takes it, and holds it while the disk works.
    pub(super) container: Mutex<ContainerFile>,
    pub(super) budget: Arc<Budget>,
    pub(super) started: Timestamp,
    pub(super) lost: CancellationToken,
    /// Announces every change that somebody may wait for. Look at the state after subscribing.
    pub(super) changed: watch::Sender<()>,
    /// Bumped for those who follow the recording at its end: by every record while somebody does, and by its seal.
    pub(super) grown: watch::Sender<()>,
    pub(super) on_failure: OnFailure,
    /// Where jobs and timers run.
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) origin: Instant,
    state: Mutex<State>,
}

/// What the mutex guards.
pub(super) struct State {
    /// The number of the next observation.
    pub next: u64,
    /// All observations below it are in the container.
    pub saved: u64,
    /// The current segment shall be drained too until `saved` reaches it.
    pub flush_to: u64,
    fills: [Fill; SEGMENTS as usize],
    /// When the oldest unsaved record came, or a little before; in microseconds since the recording's start.
    oldest_us: u64,
    /// Segments with unsaved records, oldest first.
    order: VecDeque<u8>,
    /// The segment that is written; the last of `order`, or still empty.
    current: Option<u8>,
    /// What of it the drain need not read back.
    pub fresh: Fresh,
    /// A record's beginning, and its place to be encrypted in. Kept for their memory while there is traffic.
    front: Vec<u8>,
    room: Vec<u8>,
    /// A drain job is under way.
    pub job: bool,
    /// A timer is under way.
    timer: bool,
    /// By how many microseconds the wall clock was off the monotonic one when last looked.
    pub wall_offset_us: i64,
    /// `Continue` only: writing failed when last tried.
    pub trouble: Option<RecordingLost>,
    /// `Continue` only: what was not recorded, in bytes and observations.
    missing: (u64, u64),
    pub lost: Option<RecordingLost>,
    pub ending: Option<Ending>,
    pub finished: Option<Finished>,
    /// The container's bytes.
    pub size: u64,
}

/// How far a segment is written and drained. Times are microseconds since the recording's start.
#[derive(Clone, Copy, Default)]
struct Fill {
    used: usize,
    saved: usize,
    used_us: u64,
    saved_us: u64,
}

/// What a drain job is to do next.
pub(super) enum Step {
    Save(Run),
    Seal(Ending),
    Rest,
}

/// A piece of a segment, full of records.
#[derive(Clone, Copy)]
pub(super) struct Run {
    pub segment: u8,
    pub from: usize,
    pub to: usize,
    pub first: u64,
    /// The time that its first record counts from.
    pub base_us: u64,
    end_us: u64,
    /// The recording is being ended: the last chance to save it.
    pub last: bool,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        new: super::NewRecording,
        spool: Spool,
        container: ContainerFile,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        let wall_offset_us = Timestamp::now().as_microsecond().saturating_sub(new.started.as_microsecond());
        let state = State::new(shared.held.clone(), container.len(), wall_offset_us);
        Self {
            id: new.recording,
            shared,
            spool,
            container: Mutex::new(container),
            budget: new.budget,
            started: new.started,
            lost: CancellationToken::new(),
            changed: watch::Sender::new(()),
            grown: watch::Sender::new(()),
            on_failure: new.on_failure,
            runtime,
            origin: Instant::now(),
            state: Mutex::new(state),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that are not in the container yet, and how long the oldest of them has been waiting.
    pub(super) fn pending(&self) -> (u64, Duration) {
        let state = self.lock();
        let bytes: usize = state.fills.iter().map(|fill| fill.used.saturating_sub(fill.saved)).sum();
        match state.all_saved() {
            true => (0, Duration::ZERO),
            false => (bytes as u64, self.origin.elapsed().saturating_sub(Duration::from_micros(state.oldest_us))),
        }
    }

    /// Puts one observation into the spool; its number, or `None` when it was counted as missing (`Continue`).
    async fn store(self: &Arc<Self>, what: &What) -> Result<Option<u64>, RecordingLost> {
        if let Some(done) = self.try_store(what) {
            return done;
        }
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(done) = self.try_store(what) {
                return done;
            }
            if tokio::time::timeout(STALL, changed.changed()).await.is_err() {
                self.failed(&mut self.lock(), RecordingLost::Stalled);
            }
        }
    }

    /// `None` when there is no room yet.
    fn try_store(self: &Arc<Self>, what: &What) -> Option<Result<Option<u64>, RecordingLost>> {
        let mut state = self.lock();
        if let Some(lost) = &state.lost {
            return Some(Err(lost.clone()));
        }
        if state.ending.is_some() {
            return Some(Err(RecordingLost::Ended));
        }
        let placed = match self.place_gap(&mut state) {
            Ok(true) => self.place(&mut state, what),
            Ok(false) => Ok(None),
            Err(error) => Err(error),
        };
        match placed {
            Ok(Some(number)) => {
                self.shared.recorded.count(what);
                if self.shared.settings.durability == Durability::Disk {
                    state.flush_to = state.flush_to.max(state.next);
                }
                self.kick(&mut state);
                self.start_timer(&mut state);
                // One atomic load where nobody follows. Followers look again by themselves, should they miss one.
                if self.grown.receiver_count() > 0 {
                    self.grown.send_replace(());
                }
                return Some(Ok(Some(number)));
            }
            Ok(None) => self.kick(&mut state),
            // The spool's filesystem is full. Draining all of this spool gives its share of it back.
            Err(_) if !state.order.is_empty() && state.trouble.is_none() => {
                state.flush_to = state.flush_to.max(state.next);
                self.kick(&mut state);
            }
            Err(error) => {
                self.failed(&mut state, error.into());
                if let Some(lost) = &state.lost {
                    return Some(Err(lost.clone()));
                }
            }
        }
        // While writing does not work, `Continue` means to count and go on.
        state.trouble.is_some().then(|| {
            state.missing.0 += payload_len(what);
            state.missing.1 += 1;
            Ok(None)
        })
    }

    /// Writes down what is missing, if anything is; false when there is no room for that either.
    pub(super) fn place_gap(&self, state: &mut State) -> std::io::Result<bool> {
        let (bytes, count) = state.missing;
        if count == 0 {
            return Ok(true);
        }
        let why = state.trouble.as_ref().map_or_else(|| "it could not be written".to_owned(), ToString::to_string);
        let reason = format!("{count} observations were not recorded: {why}");
        let placed = self.place(state, &What::Gap { reason, bytes })?.is_some();
        if placed {
            state.missing = (0, 0);
        }
        Ok(placed)
    }

    /// Writes one record into the spool, at this instant; `None` when all segments are full.
    pub(super) fn place(&self, state: &mut State, what: &What) -> std::io::Result<Option<u64>> {
        let at_us = self.origin.elapsed().as_micros() as u64;
        loop {
            let Some(segment) = state.current.or_else(|| state.free_segment()) else {
                return Ok(None);
            };
            let Some(fill) = state.fills.get_mut(usize::from(segment)) else {
                return Ok(None);
            };
            if state.current.is_none() {
                state.current = Some(segment);
                *fill = Fill::default();
            }
            state.front.clear();
            let payload = codec::encode(what, at_us.saturating_sub(fill.used_us), &mut state.front);
            if fill.used + state.front.len() + payload.len() + RECORD_OVERHEAD > SEGMENT {
                state.current = None;
                continue;
            }
            let record = (state.front.as_slice(), payload);
            let written = self.spool.append(segment, fill.used, state.next, record, &mut state.room)?;
            state.fresh.add(segment, state.next, fill.used_us, record);
            if fill.used == 0 {
                if state.order.is_empty() {
                    state.oldest_us = at_us;
                }
                state.order.push_back(segment);
            }
            fill.used += written;
            fill.used_us = at_us.max(fill.used_us);
            let number = state.next;
            state.next += 1;
            return Ok(Some(number));
        }
    }

    /// Starts a drain job when there is something to do. While writing does not work, only the timer tries again.
    fn kick(self: &Arc<Self>, state: &mut State) {
        if state.trouble.is_none() || state.ending.is_some() {
            self.start_job(state);
        }
    }

    fn start_job(self: &Arc<Self>, state: &mut State) {
        if state.job || matches!(state.next_step(), Step::Rest) {
            return;
        }
        state.job = true;
        let writer = Arc::clone(self);
        match Arc::clone(&self.shared.jobs).try_acquire_owned() {
            Ok(permit) => drop(self.runtime.spawn_blocking(move || {
                let _permit = permit;
                writer.drain();
            })),
            // So many disks are slow that the blocking threads are to be kept for others: queue, off the caller's path.
            Err(_) => drop(self.runtime.spawn(async move {
                let jobs = Arc::clone(&writer.shared.jobs);
                let _permit = jobs.acquire_owned().await;
                let _ = tokio::task::spawn_blocking(move || writer.drain()).await;
            })),
        }
    }

    /// Has what is pending drained after `flush_after`, so that a quiet recording does not stay in the spool.
    fn start_timer(self: &Arc<Self>, state: &mut State) {
        if std::mem::replace(&mut state.timer, true) {
            return;
        }
        let (writer, after) = (Arc::downgrade(self), self.shared.settings.flush_after);
        self.runtime.spawn(async move {
            tokio::time::sleep(after).await;
            if let Some(writer) = writer.upgrade() {
                let mut state = writer.lock();
                state.timer = false;
                state.flush_to = state.flush_to.max(state.next);
                writer.start_job(&mut state);
            }
        });
    }

    /// Notes that writing failed: the end of the recording, or with `Continue` the beginning of a gap.
    pub(super) fn failed(self: &Arc<Self>, state: &mut State, why: RecordingLost) {
        match self.on_failure {
            OnFailure::EndSession => {
                state.lost.get_or_insert(why);
                self.lost.cancel();
            }
            OnFailure::Continue => {
                state.trouble = Some(why);
                self.start_timer(state);
            }
        }
        self.changed.send_replace(());
    }

    fn end(self: &Arc<Self>, why: Ending) {
        let mut state = self.lock();
        if state.ending.is_none() {
            state.ending = Some(why);
            state.flush_to = u64::MAX;
            self.kick(&mut state);
            self.changed.send_replace(());
        }
    }

    pub(super) async fn flush(self: &Arc<Self>) -> Result<(), RecordingLost> {
        let target = {
            let mut state = self.lock();
            state.flush_to = state.flush_to.max(state.next);
            self.kick(&mut state);
            state.next
        };
        self.drained(target).await
    }

    /// Waits until all observations below `target` are in the container.
    async fn drained(&self, target: u64) -> Result<(), RecordingLost> {
        let look = |state: &State| match &state.lost {
            _ if state.saved >= target => Some(Ok(())),
            Some(lost) => Some(Err(lost.clone())),
            // Its bytes are in the spool still; with `Continue` that has to do.
            None if state.trouble.is_some() => Some(Ok(())),
            None if state.finished.is_some() => Some(Err(RecordingLost::Ended)),
            None => None,
        };
        self.wait(look).await.unwrap_or(Err(RecordingLost::Stalled))
    }

    /// Waits until `look` sees what it looks for; `None` when nothing moves for [`STALL`].
    async fn wait<T>(&self, look: impl Fn(&State) -> Option<T>) -> Option<T> {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(seen) = look(&self.lock()) {
                return Some(seen);
            }
            tokio::time::timeout(STALL, changed.changed()).await.ok()?.ok()?;
        }
    }
}

impl State {
    pub fn next_step(&self) -> Step {
        let dead = self.lost.is_some() && self.ending.is_none();
        if dead || self.finished.is_some() {
            return Step::Rest;
        }
        let wanted = |front: &u8| Some(*front) != self.current || self.saved < self.flush_to;
        match (self.order.front(), &self.ending) {
            (Some(front), _) if wanted(front) => self.run(*front).map_or(Step::Rest, Step::Save),
            (None, Some(ending)) => Step::Seal(ending.clone()),
            _ => Step::Rest,
        }
    }

    fn run(&self, segment: u8) -> Option<Run> {
        let fill = self.fills.get(usize::from(segment))?;
        Some(Run {
            segment,
            from: fill.saved,
            to: fill.used,
            first: self.saved,
            base_us: fill.saved_us,
            end_us: fill.used_us,
            last: self.ending.is_some(),
        })
    }

    /// Notes that a run is in the container; its segment is free when nothing was added meanwhile.
    pub fn saved(&mut self, run: Run, count: u32, size: u64) {
        self.saved = run.first + u64::from(count);
        self.size = size;
        self.trouble = None;
        let Some(fill) = self.fills.get_mut(usize::from(run.segment)) else { return };
        fill.saved = run.to;
        fill.saved_us = run.end_us;
        self.oldest_us = self.oldest_us.max(run.end_us);
        if fill.saved == fill.used {
            self.order.pop_front();
            self.current = self.current.filter(|current| *current != run.segment);
        }
    }

    /// Gives the memory back that traffic needed: most sessions are idle most of the time.
    pub fn rest(&mut self) {
        (self.front, self.room) = (Vec::new(), Vec::new());
    }

    /// Whether the spool holds nothing that is not in the container.
    pub fn all_saved(&self) -> bool {
        self.order.is_empty()
    }

    /// The lowest one, so that a recording whose disk keeps up touches one or two segments only.
    fn free_segment(&self) -> Option<u8> {
        (0..SEGMENTS).find(|segment| !self.order.contains(segment))
    }
}

impl State {
    fn new(held: Held, size: u64, wall_offset_us: i64) -> Self {
        Self {
            next: 0,
            saved: 0,
            flush_to: 0,
            fills: [Fill::default(); SEGMENTS as usize],
            oldest_us: 0,
            order: VecDeque::new(),
            current: None,
            fresh: Fresh::new(held),
            front: Vec::new(),
            room: Vec::new(),
            job: false,
            timer: false,
            wall_offset_us,
            trouble: None,
            missing: (0, 0),
            lost: None,
            ending: None,
            finished: None,
            size,
        }
    }
}

fn payload_len(what: &What) -> u64 {
    let len = |bytes: &Bytes| bytes.len() as u64;
    match what {
        What::Bytes { data, .. } => len(data),
        What::Exec { command } => len(command),
        What::Fact { body } | What::Request { body } | What::Response { body } => len(body),
        _ => 0,
    }
}
