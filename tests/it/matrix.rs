//! Every kind of channel × (allowed, denied, killed, its recording fails, its person is gone), with the stock clients and a
//! real server: no control may be forgotten for one of them.
//!
//! A kind of channel joins by one entry in [`KINDS`].

use std::fs;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use gatescribe::store::{EventStatus, Outcome, SessionRow};
use reqwest::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::harness::ssh::Running;
use crate::harness::{Gateway, SOON, Setup, Ssh, Sshd, eventually, free_port};

/// One kind of channel.
struct Kind {
    name: &'static str,
    /// The keys of `[policy.allow.ssh]` that allow it, and nothing else. `TO` and `AT` are the scene's places.
    right: &'static str,
    /// The client's command line, after `ssh -F config`; `None`: it is `sftp`.
    client: Client,
    /// The `type` of the event that denies it.
    event: &'static str,
    /// Its recordings have this kind.
    recorded: &'static str,
    /// Makes sure that it carries something, both ways.
    works: for<'a> fn(&'a mut Running, &'a Places) -> LocalBoxFuture<'a, bool>,
}

enum Client {
    Ssh(&'static [&'static str]),
    Sftp,
}

/// Where forwards lead and listen.
struct Places {
    to: u16,
    local: u16,
    remote: u16,
    dir: String,
}

const KINDS: &[Kind] = &[
    Kind {
        name: "shell",
        right: "shell = true",
        client: Client::Ssh(&["-tt", "web@gate"]),
        event: "ssh_shell",
        recorded: "shell",
        works: |running, _| Box::pin(says(running, b"echo here-$((40+2))\n", "here-42")),
    },
    Kind {
        name: "exec",
        right: "exec = [\"cat\"]",
        client: Client::Ssh(&["web@gate", "cat"]),
        event: "ssh_exec",
        recorded: "exec",
        works: |running, _| Box::pin(says(running, b"word\n", "word")),
    },
    Kind {
        name: "sftp",
        right: "sftp = \"read\"",
        client: Client::Sftp,
        event: "ssh_transfer",
        recorded: "sftp",
        works: |running, _| Box::pin(says(running, b"pwd\n", "Remote working directory")),
    },
    Kind {
        name: "scp upload",
        right: "sftp = \"write\"",
        client: Client::Ssh(&["web@gate", "scp -t DIR"]),
        event: "ssh_transfer",
        recorded: "scp",
        // A sink is ready, and takes a file's name.
        works: |running, _| Box::pin(says(running, b"C0644 0 empty\n", "\0\0")),
    },
    Kind {
        name: "scp download",
        right: "sftp = \"read\"",
        client: Client::Ssh(&["web@gate", "scp -f DIR/there"]),
        event: "ssh_transfer",
        recorded: "scp",
        works: |running, _| Box::pin(says(running, b"\0", "C0")),
    },
    Kind {
        name: "rsync",
        right: "sftp = \"read\"",
        client: Client::Ssh(&["web@gate", "rsync --server --sender -re.LsfxCIvu . DIR"]),
        event: "ssh_transfer",
        recorded: "rsync",
        // The protocol's version.
        works: |running, _| Box::pin(says(running, b"", "\0\0\0")),
    },
    Kind {
        name: "sftp-server by exec",
        right: "sftp = \"read\"",
        client: Client::Ssh(&["web@gate", "/usr/lib/openssh/sftp-server"]),
        event: "ssh_transfer",
        recorded: "sftp",
        // INIT and VERSION.
        works: |running, _| Box::pin(says(running, b"\0\0\0\x05\x01\0\0\0\x03", "\x02\0\0\0\x03")),
    },
    Kind {
        name: "local forward",
        right: "forward_to = [\"TO\"]",
        client: Client::Ssh(&["-N", "-L", "LOCAL:TO", "web@gate"]),
        event: "ssh_forward",
        recorded: "forward",
        works: |_, places| Box::pin(echoes(places.local)),
    },
    Kind {
        name: "forward to a socket",
        right: "forward_to = [\"DIR/app.sock\"]",
        client: Client::Ssh(&["-N", "-L", "LOCAL:DIR/app.sock", "web@gate"]),
        event: "ssh_forward",
        recorded: "forward",
        works: |_, places| Box::pin(echoes(places.local)),
    },
    Kind {
        name: "remote forward",
        right: "forward_from = [\"127.0.0.1:*\"]",
        client: Client::Ssh(&["-N", "-R", "127.0.0.1:REMOTE:TO", "web@gate"]),
        event: "ssh_forward",
        recorded: "forward",
        works: |_, places| Box::pin(echoes(places.remote)),
    },
    Kind {
        name: "remote forward of a socket",
        right: "forward_from = [\"DIR/back.sock\"]",
        client: Client::Ssh(&["-N", "-R", "DIR/back.sock:TO", "web@gate"]),
        event: "ssh_forward",
        recorded: "forward",
        works: |_, places| Box::pin(echoes_by_path(format!("{}/back.sock", places.dir))),
    },
    Kind {
        name: "agent",
        right: "agent = true\nexec = true",
        client: Client::Ssh(&["-A", "web@gate", "ssh-add -l; cat"]),
        event: "ssh_agent",
        recorded: "agent",
        works: |running, _| Box::pin(says(running, b"", "ED25519")),
    },
    Kind {
        name: "display",
        right: "x11 = true\nexec = true",
        client: Client::Ssh(&["-Y", "web@gate", X_CLIENT]),
        event: "ssh_x11",
        recorded: "x11",
        works: |running, _| Box::pin(says(running, b"", "from the display")),
    },
];

