//! What a forwarded connection begins with: whether it is a protocol that is not looked into inside a forward, because it
//! is encrypted (TLS, SSH) or has a socket type of its own (PostgreSQL, MySQL).
//!
//! Bytes that may still become such a hello are held back, so that none is passed on in pieces. A client that waits for
//! an answer has sent a whole message, and no whole message of another protocol is the beginning of one of these hellos
//! but by its own choice.

use bytes::{Bytes, BytesMut};

use super::{Fact, Outcome, Reading, Side, Step, Stop};

/// What a hello belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// A TLS record with a handshake in it (RFC 8446 section 5.1).
    Tls,
    /// An identification string (RFC 4253 section 4.2).
    Ssh,
    /// A start-up packet, an SSL or GSS request or a cancel request (PostgreSQL, "Message Formats").
    Postgres,
    /// A server's handshake packet, version 10 (MySQL, "Protocol::HandshakeV10").
    MySql,
}

/// What the first bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hello {
    /// One of those.
    Is(Protocol),
    /// None of those, whatever follows.
    No,
    /// More is needed.
    Perhaps,
}

/// Follows a forwarded connection.
pub struct Forwarded {
    input: Beginning,
    output: Beginning,
    /// Who forwards is at the server's end (`-R`).
    reversed: bool,
    carries: Option<Protocol>,
}

/// The first bytes of one direction, until they are known.
enum Beginning {
    Held(BytesMut),
    Known,
}

/// Refused, because it is not allowed to be carried.
const OPAQUE: Stop = Stop { words: "this forward may not carry TLS, SSH or SQL" };

impl Default for Forwarded {
    fn default() -> Self {
        let held = || Beginning::Held(BytesMut::new());
        Self { input: held(), output: held(), reversed: false, carries: None }
    }
}

impl Reading for Forwarded {
    fn input(&mut self, data: Bytes, may: bool, steps: &mut Vec<Step>) -> Result<(), Stop> {
        // Who has been answered, or answers, need not wait for more: what began already is known, and a single byte may
        // be all that is said (PostgreSQL's answer to an SSL request).
        let answers = self.is_known(&self.output);
        let judge = if self.reversed { from_server } else { from_client };
        let found = self.input.read(data, judge, answers, steps);
        self.carry(found, may, steps)
    }

    fn output(&mut self, data: Bytes, may: bool, steps: &mut Vec<Step>) -> Result<(), Stop> {
        let answers = self.is_known(&self.input);
        let judge = if self.reversed { from_client } else { from_server };
        let found = self.output.read(data, judge, answers, steps);
        self.carry(found, may, steps)
    }

    fn is_between(&self) -> bool {
        false
    }

    fn finish(&mut self, steps: &mut Vec<Step>) {
        // What never became more: nobody waits for it any longer, but it was sent.
        for (side, beginning) in [(Side::Client, &mut self.input), (Side::Upstream, &mut self.output)] {
            if let Beginning::Held(held) = std::mem::replace(beginning, Beginning::Known)
                && !held.is_empty()
            {
                steps.push(Step::Left(side, held.freeze()));
            }
        }
    }
}

impl Forwarded {
    /// One whose protocol's client is at the upstream and its server at the client.
    pub fn reversed() -> Self {
        Self { reversed: true, ..Self::default() }
    }

    fn is_known(&self, other: &Beginning) -> bool {
        self.carries.is_some() || matches!(other, Beginning::Known)
    }

    fn carry(&mut self, found: Option<Protocol>, may: bool, steps: &mut Vec<Step>) -> Result<(), Stop> {
        if let (Some(protocol), None) = (found, self.carries) {
            self.carries = found;
            let outcome = if may { Outcome::Done } else { Outcome::Denied };
            let about = serde_json::json!({ "carries": protocol.name() });
            steps.push(Step::Tell(Fact { kind: "ssh_forward_opaque", outcome, about }));
        }
        if self.carries.is_none() || may {
            return Ok(());
        }
        // It stands in the recording, and goes nowhere.
        for step in steps.iter_mut() {
            if let Step::Pass(data) = step {
                *step = Step::Refuse(std::mem::take(data));
            }
        }
        Err(OPAQUE)
    }
}

impl Beginning {
    /// Reads on; `answers` tells that the other side's beginning is known, so that nothing is held back for more.
    fn read(
        &mut self,
        data: Bytes,
        judge: fn(&[u8]) -> Hello,
        answers: bool,
        steps: &mut Vec<Step>,
    ) -> Option<Protocol> {
        let Self::Held(held) = self else {
            steps.push(Step::Pass(data));
            return None;
        };
        // Nearly always the first bytes come at once and are passed on as they are.
        let whole = if held.is_empty() { data } else { joined(held, &data) };
        match judge(&whole) {
            Hello::Perhaps if !answers => {
                *held = BytesMut::from(whole.as_ref());
                None
            }
            found => {
                *self = Self::Known;
                steps.push(Step::Pass(whole));
                if let Hello::Is(protocol) = found { Some(protocol) } else { None }
            }
        }
    }
}

