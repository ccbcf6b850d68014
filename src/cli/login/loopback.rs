//! The server that a browser is sent back to (RFC 8252 section 7.3): on 127.0.0.1, any port, for one answer. Every
//! connection has its own task and deadline, because browsers open some that they never use.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use reqwest::Url;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::identity::random;

/// A bound listener.
pub(super) struct Loopback {
    listener: TcpListener,
    port: u16,
}

/// What the browser brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Returned {
    /// An authorization code.
    Code(String),
    /// An error of RFC 6749 section 4.1.2.1.
    Refused(String),
}

impl Loopback {
    pub async fn bind() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no port on 127.0.0.1 can be had")?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, port })
    }

    /// Where the gateway is to send the browser.
    pub fn redirect_uri(&self) -> String {
        format!("http://127.0.0.1:{}/callback", self.port)
    }

    /// Waits for the browser that brings this state; whoever brings another one is turned away.
    pub async fn wait(self, state: &str, issuer: &str) -> anyhow::Result<Returned> {
        let expected = Arc::new((state.to_owned(), issuer.to_owned()));
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let (sender, mut receiver) = mpsc::channel(1);
        loop {
            tokio::select! {
                biased;
                Some(returned) = receiver.recv() => return Ok(returned),
                accepted = self.listener.accept() => {
                    let (stream, _) = accepted.context("the port on 127.0.0.1 failed")?;
                    let Ok(place) = places.clone().try_acquire_owned() else { continue };
                    let (sender, expected) = (sender.clone(), expected.clone());
                    tokio::spawn(async move {
                        let _place = place;
                        if let Ok(Some(returned)) = timeout(CONNECTION, answer(stream, &expected)).await {
                            let _only_the_first_counts = sender.try_send(returned);
                        }
                    });
                }
            }
        }
    }
}

/// Reads a request's head and answers it.
async fn answer(mut stream: TcpStream, expected: &(String, String)) -> Option<Returned> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() > LONGEST_HEAD || stream.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let returned = read(&head, &expected.0, &expected.1);
    let (status, words) = match &returned {
        Some(Returned::Code(_)) => ("200 OK", "The command line is signed in. You may close this page."),
        Some(Returned::Refused(_)) => ("200 OK", "The command line is not signed in. You may close this page."),
        None => ("400 Bad Request", "This page is only for a sign-in that is under way."),
    };
    let page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Gatescribe</title><p>{words}</p></html>"
    );
    let reply = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\
         Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\n\
         Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n\r\n{page}",
        page.len()
    );
    // The answer counts also when the browser does not wait for its page.
    let _ = stream.write_all(reply.as_bytes()).await;
    let _ = stream.shutdown().await;
    returned
}

/// What a request brings, if it is the one that is waited for.
fn read(head: &[u8], state: &str, issuer: &str) -> Option<Returned> {
    let line = std::str::from_utf8(head.split(|byte| *byte == b'\r').next()?).ok()?;
    let target = line.strip_prefix("GET ")?.strip_suffix(" HTTP/1.1")?;
    let url = Url::parse("http://127.0.0.1").ok()?.join(target).ok()?;
    if url.host_str() != Some("127.0.0.1") || url.path() != "/callback" {
        return None;
    }
    // A parameter that comes twice is none (RFC 6749 section 3.1).
    let one = |name: &str| {
        let mut all = url.query_pairs().filter(|(known, _)| known == name).map(|(_, value)| value.into_owned());
        all.next().filter(|_| all.next().is_none())
    };
    let is_ours = one("state").is_some_and(|given| random::same(&given, state));
    // RFC 9207 section 2.4: the gateway always says who answers, so that an answer without it is somebody else's.
    let is_theirs = one("iss").is_some_and(|given| given == issuer);
    if !is_ours || !is_theirs {
        return None;
    }
    match (one("code"), one("error")) {
        (Some(code), None) if !code.is_empty() => Some(Returned::Code(code)),
        (None, Some(error)) => Some(Returned::Refused(error)),
        _ => None,
    }
}

/// At once; a browser opens a few.
const CONNECTIONS: usize = 16;
const CONNECTION: Duration = Duration::from_secs(10);
/// In bytes.
const LONGEST_HEAD: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answer_that_is_waited_for_counts() {
        let (code, iss) = (Some(Returned::Code("c".into())), "iss=https%3A%2F%2Fa.example.com");
        let table = [
            ("GET /callback?code=c&state=s&ISS HTTP/1.1", code.clone()),
            ("GET /callback?state=s&iss=https://a.example.com&code=c HTTP/1.1", code.clone()),
            ("GET /callback?error=access_denied&state=s&ISS HTTP/1.1", Some(Returned::Refused("access_denied".into()))),
            ("GET /callback?code=c&state=s HTTP/1.1", None),
            ("GET /callback?code=c&state=s&iss= HTTP/1.1", None),
            ("GET /callback?code=c&state=s&ISS&ISS HTTP/1.1", None),
            ("GET /callback?error=access_denied&state=s HTTP/1.1", None),
            ("GET /callback?code=c&state=other&ISS HTTP/1.1", None),
            ("GET /callback?code=c&ISS HTTP/1.1", None),
            ("GET /callback?code=c&state=s&state=s&ISS HTTP/1.1", None),
            ("GET /callback?code=c&code=d&state=s&ISS HTTP/1.1", None),
            ("GET /callback?code=c&error=x&state=s&ISS HTTP/1.1", None),
            ("GET /callback?code=&state=s&ISS HTTP/1.1", None),
            ("GET /callback?code=c&state=s&iss=https://b.example.com HTTP/1.1", None),
            ("GET /callback?state=s&ISS HTTP/1.1", None),
            ("GET /other?code=c&state=s&ISS HTTP/1.1", None),
            ("GET http://evil.example.com/callback?code=c&state=s&ISS HTTP/1.1", None),
            ("POST /callback?code=c&state=s&ISS HTTP/1.1", None),
            ("GET /callback?code=c&state=s&ISS", None),
            ("", None),
        ];
        for (line, expected) in table {
            let head = format!("{}\r\nHost: 127.0.0.1\r\n\r\n", line.replace("ISS", iss));
            assert_eq!(read(head.as_bytes(), "s", "https://a.example.com"), expected, "{line}");
        }
        assert_eq!(read(b"\xff\xfe\r\n\r\n", "s", "i"), None);
    }

    #[tokio::test]
    async fn silent_and_wrong_visitors_do_not_keep_the_right_one_out() {
        let loopback = Loopback::bind().await.unwrap();
        let port = loopback.port;
        let visit = async |request: &str| {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let visits = async {
            let _silent = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
            let wrong = visit("GET /callback?code=evil&state=guess HTTP/1.1\r\n\r\n").await;
            assert!(wrong.starts_with("HTTP/1.1 400") && !wrong.contains("guess"), "{wrong}");
            let right = visit("GET /callback?code=c&state=s&iss=i HTTP/1.1\r\nHost: x\r\n\r\n").await;
            assert!(right.starts_with("HTTP/1.1 200") && right.contains("You may close this page"), "{right}");
        };
        let (returned, ()) = tokio::join!(loopback.wait("s", "i"), visits);
        assert_eq!(returned.unwrap(), Returned::Code("c".into()));
    }
}
