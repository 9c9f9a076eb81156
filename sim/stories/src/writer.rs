//! Producers of a story, and what came of what they wrote.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use context::{Context, Task};
use kafka::log::record;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::*;

use crate::stage::StageError;
use crate::watch::{LOOK_EVERY, TOPIC, Telling};
use crate::wire::{Line, name, text};

/// Milliseconds in which a broker answers a record, or says that it could not. With the second for the way it is no longer than
/// the tolerance of times, so that it does not matter much which record was on its way when the leader changed.
const ANSWERS_WITHIN: i32 = 500;

/// One try to append.
#[derive(Clone, Debug)]
struct Attempt {
    value: String,
    /// When it was answered, in seconds into the story.
    done: f64,
    code: String,
}

/// A producer that appends one record after the other, each once, to whoever it takes for the leader.
pub(crate) struct Writer {
    label: &'static str,
    attempts: Arc<Mutex<Vec<Attempt>>>,
    stop: Arc<AtomicBool>,
    stopped: Arc<AtomicBool>,
    task: Task<()>,
}

/// Appends a batch of one record and gives the code that came, or `no answer`'s name.
pub(crate) async fn append(line: &mut Line, acks: i16, timeout_ms: i32, batch: Bytes) -> String {
    append_as(line, acks, timeout_ms, batch, None).await
}

pub(crate) async fn append_as(
    line: &mut Line,
    acks: i16,
    timeout_ms: i32,
    batch: Bytes,
    transactional_id: Option<&str>,
) -> String {
    let data = PartitionProduceData::default().with_index(0).with_records(Some(batch));
    let topic = TopicProduceData::default().with_name(TopicName(text(TOPIC))).with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(timeout_ms)
        .with_transactional_id(transactional_id.map(|id| TransactionalId(text(id))))
        .with_topic_data(vec![topic]);
    let patience = Duration::from_millis(timeout_ms as u64 + 1_000);
    match line.ask(ApiKey::Produce, 9, request, patience).await {
        Some(ResponseKind::Produce(response)) => {
            let partition = response.responses.first().and_then(|topic| topic.partition_responses.first());
            partition.map_or("EMPTY".into(), |partition| name(partition.error_code))
        }
        _ => "NO_ANSWER".into(),
    }
}

impl Writer {
    /// Begins to write. `pinned` always asks the same broker; otherwise it looks for the leader after every error.
    pub(crate) fn begin(telling: &Telling, label: &'static str, acks: i16, pinned: Option<i32>) -> Writer {
        telling.is_written.store(true, Ordering::Relaxed);
        let (attempts, stop) = (Arc::<Mutex<Vec<Attempt>>>::default(), Arc::<AtomicBool>::default());
        let (this, written, stopped) = (telling.clone(), attempts.clone(), stop.clone());
        let task = telling.context.spawn("writer", async move {
            let mut to = pinned.unwrap_or(1);
            let mut line = this.line(to);
            let mut number = 0;
            while !stopped.load(Ordering::Relaxed) {
                let value = format!("{label}-{number}");
                number += 1;
                let batch = plain(&this.context, &value);
                let code = append(&mut line, acks, ANSWERS_WITHIN, batch).await;
                let failed = code != "NONE";
                let attempt = Attempt { value, done: this.seconds(), code };
                written.lock().unwrap_or_else(PoisonError::into_inner).push(attempt);
                this.context.sleep(LOOK_EVERY).await;
                if failed
                    && pinned.is_none()
                    && let Some(seen) = this.look().await
                    && seen.leader > 0
                    && seen.leader != to
                {
                    to = seen.leader;
                    line = this.line(to);
                }
            }
        });
        Writer { label, attempts, stop, stopped: telling.was_written.clone(), task }
    }

    /// Stops writing.
    pub(crate) async fn stop(self) -> Result<Written, StageError> {
        self.stopped.store(true, Ordering::Relaxed);
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.ok_or_else(|| StageError("a writer ended before it was told".into()))?;
        let attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Written { label: self.label, attempts })
    }
}

/// What a writer did.
pub(crate) struct Written {
    label: &'static str,
    attempts: Vec<Attempt>,
}

impl Written {
    /// Tells what came of it: what was answered when, the longest time without an acknowledgement, and, with what a reader
    /// saw in the end, which acknowledged records are there and which are gone, by the time of their acknowledgement.
    pub(crate) fn tell(&self, telling: &Telling, read: &[String]) {
        let label = self.label;
        let (answers, records) = (format!("answers {label}"), format!("records {label}"));
        let mut account = telling.account();
        let mut acknowledged = Vec::new();
        for Attempt { value, done, code } in &self.attempts {
            account.state(*done, &answers, code);
            if code == "NONE" {
                acknowledged.push(*done);
                account.state(*done, &records, if read.contains(value) { "there" } else { "gone" });
            }
        }
        let gap = acknowledged.windows(2).map(|two| two[1] - two[0]).fold(0.0, f64::max);
        account.codes(label, &self.attempts.iter().map(|attempt| attempt.code.clone()).collect());
        account.span(&format!("{label} without an answer"), gap);
        // The line of records forgives what is soon over, and a loss is not.
        let is_lost = |attempt: &Attempt| attempt.code == "NONE" && !read.contains(&attempt.value);
        let lost = if self.attempts.iter().any(is_lost) { "yes" } else { "no" };
        account.fact(&format!("{label} lost what was acknowledged"), lost);
    }
}

/// A batch of one record that belongs to no producer.
pub(crate) fn plain(context: &Context, value: &str) -> Bytes {
    record::write_batch(context.now().as_millis() as i64, &[(None, Some(Bytes::from(value.to_owned())))])
}
