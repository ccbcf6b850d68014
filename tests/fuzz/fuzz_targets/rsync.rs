//! A command of rsync, and any bytes both ways: all of it passes, whatever it is, but for arguments in the stream.
#![no_main]

use gatescribe::wire::Keep;
use gatescribe::wire::rsync::Files;
use gatescribe::wire::transfer::{Kind, recognise};
use gatescribe_fuzz::{command, follow};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (text, script) = command(data);
    if let Some(Kind::Rsync(options)) = recognise(text).map(|transfer| transfer.kind) {
        let secluded = options.secluded;
        assert!(follow(script, Files::new(*options, Keep::Metadata)) || secluded);
    }
});
