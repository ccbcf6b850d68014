//! Files that are moved: by SFTP, scp and rsync, with the stock clients, through the gate into a real server. What stands in
//! the session is compared with what the server's disk says.

use std::fs;
use std::path::Path;

use gatescribe::store::{Event, EventStatus, SessionRow};
use serde_json::Value;

use crate::harness::ssh::Done;
use crate::harness::{Gateway, SOON, Setup, Ssh, Sshd, gate, noise};

/// Alice may do this with files, and run `id`.
const FILES: &str = r#"
[[policy]]
name = "files"
effect = "allow"
who = { groups = ["engineering"] }
[policy.allow.ssh]
exec = ["id"]
sftp = FILES
"#;

async fn with_rights(right: &str) -> (Sshd, Gateway, Ssh) {
    let sshd = Sshd::start().await;
    let gateway = Setup::new().ssh("web", &sshd).policies(&FILES.replace("FILES", right)).start().await;
    let ssh = gateway.signed_in("alice", "web").await;
    (sshd, gateway, ssh)
}

/// Runs a batch of the stock `sftp`; `options` go before the destination.
async fn sftp(ssh: &Ssh, options: &str, batch: &str) -> Done {
    fs::write(ssh.path("batch"), batch).unwrap();
    let (config, batch) = (ssh.path("config"), ssh.path("batch"));
    let line = format!("sftp -F {} {options} -b {} web@gate", config.display(), batch.display());
    ssh.bash(&line, SOON).await
}

async fn copy(ssh: &Ssh, line: &str) -> Done {
    ssh.bash(&line.replace("scp ", &format!("scp -F {} ", ssh.path("config").display())), SOON).await
}

async fn ended(gateway: &Gateway) -> SessionRow {
    gateway.admin().await.ended("web").await
}

fn about<'a>(row: &'a SessionRow, operation: &str, name: &str) -> &'a Event {
    let is = |event: &&Event| {
        event.kind == "ssh_file"
            && event.metadata["operation"] == operation
            && event.metadata["path"].as_str().is_some_and(|path| path.ends_with(name))
    };
    row.events.iter().find(is).unwrap_or_else(|| panic!("no {operation} of {name}: {:#?}", row.events))
}

