//! `gatescribe sessions play`: replays a recording in this terminal: of the gateway, or a file (asciicast, or the
//! recording as it is kept). Space pauses, `.` goes one step on, `q` or Ctrl-C ends it.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::cast_lines::{CastLines, CastWhat, Size};
use super::{Which, WhichRecording};
use crate::cli::client::{Options, explain};
use crate::cli::stage::{Did, Stage};
use crate::cli::verify;
use crate::record::export::cast::{CastOptions, write_cast};
use crate::record::{Reader, Verdict};

/// Arguments of `gatescribe sessions play`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Keys: space pauses, . goes one step on while paused, q ends.\nExample: gatescribe sessions play session.cast --speed 4 --idle-limit 2"
)]
pub struct Args {
    #[command(flatten)]
    options: Options,
    /// A session's id, or a file: .cast (asciicast v2, v3) or .gsr (a recording as it is kept)
    #[arg(value_name = "ID|FILE")]
    what: String,
    /// One recording of several: its id, or the beginning of it
    #[arg(long, value_name = "ID")]
    recording: Option<String>,
    /// How many times as fast
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = factor)]
    speed: f64,
    /// The longest pause, in seconds of the recording
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    idle_limit: Option<f64>,
    /// Begin here, in seconds: what came before is shown at once
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0, value_parser = seconds)]
    start: f64,
    /// End here, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    max: Option<f64>,
    /// The recording key that a .gsr file is encrypted with
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
}

/// Replays.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    super::needs_terminal()?;
    let path = Path::new(&args.what);
    let (file, note) = match path.exists() {
        true => open(path, &args.key).with_context(|| format!("{} cannot be played", path.display()))?,
        false if args.what.contains(['/', '.']) => bail!("there is no file {}", path.display()),
        false => (download(&args).await?, None),
    };
    let (lines, size) = CastLines::open(BufReader::new(file))?;
    play(&args, lines, size).await?;
    match note {
        Some(note) => {
            eprintln!("{note}");
            Ok(ExitCode::FAILURE)
        }
        None => Ok(ExitCode::SUCCESS),
    }
}

async fn play(args: &Args, mut lines: CastLines<impl BufRead>, size: Size) -> anyhow::Result<()> {
    if let Some(words) = Stage::too_small(size.cols, size.rows) {
        eprintln!("{words}");
        sleep(TO_READ).await;
    }
    let mut stage = Stage::open()?;
    let mut pace = Pace { paused: false };
    let mut now = 0.0;
    let mut small = None;
    while let Some(event) = lines.next_event()? {
        if args.max.is_some_and(|max| event.at > max) {
            break;
        }
        let since = if event.at <= args.start { 0.0 } else { event.at - f64::max(now, args.start) };
        now = event.at;
        let since = args.idle_limit.map_or(since, |limit| since.min(limit)) / args.speed;
        // What no clock can count is no pause.
        let wait = Duration::try_from_secs_f64(since).unwrap_or(LONGEST);
        if !pace.until(&mut stage, wait.min(LONGEST)).await {
            break;
        }
        match event.what {
            CastWhat::Output(text) => stage.show(&text)?,
            CastWhat::Resize(cols, rows) => small = Stage::too_small(cols, rows).or(small),
        }
    }
    drop(stage);
    if let Some(words) = small {
        eprintln!("{words}");
    }
    Ok(())
}

/// The time between events, which keys stop and step.
struct Pace {
    paused: bool,
}

impl Pace {
    /// Waits until the next event's time; false when it is to end.
    async fn until(&mut self, stage: &mut Stage, wait: Duration) -> bool {
        let mut left = wait;
        loop {
            if left.is_zero() && !self.paused {
                // Also where nothing is waited for, a key counts.
                tokio::task::yield_now().await;
            }
            let began = Instant::now();
            tokio::select! {
                biased;
                did = stage.did() => {
                    if !self.paused {
                        left = left.saturating_sub(began.elapsed());
                    }
                    match did {
                        Did::Quit => return false,
                        Did::Key(b' ') => self.paused = !self.paused,
                        Did::Key(b'.') if self.paused => return true,
                        Did::Key(_) => {}
                    }
                }
                () = sleep(left), if !self.paused => return true,
            }
        }
    }
}

/// A file as a cast, and what is to be said at its end.
fn open(path: &Path, keys: &[PathBuf]) -> anyhow::Result<(File, Option<String>)> {
    if path.extension().is_none_or(|extension| extension != "gsr") {
        return Ok((File::open(path)?, None));
    }
    let keys = verify::load(keys).map_err(anyhow::Error::msg)?;
    let mut reader = Reader::open_file(path, keys.as_ref())?;
    if keys.is_none() && reader.header().encrypted()? {
        bail!("it is encrypted; name its key with --key (the gateway keeps it as recording.key)");
    }
    let options = CastOptions { started: reader.header().started, title: None, input: false, opaque: false };
    let mut file = scratch()?;
    write_cast(reader.by_ref(), &options, BufWriter::new(&mut file))?;
    file.rewind()?;
    let note = match reader.verdict() {
        Verdict::Complete => None,
        Verdict::Live => Some("this recording is still being made".to_owned()),
        Verdict::Truncated { at } => Some(format!("this recording is cut after {:.1} seconds", at.as_secs_f64())),
        Verdict::Damaged { at, why } => {
            Some(format!("this recording is damaged after {:.1} seconds: {why}", at.as_secs_f64()))
        }
    };
    Ok((file, note))
}

/// Fetches a recording before it is played: a person may pause for as long as they like, and the gateway does not wait.
async fn download(args: &Args) -> anyhow::Result<File> {
    let which = WhichRecording {
        which: Which { options: args.options.clone(), id: args.what.clone() },
        recording: args.recording.clone(),
    };
    let (client, row) = which.find().await?;
    let recording = which.recording(&row)?;
    let query = [("recording_id", recording.recording_id.to_string()), ("format", "cast".to_owned())];
    let mut answer = client.stream(&format!("{}/session_log", row.path()), &query).await?;
    let mut file = scratch()?;
    while let Some(piece) = answer.chunk().await.map_err(|error| explain(client.base(), &error))? {
        file.write_all(&piece)?;
    }
    file.rewind()?;
    Ok(file)
}

/// A file that nobody else can open and that goes with the process.
fn scratch() -> anyhow::Result<File> {
    let path: PathBuf = std::env::temp_dir().join(format!("gatescribe-{}", Uuid::new_v4()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
    let file = file.with_context(|| path.display().to_string())?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

fn factor(typed: &str) -> Result<f64, String> {
    let factor = typed.parse::<f64>().ok().filter(|factor| (0.01..=1000.0).contains(factor));
    factor.ok_or_else(|| "a number from 0.01 to 1000".to_owned())
}

fn seconds(typed: &str) -> Result<f64, String> {
    let seconds = typed.parse::<f64>().ok().filter(|seconds| (0.0..=1e9).contains(seconds));
    seconds.ok_or_else(|| "a number of seconds".to_owned())
}

/// For a line to be read before the terminal is used.
const TO_READ: Duration = Duration::from_secs(2);
/// The longest wait for an event; keys work meanwhile.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
