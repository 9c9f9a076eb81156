//! `shakedown serve` as a user starts it: a process of its own, real sockets, our own client.

#![allow(clippy::disallowed_methods, reason = "a real process on real sockets, in real time")]

mod common;
#[path = "common/serving.rs"]
mod serving;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use broker::{
    Broker as _, NewTopic, OffsetAndMetadata, OffsetSpec, ProducerRecord, Properties, TopicPartition,
};
use common::shakedown;
use serving::{PATIENCE, Serving};

#[tokio::test]
async fn three_brokers_take_records_and_give_them_back() {
    let serving = Serving::start(3, &["--config", "num.partitions=4"]);
    let broker = serving.broker();
    let admin = broker.admin(&Properties::new()).await.unwrap();
    let topic = NewTopic { partitions: None, ..NewTopic::new("orders", 1) };
    admin.create_topics(&[topic]).await.unwrap();
    let found = admin.describe_topics(&["orders"]).await.unwrap();
    assert_eq!(found[0].partitions.len(), 4, "--config num.partitions=4 holds");

    let producer = broker.producer(&Properties::new()).await.unwrap();
    let mut sent = ProducerRecord::new("orders", "key", "value");
    sent.partition = Some(3);
    producer.send(sent).await.unwrap();
    let mut consumer =
        broker.consumer(&Properties::new().set("auto.offset.reset", "earliest")).await.unwrap();
    let at = TopicPartition::new("orders", 3);
    consumer.assign(std::slice::from_ref(&at)).await.unwrap();
    let mut got = Vec::new();
    while got.is_empty() {
        got = consumer.poll(PATIENCE).await.unwrap();
    }
    assert_eq!(got[0].value.as_deref(), Some(&b"value"[..]));
    assert_eq!(admin.list_offsets(&[(at.clone(), OffsetSpec::Latest)]).await.unwrap(), [(at, 1)]);
    serving.signal("TERM");
    assert_eq!(serving.ended(), (Some(0), String::new()));
}

#[test]
fn it_serves_within_seconds() {
    let start = || {
        let started = Instant::now();
        let serving = Serving::start(3, &[]);
        let took = started.elapsed();
        serving.signal("INT");
        assert_eq!(serving.ended().0, Some(0));
        took
    };
    // 50 ms by itself, which is for the benches to measure: the tests beside this one, and others, want the processors too.
    let took = (0..5).map(|_| start()).min().expect("five starts");
    assert!(took < Duration::from_secs(5), "it took {took:?}");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let outcome = shakedown(["serve", "--port", &port]);
    assert_eq!(outcome.code, Some(69), "{outcome:?}");
    assert_eq!(outcome.out, "");
    insta::assert_snapshot!(outcome.err.replace(&port, "PORT"));
}

