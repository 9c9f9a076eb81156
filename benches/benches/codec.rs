//! The wire: a batch's header with its checksum, its records, and a produce request read from its frame.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kafka::log::batch::{BatchHeader, stamp};
use kafka::log::record;
use kafka::wire::{BROKER_APIS, Request, request};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ApiKey, ProduceRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
// The program's allocator.
use shakedown as _;
use shakedown_benches::facts::{Facts, note};

const RECORDS: usize = 100;

fn codec(criterion: &mut Criterion) {
    let one = (Some(Bytes::from_static(b"key")), Some(Bytes::from_static(&[b'x'; 64])));
    let batch = record::write_batch(5_000, &vec![one.clone(); RECORDS]);
    let header = BatchHeader::parse(&batch).expect("a batch of our own");
    let frame = frame(&batch);
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Elements(RECORDS as u64));
    group.bench_function("parse and check a header", |bench| {
        bench.iter(|| {
            let header = BatchHeader::parse(black_box(&batch)).expect("a batch of our own");
            header.check(&batch).expect("its checksum holds");
        });
    });
    group.bench_function("stamp a batch", |bench| bench.iter(|| stamp(black_box(&batch), 42, 7, None)));
    group.bench_function("write 100 records", |bench| {
        let records = vec![one.clone(); RECORDS];
        bench.iter(|| record::write_batch(5_000, black_box(&records)));
    });
    group.bench_function("read 100 records", |bench| {
        bench.iter(|| record::read_all(&header, black_box(&batch)).expect("records of our own"));
    });
    group.bench_function("read a produce request", |bench| {
        bench.iter(|| Request::read(black_box(&frame), BROKER_APIS).expect("a request of our own"));
    });
    group.finish();
    for function in [
        "parse and check a header",
        "stamp a batch",
        "write 100 records",
        "read 100 records",
        "read a produce request",
    ] {
        let facts = Facts { units: RECORDS as f64, simulated_seconds: 0.0 };
        note(&format!("codec/{function}"), facts).expect("the facts can be written");
    }
}

fn frame(batch: &Bytes) -> Bytes {
    let partition = PartitionProduceData::default().with_index(0).with_records(Some(batch.clone()));
    let name = TopicName(StrBytes::from_static_str("t"));
    let topic = TopicProduceData::default().with_name(name).with_partition_data(vec![partition]);
    let body = ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic]);
    request(ApiKey::Produce, 9, 1, &body)
}

criterion_group!(benches, codec);
criterion_main!(benches);