fn digest(path: &Path) -> String {
    let sum = std::process::Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(sum.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

#[tokio::test]
async fn what_sftp_does_stands_in_the_session_as_the_disk_has_it() {
    let (sshd, gateway, ssh) = gate().await;
    let (dir, big) = (sshd.path("files"), ssh.path("big"));
    fs::create_dir(&dir).unwrap();
    fs::write(&big, noise(1, 3_000_000)).unwrap();
    fs::write(dir.join("there"), "already there\n").unwrap();
    let (at, big_path, got) = (dir.display(), big.display(), ssh.path("got"));
    let batch = format!(
        "put {big_path} {at}/up\nget {at}/up {}\nrename {at}/there {at}/moved\nmkdir {at}/new\nln -s moved {at}/link\n\
         ln {at}/moved {at}/hard\nchmod 600 {at}/moved\nls {at}\nput {big_path} {at}/gone\nrm {at}/gone\nrmdir {at}/new\n",
        got.display()
    );
    let done = sftp(&ssh, "", &batch).await;
    assert_eq!(done.status, Some(0), "{done:?}");
    assert_eq!(digest(&got), digest(&big));
    let row = ended(&gateway).await;
    let up = &about(&row, "write", "/up").metadata;
    assert_eq!(text(&up["sha256"]), digest(&dir.join("up")));
    assert_eq!((&up["bytes_written"], &up["complete"]), (&3_000_000.into(), &true.into()));
    let down = &about(&row, "read", "/up").metadata;
    assert_eq!((text(&down["sha256"]), &down["bytes_read"]), (digest(&big).as_str(), &3_000_000.into()));
    assert!(text(&about(&row, "rename", "/there").metadata["to"]).ends_with("/moved"));
    for (operation, name) in [("mkdir", "/new"), ("rmdir", "/new"), ("remove", "/gone"), ("symlink", "/link")] {
        assert_eq!(about(&row, operation, name).status, EventStatus::Success);
    }
    for (operation, name) in [("link", "/moved"), ("set", "/moved"), ("list", "files/")] {
        assert_eq!(about(&row, operation, name).status, EventStatus::Success);
    }
    let summary = row.events.iter().find(|event| event.kind == "ssh_files").expect("a summary");
    assert_eq!(summary.metadata["bytes_written"], 6_000_000);
    let [recording] = row.recordings.as_slice() else { panic!("{row:?}") };
    assert_eq!((recording.kind.as_str(), recording.legibility.as_str()), ("sftp", "structured"));
    // Three times three megabytes went through, and none of it is kept.
    assert!(recording.size.unwrap() < 600_000, "{recording:?}");
    let told = String::from_utf8(gateway.admin().await.log(&row, None, "text").await.ok()).unwrap();
    assert!(told.contains("rename") && told.contains("/moved"), "{told}");
    let cast = String::from_utf8(gateway.admin().await.log(&row, None, "cast").await.ok()).unwrap();
    assert!(cast.contains("ssh_file write"), "{cast}");
}

#[tokio::test]
async fn contents_are_kept_where_the_socket_says_so() {
    let sshd = Sshd::start().await;
    let gateway = Setup::new().ssh_with("web", &sshd, "record_files = \"content\"").start().await;
    let ssh = gateway.signed_in("alice", "web").await;
    fs::write(ssh.path("word"), "a secret recipe\n").unwrap();
    let line = format!("scp {} web@gate:{}", ssh.path("word").display(), sshd.path("kept").display());
    assert_eq!(copy(&ssh, &line).await.status, Some(0));
    let row = ended(&gateway).await;
    assert_eq!(about(&row, "write", "/kept").metadata["contents_kept"], true);
    let told = gateway.admin().await.log(&row, None, "text&view=all").await;
    let told = String::from_utf8(told.ok()).unwrap();
    assert!(told.contains("ssh_file"), "{told}");
}

#[tokio::test]
async fn who_may_only_read_is_refused_inside_the_protocol_and_the_session_lives_on() {
    let (sshd, gateway, ssh) = with_rights("\"read\"").await;
    let (dir, got) = (sshd.path("files"), ssh.path("got"));
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("there"), "already there\n").unwrap();
    let at = dir.display();
    let word = ssh.path("word");
    fs::write(&word, "new").unwrap();
    let batch = format!(
        "-put {} {at}/up\n-rm {at}/there\n-rename {at}/there {at}/moved\n-mkdir {at}/new\n-chmod 600 {at}/there\n\
         -ln -s there {at}/link\n-ln {at}/there {at}/hard\nget {at}/there {}\n",
        word.display(),
        got.display()
    );
    let done = sftp(&ssh, "", &batch).await;
    assert_eq!(done.status, Some(0), "{done:?}");
    assert!(done.stderr.matches("ermission denied").count() >= 6, "{done:?}");
    assert_eq!(fs::read_to_string(&got).unwrap(), "already there\n");
    let left: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["there"]);
    let row = ended(&gateway).await;
    for operation in ["write", "remove", "rename", "mkdir", "set", "symlink", "link"] {
        let denied = |event: &&Event| event.kind == "ssh_file" && event.status == EventStatus::Denied;
        let one = row.events.iter().filter(denied).find(|event| event.metadata["operation"] == operation);
        assert!(one.is_some(), "{operation}: {:#?}", row.events);
    }
    assert_eq!(about(&row, "read", "/there").status, EventStatus::Success);
}

#[tokio::test]
async fn the_right_to_files_decides_scp_rsync_and_sftp_server_too() {
    for (right, reads, writes) in [("false", false, false), ("\"read\"", true, false), ("\"write\"", true, true)] {
        let (sshd, gateway, ssh) = with_rights(right).await;
        let (there, word) = (sshd.path("there"), ssh.path("word"));
        fs::write(&there, "there\n").unwrap();
        fs::write(&word, "word\n").unwrap();
        let (there, word, dir) = (there.display(), word.display(), sshd.path("").display().to_string());
        let mine = ssh.path("got").display().to_string();
        let reading = [
            format!("scp web@gate:{there} {mine}"),
            format!("scp -O web@gate:{there} {mine}"),
            format!("rsync -a -e \"$SSH\" web@gate:{there} {mine}"),
        ];
        let writing = [
            format!("scp {word} web@gate:{dir}/new"),
            format!("scp -O {word} web@gate:{dir}/new"),
            format!("rsync -a -e \"$SSH\" {word} web@gate:{dir}/new"),
        ];
        for (line, allowed) in reading.iter().map(|line| (line, reads)).chain(writing.iter().map(|line| (line, writes)))
        {
            let _ = fs::remove_file(ssh.path("got"));
            let _ = fs::remove_file(sshd.path("new"));
            let done = copy(&ssh, line).await;
            assert_eq!(done.status == Some(0), allowed, "{right}: {line}: {done:?}");
            assert_eq!(ssh.path("got").exists() || sshd.path("new").exists(), allowed, "{right}: {line}");
        }
        // Nobody gets a program of their own by a name that sounds right.
        for command in ["/tmp/scp -t x", "scp -S /bin/sh -t x", "rsync --server -e sh . x", "internal-sftp; id"] {
            assert!(!ssh.run("web", command).await.refusal().is_empty(), "{command}");
        }
        assert_eq!(ssh.run("web", "id").await.status, Some(0));
        let rows = gateway.admin().await.rows("socket_name=web&page_size=50").await;
        assert!(
            rows.iter().any(|row| row.events.iter().any(|e| e.status == EventStatus::Denied)) || right == "\"write\""
        );
    }
}

