//! Housekeeping: what has been kept for long enough goes, a little at a time, oldest first, so that nobody waits for it.
//!
//! A session's files go first and its row last, with the line in the audit log: the row is the list of what is to be
//! removed, so a crash in between leaves a row whose recordings are missing, and the next round finds it again. The other
//! order would leave files that nothing knows of. (Those a crash at a session's *beginning* can leave: a file whose row
//! was not written yet. They are looked for by their day, and go when they are as old.)
//!
//! A clock that is set forward would make everything old at once. So the clock is held against the time that has passed
//! since the start, every few seconds, and at the start against the newest time that the book knew before this process
//! wrote to it. More than a day off (half the retention, if that is less), and for a day nothing is removed, which the
//! audit log notes (`clock.jumped`), so that a restart does not shorten that day. A book into which nothing was written
//! for more than a day looks the same and costs the same: after a long stop, a suspended host, the upgrade of a gateway
//! that nobody used.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::record::{Orphan, Recordings};
use crate::store::{ExpiredSession, Store, StoreError};

/// Sessions, or files, between two pauses.
const BATCH: u32 = 50;
/// A pause: others' turn at the book and at the disk.
const PAUSE: Duration = Duration::from_millis(100);
/// A short retention is looked after more often than once in this time.
const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);

/// How often the clock is looked at: about as often as the book gets a new time.
const TICK: Duration = Duration::from_secs(10);
/// The most that the clock may be off, and how long nothing is removed once it was.
const DAY: SignedDuration = SignedDuration::from_hours(24);
/// A short retention allows less, but this much.
const MINUTE: SignedDuration = SignedDuration::from_mins(1);
/// How the audit log names it.
const JUMPED: &str = "clock.jumped";

/// Removes what has been kept for long enough. Cheap to clone.
#[derive(Clone)]
pub struct Keeping {
    store: Store,
    recordings: Recordings,
    retention: Duration,
    /// The newest time in the book before this process wrote to it.
    newest: Option<Timestamp>,
    clock: Arc<Mutex<Clock>>,
}

/// What a round removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Sessions with their recordings.
    pub sessions: u64,
    /// Recordings' files without a session.
    pub orphans: u64,
    /// Sign-ins, keys and tokens.
    pub credentials: u64,
    /// What could not be removed now; tried again in the next round.
    pub failed: u64,
}

impl Keeping {
    /// Sessions are kept for `retention` after their end. `newest` is what [`Store::newest_time`] said before this process
    /// wrote anything.
    pub fn new(store: Store, recordings: Recordings, retention: Duration, newest: Option<Timestamp>) -> Self {
        Self { store, recordings, retention, newest, clock: Arc::default() }
    }

    /// Rounds until it is dropped. Cancel safe: a round may stop anywhere.
    pub async fn keep_going(&self) {
        let interval = (self.retention / 24).clamp(Duration::from_secs(1), LONGEST_INTERVAL);
        let mut due = Instant::now();
        loop {
            let (wall, at) = (Timestamp::now(), Instant::now());
            let done = match self.believes(wall, at).await {
                Ok(true) if at >= due => {
                    due = at + interval;
                    self.round(wall).await
                }
                Ok(_) => Ok(Removed::default()),
                Err(error) => Err(error),
            };
            match done {
                Ok(removed) if removed == Removed::default() => {}
                Ok(removed) => tracing::info!(?removed, "removed what was kept for long enough"),
                Err(error) => tracing::error!(%error, "housekeeping stopped; it is tried again"),
            }
            tokio::time::sleep(TICK.min(interval)).await;
        }
    }

    /// Looks at the clock a last time: what this process writes at its end must not vouch for one that has just jumped.
    pub async fn look_at_clock(&self) {
        if let Err(error) = self.believes(Timestamp::now(), Instant::now()).await {
            tracing::error!(%error, "the clock could not be held against the book");
        }
    }

