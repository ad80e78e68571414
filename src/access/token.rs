//! Tokens: long random texts with which programs that send logs show who they are. A token is shown once, when it is made;
//! kept is its hash (SHA-256), which is enough because nobody can guess 256 random bits.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// What a token begins with, so that those who look for secrets in texts find one.
const PREFIX: &str = "lw_";

/// Bytes of random.
const BYTES: usize = 32;

/// A token that nobody has seen.
pub fn generate() -> String {
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; BYTES]>()))
}

/// What is kept of a token: 64 hexadecimal digits.
pub fn hash(token: &str) -> String {
    Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a text is such a hash.
pub fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_and_their_hashes_tell_nothing() {
        let (one, other) = (generate(), generate());
        assert_ne!(one, other);
        assert!(one.starts_with("lw_") && one.len() == 46, "{one}");
        assert!(is_hash(&hash(&one)) && hash(&one) == hash(&one) && hash(&one) != hash(&other));
        assert_eq!(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "FIPS 180-2");
        assert!(!is_hash("ba78") && !is_hash(&"G".repeat(64)));
    }
}
