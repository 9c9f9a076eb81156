//! The coordinator of a transaction dies as it is told to commit.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use kafka::log::batch::{BatchHeader, HEADER_LEN, assemble};
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::*;

use crate::account::Account;
use crate::stage::{Stage, StageError};
use crate::watch::{TOPIC, Telling};
use crate::wire::{name, text};
use crate::writer::{append_as, plain};

const ID: &str = "story-transaction";
const PATIENCE: Duration = Duration::from_secs(3);

async fn coordinator(telling: &Telling) -> Result<i32, StageError> {
    telling
        .eventually("the transaction has a coordinator", async || {
            for broker in telling.up() {
                let request = FindCoordinatorRequest::default().with_key(text(ID)).with_key_type(1);
                let answer = telling.line(broker).ask(ApiKey::FindCoordinator, 2, request, PATIENCE).await;
                if let Some(ResponseKind::FindCoordinator(response)) = answer
                    && response.error_code == 0
                {
                    return Some(response.node_id.0);
                }
            }
            None
        })
        .await
}

pub(super) async fn coordinator_killed(stage: Arc<dyn Stage>) -> Result<Account, StageError> {
    let telling = Telling::open(stage);
    let (first, id, epoch) = telling
        .eventually("a producer id", async || {
            let first = coordinator(&telling).await.ok()?;
            let request = InitProducerIdRequest::default()
                .with_transactional_id(Some(TransactionalId(text(ID))))
                .with_transaction_timeout_ms(60_000)
                .with_producer_id(ProducerId(-1))
                .with_producer_epoch(-1);
            match telling.line(first).ask(ApiKey::InitProducerId, 4, request, PATIENCE).await? {
                ResponseKind::InitProducerId(response) if response.error_code == 0 => {
                    Some((first, response.producer_id, response.producer_epoch))
                }
                _ => None,
            }
        })
        .await?;
    // The coordinator is the last replica, so that the partition's leader lives on: another story has it die.
    let mut replicas: Vec<i32> = (1..=3).filter(|&broker| broker != first).collect();
    replicas.push(first);
    let leader = replicas[0];
    let telling = telling.with_topic(&replicas, &[("min.insync.replicas", "2")]).await?;
    let watch = telling.watch();
    let partitions =
        AddPartitionsToTxnTopic::default().with_name(TopicName(text(TOPIC))).with_partitions(vec![0]);
    let request = AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(TransactionalId(text(ID)))
        .with_v3_and_below_producer_id(id)
        .with_v3_and_below_producer_epoch(epoch)
        .with_v3_and_below_topics(vec![partitions]);
    let added = match telling.line(first).ask(ApiKey::AddPartitionsToTxn, 3, request, PATIENCE).await {
        Some(ResponseKind::AddPartitionsToTxn(response)) => {
            let topic = response.results_by_topic_v3_and_below.first();
            let partition = topic.and_then(|topic| topic.results_by_partition.first());
            partition.map_or("EMPTY".into(), |partition| name(partition.partition_error_code))
        }
        _ => "NO_ANSWER".into(),
    };
    telling.account().fact("AddPartitionsToTxn", added);
    let mut line = telling.line(leader);
    for number in 0..5 {
        let batch = transactional(&plain(&telling.context, &format!("in-{number}")), id.0, epoch, number);
        let code = append_as(&mut line, -1, 3_000, batch, Some(ID)).await;
        telling.account().fact(&format!("produce {number}"), code);
    }
    let stable = telling.latest(leader, true).await;
    telling.account().fact("last stable offset while it is open", format!("{stable:?}"));
    telling.at(5).await;
    let end = || {
        EndTxnRequest::default()
            .with_transactional_id(TransactionalId(text(ID)))
            .with_producer_id(id)
            .with_producer_epoch(epoch)
            .with_committed(true)
    };
    let mut dying = telling.line(first);
    let sent = dying.send(ApiKey::EndTxn, 3, end()).await;
    telling.account().fact("EndTxn was sent", sent);
    telling.kill(first).await?;
    let killed = telling.seconds();
    // The client asks whoever coordinates until it is answered for good.
    let codes: Mutex<BTreeSet<String>> = Mutex::default();
    let codes = &codes;
    let result = telling
        .eventually("the commit is answered", async || {
            let now = coordinator(&telling).await.ok()?;
            match telling.line(now).ask(ApiKey::EndTxn, 3, end(), PATIENCE).await {
                Some(ResponseKind::EndTxn(response)) => {
                    let code = name(response.error_code);
                    telling.account().state(telling.seconds(), "answers EndTxn", &*code);
                    codes.lock().unwrap_or_else(PoisonError::into_inner).insert(code.clone());
                    // Load in progress, not available, not coordinator, concurrent transactions: later perhaps.
                    (!matches!(response.error_code, 14 | 15 | 16 | 51)).then_some(code)
                }
                _ => None,
            }
        })
        .await?;
    let answered = telling.seconds();
    telling.account().fact("EndTxn at the next coordinator", result);
    telling.account().span("until the commit was answered", answered - killed);
    telling.account().codes("EndTxn", &codes.lock().unwrap_or_else(PoisonError::into_inner));
    telling
        .eventually("the transaction is stable", async || {
            telling.latest(leader, true).await.filter(|stable| *stable >= 6)
        })
        .await?;
    let read = telling.read_all(leader, true).await.unwrap_or_default();
    telling.account().fact("committed in the end", read.join(" "));
    telling.start(first).await?;
    telling.until("all are in sync again", |seen| seen.in_sync.len() == 3).await?;
    telling.end(watch).await
}

/// The same batch as a transactional producer sends it.
fn transactional(batch: &Bytes, id: i64, epoch: i16, sequence: i32) -> Bytes {
    const TRANSACTIONAL: i16 = 1 << 4;
    let header = BatchHeader::parse(batch).expect("it was just written");
    let header = BatchHeader {
        attributes: header.attributes | TRANSACTIONAL,
        producer_id: id,
        producer_epoch: epoch,
        base_sequence: sequence,
        ..header
    };
    assemble(&header, &batch[HEADER_LEN..])
}
