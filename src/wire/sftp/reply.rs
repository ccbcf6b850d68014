//! What a server answers, read from the packet's head: of DATA and NAME what stands before their contents, of others all.

use super::packet::{Fields, MAX_HANDLE, Start, Status, VERSION, kind, start};
use crate::wire::Stop;

/// What came is no packet of a server.
pub(super) const BAD_REPLY: Stop = Stop { words: "the server sent something that is not sftp version 3" };
const TEXT: Stop = Stop {
    words: "the server's start-up files print text, so sftp cannot work; let them print only when there is a terminal",
};
const OTHER_VERSION: Stop = Stop { words: "the server speaks an sftp version other than 3" };
/// Length, type, id, and how many bytes or names follow.
const HEAD: usize = 13;
/// A name, a long name and flags, all empty.
const SHORTEST_NAME: usize = 12;

/// A reply, without its id.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply<'a> {
    Status(Status),
    Handle(&'a [u8]),
    /// Contents follow.
    Data,
    /// So many names follow; the first of them when all of the packet was seen.
    Names {
        count: u32,
        first: Option<&'a [u8]>,
    },
    Attributes,
    Extended,
}

/// How many bytes must be seen together. `names_whole` tells of an id whether its NAME is wanted whole.
pub(super) fn head(seen: &[u8], names_whole: impl Fn(u32) -> bool) -> Result<usize, Stop> {
    match start(seen, BAD_REPLY)? {
        Start::More(wanted) => Ok(wanted),
        Start::Known { kind: kind::DATA | kind::NAME, whole } if whole < HEAD => Err(BAD_REPLY),
        Start::Known { kind: kind::DATA, .. } => Ok(HEAD),
        Start::Known { kind: kind::NAME, whole } => {
            let Some(id) = seen.get(5..HEAD).and_then(|rest| Fields(rest).number()) else { return Ok(HEAD) };
            Ok(if names_whole(id) { whole } else { HEAD })
        }
        Start::Known { whole, .. } => Ok(whole),
    }
}

/// As [`head`], for the first packet, which must be VERSION. A shell's start-up files may have printed something instead:
/// every packet begins with a zero byte (its length has a cap), and text does not.
pub(super) fn first_head(seen: &[u8]) -> Result<usize, Stop> {
    let is_text = |byte: u8| matches!(byte, b'\t' | b'\n' | b'\r' | 0x1b | 0x20..=0x7e | 0x80..);
    if seen.first().is_some_and(|byte| is_text(*byte)) {
        return Err(TEXT);
    }
    match start(seen, BAD_REPLY)? {
        Start::More(wanted) => Ok(wanted),
        Start::Known { kind: kind::VERSION, whole } => Ok(whole),
        Start::Known { .. } => Err(BAD_REPLY),
    }
}

/// Checks VERSION. Lower versions are a part of the third; an answer above what was asked for is not allowed.
pub(super) fn version(packet: &[u8]) -> Result<(), Stop> {
    match packet.get(5..).and_then(|rest| Fields(rest).number()) {
        Some(version) if version <= VERSION => Ok(()),
        Some(_) => Err(OTHER_VERSION),
        None => Err(BAD_REPLY),
    }
}

/// Reads a reply and its id.
pub(super) fn parse(packet: &[u8]) -> Option<(u32, Reply<'_>)> {
    let mut fields = Fields(packet);
    let said = usize::try_from(fields.number()?).ok()?;
    let kind = fields.byte()?;
    let id = fields.number()?;
    let reply = match kind {
        kind::STATUS => Reply::Status(Status::read(&mut fields)?),
        kind::HANDLE => Reply::Handle(fields.string().filter(|handle| handle.len() <= MAX_HANDLE)?),
        kind::DATA => {
            let length = usize::try_from(fields.number()?).ok()?;
            (said.checked_sub(HEAD - 4)? == length).then_some(Reply::Data)?
        }
        kind::NAME => {
            let count = fields.number()?;
            let room = said.checked_sub(HEAD - 4)? / SHORTEST_NAME;
            (usize::try_from(count).ok()? <= room).then_some(())?;
            Reply::Names { count, first: fields.string() }
        }
        kind::ATTRS => Reply::Attributes,
        kind::EXTENDED_REPLY => Reply::Extended,
        _ => return None,
    };
    Some((id, reply))
}
