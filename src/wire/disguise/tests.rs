use proptest::prelude::*;

use super::*;

fn told(data: &[u8]) -> Vec<Value> {
    let (mut disguise, mut facts) = (Disguise::default(), Vec::new());
    disguise.output(data, &mut facts);
    facts.into_iter().map(|fact| fact.about).collect()
}

fn concealed(characters: u64) -> Value {
    json!({"what": "concealed_text", "characters": characters})
}

fn same_colour(characters: u64) -> Value {
    json!({"what": "same_colour_text", "characters": characters})
}

#[test]
fn concealed_text_is_told() {
    for text in [
        "\x1b[8mrm -rf /tmp\x1b[0m",
        "\x1b[1;8mabcdefgh",
        "\x1b[8m  a b\tc\r\nd e  f g h",
        "\x1b[8m\x1b[31mabcd\x1b[32mefgh",
        "\x1b[8mabcd\x1b[Hefgh",
        "\x1b[8mabcd\x1b[0mseen\x1b[8mefgh\x1b[0m",
        "\x1b[8mгрустный",
        "\x1b[8m秘密秘密秘密秘密",
        "\x1b[8m\x1b7\x1b[0mseen\x1b8abcdefgh",
        "\x1b[8m\x1b[s\x1b[m\x1b[uabcdefgh",
        "\x1b[8m\x1b[?1049h\x1b[m\x1b[?1049labcdefgh",
        "\x1b[8\r\nmabcdefgh",
        "\x1b[0008mabcdefgh",
        "\x1b[8m\x1b[?0m\x1b[>4;0m\x1b[0 m\x1b[!mabcdefgh",
        "\x1b[8m\x1b]0;\x07abcdefgh",
        "\x1b[8m\x1b]0;a title is not shown\x1b\\abcdefgh",
        "\x1b[8m\x1bPq a picture is not text\x1b\\abcdefgh",
        "\x1b[8m\x1b(Babcdefgh",
        "\x1b[0;8\x18\x1b[8mabcdefgh",
        "\u{9b}8mabcdefgh",
        // Doubtful ones hide nothing from here.
        "\x1b[8m\u{9b}mabcdefgh",
        "\x1b[8m\u{9d}abcdefgh",
        "\x1b[8m\u{90}abcdefgh",
        "\x1b[8m\x1b[0é;mabcdefgh",
        "\x1b[8m\x1bP\x07abcdefgh",
    ] {
        assert_eq!(told(text.as_bytes()), [concealed(8)], "{text:?}");
    }
    for bytes in [
        &b"\x9b8mabcdefgh"[..],
        b"\xc4 \x9b8mabcdefgh",
        b"\x1b[8m\xe9\xe8\xa9\xff\xa1 abcdef",
        b"\x1b[8m\x9bmabcdefgh",
        b"\x1b[8m\x9dabcdefgh",
        b"\x1b[8m\xf0\x80\x80\x9b[mabcdefgh",
    ] {
        assert_eq!(told(bytes), [concealed(8)], "{bytes:?}");
    }
}

#[test]
fn same_colour_text_is_told() {
    for text in [
        "\x1b[30;40mabcdefgh",
        "\x1b[40m\x1b[30mabcdefgh",
        "\x1b[7;97;107mabcdefgh",
        "\x1b[38;5;99;48;5;99mabcdefgh",
        "\x1b[38:2::9:9:9m\x1b[48;2;9;9;9mabcdefgh",
        "\x1b[30;40mabcd\x1b[31;41mefgh",
    ] {
        assert_eq!(told(text.as_bytes()), [same_colour(8)], "{text:?}");
    }
    assert_eq!(told(b"\x1b[8;30;40mabcdefgh"), [concealed(8), same_colour(8)]);
}

#[test]
fn what_can_be_seen_is_not_told() {
    let long = format!("\x1b[{}8mabcdefgh", "0;".repeat(300));
    for text in [
        "plain text, and more of it\r\n",
        "\x1b[8mabcdefg",
        "\x1b[8m            \t\r\n  \u{a0}\u{3000}\u{200b}",
        "\x1b[8mabcd\x1b[28mefghijkl",
        "\x1b[8m\x1bcabcdefgh",
        "\x1b[8m\x1b[!pabcdefgh",
        "\x1b[8m\x1b8abcdefgh",
        "\x1b[30mabcdefgh\x1b[39;40mabcdefgh",
        "\x1b[1;30;40mabcdefgh",
        "\x1b[7mabcdefgh",
        "\x1b[38;5;1;48;5;2m\x1b[7mabcdefgh",
        "\x1b[30;40m▀▀▄▄████▄▄▀▀░░▒▒▓▓│││⣿⣿⣿\u{e0b0}\u{1fb00}",
        "\x1b[?8mabcdefgh",
        "\x1b[8habcdefgh",
        "\x1b[8 mabcdefgh",
        "\x1b[8\x1a[mabcdefgh",
        "x9b8mabcdefgh",
        // 0x9B within characters.
        "\u{259b}8mabcdefgh\u{6b}\u{6db}8mabcdefgh",
        "\x1b[8m\x1b]0;a title of some length\x07\x1b[0m",
        &long,
    ] {
        assert_eq!(told(text.as_bytes()), [] as [Value; 0], "{text:?}");
    }
}

