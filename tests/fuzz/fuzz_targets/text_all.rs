//! Any observations as text, `view=all`: it must be safe to print, and in proportion to the recording.
#![no_main]

use gatescribe::record::export::text::View;

libfuzzer_sys::fuzz_target!(|data: &[u8]| gatescribe_fuzz::check_text(data, View::All));
