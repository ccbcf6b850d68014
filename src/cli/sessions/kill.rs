//! `gatescribe sessions kill`: ends a session and waits until it is down.

use reqwest::Method;
use serde_json::{Value, json};

use super::Which;
use super::row::Row;
use crate::cli::lock::next_step;
use crate::cli::{escape, print};

/// Arguments of `gatescribe sessions kill`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatescribe sessions kill 019cb0e8-3d4e --reason \"wrong server\"")]
pub struct Args {
    #[command(flatten)]
    which: Which,
    /// Why; the person in the session reads it
    #[arg(long, value_name = "WORDS")]
    reason: String,
    /// Also keep the person off the socket for so long, as 15m
    #[arg(long, value_name = "DURATION")]
    lock: Option<String>,
    /// The API's answer instead of words
    #[arg(long)]
    json: bool,
}

/// Ends a session. One that had already ended is a failure: the caller may have meant another.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let (client, row) = args.which.find().await?;
    let mut order = json!({"killed": true, "reason": args.reason});
    if let Some(lasts) = &args.lock {
        order["lock"] = lasts.as_str().into();
    }
    let answer: Value = client.send(Method::PUT, &row.path(), Some(&order)).await?;
    if args.json {
        return print(&format!("{}\n", escape::json(&answer)));
    }
    print(&words(&serde_json::from_value(answer)?))
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