#[test]
fn it_is_told_once_until_it_was_seen_again_and_counted_in_between() {
    let (mut disguise, mut facts) = (Disguise::default(), Vec::new());
    let mut next = |data: &[u8]| {
        disguise.output(data, &mut facts);
        facts.drain(..).map(|fact| fact.about).collect::<Vec<_>>()
    };
    assert_eq!(next(b"\x1b[8mabcdefghij"), [concealed(8)]);
    assert_eq!(next(&[b'x'; 100]), [] as [Value; 0]);
    assert_eq!(next(b"\x1b[1m\x1b[8mabcdefghij"), [] as [Value; 0]);
    assert_eq!(next(b"\x1b[0m\x1b[8m"), [] as [Value; 0]);
    assert_eq!(next(b"x"), [concealed(113)]);
    assert_eq!(next(b"\x1b[0m\x1b[8mabcdefg"), [] as [Value; 0]);
    assert_eq!(next(b"h"), [concealed(8)]);
    assert_eq!(next(&[b'x'; 12]), [] as [Value; 0]);
    disguise.finish(&mut facts);
    assert_eq!(facts.pop().map(|fact| fact.about), Some(concealed(12)));
    disguise.finish(&mut facts);
    assert_eq!(facts, []);
}

#[test]
fn clipboards_are_told() {
    let written = json!({"what": "clipboard_written", "selection": "c", "length": 4});
    let asked = json!({"what": "clipboard_asked_for", "selection": "p"});
    for text in [
        "\x1b]52;c;QUJD\x07",
        "\x1b]52;c;QUJD\x1b\\",
        "\x1b]52;c;QUJD\u{9c}",
        "\u{9d}52;c;QUJD\x07",
        // Broken off: some terminals do it all the same.
        "\x1b]52;c;QUJD\x18",
        "\x1b]52;c;QUJD\x1b[m",
        // Within what tmux and screen pass on.
        "\x1bPtmux;\x1b\x1b]52;c;QUJD\x07\x1b\\",
        "\x1bPtmux;\x1b\x1b]52;c;QUJD\x1b\x1b\\\x1b\\",
        "\x1bP\x1b]52;c;QUJD\x07\x1b\\",
        "\x1bPtmux;\x1b\x1bPtmux;\x1b\x1b\x1b\x1b]52;c;QUJD\x07\x1b\x1b\\\x1b\\",
    ] {
        assert_eq!(told(text.as_bytes()), std::slice::from_ref(&written), "{text:?}");
        let question = text.replace("c;QUJD", "p;?");
        assert_eq!(told(question.as_bytes()), std::slice::from_ref(&asked), "{question:?}");
    }
    for other in ["\x1b]52;c;QUJD", "\x1b]0;52;c;QUJD\x07", "\x1b]8;;https://x/52;c;x\x1b\\", "]52;c;QUJD\x07"] {
        assert_eq!(told(other.as_bytes()), [] as [Value; 0], "{other:?}");
    }
    assert_eq!(told(b"\x1b]52;c;QUJD\x07\x1b]52;p;?\x07"), [written, asked]);
    let mut long = b"\x1b]52;c;".to_vec();
    long.resize(long.len() + (3 << 20), b'A');
    long.push(b'\x07');
    assert_eq!(told(&long), [json!({"what": "clipboard_written", "selection": "c", "length": 3 << 20})]);
}

#[test]
fn windows_that_nobody_works_in_are_told_once() {
    let (mut disguise, mut facts) = (Disguise::default(), Vec::new());
    let sizes = [(80, 24), (0, 0), (20, 5), (19, 24), (18, 24), (1, 1), (80, 24), (80, 4), (0, 24), (0, 1), (1, 0)];
    for (cols, rows) in sizes {
        disguise.resize(cols, rows, &mut facts);
    }
    let told: Vec<_> = facts.into_iter().map(|fact| (fact.about["cols"].clone(), fact.about["rows"].clone())).collect();
    assert_eq!(told, [(json!(19), json!(24)), (json!(80), json!(4)), (json!(0), json!(1))]);
}

