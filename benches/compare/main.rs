//! The comparison: direct, by `ssh -J` through a plain sshd, through the gateway with recording on and off; in turn, in
//! one run, medians, ratios. Real servers and the stock client, on loopback, from one directory that goes away.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a program for developers, which may stop")]

mod files;
#[allow(dead_code, unused_imports, reason = "the tests use the rest of it")]
#[path = "../../tests/it/harness/mod.rs"]
mod harness;
mod wan;

use std::fs;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::{Gateway, SOON, Setup, Ssh, Sshd, eventually, process};
use wan::Line;

/// No single measurement takes longer.
const LIMIT: Duration = Duration::from_secs(300);
const CIPHERS: [&str; 2] = ["chacha20-poly1305@openssh.com", "aes256-gcm@openssh.com"];
/// Half of the long line's round trip.
const HALF: Duration = Duration::from_millis(15);
/// The ways to the target, in the order they take turns.
const WAYS: [&str; 4] = ["direct", "ssh -J", "recorded", "unrecorded"];

struct Options {
    runs: usize,
    bytes: u64,
    sessions: usize,
    /// The one file, how many small ones, what goes over the long line, and what to the slow upstream.
    file_bytes: usize,
    files: usize,
    wan_bytes: usize,
    slow_bytes: usize,
    /// What the slow upstream takes, in bytes per second.
    slow_rate: u64,
    only: Option<String>,
}

/// Everything that is running.
struct Bench {
    gateway: Gateway,
    ssh: Ssh,
    data: PathBuf,
    target: Sshd,
    _jump: Sshd,
    _lines: Vec<Line>,
}

/// What one measurement took: seconds, and seconds of the gateway's processor time.
#[derive(Clone, Copy)]
struct Took {
    wall: f64,
    cpu: f64,
}

#[tokio::main]
async fn main() {
    let options = Options::read();
    let bench = Bench::start(&options).await;
    println!("runs {}, bytes {}, sessions {}; medians", options.runs, options.bytes, options.sessions);
    if options.wants("q1") {
        bench.bulk(&options).await;
    }
    if options.wants("q2") {
        bench.logins(&options).await;
    }
    if options.wants("q12") {
        bench.kills(&options).await;
    }
    if options.wants("q4") {
        bench.copies(&options).await;
    }
    if options.wants("wan") {
        bench.far(&options).await;
    }
    if options.wants("slow") {
        bench.slow(&options).await;
    }
}

impl Options {
    fn read() -> Self {
        let mut options = Self {
            runs: 5,
            bytes: 524_288_000,
            sessions: 200,
            file_bytes: 1_000_000_000,
            files: 2000,
            wan_bytes: 200_000_000,
            slow_bytes: 1_000_000_000,
            slow_rate: 20_000_000,
            only: None,
        };
        let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
        while let Some(word) = words.next() {
            let value = words.next().unwrap_or_else(|| panic!("{word} needs a value"));
            match word.as_str() {
                "--runs" => options.runs = value.parse().expect("a number"),
                "--bytes" => options.bytes = value.parse().expect("a number"),
                "--sessions" => options.sessions = value.parse().expect("a number"),
                "--file-bytes" => options.file_bytes = value.parse().expect("a number"),
                "--files" => options.files = value.parse().expect("a number"),
                "--wan-bytes" => options.wan_bytes = value.parse().expect("a number"),
                "--slow-bytes" => options.slow_bytes = value.parse().expect("a number"),
                "--slow-rate" => options.slow_rate = value.parse().expect("a number"),
                "--only" => options.only = Some(value),
                _ => panic!("unknown option {word}; see benches/run"),
            }
        }
        options
    }

    fn wants(&self, case: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.split(',').any(|name| name == case))
    }
}

