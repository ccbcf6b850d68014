//! What a user of the built-in shell could reach of what the gateway keeps. Found out by being that user: a process of its
//! own drops to it exactly as a shell would, says who it then is, and tries.
//!
//! Beside that, what only the privileged side can see: who owns a path could open it up, and a group that the shell
//! itself is not in counts too, because the user may be in it elsewhere.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use rustix::fs::{Access, access};
use rustix::process::{getegid, geteuid, getgid, getgroups, getuid};
use rustix::thread::{capabilities, no_new_privs};
use serde::{Deserialize, Serialize};

use super::lent::{as_user, give_nothing_on};
use crate::accounts::Account;

/// Most bytes of a question or an answer.
const MAX: u64 = 1 << 20;

/// What the process that became the user says.
#[derive(Debug, Serialize, Deserialize)]
struct Report {
    users: BTreeSet<u32>,
    groups: BTreeSet<u32>,
    privileged: bool,
    reached: Vec<(PathBuf, String)>,
}

/// What of these paths the user can reach, each with how. An error says why it cannot be told, or why the user cannot be
/// one of the built-in shell at all.
pub(super) fn look(account: &Account, paths: &[PathBuf]) -> Result<Vec<(PathBuf, String)>, String> {
    let name = &account.name;
    let report =
        ask(account, paths).map_err(|error| format!("the gateway's own program cannot run as {name:?}: {error}"))?;
    if report.users != BTreeSet::from([account.uid]) || report.groups != BTreeSet::from([account.gid]) {
        let words = "what runs as it would keep groups of the gateway's";
        return Err(format!("the gateway cannot become {name:?} altogether: {words}"));
    }
    if report.privileged {
        return Err(format!("what runs as {name:?} would keep capabilities of the gateway's"));
    }
    let groups = account.groups();
    let seen = paths.iter().filter_map(|path| Some((path.clone(), by_mode(path, account.uid, &groups)?.to_owned())));
    Ok(report.reached.into_iter().chain(seen).collect())
}

fn by_mode(path: &Path, uid: u32, groups: &[u32]) -> Option<&'static str> {
    let about = std::fs::metadata(path).ok()?;
    match () {
        () if about.uid() == uid => Some("as its owner"),
        () if about.mode() & 0o070 != 0 && groups.contains(&about.gid()) => Some("by its group"),
        () => None,
    }
}

fn ask(account: &Account, paths: &[PathBuf]) -> io::Result<Report> {
    give_nothing_on()?;
    let mut probe = as_user("/proc/self/exe", account);
    probe.args(["shell-host", "--role", "probe"]).current_dir("/");
    let mut child = probe.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&serde_json::to_vec(paths)?)?;
    }
    let mut told = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MAX).read_to_end(&mut told)?;
    }
    child.wait()?;
    Ok(serde_json::from_slice(&told)?)
}

/// Runs as that user: reads paths from standard input and prints what it finds.
pub fn run() -> ExitCode {
    match report() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn report() -> io::Result<()> {
    let mut asked = Vec::new();
    io::stdin().take(MAX).read_to_end(&mut asked)?;
    let paths: Vec<PathBuf> = serde_json::from_slice(&asked)?;
    let held = capabilities(None)?;
    let groups = getgroups()?.into_iter().chain([getgid(), getegid()]);
    let report = Report {
        users: [getuid(), geteuid()].map(|user| user.as_raw()).into(),
        groups: groups.map(|group| group.as_raw()).collect(),
        privileged: !held.effective.union(held.permitted).union(held.inheritable).is_empty() || !no_new_privs()?,
        reached: paths.into_iter().filter_map(|path| how(&path).map(|how| (path, how.to_owned()))).collect(),
    };
    io::stdout().write_all(&serde_json::to_vec(&report)?)
}

/// How this process reaches a path, if at all. For a directory the right to search it is enough.
fn how(path: &Path) -> Option<&'static str> {
    let may = |what| access(path, what).is_ok();
    match () {
        () if may(Access::READ_OK) => Some("by reading it"),
        () if path.is_dir() && may(Access::EXEC_OK) => Some("by searching it"),
        () if may(Access::WRITE_OK) => Some("by writing to it"),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_owner_and_a_group_reach_what_their_shell_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let about = fs::metadata(dir.path()).unwrap();
        let (uid, gid) = (about.uid(), about.gid());
        for (mode, who, groups, expected) in [
            (0o700, uid, vec![], Some("as its owner")),
            (0o000, uid, vec![], Some("as its owner")),
            (0o700, uid + 1, vec![gid], None),
            (0o710, uid + 1, vec![gid + 1, gid], Some("by its group")),
            (0o770, uid + 1, vec![gid + 1], None),
        ] {
            fs::set_permissions(dir.path(), Permissions::from_mode(mode)).unwrap();
            assert_eq!(by_mode(dir.path(), who, &groups), expected, "{mode:o}");
        }
        fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
    }
}
