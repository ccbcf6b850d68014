//! Encryption of what is kept: AES-256-GCM, under a random data key that belongs to one recording alone. Bytes in, bytes
//! out; it knows no file and no layout. Who may have the data key is `keys`' business.
//!
//! From the data key HKDF (RFC 5869) makes two: one for the container's frames, one for the spool's records.
//!
//! A newcomer would get wrong: a number alone is no nonce here. A frame or record that could not be written is made again
//! under the same number, with other bytes in it, and what arrived of the first may still be on the disk; GCM gives both
//! away when they share a nonce. So a record's nonce counts failures too, and a frame's names the *opening* of its file:
//! a crash and the recovery after it cannot meet.
use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use secrecy::{ExposeSecret, SecretBox};

/// The name of the cipher in a container's header.
pub const AEAD: &str = "aes-256-gcm";
/// Bytes of a key.
pub const KEY: usize = 32;
/// Bytes of a nonce.
pub const NONCE: usize = 12;
/// Bytes of a tag.
pub const TAG: usize = 16;
/// Bytes that encryption adds to a frame's body: its nonce before, its tag behind.
pub const BODY_OVERHEAD: usize = NONCE + TAG;

const FRAMES: &[u8] = b"gatescribe v2 container frames";
const RECORDS: &[u8] = b"gatescribe v2 spool records";
const OPENING: usize = 8;

/// The cipher refused: a key, nonce or tag does not fit, or there are no random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("encryption failed")]
pub struct Refused;

impl From<Refused> for std::io::Error {
    fn from(refused: Refused) -> Self {
        Self::other(refused)
    }
}

impl From<aws_lc_rs::error::Unspecified> for Refused {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Self
    }
}

/// The key of one recording. Zeroed when dropped.
pub struct DataKey(SecretBox<[u8; KEY]>);

impl DataKey {
    /// A new one.
    pub fn random() -> Result<Self, Refused> {
        secret(|bytes| Ok(aws_lc_rs::rand::fill(bytes)?)).map(Self)
    }

    /// For the frames of the container that begins with the header of this hash.
    pub fn frames(&self, header: &[u8; 32]) -> Result<FrameKey, Refused> {
        Ok(FrameKey { key: self.derive(FRAMES)?, header: *header })
    }

    /// For the records of the spool.
    pub fn records(&self) -> Result<RecordKey, Refused> {
        Ok(RecordKey(self.derive(RECORDS)?))
    }

    fn derive(&self, purpose: &[u8]) -> Result<LessSafeKey, Refused> {
        let extracted = Salt::new(HKDF_SHA256, &[]).extract(self.0.expose_secret());
        let key = UnboundKey::from(extracted.expand(&[purpose], &AES_256_GCM)?);
        Ok(LessSafeKey::new(key))
    }

    /// The key under another one, `nonce ‖ key ‖ tag`. The nonce is random: good for 2³² recordings under one key
    /// (NIST SP 800-38D section 8.3).
    pub(super) fn wrap(&self, under: &[u8; KEY], aad: &[u8]) -> Result<[u8; KEY + BODY_OVERHEAD], Refused> {
        let mut wrapped = [0; KEY + BODY_OVERHEAD];
        let (nonce, rest) = wrapped.split_at_mut(NONCE);
        aws_lc_rs::rand::fill(nonce)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce)?;
        // Straight from the key into the wrapped one: no copy of it is left on the stack.
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, under)?);
        key.seal_in_place_scatter(nonce, Aad::from(aad), &mut [], self.0.expose_secret(), rest)?;
        Ok(wrapped)
    }

    /// The other way round; refused when anything of it, or of `aad`, was changed.
    pub(super) fn unwrap(wrapped: &[u8], under: &[u8; KEY], aad: &[u8]) -> Result<Self, Refused> {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, under)?);
        secret(|bytes| open(&key, aad, wrapped, bytes)).map(Self)
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey")
    }
}

/// Makes a secret in its place on the heap, so that no copy of it is left on the stack.
pub(super) fn secret(
    fill: impl FnOnce(&mut [u8; KEY]) -> Result<(), Refused>,
) -> Result<SecretBox<[u8; KEY]>, Refused> {
    let mut done = Ok(());
    let secret = SecretBox::init_with_mut(|bytes| done = fill(bytes));
    done.map(|()| secret)
}

/// Opens the frames of one container.
///
/// Bound into every frame is the hash of the header, so no frame counts in another recording, and the frame's own head:
/// its kind, sizes, and the number of its first observation, so it counts in its own place only. The place is counted in
/// observations and not in frames, for then a reader can open a frame that the index leads to. Into the Seal goes
/// the chain of hashes before it, and by it everything that is in the file.
pub struct FrameKey {
    key: LessSafeKey,
    header: [u8; 32],
}

