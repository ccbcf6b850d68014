//! Unguessable strings and digits for links, cookies and tokens. Knows nothing of what they are for.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::{constant_time, rand};

/// The system gave no random bytes. Nothing that needs a secret may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gave no random bytes")]
pub struct NoRandomness;

/// A random string of 26 characters out of 32: 130 bits, safe in a URL, a cookie and a terminal.
pub fn code() -> Result<String, NoRandomness> {
    let mut bytes = [0u8; 26];
    rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
    // 32 divides 256, so masking keeps every character equally likely.
    Ok(bytes.iter().filter_map(|byte| ALPHABET.get(usize::from(byte & 31))).map(|&byte| char::from(byte)).collect())
}

/// Six random decimal digits, every one of the million equally likely.
pub fn six_digits() -> Result<String, NoRandomness> {
    loop {
        let mut bytes = [0u8; 4];
        rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
        if let Some(number) = fair_million(u32::from_be_bytes(bytes)) {
            return Ok(format!("{number:06}"));
        }
    }
}

/// SHA-256 of a secret, as a key to look it up by: a map's comparisons then tell nothing about the secret.
pub fn hashed(secret: &str) -> Hashed {
    let mut out = [0u8; 32];
    out.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
    Hashed(out)
}

/// A SHA-256 to look a secret up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hashed([u8; 32]);

impl Hashed {
    /// The hash itself, for the book.
    pub fn bytes(self) -> [u8; 32] {
        self.0
    }
}

/// Whether two secrets are equal, in time that depends on their lengths only.
pub fn same(a: &str, b: &str) -> bool {
    constant_time::verify_slices_are_equal(a.as_bytes(), b.as_bytes()).is_ok()
}

/// A number below a million, or nothing where the modulus would favour the small ones.
fn fair_million(random: u32) -> Option<u32> {
    const MILLION: u32 = 1_000_000;
    const FAIR: u32 = u32::MAX - u32::MAX % MILLION;
    (random < FAIR).then_some(random % MILLION)
}

/// Lower case without the letters that are taken for digits. No `-` or `_`: terminals cut links at them.
const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_long_distinct_and_url_safe() {
        let codes: std::collections::HashSet<_> = (0..200).map(|_| code().unwrap()).collect();
        assert_eq!(codes.len(), 200);
        assert!(codes.iter().all(|code| code.len() == 26 && code.bytes().all(|b| ALPHABET.contains(&b))));
        assert_eq!(ALPHABET.iter().collect::<std::collections::HashSet<_>>().len(), 32);
    }

    #[test]
    fn the_unfair_tail_is_rejected() {
        assert_eq!(fair_million(4_293_999_999), Some(999_999));
        assert_eq!(fair_million(4_294_000_000), None);
        assert_eq!(fair_million(u32::MAX), None);
        assert_eq!(fair_million(7), Some(7));
        assert_eq!(six_digits().unwrap().len(), 6);
    }
}
