//! Calls into librdkafka that crate `rdkafka` does not wrap: generation and epochs, offsets for a group that is named, all
//! offsets of a group, and an end that leaves no group. All of this crate's unsafe code is here.

#![expect(unsafe_code, reason = "librdkafka is C; each block says why it is sound")]

use std::ffi::{CStr, CString};
use std::mem::ManuallyDrop;
use std::os::raw::c_int;
use std::ptr;
use std::time::Duration;

use broker::{Error, GroupMetadata, OffsetAndMetadata, TopicPartition};
use rdkafka::TopicPartitionList;
use rdkafka::bindings as rd;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::BorrowedMessage;
use rdkafka::producer::{Producer, ProducerContext};
use rdkafka::types::RDKafka;

use crate::error::{Flags, from_code, from_flags, invalid_state, timed_out};

/// A client's handle, for the length of a borrow of its client.
struct Handle(*mut RDKafka);

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

/// All that `group` has committed. It blocks for at most `timeout`.
pub(crate) fn group_offsets<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    group: &str,
    timeout: Duration,
) -> Result<Vec<(TopicPartition, OffsetAndMetadata)>, Error> {
    let what = format!("the offsets of group {group}");
    let name = c_string(group)?;
    let client = Handle(client.client().native_ptr());
    // SAFETY: the client outlives the call; what is made here is destroyed here, in the order that librdkafka asks for:
    // request, event, queue. The list belongs to the event and is only read while that lives.
    unsafe {
        let queue = rd::rd_kafka_queue_new(client.0);
        let mut request = rd::rd_kafka_ListConsumerGroupOffsets_new(name.as_ptr(), ptr::null());
        let options = rd::rd_kafka_AdminOptions_new(
            client.0,
            rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS,
        );
        rd::rd_kafka_AdminOptions_set_request_timeout(options, millis(timeout), ptr::null_mut(), 0);
        rd::rd_kafka_ListConsumerGroupOffsets(client.0, &raw mut request, 1, options, queue);
        rd::rd_kafka_AdminOptions_destroy(options);
        rd::rd_kafka_ListConsumerGroupOffsets_destroy(request);
        // librdkafka keeps the request's own timeout; a second more tells its answer from silence.
        let event = rd::rd_kafka_queue_poll(queue, millis(timeout + Duration::from_secs(1)));
        let found = if event.is_null() { Err(timed_out(what)) } else { listed(event, &what) };
        if !event.is_null() {
            rd::rd_kafka_event_destroy(event);
        }
        rd::rd_kafka_queue_destroy(queue);
        found
    }
}

/// Reads the one group of the answer.
///
/// # Safety
/// `event` is the event of a `ListConsumerGroupOffsets`.
unsafe fn listed(
    event: *mut rd::rd_kafka_event_t,
    what: &str,
) -> Result<Vec<(TopicPartition, OffsetAndMetadata)>, Error> {
    // SAFETY: as the caller promises; results live as long as the event, which the caller destroys. The list is not
    // ours: `ManuallyDrop` keeps it from being freed.
    unsafe {
        let code = rd::rd_kafka_event_error(event);
        if code != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(from_code(code.into(), what));
        }
        let result = rd::rd_kafka_event_ListConsumerGroupOffsets_result(event);
        let mut count = 0;
        let groups = rd::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &raw mut count);
        if count == 0 {
            return Ok(Vec::new());
        }
        let error = rd::rd_kafka_group_result_error(*groups);
        if !error.is_null() {
            return Err(read_error(error, what));
        }
        let mut found = Vec::new();
        let list = rd::rd_kafka_group_result_partitions(*groups);
        for index in 0..usize::try_from((*list).cnt).unwrap_or_default() {
            let entry = (*list).elems.add(index);
            let at = TopicPartition::new(text((*entry).topic), (*entry).partition);
            if (*entry).err != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err(from_code((*entry).err.into(), format_args!("{what}, {at}")));
            }
            if (*entry).offset < 0 {
                continue;
            }
            let metadata = match (*entry).metadata_size {
                0 => String::new(),
                size => String::from_utf8_lossy(std::slice::from_raw_parts((*entry).metadata.cast(), size))
                    .into_owned(),
            };
            let leader_epoch = known(rd::rd_kafka_topic_partition_get_leader_epoch(entry));
            found.push((at, OffsetAndMetadata { offset: (*entry).offset, leader_epoch, metadata }));
        }
        Ok(found)
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
        let flags = Flags {
            fatal: rd::rd_kafka_error_is_fatal(error) != 0,
            retriable: rd::rd_kafka_error_is_retriable(error) != 0,
            requires_abort: rd::rd_kafka_error_txn_requires_abort(error) != 0,
        };
        let code = RDKafkaErrorCode::from(rd::rd_kafka_error_code(error));
        from_flags(code, flags, format!("{what}: {}", text(rd::rd_kafka_error_string(error))))
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
