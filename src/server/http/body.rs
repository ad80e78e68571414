//! The body of a request: read, then decompressed, each within limits.
//!
//! A body is held in memory as a whole, because a batch is in the stream in whole or not at all. So it is bounded three
//! times: what one body may be as sent and decompressed, the time that it may take to come, and what all bodies together
//! may take ([`Room`]): beyond that, a client is told to come again.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Kind, Result};

/// Largest body as it is sent.
pub const MAX_BODY: usize = 64 << 20;

/// Largest body when it is decompressed.
pub const MAX_DECODED: usize = 128 << 20;

/// All bodies together, as sent and decompressed.
pub const MAX_BODIES: usize = 384 << 20;

/// So long a body may take to come.
pub const BODY_TIME: Duration = Duration::from_secs(60);

/// So long a client waits for room for its body before it is told to come again.
const PATIENCE: Duration = Duration::from_secs(5);

/// The unit in which room is given, in bytes.
const UNIT: usize = 64 << 10;

/// How a body is compressed: the tokens of Content-Encoding (RFC 9110, 8.4.1; zstd: RFC 8878), and how they are undone.
pub static CODINGS: &[(&str, Decoder)] = &[
    ("identity", |body| Ok(Box::new(body))),
    ("gzip", |body| Ok(Box::new(flate2::read::MultiGzDecoder::new(body)))),
    ("x-gzip", |body| Ok(Box::new(flate2::read::MultiGzDecoder::new(body)))),
    ("zstd", |body| Ok(Box::new(zstd::stream::read::Decoder::with_buffer(body)?))),
    // "deflate" means a zlib stream there.
    ("deflate", |body| Ok(Box::new(flate2::read::ZlibDecoder::new(body)))),
];

type Decoder = for<'a> fn(&'a [u8]) -> std::io::Result<Box<dyn Read + 'a>>;

/// Room for the bodies of all requests.
#[derive(Clone)]
pub struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Room {
        Room(Arc::new(Semaphore::new(MAX_BODIES / UNIT)))
    }
}

/// What one request has of it; free again when it is dropped.
pub struct Taken {
    room: Room,
    units: usize,
    permits: Vec<OwnedSemaphorePermit>,
}

impl Room {
    pub fn begin(&self) -> Taken {
        Taken { room: self.clone(), units: 0, permits: Vec::new() }
    }
}

impl Taken {
    fn missing(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT).saturating_sub(self.units)).unwrap_or(u32::MAX)
    }

    fn add(&mut self, units: u32, permit: OwnedSemaphorePermit) {
        self.units += units as usize;
        self.permits.push(permit);
    }

    /// Takes room for `bytes` in all.
    async fn grow(&mut self, bytes: usize) -> Result<()> {
        let units = self.missing(bytes);
        if units == 0 {
            return Ok(());
        }
        let permit = tokio::time::timeout(PATIENCE, Arc::clone(&self.room.0).acquire_many_owned(units)).await;
        let permit = permit.map_err(|_| busy())?.map_err(|_| busy())?;
        self.add(units, permit);
        Ok(())
    }

    /// The same without waiting.
    pub fn try_grow(&mut self, bytes: usize) -> Result<()> {
        let units = self.missing(bytes);
        if units > 0 {
            let permit = Arc::clone(&self.room.0).try_acquire_many_owned(units).map_err(|_| busy())?;
            self.add(units, permit);
        }
        Ok(())
    }
}

fn busy() -> Error {
    Error::new(Kind::Busy, "the bodies of the requests under way take all the memory there is for them")
        .with_hint("Try again a little later.")
}

fn too_large(what: &str, limit: usize) -> Error {
    Error::new(Kind::ResourceLimit, format!("the {what} is larger than {} MiB", limit >> 20))
        .with_hint("Send it in several pieces.")
}

