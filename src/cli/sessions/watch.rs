//! `gatescribe sessions watch`: a live session in this terminal, as its user sees it. Ctrl-C or `q` leaves; the session
//! goes on.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::WhichRecording;
use super::cast_lines::size;
use crate::cli::client::WebSocket;
use crate::cli::escape;
use crate::cli::stage::{Did, Stage};

/// Arguments of `gatescribe sessions watch`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatescribe sessions watch 019cb0e8-3d4e\nCtrl-C or q leaves; the session goes on.")]
pub struct Args {
    #[command(flatten)]
    which: WhichRecording,
}

/// What an event is to a watcher.
enum Shown {
    Output(String),
    /// The session's terminal has another size: columns, rows.
    Size(u16, u16),
    Nothing,
}

/// How watching ended.
enum Over {
    Left,
    Closed(Option<CloseFrame>),
}

/// Watches until the session ends or the person leaves.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    super::needs_terminal()?;
    let (client, row) = args.which.find().await?;
    if !row.is_live() {
        bail!("this session has ended; replay it with: gatescribe sessions play {}", row.session_id);
    }
    let mut query = Vec::new();
    // Left to the gateway otherwise: the newest that is live.
    if args.which.recording.is_some() {
        query.push(("recording_id", args.which.recording(&row)?.recording_id.to_string()));
    }
    let path = format!("{}/watch", row.path());
    let (mut socket, _) = client.websocket(&path, &query, &["v3.asciicast"]).await?;
    let over = show(&mut socket).await?;
    match over {
        Over::Left => {
            // Said in order, so that the session's log has the end at once. Nothing depends on it.
            let _ = timeout(GOODBYE, socket.close(None)).await;
            Ok(ExitCode::SUCCESS)
        }
        Over::Closed(Some(frame)) => {
            eprintln!("{}", escape::line(&frame.reason));
            let ended = u16::from(frame.code) == ENDED;
            Ok(if ended { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Over::Closed(None) => bail!("the connection to the gateway broke off"),
    }
}

async fn show(socket: &mut WebSocket) -> anyhow::Result<Over> {
    // The first message has the size; what is wrong with it is said before the terminal is taken.
    let header = timeout(BEGIN, socket.next()).await.map_err(|_| anyhow!("the gateway sends nothing to watch"))?;
    let small = match header {
        Some(Ok(Message::Text(header))) => too_small(&header)?,
        Some(Ok(Message::Close(frame))) => return Ok(Over::Closed(frame)),
        _ => return Ok(Over::Closed(None)),
    };
    if let Some(words) = &small {
        eprintln!("{words}");
        sleep(TO_READ).await;
    }
    let mut stage = Stage::open()?;
    stage.clear()?;
    let (over, small) = follow(&mut stage, socket).await?;
    drop(stage);
    if let Some(words) = small {
        eprintln!("{words}");
    }
    Ok(over)
}

/// Follows to the end, and says whether the session's terminal grew too large for this one on the way.
async fn follow(stage: &mut Stage, socket: &mut WebSocket) -> anyhow::Result<(Over, Option<String>)> {
    let mut small = None;
    loop {
        let message = tokio::select! {
            did = stage.did() => match did {
                Did::Quit => return Ok((Over::Left, small)),
                Did::Key(_) => continue,
            },
            message = timeout(SILENCE, socket.next()) => message,
        };
        match message {
            Ok(Some(Ok(Message::Text(line)))) => match shown(&line)? {
                Shown::Output(text) => stage.show(&text)?,
                Shown::Size(cols, rows) => small = Stage::too_small(cols, rows).or(small),
                Shown::Nothing => {}
            },
            Ok(Some(Ok(Message::Close(frame)))) => return Ok((Over::Closed(frame), small)),
            Ok(Some(Ok(_))) => {}
            Ok(Some(Err(_)) | None) | Err(_) => return Ok((Over::Closed(None), small)),
        }
    }
}

fn too_small(header: &str) -> anyhow::Result<Option<String>> {
    let header: Value = serde_json::from_str(header).context("the gateway sends something else than asciicast")?;
    let side = |name: &str| header["term"][name].as_u64().and_then(|size| u16::try_from(size).ok()).unwrap_or_default();
    Ok(Stage::too_small(side("cols"), side("rows")))
}

fn shown(line: &str) -> anyhow::Result<Shown> {
    let (_, code, data): (Value, String, Value) =
        serde_json::from_str(line).context("the gateway sends something else than asciicast")?;
    Ok(match (code.as_str(), data) {
        ("o", Value::String(text)) => Shown::Output(text),
        ("r", Value::String(text)) => size(&text).map_or(Shown::Nothing, |(cols, rows)| Shown::Size(cols, rows)),
        _ => Shown::Nothing,
    })
}

/// The close code of a recording that is over (RFC 6455 section 7.4.1).
const ENDED: u16 = 1000;
/// For the first message: a long recording is read first.
const BEGIN: Duration = Duration::from_secs(60);
/// The gateway asks every twenty seconds whether somebody is there.
const SILENCE: Duration = Duration::from_secs(65);
/// For a line to be read before the screen is cleared.
const TO_READ: Duration = Duration::from_secs(2);
/// For closing in order.
const GOODBYE: Duration = Duration::from_secs(1);
