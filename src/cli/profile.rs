//! The directory where a person's sign-in is kept: `$GATESCRIBE_HOME` or `~/.gatescribe`.
//!
//! Knows files and their modes, not what is in most of them. `gateway.json` is written last and goes first: while it
//! names a sign-in, the other files are there and belong to it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Which gateway, and who is signed in there.
pub const GATEWAY: &str = "gateway.json";
/// The pinned certificate authority; absent where the platform's own roots are trusted.
pub const CA: &str = "ca.pem";
/// The API token of the sign-in.
pub const TOKEN: &str = "token";
/// The SSH private key.
pub const SSH_KEY: &str = "id_ed25519";
/// The SSH public key.
pub const SSH_PUBLIC_KEY: &str = "id_ed25519.pub";
/// The SSH certificate, named as OpenSSH looks for it beside the key.
pub const SSH_CERTIFICATE: &str = "id_ed25519-cert.pub";
/// How `ssh` knows the gateway.
pub const KNOWN_HOSTS: &str = "known_hosts";
/// The X.509 client certificate, PEM.
pub const CLIENT_CERTIFICATE: &str = "client.crt";
/// Its key, PEM (PKCS#8).
pub const CLIENT_KEY: &str = "client.key";
/// Both and the authority, PKCS#12.
pub const CLIENT_P12: &str = "client.p12";
/// The key alone, DER (PKCS#8), which Java's PostgreSQL driver wants.
pub const CLIENT_PK8: &str = "client.pk8";

/// What a sign-in wrote, and a sign-out removes.
pub const SIGN_IN_FILES: [&str; 9] = [
    TOKEN,
    SSH_KEY,
    SSH_PUBLIC_KEY,
    SSH_CERTIFICATE,
    KNOWN_HOSTS,
    CLIENT_CERTIFICATE,
    CLIENT_KEY,
    CLIENT_P12,
    CLIENT_PK8,
];

/// `gateway.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// Where the gateway's API is, as `https://access.example.com:8443`.
    pub url: String,
    /// SHA-256 of the pinned authority's certificate (DER), in hexadecimal.
    pub ca_sha256: Option<String>,
    /// The port of SSH, where the gateway told it.
    pub ssh_port: Option<u16>,
    /// Who is signed in, if anybody is.
    #[serde(flatten)]
    pub sign_in: Option<SignIn>,
}

/// Who signed in, and until when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SignIn {
    /// The person.
    pub email: String,
    /// The person's name, where the provider tells it.
    pub name: Option<String>,
    /// The sign-in's id at the gateway.
    pub sign_in_id: Uuid,
    /// When it was written here.
    pub created: Timestamp,
    /// From when on it counts no more.
    pub expires: Timestamp,
}

/// The directory. It may not exist yet.
#[derive(Clone, Debug)]
pub struct Profile {
    dir: PathBuf,
}

/// Held while somebody signs in or out; others wait for its drop.
#[derive(Debug)]
pub struct Lock {
    _file: File,
    /// Whether somebody else held it first.
    pub waited: bool,
}

