//! Any observations as text, `view=all`: it must be safe to print, and in proportion to the recording.
#![no_main]

use gatescribe::record::export::text::{TextOptions, View, write_text};
use gatescribe_fuzz::{length, observations};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let observations = observations(data);
    let most = 40 * length(&observations) + (2 << 20);
    let options = TextOptions { started: jiff::Timestamp::UNIX_EPOCH, view: View::All, input: true, opaque: false };
    let mut out = Vec::new();
    assert!(write_text(observations.into_iter().map(Ok::<_, ()>), &options, &mut out).is_ok());
    assert!(out.len() <= most, "{} bytes, at most {most}", out.len());
    let text = std::str::from_utf8(&out).expect("text is UTF-8");
    assert!(
        !text.chars().any(|c| (c.is_control() && c != '\n' && c != '\t') || ('\u{202a}'..='\u{202e}').contains(&c))
    );
    assert!(text.ends_with('\n'));
});