    /// Whether something may be removed by what the clock says, `wall`, at `at`.
    async fn believes(&self, wall: Timestamp, at: Instant) -> Result<bool, StoreError> {
        let clock = &mut *self.clock.lock().await;
        let starts = clock.right.is_none();
        let off = match clock.right {
            Some((then_wall, then)) => {
                let passed =
                    SignedDuration::try_from(at.saturating_duration_since(then)).unwrap_or(SignedDuration::MAX);
                wall.duration_since(then_wall).saturating_sub(passed)
            }
            None => {
                clock.jumped = self.store.newest_audit(JUMPED).await?;
                // What lies ahead is no reason to wait: a clock that was ahead has been set right.
                self.newest.map_or(SignedDuration::ZERO, |newest| wall.duration_since(newest)).max(SignedDuration::ZERO)
            }
        };
        let most = SignedDuration::try_from(self.retention / 2).unwrap_or(DAY).clamp(MINUTE, DAY);
        let jumped = off.abs() > most;
        // Not at every look: steps that are small one by one add up.
        if starts || jumped {
            clock.right = Some((wall, at));
        }
        if jumped {
            clock.jumped = Some(wall);
            match starts {
                true => {
                    tracing::warn!(%off, "the book says nothing of the time before: is the clock right? nothing is removed for a day")
                }
                false => {
                    tracing::error!(%off, "the clock was set: nothing is removed for a day")
                }
            }
            let details = json!({"off": off, "at_start": starts});
            self.store.audit("gateway", JUMPED, "clock", details).await?;
        }
        Ok(clock.jumped.is_none_or(|jumped| !(SignedDuration::ZERO..DAY).contains(&wall.duration_since(jumped))))
    }

