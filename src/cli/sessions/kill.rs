//! `gatescribe sessions kill`: ends a session, or one channel of it, and waits until it is down.

use anyhow::bail;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Which;
use super::row::{Recording, Row};
use crate::cli::lock::next_step;
use crate::cli::{escape, print};

/// Arguments of `gatescribe sessions kill`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: gatescribe sessions kill 019cb0e8-3d4e --reason \"wrong server\"\nExample: gatescribe sessions kill 019cb0e8-3d4e --channel 019cb0e8-47a1 --reason \"wrong file\""
)]
pub struct Args {
    #[command(flatten)]
    which: Which,
    /// Why; the person in the session reads it
    #[arg(long, value_name = "WORDS")]
    reason: String,
    /// Only the channel with this recording: its id, or as much of its beginning as no other in the session has
    #[arg(long, value_name = "RECORDING")]
    channel: Option<String>,
    /// Also keep the person off the socket for so long, as 15m
    #[arg(long, value_name = "DURATION", conflicts_with = "channel")]
    lock: Option<String>,
    /// The API's answer instead of words
    #[arg(long)]
    json: bool,
}

/// Ends a session, or a channel. One that had already ended is a failure: the caller may have meant another.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let (client, row) = args.which.find().await?;
    let mut order = json!({"killed": true, "reason": args.reason});
    if let Some(lasts) = &args.lock {
        order["lock"] = lasts.as_str().into();
    }
    let channel = args.channel.as_deref().map(|begun| recording(&row, begun)).transpose()?;
    if let Some(recording) = channel {
        order["recording_id"] = recording.to_string().into();
    }
    let answer: Value = client.send(Method::PUT, &row.path(), Some(&order)).await?;
    if args.json {
        return print(&format!("{}\n", escape::json(&answer)));
    }
    let row = serde_json::from_value(answer)?;
    print(&channel.map_or_else(|| words(&row), |recording| channel_words(&row, recording)))
}

/// The recording that is meant; an error names those that may be.
fn recording(row: &Row, begun: &str) -> anyhow::Result<Uuid> {
    let wanted = begun.trim().to_ascii_lowercase();
    // One that is not recorded has no row here, but it may be open.
    if let Ok(whole) = Uuid::try_parse(&wanted) {
        return Ok(whole);
    }
    let begins = |one: &&Recording| !wanted.is_empty() && one.recording_id.to_string().starts_with(&wanted);
    let found: Vec<_> = row.recordings.iter().filter(begins).collect();
    let named = |all: &mut dyn Iterator<Item = &Recording>| {
        all.map(|one| format!("\n  {}  {}", one.recording_id, one.title())).collect::<String>()
    };
    match found.as_slice() {
        [one] => Ok(one.recording_id),
        [] => {
            let open = named(&mut row.recordings.iter().filter(|one| one.end_time.is_none()));
            let open = if open.is_empty() { "no channel is open".into() } else { format!("these are open:{open}") };
            bail!("the session has no recording {}; {open}", escape::line(begun))
        }
        several => bail!(
            "more than one recording begins with {}; give more of the id{}",
            escape::line(begun),
            named(&mut several.iter().copied())
        ),
    }
}

fn channel_words(row: &Row, recording: Uuid) -> String {
    let title = row.recordings.iter().find(|one| one.recording_id == recording).map(Recording::title);
    let title = title.map(|title| format!(" ({title})")).unwrap_or_default();
    let rest = if row.is_live() { "its session goes on" } else { "its session has ended, too" };
    let (who, socket) = (escape::line(&row.user_email), escape::line(&row.socket_name));
    format!("channel {recording}{title} of {who} on {socket} is ended; {rest}\n")
}

fn words(row: &Row) -> String {
    let ended = format!(
        "session {} of {} on {}",
        row.session_id,
        escape::line(&row.user_email),
        escape::line(&row.socket_name)
    );
    let remaining = match row.remaining.as_deref() {
        Some("none") => "nothing of it still runs".to_owned(),
        Some("unknown") | None => "whether something of it still runs is not known".to_owned(),
        Some(still) => format!("this still runs: {}", escape::line(still)),
    };
    let ended = match row.outcome.as_deref() {
        Some("killed") => format!("{ended} is ended; {remaining}\n"),
        outcome => format!("{ended} had just come to its own end ({})\n", escape::line(outcome.unwrap_or("unknown"))),
    };
    ended + &locked(row).unwrap_or_default()
}

/// About the lock that came with this order, if one did.
fn locked(row: &Row) -> Option<String> {
    let order = row.events.iter().rev().find(|event| event.kind == "kill")?;
    let lock = order.metadata.get("lock_id")?.as_str()?.parse().ok()?;
    let (who, socket) = (escape::line(&row.user_email), escape::line(&row.socket_name));
    Some(format!("{who} is locked out of {socket}; {}", next_step(lock)))
}
