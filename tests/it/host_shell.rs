//! The built-in shell in `serve`: it is another user's, reaches nothing of the gateway's, and nothing of it outlives its
//! channel. Only who may become another user can offer it, so elsewhere the one test is that this is refused.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use gatescribe::record::default_spool;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::issuer::Issuer;
use crate::harness::{Gateway, SOON, Setup, Ssh, eventually, free_port, process, within};

/// Who owns nothing, on any host.
const USER: &str = "nobody";

/// Far more than a kill takes, far less than any timeout that would end the session by itself.
const AT_ONCE: Duration = Duration::from_secs(4);

fn socket(name: &str, user: &str) -> String {
    format!(
        "[[socket]]\nname = \"{name}\"\ntype = \"ssh\"\n[socket.upstream]\nkind = \"shell\"\nusername = \"{user}\"\n\
         shell = \"/bin/sh\"\n"
    )
}

fn may_become_others() -> bool {
    rustix::process::geteuid().is_root()
}

/// A directory that everybody may go into, so that what is closed in it is closed by itself.
fn open_dir() -> TempDir {
    let dir = TempDir::with_prefix("gatescribe-open-").unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    dir
}

/// A gateway with a shell of another user as the socket `host`, unless that cannot be.
async fn gate() -> Option<(TempDir, Gateway, Ssh)> {
    if !may_become_others() {
        return None;
    }
    let dir = open_dir();
    let setup = Setup::new().socket(&socket("host", USER)).data(dir.path().join("data"));
    let gateway = setup.environment("GATESCRIBE_TEST_SECRET", "hunter2").start().await;
    let ssh = gateway.signed_in("alice", "host").await;
    Some((dir, gateway, ssh))
}

/// What `serve` says of this configuration, which it must not start on.
async fn refused(setup: Setup, data: &Path) -> (Option<i32>, String) {
    let dir = TempDir::with_prefix("gatescribe-").unwrap();
    refused_in(dir.path(), env!("CARGO_BIN_EXE_gatescribe"), setup, data).await
}

/// The same, of a file in this directory, and by this copy of the program.
async fn refused_in(dir: &Path, program: &str, setup: Setup, data: &Path) -> (Option<i32>, String) {
    let (https, ssh) = (free_port(), free_port());
    let (config, program) = (dir.join("gatescribe.toml"), program.to_owned());
    let issuer = Issuer::start(https).await;
    fs::write(&config, setup.config(data, &issuer, https, ssh)).unwrap();
    let serve = tokio::task::spawn_blocking(move || {
        let mut command = Command::new("timeout");
        command.args(["30", &program, "serve", "--config"]).arg(&config).output().unwrap()
    });
    let Output { status, stderr, .. } = serve.await.unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

/// The processes of the gateway with this role.
fn of_role(gateway: &Gateway, role: &str) -> Vec<u32> {
    let below = process::descendants(gateway.pid());
    process::with_argument(role).into_iter().filter(|pid| below.contains(pid)).collect()
}

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        found.push(entry.path());
        if entry.file_type().unwrap().is_dir() {
            files_below(&entry.path(), found);
        }
    }
}

#[tokio::test]
async fn who_cannot_become_another_user_says_so() {
    if may_become_others() {
        return;
    }
    let dir = open_dir();
    let (status, words) = refused(Setup::new().socket(&socket("host", USER)), &dir.path().join("data")).await;
    assert_eq!(status, Some(1));
    assert!(words.contains("socket host") && words.contains("CAP_SETUID"), "{words}");
}

/// `setpriv` as somebody without rights, with these capabilities (`+kill,+chown`), for this program.
fn unprivileged<'a>(capabilities: &'a str, program: &'a str) -> Vec<&'a str> {
    let who = ["setpriv", "--reuid=games", "--regid=games", "--clear-groups"];
    let rights = ["--inh-caps", capabilities, "--ambient-caps", capabilities];
    let rights = if capabilities.is_empty() { &[][..] } else { &rights[..] };
    [&who[..], rights, &[program]].concat()
}

/// The program where everybody can run it.
fn program_in(dir: &Path) -> String {
    let program = dir.join("gatescribe");
    let built = env!("CARGO_BIN_EXE_gatescribe");
    fs::hard_link(built, &program).or_else(|_| fs::copy(built, &program).map(drop)).unwrap();
    program.display().to_string()
}

/// The directory of the cgroup that this process is in, if another may be made in it.
fn cgroup() -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].into_iter().map(|mount| Path::new(mount).join(own)).find(|dir| {
        let test = dir.join(format!("gatescribe-test-{}", std::process::id()));
        let made = dir.join("cgroup.procs").exists() && fs::create_dir(&test).is_ok();
        let kills = test.join("cgroup.kill").exists();
        made && fs::remove_dir(&test).is_ok() && kills
    })
}

