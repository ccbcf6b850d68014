//! One follower for each recording that is watched, shared by its watchers: one reader, one emulator, then fan-out.
//!
//! A follower reads the recording (spool and container), never the session. Its watchers sit on a ring; who falls out of
//! it asks for the screen as it is and goes on from there. Reading and emulating happen on blocking threads, a few at a
//! time.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::ring::{Place, Ring, Snapshot, Updates};
use super::screen::{Event, Screen};
use crate::api::shares::{Limits, NoShare, Share, Shares};
use crate::record::{Follower, Look, Recordings, Verdict};
use crate::store::{Owner, RecordingRow};

/// What is watched. Cheap to clone.
#[derive(Clone)]
pub struct Watches(Arc<Shared>);

struct Shared {
    recordings: Recordings,
    followed: Mutex<HashMap<Uuid, mpsc::Sender<Join>>>,
    /// A place for each recording that is followed.
    places: Shares,
    /// A permit for each look that runs.
    looks: Semaphore,
}

/// Why a recording cannot be watched.
#[derive(Debug, thiserror::Error)]
pub(super) enum WatchError {
    #[error("too many recordings are being watched; try again later")]
    TooMany,
    #[error("you are watching too many recordings at once; leave one of them")]
    TooManyOwn,
    #[error("the recording cannot be read")]
    Read(#[source] io::Error),
}

/// A watcher's place: the screen at one point, and everything after it.
pub(super) struct Joined {
    pub(super) screen: Arc<Snapshot>,
    pub(super) updates: Updates,
}

type Join = oneshot::Sender<Joined>;

impl Watches {
    /// Nothing is watched yet.
    pub fn new(recordings: Recordings) -> Self {
        let (places, looks) = (Shares::new(FOLLOWED), Semaphore::new(LOOKS));
        let shared = Shared { recordings, followed: Mutex::default(), places, looks };
        Self(Arc::new(shared))
    }

    /// Gives the screen as it is and a place to go on from. The first watcher of a long recording waits until it has been
    /// read, and has it counted as theirs: `of` is somebody who reaches only their own recordings.
    pub(super) async fn join(
        &self,
        session: Uuid,
        recording: &RecordingRow,
        of: Option<&Owner>,
    ) -> Result<Joined, WatchError> {
        // A follower can come to its end just as it is asked; then the next one is a new one.
        for _ in 0..3 {
            let joins = self.follower(session, recording, of).await?;
            let (join, joined) = oneshot::channel();
            if joins.send(join).await.is_ok()
                && let Ok(joined) = joined.await
            {
                return Ok(joined);
            }
        }
        Err(WatchError::Read(io::Error::other("the recording's follower failed")))
    }

    async fn follower(
        &self,
        session: Uuid,
        recording: &RecordingRow,
        of: Option<&Owner>,
    ) -> Result<mpsc::Sender<Join>, WatchError> {
        let id = recording.recording_id;
        if let Some(joins) = self.known(id) {
            return Ok(joins);
        }
        let place = self.0.places.take(of.cloned())?;
        let follower = self.0.recordings.follow(session, id, recording.start_time).await;
        let follower = follower.map_err(|error| WatchError::Read(io::Error::other(error)))?;
        let mut followed = lock(&self.0.followed);
        // Somebody else may have been quicker.
        if let Some(joins) = followed.get(&id).filter(|joins| !joins.is_closed()) {
            return Ok(joins.clone());
        }
        let (joins, joining) = mpsc::channel(JOINS);
        followed.insert(id, joins.clone());
        let following = Following {
            shared: Arc::clone(&self.0),
            id,
            ring: Ring::new(),
            joining,
            waiting: Vec::new(),
            asked: None,
            _place: place,
        };
        tokio::spawn(following.run(Eye { follower, screen: Screen::new(), place: Place::default() }));
        Ok(joins)
    }

    fn known(&self, recording: Uuid) -> Option<mpsc::Sender<Join>> {
        lock(&self.0.followed).get(&recording).filter(|joins| !joins.is_closed()).cloned()
    }

