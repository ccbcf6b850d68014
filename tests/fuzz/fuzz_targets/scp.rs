//! A command of scp, and any bytes both ways: what passes is what was said, and nothing else.
#![no_main]

use gatescribe::wire::Keep;
use gatescribe::wire::scp::Files;
use gatescribe::wire::transfer::{Kind, recognise};
use gatescribe_fuzz::{command, follow};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (text, script) = command(data);
    if let Some(Kind::Scp(scp)) = recognise(text).map(|transfer| transfer.kind) {
        follow(script, Files::new(&scp, Keep::Metadata));
    }
});
