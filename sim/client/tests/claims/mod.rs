//! Claims about transactions and about the admin client, over any cluster, simulated or real.

mod admin;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use broker::{
    Admin, Broker, Consumer, ConsumerRecord, Error, ErrorClass, ErrorCode, NewTopic, NoRebalanceListener,
    OffsetAndMetadata, OffsetSpec, Producer, ProducerRecord, Properties, TopicPartition,
};
use context::{BoxFuture, Context};

const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster to make claims about, through clients of some habits.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) context: Context,
    pub(crate) broker: Arc<dyn Broker>,
    /// `librdkafka` or `java`.
    pub(crate) habits: &'static str,
    /// The cluster's level of `transaction.version`.
    pub(crate) level: i16,
    /// Keeps runs on one cluster apart.
    pub(crate) run: String,
}

/// A claim: its name and what holds it. It panics where the claim does not hold.
pub(crate) type Claim = (&'static str, fn(Desk) -> BoxFuture<'static, ()>);

macro_rules! claims {
    ($($name:ident),+ $(,)?) => {
        pub(crate) const CLAIMS: &[Claim] = &[$((stringify!($name), |desk| Box::pin($name(desk)))),+];
    };
}

claims![
    what_is_committed_is_read_and_what_is_aborted_is_not,
    readers_of_what_is_committed_wait_behind_an_open_transaction,
    transactions_follow_each_other_on_one_producer,
    a_transaction_without_records_ends_at_once,
    a_second_producer_of_the_same_id_fences_the_first,
    a_producer_that_comes_back_ends_what_it_left_open,
    offsets_count_when_their_transaction_commits,
    a_member_that_its_group_went_on_without_commits_nothing,
    a_failed_record_fails_its_transaction_and_the_next_one_works,
    a_record_that_a_broker_refuses_costs_librdkafka_another_transaction,
    a_batch_that_is_too_large_is_refused_at_once_or_sent_until_its_time_is_up,
    a_transaction_that_takes_too_long_is_ended_by_its_coordinator,
    a_call_whose_time_is_up_goes_on_and_is_resumed,
];

pub(crate) use admin::CLAIMS as ADMIN_CLAIMS;

impl Desk {
    fn name(&self, what: &str) -> String {
        format!("{what}-{}-{}", self.habits, self.run)
    }

    /// Whether its transactions are of the second protocol (KIP-890), which librdkafka does not speak.
    fn speaks_the_second_protocol(&self) -> bool {
        self.habits == "java" && self.level >= 2
    }

    fn properties(&self, pairs: &[(&str, &str)]) -> Properties {
        let base = Properties::new().set("shakedown.client.habits", self.habits);
        pairs.iter().fold(base, |properties, (name, value)| properties.set(*name, value))
    }

    async fn topic(&self, what: &str, partitions: i32) -> Arc<str> {
        let admin: Arc<dyn Admin> = self.broker.admin(&Properties::new()).await.expect("sound properties");
        let name = self.name(what);
        admin.create_topics(&[NewTopic::new(name.as_str(), partitions)]).await.expect("it is created");
        name.into()
    }

    async fn producer(&self, id: &str, pairs: &[(&str, &str)]) -> Arc<dyn Producer> {
        let id = self.name(id);
        let properties = self.properties(&[("transactional.id", &id)]).with(&self.properties(pairs));
        let producer = self.broker.producer(&properties).await.expect("sound properties");
        producer.init_transactions(PATIENCE).await.expect("registered");
        producer
    }

    /// Reads partition 0 of the topic from its start to its end, and waits for more.
    async fn read(&self, topic: &Arc<str>, isolation: &str) -> Vec<String> {
        let at = TopicPartition::new(topic.clone(), 0);
        let properties = self.properties(&[("isolation.level", isolation)]);
        let admin = self.broker.admin(&properties).await.expect("sound properties");
        let end = admin.list_offsets(&[(at.clone(), OffsetSpec::Latest)]).await.expect("the end")[0].1;
        let mut consumer = self.reader(topic, isolation).await;
        let mut seen = Vec::new();
        let mut idle = 0;
        let deadline = self.context.now() + Duration::from_secs(60);
        let is_short = |consumer: &dyn Consumer| consumer.position(&at).is_none_or(|next| next < end);
        while idle < 3 || is_short(&*consumer) && self.context.now() < deadline {
            let records = poll(&mut *consumer, Duration::from_millis(500)).await;
            idle = if records.is_empty() { idle + 1 } else { 0 };
            seen.extend(records.iter().map(|record| text(record.value.as_deref())));
        }
        consumer.close().await.expect("closed");
        seen
    }

