//! The calls of librdkafka that the safe crate has no door for, or only a slow one: messages taken many at a time (one event
//! per message costs more than all else here), the end of a partition as far as it is known without asking, and the ids of
//! topics. All unsafe code of the Kafka source is here and in `kafka/native.rs`.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char};
use std::marker::PhantomData;
use std::ptr::{NonNull, null, null_mut};
use std::slice;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::{RDKafkaMessage, RDKafkaRespErr};

/// Messages of any partitions, in the order of each; given back to librdkafka when dropped.
pub struct Batch<'a> {
    messages: Vec<NonNull<RDKafkaMessage>>,
    /// The consumer must live as long.
    consumer: PhantomData<&'a ()>,
}

/// One message, or what librdkafka has to say in the place of one.
#[derive(Clone, Copy)]
pub struct Message<'a>(&'a RDKafkaMessage);

/// Takes the messages that have come, at most so many; does not wait. Serves librdkafka's own events too.
pub fn take<C: ConsumerContext>(consumer: &BaseConsumer<C>, most: usize) -> Batch<'_> {
    let mut messages: Vec<NonNull<RDKafkaMessage>> = Vec::with_capacity(most);
    // SAFETY: the client lives as long as `consumer`. The queue is counted, and given back here. librdkafka writes at most
    // `most` pointers, none of them null, and says how many; a pointer that is not null has the layout of `NonNull`.
    unsafe {
        let queue = sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr());
        if !queue.is_null() {
            let room = messages.as_mut_ptr().cast::<*mut RDKafkaMessage>();
            let taken = sys::rd_kafka_consume_batch_queue(queue, 0, room, most);
            messages.set_len(usize::try_from(taken).unwrap_or(0).min(most));
            sys::rd_kafka_queue_destroy(queue);
        }
    }
    Batch { messages, consumer: PhantomData }
}

impl Batch<'_> {
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = Message<'_>> {
        // SAFETY: the messages are ours until they are destroyed, when the batch is dropped.
        self.messages.iter().map(|message| Message(unsafe { message.as_ref() }))
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        for message in &self.messages {
            // SAFETY: each was given to us once, and nothing that borrowed it is left.
            unsafe { sys::rd_kafka_message_destroy(message.as_ptr()) };
        }
    }
}

impl<'a> Message<'a> {
    /// The name of the topic; `None` for what concerns no topic.
    pub fn topic(self) -> Option<&'a str> {
        if self.0.rkt.is_null() {
            return None;
        }
        // SAFETY: a message holds its topic, and the topic its name, which ends with a NUL.
        let name = unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(self.0.rkt)) };
        name.to_str().ok()
    }

    /// Whether another message of the same batch is of the same partition.
    pub fn is_beside(self, other: Message<'_>) -> bool {
        self.0.rkt == other.0.rkt && self.0.partition == other.0.partition
    }

    pub fn partition(self) -> i32 {
        self.0.partition
    }

    pub fn offset(self) -> u64 {
        u64::try_from(self.0.offset).unwrap_or(0)
    }

    pub fn key(self) -> Option<&'a [u8]> {
        if self.0.key.is_null() {
            return None;
        }
        // SAFETY: the bytes belong to the message.
        Some(unsafe { slice::from_raw_parts(self.0.key.cast::<u8>(), self.0.key_len) })
    }

    /// Its time in milliseconds since 1970: when it was made, or appended, as the topic says.
    pub fn time(self) -> Option<i64> {
        // SAFETY: librdkafka writes the kind of the time.
        unsafe {
            let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
            let time = sys::rd_kafka_message_timestamp(self.0, &mut kind);
            (kind != sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE).then_some(time)
        }
    }

    /// Calls back for each header, in their order.
    pub fn headers(self, mut each: impl FnMut(&[u8], &[u8])) {
        // SAFETY: the headers belong to the message. librdkafka writes pointers into them, the name ending with a NUL; a
        // value may be null.
        unsafe {
            let mut headers = null_mut();
            if sys::rd_kafka_message_headers(self.0, &mut headers) != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return;
            }
            let (mut name, mut value, mut length) = (null(), null(), 0);
            let mut at = 0;
            while sys::rd_kafka_header_get_all(headers, at, &mut name, &mut value, &mut length)
                == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
            {
                let value = if value.is_null() { &[] } else { slice::from_raw_parts(value.cast::<u8>(), length) };
                each(CStr::from_ptr(name).to_bytes(), value);
                at += 1;
            }
        }
    }

    /// What it holds, `None` for a tombstone; or what went wrong.
    pub fn payload(self) -> Result<Option<&'a [u8]>, RDKafkaErrorCode> {
        if self.0.err != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(self.0.err.into());
        }
        if self.0.payload.is_null() {
            return Ok(None);
        }
        // SAFETY: the bytes belong to the message.
        Ok(Some(unsafe { slice::from_raw_parts(self.0.payload.cast::<u8>(), self.0.len) }))
    }
}

/// The end of a partition, as the last fetch told it; `None` before the first.
pub fn known_end<C: ConsumerContext>(consumer: &BaseConsumer<C>, topic: &CStr, partition: i32) -> Option<u64> {
    let (mut low, mut high) = (-1, -1);
    // SAFETY: librdkafka copies the name and writes the two numbers.
    let found = unsafe {
        let client = consumer.client().native_ptr();
        sys::rd_kafka_get_watermark_offsets(client, topic.as_ptr(), partition, &mut low, &mut high)
    };
    let found = found == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
    if found { u64::try_from(high).ok() } else { None }
}

/// The ids of topics, by name: a topic that is made anew has another. Those left out are not known, as with brokers from
/// before Kafka 2.8.
pub fn topic_ids<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topics: &[CString],
    patience: Duration,
) -> HashMap<String, String> {
    let mut ids = HashMap::new();
    let patience = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
    let mut names: Vec<_> = topics.iter().map(|topic| topic.as_ptr()).collect();
    // SAFETY: librdkafka copies the names. Each object that is made here is destroyed here, the event last, as the
    // descriptions and the ids in them belong to it. The queue may go before the answer has come, which is dropped then.
    unsafe {
        let client = consumer.client().native_ptr();
        let queue = sys::rd_kafka_queue_new(client);
        let options =
            sys::rd_kafka_AdminOptions_new(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        sys::rd_kafka_AdminOptions_set_request_timeout(options, patience, null_mut(), 0);
        let asked = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        sys::rd_kafka_DescribeTopics(client, asked, options, queue);
        let event = sys::rd_kafka_queue_poll(queue, patience);
        let answer = if event.is_null() { null() } else { sys::rd_kafka_event_DescribeTopics_result(event) };
        if !answer.is_null() {
            let mut count = 0;
            let found = sys::rd_kafka_DescribeTopics_result_topics(answer, &mut count);
            for at in 0..if found.is_null() { 0 } else { count } {
                let topic = *found.add(at);
                let id = sys::rd_kafka_TopicDescription_topic_id(topic);
                if id.is_null() || sys::rd_kafka_Uuid_most_significant_bits(id) == 0 {
                    continue;
                }
                let text = |text: *const c_char| CStr::from_ptr(text).to_string_lossy().into_owned();
                let (name, id) = (sys::rd_kafka_TopicDescription_name(topic), sys::rd_kafka_Uuid_base64str(id));
                if !id.is_null() {
                    ids.insert(text(name), text(id));
                }
            }
        }
        if !event.is_null() {
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_TopicCollection_destroy(asked);
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_queue_destroy(queue);
    }
    ids
}
