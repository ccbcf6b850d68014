//! Secrets as the file names them: `env:NAME` or `file:PATH`, never themselves.
//!
//! What stands in the file may be a secret that somebody typed by mistake, so neither `Debug` nor an error shows it.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

/// A secret file is not longer.
const MAX_FILE: u64 = 64 * 1024;

/// Looks an environment variable up. Tests have their own.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What stands in the file for a secret.
#[derive(Clone, Deserialize, Serialize)]
#[serde(transparent)]
pub struct SecretRef(String);

/// Why a secret could not be had. Says nothing of its value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The secret itself was typed, or something else.
    #[error("a secret does not stand here itself")]
    Literal,
    /// No such variable.
    #[error("the environment variable {0} is not set, or is not UTF-8")]
    NoVariable(String),
    /// The file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The file is too long.
    #[error("{} is longer than 64 KiB, so it is no secret", .0.display())]
    TooLong(PathBuf),
    /// Nothing in it.
    #[error("the secret is empty")]
    Empty,
}

/// A secret, and whether everybody on the host may read its file.
#[derive(Debug)]
pub struct Secret {
    /// The secret; a last newline of a file is not part of it.
    pub value: SecretString,
    /// The file that everybody may read.
    pub exposed: Option<PathBuf>,
}

impl SecretRef {
    /// Gets the secret. A relative path is relative to `base`.
    pub fn read(&self, base: &Path, env: Env<'_>) -> Result<Secret, SecretError> {
        let secret = match self.source().ok_or(SecretError::Literal)? {
            Source::Env(name) => {
                let value = env(name).ok_or_else(|| SecretError::NoVariable(name.to_owned()))?;
                Secret { value: value.into(), exposed: None }
            }
            Source::File(path) => read_file(base.join(path))?,
        };
        match secrecy::ExposeSecret::expose_secret(&secret.value).is_empty() {
            true => Err(SecretError::Empty),
            false => Ok(secret),
        }
    }

    /// What stands for this environment variable.
    pub(super) fn variable(name: &str) -> Self {
        Self(format!("env:{name}"))
    }

    /// Whether it says where the secret is, and is not the secret itself.
    pub(super) fn is_reference(&self) -> bool {
        self.source().is_some()
    }

    fn source(&self) -> Option<Source<'_>> {
        if let Some(name) = self.0.strip_prefix("env:") {
            let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            return (plain && !name.is_empty()).then_some(Source::Env(name));
        }
        self.0.strip_prefix("file:").filter(|path| !path.is_empty()).map(|path| Source::File(Path::new(path)))
    }
}

impl fmt::Debug for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.source().is_some() { &self.0 } else { "[redacted]" })
    }
}

enum Source<'a> {
    Env(&'a str),
    File(&'a Path),
}

fn read_file(path: PathBuf) -> Result<Secret, SecretError> {
    let (mode, mut text) = match open(&path) {
        Ok(read) => read,
        Err(error) => return Err(SecretError::File { path, error }),
    };
    if text.len() as u64 > MAX_FILE {
        return Err(SecretError::TooLong(path));
    }
    if text.ends_with('\n') {
        text.pop();
    }
    if text.ends_with('\r') {
        text.pop();
    }
    Ok(Secret { value: text.into(), exposed: (mode & 0o004 != 0).then_some(path) })
}

/// The mode is the open file's, not the name's, so that the two cannot differ.
fn open(path: &Path) -> io::Result<(u32, String)> {
    // Without O_NONBLOCK a pipe that nobody writes to would hold up the start.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text)?;
    Ok((meta.mode(), text))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use secrecy::ExposeSecret;

    use super::*;

    fn env(name: &str) -> Option<String> {
        (name == "GS_SECRET").then(|| "from env\n".to_owned()).or_else(|| (name == "EMPTY").then(String::new))
    }

    fn read(text: &str, base: &Path) -> Result<Secret, SecretError> {
        SecretRef(text.to_owned()).read(base, &env)
    }

    #[test]
    fn from_the_environment_and_from_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pw");
        std::fs::write(&path, "from file\r\n").unwrap();
        for (mode, exposed) in [(0o600, false), (0o640, false), (0o644, true)] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let secret = read("file:pw", dir.path()).unwrap();
            assert_eq!(secret.value.expose_secret(), "from file");
            assert_eq!(secret.exposed.is_some(), exposed, "{mode:o}");
            assert!(!format!("{secret:?}").contains("from file"));
        }
        let absolute = read(&format!("file:{}", path.display()), Path::new("/nowhere")).unwrap();
        assert_eq!(absolute.value.expose_secret(), "from file");
        assert_eq!(read("env:GS_SECRET", dir.path()).unwrap().value.expose_secret(), "from env\n");
    }

    #[test]
    fn what_cannot_be_had_is_told_without_the_value() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("long"), vec![b'x'; MAX_FILE as usize + 1]).unwrap();
        std::fs::write(dir.path().join("empty"), "\n").unwrap();
        for (text, words) in [
            ("hunter2", "a secret does not stand here itself"),
            ("", "a secret does not stand here itself"),
            ("env:", "a secret does not stand here itself"),
            ("env:hunter2 !", "a secret does not stand here itself"),
            ("file:", "a secret does not stand here itself"),
            ("FILE:/etc/passwd", "a secret does not stand here itself"),
            ("env:MISSING", "the environment variable MISSING is not set, or is not UTF-8"),
            ("env:EMPTY", "the secret is empty"),
            ("file:empty", "the secret is empty"),
            ("file:long", "/long is longer than 64 KiB, so it is no secret"),
            ("file:none", "/none: No such file or directory (os error 2)"),
            ("file:.", "/.: not a regular file"),
        ] {
            let told = read(text, dir.path()).unwrap_err().to_string();
            assert!(told.ends_with(words), "{text}: {told}");
        }
        assert_eq!(format!("{:?}", SecretRef("hunter2".into())), "[redacted]");
        assert_eq!(format!("{:?}", SecretRef("env:A".into())), "env:A");
    }
}
