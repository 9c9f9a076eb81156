//! How librdkafka's consumer ends, whoever holds it last.

use std::ops::Deref;
use std::sync::Arc;

use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::native;
use crate::rebalance::Callbacks;

/// A share in librdkafka's consumer. The last that is dropped ends it: politely if it was closed, else as a crashed process ends,
/// which leaves no group. It blocks then.
pub(crate) struct Held(Option<Arc<BaseConsumer<Callbacks>>>);

impl Held {
    pub(crate) fn new(base: Arc<BaseConsumer<Callbacks>>) -> Held {
        Held(Some(base))
    }
}

impl Deref for Held {
    type Target = BaseConsumer<Callbacks>;

    fn deref(&self) -> &BaseConsumer<Callbacks> {
        self.0.as_ref().expect("it is there until the drop")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(base) = self.0.take().and_then(Arc::into_inner) else { return };
        if base.context().leaves() {
            // This commits what auto-commit owes, leaves the group and waits for the answer.
            drop(base);
        } else {
            native::abandon(base);
        }
    }
}
