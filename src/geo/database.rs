//! One database file in MaxMind's format, read into memory, with what it says about an address in either of the two
//! layouts in use: MaxMind's own (`country.iso_code`, `city.names.en`) and ip-location-db's (`country_code`, `city`).

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use maxminddb::{MaxMindDbError, Reader};
use serde::Deserialize;

/// Larger files are refused.
const MAX_FILE: u64 = 1 << 30;

/// The longest name that is taken, in characters.
const MAX_NAME: usize = 100;

/// Looked up once when a file is opened, so that a file of the right form and of another kind is found out.
const PROBES: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(8, 8, 8, 8)),
    IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888)),
];

/// Why a file is no database.
#[derive(Debug, thiserror::Error)]
pub enum GeoError {
    /// It cannot be read.
    #[error("{path}: {error}")]
    Io {
        /// Which.
        path: String,
        /// Why not.
        error: io::Error,
    },
    /// It is something else, or broken.
    #[error("{path}: this is no MaxMind database: {error}")]
    Format {
        /// Which.
        path: String,
        /// Why not.
        error: MaxMindDbError,
    },
}

/// A file in memory.
pub(super) struct Database {
    reader: Reader<Vec<u8>>,
    stamp: Stamp,
}

/// By what a changed file is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

/// What a file says about an address.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) code: Option<String>,
    pub(super) country: Option<String>,
    pub(super) city: Option<String>,
}

impl Database {
    /// Reads a file. Blocks for as long as the disk takes.
    pub(super) fn read(path: &Path) -> Result<Self, GeoError> {
        let shown = || path.display().to_string();
        let stamp = Stamp::of(path);
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes));
        read.map_err(|error| GeoError::Io { path: shown(), error })?;
        if bytes.len() as u64 > MAX_FILE {
            let error = io::Error::new(io::ErrorKind::FileTooLarge, "longer than 1 GiB");
            return Err(GeoError::Io { path: shown(), error });
        }
        let format = |error| GeoError::Format { path: shown(), error };
        let database = Self { reader: Reader::from_source(bytes).map_err(format)?, stamp };
        for probe in PROBES {
            database.entry(probe).map_err(format)?;
        }
        Ok(database)
    }

    pub(super) fn stamp(&self) -> Stamp {
        self.stamp
    }

    pub(super) fn find(&self, address: IpAddr) -> Found {
        let entry = self.entry(address).unwrap_or_else(|error| {
            tracing::debug!(%address, %error, "the geography database has no readable answer");
            None
        });
        entry.map(Found::from).unwrap_or_default()
    }

    fn entry(&self, address: IpAddr) -> Result<Option<Entry>, MaxMindDbError> {
        // A file for IPv4 alone refuses IPv6 addresses; that is no answer and no fault.
        if address.is_ipv6() && self.reader.metadata().ip_version == 4 {
            return Ok(None);
        }
        self.reader.lookup(address)?.decode::<Entry>()
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("kind", &self.reader.metadata().database_type).finish_non_exhaustive()
    }
}

impl Stamp {
    /// Of the file that is there now; of none, a stamp that no file has.
    pub(super) fn of(path: &Path) -> Self {
        fs::metadata(path)
            .map(|file| Self { inode: file.ino(), size: file.len(), modified: (file.mtime(), file.mtime_nsec()) })
            .unwrap_or_default()
    }
}

impl Found {
    /// What is not known yet is taken from `other`, unless the two mean different countries.
    pub(super) fn or(self, other: Self) -> Self {
        let same = self.code.is_none() || other.code.is_none() || self.code == other.code;
        match same {
            true => Self {
                code: self.code.or(other.code),
                country: self.country.or(other.country),
                city: self.city.or(other.city),
            },
            false => self,
        }
    }
}

/// A record, in both layouts.
#[derive(Deserialize)]
struct Entry {
    country: Option<Named>,
    country_code: Option<String>,
    city: Option<Named>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Named {
    Plain(String),
    Nested { iso_code: Option<String>, names: Option<Names> },
}

#[derive(Deserialize)]
struct Names {
    en: Option<String>,
}

impl From<Entry> for Found {
    fn from(entry: Entry) -> Self {
        let (mut code, mut country) = (entry.country_code, None);
        match entry.country {
            Some(Named::Nested { iso_code, names }) => {
                code = iso_code.or(code);
                country = names.and_then(|names| names.en);
            }
            Some(Named::Plain(text)) => match is_code(&text) {
                true => code = code.or(Some(text)),
                false => country = Some(text),
            },
            None => {}
        }
        let city = match entry.city {
            Some(Named::Nested { names, .. }) => names.and_then(|names| names.en),
            Some(Named::Plain(text)) => Some(text),
            None => None,
        };
        Self {
            code: code.map(|code| code.to_ascii_uppercase()).filter(|code| is_code(code)),
            country: country.and_then(|name| fit(&name)),
            city: city.and_then(|name| fit(&name)),
        }
    }
}

fn is_code(text: &str) -> bool {
    text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// A name that may be shown.
fn fit(name: &str) -> Option<String> {
    let name: String = name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
    (!name.trim().is_empty()).then_some(name)
}
