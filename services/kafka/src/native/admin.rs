//! Admin calls of librdkafka that crate `rdkafka` does not wrap. Each blocks until librdkafka has answered.
//!
//! A call that librdkafka sends to a broker or to the controller takes a `patience`, and librdkafka keeps it.
//!
//! A call that it sends to a group's coordinator must be given [`NEVER`] for its own time, and a client that serves nothing
//! else and is dropped afterwards. When librdkafka 2.12 gives such a call up before it has found the coordinator, the
//! search goes on; when the coordinator is found, the search drops the call's last reference (`rd_kafka_enq_once_del_source_return`
//! in `rd_kafka_admin_coord_request`), says that there is no call left, and is answered for that by dropping the same
//! reference once more (`rd_kafka_admin_coord_response_parse`): an assertion ends the process. All five calls that go to
//! coordinators are sent that way: to describe groups, to delete them, and to list, alter and delete their offsets. Only
//! its own time makes librdkafka give a call up; the end of its client does not, so that is how these are given up.

mod groups;

use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::slice;
use std::time::Duration;

use broker::{BrokerDescription, ClusterDescription, ConfigChange, ElectionType, Error, GroupListing};
use rdkafka::TopicPartitionList;
use rdkafka::bindings as rd;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;

use super::{c_string, flags, millis, text};
use crate::error::{Flags, from_answer, from_code, timed_out};

pub(crate) use self::groups::{delete_group_offsets, delete_groups, describe_groups};
use rd::rd_kafka_admin_op_t as Kind;

/// The longest time that librdkafka takes for an admin call: no caller waits that long.
const NEVER: Duration = Duration::from_secs(3_600);

/// What one setting belongs to, in librdkafka's words. It has none for the defaults of all brokers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Resource<'a> {
    Topic(&'a str),
    Broker(i32),
}

/// Whom librdkafka sends a call to. What metadata call the controller is any broker that lives, under KRaft, and another one in
/// the next answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Addressee {
    Controller,
    Broker(i32),
}

/// Asks for the cluster's brokers, and says whether librdkafka knows this one now, which is not yet to be connected.
pub(crate) fn knows<C: ClientContext>(
    client: &Client<C>,
    addressee: Addressee,
    patience: Duration,
) -> Result<bool, Error> {
    let client = client.native_ptr();
    let mut answer = ptr::null();
    // SAFETY: the client lives for as long as the call, the answer is ours to destroy, and its brokers are as many as it says.
    unsafe {
        let failed = rd::rd_kafka_metadata(client, 0, ptr::null_mut(), &raw mut answer, millis(patience));
        match RDKafkaErrorCode::from(failed) {
            RDKafkaErrorCode::NoError => {}
            code => return Err(from_code(code, "the brokers of the cluster")),
        }
        let known = match addressee {
            Addressee::Controller => rd::rd_kafka_controllerid(client, 0) >= 0,
            Addressee::Broker(node) => {
                let count = usize::try_from((*answer).broker_cnt).expect("a count");
                count > 0 && slice::from_raw_parts((*answer).brokers, count).iter().any(|at| at.id == node)
            }
        };
        rd::rd_kafka_metadata_destroy(answer);
        Ok(known)
    }
}

