//! Any bytes as a command: what is recognised has nothing in it that a shell would act on.
#![no_main]

use gatescribe::wire::transfer::{Kind, recognise};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some(transfer) = recognise(data) else { return };
    let text = std::str::from_utf8(data).expect("what is recognised is text");
    assert!(!text.contains(['\n', '\r', '\0']));
    let bare: String = {
        let (mut bare, mut quote, mut escaped) = (String::new(), None, false);
        for c in text.chars() {
            match (quote, c) {
                _ if escaped => escaped = false,
                (None, '\\') => escaped = true,
                (None, '\'' | '"') => quote = Some(c),
                (Some(open), _) if open == c => quote = None,
                (Some(_), _) => {}
                (None, _) => bare.push(c),
            }
        }
        bare
    };
    assert!(!bare.contains([';', '&', '|', '<', '>', '(', ')', '$', '`', '{', '}', '#', '!']), "{bare}");
    match transfer.kind {
        Kind::SftpServer => assert!(!transfer.writes),
        Kind::Scp(scp) => assert!(transfer.writes == scp.upload && !scp.paths.is_empty()),
        Kind::Rsync(options) => assert!(transfer.writes != (options.sender && !options.removes_sources)),
    }
});
