//! The other processes of this gateway: who lives, what the dead left open, and orders for sessions that others hold.
//!
//! A process lives while it holds the lock on its file in `data_dir/run`, which the kernel takes back whatever ends it.
//! Its row in the book comes after the lock, so a row whose lock is free is a dead process', and its id never comes back.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::control::{Answer, Line, MESSAGE, Order, RunDir};
use super::{GatewayError, io_error};
use crate::api::{KillError, Killer};
use crate::record::{Recordings, Recovered, Recovery};
use crate::session::Sessions;
use crate::store::{RecordingState, Store, StoreError};

/// This process among those of its gateway.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) id: Uuid,
    pub(super) run: RunDir,
    /// Locked until the process ends.
    alive: File,
    /// Whether others find it by its row.
    begun: bool,
}

/// All of them, and the book they share. Cheap to clone.
#[derive(Clone)]
pub(super) struct Processes {
    me: Uuid,
    run: RunDir,
    store: Store,
    recordings: Recordings,
}

/// Ends sessions, whichever process holds them.
pub(super) struct EndsAnywhere {
    pub(super) sessions: Sessions,
    pub(super) processes: Processes,
}

impl Process {
    /// Makes this process known by a lock in `data`'s run directory.
    pub(super) fn begin(data: &Path) -> io::Result<Self> {
        let run = RunDir::open(data)?;
        let id = Uuid::now_v7();
        let alive = OpenOptions::new().write(true).create_new(true).mode(0o600).open(run.alive(id))?;
        let process = Self { id, run, alive, begun: false };
        process.alive.try_lock()?;
        Ok(process)
    }

    /// Its row is in the book: from now on whoever cleans up after the dead removes what is left of it.
    pub(super) fn begun(&mut self) {
        self.begun = true;
    }

    /// Whether another process lives. It is dead when its file is gone or its lock could be had. A file that cannot be
    /// looked at now (no descriptor is left) says nothing, and to bury the living does more harm than to wait.
    pub(super) fn lives(run: &RunDir, process: Uuid) -> bool {
        match File::open(run.alive(process)) {
            Ok(file) => file.try_lock_shared().is_err(),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }

    /// Whether a process that fell silent is dead: as one dies, its connections may be closed before its lock is free.
    pub(super) async fn has_died(run: &RunDir, process: Uuid) -> bool {
        let deadline = Instant::now() + DYING;
        while Self::lives(run, process) {
            if Instant::now() > deadline {
                return false;
            }
            sleep(SHORTLY).await;
        }
        true
    }
}

impl Drop for Process {
    /// Nobody knows of one that never came to its row, so nobody else would remove its file.
    fn drop(&mut self) {
        if !self.begun {
            self.run.forget(self.id);
        }
    }
}

impl Processes {
    pub(super) fn new(process: &Process, store: Store, recordings: Recordings) -> Self {
        Self { me: process.id, run: process.run.clone(), store, recordings }
    }

    /// Closes what dead processes left open: recordings first, then their sessions. Processes that live are left alone.
    /// Whether nothing is left of the dead: a recording of which nothing can be told now stays open, and its process too.
    /// `each` is told before each recording, which may take long.
    pub(super) async fn bury(&self, each: fn()) -> Result<bool, GatewayError> {
        let one_at_a_time = Arc::new(self.burial().await?);
        let open = self.store.open_processes().await?;
        let dead: Vec<Uuid> = open.into_iter().filter(|id| self.is_dead(*id)).collect();
        for found in self.blocking(&one_at_a_time, move |all| all.recover(each)).await? {
            self.close_recording(&found).await?;
        }
        // After a restart of the host the spools are gone: what had reached the disk is still there.
        for (session, recording, started) in self.store.unfinished_recordings(&dead).await? {
            each();
            let look = move |all: &Recordings| all.recover_recording(session, recording, started);
            match self.blocking(&one_at_a_time, look).await? {
                Recovery::Closed(found) => self.close_recording(&found).await?,
                Recovery::Nothing => {
                    tracing::error!(%session, %recording, "nothing is left of a recording");
                    self.store.finish_recording(recording, started, RecordingState::Damaged, 0, None).await?;
                }
                Recovery::NotNow => tracing::warn!(%session, %recording, "a recording stays open for another look"),
            }
        }
        for session in self.store.close_orphans(&dead).await? {
            tracing::warn!(%session, "closed a session that a crash had left open");
        }
        // Last: should this one die too on the way, the next one finds them again.
        let mut all = true;
        for process in dead {
            match self.store.end_process(process).await? {
                true => self.run.forget(process),
                false => all = false,
            }
        }
        Ok(all)
    }

