//! Lists of partitions, in librdkafka's form and in ours.

use broker::{Error, Offset, OffsetAndMetadata, TopicPartition};
use rdkafka::TopicPartitionList;
use rdkafka::topic_partition_list::{Offset as RdOffset, TopicPartitionListElem};

use crate::error::from_kafka;
use crate::native;

/// Partitions without offsets.
pub(crate) fn list<'a>(partitions: impl IntoIterator<Item = &'a TopicPartition>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for at in partitions {
        list.add_partition(&at.topic, at.partition);
    }
    list
}

/// Partitions, each with an offset that may be a logical one.
pub(crate) fn list_at<'a>(
    partitions: impl IntoIterator<Item = (&'a TopicPartition, RdOffset)>,
) -> Result<TopicPartitionList, Error> {
    let mut list = TopicPartitionList::new();
    for (at, offset) in partitions {
        list.add_partition_offset(&at.topic, at.partition, offset)
            .map_err(|error| from_kafka(&error, format_args!("the offset {offset:?} of {at}")))?;
    }
    Ok(list)
}

/// Positions to commit.
pub(crate) fn positions(
    offsets: &[(TopicPartition, OffsetAndMetadata)],
) -> Result<TopicPartitionList, Error> {
    let mut list = TopicPartitionList::new();
    for (at, position) in offsets {
        let mut entry = list.add_partition(&at.topic, at.partition);
        entry
            .set_offset(RdOffset::Offset(position.offset))
            .map_err(|error| from_kafka(&error, format_args!("the offset {} of {at}", position.offset)))?;
        if !position.metadata.is_empty() {
            entry.set_metadata(&position.metadata);
        }
        if let Some(epoch) = position.leader_epoch {
            native::set_leader_epoch(&mut list, at, epoch);
        }
    }
    Ok(list)
}

/// The partitions of a list.
pub(crate) fn names(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements().iter().map(name).collect()
}

/// The partitions of a list that have an offset, with it; fails with the first partition's error.
pub(crate) fn committed(
    list: &TopicPartitionList,
    what: &str,
) -> Result<Vec<(TopicPartition, OffsetAndMetadata)>, Error> {
    let mut found = Vec::new();
    for entry in list.elements() {
        let at = name(&entry);
        entry.error().map_err(|error| from_kafka(&error, format_args!("{what} {at}")))?;
        if let RdOffset::Offset(offset) = entry.offset() {
            let leader_epoch = native::leader_epoch(list, &at);
            let metadata = entry.metadata().to_owned();
            found.push((at, OffsetAndMetadata { offset, leader_epoch, metadata }));
        }
    }
    Ok(found)
}

/// The partitions of a list that are known to have no offset: neither one, nor an error.
pub(crate) fn without_offset(list: &TopicPartitionList) -> Vec<TopicPartition> {
    let none = |entry: &&TopicPartitionListElem<'_>| {
        entry.error().is_ok() && !matches!(entry.offset(), RdOffset::Offset(_))
    };
    list.elements().iter().filter(none).map(name).collect()
}

/// The partitions of a list that have an offset and no error, with it, whatever became of the others.
pub(crate) fn with_offset(list: &TopicPartitionList) -> Vec<(TopicPartition, Offset)> {
    let known = |entry: &TopicPartitionListElem<'_>| match entry.offset() {
        RdOffset::Offset(offset) if entry.error().is_ok() => Some((name(entry), offset)),
        _ => None,
    };
    list.elements().iter().filter_map(known).collect()
}

/// The partitions of a list that have an offset, with it; fails with the first partition's error.
pub(crate) fn offsets(list: &TopicPartitionList, what: &str) -> Result<Vec<(TopicPartition, Offset)>, Error> {
    Ok(committed(list, what)?.into_iter().map(|(at, found)| (at, found.offset)).collect())
}

/// The first error that a partition of the list carries.
pub(crate) fn first_error(list: &TopicPartitionList, what: &str) -> Result<(), Error> {
    for entry in list.elements() {
        entry.error().map_err(|error| from_kafka(&error, format_args!("{what} {}", name(&entry))))?;
    }
    Ok(())
}

fn name(entry: &TopicPartitionListElem<'_>) -> TopicPartition {
    TopicPartition::new(entry.topic(), entry.partition())
}
