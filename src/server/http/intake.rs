//! From the records of a request to the streams: sorted by stream, pushed, and what became of them.
//!
//! Receives records from a protocol ([`super::Protocol::receive`]), each with its number in the request, and makes one batch
//! for each stream of them. A batch is in its stream in whole or not at all; it is durable, and visible, before the request
//! is answered. What the stream's format cannot read is kept as malformed like any other line of it, and reported.
//!
//! Which stream? The one that the request names, in its path (`/v1/streams/NAME/…`) or with the header `X-Logweir-Stream`;
//! else the one that the record names, where its protocol has such a name; else the one that the protocol has for all else.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::Call;
use super::token::Caller;
use crate::engine::{Engine, Stream};
use crate::error::{Error, Kind, Result};
use crate::format::{FORMATS, json};
use crate::frame::message::Message;
use crate::frame::{Frames, Framing};
use crate::ingest::Push;
use crate::storage::stream_log::HTTP;
use crate::time::Micros;

/// Whose event time it is that comes this way.
const PARTITION: &str = "http";

/// So long a batch waits for a place in the queue of its stream before the client is told to come again.
const PATIENCE: Duration = Duration::from_secs(5);

/// So long an answer waits until its batch has been parsed. A batch that takes longer is durable all the same; the answer
/// then does not know of malformed lines.
const PARSED_WITHIN: Duration = Duration::from_secs(5);

/// Reasons that an answer gives.
const MAX_REASONS: usize = 100;

/// The records of one request.
pub struct Intake {
    // Fixed.
    engine: Arc<Engine>,
    /// The stream that the request names.
    pub named: Option<String>,
    /// Whose privileges count.
    pub caller: Caller,
    // State.
    pub batches: Vec<Batch>,
}

/// Records for one stream.
pub struct Batch {
    pub stream: Arc<Stream>,
    /// Its format reads JSON lines: a record is its object. Else a record is its text alone.
    pub json: bool,
    limit: u64,
    bytes: u64,
    messages: Message,
    /// Of a protocol that frames its body itself.
    frames: Frames,
    /// The number of each frame's record in the request, from 0; those of later frames go on from there.
    pub numbers: Vec<u32>,
}

/// What became of a request.
pub struct Outcome {
    pub batches: Vec<Delivered>,
}

/// What became of the records for one stream.
pub struct Delivered {
    pub stream: String,
    pub numbers: Vec<u32>,
    pub frames: usize,
    pub landed: Result<Landed>,
}

/// Where they are.
pub struct Landed {
    pub offsets: Range<u64>,
    /// They were there already.
    pub repeated: bool,
    /// The frames that the format could not read, and why; `None` when that is not known yet.
    pub malformed: Option<Vec<Malformed>>,
}

pub struct Malformed {
    pub frame: usize,
    /// Only the first ones are told.
    pub reason: Option<String>,
}

impl Intake {
    pub fn new(engine: &Arc<Engine>, named: Option<String>) -> Intake {
        Intake { engine: Arc::clone(engine), named, caller: Caller::Anybody, batches: Vec::new() }
    }

    /// Wall time.
    pub fn now(&self) -> Micros {
        self.engine.clock().now()
    }

    /// The batch of the stream that the request names, else of the first of `names` that is one. Its number.
    pub fn batch(&mut self, names: &[&str]) -> Result<usize> {
        let named = self.named.clone();
        let names = named.as_ref().map_or(names.to_vec(), |name| vec![name.as_str()]);
        let known = |batch: &Batch| names.first() == Some(&batch.stream.name.as_str());
        if let Some(at) = self.batches.iter().position(known) {
            return Ok(at);
        }
        let stream = match names.iter().find_map(|name| self.engine.stream(name)) {
            Some(stream) => stream,
            None => {
                let name = names.first().copied().unwrap_or_default();
                // Who may not post there is not told what there is.
                self.caller.may_insert(&self.engine, name)?;
                return Err(self.unknown(name));
            }
        };
        self.caller.may_insert(&self.engine, &stream.name)?;
        if let Some(at) = self.batches.iter().position(|batch| Arc::ptr_eq(&batch.stream, &stream)) {
            return Ok(at);
        }
        self.batches.push(Batch::new(stream)?);
        Ok(self.batches.len() - 1)
    }

    fn unknown(&self, name: &str) -> Error {
        match self.engine.stream_called(name) {
            Err(err) if err.kind() == Kind::UndefinedTable => {
                let message = format!("stream \"{name}\" does not exist");
                let create = format!("CREATE TABLE \"{name}\" FORMAT JSON makes one.");
                let hint = err.hint().map_or(create.clone(), |near| format!("{near} {create}"));
                Error::new(Kind::UndefinedTable, message).with_hint(hint)
            }
            Err(err) => err,
            Ok(_) => Error::internal("the stream was not there a moment ago"),
        }
    }

    /// Pushes all batches, and waits until they are durable and parsed. Under `key` each counts once.
    pub async fn deliver(self, key: Option<String>) -> Outcome {
        let mut batches = Vec::new();
        for batch in self.batches {
            batches.push(batch.deliver(key.clone()).await);
        }
        Outcome { batches }
    }
}

