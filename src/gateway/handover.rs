//! An upgrade that drops nothing: a new process takes the listening sockets, the old one serves what it has.
//!
//! ```text
//! new                                  old
//!  ├── hand over ─────────────────────► goes on accepting
//!  │◄─ listeners, lock of data_dir ────┤
//!  │   builds everything               │
//!  ├── ready ─────────────────────────► stops accepting; clients wait in the sockets' queues
//!  │◄─ yours ──────────────────────────┤
//!  ├── taken ─────────────────────────► ends links and menus that wait, lets go of listeners and lock
//!  │◄─ over ───────────────────────────┤
//!  │   signs the lock, accepts, tells  │ ends with its last session,
//!  │   the service manager, hangs up   │ but not before the line
//! ```
//! The sockets and the lock are the same ones in both processes, so nobody is refused and the lock is never free. Until
//! `over` the old one can go on as if nothing had been: it does when the new one dies, gives up or falls silent. It must
//! not end before the service manager knows the new one, or that takes the end of its main process for the service's.
//!
//! Who is to be asked the next time stands in the lock's file. So the new one signs it last, and an old one that goes on
//! signs it again.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use uuid::Uuid;

use super::control::{Answer, Line, MESSAGE, Order};
use super::listeners::{Door, Inherited, LeadsTo};
use super::processes::Process;
use super::{GatewayError, io_error, make_private};

/// The right to serve from a data directory: its lock, held or promised.
pub struct Seat {
    pub(super) process: Process,
    pub(super) lock: File,
    /// Hung up once the service manager knows this process.
    pub(super) predecessor: Option<(Uuid, Line)>,
}

/// Whose turn it is to accept, as the accept loops and the control socket agree on it.
pub(super) struct Turn {
    phase: watch::Sender<Phase>,
    /// Whether the accept loops stand still.
    idle: watch::Sender<bool>,
    held: Mutex<Option<Held>>,
    /// Whether a new process that has taken over is known to the service manager, or gone.
    known: watch::Sender<bool>,
    /// This process.
    me: Uuid,
    handing_over: tokio::sync::Mutex<()>,
}

/// What there is to hand over.
pub(super) struct Held {
    pub(super) lock: File,
    pub(super) doors: Vec<Door>,
}

/// What the accept loops are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Accept.
    Serving,
    /// Stand still: a new process is about to take over.
    Pausing,
    /// Never again: it has.
    Retired,
}

impl Seat {
    /// Takes the lock of `data`, which is made where it is not there; or, with `upgrade`, asks the gateway that holds it
    /// to hand over its listening sockets. That gateway goes on serving until [`super::Gateway::take_over`].
    pub async fn take(data: &Path, upgrade: bool) -> Result<(Self, Option<Inherited>), GatewayError> {
        let what = format!("data_dir {}", data.display());
        make_private(data)?;
        let path = data.join("lock");
        let lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let lock = lock.map_err(io_error(&what))?;
        let process = Process::begin(data).map_err(io_error(&what))?;
        for last in [false, true] {
            match lock.try_lock() {
                Ok(()) => {
                    sign(&lock, process.id).map_err(io_error(&what))?;
                    return Ok((Self { process, lock, predecessor: None }, None));
                }
                Err(TryLockError::WouldBlock) if upgrade => {
                    let holder = signed(&lock).map_err(GatewayError::Upgrade)?;
                    match Self::ask(&process, holder).await {
                        Ok((line, lock, inherited)) => {
                            return Ok((Self { process, lock, predecessor: Some((holder, line)) }, Some(inherited)));
                        }
                        // It died before it could answer, and its lock with it.
                        Err(error) if !last && Process::has_died(&process.run, holder).await => {
                            tracing::warn!(%error, "the running gateway died");
                        }
                        Err(error) => return Err(GatewayError::Upgrade(error)),
                    }
                }
                Err(TryLockError::WouldBlock) => break,
                Err(TryLockError::Error(error)) => return Err(io_error(&what)(error)),
            }
        }
        Err(GatewayError::InUse { data_dir: data.to_owned() })
    }

    async fn ask(process: &Process, holder: Uuid) -> io::Result<(Line, File, Inherited)> {
        let mut line = Line::call(&process.run, holder).await?;
        line.say(&Order::HandOver).await?;
        let names = match line.hear(MESSAGE).await? {
            Answer::Listeners { names } => names,
            Answer::Refused { why } => return Err(io::Error::other(why)),
            other => return Err(io::Error::other(format!("it answered {other:?}"))),
        };
        let mut files = line.hear_files(names.len() + 1).await?.into_iter();
        let lock = files.next().ok_or(io::ErrorKind::UnexpectedEof)?;
        let handed = names.into_iter().zip(files.map(TcpListener::from));
        Ok((line, File::from(lock), Inherited::from_predecessor(handed)?))
    }