    async fn reader(&self, topic: &Arc<str>, isolation: &str) -> Box<dyn Consumer> {
        let properties =
            self.properties(&[("isolation.level", isolation), ("auto.offset.reset", "earliest")]);
        let mut consumer = self.broker.consumer(&properties).await.expect("sound properties");
        consumer.assign(&[TopicPartition::new(topic.clone(), 0)]).await.expect("it is not subscribed");
        consumer
    }

    /// Asks until it holds.
    async fn eventually<F: Future<Output = bool>>(&self, sentence: &str, mut holds: impl FnMut() -> F) {
        let deadline = self.context.now() + Duration::from_secs(60);
        while !holds().await {
            assert!(self.context.now() < deadline, "not within 60 s: {sentence}");
            self.context.sleep(Duration::from_millis(200)).await;
        }
    }
}

/// What the next poll gets over gives nothing, as the interface says.
async fn poll(consumer: &mut dyn Consumer, span: Duration) -> Vec<ConsumerRecord> {
    match consumer.poll(span).await {
        Ok(records) => records,
        Err(error) => {
            assert!(error.is_retriable(), "a poll: {error}");
            Vec::new()
        }
    }
}

fn text(value: Option<&[u8]>) -> String {
    String::from_utf8(value.unwrap_or_default().to_vec()).expect("text")
}

fn record(topic: &Arc<str>, value: &str) -> ProducerRecord {
    ProducerRecord { partition: Some(0), ..ProducerRecord::new(topic.clone(), "k", value.to_owned()) }
}

async fn send(producer: &Arc<dyn Producer>, topic: &Arc<str>, value: &str) -> Result<(), Error> {
    producer.send(record(topic, value)).await.map(|_| ())
}

async fn commit(producer: &Arc<dyn Producer>) {
    producer.commit_transaction(PATIENCE).await.expect("committed");
}

async fn what_is_committed_is_read_and_what_is_aborted_is_not(desk: Desk) {
    let topic = desk.topic("commit", 1).await;
    let producer = desk.producer("commit", &[]).await;
    for (value, commits) in [("a", true), ("b", false), ("c", true)] {
        producer.begin_transaction().await.expect("begun");
        send(&producer, &topic, value).await.expect("sent");
        match commits {
            true => commit(&producer).await,
            false => producer.abort_transaction(PATIENCE).await.expect("aborted"),
        }
    }
    // The markers are written after the answer.
    desk.eventually("all that is committed is read", || async {
        desk.read(&topic, "read_committed").await == ["a", "c"]
    })
    .await;
    assert_eq!(desk.read(&topic, "read_uncommitted").await, ["a", "b", "c"]);
}

async fn readers_of_what_is_committed_wait_behind_an_open_transaction(desk: Desk) {
    let topic = desk.topic("lso", 1).await;
    // Its transaction is open for as long as two readers need, on a busy machine too.
    let producer = desk.producer("lso", &[("transaction.timeout.ms", "600000")]).await;
    producer.begin_transaction().await.expect("begun");
    send(&producer, &topic, "open").await.expect("sent");
    let plain = desk.broker.producer(&desk.properties(&[])).await.expect("sound properties");
    plain.send(record(&topic, "plain")).await.expect("sent");
    assert!(desk.read(&topic, "read_committed").await.is_empty(), "an open transaction holds readers back");
    assert_eq!(desk.read(&topic, "read_uncommitted").await, ["open", "plain"]);
    commit(&producer).await;
    desk.eventually("both are read", || async {
        desk.read(&topic, "read_committed").await == ["open", "plain"]
    })
    .await;
    let mut reader = desk.reader(&topic, "read_committed").await;
    let at = TopicPartition::new(topic.clone(), 0);
    let deadline = desk.context.now() + Duration::from_secs(60);
    while reader.position(&at) != Some(3) && desk.context.now() < deadline {
        poll(&mut *reader, Duration::from_millis(300)).await;
    }
    assert_eq!(reader.position(&at), Some(3), "a position moves past the marker");
}

