//! A pseudo-terminal with a program in it, as a person's terminal emulator would run it.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::sync::watch;

use super::{eventually, process, within};

/// A program in a terminal. Dropping it hangs up.
pub struct Terminal {
    keyboard: File,
    screen: watch::Receiver<Vec<u8>>,
    child: Child,
    /// How much of the screen's bytes `expect` has gone past.
    seen: usize,
}

impl Terminal {
    /// Starts `program` with a terminal of this size as its own.
    pub fn start(program: &Command, cols: u16, rows: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        resize(&master, cols, rows);
        let child = in_own_session(program)
            .stdin(Stdio::from(slave.try_clone().unwrap()))
            .stdout(Stdio::from(slave.try_clone().unwrap()))
            .stderr(Stdio::from(slave))
            .spawn()
            .expect("setsid is installed");
        let screen = pump(File::from(master.try_clone().unwrap()));
        Self { keyboard: File::from(master), screen, child, seen: 0 }
    }

    /// The program's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Types these bytes.
    pub fn send(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until `words` come, after what an earlier call waited for, and returns everything up to them.
    pub async fn expect(&mut self, words: &str) -> String {
        self.expect_within(words, Duration::from_secs(20)).await
    }

    /// As `expect`, with its own limit.
    pub async fn expect_within(&mut self, words: &str, limit: Duration) -> String {
        let from = self.seen;
        let find = |bytes: &Vec<u8>| position(&bytes[from..], words.as_bytes()).is_some();
        let found = tokio::time::timeout(limit, self.screen.wait_for(find)).await;
        let found = found.map(|found| found.ok().map(|bytes| bytes.clone()));
        let bytes = match found {
            Ok(Some(bytes)) => bytes,
            Ok(None) => panic!("no {words:?} before the end ({:?}); it shows:\n{}", self.child.try_wait(), self.text()),
            Err(_elapsed) => panic!("no {words:?} within {limit:?}; the terminal shows:\n{}", self.text()),
        };
        let end = from + position(&bytes[from..], words.as_bytes()).unwrap() + words.len();
        self.seen = end;
        String::from_utf8_lossy(&bytes[from..end]).into_owned()
    }

    /// Changes the window's size; the program gets SIGWINCH.
    pub fn resize(&self, cols: u16, rows: u16) {
        resize(&self.keyboard, cols, rows);
    }

    /// Everything shown so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    /// Everything shown so far, as it came.
    pub fn bytes(&self) -> Vec<u8> {
        self.screen.borrow().clone()
    }

    /// Waits until the program ends.
    pub async fn wait(&mut self, limit: Duration) -> ExitStatus {
        let child = &mut self.child;
        let ended = eventually("the program in the terminal ends", limit, async || child.try_wait().unwrap());
        within(limit + Duration::from_secs(1), "the program in the terminal ends", ended).await
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the terminal shows\n{}", self.text());
        }
        // Once it was waited for, its id can be another program's.
        if let Ok(None) = self.child.try_wait() {
            process::signal(self.child.id(), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// `setsid --ctty` makes the terminal the program's controlling one; doing it here would need `unsafe`.
fn in_own_session(program: &Command) -> Command {
    let mut command = Command::new("setsid");
    command.arg("--ctty").arg(program.get_program()).args(program.get_args());
    command.env("TERM", "xterm-256color");
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// Reads the terminal on a thread of its own, because a pseudo-terminal ends with an error instead of an end of file.
///
/// One error is not the end yet: Linux looks for output first and whether everybody has gone second, so that a program
/// which writes and ends in between is told of before its output. The next read then has it.
fn pump(mut master: File) -> watch::Receiver<Vec<u8>> {
    let (sender, receiver) = watch::channel(Vec::new());
    std::thread::spawn(move || {
        let mut chunk = [0; 65536];
        let mut errors = 0;
        while errors < 2 {
            match master.read(&mut chunk) {
                Ok(length @ 1..) => {
                    errors = 0;
                    sender.send_modify(|all| all.extend_from_slice(&chunk[..length]));
                }
                Ok(0) | Err(_) => errors += 1,
            }
        }
    });
    receiver
}

fn resize(master: impl std::os::fd::AsFd, cols: u16, rows: u16) {
    tcsetwinsize(master, Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}

fn position(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
