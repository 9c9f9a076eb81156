//! Calls into librdkafka that crate `rdkafka` does not wrap: generation and epochs, offsets for a group that is named,
//! and an end that leaves no group; admin calls are in [`admin`]. All of this crate's unsafe code is here.

#![expect(unsafe_code, reason = "librdkafka is C; each block says why it is sound")]

pub(crate) mod admin;

use std::ffi::{CStr, CString};
use std::mem::ManuallyDrop;
use std::os::raw::c_int;
use std::ptr;
use std::time::Duration;

use broker::{Error, GroupMetadata, TopicPartition};
use rdkafka::TopicPartitionList;
use rdkafka::bindings as rd;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::BorrowedMessage;
use rdkafka::producer::{Producer, ProducerContext};

use crate::error::{Flags, from_flags, invalid_state};

/// Group, generation, member and instance as librdkafka has them now; `None` without a group.
pub(crate) fn group_metadata<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Option<GroupMetadata> {
    let client = consumer.client().native_ptr();
    // SAFETY: `consumer` keeps the client alive; the copy that is returned is ours to destroy, after its strings, which
    // live as long as it does, were copied.
    unsafe {
        let native = rd::rd_kafka_consumer_group_metadata(client);
        if native.is_null() {
            return None;
        }
        let instance = rd::rd_kafka_consumer_group_metadata_group_instance_id(native);
        let metadata = GroupMetadata {
            group_id: text(rd::rd_kafka_consumer_group_metadata_group_id(native)),
            generation_id: rd::rd_kafka_consumer_group_metadata_generation_id(native),
            member_id: text(rd::rd_kafka_consumer_group_metadata_member_id(native)),
            group_instance_id: (!instance.is_null()).then(|| text(instance)),
        };
        rd::rd_kafka_consumer_group_metadata_destroy(native);
        Some(metadata)
    }
}

/// `rd_kafka_send_offsets_to_transaction` for the member that `group` describes. It blocks.
pub(crate) fn send_offsets_to_transaction<C, P>(
    producer: &P,
    offsets: &TopicPartitionList,
    group: &GroupMetadata,
    timeout: Duration,
) -> Result<(), Error>
where
    C: ProducerContext,
    P: Producer<C>,
{
    let group_id = c_string(&group.group_id)?;
    let member = c_string(&group.member_id)?;
    let instance = group.group_instance_id.as_deref().map(c_string).transpose()?;
    let instance = instance.as_ref().map_or(ptr::null(), |instance| instance.as_ptr());
    let client = producer.client().native_ptr();
    // SAFETY: `producer` keeps the client alive, the strings and the list live until the call has returned, librdkafka
    // copies them, and metadata and error are ours to destroy.
    unsafe {
        let metadata = rd::rd_kafka_consumer_group_metadata_new_with_genid(
            group_id.as_ptr(),
            group.generation_id,
            member.as_ptr(),
            instance,
        );
        let error =
            rd::rd_kafka_send_offsets_to_transaction(client, offsets.ptr(), metadata, millis(timeout));
        rd::rd_kafka_consumer_group_metadata_destroy(metadata);
        take_error(error, &format!("the offsets of group {} for the transaction", group.group_id))
    }
}

/// The epoch of the leader that appended a message.
pub(crate) fn message_leader_epoch(message: &BorrowedMessage<'_>) -> Option<i32> {
    // SAFETY: the message is alive for as long as it is borrowed.
    known(unsafe { rd::rd_kafka_message_leader_epoch(message.ptr()) })
}

/// The epoch beside an offset of the list.
pub(crate) fn leader_epoch(list: &TopicPartitionList, at: &TopicPartition) -> Option<i32> {
    let entry = entry(list, at)?;
    // SAFETY: the entry belongs to `list`, which is borrowed.
    known(unsafe { rd::rd_kafka_topic_partition_get_leader_epoch(entry) })
}