/// cmd.exe and PowerShell find other commands in what sh takes for a quoted name.
#[tokio::test]
async fn quotes_are_trusted_only_where_a_posix_shell_reads_them() {
    for (version, trusted) in [("Debian", true), ("for_Windows", false)] {
        let sshd = Sshd::start_with(&format!("VersionAddendum {version}")).await;
        let rights = FILES.replace("FILES", "\"write\"").replace("\"id\"", "\"echo *\"");
        let gateway = Setup::new().ssh("web", &sshd).policies(&rights).start().await;
        let ssh = gateway.signed_in("alice", "web").await;
        let (word, dir) = (ssh.path("word"), sshd.path("").display().to_string());
        fs::write(&word, "word\n").unwrap();
        assert_eq!(copy(&ssh, &format!("scp -O {} web@gate:{dir}/plain", word.display())).await.status, Some(0));
        let done = copy(&ssh, &format!("scp -O {} \"web@gate:'{dir}/a & b'\"", word.display())).await;
        assert_eq!(done.status == Some(0), trusted, "{version}: {done:?}");
        assert_eq!(sshd.path("a & b").exists(), trusted, "{version}");
        assert_eq!(ssh.run("web", "echo one").await.ok(), "one\n");
        let done = ssh.run("web", "echo 'one & two'").await;
        assert_eq!(done.status == Some(0), trusted, "{version}: {done:?}");
        assert!(trusted || done.refusal().contains("any command"), "{done:?}");
    }
}

#[tokio::test]
async fn every_file_of_an_old_scp_and_of_rsync_is_told() {
    let (sshd, gateway, ssh) = gate().await;
    let tree = ssh.path("tree");
    fs::create_dir_all(tree.join("below")).unwrap();
    for (name, seed) in [("one", 1), ("below/two", 2)] {
        fs::write(tree.join(name), noise(seed, 100_000)).unwrap();
    }
    let (from, to) = (tree.display(), sshd.path("got").display().to_string());
    assert_eq!(copy(&ssh, &format!("scp -O -r {from} web@gate:{to}")).await.status, Some(0));
    let row = ended(&gateway).await;
    let two = &about(&row, "write", "below/two").metadata;
    assert_eq!(text(&two["sha256"]), digest(&sshd.path("got/below/two")));
    assert_eq!(row.recordings[0].kind, "scp");
    let line = format!("rsync -a -e \"$SSH\" {from}/ web@gate:{to}-2/");
    assert_eq!(copy(&ssh, &line).await.status, Some(0));
    let row = ended(&gateway).await;
    assert_eq!(row.recordings[0].kind, "rsync");
    assert!(about(&row, "write", "below/two").metadata["size"] == 100_000, "{:#?}", row.events);
    assert_eq!(digest(&sshd.path("got-2/one")), digest(&tree.join("one")));
}

#[tokio::test]
async fn what_is_no_sftp_ends_the_channel_with_words_and_reaches_nobody() {
    let (_sshd, gateway, ssh) = gate().await;
    // A length of four gigabytes.
    let done = ssh.bash("printf '\\377\\377\\377\\377xxxx' | $SSH -s web@gate sftp", SOON).await;
    assert_ne!(done.status, Some(0), "{done:?}");
    assert!(done.stderr.contains("gatescribe: "), "{done:?}");
    let row = ended(&gateway).await;
    assert!(row.events.iter().any(|event| event.kind == "stopped"), "{:#?}", row.events);
}

#[tokio::test]
async fn a_transfer_that_another_program_starts_lives_by_both_of_its_rights() {
    let rules = "[[policy]]\nname = \"both\"\neffect = \"allow\"\nwho = { groups = [\"engineering\"] }\n\
                 [policy.allow.ssh]\nexec = true\nsftp = \"write\"\n";
    for (taken, left) in [("exec = true", "exec"), ("sftp = \"write\"", "files")] {
        let sshd = Sshd::start().await;
        let gateway = Setup::new().ssh("web", &sshd).policies(rules).start().await;
        let ssh = gateway.signed_in("alice", "web").await;
        let command = format!("env scp -t {}", sshd.path("").display());
        let mut sink = ssh.start(&["web@gate", &command]);
        assert_eq!(sink.receive(1).await, b"\0", "the sink is ready");
        let file = gateway.config_file();
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(taken));
        fs::write(&file, text.replace(taken, "logins = []")).unwrap();
        sink.told("both does not allow").await;
        let done = sink.finish(SOON).await;
        assert_ne!(done.status, Some(0), "{left}: {done:?}");
        let row = ended(&gateway).await;
        assert_eq!(row.recordings[0].kind, "scp");
        let cut = row.events.iter().find(|event| event.kind == "cut").unwrap_or_else(|| panic!("{:#?}", row.events));
        assert_eq!((cut.status, cut.metadata["rule"].as_str()), (EventStatus::Denied, Some("both")));
    }
}
