//! The helper's own process: starts a keeper for each line that the gateway passes, and nothing else.
//!
//! It was started before the gateway read a secret or opened anything, has no descriptor but its socket and no variable,
//! and knows for whom it was started. It lives until the gateway does not, whatever signals come: a service manager may
//! send them to everybody, and sessions are drained first. Keepers end by their own lines, which end with the gateway.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, set_dumpable_behavior,
    setsid, wait,
};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

use super::cgroup::Cgroup;
use super::keeper::tree;
use super::lent::take_line;
use super::wire;

/// What does not concern the helper.
const NOT_MEANT: [i32; 6] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

/// How long a cgroup that is still in use is left alone.
const AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Serves the gateway at standard input until it is gone.
pub fn run(users: &[String]) -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let line = take_line()?;
    // Away from the gateway's terminal. Whoever leads a group already is refused and stays.
    let _ = setsid();
    // Adopts what a keeper that was killed, for want of memory, leaves behind.
    set_child_subreaper(Some(getpid()))?;
    std::env::set_current_dir("/")?;
    for signal in NOT_MEANT {
        // Handled rather than ignored: what is ignored would stay so in shells.
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    let (ended, ends) = UnixStream::pair()?;
    ended.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(SIGCHLD, ends)?;
    let (mut keepers, mut left) = (HashSet::new(), Vec::new());
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(line.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(ended.as_fd(), PollFlags::IN),
        ];
        match poll(&mut fds, Some(&AGAIN).filter(|_| !left.is_empty())) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let [called, some_ended] = fds.map(|fd| !fd.revents().is_empty());
        if some_ended || !left.is_empty() {
            bury(&ended, &mut keepers, &mut left);
        }
        if called {
            let (length, files) = wire::receive(line.as_fd(), &mut [0])?;
            if length == 0 {
                return Ok(());
            }
            // One that cannot be started is one whose line closes.
            keepers.extend(files.into_iter().filter_map(|file| start(users, file).ok()));
        }
    }
}

fn start(users: &[String], line: OwnedFd) -> io::Result<Pid> {
    let mut keeper = Command::new("/proc/self/exe");
    keeper.args(["shell-host", "--role", "keeper", "--"]).args(users).env_clear();
    let child = keeper.stdin(Stdio::from(line)).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    Pid::from_raw(child.id().cast_signed()).ok_or_else(|| io::Error::other("no process id"))
}

/// Buries keepers that have ended, and ends what a dead one could not; `left` are cgroups that are still in use.
fn bury(ended: &UnixStream, keepers: &mut HashSet<Pid>, left: &mut Vec<Cgroup>) {
    while wire::receive(ended.as_fd(), &mut [0; 64]).is_ok_and(|(length, _)| length > 0) {}
    while let Ok(Some((pid, _))) = wait(WaitOptions::NOHANG) {
        if keepers.remove(&pid) {
            left.extend(Cgroup::of(pid));
        }
    }
    // Most are gone, because their keepers removed them.
    left.retain(|cgroup| {
        cgroup.kill();
        !cgroup.remove()
    });
    let me = getpid();
    // What dies here leaves its own children to us, and is told by the same signal: so this comes again until none is left.
    for orphan in tree(me).iter().filter(|member| member.parent == me && !keepers.contains(&member.pid)) {
        for member in tree(orphan.pid) {
            let _ = kill_process(member.pid, Signal::KILL);
        }
        let _ = kill_process(orphan.pid, Signal::KILL);
    }
}
