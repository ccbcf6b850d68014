//! Recordings as text: what was on a person's screen, with real programs in a real terminal, and every byte of it.

use std::path::Path;
use std::time::Duration;

use gatescribe::store::SessionRow;
use serde_json::Value;

use crate::harness::{self, Api, Gateway, SOON, Ssh, Sshd, Terminal, gate};

/// A shell in a terminal behind the gateway, ready for commands.
async fn shell() -> (Sshd, Gateway, Terminal) {
    let (sshd, gateway, ssh) = gate().await;
    let terminal = prompt(&ssh).await;
    (sshd, gateway, terminal)
}

async fn prompt(ssh: &Ssh) -> Terminal {
    let mut terminal = ssh.terminal(&["-t", "web@gate", "env -i PATH=$PATH TERM=$TERM LANG=C.UTF-8 PS1='$ ' sh"]);
    terminal.expect("$ ").await;
    terminal
}

async fn leave(mut terminal: Terminal, gateway: &Gateway) -> (Api, SessionRow) {
    terminal.send("exit\n");
    terminal.wait(SOON).await;
    let api = gateway.admin().await;
    let row = api.ended("web").await;
    (api, row)
}

async fn text(api: &Api, row: &SessionRow, view: &str) -> String {
    let text = String::from_utf8(api.log(row, None, &format!("text&view={view}")).await.ok()).unwrap();
    assert!(!text.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "not safe to print: {text:?}");
    text
}

/// The screens that are told, each as its lines.
fn screens(text: &str) -> Vec<Vec<&str>> {
    let mut screens = Vec::new();
    let mut open: Option<Vec<&str>> = None;
    for line in text.lines() {
        match (&mut open, line.strip_prefix("[gatescribe ").and_then(|own| own.split_once("] "))) {
            (_, Some((_, own))) if own.starts_with("screen ") => open = Some(Vec::new()),
            (_, Some((_, "end of screen"))) => screens.extend(open.take()),
            (Some(screen), _) => screen.push(line),
            (None, _) => {}
        }
    }
    screens
}

/// As long as a person looks at something; a program that paints is told by its pauses.
async fn look() {
    tokio::time::sleep(Duration::from_millis(400)).await;
}

#[tokio::test]
async fn a_shell_with_colours_progress_and_wide_letters_reads_as_it_looked() {
    let (_sshd, gateway, mut terminal) = shell().await;
    terminal.send("printf '\\033[1;31mred\\033[0m gr\\303\\274n \\344\\275\\240\\345\\245\\275\\n'; seq -s ' ' 1 60\n");
    terminal.expect("59 60").await;
    terminal.send("for p in 10 50 100; do printf '\\r%s%%' $p; sleep 0.2; done; echo; echo 'a\tb'; echo e''nd >&2\n");
    terminal.expect("end\r\n").await;
    terminal.resize(100, 30);
    terminal.send("printf '\\033]0;title\\007\\342\\200\\256x\\177\\n'; echo la''st\n");
    terminal.expect("last").await;
    let (api, row) = leave(terminal, &gateway).await;
    let screen = text(&api, &row, "screen").await;
    let numbers: Vec<_> = (1..=60).map(|n| n.to_string()).collect();
    for line in ["red grün 你好", &numbers.join(" "), "100%", "a       b", "end", "\\u{202e}x\\x7f", "last"] {
        assert_eq!(screen.lines().filter(|shown| shown == &line).count(), 1, "{line:?} in\n{screen}");
    }
    assert!(!screen.contains("10%\n") && !screen.contains("title\\a"), "{screen}");
    let all = text(&api, &row, "all").await;
    for part in
        ["out: ", "\\e[1;31mred\\e[0m grün 你好\\r\\n", "\\r10%", "\\e]0;title\\a\\u{202e}x\\x7f", " resize 100x30"]
    {
        assert!(all.contains(part), "{part:?} in\n{all}");
    }
    assert!(!all.contains(" in: "), "{all}");
}

#[tokio::test]
async fn vim_is_told_as_the_screens_a_person_saw() {
    let (_sshd, gateway, mut terminal) = shell().await;
    let file = gateway.data().join("story.txt");
    std::fs::write(&file, "alpha beta\ngamma delta\n").unwrap();
    terminal.send(&format!("vim -u NONE -N {}\n", file.display()));
    terminal.expect("gamma delta").await;
    look().await;
    terminal.send("Go");
    look().await;
    terminal.send("typed into the file");
    terminal.expect("typed into the file").await;
    look().await;
    terminal.send("\x1b:set number\r");
    look().await;
    terminal.send(":wq");
    look().await;
    terminal.send("\r");
    terminal.expect("$ ").await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "alpha beta\ngamma delta\ntyped into the file\n");
    let (api, row) = leave(terminal, &gateway).await;
    let screen = text(&api, &row, "screen").await;
    let shown = screens(&screen);
    let with = |words: &[&str]| {
        shown.iter().any(|screen| words.iter().all(|word| screen.iter().any(|line| line.contains(word))))
    };
    assert!(with(&["alpha beta", "gamma delta", "typed into the file", "~"]), "{screen}");
    assert!(with(&["  1 alpha beta", "  3 typed into the file"]), "{screen}");
    // Single lines that gave way are told alone; the last one may still stand on the last screen.
    for line in ["-- INSERT --", ":set number", ":wq"] {
        let alone = format!("] gone: {line}");
        assert!(screen.lines().any(|shown| shown == line || shown.ends_with(&alone)), "{line:?} in\n{screen}");
    }
    // The shell's own lines are told around it.
    assert!(screen.lines().any(|line| line.starts_with("$ vim -u NONE")), "{screen}");
    assert!(screen.lines().any(|line| line == "$ exit"), "{screen}");
}