impl Protocol {
    /// As it stands in events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Ssh => "ssh",
            Self::Postgres => "postgres",
            Self::MySql => "mysql",
        }
    }
}

/// What a client begins with.
pub fn from_client(data: &[u8]) -> Hello {
    first_of([tls(data), ssh(data), postgres(data)])
}

/// What a server begins with. In SSH and MySQL it may be the first to speak.
pub fn from_server(data: &[u8]) -> Hello {
    first_of([ssh(data), tls(data), mysql(data)])
}

fn first_of<const N: usize>(all: [Hello; N]) -> Hello {
    let is = all.into_iter().find(|hello| matches!(hello, Hello::Is(_)));
    let perhaps = all.contains(&Hello::Perhaps).then_some(Hello::Perhaps);
    is.or(perhaps).unwrap_or(Hello::No)
}

/// Handshake, version 3.x. SSL 2.0's hello, which RFC 8446 forbids, is let be: nothing answers it.
fn tls(data: &[u8]) -> Hello {
    prefix(data, &[0x16, 0x03], Protocol::Tls)
}

fn ssh(data: &[u8]) -> Hello {
    prefix(data, b"SSH-", Protocol::Ssh)
}

/// Length, then the protocol version 3.x or one of the request codes.
fn postgres(data: &[u8]) -> Hello {
    const CODES: std::ops::RangeInclusive<u16> = 5678..=5680;
    // No start-up packet is longer (`MAX_STARTUP_PACKET_LENGTH`).
    let fits = |at: usize, byte: u8| match at {
        0 | 1 => byte == 0,
        2 => byte <= 0x27,
        4 => matches!(byte, 0 | 4),
        5 => matches!(byte, 3 | 0xd2),
        _ => true,
    };
    let fitting = data.iter().take(8).enumerate().all(|(at, byte)| fits(at, *byte));
    match data {
        _ if !fitting => Hello::No,
        [_, _, _, _, 0, 3, ..] => Hello::Is(Protocol::Postgres),
        [_, _, _, _, 4, 0xd2, high, low, ..] => match CODES.contains(&u16::from_be_bytes([*high, *low])) {
            true => Hello::Is(Protocol::Postgres),
            false => Hello::No,
        },
        [_, _, _, _, 0, 0xd2, ..] | [_, _, _, _, 4, 3, ..] => Hello::No,
        _ => Hello::Perhaps,
    }
}

/// Three bytes of length, sequence 0, version 10; or an error packet in its place, as a blocked client gets.
fn mysql(data: &[u8]) -> Hello {
    match data {
        [_, high, 0, 0, 0x0a | 0xff, ..] if *high <= 1 => Hello::Is(Protocol::MySql),
        [_, high, 0, 0, ..] if *high <= 1 && data.len() == 4 => Hello::Perhaps,
        [_, high, 0] if *high <= 1 => Hello::Perhaps,
        [_, high] if *high <= 1 => Hello::Perhaps,
        [] | [_] => Hello::Perhaps,
        _ => Hello::No,
    }
}

fn prefix(data: &[u8], of: &[u8], protocol: Protocol) -> Hello {
    match data.len() < of.len() {
        _ if data.starts_with(of) => Hello::Is(protocol),
        true if of.starts_with(data) => Hello::Perhaps,
        _ => Hello::No,
    }
}