/// What of `/proc` shows of these processes that another user can read, as this shell finds.
async fn readable_of(ssh: &Ssh, pids: &[u32]) -> String {
    let ask = |pid: &u32| {
        format!(
            "for f in environ mem maps auxv stack syscall pagemap task/{pid}/mem task/{pid}/environ; do \
             head -c 1 /proc/{pid}/$f >/dev/null 2>&1 && echo {pid} $f; done; \
             for d in fd fdinfo map_files cwd root; do ls /proc/{pid}/$d/ >/dev/null 2>&1 && echo {pid} $d; done; "
        )
    };
    let line: String = pids.iter().map(ask).collect();
    ssh.run("host", &format!("{line} true")).await.ok()
}

fn give(path: &Path, user: &str) {
    let given = Command::new("chown").arg("-R").arg(user).arg(path).status().unwrap();
    assert!(given.success());
}

#[tokio::test]
async fn a_gateway_that_is_not_root_needs_capabilities_and_passes_none_on() {
    if !may_become_others() {
        return;
    }
    let dir = open_dir();
    let (data, program) = (dir.path().join("data"), program_in(dir.path()));
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, Permissions::from_mode(0o700)).unwrap();
    give(&data, "games");
    let with = async |capabilities: &str, user: &str| {
        let (https, ssh) = (free_port(), free_port());
        let issuer = Issuer::start(https).await;
        give(&issuer.secret_file(), "games");
        let command = unprivileged(capabilities, &program);
        (Setup::new().socket(&socket("host", user)).data(data.clone()).by_way_of(&command), issuer, https, ssh)
    };
    for (capabilities, user, expected) in [
        ("", USER, "give it CAP_SETUID, CAP_SETGID and CAP_KILL"),
        ("+setuid,+kill", USER, "give it CAP_SETUID, CAP_SETGID and CAP_KILL"),
        ("+setuid,+setgid,+kill", "games", "the gateway itself runs as \"games\""),
    ] {
        let (setup, issuer, https, ssh) = with(capabilities, user).await;
        let config = dir.path().join("refused.toml");
        fs::write(&config, setup.config(&data, &issuer, https, ssh)).unwrap();
        let command = unprivileged(capabilities, &program);
        let mut serve = tokio::process::Command::new("timeout");
        let serve = serve.arg("30").args(&command).args(["serve", "--config"]).arg(&config).output().await.unwrap();
        let words = String::from_utf8(serve.stderr).unwrap();
        assert!(serve.status.code() == Some(1) && words.contains(expected), "{capabilities}: {words}");
    }
    let (setup, issuer, https, ssh) = with("+setuid,+setgid,+kill,+chown", USER).await;
    let mut gateway = setup.start_at(issuer, https, ssh).await;
    let ssh = gateway.signed_in("alice", "host").await;
    let status = ssh.run("host", "id -un; id -G; cat /proc/self/status").await.ok();
    assert!(status.starts_with(USER), "{status}");
    let sets = status.lines().filter(|line| line.starts_with("Cap") && !line.starts_with("CapBnd"));
    assert!(sets.clone().count() == 4 && sets.clone().all(|line| line.ends_with("0000000000000000")), "{status}");
    let mark = format!("994.{}", gateway.pid());
    let mut terminal = ssh.terminal(&["-t", "host@gate"]);
    terminal.send(&format!("echo > $(tty); setsid nohup sleep {mark} >/dev/null 2>&1 & echo ready-$((1+1))\n"));
    terminal.expect("ready-2").await;
    eventually("the sleeper", SOON, async || (process::with_argument(&mark).len() == 1).then_some(())).await;
    let api = gateway.admin().await;
    let row = api.live("host").await;
    let pids = [vec![gateway.pid()], of_role(&gateway, "helper"), of_role(&gateway, "keeper")].concat();
    assert_eq!((pids.len(), readable_of(&ssh, &pids).await), (3, String::new()));
    let killed = api.kill(&row, "enough", AT_ONCE).await;
    assert_eq!(killed.remaining.as_deref(), Some("none"), "{killed:?}");
    assert!(process::with_argument(&mark).is_empty());
    // Removes its spool, which is under a name of its user's.
    assert!(gateway.stop().await.success());
}

