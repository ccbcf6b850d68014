//! `gatescribe ssh-config` and `gatescribe ssh`: the names of sockets are enough for the stock `ssh` and `scp`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::gateway::{POLICIES, whoami};
use crate::harness::ssh::{Done, Running};
use crate::harness::{Cli, Gateway, SOON, Setup, Sshd};

/// `web`, whose login is fixed, `free`, whose is not, and `hidden`, which engineers may not reach.
async fn gate() -> (Sshd, Gateway, Cli) {
    let sshd = Sshd::start().await;
    let free = format!(
        "[[socket]]\nname = \"free\"\ntype = \"ssh\"\n[socket.upstream]\nkind = \"ssh\"\naddress = \"{}\"\n\
         private_key = \"file:{}\"\nhost_key = \"{}\"\n",
        sshd.address(),
        sshd.login_key().display(),
        sshd.host_fingerprint()
    );
    let policies =
        POLICIES.replace("effect = \"allow\"", "effect = \"allow\"\nsockets = { names = [\"web\", \"free\"] }");
    let policies = policies + &format!("shell = true\nexec = true\nsftp = \"write\"\nlogins = [\"{}\"]\n", whoami());
    let gateway = Setup::new().ssh("web", &sshd).ssh("hidden", &sshd).socket(&free).policies(&policies).start().await;
    let cli = Cli::new();
    cli.login(&gateway, "alice", &[]).await;
    (sshd, gateway, cli)
}

/// What `ssh-config` prints, in a file.
async fn config(cli: &Cli, args: &[&str]) -> PathBuf {
    let file = cli.dir().join("ssh_config");
    let all: Vec<&str> = ["ssh-config"].into_iter().chain(args.iter().copied()).collect();
    fs::write(&file, cli.run(&all).await.ok()).unwrap();
    file
}

/// A stock program by that file, which asks nobody anything.
async fn stock(program: &str, config: &PathBuf, args: &[&str]) -> Done {
    let mut command = Command::new(program);
    command.arg("-F").arg(config).args(["-o", "BatchMode=yes"]).args(args).env_remove("SSH_AUTH_SOCK");
    Running::start(command).finish(SOON).await
}

#[tokio::test]
async fn plain_ssh_and_scp_know_sockets_by_their_names() {
    let (sshd, gateway, cli) = gate().await;
    let all = config(&cli, &[]).await;
    let text = fs::read_to_string(&all).unwrap();
    assert!(text.contains("\nHost web\n    User web\n"), "{text}");
    assert!(text.contains("\nHost free\n    HostName free.localhost\n"), "{text}");
    assert!(!text.contains("hidden") && text.contains("    ForwardAgent no\n"), "{text}");
    assert_eq!(stock("ssh", &all, &["web", "echo in"]).await.ok(), "in\n");
    assert_eq!(stock("ssh", &all, &["web@gatescribe", "echo in"]).await.ok(), "in\n");
    let me = whoami();
    assert_eq!(stock("ssh", &all, &[&format!("{me}@free@gatescribe"), "whoami"]).await.ok(), format!("{me}\n"));

    // A login that is free is said as with any host.
    assert_eq!(stock("ssh", &all, &[&format!("{me}@free"), "whoami"]).await.ok(), format!("{me}\n"));
    let denied = stock("ssh", &all, &["nobody-here@free", "whoami"]).await;
    assert!(denied.status == Some(255) && denied.stderr.contains("Permission denied"), "{denied:?}");

    // There and back.
    let (here, there, back) = (cli.dir().join("here"), sshd.path("there"), cli.dir().join("back"));
    let content: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
    fs::write(&here, &content).unwrap();
    let remote = format!("web:{}", there.display());
    stock("scp", &all, &["-q", "-O", &here.display().to_string(), &remote]).await.ok();
    assert_eq!(fs::read(&there).unwrap(), content);
    stock("scp", &all, &["-q", "-O", &remote, &back.display().to_string()]).await.ok();
    assert_eq!(fs::read(&back).unwrap(), content);

    // As files are copied now, and where the login is free.
    for (login, socket) in [(String::new(), "web"), (format!("{me}@"), "free")] {
        for file in [&there, &back] {
            fs::remove_file(file).unwrap();
        }
        let remote = format!("{login}{socket}:{}", there.display());
        stock("scp", &all, &["-q", &here.display().to_string(), &remote]).await.ok();
        assert_eq!(fs::read(&there).unwrap(), content, "{socket}");
        let batch = cli.dir().join("batch");
        fs::write(&batch, format!("get {} {}\n", there.display(), back.display())).unwrap();
        stock("sftp", &all, &["-q", "-b", &batch.display().to_string(), &format!("{login}{socket}")]).await.ok();
        assert_eq!(fs::read(&back).unwrap(), content, "{socket}");
        let row = gateway.admin().await.ended(socket).await;
        assert!(row.events.iter().any(|event| event.kind == "ssh_file"), "{:?}", row.events);
    }
    let alone = config(&cli, &["free"]).await;
    assert!(!fs::read_to_string(&alone).unwrap().contains("web"));
    assert_eq!(stock("ssh", &alone, &[&format!("{me}@free"), "whoami"]).await.ok(), format!("{me}\n"));

    // With the login that it wants, one is a name like the others, and there are no others.
    let one = config(&cli, &[&format!("{me}@free")]).await;
    assert!(!fs::read_to_string(&one).unwrap().contains("web"));
    assert_eq!(stock("ssh", &one, &["free", "whoami"]).await.ok(), format!("{me}\n"));
    let row = gateway.admin().await.ended("free").await;
    assert_eq!((row.user_email.as_str(), row.sshuser.as_deref()), ("alice@example.com", Some(me.as_str())));
    for (wanted, words) in [
        ("me@web", "the login of web is fixed"),
        ("hidden", "there is no socket hidden for ssh, or you may not reach it"),
    ] {
        let refused = cli.run(&["ssh-config", wanted]).await;
        assert_eq!((refused.status, refused.stdout.len()), (Some(1), 0), "{wanted}");
        assert!(refused.stderr.contains(words), "{refused:?}");
    }
}