    /// Buries whoever dies while this process lives, for as long as it runs.
    pub(super) async fn keep_burying(&self) {
        let mut pause = LOOK_EVERY;
        loop {
            let buried = match self.others().await {
                Ok(others) if others.iter().any(|id| self.is_dead(*id)) => self.bury(|| {}).await,
                Ok(_) => Ok(true),
                Err(error) => Err(error.into()),
            };
            if let Err(error) = &buried {
                tracing::error!(%error, "what a dead process left open could not be closed; trying again");
            }
            // What could not be closed just now can seldom be a moment later.
            pause = if matches!(buried, Ok(true)) { LOOK_EVERY } else { (pause * 2).min(LOOK_AT_LEAST_EVERY) };
            sleep(pause).await;
        }
    }

    /// How many others live.
    pub(super) async fn count_others(&self) -> Result<usize, StoreError> {
        Ok(self.others().await?.into_iter().filter(|id| !self.is_dead(*id)).count())
    }

    /// Tells the others to stop, and waits up to `patience` until they have. What a stopped gateway leaves behind could
    /// not be ended by anybody.
    pub(super) async fn stop_others(&self, patience: Duration) {
        let others = match self.others().await {
            Ok(others) => others,
            Err(error) => return tracing::error!(%error, "the older processes could not be found"),
        };
        join_all(others.into_iter().filter(|id| !self.is_dead(*id)).map(|id| self.stop(id, patience))).await;
    }

    async fn stop(&self, process: Uuid, patience: Duration) {
        if let Err(error) = self.ask(process, &Order::Stop, MESSAGE).await {
            tracing::warn!(%process, %error, "an older process could not be told to stop");
        }
        let deadline = Instant::now() + patience;
        while !self.is_dead(process) {
            if Instant::now() > deadline {
                return tracing::error!(%process, "an older process has not stopped");
            }
            sleep(SHORTLY).await;
        }
    }

    /// Has another process end a session that it holds, or a channel of it. The order stands in the session's row.
    async fn kill(&self, session: Uuid, order: Order) -> Result<(), KillError> {
        let holder = match self.store.holder(session).await {
            Ok(Some(holder)) if holder != self.me => holder,
            Ok(_) => return Err(KillError::NotLive),
            Err(error) => {
                tracing::error!(%session, %error, "the process that holds a session could not be found");
                return Err(KillError::NotLive);
            }
        };
        match self.ask(holder, &order, KILL).await {
            Ok(Answer::Down) => Ok(()),
            Ok(Answer::NotLive) => Err(KillError::NotLive),
            Ok(_) => Err(KillError::TimedOut),
            Err(error) if Process::has_died(&self.run, holder).await => {
                tracing::warn!(%holder, %error, "the process that held a session has died");
                self.bury(|| {}).await.map(drop).map_err(|_| KillError::TimedOut)
            }
            Err(error) => {
                tracing::error!(%holder, %error, "the process that holds a session could not be told");
                Err(KillError::TimedOut)
            }
        }
    }

    async fn ask(&self, process: Uuid, order: &Order, within: Duration) -> io::Result<Answer> {
        let mut line = Line::call(&self.run, process).await?;
        line.say(order).await?;
        line.hear(within).await
    }