impl FrameKey {
    /// Decrypts `nonce ‖ ciphertext ‖ tag`.
    pub fn open(&self, head: &[u8], body: &[u8]) -> Result<Vec<u8>, Refused> {
        let mut out = vec![0; body.len().checked_sub(BODY_OVERHEAD).ok_or(Refused)?];
        open(&self.key, &self.bound(&[head]), body, &mut out)?;
        Ok(out)
    }

    /// Checks a proof, `nonce ‖ tag`, over bytes that stand in the clear.
    pub fn check(&self, parts: &[&[u8]], proof: &[u8]) -> Result<(), Refused> {
        open(&self.key, &self.bound(parts), proof, &mut [])
    }

    /// Begins to write frames.
    pub fn sealer(self) -> Result<FrameSealer, Refused> {
        let mut opening = [0; OPENING];
        aws_lc_rs::rand::fill(&mut opening)?;
        Ok(FrameSealer { key: self, opening, made: 0 })
    }

    fn bound(&self, parts: &[&[u8]]) -> Vec<u8> {
        let mut bound = self.header.to_vec();
        parts.iter().for_each(|part| bound.extend_from_slice(part));
        bound
    }
}

impl fmt::Debug for FrameKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FrameKey")
    }
}

/// Encrypts the frames of one container, from its creation or from a recovery on.
#[derive(Debug)]
pub struct FrameSealer {
    key: FrameKey,
    /// Random for each time that a container is opened for writing.
    opening: [u8; OPENING],
    /// Frames made since then, written or not.
    made: u32,
}

impl FrameSealer {
    /// Encrypts `body` in its place: room for a nonce, the plaintext, room for a tag.
    pub fn seal(&mut self, head: &[u8], body: &mut [u8]) -> Result<(), Refused> {
        let (nonce_place, rest) = body.split_at_mut_checked(NONCE).ok_or(Refused)?;
        let (text, tag_place) = rest.split_at_mut_checked(rest.len().wrapping_sub(TAG)).ok_or(Refused)?;
        let nonce = self.nonce()?;
        nonce_place.copy_from_slice(nonce.as_ref());
        let bound = self.key.bound(&[head]);
        self.key.key.seal_in_place_scatter(nonce, Aad::from(bound), text, &[], tag_place)?;
        Ok(())
    }

    /// A proof, `nonce ‖ tag`, over bytes that stay in the clear.
    pub fn prove(&mut self, parts: &[&[u8]]) -> Result<[u8; BODY_OVERHEAD], Refused> {
        let mut proof = [0; BODY_OVERHEAD];
        let (nonce_place, tag_place) = proof.split_at_mut(NONCE);
        let nonce = self.nonce()?;
        nonce_place.copy_from_slice(nonce.as_ref());
        let bound = self.key.bound(parts);
        self.key.key.seal_in_place_scatter(nonce, Aad::from(bound), &mut [], &[], tag_place)?;
        Ok(proof)
    }

