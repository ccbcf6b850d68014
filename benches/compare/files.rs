//! Q4: files, with the tools that people copy them with; over a long line; and to an upstream that takes them slowly.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::harness::{self, process};
use super::{Bench, CIPHERS, Options, Took, WAYS, median, route};

/// Where client or target are far away; the first three are one distance, told by three ways.
pub const FAR: [&str; 4] = ["far, direct", "far, ssh -J", "far, recorded", "near, far target"];

/// How large a small file is, and how many share a directory.
const SMALL: usize = 4096;
const TOGETHER: usize = 100;

/// One way to copy something.
#[derive(Clone, Copy)]
struct Copying {
    tool: Tool,
    upload: bool,
    tree: bool,
}

#[derive(Clone, Copy)]
enum Tool {
    Sftp,
    Scp,
    Rsync,
}

impl Bench {
    /// One large file and many small ones.
    pub async fn copies(&self, options: &Options) {
        let (file, tree) = (self.ssh.path("large"), self.ssh.path("tree"));
        fs::write(&file, harness::noise(4, options.file_bytes)).unwrap();
        make_tree(&tree, options.files);
        let megabytes = options.file_bytes / 1_000_000;
        println!(
            "\n| Q4: {megabytes} MB, {} files | {} | recorded : -J (goal: at least 1) | gateway CPU s |",
            options.files,
            WAYS.join(" | ")
        );
        println!("| --- | --- | --- | --- | --- | --- | --- |");
        for tool in [Tool::Sftp, Tool::Scp, Tool::Rsync] {
            for (upload, is_tree) in [(true, false), (false, false), (true, true), (false, true)] {
                let copying = Copying { tool, upload, tree: is_tree };
                let from = if is_tree { &tree } else { &file };
                let took = self.in_turn(WAYS, options.runs, async |way| self.copy(way, copying, from).await).await;
                println!(
                    "| {} | {} | {:.2} | {:.2} / {:.2} |",
                    copying.name(),
                    took.map(|t| format!("{:.2} s", t.wall)).join(" | "),
                    took[1].wall / took[2].wall,
                    took[2].cpu,
                    took[3].cpu
                );
            }
        }
    }

    /// 30 ms between client and everything, or between gateway and target.
    pub async fn far(&self, options: &Options) {
        let file = self.ssh.path("wan");
        fs::write(&file, harness::noise(5, options.wan_bytes)).unwrap();
        let megabytes = options.wan_bytes as f64 / 1e6;
        println!("\n| 30 ms, {megabytes:.0} MB | {} | recorded : direct | far target : direct |", FAR.join(" | "));
        println!("| --- | --- | --- | --- | --- | --- | --- |");
        let show = |name: &str, took: [Took; FAR.len()]| {
            println!(
                "| {name} | {} | {:.2} | {:.2} |",
                took.map(|t| format!("{:.0} MB/s", megabytes / t.wall)).join(" | "),
                took[0].wall / took[2].wall,
                took[0].wall / took[3].wall
            );
        };
        for upload in [true, false] {
            let took = self
                .in_turn(FAR, options.runs, async |way| match upload {
                    true => self.once(way, CIPHERS[0], "cat > /dev/null", Some(file.clone())).await,
                    false => self.once(way, CIPHERS[0], &format!("cat {}", file.display()), None).await,
                })
                .await;
            show(if upload { "ssh, upload" } else { "ssh, download" }, took);
            let copying = Copying { tool: Tool::Sftp, upload, tree: false };
            show(
                &copying.name(),
                self.in_turn(FAR, options.runs, async |way| self.copy(way, copying, &file).await).await,
            );
        }
    }

    /// The gateway's memory while an upstream takes less than the client could send.
    pub async fn slow(&self, options: &Options) {
        let file = self.ssh.path("slow");
        fs::write(&file, harness::noise(6, options.slow_bytes)).unwrap();
        let to = self.target.path("slow-copy");
        println!(
            "\n| {} MB at {} MB/s | seconds | gateway's memory before | median | most | after |",
            options.slow_bytes / 1_000_000,
            options.slow_rate / 1_000_000
        );
        println!("| --- | --- | --- | --- | --- | --- |");
        let ssh = {
            let mut ssh = self.client("ssh", &[]);
            ssh.args(["slow@gate", "cat > /dev/null"]).stdin(fs::File::open(&file).unwrap());
            ssh
        };
        let mut sftp = self.client("sftp", &[]);
        sftp.arg("-b").arg(self.batch(&format!("put {} {}\n", file.display(), to.display()))).arg("slow@gate");
        for (name, command) in [("ssh", ssh), ("sftp", sftp)] {
            let before = process::resident(self.gateway.pid());
            let begin = Instant::now();
            let memory = self.memory_during(command).await;
            let seconds = begin.elapsed().as_secs_f64();
            let after = process::resident(self.gateway.pid());
            let most = memory.iter().copied().fold(before, u64::max);
            let middle = median(memory.iter().map(|bytes| *bytes as f64)) as u64;
            let [before, middle, most, after] = [before, middle, most, after].map(|bytes| bytes >> 20);
            println!("| {name} | {seconds:.1} | {before} MB | {middle} MB | {most} MB | {after} MB |");
            let _ = fs::remove_file(&to);
        }
    }

