//! The same cores over real loopback TCP: frames in, frames out, a crash and a restart between.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use context::real::RealHost;
use context::{BoxStream, Context, Seed};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use shakedown_kafka::log::record;
use shakedown_kafka::loopback::{Loopback, own_address};
use shakedown_kafka::wire::{read_frame, with_length};
use shakedown_kafka::{Cluster, ClusterConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A broker and the controller; `first_port` is for one test alone.
fn config(first_port: u16) -> ClusterConfig {
    // A short session, so that a restart need not wait nine seconds.
    ClusterConfig::simulated(1)
        .at(own_address(), first_port)
        .with("broker.session.timeout.ms", 3_000)
        .with("broker.heartbeat.interval.ms", 200)
}

async fn connect(client: &Context, port: u16) -> BoxStream {
    let address = own_address().to_string();
    for _ in 0..200 {
        if let Ok(stream) = client.connect(&address, port).await {
            return stream;
        }
        client.sleep(Duration::from_millis(50)).await;
    }
    panic!("port {port} stays closed");
}

fn frame(api: ApiKey, version: i16, body: &RequestKind) -> Bytes {
    let header = RequestHeader::default()
        .with_request_api_key(api as i16)
        .with_request_api_version(version)
        .with_correlation_id(9)
        .with_client_id(Some(StrBytes::from_static_str("tcp")));
    let mut frame = BytesMut::new();
    header.encode(&mut frame, api.request_header_version(version)).unwrap();
    body.encode(&mut frame, version).unwrap();
    with_length(&frame.freeze())
}

async fn receive(stream: &mut BoxStream, api: ApiKey, version: i16) -> ResponseKind {
    let mut frame = read_frame(stream, i32::MAX).await.unwrap();
    let header = ResponseHeader::decode(&mut frame, api.response_header_version(version)).unwrap();
    assert_eq!(header.correlation_id, 9);
    ResponseKind::decode(api, &mut frame, version).unwrap()
}

async fn ask(
    stream: &mut BoxStream,
    api: ApiKey,
    version: i16,
    body: impl Into<RequestKind>,
) -> ResponseKind {
    stream.write_all(&frame(api, version, &body.into())).await.unwrap();
    receive(stream, api, version).await
}

fn topic() -> TopicName {
    TopicName(StrBytes::from_static_str("orders"))
}

fn produce(value: &'static str, now_ms: i64) -> RequestKind {
    use produce_request::*;
    let batch = record::write_batch(now_ms, &[(None, Some(Bytes::from_static(value.as_bytes())))]);
    let data = PartitionProduceData::default().with_records(Some(batch));
    let data = TopicProduceData::default().with_name(topic()).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(-1).with_timeout_ms(1_000).with_topic_data(vec![data]).into()
}

async fn create_topic(stream: &mut BoxStream) {
    let wanted = create_topics_request::CreatableTopic::default()
        .with_name(topic())
        .with_num_partitions(1)
        .with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(1_000);
    let ResponseKind::CreateTopics(made) = ask(stream, ApiKey::CreateTopics, 7, request).await else {
        panic!("not a response to create topics");
    };
    assert_eq!(made.topics[0].error_code, 0);
}

async fn append(stream: &mut BoxStream, value: &'static str, now_ms: i64) -> (i16, i64) {
    let ResponseKind::Produce(response) = ask(stream, ApiKey::Produce, 9, produce(value, now_ms)).await
    else {
        panic!("not a produce response");
    };
    let partition = &response.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

/// Appends as soon as the partition has a leader, and gives the offset.
async fn append_in_the_end(
    client: &Context,
    stream: &mut BoxStream,
    value: &'static str,
    now_ms: i64,
) -> i64 {
    loop {
        let (error, offset) = append(stream, value, now_ms).await;
        if error == 0 {
            return offset;
        }
        client.sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn records_survive_a_crash_of_their_broker_on_real_sockets() {
    let client = RealHost::new("client", Seed(3)).into_context();
    let port = 20_000;
    let running = Loopback::start(Cluster::new(config(port)).unwrap(), Seed(1));
    let cluster = running.cluster();
    let now_ms = client.now().as_millis() as i64;

    let mut stream = connect(&client, port).await;
    create_topic(&mut stream).await;
    assert_eq!(append_in_the_end(&client, &mut stream, "a", now_ms).await, 0);

    // Two requests in one breath are answered in their order.
    let both =
        [frame(ApiKey::Produce, 9, &produce("b", now_ms)), frame(ApiKey::Produce, 9, &produce("c", now_ms))];
    stream.write_all(&both.concat()).await.unwrap();
    for offset in [1, 2] {
        let ResponseKind::Produce(response) = receive(&mut stream, ApiKey::Produce, 9).await else {
            panic!("order")
        };
        assert_eq!(response.responses[0].partition_responses[0].base_offset, offset);
    }

    running.kill(1).await;
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0, "a killed broker closes its connections");
    let refused = client.connect(&own_address().to_string(), port).await;
    assert!(refused.is_err(), "a killed broker is not listened for");
    running.restart(1);
    let mut stream = connect(&client, port).await;
    assert_eq!(append_in_the_end(&client, &mut stream, "d", now_ms).await, 3);
    assert_eq!(cluster.log_end_offsets()[&("orders".to_owned(), 0)], 4);
}

#[tokio::test]
async fn a_cluster_that_was_written_down_goes_on_where_it_was() {
    let client = RealHost::new("client", Seed(3)).into_context();
    let dir = tempfile::tempdir().unwrap();
    let port = 20_010;
    let start = |seed| {
        let cluster = Cluster::open(config(port), dir.path(), client.now()).unwrap();
        Loopback::start(cluster, Seed(seed))
    };
    let now_ms = client.now().as_millis() as i64;
    let running = start(1);
    let mut stream = connect(&client, port).await;
    create_topic(&mut stream).await;
    assert_eq!(append_in_the_end(&client, &mut stream, "a", now_ms).await, 0);
    // Killed, not stopped: what was acknowledged is in the files.
    running.kill_all().await;
    drop((stream, running));

    let _running = start(2);
    let mut stream = connect(&client, port).await;
    assert_eq!(append_in_the_end(&client, &mut stream, "b", now_ms).await, 1);
}

#[tokio::test]
async fn evil_bytes_cost_their_sender_the_connection_and_nobody_else() {
    let client = RealHost::new("client", Seed(3)).into_context();
    let port = 20_020;
    let _running = Loopback::start(Cluster::new(config(port)).unwrap(), Seed(1));
    let mut good = connect(&client, port).await;

    // The bytes that abort kafka-protocol 0.18: Metadata version 0, an array of 2,147,483,647 topics, no topic.
    let array = [&[0, 0, 0, 14, 0, 3, 0, 0, 0, 0, 0, 1, 0xff, 0xff][..], &i32::MAX.to_be_bytes()].concat();
    for evil in [&array[..], &i32::MAX.to_be_bytes(), &[0xff; 4], &[0, 0, 0, 2, 0, 3], &[0, 0, 0, 0]] {
        let mut stream = connect(&client, port).await;
        stream.write_all(evil).await.unwrap();
        let end = client.timeout(Duration::from_secs(5), stream.read(&mut [0])).await;
        assert_eq!(end.expect("the broker closes").unwrap_or(0), 0);
    }
    let response = ask(&mut good, ApiKey::ApiVersions, 0, ApiVersionsRequest::default()).await;
    assert!(matches!(response, ResponseKind::ApiVersions(response) if response.error_code == 0));
}
