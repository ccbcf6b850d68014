//! The gateway's hold of its helper, the process that can become other users (`lending.rs`).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::wire::{self, Answer, Frames, Order, Places};

/// How long a keeper may take to answer its first order: a directory service may be asked for the user.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Shells that can close a descriptor, up to this number (POSIX only wants one digit), with options: bash takes a socket as
/// standard input for a reason to read what its user has in `.bashrc`.
const SHELLS: [(&str, u32, &[&str]); 2] = [("/bin/sh", 9, &[]), ("/bin/bash", u32::MAX, &["--noprofile", "--norc"])];

/// The helper of this process. It ends when the last of these is dropped. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Helper {
    line: Arc<UnixStream>,
    users: Arc<[String]>,
}

/// A keeper that has answered its first order.
pub(super) struct Kept {
    pub(super) line: tokio::net::UnixStream,
    pub(super) frames: Frames,
    pub(super) answer: Answer,
}

impl Helper {
    /// Starts the helper for these users of this host. To be called before anything secret is read and anything is open:
    /// what it inherits is what this process was started with, without the environment and without descriptors.
    pub fn start(users: Vec<String>) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut helper = alone(&foreign_descriptors()?)?;
        helper.args(["shell-host", "--role", "helper", "--"]).args(&users).env_clear().current_dir("/");
        let theirs = Stdio::from(OwnedFd::from(theirs));
        helper.stdin(theirs).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Self { line: Arc::new(ours), users: users.into() })
    }

    /// Whether the helper was started for this user.
    pub fn knows(&self, user: &str) -> bool {
        self.users.iter().any(|name| name == user)
    }

    /// Whether `user` can be given a shell here without getting at any of `places` or at the gateway's own program; if not,
    /// why, for whoever runs the gateway.
    pub async fn vouch(&self, user: &str, places: Places) -> Result<(), String> {
        self.ask(Order::Probe { user: user.to_owned(), places, by_being: true }).await
    }

    /// The same without any process of the user's, whom the shells that are open by now would let end or stop it.
    pub async fn vouch_again(&self, user: &str, places: Places) -> Result<(), String> {
        self.ask(Order::Probe { user: user.to_owned(), places, by_being: false }).await
    }

    async fn ask(&self, order: Order) -> Result<(), String> {
        let Order::Probe { user, .. } = &order else { return Err("that is no question".into()) };
        let kept = self.keeper(&order, &[]).await.map_err(|error| format!("the helper does not answer: {error}"))?;
        match kept.answer {
            Answer::Found { reached } => match reached.first() {
                None => Ok(()),
                Some((path, how)) => Err(format!(
                    "{user:?} could get at {} {how}; take the right away (chmod, chown), or use another user",
                    path.display()
                )),
            },
            Answer::Refused { words } => Err(words),
            other => Err(format!("the helper answered {other:?}")),
        }
    }

    /// Has a keeper started, and gives it its first order.
    pub(super) async fn keeper(&self, order: &Order, files: &[BorrowedFd<'_>]) -> io::Result<Kept> {
        let (line, theirs) = UnixStream::pair()?;
        line.set_nonblocking(true)?;
        let line = tokio::net::UnixStream::from_std(line)?;
        // One byte: it goes at once, or the helper does not keep up.
        wire::send(self.line.as_fd(), &[0], &[theirs.as_fd()])?;
        drop(theirs);
        let mut frames = Frames::default();
        let answered = timeout(ANSWER_WITHIN, async {
            wire::order(&line, order, files).await?;
            wire::answer(&line, &mut frames).await
        });
        let answer = answered.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        Ok(Kept { line, frames, answer })
    }
}

/// This program, still this binary when an upgrade has replaced its file, without these descriptors. Nothing safe closes a
/// descriptor that nobody here owns, so where there are any a shell does it on its way.
fn alone(foreign: &[u32]) -> io::Result<Command> {
    if foreign.is_empty() {
        return Ok(Command::new("/proc/self/exe"));
    }
    let able = SHELLS.iter().find(|(path, most, _)| foreign.iter().all(|fd| fd <= most) && Path::new(path).exists());
    let Some((path, _, options)) = able else {
        let words = format!(
            "descriptors {foreign:?} were open when the gateway was started; start it without, or install bash"
        );
        return Err(io::Error::other(words));
    };
    let closed: String = foreign.iter().map(|fd| format!(" {fd}>&-")).collect();
    let mut shell = Command::new(path);
    shell
        .args(*options)
        .arg("-c")
        .arg(format!("exec{closed}; exec \"$0\" \"$@\""))
        .arg(format!("/proc/{}/exe", std::process::id()));
    Ok(shell)
}

/// Descriptors beside the standard ones that a program started from here would have.
fn foreign_descriptors() -> io::Result<Vec<u32>> {
    const CLOEXEC: u32 = rustix::fs::OFlags::CLOEXEC.bits();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fdinfo")? {
        let name = entry?.file_name();
        let Some(fd) = name.to_str().and_then(|name| name.parse().ok()).filter(|fd| *fd > 2) else { continue };
        // It may have been the directory's own.
        let Ok(about) = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")) else { continue };
        let flags = about.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
        if flags.is_none_or(|flags| flags & CLOEXEC == 0) {
            found.push(fd);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_that_others_left_open_is_closed_on_the_way() {
        // What the test's own runner left open is not asserted on.
        let before = foreign_descriptors().unwrap();
        let (one, _other) = UnixStream::pair().unwrap();
        let kept = rustix::io::fcntl_dupfd_cloexec(&one, 3).unwrap();
        assert_eq!(foreign_descriptors().unwrap(), before);
        drop(kept);
        let of = |fds: &[u32]| alone(fds).map(|command| format!("{command:?}"));
        assert!(of(&[]).unwrap().contains("/proc/self/exe"));
        let closing = of(&[3, 7]).unwrap();
        assert!(closing.contains("exec 3>&- 7>&-; exec"), "{closing}");
        let high = of(&[3, 12]);
        match Path::new("/bin/bash").exists() {
            true => assert!(high.unwrap().contains("bash")),
            false => assert!(high.unwrap_err().to_string().contains("[3, 12]")),
        }
    }
}
