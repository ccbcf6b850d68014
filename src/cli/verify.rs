//! `gatescribe verify`: are recordings whole? Needs no gateway and, for the chain of hashes, no key.
//!
//! Files are taken for hostile: what is printed of them is escaped.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::fail;
use crate::record::ReadError;
use crate::record::keys::{self, Keys, RecordingKey};
use crate::record::verify::{self, Checked, Checkup, Depth};

/// Arguments of `gatescribe verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatescribe verify --key /var/lib/gatescribe/recording.key recording.gsr\n\n\
                        Exit code 0 when every file is complete, else 1.")]
pub struct Args {
    /// Recordings (.gsr)
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A file with a recording key: decrypts too, and proves who wrote it; may be repeated
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// One JSON object for each file, one a line
    #[arg(long)]
    json: bool,
}

/// Checks every file and tells of each. Exits with 0 when all are complete, 1 when not, 2 when a key cannot be used.
pub fn run(args: &Args) -> ExitCode {
    let keys = match load(&args.key) {
        Ok(keys) => keys,
        Err(words) => {
            let _ = fail(&words);
            return ExitCode::from(2);
        }
    };
    let mut complete = true;
    for file in &args.files {
        let checked = verify::check(file, keys.as_ref());
        complete &= matches!(&checked, Ok(Checked { verdict: Checkup::Complete, .. }));
        let line = match args.json {
            true => object(file, &checked).to_string(),
            false => format!("{}: {}", shown(&file.to_string_lossy()), words(&checked)),
        };
        if writeln!(io::stdout(), "{line}").is_err() {
            return ExitCode::FAILURE;
        }
    }
    if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The keys in these files; `None` where there are no files.
pub(super) fn load(files: &[PathBuf]) -> Result<Option<Keys>, String> {
    let load = |path: &PathBuf| RecordingKey::load(path).map_err(|error| format!("{}: {error}", path.display()));
    let mut keys = files.iter().map(load).collect::<Result<Vec<_>, _>>()?.into_iter();
    Ok(keys.next().map(|first| Keys::new(first, keys.collect())))
}

fn words(checked: &Result<Checked, ReadError>) -> String {
    let checked = match checked {
        Ok(checked) => checked,
        Err(ReadError::Damaged(why)) => return format!("damaged at 0 bytes: {why}"),
        Err(error) => return format!("cannot be checked: {}", unreadable(error)),
    };
    let depth = match checked.depth {
        Depth::Decrypted => "decrypted and checked".to_owned(),
        Depth::Plain => "not encrypted".to_owned(),
        Depth::Chain => match &keys::key_ids(&checked.header)[..] {
            [] => "chain of hashes checked, encrypted".to_owned(),
            ids => format!("chain of hashes checked, encrypted with the key {}", ids.join(" or ")),
        },
    };
    let ended = checked.ended.map_or_else(String::new, |at| format!(", ended {at}"));
    let found = format!("{} observations{ended}, {depth}", checked.observations);
    let at = match checked.last {
        Some(last) => format!("{} bytes ({:.3} s)", checked.good, last.as_secs_f64()),
        None => format!("{} bytes", checked.good),
    };
    match &checked.verdict {
        Checkup::Complete => format!("complete: {found}"),
        Checkup::Truncated(why) => format!("truncated at {at}: {}; {found}", shown(why)),
        Checkup::Damaged(why) => format!("damaged at {at}: {}; {found}", shown(why)),
    }
}

fn object(file: &Path, checked: &Result<Checked, ReadError>) -> Value {
    let file = file.to_string_lossy();
    let checked = match checked {
        Ok(checked) => checked,
        Err(ReadError::Damaged(why)) => {
            return json!({"file": file, "verdict": "damaged", "reason": why.to_string(), "good_bytes": 0});
        }
        Err(error) => return json!({"file": file, "verdict": "unreadable", "reason": unreadable(error)}),
    };
    let (verdict, reason) = match &checked.verdict {
        Checkup::Complete => ("complete", None),
        Checkup::Truncated(why) => ("truncated", Some(why)),
        Checkup::Damaged(why) => ("damaged", Some(why)),
    };
    json!({
        "file": file,
        "verdict": verdict,
        "reason": reason,
        "good_bytes": checked.good,
        "good_seconds": checked.last.map(|last| last.as_secs_f64()),
        "observations": checked.observations,
        "session_id": checked.header.session,
        "recording_id": checked.header.recording,
        "start_time": checked.header.started,
        "end_time": checked.ended,
        "encrypted": checked.depth != Depth::Plain,
        "decrypted": checked.depth == Depth::Decrypted,
        "keys": keys::key_ids(&checked.header),
    })
}

fn unreadable(error: &ReadError) -> String {
    match error {
        ReadError::NotFound => "there is no such file".to_owned(),
        ReadError::UnknownKey(ids) if !ids.is_empty() => {
            format!("it is encrypted with the key {}, which was not given with --key", ids.join(" or "))
        }
        ReadError::UnknownKey(_) => "it is encrypted for others, not for a key that was given with --key".to_owned(),
        other => other.to_string(),
    }
}

/// Without what a terminal would act on.
fn shown(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_unescaped() {
        assert_eq!(shown("a\x1b]0;x\x07\u{9b}31mé\n"), "a\\u{1b}]0;x\\u{7}\\u{9b}31mé\\n");
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let missing = Err(ReadError::NotFound);
        assert_eq!(words(&missing), "cannot be checked: there is no such file");
        assert_eq!(object(Path::new("x"), &missing)["verdict"], "unreadable");
        let shut = ReadError::UnknownKey(vec!["1f3a".into()]);
        assert!(unreadable(&shut).contains("1f3a"));
    }
}