#[tokio::test]
async fn a_command_is_another_users_and_has_nothing_of_the_gateways() {
    let Some((_dir, _gateway, ssh)) = gate().await else { return };
    let whole = ssh.run("host", "id -un; id -u; id -g; id -G; umask; pwd").await.ok();
    let lines: Vec<_> = whole.lines().collect();
    let [name, uid, gid, groups, umask, directory] = lines[..] else { panic!("{whole}") };
    assert_eq!((name, groups, umask, directory), (USER, gid, "0022", "/"));
    assert!(uid != "0" && gid != "0", "{whole}");
    let status = ssh.run("host", "cat /proc/self/status").await.ok();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{status}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    // The one descriptor beside the standard ones is the directory that is being listed.
    let open = ssh.run("host", "ls -l /proc/self/fd").await.ok();
    let open: Vec<_> = open.lines().filter(|line| line.contains("->")).collect();
    assert_eq!(open.len(), 4, "{open:#?}");
    assert!(open[..3].iter().all(|line| line.contains("pipe:")) && open[3].ends_with("/fd"), "{open:#?}");
    // Standard streams can be opened by their names too.
    assert_eq!(ssh.run("host", "echo out > /dev/stdout; echo err > /dev/stderr").await.ok(), "out\n");
}

#[tokio::test]
async fn the_environment_is_the_users_and_the_clients_locale() {
    let Some((_dir, gateway, ssh)) = gate().await else { return };
    let sent = ["-o", "SetEnv=LC_TIME=C LD_PRELOAD=/x.so BASH_ENV=/x", "host@gate", "env"];
    let env = ssh.start(&sent).finish(SOON).await.ok();
    let mut names: Vec<_> = env.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    names.sort_unstable();
    // `PWD` and `_` are the shell's own.
    names.retain(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name));
    let sent = ["HOME", "LC_TIME", "LOGNAME", "PATH", "SHELL", "USER"];
    let plain: Vec<_> = names.iter().copied().filter(|name| *name != "LANG" && !name.starts_with("LC_")).collect();
    assert_eq!(plain, sent.into_iter().filter(|name| *name != "LC_TIME").collect::<Vec<_>>(), "{env}");
    assert!(env.contains("LC_TIME=C") && !env.contains("hunter2"), "{env}");
    // No process between the gateway and the shell has its environment either.
    for role in ["helper", "keeper"] {
        for pid in of_role(&gateway, role) {
            let env = String::from_utf8(fs::read(format!("/proc/{pid}/environ")).unwrap()).unwrap();
            let names: Vec<_> = env.split_terminator('\0').filter_map(|line| Some(line.split_once('=')?.0)).collect();
            // These are of a shell that closed descriptors on the way.
            assert!(names.iter().all(|name| ["PWD", "OLDPWD", "SHLVL", "_"].contains(name)), "{role}: {env}");
        }
    }
}

#[tokio::test]
async fn nothing_that_the_gateway_keeps_can_be_read() {
    let Some((dir, gateway, ssh)) = gate().await else { return };
    let mut shell = ssh.start(&["host@gate", "exec sh"]);
    shell.send(b"echo $PPID\n").await;
    let keeper: u32 = shell.receive_line().await.parse().unwrap();
    assert_eq!(of_role(&gateway, "keeper"), [keeper]);
    let helper = of_role(&gateway, "helper");
    assert_eq!(helper.len(), 1);
    let mut kept = vec![gateway.data(), default_spool(&gateway.data())];
    for root in kept.clone() {
        files_below(&root, &mut kept);
    }
    for name in
        ["ssh_user_ca", "ssh_host_ca", "ssh_upstream_ca", "sessions.db", "recording.key", "ca.key", "run", "recordings"]
    {
        assert!(kept.contains(&gateway.data().join(name)), "{name} is missing in {kept:#?}");
    }
    kept.push(gateway.issuer.as_ref().unwrap().secret_file());
    for pid in [gateway.pid(), helper[0], keeper] {
        for name in ["environ", "mem", "root/", "cwd/", "fd/", "maps", "exe"] {
            kept.push(format!("/proc/{pid}/{name}").into());
        }
    }
    // One that can be read shows that the question can be answered with yes.
    let open = dir.path().join("open");
    fs::write(&open, "x").unwrap();
    kept.push(open.clone());
    for path in &kept {
        let path = path.display();
        let ask = format!(
            "if cat '{path}' >/dev/null 2>&1 || ls '{path}'/* >/dev/null 2>&1 || true 2>/dev/null >>'{path}'; \
                           then echo 'yes {path}'; fi\n"
        );
        shell.send(ask.as_bytes()).await;
    }
    for pid in [gateway.pid(), helper[0], keeper] {
        shell.send(format!("kill -9 {pid} 2>/dev/null && echo 'killed {pid}'\n").as_bytes()).await;
    }
    let told = shell.finish(SOON).await;
    let yes = String::from_utf8(told.stdout).unwrap();
    assert_eq!(yes.trim_end(), format!("yes {}", open.display()), "{}", told.stderr);
    assert!(process::is_alive(gateway.pid()) && process::is_alive(helper[0]));
    let mut open = ssh.start(&["host@gate", "echo up; cat"]);
    assert_eq!(open.receive_line().await, "up");
    let one = async || Some(of_role(&gateway, "keeper")).filter(|keepers| keepers.len() == 1);
    let pids = [vec![gateway.pid()], helper, eventually("its keeper alone", SOON, one).await].concat();
    assert_eq!(readable_of(&ssh, &pids).await, "");
}

