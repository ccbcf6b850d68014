//! Any observations on a screen: bounded in size, and what its dump makes another screen show is the same.
#![no_main]

use gatescribe::record::export::screen::{MAX_COLS, MAX_ROWS, Screen};
use gatescribe::record::observation::What;
use gatescribe_fuzz::observations;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut screen = Screen::new();
    for observation in observations(data) {
        screen.observe(&observation.what);
        let (cols, rows) = screen.size();
        assert!((1..=MAX_COLS).contains(&cols) && (1..=MAX_ROWS).contains(&rows));
    }
    let (cols, rows) = screen.size();
    if cols * rows > 20_000 {
        return;
    }
    let dump = screen.dump();
    assert!(dump.len() <= 50 * 2 * cols * rows + 4096);
    let mut copy = Screen::new();
    copy.observe(&What::Pty { term: String::new(), cols: cols as u32, rows: rows as u32 });
    copy.observe(&What::Told { text: dump });
    assert_eq!(copy.text(), screen.text());
});
