//! `gatescribe policy replay`: which sessions in the log a configuration's rules would have refused. Reads the book on
//! the gateway's host, also while the gateway runs.

use std::collections::HashMap;
use std::io::{IsTerminal as _, Write as _, stderr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::judge::{Kind, Refusal};
use super::{Judge, table};
use crate::cli::sessions::time;
use crate::cli::{escape, local, print};
use crate::config::{self, Config};
use crate::policy::{Action, Cause};
use crate::store::{AuthResult, PastSession, Store};

/// Sessions that are read at once.
const AT_ONCE: u32 = 1000;

/// Arguments of `gatescribe policy replay`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Runs on the gateway's host. Locks are left out.\n\n\
    Example: gatescribe policy replay --since 30d --config gatescribe.toml.new")]
pub struct Args {
    /// Sessions that began later: 2h, 30d, 2026-03-01, "2026-03-01 14:00", or RFC 3339
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = time)]
    since: Timestamp,
    /// The rules, and whose log: a configuration; left out: GATESCRIBE_CONFIG, ./config/gatescribe.toml,
    /// /etc/gatescribe/gatescribe.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// JSON instead of words
    #[arg(long)]
    json: bool,
}

/// Replays.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let loaded = config::find(args.config.as_deref()).and_then(|file| Ok((Config::load_leniently(&file)?, file)));
    let (config, file) = match loaded {
        Ok(loaded) => loaded,
        Err(errors) => {
            eprint!("{errors}");
            return Ok(ExitCode::from(2));
        }
    };
    let store = book(&config.gateway.data_dir)?;
    let found = replay(&store, &Judge::new(config), args.since).await?;
    match args.json {
        true => print(&format!("{}\n", escape::json(&found.json(args.since, &file))))?,
        false => print(&found.words(args.since, &file))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The book in this directory, to read.
pub(in crate::cli) fn book(data_dir: &Path) -> anyhow::Result<Store> {
    let path = data_dir.join("sessions.db");
    // SQLite's own words say neither which file nor why.
    std::fs::File::open(&path).with_context(|| format!("{}: run this on the gateway's host", path.display()))?;
    Store::open_read_only(&path).with_context(|| path.display().to_string())
}

/// What other rules say of what was.
#[derive(Debug, Default)]
struct Found {
    sessions: u64,
    /// Were let in, and would not be.
    refused: Groups,
    /// Were refused, and would be let in.
    let_in: Groups,
    /// Would be refused for what their sign-in was like, which their rows do not tell.
    untold: u64,
}

/// Alike ones together: by person, socket, and what stands in the way.
#[derive(Debug, Default)]
struct Groups(HashMap<Key, Group>);

/// Who, on which socket, and what stands in the way.
type Key = (String, String, Option<Kind>);

#[derive(Debug)]
struct Group {
    count: u64,
    newest: Timestamp,
    newest_id: Uuid,
    /// Of the newest.
    reason: String,
}

async fn replay(store: &Store, judge: &Judge, since: Timestamp) -> anyhow::Result<Found> {
    let mut found = Found::default();
    let mut progress = Progress::default();
    let mut after = None;
    loop {
        let page = store.past_sessions(since, after, AT_ONCE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.cursor());
        let ids = page.iter().map(|past| past.session_id).collect();
        let mut done: HashMap<Uuid, Vec<Action>> = HashMap::new();
        for (session, action) in store.done_in(ids).await? {
            done.entry(session).or_default().push(action);
        }
        for past in &page {
            let done = done.remove(&past.session_id).unwrap_or_default();
            found.add(past, judge.at_its_start(past, &done));
        }
        progress.tell(found.sessions);
    }
    progress.end();
    Ok(found)
}

impl Found {
    fn add(&mut self, past: &PastSession, verdict: Result<(), Refusal>) {
        self.sessions += 1;
        match (past.result, verdict) {
            (AuthResult::Success, Err(refusal)) => {
                if !past.proved && refusal.cause == Some(Cause::SignInKind) {
                    self.untold += 1;
                }
                self.refused.add(past, refusal.reason, Some(refusal.kind));
            }
            (AuthResult::Denied, Ok(())) => {
                let was = past.rule.as_ref().map_or("by no rule".to_owned(), |rule| format!("by {rule}"));
                self.let_in.add(past, was, None);
            }
            _ => {}
        }
    }

    fn words(&self, since: Timestamp, file: &Path) -> String {
        let mut lines = vec![format!(
            "{} since {} looked at, with the rules of {}",
            counted(self.sessions, "session", "sessions"),
            local(since),
            file.display()
        )];
        let (refused, let_in) = (self.refused.count(), self.let_in.count());
        lines.push(format!("{refused} would have been refused"));
        if refused > 0 {
            let rows = self.refused.rows().into_iter();
            lines.push(format!("\n{}\n", table(["USER", "SOCKET", "COUNT", "NEWEST", "WHY"], rows)));
        }
        lines.push(format!("{let_in} that {} refused would now be let in", if let_in == 1 { "was" } else { "were" }));
        if let_in > 0 {
            let rows = self.let_in.rows().into_iter();
            lines.push(format!("\n{}", table(["USER", "SOCKET", "COUNT", "NEWEST", "WAS REFUSED"], rows)));
        }
        if self.untold > 0 {
            lines.push(format!(
                "\n{} of those refused are from before the log kept how people signed in, and the rules ask for that",
                self.untold
            ));
        }
        lines.join("\n") + "\n"
    }

    fn json(&self, since: Timestamp, file: &Path) -> Value {
        json!({
            "since": since, "config": file.display().to_string(), "sessions": self.sessions,
            "would_be_refused": self.refused.count(), "refused": self.refused.json(),
            "would_be_let_in": self.let_in.count(), "let_in": self.let_in.json(),
            "sign_in_not_known": self.untold,
        })
    }
}

impl Groups {
    fn add(&mut self, past: &PastSession, reason: String, kind: Option<Kind>) {
        let email = past.identity.email().to_lowercase();
        let (newest, newest_id) = (past.start_time, past.session_id);
        let group = self.0.entry((email, past.socket_name.clone(), kind));
        let group = group.or_insert(Group { count: 0, newest, newest_id, reason: String::new() });
        // They come oldest first.
        *group = Group { count: group.count + 1, newest, newest_id, reason };
    }

    fn count(&self) -> u64 {
        self.0.values().map(|group| group.count).sum()
    }

    /// The most first, then by name.
    fn sorted(&self) -> Vec<(&Key, &Group)> {
        let mut all: Vec<_> = self.0.iter().collect();
        all.sort_by(|(a_key, a), (b_key, b)| {
            let names = || (&a_key.0, &a_key.1, &a.reason).cmp(&(&b_key.0, &b_key.1, &b.reason));
            b.count.cmp(&a.count).then_with(names)
        });
        all
    }

    fn rows(&self) -> Vec<[String; 5]> {
        let row = |((user, socket, _), group): (&Key, &Group)| {
            let line = |text: &str| escape::line(text).to_string();
            [line(user), line(socket), group.count.to_string(), local(group.newest), line(&group.reason)]
        };
        self.sorted().into_iter().map(row).collect()
    }

    fn json(&self) -> Value {
        let one = |((user, socket, kind), group): (&Key, &Group)| {
            json!({
                "user": user, "socket": socket, "count": group.count, "newest": group.newest,
                "newest_session_id": group.newest_id, "reason": group.reason,
                "rule": kind.as_ref().and_then(|kind| kind.rule.as_ref()),
            })
        };
        self.sorted().into_iter().map(one).collect()
    }
}

/// Says on a terminal how far it is, where that takes a while.
#[derive(Default)]
struct Progress {
    told: bool,
}

impl Progress {
    fn tell(&mut self, sessions: u64) {
        // The first page is there at once.
        if sessions > u64::from(AT_ONCE) && stderr().is_terminal() {
            self.told = true;
            let _ = write!(stderr(), "\r{sessions} sessions");
        }
    }

    fn end(&self) {
        if self.told {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

fn counted(number: u64, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{Book, denied_session, new_session, time as at};
    use crate::store::{Event, EventStatus, NewSession};

    const RULES: &str = r#"
[gateway]
domain = "a.example.com"
[oidc]
issuer = "https://idp.example.com"
client_id = "g"
client_secret = "file:none"
[[socket]]
name = "shell"
type = "ssh"
[socket.upstream]
address = "10.0.0.5"
username = "deploy"
password = "env:NONE"
host_key = "insecure-accept-any"
[[policy]]
name = "narrow"
effect = "allow"
who = { groups = ["engineering"] }
[policy.allow.ssh]
exec = ["uptime", "ls **"]
"#;

    async fn add(book: &Book, new: &NewSession, done: &[Option<&str>]) {
        book.open_session(new.clone()).await.unwrap();
        for command in done {
            let kind = if command.is_some() { "ssh_exec" } else { "ssh_shell" };
            let event = Event::now(kind, EventStatus::Success, json!({"command": command}));
            book.add_event(new.session_id, event).await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_was_is_decided_again_and_alike_ones_are_counted_together() {
        let book = Book::new();
        let session = |start: &str| NewSession { start_time: at(start), ..new_session() };
        let (good, newest) = (session("2026-03-01T10:00:00Z"), session("2026-03-03T10:00:00Z"));
        add(&book, &good, &[Some("uptime"), Some("ls -la")]).await;
        add(&book, &session("2026-03-02T10:00:00Z"), &[Some("uptime"), Some("id")]).await;
        add(&book, &newest, &[Some("reboot")]).await;
        add(&book, &session("2026-03-02T11:00:00Z"), &[None]).await;
        add(&book, &NewSession { socket_name: "gone".into(), ..session("2026-03-02T12:00:00Z") }, &[]).await;
        add(&book, &denied_session(), &[]).await;
        add(&book, &session("2026-01-01T10:00:00Z"), &[None]).await;
        let judge = Judge::new(Config::parse_leniently(RULES, Path::new("x")).unwrap_or_else(|e| panic!("{e}")));
        let found = replay(&book, &judge, at("2026-02-01T00:00:00Z")).await.unwrap();
        let told = found.json(at("2026-02-01T00:00:00Z"), Path::new("x"));
        let counts = ["sessions", "would_be_refused", "would_be_let_in"].map(|name| told[name].as_u64().unwrap());
        assert_eq!(counts, [6, 4, 1], "{told}");
        let one = &told["refused"][0];
        assert_eq!((&one["count"], &one["rule"]), (&json!(2), &json!("narrow")));
        assert_eq!(one["reason"], "narrow does not allow exec \"reboot\"", "of the newest");
        assert_eq!(one["newest_session_id"], newest.session_id.to_string());
        let rest: Vec<_> = told["refused"].as_array().unwrap()[1..].iter().map(|one| &one["reason"]).collect();
        assert_eq!(rest, ["there is no socket called gone any more", "narrow does not allow shell"]);
        assert_eq!(told["let_in"][0]["reason"], "by no rule");
        let words = found.words(at("2026-02-01T00:00:00Z"), Path::new("x"));
        assert!(words.contains("4 would have been refused\n") && words.contains("1 that was refused"), "{words}");
    }
}
