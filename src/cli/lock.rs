//! `gatescribe lock`: keeps people, groups, networks or everybody out, and lists what is locked.

use std::process::ExitCode;

use comfy_table::{Cell, Table};
use jiff::Timestamp;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::client::{Client, Options};
use super::{escape, local, print, run_client, table};

/// Arguments of `gatescribe lock`.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = "Without arguments: the locks in force.\n\
                  Example: gatescribe lock user alice@example.com --reason \"laptop lost\" --for 15m"
)]
pub struct Args {
    #[command(subcommand)]
    whom: Option<Whom>,
    #[command(flatten)]
    options: Options,
    /// The API's answer instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Whom {
    /// Keep a person out
    #[command(after_help = "Example: gatescribe lock user alice@example.com --reason \"laptop lost\"")]
    User {
        /// The person's e-mail address
        email: String,
        #[command(flatten)]
        how: How,
    },
    /// Keep everybody in a group out
    #[command(after_help = "Example: gatescribe lock group contractors --reason \"contract is over\"")]
    Group {
        /// The group's name
        name: String,
        #[command(flatten)]
        how: How,
    },
    /// Keep everybody off a socket
    #[command(after_help = "Example: gatescribe lock socket orders --reason \"migration\" --for 2h")]
    Socket {
        /// The socket's name
        name: String,
        #[command(flatten)]
        how: How,
    },
    /// Keep everybody at an address or in a network out
    #[command(after_help = "Example: gatescribe lock address 203.0.113.0/24 --reason \"stolen keys\"")]
    Address {
        /// The address or network
        network: String,
        #[command(flatten)]
        how: How,
    },
    /// Keep everybody out of everything
    #[command(after_help = "Example: gatescribe lock all --reason \"incident 42\" --for 1h")]
    All {
        #[command(flatten)]
        how: How,
    },
}

/// What every lock has.
#[derive(Debug, clap::Args)]
struct How {
    #[command(flatten)]
    options: Options,
    /// Why; whom it keeps out reads it
    #[arg(long, value_name = "WORDS")]
    reason: String,
    /// For how long, as 15m or 12h [default: until it is taken off]
    #[arg(long = "for", value_name = "DURATION")]
    lasts: Option<String>,
    /// The API's answer instead of words
    #[arg(long)]
    json: bool,
}

/// A lock as the commands read it. Text in it is as people wrote it: escape it before it is printed.
#[derive(Debug, Deserialize)]
pub(super) struct Lock {
    pub(super) lock_id: Uuid,
    target: Target,
    reason: String,
    by: String,
    created: Timestamp,
    until: Option<Timestamp>,
    ended: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Target {
    user: Option<String>,
    group: Option<String>,
    socket: Option<String>,
    address: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct List {
    pub(super) locks: Vec<Lock>,
}

/// Locks, or lists locks.
pub fn run(args: &Args) -> ExitCode {
    match &args.whom {
        Some(whom) => run_client(lock(whom)),
        None => run_client(list(args)),
    }
}

async fn lock(whom: &Whom) -> anyhow::Result<()> {
    let (target, how) = match whom {
        Whom::User { email, how } => (json!({ "user": email }), how),
        Whom::Group { name, how } => (json!({ "group": name }), how),
        Whom::Socket { name, how } => (json!({ "socket": name }), how),
        Whom::Address { network, how } => (json!({ "address": network }), how),
        Whom::All { how } => (json!({ "everything": true }), how),
    };
    let client = Client::open(&how.options)?;
    let wanted = json!({ "target": target, "reason": how.reason, "for": how.lasts });
    let answer: Value = client.send(Method::POST, "/api/v1/locks", Some(&wanted)).await?;
    if how.json {
        return print(&format!("{}\n", escape::json(&answer)));
    }
    print(&serde_json::from_value::<Lock>(answer)?.told())
}

async fn list(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&args.options)?;
    let answer: Value = client.get_json("/api/v1/locks", &[]).await?;
    if args.json {
        return print(&format!("{}\n", escape::json(&answer)));
    }
    let List { locks } = serde_json::from_value(answer)?;
    if locks.is_empty() {
        eprintln!("nothing is locked");
        return Ok(());
    }
    print(&format!("{}\n", table_of(&locks).trim_fmt()))?;
    eprintln!("\ntake one off with: gatescribe unlock ID");
    Ok(())
}

impl Lock {
    /// Whom or what it keeps out, escaped: `user alice@example.com on socket shell`.
    pub(super) fn whom(&self) -> String {
        let Target { user, group, socket, address } = &self.target;
        let named =
            |what: &str, name: &Option<String>| name.as_ref().map(|name| format!("{what} {}", escape::line(name)));
        let who = [named("user", user), named("group", group), named("address", address)];
        let who = who.into_iter().flatten().collect::<Vec<_>>().join(" in ");
        match (who.is_empty(), named("socket", socket)) {
            (true, None) => "everybody".into(),
            (true, Some(socket)) => socket,
            (false, None) => who,
            (false, Some(socket)) => format!("{who} on {socket}"),
        }
    }

