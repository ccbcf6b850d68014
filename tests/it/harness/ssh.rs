//! The stock `ssh`, with its own key, known hosts and configuration, where the gateway is called `gate`.
//!
//! A person's answers to prompts come from a small askpass program that waits until the test has typed them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;

use super::{SOON, Terminal, make_key, within};

/// How long a command over ssh may take, where the test does not say.
const COMMAND: Duration = Duration::from_secs(60);

/// Somebody's machine: a key, a list of known hosts, and a configuration that knows `gate`.
#[derive(Clone)]
pub struct Ssh {
    dir: Arc<TempDir>,
}

/// How a command ended.
#[derive(Debug)]
pub struct Done {
    /// `None` when a signal ended `ssh` itself.
    pub status: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

/// An `ssh` that runs.
pub struct Running {
    pub child: Child,
    pub stdin: Option<ChildStdin>,
    pub stdout: Option<ChildStdout>,
    stderr: watch::Receiver<String>,
}

/// A connection that waits for its link to be approved.
pub struct SignIn {
    pub ssh: Running,
    /// The link that it showed.
    pub link: String,
    dir: Arc<TempDir>,
    typed: u32,
}

impl Ssh {
    /// A machine with a new key, that reaches the gateway at this port.
    pub fn new(port: u16) -> Self {
        let ssh = Self::without_key(port);
        make_key(&ssh.path("id"), "person");
        ssh
    }

    /// A machine that has no key at all.
    pub fn without_key(port: u16) -> Self {
        let dir = TempDir::with_prefix("gatescribe-ssh-").unwrap();
        let ssh = Self { dir: Arc::new(dir) };
        fs::write(ssh.path("config"), config(ssh.dir.path(), port)).unwrap();
        fs::write(ssh.path("askpass"), askpass(ssh.dir.path())).unwrap();
        fs::set_permissions(ssh.path("askpass"), fs::Permissions::from_mode(0o700)).unwrap();
        ssh
    }

    /// A file in this machine's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `ssh` with these arguments, such as `["web@gate", "uptime"]`.
    pub fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new("ssh");
        command.arg("-F").arg(self.path("config")).args(args);
        self.environment(&mut command);
        command
    }

    /// Starts `ssh`, with pipes on all three sides.
    pub fn start(&self, args: &[&str]) -> Running {
        Running::start(self.command(args))
    }

    /// Runs one command on a socket and waits for its end.
    pub async fn run(&self, socket: &str, command: &str) -> Done {
        self.start(&[&format!("{socket}@gate"), command]).finish(COMMAND).await
    }

    /// Runs a line of `bash` in which `$SSH` stands for `ssh` with everything set.
    pub async fn bash(&self, line: &str, limit: Duration) -> Done {
        let mut command = std::process::Command::new("bash");
        command.args(["-o", "pipefail", "-c", line]);
        command.env("SSH", format!("ssh -F {}", self.path("config").display()));
        self.environment(&mut command);
        Running::start(command).finish(limit).await
    }

    /// Opens a terminal of 80 by 24 with `ssh` in it.
    pub fn terminal(&self, args: &[&str]) -> Terminal {
        Terminal::start(&self.command(args), 80, 24)
    }

    /// Connects, and waits until a link is shown.
    pub async fn sign_in(&self, args: &[&str]) -> SignIn {
        for file in fs::read_dir(self.dir.path()).unwrap().flatten() {
            if file.file_name().to_string_lossy().starts_with("answer.") || file.file_name() == "asked" {
                fs::remove_file(file.path()).unwrap();
            }
        }
        let mut ssh = self.start(args);
        let told = ssh.told("https://").await;
        let link = link_in(&told).unwrap_or_else(|| panic!("no link in {told:?}"));
        SignIn { ssh, link, dir: self.dir.clone(), typed: 0 }
    }

    fn environment(&self, command: &mut std::process::Command) {
        command.env("SSH_ASKPASS", self.path("askpass")).env("SSH_ASKPASS_REQUIRE", "force");
        command.env_remove("SSH_AUTH_SOCK");
    }
}

impl Done {
    /// The output of a command that went well.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.status, Some(0), "stderr: {}", self.stderr);
        String::from_utf8(self.stdout).unwrap()
    }

    /// The words in which the gateway says why not: a line on stderr. The banner before every sign-in is none.
    #[track_caller]
    pub fn refusal(&self) -> &str {
        assert!(!matches!(self.status, Some(0) | None), "expected a refusal: {self:?}");
        let words = |line| said(line).filter(|words| !words.starts_with("sessions are recorded."));
        let line = self.stderr.lines().rev().find_map(words);
        line.unwrap_or_else(|| panic!("no line of the gateway in {self:?}"))
    }
}

