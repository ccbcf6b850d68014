//! Any observations as a cast: every line must be an event, in UTF-8, and time must not run back.
#![no_main]

use bytes::Bytes;
use gatescribe::record::codec;
use gatescribe::record::export::cast::{CastOptions, write_cast};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (mut bytes, mut clock) = (Bytes::copy_from_slice(data), 0);
    let observations = std::iter::from_fn(|| codec::decode(&mut bytes, &mut clock).ok().map(Ok::<_, ()>));
    let options = CastOptions { started: jiff::Timestamp::UNIX_EPOCH, title: None, input: true };
    let mut out = Vec::new();
    assert!(write_cast(observations, &options, &mut out).is_ok());
    let text = std::str::from_utf8(&out).expect("a cast is UTF-8");
    let mut last = 0.0;
    for line in text.lines().skip(1) {
        let (time, rest) = line.trim_start_matches('[').split_once(',').expect("an event has a time");
        let time: f64 = time.parse().expect("a time is a number");
        assert!(time >= last && rest.ends_with(']'));
        last = time;
    }
});