async fn transactions_follow_each_other_on_one_producer(desk: Desk) {
    let topic = desk.topic("many", 3).await;
    let producer = desk.producer("many", &[]).await;
    let mut expected = Vec::new();
    for round in 0..20 {
        producer.begin_transaction().await.expect("begun");
        let mut sent = Vec::new();
        for partition in 0..3 {
            let value = format!("{round}");
            sent.push(producer.send(ProducerRecord { partition: Some(partition), ..record(&topic, &value) }));
        }
        if round % 4 == 3 {
            // Without waiting: what lingers is dropped, what is under way is waited for.
            producer.abort_transaction(PATIENCE).await.expect("aborted");
            for fate in sent {
                let fate = fate.await;
                assert!(matches!(&fate, Ok(_) | Err(Error { code: ErrorCode::Purged, .. })), "{fate:?}");
            }
        } else {
            commit(&producer).await;
            expected.push(format!("{round}"));
            for fate in sent {
                fate.await.expect("a commit flushes");
            }
        }
    }
    desk.eventually("every committed round is read, in order", || async {
        desk.read(&topic, "read_committed").await == expected
    })
    .await;
}

async fn a_transaction_without_records_ends_at_once(desk: Desk) {
    let producer = desk.producer("empty", &[]).await;
    for _ in 0..3 {
        producer.begin_transaction().await.expect("begun");
        commit(&producer).await;
        producer.begin_transaction().await.expect("begun");
        producer.abort_transaction(PATIENCE).await.expect("aborted");
    }
    let error = producer.commit_transaction(PATIENCE).await.expect_err("none is open");
    assert_eq!(error.code, ErrorCode::InvalidState);
}

async fn a_second_producer_of_the_same_id_fences_the_first(desk: Desk) {
    let topic = desk.topic("fence", 1).await;
    let first = desk.producer("fence", &[]).await;
    first.begin_transaction().await.expect("begun");
    send(&first, &topic, "zombie").await.expect("sent");
    let second = desk.producer("fence", &[]).await;
    second.begin_transaction().await.expect("begun");
    send(&second, &topic, "alive").await.expect("sent");
    let error = first.commit_transaction(PATIENCE).await.expect_err("fenced");
    assert_eq!(error.class, ErrorClass::Fenced, "{error}");
    commit(&second).await;
    desk.eventually("only the second is read", || async {
        desk.read(&topic, "read_committed").await == ["alive"]
    })
    .await;
    let error = first.begin_transaction().await.expect_err("fenced for good");
    assert!(error.is_fatal(), "{error}");
}

async fn a_producer_that_comes_back_ends_what_it_left_open(desk: Desk) {
    let topic = desk.topic("back", 1).await;
    let first = desk.producer("back", &[]).await;
    first.begin_transaction().await.expect("begun");
    send(&first, &topic, "left").await.expect("sent");
    drop(first);
    let again = desk.producer("back", &[]).await;
    again.begin_transaction().await.expect("begun");
    send(&again, &topic, "again").await.expect("sent");
    commit(&again).await;
    desk.eventually("what was left open is aborted", || async {
        desk.read(&topic, "read_committed").await == ["again"]
    })
    .await;
}

async fn offsets_count_when_their_transaction_commits(desk: Desk) {
    let input = desk.topic("input", 1).await;
    let output = desk.topic("output", 1).await;
    let plain = desk.broker.producer(&desk.properties(&[])).await.expect("sound properties");
    for value in ["1", "2", "3", "4"] {
        plain.send(record(&input, value)).await.expect("sent");
    }
    let group = desk.name("offsets");
    let mut consumer = member(&desk, &group, &input).await;
    let mut records = Vec::new();
    while records.len() < 4 {
        records.extend(poll(&mut *consumer, Duration::from_secs(1)).await);
    }
    let at = TopicPartition::new(input.clone(), 0);
    let producer = desk.producer("offsets", &[]).await;
    for (offset, commits) in [(2, false), (3, true)] {
        producer.begin_transaction().await.expect("begun");
        send(&producer, &output, &format!("{offset}")).await.expect("sent");
        let positions = [(at.clone(), OffsetAndMetadata::new(offset))];
        let metadata = consumer.group_metadata();
        producer.send_offsets_to_transaction(&positions, &metadata, PATIENCE).await.expect("part of it");
        match commits {
            true => commit(&producer).await,
            false => producer.abort_transaction(PATIENCE).await.expect("aborted"),
        }
    }
    let committed = consumer.committed(std::slice::from_ref(&at), PATIENCE).await.expect("it knows");
    assert_eq!(committed.iter().map(|(_, position)| position.offset).collect::<Vec<_>>(), [3]);
    desk.eventually("the record of the aborted one is not read", || async {
        desk.read(&output, "read_committed").await == ["3"]
    })
    .await;
    consumer.close().await.expect("closed");
}