#[test]
fn ssh_within_is_told_once_and_ends_the_rest() {
    let greeting = |from: &str| json!({"what": "inner_ssh", "carries": "ssh", "from": from});
    let mut disguise = Disguise::default();
    let mut facts = Vec::new();
    disguise.output(b"Last login\r\n$ nc host 22\r\nSSH-2.", &mut facts);
    disguise.input(b"ls\r\nSSH-2.0-x", &mut facts);
    assert!(!disguise.is_opaque() && facts.is_empty());
    disguise.output(b"0-OpenSSH_9.2\r\n\x1b[8mabcdefgh", &mut facts);
    disguise.input(b"SSH-2.0-x", &mut facts);
    assert!(disguise.is_opaque());
    assert_eq!(facts.iter().map(|fact| fact.about.clone()).collect::<Vec<_>>(), [greeting("upstream")]);
    assert!(facts.iter().all(|fact| fact.kind == KIND && fact.outcome == Outcome::Done));

    let (mut disguise, mut facts) = (Disguise::default(), Vec::new());
    disguise.input(b"SSH-", &mut facts);
    disguise.input(b"2.0-PuTTY", &mut facts);
    disguise.output(b"SSH-2.0-OpenSSH_9.2\r\n", &mut facts);
    assert!(disguise.is_opaque());
    assert_eq!(facts.into_iter().map(|fact| fact.about).collect::<Vec<_>>(), [greeting("client")]);

    let late = [&[b'\n'; GREETING_WITHIN - 7][..], b"SSH-2.0-x"].concat();
    assert_eq!(told(&late), [] as [Value; 0]);
    assert_eq!(told(late.get(1..).unwrap()), [greeting("upstream")]);
}

#[test]
fn a_flood_is_told_up_to_a_limit_and_hides_no_ssh() {
    let mut flood = "\x1b]52;c;QQ==\x07".repeat(60).into_bytes();
    flood.extend(b"\r\nSSH-2.0-x");
    let told = told(&flood);
    assert_eq!(told.len(), MOST + 2);
    assert_eq!(told[MOST - 1]["what"], "clipboard_written");
    assert_eq!(told[MOST], json!({"what": "more_not_told", "limit": 50}));
    assert_eq!(told[MOST + 1]["what"], "inner_ssh");
}

#[test]
fn programs_as_they_are_tell_nothing() {
    for (name, data) in [
        ("exec", &include_bytes!("../../../tests/fuzz/corpus/cast/exec")[..]),
        ("floods", include_bytes!("../../../tests/fuzz/corpus/cast/floods")),
        ("plain", include_bytes!("../../../tests/fuzz/corpus/cast/plain")),
        ("shell", include_bytes!("../../../tests/fuzz/corpus/cast/shell")),
        ("top", include_bytes!("../../../tests/fuzz/corpus/cast/top")),
        ("vim", include_bytes!("../../../tests/fuzz/corpus/cast/vim")),
        ("vim, whole", include_bytes!("../../../tests/fuzz/corpus/disguise/vim")),
        ("less and ls", include_bytes!("../../../tests/fuzz/corpus/disguise/less")),
    ] {
        assert_eq!(told(data), [] as [Value; 0], "{name}");
    }
}

/// Bytes in which something happens.
fn output() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "\x1b[8m",
        "\x1b[0m",
        "\x1b[30;40m",
        "\x1b[38;5;16;48;2;0;0;0m",
        "\x1b7",
        "\x1b8",
        "\x1b[s",
        "\x1b[u",
        "\x1bc",
        "abcdefgh",
        "  ",
        "\r\n",
        "é秘𝄞▀",
        "\u{9b}8m",
        "\u{9b}0m",
        "\u{9d}",
        "\u{9c}",
        "\x1b]52;c;",
        "?",
        "\x07",
        "\x1b\\",
        "\x1bPtmux;\x1b",
        "\x1b",
        "[",
        "8",
        "m",
        ";",
        "\x18",
        "\nSSH-2.",
        "0-",
        "\x1b[?1049h",
        "\x1b[?1049l",
        "01234567890123456789012345678901234567890123456789",
    ]);
    let piece = prop_oneof![
        8 => known.prop_map(|text| text.as_bytes().to_vec()),
        2 => prop::collection::vec(any::<u8>(), 0..8),
        1 => prop::sample::select(vec![0x9b_u8, 0x9c, 0x9d, 0x90, 0xe2, 0x85]).prop_map(|byte| vec![byte]),
        1 => (0..300usize).prop_map(|n| vec![b'0'; n]),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn the_same_bytes_tell_the_same_however_they_are_cut(data in output(), cuts in prop::collection::vec(1..64usize, 1..20)) {
        let whole = told(&data);
        for cuts in [&cuts[..], &[1]] {
            let (mut disguise, mut facts) = (Disguise::default(), Vec::new());
            let (mut rest, mut sizes) = (&data[..], cuts.iter().cycle());
            while let (false, Some(size)) = (rest.is_empty(), sizes.next()) {
                let (piece, after) = rest.split_at((*size).min(rest.len()));
                disguise.output(piece, &mut facts);
                rest = after;
            }
            prop_assert_eq!(facts.into_iter().map(|fact| fact.about).collect::<Vec<_>>(), &whole[..]);
        }
        prop_assert!(whole.len() <= MOST + 2);
    }

    #[test]
    fn any_bytes_are_taken(data in prop::collection::vec(any::<u8>(), 0..4096)) {
        prop_assert!(told(&data).len() <= MOST + 2);
    }
}
