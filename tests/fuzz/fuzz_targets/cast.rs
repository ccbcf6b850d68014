//! Any observations as a version 2 cast: every line must be an event, in UTF-8, and time must not run back.
#![no_main]

use gatescribe::record::export::cast::{CastOptions, write_cast};
use gatescribe_fuzz::{length, observations};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let observations = observations(data);
    let most = 8 * length(&observations) + 80 * observations.len() + 20_000;
    let options = CastOptions { started: jiff::Timestamp::UNIX_EPOCH, title: None, input: true, opaque: false };
    let mut out = Vec::new();
    assert!(write_cast(observations.into_iter().map(Ok::<_, ()>), &options, &mut out).is_ok());
    assert!(out.len() <= most, "{} bytes, at most {most}", out.len());
    let text = std::str::from_utf8(&out).expect("a cast is UTF-8");
    let mut last = 0.0;
    for line in text.lines().skip(1) {
        let (time, rest) = line.trim_start_matches('[').split_once(',').expect("an event has a time");
        let time: f64 = time.parse().expect("a time is a number");
        assert!(time >= last && rest.ends_with(']'));
        last = time;
    }
});
