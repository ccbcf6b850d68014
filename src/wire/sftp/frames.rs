//! One direction, cut into packets. Knows nothing of what stands in them: the caller says how much of a packet it must see
//! at once, its *head*, and what is left of it streams through as it comes.

use bytes::{Bytes, BytesMut};

use super::packet::Fields;
use crate::wire::Stop;

/// What has come of the packet that is under way.
#[derive(Default)]
pub(super) struct Frames {
    /// Of a head that is not whole yet. Copied, because slices would keep all of the small pieces alive that they came in.
    held: BytesMut,
    /// Of a packet whose head was given out: how much is still to come.
    left: usize,
}

/// The next that can be given out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A packet's head, which may be all of it.
    Head(Bytes),
    /// More of the packet whose head was given out last.
    Body(Bytes),
}

impl Frames {
    /// Takes what it can from the front of `data`. `head` tells how many bytes must be seen together, given those from the
    /// packet's beginning that are there; it is asked again with so many, until they are enough, and holds the caps.
    pub(super) fn next(
        &mut self,
        data: &mut Bytes,
        head: impl Fn(&[u8]) -> Result<usize, Stop>,
    ) -> Result<Option<Piece>, Stop> {
        if data.is_empty() {
            return Ok(None);
        }
        if self.left > 0 {
            let now = self.left.min(data.len());
            self.left -= now;
            return Ok(Some(Piece::Body(data.split_to(now))));
        }
        loop {
            let seen = if self.held.is_empty() { &data[..] } else { &self.held[..] };
            let wanted = head(seen)?;
            if seen.len() >= wanted {
                let whole = match self.held.is_empty() {
                    true => data.split_to(wanted),
                    false => std::mem::take(&mut self.held).freeze(),
                };
                self.left = length(&whole).saturating_sub(whole.len());
                return Ok(Some(Piece::Head(whole)));
            }
            if data.is_empty() {
                return Ok(None);
            }
            let more = (wanted - self.held.len()).min(data.len());
            self.held.extend_from_slice(&data.split_to(more));
        }
    }

    /// How much of the packet under way has not been given out; 0 when the last that was given out ended one.
    pub(super) fn left(&self) -> usize {
        self.left
    }
}

/// A packet's length with its length field.
fn length(head: &[u8]) -> usize {
    Fields(head).number().and_then(|length| usize::try_from(length).ok()).unwrap_or_default().saturating_add(4)
}