    /// Runs a client to its end and looks at the gateway's memory meanwhile.
    async fn memory_during(&self, mut command: Command) -> Vec<u64> {
        command.env_remove("SSH_AUTH_SOCK").stdout(Stdio::null()).stderr(Stdio::null());
        let mut client = tokio::process::Command::from(command);
        let mut client = client.kill_on_drop(true).spawn().unwrap();
        let mut look = tokio::time::interval(Duration::from_millis(100));
        let mut memory = Vec::new();
        loop {
            tokio::select! {
                status = client.wait() => {
                    assert!(status.unwrap().success(), "the upload failed");
                    return memory;
                }
                _ = look.tick() => memory.push(process::resident(self.gateway.pid())),
            }
        }
    }

    /// Copies to a place where nothing is yet, and takes it away again.
    async fn copy(&self, way: &str, copying: Copying, from: &Path) -> Took {
        let to = self.target.path("copied");
        let (jump, host) = route(way);
        let took = self.timed(way, self.copier(copying, jump, host, from, &to)).await;
        assert!(to.exists(), "{}: nothing was copied", copying.name());
        if copying.tree { fs::remove_dir_all(&to) } else { fs::remove_file(&to) }.unwrap();
        took
    }

    /// Both ends are this machine, so a path is the same at either.
    fn copier(&self, copying: Copying, jump: &[&str], host: &str, from: &Path, to: &Path) -> Command {
        let (from, to) = (from.display(), to.display());
        let remote = |path: &dyn std::fmt::Display, is_remote| match is_remote {
            true => format!("{host}:{path}"),
            false => path.to_string(),
        };
        let (source, target) = (remote(&from, !copying.upload), remote(&to, copying.upload));
        match copying.tool {
            Tool::Sftp => {
                let recursive = if copying.tree { "-r " } else { "" };
                let order = if copying.upload { "put" } else { "get" };
                let mut sftp = self.client("sftp", jump);
                sftp.arg("-b").arg(self.batch(&format!("{order} {recursive}{from} {to}\n"))).arg(host);
                sftp
            }
            Tool::Scp => {
                let mut scp = self.client("scp", jump);
                if copying.tree {
                    scp.arg("-r");
                }
                scp.args(["-q", &source, &target]);
                scp
            }
            Tool::Rsync => {
                let config = self.ssh.path("config");
                let mut rsync = Command::new("rsync");
                rsync.args(["-a", "-e", &format!("ssh -F {} {}", config.display(), jump.join(" "))]);
                // With the slash, what is in the directory, as the others do it where the target is not there.
                let slash = if copying.tree { "/" } else { "" };
                rsync.args([format!("{source}{slash}"), target]);
                rsync
            }
        }
    }

    fn client(&self, program: &str, jump: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.arg("-F").arg(self.ssh.path("config")).args(jump);
        command
    }

    fn batch(&self, lines: &str) -> PathBuf {
        let file = self.ssh.path("batch");
        fs::write(&file, lines).unwrap();
        file
    }
}

impl Copying {
    fn name(&self) -> String {
        let tool = match self.tool {
            Tool::Sftp => "sftp",
            Tool::Scp => "scp",
            Tool::Rsync => "rsync",
        };
        let what = if self.tree { "tree" } else { "one file" };
        format!("{tool}, {what}, {}", if self.upload { "upload" } else { "download" })
    }
}

/// Files that differ, in directories of a hundred.
fn make_tree(tree: &Path, files: usize) {
    let noise = harness::noise(3, files * SMALL);
    for (n, contents) in noise.chunks(SMALL).enumerate() {
        let dir = tree.join(format!("{}", n / TOGETHER));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("{n}")), contents).unwrap();
    }
}
