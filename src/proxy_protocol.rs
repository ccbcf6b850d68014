//! The PROXY protocol, versions 1 and 2 (HAProxy's `proxy-protocol.txt`): what a load balancer says about the client
//! before the client's own first byte. Whose word counts is decided in `accept`; here it is only read.
//!
//! A header is required, and not one byte behind it is taken from the stream. LOCAL and UNKNOWN, which balancers send
//! for their own health checks, name nobody: then the balancer itself is the client.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ppp::{HeaderResult, PartialResult, v1, v2};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a header may take; a balancer sends it with the connection's first packet.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// The longest header. Version 1 has at most 107 bytes; version 2 may append what is of no use here, up to 64 KiB.
const LONGEST: usize = 4096;

/// The longest header of version 1 (section 2.1).
const LONGEST_V1: usize = 107;

/// Before the addresses of version 2: signature, command, family, length (section 2.2).
const FIXED_V2: usize = 16;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// A connection that was passed on.
    Proxied {
        /// Where the client is.
        client: SocketAddr,
        /// The address that the client reached.
        reached: SocketAddr,
    },
    /// The sender speaks for itself (LOCAL), or does not know for whom (UNKNOWN, a family other than IP).
    Itself,
}

/// Why a connection has no usable header.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// It was closed before the first byte, as the plainest health checks do.
    #[error("closed without a byte")]
    Silent,
    /// It did not come in time.
    #[error("no PROXY protocol header in time")]
    Late,
    /// What came is something else.
    #[error("no PROXY protocol header: {0}")]
    Malformed(&'static str),
    /// The connection failed.
    #[error("reading the PROXY protocol header: {0}")]
    Io(#[from] io::Error),
}

/// Takes the header off the stream, and nothing else. Not cancel safe: what was read is gone.
pub async fn read(stream: &mut TcpStream) -> Result<Said, HeaderError> {
    timeout(PATIENCE, read_patiently(stream)).await.unwrap_or(Err(HeaderError::Late))
}

async fn read_patiently(stream: &mut TcpStream) -> Result<Said, HeaderError> {
    let mut header: Vec<u8> = Vec::with_capacity(LONGEST_V1);
    let mut ahead = [0; 512];
    loop {
        let seen = stream.peek(&mut ahead).await?;
        if seen == 0 && header.is_empty() {
            return Err(HeaderError::Silent);
        }
        if seen == 0 {
            return Err(HeaderError::Malformed("it ends early"));
        }
        let already = header.len();
        header.extend_from_slice(ahead.get(..seen).unwrap_or_default());
        let end = end(&header)?;
        header.truncate(end.unwrap_or(usize::MAX));
        // What was looked at is taken, so the next look waits for more; what stands behind the header stays.
        let taken = ahead.get_mut(..header.len() - already).unwrap_or_default();
        stream.read_exact(taken).await?;
        if end == Some(header.len()) {
            return parse(&header);
        }
    }
}

/// Where the header that starts like this ends, once that can be told.
fn end(start: &[u8]) -> Result<Option<usize>, HeaderError> {
    let is_start_of = |whole: &[u8]| whole.iter().zip(start).all(|(expected, seen)| expected == seen);
    if is_start_of(v2::PROTOCOL_PREFIX) {
        let Some(length) = start.get(FIXED_V2 - 2..FIXED_V2) else { return Ok(None) };
        let length: usize = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        return match FIXED_V2 + length {
            end if end > LONGEST => Err(HeaderError::Malformed("it is too long")),
            end => Ok(Some(end)),
        };
    }
    if !is_start_of(b"PROXY ") {
        return Err(HeaderError::Malformed("the connection starts with something else"));
    }
    let line = start.get(..LONGEST_V1).unwrap_or(start);
    match line.iter().position(|byte| *byte == b'\n') {
        None if start.len() >= LONGEST_V1 => Err(HeaderError::Malformed("its line is too long")),
        found => Ok(found.map(|at| at + 1)),
    }
}

/// A whole header, and nothing else.
fn parse(header: &[u8]) -> Result<Said, HeaderError> {
    let parsed = HeaderResult::parse(header);
    if parsed.is_incomplete() {
        return Err(HeaderError::Malformed("its parts do not fit its length"));
    }
    match parsed {
        HeaderResult::V1(Ok(header)) => match header.addresses {
            v1::Addresses::Tcp4(a) => {
                said((a.source_address.into(), a.source_port), (a.destination_address.into(), a.destination_port))
            }
            v1::Addresses::Tcp6(a) => {
                said((a.source_address.into(), a.source_port), (a.destination_address.into(), a.destination_port))
            }
            v1::Addresses::Unknown => Ok(Said::Itself),
        },
        HeaderResult::V2(Ok(header)) => match (header.command, header.protocol, header.addresses) {
            (v2::Command::Local, ..) => Ok(Said::Itself),
            (_, v2::Protocol::Datagram, _) => Err(HeaderError::Malformed("it speaks of datagrams")),
            (_, _, v2::Addresses::IPv4(a)) => {
                said((a.source_address.into(), a.source_port), (a.destination_address.into(), a.destination_port))
            }
            (_, _, v2::Addresses::IPv6(a)) => {
                said((a.source_address.into(), a.source_port), (a.destination_address.into(), a.destination_port))
            }
            (_, _, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => Ok(Said::Itself),
        },
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Err(HeaderError::Malformed("it cannot be read")),
    }
}

fn said(client: (IpAddr, u16), reached: (IpAddr, u16)) -> Result<Said, HeaderError> {
    let address = |(ip, port): (IpAddr, u16)| SocketAddr::new(ip.to_canonical(), port);
    let (client, reached) = (address(client), address(reached));
    match client.ip().is_unspecified() || client.ip().is_multicast() {
        true => Err(HeaderError::Malformed("nobody can be at the client's address")),
        false => Ok(Said::Proxied { client, reached }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    fn v2_header(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut header = v2::PROTOCOL_PREFIX.to_vec();
        header.extend([0x20 | command, family]);
        header.extend((body.len() as u16).to_be_bytes());
        header.extend_from_slice(body);
        header
    }

    fn v2_ipv4(more: &[u8]) -> Vec<u8> {
        let body = [&[192, 0, 2, 7, 198, 51, 100, 1, 0xc3, 0x50, 0x08, 0xae], more].concat();
        v2_header(1, 0x11, &body)
    }

    fn proxied(client: &str, reached: &str) -> Said {
        Said::Proxied { client: client.parse().unwrap(), reached: reached.parse().unwrap() }
    }

    /// A whole header as it is found at the start of `bytes`.
    fn understood(bytes: &[u8]) -> Result<Option<(Said, usize)>, HeaderError> {
        match end(bytes)? {
            Some(end) if end <= bytes.len() => parse(&bytes[..end]).map(|said| Some((said, end))),
            _ => Ok(None),
        }
    }

    #[test]
    fn both_versions_are_read() {
        let v6 = [[0x20, 1, 0xd, 0xb8], [0; 4], [0; 4], [0, 0, 0, 9]].concat();
        let v6 = v2_header(1, 0x21, &[&v6[..], &v6, &[0, 5, 0, 6]].concat());
        let mapped = [[0; 4], [0; 4], [0, 0, 0xff, 0xff], [192, 0, 2, 7]].concat();
        let mapped = v2_header(1, 0x21, &[&mapped[..], &mapped, &[0, 5, 0, 6]].concat());
        let table: Vec<(Vec<u8>, Said)> = vec![
            (
                b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 2222\r\n".into(),
                proxied("192.0.2.7:50000", "198.51.100.1:2222"),
            ),
            (b"PROXY TCP6 2001:db8::9 ::1 5 6\r\n".into(), proxied("[2001:db8::9]:5", "[::1]:6")),
            (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 5 6\r\n".into(), proxied("192.0.2.7:5", "[::1]:6")),
            (b"PROXY UNKNOWN\r\n".into(), Said::Itself),
            (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n".into(), Said::Itself),
            (v2_ipv4(&[]), proxied("192.0.2.7:50000", "198.51.100.1:2222")),
            (v2_ipv4(&[0x04, 0, 2, 9, 9]), proxied("192.0.2.7:50000", "198.51.100.1:2222")),
            (v6, proxied("[2001:db8::9]:5", "[2001:db8::9]:6")),
            (mapped, proxied("192.0.2.7:5", "192.0.2.7:6")),
            (v2_header(0, 0, &[]), Said::Itself),
            (v2_header(0, 0x11, &[0; 12]), Said::Itself),
            (v2_header(1, 0, &[]), Said::Itself),
            (v2_header(1, 0x31, &[0; 216]), Said::Itself),
        ];
        for (header, expected) in table {
            let bytes = [&header[..], b"SSH-2.0-x\r\n"].concat();
            assert_eq!(understood(&bytes).unwrap(), Some((expected, header.len())), "{:?}", header.escape_ascii());
        }
    }

    #[test]
    fn what_is_no_header_is_told_at_once() {
        let long = [&b"PROXY TCP4 "[..], &[b'1'; 100]].concat();
        let table: Vec<Vec<u8>> = vec![
            b"S".into(),
            b"SSH-2.0-OpenSSH_9.2\r\n".into(),
            b"\x16\x03\x01".into(),
            b"GET / HTTP/1.1\r\n".into(),
            b"proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n".into(),
            b"PROXY\r\n".into(),
            b"PROXY TCP4\r\n".into(),
            b"PROXY TCP4 192.0.2.7 198.51.100.1 50000\r\n".into(),
            b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 2222\n".into(),
            b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 99999\r\n".into(),
            b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 2222 x\r\n".into(),
            b"PROXY TCP4 2001:db8::9 ::1 5 6\r\n".into(),
            b"PROXY TCP4 0.0.0.0 198.51.100.1 50000 2222\r\n".into(),
            b"PROXY TCP4 224.0.0.1 198.51.100.1 50000 2222\r\n".into(),
            b"PROXY UDP4 192.0.2.7 198.51.100.1 50000 2222\r\n".into(),
            b"PROXY TCP4 \xff\xff 198.51.100.1 50000 2222\r\n".into(),
            long,
            v2_header(1, 0x11, &[0; 11]),
            v2_header(1, 0x12, &[1; 12]),
            v2_header(2, 0x11, &[1; 12]),
            v2_header(1, 0x51, &[1; 12]),
            v2_header(1, 0x11, &[1; LONGEST - FIXED_V2 + 1]),
            b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x0c".iter().copied().chain([1; 12]).collect(),
        ];
        for bytes in table {
            assert!(understood(&bytes).is_err(), "{}", bytes.escape_ascii());
        }
        assert!(understood(&v2_header(1, 0x11, &[1; LONGEST - FIXED_V2])).unwrap().is_some(), "the longest is read");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(start in 0..3usize, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let start: &[u8] = [&b""[..], b"PROXY TCP4 ", v2::PROTOCOL_PREFIX][start];
            let _ = understood(&[start, &bytes].concat());
        }

        #[test]
        fn a_part_of_a_header_waits_for_the_rest(cut in 0..54usize) {
            let v1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 2222\r\n".to_vec();
            for header in [v1, v2_ipv4(&[])] {
                if cut < header.len() {
                    prop_assert_eq!(understood(&header[..cut]).unwrap(), None);
                }
            }
        }
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn what_stands_behind_the_header_stays_in_the_stream() {
        for header in [b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 2222\r\n".to_vec(), v2_ipv4(&[0; 700])] {
            let (mut client, mut stream) = pair().await;
            let writing = tokio::spawn(async move {
                // In pieces, so that the header comes in several reads and its end together with what follows.
                for piece in [&header[..], b"SSH-2.0-x\r\n"].concat().chunks(20) {
                    client.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            });
            assert_eq!(read(&mut stream).await.unwrap(), proxied("192.0.2.7:50000", "198.51.100.1:2222"));
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"SSH-2.0-x\r\n");
            writing.await.unwrap();
        }
    }

    #[tokio::test]
    async fn who_says_nothing_or_breaks_off_is_told_apart() {
        let (client, mut stream) = pair().await;
        drop(client);
        assert!(matches!(read(&mut stream).await, Err(HeaderError::Silent)));
        let (mut client, mut stream) = pair().await;
        client.write_all(b"PROXY TCP4").await.unwrap();
        drop(client);
        assert!(matches!(read(&mut stream).await, Err(HeaderError::Malformed(_))));
    }
}
