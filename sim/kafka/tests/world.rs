//! A cluster in a simulated world: the shell over the simulated network, a killed broker, and the same bytes twice.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use context::{BoxStream, Context, Event, Recorder, Seed};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use shakedown_kafka::log::record;
use shakedown_kafka::wire::{read_frame, with_length};
use shakedown_kafka::{BROKER_PORT, Cluster, ClusterConfig};
use tokio::io::AsyncWriteExt;
use world::{Change, Digest, EPOCH, Engine, LatencyRange, World, WorldConfig, build};

/// The run's hash, and its notes.
#[derive(Default)]
struct Heard {
    digest: Digest,
    notes: Mutex<Vec<String>>,
}

impl Recorder for Heard {
    fn record(&self, event: Event<'_>) {
        if event.kind.is_note() {
            self.notes.lock().unwrap().push(format!("{}: {}", event.host, event.text));
        }
        self.digest.record(event);
    }
}

async fn ask(
    stream: &mut BoxStream,
    api: ApiKey,
    version: i16,
    body: impl Into<RequestKind>,
) -> Option<ResponseKind> {
    let header = RequestHeader::default()
        .with_request_api_key(api as i16)
        .with_request_api_version(version)
        .with_client_id(Some(StrBytes::from_static_str("customer")));
    let mut frame = BytesMut::new();
    header.encode(&mut frame, api.request_header_version(version)).unwrap();
    body.into().encode(&mut frame, version).unwrap();
    stream.write_all(&with_length(&frame.freeze())).await.ok()?;
    let mut frame = read_frame(stream, i32::MAX).await.ok()?;
    ResponseHeader::decode(&mut frame, api.response_header_version(version)).unwrap();
    Some(ResponseKind::decode(api, &mut frame, version).unwrap())
}

fn topic() -> TopicName {
    TopicName(StrBytes::from_static_str("orders"))
}

/// Asks for the topic, which makes it, until partition 0 has a leader.
async fn leader(client: &Context) -> i32 {
    loop {
        client.sleep(Duration::from_millis(100)).await;
        let Ok(mut stream) = client.connect("broker-1", BROKER_PORT).await else { continue };
        let request = MetadataRequest::default()
            .with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(topic()))]))
            .with_allow_auto_topic_creation(true);
        let Some(ResponseKind::Metadata(response)) = ask(&mut stream, ApiKey::Metadata, 9, request).await
        else {
            continue;
        };
        if let Some(partition) = response.topics[0].partitions.first()
            && partition.error_code == 0
        {
            return partition.leader_id.0;
        }
    }
}

/// Appends one record every 100 ms, ten times a connection, and says what came of it.
async fn customer(client: Context) {
    loop {
        let leader = leader(&client).await;
        let Ok(mut stream) = client.connect(&format!("broker-{leader}"), BROKER_PORT).await else { continue };
        for _ in 0..10 {
            let now_ms = client.now().as_millis() as i64;
            let batch = record::write_batch(now_ms, &[(None, Some(Bytes::from_static(b"an order")))]);
            let data = produce_request::PartitionProduceData::default().with_records(Some(batch));
            let data = produce_request::TopicProduceData::default()
                .with_name(topic())
                .with_partition_data(vec![data]);
            let request =
                ProduceRequest::default().with_acks(-1).with_timeout_ms(1_000).with_topic_data(vec![data]);
            let answer =
                client.timeout(Duration::from_secs(2), ask(&mut stream, ApiKey::Produce, 9, request)).await;
            let Ok(Some(ResponseKind::Produce(response))) = answer else {
                client.note(format_args!("an append got no answer"));
                break;
            };
            let partition = &response.responses[0].partition_responses[0];
            client.note(format_args!("offset {}, error {}", partition.base_offset, partition.error_code));
            client.sleep(Duration::from_millis(100)).await;
        }
    }
}

struct Ran {
    hash: u64,
    notes: Vec<String>,
    cluster: Cluster,
}

/// Half a minute, in which `fault` happens at 5 s.
fn run(seed: u64, fault: impl FnOnce(&mut dyn World, &Cluster)) -> Ran {
    run_on(ClusterConfig::simulated(3), seed, fault)
}

fn run_on(brokers: ClusterConfig, seed: u64, fault: impl FnOnce(&mut dyn World, &Cluster)) -> Ran {
    let heard = Arc::new(Heard::default());
    let config =
        WorldConfig { seed: Seed(seed), latency: LatencyRange::millis(1, 5), recorder: heard.clone() };
    let mut world = build(Engine::Jump, config).unwrap();
    let cluster = Cluster::new(brokers).unwrap();
    for (name, program) in cluster.hosts() {
        world.add_host(&name, program);
    }
    world.add_host("customers", context::program(customer));
    world.run_until(EPOCH + Duration::from_secs(5));
    fault(&mut *world, &cluster);
    world.run_until(EPOCH + Duration::from_secs(30));
    let notes = heard.notes.lock().unwrap().clone();
    Ran { hash: heard.digest.hash(), notes, cluster }
}

