//! A keeper that the gateway's helper started: it becomes what its line orders, a shell of another user or a look at what
//! that user could reach.
//!
//! The keeper itself stays who the gateway is, so that nobody in the shell can trace, stop or kill it. What it starts has
//! that user's id and primary group, no supplementary groups, no capabilities, and no way to more (`no_new_privs`): sudo
//! and other set-user-ID programs do not raise it. It becomes nobody whom the helper was not started for.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Gid, Mode, OFlags, Uid, fchown};
use rustix::process::{
    DumpableBehavior, Pid, Resource, Rlimit, geteuid, getpid, getrlimit, set_dumpable_behavior, setrlimit, umask,
};
use rustix::thread::{CapabilitySet, capabilities, clear_ambient_capability_set, set_capabilities, set_no_new_privs};

use super::keeper::{self, Ending, signal_below};
use super::probe;
use super::signal_called;
use super::wire::{self, Answer, Line, Order, Start, What};
use crate::accounts::Account;

/// How long the first order may take: it was sent before this process was asked for.
const ORDER_WITHIN: Duration = Duration::from_secs(10);

/// How long an answer may wait for the gateway.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Most processes and threads that one user may have at a time, in all its shells and whatever else there is of it: a
/// fork bomb ends there.
const MOST_PROCESSES: u64 = 4096;

/// Where programs are looked for, as sshd has it for users.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/games";

/// Becomes what the line at standard input orders, for one of these users. Comes back only when it could not.
pub fn run(users: &[String]) -> io::Result<Infallible> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let mut line = Line::new(take_line()?);
    line.stream().set_read_timeout(Some(ORDER_WITHIN))?;
    line.stream().set_write_timeout(Some(ANSWER_WITHIN))?;
    let (order, files) = line.hear()?;
    let answers = line.stream().try_clone()?;
    let refused = match order {
        Order::Start(start) => match admitted(&start.user, users) {
            Ok(account) => begin(line, &account, start, files).map(drop).err().map(|error| error.to_string()),
            Err(words) => Some(words),
        },
        Order::Probe { user, places, by_being } => {
            let reached = admitted(&user, users).and_then(|account| probe::look(&account, &places, by_being));
            match reached {
                Ok(reached) => {
                    wire::say(&answers, &Answer::Found { reached })?;
                    None
                }
                Err(words) => Some(words),
            }
        }
        Order::Signal { .. } | Order::End => None,
    };
    if let Some(words) = refused {
        wire::say(&answers, &Answer::Refused { words })?;
    }
    std::process::exit(0)
}

/// The socket at standard input, which makes room for nothing: no child shall have it.
pub(super) fn take_line() -> io::Result<UnixStream> {
    let line = io::stdin().as_fd().try_clone_to_owned()?;
    let nothing = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&nothing)?;
    Ok(UnixStream::from(line))
}

/// The user, if the helper was started for that name, nobody's privileges come with it, and this process can become it.
fn admitted(user: &str, users: &[String]) -> Result<Account, String> {
    if !users.iter().any(|name| name == user) {
        return Err(format!("{user:?} was configured after the gateway started; restart it, or upgrade it"));
    }
    let needed = CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::KILL;
    let able = capabilities(None).is_ok_and(|held| held.effective.contains(needed));
    let account = Account::find(user).and_then(|account| account.unprivileged(geteuid().as_raw()));
    match (account, able) {
        (Err(error), _) => Err(error.to_string()),
        (Ok(_), false) => Err("the gateway cannot become another user; run it as root, or give it CAP_SETUID, \
                               CAP_SETGID and CAP_KILL"
            .into()),
        (Ok(account), true) => Ok(account),
    }
}

/// Has whatever this thread starts from now on keep nothing of what this process may: not across exec(2) either.
pub(super) fn give_nothing_on() -> io::Result<()> {
    set_no_new_privs(true)?;
    // Root's fall with its id; those of a gateway that is not root would pass to its children (capabilities(7)).
    clear_ambient_capability_set()?;
    let held = capabilities(None)?;
    let nothing = rustix::thread::CapabilitySets { inheritable: CapabilitySet::empty(), ..held };
    Ok(set_capabilities(None, nothing)?)
}

/// Limits what this process starts; a limit that it has already stays.
fn limit_processes() -> io::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nproc);
    let most = |limit: Option<u64>| Some(limit.map_or(MOST_PROCESSES, |limit| limit.min(MOST_PROCESSES)));
    Ok(setrlimit(Resource::Nproc, Rlimit { current: most(current), maximum: most(maximum) })?)
}

/// A program as this user: user, primary group and, because the user is set, no other group (std drops them).
pub(super) fn as_user(program: impl AsRef<OsStr>, account: &Account) -> Command {
    let mut command = Command::new(program);
    command.uid(account.uid).gid(account.gid).env_clear();
    command
}

