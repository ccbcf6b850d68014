//! What a channel carries, while it passes: asks its [`Reading`], and does what that says, in order.
//!
//! Whatever is worth a line goes into the recording at once, and into the session by a task of its own: the book may be
//! slow, and a transfer of many small files is not to wait for it. The queue between them has an end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use serde_json::json;
use tokio::sync::mpsc;

use super::client::ToClient;
use super::connection::Connection;
use super::directions::{self, Ours};
use super::relay::Over;
use super::together::Together;
use crate::policy::Action;
use crate::record::observation::{Direction, What};
use crate::store::{Event, EventStatus};
use crate::upstream::{Input, Size};
use crate::wire::{Fact, Outcome, Reading, Side, Step, Stop, disguise};

/// Lines of one channel that stand in the session. All of them stand in the recording.
const LINES: u64 = 10_000;

/// Lines that wait for the book; then the channel waits.
const WAITING: usize = 256;

/// Answers of our own that wait for a place between the upstream's messages; then the client waits.
const ANSWERS: usize = 256;

/// What one channel carries.
pub(super) struct Carried<'a> {
    connection: &'a Connection,
    reading: Mutex<Box<dyn Reading>>,
    /// The larger of two rights that it may need.
    more: Option<Action>,
    answers: mpsc::Sender<Bytes>,
    /// To the session; there once something was told.
    lines: OnceLock<mpsc::Sender<Event>>,
    told: AtomicU64,
    passed: [AtomicU64; 2],
}