impl Bench {
    async fn start(options: &Options) -> Self {
        let (target, jump) = (Sshd::start().await, Sshd::start().await);
        let (far, slow) = (
            Line::start(target.port, HALF, None).await,
            Line::start(target.port, Duration::ZERO, Some(options.slow_rate)).await,
        );
        let by = |setup: Setup, name, line: &Line| {
            setup.upstream(name, "", &line.address(), &target.login_key(), &target.host_fingerprint())
        };
        let setup = Setup::new().ssh("recorded", &target).ssh_with("unrecorded", &target, "record = false");
        let setup = by(by(setup, "far", &far), "slow", &slow);
        let gateway = setup.more("[limits]\nconnections_per_address = 5000\nconnections_per_minute = 1000000\nsessions_per_user = 100000").start().await;
        let ssh = gateway.signed_in("alice", "recorded").await;
        let (far_jump, far_gate) =
            (Line::start(jump.port, HALF, None).await, Line::start(gateway.ssh, HALF, None).await);
        let hosts = [
            ("target", target.port, Some(&target), "target"),
            ("target-far", far.port, Some(&target), "target"),
            ("jump", jump.port, Some(&jump), "jump"),
            ("jump-far", far_jump.port, Some(&jump), "jump"),
            ("gate-far", far_gate.port, None, "gate"),
        ];
        for (name, port, sshd, alias) in hosts {
            let (key, user) = match sshd {
                Some(sshd) => (sshd.login_key(), harness::gateway::whoami()),
                None => (ssh.path("id"), "recorded".to_owned()),
            };
            let host = format!(
                "Host {name}\nHostName 127.0.0.1\nPort {port}\nHostKeyAlias {alias}\nIdentityFile {}\nIdentitiesOnly yes\n\
                 StrictHostKeyChecking accept-new\nUserKnownHostsFile {}\nUser {user}\n",
                key.display(),
                ssh.path("known_hosts").display(),
            );
            let config = fs::read_to_string(ssh.path("config")).unwrap();
            fs::write(ssh.path("config"), format!("{config}{host}")).unwrap();
        }
        let data = target.path("data");
        fs::write(&data, harness::noise(1, usize::try_from(options.bytes).unwrap())).unwrap();
        let bench = Self { gateway, ssh, data, target, _jump: jump, _lines: vec![far, slow, far_jump, far_gate] };
        // Learns the host keys, and warms everything up once.
        for way in WAYS {
            bench.once(way, CIPHERS[0], "true", None).await;
        }
        for way in files::FAR {
            bench.once(way, CIPHERS[0], "true", None).await;
        }
        bench
    }

    /// Q1 and Q10.
    async fn bulk(&self, options: &Options) {
        println!(
            "\n| Q1, Q10: {} MB | {} | recorded : -J | recorded : unrecorded | gateway CPU s |",
            options.bytes / 1_000_000,
            WAYS.join(" | ")
        );
        println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
        for cipher in CIPHERS {
            for upload in [false, true] {
                let file = self.data.display().to_string();
                let (command, input) = match upload {
                    true => ("cat > /dev/null".to_owned(), Some(self.data.clone())),
                    false => (format!("cat {file}"), None),
                };
                let took = self
                    .in_turn(WAYS, options.runs, async |way| self.once(way, cipher, &command, input.clone()).await)
                    .await;
                let rate = took.map(|t| format!("{:.0} MB/s", options.bytes as f64 / 1e6 / t.wall));
                let name = if upload { "upload" } else { "download" };
                let short = cipher.split('-').next().unwrap();
                println!(
                    "| {name}, {short} | {} | {:.2} | {:.2} | {:.2} / {:.2} |",
                    rate.join(" | "),
                    took[1].wall / took[2].wall,
                    took[3].wall / took[2].wall,
                    took[2].cpu,
                    took[3].cpu
                );
            }
        }
    }

    /// Q2: a login and `true`, five at a time so that one is not all noise.
    async fn logins(&self, options: &Options) {
        const EACH: u32 = 5;
        println!("\n| Q2: login + true | {} | recorded : -J (goal: at most 1) | gateway CPU s |", WAYS.join(" | "));
        println!("| --- | --- | --- | --- | --- | --- | --- |");
        let took = self
            .in_turn(WAYS, options.runs, async |way| {
                let mut sum = Took { wall: 0.0, cpu: 0.0 };
                for _ in 0..EACH {
                    let one = self.once(way, CIPHERS[0], "true", None).await;
                    sum = Took { wall: sum.wall + one.wall, cpu: sum.cpu + one.cpu };
                }
                Took { wall: sum.wall / f64::from(EACH), cpu: sum.cpu / f64::from(EACH) }
            })
            .await;
        let shown = took.map(|t| format!("{:.0} ms", t.wall * 1e3));
        println!("| ssh … true | {} | {:.2} | {:.3} |", shown.join(" | "), took[2].wall / took[1].wall, took[2].cpu);
    }

