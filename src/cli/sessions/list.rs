//! `gatescribe sessions list`: a table that fits the terminal, or the API's answer as JSON.

use comfy_table::{Attribute, Cell, Color, Table};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp, Zoned};
use serde_json::Value;

use super::row::{List, Row};
use crate::cli::client::{Client, Options};
use crate::cli::{escape, print, table};

/// Arguments of `gatescribe sessions list`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatescribe sessions list --user alice@example.com --since 2d")]
pub struct Args {
    #[command(flatten)]
    options: Options,
    /// Only those that are live; --live=false: only those that have ended
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    live: Option<bool>,
    /// Only those that somebody ended; --killed=false: only others
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    killed: Option<bool>,
    /// Only of this person
    #[arg(long, alias = "user-email", value_name = "EMAIL")]
    user: Option<String>,
    /// Only on this socket
    #[arg(long, alias = "socket-name", value_name = "NAME")]
    socket: Option<String>,
    /// Only on the socket with this id
    #[arg(long, value_name = "UUID")]
    socket_id: Option<String>,
    /// Only of this type: ssh, database, http, kubernetes, tcp
    #[arg(long = "type", alias = "session-type", value_name = "TYPE")]
    session_type: Option<String>,
    /// Only from this address
    #[arg(long, alias = "client-ip", value_name = "IP")]
    ip: Option<String>,
    /// Only from this country: its name or two-letter code
    #[arg(long, value_name = "COUNTRY")]
    country: Option<String>,
    /// Only those that were let in (success) or refused (denied)
    #[arg(long, value_name = "RESULT")]
    result: Option<String>,
    /// Only those that began later: 2h, 7d, 2026-03-01, "2026-03-01 14:00", or RFC 3339
    #[arg(long, alias = "start-after", value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// Only those that began earlier
    #[arg(long, alias = "start-before", value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
    /// How many to a page
    #[arg(long, alias = "page-size", value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Which page
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    page: u32,
    /// The API's answer instead of a table
    #[arg(long)]
    json: bool,
}

/// Lists sessions.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let client = Client::open(&args.options)?;
    let answer: Value = client.get_json("/api/v1/sessions", &args.query()).await?;
    if args.json {
        return print(&format!("{}\n", escape::json(&answer)));
    }
    let list: List = serde_json::from_value(answer)?;
    if list.session_logs.is_empty() {
        eprintln!("{}", if args.is_everything() { "no session yet" } else { "no session matches" });
        return Ok(());
    }
    print(&format!("{}\n", table_of(&list.session_logs, Timestamp::now()).trim_fmt()))?;
    if list.pagination.next_page != 0 {
        let (page, total) = (list.pagination.next_page, list.pagination.total_records);
        eprintln!("\n{total} in all; more with --page {page}");
    }
    Ok(())
}

impl Args {
    /// Whether the first page of an unfiltered list was asked for.
    fn is_everything(&self) -> bool {
        self.query().iter().all(|(name, value)| *name == "page_size" || (*name == "page" && value == "1"))
    }