async fn member(desk: &Desk, group: &str, topic: &Arc<str>) -> Box<dyn Consumer> {
    let properties = desk.properties(&[
        ("group.id", group),
        ("auto.offset.reset", "earliest"),
        ("enable.auto.commit", "false"),
        ("isolation.level", "read_committed"),
    ]);
    let mut consumer = desk.broker.consumer(&properties).await.expect("sound properties");
    consumer
        .subscribe(std::slice::from_ref(topic), Box::new(NoRebalanceListener))
        .await
        .expect("it has a group");
    consumer
}

async fn a_member_that_its_group_went_on_without_commits_nothing(desk: Desk) {
    let topic = desk.topic("zombie", 1).await;
    let group = desk.name("zombie");
    let mut consumer = member(&desk, &group, &topic).await;
    while consumer.assignment().is_empty() {
        poll(&mut *consumer, Duration::from_millis(200)).await;
    }
    let mut metadata = consumer.group_metadata();
    metadata.generation_id -= 1;
    let producer = desk.producer("zombie", &[]).await;
    producer.begin_transaction().await.expect("begun");
    send(&producer, &topic, "effect").await.expect("sent");
    let positions = [(TopicPartition::new(topic.clone(), 0), OffsetAndMetadata::new(1))];
    let refused = producer.send_offsets_to_transaction(&positions, &metadata, PATIENCE).await;
    let error = refused.expect_err("of an earlier generation");
    assert_eq!((error.code, error.class), (ErrorCode::Broker(22), ErrorClass::Abortable), "{error}");
    let error = producer.commit_transaction(PATIENCE).await.expect_err("it can only be aborted");
    assert_eq!(error.class, ErrorClass::Abortable, "{error}");
    producer.abort_transaction(PATIENCE).await.expect("aborted");
    producer.begin_transaction().await.expect("the producer goes on");
    send(&producer, &topic, "later").await.expect("sent");
    commit(&producer).await;
    desk.eventually("only the later one is read", || async {
        desk.read(&topic, "read_committed").await == ["later"]
    })
    .await;
    consumer.close().await.expect("closed");
}

async fn a_failed_record_fails_its_transaction_and_the_next_one_works(desk: Desk) {
    let topic = desk.topic("failed", 1).await;
    let producer = desk.producer("failed", &[]).await;
    producer.begin_transaction().await.expect("begun");
    send(&producer, &topic, "good").await.expect("sent");
    let nowhere = ProducerRecord { partition: Some(7), ..record(&topic, "bad") };
    producer.send(nowhere).await.expect_err("there is no such partition");
    let error = producer.commit_transaction(PATIENCE).await.expect_err("a record is missing");
    assert_eq!(error.class, ErrorClass::Abortable, "{error}");
    let error = send(&producer, &topic, "late").await.expect_err("it takes no more");
    assert_eq!(error.class, ErrorClass::Abortable, "{error}");
    producer.abort_transaction(PATIENCE).await.expect("aborted");
    producer.begin_transaction().await.expect("begun");
    send(&producer, &topic, "next").await.expect("sent");
    commit(&producer).await;
    desk.eventually("the next one is read", || async {
        desk.read(&topic, "read_committed").await == ["next"]
    })
    .await;
}

/// A topic whose broker takes no more than 1,000 bytes at once.
async fn narrow_topic(desk: &Desk, what: &str) -> Arc<str> {
    let admin: Arc<dyn Admin> = desk.broker.admin(&Properties::new()).await.expect("sound properties");
    let name = desk.name(what);
    let mut topic = NewTopic::new(name.as_str(), 1);
    topic.config.insert("max.message.bytes".into(), "1000".into());
    admin.create_topics(&[topic]).await.expect("it is created");
    name.into()
}

