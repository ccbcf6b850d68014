//! An event in a recording as one line for people: what was done and to what, then the rest by name.

use std::fmt::Write;

use serde_json::{Map, Value};

/// Named values that begin the line, without their names, in this order.
const FIRST: [&str; 3] = ["operation", "path", "to"];

/// The line, without control characters. What is no event is told as it is.
pub fn line(body: &[u8]) -> String {
    let mut line = match serde_json::from_slice::<Map<String, Value>>(body) {
        Ok(event) => told(&event),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    // Names of files are whatever somebody made up.
    if line.chars().any(char::is_control) {
        line = line.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect();
    }
    line
}

fn told(event: &Map<String, Value>) -> String {
    let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default();
    let mut line = text("type").to_owned();
    let status = text("status");
    if !matches!(status, "" | "success") {
        let _ = write!(line, " {status}");
    }
    let Some(about) = event.get("metadata").and_then(Value::as_object) else { return line };
    let mut found = false;
    for (key, value) in FIRST.iter().filter_map(|key| Some((key, about.get(*key)?))) {
        let arrow = if *key == "to" && found { "-> " } else { "" };
        let _ = write!(line, " {arrow}{}", plain(value));
        found = true;
    }
    for (key, value) in about {
        // Which recording is known to whoever reads it.
        if !FIRST.contains(&key.as_str()) && key != "recording_id" && !value.is_null() {
            let _ = write!(line, " {key}={value}");
        }
    }
    line
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_comes_first_and_nothing_moves_a_cursor() {
        let event = br#"{"type": "ssh_file", "status": "denied",
            "metadata": {"bytes": 3, "operation": "write", "path": "/a\u001b[2J b", "sha256": null, "flags": ["x"]}}"#;
        assert_eq!(line(event), "ssh_file denied write /a\\u{1b}[2J b bytes=3 flags=[\"x\"]");
        assert_eq!(line(br#"{"type": "ssh_file", "status": "success"}"#), "ssh_file");
        let renamed = br#"{"type": "ssh_file", "metadata": {"to": "/b", "operation": "rename", "path": "/a"}}"#;
        assert_eq!(line(renamed), "ssh_file rename /a -> /b");
        assert_eq!(line(br#"{"type": "ssh_forward", "metadata": {"to": "db:5432"}}"#), "ssh_forward db:5432");
        assert_eq!(line(b"no\nevent"), "no\\nevent");
    }
}
