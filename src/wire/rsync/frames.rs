//! Messages beside the stream (io.c): four bytes, of which one is a tag and three a length, and what they announce.

/// Where a side is in its frames.
#[derive(Debug, Default)]
pub(super) enum Frames {
    /// There are none (yet).
    #[default]
    Off,
    /// In the four bytes.
    Header([u8; 4], usize),
    /// In a piece of the stream, with this much left.
    Data(usize),
    /// In a message.
    Message(Message),
}

/// A message beside the stream.
#[derive(Debug)]
pub(super) struct Message {
    tag: u8,
    left: usize,
    text: Vec<u8>,
}

/// What a message tells us.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Something went wrong there.
    Error(Vec<u8>),
    /// This was removed.
    Removed(Vec<u8>),
}

impl Frames {
    pub(super) fn on() -> Self {
        Self::Header([0; 4], 0)
    }

    /// Takes what belongs to headers and messages from the beginning; gives how much that was, and what was told.
    /// `None`: this is no header.
    pub(super) fn take(&mut self, data: &[u8]) -> Option<(usize, Option<Told>)> {
        match self {
            Self::Off | Self::Data(_) => Some((0, None)),
            Self::Header(header, got) => {
                let mut taken = 0;
                for (to, from) in header.iter_mut().skip(*got).zip(data) {
                    *to = *from;
                    taken += 1;
                }
                *got += taken;
                if *got == 4 {
                    *self = Self::after(*header)?;
                }
                Some((taken, None))
            }
            Self::Message(message) => {
                let taken = message.left.min(data.len());
                let room = MAX_TEXT.saturating_sub(message.text.len()).min(taken);
                message.text.extend_from_slice(data.get(..room).unwrap_or_default());
                message.left -= taken;
                let told = match message.left {
                    0 => Some(std::mem::replace(self, Self::on())),
                    _ => None,
                };
                let told =
                    told.and_then(|frames| if let Self::Message(message) = frames { message.told() } else { None });
                Some((taken, told))
            }
        }
    }

    /// Counts what was read of the stream.
    pub(super) fn consume(&mut self, count: usize) {
        if let Self::Data(left) = self {
            *left = left.saturating_sub(count);
            if *left == 0 {
                *self = Self::on();
            }
        }
    }

    /// How much of the next bytes is stream.
    pub(super) fn stream(&self, available: usize) -> usize {
        match self {
            Self::Off => available,
            Self::Data(left) => available.min(*left),
            Self::Header(..) | Self::Message(_) => 0,
        }
    }

    pub(super) fn is_between(&self) -> bool {
        matches!(self, Self::Off | Self::Header(_, 0))
    }

    fn after(header: [u8; 4]) -> Option<Self> {
        let [a, b, c, tag] = header;
        let length = u32::from_le_bytes([a, b, c, 0]) as usize;
        match (tag.checked_sub(TAG_BASE)?, length) {
            (DATA, 0) => Some(Self::on()),
            (DATA, left) => Some(Self::Data(left)),
            (tag, 0) if KNOWN.contains(&tag) => Some(Self::on()),
            (tag, left) if KNOWN.contains(&tag) => Some(Self::Message(Message { tag, left, text: Vec::new() })),
            _ => None,
        }
    }
}

impl Message {
    fn told(self) -> Option<Told> {
        match self.tag {
            ERROR_XFER | ERROR => Some(Told::Error(self.text)),
            DELETED => Some(Told::Removed(self.text)),
            _ => None,
        }
    }
}

const TAG_BASE: u8 = 7;
const DATA: u8 = 0;
const ERROR_XFER: u8 = 1;
const ERROR: u8 = 3;
const DELETED: u8 = 101;

/// `enum msgcode`
const KNOWN: [u8; 18] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 22, 33, 42, 86, 100, DELETED, 102];

/// More of a message is not kept: names have at most 4 KiB.
const MAX_TEXT: usize = 5 * 1024;
