//! Pieces of one message that go on together: a reading looks at headers and contents apart, and a receiver shall not get
//! two packets for the one that was sent.

use bytes::Bytes;

/// What is ready to go on of one message.
pub(super) struct Together {
    whole: Bytes,
    ready: Option<Bytes>,
}

impl Together {
    /// Of this message, nothing is ready.
    pub(super) fn new(whole: Bytes) -> Self {
        Self { whole, ready: None }
    }

    /// Adds a piece. Returns what has to go on first, because this does not follow it in the message.
    pub(super) fn add(&mut self, piece: Bytes) -> Option<Bytes> {
        let joined = self.ready.as_ref().and_then(|ready| {
            let (from, until) = (self.place(ready)?, self.place(&piece)?);
            (from.end == until.start).then(|| self.whole.slice(from.start..until.end))
        });
        match joined {
            Some(joined) => {
                self.ready = Some(joined);
                None
            }
            None => self.ready.replace(piece),
        }
    }

    /// What is left to go on.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        self.ready.take()
    }

    /// Where in the message a piece is; a reading may also pass what it held back of an earlier one.
    fn place(&self, piece: &Bytes) -> Option<std::ops::Range<usize>> {
        let start = piece.as_ptr().addr().checked_sub(self.whole.as_ptr().addr())?;
        let end = start.checked_add(piece.len())?;
        (end <= self.whole.len()).then_some(start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_goes_together_and_nothing_else_does() {
        let whole = Bytes::from_static(b"held back, head and contents, more");
        let mut together = Together::new(whole.clone());
        let held = Bytes::copy_from_slice(b"of an earlier one");
        assert_eq!(together.add(held.clone()), None);
        assert_eq!(together.add(whole.slice(..11)), Some(held));
        assert_eq!(together.add(whole.slice(11..15)), None);
        assert_eq!(together.add(whole.slice(15..28)), None);
        // What was refused in between is not in it.
        assert_eq!(together.add(whole.slice(30..)), Some(whole.slice(..28)));
        assert_eq!(together.take(), Some(whole.slice(30..)));
        assert_eq!(together.take(), None);
    }

    #[test]
    fn an_equal_piece_from_elsewhere_is_not_joined() {
        let (whole, other) = (Bytes::from(vec![1; 8]), Bytes::from(vec![1; 8]));
        let mut together = Together::new(whole.clone());
        assert_eq!(together.add(whole.slice(..4)), None);
        assert_eq!(together.add(other.slice(4..)), Some(whole.slice(..4)));
    }
}
