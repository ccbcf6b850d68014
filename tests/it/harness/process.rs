//! Processes and sockets as the kernel shows them in `/proc`: who lives, who has which children, how much memory.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// The process ids below `root`, not with it.
pub fn descendants(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(all().filter(|(_, ppid)| *ppid == parent).map(|(pid, _)| pid));
        at += 1;
    }
    found.split_off(1)
}

/// Whether the process is there and no zombie.
pub fn is_alive(pid: u32) -> bool {
    status_of(pid).is_some_and(|(state, _)| state != 'Z')
}

/// Sends a signal to one process; one that has gone is no error.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Memory in use, in bytes (resident set).
pub fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kilobytes * 1024
}

/// Processor time used so far, in clock ticks (hundredths of a second).
pub fn cpu_ticks(pid: u32) -> u64 {
    let Some(fields) = stat_of(pid) else { return 0 };
    let at = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    at(11) + at(12)
}

/// The living processes that were started with exactly this argument.
pub fn with_argument(argument: &str) -> Vec<u32> {
    let has = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes())
    };
    all().map(|(pid, _)| pid).filter(has).filter(|pid| is_alive(*pid)).collect()
}

/// Open file descriptors.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("the process lives").count()
}

/// How many established TCP connections have this local port: the side that listens there.
pub fn established_at(local: u16) -> usize {
    connections(local, 1)
}

/// How many established TCP connections lead to this port: the side that dialled.
pub fn established_to(remote: u16) -> usize {
    connections(remote, 2)
}

fn connections(port: u16, column: usize) -> usize {
    const ESTABLISHED: &str = "01";
    let suffix = format!(":{port:04X}");
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.len() > 3 && fields[column].ends_with(&suffix) && fields[3] == ESTABLISHED)
        .count()
}

fn all() -> impl Iterator<Item = (u32, u32)> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, status_of(pid)?.1)))
}

fn status_of(pid: u32) -> Option<(char, u32)> {
    let fields = stat_of(pid)?;
    Some((fields.first()?.chars().next()?, fields.get(1)?.parse().ok()?))
}

/// What `/proc/PID/stat` says after the command's name, which may hold spaces and brackets: state, parent, …
fn stat_of(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}
