//! The same cores over real loopback TCP: frames in, frames out, a crash and a restart between.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use context::real::RealHost;
use context::{BoxStream, Context, Seed};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use shakedown_kafka::log::record;
use shakedown_kafka::wire::{read_frame, with_length};
use shakedown_kafka::{Cluster, ClusterConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// So many ports that nobody listens on just now.
async fn free_ports(client: &Context, count: usize) -> Vec<u16> {
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(client.listen(0).await.unwrap());
    }
    held.iter().map(|listener| listener.port()).collect()
}

struct Running {
    hosts: Vec<Arc<RealHost>>,
    programs: Vec<(String, context::Program)>,
}

impl Running {
    fn start(cluster: &Cluster) -> Running {
        let programs = cluster.hosts();
        let hosts = programs.iter().map(|(name, program)| start(name, program, 1)).collect();
        Running { hosts, programs }
    }

    fn kill(&self, index: usize) {
        self.hosts[index].shutdown();
    }

    fn restart(&mut self, index: usize) {
        let (name, program) = &self.programs[index];
        self.hosts[index] = start(name, program, 2);
    }
}

fn start(name: &str, program: &context::Program, seed: u64) -> Arc<RealHost> {
    let (context, host) = RealHost::new(name, Seed(seed)).start();
    context.spawn("node", program(context.clone()));
    host
}

async fn connect(client: &Context, port: u16) -> BoxStream {
    for _ in 0..200 {
        if let Ok(stream) = client.connect("127.0.0.1", port).await {
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

async fn append(stream: &mut BoxStream, value: &'static str, now_ms: i64) -> (i16, i64) {
    let ResponseKind::Produce(response) = ask(stream, ApiKey::Produce, 9, produce(value, now_ms)).await
    else {
        panic!("not a produce response");
    };
    let partition = &response.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

#[tokio::test]
async fn records_survive_a_crash_of_their_broker_on_real_sockets() {
    let client = RealHost::new("client", Seed(3)).into_context();
    let ports = free_ports(&client, 2).await;
    // A short session, so that the restart need not wait nine seconds.
    let config = ClusterConfig::loopback(&ports[..1], ports[1])
        .with("broker.session.timeout.ms", 1_000)
        .with("broker.heartbeat.interval.ms", 200);
    let cluster = Cluster::new(config).unwrap();
    let mut running = Running::start(&cluster);
    let now_ms = client.now().as_millis() as i64;

    let mut stream = connect(&client, ports[0]).await;
    let wanted = create_topics_request::CreatableTopic::default()
        .with_name(topic())
        .with_num_partitions(1)
        .with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(1_000);
    let ResponseKind::CreateTopics(made) = ask(&mut stream, ApiKey::CreateTopics, 7, request).await else {
        panic!("not a response to create topics");
    };
    assert_eq!(made.topics[0].error_code, 0);
    while cluster.leader_of("orders", 0).is_none() || append(&mut stream, "a", now_ms).await.0 != 0 {
        client.sleep(Duration::from_millis(10)).await;
    }

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

    running.kill(1);
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0, "a killed broker closes its connections");
    running.restart(1);
    let mut stream = connect(&client, ports[0]).await;
    let mut appended = append(&mut stream, "d", now_ms).await;
    while appended.0 != 0 {
        client.sleep(Duration::from_millis(10)).await;
        appended = append(&mut stream, "d", now_ms).await;
    }
    assert_eq!(appended.1, 3);
    assert_eq!(cluster.log_end_offsets()[&("orders".to_owned(), 0)], 4);
}

#[tokio::test]
async fn a_cluster_that_was_written_down_goes_on_where_it_was() {
    let client = RealHost::new("client", Seed(3)).into_context();
    let dir = tempfile::tempdir().unwrap();
    let ports = free_ports(&client, 2).await;
    let open = |now| {
        let config = ClusterConfig::loopback(&ports[..1], ports[1])
            .with("broker.session.timeout.ms", 1_000)
            .with("broker.heartbeat.interval.ms", 200);
        Cluster::open(config, dir.path(), now).unwrap()
    };
    let now_ms = client.now().as_millis() as i64;
    let cluster = open(client.now());
    let running = Running::start(&cluster);
    let mut stream = connect(&client, ports[0]).await;
    let wanted = create_topics_request::CreatableTopic::default()
        .with_name(topic())
        .with_num_partitions(1)
        .with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(1_000);
    ask(&mut stream, ApiKey::CreateTopics, 7, request).await;
    while append(&mut stream, "a", now_ms).await != (0, 0) {
        client.sleep(Duration::from_millis(10)).await;
    }
    // Killed, not stopped: what was acknowledged is in the files.
    running.kill(0);
    running.kill(1);
    drop((stream, running, cluster));

    let cluster = open(client.now());
    let _running = Running::start(&cluster);
    let mut stream = connect(&client, ports[0]).await;
    let mut appended = append(&mut stream, "b", now_ms).await;
    while appended.0 != 0 {
        client.sleep(Duration::from_millis(10)).await;
        appended = append(&mut stream, "b", now_ms).await;
    }
    assert_eq!(appended.1, 1);
}

#[tokio::test]
async fn evil_bytes_cost_their_sender_the_connection_and_nobody_else() {
    let client = RealHost::new("client", Seed(3)).into_context();
    let ports = free_ports(&client, 2).await;
    let cluster = Cluster::new(ClusterConfig::loopback(&ports[..1], ports[1])).unwrap();
    let _running = Running::start(&cluster);
    let mut good = connect(&client, ports[0]).await;

    // The bytes that abort kafka-protocol 0.18: Metadata version 0, an array of 2,147,483,647 topics, no topic.
    let array = [&[0, 0, 0, 14, 0, 3, 0, 0, 0, 0, 0, 1, 0xff, 0xff][..], &i32::MAX.to_be_bytes()].concat();
    for evil in [&array[..], &i32::MAX.to_be_bytes(), &[0xff; 4], &[0, 0, 0, 2, 0, 3], &[0, 0, 0, 0]] {
        let mut stream = connect(&client, ports[0]).await;
        stream.write_all(evil).await.unwrap();
        let end = client.timeout(Duration::from_secs(5), stream.read(&mut [0])).await;
        assert_eq!(end.expect("the broker closes").unwrap_or(0), 0);
    }
    let response = ask(&mut good, ApiKey::ApiVersions, 0, ApiVersionsRequest::default()).await;
    assert!(matches!(response, ResponseKind::ApiVersions(response) if response.error_code == 0));
}