    /// How many recordings are followed.
    #[cfg(test)]
    pub(super) fn followed(&self) -> usize {
        lock(&self.0.followed).len()
    }
}

/// What goes to a blocking thread and comes back.
struct Eye {
    follower: Follower,
    screen: Screen,
    place: Place,
}

impl Eye {
    /// Reads and emulates what comes next. Blocks.
    fn look(&mut self) -> io::Result<(Vec<Event>, Place, Look)> {
        let mut observations = Vec::new();
        let look = self.follower.look(LOOK, &mut observations).map_err(io::Error::other)?;
        let before = self.place;
        let events = self.screen.take(observations);
        self.place = before.after(&events);
        Ok((events, before, look))
    }
}

/// One recording's follower.
struct Following {
    shared: Arc<Shared>,
    id: Uuid,
    ring: Ring,
    joining: mpsc::Receiver<Join>,
    waiting: Vec<Join>,
    /// Since when the first of `waiting` waits.
    asked: Option<Instant>,
    _place: Share,
}

impl Following {
    async fn run(mut self, eye: Eye) {
        match self.follow(eye).await {
            Ok((eye, verdict)) => self.end(&eye, verdict),
            Err(error) => {
                tracing::error!(recording = %self.id, error = &error as &dyn std::error::Error, "watching failed");
                self.close();
            }
        }
    }

    fn end(mut self, eye: &Eye, verdict: Verdict) {
        self.close();
        // Nobody watched, so it is no end. Who has asked since is not answered here, and asks the next follower.
        if verdict == Verdict::Live {
            return;
        }
        self.welcome(eye);
        self.ring.over(verdict);
    }

    /// Until the recording is over, or nobody watches any more.
    async fn follow(&mut self, mut eye: Eye) -> io::Result<(Eye, Verdict)> {
        loop {
            let look;
            (eye, look) = self.look(eye).await?;
            if let Look::Over(verdict) = look {
                return Ok((eye, verdict));
            }
            self.take_joins();
            let at_end = look == Look::AtEnd;
            if at_end || self.asked.is_some_and(|asked| asked.elapsed() > PATIENCE) {
                self.welcome(&eye);
            }
            if self.waiting.is_empty() && !self.ring.is_watched() && self.nobody_joins() {
                return Ok((eye, Verdict::Live));
            }
            if at_end {
                // What comes in the meantime goes out together.
                sleep(PACE).await;
                tokio::select! {
                    () = eye.follower.until_grown() => {}
                    Some(join) = self.joining.recv() => self.ask(join),
                }
            }
        }
    }

    async fn look(&self, mut eye: Eye) -> io::Result<(Eye, Look)> {
        let _permit = self.shared.looks.acquire().await.map_err(io::Error::other)?;
        let looked = tokio::task::spawn_blocking(move || {
            let seen = eye.look()?;
            io::Result::Ok((eye, seen))
        });
        // A panic ends this follower alone: what it reads is written by attackers.
        let (eye, (events, place, look)) = looked.await.map_err(io::Error::other)??;
        if !events.is_empty() {
            self.ring.tell(events, place);
        }
        Ok((eye, look))
    }

    fn take_joins(&mut self) {
        while let Ok(join) = self.joining.try_recv() {
            self.ask(join);
        }
    }

    fn ask(&mut self, join: Join) {
        self.asked.get_or_insert_with(Instant::now);
        self.waiting.push(join);
    }

    /// Gives everybody who waits the screen as it is.
    fn welcome(&mut self, eye: &Eye) {
        self.asked = None;
        if self.waiting.is_empty() {
            return;
        }
        let screen = Arc::new(Snapshot { dump: eye.screen.dump(), place: eye.place });
        for join in std::mem::take(&mut self.waiting) {
            // Subscribed between two looks, so that nothing is missed or told twice. Who went away is not there.
            let _ = join.send(Joined { screen: Arc::clone(&screen), updates: self.ring.subscribe() });
        }
    }

    /// Takes the follower off the table if nobody is about to join.
    fn nobody_joins(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let mut followed = lock(&shared.followed);
        self.take_joins();
        let nobody = self.waiting.is_empty();
        if nobody {
            self.forget(&mut followed);
        }
        nobody
    }

    /// Lets nobody join any more, and takes those who had asked before.
    fn close(&mut self) {
        let shared = Arc::clone(&self.shared);
        let mut followed = lock(&shared.followed);
        self.forget(&mut followed);
        self.take_joins();
    }

