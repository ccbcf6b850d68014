//! OpenSSH's `sftp` and `scp`, and its `sftp-server`, with the reading in between; and what it told, compared with the files.
//!
//! The programs start `relay` in place of a server, which hands their bytes to this process.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Mutex;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::wire::Keep;
use crate::wire::sftp::Files;
use crate::wire::{Fact, Outcome, Reading, Step};

const SERVER: &str = "/usr/lib/openssh/sftp-server";
const RELAY: &str = "#!/bin/sh\ncat <&3 3<&- 4>&- &\nexec cat >&4 3<&- 4>&-\n";

/// Two directories: `here` is the client's, `there` the server's.
struct Site {
    root: TempDir,
}

/// What a client's visit has come to.
struct Visit {
    facts: Vec<Fact>,
    /// What the client printed.
    log: String,
    succeeded: bool,
}

/// What both directions share. Who takes the client's end first takes this second.
struct Between {
    files: Files,
    answers: Vec<Bytes>,
    facts: Vec<Fact>,
}

impl Site {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for dir in ["here", "there"] {
            fs::create_dir(root.path().join(dir)).unwrap();
        }
        fs::write(root.path().join("relay"), RELAY).unwrap();
        fs::set_permissions(root.path().join("relay"), fs::Permissions::from_mode(0o755)).unwrap();
        Self { root }
    }

    fn here(&self, name: &str) -> PathBuf {
        self.root.path().join("here").join(name)
    }

    fn there(&self, name: &str) -> PathBuf {
        self.root.path().join("there").join(name)
    }

    /// Runs `client`, a command line in which `$RELAY` stands for the server, with `batch` as its input.
    fn visit(&self, client: &str, batch: &str, may_write: bool) -> Visit {
        fs::write(self.root.path().join("batch"), batch).unwrap();
        let script = format!("exec 3<&0 4>&1; exec {client} <../batch >../log 2>&1");
        let mut client = Command::new("timeout")
            .args(["60", "sh", "-c", &script])
            .env("RELAY", self.root.path().join("relay"))
            .current_dir(self.root.path().join("here"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut server = Command::new(SERVER)
            .current_dir(self.root.path().join("there"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let to_client = Mutex::new(client.stdin.take());
        let between = Mutex::new(Between { files: Files::new(Keep::Metadata), answers: Vec::new(), facts: Vec::new() });
        std::thread::scope(|scope| {
            let (from_client, to_server) = (client.stdout.take().unwrap(), server.stdin.take().unwrap());
            scope.spawn(|| carry_input(from_client, to_server, &to_client, &between, may_write));
            carry_output(server.stdout.take().unwrap(), &to_client, &between);
        });
        let succeeded = client.wait().unwrap().success();
        server.wait().unwrap();
        let mut between = between.into_inner().unwrap();
        let mut steps = Vec::new();
        between.files.finish(&mut steps);
        between.take(steps);
        let log = fs::read_to_string(self.root.path().join("log")).unwrap();
        Visit { facts: between.facts, log, succeeded }
    }

    fn sftp(&self, batch: &str, may_write: bool) -> Visit {
        self.visit("sftp -q -b - -R 64 -D \"$RELAY\"", batch, may_write)
    }
}

impl Between {
    /// Takes what is not to be carried; returns the rest.
    fn take(&mut self, steps: Vec<Step>) -> Vec<Bytes> {
        let mut passed = Vec::new();
        for step in steps {
            match step {
                Step::Pass(bytes) | Step::PassUnkept(bytes) => passed.push(bytes),
                Step::Answer(bytes) => self.answers.push(bytes),
                Step::Tell(fact) => self.facts.push(fact),
                Step::Refuse(_) | Step::RefuseUnkept(_) | Step::Left(..) => {}
            }
        }
        passed
    }
}

fn carry_input(
    mut from_client: impl Read,
    mut to_server: impl Write,
    to_client: &Mutex<Option<ChildStdin>>,
    between: &Mutex<Between>,
    may_write: bool,
) {
    while let Some(data) = next(&mut from_client) {
        let passed = {
            let mut between = between.lock().unwrap();
            let mut steps = Vec::new();
            between.files.input(data, may_write, &mut steps).unwrap();
            between.take(steps)
        };
        // The server may be gone before a client that failed.
        if passed.iter().any(|bytes| to_server.write_all(bytes).is_err()) {
            return;
        }
        to_server.flush().unwrap();
        answer(&mut to_client.lock().unwrap(), &mut between.lock().unwrap());
    }
}

fn carry_output(mut from_server: impl Read, to_client: &Mutex<Option<ChildStdin>>, between: &Mutex<Between>) {
    while let Some(data) = next(&mut from_server) {
        // Held until all is written, so that nobody answers in the middle of it.
        let mut to_client = to_client.lock().unwrap();
        let mut between = between.lock().unwrap();
        let mut steps = Vec::new();
        between.files.output(data, true, &mut steps).unwrap();
        let passed = between.take(steps);
        // The client may be gone before a server that still answers.
        if let Some(client) = &mut *to_client
            && passed.iter().any(|bytes| client.write_all(bytes).is_err())
        {
            *to_client = None;
        }
        answer(&mut to_client, &mut between);
    }
    *to_client.lock().unwrap() = None;
}

fn answer(to_client: &mut Option<ChildStdin>, between: &mut Between) {
    if let Some(client) = to_client
        && between.files.is_between()
    {
        let written: Result<(), _> = between.answers.drain(..).try_for_each(|bytes| client.write_all(&bytes));
        if written.is_err() {
            *to_client = None;
        }
    }
}

fn next(from: &mut impl Read) -> Option<Bytes> {
    let mut buffer = vec![0; 20_000];
    let length = from.read(&mut buffer).unwrap();
    buffer.truncate(length);
    (length > 0).then(|| buffer.into())
}

impl Visit {
    /// Operation, how it ended and the last part of the path, of each fact but the summary.
    fn operations(&self) -> Vec<(&str, Outcome, &str)> {
        self.facts
            .iter()
            .filter(|fact| fact.kind == "ssh_file")
            .map(|fact| {
                let path = fact.about["path"].as_str().unwrap();
                let last = path.trim_end_matches('/').rsplit('/').next().unwrap();
                (fact.about["operation"].as_str().unwrap(), fact.outcome, last)
            })
            .collect()
    }

    fn about(&self, operation: &str, path: &Path) -> &Value {
        let path = path.to_str().unwrap();
        let found = self.facts.iter().find(|fact| fact.about["operation"] == operation && fact.about["path"] == path);
        &found.unwrap_or_else(|| panic!("no {operation} of {path} in {:?}", self.facts)).about
    }

    fn summary(&self) -> &Value {
        let last = self.facts.last().unwrap();
        assert_eq!(last.kind, "ssh_files");
        &last.about
    }
}

fn sum(path: &Path) -> Value {
    let sum = digest(&SHA256, &fs::read(path).unwrap());
    sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

/// Not the same anywhere, so that a piece in the wrong place shows.
fn contents(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut step = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| step()).collect()
}

#[test]
fn everything_that_sftp_does() {
    use Outcome::{Done, Failed};
    let site = Site::new();
    fs::write(site.here("up"), contents(3_000_000)).unwrap();
    fs::write(site.here("empty"), "").unwrap();
    fs::write(site.there("part"), contents(100_000)).unwrap();
    let visit = site.sftp(
        "mkdir d\nput up d/up\nput empty d/empty\nget d/up down\nget d/empty none\nreput up part\nrename d/up d/new\n\
         ln d/new d/hard\nln -s new d/soft\nchmod 600 d/new\ncp d/new d/copy\nls d\ndf .\n-get missing x\nrm d/hard\n\
         -rmdir d\n",
        true,
    );
    assert!(visit.succeeded, "{}", visit.log);
    let operations: Vec<_> = visit.operations().into_iter().filter(|(operation, ..)| *operation != "set").collect();
    assert_eq!(
        operations,
        [
            ("mkdir", Done, "d"),
            ("write", Done, "up"),
            ("write", Done, "empty"),
            ("read", Done, "up"),
            ("read", Done, "empty"),
            ("write", Done, "part"),
            ("rename", Done, "up"),
            ("link", Done, "new"),
            ("symlink", Done, "soft"),
            ("copy", Done, "new"),
            ("read", Done, "new"),
            ("write", Done, "copy"),
            ("list", Done, "d"),
            ("remove", Done, "hard"),
            ("rmdir", Failed, "d"),
        ],
        "{}",
        visit.log
    );
    let size = json!(3_000_000);
    let up = visit.about("write", &site.there("d/up"));
    assert_eq!((&up["bytes_written"], &up["sha256"], &up["complete"]), (&size, &sum(&site.here("up")), &json!(true)));
    let down = visit.about("read", &site.there("d/up"));
    assert_eq!((&down["bytes_read"], &down["sha256"]), (&size, &sum(&site.there("d/new"))));
    assert_eq!(sum(&site.here("down")), sum(&site.here("up")));
    assert_eq!(visit.about("write", &site.there("d/empty"))["sha256"], sum(&site.here("empty")));
    assert_eq!(visit.about("read", &site.there("d/empty"))["sha256"], sum(&site.here("none")));
    let part = visit.about("write", &site.there("part"));
    assert_eq!((&part["bytes_written"], &part["sha256"]), (&json!(2_900_000), &Value::Null));
    assert_eq!(sum(&site.there("part")), sum(&site.here("up")), "resumed");
    assert_eq!(visit.about("rename", &site.there("d/up"))["posix"], true);
    assert_eq!(visit.about("symlink", &site.there("d/soft"))["target"], "new");
    assert_eq!(fs::read_link(site.there("d/soft")).unwrap(), Path::new("new"));
    assert_eq!(visit.about("set", &site.there("d/new"))["attributes"]["mode"], "0600");
    assert_eq!(visit.about("copy", &site.there("d/new"))["to"], site.there("d/copy").to_str().unwrap());
    assert_eq!(sum(&site.there("d/copy")), sum(&site.here("up")));
    // `.`, `..`, and what was there then.
    assert_eq!(visit.about("list", &site.there("d/"))["entries"], 7);
    let summary = visit.summary();
    assert_eq!((&summary["bytes_read"], &summary["bytes_written"]), (&size, &json!(5_900_000)));
    assert_eq!((&summary["failed"], &summary["denied"], &summary["incomplete"]), (&json!(1), &json!(0), &json!(0)));
}

#[test]
fn a_client_that_may_only_read() {
    use Outcome::{Denied, Done};
    let site = Site::new();
    fs::write(site.here("up"), "new").unwrap();
    fs::write(site.there("old"), contents(300_000)).unwrap();
    let visit = site.sftp(
        "-put up up\n-put up old\n-reput up old\n-mkdir d\n-rm old\n-rename old new\n-ln old hard\n-ln -s old soft\n\
         -chmod 600 old\n-cp old copy\nget old got\nls\n",
        false,
    );
    assert!(visit.succeeded, "{}", visit.log);
    assert_eq!(
        visit.operations(),
        [
            ("write", Denied, "up"),
            ("write", Denied, "old"),
            ("mkdir", Denied, "d"),
            ("remove", Denied, "old"),
            ("rename", Denied, "old"),
            ("link", Denied, "old"),
            ("symlink", Denied, "soft"),
            ("set", Denied, "old"),
            ("write", Denied, "copy"),
            ("read", Done, "old"),
            ("list", Done, "there"),
            // `cp` opened it first, and did not close it when it could not go on.
            ("read", Done, "old"),
        ],
        "{}",
        visit.log
    );
    assert_eq!(visit.log.matches("ermission denied").count(), 9, "{}", visit.log);
    assert_eq!(sum(&site.here("got")), sum(&site.there("old")));
    let left: Vec<_> = fs::read_dir(site.there("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["old"]);
    assert_eq!((&visit.summary()["denied"], &visit.summary()["incomplete"]), (&json!(9), &json!(1)));
}

#[test]
fn scp_in_both_directions() {
    let site = Site::new();
    fs::create_dir(site.here("tree")).unwrap();
    for name in ["a", "b"] {
        fs::write(site.here("tree").join(name), contents(70_000)).unwrap();
    }
    let up = site.visit("scp -q -s -r -p -D \"$RELAY\" tree host:copy", "", true);
    assert!(up.succeeded, "{}", up.log);
    for name in ["a", "b"] {
        let copy = site.there("copy").join(name);
        let about = up.facts.iter().map(|fact| &fact.about).find(|about| {
            about["operation"] == "write" && about["path"].as_str().is_some_and(|path| path.ends_with(name))
        });
        let about = about.unwrap();
        assert_eq!((&about["absolute"], &about["sha256"]), (&json!(copy.to_str().unwrap()), &sum(&copy)));
    }
    assert_eq!(up.summary()["files_written"], 2);
    let down = site.visit("scp -q -s -r -D \"$RELAY\" host:copy back", "", false);
    assert!(down.succeeded, "{}", down.log);
    assert_eq!(sum(&site.here("back").join("a")), sum(&site.here("tree").join("a")));
    let summary = down.summary();
    assert_eq!((&summary["files_read"], &summary["bytes_read"]), (&json!(2), &json!(140_000)));
    assert_eq!((&summary["denied"], &summary["incomplete"]), (&json!(0), &json!(0)));
}

#[test]
fn a_client_that_is_killed() {
    let site = Site::new();
    fs::write(site.there("big"), contents(3_000_000)).unwrap();
    // What it may write to a file is limited, in blocks of 512 bytes; more than that is its end.
    let visit = site.visit("sh -c 'ulimit -f 200; exec sftp -q -b - -D \"$RELAY\"'", "get big cut\n", true);
    assert!(!visit.succeeded);
    let about = visit.about("read", &site.there("big"));
    assert_eq!(about["complete"], false, "{}", visit.log);
    assert_eq!(visit.summary()["incomplete"], 1);
}
