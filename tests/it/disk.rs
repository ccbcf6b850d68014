//! Disks that are slow or full: the socket's rule is obeyed, the user is told, other sessions do not notice.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use gatescribe::record::observation::What;
use gatescribe::store::{Outcome, RecordingState};

use crate::harness::ssh::Running;
use crate::harness::{Gateway, SOON, Setup, Ssh, Sshd, eventually, recordings};

#[tokio::test]
async fn a_disk_that_takes_five_seconds_per_write_slows_one_session_alone() {
    let control = tempfile::tempdir().unwrap();
    let words = control.path().join("slow");
    let sshd = Sshd::start().await;
    let setup = Setup::new().ssh("web", &sshd).environment("LD_PRELOAD", &shim(control.path()).display().to_string());
    let gateway = setup.environment("SLOW_DISK", &words.display().to_string()).start().await;
    let ssh = gateway.signed_in("alice", "web").await;

    let mut slow = ssh.start(&["web@gate", "echo on; exec cat /dev/urandom"]);
    slow.receive_line().await;
    let api = gateway.admin().await;
    let victim = api.live("web").await;
    let mut echo = ssh.start(&["web@gate", "cat"]);
    echo_time(&mut echo).await;

    fs::write(&words, victim.session_id.to_string()).unwrap();
    let pump = tokio::spawn(read_everything(slow));
    let hit = words.with_extension("hit");
    eventually("the slow disk is met", SOON, async || hit.exists().then_some(())).await;
    let mut times = Vec::new();
    for _ in 0..60 {
        times.push(echo_time(&mut echo).await);
        assert_eq!(api.get("/healthz").await.status, 200);
    }
    times.sort();
    let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
    assert!(median < Duration::from_millis(50), "echo took {median:?}, at most {slowest:?}");
    assert!(slowest < Duration::from_secs(2), "echo took up to {slowest:?}: it waited for the other session's disk");
    // New sessions are let in as well, and the slow one can be ended.
    assert_eq!(ssh.run("web", "true").await.status, Some(0));
    fs::remove_file(&words).unwrap();
    api.kill(&victim, "slow", Duration::from_secs(15)).await;
    pump.await.unwrap();
    assert_eq!(echo.finish(SOON).await.status, Some(0));
}

#[tokio::test]
async fn without_room_no_session_begins_and_the_user_is_told() {
    let sshd = Sshd::start().await;
    let setup = Setup::new().ssh("web", &sshd).ssh_with("free", &sshd, "record = false");
    let mut gateway = setup.recording("keep_free = \"100000TiB\"").start().await;
    gateway.expect_errors();
    let ssh = gateway.signed_in("alice", "free").await;
    let done = ssh.run("web", "echo unrecorded").await;
    assert!(done.stdout.is_empty(), "{done:?}");
    assert!(done.refusal().contains("record"), "{done:?}");
    let row = gateway.admin().await.ended("web").await;
    assert_eq!(row.outcome, Some(Outcome::RecordingLost), "{row:?}");
    assert!(!sshd.log().contains("echo unrecorded"));
    // A socket that is not recorded goes on.
    assert_eq!(ssh.run("free", "echo x").await.ok(), "x\n");
}