    /// One round, as of `now`.
    pub async fn round(&self, now: Timestamp) -> Result<Removed, StoreError> {
        let mut removed = Removed::default();
        if let Ok(until) = now.checked_sub(self.retention) {
            self.sessions(until, &mut removed).await?;
            self.orphans(until, &mut removed).await?;
        }
        loop {
            match self.store.sweep_expired(now).await? {
                0 => return Ok(removed),
                swept => removed.credentials += swept as u64,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn sessions(&self, until: Timestamp, removed: &mut Removed) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let batch = self.store.expired_sessions(until, after, BATCH).await?;
            let Some(last) = batch.last() else { return Ok(()) };
            after = Some((last.start_time, last.session_id));
            for session in batch {
                let id = session.session_id;
                match self.remove_files(&session).await {
                    Ok(freed) => removed.sessions += u64::from(self.store.remove_session(session, until, freed).await?),
                    Err(error) => {
                        tracing::warn!(session = %id, %error, "a session's recordings cannot be removed now");
                        removed.failed += 1;
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// All files of a session; the bytes that this freed.
    async fn remove_files(&self, session: &ExpiredSession) -> std::io::Result<u64> {
        let (recordings, session) = (self.recordings.clone(), session.clone());
        let remove = move || {
            let id = session.session_id;
            session
                .recordings
                .iter()
                .try_fold(0, |freed, (recording, started)| Ok(freed + recordings.remove(id, *recording, *started)?))
        };
        blocking(remove).await
    }

    async fn orphans(&self, until: Timestamp, removed: &mut Removed) -> Result<(), StoreError> {
        let mut after: Option<Orphan> = None;
        loop {
            let (recordings, from) = (self.recordings.clone(), after.take());
            let listed = blocking(move || recordings.files_before(until, from.as_ref(), BATCH as usize)).await;
            let files = match listed {
                Ok(files) => files,
                Err(error) => {
                    tracing::warn!(%error, "the directory of recordings cannot be looked through");
                    removed.failed += 1;
                    return Ok(());
                }
            };
            let Some(last) = files.last() else { return Ok(()) };
            after = Some(last.clone());
            let sessions: Vec<Uuid> = files.iter().map(|file| file.session).collect();
            let known = self.store.known_sessions(sessions).await?;
            for file in files.into_iter().filter(|file| !known.contains(&file.session)) {
                self.orphan(file, removed).await?;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Here the line comes first: a line too many tells less of a lie than one too few.
    async fn orphan(&self, file: Orphan, removed: &mut Removed) -> Result<(), StoreError> {
        let details = json!({"why": "retention; no session has it", "session_id": file.session});
        let recording = file.recording.to_string();
        self.store.audit("gateway", "recording.removed", &recording, details).await?;
        let recordings = self.recordings.clone();
        match blocking(move || recordings.remove_orphan(&file)).await {
            Ok(_) => removed.orphans += 1,
            Err(error) => {
                tracing::warn!(%recording, %error, "a recording without a session cannot be removed now");
                removed.failed += 1;
            }
        }
        Ok(())
    }
}

/// What the clock said before.
#[derive(Debug, Default)]
struct Clock {
    /// From when on it is measured: at the start, or at the last jump.
    right: Option<(Timestamp, Instant)>,
    /// When it was off.
    jumped: Option<Timestamp>,
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use jiff::SignedDuration;

    use super::*;
    use crate::record::keys::{Keys, RecordingKey};
    use crate::record::{Budget, Durability, Ending, NewRecording, Settings};
    use crate::socket::OnFailure;
    use crate::store::testing::{Book, new_session};
    use crate::store::{NewSession, Outcome, RecordingRow, RecordingState};

    const HOUR: Duration = Duration::from_secs(3600);

    fn ago(days: i64) -> Timestamp {
        Timestamp::now() - SignedDuration::from_hours(24 * days)
    }

    struct House {
        book: Book,
        recordings: Recordings,
        keeping: Keeping,
    }

    impl House {
        fn new() -> Self {
            let book = Book::new();
            let settings = Settings {
                dir: book.dir().join("recordings"),
                spool: book.dir().join("spool"),
                durability: Durability::Process,
                keep_free: 0,
                flush_after: HOUR,
                gateway: Uuid::nil(),
                keys: Keys::new(RecordingKey::random().unwrap(), Vec::new()),
            };
            let recordings = Recordings::open(settings).unwrap();
            let keeping = Keeping::new(Store::clone(&book), recordings.clone(), HOUR * 24 * 30, None);
            Self { book, recordings, keeping }
        }

        /// As after a restart.
        async fn restarted(&self, retention: Duration) -> Keeping {
            let newest = self.book.newest_time(Timestamp::now()).await.unwrap();
            Keeping::new(Store::clone(&self.book), self.recordings.clone(), retention, newest)
        }

        /// A recording that was made so many days ago; of a session in the book, or of none.
        async fn recorded(&self, days: i64, in_book: bool) -> NewRecording {
            let new = NewRecording {
                session: Uuid::now_v7(),
                recording: Uuid::now_v7(),
                kind: "shell".into(),
                started: ago(days),
                on_failure: OnFailure::EndSession,
                budget: Arc::clone(&Budget::new(u64::MAX)),
            };
            let finished = self.recordings.create(new.clone()).await.unwrap().finish(Ending::Complete).await;
            if in_book {
                let session = NewSession { session_id: new.session, start_time: new.started, ..new_session() };
                self.book.open_session(session).await.unwrap();
                let row = RecordingRow {
                    recording_id: new.recording,
                    start_time: new.started,
                    end_time: Some(new.started),
                    state: RecordingState::Complete,
                    size: Some(finished.size),
                    ..crate::store::testing::recording()
                };
                self.book.add_recording(new.session, row).await.unwrap();
                let closed =
                    self.book.close_session(new.session, new.started, Outcome::Closed, String::new(), None).await;
                closed.unwrap();
            }
            new
        }

        async fn is_kept(&self, of: &NewRecording) -> (bool, bool) {
            let file = self.recordings.raw(of.session, of.recording, of.started).await.is_ok();
            let row = self.book.known_sessions(vec![of.session]).await.unwrap().contains(&of.session);
            (file, row)
        }
    }

    fn days(dir: &Path) -> usize {
        std::fs::read_dir(dir.join("recordings")).unwrap().count()
    }

    #[tokio::test]
    async fn what_is_old_goes_and_what_is_not_stays() {
        let house = House::new();
        let (old, new) = (house.recorded(31, true).await, house.recorded(29, true).await);
        let (stray, recent_stray) = (house.recorded(40, false).await, house.recorded(1, false).await);
        let removed = house.keeping.round(Timestamp::now()).await.unwrap();
        assert_eq!(removed, Removed { sessions: 1, orphans: 1, credentials: 0, failed: 0 });
        assert_eq!((house.is_kept(&old).await, house.is_kept(&new).await), ((false, false), (true, true)));
        assert_eq!((house.is_kept(&stray).await.0, house.is_kept(&recent_stray).await.0), (false, true));
        assert_eq!(days(house.book.dir()), 2, "days that became empty are gone");
        let lines = house.book.audit_entries(None, 10).await.unwrap();
        let told: Vec<_> = lines.iter().rev().map(|line| (line.action.as_str(), line.subject.clone())).collect();
        let expected =
            [("session.removed", old.session.to_string()), ("recording.removed", stray.recording.to_string())];
        assert_eq!(told, expected);
        assert_eq!(house.keeping.round(Timestamp::now()).await.unwrap(), Removed::default());
    }

    /// Asks as after so many hours, with a clock that says so many.
    async fn asked(keeping: &Keeping, start: (Timestamp, Instant), table: &[(u32, i64, bool)]) {
        for (hours, told, believed) in table {
            let wall = start.0 + SignedDuration::from_hours(*told);
            let answer = keeping.believes(wall, start.1 + HOUR * *hours).await.unwrap();
            assert_eq!(answer, *believed, "after {hours} h the clock says {told} h");
        }
    }

    #[tokio::test]
    async fn a_clock_that_jumps_is_not_believed_for_a_day() {
        let house = House::new();
        let start = (Timestamp::now(), Instant::now());
        let year = 24 * 365;
        let table = [
            (0, 0, true),
            (1, 1, true),
            (2, 25, true),
            (3, 26, true),
            (4, year, false),
            (27, year + 23, false),
            (28, year + 24, true),
            (29, 29, false),
            (52, 52, false),
            (53, 53, true),
        ];
        asked(&house.keeping, start, &table).await;
        let lines = house.book.audit_entries(None, 10).await.unwrap();
        assert!(lines.iter().all(|line| line.action == JUMPED) && lines.len() == 2, "{lines:?}");
    }

    #[tokio::test]
    async fn small_steps_add_up_and_a_short_retention_allows_less() {
        let house = House::new();
        let start = (Timestamp::now(), Instant::now());
        asked(&house.keeping, start, &[(0, 0, true), (1, 21, true), (2, 42, false)]).await;
        let house = House::new();
        let short = house.restarted(12 * HOUR).await;
        asked(&short, start, &[(0, 0, true), (1, 6, true), (2, 9, false)]).await;
    }

    #[tokio::test]
    async fn a_book_that_knows_nothing_new_is_held_for_a_day_across_restarts() {
        let house = House::new();
        let old = house.recorded(40, true).await;
        let start = (Timestamp::now(), Instant::now());
        let month = HOUR * 24 * 30;
        asked(&house.restarted(month).await, start, &[(0, 0, false), (1, 1, false)]).await;
        // The line about it is new, and no reason to believe.
        asked(&house.restarted(month).await, start, &[(2, 2, false), (23, 23, false), (25, 25, true)]).await;
        assert_eq!(house.is_kept(&old).await, (true, true));
        let house = House::new();
        let (_old, _new) = (house.recorded(40, true).await, house.recorded(0, true).await);
        asked(&house.restarted(month).await, start, &[(0, 0, true)]).await;
    }

    #[tokio::test]
    async fn housekeeping_asks_the_clock() {
        let house = House::new();
        let old = house.recorded(40, true).await;
        let keeping = house.restarted(HOUR * 24 * 30).await;
        let _running = tokio::time::timeout(HOUR / 3600, keeping.keep_going()).await;
        assert_eq!(house.is_kept(&old).await, (true, true));
        let other = House::new();
        let (other_old, _new) = (other.recorded(40, true).await, other.recorded(0, true).await);
        let other_keeping = other.restarted(HOUR * 24 * 30).await;
        let removing = async {
            while other.is_kept(&other_old).await.1 {
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = other_keeping.keep_going() => {}
            () = removing => {}
        }
        assert_eq!(other.is_kept(&other_old).await, (false, false));
    }

    #[tokio::test]
    async fn a_round_that_died_between_files_and_row_is_finished_by_the_next() {
        let house = House::new();
        let old = house.recorded(31, true).await;
        let (all, of) = (house.recordings.clone(), old.clone());
        blocking(move || all.remove(of.session, of.recording, of.started)).await.unwrap();
        assert_eq!(house.is_kept(&old).await, (false, true));
        assert_eq!(house.keeping.round(Timestamp::now()).await.unwrap().sessions, 1);
        assert_eq!(house.is_kept(&old).await, (false, false));
        assert_eq!(house.book.audit_entries(None, 10).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn more_than_a_batch_goes_in_one_round() {
        let house = House::new();
        for _ in 0..BATCH + 3 {
            house.recorded(31, true).await;
            house.recorded(31, false).await;
        }
        let removed = house.keeping.round(Timestamp::now()).await.unwrap();
        assert_eq!((removed.sessions, removed.orphans), (u64::from(BATCH) + 3, u64::from(BATCH) + 3));
        assert_eq!(days(house.book.dir()), 0);
    }
}