/// The beginning of every X connection: little-endian, version 11.0, the cookie; then the answer is shown.
const X_CLIENT: &str = r#"n=${DISPLAY#*:}; n=${n%.*}; c=$(xauth list $DISPLAY | head -1 | sed 's/.* //; s/../\\x&/g')
exec 3<>/dev/tcp/127.0.0.1/$((6000+n)) && printf "l\0\x0b\0\0\0\x12\0\x10\0\0\0MIT-MAGIC-COOKIE-1\0\0$c" >&3
head -c 16 <&3; echo; cat"#;

/// Waits until what comes from the client has these words.
async fn says(running: &mut Running, word: &[u8], expected: &str) -> bool {
    let heard = async {
        if !word.is_empty() && running.stdin.as_mut().unwrap().write_all(word).await.is_err() {
            return false;
        }
        let mut all = Vec::new();
        let mut buffer = [0; 1024];
        while let Ok(read @ 1..) = running.stdout.as_mut().unwrap().read(&mut buffer).await {
            all.extend_from_slice(&buffer[..read]);
            if all.windows(expected.len()).any(|part| part == expected.as_bytes()) {
                return true;
            }
        }
        false
    };
    tokio::time::timeout(SOON, heard).await.unwrap_or(false)
}

/// Whether a word comes back from there; not, if the connection ends or never comes about.
async fn echoes(port: u16) -> bool {
    for _ in 0..100 {
        if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)).await {
            return answers(stream).await;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    false
}

