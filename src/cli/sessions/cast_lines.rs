//! Reads asciicast (v2 and v3) line by line. What it reads is a stranger's: lines have a longest length, times count
//! only forward, and what is not understood is an error with its line.

use std::io::{BufRead, Read};

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::Value;

/// A cast that is being read.
pub struct CastLines<R> {
    source: R,
    /// Whether times are intervals (v3).
    intervals: bool,
    /// Seconds since the beginning.
    now: f64,
    line: usize,
    buffer: String,
}

/// Something in a cast.
#[derive(Clone, Debug, PartialEq)]
pub struct CastEvent {
    /// Seconds since the beginning.
    pub at: f64,
    /// What it is.
    pub what: CastWhat,
}

/// What events there are; others are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CastWhat {
    /// Output.
    Output(String),
    /// The terminal has another size: columns, rows.
    Resize(u16, u16),
}

/// The size that a cast begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub cols: u16,
    pub rows: u16,
}

#[derive(Deserialize)]
struct Header {
    version: u8,
    width: Option<u16>,
    height: Option<u16>,
    term: Option<Size3>,
}

#[derive(Deserialize)]
struct Size3 {
    cols: u16,
    rows: u16,
}

impl<R: BufRead> CastLines<R> {
    /// Reads the header.
    pub fn open(source: R) -> anyhow::Result<(Self, Size)> {
        let mut lines = Self { source, intervals: false, now: 0.0, line: 0, buffer: String::new() };
        let header = lines.next_line()?.context("it is empty")?;
        let header: Header = serde_json::from_str(header).context("it does not begin as an asciicast does")?;
        let size = match (header.version, header.term, header.width, header.height) {
            (2, _, Some(cols), Some(rows)) => Size { cols, rows },
            (3, Some(Size3 { cols, rows }), _, _) => Size { cols, rows },
            (version, ..) => bail!("asciicast v{version} is not read here, only v2 and v3"),
        };
        lines.intervals = header.version == 3;
        Ok((lines, size))
    }

    /// The next event; `None` at the end.
    pub fn next_event(&mut self) -> anyhow::Result<Option<CastEvent>> {
        loop {
            let Some(text) = self.next_line()? else { return Ok(None) };
            // Comments are of v3.
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let parsed: Result<(f64, String, Value), _> = serde_json::from_str(text);
            let (time, code, data) = parsed.with_context(|| format!("line {} is no event", self.line))?;
            let at = if self.intervals { self.now + time.max(0.0) } else { self.now.max(time) };
            self.now = if at.is_finite() { at } else { self.now };
            let data = data.as_str().unwrap_or_default();
            let what = match code.as_str() {
                "o" => CastWhat::Output(data.to_owned()),
                "r" => match size(data) {
                    Some((cols, rows)) => CastWhat::Resize(cols, rows),
                    None => continue,
                },
                _ => continue,
            };
            return Ok(Some(CastEvent { at: self.now, what }));
        }
    }

    fn next_line(&mut self) -> anyhow::Result<Option<&str>> {
        self.buffer.clear();
        self.line += 1;
        let taken = self.source.by_ref().take(LONGEST_LINE).read_line(&mut self.buffer);
        let taken = taken.with_context(|| format!("line {}", self.line))?;
        if taken as u64 == LONGEST_LINE {
            bail!("line {} is too long", self.line);
        }
        Ok((taken > 0).then(|| self.buffer.trim()))
    }
}

/// `80x24`.
pub fn size(data: &str) -> Option<(u16, u16)> {
    let (cols, rows) = data.split_once('x')?;
    Some((cols.parse().ok()?, rows.parse().ok()?))
}

/// In bytes. The gateway's own are shorter than 2 MiB.
const LONGEST_LINE: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<(Size, Vec<CastEvent>)> {
        let (mut lines, size) = CastLines::open(text.as_bytes())?;
        let mut events = Vec::new();
        while let Some(event) = lines.next_event()? {
            events.push(event);
        }
        Ok((size, events))
    }

    fn output(at: f64, text: &str) -> CastEvent {
        CastEvent { at, what: CastWhat::Output(text.into()) }
    }

    #[test]
    fn both_versions_are_read() {
        let (size, events) =
            read("{\"version\":2,\"width\":80,\"height\":24}\n[0.5,\"o\",\"a\"]\n[0.5,\"i\",\"x\"]\n[1.5,\"r\",\"90x30\"]\n[1,\"o\",\"b\"]")
                .unwrap();
        assert_eq!(size, Size { cols: 80, rows: 24 });
        let resize = CastEvent { at: 1.5, what: CastWhat::Resize(90, 30) };
        assert_eq!(events, [output(0.5, "a"), resize, output(1.5, "b")], "times count forward");
        let (size, events) = read(
            "{\"version\":3,\"term\":{\"cols\":100,\"rows\":50}}\n# comment\n\n[0.5,\"o\",\"a\"]\n[0.25,\"m\",\"\"]\n[0.25,\"o\",\"b\"]\n[0,\"x\",\"0\"]",
        )
        .unwrap();
        assert_eq!(size, Size { cols: 100, rows: 50 });
        assert_eq!(events, [output(0.5, "a"), output(1.0, "b")]);
    }

    #[test]
    fn what_is_no_cast_says_so() {
        for (text, words) in [
            ("", "empty"),
            ("hello", "begin"),
            ("{\"version\":1,\"width\":80,\"height\":24}", "v1"),
            ("{\"version\":3,\"width\":80,\"height\":24}", "v3"),
            ("{\"version\":2,\"width\":80,\"height\":24}\n[1]", "line 2"),
            ("{\"version\":2,\"width\":80,\"height\":24}\n[\"x\",\"o\",\"a\"]", "line 2"),
            ("{\"version\":2,\"width\":99999,\"height\":24}", "begin"),
        ] {
            let error = format!("{:#}", read(text).unwrap_err());
            assert!(error.contains(words), "{text}: {error}");
        }
        let long = format!("{{\"version\":2,\"width\":80,\"height\":24}}\n[0,\"o\",\"{}\"]", "x".repeat(17 << 20));
        assert!(read(&long).unwrap_err().to_string().contains("too long"));
    }
}