/// Reads a body as it is sent. `announced`: its Content-Length.
pub async fn read(body: Body, announced: Option<u64>, taken: &mut Taken) -> Result<Vec<u8>> {
    if announced.is_some_and(|length| length > MAX_BODY as u64) {
        return Err(too_large("body", MAX_BODY));
    }
    let reading = async {
        let announced = announced.unwrap_or(0) as usize;
        taken.grow(announced).await?;
        let mut bytes = Vec::with_capacity(announced);
        let mut pieces = body.into_data_stream();
        while let Some(piece) = pieces.next().await {
            let piece =
                piece.map_err(|err| Error::new(Kind::Canceled, format!("the body did not come in whole: {err}")))?;
            if bytes.len() + piece.len() > MAX_BODY {
                return Err(too_large("body", MAX_BODY));
            }
            taken.grow(bytes.len() + piece.len()).await?;
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    };
    let slow = || Error::new(Kind::Canceled, format!("the body did not come within {} seconds", BODY_TIME.as_secs()));
    tokio::time::timeout(BODY_TIME, reading).await.unwrap_or_else(|_| Err(slow()))
}

/// Undoes the codings that a Content-Encoding lists, the last first. Unknown ones are `NotSupported`. Not for async code.
pub fn decode(mut body: Vec<u8>, encoding: &str, taken: &mut Taken) -> Result<Vec<u8>> {
    let names: Vec<&str> = encoding.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    // More than two are nobody's but an attacker's.
    if names.len() > 2 {
        return Err(Error::new(Kind::NotSupported, "the body is compressed more than twice"));
    }
    for name in names.into_iter().rev() {
        let lower = name.to_ascii_lowercase();
        let Some((_, decoder)) = CODINGS.iter().find(|(known, _)| *known == lower) else {
            let known: Vec<&str> = CODINGS.iter().map(|(name, _)| *name).collect();
            return Err(Error::new(Kind::NotSupported, format!("Content-Encoding \"{name}\" is not known"))
                .with_hint(format!("There are: {}.", known.join(", "))));
        };
        if lower != "identity" {
            body = decompress(&body, &lower, *decoder, taken)?;
        }
    }
    Ok(body)
}

fn decompress(body: &[u8], name: &str, decoder: Decoder, taken: &mut Taken) -> Result<Vec<u8>> {
    let broken = |err: std::io::Error| {
        Error::new(Kind::InvalidText, format!("the body is not valid {name}: {err}"))
            .with_detail("Nothing of it was kept.")
    };
    let mut input = decoder(body).map_err(broken)?;
    let mut bytes = Vec::new();
    loop {
        let room = (bytes.len().max(UNIT)).min(MAX_DECODED + 1 - bytes.len());
        taken.try_grow(body.len() + bytes.len() + room)?;
        let read = input.by_ref().take(room as u64).read_to_end(&mut bytes).map_err(broken)?;
        if bytes.len() > MAX_DECODED {
            return Err(too_large("decompressed body", MAX_DECODED));
        }
        if read < room {
            return Ok(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn packed(name: &str, text: &[u8]) -> Vec<u8> {
        match name {
            "gzip" | "x-gzip" => {
                let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                out.write_all(text).unwrap();
                out.finish().unwrap()
            }
            "deflate" => {
                let mut out = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
                out.write_all(text).unwrap();
                out.finish().unwrap()
            }
            "zstd" => zstd::encode_all(text, 1).unwrap(),
            _ => text.to_vec(),
        }
    }

    #[test]
    fn every_coding_is_undone_and_codings_may_be_stacked() {
        let text = b"a line\n".repeat(50_000);
        for (name, _) in CODINGS {
            let mut taken = Room::default().begin();
            assert!(decode(packed(name, &text), name, &mut taken).unwrap() == text, "{name}");
            assert!(taken.units * UNIT >= if *name == "identity" { 0 } else { text.len() });
        }
        let twice = packed("gzip", &packed("zstd", &text));
        assert!(decode(twice.clone(), "zstd, gzip", &mut Room::default().begin()).unwrap() == text);
        let two_members = [packed("gzip", b"one\n"), packed("gzip", b"two\n")].concat();
        assert_eq!(decode(two_members, "GZIP", &mut Room::default().begin()).unwrap(), b"one\ntwo\n");
        assert_eq!(decode(twice, "br", &mut Room::default().begin()).unwrap_err().kind(), Kind::NotSupported);
    }

    #[test]
    fn a_bomb_is_refused_and_room_is_given_back() {
        let bomb = packed("zstd", &vec![0; MAX_DECODED + 1]);
        assert!(bomb.len() < 100_000);
        let room = Room::default();
        let err = decode(bomb, "zstd", &mut room.begin()).unwrap_err();
        assert_eq!(err.kind(), Kind::ResourceLimit, "{err}");
        assert_eq!(room.0.available_permits(), MAX_BODIES / UNIT);
        let (_held, bytes) =
            (room.0.clone().try_acquire_many_owned((MAX_BODIES / UNIT) as u32 - 1).unwrap(), vec![0; 1 << 20]);
        assert_eq!(decode(packed("gzip", &bytes), "gzip", &mut room.begin()).unwrap_err().kind(), Kind::Busy);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), whole in any::<bool>()) {
            for (name, _) in CODINGS {
                let mut body = packed(name, &bytes);
                if !whole {
                    body = bytes.clone();
                }
                let decoded = decode(body, name, &mut Room::default().begin());
                prop_assert!(!whole || decoded.is_ok_and(|decoded| decoded == bytes), "{}", name);
            }
        }
    }
}