#[tokio::test]
async fn every_page_of_less_is_told_once() {
    let (_sshd, gateway, mut terminal) = shell().await;
    let file = gateway.data().join("long.txt");
    let lines: String = (1..=60).map(|n| format!("line {n} of sixty\n")).collect();
    std::fs::write(&file, lines).unwrap();
    terminal.send(&format!("less {}\n", file.display()));
    for last in ["line 23 of sixty", "line 46 of sixty", "line 60 of sixty"] {
        terminal.expect(last).await;
        look().await;
        terminal.send(" ");
    }
    look().await;
    terminal.send("q");
    terminal.expect("$ ").await;
    let (api, row) = leave(terminal, &gateway).await;
    let screen = text(&api, &row, "screen").await;
    for n in 1..=60 {
        let line = format!("line {n} of sixty");
        let times = screen.lines().filter(|shown| *shown == line).count();
        // The last page overlaps the one before it.
        assert!((1..=2).contains(&times), "{line}: {times} times in\n{screen}");
    }
    assert!(screens(&screen).len() <= 4, "{screen}");
}

#[tokio::test]
async fn what_has_no_terminal_is_its_lines() {
    let (_sshd, gateway, ssh) = gate().await;
    let top =
        ssh.run("web", "top -b -n 2 -d 0.2; echo to err >&2; printf '\\033[2Jmark \\000\\n' | cat -v; exit 3").await;
    assert_eq!(top.status, Some(3));
    let api = gateway.admin().await;
    let row = api.ended("web").await;
    let screen = text(&api, &row, "screen").await;
    assert!(screen.contains("] command: top -b -n 2"), "{screen}");
    assert_eq!(screen.lines().filter(|line| line.starts_with("top - ")).count(), 2, "{screen}");
    assert!(screen.lines().any(|line| line.trim_start().starts_with("PID USER")), "{screen}");
    assert!(screen.lines().any(|line| line == "to err"), "{screen}");
    assert!(screen.ends_with("] exit status 3\n"), "{screen}");
    // What is no text is counted, and shown only when every byte is asked for.
    assert_eq!(ssh.run("web", "printf 'a\\000\\377'").await.status, Some(0));
    let row = api.ended("web").await;
    let screen = text(&api, &row, "screen").await;
    assert!(screen.contains("] 3 bytes that are no text"), "{screen}");
    assert!(text(&api, &row, "all").await.contains(" out: a\\x00\\xff\n"));
}

#[tokio::test]
async fn typed_input_is_in_the_text_only_when_asked_for() {
    let (_sshd, gateway, ssh) = gate().await;
    harness::type_in_secret(&ssh, "S3cretTyped").await;
    let api = gateway.admin().await;
    let row = api.ended("web").await;
    for view in ["screen", "all"] {
        assert!(!text(&api, &row, view).await.contains("S3cretTyped"));
        let with_input = text(&api, &row, &format!("{view}&input=true")).await;
        assert!(with_input.contains("S3cretTyped\\n") || with_input.contains("S3cretTyped\\r"), "{with_input}");
    }
    assert!(api.details(&row).await.events.iter().any(|e| e.kind == "typed_input_read"));
}

#[tokio::test]
async fn version_three_plays_in_asciinemas_player() {
    let (_sshd, gateway, mut terminal) = shell().await;
    terminal.send("printf 'gr\\303\\274n \\033[1mbo''ld\\033[0m\\n'\n");
    terminal.expect("bold").await;
    terminal.resize(100, 30);
    look().await;
    let (api, row) = leave(terminal, &gateway).await;
    let cast = String::from_utf8(api.log(&row, None, "cast3").await.ok()).unwrap();
    let header: Value = serde_json::from_str(cast.lines().next().unwrap()).unwrap();
    assert_eq!((&header["version"], &header["term"]["type"]), (&3.into(), &"xterm-256color".into()));
    let last: Value = serde_json::from_str(cast.lines().last().unwrap()).unwrap();
    assert_eq!((&last[1], &last[2]), (&"x".into(), &"0".into()), "{cast}");
    let played = play(&gateway.data().join("play.cast"), cast.as_bytes());
    assert!(played["output"].as_str().unwrap().contains("grün \u{1b}[1mbold"), "{played}");
    assert_eq!(played["size"], serde_json::json!({"cols": 80, "rows": 24}));
    assert!(played["resizes"].as_array().unwrap().iter().any(|r| r["cols"] == 100 && r["rows"] == 30), "{played}");
    assert!(played["duration"].as_f64().unwrap() > 0.3);
    // The same events at the same times as in version two.
    let other = play(&gateway.data().join("play.cast"), &api.log(&row, None, "cast").await.ok());
    assert_eq!(played["output"], other["output"]);
    assert!((played["duration"].as_f64().unwrap() - other["duration"].as_f64().unwrap()).abs() < 0.001);
}

/// Plays a cast with the player's own engine; see tests/it/player.
fn play(file: &Path, cast: &[u8]) -> Value {
    std::fs::write(file, cast).unwrap();
    let player = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/player/play.mjs");
    let played = std::process::Command::new("node").arg(player).arg(file).output().expect("node is installed");
    assert!(played.status.success(), "run tests/run once: {}", String::from_utf8_lossy(&played.stderr));
    serde_json::from_slice(&played.stdout).unwrap()
}
