//! Any bytes as a container: header, frames, blocks, Seal. Must end, within memory, without a panic.
//!
//! Hashes cannot be guessed by a fuzzer, so a frame whose hash is wrong is looked into all the same.
#![no_main]

use gatescribe::record::codec;
use gatescribe::record::container::{self, Chain, FRAME_OVERHEAD, FrameKind, Front, Head};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(Front::Whole(_, header)) = container::parse_header(data) else {
        // Without a sound header, the bytes are a body: what the parsers behind the hash get to see.
        bodies(data);
        return;
    };
    let (start, mut rest) = data.split_at(header);
    let mut chain = Chain::start(start);
    while let Ok(Front::Whole((head, body), len)) = container::parse_frame(rest, &mut chain) {
        look_into(&head, &rest[body], (data.len() - rest.len()) as u64);
        rest = &rest[len..];
    }
    if let Some(body) = rest.get(FRAME_OVERHEAD..) {
        bodies(body);
    }
});

fn bodies(body: &[u8]) {
    for (kind, flags) in [(FrameKind::Block, 0), (FrameKind::Block, 1), (FrameKind::Seal, 0)] {
        let len = body.len() as u32;
        let raw = if flags == 1 { 1 << 20 } else { len };
        look_into(&Head { kind, flags, stored: len, raw, first: 0, count: 1 }, body, 0);
    }
}

fn look_into(head: &Head, body: &[u8], offset: u64) {
    match head.kind {
        FrameKind::Block => {
            if let Ok((mut clock, mut bytes)) = container::open_block(head, body) {
                while !bytes.is_empty() && codec::decode(&mut bytes, &mut clock).is_ok() {}
            }
        }
        FrameKind::Seal => _ = container::parse_seal(head, body, offset),
        FrameKind::Other(_) => {}
    }
}