    fn nonce(&mut self) -> Result<Nonce, Refused> {
        self.made = self.made.checked_add(1).ok_or(Refused)?;
        let mut nonce = [0; NONCE];
        let (opening, made) = nonce.split_at_mut(OPENING);
        opening.copy_from_slice(&self.opening);
        made.copy_from_slice(&self.made.to_le_bytes());
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

/// Encrypts and decrypts the records of one spool.
pub struct RecordKey(LessSafeKey);

impl RecordKey {
    /// Encrypts a record of two parts: `front` in its place, `payload` from where it is into `rest`, with the tag behind
    /// it. One pass over the payload does for the copy and the encryption.
    ///
    /// `number` and `failures` are the nonce and must not come again together.
    pub fn seal(
        &self,
        (number, failures): (u64, u32),
        aad: &[u8],
        front: &mut [u8],
        payload: &[u8],
        rest: &mut [u8],
    ) -> Result<(), Refused> {
        Ok(self.0.seal_in_place_scatter(record_nonce(number, failures), Aad::from(aad), front, payload, rest)?)
    }

    /// Decrypts `ciphertext` into `out`, which is as long.
    pub fn open(
        &self,
        (number, failures): (u64, u32),
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8],
        out: &mut [u8],
    ) -> Result<(), Refused> {
        Ok(self.0.open_separate_gather(record_nonce(number, failures), Aad::from(aad), ciphertext, tag, out)?)
    }
}

fn record_nonce(number: u64, failures: u32) -> Nonce {
    let mut nonce = [0; NONCE];
    let (a, b) = nonce.split_at_mut(8);
    a.copy_from_slice(&number.to_le_bytes());
    b.copy_from_slice(&failures.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// Opens `nonce ‖ ciphertext ‖ tag` into `out`, which is as long as the ciphertext.
fn open(key: &LessSafeKey, aad: &[u8], sealed: &[u8], out: &mut [u8]) -> Result<(), Refused> {
    let (nonce, rest) = sealed.split_at_checked(NONCE).ok_or(Refused)?;
    let (text, tag) = rest.split_at_checked(out.len()).filter(|(_, tag)| tag.len() == TAG).ok_or(Refused)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce)?;
    Ok(key.open_separate_gather(nonce, Aad::from(aad), text, tag, out)?)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn frames(data: &DataKey, header: u8) -> FrameKey {
        data.frames(&[header; 32]).unwrap()
    }

    fn sealed(sealer: &mut FrameSealer, head: &[u8], text: &[u8]) -> Vec<u8> {
        let mut body = [&[0; NONCE][..], text, &[0; TAG]].concat();
        sealer.seal(head, &mut body).unwrap();
        body
    }

    #[test]
    fn a_frame_opens_in_its_own_place_only() {
        let (data, other) = (DataKey::random().unwrap(), DataKey::random().unwrap());
        let body = sealed(&mut frames(&data, 1).sealer().unwrap(), b"head", b"what was typed");
        assert!(!body.windows(4).any(|bytes| bytes == b"type"));
        assert_eq!(frames(&data, 1).open(b"head", &body).unwrap(), b"what was typed");
        assert_eq!(frames(&data, 1).open(b"heaD", &body), Err(Refused), "another head");
        assert_eq!(frames(&data, 2).open(b"head", &body), Err(Refused), "another recording's header");
        assert_eq!(frames(&other, 1).open(b"head", &body), Err(Refused), "another recording's key");
        for at in 0..body.len() {
            let mut changed = body.clone();
            changed[at] ^= 1;
            assert_eq!(frames(&data, 1).open(b"head", &changed), Err(Refused), "{at}");
            assert_eq!(frames(&data, 1).open(b"head", &body[..at]), Err(Refused), "{at}");
        }
    }

    #[test]
    fn a_proof_is_for_its_own_bytes() {
        let data = DataKey::random().unwrap();
        let proof = frames(&data, 1).sealer().unwrap().prove(&[b"chain", b"seal"]).unwrap();
        assert_eq!(frames(&data, 1).check(&[b"chain", b"seal"], &proof), Ok(()));
        assert_eq!(frames(&data, 1).check(&[b"chain", b"sea1"], &proof), Err(Refused));
        assert_eq!(frames(&data, 2).check(&[b"chain", b"seal"], &proof), Err(Refused));
        assert_eq!(frames(&data, 1).check(&[b"chain", b"seal"], &[]), Err(Refused));
    }

    #[test]
    fn no_nonce_comes_twice_whatever_was_written() {
        let data = DataKey::random().unwrap();
        let mut seen = HashSet::new();
        for _opening in 0..50 {
            let mut sealer = frames(&data, 1).sealer().unwrap();
            for _ in 0..20 {
                assert!(seen.insert(sealed(&mut sealer, b"same", b"same")[..NONCE].to_vec()));
                assert!(seen.insert(sealer.prove(&[b"same"]).unwrap()[..NONCE].to_vec()));
            }
        }
        let mut last = FrameSealer { made: u32::MAX, ..frames(&data, 1).sealer().unwrap() };
        assert_eq!(last.prove(&[]), Err(Refused), "rather none than one again");
    }

    #[test]
    fn a_record_of_two_parts_opens_as_one() {
        let key = DataKey::random().unwrap().records().unwrap();
        for (front, payload) in [(&b"front"[..], &[7; 100][..]), (b"", b"payload"), (b"front", b""), (b"", b"")] {
            let (mut text, mut rest) = (front.to_vec(), vec![0; payload.len() + TAG]);
            key.seal((3, 1), b"aad", &mut text, payload, &mut rest).unwrap();
            text.extend_from_slice(&rest);
            let (text, tag) = text.split_at(text.len() - TAG);
            let mut out = vec![0; text.len()];
            key.open((3, 1), b"aad", text, tag, &mut out).unwrap();
            assert_eq!(out, [front, payload].concat());
            for (nonce, aad) in [((4, 1), &b"aad"[..]), ((3, 0), b"aad"), ((3, 1), b"aaD")] {
                assert_eq!(key.open(nonce, aad, text, tag, &mut out), Err(Refused));
            }
        }
    }

    #[test]
    fn a_key_is_unwrapped_by_its_own_key_for_its_own_recording() {
        let data = DataKey::random().unwrap();
        let wrapped = data.wrap(&[1; KEY], b"recording").unwrap();
        let again = DataKey::unwrap(&wrapped, &[1; KEY], b"recording").unwrap();
        assert_eq!(again.0.expose_secret(), data.0.expose_secret());
        assert!(DataKey::unwrap(&wrapped, &[2; KEY], b"recording").is_err());
        assert!(DataKey::unwrap(&wrapped, &[1; KEY], b"another").is_err());
        assert_ne!(data.wrap(&[1; KEY], b"recording").unwrap(), wrapped);
        assert!(!wrapped.windows(8).any(|bytes| data.0.expose_secret().windows(8).any(|key| key == bytes)));
    }
}
