//! Carries one channel's bytes both ways, writing first: nothing is forwarded before its recording has it.
//!
//! The two directions are two futures in one task. Each waits only for its own receiver's window, so a client that
//! reads nothing does not stop what it sends, and the other way round.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::carried::{Carried, Onward};
use super::channel::{Client, Did, FromClient, ToClient, farewell, note_cut, refuse_recorded, told};
use super::connection::Connection;
use super::notices::Notices;
use super::rights::Rights;
use crate::error::UserFacing;
use crate::policy::Denied;
use crate::record::observation::{Direction, What};
use crate::record::{Ending, RecordingLost};
use crate::session::{End, Kill, Recording, Session};
use crate::store::{Event, EventStatus};
use crate::upstream::{Input, Output, Said, Size};

/// How long a client's EOF waits for the program's end to be told.
const EOF_HELD: Duration = Duration::from_secs(1);

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
struct Program {
    status: Option<u32>,
    ended: bool,
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

/// What both directions write into.
#[derive(Clone, Copy)]
pub(super) struct Ours<'a> {
    pub(super) session: &'a Session,
    pub(super) recording: &'a Recording,
}

/// What goes to the client beside what the upstream says.
struct Beside<'a> {
    notices: Option<Notices>,
    carried: Option<&'a Carried<'a>>,
    answers: Option<mpsc::Receiver<Bytes>>,
}

impl Ours<'_> {
    /// Records something that is activity.
    async fn record(&self, what: What) -> Result<(), RecordingLost> {
        self.session.touch();
        self.recording.record(what).await
    }
}

/// From the client to the upstream.
async fn inward(
    ours: Ours<'_>,
    client: &mut FromClient,
    input: &mut Input,
    eof: &AtomicBool,
    carried: Option<&Carried<'_>>,
) -> Over {
    loop {
        let did = client.next().await;
        if matches!(did, Did::Eof) {
            eof.store(true, Ordering::Release);
        }
        if let (Did::Data(0, data), Some(carried)) = (&did, carried) {
            let bytes = data.len();
            if let Err(over) = carried.carry(ours, data.clone(), Onward::In(input)).await {
                return over;
            }
            client.taken(bytes);
            continue;
        }
        if let (Did::Resize(size), Some(carried)) = (&did, carried)
            && let Err(over) = carried.resize(ours, *size).await
        {
            return over;
        }
        match forward_inward(ours, client, input, did).await {
            Ok(true) => {}
            Ok(false) => return Over::ClientGone,
            Err(lost) => return Over::Lost(lost),
        }
    }
}

/// Records and forwards one thing. `false`: the client is gone. What the upstream does not take any more is its own
/// affair: the other direction sees how it ended.
async fn forward_inward(
    ours: Ours<'_>,
    client: &FromClient,
    input: &mut Input,
    did: Did,
) -> Result<bool, RecordingLost> {
    let direction = Direction::Input;
    match did {
        Did::Data(stream, data) => {
            let bytes = data.len();
            ours.record(What::Bytes { direction, stream, data: data.clone() }).await?;
            // Extended data has no meaning towards a server (RFC 4254 section 5.2): recorded, not forwarded.
            if stream == 0 {
                let _ = input.send(data).await;
            }
            client.taken(bytes);
        }
        Did::Resize(size) => {
            ours.record(What::Resize { cols: size.cols, rows: size.rows }).await?;
            let _ = input.resize(size).await;
        }
        Did::Signal(name) => {
            ours.record(What::Signal { name: name.clone() }).await?;
            let _ = input.signal(&name).await;
        }
        Did::Eof => {
            ours.record(What::Eof { direction }).await?;
            let _ = input.eof().await;
        }
        // Too late to mean anything; russh has answered them with a failure.
        Did::Terminal(_) | Did::Env(..) | Did::Agent | Did::X11(_) | Did::Start(_) => {}
        Did::Gone => return Ok(false),
    }
    Ok(true)
}

