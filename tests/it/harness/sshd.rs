//! A real `sshd` with its own host key, as an administrator would set it up, on a free loopback port.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use super::{SOON, eventually, fingerprint, free_port, make_key, process};

/// A running `sshd` that lets the current user in with one key.
pub struct Sshd {
    dir: TempDir,
    child: Child,
    pub port: u16,
}

impl Sshd {
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// Starts with more lines in its configuration, in which `{at}` stands for the server's own directory.
    pub async fn start_with(more: &str) -> Self {
        Self::start_prepared(more, |_| ()).await
    }

    /// The same, with more files in that directory before the start.
    pub async fn start_prepared(more: &str, prepare: impl FnOnce(&Path)) -> Self {
        let dir = TempDir::with_prefix("gatescribe-sshd-").unwrap();
        let port = free_port();
        make_key(&dir.path().join("host_key"), "host");
        make_key(&dir.path().join("login_key"), "gateway");
        fs::copy(dir.path().join("login_key.pub"), dir.path().join("authorized_keys")).unwrap();
        write_config(dir.path(), port, &more.replace("{at}", &dir.path().display().to_string()));
        prepare(dir.path());
        let child = spawn(dir.path());
        let sshd = Self { dir, child, port };
        sshd.ready().await;
        sshd
    }

    /// `address` of a socket's upstream.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The private key that is let in.
    pub fn login_key(&self) -> PathBuf {
        self.dir.path().join("login_key")
    }

    /// `SHA256:…` of the host key it shows now.
    pub fn host_fingerprint(&self) -> String {
        fingerprint(&self.dir.path().join("host_key.pub"))
    }

    /// A directory for files of the test, beside the server's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The processes that serve connections now.
    pub fn sessions(&self) -> Vec<u32> {
        process::descendants(self.child.id())
    }

    /// Starts again on the same port with another host key of this type.
    pub async fn change_host_key(&mut self, kind: &str) {
        self.end();
        let key = self.dir.path().join("host_key");
        for file in [key.clone(), key.with_extension("pub")] {
            fs::remove_file(file).unwrap();
        }
        let made = Command::new("ssh-keygen").args(["-q", "-t", kind, "-N", "", "-f"]).arg(&key).status().unwrap();
        assert!(made.success());
        self.restart().await;
    }

    /// Ends it and all its connections, and starts it again on the same port, with an empty log.
    pub async fn restart(&mut self) {
        self.end();
        self.child = spawn(self.dir.path());
        self.ready().await;
    }

    /// What it logged, once this is in it.
    pub async fn log_with(&self, words: &str) -> String {
        let what = format!("{words:?} in sshd's log");
        eventually(&what, SOON, async || Some(self.log()).filter(|log| log.contains(words))).await
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    async fn ready(&self) {
        let log = self.dir.path().join("log");
        eventually("sshd listens", SOON, async || {
            fs::read_to_string(&log).ok().filter(|text| text.contains("Server listening"))
        })
        .await;
    }

    /// Ends it and all its connections; nothing listens at its port any more.
    pub fn end(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let mut pids = self.sessions();
        pids.push(self.child.id());
        for pid in pids {
            process::signal(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- sshd's log\n{}", self.log());
        }
        self.end();
    }
}

fn write_config(dir: &Path, port: u16, more: &str) {
    let at = dir.display();
    let text = format!(
        "{more}\n\
         ListenAddress 127.0.0.1:{port}\n\
         HostKey {at}/host_key\n\
         AuthorizedKeysFile {at}/authorized_keys\n\
         PidFile {at}/pid\n\
         UsePAM no\n\
         StrictModes no\n\
         PermitRootLogin prohibit-password\n\
         PasswordAuthentication no\n\
         KbdInteractiveAuthentication no\n\
         PrintMotd no\n\
         PrintLastLog no\n\
         AcceptEnv LANG LC_* GREETING\n\
         MaxStartups 500\n\
         Subsystem sftp internal-sftp\n"
    );
    fs::write(dir.join("sshd_config"), text).unwrap();
}

fn spawn(dir: &Path) -> Child {
    // Where no init system made it, root can; anybody else is told by tests/run.
    let _ = fs::create_dir_all("/run/sshd");
    let log = File::create(dir.join("log")).unwrap();
    Command::new("/usr/sbin/sshd")
        .args(["-D", "-e", "-f"])
        .arg(dir.join("sshd_config"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("sshd is installed")
}
