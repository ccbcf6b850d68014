//! Any bytes as what a terminal is shown, cut as the first byte says: the same is told as of the whole, and not too much.
#![no_main]

use gatescribe::wire::Fact;
use gatescribe::wire::disguise::Disguise;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((size, output)) = data.split_first() else { return };
    let whole = told([output]);
    assert_eq!(whole, told(output.chunks(usize::from(*size).max(1))));
    assert!(whole.len() <= MOST);
});

fn told<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Fact> {
    let (mut disguise, mut facts) = (Disguise::default(), Vec::new());
    for piece in pieces {
        disguise.output(piece, &mut facts);
    }
    disguise.finish(&mut facts);
    facts
}

/// Fifty, the one that says that there are more, and the one about SSH.
const MOST: usize = 52;