/// librdkafka aborts it under the epoch it has and goes on behind the sequence that was refused, so the next transaction
/// fails too; only then it takes a new epoch. Java takes one with each abort.
async fn a_record_that_a_broker_refuses_costs_librdkafka_another_transaction(desk: Desk) {
    let topic = narrow_topic(&desk, "refused").await;
    let producer = desk.producer("refused", &[]).await;
    producer.begin_transaction().await.expect("begun");
    send(&producer, &topic, "first").await.expect("sent");
    commit(&producer).await;
    producer.begin_transaction().await.expect("begun");
    let error = send(&producer, &topic, &"x".repeat(2_000)).await.expect_err("it is too large");
    assert_eq!((error.code, error.class), (ErrorCode::Broker(10), ErrorClass::Failed), "{error}");
    producer.abort_transaction(PATIENCE).await.expect("aborted");
    if desk.habits == "librdkafka" {
        producer.begin_transaction().await.expect("begun");
        let error = send(&producer, &topic, "behind the gap").await.expect_err("out of order");
        assert_eq!((error.code, error.class), (ErrorCode::Broker(45), ErrorClass::Abortable), "{error}");
        producer.abort_transaction(PATIENCE).await.expect("aborted");
    }
    producer.begin_transaction().await.expect("begun");
    send(&producer, &topic, "last").await.expect("sent");
    commit(&producer).await;
    desk.eventually("what was committed is read", || async {
        desk.read(&topic, "read_committed").await == ["first", "last"]
    })
    .await;
}

async fn a_batch_that_is_too_large_is_refused_at_once_or_sent_until_its_time_is_up(desk: Desk) {
    let topic = narrow_topic(&desk, "large").await;
    let properties = desk.properties(&[
        ("linger.ms", "50"),
        ("delivery.timeout.ms", if desk.habits == "java" { "3000" } else { "30000" }),
        ("request.timeout.ms", "1000"),
    ]);
    let producer = desk.broker.producer(&properties).await.expect("sound properties");
    let sent_at = desk.context.now();
    let half = "x".repeat(700);
    let (one, other) = (producer.send(record(&topic, &half)), producer.send(record(&topic, &half)));
    let error = one.await.expect_err("together they are too large");
    other.await.expect_err("together they are too large");
    let took = desk.context.now().since(sent_at);
    match desk.habits {
        "java" => {
            assert_eq!(error.code, ErrorCode::MessageTimedOut, "split at `batch.size`, it stays whole");
            assert!(took >= Duration::from_secs(3), "{took:?}");
        }
        _ => {
            assert_eq!(error.code, ErrorCode::Broker(10));
            assert!(took < Duration::from_secs(30), "{took:?}");
        }
    }
    // A busy machine may take longer for one than a record's time is.
    desk.eventually("the producer goes on", || async { send(&producer, &topic, "alone").await.is_ok() })
        .await;
}

async fn a_transaction_that_takes_too_long_is_ended_by_its_coordinator(desk: Desk) {
    let topic = desk.topic("slow", 1).await;
    let producer = desk.producer("slow", &[("transaction.timeout.ms", "15000")]).await;
    producer.begin_transaction().await.expect("begun");
    send(&producer, &topic, "slow").await.expect("sent");
    let plain = desk.broker.producer(&desk.properties(&[])).await.expect("sound properties");
    plain.send(record(&topic, "plain")).await.expect("sent");
    // The coordinator looks every 10 s (`transaction.abort.timed.out.transaction.cleanup.interval.ms`).
    desk.eventually("the coordinator aborts it", || async {
        desk.read(&topic, "read_committed").await == ["plain"]
    })
    .await;
    let error = producer.commit_transaction(PATIENCE).await.expect_err("it was aborted");
    // In the first protocol its epoch is fenced. In the second its epoch is the one before the abort's, so the commit looks
    // like the repetition of another end: INVALID_TXN_STATE. Seen on Kafka 4.1.0.
    let second = desk.speaks_the_second_protocol();
    let expected = if second { ErrorClass::Fatal } else { ErrorClass::Fenced };
    assert_eq!(error.class, expected, "{error}");
}

async fn a_call_whose_time_is_up_goes_on_and_is_resumed(desk: Desk) {
    let topic = desk.topic("resumed", 1).await;
    // It lingers for longer than the caller waits.
    let producer = desk.producer("resumed", &[("linger.ms", "200")]).await;
    producer.begin_transaction().await.expect("begun");
    let sent = producer.send(record(&topic, "a"));
    let error = producer.commit_transaction(Duration::ZERO).await.expect_err("its time is up");
    assert_eq!((error.code, error.class), (ErrorCode::TimedOut, ErrorClass::Retriable), "{error}");
    let error = producer.begin_transaction().await.expect_err("the commit is under way");
    assert_eq!(error.class, ErrorClass::Retriable, "{error}");
    let error = producer.abort_transaction(PATIENCE).await.expect_err("the commit is under way");
    assert_eq!(error.class, ErrorClass::Retriable, "{error}");
    commit(&producer).await;
    sent.await.expect("committed");
    desk.eventually("it is read", || async { desk.read(&topic, "read_committed").await == ["a"] }).await;
    producer.begin_transaction().await.expect("the call has ended");
}
