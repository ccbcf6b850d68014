//! What was just put into a spool, while it is still in memory, so that the drain need neither read it back nor decrypt it.
//!
//! A short cut, never a source: a record is here only once it stands in the spool, and what is not here is read from there.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::codec::{put_varint, varint_len};
use super::spool::{SEGMENT, SEGMENTS};

/// Bytes of records that one recording may hold, beside what a drain has just taken.
const MOST: usize = 2 * SEGMENT;
/// Bytes that all recordings together may hold.
const MOST_OF_ALL: usize = 64 << 20;

/// How much is held by all recordings. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Held(Arc<AtomicUsize>);

/// One recording's.
#[derive(Debug)]
pub(super) struct Fresh {
    segments: [Piece; SEGMENTS as usize],
    bytes: usize,
    held: Held,
}

/// What there is of the newest records of a segment.
#[derive(Debug, Default)]
enum Piece {
    #[default]
    Empty,
    /// All that came since the last [`Fresh::take`].
    Whole(Block),
    /// There was no room for all of it, so there is none.
    Missing,
}

/// Records as a container's block has them: the time that they count from, then one after another.
#[derive(Debug)]
pub(super) struct Block {
    pub bytes: Vec<u8>,
    pub count: u32,
    first: u64,
    base_us: u64,
}

impl Fresh {
    pub fn new(held: Held) -> Self {
        Self { segments: Default::default(), bytes: 0, held }
    }

    /// A record stands in `segment`: its number, the time that it counts from, and the two parts that it is made of.
    pub fn add(&mut self, segment: u8, number: u64, base_us: u64, (front, payload): (&[u8], &[u8])) {
        let Some(piece) = self.segments.get_mut(usize::from(segment)) else { return };
        let len = front.len() + payload.len();
        if matches!(piece, Piece::Missing) {
            return;
        }
        if self.bytes + len > MOST || !self.held.take(len) {
            if let Piece::Whole(block) = mem::replace(piece, Piece::Missing) {
                let gone = block.records();
                self.bytes -= gone;
                self.held.give(gone);
            }
            return;
        }
        self.bytes += len;
        if matches!(piece, Piece::Empty) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, base_us);
            *piece = Piece::Whole(Block { bytes, count: 0, first: number, base_us });
        }
        if let Piece::Whole(block) = piece {
            block.bytes.extend_from_slice(front);
            block.bytes.extend_from_slice(payload);
            block.count += 1;
        }
    }

    /// All records of `segment` from the number `first` on, if they are here; the next ones begin anew.
    pub fn take(&mut self, segment: u8, first: u64, base_us: u64) -> Option<Block> {
        let Piece::Whole(block) = mem::take(self.segments.get_mut(usize::from(segment))?) else { return None };
        let records = block.records();
        self.bytes -= records;
        self.held.give(records);
        // After a failure an older part of the segment has to be written again, which is not here any more.
        (block.first == first && block.base_us == base_us).then_some(block)
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        self.held.give(self.bytes);
    }
}

impl Block {
    /// Bytes of its records: all but the time at its beginning.
    fn records(&self) -> usize {
        self.bytes.len() - varint_len(self.base_us)
    }
}

impl Held {
    fn take(&self, bytes: usize) -> bool {
        let fits = |held: usize| (held + bytes <= MOST_OF_ALL).then_some(held + bytes);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    fn give(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(fresh: &mut Fresh, segment: u8, number: u64, len: usize) {
        fresh.add(segment, number, 7, (b"f", &vec![number as u8; len - 1]));
    }

    #[test]
    fn what_was_added_since_the_last_time_is_there_whole_and_once() {
        let held = Held::default();
        let mut fresh = Fresh::new(held.clone());
        add(&mut fresh, 3, 10, 2);
        add(&mut fresh, 3, 11, 3);
        add(&mut fresh, 4, 12, 2);
        let block = fresh.take(3, 10, 7).unwrap();
        assert_eq!((block.count, block.bytes.as_slice()), (2, [7, b'f', 10, b'f', 11, 11].as_slice()));
        assert!(fresh.take(3, 12, 7).is_none(), "nothing was added since");
        assert_eq!(held.bytes(), 2);
        assert!(fresh.take(4, 11, 7).is_none(), "its first one is not here");
        add(&mut fresh, 4, 13, 2);
        assert!(fresh.take(4, 13, 8).is_none(), "it counts from another time");
        add(&mut fresh, 4, 14, 2);
        drop(fresh);
        assert_eq!(held.bytes(), 0);
    }

    #[test]
    fn what_does_not_fit_is_not_there_in_part() {
        let held = Held::default();
        let mut fresh = Fresh::new(held.clone());
        add(&mut fresh, 0, 0, SEGMENT);
        add(&mut fresh, 1, 1, SEGMENT - 1);
        add(&mut fresh, 1, 2, 2);
        assert_eq!(held.bytes(), SEGMENT);
        add(&mut fresh, 1, 3, 2);
        assert!(fresh.take(1, 1, 7).is_none() && fresh.take(0, 0, 7).is_some());
        assert_eq!(held.bytes(), 0);
        add(&mut fresh, 1, 4, 2);
        assert!(fresh.take(1, 4, 7).is_some());
        let others: Vec<_> = (0..MOST_OF_ALL / SEGMENT)
            .map(|_| {
                let mut other = Fresh::new(held.clone());
                add(&mut other, 0, 0, SEGMENT);
                other
            })
            .collect();
        add(&mut fresh, 0, 5, 1);
        assert!(fresh.take(0, 5, 7).is_none(), "others hold it all");
        drop(others);
        assert_eq!(held.bytes(), 0);
    }
}
