//! A collector of traces: takes OTLP over HTTP and reads of the protobuf what tests look at (opentelemetry-proto
//! `trace/v1/trace.proto`).

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A span as it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub name: String,
    pub trace: Vec<u8>,
    pub id: Vec<u8>,
    pub parent: Vec<u8>,
    /// Attributes that are text.
    pub attributes: Vec<(String, String)>,
}

/// A running collector.
pub struct Collector {
    pub url: String,
    received: Arc<Mutex<Received>>,
    running: JoinHandle<()>,
}

#[derive(Default)]
struct Received {
    spans: Vec<Span>,
    /// The names of who sent them.
    services: Vec<String>,
    /// All bodies, as they came.
    bytes: Vec<u8>,
    connections: usize,
}

impl Collector {
    /// One that answers.
    pub async fn start() -> Self {
        Self::with(true).await
    }

    /// One that takes connections and never answers.
    pub async fn silent() -> Self {
        Self::with(false).await
    }

    async fn with(answers: bool) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let received = Arc::new(Mutex::new(Received::default()));
        let into = received.clone();
        let running = tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                into.lock().unwrap().connections += 1;
                match answers {
                    true => drop(tokio::spawn(serve(stream, into.clone()))),
                    false => held.push(stream),
                }
            }
        });
        Self { url, received, running }
    }

    pub fn spans(&self) -> Vec<Span> {
        self.received.lock().unwrap().spans.clone()
    }

    pub fn services(&self) -> Vec<String> {
        self.received.lock().unwrap().services.clone()
    }

    pub fn connections(&self) -> usize {
        self.received.lock().unwrap().connections
    }

    /// Whether these bytes were sent anywhere in a body.
    pub fn contains(&self, text: &str) -> bool {
        let received = self.received.lock().unwrap();
        received.bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn serve(mut stream: TcpStream, into: Arc<Mutex<Received>>) {
    let mut bytes = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        assert!(head.starts_with("post /v1/traces "), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let length: usize = length.trim().parse().unwrap();
        while bytes.len() < end + length {
            if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                return;
            }
        }
        into.lock().unwrap().take(&bytes[end..end + length]);
        bytes.drain(..end + length);
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n")
            .await;
    }
}

impl Received {
    fn take(&mut self, body: &[u8]) {
        self.bytes.extend_from_slice(body);
        for resource_spans in all(body, 1) {
            let resource = all(resource_spans, 1).concat();
            self.services.extend(texts(&resource, 1).into_iter().filter(|(k, _)| k == "service.name").map(|(_, v)| v));
            for span in all(resource_spans, 2).iter().flat_map(|scope| all(scope, 2)) {
                let one = |field| all(span, field).concat();
                let name = String::from_utf8(one(5)).unwrap();
                self.spans.push(Span { name, trace: one(1), id: one(2), parent: one(4), attributes: texts(span, 9) });
            }
        }
    }
}

/// `KeyValue`s in this field whose value is text.
fn texts(message: &[u8], field: u64) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let pair = |pair: &&[u8]| {
        let value = all(pair, 2).concat();
        Some((text(all(pair, 1).first()?), text(all(&value, 1).first()?)))
    };
    all(message, field).iter().filter_map(pair).collect()
}

/// What stands in this field, of those that have a length.
fn all(mut message: &[u8], field: u64) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        let length = match key & 7 {
            0 => {
                varint(&mut message);
                continue;
            }
            1 => 8,
            5 => 4,
            2 => varint(&mut message) as usize,
            other => panic!("wire type {other}"),
        };
        let (value, rest) = message.split_at(length);
        if key == field << 3 | 2 {
            found.push(value);
        }
        message = rest;
    }
    found
}

fn varint(message: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first().expect("a whole number");
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}