#[test]
fn the_brokers_have_the_ports_from_the_first_on() {
    // What lies beside a free port may be taken: then others are tried.
    for _ in 0..20 {
        let first = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut process = Command::new(env!("CARGO_BIN_EXE_shakedown"))
            .args(["serve", "--brokers", "3", "--port", &first.to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
        if line.is_empty() {
            continue;
        }
        let at = |port| format!("127.0.0.1:{port}");
        let expected = [at(first), at(first + 1), at(first + 2)].join(",");
        assert_eq!(line, format!("bootstrap.servers={expected}\n"));
        return;
    }
    panic!("no three free ports in a row");
}

#[test]
fn a_setting_that_is_not_known_is_refused_with_the_nearest() {
    let outcome = shakedown(["serve", "--config", "num.partition=4"]);
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    insta::assert_snapshot!(outcome.err);
}

#[test]
fn a_feature_level_that_does_not_exist_is_refused() {
    let outcome = shakedown(["serve", "--feature", "transaction.version=3"]);
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    insta::assert_snapshot!(outcome.err);
}

/// The level of `transaction.version` that a broker tells of in its answer to ApiVersions, version 3.
fn told_level(serving: &Serving) -> i16 {
    let mut stream = serving.connect();
    // No client id; the software is called `t`, in version `1`.
    let request = [0, 0, 0, 16, 0, 18, 0, 3, 0, 0, 0, 7, 0xff, 0xff, 0, 2, b't', 2, b'1', 0];
    stream.write_all(&request).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer).unwrap();
    // Which levels there are is not told in this version, since 0 is one of them; so the name stands with the finalized one.
    let name = b"transaction.version";
    let places: Vec<_> = (0..answer.len()).filter(|&at| answer[at..].starts_with(name)).collect();
    assert_eq!(places.len(), 1, "{answer:?}");
    let behind = places[0] + name.len();
    i16::from_be_bytes(answer[behind..behind + 2].try_into().unwrap())
}

#[tokio::test]
async fn a_feature_level_shows_to_clients() {
    // With the second protocol each transaction has an epoch of its own.
    for (level, epoch) in [(1, 0), (2, 2)] {
        let serving = Serving::start(1, &["--feature", &format!("transaction.version={level}")]);
        assert_eq!(told_level(&serving), level);
        let broker = serving.broker();
        let admin = broker.admin(&Properties::new()).await.unwrap();
        admin.create_topics(&[NewTopic::new("orders", 1)]).await.unwrap();
        let java = Properties::new().set("shakedown.client.habits", "java").set("transactional.id", "id");
        let producer = broker.producer(&java).await.unwrap();
        producer.init_transactions(PATIENCE).await.unwrap();
        for _ in 0..2 {
            producer.begin_transaction().await.unwrap();
            producer.send(ProducerRecord::new("orders", "key", "value")).await.unwrap();
            producer.commit_transaction(PATIENCE).await.unwrap();
        }
        let told = admin.describe_transactions(&["id"]).await.unwrap();
        assert_eq!(told[0].producer_epoch, epoch, "at level {level}");
    }
}

#[test]
fn brokers_beyond_the_last_port_are_refused() {
    let outcome = shakedown(["serve", "--brokers", "3", "--port", "65534"]);
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    insta::assert_snapshot!(outcome.err);
}

#[test]
fn every_address_at_once_is_none_to_send_clients_to() {
    let outcome = shakedown(["serve", "--host", "0.0.0.0"]);
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    insta::assert_snapshot!(outcome.err);
}

/// The broker closes the connection without an answer, and lives.
fn hung_up_on(serving: &Serving, mut stream: TcpStream) {
    let mut rest = Vec::new();
    // A reset is an end, too.
    stream.read_to_end(&mut rest).ok();
    assert_eq!(rest, b"", "an answer to nonsense");
    drop(serving.connect());
}

#[test]
fn nonsense_is_hung_up_on() {
    let serving = Serving::start(1, &[]);
    for nonsense in [
        &b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
        // A length above `socket.request.max.bytes`, and one below zero.
        &[0x7f, 0xff, 0xff, 0xff, 0, 0],
        &[0x80, 0, 0, 0, 0, 0],
        // A frame too short for a header.
        &[0, 0, 0, 1, 0],
        // A Metadata request for 2,147,483,647 topics, in eight bytes.
        &[0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff],
    ] {
        let mut stream = serving.connect();
        stream.write_all(nonsense).unwrap();
        hung_up_on(&serving, stream);
    }
}

#[test]
fn a_connection_that_is_idle_for_too_long_is_closed() {
    let serving = Serving::start(1, &["--config", "connections.max.idle.ms=200"]);
    hung_up_on(&serving, serving.connect());
}

#[test]
fn beyond_max_connections_one_waits_until_another_leaves() {
    let serving = Serving::start(1, &["--config", "max.connections=8"]);
    // ApiVersions, version 0.
    let request = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];
    let ask = |stream: &mut TcpStream| {
        stream.write_all(&request).unwrap();
        stream.read_exact(&mut [0; 4])
    };
    let mut served = Vec::new();
    let mut waiting = loop {
        let mut stream = serving.connect();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        match ask(&mut stream) {
            Ok(()) => served.push(stream),
            Err(_) => break stream,
        }
        assert!(served.len() <= 8, "more than the limit are served");
    };
    assert!(!served.is_empty(), "the brokers' own connections do not fill the limit");
    served.clear();
    waiting.set_read_timeout(Some(PATIENCE)).unwrap();
    waiting.read_exact(&mut [0; 4]).expect("its request is answered now");
}

