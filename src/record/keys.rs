//! Who can read recordings: the gateway's keys, under which every recording's own data key is wrapped, in a slot of its
//! container's header. There may be several slots, and kinds of slots that are not known here are stepped over, so that
//! other recipients can come (an auditor's public key). Old keys read; only the current one is written with.
//!
//! A slot says which key it is for by a hash of that key, so a key that is missing can be named.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use secrecy::zeroize::{Zeroize, Zeroizing};
use secrecy::{ExposeSecret, SecretBox};
use serde::{Deserialize, Serialize};

use super::container::{Damage, Header};
use super::crypt::{self, DataKey, KEY, Refused};
use super::error::ReadError;
use crate::files::write_atomically;

/// A slot's kind: the data key under a gateway's key, `nonce ‖ key ‖ tag` of AES-256-GCM, in base64.
const KIND_GATEWAY: u32 = 1;
/// What a wrapped key is bound to, beside the ids of gateway, session and recording.
const WRAPPED: &[u8] = b"gatescribe v2 data key";
/// What a key's id is made with.
const KEY_ID: &str = "gatescribe v2 recording key id";
/// Bytes of a key's id, which is written in hexadecimal.
const ID: usize = 8;
/// A file with a key is not longer.
const MAX_FILE: u64 = 1024;

/// A gateway's key for recordings: 32 random bytes. Cheap to clone; zeroed when the last clone goes.
#[derive(Clone)]
pub struct RecordingKey {
    id: String,
    secret: Arc<SecretBox<[u8; KEY]>>,
}

/// Why something is no key. Says nothing of its value.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It has another form.
    #[error("this is no recording key: 32 random bytes in base64 or hexadecimal")]
    NotAKey,
    /// The file cannot be read or made.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl RecordingKey {
    /// A new one.
    pub fn random() -> Result<Self, Refused> {
        crypt::secret(|bytes| Ok(aws_lc_rs::rand::fill(bytes)?)).map(Self::new)
    }

    /// Reads 32 bytes in base64 (44 characters, as `openssl rand -base64 32` prints them) or hexadecimal (64).
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        let bytes = match text.len() {
            64 => from_hex(text),
            _ => BASE64_STANDARD.decode(text).ok(),
        };
        let bytes = Zeroizing::new(bytes.filter(|bytes| bytes.len() == KEY).ok_or(KeyError::NotAKey)?);
        let secret = crypt::secret(|place| {
            place.copy_from_slice(&bytes);
            Ok(())
        });
        secret.map(Self::new).map_err(|_| KeyError::NotAKey)
    }

    /// Reads a key from a file that holds nothing else. Blocking.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let mut text = Zeroizing::new(String::new());
        let read = File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text);
        match read {
            Ok(len) if len as u64 <= MAX_FILE => Self::parse(&text),
            Ok(_) => Err(KeyError::NotAKey),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(KeyError::NotAKey),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the key in a file, or makes both (mode 0600); tells whether it made them. The file is there whole or not
    /// at all. Blocking.
    pub fn load_or_create(path: &Path) -> Result<(Self, bool), KeyError> {
        match Self::load(path) {
            Err(KeyError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                let key = Self::random().map_err(io::Error::from)?;
                key.save(path)?;
                Ok((key, true))
            }
            loaded => Ok((loaded?, false)),
        }
    }

    /// The hash by which recordings name their key.
    pub fn id(&self) -> &str {
        &self.id
    }

    fn save(&self, path: &Path) -> io::Result<()> {
        let mut text = Zeroizing::new(BASE64_STANDARD.encode(self.secret.expose_secret()));
        text.push('\n');
        write_atomically(path, text.as_bytes(), 0o600)
    }

    fn new(secret: SecretBox<[u8; KEY]>) -> Self {
        let mut hash = blake3::derive_key(KEY_ID, secret.expose_secret());
        let id = hash.iter().take(ID).map(|byte| format!("{byte:02x}")).collect();
        hash.zeroize();
        Self { id, secret: Arc::new(secret) }
    }
}

impl fmt::Debug for RecordingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordingKey({})", self.id)
    }
}

/// The keys that a gateway has: one to write with, and all to read with.
#[derive(Clone, Debug)]
pub struct Keys {
    current: RecordingKey,
    old: Vec<RecordingKey>,
}

/// One slot of a header, of the kind that is known here.
#[derive(Debug, Serialize, Deserialize)]
struct Slot {
    kind: u32,
    id: String,
    key: String,
}

impl Keys {
    /// `current` writes and reads, `old` ones read.
    pub fn new(current: RecordingKey, old: Vec<RecordingKey>) -> Self {
        Self { current, old }
    }

    /// The slots for a new recording's data key. The header's ids must stand.
    pub fn wrap(&self, data: &DataKey, header: &Header) -> Result<Vec<serde_json::Value>, Refused> {
        let wrapped = data.wrap(self.current.secret.expose_secret(), &bound(header))?;
        let slot = Slot { kind: KIND_GATEWAY, id: self.current.id.clone(), key: BASE64_STANDARD.encode(wrapped) };
        Ok(vec![serde_json::to_value(slot).map_err(|_| Refused)?])
    }

