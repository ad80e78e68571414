//! SCRAM-SHA-256: how a client shows that it knows a password without sending it (RFC 5802, RFC 7677; PostgreSQL manual,
//! "SASL Authentication").
//!
//! Kept of a password is a [`Verifier`], in PostgreSQL's form. With it a proof can be checked; a proof cannot be made of
//! it. One login is an [`Exchange`]:
//!
//! ```text
//!     client                                   server
//!     n,,n=,r=NONCE                      ──►   begin
//!                                        ◄──   r=NONCEmore,s=SALT,i=4096
//!     c=biws,r=NONCEmore,p=PROOF         ──►   finish
//!                                        ◄──   v=SIGNATURE
//! ```
//!
//! With channel binding (SCRAM-SHA-256-PLUS, `tls-server-end-point` of RFC 5929) the client also says which certificate
//! it has seen, so that nobody can stand between the two. Pure: no sockets, no clock; the only thing from outside are
//! random numbers.
//!
//! It is written out here because pgwire's own wants the salted password, which is as good as the password to whoever
//! steals it.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// Names of the mechanisms.
pub const MECHANISM: &str = "SCRAM-SHA-256";
pub const MECHANISM_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// Rounds of hashing for new passwords: what PostgreSQL takes, and the least that RFC 7677 allows.
const ITERATIONS: u32 = 4096;

/// More would let whoever sends a hashed password keep clients busy for minutes.
const MAX_ITERATIONS: u32 = 10_000_000;

/// Bytes of salt of new passwords, as PostgreSQL has.
const SALT_BYTES: usize = 16;

/// Bytes of random in the server's part of the nonce, as PostgreSQL has.
const NONCE_BYTES: usize = 18;

type Key = [u8; 32];

/// What is kept of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: Key,
    server_key: Key,
}

/// Nobody shows it by mistake.
impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(***)")
    }
}

impl Verifier {
    /// Of a password, with a new salt.
    pub fn new(password: &str) -> Verifier {
        Verifier::salted(password, rand::random::<[u8; SALT_BYTES]>().to_vec(), ITERATIONS)
    }

    fn salted(password: &str, salt: Vec<u8>, iterations: u32) -> Verifier {
        // What SASLprep does not take is used as it is, as PostgreSQL does.
        let prepared = stringprep::saslprep(password).unwrap_or(password.into());
        let mut block = hmac(prepared.as_bytes(), &[&salt, &1u32.to_be_bytes()]);
        let mut salted = block;
        for _ in 1..iterations {
            block = hmac(prepared.as_bytes(), &[&block]);
            salted.iter_mut().zip(block).for_each(|(byte, other)| *byte ^= other);
        }
        let stored_key = Sha256::digest(hmac(&salted, &[b"Client Key"])).into();
        Verifier { iterations, salt, stored_key, server_key: hmac(&salted, &[b"Server Key"]) }
    }

    /// One that no password fits, for names that nobody has: with the same salt each time the same `name` is tried, so
    /// that it cannot be told from a real one.
    pub fn mock(secret: &[u8], name: &str) -> Verifier {
        let salt = hmac(secret, &[b"salt", name.as_bytes()])[..SALT_BYTES].to_vec();
        let key = |what: &[u8]| hmac(secret, &[what, name.as_bytes()]);
        Verifier { iterations: ITERATIONS, salt, stored_key: key(b"stored"), server_key: key(b"server") }
    }

    /// Reads `SCRAM-SHA-256$4096:SALT$STOREDKEY:SERVERKEY` (base64), the form in which PostgreSQL keeps passwords and in
    /// which clients may send them; `None` if it is something else.
    pub fn parse(text: &str) -> Option<Verifier> {
        let (front, keys) = text.strip_prefix(MECHANISM)?.strip_prefix('$')?.split_once('$')?;
        let ((iterations, salt), (stored, server)) = (front.split_once(':')?, keys.split_once(':')?);
        let key = |text: &str| -> Option<Key> { STANDARD.decode(text).ok()?.try_into().ok() };
        let iterations = iterations.parse().ok().filter(|n| (1..=MAX_ITERATIONS).contains(n))?;
        let salt = STANDARD.decode(salt).ok().filter(|salt| !salt.is_empty())?;
        Some(Verifier { iterations, salt, stored_key: key(stored)?, server_key: key(server)? })
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| STANDARD.encode(bytes);
        let (salt, stored, server) = (text(&self.salt), text(&self.stored_key), text(&self.server_key));
        write!(f, "{MECHANISM}${}:{salt}${stored}:{server}", self.iterations)
    }
}