    async fn others(&self) -> Result<Vec<Uuid>, StoreError> {
        let open = self.store.open_processes().await?;
        Ok(open.into_iter().filter(|id| *id != self.me).collect())
    }

    fn is_dead(&self, process: Uuid) -> bool {
        process != self.me && !Process::lives(&self.run, process)
    }

    /// Two that bury the same process at once would take each other's work for damage.
    async fn burial(&self) -> Result<File, GatewayError> {
        let what = "run/burial.lock";
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(self.run.burial());
        let file = file.map_err(io_error(what))?;
        let deadline = Instant::now() + BURIAL;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(SHORTLY).await,
                Err(error) => return Err(io_error(what)(error.into())),
            }
        }
    }

    /// `burial` is held until the work is done, also when nobody waits for it any more.
    async fn blocking<T: Send + 'static>(
        &self,
        burial: &Arc<File>,
        work: impl FnOnce(&Recordings) -> T + Send + 'static,
    ) -> Result<T, GatewayError> {
        let (recordings, burial) = (self.recordings.clone(), Arc::clone(burial));
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&recordings);
            drop(burial);
            done
        })
        .await;
        done.map_err(|error| io_error("recovery of recordings")(io::Error::other(error)))
    }

    async fn close_recording(&self, found: &Recovered) -> Result<(), GatewayError> {
        tracing::warn!(session = %found.session, recording = %found.recording, state = ?found.state, "recovered");
        let closed =
            self.store.finish_recording(found.recording, found.ended, found.state, found.size, found.exit_status);
        match closed.await {
            // The crash came between the recording's file and its row: nothing had been forwarded yet.
            Err(StoreError::UnknownRecording) => Ok(()),
            closed => Ok(closed?),
        }
    }
}

impl Killer for EndsAnywhere {
    fn kill(&self, session: Uuid, by: &str, reason: &str) -> BoxFuture<'static, Result<(), KillError>> {
        let here = Killer::kill(&self.sessions, session, by, reason);
        self.or_elsewhere(here, session, Order::Kill { session, by: by.to_owned(), reason: reason.to_owned() })
    }

    fn kill_channel(
        &self,
        session: Uuid,
        recording: Uuid,
        by: &str,
        reason: &str,
    ) -> BoxFuture<'static, Result<(), KillError>> {
        let here = Killer::kill_channel(&self.sessions, session, recording, by, reason);
        let (by, reason) = (by.to_owned(), reason.to_owned());
        self.or_elsewhere(here, session, Order::KillChannel { session, recording, by, reason })
    }

    fn is_open(&self, session: Uuid, recording: Uuid) -> Option<bool> {
        Killer::is_open(&self.sessions, session, recording)
    }
}

impl EndsAnywhere {
    fn or_elsewhere(
        &self,
        here: BoxFuture<'static, Result<(), KillError>>,
        session: Uuid,
        order: Order,
    ) -> BoxFuture<'static, Result<(), KillError>> {
        let processes = self.processes.clone();
        async move {
            match here.await {
                Err(KillError::NotLive) => processes.kill(session, order).await,
                told => told,
            }
        }
        .boxed()
    }
}

