//! Packets, and a conversation with the reading in between.

use bytes::Bytes;
use serde_json::Value;

use crate::wire::Keep;
use crate::wire::sftp::Files;
use crate::wire::{Fact, Outcome, Reading, Step, Stop};

/// A field of a packet.
pub(super) enum Field<'a> {
    N(u32),
    L(u64),
    S(&'a [u8]),
}

pub(super) use Field::{L, N, S};

pub(super) fn raw(kind: u8, fields: &[Field<'_>]) -> Vec<u8> {
    let mut body = vec![kind];
    for field in fields {
        match field {
            N(number) => body.extend(number.to_be_bytes()),
            L(number) => body.extend(number.to_be_bytes()),
            S(string) => {
                body.extend((string.len() as u32).to_be_bytes());
                body.extend(*string);
            }
        }
    }
    let mut packet = (body.len() as u32).to_be_bytes().to_vec();
    packet.extend(body);
    packet
}

pub(super) fn packet(kind: u8, id: u32, fields: &[Field<'_>]) -> Vec<u8> {
    let mut all = vec![N(id)];
    all.extend(fields.iter().map(|field| match field {
        N(n) => N(*n),
        L(n) => L(*n),
        S(s) => S(s),
    }));
    raw(kind, &all)
}

pub(super) fn init(version: u32) -> Vec<u8> {
    raw(1, &[N(version)])
}

pub(super) fn version(version: u32) -> Vec<u8> {
    raw(2, &[N(version), S(b"limits@openssh.com"), S(b"1")])
}

pub(super) fn open(id: u32, path: &str, flags: u32) -> Vec<u8> {
    packet(3, id, &[S(path.as_bytes()), N(flags), N(0)])
}

pub(super) fn close(id: u32, handle: &[u8]) -> Vec<u8> {
    packet(4, id, &[S(handle)])
}

pub(super) fn read(id: u32, handle: &[u8], offset: u64) -> Vec<u8> {
    packet(5, id, &[S(handle), L(offset), N(32768)])
}

pub(super) fn write(id: u32, handle: &[u8], offset: u64, contents: &[u8]) -> Vec<u8> {
    packet(6, id, &[S(handle), L(offset), S(contents)])
}

pub(super) fn extended(id: u32, name: &str, fields: &[Field<'_>]) -> Vec<u8> {
    let mut all = vec![N(id), S(name.as_bytes())];
    all.extend(fields.iter().map(|field| match field {
        N(n) => N(*n),
        L(n) => L(*n),
        S(s) => S(s),
    }));
    raw(200, &all)
}

pub(super) fn status(id: u32, code: u32) -> Vec<u8> {
    packet(101, id, &[N(code), S(b"as it is"), S(b"")])
}

pub(super) fn handle(id: u32, handle: &[u8]) -> Vec<u8> {
    packet(102, id, &[S(handle)])
}

pub(super) fn data(id: u32, contents: &[u8]) -> Vec<u8> {
    packet(103, id, &[S(contents)])
}

pub(super) fn name(id: u32, names: &[&str]) -> Vec<u8> {
    let mut fields = vec![N(names.len() as u32)];
    for name in names {
        fields.extend([S(name.as_bytes()), S(b"long"), N(0)]);
    }
    packet(104, id, &fields)
}

/// What has come of a conversation, all of it put together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) to_server: Vec<u8>,
    pub(super) to_client: Vec<u8>,
    /// What a recording would have, by direction: input, output.
    pub(super) kept: [Vec<u8>; 2],
    pub(super) unkept: [u64; 2],
    pub(super) refused: Vec<u8>,
    pub(super) refused_unkept: u64,
    pub(super) answers: Vec<u8>,
    pub(super) facts: Vec<Fact>,
}

impl Seen {
    pub(super) fn add(&mut self, direction: usize, steps: Vec<Step>) {
        for step in steps {
            match &step {
                Step::Pass(bytes) => {
                    self.kept[direction].extend(bytes);
                    [&mut self.to_server, &mut self.to_client][direction].extend(bytes);
                }
                Step::PassUnkept(bytes) => {
                    self.unkept[direction] += bytes.len() as u64;
                    [&mut self.to_server, &mut self.to_client][direction].extend(bytes);
                }
                Step::Refuse(bytes) => self.refused.extend(bytes),
                Step::RefuseUnkept(length) => self.refused_unkept += length,
                Step::Left(..) => panic!("{step:?}"),
                Step::Answer(bytes) => self.answers.extend(bytes),
                Step::Tell(fact) => self.facts.push(fact.clone()),
            }
        }
    }
}

/// A conversation.
pub(super) struct Talk {
    pub(super) files: Files,
    pub(super) seen: Seen,
    pub(super) may_write: bool,
}

impl Talk {
    /// Before INIT.
    pub(super) fn new(keep: Keep) -> Self {
        Self { files: Files::new(keep), seen: Seen::default(), may_write: true }
    }

    /// Both have said their version; what passed for that is forgotten.
    pub(super) fn begun(may_write: bool) -> Self {
        let mut talk = Self::new(Keep::Metadata);
        talk.client(&init(3)).unwrap();
        talk.server(&version(3)).unwrap();
        talk.seen = Seen::default();
        talk.may_write = may_write;
        talk
    }

    /// With a file open for all there is, by handle `h`; request 0 was for that.
    pub(super) fn with_file(flags: u32) -> Self {
        let mut talk = Self::begun(true);
        talk.both(&open(0, "a", flags), &handle(0, b"h"));
        talk.seen = Seen::default();
        talk
    }

    pub(super) fn client(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let mut steps = Vec::new();
        let read = self.files.input(Bytes::copy_from_slice(bytes), self.may_write, &mut steps);
        self.seen.add(0, steps);
        read
    }

    pub(super) fn server(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let mut steps = Vec::new();
        let read = self.files.output(Bytes::copy_from_slice(bytes), true, &mut steps);
        self.seen.add(1, steps);
        read
    }

    /// A request and its answer.
    pub(super) fn both(&mut self, request: &[u8], reply: &[u8]) {
        self.client(request).unwrap();
        self.server(reply).unwrap();
    }

    pub(super) fn finish(&mut self) {
        let mut steps = Vec::new();
        self.files.finish(&mut steps);
        self.seen.add(0, steps);
    }

    /// What was told since it was asked last.
    pub(super) fn told(&mut self) -> Vec<(Outcome, Value)> {
        std::mem::take(&mut self.seen.facts).into_iter().map(|fact| (fact.outcome, fact.about)).collect()
    }
}