fn joined(held: &mut BytesMut, data: &[u8]) -> Bytes {
    held.extend_from_slice(data);
    std::mem::take(held).freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLOS: [(&[u8], Protocol); 7] = [
        (b"\x16\x03\x01\x02\x00\x01", Protocol::Tls),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Protocol::Ssh),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", Protocol::Postgres),
        (b"\0\0\0\x08\x04\xd2\x16\x30", Protocol::Postgres),
        (b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x02", Protocol::Postgres),
        (b"\0\0\0\x29\0\x03\0\0user\0", Protocol::Postgres),
        (b"\0\0\0\x29\0\x03\0\x02user\0", Protocol::Postgres),
    ];

    #[test]
    fn hellos_are_known_by_their_first_bytes_and_never_earlier() {
        for (hello, protocol) in HELLOS {
            assert_eq!(from_client(hello), Hello::Is(protocol), "{hello:?}");
            let known = (0..=hello.len()).find(|length| from_client(&hello[..*length]) != Hello::Perhaps).unwrap();
            assert_eq!(from_client(&hello[..known]), Hello::Is(protocol), "{hello:?}");
        }
        assert_eq!(from_server(b"J\0\0\0\x0a8.0.36\0"), Hello::Is(Protocol::MySql));
        assert_eq!(from_server(b"SSH-2.0-x\r\n"), Hello::Is(Protocol::Ssh));
        for plain in
            [b"GET / HTTP/1.1\r\n".as_slice(), b"*1\r\n$4\r\nPING\r\n", b"SSS", b"\x16\x02", b"\0\0\0\x08\0\0\0\0"]
        {
            assert_eq!(from_client(plain), Hello::No, "{plain:?}");
        }
        for plain in [b"HTTP/1.1 200 OK\r\n".as_slice(), b"220 mail ESMTP\r\n", b"+OK\r\n"] {
            assert_eq!(from_server(plain), Hello::No, "{plain:?}");
        }
    }

    fn passed(steps: &[Step]) -> Vec<u8> {
        let pass = |step: &Step| if let Step::Pass(data) = step { data.to_vec() } else { Vec::new() };
        steps.iter().flat_map(pass).collect()
    }

    #[test]
    fn a_hello_in_pieces_is_refused_before_any_of_it_is_passed_on() {
        for (hello, _) in HELLOS {
            for may in [false, true] {
                let (mut forwarded, mut steps) = (Forwarded::default(), Vec::new());
                let pieces = hello.chunks(1).map(Bytes::copy_from_slice);
                let read = pieces.map(|piece| forwarded.input(piece, may, &mut steps)).find(Result::is_err);
                assert_eq!(read.is_none(), may, "{hello:?}");
                assert_eq!(passed(&steps), if may { hello } else { b"" }, "{hello:?}");
                let told =
                    steps.iter().any(|step| matches!(step, Step::Tell(fact) if fact.about["carries"].is_string()));
                assert!(told, "{hello:?}");
            }
        }
    }

    #[test]
    fn a_short_answer_is_not_held_back() {
        for answer in [b"S".as_slice(), b"N", b"\x05\x00"] {
            let (mut forwarded, mut steps) = (Forwarded::default(), Vec::new());
            forwarded.input(Bytes::from_static(b"\0\0\0\x08\x04\xd2\x16\x2f"), true, &mut steps).unwrap();
            steps.clear();
            forwarded.output(Bytes::copy_from_slice(answer), true, &mut steps).unwrap();
            assert_eq!(passed(&steps), answer);
            let mut plain = Forwarded::default();
            plain.input(Bytes::from_static(b"\x05\x01\x00"), false, &mut steps).unwrap();
            steps.clear();
            plain.output(Bytes::copy_from_slice(answer), false, &mut steps).unwrap();
            assert_eq!(passed(&steps), answer);
        }
    }

    #[test]
    fn in_a_reversed_forward_the_client_is_at_the_upstream() {
        let (mut forwarded, mut steps) = (Forwarded::reversed(), Vec::new());
        let startup = Bytes::from_static(b"\0\0\0\x08\x04\xd2\x16\x2f");
        assert_eq!(forwarded.output(startup, false, &mut steps), Err(OPAQUE));
        let mut forwarded = Forwarded::reversed();
        assert_eq!(forwarded.input(Bytes::from_static(b"J\0\0\0\x0a8.0.36\0"), false, &mut steps), Err(OPAQUE));
    }

    #[test]
    fn a_right_that_is_lost_ends_what_is_carried_already() {
        let (mut forwarded, mut steps) = (Forwarded::default(), Vec::new());
        forwarded.input(Bytes::from_static(b"SSH-2.0-x\r\n"), true, &mut steps).unwrap();
        forwarded.output(Bytes::from_static(b"SSH-2.0-y\r\n"), true, &mut steps).unwrap();
        assert_eq!(forwarded.output(Bytes::from_static(b"more"), false, &mut steps), Err(OPAQUE));
    }

    #[test]
    fn what_is_none_passes_whole_and_what_was_held_is_written_down_at_the_end() {
        let (mut forwarded, mut steps) = (Forwarded::default(), Vec::new());
        for piece in [b"S".as_slice(), b"SET x\r\n", b"\x16\x03"] {
            forwarded.input(Bytes::copy_from_slice(piece), false, &mut steps).unwrap();
        }
        assert_eq!(passed(&steps), b"SSET x\r\n\x16\x03");
        let (mut forwarded, mut steps) = (Forwarded::default(), Vec::new());
        forwarded.output(Bytes::from_static(b"SSH"), false, &mut steps).unwrap();
        forwarded.finish(&mut steps);
        assert_eq!(steps, [Step::Left(Side::Upstream, Bytes::from_static(b"SSH"))]);
        let (mut forwarded, mut steps) = (Forwarded::default(), Vec::new());
        forwarded.input(Bytes::from_static(b"SSH"), false, &mut steps).unwrap();
        forwarded.finish(&mut steps);
        assert_eq!(steps, [Step::Left(Side::Client, Bytes::from_static(b"SSH"))]);
    }
}