/// Sets the epoch beside an offset of the list.
pub(crate) fn set_leader_epoch(list: &mut TopicPartitionList, at: &TopicPartition, epoch: i32) {
    if let Some(entry) = entry(list, at) {
        // SAFETY: the entry belongs to `list`, which nobody else can use meanwhile.
        unsafe { rd::rd_kafka_topic_partition_set_leader_epoch(entry, epoch) };
    }
}

/// Sets an offset of the list to a number that need not be an offset.
pub(crate) fn set_raw_offset(list: &mut TopicPartitionList, at: &TopicPartition, number: i64) {
    if let Some(entry) = entry(list, at) {
        // SAFETY: the entry belongs to `list`, which nobody else can use meanwhile.
        unsafe { (*entry).offset = number };
    }
}

fn entry(list: &TopicPartitionList, at: &TopicPartition) -> Option<*mut rd::rd_kafka_topic_partition_t> {
    let topic = CString::new(&*at.topic).ok()?;
    // SAFETY: list and string are alive; the entry that is found lives in the list.
    let entry = unsafe { rd::rd_kafka_topic_partition_list_find(list.ptr(), topic.as_ptr(), at.partition) };
    (!entry.is_null()).then_some(entry)
}

/// Ends a consumer as a crash would: it commits nothing and leaves no group. It blocks until its threads have ended.
///
/// Crate `rdkafka` closes a consumer politely when it is dropped, so its wrapper is forgotten here instead, with a few
/// hundred bytes: its references to queues and its context.
pub(crate) fn abandon<C: ConsumerContext>(mut consumer: BaseConsumer<C>) {
    consumer.set_nonempty_callback(|| {});
    let consumer = ManuallyDrop::new(consumer);
    let client = consumer.client().native_ptr();
    // SAFETY: the wrapper is never used or dropped after this, so nobody else destroys the client or touches it.
    unsafe { rd::rd_kafka_destroy_flags(client, rd::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE as c_int) };
}

/// # Safety
/// `error` is null, or an error that is the caller's to destroy.
unsafe fn take_error(error: *mut rd::rd_kafka_error_t, what: &str) -> Result<(), Error> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: as the caller promises; it is not used after it is destroyed.
    let read = unsafe { read_error(error, what) };
    unsafe { rd::rd_kafka_error_destroy(error) };
    Err(read)
}

/// # Safety
/// `error` is alive.
unsafe fn read_error(error: *const rd::rd_kafka_error_t, what: &str) -> Error {
    // SAFETY: as the caller promises; its string is copied.
    unsafe {
        let code = RDKafkaErrorCode::from(rd::rd_kafka_error_code(error));
        from_flags(code, flags(error), format!("{what}: {}", text(rd::rd_kafka_error_string(error))))
    }
}

/// # Safety
/// `error` is alive.
unsafe fn flags(error: *const rd::rd_kafka_error_t) -> Flags {
    // SAFETY: as the caller promises.
    unsafe {
        Flags {
            fatal: rd::rd_kafka_error_is_fatal(error) != 0,
            retriable: rd::rd_kafka_error_is_retriable(error) != 0,
            requires_abort: rd::rd_kafka_error_txn_requires_abort(error) != 0,
        }
    }
}

/// # Safety
/// `text` is null, or a C string that is alive.
unsafe fn text(text: *const std::os::raw::c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

fn c_string(text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| invalid_state(format!("the name {text:?} holds a zero byte")))
}

/// librdkafka has -1 for an epoch that nobody knows.
fn known(epoch: i32) -> Option<i32> {
    (epoch >= 0).then_some(epoch)
}

fn millis(timeout: Duration) -> c_int {
    c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX)
}

/// Every error code that librdkafka has, with its name.
#[cfg(test)]
pub(crate) fn error_codes() -> Vec<(RDKafkaErrorCode, String)> {
    let (mut first, mut count) = (ptr::null(), 0);
    // SAFETY: librdkafka gives a table of its own, which lives for ever.
    unsafe {
        rd::rd_kafka_get_err_descs(&mut first, &mut count);
        let table = std::slice::from_raw_parts(first, count);
        table.iter().map(|code| (RDKafkaErrorCode::from(code.code), text(code.name))).collect()
    }
}
