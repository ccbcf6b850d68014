//! What tests of readings share: a real client and a real server with the reading in between, and transcripts of it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::{Fact, Reading, Step, Stop};

/// Who said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Client,
    Upstream,
}

/// What went over a channel, in order.
pub(super) type Transcript = Vec<(From, Bytes)>;

/// What a reading did with a transcript.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) facts: Vec<Fact>,
    /// What was forwarded: to the upstream, to the client.
    pub(super) passed: [Vec<u8>; 2],
    /// What of it was written down.
    pub(super) kept: [Vec<u8>; 2],
    pub(super) stop: Option<Stop>,
}

impl Seen {
    fn take(&mut self, from: From, steps: Vec<Step>) -> Vec<u8> {
        let mut forward = Vec::new();
        for step in steps {
            match step {
                Step::Pass(bytes) => {
                    self.kept[from as usize].extend_from_slice(&bytes);
                    forward.extend_from_slice(&bytes);
                }
                Step::PassUnkept(bytes) => forward.extend_from_slice(&bytes),
                Step::Tell(fact) => self.facts.push(fact),
                step => panic!("{step:?}"),
            }
        }
        self.passed[from as usize].extend_from_slice(&forward);
        forward
    }

    fn feed(&mut self, reading: &mut dyn Reading, from: From, data: Bytes) -> Vec<u8> {
        let mut steps = Vec::new();
        let result = match from {
            From::Client => reading.input(data, true, &mut steps),
            From::Upstream => reading.output(data, true, &mut steps),
        };
        self.stop = self.stop.take().or(result.err());
        self.take(from, steps)
    }

    fn finish(&mut self, reading: &mut dyn Reading) {
        let mut steps = Vec::new();
        reading.finish(&mut steps);
        self.take(From::Client, steps);
    }

    /// The facts' metadata, without the summary.
    pub(super) fn files(&self) -> Vec<&serde_json::Value> {
        self.facts.iter().filter(|fact| fact.kind == "ssh_file").map(|fact| &fact.about).collect()
    }

    pub(super) fn summary(&self) -> &serde_json::Value {
        let mut summaries = self.facts.iter().filter(|fact| fact.kind == "ssh_files");
        let summary = summaries.next().expect("a summary");
        assert_eq!(summaries.next(), None);
        &summary.about
    }
}

/// Reads a transcript, which may end with a stop.
pub(super) fn replay(mut reading: impl Reading, transcript: &[(From, Bytes)]) -> Seen {
    let mut read = Seen::default();
    for (from, data) in transcript {
        if read.stop.is_none() {
            read.feed(&mut reading, *from, data.clone());
        }
    }
    read.finish(&mut reading);
    read
}

/// Cuts each piece of a transcript into pieces of these lengths, in turn.
pub(super) fn cut(transcript: &[(From, Bytes)], lengths: &[usize]) -> Transcript {
    let mut lengths = lengths.iter().copied().cycle();
    let mut pieces = Vec::new();
    for (from, data) in transcript {
        let mut rest = data.clone();
        while !rest.is_empty() {
            let length = lengths.next().unwrap_or(rest.len()).clamp(1, rest.len());
            pieces.push((*from, rest.split_to(length)));
        }
    }
    pieces
}

/// One run of a real client.
pub(super) struct Run {
    pub(super) read: Seen,
    pub(super) transcript: Transcript,
    /// The command that it sent.
    pub(super) command: Vec<u8>,
    pub(super) ok: bool,
}

/// Runs a client whose "ssh" is a script that hands us the command and the channel, and the command with the reading
/// that `make` gives for it in between. `via` is the option that names the script (`-S`, `-e`).
pub(super) fn run(client: &[&OsStr], via: &str, dir: &Path, make: impl FnOnce(&[u8]) -> Box<dyn Reading>) -> Run {
    let path = |name: &str| dir.join(name);
    fs::create_dir_all(dir).unwrap();
    for name in ["command", "up", "down"] {
        let made = Command::new("mkfifo").arg(path(name)).status().unwrap();
        assert!(made.success());
    }
    let script = path("ssh");
    // The command is the last of the words after the host, whatever options stand before.
    let text = "#!/bin/sh\nD=${0%/*}\nwhile [ $# -gt 0 ]; do case $1 in host) shift; break;; *) shift;; esac; done\n\
                [ \"$1\" = -- ] && shift\nprintf %s \"$*\" > $D/command\nexec 3<&0; cat <&3 >$D/up & \
                cat <$D/down; kill $! 2>/dev/null; exit 0\n";
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let mut words = client.iter();
    let mut started = Command::new("timeout")
        .arg("30")
        .arg(words.next().unwrap())
        .arg(via)
        .arg(&script)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // By a program that gives up: a client that cannot start never opens its end.
    let command = Command::new("timeout").args(["30", "cat"]).arg(path("command")).output().unwrap().stdout;
    assert!(!command.is_empty(), "the client sent no command; is it installed?");
    let reading = make(&command);
    let server = Command::new("timeout")
        .args(["30", "sh", "-c", std::str::from_utf8(&command).unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (read, transcript) = pump(reading, server, (path("up"), path("down")));
    let ok = started.wait().unwrap().success();
    for name in ["command", "up", "down"] {
        fs::remove_file(path(name)).unwrap();
    }
    Run { read, transcript, command, ok }
}

struct Pump {
    reading: Box<dyn Reading>,
    read: Seen,
    transcript: Transcript,
}

fn pump(reading: Box<dyn Reading>, mut server: std::process::Child, ends: (PathBuf, PathBuf)) -> (Seen, Transcript) {
    let pump = Arc::new(Mutex::new(Pump { reading, read: Seen::default(), transcript: Vec::new() }));
    let (to_server, from_server) = (server.stdin.take().unwrap(), server.stdout.take().unwrap());
    // Each waits until the script has opened the other end.
    let to_client = fs::OpenOptions::new().write(true).open(ends.1).unwrap();
    let from_client = File::open(ends.0).unwrap();
    let carry = |from: From, source: Box<dyn Read + Send>, sink: Box<dyn Write + Send>| {
        let pump = Arc::clone(&pump);
        std::thread::spawn(move || carry(&pump, from, source, sink))
    };
    let up = carry(From::Client, Box::new(from_client), Box::new(to_server));
    let down = carry(From::Upstream, Box::new(from_server), Box::new(to_client));
    up.join().unwrap();
    down.join().unwrap();
    server.wait().unwrap();
    let Ok(pump) = Arc::try_unwrap(pump) else { panic!("both have ended") };
    let Pump { mut reading, mut read, transcript } = pump.into_inner().unwrap();
    read.finish(reading.as_mut());
    (read, transcript)
}

fn carry(pump: &Mutex<Pump>, from: From, mut source: Box<dyn Read + Send>, mut sink: Box<dyn Write + Send>) {
    let mut buffer = vec![0; 32 * 1024];
    while let Ok(count @ 1..) = source.read(&mut buffer) {
        let data = Bytes::copy_from_slice(&buffer[..count]);
        let forward = {
            let mut pump = pump.lock().unwrap();
            let pump = &mut *pump;
            pump.transcript.push((from, data.clone()));
            let forward = pump.read.feed(pump.reading.as_mut(), from, data);
            if pump.read.stop.is_some() {
                return;
            }
            forward
        };
        if sink.write_all(&forward).and_then(|()| sink.flush()).is_err() {
            return;
        }
    }
}
