use std::convert::Infallible;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::record::testing::any_what;

/// Seconds, and what was seen then.
type Story<'a> = &'a [(f64, What)];

fn text(story: Story<'_>, view: View, input: bool) -> String {
    let options = TextOptions { started: "2026-11-22T10:00:00Z".parse().unwrap(), view, input, opaque: false };
    export(story, &options)
}

fn export(story: Story<'_>, options: &TextOptions) -> String {
    let observations = story
        .iter()
        .map(|(at, what)| Ok::<_, Infallible>(Observation { at: Duration::from_secs_f64(*at), what: what.clone() }));
    let mut out = Vec::new();
    write_text(observations, options, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// The screen view without its first line.
fn seen(story: Story<'_>) -> String {
    let text = text(story, View::Screen, false);
    let (first, rest) = text.split_once('\n').unwrap();
    assert_eq!(first, "[gatescribe 00:00:00.000] began 2026-11-22T10:00:00Z");
    rest.to_owned()
}

fn pty(cols: u32, rows: u32) -> (f64, What) {
    (0.0, What::Pty { term: "xterm".to_owned(), cols, rows })
}

fn out(at: f64, data: impl Into<Bytes>) -> (f64, What) {
    (at, What::Bytes { direction: Direction::Output, stream: 0, data: data.into() })
}

fn err(at: f64, data: &'static str) -> (f64, What) {
    (at, What::Bytes { direction: Direction::Output, stream: 1, data: data.into() })
}

fn typed(at: f64, data: &'static str) -> (f64, What) {
    (at, What::Bytes { direction: Direction::Input, stream: 0, data: data.into() })
}

#[test]
fn a_shell_session_is_its_lines_once() {
    let story = [
        pty(20, 4),
        (0.0, What::Shell),
        out(0.1, "$ "),
        out(0.5, "l"),
        out(0.7, "s -l --col"),
        out(0.9, "or\r\n\x1b[34mdir\x1b[0m\tgrün"),
        out(0.9, b"\xe4\xbd".to_vec()),
        out(0.9, b"\xa0\xff e\xcc\x81\r\n".to_vec()),
        out(1.0, "$ a line that is wider than the terminal is\r\n"),
        out(2.0, "10%\r50%\r100%\r\ndone\r\n"),
        err(2.5, "stderr too\r\n"),
        (2.6, What::Told { text: "ended by an operator\r\n".to_owned() }),
        (3.0, What::ExitStatus { status: 3 }),
    ];
    assert_eq!(
        seen(&story),
        concat!(
            "$ ls -l --color\n",
            "dir     grün你\u{fffd} e\u{301}\n",
            "$ a line that is wider than the terminal is\n",
            "100%\ndone\nstderr too\nended by an operator\n",
            "[gatescribe 00:00:03.000] exit status 3\n",
        )
    );
}

#[test]
fn what_is_cleared_was_seen() {
    for clear in ["\x1b[H\x1b[2J\x1b[3J", "\x1b[H\x1b[J", "\x1bc"] {
        let story = [pty(20, 5), out(0.1, "one\r\ntwo\r\n"), out(1.0, clear.to_owned()), out(1.1, "three")];
        assert_eq!(seen(&story), "one\ntwo\nthree\n", "{clear:?}");
    }
}

#[test]
fn a_program_that_paints_is_told_screen_by_screen() {
    let story = [
        pty(20, 4),
        out(0.0, "$ vim\r\n"),
        out(0.1, "\x1b[?1049h\x1b[H\x1b[2Jfirst line\x1b[2;1Hsecond\x1b[4;1H\"file\" 2L"),
        out(1.0, "\x1b[4;1H\x1b[K-- INSERT --\x1b[1;11H"),
        out(1.5, "s"),
        out(1.7, " typed"),
        out(2.0, "\x1b[4;1H\x1b[K:"),
        out(2.2, "wq"),
        out(3.0, "\x1b[?1049l\x1b[2;1H$ exit\r\n"),
    ];
    assert_eq!(
        seen(&story),
        concat!(
            "[gatescribe 00:00:00.100] gone: \"file\" 2L\n",
            "[gatescribe 00:00:01.700] gone: -- INSERT --\n",
            "[gatescribe 00:00:02.200] screen 20x4\nfirst lines typed\nsecond\n\n:wq\n",
            "[gatescribe 00:00:03.000] end of screen\n",
            "$ vim\n$ exit\n",
        )
    );
}

#[test]
fn what_a_program_tidies_up_before_it_leaves_is_told_as_it_stood() {
    let story = [
        pty(20, 4),
        out(0.1, "\x1b[?1049h\x1b[Hone\r\ntwo\r\n\r\n:q"),
        out(1.0, "\x1b[4;1H\x1b[Kbye\r\n\x1b[?1049l$ "),
    ];
    let expected = concat!(
        "[gatescribe 00:00:00.100] screen 20x4\none\ntwo\n\n:q\n[gatescribe 00:00:01.000] end of screen\n",
        "[gatescribe 00:00:01.000] gone: bye\n$\n",
    );
    assert_eq!(seen(&story), expected);
}

#[test]
fn pages_and_refreshes_are_each_told_once() {
    let page = |n: u32| (1..=4).map(|row| format!("\r\npage {n} row {row}")).collect::<String>();
    let less = [
        pty(20, 4),
        out(0.0, "\x1b[?1049h"),
        out(0.1, page(1)),
        out(3.0, page(2)),
        out(6.0, page(3)),
        out(9.0, "\x1b[?1049l"),
    ];
    let text = seen(&less);
    for n in 1..=3 {
        assert_eq!(text.matches(&format!("page {n} row 1")).count(), 1, "{text}");
        assert!(text.contains(&format!("page {n} row 1\npage {n} row 2\npage {n} row 3\npage {n} row 4\n")), "{text}");
    }
    // Without an alternate screen, and hardly changed.
    let frame = |n: u32| format!("\x1b[Hload {n}\x1b[K\r\ntasks 1{n}\x1b[K\r\nroot {n}.0 init\x1b[K\x1b[J");
    let top = [pty(20, 6), out(0.0, frame(1)), out(3.0, frame(2)), out(6.0, frame(3)), out(7.5, "\r\n$ ")];
    let text = seen(&top);
    for n in 1..=3 {
        assert_eq!(text.matches(&format!("load {n}\ntasks 1{n}\nroot {n}.0 init\n")).count(), 1, "{text}");
    }
    // A painted screen that nothing changed is told once, however often it is painted.
    let again = "\x1b[H\x1b[2Jsame\r\nscreen";
    let same = [pty(20, 4), out(0.0, "\x1b[?1049h"), out(0.1, again), out(2.0, again), out(4.0, again)];
    assert_eq!(seen(&same).matches("same\nscreen\n").count(), 1);
}

#[test]
fn without_a_terminal_it_is_the_lines_escaped() {
    let story = [
        (0.0, What::Exec { command: Bytes::from_static(b"make \x1b]0;x\x07") }),
        out(0.1, "one\r\n\x1b[31mred\x1b[0m\rover\n\tindented  \u{202e}x"),
        err(0.2, "\nerror\n[gatescribe 00:00:00.000] forged\n"),
        out(0.3, b"caf\xc3".to_vec()),
        out(0.3, b"\xa9 \xff\n".to_vec()),
        out(0.4, b"\0\x01\x02".to_vec()),
        out(0.5, "end"),
        (0.6, What::Gap { reason: "the disk was full".to_owned(), bytes: 9 }),
        (0.7, What::ExitSignal { name: "KILL".to_owned(), message: "gone".to_owned() }),
    ];
    assert_eq!(
        seen(&story),
        concat!(
            "[gatescribe 00:00:00.000] command: make \\e]0;x\\a\n",
            "one\n\\e[31mred\\e[0m\\rover\n\tindented  \\u{202e}x\nerror\n\\[gatescribe 00:00:00.000] forged\n",
            "café \\xff\n",
            "[gatescribe 00:00:00.500] 3 bytes that are no text; view=all shows them\n",
            "end\n",
            "[gatescribe 00:00:00.600] gap of 9 bytes: the disk was full\n",
            "[gatescribe 00:00:00.700] ended by signal KILL gone\n",
        )
    );
}

#[test]
fn all_shows_every_byte_with_its_time() {
    let story = [
        (0.0, What::Pty { term: "xterm".to_owned(), cols: 80, rows: 24 }),
        (0.0, What::Shell),
        typed(1.0, "secret\\\r"),
        out(1.25, b"a\r\nb\x1b[1m\xe4\xbd".to_vec()),
        err(1.5, "\tbad\n"),
        out(1.5, b"\xa0\xff\xe4".to_vec()),
        (2.0, What::Resize { cols: 100, rows: 30 }),
        (3723.004, What::Eof { direction: Direction::Output }),
    ];
    let hidden = concat!(
        "[gatescribe 00:00:00.000] began 2026-11-22T10:00:00Z\n",
        "[gatescribe 00:00:00.000] typed input is not shown\n",
        "00:00:00.000 terminal 80x24 xterm\n",
        "00:00:00.000 shell\n",
        "00:00:01.250 out: a\\r\\n\n",
        "00:00:01.250 out: b\\e[1m\n",
        "00:00:01.500 err: \\tbad\\n\n",
        "00:00:01.500 out: 你\\xff\n",
        "00:00:02.000 resize 100x30\n",
        "01:02:03.004 end of output\n",
        "01:02:03.004 out: \\xe4\n",
    );
    assert_eq!(text(&story, View::All, false), hidden);
    let with_input = text(&story, View::All, true);
    assert!(with_input.contains("00:00:01.000 in: secret\\\\\\r\n"), "{with_input}");
    assert!(!with_input.contains("not shown"));
}

#[test]
fn typed_input_is_told_by_the_line_and_only_when_asked_for() {
    let story = [pty(20, 4), typed(1.0, "l"), typed(1.5, "s\rpwd\r"), typed(2.0, "x")];
    let text = text(&story, View::Screen, true);
    let lines: Vec<_> = text.lines().skip(1).collect();
    let expected = ["01.000] typed: ls\\r", "01.500] typed: pwd\\r", "02.000] typed: x"];
    assert_eq!(lines, expected.map(|line| format!("[gatescribe 00:00:{line}")));
    assert_eq!(seen(&story), "");
}

#[test]
fn an_opaque_recording_says_so() {
    let options = TextOptions { started: Timestamp::UNIX_EPOCH, view: View::Screen, input: true, opaque: true };
    let story = [pty(20, 4), out(0.1, "SSH-2.0-x\r\n"), typed(0.2, "garbage")];
    let text = export(&story, &options);
    assert!(text.contains("bytes that nobody saw as text"), "{text}");
    assert!(!text.contains("SSH-2.0") && !text.contains("garbage"), "{text}");
    let all = export(&story, &TextOptions { view: View::All, ..options });
    assert!(all.contains("SSH-2.0-x\\r\\n") && all.contains("garbage"));
}

#[test]
fn a_reader_that_fails_and_a_writer_that_fails_are_told_apart() {
    let options = TextOptions { started: Timestamp::UNIX_EPOCH, view: View::All, input: false, opaque: false };
    let failing = [Err::<Observation, _>("gone")];
    assert!(matches!(write_text(failing, &options, &mut Vec::new()), Err(ExportError::Read("gone"))));
    let nothing: [Result<Observation, Infallible>; 0] = [];
    let mut full: [u8; 5] = [0; 5];
    assert!(matches!(write_text(nothing, &options, &mut &mut full[..]), Err(ExportError::Write(_))));
}

#[test]
fn views_have_names() {
    assert_eq!("screen".parse(), Ok(View::Screen));
    assert_eq!("all".parse(), Ok(View::All));
    assert_eq!("raw".parse::<View>(), Err(UnknownView));
}

proptest! {
    #[test]
    fn any_text_is_safe_to_print_and_in_proportion(
        terminal in any::<bool>(),
        whats in prop::collection::vec((any_what(), 0u64..5_000_000), 0..30),
    ) {
        let mut story: Vec<_> = terminal.then(|| pty(30, 6)).into_iter().collect();
        story.extend(whats.into_iter().map(|(what, at)| (at as f64 / 1e6, what)));
        let size: usize = story.iter().map(|(_, what)| length(what) + 1200).sum();
        for view in [View::Screen, View::All] {
            let text = text(&story, view, true);
            prop_assert!(!text.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{text:?}");
            prop_assert!(text.ends_with('\n'));
            prop_assert!(text.len() < 4000 + 40 * size);
        }
    }
}
