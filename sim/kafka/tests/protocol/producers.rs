//! What producers are answered: Produce and InitProducerId.

use kafka_protocol::messages::*;

use crate::support::verbs::*;
use crate::support::{Bench, Reply};
use crate::{bench, error_of, expect, leader};

#[test]
fn acks_0_is_not_answered_and_its_error_closes_the_connection() {
    let mut bench = bench();
    let node = leader(&bench);
    let connection = bench.send(node, ApiKey::Produce, 9, produce_request("orders", 0, 0, batch(&["a"])));
    assert!(matches!(bench.reply(connection), Some(Reply::Nothing)));
    let connection = bench.send(node, ApiKey::Produce, 9, produce_request("missing", 0, 0, batch(&["a"])));
    assert!(matches!(bench.reply(connection), Some(Reply::Closed(_))));
    let response = bench.ask(node, ApiKey::Produce, 9, produce_request("orders", 0, 7, batch(&["a"])));
    assert_eq!(error_of(&response), 21);
}

#[test]
fn zstd_is_unsupported_before_its_version() {
    use shakedown_kafka::log::batch::BatchHeader;
    use shakedown_kafka::log::compression::Codec;
    use shakedown_kafka::log::record;
    let mut bench = bench();
    let node = leader(&bench);
    let plain = batch(&["a"]);
    let header = BatchHeader::parse(&plain).unwrap();
    let records = record::read_all(&header, &plain).unwrap();
    let compressed = |codec: Codec| record::rewrite(&header.with_compression(codec as i16), records.clone());
    for (version, codec, error) in
        [(6, Codec::Lz4, 0), (6, Codec::Zstd, 76), (3, Codec::Zstd, 76), (7, Codec::Zstd, 0)]
    {
        let request = produce_request("orders", 0, 1, compressed(codec));
        let response = bench.ask(node, ApiKey::Produce, version, request);
        assert_eq!(error_of(&response), error, "{codec:?} in version {version}");
    }
}

#[test]
fn producer_ids_are_never_given_twice() {
    let mut bench = bench();
    let mut given = std::collections::BTreeSet::new();
    for node in [1, 2, 3, 1, 2, 3] {
        let (id, epoch) = bench.producer_id(node);
        assert_eq!(epoch, 0);
        assert!(given.insert(id));
    }
}

#[test]
fn the_first_producer_of_a_broker_comes_again() {
    // RPCProducerIdManager has no block yet, and does not let clients wait for it.
    let mut bench = bench();
    let request = || InitProducerIdRequest::default().with_transactional_id(None);
    assert_eq!(error_of(&bench.ask(1, ApiKey::InitProducerId, 4, request())), 14);
    assert_eq!(error_of(&bench.ask(1, ApiKey::InitProducerId, 4, request())), 0);
    // A producer id without an epoch is neither a new producer nor one that goes on.
    let half = request().with_producer_id(ProducerId(5)).with_producer_epoch(-1);
    assert_eq!(error_of(&bench.ask(1, ApiKey::InitProducerId, 4, half)), 42);
}

#[test]
fn a_batch_of_no_format_that_there_is_refuses_the_whole_request() {
    let mut bench = Bench::new(1, &[]);
    assert_eq!(bench.create_topic("orders", 2, &[]), 0);
    bench.advance(1_000);
    let spoilt = |at: usize, with: &[u8]| {
        let mut bytes = batch(&["a"]).to_vec();
        bytes[at..at + with.len()].copy_from_slice(with);
        bytes.into()
    };
    // The magic byte is at 16, the length at 8.
    for (spoilt, errors) in [
        (spoilt(16, &[3]), [2, 2]),
        (spoilt(16, &[0xff]), [2, 2]),
        (spoilt(8, &13_i32.to_be_bytes()), [2, 2]),
        (spoilt(16, &[1]), [0, 87]),
        (spoilt(8, &10_000_i32.to_be_bytes()), [0, 87]),
        (spoilt(17, &[0; 4]), [0, 2]),
    ] {
        let mut request = produce_request("orders", 0, 1, batch(&["b"]));
        let other = produce_request("orders", 1, 1, spoilt).topic_data.remove(0).partition_data;
        request.topic_data[0].partition_data.extend(other);
        let response = expect!(Produce, bench.ask(1, ApiKey::Produce, 9, request));
        let told = &response.responses[0].partition_responses;
        assert_eq!([told[0].error_code, told[1].error_code], errors);
    }
}
