//! The lines of a source: `C0644 12 name`, `D0755 0 name`, `E`, `T1700000000 0 1700000000 0`, and its complaints.

use crate::wire::Stop;

/// One line, without its newline.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    /// A file follows, with this many bytes.
    File { mode: &'a str, size: u64, name: &'a [u8] },
    /// What follows is in this directory.
    Directory { mode: &'a str, name: &'a [u8] },
    /// The directory ends.
    End,
    /// The times of what is next.
    Times,
    /// Something cannot be read; the source goes on.
    Warning(&'a [u8]),
    /// The source gives up.
    Fatal(&'a [u8]),
}

impl<'a> Record<'a> {
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, Stop> {
        let (first, rest) = line.split_first().ok_or(MALFORMED)?;
        match first {
            b'C' => attributes(rest).map(|(mode, size, name)| Self::File { mode, size, name }),
            b'D' => attributes(rest).map(|(mode, _, name)| Self::Directory { mode, name }),
            b'E' if rest.is_empty() => Ok(Self::End),
            b'T' => times(rest).then_some(Self::Times).ok_or(MALFORMED),
            1 => Ok(Self::Warning(rest)),
            2 => Ok(Self::Fatal(rest)),
            _ => Err(MALFORMED),
        }
    }
}

/// `0644 12 name`
fn attributes(rest: &[u8]) -> Result<(&str, u64, &[u8]), Stop> {
    let mut parts = rest.splitn(3, |byte| *byte == b' ');
    let mut next = || parts.next().ok_or(MALFORMED);
    let (mode, size, name) = (next()?, next()?, next()?);
    let mode = match std::str::from_utf8(mode) {
        Ok(text) if mode.len() == 4 && mode.iter().all(|byte| matches!(byte, b'0'..=b'7')) => text,
        _ => return Err(MALFORMED),
    };
    let size = number(size).filter(|size| *size <= i64::MAX as u64).ok_or(MALFORMED)?;
    match name {
        b"" | b".." => Err(BAD_NAME),
        _ if name.contains(&b'/') || name.contains(&0) => Err(BAD_NAME),
        _ => Ok((mode, size, name)),
    }
}

fn times(rest: &[u8]) -> bool {
    let numbers: Vec<_> = rest.split(|byte| *byte == b' ').map(number).collect();
    numbers.len() == 4 && numbers.iter().all(Option::is_some)
}

/// Digits only: no sign, no blank.
fn number(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
    text.parse().ok()
}

pub(super) const MALFORMED: Stop = Stop { words: "what was sent is not what scp sends" };

/// CVE-2019-6111 and its like: the name would lead out of the directory that was asked for.
const BAD_NAME: Stop = Stop { words: "scp was sent a file name that leads elsewhere; it was stopped" };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_strictly() {
        assert_eq!(Record::parse(b"C0644 12 a b"), Ok(Record::File { mode: "0644", size: 12, name: b"a b" }));
        assert_eq!(Record::parse(b"D4755 0 d"), Ok(Record::Directory { mode: "4755", name: b"d" }));
        assert_eq!(Record::parse(b"E"), Ok(Record::End));
        assert_eq!(Record::parse(b"T1700000000 0 1700000000 0"), Ok(Record::Times));
        assert_eq!(Record::parse(b"\x01oh"), Ok(Record::Warning(b"oh")));
        assert_eq!(Record::parse(b"\x02oh"), Ok(Record::Fatal(b"oh")));
        for bad in [
            b"".as_slice(),
            b"C",
            b"C0644",
            b"C0644 1",
            b"C644 1 a",
            b"C00644 1 a",
            b"C0844 1 a",
            b"C0644 -1 a",
            b"C0644 +1 a",
            b"C0644  a",
            b"C0644 1x a",
            b"C0644 9223372036854775808 a",
            b"C0644 99999999999999999999 a",
            b"Ex",
            b"T1 0 1",
            b"T1 0 1 0 0",
            b"T1 0 1 x",
            b"X",
            b"\0",
        ] {
            assert_eq!(Record::parse(bad), Err(MALFORMED), "{:?}", String::from_utf8_lossy(bad));
        }
        for bad in
            [b"C0644 1 ".as_slice(), b"C0644 1 ..", b"C0644 1 ../x", b"C0644 1 /etc/x", b"D0755 0 a/b", b"C0644 1 a\0"]
        {
            assert_eq!(Record::parse(bad), Err(BAD_NAME), "{:?}", String::from_utf8_lossy(bad));
        }
    }
}