    fn forget(&mut self, followed: &mut HashMap<Uuid, mpsc::Sender<Join>>) {
        self.joining.close();
        // A successor may stand there already.
        if followed.get(&self.id).is_some_and(mpsc::Sender::is_closed) {
            followed.remove(&self.id);
        }
    }
}

impl From<NoShare> for WatchError {
    fn from(why: NoShare) -> Self {
        match why {
            NoShare::Full => Self::TooMany,
            NoShare::Own => Self::TooManyOwn,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Recordings that are followed at once. Each has a ring, an emulator and a piece of the spool in memory.
const FOLLOWED: Limits = Limits { all: 256, own: 192, each: 8 };
/// Looks at once: a bound on the blocking threads, and on the processors, that watching takes.
const LOOKS: usize = 4;
/// Bytes of a recording that one look takes at about the most.
const LOOK: usize = 256 << 10;
/// Watchers that ask at once; the next ones wait.
const JOINS: usize = 64;
/// The shortest time between two looks at the end of a recording.
const PACE: Duration = Duration::from_millis(15);
/// How long who joins waits for the follower to come to the recording's end.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use jiff::Timestamp;
    use tokio::sync::broadcast::error::RecvError;

    use super::super::ring::{LOOKS, Update};
    use super::super::speak::Protocol;
    use super::*;
    use crate::api::testing::recordings;
    use crate::record::observation::{Direction, What};
    use crate::record::{Budget, Ending, NewRecording, Tap};
    use crate::socket::OnFailure;
    use crate::store::testing::recording;

    struct Live {
        dir: tempfile::TempDir,
        watches: Watches,
        tap: Tap,
        session: Uuid,
        row: RecordingRow,
    }

    impl Live {
        async fn start() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let recordings = recordings(dir.path());
            let (tap, session, row) = Self::record(&recordings).await;
            Self { dir, watches: Watches::new(recordings), tap, session, row }
        }

        /// A new recording.
        async fn record(recordings: &Recordings) -> (Tap, Uuid, RecordingRow) {
            let row = RecordingRow { start_time: Timestamp::now(), ..recording() };
            let session = Uuid::now_v7();
            let new = NewRecording {
                session,
                recording: row.recording_id,
                kind: "shell".into(),
                started: row.start_time,
                on_failure: OnFailure::EndSession,
                budget: Budget::new(u64::MAX),
            };
            let tap = recordings.create(new).await.unwrap();
            tap.record(What::Pty { term: "xterm".into(), cols: 40, rows: 5 }).await.unwrap();
            (tap, session, row)
        }

        async fn join(&self) -> Joined {
            self.watches.join(self.session, &self.row, None).await.unwrap()
        }

        async fn print(&self, text: impl Into<Bytes>) {
            let what = What::Bytes { direction: Direction::Output, stream: 0, data: text.into() };
            self.tap.record(what).await.unwrap();
        }
    }

    /// Follows until an event's output, or the screen, holds these words.
    async fn until(joined: &mut Joined, words: &str) {
        if joined.screen.dump.text.contains(words) {
            return;
        }
        loop {
            let Update::Events(events) = joined.updates.recv().await.unwrap() else { panic!("over before {words}") };
            let told = events.told(Protocol::Asciicast3, false);
            if told.iter().any(|message| message.to_text().is_ok_and(|text| text.contains(words))) {
                return;
            }
        }
    }

    #[tokio::test]
    async fn watchers_share_one_follower_that_goes_with_the_last() {
        let live = Live::start().await;
        live.print("before").await;
        let mut first = live.join().await;
        assert!(first.screen.dump.text.contains("before"));
        assert_eq!((first.screen.dump.cols, first.screen.dump.rows), (40, 5));
        live.print("between").await;
        until(&mut first, "between").await;
        let mut second = live.join().await;
        assert!(second.screen.dump.text.contains("beforebetween"));
        live.print("behind").await;
        until(&mut first, "behind").await;
        until(&mut second, "behind").await;
        assert_eq!(live.watches.followed(), 1);
        drop((first, second));
        while live.watches.followed() > 0 {
            tokio::time::sleep(PACE).await;
        }
        assert!(live.join().await.screen.dump.text.contains("behind"), "somebody may come back");
    }

    #[tokio::test]
    async fn who_falls_behind_goes_on_from_the_screen_as_it_is() {
        let live = Live::start().await;
        let (mut slow, mut quick) = (live.join().await, live.join().await);
        for n in 0..2 * LOOKS {
            live.print(format!("\r{n}.")).await;
            until(&mut quick, &format!("{n}.")).await;
        }
        assert!(matches!(slow.updates.recv().await, Err(RecvError::Lagged(_))));
        let again = live.join().await;
        assert!(again.screen.dump.text.contains(&format!("{}.", 2 * LOOKS - 1)));
        assert_eq!(again.screen.again(Protocol::Alis, false).len(), 1);
    }

    impl Live {
        /// A follower that nobody runs.
        async fn following(&self) -> (Following, Eye, mpsc::Sender<Join>) {
            let shared = Arc::clone(&self.watches.0);
            let id = self.row.recording_id;
            let follower = shared.recordings.follow(self.session, id, self.row.start_time).await.unwrap();
            let (joins, joining) = mpsc::channel(JOINS);
            let place = shared.places.take(None).unwrap();
            let ring = Ring::new();
            let following = Following { shared, id, ring, joining, waiting: Vec::new(), asked: None, _place: place };
            (following, Eye { follower, screen: Screen::new(), place: Place::default() }, joins)
        }
    }

    #[tokio::test]
    async fn who_asks_a_follower_that_just_goes_asks_the_next_one() {
        let live = Live::start().await;
        let (following, eye, joins) = live.following().await;
        let (join, joined) = oneshot::channel();
        joins.send(join).await.unwrap();
        following.end(&eye, Verdict::Live);
        assert!(joined.await.is_err(), "not told that a live recording is over");
        assert!(joins.is_closed());
    }

    #[tokio::test]
    async fn the_end_is_told_to_those_who_watch_and_to_those_who_come_late() {
        let live = Live::start().await;
        let mut joined = live.join().await;
        live.print("last words").await;
        live.tap.finish(Ending::Complete).await;
        for joined in [&mut joined, &mut live.join().await] {
            until(joined, "last words").await;
            let over = joined.updates.recv().await.unwrap();
            assert!(matches!(over, Update::Over(Verdict::Complete)));
            assert!(matches!(joined.updates.recv().await, Err(RecvError::Closed)));
        }
        assert_eq!(live.watches.followed(), 0);
    }

    #[tokio::test]
    async fn one_person_does_not_take_all_places() {
        let live = Live::start().await;
        let alice = Owner::of(&crate::api::testing::person("alice"));
        let mut watched = Vec::new();
        for _ in 0..FOLLOWED.each {
            let (tap, session, row) = Live::record(&live.watches.0.recordings).await;
            watched.push((live.watches.join(session, &row, Some(&alice)).await.unwrap(), tap));
        }
        let again = async || live.watches.join(live.session, &live.row, Some(&alice)).await;
        assert!(matches!(again().await, Err(WatchError::TooManyOwn)));
        let other = live.join().await;
        assert!(again().await.is_ok(), "it is followed anyway");
        drop((other, watched));
        while live.watches.followed() > 0 {
            tokio::time::sleep(PACE).await;
        }
        // A follower is off the table a moment before its place is given back.
        while matches!(again().await, Err(WatchError::TooManyOwn)) {
            tokio::time::sleep(PACE).await;
        }
    }

    /// As between an upgrade's two processes: only files are shared.
    #[tokio::test]
    async fn a_recording_that_is_made_elsewhere_is_followed_too() {
        let live = Live::start().await;
        let elsewhere = Watches::new(recordings(live.dir.path()));
        live.print("before").await;
        let mut joined = elsewhere.join(live.session, &live.row, None).await.unwrap();
        assert!(joined.screen.dump.text.contains("before"));
        live.print("behind").await;
        until(&mut joined, "behind").await;
        live.tap.finish(Ending::Complete).await;
        assert!(matches!(joined.updates.recv().await, Ok(Update::Over(Verdict::Complete))));
    }
}