/// Changes single settings (KIP-339).
pub(crate) fn alter_configs<C: ClientContext>(
    client: &Client<C>,
    resource: Resource<'_>,
    changes: &[(String, ConfigChange)],
    patience: Duration,
) -> Result<(), Error> {
    let (kind, name) = match resource {
        Resource::Topic(name) => (rd::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC, name.to_owned()),
        Resource::Broker(node) => (rd::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_BROKER, node.to_string()),
    };
    let what = format!("the settings of {resource:?}");
    let c_name = c_string(&name)?;
    // SAFETY: the name lives until the call has returned, which copies it.
    let config = NonNull::new(unsafe { rd::rd_kafka_ConfigResource_new(kind, c_name.as_ptr()) });
    let config = config.ok_or_else(|| from_code(RDKafkaErrorCode::InvalidArgument, &what))?;
    let config = Owned { native: config, destroy: rd::rd_kafka_ConfigResource_destroy };
    for (setting, change) in changes {
        use rd::rd_kafka_AlterConfigOpType_t as Op;
        let (op, value) = match change {
            ConfigChange::Set(value) => (Op::RD_KAFKA_ALTER_CONFIG_OP_TYPE_SET, Some(value)),
            ConfigChange::Delete => (Op::RD_KAFKA_ALTER_CONFIG_OP_TYPE_DELETE, None),
            ConfigChange::Append(value) => (Op::RD_KAFKA_ALTER_CONFIG_OP_TYPE_APPEND, Some(value)),
            ConfigChange::Subtract(value) => (Op::RD_KAFKA_ALTER_CONFIG_OP_TYPE_SUBTRACT, Some(value)),
        };
        let setting = c_string(setting)?;
        let value = value.map(|value| c_string(value)).transpose()?;
        let value = value.as_ref().map_or(ptr::null(), |value| value.as_ptr());
        // SAFETY: `config` is ours, the strings live until the call has returned, which copies them, and the error is
        // ours to destroy.
        unsafe {
            let refused = rd::rd_kafka_ConfigResource_add_incremental_config(
                config.native.as_ptr(),
                setting.as_ptr(),
                op,
                value,
            );
            super::take_error(refused, &what)?;
        }
    }
    let call = Call::new(client, Kind::RD_KAFKA_ADMIN_OP_INCREMENTALALTERCONFIGS, patience);
    // SAFETY: all that is passed is alive; librdkafka copies the resource.
    unsafe {
        let mut configs = [config.native.as_ptr()];
        rd::rd_kafka_IncrementalAlterConfigs(
            call.client,
            configs.as_mut_ptr(),
            configs.len(),
            call.options,
            call.queue,
        );
    }
    let answer = call.answer(patience, &what)?;
    // SAFETY: what is read belongs to the answer.
    unsafe {
        let result = rd::rd_kafka_event_IncrementalAlterConfigs_result(answer.0);
        for &altered in list(|count| rd::rd_kafka_IncrementalAlterConfigs_result_resources(result, count)) {
            let code = RDKafkaErrorCode::from(rd::rd_kafka_ConfigResource_error(altered));
            if code != RDKafkaErrorCode::NoError {
                let why = text(rd::rd_kafka_ConfigResource_error_string(altered));
                return Err(from_answer(code, Flags::default(), format!("{what}: {why}")));
            }
        }
    }
    Ok(())
}

/// Elects leaders now (KIP-460).
pub(crate) fn elect_leaders<C: ClientContext>(
    client: &Client<C>,
    kind: ElectionType,
    partitions: &TopicPartitionList,
    patience: Duration,
) -> Result<(), Error> {
    let kind = match kind {
        ElectionType::Preferred => rd::rd_kafka_ElectionType_t::RD_KAFKA_ELECTION_TYPE_PREFERRED,
        ElectionType::Unclean => rd::rd_kafka_ElectionType_t::RD_KAFKA_ELECTION_TYPE_UNCLEAN,
    };
    let call = Call::new(client, Kind::RD_KAFKA_ADMIN_OP_ELECTLEADERS, patience);
    // SAFETY: the list is alive and copied, the request is ours and copied.
    unsafe {
        let request = rd::rd_kafka_ElectLeaders_new(kind, partitions.ptr());
        rd::rd_kafka_ElectLeaders(call.client, request, call.options, call.queue);
        rd::rd_kafka_ElectLeaders_destroy(request);
    }
    let answer = call.answer(patience, "an election")?;
    // SAFETY: what is read belongs to the answer.
    unsafe {
        let result = rd::rd_kafka_event_ElectLeaders_result(answer.0);
        for &elected in list(|count| rd::rd_kafka_ElectLeaders_result_partitions(result, count)) {
            let error = rd::rd_kafka_topic_partition_result_error(elected);
            if RDKafkaErrorCode::from(rd::rd_kafka_error_code(error)) == RDKafkaErrorCode::ElectionNotNeeded {
                continue;
            }
            let at = &*rd::rd_kafka_topic_partition_result_partition(elected);
            check(error, || format!("an election for {}-{}", text(at.topic), at.partition))?;
        }
    }
    Ok(())
}