    /// Makes it this process' turn: whoever served until now stops accepting. To be called once everything is built.
    pub(super) async fn take_over(&mut self) -> Result<(), GatewayError> {
        let Some((holder, line)) = &mut self.predecessor else { return Ok(()) };
        let taken = async {
            line.say(&Order::Ready).await?;
            let confirms = match line.hear(TURN).await? {
                Answer::Yours { confirms } => confirms,
                Answer::Refused { why } => return Err(io::Error::other(why)),
                other => return Err(io::Error::other(format!("it answered {other:?}"))),
            };
            line.say(&Order::Taken).await?;
            if !confirms {
                return Ok(());
            }
            match line.hear(TURN).await? {
                Answer::Over => Ok(()),
                other => Err(io::Error::other(format!("it answered {other:?}"))),
            }
        };
        match taken.await {
            Ok(()) => {}
            // The lock is held in here too, so nobody else came in between.
            Err(error) if Process::has_died(&self.process.run, *holder).await => {
                tracing::warn!(%error, "the gateway before died during the upgrade");
            }
            Err(error) => return Err(GatewayError::Upgrade(error)),
        }
        // Nobody else serves any more, so this is no reason not to.
        if let Err(error) = sign(&self.lock, self.process.id) {
            tracing::error!(%error, "the lock cannot be signed: the next upgrade needs a stop");
        }
        Ok(())
    }
}

impl Turn {
    pub(super) fn new(me: Uuid, held: Held) -> Self {
        Self {
            phase: watch::Sender::new(Phase::Serving),
            idle: watch::Sender::new(true),
            held: Mutex::new(Some(held)),
            known: watch::Sender::new(false),
            me,
            handing_over: tokio::sync::Mutex::default(),
        }
    }

    /// What the accept loops follow.
    pub(super) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// The accept loops tell that they stand still, or that they do not.
    pub(super) fn set_idle(&self, idle: bool) {
        self.idle.send_replace(idle);
    }

    /// What is behind each door; none once they are handed over.
    pub(super) fn doors(&self) -> Vec<LeadsTo> {
        self.held().iter().flat_map(|held| &held.doors).map(|door| door.leads_to.clone()).collect()
    }

    /// A new handle on a door's listening socket, by its place in [`Turn::doors`]; none once they are handed over.
    pub(super) fn open(&self, door: usize) -> Option<io::Result<TcpListener>> {
        let held = self.held();
        held.as_ref().and_then(|held| held.doors.get(door)).map(|door| door.listener.try_clone())
    }

    /// Waits until the service manager knows the process that has taken over. Cancel safe.
    pub(super) async fn until_successor_is_known(&self) {
        let _ = timeout(KNOWN, self.known.subscribe().wait_for(|known| *known)).await;
    }

    /// Nothing is handed over any more: this process stops. What there was is the caller's.
    pub(super) fn close(&self) -> Option<Held> {
        self.held().take()
    }

    /// Leads the old one's side of an upgrade, from [`Order::HandOver`] on. An error means that all is as it was.
    pub(super) async fn hand_over(&self, mut line: Line) -> io::Result<()> {
        let Ok(_one_at_a_time) = self.handing_over.try_lock() else {
            return line.say(&Answer::Refused { why: "another upgrade is under way".into() }).await;
        };
        let Some((names, files)) = self.copies()? else {
            let why = "it is being stopped, or has handed over already".into();
            return line.say(&Answer::Refused { why }).await;
        };
        line.say(&Answer::Listeners { names }).await?;
        line.say_files(&files.iter().map(AsFd::as_fd).collect::<Vec<_>>()).await?;
        drop(files);
        tracing::info!(by = line.peer(), "an upgrade is under way");
        match line.hear(BUILD).await? {
            Order::Ready => {}
            other => return Err(io::Error::other(format!("it said {other:?}"))),
        }
        self.phase.send_replace(Phase::Pausing);
        match self.yield_to(&mut line).await {
            Ok(()) => {
                self.held().take();
                self.phase.send_replace(Phase::Retired);
                // It says nothing more: this waits for it to hang up.
                let _hung_up = line.hear::<Order>(KNOWN).await;
                self.known.send_replace(true);
                Ok(())
            }
            Err(error) => {
                // Before anybody accepts here again: a new one that says `taken` too late finds that it cannot.
                drop(line);
                // A new one of the version before signs early.
                let signed = self.held().as_ref().map(|held| sign(&held.lock, self.me));
                if let Some(Err(error)) = signed {
                    tracing::error!(%error, "the lock cannot be signed again: the next upgrade needs a stop");
                }
                self.phase.send_replace(Phase::Serving);
                Err(error)
            }
        }
    }

    async fn yield_to(&self, line: &mut Line) -> io::Result<()> {
        let mut idle = self.idle.subscribe();
        timeout(PAUSE, idle.wait_for(|idle| *idle)).await?.map_err(io::Error::other)?;
        if self.held().is_none() {
            return Err(io::Error::other("this process is being stopped"));
        }
        line.say(&Answer::Yours { confirms: true }).await?;
        match line.hear(TURN).await? {
            Order::Taken => {}
            other => return Err(io::Error::other(format!("it said {other:?}"))),
        }
        line.say(&Answer::Over).await
    }

