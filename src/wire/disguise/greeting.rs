//! Finds an SSH identification string (RFC 4253, section 4.2) at the beginning of a line.

/// Looks at the beginning of one direction.
#[derive(Debug)]
pub(super) struct Greeting {
    /// How many bytes are still looked at.
    left: usize,
    line: Line,
}

#[derive(Clone, Copy, Debug)]
enum Line {
    /// So much of these greetings was there, from the line's beginning.
    Begun([u8; LONGEST], usize),
    /// Something else stands in it.
    Other,
}

impl Greeting {
    /// Looks at so many bytes.
    pub(super) fn within(bytes: usize) -> Self {
        Self { left: bytes, line: BEGIN }
    }

    /// The end of the first greeting in what comes next. Nothing is found after it.
    pub(super) fn find(&mut self, data: &[u8]) -> Option<usize> {
        let looked_at = data.get(..self.left).unwrap_or(data);
        self.left -= looked_at.len();
        let end = looked_at.iter().position(|byte| self.take(*byte))? + 1;
        self.left = 0;
        Some(end)
    }

    /// Whether a greeting is complete with this byte.
    fn take(&mut self, byte: u8) -> bool {
        if matches!(byte, b'\r' | b'\n') {
            self.line = BEGIN;
            return false;
        }
        let Line::Begun(mut line, so_far) = self.line else { return false };
        if let Some(next) = line.get_mut(so_far) {
            *next = byte;
        }
        let begun = line.get(..=so_far).unwrap_or(&line);
        self.line = match GREETINGS.iter().any(|greeting| greeting.starts_with(begun)) {
            true => Line::Begun(line, so_far + 1),
            false => Line::Other,
        };
        GREETINGS.contains(&begun)
    }
}

const BEGIN: Line = Line::Begun([0; LONGEST], 0);
/// 1.99: a server that speaks version 1 too (section 5.1).
const GREETINGS: [&[u8]; 2] = [b"SSH-2.0-", b"SSH-1.99-"];
/// The length of the longest.
pub(super) const LONGEST: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings_stand_at_the_beginning_of_a_line() {
        for (data, expected) in [
            (&b"SSH-2.0-OpenSSH_9.2\r\n"[..], Some(8)),
            (b"SSH-1.99-x", Some(9)),
            (b"hello\nSSH-2.0-x", Some(14)),
            (b"\r\n\r\nSSH-2.0-", Some(12)),
            (b"SSH-2.0", None),
            (b"SSH-1.5-x", None),
            (b"SSH-SSH-2.0-x", None),
            (b"# host SSH-2.0-x", None),
            (b" SSH-2.0-x\nssh-2.0-x", None),
            (b"", None),
        ] {
            assert_eq!(Greeting::within(64).find(data), expected, "{data:?}");
            let mut greeting = Greeting::within(64);
            let end = data.iter().position(|byte| greeting.find(&[*byte]).is_some()).map(|n| n + 1);
            assert_eq!(end, expected, "{data:?}, byte by byte");
        }
    }

    #[test]
    fn nothing_is_looked_at_beyond_the_limit_or_after_the_first() {
        assert_eq!(Greeting::within(9).find(b"ab\nSSH-2.0-x"), None);
        assert_eq!(Greeting::within(11).find(b"ab\nSSH-2.0-x"), Some(11));
        let mut greeting = Greeting::within(11);
        for piece in [&b"ab\n"[..], b"SSH", b"\n", b"SSH-", b"2.0-"] {
            assert_eq!(greeting.find(piece), None);
        }
        let mut greeting = Greeting::within(64);
        assert!(greeting.find(b"SSH-2.0-x\n").is_some());
        assert_eq!(greeting.find(b"SSH-2.0-x\n"), None);
    }
}
