//! What is done so that whoever looks on sees less than the user: told as events, with the stock client and a real server.

use gatescribe::store::SessionRow;

use crate::harness::{SOON, gate};

fn told(row: &SessionRow) -> Vec<&str> {
    let evasions = row.events.iter().filter(|event| event.kind == "ssh_evasion");
    evasions.filter_map(|event| event.metadata["what"].as_str()).collect()
}

#[tokio::test]
async fn what_is_hidden_in_a_terminal_is_told() {
    let (_sshd, gateway, ssh) = gate().await;
    let script = r"printf '\033[8mnobody sees this\033[0m'; printf '\033[31;41mred on red\033[0m'; \
                   printf '\033]52;c;aGVsbG8=\a'; printf 'plain to see\n'";
    let mut terminal = ssh.terminal(&["-t", "web@gate", &format!("{script}; read x")]);
    terminal.expect("plain to see").await;
    terminal.resize(10, 4);
    terminal.send("\n");
    terminal.wait(SOON).await;
    let row = gateway.admin().await.ended("web").await;
    let mut all = told(&row);
    all.sort_unstable();
    assert_eq!(all, ["clipboard_written", "concealed_text", "same_colour_text", "small_window"], "{:#?}", row.events);
    assert_eq!(row.recordings[0].legibility, "screen");
}

#[tokio::test]
async fn an_ssh_connection_inside_makes_the_channel_opaque() {
    let (sshd, gateway, ssh) = gate().await;
    let inner = format!("exec 3<>/dev/tcp/127.0.0.1/{}; head -c 8 <&3", sshd.port);
    let done = ssh.run("web", &format!("bash -c '{inner}'")).await;
    assert_eq!(done.ok(), "SSH-2.0-");
    let row = gateway.admin().await.ended("web").await;
    assert_eq!(told(&row), ["inner_ssh"]);
    assert_eq!(row.recordings[0].legibility, "opaque", "{row:#?}");
}

#[tokio::test]
async fn nothing_is_told_of_plain_work() {
    let (_sshd, gateway, ssh) = gate().await;
    let mut terminal = ssh.terminal(&["-t", "web@gate", "ls --color=always -la /; printf 'done\n'"]);
    terminal.expect("done").await;
    terminal.wait(SOON).await;
    assert!(told(&gateway.admin().await.ended("web").await).is_empty());
}