    fn query(&self) -> Vec<(&'static str, String)> {
        let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
        let flag = |flag: Option<bool>| flag.map(|flag| flag.to_string());
        let all = [
            ("live", flag(self.live)),
            ("killed", flag(self.killed)),
            ("user_email", self.user.clone()),
            ("socket_name", self.socket.clone()),
            ("socket_id", self.socket_id.clone()),
            ("session_type", self.session_type.clone()),
            ("client_ip", self.ip.clone()),
            ("country", self.country.clone()),
            ("result", self.result.clone()),
            ("start_after", time(self.since)),
            ("start_before", time(self.until)),
            ("page_size", Some(self.limit.to_string())),
            ("page", Some(self.page.to_string())),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

fn table_of(rows: &[Row], now: Timestamp) -> Table {
    // An id in two pieces cannot be copied.
    let header = ["STARTED", "USER", "SOCKET", "FROM", "LASTED", "OUTCOME", "ID"];
    let mut table = table::plain(header, |at| matches!(at, 1..=3));
    let ids = table::short_ids(rows.iter().map(|row| row.session_id));
    for (row, id) in rows.iter().zip(ids) {
        table.add_row([
            Cell::new(began(row.start_time, now)),
            Cell::new(escape::line(&row.user_email)),
            Cell::new(socket(row)),
            Cell::new(from(row)),
            lasted(row, now),
            outcome(row),
            Cell::new(id),
        ]);
    }
    table
}

/// To the minute; the year where it could be another one.
fn began(at: Timestamp, now: Timestamp) -> String {
    let is_recent = now.duration_since(at).as_hours() < 300 * 24;
    let form = if is_recent { "%m-%d %H:%M" } else { "%Y-%m-%d %H:%M" };
    at.to_zoned(TimeZone::system()).strftime(form).to_string()
}

fn socket(row: &Row) -> String {
    let socket = escape::line(&row.socket_name);
    match &row.sshuser {
        Some(login) => format!("{}@{socket}", escape::line(login)),
        None => socket.to_string(),
    }
}

fn from(row: &Row) -> String {
    match &row.country_code {
        Some(country) => format!("{} {}", escape::line(&row.client_ip), escape::line(country)),
        None => escape::line(&row.client_ip).to_string(),
    }
}

fn lasted(row: &Row, now: Timestamp) -> Cell {
    match row.end_time {
        Some(end) => Cell::new(duration(end.duration_since(row.start_time))),
        None => Cell::new(format!("LIVE {}", duration(now.duration_since(row.start_time))))
            .fg(Color::Green)
            .add_attribute(Attribute::Bold),
    }
}

fn outcome(row: &Row) -> Cell {
    let cell = Cell::new(escape::line(row.outcome.as_deref().unwrap_or_default()));
    match row.outcome.as_deref() {
        Some("closed" | "client_gone" | "expired" | "idle") | None => cell,
        Some(_) => cell.fg(Color::Red),
    }
}

/// In the two largest units that count. A clock that was set back makes no negative ones.
pub(in crate::cli) fn duration(lasted: SignedDuration) -> String {
    let seconds = lasted.as_secs().max(0);
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

/// A time as people type it: how long ago, a day or a time of this machine's zone, or RFC 3339.
pub(in crate::cli) fn time(typed: &str) -> Result<Timestamp, String> {
    let zone = TimeZone::system();
    if let Ok(time) = typed.parse::<Timestamp>() {
        return Ok(time);
    }
    let local = typed.parse::<jiff::civil::DateTime>().ok();
    if let Some(time) = local {
        return time.to_zoned(zone).map(|time| time.timestamp()).map_err(|error| error.to_string());
    }
    let ago = typed.parse::<Span>().ok().and_then(|span| Zoned::now().checked_sub(span).ok());
    ago.map(|time| time.timestamp()).ok_or_else(|| "write it as 2h, 7d, 2026-03-01 or 2026-03-01T14:00:00Z".into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(id: &str, email: &str) -> Row {
        let row = json!({
            "session_id": id, "socket_id": "00000000-0000-0000-0000-000000000001", "socket_name": "shell",
            "session_type": "ssh", "start_time": "2026-03-01T10:00:00Z", "end_time": null, "user_email": email,
            "client_ip": "192.0.2.7", "client_port": "1", "server_name": "s", "upstream": "u", "killed": false,
            "result": "success", "recordings": [], "events": [], "a_later_gateway_adds": 1,
        });
        serde_json::from_value(row).unwrap()
    }

    #[test]
    fn a_table_shows_what_users_wrote_without_what_it_does() {
        let mut hostile = row("01234567-89ab-7000-8000-000000000001", "eve\u{1b}]0;x\u{7}\u{202e}@example.com");
        hostile.sshuser = Some("root\n".into());
        let now = "2026-03-01T11:05:00Z".parse().unwrap();
        let text = table_of(&[hostile], now).trim_fmt();
        assert!(text.contains("eve\\x1b]0;x\\x07\\u{202e}@example.com") && text.contains("root\\n@shell"), "{text}");
        assert!(text.contains("LIVE 1h05m") && text.contains(" 01234567-89ab"), "{text}");
        assert!(!text.chars().any(|c| c != '\n' && escape::is_dangerous(c)), "{text:?}");
        assert_eq!(text.lines().count(), 2, "one line each: {text}");
    }

    #[test]
    fn an_old_session_has_its_year() {
        let at: Timestamp = "2026-03-01T10:00:00Z".parse().unwrap();
        assert!(!began(at, at + SignedDuration::from_hours(24)).contains("2026"));
        assert!(began(at, at + SignedDuration::from_hours(24 * 365)).contains("2026"));
    }

    #[test]
    fn durations() {
        for (seconds, words) in
            [(-5, "0s"), (0, "0s"), (59, "59s"), (61, "1m01s"), (3600, "1h00m"), (86399, "23h59m"), (90000, "1d01h")]
        {
            assert_eq!(duration(SignedDuration::from_secs(seconds)), words);
        }
    }

    #[test]
    fn times_are_read_as_people_type_them() {
        assert_eq!(time("2026-03-01T10:00:00Z").unwrap().to_string(), "2026-03-01T10:00:00Z");
        let noon = jiff::civil::date(2026, 3, 1).at(12, 0, 0, 0).to_zoned(TimeZone::system()).unwrap();
        for typed in ["2026-03-01 12:00", "2026-03-01T12:00:00"] {
            assert_eq!(time(typed).unwrap(), noon.timestamp(), "{typed}");
        }
        let now = Timestamp::now();
        for (typed, hours) in [("2h", 2), ("7d", 7 * 24), ("90m", 1)] {
            let ago = now.duration_since(time(typed).unwrap()).as_hours();
            assert!((hours - 1..=hours + 1).contains(&ago), "{typed}: {ago} hours");
        }
        time("2026-03-01").unwrap();
        assert!(time("yesterday").is_err() && time("").is_err());
    }
}
