//! Bytes of a stream as text: cut on UTF-8 boundaries, whatever the reads were cut on.

/// Decodes one stream's bytes piece by piece. A character that is not complete yet waits (at most 3 bytes).
#[derive(Default)]
pub struct Utf8Stream {
    tail: Vec<u8>,
}

/// A part of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Whole characters.
    Text(&'a str),
    /// Bytes that can never become a character; 1 to 3.
    Invalid(&'a [u8]),
}

impl Utf8Stream {
    /// Appends the text of `data` to `out`. What can never become a character is U+FFFD.
    pub fn push(&mut self, data: &[u8], out: &mut String) {
        self.push_with(data, |piece| match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Invalid(_) => out.push(char::REPLACEMENT_CHARACTER),
        });
    }

    /// Appends what is left when the stream ends.
    pub fn finish(&mut self, out: &mut String) {
        self.finish_with(|_| out.push(char::REPLACEMENT_CHARACTER));
    }

    /// Gives the parts of `data` to `take`, in order.
    pub fn push_with(&mut self, data: &[u8], mut take: impl FnMut(Piece<'_>)) {
        let joined;
        let mut rest = data;
        if !self.tail.is_empty() {
            self.tail.extend_from_slice(data);
            joined = std::mem::take(&mut self.tail);
            rest = &joined;
        }
        let mut chunks = rest.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            if !chunk.valid().is_empty() {
                take(Piece::Text(chunk.valid()));
            }
            let invalid = chunk.invalid();
            if chunks.peek().is_none() && may_go_on(invalid) {
                self.tail = invalid.to_vec();
            } else if !invalid.is_empty() {
                take(Piece::Invalid(invalid));
            }
        }
    }

    /// Gives what is left when the stream ends to `take`.
    pub fn finish_with(&mut self, mut take: impl FnMut(Piece<'_>)) {
        let tail = std::mem::take(&mut self.tail);
        if !tail.is_empty() {
            take(Piece::Invalid(&tail));
        }
    }
}

/// Whether these bytes are the beginning of a character. `std` tells it by an error without a length.
fn may_go_on(bytes: &[u8]) -> bool {
    !bytes.is_empty() && std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_make_what_the_whole_makes(data in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            "\\PC{0,20}".prop_map(String::into_bytes),
        ], cuts in prop::collection::vec(0usize..40, 0..6)) {
            let (mut stream, mut out, mut from) = (Utf8Stream::default(), String::new(), 0);
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(data.len())).chain([data.len()]).collect();
            cuts.sort_unstable();
            for cut in cuts {
                stream.push(&data[from..cut], &mut out);
                prop_assert!(stream.tail.len() <= 3);
                from = cut;
            }
            stream.finish(&mut out);
            prop_assert_eq!(out, String::from_utf8_lossy(&data).into_owned());
        }
    }
}
