//! Forwards in every direction, with the stock client, through the gate and from a real server.

use std::time::Duration;

use gatescribe::store::{Event, EventStatus, SessionRow};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener};

use crate::harness::ssh::Running;
use crate::harness::{Gateway, SOON, Setup, Ssh, Sshd, eventually, free_port, gate, within};

/// Answers every connection with what it sends, in capitals.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    let _ = stream.write_all(&buffer[..read].to_ascii_uppercase()).await;
                }
            });
        }
    });
    port
}

/// Says a word to everybody who connects.
async fn says(word: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(word).await;
        }
    });
    port
}

/// What comes back for a word, `None` where the connection ends without.
async fn ask(port: u16, word: &[u8]) -> Option<Vec<u8>> {
    let mut stream = within(SOON, "connect", async {
        loop {
            match TcpStream::connect(("127.0.0.1", port)).await {
                Ok(stream) => return stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    })
    .await;
    stream.write_all(word).await.unwrap();
    let mut answer = vec![0; word.len()];
    within(SOON, "an answer or the end", stream.read_exact(&mut answer)).await.ok()?;
    Some(answer)
}

async fn with_rights(rights: &str) -> (Sshd, Gateway, Ssh) {
    let sshd = Sshd::start().await;
    let policy = format!(
        "[[policy]]\nname = \"narrow\"\neffect = \"allow\"\nwho = {{ groups = [\"engineering\"] }}\n\
         [policy.allow.ssh]\nexec = [\"id\"]\n{rights}\n"
    );
    let gateway = Setup::new().ssh("web", &sshd).policies(&policy).start().await;
    let ssh = gateway.signed_in("alice", "web").await;
    (sshd, gateway, ssh)
}

/// A connection that does nothing but forward.
async fn forwarding(ssh: &Ssh, options: &[&str]) -> Running {
    let mut args = vec!["-N", "-o", "LogLevel=INFO"];
    args.extend(options);
    args.push("web@gate");
    ssh.start(&args)
}

async fn end(gateway: &Gateway, mut running: Running) -> SessionRow {
    running.child.kill().await.unwrap();
    gateway.admin().await.ended("web").await
}

fn forward<'a>(row: &'a SessionRow, status: EventStatus, key: &str, place: &str) -> &'a Event {
    let is = |event: &&Event| event.kind == "ssh_forward" && event.status == status && event.metadata[key] == place;
    row.events.iter().find(is).unwrap_or_else(|| panic!("no {status:?} {key} {place}: {:#?}", row.events))
}

#[tokio::test]
async fn a_local_forward_is_an_event_with_its_bytes_and_a_recording() {
    let (_sshd, gateway, ssh) = gate().await;
    let (to, local) = (echo().await, free_port());
    let running = forwarding(&ssh, &["-L", &format!("{local}:127.0.0.1:{to}")]).await;
    assert_eq!(ask(local, b"hello").await.unwrap(), b"HELLO");
    let row = end(&gateway, running).await;
    let event = forward(&row, EventStatus::Success, "to", &format!("127.0.0.1:{to}"));
    assert_eq!((&event.metadata["bytes_sent"], &event.metadata["bytes_received"]), (&5.into(), &5.into()));
    let [recording] = row.recordings.as_slice() else { panic!("{row:?}") };
    assert_eq!((recording.kind.as_str(), recording.legibility.as_str()), ("forward", "opaque"));
}

#[tokio::test]
async fn a_dynamic_forward_and_a_direct_one_work() {
    let (_sshd, gateway, ssh) = gate().await;
    let to = echo().await;
    let mut direct = ssh.start(&["-W", &format!("localhost:{to}"), "web@gate"]);
    direct.send(b"word").await;
    assert_eq!(direct.receive(4).await, b"WORD");
    let row = end(&gateway, direct).await;
    forward(&row, EventStatus::Success, "to", &format!("localhost:{to}"));
    let socks = free_port();
    let running = forwarding(&ssh, &["-D", &socks.to_string()]).await;
    // SOCKS 5 without authentication, to an address.
    let mut request = vec![5, 1, 0];
    let greeted = async {
        let mut stream =
            eventually("socks listens", SOON, async || TcpStream::connect(("127.0.0.1", socks)).await.ok()).await;
        stream.write_all(&request).await.unwrap();
        stream.read_exact(&mut [0; 2]).await.unwrap();
        request = [&[5, 1, 0, 1, 127, 0, 0, 1][..], &to.to_be_bytes()].concat();
        stream.write_all(&request).await.unwrap();
        stream.read_exact(&mut [0; 10]).await.unwrap();
        stream.write_all(b"socks").await.unwrap();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await.unwrap();
        answer
    };
    assert_eq!(&within(SOON, "an answer by socks", greeted).await, b"SOCKS");
    let row = end(&gateway, running).await;
    forward(&row, EventStatus::Success, "to", &format!("127.0.0.1:{to}"));
}