/// A message that is not one of SCRAM, and what is wrong with it, as a sentence.
#[derive(Debug, Clone, PartialEq)]
pub struct Malformed(pub &'static str);

/// One login, between the server's first message and the client's proof.
pub struct Exchange {
    verifier: Verifier,
    /// What the client must send back as `c=`.
    binding: String,
    nonce: String,
    client_first_bare: String,
    server_first: String,
}

impl Exchange {
    /// Reads the client's first message; gives the login and what to answer. `end_point`: the hash of the server's
    /// certificate, where the client may bind to it; `plus`: it has chosen to.
    pub fn begin(
        verifier: Verifier,
        message: &str,
        end_point: Option<&[u8]>,
        plus: bool,
    ) -> Result<(Exchange, String), Malformed> {
        Exchange::begin_with(verifier, message, end_point, plus, &STANDARD.encode(rand::random::<[u8; NONCE_BYTES]>()))
    }

    fn begin_with(
        verifier: Verifier,
        message: &str,
        end_point: Option<&[u8]>,
        plus: bool,
        random: &str,
    ) -> Result<(Exchange, String), Malformed> {
        let mut parts = message.splitn(3, ',');
        let (Some(flag), Some(identity), Some(bare)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(Malformed("The first message has less than three parts."));
        };
        let bound: &[u8] = match (flag, plus, end_point) {
            ("p=tls-server-end-point", true, Some(end_point)) => end_point,
            (_, true, _) => return Err(Malformed("Channel binding is of the type tls-server-end-point.")),
            ("n", false, _) | ("y", false, None) => &[],
            // Somebody has taken the better mechanism out of what the server offered.
            ("y", false, Some(_)) => return Err(Malformed("The server does offer channel binding.")),
            _ => return Err(Malformed("The flag for channel binding is wrong.")),
        };
        if !identity.is_empty() {
            return Err(Malformed("Nobody can log in as somebody else."));
        }
        // The name that it begins with is that of the start-up message; PostgreSQL's clients leave it empty.
        let mut attributes = bare.split(',');
        let (Some(name), Some(nonce)) = (attributes.next(), attributes.next()) else {
            return Err(Malformed("The first message has no nonce."));
        };
        if name.starts_with("m=") {
            return Err(Malformed("An extension is demanded that is not known."));
        }
        let Some(nonce) = nonce.strip_prefix("r=").filter(|_| name.starts_with("n=")) else {
            return Err(Malformed("The first message is n=, and then r=."));
        };
        if nonce.is_empty() || !nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Malformed("A nonce is made of printable characters."));
        }
        let nonce = format!("{nonce}{random}");
        let server_first = format!("r={nonce},s={},i={}", STANDARD.encode(&verifier.salt), verifier.iterations);
        let mut binding = format!("{flag},{identity},").into_bytes();
        binding.extend_from_slice(bound);
        let (binding, client_first_bare) = (STANDARD.encode(binding), bare.to_string());
        let exchange = Exchange { verifier, binding, nonce, client_first_bare, server_first: server_first.clone() };
        Ok((exchange, server_first))
    }

    /// Reads the client's last message. Gives the server's, if the proof is that of the password.
    pub fn finish(self, message: &str) -> Result<Option<String>, Malformed> {
        let Some((without_proof, proof)) = message.rsplit_once(",p=") else {
            return Err(Malformed("The last message has no proof."));
        };
        let mut attributes = without_proof.split(',');
        let (binding, nonce) = (attributes.next(), attributes.next());
        let (Some(binding), Some(nonce)) = (
            binding.and_then(|attribute| attribute.strip_prefix("c=")),
            nonce.and_then(|attribute| attribute.strip_prefix("r=")),
        ) else {
            return Err(Malformed("The last message is c=, r= and p=."));
        };
        if binding != self.binding {
            return Err(Malformed("The channel that the client is bound to is another one."));
        }
        if nonce != self.nonce {
            return Err(Malformed("The nonce is another one."));
        }
        let proof: Key = match STANDARD.decode(proof).map(Key::try_from) {
            Ok(Ok(proof)) => proof,
            Ok(Err(_)) | Err(_) => return Err(Malformed("The proof is not 32 bytes in base64.")),
        };
        let said =
            [self.client_first_bare.as_bytes(), b",", self.server_first.as_bytes(), b",", without_proof.as_bytes()];
        let mut client_key = hmac(&self.verifier.stored_key, &said);
        client_key.iter_mut().zip(proof).for_each(|(byte, other)| *byte ^= other);
        let right = same(&Sha256::digest(client_key), &self.verifier.stored_key);
        Ok(right.then(|| format!("v={}", STANDARD.encode(hmac(&self.verifier.server_key, &said)))))
    }
}

/// HMAC-SHA-256 of some pieces (RFC 2104).
fn hmac(key: &[u8], pieces: &[&[u8]]) -> Key {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key may have any length");
    pieces.iter().for_each(|piece| mac.update(piece));
    mac.finalize().into_bytes().into()
}

