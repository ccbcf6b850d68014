//! One channel's recording as its relay sees it: a tap that may be off, and a row that is always closed.

use jiff::Timestamp;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::channels::{Ordered, Place};
use super::registry::until_written;
use super::{Kill, Session};
use crate::record::observation::What;
use crate::record::{Ending, NewRecording, RecordingLost, Tap};
use crate::store::{RecordingRow, RecordingState};

/// What a channel is, as its row tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// `shell`, `exec`, `sftp`, `scp`, `rsync`, `forward`, `agent` or `x11`.
    pub name: &'static str,
    /// What its bytes are to somebody who reads them.
    pub legibility: Legibility,
}

/// What a recording's bytes are to somebody who reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Legibility {
    /// What somebody saw.
    Screen,
    /// Messages, whose meaning stands beside them.
    Structured,
    /// Bytes, and nobody pretends otherwise.
    Opaque,
}

/// The recording of one channel. Record first, forward afterwards.
pub struct Recording {
    id: Uuid,
    order: Ordered,
    /// Until its row is closed.
    place: Option<Place>,
    tap: Option<Tap>,
    sessions: super::Sessions,
    sealing: TaskTracker,
}

impl Recording {
    pub(super) async fn start(session: &Session, kind: Kind, command: Option<&[u8]>) -> Result<Self, RecordingLost> {
        let id = Uuid::now_v7();
        let (order, place) = Ordered::enrol(&session.live, id);
        let place = Some(place);
        let (sessions, sealing) = (session.sessions.clone(), session.live.sealing.clone());
        if !session.socket().record {
            return Ok(Self { id, order, place, tap: None, sessions, sealing });
        }
        let started = Timestamp::now();
        let new = NewRecording {
            session: session.id(),
            recording: id,
            kind: kind.name.into(),
            started,
            on_failure: session.socket().on_failure,
            budget: session.budget.clone(),
        };
        let tap = sessions.recordings().create(new).await?;
        let row = RecordingRow {
            recording_id: id,
            kind: kind.name.into(),
            command: command.map(|bytes| String::from_utf8_lossy(bytes).into_owned()),
            start_time: started,
            end_time: None,
            state: RecordingState::Live,
            legibility: kind.legibility.word().into(),
            size: None,
            exit_status: None,
        };
        let added = sessions.store().add_recording(session.id(), row).await;
        let recording = Self { id, order, place, tap: Some(tap), sessions, sealing };
        match added {
            Ok(()) => Ok(recording),
            // Dropped, the recording closes its row too, which may have been written if only the answer was late.
            Err(error) => Err(RecordingLost::Io(format!("the session log: {error}"))),
        }
    }

    /// The recording's id; told even where nothing is kept, as the channel's name in events.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// It was found out that what passes cannot be read.
    pub fn becomes_opaque(&self) {
        let (sessions, id) = (self.sessions.clone(), self.id);
        if self.tap.is_some() {
            self.sessions.spawn(async move {
                if let Err(error) = sessions.store().set_legibility(id, Legibility::Opaque.word()).await {
                    tracing::error!(recording = %id, %error, "a recording's legibility could not be written");
                }
            });
        }
    }

    /// Waits until this channel alone is ordered to end; says why. Cancel safe.
    pub async fn until_killed(&self) -> Kill {
        self.order.until_given().await
    }

    /// Returns once `what` is where a SIGKILL of the gateway cannot lose it. Cancel safe.
    pub async fn record(&self, what: What) -> Result<(), RecordingLost> {
        match &self.tap {
            Some(tap) => tap.record(what).await,
            None => Ok(()),
        }
    }

    /// Waits until the recording is lost, for relays that have nothing to record just now. Cancel safe.
    pub async fn until_lost(&self) -> RecordingLost {
        match &self.tap {
            Some(tap) => {
                tap.lost().cancelled().await;
                tap.loss()
            }
            None => std::future::pending().await,
        }
    }

    /// Seals the recording and closes its row, on the gateway's time.
    pub fn finish(mut self, ending: Ending, exit_status: Option<u32>) {
        self.seal(ending, exit_status);
    }

    fn seal(&mut self, ending: Ending, exit_status: Option<u32>) {
        let Some(tap) = self.tap.take() else { return };
        let (sessions, id) = (self.sessions.clone(), self.id);
        let (sealing, place) = (self.sealing.token(), self.place.take());
        self.sessions.spawn(async move {
            let _until_closed = (sealing, place);
            let finished = tap.finish(ending).await;
            let (state, size, ended) = (finished.state, finished.size, Timestamp::now());
            until_written("recording", id, || sessions.store().finish_recording(id, ended, state, size, exit_status))
                .await;
        });
    }
}

impl Legibility {
    fn word(self) -> &'static str {
        match self {
            Self::Screen => "screen",
            Self::Structured => "structured",
            Self::Opaque => "opaque",
        }
    }
}

impl Drop for Recording {
    /// A recording that nobody finished, because its channel failed on the way.
    fn drop(&mut self) {
        self.seal(Ending::Cut("its channel was given up".into()), None);
    }
}