#[tokio::test]
async fn a_remote_forward_comes_back_and_ends_when_it_is_cancelled() {
    let (_sshd, gateway, ssh) = gate().await;
    let (to, remote) = (echo().await, free_port());
    let running = forwarding(&ssh, &["-R", &format!("127.0.0.1:{remote}:127.0.0.1:{to}")]).await;
    assert_eq!(ask(remote, b"back").await.unwrap(), b"BACK");
    let row = end(&gateway, running).await;
    let listening = format!("127.0.0.1:{remote}");
    assert!(row.events.iter().filter(|event| event.metadata["from"] == listening.as_str()).count() >= 2, "{row:#?}");
    eventually("the server no longer listens", SOON, async || {
        TcpStream::connect(("127.0.0.1", remote)).await.is_err().then_some(())
    })
    .await;
}

#[tokio::test]
async fn one_port_at_two_addresses_is_two_forwards() {
    let sshd = Sshd::start_with("GatewayPorts clientspecified").await;
    let gateway = Setup::new().ssh("web", &sshd).start().await;
    let ssh = gateway.signed_in("alice", "web").await;
    let (one, other, remote) = (says(b"one").await, says(b"two").await, free_port());
    let place = |address: &str, to: u16| format!("{address}:{remote}:127.0.0.1:{to}");
    let options = ["-R", &place("127.0.0.1", one), "-R", &place("127.0.0.2", other)];
    let running = forwarding(&ssh, &options).await;
    for (address, word) in [("127.0.0.1", b"one"), ("127.0.0.2", b"two")] {
        let there = async || TcpStream::connect((address, remote)).await.ok();
        let mut stream = eventually("the server listens", SOON, there).await;
        let mut answer = [0; 3];
        within(SOON, "an answer", stream.read_exact(&mut answer)).await.unwrap();
        assert_eq!(&answer, word, "{address}");
    }
    let row = end(&gateway, running).await;
    for address in ["127.0.0.1", "127.0.0.2"] {
        forward(&row, EventStatus::Success, "from", &format!("{address}:{remote}"));
    }
}

#[tokio::test]
async fn a_remote_forward_may_choose_its_port() {
    let (_sshd, gateway, ssh) = gate().await;
    let to = echo().await;
    let mut running = forwarding(&ssh, &["-R", &format!("127.0.0.1:0:127.0.0.1:{to}")]).await;
    let told = running.told("Allocated port ").await;
    let port = told.split("Allocated port ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert_eq!(ask(port, b"back").await.unwrap(), b"BACK");
    end(&gateway, running).await;
}

#[tokio::test]
async fn sockets_are_forwarded_both_ways() {
    let (sshd, gateway, ssh) = gate().await;
    let path = sshd.path("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"from the socket").await;
        }
    });
    let local = free_port();
    let running = forwarding(&ssh, &["-L", &format!("{local}:{}", path.display())]).await;
    let mut stream = eventually("it listens", SOON, async || TcpStream::connect(("127.0.0.1", local)).await.ok()).await;
    let mut answer = [0; 15];
    within(SOON, "an answer", stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"from the socket");
    let row = end(&gateway, running).await;
    forward(&row, EventStatus::Success, "to", &path.display().to_string());
    let (to, remote) = (echo().await, sshd.path("back.sock"));
    let running = forwarding(&ssh, &["-R", &format!("{}:127.0.0.1:{to}", remote.display())]).await;
    let mut stream =
        eventually("the server listens", SOON, async || tokio::net::UnixStream::connect(&remote).await.ok()).await;
    stream.write_all(b"word").await.unwrap();
    let mut answer = [0; 4];
    within(SOON, "an answer", stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"WORD");
    end(&gateway, running).await;
}

#[tokio::test]
async fn only_what_a_rule_names_is_reached_and_the_rest_stands_in_the_session() {
    let (to, other) = (echo().await, echo().await);
    let (_sshd, gateway, ssh) = with_rights(&format!("forward_to = [\"127.0.0.1:{to}\"]")).await;
    let (good, bad) = (free_port(), free_port());
    let remote = free_port();
    let options = [
        "-L",
        &format!("{good}:127.0.0.1:{to}"),
        "-L",
        &format!("{bad}:127.0.0.1:{other}"),
        "-R",
        &format!("127.0.0.1:{remote}:127.0.0.1:{to}"),
    ];
    let running = forwarding(&ssh, &options).await;
    assert_eq!(ask(good, b"hello").await.unwrap(), b"HELLO");
    assert_eq!(ask(bad, b"hello").await, None);
    assert!(TcpStream::connect(("127.0.0.1", remote)).await.is_err());
    let row = end(&gateway, running).await;
    let denied: Vec<_> = row.events.iter().filter(|event| event.status == EventStatus::Denied).collect();
    let words = format!("{denied:?}");
    assert!(words.contains(&other.to_string()) && words.contains(&remote.to_string()), "{words}");
}