async fn echoes_by_path(path: String) -> bool {
    for _ in 0..100 {
        if let Ok(stream) = UnixStream::connect(&path).await {
            return answers(stream).await;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    false
}

async fn answers(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) -> bool {
    let mut answer = [0; 4];
    let asked = async {
        stream.write_all(b"word").await.ok()?;
        stream.read_exact(&mut answer).await.ok()
    };
    tokio::time::timeout(SOON, asked).await.ok().flatten().is_some() && &answer == b"word"
}

fn echo(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static) {
    tokio::task::spawn_local(async move {
        let mut buffer = [0; 1024];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            let _ = stream.write_all(&buffer[..read]).await;
        }
    });
}

/// A gateway, a server, somebody who has signed in, and what forwards lead to.
struct Scene {
    sshd: Sshd,
    gateway: Gateway,
    ssh: Ssh,
    places: Places,
    display: u16,
}

impl Scene {
    async fn new(rights: impl Fn(&Places) -> String) -> Self {
        let sshd = Sshd::start_with("X11Forwarding yes\nX11UseLocalhost yes").await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap().port();
        let dir = sshd.path("files");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("there"), "there\n").unwrap();
        let sockets = UnixListener::bind(dir.join("app.sock")).unwrap();
        let display = free_port();
        let screen = TcpListener::bind(("127.0.0.1", display)).await.unwrap();
        tokio::task::spawn_local(async move {
            loop {
                tokio::select! {
                    Ok((stream, _)) = listener.accept() => echo(stream),
                    Ok((stream, _)) = sockets.accept() => echo(stream),
                    Ok((mut stream, _)) = screen.accept() => {
                        tokio::task::spawn_local(async move {
                            let _ = stream.read(&mut [0; 64]).await;
                            let _ = stream.write_all(b"from the display").await;
                            let _ = stream.read(&mut [0; 64]).await;
                        });
                    }
                }
            }
        });
        let dir = dir.display().to_string();
        let places = Places { to, local: free_port(), remote: free_port(), dir };
        let policy = format!(
            "[[policy]]\nname = \"all\"\neffect = \"allow\"\nwho = {{ groups = [\"engineering\"] }}\n{}",
            rights(&places)
        );
        let gateway = Setup::new().ssh("web", &sshd).policies(&policy).start().await;
        let ssh = gateway.signed_in("alice", "web").await;
        crate::harness::make_key(&ssh.path("lent"), "lent");
        Self { sshd, gateway, ssh, places, display }
    }

    /// Starts the client of this kind, with an agent and a display.
    fn start(&self, kind: &Kind) -> Running {
        let config = self.ssh.path("config");
        let mut words: Vec<String> = match kind.client {
            Client::Ssh(arguments) => ["ssh", "-F"]
                .into_iter()
                .chain([config.to_str().unwrap()])
                .chain(arguments.iter().copied())
                .map(str::to_owned)
                .collect(),
            Client::Sftp => ["sftp", "-F", config.to_str().unwrap(), "web@gate"].map(str::to_owned).to_vec(),
        };
        words.iter_mut().for_each(|word| *word = self.filled(word));
        // Only where one is lent: `sftp` would wait for an agent that is its child.
        let mut command = match kind.name {
            "agent" => {
                let mut command = std::process::Command::new("ssh-agent");
                command.args(["bash", "-c", "ssh-add -q \"$0\" && exec \"$@\""]).arg(self.ssh.path("lent"));
                command.arg(&words[0]);
                command
            }
            _ => std::process::Command::new(&words[0]),
        };
        command.args(&words[1..]);
        command.env("SSH_ASKPASS", self.ssh.path("askpass")).env("SSH_ASKPASS_REQUIRE", "force");
        // Displays are counted from port 6000.
        command.env("DISPLAY", format!("127.0.0.1:{}", self.display - 6000));
        Running::start(command)
    }

    fn filled(&self, text: &str) -> String {
        let Places { to, local, remote, dir } = &self.places;
        let text = text.replace("TO", &format!("127.0.0.1:{to}")).replace("DIR", dir);
        text.replace("LOCAL", &local.to_string()).replace("REMOTE", &remote.to_string())
    }

    async fn works(&self, kind: &Kind, running: &mut Running) -> bool {
        let works = (kind.works)(running, &self.places).await;
        let _ = fs::remove_file(format!("{}/back.sock", self.places.dir));
        works
    }

    async fn row_of(&self, mut running: Running) -> SessionRow {
        let _ = running.child.kill().await;
        self.gateway.admin().await.ended("web").await
    }
}

/// All of it is allowed, forwards of anything too.
fn everything(_: &Places) -> String {
    "[policy.allow.ssh]\n".into()
}

