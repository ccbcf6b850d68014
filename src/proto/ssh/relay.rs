//! Carries one channel's bytes both ways, writing first: nothing is forwarded before its recording has it.
//!
//! The two directions (`directions`) are two futures in one task, so a client that reads nothing does not stop what it
//! sends, and the other way round. Here is what ends them, and how that is told on both sides.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::carried::Carried;
use super::channel::{farewell, note_cut, refuse_recorded};
use super::client::{Client, ToClient, told};
use super::connection::Connection;
use super::directions::{Beside, Ours, inward, outward, tell};
use super::notices::Notices;
use super::rights::Rights;
use crate::error::UserFacing;
use crate::policy::Denied;
use crate::record::observation::What;
use crate::record::{Ending, RecordingLost};
use crate::session::{End, Kill, Recording, Session};
use crate::store::{Event, EventStatus};
use crate::upstream::{Input, Output, Size};

/// How long a program that was sent a KILL may take to end at an SSH server, before its channel is closed. It is also the
/// signal's time to get out: russh takes channels' messages and the connection's own from two queues in no order, so a
/// goodbye that follows at once may overtake it.
const TO_DIE: Duration = Duration::from_millis(200);

/// How long what is known only at the end may take to be written down before what was started is ended.
const TO_WRITE: Duration = Duration::from_millis(200);

/// How a relay came to its end.
pub(super) enum Over {
    /// The upstream closed the channel, after it told how the program ended.
    Done,
    /// The upstream refused to start it.
    Refused,
    /// The connection to the upstream is lost.
    UpstreamLost,
    /// The client closed the channel, or went away.
    ClientGone,
    /// The session is ordered to end.
    Ordered,
    /// What the channel does is no longer allowed.
    NoLonger(Denied),
    /// This channel alone is ordered to end.
    Killed(Kill),
    /// What it carries is not what was agreed on, or not allowed.
    Stopped(&'static str),
    /// Not recordable any more.
    Lost(RecordingLost),
}

/// What the upstream told about the program's end.
#[derive(Default)]
pub(super) struct Program {
    pub(super) status: Option<u32>,
    pub(super) ended: bool,
}

/// One channel while it carries bytes.
pub(super) struct Relay<'a> {
    pub(super) connection: &'a Connection,
    pub(super) session: &'a Session,
    pub(super) recording: Recording,
    /// What the channel does; it tells when that is no longer allowed.
    pub(super) rights: Rights,
    /// What the gateway has to say in between, where that does no harm.
    pub(super) notices: Option<Notices>,
    /// The terminal's, at first.
    pub(super) size: Option<Size>,
    /// Bytes that it has carried, from the client and to it.
    pub(super) passed: (u64, u64),
    /// What its bytes mean, where that is known, and answers of our own to the client.
    pub(super) carried: Option<(Carried<'a>, mpsc::Receiver<Bytes>)>,
}

impl Relay<'_> {
    /// Relays until one side ends it, then closes the other and the recording.
    /// The bytes that it carried both ways, where it was read what they mean.
    pub(super) async fn run(mut self, mut client: Client, mut input: Input, mut output: Output) -> (u64, u64) {
        let mut program = Program::default();
        let client_eof = AtomicBool::new(false);
        let mut beside = Beside { notices: self.notices.take(), carried: None, answers: None };
        let carried = self.carried.take().map(|(carried, answers)| {
            beside.answers = Some(answers);
            carried
        });
        beside.carried = carried.as_ref();
        let ours = Ours { session: self.session, recording: &self.recording };
        if let (Some(carried), Some(size)) = (&carried, self.size) {
            // A recording that is lost is seen below.
            let _ = carried.resize(ours, size).await;
        }
        let over = tokio::select! {
            biased;
            () = self.session.until_ending() => Over::Ordered,
            denied = self.rights.until_refused() => Over::NoLonger(denied),
            kill = self.recording.until_killed() => Over::Killed(kill),
            lost = self.recording.until_lost() => Over::Lost(lost),
            over = outward(ours, &mut output, &client.to, &mut program, &client_eof, &mut beside) => over,
            over = inward(ours, &mut client.from, &mut input, &client_eof, carried.as_ref()) => over,
        };
        self.notices = beside.notices;
        if let Some(carried) = &carried {
            // Before the recording is sealed. A recording that is lost has nowhere to write it. Whoever is to be ended is
            // not to live on because the book is slow.
            match over {
                Over::Ordered | Over::NoLonger(_) | Over::Killed(_) => {
                    let _ = timeout(TO_WRITE, carried.finish(ours)).await;
                }
                _ => carried.finish(ours).await,
            }
            self.passed = carried.passed();
        }
        let passed = self.passed;
        self.finish(over, client.to, input, output, program).await;
        passed
    }

    async fn finish(mut self, over: Over, client: ToClient, mut input: Input, output: Output, program: Program) {
        let back = self.notices.as_mut().and_then(Notices::give_back);
        let Self { session, recording, .. } = &self;
        let ending = match &over {
            Over::Lost(lost) => {
                session.end(End::RecordingLost(lost.told()));
                Ending::Cut(lost.to_string())
            }
            _ => Ending::Complete,
        };
        match over {
            Over::Done => {
                client.close().await;
                input.close().await;
            }
            Over::Refused => {
                refuse_recorded(session, &client, recording, "the server refused to start it").await;
                input.close().await;
            }
            Over::UpstreamLost => {
                let words = "the connection to the server is lost";
                // The reason first: the client may be gone as soon as it is told.
                session.end(End::UpstreamFailed(words.into()));
                refuse_recorded(session, &client, recording, words).await;
            }
            Over::ClientGone => input.close().await,
            Over::Ordered if !session.ended().is_some_and(|end| end.is_told()) => input.close().await,
            Over::Ordered | Over::Lost(_) => {
                self.dismiss(&farewell(session), back, &client, input, output, &program).await
            }
            Over::NoLonger(denied) => {
                // What was started is ended first: the book may be slow.
                self.dismiss(&denied.to_string(), back, &client, input, output, &program).await;
                note_cut(session, recording, &denied).await;
            }
            Over::Killed(kill) => self.dismiss(&kill.words(), back, &client, input, output, &program).await,
            Over::Stopped(words) => {
                self.dismiss(words, back, &client, input, output, &program).await;
                let about = json!({ "recording_id": recording.id(), "reason": words });
                session.note(Event::now("stopped", EventStatus::Denied, about)).await;
            }
        }
        self.recording.finish(ending, program.status);
    }

    /// Gives the terminal back as it was, tells the user why, and ends meanwhile what was started.
    async fn dismiss(
        &self,
        words: &str,
        back: Option<String>,
        client: &ToClient,
        mut input: Input,
        mut output: Output,
        program: &Program,
    ) {
        let ours = Ours { session: self.session, recording: &self.recording };
        let goodbye = async {
            if let Some(back) = back {
                let _ = timeout(super::GOODBYE, tell(ours, client, back)).await;
            }
            let _ = self.recording.record(What::Told { text: told(words) }).await;
            client.dismiss(words).await;
        };
        let end = async {
            // An SSH server that passes it on ends what was started; closing alone hangs it up.
            if client.is_of_program() && !program.ended {
                let killed = async {
                    let _ = input.signal("KILL").await;
                    output.until_closed().await;
                };
                let _ = timeout(TO_DIE, killed).await;
            }
            let _ = timeout(super::GOODBYE, input.close()).await;
            output.end().await
        };
        let ((), ended) = tokio::join!(goodbye, end);
        if !ended && !program.ended {
            self.connection.leaves_something();
        }
    }
}
