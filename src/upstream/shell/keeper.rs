//! The keeper: parent of one shell, and in the end of everything that the shell started.
//!
//! It is this same binary, started by the gateway as `gatescribe shell-keeper`, or by the gateway's helper (`lent.rs`). As a
//! child subreaper (prctl(2), `PR_SET_CHILD_SUBREAPER`) it becomes the parent of every orphan below it, so `setsid`,
//! `nohup` and double forks stay in its tree; where it can have one, all of that is in a cgroup too (`cgroup.rs`). It ends
//! the whole tree when the shell ends, when it is told to (SIGTERM, or by its line), and when the gateway dies. Knows
//! nothing of sessions, recordings or the network.

use std::collections::HashMap;
use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, getpgrp, getpid, getppid, ioctl_tiocsctty, kill_process,
    kill_process_group, pidfd_open, set_child_subreaper, setpriority_process, setsid, wait,
};
use rustix::termios::tcsetpgrp;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU};

use super::cgroup::Cgroup;
use super::wire::{self, Answer};

/// How long ending the tree may take before the keeper gives up.
const END_DEADLINE: Duration = Duration::from_secs(2);

/// The exit code after an ordered end that left nothing behind. Any other end of a keeper that was told to end means
/// that something may still run.
pub const ENDED: i32 = 128 + SIGTERM;

/// The exit code after an ordered end that left something behind, such as a process of another user.
const LEFT: i32 = ENDED + 1;

/// The priority of who ends the others (setpriority(2)).
const FIRST: i32 = -20;

/// What a terminal stops programs with: numbers.
const STOPS: [i32; 3] = [SIGTSTP, SIGTTIN, SIGTTOU];

/// What the gateway asks of a keeper.
#[derive(Debug)]
pub struct Order {
    /// The gateway's process id: when it dies, everything ends.
    pub gateway: i32,
    /// Standard input is a terminal that shall become the controlling one.
    pub tty: bool,
    /// The program, the name to run it under, and its arguments.
    pub program: Vec<OsString>,
}

/// Runs the shell and keeps it. Never returns: the process ends as the shell did.
pub fn run(order: &Order) -> io::Result<Infallible> {
    let [path, name, arguments @ ..] = order.program.as_slice() else {
        return Err(io::Error::other("no program"));
    };
    let mut program = Command::new(path);
    program.arg0(name).args(arguments);
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    let ending = Arc::new(Ending::default());
    watch_gateway(order.gateway, ending.clone())?;
    keep(program, order.tty.then_some(stdin), ending, || {})
}

/// Starts `program` in a session and process group of its own, on `terminal` as its controlling one, and keeps it until
/// `ending` or its end. `started` is called once it runs.
pub(super) fn keep(
    mut program: Command,
    terminal: Option<OwnedFd>,
    ending: Arc<Ending>,
    started: impl FnOnce(),
) -> io::Result<Infallible> {
    set_child_subreaper(Some(getpid()))?;
    setsid()?;
    if let Some(terminal) = &terminal {
        ioctl_tiocsctty(terminal)?;
    }
    watch_signals(ending.clone())?;
    let child = {
        let _starting = ending.starting();
        // A home that is not there, or that its user may not enter, is no reason to refuse, nor is it at an sshd.
        ending.spawn(program.process_group(0)).or_else(|_| ending.spawn(program.current_dir("/")))?
    };
    // What it was given is its own from now on, so that its end can be seen at the other end.
    drop(program);
    let child = Pid::from_raw(child.id().cast_signed()).ok_or_else(|| io::Error::other("no process id"))?;
    let _ = ending.started.set(child);
    if let Some(terminal) = terminal {
        // In a group of its own, so that what a terminal or a client sends to the foreground never meets the keeper. A
        // shell that had touched the terminal before was stopped: go on.
        let _ = tcsetpgrp(terminal, child);
        let _ = kill_process_group(child, Signal::CONT);
    }
    started();
    let status = reap_until(child, &ending)?;
    let clean = end_tree(ending.cgroup.get());
    ending.exit_as(status, clean)
}

