//! The calls of librdkafka that the safe crate has no door for and that source and sink share: logs, how a topic is set up, a
//! commit that is answered within a given time, and what was committed beside an offset.

use std::collections::HashMap;
use std::ffi::{CStr, c_char};
use std::ptr::{NonNull, null, null_mut};
use std::slice;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;

/// What librdkafka logs; would go to stderr otherwise.
pub struct Logs(NonNull<sys::rd_kafka_queue_t>);

// SAFETY: librdkafka's queues may be used by any thread.
unsafe impl Send for Logs {}

impl Logs {
    /// Of this client, from now on. `None` when there is no memory for a queue.
    pub fn of<C: ClientContext>(client: &Client<C>) -> Option<Logs> {
        // SAFETY: the queue is ours until it is destroyed, which the client outlives or not: it counts its queues.
        unsafe {
            let client = client.native_ptr();
            let queue = NonNull::new(sys::rd_kafka_queue_new(client))?;
            sys::rd_kafka_set_log_queue(client, queue.as_ptr());
            Some(Logs(queue))
        }
    }

    /// Hands on what was logged since the last time: the facility and the message.
    pub fn take(&self, mut each: impl FnMut(&str, &str)) {
        // SAFETY: the texts belong to the event, which is destroyed once.
        unsafe {
            while let Some(event) = NonNull::new(sys::rd_kafka_queue_poll(self.0.as_ptr(), 0)) {
                let (mut facility, mut message, mut level) = (null(), null(), 0);
                if sys::rd_kafka_event_log(event.as_ptr(), &mut facility, &mut message, &mut level) == 0 {
                    each(&CStr::from_ptr(facility).to_string_lossy(), &CStr::from_ptr(message).to_string_lossy());
                }
                sys::rd_kafka_event_destroy(event.as_ptr());
            }
        }
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        // SAFETY: it was made once and is used no more.
        unsafe { sys::rd_kafka_queue_destroy(self.0.as_ptr()) };
    }
}

/// How a topic is set up (`max.message.bytes` …), with what the brokers have by default; empty when that is not told.
pub fn topic_settings<C: ClientContext>(
    client: &Client<C>,
    topic: &CStr,
    patience: Duration,
) -> HashMap<String, String> {
    let mut settings = HashMap::new();
    let patience = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: librdkafka copies the name. Each object that is made here is destroyed here, the event last, as the resources
    // and entries belong to it. The queue may go before the answer has come, which is dropped then.
    unsafe {
        let client = client.native_ptr();
        let queue = sys::rd_kafka_queue_new(client);
        let options =
            sys::rd_kafka_AdminOptions_new(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
        sys::rd_kafka_AdminOptions_set_request_timeout(options, patience, null_mut(), 0);
        let kind = sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC;
        let mut asked = sys::rd_kafka_ConfigResource_new(kind, topic.as_ptr());
        sys::rd_kafka_DescribeConfigs(client, &mut asked, 1, options, queue);
        let event = sys::rd_kafka_queue_poll(queue, patience);
        let answer = if event.is_null() { null() } else { sys::rd_kafka_event_DescribeConfigs_result(event) };
        if !answer.is_null() {
            let mut count = 0;
            let resources = sys::rd_kafka_DescribeConfigs_result_resources(answer, &mut count);
            for at in 0..if resources.is_null() { 0 } else { count } {
                let mut count = 0;
                let entries = sys::rd_kafka_ConfigResource_configs(*resources.add(at), &mut count);
                for at in 0..if entries.is_null() { 0 } else { count } {
                    let text = |text: *const c_char| CStr::from_ptr(text).to_string_lossy().into_owned();
                    let entry = *entries.add(at);
                    let (name, value) = (sys::rd_kafka_ConfigEntry_name(entry), sys::rd_kafka_ConfigEntry_value(entry));
                    if !name.is_null() && !value.is_null() {
                        settings.insert(text(name), text(value));
                    }
                }
            }
        }
        if !event.is_null() {
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_ConfigResource_destroy(asked);
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_queue_destroy(queue);
    }
    settings
}

/// What was committed beside the offset of the first partition of a list; the safe crate takes it for text, which it need
/// not be.
pub fn note_of(list: &TopicPartitionList) -> Vec<u8> {
    // SAFETY: the list has so many elements, and the first one's note so many bytes, which belong to the list.
    unsafe {
        let list = &*list.ptr();
        if list.cnt < 1 || list.elems.is_null() {
            return Vec::new();
        }
        let first = &*list.elems;
        match first.metadata.is_null() {
            true => Vec::new(),
            false => slice::from_raw_parts(first.metadata.cast::<u8>(), first.metadata_size).to_vec(),
        }
    }
}

/// Commits offsets to the consumer's group and waits for the answer.
pub fn commit<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    offsets: &TopicPartitionList,
    patience: Duration,
) -> Result<(), RDKafkaErrorCode> {
    let patience = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: librdkafka copies the offsets. The queue is ours; it may go before the answer has come, which is dropped
    // then. The event is destroyed once.
    let err = unsafe {
        let client = consumer.client().native_ptr();
        let queue = sys::rd_kafka_queue_new(client);
        let mut err = sys::rd_kafka_commit_queue(client, offsets.ptr(), queue, None, null_mut());
        if err == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            let event = sys::rd_kafka_queue_poll(queue, patience);
            if event.is_null() {
                err = RDKafkaRespErr::RD_KAFKA_RESP_ERR__TIMED_OUT;
            } else {
                err = sys::rd_kafka_event_error(event);
                sys::rd_kafka_event_destroy(event);
            }
        }
        sys::rd_kafka_queue_destroy(queue);
        err
    };
    if err == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR { Ok(()) } else { Err(err.into()) }
}
