//! A load balancer before the gateway: its PROXY protocol header is the client's address everywhere, and only its.

use std::time::Duration;

use gatescribe::store::SessionRow;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::balancer::{self, TRUSTED};
use crate::harness::{Balancer, Browser, Gateway, SOON, Setup, Ssh, Sshd, eventually, free_port, within};

/// Version 2 of 203.0.113.7:50000 to 198.51.100.1:443, with a part of unknown type behind.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11\xcb\0\x71\x07\xc6\x33\x64\x01\xc3\x50\x01\xbb\xea\0\x02hi";

const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

async fn gate(more: &str) -> (Sshd, Gateway) {
    let sshd = Sshd::start().await;
    let gateway = setup(&sshd, more).start().await;
    (sshd, gateway)
}

fn setup(sshd: &Sshd, more: &str) -> Setup {
    let trusted = format!("proxy_protocol_from = [\"{TRUSTED}\"]");
    Setup::new().gateway(&trusted).ssh("web", sshd).more(more)
}

/// Signs alice in from a machine and with a browser behind balancers, and returns the row.
async fn row_through(gateway: &Gateway, ssh: &Balancer, browser: &Balancer) -> (SessionRow, String) {
    let machine = Ssh::new(ssh.port);
    let mut sign_in = machine.sign_in(&["web@gate", "true"]).await;
    let mut browser = Browser::through(&gateway.ca(), browser.address);
    let page = browser.sign_in(&sign_in.link, "alice").await;
    let text = page.text();
    sign_in.answer(&browser.submit(&page.form("approve")).await.digits().unwrap());
    assert_eq!(sign_in.ssh.finish(SOON).await.status, Some(0));
    (gateway.admin().await.ended("web").await, text)
}

#[tokio::test]
async fn the_client_that_the_header_names_is_in_the_row_and_on_the_page() {
    let (_sshd, gateway) = gate("").await;
    let headers = [
        (balancer::v1("203.0.113.7"), "203.0.113.7"),
        (V2.to_vec(), "203.0.113.7"),
        (balancer::v1("2001:db8::7"), "2001:db8::7"),
    ];
    for (header, client) in headers {
        let ssh = Balancer::start(gateway.ssh, header.clone()).await;
        let browser = Balancer::start(gateway.https, header).await;
        // Were the browser's address another one, there would be a warning and nothing to approve.
        let (row, page) = row_through(&gateway, &ssh, &browser).await;
        let seen = (row.client_ip.as_str(), row.client_port.as_str(), row.server_port.as_str());
        assert_eq!(seen, (client, "50000", "443"));
        assert!(page.contains(client) && !page.contains("127.0.0."), "{page}");
    }
}

#[tokio::test]
async fn two_clients_of_one_balancer_are_two_places() {
    let (_sshd, gateway) = gate("").await;
    let ssh = Balancer::of("203.0.113.7", gateway.ssh).await;
    let other = Balancer::of("203.0.113.8", gateway.https).await;
    let machine = Ssh::new(ssh.port);
    let sign_in = machine.sign_in(&["web@gate", "true"]).await;
    let page = Browser::through(&gateway.ca(), other.address).sign_in(&sign_in.link, "alice").await.text();
    assert!(page.contains("Two different places"), "{page}");
    assert!(page.contains("203.0.113.7") && page.contains("203.0.113.8"), "{page}");
}

#[tokio::test]
async fn a_balancer_that_speaks_for_itself_is_the_client() {
    let (_sshd, gateway) = gate("").await;
    for header in [V2_LOCAL, b"PROXY UNKNOWN\r\n"] {
        let ssh = Balancer::start(gateway.ssh, header).await;
        let browser = Balancer::start(gateway.https, header).await;
        let (row, _) = row_through(&gateway, &ssh, &browser).await;
        assert_eq!((row.client_ip.as_str(), row.server_port), (TRUSTED, gateway.ssh.to_string()));
    }
}

