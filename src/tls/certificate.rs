//! What a certificate (X.509 in DER, RFC 5280) says: whom it names, and the hash by which a channel is bound to it.
//!
//! ```text
//!     SEQUENCE { SEQUENCE { [0] version, serial, algorithm, issuer, validity, subject, … }, SEQUENCE { algorithm, … }, … }
//! ```
//!
//! Only certificates come here that rustls has checked, or that are the server's own.

use sha2::{Digest, Sha256, Sha384, Sha512};

/// DER's tags of what is looked at.
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;
/// UTF8String, PrintableString, IA5String: all of them UTF-8.
const TEXTS: [u8; 3] = [0x0c, 0x13, 0x16];

/// 2.5.4.3, the attribute commonName.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// One element: its tag and content, and what comes behind it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let count = usize::from(first & 0x7f);
        if !(1..=4).contains(&count) || rest.len() < count {
            return None;
        }
        let (digits, behind) = rest.split_at(count);
        length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
        rest = behind;
    }
    (rest.len() >= length).then(|| (tag, &rest[..length], &rest[length..]))
}

/// The content of an element of this kind, and what comes behind it.
fn expect(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    element(bytes).filter(|(found, ..)| *found == tag).map(|(_, content, rest)| (content, rest))
}

/// The common name of the one whom a certificate is for; `None` if it has none, or several.
pub fn common_name(certificate: &[u8]) -> Option<String> {
    let (whole, _) = expect(certificate, SEQUENCE)?;
    let (mut rest, _) = expect(whole, SEQUENCE)?;
    if let Some((VERSION, _, behind)) = element(rest) {
        rest = behind;
    }
    // Serial number, algorithm, issuer, validity.
    for _ in 0..4 {
        (_, _, rest) = element(rest)?;
    }
    let (mut names, _) = expect(rest, SEQUENCE)?;
    let mut found = None;
    while !names.is_empty() {
        let (mut set, behind) = expect(names, SET)?;
        names = behind;
        while !set.is_empty() {
            let (pair, more) = expect(set, SEQUENCE)?;
            set = more;
            let (attribute, value) = expect(pair, OID)?;
            if attribute != COMMON_NAME {
                continue;
            }
            let (tag, text, _) = element(value)?;
            let text = std::str::from_utf8(text).ok().filter(|text| TEXTS.contains(&tag) && !text.contains('\0'))?;
            if found.replace(text.to_string()).is_some() {
                return None;
            }
        }
    }
    found
}

/// The hash for channel binding of the type `tls-server-end-point` (RFC 5929, section 4.1): that of the certificate's
/// signature, but at least SHA-256. `None` where the signature has none, as Ed25519.
pub fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04];
    let (whole, _) = expect(certificate, SEQUENCE)?;
    let (_, rest) = expect(whole, SEQUENCE)?;
    let (algorithm, _) = expect(rest, SEQUENCE)?;
    let (oid, _) = expect(algorithm, OID)?;
    let kind = match (oid.strip_prefix(RSA), oid.strip_prefix(ECDSA)) {
        (Some([kind]), _) => match kind {
            // MD5 and SHA-1 are replaced.
            4 | 5 | 11 => 256,
            12 => 384,
            13 => 512,
            _ => return None,
        },
        (_, Some([1] | [3, 2])) => 256,
        (_, Some([3, 3])) => 384,
        (_, Some([3, 4])) => 512,
        _ => return None,
    };
    Some(match kind {
        256 => Sha256::digest(certificate).to_vec(),
        384 => Sha384::digest(certificate).to_vec(),
        _ => Sha512::digest(certificate).to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, content: &[&[u8]]) -> Vec<u8> {
        let content = content.concat();
        let length = match content.len() {
            short @ ..0x80 => vec![short as u8],
            long => [&[0x82], &(long as u16).to_be_bytes()[..]].concat(),
        };
        [&[tag], length.as_slice(), &content].concat()
    }

    /// As much of a certificate as is looked at.
    fn certificate(names: &[&str], algorithm: &[u8]) -> Vec<u8> {
        let name = |text: &&str| {
            let value = der(0x0c, &[text.as_bytes()]);
            der(SET, &[&der(SEQUENCE, &[&der(OID, &[COMMON_NAME]), &value])])
        };
        let organization = der(SET, &[&der(SEQUENCE, &[&der(OID, &[&[0x55, 0x04, 0x0a]]), &der(0x13, &[b"alice"])])]);
        let subject = der(SEQUENCE, &[&organization, &names.iter().map(name).collect::<Vec<_>>().concat()]);
        let other = der(SEQUENCE, &[&[0; 200]]);
        let inner = [der(VERSION, &[&[2, 1, 2]]), der(2, &[&[7]]), other.repeat(3), subject].concat();
        let signed = der(SEQUENCE, &[&inner, &other]);
        der(SEQUENCE, &[&signed, &der(SEQUENCE, &[&der(OID, &[algorithm])]), &der(3, &[&[0; 9]])])
    }

    const SHA384_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 12];

    #[test]
    fn the_one_common_name_is_found() {
        assert_eq!(common_name(&certificate(&["häns"], SHA384_RSA)).as_deref(), Some("häns"));
        assert_eq!(common_name(&certificate(&["a", "b"], SHA384_RSA)), None);
        assert_eq!(common_name(&certificate(&["a\0b"], SHA384_RSA)), None);
        assert_eq!(common_name(&certificate(&[], SHA384_RSA)), None);
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        let made = certificate(&["a"], SHA384_RSA);
        assert_eq!(end_point(&made).unwrap(), Sha384::digest(&made).to_vec());
        let ecdsa = certificate(&["a"], &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 3, 2]);
        assert_eq!(end_point(&ecdsa).unwrap(), Sha256::digest(&ecdsa).to_vec());
        assert_eq!(end_point(&certificate(&["a"], &[0x2b, 0x65, 0x70])), None, "Ed25519");
    }

    #[test]
    fn torn_certificates_are_none() {
        let made = certificate(&["a"], SHA384_RSA);
        for end in 0..made.len() - 12 {
            assert_eq!((common_name(&made[..end]), end_point(&made[..end])), (None, None));
        }
        let mut long = made;
        long[1] = 0x85;
        assert_eq!(common_name(&long), None);
    }
}
