//! `gatescribe sessions show`: one session with what happened in it.

use serde_json::{Value, json};

use super::Which;
use super::list::duration;
use super::row::{Event, Recording, Row};
use crate::cli::{escape, local, print};
use crate::record::export::fact;

/// Events that read as in an export of their recording: what was done and to what, then the rest by name.
const SENTENCES: [&str; 9] =
    ["ssh_file", "ssh_files", "ssh_forward", "ssh_forward_opaque", "ssh_agent_use", "kill", "stopped", "cut", "more"];

/// Arguments of `gatescribe sessions show`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatescribe sessions show 019cb0e8-3d4e")]
pub struct Args {
    #[command(flatten)]
    which: Which,
    /// The API's answer instead of words
    #[arg(long)]
    json: bool,
}

/// Shows a session.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let (client, row) = args.which.find().await?;
    if args.json {
        let answer: Value = client.get_json(&row.path(), &[]).await?;
        return print(&format!("{}\n", escape::json(&answer)));
    }
    print(&words(&row))
}

fn words(row: &Row) -> String {
    let mut lines = facts(row);
    lines.push(format!("\nrecordings: {}", row.recordings.len()));
    lines.extend(row.recordings.iter().map(recording));
    lines.push(format!("\nevents: {}", row.events.len()));
    lines.extend(row.events.iter().map(event));
    lines.join("\n") + "\n"
}

fn facts(row: &Row) -> Vec<String> {
    let text = |text: &str| escape::line(text).to_string();
    let optional = |text: &Option<String>| text.as_deref().map(|text| escape::line(text).to_string());
    let who = match &row.name {
        Some(name) => format!("{} ({})", text(&row.user_email), text(name)),
        None => text(&row.user_email),
    };
    let place = [&row.city, &row.country].map(optional).into_iter().flatten().collect::<Vec<_>>().join(", ");
    let ended = row.end_time.map_or_else(
        || "live".to_owned(),
        |end| format!("{}, after {}", local(end), duration(end.duration_since(row.start_time))),
    );
    let all = [
        ("session", Some(row.session_id.to_string())),
        ("user", Some(who)),
        ("socket", Some(format!("{} ({})", text(&row.socket_name), text(&row.session_type)))),
        ("login", optional(&row.sshuser)),
        ("from", Some(format!("{} port {}", text(&row.client_ip), text(&row.client_port)))),
        ("place", (!place.is_empty()).then_some(place)),
        ("to", Some(text(&row.upstream))),
        ("started", Some(local(row.start_time))),
        ("ended", Some(ended)),
        ("access", Some(text(&row.result))),
        ("rule", optional(&row.rule)),
        ("outcome", optional(&row.outcome)),
        ("reason", optional(&row.end_reason)),
        ("remaining", optional(&row.remaining)),
    ];
    all.into_iter().filter_map(|(name, value)| Some(format!("{name:<10} {}", value?))).collect()
}

fn recording(one: &Recording) -> String {
    let size = one.size.map(|size| format!(", {}", bytes(size))).unwrap_or_default();
    let exit = one.exit_status.map(|status| format!(", exit status {status}")).unwrap_or_default();
    let lasted =
        one.end_time.map(|end| format!(", {}", duration(end.duration_since(one.start_time)))).unwrap_or_default();
    let (id, title) = (one.recording_id, one.title());
    let (state, legibility) = (escape::line(&one.state), escape::line(&one.legibility));
    format!("  {id}  {title}\n      {}  {state}, {legibility}{lasted}{size}{exit}", local(one.start_time))
}

fn event(one: &Event) -> String {
    if SENTENCES.contains(&one.kind.as_str()) {
        let told = json!({"type": one.kind, "status": one.status, "metadata": one.metadata}).to_string();
        let line = fact::line(told.as_bytes());
        let recording = one.metadata.get("recording_id").and_then(Value::as_str);
        let recording = recording.map(|id| format!("  recording_id={}", escape::line(id))).unwrap_or_default();
        return format!("  {}  {}{recording}", local(one.created_at), escape::line(&line));
    }
    let (kind, status) = (escape::line(&one.kind), escape::line(&one.status));
    format!("  {}  {kind} {status}{}", local(one.created_at), details(&one.metadata))
}