/// From the upstream to the client.
///
/// The upstream's EOF is held back until the program's end is told, for a moment at most unless the client has sent its
/// own: a client that has sent its own
/// EOF answers ours with a close, russh answers that with a close of its own, and an exit status that comes after it
/// would be lost.
async fn outward(
    ours: Ours<'_>,
    output: &mut Output,
    client: &ToClient,
    program: &mut Program,
    client_eof: &AtomicBool,
    beside: &mut Beside<'_>,
) -> Over {
    let mut held = None;
    loop {
        let said = match held {
            None => match next_or_ours(output, beside).await {
                Next::Said(said) => said,
                // It stands in the recording already.
                Next::Answer(data) => {
                    if client.send(0, data).await.is_err() {
                        return Over::ClientGone;
                    }
                    continue;
                }
                Next::Notice(text) => {
                    if let Err(over) = tell(ours, client, text).await {
                        return over;
                    }
                    continue;
                }
            },
            Some(until) => match timeout_at(until, output.next()).await {
                Ok(said) => said,
                // It would answer with a close at once, and has nothing to do but wait for ours.
                Err(_) if client_eof.load(Ordering::Acquire) => {
                    held = Some(Instant::now() + EOF_HELD);
                    continue;
                }
                Err(_) => {
                    client.eof().await;
                    held = None;
                    continue;
                }
            },
        };
        let Some(said) = said else { break };
        if !matches!(said, Said::Data(..))
            && let Some(text) = beside.notices.as_mut().and_then(Notices::give_title_back)
            && let Err(over) = tell(ours, client, text).await
        {
            return over;
        }
        if let Err(over) = forward_outward(ours, client, &said, program, beside.carried).await {
            return over;
        }
        output.taken(&said);
        if let (Said::Data(_, data), Some(notices)) = (&said, beside.notices.as_mut()) {
            notices.pass(data);
        }
        match said {
            Said::Eof if !program.ended && client.is_of_program() => held = Some(Instant::now() + EOF_HELD),
            Said::Eof => client.eof().await,
            _ if program.ended && held.take().is_some() => client.eof().await,
            _ => {}
        }
    }
    if held.is_some() {
        client.eof().await;
    }
    Over::Done
}

/// Records and forwards one thing; an EOF is only recorded.
async fn forward_outward(
    ours: Ours<'_>,
    client: &ToClient,
    said: &Said,
    program: &mut Program,
    carried: Option<&Carried<'_>>,
) -> Result<(), Over> {
    let direction = Direction::Output;
    if let (Said::Data(0, data), Some(carried)) = (said, carried) {
        return carried.carry(ours, data.clone(), Onward::Out(client)).await;
    }
    match said {
        Said::Data(stream, data) => {
            record(ours, What::Bytes { direction, stream: *stream, data: data.clone() }).await?;
            client.send(*stream, data.clone()).await.map_err(|_| Over::ClientGone)?;
        }
        Said::Eof => record(ours, What::Eof { direction }).await?,
        Said::ExitStatus(status) => {
            program.status = Some(*status);
            program.ended = true;
            record(ours, What::ExitStatus { status: *status }).await?;
            client.exit_status(*status).await;
        }
        Said::ExitSignal { signal, core_dumped, message } => {
            program.ended = true;
            record(ours, What::ExitSignal { name: signal.clone(), message: message.clone() }).await?;
            client.exit_signal(signal.clone(), *core_dumped, message.clone()).await;
        }
        Said::Refused => return Err(Over::Refused),
        Said::Lost => return Err(Over::UpstreamLost),
    }
    Ok(())
}

pub(super) async fn record(ours: Ours<'_>, what: What) -> Result<(), Over> {
    ours.record(what).await.map_err(Over::Lost)
}

/// What comes next to the client.
enum Next {
    Said(Option<Said>),
    Notice(String),
    /// An answer of our own, in the channel's protocol.
    Answer(Bytes),
}

/// Ours first, or an upstream that never pauses would keep it away; a notice waits itself for a moment in which it does no
/// harm, an answer for a place between two messages. Cancel safe.
async fn next_or_ours(output: &mut Output, beside: &mut Beside<'_>) -> Next {
    let Beside { notices, carried, answers } = beside;
    let between = carried.is_some_and(Carried::is_between);
    tokio::select! {
        biased;
        text = until_notice(notices) => Next::Notice(text),
        Some(answer) = until_answer(answers), if between => Next::Answer(answer),
        said = output.next() => Next::Said(said),
    }
}

async fn until_notice(notices: &mut Option<Notices>) -> String {
    match notices {
        Some(notices) => notices.next().await,
        None => std::future::pending().await,
    }
}

async fn until_answer(answers: &mut Option<mpsc::Receiver<Bytes>>) -> Option<Bytes> {
    match answers {
        Some(answers) => answers.recv().await,
        None => std::future::pending().await,
    }
}

/// Says something of our own between what the upstream says. No activity.
async fn tell(ours: Ours<'_>, client: &ToClient, text: String) -> Result<(), Over> {
    ours.recording.record(What::Told { text: text.clone() }).await.map_err(Over::Lost)?;
    client.send(0, Bytes::from(text)).await.map_err(|_| Over::ClientGone)
}
