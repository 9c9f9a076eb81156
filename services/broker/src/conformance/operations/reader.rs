//! A reader of the partition.

use std::time::Duration;

use super::super::bench::text;
use super::super::{Bench, Failure};
use super::place::Place;
use super::shown;
use crate::{Consumer, ConsumerRecord, Error, ErrorCode, Offset, Properties, TopicPartition};

/// A reader that should get more records, and to whom nothing comes for so long, gets none: a leader's death costs less.
const SILENCE: Duration = Duration::from_secs(30);
/// A reader that should get no more waits so long for what it should not get.
const SHORT_SILENCE: Duration = Duration::from_millis(500);

pub(super) struct Reader {
    consumer: Box<dyn Consumer>,
    /// Where it reads on. Clients fetch ahead, some of them long before they are asked for it: so each read seeks first, which
    /// drops what was fetched, and answers do not depend on when that was.
    next: Offset,
}

impl Reader {
    /// With the group's id, though it never joins it; at this offset.
    pub(super) async fn open(
        bench: &Bench,
        at: &TopicPartition,
        isolation: &str,
        reset: &str,
        start: Offset,
    ) -> Result<Reader, Failure> {
        let properties = Properties::new().set("isolation.level", isolation).set("auto.offset.reset", reset);
        let mut consumer = bench.consumer_with("g", properties).await?;
        consumer.assign(std::slice::from_ref(at)).await?;
        // At once: nobody should look for where it starts, and find nothing.
        consumer.seek(at, start)?;
        Ok(Reader { consumer, next: start })
    }

    pub(super) fn consumer(&mut self) -> &mut dyn Consumer {
        &mut *self.consumer
    }

    pub(super) fn seek(&mut self, to: Offset) {
        self.next = to;
    }

    pub(super) async fn close(self) -> Result<(), Failure> {
        Ok(self.consumer.close().await?)
    }

    /// Reads on to `end`, which lies at the log's end or before it. `wanted` records should come; more may, and none may. The
    /// error is that of an offset outside of the log.
    pub(super) async fn read(
        &mut self,
        place: &Place,
        (end, log_end): (Offset, Offset),
        wanted: usize,
    ) -> Result<Result<Vec<(Offset, String)>, Error>, Failure> {
        let context = place.bench.context();
        self.consumer.seek(&place.at, self.next)?;
        // From outside of the log it starts elsewhere, and gets to the end all the same.
        self.next = if self.next > log_end { end } else { end.max(self.next) };
        let mut records = Vec::new();
        let mut heard = context.now();
        loop {
            match self.consumer.poll(Duration::from_millis(100)).await {
                Ok(more) if more.is_empty() => {}
                Ok(more) => {
                    heard = context.now();
                    records.extend(more);
                }
                Err(error) if error.code == ErrorCode::OffsetOutOfRange => return Ok(Err(error)),
                Err(error) if error.is_fatal() => return Err(error.into()),
                // The next poll goes on, as the interface says.
                Err(_) => {}
            }
            let position = self.consumer.position(&place.at);
            // From beyond the log's end it is reset first.
            let beyond = position.is_none_or(|position| position > log_end);
            let patience = if records.len() < wanted || beyond { SILENCE } else { SHORT_SILENCE };
            let at_end = position.is_some_and(|position| (end..=log_end).contains(&position));
            if at_end || context.now() > heard + patience {
                return Ok(Ok(records.iter().map(|record| (record.offset, content(record))).collect()));
            }
        }
    }
}

fn content(record: &ConsumerRecord) -> String {
    let header = record.headers.text("n").unwrap_or("none");
    shown(&text(record.key.as_deref()), &text(record.value.as_deref()), header, record.timestamp)
}