/// Where bytes go on to.
pub(super) enum Onward<'a> {
    In(&'a mut Input),
    Out(&'a ToClient),
}

impl<'a> Carried<'a> {
    /// A channel, with where its answers come out. The session hears by a task of the connection.
    pub(super) fn new(
        connection: &'a Connection,
        reading: impl Reading + 'static,
        more: Option<Action>,
    ) -> (Self, mpsc::Receiver<Bytes>) {
        let (answers, come) = mpsc::channel(ANSWERS);
        let reading: Mutex<Box<dyn Reading>> = Mutex::new(Box::new(reading));
        let (lines, told) = (OnceLock::new(), AtomicU64::new(0));
        (Self { connection, reading, more, answers, lines, told, passed: Default::default() }, come)
    }

    /// Reads what came, writes it down and carries it on.
    pub(super) async fn carry(&self, ours: Ours<'_>, data: Bytes, mut onward: Onward<'_>) -> Result<(), Over> {
        let may = self.more.as_ref().is_none_or(|more| ours.session.allows(more).is_ok());
        let (mut steps, mut together) = (Vec::new(), Together::new(data.clone()));
        let read = match onward {
            Onward::In(_) => self.reading().input(data, may, &mut steps),
            Onward::Out(_) => self.reading().output(data, may, &mut steps),
        };
        for step in steps {
            self.take(ours, step, &mut onward, &mut together).await?;
        }
        self.pass(together.take(), &mut onward).await?;
        read.map_err(|Stop { words }| Over::Stopped(words))
    }

    /// The terminal has this size.
    pub(super) async fn resize(&self, ours: Ours<'_>, size: Size) -> Result<(), Over> {
        let mut steps = Vec::new();
        self.reading().resize(size.cols, size.rows, &mut steps);
        for step in steps {
            if let Step::Tell(fact) = step {
                self.tell(ours, fact).await?;
            }
        }
        Ok(())
    }

    /// Whether an answer may be put into what goes to the client now.
    pub(super) fn is_between(&self) -> bool {
        self.reading().is_between()
    }

    /// The channel has ended: writes down what is known only now.
    pub(super) async fn finish(&self, ours: Ours<'_>) {
        let mut steps = Vec::new();
        self.reading().finish(&mut steps);
        for step in steps {
            let written = match step {
                Step::Tell(fact) => self.tell(ours, fact).await,
                Step::Left(side, data) => write(ours, direction_of(side), data).await,
                _ => Ok(()),
            };
            if written.is_err() {
                return;
            }
        }
    }

    /// Bytes that were carried on, from the client and to it.
    pub(super) fn passed(&self) -> (u64, u64) {
        let [inward, outward] = &self.passed;
        (inward.load(Ordering::Relaxed), outward.load(Ordering::Relaxed))
    }

    async fn take(
        &self,
        ours: Ours<'_>,
        step: Step,
        onward: &mut Onward<'_>,
        together: &mut Together,
    ) -> Result<(), Over> {
        let direction = onward.direction();
        match step {
            Step::Pass(data) => {
                write(ours, direction, data.clone()).await?;
                self.pass(together.add(data), onward).await
            }
            Step::PassUnkept(data) => {
                withhold(ours, direction, data.len() as u64).await?;
                self.pass(together.add(data), onward).await
            }
            Step::Refuse(data) => write(ours, direction, data).await,
            Step::Left(side, data) => write(ours, direction_of(side), data).await,
            Step::RefuseUnkept(bytes) => withhold(ours, direction, bytes).await,
            Step::Answer(data) => {
                // The client may have to see what the upstream says to this, before there is a place for ours.
                self.pass(together.take(), onward).await?;
                write(ours, Direction::Output, data.clone()).await?;
                self.answers.send(data).await.map_err(|_| Over::ClientGone)
            }
            Step::Tell(fact) => self.tell(ours, fact).await,
        }
    }

    async fn pass(&self, data: Option<Bytes>, onward: &mut Onward<'_>) -> Result<(), Over> {
        let Some(data) = data else { return Ok(()) };
        let [inward, outward] = &self.passed;
        let (count, bytes) = (if matches!(onward, Onward::In(_)) { inward } else { outward }, data.len() as u64);
        match onward {
            // What the upstream does not take any more is its own affair: the other direction sees how it ended.
            Onward::In(input) => drop(input.send(data).await),
            Onward::Out(client) => client.send(0, data).await.map_err(|_| Over::ClientGone)?,
        }
        count.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    async fn tell(&self, ours: Ours<'_>, fact: Fact) -> Result<(), Over> {
        let Fact { kind, outcome, mut about } = fact;
        let status = match outcome {
            Outcome::Done => EventStatus::Success,
            Outcome::Denied => EventStatus::Denied,
            Outcome::Failed => EventStatus::Error,
        };
        if about["carries"] == "ssh" && kind == disguise::KIND {
            ours.recording.becomes_opaque();
        }
        let body = json!({ "type": kind, "status": status, "metadata": about });
        directions::record(ours, What::Fact { body: Bytes::from(body.to_string()) }).await?;
        about["recording_id"] = ours.recording.id().to_string().into();
        let told = self.told.fetch_add(1, Ordering::Relaxed);
        match told {
            ..LINES => drop(self.lines().send(Event::now(kind, status, about)).await),
            LINES => {
                let about = json!({
                    "recording_id": ours.recording.id(),
                    "reason": "more than stands here; the recording has all of it",
                });
                let _ = self.lines().send(Event::now("more", EventStatus::Success, about)).await;
            }
            // A summary is the last thing that is told.
            _ if kind == crate::wire::SUMMARY => drop(self.lines().send(Event::now(kind, status, about)).await),
            _ => {}
        }
        Ok(())
    }

    /// The way into the session, by a task that ends with the channel.
    fn lines(&self) -> &mpsc::Sender<Event> {
        self.lines.get_or_init(|| {
            let (lines, mut written) = mpsc::channel::<Event>(WAITING);
            if let Some(session) = self.connection.session() {
                self.connection.spawn_beside(async move {
                    while let Some(event) = written.recv().await {
                        session.note(event).await;
                    }
                });
            }
            lines
        })
    }

    fn reading(&self) -> MutexGuard<'_, Box<dyn Reading>> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Onward<'_> {
    fn direction(&self) -> Direction {
        match self {
            Self::In(_) => Direction::Input,
            Self::Out(_) => Direction::Output,
        }
    }
}

fn direction_of(side: Side) -> Direction {
    match side {
        Side::Client => Direction::Input,
        Side::Upstream => Direction::Output,
    }
}

async fn write(ours: Ours<'_>, direction: Direction, data: Bytes) -> Result<(), Over> {
    directions::record(ours, What::Bytes { direction, stream: 0, data }).await
}

async fn withhold(ours: Ours<'_>, direction: Direction, bytes: u64) -> Result<(), Over> {
    directions::record(ours, What::Withheld { direction, bytes }).await
}