#[tokio::test]
async fn the_sftp_server_within_sshd_is_the_hosts_own() {
    let Some((_dir, gateway, ssh)) = gate().await else { return };
    let mut files = ssh.start(&["host@gate", "internal-sftp -l QUIET"]);
    // SSH_FXP_INIT, version 3, and what is answered: a packet that says 3 as well, with its extensions behind it.
    files.send(&[0, 0, 0, 5, 1, 0, 0, 0, 3]).await;
    let answer = files.receive(9).await;
    assert_eq!(answer[4..], [2, 0, 0, 0, 3], "{answer:?}");
    let server = of_role(&gateway, "QUIET");
    let [server] = server[..] else { panic!("{server:?}") };
    let line = fs::read_to_string(format!("/proc/{server}/cmdline")).unwrap();
    assert!(line.ends_with("/sftp-server\0-l\0QUIET\0"), "{line}");
    assert_eq!(files.finish(SOON).await.status, Some(0));
    // What stands in front of it is a command for the shell, which knows no such program.
    let other = ssh.run("host", "true; internal-sftp").await;
    assert!(other.stderr.contains("not found"), "{}", other.stderr);
}

#[tokio::test]
async fn a_terminal_is_the_users_own_and_changes_its_size() {
    let Some((_dir, _gateway, ssh)) = gate().await else { return };
    let mut terminal = ssh.terminal(&["-t", "host@gate"]);
    terminal.send("PS1=; echo by name > $(tty) && stat -c owner-%U $(tty); stty size; echo TERM-$TERM\n");
    terminal.expect("by name\r\n").await;
    terminal.expect(&format!("owner-{USER}")).await;
    terminal.expect("24 80").await;
    terminal.expect("TERM-xterm-256color").await;
    terminal.resize(100, 30);
    // The shell is told of a new size as a person at a terminal is.
    terminal.send("until stty size | grep -q '30 100'; do :; done; echo re-sized\n");
    terminal.expect("\nre-sized").await;
    // The foreground is interrupted, and nothing else.
    terminal.send("cat\n");
    terminal.send("twice\n");
    terminal.expect("twice\r\ntwice").await;
    terminal.send("\u{3}");
    terminal.expect("^C").await;
    terminal.send("echo status-$?; exit 7\n");
    terminal.expect("status-130").await;
    assert_eq!(terminal.wait(SOON).await.code(), Some(7));
}

struct Anybody;

