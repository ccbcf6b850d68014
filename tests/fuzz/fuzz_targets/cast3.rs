//! Any observations as a version 3 cast: every line must be an event, in UTF-8, and no interval negative.
#![no_main]

use gatescribe::record::export::cast3::write_cast3;
use gatescribe_fuzz::{any_cast, time};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let cast = any_cast(data, |observations, options, out| write_cast3(observations, options, out).is_ok());
    assert!(cast.lines().skip(1).map(time).all(|interval| interval >= 0.0));
});