/// The brokers that are there.
pub(crate) fn describe_cluster<C: ClientContext>(
    client: &Client<C>,
    patience: Duration,
) -> Result<ClusterDescription, Error> {
    let call = Call::new(client, Kind::RD_KAFKA_ADMIN_OP_DESCRIBECLUSTER, patience);
    // SAFETY: all that is passed is alive.
    unsafe { rd::rd_kafka_DescribeCluster(call.client, call.options, call.queue) };
    let answer = call.answer(patience, "the cluster")?;
    // SAFETY: what is read belongs to the answer, and its texts are copied.
    unsafe {
        let result = rd::rd_kafka_event_DescribeCluster_result(answer.0);
        let controller = rd::rd_kafka_DescribeCluster_result_controller(result);
        let nodes = list(|count| rd::rd_kafka_DescribeCluster_result_nodes(result, count));
        let mut brokers: Vec<_> = nodes
            .iter()
            .map(|&node| BrokerDescription {
                node_id: rd::rd_kafka_Node_id(node),
                host: text(rd::rd_kafka_Node_host(node)),
                port: rd::rd_kafka_Node_port(node),
            })
            .collect();
        brokers.sort_by_key(|broker| broker.node_id);
        Ok(ClusterDescription {
            cluster_id: text(rd::rd_kafka_DescribeCluster_result_cluster_id(result)),
            controller: (!controller.is_null()).then(|| rd::rd_kafka_Node_id(controller)),
            brokers,
        })
    }
}

/// Every group of consumers, by id. librdkafka leaves out groups of another kind.
pub(crate) fn list_groups<C: ClientContext>(
    client: &Client<C>,
    patience: Duration,
) -> Result<Vec<GroupListing>, Error> {
    let call = Call::new(client, Kind::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPS, patience);
    // SAFETY: all that is passed is alive.
    unsafe { rd::rd_kafka_ListConsumerGroups(call.client, call.options, call.queue) };
    let answer = call.answer(patience, "the groups")?;
    // SAFETY: what is read belongs to the answer, and its texts are copied.
    unsafe {
        let result = rd::rd_kafka_event_ListConsumerGroups_result(answer.0);
        for &error in list(|count| rd::rd_kafka_ListConsumerGroups_result_errors(result, count)) {
            check(error, || "the groups".into())?;
        }
        let listed = list(|count| rd::rd_kafka_ListConsumerGroups_result_valid(result, count));
        let mut groups: Vec<_> = listed
            .iter()
            .map(|&group| GroupListing {
                group_id: text(rd::rd_kafka_ConsumerGroupListing_group_id(group)),
                protocol_type: protocol(
                    rd::rd_kafka_ConsumerGroupListing_is_simple_consumer_group(group) != 0,
                ),
                state: text(rd::rd_kafka_consumer_group_state_name(rd::rd_kafka_ConsumerGroupListing_state(
                    group,
                ))),
            })
            .collect();
        groups.sort();
        Ok(groups)
    }
}

fn protocol(is_simple: bool) -> String {
    if is_simple { String::new() } else { "consumer".into() }
}

/// One call: where its answer comes, and how long librdkafka may take.
struct Call<'a> {
    client: *mut rd::rd_kafka_t,
    options: *mut rd::rd_kafka_AdminOptions_t,
    queue: *mut rd::rd_kafka_queue_t,
    alive: PhantomData<&'a ()>,
}