impl russh::client::Handler for Anybody {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &russh::keys::PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

/// A client that says what no other does.
async fn client(gateway: &Gateway, ssh: &Ssh) -> russh::client::Handle<Anybody> {
    let config = std::sync::Arc::new(russh::client::Config::default());
    let mut client = russh::client::connect(config, ("127.0.0.1", gateway.ssh), Anybody).await.unwrap();
    let key = std::sync::Arc::new(russh::keys::load_secret_key(ssh.path("id"), None).unwrap());
    let key = russh::keys::PrivateKeyWithHashAlg::new(key, None);
    assert!(client.authenticate_publickey("host", key).await.unwrap().success());
    client
}

#[tokio::test]
async fn a_signal_reaches_what_was_started() {
    let Some((_dir, gateway, ssh)) = gate().await else { return };
    let client = client(&gateway, &ssh).await;
    let mut channel = client.channel_open_session().await.unwrap();
    let line = "trap 'echo caught; exit 3' USR1; echo up; while :; do sleep 0.1; done";
    channel.exec(true, line).await.unwrap();
    let (mut text, mut status) = (Vec::new(), None);
    let all = async {
        while let Some(said) = channel.wait().await {
            match said {
                russh::ChannelMsg::Data { data } => {
                    text.extend_from_slice(&data);
                    if text == b"up\n" {
                        channel.signal(russh::Sig::USR1).await.unwrap();
                    }
                }
                russh::ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
                _ => {}
            }
        }
    };
    within(SOON, "the signal has its effect", all).await;
    assert_eq!((text.as_slice(), status), (&b"up\ncaught\n"[..], Some(3)));
}

#[tokio::test]
async fn a_program_in_the_keepers_group_is_signalled_and_the_keeper_is_not() {
    let Some((_dir, gateway, ssh)) = gate().await else { return };
    let client = client(&gateway, &ssh).await;
    let mut channel = client.channel_open_session().await.unwrap();
    channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
    // What the shell starts is of the keeper's session, so it may join its group and make that the terminal's own.
    let joins = "$SIG{TTOU} = q(IGNORE); $| = 1; $k = getppid; setpgid(0, $k) or die; tcsetpgrp(0, $k) or die; \
                 print qq(joined\\n); sleep 600";
    channel.exec(true, format!("exec perl -MPOSIX -e '{joins}'")).await.unwrap();
    let (mut text, mut by) = (Vec::new(), None);
    let all = async {
        while let Some(said) = channel.wait().await {
            match said {
                russh::ChannelMsg::Data { data } => {
                    text.extend_from_slice(&data);
                    if text.ends_with(b"joined\r\n") {
                        channel.signal(russh::Sig::USR1).await.unwrap();
                    }
                }
                russh::ChannelMsg::ExitSignal { signal_name, .. } => by = Some(signal_name),
                _ => {}
            }
        }
    };
    within(SOON, "the signal has its effect", all).await;
    // A keeper that dies cannot tell of which signal the program did.
    assert!(matches!(by, Some(russh::Sig::USR1)), "{by:?} {}", String::from_utf8_lossy(&text));
}

#[tokio::test]
async fn who_forks_without_end_is_ended_all_the_same() {
    if !may_become_others() {
        return;
    }
    let dir = open_dir();
    // The limit that everybody gets is higher. Whoever has a lower one keeps it.
    let program = ["prlimit", "--nproc=200:200", env!("CARGO_BIN_EXE_gatescribe")];
    let setup = Setup::new().socket(&socket("host", USER)).data(dir.path().join("data")).by_way_of(&program);
    let gateway = setup.start().await;
    let ssh = gateway.signed_in("alice", "host").await;
    let limits = ssh.run("host", "grep '^Max processes' /proc/self/limits").await.ok();
    assert_eq!(limits.split_whitespace().filter(|word| *word == "200").count(), 2, "{limits}");
    let mark = format!("bomb-{}", gateway.pid());
    // Each in a session of its own, away from the shell, and buried by nobody but the kernel.
    let forks = "$SIG{CHLD} = q(IGNORE); while (1) { $child = fork; defined $child ? $child || setsid : \
                 select(undef, undef, undef, 0.01) }";
    let mut running = ssh.start(&["host@gate", &format!("echo up; exec perl -MPOSIX -e '{forks}' {mark}")]);
    assert_eq!(running.receive_line().await, "up");
    eventually("many", SOON, async || (process::with_argument(&mark).len() > 100).then_some(())).await;
    let api = gateway.admin().await;
    let killed = api.kill(&api.live("host").await, "enough", AT_ONCE).await;
    assert_eq!(killed.remaining.as_deref(), Some("none"), "{killed:?}");
    assert_eq!(process::with_argument(&mark), Vec::<u32>::new());
}

#[tokio::test]
async fn a_shell_has_a_cgroup_where_one_can_be_had_and_a_limit_everywhere() {
    let Some((_dir, gateway, ssh)) = gate().await else { return };
    let limits = ssh.run("host", "grep '^Max processes' /proc/self/limits").await.ok();
    let numbers = limits.split_whitespace().filter_map(|word| word.parse().ok());
    assert!(numbers.clone().count() == 2 && numbers.clone().all(|limit: u64| limit <= 4096), "{limits}");
    let Some(own) = cgroup() else { return };
    let mut shell = ssh.start(&["host@gate", "echo $PPID; grep ^0:: /proc/self/cgroup; cat"]);
    let keeper: u32 = shell.receive_line().await.parse().unwrap();
    let inside = shell.receive_line().await;
    let name = format!("gatescribe-shell-{keeper}");
    assert!(inside.ends_with(&format!("/{name}")), "{inside}");
    let dir = own.join(&name);
    assert!(dir.exists());
    let of_keeper = fs::read_to_string(format!("/proc/{keeper}/cgroup")).unwrap();
    assert!(!of_keeper.contains("gatescribe-shell"), "what ends the shell would end the keeper: {of_keeper}");
    assert_eq!(shell.finish(SOON).await.status, Some(0));
    eventually("its cgroup is removed", SOON, async || (!dir.exists()).then_some(())).await;
    // A keeper that was killed removes nothing; the helper does.
    let mut shell = ssh.start(&["host@gate", "echo $PPID; cat"]);
    let keeper: u32 = shell.receive_line().await.parse().unwrap();
    let dir = own.join(format!("gatescribe-shell-{keeper}"));
    assert!(dir.exists() && of_role(&gateway, "keeper").contains(&keeper));
    process::signal(keeper, Signal::KILL);
    eventually("its cgroup is removed", SOON, async || (!dir.exists()).then_some(())).await;
}

#[tokio::test]
async fn what_a_shell_leaves_behind_ends_with_its_channel() {
    let Some((_dir, gateway, ssh)) = gate().await else { return };
    let mark = format!("997.{}", gateway.pid());
    // A daemon as they are made: two forks, a session of its own, no descriptor of the shell's.
    let daemon = "exit if fork; setsid; exit if fork; open(STDOUT, q(>/dev/null)); open(STDERR, q(>/dev/null)); \
                  exec @ARGV";
    let shell = ssh.start(&["host@gate", &format!("perl -MPOSIX -e '{daemon}' sleep {mark}; cat")]);
    eventually("the daemon", SOON, async || (process::with_argument(&mark).len() == 1).then_some(())).await;
    assert_eq!(shell.finish(SOON).await.status, Some(0));
    eventually("the daemon ends", SOON, async || process::with_argument(&mark).is_empty().then_some(())).await;
    // A status, and a signal's name, come through; what was left running does not stay.
    let done = ssh.run("host", &format!("(setsid nohup sleep {mark} >/dev/null 2>&1 &); exit 5")).await;
    assert_eq!(done.status, Some(5), "{done:?}");
    eventually("the sleeper ends", SOON, async || process::with_argument(&mark).is_empty().then_some(())).await;
    eventually("the keeper ends", SOON, async || of_role(&gateway, "keeper").is_empty().then_some(())).await;
    let done = ssh.run("host", "kill -TERM $$").await;
    assert!(done.status != Some(0), "{done:?}");
}

#[tokio::test]
async fn a_kill_ends_what_detached_itself_and_says_that_nothing_remains() {
    let Some((_dir, gateway, ssh)) = gate().await else { return };
    let (mark, mut terminal) = (format!("998.{}", gateway.pid()), ssh.terminal(&["-t", "host@gate"]));
    terminal.send(&format!(
        "kill -9 $PPID; setsid nohup sleep {mark} >/dev/null 2>&1 & sleep {mark} & (setsid sleep {mark} &) ; \
         echo ready-$((1+1))\n"
    ));
    terminal.expect("ready-2").await;
    let sleepers = || process::with_argument(&mark);
    eventually("three sleepers", SOON, async || (sleepers().len() == 3).then_some(())).await;
    let api = gateway.admin().await;
    let row = api.live("host").await;
    assert_eq!(row.sshuser.as_deref(), Some(USER));
    let killed = api.kill(&row, "enough", AT_ONCE).await;
    assert_eq!((killed.remaining.as_deref(), sleepers()), (Some("none"), Vec::new()), "{killed:?}");
}

#[tokio::test]
async fn a_gateway_that_dies_takes_its_shells_along() {
    let Some((_dir, mut gateway, ssh)) = gate().await else { return };
    let mark = format!("996.{}", gateway.pid());
    let mut shell = ssh.start(&["host@gate", &format!("setsid nohup sleep {mark} >/dev/null 2>&1 & echo up; cat")]);
    assert_eq!(shell.receive_line().await, "up");
    eventually("the sleeper", SOON, async || (process::with_argument(&mark).len() == 1).then_some(())).await;
    let of_it = process::descendants(gateway.pid());
    assert!(of_it.len() >= 4, "helper, keeper, shell and sleeper: {of_it:?}");
    gateway.crash();
    let alive = || of_it.iter().copied().filter(|pid| process::is_alive(*pid)).collect::<Vec<_>>();
    eventually("all of it ends", SOON, async || alive().is_empty().then_some(())).await;
    assert!(process::with_argument(&mark).is_empty());
}

#[tokio::test]
async fn what_a_keeper_that_was_killed_kept_is_ended_by_the_helper() {
    let Some((_dir, gateway, ssh)) = gate().await else { return };
    let mark = format!("995.{}", gateway.pid());
    let mut shell = ssh.start(&["host@gate", &format!("setsid nohup sleep {mark} >/dev/null 2>&1 & echo up; cat")]);
    assert_eq!(shell.receive_line().await, "up");
    let mut other = ssh.start(&["host@gate", "cat"]);
    other.send(b"a").await;
    other.receive(1).await;
    eventually("the sleeper", SOON, async || (process::with_argument(&mark).len() == 1).then_some(())).await;
    let keepers = of_role(&gateway, "keeper");
    let its = keepers.iter().find(|keeper| {
        let below = process::descendants(**keeper);
        process::with_argument(&mark).iter().any(|pid| below.contains(pid))
    });
    process::signal(*its.unwrap(), Signal::KILL);
    let done = shell.finish(SOON).await;
    assert_ne!(done.status, Some(0), "{done:?}");
    eventually("the sleeper ends", SOON, async || process::with_argument(&mark).is_empty().then_some(())).await;
    // And nobody else's.
    other.send(b"b").await;
    assert_eq!(other.receive(1).await, b"b");
}

#[tokio::test]
async fn a_shell_goes_on_across_an_upgrade_and_a_new_one_has_a_new_helper() {
    let Some((_dir, gateway, ssh)) = gate().await else { return };
    let mut before = ssh.start(&["host@gate", "cat"]);
    before.send(b"a").await;
    before.receive(1).await;
    let first = of_role(&gateway, "helper");
    process::signal(gateway.pid(), Signal::USR2);
    let readies = || gateway.stdout().iter().filter(|line| *line == "ready").count();
    eventually("the new process is ready", SOON, async || (readies() == 2).then_some(())).await;
    let both = of_role(&gateway, "helper");
    assert_eq!(both.len(), 2, "{first:?} then {both:?}");
    let config = gateway.config_file().display().to_string();
    assert_eq!(ssh.run("host", "id -un").await.ok().trim_end(), USER);
    before.send(b"b").await;
    assert_eq!(before.receive(1).await, b"b");
    assert_eq!(before.finish(SOON).await.status, Some(0));
    // With its last session the old process ends, and its helper with it.
    let old = first[0];
    eventually("the old helper ends", SOON, async || (!process::is_alive(old)).then_some(())).await;
    assert_eq!(ssh.run("host", "id -un").await.ok().trim_end(), USER);
    process::with_argument(&config).into_iter().for_each(|pid| process::signal(pid, Signal::KILL));
}

#[tokio::test]
async fn a_user_of_a_changed_file_waits_for_a_restart() {
    let Some((_dir, gateway, ssh)) = gate().await else { return };
    let mut file = fs::read_to_string(gateway.config_file()).unwrap();
    file += &socket("more", "games");
    file += &socket("again", USER);
    fs::write(gateway.config_file(), file).unwrap();
    gateway.log_with("`username` of socket more").await;
    assert_eq!(ssh.run("again", "id -un").await.ok().trim_end(), USER);
    let done = ssh.run("more", "id -un").await;
    assert!(done.refusal().contains("configured after the gateway started"), "{done:?}");
    assert!(!gateway.log().contains("of socket again"));
}

#[tokio::test]
async fn who_could_reach_what_the_gateway_keeps_gets_no_shell() {
    if !may_become_others() {
        return;
    }
    let dir = open_dir();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    let host = || Setup::new().socket(&socket("host", USER));
    for (mode, expected) in [(0o744, "by reading it"), (0o711, "by searching it")] {
        fs::set_permissions(&data, Permissions::from_mode(mode)).unwrap();
        let (status, words) = refused(host(), &data).await;
        assert_eq!(status, Some(1), "{words}");
        assert!(words.contains("socket host: ") && words.contains(expected), "{mode:o}: {words}");
        assert!(words.contains(&data.display().to_string()), "{words}");
    }
    let nobody = rustix::fs::Uid::from_raw(65534);
    fs::set_permissions(&data, Permissions::from_mode(0o700)).unwrap();
    rustix::fs::chown(&data, Some(nobody), None).unwrap();
    let (_, words) = refused(host(), &data).await;
    assert!(words.contains("could get at"), "{words}");
    rustix::fs::chown(&data, Some(rustix::fs::Uid::ROOT), None).unwrap();
    // A secret elsewhere counts as much.
    let key = dir.path().join("key");
    fs::write(&key, "0123456789abcdef".repeat(4)).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let (_, words) = refused(host().recording(&format!("key = \"file:{}\"", key.display())), &data).await;
    assert!(words.contains(&format!("{} by reading it", key.display())), "{words}");
}

#[tokio::test]
async fn who_could_change_what_the_gateway_believes_gets_no_shell() {
    if !may_become_others() {
        return;
    }
    let dir = open_dir();
    let (data, place) = (dir.path().join("data"), dir.path().join("etc"));
    fs::create_dir(&place).unwrap();
    let mode = |path: &Path, mode: u32| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let built = env!("CARGO_BIN_EXE_gatescribe");
    let known = dir.path().join("known_hosts");
    let host = || Setup::new().socket(&socket("host", USER));
    let other = format!(
        "[[socket]]\nname = \"other\"\ntype = \"ssh\"\n[socket.upstream]\naddress = \"127.0.0.1:9\"\n\
         username = \"x\"\ncertificate = true\nknown_hosts = \"{}\"\n",
        known.display()
    );
    let assert_refused = |told: (Option<i32>, String), expected: &[&str]| {
        let (status, words) = told;
        assert_eq!(status, Some(1), "{words}");
        assert!(words.contains("socket host: ") && expected.iter().all(|part| words.contains(part)), "{words}");
    };
    let shown = place.display().to_string();
    // The configuration: its directory, and a link on the way to it.
    mode(&place, 0o757);
    assert_refused(refused_in(&place, built, host(), &data).await, &["gatescribe.toml", "in the directory", &shown]);
    mode(&place, 0o755);
    let link = dir.path().join("open");
    fs::create_dir(&link).unwrap();
    mode(&link, 0o777);
    std::os::unix::fs::symlink(&place, link.join("etc")).unwrap();
    let linked = link.join("etc");
    let told = refused_in(&linked, built, host(), &data).await;
    assert_refused(told, &["gatescribe.toml", "in the directory", link.to_str().unwrap()]);
    // A server's keys.
    fs::write(&known, "127.0.0.1 ssh-ed25519 AAAA\n").unwrap();
    mode(&known, 0o646);
    let told = refused_in(&place, built, host().socket(&other), &data).await;
    assert_refused(told, &[known.to_str().unwrap(), "by writing to it"]);
    // The program: where it is, and what it gives to whoever runs it.
    mode(&link, 0o755);
    let program = link.join("gatescribe");
    fs::copy(built, &program).unwrap();
    let program = program.display().to_string();
    let told = async || refused_in(&place, &program, host(), &data).await;
    mode(&link, 0o777);
    assert_refused(told().await, &["the gateway's program", "in the directory"]);
    mode(&link, 0o755);
    mode(Path::new(&program), 0o4755);
    assert_refused(told().await, &["set-user-ID"]);
    mode(Path::new(&program), 0o755);
    // CAP_NET_BIND_SERVICE, as `setcap` writes it (linux/capability.h, revision 2).
    let capability = [&0x0200_0001u32.to_le_bytes()[..], &(1u32 << 10).to_le_bytes(), &[0; 12]].concat();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(Path::new(&program), "security.capability", &capability, flags).unwrap();
    assert_refused(told().await, &["file capabilities"]);
}

#[tokio::test]
async fn a_changed_file_that_others_could_change_is_not_taken() {
    let Some((_dir, mut gateway, ssh)) = gate().await else { return };
    gateway.expect_errors();
    let config = gateway.config_file();
    let mode = |mode: u32| fs::set_permissions(&config, Permissions::from_mode(mode)).unwrap();
    mode(0o646);
    let mut file = fs::read_to_string(&config).unwrap();
    file += &socket("again", USER);
    fs::write(&config, file).unwrap();
    let log = gateway.log_with("the configuration file was not taken").await;
    assert!(log.contains("socket again: ") || log.contains("socket host: "), "{log}");
    assert!(log.contains("gatescribe.toml by writing to it"), "{log}");
    assert_ne!(ssh.run("again", "true").await.status, Some(0));
    // Closing it is a change too.
    mode(0o644);
    gateway.log_with("the configuration file was read again").await;
    assert_eq!(ssh.run("again", "id -un").await.ok().trim_end(), USER);
}

#[tokio::test]
async fn root_and_nobody_at_all_are_mistakes_of_the_file() {
    let dir = open_dir();
    for (user, expected) in [("root", "is root"), ("no-such-user", "this host has no user")] {
        let (status, words) = refused(Setup::new().socket(&socket("host", user)), dir.path()).await;
        assert_eq!(status, Some(2), "{words}");
        let line = words.lines().next().unwrap();
        assert!(line.contains(expected) && line.contains(".toml:"), "{words}");
    }
}

#[tokio::test]
async fn what_the_gateway_was_started_with_open_is_not_open_in_a_shell() {
    if !may_become_others() {
        return;
    }
    let dir = open_dir();
    let config = dir.path().join("gatescribe.toml");
    let (https, port) = (free_port(), free_port());
    let setup = Setup::new().socket(&socket("host", USER));
    let issuer = Issuer::start(https).await;
    fs::write(&config, setup.config(&dir.path().join("data"), &issuer, https, port)).unwrap();
    let serve = |redirection: &str| {
        let line = format!("exec timeout 30 \"$0\" serve --config \"$1\" {redirection}");
        let mut command = tokio::process::Command::new("bash");
        command.args(["-c", &line, env!("CARGO_BIN_EXE_gatescribe")]).arg(&config).kill_on_drop(true);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let foreign = dir.path().join("foreign");
    fs::write(&foreign, "").unwrap();
    let foreign = foreign.display().to_string();
    let running = serve(&format!("5<{foreign} 37<{foreign}"));
    let gateway = running.id().unwrap();
    let helper = eventually("the helper", SOON, async || {
        let below = process::descendants(gateway);
        process::with_argument("helper").into_iter().find(|pid| below.contains(pid))
    })
    .await;
    let open = |pid: u32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        open.filter_map(|fd| Some(fs::read_link(fd.path()).ok()?.display().to_string())).collect::<Vec<_>>()
    };
    let program = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let is_itself = async || (program(helper).file_name()? != "bash").then_some(());
    eventually("the shell has become the helper", SOON, is_itself).await;
    let parent = process::descendants(gateway).into_iter().find(|pid| open(*pid).contains(&foreign));
    assert!(parent.is_some(), "the gateway has it still");
    assert!(!open(helper).contains(&foreign), "{:?}", open(helper));
    process::descendants(gateway).into_iter().for_each(|pid| process::signal(pid, Signal::KILL));
}