#[tokio::test]
async fn what_cannot_be_read_needs_a_right_of_its_own() {
    let to = echo().await;
    for (opaque, passes) in [("false", false), ("true", true)] {
        let rights = format!("forward_to = [\"127.0.0.1:{to}\"]\nforward_opaque = {opaque}");
        let (_sshd, gateway, ssh) = with_rights(&rights).await;
        let local = free_port();
        let running = forwarding(&ssh, &["-L", &format!("{local}:127.0.0.1:{to}")]).await;
        for hello in [b"SSH-2.0-x\r\n".as_slice(), b"\x16\x03\x01\x00\x05hello", b"\0\0\0\x08\x04\xd2\x16\x2f"] {
            assert_eq!(ask(local, hello).await.is_some(), passes, "{hello:?}");
        }
        assert_eq!(ask(local, b"plain").await.unwrap(), b"PLAIN");
        let row = end(&gateway, running).await;
        let told = row.events.iter().filter(|event| event.kind == "ssh_forward_opaque").count();
        assert_eq!(told, 3, "{:#?}", row.events);
    }
}

#[tokio::test]
async fn nothing_leads_to_the_gateway_itself_or_to_another_sockets_upstream() {
    let (sshd, gateway, ssh) = with_rights("forward_to = [\"*:*\"]").await;
    let https = gateway.url("/").rsplit(':').next().unwrap().trim_matches('/').to_owned();
    let places = [
        format!("127.0.0.1:{https}"),
        format!("localhost:{https}"),
        format!("[::ffff:127.0.0.1]:{https}"),
        "169.254.169.254:80".into(),
        "0.0.0.0:80".into(),
        // The upstream of a socket, this one's own.
        format!("127.0.0.1:{}", sshd.port),
    ];
    for place in places {
        let done = ssh.start(&["-W", &place, "web@gate"]).finish(SOON).await;
        assert_ne!(done.status, Some(0), "{place}: {done:?}");
        assert!(done.stderr.contains("prohibited"), "{place}: {done:?}");
        // The client says why.
        let why = ["a forward never leads to", "narrow does not allow TLS, SSH or SQL in a forward to"];
        assert!(why.iter().any(|words| done.stderr.contains(words)), "{place}: {done:?}");
        let row = gateway.admin().await.ended("web").await;
        let denied = row.events.iter().any(|event| event.status == EventStatus::Denied && event.kind == "ssh_forward");
        assert!(denied, "{place}: {:#?}", row.events);
    }
}

#[tokio::test]
async fn an_agent_is_lent_by_policy_and_each_signature_is_told() {
    for (agent, lent) in [("true", true), ("false", false)] {
        let (_sshd, gateway, ssh) = with_rights(&format!("agent = {agent}")).await;
        let line = "eval $(ssh-agent) > /dev/null; ssh-add -q $KEY; $SSH -A web@gate id; status=$?; kill $SSH_AGENT_PID; \
                    exit $status";
        let key = ssh.path("lent");
        crate::harness::make_key(&key, "lent");
        let done = ssh.bash(&line.replace("$KEY", &key.display().to_string()), SOON).await;
        assert_eq!(done.status, Some(0), "{done:?}");
        let row = gateway.admin().await.ended("web").await;
        let denied = row.events.iter().any(|e| e.kind == "ssh_agent" && e.status == EventStatus::Denied);
        assert_eq!(denied, !lent, "{:#?}", row.events);
    }
    let (_sshd, gateway, ssh) = gate().await;
    let key = ssh.path("lent");
    crate::harness::make_key(&key, "lent");
    let line = "eval $(ssh-agent) > /dev/null; ssh-add -q $KEY; \
                $SSH -A web@gate 'ssh-add -l && echo data > /tmp/x.$$ && ssh-keygen -Y sign -q -n file -f $KEY.pub /tmp/x.$$; \
                ssh-add $KEY; rm -f /tmp/x.$$*'; kill $SSH_AGENT_PID";
    let done = ssh.bash(&line.replace("$KEY", &key.display().to_string()), SOON).await;
    assert!(String::from_utf8_lossy(&done.stdout).contains("ED25519"), "{done:?}");
    let row = gateway.admin().await.ended("web").await;
    let used = |status| row.events.iter().any(|e| e.kind == "ssh_agent_use" && e.status == status);
    assert!(used(EventStatus::Success), "a signature: {:#?}", row.events);
    assert!(used(EventStatus::Denied), "a key that was to be added: {:#?}", row.events);
}
