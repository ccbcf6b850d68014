//! The two ways in which watchers are spoken to, as asciinema's player (3.17) understands them. Pure.
//!
//! `v3.asciicast`: one JSON value per text message, first a header, then events with the time since the one before.
//! `v1.alis`: binary messages: the magic string, then frames of a type, an id and a relative time. Numbers are LEB128.
//! A screen given out anew is a reset frame in ALiS; asciicast has no such thing, so there the terminal is reset (RIS)
//! and painted.

use axum::body::Bytes;
use axum::extract::ws::Message;
use serde_json::json;

use super::screen::{Dump, Event, Shown};

/// How a watcher is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Alis,
    Asciicast3,
}

impl Protocol {
    /// All, the preferred one first.
    pub(super) const ALL: [Self; 2] = [Self::Alis, Self::Asciicast3];

    /// As in `Sec-WebSocket-Protocol`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Alis => "v1.alis",
            Self::Asciicast3 => "v3.asciicast",
        }
    }

    /// The close code that says that there will be no more, so that the player does not connect again.
    pub(super) fn ended(self) -> u16 {
        match self {
            // The player takes 4000 to 4100 for the end, and shows the reason.
            Self::Alis => 4000,
            Self::Asciicast3 => 1000,
        }
    }

    /// The first messages: the screen as it is. `at` is the last event's time, in microseconds.
    pub(super) fn begin(self, at: u64, id: u64, dump: &Dump) -> Vec<Message> {
        match self {
            Self::Alis => vec![Message::Binary(Bytes::from_static(ALIS_MAGIC)), alis_reset(at, id, dump)],
            Self::Asciicast3 => {
                let header = json!({"version": 3, "term": {"cols": dump.cols, "rows": dump.rows}});
                vec![text(&header), text(&json!([0, "o", dump.text]))]
            }
        }
    }

    /// The screen anew, for a watcher that fell behind.
    pub(super) fn again(self, at: u64, id: u64, dump: &Dump) -> Vec<Message> {
        match self {
            Self::Alis => vec![alis_reset(at, id, dump)],
            Self::Asciicast3 => vec![
                text(&json!([0, "r", format!("{}x{}", dump.cols, dump.rows)])),
                text(&json!([0, "o", format!("\x1bc{}", dump.text)])),
            ],
        }
    }

    /// The message of one event. `after` is the time since the one before, in microseconds.
    pub(super) fn event(self, event: &Event, id: u64, after: u64) -> Message {
        match self {
            Self::Alis => Message::Binary(alis_event(&event.shown, id, after).into()),
            Self::Asciicast3 => {
                let seconds = after as f64 / 1e6;
                text(&match &event.shown {
                    Shown::Output(data) => json!([seconds, "o", data]),
                    Shown::Input(data) => json!([seconds, "i", data]),
                    Shown::Resize(cols, rows) => json!([seconds, "r", format!("{cols}x{rows}")]),
                    Shown::Marker(words) => json!([seconds, "m", words]),
                    Shown::Exit(status) => json!([seconds, "x", status.to_string()]),
                })
            }
        }
    }

    /// The last message, where there is one.
    pub(super) fn end(self) -> Option<Message> {
        match self {
            Self::Alis => Some(Message::Binary(Bytes::from_static(&[ALIS_EOT, 0]))),
            Self::Asciicast3 => None,
        }
    }
}

fn text(value: &serde_json::Value) -> Message {
    Message::Text(value.to_string().into())
}

fn alis_reset(at: u64, id: u64, dump: &Dump) -> Message {
    let mut frame = vec![ALIS_RESET];
    for number in [id, at, dump.cols.into(), dump.rows.into()] {
        varint(&mut frame, number);
    }
    frame.push(ALIS_NO_THEME);
    string(&mut frame, &dump.text);
    Message::Binary(frame.into())
}