/// Takes the same time wherever they differ.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, section 3.
    fn of_the_rfc() -> Verifier {
        Verifier::salted("pencil", STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap(), 4096)
    }

    const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const RANDOM: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const LAST: &str =
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn begun(verifier: Verifier) -> Exchange {
        let (exchange, answer) = Exchange::begin_with(verifier, FIRST, None, false, RANDOM).unwrap();
        assert!(answer.starts_with("r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s="), "{answer}");
        exchange
    }

    #[test]
    fn the_example_of_the_rfc_logs_in() {
        let last = begun(of_the_rfc()).finish(LAST).unwrap();
        assert_eq!(last.as_deref(), Some("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
    }

    #[test]
    fn another_password_does_not() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        assert_eq!(begun(Verifier::salted("pencils", salt, 4096)).finish(LAST), Ok(None));
        assert_eq!(begun(Verifier::mock(b"secret", "user")).finish(LAST), Ok(None));
    }

    #[test]
    fn verifiers_are_postgresqls() {
        let verifier = of_the_rfc();
        let text = verifier.to_string();
        assert!(text.starts_with("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"), "{text}");
        assert_eq!(Verifier::parse(&text), Some(verifier));
        for wrong in [
            "",
            "pencil",
            "SCRAM-SHA-256",
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$x:y",
            &text.replace("4096", "0"),
            &text.replace("4096", "4294967295"),
            &text.replace("W22ZaJ0SNY7soEsUEjb6gQ==", ""),
            &text[..text.len() - 1],
        ] {
            assert_eq!(Verifier::parse(wrong), None, "{wrong}");
        }
        assert_ne!(Verifier::new("a").to_string(), Verifier::new("a").to_string(), "each has its own salt");
        assert!(!format!("{:?}", Verifier::new("a")).contains('$'));
    }

    #[test]
    fn a_name_that_nobody_has_always_has_the_same_salt() {
        let shown = |secret: &[u8], name: &str| Verifier::mock(secret, name).to_string();
        assert_eq!(shown(b"s", "a"), shown(b"s", "a"));
        assert_ne!(shown(b"s", "a"), shown(b"s", "b"));
        assert_ne!(shown(b"s", "a"), shown(b"t", "a"));
    }

    #[test]
    fn what_is_no_message_of_scram_is_refused() {
        let begin = |message: &str, end_point: Option<&[u8]>, plus: bool| {
            Exchange::begin(of_the_rfc(), message, end_point, plus).map(|_| ())
        };
        assert_eq!(begin("p=tls-server-end-point,,n=,r=x", Some(b"hash"), true), Ok(()));
        assert_eq!(begin("y,,n=,r=x", None, false), Ok(()));
        for (message, end_point, plus) in [
            ("", None, false),
            ("n,,", None, false),
            ("n,,n=x", None, false),
            ("n,,r=x,n=", None, false),
            ("n,,n=,r=", None, false),
            ("n,,n=,r=\u{e9}", None, false),
            ("n,a=admin,n=,r=x", None, false),
            ("n,,m=x,n=,r=x", None, false),
            ("y,,n=,r=x", Some(b"hash".as_slice()), false),
            ("n,,n=,r=x", Some(b"hash".as_slice()), true),
            ("p=tls-unique,,n=,r=x", Some(b"hash".as_slice()), true),
            ("p=tls-server-end-point,,n=,r=x", None, true),
            ("p=tls-server-end-point,,n=,r=x", Some(b"hash".as_slice()), false),
        ] {
            assert!(begin(message, end_point, plus).is_err(), "{message}");
        }
        for message in [
            "",
            "c=biws",
            &LAST.replace("biws", "eSws"),
            &LAST.replace("c=", "d="),
            &LAST.replace("r=rO", "r=ro"),
            &LAST.replace("dHzb", "????"),
            &LAST.replace("dHzb", ""),
        ] {
            assert!(begun(of_the_rfc()).finish(message).is_err(), "{message}");
        }
    }

    #[test]
    fn the_channel_is_part_of_the_proof() {
        let bound = |hash: &[u8]| {
            let mut text = b"p=tls-server-end-point,,".to_vec();
            text.extend_from_slice(hash);
            STANDARD.encode(text)
        };
        let first = FIRST.replacen("n,", "p=tls-server-end-point,", 1);
        let begin = || Exchange::begin_with(of_the_rfc(), &first, Some(b"right"), true, RANDOM).unwrap().0;
        let last = |hash: &[u8]| LAST.replace("biws", &bound(hash));
        assert_eq!(begin().finish(&last(b"right")), Ok(None), "a proof for another channel");
        assert!(begin().finish(&last(b"wrong")).is_err());
        assert!(begin().finish(LAST).is_err());
    }
}