/// The leader is killed, and started again at once.
fn bounce_leader(world: &mut dyn World, cluster: &Cluster) {
    let leader = cluster.leader_of("orders", 0).expect("the topic was made");
    assert!(cluster.is_live(leader));
    let host = cluster.broker_name(leader).unwrap().to_owned();
    world.change(&Change::Kill { host: host.clone() }).unwrap();
    world.change(&Change::Restart { host }).unwrap();
    world.run_until(EPOCH + Duration::from_secs(12));
    assert_eq!(cluster.leader_of("orders", 0), Some(leader), "its session has not expired");
    world.run_until(EPOCH + Duration::from_secs(20));
    assert_eq!(cluster.leader_of("orders", 0), Some(leader), "it leads again");
}

impl Ran {
    fn acknowledged(&self) -> Vec<i64> {
        let offset =
            |note: &String| note.strip_prefix("customers: offset ")?.strip_suffix(", error 0")?.parse().ok();
        self.notes.iter().filter_map(offset).collect()
    }
}

#[test]
fn a_killed_leader_is_away_for_its_session_and_loses_nothing() {
    let ran = run(7, bounce_leader);
    let acknowledged = ran.acknowledged();
    assert!(acknowledged.len() > 100, "{acknowledged:?}");
    assert!(acknowledged.windows(2).all(|pair| pair[0] < pair[1]), "offsets go up: {acknowledged:?}");
    let end = ran.cluster.log_end_offsets()[&("orders".to_owned(), 0)];
    assert!(acknowledged.iter().all(|&offset| offset < end));
    let fenced = ran.notes.iter().filter(|note| note.contains("is fenced")).count();
    assert_eq!(fenced, 1, "{:?}", ran.notes);
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_does_not() {
    let (first, second, other) = (run(7, bounce_leader), run(7, bounce_leader), run(8, bounce_leader));
    assert_eq!(first.notes, second.notes);
    assert_eq!(first.hash, second.hash);
    assert_ne!(first.hash, other.hash);
}

#[test]
fn a_controller_that_fails_over_fences_nobody_and_clients_do_not_notice() {
    let ran = run(7, |world, _| {
        world.change(&Change::Kill { host: "controller".into() }).unwrap();
        world.run_until(EPOCH + Duration::from_secs(9));
        world.change(&Change::Restart { host: "controller".into() }).unwrap();
    });
    assert!(!ran.notes.iter().any(|note| note.contains("is fenced")), "{:?}", ran.notes);
    assert!(ran.acknowledged().len() > 200, "{:?}", ran.acknowledged());
}

#[test]
fn a_paused_leader_is_fenced_and_leads_again_when_it_goes_on() {
    let ran = run(7, |world, cluster| {
        let leader = cluster.leader_of("orders", 0).expect("the topic was made");
        let host = cluster.broker_name(leader).unwrap().to_owned();
        world.change(&Change::Pause { host: host.clone() }).unwrap();
        world.run_until(EPOCH + Duration::from_secs(17));
        assert_eq!(cluster.leader_of("orders", 0), None, "its session has expired");
        world.change(&Change::Resume { host }).unwrap();
        world.run_until(EPOCH + Duration::from_secs(25));
        assert_eq!(cluster.leader_of("orders", 0), Some(leader), "the same process, without a restart");
    });
    let acknowledged = ran.acknowledged();
    assert!(acknowledged.windows(2).all(|pair| pair[0] < pair[1]), "offsets go up: {acknowledged:?}");
}

#[test]
fn what_all_in_sync_have_acknowledged_survives_its_leader() {
    for seed in 0..10 {
        let replicated =
            ClusterConfig::simulated(3).with("default.replication.factor", 3).with("min.insync.replicas", 2);
        let ran = run_on(replicated, seed, |world, cluster| {
            let leader = cluster.leader_of("orders", 0).expect("the topic was made");
            assert_eq!(cluster.in_sync_of("orders", 0).len(), 3);
            let host = cluster.broker_name(leader).unwrap().to_owned();
            world.change(&Change::Kill { host: host.clone() }).unwrap();
            world.change(&Change::Restart { host }).unwrap();
            world.run_until(EPOCH + Duration::from_secs(16));
            assert!(cluster.leader_of("orders", 0).is_some_and(|now| now != leader), "another leads");
        });
        let acknowledged = ran.acknowledged();
        assert!(acknowledged.len() > 100, "seed {seed}: {acknowledged:?}");
        assert!(acknowledged.windows(2).all(|pair| pair[0] < pair[1]), "seed {seed}: {acknowledged:?}");
        let last = *acknowledged.last().unwrap();
        let orders = ("orders".to_owned(), 0);
        assert!(ran.cluster.log_end_offsets()[&orders] > last, "seed {seed}");
        assert!(ran.cluster.high_watermarks()[&orders] > last, "seed {seed}");
        assert_eq!(ran.cluster.in_sync_of("orders", 0).len(), 3, "seed {seed}: all are back");
    }
}