#[tokio::test]
async fn ssh_takes_the_place_of_the_command() {
    let (_sshd, gateway, cli) = gate().await;
    assert_eq!(cli.run(&["ssh", "web", "--", "echo in"]).await.ok(), "in\n");
    let me = whoami();
    assert_eq!(cli.run(&["ssh", &format!("{me}@free"), "--", "whoami"]).await.ok(), format!("{me}\n"));
    // Options after the name, what is typed, and the status are its own.
    let mut running = cli.start(&["ssh", "web", "--", "-v", "-e", "none", "cat; exit 7"]);
    let own = fs::read_link(format!("/proc/{}/exe", running.pid()));
    running.send(b"typed").await;
    assert_eq!(running.receive(5).await, b"typed");
    let now = fs::read_link(format!("/proc/{}/exe", running.pid())).unwrap();
    assert_eq!(now.file_name().unwrap(), "ssh", "{own:?}");
    let done = running.finish(SOON).await;
    assert_eq!(done.status, Some(7));
    assert!(done.stderr.contains("debug1:"), "-v went to ssh: {}", done.stderr);
    // Of what keeps a stranger out, nothing is to be had otherwise.
    fs::write(cli.path("known_hosts"), "").unwrap();
    let strange = cli.run(&["ssh", "web", "--", "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes", "true"]).await;
    assert_eq!(strange.status, Some(255));
    assert!(strange.stderr.contains("Host key verification failed"), "{strange:?}");
    // A shell in a terminal.
    cli.login(&gateway, "alice", &["--force"]).await;
    let mut terminal = cli.terminal(&["ssh", "web"], 80);
    terminal.send("stty size; exit 3\n");
    terminal.expect("40 80").await;
    assert_eq!(terminal.wait(SOON).await.code(), Some(3));
}

#[tokio::test]
async fn ssh_without_a_sign_in_says_how_to_sign_in() {
    let nobody = Cli::new().run(&["ssh", "web"]).await;
    assert_eq!(nobody.status, Some(1));
    assert!(nobody.stderr.contains("you are not signed in; run: gatescribe login --gateway"), "{nobody:?}");
    let (_sshd, _gateway, cli) = gate().await;
    let kept = fs::read(cli.path("gateway.json")).unwrap();
    let mut known: Value = serde_json::from_slice(&kept).unwrap();
    known["expires"] = json!("2020-01-01T00:00:00Z");
    fs::write(cli.path("gateway.json"), known.to_string()).unwrap();
    let over = cli.run(&["ssh", "web", "--", "true"]).await;
    assert_eq!(over.status, Some(1));
    assert!(
        over.stderr.contains("your sign-in ended at ") && over.stderr.contains("; run: gatescribe login"),
        "{over:?}"
    );
    fs::write(cli.path("gateway.json"), kept).unwrap();
    fs::remove_file(cli.path("id_ed25519")).unwrap();
    let gone = cli.run(&["ssh", "web", "--", "true"]).await;
    assert!(gone.stderr.contains("run: gatescribe login --force"), "{gone:?}");
    cli.run(&["logout"]).await.ok();
    let out = cli.run(&["ssh", "web", "--", "true"]).await;
    assert!(out.stderr.contains("you are not signed in; run: gatescribe login"), "{out:?}");
    for wrong in [&["ssh"][..], &["ssh", "-oProxyCommand=x"], &["ssh", "a b@web"], &["ssh-config", "Web"]] {
        assert_eq!(cli.run(wrong).await.status, Some(2), "{wrong:?}");
    }
}