#[tokio::test]
async fn a_disk_that_fills_up_ends_the_session_that_fills_it() {
    let sshd = Sshd::start().await;
    let setup = Setup::new().ssh("web", &sshd).recording("keep_free = \"16MiB\"");
    let disk = SmallDisk::new(96);
    let mut gateway = disk.start(setup).await;
    gateway.expect_errors();
    let ssh = gateway.signed_in("alice", "web").await;
    let mut other = ssh.start(&["web@gate", "cat"]);
    echo_time(&mut other).await;
    let done = ssh.bash("$SSH web@gate 'cat /dev/urandom' | wc -c", Duration::from_secs(120)).await;
    assert!(done.refusal().contains("record"), "{done:?}");
    let received: u64 = String::from_utf8_lossy(&done.stdout).trim().parse().unwrap();
    assert!(received > 1 << 20, "{received}");
    let api = gateway.admin().await;
    // The client is let go first; the row is closed after what it started has been told to end.
    let row = api.ended("web").await;
    assert_eq!(row.outcome, Some(Outcome::RecordingLost), "{row:?}");
    assert_eq!(row.recordings[0].state, RecordingState::Truncated);
    // All that the client received was recorded first.
    let recorded = recordings::read(&gateway.data(), row.session_id, &row.recordings[0]).await;
    let output = recordings::bytes(&recorded.observations, gatescribe::record::observation::Direction::Output, 0);
    assert!(output.len() as u64 >= received, "{received} received, {} recorded", output.len());
    // The quiet session lives on, is still recorded, and rows can still be written.
    echo_time(&mut other).await;
    assert_eq!(other.finish(SOON).await.status, Some(0));
    eventually("its row is closed", SOON, async || api.rows("live=true").await.is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_session_has_only_so_much_recording() {
    let sshd = Sshd::start().await;
    let setup = Setup::new().ssh("web", &sshd).ssh_with("open", &sshd, "on_failure = \"continue\"");
    let mut gateway = setup.recording("max_recording = \"4MiB\"").start().await;
    gateway.expect_errors();
    let ssh = gateway.signed_in("alice", "web").await;
    let many = "head -c 64M /dev/urandom";
    let done = ssh.start(&["web@gate", many]).finish(Duration::from_secs(60)).await;
    assert!(done.refusal().contains("record"), "{:?} {}", done.status, done.stderr);
    assert!(done.stdout.len() < 32 << 20);
    let api = gateway.admin().await;
    assert_eq!(api.ended("web").await.outcome, Some(Outcome::RecordingLost));
    // Where the socket says so, the session goes on, and the gap is an entry.
    let done = ssh.start(&["open@gate", many]).finish(Duration::from_secs(60)).await;
    assert_eq!((done.status, done.stdout.len()), (Some(0), 64 << 20), "{}", done.stderr);
    let row = api.ended("open").await;
    assert_eq!(row.outcome, Some(Outcome::Closed));
    let recorded = recordings::read(&gateway.data(), row.session_id, &row.recordings[0]).await;
    assert!(recorded.observations.iter().any(|o| matches!(o.what, What::Gap { .. })), "{:?}", recorded.verdict);
}

/// A byte there and back.
async fn echo_time(cat: &mut Running) -> Duration {
    let begin = Instant::now();
    cat.send(b"x").await;
    assert_eq!(cat.receive(1).await, b"x");
    begin.elapsed()
}

async fn read_everything(mut ssh: Running) {
    use tokio::io::AsyncReadExt as _;
    let mut stdout = ssh.stdout.take().unwrap();
    let mut chunk = vec![0; 1 << 16];
    while let Ok(1..) = stdout.read(&mut chunk).await {}
    ssh.child.wait().await.unwrap();
}

fn shim(dir: &Path) -> PathBuf {
    let library = dir.join("slow_disk.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/slow_disk.c");
    let built =
        Command::new("cc").args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl").output();
    let built = built.expect("cc is installed");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    library
}

/// A filesystem of a few megabytes for a gateway's data: a mount of its own, or, where nobody may mount, the real disk
/// with all but that much of it kept free.
struct SmallDisk {
    megabytes: u64,
    mounted: Option<tempfile::TempDir>,
}

impl SmallDisk {
    fn new(megabytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={megabytes}m,mode=0700");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "gatescribe-test"]).arg(dir.path()).output();
        let mounted = mount.is_ok_and(|done| done.status.success()).then_some(dir);
        Self { megabytes, mounted }
    }

    async fn start(&self, setup: Setup) -> Gateway {
        match &self.mounted {
            Some(dir) => setup.data(dir.path().join("data")).start().await,
            None => {
                let stat = rustix::fs::statvfs("/tmp").unwrap();
                let keep = (stat.f_bavail * stat.f_frsize).saturating_sub(self.megabytes << 20);
                setup.recording(&format!("keep_free = \"{}KiB\"", keep >> 10)).start().await
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Some(dir) = &self.mounted {
            let _ = Command::new("umount").arg("--lazy").arg(dir.path()).status();
        }
    }
}

#[tokio::test]
async fn on_a_real_disk_every_record_is_durable_before_it_is_forwarded() {
    let sshd = Sshd::start().await;
    let gateway = Setup::new().ssh("web", &sshd).recording("durability = \"disk\"").start().await;
    let ssh: Ssh = gateway.signed_in("alice", "web").await;
    let mut cat = ssh.start(&["web@gate", "cat"]);
    echo_time(&mut cat).await;
    let row = gateway.admin().await.live("web").await;
    assert_eq!(row.durability, "disk");
    // Killed without a moment's grace, the container alone has it: the spool is thrown away, as a power loss would.
    let (data, spool) = (gateway.data(), gatescribe::record::default_spool(&gateway.data()));
    let details = gateway.admin().await.details(&row).await;
    let mut gateway = gateway;
    gateway.crash();
    let _ = fs::remove_dir_all(&spool);
    let recorded = recordings::read(&data, row.session_id, &details.recordings[0]).await;
    let output = recordings::bytes(&recorded.observations, gatescribe::record::observation::Direction::Output, 0);
    assert_eq!(output, b"x");
}