async fn locally(test: impl Future<Output = ()>) {
    tokio::task::LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn each_is_recorded_where_its_own_right_allows_it_and_nothing_else_is() {
    locally(async {
        for kind in KINDS {
            let rights = |places: &Places| {
                let at = format!("127.0.0.1:{}", places.to);
                format!("[policy.allow.ssh]\n{}\n", kind.right.replace("TO", &at).replace("DIR", &places.dir))
            };
            let scene = Scene::new(rights).await;
            let mut running = scene.start(kind);
            assert!(scene.works(kind, &mut running).await, "{}: {}", kind.name, running.stderr());
            let row = scene.row_of(running).await;
            assert!(row.recordings.iter().any(|one| one.kind == kind.recorded), "{}: {row:#?}", kind.name);
            if ["forward", "agent", "x11"].contains(&kind.recorded) {
                let carried = |event: &&gatescribe::store::Event| {
                    let bytes = |key: &str| event.metadata[key].as_u64().is_some_and(|bytes| bytes > 0);
                    event.kind == kind.event && bytes("bytes_sent") && bytes("bytes_received")
                };
                assert!(row.events.iter().any(|event| carried(&event)), "{}: {:#?}", kind.name, row.events);
            }
            // What is of another right is refused.
            for other in KINDS.iter().filter(|other| !kind.right.contains(other.right)) {
                let narrower = matches!((kind.right, other.right), ("sftp = \"write\"", "sftp = \"read\""));
                if narrower || other.right.contains("exec = true") || kind.right.contains("exec = true") {
                    continue;
                }
                let mut running = scene.start(other);
                assert!(!scene.works(other, &mut running).await, "{} allows {}", kind.name, other.name);
                let row = scene.row_of(running).await;
                let denied = |e: &&gatescribe::store::Event| e.status == EventStatus::Denied && e.kind == other.event;
                assert!(row.events.iter().any(|e| denied(&e)), "{} {}: {:#?}", kind.name, other.name, row.events);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn each_is_denied_where_no_right_allows_it() {
    locally(async {
        let scene = Scene::new(|_| "[policy.allow.ssh]\nexec = [\"id\", \"true\"]\n".into()).await;
        for kind in KINDS {
            let mut running = scene.start(kind);
            assert!(!scene.works(kind, &mut running).await, "{}", kind.name);
            let row = scene.row_of(running).await;
            let denied = |event: &gatescribe::store::Event| {
                event.status == EventStatus::Denied && (event.kind == kind.event || event.kind == "ssh_exec")
            };
            assert!(row.events.iter().any(denied), "{}: {:#?}", kind.name, row.events);
            assert!(row.recordings.is_empty(), "{}: {row:#?}", kind.name);
        }
        assert!(scene.sshd.log().contains("Accepted"), "the server was reached, and nothing was started on it");
    })
    .await;
}

#[tokio::test]
async fn each_ends_when_its_session_is_killed() {
    locally(async {
        let scene = Scene::new(everything).await;
        for kind in KINDS {
            let mut running = scene.start(kind);
            assert!(scene.works(kind, &mut running).await, "{}: {}", kind.name, running.stderr());
            let api = scene.gateway.admin().await;
            let row = api.kill(&api.live("web").await, "enough", SOON).await;
            assert_eq!(row.outcome, Some(Outcome::Killed), "{}: {row:?}", kind.name);
            assert!(row.recordings.iter().any(|one| one.kind == kind.recorded), "{}: {row:#?}", kind.name);
            running.finish(SOON).await;
        }
    })
    .await;
}

#[tokio::test]
async fn each_ends_when_its_person_is_revoked() {
    locally(async {
        for kind in KINDS {
            let scene = Scene::new(everything).await;
            let mut running = scene.start(kind);
            assert!(scene.works(kind, &mut running).await, "{}: {}", kind.name, running.stderr());
            let api = scene.gateway.admin().await;
            let row = api.live("web").await;
            let path = "/api/v1/sign-ins?user_email=alice@example.com";
            api.call(Method::DELETE, path, Some(serde_json::json!({}))).await.ok();
            let row = api.end_of(&row).await;
            assert_eq!(row.outcome, Some(Outcome::IdentityLost), "{}: {row:?}", kind.name);
            running.finish(SOON).await;
        }
    })
    .await;
}

#[tokio::test]
async fn nothing_of_it_passes_where_it_cannot_be_recorded() {
    locally(async {
        let mut scene = Scene::new(everything).await;
        scene.gateway.expect_errors();
        for kind in KINDS {
            // With what is lent, the program that uses it is lost already.
            let recordings = scene.gateway.data().join("recordings");
            let aside = scene.gateway.data().join("recordings.aside");
            fs::rename(&recordings, &aside).unwrap();
            fs::write(&recordings, "no directory").unwrap();
            let mut running = scene.start(kind);
            assert!(!scene.works(kind, &mut running).await, "{}", kind.name);
            let row = scene.row_of(running).await;
            fs::remove_file(&recordings).unwrap();
            fs::rename(&aside, &recordings).unwrap();
            assert_eq!(row.outcome, Some(Outcome::RecordingLost), "{}: {row:#?}", kind.name);
        }
        let works = eventually("it works again", SOON, async || {
            let mut running = scene.start(&KINDS[1]);
            let works = scene.works(&KINDS[1], &mut running).await;
            scene.row_of(running).await;
            works.then_some(())
        });
        works.await;
    })
    .await;
}
