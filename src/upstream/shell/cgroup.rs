//! A cgroup for one shell (cgroups(7), version 2), where the host lets this process make one: its kill meets everything in
//! it at once, also what forks faster than anybody can look (`cgroup.kill`, since Linux 5.14).
//!
//! Elsewhere there is none, and what a shell started is found as the keeper's descendants. Knows nothing of those.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command};

use rustix::process::Pid;

/// Where this process's cgroups and mounts stand.
const OWN: &str = "/proc/self/cgroup";
const MOUNTS: &str = "/proc/self/mountinfo";

/// In every cgroup: whose writers move, and whose writer ends all.
const MEMBERS: &str = "cgroup.procs";
const KILL: &str = "cgroup.kill";

/// The cgroup of what one keeper keeps.
#[derive(Debug)]
pub(super) struct Cgroup {
    dir: PathBuf,
    /// Where the keeper itself belongs.
    home: PathBuf,
}

impl Cgroup {
    /// Makes one below this process's own, for what this keeper keeps; `None` where that is not possible.
    pub(super) fn make(keeper: Pid) -> Option<Self> {
        let new = Self::of(keeper)?;
        // What is left of a keeper that had this id is gone, or in use and not to be touched.
        let _ = fs::remove_dir(&new.dir);
        fs::create_dir(&new.dir).ok()?;
        if fs::exists(new.dir.join(KILL)).unwrap_or(false) {
            return Some(new);
        }
        new.remove();
        None
    }

    /// The one of this keeper, a child of this process or this process itself, whether it was made or not.
    pub(super) fn of(keeper: Pid) -> Option<Self> {
        let home = own(&fs::read_to_string(OWN).ok()?, &fs::read_to_string(MOUNTS).ok()?)?;
        Some(Self { dir: home.join(format!("gatescribe-shell-{}", keeper.as_raw_nonzero())), home })
    }

    /// Starts a program in it. A new process is where its parent is, so this one goes there and comes back.
    pub(super) fn spawn(&self, program: &mut Command) -> Result<io::Result<Child>, NoCgroup> {
        enter(&self.dir).map_err(|_| NoCgroup)?;
        let started = program.spawn();
        match enter(&self.home) {
            Ok(()) => Ok(started),
            // What would end the shell would end its keeper as well.
            Err(_) => {
                if let Ok(mut child) = started {
                    let _ = child.kill();
                    let _ = child.wait();
                }
                Err(NoCgroup)
            }
        }
    }

    /// Ends everything in it.
    pub(super) fn kill(&self) {
        let _ = fs::write(self.dir.join(KILL), "1");
    }

    /// Removes it, if nothing lives in it; whether it is gone.
    pub(super) fn remove(&self) -> bool {
        match fs::remove_dir(&self.dir) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

/// Nothing could be moved there and back.
pub(super) struct NoCgroup;

fn enter(cgroup: &Path) -> io::Result<()> {
    // 0 is who writes, with all its threads.
    fs::write(cgroup.join(MEMBERS), "0")
}

/// The directory of this process's cgroup.
fn own(cgroups: &str, mounts: &str) -> Option<PathBuf> {
    // Hierarchy 0 without controllers is the unified one.
    let path = Path::new(cgroups.lines().find_map(|line| line.strip_prefix("0::"))?);
    let inside = |path: &Path| path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !inside(path) {
        return None;
    }
    mounts.lines().find_map(|line| {
        // Id, parent, device, root, mount point, options and optional fields; then type (proc_pid_mountinfo(5)).
        let (place, kind) = line.split_once(" - ")?;
        kind.split(' ').next().filter(|kind| *kind == "cgroup2")?;
        let mut fields = place.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        // Escapes are for names that nobody gives such a mount.
        let plain = !root.contains('\\') && !point.contains('\\');
        let below = path.strip_prefix(root).ok().filter(|_| plain)?;
        Some(Path::new(point).join(below))
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rustix::process::getpid;

    use super::*;

    #[test]
    fn the_own_cgroup_is_where_the_unified_hierarchy_is_mounted() {
        let mount = |root: &str, point: &str| {
            format!("30 1 0:5 / /proc rw - proc proc rw\n41 31 0:38 {root} {point} rw shared:4 - cgroup2 cgroup2 rw\n")
        };
        let unit = "3:cpu:/x\n0::/system.slice/gate.service\n";
        for (cgroups, mounts, expected) in [
            (unit, mount("/", "/sys/fs/cgroup"), Some("/sys/fs/cgroup/system.slice/gate.service")),
            ("0::/\n", mount("/", "/sys/fs/cgroup/unified"), Some("/sys/fs/cgroup/unified/")),
            (unit, mount("/system.slice", "/mnt"), Some("/mnt/gate.service")),
            (unit, mount("/user.slice", "/mnt"), None),
            (unit, mount("/", "/sys/fs\\040x"), None),
            ("0::/../x\n", mount("/", "/sys/fs/cgroup"), None),
            ("1:cpu:/\n", mount("/", "/sys/fs/cgroup"), None),
            (unit, "41 31 0:38 / /sys/fs/cgroup rw - cgroup cgroup rw\n".into(), None),
            ("", String::new(), None),
        ] {
            assert_eq!(own(cgroups, &mounts), expected.map(PathBuf::from), "{cgroups} {mounts}");
        }
    }

    #[test]
    fn a_program_in_it_is_ended_by_its_kill_and_nobody_else_is() {
        // Whoever may not make one has none, which is no failure.
        let Some(cgroup) = Cgroup::make(getpid()) else { return };
        let mut sleep = Command::new("sleep");
        let Ok(started) = cgroup.spawn(sleep.arg("600")) else {
            assert!(cgroup.remove());
            return;
        };
        let mut child = started.unwrap();
        assert!(!cgroup.remove(), "it is in use");
        cgroup.kill();
        assert!(!child.wait().unwrap().success());
        // The kernel takes a moment longer than who waited for the process.
        let started = Instant::now();
        while !cgroup.remove() && started.elapsed() < Duration::from_secs(5) {
            std::thread::yield_now();
        }
        assert!(cgroup.remove(), "nothing is left to remove");
    }
}