    /// Q12: from the order to both connections closed, one after another while all the others live.
    async fn kills(&self, options: &Options) {
        let mut sessions = Vec::new();
        for _ in 0..options.sessions {
            let mut cat = self.ssh.start(&["recorded@gate", "echo up; exec cat"]);
            cat.receive_line().await;
            sessions.push(cat);
        }
        let api = self.gateway.admin().await;
        let rows = api.rows("live=true&page_size=1000").await;
        assert_eq!(rows.len(), options.sessions);
        let memory = process::resident(self.gateway.pid());
        let (mut answered, mut closed) = (Vec::new(), Vec::new());
        for (done, row) in rows.iter().enumerate() {
            let begin = Instant::now();
            api.kill(row, "measured", SOON).await;
            answered.push(begin.elapsed());
            let left = options.sessions - done - 1;
            let (front, back) = (self.gateway.ssh, self.target.port);
            eventually("both ends closed", SOON, async || {
                (process::established_at(front) <= left && process::established_to(back) <= left).then_some(())
            })
            .await;
            closed.push(begin.elapsed());
        }
        println!("\n| Q12: kill with {} live sessions | p50 | p99 | most |", options.sessions);
        println!("| --- | --- | --- | --- |");
        for (name, mut times) in [("answered", answered), ("both ends seen closed", closed)] {
            times.sort();
            let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
            println!("| {name} | {:.1} ms | {:.1} ms | {:.1} ms |", at(0.5), at(0.99), at(1.0));
        }
        println!("\nmemory with {} sessions: {} MB", options.sessions, memory >> 20);
    }

    /// Measures every way in turn, again and again, and returns the medians.
    async fn in_turn<const N: usize>(
        &self,
        ways: [&str; N],
        runs: usize,
        measure: impl AsyncFn(&str) -> Took,
    ) -> [Took; N] {
        let mut all = ways.map(|_| Vec::new());
        for run in 0..runs {
            for (way, took) in ways.iter().zip(&mut all) {
                took.push(measure(way).await);
                progress(&format!("run {} of {runs}, {way}", run + 1));
            }
        }
        progress("");
        all.map(|took| Took { wall: median(took.iter().map(|t| t.wall)), cpu: median(took.iter().map(|t| t.cpu)) })
    }

    /// Runs one command one way.
    async fn once(&self, way: &str, cipher: &str, command: &str, input: Option<PathBuf>) -> Took {
        let ciphers = format!("Ciphers={cipher}");
        // The outer connection of `ssh -J` reads the same file, so its cipher is set there.
        let config = format!("Ciphers {cipher}\n{}", fs::read_to_string(self.ssh.path("config")).unwrap());
        let file = self.ssh.path("config.cipher");
        fs::write(&file, config).unwrap();
        let (jump, host) = route(way);
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(file).args(["-o", &ciphers]).args(jump).arg(host).arg(command);
        ssh.stdin(input.map_or_else(Stdio::null, |path| fs::File::open(path).unwrap().into()));
        self.timed(way, ssh).await
    }

    /// Runs a client to its end, which has to be a good one.
    async fn timed(&self, way: &str, mut command: Command) -> Took {
        command.env_remove("SSH_AUTH_SOCK").stdout(Stdio::null()).stderr(Stdio::piped());
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true);
        let before = process::cpu_ticks(self.gateway.pid());
        let begin = Instant::now();
        let done = harness::within(LIMIT, way, command.output()).await.unwrap();
        let wall = begin.elapsed().as_secs_f64();
        assert!(done.status.success(), "{way}: {}", String::from_utf8_lossy(&done.stderr));
        Took { wall, cpu: (process::cpu_ticks(self.gateway.pid()) - before) as f64 / 100.0 }
    }
}

/// The options and the host that stand for a way.
fn route(way: &str) -> (&'static [&'static str], &'static str) {
    match way {
        "direct" => (&[], "target"),
        "ssh -J" => (&["-J", "jump"], "target"),
        "recorded" => (&[], "recorded@gate"),
        "unrecorded" => (&[], "unrecorded@gate"),
        "far, direct" => (&[], "target-far"),
        "far, ssh -J" => (&["-J", "jump-far"], "target"),
        "far, recorded" => (&[], "recorded@gate-far"),
        "near, far target" => (&[], "far@gate"),
        _ => unreachable!("no way {way}"),
    }
}

/// Says on a terminal what is being done; the tables stay clean.
fn progress(words: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r{words:40}\r");
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