/// Everything is being ended by order.
#[derive(Default)]
pub(super) struct Ending {
    /// Then nobody needs the shell's own status.
    ordered: AtomicBool,
    /// Held while the shell is started, and for ever once everything is being ended: nothing starts after the last look.
    starting: Mutex<()>,
    /// Who is told how it ended; `None`: the exit code tells the parent.
    told: Option<UnixStream>,
    /// What the shell is in, and its keeper is not, where that can be had.
    cgroup: OnceLock<Cgroup>,
    /// The shell, which leads a group.
    started: OnceLock<Pid>,
}

impl Ending {
    /// Whose end is told on this line, and whose shell is in a cgroup where that can be had.
    pub(super) fn told_on(line: UnixStream) -> Self {
        Self { told: Some(line), ..Self::default() }
    }

    /// The shell, once it was started.
    pub(super) fn started(&self) -> Option<Pid> {
        self.started.get().copied()
    }

    fn spawn(&self, program: &mut Command) -> io::Result<Child> {
        let Some(cgroup) = self.told.as_ref().and_then(|_| Cgroup::make(getpid())) else { return program.spawn() };
        let Ok(started) = cgroup.spawn(program) else { return program.spawn() };
        match started {
            Ok(child) => {
                let _ = self.cgroup.set(cgroup);
                Ok(child)
            }
            Err(error) => {
                cgroup.remove();
                Err(error)
            }
        }
    }

    fn starting(&self) -> MutexGuard<'_, ()> {
        self.starting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends everything and this process.
    pub(super) fn end_all(&self) -> ! {
        let _never_again = self.starting();
        self.ordered.store(true, Ordering::SeqCst);
        let clean = end_tree(self.cgroup.get());
        self.tell(None, clean);
        std::process::exit(if clean { ENDED } else { LEFT })
    }

    fn exit_as(&self, status: WaitStatus, clean: bool) -> io::Result<Infallible> {
        if self.told.is_some() {
            self.tell(Some(status.as_raw()), clean);
            std::process::exit(0);
        }
        let status = ExitStatus::from_raw(status.as_raw());
        if let Some(signal) = status.signal() {
            // Dies of the same signal, so that the gateway can tell the client the truth.
            signal_hook::low_level::emulate_default_handler(signal)?;
        }
        let code = status.code().unwrap_or(1);
        std::process::exit(if code == ENDED && !clean { LEFT } else { code })
    }

    /// Who is gone need not be told.
    fn tell(&self, status: Option<i32>, clean: bool) {
        if let Some(line) = &self.told {
            let _ = wire::say(line, &Answer::Ended { status, clean });
        }
    }
}

/// SIGTERM ends everything. What a terminal sends to a foreground group must not stop or end the keeper; it is handled
/// rather than ignored, because ignored signals would stay ignored in the shell.
fn watch_signals(ending: Arc<Ending>) -> io::Result<()> {
    let mut signals =
        signal_hook::iterator::Signals::new([SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGTSTP, SIGTTIN, SIGTTOU])?;
    std::thread::spawn(move || {
        if signals.forever().any(|signal| signal == SIGTERM) {
            ending.end_all();
        }
    });
    Ok(())
}

fn watch_gateway(gateway: i32, ending: Arc<Ending>) -> io::Result<()> {
    let pid = Pid::from_raw(gateway).ok_or_else(|| io::Error::other("no gateway"))?;
    let gateway = pidfd_open(pid, PidfdFlags::empty())?;
    // Looked at after the descriptor is open: a gateway that died before has already given us another parent.
    if getppid() != Some(pid) {
        return Err(io::Error::other("the gateway is gone"));
    }
    std::thread::spawn(move || {
        let mut fds = [PollFd::from_borrowed_fd(gateway.as_fd(), PollFlags::IN)];
        while poll(&mut fds, None).is_err() {}
        ending.end_all();
    });
    Ok(())
}

