//! Producer ids: blocks from the controller, handed out one by one (Kafka's `RPCProducerIdManager`).
//!
//! The next block is asked for when nine tenths of the present one are given out. A client that comes while there is none
//! is told COORDINATOR_LOAD_IN_PROGRESS and comes again: so does the first of every broker.

use std::ops::Range;

use kafka_protocol::ResponseError;

/// How soon the controller is asked again after it refused.
const RETRY_MS: i64 = 50;

/// The producer ids of one broker.
#[derive(Clone, Debug, Default)]
pub struct ProducerIds {
    present: Range<i64>,
    /// When this one is given out, the next block is asked for.
    prefetch_at: i64,
    next: Option<Range<i64>>,
    asked: bool,
    /// The broker has not yet sent what was asked.
    to_send: bool,
    not_before_ms: i64,
}

impl ProducerIds {
    /// An id that nobody else gets.
    ///
    /// # Errors
    /// `COORDINATOR_LOAD_IN_PROGRESS` while a block is on its way.
    pub fn generate(&mut self, now_ms: i64) -> Result<i64, ResponseError> {
        if self.present.is_empty() {
            let Some(block) = self.next.take() else {
                self.ask(now_ms);
                return Err(ResponseError::CoordinatorLoadInProgress);
            };
            self.asked = false;
            self.prefetch_at = block.start + (block.end - block.start) * 9 / 10;
            self.present = block;
        }
        let id = self.present.next().ok_or(ResponseError::CoordinatorLoadInProgress)?;
        if id == self.prefetch_at {
            self.ask(now_ms);
        }
        Ok(id)
    }

    fn ask(&mut self, now_ms: i64) {
        if now_ms >= self.not_before_ms && self.next.is_none() && !self.asked {
            self.asked = true;
            self.to_send = true;
        }
    }

    /// Whether the controller must be asked for a block now. True once for each block.
    pub fn wants_block(&mut self) -> bool {
        std::mem::take(&mut self.to_send)
    }

    /// The controller's answer; `None` if it refused or did not come.
    pub fn block_came(&mut self, now_ms: i64, block: Option<Range<i64>>) {
        match block.filter(|block| block.start >= self.present.end) {
            Some(block) => self.next = Some(block),
            None => {
                self.asked = false;
                self.not_before_ms = now_ms + RETRY_MS;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_client_comes_again_and_the_next_block_is_asked_for_in_time() {
        let mut ids = ProducerIds::default();
        assert_eq!(ids.generate(0), Err(ResponseError::CoordinatorLoadInProgress));
        assert!(ids.wants_block());
        assert_eq!(ids.generate(0), Err(ResponseError::CoordinatorLoadInProgress));
        assert!(!ids.wants_block(), "one request is on its way");
        ids.block_came(1, Some(1000..1010));
        for id in 1000..1009 {
            assert!(!ids.wants_block(), "before {id}");
            assert_eq!(ids.generate(1), Ok(id));
        }
        assert_eq!(ids.generate(1), Ok(1009));
        assert!(ids.wants_block(), "nine tenths are given out");
        ids.block_came(2, Some(2000..2010));
        assert_eq!(ids.generate(2), Ok(2000));
    }

    #[test]
    fn a_refused_block_is_asked_for_again_after_a_pause() {
        let mut ids = ProducerIds::default();
        assert!(ids.generate(0).is_err());
        assert!(ids.wants_block());
        ids.block_came(10, None);
        assert!(ids.generate(59).is_err());
        assert!(!ids.wants_block());
        assert!(ids.generate(60).is_err());
        assert!(ids.wants_block());
    }
}