    fn copies(&self) -> io::Result<Option<(Vec<String>, Vec<OwnedFd>)>> {
        let held = self.held();
        let Some(held) = held.as_ref() else { return Ok(None) };
        let mut files = vec![held.lock.as_fd().try_clone_to_owned()?];
        for door in &held.doors {
            files.push(door.listener.as_fd().try_clone_to_owned()?);
        }
        Ok(Some((held.doors.iter().map(|door| door.name.clone()).collect(), files)))
    }

    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes into the lock who holds it. At its place, because two processes share the file and its position.
fn sign(lock: &File, process: Uuid) -> io::Result<()> {
    lock.write_all_at(format!("{process}\n").as_bytes(), 0)?;
    lock.set_len(LOCK_TEXT)
}

fn signed(lock: &File) -> io::Result<Uuid> {
    let mut text = [0; LOCK_TEXT as usize];
    let told = lock.read_exact_at(&mut text, 0).ok().and_then(|()| std::str::from_utf8(&text).ok());
    let process = told.and_then(|text| text.trim().parse().ok());
    process.ok_or_else(|| io::Error::other("it is too old to hand over, or just starting"))
}

/// A UUID and a newline.
const LOCK_TEXT: u64 = 37;
/// For the new process to build itself: it may have recordings to recover.
const BUILD: Duration = Duration::from_secs(300);
/// For the accept loops to stand still: longer than their longest pause.
const PAUSE: Duration = Duration::from_secs(5);
/// For the new process to tell the service manager of itself.
const KNOWN: Duration = Duration::from_secs(30);
/// For the turn to change. Longer for the new one than the old one's pause.
const TURN: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::control::answer_calls;
    use super::*;

    /// The old one: its seat, and what it hands over.
    struct Old {
        data: tempfile::TempDir,
        id: Uuid,
        turn: Arc<Turn>,
        answering: tokio::task::JoinHandle<()>,
        process: Process,
    }

    async fn old() -> Old {
        let data = tempfile::tempdir().unwrap();
        let (Seat { process, lock, .. }, _) = Seat::take(data.path(), false).await.unwrap();
        let turn = Arc::new(Turn::new(process.id, Held { lock, doors: Vec::new() }));
        let (listener, serving) = (process.run.bind(process.id).unwrap(), turn.clone());
        let answering = tokio::spawn(answer_calls(listener, move |mut line| {
            let turn = serving.clone();
            async move {
                assert!(matches!(line.hear(MESSAGE).await.unwrap(), Order::HandOver));
                let _ = turn.hand_over(line).await;
            }
        }));
        Old { data, id: process.id, turn, answering, process }
    }

    impl Old {
        async fn until(&self, phase: Phase) {
            timeout(MESSAGE, self.turn.phase().wait_for(|now| *now == phase)).await.unwrap().unwrap();
        }

        async fn asked(&self) -> Seat {
            Seat::take(self.data.path(), true).await.unwrap().0
        }
    }

    #[tokio::test]
    async fn after_a_failed_handover_the_next_one_succeeds() {
        let old = old().await;
        let mut failing = old.asked().await;
        let (_, line) = failing.predecessor.as_mut().unwrap();
        line.say(&Order::Ready).await.unwrap();
        assert!(matches!(line.hear(MESSAGE).await.unwrap(), Answer::Yours { confirms: true }));
        // As the version before did, which then dies.
        sign(&failing.lock, failing.process.id).unwrap();
        old.until(Phase::Pausing).await;
        drop(failing);
        old.until(Phase::Serving).await;
        let mut next = old.asked().await;
        assert_eq!(next.predecessor.as_ref().unwrap().0, old.id);
        next.take_over().await.unwrap();
        old.until(Phase::Retired).await;
        assert_eq!(signed(&next.lock).unwrap(), next.process.id);
        assert_eq!(signed(&next.lock).unwrap(), next.process.id, "however often it is asked");
    }

    #[tokio::test]
    async fn a_new_one_that_is_not_told_that_it_is_over_does_not_serve() {
        let old = old().await;
        old.answering.abort();
        std::fs::remove_file(old.data.path().join(format!("run/{}.sock", old.id))).unwrap();
        let listener = old.process.run.bind(old.id).unwrap();
        let turn = old.turn.clone();
        // It goes on by itself: it has heard `taken`, but the line breaks.
        let answering = tokio::spawn(answer_calls(listener, move |mut line| {
            let turn = turn.clone();
            async move {
                assert!(matches!(line.hear(MESSAGE).await.unwrap(), Order::HandOver));
                let (names, files) = turn.copies().unwrap().unwrap();
                line.say(&Answer::Listeners { names }).await.unwrap();
                line.say_files(&files.iter().map(AsFd::as_fd).collect::<Vec<_>>()).await.unwrap();
                assert!(matches!(line.hear(MESSAGE).await.unwrap(), Order::Ready));
                line.say(&Answer::Yours { confirms: true }).await.unwrap();
                assert!(matches!(line.hear(MESSAGE).await.unwrap(), Order::Taken));
            }
        }));
        let mut new = old.asked().await;
        assert!(matches!(new.take_over().await, Err(GatewayError::Upgrade(_))));
        assert_eq!(signed(&new.lock).unwrap(), old.id);
        answering.abort();
    }
}
