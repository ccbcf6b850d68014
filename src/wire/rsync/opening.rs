//! How two rsyncs agree (compat.c, `setup_protocol()`): versions, what the server can do, which checksum and which
//! compression.

use super::Options;
use super::cursor::{Cursor, Result, Trouble};
use super::list::Form;

/// What both sides have said so far.
#[derive(Debug, Default)]
pub(super) struct Opening {
    client_version: Option<u32>,
    server_version: Option<u32>,
    compat: Option<u32>,
    checksums: Lists,
    compressions: Lists,
    seeded: bool,
}

/// The names that each side knows, best first.
#[derive(Debug, Default)]
struct Lists {
    client: Option<Vec<u8>>,
    server: Option<Vec<u8>>,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

/// What a side says next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Version,
    Compat,
    Checksums,
    Compressions,
    Seed,
    /// Its part is done.
    Nothing,
}

/// What was agreed on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Agreed {
    pub(super) form: Form,
    pub(super) compressed: bool,
    /// Hard links come without the attributes of their file.
    pub(super) xattrs_left_out: bool,
    /// Length of the checksum behind a file's contents.
    pub(super) sum_length: usize,
}

impl Opening {
    /// The protocol that both speak, once both have said which.
    pub(super) fn protocol(&self) -> Option<u32> {
        Some(self.client_version?.min(self.server_version?))
    }

    /// What a side says next. `None`: that depends on what the other has not said yet, for which it has to wait.
    pub(super) fn next(&self, side: Side, options: &Options) -> Option<Word> {
        let has_spoken = match side {
            Side::Client => self.client_version.is_some(),
            Side::Server => self.server_version.is_some(),
        };
        if !has_spoken {
            return Some(Word::Version);
        }
        let protocol = self.protocol()?;
        if protocol >= 30 && self.compat.is_none() {
            return if side == Side::Server { Some(Word::Compat) } else { None };
        }
        if self.negotiates() {
            if options.checksum_choice.is_none() && self.checksums.of(side).is_none() {
                return Some(Word::Checksums);
            }
            if options.compress && options.compress_choice.is_none() && self.compressions.of(side).is_none() {
                return Some(Word::Compressions);
            }
        }
        match side {
            Side::Server if !self.seeded => Some(Word::Seed),
            _ => Some(Word::Nothing),
        }
    }

    /// Reads what a side says next.
    pub(super) fn read(&mut self, side: Side, word: Word, cursor: &mut Cursor<'_>) -> Result<()> {
        match word {
            Word::Version => {
                let version = cursor.int()? as u32;
                if !(20..=40).contains(&version) {
                    return Err(Trouble::Unclear("it does not begin as rsync does"));
                }
                match side {
                    Side::Client => self.client_version = Some(version),
                    Side::Server => self.server_version = Some(version),
                }
                if self.protocol().is_some_and(|protocol| !KNOWN.contains(&protocol)) {
                    return Err(Trouble::Unclear("this version of rsync's protocol is not known"));
                }
            }
            Word::Compat => self.compat = Some(cursor.varint()? as u32),
            Word::Checksums => *self.checksums.of_mut(side) = Some(cursor.vstring()?.to_vec()),
            Word::Compressions => *self.compressions.of_mut(side) = Some(cursor.vstring()?.to_vec()),
            Word::Seed => {
                cursor.int()?;
                self.seeded = true;
            }
            Word::Nothing => {}
        }
        Ok(())
    }

    /// What was agreed on, once both sides are done.
    pub(super) fn agreed(&self, options: &Options) -> Result<Agreed> {
        let protocol = self.protocol().ok_or(TOO_EARLY)?;
        if !self.seeded {
            return Err(TOO_EARLY);
        }
        let compat = self.compat.unwrap_or_default();
        if compat & WIDE_FLAGS != 0 && !options.capabilities.contains('v') {
            return Err(Trouble::Unclear("this version of rsync was never released"));
        }
        let (contents, files) = match (&options.checksum_choice, self.negotiates()) {
            (Some(choice), _) => choice.split_once(',').unwrap_or((choice, choice)),
            (None, true) => {
                let name = self.checksums.chosen()?;
                (name, name)
            }
            (None, false) => ("auto", "auto"),
        };
        let compressed = match (&options.compress_choice, self.negotiates()) {
            _ if !options.compress => false,
            (Some(_), _) | (None, false) => true,
            (None, true) => self.compressions.chosen()? != "none",
        };
        let form = Form {
            protocol,
            incremental: compat & INCREMENTAL != 0,
            wide_flags: compat & WIDE_FLAGS != 0,
            names_of_root: compat & NAMES_OF_ROOT != 0,
            sum_length: sum_length(files)?,
        };
        let xattrs_left_out = protocol >= 31 && compat & AVOID_XATTR_OPTIM == 0;
        Ok(Agreed { form, compressed, xattrs_left_out, sum_length: sum_length(contents)? })
    }

    fn negotiates(&self) -> bool {
        self.compat.is_some_and(|compat| compat & WIDE_FLAGS != 0)
    }
}

impl Lists {
    fn of(&self, side: Side) -> Option<&Vec<u8>> {
        if side == Side::Client { self.client.as_ref() } else { self.server.as_ref() }
    }

    fn of_mut(&mut self, side: Side) -> &mut Option<Vec<u8>> {
        if side == Side::Client { &mut self.client } else { &mut self.server }
    }

    /// The first of the client's that the server knows too.
    fn chosen(&self) -> Result<&str> {
        let (Some(client), Some(server)) = (&self.client, &self.server) else { return Err(TOO_EARLY) };
        let (Ok(client), Ok(server)) = (std::str::from_utf8(client), std::str::from_utf8(server)) else {
            return Err(UNKNOWN_SUM);
        };
        client.split(' ').find(|name| server.split(' ').any(|other| other == *name)).ok_or(UNKNOWN_SUM)
    }
}

/// `csum_len_for_type()`
fn sum_length(name: &str) -> Result<usize> {
    match name {
        "xxh128" | "md5" | "md4" | "auto" => Ok(16),
        "xxh3" | "xxh64" | "xxhash" => Ok(8),
        "sha1" => Ok(20),
        "none" => Ok(1),
        _ => Err(UNKNOWN_SUM),
    }
}

/// Protocols of rsync 2.6.0 (January 2004) to 3.5.
const KNOWN: std::ops::RangeInclusive<u32> = 27..=32;

const INCREMENTAL: u32 = 1;
const AVOID_XATTR_OPTIM: u32 = 1 << 4;
const WIDE_FLAGS: u32 = 1 << 7;
const NAMES_OF_ROOT: u32 = 1 << 8;

pub(super) const TOO_EARLY: Trouble = Trouble::Unclear("one side did not wait for the other");

const UNKNOWN_SUM: Trouble = Trouble::Unclear("this checksum or compression is not known");