impl Profile {
    /// The directory of whoever runs this.
    pub fn locate() -> anyhow::Result<Self> {
        let named = std::env::var_os("GATESCRIBE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
        let dir = named.or_else(|| Some(std::env::home_dir()?.join(".gatescribe")));
        let dir = dir.context("there is no home directory; name a directory in GATESCRIBE_HOME")?;
        Ok(Self { dir: std::path::absolute(dir)? })
    }

    /// The path of one of its files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Which gateway is known, if any.
    pub fn known(&self) -> anyhow::Result<Option<Known>> {
        let Some(text) = self.read(GATEWAY)? else { return Ok(None) };
        let path = self.path(GATEWAY);
        let known = serde_json::from_str(&text);
        known.map(Some).with_context(|| format!("{} cannot be read; remove it and sign in again", path.display()))
    }

    /// The token of the sign-in.
    pub fn token(&self) -> anyhow::Result<Option<SecretString>> {
        Ok(self.read(TOKEN)?.map(|text| text.trim().into()))
    }

    /// The text of a file, if it is there.
    pub fn read(&self, name: &str) -> anyhow::Result<Option<String>> {
        let path = self.path(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// Makes the directory, for its owner alone.
    pub fn make(&self) -> anyhow::Result<()> {
        let dir = &self.dir;
        let named = || dir.display().to_string();
        DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(named)?;
        let found = fs::metadata(dir).with_context(named)?;
        if found.uid() != rustix::process::geteuid().as_raw() {
            bail!("{} belongs to another user; name a directory of your own in GATESCRIBE_HOME", dir.display());
        }
        if found.mode() & 0o077 != 0 {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).with_context(named)?;
        }
        Ok(())
    }

    /// Writes a file that is there whole or not at all, readable by its owner alone.
    pub fn write(&self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        let path = self.path(name);
        write_atomically(&path, content).with_context(|| path.display().to_string())
    }

    /// Writes down which gateway is known, and who is signed in.
    pub fn remember(&self, known: &Known) -> anyhow::Result<()> {
        self.write(GATEWAY, &serde_json::to_vec_pretty(known)?)
    }

    /// Removes a file; one that is not there is no error.
    pub fn remove(&self, name: &str) -> anyhow::Result<()> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| path.display().to_string())
            }
            _ => Ok(()),
        }
    }

    /// Waits until nobody else signs in or out here; `tell` is called once if that takes waiting.
    pub async fn lock(&self, tell: impl FnOnce()) -> anyhow::Result<Lock> {
        self.make()?;
        let path = self.path(LOCK);
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.with_context(|| path.display().to_string())?;
        let mut tell = Some(tell);
        let deadline = Instant::now() + LONGEST_WAIT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock { _file: file, waited: tell.is_none() }),
                Err(TryLockError::Error(error)) => return Err(error).with_context(|| path.display().to_string()),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                    bail!("another sign-in on this machine does not end; end it and try again")
                }
                Err(TryLockError::WouldBlock) => {
                    if let Some(tell) = tell.take() {
                        tell();
                    }
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
            }
        }
    }
}

impl SignIn {
    /// Whether it still counts, by this machine's clock.
    pub fn is_fresh(&self) -> bool {
        self.expires > Timestamp::now()
    }
}

/// Writes beside the file and renames, so that a reader sees the old content or the new one.
pub(super) fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let _ = fs::remove_file(&partial);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&partial, path)
}

const LOCK: &str = "lock";
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Longer than a sign-in may take.
const LONGEST_WAIT: Duration = Duration::from_secs(6 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> (tempfile::TempDir, Profile) {
        let dir = tempfile::tempdir().unwrap();
        let profile = Profile { dir: dir.path().join("home") };
        profile.make().unwrap();
        (dir, profile)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn what_is_written_is_for_the_owner_alone() {
        let (_dir, profile) = profile();
        profile.write(TOKEN, b"gsa_secret\n").unwrap();
        assert_eq!((mode(&profile.dir), mode(&profile.path(TOKEN))), (0o700, 0o600));
        fs::set_permissions(&profile.dir, fs::Permissions::from_mode(0o755)).unwrap();
        profile.make().unwrap();
        assert_eq!(mode(&profile.dir), 0o700, "opened by somebody and closed again");
        let names: Vec<_> = fs::read_dir(&profile.dir).unwrap().flatten().map(|file| file.file_name()).collect();
        assert_eq!(names, [TOKEN], "nothing partial stays");
    }

    #[test]
    fn the_gateway_is_known_with_and_without_a_sign_in() {
        let (_dir, profile) = profile();
        assert_eq!(profile.known().unwrap(), None);
        let mut known =
            Known { url: "https://a.example.com".into(), ca_sha256: Some("ab".into()), ssh_port: None, sign_in: None };
        profile.remember(&known).unwrap();
        assert_eq!(profile.known().unwrap(), Some(known.clone()));
        let expires = Timestamp::now() + Duration::from_secs(60);
        let (email, created) = ("a@example.com".into(), Timestamp::now());
        known.sign_in = Some(SignIn { email, name: None, sign_in_id: Uuid::now_v7(), created, expires });
        profile.remember(&known).unwrap();
        assert_eq!(profile.known().unwrap(), Some(known));
        profile.write(GATEWAY, b"{").unwrap();
        assert!(profile.known().unwrap_err().to_string().contains("remove it and sign in again"));
    }

    #[tokio::test]
    async fn the_second_waits_for_the_first() {
        let (_dir, profile) = profile();
        let first = profile.lock(|| panic!("nobody holds it")).await.unwrap();
        assert!(!first.waited);
        let (told, hears) = tokio::sync::oneshot::channel();
        let second = profile.lock(|| told.send(()).unwrap());
        let free = async {
            hears.await.unwrap();
            drop(first);
        };
        let (second, ()) = tokio::join!(second, free);
        assert!(second.unwrap().waited);
    }
}