    fn told(&self) -> String {
        let until = match self.until {
            Some(until) => format!("until {}", local(until)),
            None => "until it is taken off".into(),
        };
        let ended = match self.ended {
            None | Some(0) => String::new(),
            Some(1) => "; 1 live session ends".into(),
            Some(more) => format!("; {more} live sessions end"),
        };
        format!("locked: {}, {until}{ended}\n{}", self.whom(), next_step(self.lock_id))
    }
}

/// What takes a lock off.
pub(super) fn next_step(lock: Uuid) -> String {
    format!("take it off with: gatescribe unlock {lock}\n")
}

fn table_of(locks: &[Lock]) -> Table {
    let mut table = table::plain(["LOCKED", "UNTIL", "REASON", "BY", "SINCE", "ID"], |at| matches!(at, 0 | 2 | 3));
    let ids = table::short_ids(locks.iter().map(|lock| lock.lock_id));
    for (lock, id) in locks.iter().zip(ids) {
        table.add_row([
            Cell::new(lock.whom()),
            Cell::new(lock.until.map_or_else(|| "it is taken off".into(), local)),
            Cell::new(escape::line(&lock.reason)),
            Cell::new(escape::line(&lock.by)),
            Cell::new(local(lock.created)),
            Cell::new(id),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(target: Value, reason: &str) -> Lock {
        let lock = json!({
            "lock_id": "01234567-89ab-7000-8000-000000000001", "target": target, "reason": reason, "by": "admin",
            "created": "2026-03-01T10:00:00Z", "until": null, "a_later_gateway_adds": 1,
        });
        serde_json::from_value(lock).unwrap()
    }

    #[test]
    fn whom_a_lock_keeps_out_is_said_in_words() {
        let table = [
            (json!({"everything": true}), "everybody"),
            (json!({"socket": "shell"}), "socket shell"),
            (json!({"user": "a@example.com"}), "user a@example.com"),
            (json!({"user": "a@example.com", "socket": "shell"}), "user a@example.com on socket shell"),
            (json!({"group": "g", "address": "10.0.0.0/8"}), "group g in address 10.0.0.0/8"),
        ];
        for (target, words) in table {
            assert_eq!(lock(target, "x").whom(), words);
        }
    }

    #[test]
    fn a_table_shows_what_people_wrote_without_what_it_does() {
        let hostile = lock(json!({"group": "eve\u{1b}]0;x\u{7}"}), "a\u{202e}b\n");
        let text = table_of(&[hostile]).trim_fmt();
        assert!(text.contains("group eve\\x1b]0;x\\x07") && text.contains("a\\u{202e}b\\n"), "{text}");
        assert!(!text.chars().any(|c| c != '\n' && escape::is_dangerous(c)), "{text:?}");
        assert_eq!(text.lines().count(), 2, "{text}");
    }
}
