//! What a user of the built-in shell could get at of what the gateway keeps or believes. Found out by being that user: a
//! process of its own drops to it exactly as a shell would, says who it then is, and tries.
//!
//! Beside that, what only the privileged side can see (`exposed.rs`): who owns a path could open it up, and a group that
//! the shell itself is not in counts too, because the user may be in it elsewhere. That side has the last word, because
//! a process that runs as the user might be made to lie by others that do.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use rustix::fs::{Access, access};
use rustix::process::{DumpableBehavior, getegid, geteuid, getgid, getgroups, getuid, set_dumpable_behavior};
use rustix::thread::{capabilities, no_new_privs};
use serde::{Deserialize, Serialize};

use super::exposed::{self, Who};
use super::lent::{as_user, give_nothing_on};
use super::wire::Places;
use crate::accounts::Account;

/// How something is reached that may be written to.
const WRITTEN: &str = "by writing to it";

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

/// What of these places the user can get at, each with how; `by_being` the user too, or only as seen from outside. An
/// error says why it cannot be told, or why the user cannot be one of the built-in shell at all.
pub(super) fn look(account: &Account, places: &Places, by_being: bool) -> Result<Vec<(PathBuf, String)>, String> {
    let who = Who { uid: account.uid, groups: account.groups() };
    match exposed::program(&who) {
        Ok(None) => {}
        Ok(Some(words)) => return Err(words),
        Err(error) => return Err(format!("the gateway's own program cannot be looked at: {error}")),
    }
    let mut reached = if by_being { reached_by(account, places)? } else { Vec::new() };
    for path in &places.secret {
        note(&mut reached, path, exposed::read(path, &who).map(|how| how.map(str::to_owned)))?;
    }
    for path in places.secret.iter().chain(&places.believed) {
        note(&mut reached, path, exposed::changed(path, &who))?;
    }
    Ok(reached)
}

/// What a process of this user reaches, which must be nobody else.
fn reached_by(account: &Account, places: &Places) -> Result<Vec<(PathBuf, String)>, String> {
    let name = &account.name;
    let report =
        ask(account, places).map_err(|error| format!("the gateway's own program cannot run as {name:?}: {error}"))?;
    if report.users != BTreeSet::from([account.uid]) || report.groups != BTreeSet::from([account.gid]) {
        let words = "what runs as it would keep groups of the gateway's";
        return Err(format!("the gateway cannot become {name:?} altogether: {words}"));
    }
    if report.privileged {
        return Err(format!("what runs as {name:?} would keep capabilities of the gateway's"));
    }
    Ok(report.reached)
}

fn note(to: &mut Vec<(PathBuf, String)>, path: &Path, found: io::Result<Option<String>>) -> Result<(), String> {
    let how = found.map_err(|error| format!("{} cannot be looked at: {error}", path.display()))?;
    to.extend(how.map(|how| (path.to_owned(), how)));
    Ok(())
}

fn ask(account: &Account, places: &Places) -> io::Result<Report> {
    give_nothing_on()?;
    let mut probe = as_user("/proc/self/exe", account);
    probe.args(["shell-host", "--role", "probe"]).current_dir("/");
    let mut child = probe.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&serde_json::to_vec(places)?)?;
    }
    let mut told = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MAX).read_to_end(&mut told)?;
    }
    child.wait()?;
    Ok(serde_json::from_slice(&told)?)
}

/// Runs as that user: reads places from standard input and prints what it finds.
pub fn run() -> ExitCode {
    match report() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn report() -> io::Result<()> {
    // What runs as the user already shall not debug this.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let mut asked = Vec::new();
    io::stdin().take(MAX).read_to_end(&mut asked)?;
    let Places { secret, believed } = serde_json::from_slice(&asked)?;
    let secret = secret.into_iter().filter_map(|path| how(&path).map(|how| (path, how.to_owned())));
    let written = |path: &PathBuf| access(path, Access::WRITE_OK).is_ok();
    let believed = believed.into_iter().filter(written).map(|path| (path, WRITTEN.to_owned()));
    let held = capabilities(None)?;
    let groups = getgroups()?.into_iter().chain([getgid(), getegid()]);
    let report = Report {
        users: [getuid(), geteuid()].map(|user| user.as_raw()).into(),
        groups: groups.map(|group| group.as_raw()).collect(),
        privileged: !held.effective.union(held.permitted).union(held.inheritable).is_empty() || !no_new_privs()?,
        reached: secret.chain(believed).collect(),
    };
    io::stdout().write_all(&serde_json::to_vec(&report)?)
}

/// How this process reaches a path, if at all. For a directory the right to search it is enough.
fn how(path: &Path) -> Option<&'static str> {
    let may = |what| access(path, what).is_ok();
    match () {
        () if may(Access::READ_OK) => Some("by reading it"),
        () if path.is_dir() && may(Access::EXEC_OK) => Some("by searching it"),
        () if may(Access::WRITE_OK) => Some(WRITTEN),
        () => None,
    }
}
