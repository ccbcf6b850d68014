//! Bytes of a stream as text: cut on UTF-8 boundaries, whatever the reads were cut on.

/// Decodes one stream's bytes piece by piece. A character that is not complete yet waits (at most 3 bytes); what can
/// never become one is U+FFFD.
#[derive(Default)]
pub struct Utf8Stream {
    tail: Vec<u8>,
}

impl Utf8Stream {
    /// Appends the text of `data` to `out`.
    pub fn push(&mut self, data: &[u8], out: &mut String) {
        let joined;
        let mut rest = data;
        if !self.tail.is_empty() {
            self.tail.extend_from_slice(data);
            joined = std::mem::take(&mut self.tail);
            rest = &joined;
        }
        let mut chunks = rest.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            out.push_str(chunk.valid());
            let invalid = chunk.invalid();
            if chunks.peek().is_none() && may_go_on(invalid) {
                self.tail = invalid.to_vec();
            } else if !invalid.is_empty() {
                out.push(char::REPLACEMENT_CHARACTER);
            }
        }
    }

    /// Appends what is left when the stream ends.
    pub fn finish(&mut self, out: &mut String) {
        if !std::mem::take(&mut self.tail).is_empty() {
            out.push(char::REPLACEMENT_CHARACTER);
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