/// Waits for the shell, burying adopted orphans on the way. Waits for ever once everything is being ended by order: the
/// thread that does it ends the process, and may bury the shell first.
fn reap_until(child: Pid, ending: &Ending) -> io::Result<WaitStatus> {
    loop {
        let waited = wait(WaitOptions::UNTRACED);
        while ending.ordered.load(Ordering::SeqCst) {
            std::thread::park();
        }
        match waited {
            // A command under sshd cannot be suspended, because nobody is there to continue it; here neither.
            Ok(Some((pid, status))) if status.stopped() => {
                let by_terminal = status.stopping_signal().is_some_and(|signal| STOPS.contains(&signal));
                if pid == child && by_terminal {
                    let _ = kill_process_group(child, Signal::CONT);
                }
            }
            Ok(Some((pid, status))) if pid == child => return Ok(status),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Signals a process group of what is below `keeper`, which leads its own; left out: that of what was started.
///
/// What is of the keeper's session may join the keeper's group, and make it the terminal's foreground one (setpgid(2),
/// tcsetpgrp(3)): then the processes are meant, and never the keeper.
pub(super) fn signal_below(keeper: Pid, group: Option<Pid>, signal: Signal) {
    let below = tree(keeper);
    let Some(group) = group.or_else(|| Some(below.first()?.group)) else { return };
    let mut members = below.iter().filter(|member| member.group == group).peekable();
    if group == keeper {
        for member in members {
            let _ = kill_process(member.pid, signal);
        }
    } else if members.peek().is_some() {
        let _ = kill_process_group(group, signal);
    }
}

/// Ends everything below this process; whether nothing is left. Loops, because a process may fork between the look and
/// the kill. The kernel has the last word: every orphan below a child subreaper becomes its child, so without children
/// there is nobody left.
///
/// The dead are not buried before nobody lives: until then they count against what their user may have (RLIMIT_NPROC),
/// so that who forks without end finds no room for more.
#[expect(clippy::disallowed_methods, reason = "a process of its own, without a runtime")]
fn end_tree(cgroup: Option<&Cgroup>) -> bool {
    let deadline = Instant::now() + END_DEADLINE;
    // Who forks without end takes the processor too. Without CAP_SYS_NICE it takes longer.
    let _ = setpriority_process(None, FIRST);
    loop {
        if let Some(cgroup) = cgroup {
            cgroup.kill();
        }
        let mut living = false;
        for member in tree(getpid()).iter().filter(|member| member.alive) {
            living = true;
            let _ = kill_process(member.pid, Signal::KILL);
            // Meets what a process forked before it died; nobody else can be in a group of this session.
            if member.group != getpgrp() {
                let _ = kill_process_group(member.group, Signal::KILL);
            }
        }
        // A cgroup is in use for a moment longer than who was in it.
        if !living && buried() && cgroup.is_none_or(Cgroup::remove) {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Buries all that is dead; whether no child is left.
fn buried() -> bool {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Err(rustix::io::Errno::CHILD) => return true,
            _ => return false,
        }
    }
}

/// A process, perhaps already dead and not yet buried.
#[derive(Clone, Copy)]
pub(super) struct Member {
    pub(super) pid: Pid,
    alive: bool,
    pub(super) parent: Pid,
    pub(super) group: Pid,
}

/// Every process below `root`, nearest first, from `/proc/<pid>/stat` (proc(5)).
pub(super) fn tree(root: Pid) -> Vec<Member> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let mut children: HashMap<Pid, Vec<Member>> = HashMap::new();
    for member in entries.filter_map(|entry| member(entry.ok()?.file_name().to_str()?.parse().ok()?)) {
        children.entry(member.parent).or_default().push(member);
    }
    let mut found: Vec<Member> = children.remove(&root).unwrap_or_default();
    let mut at = 0;
    while let Some(parent) = found.get(at) {
        // Taken out, so that ids that were given anew in between lead nowhere twice.
        found.extend(children.remove(&parent.pid).unwrap_or_default());
        at += 1;
    }
    found
}

fn member(pid: i32) -> Option<Member> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, so the fields are read after the last one.
    let (_, fields) = stat.rsplit_once(") ")?;
    let (state, fields) = fields.split_once(' ')?;
    let mut fields = fields.split(' ').map(|field| field.parse().ok().and_then(Pid::from_raw));
    let alive = !matches!(state, "Z" | "X");
    Some(Member { pid: Pid::from_raw(pid)?, alive, parent: fields.next()??, group: fields.next()?? })
}
