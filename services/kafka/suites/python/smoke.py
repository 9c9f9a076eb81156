"""confluent-kafka against a cluster: records, groups, transactions and the admin calls. `smoke.py BOOTSTRAP_SERVERS`."""

import sys
import time
import uuid

from confluent_kafka import (
    Consumer, ConsumerGroupTopicPartitions, KafkaException, Producer, TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic,
)

SERVERS = sys.argv[1]
RUN = uuid.uuid4().hex[:8]
admin = AdminClient({"bootstrap.servers": SERVERS})


def topic(name, partitions=3):
    name = f"smoke-{RUN}-{name}"
    admin.create_topics([NewTopic(name, partitions)])[name].result()
    return name


def produce(name, values, **more):
    failed = []
    producer = Producer({"bootstrap.servers": SERVERS, "enable.idempotence": True, **more})
    for value in values:
        producer.produce(name, key=value, value=value, on_delivery=lambda error, _: error and failed.append(error))
        producer.poll(0)
    assert producer.flush(30) == 0 and not failed, failed


def consumer(group, **more):
    return Consumer({
        "bootstrap.servers": SERVERS, "group.id": f"{RUN}-{group}", "auto.offset.reset": "earliest",
        "enable.auto.commit": False, "session.timeout.ms": 6000, **more,
    })


def read(reader, count, patience=30):
    """So many values; fails if they do not come."""
    values, end = [], time.time() + patience
    while len(values) < count:
        assert time.time() < end, f"{len(values)} of {count} came: {values}"
        message = reader.poll(0.5)
        if message is not None:
            assert message.error() is None, message.error()
            values.append(message.value().decode())
    return values


def every_codec_comes_back():
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
        name = topic(codec)
        sent = [f"{codec}-{number}" for number in range(200)]
        produce(name, sent, **{"compression.type": codec, "linger.ms": 20})
        reader = consumer(codec)
        reader.subscribe([name])
        assert sorted(read(reader, 200)) == sorted(sent)
        reader.close()


def a_group_shares_and_resumes():
    for strategy in ["range", "cooperative-sticky"]:
        name = topic(f"group-{strategy}", 4)
        produce(name, [str(number) for number in range(100)])
        members = [consumer(strategy, **{"partition.assignment.strategy": strategy}) for _ in range(2)]
        for member in members:
            member.subscribe([name])
        values, end = [], time.time() + 60
        while len(values) < 100 or not all(len(member.assignment()) == 2 for member in members):
            assert time.time() < end, (len(values), [member.assignment() for member in members])
            for member in members:
                message = member.poll(0.05)
                if message is not None and message.error() is None:
                    values.append(message.value())
                    member.commit(message, asynchronous=False)
        for member in members:
            member.close()
        assert len(values) == len(set(values)) == 100, "a commit after each record: none comes twice"
        produce(name, ["late"])
        again = consumer(strategy, **{"partition.assignment.strategy": strategy})
        again.subscribe([name])
        assert read(again, 1) == ["late"], "it resumes where the group committed"
        again.close()


def a_transaction_is_seen_whole_or_not_at_all():
    source, target = topic("source", 1), topic("target", 1)
    produce(source, ["a", "b"])
    reader = consumer("copier")
    reader.subscribe([source])
    producer = Producer({"bootstrap.servers": SERVERS, "transactional.id": f"{RUN}-copier"})
    producer.init_transactions(30)
    for commit, expected in [(False, []), (True, [(0, 2)])]:
        producer.begin_transaction()
        for value in read(reader, 2):
            producer.produce(target, value=f"{value}-{commit}")
        positions = reader.position(reader.assignment())
        producer.send_offsets_to_transaction(positions, reader.consumer_group_metadata(), 30)
        # What is not sent yet would be dropped by an abort.
        producer.flush(30)
        producer.commit_transaction(30) if commit else producer.abort_transaction(30)
        committed = [(at.partition, at.offset) for at in reader.committed(reader.assignment(), 30) if at.offset >= 0]
        assert committed == expected, committed
        reader.seek(TopicPartition(source, 0, 0))
    committed_only = consumer("committed", **{"isolation.level": "read_committed"})
    committed_only.assign([TopicPartition(target, 0, 0)])
    assert read(committed_only, 2) == ["a-True", "b-True"]
    everything = consumer("everything", **{"isolation.level": "read_uncommitted"})
    everything.assign([TopicPartition(target, 0, 0)])
    assert read(everything, 4) == ["a-False", "b-False", "a-True", "b-True"]
    zombie = producer
    heir = Producer({"bootstrap.servers": SERVERS, "transactional.id": f"{RUN}-copier"})
    heir.init_transactions(30)
    try:
        zombie.begin_transaction()
        zombie.produce(target, value="zombie")
        zombie.commit_transaction(30)
        raise AssertionError("the zombie was not fenced")
    except KafkaException as error:
        assert error.args[0].fatal(), error
    for each in [reader, committed_only, everything]:
        each.close()


def the_admin_calls_answer():
    name = topic("admin", 1)
    admin.create_partitions([NewPartitions(name, 3)])[name].result()
    end = time.time() + 30
    while len(admin.list_topics(name, 10).topics[name].partitions) != 3:
        assert time.time() < end, "three partitions"
        time.sleep(0.1)
    resource = ConfigResource(ConfigResource.Type.TOPIC, name)
    before = admin.describe_configs([resource])[resource].result()
    assert before["retention.ms"].value == "604800000", before["retention.ms"]
    change = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=[
        ConfigEntry("retention.ms", "3600000", incremental_operation=AlterConfigOpType.SET)])
    admin.incremental_alter_configs([change])[change].result()
    while admin.describe_configs([resource])[resource].result()["retention.ms"].value != "3600000":
        assert time.time() < end, "the change shows"
        time.sleep(0.1)
    cluster = admin.describe_cluster().result()
    assert cluster.nodes and cluster.cluster_id, cluster
    produce(name, ["x"] * 10)
    reader = consumer("admin")
    reader.subscribe([name])
    read(reader, 10)
    reader.commit(asynchronous=False)
    group = f"{RUN}-admin"
    assert group in {each.group_id for each in admin.list_consumer_groups().result().valid}
    described = admin.describe_consumer_groups([group])[group].result()
    assert described.state.name == "STABLE" and len(described.members) == 1, described.state
    offsets = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result()
    assert sum(at.offset for at in offsets.topic_partitions) == 10, offsets.topic_partitions
    reader.close()
    partitions = [TopicPartition(name, number, -1) for number in range(3)]
    admin.delete_records(partitions)
    while any(reader_low(name, number) != reader_high(name, number) for number in range(3)):
        assert time.time() < end, "all records are deleted"
        time.sleep(0.1)
    admin.delete_consumer_groups([group])[group].result()
    admin.delete_topics([name])[name].result()
    while name in admin.list_topics(timeout=10).topics:
        assert time.time() < end, "the topic is gone"
        time.sleep(0.1)


def watermarks(name, number):
    asking = consumer("watermarks")
    try:
        return asking.get_watermark_offsets(TopicPartition(name, number), timeout=10)
    finally:
        asking.close()


def reader_low(name, number):
    return watermarks(name, number)[0]


def reader_high(name, number):
    return watermarks(name, number)[1]


for test in [
    every_codec_comes_back, a_group_shares_and_resumes, a_transaction_is_seen_whole_or_not_at_all, the_admin_calls_answer,
]:
    started = time.time()
    test()
    print(f"ok {test.__name__} ({time.time() - started:.1f} s)", flush=True)