    /// The data key of a recording; `None` when it is not encrypted.
    pub fn unwrap(&self, header: &Header) -> Result<Option<DataKey>, ReadError> {
        if !header.encrypted()? {
            return Ok(None);
        }
        for slot in slots(header) {
            if let Some(key) = self.all().find(|key| key.id == slot.id) {
                let wrapped = BASE64_STANDARD.decode(&slot.key).map_err(|_| Damage::Key)?;
                let data = DataKey::unwrap(&wrapped, key.secret.expose_secret(), &bound(header));
                return data.map(Some).map_err(|_| Damage::Key.into());
            }
        }
        Err(ReadError::UnknownKey(key_ids(header)))
    }

    fn all(&self) -> impl Iterator<Item = &RecordingKey> {
        std::iter::once(&self.current).chain(&self.old)
    }
}

/// The ids of the keys that could open a recording, as its header tells them; attackers can write headers, so only what
/// looks like an id is taken.
pub fn key_ids(header: &Header) -> Vec<String> {
    let is_id = |id: &String| id.len() == 2 * ID && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    slots(header).map(|slot| slot.id).filter(is_id).collect()
}

fn slots(header: &Header) -> impl Iterator<Item = Slot> {
    let known = |slot: &serde_json::Value| Slot::deserialize(slot).ok().filter(|slot| slot.kind == KIND_GATEWAY);
    header.keys.iter().filter_map(known)
}

fn bound(header: &Header) -> Vec<u8> {
    let ids = [header.gateway, header.session, header.recording];
    ids.iter().fold(WRAPPED.to_vec(), |bound, id| [bound, id.as_bytes().to_vec()].concat())
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| match pair {
            [high, low] => u8::try_from(digit(high)? << 4 | digit(low)?).ok(),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn header(keys: Vec<serde_json::Value>) -> Header {
        let plain = Header::new(Uuid::nil(), Uuid::nil(), Uuid::nil(), "exec", jiff::Timestamp::UNIX_EPOCH);
        Header { aead: crypt::AEAD.to_owned(), keys, ..plain }
    }

    fn keys() -> Keys {
        Keys::new(RecordingKey::random().unwrap(), Vec::new())
    }

    #[test]
    fn base64_and_hexadecimal_are_the_same_key() {
        let hex = "00ff10".repeat(10) + "abCD";
        let bytes = from_hex(&hex).unwrap();
        let (a, b) = (RecordingKey::parse(&hex).unwrap(), RecordingKey::parse(&BASE64_STANDARD.encode(bytes)).unwrap());
        assert_eq!((a.id(), a.id().len()), (b.id(), 16));
        assert_eq!(format!("{a:?}"), format!("RecordingKey({})", a.id()));
        for no in ["", "x", &hex[2..], &"g".repeat(64), &"é".repeat(32), &BASE64_STANDARD.encode([0; 31])] {
            assert!(matches!(RecordingKey::parse(no), Err(KeyError::NotAKey)), "{no}");
        }
    }

    #[test]
    fn a_key_is_made_once_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recording.key");
        let (made, new) = RecordingKey::load_or_create(&path).unwrap();
        let (again, newer) = RecordingKey::load_or_create(&path).unwrap();
        assert_eq!((made.id(), new, newer), (again.id(), true, false));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for bad in [&b"\xff\xff"[..], b"short", &[b'A'; 5000]] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(RecordingKey::load_or_create(&path), Err(KeyError::NotAKey)));
            assert_eq!(std::fs::read(&path).unwrap(), bad, "what is there is left alone");
        }
    }

    #[test]
    fn old_keys_read_and_missing_ones_are_named() {
        let (before, after) = (keys(), RecordingKey::random().unwrap());
        let data = DataKey::random().unwrap();
        let header = header(before.wrap(&data, &header(Vec::new())).unwrap());
        assert!(before.unwrap(&header).unwrap().is_some());
        let both = Keys::new(after.clone(), vec![before.current.clone()]);
        assert!(both.unwrap(&header).unwrap().is_some());
        match Keys::new(after, Vec::new()).unwrap(&header) {
            Err(ReadError::UnknownKey(ids)) => assert_eq!(ids, [before.current.id()]),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn slots_of_other_kinds_are_stepped_over() {
        let keys = keys();
        let mut slots = vec![json!({"kind": 7, "to": "age1…"}), json!("x"), json!({"kind": 1}), json!(null)];
        slots.extend(keys.wrap(&DataKey::random().unwrap(), &header(Vec::new())).unwrap());
        assert!(keys.unwrap(&header(slots.clone())).unwrap().is_some());
        slots.pop();
        assert!(matches!(keys.unwrap(&header(slots)), Err(ReadError::UnknownKey(ids)) if ids.is_empty()));
    }

    #[test]
    fn a_slot_counts_for_its_own_recording_only() {
        let keys = keys();
        let header = header(keys.wrap(&DataKey::random().unwrap(), &header(Vec::new())).unwrap());
        let id = Uuid::max();
        for other in [
            Header { gateway: id, ..header.clone() },
            Header { session: id, ..header.clone() },
            Header { recording: id, ..header.clone() },
        ] {
            assert!(matches!(keys.unwrap(&other), Err(ReadError::Damaged(Damage::Key))));
        }
        let plain = Header { aead: "none".into(), ..header };
        assert!(keys.unwrap(&plain).unwrap().is_none());
    }
}
