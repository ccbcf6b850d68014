//! Any observations as a version 3 cast: every line must be an event, in UTF-8, and no interval negative.
#![no_main]

use gatescribe::record::export::cast::CastOptions;
use gatescribe::record::export::cast3::write_cast3;
use gatescribe_fuzz::{length, observations};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let observations = observations(data);
    let most = 8 * length(&observations) + 80 * observations.len() + 20_000;
    let options = CastOptions { started: jiff::Timestamp::UNIX_EPOCH, title: None, input: true, opaque: false };
    let mut out = Vec::new();
    assert!(write_cast3(observations.into_iter().map(Ok::<_, ()>), &options, &mut out).is_ok());
    assert!(out.len() <= most, "{} bytes, at most {most}", out.len());
    let text = std::str::from_utf8(&out).expect("a cast is UTF-8");
    for line in text.lines().skip(1) {
        let (interval, rest) = line.trim_start_matches('[').split_once(',').expect("an event has an interval");
        let interval: f64 = interval.parse().expect("an interval is a number");
        assert!(interval >= 0.0 && rest.ends_with(']'));
    }
});