fn begin(mut line: Line, account: &Account, start: Start, files: Vec<OwnedFd>) -> io::Result<Infallible> {
    give_nothing_on()?;
    limit_processes()?;
    // What the gateway makes is private; what its users make is as on any host.
    umask(Mode::from_raw_mode(0o022));
    let terminal = start.term.is_some();
    let [stdin, stdout, stderr]: [OwnedFd; wire::FILES] =
        files.try_into().map_err(|_| io::Error::other("descriptors are missing"))?;
    let controlling = terminal.then(|| stdin.try_clone()).transpose()?;
    for file in [&stdin, &stdout, &stderr] {
        // So that the user can open them by name too, as `/dev/stderr` or `/dev/pts/7`. Without CAP_CHOWN they only
        // have what they were given.
        let group = (!terminal).then(|| Gid::from_raw(account.gid));
        let _ = fchown(file, Some(Uid::from_raw(account.uid)), group);
    }
    let mut program = program(account, &start);
    program.stdin(Stdio::from(stdin)).stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr));
    let answers = line.stream().try_clone()?;
    let ending = Arc::new(Ending::told_on(line.stream().try_clone()?));
    let watching = ending.clone();
    // Only once it has started: an order to end meets all of it, or the lock on starting.
    line.stream().set_read_timeout(None)?;
    std::thread::spawn(move || {
        while let Ok((order, _)) = line.hear() {
            match order {
                Order::Signal { name, group } => {
                    let group = group.and_then(Pid::from_raw).or(watching.started());
                    if let Some(signal) = signal_called(&name) {
                        signal_below(getpid(), group, signal);
                    }
                }
                _ => break,
            }
        }
        watching.end_all();
    });
    keeper::keep(program, controlling, ending, || {
        let _ = wire::say(&answers, &Answer::Started);
    })
}

fn program(account: &Account, start: &Start) -> Command {
    let shell = start.shell.as_deref().unwrap_or(&account.shell);
    let name = shell.file_name().unwrap_or(OsStr::new("sh"));
    let mut command = match &start.program {
        What::File(path, _) => as_user(path, account),
        What::Login | What::Command(_) => as_user(shell, account),
    };
    match &start.program {
        What::Login => {
            // A leading dash in its name makes a shell a login shell.
            let mut login = OsString::from("-");
            login.push(name);
            command.arg0(login);
        }
        What::Command(words) => {
            command.arg0(name).arg("-c").arg(OsStr::from_bytes(words));
        }
        What::File(_, arguments) => {
            command.args(arguments);
        }
    }
    command.current_dir(&account.home);
    environment(&mut command, account, shell, start);
    command
}

/// Who one is and where one lives, the terminal, and of the client's wishes the locale. Nothing of the gateway's.
fn environment(command: &mut Command, account: &Account, shell: &Path, start: &Start) {
    command.env("HOME", &account.home).env("SHELL", shell).env("PATH", PATH);
    command.env("USER", &account.name).env("LOGNAME", &account.name);
    for (name, value) in start.env.iter().filter(|(name, _)| super::is_locale(name)) {
        command.env(name, value);
    }
    if let Some(term) = &start.term {
        command.env("TERM", term);
    }
}

/// Where the host's SFTP server may be, by distribution.
const SFTP_SERVERS: [&str; 4] = [
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/libexec/sftp-server",
    "/usr/lib/ssh/sftp-server",
];

/// The host's own SFTP server.
pub(super) fn sftp_server() -> Option<&'static Path> {
    SFTP_SERVERS.iter().map(Path::new).find(|path| path.exists())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn account() -> Account {
        Account { name: "u".into(), uid: 7, gid: 8, home: PathBuf::from("/home/u"), shell: PathBuf::from("/bin/zsh") }
    }

    fn start(program: What) -> Start {
        let env = [("LANG", "C"), ("LC_ALL", "C"), ("LD_PRELOAD", "/x"), ("PATH", "/x"), ("LC", "x")];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Start { user: "u".into(), shell: None, program, term: Some("vt100".into()), env }
    }

    #[test]
    fn the_environment_holds_who_one_is_and_the_locale_only() {
        let command = program(&account(), &start(What::Login));
        let env: Vec<_> = command.get_envs().map(|(name, value)| format!("{name:?}={:?}", value.unwrap())).collect();
        let expected = [
            ("HOME", "/home/u"),
            ("LANG", "C"),
            ("LC_ALL", "C"),
            ("LOGNAME", "u"),
            ("PATH", PATH),
            ("SHELL", "/bin/zsh"),
            ("TERM", "vt100"),
            ("USER", "u"),
        ];
        assert_eq!(env, expected.map(|(name, value)| format!("{name:?}={value:?}")));
    }

    #[test]
    fn the_sockets_shell_goes_before_the_users_own() {
        let own = program(&account(), &start(What::Command(b"id".to_vec())));
        assert_eq!(own.get_program(), "/bin/zsh");
        let configured = Start { shell: Some("/bin/sh".into()), ..start(What::Command(b"id".to_vec())) };
        let command = program(&account(), &configured);
        assert_eq!(command.get_program(), "/bin/sh");
        assert_eq!(command.get_args().collect::<Vec<_>>(), ["-c", "id"]);
        let command = program(&account(), &start(What::File("/x/sftp".into(), vec!["-R".into()])));
        assert_eq!(command.get_program(), "/x/sftp");
        assert_eq!(command.get_args().collect::<Vec<_>>(), ["-R"]);
    }

    #[test]
    fn nobody_is_admitted_whom_the_helper_was_not_started_for() {
        let words = admitted("daemon", &["games".into()]).unwrap_err();
        assert!(words.contains("after the gateway started"), "{words}");
        let words = admitted("root", &["root".into()]).unwrap_err();
        assert!(words.contains("root"), "{words}");
        assert!(admitted("no-such-user", &["no-such-user".into()]).unwrap_err().contains("no user"));
    }
}