fn alis_event(shown: &Shown, id: u64, after: u64) -> Vec<u8> {
    let kind = match shown {
        Shown::Output(_) => b'o',
        Shown::Input(_) => b'i',
        Shown::Resize(..) => b'r',
        Shown::Marker(_) => b'm',
        Shown::Exit(_) => b'x',
    };
    let mut frame = vec![kind];
    varint(&mut frame, id);
    varint(&mut frame, after);
    match shown {
        Shown::Output(data) | Shown::Input(data) | Shown::Marker(data) => string(&mut frame, data),
        Shown::Resize(cols, rows) => {
            varint(&mut frame, (*cols).into());
            varint(&mut frame, (*rows).into());
        }
        Shown::Exit(status) => varint(&mut frame, (*status).into()),
    }
    frame
}

fn string(frame: &mut Vec<u8>, text: &str) {
    varint(frame, text.len() as u64);
    frame.extend_from_slice(text.as_bytes());
}

/// LEB128.
fn varint(frame: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        frame.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    frame.push(number as u8);
}

const ALIS_MAGIC: &[u8] = b"ALiS\x01";
const ALIS_RESET: u8 = 0x01;
const ALIS_EOT: u8 = 0x04;
const ALIS_NO_THEME: u8 = 0x00;

#[cfg(test)]
mod tests {
    use super::*;

    fn dump() -> Dump {
        Dump { cols: 200, rows: 24, text: "hé\u{1b}[1m".into() }
    }

    fn words(messages: Vec<Message>) -> Vec<String> {
        messages
            .into_iter()
            .map(|message| match message {
                Message::Text(text) => text.to_string(),
                Message::Binary(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn all_events(protocol: Protocol) -> Vec<String> {
        let shown = [
            Shown::Output("a\n\u{1b}".into()),
            Shown::Input("x".into()),
            Shown::Resize(300, 50),
            Shown::Marker("exec: ls".into()),
            Shown::Exit(130),
        ];
        let event = |(n, shown)| protocol.event(&Event { at: 9, shown }, 5 + n as u64, 1_500_000);
        words(shown.into_iter().enumerate().map(event).collect())
    }

    #[test]
    fn asciicast_is_one_value_per_message() {
        let begin = words(Protocol::Asciicast3.begin(7_000_000, 3, &dump()));
        assert_eq!(begin, [r#"{"term":{"cols":200,"rows":24},"version":3}"#, r#"[0,"o","hé\u001b[1m"]"#]);
        let events = all_events(Protocol::Asciicast3);
        let expected = [
            r#"[1.5,"o","a\n\u001b"]"#,
            r#"[1.5,"i","x"]"#,
            r#"[1.5,"r","300x50"]"#,
            r#"[1.5,"m","exec: ls"]"#,
            r#"[1.5,"x","130"]"#,
        ];
        assert_eq!(events, expected);
        let again = words(Protocol::Asciicast3.again(7_000_000, 3, &dump()));
        assert_eq!(again, [r#"[0,"r","200x24"]"#, r#"[0,"o","\u001bchhé\u001b[1m"]"#.replace("chh", "ch").as_str()]);
        assert!(Protocol::Asciicast3.end().is_none());
    }

    #[test]
    fn alis_is_frames_with_leb128_numbers() {
        // 7,000,000 is c0 9f ab 03; the text has seven bytes.
        let reset = "0103c09fab03c801180007".to_owned() + "68c3a91b5b316d";
        assert_eq!(words(Protocol::Alis.begin(7_000_000, 3, &dump())), ["414c695301", reset.as_str()]);
        assert_eq!(words(Protocol::Alis.again(7_000_000, 3, &dump())), [reset]);
        let expected = [
            "6f05e0c65b03610a1b",
            "6906e0c65b0178",
            "7207e0c65bac0232",
            "6d08e0c65b08657865633a206c73",
            "7809e0c65b8201",
        ];
        assert_eq!(all_events(Protocol::Alis), expected);
        assert_eq!(words(Protocol::Alis.end().into_iter().collect()), ["0400"]);
    }
}
