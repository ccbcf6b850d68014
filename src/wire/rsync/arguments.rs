//! Arguments that come in the stream (`-s`): held back until they are whole, and judged as those of the command are.

use bytes::Bytes;

use super::{Files, MAY_NOT_WRITE};
use crate::wire::words::Word;
use crate::wire::{Step, Stop};

impl Files {
    /// Takes arguments from the stream until they are whole; then they are judged, and what follows is read.
    pub(super) fn arguments(
        &mut self,
        data: Bytes,
        may_write: bool,
        steps: &mut Vec<Step>,
    ) -> Result<Option<Bytes>, Stop> {
        let Some(held) = &mut self.arguments else { return Ok(Some(data)) };
        let before = held.len();
        held.extend_from_slice(&data);
        // An empty one is the end.
        let from = before.saturating_sub(1);
        let end = match held.first() {
            Some(0) => Some(1),
            _ => held.get(from..).unwrap_or_default().windows(2).position(|two| two == b"\0\0").map(|at| from + at + 2),
        };
        let Some(end) = end else {
            return if held.len() > MAX_ARGUMENTS { Err(BAD_ARGUMENTS) } else { Ok(None) };
        };
        let mut whole = std::mem::take(held);
        self.arguments = None;
        whole.truncate(end);
        let was_sender = self.options.sender;
        // The first is the program's name.
        let words: Vec<_> =
            whole.split(|byte| *byte == 0).skip(1).filter(|word| !word.is_empty()).map(argument).collect();
        let known = self.options.read(&words);
        if known.is_none() || self.options.sender != was_sender {
            return Err(BAD_ARGUMENTS);
        }
        if self.options.writes() && !may_write {
            return Err(MAY_NOT_WRITE);
        }
        steps.push(Step::Pass(Bytes::from(whole)));
        Ok(Some(data.slice(end.saturating_sub(before).min(data.len())..)))
    }
}

/// One argument as it comes in the stream; rsync itself expands globs behind the dot, and takes back-slashes away.
fn argument(bytes: &[u8]) -> Word {
    Word {
        text: String::from_utf8_lossy(bytes).into_owned(),
        expands: false,
        begins_open: matches!(bytes.first(), Some(b'*' | b'?' | b'[' | b'\\')),
    }
}

pub(super) const MAX_ARGUMENTS: usize = 1 << 20;

pub(super) const BAD_ARGUMENTS: Stop = Stop { words: "an argument of rsync is not known to be harmless" };