/// An object's fields, each as `name=value`.
fn details(metadata: &Value) -> String {
    let value = |value: &Value| match value {
        Value::String(text) if !text.contains(' ') => escape::line(text).to_string(),
        other => escape::line(&other.to_string()).to_string(),
    };
    match metadata {
        Value::Object(fields) => {
            let told = fields.iter().filter(|(_, field)| !field.is_null());
            told.map(|(name, field)| format!("  {}={}", escape::line(name), value(field))).collect()
        }
        Value::Null => String::new(),
        other => format!("  {}", value(other)),
    }
}

/// Bytes in the unit that suits.
pub(super) fn bytes(count: u64) -> String {
    let steps = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match steps.into_iter().find(|(_, bits)| count >> bits > 0) {
        Some((unit, bits)) => format!("{}.{} {unit}", count >> bits, ((count & ((1 << bits) - 1)) * 10) >> bits),
        None => format!("{count} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_is_shown_and_nothing_acts() {
        let evil = "\u{1b}[2J\u{202e}\n";
        let row: Row = serde_json::from_value(json!({
            "session_id": "01234567-89ab-7000-8000-000000000001", "socket_id": "00000000-0000-0000-0000-000000000001",
            "socket_name": evil, "session_type": evil, "start_time": "2026-03-01T10:00:00Z",
            "end_time": "2026-03-01T10:01:30Z", "user_email": evil, "name": evil, "client_ip": evil,
            "client_port": evil, "country": evil, "city": evil, "sshuser": evil, "server_name": evil,
            "upstream": evil, "killed": true, "result": evil, "outcome": evil, "end_reason": evil, "rule": evil,
            "remaining": evil,
            "recordings": [{"recording_id": "01234567-89ab-7000-8000-000000000002", "kind": evil, "command": evil,
                "start_time": "2026-03-01T10:00:00Z", "end_time": "2026-03-01T10:00:02Z", "state": evil,
                "legibility": evil, "size": 1536, "exit_status": 3}],
            "events": [{"created_at": "2026-03-01T10:00:00Z", "type": evil, "status": evil,
                "metadata": {"how": evil, evil: [evil], "plain": "link", "untold": null}}],
        }))
        .unwrap();
        let text = words(&row);
        assert!(!text.chars().any(|c| c != '\n' && escape::is_dangerous(c)), "{text:?}");
        assert_eq!(text.lines().count(), 14 + 2 + 2 + 2 + 1, "no line but its own: {text}");
        for words in ["after 1m30s", "1.5 KiB", "exit status 3", "plain=link", "how=\\x1b[2J\\u{202e}\\n"] {
            assert!(text.contains(words), "{words} in {text}");
        }
        assert!(!text.contains("untold"), "{text}");
    }

    #[test]
    fn what_was_done_reads_as_a_sentence_and_names_its_recording() {
        let table = [
            (
                json!({"type": "ssh_file", "status": "success", "metadata": {"operation": "write", "path": "/a b",
                    "bytes": 3, "sha256": null, "recording_id": "r"}}),
                "ssh_file write /a b bytes=3  recording_id=r",
            ),
            (
                json!({"type": "ssh_file", "status": "denied", "metadata": {"operation": "rename", "path": "/a",
                    "to": "/b\u{1b}[2J\u{202e}"}}),
                "ssh_file denied rename /a -> /b\\u{1b}[2J\\u{202e}",
            ),
            (
                json!({"type": "ssh_files", "status": "success", "metadata": {"files_read": 2, "denied": 0}}),
                "ssh_files denied=0 files_read=2",
            ),
            (
                json!({"type": "ssh_forward", "status": "success", "metadata": {"to": "db:5432", "bytes_sent": 7}}),
                "ssh_forward db:5432 bytes_sent=7",
            ),
            (
                json!({"type": "kill", "status": "success", "metadata": {"by": "a@b", "reason": "x y",
                    "recording_id": "r"}}),
                "kill by=\"a@b\" reason=\"x y\"  recording_id=r",
            ),
            (json!({"type": "upstream", "status": "error", "metadata": {"reason": "x"}}), "upstream error  reason=x"),
        ];
        for (mut told, expected) in table {
            told["created_at"] = "2026-03-01T10:00:00Z".into();
            let line = event(&serde_json::from_value(told).unwrap());
            assert!(line.ends_with(&format!("  {expected}")), "{line}: {expected}");
        }
    }

    #[test]
    fn bytes_in_units() {
        for (count, words) in [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB")] {
            assert_eq!(bytes(count), words);
        }
        assert_eq!(bytes(u64::MAX), "17179869183.9 GiB");
    }
}
