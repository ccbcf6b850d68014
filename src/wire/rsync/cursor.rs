//! rsync's numbers and strings (io.c), read from what has come so far.

/// Why nothing was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// More has to come first.
    More,
    /// This is not understood; why, in words for people.
    Unclear(&'static str),
}

pub(super) type Result<T> = std::result::Result<T, Trouble>;

/// A place in bytes.
pub(super) struct Cursor<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    /// How much was read.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.saturating_add(count);
        let taken = self.data.get(self.at..end).ok_or(Trouble::More)?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| Trouble::More)
    }

    pub(super) fn byte(&mut self) -> Result<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn short(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn int(&mut self) -> Result<i32> {
        self.array().map(i32::from_le_bytes)
    }

    /// `read_varint()`: the first byte tells how many follow.
    pub(super) fn varint(&mut self) -> Result<i32> {
        let first = self.byte()?;
        let extra = extra_bytes(first);
        if extra > 4 {
            return Err(Trouble::Unclear("a number is too large"));
        }
        let rest = self.take(extra)?;
        let mut bytes = [0; 5];
        bytes.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        if let Some(last) = bytes.get_mut(extra) {
            *last = masked(first, extra);
        }
        let [a, b, c, d, _] = bytes;
        Ok(i32::from_le_bytes([a, b, c, d]))
    }

    /// `read_varlong()`: at least `least` bytes.
    pub(super) fn varlong(&mut self, least: usize) -> Result<i64> {
        let first = self.byte()?;
        let extra = extra_bytes(first);
        let low = least.saturating_sub(1);
        if low + extra > 8 {
            return Err(Trouble::Unclear("a number is too large"));
        }
        let rest = self.take(low + extra)?;
        let mut bytes = [0; 9];
        bytes.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        if let Some(last) = bytes.get_mut(low + extra) {
            *last = masked(first, extra);
        }
        let [a, b, c, d, e, f, g, h, _] = bytes;
        Ok(i64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }

    /// `read_longint()`, before protocol 30.
    pub(super) fn longint(&mut self) -> Result<i64> {
        match self.int()? {
            -1 => self.array().map(i64::from_le_bytes),
            short => Ok(short.into()),
        }
    }

    /// `read_varint30()`.
    pub(super) fn varint30(&mut self, protocol: u32) -> Result<i32> {
        if protocol < 30 { self.int() } else { self.varint() }
    }

    /// `read_varlong30()`.
    pub(super) fn varlong30(&mut self, protocol: u32, least: usize) -> Result<i64> {
        if protocol < 30 { self.longint() } else { self.varlong(least) }
    }

    /// A length that cannot be more than `most`, and as many bytes.
    pub(super) fn counted(&mut self, count: i32, most: usize) -> Result<&'a [u8]> {
        match usize::try_from(count) {
            Ok(count) if count <= most => self.take(count),
            _ => Err(Trouble::Unclear("a name is too long")),
        }
    }

    /// `read_vstring()`.
    pub(super) fn vstring(&mut self) -> Result<&'a [u8]> {
        let first = self.byte()?;
        let length = match first & 0x80 {
            0 => usize::from(first),
            _ => usize::from(first & 0x7f) << 8 | usize::from(self.byte()?),
        };
        if length > MAX_PATH { Err(Trouble::Unclear("a name is too long")) } else { self.take(length) }
    }

    /// A name behind a byte with its length.
    pub(super) fn short_name(&mut self) -> Result<&'a [u8]> {
        let length = self.byte()?;
        self.take(length.into())
    }
}

/// Indices of files: since protocol 30 differences to the last one (`read_ndx()`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Indices {
    positive: i32,
    negative: i32,
}

impl Default for Indices {
    fn default() -> Self {
        Self { positive: -1, negative: 1 }
    }
}

impl Indices {
    /// Reads one; `self` is changed only where that succeeds.
    pub(super) fn read(&mut self, cursor: &mut Cursor<'_>, protocol: u32) -> Result<i32> {
        if protocol < 30 {
            return cursor.int();
        }
        let first = cursor.byte()?;
        let (is_negative, byte) = match first {
            0 => return Ok(DONE),
            0xff => (true, cursor.byte()?),
            _ => (false, first),
        };
        let last = if is_negative { self.negative } else { self.positive };
        let index = match byte {
            0xfe => {
                let [high, low] = cursor.array()?;
                match high & 0x80 {
                    0 => last.checked_add(i32::from(u16::from_be_bytes([high, low]))),
                    _ => {
                        let [second, third] = cursor.array()?;
                        Some(i32::from_le_bytes([low, second, third, high & 0x7f]))
                    }
                }
            }
            _ => last.checked_add(byte.into()),
        };
        let index = index.ok_or(Trouble::Unclear("a file's index is out of range"))?;
        *(if is_negative { &mut self.negative } else { &mut self.positive }) = index;
        Ok(if is_negative { -index } else { index })
    }
}

/// No more files in this phase.
pub(super) const DONE: i32 = -1;

/// `MAXPATHLEN`
pub(super) const MAX_PATH: usize = 4096;

/// How many bytes follow the first (`int_byte_extra[]`).
fn extra_bytes(first: u8) -> usize {
    match first {
        0..0x80 => 0,
        0x80..0xc0 => 1,
        0xc0..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0..0xf8 => 4,
        0xf8..0xfc => 5,
        _ => 6,
    }
}

/// What is left of the first byte beside the bits that count.
fn masked(first: u8, extra: usize) -> u8 {
    if extra == 0 { first } else { first & ((1_u16 << (8 - extra)) - 1) as u8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_rsync_writes_them() {
        for (bytes, number) in [
            (b"\x00".as_slice(), 0),
            (b"\x7f", 127),
            (b"\x80\x80", 128),
            (b"\x81\xff", 511),
            (b"\xc1\x00\x00", 65_536),
            (b"\xf0\xff\xff\xff\xff", -1),
        ] {
            let mut cursor = Cursor::new(bytes);
            assert_eq!(cursor.varint(), Ok(number), "{bytes:?}");
            assert_eq!(cursor.at(), bytes.len());
            assert_eq!(Cursor::new(&bytes[..bytes.len() - 1]).varint(), Err(Trouble::More));
        }
        assert!(matches!(Cursor::new(&[0xff; 9]).varint(), Err(Trouble::Unclear(_))));
        assert_eq!(Cursor::new(b"\x00\x05\x00").varlong(3), Ok(5));
        assert_eq!(Cursor::new(b"\x80\x00\x00\x01").varlong(3), Ok(65_536));
        assert_eq!(Cursor::new(b"\x00\x00\x00\x80").int(), Ok(i32::MIN));
        assert_eq!(Cursor::new(b"\xff\xff\xff\xff\x00\x00\x00\x00\x01\x00\x00\x00").longint(), Ok(1 << 32));
        assert_eq!(Cursor::new(b"\x81\x00").vstring(), Err(Trouble::More));
    }

    #[test]
    fn indices_are_differences() {
        let mut indices = Indices::default();
        let mut cursor = Cursor::new(b"\x01\x01\xfe\x01\x00\xfe\x80\x05\x01\x01\x00\xff\x01\xff\x63\x01");
        let read: Vec<_> = std::iter::from_fn(|| indices.read(&mut cursor, 31).ok()).collect();
        assert_eq!(read, [0, 1, 257, 65_797, DONE, -2, -101, 65_798]);
    }
}
