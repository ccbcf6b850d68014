//! `gatescribe sessions text`: what was on the screen, as text. The gateway makes it safe to print; it is escaped here
//! again, because the terminal is this machine's.

use reqwest::Response;

use super::WhichRecording;
use crate::cli::client::explain;
use crate::cli::{escape, print};

/// Arguments of `gatescribe sessions text`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatescribe sessions text 019cb0e8-3d4e --view all | less")]
pub struct Args {
    #[command(flatten)]
    which: WhichRecording,
    /// screen: what a person saw; all: every byte, escapes made visible
    #[arg(long, value_name = "VIEW", default_value = "screen", value_parser = ["screen", "all"])]
    view: String,
    /// Also what was typed; the session's log tells that you asked
    #[arg(long)]
    input: bool,
}

/// Prints one recording, or all of a session, each with a line of its own before it.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let (client, row) = args.which.find().await?;
    let recordings = args.which.recordings(&row)?;
    let several = recordings.len() > 1;
    for recording in recordings {
        if several {
            print(&format!("== {}  {}\n", recording.recording_id, recording.title()))?;
        }
        let mut query = vec![
            ("recording_id", recording.recording_id.to_string()),
            ("format", "text".to_owned()),
            ("view", args.view.clone()),
        ];
        if args.input {
            query.push(("input", "true".to_owned()));
        }
        let answer = client.stream(&format!("{}/session_log", row.path()), &query).await?;
        copy(client.base(), answer).await?;
    }
    Ok(())
}

async fn copy(base: &reqwest::Url, mut answer: Response) -> anyhow::Result<()> {
    let mut safe = escape::Lines::default();
    while let Some(piece) = answer.chunk().await.map_err(|error| explain(base, &error))? {
        print(&safe.piece(&piece))?;
    }
    print(&safe.end())
}
