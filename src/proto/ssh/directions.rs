//! A relay's two directions: what comes from one side is recorded, then given to the other.
//!
//! Each waits only for its own receiver's window. What the gateway says itself, notices and answers in the channel's own
//! protocol, is put in between where it does no harm.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::carried::{Carried, Onward};
use super::client::{Did, FromClient, ToClient};
use super::notices::Notices;
use super::relay::{Over, Program};
use crate::record::RecordingLost;
use crate::record::observation::{Direction, What};
use crate::session::{Recording, Session};
use crate::upstream::{Input, Output, Said};

/// How long a client's EOF waits for the program's end to be told.
const EOF_HELD: Duration = Duration::from_secs(1);

/// What both directions write into.
#[derive(Clone, Copy)]
pub(super) struct Ours<'a> {
    pub(super) session: &'a Session,
    pub(super) recording: &'a Recording,
}

/// What goes to the client beside what the upstream says.
pub(super) struct Beside<'a> {
    pub(super) notices: Option<Notices>,
    pub(super) carried: Option<&'a Carried<'a>>,
    pub(super) answers: Option<mpsc::Receiver<Bytes>>,
}

impl Ours<'_> {
    /// Records something that is activity.
    async fn record(&self, what: What) -> Result<(), RecordingLost> {
        self.session.touch();
        self.recording.record(what).await
    }
}

/// From the client to the upstream.
pub(super) async fn inward(
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
pub(super) async fn outward(
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
pub(super) async fn tell(ours: Ours<'_>, client: &ToClient, text: String) -> Result<(), Over> {
    ours.recording.record(What::Told { text: text.clone() }).await.map_err(Over::Lost)?;
    client.send(0, Bytes::from(text)).await.map_err(|_| Over::ClientGone)
}