#[test]
fn a_second_signal_does_not_wait() {
    let serving = Serving::start(3, &[]);
    serving.signal("TERM");
    serving.signal("TERM");
    // Either it had ended already, or it ended at once.
    let (code, _) = serving.ended();
    assert!(matches!(code, Some(0 | 143)), "{code:?}");
}

/// Starts a cluster on a directory, which may hold one already.
fn on(data: &tempfile::TempDir) -> Serving {
    let data = data.path().to_str().expect("UTF-8");
    // Short, so that a start after a SIGKILL need not wait for 9 s.
    Serving::start(3, &["--data", data, "--config", "broker.session.timeout.ms=3000"])
}

/// Sends one record with acks=all, and commits the offset after it for a group.
async fn write(serving: &Serving, value: &'static str) {
    let broker = serving.broker();
    let producer = broker.producer(&Properties::new().set("acks", "all")).await.unwrap();
    let mut sent = ProducerRecord::new("kept", "key", value);
    sent.partition = Some(0);
    let at = producer.send(sent).await.unwrap();
    let mut consumer = broker.consumer(&Properties::new().set("group.id", "readers")).await.unwrap();
    consumer.assign(std::slice::from_ref(&at.partition)).await.unwrap();
    let offset = OffsetAndMetadata::new(at.offset.expect("acks=all tells it") + 1);
    consumer.commit(&[(at.partition, offset)]).await.unwrap();
}

/// All values of the topic, and what the group has committed.
async fn kept(serving: &Serving, count: usize) -> (Vec<String>, i64) {
    let properties = Properties::new().set("auto.offset.reset", "earliest").set("group.id", "readers");
    let mut consumer = serving.broker().consumer(&properties).await.unwrap();
    let at = TopicPartition::new("kept", 0);
    consumer.assign(std::slice::from_ref(&at)).await.unwrap();
    let committed = consumer.committed(std::slice::from_ref(&at), PATIENCE).await.unwrap();
    consumer.seek(&at, 0).unwrap();
    let mut values = Vec::new();
    while values.len() < count {
        let got = consumer.poll(PATIENCE).await.unwrap();
        assert!(!got.is_empty(), "{values:?} of {count}");
        let read =
            |record: broker::ConsumerRecord| String::from_utf8(record.value.unwrap().to_vec()).unwrap();
        values.extend(got.into_iter().map(read));
    }
    (values, committed[0].1.offset)
}

#[tokio::test]
async fn data_outlives_the_process_however_it_ends() {
    let data = tempfile::tempdir().unwrap();
    let first = on(&data);
    let admin = first.broker().admin(&Properties::new()).await.unwrap();
    admin.create_topics(&[NewTopic::new("kept", 1)]).await.unwrap();
    write(&first, "one").await;
    first.signal("TERM");
    assert_eq!(first.ended(), (Some(0), String::new()));

    let second = on(&data);
    assert_eq!(kept(&second, 1).await, (vec!["one".into()], 1));
    write(&second, "two").await;
    second.signal("KILL");
    assert_eq!(second.ended().0, None);

    let third = on(&data);
    assert_eq!(kept(&third, 2).await, (vec!["one".into(), "two".into()], 2));
    write(&third, "three").await;
    assert_eq!(kept(&third, 3).await.1, 3);
}

#[test]
fn two_processes_do_not_share_a_directory() {
    let data = tempfile::tempdir().unwrap();
    let _serving = on(&data);
    let path = data.path().to_str().unwrap();
    let outcome = shakedown(["serve", "--port", "0", "--data", path]);
    assert_eq!(outcome.code, Some(69), "{outcome:?}");
    assert!(outcome.err.starts_with(&format!("error: another process uses `{path}`")), "{outcome:?}");
}