impl Running {
    pub fn start(command: std::process::Command) -> Self {
        let mut command = Command::from(command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("ssh is installed");
        let stderr = follow(child.stderr.take().unwrap());
        Self { stdin: child.stdin.take(), stdout: child.stdout.take(), stderr, child }
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("still runs")
    }

    /// Waits for these words on stderr and returns all of it, up to the end of their line.
    pub async fn told(&mut self, words: &str) -> String {
        let full_line = |text: &String| text.find(words).is_some_and(|at| text[at..].contains('\n'));
        let told = tokio::time::timeout(SOON, self.stderr.wait_for(full_line)).await;
        let text = told.ok().and_then(Result::ok).map(|text| text.clone());
        text.unwrap_or_else(|| panic!("no {words:?} on stderr, but {:?}", self.stderr()))
    }

    /// What came on stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.borrow().clone()
    }

    /// Writes to its stdin.
    pub async fn send(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        within(SOON, "ssh takes its stdin", stdin.write_all(bytes)).await.unwrap();
        stdin.flush().await.unwrap();
    }

    /// Reads exactly this much from its stdout.
    pub async fn receive(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let stdout = self.stdout.as_mut().expect("stdout is open");
        within(SOON, "output over ssh", stdout.read_exact(&mut bytes)).await.unwrap();
        bytes
    }

    /// Reads one line from its stdout.
    pub async fn receive_line(&mut self) -> String {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            line.extend(self.receive(1).await);
        }
        String::from_utf8(line).unwrap().trim_end().to_owned()
    }

    /// Closes stdin, reads everything and waits for the end.
    pub async fn finish(mut self, limit: Duration) -> Done {
        drop(self.stdin.take());
        let mut stdout = Vec::new();
        let all = async {
            if let Some(mut pipe) = self.stdout.take() {
                pipe.read_to_end(&mut stdout).await.unwrap();
            }
            let status = self.child.wait().await.unwrap();
            let _ = self.stderr.wait_for(|_| false).await;
            status
        };
        let ended = tokio::time::timeout(limit, all).await;
        let stderr = self.stderr.borrow().clone();
        let Ok(status) = ended else { panic!("ssh took longer than {limit:?}; stderr: {stderr}") };
        Done { status: status.code(), stdout, stderr }
    }
}

impl SignIn {
    /// Types an answer at the next prompt, or at the one that already waits.
    pub fn answer(&mut self, words: &str) {
        self.typed += 1;
        let whole = self.dir.path().join(format!("answer.{}", self.typed));
        let part = whole.with_extension("part");
        fs::write(&part, format!("{words}\n")).unwrap();
        fs::rename(part, whole).unwrap();
    }

    /// How many prompts there were so far, and the last one's words.
    pub fn asked(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.path().join("asked")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

/// What a line of stderr says in the gateway's name.
fn said(line: &str) -> Option<&str> {
    let line = line.trim_end();
    line.strip_prefix("gatescribe: ")
}

/// The first URL in a text.
pub fn link_in(text: &str) -> Option<String> {
    let rest = &text[text.find("https://")?..];
    let end = rest.find(|c: char| c.is_whitespace()).unwrap_or(rest.len());
    Some(rest[..end].to_owned())
}

fn config(dir: &Path, port: u16) -> String {
    let dir = dir.display();
    format!(
        "Host gate\n\
         HostName 127.0.0.1\n\
         Port {port}\n\
         HostKeyAlias gate\n\
         UserKnownHostsFile {dir}/known_hosts\n\
         GlobalKnownHostsFile none\n\
         StrictHostKeyChecking accept-new\n\
         IdentityFile {dir}/id\n\
         IdentitiesOnly yes\n\
         PreferredAuthentications publickey,keyboard-interactive\n\
         ConnectTimeout 20\n"
    )
}

/// Notes the prompt, then waits for the test to type the answer with this number.
fn askpass(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "#!/bin/sh\n\
         printf '%s\\n' \"$(printf %s \"$1\" | tr '\\n' ' ')\" >> {dir}/asked\n\
         answer={dir}/answer.$(wc -l < {dir}/asked)\n\
         tries=0\n\
         until [ -e \"$answer\" ]; do tries=$((tries + 1)); [ $tries -lt 600 ] || exit 1; sleep 0.05; done\n\
         cat \"$answer\"\n"
    )
}

/// Collects a stream; the channel closes at its end.
fn follow(mut pipe: impl tokio::io::AsyncRead + Unpin + Send + 'static) -> watch::Receiver<String> {
    let (sender, receiver) = watch::channel(String::new());
    tokio::spawn(async move {
        let mut chunk = [0; 4096];
        while let Ok(length @ 1..) = pipe.read(&mut chunk).await {
            sender.send_modify(|all| all.push_str(&String::from_utf8_lossy(&chunk[..length])));
        }
    });
    receiver
}