/// How often the dead are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The same, when they could not be buried.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(60);
/// Between two looks at something that takes moments.
const SHORTLY: Duration = Duration::from_millis(50);
/// For a process that is being ended by the kernel to be gone.
const DYING: Duration = Duration::from_secs(1);
/// For another process to end a session; it has a shorter deadline of its own.
const KILL: Duration = Duration::from_secs(15);
/// For another process to bury.
const BURIAL: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;
    use crate::record::keys::{Keys, RecordingKey};
    use crate::record::{Durability, Settings};
    use crate::store::testing::{self, Book};

    fn processes(root: &Path, book: &Book) -> (Process, Processes) {
        let settings = Settings {
            dir: root.join("recordings"),
            spool: root.join("spool"),
            durability: Durability::Process,
            keep_free: 0,
            flush_after: Duration::from_secs(3600),
            gateway: Uuid::nil(),
            keys: Keys::new(RecordingKey::random().unwrap(), Vec::new()),
        };
        let process = Process::begin(root).unwrap();
        let processes = Processes::new(&process, Store::clone(book), Recordings::open(settings).unwrap());
        (process, processes)
    }

    #[tokio::test]
    async fn a_recording_of_which_nothing_can_be_told_stays_open_and_so_does_its_process() {
        let (root, book, dead) = (tempfile::tempdir().unwrap(), Book::new(), Uuid::now_v7());
        let (_me, processes) = processes(root.path(), &book);
        let theirs = Store::clone(&book).held_by(dead);
        let (session, recording) = (testing::new_session(), testing::recording());
        theirs.begin_process(dead, 1, "1").await.unwrap();
        theirs.open_session(session.clone()).await.unwrap();
        theirs.add_recording(session.session_id, recording.clone()).await.unwrap();
        let spool = root.path().join(format!("spool/{}.spool", recording.recording_id));
        std::os::unix::fs::symlink(&spool, &spool).unwrap();
        let row = async || {
            let row = book.session(testing::socket_id(&session), session.session_id).await.unwrap().unwrap();
            (row.end_time.is_some(), row.recordings[0].state)
        };
        assert!(!processes.bury(|| {}).await.unwrap());
        assert_eq!(row().await, (true, RecordingState::Live));
        assert_eq!(book.open_processes().await.unwrap(), [dead]);
        std::fs::remove_file(spool).unwrap();
        assert!(processes.bury(|| {}).await.unwrap());
        assert_eq!(row().await, (true, RecordingState::Damaged));
        assert!(book.open_processes().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_burial_that_nobody_waits_for_any_more_is_alone_until_it_is_done() {
        let (root, book) = (tempfile::tempdir().unwrap(), Book::new());
        let (_me, processes) = processes(root.path(), &book);
        let (done, waiting) = std::sync::mpsc::channel::<()>();
        let burial = Arc::new(processes.burial().await.unwrap());
        {
            let mut digging = std::pin::pin!(processes.blocking(&burial, move |_| waiting.recv()));
            assert!(poll!(digging.as_mut()).is_pending());
        }
        drop(burial);
        let other = File::open(processes.run.burial()).unwrap();
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        drop(done);
        while other.try_lock().is_err() {
            sleep(SHORTLY).await;
        }
    }

    #[test]
    fn a_process_lives_until_its_lock_is_let_go() {
        let data = tempfile::tempdir().unwrap();
        let mut process = Process::begin(data.path()).unwrap();
        process.begun();
        let (id, run) = (process.id, process.run.clone());
        assert!(Process::lives(&run, id));
        assert!(!Process::lives(&run, Uuid::now_v7()));
        drop(process);
        assert!(!Process::lives(&run, id), "its file is still there, its lock is not");
        run.forget(id);
        assert!(!Process::lives(&run, id));
    }

    #[test]
    fn a_process_without_a_row_leaves_nothing() {
        let data = tempfile::tempdir().unwrap();
        let process = Process::begin(data.path()).unwrap();
        let alive = process.run.alive(process.id);
        assert!(alive.exists());
        drop(process);
        assert!(!alive.exists());
    }

    #[tokio::test]
    async fn a_process_whose_file_cannot_be_opened_is_not_dead() {
        let data = tempfile::tempdir().unwrap();
        let run = RunDir::open(data.path()).unwrap();
        let process = Uuid::now_v7();
        // As with no descriptor left or no right to it, but for every user: a link to itself (ELOOP).
        std::os::unix::fs::symlink(run.alive(process), run.alive(process)).unwrap();
        assert!(Process::lives(&run, process));
        assert!(!Process::has_died(&run, process).await);
        run.forget(process);
        assert!(Process::has_died(&run, process).await);
    }
}