impl<'a> Call<'a> {
    fn new<C: ClientContext>(client: &'a Client<C>, kind: Kind, patience: Duration) -> Call<'a> {
        let client = client.native_ptr();
        // SAFETY: the client lives for as long as the call; options and queue are ours until the drop.
        let (options, queue, refused) = unsafe {
            let options = rd::rd_kafka_AdminOptions_new(client, kind);
            let millis = millis(patience.min(NEVER));
            let refused = rd::rd_kafka_AdminOptions_set_request_timeout(options, millis, ptr::null_mut(), 0);
            (options, rd::rd_kafka_queue_new(client), RDKafkaErrorCode::from(refused))
        };
        assert!(
            refused == RDKafkaErrorCode::NoError,
            "every admin call takes a time up to an hour: {refused}"
        );
        Call { client, options, queue, alive: PhantomData }
    }

    /// Waits for the answer, and fails with its error.
    fn answer(self, patience: Duration, what: &str) -> Result<Answer, Error> {
        // librdkafka's own word about the time comes first where it keeps it.
        let patience = patience + Duration::from_secs(1);
        // SAFETY: the queue is ours, and the event that comes as well.
        unsafe {
            let event = rd::rd_kafka_queue_poll(self.queue, millis(patience));
            if event.is_null() {
                return Err(timed_out(format!("{what}: no answer within {patience:?}")));
            }
            let answer = Answer(event);
            match RDKafkaErrorCode::from(rd::rd_kafka_event_error(event)) {
                RDKafkaErrorCode::NoError => Ok(answer),
                code => {
                    let why = text(rd::rd_kafka_event_error_string(event));
                    Err(from_answer(code, Flags::default(), format!("{what}: {why}")))
                }
            }
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        // SAFETY: both are ours, and used no more. A late answer finds its queue closed.
        unsafe {
            rd::rd_kafka_AdminOptions_destroy(self.options);
            rd::rd_kafka_queue_destroy(self.queue);
        }
    }
}

/// An answer that came.
struct Answer(*mut rd::rd_kafka_event_t);

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: it is ours, and whatever was read from it was copied.
        unsafe { rd::rd_kafka_event_destroy(self.0) };
    }
}

/// Something of librdkafka's that is ours.
struct Owned<T> {
    native: NonNull<T>,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: it is ours, and used no more.
        unsafe { (self.destroy)(self.native.as_ptr()) };
    }
}

/// # Safety
/// `error` is null, or alive.
unsafe fn check(error: *const rd::rd_kafka_error_t, what: impl FnOnce() -> String) -> Result<(), Error> {
    // SAFETY: as the caller promises; null has no error's code, and the text is copied.
    unsafe {
        match RDKafkaErrorCode::from(rd::rd_kafka_error_code(error)) {
            RDKafkaErrorCode::NoError => Ok(()),
            code => {
                let why = text(rd::rd_kafka_error_string(error));
                Err(from_answer(code, flags(error), format!("{}: {why}", what())))
            }
        }
    }
}

/// The pointers that `of` gives, whose number it writes.
///
/// # Safety
/// They live for `'a`.
unsafe fn list<'a, T>(of: impl FnOnce(*mut usize) -> *mut *const T) -> &'a [*const T] {
    let mut count = 0;
    let first = of(&mut count);
    if first.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: as the caller promises.
    unsafe { slice::from_raw_parts(first, count) }
}

/// The entries of a list of partitions; none of no list.
///
/// # Safety
/// `list` is null, or lives for `'a`.
unsafe fn entries<'a>(
    list: *const rd::rd_kafka_topic_partition_list_t,
) -> &'a [rd::rd_kafka_topic_partition_t] {
    // SAFETY: as the caller promises.
    unsafe {
        match list.as_ref().filter(|list| list.cnt > 0) {
            Some(list) => {
                slice::from_raw_parts(list.elems, usize::try_from(list.cnt).expect("it is positive"))
            }
            None => &[],
        }
    }
}
