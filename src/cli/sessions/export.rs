//! `gatescribe sessions export`: a recording into a file. What breaks off never looks whole: the file gets its name
//! when all of it is there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use reqwest::{Response, Url};

use super::WhichRecording;
use super::show::bytes;
use crate::cli::Usage;
use crate::cli::client::explain;

/// Arguments of `gatescribe sessions export`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatescribe sessions export 019cb0e8-3d4e --output session.cast")]
pub struct Args {
    #[command(flatten)]
    which: WhichRecording,
    /// cast (asciicast v2), cast3, text, or raw (as it is kept, with what was typed)
    #[arg(long, value_name = "FORMAT", default_value = "cast", value_parser = ["cast", "cast3", "text", "raw"])]
    format: String,
    /// Where to write; - is standard output [default: RECORDING.FORMAT in this directory]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Also what was typed; the session's log tells that you asked
    #[arg(long)]
    input: bool,
    /// Write over a file that is there
    #[arg(long)]
    force: bool,
}

/// Exports one recording.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let to_stdout = args.output.as_deref() == Some(Path::new("-"));
    if to_stdout && io::stdout().is_terminal() {
        let words = "a recording may do anything to a terminal; name a file, or use sessions play or sessions text";
        return Err(Usage(words.into()).into());
    }
    let (client, row) = args.which.find().await?;
    let recording = args.which.recording(&row)?;
    let suffix = if args.format == "raw" { "gsr" } else { &args.format };
    let path = args.output.unwrap_or_else(|| format!("{}.{suffix}", recording.recording_id).into());
    if !to_stdout && !args.force && path.symlink_metadata().is_ok() {
        bail!("{} is there already; name another file with --output, or --force", path.display());
    }
    let mut query = vec![("recording_id", recording.recording_id.to_string()), ("format", args.format.clone())];
    if args.input {
        query.push(("input", "true".to_owned()));
    }
    let answer = client.stream(&format!("{}/session_log", row.path()), &query).await?;
    if to_stdout {
        copy(client.base(), answer, &mut io::stdout().lock()).await?;
        return Ok(());
    }
    let size = tokio::select! {
        saved = save(client.base(), answer, &path, args.force) => saved?,
        // Not the default, which would leave a part behind.
        _ = tokio::signal::ctrl_c() => bail!("given up; nothing was written"),
    };
    eprintln!("{}: {}", path.display(), bytes(size));
    Ok(())
}

/// Writes beside the file and renames at the end. Readable by its owner alone.
async fn save(base: &Url, answer: Response, path: &Path, force: bool) -> anyhow::Result<u64> {
    let mut name = path.as_os_str().to_owned();
    // Of this process alone: two exports must not write into one file.
    name.push(format!(".{}.partial", std::process::id()));
    let partial = Partial(name.into());
    let named = || partial.0.display().to_string();
    let mut file = create(&partial.0).with_context(named)?;
    let size = copy(base, answer, &mut file).await?;
    file.sync_all().with_context(named)?;
    let renamed = match force {
        true => fs::rename(&partial.0, path),
        // Fails where a file has come to be there in the meantime, which a rename would write over.
        false => match fs::hard_link(&partial.0, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => fs::rename(&partial.0, path),
            linked => linked,
        },
    };
    renamed.with_context(|| path.display().to_string())?;
    Ok(size)
}

fn create(path: &Path) -> io::Result<File> {
    let _ = fs::remove_file(path);
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// A file that is removed unless it got its real name.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Copies it all and says on a terminal how far it is.
async fn copy(base: &Url, mut answer: Response, out: &mut impl Write) -> anyhow::Result<u64> {
    let tells = io::stderr().is_terminal();
    let (mut size, mut told) = (0u64, Instant::now());
    while let Some(piece) = answer.chunk().await.map_err(|error| explain(base, &error))? {
        out.write_all(&piece)?;
        size += piece.len() as u64;
        if tells && told.elapsed() >= TELL {
            eprint!("\r{:<20}", bytes(size));
            told = Instant::now();
        }
    }
    if tells {
        eprint!("\r{:<20}\r", "");
    }
    out.flush()?;
    Ok(size)
}

/// How often progress is told.
const TELL: Duration = Duration::from_millis(200);