#[tokio::test]
async fn a_socket_s_own_port_has_the_header_too() {
    let sshd = Sshd::start().await;
    let own = free_port();
    let line = format!("listen = \"127.0.0.1:{own}\"");
    let trusted = format!("proxy_protocol_from = [\"{TRUSTED}/31\"]");
    let gateway = Setup::new().gateway(&trusted).ssh_with("web", &sshd, &line).start().await;
    let balancer = Balancer::start(own, V2).await;
    let browser = Balancer::start(gateway.https, V2).await;
    let (row, _) = row_through(&gateway, &balancer, &browser).await;
    assert_eq!(row.client_ip, "203.0.113.7");
}

#[tokio::test]
async fn nobody_else_can_claim_an_address() {
    let (_sshd, gateway) = gate("").await;
    for header in [balancer::v1("203.0.113.7"), V2.to_vec()] {
        let mut stream = TcpStream::connect(("127.0.0.1", gateway.ssh)).await.unwrap();
        stream.write_all(&[&header[..], b"SSH-2.0-x\r\n"].concat()).await.unwrap();
        let said = within(SOON, "the gateway hangs up", until_closed(&mut stream)).await;
        assert!(said.contains("this port speaks SSH"), "the header is taken for what it is not: {said:?}");
        let mut stream = TcpStream::connect(("127.0.0.1", gateway.https)).await.unwrap();
        stream.write_all(&header).await.unwrap();
        within(SOON, "the gateway hangs up", until_closed(&mut stream)).await;
    }
    let ssh = gateway.signed_in("alice", "web").await;
    assert_eq!(ssh.run("web", "true").await.status, Some(0));
    assert_eq!(gateway.admin().await.ended("web").await.client_ip, "127.0.0.1");
}

#[tokio::test]
async fn a_trusted_connection_without_a_good_header_is_closed() {
    let (_sshd, gateway) = gate("").await;
    let bad: [&[u8]; 4] = [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"PROXY TCP4 nonsense\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c............",
        // Never finished: the deadline ends it.
        b"PROXY TCP4 203.0.1",
    ];
    let mut waiting = Vec::new();
    for bytes in bad {
        for port in [gateway.ssh, gateway.https] {
            let mut stream = balancer::connect(port).await;
            stream.write_all(bytes).await.unwrap();
            waiting.push(stream);
        }
    }
    // Meanwhile others are served.
    let machine = gateway.signed_in("alice", "web").await;
    assert_eq!(machine.run("web", "true").await.status, Some(0));
    for mut stream in waiting {
        let said = within(SOON, "it is hung up on", until_closed(&mut stream)).await;
        assert_eq!(said, "", "not a byte is answered");
    }
}

#[tokio::test]
async fn limits_count_the_client_and_not_the_balancer() {
    let (_sshd, gateway) = gate("[limits]\nconnections_per_address = 2\n").await;
    let mut held = Vec::new();
    for client in ["203.0.113.1", "203.0.113.2", "203.0.113.3"] {
        for _ in 0..2 {
            held.push(greeted(&gateway, client).await.expect("each client has its own share"));
        }
    }
    assert!(greeted(&gateway, "203.0.113.1").await.is_none(), "a third of one client is one too many");
    assert!(greeted(&gateway, "203.0.113.4").await.is_some(), "another client gets in");
    held.clear();
    eventually("the places are given back", SOON, async || greeted(&gateway, "203.0.113.1").await).await;
}

/// A connection of this client that got the gateway's greeting.
async fn greeted(gateway: &Gateway, client: &str) -> Option<TcpStream> {
    let mut stream = balancer::connect(gateway.ssh).await;
    stream.write_all(&balancer::v1(client)).await.unwrap();
    stream.write_all(b"SSH-2.0-x\r\n").await.ok()?;
    let mut first = [0; 4];
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_exact(&mut first)).await.unwrap();
    read.is_ok_and(|_| &first == b"SSH-").then_some(stream)
}

async fn until_closed(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}
