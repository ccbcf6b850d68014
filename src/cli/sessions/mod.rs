//! `gatescribe sessions`: the session log from the terminal. One file per command; here is how a session is found.

mod cast_lines;
mod export;
mod kill;
mod list;
mod play;
mod row;
mod show;
mod text;
mod watch;

use std::io::{IsTerminal as _, stdout};
use std::process::ExitCode;

use anyhow::bail;
use jiff::{SignedDuration, Timestamp};

pub(super) use self::list::{duration, time};
pub use self::row::{Event, Recording, Row};
use super::client::{Client, Options};
use super::{Usage, escape, run_client};

/// Arguments of `gatescribe sessions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatescribe sessions list --live")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List sessions, newest first
    List(list::Args),
    /// Show one session with its events and recordings
    Show(show::Args),
    /// Replay a recording in this terminal
    Play(play::Args),
    /// Watch a live session in this terminal
    Watch(watch::Args),
    /// Print what was on the screen, as text
    Text(text::Args),
    /// End a session or one channel of it, and wait until it is down
    Kill(kill::Args),
    /// Write a recording into a file
    Export(export::Args),
}

/// Which session: every command on one has these.
#[derive(Debug, clap::Args)]
pub struct Which {
    #[command(flatten)]
    options: Options,
    /// The session's id, or as much of its beginning as no other has
    id: String,
}

/// Which recording of a session.
#[derive(Debug, clap::Args)]
pub struct WhichRecording {
    #[command(flatten)]
    which: Which,
    /// One recording of several: its id, or the beginning of it
    #[arg(long, value_name = "ID")]
    recording: Option<String>,
}

/// Runs the command that was typed.
pub fn run(args: Args) -> ExitCode {
    match args.command {
        Command::List(args) => run_client(list::run(args)),
        Command::Show(args) => run_client(show::run(args)),
        Command::Play(args) => run_client(play::run(args)),
        Command::Watch(args) => run_client(watch::run(args)),
        Command::Text(args) => run_client(text::run(args)),
        Command::Kill(args) => run_client(kill::run(args)),
        Command::Export(args) => run_client(export::run(args)),
    }
}

impl Which {
    /// The session, with all its events and recordings, and a client to ask more with.
    pub async fn find(&self) -> anyhow::Result<(Client, Row)> {
        let begun = Begun::parse(&self.id)?;
        let client = Client::open(&self.options)?;
        let row = find(&client, &begun).await?;
        let row = client.get_json(&row.path(), &[]).await?;
        Ok((client, row))
    }
}

impl WhichRecording {
    /// The session, as [`Which::find`] finds it.
    pub async fn find(&self) -> anyhow::Result<(Client, Row)> {
        self.which.find().await
    }

    /// The recording that was asked for, or the only one; with several and none asked for, an error names them.
    pub fn recording<'a>(&self, row: &'a Row) -> anyhow::Result<&'a Recording> {
        let found: Vec<_> = self.recordings(row)?;
        match found.as_slice() {
            [one] => Ok(one),
            several => {
                let lines = several.iter().map(|one| format!("\n  {}  {}", one.recording_id, one.title()));
                bail!(
                    "the session has {} recordings; choose one with --recording{}",
                    found.len(),
                    lines.collect::<String>()
                )
            }
        }
    }

    /// The recording that was asked for, or all; an error if there is none.
    pub fn recordings<'a>(&self, row: &'a Row) -> anyhow::Result<Vec<&'a Recording>> {
        let wanted = self.recording.as_deref().unwrap_or_default().to_ascii_lowercase();
        let found = row.recordings.iter().filter(|one| one.recording_id.to_string().starts_with(&wanted));
        let found: Vec<_> = found.collect();
        match (found.is_empty(), &self.recording) {
            (true, Some(id)) => bail!("the session has no recording {}", escape::line(id)),
            (true, None) => bail!("the session has no recording"),
            _ => Ok(found),
        }
    }
}

/// The beginning of a session's id. Ids are UUIDs of version 7: they begin with the time, so the list can be asked for
/// the few that may be meant.
struct Begun {
    text: String,
    from: Timestamp,
    to: Timestamp,
}

