//! Any observations as a version 2 cast: every line must be an event, in UTF-8, and time must not run back.
#![no_main]

use gatescribe::record::export::cast::write_cast;
use gatescribe_fuzz::{any_cast, time};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let cast = any_cast(data, |observations, options, out| write_cast(observations, options, out).is_ok());
    let mut last = 0.0;
    for time in cast.lines().skip(1).map(time) {
        assert!(time >= last);
        last = time;
    }
});
