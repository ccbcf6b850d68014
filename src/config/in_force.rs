//! The configuration as it came into force, kept in `data_dir` for tools on the gateway's host: the file itself may have
//! been edited since. Its text holds no secret, only where secrets are.

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Config, MAX_FILE};
use crate::files;

/// The name in `data_dir`.
const FILE: &str = "config-in-force.toml";

/// What its first line begins with.
const HEAD: &str = "# in force: ";

/// A configuration that is, or was last, in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// Its text.
    pub text: String,
    /// The file that it was read from, which what it names is relative to.
    pub file: PathBuf,
    /// Since when.
    pub since: Timestamp,
}

/// The first line, which says what the text cannot.
#[derive(Deserialize, Serialize)]
struct Head {
    file: PathBuf,
    since: Timestamp,
}

/// Writes down that this is in force from now on. Blocking. One that was never a text, as the demo's, is not written.
pub fn save(config: &Config) -> io::Result<()> {
    if config.text.is_empty() {
        return Ok(());
    }
    let head = Head { file: std::path::absolute(&config.file)?, since: Timestamp::now() };
    let head = serde_json::to_string(&head).map_err(io::Error::other)?;
    let content = format!("{HEAD}{head}\n{}", config.text);
    files::write_atomically(&config.gateway.data_dir.join(FILE), content.as_bytes(), 0o600)
}

/// What is in force, or was last, in the gateway of this `data_dir`. Blocking.
pub fn load(data_dir: &Path) -> io::Result<InForce> {
    let file = std::fs::File::open(data_dir.join(FILE))?;
    let mut content = String::new();
    // The head and a file as long as they may be.
    io::Read::read_to_string(&mut io::Read::take(file, MAX_FILE + (64 << 10)), &mut content)?;
    let cut = content.split_once('\n').and_then(|(head, text)| Some((head.strip_prefix(HEAD)?, text)));
    let (head, text) = cut.ok_or_else(|| io::Error::other("it is not what the gateway wrote"))?;
    let Head { file, since } = serde_json::from_str(head).map_err(io::Error::other)?;
    Ok(InForce { text: text.to_owned(), file, since })
}

impl InForce {
    /// The configuration, without what it needs beside policies and sockets. No secret is read.
    pub fn config(&self) -> Result<Config, super::ConfigErrors> {
        Config::parse_leniently(&self.text, &self.file)
    }
}