impl Begun {
    fn parse(typed: &str) -> anyhow::Result<Self> {
        let typed = typed.trim().to_ascii_lowercase();
        let digits: String = typed.chars().filter(|c| *c != '-').collect();
        let text = hyphenated(&digits);
        // With its hyphens or without any.
        let has_form = typed == digits || typed.trim_end_matches('-') == text;
        let is_hex = digits.chars().all(|c| c.is_ascii_hexdigit());
        if !has_form || !is_hex || !(SHORTEST..=32).contains(&digits.len()) {
            let words =
                format!("{} is no session id; give at least its first {SHORTEST} characters", escape::line(&typed));
            return Err(Usage(words).into());
        }
        // 48 bits of milliseconds are twelve digits.
        let time: String = digits.chars().take(12).collect();
        let unknown = 4 * (12 - time.len());
        let first = i64::from_str_radix(&time, 16)? << unknown;
        let at = |milliseconds| Timestamp::from_millisecond(milliseconds).map_err(|_| no_session());
        let (from, to) = (at(first)? - MARGIN, at(first + (1 << unknown))? + MARGIN);
        Ok(Self { text, from, to })
    }
}

async fn find(client: &Client, begun: &Begun) -> anyhow::Result<Row> {
    let mut found: Vec<Row> = Vec::new();
    for page in 1..=MOST_PAGES {
        let query = [
            ("start_after", begun.from.to_string()),
            ("start_before", begun.to.to_string()),
            ("page_size", "1000".to_owned()),
            ("page", page.to_string()),
        ];
        let list: row::List = client.get_json("/api/v1/sessions", &query).await?;
        for row in list.session_logs {
            // Pages shift while they are read, so that a row may come twice.
            let is_new = found.iter().all(|known| known.session_id != row.session_id);
            if is_new && row.session_id.to_string().starts_with(&begun.text) {
                found.push(row);
            }
        }
        if found.len() > 1 {
            bail!("more than one session begins with {}; give more of the id", begun.text);
        }
        if list.pagination.next_page == 0 {
            return found.pop().ok_or_else(no_session);
        }
    }
    bail!("too many sessions were opened around that time; give more of the id")
}

/// The digits of a UUID, or its first ones, as UUIDs are written.
fn hyphenated(digits: &str) -> String {
    let piece = |(at, digit)| if matches!(at, 8 | 12 | 16 | 20) { vec!['-', digit] } else { vec![digit] };
    digits.chars().enumerate().flat_map(piece).collect()
}

/// For what draws on a terminal: into a pipe it would be escapes, at the speed of life.
fn needs_terminal() -> Result<(), Usage> {
    match stdout().is_terminal() {
        true => Ok(()),
        false => Err(Usage("this draws on a terminal; for a pipe there are: gatescribe sessions text, export".into())),
    }
}

fn no_session() -> anyhow::Error {
    anyhow::anyhow!("there is no such session, or you may not see it")
}

/// Fewer digits would mean days of sessions.
const SHORTEST: usize = 8;
/// Pages of a thousand.
const MOST_PAGES: u32 = 20;
/// A session's id and its start are not made at the same instant.
const MARGIN: SignedDuration = SignedDuration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_an_id_tells_when() {
        let at: Timestamp = "2026-03-01T10:00:00.25Z".parse().unwrap();
        let id = uuid::Builder::from_unix_timestamp_millis(at.as_millisecond().unsigned_abs(), &[7; 10]).into_uuid();
        let id = id.to_string();
        for length in [8, 9, 10, 12, 13, 14, 18, 20, 36] {
            let begun = Begun::parse(&id[..length]).unwrap();
            assert!(begun.from <= at - MARGIN && begun.to >= at + MARGIN, "{length}: {} to {}", begun.from, begun.to);
            let window = begun.to.duration_since(begun.from);
            assert!(window <= MARGIN * 2 + SignedDuration::from_millis(1 << 16), "{length}: {window}");
        }
        assert_eq!(Begun::parse(&format!(" {} ", id.to_uppercase())).unwrap().text, id);
        assert_eq!(Begun::parse(&id.replace('-', "")[..14]).unwrap().text, id[..16]);
    }

    #[test]
    fn what_is_no_id_is_wrong_usage() {
        for typed in
            ["", "019", "0123456", "0123456x", "01234567-89a-b", "0123-4567", "01234567--89ab", "g".repeat(36).as_str()]
        {
            let error = Begun::parse(typed).err().unwrap_or_else(|| panic!("{typed}"));
            assert!(error.is::<Usage>(), "{typed}: {error}");
        }
        let long = "01234567-89ab-7def-8123-0123456789abc";
        assert!(Begun::parse(long).is_err());
        assert!(!Begun::parse("ffffffff").err().unwrap().is::<Usage>(), "a time that does not exist");
    }
}