impl Batch {
    fn new(stream: Arc<Stream>) -> Result<Batch> {
        let format = crate::registry::find(FORMATS, "format", &stream.definition.format)?;
        Ok(Batch {
            json: format.name == json::SPEC.name,
            limit: stream.push_bytes(),
            stream,
            bytes: 0,
            messages: Message::new(&Framing::default()),
            frames: Frames::default(),
            numbers: Vec::new(),
        })
    }

    /// Adds a record as one frame. Fails when the batch becomes larger than the stream takes.
    pub fn add(&mut self, number: u32, record: &[u8]) -> Result<()> {
        self.bytes += record.len().max(1) as u64;
        self.check()?;
        self.messages.add(record);
        self.numbers.push(number);
        Ok(())
    }

    /// Makes these frames the batch. `numbers`: of their records, if they are not counted from 0.
    pub fn set(&mut self, frames: Frames, numbers: Vec<u32>) -> Result<()> {
        self.bytes = frames.bytes.len() as u64;
        (self.frames, self.numbers) = (frames, numbers);
        self.check()
    }

    fn check(&self) -> Result<()> {
        if self.bytes <= self.limit {
            return Ok(());
        }
        let message = format!("the records are more than push_bytes of stream \"{}\" allows", self.stream.name);
        Err(Error::new(Kind::ResourceLimit, message)
            .with_detail(format!("It is {} bytes at once. Nothing of them was kept.", self.limit))
            .with_hint("Send them in several requests."))
    }

    /// What it is pushed as.
    pub fn into_frames(mut self) -> Frames {
        if self.frames.is_empty() { self.messages.take() } else { self.frames }
    }

    async fn deliver(mut self, key: Option<String>) -> Delivered {
        let (stream, numbers) = (Arc::clone(&self.stream), std::mem::take(&mut self.numbers));
        let frames = self.into_frames();
        let count = frames.len();
        let landed = push(&stream, frames, key).await;
        Delivered { stream: stream.name.clone(), numbers, frames: count, landed }
    }
}

async fn push(stream: &Arc<Stream>, frames: Frames, key: Option<String>) -> Result<Landed> {
    let ingest = stream.pipeline()?;
    let partition = PARTITION.to_string();
    let pushed = ingest.push(Push { source: HTTP, partition, frames, key, patience: Some(PATIENCE) }).await?;
    let offsets = pushed.offsets;
    // It is durable by now: that it cannot be parsed any more, as when the stream was dropped, is no failure.
    let parsed = matches!(tokio::time::timeout(PARSED_WITHIN, ingest.visible(offsets.end)).await, Ok(Ok(())));
    let malformed = match parsed {
        true => stream.malformed(offsets.clone(), MAX_REASONS).await.ok(),
        false => None,
    };
    let of_frame =
        |(offset, reason): (u64, Option<String>)| Malformed { frame: (offset - offsets.start) as usize, reason };
    let malformed = malformed.map(|all| all.into_iter().map(of_frame).collect());
    Ok(Landed { offsets: offsets.clone(), repeated: pushed.repeated, malformed })
}

impl Delivered {
    /// The number in the request of a frame's record.
    pub fn number(&self, frame: usize) -> u32 {
        self.numbers.get(frame).copied().unwrap_or(frame as u32)
    }

    /// The malformed records that are known.
    pub fn malformed(&self) -> &[Malformed] {
        self.landed.as_ref().ok().and_then(|landed| landed.malformed.as_deref()).unwrap_or_default()
    }
}

impl Outcome {
    /// The first failure.
    pub fn failure(&self) -> Option<&Error> {
        self.batches.iter().find_map(|batch| batch.landed.as_ref().err())
    }

    /// How many records are malformed.
    pub fn malformed(&self) -> usize {
        self.batches.iter().map(|batch| batch.malformed().len()).sum()
    }

    /// What is wrong with the first malformed records, in words: `line 3: empty line; line 7: …`; and where they are kept.
    pub fn complaint(&self, word: &str, first: u32) -> Option<(String, String)> {
        const TOLD: usize = 5;
        let all = self.batches.iter().flat_map(|batch| batch.malformed().iter().map(move |bad| (batch, bad)));
        let told: Vec<String> = all
            .take(TOLD)
            .map(|(batch, bad)| {
                let reason = bad.reason.as_deref().unwrap_or("malformed");
                format!("{word} {}: {reason}", batch.number(bad.frame) + first)
            })
            .collect();
        if told.is_empty() {
            return None;
        }
        let more = if self.malformed() > TOLD { "; …" } else { "" };
        let bad = self.batches.iter().filter(|batch| !batch.malformed().is_empty());
        let places: Vec<String> = bad.map(|batch| format!("\"{}__malformed\"", batch.stream)).collect();
        let kept =
            format!("All of them are kept, the malformed ones in {}: do not send them again.", places.join(", "));
        Some((format!("{}{more}", told.join("; ")), kept))
    }
}

impl Call {
    /// The key under which the request counts once.
    pub fn idempotency_key(&self) -> Option<String> {
        let given = self.header("idempotency-key")?;
        // The draft of the IETF has it in quotes; most senders have not.
        let bare = given.trim().trim_matches('"');
        Some(bare.to_string())
    }
}
